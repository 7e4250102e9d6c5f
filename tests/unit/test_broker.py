"""The one thing in which our transport differs from kombu's."""

from types import SimpleNamespace
from typing import Any

import pytest
from kombu import Connection
from kombu.transport import redis

from shared.broker import Channel
from shared.task_queue import TRANSPORT


@pytest.mark.parametrize("connection", [None, SimpleNamespace(client=None)])
def test_a_closed_connection_is_reported_as_one_that_the_worker_survives(connection: Any) -> None:
    channel: Any = Channel.__new__(Channel)
    channel.connection = connection

    with pytest.raises(Connection("redis://", transport=TRANSPORT).connection_errors):
        channel._connparams()


def test_kombus_own_channel_would_end_the_worker_there() -> None:
    channel: Any = redis.Channel.__new__(redis.Channel)
    channel.connection = SimpleNamespace(client=None)

    with pytest.raises(AttributeError):
        channel._connparams()


def test_celery_uses_our_transport() -> None:
    with Connection("redis://127.0.0.1:1/0", transport=TRANSPORT) as connection:
        transport: Any = connection.transport
        assert transport.Channel is Channel
