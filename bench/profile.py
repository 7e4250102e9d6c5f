"""``python -m bench.profile``: where API and worker spend their CPU under load.

py-spy looks at the processes from outside, 200 times a second. Each subject is recorded twice, once
as a flame graph and once as plain stacks for the lists, because py-spy writes one form at a time.
Of the API only threads that hold the interpreter's lock are sampled: most of its many threads wait
for it, and py-spy takes some of those that wait for busy ones.
"""

import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp

from bench.load import Job
from bench.loading import Load, run_load
from bench.options import FOLDER
from bench.stack import Engines, Stack
from bench.traffic import JSON_HEADERS, order_requests, seed_accounts, wait_until_final

OUT = FOLDER / "profiles"

_SECONDS = 8
_ORDERS_PER_SECOND = 3_000
_STEADY_RATE = 60
"""Few enough orders a second that each comes in a message of its own."""

_CONNECTIONS = 64
_SAMPLES_PER_SECOND = 200
_WAIT_SECONDS_MAX = 60
_TOP = 25
_FRAME_OF_ALL = 0.95
"""A function in more of the samples than this is no news: a main loop."""

_FORMATS = {"flamegraph": "svg", "raw": "txt"}


class CannotLook(Exception):
    """py-spy did not get at the process."""


def main() -> int:
    """Record everything; 1 if this machine does not let py-spy look."""
    OUT.mkdir(parents=True, exist_ok=True)
    folder = Path(mkdtemp(prefix="profile-", dir=FOLDER))
    try:
        with Engines(folder) as engines, Stack(engines, flower=True) as stack:
            accounts = seed_accounts(engines, stack.table_name, _ORDERS_PER_SECOND * _SECONDS)
            _profile(stack, accounts)
    except CannotLook as error:
        print(f"profile: {error}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(f"\nThe flame graphs: {OUT}")
    return 0


def top_lines(stacks: str, number: int = _TOP) -> list[str]:
    """The functions of collapsed stacks that took the most samples themselves, and with callees."""
    own: Counter[str] = Counter()
    whole: Counter[str] = Counter()
    for line in stacks.splitlines():
        frames, _, samples = line.rpartition(" ")
        functions = [_function(frame) for frame in frames.split(";")]
        own[functions[-1]] += int(samples)
        for function in set(functions):
            whole[function] += int(samples)
    total = max(own.total(), 1)
    by_self = [
        f"{100 * samples / total:5.1f} % {100 * whole[name] / total:5.1f} %  {name}"
        for name, samples in own.most_common(number)
    ]
    by_whole = [
        f"{100 * own[name] / total:5.1f} % {100 * samples / total:5.1f} %  {name}"
        for name, samples in whole.most_common()
        if samples < _FRAME_OF_ALL * total
    ][: 2 * number]
    header = "   self    whole"
    return [header, *by_self, "", "by whole", header, *by_whole, "", *_library_lines(stacks)]


def libraries(stacks: str) -> Counter[str]:
    """Samples by the library (or package of ours) that spent them, itself or in Python's own."""
    found: Counter[str] = Counter()
    for line in stacks.splitlines():
        frames, _, samples = line.rpartition(" ")
        named = (_library(frame) for frame in reversed(frames.split(";")))
        found[next(filter(None, named), "python")] += int(samples)
    return found


def _library_lines(stacks: str) -> list[str]:
    found = libraries(stacks)
    total = max(found.total(), 1)
    lines = [f"{100 * samples / total:5.1f} %  {name}" for name, samples in found.most_common()]
    return ["by library", *lines]


def _library(frame: str) -> str | None:
    """The package of a frame's file; None for what belongs to Python itself."""
    path = frame.partition(" (")[2].rstrip(")")
    name = path.partition("/")[0].removesuffix(".py")
    return None if not name or name[0] == "<" or name in sys.stdlib_module_names else name


def _profile(stack: Stack, accounts: Sequence[int]) -> None:
    for kind, ending in _FORMATS.items():
        job = _job(stack, accounts)
        with Load(job) as load, _recording(stack.api.pid, f"post-api.{ending}", kind, "--gil"):
            load.start()
            load.outcome()
        wait_until_final(stack)
    for kind, ending in _FORMATS.items():
        stack.stop_workers()
        run_load(_job(stack, accounts))
        worker = stack.start_worker(wait=False)
        with _recording(worker.pid, f"drain-worker.{ending}", kind):
            wait_until_final(stack)
    worker = stack.workers[0]
    for kind, ending in _FORMATS.items():
        steady = Job(
            stack.port,
            order_requests(accounts, _STEADY_RATE * _SECONDS),
            JSON_HEADERS,
            rate=_STEADY_RATE,
        )
        with Load(steady) as load, _recording(worker.pid, f"steady-worker.{ending}", kind):
            load.start()
            load.outcome()
        wait_until_final(stack)
    for name in ("post-api", "drain-worker", "steady-worker"):
        top = top_lines((OUT / f"{name}.txt").read_text())
        (OUT / f"{name}-top.txt").write_text("\n".join(top) + "\n")
        print("\n".join([f"\n{name}", *top[: _TOP + 1]]))


def _job(stack: Stack, accounts: Sequence[int]) -> Job:
    requests = order_requests(accounts, len(accounts))
    return Job(stack.port, requests, JSON_HEADERS, _CONNECTIONS, seconds=_SECONDS)


@contextmanager
def _recording(pid: int, name: str, kind: str, *flags: str) -> Iterator[None]:
    """Record a process and its children while the body runs."""
    target = OUT / name
    target.unlink(missing_ok=True)
    program = Path(sys.executable).with_name("py-spy")
    command = [str(program), "record", "--pid", str(pid), "--subprocesses", "--nolineno"]
    command += [
        *flags,
        "--rate",
        str(_SAMPLES_PER_SECOND),
        "--format",
        kind,
        "--output",
        str(target),
    ]
    spy = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        _until(lambda: spy.poll() is not None, 1.0)
        yield
    finally:
        said = _end(spy)
    if not target.exists():
        raise CannotLook(
            f"py-spy cannot look at our own child processes here; it says: {said.strip()[-400:]}"
            " (it needs ptrace: root, or kernel.yama.ptrace_scope=0, or CAP_SYS_PTRACE)"
        )


def _end(spy: subprocess.Popen[str]) -> str:
    if spy.poll() is None:
        spy.send_signal(2)  # as Ctrl-C: it writes what it has
    try:
        return spy.communicate(timeout=_WAIT_SECONDS_MAX)[0]
    except subprocess.TimeoutExpired:
        spy.kill()
        return spy.communicate()[0]


def _function(frame: str) -> str:
    # "name (path/to/module.py)", and "process 12:name" where processes begin a stack.
    name, _, path = frame.partition(" (")
    short = "/".join(path.rstrip(")").split("/")[-3:])
    return f"{name} ({short})" if path else name


def _until(check: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not check() and time.monotonic() < deadline:
        time.sleep(0.05)


if __name__ == "__main__":
    sys.exit(main())
