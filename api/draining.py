"""Whether this process is about to stop: its server says so, ``/readyz`` and each answer tell.

A balancer needs a while to see that an instance goes. During that while everything is still
served, but ``/readyz`` is 503 and every answer closes its connection, so that clients and
balancers leave in order instead of being cut off.
"""

from collections.abc import Callable
from threading import Event
from typing import Final

_draining: Final = Event()
_to_tell: Final[list[Callable[[], None]]] = []


def begin() -> None:
    """Say from now on that this process is about to stop."""
    _draining.set()
    for tell in _to_tell:
        tell()


def call_when_begun(tell: Callable[[], None]) -> None:
    """Have ``tell``, which must not wait, called once this process is about to stop."""
    _to_tell.append(tell)


def is_draining() -> bool:
    """Tell whether this process is about to stop."""
    return _draining.is_set()
