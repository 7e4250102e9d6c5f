"""HTTP/1.1 as a load generator needs it: requests built beforehand, answers cut with little work.

Only what gunicorn and the engine send is understood: a body of known length or in chunks. Anything
else is an error, never a guess.
"""

from typing import Final, NamedTuple

_HEAD_END: Final = b"\r\n\r\n"
_LINE_END: Final = b"\r\n"
_LENGTH: Final = b"\r\ncontent-length:"
_CHUNKED: Final = b"\r\ntransfer-encoding: chunked"
_NO_BODY: Final = frozenset({204, 304})


class UnreadableResponse(Exception):
    """The bytes are no response that this reader understands."""


class Response(NamedTuple):
    """One answer; ``head`` is the status line and the headers, as they came."""

    status: int
    head: bytes
    body: bytes

    def header(self, name: bytes) -> bytes | None:
        """The value of a header; ``name`` in lower case."""
        start = self.head.lower().find(b"\r\n" + name + b":")
        if start < 0:
            return None
        value_at = start + len(name) + 3
        end = self.head.find(_LINE_END, value_at)
        return self.head[value_at : end if end >= 0 else None].strip()


class ResponseReader:
    """Cuts what one connection receives into responses, however the bytes arrive."""

    def __init__(self) -> None:
        """Start with nothing received."""
        self._rest = b""

    def feed(self, received: bytes) -> list[Response]:
        """Take more bytes and return the responses that they complete.

        Raises:
            UnreadableResponse: these are not the bytes of a response.
        """
        data = self._rest + received if self._rest else received
        responses = []
        start = 0
        while start < len(data):
            found = _first_response(data, start)
            if found is None:
                break
            response, start = found
            responses.append(response)
        self._rest = data[start:]
        return responses


def build_request(
    method: str, path: str, host: str, body: bytes = b"", headers: dict[str, str] | None = None
) -> bytes:
    """The bytes of a request on a connection that is kept."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    if body or method not in ("GET", "DELETE", "OPTIONS"):
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode() + _HEAD_END + body


def _first_response(data: bytes, start: int) -> tuple[Response, int] | None:
    """The response that begins at ``start`` and where it ends, or None while it is incomplete."""
    head_end = data.find(_HEAD_END, start)
    if head_end < 0:
        return None
    head = data[start:head_end]
    status = _status(head)
    body_at = head_end + len(_HEAD_END)
    low = head.lower()
    if _CHUNKED in low:
        return _chunked(data, head, status, body_at)
    length = 0 if status in _NO_BODY else _length(low)
    if len(data) < body_at + length:
        return None
    return Response(status, head, data[body_at : body_at + length]), body_at + length


def _status(head: bytes) -> int:
    # "HTTP/1.1 202 ACCEPTED": the code stands at a fixed place.
    if not head.startswith(b"HTTP/1.") or not head[9:12].isdigit():
        raise UnreadableResponse(f"no status line: {head[:40]!r}")
    return int(head[9:12])


def _length(low: bytes) -> int:
    at = low.find(_LENGTH)
    if at < 0:
        raise UnreadableResponse("neither a length nor chunks")
    end = low.find(_LINE_END, at + 2)
    text = low[at + len(_LENGTH) : end if end >= 0 else None].strip()
    if not text.isdigit():
        raise UnreadableResponse(f"no length: {text!r}")
    return int(text)


def _chunked(data: bytes, head: bytes, status: int, at: int) -> tuple[Response, int] | None:
    parts: list[bytes] = []
    while True:
        line_end = data.find(_LINE_END, at)
        if line_end < 0:
            return None
        try:
            size = int(data[at:line_end].partition(b";")[0], 16)
        except ValueError as error:
            raise UnreadableResponse(f"no chunk size: {data[at:line_end]!r}") from error
        chunk_at = line_end + 2
        if len(data) < chunk_at + size + 2:
            return None
        if size == 0:
            return Response(status, head, b"".join(parts)), chunk_at + 2
        parts.append(data[chunk_at : chunk_at + size])
        at = chunk_at + size + 2
