"""What the world sees of an account and of an order, the same from the API and from the cache."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from shared.domain.account import Account, Position
from shared.domain.decision import Decision
from shared.domain.money import plain
from shared.domain.order import Order, OrderStatus
from shared.order_store.commits import balance_after
from shared.order_store.records import (
    Balance,
    DecidedOrder,
    RecordedOrder,
    Settlement,
    UnreadableOrder,
)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def show_account(account: Account) -> dict[str, Any]:
    """An account: id, cash, issuers."""
    return {"id": account.id, "cash": plain(account.cash), "issuers": _issuers(account.positions)}


def show_accepted(order: Order) -> dict[str, Any]:
    """An order as it was when it was accepted: the first answer to its POST."""
    return show_order(RecordedOrder(order, OrderStatus.PENDING))


def show_order(recorded: RecordedOrder) -> dict[str, Any]:
    """An order with its status and, once decided, the reasons and the balance after it."""
    order = recorded.order
    shown: dict[str, Any] = {
        "id": order.id,
        "account_id": order.account_id,
        "status": recorded.status,
        "operation": order.operation,
        "issuer_name": order.issuer_name,
        "total_shares": order.total_shares,
        "share_price": plain(order.share_price),
        "timestamp": unix_seconds(order.timestamp),
        "received_at": iso_utc(order.received_at),
        "decided_at": iso_utc(recorded.decided_at) if recorded.decided_at else None,
        "business_errors": list(recorded.business_errors),
        "current_balance": _balance(recorded.balance) if recorded.balance else None,
    }
    if recorded.failure is not None:
        shown["failure"] = recorded.failure
    return shown


def show_recorded(order: RecordedOrder | UnreadableOrder) -> dict[str, Any]:
    """An order, or what can be said of it."""
    return show_unreadable(order) if isinstance(order, UnreadableOrder) else show_order(order)


def show_unreadable(order: UnreadableOrder) -> dict[str, Any]:
    """What can be said of an order whose item is damaged."""
    status = OrderStatus.PENDING if order.is_pending else order.status or OrderStatus.FAILED
    return {
        "id": order.id,
        "account_id": order.account_id,
        "status": status,
        "failure": order.failure or order.reason,
    }


def recorded_from(settlement: Settlement, decided: DecidedOrder, order: Order) -> RecordedOrder:
    """The record that committing ``decided`` leaves in the table, without reading it again."""
    decision: Decision = decided.decision
    return RecordedOrder(
        order,
        decision.status,
        business_errors=decision.business_errors,
        decided_at=settlement.decided_at,
        balance=balance_after(decision, order.issuer_name),
        failure=decided.failure,
    )


def to_json(shown: Mapping[str, Any]) -> bytes:
    """Compact JSON in UTF-8."""
    return json.dumps(shown, separators=(",", ":"), ensure_ascii=False).encode()


def unix_seconds(instant: datetime) -> int | float:
    """Unix seconds, as the challenge's clients send them; whole where they are whole."""
    microseconds = (instant - _EPOCH) // timedelta(microseconds=1)
    whole, rest = divmod(microseconds, 1_000_000)
    return whole if not rest else microseconds / 1_000_000


def iso_utc(instant: datetime) -> str:
    """RFC 3339 in UTC with microseconds: 2026-03-02T15:04:05.123456Z."""
    utc = instant.astimezone(UTC)
    return utc.isoformat(timespec="microseconds").replace("+00:00", "Z")


def _balance(balance: Balance) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "cash": plain(balance.cash),
        "issuers": _issuers(balance.positions),
    }
    if not balance.complete:
        shown["partial"] = True
    return shown


def _issuers(positions: Mapping[str, Position]) -> list[dict[str, Any]]:
    return [
        {
            "issuer_name": name,
            "total_shares": held.total_shares,
            "share_price": plain(held.share_price),
        }
        for name, held in sorted(positions.items())
    ]
