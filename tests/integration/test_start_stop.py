"""Start and stop: nothing accepted is lost, and nothing is cut off in the middle.

What a stopping API promises to those who speak to it directly: whoever is let in is answered, and
an answer says `Connection: close`; whoever is not let in is refused before anything was sent. A
connection on which nothing is asked all the while is closed without a word.
"""

import json
import os
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Self

import pytest
import redis
import requests

from local import commands
from local.ports import free_port
from local.processes import Process, group_members
from shared.order_store.table import create_table
from shared.task_queue import ORDERS_QUEUE
from tests.balancer import Balancer, Manners
from tests.integration.client import Client, in_parallel, order_body, until
from tests.integration.load import Load
from tests.integration.table import recorded_account, recorded_orders
from tests.stack import Engines, Stack

pytestmark = [pytest.mark.fault, pytest.mark.timeout(240)]

DRAIN_SECONDS = 1.5
FINISH_SECONDS = 10.0
"""What an API gives to running requests, beyond the drain."""
READY_SECONDS = 30.0
WORKER_STOP_SECONDS = 15.0
SWEEPER_STOP_SECONDS = 15.0
DECIDED_SECONDS_MAX = 5.0
ANSWERED_SECONDS_MAX = 5.0
BACKLOG = 500
BULK_LINES = 400
ROUNDS = 2 if os.environ.get("FULL_SIZE") else 1
"""How often each instance is restarted under load."""

HOST = "127.0.0.1"


@pytest.fixture(scope="module")
def stack(engines: Engines) -> Iterator[Stack]:
    """An API that drains, and no orders left over by the sweeper in the way."""
    with Stack(engines, workers=1, env={"DRAIN_SECONDS": str(DRAIN_SECONDS)}) as running:
        yield running


@pytest.fixture
def api(stack: Stack) -> Iterator[tuple[Process, int]]:
    """An instance that a test may stop."""
    process, port = stack.add_api()
    wait_until_ready(port)
    yield process, port
    process.kill()
    stack.more_apis.remove(process)


def wait_until_ready(port: int) -> None:
    client = Client(f"http://{HOST}:{port}")
    until(lambda: status_of(client, "/readyz"), lambda status: status == 200, READY_SECONDS)


def status_of(client: Client, path: str) -> int:
    """The answer's status; 0 while nobody listens."""
    try:
        return client.get(path).status_code
    except requests.ConnectionError:
        return 0


def end_in_order(process: Process, seconds: float) -> None:
    """Ask the process to end, and see that it does, by itself and with a good conscience."""
    process.ask_to_stop()
    assert process.wait(seconds), f"{process.name} still runs after {seconds} s"
    assert process.exit_code == 0


# One instance, met directly


class Wire:
    """A bare connection, to see what a library would hide; the request may be sent in parts."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection((HOST, port), timeout=20)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._file = self._socket.makefile("rb")

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def answer(self) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body; fails where the connection ends before the whole of it."""
        first = self._file.readline()
        assert first.endswith(b"\r\n"), f"cut off: {first!r}"
        headers = {}
        while (line := self._file.readline()) != b"\r\n":
            assert line.endswith(b"\r\n"), f"cut off: {line!r}"
            name, _, value = line.decode().partition(":")
            headers[name.lower()] = value.strip()
        length = int(headers["content-length"])
        body = self._file.read(length)
        assert len(body) == length, "cut off in the body"
        return int(first.split()[1]), headers, body

    def ended(self) -> bool:
        """Whether the other side ended the connection in order (a reset raises)."""
        return self._socket.recv(1) == b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._socket.close()


@pytest.fixture
def connect() -> Iterator[Callable[[int], Wire]]:
    """Opens connections to a port, which are closed after the test."""
    with ExitStack() as cleanup:
        yield lambda port: cleanup.enter_context(Wire(port))


def request(method: str, path: str, body: object = None) -> bytes:
    text = b"" if body is None else json.dumps(body).encode()
    head = f"{method} {path} HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n"
    return head.encode() + b"Content-Length: %d\r\n\r\n" % len(text) + text


def test_a_stopping_api_says_so_first_and_serves_on(
    stack: Stack, api: tuple[Process, int], connect: Callable[[int], Wire]
) -> None:
    process, port = api
    account = Client(stack.url).open_account(1000)
    old, ready = connect(port), Client(f"http://{HOST}:{port}")
    old.send(request("GET", "/healthz"))
    assert old.answer()[1]["connection"] == "keep-alive"

    started = time.monotonic()
    process.ask_to_stop()
    said = until(lambda: ready.get("/readyz"), lambda seen: seen.status_code == 503, 1)
    old.send(request("POST", f"/v1/accounts/{account}/orders", order_body()))
    status, headers, body = old.answer()

    assert said.json() == {"status": "draining"}
    assert (status, headers["connection"]) == (202, "close")
    assert old.ended()
    while time.monotonic() < started + DRAIN_SECONDS * 0.9:
        assert ready.get(f"/v1/accounts/{account}").headers["Connection"] == "close"
    assert process.wait(FINISH_SECONDS)
    assert time.monotonic() - started > DRAIN_SECONDS
    assert process.exit_code == 0
    assert Client(stack.url).settled(json.loads(body))["status"] == "executed"


@pytest.mark.parametrize("drain_seconds", [0, DRAIN_SECONDS])
def test_clients_that_ask_right_up_to_the_end_are_answered_or_refused(
    stack: Stack, drain_seconds: float
) -> None:
    process, port = stack.add_api(DRAIN_SECONDS=str(drain_seconds))
    wait_until_ready(port)
    account = Client(stack.url).open_account(10**9)
    numbers = iter(range(1, 10**6))

    def ask_until_refused(_: int) -> list[int]:
        """Ask, over one connection as long as it lasts, until no connection is to be had."""
        seen: list[int] = []
        while True:
            try:
                wire = Wire(port)
            except ConnectionRefusedError:
                return seen
            with wire:
                headers: dict[str, str] = {}
                while headers.get("connection") != "close":
                    body = order_body(total_shares=next(numbers), share_price=1)
                    wire.send(request("POST", f"/v1/accounts/{account}/orders", body))
                    status, headers, _body = wire.answer()
                    seen.append(status)

    with ThreadPoolExecutor(16) as pool:
        asked = [pool.submit(ask_until_refused, n) for n in range(16)]
        time.sleep(1)
        end_in_order(process, drain_seconds + FINISH_SECONDS)
        answers = [future.result(timeout=30) for future in asked]

    statuses = Counter(status for of_client in answers for status in of_client)
    assert set(statuses) == {202}
    assert recorded_count(stack, account) == statuses[202]
    stack.more_apis.remove(process)


def recorded_count(stack: Stack, account: int) -> int:
    return len(recorded_orders(stack, account))


def test_whoever_waits_in_the_backlog_is_served(
    stack: Stack, connect: Callable[[int], Wire]
) -> None:
    process, port = stack.add_api(DRAIN_SECONDS="0")
    wait_until_ready(port)
    process.pause()
    # The kernel completes these connections; nobody has accepted them when the signal comes.
    wires = [connect(port) for _ in range(100)]
    for wire in wires:
        wire.send(request("GET", "/healthz"))
    process.signal_group(signal.SIGTERM)
    process.resume()

    assert [wire.answer()[0] for wire in wires] == [200] * len(wires)
    assert process.wait(FINISH_SECONDS)
    assert process.exit_code == 0
    assert refuses(port)
    stack.more_apis.remove(process)


def test_a_request_that_is_half_sent_at_the_end_is_answered(
    stack: Stack, api: tuple[Process, int], connect: Callable[[int], Wire]
) -> None:
    process, port = api
    account = Client(stack.url).open_account(1000)
    data = request("POST", f"/v1/accounts/{account}/orders", order_body())
    wire = connect(port)
    wire.send(data[:-20])
    process.ask_to_stop()
    until(lambda: refuses(port), bool, DRAIN_SECONDS + 5)
    wire.send(data[-20:])

    status, headers, body = wire.answer()

    assert (status, headers["connection"]) == (202, "close")
    assert process.wait(FINISH_SECONDS)
    assert process.exit_code == 0
    assert Client(stack.url).settled(json.loads(body))["status"] == "executed"


def refuses(port: int) -> bool:
    try:
        with Wire(port):
            return False
    except ConnectionRefusedError:
        return True


def test_idle_connections_end_in_order_and_hold_up_nothing(
    api: tuple[Process, int], connect: Callable[[int], Wire]
) -> None:
    process, port = api
    kept, silent = connect(port), connect(port)
    kept.send(request("GET", "/healthz"))
    kept.answer()

    end_in_order(process, DRAIN_SECONDS + 7)

    assert kept.ended()
    assert silent.ended()


@pytest.mark.parametrize("quick", [signal.SIGINT, signal.SIGQUIT])
def test_a_second_signal_changes_nothing_and_sigint_and_sigquit_are_quick(
    stack: Stack, quick: signal.Signals
) -> None:
    process, port = stack.add_api(DRAIN_SECONDS="60")
    wait_until_ready(port)
    process.ask_to_stop()
    process.signal_group(signal.SIGTERM)
    assert not process.wait(1)

    os.kill(process.pid, quick)

    assert process.wait(3)
    stack.more_apis.remove(process)


def test_sigterm_to_a_process_of_the_instance_ends_all_of_it_in_order(stack: Stack) -> None:
    """One socket for all: where one turned newcomers away, nobody would be served by the rest."""
    process, port = stack.add_api(DRAIN_SECONDS="0", API_PROCESSES="2")
    wait_until_ready(port)
    child = max(set(group_members(process.pid)) - {process.pid})
    os.kill(child, signal.SIGTERM)

    assert process.wait(FINISH_SECONDS)
    assert process.exit_code == 0
    assert status_of(Client(f"http://{HOST}:{port}"), "/healthz") == 0
    stack.more_apis.remove(process)


def test_signals_that_are_for_others_end_nothing(api: tuple[Process, int]) -> None:
    process, port = api
    before = sorted(group_members(process.pid))
    for number in (signal.SIGHUP, signal.SIGUSR2, signal.SIGWINCH, signal.SIGTTOU):
        os.kill(process.pid, number)
    assert not process.wait(1)

    assert status_of(Client(f"http://{HOST}:{port}"), "/readyz") == 200
    assert sorted(group_members(process.pid)) == before


# A rolling restart behind a balancer


@pytest.mark.any_store
@pytest.mark.parametrize("manners", list(Manners))
def test_a_rolling_restart_of_the_apis_fails_no_request(stack: Stack, manners: Manners) -> None:
    instances = [stack.add_api(), stack.add_api()]
    for _, port in instances:
        wait_until_ready(port)
    with Balancer([port for _, port in instances], manners) as balancer:
        until(lambda: all(balancer.is_ready(port) for _, port in instances), bool, READY_SECONDS)
        with Load(balancer.url) as load:
            for process, port in instances * ROUNDS:
                restart_under_load(process, port, balancer, load)
        failures, served = load.failures + balancer.failures, dict(balancer.served)

    assert failures == []
    assert load.seconds_max < ANSWERED_SECONDS_MAX
    assert min(served.values()) > 0
    check_all_decided_once(stack, load)
    for process, _ in instances:
        process.stop()
        stack.more_apis.remove(process)


def restart_under_load(process: Process, port: int, balancer: Balancer, load: Load) -> None:
    wait_for_more(load, 100)
    end_in_order(process, DRAIN_SECONDS + FINISH_SECONDS)
    wait_for_more(load, 20)
    process.start()
    wait_until_ready(port)
    served = balancer.served[port]
    until(lambda: balancer.served[port] > served, bool, READY_SECONDS)


def wait_for_more(load: Load, orders: int) -> None:
    accepted = load.accepted
    until(lambda: load.accepted, lambda now: now >= accepted + orders, READY_SECONDS)


def check_all_decided_once(stack: Stack, load: Load) -> None:
    """Each order that was answered 202 is decided, once, and there are no others."""
    settled = Client(stack.url).all_settled(load.accounts, 60)
    for account, accepted in load.accounts.items():
        assert [order["id"] for order in settled[account]] == accepted
        recorded = recorded_orders(stack, account)
        assert [order.sequence for order in recorded] == list(range(1, len(recorded) + 1))
        assert {order.status for order in recorded} == {"executed"}
        assert recorded_account(stack, account).decided == len(accepted)


# Workers


@pytest.fixture(scope="module")
def unhelped_stack(own_engines: Engines) -> Iterator[Stack]:
    """An API without workers and without a sweeper, on engines that may break."""
    with Stack(own_engines, workers=0, env={"RECOVER_AFTER": "1"}) as running:
        running.sweepers[0].stop()
        yield running


@pytest.fixture
def worker_stack(unhelped_stack: Stack) -> Iterator[Stack]:
    """A worker without the sweeper's help: what a stop leaves behind is there to be seen."""
    stack = unhelped_stack
    wait_until_ready(stack.port)
    wait_until_works(stack.add_worker())
    yield stack
    for process in (*stack.workers, *stack.more_apis, *stack.sweepers[1:]):
        process.kill()
    stack.workers.clear()
    stack.more_apis.clear()
    del stack.sweepers[1:]
    for engine in (stack.engines.redis, stack.engines.dynamodb):
        if not engine.running:
            engine.start()
    stack.engines.flush_redis()


def broker(stack: Stack) -> "redis.Redis":
    return redis.Redis.from_url(stack.env["REDIS_URL"], socket_timeout=5)


def unacknowledged(stack: Stack) -> tuple[int, int]:
    """What kombu notes of messages that were delivered and not acknowledged."""
    with broker(stack) as asked:
        return int(asked.hlen("unacked")), int(asked.zcard("unacked_index"))


def waiting(stack: Stack) -> set[str]:
    """The orders that are named by the messages in the queue."""
    with broker(stack) as asked:
        messages = asked.lrange(ORDERS_QUEUE, 0, -1)
    named = [json.loads(message)["headers"]["argsrepr"].split() for message in messages]
    return {name for names in named for name in names}


def undecided(stack: Stack, names: Sequence[str]) -> set[str]:
    client = Client(stack.url)

    def status(name: str) -> str:
        account, order = name.split("/")
        return str(client.get(f"/v1/accounts/{account}/orders/{order}").json()["status"])

    statuses = in_parallel(8, status, names)
    return {name for name, seen in zip(names, statuses, strict=True) if seen == "pending"}


def wait_for_a_message_less(stack: Stack) -> None:
    before = waiting(stack)
    until(lambda: waiting(stack), lambda now: now < before or not now, 30)


def test_a_worker_that_stops_in_a_backlog_leaves_nothing_behind(worker_stack: Stack) -> None:
    stack = worker_stack
    client = Client(stack.url)
    stack.workers[0].pause()
    # An account for each order: a message settles all that its accounts have.
    accounts = in_parallel(16, lambda _: client.open_account(1000), range(BACKLOG))
    placed = in_parallel(16, client.order, accounts)
    names = [f"{order['account_id']}/{order['id']}" for order in placed]
    stack.workers[0].resume()
    stops_in_the_middle = 0
    for _ in range(3):
        wait_for_a_message_less(stack)
        end_in_order(stack.workers[0], WORKER_STOP_SECONDS)
        stack.workers.pop()

        assert unacknowledged(stack) == (0, 0)
        left = undecided(stack, names)
        # A message whose last outcome was not heard of goes back too, and finds nothing to do.
        assert left <= waiting(stack)
        stops_in_the_middle += bool(left)
        stack.add_worker()

    settled = client.all_settled(accounts, 30)
    assert stops_in_the_middle > 0, "the backlog was gone before anything could be stopped"
    assert unacknowledged(stack) == (0, 0)
    assert {order["status"] for orders in settled.values() for order in orders} == {"executed"}
    assert {recorded_account(stack, account).decided for account in accounts} == {1}


@pytest.mark.parametrize(("hangs_seconds", "status"), [(1.0, 202), (20.0, 503)])
def test_an_order_that_waits_for_a_hanging_store_at_the_end_is_answered(
    worker_stack: Stack,
    connect: Callable[[int], Wire],
    hangs_seconds: float,
    status: int,
) -> None:
    stack = worker_stack
    client = Client(stack.url)
    account = client.open_account(1000)
    process, port = stack.add_api(API_PROCESSES="1")
    wait_until_ready(port)
    wire = connect(port)
    dynamodb = stack.engines.dynamodb
    dynamodb.pause()
    resume = threading.Timer(hangs_seconds, dynamodb.resume)
    resume.start()
    try:
        wire.send(request("POST", f"/v1/accounts/{account}/orders", order_body()))
        time.sleep(0.3)
        process.ask_to_stop()
        answered, headers, body = wire.answer()
        assert process.wait(FINISH_SECONDS)
    finally:
        resume.cancel()
        dynamodb.resume()

    assert (answered, headers["connection"]) == (status, "close")
    assert process.exit_code == 0
    if status == 202:
        assert client.settled(json.loads(body))["status"] == "executed"
    # Of one that was answered 503 nobody knows; there is one at most.
    assert (status == 202) <= recorded_count(stack, account) <= 1


def test_a_bulk_request_at_the_end_is_answered_to_its_last_line(worker_stack: Stack) -> None:
    stack = worker_stack
    client = Client(stack.url)
    accounts = [client.open_account(10**9) for _ in range(4)]
    process, port = stack.add_api()
    wait_until_ready(port)
    lines = [
        json.dumps({"account_id": account, **order_body(total_shares=number, share_price=1)})
        for number in range(1, BULK_LINES // len(accounts) + 1)
        for account in accounts
    ]
    dynamodb = stack.engines.dynamodb
    with requests.post(
        f"http://{HOST}:{port}/v1/orders/bulk",
        data="\n".join(lines),
        headers={"Content-Type": "application/x-ndjson"},
        stream=True,
        timeout=20,
    ) as answer:
        answers = answer.iter_lines(chunk_size=1)
        first = next(answers)
        # In the middle: the rest cannot be recorded before the door is closed.
        dynamodb.pause()
        try:
            process.ask_to_stop()
            until(lambda: refuses(port), bool, READY_SECONDS)
        finally:
            dynamodb.resume()
        shown = [json.loads(line) for line in (first, *answers)]

    assert process.wait(FINISH_SECONDS)
    assert process.exit_code == 0
    assert [one["line"] for one in shown] == list(range(1, len(lines) + 1))
    # A slow engine may leave too little time for some: they are answered, and may be recorded.
    assert {one["status"] for one in shown} <= {202, 503}
    accepted = [one["order"] for one in shown if one["status"] == 202]
    assert len(accepted) > BULK_LINES / 2
    # Their messages were sent before the process ended: no sweeper runs here.
    settled = in_parallel(8, lambda order: client.settled(order, 60), accepted)
    assert {order["status"] for order in settled} == {"executed"}


def wait_until_works(worker: Process) -> None:
    until(lambda: log_of(worker), lambda text: commands.WORKER_READY_MARK in text, READY_SECONDS)


@pytest.mark.parametrize("hanging", ["store", "processes"])
def test_a_worker_that_cannot_end_its_message_stops_in_time_and_gives_it_back(
    worker_stack: Stack, hanging: str
) -> None:
    stack = worker_stack
    client = Client(stack.url)
    account = client.open_account(1000)
    worker = stack.workers[0]
    worker.pause()
    order = client.order(account)
    stack.engines.dynamodb.pause()
    try:
        worker.resume()
        until(lambda: unacknowledged(stack), lambda held: held == (1, 1), 10)
        if hanging == "processes":
            for child in set(group_members(worker.pid)) - {worker.pid}:
                os.kill(child, signal.SIGSTOP)
        os.kill(worker.pid, signal.SIGTERM)
        assert worker.wait(WORKER_STOP_SECONDS)
    finally:
        stack.engines.dynamodb.resume()

    stack.workers.pop()
    assert unacknowledged(stack) == (0, 0)
    assert waiting(stack) == {f"{account}/{order['id']}"}
    stack.add_worker()
    assert client.settled(order)["status"] == "executed"


def test_a_rolling_restart_of_the_workers_delays_no_order_for_long(worker_stack: Stack) -> None:
    stack = worker_stack
    stack.add_worker()
    # Few, so that the workers keep up: late is then who was held up by a restart.
    with Load(stack.url, clients=2) as load:
        for _ in range(2 * ROUNDS):
            wait_until_works(stack.workers[-1])
            wait_for_more(load, 50)
            end_in_order(stack.workers[0], WORKER_STOP_SECONDS)
            stack.workers.pop(0)
            wait_for_more(load, 20)
            stack.add_worker()
        wait_for_more(load, 50)

    assert load.failures == []
    check_all_decided_once(stack, load)
    took = [
        (order.decided_at - order.order.received_at).total_seconds()
        for account in load.accounts
        for order in recorded_orders(stack, account)
        if order.decided_at is not None
    ]
    assert max(took) < DECIDED_SECONDS_MAX


# Starting with what cannot be


@pytest.mark.any_store
@pytest.mark.parametrize(
    ("command", "setting", "value"),
    [
        (commands.api(), "API_THREADS", "many"),
        (commands.worker("w"), "WORKER_PROCESSES", "0"),
        (commands.sweeper(), "RECOVER_AFTER", "soon"),
        (commands.create_table(), "MARKET_TZ", "Atlantis/Capital"),
    ],
    ids=["api", "worker", "sweeper", "table"],
)
def test_a_process_with_an_impossible_setting_ends_and_names_it(
    stack: Stack, tmp_path: Path, command: list[str], setting: str, value: str
) -> None:
    env = {**stack.env, "API_PORT": str(free_port()), setting: value}
    process = Process("wrong", command, tmp_path / "log", env=env, cwd=commands.ROOT)
    process.start()
    assert process.wait(READY_SECONDS)
    assert process.exit_code != 0
    assert setting.lower() in log_of(process)
    assert value in log_of(process)


@pytest.mark.any_store
def test_an_api_whose_port_is_taken_ends_and_says_so(stack: Stack, tmp_path: Path) -> None:
    env = {**stack.env, "API_PORT": str(stack.port)}
    process = Process("second", commands.api(), tmp_path / "log", env=env, cwd=commands.ROOT)
    process.start()
    assert process.wait(READY_SECONDS)
    assert process.exit_code != 0
    assert f"Connection in use: ('{HOST}', {stack.port})" in log_of(process)
    assert status_of(Client(stack.url), "/readyz") == 200


# Starting before the others


def test_an_api_that_starts_without_dynamodb_becomes_ready_by_itself(worker_stack: Stack) -> None:
    engines = worker_stack.engines
    engines.dynamodb.kill()
    process, port = worker_stack.add_api()
    client = Client(f"http://{HOST}:{port}")
    until(lambda: status_of(client, "/readyz"), lambda status: status == 503, READY_SECONDS)
    assert client.get("/healthz").status_code == 200
    assert client.post("/v1/accounts", {"cash": 1}).status_code == 503

    engines.dynamodb.start()

    wait_until_ready(port)
    assert client.open_account(1) >= 1
    assert process.running


def test_an_api_that_starts_before_its_table_becomes_ready_by_itself(worker_stack: Stack) -> None:
    name = f"{worker_stack.table_name}-late"
    _, port = worker_stack.add_api(TABLE_NAME=name)
    client = Client(f"http://{HOST}:{port}")
    until(lambda: status_of(client, "/readyz"), lambda status: status == 503, READY_SECONDS)

    create_table(worker_stack.dynamodb, name, wait_seconds=30)

    wait_until_ready(port)
    assert client.open_account(1) >= 1


def test_a_worker_that_starts_without_redis_waits_for_it_and_says_so(worker_stack: Stack) -> None:
    stack = worker_stack
    client = Client(stack.url)
    account = client.open_account(1000)
    end_in_order(stack.workers[0], WORKER_STOP_SECONDS)
    stack.workers.pop()
    stack.engines.redis.kill()
    worker = stack.add_worker()
    until(lambda: log_of(worker), lambda text: "Cannot connect" in text, 30)
    assert worker.running

    stack.engines.redis.start()

    wait_until_works(worker)
    order = client.order(account)
    assert client.settled(order)["status"] == "executed"


def test_a_sweeper_that_starts_before_all_others_waits_and_says_so(worker_stack: Stack) -> None:
    engines = worker_stack.engines
    engines.redis.kill()
    engines.dynamodb.kill()
    sweeper = worker_stack.add_sweeper()
    until(lambda: log_of(sweeper), lambda text: text.count("sweep_failed") > 1, 30)

    engines.dynamodb.start()
    engines.redis.start()

    client = Client(worker_stack.url)
    account = client.open_account(1000)
    with broker(worker_stack) as asked:
        worker_stack.workers[0].pause()
        order = client.order(account)
        asked.flushall()
        worker_stack.workers[0].resume()
    assert client.settled(order, 30)["status"] == "executed"
    end_in_order(sweeper, SWEEPER_STOP_SECONDS)


def log_of(process: Process) -> str:
    assert isinstance(process.log, Path)
    return process.log.read_text(errors="replace") if process.log.exists() else ""
