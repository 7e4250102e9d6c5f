"""The worker where real clients cannot bring it on demand; the rest is tested over real sockets."""

import errno
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import gevent.event
import pytest
from gevent import socket
from gunicorn.config import Config
from gunicorn.glogging import Logger
from gunicorn.http import get_parser

from api import green_worker
from api.green_worker import HELD_BYTES_FREE, HELD_BYTES_MAX, Connection, GreenWorker
from api.places import Places
from tests.unit.processor_time import processor_time

REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
CLIENT, SERVER = ("127.0.0.1", 1), ("127.0.0.1", 2)


def answer(_environ: Any, start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]


@pytest.fixture(name="places")
def _places(monkeypatch: pytest.MonkeyPatch) -> Places:
    """The places of a process of its own, one of them."""
    places = Places()
    places.limit(1)
    monkeypatch.setattr(green_worker, "places", places)
    return places


@pytest.fixture(name="worker")
def _worker(places: Places) -> Iterator[GreenWorker]:
    cfg = Config()
    worker = GreenWorker(0, 0, [], None, 30, cfg, Logger(cfg))
    worker.wsgi = answer
    yield worker
    worker.tmp.close()


@pytest.fixture(name="pair")
def _pair(worker: GreenWorker) -> Iterator[tuple[Connection, socket.socket]]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        theirs = socket.socket()
        theirs.connect(listener.getsockname())
        ours, _ = listener.accept()
    conn = Connection(ours, worker.has_room_for)
    worker._connections.add(conn)
    theirs.settimeout(5)
    yield conn, theirs
    ours.close()
    theirs.close()


def served(worker: GreenWorker, conn: Connection) -> "gevent.Greenlet[..., None]":
    """The green thread that serves ``conn``, begun."""
    thread = gevent.spawn(worker._serve, conn, CLIENT, SERVER)
    gevent.sleep(0.01)
    return thread


class FullListener:
    """A listening socket on a machine without file descriptors."""

    def __init__(self, number: int) -> None:
        self.number = number

    def accept(self) -> Any:
        raise OSError(self.number, "no room")


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.EAGAIN])
def test_a_machine_without_room_for_a_connection_does_not_end_the_worker(
    worker: GreenWorker, pair: tuple[Connection, socket.socket], number: int
) -> None:
    conn, theirs = pair
    serving = served(worker, conn)
    # One that is idle makes room, unless there was only nobody to accept.
    is_full = number != errno.EAGAIN
    assert worker.accept(FullListener(number)) is not is_full  # type: ignore[arg-type]
    gevent.sleep(0.01)
    theirs.close()
    serving.join(5)
    assert not worker._connections


def test_a_body_of_many_chunks_costs_no_more_than_its_length(
    worker: GreenWorker, pair: tuple[Connection, socket.socket]
) -> None:
    conn, _ = pair
    chunks = 40_000
    head = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    whole = head + b"1\r\nx\r\n" * chunks + b"0\r\n\r\n"
    conn.hand_out(whole + REQUEST)
    parser = get_parser(worker.cfg, conn, CLIENT)
    with processor_time() as taken:
        body = next(parser).body.read()
    # Read as one piece, which gunicorn copies at each chunk, it takes some seconds.
    assert taken.seconds < 1
    assert body == b"x" * chunks
    assert parser.unreader.take_buffered() + conn.take_rest() == REQUEST
    assert not conn.is_out_of_step


def test_the_longest_idle_connection_makes_room(
    worker: GreenWorker, pair: tuple[Connection, socket.socket]
) -> None:
    conn, theirs = pair
    serving = served(worker, conn)
    worker.close_idle()
    assert theirs.recv(1) == b""
    theirs.close()
    serving.join(5)
    assert not worker._connections
    assert not worker._idle
    worker.close_idle()  # nobody is idle any more


def test_a_request_that_came_before_its_connection_made_room_is_served(
    worker: GreenWorker, pair: tuple[Connection, socket.socket]
) -> None:
    conn, theirs = pair
    served(worker, conn)
    theirs.sendall(REQUEST)
    worker.close_idle()
    assert theirs.recv(10_000).startswith(b"HTTP/1.1 200 ")


def test_a_request_that_waited_too_long_for_a_place_is_refused(
    worker: GreenWorker,
    pair: tuple[Connection, socket.socket],
    places: Places,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    conn, theirs = pair
    assert places.take()
    monkeypatch.setattr(places, "take", lambda: False)
    served(worker, conn)
    theirs.sendall(REQUEST)
    refused = theirs.recv(10_000)
    assert refused.startswith(b"HTTP/1.1 503 ")
    assert b"Retry-After: 1\r\n" in refused


def test_a_place_is_given_back_after_each_request_whatever_became_of_it(
    worker: GreenWorker, pair: tuple[Connection, socket.socket], places: Places
) -> None:
    conn, theirs = pair
    served(worker, conn)
    theirs.sendall(REQUEST)
    assert theirs.recv(10_000).startswith(b"HTTP/1.1 200 ")
    theirs.sendall(b"GET / HTTP/3.9\r\n\r\n")
    assert theirs.recv(10_000).startswith(b"HTTP/1.1 400 ")
    assert places.take(0)


def test_whoever_waits_for_news_leaves_its_place_to_others(places: Places) -> None:
    assert places.take(0)
    assert not places.take(0)
    with places.left():
        assert places.take(0)
        places.give_back()
    assert not places.take(0)


def test_whoever_waits_for_its_client_to_fetch_leaves_its_place_to_others(
    worker: GreenWorker, pair: tuple[Connection, socket.socket], places: Places
) -> None:
    large = b"x" * 4_000_000

    def long_answer(_environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Length", str(len(large)))])
        return [large]

    worker.wsgi = long_answer
    conn, theirs = pair
    serving = served(worker, conn)
    theirs.sendall(REQUEST)
    until(lambda: conn.unsent > 0)
    assert places.take(0)
    places.give_back()
    got = b""
    while len(got) < len(large):
        got += theirs.recv(65_536)
    until(lambda: places.taken == 0)
    theirs.close()
    serving.join(5)
    assert got.endswith(large[:1000])
    assert places.take(0)
    assert not places.take(0)


def test_a_client_that_vanishes_while_it_fetches_costs_no_place(
    worker: GreenWorker, pair: tuple[Connection, socket.socket], places: Places
) -> None:
    worker.wsgi = lambda _environ, start: (start("200 OK", []), [b"x" * 4_000_000])[1]
    conn, theirs = pair
    serving = served(worker, conn)
    theirs.sendall(REQUEST)
    until(lambda: conn.unsent > 0)
    theirs.close()
    serving.join(5)
    assert places.taken == 0
    assert places.take(0)
    assert not places.take(0)


def until(is_so: Callable[[], bool]) -> None:
    """Let the others run until something is so."""
    for _ in range(500):
        if is_so():
            return
        gevent.sleep(0.01)
    raise AssertionError("it did not come about")


def test_without_a_server_that_counts_there_is_room_for_all() -> None:
    places = Places()
    assert all(places.take(0) for _ in range(100))
    with places.left():
        assert places.take(0)


def test_a_connection_may_hold_more_while_the_process_has_room(
    worker: GreenWorker, pair: tuple[Connection, socket.socket]
) -> None:
    conn, _ = pair
    other_ends = socket.socketpair()
    other = Connection(other_ends[0], worker.has_room_for)
    worker._connections.add(other)
    other.unsent = HELD_BYTES_MAX - HELD_BYTES_FREE - 1
    conn.unsent = HELD_BYTES_FREE + 1
    assert worker.has_room_for(conn)
    conn.unsent += 1
    assert not worker.has_room_for(conn)
    conn.unsent = HELD_BYTES_FREE
    assert worker.has_room_for(conn)
    for end in other_ends:
        end.close()


def test_an_answer_that_is_taken_slowly_arrives_whole(
    pair: tuple[Connection, socket.socket],
) -> None:
    conn, theirs = pair
    large = b"x" * 1_000_000
    sending = gevent.spawn(conn.sendall, large)
    got = b""
    while len(got) < len(large):
        got += theirs.recv(65_536)
        gevent.sleep(0)
    sending.join(5)
    assert got == large
    assert conn.held == 0


def test_an_answer_that_is_not_fetched_in_time_resets_its_connection(
    pair: tuple[Connection, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(green_worker, "SEND_SECONDS_MAX", 0.05)
    conn, _ = pair
    with pytest.raises(ConnectionAbortedError):
        conn.sendall(b"x" * 1_000_000)
    assert conn.sock.fileno() == -1


def test_an_answer_without_room_resets_its_connection(
    pair: tuple[Connection, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(green_worker, "HELD_BYTES_MAX", HELD_BYTES_FREE)
    conn, _ = pair
    with pytest.raises(ConnectionAbortedError, match="no room"):
        conn.sendall(b"x" * 1_000_000)
    assert conn.sock.fileno() == -1


def test_an_answer_that_the_kernel_takes_whole_needs_no_room(
    pair: tuple[Connection, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(green_worker, "HELD_BYTES_MAX", 0)
    conn, theirs = pair
    conn.sendall(b"x" * (HELD_BYTES_FREE + 1))
    assert theirs.recv(1) == b"x"
    assert conn.held == 0


NOBODY_GETS_ITS_PLACE_BACK = """
import api.gunicorn_conf
from gevent import joinall, monkey, sleep, spawn

monkey.patch_all()
from api.places import Places

places = Places()
places.limit(2)
assert places.take() and places.take()
places.take = lambda: False

def come_back_in_vain():
    with places.left():
        sleep(0.01)
    sleep(0.1)
    places.give_back()

joinall([spawn(come_back_in_vain) for _ in range(2)], raise_error=True)
print(places.taken)
"""


def test_requests_are_told_apart_though_threads_are_made_green_after_the_import() -> None:
    assert output_of(NOBODY_GETS_ITS_PLACE_BACK) == "0"


def output_of(program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_what_speaks_to_servers_is_imported_after_sockets_were_made_green() -> None:
    """A TLS context that was made of the old classes recurses without an end."""
    program = (
        "import sys, gunicorn.app.wsgiapp, api.gunicorn_conf; "
        "print([name for name in ('urllib3', 'redis', 'kombu') if name in sys.modules])"
    )
    assert output_of(program) == "[]"


def test_head_and_body_of_an_answer_are_sent_as_one(
    worker: GreenWorker,
    pair: tuple[Connection, socket.socket],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    conn, theirs = pair
    sent: list[bytes] = []

    def send(data: bytes) -> None:
        sent.append(data)
        conn.sock.sendall(data)

    monkeypatch.setattr(conn, "_send", send)
    served(worker, conn)
    theirs.sendall(REQUEST)
    assert theirs.recv(10_000).endswith(b"\r\n\r\nok")
    assert len(sent) == 1


def test_a_head_without_a_body_is_sent(
    worker: GreenWorker, pair: tuple[Connection, socket.socket]
) -> None:
    def empty(_environ: Any, start_response: Any) -> list[bytes]:
        start_response("304 Not Modified", [])
        return []

    worker.wsgi = empty
    conn, theirs = pair
    served(worker, conn)
    theirs.sendall(REQUEST)
    assert theirs.recv(10_000).startswith(b"HTTP/1.1 304 ")


def test_an_answer_that_comes_in_pieces_is_sent_in_pieces(
    worker: GreenWorker, pair: tuple[Connection, socket.socket]
) -> None:
    later = gevent.event.Event()

    def pieces(_environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield b"first"
        later.wait(5)
        yield b"second"

    worker.wsgi = pieces
    conn, theirs = pair
    served(worker, conn)
    theirs.sendall(REQUEST)
    assert b"first" in theirs.recv(10_000)
    later.set()
    assert b"second" in theirs.recv(10_000)
