"""POST, GET and DELETE of an account's orders."""

from urllib.parse import urlencode

from flask import Blueprint, Response, request, url_for

from api import access
from api.acceptance import OrderRequest, Repeated, fingerprint, order_of, order_scope
from api.cursors import write_cursor
from api.problems import RETRY_AFTER_SECONDS
from api.routes.answers import JSON, claim_for, made, read
from api.services import services
from api.validation import (
    OrderBody,
    read_before,
    read_body,
    read_limit,
    read_statuses,
    read_wait,
    read_wait_preference,
)
from shared import tracing
from shared.domain.order import Order
from shared.order_store.records import AcceptedOrder
from shared.representation import show_accepted, to_json

orders = Blueprint("orders", __name__)


@orders.post("/accounts/<account:account_id>/orders")
def place(account_id: int) -> Response:
    """Accept an order: 202, to be polled at its Location; 200 if it is waited for and decided."""
    api = services()
    received_at = api.clock()
    seconds = api.long_poll.allowed(read_wait_preference(request))
    deadline = api.long_poll.deadline(seconds)
    body = read_body(request, OrderBody)
    outcome = api.orders.submit(
        OrderRequest(
            account_id,
            body,
            received_at,
            claim_for(request, order_scope(account_id), fingerprint(body)),
            deadline=api.deadline(),
            origin=access.origin(),
            trace=tracing.here(),
        )
    )
    is_repeated = isinstance(outcome, Repeated)
    order = _placed(outcome, account_id, body)
    location = url_for(".show", account_id=account_id, order_id=order.id)
    if seconds:
        decided = api.long_poll.decision(account_id, order.id, deadline, is_new=not is_repeated)
        if decided is not None:
            response = made(decided, 200, location, is_repeated=is_repeated)
            response.headers["Preference-Applied"] = f"wait={seconds}"
            return response
    response = made(to_json(show_accepted(order)), 202, location, is_repeated=is_repeated)
    response.headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    return response


def _placed(outcome: AcceptedOrder | Repeated, account_id: int, body: OrderBody) -> Order:
    """The order that a request made, now or when it was sent first."""
    if not isinstance(outcome, Repeated):
        return outcome.order
    if outcome.received_at is None:
        return services().status.recorded(account_id, outcome.result).order
    # Of an equal request all but the id and the time are known.
    return order_of(body, account_id, outcome.result, outcome.received_at)


@orders.get("/accounts/<account:account_id>/orders/<order_id>")
def show(account_id: int, order_id: str) -> Response:
    """Show an order and, once it is decided, why and what the account holds after it.

    With ``?wait=`` not before it is decided, or that many seconds have passed.
    """
    api = services()
    seconds = api.long_poll.allowed(read_wait(request))
    if not seconds:
        return read(request, api.status.order(account_id, order_id))
    deadline = api.long_poll.deadline(seconds)
    return read(request, api.long_poll.order(account_id, order_id, deadline))


@orders.delete("/accounts/<account:account_id>/orders/<order_id>")
def cancel(account_id: int, order_id: str) -> Response:
    """Cancel a pending order: 200 with it, also if it was cancelled before; 409 once decided."""
    api = services()
    return Response(api.canceller.cancel(account_id, order_id, api.deadline()), mimetype=JSON)


@orders.get("/accounts/<account:account_id>/orders")
def page(account_id: int) -> Response:
    """List an account's orders, newest first, all or those of some statuses."""
    limit, statuses = read_limit(request), read_statuses(request)
    before = read_before(request, account_id, statuses)
    found = services().status.page(account_id, limit, before, statuses)
    cursor = None
    if found.next_before is not None:
        cursor = write_cursor(found.next_before, account_id, statuses)
    response = read(request, to_json({"orders": found.orders, "next_cursor": cursor}))
    if cursor is not None:
        query = {name: request.args[name] for name in ("status", "limit") if name in request.args}
        query["cursor"] = cursor
        response.headers.add("Link", f'<{request.path}?{urlencode(query)}>; rel="next"')
    return response
