"""A reader of event streams for tests: it sees every byte, and may go away at any moment."""

import contextlib
import http.client
import json
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Self
from urllib.parse import urlsplit

from tests.integration.client import Json

READ_SECONDS = 20.0
"""Longer than a stream may be silent."""

_AT_ONCE: Final = struct.pack("ii", 1, 0)


@dataclass(frozen=True)
class Event:
    """An event: where to go on from, and the order that it tells of."""

    id: str
    order: Json


class Stream:
    """One connection to an account's stream."""

    def __init__(self, url: str, account_id: int, last: str | None = None) -> None:
        address = urlsplit(url)
        host, port = address.hostname or "", address.port
        self._connection = http.client.HTTPConnection(host, port, timeout=READ_SECONDS)
        headers = {"Last-Event-ID": last} if last else {}
        self._connection.request("GET", f"/v1/accounts/{account_id}/events", headers=headers)
        self._socket = self._connection.sock
        self.answer = self._connection.getresponse()
        self.last = last
        """Where to go on from, known before there is an event."""
        self.comments: list[str] = []

    def beginning(self) -> str:
        """Where the stream begins: it says so before there is an event."""
        while self.last is None:
            name, _, value = self.answer.readline().decode().strip().partition(": ")
            self.last = value if name == "id" else None
        return self.last

    def events(self) -> Iterator[Event]:
        """Each event, until the stream ends in order (else it raises)."""
        assert self.answer.status == 200, self.answer.read()
        block: dict[str, str] = {}
        while line := self.answer.readline():
            text = line.decode().removesuffix("\n")
            name, _, value = text.partition(":")
            if text:
                block[name] = value.removeprefix(" ")
                continue
            if "" in block:
                self.comments.append(block[""])
            self.last = block.get("id", self.last)
            if "data" in block:
                assert block["event"] == "order"
                yield Event(block["id"], json.loads(block["data"]))
            block = {}
        assert block == {}, "torn"

    def interrupt(self) -> None:
        """Let another thread's wait for an event end."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def cut(self) -> None:
        """Go away without a word."""
        if self._socket.fileno() != -1:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
        self.answer.close()
        self._connection.close()
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.cut()
