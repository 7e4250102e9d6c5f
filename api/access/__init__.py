"""Who may call, how often, from where, and who did what: decided before any route runs.

``api/access/needs.py`` says what each route asks for; a route that is not named there is refused.
"""

from collections.abc import Callable, Iterator, MutableMapping
from typing import Any

from flask import has_request_context, request

from api.access.gate import Gate, build_parts, current_gate, note_orders, protect
from api.access.needs import NEEDS, UNVERSIONED, Need

__all__ = [
    "NEEDS",
    "UNVERSIONED",
    "Gate",
    "Need",
    "build_parts",
    "is_operator",
    "may_reach",
    "name_request",
    "noted_orders",
    "origin",
    "protect",
    "reach",
    "spend",
    "while_admitted",
]


def may_reach(account_id: int) -> bool:
    """Tell whether the key of the current request is good for the account, existing or not."""
    return reach()(account_id)


def reach() -> Callable[[int], bool]:
    """``may_reach`` of the current request, also for after its end (a streamed answer)."""
    return current_gate().reach(request.environ)


def while_admitted(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """``chunks`` of a stream, to its end or until the key of the current request is not good."""
    return current_gate().while_admitted(request.environ, chunks)


def origin() -> str:
    """The current request's id and, after a blank, its key's id if it has one."""
    return current_gate().origin(request.environ)


def name_request(
    _logger: Any, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """A step of the logs: say in which request something happened, if it was in one."""
    if has_request_context() and "request_id" not in event:
        event["request_id"] = current_gate().request_id(request.environ)
    return event


def is_operator() -> bool:
    """Tell whether the current request may see what is for operators alone."""
    return current_gate().is_operator(request.environ)


def spend(requests: int) -> None:
    """Count ``requests`` more against the key of the current request.

    Raises:
        Problem: 429, they are too many.
    """
    current_gate().spend(request.environ, requests)


def noted_orders() -> list[str]:
    """Where a route that makes many orders writes their ids down, for the audit log."""
    return note_orders(request.environ)
