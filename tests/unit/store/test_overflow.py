"""More executed operations within the window than an account's item holds."""

from datetime import datetime, timedelta

import pytest

from shared.domain.decision import DUPLICATE_WINDOW
from shared.domain.order import BusinessError, Order, OrderStatus
from shared.order_store import commits, items, keys, reads
from shared.order_store.commits import RECENT_INLINE_MAX
from shared.order_store.gateway import Gateway
from shared.order_store.records import UnreadableOrder
from tests.unit.factories import (
    MICROSECOND,
    NOON,
    RULES,
    accept,
    make_account,
    make_order,
    make_settler,
    open_account,
    overwrite,
    ref,
    seconds,
    stored_account,
    stored_order,
)

FEW = 8
"""Room for operations in the account's item, where a test need not fill the real one."""


@pytest.fixture
def gateway(gateway: Gateway) -> Gateway:
    """The table, with the account of these tests in it."""
    open_account(gateway, make_account("1000000"))
    return gateway


@pytest.fixture
def overflowing(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> Gateway:
    """An account that executed six operations more at noon than its item has room for."""
    monkeypatch.setattr(commits, "RECENT_INLINE_MAX", FEW)
    settle(gateway, *(operation(number) for number in range(1, FEW + 7)))
    return gateway


def operation(total_shares: int, at: datetime = NOON, number: int | None = None) -> Order:
    """An operation that differs from the others in its number of shares."""
    return make_order("BUY", "AAPL", total_shares, "0.01", at=at, number=number or total_shares)


def settle(gateway: Gateway, *orders: Order) -> list[Order]:
    accept(gateway, *orders)
    assert make_settler(gateway).settle(map(ref, orders)) == []
    return list(orders)


def inline(gateway: Gateway) -> set[int]:
    """Numbers of shares of the operations that stand in the account's own item."""
    return {key.total_shares for key in stored_account(gateway).inline}


def apart(gateway: Gateway) -> set[int]:
    """Numbers of shares of the operations that stand in items of their own."""
    every = [operation(number).key for number in range(1, RECENT_INLINE_MAX + 100)]
    return {key.total_shares for key in reads.load_recent(gateway, 1, every)}


def is_duplicate(gateway: Gateway, order: Order) -> bool:
    recorded = stored_order(gateway, order)
    assert recorded.status in (OrderStatus.EXECUTED, OrderStatus.REJECTED)
    assert set(recorded.business_errors) <= {BusinessError.DUPLICATED_OPERATION}
    return recorded.status is OrderStatus.REJECTED


def test_an_account_that_is_full_writes_operations_apart_and_still_finds_them(
    gateway: Gateway,
) -> None:
    executed = [operation(number) for number in range(1, RECENT_INLINE_MAX + 5)]
    known = {order.key: NOON for order in executed[: RECENT_INLINE_MAX - 4]}
    overwrite(gateway, keys.account_key(1), "recent", items.write_recent(known))
    overwrite(gateway, keys.account_key(1), "last_executed_at", items.instant(NOON))
    settle(gateway, *executed[RECENT_INLINE_MAX - 4 :])
    assert len(inline(gateway)) == RECENT_INLINE_MAX
    assert apart(gateway) == {order.total_shares for order in executed} - inline(gateway)
    assert stored_account(gateway).overflow_until == NOON
    again = operation(min(apart(gateway)), number=1001)
    other = operation(RECENT_INLINE_MAX + 5, number=1002)
    settle(gateway, again, other)
    assert is_duplicate(gateway, again)
    assert not is_duplicate(gateway, other)


@pytest.mark.parametrize(
    ("later", "blocks"),
    [
        (seconds(0), True),
        (DUPLICATE_WINDOW - MICROSECOND, True),
        (DUPLICATE_WINDOW, False),
    ],
    ids=str,
)
@pytest.mark.parametrize("where", [apart, inline], ids=["apart", "inline"])
def test_an_operation_blocks_for_the_window_wherever_it_stands(
    overflowing: Gateway, where: object, later: timedelta, blocks: bool
) -> None:
    known = min(apart(overflowing) if where is apart else inline(overflowing))
    (again,) = settle(overflowing, operation(known, at=NOON + later, number=1001))
    assert is_duplicate(overflowing, again) is blocks


def test_an_operation_that_stands_apart_blocks_anew_when_it_is_executed_again(
    overflowing: Gateway,
) -> None:
    known = min(apart(overflowing))
    at = NOON + DUPLICATE_WINDOW
    first, second, third = settle(
        overflowing,
        operation(known, at=at, number=1001),
        operation(known, at=at + DUPLICATE_WINDOW - MICROSECOND, number=1002),
        operation(known, at=at + DUPLICATE_WINDOW, number=1003),
    )
    assert not is_duplicate(overflowing, first)
    assert is_duplicate(overflowing, second)
    assert not is_duplicate(overflowing, third)


def test_a_newer_execution_in_the_account_counts_before_an_older_one_apart(
    overflowing: Gateway,
) -> None:
    known = min(apart(overflowing))
    # By then the account's item has room again, while the last ones apart still matter.
    settle(overflowing, operation(500, at=NOON + seconds(100), number=1001))
    at = NOON + DUPLICATE_WINDOW + seconds(5)
    settle(overflowing, operation(known, at=at, number=1002))
    assert known in inline(overflowing)
    assert known in apart(overflowing)
    overflow_until = stored_account(overflowing).overflow_until
    assert overflow_until == NOON + seconds(100)
    (again,) = settle(overflowing, operation(known, at=at + seconds(10), number=1003))
    assert is_duplicate(overflowing, again)


def test_an_operation_repeated_within_one_settlement_is_a_duplicate(overflowing: Gateway) -> None:
    first, second = settle(overflowing, operation(500, number=1001), operation(500, number=1002))
    assert not is_duplicate(overflowing, first)
    assert is_duplicate(overflowing, second)


def test_an_unreadable_order_blocks_such_an_account_like_any_other(overflowing: Gateway) -> None:
    known = min(apart(overflowing))
    before, broken = operation(known, number=1001), operation(500, number=1002)
    accept(overflowing, before, broken)
    overwrite(overflowing, keys.order_key(*ref(broken)), "share_price", {"S": "a lot"})
    assert make_settler(overflowing).settle([ref(before), ref(broken)]) == []
    assert is_duplicate(overflowing, before)
    assert isinstance(reads.load_order(overflowing, *ref(broken)), UnreadableOrder)


def test_an_account_that_calmed_down_is_its_own_again(overflowing: Gateway) -> None:
    beyond = NOON + DUPLICATE_WINDOW + RULES.timestamp_skew
    settle(overflowing, operation(500, at=beyond, number=1001))
    known = min(apart(overflowing))
    (again,) = settle(overflowing, operation(known, at=beyond, number=1002))
    assert not is_duplicate(overflowing, again)
    assert inline(overflowing) == {500, known}


def test_a_damaged_operation_stops_its_account_alone_and_its_order_is_parked_in_the_end(
    overflowing: Gateway,
) -> None:
    open_account(overflowing, make_account("1000", account_id=2))
    neighbour = make_order("BUY", "AAPL", 1, "1", account_id=2, number=900)
    stuck = operation(min(apart(overflowing)), number=901)
    overwrite(overflowing, keys.recent_key(1, stuck.key), "executed_at", {"S": "some day"})
    accept(overflowing, stuck, neighbour)
    settler = make_settler(overflowing, attempts_max=1)

    assert settler.settle([ref(stuck), ref(neighbour)], suspect=True) == []
    assert stored_order(overflowing, neighbour).status is OrderStatus.EXECUTED
    assert stored_order(overflowing, stuck).status is OrderStatus.PENDING
    assert settler.settle([ref(stuck)], suspect=True) == []
    assert stored_order(overflowing, stuck).status is OrderStatus.FAILED
