"""The broker's transport: kombu's for Redis, less one way to die.

When Redis goes away while a message is unacknowledged, kombu closes the connection first and then
asks the closed one for its address, to put the message back. That ends the worker with an
``AttributeError``. Said as the connection error that it is, kombu handles it: the worker
reconnects, and the message comes back from Redis or its orders by the sweeper.
"""

from typing import Any

from kombu.transport import redis


class Channel(redis.Channel):
    """A channel that reports a closed connection as such."""

    def _connparams(self, asynchronous: bool = False) -> Any:
        if self.connection is None or self.connection.client is None:
            raise ConnectionResetError("the connection to the broker was closed")
        return super()._connparams(asynchronous=asynchronous)  # type: ignore[misc]


class Transport(redis.Transport):
    """Redis, over channels of the class above."""

    Channel = Channel
