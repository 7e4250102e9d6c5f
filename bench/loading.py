"""Starts load processes, holds them until all are ready, and takes what they found."""

import subprocess
import sys
from collections.abc import Sequence
from typing import Self

from bench.load import Job, Outcome, outcome_from
from local.commands import ROOT

_CONNECT_SECONDS = 30.0


class LoadFailed(Exception):
    """A load process ended without an answer."""


class Load:
    """One load process with its job; connected when made, and idle until it is started."""

    def __init__(self, job: Job) -> None:
        """Start the process and wait until it is connected."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.load"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._say(job.to_json())
        self._expect_ready()

    def start(self) -> None:
        """Let it send."""
        self._say("go")

    def outcome(self) -> Outcome:
        """Wait for its end, which its own patience bounds.

        Raises:
            LoadFailed: it died.
        """
        line = self._listen()
        if not line:
            raise LoadFailed(f"the load process ended with {self._process.wait(_CONNECT_SECONDS)}")
        return outcome_from(line)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait(_CONNECT_SECONDS)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def _say(self, line: str) -> None:
        if self._process.stdin is None:
            raise LoadFailed("no way to speak to the load process")
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def _listen(self) -> str:
        return self._process.stdout.readline() if self._process.stdout is not None else ""

    def _expect_ready(self) -> None:
        if self._listen() != "ready\n":
            self.__exit__()
            raise LoadFailed("the load process could not connect")


def run_load(job: Job) -> Outcome:
    """Carry out one job in a process of its own."""
    with Load(job) as load:
        load.start()
        return load.outcome()


def run_loads(jobs: Sequence[Job]) -> list[Outcome]:
    """Carry out several jobs at the same time, each in a process of its own."""
    loads: list[Load] = []
    try:
        loads.extend(Load(job) for job in jobs)
        for load in loads:
            load.start()
        return [load.outcome() for load in loads]
    finally:
        for load in loads:
            load.__exit__()
