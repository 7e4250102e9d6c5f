"""The five rules: one pure, total function from account and order to outcome.

A violated rule is no error of the request: the order is recorded as rejected, with all the codes
that apply, and changes nothing. The function reads no clock: ``received_at`` was fixed when the
order was accepted, so a delay in the queue never turns an order that came in time into a late one.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final

from shared.domain import money
from shared.domain.account import POSITIONS_MAX, Account, Position, execute
from shared.domain.market import Market, parse_market
from shared.domain.order import (
    BusinessError,
    Operation,
    OperationKey,
    Order,
    OrderStatus,
    is_within_bounds,
)

DUPLICATE_WINDOW: Final = timedelta(minutes=5)
"""Same operation, issuer and shares less than this apart are one operation (challenge rule 3)."""


@dataclass(frozen=True, slots=True)
class Rules:
    """The settings of the rules; ``timestamp_skew`` is the grace for clients' clocks."""

    market: Market = Market()
    timestamp_skew: timedelta = timedelta(seconds=5)

    def __post_init__(self) -> None:
        """Keep the grace below the window: ``Account.recent`` needs one entry an operation then."""
        if not timedelta(0) <= self.timestamp_skew < DUPLICATE_WINDOW:
            raise ValueError(f"timestamp skew must be 0 s or more and below {DUPLICATE_WINDOW}")

    def __str__(self) -> str:
        """Write the rules in one line, as they are recorded beside each decision."""
        return f"{self.market} {self.timestamp_skew.total_seconds():f}"


def parse_rules(text: str) -> Rules:
    """Read what ``str(rules)`` wrote.

    Raises:
        ValueError: ``text`` has another shape.
    """
    market, _, skew_seconds = text.rpartition(" ")
    return Rules(parse_market(market), timedelta(seconds=float(skew_seconds)))


@dataclass(frozen=True, slots=True)
class Decision:
    """What became of one order, and what the account held right after it."""

    status: OrderStatus
    business_errors: tuple[BusinessError, ...]
    cash: Decimal
    positions: Mapping[str, Position]


def decide(account: Account, order: Order, rules: Rules) -> tuple[Account, Decision]:
    """Decide ``order`` against ``account``.

    Returns the account after the order (unchanged when it is rejected) and the decision. The same
    arguments always give the same answer; no argument is changed.
    """
    errors = violated_rules(account, order, rules)
    if errors:
        return account, _decision(OrderStatus.REJECTED, account, errors)
    after = execute(account, order)
    after = replace(after, recent=_prune(after, rules))
    return after, _decision(OrderStatus.EXECUTED, after)


def park(account: Account) -> Decision:
    """The decision for an order that could not be decided: failed, nothing changed."""
    return _decision(OrderStatus.FAILED, account)


def violated_rules(account: Account, order: Order, rules: Rules) -> tuple[BusinessError, ...]:
    """All the rules that ``order`` breaks, in the order of ``BusinessError``."""
    if not is_within_bounds(order):
        # Amounts beyond the bounds cannot be reckoned with, so no other rule can be asked.
        return (BusinessError.INVALID_OPERATION,)
    found = {
        BusinessError.INSUFFICIENT_BALANCE: _lacks_cash(account, order),
        BusinessError.INSUFFICIENT_STOCKS: _lacks_shares(account, order),
        BusinessError.DUPLICATED_OPERATION: _is_duplicate(account, order, rules),
        BusinessError.CLOSED_MARKET: _is_closed(order, rules.market),
        BusinessError.INVALID_OPERATION: _is_out_of_time(account, order, rules)
        or _overflows(account, order),
    }
    return tuple(code for code, applies in found.items() if applies)


def duplicate_horizon(account: Account, rules: Rules) -> datetime | None:
    """Executed orders at or before this instant can block no valid order any more."""
    if account.last_executed_at is None:
        return None
    return account.last_executed_at - rules.timestamp_skew - DUPLICATE_WINDOW


def _lacks_cash(account: Account, order: Order) -> bool:
    if order.operation is not Operation.BUY:
        return False
    return account.cash < money.cost(order.total_shares, order.share_price)


def _lacks_shares(account: Account, order: Order) -> bool:
    if order.operation is not Operation.SELL:
        return False
    return account.shares_of(order.issuer_name) < order.total_shares


def _is_duplicate(account: Account, order: Order, rules: Rules) -> bool:
    executed_at = account.recent.get(order.key)
    if executed_at is None:
        return False
    horizon = duplicate_horizon(account, rules)
    if horizon is not None and executed_at <= horizon:
        return False
    return abs(order.timestamp - executed_at) < DUPLICATE_WINDOW


def _is_closed(order: Order, market: Market) -> bool:
    return not (market.is_open(order.timestamp) and market.is_open(order.received_at))


def _is_out_of_time(account: Account, order: Order, rules: Rules) -> bool:
    # Differences, not sums: a timestamp at the edge of the calendar must not overflow.
    skew = rules.timestamp_skew
    if order.timestamp - order.received_at > skew:
        return True
    if account.opened_at - order.timestamp > skew:
        return True
    last = account.last_executed_at
    return last is not None and last - order.timestamp > skew


def _overflows(account: Account, order: Order) -> bool:
    """Tell whether executing ``order`` would carry the account over its own bounds."""
    if order.operation is Operation.SELL:
        proceeds = money.cost(order.total_shares, order.share_price)
        return money.add(account.cash, proceeds) > money.CASH_MAX
    held = account.shares_of(order.issuer_name)
    if not held and len(account.positions) >= POSITIONS_MAX:
        return True
    return held + order.total_shares > money.TOTAL_SHARES_MAX


def _prune(account: Account, rules: Rules) -> Mapping[OperationKey, datetime]:
    horizon = duplicate_horizon(account, rules)
    if horizon is None:
        return account.recent
    return {key: at for key, at in account.recent.items() if at > horizon}


def _decision(
    status: OrderStatus, account: Account, errors: tuple[BusinessError, ...] = ()
) -> Decision:
    return Decision(status, errors, account.cash, account.positions)
