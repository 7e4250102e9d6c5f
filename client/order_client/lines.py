"""Bytes to lines, without holding more than one line of them."""

from collections.abc import Iterable, Iterator
from typing import Final

from order_client.errors import ProtocolError

LINE_BYTES_MAX: Final = 1024 * 1024
"""Far more than any order takes; an answer without line ends must not fill the memory."""


def lines_of(parts: Iterable[bytes], *, bytes_max: int = LINE_BYTES_MAX) -> Iterator[bytes]:
    """The lines, ended by LF, CR or CRLF, without their ends; a last one may do without.

    Raises:
        ProtocolError: a line is longer than ``bytes_max``.
    """
    rest = b""
    after_cr = False
    for part in parts:
        # CR and LF of one line end may come in two parts.
        text = rest + (part[1:] if after_cr and part.startswith(b"\n") else part)
        after_cr = part.endswith(b"\r") if part else after_cr
        *lines, rest = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        if len(rest) > bytes_max:
            raise ProtocolError(f"The service sent a line of more than {bytes_max} bytes.")
        yield from lines
    if rest:
        yield rest
