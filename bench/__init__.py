"""The benchmark: `make bench` measures the product and its yardsticks side by side in one run."""
