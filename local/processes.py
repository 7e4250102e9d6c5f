"""Child processes that are started and ended as whole groups.

Each child leads a session of its own. So Ctrl-C in a terminal reaches the supervisor alone, which
then stops the children in sequence; and all that a child forks (pool workers, request workers) is
in its group, which is ended whole. On Linux a child also dies when its supervisor is killed.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

LineSink = Callable[[str], None]

GRACE_SECONDS = 15.0
_KILL_WAIT_SECONDS = 5.0
_POLL_SECONDS = 0.02
_TETHER = str(Path(__file__).with_name("tether.py"))
_PROC = Path("/proc")

# The kernel ties a child to the THREAD that started it. All are started by this one, which lives
# as long as the interpreter, so that a child started from a helper thread outlives that thread.
_STARTER = ThreadPoolExecutor(max_workers=1, thread_name_prefix="process-starter")


def wait_until(check: Callable[[], bool], seconds: float) -> bool:
    """Poll until the check holds; False when it did not in time."""
    deadline = time.monotonic() + seconds
    while not check():
        if time.monotonic() >= deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return True


def group_members(group: int) -> list[int]:
    """The living processes of a process group (zombies are dead: only their entry is left)."""
    if not _PROC.is_dir():
        return [group] if _group_answers(group) else []
    return [
        pid for pid, member_of, state in _process_table() if member_of == group and state != "Z"
    ]


def _group_answers(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except OSError:
        return False
    return True


def _process_table() -> Iterator[tuple[int, int, str]]:
    for entry in _PROC.iterdir():
        if not entry.name.isdigit():
            continue
        try:
            stat = (entry / "stat").read_text()
        except OSError:
            continue  # it ended meanwhile
        # The second field is the command's name in parentheses; it may itself hold any character.
        state, _parent, group = stat.rpartition(")")[2].split()[:3]
        yield int(entry.name), int(group), state


@dataclass
class Process:
    """One child process and all that it forks.

    Output goes to a file (appended to, also across restarts) or, line by line, to a function.
    """

    name: str
    argv: Sequence[str]
    log: Path | LineSink
    env: Mapping[str, str] | None = None
    cwd: Path | None = None
    _popen: subprocess.Popen[bytes] | None = field(default=None, init=False, repr=False)
    _pump: threading.Thread | None = field(default=None, init=False, repr=False)

    @property
    def pid(self) -> int:
        """The id of the process and of its group; it must have been started."""
        if self._popen is None:
            raise RuntimeError(f"{self.name} was not started")
        return self._popen.pid

    @property
    def running(self) -> bool:
        """Whether the process itself is alive (paused counts as alive)."""
        return self._popen is not None and self._popen.poll() is None

    @property
    def exit_code(self) -> int | None:
        """What the last run ended with; negative for a signal; None while running or unstarted."""
        return None if self._popen is None else self._popen.poll()

    def start(self) -> None:
        """Start the process; what an earlier run left behind is ended first."""
        if self.running:
            raise RuntimeError(f"{self.name} is already running")
        self._end_group()
        self._popen = _STARTER.submit(self._spawn).result()
        if callable(self.log):
            self._pump = threading.Thread(
                target=_pump_lines, args=(self._popen.stdout, self.log), daemon=True
            )
            self._pump.start()

    def wait(self, seconds: float) -> bool:
        """Wait for the process to end by itself; False when it did not in time."""
        return wait_until(lambda: not self.running, seconds)

    def ask_to_stop(self) -> None:
        """Send the request to end, and wait for nothing."""
        if self._popen is None or not self.running:
            return
        self._popen.send_signal(signal.SIGTERM)
        self.resume()  # a paused process would never see the request

    def stop(self, grace_seconds: float = GRACE_SECONDS) -> None:
        """Ask the process to end, wait for it, then kill what is left of its group."""
        self.ask_to_stop()
        self.end_within(grace_seconds)

    def end_within(self, grace_seconds: float) -> None:
        """Wait for a process that was asked to stop, then kill what is left of its group."""
        self.wait(grace_seconds)
        self._end_group()

    def kill(self) -> None:
        """Kill the whole group at once, as a crash of the machine would."""
        self._end_group()

    def restart(self, grace_seconds: float = GRACE_SECONDS) -> None:
        """Stop, then start with the same command."""
        self.stop(grace_seconds)
        self.start()

    def pause(self) -> None:
        """Freeze the whole group: it holds its sockets but answers nothing."""
        self.signal_group(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused group go on."""
        self.signal_group(signal.SIGCONT)

    def signal_group(self, number: signal.Signals) -> None:
        """Send a signal to every process of the group; none left is fine."""
        if self._popen is None:
            return
        # PermissionError: what macOS says of a group in which only zombies are left.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._popen.pid, number)

    def _spawn(self) -> subprocess.Popen[bytes]:
        argv = [sys.executable, "-I", "-S", _TETHER, str(os.getpid()), *self.argv]
        with contextlib.ExitStack() as stack:
            output: int | IO[bytes] = subprocess.PIPE
            if isinstance(self.log, Path):
                output = stack.enter_context(self.log.open("ab"))
            return subprocess.Popen(
                argv,
                cwd=self.cwd,
                env=None if self.env is None else dict(self.env),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _end_group(self) -> None:
        if self._popen is None:
            return
        self.signal_group(signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._popen.wait(_KILL_WAIT_SECONDS)
        group = self._popen.pid
        wait_until(lambda: not group_members(group), _KILL_WAIT_SECONDS)
        if self._pump is not None:
            self._pump.join(_KILL_WAIT_SECONDS)
            self._pump = None


def _pump_lines(stream: IO[bytes], sink: LineSink) -> None:
    with stream:
        for line in stream:
            sink(line.decode(errors="replace").rstrip("\r\n"))
