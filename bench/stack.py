"""Real engines and real processes for the benchmark, on free ports, in a folder of its own."""

import os
import socket
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any, Self

import boto3
from botocore.config import Config
from redis import Redis

from local import commands
from local.engines import (
    HOST,
    Engine,
    dynamodb_answers,
    dynamodb_engine,
    redis_answers,
    redis_engine,
)
from local.ports import free_port
from local.processes import Process, wait_until
from shared.settings import Settings
from shared.task_queue import ORDERS_QUEUE

START_SECONDS = 60.0
REGION = "us-east-1"
LOG_LINES = 40

_CREDENTIALS = {"AWS_ACCESS_KEY_ID": "bench", "AWS_SECRET_ACCESS_KEY": "bench"}
_UNACKNOWLEDGED = "unacked"
"""Where kombu keeps the messages that are being worked on."""

_stacks = count()


class DidNotStart(Exception):
    """A part was not ready in time; the message holds the end of its log."""


class Engines:
    """A Redis and a DynamoDB that answer once this is entered."""

    def __init__(self, folder: Path) -> None:
        """Keep their data in ``folder``."""
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.redis_port, self.dynamodb_port = free_port(), free_port()
        self.redis = self._process(redis_engine(self.redis_port, folder / "redis"))
        self.dynamodb = self._process(dynamodb_engine(self.dynamodb_port, folder / "dynamodb"))

    @property
    def dynamodb_url(self) -> str:
        """Where the DynamoDB is."""
        return url_of(self.dynamodb_port)

    def redis_url(self, database: int) -> str:
        """Where one database of the Redis is."""
        return f"redis://{HOST}:{self.redis_port}/{database}"

    @cached_property
    def client(self) -> Any:
        """A client of the DynamoDB."""
        return boto3.session.Session().client(
            "dynamodb",
            endpoint_url=self.dynamodb_url,
            region_name=REGION,
            aws_access_key_id=_CREDENTIALS["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=_CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
            config=Config(read_timeout=30, retries={"total_max_attempts": 1}),
        )

    def redis_client(self, database: int) -> "Redis":
        """A client of one database of the Redis."""
        return Redis(HOST, self.redis_port, database, socket_timeout=10)

    def __enter__(self) -> Self:
        self.redis.start()
        self.dynamodb.start()
        must_be_ready(self.redis, lambda: redis_answers(self.redis_port))
        must_be_ready(self.dynamodb, lambda: dynamodb_answers(self.dynamodb_port))
        return self

    def __exit__(self, *_: object) -> None:
        self.redis.stop()
        self.dynamodb.stop()

    def _process(self, engine: Engine) -> Process:
        return Process(engine.name, engine.command, self.folder / f"{engine.name}.log")


class Stack:
    """API, sweeper, workers and Flower over some engines, with a table and databases of their own.

    A stack starts as `make run` does. Workers may be stopped, started and exchanged meanwhile.
    """

    def __init__(
        self,
        engines: Engines,
        *,
        table_name: str | None = None,
        workers: bool = True,
        flower: bool = False,
        env: Mapping[str, str] | None = None,
    ) -> None:
        """Say what to start; ``table_name`` is that of a table that is there already."""
        self.engines = engines
        number = next(_stacks)
        self.table_name = table_name or f"orders-{number}"
        self.broker_database, self.cache_database = 2 * number, 2 * number + 1
        self.folder = engines.folder / f"stack-{number}"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.env = environment(engines, self.broker_database) | {
            "CACHE_URL": engines.redis_url(self.cache_database),
            "TABLE_NAME": self.table_name,
            "API_PORT": str(self.port),
            "MARKET_ALWAYS_OPEN": "true",
            "ACCESS_KEYS": "off",
            **(env or {}),
        }
        self.api = self.process("api", commands.api())
        self.sweeper = self.process("sweeper", commands.sweeper())
        self.workers: list[Process] = []
        self.flower: Process | None = None
        self._starts_workers, self._starts_flower = workers, flower
        self._names = count()

    @property
    def parts(self) -> dict[str, list[Process]]:
        """Every process by its part, the engines included."""
        return {
            "api": [self.api],
            "worker": self.workers,
            "sweeper": [self.sweeper],
            "flower": [self.flower] if self.flower else [],
            "redis": [self.engines.redis],
            "dynamodb": [self.engines.dynamodb],
        }

    @cached_property
    def broker(self) -> "Redis":
        """A client of the broker's database."""
        return self.engines.redis_client(self.broker_database)

    @cached_property
    def cache(self) -> "Redis":
        """A client of the status cache's database."""
        return self.engines.redis_client(self.cache_database)

    def __enter__(self) -> Self:
        try:
            self._make_table()
            self.api.start()
            self.sweeper.start()
            if self._starts_workers:
                self.start_worker()
            if self._starts_flower:
                self.start_flower()
            must_be_ready(self.api, lambda: answers(f"{url_of(self.port)}/readyz"))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop_flower()
        self.stop_workers()
        for process in (self.sweeper, self.api):
            process.stop()

    def start_worker(
        self,
        command: Callable[[str], list[str]] = commands.worker,
        env: Mapping[str, str] | None = None,
        *,
        wait: bool = True,
    ) -> Process:
        """Start one more worker."""
        name = f"worker{next(self._names)}"
        worker = self.process(name, command(name), env)
        worker.start()
        self.workers.append(worker)
        if wait:
            must_be_ready(worker, lambda: says(worker, commands.WORKER_READY_MARK))
        return worker

    def stop_workers(self) -> None:
        """Let all workers finish what they have in hand, and end."""
        stop_together(self.workers)
        self.workers.clear()

    def start_flower(self) -> None:
        """Start Flower, which asks the workers for their events."""
        port = free_port()
        self.flower = self.process("flower", commands.flower(port))
        self.flower.start()
        must_be_ready(self.flower, lambda: answers(f"{url_of(port)}/healthcheck"))

    def stop_flower(self) -> None:
        """End Flower; without a listener nothing is left of the events' cost but their sending."""
        if self.flower is not None:
            self.flower.stop()
            self.flower = None

    def messages_left(self) -> int:
        """Messages that wait or are being worked on."""
        pipeline = self.broker.pipeline(transaction=False)
        pipeline.llen(ORDERS_QUEUE)
        pipeline.hlen(_UNACKNOWLEDGED)
        return sum(pipeline.execute())

    def messages_waiting(self) -> int:
        """Messages that no worker has taken yet."""
        return int(self.broker.llen(ORDERS_QUEUE))

    def process(
        self, name: str, command: Sequence[str], env: Mapping[str, str] | None = None
    ) -> Process:
        """A process with the stack's settings, not started yet."""
        log = self.folder / f"{name}.log"
        return Process(name, command, log, env={**self.env, **(env or {})}, cwd=commands.ROOT)

    def _make_table(self) -> None:
        table = self.process("table", commands.create_table())
        table.start()
        if not table.wait(START_SECONDS) or table.exit_code != 0:
            raise DidNotStart(tail(table))


def environment(engines: Engines, broker_database: int) -> dict[str, str]:
    """The shell's environment less what would set processes up otherwise, plus the engines."""
    settings = {name.upper() for name in Settings.model_fields}
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in settings and not name.startswith(("AWS_", "CELERY_", "FLOWER_"))
    }
    return {
        **kept,
        **_CREDENTIALS,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_ENDPOINT_URL_DYNAMODB": engines.dynamodb_url,
        "REDIS_URL": engines.redis_url(broker_database),
        "FLOWER_UNAUTHENTICATED_API": "true",
        "PYTHONUNBUFFERED": "1",
    }


def stop_together(processes: Sequence[Process]) -> None:
    """Ask all to end, then wait for each."""
    for process in processes:
        process.ask_to_stop()
    for process in processes:
        process.end_within(grace_seconds=15)


def must_be_ready(process: Process, is_ready: Callable[[], bool]) -> None:
    """Wait for a process.

    Raises:
        DidNotStart: it ended, or was not ready in time.
    """
    wait_until(lambda: not process.running or is_ready(), START_SECONDS)
    if not process.running or not is_ready():
        raise DidNotStart(tail(process))


def answers(url: str) -> bool:
    """Whether a URL answers 200 now."""
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310 - our own http URL
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def listens(port: int) -> bool:
    """Whether a server takes connections on the port."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((HOST, port)) == 0


def says(process: Process, word: str) -> bool:
    """Whether the process has logged the word."""
    return isinstance(process.log, Path) and word in _text(process.log)


def tail(process: Process) -> str:
    """The last lines that the process logged."""
    lines = _text(process.log).splitlines()[-LOG_LINES:] if isinstance(process.log, Path) else []
    return "\n".join([f"{process.name} ({time.strftime('%X')}):", *lines])


def module(name: str, *arguments: str) -> list[str]:
    """The command that runs a module with this interpreter."""
    return [sys.executable, "-m", name, *arguments]


def url_of(port: int) -> str:
    """The URL of a server on this machine."""
    return f"http://{HOST}:{port}"


def _text(log: Path) -> str:
    return log.read_text(errors="replace") if log.exists() else ""
