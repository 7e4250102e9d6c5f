"""JSON and amounts without a float anywhere: what is read and sent is what was meant."""

import json
from decimal import Decimal, InvalidOperation
from typing import Any, NoReturn

from order_client.errors import ProtocolError

Json = dict[str, Any]


def read_json(text: bytes) -> Any:
    """JSON with exact numbers: fractions become Decimal.

    Raises:
        ProtocolError: it is no JSON.
    """
    try:
        return json.loads(text, parse_float=_decimal, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"The service answered no readable JSON: {error}") from None


def read_object(text: bytes) -> Json:
    """A JSON object.

    Raises:
        ProtocolError: it is none.
    """
    read = read_json(text)
    if not isinstance(read, dict):
        raise ProtocolError("The service answered JSON that is no object.")
    return read


def write_json(value: Json) -> bytes:
    """Compact JSON in UTF-8, on one line."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def plain(amount: Decimal) -> str:
    """An amount in digits, without an exponent."""
    return format(amount, "f")


def exact_text(amount: object) -> str:
    """An amount as it is sent. A str is sent as it is: the service judges it.

    Raises:
        TypeError: a float or a bool, which are no exact amounts, or no amount at all.
        ValueError: a Decimal that is no number.
    """
    if isinstance(amount, bool) or not isinstance(amount, int | str | Decimal):
        kind = type(amount).__name__
        raise TypeError(f"amounts are int, str or Decimal, never {kind}: {amount!r}")
    if isinstance(amount, Decimal):
        if not amount.is_finite():
            raise ValueError(f"{amount} is no amount")
        return plain(amount)
    return str(amount)


def _decimal(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation:
        raise ValueError(f"{text} is beyond any amount") from None


def _refuse(text: str) -> NoReturn:
    raise ValueError(f"{text} is no JSON number")
