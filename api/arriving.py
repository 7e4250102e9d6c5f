"""How much of a request has arrived: tells when a thread can serve it without waiting for bytes.

This decides when to begin, never what was asked: gunicorn's parser reads the same bytes again and
is the only judge of them. What it refuses is handed to it at once, so that it can say so.
"""

import re
from enum import Enum, auto
from typing import Final

from api.body_limits import BodyLimits

HEAD_BYTES_MAX: Final = 32 * 1024
"""The request line and all headers together."""

CHUNK_LINE_BYTES_MAX: Final = 8192
"""The line before each chunk: its size and extensions that nobody reads."""

CHUNKED_OVERHEAD: Final = 2
"""A chunked body may take this many times its limit on the wire."""

_LINE_END: Final = b"\r\n"
_HEAD_END: Final = b"\r\n\r\n"
_LENGTH: Final = re.compile(rb"[0-9]{1,18}")
_CHUNK_LINE: Final = re.compile(rb"([0-9a-fA-F]+)[ \t]*(;.*)?", re.DOTALL)
_OFFERS_CONTINUE: Final = b" HTTP/1.1"


class Arrival(Enum):
    """How a request stands."""

    MORE = auto()
    """Not whole yet."""
    EXPECTS = auto()
    """Its body comes when it is told to go on."""
    WHOLE = auto()
    """All there, or such that no more bytes could mend it."""
    HEAD_TOO_LARGE = auto()
    BODY_TOO_LARGE = auto()


class Arriving:
    """The bytes of one request as they come in, and of those that follow it on its connection."""

    def __init__(self, limits: BodyLimits) -> None:
        """Wait for a body within ``limits``."""
        self.received = bytearray()
        self._limits = limits
        self._body_bytes_max = limits.usual
        self._searched = 0
        self._body_at: int | None = None
        self._length: int | None = None
        self._chunk_at = 0
        self._chunked_bytes = 0
        self._is_in_trailers = False
        self._expects = False

    def add(self, data: bytes) -> Arrival:
        """Take ``data`` in and tell how the request stands."""
        self.received += data
        if self._body_at is None:
            state = self._find_head()
            if state is not None:
                return state
        return self._judge_body()

    def _find_head(self) -> Arrival | None:
        """Look for the end of the head; None when it is there and a body is to follow."""
        end = self.received.find(_HEAD_END, self._searched)
        if (len(self.received) if end < 0 else end) > HEAD_BYTES_MAX:
            return Arrival.HEAD_TOO_LARGE
        if end >= 0:
            self._body_at = self._chunk_at = end + len(_HEAD_END)
            return self._read_head(bytes(self.received[:end]))
        # A line that ends without a carriage return is refused, however long the head gets.
        if _has_bare_line_feed(self.received, self._searched):
            return Arrival.WHOLE
        self._searched = max(0, len(self.received) - len(_HEAD_END) + 1)
        return Arrival.MORE

    def _read_head(self, head: bytes) -> Arrival | None:
        request_line, *lines = head.removeprefix(_LINE_END).split(_LINE_END)
        self._body_bytes_max = self._limits.of(request_line)
        fields = dict(_field(line) for line in lines)
        self._expects = fields.get(b"expect", b"").lower() == b"100-continue"
        self._expects = self._expects and request_line.endswith(_OFFERS_CONTINUE)
        if b"transfer-encoding" in fields:
            last_coding = fields[b"transfer-encoding"].lower().split(b",")[-1].strip()
            return None if last_coding == b"chunked" else Arrival.WHOLE
        length = fields.get(b"content-length", b"0")
        if not _LENGTH.fullmatch(length):
            # More digits are a body too large; anything else is refused by the parser.
            return Arrival.BODY_TOO_LARGE if length.isdigit() else Arrival.WHOLE
        self._length = int(length)
        return None

    def _judge_body(self) -> Arrival:
        state = self._judge_chunks() if self._length is None else self._judge_length(self._length)
        if state is not Arrival.MORE or not self._expects:
            return state
        self._expects = False
        return Arrival.EXPECTS

    def _judge_length(self, length: int) -> Arrival:
        if length > self._body_bytes_max:
            return Arrival.BODY_TOO_LARGE
        arrived = len(self.received) - (self._body_at or 0)
        return Arrival.WHOLE if arrived >= length else Arrival.MORE

    def _judge_chunks(self) -> Arrival:
        """Go on from chunk to chunk as far as they have arrived."""
        while not self._is_in_trailers:
            if len(self.received) < self._chunk_at:
                break
            end = self.received.find(_LINE_END, self._chunk_at)
            if end < 0:
                is_too_long = len(self.received) - self._chunk_at > CHUNK_LINE_BYTES_MAX
                return Arrival.WHOLE if is_too_long else self._judge_wire()
            line = _CHUNK_LINE.fullmatch(self.received, self._chunk_at, end)
            if line is None or end - self._chunk_at > CHUNK_LINE_BYTES_MAX:
                return Arrival.WHOLE
            size = int(line[1], 16)
            self._chunked_bytes += size
            if self._chunked_bytes > self._body_bytes_max:
                return Arrival.BODY_TOO_LARGE
            self._is_in_trailers = size == 0
            # The trailers' end is looked for from the last chunk's own line end on.
            self._chunk_at = end if self._is_in_trailers else end + size + 2 * len(_LINE_END)
        return self._judge_trailers() if self._is_in_trailers else self._judge_wire()

    def _judge_trailers(self) -> Arrival:
        if self.received.find(_HEAD_END, self._chunk_at) >= 0:
            return Arrival.WHOLE
        is_too_long = len(self.received) - self._chunk_at > HEAD_BYTES_MAX
        return Arrival.HEAD_TOO_LARGE if is_too_long else Arrival.MORE

    def _judge_wire(self) -> Arrival:
        on_the_wire = len(self.received) - (self._body_at or 0)
        allowed = HEAD_BYTES_MAX + CHUNKED_OVERHEAD * self._body_bytes_max
        return Arrival.BODY_TOO_LARGE if on_the_wire > allowed else Arrival.MORE


def _field(line: bytes) -> tuple[bytes, bytes]:
    name, _, value = line.partition(b":")
    return name.lower(), value.strip(b" \t")


def _has_bare_line_feed(received: bytearray, start: int) -> bool:
    found = received.find(b"\n", start)
    while found >= 0:
        if found == 0 or received[found - 1] != ord("\r"):
            return True
        found = received.find(b"\n", found + 1)
    return False
