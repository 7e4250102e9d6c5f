"""What is sent and answered, as JSON Schemas with the bounds of the code itself."""

from decimal import Decimal
from typing import Any, Final

from api.openapi.problems import PROBLEM_SCHEMA
from api.validation import (
    BULK_LINES_MAX,
    EARLIEST,
    IDEMPOTENCY_KEY_LENGTH_MAX,
    LATEST,
    PAGE_LIMIT_MAX,
)
from shared.domain.account import POSITIONS_MAX
from shared.domain.money import (
    AMOUNT_DECIMALS_MAX,
    CASH_MAX,
    SHARE_PRICE_MAX,
    TOTAL_SHARES_MAX,
)
from shared.domain.order import (
    ISSUER_NAME_BYTES_MAX,
    ISSUER_NAME_LENGTH_MAX,
    BusinessError,
    Operation,
    OrderStatus,
)
from shared.ids import ACCOUNT_DIGITS_MAX

Json = dict[str, Any]

_LARGEST_ACCOUNT_ID: Final = 10**ACCOUNT_DIGITS_MAX - 1
"""The largest that a path can name."""

_STEP: Final = float(Decimal(1).scaleb(-AMOUNT_DECIMALS_MAX))
_PRINTABLE: Final = "!-~\u00a1-\u00ac\u00ae-\u00ff"
_KEY_MIDDLE: Final = IDEMPOTENCY_KEY_LENGTH_MAX - 2

IDEMPOTENCY_KEY_PATTERN: Final = (
    f"^[{_PRINTABLE}]([ {_PRINTABLE}]{{0,{_KEY_MIDDLE}}}[{_PRINTABLE}])?$"
)
"""What is printable in a header: HTTP cuts off blanks at the ends."""

_PAST_LATEST: Final = int((LATEST - EARLIEST).total_seconds())
_OFFSET: Final = "(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])"
_INSTANT_PATTERN: Final = (
    "^(19[7-9][0-9]|[2-8][0-9]{3}|9[0-8][0-9]{2}|99[0-8][0-9]|999[0-8])"
    "-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])"
    f"T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\\.[0-9]{{1,9}})?{_OFFSET}$"
)
_ORDER_ID_PATTERN: Final = "^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$"


def ref(name: str) -> Json:
    """A reference to a schema of this document."""
    return {"$ref": f"#/components/schemas/{name}"}


def _whole_digits(most: Decimal | int) -> int:
    """Digits before the point that every amount below ``most``, a power of ten, can have."""
    return len(str(int(most))) - 1


def _amount(most: Decimal, text: str, *, from_zero: bool) -> Json:
    digits = _whole_digits(most)
    least: Json = {"minimum": 0} if from_zero else {"minimum": _STEP}
    rest = AMOUNT_DECIMALS_MAX - 1
    whole = f"[1-9][0-9]{{0,{digits - 1}}}(\\.[0-9]{{0,{AMOUNT_DECIMALS_MAX}}})?"
    below_one = f"0(\\.[0-9]{{0,{AMOUNT_DECIMALS_MAX}}})?"
    # Trailing zeros do not count as decimals.
    above_zero = f"0\\.[0-9]{{0,{rest}}}[1-9]0{{0,{rest}}}"
    return {
        "description": f"{text} An exact decimal, as a number or as a string: at most"
        f" {AMOUNT_DECIMALS_MAX} decimals, up to 1E+{digits}.",
        "anyOf": [
            {"type": "number", **least, "maximum": int(most), "multipleOf": _STEP},
            {
                "type": "string",
                "pattern": f"^({whole}|{below_one if from_zero else above_zero})$",
            },
        ],
    }


def _shares() -> Json:
    digits = _whole_digits(TOTAL_SHARES_MAX)
    return {
        "description": "How many: a whole number, or a string with one.",
        "anyOf": [
            {"type": "integer", "minimum": 1, "maximum": TOTAL_SHARES_MAX},
            {"type": "string", "pattern": f"^[1-9][0-9]{{0,{digits - 1}}}$"},
        ],
    }


def _timestamp() -> Json:
    return {
        "description": "When the client made the order: Unix seconds, fractions allowed, or an"
        " instant with its offset from UTC; years 1970 to 9998.",
        "anyOf": [
            {"type": "number", "minimum": 0, "exclusiveMaximum": _PAST_LATEST},
            {"type": "string", "pattern": "^[0-9]{1,11}$"},
            {"type": "string", "format": "date-time", "pattern": _INSTANT_PATTERN},
        ],
    }


def _operation() -> Json:
    letters = ["".join(f"[{one}{one.lower()}]" for one in side) for side in Operation]
    return {
        "description": "The side, in any case.",
        "anyOf": [
            {"enum": list(Operation)},
            {"type": "string", "pattern": f"^({'|'.join(letters)})$"},
        ],
    }


_ISSUER_NAME: Final[Json] = {
    "type": "string",
    "format": "issuer-name",
    "minLength": 1,
    "maxLength": ISSUER_NAME_LENGTH_MAX,
    "description": f"1 to {ISSUER_NAME_LENGTH_MAX} printable characters, at most"
    f" {ISSUER_NAME_BYTES_MAX} bytes in UTF-8, no blanks at its ends.",
    "examples": ["GBM"],
}
_ACCOUNT_ID: Final[Json] = {"type": "integer", "minimum": 1, "maximum": _LARGEST_ACCOUNT_ID}
_MONEY: Final[Json] = {
    "type": "string",
    "pattern": f"^(0|[1-9][0-9]*)(\\.[0-9]{{0,{AMOUNT_DECIMALS_MAX - 1}}}[1-9])?$",
    "description": "An exact decimal without trailing zeros.",
    "examples": ["495.5"],
}
_INSTANT: Final[Json] = {
    "type": "string",
    "format": "date-time",
    "pattern": "\\.[0-9]{6}Z$",
    "examples": ["2026-03-02T18:00:00.041203Z"],
}
_POSITIONS: Final[Json] = {"type": "array", "maxItems": POSITIONS_MAX, "items": ref("Position")}


def _object(required: dict[str, Json], **optional: Json) -> Json:
    return {
        "type": "object",
        "required": list(required),
        "properties": {**required, **optional},
    }


def _nullable(name: str) -> Json:
    return {"anyOf": [ref(name), {"type": "null"}]}


def _new_order() -> dict[str, Json]:
    return {
        "timestamp": _timestamp(),
        "operation": _operation(),
        "issuer_name": ref("IssuerName"),
        "total_shares": _shares(),
        "share_price": _amount(SHARE_PRICE_MAX, "For each share.", from_zero=False),
    }


def _order() -> Json:
    shown = _object(
        {
            "id": ref("OrderId"),
            "account_id": ref("AccountId"),
            "status": ref("OrderStatus"),
            "operation": {"enum": list(Operation)},
            "issuer_name": ref("IssuerName"),
            "total_shares": {"type": "integer", "minimum": 1, "maximum": TOTAL_SHARES_MAX},
            "share_price": ref("Money"),
            "timestamp": {
                "type": "number",
                "minimum": 0,
                "exclusiveMaximum": _PAST_LATEST,
                "description": "Unix seconds, as the client sent them.",
            },
            "received_at": ref("Instant"),
            "decided_at": _nullable("Instant"),
            "business_errors": {
                "type": "array",
                "description": "All rules that the order breaks, if it is rejected.",
                "items": ref("BusinessError"),
                "uniqueItems": True,
            },
            "current_balance": _nullable("Balance"),
        },
        failure={"type": "string", "description": "Why the order could not be decided."},
    )
    is_rejected = {"properties": {"status": {"const": OrderStatus.REJECTED}}}
    is_pending = {"properties": {"status": {"const": OrderStatus.PENDING}}}
    shown["allOf"] = [
        {
            "if": is_rejected,
            "then": {"properties": {"business_errors": {"minItems": 1}}},
            "else": {"properties": {"business_errors": {"maxItems": 0}}},
        },
        {
            "if": is_pending,
            "then": {"properties": {name: {"type": "null"} for name in _LATER}},
        },
    ]
    return shown


_LATER: Final = ("decided_at", "current_balance")


def _bulk_answer() -> Json:
    line: Json = {"type": "integer", "minimum": 1, "maximum": BULK_LINES_MAX}
    made = _object(
        {"line": line, "status": {"const": 202}, "order": ref("Order")},
        replayed={"const": True, "description": "Its key was used before with the same order."},
    )
    status: Json = {"type": "integer", "minimum": 400, "maximum": 599}
    refused = _object({"line": line, "status": status, "problem": ref("Problem")})
    return {"oneOf": [made, refused]}


def schemas() -> dict[str, Json]:
    """All schemas of the document, by name."""
    balance = {"cash": ref("Money"), "issuers": _POSITIONS}
    partial = {
        "const": True,
        "description": "The account holds more than is shown: the traded position alone.",
    }
    return {
        "NewAccount": _object({"cash": _amount(CASH_MAX, "What it begins with.", from_zero=True)}),
        "NewOrder": _object(_new_order()),
        "NewOrderOfAccount": _object(
            {"account_id": ref("AccountId"), **_new_order()},
            idempotency_key={"anyOf": [ref("IdempotencyKey"), {"type": "null"}]},
        ),
        "Account": _object({"id": ref("AccountId"), **balance}),
        "Position": _object(
            {
                "issuer_name": ref("IssuerName"),
                "total_shares": {"type": "integer", "minimum": 1, "maximum": TOTAL_SHARES_MAX},
                "share_price": {**ref("Money"), "description": "The price last traded."},
            }
        ),
        "Balance": {
            **_object(balance, partial=partial),
            "description": "What the account held right after the decision.",
        },
        "Order": _order(),
        "DamagedOrder": {
            **_object(
                {
                    "id": ref("OrderId"),
                    "account_id": ref("AccountId"),
                    "status": ref("OrderStatus"),
                    "failure": {"type": "string"},
                }
            ),
            "description": "What can be said of an order whose stored item cannot be read.",
            "not": {"required": ["operation"]},
        },
        "OrderPage": _object(
            {
                "orders": {
                    "type": "array",
                    "maxItems": PAGE_LIMIT_MAX,
                    "items": {"anyOf": [ref("Order"), ref("DamagedOrder")]},
                },
                "next_cursor": {
                    "type": ["string", "null"],
                    "description": "Where the next page begins; null: there is none.",
                },
            }
        ),
        "BulkAnswer": _bulk_answer(),
        "Event": {
            **_object(
                {
                    "event": {"const": "order"},
                    "id": {"type": "string"},
                    "data": {
                        "type": "string",
                        "contentMediaType": "application/json",
                        "contentSchema": {"anyOf": [ref("Order"), ref("DamagedOrder")]},
                    },
                }
            ),
            "description": "A server-sent event: an order that was decided.",
        },
        "Alive": _object({"status": {"const": "ok"}}),
        "Readiness": _object(
            {"status": {"enum": ["ok", "degraded", "unavailable", "draining"]}},
            checks={
                "type": "object",
                "description": "By dependency; for operators alone where keys are required.",
                "additionalProperties": {"enum": ["ok", "unavailable"]},
            },
        ),
        "AccountId": _ACCOUNT_ID,
        "OrderId": {
            "type": "string",
            "pattern": _ORDER_ID_PATTERN,
            "description": "A UUIDv7 that sorts by acceptance within its account.",
        },
        "OrderStatus": {"enum": list(OrderStatus)},
        "BusinessError": {"enum": list(BusinessError)},
        "IssuerName": _ISSUER_NAME,
        "IdempotencyKey": {
            "type": "string",
            "minLength": 1,
            "maxLength": IDEMPOTENCY_KEY_LENGTH_MAX,
            "pattern": IDEMPOTENCY_KEY_PATTERN,
        },
        "Money": _MONEY,
        "Instant": _INSTANT,
        "Problem": PROBLEM_SCHEMA,
    }
