"""Exact money: nothing is ever rounded, whatever the thread's own context says."""

from decimal import Context, Decimal, Inexact, localcontext

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.domain import money
from tests.unit.factories import STEADY

amounts = st.decimals(
    min_value=-money.CASH_MAX, max_value=money.CASH_MAX, places=money.AMOUNT_DECIMALS_MAX
)


def test_a_cost_is_exact() -> None:
    assert money.cost(3, Decimal("33.33333333")) == Decimal("99.99999999")


def test_the_largest_cost_is_exact() -> None:
    price = money.SHARE_PRICE_MAX - Decimal("0.00000001")
    expected = Decimal("999999999999999999990000.00000000")
    assert money.cost(money.TOTAL_SHARES_MAX, price) == expected


def test_the_bounds_fit_into_the_digits_of_the_store() -> None:
    smallest = Decimal(1).scaleb(-money.AMOUNT_DECIMALS_MAX)
    total = money.add(money.CASH_MAX, money.subtract(money.CASH_MAX, smallest))
    assert total == Decimal("1999999999999999999999999.99999999")
    assert len(total.as_tuple().digits) <= 38


def test_the_ambient_context_does_not_matter() -> None:
    with localcontext(Context(prec=3, traps=[])):
        assert money.cost(1, Decimal("1234.56789")) == Decimal("1234.56789")
        assert money.add(Decimal("1234.5"), Decimal("0.25")) == Decimal("1234.75")
        assert money.subtract(Decimal("1234.5"), Decimal("0.25")) == Decimal("1234.25")


def test_what_needs_more_than_38_digits_is_refused_and_not_rounded() -> None:
    whole = Decimal(10) ** 37
    assert money.add(whole, Decimal(1)) == 10**37 + 1
    with pytest.raises(Inexact):
        money.add(whole, Decimal("0.1"))
    with pytest.raises(Inexact):
        money.subtract(whole, Decimal("0.01"))
    with pytest.raises(Inexact):
        money.cost(10**20 + 1, Decimal("1.0000000000000000001"))


@STEADY
@given(amounts, amounts)
def test_sums_agree_with_integers(left: Decimal, right: Decimal) -> None:
    scale = 10**money.AMOUNT_DECIMALS_MAX
    whole_left, whole_right = (int(one.scaleb(8, money.MONEY)) for one in (left, right))
    total, difference = money.add(left, right), money.subtract(left, right)
    assert money.MONEY.multiply(total, Decimal(scale)) == whole_left + whole_right
    assert money.MONEY.multiply(difference, Decimal(scale)) == whole_left - whole_right


@pytest.mark.parametrize(
    ("amount", "fits"),
    [
        ("0", True),
        ("1E+20", True),
        ("0.12345678", True),
        ("0.123456789", False),
        ("1E-8", True),
        ("1E-9", False),
        ("-1.5", True),
        ("NaN", False),
        ("sNaN", False),
        ("Infinity", False),
        ("-Infinity", False),
    ],
)
def test_an_amount_has_eight_decimals_at_most(amount: str, fits: bool) -> None:
    assert money.has_money_scale(Decimal(amount)) is fits


@pytest.mark.parametrize(
    ("amount", "written"),
    [
        ("1E+3", "1000"),
        ("1000", "1000"),
        ("100.00", "100"),
        ("1.50", "1.5"),
        ("1E-8", "0.00000001"),
        ("0", "0"),
        ("-0", "0"),
        ("-0.00", "0"),
        ("0E+3", "0"),
        ("0.000", "0"),
        ("-12.30", "-12.3"),
        ("1000000000000000000000000.00000001", "1000000000000000000000000.00000001"),
    ],
)
def test_an_amount_is_written_without_exponent_and_without_trailing_zeros(
    amount: str, written: str
) -> None:
    assert money.plain(Decimal(amount)) == written


@STEADY
@given(st.decimals(allow_nan=False, allow_infinity=False, min_value="-1E30", max_value="1E30"))
def test_an_amount_is_read_back_as_it_was_written(amount: Decimal) -> None:
    written = money.plain(amount)
    assert Decimal(written) == amount
    assert set(written) <= set("-.0123456789")
    assert "." not in written or not written.endswith(("0", "."))
