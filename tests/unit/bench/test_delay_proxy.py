"""The slow network of the benchmark."""

import asyncio
import time

import pytest

from bench.delay_proxy import DelayProxy, requests_passed
from bench.http1 import build_request
from bench.load import Job, run_job
from local.ports import free_port
from tests.unit.bench.servers import http_server, nothing_left


async def at_once(request: bytes) -> bytes:
    del request
    return b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


@pytest.mark.parametrize("milliseconds", [0, 50])
def test_each_request_takes_the_delay_longer_and_is_counted(milliseconds: int) -> None:
    proxy_port = free_port()

    async def run() -> tuple[list[float], float, int]:
        async with http_server(at_once) as server_port:
            proxy = DelayProxy(server_port, milliseconds / 1000)
            async with await proxy.listen(proxy_port):
                job = Job(proxy_port, [("POST", "/", "")] * 40, connections=20)
                started = time.monotonic()
                outcome = await run_job(job)
                seconds = time.monotonic() - started
                counted = await asyncio.to_thread(requests_passed, proxy_port)
            return outcome.latencies, seconds, counted

    latencies, seconds, counted = asyncio.run(run())

    assert counted == len(latencies) == 40
    assert min(latencies) >= milliseconds / 1000
    # Many may be under way at once: two after the other on each connection, not forty.
    assert seconds < 2 * milliseconds / 1000 + 1


@pytest.mark.parametrize("seconds", [0, 0.01])
def test_what_is_sent_before_the_server_is_reached_arrives_in_sequence(seconds: float) -> None:
    server_port, proxy_port = free_port(), free_port()
    received: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received.append(await reader.readexactly(30_000))
        writer.close()

    async def run() -> None:
        async with (
            await asyncio.start_server(serve, "127.0.0.1", server_port),
            await DelayProxy(server_port, seconds).listen(proxy_port),
        ):
            reader, writer = await asyncio.open_connection("127.0.0.1", proxy_port)
            for number in range(3_000):
                writer.write(b"%10d" % number)
                if number % 10 == 0:
                    await asyncio.sleep(0)
            await asyncio.wait_for(reader.read(), 10)
            writer.close()
        await nothing_left()

    asyncio.run(run())

    assert received == [b"".join(b"%10d" % number for number in range(3_000))]


def test_a_request_is_built_to_begin_with_its_method() -> None:
    # What the proxy counts by.
    assert build_request("POST", "/", "x").startswith(b"POST ")
