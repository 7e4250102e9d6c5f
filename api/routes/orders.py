"""POST and GET of an account's orders."""

from flask import Blueprint, Response, request, url_for

from api.acceptance import OrderRequest, Repeated, fingerprint
from api.problems import RETRY_AFTER_SECONDS, FieldError, invalid
from api.routes.answers import JSON, answer, claim_for, made
from api.services import services
from api.validation import OrderBody, read_body, read_limit
from shared.ids import is_order_id
from shared.representation import show_accepted

orders = Blueprint("orders", __name__)


@orders.post("/accounts/<account:account_id>/orders")
def place(account_id: int) -> Response:
    """Accept an order: 202, to be polled at its Location."""
    api = services()
    received_at = api.clock()
    body = read_body(request, OrderBody)
    outcome = api.orders.submit(
        OrderRequest(
            account_id,
            body,
            received_at,
            claim_for(request, f"account/{account_id}", fingerprint(body)),
            deadline=api.deadline(),
        )
    )
    if isinstance(outcome, Repeated):
        order = api.status.recorded(account_id, outcome.result).order
    else:
        order = outcome.order
    location = url_for(".show", account_id=account_id, order_id=order.id)
    response = made(show_accepted(order), 202, location, is_repeated=isinstance(outcome, Repeated))
    response.headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    return response


@orders.get("/accounts/<account:account_id>/orders/<order_id>")
def show(account_id: int, order_id: str) -> Response:
    """Show an order and, once it is decided, why and what the account holds after it."""
    return Response(services().status.order(account_id, order_id), mimetype=JSON)


@orders.get("/accounts/<account:account_id>/orders")
def page(account_id: int) -> Response:
    """List an account's orders, newest first."""
    before = request.args.get("cursor")
    if before is not None and not is_order_id(before):
        raise invalid([FieldError("/cursor", "is not a cursor of this service")])
    found = services().status.page(account_id, read_limit(request), before)
    return answer({"orders": found.orders, "next_cursor": found.next_before}, 200)
