"""A small HTTP/1.1 client on asyncio: cheap enough to leave the processor to what is tested."""

import asyncio
import contextlib
from dataclasses import dataclass
from typing import Final

HOST: Final = "127.0.0.1"
_HEAD_BYTES_MAX = 64 * 1024


@dataclass(frozen=True, slots=True)
class Answer:
    """Status, body, and whether the answer is one that was given before."""

    status: int
    body: str
    replayed: bool


class NoAnswer(Exception):
    """No answer came: the request may or may not have had its effect."""


class Connection:
    """One connection to one port, made again after each failure."""

    def __init__(self, port: int, timeout_seconds: float) -> None:
        self._port = port
        self._timeout_seconds = timeout_seconds
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(
        self, method: str, path: str, body: str | None = None, key: str | None = None
    ) -> Answer:
        """Send a request and wait for its answer.

        Raises:
            NoAnswer: within the time, or at all.
        """
        try:
            async with asyncio.timeout(self._timeout_seconds):
                return await self._ask(_request(method, path, body, key))
        except TimeoutError:
            self.close()
            raise NoAnswer("timeout") from None
        except (OSError, EOFError, ValueError, asyncio.LimitOverrunError) as error:
            self.close()
            raise NoAnswer(type(error).__name__) from error

    def close(self) -> None:
        if self._streams is not None:
            with contextlib.suppress(RuntimeError):
                self._streams[1].transport.abort()
        self._streams = None

    async def _ask(self, request: bytes) -> Answer:
        if self._streams is None:
            self._streams = await asyncio.open_connection(HOST, self._port, limit=_HEAD_BYTES_MAX)
        reader, writer = self._streams
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        first, *lines = head[:-4].decode("latin-1").split("\r\n")
        headers = {
            name.strip().lower(): value.strip()
            for name, _, value in (line.partition(":") for line in lines)
        }
        body = await reader.readexactly(int(headers["content-length"]))
        if headers.get("connection", "").lower() == "close":
            self.close()
        return Answer(
            int(first.split(" ", 2)[1]),
            body.decode(),
            headers.get("idempotent-replayed") == "true",
        )


def _request(method: str, path: str, body: str | None, key: str | None) -> bytes:
    sent = (body or "").encode()
    lines = [f"{method} {path} HTTP/1.1", f"Host: {HOST}"]
    if body is not None:
        lines += ["Content-Type: application/json", f"Content-Length: {len(sent)}"]
    if key is not None:
        lines.append(f"Idempotency-Key: {key}")
    return "\r\n".join([*lines, "", ""]).encode() + sent
