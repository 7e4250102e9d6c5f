"""Latency at a steady rate, each request counted from the time at which it was due."""

from bench.bed import Bed, Meter, answered_with, figure_of
from bench.figures import percentile
from bench.load import Outcome
from bench.loading import run_load
from bench.results import Figure, Row
from bench.traffic import order_requests, refs_of, statuses_of
from bench.usage import Cpu

BARE = Row("steady_bare", "bare Flask route at 100/s, p99", "ms")
RECORDED = Row("steady_recorded", "bare route, one transaction, at 100/s, p99", "ms")
DECIDED = Row("steady_decided", "bare route, all calls of an order, at 100/s, p99", "ms")
TO_202 = Row("steady_202", "POST to 202 at 100/s, p99", "ms")
TO_FINAL = Row("steady_final", "POST to final at 100/s, p99", "ms")

_TIMES_LONGER = 2
"""A p99 needs more requests than a rate does."""

_SHARES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}
_WRITTEN_STRINGS = "K$"
"""Redis tells of every string that is written, and of nothing else."""


def steady(bed: Bed) -> None:
    """The bare routes, then orders, at the same rate."""
    number = round(bed.options.rate * bed.options.seconds * _TIMES_LONGER)
    for row, path in ((BARE, "/order"), (RECORDED, "/recorded"), (DECIDED, "/decided")):
        _bare(bed, row, path, number)
    _orders(bed, number)


def _bare(bed: Bed, row: Row, path: str, number: int) -> None:
    meter = Meter(bed.parts())
    bare = run_load(bed.job(bed.bare.port, [("GET", path, "")] * number, rate=bed.options.rate))
    answered_with(bare, 200)
    bed.results.add(row, _figure(bare.latencies, bare, meter.used()))


def _orders(bed: Bed, number: int) -> None:
    redis = bed.engines.redis_client(0)
    redis.config_set("notify-keyspace-events", _WRITTEN_STRINGS)
    watch = (bed.engines.redis_port, bed.stack.cache_database)
    requests = order_requests(bed.wide, number)
    job = bed.job(bed.stack.port, requests, rate=bed.options.rate, keep=True, watch=watch)
    meter = Meter(bed.parts())
    try:
        outcome = run_load(job)
    finally:
        redis.config_set("notify-keyspace-events", "")
    cpu = meter.used()
    answered_with(outcome, 202)
    statuses_of(bed.stack, refs_of(outcome.locations))
    if outcome.unseen:
        raise RuntimeError(f"{outcome.unseen} orders were never seen to be final")
    bed.results.add(TO_202, _figure(outcome.latencies, outcome, cpu))
    bed.results.add(TO_FINAL, _figure(outcome.finals, outcome, cpu))


def _figure(seconds: list[float], outcome: Outcome, cpu: Cpu) -> Figure:
    shown = {name: round(1000 * percentile(seconds, share), 2) for name, share in _SHARES.items()}
    return figure_of(shown["p99"], len(seconds), cpu, outcome, shown)
