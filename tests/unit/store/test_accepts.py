"""Recording what clients sent: all of a group or none, each request once."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from shared.domain.account import Account
from shared.domain.order import Order, OrderStatus
from shared.ids import NO_ORDER_ID
from shared.order_store import accepts, keys, reads
from shared.order_store.accepts import (
    ACTIONS_PER_ACCOUNT_MAX,
    ACTIONS_PER_ORDER_MAX,
    IDEMPOTENCY_LIFE,
    AcceptRefused,
)
from shared.order_store.gateway import Gateway, Reason, TransactionCancelled
from shared.order_store.items import text
from shared.order_store.records import (
    AcceptedOrder,
    Head,
    IdempotencyClaim,
    OpenedAccount,
    RecordedOrder,
    Remembered,
)
from tests.unit.factories import (
    NOON,
    accept,
    make_account,
    make_claim,
    make_order,
    open_account,
    order_id,
    overwrite,
    ref,
    seconds,
    stored_account,
    stored_order,
)


def record(
    gateway: Gateway,
    orders: Sequence[Order],
    claims: Sequence[IdempotencyClaim | None] = (),
    now: datetime = NOON,
) -> None:
    padded = (*claims, *[None] * (len(orders) - len(claims)))
    group = [AcceptedOrder(order, claim) for order, claim in zip(orders, padded, strict=True)]
    accepts.record_orders(gateway, group, now, token=str(uuid4()))


def refused(
    gateway: Gateway,
    orders: Sequence[Order],
    claims: Sequence[IdempotencyClaim | None] = (),
    now: datetime = NOON,
) -> AcceptRefused:
    with pytest.raises(AcceptRefused) as caught:
        record(gateway, orders, claims, now)
    return caught.value


def open_accounts(
    gateway: Gateway, accounts: Sequence[OpenedAccount], now: datetime = NOON
) -> None:
    accepts.record_accounts(gateway, accounts, now, token=str(uuid4()))


def head_of(gateway: Gateway, account_id: int = 1) -> Head:
    return reads.load_for_settlement(gateway, [account_id], []).heads[account_id]


def is_recorded(gateway: Gateway, order: Order) -> bool:
    return reads.load_order(gateway, *ref(order)) is not None


# Orders


def test_an_order_is_recorded_as_pending(gateway: Gateway) -> None:
    open_account(gateway)
    order = make_order()
    record(gateway, [order])
    assert stored_order(gateway, order) == RecordedOrder(order, OrderStatus.PENDING)
    assert head_of(gateway) == Head(1, order.id)


def test_an_account_without_orders_has_accepted_none(gateway: Gateway) -> None:
    open_account(gateway)
    assert head_of(gateway) == Head(0, NO_ORDER_ID)


def test_a_group_holds_orders_of_several_accounts(gateway: Gateway) -> None:
    orders = [
        make_order(account_id=1, number=1),
        make_order(account_id=2, number=2),
        make_order(account_id=1, number=3),
        make_order(account_id=3, number=4),
    ]
    for account_id in (1, 2, 3):
        open_account(gateway, make_account(account_id=account_id))
    record(gateway, orders)
    assert all(is_recorded(gateway, order) for order in orders)
    assert head_of(gateway, 1) == Head(2, order_id(3))
    assert head_of(gateway, 2) == Head(1, order_id(2))
    assert head_of(gateway, 3) == Head(1, order_id(4))


def test_an_unknown_account_refuses_its_whole_group(gateway: Gateway) -> None:
    open_account(gateway)
    known, unknown = make_order(number=1), make_order(account_id=9, number=2)
    refusal = refused(gateway, [known, unknown], [make_claim("a"), make_claim("b")])
    assert refusal == AcceptRefused(unknown_accounts={9})
    assert not is_recorded(gateway, known)
    assert not is_recorded(gateway, unknown)
    assert head_of(gateway) == Head(0, NO_ORDER_ID)
    # Not even the key was taken.
    record(gateway, [known], [make_claim("a")])
    assert is_recorded(gateway, known)


@pytest.mark.parametrize("number", [1, 2, 3], ids=["smaller", "second to last", "the same"])
def test_ids_that_are_too_small_are_refused_with_the_newest(gateway: Gateway, number: int) -> None:
    open_account(gateway)
    record(gateway, [make_order(number=2), make_order(number=3)])
    refusal = refused(gateway, [make_order(number=number)])
    assert refusal.newest_ids == {1: order_id(3)}
    assert not refusal.unknown_accounts
    assert head_of(gateway) == Head(2, order_id(3))


def test_the_first_id_of_a_group_decides_whether_it_is_large_enough(gateway: Gateway) -> None:
    open_account(gateway)
    record(gateway, [make_order(number=2)])
    assert refused(gateway, [make_order(number=1), make_order(number=3)]).newest_ids
    record(gateway, [make_order(number=3), make_order(number=5)])
    assert head_of(gateway) == Head(3, order_id(5))


def test_a_group_is_not_recorded_a_second_time(gateway: Gateway) -> None:
    open_account(gateway)
    orders = [make_order(number=1), make_order(number=2)]
    record(gateway, orders)
    refusal = refused(gateway, orders)
    assert refusal.newest_ids == {1: order_id(2)}
    assert refusal.taken == {0, 1}
    assert head_of(gateway) == Head(2, order_id(2))


def test_every_obstacle_of_a_group_is_named(gateway: Gateway) -> None:
    open_account(gateway, make_account(account_id=1))
    open_account(gateway, make_account(account_id=2))
    record(gateway, [make_order(account_id=2, number=9)], [make_claim("used", "body")])
    group = [
        make_order(account_id=1, number=1),
        make_order(account_id=2, number=2),
        make_order(account_id=3, number=3),
        make_order(account_id=1, number=4),
    ]
    refusal = refused(gateway, group, [None, make_claim("new"), None, make_claim("used", "body")])
    assert refusal == AcceptRefused(
        unknown_accounts={3},
        newest_ids={2: order_id(9)},
        remembered={3: Remembered("body", order_id(9))},
    )
    assert not is_recorded(gateway, group[0])


# Idempotency keys


def test_a_repeated_key_answers_what_was_made_the_first_time(gateway: Gateway) -> None:
    open_account(gateway)
    first, second = make_order(number=1), make_order(number=2)
    record(gateway, [first], [make_claim("key", "body")])
    refusal = refused(gateway, [second], [make_claim("key", "body")])
    assert refusal == AcceptRefused(remembered={0: Remembered("body", first.id)})
    assert not is_recorded(gateway, second)
    assert head_of(gateway) == Head(1, first.id)


def test_a_repeated_key_with_another_body_shows_the_first_body(gateway: Gateway) -> None:
    open_account(gateway)
    first = make_order(number=1)
    record(gateway, [first], [make_claim("key", "body")])
    refusal = refused(gateway, [make_order(number=2)], [make_claim("key", "other body")])
    assert refusal.remembered[0] == Remembered("body", first.id)


def test_a_remembered_member_refuses_its_whole_group(gateway: Gateway) -> None:
    open_account(gateway)
    record(gateway, [make_order(number=1)], [make_claim("key")])
    others = [make_order(number=2), make_order(number=3), make_order(number=4)]
    refusal = refused(gateway, others, [make_claim("a"), make_claim("key"), None])
    assert list(refusal.remembered) == [1]
    assert not any(is_recorded(gateway, order) for order in others)
    record(gateway, [others[0], others[2]], [make_claim("a")])


@pytest.mark.parametrize(
    ("age", "is_remembered"),
    [
        (timedelta(0), True),
        (IDEMPOTENCY_LIFE - seconds(1), True),
        (IDEMPOTENCY_LIFE, False),
        (IDEMPOTENCY_LIFE + seconds(1), False),
    ],
    ids=str,
)
def test_a_key_is_remembered_for_a_day_even_if_it_is_deleted_later(
    gateway: Gateway, age: timedelta, is_remembered: bool
) -> None:
    open_account(gateway)
    record(gateway, [make_order(number=1)], [make_claim("key", "body")])
    second = make_order(number=2)
    if is_remembered:
        assert refused(gateway, [second], [make_claim("key", "new")], NOON + age).remembered
        return
    record(gateway, [second], [make_claim("key", "new")], NOON + age)
    # The key now stands for the second request, for a day of its own.
    refusal = refused(gateway, [make_order(number=3)], [make_claim("key")], NOON + age)
    assert refusal.remembered[0] == Remembered("new", second.id)


def test_a_day_is_kept_in_the_attribute_that_the_table_expires(gateway: Gateway) -> None:
    open_account(gateway)
    record(gateway, [make_order()], [make_claim("key", scope="1")])
    item = gateway.get(keys.idempotency_key("1", "key"))
    assert item is not None
    assert item["expires_at"] == {"N": str(int(NOON.timestamp()) + 86_400)}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (make_claim("key"), make_claim("KEY")),
        (make_claim("key"), make_claim("key ")),
        (make_claim("key", scope="1"), make_claim("key", scope="2")),
        (make_claim("", scope="1"), make_claim("x", scope="1")),
        (make_claim("\ud800"), make_claim("\ud801")),
        (make_claim("k" * 5000), make_claim("k" * 5001)),
    ],
    ids=["case", "blank", "scope", "empty", "surrogates", "long"],
)
def test_different_keys_are_different_requests(
    gateway: Gateway, one: IdempotencyClaim, other: IdempotencyClaim
) -> None:
    open_account(gateway)
    record(gateway, [make_order(number=1)], [one])
    record(gateway, [make_order(number=2)], [other])
    assert refused(gateway, [make_order(number=3)], [one]).remembered[0].result == order_id(1)
    assert refused(gateway, [make_order(number=3)], [other]).remembered[0].result == order_id(2)


# What the store cannot do


class Scripted(Gateway):
    """A table that remembers what it was asked to do and refuses as it is told."""

    def __init__(self, refused: Mapping[int, Reason] | None = None) -> None:
        self.table_name = "orders"
        self.refused = refused or {}
        self.actions: list[Mapping[str, Any]] = []

    def transact(self, actions: Sequence[Mapping[str, Any]], token: str) -> None:
        del token
        self.actions = list(actions)
        if self.refused:
            raise TransactionCancelled(self.refused)


def test_a_member_that_the_store_calls_invalid_is_named_by_its_place() -> None:
    group = [make_order(account_id=1, number=1), make_order(account_id=1, number=2)]
    # Places: the head; the first order; the second order and its key.
    for place, member in ((1, 0), (2, 1), (3, 1)):
        gateway = Scripted({place: Reason("ValidationError", None)})
        refusal = refused(gateway, group, [None, make_claim()])
        assert refusal == AcceptRefused(impossible={member: "ValidationError"})


@pytest.mark.parametrize("name", ["accepted", "newest"])
def test_an_unreadable_head_stands_in_the_way_of_its_accounts_members_alone(
    gateway: Gateway, name: str
) -> None:
    for account_id in (1, 2):
        open_account(gateway, make_account(account_id=account_id))
    record(gateway, [make_order(account_id=1, number=4)])
    overwrite(gateway, keys.head_key(1), name, {"NULL": True})
    group = [
        make_order(account_id=1, number=2),
        make_order(account_id=2, number=1),
        make_order(account_id=1, number=3),
    ]
    refusal = refused(gateway, group)
    assert sorted(refusal.impossible) == [0, 2]
    assert "ACCOUNT#1" in refusal.impossible[0]
    assert not refusal.newest_ids
    record(gateway, [group[1]])


@pytest.mark.parametrize("name", ["fingerprint", "result"])
def test_an_unreadable_key_stands_in_the_way_of_its_member_alone(
    gateway: Gateway, name: str
) -> None:
    open_account(gateway)
    record(gateway, [make_order(number=1)], [make_claim("key", scope="1")])
    overwrite(gateway, keys.idempotency_key("1", "key"), name, {"NULL": True})
    group = [make_order(number=2), make_order(number=3)]
    refusal = refused(gateway, group, [None, make_claim("key", scope="1")])
    assert list(refusal.impossible) == [1]
    assert "IDEMPOTENCY#1" in refusal.impossible[1]
    assert not refusal.remembered


def test_nothing_takes_more_actions_than_groups_are_reckoned_with() -> None:
    gateway = Scripted()
    record(gateway, [make_order()], [make_claim()])
    assert len(gateway.actions) == ACTIONS_PER_ORDER_MAX
    open_accounts(gateway, [opened(make_account(), "mark", "key")])
    assert len(gateway.actions) == ACTIONS_PER_ACCOUNT_MAX


# Account ids


def test_account_ids_start_at_one_and_are_given_out_once(gateway: Gateway) -> None:
    assert accepts.allocate_account_ids(gateway, 1) == range(1, 2)
    assert accepts.allocate_account_ids(gateway, 3) == range(2, 5)
    assert accepts.allocate_account_ids(gateway, 1) == range(5, 6)


# Accounts


def opened(account: Account, mark: str = "mark", claim: str | None = None) -> OpenedAccount:
    return OpenedAccount(account, mark, make_claim(claim, scope="accounts") if claim else None)


def test_an_account_is_recorded_as_it_was_opened(gateway: Gateway) -> None:
    account = make_account("123.45", account_id=7)
    open_accounts(gateway, [opened(account)])
    recorded = stored_account(gateway, 7)
    assert recorded.account == account
    assert (recorded.decided, recorded.decided_through) == (0, NO_ORDER_ID)
    assert recorded.overflow_until is None
    assert not recorded.inline


def test_repeating_a_call_whose_answer_was_lost_is_success(gateway: Gateway) -> None:
    group = [
        opened(make_account("1", account_id=1), "mark-1", "key-1"),
        opened(make_account("2", account_id=2), "mark-2"),
    ]
    open_accounts(gateway, group)
    order = make_order(share_price="1")
    accept(gateway, order)
    open_accounts(gateway, group)
    assert head_of(gateway) == Head(1, order.id)
    assert stored_account(gateway, 2).account.cash == 2


def test_an_account_of_somebody_else_is_not_taken_over(gateway: Gateway) -> None:
    open_accounts(gateway, [opened(make_account("1", account_id=1), "mark-1")])
    group = [
        opened(make_account("3", account_id=3), "mark-3"),
        opened(make_account("2", account_id=1), "mark-2"),
    ]
    with pytest.raises(AcceptRefused) as caught:
        open_accounts(gateway, group)
    assert caught.value == AcceptRefused(taken={1})
    assert stored_account(gateway, 1).account.cash == 1
    assert reads.load_account(gateway, 3) is None


def test_the_mark_of_another_member_does_not_make_a_repetition(gateway: Gateway) -> None:
    open_accounts(gateway, [opened(make_account(account_id=1), "mark-1")])
    group = [
        opened(make_account(account_id=2), "mark-1"),
        opened(make_account(account_id=1), "mark-2"),
    ]
    with pytest.raises(AcceptRefused):
        open_accounts(gateway, group)
    assert reads.load_account(gateway, 2) is None


def test_a_repeated_key_answers_the_account_that_was_opened_first(gateway: Gateway) -> None:
    open_accounts(gateway, [opened(make_account(account_id=1), "mark-1", "key")])
    group = [
        opened(make_account(account_id=2), "mark-2"),
        opened(make_account(account_id=3), "mark-3", "key"),
    ]
    with pytest.raises(AcceptRefused) as caught:
        open_accounts(gateway, group)
    assert caught.value == AcceptRefused(remembered={1: Remembered("body-1", "1")})
    assert reads.load_account(gateway, 2) is None
    open_accounts(
        gateway, [opened(make_account(account_id=3), "mark-3", "key")], NOON + IDEMPOTENCY_LIFE
    )
    assert stored_account(gateway, 3).account.id == 3


def test_an_account_keeps_its_mark(gateway: Gateway) -> None:
    open_accounts(gateway, [opened(make_account(), "mark-1")])
    item = gateway.get(keys.account_key(1))
    assert item is not None
    assert item["mark"] == text("mark-1")
