"""What a load leaves on disk: one line after the other, a torn last one cut off, one writer."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final, Self

if sys.platform != "win32":
    import fcntl

_TAIL_BYTES: Final = 64 * 1024


class FileInUse(Exception):
    """Another process writes to it."""


class LineFile:
    """A file that grows by whole lines. Only one process may have it open."""

    def __init__(self, path: Path) -> None:
        """Open or make it, and cut off a last line that a killed process left unfinished.

        Raises:
            FileInUse: another process has it open.
            OSError: it cannot be written.
        """
        self.path = path
        self._file: BinaryIO = path.open("a+b")
        try:
            self._lock()
            self._cut_torn_line()
        except BaseException:
            self._file.close()
            raise

    def close(self) -> None:
        """Close it, and let others have it."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def is_empty(self) -> bool:
        """Whether nothing was ever written."""
        return self._file.seek(0, os.SEEK_END) == 0

    def lines(self) -> Iterator[bytes]:
        """Everything from the start."""
        self._file.seek(0)
        yield from self._file

    def append(self, lines: bytes) -> None:
        """Add whole lines, and see them on the disk."""
        self._file.write(lines)
        self._file.flush()
        os.fsync(self._file.fileno())

    def _lock(self) -> None:
        if sys.platform == "win32":
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FileInUse(f"{self.path} is being written by another load.") from None

    def _cut_torn_line(self) -> None:
        end = self._file.seek(0, os.SEEK_END)
        size = end
        while size > 0:
            start = max(0, size - _TAIL_BYTES)
            self._file.seek(start)
            newline = self._file.read(size - start).rfind(b"\n")
            if newline >= 0:
                size = start + newline + 1
                break
            size = start
        if size < end:
            self._file.truncate(size)
