"""Records to DynamoDB items and back.

Written by hand for the few shapes that there are: boto3's generic serialiser costs more time than
the rest of a decision.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Any, Final, TypeVar

from shared.domain.account import Account, Position
from shared.domain.money import plain
from shared.domain.order import BusinessError, Operation, OperationKey, Order, OrderStatus
from shared.ids import NO_ORDER_ID, is_order_id
from shared.order_store import keys
from shared.order_store.errors import UnreadableItem
from shared.order_store.keys import EXPIRES_AT, SHARD, Item
from shared.order_store.records import (
    Balance,
    Head,
    IdempotencyClaim,
    ParkedOrder,
    Parking,
    RecordedAccount,
    RecordedOrder,
    Remembered,
    UnreadableOrder,
)

T = TypeVar("T")

Value = dict[str, Any]

_SHOWN_MAX: Final = 60
"""Characters of a damaged attribute that are told."""

_UNREADABLE: Final = (LookupError, ValueError, TypeError, AttributeError, InvalidOperation)


def text(value: str) -> Value:
    """A string attribute."""
    return {"S": value}


def number(value: int | Decimal) -> Value:
    """A number attribute, exact."""
    return {"N": plain(value) if isinstance(value, Decimal) else str(value)}


def instant(value: datetime) -> Value:
    """An instant, as ISO 8601 text."""
    return {"S": value.isoformat()}


def new_order_item(order: Order) -> Item:
    """The item of an order that was just accepted."""
    return {
        **keys.order_key(order.account_id, order.id),
        "operation": text(order.operation),
        "issuer_name": text(order.issuer_name),
        "total_shares": number(order.total_shares),
        "share_price": number(order.share_price),
        "timestamp": instant(order.timestamp),
        "received_at": instant(order.received_at),
        "status": text(OrderStatus.PENDING),
        SHARD: text(keys.shard_of(order.account_id)),
    }


def read_order(item: Item) -> RecordedOrder | UnreadableOrder:
    """Read an order's item; what cannot be read comes back as ``UnreadableOrder``."""
    account_id, order_id = keys.order_of(item)
    try:
        return _read_order(item, account_id, order_id)
    except _UNREADABLE as error:
        return UnreadableOrder(
            account_id,
            order_id,
            reason=f"its item cannot be read: {_damage(item) or repr(error)}",
            is_pending=item.get("status") == text(OrderStatus.PENDING),
            attempts=_attempts(item),
            status=read_status(item),
            failure=_text(item, "failure"),
        )


def read_status(item: Item) -> OrderStatus | None:
    """Read an order's status, or None where it is none that this code writes."""
    try:
        return OrderStatus(item["status"]["S"])
    except _UNREADABLE:
        return None


def read_parked(item: Item) -> ParkedOrder:
    """Read a parked order's item as far as it goes."""
    account_id, order_id = keys.order_of(item)
    read = read_order(item)
    return ParkedOrder(
        account_id,
        order_id,
        parking=_or(None, read_parking, item),
        attempts=read.attempts,
        earlier=_or((), _read_parkings, item),
        order=read.order if isinstance(read, RecordedOrder) else None,
        problem=read.reason if isinstance(read, UnreadableOrder) else None,
        item=item,
    )


def read_places(item: Item) -> tuple[int | None, tuple[int, ...]]:
    """An order's place in its account's decisions, and those of its earlier parkings.

    Whatever else is damaged; what cannot be read is left out.
    """
    place = _or(0, lambda found: _int(found, "sequence"), item)
    nothing: tuple[Parking, ...] = ()
    earlier = _or(nothing, _read_parkings, item)
    return place or None, tuple(one.sequence for one in earlier if one.sequence is not None)


def write_parkings(parkings: Sequence[Parking]) -> Value:
    """Write an order's earlier parkings as a list of maps."""
    return {"L": [_write_parking(parking) for parking in parkings]}


def read_parking(item: Item) -> Parking:
    """Read how the order of ``item`` is parked now; the rest of the item may be damaged.

    Raises:
        UnreadableItem: not even that has the shape that this code writes.
    """
    try:
        return Parking(
            at=_moment(item["decided_at"]),
            failure=item["failure"]["S"],
            sequence=_int(item, "sequence") or None,
        )
    except _UNREADABLE as error:
        raise UnreadableItem(f"{item.get(keys.SK)}: {error!r}") from error


def new_account_item(account: Account, mark: str) -> Item:
    """The item of an account that was just opened."""
    return {
        **keys.account_key(account.id),
        "cash": number(account.cash),
        "positions": write_positions(account.positions),
        "opened_at": instant(account.opened_at),
        "recent": write_recent({}),
        "decided": number(0),
        "mark": text(mark),
        # Never changed: with it, all that became of the account can be reckoned again.
        "opening_cash": number(account.cash),
    }


def read_account(item: Item) -> RecordedAccount:
    """Read an account's item.

    Raises:
        UnreadableItem: it does not have the shape that this code writes.
    """
    try:
        return _read_account(item)
    except _UNREADABLE as error:
        raise UnreadableItem(f"{item.get(keys.PK)}: {error!r}") from error


def new_head_item(account_id: int) -> Item:
    """The item that counts an account's accepted orders."""
    return {**keys.head_key(account_id), "accepted": number(0), "newest": text(NO_ORDER_ID)}


def read_head(item: Item) -> Head:
    """Read an account's count of accepted orders.

    Raises:
        UnreadableItem: it does not have the shape that this code writes.
    """
    try:
        newest = item["newest"]["S"]
        if newest != NO_ORDER_ID and not is_order_id(newest):
            raise ValueError(f"newest: {newest[:_SHOWN_MAX]!r}")
        return Head(int(item["accepted"]["N"]), newest)
    except _UNREADABLE as error:
        raise UnreadableItem(f"{item.get(keys.PK)}: {error!r}") from error


def idempotency_item(claim: IdempotencyClaim, result: str, expires_at_seconds: int) -> Item:
    """The item that remembers the answer to a repeatable request."""
    return {
        **keys.idempotency_key(claim.scope, claim.client_key),
        "fingerprint": text(claim.fingerprint),
        "result": text(result),
        EXPIRES_AT: number(expires_at_seconds),
    }


def read_remembered(item: Item) -> Remembered:
    """Read what ``idempotency_item`` wrote.

    Raises:
        UnreadableItem: it does not have the shape that this code writes.
    """
    try:
        return Remembered(item["fingerprint"]["S"], item["result"]["S"])
    except _UNREADABLE as error:
        raise UnreadableItem(f"{item.get(keys.PK)}: {error!r}") from error


def check_remembered(item: Item) -> None:
    """Look at all of what ``idempotency_item`` wrote, also at what no request reads.

    Raises:
        UnreadableItem: it does not have the shape that this code writes, or names nothing.
    """
    result = read_remembered(item).result
    try:
        int(item[EXPIRES_AT]["N"])
    except _UNREADABLE as error:
        raise UnreadableItem(f"{item.get(keys.PK)}: {error!r}") from error
    if not is_order_id(result) and not (result.isascii() and result.isdigit()):
        raise UnreadableItem(f"{item.get(keys.PK)}: {result!r} is the id of nothing")


def recent_item(account_id: int, operation: OperationKey, at: datetime) -> Item:
    """The item of an executed operation for which the account's own item has no room.

    It never expires: how long it matters is counted in the orders' own timestamps.
    """
    return {**keys.recent_key(account_id, operation), "executed_at": instant(at)}


def read_recent(item: Item) -> datetime:
    """When the operation of a ``recent_item`` was executed (the order's timestamp).

    Raises:
        UnreadableItem: it does not have the shape that this code writes.
    """
    try:
        return _moment(item["executed_at"])
    except _UNREADABLE as error:
        raise UnreadableItem(f"{item.get(keys.PK)}: {error!r}") from error


def write_positions(positions: Mapping[str, Position]) -> Value:
    """Positions as a map from issuer to [shares, price]."""
    return {
        "M": {
            name: {"L": [number(held.total_shares), number(held.share_price)]}
            for name, held in positions.items()
        }
    }


def write_recent(recent: Mapping[OperationKey, datetime]) -> Value:
    """Executed operations as the JSON text of an object from operation to instant.

    One string: a map of as many attributes costs the engine several times as much at each commit,
    and more bytes (DynamoDB counts one for each element, and the names in full).
    """
    written = {keys.write_operation(key): at.isoformat() for key, at in recent.items()}
    return text(json.dumps(written, ensure_ascii=False, separators=(",", ":")))


def write_balance(balance: Balance) -> Value:
    """What an account held right after an order."""
    value = {"cash": number(balance.cash), "positions": write_positions(balance.positions)}
    return {"M": value if balance.complete else {**value, "partial": {"BOOL": True}}}


def _read_order(item: Item, account_id: int, order_id: str) -> RecordedOrder:
    order = Order(
        id=order_id,
        account_id=account_id,
        operation=Operation(item["operation"]["S"]),
        issuer_name=item["issuer_name"]["S"],
        total_shares=int(item["total_shares"]["N"]),
        share_price=Decimal(item["share_price"]["N"]),
        timestamp=_moment(item["timestamp"]),
        received_at=_moment(item["received_at"]),
    )
    status = OrderStatus(item["status"]["S"])
    attempts = _attempts(item)
    parked = _read_parkings(item)
    if status is OrderStatus.PENDING:
        return RecordedOrder(order, status, attempts=attempts, parked=parked)
    return RecordedOrder(
        order,
        status,
        business_errors=tuple(
            BusinessError(code["S"]) for code in item.get("business_errors", {"L": []})["L"]
        ),
        decided_at=_moment(item["decided_at"]),
        sequence=_int(item, "sequence") or None,
        balance=_read_balance(item["balance"]) if "balance" in item else None,
        rules=item["rules"]["S"] if "rules" in item else None,
        failure=item["failure"]["S"] if "failure" in item else None,
        attempts=attempts,
        parked=parked,
    )


def _or(otherwise: T, read: Callable[[Item], T], item: Item) -> T:
    try:
        return read(item)
    except (*_UNREADABLE, UnreadableItem):
        return otherwise


def _write_parking(parking: Parking) -> Value:
    value = {"at": instant(parking.at), "failure": text(parking.failure)}
    if parking.sequence is not None:
        value["sequence"] = number(parking.sequence)
    return {"M": value}


def _read_parkings(item: Item) -> tuple[Parking, ...]:
    if "parked" not in item:
        return ()
    return tuple(
        Parking(
            at=_moment(parking["M"]["at"]),
            failure=parking["M"]["failure"]["S"],
            sequence=_int(parking["M"], "sequence") or None,
        )
        for parking in item["parked"]["L"]
    )


def _read_account(item: Item) -> RecordedAccount:
    recent = _read_recent_text(item["recent"])
    account = Account(
        id=keys.account_of(item),
        cash=Decimal(item["cash"]["N"]),
        opened_at=_moment(item["opened_at"]),
        positions=_read_positions(item["positions"]),
        last_executed_at=_instant(item, "last_executed_at"),
        recent=recent,
    )
    return RecordedAccount(
        account,
        decided=int(item["decided"]["N"]),
        decided_through=item.get("decided_through", text(NO_ORDER_ID))["S"],
        overflow_until=_instant(item, "overflow_until"),
        inline=frozenset(recent),
        opening_cash=Decimal(item["opening_cash"]["N"]) if "opening_cash" in item else None,
        cancelled_newest=item.get("cancelled_newest", text(NO_ORDER_ID))["S"],
    )


def _read_recent_text(value: Value) -> dict[OperationKey, datetime]:
    written: dict[str, str] = json.loads(value["S"])
    return {keys.read_operation(name): _moment({"S": at}) for name, at in written.items()}


def _read_positions(value: Value) -> dict[str, Position]:
    return {
        name: Position(int(held["L"][0]["N"]), Decimal(held["L"][1]["N"]))
        for name, held in value["M"].items()
    }


def _read_balance(value: Value) -> Balance:
    fields = value["M"]
    return Balance(
        cash=Decimal(fields["cash"]["N"]),
        positions=_read_positions(fields["positions"]),
        complete="partial" not in fields,
    )


def _moment(value: Value) -> datetime:
    """Read what ``instant`` wrote; without an offset it could be compared with nothing."""
    moment = datetime.fromisoformat(value["S"])
    if moment.tzinfo is None:
        raise ValueError(f"{value['S']!r} has no offset from UTC")
    return moment


def _instant(item: Item, name: str) -> datetime | None:
    return _moment(item[name]) if name in item else None


def _attempts(item: Item) -> int:
    """The count of attempts: if it is damaged it starts anew, and spoils no order."""
    try:
        return max(0, math.ceil(Decimal(item["attempts"]["N"])))
    except _UNREADABLE:
        return 0


def _text(item: Item, name: str) -> str | None:
    value = item.get(name, {}).get("S")
    return value if isinstance(value, str) else None


def _int(item: Item, name: str) -> int:
    return int(item[name]["N"]) if name in item else 0


# What an order's item is read by, attribute by attribute: to say which one is damaged.
_REQUIRED: Final[Mapping[str, Callable[[Value], object]]] = {
    "operation": lambda value: Operation(value["S"]),
    "issuer_name": lambda value: value["S"],
    "total_shares": lambda value: int(value["N"]),
    "share_price": lambda value: Decimal(value["N"]),
    "timestamp": _moment,
    "received_at": _moment,
    "status": lambda value: OrderStatus(value["S"]),
}
_OPTIONAL: Final[Mapping[str, Callable[[Value], object]]] = {
    "decided_at": _moment,
    "business_errors": lambda value: [BusinessError(code["S"]) for code in value["L"]],
    "sequence": lambda value: int(value["N"]),
    "balance": _read_balance,
    "rules": lambda value: value["S"],
    "failure": lambda value: value["S"],
    "parked": lambda value: _read_parkings({"parked": value}),
}


def _damage(item: Item) -> str | None:
    """Which attribute of an order is damaged, for whoever has to repair it; None: no single one."""
    for name in _REQUIRED:
        if name not in item:
            return f"{name} is missing"
    for name, read in {**_REQUIRED, **_OPTIONAL}.items():
        if name not in item:
            continue
        try:
            read(item[name])
        except _UNREADABLE as error:
            told = json.dumps(item[name], ensure_ascii=False, default=str)
            cut = told[: _SHOWN_MAX - 3] + "..." if len(told) > _SHOWN_MAX else told
            return f"{name} is {cut} ({error!r})"
    return None
