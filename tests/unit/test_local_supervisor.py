"""The supervisor keeps its processes up, and stops them in sequence."""

import io
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from local.processes import Process, wait_until
from local.supervisor import Supervisor, restart_delay

SECONDS = 10.0

SLEEPS = "import time; print('up', flush=True); time.sleep(60)"
SAYS_WHEN_ASKED = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: (print("asked", flush=True), sys.exit(0)))
print("up", flush=True)
time.sleep(60)
"""


class Watch:
    """A supervisor that prints into a string."""

    def __init__(self) -> None:
        self.out = io.StringIO()
        self.supervisor = Supervisor(self.out, restart_delay_seconds=0.05)

    def process(self, name: str, code: str) -> Process:
        argv = [sys.executable, "-c", code]
        return self.supervisor.process(name, argv, dict(os.environ), Path.cwd())

    def start(self, name: str, code: str) -> Process:
        process = self.process(name, code)
        self.supervisor.start(process)
        assert self.supervisor.wait_for(lambda: f"{name:<9} | up" in self.printed, SECONDS)
        return process

    @property
    def printed(self) -> str:
        return self.out.getvalue()


@pytest.fixture
def watch() -> Iterator[Watch]:
    watch = Watch()
    yield watch
    watch.supervisor.stop(grace_seconds=0)


def test_each_line_carries_the_name_of_its_process(watch: Watch) -> None:
    watch.start("one", SLEEPS)
    watch.start("two", SLEEPS)

    assert watch.printed == "one       | up\ntwo       | up\n"


def test_a_process_that_died_is_started_again(watch: Watch) -> None:
    process = watch.start("one", SLEEPS)
    first = process.pid
    process.kill()

    assert watch.supervisor.wait_for(lambda: process.running and process.pid != first, SECONDS)
    assert "one       | ended with -9; starting it again in 0.05 s" in watch.printed


def test_a_process_that_keeps_dying_is_started_ever_more_seldom(watch: Watch) -> None:
    watch.supervisor.start(watch.process("one", "raise SystemExit(3)"))

    assert watch.supervisor.wait_for(lambda: "again in 0.4 s" in watch.printed, SECONDS)
    delays = [line.rsplit(" ", 2)[-2] for line in watch.printed.splitlines()]
    assert delays[:4] == ["0.05", "0.1", "0.2", "0.4"]


@pytest.mark.parametrize(
    ("deaths", "seconds"), [(0, 0.5), (5, 16), (6, 30), (7, 30), (20, 30), (21, 30), (10_000, 30)]
)
def test_the_pause_before_a_start_has_a_bound(deaths: int, seconds: float) -> None:
    assert restart_delay(0.5, deaths) == seconds


def test_processes_stop_in_reverse_and_each_before_the_next(watch: Watch) -> None:
    names = ["one", "two", "three"]
    processes = [watch.start(name, SAYS_WHEN_ASKED) for name in names]

    watch.supervisor.stop()

    asked = [line.split()[0] for line in watch.printed.splitlines() if line.endswith("asked")]
    assert asked == ["three", "two", "one"]
    assert [process.exit_code for process in processes] == [0, 0, 0]


def test_processes_started_by_one_call_stop_together(watch: Watch) -> None:
    slow = SAYS_WHEN_ASKED.replace("sys.exit(0)", "time.sleep(0.5), sys.exit(0)")
    pair = [watch.process(name, slow) for name in ("one", "two")]
    watch.supervisor.start(*pair)
    assert watch.supervisor.wait_for(lambda: watch.printed.count("up") == 2, SECONDS)

    stopping = threading.Thread(target=watch.supervisor.stop)
    stopping.start()

    assert wait_until(lambda: watch.printed.count("asked") == 2, SECONDS)
    assert all(process.running for process in pair)
    stopping.join()
    assert [process.exit_code for process in pair] == [0, 0]


def test_a_process_run_once_tells_its_exit_code_and_is_not_restarted(watch: Watch) -> None:
    failing = watch.process("once", "print('no'); raise SystemExit(4)")

    assert watch.supervisor.run_once(failing, SECONDS) == 4
    assert watch.printed == "once      | no\n"


def test_a_process_run_once_ends_with_its_time(watch: Watch) -> None:
    endless = watch.process("once", SLEEPS)

    assert watch.supervisor.run_once(endless, 0.5) is None
    assert not endless.running


def test_waiting_for_what_never_comes_is_bounded(watch: Watch) -> None:
    assert not watch.supervisor.wait_for(lambda: False, 0.2)


def test_a_process_is_ready_once_it_printed_its_mark(watch: Watch) -> None:
    argv = [sys.executable, "-c", "import time; time.sleep(0.3); print('is up now', flush=True)"]
    process = watch.supervisor.process("one", argv, dict(os.environ), Path.cwd(), "up")
    watch.supervisor.start(process)

    assert not watch.supervisor.is_ready(process)
    assert watch.supervisor.wait_for(lambda: watch.supervisor.is_ready(process), SECONDS)


# What a signal does is seen from outside, in a supervisor of its own process.
SUPERVISED = f"""
import os, sys
from pathlib import Path
from local.supervisor import Supervisor, restart_delay
supervisor = Supervisor(sys.stdout)
supervisor.install_signal_handlers()
deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN)\\n" + {SLEEPS!r}
code = deaf if sys.argv[1] == "deaf" else {SLEEPS!r}
argv = [sys.executable, "-c", code]
process = supervisor.process("child", argv, dict(os.environ), Path.cwd())
supervisor.start(process)
supervisor.watch()
supervisor.say("stopping")
supervisor.stop(grace_seconds=60)
supervisor.say(f"stopped {{process.exit_code}}")
"""


def supervised(child: str) -> "subprocess.Popen[str]":
    argv = [sys.executable, "-c", SUPERVISED, child]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    assert read_line(process) == "child     | up"
    return process


def read_line(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().rstrip()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_stops_gracefully(number: signal.Signals) -> None:
    with supervised("polite") as process:
        process.send_signal(number)

        assert read_line(process) == "stopping"
        assert read_line(process) == f"stopped {-signal.SIGTERM}"
    assert process.returncode == 0


def test_the_second_signal_kills() -> None:
    with supervised("deaf") as process:
        process.send_signal(signal.SIGINT)
        assert read_line(process) == "stopping"
        process.send_signal(signal.SIGINT)

        assert read_line(process) == f"stopped {-signal.SIGKILL}"
    assert process.returncode == 0
