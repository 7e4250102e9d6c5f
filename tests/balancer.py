"""A small HTTP balancer for tests: round robin over some instances, kept-alive connections to each.

It sends no request twice. Two kinds of manners, by what it knows of its instances:

- ``CHECKS``: it asks each for ``/readyz`` and sends requests to the ready ones alone; whatever
  fails then is a failure.
- ``RETRIES``: it asks nobody; where a connection is refused it tries the next instance, for then
  nothing was sent.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from itertools import count
from typing import Self

from tests.stack import START_SECONDS

CHECK_EVERY_SECONDS = 0.2
CHECK_SECONDS_MAX = 1.0
ANSWER_SECONDS_MAX = 15.0

_HOST = "127.0.0.1"
_READY = b"GET /readyz HTTP/1.1\r\nHost: balancer\r\nConnection: close\r\n\r\n"
_UNAVAILABLE = b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n"

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Manners(Enum):
    """How a balancer finds out where not to send a request."""

    CHECKS = auto()
    RETRIES = auto()


@dataclass(frozen=True, slots=True)
class _Message:
    """A request or an answer: its head up to the empty line, and its body."""

    head: bytes
    body: bytes

    @property
    def status(self) -> int:
        return int(self.head.split(b" ", 2)[1])

    @property
    def closes(self) -> bool:
        return b"\r\nconnection: close\r\n" in self.head.lower()

    def kept_alive(self) -> bytes:
        """The message without what one side says about its own connection."""
        lines = self.head.split(b"\r\n")
        kept = [line for line in lines if not line.lower().startswith(b"connection:")]
        return b"\r\n".join(kept) + self.body


@dataclass(slots=True)
class _Backend:
    """One instance: whether it takes requests, and the open connections that nobody uses now."""

    port: int
    is_ready: bool
    idle: deque[Connection] = field(default_factory=deque)

    def take_idle(self) -> Connection | None:
        """The connection that lay idle for longest, if one is still open."""
        while self.idle:
            reader, writer = self.idle.popleft()
            if not reader.at_eof() and not writer.is_closing():
                return reader, writer
            writer.close()
        return None

    def close_idle(self) -> None:
        while self.idle:
            self.idle.popleft()[1].close()


class Balancer:
    """Serves on a port of its own, in a thread of its own, while it is entered."""

    def __init__(self, ports: Sequence[int], manners: Manners) -> None:
        self._manners = manners
        self._backends = [_Backend(port, manners is Manners.RETRIES) for port in ports]
        self._turns = count()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="balancer", daemon=True)
        self._up = threading.Event()
        self._end = asyncio.Event()
        self.port = 0
        self.failures: list[str] = []
        """What went wrong between the balancer and an instance, one line each."""
        self.served = dict.fromkeys(ports, 0)
        """How many answers came from each instance."""

    @property
    def url(self) -> str:
        return f"http://{_HOST}:{self.port}"

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._up.wait(START_SECONDS)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(START_SECONDS)
        assert not self._thread.is_alive()

    def is_ready(self, port: int) -> bool:
        """Whether the balancer sends requests to this instance now."""
        return next(backend.is_ready for backend in self._backends if backend.port == port)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._serve_client, _HOST, 0)
        self.port = server.sockets[0].getsockname()[1]
        checks = []
        if self._manners is Manners.CHECKS:
            checks = [asyncio.create_task(self._check(backend)) for backend in self._backends]
        self._up.set()
        await self._end.wait()
        server.close()
        for check in checks:
            check.cancel()
        for backend in self._backends:
            backend.close_idle()

    async def _check(self, backend: _Backend) -> None:
        while True:
            backend.is_ready = await _is_ready(backend.port)
            if not backend.is_ready:
                backend.close_idle()
            await asyncio.sleep(CHECK_EVERY_SECONDS)

    async def _serve_client(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            while not self._end.is_set():
                request = await _read(reader)
                writer.write(await self._forward(request))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client has left
        finally:
            writer.close()

    async def _forward(self, request: _Message) -> bytes:
        try:
            async with asyncio.timeout(ANSWER_SECONDS_MAX):
                return (await self._ask(request)).kept_alive()
        except (OSError, asyncio.IncompleteReadError, TimeoutError) as error:
            asked = request.head.split(b"\r\n", 1)[0].decode()
            self.failures.append(f"{asked}: {error!r}")
            return _UNAVAILABLE

    async def _ask(self, request: _Message) -> _Message:
        backend, (reader, writer) = await self._connection()
        try:
            writer.write(request.kept_alive())
            answer = await _read(reader)
        except BaseException:
            writer.close()
            raise
        self.served[backend.port] += 1
        if answer.closes or not backend.is_ready:
            writer.close()
        else:
            backend.idle.append((reader, writer))
        return answer

    async def _connection(self) -> tuple[_Backend, Connection]:
        """A connection to the next instance that takes requests."""
        ready = [backend for backend in self._backends if backend.is_ready]
        first = next(self._turns)
        refused = ConnectionRefusedError("no instance takes requests")
        for step in range(len(ready)):
            backend = ready[(first + step) % len(ready)]
            idle = backend.take_idle()
            if idle is not None:
                return backend, idle
            try:
                return backend, await asyncio.open_connection(_HOST, backend.port)
            except ConnectionRefusedError as error:
                if self._manners is Manners.CHECKS:
                    raise
                refused = error
        raise refused


async def _is_ready(port: int) -> bool:
    try:
        async with asyncio.timeout(CHECK_SECONDS_MAX):
            reader, writer = await asyncio.open_connection(_HOST, port)
            try:
                writer.write(_READY)
                return (await _read(reader)).status == 200
            finally:
                writer.close()
    except (OSError, asyncio.IncompleteReadError, TimeoutError):
        return False


async def _read(reader: asyncio.StreamReader) -> _Message:
    """Read one message; those of our API and of the tests all tell their length."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = 0
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    return _Message(head, await reader.readexactly(length))
