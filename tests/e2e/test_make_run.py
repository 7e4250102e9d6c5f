"""The embedded mode as a newcomer meets it: start, use, stop, start again."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import pytest

from local.ports import free_port, is_free
from local.processes import wait_until
from tests.integration.client import Client
from tests.stack import Engines

pytestmark = pytest.mark.integration

START_SECONDS = 60.0
STOP_SECONDS = 30.0
OPS_SECONDS = 60.0
BANNER_END = "Ctrl-C stops everything."
PORTS = ("API_PORT", "FLOWER_PORT", "EMBEDDED_REDIS_PORT", "EMBEDDED_DYNAMODB_PORT")


class Run:
    """One run of the embedded mode, on ports of its own."""

    def __init__(self, folder: Path, **changes: str) -> None:
        self.ports = {name: free_port() for name in PORTS}
        self.log = folder / "run.log"
        self.env = env = {
            **{name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ},
            **{name: str(port) for name, port in self.ports.items()},
            "DATA_DIR": str(folder / "data"),
            **changes,
        }
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "local.run"],
                env=env,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()

    @property
    def client(self) -> Client:
        return Client(f"http://127.0.0.1:{self.ports['API_PORT']}")

    @property
    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def wait_for_banner(self) -> None:
        over = wait_until(
            lambda: BANNER_END in self.output or self.process.poll() is not None, START_SECONDS
        )
        assert over, self.output
        assert BANNER_END in self.output, self.output

    def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        self.process.send_signal(number)
        return self.process.wait(STOP_SECONDS)

    def ops(self, *arguments: str, **changes: str) -> "subprocess.CompletedProcess[str]":
        """What ``make ops ARGS="..."`` does, with the variables of this run."""
        return subprocess.run(
            [sys.executable, "-m", "local.ops", *arguments],
            env={**self.env, **changes},
            capture_output=True,
            text=True,
            timeout=OPS_SECONDS,
            check=False,
        )

    def free_ports(self) -> list[str]:
        return [name for name, port in self.ports.items() if is_free("127.0.0.1", port)]


@contextmanager
def running(folder: Path, **changes: str) -> Iterator[Run]:
    with Run(folder, **changes) as run:
        run.wait_for_banner()
        yield run


def family(pid: int) -> dict[int, str]:
    """The command of each living descendant of a process."""
    parents: dict[int, int] = {}
    names: dict[int, str] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            stat = (entry / "stat").read_text()
            names[int(entry.name)] = (entry / "cmdline").read_text().replace("\0", " ")
        except OSError:
            continue
        parents[int(entry.name)] = int(stat.rpartition(")")[2].split()[1])
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return {member: names[member] for member in found - {pid}}


def still_alive(processes: dict[int, str]) -> list[str]:
    """Those that still run; an id that meanwhile stands for another command does not count."""
    return [name for pid, name in processes.items() if name and command_of(pid) == name]


def command_of(pid: int) -> str:
    """The command of a process; a zombie and what is gone have none."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""


@pytest.mark.any_store
def test_an_order_is_executed_and_outlives_the_run(tmp_path: Path) -> None:
    with running(tmp_path) as run:
        account = run.client.open_account(1000)
        order = run.client.settled(run.client.order(account, total_shares=2, share_price=50))
        processes = family(run.process.pid)

        assert order["status"] == "executed"
        assert "always open in this mode" in run.output
        assert str(tmp_path / "data") in run.output
        for part in ("valkey-server", "dynoxide", "gunicorn", "worker", "sweeper", "flower"):
            assert any(part in name for name in processes.values()), part
        assert run.stop() == 0
        assert still_alive(processes) == []
        assert run.free_ports() == list(PORTS)

    with running(tmp_path) as again:
        assert again.client.account(account)["cash"] == "900"
        assert again.client.settled(order)["status"] == "executed"
        assert again.stop(signal.SIGTERM) == 0


@pytest.mark.any_store
def test_operators_back_the_run_up_and_restore_it_beside_itself(tmp_path: Path) -> None:
    file = str(tmp_path / "orders.json.gz")
    with running(tmp_path) as run:
        account = run.client.open_account(1000)
        run.client.settled(run.client.order(account))
        made = run.ops("backup", file)
        assert made.returncode == 0, made
        assert "1 accounts" in made.stdout
        back = run.ops("restore", file, TABLE_NAME="copy")
        assert back.returncode == 0, back
        audited = run.ops("audit", TABLE_NAME="copy")
        assert audited.returncode == 0, audited
        assert "1 account, 1 order (1 executed)" in audited.stdout
        refused = run.ops("restore", file)
        assert refused.returncode == 1
        assert "holds items" in refused.stderr


@pytest.mark.any_store
def test_the_banners_lines_work_when_pasted(tmp_path: Path) -> None:
    with running(tmp_path) as run:
        lines = [line for line in run.output.splitlines() if line.strip().startswith("curl")]
        open_account, place_order, read_account = map(pasted, lines)

        assert open_account["id"] == 1
        assert place_order["status"] == "pending"
        assert read_account["id"] == 1
        assert run.client.settled(place_order)["status"] == "executed"


def pasted(line: str) -> dict[str, object]:
    ended = subprocess.run(
        ["sh", "-c", line],  # noqa: S607 - a person's shell is what is tested
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    return dict(json.loads(ended.stdout))


@pytest.mark.any_store
def test_a_second_run_on_the_same_data_is_refused(tmp_path: Path) -> None:
    with running(tmp_path) as run:
        other = tmp_path / "other"
        other.mkdir()
        with Run(other, DATA_DIR=str(tmp_path / "data")) as second:
            assert second.process.wait(START_SECONDS) == 2
            assert f"{tmp_path / 'data'} is in use by another run" in second.output
            assert second.free_ports() == list(PORTS)
        assert run.client.get("/readyz").status_code == 200


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ties a child to its parent")
@pytest.mark.any_store
def test_a_killed_supervisor_leaves_no_process_behind(tmp_path: Path) -> None:
    with running(tmp_path, WORKERS="2") as run:
        processes = family(run.process.pid)
        assert sum("worker2@" in name for name in processes.values()) >= 2
        run.process.kill()

        gone = wait_until(lambda: still_alive(processes) == [], STOP_SECONDS)
        assert gone, still_alive(processes)
        # The kernel takes an ending process' command away before it closes its sockets.
        assert wait_until(lambda: run.free_ports() == list(PORTS), STOP_SECONDS), run.free_ports()


@pytest.mark.any_store
def test_a_killed_worker_is_started_again(tmp_path: Path) -> None:
    with running(tmp_path) as run:
        account = run.client.open_account(1000)
        worker = next(
            pid
            for pid, name in family(run.process.pid).items()
            if "--hostname=worker@" in name and os.getpgid(pid) == pid
        )
        os.kill(worker, signal.SIGKILL)

        assert run.client.settled(run.client.order(account))["status"] == "executed"
        assert "starting it again" in run.output


@pytest.mark.any_store
def test_a_signal_during_the_start_stops_it(tmp_path: Path) -> None:
    with Run(tmp_path) as run:
        assert wait_until(lambda: "table" in run.output, START_SECONDS)
        processes = family(run.process.pid)

        assert run.stop() == 0
        assert still_alive(processes) == []
        assert BANNER_END not in run.output


def test_servers_of_the_users_take_the_place_of_the_embedded_ones(
    tmp_path: Path, engines: Engines
) -> None:
    table = f"own-{time.monotonic_ns()}"
    settings = {
        "REDIS_URL": engines.redis_url(1022),
        "AWS_ENDPOINT_URL_DYNAMODB": engines.dynamodb_url,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "local",
        "AWS_SECRET_ACCESS_KEY": "local",
        "TABLE_NAME": table,
    }
    with running(tmp_path, **settings) as run:
        account = run.client.open_account(1000)
        names = family(run.process.pid).values()

        assert run.client.settled(run.client.order(account))["status"] == "executed"
        assert not any("valkey-server" in name or "dynoxide" in name for name in names)
        assert not (tmp_path / "data" / "redis").exists()
