"""Whatever is decided fits: 400 KB an item, 100 actions and 4 MB a transaction (AWS limits)."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from shared.domain.account import POSITIONS_MAX, Account, Position
from shared.domain.decision import Decision, Rules
from shared.domain.market import Market
from shared.domain.money import CASH_MAX, SHARE_PRICE_MAX, TOTAL_SHARES_MAX
from shared.domain.order import (
    ISSUER_NAME_BYTES_MAX,
    BusinessError,
    Operation,
    OperationKey,
    Order,
    OrderStatus,
    is_issuer_name,
)
from shared.order_store import commits, items, keys
from shared.order_store.commits import (
    BALANCE_POSITIONS_MAX,
    FAILURE_LENGTH_MAX,
    RECENT_INLINE_MAX,
    SETTLEMENT_ORDERS_MAX,
    SETTLEMENT_ORDERS_MAX_APART,
    orders_per_settlement,
    pack,
)
from shared.order_store.gateway import (
    ITEM_BYTES_MAX,
    TRANSACTION_ACTIONS_MAX,
    TRANSACTION_BYTES_MAX,
    Gateway,
)
from shared.order_store.keys import SHARD, Item
from shared.order_store.records import DecidedOrder, RecordedAccount, Settlement
from tests.unit.factories import NOON, STEADY, order_id

LONG_AGO = NOON - timedelta(days=1)
AT = NOON + timedelta(microseconds=123_456)
LARGEST_CASH = CASH_MAX - Decimal("1E-8")
LARGEST_POSITION = Position(TOTAL_SHARES_MAX, SHARE_PRICE_MAX - Decimal("1E-8"))
RULES_TEXT = str(Rules(Market(), timedelta(seconds=299.999999)))
LARGEST_ACCOUNT_ID = 10**18


def longest_name(number: int) -> str:
    """A name of as many bytes as a name can have."""
    return f"{number:04d}" + "😀" * 31


ALL_NAMES = [longest_name(number) for number in range(POSITIONS_MAX)]
ALL_POSITIONS = dict.fromkeys(ALL_NAMES, LARGEST_POSITION)


def first_positions(count: int) -> dict[str, Position]:
    return {name: ALL_POSITIONS[name] for name in ALL_NAMES[:count]}


def operation(number: int) -> OperationKey:
    return OperationKey(Operation.SELL, ALL_NAMES[0], TOTAL_SHARES_MAX - number)


@dataclass(frozen=True)
class Shape:
    """What makes a settlement large."""

    positions: int
    orders: int
    inline: int = 0
    is_executed: bool = True


def settlement_of(shape: Shape, account_id: int) -> Settlement:
    """The largest settlement of its shape: every text and number as long as it can be."""
    inline = {operation(number): AT for number in range(shape.inline)}
    account = Account(
        account_id, LARGEST_CASH, LONG_AGO, first_positions(shape.positions), AT, inline
    )
    before = RecordedAccount(
        account,
        decided=10**9,
        decided_through=order_id(1),
        overflow_until=AT,
        inline=frozenset(inline),
    )
    status = OrderStatus.EXECUTED if shape.is_executed else OrderStatus.FAILED
    codes = () if shape.is_executed else tuple(BusinessError)
    decision = Decision(status, codes, LARGEST_CASH, account.positions)
    executed = [operation(shape.inline + number) for number in range(shape.orders)]
    decided = tuple(
        DecidedOrder(
            account_id,
            order_id(number),
            Order(
                id=order_id(number),
                account_id=account_id,
                operation=key.operation,
                issuer_name=key.issuer_name,
                total_shares=key.total_shares,
                share_price=LARGEST_POSITION.share_price,
                timestamp=AT,
                received_at=AT,
            ),
            decision,
            failure=None if shape.is_executed else "😀" * FAILURE_LENGTH_MAX,
        )
        for number, key in enumerate(executed)
    )
    after = account
    if shape.is_executed:
        after = replace(account, recent={**inline, **dict.fromkeys(executed, AT)})
    return Settlement(before, after, decided, RULES_TEXT, AT)


class Recorder(Gateway):
    """A table that only remembers what it was asked to do."""

    def __init__(self) -> None:
        self.table_name = "orders"
        self.actions: list[Mapping[str, Any]] = []

    def transact(self, actions: Sequence[Mapping[str, Any]], token: str) -> None:
        del token
        self.actions = list(actions)


def actions_of(settlements: Sequence[Settlement]) -> list[Mapping[str, Any]]:
    recorder = Recorder()
    commits.commit(recorder, settlements, token="token")
    return recorder.actions


def items_after(settlements: Sequence[Settlement]) -> list[Item]:
    """The items as they are once the settlements are committed."""
    stored: dict[str, Item] = {}
    for settlement in settlements:
        account = items.new_account_item(settlement.before.account, mark="m" * 36)
        stored[repr(keys.account_key(settlement.before.account.id))] = {
            **account,
            "recent": items.write_recent(settlement.before.account.recent),
        }
        for decided in settlement.decided:
            assert decided.order is not None
            item = {**items.new_order_item(decided.order), "attempts": items.number(10_000)}
            stored[repr(keys.order_key(decided.account_id, decided.order_id))] = item
    after: list[Item] = []
    for action in actions_of(settlements):
        if "Put" in action:
            after.append(action["Put"]["Item"])
            continue
        update = action["Update"]
        values = update["ExpressionAttributeValues"]
        changes = {
            name: values[f":{name}"]
            for name in update["ExpressionAttributeNames"].values()
            if f":{name}" in values
        }
        item = {**stored[repr(update["Key"])], **changes}
        if changes.get("status"):
            del item[SHARD]
        after.append(item)
    return after


def json_bytes(value: object) -> int:
    return len(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode())


def item_bytes(item: Item) -> int:
    """The size that DynamoDB counts, as its developer guide tells it (rounded up)."""
    return sum(len(name.encode()) + value_bytes(value) for name, value in item.items())


def value_bytes(value: Mapping[str, Any]) -> int:
    ((kind, content),) = value.items()
    if kind == "S":
        return len(content.encode())
    if kind == "N":
        return (len(content) + 1) // 2 + 2
    if kind == "M":
        entries = (len(name.encode()) + 1 + value_bytes(one) for name, one in content.items())
        return 3 + sum(entries)
    if kind == "L":
        return 3 + sum(1 + value_bytes(one) for one in content)
    assert kind == "BOOL", kind
    return 1


def test_the_names_used_here_are_as_long_as_names_can_be() -> None:
    assert all(is_issuer_name(name) for name in ALL_NAMES)
    assert {len(name.encode()) for name in ALL_NAMES} == {ISSUER_NAME_BYTES_MAX}
    assert len(set(ALL_NAMES)) == POSITIONS_MAX


def test_a_size_is_counted_as_dynamodb_counts_it() -> None:
    item: Item = {
        "pk": {"S": "é"},
        "n": {"N": "1234"},
        "m": {"M": {"ab": {"L": [{"N": "1"}, {"BOOL": True}]}}},
    }
    assert item_bytes(item) == (2 + 2) + (1 + 4) + (1 + 3 + (2 + 1 + 3 + (1 + 3) + (1 + 1)))


@pytest.mark.parametrize("count", [json_bytes, item_bytes])
def test_the_largest_account_fits_into_an_item(count: Any) -> None:
    shape = Shape(POSITIONS_MAX, orders=1, inline=RECENT_INLINE_MAX)
    account, order, apart = items_after([settlement_of(shape, LARGEST_ACCOUNT_ID)])
    assert len(account["positions"]["M"]) == POSITIONS_MAX
    assert len(json.loads(account["recent"]["S"])) == RECENT_INLINE_MAX
    assert apart["sk"]["S"].startswith("RECENT#")
    assert order["status"] == {"S": "executed"}
    assert count(account) < ITEM_BYTES_MAX
    # Nor is it small: the bound on positions is what keeps it in.
    assert count(account) > ITEM_BYTES_MAX / 3


@pytest.mark.parametrize("is_executed", [True, False])
@pytest.mark.parametrize("positions", [BALANCE_POSITIONS_MAX, POSITIONS_MAX])
def test_the_largest_order_fits_into_an_item(positions: int, is_executed: bool) -> None:
    shape = Shape(positions, orders=1, is_executed=is_executed)
    _, order, *_ = items_after([settlement_of(shape, LARGEST_ACCOUNT_ID)])
    shown = order["balance"]["M"]["positions"]["M"]
    assert len(shown) == (positions if positions == BALANCE_POSITIONS_MAX else 1)
    assert json_bytes(order) < ITEM_BYTES_MAX / 10


@pytest.mark.parametrize(
    "shape",
    [
        Shape(BALANCE_POSITIONS_MAX, SETTLEMENT_ORDERS_MAX),
        Shape(BALANCE_POSITIONS_MAX, SETTLEMENT_ORDERS_MAX, is_executed=False),
        Shape(BALANCE_POSITIONS_MAX, SETTLEMENT_ORDERS_MAX_APART, inline=RECENT_INLINE_MAX),
        Shape(POSITIONS_MAX, SETTLEMENT_ORDERS_MAX, is_executed=False),
    ],
    ids=str,
)
def test_the_largest_settlements_fit_into_a_transaction(shape: Shape) -> None:
    settlement = settlement_of(shape, LARGEST_ACCOUNT_ID)
    assert len(actions_of([settlement])) <= TRANSACTION_ACTIONS_MAX
    assert sum(map(json_bytes, items_after([settlement]))) < TRANSACTION_BYTES_MAX
    assert list(pack([settlement])) == [[settlement]]


inline_counts = st.sampled_from([0, 157, 158, RECENT_INLINE_MAX])
position_counts = st.sampled_from([0, 1, BALANCE_POSITIONS_MAX, BALANCE_POSITIONS_MAX + 1])


@st.composite
def shapes(draw: st.DrawFn) -> Shape:
    inline = draw(inline_counts)
    positions = draw(position_counts | st.just(POSITIONS_MAX))
    limit = orders_per_settlement(inline, is_overflowing=False)
    orders = draw(st.sampled_from([1, 2, limit]) | st.integers(1, limit))
    return Shape(positions, orders, inline, draw(st.booleans()))


@settings(STEADY, max_examples=40)
@given(st.lists(shapes(), max_size=8))
def test_every_transaction_keeps_the_limits_and_nothing_is_lost(some: list[Shape]) -> None:
    settlements = [settlement_of(shape, number) for number, shape in enumerate(some, start=1)]
    packed = list(pack(settlements))
    assert [one for transaction in packed for one in transaction] == settlements
    for transaction in packed:
        assert 0 < len(actions_of(transaction)) <= TRANSACTION_ACTIONS_MAX
        assert sum(map(item_bytes, items_after(transaction))) <= TRANSACTION_BYTES_MAX
    event(f"{len(packed)} transactions")


@pytest.mark.parametrize("inline", [0, RECENT_INLINE_MAX])
def test_many_large_accounts_are_split_by_their_bytes(inline: int) -> None:
    shape = Shape(POSITIONS_MAX, orders=1, inline=inline)
    settlements = [settlement_of(shape, number) for number in range(1, 34)]
    packed = list(pack(settlements))
    assert [one for transaction in packed for one in transaction] == settlements
    sizes = [sum(map(item_bytes, items_after(transaction))) for transaction in packed]
    assert max(sizes) <= TRANSACTION_BYTES_MAX
    # By actions alone all of them would go into one transaction, and not fit.
    assert sum(len(actions_of(transaction)) for transaction in packed) <= TRANSACTION_ACTIONS_MAX
    assert sum(sizes) > TRANSACTION_BYTES_MAX
    # Splitting is not overdone: no transaction but the last is less than half full.
    assert min(sizes[:-1]) > TRANSACTION_BYTES_MAX / 2


def test_orders_count_with_the_balances_that_they_carry() -> None:
    many_orders = settlement_of(Shape(BALANCE_POSITIONS_MAX, orders=51), 1)
    large = [settlement_of(Shape(POSITIONS_MAX, orders=1), number) for number in range(2, 26)]
    settlements = [many_orders, *large]
    assert len(actions_of(settlements)) <= TRANSACTION_ACTIONS_MAX
    for transaction in pack(settlements):
        assert sum(map(item_bytes, items_after(transaction))) <= TRANSACTION_BYTES_MAX


def test_small_settlements_share_a_transaction_up_to_its_last_action() -> None:
    shape = Shape(positions=0, orders=1)
    settlements = [settlement_of(shape, number) for number in range(1, 102)]
    assert [len(transaction) for transaction in pack(settlements)] == [50, 50, 1]


def test_operations_written_apart_count_as_actions() -> None:
    shape = Shape(positions=0, orders=1, inline=RECENT_INLINE_MAX)
    settlements = [settlement_of(shape, number) for number in range(1, 35)]
    assert [len(transaction) for transaction in pack(settlements)] == [33, 1]


def test_nothing_is_packed_into_nothing() -> None:
    assert list(pack([])) == []
