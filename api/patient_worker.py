"""gunicorn's threaded worker, less what a slow or hostile client can do to it.

The event loop alone waits for clients: it takes a request in until it is whole, hands it to a
thread, and sends what the client did not take of the answer at once. So a thread only ever works,
and a connection that dawdles costs a file descriptor and a few kilobytes until its time is over.
The reasons stand in docs/decisions/0014-threads-never-wait-for-clients.md.
"""

import contextlib
import errno
import io
import selectors
import socket
import struct
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from http import HTTPStatus
from typing import Any, Final

from gunicorn import util
from gunicorn.http import errors
from gunicorn.workers.gthread import STOP_KEEPALIVE_LINGER, TConn, ThreadWorker

from api.arriving import Arrival, Arriving
from api.problems import PROBLEM_TYPE, Problem, document
from shared.representation import to_json
from shared.settings import Settings

QUEUE_SECONDS_MAX: Final = 5.0
"""How long a whole request may wait for a thread before it is answered 503."""

SEND_SECONDS_MAX: Final = 10.0
"""How long a client may take to fetch an answer."""

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

_AT_ONCE: Final = struct.pack("ii", 1, 0)
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


class ClientSocket(socket.socket):
    """A connection that keeps nobody waiting: what the client does not take at once is kept."""

    def __init__(self, accepted: socket.socket) -> None:
        """Take ``accepted`` over."""
        super().__init__(fileno=accepted.detach())
        super().setblocking(False)
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            self.setsockopt(socket.SOL_SOCKET, option, KERNEL_BYTES)
        self.unsent = bytearray()
        self.is_out_of_step = False

    def setblocking(self, flag: bool, /) -> None:
        """Stay as it is: gunicorn's threads would block."""

    def settimeout(self, value: float | None, /) -> None:
        """Stay as it is."""

    def recv(self, bufsize: int, flags: int = 0, /) -> bytes:
        """Nothing: the request was whole, and a parser that wants more disagrees."""
        del bufsize, flags
        self.is_out_of_step = True
        return b""

    def receive(self) -> bytes | None:
        """What has arrived, empty at the end, None if there is nothing yet."""
        try:
            return super().recv(RECEIVE_BYTES)
        except BlockingIOError:
            return None
        except OSError:
            return b""

    def sendall(self, data: Any, flags: int = 0, /) -> None:
        """Send what the client takes now and keep the rest (raises ``OSError`` if it is gone)."""
        del flags
        self.unsent += data
        self.send_on()

    def send_on(self) -> None:
        """Send more of what was kept (raises ``OSError`` if the client is gone)."""
        while self.unsent:
            try:
                sent = super().send(self.unsent)
            except BlockingIOError:
                return
            del self.unsent[:sent]

    def reset(self) -> None:
        """Close without waiting for what the kernel still holds of the answer."""
        with contextlib.suppress(OSError):
            self.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
        util.close(self)


class Connection(TConn):  # type: ignore[misc]
    """A client's connection: the request that arrives on it, and by when."""

    def __init__(
        self, worker: "PatientWorker", sock: ClientSocket, client: Any, server: Any
    ) -> None:
        """Serve ``client`` on ``sock``."""
        super().__init__(worker.cfg, sock, client, server)
        self.sock: ClientSocket = sock
        self.timeout: float = 0.0
        self.data_ready = True
        self._body_bytes_max = worker.body_bytes_max
        self.arriving = Arriving(self._body_bytes_max)
        self.whole_at = 0.0
        self.is_last = False
        self.drained = 0

    @property
    def is_silent(self) -> bool:
        """Nothing of a request has arrived yet."""
        return not self.arriving.received

    @property
    def held(self) -> int:
        """Bytes that wait here, of the request or of the answer."""
        return len(self.arriving.received) + len(self.sock.unsent)

    def give(self) -> None:
        """Hand what has arrived to gunicorn's parser."""
        self.init()
        received, self.arriving = self.arriving.received, Arriving(self._body_bytes_max)
        self.parser.unreader.unread(bytes(received))

    def take_back(self) -> Arrival:
        """Take what the parser left, the beginning of the next request."""
        return self.arriving.add(self.parser.unreader.take_buffered())


class PatientWorker(ThreadWorker):  # type: ignore[misc]
    """A threaded worker whose event loop does all the waiting."""

    keepalived_conns: deque[Connection]
    """Between two requests, by the time at which they are closed."""
    pending_conns: deque[Connection]
    """With a part of a request, or nothing yet."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Make a worker as gunicorn does."""
        super().__init__(*args, **kwargs)
        settings = Settings()
        self.body_bytes_max = settings.body_bytes_max
        self._request_seconds_max = settings.request_seconds_max
        self._sending: deque[Connection] = deque()
        self._lingering: deque[Connection] = deque()

    # Taking requests in

    def accept(self, listener: Any) -> bool:
        """Take a connection in, and wait for its request without a thread; tells if there is room.

        gunicorn's own answers nothing; ``DrainingWorker`` wants to know when to stop asking.
        """
        try:
            accepted, client = listener.accept()
        except OSError as error:
            if error.errno not in _NO_ROOM:
                return True
            # Raised, it would end the worker; unheeded, the loop would spin.
            self.log.warning("no room for another connection: %s", error)
            self._close_idle()
            if self.alive:
                time.sleep(ACCEPT_PAUSE_SECONDS)
            return False
        self.nr_conns += 1
        conn = Connection(self, ClientSocket(accepted), client, listener.getsockname())
        self._wait_for_request(conn)
        return True

    def on_client_socket_readable(self, conn: Connection, client: Any) -> None:
        """A connection that was kept alive speaks again."""
        try:
            self.keepalived_conns.remove(conn)
        except ValueError:
            return  # closed to make room, after the poller had seen it speak
        self.poller.unregister(client)
        self._wait_for_request(conn)
        self.on_pending_socket_readable(conn, client)

    def on_pending_socket_readable(self, conn: Connection, client: Any) -> None:
        """More of a request arrives."""
        del client
        data = conn.sock.receive()
        if data is None:
            return
        if data:
            self._go_on(conn, conn.arriving.add(data))
            return
        self._stop_watching(conn, self.pending_conns)
        if conn.is_silent:
            self._drop(conn)
        else:
            self._refuse(conn, _CUT_OFF)

    def _wait_for_request(self, conn: Connection) -> None:
        conn.timeout = time.monotonic() + self._request_seconds_max
        self._watch(conn, self.pending_conns, self.on_pending_socket_readable)

    def _go_on(self, conn: Connection, state: Arrival) -> None:
        """Act on the state of the request that arrives on ``conn``."""
        if state is Arrival.EXPECTS:
            self._say(conn, _CONTINUE)
        elif state is Arrival.WHOLE:
            self._stop_watching(conn, self.pending_conns)
            self._serve(conn)
            return
        elif state in _REFUSALS:
            self._stop_watching(conn, self.pending_conns)
            self._refuse(conn, _REFUSALS[state])
            return
        if not self._has_room_for(conn):
            self._stop_watching(conn, self.pending_conns)
            self._refuse(conn, _OVERLOADED)

    def _serve(self, conn: Connection) -> None:
        conn.whole_at = time.monotonic()
        self.enqueue_req(conn)

    # In a thread

    def handle(self, conn: Connection) -> Any:
        """Serve the request that arrived on ``conn``; tells whether another may follow."""
        if time.monotonic() - conn.whole_at > QUEUE_SECONDS_MAX:
            with contextlib.suppress(OSError):  # whoever waited so long may have left
                conn.sock.sendall(_raw(_OVERLOADED))
            return False
        conn.give()
        return super().handle(conn) and not conn.sock.is_out_of_step

    def handle_request(self, req: Any, conn: Connection) -> Any:
        """Serve ``req`` after reading its body, so that a damaged one is no error of the app's."""
        req._expected_100_continue = False  # said by the loop already
        req.body = io.BytesIO(req.body.read())
        if conn.sock.is_out_of_step:
            raise errors.NoMoreData
        return super().handle_request(req, conn)

    def handle_error(self, req: Any, client: Any, addr: Any, exc: Exception) -> None:
        """Answer for ``exc``; a request that cannot be parsed is the client's fault alone."""
        problem = _problem_of(exc)
        if problem is None:
            super().handle_error(req, client, addr, exc)
            return
        self.log.debug("Invalid request: %s", type(exc).__name__)
        try:
            client.sendall(_raw(problem))
        except OSError:
            self.log.debug("Failed to send error message.")

    # Giving answers

    def finish_request(self, conn: Connection, fs: "Future[Any]") -> None:
        """Go on with a connection whose request was served."""
        try:
            conn.is_last = not (not fs.cancelled() and fs.result())
            if conn.sock.unsent:
                self._send_on(conn)
            else:
                self._next(conn)
        except Exception:
            self.log.exception("Error after a request")
            self._drop(conn)

    def _send_on(self, conn: Connection) -> None:
        if not self._has_room_for(conn):
            conn.sock.reset()
            self._drop(conn)
            return
        conn.timeout = time.monotonic() + SEND_SECONDS_MAX
        self._watch(conn, self._sending, self._on_writable, selectors.EVENT_WRITE)

    def _on_writable(self, conn: Connection, client: Any) -> None:
        del client
        try:
            conn.sock.send_on()
        except OSError:
            self._stop_watching(conn, self._sending)
            self._drop(conn)
            return
        if not conn.sock.unsent:
            self._stop_watching(conn, self._sending)
            self._next(conn)

    def _next(self, conn: Connection) -> None:
        """Wait for the next request of a connection whose answer is on its way, or part."""
        if conn.is_last:
            self._linger(conn)
            return
        state = conn.take_back()
        if not conn.is_silent:
            self._wait_for_request(conn)
            self._go_on(conn, state)
            return
        conn.set_timeout()
        if not self.alive:
            conn.timeout = min(conn.timeout, time.monotonic() + STOP_KEEPALIVE_LINGER)
        self._watch(conn, self.keepalived_conns, self.on_client_socket_readable)

    def _refuse(self, conn: Connection, problem: Problem) -> None:
        """Answer from the loop and part; whoever takes no answer of this size gets none."""
        self._say(conn, _raw(problem))
        conn.sock.unsent.clear()
        self._linger(conn)

    def _say(self, conn: Connection, data: bytes) -> None:
        try:
            conn.sock.sendall(data)
        except OSError as error:
            # The loop reads its end from the socket.
            self.log.debug("client is gone: %s", error)

    def _linger(self, conn: Connection) -> None:
        """Part: say that no more is coming, and read on for a moment (RFC 9112, section 9.6)."""
        conn.arriving.received.clear()
        try:
            conn.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self._drop(conn)
            return
        conn.timeout = time.monotonic() + LINGER_SECONDS
        self._watch(conn, self._lingering, self._on_lingering)

    def _on_lingering(self, conn: Connection, client: Any) -> None:
        del client
        data = conn.sock.receive()
        conn.drained += len(data or b"")
        if data == b"" or conn.drained > LINGER_BYTES_MAX:
            self._stop_watching(conn, self._lingering)
            self._drop(conn)

    # Keeping watch

    def murder_keepalived(self, force: bool = False) -> None:
        """Close connections that were idle for too long, or the longest if others need room."""
        super().murder_keepalived(force)
        if self.nr_conns >= self.worker_connections:
            self._close_idle()

    def murder_pending(self) -> None:
        """Part from clients whose time is over."""
        now = time.monotonic()
        for conn in self._overdue(self.pending_conns, now):
            if conn.is_silent:
                self._drop(conn)
            else:
                self._refuse(conn, _TOO_SLOW)
        for conn in self._overdue(self._sending, now):
            conn.sock.reset()
            self._drop(conn)
        for conn in self._overdue(self._lingering, now):
            self._drop(conn)

    def _overdue(self, waiting: deque[Connection], now: float) -> list[Connection]:
        """Take those out of ``waiting`` whose time is over."""
        overdue = [conn for conn in waiting if conn.timeout <= now]
        for conn in overdue:
            self._stop_watching(conn, waiting)
        return overdue

    def _close_idle(self) -> None:
        if self.keepalived_conns:
            conn = self.keepalived_conns[0]
            self._stop_watching(conn, self.keepalived_conns)
            self._drop(conn)

    def _watch(
        self,
        conn: Connection,
        waiting: deque[Connection],
        callback: Callable[[Connection, Any], None],
        event: int = selectors.EVENT_READ,
    ) -> None:
        waiting.append(conn)
        self.poller.register(conn.sock, event, partial(callback, conn))

    def _stop_watching(self, conn: Connection, waiting: deque[Connection]) -> None:
        waiting.remove(conn)
        self.poller.unregister(conn.sock)

    def _drop(self, conn: Connection) -> None:
        self.nr_conns -= 1
        util.close(conn.sock)

    def _has_room_for(self, conn: Connection) -> bool:
        """Tell whether the process can hold what ``conn`` holds."""
        if conn.held <= HELD_BYTES_FREE:
            return True
        others = sum(one.held for one in (*self.pending_conns, *self._sending) if one is not conn)
        return others + conn.held <= HELD_BYTES_MAX


def _problem_of(error: Exception) -> Problem | None:
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
