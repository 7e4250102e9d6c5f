"""Breaks parts of a running stack by a plan that a seed makes.

The plan says when each fault begins, what it hits and how long it lasts. How the processes take it
is up to their timing: the same seed gives the same plan, not the same run.
"""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Final

from local.processes import Process, group_members, wait_until

QUIET_SECONDS, QUIET_SECONDS_LONG = 4.0, 14.0
"""Without faults, after each storm, so that one sees the stack recover: in a short run, and in one
that has to get many orders through."""

STORM_FAULTS = 7
_GAP_SECONDS = (0.5, 1.4)
_QUIET_AT_START_SECONDS = 4.0
_JOIN_SECONDS = 60.0
_CHILD_SECONDS: Final = 10.0
_START_SECONDS: Final = 4.0
_STARTED_FIELD: Final = 19  # of /proc/<pid>/stat behind the name: proc(5) calls it 22


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of fault: what it hits (one of ``targets`` at a time) and for how long (seconds)."""

    name: str
    targets: tuple[str, ...]
    seconds: tuple[float, float]


KINDS: Final = (
    Kind("kill API", ("api1", "api2"), (0.3, 1.0)),
    Kind("kill worker", ("worker1", "worker2"), (0.3, 1.0)),
    Kind("kill all workers", ("workers",), (0.3, 1.0)),
    Kind("kill sweeper", ("sweeper",), (0.5, 2.0)),
    Kind("kill Redis", ("redis",), (0.5, 1.5)),
    Kind("kill DynamoDB", ("dynamodb",), (0.5, 1.5)),
    Kind("kill a child of the API", ("api1", "api2"), (0.1, 0.2)),
    Kind("kill a child of a worker", ("worker1", "worker2"), (0.1, 0.2)),
    Kind("pause API", ("api1", "api2"), (1.0, 3.0)),
    Kind("pause worker", ("worker1", "worker2"), (2.0, 5.0)),
    Kind("pause sweeper", ("sweeper",), (1.0, 3.0)),
    Kind("pause Redis", ("redis",), (0.5, 2.0)),
    Kind("pause DynamoDB", ("dynamodb",), (0.5, 2.0)),
    Kind("flush Redis", ("redis",), (0.1, 0.2)),
    Kind("cut Redis", ("redis",), (0.3, 1.5)),
    Kind("cut DynamoDB", ("dynamodb",), (0.3, 1.5)),
    Kind("delay Redis", ("redis",), (1.0, 3.0)),
    Kind("delay DynamoDB", ("dynamodb",), (1.0, 3.0)),
    Kind("DynamoDB throttles", ("dynamodb",), (1.0, 2.5)),
    Kind("DynamoDB hangs", ("dynamodb",), (0.8, 2.0)),
    Kind("DynamoDB answers 500", ("dynamodb",), (1.0, 2.5)),
    Kind("DynamoDB loses answers", ("dynamodb",), (1.5, 3.0)),
)

_OVERLAPS: Final = {"workers": ("worker1", "worker2")}


@dataclass(frozen=True, slots=True)
class Fault:
    """A planned fault; ``at`` counts seconds from the start of the load."""

    at: float
    kind: str
    target: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Window:
    """A fault that was done, in seconds of the monotonic clock."""

    kind: str
    target: str
    start: float
    end: float


def plan(random: Random, quiet_seconds: float) -> Iterator[Fault]:
    """Faults without end: each round holds every kind once, shuffled, in storms with pauses.

    Faults overlap, but never on the same target.
    """
    at = _QUIET_AT_START_SECONDS
    free_at: dict[str, float] = {}
    number = 0
    while True:
        for kind in random.sample(KINDS, len(KINDS)):
            target = random.choice(kind.targets)
            hit = _OVERLAPS.get(target, (target,))
            seconds = random.uniform(*kind.seconds)
            at = max([at, *(free_at.get(one, 0.0) for one in hit)])
            yield Fault(round(at, 3), kind.name, target, round(seconds, 3))
            # A little longer, so that one who was hit is there before it is hit again.
            free_at |= dict.fromkeys(hit, at + seconds + 0.3)
            at += random.uniform(*_GAP_SECONDS)
            number += 1
            if number % STORM_FAULTS == 0:
                at = max([at, *free_at.values()]) + quiet_seconds


def plan_within(random: Random, seconds: float) -> list[Fault]:
    """The faults that end before ``seconds``, but every kind at least once, however long."""
    wanted = {kind.name for kind in KINDS}
    chosen: list[Fault] = []
    for fault in plan(random, QUIET_SECONDS):
        if fault.at + fault.seconds > seconds and not wanted:
            return chosen
        chosen.append(fault)
        wanted.discard(fault.kind)
    return chosen


@dataclass(frozen=True, slots=True)
class Effect:
    """How a fault is begun and ended."""

    begin: Callable[[], None]
    end: Callable[[], None] = lambda: None


Effects = Mapping[tuple[str, str], Effect]
"""By kind and target."""


class Nemesis:
    """Carries out faults, each in a thread of its own, one at a time on each target."""

    def __init__(self, effects: Effects) -> None:
        self._effects = effects
        self._locks = {target: threading.Lock() for kind in KINDS for target in kind.targets}
        self._threads: list[threading.Thread] = []
        self.windows: list[Window] = []
        self.errors: list[str] = []
        self._stop = threading.Event()

    def run(self, faults: Iterator[Fault], start: float, may_go_on: Callable[[], bool]) -> None:
        """Begin each fault in time (``start`` is monotonic), while the load may go on."""
        for fault in faults:
            while time.monotonic() < start + fault.at:
                if not may_go_on():
                    return
                time.sleep(0.05)
            thread = threading.Thread(target=self._carry_out, args=(fault,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def finish(self) -> None:
        """Wait until every fault has ended and what it broke runs again."""
        for thread in self._threads:
            thread.join(_JOIN_SECONDS)
            if thread.is_alive():
                self.errors.append("a fault did not end")

    def _carry_out(self, fault: Fault) -> None:
        effect = self._effects[fault.kind, fault.target]
        locks = [self._locks[one] for one in _OVERLAPS.get(fault.target, (fault.target,))]
        for lock in locks:
            lock.acquire()
        start = time.monotonic()
        try:
            effect.begin()
            time.sleep(fault.seconds)
            effect.end()
        except Exception as error:  # noqa: BLE001 - told at the end of the run, which then fails
            self.errors.append(f"{fault.kind} on {fault.target}: {error!r}")
        finally:
            for lock in reversed(locks):
                lock.release()
        self.windows.append(Window(fault.kind, fault.target, start, time.monotonic()))


def kill_a_child(process: Process, random: Random) -> None:
    """kill -9 one process of the group that is not its leader."""
    # A process that was started a moment ago may have none yet. And Celery ends a worker that loses
    # a child while it starts: whoever supervises it starts it again, and here nobody does.
    assert wait_until(lambda: bool(_children_of(process)), _CHILD_SECONDS), "it has no child"
    os.kill(random.choice(_children_of(process)), signal.SIGKILL)


def _children_of(process: Process) -> list[int]:
    """Those that are past their start."""
    others = sorted(set(group_members(process.pid)) - {process.pid})
    return [pid for pid in others if _age_seconds(pid) > _START_SECONDS]


def _age_seconds(pid: int) -> float:
    """How long ago a process was started; 0 if it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        return 0.0
    started = int(fields[_STARTED_FIELD]) / os.sysconf("SC_CLK_TCK")
    return float(Path("/proc/uptime").read_text().split()[0]) - started
