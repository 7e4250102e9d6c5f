"""GET of an order: final and cached, pending and not, and a bare Flask route beside them."""

from bench.bed import Bed, answered_with, figure_of, measured_load
from bench.delay_proxy import requests_passed
from bench.loading import run_load
from bench.results import Figure, Row
from bench.stack import answers, module, must_be_ready, stop_together, url_of
from bench.traffic import Requests
from local import commands
from local.ports import free_port

BARE = Row("bare", "bare Flask route", "requests/s")
FINAL = Row("get_final", "GET of a final order, cached, asked again and again", "requests/s")
FIRST = Row("get_first", "GET of a final order, cached, asked once (Redis)", "requests/s")
FINAL_CALLS = Row("get_final_calls", "calls to DynamoDB by those", "calls")
FINAL_COUNTED = Row("get_final_counted", "GETs of which calls were counted", "requests")

_COUNTED = 500
_POLLED = 500
"""Orders that are asked for again and again: fewer than a process remembers."""


def read(bed: Bed) -> None:
    """The cached reads and their yardstick; needs orders that are final."""
    bed.results.add(BARE, _gets(bed, bed.bare.port, [("GET", "/order", "")]))
    finals: Requests = [("GET", path, "") for path in bed.finals]
    # Both API processes serve, so hardly any of these was asked of the same one before.
    bed.results.add(FIRST, _gets(bed, bed.stack.port, finals[_POLLED:], cycle=False))
    bed.results.add(FINAL, _gets(bed, bed.stack.port, finals[:_POLLED]))


def count_calls(bed: Bed) -> None:
    """Count the calls to DynamoDB behind cached reads, through an API that has a proxy to it."""
    proxy_port, api_port = free_port(), free_port()
    proxy = bed.process(
        "count_proxy",
        module("bench.delay_proxy", str(proxy_port), str(bed.engines.dynamodb_port), "0"),
        bed.stack.env,
    )
    settings = {"AWS_ENDPOINT_URL_DYNAMODB": url_of(proxy_port), "API_PORT": str(api_port)}
    api = bed.process("counted_api", commands.api(), bed.stack.env | settings)
    try:
        proxy.start()
        api.start()
        must_be_ready(api, lambda: answers(f"{url_of(api_port)}/readyz"))
        _count(bed, proxy_port, api_port)
    finally:
        stop_together([api, proxy])


def _count(bed: Bed, proxy_port: int, api_port: int) -> None:
    # An account is never cached: if its read is not counted, neither is anything else.
    account = bed.finals[0].rpartition("/orders/")[0]
    before = requests_passed(proxy_port)
    run_load(bed.job(api_port, [("GET", account, "")], connections=1))
    if requests_passed(proxy_port) != before + 1:
        raise RuntimeError("the proxy does not count what passes it")
    before += 1
    finals = [("GET", path, "") for path in bed.finals[:_COUNTED]]
    outcome = run_load(bed.job(api_port, finals, connections=8))
    calls = requests_passed(proxy_port) - before
    bed.results.add(FINAL_CALLS, Figure(calls))
    bed.results.add(FINAL_COUNTED, Figure(answered_with(outcome, 200)))


def _gets(bed: Bed, port: int, requests: Requests, *, cycle: bool = True) -> Figure:
    job = bed.job(port, requests, cycle=cycle, seconds=bed.options.seconds / 2)
    outcome, cpu = measured_load(bed, job)
    number = answered_with(outcome, 200)
    return figure_of(number / outcome.seconds, number, cpu, outcome)
