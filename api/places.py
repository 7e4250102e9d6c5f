"""How many requests a process works on at once; whoever waits for news gives its place away.

Every request that is served holds a place, so that there are as many as the store's and the
brokers' clients have connections. A request that only waits needs none.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import BoundedSemaphore
from typing import Final

QUEUE_SECONDS_MAX: Final = 5.0
"""How long a whole request may wait for a place before it is answered 503."""


class Places:
    """A number of places, each taken by one request at a time."""

    def __init__(self) -> None:
        """Without a server that counts, there is room for all."""
        self._free: BoundedSemaphore | None = None

    def limit(self, number: int) -> None:
        """Have ``number`` places from now on; called before the first request."""
        self._free = BoundedSemaphore(number)

    def take(self, seconds: float = QUEUE_SECONDS_MAX) -> bool:
        """Take a place, waiting for it if need be; tells whether there was one in time."""
        return self._free is None or self._free.acquire(timeout=seconds)

    def give_back(self) -> None:
        """Let the next one in."""
        if self._free is not None:
            self._free.release()

    @contextmanager
    def left(self) -> Iterator[None]:
        """Wait within this block for something, without a place meanwhile."""
        self.give_back()
        try:
            yield
        finally:
            # Its turn comes: it was let in before, and is not refused in the middle.
            self.take(-1 if self._free is None else 2 * QUEUE_SECONDS_MAX)


places: Final = Places()
"""Those of this process."""
