"""What an order is, and the states it may be in."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Final, NamedTuple

from shared.domain.money import SHARE_PRICE_MAX, TOTAL_SHARES_MAX, has_money_scale

ISSUER_NAME_LENGTH_MAX: Final = 64
"""Characters of an issuer's name."""

ISSUER_NAME_BYTES_MAX: Final = 128
"""UTF-8 bytes of an issuer's name: it is a key in the account's item (400 KB, AWS limit)."""


class Operation(StrEnum):
    """The side of an order."""

    BUY = "BUY"
    SELL = "SELL"


class OrderStatus(StrEnum):
    """Where an order is on its way; the legal moves stand in ``TRANSITIONS``."""

    PENDING = "pending"
    EXECUTED = "executed"
    REJECTED = "rejected"
    CANCELLED = "cancelled"
    FAILED = "failed"


TRANSITIONS: Final[dict[OrderStatus, frozenset[OrderStatus]]] = {
    OrderStatus.PENDING: frozenset(
        {
            OrderStatus.EXECUTED,
            OrderStatus.REJECTED,
            OrderStatus.CANCELLED,
            OrderStatus.FAILED,
        }
    ),
    # A parked order can be replayed or cancelled by an operator; nothing else ever leaves a
    # decided state.
    OrderStatus.FAILED: frozenset({OrderStatus.PENDING, OrderStatus.CANCELLED}),
    OrderStatus.EXECUTED: frozenset(),
    OrderStatus.REJECTED: frozenset(),
    OrderStatus.CANCELLED: frozenset(),
}

FINAL_STATUSES: Final = frozenset(status for status, moves in TRANSITIONS.items() if not moves)
"""The statuses that no order ever leaves: these alone may be cached."""


class BusinessError(StrEnum):
    """Why an order was rejected (the challenge's five business rules)."""

    INSUFFICIENT_BALANCE = "INSUFFICIENT_BALANCE"
    INSUFFICIENT_STOCKS = "INSUFFICIENT_STOCKS"
    DUPLICATED_OPERATION = "DUPLICATED_OPERATION"
    CLOSED_MARKET = "CLOSED_MARKET"
    INVALID_OPERATION = "INVALID_OPERATION"


class OperationKey(NamedTuple):
    """What makes two orders the same operation for the duplicate rule: the price does not count."""

    operation: Operation
    issuer_name: str
    total_shares: int


@dataclass(frozen=True, slots=True)
class Order:
    """An accepted order, as the client sent it.

    ``timestamp`` is the client's own instant, ``received_at`` ours; both are aware datetimes.
    ``id`` sorts by acceptance within the account.
    """

    id: str
    account_id: int
    operation: Operation
    issuer_name: str
    total_shares: int
    share_price: Decimal
    timestamp: datetime
    received_at: datetime

    @property
    def key(self) -> OperationKey:
        """The operation that this order asks for, as the duplicate rule sees it."""
        return OperationKey(self.operation, self.issuer_name, self.total_shares)


def is_within_bounds(order: Order) -> bool:
    """Tell whether every amount of ``order`` keeps the documented bounds."""
    return (
        0 < order.total_shares <= TOTAL_SHARES_MAX
        # The scale first: it refuses NaN, which cannot be compared.
        and has_money_scale(order.share_price)
        and 0 < order.share_price <= SHARE_PRICE_MAX
        and is_issuer_name(order.issuer_name)
    )


def is_issuer_name(name: str) -> bool:
    """Tell whether ``name`` can name an issuer: 1-64 printable characters, no blank ends."""
    return (
        0 < len(name) <= ISSUER_NAME_LENGTH_MAX
        and name.isprintable()
        and name == name.strip()
        and len(name.encode("utf-8", "replace")) <= ISSUER_NAME_BYTES_MAX
    )
