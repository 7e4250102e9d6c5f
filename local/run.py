"""The embedded mode, `python -m local.run`: everything on this machine, under one supervisor.

Settings come from the environment; what is not set gets a default that works on a laptop. Ends
with 0 after Ctrl-C, 1 when something did not start, 2 when it could not even begin.
"""

import fcntl
import http.client
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from local import commands
from local.engines import (
    HOST,
    Engine,
    EngineMissingError,
    dynamodb_engine,
    redis_engine,
)
from local.ports import is_free
from local.processes import Process
from local.supervisor import Supervisor
from shared.networks import is_loopback_host

_ENGINE_READY_SECONDS = 30.0
_TABLE_READY_SECONDS = 60.0
_API_READY_SECONDS = 60.0
_WORKERS_READY_SECONDS = 60.0
_FLOWER_READY_SECONDS = 30.0
_PROBE_SECONDS = 2.0
_PORT_MAX = 65_535
_WORKERS_MAX = 64
_MARKET_SETTINGS = (
    "MARKET_OPEN",
    "MARKET_CLOSE",
    "MARKET_TZ",
    "MARKET_DAYS",
    "MARKET_ALWAYS_OPEN",
)

# What boto needs to sign requests; the embedded engine checks none of it. A profile or a session
# of the user's own must not get in between.
_EMBEDDED_AWS = {
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_REGION": "us-east-1",
    "AWS_ACCESS_KEY_ID": "embedded",
    "AWS_SECRET_ACCESS_KEY": "embedded",
}
_FOREIGN_AWS = ("AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_SESSION_TOKEN")


class CannotBeginError(Exception):
    """Something about the settings or the machine is in the way; each argument is one line."""


@dataclass(frozen=True)
class Port:
    """A port to listen on, and the variable that moves it."""

    variable: str
    host: str
    number: int


@dataclass(frozen=True)
class Plan:
    """What to start, and where; an engine's port is None where the user has a server."""

    data: Path
    api: Port
    flower: Port
    redis: Port | None
    dynamodb: Port | None
    workers: int
    metrics: int | None
    """The sweeper's port for metrics; those of the workers follow it."""
    environment: Mapping[str, str]
    market: str

    @property
    def asks_for_keys(self) -> bool:
        """The API will serve nobody without a key."""
        return self.environment.get("ACCESS_KEYS") != "off"

    @property
    def ports(self) -> list[Port]:
        """Every port that something will listen on."""
        ports = [self.api, self.flower, self.redis, self.dynamodb]
        if self.metrics is not None:
            numbers = range(self.metrics, self.metrics + 1 + self.workers)
            ports += [Port("METRICS_PORT", HOST, number) for number in numbers]
        return [port for port in ports if port is not None]

    @property
    def url(self) -> str:
        """Where to reach the API from this machine."""
        return f"http://{_bracketed(_reachable(self.api.host))}:{self.api.number}"


def main() -> int:
    """Run until a signal; the exit code tells how it went."""
    try:
        plan = make_plan(os.environ)
        with _locked(plan.data):
            _check_ports(plan.ports)
            return _run(plan)
    except (CannotBeginError, EngineMissingError) as error:
        for line in error.args:
            print(line, file=sys.stderr)
        return 2


def make_plan(environ: Mapping[str, str]) -> Plan:
    """Read the settings."""
    # An empty variable is an unset one: what `VARIABLE= make run` means.
    given = {name: value for name, value in environ.items() if value}
    api = _port(given, "API_PORT", 8000, given.get("API_HOST", "127.0.0.1"))
    redis = dynamodb = None
    if "REDIS_URL" not in given:
        redis = _port(given, "EMBEDDED_REDIS_PORT", 6390, HOST)
    if "AWS_ENDPOINT_URL_DYNAMODB" not in given:
        dynamodb = _port(given, "EMBEDDED_DYNAMODB_PORT", 8390, HOST)
    own_hours = any(name in given for name in _MARKET_SETTINGS)
    return Plan(
        data=Path(given.get("DATA_DIR", ".data")).expanduser().resolve(),
        api=api,
        flower=_port(given, "FLOWER_PORT", 5555, "127.0.0.1"),
        redis=redis,
        dynamodb=dynamodb,
        workers=_number(given, "WORKERS", 1, _WORKERS_MAX),
        metrics=_metrics_port(given),
        environment=_children_environment(given, api, redis, dynamodb, own_hours),
        market=_market_note(given) if own_hours else "always open in this mode",
    )


def _children_environment(
    given: Mapping[str, str],
    api: Port,
    redis: Port | None,
    dynamodb: Port | None,
    own_hours: bool,
) -> dict[str, str]:
    environment = dict(given)
    environment |= {"API_HOST": api.host, "API_PORT": str(api.number), "PYTHONUNBUFFERED": "1"}
    # No balancer has to see that the API goes.
    environment.setdefault("DRAIN_SECONDS", "0")
    if redis is not None:
        environment["REDIS_URL"] = f"redis://{redis.host}:{redis.number}/0"
    if dynamodb is not None:
        environment = {k: v for k, v in environment.items() if k not in _FOREIGN_AWS}
        endpoint = f"http://{dynamodb.host}:{dynamodb.number}"
        environment |= {"AWS_ENDPOINT_URL_DYNAMODB": endpoint, **_EMBEDDED_AWS}
    if not own_hours:
        environment["MARKET_ALWAYS_OPEN"] = "true"
    if is_loopback_host(api.host):
        environment.setdefault("ACCESS_KEYS", "off")
    return environment


def _market_note(given: Mapping[str, str]) -> str:
    settings = " ".join(f"{name}={given[name]}" for name in _MARKET_SETTINGS if name in given)
    return f"as you set it ({settings})"


def _port(given: Mapping[str, str], variable: str, default: int, host: str) -> Port:
    return Port(variable, host, _number(given, variable, default, _PORT_MAX))


def _metrics_port(given: Mapping[str, str]) -> int | None:
    if given.get("METRICS_PORT", "0") == "0":
        return None
    return _number(given, "METRICS_PORT", 0, _PORT_MAX - _WORKERS_MAX)


def _number(given: Mapping[str, str], variable: str, default: int, largest: int) -> int:
    text = given.get(variable, str(default))
    if not text.isdecimal() or not 1 <= int(text) <= largest:
        raise CannotBeginError(f"{variable} must be a number from 1 to {largest}, not {text!r}.")
    return int(text)


@contextmanager
def _locked(data: Path) -> Iterator[None]:
    """Hold the data folder; the lock goes with this process however it ends."""
    try:
        data.mkdir(parents=True, exist_ok=True)
        file = (data / "lock").open("a+")
    except OSError as error:
        raise CannotBeginError(
            f"The data folder {data} cannot be used: {error.strerror}. DATA_DIR names another."
        ) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise CannotBeginError(
                f"The data folder {data} is in use by another run. Stop that one, or set"
                " DATA_DIR (and the ports) for a second one beside it."
            ) from error
        yield


def _check_ports(ports: list[Port]) -> None:
    """Refuse when a port is taken, or meant for two servers."""
    problems = [
        f"Port {port.number} on {port.host} is taken. Stop what listens there,"
        f" or set {port.variable} to another port."
        for port in ports
        if not is_free(port.host, port.number)
    ]
    numbers = [port.number for port in ports]
    problems += [
        f"{port.variable}={port.number} is also the port of another part: set it to another one."
        for place, port in enumerate(ports)
        if port.number in numbers[:place]
    ]
    if problems:
        raise CannotBeginError(*problems)


def _run(plan: Plan) -> int:
    supervisor = Supervisor(sys.stdout)
    children = _Children(plan, supervisor)
    # Before anything starts: a missing program is found out here.
    own_engines = children.engines()
    supervisor.install_signal_handlers()
    try:
        if children.start(own_engines):
            supervisor.say(_banner(plan))
            supervisor.watch()
    finally:
        supervisor.say("\nStopping; Ctrl-C again kills at once.")
        supervisor.stop()
    supervisor.say("Stopped.")
    # A signal during start-up is no failure.
    return 0 if supervisor.stopping else 1


@dataclass(frozen=True)
class _Children:
    """The processes of a plan, in the sequence in which they start."""

    plan: Plan
    supervisor: Supervisor

    def engines(self) -> list[Engine]:
        """The engines that are ours; raises when the program of one is missing."""
        found = []
        if self.plan.redis is not None:
            found.append(redis_engine(self.plan.redis.number, self.plan.data / "redis"))
        if self.plan.dynamodb is not None:
            found.append(dynamodb_engine(self.plan.dynamodb.number, self.plan.data / "dynamodb"))
        return found

    def start(self, engines: list[Engine]) -> bool:
        """Start everything and wait until it answers; False when it did not."""
        for engine in engines:
            self._start(self._process(engine.name, engine.command))
            if not self.supervisor.wait_for(engine.answers, _ENGINE_READY_SECONDS):
                return self._failed(
                    f"{engine.name} did not answer within {_ENGINE_READY_SECONDS:g} s."
                )
        table = self._process("table", commands.create_table())
        if self.supervisor.run_once(table, _TABLE_READY_SECONDS) != 0:
            return self._failed("The table could not be made.")
        workers = self._workers()
        self._start(
            self._process("api", commands.api()),
            *workers,
            self._process("sweeper", commands.sweeper(), metrics=0),
        )
        if not self.supervisor.wait_for(self._api_is_ready, _API_READY_SECONDS):
            return self._failed(f"The API was not ready within {_API_READY_SECONDS:g} s.")
        if not self.supervisor.wait_for(
            lambda: all(map(self.supervisor.is_ready, workers)), _WORKERS_READY_SECONDS
        ):
            return self._failed(f"Not every worker was ready within {_WORKERS_READY_SECONDS:g} s.")
        # After the workers: it asks each for its settings once, and warns of those not up yet.
        self._start(self._process("flower", commands.flower(self.plan.flower.number)))
        if not self.supervisor.wait_for(self._flower_answers, _FLOWER_READY_SECONDS):
            return self._failed(f"Flower did not answer within {_FLOWER_READY_SECONDS:g} s.")
        return True

    def _workers(self) -> list[Process]:
        count = self.plan.workers
        names = ["worker"] if count == 1 else [f"worker{number + 1}" for number in range(count)]
        return [
            self._process(name, commands.worker(name), commands.WORKER_READY_MARK, metrics=number)
            for number, name in enumerate(names, start=1)
        ]

    def _api_is_ready(self) -> bool:
        return _is_ok(self.plan.api, "/readyz")

    def _flower_answers(self) -> bool:
        return _is_ok(self.plan.flower, "/healthcheck")

    def _start(self, *processes: Process) -> None:
        # A signal may come between two starts: then nothing more is started.
        if not self.supervisor.stopping:
            self.supervisor.start(*processes)

    def _process(
        self,
        name: str,
        command: list[str],
        ready_mark: str | None = None,
        metrics: int | None = None,
    ) -> Process:
        """``metrics``: which of the ports for metrics is the process' own."""
        environment = self.plan.environment
        if self.plan.metrics is not None and metrics is not None:
            environment = {**environment, "METRICS_PORT": str(self.plan.metrics + metrics)}
        return self.supervisor.process(name, command, environment, commands.ROOT, ready_mark)

    def _failed(self, why: str) -> bool:
        if not self.supervisor.stopping:
            self.supervisor.say(f"\n{why} Its output above tells more.")
        return False


def _is_ok(port: Port, path: str) -> bool:
    host = _reachable(port.host)
    connection = http.client.HTTPConnection(host, port.number, timeout=_PROBE_SECONDS)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _reachable(host: str) -> str:
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared only


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


_NO_KEYS_NOTE = "none asked for: only this machine can reach the API"
_KEYS_NOTE = (
    "required; make one: "
    """KEY=$(make -s ops ARGS='keys create --name first --all-accounts')"""
)


def _banner(plan: Plan) -> str:
    key = " -H 'Authorization: Bearer '$KEY" if plan.asks_for_keys else ""
    post = f"curl -s{key} -X POST -H 'Content-Type: application/json'"
    order = (
        """'{"timestamp": '$(date +%s)', "operation": "BUY", "issuer_name": "GBM","""
        """ "total_shares": 2, "share_price": 50}'"""
    )
    return f"""
  The order processor is up.

    API      {plan.url}
    Flower   http://127.0.0.1:{plan.flower.number}
    data     {plan.data}
    market   {plan.market}
    keys     {_KEYS_NOTE if plan.asks_for_keys else _NO_KEYS_NOTE}
    workers  {plan.workers}

  A first account, a first order, and what became of it
  (the account's id is in the first answer; put it where these lines say accounts/1):

    {post} {plan.url}/v1/accounts -d '{{"cash": 1000}}'
    {post} {plan.url}/v1/accounts/1/orders -d {order}
    curl -s{key} {plan.url}/v1/accounts/1

  Ctrl-C stops everything.
"""


if __name__ == "__main__":
    sys.exit(main())
