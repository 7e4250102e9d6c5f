"""Parameters, headers, links and security schemes, which calls name."""

from collections.abc import Sequence
from typing import Any, Final

from api.event_ids import FROM_THE_BEGINNING
from api.openapi import swagger
from api.openapi.schemas import ref
from api.routes.page import CONTENT_TYPES, INDEX
from api.validation import (
    NUMBER_LENGTH_MAX,
    PAGE_LIMIT_DEFAULT,
    PAGE_LIMIT_MAX,
)
from shared.access import KEY_PREFIX
from shared.settings import Settings

Json = dict[str, Any]

_LONGEST_WAIT: Final = Settings.model_fields["wait_seconds_max"].default
_WHOLE: Final = f"^[0-9]{{1,{NUMBER_LENGTH_MAX - 1}}}$"


def _parameter(name: str, place: str, description: str, schema: Json, **more: Any) -> Json:
    return {"name": name, "in": place, "description": description, "schema": schema, **more}


def parameters() -> dict[str, Json]:
    """All parameters of the document, by name."""
    text: Json = {"type": "string"}
    wait = f"; more than {_LONGEST_WAIT} (`WAIT_SECONDS_MAX`) is taken for so many"
    event = f"Go on after this event; `{FROM_THE_BEGINNING}`: from the account's first order on."
    parts = [
        _parameter("account_id", "path", "The account.", ref("AccountId"), required=True),
        _parameter("order_id", "path", "The order.", ref("OrderId"), required=True),
        _parameter(
            "wait",
            "query",
            f"Answer once the order is decided, or after so many seconds{wait}.",
            {"type": "string", "pattern": _WHOLE, "default": "0"},
        ),
        _parameter(
            "status",
            "query",
            "Only orders of these statuses.",
            {"type": "array", "items": ref("OrderStatus"), "minItems": 1},
            style="form",
            explode=False,
        ),
        _parameter(
            "limit",
            "query",
            "Orders of a page.",
            {
                "type": "integer",
                "minimum": 1,
                "maximum": PAGE_LIMIT_MAX,
                "default": PAGE_LIMIT_DEFAULT,
            },
        ),
        _parameter(
            "cursor",
            "query",
            "The last page's `next_cursor`. Opaque, and good for the same list alone.",
            {"type": "string", "format": "cursor", "minLength": 1},
        ),
        _parameter("last_event_id", "query", event, {**text, "format": "event-id"}),
        _parameter(
            "Last-Event-ID",
            "header",
            f"{event} Counts more than the query.",
            {**text, "format": "event-id"},
        ),
        _parameter(
            "Idempotency-Key",
            "header",
            "A name of the client's for this request: sent again with the same body, it gets the"
            " first answer again, for 24 h.",
            ref("IdempotencyKey"),
        ),
        _parameter(
            "Prefer",
            "header",
            f"`wait=N`: answer once the order is decided, within N seconds{wait}. What is not"
            " understood is ignored (RFC 7240).",
            text,
            example="wait=10",
        ),
        _parameter("If-None-Match", "header", "The `ETag` of what you have.", text),
        _parameter(
            "X-Request-Id",
            "header",
            "Named in the answer and in logs, if it is a plain word.",
            text,
        ),
    ]
    return {
        **{part["name"]: part for part in parts},
        "asset": _file("name", swagger.NAMES),
        "file": _file("file_name", sorted(set(CONTENT_TYPES) - {INDEX})),
    }


def _file(name: str, names: Sequence[str]) -> Json:
    return _parameter(name, "path", "Which file.", {"enum": list(names)}, required=True)


def _header(description: str, schema: Json | None = None, *, required: bool = False) -> Json:
    header: Json = {"description": description, "schema": schema or {"type": "string"}}
    return {**header, "required": True} if required else header


def headers() -> dict[str, Json]:
    """All headers of answers, by name."""
    location = {"type": "string", "format": "uri-reference", "pattern": "^/"}
    return {
        "Allow": _header("The methods that the path takes."),
        "Cache-Control": _header("Who may keep this.", required=True),
        "Content-Security-Policy": _header("What the page may load.", required=True),
        "Deprecation": _header(
            "Since when there is a better path (RFC 9745).",
            {"type": "string", "pattern": "^@[0-9]+$"},
            required=True,
        ),
        "ETag": _header(
            "Names this content.", {"type": "string", "pattern": '^"[^"]+"$'}, required=True
        ),
        "Idempotent-Replayed": _header(
            "This is the first answer again.", {"type": "string", "const": "true"}
        ),
        "Link": _header('The next page (`rel="next"`).'),
        "Successor": _header('The path to use instead (`rel="successor-version"`).', required=True),
        "Location": _header("Where to look at what was made.", location, required=True),
        "Preference-Applied": _header(
            "For how long the answer would have waited.",
            {"type": "string", "pattern": "^wait=[0-9]+$"},
            required=True,
        ),
        "RateLimit": _header("What is left of each limit, where there are any."),
        "RateLimit-Policy": _header("The limits, where there are any."),
        "Retry-After": _header(
            "Seconds to wait.", {"type": "integer", "minimum": 1}, required=True
        ),
        "Sunset": _header("When the path will go, once that is decided (RFC 8594)."),
        "WWW-Authenticate": _header("How to send a key."),
        "X-Request-Id": _header("The request, as logs name it."),
    }


_OWN_ACCOUNT: Final = {"account_id": "$request.path.account_id"}
_MADE_ACCOUNT: Final = {"account_id": "$response.body#/id"}
_ITS_ACCOUNT: Final = {"account_id": "$response.body#/account_id"}
_ITS_ORDER: Final = {**_ITS_ACCOUNT, "order_id": "$response.body#/id"}


def links() -> dict[str, Json]:
    """Where answers lead, by name: always to paths with a version."""
    return {
        "ReadAccount": {"operationId": "readAccount", "parameters": _MADE_ACCOUNT},
        "PlaceOrder": {"operationId": "placeOrder", "parameters": _MADE_ACCOUNT},
        "ListOrdersOfAccount": {"operationId": "listOrders", "parameters": _MADE_ACCOUNT},
        "FollowAccount": {"operationId": "followAccount", "parameters": _MADE_ACCOUNT},
        "ReadOrder": {"operationId": "readOrder", "parameters": _ITS_ORDER},
        "AwaitOrder": {"operationId": "readOrder", "parameters": {**_ITS_ORDER, "wait": "10"}},
        "CancelOrder": {"operationId": "cancelOrder", "parameters": _ITS_ORDER},
        "ListOrders": {"operationId": "listOrders", "parameters": _ITS_ACCOUNT},
        "NextPage": {
            "operationId": "listOrders",
            "parameters": {**_OWN_ACCOUNT, "cursor": "$response.body#/next_cursor"},
        },
    }


def security_schemes() -> dict[str, Json]:
    """How a key is shown, by name."""
    key = f"An access key: `{KEY_PREFIX}<id>.<secret>`."
    return {
        "bearer": {"type": "http", "scheme": "bearer", "description": key},
        "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": key},
    }
