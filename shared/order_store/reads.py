"""Reading accounts and orders, consistently (all but the index of undecided orders)."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from shared.domain.order import OperationKey
from shared.ids import first_id_at
from shared.order_store import items, keys
from shared.order_store.errors import UnreadableItem
from shared.order_store.gateway import Gateway
from shared.order_store.keys import SHARD, UNDECIDED_INDEX, UNDECIDED_SHARDS
from shared.order_store.records import Head, RecordedAccount, RecordedOrder, UnreadableOrder

PAGE_ORDERS_MAX: Final = 500
"""Index entries read at once by the sweep."""

OrderRef = tuple[int, str]
"""Account id and order id: what names an order."""


@dataclass(slots=True)
class Loaded:
    """What one consistent read found; ``unreadable`` accounts exist but cannot be read."""

    accounts: dict[int, RecordedAccount] = field(default_factory=dict)
    heads: dict[int, Head] = field(default_factory=dict)
    orders: dict[OrderRef, RecordedOrder | UnreadableOrder] = field(default_factory=dict)
    unreadable: dict[int, str] = field(default_factory=dict)


def load_account(gateway: Gateway, account_id: int) -> RecordedAccount | None:
    """Read an account, or None if there is none.

    Raises:
        UnreadableItem: its item does not have the shape that this code writes.
        StoreUnavailable: no answer in time.
    """
    item = gateway.get(keys.account_key(account_id))
    return items.read_account(item) if item else None


def load_order(
    gateway: Gateway, account_id: int, order_id: str
) -> RecordedOrder | UnreadableOrder | None:
    """Read an order, or None if the account has none of that id (raises ``StoreUnavailable``)."""
    item = gateway.get(keys.order_key(account_id, order_id))
    return items.read_order(item) if item else None


def list_orders(
    gateway: Gateway, account_id: int, limit: int, before: str | None
) -> tuple[list[RecordedOrder | UnreadableOrder], str | None]:
    """Read up to ``limit`` orders, newest first, older than the order id ``before``.

    Returns the orders and, if there may be more, the id to go on from.
    """
    values = keys.orders_of(account_id)
    start = {"ExclusiveStartKey": keys.order_key(account_id, before)} if before else {}
    found, last = gateway.query(
        KeyConditionExpression="#pk = :pk AND #sk BETWEEN :from AND :to",
        ExpressionAttributeNames={"#pk": keys.PK, "#sk": keys.SK},
        ExpressionAttributeValues=values,
        ScanIndexForward=False,
        ConsistentRead=True,
        Limit=limit,
        **start,
    )
    return [items.read_order(item) for item in found], keys.order_of(last)[1] if last else None


def load_for_settlement(
    gateway: Gateway, account_ids: Iterable[int], orders: Iterable[OrderRef]
) -> Loaded:
    """Read accounts, their heads and ``orders`` in as few calls as can be (100 keys each).

    The reads of one call are each consistent but not one snapshot: a commit's condition on the
    account's version is what makes the difference harmless.
    """
    wanted = [key(account_id) for account_id in account_ids for key in _ACCOUNT_KEYS]
    wanted += [keys.order_key(account_id, order_id) for account_id, order_id in orders]
    loaded = Loaded()
    for item in gateway.batch_get(wanted):
        _sort(loaded, item)
    return loaded


def undecided_after(
    gateway: Gateway, account_id: int, through: str, limit: int
) -> list[RecordedOrder | UnreadableOrder]:
    """Read the account's oldest undecided orders, from after ``through``, at most ``limit``.

    Everything up to ``through`` is decided and ids increase as orders are recorded, so nothing
    that was accepted before this call can be missing.
    """
    values = keys.orders_of(account_id)
    values[":from"] = {"S": keys.order_sort_key(through)}
    orders: list[RecordedOrder | UnreadableOrder] = []
    start: dict[str, keys.Key] = {}
    while True:
        found, last = gateway.query(
            KeyConditionExpression="#pk = :pk AND #sk BETWEEN :from AND :to",
            ExpressionAttributeNames={"#pk": keys.PK, "#sk": keys.SK},
            ExpressionAttributeValues=values,
            ConsistentRead=True,
            Limit=limit + 1,
            **start,
        )
        read = [items.read_order(item) for item in found if keys.order_of(item)[1] > through]
        orders += [order for order in read if is_undecided(order)]
        # Decided ones may stand there too (parked while the account was unreadable): read on.
        if last is None or len(orders) >= limit:
            return orders[:limit]
        start = {"ExclusiveStartKey": last}


def load_recent(
    gateway: Gateway, account_id: int, operations: Iterable[OperationKey]
) -> dict[OperationKey, datetime]:
    """Read which of ``operations`` were written apart from the account, and when executed."""
    wanted = [keys.recent_key(account_id, operation) for operation in operations]
    found = gateway.batch_get(wanted)
    return {_operation_of(item): items.read_recent(item) for item in found}


def undecided_before(gateway: Gateway, instant: datetime) -> Iterator[OrderRef]:
    """Stream the undecided orders accepted before ``instant``, oldest first within a shard.

    Read from the index, which follows the table after a moment: an order named here may have been
    decided meanwhile.
    """
    for shard in range(UNDECIDED_SHARDS):
        yield from _undecided_of_shard(gateway, str(shard), first_id_at(instant))


def is_undecided(order: RecordedOrder | UnreadableOrder) -> bool:
    """Tell whether ``order`` still waits for its decision."""
    if isinstance(order, UnreadableOrder):
        return order.is_pending
    return order.decided_at is None


def _undecided_of_shard(gateway: Gateway, shard: str, before: str) -> Iterator[OrderRef]:
    start: dict[str, keys.Key] = {}
    while True:
        found, last = gateway.query(
            IndexName=UNDECIDED_INDEX,
            KeyConditionExpression="#shard = :shard AND #sk < :before",
            ExpressionAttributeNames={"#shard": SHARD, "#sk": keys.SK},
            ExpressionAttributeValues={
                ":shard": items.text(shard),
                ":before": items.text(keys.order_sort_key(before)),
            },
            Limit=PAGE_ORDERS_MAX,
            **start,
        )
        yield from map(keys.order_of, found)
        if last is None:
            return
        start = {"ExclusiveStartKey": last}


_ACCOUNT_KEYS: Final = (keys.account_key, keys.head_key)


def _sort(loaded: Loaded, item: keys.Item) -> None:
    kind = item[keys.SK]["S"]
    if kind not in ("ACCOUNT", "HEAD"):
        loaded.orders[keys.order_of(item)] = items.read_order(item)
        return
    account_id = keys.account_of(item)
    try:
        if kind == "ACCOUNT":
            loaded.accounts[account_id] = items.read_account(item)
        else:
            loaded.heads[account_id] = items.read_head(item)
    except UnreadableItem as error:
        loaded.unreadable[account_id] = str(error)


def _operation_of(item: keys.Item) -> OperationKey:
    return keys.read_operation(item[keys.SK]["S"].removeprefix("RECENT#"))
