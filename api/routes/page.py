"""GET / and /web/<file>: the page for a person. It holds no data and asks the API like any client.

Only files that are named here are served, so no path can lead to another one.
"""

from dataclasses import dataclass
from functools import cache
from hashlib import blake2b
from importlib.resources import files
from typing import Final

from flask import Blueprint, Response, abort, request
from werkzeug.http import parse_etags

from api.services import services

page = Blueprint("page", __name__)

INDEX: Final = "index.html"

CONTENT_TYPES: Final = {
    INDEX: "text/html; charset=utf-8",
    "icon.svg": "image/svg+xml",
    "page.css": "text/css; charset=utf-8",
    "api.js": "text/javascript; charset=utf-8",
    "blotter.js": "text/javascript; charset=utf-8",
    "decimal.js": "text/javascript; charset=utf-8",
    "dom.js": "text/javascript; charset=utf-8",
    "events.js": "text/javascript; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
    "words.js": "text/javascript; charset=utf-8",
}
"""All that is served, by name."""

CONTENT_SECURITY_POLICY: Final = (
    "default-src 'self'; base-uri 'none'; object-src 'none'; frame-ancestors 'none'; "
    # A form that its script did not get hold of must not put a key into an address.
    "form-action 'none'; "
    # Text never becomes markup: the browser refuses innerHTML and its kin.
    "require-trusted-types-for 'script'; trusted-types 'none'"
)

_HEADERS: Final = (
    ("Content-Security-Policy", CONTENT_SECURITY_POLICY),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    # Kept, but asked for each time: all parts are of one version.
    ("Cache-Control", "no-cache"),
)

_KEYS_OFF: Final = b'data-keys="off"'
_KEYS_REQUIRED: Final = b'data-keys="required"'
_TAG_BYTES: Final = 12


@dataclass(frozen=True, slots=True)
class _File:
    """A file as it is served."""

    content: bytes
    tag: str


@page.get("/")
def index() -> Response:
    """The page itself; it says whether the API asks for keys, as its first refusal would."""
    return _served(INDEX, asks_for_keys=services().settings.access_keys == "required")


@page.get("/web/<file_name>")
def file(file_name: str) -> Response:
    """One of the page's other files: 200, or 304 where the client holds the same already."""
    if file_name not in CONTENT_TYPES or file_name == INDEX:
        abort(404)
    return _served(file_name, asks_for_keys=False)


def _served(name: str, *, asks_for_keys: bool) -> Response:
    found = _load(name, asks_for_keys)
    headers = [*_HEADERS, ("ETag", f'"{found.tag}"'), ("Content-Type", CONTENT_TYPES[name])]
    held = request.environ.get("HTTP_IF_NONE_MATCH")
    if held is not None and parse_etags(held).contains_weak(found.tag):
        return Response(status=304, headers=headers)
    return Response(found.content, headers=headers)


@cache
def _load(name: str, asks_for_keys: bool) -> _File:
    """Read a file of the package; there are few, and they stay in memory."""
    content = (files("api") / "web" / name).read_bytes()
    if asks_for_keys:
        content = content.replace(_KEYS_OFF, _KEYS_REQUIRED)
    return _File(content, blake2b(content, digest_size=_TAG_BYTES).hexdigest())
