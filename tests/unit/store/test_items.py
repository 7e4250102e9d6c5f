"""Records to items and back, and what cannot be read."""

import json
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.domain.decision import Decision, park
from shared.domain.money import SHARE_PRICE_MAX, TOTAL_SHARES_MAX
from shared.domain.order import (
    BusinessError,
    Operation,
    OperationKey,
    Order,
    OrderStatus,
    is_issuer_name,
)
from shared.order_store import accepts, commits, items, keys
from shared.order_store.errors import UnreadableItem
from shared.order_store.gateway import Gateway
from shared.order_store.items import number, text
from shared.order_store.keys import Item
from shared.order_store.records import (
    AcceptedOrder,
    Balance,
    DecidedOrder,
    Head,
    RecordedAccount,
    RecordedOrder,
    Remembered,
    Settlement,
    UnreadableOrder,
)
from tests.unit.factories import (
    NOON,
    OPENED,
    RULES,
    STEADY,
    accept,
    make_account,
    make_claim,
    make_order,
    make_settlement,
    open_account,
    operation_key,
    order_id,
    seconds,
    stored_account,
    stored_order,
)

CORRUPT: list[dict[str, Any]] = [{"S": "?"}, {"N": "1"}, {"NULL": True}, {"M": {}}, {"L": []}]


offsets = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
instants = st.datetimes(
    min_value=datetime(1970, 1, 2),  # noqa: DTZ001 - hypothesis adds the zone
    max_value=datetime(9999, 12, 30),  # noqa: DTZ001
    timezones=st.just(UTC) | offsets,
)
names = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=64).filter(
    is_issuer_name
)
orders = st.builds(
    Order,
    id=st.integers(1, 10**6).map(order_id),
    account_id=st.integers(1, 10**18),
    operation=st.sampled_from(list(Operation)),
    issuer_name=names,
    total_shares=st.integers(1, TOTAL_SHARES_MAX),
    share_price=st.decimals("0.00000001", SHARE_PRICE_MAX, places=8),
    timestamp=instants,
    received_at=instants,
)


# Orders


@STEADY
@given(orders)
def test_an_accepted_order_is_read_as_it_was_written(order: Order) -> None:
    item = items.new_order_item(order)
    assert items.read_order(item) == RecordedOrder(order, OrderStatus.PENDING)
    assert keys.order_of(item) == (order.account_id, order.id)


@pytest.mark.parametrize(
    "order",
    [
        make_order("SELL", "日本 & Sons: #1", TOTAL_SHARES_MAX, SHARE_PRICE_MAX - Decimal("1E-8")),
        make_order("BUY", "'\"\\{}", 1, "0.00000001", at=NOON + timedelta(microseconds=1)),
        make_order(at=NOON.astimezone(timezone(timedelta(hours=-6)))),
        make_order(account_id=10**18),
    ],
    ids=["largest", "smallest", "other offset", "large account id"],
)
def test_an_accepted_order_survives_the_store(gateway: Gateway, order: Order) -> None:
    open_account(gateway, make_account(account_id=order.account_id))
    accepts.record_orders(gateway, [AcceptedOrder(order)], NOON, token=str(uuid4()))
    assert stored_order(gateway, order) == RecordedOrder(order, OrderStatus.PENDING)


def test_an_executed_order_survives_the_store(gateway: Gateway) -> None:
    account = make_account("1000.12345678", {"MSFT": (3, "7.00000001")})
    before = open_account(gateway, account)
    order = make_order("BUY", "AAPL", 2, "0.00000009")
    accept(gateway, order)
    decided_at = NOON + timedelta(microseconds=123_456)
    commits.commit(
        gateway, [make_settlement(before, [order], decided_at=decided_at)], token=str(uuid4())
    )
    recorded = stored_order(gateway, order)
    assert recorded.balance is not None
    assert recorded == RecordedOrder(
        order,
        OrderStatus.EXECUTED,
        decided_at=decided_at,
        sequence=1,
        rules=str(RULES),
        balance=Balance(
            Decimal("1000.12345660"),
            make_account(positions={"MSFT": (3, "7.00000001"), "AAPL": (2, "9E-8")}).positions,
        ),
    )


def test_a_rejected_order_survives_the_store_with_all_its_codes(gateway: Gateway) -> None:
    before = open_account(gateway, make_account("0"))
    order = make_order(at=NOON + seconds(9), received_at=NOON)
    accept(gateway, order)
    commits.commit(gateway, [make_settlement(before, [order])], token=str(uuid4()))
    recorded = stored_order(gateway, order)
    assert recorded.status is OrderStatus.REJECTED
    assert recorded.business_errors == (
        BusinessError.INSUFFICIENT_BALANCE,
        BusinessError.INVALID_OPERATION,
    )
    assert recorded.balance == Balance(Decimal(0), {})


def test_a_parked_order_survives_the_store_with_its_reason(gateway: Gateway) -> None:
    before = open_account(gateway)
    order = make_order()
    accept(gateway, order)
    assert commits.count_attempt(gateway, 1, order.id, 0)
    parked = DecidedOrder(1, order.id, order, park(before.account), failure="it would not do")
    settlement = Settlement(before, before.account, (parked,), "rules", NOON)
    commits.commit(gateway, [settlement], token=str(uuid4()))
    assert stored_order(gateway, order) == RecordedOrder(
        order,
        OrderStatus.FAILED,
        decided_at=NOON,
        sequence=1,
        rules="rules",
        balance=Balance(before.account.cash, {}),
        failure="it would not do",
        attempts=1,
    )


@pytest.mark.parametrize(
    "name", ["operation", "issuer_name", "total_shares", "share_price", "timestamp", "received_at"]
)
def test_an_order_without_one_of_its_attributes_is_unreadable(name: str) -> None:
    item = items.new_order_item(make_order(account_id=7))
    item["attempts"] = number(3)
    del item[name]
    order = items.read_order(item)
    assert isinstance(order, UnreadableOrder)
    assert (order.account_id, order.id) == (7, make_order().id)
    assert order.is_pending
    assert order.attempts == 3
    assert order.reason == f"its item cannot be read: {name} is missing"


@pytest.mark.parametrize("value", CORRUPT, ids=str)
@pytest.mark.parametrize(
    "name",
    [
        "operation",
        "total_shares",
        "share_price",
        "timestamp",
        "received_at",
        "status",
    ],
)
def test_an_order_with_a_corrupt_attribute_is_unreadable(name: str, value: dict[str, Any]) -> None:
    item = {**items.new_order_item(make_order()), "attempts": number(1), name: value}
    order = items.read_order(item)
    if value == {"N": "1"} and name in ("total_shares", "share_price"):
        assert isinstance(order, RecordedOrder)
        return
    assert isinstance(order, UnreadableOrder)
    assert order.is_pending == (name != "status")
    assert order.attempts == 1
    assert order.reason.startswith(f"its item cannot be read: {name} is {json.dumps(value)} (")


@pytest.mark.parametrize("name", ["timestamp", "received_at"])
def test_an_order_with_an_instant_that_has_no_offset_is_unreadable(name: str) -> None:
    # It could not be compared with any other, neither by the rules nor for the API's answer.
    item = {**items.new_order_item(make_order()), name: text("2026-03-02T12:00:00")}
    order = items.read_order(item)
    assert isinstance(order, UnreadableOrder)
    assert order.reason.startswith(f"its item cannot be read: {name} is ")
    assert "no offset" in order.reason


@pytest.mark.parametrize(
    "name", ["decided_at", "business_errors", "sequence", "balance", "rules", "failure", "parked"]
)
def test_what_is_damaged_of_a_decided_order_is_named(name: str) -> None:
    decided = {"status": text("executed"), "decided_at": text("2026-03-02T12:00:00+00:00")}
    item = {**items.new_order_item(make_order()), **decided, name: {"L": ["x" * 100]}}
    order = items.read_order(item)
    assert isinstance(order, UnreadableOrder)
    assert order.reason.startswith(f'its item cannot be read: {name} is {{"L": ["xxx')
    assert len(order.reason) < 200


def test_an_order_that_is_decided_and_says_no_time_is_unreadable() -> None:
    order = items.read_order({**items.new_order_item(make_order()), "status": text("executed")})
    assert isinstance(order, UnreadableOrder)
    assert order.reason == "its item cannot be read: KeyError('decided_at')"


@pytest.mark.parametrize(
    ("value", "attempts"),
    [
        *((value, 0) for value in CORRUPT if value != {"N": "1"}),
        ({"N": "1"}, 1),
        ({"N": "0.5"}, 1),
        ({"N": "-1"}, 0),
        ({"N": "1E+20"}, 10**20),
    ],
    ids=str,
)
def test_a_corrupt_count_of_attempts_makes_no_order_unreadable(
    value: dict[str, Any], attempts: int
) -> None:
    order = items.read_order({**items.new_order_item(make_order()), "attempts": value})
    assert order == RecordedOrder(make_order(), OrderStatus.PENDING, attempts=attempts)


@pytest.mark.parametrize("value", [*CORRUPT, {"L": [{"M": {}}]}, {"L": [{"S": "?"}]}], ids=str)
def test_an_order_with_corrupt_parkings_is_unreadable_unless_there_are_none(
    value: dict[str, Any],
) -> None:
    order = items.read_order({**items.new_order_item(make_order()), "parked": value})
    assert isinstance(order, RecordedOrder if value == {"L": []} else UnreadableOrder)


@pytest.mark.parametrize("failure", [{"S": "too bad"}, {"N": "1"}], ids=str)
def test_an_unreadable_order_still_tells_its_status_and_failure(failure: dict[str, Any]) -> None:
    item = {**items.new_order_item(make_order()), "status": text("failed"), "failure": failure}
    order = items.read_order(item)  # it lacks the time of its parking
    assert isinstance(order, UnreadableOrder)
    assert (order.status, order.failure) == (OrderStatus.FAILED, failure.get("S"))


@pytest.mark.parametrize("missing", ["decided_at", "cash", "positions"])
def test_a_decided_order_that_cannot_be_read_is_not_pending(missing: str) -> None:
    balance = items.write_balance(Balance(Decimal(1), {}))
    balance["M"].pop(missing, None)
    item: Item = {
        **items.new_order_item(make_order()),
        "status": text("executed"),
        "decided_at": items.instant(NOON),
        "balance": balance,
    }
    item.pop(missing, None)
    order = items.read_order(item)
    assert isinstance(order, UnreadableOrder)
    assert not order.is_pending


# Accounts


def test_an_account_with_all_its_attributes_survives_the_store(gateway: Gateway) -> None:
    before = open_account(gateway, make_account("1000", {"MSFT": (5, "1.5")}))
    orders = [
        make_order("BUY", "AAPL", 2, "3.25", number=1),
        make_order("SELL", "MSFT", 1, "2", number=2, at=NOON + seconds(1)),
        make_order("BUY", "AAPL", 10**6, "10", number=3),
    ]
    accept(gateway, *orders)
    settlement = make_settlement(before, orders)
    commits.commit(gateway, [settlement], token=str(uuid4()))
    assert stored_account(gateway) == RecordedAccount(
        settlement.after,
        decided=3,
        decided_through=order_id(3),
        overflow_until=None,
        inline=frozenset({operation_key("BUY", "AAPL", 2), operation_key("SELL", "MSFT", 1)}),
        opening_cash=Decimal(1000),
    )
    assert settlement.after.last_executed_at == NOON + seconds(1)


def test_every_attribute_of_an_account_is_read() -> None:
    recent = {operation_key("SELL", "a:b:c", 7): NOON}
    account = make_account(
        "12.5", {"AAPL": (1, "0.1")}, last_executed_at=NOON, recent=recent, account_id=12
    )
    item = {
        **items.new_account_item(account, "mark"),
        "recent": items.write_recent(recent),
        "last_executed_at": items.instant(NOON),
        "decided": number(4),
        "decided_through": text(order_id(4)),
        "overflow_until": items.instant(NOON + seconds(3)),
    }
    assert items.read_account(item) == RecordedAccount(
        account,
        decided=4,
        decided_through=order_id(4),
        overflow_until=NOON + seconds(3),
        inline=frozenset(recent),
        opening_cash=Decimal("12.5"),
    )


def test_numbers_keep_all_38_digits(gateway: Gateway) -> None:
    cash = Decimal("123456789012345678901234567890.12345678")
    price = Decimal("98765432109876543210987654321098.765432")
    account = make_account(cash, {"AAPL": (10**37 + 1, str(price))})
    assert len(cash.as_tuple().digits) == len(price.as_tuple().digits) == 38
    recorded = open_account(gateway, account)
    assert recorded.account.cash == cash
    assert recorded.account.positions["AAPL"].total_shares == 10**37 + 1
    assert recorded.account.positions["AAPL"].share_price == price


def test_numbers_are_written_without_exponent() -> None:
    assert number(Decimal("1E+3")) == {"N": "1000"}
    assert number(Decimal("1E-8")) == {"N": "0.00000001"}
    assert number(10**12) == {"N": "1000000000000"}


@pytest.mark.parametrize("name", ["cash", "positions", "opened_at", "recent", "decided"])
def test_an_account_without_one_of_its_attributes_is_unreadable(name: str) -> None:
    item = items.new_account_item(make_account(account_id=7), "mark")
    del item[name]
    with pytest.raises(UnreadableItem, match="ACCOUNT#7"):
        items.read_account(item)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("cash", {"N": "ten"}),
        ("cash", {"S": "10"}),
        ("opened_at", {"S": "yesterday"}),
        ("opened_at", {"S": "2026-03-02T12:00:00"}),
        ("last_executed_at", {"S": "2026-03-02T12:00:00"}),
        ("last_executed_at", {"S": ""}),
        ("overflow_until", {"N": "1"}),
        ("decided", {"N": "1.5"}),
        ("decided_through", {"N": "1"}),
        ("positions", {"L": []}),
        ("positions", {"M": {"AAPL": {"L": [{"N": "1"}]}}}),
        ("positions", {"M": {"AAPL": {"L": [{"N": "1"}, {"N": "x"}]}}}),
        ("recent", items.text(json.dumps({"BUY:AAPL": NOON.isoformat()}))),
        ("recent", items.text(json.dumps({"HOLD:1:AAPL": NOON.isoformat()}))),
        ("recent", items.text(json.dumps({"BUY:1:AAPL": "now"}))),
        ("recent", items.text("no JSON")),
        ("recent", items.text("[]")),
    ],
    ids=str,
)
def test_an_account_with_a_corrupt_attribute_is_unreadable(
    name: str, value: dict[str, Any]
) -> None:
    item = {**items.new_account_item(make_account(), "mark"), name: value}
    with pytest.raises(UnreadableItem):
        items.read_account(item)


@pytest.mark.parametrize("newest", ["", "damaged", order_id(3).upper(), f"{order_id(3)}0"])
def test_a_head_whose_newest_order_is_none_is_unreadable(newest: str) -> None:
    item = {**items.new_head_item(1), "newest": text(newest)}
    with pytest.raises(UnreadableItem, match="newest"):
        items.read_head(item)


def test_a_head_is_read_as_it_was_written() -> None:
    item = {**items.new_head_item(1), "accepted": number(3), "newest": text(order_id(3))}
    assert items.read_head(item) == Head(3, order_id(3))


@pytest.mark.parametrize("name", ["accepted", "newest"])
def test_a_head_without_one_of_its_attributes_is_unreadable(name: str) -> None:
    item = items.new_head_item(7)
    del item[name]
    with pytest.raises(UnreadableItem, match="ACCOUNT#7"):
        items.read_head(item)


# Operations and balances


@STEADY
@given(st.sampled_from(list(Operation)), names, st.integers(1, TOTAL_SHARES_MAX), instants)
def test_an_executed_operation_is_read_as_it_was_written(
    operation: Operation, issuer_name: str, total_shares: int, at: datetime
) -> None:
    key = OperationKey(operation, issuer_name, total_shares)
    assert keys.read_operation(keys.write_operation(key)) == key
    assert items.read_recent(items.recent_item(1, key, at)) == at


@pytest.mark.parametrize("value", CORRUPT, ids=str)
def test_an_executed_operation_without_its_instant_is_unreadable(value: dict[str, Any]) -> None:
    item = {**items.recent_item(7, operation_key(), NOON), "executed_at": value}
    with pytest.raises(UnreadableItem, match="ACCOUNT#7"):
        items.read_recent(item)


@pytest.mark.parametrize("name", ["fingerprint", "result"])
def test_a_remembered_answer_without_one_of_its_attributes_is_unreadable(name: str) -> None:
    item = items.idempotency_item(make_claim(scope="7"), "made", 1)
    assert items.read_remembered(item) == Remembered("body-1", "made")
    del item[name]
    with pytest.raises(UnreadableItem, match="IDEMPOTENCY#7"):
        items.read_remembered(item)


@pytest.mark.parametrize("complete", [True, False])
def test_a_balance_is_read_as_it_was_written(complete: bool) -> None:
    balance = Balance(
        Decimal("1.5"), make_account(positions={"AAPL": (1, "2.5")}).positions, complete
    )
    item = {
        **items.new_order_item(make_order()),
        "status": text("executed"),
        "decided_at": items.instant(OPENED),
        "balance": items.write_balance(balance),
    }
    order = items.read_order(item)
    assert isinstance(order, RecordedOrder)
    assert order.balance == balance


def test_a_balance_of_many_positions_shows_the_traded_one_alone() -> None:
    few = make_account("5", {f"I{number}": (1, "2") for number in range(100)})
    many = make_account("5", {f"I{number}": (1, "2") for number in range(101)})

    def balance(positions: Any, issuer_name: str | None) -> Balance:
        decision = Decision(OrderStatus.EXECUTED, (), Decimal(5), positions)
        return commits.balance_after(decision, issuer_name)

    assert balance(few.positions, "I1") == Balance(Decimal(5), few.positions)
    only = {"I1": many.positions["I1"]}
    assert balance(many.positions, "I1") == Balance(Decimal(5), only, complete=False)
    assert balance(many.positions, "sold out") == Balance(Decimal(5), {}, complete=False)
    assert balance(many.positions, None) == Balance(Decimal(5), {}, complete=False)
