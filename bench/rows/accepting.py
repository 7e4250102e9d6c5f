"""Orders from their POST until all are final; the classic endpoint beside them."""

import json

from bench.bed import Bed, Meter, answered_with, figure_of, measured_load
from bench.load import Outcome
from bench.loading import run_load
from bench.results import Figure, Row
from bench.traffic import (
    JSON_HEADERS,
    Requests,
    order_requests,
    refs_of,
    seed_accounts,
    statuses_of,
    wait_until_final,
)
from bench.usage import Cpu
from local import commands

CLASSIC = Row("classic", "classic sync endpoint, distinct accounts", "orders/s")
DISTINCT = Row("distinct", "POST to final, distinct accounts", "orders/s")
HOT = Row("hot", "POST to final, 20 accounts", "orders/s")
SINGLE = Row("single", "POST to final, one account", "orders/s")
BULK = Row("bulk", "bulk to final, distinct accounts", "orders/s")
QUIET = Row("quiet", "POST to final without Flower and events", "orders/s")

_HOT_ACCOUNTS = 20
_BULK_PATH = "/v1/orders/bulk"
_BULK_LINES = 1_000
_BULK_CONNECTIONS = 4
_BULK_HEADERS = {"Content-Type": "application/x-ndjson"}
_ORDERS_PER_SECOND = 4_000
"""Requests made ready for each second of load: more than can be sent."""


def accept(bed: Bed) -> None:
    """The rows that compare with the classic endpoint, and with one another."""
    bed.results.add(CLASSIC, _classic(bed))
    bed.results.add(DISTINCT, distinct(bed))
    bed.results.add(HOT, _over(bed, _HOT_ACCOUNTS))
    bed.results.add(SINGLE, _over(bed, 1))
    if _has_bulk(bed):
        bed.results.add(BULK, _bulk(bed))
    else:
        bed.results.leave_out(BULK, f"there is no {_BULK_PATH}")


def quiet(bed: Bed) -> None:
    """The first row again with a worker that sends no events, and no Flower to hear them."""
    stack = bed.stack
    stack.stop_flower()
    stack.stop_workers()
    stack.start_worker(_quiet_worker)
    try:
        bed.results.add(QUIET, distinct(bed))
    finally:
        stack.stop_workers()
        stack.start_worker()
        stack.start_flower()


def distinct(bed: Bed) -> Figure:
    """Each order on an account of its own."""
    requests = order_requests(bed.wide, wanted(bed))
    figure, outcome = _to_final(bed, requests)
    bed.finals = outcome.locations
    return figure


def wanted(bed: Bed) -> int:
    """How many requests to make ready for one row."""
    return round(_ORDERS_PER_SECOND * bed.options.seconds)


def _classic(bed: Bed) -> Figure:
    requests = [
        (method, path.removeprefix("/v1"), body)
        for method, path, body in order_requests(bed.wide, wanted(bed))
    ]
    outcome, cpu = measured_load(bed, bed.job(bed.classic.port, requests))
    orders = answered_with(outcome, 200)
    return figure_of(orders / outcome.seconds, orders, cpu, outcome)


def _over(bed: Bed, number: int) -> Figure:
    """Orders over a few accounts, new ones so that each round meets the same."""
    accounts = seed_accounts(bed.engines, bed.stack.table_name, number)
    return _to_final(bed, order_requests(accounts, wanted(bed)))[0]


def _to_final(bed: Bed, requests: Requests) -> tuple[Figure, Outcome]:
    meter = Meter(bed.parts())
    outcome = run_load(bed.job(bed.stack.port, requests, keep=True))
    seconds = wait_until_final(bed.stack) - outcome.started_at
    cpu: Cpu = meter.used()
    orders = answered_with(outcome, 202)
    statuses = dict(statuses_of(bed.stack, refs_of(outcome.locations)))
    accepted = round(orders / outcome.seconds, 1)
    notes = {"orders": orders, "accepted_per_second": accepted, "became": statuses}
    return figure_of(orders / seconds, orders, cpu, outcome, notes), outcome


def _has_bulk(bed: Bed) -> bool:
    probe = bed.job(
        bed.stack.port, [("OPTIONS", _BULK_PATH, "")], connections=1, headers=JSON_HEADERS
    )
    return "404" not in run_load(probe).statuses


def _bulk(bed: Bed) -> Figure:
    lines = [_bulk_line(path, body) for _, path, body in order_requests(bed.wide, wanted(bed) * 5)]
    bodies = ["\n".join(lines[at : at + _BULK_LINES]) for at in range(0, len(lines), _BULK_LINES)]
    requests = [("POST", _BULK_PATH, body) for body in bodies]
    meter = Meter(bed.parts())
    job = bed.job(bed.stack.port, requests, connections=_BULK_CONNECTIONS, headers=_BULK_HEADERS)
    outcome = run_load(job)
    seconds = wait_until_final(bed.stack) - outcome.started_at
    cpu = meter.used()
    answered = outcome.answers
    if answered_with(outcome, 200) != answered:
        raise RuntimeError(f"expected 200, got {outcome.statuses}")
    orders = answered * _BULK_LINES
    return figure_of(orders / seconds, orders, cpu, outcome, {"orders": orders})


def _bulk_line(path: str, body: str) -> str:
    account_id = int(path.split("/")[3])
    return json.dumps({"account_id": account_id, **json.loads(body)})


def _quiet_worker(node: str) -> list[str]:
    return [
        "--app=bench.quiet_worker" if part.startswith("--app=") else part
        for part in commands.worker(node)
    ]
