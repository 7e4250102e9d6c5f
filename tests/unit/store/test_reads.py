"""Reading accounts and orders: complete, in sequence, and nothing that was not asked for."""

from collections.abc import Sequence
from uuid import uuid4

import pytest

from shared.domain.order import Order
from shared.ids import NO_ORDER_ID, first_id_at
from shared.order_store import commits, items, keys, reads
from shared.order_store.errors import UnreadableItem
from shared.order_store.gateway import BATCH_GET_KEYS_MAX, Gateway
from shared.order_store.records import RecordedOrder, UnreadableOrder
from tests.unit.factories import (
    MICROSECOND,
    NOON,
    OPENED,
    accept,
    make_account,
    make_order,
    make_settlement,
    open_account,
    operation_key,
    order_id,
    overwrite,
    ref,
    seconds,
    stored_account,
)


def accepted(gateway: Gateway, *numbers: int, account_id: int = 1) -> list[Order]:
    """Orders of an account of their own, recorded."""
    if reads.load_account(gateway, account_id) is None:
        open_account(gateway, make_account(account_id=account_id))
    orders = [make_order(account_id=account_id, number=number) for number in numbers]
    accept(gateway, *orders)
    return orders


def settle(gateway: Gateway, *orders: Order) -> None:
    before = stored_account(gateway, orders[0].account_id)
    commits.commit(gateway, [make_settlement(before, orders)], token=str(uuid4()))


def ids(orders: Sequence[RecordedOrder | UnreadableOrder]) -> list[str]:
    return [one.id if isinstance(one, UnreadableOrder) else one.order.id for one in orders]


def ids_of(*numbers: int) -> list[str]:
    return [order_id(number) for number in numbers]


def refs(*orders: Order) -> set[tuple[int, str]]:
    return {ref(order) for order in orders}


# One


def test_what_does_not_exist_is_none(gateway: Gateway) -> None:
    accepted(gateway, 1)
    assert reads.load_account(gateway, 2) is None
    assert reads.load_order(gateway, 1, order_id(2)) is None
    assert reads.load_order(gateway, 2, order_id(1)) is None


def test_an_account_that_cannot_be_read_says_so(gateway: Gateway) -> None:
    open_account(gateway)
    overwrite(gateway, keys.account_key(1), "cash", {"S": "?"})
    with pytest.raises(UnreadableItem):
        reads.load_account(gateway, 1)


# Lists


def test_orders_are_listed_newest_first_page_by_page(gateway: Gateway) -> None:
    accepted(gateway, 1, 2, 3, 4, 5)
    accepted(gateway, 6, account_id=2)
    page, cursor = reads.list_orders(gateway, 1, 2, before=None)
    assert ids(page) == ids_of(5, 4)
    assert cursor == order_id(4)
    page, cursor = reads.list_orders(gateway, 1, 2, before=cursor)
    assert ids(page) == ids_of(3, 2)
    page, cursor = reads.list_orders(gateway, 1, 2, before=cursor)
    assert ids(page) == ids_of(1)
    assert cursor is None


def test_a_list_holds_orders_alone(gateway: Gateway) -> None:
    before = open_account(gateway)
    order = make_order()
    accept(gateway, order)
    commits.commit(gateway, [make_settlement(before, [order])], token=str(uuid4()))
    # Items whose keys lie around those of orders.
    apart = items.recent_item(1, operation_key(), NOON)
    overwrite(gateway, {"pk": apart["pk"], "sk": apart["sk"]}, "executed_at", apart["executed_at"])
    page, cursor = reads.list_orders(gateway, 1, 10, before=None)
    assert ids(page) == [order.id]
    assert cursor is None


def test_a_list_of_an_account_without_orders_is_empty(gateway: Gateway) -> None:
    open_account(gateway)
    assert reads.list_orders(gateway, 1, 10, before=None) == ([], None)


def test_a_list_goes_on_from_an_order_that_is_not_there(gateway: Gateway) -> None:
    accepted(gateway, 1, 3)
    page, _ = reads.list_orders(gateway, 1, 10, before=order_id(2))
    assert ids(page) == ids_of(1)


def test_a_list_shows_what_cannot_be_read_as_such(gateway: Gateway) -> None:
    broken, _ = accepted(gateway, 1, 2)
    overwrite(gateway, keys.order_key(*ref(broken)), "share_price", {"S": "?"})
    page, _ = reads.list_orders(gateway, 1, 10, before=None)
    assert [type(order) for order in page] == [RecordedOrder, UnreadableOrder]


# For settlement


def test_accounts_heads_and_orders_are_loaded_whatever_their_number(gateway: Gateway) -> None:
    orders = [
        order
        for account_id in range(1, 61)
        for order in accepted(gateway, account_id, account_id=account_id)
    ]
    account_ids = [order.account_id for order in orders]
    assert 3 * len(orders) > BATCH_GET_KEYS_MAX
    loaded = reads.load_for_settlement(gateway, account_ids, [ref(order) for order in orders])
    assert sorted(loaded.accounts) == sorted(loaded.heads) == account_ids
    assert set(loaded.orders) == refs(*orders)
    assert not loaded.unreadable
    assert loaded.accounts[60].account.id == 60
    assert loaded.heads[60].newest == order_id(60)
    found = loaded.orders[ref(orders[59])]
    assert isinstance(found, RecordedOrder)
    assert found.order == orders[59]


def test_what_does_not_exist_is_not_loaded(gateway: Gateway) -> None:
    loaded = reads.load_for_settlement(gateway, [1], [(1, order_id(1))])
    assert (loaded.accounts, loaded.heads, loaded.orders, loaded.unreadable) == ({}, {}, {}, {})


@pytest.mark.parametrize(
    ("key", "name"), [(keys.account_key(1), "cash"), (keys.head_key(1), "accepted")]
)
def test_an_unreadable_account_is_named_and_does_not_spoil_the_others(
    gateway: Gateway, key: keys.Key, name: str
) -> None:
    broken, sound = accepted(gateway, 1) + accepted(gateway, 2, account_id=2)
    overwrite(gateway, key, name, {"S": "?"})
    loaded = reads.load_for_settlement(gateway, [1, 2], [ref(broken), ref(sound)])
    assert list(loaded.unreadable) == [1]
    assert "ACCOUNT#1" in loaded.unreadable[1]
    assert loaded.accounts[2].account.id == 2
    assert set(loaded.orders) == refs(broken, sound)


def test_an_unreadable_order_is_loaded_as_such(gateway: Gateway) -> None:
    broken, sound = accepted(gateway, 1, 2)
    overwrite(gateway, keys.order_key(*ref(broken)), "timestamp", {"S": "?"})
    loaded = reads.load_for_settlement(gateway, [1], [ref(broken), ref(sound)])
    assert isinstance(loaded.orders[ref(broken)], UnreadableOrder)
    assert isinstance(loaded.orders[ref(sound)], RecordedOrder)


# Undecided orders of an account

NEWEST = order_id(99)


def test_undecided_orders_follow_after_the_last_decided_one(gateway: Gateway) -> None:
    orders = accepted(gateway, 1, 2, 3, 4)
    accepted(gateway, 5, account_id=2)
    assert ids(reads.undecided_after(gateway, 1, NO_ORDER_ID, NEWEST, 10)) == ids_of(1, 2, 3, 4)
    settle(gateway, *orders[:2])
    assert ids(reads.undecided_after(gateway, 1, order_id(2), NEWEST, 10)) == ids_of(3, 4)
    assert ids(reads.undecided_after(gateway, 1, NO_ORDER_ID, NEWEST, 10)) == ids_of(3, 4)


def test_the_order_from_which_on_is_not_among_them(gateway: Gateway) -> None:
    accepted(gateway, 1, 2)
    assert ids(reads.undecided_after(gateway, 1, order_id(1), NEWEST, 10)) == ids_of(2)
    assert reads.undecided_after(gateway, 1, order_id(2), NEWEST, 10) == []


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_the_oldest_undecided_orders_come_first(gateway: Gateway, limit: int) -> None:
    accepted(gateway, 1, 2, 3, 4)
    found = reads.undecided_after(gateway, 1, NO_ORDER_ID, NEWEST, limit)
    assert ids(found) == ids_of(1, 2, 3, 4)[:limit]


def test_orders_that_are_newer_than_the_newest_known_are_left_out(gateway: Gateway) -> None:
    accepted(gateway, 1, 2, 3, 4)
    found = reads.undecided_after(gateway, 1, order_id(1), order_id(3), 10)
    assert ids(found) == ids_of(2, 3)


def test_undecided_orders_are_found_behind_any_number_of_decided_ones(gateway: Gateway) -> None:
    orders = accepted(gateway, *range(1, 9))
    for order in orders[:6]:  # parked while the account could not be read
        commits.park_unreadable_account(gateway, 1, order.id, NOON, "unreadable")
    assert ids(reads.undecided_after(gateway, 1, NO_ORDER_ID, NEWEST, 2)) == ids_of(7, 8)


def test_an_unreadable_order_waits_for_its_decision_too(gateway: Gateway) -> None:
    broken, _ = accepted(gateway, 1, 2)
    overwrite(gateway, keys.order_key(*ref(broken)), "operation", {"S": "HOLD"})
    assert ids(reads.undecided_after(gateway, 1, NO_ORDER_ID, NEWEST, 10)) == ids_of(1, 2)
    overwrite(gateway, keys.order_key(*ref(broken)), "status", {"S": "failed"})
    assert ids(reads.undecided_after(gateway, 1, NO_ORDER_ID, NEWEST, 10)) == ids_of(2)


# Undecided orders of all accounts


def sent_at(gateway: Gateway, account_id: int, *milliseconds: int) -> list[Order]:
    return accepted(gateway, *milliseconds, account_id=account_id)


def test_the_index_names_undecided_orders_of_all_accounts(gateway: Gateway) -> None:
    orders = [one for account in range(1, 25) for one in sent_at(gateway, account, account)]
    shards = {keys.shard_of(order.account_id) for order in orders}
    assert len(shards) > keys.UNDECIDED_SHARDS // 2
    found = list(reads.undecided_before(gateway, NOON))
    assert len(found) == len(orders)
    assert set(found) == refs(*orders)


def test_the_index_forgets_what_is_decided(gateway: Gateway) -> None:
    executed, parked, waiting = sent_at(gateway, 1, 1, 2, 3)
    settle(gateway, executed)
    commits.park_unreadable_account(gateway, 1, parked.id, NOON, "unreadable")
    assert list(reads.undecided_before(gateway, NOON)) == [ref(waiting)]


def test_the_index_names_orders_accepted_before_an_instant(gateway: Gateway) -> None:
    early, _, late = sent_at(gateway, 1, 1000, 2000, 3000)
    instant = OPENED + seconds(2)
    assert list(reads.undecided_before(gateway, instant)) == [ref(early)]
    assert set(reads.undecided_before(gateway, instant + MICROSECOND)) == {
        ref(early),
        (1, first_id_at(instant)),
    }
    assert ref(late) not in set(reads.undecided_before(gateway, instant + seconds(1)))


def test_the_index_is_read_page_by_page_oldest_first(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reads, "PAGE_ORDERS_MAX", 2)
    orders = sent_at(gateway, 1, 1, 2, 3, 4, 5)
    assert list(reads.undecided_before(gateway, NOON)) == [ref(order) for order in orders]


# Operations written apart


def test_operations_written_apart_are_read_by_account(gateway: Gateway) -> None:
    open_account(gateway)
    kept, other = operation_key("BUY", "a:b#c", 7), operation_key("SELL", "a:b#c", 7)
    for account_id, key, at in ((1, kept, NOON), (2, other, OPENED)):
        apart = items.recent_item(account_id, key, at)
        overwrite(
            gateway, {"pk": apart["pk"], "sk": apart["sk"]}, "executed_at", apart["executed_at"]
        )
    assert reads.load_recent(gateway, 1, [kept, other]) == {kept: NOON}
    assert reads.load_recent(gateway, 2, [kept, other]) == {other: OPENED}
    assert reads.load_recent(gateway, 1, []) == {}


def test_nothing_is_undecided_where_all_up_to_the_newest_is_decided(gateway: Gateway) -> None:
    # DynamoDB refuses a query whose ends are swapped; the other engines answer with nothing.
    settle(gateway, *accepted(gateway, 1, 2))
    assert reads.undecided_after(gateway, 1, order_id(3), order_id(2), 10) == []
