"""Names that the benchmark and its yardsticks share, without what the yardsticks import."""

STOCK_QUEUE = "celery"
"""Celery's default queue."""
