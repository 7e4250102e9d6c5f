"""The orders that the benchmark sends, and the grown table's items."""

import json
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from bench.grown import grown_items
from bench.traffic import CASH, order_requests, refs_of
from shared.domain.account import Account
from shared.domain.decision import Rules, decide
from shared.domain.market import ALWAYS_OPEN
from shared.domain.order import Operation, Order, OrderStatus
from shared.ids import OrderIds
from shared.order_store import items
from shared.order_store.keys import SHARD
from shared.order_store.records import RecordedOrder

NOW = datetime.now(UTC)


def test_every_order_that_is_sent_can_be_executed() -> None:
    accounts = {one: Account(one, CASH, NOW - timedelta(minutes=1)) for one in (1, 2, 3)}
    ids = OrderIds()
    rules = Rules(ALWAYS_OPEN, timedelta(seconds=5))
    sells = 0

    for _, path, body in order_requests(list(accounts), 150):
        fields = json.loads(body)
        account_id = int(path.split("/")[3])
        order = Order(
            ids.next(NOW),
            account_id,
            Operation(fields["operation"]),
            fields["issuer_name"],
            fields["total_shares"],
            Decimal(fields["share_price"]),
            datetime.fromtimestamp(fields["timestamp"], UTC),
            datetime.now(UTC),
        )
        accounts[account_id], decision = decide(accounts[account_id], order, rules)
        assert decision.status is OrderStatus.EXECUTED, decision.business_errors
        sells += order.operation is Operation.SELL

    assert sells == 30


def test_orders_go_to_the_accounts_in_turn() -> None:
    counted: dict[str, int] = defaultdict(int)
    for _, path, _ in order_requests([5, 6], 10):
        counted[path] += 1

    assert counted == {"/v1/accounts/5/orders": 5, "/v1/accounts/6/orders": 5}


def test_a_location_names_its_order_with_and_without_a_prefix() -> None:
    assert refs_of(["/v1/accounts/7/orders/abc", "/accounts/8/orders/d"]) == [(7, "abc"), (8, "d")]


def test_the_grown_items_read_as_decided_orders_of_an_account_that_fits_them() -> None:
    *orders, account_item, head_item = grown_items(7, 4)

    recorded = [items.read_order(item) for item in orders]
    account, head = items.read_account(account_item), items.read_head(head_item)

    assert all(isinstance(one, RecordedOrder) and one.balance for one in recorded)
    assert {one.status for one in recorded if isinstance(one, RecordedOrder)} == {"executed"}
    assert not any(SHARD in item for item in orders)
    assert (account.decided, head.accepted) == (4, 4)
    last = recorded[-1]
    assert isinstance(last, RecordedOrder)
    assert account.decided_through == head.newest == last.order.id
    assert last.balance is not None
    assert account.account.cash == CASH - (1 + 2 + 3 + 4) * Decimal("1.25")
    assert (account.account.cash, account.account.positions) == (
        last.balance.cash,
        last.balance.positions,
    )


def test_a_grown_account_without_orders_is_a_new_one() -> None:
    account_item, head_item = grown_items(7, 0)

    assert items.read_account(account_item).decided == 0
    assert items.read_head(head_item).accepted == 0
