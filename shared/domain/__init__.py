"""The business of the house, pure: no clock, no I/O, nothing but the standard library."""
