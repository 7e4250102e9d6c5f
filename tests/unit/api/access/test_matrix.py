"""Every route with every kind of key: who gets in, and what the others are told."""

import itertools
import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from flask import Flask
from werkzeug.routing import Rule
from werkzeug.test import TestResponse

from api.access import NEEDS, UNVERSIONED, Need
from shared.access import Scope
from shared.order_store import access
from tests.unit.api.access.parts import Guarded, bearer, guard, id_of, rotate
from tests.unit.api.parts import Api, json_of, order_body, problem_of
from tests.unit.factories import NOON, make_order, seconds

OWN, FOREIGN, MISSING = 1, 2, 9
SECRET_CASH = "98765.4321"
GRACE = timedelta(minutes=10)

BODIES = {"accounts.open_account": {"cash": 1}, "orders.place": order_body()}

STRANGERS = {
    "none": "KEY_REQUIRED",
    "nonsense": "KEY_REFUSED",
    "unknown": "KEY_REFUSED",
    "wrong secret": "KEY_REFUSED",
    "revoked": "KEY_REFUSED",
    "expired": "KEY_REFUSED",
    "expired operator": "KEY_REFUSED",
    "rotated, after the grace": "KEY_REFUSED",
}
HOLDERS = {
    "foreign": "foreign",
    "own": "own",
    "own among others": "own",
    "rotated, within the grace": "own",
    "rotated, new secret": "own",
    "good until later": "own",
    "all accounts": "all",
    "operator": "operator",
}
GETS_IN = {
    Need.PROBE: {"foreign", "own", "all", "operator"},
    Need.NOTHING: {"foreign", "own", "all", "operator"},
    Need.KEY: {"foreign", "own", "all", "operator"},
    Need.ACCOUNT: {"own", "all", "operator"},
    Need.ALL_ACCOUNTS: {"all", "operator"},
    Need.OPERATOR: {"operator"},
}
ENDLESS = "text/event-stream"
OPEN = {Need.PROBE, Need.NOTHING}
REFUSALS = {"KEY_REQUIRED", "KEY_REFUSED", "FORBIDDEN", "ACCOUNT_NOT_FOUND"}


@pytest.fixture(name="house")
def _house(guarded: Guarded) -> Guarded:
    """Two accounts, and everybody's keys."""
    for cash in ("1000", SECRET_CASH):
        opener = guarded.make_key(scope=Scope.ALL_ACCOUNTS)
        assert guarded.post("/v1/accounts", {"cash": cash}, opener).status_code == 201
    guarded.keys = keys_of_everybody(guarded)
    return guarded


def keys_of_everybody(guarded: Guarded) -> dict[str, str]:
    api = guarded.api
    make = guarded.make_key
    revoked, late, early = make(OWN), make(OWN), make(OWN)
    access.revoke_key(api.gateway, id_of(revoked), NOON - seconds(1))
    own = make(OWN)
    other = make(OWN)
    keys = {
        "nonsense": "op_live_0123",
        "unknown": own.replace(id_of(own), "ffffffffffff"),
        "wrong secret": own.partition(".")[0] + "." + other.partition(".")[2],
        "revoked": revoked,
        "expired": make(OWN, expires_at=NOON),
        "expired operator": make(scope=Scope.OPERATOR, expires_at=NOON - seconds(1)),
        "rotated, after the grace": late,
        "foreign": make(FOREIGN),
        "own": own,
        "own among others": make(OWN, 77),
        "rotated, within the grace": early,
        "good until later": make(OWN, expires_at=NOON + seconds(1)),
        "all accounts": make(scope=Scope.ALL_ACCOUNTS),
        "operator": make(scope=Scope.OPERATOR),
    }
    rotate(api, late, NOON - GRACE, GRACE)
    keys["rotated, new secret"] = rotate(api, early, NOON - GRACE + seconds(1), GRACE)
    return keys


def rules_of(app: Flask) -> Iterator[tuple[Rule, str]]:
    """Every route with each of its methods."""
    for rule in app.url_map.iter_rules():
        for method in sorted(rule.methods or ()):
            yield rule, method


def path_of(app: Flask, rule: Rule, account_id: int = OWN) -> str:
    files = {"file_name": "page.js", "name": "start.js"}
    values = {"account_id": account_id, "order_id": make_order().id, **files}
    adapter = app.url_map.bind("localhost")
    return str(adapter.build(rule.endpoint, {name: values[name] for name in rule.arguments}))


def call(guarded: Guarded, path: str, method: str, endpoint: str, key: str | None) -> TestResponse:
    body = BODIES.get(endpoint.removeprefix(UNVERSIONED), {})
    sent: dict[str, Any] = {"json": body} if method in ("POST", "PUT", "PATCH") else {}
    answer = guarded.http.open(path, method=method, headers=bearer(key), **sent)
    if answer.mimetype == ENDLESS:
        # Its first piece was made; nobody waits for the rest.
        answer.close()
        answer.response = []
    return answer


def need_of(rule: Rule) -> Need:
    return NEEDS[rule.endpoint.removeprefix(UNVERSIONED)]


def code_of(answer: TestResponse) -> str | None:
    if answer.mimetype != "application/problem+json" or not answer.data:
        return None
    return str(json_of(answer)["code"])


def test_every_route_says_what_it_needs(guarded: Guarded) -> None:
    endpoints = {rule.endpoint for rule, _ in rules_of(guarded.http.application)}
    assert {endpoint.removeprefix(UNVERSIONED) for endpoint in endpoints} == set(NEEDS)


def test_only_what_tells_nothing_is_open(guarded: Guarded) -> None:
    assert {name for name, need in NEEDS.items() if need is Need.PROBE} == {
        "health.alive",
        "health.ready",
    }


def test_who_has_no_good_key_gets_in_nowhere(house: Guarded) -> None:
    app = house.http.application
    seen = 0
    for (rule, method), (who, code) in itertools.product(rules_of(app), STRANGERS.items()):
        answer = call(house, path_of(app, rule), method, rule.endpoint, house.keys.get(who))
        if need_of(rule) in OPEN:
            assert answer.status_code == 200, (rule, who)
            continue
        seen += 1
        assert answer.status_code == 401, (rule, method, who, answer.text)
        assert answer.headers["WWW-Authenticate"] == 'Bearer realm="orders"'
        if method != "HEAD":
            problem_of(answer, 401, code)
    assert seen > 50


def test_each_key_gets_in_where_its_scope_reaches(house: Guarded) -> None:
    app = house.http.application
    for (rule, method), (who, kind) in itertools.product(rules_of(app), HOLDERS.items()):
        answer = call(house, path_of(app, rule), method, rule.endpoint, house.keys[who])
        where = (str(rule), method, who, answer.status_code, answer.text[:200])
        if kind in GETS_IN[need_of(rule)]:
            assert code_of(answer) not in REFUSALS, where
            assert answer.status_code < 500, where
            assert answer.status_code not in (401, 403), where
        else:
            expected = 404 if need_of(rule) is Need.ACCOUNT else 403
            assert answer.status_code == expected, where
            if method != "HEAD":
                assert code_of(answer) in REFUSALS, where


def test_an_existing_account_of_others_looks_as_a_missing_one(house: Guarded) -> None:
    app = house.http.application
    # From here on the gate knows the key and the networks.
    assert house.get(f"/v1/accounts/{OWN}", house.keys["own"]).status_code == 200
    house.api.store.calls.clear()
    compared = 0
    for rule, method in rules_of(app):
        if need_of(rule) is not Need.ACCOUNT:
            continue
        answers = []
        for account_id in (FOREIGN, MISSING):
            path = path_of(app, rule, account_id)
            answers.append(call(house, path, method, rule.endpoint, house.keys["own"]))
        existing, missing = answers
        compared += 1
        assert existing.status_code == missing.status_code == 404
        assert existing.text.replace(f"account {FOREIGN}", f"account {MISSING}") == missing.text
        assert fields(existing, FOREIGN) == fields(missing, MISSING)
    assert compared >= 8
    # The store was asked nothing, so that nothing can show in the time it takes.
    assert house.api.store.calls == []


def fields(answer: TestResponse, account_id: int) -> dict[str, str]:
    found = {name: value for name, value in answer.headers if name != "X-Request-Id"}
    return {name: value.replace(f"accounts/{account_id}", "") for name, value in found.items()}


def test_a_missing_account_of_others_is_answered_as_one_that_the_key_reaches(
    house: Guarded,
) -> None:
    foreign = house.get(f"/v1/accounts/{FOREIGN}", house.keys["own"])
    missing = house.get(f"/v1/accounts/{MISSING}", house.keys["operator"])
    assert problem_of(foreign, 404, "ACCOUNT_NOT_FOUND") | {"detail": ""} == problem_of(
        missing, 404, "ACCOUNT_NOT_FOUND"
    ) | {"detail": ""}


def test_a_bulk_line_for_an_account_of_others_is_answered_as_for_a_missing_one(
    house: Guarded,
) -> None:
    lines = [json.dumps({"account_id": one} | order_body()) for one in (OWN, FOREIGN, MISSING)]
    answer = house.http.post(
        "/v1/orders/bulk",
        data="\n".join(lines),
        content_type="application/x-ndjson",
        headers=bearer(house.keys["own"]),
    )
    own, foreign, missing = map(json.loads, answer.data.splitlines())
    assert own["status"] == 202
    assert foreign["status"] == missing["status"] == 404
    assert foreign["problem"] | {"detail": ""} == missing["problem"] | {"detail": ""}
    assert house.get(f"/v1/accounts/{FOREIGN}/orders", house.keys["operator"]).get_json() == {
        "orders": [],
        "next_cursor": None,
    }


def test_a_route_that_nobody_declared_lets_nobody_in(make_api: Callable[..., Api]) -> None:
    needs = {name: need for name, need in NEEDS.items() if name != "accounts.show"}
    for settings in ({"access_keys": "required"}, {"access_keys": "off"}):
        guarded = guard(make_api(**settings), needs=needs)
        operator = guarded.make_key(scope=Scope.OPERATOR)
        for path in ("/v1/accounts/1", "/accounts/1"):
            problem_of(guarded.get(path, operator), 403, "FORBIDDEN")


def test_a_route_that_needs_an_account_but_names_none_lets_nobody_in(
    make_api: Callable[..., Api],
) -> None:
    needs = dict(NEEDS) | {"accounts.open_account": Need.ACCOUNT}
    guarded = guard(make_api(access_keys="required"), needs=needs)
    operator = guarded.make_key(scope=Scope.OPERATOR)
    problem_of(guarded.post("/v1/accounts", {"cash": 1}, operator), 403, "FORBIDDEN")


def test_operators_alone_see_which_dependency_fails(house: Guarded) -> None:
    house.api.queue.is_down = True
    for who in ("own", "all accounts", "revoked", "expired operator"):
        assert json_of(house.get("/readyz", house.keys[who])) == {"status": "degraded"}
    assert json_of(house.get("/readyz")) == {"status": "degraded"}
    assert json_of(house.get("/readyz", house.keys["operator"]))["checks"]["broker"] != "ok"


def test_a_path_that_does_not_exist_is_told_to_holders_of_a_key_alone(house: Guarded) -> None:
    problem_of(house.get("/v1/nothing"), 401, "KEY_REQUIRED")
    problem_of(house.get("/v1/nothing", house.keys["own"]), 404, "NOT_FOUND")
    problem_of(house.http.delete("/v1/accounts"), 401, "KEY_REQUIRED")


def test_answers_for_one_caller_are_kept_for_no_other(house: Guarded) -> None:
    for path in ("/v1/nothing", f"/v1/accounts/{FOREIGN}", f"/v1/accounts/{OWN}/orders"):
        answer = house.http.get(path, headers={"X-API-Key": house.keys["own"]})
        assert answer.headers.getlist("Cache-Control") == ["private, no-cache"], path
