"""Hostile clients over real sockets: refused in time, never with a 5xx, at no cost to others."""

import itertools
import json
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis

from api.arriving import HEAD_BYTES_MAX
from api.green_worker import SEND_SECONDS_MAX
from local.processes import group_members, wait_until
from tests.integration.client import Client, order_body, until
from tests.stack import Engines, Stack

pytestmark = [pytest.mark.integration, pytest.mark.any_store, pytest.mark.timeout(240)]

BODY_BYTES_MAX = 65_536
REQUEST_SECONDS_MAX = 2.0
THREADS = 4
LORISES = 200
ORDINARY_SECONDS_MAX = 1.5
"""What an ordinary request may take while hostile ones are there (some milliseconds else)."""

MEBIBYTE = 1024 * 1024
JSON_HEAD = b"Host: x\r\nContent-Type: application/json\r\n"
POST = b"POST /v1/accounts HTTP/1.1\r\n" + JSON_HEAD
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
OK_BODY = b'{"cash": 1}'


@pytest.fixture(scope="module")
def stack(engines: Engines) -> Iterator[Stack]:
    env = {"REQUEST_SECONDS_MAX": str(REQUEST_SECONDS_MAX), "API_THREADS": str(THREADS)}
    with Stack(engines, workers=0, env=env) as running:
        yield running


@pytest.fixture
def client(stack: Stack) -> Client:
    return Client(stack.url)


@dataclass(frozen=True)
class Answer:
    """What came back on a connection, and whether the server closed it."""

    statuses: list[int]
    raw: bytes
    is_closed: bool


@contextmanager
def connected(stack: Stack) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", stack.port), 5) as connection:
        yield connection


def send(stack: Stack, data: bytes, *, half_close: bool = False) -> Answer:
    """Send ``data`` and take in what comes back, until the server closes or says no more."""
    with connected(stack) as connection:
        connection.settimeout(REQUEST_SECONDS_MAX + 3)
        with_reset = False
        try:
            connection.sendall(data)
        except ConnectionError:
            with_reset = True
        if half_close:
            connection.shutdown(socket.SHUT_WR)
        raw, is_closed = read_all(connection, 0.3)
    return Answer(statuses_in(raw), raw, is_closed or with_reset)


def read_all(connection: socket.socket, quiet_seconds: float) -> tuple[bytes, bool]:
    """Read until the end, or until nothing comes for a while after the first bytes."""
    raw = b""
    while True:
        try:
            data = connection.recv(65_536)
        except TimeoutError:
            return raw, False
        except ConnectionError:
            return raw, True
        if not data:
            return raw, True
        raw += data
        connection.settimeout(quiet_seconds)


def statuses_in(raw: bytes) -> list[int]:
    """Statuses of the final answers in ``raw``."""
    lines = (line for line in raw.split(b"\r\n") if b"HTTP/1." in line)
    found = [int(line[line.index(b"HTTP/1.") :].split(b" ")[1]) for line in lines]
    return [status for status in found if status != 100]


def headers(count: int) -> bytes:
    """``count`` headers, Host among them."""
    return b"Host: x\r\n" + b"".join(b"A%d: b\r\n" % number for number in range(count - 1))


def padded(size: int) -> bytes:
    return OK_BODY + b" " * (size - len(OK_BODY))


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def posted(body: bytes, extra: bytes = b"") -> bytes:
    return POST + b"Content-Length: %d\r\n%s\r\n%s" % (len(body), extra, body)


def request_line(length: int) -> bytes:
    start, end = b"GET /healthz?", b" HTTP/1.1"
    return start + b"a" * (length - len(start) - len(end)) + end


def head_of(length: int) -> bytes:
    """A request head of ``length`` bytes before its empty line, each header within bounds."""
    lines = [b"GET /healthz HTTP/1.1", b"Host: x"]
    left = length - len(b"\r\n".join(lines))
    while left:
        size = min(left, 8000) if left > 8100 or left <= 8000 else left - 100
        lines.append(b"A: " + b"b" * (size - len(b"\r\nA: ")))
        left -= size
    return b"\r\n".join(lines)


GET = b"GET /healthz HTTP/1.1\r\n"
LAST = b"Connection: close\r\n"

AT_THE_LIMIT = {
    "64 headers": (GET + headers(64) + b"\r\n", 200),
    "a header of 8,190 bytes": (GET + b"A: " + b"b" * (8190 - 5) + b"\r\n\r\n", 200),
    "a request line of 4,094 bytes": (request_line(4094) + b"\r\n\r\n", 200),
    "a head at its limit": (head_of(HEAD_BYTES_MAX) + b"\r\n\r\n", 200),
    "a body at its limit": (posted(padded(BODY_BYTES_MAX)), 201),
    "a chunked body at its limit": (
        CHUNKED + chunk(padded(BODY_BYTES_MAX)) + b"0\r\n\r\n",
        201,
    ),
    "a chunked body in small pieces, with a trailer": (
        CHUNKED + b"".join(chunk(bytes([byte])) for byte in OK_BODY) + b"0\r\nA: b\r\n\r\n",
        201,
    ),
    "HTTP/1.0": (b"GET /healthz HTTP/1.0\r\n\r\n", 200),
    "an absolute URI": (b"GET http://elsewhere/healthz HTTP/1.1\r\nHost: x\r\n\r\n", 200),
    "an empty line first": (b"\r\n" + GET + b"Host: x\r\n\r\n", 200),
    "headers only proxies may set": (
        GET + b"Host: x\r\nSCRIPT_NAME: /x\r\nX-Forwarded-Proto: https\r\n\r\n",
        200,
    ),
}

BEYOND = {
    "65 headers": (GET + headers(65) + b"\r\n", 431),
    "a header of 8,191 bytes": (GET + b"A: " + b"b" * (8191 - 5) + b"\r\n\r\n", 431),
    "a request line of 4,095 bytes": (request_line(4095) + b"\r\n\r\n", 414),
    "a head over its limit": (head_of(HEAD_BYTES_MAX + 1) + b"\r\n\r\n", 431),
    "a head without an end": (GET + b"A: b\r\n" * 20_000, 431),
    "a hundred thousand ids": (
        b"GET /v1/accounts/" + b"1," * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        431,
    ),
    "a body over its limit": (posted(padded(BODY_BYTES_MAX + 1)), 413),
    "a body over its limit that never comes": (POST + b"Content-Length: 65537\r\n\r\n", 413),
    "a length of 5,000 digits": (POST + b"Content-Length: %s\r\n\r\n" % (b"9" * 5000), 413),
    "a chunked body over its limit": (
        CHUNKED + chunk(padded(BODY_BYTES_MAX + 1)) + b"0\r\n\r\n",
        413,
    ),
    "a chunk over the limit that never comes": (CHUNKED + b"ffffffff\r\n", 413),
    "a chunk size of 5,000 digits": (CHUNKED + b"f" * 5000 + b"\r\n", 413),
    "a chunk line without an end": (CHUNKED + b"1;" + b"a" * 20_000, 400),
    "trailers without an end": (CHUNKED + b"0\r\n" + b"A: b\r\n" * 20_000, 431),
    "small chunks with long extensions": (
        CHUNKED + (b"1;" + b"a" * 4000 + b"\r\nx\r\n") * 100,
        413,
    ),
}

BROKEN = {
    "a bare line feed": (b"GET /healthz HTTP/1.1\nHost: x\n\n", 400),
    "no HTTP at all": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
    "HTTP/2 without asking": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "HTTP/3.9": (b"GET / HTTP/3.9\r\nHost: x\r\n\r\n", 400),
    "two hosts": (GET + b"Host: x\r\nHost: y\r\n\r\n", 400),
    "a NUL in a header": (GET + b"Host: x\r\nA: \x00\r\n\r\n", 400),
    "a folded header": (GET + b"Host: x\r\nA: b\r\n c\r\n\r\n", 400),
    "length and chunks": (
        POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    "chunks and length": (
        POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        400,
    ),
    "two lengths": (POST + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{} ", 400),
    "a negative length": (POST + b"Content-Length: -1\r\n\r\n", 400),
    "a length with a sign": (POST + b"Content-Length: +2\r\n\r\n{}", 400),
    "an unknown coding": (POST + b"Transfer-Encoding: x\r\n\r\n", 400),
    "chunked twice": (POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", 400),
    "chunked but not last": (POST + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n", 400),
    "a space before the colon": (POST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", 400),
    "chunked in HTTP/1.0": (
        b"POST /v1/accounts HTTP/1.0\r\n" + JSON_HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
        b"0\r\n\r\n",
        400,
    ),
    "a chunk size that is none": (CHUNKED + b"zz\r\n{}\r\n0\r\n\r\n", 400),
    "a chunk longer than it says": (CHUNKED + b"2\r\n{}XX0\r\n\r\n", 400),
    "a trailer that frames": (CHUNKED + b"2\r\n{}\r\n0\r\nContent-Length: 9\r\n\r\n", 400),
    "an unknown expectation": (posted(OK_BODY, b"Expect: more\r\n"), 417),
    "a body in gzip": (posted(OK_BODY, b"Content-Encoding: gzip\r\n"), 415),
    "a request that stays half": (POST + b"Content-Length: 99\r\n\r\n" + OK_BODY, 408),
    "a head that stays half": (GET + b"Host: x\r\n", 408),
}


@pytest.mark.parametrize("name", AT_THE_LIMIT)
def test_a_request_at_its_limits_is_served(stack: Stack, name: str) -> None:
    data, status = AT_THE_LIMIT[name]
    assert send(stack, data).statuses == [status]


@pytest.mark.parametrize("name", [*BEYOND, *BROKEN])
def test_a_request_beyond_its_limits_or_broken_is_refused(stack: Stack, name: str) -> None:
    data, status = (BEYOND | BROKEN)[name]
    answer = send(stack, data)
    assert answer.statuses == [status], answer.raw[:200]
    assert b"application/problem+json" in answer.raw
    # Where the next request would begin is not known, except after a refusal by the routes.
    assert answer.is_closed or status == 415


def test_a_body_that_is_cut_off_is_not_taken_for_a_whole_one(stack: Stack) -> None:
    form = b"cash=10"
    head = b"POST /v1/accounts HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n"
    data = head + b"Content-Type: application/x-www-form-urlencoded\r\n\r\n" + form
    assert send(stack, data, half_close=True).statuses == [400]
    assert send(stack, data + b"00", half_close=True).statuses == [201]


def test_a_client_that_expects_to_be_told_is_told_once(stack: Stack) -> None:
    with connected(stack) as connection:
        connection.settimeout(5)
        head = b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(OK_BODY)
        connection.sendall(POST + head)
        assert connection.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(OK_BODY)
        raw, _ = read_all(connection, 0.3)
    assert raw.startswith(b"HTTP/1.1 201 ")
    refused = send(stack, POST + b"Expect: 100-continue\r\nContent-Length: 70000\r\n\r\n")
    assert refused.raw.startswith(b"HTTP/1.1 413 ")


def test_requests_of_one_connection_are_answered_in_their_sequence(stack: Stack) -> None:
    bad = posted(b'{"cash": -1}')
    unread = b"GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n0123456789"
    data = (posted(OK_BODY) + bad + unread + CHUNKED + chunk(OK_BODY) + b"0\r\n\r\n") * 10
    answer = send(stack, data + GET + LAST + b"\r\n")
    assert answer.statuses == [201, 422, 200, 201] * 10 + [200]
    assert answer.is_closed


def test_what_follows_a_refused_request_is_not_served(stack: Stack) -> None:
    smuggled = b"GET /v1/accounts/1 HTTP/1.1\r\nHost: x\r\n\r\n"
    both = b"Content-Length: %d\r\nTransfer-Encoding: chunked\r\n\r\n" % (5 + len(smuggled))
    assert send(stack, POST + both + b"0\r\n\r\n" + smuggled).statuses == [400]
    assert send(stack, posted(padded(70_000)) + smuggled).statuses == [413]


# Slow clients


Loris = Callable[[socket.socket, int], None]


def silent(_connection: socket.socket, _turn: int) -> None:
    """Says nothing at all."""


def slow_head(connection: socket.socket, turn: int) -> None:
    data = GET + b"A: b\r\n" * 1000
    connection.send(data[turn : turn + 1])


def slow_body(connection: socket.socket, turn: int) -> None:
    connection.send(POST + b"Content-Length: 1000\r\n\r\n" if turn == 0 else b" ")


def slow_chunks(connection: socket.socket, turn: int) -> None:
    connection.send(CHUNKED if turn == 0 else b"1\r\n \r\n")


def told_to_go_on(connection: socket.socket, turn: int) -> None:
    if turn == 0:
        connection.send(POST + b"Expect: 100-continue\r\nContent-Length: 1000\r\n\r\n")


def slow_after_a_request(connection: socket.socket, turn: int) -> None:
    connection.send(GET + b"Host: x\r\n\r\n" if turn == 0 else GET[turn - 1 : turn])


LORIS_KINDS: tuple[Loris, ...] = (
    silent,
    slow_head,
    slow_body,
    slow_chunks,
    told_to_go_on,
    slow_after_a_request,
)


@contextmanager
def lorises(stack: Stack, count: int) -> Iterator[list[socket.socket]]:
    """``count`` connections of every kind that go on as slowly as they can."""
    stop = threading.Event()
    with ExitStack() as cleanup:
        crowd = [cleanup.enter_context(connected(stack)) for _ in range(count)]
        kinds = list(zip(crowd, itertools.cycle(LORIS_KINDS), strict=False))

        def dawdle() -> None:
            for turn in itertools.count():
                for connection, kind in kinds:
                    try:
                        kind(connection, turn)
                    except OSError:
                        continue  # closed by the server: what we want to see
                if stop.wait(0.1):
                    return

        thread = threading.Thread(target=dawdle)
        thread.start()
        try:
            yield crowd
        finally:
            stop.set()
            thread.join()


def closed_within(connections: list[socket.socket], seconds: float) -> int:
    """How many of ``connections`` the server closes within ``seconds``; reads what it says."""
    open_ones = {connection.fileno(): connection for connection in connections}
    deadline = time.monotonic() + seconds
    while open_ones and time.monotonic() < deadline:
        for connection in select.select([*open_ones.values()], [], [], 0.1)[0]:
            connection.setblocking(False)
            try:
                is_open = bool(connection.recv(65_536))
            except BlockingIOError:
                is_open = True
            except ConnectionError:
                is_open = False
            if not is_open:
                del open_ones[connection.fileno()]
    return len(connections) - len(open_ones)


def times_of(client: Client, account_id: int, requests: int) -> list[float]:
    took = []
    for number in range(requests):
        started = time.monotonic()
        client.order(account_id, total_shares=number + 1, share_price=1)
        assert client.get(f"/v1/accounts/{account_id}/orders?limit=5").status_code == 200
        took.append((time.monotonic() - started) / 2)
    return took


def test_slow_clients_keep_nobody_waiting_and_are_parted_from(stack: Stack, client: Client) -> None:
    account = client.open_account(10**9)
    with lorises(stack, LORISES) as crowd:
        time.sleep(0.3)  # all of them have begun
        took = times_of(client, account, 20)
        closed = closed_within(crowd, REQUEST_SECONDS_MAX + 6)
    assert max(took) < ORDINARY_SECONDS_MAX, took
    # Those that are done with a request and say no more are idle, which is no sin.
    assert closed == LORISES
    assert client.get("/healthz").status_code == 200


@pytest.mark.parametrize("path", [b"/nothing", b"/openapi.json"], ids=["short", "long"])
def test_clients_that_fetch_no_answers_keep_nobody_waiting(
    stack: Stack, client: Client, path: bytes
) -> None:
    account = client.open_account(10**9)
    flood = b"GET %s HTTP/1.1\r\nHost: x\r\n\r\n" % path * 2000
    with ExitStack() as cleanup:
        crowd = []
        for _ in range(4 * THREADS):
            connection = cleanup.enter_context(socket.socket())
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect(("127.0.0.1", stack.port))
            connection.setblocking(False)
            crowd.append(connection)
        ask_until_stuck(crowd, flood)
        took = times_of(client, account, 10)
        reset = wait_until(lambda: sum(map(is_reset, crowd)) == len(crowd), SEND_SECONDS_MAX + 8)
        assert reset, f"{sum(map(is_reset, crowd))} of {len(crowd)} were parted from"
    assert max(took) < ORDINARY_SECONDS_MAX, took


def ask_until_stuck(crowd: list[socket.socket], flood: bytes) -> None:
    """Ask and ask on every connection, until the server takes no more questions."""
    deadline = time.monotonic() + 20
    sent = dict.fromkeys(crowd, 0)
    while time.monotonic() < deadline:
        ready = select.select([], crowd, [], 1.0)[1]
        if not ready:
            return
        for connection in ready:
            sent[connection] += send_some(connection, flood[sent[connection] % len(flood) :])
    raise AssertionError("the server still takes questions")


def send_some(connection: socket.socket, data: bytes) -> int:
    try:
        return connection.send(data)
    except OSError:
        return 0


def is_reset(connection: socket.socket) -> bool:
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))


def test_more_connections_than_a_process_takes_wait_and_do_not_end_it(
    engines: Engines,
) -> None:
    env = {"REQUEST_SECONDS_MAX": str(REQUEST_SECONDS_MAX), "API_THREADS": str(THREADS)}
    with Stack(engines, api_processes=1, workers=0, env=env) as stack, ExitStack() as cleanup:
        client = Client(stack.url)
        (worker,) = api_workers(stack)
        for _ in range(700):
            cleanup.enter_context(connected(stack))
        # All places are taken by those who say nothing; their time is soon over.
        started = time.monotonic()
        assert client.get("/healthz", timeout=20).status_code == 200
        assert time.monotonic() - started < 2 * REQUEST_SECONDS_MAX + 4
        assert api_workers(stack) == [worker]


# Memory


def api_workers(stack: Stack) -> list[int]:
    return sorted(pid for pid in group_members(stack.api.pid) if pid != stack.api.pid)


def memory_of(stack: Stack, field: str = "VmRSS") -> int:
    """Bytes of the API's processes together: now (VmRSS), or at most until now (VmHWM)."""
    total = 0
    for pid in api_workers(stack):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        (value,) = (line.split()[1] for line in lines if line.startswith(f"{field}:"))
        total += int(value) * 1024
    return total


REFUSED = (0, *range(400, 500))
"""0: what was refused before it was all sent may be reset before its answer is read."""


def hostile_requests() -> list[bytes]:
    bodies = [
        b'{"cash": ' + b"9" * 65_000 + b"}",
        b'{"cash": "' + b"9" * 65_000 + b'"}',
        b"[" * 65_000,
        b'{"a":' * 13_000,
        b'{"cash": [' + b"0," * 32_000 + b"0]}",
        b'{"issuer_name": "a' + "\u0301\u0316".encode() * 16_000 + b'"}',
        b'{"' + b'a": 1, "' * 8_000 + b'b": 1}',
        b"\xff" * 65_000,
    ]
    requests = [posted(body) for body in bodies]
    requests += [data for data, status in BEYOND.values() if status in (413, 414, 431)]
    requests += [data for data, status in BROKEN.values() if status == 400]
    return requests


def test_thousands_of_hostile_requests_leave_no_memory_behind(stack: Stack) -> None:
    requests = hostile_requests()
    workers = api_workers(stack)
    for data in requests:
        fire(stack, data)
    before = memory_of(stack)
    sent = silent = 0
    deadline = time.monotonic() + 60
    while sent < 3000 and time.monotonic() < deadline:
        for data in requests:
            status = fire(stack, data)
            assert status in REFUSED, f"{status} for {data[:80]!r}"
            silent += status == 0
            sent += 1
    grown = memory_of(stack) - before
    assert sent >= 1000
    assert silent < sent / 10
    assert grown < 32 * MEBIBYTE, f"{grown / MEBIBYTE:.1f} MiB after {sent} requests"
    assert api_workers(stack) == workers


def fire(stack: Stack, data: bytes) -> int:
    """Send ``data`` and return the first status, 0 if the connection ended without one."""
    with connected(stack) as connection:
        connection.settimeout(10)
        # Refused before it was all sent, the answer may be there nevertheless.
        with suppress(ConnectionError):
            connection.sendall(data)
        try:
            raw = connection.recv(65_536)
        except ConnectionError:
            raw = b""
    return statuses_in(raw)[0] if raw else 0


def test_a_body_beyond_its_limit_is_not_kept(stack: Stack) -> None:
    fire(stack, posted(padded(BODY_BYTES_MAX)))
    before = memory_of(stack, "VmHWM")
    piece = b"x" * MEBIBYTE
    for head in (POST + b"Content-Length: 200000000\r\n\r\n", CHUNKED + b"bebc200\r\n"):
        with connected(stack) as connection:
            connection.settimeout(5)
            connection.sendall(head)
            for _ in range(200):
                if send_some(connection, piece) == 0:
                    break
    assert memory_of(stack, "VmHWM") - before < 8 * MEBIBYTE


# A full broker


def test_a_broker_without_room_delays_orders_and_refuses_none(own_engines: Engines) -> None:
    env = {"RECOVER_AFTER": "1", "SWEEP_EVERY": "0.5"}
    with Stack(own_engines, workers=1, env=env) as stack:
        client = Client(stack.url)
        account = client.open_account(1000)
        broker = redis.Redis(host="127.0.0.1", port=own_engines.redis_port)
        broker.config_set("maxmemory", 1)
        try:
            answer = client.post(f"/v1/accounts/{account}/orders", order_body())
            ready = client.get("/readyz")
            assert answer.status_code == 202
            assert (ready.status_code, ready.json()["status"]) == (200, "degraded")
            assert ready.json()["checks"]["broker"] == "unavailable"
        finally:
            broker.config_set("maxmemory", 0)
            broker.close()
        assert client.settled(json.loads(answer.text), 30)["status"] == "executed"
        assert until(lambda: client.get("/readyz").json()["status"], lambda s: s == "ok", 10)
