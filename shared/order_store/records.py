"""What the store keeps beside the domain's own values."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

from shared.domain.account import Account, Position
from shared.domain.decision import Decision
from shared.domain.order import BusinessError, OperationKey, Order, OrderStatus
from shared.ids import NO_ORDER_ID


@dataclass(frozen=True, slots=True)
class IdempotencyClaim:
    """A client's key for one request: who may repeat it, and a hash of what it asked for."""

    scope: str
    client_key: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Remembered:
    """What an earlier request with the same key asked for and made (an order or account id)."""

    fingerprint: str
    result: str


@dataclass(frozen=True, slots=True)
class AcceptedOrder:
    """An order to be recorded as pending, with the key that makes its request repeatable.

    ``origin`` names its request, for the logs; it is not recorded.
    """

    order: Order
    claim: IdempotencyClaim | None = None
    origin: str = ""


@dataclass(frozen=True, slots=True)
class OpenedAccount:
    """An account to be recorded; ``mark`` tells a lost answer from somebody else's account."""

    account: Account
    mark: str
    claim: IdempotencyClaim | None = None


@dataclass(frozen=True, slots=True)
class Balance:
    """What an account held right after a decision.

    ``complete`` is false when the account held more positions than an order's item should carry:
    ``positions`` then holds the traded one alone.
    """

    cash: Decimal
    positions: Mapping[str, Position]
    complete: bool = True


@dataclass(frozen=True, slots=True)
class Parking:
    """That an order was parked: when, why, and its place in the account's decisions.

    ``sequence`` is None where it was parked without its account, which could not be read.
    """

    at: datetime
    failure: str
    sequence: int | None = None


@dataclass(frozen=True, slots=True)
class RecordedOrder:
    """An order and what is known of it. ``sequence`` counts the account's decisions from 1.

    ``parked`` are its earlier parkings, the oldest first: those after which it was replayed.
    """

    order: Order
    status: OrderStatus
    business_errors: tuple[BusinessError, ...] = ()
    decided_at: datetime | None = None
    sequence: int | None = None
    balance: Balance | None = None
    rules: str | None = None
    failure: str | None = None
    attempts: int = 0
    parked: tuple[Parking, ...] = ()


@dataclass(frozen=True, slots=True)
class UnreadableOrder:
    """An order's item that this code cannot read; it can still be parked by its key.

    ``status`` and ``failure`` are the stored ones, None where they are damaged or not there.
    """

    account_id: int
    id: str
    reason: str
    is_pending: bool
    attempts: int
    status: OrderStatus | None = None
    failure: str | None = None


@dataclass(frozen=True, slots=True)
class ParkedOrder:
    """A parked order, as far as it can be read; ``item`` is all that is stored of it.

    ``parking`` is None where not even the parking can be read. ``order`` is None, and ``problem``
    says why, where the item cannot be read as an order.
    """

    account_id: int
    id: str
    parking: Parking | None
    attempts: int
    earlier: tuple[Parking, ...]
    order: Order | None
    problem: str | None
    item: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class RecordedAccount:
    """An account and where its decisions stand.

    ``decided`` counts its decided orders: it is the version that every commit is conditional on.
    All its orders up to ``decided_through`` are decided. ``overflow_until`` is set while executed
    operations up to that instant are written apart (there were more than the item should hold);
    ``inline`` are those that stand in the account's own item. ``opening_cash`` is None for an
    account that was opened before it was kept. ``cancelled_newest`` is the largest id of the orders
    that clients cancelled, and so ahead of others: a head that names none as new was read earlier.
    """

    account: Account
    decided: int = 0
    decided_through: str = NO_ORDER_ID
    overflow_until: datetime | None = None
    inline: frozenset[OperationKey] = field(default_factory=frozenset)
    opening_cash: Decimal | None = None
    cancelled_newest: str = NO_ORDER_ID


@dataclass(frozen=True, slots=True)
class Head:
    """How many orders an account was sent, and the id of the newest."""

    accepted: int
    newest: str


@dataclass(frozen=True, slots=True)
class DecidedOrder:
    """One order of a settlement: the order (or what is left of it) and its decision."""

    account_id: int
    order_id: str
    order: Order | None
    decision: Decision
    failure: str | None = None


@dataclass(frozen=True, slots=True)
class Settlement:
    """The decisions of one account in sequence, to be committed as one."""

    before: RecordedAccount
    after: Account
    decided: tuple[DecidedOrder, ...]
    rules: str
    decided_at: datetime
