"""The CSV file: read twice as a stream, once to know what it is, once to send it.

Each line is read by itself, so a stray quote spoils its own line and no other.
"""

import csv
import hashlib
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from order_client.models import NewOrder

COLUMNS: Final = (
    "account_id",
    "timestamp",
    "operation",
    "issuer_name",
    "total_shares",
    "share_price",
)
LINE_BYTES_MAX: Final = 64 * 1024
_READ_BYTES: Final = 256 * 1024
_ACCOUNT_DIGITS_MAX: Final = 18
_BOM: Final = b"\xef\xbb\xbf"
_NOW: Final = "now"


class SourceError(Exception):
    """The file cannot be loaded at all; the text says why."""


@dataclass(frozen=True, slots=True)
class Known:
    """What the first reading found: the file's SHA-256 and how many orders it has."""

    sha256: str
    rows: int


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the file: an order, or why it is none. Lines are numbered from 1, as editors do."""

    line: int
    account_id: str
    order: NewOrder | None = None
    trouble: str | None = None


def know(path: Path) -> Known:
    """Read the file once, for its hash and its number of orders; blank lines are none.

    Raises:
        SourceError: it is no such file, has no header or not all columns.
    """
    if not path.is_file():
        raise SourceError(f"{path} is no file; it is read twice, so a pipe will not do.")
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(_READ_BYTES):
            digest.update(part)
    with path.open("rb") as file:
        _header(file, path)
        rows = sum(1 for _, line, _ in _lines(file, 2) if line.strip())
    return Known(digest.hexdigest(), rows)


def read_rows(path: Path) -> Iterator[Row]:
    """The file's orders, in sequence.

    Raises:
        SourceError: as ``know``.
    """
    with path.open("rb") as file:
        places = _header(file, path)
        for number, line, is_whole in _lines(file, 2):
            if not line.strip():
                continue
            if not is_whole:
                yield Row(number, "", trouble=f"has more than {LINE_BYTES_MAX} bytes")
                continue
            yield _row(number, line, places)


def _header(file: BinaryIO, path: Path) -> dict[str, int]:
    line = file.readline(LINE_BYTES_MAX).removeprefix(_BOM)
    try:
        names = [name.strip().lower() for name in _fields(line)]
    except ValueError as error:
        raise SourceError(f"{path} does not begin with a header: it {error}.") from None
    missing = [name for name in COLUMNS if name not in names]
    if missing:
        raise SourceError(
            f"{path} has no column {', '.join(missing)}. Its first line must name the columns: "
            f"{','.join(COLUMNS)}"
        )
    if len(set(names)) < len(names):
        raise SourceError(f"{path} names a column twice.")
    return {name: place for place, name in enumerate(names)}


def _lines(file: BinaryIO, first: int) -> Iterator[tuple[int, bytes, bool]]:
    """Number, bytes and whether that is the whole line; of one that is too long only the start."""
    number = first
    while line := file.readline(LINE_BYTES_MAX):
        is_whole = line.endswith(b"\n") or len(line) < LINE_BYTES_MAX
        rest = b"" if is_whole else file.readline(LINE_BYTES_MAX)
        while rest and not rest.endswith(b"\n"):
            rest = file.readline(LINE_BYTES_MAX)
        yield number, line, is_whole
        number += 1


def _fields(line: bytes) -> list[str]:
    """The fields of one line.

    Raises:
        ValueError: it is no UTF-8 or no CSV; the text goes on from "it".
    """
    try:
        return next(csv.reader(io.StringIO(line.decode().rstrip("\r\n"), newline=""), strict=True))
    except UnicodeDecodeError:
        raise ValueError("is no UTF-8") from None
    except StopIteration:
        raise ValueError("is empty") from None
    except csv.Error as error:
        raise ValueError(f"is no CSV ({error})") from None


def _row(number: int, line: bytes, places: Mapping[str, int]) -> Row:
    try:
        fields = _fields(line)
    except ValueError as error:
        return Row(number, "", trouble=str(error))
    if len(fields) != len(places):
        return Row(number, "", trouble=f"has {len(fields)} fields, the header {len(places)}")
    value = {name: fields[place].strip() for name, place in places.items()}
    account_id = value["account_id"]
    if not _is_id(account_id):
        return Row(number, account_id[:_ACCOUNT_DIGITS_MAX], trouble="account_id is no account's")
    timestamp = value["timestamp"]
    order = NewOrder(
        int(account_id),
        value["operation"],
        value["issuer_name"],
        value["total_shares"],
        value["share_price"],
        timestamp=None if timestamp.lower() in ("", _NOW) else timestamp,
    )
    return Row(number, account_id, order)


def _is_id(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= _ACCOUNT_DIGITS_MAX and int(text) > 0
