"""What an account holds, and how an executed order changes it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from typing import Final

from shared.domain import money
from shared.domain.order import Operation, OperationKey, Order

POSITIONS_MAX: Final = 1000
"""Issuers that one account can hold at once: its item must stay below DynamoDB's 400 KB."""


@dataclass(frozen=True, slots=True)
class Position:
    """Shares of one issuer; ``share_price`` is the price at which they were last traded."""

    total_shares: int
    share_price: Decimal


@dataclass(frozen=True, slots=True)
class Account:
    """The state that decides an order.

    ``recent`` holds, for each operation, the timestamp of its latest executed order. Older ones
    change no outcome: two executed orders of one operation lie at least the duplicate window
    apart, and no valid order is older than the last executed one by more than the grace.
    """

    id: int
    cash: Decimal
    opened_at: datetime
    positions: Mapping[str, Position] = field(default_factory=dict)
    last_executed_at: datetime | None = None
    recent: Mapping[OperationKey, datetime] = field(default_factory=dict)

    def shares_of(self, issuer_name: str) -> int:
        """Shares held of ``issuer_name``, 0 if none."""
        position = self.positions.get(issuer_name)
        return position.total_shares if position else 0


def execute(account: Account, order: Order) -> Account:
    """Return ``account`` after ``order``; the caller has checked that the rules allow it."""
    amount = money.cost(order.total_shares, order.share_price)
    if order.operation is Operation.BUY:
        cash = money.subtract(account.cash, amount)
        total_shares = account.shares_of(order.issuer_name) + order.total_shares
    else:
        cash = money.add(account.cash, amount)
        total_shares = account.shares_of(order.issuer_name) - order.total_shares
    if cash < 0 or total_shares < 0:
        raise ValueError(f"order {order.id} would make account {account.id} negative")

    positions = dict(account.positions)
    if total_shares:
        positions[order.issuer_name] = Position(total_shares, order.share_price)
    else:
        del positions[order.issuer_name]
    last = account.last_executed_at
    return replace(
        account,
        cash=cash,
        positions=positions,
        last_executed_at=order.timestamp if last is None else max(last, order.timestamp),
        recent={**account.recent, order.key: order.timestamp},
    )
