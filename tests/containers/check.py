"""Checks images and docker-compose.yml on a real Docker engine: `make test-containers`.

It builds, starts, trades, scales, kills, restarts, and prints what it saw. Without an engine it
says so and ends with 0. Its project and its ports are its own; its containers and volumes are gone
afterwards. How it is used: docs/containers.md
"""

import argparse
import json
import os
import secrets
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import requests
import yaml

from tests.containers.engine import ROOT, CommandFailedError, Docker, NoEngineError, find, wait_for
from tests.containers.traffic import FINAL, Client, Trader, trading

IMAGES = {"api": "order-processor-api:dev", "worker": "order-processor-worker:dev"}
HOLDS = {"api": {"api", "shared"}, "worker": {"ops", "shared", "worker"}}
USER = "10001:10001"
BUILD_TOOLS = ("gcc", "cc", "g++", "make", "pip", "pip3", "git")
PYTHON_TOOLS = ("pip", "setuptools", "wheel", "ensurepip")
LONG_RUNNING = ("proxy", "api", "worker", "sweeper", "flower", "broker", "cache", "dynamodb")
AS_ROOT = {"dynamodb"}
"""Why stands in docker-compose.yml."""

UP_SECONDS_MAX = 150.0
DECIDED_SECONDS_MAX = 150.0
BACKLOG_ORDERS = 60
MONITOR_SECONDS_MAX = 120.0
JOBS = {"orders-api": 2, "orders-worker": 1, "orders-sweeper": 1}
"""What Prometheus finds, and how many of each."""

_STATE = Path(".data") / "containers-check.json"
_KEY_FILE = Path(".data") / "containers-check" / "operator-key"


@dataclass
class Report:
    """What was seen, check by check."""

    seen: list[dict[str, Any]] = field(default_factory=list)

    def see(self, check: str, what: str, *, ok: bool = True) -> None:
        """Note one thing, and print it."""
        self.seen.append({"check": check, "seen": what, "ok": ok})
        print(f"{'ok  ' if ok else 'FAIL'} {check:<38} {what}", flush=True)

    @property
    def is_good(self) -> bool:
        """Nothing failed."""
        return all(line["ok"] for line in self.seen)


@dataclass
class Check:
    """The stages; each stands on those before it."""

    docker: Docker
    report: Report
    url: str
    flower: str
    key: str = ""
    accounts: list[int] = field(default_factory=list)

    def client(self) -> Client:
        """A client with the key that was made."""
        return Client(self.url, self.key)

    # Images

    def build(self) -> None:
        """Build both images, as the compose file says."""
        began = time.monotonic()
        self.docker.compose("build", "api", "worker", seconds=600)
        self.report.see("build", f"{time.monotonic() - began:.0f} s")

    def images(self) -> None:
        """What is in the images, and what is not."""
        for kind, name in IMAGES.items():
            self._image(kind, self.docker.inspect(name)[0])
            self._contents(kind, name)
        self._refusals()

    def _image(self, kind: str, image: dict[str, Any]) -> None:
        config = image["Config"]
        layers = len(image["RootFS"]["Layers"])
        size = image["Size"] / 1e6
        self.report.see(f"{kind} image: size", f"{size:.0f} MB in {layers} layers", ok=size < 500)
        self.report.see(f"{kind} image: user", config["User"], ok=config["User"] == USER)
        entry = config["Entrypoint"][0]
        self.report.see(f"{kind} image: process 1", entry, ok=entry == "tini")
        test = (config.get("Healthcheck") or {}).get("Test")
        self.report.see(f"{kind} image: health check", str(test), ok=bool(test))
        labels = sorted(config["Labels"] or {})
        wanted = any(label.endswith("image.version") for label in labels)
        self.report.see(f"{kind} image: labels", f"{len(labels)}", ok=wanted)

    def _contents(self, kind: str, name: str) -> None:
        """What a container of the image finds around it, confined as compose confines it."""
        entry = ["--entrypoint", "python", name]
        told = self.docker.run("run", "--rm", *_CONFINED, *entry, "-c", _LOOK_AROUND)
        inside = json.loads(told)
        user, tools = inside["user"], inside["tools"]
        self.report.see(f"{kind} image: runs as", user, ok=user == USER)
        self.report.see(f"{kind} image: build tools", ", ".join(tools) or "none", ok=not tools)
        packages = set(inside["packages"])
        self.report.see(
            f"{kind} image: packages", ", ".join(sorted(packages)), ok=packages == HOLDS[kind]
        )
        count = inside["imported"]
        self.report.see(f"{kind} image: modules that import", f"all {count}", ok=count > 20)

    def _refusals(self) -> None:
        """What the worker's image does not do."""
        for name in ("flower", "nonsense"):
            said = _failure(self._start, name)
            what = said.splitlines()[-1][-90:] if said else "it started"
            self.report.see(f"worker image: {name} without more", what, ok=bool(said))

    def _start(self, *arguments: str) -> str:
        return self.docker.run("run", "--rm", *_CONFINED, IMAGES["worker"], *arguments, seconds=60)

    # Compose

    def up(self) -> None:
        """Start everything, and see that it is healthy and confined."""
        took = self._up()
        self.report.see("up", f"all healthy after {took:.0f} s")
        self._confinement()
        self._published()
        self._flower()

    def go_on(self) -> None:
        """Start what was stopped meanwhile."""
        self._up("--no-recreate")

    def _up(self, *options: str) -> float:
        began = time.monotonic()
        self.docker.compose("up", "--detach", "--no-build", *options)
        wait_for("every container is healthy", self._all_healthy, UP_SECONDS_MAX)
        return time.monotonic() - began

    def _all_healthy(self) -> bool:
        ids = [id_ for service in LONG_RUNNING for id_ in self.docker.containers(service)]
        found = self.docker.inspect(*ids)
        services = {_service(container) for container in found}
        return services == set(LONG_RUNNING) and all(map(_is_healthy, found))

    def _confinement(self) -> None:
        found = self.docker.inspect(*self.docker.containers())
        for container in found:
            host = container["HostConfig"]
            name = _service(container)
            is_confined = (
                host["ReadonlyRootfs"]
                and host["CapDrop"] == ["ALL"]
                and not (host["CapAdd"] and name not in AS_ROOT)
                and "no-new-privileges:true" in host["SecurityOpt"]
                and host["Memory"] > 0
                and host["NanoCpus"] > 0
            )
            user = self._user(container["Id"])
            ok = bool(is_confined) and (user != "0" or name in AS_ROOT)
            self.report.see(f"confined: {name}", f"user {user}, limits, read-only", ok=ok)
        for service in ("api", "worker", "sweeper", "flower"):
            first = self.docker.containers(service)[0]
            name = self.docker.within(first, "cat", "/proc/1/comm").strip()
            written = _failure(self.docker.within, first, "touch", "/app/x")
            self.report.see(
                f"process 1, and writing: {service}",
                f"{name}; {written.splitlines()[-1][:60] if written else 'may write'}",
                ok=name == "tini" and "Read-only" in written,
            )

    def _user(self, container: str) -> str:
        status = self.docker.within(container, "cat", "/proc/1/status")
        line = next(line for line in status.splitlines() if line.startswith("Uid:"))
        return line.split()[2]

    def _published(self) -> None:
        found = self.docker.inspect(*self.docker.containers())
        published = {
            _service(container): sorted(
                {port["HostIp"] for ports in bound.values() if ports for port in ports}
            )
            for container in found
            if any((bound := container["NetworkSettings"]["Ports"]).values())
        }
        self.report.see(
            "published",
            str(published),
            ok=published == {"proxy": ["127.0.0.1"], "flower": ["127.0.0.1"]},
        )

    def _flower(self) -> None:
        stranger = requests.get(f"{self.flower}/workers", timeout=10).status_code
        self.report.see("Flower without a login", f"{stranger}", ok=stranger == 401)
        login = (FLOWER_USER, self.docker.environment["FLOWER_PASSWORD"])
        known = requests.get(f"{self.flower}/workers", auth=login, timeout=10).status_code
        self.report.see("Flower with its login", f"{known}", ok=known == 200)
        stop = requests.post(
            f"{self.flower}/api/worker/shutdown/worker@none", auth=login, timeout=10
        ).status_code
        self.report.see("Flower stops no worker", f"{stop}", ok=stop in (403, 405))

    def trade(self) -> None:
        """A first key, an account, and orders through the proxy."""
        stranger = requests.get(f"{self.url}/v1/accounts/1", timeout=10).status_code
        self.report.see("API without a key", f"{stranger}", ok=stranger == 401)
        made = self._ops("keys", "create", "--name", "check", "--operator")
        self.key = made.split()[-1]
        client = self.client()
        account = client.open_account(1000)
        self.accounts.append(account)
        outcomes = [
            client.final(account, client.order(account, "GBM", *what))
            for what in (("BUY", 10), ("SELL", 4), ("SELL", 50), ("BUY", 10_000))
        ]
        seen = [(order["status"], *order["business_errors"]) for order in outcomes]
        self.report.see("orders through the proxy", str(seen), ok=seen == _EXPECTED)
        held = client.get(f"/v1/accounts/{account}")
        self.report.see("account afterwards", f"cash {held['cash']}", ok=held["cash"] == "991")
        self._large_body(client)
        self._address(client, account)
        self._events(account)

    def _ops(self, *arguments: str) -> str:
        return self.docker.compose("run", "--rm", "-T", "ops", *arguments)

    def _large_body(self, client: Client) -> None:
        answer = client.once("POST", "/v1/accounts", {"cash": "1" * 2_000_000})
        kind = answer.headers.get("Content-Type")
        ok = answer.status_code == 413 and kind == "application/problem+json"
        self.report.see("a body beyond all limits", f"{answer.status_code} {kind}", ok=ok)

    def _address(self, client: Client, account: int) -> None:
        """What a client says of its own address is not believed."""
        name = f"check-{secrets.token_hex(4)}"
        headers = {"X-Forwarded-For": "203.0.113.9", "X-Request-Id": name}
        client.stubbornly("POST", f"/v1/accounts/{account}/orders", {}, headers)
        logs = self.docker.compose("logs", "--no-color", "--tail", "200", "api").splitlines()
        lines = [json.loads(line[line.index("{") :]) for line in logs if name in line]
        address = lines[0]["address"] if lines else "none"
        ok = address not in ("none", "203.0.113.9")
        self.report.see("a client's address in the audit log", address, ok=ok)

    def _events(self, account: int) -> None:
        """An event passes the proxy when it happens, not when a buffer is full."""
        heard: list[float] = []
        opened = threading.Event()

        def listen() -> None:
            headers = {"Authorization": f"Bearer {self.key}"}
            path = f"{self.url}/v1/accounts/{account}/events"
            with requests.get(path, headers=headers, stream=True, timeout=20) as answer:
                for line in answer.iter_lines(chunk_size=1):
                    opened.set()
                    if line == b"event: order":
                        heard.append(time.monotonic())
                        return

        thread = threading.Thread(target=listen, daemon=True)
        thread.start()
        opened.wait(10)
        sent = time.monotonic()
        self.client().order(account, "EVENT")
        thread.join(15)
        after = heard[0] - sent if heard else -1.0
        self.report.see("an event through the proxy", f"after {after:.2f} s", ok=0 <= after < 5)

    # Scaling

    def scale(self) -> None:
        """More APIs take their share, and more workers work a backlog off sooner."""
        self._up("--no-recreate", "--scale", "api=3")
        wait_for("the proxy asks three APIs", lambda: self._share() == 3, 60)
        self.report.see("--scale api=3", "all three answer")
        slow = self.docker.with_file(ROOT / "tests" / "containers" / "slow-store.yml")
        took = {count: self._work_off(slow, count) for count in (1, 4)}
        gain = took[1] / took[4]
        self.report.see(
            "--scale worker=4, slow store",
            f"{BACKLOG_ORDERS} orders: one {took[1]:.1f} s, four {took[4]:.1f} s, {gain:.1f} x",
            ok=gain > 2,
        )
        self.docker.compose("up", "--detach", "--no-build", "--remove-orphans")
        wait_for("every container is healthy", self._all_healthy, UP_SECONDS_MAX)

    def _share(self) -> int:
        """How many APIs took part in what was logged of a few requests that change nothing."""
        client = self.client()
        before = self._requests_seen()
        for _ in range(24):
            client.once("POST", f"/v1/accounts/{self.accounts[0]}/orders", {})
        after = self._requests_seen()
        return sum(after[api] > before.get(api, 0) for api in after)

    def _requests_seen(self) -> dict[str, int]:
        """How many requests each API has written down."""
        lines = self.docker.compose("logs", "--no-color", "api").splitlines()
        return Counter(line.split("|")[0].strip() for line in lines if '"request_id"' in line)

    def _work_off(self, slow: Docker, workers: int) -> float:
        """Seconds from the first to the last decision of a backlog."""
        slow.compose("up", "--detach", "--no-build", "--scale", "worker=0", "worker", "slow-store")
        client = self.client()
        orders = []
        for _ in range(BACKLOG_ORDERS):
            account = client.open_account(1000)
            self.accounts.append(account)
            orders.append((account, client.order(account, "BACKLOG")))
        slow.compose("up", "--detach", "--no-build", "--scale", f"worker={workers}", "worker")
        decided = [client.final(*order, seconds=DECIDED_SECONDS_MAX) for order in orders]
        times = sorted(_seconds(order["decided_at"]) for order in decided)
        return times[-1] - times[0]

    # Monitoring

    def monitor(self) -> None:
        """Prometheus of the profile `monitoring` finds all processes, and sees orders decided."""
        image = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["prometheus"]
        if missing := _failure(self.docker.inspect, image["image"]):
            self.report.see("monitor", f"skipped, no image: {missing.splitlines()[-1][-90:]}")
            return
        self._key_file()
        self.docker.compose("up", "--detach", "--no-build", "--no-recreate", "prometheus")
        try:
            took = wait_for(
                "Prometheus finds all", lambda: self._targets() == JOBS, MONITOR_SECONDS_MAX
            )
            self.report.see("Prometheus: targets that are up", f"{JOBS} after {took:.0f} s")
            self._decided_is_counted()
        finally:
            self.docker.run("rm", "--force", *self.docker.containers("prometheus", everything=True))

    def _key_file(self) -> None:
        """The operator's key as docs/containers.md has it written."""
        _KEY_FILE.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _KEY_FILE.write_text(self.key + "\n")
        # The folder keeps others out; in the container it is read by a user who is not ours.
        _KEY_FILE.chmod(0o644)

    def _decided_is_counted(self) -> None:
        before = self._figure(_DECIDED)
        client = self.client()
        account = client.open_account(1000)
        self.accounts.append(account)
        for number in range(1, 6):
            client.final(account, client.order(account, f"WATCH{number}"))
        took = wait_for(
            "the decisions are counted",
            lambda: self._figure(_DECIDED) >= before + 5,
            MONITOR_SECONDS_MAX,
        )
        after = self._figure(_DECIDED)
        self.report.see(
            "Prometheus: orders_decided_total", f"{before:g}, then {after:g} after {took:.0f} s"
        )

    def _targets(self) -> dict[str, int]:
        return {
            found["metric"]["job"]: int(float(found["value"][1]))
            for found in self._query("sum by (job) (up)")
        }

    def _figure(self, query: str) -> float:
        found = self._query(query)
        return float(found[0]["value"][1]) if found else 0.0

    def _query(self, query: str) -> list[dict[str, Any]]:
        """What Prometheus answers a worker, since it is not published; nothing while it starts."""
        worker = self.docker.containers("worker")[0]
        url = f"http://prometheus:9090/api/v1/query?{urlencode({'query': query})}"
        try:
            told = self.docker.within(worker, "python", "-c", _GET, url)
        except CommandFailedError:
            return []
        found: list[dict[str, Any]] = json.loads(told)["data"]["result"]
        return found

    # Stopping, killing

    def stop(self) -> None:
        """SIGTERM reaches every process, and a rolling upgrade of the APIs fails no request."""
        with trading(self.url, self.key, 4) as traders:
            time.sleep(2)
            for api in self.docker.containers("api"):
                took, code = self._stopped(api)
                self.docker.run("rm", api)
                self.docker.compose(
                    "up", "--detach", "--no-build", "--no-deps", "--no-recreate", "api"
                )
                wait_for("the new API is healthy", self._all_healthy, UP_SECONDS_MAX)
                self.report.see(
                    "stop an API, start a new one", f"{took:.1f} s, code {code}", ok=code == 0
                )
        self._judge("rolling upgrade under load", traders, failures_max=0)
        for service in ("worker", "sweeper", "flower"):
            container = self.docker.containers(service)[0]
            took, code = self._stopped(container)
            self.docker.run("start", container)
            ok = code == 0 and took < 15
            self.report.see(f"stop {service}", f"{took:.1f} s, code {code}", ok=ok)

    def _stopped(self, container: str) -> tuple[float, int]:
        began = time.monotonic()
        grace = self.docker.inspect(container)[0]["Config"].get("StopTimeout") or 30
        self.docker.run("stop", "--time", str(grace), container)
        code = self.docker.inspect(container)[0]["State"]["ExitCode"]
        return time.monotonic() - began, int(code)

    def kill(self, *services: str) -> None:
        """Kill one container of each service under load; whatever was accepted is decided."""
        for service in services or LONG_RUNNING:
            with trading(self.url, self.key, 4) as traders:
                time.sleep(2)
                killed = self.docker.containers(service)[0]
                self._kill(service, killed)
                time.sleep(3)
                self.docker.run("start", killed)
                wait_for("every container is healthy", self._all_healthy, UP_SECONDS_MAX)
                time.sleep(1)
            self._judge(f"kill {service} under load", traders)

    def _kill(self, service: str, container: str) -> None:
        if service == "dynamodb":
            self._wait_for_the_journal(container)
        self.docker.run("kill", container)

    def _wait_for_the_journal(self, container: str) -> None:
        """Pause DynamoDB Local when it has written what it acknowledged: AWS's own always has."""
        volume = f"{self.docker.project}_dynamodb:/data:ro"
        journal = "/data/shared-local-instance.db-journal"
        look = ["--rm", "--network", "none", "--user", "0", "--volume", volume]
        script = f"import os; print(os.path.exists('{journal}'))"

        def is_written() -> bool:
            self.docker.run("pause", container)
            found = self.docker.run(
                "run", *look, "--entrypoint", "python", IMAGES["worker"], "-c", script
            )
            if found.strip() == "False":
                return True
            self.docker.run("unpause", container)
            return False

        wait_for("DynamoDB Local has written its journal", is_written, 60)

    def crash(self) -> None:
        """A process that dies by itself is started again."""
        for service in ("api", "worker"):
            container = self.docker.containers(service)[0]
            before = self._restarts(container)
            _failure(self.docker.within, container, "python", "-c", _KILL_ALL)
            self._wait_for_restart(container, before)
            took = wait_for("every container is healthy", self._all_healthy, UP_SECONDS_MAX)
            self.report.see(
                f"{service} dies by itself", f"started again, healthy after {took:.0f} s"
            )

    def _wait_for_restart(self, container: str, before: int) -> None:
        wait_for("it was started again", lambda: self._restarts(container) > before, 60)

    def _restarts(self, container: str) -> int:
        return int(self.docker.inspect(container)[0]["RestartCount"])

    def _judge(self, check: str, traders: list[Trader], failures_max: int | None = None) -> None:
        """All that was accepted is there once, and decided."""
        client = self.client()
        accepted = {trader.account: trader.accepted for trader in traders}
        self.accounts += accepted
        began = time.monotonic()
        wait_for(
            "every accepted order is decided",
            lambda: all(
                order["status"] in FINAL for account in accepted for order in client.orders(account)
            ),
            DECIDED_SECONDS_MAX,
        )
        took = time.monotonic() - began
        stored = {
            account: sorted(order["id"] for order in client.orders(account)) for account in accepted
        }
        lost = sum(len(set(ids) - set(stored[account])) for account, ids in accepted.items())
        twice = sum(len(set(stored[account]) - set(ids)) for account, ids in accepted.items())
        failures = sum(trader.client.failures for trader in traders)
        count = sum(map(len, accepted.values()))
        ok = lost == twice == 0 and count > 0
        if failures_max is not None:
            ok = ok and failures <= failures_max
        self.report.see(
            check,
            f"{count} accepted, {lost} lost, {twice} more than sent, {failures} repetitions,"
            f" all decided {took:.0f} s later",
            ok=ok,
        )

    def away(self) -> None:
        """Without the store the APIs still answer for themselves, and without an API the proxy."""
        client, account = self.client(), self.accounts[0]
        order = client.orders(account)[0]["id"]
        path = f"/v1/accounts/{account}/orders/{order}"
        client.get(path)
        with self._stopped_meanwhile("dynamodb"):
            # Longer than the proxy takes to see that nobody is ready.
            time.sleep(6)
            answers = [client.once("GET", path), client.once("POST", f"{path[:-37]}", {})]
            seen = [_told(answer) for answer in answers]
        ok = seen == ["200", "422 INVALID_OPERATION"] or "503 STORE_UNAVAILABLE" in seen
        self.report.see("without DynamoDB", ", ".join(seen), ok=ok and "503 NO_API" not in seen)
        with self._stopped_meanwhile("api"):
            # Over a connection of its own: the proxy may close those that it kept.
            told = _told(self.client().once("GET", path))
        self.report.see("without any API", told, ok=told == "503 NO_API")

    @contextmanager
    def _stopped_meanwhile(self, service: str) -> Iterator[None]:
        containers = self.docker.containers(service)
        self.docker.run("stop", "--time", "20", *containers)
        try:
            yield
        finally:
            self.docker.run("start", *containers)
            wait_for("every container is healthy", self._all_healthy, UP_SECONDS_MAX)

    # Data

    def keep(self) -> None:
        """`down` and `up` keep the data; the audit has nothing to say."""
        client = self.client()
        before = {account: client.get(f"/v1/accounts/{account}") for account in self.accounts}
        counts = {account: len(client.orders(account)) for account in self.accounts}
        self.docker.compose("down")
        self._up()
        client = self.client()
        after = {account: client.get(f"/v1/accounts/{account}") for account in self.accounts}
        counted = {account: len(client.orders(account)) for account in self.accounts}
        self.report.see(
            "down, up",
            f"{len(after)} accounts, {sum(counted.values())} orders",
            ok=before == after and counts == counted and bool(after),
        )
        audit = self._ops("audit", "--no-progress").strip().splitlines()
        self.report.see("audit", audit[-1][:100] if audit else "silent")

    def down(self) -> None:
        """Remove all of it, data too."""
        self.docker.compose("down", "--volumes", "--remove-orphans")


_CONFINED = ("--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--network", "none")  # noqa: S108
_EXPECTED = [
    ("executed",),
    ("executed",),
    ("rejected", "INSUFFICIENT_STOCKS"),
    ("rejected", "INSUFFICIENT_BALANCE"),
]
FLOWER_USER = "checker"
_DECIDED = "sum(orders_decided_total)"
_GET = "import sys, urllib.request as r; print(r.urlopen(sys.argv[1], timeout=5).read().decode())"

# An import that is not possible ends it with an error.
_LOOK_AROUND = f"""
import importlib, json, os, pathlib, shutil, subprocess, sys
find = "import importlib.util as u; print(*[n for n in {PYTHON_TOOLS} if u.find_spec(n)])"
os.environ['AWS_DEFAULT_REGION'] = 'us-east-1'
files = [path for path in pathlib.Path('.').glob('*/**/*.py') if path.stem != '__main__']
for path in files:
    parts = path.parent.parts if path.stem == '__init__' else path.with_suffix('').parts
    importlib.import_module('.'.join(parts))
folders = [path.name for path in pathlib.Path('.').iterdir() if path.is_dir()]
print(json.dumps({{
    'user': f'{{os.getuid()}}:{{os.getgid()}}',
    'tools': [tool for tool in {BUILD_TOOLS} if shutil.which(tool)]
        + subprocess.check_output([sys._base_executable, '-c', find], text=True).split(),
    'packages': [name for name in folders if name != '__pycache__'],
    'imported': len(files),
}}))
"""

_KILL_ALL = """
import os
for name in os.listdir('/proc'):
    if name.isdigit() and int(name) not in (1, os.getpid()):
        os.kill(int(name), 9)
"""


def main() -> int:
    """Run the stages that were asked for."""
    options = _options()
    project = "order-processor-check"
    state = _load_state() if options.resume else {}
    ports = state.get("ports") or [_free_port(), _free_port()]
    password = state.get("password") or secrets.token_urlsafe(12)
    environment = {
        "API_PORT": str(ports[0]),
        "FLOWER_PORT": str(ports[1]),
        "FLOWER_BASIC_AUTH": f"{FLOWER_USER}:{password}",
        "FLOWER_PASSWORD": password,
        "FRONT_SUBNET": "172.31.251.0/24",
        "MARKET_ALWAYS_OPEN": "true",
        "OPERATOR_KEY_FILE": str(ROOT / _KEY_FILE),
        "API_IMAGE": IMAGES["api"],
        "WORKER_IMAGE": IMAGES["worker"],
    }
    try:
        docker = find(project, environment)
    except NoEngineError as error:
        print(f"make test-containers is skipped: {error}")
        return 0
    check = Check(
        docker,
        Report(),
        f"http://127.0.0.1:{ports[0]}",
        f"http://127.0.0.1:{ports[1]}",
        state.get("key", ""),
        state.get("accounts", []),
    )
    with _tidied(check, keep=options.keep, resume=options.resume):
        for stage in options.stages:
            name, _, rest = stage.partition(":")
            arguments = rest.split("+") if rest else []
            _run(check.report, stage, getattr(check, name), arguments)
    if options.keep:
        _save_state(
            {"ports": ports, "password": password, "key": check.key, "accounts": check.accounts}
        )
    if options.out:
        _write(options.out, check.report, options.resume)
    print("all good" if check.report.is_good else "something failed", flush=True)
    return 0 if check.report.is_good else 1


STAGES = (
    *("build", "images", "up", "trade", "monitor", "scale", "stop"),
    *("kill", "crash", "away", "keep"),
)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stages", nargs="*", default=STAGES, help=f"from {', '.join(STAGES)}")
    parser.add_argument("--keep", action="store_true", help="leave it running, for --resume")
    parser.add_argument("--resume", action="store_true", help="go on with what --keep left")
    parser.add_argument("--out", type=Path, help="write what was seen as JSON")
    return parser.parse_args()


def _run(report: Report, stage: str, run: Callable[..., None], arguments: Sequence[str]) -> None:
    try:
        run(*arguments)
    except (CommandFailedError, TimeoutError, requests.RequestException, KeyError) as error:
        report.see(stage, repr(error)[-1500:], ok=False)


@contextmanager
def _tidied(check: Check, *, keep: bool, resume: bool) -> Iterator[None]:
    if resume:
        check.go_on()
    else:
        check.down()
    try:
        yield
    finally:
        if not keep:
            check.down()


def _write(out: Path, report: Report, resume: bool) -> None:
    before = json.loads(out.read_text()) if resume and out.exists() else {"seen": []}
    out.parent.mkdir(parents=True, exist_ok=True)
    seen = {"seen": before["seen"] + asdict(report)["seen"]}
    out.write_text(json.dumps(seen, indent=1) + "\n")


def _load_state() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(_STATE.read_text())
    return found


def _save_state(state: dict[str, Any]) -> None:
    _STATE.parent.mkdir(exist_ok=True)
    _STATE.touch(mode=0o600)
    _STATE.write_text(json.dumps(state))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _failure(run: Callable[..., Any], *arguments: Any) -> str:
    """What a command says that has to fail, empty if it does not."""
    try:
        run(*arguments)
    except CommandFailedError as error:
        return str(error)
    return ""


def _service(container: dict[str, Any]) -> str:
    return str(container["Config"]["Labels"]["com.docker.compose.service"])


def _is_healthy(container: dict[str, Any]) -> bool:
    return bool(container["State"].get("Health", {}).get("Status") == "healthy")


def _told(answer: requests.Response) -> str:
    """An answer's status, and its code if it is a problem."""
    is_problem = answer.headers.get("Content-Type") == "application/problem+json"
    return (
        f"{answer.status_code} {answer.json()['code']}" if is_problem else str(answer.status_code)
    )


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


if __name__ == "__main__":
    os.chdir(ROOT)
    sys.exit(main())
