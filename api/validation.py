"""Bytes to orders and accounts, or every field's error at once.

JSON numbers never become floats: money is read as Decimal from the text that the client sent.
"""

import json
import re
import unicodedata
from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Context, Decimal, Inexact, InvalidOperation
from typing import Annotated, Any, Final, NoReturn, TypeVar
from urllib.parse import unquote_to_bytes

from flask import Request
from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError
from werkzeug.http import parse_list_header

from api.cursors import read_cursor
from api.event_ids import read_event_id
from api.problems import FieldError, Problem, invalid
from shared.domain.money import (
    AMOUNT_DECIMALS_MAX,
    CASH_MAX,
    MONEY,
    SHARE_PRICE_MAX,
    TOTAL_SHARES_MAX,
    has_money_scale,
)
from shared.domain.order import (
    ISSUER_NAME_LENGTH_MAX,
    Operation,
    OrderStatus,
    is_issuer_name,
)
from shared.ids import ACCOUNT_DIGITS_MAX
from shared.order_store.decisions import Place

NUMBER_LENGTH_MAX: Final = 64
"""Characters of a number, more than any amount within the bounds needs."""

NAME_LENGTH_READ_MAX: Final = 4 * ISSUER_NAME_LENGTH_MAX
"""Characters of an issuer's name before it is composed: no character is made of more than four.

Composing takes time by the square of the length (combining marks are sorted by insertion).
"""

JSON_DEPTH_MAX: Final = 32
"""Objects and lists within each other. No field needs more than one; unknown ones may have some."""

FORM_FIELDS_MAX: Final = 100
"""Fields of a form, known or not."""

BULK_LINES_MAX: Final = 1_000
"""Lines of a bulk request, blank ones included."""

BULK_LINE_BYTES_MAX: Final = 8192
"""Bytes of one of them, far more than an order takes."""

IDEMPOTENCY_KEY_LENGTH_MAX: Final = 255
PAGE_LIMIT_DEFAULT: Final = 50
PAGE_LIMIT_MAX: Final = 200

EARLIEST: Final = datetime(1970, 1, 1, tzinfo=UTC)
LATEST: Final = datetime(9999, 1, 1, tzinfo=UTC)
"""Timestamps between these can be moved by any zone or grace without leaving the calendar."""

_NUMBER: Final = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_ACCOUNT_ID: Final = re.compile(rf"\d{{1,{ACCOUNT_DIGITS_MAX}}}", re.ASCII)
_OPENS_OR_CLOSES: Final = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[\]{}]', re.DOTALL)
"""Whole strings too, for what is in them is none; possessive, so that no byte is read twice."""
_EXACT: Final = Context(prec=2 * NUMBER_LENGTH_MAX)
_DEPTHS: Final = {"{": 1, "[": 1, "}": -1, "]": -1}
_QUOTED: Final = re.compile(r'"([^"]*)"')
_JSON: Final = "application/json"
_NDJSON: Final = ("application/x-ndjson", "application/ndjson", "application/jsonl")
_URLENCODED: Final = "application/x-www-form-urlencoded"
_MULTIPART: Final = "multipart/form-data"
_CHARSETS: Final = ("utf-8", "utf8", "us-ascii")

B = TypeVar("B", bound=BaseModel)


def _decimal(value: object) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, int | Decimal | str):
        raise ValueError("must be a number, or a string with a number")  # noqa: TRY004
    written = str(value).strip()
    if len(written) > NUMBER_LENGTH_MAX:
        raise ValueError(f"has more than {NUMBER_LENGTH_MAX} characters")
    if not _NUMBER.fullmatch(written):
        raise ValueError("must be a number, or a string with a number")
    try:
        return Decimal(written)
    except InvalidOperation:
        raise ValueError("has an exponent beyond reason") from None


def _money(value: object, most: Decimal) -> Decimal:
    amount = _decimal(value)
    if amount > most:
        raise ValueError(f"must be at most {most:f}")
    try:
        # Trailing zeros do not count: 1.10E+3 and 1.000000000 are fine amounts.
        reduced = MONEY.normalize(amount)
    except Inexact:
        raise ValueError(f"must have at most {AMOUNT_DECIMALS_MAX} decimals") from None
    if not has_money_scale(reduced):
        raise ValueError(f"must have at most {AMOUNT_DECIMALS_MAX} decimals")
    return abs(reduced) if reduced.is_zero() else reduced


def _cash(value: object) -> Decimal:
    amount = _money(value, CASH_MAX)
    if amount < 0:
        raise ValueError("must be 0 or more")
    return amount


def _price(value: object) -> Decimal:
    amount = _money(value, SHARE_PRICE_MAX)
    if amount <= 0:
        raise ValueError("must be more than 0")
    return amount


def _shares(value: object) -> int:
    amount = _decimal(value)
    if not 0 < amount <= TOTAL_SHARES_MAX:
        raise ValueError(f"must be between 1 and {TOTAL_SHARES_MAX}")
    if amount != int(amount):
        raise ValueError("must be a whole number")
    return int(amount)


def _operation(value: object) -> Operation:
    if not isinstance(value, str) or value.upper() not in Operation.__members__:
        raise ValueError("must be BUY or SELL")
    return Operation[value.upper()]


def _issuer_name(value: object) -> str:
    is_text = isinstance(value, str) and not isinstance(value, _Number)
    written = str(value) if is_text else ""
    name = unicodedata.normalize("NFC", written) if len(written) <= NAME_LENGTH_READ_MAX else ""
    if not is_issuer_name(name):
        raise ValueError(
            f"must be 1 to {ISSUER_NAME_LENGTH_MAX} printable characters, no blanks at its ends"
        )
    return name


def _timestamp(value: object) -> datetime:
    # A number may have a minus too, in its exponent.
    is_iso = isinstance(value, str) and "-" in value[1:] and not _NUMBER.fullmatch(value.strip())
    instant = _iso(value) if is_iso else _unix(value)
    if not EARLIEST <= instant < LATEST:
        raise ValueError("must lie between the years 1970 and 9998")
    return instant


def _iso(value: object) -> datetime:
    text = str(value)
    if len(text) > NUMBER_LENGTH_MAX:
        raise ValueError(f"has more than {NUMBER_LENGTH_MAX} characters")
    try:
        instant = datetime.fromisoformat(text.strip())
        if instant.utcoffset() is None:
            raise ValueError("must name its offset from UTC, as in 2026-03-02T15:04:05Z")
        return instant.astimezone(UTC)
    except OverflowError:
        raise ValueError("must lie between the years 1970 and 9998") from None


def _unix(value: object) -> datetime:
    seconds = _decimal(value)
    if not 0 <= seconds <= Decimal(2) ** 40:
        raise ValueError("must be Unix seconds between the years 1970 and 9998")
    try:
        return EARLIEST + timedelta(microseconds=int(seconds.scaleb(6, _EXACT)))
    except OverflowError:
        raise ValueError("must lie between the years 1970 and 9998") from None


def _account_id(value: object) -> int:
    # A JSON number is a string here too, as it was written.
    if not isinstance(value, str) or not _ACCOUNT_ID.fullmatch(value):
        raise ValueError("must be the id of an account")
    return int(value)


def _client_key(value: object) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or isinstance(value, _Number) or not _is_idempotency_key(value):
        raise ValueError(f"must be 1 to {IDEMPOTENCY_KEY_LENGTH_MAX} printable characters")
    return value


class AccountBody(BaseModel):
    """What opens an account."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    cash: Annotated[Decimal, BeforeValidator(_cash)]


class OrderBody(BaseModel):
    """What makes an order."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    timestamp: Annotated[datetime, BeforeValidator(_timestamp)]
    operation: Annotated[Operation, BeforeValidator(_operation)]
    issuer_name: Annotated[str, BeforeValidator(_issuer_name)]
    total_shares: Annotated[int, BeforeValidator(_shares)]
    share_price: Annotated[Decimal, BeforeValidator(_price)]


class BulkOrderBody(OrderBody):
    """One line of a bulk request: an order, of which account, and the key to repeat it with."""

    account_id: Annotated[int, BeforeValidator(_account_id)]
    idempotency_key: Annotated[str | None, BeforeValidator(_client_key)] = None


def read_body(request: Request, schema: type[B]) -> B:
    """Read the request's body, JSON or form-encoded, as ``schema``.

    Raises:
        Problem: 400 (unreadable), 413 (too large), 415 (other media type), 422 (invalid fields).
    """
    return _validated(_fields(request), schema)


def read_lines(request: Request, body_bytes_max: int) -> list[bytes]:
    """The lines of a bulk request, as they are.

    Raises:
        Problem: 400 (nothing in it), 413 (too large, too many lines), 415 (other media type).
    """
    request.max_content_length = body_bytes_max
    if request.mimetype not in _NDJSON:
        raise _unsupported(f"Send {_NDJSON[0]}: one JSON object on each line.")
    _require_plain_utf8(request)
    body = _whole_body(request).rstrip()
    if not body:
        raise Problem(400, "MALFORMED_BODY", "The body has no lines.")
    if body.count(b"\n") >= BULK_LINES_MAX:
        raise _too_large(f"A bulk request may have {BULK_LINES_MAX} lines.")
    return body.split(b"\n")


def read_line(line: bytes) -> BulkOrderBody:
    """Read one line of a bulk request; raises ``Problem`` as ``read_body``."""
    if len(line) > BULK_LINE_BYTES_MAX:
        raise _too_large("The line is over its limit.")
    return _validated(_json_object(line, "line"), BulkOrderBody)


def read_idempotency_key(request: Request) -> str | None:
    """The request's Idempotency-Key, or None if it has none.

    Raises:
        Problem: 400, the key is empty, too long or holds what no header should.
    """
    header = request.headers.get("Idempotency-Key")
    if header is None:
        return None
    key = _as_utf_8(header)
    if not _is_idempotency_key(key):
        raise Problem(
            400,
            "INVALID_IDEMPOTENCY_KEY",
            f"Idempotency-Key must have 1 to {IDEMPOTENCY_KEY_LENGTH_MAX} printable characters.",
        )
    return key


def read_limit(request: Request) -> int:
    """How many orders a page shall hold.

    Raises:
        Problem: 422, not a number or beyond the bounds.
    """
    text = _parameter(request, "limit")
    if text is None:
        return PAGE_LIMIT_DEFAULT
    if text.isascii() and text.isdigit() and len(text) < NUMBER_LENGTH_MAX:
        limit = int(text)
        if 1 <= limit <= PAGE_LIMIT_MAX:
            return limit
    raise invalid([FieldError("/limit", f"must be between 1 and {PAGE_LIMIT_MAX}")])


def read_wait(request: Request) -> int:
    """For how many seconds an answer may wait for its order to be decided; 0 if not at all.

    Raises:
        Problem: 422, not a whole number.
    """
    text = _parameter(request, "wait")
    seconds = 0 if text is None else _whole_seconds(text)
    if seconds is None:
        raise invalid([FieldError("/wait", "must be a whole number of seconds")])
    return seconds


def read_wait_preference(request: Request) -> int:
    """The same as a preference (RFC 7240): what is not understood is ignored."""
    for written in request.headers.getlist("Prefer"):
        for preference in parse_list_header(written):
            name, _, rest = preference.partition("=")
            if name.strip().lower() == "wait":
                # Of several the first one counts.
                value = rest.partition(";")[0].strip()
                return _whole_seconds(_QUOTED.sub(r"\1", value)) or 0
    return 0


def read_last_event_id(request: Request, account_id: int) -> Place | None:
    """After which event of the account a stream shall begin, None for now.

    The header is what a client knows best: it follows the stream, where the query stays.

    Raises:
        Problem: 422, it is no event's of this account.
    """
    text = request.headers.get("Last-Event-ID") or _parameter(request, "last_event_id")
    if not text:
        return None
    try:
        return read_event_id(text, account_id)
    except ValueError:
        problem = "is not the id of an event of this account"
        raise invalid([FieldError("/last_event_id", problem)]) from None


def _whole_seconds(text: str) -> int | None:
    is_number = text.isascii() and text.isdigit() and len(text) < NUMBER_LENGTH_MAX
    return int(text) if is_number else None


def read_statuses(request: Request) -> frozenset[OrderStatus]:
    """Which orders a list shall hold; none named means all.

    Raises:
        Problem: 422, a name is no status.
    """
    text = _parameter(request, "status")
    if text is None:
        return frozenset()
    try:
        return frozenset(map(OrderStatus, text.split(",")))
    except ValueError:
        known = ", ".join(OrderStatus)
        problem = f"must be one or more of {known}, separated by commas"
        raise invalid([FieldError("/status", problem)]) from None


def read_before(request: Request, account_id: int, statuses: Collection[OrderStatus]) -> str | None:
    """The order id behind which a page shall begin, None for the first page.

    Raises:
        Problem: 422, the cursor was not given out with this list.
    """
    text = _parameter(request, "cursor")
    if text is None:
        return None
    try:
        return read_cursor(text, account_id, statuses)
    except ValueError:
        raise invalid([FieldError("/cursor", "is not a cursor of this list")]) from None


def _parameter(request: Request, name: str) -> str | None:
    """A parameter of the query; one that is there twice is refused, as a field of a body is."""
    given = request.args.getlist(name)
    if len(given) > 1:
        raise invalid([FieldError(f"/{name}", "is given more than once")])
    return given[0] if given else None


def _validated(fields: Mapping[str, Any], schema: type[B]) -> B:
    try:
        return schema.model_validate(fields)
    except ValidationError as error:
        raise invalid([_field_error(found) for found in error.errors()]) from None


def _as_utf_8(header: str) -> str:
    """A header's text as UTF-8, as a line of a bulk request has it; nothing if it is none."""
    try:
        # WSGI shows bytes as Latin-1 (PEP 3333).
        return header.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return ""


def _is_idempotency_key(key: str) -> bool:
    return 0 < len(key) <= IDEMPOTENCY_KEY_LENGTH_MAX and key.isprintable()


def _fields(request: Request) -> Mapping[str, Any]:
    if request.mimetype not in (_JSON, _URLENCODED, _MULTIPART):
        raise _unsupported(f"Send {_JSON} or {_URLENCODED}.")
    _require_plain_utf8(request)
    body = _whole_body(request)
    return _json_object(body) if request.mimetype == _JSON else _form(request, body)


def _require_plain_utf8(request: Request) -> None:
    if request.mimetype_params.get("charset", "utf-8").lower() not in _CHARSETS:
        raise _unsupported("Send UTF-8.")
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise _unsupported("Send the body as it is, without a Content-Encoding.")


def _unsupported(detail: str) -> Problem:
    return Problem(415, "UNSUPPORTED_MEDIA_TYPE", detail)


def _too_large(detail: str) -> Problem:
    return Problem(413, "REQUEST_ENTITY_TOO_LARGE", detail)


def _whole_body(request: Request) -> bytes:
    """The body, all of it: half an order may be another valid order."""
    body = request.get_data()
    most = request.max_content_length
    # Without a stated length the reading stops at the limit, whether more is to come or not.
    if most is not None and len(body) >= most and request.environ["wsgi.input"].read(1):
        raise _too_large("The body is over its limit.")
    if request.content_length is not None and len(body) != request.content_length:
        raise Problem(400, "MALFORMED_BODY", "The body is shorter than its Content-Length.")
    return body


def _form(request: Request, body: bytes) -> Mapping[str, Any]:
    # Parts of a multipart body are counted as they are read (MAX_FORM_PARTS).
    if request.mimetype == _URLENCODED and body.count(b"&") >= FORM_FIELDS_MAX:
        raise _too_large(f"A form may have {FORM_FIELDS_MAX} fields.")
    _require_utf_8_form(request, body)
    if request.files:
        raise Problem(400, "MALFORMED_BODY", "The form has a file.")
    if any(len(values) > 1 for values in request.form.listvalues()):
        raise Problem(400, "MALFORMED_BODY", "The form has the same field twice.")
    return request.form.to_dict()


def _require_utf_8_form(request: Request, body: bytes) -> None:
    """Refuse what would be read as other text than was sent."""
    is_quoted = request.mimetype == _URLENCODED
    try:
        (unquote_to_bytes(body) if is_quoted else body).decode("utf-8")
    except UnicodeDecodeError:
        raise Problem(400, "MALFORMED_BODY", "The form is no UTF-8.") from None


def _json_object(body: bytes, what: str = "body") -> Mapping[str, Any]:
    try:
        text = body.decode("utf-8")
        _require_shallow(text)
        read = _DECODER.decode(text)
    except (ValueError, RecursionError) as error:
        raise Problem(400, "MALFORMED_BODY", f"The {what} is no readable JSON: {error}") from None
    if not isinstance(read, dict):
        raise Problem(400, "MALFORMED_BODY", f"The {what} must be a JSON object.")
    return read


def _require_shallow(text: str) -> None:
    # Most bodies open once or twice: two counts are all that they cost.
    if text.count("{") + text.count("[") <= JSON_DEPTH_MAX:
        return
    depth = 0
    for found in _OPENS_OR_CLOSES.finditer(text):
        depth += _DEPTHS.get(found[0], 0)
        if depth > JSON_DEPTH_MAX:
            raise ValueError(f"it is nested more than {JSON_DEPTH_MAX} levels deep")


class _Number(str):
    """A JSON number as it was written; each field decides how to read it."""

    __slots__ = ()


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no JSON number")


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("an object has the same key twice")
    return fields


# Made once: ``json.loads`` would make one for each body.
_DECODER: Final = json.JSONDecoder(
    parse_float=_Number,
    parse_int=_Number,
    parse_constant=_refuse_constant,
    object_pairs_hook=_unique_keys,
)


def _field_error(found: Any) -> FieldError:
    pointer = "/" + "/".join(str(part) for part in found["loc"])
    detail = "is missing" if found["type"] == "missing" else str(found["msg"])
    return FieldError(pointer, detail.removeprefix("Value error, "))
