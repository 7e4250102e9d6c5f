"""A backlog with the store 5 ms away: what more worker processes bring where they wait."""

from bench.bed import Bed, Meter, answered_with, figure_of
from bench.loading import run_load
from bench.results import Figure, Row
from bench.stack import Stack, listens, module, must_be_ready, url_of
from bench.traffic import (
    order_requests,
    refs_of,
    seed_accounts,
    statuses_of,
    wait_for_first,
    wait_until_final,
)
from local.ports import free_port
from local.processes import Process

_SIZES = (1, 2, 4)
_DELAY_MS = 5
_CONNECTIONS = 4
_ORDERS_PER_SECOND = 150
"""Of the run's seconds: one process works off about as many."""


def scale(bed: Bed) -> None:
    """Each size in turn, in every round."""
    port = free_port()
    proxy = bed.process(
        "slow_proxy",
        module("bench.delay_proxy", str(port), str(bed.engines.dynamodb_port), str(_DELAY_MS)),
        bed.stack.env,
    )
    with Stack(bed.engines, workers=False) as stack:
        accounts = seed_accounts(
            bed.engines, stack.table_name, round(_ORDERS_PER_SECOND * bed.options.seconds)
        )
        try:
            proxy.start()
            must_be_ready(proxy, lambda: listens(port))
            for _ in range(bed.options.rounds):
                for size in _SIZES:
                    row = Row(
                        f"workers_{size}",
                        f"drain, store {_DELAY_MS} ms away, worker processes: {size}",
                        "orders/s",
                    )
                    bed.results.add(row, _drain(bed, stack, accounts, size, port, proxy))
        finally:
            proxy.stop()


def _drain(
    bed: Bed, stack: Stack, accounts: list[int], size: int, port: int, proxy: Process
) -> Figure:
    # Few connections, so that messages name few orders, as they do at a steady rate.
    requests = order_requests(accounts, len(accounts))
    accepted = run_load(bed.job(stack.port, requests, keep=True, connections=_CONNECTIONS))
    orders = answered_with(accepted, 202)
    messages = stack.messages_waiting()
    settings = {"AWS_ENDPOINT_URL_DYNAMODB": url_of(port), "WORKER_PROCESSES": str(size)}
    stack.start_worker(env=settings, wait=False)
    try:
        started_at = wait_for_first(stack, messages)
        meter = Meter({**stack.parts, "proxy": [proxy]})
        seconds = wait_until_final(stack) - started_at
        cpu = meter.used()
    finally:
        stack.stop_workers()
    statuses_of(stack, refs_of(accepted.locations))
    return figure_of(orders / seconds, orders, cpu, notes={"orders": orders, "messages": messages})
