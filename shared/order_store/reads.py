"""Reading accounts and orders, consistently (all but the index of undecided orders)."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from shared.domain.order import OperationKey, OrderStatus
from shared.ids import OrderRef, first_id_at
from shared.order_store import items, keys
from shared.order_store.errors import UnreadableItem
from shared.order_store.gateway import BATCH_GET_KEYS_MAX, Gateway, chunks
from shared.order_store.keys import (
    ACCOUNT_KIND,
    HEAD_KIND,
    PARKED_SHARD,
    SHARD,
    UNDECIDED_INDEX,
    UNDECIDED_SHARDS,
)
from shared.order_store.records import (
    Head,
    ParkedOrder,
    RecordedAccount,
    RecordedOrder,
    UnreadableOrder,
)

FILTERED_ORDERS_MAX: Final = 500
"""Orders looked at for one page of a list that is filtered, whether they are of the list or not."""

PAGE_ORDERS_MAX: Final = 500
"""Index entries read at once by the sweep."""


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
    gateway: Gateway,
    account_id: int,
    limit: int,
    before: str | None,
    statuses: Collection[OrderStatus] = (),
) -> tuple[list[RecordedOrder | UnreadableOrder], str | None]:
    """Read up to ``limit`` orders, newest first, older than the order id ``before``.

    With ``statuses`` only orders of these: it looks at ``FILTERED_ORDERS_MAX`` at most, so there
    may be more although fewer than ``limit`` are returned.

    Returns the orders and, if there may be more, the id to go on from.
    """
    query = _orders_query(account_id)
    if before:
        query["ExclusiveStartKey"] = keys.order_key(account_id, before)
    if statuses:
        _filter(query, statuses)
    # One more than asked for: it tells whether the page is the last one.
    looked_at = FILTERED_ORDERS_MAX if statuses else limit + 1
    found, last = gateway.query(**query, ScanIndexForward=False, Limit=looked_at)
    next_before = keys.order_of(last)[1] if last else None
    if len(found) > limit:
        found = found[:limit]
        next_before = keys.order_of(found[-1])[1]
    return [items.read_order(item) for item in found], next_before


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
    gateway: Gateway, account_id: int, through: str, newest: str, limit: int
) -> list[RecordedOrder | UnreadableOrder]:
    """Read the account's oldest undecided orders, after ``through`` up to ``newest``.

    At most ``limit``. Everything up to ``through`` is decided and ids increase as orders are
    recorded, so nothing whose acceptance was answered before this call can be missing. But a
    transaction that is being committed may show some of its orders and not yet those before them
    (AWS: queries are read-committed): who reads up to the ``newest`` id of an account's head can
    tell by the head's count.
    """
    orders: list[RecordedOrder | UnreadableOrder] = []
    if newest <= through:
        # Nothing can lie between them, and DynamoDB refuses a BETWEEN whose ends are swapped.
        return orders
    for page in _pages(gateway, **_orders_query(account_id, through, newest), Limit=limit + 1):
        read = [items.read_order(item) for item in page if keys.order_of(item)[1] > through]
        orders += [order for order in read if is_undecided(order)]
        # Decided ones may stand there too (parked while the account was unreadable): read on.
        if len(orders) >= limit:
            break
    return orders[:limit]


def load_recent(
    gateway: Gateway, account_id: int, operations: Iterable[OperationKey]
) -> dict[OperationKey, datetime]:
    """Read which of ``operations`` were written apart from the account, and when executed."""
    wanted = [keys.recent_key(account_id, operation) for operation in operations]
    found = gateway.batch_get(wanted)
    return {keys.operation_of(item): items.read_recent(item) for item in found}


def undecided_before(gateway: Gateway, instant: datetime) -> Iterator[OrderRef]:
    """Stream the undecided orders accepted before ``instant``, oldest first within a shard.

    Read from the index, which follows the table after a moment: an order named here may have been
    decided meanwhile.
    """
    before = keys.order_sort_key(first_id_at(instant))
    for shard in range(UNDECIDED_SHARDS):
        pages = _pages(
            gateway,
            IndexName=UNDECIDED_INDEX,
            KeyConditionExpression="#shard = :shard AND #sk < :before",
            ExpressionAttributeNames={"#shard": SHARD, "#sk": keys.SK},
            ExpressionAttributeValues={
                ":shard": items.text(str(shard)),
                ":before": items.text(before),
            },
            Limit=PAGE_ORDERS_MAX,
        )
        for page in pages:
            yield from map(keys.order_of, page)


def parked_orders(gateway: Gateway, account_id: int | None = None) -> Iterator[ParkedOrder]:
    """Stream the parked orders (of one account, if given), oldest first.

    The index that names them follows the table after a moment, so each is read again,
    consistently: what is no longer parked is left out; what was parked just now may be missing.

    Raises:
        StoreUnavailable: no answer in time.
    """
    for page in _pages(gateway, **_parked_query()):
        refs = [keys.order_of(entry) for entry in page]
        wanted = [ref for ref in refs if account_id in (None, ref[0])]
        for named in chunks(wanted, BATCH_GET_KEYS_MAX):
            yield from _parked_of(gateway, named)


def count_parked(gateway: Gateway) -> int:
    """About how many orders are parked, ``PAGE_ORDERS_MAX`` for as many or more.

    Raises:
        StoreUnavailable: no answer in time.
    """
    found, _ = gateway.query(**_parked_query())
    return len(found)


def _parked_query() -> dict[str, Any]:
    return {
        "IndexName": UNDECIDED_INDEX,
        "KeyConditionExpression": "#shard = :shard",
        "ExpressionAttributeNames": {"#shard": SHARD},
        "ExpressionAttributeValues": {":shard": items.text(PARKED_SHARD)},
        "Limit": PAGE_ORDERS_MAX,
    }


def _parked_of(gateway: Gateway, refs: Sequence[OrderRef]) -> list[ParkedOrder]:
    found = gateway.batch_get([keys.order_key(*ref) for ref in refs])
    parked = [item for item in found if items.read_status(item) is OrderStatus.FAILED]
    # One batch is read in no particular order.
    return sorted(map(items.read_parked, parked), key=lambda order: order.id)


def is_undecided(order: RecordedOrder | UnreadableOrder) -> bool:
    """Tell whether ``order`` still waits for its decision."""
    if isinstance(order, UnreadableOrder):
        return order.is_pending
    return order.decided_at is None


def _orders_query(account_id: int, after: str = "", to: str = "") -> dict[str, Any]:
    """Arguments of a consistent query over an account's orders, from ``after`` on, to ``to``."""
    return {
        "KeyConditionExpression": "#pk = :pk AND #sk BETWEEN :from AND :to",
        "ExpressionAttributeNames": {"#pk": keys.PK, "#sk": keys.SK},
        "ExpressionAttributeValues": keys.orders_of(account_id, after, to),
        "ConsistentRead": True,
    }


def _filter(query: dict[str, Any], statuses: Collection[OrderStatus]) -> None:
    """Let ``query`` return the orders of ``statuses`` alone."""
    names = [f":status{number}" for number in range(len(statuses))]
    query["FilterExpression"] = f"#status IN ({', '.join(names)})"
    query["ExpressionAttributeNames"]["#status"] = "status"
    query["ExpressionAttributeValues"] |= zip(names, map(items.text, statuses), strict=True)


def _pages(gateway: Gateway, **arguments: Any) -> Iterator[list[keys.Item]]:
    """Every page of a query, read as the caller goes on."""
    start: dict[str, keys.Key] = {}
    while True:
        page, last = gateway.query(**arguments, **start)
        yield page
        if last is None:
            return
        start = {"ExclusiveStartKey": last}


_ACCOUNT_KEYS: Final = (keys.account_key, keys.head_key)


def _sort(loaded: Loaded, item: keys.Item) -> None:
    kind = item[keys.SK]["S"]
    if kind not in (ACCOUNT_KIND, HEAD_KIND):
        loaded.orders[keys.order_of(item)] = items.read_order(item)
        return
    account_id = keys.account_of(item)
    try:
        if kind == ACCOUNT_KIND:
            loaded.accounts[account_id] = items.read_account(item)
        else:
            loaded.heads[account_id] = items.read_head(item)
    except UnreadableItem as error:
        loaded.unreadable[account_id] = str(error)
