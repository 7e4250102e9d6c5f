"""The embedded mode: the engines and every process of the project on one machine."""
