"""Starts processes in sequence, keeps them up, shows their output, and stops them all."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TextIO

from local.processes import GRACE_SECONDS, Process

_RESTART_DELAY_SECONDS_MIN = 0.5
_RESTART_DELAY_SECONDS_MAX = 30.0
_RESTART_DOUBLINGS_MAX = 20
_STEADY_SECONDS = 60.0
_TICK_SECONDS = 0.1
_NAME_WIDTH = 9
_COLOURS = (36, 33, 32, 35, 34, 96, 93, 92, 95, 94)


@dataclass
class _Watched:
    """A supervised process, and how often in a row it died young."""

    process: Process
    started_at: float
    deaths: int = 0
    start_again_at: float | None = None


class Supervisor:
    """Starts processes in sequence, restarts what dies, and stops all in reverse.

    The first signal only sets `stopping`, so that the code in charge stops everything in sequence;
    the second kills every group from within the handler, which ends all the waiting.
    """

    def __init__(
        self, out: TextIO, restart_delay_seconds: float = _RESTART_DELAY_SECONDS_MIN
    ) -> None:
        self._out = out
        self._out_lock = threading.Lock()
        self._coloured = out.isatty() and not os.environ.get("NO_COLOR")
        self._restart_delay_seconds = restart_delay_seconds
        self._stages: list[list[_Watched]] = []
        self._colours: dict[str, int] = {}
        self._ready: set[str] = set()
        self._once: Process | None = None
        self._signals = 0

    @property
    def stopping(self) -> bool:
        """Whether a signal asked for the end."""
        return self._signals > 0

    def install_signal_handlers(self) -> None:
        """Take Ctrl-C, SIGTERM and the closing of the terminal as requests to stop."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._on_signal)

    def say(self, line: str = "") -> None:
        """Print a line of the supervisor's own."""
        # A terminal that went away must not keep the processes from being stopped.
        with self._out_lock, contextlib.suppress(OSError, ValueError):
            self._out.write(line + "\n")
            self._out.flush()

    def process(
        self,
        name: str,
        argv: Sequence[str],
        env: Mapping[str, str],
        cwd: Path,
        ready_mark: str | None = None,
    ) -> Process:
        """A process, not yet started, whose output is printed with its name before each line.

        A line with the mark in it tells that the process is ready (see `is_ready`).
        """
        self._colours[name] = _COLOURS[len(self._colours) % len(_COLOURS)]

        def take(line: str) -> None:
            if ready_mark is not None and ready_mark in line:
                self._ready.add(name)
            self._relay(name, line)

        return Process(name, argv, take, env, cwd)

    def is_ready(self, process: Process) -> bool:
        """Whether the process printed its mark."""
        return process.name in self._ready

    def start(self, *processes: Process) -> None:
        """Start processes and watch over them from now on; those of one call also stop together."""
        stage: list[_Watched] = []
        self._stages.append(stage)
        for process in processes:
            process.start()
            stage.append(_Watched(process, time.monotonic()))

    def run_once(self, process: Process, seconds: float) -> int | None:
        """Run a process to its end; None when it was cut off by time or by a signal."""
        self._once = process
        process.start()
        try:
            self.wait_for(lambda: not process.running, seconds)
            return process.exit_code
        finally:
            process.kill()
            self._once = None

    def wait_for(self, check: Callable[[], bool], seconds: float) -> bool:
        """Watch over the processes until the check holds; False by time or by a signal."""
        deadline = time.monotonic() + seconds
        while not self.stopping and time.monotonic() < deadline:
            if check():
                return True
            self._tick()
            time.sleep(_TICK_SECONDS)
        return False

    def watch(self) -> None:
        """Watch over the processes until a signal asks for the end."""
        while not self.stopping:
            self._tick()
            time.sleep(_TICK_SECONDS)

    def stop(self, grace_seconds: float = GRACE_SECONDS) -> None:
        """Stop every process: the last started first, and each call's together."""
        while self._stages:
            stage = self._stages[-1]
            for watched in stage:
                watched.process.ask_to_stop()
            for watched in stage:
                watched.process.end_within(grace_seconds)
            # Kept in the list until it is gone, so that a second signal reaches it.
            self._stages.pop()

    def _tick(self) -> None:
        now = time.monotonic()
        for watched in self._all_watched():
            if not watched.process.running:
                self._revive(watched, now)

    def _all_watched(self) -> list[_Watched]:
        return [watched for stage in self._stages for watched in stage]

    def _revive(self, watched: _Watched, now: float) -> None:
        if watched.start_again_at is None:
            self._note_death(watched, now)
        elif now >= watched.start_again_at:
            watched.process.start()
            watched.started_at = now
            watched.start_again_at = None

    def _note_death(self, watched: _Watched, now: float) -> None:
        if now - watched.started_at >= _STEADY_SECONDS:
            watched.deaths = 0
        delay = restart_delay(self._restart_delay_seconds, watched.deaths)
        watched.deaths += 1
        watched.start_again_at = now + delay
        code = watched.process.exit_code
        self._relay(watched.process.name, f"ended with {code}; starting it again in {delay:g} s")

    def _relay(self, name: str, line: str) -> None:
        label = f"{name:<{_NAME_WIDTH}} |"
        if self._coloured:
            label = f"\033[{self._colours[name]}m{label}\033[0m"
        self.say(f"{label} {line}")

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._signals += 1
        if self._signals < 2:
            return
        # Signals only, no waiting: the interrupted code is the one that waits.
        for watched in self._all_watched():
            watched.process.signal_group(signal.SIGKILL)
        if self._once is not None:
            self._once.signal_group(signal.SIGKILL)


def restart_delay(first_seconds: float, deaths: int) -> float:
    """Seconds to wait after so many deaths before this one: doubling, capped."""
    # Capped before it is doubled: after a night of deaths no float would hold the number.
    doublings = min(deaths, _RESTART_DOUBLINGS_MAX)
    return min(first_seconds * 2.0**doublings, _RESTART_DELAY_SECONDS_MAX)
