"""How many requests a process works on at once; whoever waits for news gives its place away.

Every request that is served holds a place, so that there are as many as the store's and the
brokers' clients have connections. A request that only waits needs none: neither for news nor for
its client to fetch an answer.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import BoundedSemaphore
from typing import Final, Protocol

QUEUE_SECONDS_MAX: Final = 5.0
"""How long a whole request may wait for a place before it is answered 503."""


class NoPlace(Exception):
    """Too many requests are being worked on, for too long."""


class Semaphore(Protocol):
    """What counts the places."""

    def acquire(self, blocking: bool = True, timeout: float | None = None) -> bool:
        """Take one, waiting for at most ``timeout`` seconds."""
        ...

    def release(self) -> None:
        """Give one back."""
        ...


class Places:
    """A number of places, each taken by one request at a time."""

    def __init__(self) -> None:
        """Without a server that counts, there is room for all."""
        self._free: Semaphore | None = None
        self.taken = 0
        """How many are taken now."""
        self._holding: set[int] = set()
        """Threads that have one."""
        self._without: set[int] = set()
        """Threads that came back from a wait to no place in time, and work on without one."""

    def limit(self, number: int, kind: Callable[[int], Semaphore] = BoundedSemaphore) -> None:
        """Have ``number`` places from now on; called before the first request.

        ``kind``: a semaphore that suits the server's threads better than Python's own.
        """
        self._free = kind(number)

    def take(self, seconds: float = QUEUE_SECONDS_MAX) -> bool:
        """Take a place, waiting for it if need be; tells whether there was one in time."""
        if self._free is not None and not self._free.acquire(timeout=seconds):
            return False
        self.taken += 1
        self._holding.add(_this_thread())
        return True

    def give_back(self) -> None:
        """Let the next one in."""
        if _this_thread() in self._without:
            self._without.discard(_this_thread())
            return
        self._holding.discard(_this_thread())
        self.taken -= 1
        if self._free is not None:
            self._free.release()

    @contextmanager
    def left(self) -> Iterator[None]:
        """Wait within this block for something, without a place meanwhile."""
        self.give_back()
        try:
            yield
        finally:
            # It was let in before, and is not refused in the middle.
            if not self.take():
                self._without.add(_this_thread())

    @contextmanager
    def left_if_held(self) -> Iterator[None]:
        """As ``left``; for who has none here, nothing changes."""
        if _this_thread() not in self._holding:
            yield
            return
        with self.left():
            yield

    @contextmanager
    def held(self) -> Iterator[None]:
        """Work within this block, within one of ``left``.

        Raises:
            NoPlace: there was none in time.
        """
        if not self.take():
            raise NoPlace
        try:
            yield
        finally:
            self.give_back()


def _this_thread() -> int:
    # Looked up at each call: this module is there before green threads are in place of threads,
    # and the old function would take all of a process' requests for one.
    return threading.get_ident()


places: Final = Places()
"""Those of this process."""
