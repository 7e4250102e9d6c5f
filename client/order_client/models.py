"""Accounts and orders as the service shows them: immutable, exact, with times in UTC."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from typing import Any, Final

from order_client.errors import FieldError, Problem, ProtocolError, problem
from order_client.exact import Json, exact_text, plain

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Status(StrEnum):
    """How an order stands."""

    PENDING = "pending"
    EXECUTED = "executed"
    REJECTED = "rejected"
    CANCELLED = "cancelled"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Position:
    """Shares held of one issuer; ``share_price`` is the price last traded."""

    issuer_name: str
    total_shares: int
    share_price: Decimal


@dataclass(frozen=True, slots=True)
class Account:
    """Cash and positions."""

    id: int
    cash: Decimal
    issuers: tuple[Position, ...]


@dataclass(frozen=True, slots=True)
class Balance:
    """What the account held right after an order; if ``partial``, the traded position alone."""

    cash: Decimal
    issuers: tuple[Position, ...]
    partial: bool = False


@dataclass(frozen=True, slots=True)
class Order:
    """An order. What is None beside ``failure`` was not readable on the service's side."""

    id: str
    account_id: int
    status: Status
    operation: str | None = None
    issuer_name: str | None = None
    total_shares: int | None = None
    share_price: Decimal | None = None
    timestamp: datetime | None = None
    received_at: datetime | None = None
    decided_at: datetime | None = None
    business_errors: tuple[str, ...] = ()
    current_balance: Balance | None = None
    failure: str | None = None

    @property
    def is_final(self) -> bool:
        """Whether it is decided."""
        return self.status is not Status.PENDING


@dataclass(frozen=True, slots=True)
class NewOrder:
    """An order to be sent, for ``Client.bulk``.

    Amounts are int, Decimal or str, never float; text is sent as it is and judged by the service.
    Without a ``timestamp`` it is dated when it is first sent, without a key it gets one.
    """

    account_id: int
    operation: str
    issuer_name: str
    total_shares: int | str
    share_price: Decimal | int | str
    timestamp: datetime | Decimal | int | str | None = None
    idempotency_key: str | None = None

    def body(self) -> Json:
        """The fields of the request, amounts as text.

        Raises:
            TypeError: an amount is a float.
            ValueError: it has no timestamp, or one without a time zone.
        """
        if self.timestamp is None:
            raise ValueError("the order is not dated yet")
        return {
            "timestamp": timestamp_text(self.timestamp),
            "operation": self.operation,
            "issuer_name": self.issuer_name,
            "total_shares": exact_text(self.total_shares),
            "share_price": exact_text(self.share_price),
        }


def timestamp_text(timestamp: datetime | Decimal | int | str) -> str:
    """A time as it is sent: ISO 8601 of a datetime, else Unix seconds or text as it is."""
    if not isinstance(timestamp, datetime):
        return exact_text(timestamp)
    if timestamp.utcoffset() is None:
        raise ValueError(f"{timestamp} has no time zone")
    return timestamp.astimezone(UTC).isoformat()


def read_account(shown: Mapping[str, Any]) -> Account:
    """An account from an answer.

    Raises:
        ProtocolError: it is none.
    """
    try:
        return Account(_whole(shown["id"]), _amount(shown["cash"]), _positions(shown["issuers"]))
    except (KeyError, TypeError, ValueError) as error:
        raise _no("account", error) from None


def read_order(shown: Mapping[str, Any]) -> Order:
    """An order from an answer.

    Raises:
        ProtocolError: it is none.
    """
    try:
        return _order(shown)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise _no("order", error) from None


def read_problem(
    shown: Mapping[str, Any], status: int, retry_after_seconds: float | None = None
) -> Problem:
    """A problem from its document; what is missing in it is made up from the status."""
    code, detail, errors = shown.get("code"), shown.get("detail"), shown.get("errors")
    fields = [
        FieldError(str(error.get("pointer", "")), str(error.get("detail", "")))
        for error in (errors if isinstance(errors, list) else [])
        if isinstance(error, dict)
    ]
    return problem(
        status,
        code if isinstance(code, str) else f"HTTP_{status}",
        detail if isinstance(detail, str) else f"The service answered {status}.",
        fields,
        retry_after_seconds,
    )


def show_account(account: Account) -> Json:
    """An account in the service's own JSON."""
    return {
        "id": account.id,
        "cash": plain(account.cash),
        "issuers": [_show_position(position) for position in account.issuers],
    }


def show_order(order: Order) -> Json:
    """An order in the service's own JSON."""
    shown: Json = {"id": order.id, "account_id": order.account_id, "status": order.status.value}
    if order.operation is not None:
        shown |= {
            "operation": order.operation,
            "issuer_name": order.issuer_name,
            "total_shares": order.total_shares,
            "share_price": None if order.share_price is None else plain(order.share_price),
            "timestamp": None if order.timestamp is None else _unix(order.timestamp),
            "received_at": _iso(order.received_at),
            "decided_at": _iso(order.decided_at),
            "business_errors": list(order.business_errors),
            "current_balance": _show_balance(order.current_balance),
        }
    if order.failure is not None:
        shown["failure"] = order.failure
    return shown


def _order(shown: Mapping[str, Any]) -> Order:
    order_id, account_id, status = str(shown["id"]), _whole(shown["account_id"]), shown["status"]
    failure = shown.get("failure")
    if "operation" not in shown:
        return Order(order_id, account_id, Status(status), failure=str(failure))
    balance = shown["current_balance"]
    return Order(
        order_id,
        account_id,
        Status(status),
        operation=str(shown["operation"]),
        issuer_name=str(shown["issuer_name"]),
        total_shares=_whole(shown["total_shares"]),
        share_price=_amount(shown["share_price"]),
        timestamp=_from_unix(_amount(shown["timestamp"])),
        received_at=_from_iso(shown["received_at"]),
        decided_at=_from_iso(shown["decided_at"]),
        business_errors=tuple(str(code) for code in shown["business_errors"]),
        current_balance=None if balance is None else _balance(balance),
        failure=None if failure is None else str(failure),
    )


def _balance(shown: Mapping[str, Any]) -> Balance:
    partial = shown.get("partial") is True
    return Balance(_amount(shown["cash"]), _positions(shown["issuers"]), partial)


def _positions(shown: object) -> tuple[Position, ...]:
    if not isinstance(shown, list):
        raise TypeError("issuers are no list")
    return tuple(
        Position(
            str(held["issuer_name"]), _whole(held["total_shares"]), _amount(held["share_price"])
        )
        for held in shown
    )


def _whole(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{value!r} is no whole number")
    return value


def _amount(value: object) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, int | str | Decimal):
        raise TypeError(f"{value!r} is no amount")
    try:
        amount = Decimal(value)
    except InvalidOperation:
        raise ValueError(f"{value!r} is no amount") from None
    if not amount.is_finite():
        raise ValueError(f"{value!r} is no amount")
    return amount


def _from_unix(seconds: Decimal) -> datetime:
    return _EPOCH + timedelta(microseconds=int(seconds.scaleb(6)))


def _from_iso(text: object) -> datetime | None:
    if text is None:
        return None
    instant = datetime.fromisoformat(str(text))
    if instant.utcoffset() is None:
        raise ValueError(f"{text} has no time zone")
    return instant.astimezone(UTC)


def _unix(instant: datetime) -> int | float:
    """Unix seconds as the service writes them: microseconds survive in a float's shortest text."""
    microseconds = (instant - _EPOCH) // timedelta(microseconds=1)
    whole, rest = divmod(microseconds, 1_000_000)
    return whole if not rest else microseconds / 1_000_000


def _iso(instant: datetime | None) -> str | None:
    if instant is None:
        return None
    return instant.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _show_balance(balance: Balance | None) -> Json | None:
    if balance is None:
        return None
    shown: Json = {
        "cash": plain(balance.cash),
        "issuers": [_show_position(position) for position in balance.issuers],
    }
    if balance.partial:
        shown["partial"] = True
    return shown


def _show_position(position: Position) -> Json:
    return {
        "issuer_name": position.issuer_name,
        "total_shares": position.total_shares,
        "share_price": plain(position.share_price),
    }


def _no(what: str, error: Exception) -> ProtocolError:
    return ProtocolError(f"The service answered what is no {what}: {error!r}")
