"""GET /openapi.json (the API as a document) and GET /docs (the same as a page to try it)."""

from typing import Final

from flask import Blueprint, Response, current_app, request

from api.openapi import document, swagger
from api.problems import Problem
from api.routes.answers import JSON, tagged
from api.services import services
from shared.representation import to_json

documentation = Blueprint("documentation", __name__)

EXTENSION: Final = "openapi"
"""Where an application keeps its document."""

_FOR_ANYBODY: Final = "no-cache"
_PAGE_HEADERS: Final = (
    ("Content-Security-Policy", swagger.CONTENT_SECURITY_POLICY),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
)


@documentation.get("/openapi.json")
def show() -> Response:
    """Show the OpenAPI document."""
    return tagged(request, _document(), JSON, _FOR_ANYBODY)


@documentation.get("/docs")
def browse() -> Response:
    """Show Swagger UI."""
    return _for_browsers(swagger.HTML, "text/html")


@documentation.get("/docs/<name>")
def asset(name: str) -> Response:
    """Show a file that the page loads."""
    found = swagger.asset(name)
    if found is None:
        raise Problem(404, "NOT_FOUND", "The page has no such file.")
    return _for_browsers(found.content, found.media_type)


def _for_browsers(content: bytes, media_type: str) -> Response:
    response = tagged(request, content, f"{media_type}; charset=utf-8", _FOR_ANYBODY)
    response.headers.extend(_PAGE_HEADERS)
    return response


def _document() -> bytes:
    """The document, made when it is asked for first: most processes never are."""
    known = current_app.extensions.get(EXTENSION)
    if known is None:
        asks_keys = services().settings.access_keys == "required"
        known = to_json(document.build(current_app.url_map, asks_keys=asks_keys))
        current_app.extensions[EXTENSION] = known
    return bytes(known)
