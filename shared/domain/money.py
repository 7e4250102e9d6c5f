"""Exact money: one decimal context and the bounds of every amount.

All amounts are ``decimal.Decimal``. Sums are made in ``MONEY``, never in the ambient context:
a thread's default context rounds silently at 28 digits. ``MONEY`` holds DynamoDB's 38 digits and
raises ``decimal.Inexact`` instead of rounding (AWS: "Numbers can have up to 38 digits of
precision").
"""

from decimal import Context, Decimal, DivisionByZero, Inexact, InvalidOperation, Overflow
from typing import Final

MONEY: Final = Context(prec=38, traps=[InvalidOperation, DivisionByZero, Overflow, Inexact])

AMOUNT_DECIMALS_MAX: Final = 8
"""Places after the point that a price or a cash amount may have."""

CASH_MAX: Final = Decimal(10) ** 24
"""The most cash that an account can hold: 25 digits and 8 decimals stay inside 38."""

SHARE_PRICE_MAX: Final = Decimal(10) ** 12
TOTAL_SHARES_MAX: Final = 10**12

ZERO: Final = Decimal(0)


def cost(total_shares: int, share_price: Decimal) -> Decimal:
    """Return what ``total_shares`` cost at ``share_price``, exactly.

    Raises:
        decimal.Inexact: the product needs more than 38 digits (amounts beyond the bounds).
    """
    return MONEY.multiply(Decimal(total_shares), share_price)


def add(left: Decimal, right: Decimal) -> Decimal:
    """Return ``left + right``, exactly (raises ``decimal.Inexact`` beyond 38 digits)."""
    return MONEY.add(left, right)


def subtract(left: Decimal, right: Decimal) -> Decimal:
    """Return ``left - right``, exactly (raises ``decimal.Inexact`` beyond 38 digits)."""
    return MONEY.subtract(left, right)


def has_money_scale(amount: Decimal) -> bool:
    """Tell whether ``amount`` is finite and has at most ``AMOUNT_DECIMALS_MAX`` decimals."""
    exponent = amount.as_tuple().exponent
    return isinstance(exponent, int) and exponent >= -AMOUNT_DECIMALS_MAX


def plain(amount: Decimal) -> str:
    """Write ``amount`` without exponent and without trailing zeros: ``1E+3`` -> ``"1000"``."""
    text = format(amount, "f")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return text if text not in ("-0", "") else "0"
