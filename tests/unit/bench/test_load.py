"""The load generator against small servers in the same process."""

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from bench.load import FinalWatch, Job, Outcome, new_event_loop, outcome_from, run_job
from tests.unit.bench.servers import Answer, http_server

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
GET = ("GET", "/", "")


def carry_out(answer: Answer, make_job: Callable[[int], Job]) -> Outcome:
    """Run a job against a server that answers each request as told."""

    async def run() -> Outcome:
        async with http_server(answer) as port:
            return await run_job(make_job(port))

    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(run())


async def at_once(request: bytes) -> bytes:
    del request
    return OK


class StallingServer:
    """Answers nobody for a while, once; then at once again."""

    def __init__(self, begins: float, seconds: float) -> None:
        self._begins, self._seconds = begins, seconds
        self._first: float | None = None

    async def answer(self, request: bytes) -> bytes:
        del request
        now = time.monotonic()
        self._first = self._first or now
        ends = self._first + self._begins + self._seconds
        if self._first + self._begins <= now < ends:
            await asyncio.sleep(ends - now)
        return OK


def test_a_stall_is_charged_to_everyone_who_was_due_meanwhile() -> None:
    stalling = StallingServer(begins=0.1, seconds=0.4)
    rate = 200

    outcome = carry_out(
        stalling.answer, lambda port: Job(port, [GET] * 120, connections=2, rate=rate)
    )

    # Two connections stall at once: a generator that waits for answers would charge two requests.
    late = [seconds for seconds in outcome.latencies if seconds > 0.1]
    assert outcome.statuses == {"200": 120}
    assert len(late) >= 0.25 * rate
    assert max(outcome.latencies) >= 0.35


def test_a_closed_loop_charges_a_stall_to_those_under_way_alone() -> None:
    stalling = StallingServer(begins=0.0, seconds=0.3)

    outcome = carry_out(stalling.answer, lambda port: Job(port, [GET] * 120, connections=2))

    assert sum(seconds > 0.1 for seconds in outcome.latencies) == 2


def test_an_open_loop_keeps_its_rate_whatever_the_server_does() -> None:
    async def slow(request: bytes) -> bytes:
        del request
        await asyncio.sleep(0.1)
        return OK

    outcome = carry_out(slow, lambda port: Job(port, [GET] * 50, connections=50, rate=100))

    assert 0.5 <= outcome.seconds < 1.0
    assert outcome.statuses == {"200": 50}
    assert min(outcome.latencies) >= 0.1


def test_a_closed_loop_sends_each_request_once_and_waits_for_all() -> None:
    seen: list[bytes] = []

    async def note(request: bytes) -> bytes:
        seen.append(request.split()[1])
        await asyncio.sleep(0.01)
        return OK

    requests = [("GET", f"/{number}", "") for number in range(20)]
    outcome = carry_out(note, lambda port: Job(port, requests, connections=3))

    assert sorted(seen) == sorted(path.encode() for _, path, _ in requests)
    assert outcome.statuses == {"200": 20}


def test_a_cycling_loop_goes_on_until_its_time_is_over() -> None:
    outcome = carry_out(
        at_once, lambda port: Job(port, [GET], connections=1, seconds=0.3, cycle=True)
    )

    assert outcome.answers > 1
    assert 0.3 <= outcome.seconds < 1.0


def test_locations_are_kept_in_the_sequence_of_the_requests() -> None:
    async def locate(request: bytes) -> bytes:
        number = int(request.split()[1][1:])
        await asyncio.sleep(0.05 if number == 0 else 0)
        return b"HTTP/1.1 202 A\r\nLocation: /x/%d\r\nContent-Length: 0\r\n\r\n" % number

    requests = [("GET", f"/{number}", "") for number in range(6)]
    outcome = carry_out(locate, lambda port: Job(port, requests, connections=3, keep=True))

    assert outcome.locations == [f"/x/{number}" for number in range(6)]


def test_what_is_never_answered_is_counted_and_not_waited_for_forever() -> None:
    async def never(request: bytes) -> bytes:
        del request
        await asyncio.sleep(30)
        return OK

    outcome = carry_out(
        never, lambda port: Job(port, [GET] * 3, connections=2, seconds=0.1, patience=0.2)
    )

    assert outcome.statuses == {"0": 2}
    assert outcome.seconds < 5


def test_a_connection_that_ends_counts_as_a_lost_request() -> None:
    async def hang_up(request: bytes) -> bytes:
        raise ConnectionResetError(request)

    outcome = carry_out(hang_up, lambda port: Job(port, [GET], connections=1))

    assert outcome.statuses == {"0": 1}


def test_an_outcome_can_be_sent_as_json() -> None:
    sent: dict[str, Any] = {"started_at": 1.0, "statuses": {"200": 2}, "finals": [0.5]}

    read = outcome_from(json.dumps(sent))

    assert (read.answers, read.finals) == (2, [0.5])


@pytest.mark.parametrize("size", [1, 5, 1000])
def test_the_watch_notes_each_order_once_however_the_bytes_arrive(size: int) -> None:
    watch = FinalWatch(1)
    pattern, key = b"__keyspace@1__:*", b"__keyspace@1__:order:1:7:01a20d16"
    message = b"*4\r\n$8\r\npmessage\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n$3\r\nset\r\n" % (
        len(pattern),
        pattern,
        len(key),
        key,
    )
    data = b"*3\r\n$10\r\npsubscribe\r\n$16\r\n" + pattern + b"\r\n:1\r\n" + message * 2

    for at in range(0, len(data), size):
        watch.data_received(data[at : at + size])

    assert list(watch.seen_at) == ["01a20d16"]
    assert watch.subscribed.is_set()
