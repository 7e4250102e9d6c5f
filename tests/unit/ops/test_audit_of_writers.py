"""What the real writers leave in the table is consistent, in the unusual cases as well."""

from datetime import datetime
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from ops.auditor import Auditor
from ops.differences import Difference, What
from shared.access import AccessKey, Scope
from shared.domain.decision import DUPLICATE_WINDOW
from shared.domain.market import ALWAYS_OPEN
from shared.domain.order import Order
from shared.order_store import accepts, access, commits, items, keys, parking
from shared.order_store.gateway import Gateway
from shared.order_store.records import AcceptedOrder
from tests.unit.factories import (
    NOON,
    accept,
    everything,
    make_account,
    make_claim,
    make_order,
    make_rules,
    make_settler,
    new_table,
    open_account,
    overwrite,
    ref,
    seconds,
    stored_order,
)
from tests.unit.ops.audited import Table

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient


@pytest.fixture
def gateway(client: "DynamoDBClient") -> Gateway:
    """A table with account 1 in it, which may buy a lot."""
    gateway = new_table(client)
    accepts.allocate_account_ids(gateway, 1)
    open_account(gateway, make_account("1000000"))
    return gateway


def audited(gateway: Gateway) -> list[Difference]:
    table = Table(everything(gateway))
    return list(Auditor(table, sleep=lambda _: None).table(table.pages()))


def order(number: int, total_shares: int | None = None, at: datetime = NOON) -> Order:
    """The ``number``-th order; each buys another number of shares unless told otherwise."""
    return make_order("BUY", "AAPL", total_shares or number, "0.01", at=at, number=number)


def settle(gateway: Gateway, *orders: Order, suspect: bool = False) -> None:
    assert make_settler(gateway, attempts_max=1).settle(map(ref, orders), suspect=suspect) == []


def park(gateway: Gateway, parked: Order) -> None:
    """Have the account's one undecided order parked, because it cannot be read; repair it."""
    overwrite(gateway, keys.order_key(*ref(parked)), "share_price", items.text("a lot"))
    settle(gateway, parked, suspect=True)
    settle(gateway, parked, suspect=True)
    overwrite(gateway, keys.order_key(*ref(parked)), "share_price", items.number(1))


def status_of(gateway: Gateway, one: Order) -> str:
    return stored_order(gateway, one).status


def test_orders_of_all_outcomes_and_those_that_wait(gateway: Gateway) -> None:
    orders = [order(1), order(2), order(3, total_shares=1), order(4, total_shares=10**11)]
    accept(gateway, *orders)
    settle(gateway, *orders)
    accept(gateway, order(5), order(6))
    assert [status_of(gateway, one) for one in orders] == ["executed", "executed"] + [
        "rejected"
    ] * 2
    assert audited(gateway) == []


def test_an_account_that_was_sent_nothing(gateway: Gateway) -> None:
    assert audited(gateway) == []


def test_access_keys_and_networks_are_left_aside(gateway: Gateway) -> None:
    key = AccessKey("0123456789ab", "x", Scope.OPERATOR, frozenset(), NOON, b"digest")
    access.create_key(gateway, key)
    access.put_network(gateway, "DENY", "10.0.0.0/8", NOON)
    table = Table(everything(gateway))
    auditor = Auditor(table)
    assert list(auditor.table(table.pages())) == []
    assert auditor.summary.others == {"access": 2, "counter": 1}


def test_idempotency_keys_are_left_aside(gateway: Gateway) -> None:
    accepts.record_orders(
        gateway, [AcceptedOrder(order(1), make_claim())], NOON, token=str(uuid4())
    )
    table = Table(everything(gateway))
    auditor = Auditor(table)
    assert list(auditor.table(table.pages())) == []
    assert auditor.summary.others == {"idempotency": 1, "counter": 1}


def test_decisions_by_other_rules_than_todays(gateway: Gateway) -> None:
    night = NOON + seconds(12 * 3600)
    closed, late, out = order(1, at=night), order(2, at=night), order(3, at=night - seconds(30))
    accept(gateway, closed)
    make_settler(gateway).settle([ref(closed)])
    accept(gateway, late, out)
    make_settler(gateway, rules=make_rules(ALWAYS_OPEN, 60)).settle([ref(late), ref(out)])
    assert [status_of(gateway, one) for one in (closed, late, out)] == [
        "rejected",
        "executed",
        "executed",
    ]
    assert audited(gateway) == []


def test_a_parked_order(gateway: Gateway) -> None:
    first, parked, last = order(1), order(2), order(3)
    accept(gateway, first)
    settle(gateway, first)
    accept(gateway, parked)
    park(gateway, parked)
    accept(gateway, last)
    settle(gateway, last)
    assert [status_of(gateway, one) for one in (first, parked, last)] == [
        "executed",
        "failed",
        "executed",
    ]
    assert audited(gateway) == []


@pytest.mark.parametrize("is_settled", [False, True], ids=["pending", "settled"])
def test_a_replayed_order(gateway: Gateway, is_settled: bool) -> None:
    first, parked, last = order(1), order(2), order(3)
    accept(gateway, first)
    settle(gateway, first)
    accept(gateway, parked)
    park(gateway, parked)
    accept(gateway, last)
    settle(gateway, last)
    parking.replay(gateway, ref(parked))
    if is_settled:
        settle(gateway, parked)
        assert stored_order(gateway, parked).sequence == 4
    accept(gateway, order(4))
    assert status_of(gateway, parked) == ("executed" if is_settled else "pending")
    assert audited(gateway) == []


def test_an_order_that_was_parked_and_replayed_twice(gateway: Gateway) -> None:
    parked, last = order(1), order(2)
    accept(gateway, parked)
    park(gateway, parked)
    parking.replay(gateway, ref(parked))
    park(gateway, parked)
    accept(gateway, last)
    settle(gateway, last)
    parking.replay(gateway, ref(parked))
    settle(gateway, parked)
    recorded = stored_order(gateway, parked)
    assert [one.sequence for one in recorded.parked] == [1, 2]
    assert recorded.sequence == 4
    assert audited(gateway) == []


def test_an_order_that_was_parked_as_often_as_can_be(gateway: Gateway) -> None:
    first, parked, last = order(1), order(2), order(3)
    accept(gateway, first)
    settle(gateway, first)
    accept(gateway, parked)
    for _ in range(parking.PARKINGS_MAX):
        park(gateway, parked)
        parking.replay(gateway, ref(parked))
    settle(gateway, parked)
    accept(gateway, last)
    settle(gateway, last)
    assert len(stored_order(gateway, parked).parked) == parking.PARKINGS_MAX
    assert audited(gateway) == []


def test_a_cancelled_order_of_many_positions(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commits, "BALANCE_POSITIONS_MAX", 1)
    bought = [make_order("BUY", name, 1, "1", number=n) for n, name in enumerate(("A", "B"), 1)]
    cancelled = make_order("BUY", "A", 2, "1", number=3)
    accept(gateway, *bought)
    settle(gateway, *bought)
    accept(gateway, cancelled)
    parking.cancel(gateway, ref(cancelled), lambda: NOON)
    balance = stored_order(gateway, cancelled).balance
    assert balance is not None
    assert not balance.complete
    assert audited(gateway) == []


def test_orders_parked_without_their_account(gateway: Gateway) -> None:
    first, parked, replayed = order(1), order(2), order(3)
    accept(gateway, first)
    settle(gateway, first)
    accept(gateway, parked, replayed)
    for one in (parked, replayed):
        assert commits.park_unreadable_account(gateway, *ref(one), NOON, "the account is damaged")
    parking.replay(gateway, ref(replayed))
    settle(gateway, replayed)
    assert stored_order(gateway, parked).sequence is None
    assert audited(gateway) == []


def test_orders_cancelled_before_those_that_came_first(gateway: Gateway) -> None:
    first, second, cancelled, last = (order(number) for number in range(1, 5))
    accept(gateway, first, second, cancelled, last)
    parking.cancel(gateway, ref(cancelled), lambda: NOON)
    assert stored_order(gateway, cancelled).sequence == 1
    assert audited(gateway) == []
    settle(gateway, first, second, last)
    assert audited(gateway) == []


def test_a_parked_order_that_was_cancelled(gateway: Gateway) -> None:
    parked, apart = order(1), order(2)
    accept(gateway, parked)
    park(gateway, parked)
    accept(gateway, apart)
    assert commits.park_unreadable_account(gateway, *ref(apart), NOON, "the account is damaged")
    for one in (parked, apart):
        parking.cancel(gateway, ref(one), lambda: NOON)
        assert status_of(gateway, one) == "cancelled"
    assert audited(gateway) == []


@pytest.fixture
def overflowing(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> Gateway:
    """An account that executed more operations than its item has room for."""
    monkeypatch.setattr(commits, "RECENT_INLINE_MAX", 4)
    orders = [order(number, at=NOON + seconds(number)) for number in range(1, 13)]
    for start in range(0, 12, 3):
        accept(gateway, *orders[start : start + 3])
        settle(gateway, *orders[start : start + 3])
    return gateway


def recent_items(gateway: Gateway) -> list[keys.Item]:
    return [item for item in everything(gateway) if keys.is_recent(item)]


def test_operations_written_apart(overflowing: Gateway) -> None:
    assert len(recent_items(overflowing)) == 8
    assert audited(overflowing) == []


def test_operations_written_apart_that_are_executed_again(overflowing: Gateway) -> None:
    known = keys.operation_of(recent_items(overflowing)[0]).total_shares
    at = NOON + seconds(known) + DUPLICATE_WINDOW
    again = [
        order(101, total_shares=known, at=at),
        order(102, total_shares=known, at=at + seconds(100)),
        order(103, total_shares=known, at=at + DUPLICATE_WINDOW),
    ]
    for one in again:
        accept(overflowing, one)
        settle(overflowing, one)
    assert [status_of(overflowing, one) for one in again] == ["executed", "rejected", "executed"]
    assert audited(overflowing) == []


def test_a_lost_operation_that_was_written_apart_is_found(overflowing: Gateway) -> None:
    lost = recent_items(overflowing)[0]
    overflowing._client.delete_item(
        TableName=overflowing.table_name, Key={"pk": lost["pk"], "sk": lost["sk"]}
    )
    (difference,) = audited(overflowing)
    assert difference.what is What.RECENT
    assert lost["sk"]["S"].removeprefix("RECENT#") in difference.expected


def test_an_operation_written_apart_that_never_was_is_found(overflowing: Gateway) -> None:
    operation = order(1, total_shares=999).key
    false = items.recent_item(1, operation, NOON + seconds(12))
    overflowing._client.put_item(TableName=overflowing.table_name, Item=false)
    (difference,) = audited(overflowing)
    assert difference.what is What.RECENT
    assert "999" in difference.found


def test_an_operation_written_apart_that_cannot_be_read_is_found(overflowing: Gateway) -> None:
    key = {name: recent_items(overflowing)[0][name] for name in ("pk", "sk")}
    overwrite(overflowing, key, "executed_at", items.text("some day"))
    assert {one.what for one in audited(overflowing)} == {What.UNREADABLE, What.RECENT}


def test_operations_written_apart_that_nobody_would_look_for_are_found(
    overflowing: Gateway,
) -> None:
    overwrite(overflowing, keys.account_key(1), "overflow_until", items.instant(NOON))
    (difference,) = audited(overflowing)
    assert difference.what is What.RECENT
    assert "looked for" in difference.expected
