"""What all calls have in common in the document."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from api.access.needs import NEEDS, Need
from api.openapi.problems import (
    ANYWHERE,
    GATED,
    KEYED,
    WITH_BODY,
    ProblemResponses,
)
from api.openapi.schemas import ref
from api.routes.answers import JSON

Json = dict[str, Any]

FORM: Final = "application/x-www-form-urlencoded"
MULTIPART: Final = "multipart/form-data"
EVENT_STREAM: Final = "text/event-stream"

_SCALARS: Final = ["string", "number", "boolean", "null"]
_ALWAYS: Final = ("X-Request-Id", "RateLimit-Policy", "RateLimit")


@dataclass(frozen=True, slots=True)
class Call:
    """One endpoint, as the document has it; ``codes`` are its own, beside those of its kind."""

    operation_id: str
    tag: str
    summary: str
    responses: Mapping[str, Json]
    description: str = ""
    parameters: tuple[str, ...] = ()
    body: Json | None = None
    codes: tuple[str, ...] = ()


def operation(endpoint: str, call: Call, problems: ProblemResponses, *, asks_keys: bool) -> Json:
    """The operation object of ``endpoint`` (without a version's alias)."""
    need = NEEDS[endpoint]
    shown: Json = {"operationId": call.operation_id, "tags": [call.tag], "summary": call.summary}
    if call.description:
        shown["description"] = call.description
    names = [*call.parameters, "X-Request-Id"]
    shown["parameters"] = [{"$ref": f"#/components/parameters/{name}"} for name in names]
    if call.body is not None:
        shown["requestBody"] = call.body
    shown["responses"] = {**problems.of(_codes(need, call)), **call.responses}
    shown["security"] = _security(need, asks_keys=asks_keys)
    return shown


def _codes(need: Need, call: Call) -> list[str]:
    codes = [*ANYWHERE, *call.codes]
    if need is not Need.PROBE:
        codes += GATED
    if need not in (Need.PROBE, Need.NOTHING):
        codes += KEYED
    if need in (Need.ALL_ACCOUNTS, Need.OPERATOR):
        codes.append("FORBIDDEN")
    if need is Need.ACCOUNT:
        codes += ("NOT_FOUND", "ACCOUNT_NOT_FOUND")
    if call.body is not None:
        codes += WITH_BODY
    return codes


def _security(need: Need, *, asks_keys: bool) -> list[Json]:
    if need in (Need.PROBE, Need.NOTHING):
        return []
    schemes: list[Json] = [{"bearer": []}, {"apiKey": []}]
    # An API without keys takes them all the same, and does not look at them.
    return schemes if asks_keys else [{}, *schemes]


def answer(
    description: str,
    schema: Json | None,
    *headers: str,
    media_type: str = JSON,
    links: tuple[str, ...] = (),
    shown: Mapping[str, Any] | None = None,
) -> Json:
    """A response object: what it holds, its headers and where they lead."""
    names = (*_ALWAYS, *headers)
    made: Json = {
        "description": description,
        "headers": {name: {"$ref": f"#/components/headers/{name}"} for name in names},
    }
    if schema is not None:
        made["content"] = {media_type: _content(schema, shown)}
    if links:
        made["links"] = {name: {"$ref": f"#/components/links/{name}"} for name in links}
    return made


def page_of(description: str, *media_types: str) -> Json:
    """The response object of something for browsers."""
    shown = answer(description, None, "ETag", "Cache-Control", "Content-Security-Policy")
    shown["content"] = {media_type: {} for media_type in media_types}
    return shown


def _content(schema: Json, shown: Mapping[str, Any] | None) -> Json:
    content: Json = {"schema": schema}
    if shown:
        content["examples"] = {name: {"value": value} for name, value in shown.items()}
    return content


def body(schema: str, shown: Mapping[str, Any]) -> Json:
    """The request body of a call that takes JSON and forms alike."""
    # A form that has a field twice is refused, so no field of it is a list.
    form = {"allOf": [ref(schema)], "additionalProperties": {"type": _SCALARS}}
    forms = dict.fromkeys((FORM, MULTIPART), _content(form, shown))
    return {"required": True, "content": {JSON: _content(ref(schema), shown), **forms}}
