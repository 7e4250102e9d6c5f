"""What operators do with orders that could not be decided: replay them, or cancel them.

Each is one transaction under the condition that the order still is what was read. So a call may be
repeated, two operators may do the same at once, and a worker may come in between.
"""

import time
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final
from uuid import uuid4

from shared.domain.order import OrderStatus
from shared.ids import OrderRef
from shared.order_store import commits, items, keys, reads
from shared.order_store.commits import CommitConflict
from shared.order_store.errors import StoreOutcomeUnknown, StoreThrottled, UnreadableItem
from shared.order_store.expressions import update_action
from shared.order_store.gateway import Gateway, TransactionCancelled
from shared.order_store.keys import SHARD, Item
from shared.order_store.records import ParkedOrder, Parking

TRIES_MAX: Final = 5
"""Looks at an order that others change under our hands, or whose answer is lost."""

PAUSE_SECONDS: Final = 0.2
"""Between two tries at a store that is busy."""

PARKINGS_MAX: Final = 10
"""Times that an order may be replayed: each parking stays recorded with its place."""

_DECISION: Final = (
    "decided_at",
    "sequence",
    "failure",
    "rules",
    "balance",
    "business_errors",
    "attempts",
)
"""Attributes of a decision, and of the attempts at it."""

# An order that was replayed and parked again meanwhile is parked at another time.
_IS_THIS_PARKING: Final = "#status = :failed AND #decided_at = :seen"
_IS_UNDATED_PARKING: Final = "#status = :failed AND attribute_not_exists(#decided_at)"

_ACCOUNT_FIRST: Final = "its account has to be repaired first"
_TOO_BUSY: Final = "the store is too busy, or others keep changing it: try again"


class InterventionRefused(Exception):
    """The order was left as it is; the text says why."""


def find(gateway: Gateway, ref: OrderRef) -> Item:
    """Read an order's item, whatever is in it.

    Raises:
        InterventionRefused: there is no such order.
        StoreUnavailable: no answer in time.
    """
    item = gateway.get(keys.order_key(*ref))
    if item is None:
        raise InterventionRefused("there is no such order")
    return item


def replay(gateway: Gateway, ref: OrderRef, *, sleep: Callable[[float], None] = time.sleep) -> None:
    """Make a parked order pending again; it has to be enqueued after that.

    Its next decision gets a new place in the sequence, after all that was decided meanwhile.

    Raises:
        InterventionRefused: it is not parked, or is not fit to be decided yet.
        StoreRefused: DynamoDB calls the change invalid.
        StoreUnavailable: not replayed, as far as is known: ask again.
    """
    seen: Parking | None = None
    for _ in range(TRIES_MAX):
        item = find(gateway, ref)
        if seen is not None and _was_replayed(item, seen):
            return
        _require_parked(item)
        _require_readable_account(gateway, ref[0])
        order, seen = _require_readable(items.read_parked(item))
        try:
            gateway.transact(_replay(gateway.table_name, order, seen), token=str(uuid4()))
        except TransactionCancelled as cancelled:
            commits.refuse_invalid(cancelled)
        except (StoreOutcomeUnknown, StoreThrottled):
            sleep(PAUSE_SECONDS)
        else:
            return
    # The last answer may have been the one that was lost.
    if seen is None or not _was_replayed(find(gateway, ref), seen):
        raise InterventionRefused(_TOO_BUSY)


def cancel(
    gateway: Gateway,
    ref: OrderRef,
    clock: Callable[[], datetime],
    *,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Cancel an order that is pending or parked, for good; its item may be damaged.

    A parked order keeps its place in the sequence, if it has one. A pending one gets the next.

    Raises:
        InterventionRefused: it is decided already, or its account cannot be read.
        StoreRefused: DynamoDB calls the change invalid.
        StoreUnavailable: not cancelled, as far as is known: ask again.
    """
    is_tried = False
    for _ in range(TRIES_MAX):
        item = find(gateway, ref)
        status = items.read_status(item)
        if is_tried and status is OrderStatus.CANCELLED:
            return
        is_tried = True
        try:
            if status is OrderStatus.FAILED:
                _cancel_parked(gateway, ref, item)
            else:
                _cancel_pending(gateway, ref, status, clock())
        except CommitConflict:
            continue
        except (StoreOutcomeUnknown, StoreThrottled):
            sleep(PAUSE_SECONDS)
        else:
            return
    # The last answer may have been the one that was lost.
    if items.read_status(find(gateway, ref)) is not OrderStatus.CANCELLED:
        raise InterventionRefused(_TOO_BUSY)


def _replay(table_name: str, order: ParkedOrder, parking: Parking) -> list[dict[str, Any]]:
    parkings = (*order.earlier, parking)
    reopen = update_action(
        table_name,
        keys.order_key(order.account_id, order.id),
        set_={
            "status": items.text(OrderStatus.PENDING),
            "parked": items.write_parkings(parkings),
            SHARD: items.text(keys.shard_of(order.account_id)),
        },
        remove=_DECISION,
        condition=_IS_THIS_PARKING,
        condition_values=_this_parking(order.item),
    )
    # Whether the parking was counted as a decision or taken out of the accepted orders:
    # there is one undecided order more than there was.
    count = update_action(
        table_name,
        keys.head_key(order.account_id),
        set_={},
        add={"accepted": items.number(1)},
        condition="#accepted >= :zero",
        condition_values={":zero": items.number(0)},
    )
    return [{"Update": reopen}, {"Update": count}]


def _cancel_parked(gateway: Gateway, ref: OrderRef, item: Item) -> None:
    action = update_action(
        gateway.table_name,
        keys.order_key(*ref),
        set_={"status": items.text(OrderStatus.CANCELLED)},
        remove=[SHARD],
        condition=_IS_THIS_PARKING if "decided_at" in item else _IS_UNDATED_PARKING,
        condition_values=_this_parking(item),
    )
    try:
        gateway.transact([{"Update": action}], token=str(uuid4()))
    except TransactionCancelled as cancelled:
        commits.refuse_invalid(cancelled)
        raise CommitConflict({ref[0]}) from cancelled


def _cancel_pending(
    gateway: Gateway, ref: OrderRef, status: OrderStatus | None, now: datetime
) -> None:
    if status is None:
        raise InterventionRefused("its status cannot be read: repair its item first")
    if status is not OrderStatus.PENDING:
        raise InterventionRefused(f"it is {status} already")
    try:
        account = reads.load_account(gateway, ref[0])
    except UnreadableItem as error:
        raise InterventionRefused(f"{_ACCOUNT_FIRST}: {error}") from error
    if account is None:
        raise InterventionRefused(f"{_ACCOUNT_FIRST}: its item is missing")
    commits.cancel_pending(gateway, account, ref[1], now)


def _this_parking(item: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Values of the conditions ``_IS_THIS_PARKING`` and ``_IS_UNDATED_PARKING``."""
    seen = {":seen": item["decided_at"]} if "decided_at" in item else {}
    return {":failed": items.text(OrderStatus.FAILED), **seen}


def _was_replayed(item: Item, seen: Parking) -> bool:
    """Tell whether ``seen`` was replayed: by a call whose answer was lost, or by somebody else."""
    return any(parking == seen for parking in items.read_parked(item).earlier)


def _require_parked(item: Item) -> None:
    status = items.read_status(item)
    if status is not OrderStatus.FAILED:
        raise InterventionRefused(f"it is not parked but {status or 'of no readable status'}")


def _require_readable(order: ParkedOrder) -> tuple[ParkedOrder, Parking]:
    if order.problem is not None or order.parking is None:
        problem = order.problem or "its parking cannot be read"
        raise InterventionRefused(f"it would only be parked again, so repair it first: {problem}")
    if len(order.earlier) >= PARKINGS_MAX:
        raise InterventionRefused(f"it was replayed {PARKINGS_MAX} times already: cancel it")
    return order, order.parking


def _require_readable_account(gateway: Gateway, account_id: int) -> None:
    loaded = reads.load_for_settlement(gateway, [account_id], [])
    if account_id in loaded.unreadable:
        raise InterventionRefused(f"{_ACCOUNT_FIRST}: {loaded.unreadable[account_id]}")
    if account_id not in loaded.accounts or account_id not in loaded.heads:
        raise InterventionRefused(f"{_ACCOUNT_FIRST}: its account or head item is missing")
