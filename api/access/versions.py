"""Versions of the API: which there are, and what is said of paths without one."""

import re
from datetime import UTC, date, datetime, time
from email.utils import format_datetime
from typing import Final

from api.problems import Problem

VERSION: Final = "1"

DEPRECATED_AT: Final = datetime(2026, 11, 24, tzinfo=UTC)
"""Since when the paths without a version are aliases that new clients should not use."""

_PATH: Final = re.compile(r"/v([0-9]{1,9})(/|$)", re.ASCII)
# A parameter of the media type, or in its name as in application/vnd.orders.v2+json.
_ACCEPTED: Final = re.compile(
    r";\s*version\s*=\s*\"?([^\s;,\"]*)|\.v([0-9]+)(?![0-9a-z])", re.IGNORECASE
)


def refuse_unknown_path(path: str) -> None:
    """Say which versions there are to whoever asks for another one.

    Raises:
        Problem: 404, the path is of another version.
    """
    match = _PATH.match(path)
    if match and match[1] != VERSION:
        raise Problem(
            404,
            "NOT_FOUND",
            f"There is no version {match[1]} of this API; there is /v{VERSION}.",
        )


def refuse_unknown_accept(accept: str) -> None:
    """See that a client which names a version in Accept names one that there is.

    Raises:
        Problem: 406, it asks for others alone.
    """
    asked = [parameter or name for parameter, name in _ACCEPTED.findall(accept)]
    if asked and VERSION not in asked:
        raise Problem(406, "NOT_ACCEPTABLE", f"There is version {VERSION} of this API alone.")


def alias_fields(sunset: date | None) -> list[tuple[str, str]]:
    """What every answer on a path without a version says (RFC 9745, RFC 8594)."""
    fields = [("Deprecation", f"@{int(DEPRECATED_AT.timestamp())}")]
    if sunset is not None:
        instant = datetime.combine(sunset, time(), UTC)
        fields.append(("Sunset", format_datetime(instant, usegmt=True)))
    return fields


def successor(path: str) -> str:
    """The Link field that names the same path with its version."""
    return f'</v{VERSION}{path}>; rel="successor-version"'
