"""The calls: what each endpoint takes and answers."""

from collections.abc import Mapping
from typing import Any, Final

from api.openapi import examples
from api.openapi.operations import EVENT_STREAM, Call, answer, body, page_of
from api.openapi.problems import REPEATABLE
from api.openapi.schemas import ref
from api.routes.bulk import NDJSON
from api.validation import BULK_LINES_MAX
from shared.settings import Settings

_CACHED: Final = ("ETag", "Cache-Control")
_MADE: Final = ("Location", "Idempotent-Replayed")
_UNCHANGED: Final = answer("What you have is what there is.", None, *_CACHED)
_SHOWN_ORDER: Final = {"anyOf": [ref("Order"), ref("DamagedOrder")]}
_ORDER_EXAMPLES: Final = {
    "pending": examples.PENDING,
    "executed": examples.EXECUTED,
    "rejected": examples.REJECTED,
}
_ORDER_LINKS: Final = ("ReadOrder", "AwaitOrder", "CancelOrder", "ListOrders")


def _default(setting: str) -> Any:
    return Settings.model_fields[setting].default


_OPEN: Final = Call(
    "openAccount",
    "Accounts",
    "Open an account",
    {
        "201": answer(
            "It is open.",
            ref("Account"),
            *_MADE,
            links=("ReadAccount", "PlaceOrder", "ListOrdersOfAccount", "FollowAccount"),
            shown={"account": examples.OPENED},
        )
    },
    parameters=("Idempotency-Key",),
    body=body("NewAccount", {"account": examples.NEW_ACCOUNT}),
    codes=("INVALID_OPERATION", *REPEATABLE),
)

_SHOW_ACCOUNT: Final = Call(
    "readAccount",
    "Accounts",
    "Look at an account: cash and positions",
    {
        "200": answer(
            "How it stands.", ref("Account"), *_CACHED, shown={"account": examples.ACCOUNT}
        ),
        "304": _UNCHANGED,
    },
    parameters=("account_id", "If-None-Match"),
)

_PLACE: Final = Call(
    "placeOrder",
    "Orders",
    "Place an order",
    {
        "202": answer(
            "It is recorded and will be decided. Look at `Location`, or wait there.",
            ref("Order"),
            *_MADE,
            "Retry-After",
            links=_ORDER_LINKS,
            shown={"pending": examples.PENDING},
        ),
        "200": answer(
            "It was waited for (`Prefer: wait`) and is decided.",
            _SHOWN_ORDER,
            *_MADE,
            "Preference-Applied",
            links=_ORDER_LINKS,
            shown={"executed": examples.EXECUTED, "rejected": examples.REJECTED},
        ),
    },
    description="Whether the account has the cash or the shares is decided later, in the sequence"
    " in which its orders were accepted. A broken rule is no error of the request: the order is"
    " `rejected`, with all of `business_errors`, and changes nothing.",
    parameters=("account_id", "Idempotency-Key", "Prefer"),
    body=body("NewOrder", {"buy": examples.NEW_ORDER, "sell": examples.NEW_SALE}),
    codes=("INVALID_OPERATION", *REPEATABLE),
)

_SHOW_ORDER: Final = Call(
    "readOrder",
    "Orders",
    "Look at an order, or wait until it is decided",
    {
        "200": answer("How it stands.", _SHOWN_ORDER, *_CACHED, shown=_ORDER_EXAMPLES),
        "304": _UNCHANGED,
    },
    parameters=("account_id", "order_id", "wait", "If-None-Match"),
    codes=("ORDER_NOT_FOUND", "INVALID_OPERATION"),
)

_CANCEL: Final = Call(
    "cancelOrder",
    "Orders",
    "Cancel a pending order",
    {
        "200": answer(
            "It is cancelled, now or before.",
            ref("Order"),
            links=("ReadOrder",),
            shown={"cancelled": examples.CANCELLED},
        )
    },
    description="The order stays and can be read. A worker and this call may race: exactly one of"
    " them wins.",
    parameters=("account_id", "order_id"),
    codes=("ORDER_NOT_FOUND", "ORDER_DECIDED"),
)

_LIST: Final = Call(
    "listOrders",
    "Orders",
    "List an account's orders, newest first",
    {
        "200": answer(
            "A page. One of a filtered list may hold fewer orders than `limit` and not be the"
            " last.",
            ref("OrderPage"),
            *_CACHED,
            "Link",
            links=("NextPage",),
            shown={"page": examples.PAGE, "last page": examples.LAST_PAGE},
        ),
        "304": _UNCHANGED,
    },
    parameters=("account_id", "status", "limit", "cursor", "If-None-Match"),
    codes=("INVALID_OPERATION",),
)

_BULK: Final = Call(
    "placeOrders",
    "Orders",
    f"Place up to {BULK_LINES_MAX:,} orders over any accounts",
    {
        "200": answer(
            "One line for each that is not blank, in their sequence; each is a `BulkAnswer`.",
            {"type": "string", "contentMediaType": NDJSON, "contentSchema": ref("BulkAnswer")},
            media_type=NDJSON,
            shown={"answers": examples.lines(examples.BULK_ANSWERS)},
        )
    },
    description="One JSON object on each line (NDJSON), a `NewOrderOfAccount`. Each line is"
    " answered by itself, as the single call would have answered it: a bad line spoils no good one."
    " The key of a line without `idempotency_key` is the request's, `/` and the line's number.",
    parameters=("Idempotency-Key",),
    body={
        "required": True,
        "content": {
            NDJSON: {
                "schema": {
                    "type": "string",
                    "minLength": 1,
                    "contentMediaType": NDJSON,
                    "contentSchema": ref("NewOrderOfAccount"),
                },
                "examples": {"orders": {"value": examples.lines(examples.BULK)}},
            }
        },
    },
    codes=("INVALID_IDEMPOTENCY_KEY",),
)

_EVENTS: Final = Call(
    "followAccount",
    "Orders",
    "Follow an account: its orders as they are decided",
    {
        "200": answer(
            "Each is an `Event`; their ids say where to go on.",
            ref("Event"),
            "Cache-Control",
            media_type=EVENT_STREAM,
            shown={"events": examples.EVENTS},
        )
    },
    description="A comment comes at least every 15 s. After"
    f" {_default('stream_seconds_max') / 3600:g} h at most (`STREAM_SECONDS_MAX`) the stream ends:"
    " connect again with the last id, and nothing is missing and nothing comes twice.",
    parameters=("account_id", "Last-Event-ID", "last_event_id"),
    codes=("INVALID_OPERATION", "TOO_MANY_STREAMS", "OVERLOADED"),
)

_ALIVE: Final = Call(
    "isAlive",
    "Health",
    "Whether the process lives",
    {"200": answer("It does.", ref("Alive"), shown={"alive": {"status": "ok"}})},
)

_READY: Final = Call(
    "isReady",
    "Health",
    "Whether what it needs answers",
    {
        "200": answer(
            "Send requests; `degraded` means without Redis, and slower.",
            ref("Readiness"),
            shown={"ok": {"status": "ok"}},
        ),
        "503": answer(
            "Send no requests.", ref("Readiness"), shown={"draining": {"status": "draining"}}
        ),
    },
)

_METRICS: Final = Call(
    "readMetrics",
    "Health",
    "What the instance counted, for Prometheus",
    {"200": answer("Metrics as text.", {"type": "string"}, media_type="text/plain")},
    description="For operators alone where keys are required.",
    codes=("NOT_FOUND",),
)

_DOCUMENT: Final = Call(
    "readDocument",
    "Documentation",
    "This document",
    {
        "200": answer("OpenAPI 3.1.", {"type": "object"}, *_CACHED),
        "304": _UNCHANGED,
    },
    parameters=("If-None-Match",),
)

_PAGE: Final = Call(
    "browseDocument",
    "Documentation",
    "This document as a page to try it (Swagger UI)",
    {"200": page_of("The page.", "text/html"), "304": _UNCHANGED},
    parameters=("If-None-Match",),
)

_ASSET: Final = Call(
    "loadPagePart",
    "Documentation",
    "What the page is made of",
    {
        "200": page_of("A script, a style or an icon.", "text/javascript", "text/css", "image/png"),
        "304": _UNCHANGED,
    },
    parameters=("asset", "If-None-Match"),
    codes=("NOT_FOUND",),
)

_INDEX: Final = Call(
    "openPage",
    "Documentation",
    "The page for a person: trade and follow an account",
    {"200": page_of("The page.", "text/html"), "304": _UNCHANGED},
    parameters=("If-None-Match",),
)

_FILE: Final = Call(
    "loadPageFile",
    "Documentation",
    "What that page is made of",
    {
        "200": page_of(
            "A script, a style or an icon.", "text/javascript", "text/css", "image/svg+xml"
        ),
        "304": _UNCHANGED,
    },
    parameters=("file", "If-None-Match"),
    codes=("NOT_FOUND",),
)

CALLS: Final[Mapping[str, Call]] = {
    "accounts.open_account": _OPEN,
    "accounts.show": _SHOW_ACCOUNT,
    "orders.place": _PLACE,
    "orders.page": _LIST,
    "orders.show": _SHOW_ORDER,
    "orders.cancel": _CANCEL,
    "bulk.place_many": _BULK,
    "events.stream": _EVENTS,
    "health.alive": _ALIVE,
    "health.ready": _READY,
    "metrics.show": _METRICS,
    "documentation.show": _DOCUMENT,
    "documentation.browse": _PAGE,
    "documentation.asset": _ASSET,
    "page.index": _INDEX,
    "page.file": _FILE,
}
"""By endpoint, as in ``api.access.needs``: a route that is not here fails a test."""
