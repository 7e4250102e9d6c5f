"""What schemathesis cannot know from the document: NDJSON, and values that the API gives out.

No answer is judged more mildly here. Generated keys are made new, and generated places in a list
or a stream are replaced by good ones: the document can say how those look, not which are known.
"""

import json
import unicodedata
from datetime import UTC, datetime, timedelta, timezone
from itertools import count
from typing import Any

import jsonschema_rs
import schemathesis
from hypothesis import strategies as st
from schemathesis import Case, CheckContext, DeserializationContext, HookContext, Response

from api.cursors import read_cursor, write_cursor
from api.event_ids import FROM_THE_BEGINNING
from api.validation import EARLIEST, LATEST
from shared.domain.order import ISSUER_NAME_LENGTH_MAX, OrderStatus, is_issuer_name
from shared.ids import first_id_at

NDJSON = "application/x-ndjson"

AnyCase = Case[Any]

_GOOD_LINE = frozenset({"ACCEPTED", "ACCOUNT_NOT_FOUND", "IDEMPOTENCY_KEY_REUSED"})
_BAD_LINE = frozenset({"INVALID_OPERATION", "MALFORMED_BODY", "ACCOUNT_NOT_FOUND"})

_numbers = count(1)
_NEWEST = first_id_at(datetime(2100, 1, 1, tzinfo=UTC))


def _readable(name: str) -> bool:
    return is_issuer_name(unicodedata.normalize("NFC", name))


_offsets = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
_instants = st.datetimes(
    min_value=(EARLIEST + timedelta(days=1)).replace(tzinfo=None),
    max_value=(LATEST - timedelta(days=1)).replace(tzinfo=None),
    timezones=_offsets,
)
_printable = st.characters(categories=["L", "N", "P", "S"])
_names = st.text(_printable, min_size=1, max_size=ISSUER_NAME_LENGTH_MAX).filter(_readable)
schemathesis.openapi.format("issuer-name", _names)
schemathesis.openapi.format("date-time", _instants.map(datetime.isoformat))
schemathesis.openapi.format("event-id", st.just(FROM_THE_BEGINNING))


@schemathesis.hook
def before_load_schema(_context: HookContext, raw_schema: dict[str, Any]) -> None:
    """Read the schema of one line as that of a whole body: a list of lines."""
    for path in raw_schema["paths"].values():
        for operation in path.values():
            for part in (operation.get("requestBody"), *operation.get("responses", {}).values()):
                content = (part or {}).get("content", {}).get(NDJSON)
                if content is not None:
                    line = content["schema"]["contentSchema"]
                    content["schema"] = {"type": "array", "items": line, "minItems": 1}
                    content.pop("examples", None)


@schemathesis.serializer(NDJSON)
def write_lines(_context: Any, value: Any) -> bytes:
    lines = value if isinstance(value, list) else [value]
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


@schemathesis.deserializer(NDJSON)
def read_lines(_context: DeserializationContext, response: Response) -> list[Any]:
    return parsed(response)


def parsed(response: Response) -> list[Any]:
    return [json.loads(line) for line in response.content.splitlines()]


@schemathesis.hook
def before_call(_context: HookContext, case: AnyCase, _kwargs: dict[str, Any]) -> None:
    for name, value in case.headers.items():
        # Links may hand on a number, which no header can hold as such.
        case.headers[name] = value if isinstance(value, str | bytes) else str(value)
    meta = case.meta
    if meta is not None and meta.generation.mode.is_negative:
        return
    if "Idempotency-Key" in case.headers:
        case.headers["Idempotency-Key"] = f"{case.headers['Idempotency-Key'][:200]}{next(_numbers)}"
    if "cursor" in case.query:
        _mend_cursor(case)


def _mend_cursor(case: AnyCase) -> None:
    """A cursor of this very list, unless it is one already; none after the last page."""
    if case.query["cursor"] is None:
        del case.query["cursor"]
        return
    account_id, statuses = int(case.path_parameters["account_id"]), _statuses(case)
    try:
        read_cursor(str(case.query["cursor"]), account_id, statuses)
    except ValueError:
        case.query["cursor"] = write_cursor(_NEWEST, account_id, statuses)


def _statuses(case: AnyCase) -> set[OrderStatus]:
    written = case.query.get("status") or []
    names = written.split(",") if isinstance(written, str) else written
    return set(map(OrderStatus, names))


@schemathesis.check
def each_line_is_judged_by_itself(
    _context: CheckContext, response: Response, case: AnyCase
) -> None:
    """What ``negative_data_rejection`` asks of a request, asked of each line of a bulk request."""
    is_answered = response.request.method == "POST" and response.status_code == 200
    if not is_answered or case.media_type != NDJSON or not isinstance(case.body, list):
        return
    schema = case.operation.schema.raw_schema
    line = {"$ref": "#/components/schemas/NewOrderOfAccount", "components": schema["components"]}
    is_good = jsonschema_rs.Draft202012Validator(line, validate_formats=True).is_valid
    answers = parsed(response)
    assert [answer["line"] for answer in answers] == list(range(1, len(case.body) + 1))
    for sent, answer in zip(case.body, answers, strict=True):
        expected = _GOOD_LINE if is_good(sent) else _BAD_LINE
        code = answer["problem"]["code"] if "problem" in answer else "ACCEPTED"
        assert code in expected, f"{json.dumps(sent)} is answered {code}"
