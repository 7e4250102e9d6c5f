"""What the routes' answers have in common."""

from collections.abc import Mapping
from hashlib import blake2b
from typing import Any, Final

from flask import Request, Response
from werkzeug.http import parse_etags

from api.validation import read_idempotency_key
from shared.order_store.records import IdempotencyClaim
from shared.representation import to_json

JSON: Final = "application/json"

_TAG_BYTES: Final = 12
# Each caller sees its own accounts, for as long as its key is good: keep it, but ask again.
_REVALIDATE: Final = "private, no-cache"


def answer(shown: Mapping[str, Any], status: int) -> Response:
    """A JSON answer."""
    return Response(to_json(shown), status, mimetype=JSON)


def read(request: Request, body: bytes) -> Response:
    """The answer to a GET: ``body`` (JSON), or 304 where the client holds the same already."""
    return tagged(request, body, JSON, _REVALIDATE)


def tagged(request: Request, body: bytes, content_type: str, cache_control: str) -> Response:
    """An answer with an ``ETag``, or 304 where the client holds the same already."""
    tag = blake2b(body, digest_size=_TAG_BYTES).hexdigest()
    headers = [
        ("Content-Type", content_type),
        ("ETag", f'"{tag}"'),
        ("Cache-Control", cache_control),
    ]
    held = request.environ.get("HTTP_IF_NONE_MATCH")
    if held is not None and parse_etags(held).contains_weak(tag):
        return Response(status=304, headers=headers)
    return Response(body, headers=headers)


def made(body: bytes, status: int, location: str, *, is_repeated: bool) -> Response:
    """The answer to a POST: what it made (JSON), now or when first sent, and where that is."""
    response = Response(body, status, mimetype=JSON)
    response.headers["Location"] = location
    if is_repeated:
        response.headers["Idempotent-Replayed"] = "true"
    return response


def claim_for(request: Request, scope: str, asked: str) -> IdempotencyClaim | None:
    """The claim of a request that may be repeated; ``asked`` is the hash of its body."""
    key = read_idempotency_key(request)
    return IdempotencyClaim(scope, key, asked) if key is not None else None
