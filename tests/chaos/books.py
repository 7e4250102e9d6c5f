"""The books of one account, kept a second time by the rules as the README tells them.

Nothing of the project is imported: what the workers decided is reckoned again here.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Context, Decimal, Inexact, InvalidOperation

from tests.chaos.table import Balance, OrderRow, Positions

# Exact: whatever does not fit is an error, never a rounding.
_EXACT = Context(prec=60, traps=[Inexact, InvalidOperation])
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

DUPLICATE_WINDOW_US = 300_000_000
SKEW_US = 5_000_000

INSUFFICIENT_BALANCE = "INSUFFICIENT_BALANCE"
INSUFFICIENT_STOCKS = "INSUFFICIENT_STOCKS"
DUPLICATED_OPERATION = "DUPLICATED_OPERATION"
INVALID_OPERATION = "INVALID_OPERATION"
_UNDECIDED_BY_RULES = frozenset({"failed", "cancelled"})
_BALANCE_POSITIONS_MAX = 100
_LACKS = frozenset({INSUFFICIENT_BALANCE, INSUFFICIENT_STOCKS})

UNAFFORDABLE = "unaffordable"
WRONG_DECISION = "wrong_decision"
WRONG_BALANCE = "wrong_balance"
APPLIED_TWICE = "applied_twice"
NEGATIVE = "negative"

Finding = tuple[str, str]
"""The kind of a violation, and what was found."""

StateKey = tuple[Decimal, frozenset[tuple[str, int, Decimal]]]


def microseconds(iso: str) -> int:
    """Microseconds since 1970 of an ISO 8601 instant."""
    return (datetime.fromisoformat(iso) - _EPOCH) // _MICROSECOND


def state_key(cash: Decimal, positions: Positions) -> StateKey:
    """A state as a value that equals that of the same amounts, however they are written."""
    return cash, frozenset((name, shares, price) for name, (shares, price) in positions.items())


@dataclass(slots=True)
class Books:
    """Cash, shares and what was executed when, order after order."""

    cash: Decimal
    opened_at: int
    positions: Positions = field(default_factory=dict)
    last_executed_at: int | None = None
    executed: dict[tuple[str, str, int], list[int]] = field(default_factory=dict)

    @property
    def key(self) -> StateKey:
        return state_key(self.cash, self.positions)

    def follow(self, row: OrderRow) -> Iterator[Finding]:
        """Take in the account's next decided order; yields what is wrong with its decision."""
        yield from self._judge(row)
        if row.status == "executed":
            yield from self._apply(row)
        yield from self._compare(row)

    def _judge(self, row: OrderRow) -> Iterator[Finding]:
        if row.status in _UNDECIDED_BY_RULES:
            if row.errors:
                yield WRONG_DECISION, f"{_name(row)} is {row.status} {sorted(row.errors)}"
            return
        wanted, told = self._broken_rules(row), set(row.errors)
        if row.status == "executed" and wanted & _LACKS:
            yield UNAFFORDABLE, f"{_name(row)} was executed with {_told(self.cash, self.positions)}"
            return
        # Of an order from before the kept window it is not known whether it repeats another.
        optional = {DUPLICATED_OPERATION} & wanted if INVALID_OPERATION in wanted else set()
        if told | optional != wanted or (row.status == "executed") != (not told):
            yield (
                WRONG_DECISION,
                f"{_name(row)} is {row.status} {sorted(told)}, should be {sorted(wanted)}"
                f" with {_told(self.cash, self.positions)}",
            )

    def _broken_rules(self, row: OrderRow) -> set[str]:
        at = microseconds(row.timestamp)
        broken = set()
        if row.operation == "BUY" and self.cash < _cost(row):
            broken.add(INSUFFICIENT_BALANCE)
        if row.operation == "SELL" and self._held(row.issuer_name) < row.total_shares:
            broken.add(INSUFFICIENT_STOCKS)
        if any(abs(at - other) < DUPLICATE_WINDOW_US for other in self.executed.get(_op(row), ())):
            broken.add(DUPLICATED_OPERATION)
        last = self.last_executed_at
        if (
            at - microseconds(row.received_at) > SKEW_US
            or self.opened_at - at > SKEW_US
            or (last is not None and last - at > SKEW_US)
        ):
            broken.add(INVALID_OPERATION)
        return broken

    def _apply(self, row: OrderRow) -> Iterator[Finding]:
        """Execute the order, and tell whether its balance shows that once, twice or otherwise."""
        at = microseconds(row.timestamp)
        self._trade(row)
        if row.balance is not None and self.key != _key_of(row.balance):
            twice = Books(self.cash, self.opened_at, dict(self.positions))
            twice._trade(row)
            if twice.key == _key_of(row.balance):
                yield APPLIED_TWICE, f"{_name(row)} left {_balance(row.balance)}"
                self._believe(row.balance)
        self.executed.setdefault(_op(row), []).append(at)
        self.last_executed_at = max(at, self.last_executed_at or at)
        if self.cash < 0 or any(shares < 0 for shares, _ in self.positions.values()):
            yield NEGATIVE, f"{_name(row)} left {_told(self.cash, self.positions)}"

    def _compare(self, row: OrderRow) -> Iterator[Finding]:
        told = row.balance
        if told is None:
            if row.status != "failed":
                yield WRONG_BALANCE, f"{_name(row)} is {row.status} and says nothing of the balance"
            return
        if told.partial and len(self.positions) > _BALANCE_POSITIONS_MAX:
            return
        if self.key == _key_of(told) and not told.partial:
            return
        yield (
            WRONG_BALANCE,
            f"{_name(row)} left {_balance(told)}, should be {_told(self.cash, self.positions)}",
        )
        # One flaw is told once: what follows is measured against what was recorded.
        self._believe(told)

    def _believe(self, balance: Balance) -> None:
        self.cash, self.positions = balance.cash, dict(balance.positions)

    def _trade(self, row: OrderRow) -> None:
        sign = 1 if row.operation == "BUY" else -1
        self.cash = _EXACT.subtract(self.cash, _EXACT.multiply(Decimal(sign), _cost(row)))
        shares = self._held(row.issuer_name) + sign * row.total_shares
        self.positions.pop(row.issuer_name, None)
        if shares:
            self.positions[row.issuer_name] = (shares, row.share_price)

    def _held(self, issuer_name: str) -> int:
        return self.positions.get(issuer_name, (0, Decimal(0)))[0]


def replay(
    cash: Decimal, opened_at: str, rows: Sequence[OrderRow | None]
) -> tuple[list[StateKey], list[Finding]]:
    """Keep the books over decided orders in sequence; None is a place that changed nothing.

    Returns every state, from the opening on, and what was found wrong.
    """
    books = Books(cash, microseconds(opened_at))
    states = [books.key]
    findings: list[Finding] = []
    for row in rows:
        findings += books.follow(row) if row is not None else ()
        states.append(books.key)
    return states, findings


def _cost(row: OrderRow) -> Decimal:
    return _EXACT.multiply(Decimal(row.total_shares), row.share_price)


def _op(row: OrderRow) -> tuple[str, str, int]:
    return row.operation, row.issuer_name, row.total_shares


def _key_of(balance: Balance) -> StateKey:
    return state_key(balance.cash, balance.positions)


def _name(row: OrderRow) -> str:
    what = f"{row.operation} {row.total_shares} {row.issuer_name} at {row.share_price}"
    return f"order {row.id} (account {row.account}, sequence {row.sequence}, {what})"


def _balance(balance: Balance) -> str:
    return _told(balance.cash, balance.positions)


def _told(cash: Decimal, positions: Positions) -> str:
    held = ", ".join(f"{name} {shares}@{price}" for name, (shares, price) in positions.items())
    return f"cash {cash} [{held}]"
