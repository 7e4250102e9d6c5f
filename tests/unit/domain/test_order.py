"""Names of issuers, the bounds of an order, and the moves between its states."""

from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.domain.money import SHARE_PRICE_MAX, TOTAL_SHARES_MAX
from shared.domain.order import (
    FINAL_STATUSES,
    TRANSITIONS,
    Operation,
    OperationKey,
    OrderStatus,
    is_issuer_name,
    is_within_bounds,
)
from tests.unit.factories import STEADY, make_order


@pytest.mark.parametrize(
    "name",
    [
        "A",
        "AAPL",
        "BRK.B",
        "S&P 500",
        "a:b#c/d",
        "GRUPO ÑANDÚ",
        "日本",
        "😀",
        "cafe\N{COMBINING ACUTE ACCENT}",
        "x" * 64,
        "é" * 64,
        "😀" * 32,
    ],
    ids=ascii,
)
def test_printable_text_names_an_issuer(name: str) -> None:
    assert is_issuer_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        " ",
        " AAPL",
        "AAPL ",
        "\N{IDEOGRAPHIC SPACE}AAPL",
        "AA\nPL",
        "AA\tPL",
        "AAPL\x00",
        "\x7f",
        "\x85",
        "\N{LINE SEPARATOR}",
        "AA\N{ZERO WIDTH SPACE}PL",
        "\N{RIGHT-TO-LEFT OVERRIDE}AAPL",
        "\ufeffAAPL",
        "AA\N{NO-BREAK SPACE}PL",
        "\ud800",
        "AAPL\udfff",
        "\ue000",
        "\uffff",
    ],
    ids=ascii,
)
def test_blank_ends_and_what_cannot_be_printed_name_no_issuer(name: str) -> None:
    assert not is_issuer_name(name)


@pytest.mark.parametrize(
    ("name", "fits"),
    [
        ("x" * 64, True),
        ("x" * 65, False),
        ("é" * 64, True),  # 128 bytes
        ("é" * 63 + "日", False),  # 64 characters of 129 bytes
        ("é" * 62 + "日", True),  # 127 bytes
        ("日" * 42 + "é", True),  # 128 bytes
        ("日" * 43, False),  # 129 bytes
    ],
    ids=lambda value: f"{len(value.encode())} bytes" if isinstance(value, str) else str(value),
)
def test_a_name_has_64_characters_and_128_bytes_at_most(name: str, fits: bool) -> None:
    assert is_issuer_name(name) is fits


def test_forms_of_a_name_that_look_alike_are_different_issuers() -> None:
    composed = make_order(issuer_name="caf\N{LATIN SMALL LETTER E WITH ACUTE}")
    decomposed = make_order(issuer_name="cafe\N{COMBINING ACUTE ACCENT}")
    assert is_issuer_name(composed.issuer_name)
    assert is_issuer_name(decomposed.issuer_name)
    assert composed.key != decomposed.key


@STEADY
@given(st.text(st.characters(codec=None), max_size=70))
def test_every_accepted_name_can_be_stored(name: str) -> None:
    if is_issuer_name(name):
        assert 0 < len(name.encode("utf-8")) <= 128
        assert name == name.strip()
        assert len(name) <= 64


def test_an_operation_is_its_side_issuer_and_shares() -> None:
    order = make_order("SELL", "AAPL", 3, "9.99")
    assert order.key == OperationKey(Operation.SELL, "AAPL", 3)
    assert replace(order, share_price=Decimal(1), id="other").key == order.key


@pytest.mark.parametrize(
    ("total_shares", "share_price", "fits"),
    [
        (1, Decimal("0.00000001"), True),
        (TOTAL_SHARES_MAX, SHARE_PRICE_MAX, True),
        (0, Decimal(1), False),
        (-1, Decimal(1), False),
        (TOTAL_SHARES_MAX + 1, Decimal(1), False),
        (1, Decimal(0), False),
        (1, Decimal(-1), False),
        (1, SHARE_PRICE_MAX + Decimal("0.00000001"), False),
        (1, Decimal("0.000000001"), False),
        (1, Decimal("1E+13"), False),
        (1, Decimal("NaN"), False),
        (1, Decimal("sNaN"), False),
        (1, Decimal("Infinity"), False),
    ],
)
def test_an_order_keeps_the_documented_bounds(
    total_shares: int, share_price: Decimal, fits: bool
) -> None:
    order = make_order("BUY", "AAPL", total_shares, share_price)
    assert is_within_bounds(order) is fits


def test_an_order_names_an_issuer() -> None:
    assert not is_within_bounds(make_order(issuer_name=" AAPL"))


def test_the_moves_between_states_are_these() -> None:
    moves = {(before, after) for before, afters in TRANSITIONS.items() for after in afters}
    assert moves == {
        (OrderStatus.PENDING, OrderStatus.EXECUTED),
        (OrderStatus.PENDING, OrderStatus.REJECTED),
        (OrderStatus.PENDING, OrderStatus.CANCELLED),
        (OrderStatus.PENDING, OrderStatus.FAILED),
        (OrderStatus.FAILED, OrderStatus.PENDING),
        (OrderStatus.FAILED, OrderStatus.CANCELLED),
    }


def test_every_state_has_its_moves() -> None:
    assert set(TRANSITIONS) == set(OrderStatus)


def test_final_states_are_never_left() -> None:
    assert {OrderStatus.EXECUTED, OrderStatus.REJECTED, OrderStatus.CANCELLED} == FINAL_STATUSES
    reachable = set(FINAL_STATUSES)
    for _ in OrderStatus:
        reachable |= {after for status in reachable for after in TRANSITIONS[status]}
    assert reachable == FINAL_STATUSES
