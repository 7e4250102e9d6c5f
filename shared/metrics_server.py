"""The small server on which a worker or a sweeper shows its metrics: few at once, for a short time.

The library's own gives each connection a thread for as long as the client likes.
"""

import contextlib
import socket
import threading
from collections.abc import Callable
from socketserver import ThreadingMixIn
from typing import Any, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from shared.logs import get_logger

SCRAPES_MAX: Final = 8
"""Connections at once: Prometheus needs one."""

SCRAPE_SECONDS_MAX: Final = 10.0
"""How long a connection may last, whatever its client does."""

log = get_logger(__name__)


class MetricsServer(ThreadingMixIn, WSGIServer):
    """Serves each connection in a thread, within bounds."""

    daemon_threads = True

    def __init__(self, *arguments: Any, **more: Any) -> None:
        """Bind as any server of the standard library does."""
        self._room = threading.BoundedSemaphore(SCRAPES_MAX)
        super().__init__(*arguments, **more)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve in a thread of its own, if there is room for one; else close the connection."""
        if not self._room.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve, and end with the time if not before."""
        end = threading.Timer(SCRAPE_SECONDS_MAX, _cut_off, [request])
        end.daemon = True
        end.start()
        try:
            super().process_request_thread(request, client_address)
        finally:
            end.cancel()
            self._room.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say next to nothing: a client that went away is no event."""
        del request
        log.debug("scrape_failed", client=str(client_address), exc_info=True)


class _SilentHandler(WSGIRequestHandler):
    def log_message(self, *_: object) -> None:
        """Say nothing of each request."""


def start(host: str, port: int, app: Callable[..., Any]) -> MetricsServer:
    """Serve ``app`` in a thread; raises ``OSError`` if that port cannot be had."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, _, _, _, address = found[0]
    kind: type[MetricsServer] = type("_Server", (MetricsServer,), {"address_family": family})
    server = make_server(str(address[0]), port, app, kind, _SilentHandler)
    threading.Thread(target=server.serve_forever, name="metrics server", daemon=True).start()
    return server


def _cut_off(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
