"""The key that a request shows: in one place, once, or it shows none."""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from shared.access import id_in

_BEARER: Final = "bearer "


class Presented(NamedTuple):
    """What a request shows; ``key_id`` is None where that is no single key."""

    is_any: bool
    key_id: str | None = None
    written: str = ""


_NONE: Final = Presented(is_any=False)
_UNREADABLE: Final = Presented(is_any=True)


def read_presented(environ: Mapping[str, Any]) -> Presented:
    """Read ``Authorization: Bearer`` or ``X-API-Key``.

    Where both are sent they must show the same key. A field that is sent twice reaches us as one,
    joined by a comma, which no key contains: so it is no key.
    """
    authorization = environ.get("HTTP_AUTHORIZATION")
    written = environ.get("HTTP_X_API_KEY")
    if authorization is not None:
        if authorization[: len(_BEARER)].lower() != _BEARER:
            return _UNREADABLE
        bearer = authorization[len(_BEARER) :]
        if written is not None and written != bearer:
            return _UNREADABLE
        written = bearer
    if written is None:
        return _NONE
    key_id = id_in(written)
    if key_id is None:
        return _UNREADABLE
    return Presented(True, key_id, written)
