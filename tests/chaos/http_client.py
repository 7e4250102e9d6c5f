"""A small HTTP/1.1 client on asyncio: cheap enough to leave the processor to what is tested."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

HOST: Final = "127.0.0.1"
JSON: Final = "application/json"
NDJSON: Final = "application/x-ndjson"
_HEAD_BYTES_MAX = 64 * 1024
_NO_BODY: Final = (204, 304)
_NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Answer:
    """Status, body, and whether the answer is one that was given before."""

    status: int
    body: str
    replayed: bool = False
    tag: str | None = None


class NoAnswer(Exception):
    """No answer came: the request may or may not have had its effect."""

    def __init__(self, why: str, part: str = "") -> None:
        """``part`` is what came of an answer that broke off."""
        super().__init__(why)
        self.part = part


class Connection:
    """One connection to one port, made again after each failure."""

    def __init__(self, port: int, timeout_seconds: float) -> None:
        self._port = port
        self._timeout_seconds = timeout_seconds
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(
        self,
        method: str,
        path: str,
        body: str | None = None,
        headers: Mapping[str, str] = _NO_HEADERS,
    ) -> Answer:
        """Send a request and wait for its answer.

        Raises:
            NoAnswer: within the time, or at all.
        """
        came = bytearray()
        try:
            async with asyncio.timeout(self._timeout_seconds):
                return await self._ask(_request(method, path, body, headers), came)
        except TimeoutError:
            self.close()
            raise NoAnswer("timeout", _text(came)) from None
        except (OSError, EOFError, ValueError, asyncio.LimitOverrunError) as error:
            self.close()
            raise NoAnswer(type(error).__name__, _text(came)) from error

    async def stream(self, path: str, silence_seconds: float) -> AsyncIterator[bytes]:
        """The body of an answer that has no end, piece by piece as it comes.

        Raises:
            NoAnswer: it is not 200, broke off, or nothing came for so long.
        """
        try:
            async with asyncio.timeout(self._timeout_seconds):
                reader = await self._send(_request("GET", path, None, _NO_HEADERS))
                status, _ = await _read_head(reader)
            if status != 200:
                raise NoAnswer(str(status))
            pieces = _chunks(reader)
            while True:
                async with asyncio.timeout(silence_seconds):
                    piece = await anext(pieces, None)
                if piece is None:
                    return
                yield piece
        except TimeoutError:
            raise NoAnswer("silence") from None
        except (OSError, EOFError, ValueError, asyncio.LimitOverrunError) as error:
            raise NoAnswer(type(error).__name__) from error
        finally:
            self.close()

    def close(self) -> None:
        if self._streams is not None:
            with contextlib.suppress(RuntimeError):
                self._streams[1].transport.abort()
        self._streams = None

    async def _send(self, request: bytes) -> asyncio.StreamReader:
        if self._streams is None:
            self._streams = await asyncio.open_connection(HOST, self._port, limit=_HEAD_BYTES_MAX)
        reader, writer = self._streams
        writer.write(request)
        return reader

    async def _ask(self, request: bytes, came: bytearray) -> Answer:
        reader = await self._send(request)
        status, headers = await _read_head(reader)
        if headers.get("transfer-encoding") == "chunked":
            async for piece in _chunks(reader):
                came += piece
        elif status not in _NO_BODY:
            came += await reader.readexactly(int(headers["content-length"]))
        if headers.get("connection", "").lower() == "close":
            self.close()
        return Answer(
            status,
            came.decode(),
            headers.get("idempotent-replayed") == "true",
            headers.get("etag"),
        )


async def _read_head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    head = await reader.readuntil(b"\r\n\r\n")
    first, *lines = head[:-4].decode("latin-1").split("\r\n")
    headers = {
        name.strip().lower(): value.strip()
        for name, _, value in (line.partition(":") for line in lines)
    }
    return int(first.split(" ", 2)[1]), headers


async def _chunks(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    while True:
        size = int(await reader.readuntil(b"\r\n"), 16)
        piece = (await reader.readexactly(size + 2))[:-2]
        if not piece:
            return
        yield piece


def _text(came: bytes | bytearray) -> str:
    # Cut off in the middle of a character, perhaps.
    return came.decode(errors="ignore")


def _request(method: str, path: str, body: str | None, headers: Mapping[str, str]) -> bytes:
    sent = (body or "").encode()
    lines = [f"{method} {path} HTTP/1.1", f"Host: {HOST}"]
    if body is not None:
        told = {"Content-Type": JSON, "Content-Length": str(len(sent)), **headers}
    else:
        told = dict(headers)
    lines += [f"{name}: {value}" for name, value in told.items()]
    return "\r\n".join([*lines, "", ""]).encode() + sent
