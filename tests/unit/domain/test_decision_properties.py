"""What holds for every sequence of orders, and an independent oracle that keeps all history."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction
from zoneinfo import ZoneInfo

from hypothesis import event, given, settings
from hypothesis import strategies as st

from shared.domain.account import Account, Position, execute
from shared.domain.decision import (
    DUPLICATE_WINDOW,
    Decision,
    Rules,
    decide,
    duplicate_horizon,
    park,
    parse_rules,
)
from shared.domain.market import ALWAYS_OPEN, Market, parse_market
from shared.domain.order import TRANSITIONS, BusinessError, Operation, Order, OrderStatus
from tests.unit.factories import OPENED, STEADY, make_account, make_order, seconds

START = datetime(2026, 3, 2, 20, 50, tzinfo=UTC)
"""Ten minutes before the market closes in Mexico City, so that some sequences cross the close."""

HOUSE_MARKET = Market()
MICROSECONDS = timedelta(microseconds=1)


# Orders that come near each boundary: few operations, so that they repeat; steps and lags around
# the window and the grace.
gaps = st.sampled_from([0.0, 0.000001, 1.0, 4.9, 60.0, 150.0, 295.0, 299.999999, 300.0, 305.0])
lags = st.sampled_from(
    [0.0, 0.000001, 1.0, 5.0, -1.0, -5.0, -5.000001, 5.000001, 100.0, 299.999999, 300.0]
)
prices = st.decimals(min_value="0.00000001", max_value=40, places=8) | st.sampled_from(
    [Decimal("0.01"), Decimal(1), Decimal("33.33")]
)
sides = st.sampled_from(list(Operation))
issuers = st.sampled_from(["AAPL", "MSFT"])
some_shares = st.integers(1, 3)
skews = st.sampled_from([0.0, 0.000001, 5.0, 299.999999])
markets = st.sampled_from([ALWAYS_OPEN, HOUSE_MARKET])
rules_settings = st.builds(Rules, markets, skews.map(seconds))
accounts = st.builds(
    make_account,
    st.sampled_from([Decimal(1000), Decimal("66.66")]) | st.decimals(0, 200, places=8),
    st.dictionaries(issuers, st.tuples(st.integers(1, 6), st.just("1"))),
    opened_at=st.sampled_from([OPENED, START - seconds(30)]),
)


@st.composite
def order_sequences(draw: st.DrawFn) -> list[Order]:
    """Orders as one account sends them: received one after the other, dated sooner or later."""
    received_at = START
    orders: list[Order] = []
    steps = draw(
        st.lists(
            st.tuples(gaps, lags, sides, issuers, some_shares, prices), min_size=3, max_size=30
        )
    )
    for number, (gap, lag, operation, issuer_name, total_shares, share_price) in enumerate(steps):
        received_at += seconds(gap)
        orders.append(
            make_order(
                operation,
                issuer_name,
                total_shares,
                share_price,
                at=received_at - seconds(lag),
                received_at=received_at,
                number=number,
            )
        )
    return orders


def run(account: Account, orders: Sequence[Order], rules: Rules) -> list[tuple[Account, Decision]]:
    """The account and the decision after each order."""
    steps: list[tuple[Account, Decision]] = []
    for order in orders:
        account, decision = decide(account, order, rules)
        steps.append((account, decision))
    return steps


def executed_of(orders: Sequence[Order], steps: Sequence[tuple[Account, Decision]]) -> list[Order]:
    return [
        order
        for order, (_, decision) in zip(orders, steps, strict=True)
        if decision.status is OrderStatus.EXECUTED
    ]


@dataclass
class Oracle:
    """The rules as the challenge tells them, with every executed order kept for good.

    Reckons in fractions and microseconds and knows the house's hours as a fixed UTC-6, so that it
    shares neither code nor method with what it judges.
    """

    opened: Account
    rules: Rules
    executed: list[Order]

    def decide(self, order: Order) -> set[BusinessError]:
        found = {
            BusinessError.INSUFFICIENT_BALANCE: order.operation == "BUY"
            and self.cash() < self.amount(order),
            BusinessError.INSUFFICIENT_STOCKS: order.operation == "SELL"
            and self.held(order.issuer_name) < order.total_shares,
            BusinessError.DUPLICATED_OPERATION: any(
                abs(self.micros(past.timestamp, order.timestamp)) < 300_000_000
                for past in self.executed
                if (past.operation, past.issuer_name, past.total_shares)
                == (order.operation, order.issuer_name, order.total_shares)
            ),
            BusinessError.CLOSED_MARKET: self.rules.market is not ALWAYS_OPEN
            and not (self.in_hours(order.timestamp) and self.in_hours(order.received_at)),
            BusinessError.INVALID_OPERATION: self.is_ahead(order.timestamp, order.received_at)
            or self.is_ahead(self.opened.opened_at, order.timestamp)
            or self.is_before_last_execution(order),
        }
        codes = {code for code, applies in found.items() if applies}
        if not codes:
            self.executed.append(order)
        return codes

    def is_before_last_execution(self, order: Order) -> bool:
        return any(self.is_ahead(past.timestamp, order.timestamp) for past in self.executed)

    def cash(self) -> Fraction:
        flow = sum(
            (self.amount(past) * (1 if past.operation == "SELL" else -1) for past in self.executed),
            Fraction(0),
        )
        return Fraction(self.opened.cash) + flow

    def held(self, issuer_name: str) -> int:
        return self.opened.shares_of(issuer_name) + sum(
            past.total_shares * (1 if past.operation == "BUY" else -1)
            for past in self.executed
            if past.issuer_name == issuer_name
        )

    def is_ahead(self, instant: datetime, of: datetime) -> bool:
        return self.micros(instant, of) > self.rules.timestamp_skew // MICROSECONDS

    @staticmethod
    def amount(order: Order) -> Fraction:
        return Fraction(order.share_price) * order.total_shares

    @staticmethod
    def micros(later: datetime, earlier: datetime) -> int:
        return (later - earlier) // MICROSECONDS

    @staticmethod
    def in_hours(instant: datetime) -> bool:
        return 6 <= (instant - timedelta(hours=6)).hour < 15


@STEADY
@given(accounts, order_sequences(), rules_settings)
def test_cash_and_shares_are_never_negative(
    opened: Account, orders: list[Order], rules: Rules
) -> None:
    for account, decision in run(opened, orders, rules):
        assert account.cash >= 0
        assert all(held.total_shares > 0 for held in account.positions.values())
        assert (decision.cash, decision.positions) == (account.cash, account.positions)


@STEADY
@given(accounts, order_sequences(), rules_settings)
def test_a_rejected_order_leaves_the_very_same_account(
    opened: Account, orders: list[Order], rules: Rules
) -> None:
    before = opened
    for after, decision in run(opened, orders, rules):
        event(f"{decision.status}")
        assert (after is before) == (decision.status is OrderStatus.REJECTED)
        assert bool(decision.business_errors) == (decision.status is OrderStatus.REJECTED)
        before = after


@STEADY
@given(accounts, order_sequences(), rules_settings)
def test_replaying_the_executed_orders_gives_the_same_account(
    opened: Account, orders: list[Order], rules: Rules
) -> None:
    steps = run(opened, orders, rules)
    last, _ = steps[-1]
    executed = executed_of(orders, steps)

    again = run(opened, executed, rules)
    assert all(decision.status is OrderStatus.EXECUTED for _, decision in again)
    assert (again[-1][0] if again else opened) == last

    account = opened
    for order in executed:
        account = execute(account, order)
    assert replace(account, recent={}) == replace(last, recent={})


@STEADY
@given(accounts, order_sequences(), rules_settings)
def test_the_same_arguments_give_the_same_answer_and_are_not_changed(
    opened: Account, orders: list[Order], rules: Rules
) -> None:
    for order in orders:
        before = copy.deepcopy(opened)
        first = decide(opened, order, rules)
        assert opened == before
        assert decide(copy.deepcopy(opened), copy.deepcopy(order), rules) == first
        opened = first[0]


@STEADY
@given(accounts, order_sequences(), rules_settings)
def test_money_is_conserved(opened: Account, orders: list[Order], rules: Rules) -> None:
    steps = run(opened, orders, rules)
    executed = executed_of(orders, steps)
    spent = sum((Oracle.amount(one) for one in executed if one.operation == "BUY"), Fraction(0))
    earned = sum((Oracle.amount(one) for one in executed if one.operation == "SELL"), Fraction(0))
    assert Fraction(steps[-1][0].cash) + spent - earned == Fraction(opened.cash)


@settings(STEADY, max_examples=400)
@given(accounts, order_sequences(), rules_settings)
def test_a_naive_oracle_agrees(opened: Account, orders: list[Order], rules: Rules) -> None:
    oracle = Oracle(opened, rules, [])
    for order, (account, decision) in zip(orders, run(opened, orders, rules), strict=True):
        is_too_old = oracle.is_before_last_execution(order)
        codes = oracle.decide(order)
        assert decision.status is (OrderStatus.REJECTED if codes else OrderStatus.EXECUTED)
        # An order older than the last executed one is rejected for that. Whether it also repeats
        # an operation that has been forgotten since is not promised.
        ignored = {BusinessError.DUPLICATED_OPERATION} if is_too_old else set()
        assert set(decision.business_errors) - ignored == codes - ignored
        assert list(decision.business_errors) == sorted(
            decision.business_errors, key=list(BusinessError).index
        )
        assert Fraction(account.cash) == oracle.cash()
        assert {name: held.total_shares for name, held in account.positions.items()} == {
            name: oracle.held(name) for name in ("AAPL", "MSFT") if oracle.held(name)
        }
        event(", ".join(sorted(codes)) or "none")


@STEADY
@given(accounts, order_sequences(), rules_settings)
def test_the_remembered_operations_are_those_that_can_still_matter(
    opened: Account, orders: list[Order], rules: Rules
) -> None:
    executed: list[Order] = []
    for order, (account, decision) in zip(orders, run(opened, orders, rules), strict=True):
        if decision.status is OrderStatus.EXECUTED:
            executed.append(order)
        horizon = duplicate_horizon(account, rules)
        if horizon is None:
            assert not account.recent
            continue
        assert horizon == max(past.timestamp for past in executed) - (
            rules.timestamp_skew + DUPLICATE_WINDOW
        )
        matter = {past.key: past.timestamp for past in executed if past.timestamp > horizon}
        assert dict(account.recent) == matter


whole_calendar = st.datetimes(timezones=st.just(UTC))
any_order = st.builds(
    Order,
    id=st.just("id"),
    account_id=st.just(1),
    operation=sides,
    issuer_name=st.text(max_size=70) | issuers,
    total_shares=st.integers() | some_shares,
    share_price=st.decimals() | prices,
    timestamp=whole_calendar,
    received_at=whole_calendar,
)
any_account = st.builds(
    make_account,
    st.decimals(min_value=0, max_value=10**24, places=8),
    st.dictionaries(issuers, st.tuples(some_shares, st.just("1"))),
    opened_at=whole_calendar,
    last_executed_at=st.none() | st.just(START),
)


@STEADY
@given(
    any_account, any_order, st.builds(Rules, markets | st.just(Market(zone=ZoneInfo("Asia/Tokyo"))))
)
def test_every_order_gets_a_decision(account: Account, order: Order, rules: Rules) -> None:
    after, decision = decide(account, order, rules)
    assert decision.status in TRANSITIONS[OrderStatus.PENDING]
    assert after.cash >= 0
    assert park(account).status in TRANSITIONS[OrderStatus.PENDING]


@STEADY
@given(st.lists(st.tuples(issuers, some_shares, prices), min_size=1, max_size=12))
def test_buying_and_selling_again_at_the_same_price_restores_the_account(
    trades: list[tuple[str, int, Decimal]],
) -> None:
    rules = Rules(ALWAYS_OPEN)
    opened = account = make_account("1000000")
    at = START
    for issuer_name, total_shares, share_price in trades:
        at += DUPLICATE_WINDOW
        account, bought = decide(
            account, make_order("BUY", issuer_name, total_shares, share_price, at=at), rules
        )
        assert account.positions[issuer_name] == Position(total_shares, share_price)
        account, sold = decide(
            account, make_order("SELL", issuer_name, total_shares, share_price, at=at), rules
        )
        assert {bought.status, sold.status} == {OrderStatus.EXECUTED}
        assert (account.cash, account.positions) == (opened.cash, opened.positions)


zones = st.sampled_from(["America/Mexico_City", "UTC", "Asia/Kolkata", "Europe/Madrid"]).map(
    ZoneInfo
)
weekdays = st.sets(st.integers(0, 6), min_size=1).map(frozenset)


@st.composite
def any_market(draw: st.DrawFn) -> Market:
    first, last = sorted([draw(st.times()), draw(st.times())])
    closes_at = time(0) if first == last or draw(st.booleans()) else last
    return Market(first, closes_at, draw(zones), draw(weekdays))


@STEADY
@given(any_market(), st.timedeltas(timedelta(0), DUPLICATE_WINDOW - MICROSECONDS))
def test_rules_are_read_back_as_they_were_written(market: Market, skew: timedelta) -> None:
    rules = Rules(market, skew)
    assert parse_rules(str(rules)) == rules
    assert parse_market(str(market)) == market
