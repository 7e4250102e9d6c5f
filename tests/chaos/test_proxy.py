"""The proxies misbehave in the ways that they are told, and in no other."""

import contextlib
import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from random import Random

import pytest

from local.ports import free_port
from tests.chaos import proxy
from tests.chaos.proxy import HOST, DynamoDbProxy, Loop

SECONDS = 5.0
Connect = Callable[..., http.client.HTTPConnection]

REASONS = {"ThrottlingError", "ProvisionedThroughputExceeded", "TransactionConflict"}
TRANSACTION: dict[str, list[dict[str, str]]] = {"TransactItems": [{}, {}, {}]}


class Engine(ThreadingHTTPServer):
    """An engine that answers everything and counts it."""

    daemon_threads = True
    carried_out = 0


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Engine

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.carried_out += 1
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
        """Say nothing."""


@pytest.fixture
def engine() -> Iterator[Engine]:
    with Engine((HOST, 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join(SECONDS)


@pytest.fixture
def between(engine: Engine) -> Iterator[DynamoDbProxy]:
    loop = Loop()
    made = DynamoDbProxy(loop, free_port(), engine.server_address[1], Random(1))
    made.listen()
    yield made
    made.cut()
    loop.close()


@pytest.fixture
def connect(between: DynamoDbProxy) -> Iterator[Connect]:
    with contextlib.ExitStack() as open_ones:

        def one(seconds: float = SECONDS) -> http.client.HTTPConnection:
            made = http.client.HTTPConnection(HOST, between.port, timeout=seconds)
            open_ones.callback(made.close)
            return made

        yield one


def ask(
    open_one: http.client.HTTPConnection, operation: str = "GetItem", told: object = None
) -> tuple[int, object]:
    target = {"X-Amz-Target": f"DynamoDB_20120810.{operation}"}
    open_one.request("POST", "/", json.dumps(told or {"a": 1}), target)
    answer = open_one.getresponse()
    return answer.status, json.loads(answer.read())


def always(monkeypatch: pytest.MonkeyPatch, between: DynamoDbProxy, fault: str) -> None:
    """Do ``fault`` to every request."""
    monkeypatch.setitem(proxy._SHARE_OF_REQUESTS, fault, 1.0)
    between.misbehave(fault)


def test_a_proxy_that_behaves_passes_requests_on(engine: Engine, connect: Connect) -> None:
    told = {"long": "x" * 100_000}
    open_one = connect()
    assert [ask(open_one, told=told) for _ in range(3)] == [(200, told)] * 3
    assert engine.carried_out == 3


def test_a_cut_breaks_what_is_open_and_refuses_what_is_new(
    between: DynamoDbProxy, connect: Connect
) -> None:
    open_one = connect()
    ask(open_one)

    between.cut()

    with pytest.raises((http.client.HTTPException, ConnectionError)):
        ask(open_one)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((HOST, between.port), SECONDS)
    between.listen()
    assert ask(connect())[0] == 200


def test_a_delay_holds_up_what_passes_in_sequence(between: DynamoDbProxy, connect: Connect) -> None:
    between.delay_seconds = 0.1
    started = time.monotonic()
    assert ask(connect(), told={"n": 1}) == (200, {"n": 1})
    assert time.monotonic() - started >= 0.2


def test_what_throttles_carries_nothing_out(
    monkeypatch: pytest.MonkeyPatch, between: DynamoDbProxy, engine: Engine, connect: Connect
) -> None:
    always(monkeypatch, between, proxy.THROTTLE)
    open_one = connect()

    told = [ask(open_one, "TransactWriteItems", TRANSACTION) for _ in range(30)]
    left = [ask(open_one, "BatchGetItem", {"RequestItems": {"t": {"Keys": []}}}) for _ in range(9)]

    kinds = {body["__type"].partition("#")[2] for _, body in told if isinstance(body, dict)}
    assert kinds == {"TransactionCanceledException", "ProvisionedThroughputExceededException"}
    reasons = [body.get("CancellationReasons", []) for _, body in told if isinstance(body, dict)]
    assert {len(some) for some in reasons} == {0, 3}
    assert {one["Code"] for some in reasons for one in some} == REASONS | {"None"}
    assert {status for status, _ in left} == {200, 400}
    assert engine.carried_out == 0
    assert between.counts["requests: throttle"] == 39


def test_what_fails_answers_500_or_503_and_carries_nothing_out(
    monkeypatch: pytest.MonkeyPatch, between: DynamoDbProxy, engine: Engine, connect: Connect
) -> None:
    always(monkeypatch, between, proxy.FAIL)
    open_one = connect()
    assert {ask(open_one)[0] for _ in range(20)} == {500, 503}
    assert engine.carried_out == 0


def test_what_hangs_takes_the_request_and_says_nothing(
    monkeypatch: pytest.MonkeyPatch, between: DynamoDbProxy, engine: Engine, connect: Connect
) -> None:
    always(monkeypatch, between, proxy.HANG)
    with pytest.raises(TimeoutError):
        ask(connect(seconds=0.2))
    assert engine.carried_out == 0


def test_a_lost_answer_is_one_to_what_was_carried_out(
    monkeypatch: pytest.MonkeyPatch, between: DynamoDbProxy, engine: Engine, connect: Connect
) -> None:
    always(monkeypatch, between, proxy.LOSE)
    seen = set()
    for _ in range(20):
        try:
            seen.add(ask(connect(seconds=0.2), "TransactWriteItems", TRANSACTION)[0])
        except (http.client.HTTPException, ConnectionError):
            seen.add(-1)
        except TimeoutError:
            seen.add(-2)
    # It closes, it says 500 or 503, or it says nothing: never the engine's 200.
    assert seen == {-1, -2, 500, 503}
    assert engine.carried_out == 20
