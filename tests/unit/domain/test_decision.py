"""Each rule at its boundary, and what an order changes."""

import inspect
from dataclasses import replace
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest

from shared.domain import money
from shared.domain.account import POSITIONS_MAX, Account, Position, execute
from shared.domain.decision import DUPLICATE_WINDOW, Rules, decide, park
from shared.domain.market import ALWAYS_OPEN, Market
from shared.domain.order import BusinessError, Order, OrderStatus
from tests.unit.factories import (
    MICROSECOND,
    NOON,
    OPENED,
    RULES,
    make_account,
    make_order,
    make_rules,
    operation_key,
    seconds,
)

MEXICO_CITY = ZoneInfo("America/Mexico_City")
OPEN_ALL_DAY = make_rules(ALWAYS_OPEN)

BALANCE = BusinessError.INSUFFICIENT_BALANCE
STOCKS = BusinessError.INSUFFICIENT_STOCKS
DUPLICATED = BusinessError.DUPLICATED_OPERATION
CLOSED = BusinessError.CLOSED_MARKET
INVALID = BusinessError.INVALID_OPERATION


def codes(account: Account, order: Order, rules: Rules = RULES) -> tuple[BusinessError, ...]:
    return decide(account, order, rules)[1].business_errors


def local(hour: int, minute: int = 0, second: int = 0, microsecond: int = 0) -> datetime:
    return datetime(2026, 3, 2, hour, minute, second, microsecond, tzinfo=MEXICO_CITY)


# Cash and shares


def test_a_buy_may_spend_the_last_cent() -> None:
    account, decision = decide(make_account("250.50"), make_order("BUY", "AAPL", 5, "50.10"), RULES)
    assert decision.status is OrderStatus.EXECUTED
    assert account.cash == decision.cash == 0
    assert account.positions == decision.positions == {"AAPL": Position(5, Decimal("50.10"))}


def test_a_buy_one_cent_above_the_cash_is_refused() -> None:
    assert codes(make_account("250.49"), make_order("BUY", "AAPL", 5, "50.10")) == (BALANCE,)


def test_a_buy_is_refused_for_the_smallest_part_of_a_cent() -> None:
    order = make_order("BUY", "AAPL", 1, "0.00000002")
    assert codes(make_account("0.00000001"), order) == (BALANCE,)
    assert codes(make_account("0.00000002"), order) == ()


def test_a_sell_needs_no_cash() -> None:
    account = make_account("0", {"AAPL": (1, "10")})
    assert codes(account, make_order("SELL", "AAPL", 1, "999")) == ()


def test_a_sell_may_take_the_last_share() -> None:
    account, decision = decide(
        make_account("1", {"AAPL": (3, "10")}), make_order("SELL", "AAPL", 3, "11"), RULES
    )
    assert decision.status is OrderStatus.EXECUTED
    assert account.cash == decision.cash == 34


def test_a_sell_of_one_share_more_than_held_is_refused() -> None:
    account = make_account(positions={"AAPL": (3, "10"), "MSFT": (100, "10")})
    assert codes(account, make_order("SELL", "AAPL", 4, "11")) == (STOCKS,)


def test_a_sell_of_an_issuer_never_held_is_refused() -> None:
    assert codes(make_account(), make_order("SELL", "AAPL", 1)) == (STOCKS,)


def test_a_buy_needs_no_shares() -> None:
    assert codes(make_account("10"), make_order("BUY", "AAPL", 1, "10")) == ()


# Positions


def test_a_position_shows_the_price_last_traded() -> None:
    account = make_account("1000", {"AAPL": (2, "10")})
    account, _ = decide(account, make_order("BUY", "AAPL", 3, "12.5"), RULES)
    assert account.positions == {"AAPL": Position(5, Decimal("12.5"))}
    account, _ = decide(account, make_order("SELL", "AAPL", 1, "7"), RULES)
    assert account.positions == {"AAPL": Position(4, Decimal(7))}


def test_a_position_that_is_sold_out_disappears() -> None:
    account = make_account(positions={"AAPL": (2, "10"), "MSFT": (1, "5")})
    account, decision = decide(account, make_order("SELL", "AAPL", 2), RULES)
    assert account.positions == decision.positions == {"MSFT": Position(1, Decimal(5))}


def test_a_rejected_order_changes_nothing() -> None:
    before = make_account("5", {"AAPL": (2, "10")})
    after, decision = decide(before, make_order("BUY", "AAPL", 1, "6"), RULES)
    assert after is before
    assert decision.status is OrderStatus.REJECTED
    assert decision.cash == 5
    assert decision.positions == before.positions


def test_a_parked_order_changes_nothing_and_shows_the_balance() -> None:
    account = make_account("5", {"AAPL": (2, "10")})
    decision = park(account)
    assert decision.status is OrderStatus.FAILED
    assert decision.business_errors == ()
    assert (decision.cash, decision.positions) == (account.cash, account.positions)


def test_execution_that_would_make_an_account_negative_is_a_programming_error() -> None:
    with pytest.raises(ValueError, match="negative"):
        execute(make_account("9.99"), make_order("BUY", "AAPL", 1, "10"))
    with pytest.raises(ValueError, match="negative"):
        execute(make_account(), make_order("SELL", "AAPL", 1))


# Duplicates


@pytest.mark.parametrize(
    ("apart", "is_duplicate"),
    [
        (timedelta(0), True),
        (seconds(1), True),
        (DUPLICATE_WINDOW - MICROSECOND, True),
        (DUPLICATE_WINDOW, False),
        (DUPLICATE_WINDOW + MICROSECOND, False),
    ],
)
def test_an_operation_is_a_duplicate_less_than_five_minutes_after_itself(
    apart: timedelta, is_duplicate: bool
) -> None:
    account, _ = decide(make_account(), make_order(), RULES)
    assert codes(account, make_order(at=NOON + apart)) == ((DUPLICATED,) if is_duplicate else ())


@pytest.mark.parametrize(
    ("apart", "is_duplicate"),
    [
        (seconds(5), True),
        (DUPLICATE_WINDOW - MICROSECOND, True),
        (DUPLICATE_WINDOW, False),
    ],
)
def test_an_operation_is_a_duplicate_less_than_five_minutes_before_itself(
    apart: timedelta, is_duplicate: bool
) -> None:
    # The account's last execution bars earlier timestamps, so the rule is asked on its own.
    rules = make_rules(skew_seconds=299.999999)
    account, _ = decide(make_account(), make_order(), rules)
    found = codes(account, make_order(at=NOON - apart, received_at=NOON), rules)
    assert (DUPLICATED in found) == is_duplicate


def test_the_window_is_measured_between_timestamps_and_not_between_arrivals() -> None:
    account, _ = decide(make_account(), make_order(received_at=NOON + seconds(290)), RULES)
    later = NOON + DUPLICATE_WINDOW
    assert codes(account, make_order(at=later, received_at=later)) == ()
    early = later - seconds(1)
    assert codes(account, make_order(at=early, received_at=NOON + seconds(7200))) == (DUPLICATED,)


@pytest.mark.parametrize(
    "other",
    [
        make_order("SELL", "AAPL", 1, "10"),
        make_order("BUY", "MSFT", 1, "10"),
        make_order("BUY", "aapl", 1, "10"),
        make_order("BUY", "AAPL", 2, "10"),
    ],
    ids=["other side", "other issuer", "other case", "other number of shares"],
)
def test_another_operation_is_no_duplicate(other: Order) -> None:
    account, _ = decide(make_account(), make_order("BUY", "AAPL", 1, "10"), RULES)
    assert codes(account, other) == ()


def test_another_price_does_not_make_another_operation() -> None:
    account, _ = decide(make_account(), make_order("BUY", "AAPL", 1, "10"), RULES)
    assert codes(account, make_order("BUY", "AAPL", 1, "11.25")) == (DUPLICATED,)


def test_a_rejected_order_blocks_nothing() -> None:
    account, decision = decide(make_account("9"), make_order(share_price="10"), RULES)
    assert decision.status is OrderStatus.REJECTED
    assert codes(account, make_order(share_price="9")) == ()


def test_a_duplicate_does_not_prolong_the_window() -> None:
    account, _ = decide(make_account(), make_order(), RULES)
    account, decision = decide(account, make_order(at=NOON + seconds(299)), RULES)
    assert decision.business_errors == (DUPLICATED,)
    assert codes(account, make_order(at=NOON + DUPLICATE_WINDOW)) == ()


def test_the_window_starts_anew_with_each_execution() -> None:
    account, _ = decide(make_account(), make_order(), RULES)
    account, _ = decide(account, make_order(at=NOON + DUPLICATE_WINDOW), RULES)
    assert codes(account, make_order(at=NOON + seconds(599))) == (DUPLICATED,)
    assert codes(account, make_order(at=NOON + seconds(600))) == ()


def test_an_operation_blocks_until_no_valid_order_can_meet_it() -> None:
    account, _ = decide(make_account(), make_order("BUY", "AAPL", 1), RULES)
    account, _ = decide(account, make_order("BUY", "MSFT", 1, at=NOON + seconds(304)), RULES)
    late = make_order("BUY", "AAPL", 1, at=NOON + seconds(299), received_at=NOON + seconds(305))
    assert codes(account, late) == (DUPLICATED,)


def test_executed_operations_are_forgotten_once_they_cannot_matter() -> None:
    account, _ = decide(make_account(), make_order("BUY", "AAPL", 1), RULES)
    last = NOON + DUPLICATE_WINDOW + RULES.timestamp_skew
    kept, _ = decide(account, make_order("BUY", "MSFT", 1, at=last - MICROSECOND), RULES)
    assert operation_key("BUY", "AAPL", 1) in kept.recent
    pruned, _ = decide(account, make_order("BUY", "MSFT", 1, at=last), RULES)
    assert dict(pruned.recent) == {operation_key("BUY", "MSFT", 1): last}


def test_an_operation_that_was_not_yet_forgotten_but_cannot_matter_blocks_nothing() -> None:
    # It is read back from an item of its own, which nobody prunes.
    executed = make_account(
        last_executed_at=NOON,
        recent={operation_key(): NOON - DUPLICATE_WINDOW - RULES.timestamp_skew},
    )
    order = make_order(at=NOON - seconds(6), received_at=NOON)
    assert codes(executed, order) == (INVALID,)


# Market hours


@pytest.mark.parametrize(
    ("instant", "is_open"),
    [
        (local(5, 59, 59, 999_999), False),
        (local(6), True),
        (local(14, 59, 59), True),
        (local(14, 59, 59, 999_999), True),
        (local(15), False),
        (local(0), False),
        (local(23, 59, 59, 999_999), False),
    ],
)
def test_the_market_is_open_from_six_until_before_fifteen(instant: datetime, is_open: bool) -> None:
    assert codes(make_account(), make_order(at=instant)) == (() if is_open else (CLOSED,))


def test_an_order_made_in_time_but_received_after_the_close_is_refused() -> None:
    order = make_order(at=local(14, 59, 59, 999_999), received_at=local(15))
    assert codes(make_account(), order) == (CLOSED,)


def test_an_order_received_in_time_but_dated_after_the_close_is_refused() -> None:
    order = make_order(at=local(15), received_at=local(14, 59, 59))
    assert codes(make_account(), order) == (CLOSED,)


def test_an_order_received_in_time_but_dated_before_the_opening_is_refused() -> None:
    order = make_order(at=local(5, 59, 59, 999_999), received_at=local(6))
    assert codes(make_account(), order) == (CLOSED,)


def test_an_order_dated_in_time_but_received_before_the_opening_is_refused() -> None:
    order = make_order(at=local(6), received_at=local(5, 59, 59, 999_999))
    assert codes(make_account(), order) == (CLOSED,)


@pytest.mark.parametrize(
    ("day", "is_open"),
    [(2, True), (6, True), (7, False), (8, False), (9, True)],
    ids=["Monday", "Friday", "Saturday", "Sunday", "next Monday"],
)
def test_trading_days_are_those_of_the_market(day: int, is_open: bool) -> None:
    rules = make_rules(Market(days=frozenset(range(5))))
    order = make_order(at=datetime(2026, 3, day, 12, tzinfo=MEXICO_CITY))
    assert codes(make_account(), order, rules) == (() if is_open else (CLOSED,))


def test_the_trading_day_is_that_of_the_markets_own_zone() -> None:
    tokyo = make_rules(
        Market(time(6), time(15), ZoneInfo("Asia/Tokyo"), days=frozenset({1})), skew_seconds=5
    )
    # Monday 22:00 in UTC is Tuesday 07:00 in Tokyo.
    order = make_order(at=datetime(2026, 3, 2, 22, tzinfo=ZoneInfo("UTC")))
    assert codes(make_account(), order, tokyo) == ()


# Timestamps


@pytest.mark.parametrize(
    ("ahead", "found"),
    [
        (timedelta(0), ()),
        (seconds(5), ()),
        (seconds(5) + MICROSECOND, (INVALID,)),
        (timedelta(days=3650), (INVALID,)),
    ],
)
def test_a_timestamp_may_be_ahead_of_the_arrival_by_the_skew(
    ahead: timedelta, found: tuple[BusinessError, ...]
) -> None:
    order = make_order(at=NOON + ahead, received_at=NOON)
    assert codes(make_account(), order, OPEN_ALL_DAY) == found


@pytest.mark.parametrize(
    ("early", "found"),
    [(timedelta(0), ()), (seconds(5), ()), (seconds(5) + MICROSECOND, (INVALID,))],
)
def test_a_timestamp_may_be_before_the_opening_of_the_account_by_the_skew(
    early: timedelta, found: tuple[BusinessError, ...]
) -> None:
    order = make_order(at=NOON - early, received_at=NOON)
    assert codes(make_account(opened_at=NOON), order, OPEN_ALL_DAY) == found


@pytest.mark.parametrize(
    ("early", "found"),
    [(timedelta(0), ()), (seconds(5), ()), (seconds(5) + MICROSECOND, (INVALID,))],
)
def test_a_timestamp_may_be_before_the_last_execution_by_the_skew(
    early: timedelta, found: tuple[BusinessError, ...]
) -> None:
    account, _ = decide(make_account(), make_order("BUY", "AAPL", 1), OPEN_ALL_DAY)
    order = make_order("BUY", "MSFT", 1, at=NOON - early, received_at=NOON)
    assert codes(account, order, OPEN_ALL_DAY) == found


def test_an_order_within_the_grace_does_not_turn_the_last_execution_back() -> None:
    account, _ = decide(make_account(), make_order("BUY", "AAPL", 1), RULES)
    account, _ = decide(account, make_order("BUY", "MSFT", 1, at=NOON - seconds(5)), RULES)
    assert account.last_executed_at == NOON
    order = make_order("BUY", "TSLA", 1, at=NOON - seconds(5) - MICROSECOND)
    assert codes(account, order) == (INVALID,)


def test_a_rejected_order_does_not_move_the_last_execution() -> None:
    account, _ = decide(make_account("9"), make_order(share_price="10"), RULES)
    assert codes(account, make_order(share_price="9", at=NOON - seconds(60))) == ()


def test_an_old_timestamp_is_no_fault_in_itself() -> None:
    order = make_order(at=OPENED, received_at=NOON)
    assert codes(make_account(opened_at=OPENED), order, OPEN_ALL_DAY) == ()


def test_no_grace_means_none() -> None:
    strict = make_rules(ALWAYS_OPEN, skew_seconds=0)
    assert codes(make_account(), make_order(at=NOON), strict) == ()
    ahead = make_order(at=NOON + MICROSECOND, received_at=NOON)
    assert codes(make_account(), ahead, strict) == (INVALID,)


@pytest.mark.parametrize("skew_seconds", [-0.000001, 300])
def test_a_grace_that_the_window_cannot_hold_is_refused(skew_seconds: float) -> None:
    with pytest.raises(ValueError, match="skew"):
        make_rules(skew_seconds=skew_seconds)


@pytest.mark.parametrize(
    "instant",
    [datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)],
    ids=["first", "last"],
)
@pytest.mark.parametrize("zone", ["America/Mexico_City", "Asia/Tokyo"])
def test_the_ends_of_the_calendar_are_out_of_time_like_any_other(
    instant: datetime, zone: str
) -> None:
    rules = make_rules(Market(zone=ZoneInfo(zone)))
    order = make_order(at=instant, received_at=NOON)
    assert INVALID in codes(make_account(), order, rules)


def test_a_delay_in_the_queue_is_invisible() -> None:
    # Nothing that tells the time is handed in: the answer can only rest on what was recorded.
    assert list(inspect.signature(decide).parameters) == ["account", "order", "rules"]
    order = make_order(at=local(14, 59, 59, 999_999))
    assert codes(make_account(), order) == ()


# Bounds


@pytest.mark.parametrize(
    "order",
    [
        make_order(total_shares=0),
        make_order(total_shares=-1),
        make_order(total_shares=money.TOTAL_SHARES_MAX + 1),
        make_order(share_price="0"),
        make_order(share_price="-0.01"),
        make_order(share_price=money.SHARE_PRICE_MAX + Decimal("0.00000001")),
        make_order(share_price="0.000000001"),
        make_order(share_price="Infinity"),
        make_order(share_price="NaN"),
        make_order(share_price="sNaN"),
        make_order(issuer_name=""),
    ],
    ids=lambda order: f"{order.total_shares} of {order.issuer_name!r} at {order.share_price}",
)
@pytest.mark.parametrize("operation", ["BUY", "SELL"])
def test_amounts_out_of_bounds_are_invalid_and_nothing_else_is_asked(
    order: Order, operation: str
) -> None:
    closed = replace(
        order, operation=make_order(operation).operation, timestamp=local(3), received_at=local(3)
    )
    assert codes(make_account("0"), closed) == (INVALID,)


def test_the_largest_amounts_are_valid() -> None:
    order = make_order("BUY", "AAPL", money.TOTAL_SHARES_MAX, money.SHARE_PRICE_MAX)
    account, decision = decide(make_account(money.CASH_MAX), order, RULES)
    assert decision.status is OrderStatus.EXECUTED
    assert account.cash == 0
    assert account.shares_of("AAPL") == money.TOTAL_SHARES_MAX


def test_the_smallest_amounts_are_valid() -> None:
    account, decision = decide(make_account("1"), make_order("BUY", "A", 1, "0.00000001"), RULES)
    assert decision.status is OrderStatus.EXECUTED
    assert account.cash == Decimal("0.99999999")


def test_a_sell_may_fill_the_account_to_its_bound_and_no_further() -> None:
    room = Decimal("10.5")
    account = make_account(money.CASH_MAX - room, {"AAPL": (1, "1")})
    after, decision = decide(account, make_order("SELL", "AAPL", 1, room), RULES)
    assert decision.status is OrderStatus.EXECUTED
    assert after.cash == money.CASH_MAX
    above = make_order("SELL", "AAPL", 1, room + Decimal("0.00000001"))
    assert codes(account, above) == (INVALID,)


def test_an_account_may_hold_so_many_issuers_and_no_more() -> None:
    held = {f"ISSUER {number}": (1, "1") for number in range(POSITIONS_MAX - 1)}
    account, decision = decide(make_account(positions=held), make_order("BUY", "LAST"), RULES)
    assert decision.status is OrderStatus.EXECUTED
    assert len(account.positions) == POSITIONS_MAX
    assert codes(account, make_order("BUY", "ONE MORE")) == (INVALID,)
    assert codes(account, make_order("BUY", "ISSUER 0", 2)) == ()
    assert codes(account, make_order("SELL", "ISSUER 0")) == ()


def test_an_account_may_hold_so_many_shares_of_an_issuer_and_no_more() -> None:
    held = money.TOTAL_SHARES_MAX - 2
    account = make_account(positions={"AAPL": (held, "1")})
    assert codes(account, make_order("BUY", "AAPL", 2)) == ()
    assert codes(account, make_order("BUY", "AAPL", 3)) == (INVALID,)
    assert codes(account, make_order("BUY", "MSFT", 3)) == ()


# All that apply


def test_all_the_codes_that_apply_to_a_buy_are_listed_together() -> None:
    at = local(15)
    account = make_account(
        "9.99", last_executed_at=at + seconds(6), recent={operation_key(): at - seconds(1)}
    )
    order = make_order("BUY", "AAPL", 1, "10", at=at)
    assert codes(account, order) == (BALANCE, DUPLICATED, CLOSED, INVALID)


def test_all_the_codes_that_apply_to_a_sell_are_listed_together() -> None:
    at = local(15)
    account = make_account(opened_at=at, recent={operation_key("SELL"): at})
    order = make_order("SELL", "AAPL", 1, at=at + seconds(6), received_at=at)
    assert codes(account, order) == (STOCKS, DUPLICATED, CLOSED, INVALID)


def test_the_rules_are_those_handed_in() -> None:
    order = make_order(at=local(3))
    assert codes(make_account(), order, RULES) == (CLOSED,)
    assert codes(make_account(), order, OPEN_ALL_DAY) == ()
