"""Child processes are started, and end, as whole groups."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from local.processes import Process, group_members, wait_until

SECONDS = 10.0

IGNORES_REQUESTS = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN)"
ENDS_POLITELY = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: (print("bye", flush=True), sys.exit(0)))
print("up", flush=True)
time.sleep(60)
"""
# A child that would outlive its parent: deaf to requests, in the same group.
HAS_A_CHILD = f"""
import subprocess, sys, time
subprocess.Popen([sys.executable, "-c", {IGNORES_REQUESTS + "; time.sleep(60)"!r}])
print("up", flush=True)
time.sleep(60)
"""

Make = Callable[[str], Process]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Makes a process that runs a piece of Python; all are killed in the end."""
    made: list[Process] = []

    def make_process(code: str) -> Process:
        made.append(Process("child", [sys.executable, "-c", code], tmp_path / "child.log"))
        return made[-1]

    yield make_process
    for process in made:
        process.kill()


def output(process: Process) -> str:
    assert isinstance(process.log, Path)
    return process.log.read_text()


def start_and_wait_until_up(process: Process) -> None:
    process.start()
    assert wait_until(lambda: "up" in output(process), SECONDS)


def test_a_stopped_process_ends_by_itself(make: Make) -> None:
    process = make(ENDS_POLITELY)
    start_and_wait_until_up(process)

    process.stop(SECONDS)

    assert process.exit_code == 0
    assert output(process) == "up\nbye\n"


def test_a_process_deaf_to_the_request_is_killed_after_the_grace(make: Make) -> None:
    process = make(f"{IGNORES_REQUESTS}; print('up', flush=True); time.sleep(60)")
    start_and_wait_until_up(process)

    process.stop(grace_seconds=0.2)

    assert process.exit_code == -signal.SIGKILL


@pytest.mark.parametrize("end", [Process.kill, Process.stop])
def test_what_a_process_forked_ends_with_it(make: Make, end: Callable[[Process], None]) -> None:
    process = make(HAS_A_CHILD)
    start_and_wait_until_up(process)
    assert len(group_members(process.pid)) == 2

    end(process)

    assert group_members(process.pid) == []


def test_what_a_crash_left_behind_is_ended_before_the_next_start(make: Make) -> None:
    process = make(HAS_A_CHILD)
    start_and_wait_until_up(process)
    crashed = process.pid
    os.kill(crashed, signal.SIGKILL)
    assert process.wait(SECONDS)
    assert len(group_members(crashed)) == 1

    process.start()

    assert group_members(crashed) == []
    assert process.running


def test_a_process_cannot_be_started_twice(make: Make) -> None:
    process = make(ENDS_POLITELY)
    process.start()

    with pytest.raises(RuntimeError, match="already running"):
        process.start()


def test_a_restarted_process_is_another_one_with_the_same_log(make: Make) -> None:
    process = make(ENDS_POLITELY)
    start_and_wait_until_up(process)
    first = process.pid

    process.restart()

    assert process.pid != first
    assert wait_until(lambda: output(process) == "up\nbye\nup\n", SECONDS)


def test_a_paused_process_does_nothing_until_it_is_resumed(make: Make) -> None:
    process = make("import sys\nfor line in range(10**9): print('up', flush=True)")
    start_and_wait_until_up(process)
    process.pause()
    wait_until(lambda: state_of(process.pid) == "T", SECONDS)
    before = len(output(process))

    assert not wait_until(lambda: len(output(process)) != before, 0.2)
    process.resume()
    assert wait_until(lambda: len(output(process)) != before, SECONDS)


def test_a_paused_process_can_be_stopped(make: Make) -> None:
    process = make(ENDS_POLITELY)
    start_and_wait_until_up(process)
    process.pause()

    process.stop(SECONDS)

    assert process.exit_code == 0


def test_ending_what_never_started_or_is_over_is_fine(make: Make) -> None:
    process = make("")
    process.stop()
    process.kill()
    assert process.exit_code is None
    process.start()
    assert process.wait(SECONDS)

    process.stop()
    process.kill()

    assert process.exit_code == 0


def test_output_reaches_a_function_line_by_line() -> None:
    lines: list[str] = []
    code = r"import os; os.write(1, b'one\ntwo \xff\n'); os.write(2, b'three')"
    process = Process("child", [sys.executable, "-c", code], lines.append)

    process.start()
    process.wait(SECONDS)
    process.stop()

    assert lines == ["one", "two �", "three"]


def test_a_process_gets_its_environment_and_folder_and_no_other(tmp_path: Path) -> None:
    code = "import os; print(os.environ.get('HOME'), os.environ['MINE'], os.getcwd())"
    log = tmp_path / "log"
    process = Process("child", [sys.executable, "-c", code], log, {"MINE": "yes"}, tmp_path)

    process.start()
    process.wait(SECONDS)
    process.stop()

    assert output(process) == f"None yes {tmp_path}\n"


def test_a_process_started_from_a_thread_outlives_the_thread(make: Make) -> None:
    process = make(ENDS_POLITELY)
    thread = threading.Thread(target=process.start)
    thread.start()
    thread.join()

    assert not process.wait(0.3)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ties a child to its parent")
def test_a_killed_parent_leaves_no_process_behind(tmp_path: Path) -> None:
    log = tmp_path / "log"
    code = f"""
import time
from pathlib import Path
from local.processes import Process
process = Process("child", ["sleep", "60"], Path({str(log)!r}))
process.start()
print(process.pid, flush=True)
time.sleep(60)
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert group_members(child) == [child]
        parent.kill()

    assert wait_until(lambda: group_members(child) == [], SECONDS)


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
