"""Each alert fires on a real stack when its cause is made there, and clears when it is taken away.

The rules are those of ``deploy/prometheus`` with shorter windows, read by a real Prometheus.
"""

import re
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Self

import pytest
import requests
from redis import Redis

from local import commands
from local.ports import free_port
from local.processes import Process, wait_until
from shared.settings import Settings
from shared.task_queue import ORDERS_QUEUE, TaskQueue, publisher_app
from tests.chaos.proxy import HANG, THROTTLE, DynamoDbProxy, Loop, TcpProxy
from tests.integration.client import Client, until
from tests.prometheus import ALERTS, START_SECONDS, Prometheus, program
from tests.stack import Engines, Stack

pytestmark = [pytest.mark.fault, pytest.mark.slow, pytest.mark.timeout(240)]

WINDOW, HOLD = "8s", "2s"
ALERT_SECONDS = 45.0
"""Within this an alert has to fire, or to clear."""

WAIT_SECONDS = 60.0
QUEUE_DATABASE = 0
BROKER, CACHE = f"/{QUEUE_DATABASE}", "/1"
DUPLICATES = 1_100
ENV = {
    "RECOVER_AFTER": "2",
    "SWEEP_EVERY": "0.5",
    "ATTEMPTS_MAX": "1",
    "WORKER_PROCESSES": "1",
    "API_THREADS": "8",
}
CROWD = 40
"""Clients at once: more than twice the places of both API processes."""

TOGETHER = 30
"""Accounts that workers meet at."""


class Traffic:
    """Somebody who sends an order and looks at it, a few times a second, whatever happens."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._account = client.open_account(10**9)
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join(30)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        shares = 1
        while not self._is_over.wait(0.15):
            shares += 1
            try:
                order = self._client.order(self._account, total_shares=shares, share_price=1)
                self._client.get(f"/v1/accounts/{self._account}/orders/{order['id']}")
            except (requests.RequestException, AssertionError):
                continue  # that is what the alerts are about


@dataclass
class Place:
    """A running stack, what can be broken of it, and who watches it."""

    stack: Stack
    client: Client
    prometheus: Prometheus
    store: DynamoDbProxy
    broker: TcpProxy
    cache: TcpProxy

    def wait_for(self, *names: str, seconds: float = ALERT_SECONDS) -> None:
        """Until all of ``names`` have fired."""
        missing = set(names)

        def look() -> set[str]:
            missing.difference_update(self.prometheus.firing())
            return missing

        until(look, lambda left: not left, seconds)

    def wait_for_rest(self, seconds: float = ALERT_SECONDS) -> None:
        """Until nothing fires."""
        until(self.prometheus.firing, lambda firing: not firing, seconds)

    @property
    def worker(self) -> Process:
        return self.stack.workers[0]

    @property
    def sweeper(self) -> Process:
        return self.stack.sweepers[0]

    def ask_operator(self, *arguments: str) -> str:
        done = subprocess.run(
            commands.ops(*arguments),
            cwd=commands.ROOT,
            env=self.stack.env,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


def quick_alerts() -> str:
    """The rules as they are, but for their windows."""
    text = re.sub(r"\[\d+m\]", f"[{WINDOW}]", ALERTS.read_text())
    return re.sub(r"for: \d+m", f"for: {HOLD}", text)


@pytest.fixture(scope="module", name="place")
def _place(own_engines: Engines, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    program("prometheus")
    loop = Loop()
    store = DynamoDbProxy(loop, free_port(), own_engines.dynamodb_port, Random(1))
    broker, cache = (TcpProxy(loop, free_port(), own_engines.redis_port) for _ in range(2))
    proxies = (store, broker, cache)
    for proxy in proxies:
        proxy.listen()
    env = {
        **ENV,
        "REDIS_URL": f"redis://127.0.0.1:{broker.port}{BROKER}",
        "CACHE_URL": f"redis://127.0.0.1:{cache.port}{CACHE}",
        "AWS_ENDPOINT_URL_DYNAMODB": f"http://127.0.0.1:{store.port}",
    }
    try:
        with Stack(own_engines, workers=1, env=env, metrics=True) as stack:
            prometheus = watch(stack, tmp_path_factory.mktemp("prometheus"))
            client = Client(stack.url)
            try:
                with Traffic(client):
                    yield Place(stack, client, prometheus, store, broker, cache)
            finally:
                prometheus.stop()
    finally:
        for proxy in proxies:
            proxy.cut()
        loop.close()


def watch(stack: Stack, folder: Path) -> Prometheus:
    jobs = {
        "orders-api": [stack.port],
        "orders-worker": [port for name, port in stack.metrics_ports.items() if "worker" in name],
        "orders-sweeper": [stack.metrics_ports["sweeper"]],
    }
    prometheus = Prometheus(folder, free_port(), jobs, quick_alerts())
    prometheus.start()
    assert wait_until(prometheus.is_ready, START_SECONDS)
    return prometheus


@pytest.fixture(autouse=True)
def _rests_before_and_after(place: Place) -> Iterator[None]:
    """No cause is there before a test, and none is left after it."""
    until(lambda: place.prometheus.query("sum(up)"), _are_up, ALERT_SECONDS)
    place.wait_for_rest()
    yield
    place.wait_for_rest()


def _are_up(found: list[dict[str, list[str]]]) -> bool:
    return bool(found) and found[0]["value"][1] == "3"


def test_every_process_is_scraped_and_counts(place: Place) -> None:
    for name in ("orders_accepted_total", "orders_decided_total", "orders_sweeps_total"):
        until(
            lambda name=name: place.prometheus.query(f"sum(rate({name}[5s])) > 0"),  # type: ignore[misc]
            bool,
            ALERT_SECONDS,
        )


def test_a_store_that_is_away_is_told(place: Place) -> None:
    place.store.cut()
    try:
        place.wait_for("StoreUnavailable", "ApiErrors", "SweeperStuck")
    finally:
        place.store.listen()


def test_a_store_that_hangs_makes_the_api_slow(place: Place) -> None:
    place.store.misbehave(HANG)
    try:
        place.wait_for("ApiSlow", "StoreUnavailable")
    finally:
        place.store.misbehave(None)


def test_an_api_that_works_on_as_much_as_it_can_is_told(place: Place) -> None:
    account = place.client.open_account(1000)
    is_over = threading.Event()

    def crowd() -> None:
        while not is_over.is_set():
            with suppress(requests.RequestException, AssertionError):
                Client(place.stack.url).order(account, share_price=1)

    place.store.misbehave(HANG)
    with ThreadPoolExecutor(CROWD) as pool:
        for _ in range(CROWD):
            pool.submit(crowd)
        try:
            place.wait_for("ApiCrowded")
        finally:
            is_over.set()
            place.store.misbehave(None)


def test_workers_that_decide_the_same_accounts_at_once_are_told(place: Place) -> None:
    accounts = [place.client.open_account(10**9) for _ in range(TOGETHER)]
    env = place.stack.env
    redis = Redis.from_url(env["REDIS_URL"])
    queue = TaskQueue(publisher_app(Settings(redis_url=env["REDIS_URL"]), connections=1), redis)
    other = place.stack.add_worker()
    until(lambda: _is_there(other), bool, START_SECONDS)
    number = 0

    def meet() -> set[str]:
        """Each of the two workers finds a message for the same orders when it goes on."""
        nonlocal number
        number += 1
        for worker in (place.worker, other):
            worker.pause()
        try:
            orders = [
                (account, place.client.order(account, total_shares=number, share_price=1)["id"])
                for account in accounts
            ]
            # One message for all, twice, instead of one for each.
            redis.delete(ORDERS_QUEUE)
            for _ in range(2):
                queue.publish(orders, datetime.now(UTC))
        finally:
            for worker in (place.worker, other):
                worker.resume()
        return place.prometheus.firing()

    try:
        # Longer: that both are at it at once is luck, and the less of it the busier the machine.
        until(meet, lambda firing: "CommitConflicts" in firing, 2 * ALERT_SECONDS)
    finally:
        place.stack.kill_worker(1)


def _is_there(worker: Process) -> bool:
    assert isinstance(worker.log, Path)
    return worker.log.exists() and commands.WORKER_READY_MARK in worker.log.read_text()


def test_a_store_that_throttles_is_told(place: Place) -> None:
    place.store.misbehave(THROTTLE)
    try:
        place.wait_for("StoreThrottled")
    finally:
        place.store.misbehave(None)


def test_a_broker_that_is_away_is_told_and_so_are_orders_that_are_sent_again(place: Place) -> None:
    place.broker.cut()
    try:
        place.wait_for("BrokerUnavailable")
    finally:
        place.broker.listen()
    place.wait_for("OrdersSentAgain")


def test_a_cache_that_is_away_is_told(place: Place) -> None:
    place.cache.cut()
    try:
        place.wait_for("CacheUnavailable")
    finally:
        place.cache.listen()


def test_without_a_worker_orders_wait_in_a_deep_queue(place: Place) -> None:
    place.worker.kill()
    with Redis(port=place.stack.engines.redis_port, db=QUEUE_DATABASE) as redis:
        message = until(lambda: redis.lindex(ORDERS_QUEUE, 0), bool, ALERT_SECONDS)
        # Repeated messages do no harm.
        redis.lpush(ORDERS_QUEUE, *[message] * DUPLICATES)
    try:
        place.wait_for("WorkerDown", "QueueDeep", "OrdersWait", seconds=WAIT_SECONDS)
    finally:
        place.worker.start()
    place.wait_for("DecisionsSlow")


def test_a_sweeper_that_is_gone_is_told(place: Place) -> None:
    place.sweeper.kill()
    try:
        place.wait_for("SweeperDown")
    finally:
        place.sweeper.start()


def test_an_api_that_is_gone_is_told(place: Place) -> None:
    place.stack.api.stop()
    try:
        place.wait_for("ApiDown", "ApiInstanceDown")
    finally:
        place.stack.api.start()


def test_parked_orders_are_told_until_an_operator_has_seen_to_them(place: Place) -> None:
    account = place.client.open_account(1000)
    place.worker.pause()
    try:
        order = place.client.order(account)
        place.stack.spoil_order(account, order["id"])
    finally:
        place.worker.resume()
    path = f"/v1/accounts/{account}/orders/{order['id']}"
    until(lambda: place.client.get(path).json()["status"], lambda told: told == "failed", 60)

    # It counts them about once a minute, and once it has started.
    place.sweeper.restart()
    place.wait_for("OrdersParked")

    place.ask_operator("parked", "cancel", "--yes", f"{account}/{order['id']}")
    place.sweeper.restart()
