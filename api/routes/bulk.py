"""POST /orders/bulk: many orders over any accounts, one on each line."""

from typing import Final

from flask import Blueprint, Response, request

from api import access
from api.body_limits import BULK_PATH
from api.services import services
from api.validation import read_idempotency_key, read_lines

bulk = Blueprint("bulk", __name__)

NDJSON: Final = "application/x-ndjson"


@bulk.post(BULK_PATH)
def place_many() -> Response:
    """Accept orders: 200 with one line for each of them, which says what became of it."""
    api = services()
    received_at = api.clock()
    key = read_idempotency_key(request)
    lines = read_lines(request, api.settings.bulk_body_bytes_max)
    # The request itself was counted already.
    access.spend(len(lines) - 1)
    answers = api.bulk.answers(
        lines,
        key,
        received_at,
        may_reach=access.reach(),
        made=access.noted_orders(),
        origin=access.origin(),
    )
    return Response(answers, mimetype=NDJSON)
