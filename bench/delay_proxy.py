"""A slow network in front of a server.

Usage: ``python -m bench.delay_proxy PORT SERVER_PORT MILLISECONDS``

What a client sends is passed on after the delay, what the server answers at once; so each request
takes that much longer and any number of them may be under way. It also counts HTTP requests:
``requests_passed`` asks it.
"""

import asyncio
import socket
import sys
from collections import deque

from bench.load import new_event_loop
from local.engines import HOST

_COUNT = b"COUNT\n"
_POST = b"POST "
_SECONDS_MAX = 5.0


class _ToServer(asyncio.Protocol):
    """The proxy's connection to the server."""

    def __init__(self, client: asyncio.Transport) -> None:
        self._client = client

    def data_received(self, data: bytes) -> None:
        self._client.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._client.close()


class DelayProxy:
    """Passes connections on to one server, with a delay on the way there."""

    def __init__(self, server_port: int, delay_seconds: float) -> None:
        """Pass on to ``server_port`` of this machine."""
        self.server_port = server_port
        self.delay_seconds = delay_seconds
        self.requests = 0

    async def listen(self, port: int) -> asyncio.Server:
        """Take connections."""
        return await asyncio.get_running_loop().create_server(
            lambda: _FromClient(self), HOST, port, backlog=256
        )


class _FromClient(asyncio.Protocol):
    """A client's connection to the proxy."""

    def __init__(self, proxy: DelayProxy) -> None:
        self._proxy = proxy
        self._client: asyncio.Transport | None = None
        self._server: asyncio.WriteTransport | None = None
        self._early: deque[bytes] = deque()
        self._opening: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - for the type checker
        self._client = transport
        self._opening = asyncio.get_running_loop().create_task(self._open(transport))

    def data_received(self, data: bytes) -> None:
        if data == _COUNT and self._client is not None:
            self._client.write(b"%d\n" % self._proxy.requests)
            return
        # A client that waits for its answers begins each request in a piece of its own.
        self._proxy.requests += data.startswith(_POST)
        delay = self._proxy.delay_seconds
        if delay:
            asyncio.get_running_loop().call_later(delay, self._pass_on, data)
        else:
            self._pass_on(data)

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        if self._server is not None:
            self._server.close()

    async def _open(self, client: asyncio.Transport) -> None:
        loop = asyncio.get_running_loop()
        try:
            server, _ = await loop.create_connection(
                lambda: _ToServer(client), HOST, self._proxy.server_port
            )
        except OSError:
            client.close()
            return
        if client.is_closing():
            server.close()
            return
        self._server = server
        while self._early:
            server.write(self._early.popleft())

    def _pass_on(self, data: bytes) -> None:
        if self._server is None:
            self._early.append(data)
        elif not self._server.is_closing():
            self._server.write(data)


def requests_passed(port: int) -> int:
    """How many requests the proxy on ``port`` has passed on so far."""
    with socket.create_connection((HOST, port), _SECONDS_MAX) as connection:
        connection.sendall(_COUNT)
        return int(connection.makefile("rb").readline())


async def _serve(port: int, server_port: int, delay_seconds: float) -> None:
    server = await DelayProxy(server_port, delay_seconds).listen(port)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(_serve(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]) / 1000))
