"""Proxies between the processes and their engines that can be told to misbehave.

Both kinds run on one event loop in a thread of their own. What a fault does to a request is drawn
from a generator with a seed; which request meets it depends on the processes' timing.
"""

import asyncio
import json
import threading
from collections import Counter, deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from random import Random
from typing import Any, Final, TypeVar

T = TypeVar("T")

HOST: Final = "127.0.0.1"

THROTTLE, HANG, FAIL, LOSE = "throttle", "hang", "fail", "lose"
"""What the DynamoDB proxy can do to requests (``DynamoDbProxy.misbehave``)."""

_CALL_SECONDS = 10.0
_API = "com.amazonaws.dynamodb.v20120810#"
_SHARE_OF_REQUESTS = {THROTTLE: 0.7, HANG: 1.0, FAIL: 0.7, LOSE: 0.6}
_WRITES = frozenset({"TransactWriteItems", "UpdateItem", "PutItem"})
_BUSY_REASONS = ("ThrottlingError", "ProvisionedThroughputExceeded", "TransactionConflict")


class Loop:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="proxies", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine there and wait for it."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(_CALL_SECONDS)

    def close(self) -> None:
        """End the loop, once what was cut has been taken down."""
        self.run(asyncio.sleep(0.01))
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(_CALL_SECONDS)
        self.loop.close()


class TcpProxy:
    """Passes bytes on; can refuse connections, cut those that are there, and delay what passes."""

    def __init__(self, loop: Loop, port: int, target_port: int) -> None:
        self.port = port
        self.counts: Counter[str] = Counter()
        self.delay_seconds = 0.0
        self.pairs: set[_Pair] = set()
        self._target_port = target_port
        self._loop = loop
        self._server: asyncio.Server | None = None

    def listen(self) -> None:
        """Take connections (again)."""
        self._loop.run(self._listen())

    def cut(self) -> None:
        """Break every connection and refuse new ones until ``listen``."""
        self._loop.run(self._cut())

    def pair(self) -> "_Pair":
        return _Pair(self)

    async def _listen(self) -> None:
        if self._server is None:
            loop = asyncio.get_running_loop()
            self._server = await loop.create_server(self._accept, HOST, self.port, backlog=256)

    async def _cut(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        self.counts["connections cut"] += len(self.pairs)
        for pair in list(self.pairs):
            pair.abort()

    def _accept(self) -> asyncio.Protocol:
        return self.pair().client

    async def connect(self, pair: "_Pair") -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.create_connection(lambda: pair.server, HOST, self._target_port)
        except OSError:
            pair.abort()


class DynamoDbProxy(TcpProxy):
    """Reads requests too: can throttle, hang, answer 500, and lose the answer to what was done."""

    def __init__(self, loop: Loop, port: int, target_port: int, random: Random) -> None:
        super().__init__(loop, port, target_port)
        self.random = random
        self.fault: str | None = None

    def misbehave(self, fault: str | None) -> None:
        """Do ``fault`` to some of the requests from now on; None behaves."""
        self.fault = fault

    def pair(self) -> "_Pair":
        return _RequestPair(self)

    def draw(self, operation: str) -> str | None:
        """What shall become of a request."""
        fault = self.fault
        if fault is None or self.random.random() >= _SHARE_OF_REQUESTS[fault]:
            return None
        if fault == LOSE and operation not in _WRITES and self.random.random() < 0.7:
            return None
        self.counts[f"requests: {fault}"] += 1
        return fault


class _Pair:
    """A client's connection and the one to the engine behind it."""

    def __init__(self, proxy: TcpProxy) -> None:
        self.proxy = proxy
        self.client = _Side(self._from_client, self._client_is_here, self.abort)
        self.server = _Side(self._from_server, lambda: None, self.abort)
        self.is_over = False

    def abort(self) -> None:
        """End both connections at once."""
        if self.is_over:
            return
        self.is_over = True
        self.proxy.pairs.discard(self)
        self.client.abort()
        self.server.abort()

    def _client_is_here(self) -> None:
        self.proxy.pairs.add(self)
        task = asyncio.ensure_future(self.proxy.connect(self))
        task.add_done_callback(lambda done: self.abort() if self.is_over else done.result())

    def _from_client(self, data: bytes) -> None:
        self.server.send(data, self.proxy.delay_seconds)

    def _from_server(self, data: bytes) -> None:
        self.client.send(data, self.proxy.delay_seconds)


class _Side(asyncio.Protocol):
    """One connection: sends in sequence, later if need be, and as soon as it is made."""

    def __init__(
        self,
        received: Callable[[bytes], None],
        connected: Callable[[], None],
        lost: Callable[[], None],
    ) -> None:
        self._received, self._connected, self._lost = received, connected, lost
        self._transport: asyncio.Transport | None = None
        self._waiting: deque[tuple[float, bytes]] = deque()
        self._is_over = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        if self._is_over:
            transport.abort()
            return
        self._connected()
        self._flush()

    def data_received(self, data: bytes) -> None:
        self._received(data)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's
        self._lost()

    def send(self, data: bytes, delay_seconds: float) -> None:
        if self._transport is not None and not self._waiting and not delay_seconds:
            self._transport.write(data)
            return
        loop = asyncio.get_running_loop()
        at = loop.time() + delay_seconds
        # Never before what was sent earlier, also when the delay has just ended.
        if self._waiting:
            at = max(at, self._waiting[-1][0])
        self._waiting.append((at, data))
        loop.call_at(at, self._flush)

    def abort(self) -> None:
        self._is_over = True
        if self._transport is not None:
            self._transport.abort()

    def _flush(self) -> None:
        if self._transport is None or self._is_over:
            return
        now = asyncio.get_running_loop().time()
        while self._waiting and self._waiting[0][0] <= now + 0.001:
            self._transport.write(self._waiting.popleft()[1])


@dataclass(frozen=True, slots=True)
class _Request:
    operation: str
    body: bytes


class _RequestPair(_Pair):
    """Holds a client's bytes until a request is whole, then does what the proxy draws for it."""

    proxy: DynamoDbProxy

    def __init__(self, proxy: DynamoDbProxy) -> None:
        super().__init__(proxy)
        self._buffer = b""
        self._way_to_lose: str | None = None

    def _from_client(self, data: bytes) -> None:
        self._buffer += data
        while (size := _size_of(self._buffer)) is not None and not self.is_over:
            raw, self._buffer = self._buffer[:size], self._buffer[size:]
            self._take(raw)

    def _take(self, raw: bytes) -> None:
        request = _read_request(raw)
        match self.proxy.draw(request.operation):
            case "throttle":
                self._answer(_throttled(request, self.proxy.random))
            case "fail":
                self._answer(_failed(self.proxy.random))
            case "hang":
                return
            case "lose":
                self._way_to_lose = self.proxy.random.choice(("close", "fail", "silence"))
                self.server.send(raw, self.proxy.delay_seconds)
            case _:
                self.server.send(raw, self.proxy.delay_seconds)

    def _from_server(self, data: bytes) -> None:
        way = self._way_to_lose
        if way is None:
            super()._from_server(data)
        elif way == "close":
            self.abort()
        elif way == "fail":
            # The rest of the engine's answer may still come: this connection is spent.
            self._way_to_lose = "silence"
            self._answer(_failed(self.proxy.random))

    def _answer(self, answer: bytes) -> None:
        self.client.send(answer, self.proxy.delay_seconds)


def _size_of(buffer: bytes) -> int | None:
    """Bytes of the first request, or None while it is not whole."""
    end = buffer.find(b"\r\n\r\n")
    if end < 0:
        return None
    size = end + 4
    for line in buffer[:end].split(b"\r\n"):
        if line[:15].lower() == b"content-length:":
            size += int(line[15:])
    return size if len(buffer) >= size else None


def _read_request(raw: bytes) -> _Request:
    head, _, body = raw.partition(b"\r\n\r\n")
    for line in head.split(b"\r\n"):
        if line[:13].lower() == b"x-amz-target:":
            return _Request(line[13:].strip().partition(b".")[2].decode(), body)
    return _Request("", body)


def _throttled(request: _Request, random: Random) -> bytes:
    """What a table without room to spare says; part of a batch may be left for later instead."""
    if request.operation == "BatchGetItem" and random.random() < 0.5:
        wanted = json.loads(request.body)["RequestItems"]
        return _http(200, {"Responses": {name: [] for name in wanted}, "UnprocessedKeys": wanted})
    if request.operation == "TransactWriteItems" and random.random() < 0.7:
        return _http(400, _cancelled(len(json.loads(request.body)["TransactItems"]), random))
    return _error(400, "ProvisionedThroughputExceededException", "The table is too busy.")


def _cancelled(actions: int, random: Random) -> dict[str, Any]:
    reasons: list[dict[str, str]] = [{"Code": "None"} for _ in range(actions)]
    reasons[random.randrange(actions)] = {
        "Code": random.choice(_BUSY_REASONS),
        "Message": "Too busy.",
    }
    codes = ", ".join(reason["Code"] for reason in reasons)
    return {
        "__type": f"{_API}TransactionCanceledException",
        "Message": f"Transaction cancelled, please refer cancellation reasons [{codes}]",
        "CancellationReasons": reasons,
    }


def _failed(random: Random) -> bytes:
    if random.random() < 0.5:
        return _error(500, "InternalServerError", "Something went wrong.")
    return _error(503, "ServiceUnavailable", "Not now.")


def _error(status: int, code: str, message: str) -> bytes:
    return _http(status, {"__type": _API + code, "message": message})


def _http(status: int, told: dict[str, Any]) -> bytes:
    body = json.dumps(told).encode()
    head = (
        f"HTTP/1.1 {status} Told\r\nContent-Type: application/x-amz-json-1.0\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body
