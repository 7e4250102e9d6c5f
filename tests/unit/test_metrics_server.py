"""Where workers and sweeper show their metrics, no client can hold more than its share."""

import socket
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from local.processes import wait_until
from shared import metrics_server
from shared.metrics_server import SCRAPES_MAX

HOST = "127.0.0.1"
REQUEST = b"GET /metrics HTTP/1.1\r\nHost: x\r\n"


def show(_environ: Any, start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]


@pytest.fixture(name="port")
def _port() -> Iterator[int]:
    server = metrics_server.start(HOST, 0, show)
    yield server.server_port
    server.shutdown()
    server.server_close()


def connected(port: int) -> socket.socket:
    return socket.create_connection((HOST, port), 5)


def look(port: int) -> bytes:
    with urllib.request.urlopen(f"http://{HOST}:{port}/metrics", timeout=5) as answer:
        return bytes(answer.read())


def test_so_many_may_look_at_once_and_no_more(port: int) -> None:
    before = threading.active_count()
    with ExitStack() as cleanup:
        crowd = [cleanup.enter_context(connected(port)) for _ in range(SCRAPES_MAX)]
        for client in crowd:
            client.sendall(REQUEST)
        for _ in range(20):
            with connected(port) as beyond:
                assert beyond.recv(1) == b""
        # For each connection the thread that serves it, and the one that ends it in time.
        assert threading.active_count() <= before + 2 * SCRAPES_MAX
        for client in crowd:
            client.sendall(b"\r\n")
            assert client.recv(1000).startswith(b"HTTP/1.0 200 ")
    assert wait_until(lambda: can_look(port), 5)


def can_look(port: int) -> bool:
    try:
        return look(port) == b"ok"
    except OSError:
        return False


def test_a_client_that_takes_its_time_is_parted_from(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics_server, "SCRAPE_SECONDS_MAX", 0.3)
    with connected(port) as silent, connected(port) as slow:
        began = time.monotonic()
        try:
            while time.monotonic() < began + 5:
                slow.sendall(b"A")
                time.sleep(0.02)
        except OSError:
            pass
        assert time.monotonic() < began + 2
        assert silent.recv(1) == b""
        assert look(port) == b"ok"
