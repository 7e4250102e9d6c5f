"""Whether this process is about to stop: its server says so, ``/readyz`` and each answer tell.

A balancer needs a while to see that an instance goes. During that while everything is still
served, but ``/readyz`` is 503 and every answer closes its connection, so that clients and
balancers leave in order instead of being cut off.
"""

from threading import Event
from typing import Final

_draining: Final = Event()


def begin() -> None:
    """Say from now on that this process is about to stop."""
    _draining.set()


def is_draining() -> bool:
    """Tell whether this process is about to stop."""
    return _draining.is_set()
