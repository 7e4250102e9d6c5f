"""A backlog worked off: orders by our worker, empty tasks by a stock one; and reads meanwhile."""

import json
import subprocess
import time

from bench.bed import Bed, Meter, answered_with, figure_of, measured_load
from bench.loading import run_load
from bench.results import Row
from bench.rows.accepting import wanted
from bench.stack import module
from bench.traffic import (
    order_requests,
    refs_of,
    statuses_of,
    wait_for_first,
    wait_until_final,
)
from bench.usage import cpu_between, cpu_seconds
from bench.yardsticks.names import STOCK_QUEUE
from local import commands

PENDING = Row("get_pending", "GET of a pending order", "requests/s")
DRAIN = Row("drain", "drain of a backlog", "orders/s")
STOCK = Row("stock", "stock Celery worker, empty tasks", "tasks/s")
PUBLISH = Row("publish", "stock Celery publishing, one process", "tasks/s")

_TASKS_PER_SECOND = 1_000
_POLL_SECONDS = 0.005
_STOCK_SECONDS_MAX = 120
_UNACKNOWLEDGED = "unacked"


def drain(bed: Bed) -> None:
    """Accept orders with no worker there, read some, then start a worker.

    Time runs from the first message that the worker takes: its start is left out, as it is for the
    stock worker.
    """
    stack = bed.stack
    stack.stop_workers()
    try:
        requests = order_requests(bed.wide, wanted(bed))
        accepted = run_load(bed.job(stack.port, requests, keep=True))
        orders = answered_with(accepted, 202)
        _read_pending(bed, accepted.locations)
        messages = stack.messages_waiting()
        stack.start_worker(wait=False)
        started_at = wait_for_first(stack, messages)
        meter = Meter(bed.parts())
        seconds = wait_until_final(stack) - started_at
        cpu = meter.used()
    except BaseException:
        stack.stop_workers()
        stack.start_worker()
        raise
    became = dict(statuses_of(stack, refs_of(accepted.locations)))
    notes = {"orders": orders, "messages": messages, "became": became}
    bed.results.add(DRAIN, figure_of(orders / seconds, orders, cpu, notes=notes))


def stock(bed: Bed) -> None:
    """Celery as it comes, on the same broker: publish tasks, then start a worker."""
    tasks = round(_TASKS_PER_SECOND * bed.options.seconds)
    redis = bed.engines.redis_client(bed.stock_database)
    published = _publish(bed, tasks)
    cpu = {"publisher": published["cpu_seconds"]}
    bed.results.add(PUBLISH, figure_of(tasks / published["seconds"], tasks, cpu))

    waiting = redis.llen(STOCK_QUEUE)
    worker = bed.process("stock", _stock_worker(), bed.stock_environment())
    worker.start()
    parts = {"stock": [worker], "redis": [bed.engines.redis]}
    deadline = time.monotonic() + _STOCK_SECONDS_MAX
    try:
        while redis.llen(STOCK_QUEUE) >= waiting and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
        started_at, before = time.monotonic(), cpu_seconds(parts)
        while redis.llen(STOCK_QUEUE) + redis.hlen(_UNACKNOWLEDGED):
            if time.monotonic() > deadline:
                raise RuntimeError("the stock worker did not finish")
            time.sleep(_POLL_SECONDS)
        seconds = time.monotonic() - started_at
        cpu = cpu_between(before, cpu_seconds(parts))
    finally:
        worker.stop()
        redis.flushdb()
    bed.results.add(STOCK, figure_of(waiting / seconds, waiting, cpu))


def _read_pending(bed: Bed, paths: list[str]) -> None:
    requests = [("GET", path, "") for path in paths]
    job = bed.job(bed.stack.port, requests, cycle=True, seconds=bed.options.seconds / 2)
    outcome, cpu = measured_load(bed, job)
    number = answered_with(outcome, 200)
    bed.results.add(PENDING, figure_of(number / outcome.seconds, number, cpu, outcome))


def _publish(bed: Bed, tasks: int) -> dict[str, float]:
    done = subprocess.run(
        module("bench.yardsticks.stock", str(tasks)),
        cwd=commands.ROOT,
        env=bed.stock_environment(),
        capture_output=True,
        text=True,
        timeout=_STOCK_SECONDS_MAX,
        check=True,
    )
    published: dict[str, float] = json.loads(done.stdout)
    return published


def _stock_worker() -> list[str]:
    return module(
        "celery",
        "--app=bench.yardsticks.stock",
        "--quiet",
        "worker",
        "--concurrency=2",
        "--loglevel=WARNING",
        "--hostname=stock@%h",
    )
