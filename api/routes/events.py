"""GET /accounts/<id>/events: the account's decided orders, as they are decided."""

from flask import Blueprint, Response, request

from api import access
from api.services import services
from api.validation import read_last_event_id

events = Blueprint("events", __name__)

_EVENT_STREAM = "text/event-stream"


@events.get("/accounts/<account:account_id>/events")
def stream(account_id: int) -> Response:
    """Stream the account's decided orders, from now on or after the last event that was seen."""
    api = services()
    since = read_last_event_id(request, account_id)
    # For the proxies on the way: keep nothing, and hold nothing back.
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    if request.method == "HEAD":
        api.status.account(account_id)
        return Response(mimetype=_EVENT_STREAM, headers=headers)
    opened = api.streams.open(account_id, since)
    chunks = access.while_admitted(opened.chunks())
    response = Response(chunks, mimetype=_EVENT_STREAM, headers=headers)
    # Even if nobody fetches a first byte.
    response.call_on_close(opened.close)
    return response
