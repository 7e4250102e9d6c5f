"""What the document shows of requests and answers."""

import json
from typing import Any, Final

Json = dict[str, Any]

ORDER_ID: Final = "019cafb4-fd00-7000-b69c-18c7a9b198ec"
ANOTHER_ORDER_ID: Final = "019cafb4-fd00-7001-b075-78f5c9eca6f6"
CURSOR: Final = "AQGcr7T9AHABsHV49cnspvY7GVgciHJp"
EVENT_ID: Final = "AQAAAAAAAAACAZyvtP0AcAC2nBjHqbGY7Gtvq6bJm7Cq"

NEW_ACCOUNT: Final[Json] = {"cash": 1000}
NEW_ORDER: Final[Json] = {
    "timestamp": 1772474400,
    "operation": "BUY",
    "issuer_name": "GBM",
    "total_shares": 10,
    "share_price": 50.5,
}
NEW_SALE: Final[Json] = {
    "timestamp": "2026-03-02T18:00:00Z",
    "operation": "sell",
    "issuer_name": "GBM",
    "total_shares": "3",
    "share_price": "51.25",
}
POSITIONS: Final = [{"issuer_name": "GBM", "total_shares": 10, "share_price": "50.5"}]
OPENED: Final[Json] = {"id": 1, "cash": "1000", "issuers": []}
ACCOUNT: Final[Json] = {"id": 1, "cash": "495", "issuers": POSITIONS}
PENDING: Final[Json] = {
    "id": ORDER_ID,
    "account_id": 1,
    "status": "pending",
    "operation": "BUY",
    "issuer_name": "GBM",
    "total_shares": 10,
    "share_price": "50.5",
    "timestamp": 1772474400,
    "received_at": "2026-03-02T18:00:00.000000Z",
    "decided_at": None,
    "business_errors": [],
    "current_balance": None,
}
EXECUTED: Final[Json] = {
    **PENDING,
    "status": "executed",
    "decided_at": "2026-03-02T18:00:00.041203Z",
    "current_balance": {"cash": "495", "issuers": POSITIONS},
}
REJECTED: Final[Json] = {
    **EXECUTED,
    "id": ANOTHER_ORDER_ID,
    "status": "rejected",
    "business_errors": ["INSUFFICIENT_BALANCE", "DUPLICATED_OPERATION"],
}
CANCELLED: Final[Json] = {
    **PENDING,
    "id": ANOTHER_ORDER_ID,
    "status": "cancelled",
    "decided_at": "2026-03-02T18:00:00.032118Z",
}
PAGE: Final[Json] = {"orders": [REJECTED], "next_cursor": CURSOR}
LAST_PAGE: Final[Json] = {"orders": [EXECUTED], "next_cursor": None}
BULK: Final = [
    {"account_id": 1, **NEW_ORDER},
    {"account_id": 1, "idempotency_key": "my-key-2", **NEW_SALE},
]
BULK_ANSWERS: Final = [
    {"line": 1, "status": 202, "order": PENDING},
    {
        "line": 2,
        "status": 404,
        "problem": {
            "type": "about:blank",
            "title": "Not Found",
            "status": 404,
            "code": "ACCOUNT_NOT_FOUND",
            "detail": "There is no account 1.",
        },
    },
]
EVENTS: Final = (
    "retry: 2000\nid: AQAAAAAAAAABAZyvtP0AcAC2nBjHqbGY7JRhzlG5AaaM\n\n"
    f"id: {EVENT_ID}\nevent: order\ndata: {json.dumps(EXECUTED, separators=(',', ':'))}\n\n:\n\n"
)


def lines(values: list[Json]) -> str:
    """``values`` as NDJSON."""
    return "".join(json.dumps(value) + "\n" for value in values)
