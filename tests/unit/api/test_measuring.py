"""Requests as the metrics count them, and who may look at the metrics."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from flask import Flask

from api import measuring
from shared import metrics, metrics_folder
from shared.access import Scope
from shared.metrics import Key, snapshot
from tests.unit.api.access.parts import guard
from tests.unit.api.parts import Api, order_body
from tests.unit.factories import order_id

ORDERS = "/v1/accounts/<account:account_id>/orders"


@pytest.fixture(autouse=True)
def _counting() -> Iterator[None]:
    metrics.start_counting()
    yield
    metrics.stop_counting()


def requests_counted() -> dict[tuple[str, ...], float]:
    """Requests by route, method, status, and whether they asked to wait."""
    return {
        key.labels: number
        for key, number in snapshot().items()
        if key.name == metrics.REQUEST_SECONDS.name
    }


def test_requests_are_counted_by_route_method_and_status(api: Api) -> None:
    account = api.open_account()
    for _ in range(3):
        api.get(f"/v1/accounts/{account}")
    api.get("/v1/accounts/99")
    api.post(f"/v1/accounts/{account}/orders", order_body())

    assert requests_counted() == {
        ("/v1/accounts", "POST", "201", "no"): 1,
        ("/v1/accounts/<account:account_id>", "GET", "200", "no"): 3,
        ("/v1/accounts/<account:account_id>", "GET", "404", "no"): 1,
        (ORDERS, "POST", "202", "no"): 1,
    }


def test_clients_cannot_invent_numbers(api: Api) -> None:
    for number in range(5):
        api.get(f"/nowhere/{number}")
        api.http.open(f"/v1/accounts/{number}", method=f"METHOD{number}")

    found = requests_counted()
    assert {labels[:2] for labels in found} == {("other", "GET"), ("other", "other")}
    assert sum(found.values()) == 10


def test_who_asks_to_wait_is_counted_apart(api: Api) -> None:
    account = api.open_account()
    api.get(f"/v1/accounts/{account}/orders/{order_id(1)}?wait=0")
    body, prefers = order_body(), {"Prefer": "wait=0"}
    api.http.post(f"/v1/accounts/{account}/orders", json=body, headers=prefers)

    assert requests_counted()[ORDERS + "/<order_id>", "GET", "404", "yes"] == 1
    assert requests_counted()[ORDERS, "POST", "202", "yes"] == 1


def test_a_failure_of_ours_is_counted_too(api: Api) -> None:
    api.store.is_down = True
    assert api.get("/v1/accounts/1").status_code == 503

    assert requests_counted() == {("/v1/accounts/<account:account_id>", "GET", "503", "no"): 1}
    assert snapshot()[Key("orders_http_problems_total", ("STORE_UNAVAILABLE",))] == 1
    assert snapshot()[Key("orders_dependency_errors_total", ("store", "unavailable"))] == 2
    assert snapshot()[Key("orders_store_calls_total", ("get_item", "unavailable"))] == 2
    assert snapshot()[Key("orders_store_retries_total", ("get_item",))] == 1


def test_accepted_orders_and_their_groups_are_counted(api: Api) -> None:
    account = api.open_account()
    for _ in range(2):
        api.post(f"/v1/accounts/{account}/orders", order_body())

    assert snapshot()[Key("orders_accepted_total", ("order",))] == 2
    assert snapshot()[Key("orders_accepted_total", ("account",))] == 1
    assert snapshot()[Key("orders_accept_group_size", ())] == 3


def test_orders_that_were_not_announced_are_counted(api: Api) -> None:
    account = api.open_account()
    api.queue.is_down = True
    api.post(f"/v1/accounts/{account}/orders", order_body())

    assert snapshot()[Key("orders_left_to_sweeper_total", ())] == 1


def test_where_metrics_are_off_nothing_stands_between(make_api: Callable[..., Api]) -> None:
    api = make_api(metrics=False)
    account = api.open_account()

    assert api.get(f"/v1/accounts/{account}").status_code == 200
    assert api.get("/metrics").status_code == 404
    assert requests_counted() == {}
    assert isinstance(api.http.application, Flask)
    assert api.http.application.wsgi_app.__module__ != measuring.__name__


def test_metrics_are_for_operators_alone(
    make_api: Callable[..., Api], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv(metrics_folder.VARIABLE, raising=False)
    house = guard(make_api(access_keys="required"))
    keys = {scope: house.make_key(1, scope=scope) for scope in Scope}

    answers = {scope: house.get("/metrics", key).status_code for scope, key in keys.items()}

    # Nobody made a folder here, so an operator finds nothing.
    assert answers == {Scope.ACCOUNTS: 403, Scope.ALL_ACCOUNTS: 403, Scope.OPERATOR: 404}
    assert house.get("/metrics").status_code == 401


def test_without_keys_metrics_are_for_this_machine_alone(api: Api) -> None:
    there = {"REMOTE_ADDR": "192.0.2.7"}

    assert api.http.get("/metrics", environ_base=there).status_code == 403


@pytest.mark.parametrize(
    "accept",
    ["application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"],
)
def test_the_versions_that_prometheus_names_are_not_those_of_this_api(
    api: Api, accept: str
) -> None:
    answer = api.http.get("/metrics", headers={"Accept": accept})

    assert answer.status_code != 406
    assert api.http.get("/healthz", headers={"Accept": accept}).status_code == 406


MICROSECONDS_MAX = 5.0


def test_counting_a_request_costs_next_to_nothing() -> None:
    class Asked:
        class url_rule:  # noqa: N801 - as werkzeug calls it
            rule = ORDERS

    environ = {"werkzeug.request": Asked, "QUERY_STRING": "", "REQUEST_METHOD": "GET"}

    def serve(_environ: object, start: Callable[[str, list[str]], None]) -> tuple[bytes, ...]:
        start("200 OK", [])
        return ()

    def seconds(one: Callable[..., object], rounds: int = 2_000) -> float:
        began = time.process_time()
        for _ in range(rounds):
            one(environ, lambda *_: None)
        return (time.process_time() - began) / rounds

    counted = measuring._counted(serve)
    extra = min(seconds(counted) - seconds(serve) for _ in range(10))

    assert requests_counted()[ORDERS, "GET", "200", "no"] == 20_000
    assert extra * 1e6 < MICROSECONDS_MAX
