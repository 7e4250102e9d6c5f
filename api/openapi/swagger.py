"""Swagger UI, from its pinned package: a page that loads nothing from anywhere else.

The package is a Flask blueprint around Swagger UI's files. Its page has a script of its own inside,
which a strict Content-Security-Policy forbids; so its files are taken and the page is ours.
"""

from functools import cache
from importlib.resources import files
from typing import Final, NamedTuple

_PACKAGE: Final = "flask_swagger_ui"

CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:;"
    " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

HTML: Final = b"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Order processor: the HTTP API</title>
<link rel="icon" type="image/png" href="docs/favicon-32x32.png">
<link rel="stylesheet" href="docs/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<noscript>
This page needs JavaScript. The document itself: <a href="openapi.json">openapi.json</a>
</noscript>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
"""

_START: Final = b"""SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  docExpansion: "list",
  // Anything else would have it ask a server of its makers whether the document is valid.
  validatorUrl: null,
});
"""

_MEDIA_TYPES: Final = {
    "swagger-ui.css": "text/css",
    "swagger-ui-bundle.js": "text/javascript",
    "favicon-32x32.png": "image/png",
}

NAMES: Final = (*_MEDIA_TYPES, "start.js")
"""All files that the page loads."""


class Asset(NamedTuple):
    """A file that the page loads."""

    media_type: str
    content: bytes


def asset(name: str) -> Asset | None:
    """The file called ``name``; None: the page has no such file."""
    return _load(name) if name in NAMES else None


@cache
def _load(name: str) -> Asset:
    """Read a file; there are few, and they stay in memory."""
    if name not in _MEDIA_TYPES:
        return Asset("text/javascript", _START)
    return Asset(_MEDIA_TYPES[name], files(_PACKAGE).joinpath("dist", name).read_bytes())
