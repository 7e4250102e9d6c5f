"""A listening socket that is about to be closed: who is let in, and who is not."""

import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import pytest

from api.listener import turn_away_newcomers

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux can filter a socket")

HOST = "127.0.0.1"
WAIT_SECONDS = 0.3


@pytest.fixture
def cleanup() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def listener(cleanup: ExitStack) -> socket.socket:
    opened = cleanup.enter_context(socket.create_server((HOST, 0)))
    opened.settimeout(WAIT_SECONDS)
    return opened


def test_whoever_is_in_stays_in_and_is_served(listener: socket.socket, cleanup: ExitStack) -> None:
    client = cleanup.enter_context(socket.create_connection(listener.getsockname()))
    assert turn_away_newcomers(listener)

    accepted, _ = listener.accept()
    cleanup.enter_context(accepted)
    listener.close()
    client.sendall(b"asked")
    assert accepted.recv(9) == b"asked"
    accepted.sendall(b"told")
    assert client.recv(9) == b"told"


def test_a_newcomer_waits_outside_and_is_refused_once_the_door_is_closed(
    listener: socket.socket, cleanup: ExitStack
) -> None:
    assert turn_away_newcomers(listener)
    newcomer = cleanup.enter_context(socket.socket())
    newcomer.setblocking(False)
    with suppress(BlockingIOError):
        newcomer.connect(listener.getsockname())

    with pytest.raises(TimeoutError):
        listener.accept()
    listener.close()
    newcomer.settimeout(5)
    # It tries again by itself, and hears the refusal.
    with pytest.raises(ConnectionRefusedError):
        newcomer.recv(1)


def test_what_is_no_open_socket_is_said_to_be_impossible(listener: socket.socket) -> None:
    listener.close()

    assert not turn_away_newcomers(listener)
