"""Waiting for decisions: answered at once, at no cost to the store, with and without Redis."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from random import Random
from typing import Any

import pytest
import requests

from bench.delay_proxy import requests_passed
from local import commands
from local.ports import free_port
from local.processes import Process
from tests.integration.client import Client, Json, order_body, until
from tests.integration.events import Event, Stream
from tests.integration.table import recorded_account, sequences
from tests.stack import Engines, Stack

pytestmark = [pytest.mark.fault, pytest.mark.timeout(240)]

WAITERS = 200
WAIT = 20
DRAIN_SECONDS = 1.5
RECOVER_SECONDS = 2.0
LOOK_AGAIN_SECONDS = 5.0
READY_SECONDS = 30.0
HOST = "127.0.0.1"


@pytest.fixture(scope="module")
def stack(own_engines: Engines) -> Iterator[Stack]:
    env = {"RECOVER_AFTER": str(RECOVER_SECONDS), "SWEEP_EVERY": "0.5"}
    with Stack(own_engines, workers=1, env=env) as running:
        yield running


@pytest.fixture
def client(stack: Stack) -> Client:
    return Client(stack.url)


@pytest.fixture
def paused_worker(stack: Stack) -> Iterator[Process]:
    """The only worker: nothing is decided until it is resumed."""
    (worker,) = stack.workers
    worker.pause()
    yield worker
    worker.resume()


def ready(stack: Stack, **changes: str) -> tuple[Process, Client]:
    """Another instance of the API, once it serves."""
    api, port = stack.add_api(**changes)
    client = Client(f"http://{HOST}:{port}")

    def is_ready() -> bool:
        try:
            return client.get("/readyz").status_code == 200
        except requests.ConnectionError:
            return False

    until(is_ready, bool, READY_SECONDS)
    return api, client


def place(client: Client, account: int, wait: int = WAIT, **changes: Any) -> requests.Response:
    return requests.post(
        f"{client.url}/v1/accounts/{account}/orders",
        json=order_body(**changes),
        headers={"Prefer": f"wait={wait}"},
        timeout=WAIT + 10,
    )


def look(client: Client, order: Json, wait: int = WAIT) -> requests.Response:
    path = f"/v1/accounts/{order['account_id']}/orders/{order['id']}?wait={wait}"
    return client.get(path, timeout=WAIT + 10)


def test_a_lone_order_is_answered_with_its_outcome_in_one_round_trip(client: Client) -> None:
    account = client.open_account(1000)
    place(client, account)  # the first one wakes everything up
    began = time.monotonic()
    answer = place(client, account, total_shares=3)
    seconds = time.monotonic() - began
    assert answer.status_code == 200, answer.text
    assert answer.headers["Preference-Applied"] == f"wait={WAIT}"
    assert answer.json()["status"] == "executed"
    assert answer.json() == client.get(answer.headers["Location"]).json()
    assert seconds < 2

    rejected = place(client, account, total_shares=10**6)
    assert rejected.status_code == 200
    assert rejected.json()["business_errors"] == ["INSUFFICIENT_BALANCE"]


def test_many_who_wait_cost_the_store_nothing(
    stack: Stack, client: Client, paused_worker: Process
) -> None:
    with counted_api(stack) as (counted, requests_made):
        account = client.open_account(10**9)
        orders = [
            client.order(account, total_shares=number + 1, share_price=1)
            for number in range(WAITERS)
        ]
        before = requests_made()
        with ThreadPoolExecutor(WAITERS) as pool:
            asked = [pool.submit(look, counted, order) for order in orders]
            until(requests_made, lambda made: made >= before + WAITERS, 15)
            time.sleep(1)
            while_all_wait = requests_made()
            time.sleep(3)
            # One look each when they came, and none since.
            assert while_all_wait - before == WAITERS
            assert requests_made() == while_all_wait
            assert not any(one.done() for one in asked)
            # Others are served meanwhile, though the process works on 32 at once.
            assert counted.get(f"/v1/accounts/{account}", timeout=2).status_code == 200
            paused_worker.resume()
            answers = [one.result(WAIT + 10) for one in asked]
        assert {answer.json()["status"] for answer in answers} == {"executed"}
        # That one account; the outcomes came from the cache.
        assert requests_made() == while_all_wait + 1


class counted_api:  # noqa: N801 - used as a function
    """An API with one process, and how many requests it made to DynamoDB so far."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._port = free_port()
        command = [sys.executable, "-m", "bench.delay_proxy"]
        command += [str(self._port), str(stack.engines.dynamodb_port), "0"]
        log = stack.folder / "proxy.log"
        self._proxy = Process("proxy", command, log, cwd=commands.ROOT)

    def __enter__(self) -> tuple[Client, Callable[[], int]]:
        self._proxy.start()
        try:
            url = f"http://{HOST}:{self._port}"
            changes = {"API_PROCESSES": "1", "AWS_ENDPOINT_URL_DYNAMODB": url}
            self._api, client = ready(self._stack, **changes)
        except BaseException:
            self._proxy.kill()
            raise
        return client, lambda: requests_passed(self._port)

    def __exit__(self, *_: object) -> None:
        self._api.kill()
        self._proxy.kill()


def test_whoever_waits_hears_of_a_cancelled_and_of_a_parked_order(
    stack: Stack, client: Client, paused_worker: Process
) -> None:
    account = client.open_account(1000)
    order, other = client.order(account), client.order(account, total_shares=3)
    with ThreadPoolExecutor() as pool:
        waits = pool.submit(look, client, order)
        time.sleep(0.5)
        path = f"/v1/accounts/{account}/orders/{order['id']}"
        assert requests.delete(client.url + path, timeout=10).status_code == 200
        assert waits.result(5).json()["status"] == "cancelled"

        waits = pool.submit(look, client, other)
        time.sleep(0.5)
        # Its item makes no sense: the worker parks it when it was sent again.
        stack.spoil_order(account, other["id"])
        paused_worker.resume()
        assert waits.result(WAIT + 5).json()["status"] == "failed"


def test_without_redis_whoever_waits_looks_now_and_then(stack: Stack, client: Client) -> None:
    account = client.open_account(10**6)
    with counted_api(stack) as (counted, requests_made):
        (worker,) = stack.workers
        worker.pause()
        order, other = client.order(account), client.order(account, total_shares=3)
        stack.engines.redis.kill()
        try:
            before = requests_made()
            began = time.monotonic()
            shown = look(counted, order, wait=2)
            assert (shown.status_code, shown.json()["status"]) == (200, "pending")
            assert 2 <= time.monotonic() - began < 2 + 2
            # When it came, and at the end.
            assert requests_made() - before == 2

            before = requests_made()
            with ThreadPoolExecutor() as pool:
                waits = pool.submit(look, counted, other)
                until(requests_made, lambda made: made > before, 5)
                path = f"/v1/accounts/{account}/orders/{other['id']}"
                assert requests.delete(client.url + path, timeout=10).status_code == 200
                began = time.monotonic()
                assert waits.result(WAIT).json()["status"] == "cancelled"
            assert time.monotonic() - began < 1.5 * LOOK_AGAIN_SECONDS
            assert requests_made() - before == 2
        finally:
            stack.engines.redis.start()
            worker.resume()
    # And all is well again.
    answer = until(
        lambda: place(client, account, share_price=1), lambda answer: answer.ok, READY_SECONDS
    )
    assert answer.json()["status"] in ("executed", "pending", "rejected")


def test_a_stopping_instance_lets_nobody_wait_on(
    stack: Stack, client: Client, paused_worker: Process
) -> None:
    api, stopping = ready(stack, DRAIN_SECONDS=str(DRAIN_SECONDS), API_PROCESSES="1")
    account = client.open_account(10**6)
    order = client.order(account)
    with ThreadPoolExecutor(40) as pool:
        looks = [pool.submit(look, stopping, order) for _ in range(15)]
        posts = [
            pool.submit(place, stopping, account, total_shares=number) for number in range(3, 8)
        ]
        streams = [Stream(stopping.url, account) for _ in range(5)]
        ended: list[Future[list[Event]]] = [
            pool.submit(lambda stream: list(stream.events()), stream) for stream in streams
        ]
        time.sleep(1)
        api.ask_to_stop()
        began = time.monotonic()
        time.sleep(DRAIN_SECONDS / 2)
        # While it drains all goes on.
        assert not any(one.done() for one in [*looks, *posts])
        assert not any(one.done() for one in ended)
        answers = [one.result(10) for one in looks]
        assert {(one.status_code, one.json()["status"]) for one in answers} == {(200, "pending")}
        assert {one.result(10).status_code for one in posts} == {202}
        assert [one.result(10) for one in ended] == [[]] * 5
    for stream in streams:
        assert "connect again" in stream.comments[-1]
        stream.cut()
    assert api.wait(10), "held up"
    assert time.monotonic() - began < DRAIN_SECONDS + 4
    assert api.exit_code == 0


# Streams


class Follower:
    """Follows an account over as many connections as it takes, cutting most of them."""

    def __init__(self, url: str, account: int, last: str, seed: int) -> None:
        self.url = url
        self.account = account
        self.events: list[Event] = []
        self.connections = 0
        self.errors: list[str] = []
        self._random = Random(seed)
        self._last = last
        self._stream: Stream | None = None
        self._begun = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def start(self) -> None:
        self._thread.start()
        assert self._begun.wait(10)

    def count(self) -> int:
        return len(self.events)

    def stop(self) -> None:
        self._stop.set()
        if self._stream is not None:
            self._stream.interrupt()
        self._thread.join(30)
        assert not self._thread.is_alive()

    def _follow(self) -> None:
        while not self._stop.is_set():
            try:
                with Stream(self.url, self.account, self._last) as stream:
                    if stream.answer.status != 200:
                        self.errors.append(f"{stream.answer.status} {stream.answer.read()!r}")
                        time.sleep(0.2)
                        continue
                    self.connections += 1
                    self._stream = stream
                    self._read(stream)
            except (OSError, AssertionError, ValueError) as error:
                # The API is away, or went away: what was read whole counts.
                self.errors.append(repr(error))
                time.sleep(0.1)

    def _read(self, stream: Stream) -> None:
        most = self._random.choice((1, 2, 3, 10, 50))
        events = stream.events()
        for _ in range(most):
            event = next(events, None)
            if event is None:
                return
            self._last = event.id
            self.events.append(event)
            self._begun.set()
            if self._stop.is_set():
                return


class Trader:
    """Sends orders to an account, one after the other, and cancels some."""

    def __init__(self, url: str, account: int, seed: int) -> None:
        self._client = Client(url)
        self._account = account
        self._random = Random(seed)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._trade, daemon=True)
        self.placed = 0

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(30)
        assert not self._thread.is_alive()

    def _trade(self) -> None:
        while not self._stop.is_set():
            self.placed += 1
            try:
                shares = self.placed if self._random.random() < 0.9 else 10**11
                answer = self._client.post(
                    f"/v1/accounts/{self._account}/orders",
                    order_body(total_shares=shares, share_price=1),
                )
                if answer.status_code == 202 and self._random.random() < 0.3:
                    order = answer.json()
                    path = f"/v1/accounts/{self._account}/orders/{order['id']}"
                    requests.delete(self._client.url + path, timeout=10)
            except requests.RequestException:
                time.sleep(0.1)
            time.sleep(self._random.uniform(0, 0.03))


def test_a_stream_that_breaks_again_and_again_misses_nothing_and_repeats_nothing(
    stack: Stack, client: Client
) -> None:
    account = client.open_account(10**9)
    with Stream(stack.url, account) as stream:
        start = stream.beginning()
    followers = [Follower(stack.url, account, start, seed) for seed in range(3)]
    traders = [Trader(stack.url, account, seed) for seed in range(2)]
    for trader in traders:
        trader.start()
    for follower in followers:
        follower.start()

    time.sleep(2)
    stack.engines.flush_redis()
    time.sleep(2)
    stack.engines.redis.kill()
    time.sleep(1)
    stack.engines.redis.start()
    time.sleep(2)
    stack.api.kill()
    time.sleep(0.5)
    stack.api.start()
    time.sleep(4)

    for trader in traders:
        trader.stop()
    client.all_settled([account], 60)
    decided = recorded_account(stack, account).decided
    assert decided > 50
    for follower in followers:
        until(follower.count, lambda seen: seen >= decided, 60)
        follower.stop()
    numbers = sequences(stack, account)
    assert len(numbers) == decided
    orders = {order["id"]: order for order in client.orders(account)}
    for follower in followers:
        seen = [numbers[event.order["id"]] for event in follower.events]
        assert seen == list(range(1, decided + 1))
        assert len({event.id for event in follower.events}) == decided
        assert all(event.order == orders[event.order["id"]] for event in follower.events)
        assert follower.connections > 5
    statuses = {order["status"] for order in orders.values()}
    assert statuses == {"executed", "rejected", "cancelled"}


def test_streams_that_nobody_reads_hold_nobody_up(stack: Stack, client: Client) -> None:
    api, narrow = ready(stack, API_THREADS="2", API_PROCESSES="1")
    account = client.open_account(10**9)
    streams = [Stream(narrow.url, account, "0") for _ in range(8)]
    try:
        for _ in range(5):
            began = time.monotonic()
            assert place(narrow, account, share_price=1, total_shares=1).status_code == 200
            assert narrow.get(f"/v1/accounts/{account}").status_code == 200
            assert time.monotonic() - began < 3
    finally:
        for stream in streams:
            stream.cut()
        api.kill()
