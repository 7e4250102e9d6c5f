"""Who may call, how often, from where, and who did what: decided before any route runs.

``api/access/needs.py`` says what each route asks for; a route that is not named there is refused.
"""

from collections.abc import Callable, Iterator

from flask import request

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
    "noted_orders",
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
