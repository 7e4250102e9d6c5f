"""Committing decisions: all of a transaction or nothing, each decision once."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest

from shared.domain.account import Account
from shared.domain.decision import park
from shared.domain.order import OperationKey, Order, OrderStatus
from shared.order_store import commits, items, keys, reads
from shared.order_store.commits import (
    FAILURE_LENGTH_MAX,
    RECENT_INLINE_MAX,
    CommitConflict,
    orders_per_settlement,
)
from shared.order_store.errors import StoreRefused
from shared.order_store.gateway import CONDITION_FAILED, Gateway, Reason, TransactionCancelled
from shared.order_store.records import (
    Balance,
    DecidedOrder,
    RecordedAccount,
    Settlement,
    UnreadableOrder,
)
from tests.unit.factories import (
    MICROSECOND,
    NOON,
    RULES,
    accept,
    everything,
    make_account,
    make_order,
    make_recorded_account,
    make_settlement,
    open_account,
    operation_key,
    order_id,
    overwrite,
    raw,
    ref,
    seconds,
    stored_account,
    stored_order,
)


def commit(gateway: Gateway, *settlements: Settlement) -> None:
    commits.commit(gateway, settlements, token=str(uuid4()))


def parked(before: RecordedAccount, order: Order, failure: str = "would not do") -> Settlement:
    decided = DecidedOrder(order.account_id, order.id, order, park(before.account), failure)
    return Settlement(before, before.account, (decided,), str(RULES), NOON)


# What is written


def test_decisions_are_numbered_in_sequence_and_take_effect_together(gateway: Gateway) -> None:
    before = open_account(gateway, make_account("100"))
    orders = [
        make_order("BUY", "AAPL", 5, "20", number=1),
        make_order("BUY", "MSFT", 1, "1", number=2),
        make_order("SELL", "AAPL", 2, "21", number=3),
    ]
    accept(gateway, *orders)
    commit(gateway, make_settlement(before, orders))
    recorded = [stored_order(gateway, order) for order in orders]
    assert [one.status for one in recorded] == ["executed", "rejected", "executed"]
    assert [one.sequence for one in recorded] == [1, 2, 3]
    assert [one.balance.cash for one in recorded if one.balance] == [0, 0, 42]
    account = stored_account(gateway)
    assert (account.decided, account.decided_through) == (3, order_id(3))
    assert account.account.cash == 42
    assert account.account.shares_of("AAPL") == 3


def test_the_sequence_goes_on_with_the_next_commit(gateway: Gateway) -> None:
    first, second = make_order("BUY", "AAPL", number=1), make_order("BUY", "MSFT", number=2)
    open_account(gateway)
    accept(gateway, first, second)
    commit(gateway, make_settlement(stored_account(gateway), [first]))
    commit(gateway, make_settlement(stored_account(gateway), [second]))
    assert stored_order(gateway, second).sequence == 2
    assert stored_account(gateway).decided == 2


def test_settlements_of_several_accounts_are_committed_together(gateway: Gateway) -> None:
    settlements = []
    for account_id in (1, 2):
        before = open_account(gateway, make_account(account_id=account_id))
        order = make_order(account_id=account_id, number=account_id)
        accept(gateway, order)
        settlements.append(make_settlement(before, [order]))
    commit(gateway, *settlements)
    assert [stored_account(gateway, account_id).account.cash for account_id in (1, 2)] == [990, 990]


def test_a_rejection_counts_but_leaves_the_state_as_it_was(gateway: Gateway) -> None:
    before = open_account(gateway, make_account("5", {"AAPL": (1, "2")}))
    order = make_order(share_price="6")
    accept(gateway, order)
    commit(gateway, make_settlement(before, [order]))
    after = stored_account(gateway)
    assert after.account == before.account
    assert (after.decided, after.decided_through) == (1, order.id)


def test_a_rejection_does_not_write_what_it_did_not_change(gateway: Gateway) -> None:
    # An attribute that this version does not understand any more must survive a rejection.
    before = open_account(gateway, make_account("5"))
    order = make_order(share_price="6")
    accept(gateway, order)
    overwrite(gateway, keys.account_key(1), "positions", {"M": {"NEW": {"S": "shape"}}})
    commit(gateway, make_settlement(before, [order]))
    assert raw(gateway, keys.account_key(1))["positions"] == {"M": {"NEW": {"S": "shape"}}}


def test_a_replayed_order_does_not_turn_the_account_back(gateway: Gateway) -> None:
    old, new = make_order("BUY", "AAPL", number=1), make_order("BUY", "MSFT", number=2)
    open_account(gateway)
    accept(gateway, old, new)
    commit(gateway, make_settlement(stored_account(gateway), [new]))
    commit(gateway, make_settlement(stored_account(gateway), [old]))
    account = stored_account(gateway)
    assert (account.decided, account.decided_through) == (2, new.id)


def test_a_decided_order_leaves_the_index(gateway: Gateway) -> None:
    before = open_account(gateway)
    order = make_order()
    accept(gateway, order)
    assert list(reads.undecided_before(gateway, NOON)) == [ref(order)]
    commit(gateway, make_settlement(before, [order]))
    assert list(reads.undecided_before(gateway, NOON)) == []
    assert keys.SHARD not in raw(gateway, keys.order_key(*ref(order)))


def test_a_reason_for_parking_is_cut_to_its_length(gateway: Gateway) -> None:
    before = open_account(gateway)
    order = make_order()
    accept(gateway, order)
    commit(gateway, parked(before, order, failure="x" * (FAILURE_LENGTH_MAX + 1)))
    assert stored_order(gateway, order).failure == "x" * FAILURE_LENGTH_MAX


def test_an_unreadable_order_can_be_parked_by_its_key(gateway: Gateway) -> None:
    before = open_account(gateway)
    order = make_order()
    accept(gateway, order)
    overwrite(gateway, keys.order_key(*ref(order)), "share_price", {"S": "?"})
    decided = DecidedOrder(1, order.id, None, park(before.account), "unreadable")
    commit(gateway, Settlement(before, before.account, (decided,), str(RULES), NOON))
    found = reads.load_order(gateway, *ref(order))
    assert isinstance(found, UnreadableOrder)
    assert not found.is_pending
    assert raw(gateway, keys.order_key(*ref(order)))["status"] == items.text("failed")
    assert stored_account(gateway).decided_through == order.id


def test_an_account_of_many_positions_shows_the_traded_one_with_the_order(
    gateway: Gateway,
) -> None:
    held = {f"ISSUER {number}": (1, "2") for number in range(101)}
    before = open_account(gateway, make_account("100", held))
    orders = [
        make_order("BUY", "ISSUER 7", 1, "3", number=1),
        make_order("SELL", "ISSUER 8", 1, "3", number=2),
    ]
    accept(gateway, *orders)
    commit(gateway, make_settlement(before, orders))
    assert stored_order(gateway, orders[0]).balance == Balance(
        Decimal(97), make_account(positions={"ISSUER 7": (2, "3")}).positions, complete=False
    )
    # Selling the last share left a hundred positions: all of them are shown again.
    last = stored_order(gateway, orders[1]).balance
    assert last is not None
    assert last.complete
    assert len(last.positions) == 100


# Conflicts


def test_a_commit_on_an_older_state_changes_nothing(gateway: Gateway) -> None:
    before = open_account(gateway)
    first, second = make_order("BUY", "AAPL", number=1), make_order("BUY", "MSFT", number=2)
    accept(gateway, first, second)
    commit(gateway, make_settlement(before, [first]))
    then = everything(gateway)
    with pytest.raises(CommitConflict) as caught:
        commit(gateway, make_settlement(before, [second]))
    assert caught.value.account_ids == {1}
    assert everything(gateway) == then


def test_a_conflict_names_its_accounts_and_spoils_the_whole_transaction(gateway: Gateway) -> None:
    befores, orders = [], []
    for account_id in (1, 2, 3):
        befores.append(open_account(gateway, make_account(account_id=account_id)))
        orders.append(make_order(account_id=account_id, number=account_id))
    accept(gateway, *orders)
    settlements = [
        make_settlement(before, [order]) for before, order in zip(befores, orders, strict=True)
    ]
    commit(gateway, settlements[1])
    then = everything(gateway)
    with pytest.raises(CommitConflict) as caught:
        commit(gateway, *settlements)
    assert caught.value.account_ids == {2}
    assert everything(gateway) == then
    commit(gateway, settlements[0], settlements[2])
    assert stored_account(gateway, 3).decided == 1


def test_several_conflicts_are_all_named(gateway: Gateway) -> None:
    settlements = []
    for account_id in (1, 2, 3):
        before = open_account(gateway, make_account(account_id=account_id))
        order = make_order(account_id=account_id, number=account_id)
        accept(gateway, order)
        settlements.append(make_settlement(before, [order]))
    commit(gateway, settlements[0], settlements[2])
    with pytest.raises(CommitConflict) as caught:
        commit(gateway, *settlements)
    assert caught.value.account_ids == {1, 3}


def test_a_commit_cannot_be_repeated(gateway: Gateway) -> None:
    before = open_account(gateway)
    order = make_order()
    accept(gateway, order)
    commit(gateway, make_settlement(before, [order]))
    then = everything(gateway)
    with pytest.raises(CommitConflict):
        commit(gateway, make_settlement(before, [order]))
    assert everything(gateway) == then


def test_an_order_is_decided_once_whatever_version_is_read(gateway: Gateway) -> None:
    before = open_account(gateway)
    order, other = make_order("BUY", "AAPL", number=1), make_order("BUY", "MSFT", number=2)
    accept(gateway, order, other)
    commit(gateway, make_settlement(before, [order]))
    then = everything(gateway)
    # The version is right this time; the order itself refuses.
    decided = make_settlement(before, [order]).decided
    newest = stored_account(gateway)
    with pytest.raises(CommitConflict) as caught:
        commit(gateway, Settlement(newest, newest.account, decided, str(RULES), NOON))
    assert caught.value.account_ids == {1}
    assert everything(gateway) == then


def test_an_order_that_was_never_accepted_cannot_be_decided(gateway: Gateway) -> None:
    before = open_account(gateway)
    then = everything(gateway)
    with pytest.raises(CommitConflict):
        commit(gateway, make_settlement(before, [make_order()]))
    assert everything(gateway) == then


class Refusing(Gateway):
    """A table that cancels every transaction for given reasons."""

    def __init__(self, refused: Mapping[int, Reason]) -> None:
        self.table_name = "orders"
        self.refused = refused

    def transact(self, actions: Any, token: str) -> None:
        del actions, token
        raise TransactionCancelled(self.refused)


def two_settlements() -> list[Settlement]:
    return [
        make_settlement(
            make_recorded_account(make_account(account_id=account_id)),
            [make_order(account_id=account_id)],
        )
        for account_id in (1, 2)
    ]


@pytest.mark.parametrize(
    "refused",
    [
        {2: Reason("ValidationError", None)},
        {0: Reason(CONDITION_FAILED, None), 3: Reason("ItemCollectionSizeLimitExceeded", None)},
    ],
    ids=["alone", "beside a conflict"],
)
def test_an_action_that_is_invalid_is_no_conflict(refused: Mapping[int, Reason]) -> None:
    with pytest.raises(StoreRefused, match=r"accounts \[2\]"):
        commits.commit(Refusing(refused), two_settlements(), token="token")


def test_conflicts_are_sorted_by_the_accounts_own_actions() -> None:
    # Places 0 and 1 belong to account 1, places 2 and 3 to account 2.
    for place, account_id in ((0, 1), (1, 1), (2, 2), (3, 2)):
        gateway = Refusing({place: Reason(CONDITION_FAILED, None)})
        with pytest.raises(CommitConflict) as caught:
            commits.commit(gateway, two_settlements(), token="token")
        assert caught.value.account_ids == {account_id}


# Attempts, and orders of accounts that cannot be read


def test_attempts_are_counted_and_taken_back(gateway: Gateway) -> None:
    open_account(gateway)
    order = make_order()
    accept(gateway, order)
    assert stored_order(gateway, order).attempts == 0
    assert commits.count_attempt(gateway, 1, order.id, 0)
    assert commits.count_attempt(gateway, 1, order.id, 1)
    assert stored_order(gateway, order).attempts == 2
    assert commits.forgive_attempt(gateway, 1, order.id, 1)
    assert stored_order(gateway, order).attempts == 1


def test_an_attempt_whose_answer_was_lost_is_not_counted_twice(gateway: Gateway) -> None:
    open_account(gateway)
    order = make_order()
    accept(gateway, order)
    assert commits.count_attempt(gateway, 1, order.id, 0)
    assert not commits.count_attempt(gateway, 1, order.id, 0)
    assert stored_order(gateway, order).attempts == 1


def test_attempts_at_a_decided_order_are_not_counted(gateway: Gateway) -> None:
    before = open_account(gateway)
    order = make_order()
    accept(gateway, order)
    assert commits.count_attempt(gateway, 1, order.id, 0)
    commit(gateway, make_settlement(before, [order]))
    assert not commits.count_attempt(gateway, 1, order.id, 1)
    assert not commits.forgive_attempt(gateway, 1, order.id, 0)
    assert stored_order(gateway, order).attempts == 1


def test_attempts_do_not_make_an_order(gateway: Gateway) -> None:
    assert not commits.count_attempt(gateway, 1, order_id(1), 0)
    assert gateway.get(keys.order_key(1, order_id(1))) is None


def test_an_order_of_an_unreadable_account_is_parked_alone(gateway: Gateway) -> None:
    open_account(gateway)
    order = make_order()
    accept(gateway, order)
    overwrite(gateway, keys.account_key(1), "cash", {"S": "?"})
    account = raw(gateway, keys.account_key(1))
    decided_at = NOON + MICROSECOND
    reason = "y" * (FAILURE_LENGTH_MAX + 1)
    assert commits.park_unreadable_account(gateway, 1, order.id, decided_at, reason)
    recorded = stored_order(gateway, order)
    assert recorded.status is OrderStatus.FAILED
    assert recorded.decided_at == decided_at
    assert recorded.failure == "y" * FAILURE_LENGTH_MAX
    assert (recorded.sequence, recorded.balance) == (None, None)
    assert list(reads.undecided_before(gateway, NOON)) == []
    assert raw(gateway, keys.account_key(1)) == account


def test_a_decided_order_is_not_parked(gateway: Gateway) -> None:
    before = open_account(gateway)
    order = make_order()
    accept(gateway, order)
    commit(gateway, make_settlement(before, [order]))
    recorded = stored_order(gateway, order)
    assert not commits.park_unreadable_account(gateway, 1, order.id, NOON, "late")
    assert stored_order(gateway, order) == recorded


# Where executed operations are kept


def many_operations(count: int, at: datetime = NOON) -> dict[OperationKey, datetime]:
    return {operation_key("BUY", "OLD", number): at for number in range(1, count + 1)}


def open_with_recent(
    gateway: Gateway, recent: Mapping[OperationKey, datetime], cash: str = "1000000"
) -> RecordedAccount:
    open_account(gateway, make_account(cash))
    overwrite(gateway, keys.account_key(1), "recent", items.write_recent(recent))
    overwrite(gateway, keys.account_key(1), "last_executed_at", items.instant(NOON))
    return stored_account(gateway)


def execute_new(gateway: Gateway, count: int, at: datetime = NOON, first: int = 1) -> list[Order]:
    """Execute so many operations that were never seen, in one commit."""
    orders = [
        make_order("BUY", "NEW", first + number, "1", at=at, number=first + number)
        for number in range(count)
    ]
    accept(gateway, *orders)
    commit(gateway, make_settlement(stored_account(gateway), orders))
    return orders


def apart(gateway: Gateway, orders: list[Order]) -> dict[OperationKey, datetime]:
    return reads.load_recent(gateway, 1, [order.key for order in orders])


def test_executed_operations_stay_in_the_account_while_there_is_room(gateway: Gateway) -> None:
    open_with_recent(gateway, many_operations(RECENT_INLINE_MAX - 2))
    orders = execute_new(gateway, 2)
    account = stored_account(gateway)
    assert len(account.inline) == RECENT_INLINE_MAX
    assert account.overflow_until is None
    assert apart(gateway, orders) == {}


def test_executed_operations_without_room_are_written_apart(gateway: Gateway) -> None:
    open_with_recent(gateway, many_operations(RECENT_INLINE_MAX - 1))
    later = NOON + seconds(60)
    orders = execute_new(gateway, 3, at=later)
    account = stored_account(gateway)
    assert len(account.inline) == RECENT_INLINE_MAX
    assert orders[0].key in account.inline
    assert apart(gateway, orders) == {orders[1].key: later, orders[2].key: later}
    assert account.overflow_until == later


def test_the_latest_operation_written_apart_counts(gateway: Gateway) -> None:
    open_with_recent(gateway, many_operations(RECENT_INLINE_MAX))
    execute_new(gateway, 1, at=NOON + seconds(5), first=1)
    execute_new(gateway, 1, at=NOON + seconds(1), first=2)
    assert stored_account(gateway).overflow_until == NOON + seconds(5)
    execute_new(gateway, 1, at=NOON + seconds(6), first=3)
    assert stored_account(gateway).overflow_until == NOON + seconds(6)


def test_the_latest_of_several_written_apart_at_once_counts(gateway: Gateway) -> None:
    open_with_recent(gateway, many_operations(RECENT_INLINE_MAX))
    orders = [
        make_order("BUY", "NEW", number, "1", at=NOON + seconds(second), number=number)
        for number, second in ((1, 2), (2, 5), (3, 1))
    ]
    accept(gateway, *orders)
    commit(gateway, make_settlement(stored_account(gateway), orders))
    assert len(apart(gateway, orders)) == 3
    assert stored_account(gateway).overflow_until == NOON + seconds(5)


def test_forgotten_operations_make_room(gateway: Gateway) -> None:
    open_with_recent(gateway, many_operations(RECENT_INLINE_MAX))
    orders = execute_new(gateway, 1, at=NOON + timedelta(minutes=10))
    account = stored_account(gateway)
    assert account.inline == {orders[0].key}
    assert account.overflow_until is None


def test_an_operation_that_stands_apart_is_not_written_again(gateway: Gateway) -> None:
    before = open_with_recent(gateway, many_operations(RECENT_INLINE_MAX))
    known = operation_key("BUY", "APART", 1)
    merged = replace(before.account, recent={**before.account.recent, known: NOON})
    before = replace(before, account=merged)
    order = make_order("BUY", "NEW", 1, "1")
    accept(gateway, order)
    commit(gateway, make_settlement(before, [order]))
    # Only the new one was written: the known one was not there to begin with in this table.
    assert reads.load_recent(gateway, 1, [known, order.key]) == {order.key: NOON}
    assert known not in stored_account(gateway).inline


def test_an_operation_in_the_account_stays_there_when_it_is_executed_again(
    gateway: Gateway,
) -> None:
    open_with_recent(gateway, many_operations(RECENT_INLINE_MAX))
    again = make_order("BUY", "OLD", 1, "1", at=NOON + timedelta(minutes=5))
    accept(gateway, again)
    commit(gateway, make_settlement(stored_account(gateway), [again]))
    account = stored_account(gateway)
    assert account.account.recent[again.key] == again.timestamp
    assert apart(gateway, [again]) == {}


@pytest.mark.parametrize(
    ("inline", "is_overflowing", "orders"),
    [(0, False, 99), (157, False, 99), (158, False, 49), (256, False, 49), (0, True, 49)],
)
def test_orders_of_an_account_fit_into_one_transaction(
    inline: int, is_overflowing: bool, orders: int
) -> None:
    assert orders_per_settlement(inline, is_overflowing) == orders


def test_as_many_orders_as_that_are_committed_at_once(gateway: Gateway) -> None:
    open_with_recent(gateway, many_operations(157))
    execute_new(gateway, 99)
    assert len(stored_account(gateway).inline) == RECENT_INLINE_MAX
    execute_new(gateway, 49, first=100)  # each with an item of its own
    account = stored_account(gateway)
    assert account.decided == 148
    assert len(account.inline) == RECENT_INLINE_MAX


def test_an_accounts_state_is_replaced_as_a_whole(gateway: Gateway) -> None:
    before = open_account(gateway, make_account("10", {"AAPL": (1, "2"), "MSFT": (1, "2")}))
    order = make_order("SELL", "AAPL", 1, "3")
    accept(gateway, order)
    commit(gateway, make_settlement(before, [order]))
    after: Account = stored_account(gateway).account
    assert dict(after.positions) == dict(make_account(positions={"MSFT": (1, "2")}).positions)
    assert after.cash == 13
    assert after.last_executed_at == NOON
    assert dict(after.recent) == {order.key: NOON}
    assert after.opened_at == before.account.opened_at
