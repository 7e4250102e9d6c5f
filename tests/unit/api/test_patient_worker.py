"""The worker where real clients cannot bring it on demand; the rest is tested over real sockets."""

import errno
import selectors
import socket
import time
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import pytest
from gunicorn.config import Config
from gunicorn.glogging import Logger

from api import patient_worker
from api.patient_worker import (
    HELD_BYTES_FREE,
    HELD_BYTES_MAX,
    QUEUE_SECONDS_MAX,
    ClientSocket,
    Connection,
    PatientWorker,
)

REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


def answer(_environ: Any, start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]


@pytest.fixture(name="worker")
def _worker() -> Iterator[PatientWorker]:
    """A worker whose loop and threads a test turns by hand."""
    cfg = Config()
    worker = PatientWorker(0, 0, [], None, 30, cfg, Logger(cfg))
    worker.poller = selectors.DefaultSelector()
    worker.wsgi = answer
    yield worker
    worker.poller.close()
    worker.tmp.close()


@pytest.fixture(name="pair")
def _pair(worker: PatientWorker) -> Iterator[tuple[Connection, socket.socket]]:
    ours, theirs = socket.socketpair()
    conn = Connection(worker, ClientSocket(ours), ("127.0.0.1", 1), ("127.0.0.1", 2))
    theirs.settimeout(5)
    worker.nr_conns = 1
    yield conn, theirs
    conn.sock.close()
    theirs.close()


def done(value: object) -> "Future[object]":
    future: Future[object] = Future()
    future.set_result(value)
    return future


class FullListener:
    """A listening socket on a machine without file descriptors."""

    def __init__(self, number: int) -> None:
        self.number = number

    def accept(self) -> Any:
        raise OSError(self.number, "no room")


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.EAGAIN])
def test_a_machine_without_room_for_a_connection_does_not_end_the_worker(
    worker: PatientWorker, pair: tuple[Connection, socket.socket], number: int
) -> None:
    conn, _ = pair
    worker._watch(conn, worker.keepalived_conns, worker.on_client_socket_readable)
    worker.accept(FullListener(number))
    # One that is idle makes room, unless there was only nobody to accept.
    is_closed = number != errno.EAGAIN
    assert worker.nr_conns == (0 if is_closed else 1)
    assert is_closed == (conn not in worker.keepalived_conns)


def test_a_connection_that_spoke_and_was_closed_to_make_room_does_not_end_the_worker(
    worker: PatientWorker, pair: tuple[Connection, socket.socket]
) -> None:
    conn, theirs = pair
    worker._watch(conn, worker.keepalived_conns, worker.on_client_socket_readable)
    theirs.sendall(REQUEST)
    assert worker.accept(FullListener(errno.EMFILE)) is False
    worker.on_client_socket_readable(conn, conn.sock)
    assert conn not in worker.pending_conns
    assert worker.nr_conns == 0


def test_a_request_whose_client_left_before_it_was_refused_is_no_error(
    worker: PatientWorker, pair: tuple[Connection, socket.socket]
) -> None:
    conn, theirs = pair
    conn.arriving.add(REQUEST)
    conn.whole_at = time.monotonic() - QUEUE_SECONDS_MAX - 0.1
    theirs.close()
    conn.sock.reset()
    assert worker.handle(conn) is False


def test_a_request_that_waited_too_long_for_a_thread_is_refused(
    worker: PatientWorker, pair: tuple[Connection, socket.socket]
) -> None:
    conn, theirs = pair
    conn.arriving.add(REQUEST)
    conn.whole_at = time.monotonic() - QUEUE_SECONDS_MAX - 0.1
    assert worker.handle(conn) is False
    refused = theirs.recv(10_000)
    assert refused.startswith(b"HTTP/1.1 503 ")
    assert b"Retry-After: 1\r\n" in refused


def test_a_request_that_waited_for_a_thread_in_time_is_served(
    worker: PatientWorker, pair: tuple[Connection, socket.socket]
) -> None:
    conn, theirs = pair
    conn.arriving.add(REQUEST)
    conn.whole_at = time.monotonic() - QUEUE_SECONDS_MAX + 2
    assert worker.handle(conn) is True
    assert theirs.recv(10_000).startswith(b"HTTP/1.1 200 ")


def test_a_connection_may_hold_more_while_the_process_has_room(
    worker: PatientWorker, pair: tuple[Connection, socket.socket]
) -> None:
    conn, _ = pair
    other_ends = socket.socketpair()
    other = Connection(worker, ClientSocket(other_ends[0]), None, None)
    worker._watch(other, worker._sending, worker._on_writable, selectors.EVENT_WRITE)
    other.sock.unsent += b"x" * (HELD_BYTES_MAX - HELD_BYTES_FREE - 1)
    conn.sock.unsent += b"x" * (HELD_BYTES_FREE + 1)
    assert worker._has_room_for(conn)
    conn.sock.unsent += b"x"
    assert not worker._has_room_for(conn)
    del conn.sock.unsent[HELD_BYTES_FREE:]
    assert worker._has_room_for(conn)
    worker._stop_watching(other, worker._sending)
    other.sock.close()
    other_ends[1].close()


def test_an_answer_that_is_not_taken_keeps_no_thread_and_arrives_whole(
    worker: PatientWorker, pair: tuple[Connection, socket.socket]
) -> None:
    conn, theirs = pair
    large = b"x" * 1_000_000
    conn.sock.sendall(large)
    assert conn.sock.unsent
    worker.finish_request(conn, done(False))
    got = b""
    deadline = time.monotonic() + 10
    while len(got) < len(large) and time.monotonic() < deadline:
        got += theirs.recv(65_536)
        worker.wait_for_and_dispatch_events(timeout=0)
    assert got == large


def test_an_answer_without_room_resets_its_connection(
    worker: PatientWorker,
    pair: tuple[Connection, socket.socket],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(patient_worker, "HELD_BYTES_MAX", HELD_BYTES_FREE)
    conn, _ = pair
    conn.sock.unsent += b"x" * (HELD_BYTES_FREE + 1)
    worker.finish_request(conn, done(True))
    assert worker.nr_conns == 0
    assert conn.sock.fileno() == -1


def test_when_all_places_are_taken_the_longest_idle_connection_makes_room(
    worker: PatientWorker, pair: tuple[Connection, socket.socket]
) -> None:
    conn, _ = pair
    conn.timeout = time.monotonic() + 30
    worker._watch(conn, worker.keepalived_conns, worker.on_client_socket_readable)
    worker.nr_conns = worker.worker_connections - 1
    worker.murder_keepalived()
    assert conn in worker.keepalived_conns
    worker.nr_conns = worker.worker_connections
    worker.murder_keepalived()
    assert conn not in worker.keepalived_conns
    assert worker.nr_conns == worker.worker_connections - 1
