"""Simulated time and processes: strands that hand over at every call to the outside.

One strand runs at a time, and only until its next external call. The hub then wakes whoever is due
next. All chance comes from one seeded generator, so a seed is a schedule.
"""

import heapq
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, Final, TypeVar

from greenlet import getcurrent, greenlet

from tests.simulation.weather import Weather

R = TypeVar("R")

DAWN: Final = datetime(2026, 3, 2, 18, tzinfo=UTC)
"""What a clock without skew says when a schedule begins."""

EVENTS_MAX: Final = 200_000


class Crashed(BaseException):
    """The process is dead. No product code can go on from here."""


class Runaway(Exception):
    """A schedule did not come to its end."""


@dataclass(slots=True)
class Event:
    """One line of a trace. Its text is made only if somebody wants to read it."""

    at: float
    who: str
    what: str
    details: tuple[Any, ...]

    def __str__(self) -> str:
        said = " ".join(str(detail) for detail in self.details)
        return f"{self.at:11.6f}  {self.who:<10} {self.what} {said}".rstrip()


class Strand(greenlet):
    """One line of execution within a process."""

    process: "Process"
    ticket: int = 0
    result: Any = None


class Process:
    """What lives and dies as one: its strands, its clock, its calls to the outside."""

    def __init__(
        self, hub: "Hub", name: str, skew_seconds: float = 0.0, crash_share: float = 0.0
    ) -> None:
        self.hub = hub
        self.name = name
        self.is_alive = True
        self.strands: dict[Strand, None] = {}
        self.when_it_dies: list[Callable[[], None]] = []
        self.crash_share = crash_share
        self._skew = timedelta(seconds=skew_seconds)

    def clock(self) -> datetime:
        return DAWN + timedelta(microseconds=round(self.hub.now * 1e6)) + self._skew

    def monotonic(self) -> float:
        return self.hub.now

    def sleep(self, seconds: float) -> None:
        self.hub.pause(seconds)

    def note(self, what: str, *details: Any) -> None:
        self.hub.note(self.name, what, *details)

    def call(
        self,
        service: str,
        name: str,
        effect: Callable[[], R],
        *,
        writes: bool,
        details: tuple[Any, ...] = (),
    ) -> R:
        """Make ``effect`` happen at another party, as far as the weather lets it."""
        if not self.is_alive:
            raise Crashed
        hub = self.hub
        fate = hub.weather.fate(service, name, writes, hub.now, self.crash_share)
        hub.note(self.name, f"{service}.{name}", *details, fate)
        answer, error = None, fate.error
        if fate.happens == "now":
            try:
                answer = effect()
            except Exception as refused:  # noqa: BLE001 - the answer, whatever it is
                error = error or refused
        elif fate.happens == "late":
            hub.at(fate.late_seconds, lambda: _late(self, service, name, effect))
        hub.counts.update(fate.counted)
        if fate.crashes:
            hub.crash(self)
        hub.pause(fate.answer_seconds)
        if error is not None:
            raise error
        return answer  # type: ignore[return-value]


def _late(process: Process, service: str, name: str, effect: Callable[[], Any]) -> None:
    """A request that was on its way when its sender gave up, or died."""
    try:
        effect()
        said = "done"
    except Exception as error:  # noqa: BLE001 - nobody is there to be told
        said = type(error).__name__
    process.note(f"{service}.{name} arrives late:", said)


class Signal:
    """Something that strands wait for."""

    def __init__(self, hub: "Hub") -> None:
        self._hub = hub
        self._is_set = False
        self._waiting: list[tuple[Strand, int]] = []

    def is_set(self) -> bool:
        return self._is_set

    def set(self) -> None:
        self._is_set = True
        for strand, ticket in self._waiting:
            self._hub.wake(strand, ticket)
        self._waiting.clear()

    def clear(self) -> None:
        self._is_set = False

    def wait(self, timeout: float | None = None) -> bool:
        if not self._is_set:
            strand = self._hub.current
            self._waiting.append((strand, strand.ticket + 1))
            self._hub.suspend(timeout)
        return self._is_set


@dataclass(slots=True)
class Hub:
    """The scheduler of one schedule."""

    rng: Random
    weather: Weather
    now: float = 0.0
    trace: list[Event] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    errors: list[str] = field(default_factory=list)
    mended_at: float = 0.0
    """Until then the orders that are hard to decide are."""
    _due: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list)
    _count: int = 0
    _home: greenlet = field(default_factory=getcurrent)

    @property
    def current(self) -> Strand:
        strand = getcurrent()
        assert isinstance(strand, Strand), "only strands may wait"
        return strand

    def note(self, who: str, what: str, *details: Any) -> None:
        self.trace.append(Event(self.now, who, what, details))

    def at(self, delay: float, action: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._due, (self.now + delay, self._count, action))

    def spawn(self, process: Process, body: Callable[[], None]) -> None:
        """Start a strand of ``process``, now."""

        def whole() -> None:
            try:
                body()
            except Crashed:
                pass
            except Exception as error:  # noqa: BLE001 - no process may die of an exception
                self.errors.append(f"{process.name} ended with {error!r}")
                self.note(process.name, "ended with", repr(error))
            process.strands.pop(strand, None)
            # The collector does not see all that a greenlet holds: a dead one must hold no world.
            del strand.process

        strand = Strand(whole, self._home)
        strand.process = process
        process.strands[strand] = None
        self.wake(strand, 0)

    def wake(self, strand: Strand, ticket: int, delay: float = 0.0) -> None:
        """Let ``strand`` go on, if it then still waits where it took ``ticket``."""

        def go_on() -> None:
            if strand.ticket == ticket and not strand.dead and strand.process.is_alive:
                strand.switch()

        self.at(delay, go_on)

    def suspend(self, timeout: float | None = None) -> None:
        """Wait until somebody wakes this strand, at most for ``timeout`` seconds."""
        strand = self.current
        strand.ticket += 1
        if timeout is not None:
            self.wake(strand, strand.ticket, timeout)
        self._home.switch()
        # Whatever else would have woken it comes too late.
        strand.ticket += 1

    def pause(self, seconds: float) -> None:
        self.suspend(seconds)

    def crash(self, process: Process) -> None:
        """Kill a process; called from one of its own strands, this does not return."""
        self.at(0.0, lambda: self.kill(process))
        strand = getcurrent()
        if isinstance(strand, Strand) and strand.process is process:
            self.suspend()

    def kill(self, process: Process) -> None:
        """Kill a process from outside, wherever each of its strands is."""
        if not process.is_alive:
            return
        process.is_alive = False
        self.counts["crashes"] += 1
        self.note(process.name, "DIES")
        for strand in list(process.strands):
            if strand:  # begun and not over
                strand.throw(Crashed())
        process.strands.clear()
        for tell in process.when_it_dies:
            tell()

    def run(self, until: float, is_over: Callable[[], bool] = lambda: False) -> None:
        """Go on until ``until``, or until ``is_over``, asked at every event."""
        while self._due and self._due[0][0] <= until:
            if is_over():
                return
            self.now, _, action = heapq.heappop(self._due)
            action()
            if self._count > EVENTS_MAX:
                raise Runaway(f"more than {EVENTS_MAX} events")
        if not is_over():
            self.now = max(self.now, until)

    def end(self) -> None:
        """Let go of everything that still waits."""
        self._due.clear()
