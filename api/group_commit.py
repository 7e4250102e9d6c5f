"""Group commit: requests that arrive together share one write.

The first thread leads and writes for all that wait; those that arrive meanwhile are the next
group, led by the oldest of them. There is no timer, so a lone request waits for nobody.
"""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")

WAITING_MAX: Final = 1_000
"""Requests that may wait for a leader in one process."""


WAIT_SECONDS_MAX: Final = 30.0


class LeaderLost(Exception):
    """The thread that led the group ended without an answer: the outcome is unknown."""


class GroupFull(Exception):
    """Too many requests wait already."""


class _Entry(Generic[T, R]):
    __slots__ = ("item", "leads", "result", "wake")

    def __init__(self, item: T) -> None:
        self.item = item
        # Made for those who wait alone: it costs more than the rest of a group of one.
        self.wake: threading.Event | None = None
        self.leads = False
        self.result: R | Exception = LeaderLost()


class GroupCommit(Generic[T, R]):
    """Hands groups of items to ``commit``, one group at a time. Safe to share between threads."""

    def __init__(
        self,
        commit: Callable[[Sequence[T]], Sequence[R | Exception]],
        weigh: Callable[[T], int],
        weight_max: int,
        after: Callable[[Sequence[R | Exception]], None] = lambda _: None,
        gather: Callable[[], None] = lambda: None,
    ) -> None:
        """Commit groups whose weights add up to at most ``weight_max``.

        ``commit`` answers for each item, in their sequence, with a result or an exception.
        ``after`` gets those answers when everybody but the leader has gone on. ``gather`` is called
        by who is to lead and found nobody at work, before it takes its group.
        """
        self._commit = commit
        self._after = after
        self._gather = gather
        self._weigh = weigh
        self._weight_max = weight_max
        self._lock = threading.Lock()
        self._waiting: deque[_Entry[T, R]] = deque()
        self._has_leader = False

    def submit(self, item: T) -> R:
        """Commit ``item`` with whatever else is there and return its result.

        Raises:
            GroupFull: ``WAITING_MAX`` requests wait already.
            Exception: what ``commit`` answered for this item, or raised for its group.
        """
        entry: _Entry[T, R] = _Entry(item)
        with self._lock:
            if len(self._waiting) >= WAITING_MAX:
                raise GroupFull
            self._waiting.append(entry)
            entry.leads = not self._has_leader
            if not entry.leads:
                entry.wake = threading.Event()
            self._has_leader = True
        try:
            if entry.wake is None:
                self._gather()
            # Every leader keeps a deadline and wakes its successor; the limit is for a dead one.
            elif not entry.wake.wait(WAIT_SECONDS_MAX):
                self._leave(entry)
        except BaseException:
            self._leave(entry, even_to_lead=True)
            raise
        if entry.leads:
            self._lead()
        if isinstance(entry.result, Exception):
            raise entry.result
        return entry.result

    def _lead(self) -> None:
        """Commit the oldest entries, this thread's own among them, then hand over."""
        group = self._take()
        results: list[R | Exception] = [LeaderLost()] * len(group)
        try:
            results = list(self._commit([entry.item for entry in group]))
        except Exception as error:  # noqa: BLE001 - whatever it is, those who wait must hear of it
            results = [error] * len(group)
        finally:
            self._hand_over()
            for place, entry in enumerate(group):
                entry.result = results[place] if place < len(results) else LeaderLost()
                if entry.wake is not None and not entry.leads:
                    entry.wake.set()
        self._after(results)

    def _take(self) -> list[_Entry[T, R]]:
        with self._lock:
            group = [self._waiting.popleft()]
            weight = self._weigh(group[0].item)
            while self._waiting:
                weight += self._weigh(self._waiting[0].item)
                if weight > self._weight_max:
                    break
                group.append(self._waiting.popleft())
            return group

    def _leave(self, entry: _Entry[T, R], *, even_to_lead: bool = False) -> None:
        """Wait no more: nobody must be woken, least of all to lead, who is not there to go on."""
        with self._lock:
            if entry not in self._waiting or (entry.leads and not even_to_lead):
                return
            self._waiting.remove(entry)
        if entry.leads:
            self._hand_over()

    def _hand_over(self) -> None:
        with self._lock:
            if not self._waiting:
                self._has_leader = False
                return
            successor = self._waiting[0]
            successor.leads = True
            if successor.wake is not None:
                successor.wake.set()
