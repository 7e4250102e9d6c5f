"""The HTTP API: takes orders in, tells how they stand."""
