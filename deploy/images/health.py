"""Tells whether the process of this container lives: the HEALTHCHECK of both images.

It looks for the process, and asks it in the way in which it can answer. The standard library alone.
"""

import http.client
import os
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

PROC = Path("/proc")
MARK = Path("/tmp/sweeper-moved")  # noqa: S108 - the only place that may be written to
STILL_SECONDS_MAX = 30.0
"""How long a sweeper may stand still beyond the pause between two sweeps: every wait of a sweep is
bounded, and shorter."""

_HTTP_SECONDS = 3.0
_PING_SECONDS = 10


def main() -> None:
    """End with 0 if the process lives, else with the reason why not."""
    for pid, arguments in processes(PROC):
        if "gunicorn" in arguments:
            return answers(os.environ.get("API_PORT") or "8000", "/healthz")
        if "flower" in arguments and "--app=worker.app" in arguments:
            return answers(os.environ.get("FLOWER_PORT") or "5555", "/healthcheck")
        if "worker" in arguments and "--app=worker.app" in arguments:
            return become_ping()
        if "worker.sweeper" in arguments:
            every = float(os.environ.get("SWEEP_EVERY") or 2)
            return moves(PROC / str(pid) / "status", MARK, every + STILL_SECONDS_MAX, time.time())
    # What runs once and ends: there is nothing to ask.
    return None


def processes(proc: Path) -> Iterator[tuple[int, list[str]]]:
    """Each process with its arguments."""
    for folder in sorted(proc.glob("[0-9]*"), key=lambda folder: int(folder.name)):
        try:
            line = (folder / "cmdline").read_text(errors="replace")
        except OSError:
            continue  # it ended meanwhile
        yield int(folder.name), line.split("\0")


def answers(port: str, path: str) -> None:
    """Ask over HTTP."""
    connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=_HTTP_SECONDS)
    try:
        connection.request("GET", path)
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        sys.exit(f"no answer: {error!r}")
    finally:
        connection.close()
    if status != http.client.OK:
        sys.exit(f"answers {status}")


def become_ping() -> None:
    """Ask the worker through the broker; without a broker no worker is healthy."""
    ping = ("inspect", "ping", f"--timeout={_PING_SECONDS}")
    to = f"--destination=worker@{socket.gethostname()}"
    arguments = [sys.executable, "-m", "celery", "--app=worker.app", "--quiet", *ping, to]
    os.execv(arguments[0], arguments)  # noqa: S606 - no shell is wanted


def moves(status: Path, mark: Path, still_seconds_max: float, now: float) -> None:
    """See that a process which listens to nobody goes on: each of its waits is counted."""
    waits = _waits(status)
    before, since = _read(mark)
    if waits != before:
        mark.write_text(f"{waits} {now}")
    elif now - since > still_seconds_max:
        sys.exit(f"it has not moved for {now - since:.0f} s")


def _waits(status: Path) -> int:
    for line in status.read_text().splitlines():
        if line.startswith("voluntary_ctxt_switches:"):
            return int(line.split()[1])
    raise ValueError(f"{status} counts no waits")


def _read(mark: Path) -> tuple[int, float]:
    try:
        waits, since = mark.read_text().split()
        return int(waits), float(since)
    except (OSError, ValueError):
        return -1, 0.0


if __name__ == "__main__":
    main()
