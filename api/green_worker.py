"""gunicorn's worker on green threads, less what a slow or hostile client can do to it.

Each connection has a green thread, which costs little while it waits: for bytes, for the store, for
news. It takes a request in until it is whole, waits for one of the process' places, serves, and
sends. Everything that a client can delay has an end.
The reasons stand in docs/decisions/0014-waiting-costs-no-thread.md.
"""

import contextlib
import errno
import io
import socket as plain_socket
import struct
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Final, cast

import gevent
from gevent import socket
from gevent.event import Event
from gevent.lock import BoundedSemaphore
from gunicorn import http, util
from gunicorn.http import errors
from gunicorn.workers.ggevent import GeventWorker

from api.arriving import Arrival, Arriving
from api.body_limits import BodyLimits
from api.places import Semaphore, places
from api.problems import PROBLEM_TYPE, Problem, document
from shared import metrics
from shared.representation import to_json
from shared.settings import Settings

SEND_SECONDS_MAX: Final = 10.0
"""How long a client may take to fetch what is sent at once."""

LINGER_SECONDS: Final = 2.0
LINGER_BYTES_MAX: Final = 1024 * 1024
"""What is still read after the last answer, so that a reset does not overtake it."""

RECEIVE_BYTES: Final = 64 * 1024

KERNEL_BYTES: Final = 128 * 1024
"""Asked of the kernel for each direction of a connection, which else gives megabytes."""

HELD_BYTES_FREE: Final = 64 * 1024
"""Bytes that each connection may hold in any case."""

HELD_BYTES_MAX: Final = 64 * 1024 * 1024
"""Bytes that the connections of a process may hold together, to hold more than that each."""

ACCEPT_PAUSE_SECONDS: Final = 0.1
"""Rest after the machine had no more room for a connection."""

_ROOM_SECONDS: Final = 0.05
_BEAT_SECONDS: Final = 1.0
_AT_ONCE: Final = struct.pack("ii", 1, 0)
_ANSWER: Final = b"HTTP/1."
_HEAD_END: Final = b"\r\n\r\n"
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_NO_ROOM: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_TOO_LARGE: Final = Problem(413, "REQUEST_ENTITY_TOO_LARGE", "The body is over its limit.")
_LONG_HEAD: Final = Problem(
    431, "REQUEST_HEADER_FIELDS_TOO_LARGE", "The request's head is over its limit."
)
_TOO_SLOW: Final = Problem(408, "REQUEST_TIMEOUT", "The request did not arrive in time.")
_CUT_OFF: Final = Problem(400, "MALFORMED_REQUEST", "The request ended before its end.")
_OVERLOADED: Final = Problem(
    503, "OVERLOADED", "Too many requests wait; try again shortly.", retry_after_seconds=1
)
_REFUSALS: Final = {Arrival.BODY_TOO_LARGE: _TOO_LARGE, Arrival.HEAD_TOO_LARGE: _LONG_HEAD}


class Parted(Exception):
    """The connection is over; ``last_words`` says why, if the client is to hear of it."""

    def __init__(self, last_words: Problem | None = None) -> None:
        super().__init__()
        self.last_words = last_words


class Connection:
    """A client's connection: gunicorn's socket, which gives it whole requests and sends in time."""

    def __init__(self, sock: socket.socket, room_for: Callable[["Connection"], bool]) -> None:
        """Serve on ``sock``; ``room_for`` tells if the process can hold what this one does."""
        self.sock = sock
        self.arriving: Arriving | None = None
        self.unsent = 0
        self.is_silent = True
        """Nothing of a request has arrived yet."""
        self.is_out_of_step = False
        self.request: Any = None
        """gunicorn's, while it is answered."""
        self._head = b""
        self._whole, self._read_to = b"", 0
        self._room_for = room_for
        for option in (plain_socket.SO_SNDBUF, plain_socket.SO_RCVBUF):
            sock.setsockopt(plain_socket.SOL_SOCKET, option, KERNEL_BYTES)

    @property
    def held(self) -> int:
        """Bytes that wait here, of the request or of the answer."""
        return self.unsent + (len(self.arriving.received) if self.arriving else 0)

    def hand_out(self, whole: bytes) -> None:
        """Let the parser read ``whole``, a request and perhaps what follows it."""
        self._whole, self._read_to = whole, 0

    def recv(self, bufsize: int, flags: int = 0) -> bytes:
        """The next piece of a request; nothing where it is over: who wants more disagrees.

        In pieces, for at each chunk of a chunked body gunicorn copies all that it holds.
        """
        del flags
        piece = self._whole[self._read_to : self._read_to + bufsize]
        self._read_to += len(piece)
        self.is_out_of_step = not piece
        return piece

    def take_rest(self) -> bytes:
        """What the parser did not ask for: the beginning of the next request."""
        rest = self._whole[self._read_to :]
        self.hand_out(b"")
        return rest

    def receive(self, seconds: float) -> bytes:
        """What arrives next, empty at the end (raises ``TimeoutError``)."""
        self.sock.settimeout(max(seconds, 0.001))
        try:
            return bytes(self.sock.recv(RECEIVE_BYTES))
        except ConnectionError:
            return b""
        except OSError as error:
            if error.errno != errno.EBADF or self.sock.fileno() == -1:
                raise
            # Woken: what came until then is still there.
            return bytes(self.sock.recv(RECEIVE_BYTES))

    def sendall(self, data: Any, flags: int = 0) -> None:
        """Send ``data`` in time (raises ``OSError`` if the client is gone, or takes too long).

        gunicorn sends an answer's head apart from its body: the head waits for what comes next, and
        both go out as one.
        """
        del flags
        if not self._head and data.startswith(_ANSWER) and data.endswith(_HEAD_END):
            self._head = data
            return
        data, self._head = self._head + data, b""
        self._send(data)

    def flush(self) -> None:
        """Send a head that no body came after; raises as ``sendall``."""
        if self._head:
            self.sendall(b"")

    def _send(self, data: bytes) -> None:
        """Send at once what the kernel takes; what the client has to fetch first holds no place."""
        sent = self._send_some(data)
        if sent == len(data):
            return
        self.unsent = len(data)
        try:
            if not self._room_for(self):
                self.reset()
                raise ConnectionAbortedError("no room for the answer")
            with places.left_if_held():
                self._send_in_time(memoryview(data)[sent:])
        finally:
            self.unsent = 0

    def _send_some(self, data: bytes) -> int:
        self.sock.settimeout(0.0)
        try:
            return int(self.sock.send(data))
        except BlockingIOError:
            return 0

    def _send_in_time(self, data: memoryview) -> None:
        self.sock.settimeout(SEND_SECONDS_MAX)
        try:
            self.sock.sendall(data)
        except TimeoutError as error:
            self.reset()
            raise ConnectionAbortedError("the answer was not fetched in time") from error

    def send(self, data: Any, flags: int = 0) -> int:
        """Send all of ``data``, as ``sendall``."""
        self.sendall(data, flags)
        return len(data)

    def wake(self) -> None:
        """Let a wait for bytes end as if the client had said its last."""
        with contextlib.suppress(OSError):
            self.sock.shutdown(plain_socket.SHUT_RD)

    def reset(self) -> None:
        """Close without waiting for what the kernel still holds of the answer."""
        with contextlib.suppress(OSError):
            self.sock.setsockopt(plain_socket.SOL_SOCKET, plain_socket.SO_LINGER, _AT_ONCE)
        util.close(self.sock)


class GreenWorker(GeventWorker):  # type: ignore[misc]
    """A worker that serves each connection in a green thread."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Make a worker as gunicorn does."""
        super().__init__(*args, **kwargs)
        settings = Settings()
        self.body_limits = BodyLimits(settings.body_bytes_max, settings.bulk_body_bytes_max)
        self._request_seconds_max = settings.request_seconds_max
        self._places = settings.api_threads
        self._connections: set[Connection] = set()
        self._idle: dict[Connection, None] = {}
        """Between two requests, the longest first."""
        self._is_ending = Event()

    # From the first connection to the last

    def run(self) -> None:
        """Serve until told to end, then end what runs."""
        places.limit(self._places, _semaphore)
        accepting = [gevent.spawn(self._accept_all, listener) for listener in self.sockets]
        while self.alive:
            self.notify()
            self._is_ending.wait(_BEAT_SECONDS)
        gevent.killall(accepting)
        self.close_door()
        deadline = time.monotonic() + self.cfg.graceful_timeout
        while self._connections and time.monotonic() < deadline:
            self.notify()
            gevent.sleep(_ROOM_SECONDS)

    def end(self) -> None:
        """Have ``run`` end."""
        self.alive = False
        self._is_ending.set()

    def close_door(self) -> None:
        """Take no more connections."""
        for listener in self.sockets:
            listener.close()

    def accept(self, listener: socket.socket) -> bool:
        """Take a connection in, if there is one; tells whether the machine has room for more."""
        try:
            accepted, client = listener.accept()
        except OSError as error:
            if error.errno not in _NO_ROOM:
                return True
            # Raised, it would end the worker; unheeded, the loop would spin.
            self.log.warning("no room for another connection: %s", error)
            self.close_idle()
            return False
        conn = Connection(accepted, self.has_room_for)
        self._connections.add(conn)
        gevent.spawn(self._serve, conn, client, listener.getsockname())
        return True

    def close_idle(self) -> None:
        """Part from the connection that was idle for the longest."""
        if self._idle:
            conn = next(iter(self._idle))
            del self._idle[conn]
            conn.wake()

    def close_silent(self) -> None:
        """Part from all on which no request has begun."""
        for conn in self._connections:
            if conn.is_silent:
                conn.wake()

    def close_after_answers(self) -> None:
        """Let what is being answered be the last on its connection, and the answer say so."""
        for conn in self._connections:
            if conn.request is not None:
                conn.request.force_close()

    def has_room_for(self, conn: Connection) -> bool:
        """Tell whether the process can hold what ``conn`` holds."""
        if conn.held <= HELD_BYTES_FREE:
            return True
        return sum(one.held for one in self._connections | {conn}) <= HELD_BYTES_MAX

    def _accept_all(self, listener: socket.socket) -> None:
        while self.alive:
            if len(self._connections) >= self.worker_connections:
                self.close_idle()
                gevent.sleep(_ROOM_SECONDS)
            elif not self.accept(listener):
                gevent.sleep(ACCEPT_PAUSE_SECONDS)

    # One connection

    def _serve(self, conn: Connection, client: Any, server: Any) -> None:
        """Serve what is asked on ``conn``, until one side is done."""
        try:
            self._serve_all(conn, client, server)
        except Parted as parting:
            if parting.last_words is not None:
                self._refuse(conn, parting.last_words)
            self._linger(conn)
        except OSError as error:
            self.log.debug("client is gone: %s", error)
        except Exception:
            self.log.exception("Error after a request")
        finally:
            self._connections.discard(conn)
            util.close(conn.sock)

    def _serve_all(self, conn: Connection, client: Any, server: Any) -> None:
        parser = http.get_parser(self.cfg, conn, client)
        begun, seconds = b"", self._request_seconds_max
        while True:
            whole = self._take_in(conn, begun, seconds)
            if not places.take():
                raise Parted(_OVERLOADED)
            try:
                conn.hand_out(whole)
                self._serve_one(conn, parser, client, server)
            finally:
                places.give_back()
            begun = parser.unreader.take_buffered() + conn.take_rest()
            seconds = self.cfg.keepalive
            if begun:
                gevent.sleep(0)  # whoever asks and asks without waiting lets others in between

    def _take_in(self, conn: Connection, begun: bytes, silent_seconds: float) -> bytes:
        """Take a request in until it is whole (raises ``Parted``)."""
        arriving = conn.arriving = Arriving(self.body_limits)
        conn.is_silent = not begun
        data = begun or self._first_bytes(conn, silent_seconds)
        conn.is_silent = False
        deadline = time.monotonic() + self._request_seconds_max
        while (state := arriving.add(data)) is not Arrival.WHOLE:
            if state in _REFUSALS:
                raise Parted(_REFUSALS[state])
            if not self.has_room_for(conn):
                raise Parted(_OVERLOADED)
            if state is Arrival.EXPECTS:
                self._say(conn, _CONTINUE)
            try:
                data = conn.receive(deadline - time.monotonic())
            except TimeoutError:
                raise Parted(_TOO_SLOW) from None
            if not data:
                raise Parted(_CUT_OFF)
        conn.arriving = None
        return bytes(arriving.received)

    def _first_bytes(self, conn: Connection, seconds: float) -> bytes:
        self._idle[conn] = None
        try:
            data = conn.receive(seconds)
        except TimeoutError:
            data = b""
        finally:
            self._idle.pop(conn, None)
        if not data:
            raise Parted
        return data

    def _serve_one(self, conn: Connection, parser: Any, client: Any, server: Any) -> None:
        req = None
        try:
            req = next(parser)
            req._expected_100_continue = False  # said already
            # Before the application sees it, so that a damaged body is no error of the app's.
            req.body = io.BytesIO(req.body.read())
            if not conn.is_out_of_step:
                conn.request = req
                self._answer(server, req, conn, client)
        except (StopIteration, errors.NoMoreData):
            raise Parted from None
        except OSError:
            raise
        except Exception as error:
            self.handle_error(req, conn, client, error)
            raise Parted from error
        finally:
            conn.request = None
        if conn.is_out_of_step:
            raise Parted

    def _answer(self, server: Any, req: Any, conn: Connection, client: Any) -> None:
        try:
            self.handle_request(server, req, conn, client)
        finally:
            conn.flush()

    def handle_error(self, req: Any, client: Any, addr: Any, exc: BaseException) -> None:
        """Answer for ``exc``; a request that cannot be parsed is the client's fault alone."""
        problem = _problem_of(exc)
        if problem is None:
            super().handle_error(req, client, addr, exc)
            return
        self.log.debug("Invalid request: %s", type(exc).__name__)
        self._refuse(client, problem)

    def _refuse(self, conn: Connection, problem: Problem) -> None:
        metrics.REFUSED.add(str(problem.status))
        self._say(conn, _raw(problem))

    def _say(self, conn: Connection, data: bytes) -> None:
        try:
            conn.sendall(data)
            conn.flush()
        except OSError as error:
            self.log.debug("client is gone: %s", error)

    def _linger(self, conn: Connection) -> None:
        """Part: say that no more is coming, and read on for a moment (RFC 9112, section 9.6)."""
        try:
            conn.sock.shutdown(plain_socket.SHUT_WR)
            deadline, drained = time.monotonic() + LINGER_SECONDS, 0
            while drained <= LINGER_BYTES_MAX and (
                data := conn.receive(deadline - time.monotonic())
            ):
                drained += len(data)
        except OSError as error:
            self.log.debug("client is gone: %s", error)


def _semaphore(number: int) -> Semaphore:
    return cast("Semaphore", BoundedSemaphore(number))


def _problem_of(error: BaseException) -> Problem | None:
    """What to answer for a request that gunicorn cannot parse; None if it is our own fault."""
    if isinstance(error, errors.InvalidResponseHeader | errors.InvalidResponseHeaderName):
        return None
    if isinstance(error, errors.LimitRequestLine):
        return Problem(414, "REQUEST_URI_TOO_LONG", "The request line is over its limit.")
    if isinstance(error, errors.LimitRequestHeaders):
        return _LONG_HEAD
    if isinstance(error, errors.ExpectationFailed):
        return Problem(417, "EXPECTATION_FAILED", "Only 100-continue can be expected.")
    if isinstance(error, errors.ParseException):
        return Problem(400, "MALFORMED_REQUEST", "The request is no HTTP that can be read.")
    return None


def _raw(problem: Problem) -> bytes:
    """The answer as it goes out, for what no route ever sees."""
    body = to_json(document(problem))
    head = [
        f"HTTP/1.1 {problem.status} {HTTPStatus(problem.status).phrase}",
        f"Content-Type: {PROBLEM_TYPE}",
        f"Content-Length: {len(body)}",
        "Connection: close",
    ]
    if problem.retry_after_seconds is not None:
        head.append(f"Retry-After: {problem.retry_after_seconds:.0f}")
    return "\r\n".join([*head, "", ""]).encode() + body
