"""What the code relies on in DynamoDB, asked of every store that it is tested with.

Whatever is here holds on AWS too; a store that does otherwise would let tests pass for a habit.
"""

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from decimal import Decimal
from typing import Any, TypeVar
from uuid import uuid4

import pytest

from shared.domain.money import CASH_MAX, SHARE_PRICE_MAX, TOTAL_SHARES_MAX
from shared.order_store import accepts, items, keys, reads
from shared.order_store.errors import (
    StoreOutcomeUnknown,
    StoreRefused,
    StoreThrottled,
    StoreUnavailable,
)
from shared.order_store.expressions import update_action
from shared.order_store.gateway import (
    BATCH_GET_KEYS_MAX,
    ITEM_BYTES_MAX,
    TRANSACTION_ACTIONS_MAX,
    TRANSACTION_BYTES_MAX,
    Gateway,
    TransactionCancelled,
    chunks,
)
from shared.order_store.keys import Item, Key
from shared.order_store.records import RecordedOrder, UnreadableOrder
from tests.unit.factories import everything, order_id

R = TypeVar("R")
Action = dict[str, dict[str, Any]]

KEY_BYTES = 64
"""More than the keys of an item in these tests take."""

FULL_ITEM: Item = {
    "text": {"S": "日本 'é\" 😀"},
    "empty": {"S": ""},
    "number": {"N": "-12.5"},
    "flag": {"BOOL": True},
    "nothing": {"NULL": True},
    "list": {"L": [{"N": "1"}, {"S": "a"}, {"L": []}]},
    "map": {"M": {"😀 & Sons": {"L": [{"N": "3"}]}, "empty": {"M": {}}}},
}


def key_of(number: int | str, sort: str = "S") -> Key:
    return {"pk": {"S": f"CONTRACT#{number}"}, "sk": {"S": sort}}


def new_token() -> str:
    return str(uuid4())


def put(gateway: Gateway, number: int | str, item: Item | None = None, sort: str = "S") -> Action:
    """A Put of an item, refused if one stands there."""
    return {
        "Put": {
            "TableName": gateway.table_name,
            "Item": {**key_of(number, sort), **(item or {})},
            "ConditionExpression": "attribute_not_exists(#pk)",
            "ExpressionAttributeNames": {"#pk": "pk"},
            "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
        }
    }


def add_one(gateway: Gateway, number: int | str, *, below: int) -> Action:
    """An Update that counts one up from less than ``below``."""
    return {
        "Update": update_action(
            gateway.table_name,
            key_of(number),
            set_={},
            add={"count": items.number(1)},
            condition="#count < :below",
            condition_values={":below": items.number(below)},
        )
    }


def write(gateway: Gateway, *actions: Action) -> None:
    gateway.transact(actions, new_token())


def refused(gateway: Gateway, *actions: Action) -> TransactionCancelled:
    with pytest.raises(TransactionCancelled) as caught:
        write(gateway, *actions)
    return caught.value


def count_of(gateway: Gateway, number: int | str) -> int:
    item = gateway.get(key_of(number))
    assert item is not None
    return int(item["count"]["N"])


# Transactions


def test_all_actions_are_carried_out(gateway: Gateway) -> None:
    write(gateway, *(put(gateway, number) for number in range(TRANSACTION_ACTIONS_MAX)))

    found = gateway.batch_get([key_of(number) for number in range(TRANSACTION_ACTIONS_MAX)])
    assert len(found) == TRANSACTION_ACTIONS_MAX


def test_one_refused_action_stops_all_and_every_refused_one_is_told_with_its_item(
    gateway: Gateway,
) -> None:
    write(gateway, put(gateway, 1, FULL_ITEM), put(gateway, 3, {"count": {"N": "5"}}))
    then = everything(gateway)

    cancelled = refused(
        gateway,
        put(gateway, 0),
        put(gateway, 1),
        put(gateway, 2),
        add_one(gateway, 3, below=5),
        add_one(gateway, 4, below=5),
    )

    assert sorted(cancelled.refused) == [1, 3, 4]
    assert all(reason.is_condition for reason in cancelled.refused.values())
    assert cancelled.refused[1].item == {**key_of(1), **FULL_ITEM}
    assert cancelled.refused[3].item == {**key_of(3), "count": {"N": "5"}}
    # Nothing stood there.
    assert cancelled.refused[4].item is None
    assert everything(gateway) == then


def test_a_refused_action_that_did_not_ask_for_its_item_gets_none(gateway: Gateway) -> None:
    write(gateway, put(gateway, 1))
    action = put(gateway, 1)
    del action["Put"]["ReturnValuesOnConditionCheckFailure"]

    assert refused(gateway, action).refused[0].item is None


def test_a_refused_update_tells_what_stands_there(gateway: Gateway) -> None:
    write(gateway, put(gateway, 1, {"count": {"N": "5"}, **FULL_ITEM}))
    update = add_one(gateway, 1, below=5)["Update"]
    arguments = {name: value for name, value in update.items() if name != "TableName"}

    with pytest.raises(TransactionCancelled) as caught:
        gateway.update(**arguments)

    assert caught.value.refused[0].is_condition
    assert caught.value.refused[0].item == {**key_of(1), "count": {"N": "5"}, **FULL_ITEM}


@pytest.mark.integration  # moto forgets tokens
def test_a_transaction_that_is_sent_again_is_carried_out_once(engine_gateway: Gateway) -> None:
    write(engine_gateway, put(engine_gateway, 1, {"count": {"N": "0"}}))
    token = new_token()

    for _ in range(3):
        engine_gateway.transact([add_one(engine_gateway, 1, below=100)], token)

    assert count_of(engine_gateway, 1) == 1
    write(engine_gateway, add_one(engine_gateway, 1, below=100))
    assert count_of(engine_gateway, 1) == 2


def test_a_transaction_that_was_refused_is_judged_anew_when_it_is_sent_again(
    gateway: Gateway,
) -> None:
    token = new_token()
    with pytest.raises(TransactionCancelled):
        gateway.transact([add_one(gateway, 1, below=100)], token)
    write(gateway, put(gateway, 1, {"count": {"N": "0"}}))

    gateway.transact([add_one(gateway, 1, below=100)], token)

    assert count_of(gateway, 1) == 1


@pytest.mark.integration  # moto forgets tokens
def test_a_token_that_stood_for_another_transaction_changes_nothing(
    engine_gateway: Gateway,
) -> None:
    token = new_token()
    engine_gateway.transact([put(engine_gateway, 1)], token)

    with pytest.raises(StoreOutcomeUnknown):
        engine_gateway.transact([put(engine_gateway, 2)], token)

    assert engine_gateway.get(key_of(2)) is None


def test_two_actions_on_one_item_are_refused(gateway: Gateway) -> None:
    write(gateway, put(gateway, 1, {"count": {"N": "0"}}))

    with pytest.raises(StoreRefused):
        write(gateway, put(gateway, 2), add_one(gateway, 1, below=9), add_one(gateway, 1, below=9))

    assert gateway.get(key_of(2)) is None
    assert count_of(gateway, 1) == 0


def test_an_item_that_is_too_large_is_refused_with_its_transaction(gateway: Gateway) -> None:
    too_large = put(gateway, 1, {"text": {"S": "x" * ITEM_BYTES_MAX}})

    check_impossible(gateway, put(gateway, 0), too_large)

    assert everything(gateway) == []


def test_an_update_that_makes_an_item_too_large_is_refused_with_its_transaction(
    gateway: Gateway,
) -> None:
    half = {"S": "x" * (ITEM_BYTES_MAX // 2)}
    write(gateway, put(gateway, 1, {"count": {"N": "0"}, "text": half}))
    enlarged = update_action(
        gateway.table_name,
        key_of(1),
        set_={"more": half},
        condition="#count = :none",
        condition_values={":none": items.number(0)},
    )

    check_impossible(gateway, put(gateway, 0), {"Update": enlarged})

    assert gateway.get(key_of(0)) is None
    assert gateway.get(key_of(1)) == {**key_of(1), "count": {"N": "0"}, "text": half}


def check_impossible(gateway: Gateway, sound: Action, impossible: Action) -> None:
    """The transaction as a whole is called invalid, or its second action is."""
    with pytest.raises((StoreRefused, TransactionCancelled)) as caught:
        write(gateway, sound, impossible)
    if isinstance(caught.value, TransactionCancelled):
        assert list(caught.value.refused) == [1]
        assert not caught.value.refused[1].is_condition


@pytest.mark.integration  # moto counts an item larger than it is
def test_the_largest_item_is_stored(engine_gateway: Gateway) -> None:
    text = {"S": "x" * (ITEM_BYTES_MAX - KEY_BYTES)}

    write(engine_gateway, put(engine_gateway, 1, {"text": text}))

    assert engine_gateway.get(key_of(1)) == {**key_of(1), "text": text}


def test_a_transaction_that_is_too_large_is_refused(gateway: Gateway) -> None:
    text = {"S": "x" * (ITEM_BYTES_MAX - KEY_BYTES)}
    too_many = TRANSACTION_BYTES_MAX // (ITEM_BYTES_MAX - KEY_BYTES) + 1

    with pytest.raises(StoreRefused):
        write(gateway, *(put(gateway, number, {"text": text}) for number in range(too_many)))

    assert everything(gateway) == []


def test_a_table_that_is_not_there_is_unavailable(gateway: Gateway) -> None:
    nowhere = Gateway(gateway._client, "no-such-table", sleep=lambda _: None)
    calls: list[Callable[[], object]] = [
        lambda: nowhere.get(key_of(1)),
        lambda: nowhere.batch_get([key_of(1)]),
        lambda: reads.list_orders(nowhere, 1, 10, None),
        lambda: accepts.allocate_account_ids(nowhere, 1),
        lambda: write(nowhere, put(nowhere, 1)),
    ]
    for call in calls:
        with pytest.raises(StoreUnavailable) as caught:
            call()
        assert caught.type is StoreUnavailable


# Values


@pytest.mark.parametrize(
    "number",
    [
        Decimal(0),
        CASH_MAX,
        CASH_MAX - Decimal("1E-8"),
        SHARE_PRICE_MAX - Decimal("1E-8"),
        Decimal("1E-8"),
        Decimal("50.50"),
        TOTAL_SHARES_MAX,
        10**18,
        10**20,
    ],
    ids=str,
)
def test_a_number_is_given_back_exactly_and_without_an_exponent(
    gateway: Gateway, number: Decimal | int
) -> None:
    write(gateway, put(gateway, 1, {"number": items.number(number)}))

    item = gateway.get(key_of(1))

    assert item is not None
    text = item["number"]["N"]
    assert Decimal(text) == number
    if isinstance(number, int):
        assert int(text) == number


def test_an_item_is_given_back_as_it_was_written(gateway: Gateway) -> None:
    write(gateway, put(gateway, 1, FULL_ITEM))

    assert gateway.get(key_of(1)) == {**key_of(1), **FULL_ITEM}
    assert gateway.batch_get([key_of(1)]) == [{**key_of(1), **FULL_ITEM}]


def test_a_map_of_many_keys_is_replaced_as_a_whole(gateway: Gateway) -> None:
    write(gateway, put(gateway, 1, {"count": {"N": "0"}, "map": {"M": {"a.b#c": {"N": "1"}}}}))
    update = update_action(
        gateway.table_name,
        key_of(1),
        set_={"map": {"M": {}}},
        remove=["not_there"],
        condition="#count = :none",
        condition_values={":none": items.number(0)},
    )

    write(gateway, {"Update": update})

    assert gateway.get(key_of(1)) == {**key_of(1), "count": {"N": "0"}, "map": {"M": {}}}


# Pages


def test_a_query_reads_on_where_a_megabyte_ended(gateway: Gateway) -> None:
    text = {"S": "x" * (300 * 1024)}
    for number in range(1, 6):
        order = {**keys.order_key(1, order_id(number)), "text": text}
        write(gateway, {"Put": {"TableName": gateway.table_name, "Item": order}})

    first, cursor = reads.list_orders(gateway, 1, 100, None)
    second, last = reads.list_orders(gateway, 1, 100, cursor)

    ids = [order_id(number) for number in (5, 4, 3, 2, 1)]
    assert len(first) < len(ids)
    assert [id_of(one) for one in first + second] == ids
    assert cursor == id_of(first[-1])
    assert last is None


def id_of(order: RecordedOrder | UnreadableOrder) -> str:
    return order.id if isinstance(order, UnreadableOrder) else order.order.id


def test_keys_are_sorted_by_their_bytes(gateway: Gateway) -> None:
    sorts = ["A", "ORDER#0", "ORDER#0a", "ORDER#a", "ORDER$", "RECENT#", "a", "é", "日", "😀"]
    write(gateway, *(put(gateway, 1, sort=sort) for sort in reversed(sorts)))

    found, _ = gateway.query(
        KeyConditionExpression="#pk = :pk",
        ExpressionAttributeNames={"#pk": "pk"},
        ExpressionAttributeValues={":pk": key_of(1)["pk"]},
        ConsistentRead=True,
    )

    assert [item["sk"]["S"] for item in found] == sorts


def test_a_page_that_ends_with_the_last_item_may_be_followed_by_an_empty_one(
    gateway: Gateway,
) -> None:
    write(gateway, *(put(gateway, 1, sort=str(number)) for number in range(4)))
    query: dict[str, Any] = {
        "KeyConditionExpression": "#pk = :pk",
        "ExpressionAttributeNames": {"#pk": "pk"},
        "ExpressionAttributeValues": {":pk": key_of(1)["pk"]},
        "Limit": 2,
    }

    found, last = gateway.query(**query)
    pages = [found]
    while last is not None:
        found, last = gateway.query(**query, ExclusiveStartKey=last)
        pages.append(found)

    assert [len(page) for page in pages if page] == [2, 2]
    assert len(pages) <= 3


@pytest.mark.integration  # moto counts an item larger than it is
def test_many_large_items_are_read_at_once(engine_gateway: Gateway) -> None:
    """More than the 16 MB of one answer: the rest is asked for again."""
    text = {"S": "x" * (ITEM_BYTES_MAX - KEY_BYTES)}
    wanted = [key_of(number) for number in range(45)]
    for chunk in chunks(range(45), 9):
        write(engine_gateway, *(put(engine_gateway, number, {"text": text}) for number in chunk))

    found = engine_gateway.batch_get(wanted)

    assert sorted(item["pk"]["S"] for item in found) == sorted(key["pk"]["S"] for key in wanted)


def test_a_hundred_keys_of_which_few_exist_are_read_at_once(gateway: Gateway) -> None:
    write(gateway, put(gateway, 1), put(gateway, 99))

    found = gateway.batch_get([key_of(number) for number in range(BATCH_GET_KEYS_MAX)])

    assert sorted(item["pk"]["S"] for item in found) == ["CONTRACT#1", "CONTRACT#99"]


# Many at once: what moto cannot do


@pytest.mark.integration
def test_a_count_that_many_write_at_once_is_counted_once_for_each(engine_gateway: Gateway) -> None:
    ids = in_parallel(lambda _: list(accepts.allocate_account_ids(engine_gateway, 1)), 200)

    assert sorted(one for some in ids for one in some) == list(range(1, 201))


@pytest.mark.integration
def test_of_many_transactions_at_once_as_many_succeed_as_their_conditions_allow(
    engine_gateway: Gateway,
) -> None:
    write(engine_gateway, put(engine_gateway, "count", {"count": {"N": "0"}}))

    def try_once(number: int) -> str:
        # Only after a busy moment it is tried again, as the code does.
        for _ in range(50):
            try:
                write(
                    engine_gateway,
                    put(engine_gateway, number),
                    add_one(engine_gateway, "count", below=40),
                )
            except StoreThrottled:
                continue
            except TransactionCancelled as cancelled:
                return "refused" if list(cancelled.refused) == [1] else str(cancelled)
            return "written"
        return "always busy"

    outcomes = Counter(in_parallel(try_once, 100))

    assert outcomes == {"written": 40, "refused": 60}
    assert count_of(engine_gateway, "count") == 40
    assert len(everything(engine_gateway)) == 41


@pytest.mark.integration
def test_one_transaction_sent_by_many_at_once_is_carried_out_once(engine_gateway: Gateway) -> None:
    write(engine_gateway, put(engine_gateway, "count", {"count": {"N": "0"}}))
    token = new_token()
    action = add_one(engine_gateway, "count", below=100)

    def send(_: int) -> None:
        with suppress(StoreThrottled, StoreOutcomeUnknown):
            engine_gateway.transact([action], token)

    in_parallel(send, 40)

    assert count_of(engine_gateway, "count") == 1


def in_parallel(work: Callable[[int], R], count: int) -> list[R]:
    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(work, range(count)))
