"""The audit log: a line for each request that may change something, refused ones included.

Nothing stands in it that a client may write as it likes, so that no secret gets there by mistake.
"""

from typing import TYPE_CHECKING, Final

from flask import Request, Response

from shared.ids import is_order_id
from shared.logs import get_logger

if TYPE_CHECKING:
    from api.access.gate import Visit

AUDIT_ORDERS_MAX: Final = 1_000
"""Orders that one line names."""

_ACCEPTED: Final = 202

log = get_logger(__name__)


def write_audit_line(request: Request, response: Response, visit: "Visit", request_id: str) -> None:
    """Say who did what: at once, or when the last byte of a streamed answer is sent."""

    def write() -> None:
        orders = _orders(request, response, visit)
        log.info(
            "request",
            request_id=request_id,
            key=visit.key.id if visit.key else None,
            refused_key=visit.shown_id if visit.key is None else None,
            address=visit.address,
            method=request.method,
            route=request.url_rule.rule if request.url_rule else None,
            account=_account(request, response),
            orders=orders[:AUDIT_ORDERS_MAX],
            status=response.status_code,
            replayed="Idempotent-Replayed" in response.headers,
        )

    if response.is_streamed:
        response.call_on_close(write)
    else:
        write()


def _account(request: Request, response: Response) -> int | None:
    named = (request.view_args or {}).get("account_id")
    if named is not None:
        return int(named)
    made = response.headers.get("Location", "").rpartition("/")[2]
    return int(made) if made.isascii() and made.isdigit() else None


def _orders(request: Request, response: Response, visit: "Visit") -> list[str]:
    if visit.orders:
        return visit.orders
    named = (request.view_args or {}).get("order_id")
    if named is not None:
        # What is no id may be anything, a misplaced key included.
        return [str(named)] if is_order_id(str(named)) else []
    if response.status_code == _ACCEPTED and "Location" in response.headers:
        return [response.headers["Location"].rpartition("/")[2]]
    return []
