"""Whether this process is about to stop: its server says so, ``/readyz`` and each answer tell.

A balancer needs a while to see that an instance goes. During that while everything is still
served, but ``/readyz`` is 503 and every answer closes its connection, so that clients and
balancers leave in order instead of being cut off.
"""

import math
from collections.abc import Callable
from threading import Event
from typing import Final

_draining: Final = Event()
_to_tell: Final[list[Callable[[], None]]] = []


_ends_at = math.inf


def begin(ends_at: float = math.inf) -> None:
    """Say from now on that this process is about to stop, at ``ends_at`` on the monotonic clock."""
    global _ends_at
    _ends_at = ends_at
    _draining.set()
    for tell in _to_tell:
        tell()


def call_when_begun(tell: Callable[[], None]) -> None:
    """Have ``tell``, which must not wait, called once this process is about to stop."""
    _to_tell.append(tell)


def in_time(deadline: float) -> float:
    """``deadline``, or earlier: an answer that the end would cut off is of no use."""
    return min(deadline, _ends_at)


def is_draining() -> bool:
    """Tell whether this process is about to stop."""
    return _draining.is_set()
