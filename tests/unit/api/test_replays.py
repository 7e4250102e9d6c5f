"""Repeated requests: answered from Redis where it can be, from the store where it has to be."""

import json
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from werkzeug.test import TestResponse

from shared.order_store import accepts, reads
from shared.order_store.accepts import IDEMPOTENCY_LIFE
from shared.order_store.gateway import Gateway
from shared.order_store.records import AcceptedOrder
from shared.replay_cache import Replay, ReplayCache
from tests.unit.api.parts import Api, json_of, order_body, problem_of
from tests.unit.factories import NOON, make_claim

WAIT_SECONDS = 20.0


@pytest.fixture(name="account_id")
def _account_id(api: Api) -> int:
    return api.open_account()


def path_of(account_id: int) -> str:
    return f"/v1/accounts/{account_id}/orders"


def orders_in(api: Api, account_id: int) -> int:
    return len(reads.list_orders(api.gateway, account_id, 200, None)[0])


def entries(api: Api) -> list[bytes]:
    return sorted(api.redis.keys("replay:*"))


# The short cut


def test_a_repeated_order_is_answered_without_the_store(api: Api, account_id: int) -> None:
    first = api.post(path_of(account_id), order_body(), key="k")
    api.store.is_down = True
    again = api.post(path_of(account_id), order_body(), key="k")
    assert again.status_code == 202
    assert again.data == first.data
    assert again.headers["Location"] == first.headers["Location"]
    assert again.headers["Idempotent-Replayed"] == "true"


def test_a_repeated_account_is_answered_without_the_store(api: Api) -> None:
    first = api.post("/v1/accounts", {"cash": "7.10"}, key="k")
    api.store.is_down = True
    again = api.post("/v1/accounts", {"cash": 7.1}, key="k")
    assert (again.status_code, again.data) == (201, first.data)
    assert again.headers["Idempotent-Replayed"] == "true"


def test_a_request_without_a_key_asks_redis_for_nothing(
    api: Api, account_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(ReplayCache, "find", lambda *_: asked.append("find"))
    monkeypatch.setattr(ReplayCache, "put", lambda *_: asked.append("put"))
    assert api.post(path_of(account_id), order_body()).status_code == 202
    assert asked == []


def test_a_redis_that_forgot_is_made_up_for_by_the_store(api: Api, account_id: int) -> None:
    first = api.post(path_of(account_id), order_body(), key="k")
    api.redis.flushall()
    again = api.post(path_of(account_id), order_body(), key="k")
    assert (again.data, again.headers["Idempotent-Replayed"]) == (first.data, "true")
    assert orders_in(api, account_id) == 1


def test_a_redis_that_is_away_is_made_up_for_by_the_store(
    api: Api, account_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise RedisConnectionError("away")

    monkeypatch.setattr(api.redis, "execute_command", refuse)
    monkeypatch.setattr(api.redis, "pipeline", refuse)
    first = api.post(path_of(account_id), order_body(), key="k")
    again = api.post(path_of(account_id), order_body(), key="k")
    assert (first.status_code, again.data) == (202, first.data)
    assert orders_in(api, account_id) == 1


def test_another_body_is_refused_by_the_store_whatever_redis_holds(
    api: Api, account_id: int
) -> None:
    api.post(path_of(account_id), order_body(), key="k")
    other = api.post(path_of(account_id), order_body(total_shares=9), key="k")
    problem_of(other, 422, "IDEMPOTENCY_KEY_REUSED")
    assert orders_in(api, account_id) == 1


@pytest.mark.parametrize(
    "damage",
    [
        lambda _: b"",
        lambda _: b"nonsense",
        lambda entry: entry[:-1],
        lambda entry: entry.replace(b"-7", b"-8", 1),
        lambda entry: entry.replace(b"2026", b"2027"),
        lambda entry: entry + b" more",
        lambda entry: b"\xff" + entry,
        lambda entry: entry.replace(b"+00:00", b""),
    ],
)
def test_a_damaged_entry_is_looked_up_in_the_store(api: Api, account_id: int, damage: Any) -> None:
    first = api.post(path_of(account_id), order_body(), key="k")
    (name,) = entries(api)
    assert api.redis.get(name) != damage(api.redis.get(name))
    api.redis.set(name, damage(api.redis.get(name)))
    again = api.post(path_of(account_id), order_body(), key="k")
    assert (again.status_code, again.data) == (202, first.data)
    assert orders_in(api, account_id) == 1


def test_an_entry_under_another_s_key_answers_nobody(api: Api, account_id: int) -> None:
    api.post(path_of(account_id), order_body(), key="a")
    second = api.post(path_of(account_id), order_body(), key="b")
    one, other = entries(api)
    api.redis.set(one, api.redis.get(other))
    api.redis.set(other, api.redis.get(one))
    assert api.post(path_of(account_id), order_body(), key="b").data == second.data
    assert orders_in(api, account_id) == 2


def test_an_entry_lives_no_longer_than_its_key(api: Api, account_id: int) -> None:
    first = api.post(path_of(account_id), order_body(), key="k")
    (name,) = entries(api)
    assert 0 < api.redis.ttl(name) <= IDEMPOTENCY_LIFE.total_seconds()
    api.redis.persist(name)
    api.clock.forward(IDEMPOTENCY_LIFE)
    later = api.post(path_of(account_id), order_body(), key="k")
    assert later.status_code == 202
    assert "Idempotent-Replayed" not in later.headers
    assert json_of(later)["id"] != json_of(first)["id"]


def test_an_entry_of_another_table_answers_nobody(api: Api) -> None:
    claim = make_claim()
    ReplayCache(api.redis, "one").put([(claim, Replay("1", NOON))], NOON)
    assert ReplayCache(api.redis, "one").find([claim], NOON) == [Replay("1", NOON)]
    assert ReplayCache(api.redis, "other").find([claim], NOON) == [None]


def test_what_is_left_of_a_key_s_life_is_an_entry_s(api: Api) -> None:
    cache, claim = ReplayCache(api.redis, "t"), make_claim()
    cache.put([(claim, Replay("1", NOON))], NOON + timedelta(hours=23))
    (name,) = entries(api)
    assert 3590 < api.redis.ttl(name) <= 3600
    api.redis.flushall()
    other = make_claim("other")
    late = NOON + IDEMPOTENCY_LIFE
    cache.put([(claim, Replay("1", NOON)), (other, Replay("2", late))], late)
    assert cache.find([claim, other], late) == [None, Replay("2", late)]
    assert len(entries(api)) == 1


def test_a_failing_redis_is_left_alone_for_a_moment(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def refuse(*_: Any, **__: Any) -> None:
        calls.append("mget")
        raise RedisConnectionError("away")

    monkeypatch.setattr(api.redis, "execute_command", refuse)
    cache, claim = ReplayCache(api.redis, "t"), make_claim()
    assert [cache.find([claim], NOON) for _ in range(3)] == [[None]] * 3
    cache.put([(claim, Replay("1", NOON))], NOON)
    assert calls == ["mget"]


def test_a_bulk_request_is_repeated_without_the_store(api: Api, account_id: int) -> None:
    body = "\n".join(
        json.dumps({"account_id": account_id, **order_body(total_shares=n)}) for n in range(1, 120)
    )
    headers = {"Idempotency-Key": "k", "Content-Type": "application/x-ndjson"}
    first = api.http.post("/v1/orders/bulk", data=body, headers=headers).text
    api.store.is_down = True
    again = api.http.post("/v1/orders/bulk", data=body, headers=headers).text
    assert again.replace('"replayed":true,', "") == first
    assert again.count('"replayed":true') == 119


# The first is still on its way


class OtherClient:
    """Calls the same API from another thread: Flask's test clients belong to one each."""

    def __init__(self, api: Api) -> None:
        self._http = api.http.application.test_client()

    def post(self, path: str, body: Any, key: str) -> TestResponse:
        return self._http.post(path, json=body, headers={"Idempotency-Key": key})

    def bulk(self, lines: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        body = "\n".join(map(json.dumps, lines))
        answer = self._http.post("/v1/orders/bulk", data=body, content_type="application/x-ndjson")
        assert answer.status_code == 200, answer.text
        return [json.loads(one) for one in answer.data.splitlines()]


class Gate:
    """Holds the first recording up until it is opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reached = threading.Event()
        self.opened = threading.Event()
        record = accepts.record_orders

        def held(
            gateway: Gateway, orders: Sequence[AcceptedOrder], now: datetime, token: str
        ) -> None:
            if not self.reached.is_set():
                self.reached.set()
                assert self.opened.wait(WAIT_SECONDS)
            record(gateway, orders, now, token)

        monkeypatch.setattr(accepts, "record_orders", held)


def test_a_request_whose_key_is_on_its_way_has_to_wait(
    api: Api, account_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch)
    path = path_of(account_id)
    with ThreadPoolExecutor(1) as thread:
        first = thread.submit(OtherClient(api).post, path, order_body(), "k")
        assert gate.reached.wait(WAIT_SECONDS)
        busy = api.post(path, order_body(), key="k")
        busy_otherwise = api.post(path, order_body(total_shares=9), key="k")
        gate.opened.set()
        done = first.result(WAIT_SECONDS)

    for answer in (busy, busy_otherwise):
        problem_of(answer, 409, "IDEMPOTENCY_KEY_IN_FLIGHT")
        assert answer.headers["Retry-After"] == "1"
    assert done.status_code == 202
    again = api.post(path, order_body(), key="k")
    assert (again.data, again.headers["Idempotent-Replayed"]) == (done.data, "true")
    assert orders_in(api, account_id) == 1


def test_lines_whose_key_is_on_its_way_have_to_wait_and_no_others(
    api: Api, account_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch)
    with ThreadPoolExecutor(1) as thread:
        first = thread.submit(OtherClient(api).post, path_of(account_id), order_body(), "k")
        assert gate.reached.wait(WAIT_SECONDS)
        lines = [
            {"account_id": account_id, **order_body(total_shares=3)},
            {"account_id": account_id, "idempotency_key": "k", **order_body()},
            {"account_id": account_id, "idempotency_key": "other", **order_body(total_shares=4)},
        ]
        answers = OtherClient(api).bulk(lines)
        again = api.post(path_of(account_id), order_body(), key="k")
        gate.opened.set()
        assert first.result(WAIT_SECONDS).status_code == 202

    assert [answer["status"] for answer in answers] == [202, 409, 202]
    problem_of(again, 409, "IDEMPOTENCY_KEY_IN_FLIGHT")
    assert answers[1]["problem"]["code"] == "IDEMPOTENCY_KEY_IN_FLIGHT"
    assert orders_in(api, account_id) == 3


def test_a_key_is_free_again_whatever_became_of_its_request(
    api: Api, account_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("bug")

    with monkeypatch.context() as patched:
        patched.setattr(accepts, "record_orders", fail)
        problem_of(api.post(path_of(account_id), order_body(), key="k"), 500)
        line = {"account_id": account_id, "idempotency_key": "k", **order_body()}
        assert OtherClient(api).bulk([line])[0]["status"] == 500
    assert api.post(path_of(account_id), order_body(), key="k").status_code == 202


def test_a_repetition_whose_order_is_not_to_be_seen_yet_is_told_that_it_is_on_its_way(
    api: Api, account_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the transaction of the first request the key shows itself before the order."""
    first = api.post(path_of(account_id), order_body(), key="k")
    api.redis.flushall()
    lines = [{"account_id": account_id, "idempotency_key": "k", **order_body()}]
    with monkeypatch.context() as landing:
        landing.setattr(Gateway, "get", lambda *_: None)
        landing.setattr(Gateway, "batch_get", lambda *_: [])
        again = api.post(path_of(account_id), order_body(), key="k")
        (answer,) = OtherClient(api).bulk(lines)
    problem_of(again, 409, "IDEMPOTENCY_KEY_IN_FLIGHT")
    assert answer["problem"]["code"] == "IDEMPOTENCY_KEY_IN_FLIGHT"
    assert api.post(path_of(account_id), order_body(), key="k").data == first.data
    assert OtherClient(api).bulk(lines)[0]["order"] == json_of(first)
