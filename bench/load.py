"""The load generator, a process of its own: ``python -m bench.load`` with a job on standard input.

It says ``ready`` once it is connected, starts when it reads a second line, and answers with one
line of JSON. Requests are built before the start, answers are hardly looked at, so that the load
takes as little as can be from the machine that it shares with what it measures.

Closed loop: each connection sends its next request when the last one is answered. Open loop: each
request has its time, whatever became of the others, and its latency counts from that time. So a
server that stalls is seen to keep everyone waiting who should have been served meanwhile.
"""

import asyncio
import gc
import json
import selectors
import sys
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from bench.http1 import ResponseReader, build_request

HOST: Final = "127.0.0.1"
_GONE_STATUS: Final = 0
"""Counted as a request's status when its connection ended first."""


@dataclass(frozen=True, slots=True)
class Job:
    """What to send, and how.

    Args:
        port: of the server, on this machine.
        requests: (method, path, body) each.
        headers: of every request.
        connections: kept open.
        rate: requests a second in an open loop; 0 asks for a closed loop.
        seconds: a closed loop sends nothing new after this time.
        cycle: a closed loop begins anew after the last request.
        keep: keep the ``Location`` of each answer.
        watch: a Redis database as [port, number] whose written keys tell which orders are final.
        patience: seconds to wait for answers (and final orders) after the last request was due.
    """

    port: int
    requests: Sequence[Sequence[str]]
    headers: dict[str, str] = field(default_factory=dict)
    connections: int = 64
    rate: float = 0
    seconds: float = 3600
    cycle: bool = False
    keep: bool = False
    watch: Sequence[int] = ()
    patience: float = 30

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self))


@dataclass(slots=True)
class Outcome:
    """What came of a job; times are of the monotonic clock, which all processes share.

    ``latencies`` (seconds) are in the sequence of the answers, ``locations`` in that of the
    requests. ``finals`` are the seconds from a request's time until its order was seen to be
    final, ``unseen`` counts the orders that never were.
    """

    started_at: float
    ended_at: float = 0.0
    statuses: dict[str, int] = field(default_factory=dict)
    latencies: list[float] = field(default_factory=list)
    locations: list[str] = field(default_factory=list)
    finals: list[float] = field(default_factory=list)
    unseen: int = 0
    cpu_seconds: float = 0.0

    @property
    def answers(self) -> int:
        """How many requests were answered, whatever with."""
        return sum(self.statuses.values())

    @property
    def seconds(self) -> float:
        """From the first request to the last answer."""
        return self.ended_at - self.started_at


class _Connection(asyncio.Protocol):
    """One connection; it carries one request at a time."""

    def __init__(self, driver: "Driver") -> None:
        self.driver = driver
        self.transport: asyncio.Transport | None = None
        self.place = -1
        self.due = 0.0
        self._reader = ResponseReader()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - for the type checker
        self.transport = transport

    def send(self, place: int, due: float, request: bytes) -> None:
        self.place, self.due = place, due
        if self.transport is None or self.transport.is_closing():
            self.driver.lost(self)
            return
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        for response in self._reader.feed(data):
            location = response.header(b"location") if self.driver.job.keep else None
            self.driver.answered(self, response.status, location)

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self.transport = None
        self.driver.lost(self)


class Driver:
    """What both loops have in common: connections, and the record of what was answered."""

    def __init__(self, job: Job) -> None:
        """Build every request of ``job``."""
        self.job = job
        host = f"{HOST}:{job.port}"
        self.requests = [
            build_request(method, path, host, body.encode(), job.headers)
            for method, path, body in job.requests
        ]
        self.done = asyncio.Event()
        self.statuses: Counter[int] = Counter()
        self.latencies: list[float] = []
        self.answered_at: dict[int, float] = {}
        self.locations: dict[int, str] = {}
        self.dues: dict[int, float] = {}
        self.connections: list[_Connection] = []
        self.outcome = Outcome(started_at=0.0)

    async def connect(self) -> None:
        """Open all connections."""
        loop = asyncio.get_running_loop()
        for _ in range(self.job.connections):
            _, connection = await loop.create_connection(
                lambda: _Connection(self), HOST, self.job.port
            )
            self.connections.append(connection)

    async def run(self) -> None:
        """Send everything and wait for every answer, within bounds."""
        cpu_before = time.process_time()
        self.outcome.started_at = time.monotonic()
        self.begin()
        bound = self.longest_seconds() + self.job.patience
        try:
            async with asyncio.timeout(bound):
                await self.done.wait()
        except TimeoutError:
            self.statuses[_GONE_STATUS] += self.under_way()
        self.outcome.ended_at = time.monotonic()
        self.outcome.cpu_seconds = time.process_time() - cpu_before

    def begin(self) -> None:
        """Send the first requests."""
        raise NotImplementedError

    def go_on(self, connection: _Connection) -> None:
        """A connection is free."""
        raise NotImplementedError

    def longest_seconds(self) -> float:
        """How long sending may take."""
        raise NotImplementedError

    def under_way(self) -> int:
        """Requests without an answer."""
        return sum(connection.place >= 0 for connection in self.connections)

    def answered(self, connection: _Connection, status: int, location: bytes | None) -> None:
        """Note an answer and go on."""
        place = connection.place
        connection.place = -1
        self.statuses[status] += 1
        self.latencies.append(time.monotonic() - connection.due)
        if location is not None:
            self.locations[place] = location.decode()
            self.dues[place] = connection.due
        self.go_on(connection)

    def lost(self, connection: _Connection) -> None:
        """Note that a connection ended; it is not opened again, which a result shows."""
        if connection.place >= 0:
            connection.place = -1
            self.statuses[_GONE_STATUS] += 1
        self.go_on(connection)

    def close(self) -> None:
        """End all connections."""
        for connection in self.connections:
            if connection.transport is not None:
                connection.transport.abort()


class ClosedLoop(Driver):
    """As fast as the server answers."""

    def __init__(self, job: Job) -> None:
        """Begin with the first request of ``job``."""
        super().__init__(job)
        self._next = 0
        self._stop_at = 0.0

    def begin(self) -> None:
        """One request on each connection."""
        self._stop_at = time.monotonic() + self.job.seconds
        for connection in self.connections:
            self.go_on(connection)

    def go_on(self, connection: _Connection) -> None:
        """Send the next request, or notice that there is no more to wait for."""
        now = time.monotonic()
        if self.job.cycle and self._next >= len(self.requests):
            self._next = 0
        if self._next >= len(self.requests) or now >= self._stop_at or connection.transport is None:
            if not self.under_way():
                self.done.set()
            return
        place = self._next
        self._next += 1
        connection.send(place, now, self.requests[place])

    def longest_seconds(self) -> float:
        """The time after which nothing new is sent."""
        return self.job.seconds


class OpenLoop(Driver):
    """Each request at its time: the one at place n is due n/rate seconds after the start."""

    def __init__(self, job: Job) -> None:
        """Begin with the first request of ``job``."""
        super().__init__(job)
        self._next = 0
        self._waiting: deque[tuple[int, float]] = deque()
        self._idle: list[_Connection] = []

    def begin(self) -> None:
        """Start the clock."""
        self._idle = list(self.connections)
        self._due()

    def go_on(self, connection: _Connection) -> None:
        """Serve whoever waits longest, or notice that all is answered."""
        if connection.transport is not None:
            self._idle.append(connection)
        self._dispatch()
        all_sent = self._next >= len(self.requests) and not self._waiting
        if all_sent and not self.under_way():
            self.done.set()

    def longest_seconds(self) -> float:
        """When the last request is due."""
        return len(self.requests) / self.job.rate

    def under_way(self) -> int:
        """Requests without an answer, those that wait for a connection included."""
        return super().under_way() + len(self._waiting)

    def _due(self) -> None:
        """Queue whatever is due now, then sleep until the next."""
        now = time.monotonic()
        while self._next < len(self.requests) and (due := self._due_at(self._next)) <= now:
            self._waiting.append((self._next, due))
            self._next += 1
        self._dispatch()
        if self._next < len(self.requests):
            loop = asyncio.get_running_loop()
            loop.call_later(self._due_at(self._next) - time.monotonic(), self._due)

    def _due_at(self, place: int) -> float:
        return self.outcome.started_at + place / self.job.rate

    def _dispatch(self) -> None:
        while self._waiting and self._idle:
            place, due = self._waiting.popleft()
            self._idle.pop().send(place, due, self.requests[place])


class FinalWatch(asyncio.Protocol):
    """Notes when orders become final, told by Redis itself: the worker writes a final order there.

    It comes right after the commit, so it is never too early, and asks nothing of the product.
    """

    def __init__(self, database: int) -> None:
        """Watch keys of ``database`` whose last part is an order's id."""
        self._pattern = f"__keyspace@{database}__:*".encode()
        self._rest = b""
        self.seen_at: dict[str, float] = {}
        self.subscribed = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Subscribe."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - for the type checker
        length = len(self._pattern)
        transport.write(b"*2\r\n$10\r\nPSUBSCRIBE\r\n$%d\r\n%b\r\n" % (length, self._pattern))

    def data_received(self, data: bytes) -> None:
        """Note the time of every key named; the first time counts."""
        now = time.monotonic()
        *lines, self._rest = (self._rest + data).split(b"\r\n")
        for line in lines:
            if line.startswith(b"__keyspace@") and line != self._pattern:
                self.seen_at.setdefault(line.rpartition(b":")[2].decode(), now)
            elif line == b"psubscribe":
                self.subscribed.set()


async def run_job(job: Job) -> Outcome:
    """Carry out ``job`` at once."""
    driver, watch = await _prepare(job)
    return await _carry_out(driver, watch)


async def _prepare(job: Job) -> tuple[Driver, FinalWatch | None]:
    driver: Driver = OpenLoop(job) if job.rate else ClosedLoop(job)
    await driver.connect()
    if not job.watch:
        return driver, None
    port, database = job.watch
    watch = FinalWatch(database)
    loop = asyncio.get_running_loop()
    await loop.create_connection(lambda: watch, HOST, port)
    async with asyncio.timeout(job.patience):
        await watch.subscribed.wait()
    return driver, watch


async def _carry_out(driver: Driver, watch: FinalWatch | None) -> Outcome:
    await driver.run()
    outcome = driver.outcome
    outcome.statuses = {str(status): count for status, count in sorted(driver.statuses.items())}
    outcome.latencies = [round(seconds, 6) for seconds in driver.latencies]
    outcome.locations = [driver.locations[place] for place in sorted(driver.locations)]
    if watch is not None:
        await _await_finals(driver, watch)
    driver.close()
    return outcome


async def _await_finals(driver: Driver, watch: FinalWatch) -> None:
    orders = {
        location.rpartition("/")[2]: driver.dues[place]
        for place, location in driver.locations.items()
    }
    deadline = time.monotonic() + driver.job.patience
    while not orders.keys() <= watch.seen_at.keys() and time.monotonic() < deadline:
        await asyncio.sleep(0.02)
    outcome = driver.outcome
    seen = {order: watch.seen_at[order] for order in orders if order in watch.seen_at}
    outcome.finals = [round(at - orders[order], 6) for order, at in seen.items()]
    outcome.unseen = len(orders) - len(seen)


async def _main() -> None:
    job = Job(**json.loads(sys.stdin.readline()))
    driver, watch = await _prepare(job)
    print("ready", flush=True)
    # Nothing that is made from here on has to be looked through for garbage.
    gc.collect()
    gc.freeze()
    gc.disable()
    if not sys.stdin.readline():
        return  # whoever started it is gone
    outcome = await _carry_out(driver, watch)
    print(json.dumps(asdict(outcome)), flush=True)


def new_event_loop() -> asyncio.AbstractEventLoop:
    """A loop whose timers are good to microseconds: epoll's end at whole milliseconds."""
    return asyncio.SelectorEventLoop(selectors.SelectSelector())


def outcome_from(line: str) -> Outcome:
    """Read what the process answered."""
    fields: dict[str, Any] = json.loads(line)
    return Outcome(**fields)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(_main())
