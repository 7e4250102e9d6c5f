"""The worker that gunicorn runs: patient, and with an end in which no request is lost.

On SIGTERM gunicorn's own stops accepting at once but keeps the shared listening socket open until
its last request ends; whoever connects meanwhile waits in the kernel and is reset. This one ends
in steps:

1. say so (``api.draining``) and serve on for ``DRAIN_SECONDS``;
2. turn newcomers away, and give those whose connection is half open a moment;
3. accept all who wait, and close the listening socket: from here on connections are refused;
4. end what runs: each answer closes its connection, idle ones are closed after a moment.
"""

import os
import select
import time
from types import FrameType
from typing import Any, Final

import gevent

from api import draining
from api.green_worker import GreenWorker
from api.listener import turn_away_newcomers
from shared.logs import get_logger

HANDSHAKE_SECONDS: Final = 0.1
"""For the last newcomers to complete their connection: a round trip, and little more, since who is
turned away meanwhile waits a second."""

SILENT_SECONDS: Final = 2.0
"""How long a connection on which no request has begun may hold up the end."""

LAST_WORDS_SECONDS: Final = 1.0
"""Before the process is killed no work is begun for so long: what has begun is to be answered."""

log = get_logger(__name__)


class DrainingWorker(GreenWorker):
    """Drains on SIGTERM; SIGINT and SIGQUIT stay quick."""

    drain_seconds: float = 0.0
    """Set by the configuration once the process is made."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """SIGTERM: begin to drain (a second one changes nothing).

        Whoever sent it to this process alone ends the instance all the same: its processes share
        one socket, and newcomers are turned away at that.
        """
        del frame
        if os.getppid() == self.ppid:
            os.kill(self.ppid, sig)
        # In a thread of its own, not in here: a handler may interrupt whatever runs.
        gevent.spawn(self._drain)

    def close_door(self) -> None:
        """Take in who waits, and close the door; whoever stays silent is parted from soon."""
        for listener in self.sockets:
            self._accept_waiting(listener)
        super().close_door()
        gevent.spawn_later(SILENT_SECONDS, self.close_silent)

    def _drain(self) -> None:
        if draining.is_draining():
            return
        draining.begin(time.monotonic() + self.cfg.graceful_timeout - LAST_WORDS_SECONDS)
        self.close_after_answers()
        log.info("draining", seconds=self.drain_seconds)
        gevent.sleep(self.drain_seconds)
        able = [turn_away_newcomers(listener) for listener in self.sockets]
        gevent.sleep(HANDSHAKE_SECONDS if all(able) else 0)
        self.end()

    def _accept_waiting(self, listener: Any) -> None:
        for _ in range(self.cfg.backlog):
            if not select.select([listener], [], [], 0)[0] or not self.accept(listener):
                return
