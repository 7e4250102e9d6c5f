"""The chaos run: load and faults on a real stack, then judgement. See docs/chaos.md.

Start it with ``make chaos``. It ends with 1 if anything that was promised did not hold.
"""

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random, SystemRandom

from local import commands
from local.ports import free_port
from local.processes import Process, wait_until
from tests.chaos import client, history, nemesis, picture, report
from tests.chaos.checker import ATTEMPTS_MIN, check
from tests.chaos.effects import effects
from tests.chaos.history import Call, read_calls
from tests.chaos.mender import Mender
from tests.chaos.nemesis import Fault, Nemesis
from tests.chaos.proxy import DynamoDbProxy, Loop, TcpProxy
from tests.chaos.reader import finish_streams, open_accounts, read_everything
from tests.chaos.table import dump, wait_until_decided
from tests.stack import Engines, Stack, is_ok

WORK = commands.ROOT / ".chaos"
CLIENT_PROCESSES = 2
CLIENTS_EACH = 48
ACCOUNTS_EACH = 48
HOT_ACCOUNTS = 5
HOT_CASH = 10**10
LAST_QUIET_SECONDS = 4.0
LOAD_SECONDS_MAX = 1800.0
DECIDED_SECONDS_MAX = 180.0
READY_SECONDS_MAX = 60.0
AUDIT_SECONDS_MAX = 300.0
ACCEPTED_PER_SECOND_MIN = 10
"""A run with less traffic shows nothing."""
_MEMORY = Path("/dev/shm")  # noqa: S108 - a folder of our own is made in it
_MEMORY_BYTES_MIN = 3 * 1024**3
ENV = {"RECOVER_AFTER": "2", "SWEEP_EVERY": "0.5", "ATTEMPTS_MAX": str(ATTEMPTS_MIN)}


@dataclass(frozen=True, slots=True)
class Wish:
    """What the command line asks for; ``orders`` 0 means: until ``seconds`` are over."""

    seconds: float
    orders: int
    seed: int
    out: Path


class Load:
    """The processes of the clients."""

    def __init__(self, folder: Path, seed: int, ports: list[int], hot: list[int]) -> None:
        self._settings = [
            client.Settings(
                f"c{number}",
                seed,
                ports,
                history=str(folder / f"history-{number}.jsonl"),
                progress=str(folder / f"progress-{number}"),
                hot_accounts=hot,
                clients=CLIENTS_EACH,
                accounts=ACCOUNTS_EACH,
            )
            for number in range(CLIENT_PROCESSES)
        ]
        self._processes = [
            Process(
                settings.name,
                [sys.executable, "-m", "tests.chaos.client", json.dumps(asdict(settings))],
                folder / f"{settings.name}.log",
                cwd=commands.ROOT,
            )
            for settings in self._settings
        ]

    @property
    def histories(self) -> list[Path]:
        return [Path(settings.history) for settings in self._settings]

    @property
    def accepted(self) -> int:
        """How many orders have been accepted so far."""
        return int(sum(accepted for accepted, _ in self._progress()))

    @property
    def cpu_seconds(self) -> float:
        return sum(seconds for _, seconds in self._progress())

    @property
    def failed(self) -> list[str]:
        return [one.name for one in self._processes if one.exit_code not in (None, 0)]

    def start(self) -> None:
        for process in self._processes:
            process.start()

    def stop(self) -> None:
        """End the load; what has no answer yet is still asked for."""
        for process in self._processes:
            process.ask_to_stop()
        for process in self._processes:
            process.end_within(client.FINISH_SECONDS + 15)

    def kill(self) -> None:
        for process in self._processes:
            process.kill()

    def _progress(self) -> Iterator[tuple[float, float]]:
        for settings in self._settings:
            path = Path(settings.progress)
            told = path.read_text() if path.exists() else "0 0"
            accepted, seconds = told.split()
            yield float(accepted), float(seconds)


def main() -> int:
    """Run, judge, report."""
    wish = _wish()
    shutil.rmtree(WORK / "run", ignore_errors=True)
    folder = WORK / "run"
    folder.mkdir(parents=True)
    print(f"seed {wish.seed}", flush=True)
    run = _run(wish, folder)
    told = report.report(run)
    wish.out.mkdir(parents=True, exist_ok=True)
    (wish.out / "report.json").write_text(json.dumps(told, indent=2, ensure_ascii=False) + "\n")
    picture.draw(run, wish.out / "timeline.png")
    print(report.as_text(told))
    print(f"\n{wish.out / 'report.json'}\n{wish.out / 'timeline.png'}")
    is_good = not run.violations and not run.errors
    print("\nEverything held." if is_good else f"\nNOT everything held; see {folder}.")
    return 0 if is_good else 1


def _wish() -> Wish:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--orders", type=int, default=0)
    parser.add_argument("--seed", type=int, default=SystemRandom().randrange(10**6))
    parser.add_argument("--out", type=Path, default=WORK)
    given = parser.parse_args()
    return Wish(given.seconds, given.orders, given.seed, given.out)


@contextlib.contextmanager
def _data_in_memory(link: Path) -> Iterator[None]:
    """Keep DynamoDB's file in memory where there is room: its waits for the disk test nothing.

    What a killed process has written stays there as well as on a disk.
    """
    if not _MEMORY.is_dir() or shutil.disk_usage(_MEMORY).free < _MEMORY_BYTES_MIN:
        yield
        return
    with tempfile.TemporaryDirectory(prefix="chaos-", dir=_MEMORY) as there:
        link.parent.mkdir(parents=True)
        link.symlink_to(there)
        yield
        link.unlink()


def _run(wish: Wish, folder: Path) -> report.Run:
    loop = Loop()
    engines_folder = folder / "engines"
    with _data_in_memory(engines_folder / "dynamodb"), Engines(engines_folder) as engines:
        redis = TcpProxy(loop, free_port(), engines.redis_port)
        dynamodb = DynamoDbProxy(
            loop, free_port(), engines.dynamodb_port, Random(f"{wish.seed}/proxy")
        )
        redis.listen()
        dynamodb.listen()
        env = {
            **ENV,
            "REDIS_URL": f"redis://127.0.0.1:{redis.port}/0",
            "CACHE_URL": f"redis://127.0.0.1:{redis.port}/1",
            "AWS_ENDPOINT_URL_DYNAMODB": f"http://127.0.0.1:{dynamodb.port}",
        }
        try:
            with Stack(engines, api_processes=1, workers=2, env=env) as stack:
                return _Chaos(wish, folder, stack, redis, dynamodb).run()
        finally:
            redis.cut()
            dynamodb.cut()
            loop.close()


class _Chaos:
    def __init__(
        self, wish: Wish, folder: Path, stack: Stack, redis: TcpProxy, dynamodb: DynamoDbProxy
    ) -> None:
        self._wish = wish
        self._folder = folder
        self._stack = stack
        self._proxies = (redis, dynamodb)
        self._idle = self._cpu = 0.0
        self._second_port = free_port()
        self._second_api = Process(
            "api2",
            commands.api(),
            stack.folder / "api2.log",
            env={**stack.env, "API_PORT": str(self._second_port)},
            cwd=commands.ROOT,
        )
        self._processes = {
            "api1": stack.api,
            "api2": self._second_api,
            "worker1": stack.workers[0],
            "worker2": stack.workers[1],
            "sweeper": stack.sweepers[0],
        }
        random = Random(f"{wish.seed}/effects")
        self._nemesis = Nemesis(effects(stack.engines, redis, dynamodb, self._processes, random))

    def run(self) -> report.Run:
        self._second_api.start()
        try:
            return self._run()
        finally:
            self._second_api.stop()

    def _run(self) -> report.Run:
        ports = [self._stack.port, self._second_port]
        setup = self._folder / "history-setup.jsonl"
        hot = open_accounts(ports[0], HOT_ACCOUNTS, HOT_CASH, setup)
        if not wait_until(
            lambda: is_ok(f"http://127.0.0.1:{self._second_port}/readyz"), READY_SECONDS_MAX
        ):
            raise RuntimeError("the second API is not ready")
        load = Load(self._folder, self._wish.seed, ports, hot)
        load.start()
        by_hand = self._folder / "history-by-hand.jsonl"
        mender = Mender(
            self._stack.dynamodb,
            self._stack.table_name,
            self._stack.env,
            Random(f"{self._wish.seed}/mender"),
            by_hand,
        )
        mender.start()
        try:
            start, load_end, healed = self._load(load)
        finally:
            load.kill()
            mender.finish()
        self._nemesis.errors += mender.errors
        left = wait_until_decided(self._stack.dynamodb, self._stack.table_name, DECIDED_SECONDS_MAX)
        decided = time.monotonic()
        print(f"everything decided {decided - healed:.1f} s after the last fault", flush=True)
        last = self._folder / "history-last.jsonl"
        calls = list(read_calls([setup, by_hand, *load.histories]))
        read_everything(ports, calls, last)
        events = self._folder / "history-events.jsonl"
        finish_streams(ports, calls, events)
        calls += read_calls([last, events])
        return self._judge(load, calls, (start, load_end, healed, decided), left)

    def _load(self, load: Load) -> tuple[float, float, float]:
        """Load and faults; returns when they began, when the load ended, when the faults did."""
        wish = self._wish
        start = time.monotonic()
        self._idle, self._cpu = _idle_seconds(), time.process_time()
        random = Random(f"{wish.seed}/plan")
        if wish.orders:
            deadline = start + LOAD_SECONDS_MAX
            faults: Iterator[Fault] = nemesis.plan(random, nemesis.QUIET_SECONDS_LONG)
        else:
            planned = nemesis.plan_within(random, wish.seconds - LAST_QUIET_SECONDS)
            last = max(fault.at + fault.seconds for fault in planned)
            deadline = start + max(wish.seconds, last + LAST_QUIET_SECONDS)
            faults = iter(planned)

        def may_go_on() -> bool:
            enough = wish.orders and load.accepted >= wish.orders
            return not enough and not load.failed and time.monotonic() < deadline

        self._nemesis.run(faults, start, may_go_on)
        while may_go_on():
            time.sleep(0.1)
        self._nemesis.finish()
        healed = time.monotonic()
        self._idle = _idle_seconds() - self._idle
        self._cpu = time.process_time() - self._cpu
        load.stop()
        return start, healed, healed

    def _judge(
        self,
        load: Load,
        calls: list[Call],
        times: tuple[float, float, float, float],
        left: int,
    ) -> report.Run:
        table = dump(self._stack.dynamodb, self._stack.table_name)
        errors = [*self._nemesis.errors, *(f"{name} ended early" for name in load.failed)]
        errors += [f"{name} is gone" for name, one in self._processes.items() if not one.running]
        if left:
            errors.append(f"{left} orders undecided after {DECIDED_SECONDS_MAX:g} s")
        if self._wish.orders and load.accepted < self._wish.orders:
            errors.append(f"only {load.accepted} orders accepted")
        if load.accepted < ACCEPTED_PER_SECOND_MIN * (times[1] - times[0]):
            errors.append(f"only {load.accepted} orders accepted: the clients hardly asked")
        missing_ends = {"executed", "rejected", "cancelled"} - {row.status for row in table.orders}
        errors += [f"no order was {status}" for status in sorted(missing_ends)]
        answered = [call for call in calls if call.status]
        # That a stream ended is no event.
        seen = {call.op for call in answered if call.order or call.op != history.EVENT}
        missing_calls = set(history.OPERATIONS) - seen
        errors += [f"no call of the kind {op!r}" for op in sorted(missing_calls)]
        errors += _audited(self._stack)
        missing = {kind.name for kind in nemesis.KINDS} - {
            window.kind for window in self._nemesis.windows
        }
        errors += [f"no fault of the kind {kind!r}" for kind in sorted(missing)]
        return report.Run(
            self._wish.seed,
            *times,
            wall_offset=time.time() - time.monotonic(),
            calls=calls,
            table=table,
            windows=sorted(self._nemesis.windows, key=lambda window: window.start),
            violations=check(calls, table),
            proxy_counts=self._proxies[0].counts + self._proxies[1].counts,
            client_cpu_seconds=load.cpu_seconds,
            proxies_cpu_seconds=self._cpu,
            idle_seconds=self._idle,
            errors=errors,
        )


def _audited(stack: Stack) -> list[str]:
    """What the project's own audit finds, which is told beside what the judge finds."""
    ended = subprocess.run(
        commands.ops("audit"),
        cwd=commands.ROOT,
        env=stack.env,
        capture_output=True,
        text=True,
        timeout=AUDIT_SECONDS_MAX,
        check=False,
    )
    if ended.returncode == 0:
        return []
    told = (ended.stdout + ended.stderr).splitlines()
    return [f"the audit ended with {ended.returncode}", *told[: report.EXAMPLES_MAX]]


def _idle_seconds() -> float:
    """How long this machine's processors have had nothing to do; 0 where that is not told."""
    stat = Path("/proc/stat")
    if not stat.exists():
        return 0.0
    return int(stat.read_text().split()[4]) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    sys.exit(main())
