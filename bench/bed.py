"""The test bed: everything that the rows share while it is up."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench.load import Job, Outcome
from bench.loading import run_load
from bench.options import Options
from bench.raw_dynamodb import write_items
from bench.results import Figure, Results
from bench.stack import (
    Engines,
    Stack,
    answers,
    environment,
    listens,
    module,
    must_be_ready,
    stop_together,
    url_of,
)
from bench.traffic import (
    CASH,
    JSON_HEADERS,
    order_requests,
    seed_accounts,
    wait_until_final,
)
from bench.usage import Cpu, cpu_between, cpu_seconds
from local import commands
from local.engines import HOST
from local.ports import free_port
from local.processes import Process
from shared.settings import Settings

_CLASSIC_TABLE = "classic"
_KEYS = ("pk", "sk")
_CLASSIC_DATABASE, _STOCK_DATABASE = 900, 902
ACCOUNTS_PER_SECOND = 3_000
"""Accounts in the wide pool for each second of load: more than orders can be sent to."""

WARM_UP_REQUESTS = 500
"""Sent to each server before anything counts: connections, caches, compiled patterns."""


@dataclass(slots=True)
class Yardstick:
    """A server that the product is compared with."""

    process: Process
    port: int


@dataclass(slots=True)
class Bed:
    """Engines, the product as `make run` starts it, and the yardsticks' servers."""

    options: Options
    results: Results
    engines: Engines
    stack: Stack
    classic: Yardstick
    bare: Yardstick
    folder: Path
    wide: list[int] = field(default_factory=list)
    finals: list[str] = field(default_factory=list)
    """Paths of orders that are final, left by the first row of a round for those that read."""

    def parts(self) -> dict[str, list[Process]]:
        """Every process whose CPU counts, by part."""
        yardsticks = {"classic": [self.classic.process], "bare": [self.bare.process]}
        return {**self.stack.parts, **yardsticks}

    def job(self, port: int, requests: Sequence[Sequence[str]], **more: object) -> Job:
        """A closed loop with the run's settings, for its seconds, unless ``more`` says else."""
        settings: dict[str, object] = {
            "headers": JSON_HEADERS,
            "connections": self.options.connections,
            "seconds": self.options.seconds,
            **more,
        }
        return Job(port, requests, **settings)  # type: ignore[arg-type]

    def process(self, name: str, command: list[str], env: dict[str, str]) -> Process:
        """A process beside the stack, not started yet."""
        return Process(name, command, self.folder / f"{name}.log", env=env, cwd=commands.ROOT)

    def stock_environment(self) -> dict[str, str]:
        """The settings of the stock Celery yardstick."""
        return environment(self.engines, _STOCK_DATABASE)

    @property
    def stock_database(self) -> int:
        """Where the stock Celery yardstick keeps its queue."""
        return _STOCK_DATABASE


class Meter:
    """Adds up the CPU that parts use between two moments."""

    def __init__(self, parts: dict[str, list[Process]]) -> None:
        """Begin now."""
        self._parts = parts
        self._before = cpu_seconds(parts)

    def used(self) -> Cpu:
        """CPU seconds by part since the beginning."""
        return cpu_between(self._before, cpu_seconds(self._parts))


def figure_of(
    value: float,
    things: int,
    cpu: Cpu,
    outcome: Outcome | None = None,
    notes: Mapping[str, object] | None = None,
) -> Figure:
    """A figure with its CPU by thing; ``outcome`` adds what the load process itself used."""
    cpu, shown = dict(cpu), dict(notes or {})
    share = None
    if outcome is not None:
        cpu["load"] = outcome.cpu_seconds
        share = round(outcome.cpu_seconds / outcome.seconds, 3)
        shown["statuses"] = outcome.statuses
    by_thing = {part: round(1000 * used / things, 4) for part, used in cpu.items() if used}
    return Figure(round(value, 2), by_thing, share, shown)


def measured_load(bed: Bed, job: Job) -> tuple[Outcome, Cpu]:
    """Carry out a job, and say what CPU the parts used meanwhile."""
    meter = Meter(bed.parts())
    outcome = run_load(job)
    return outcome, meter.used()


def answered_with(outcome: Outcome, status: int) -> int:
    """How many answers had the status, which all should have.

    Raises:
        RuntimeError: hardly any had it.
    """
    good = outcome.statuses.get(str(status), 0)
    if good < 0.99 * outcome.answers or not good:
        raise RuntimeError(f"expected {status}, got {outcome.statuses}")
    return good


@contextmanager
def bed_of(options: Options, results: Results, folder: Path) -> Iterator[Bed]:
    """Start everything; stop everything at the end."""
    with ExitStack() as stack:
        engines = stack.enter_context(Engines(folder))
        product = stack.enter_context(Stack(engines, flower=True))
        classic, bare = _yardsticks(engines, folder)
        stack.callback(stop_together, [classic.process, bare.process])
        bed = Bed(options, results, engines, product, classic, bare, folder)
        _start(bed)
        yield bed


def _yardsticks(engines: Engines, folder: Path) -> tuple[Yardstick, Yardstick]:
    env = environment(engines, _CLASSIC_DATABASE) | {"TABLE_NAME": _CLASSIC_TABLE}
    classic = _yardstick("classic", env, folder, is_ours=False)
    return classic, _yardstick("bare", env, folder, is_ours=True)


def _plain_gunicorn(port: int) -> list[str]:
    """gunicorn as it comes, with as many processes and threads as the product's API."""
    settings = Settings()
    return module(
        "gunicorn",
        f"--bind={HOST}:{port}",
        f"--workers={settings.api_processes}",
        "--worker-class=gthread",
        f"--threads={settings.api_threads}",
        "--keep-alive=30",
        "--log-level=warning",
    )


def _yardstick(name: str, env: dict[str, str], folder: Path, *, is_ours: bool) -> Yardstick:
    """A server of ``bench.yardsticks``, run as the product's API is (``is_ours``), or plainly."""
    port = free_port()
    server = commands.api()[:-1] if is_ours else _plain_gunicorn(port)
    command = [*server, f"bench.yardsticks.{name}:app"]
    log = folder / f"{name}.log"
    process = Process(name, command, log, env={**env, "API_PORT": str(port)}, cwd=commands.ROOT)
    return Yardstick(process, port)


def _start(bed: Bed) -> None:
    _make_classic_table(bed.engines)
    bed.classic.process.start()
    bed.bare.process.start()
    must_be_ready(bed.classic.process, lambda: listens(bed.classic.port))
    must_be_ready(bed.bare.process, lambda: answers(f"{url_of(bed.bare.port)}/order"))
    number = round(ACCOUNTS_PER_SECOND * bed.options.seconds)
    bed.wide = seed_accounts(bed.engines, bed.stack.table_name, number)
    owners = ({"S": f"ACCOUNT#{account_id}"} for account_id in bed.wide)
    cash = {"N": str(CASH)}
    items = ({"pk": owner, "sk": {"S": "ACCOUNT"}, "cash": cash} for owner in owners)
    write_items(bed.engines.dynamodb_port, _CLASSIC_TABLE, items)
    _warm_up(bed)


def _warm_up(bed: Bed) -> None:
    orders = order_requests(bed.wide, WARM_UP_REQUESTS)
    run_load(bed.job(bed.stack.port, orders))
    classic = [(method, path.removeprefix("/v1"), body) for method, path, body in orders]
    run_load(bed.job(bed.classic.port, classic))
    run_load(bed.job(bed.bare.port, [("GET", "/order", "")] * WARM_UP_REQUESTS))
    wait_until_final(bed.stack)


def _make_classic_table(engines: Engines) -> None:
    engines.client.create_table(
        TableName=_CLASSIC_TABLE,
        BillingMode="PAY_PER_REQUEST",
        KeySchema=[
            {"AttributeName": "pk", "KeyType": "HASH"},
            {"AttributeName": "sk", "KeyType": "RANGE"},
        ],
        AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in _KEYS],
    )
