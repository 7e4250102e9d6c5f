"""Prefer: wait and ?wait=: an answer as soon as there is one, and no look at the store before."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from werkzeug.test import TestResponse

from api import draining
from api import waiting as waiting_module
from shared.notices import NoticesLost
from shared.order_store.gateway import Gateway
from tests.unit.api.parts import Api, json_of, order_body, pointers_of, problem_of
from tests.unit.factories import make_settler

UNKNOWN = "019cafe0-0000-7000-8000-000000000000"
LONG = 15
"""Seconds that no test waits: whoever is woken answers at once."""
SHORT = 1


@pytest.fixture(name="api")
def _api(make_api: Callable[..., Api]) -> Iterator[Api]:
    api = make_api()
    yield api
    api.services.waiting.end()


@pytest.fixture(name="account_id")
def _account_id(api: Api) -> int:
    return api.open_account()


@pytest.fixture(name="pool")
def _pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor() as pool:
        yield pool


class Asker:
    """Asks in a thread of its own, with a client of its own."""

    def __init__(self, api: Api, pool: ThreadPoolExecutor) -> None:
        self._api = api
        self._pool = pool

    def place(
        self, account_id: int, prefer: str, key: str | None = None, **changes: Any
    ) -> "Future[TestResponse]":
        headers = {"Prefer": prefer} | ({"Idempotency-Key": key} if key else {})
        return self._pool.submit(
            self._client().post,
            f"/v1/accounts/{account_id}/orders",
            json=order_body(**changes),
            headers=headers,
        )

    def get(self, path: str, **headers: str) -> "Future[TestResponse]":
        return self._pool.submit(self._client().get, path, headers=headers)

    def _client(self) -> Any:
        return self._api.http.application.test_client()


@pytest.fixture(name="asker")
def _asker(api: Api, pool: ThreadPoolExecutor) -> Asker:
    return Asker(api, pool)


def settle(api: Api, account_id: int, order_id: str) -> None:
    settler = make_settler(api.gateway, cache=api.services.cache)
    assert settler.settle([(account_id, order_id)]) == []


def published(api: Api, count: int = 1) -> str:
    """The id of the ``count``-th order once it is recorded."""
    until(lambda: len(api.queue.published) >= count)
    ((_, order_id),) = api.queue.published[count - 1]
    return order_id


def waits(api: Api, number: int = 1) -> bool:
    return sum(map(len, api.services.waiting._orders.values())) == number


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def path_of(account_id: int, order_id: str, wait: object = LONG) -> str:
    return f"/v1/accounts/{account_id}/orders/{order_id}?wait={wait}"


def placed(api: Api, account_id: int, **changes: Any) -> str:
    answer = api.post(f"/v1/accounts/{account_id}/orders", order_body(**changes))
    assert answer.status_code == 202
    return str(json_of(answer)["id"])


# Prefer: wait


def test_an_order_that_is_decided_in_time_is_answered_with_its_outcome(
    api: Api, account_id: int, asker: Asker
) -> None:
    asked = asker.place(account_id, f"wait={LONG}")
    order_id = published(api)
    until(lambda: waits(api))
    settle(api, account_id, order_id)

    answer = asked.result(10)

    assert answer.status_code == 200
    assert answer.headers["Preference-Applied"] == f"wait={LONG}"
    assert answer.headers["Location"].endswith(f"/v1/accounts/{account_id}/orders/{order_id}")
    assert "Retry-After" not in answer.headers
    shown = json_of(answer)
    assert shown["status"] == "executed"
    assert answer.data == api.get(f"/v1/accounts/{account_id}/orders/{order_id}").data


def test_waiting_for_a_new_order_asks_the_store_nothing(
    api: Api, account_id: int, asker: Asker
) -> None:
    api.store.calls.clear()
    asked = asker.place(account_id, f"wait={LONG}")
    order_id = published(api)
    until(lambda: waits(api))
    time.sleep(0.3)
    assert api.store.calls == ["transact_write_items"]
    settle(api, account_id, order_id)
    assert asked.result(10).status_code == 200
    assert api.store.calls.count("get_item") == 0


def test_a_rejected_order_is_waited_for_as_well(api: Api, account_id: int, asker: Asker) -> None:
    asked = asker.place(account_id, f"wait={LONG}", total_shares=1000)
    settle(api, account_id, published(api))
    answer = asked.result(10)
    assert answer.status_code == 200
    assert json_of(answer)["status"] == "rejected"
    assert json_of(answer)["business_errors"] == ["INSUFFICIENT_BALANCE"]


def test_an_order_that_is_not_decided_in_time_is_answered_as_ever(
    api: Api, account_id: int, asker: Asker
) -> None:
    began = time.monotonic()
    answer = asker.place(account_id, f"wait={SHORT}").result(10)
    assert SHORT <= time.monotonic() - began < LONG
    assert answer.status_code == 202
    assert json_of(answer)["status"] == "pending"
    assert answer.headers["Retry-After"] == "1"
    assert "Preference-Applied" not in answer.headers


@pytest.mark.parametrize(
    "prefer",
    [
        "wait=x",
        "wait=-1",
        "wait",
        "wait=",
        "wait=1.5",
        "wait=0",
        "respond-async",
        "",
        'a="wait=5"',
        "wait=x, wait=15",
        "wait=" + 70 * "9",
        "wait=\u0661",
    ],
)
def test_a_preference_that_is_not_understood_is_ignored(
    api: Api, account_id: int, asker: Asker, prefer: str
) -> None:
    began = time.monotonic()
    answer = asker.place(account_id, prefer).result(10)
    assert answer.status_code == 202
    assert time.monotonic() - began < 5
    assert "Preference-Applied" not in answer.headers


@pytest.mark.parametrize(
    "prefer",
    [
        "wait=15",
        'wait="15"',
        "WAIT = 15",
        "respond-async, wait=15",
        'a="x, wait=3"; b, wait=15; c=d',
        "wait=15, wait=1",
    ],
)
def test_a_preference_may_be_written_in_several_ways(
    api: Api, account_id: int, asker: Asker, prefer: str
) -> None:
    asked = asker.place(account_id, prefer)
    settle(api, account_id, published(api))
    answer = asked.result(10)
    assert answer.status_code == 200
    assert answer.headers["Preference-Applied"] == "wait=15"


def test_nobody_waits_longer_than_the_setting_allows(
    make_api: Callable[..., Api], pool: ThreadPoolExecutor
) -> None:
    api = make_api(wait_seconds_max=SHORT)
    account_id = api.open_account()
    began = time.monotonic()
    asked = Asker(api, pool).place(account_id, "wait=9999")
    assert asked.result(10).status_code == 202
    assert SHORT <= time.monotonic() - began < LONG
    asked = Asker(api, pool).place(account_id, "wait=9999")
    settle(api, account_id, published(api, 2))
    assert asked.result(10).headers["Preference-Applied"] == f"wait={SHORT}"


def test_waiting_can_be_turned_off(make_api: Callable[..., Api], pool: ThreadPoolExecutor) -> None:
    api = make_api(wait_seconds_max=0)
    account_id = api.open_account()
    assert Asker(api, pool).place(account_id, "wait=5").result(10).status_code == 202
    assert api.services.waiting._listener is None


def test_a_repeated_request_waits_and_is_told_the_outcome(
    api: Api, account_id: int, asker: Asker
) -> None:
    assert asker.place(account_id, "", key="k").result(10).status_code == 202
    order_id = published(api)
    asked = asker.place(account_id, f"wait={LONG}", key="k")
    until(lambda: waits(api))
    settle(api, account_id, order_id)

    waited = asked.result(10)
    api.redis.flushall()
    later = asker.place(account_id, f"wait={LONG}", key="k").result(10)

    for answer in (waited, later):
        assert answer.status_code == 200
        assert answer.headers["Idempotent-Replayed"] == "true"
        assert json_of(answer)["id"] == order_id
        assert json_of(answer)["status"] == "executed"


def test_a_store_that_fails_during_the_wait_spoils_no_acceptance(
    api: Api, account_id: int, asker: Asker
) -> None:
    asked = asker.place(account_id, f"wait={SHORT}")
    published(api)
    until(lambda: waits(api))
    api.store.is_down = True
    assert asked.result(10).status_code == 202


def test_a_request_that_is_refused_waits_for_nothing(api: Api, asker: Asker) -> None:
    problem_of(asker.place(404, f"wait={LONG}").result(10), 404, "ACCOUNT_NOT_FOUND")
    assert waits(api, 0)


# GET with ?wait=


def test_a_look_waits_until_the_order_is_decided(api: Api, account_id: int, asker: Asker) -> None:
    order_id = placed(api, account_id)
    api.store.calls.clear()
    asked = asker.get(path_of(account_id, order_id))
    until(lambda: waits(api))
    time.sleep(0.3)
    assert api.store.calls == ["get_item"]
    settle(api, account_id, order_id)

    answer = asked.result(10)

    assert answer.status_code == 200
    assert json_of(answer)["status"] == "executed"
    # The outcome came from the cache.
    assert api.store.calls.count("get_item") == 1


def test_a_decided_order_is_shown_at_once(api: Api, account_id: int, asker: Asker) -> None:
    order_id = placed(api, account_id)
    settle(api, account_id, order_id)
    began = time.monotonic()
    assert json_of(asker.get(path_of(account_id, order_id)).result(10))["status"] == "executed"
    assert time.monotonic() - began < 5


def test_a_pending_order_is_shown_when_the_time_is_over(
    api: Api, account_id: int, asker: Asker
) -> None:
    order_id = placed(api, account_id)
    began = time.monotonic()
    answer = asker.get(path_of(account_id, order_id, SHORT)).result(10)
    assert SHORT <= time.monotonic() - began < LONG
    assert (answer.status_code, json_of(answer)["status"]) == (200, "pending")
    held = answer.headers["ETag"]

    same = asker.get(path_of(account_id, order_id, SHORT), **{"If-None-Match": held}).result(10)
    assert same.status_code == 304

    asked = asker.get(path_of(account_id, order_id), **{"If-None-Match": held})
    settle(api, account_id, order_id)
    assert json_of(asked.result(10))["status"] == "executed"


def test_a_cancelled_order_ends_the_wait(api: Api, account_id: int, asker: Asker) -> None:
    order_id = placed(api, account_id)
    asked = asker.get(path_of(account_id, order_id))
    until(lambda: waits(api))
    cancelled = api.http.delete(f"/v1/accounts/{account_id}/orders/{order_id}")
    assert cancelled.status_code == 200
    assert asked.result(10).data == cancelled.data


def test_a_parked_order_ends_the_wait(api: Api, account_id: int, asker: Asker) -> None:
    order_id = placed(api, account_id)
    asked = asker.get(path_of(account_id, order_id))
    until(lambda: waits(api))
    settler = make_settler(api.gateway, cache=api.services.cache, attempts_max=0)
    assert settler.settle([(account_id, order_id)]) == []
    answer = asked.result(10)
    assert (answer.status_code, json_of(answer)["status"]) == (200, "failed")


def test_an_outcome_without_a_notice_is_found_at_the_end(
    api: Api, account_id: int, asker: Asker
) -> None:
    order_id = placed(api, account_id)
    asked = asker.get(path_of(account_id, order_id, SHORT))
    until(lambda: waits(api))
    assert make_settler(api.gateway).settle([(account_id, order_id)]) == []
    assert json_of(asked.result(10))["status"] == "executed"


def test_without_notices_an_outcome_is_found_by_looking_again(
    api: Api, account_id: int, asker: Asker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting_module, "LOOK_AGAIN_SECONDS", 0.5)
    monkeypatch.setattr(api.services.waiting, "_feed", _Deaf())
    order_id = placed(api, account_id)
    api.store.calls.clear()
    asked = asker.get(path_of(account_id, order_id))
    until(lambda: waits(api))
    assert (
        make_settler(Gateway(api.store._client, api.gateway.table_name)).settle(
            [(account_id, order_id)]
        )
        == []
    )
    assert json_of(asked.result(10))["status"] == "executed"
    assert api.store.calls.count("get_item") == 2


class _Deaf:
    def listen(self) -> Any:
        raise NoticesLost("away")


def test_an_unknown_order_is_not_waited_for(api: Api, account_id: int, asker: Asker) -> None:
    problem_of(asker.get(path_of(account_id, UNKNOWN)).result(10), 404, "ORDER_NOT_FOUND")
    problem_of(asker.get(path_of(account_id, "x")).result(10), 404, "ORDER_NOT_FOUND")
    assert waits(api, 0)


@pytest.mark.parametrize("wait", ["x", "-1", "1.5", "", "%2B1", "%D9%A1"])
def test_a_wait_that_is_no_number_is_refused(api: Api, account_id: int, wait: str) -> None:
    assert pointers_of(api.get(path_of(account_id, UNKNOWN, wait))) == ["/wait"]


def test_without_a_wait_nothing_is_listened_to(api: Api, account_id: int) -> None:
    order_id = placed(api, account_id)
    api.get(f"/v1/accounts/{account_id}/orders/{order_id}")
    api.get(path_of(account_id, order_id, 0))
    assert api.services.waiting._listener is None


def test_more_waits_than_there_is_room_for_are_answered_at_once(
    make_api: Callable[..., Api], pool: ThreadPoolExecutor
) -> None:
    api = make_api(waits_max=1)
    asker, account_id = Asker(api, pool), api.open_account()
    order_id = placed(api, account_id)
    first = asker.get(path_of(account_id, order_id))
    until(lambda: waits(api))
    began = time.monotonic()
    assert json_of(asker.get(path_of(account_id, order_id)).result(10))["status"] == "pending"
    assert asker.place(account_id, f"wait={LONG}", total_shares=3).result(10).status_code == 202
    assert time.monotonic() - began < 5
    settle(api, account_id, order_id)
    assert json_of(first.result(10))["status"] == "executed"


def test_waits_end_early_where_the_process_stops(api: Api, account_id: int, asker: Asker) -> None:
    order_id = placed(api, account_id)
    look = asker.get(path_of(account_id, order_id))
    order = asker.place(account_id, f"wait={LONG}", total_shares=3)
    until(lambda: waits(api, 2))
    began = time.monotonic()
    api.services.waiting.end()
    assert (look.result(10).status_code, json_of(look.result())["status"]) == (200, "pending")
    assert order.result(10).status_code == 202
    assert asker.place(account_id, f"wait={LONG}", total_shares=4).result(10).status_code == 202
    assert time.monotonic() - began < 5


def test_whoever_is_to_be_told_of_the_drain_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(draining, "_draining", threading.Event())
    monkeypatch.setattr(draining, "_to_tell", [])
    told: list[bool] = []
    draining.call_when_begun(lambda: told.append(draining.is_draining()))
    assert told == []
    draining.begin()
    assert told == [True]
