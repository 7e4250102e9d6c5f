import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.domain.account import Position
from shared.domain.order import BusinessError, OrderStatus
from shared.order_store.commits import BALANCE_POSITIONS_MAX
from shared.order_store.records import Balance, RecordedOrder, UnreadableOrder
from shared.representation import (
    iso_utc,
    recorded_from,
    show_accepted,
    show_account,
    show_order,
    show_unreadable,
    to_json,
    unix_seconds,
)
from tests.unit.factories import (
    MICROSECOND,
    NOON,
    STEADY,
    make_account,
    make_order,
    make_recorded_account,
    make_settlement,
    seconds,
)

NOON_SECONDS = 1772474400


def test_an_account_shows_its_cash_and_its_issuers_by_name() -> None:
    account = make_account("1000.50", {"MSFT": (2, "10.10"), "AAPL": (1, "1E+3")}, account_id=7)
    assert show_account(account) == {
        "id": 7,
        "cash": "1000.5",
        "issuers": [
            {"issuer_name": "AAPL", "total_shares": 1, "share_price": "1000"},
            {"issuer_name": "MSFT", "total_shares": 2, "share_price": "10.1"},
        ],
    }


def test_an_account_without_positions_has_no_issuers() -> None:
    assert show_account(make_account("0"))["issuers"] == []


@pytest.mark.parametrize(
    ("amount", "shown"),
    [
        ("0.1", "0.1"),
        ("12345678901234567.12345678", "12345678901234567.12345678"),
        ("1E+24", "1" + "0" * 24),
        ("0.00000001", "0.00000001"),
        ("-0", "0"),
        ("10.00", "10"),
    ],
)
def test_money_is_exact_text(amount: str, shown: str) -> None:
    assert show_account(make_account(amount))["cash"] == shown
    assert (
        show_order(RecordedOrder(make_order(share_price=amount), OrderStatus.PENDING))[
            "share_price"
        ]
        == shown
    )


def test_an_accepted_order_has_every_field_and_no_outcome_yet() -> None:
    order = make_order("SELL", "Grupo México", 3, "80.50", at=NOON, account_id=7)
    assert show_accepted(order) == {
        "id": order.id,
        "account_id": 7,
        "status": "pending",
        "operation": "SELL",
        "issuer_name": "Grupo México",
        "total_shares": 3,
        "share_price": "80.5",
        "timestamp": NOON_SECONDS,
        "received_at": "2026-03-02T18:00:00.000000Z",
        "decided_at": None,
        "business_errors": [],
        "current_balance": None,
    }


def test_a_rejected_order_shows_all_its_reasons_and_the_balance_left() -> None:
    shown = show_order(
        RecordedOrder(
            make_order(),
            OrderStatus.REJECTED,
            (BusinessError.INSUFFICIENT_BALANCE, BusinessError.CLOSED_MARKET),
            decided_at=NOON + seconds(1.5),
            balance=Balance(Decimal("5.10"), {"AAPL": Position(2, Decimal("3.0"))}),
        )
    )
    assert shown["status"] == "rejected"
    assert shown["business_errors"] == ["INSUFFICIENT_BALANCE", "CLOSED_MARKET"]
    assert shown["decided_at"] == "2026-03-02T18:00:01.500000Z"
    assert shown["current_balance"] == {
        "cash": "5.1",
        "issuers": [{"issuer_name": "AAPL", "total_shares": 2, "share_price": "3"}],
    }
    assert "failure" not in shown


def test_a_balance_that_is_not_whole_says_so() -> None:
    balance = Balance(Decimal(5), {}, complete=False)
    shown = show_order(RecordedOrder(make_order(), OrderStatus.EXECUTED, balance=balance))
    assert shown["current_balance"] == {"cash": "5", "issuers": [], "partial": True}


def test_a_parked_order_shows_why() -> None:
    shown = show_order(RecordedOrder(make_order(), OrderStatus.FAILED, failure="broken"))
    assert (shown["status"], shown["failure"]) == ("failed", "broken")


@pytest.mark.parametrize(("is_pending", "status"), [(True, "pending"), (False, "failed")])
def test_an_unreadable_order_shows_what_is_known(is_pending: bool, status: str) -> None:
    order = UnreadableOrder(7, "x", "damaged", is_pending, attempts=0)
    assert show_unreadable(order) == {
        "id": "x",
        "account_id": 7,
        "status": status,
        "failure": "damaged",
    }


def test_an_unreadable_order_that_was_parked_shows_why() -> None:
    order = UnreadableOrder(
        7, "x", "damaged", is_pending=False, attempts=5, status=OrderStatus.FAILED, failure="parked"
    )
    shown = show_unreadable(order)
    assert (shown["status"], shown["failure"]) == ("failed", "parked")


@pytest.mark.parametrize("status", [OrderStatus.CANCELLED, OrderStatus.EXECUTED])
def test_an_unreadable_order_shows_its_own_status(status: OrderStatus) -> None:
    order = UnreadableOrder(7, "x", "damaged", is_pending=False, attempts=0, status=status)
    assert show_unreadable(order)["status"] == status


def test_a_committed_decision_is_shown_without_reading_it_again() -> None:
    order = make_order("BUY", "AAPL", 2, "10")
    settlement = make_settlement(make_recorded_account(make_account("100")), [order])
    shown = show_order(recorded_from(settlement, settlement.decided[0], order))
    assert shown["status"] == "executed"
    assert shown["decided_at"] == "2026-03-02T18:00:00.000000Z"
    assert shown["current_balance"] == {
        "cash": "80",
        "issuers": [{"issuer_name": "AAPL", "total_shares": 2, "share_price": "10"}],
    }


@pytest.mark.parametrize(("held", "is_partial"), [(-1, False), (0, True)])
def test_with_many_positions_the_traded_one_alone_is_shown(held: int, is_partial: bool) -> None:
    positions = {f"X{number:03}": (1, "1") for number in range(BALANCE_POSITIONS_MAX + held)}
    account = make_account("100", positions)
    order = make_order("BUY", "AAPL", 1, "10")
    settlement = make_settlement(make_recorded_account(account), [order])
    balance = show_order(recorded_from(settlement, settlement.decided[0], order))["current_balance"]
    names = [issuer["issuer_name"] for issuer in balance["issuers"]]
    assert balance.get("partial", False) is is_partial
    assert names == (["AAPL"] if is_partial else ["AAPL", *positions])


# Times


def test_whole_seconds_are_whole_numbers() -> None:
    shown = unix_seconds(NOON)
    assert shown == NOON_SECONDS
    assert isinstance(shown, int)
    assert to_json({"timestamp": shown}) == b'{"timestamp":1772474400}'


@pytest.mark.parametrize(
    ("fraction", "written"),
    [
        (seconds(0.5), "1772474400.5"),
        (MICROSECOND, "1772474400.000001"),
        (seconds(0.123456), "1772474400.123456"),
        (seconds(1) - MICROSECOND, "1772474400.999999"),
    ],
)
def test_fractions_of_a_second_are_shown_to_the_microsecond(
    fraction: timedelta, written: str
) -> None:
    assert to_json({"t": unix_seconds(NOON + fraction)}).decode() == f'{{"t":{written}}}'


@STEADY
@given(
    st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
)
def test_every_timestamp_of_this_age_comes_back_to_the_microsecond(instant: datetime) -> None:
    written = json.loads(to_json({"t": unix_seconds(instant)}), parse_float=Decimal)["t"]
    micros = int(Decimal(written) * 1_000_000)
    assert datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=micros) == instant


def test_instants_are_shown_in_utc_with_microseconds() -> None:
    mexico = timezone(timedelta(hours=-6))
    assert iso_utc(NOON.astimezone(mexico)) == "2026-03-02T18:00:00.000000Z"
    assert iso_utc(NOON + MICROSECOND) == "2026-03-02T18:00:00.000001Z"


def test_an_order_is_shown_alike_whatever_zone_its_instants_carry() -> None:
    mexico = timezone(timedelta(hours=-6))
    order = make_order(at=NOON)
    moved = replace(order, timestamp=NOON.astimezone(mexico), received_at=NOON.astimezone(mexico))
    assert show_accepted(moved) == show_accepted(order)


def test_json_is_compact_utf_8() -> None:
    assert to_json({"a": [1, "é"], "b": None}) == '{"a":[1,"é"],"b":null}'.encode()
