"""Turns by account: groups that would overtake each other at an account's head go one by one.

The store refuses the group whose ids come too late, and it has to be sent again. Of many groups
over the same accounts all but one would be, each time. So those of one process take turns here.
This is courtesy and nothing else: whoever waits too long goes ahead, and the store decides.
"""

import threading
from collections.abc import Iterator, Set
from contextlib import contextmanager


class Turns:
    """Which accounts groups of this process are at work on. Safe to share between threads."""

    def __init__(self) -> None:
        """Start with none."""
        self._changed = threading.Condition()
        self._busy: set[int] = set()

    @contextmanager
    def taken(self, accounts: Set[int], wait_seconds: float) -> Iterator[None]:
        """Have ``accounts`` to oneself, or as much of them as is free after ``wait_seconds``."""
        with self._changed:
            self._changed.wait_for(lambda: self._busy.isdisjoint(accounts), wait_seconds)
            own = accounts - self._busy
            self._busy |= own
        try:
            yield
        finally:
            with self._changed:
                self._busy -= own
                self._changed.notify_all()
