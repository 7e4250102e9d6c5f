"""What every answer says: its request's id, its version, and the line in the audit log."""

import json
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

import pytest
from flask import Request, Response
from structlog.testing import capture_logs
from werkzeug.test import EnvironBuilder

from api.access.audit import AUDIT_ORDERS_MAX, write_audit_line
from api.access.gate import Visit
from shared.access import Scope
from shared.order_store import access
from tests.unit.api.access.parts import Guarded, bearer, guard, id_of, rotate
from tests.unit.api.parts import Api, json_of, order_body, problem_of
from tests.unit.factories import NOON, make_order

Json = dict[str, Any]


@pytest.fixture(name="house")
def _house(guarded: Guarded) -> Guarded:
    guarded.keys["all"] = guarded.make_key(scope=Scope.ALL_ACCOUNTS)
    assert guarded.post("/v1/accounts", {"cash": 1000}, guarded.keys["all"]).status_code == 201
    guarded.keys["own"] = guarded.make_key(1)
    return guarded


# Request ids


@pytest.mark.parametrize("given", ["abc", "4bf92f35-77b3", "a" * 128, "1:2/3+4=5@6.7_8"])
def test_a_request_id_is_taken_over(house: Guarded, given: str) -> None:
    answer = house.http.get("/healthz", headers={"X-Request-Id": given})
    assert answer.headers["X-Request-Id"] == given


@pytest.mark.parametrize("given", ["", "a" * 129, "a b", 'a"b', "a{b", "<script>", "ä", "a,b"])
def test_an_odd_request_id_is_replaced(house: Guarded, given: str) -> None:
    answer = house.http.get("/healthz", headers={"X-Request-Id": given})
    assert answer.headers["X-Request-Id"] not in ("", given)


def test_ids_of_requests_are_all_different(house: Guarded, api: Api) -> None:
    other = guard(api)
    ids = [
        http.get("/healthz").headers["X-Request-Id"]
        for http in (house.http, other.http)
        for _ in range(50)
    ]
    assert len(set(ids)) == 100


def test_refusals_have_an_id_too(house: Guarded) -> None:
    assert house.get("/v1/accounts/1", x_request_id="mine").headers["X-Request-Id"] == "mine"


# Versions


def test_another_version_is_not_found_and_the_answer_names_those_there_are(
    house: Guarded,
) -> None:
    for path in ("/v2/accounts/1", "/v0/accounts", "/v10", "/v2/"):
        found = problem_of(house.get(path, house.keys["own"]), 404, "NOT_FOUND")
        assert "/v1" in found["detail"]
    plain = problem_of(house.get("/v1/nothing", house.keys["own"]), 404, "NOT_FOUND")
    assert "version" not in plain["detail"]


@pytest.mark.parametrize(
    ("accept", "status"),
    [
        ("application/json", 200),
        ("*/*", 200),
        ("application/json; version=1", 200),
        ("application/vnd.orders+json;version=1", 200),
        ('application/vnd.orders+json;version="1"', 200),
        ("application/json;version=2, application/json;version=1;q=0.5", 200),
        ("application/json;version=2", 406),
        ("application/vnd.orders+json; version=2", 406),
        ("application/json;version=", 406),
        ("application/json;Version=2", 406),
        ("application/vnd.orders.v1+json", 200),
        ("application/vnd.orders.v2+json, application/vnd.orders.v1+json;q=0.5", 200),
        ("application/vnd.orders.version+json", 200),
        ("application/vnd.v1a+json", 200),
        ("application/vnd.orders.v2+json", 406),
        ("application/vnd.orders.V2+json", 406),
        ("application/vnd.orders.v10", 406),
        ("application/vnd.orders.v2.order+json;q=0.9, text/html.v3", 406),
    ],
)
def test_a_client_may_ask_for_a_version(house: Guarded, accept: str, status: int) -> None:
    answer = house.get("/v1/accounts/1", house.keys["own"], accept=accept)
    assert answer.status_code == status
    if status == 406:
        problem_of(answer, 406, "NOT_ACCEPTABLE")


def test_paths_without_a_version_say_that_they_are_deprecated(house: Guarded) -> None:
    answer = house.get("/accounts/1", house.keys["own"])
    assert answer.status_code == 200
    at = int(answer.headers["Deprecation"].removeprefix("@"))
    assert datetime(2026, 1, 1, tzinfo=UTC).timestamp() < at < datetime.now(UTC).timestamp() + 1e8
    assert answer.headers["Link"] == '</v1/accounts/1>; rel="successor-version"'
    assert "Sunset" not in answer.headers
    versioned = house.get("/v1/accounts/1", house.keys["own"])
    assert not {"Deprecation", "Link", "Sunset"} & set(versioned.headers.keys())
    assert versioned.data == answer.data


def test_the_end_of_the_unversioned_paths_is_announced(make_api: Callable[..., Api]) -> None:
    house = guard(make_api(unversioned_sunset=date(2027, 6, 30)))
    answer = house.get("/accounts/1")
    ends = parsedate_to_datetime(answer.headers["Sunset"])
    assert ends == datetime(2027, 6, 30, tzinfo=UTC)
    assert ends.timestamp() > int(answer.headers["Deprecation"].removeprefix("@"))


def test_a_path_is_linked_without_what_would_end_the_field(house: Guarded) -> None:
    path = "/accounts/1/orders/%3E%0D%0AX-Evil:%201%22"
    answer = house.get(path, house.keys["own"])
    assert answer.status_code == 404
    link = answer.headers["Link"]
    assert link.startswith("</v1/accounts/1/orders/%3E%0D%0A")
    assert link.count(">") == 1


# The audit log


def audit(logged: list[Any]) -> list[Json]:
    return [dict(line) for line in logged if line["event"] == "request"]


def test_who_did_what_is_written_down(house: Guarded) -> None:
    key = house.keys["own"]
    with capture_logs() as logged:
        placed = house.post(
            "/v1/accounts/1/orders",
            order_body(),
            key,
            x_request_id="r1",
            idempotency_key="k",
        )
        house.post("/v1/accounts/1/orders", order_body(), key, idempotency_key="k")
    first, again = audit(logged)
    order_id = json_of(placed)["id"]
    assert first == {
        "event": "request",
        "log_level": "info",
        "module": "api.access.audit",
        "request_id": "r1",
        "key": id_of(key),
        "refused_key": None,
        "address": "127.0.0.1",
        "method": "POST",
        "route": "/v1/accounts/<account:account_id>/orders",
        "account": 1,
        "orders": [order_id],
        "status": 202,
        "replayed": False,
    }
    assert again["replayed"] is True
    assert again["orders"] == [order_id]


def test_a_new_account_is_named(house: Guarded) -> None:
    with capture_logs() as logged:
        house.post("/v1/accounts", {"cash": 1}, house.keys["all"])
    (line,) = audit(logged)
    assert (line["account"], line["orders"], line["status"]) == (2, [], 201)


def test_refused_attempts_are_written_down(house: Guarded) -> None:
    revoked = house.make_key(1)
    access.revoke_key(house.api.gateway, id_of(revoked), NOON)
    with capture_logs() as logged:
        house.post("/v1/accounts/1/orders", order_body())
        house.post("/v1/accounts/1/orders", order_body(), revoked)
        house.post("/v1/accounts/7/orders", order_body(), house.keys["own"])
        house.post("/v1/accounts", {"cash": 1}, house.keys["own"])
        house.post("/v1/accounts/1/orders", {"operation": "HOLD"}, house.keys["own"])
    own = id_of(house.keys["own"])
    assert [(one["key"], one["refused_key"], one["status"]) for one in audit(logged)] == [
        (None, None, 401),
        (None, id_of(revoked), 401),
        (own, None, 404),
        (own, None, 403),
        (own, None, 422),
    ]


def test_reads_are_not_written_down(house: Guarded) -> None:
    with capture_logs() as logged:
        house.get("/v1/accounts/1", house.keys["own"])
        house.http.options("/v1/accounts/1", headers=bearer(house.keys["own"]))
    assert audit(logged) == []


def test_many_orders_of_one_request_are_all_named(house: Guarded) -> None:
    bodies = [{"account_id": 1} | order_body(total_shares=number) for number in (1, 2, 3)]
    with capture_logs() as logged:
        answer = house.http.post(
            "/v1/orders/bulk",
            data="\n".join(map(json.dumps, bodies)),
            content_type="application/x-ndjson",
            headers=bearer(house.keys["own"]),
        )
        answer.close()
    (line,) = audit(logged)
    ids = [json.loads(one)["order"]["id"] for one in answer.data.splitlines()]
    assert len(ids) == 3
    assert line["orders"] == ids


def test_a_line_names_so_many_orders_and_no_more() -> None:
    request = Request(EnvironBuilder("/v1/orders/bulk", method="POST").get_environ())
    for orders in (AUDIT_ORDERS_MAX, AUDIT_ORDERS_MAX + 1):
        visit = Visit("192.0.2.1", orders=[make_order().id] * orders)
        with capture_logs() as logged:
            write_audit_line(request, Response(), visit, "r1")
        (line,) = audit(logged)
        assert len(line["orders"]) == AUDIT_ORDERS_MAX


def test_an_open_api_writes_no_audit_log_unless_it_is_told_to(
    make_api: Callable[..., Api],
) -> None:
    for settings, lines in (({}, 0), ({"audit_log": True}, 1)):
        house = guard(make_api(**settings))
        with capture_logs() as logged:
            house.post("/v1/accounts", {"cash": 1})
        assert len(audit(logged)) == lines


def test_an_audit_log_can_be_turned_off(make_api: Callable[..., Api]) -> None:
    house = guard(make_api(access_keys="required", audit_log=False))
    with capture_logs() as logged:
        house.post("/v1/accounts", {"cash": 1}, house.make_key(scope=Scope.OPERATOR))
    assert audit(logged) == []


def test_no_secret_is_ever_logged(house: Guarded) -> None:
    own, every = house.keys["own"], house.keys["all"]
    new = rotate(house.api, own, NOON, timedelta(hours=1))
    shown = [
        own,
        new,
        every,
        own[:-1],
        own + "x",
        new.swapcase(),
        own.replace(id_of(own), "f" * 12),
    ]
    with capture_logs() as logged:
        for key in shown:
            for send in (bearer(key), {"X-API-Key": key}, {"Authorization": key}):
                for path in (
                    "/v1/accounts/1/orders",
                    "/v1/accounts",
                    f"/v1/{key}",
                    "/v1/orders/bulk",
                ):
                    house.http.post(path, json=order_body(), headers=send | {"X-Request-Id": key})
        house.api.store.is_down = True
        house.monotonic.now += 60
        house.http.post("/v1/accounts/1/orders", json=order_body(), headers=bearer(own))
    assert len(audit(logged)) > 50
    written = json.dumps(logged, default=str)
    for key in shown:
        secret = key.partition(".")[2]
        assert secret[:20] not in written
