"""A backup's two files: gzip'd lines of DynamoDB JSON, and a manifest that vouches for them.

The lines have the form of AWS's own export to S3. The manifest is written last: a file without one
is not whole.
"""

import gzip
import hashlib
import json
import os
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, Self

from ops import binary
from shared.order_store.keys import PK, SK, Item

FORMAT: Final = "order-processor backup"
VERSION: Final = 1

_CHUNK_BYTES: Final = 1024 * 1024
_COMPRESSION: Final = 6
_OWNER_ONLY: Final = 0o600


class BadBackup(Exception):
    """The file is not, or not any more, what a backup wrote; the text says why."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a backup says of itself; ``bytes`` and ``sha256`` are of the gzip'd file."""

    table: str
    began_at: str
    ended_at: str
    items: int
    accounts: int
    idempotency_keys_left_out: int
    bytes: int
    sha256: str
    format: str = FORMAT
    version: int = VERSION


def manifest_of(file: Path) -> Path:
    """Where the manifest of ``file`` is."""
    return file.with_name(file.name + ".manifest.json")


class BackupWriter:
    """Writes ``file`` under a temporary name; ``finish`` gives it its own, for good.

    Without ``finish`` nothing is left behind.
    """

    def __init__(self, file: Path) -> None:
        """Begin; raises ``FileExistsError`` if there is such a file, as nothing is overwritten."""
        for taken in (file, manifest_of(file)):
            if taken.exists():
                raise FileExistsError(f"{taken} exists")
        self._file = file
        self._temporary = _temporary(file)
        self._raw = _create(self._temporary)
        self._hashed = _Hashed(self._raw)
        self._lines = gzip.GzipFile("", "wb", _COMPRESSION, self._hashed, mtime=0)

    def write(self, line: bytes) -> None:
        """Add a line."""
        self._lines.write(line)

    def finish(self, **facts: Any) -> Manifest:
        """End the file, and vouch for it with ``facts``: those that ``Manifest`` asks for."""
        self._lines.close()
        _close_for_good(self._raw)
        manifest = Manifest(
            **facts, bytes=self._hashed.bytes, sha256=self._hashed.sha256.hexdigest()
        )
        vouching = manifest_of(self._file)
        with _create(_temporary(vouching)) as raw:
            raw.write(json.dumps(asdict(manifest), indent=2).encode() + b"\n")
            _close_for_good(raw)
        self._temporary.rename(self._file)
        _temporary(vouching).rename(vouching)
        _sync_folder(self._file.parent)
        return manifest

    def __enter__(self) -> Self:
        """Write within a ``with``."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Remove what was not finished."""
        self._raw.close()
        for left in (self._temporary, _temporary(manifest_of(self._file))):
            left.unlink(missing_ok=True)


def verify(file: Path) -> Manifest:
    """Read all of ``file`` and compare it with its manifest.

    Raises:
        BadBackup: they do not fit.
        OSError: one of them cannot be read.
    """
    manifest = _read_manifest(manifest_of(file))
    digest, size = hashlib.sha256(), 0
    with file.open("rb") as raw:
        while chunk := raw.read(_CHUNK_BYTES):
            digest.update(chunk)
            size += len(chunk)
    if size != manifest.bytes:
        raise BadBackup(
            f"it has {size:,} bytes and not {manifest.bytes:,}: it is cut off or changed"
        )
    if digest.hexdigest() != manifest.sha256:
        raise BadBackup("its SHA-256 is not that of its manifest: it was changed")
    found = sum(1 for _ in read_items(file))
    if found != manifest.items:
        raise BadBackup(f"it holds {found:,} items and not {manifest.items:,}")
    return manifest


def read_items(file: Path) -> Iterator[Item]:
    """Stream the items of ``file``.

    Raises:
        BadBackup: a line is no item of a table like ours.
        OSError: the file cannot be read.
    """
    number = 0
    try:
        with gzip.open(file, "rb") as lines:
            for line in lines:
                number += 1
                yield _item_of(line)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise BadBackup(f"it is no whole gzip file: {error}") from error
    except (ValueError, LookupError, TypeError) as error:
        raise BadBackup(f"line {number:,} is no item: {error!r}") from error


def _item_of(line: bytes) -> Item:
    item: Item = json.loads(line)["Item"]
    if not (isinstance(item[PK]["S"], str) and isinstance(item[SK]["S"], str)):
        raise TypeError("its key is no text")
    return binary.with_bytes(item)


def _read_manifest(vouching: Path) -> Manifest:
    try:
        text = vouching.read_text()
    except FileNotFoundError as error:
        raise BadBackup(f"there is no {vouching.name} beside it: it was never finished") from error
    try:
        said = json.loads(text)
        known = (said["format"], said["version"]) == (FORMAT, VERSION)
    except (ValueError, LookupError, TypeError) as error:
        raise BadBackup(f"{vouching.name} cannot be read: {error!r}") from error
    if not known:
        raise BadBackup(
            f"{vouching.name} is of {said['format']!r} version {said['version']!r}, "
            f"and this reads {FORMAT!r} version {VERSION}"
        )
    try:
        return Manifest(**said)
    except TypeError as error:
        raise BadBackup(f"{vouching.name} cannot be read: {error}") from error


class _Hashed:
    """A file for writing that keeps count and digest of its bytes."""

    def __init__(self, raw: IO[bytes]) -> None:
        self._raw = raw
        self.sha256 = hashlib.sha256()
        self.bytes = 0

    def write(self, data: bytes) -> int:
        self.sha256.update(data)
        self.bytes += len(data)
        return self._raw.write(data)

    def flush(self) -> None:
        self._raw.flush()


def _temporary(file: Path) -> Path:
    return file.with_name(f".{file.name}.unfinished")


def _create(file: Path) -> IO[bytes]:
    """A new file, for the owner alone: it tells balances and the hashes of keys."""
    return os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, _OWNER_ONLY), "wb")


def _close_for_good(raw: IO[bytes]) -> None:
    raw.flush()
    os.fsync(raw.fileno())
    raw.close()


def _sync_folder(folder: Path) -> None:
    with suppress(OSError):  # some file systems cannot; the files themselves are safe
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
