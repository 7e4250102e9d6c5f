"""DELETE of an order: cancelled if it is pending still, and either that or decided."""

from collections.abc import Callable, Sequence
from datetime import datetime
from random import Random
from typing import Any

import pytest

from api.acceptance import ATTEMPT_SECONDS
from api.cancelling import OVERTAKEN_SECONDS_MAX, Canceller
from api.problems import Problem
from shared.domain.order import OrderStatus
from shared.order_store import commits, items, keys, parking, reads
from shared.order_store.commits import CommitConflict
from shared.order_store.errors import StoreOutcomeUnknown, StoreThrottled
from shared.order_store.gateway import Gateway
from shared.order_store.records import RecordedAccount, RecordedOrder
from tests.unit.api.parts import Api, json_of, order_body, problem_of
from tests.unit.factories import FakeTime, make_order, make_settler, overwrite, stored_account

UNKNOWN_ORDER = make_order().id


@pytest.fixture(name="account_id")
def _account_id(api: Api) -> int:
    return api.open_account()


def place(api: Api, account_id: int, **changes: Any) -> str:
    answer = api.post(f"/v1/accounts/{account_id}/orders", order_body(**changes))
    assert answer.status_code == 202, answer.text
    return str(json_of(answer)["id"])


def path_of(account_id: int, order_id: str) -> str:
    return f"/v1/accounts/{account_id}/orders/{order_id}"


def settle(api: Api, account_id: int, *order_ids: str) -> None:
    left = make_settler(api.gateway).settle([(account_id, order_id) for order_id in order_ids])
    assert left == []


def status_of(api: Api, account_id: int, order_id: str) -> OrderStatus:
    recorded = reads.load_order(api.gateway, account_id, order_id)
    assert isinstance(recorded, RecordedOrder)
    return recorded.status


def test_a_pending_order_is_cancelled_and_changes_nothing_else(api: Api, account_id: int) -> None:
    order_id = place(api, account_id)
    before = stored_account(api.gateway, account_id)

    answer = api.http.delete(path_of(account_id, order_id))

    assert answer.status_code == 200
    assert answer.mimetype == "application/json"
    shown = json_of(answer)
    assert (shown["id"], shown["status"]) == (order_id, "cancelled")
    assert shown["decided_at"] == "2026-03-02T18:00:00.000000Z"
    assert shown["business_errors"] == []
    assert shown["current_balance"] == {"cash": "1000", "issuers": []}
    assert json_of(api.get(path_of(account_id, order_id))) == shown
    after = stored_account(api.gateway, account_id)
    assert after.account == before.account
    assert after.decided == before.decided + 1


def test_a_cancelled_order_is_cached(api: Api, account_id: int) -> None:
    order_id = place(api, account_id)
    answer = api.http.delete(path_of(account_id, order_id))
    api.store.is_down = True
    assert api.get(path_of(account_id, order_id)).data == answer.data


def test_cancelling_again_is_answered_as_the_first_time(api: Api, account_id: int) -> None:
    order_id = place(api, account_id)
    first = api.http.delete(path_of(account_id, order_id))
    again = api.http.delete(path_of(account_id, order_id))
    assert (again.status_code, again.data) == (200, first.data)
    assert stored_account(api.gateway, account_id).decided == 1


def test_the_path_without_a_version_cancels_too(api: Api, account_id: int) -> None:
    order_id = place(api, account_id)
    answer = api.http.delete(f"/accounts/{account_id}/orders/{order_id}")
    assert json_of(answer)["status"] == "cancelled"


@pytest.mark.parametrize("changes", [{}, {"share_price": "100000"}])
def test_a_decided_order_stays_as_it_is(api: Api, account_id: int, changes: dict[str, Any]) -> None:
    order_id = place(api, account_id, **changes)
    settle(api, account_id, order_id)
    before = api.get(path_of(account_id, order_id)).data
    problem_of(api.http.delete(path_of(account_id, order_id)), 409, "ORDER_DECIDED")
    assert api.get(path_of(account_id, order_id)).data == before


def test_a_parked_order_is_left_to_the_operators(api: Api, account_id: int) -> None:
    order_id = place(api, account_id)
    now = api.clock()
    assert commits.park_unreadable_account(api.gateway, account_id, order_id, now, "broken")
    document = problem_of(api.http.delete(path_of(account_id, order_id)), 409, "ORDER_DECIDED")
    assert "failed" in document["detail"]
    parking.replay(api.gateway, (account_id, order_id))
    assert api.http.delete(path_of(account_id, order_id)).status_code == 200


@pytest.mark.parametrize("order_id", [UNKNOWN_ORDER, "1", "x" * 1000, "%00"])
def test_an_order_that_is_not_there_is_not_found(api: Api, account_id: int, order_id: str) -> None:
    problem_of(api.http.delete(path_of(account_id, order_id)), 404, "ORDER_NOT_FOUND")


def test_another_account_s_order_is_not_found(api: Api, account_id: int) -> None:
    order_id = place(api, account_id)
    other = api.open_account()
    problem_of(api.http.delete(path_of(other, order_id)), 404, "ORDER_NOT_FOUND")
    assert status_of(api, account_id, order_id) is OrderStatus.PENDING


def test_an_order_with_a_damaged_item_can_be_cancelled(api: Api, account_id: int) -> None:
    order_id = place(api, account_id)
    damage = items.text("many")
    overwrite(api.gateway, keys.order_key(account_id, order_id), "total_shares", damage)
    answer = api.http.delete(path_of(account_id, order_id))
    assert (answer.status_code, json_of(answer)["status"]) == (200, "cancelled")


def test_the_orders_around_a_cancelled_one_are_decided_in_their_sequence(
    api: Api, account_id: int
) -> None:
    orders = [place(api, account_id, total_shares=n, share_price=1) for n in (1, 2, 3)]
    assert api.http.delete(path_of(account_id, orders[1])).status_code == 200

    settle(api, account_id, orders[2], orders[1])

    statuses = [str(status_of(api, account_id, order_id)) for order_id in orders]
    assert statuses == ["executed", "cancelled", "executed"]
    assert stored_account(api.gateway, account_id).decided == 3
    sequences = []
    for order_id in orders:
        recorded = reads.load_order(api.gateway, account_id, order_id)
        assert isinstance(recorded, RecordedOrder)
        sequences.append(recorded.sequence)
    assert sequences == [2, 1, 3]


def test_a_store_that_is_away_is_unavailable(api: Api, account_id: int) -> None:
    order_id = place(api, account_id)
    api.store.is_down = True
    problem_of(api.http.delete(path_of(account_id, order_id)), 503, "STORE_UNAVAILABLE")
    api.store.is_down = False
    assert status_of(api, account_id, order_id) is OrderStatus.PENDING


# Races


def cancelling(api: Api, time: FakeTime) -> Canceller:
    return Canceller(
        api.gateway,
        api.services.status,
        clock=api.clock,
        monotonic=time.monotonic,
        sleep=time.sleep,
        random=Random(1),
    )


def meddle(monkeypatch: pytest.MonkeyPatch, hooks: Sequence[Callable[[], None]]) -> None:
    """Have a hook run before each of the next writes of a cancellation."""
    left = list(hooks)
    cancel = commits.cancel_pending

    def hooked(gateway: Gateway, before: RecordedAccount, order_id: str, at: datetime) -> None:
        if left:
            left.pop(0)()
        cancel(gateway, before, order_id, at)

    monkeypatch.setattr(commits, "cancel_pending", hooked)


def raises(error: Exception) -> Callable[[], None]:
    def fail() -> None:
        raise error

    return fail


def test_an_order_that_a_worker_decides_meanwhile_is_not_cancelled(
    api: Api, account_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    order_id = place(api, account_id)
    meddle(monkeypatch, [lambda: settle(api, account_id, order_id)])
    problem_of(api.http.delete(path_of(account_id, order_id)), 409, "ORDER_DECIDED")
    assert status_of(api, account_id, order_id) is OrderStatus.EXECUTED


def test_an_order_is_cancelled_although_its_account_changes_meanwhile(
    api: Api, account_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = place(api, account_id), place(api, account_id, total_shares=3)
    meddle(monkeypatch, [lambda: parking.cancel(api.gateway, (account_id, first), api.clock)])
    answer = cancelling(api, FakeTime()).cancel(account_id, second, deadline=60.0)
    assert b'"cancelled"' in answer
    assert status_of(api, account_id, second) is OrderStatus.CANCELLED
    assert stored_account(api.gateway, account_id).decided == 2


@pytest.mark.parametrize("error", [StoreThrottled("busy"), StoreOutcomeUnknown("lost")])
def test_a_cancellation_that_the_store_does_not_take_is_tried_again(
    api: Api, account_id: int, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    order_id = place(api, account_id)
    meddle(monkeypatch, [raises(error)] * 3)
    time = FakeTime()
    assert b'"cancelled"' in cancelling(api, time).cancel(account_id, order_id, deadline=60.0)
    assert len(time.pauses) == 3


def test_a_cancellation_whose_answer_was_lost_is_found_to_be_done(
    api: Api, account_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    order_id = place(api, account_id)
    cancel = commits.cancel_pending

    def lost(gateway: Gateway, before: RecordedAccount, order_id: str, at: datetime) -> None:
        cancel(gateway, before, order_id, at)
        raise StoreOutcomeUnknown("no answer")

    monkeypatch.setattr(commits, "cancel_pending", lost)
    assert b'"cancelled"' in cancelling(api, FakeTime()).cancel(account_id, order_id, deadline=9.0)
    assert stored_account(api.gateway, account_id).decided == 1


def test_a_cancellation_that_is_overtaken_looks_again_soon(
    api: Api, account_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    order_id = place(api, account_id)
    meddle(monkeypatch, [raises(CommitConflict({account_id}))] * 30)
    time = FakeTime()
    assert b'"cancelled"' in cancelling(api, time).cancel(account_id, order_id, deadline=2.5)
    assert len(time.pauses) == 30
    assert max(time.pauses) <= OVERTAKEN_SECONDS_MAX


@pytest.mark.parametrize("error", [CommitConflict({1}), StoreThrottled("busy")])
def test_a_cancellation_ends_in_time(
    api: Api, account_id: int, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    order_id = place(api, account_id)
    meddle(monkeypatch, [raises(error)] * 1000)
    time = FakeTime()
    with pytest.raises(Problem) as refused:
        cancelling(api, time).cancel(account_id, order_id, deadline=2.5)
    assert refused.value.status == 503
    assert 0 < time.monotonic() <= 2.5 - ATTEMPT_SECONDS
