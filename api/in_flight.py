"""Which Idempotency-Keys this process is at work on: a request that repeats one has to wait.

What another process is at work on is not known here, and need not be: the key is recorded in one
transaction with what it made, so the later of two requests finds it and is answered as the first.
"""

import threading
from collections.abc import Iterable

from shared.order_store.records import IdempotencyClaim


class InFlight:
    """Keys in use. Safe to share between threads; holds what requests hold, and no more."""

    def __init__(self) -> None:
        """Start with none."""
        self._lock = threading.Lock()
        self._names: set[tuple[str, str]] = set()

    def enter(self, claim: IdempotencyClaim) -> bool:
        """Take the key of ``claim``; False if a request has it. Who took it calls ``leave``."""
        name = (claim.scope, claim.client_key)
        with self._lock:
            if name in self._names:
                return False
            self._names.add(name)
            return True

    def leave(self, claims: Iterable[IdempotencyClaim]) -> None:
        """Give the keys of ``claims`` back."""
        with self._lock:
            self._names.difference_update((claim.scope, claim.client_key) for claim in claims)
