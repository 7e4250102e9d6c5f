"""What an audit tells: differences, sums, and the words for both."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Context, Decimal
from enum import StrEnum
from typing import Final

from shared.domain import money
from shared.domain.account import Account, Position
from shared.domain.order import OperationKey, OrderStatus
from shared.order_store import keys
from shared.order_store.records import Balance

SUM: Final = Context(prec=100)
"""Sums over accounts may need more digits than one account's amounts."""

_SHOWN_POSITIONS_MAX: Final = 3


class What(StrEnum):
    """Kinds of differences."""

    STATUS = "status"
    BUSINESS_ERRORS = "business_errors"
    BALANCE = "balance"
    RULES = "rules"
    SEQUENCE = "sequence"
    TURN = "turn"
    INDEX = "index"
    ACCEPTED = "accepted"
    DECIDED_THROUGH = "decided_through"
    CASH = "cash"
    POSITIONS = "positions"
    LAST_EXECUTED_AT = "last_executed_at"
    RECENT = "recent"
    NEGATIVE = "negative"
    ORPHAN = "orphan"
    HEAD = "head"
    UNREADABLE = "unreadable"
    UNKNOWN = "unknown"
    COUNTER = "counter"


@dataclass(slots=True)
class Difference:
    """What was found where something else was expected.

    ``order_id`` is the first order of the account at which it appears, None where no order is to
    blame; ``orders`` counts the orders at which it does.
    """

    account_id: int | None
    order_id: str | None
    what: What
    expected: str
    found: str
    orders: int = 1


@dataclass(slots=True)
class Totals:
    """Sums over accounts; amounts are of accounts whose opening cash is known."""

    accounts: int = 0
    orders: Counter[str] = field(default_factory=Counter)
    opened_with: Decimal = money.ZERO
    holding: Decimal = money.ZERO
    net_bought: Decimal = money.ZERO
    openings_unknown: int = 0

    def add(self, other: "Totals") -> None:
        """Add ``other`` to these."""
        self.accounts += other.accounts
        self.orders.update(other.orders)
        self.opened_with = SUM.add(self.opened_with, other.opened_with)
        self.holding = SUM.add(self.holding, other.holding)
        self.net_bought = SUM.add(self.net_bought, other.net_bought)
        self.openings_unknown += other.openings_unknown

    @property
    def gone(self) -> Decimal:
        """Cash that is not there any more; below zero where there is more than at first."""
        return SUM.subtract(self.opened_with, self.holding)

    @property
    def balanced(self) -> bool:
        """Tell whether the cash that is gone is what executed orders cost."""
        return self.gone == self.net_bought


@dataclass(slots=True)
class Result:
    """What the books of one account came to.

    ``beyond`` is the largest sequence found that is larger than the account's count, and its order:
    right if the account went on meanwhile.
    """

    account_id: int
    differences: list[Difference]
    totals: Totals
    beyond: tuple[int, str] | None


def by_first_order(difference: Difference) -> tuple[bool, str]:
    """Earliest order first; what no order is to blame for comes last."""
    return difference.order_id is None, difference.order_id or ""


def outcome(status: OrderStatus, business_errors: tuple[str, ...]) -> str:
    """A status, and the reasons for it."""
    return " ".join([status, *business_errors])


def executed(key: OperationKey, at: datetime | None) -> str:
    """When an operation was executed last."""
    return f"{keys.write_operation(key)} executed at {at}" if at else "nothing executed"


def amount(value: Decimal) -> str:
    """An amount, even one that is no number."""
    return money.plain(value) if value.is_finite() else str(value)


def below_zero(account: Account) -> str:
    """What an account holds that it must not."""
    below = {name: held for name, held in account.positions.items() if held.total_shares <= 0}
    return f"cash {amount(account.cash)}{_list(below)}"


def balances(expected: Balance, found: Balance) -> tuple[str, str]:
    """The differences between two balances, as each has it."""
    if expected.complete != found.complete:
        return _completeness(expected), _completeness(found)
    left, right = differing_positions(expected.positions, found.positions)
    if expected.cash == found.cash:
        return left, right
    cash = f"cash {amount(expected.cash)}", f"cash {amount(found.cash)}"
    if expected.positions == found.positions:
        return cash
    return f"{cash[0]}, {left}", f"{cash[1]}, {right}"


def _completeness(balance: Balance) -> str:
    return "all positions" if balance.complete else "the traded position alone"


def differing_positions(
    expected: Mapping[str, Position], found: Mapping[str, Position]
) -> tuple[str, str]:
    """The positions in which the two differ, as far as one line holds them."""
    names = sorted(name for name in {*expected, *found} if expected.get(name) != found.get(name))[
        :_SHOWN_POSITIONS_MAX
    ]
    return _list_named(names, expected), _list_named(names, found)


def _list_named(names: list[str], positions: Mapping[str, Position]) -> str:
    return ", ".join(_position(name, positions.get(name)) for name in names)


def _list(positions: Mapping[str, Position]) -> str:
    shown = list(positions)[:_SHOWN_POSITIONS_MAX]
    return "".join(f", {_position(name, positions[name])}" for name in shown)


def _position(name: str, held: Position | None) -> str:
    if held is None:
        return f"no {name}"
    return f"{held.total_shares} {name} at {amount(held.share_price)}"
