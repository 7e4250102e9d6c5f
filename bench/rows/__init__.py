"""The rows of the benchmark, in groups that run one after the other in each round."""
