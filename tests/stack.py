"""Real engines and real processes for tests: started on free ports in a folder of their own.

Nothing is shared with another run of the tests or with ``make run``.
"""

import os
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any, Self

import boto3

from local import commands
from local.engines import Engine, dynamodb_engine, dynamodb_local_engine, redis_engine
from local.ports import free_port
from local.processes import Process, wait_until
from shared.order_store import keys
from shared.settings import Settings

START_SECONDS = 60.0
SAVE_SECONDS = 10.0
LOG_TAIL_LINES = 40

DYNAMODB_ENGINES: dict[str, Callable[[int, Path], Engine]] = {
    "dynoxide": dynamodb_engine,
    "dynamodb-local": dynamodb_local_engine,
}
DYNAMODB_ENGINE = os.environ.get("DYNAMODB_ENGINE") or "dynoxide"
"""Which DynamoDB the tests run on."""

_HOST = "127.0.0.1"
_stacks = count()

live_stacks: list["Stack"] = []
"""Those that run now: their logs are shown when a test fails."""


class Engines:
    """A Redis and a DynamoDB of one's own, each restarting on the same port and data."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.redis_port, self.dynamodb_port = free_port(), free_port()
        self.redis = _EngineProcess(redis_engine(self.redis_port, folder / "redis"), folder)
        dynamodb = DYNAMODB_ENGINES[DYNAMODB_ENGINE]
        self.dynamodb = _EngineProcess(dynamodb(self.dynamodb_port, folder / "dynamodb"), folder)

    @property
    def dynamodb_url(self) -> str:
        return f"http://{_HOST}:{self.dynamodb_port}"

    def redis_url(self, database: int) -> str:
        return f"redis://{_HOST}:{self.redis_port}/{database}"

    def start(self) -> None:
        self.redis.start()
        self.dynamodb.start()

    def stop(self) -> None:
        self.redis.stop()
        self.dynamodb.stop()

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def flush_redis(self) -> None:
        """Forget everything, as a new and empty server would."""
        with socket.create_connection((_HOST, self.redis_port), 5) as connection:
            connection.sendall(b"FLUSHALL\r\n")
            assert connection.recv(16).startswith(b"+OK")


class _EngineProcess(Process):
    """An engine that counts as started once it answers."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        super().__init__(engine.name, engine.command, folder / f"{engine.name}.log")
        self._answers: Callable[[], bool] = engine.answers
        self._is_saved: Callable[[], bool] = engine.is_saved

    def start(self) -> None:
        super().start()
        assert wait_until(self._answers, START_SECONDS), _tail(self)

    def kill(self) -> None:
        """kill -9, but not before the engine has kept what it acknowledged, as AWS's does."""
        assert wait_until(self._is_dead_or_frozen_and_saved, SAVE_SECONDS), _tail(self)
        super().kill()

    def _is_dead_or_frozen_and_saved(self) -> bool:
        if not self.running:
            return True
        self.pause()
        if self._is_saved():
            return True
        self.resume()
        return False


class Stack:
    """API, workers and sweeper over some engines, with a table and databases of their own."""

    def __init__(
        self,
        engines: Engines,
        *,
        api_processes: int = 2,
        workers: int = 1,
        env: Mapping[str, str] | None = None,
        flower: bool = False,
        metrics: bool = False,
    ) -> None:
        self.engines = engines
        self.metrics_ports: dict[str, int] = {}
        """By process, where workers and sweepers show their metrics, if they do."""
        self._shows_metrics = metrics
        number = next(_stacks)
        self.table_name = f"orders-{number}"
        self.folder = engines.folder / f"stack-{number}"
        self.folder.mkdir(parents=True)
        self.port = free_port()
        self.flower_port = free_port() if flower else None
        self.env = {
            **_without_settings(os.environ),
            "REDIS_URL": engines.redis_url(2 * number),
            "CACHE_URL": engines.redis_url(2 * number + 1),
            "AWS_ENDPOINT_URL_DYNAMODB": engines.dynamodb_url,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "local",
            "AWS_SECRET_ACCESS_KEY": "local",
            "TABLE_NAME": self.table_name,
            "API_PORT": str(self.port),
            "API_PROCESSES": str(api_processes),
            "MARKET_ALWAYS_OPEN": "true",
            "ACCESS_KEYS": "off",
            "DRAIN_SECONDS": "0",
            "PYTHONUNBUFFERED": "1",
            "FLOWER_UNAUTHENTICATED_API": "true",
            **(env or {}),
        }
        self.api = self._process("api", commands.api())
        self.more_apis: list[Process] = []
        self.sweepers = [self._measured("sweeper", commands.sweeper())]
        self.workers: list[Process] = []
        self._workers_at_start = workers
        self._names = count()
        self.flower = (
            self._process("flower", commands.flower(self.flower_port)) if self.flower_port else None
        )

    @property
    def url(self) -> str:
        return f"http://{_HOST}:{self.port}"

    def __enter__(self) -> Self:
        live_stacks.append(self)
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def add_api(self, **changes: str) -> tuple[Process, int]:
        """Another instance of the API, started, and the port that it will serve."""
        port = free_port()
        name = f"api{next(self._names)}"
        api = self._process(name, commands.api(), API_PORT=str(port), **changes)
        api.start()
        self.more_apis.append(api)
        return api, port

    def add_worker(self) -> Process:
        name = f"worker{next(self._names)}"
        worker = self._measured(name, commands.worker(name))
        worker.start()
        self.workers.append(worker)
        return worker

    def add_sweeper(self) -> Process:
        sweeper = self._process(f"sweeper{len(self.sweepers)}", commands.sweeper())
        sweeper.start()
        self.sweepers.append(sweeper)
        return sweeper

    def kill_worker(self, place: int) -> None:
        """kill -9, children included."""
        self.workers.pop(place).kill()

    def spoil_order(self, account_id: int, order_id: str) -> None:
        """Write nonsense into an order's item, as a bug or a hand at the console might."""
        self.dynamodb.update_item(
            TableName=self.table_name,
            Key=keys.order_key(account_id, order_id),
            UpdateExpression="SET share_price = :nonsense",
            ExpressionAttributeValues={":nonsense": {"S": "nonsense"}},
        )

    def stop(self) -> None:
        started = [self.flower] if self.flower else []
        started += [*self.workers, *self.sweepers, *self.more_apis, self.api]
        for process in started:
            process.ask_to_stop()
        for process in started:
            process.end_within(grace_seconds=10)
        if self in live_stacks:
            live_stacks.remove(self)

    def logs(self) -> str:
        """The last lines of every process."""
        everything = [self.api, *self.more_apis, *self.workers, *self.sweepers]
        return "\n".join(_tail(process) for process in everything)

    def _start(self) -> None:
        table = self._process("table", commands.create_table())
        table.start()
        assert table.wait(START_SECONDS), _tail(table)
        assert table.exit_code == 0, _tail(table)
        self.api.start()
        self.sweepers[0].start()
        for _ in range(self._workers_at_start):
            self.add_worker()
        if self.flower:
            self.flower.start()
        assert wait_until(self._is_ready, START_SECONDS), self.logs()

    def _is_ready(self) -> bool:
        if not all(_says(worker, commands.WORKER_READY_MARK) for worker in self.workers):
            return False
        urls = [f"{self.url}/readyz"]
        if self.flower_port:
            urls.append(f"http://{_HOST}:{self.flower_port}/healthcheck")
        return all(map(is_ok, urls))

    def _measured(self, name: str, command: list[str]) -> Process:
        if not self._shows_metrics:
            return self._process(name, command)
        port = self.metrics_ports[name] = free_port()
        return self._process(name, command, METRICS_PORT=str(port))

    def _process(self, name: str, command: list[str], **changes: str) -> Process:
        log = self.folder / f"{name}.log"
        return Process(name, command, log, env={**self.env, **changes}, cwd=commands.ROOT)

    @cached_property
    def dynamodb(self) -> Any:
        """A client of the stack's DynamoDB, made once: boto takes its time over one."""
        return boto3.session.Session().client(
            "dynamodb",
            endpoint_url=self.engines.dynamodb_url,
            region_name=self.env["AWS_DEFAULT_REGION"],
            aws_access_key_id=self.env["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=self.env["AWS_SECRET_ACCESS_KEY"],
        )


def _without_settings(environ: Mapping[str, str]) -> dict[str, str]:
    """The shell's environment without what would set our processes up otherwise."""
    settings = {name.upper() for name in Settings.model_fields}
    return {
        name: value
        for name, value in environ.items()
        if name not in settings and not name.startswith(("AWS_", "CELERY_", "FLOWER_"))
    }


def is_ok(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310 - our own http URL
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _says(process: Process, word: str) -> bool:
    assert isinstance(process.log, Path)
    assert process.running, _tail(process)
    return process.log.exists() and word in process.log.read_text(errors="replace")


def _tail(process: Process) -> str:
    assert isinstance(process.log, Path)
    text = process.log.read_text(errors="replace") if process.log.exists() else ""
    lines = text.splitlines()[-LOG_TAIL_LINES:]
    return "\n".join([f"--- {process.name} ({time.strftime('%X')})", *lines])
