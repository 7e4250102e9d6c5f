"""A pause after a failure: one slow call must not become one slow call for each request."""

import time
from collections.abc import Callable


class Cooldown:
    """Remembers that a service failed, so that it is left alone for a while.

    Safe to share between threads: a lost update only costs one call more.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Leave the service alone for ``seconds`` after each failure."""
        self._seconds = seconds
        self._clock = clock
        self._resume_at = 0.0

    @property
    def is_active(self) -> bool:
        """The service failed a moment ago."""
        return self._clock() < self._resume_at

    def start(self) -> None:
        """Note a failure."""
        self._resume_at = self._clock() + self._seconds
