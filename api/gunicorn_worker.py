"""The worker that gunicorn runs: patient, and with an end in which no request is lost.

On SIGTERM gunicorn's own stops accepting at once but keeps the shared listening socket open until
its last request ends; whoever connects meanwhile waits in the kernel and is reset. This one ends
in steps:

1. say so (``api.draining``) and serve on for ``DRAIN_SECONDS``;
2. turn newcomers away, and give those whose connection is half open a moment;
3. accept all who wait, and close the listening socket: from here on connections are refused;
4. end what runs: each answer closes its connection, idle ones are closed after a moment.
"""

import select
import signal
import time
from collections.abc import Callable
from threading import Timer
from types import FrameType
from typing import Any, Final

from api import draining
from api.listener import turn_away_newcomers
from api.patient_worker import PatientWorker
from shared.logs import get_logger

HANDSHAKE_SECONDS: Final = 0.1
"""For the last newcomers to complete their connection: a round trip, and little more, since who is
turned away meanwhile waits a second."""

SILENT_SECONDS: Final = 2.0
"""How long a connection on which no request has begun may hold up the end."""

log = get_logger(__name__)


class DrainingWorker(PatientWorker):
    """Drains on SIGTERM; SIGINT and SIGQUIT stay quick."""

    drain_seconds: float = 0.0
    """Set by the configuration once the process is made."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """SIGTERM: begin to drain (a second one changes nothing)."""
        del sig, frame
        # In the main loop, not in here: a handler may interrupt the start of another thread.
        self.method_queue.defer(self._drain)

    def set_accept_enabled(self, enabled: bool) -> None:
        """Accept or not; a process that ends also takes in who waits, and closes the door."""
        super().set_accept_enabled(enabled)
        if not enabled and not self.alive:
            self._close_listeners()
            self._limit_silent_connections()

    def _drain(self) -> None:
        if draining.is_draining():
            return
        draining.begin()
        log.info("draining", seconds=self.drain_seconds)
        self._after(self.drain_seconds, self._turn_away)

    def _turn_away(self) -> None:
        able = [turn_away_newcomers(listener.sock) for listener in self.sockets]
        self._after(HANDSHAKE_SECONDS if all(able) else 0, self._end)

    def _end(self) -> None:
        super().handle_exit(signal.SIGTERM, None)

    def _after(self, seconds: float, step: Callable[[], None]) -> None:
        """Take ``step`` in the main loop, ``seconds`` from now."""
        timer = Timer(seconds, self.method_queue.defer, (step,))
        timer.daemon = True
        timer.start()

    def _close_listeners(self) -> None:
        for listener in self.sockets:
            self._accept_waiting(listener)
            listener.close()

    def _accept_waiting(self, listener: Any) -> None:
        for _ in range(self.cfg.backlog):
            if not select.select([listener], [], [], 0)[0] or not self.accept(listener):
                return

    def _limit_silent_connections(self) -> None:
        deadline = time.monotonic() + SILENT_SECONDS
        for connection in self.pending_conns:
            if connection.is_silent:
                connection.timeout = min(connection.timeout, deadline)
