"""What the routes' answers have in common."""

from collections.abc import Mapping
from typing import Any, Final

from flask import Request, Response

from api.validation import read_idempotency_key
from shared.order_store.records import IdempotencyClaim
from shared.representation import to_json

JSON: Final = "application/json"


def answer(shown: Mapping[str, Any], status: int) -> Response:
    """A JSON answer."""
    return Response(to_json(shown), status, mimetype=JSON)


def made(shown: Mapping[str, Any], status: int, location: str, *, is_repeated: bool) -> Response:
    """The answer to a POST: what it made, now or when it was first sent, and where that is."""
    response = answer(shown, status)
    response.headers["Location"] = location
    if is_repeated:
        response.headers["Idempotent-Replayed"] = "true"
    return response


def claim_for(request: Request, scope: str, asked: str) -> IdempotencyClaim | None:
    """The claim of a request that may be repeated; ``asked`` is the hash of its body."""
    key = read_idempotency_key(request)
    return IdempotencyClaim(scope, key, asked) if key is not None else None
