"""What was sent, written down before it is sent: so a later run sends the same again, or nothing.

A line's idempotency key follows from the file's content, its number, and the name of the run. Its
date, if the file gives none, is the chunk's: kept here, since a request that repeats a key has to
be the same in all else too.
"""

import hashlib
import json
from bisect import bisect_right
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, Self

from order_client.load.files import LineFile

KEY_LIFE: Final = timedelta(hours=24)
"""How long the service remembers a key."""

KEY_MARGIN: Final = timedelta(minutes=10)
"""Clocks differ, and a line takes its time to arrive."""

_VERSION: Final = 1


class JournalMismatch(Exception):
    """The journal belongs to another load; the text says in what."""


@dataclass(frozen=True, slots=True)
class Run:
    """One load: this content, into this service, under this name."""

    file_sha256: str
    url: str
    name: str

    def key(self, line: int) -> str:
        """The idempotency key of a line: the same whenever it is sent."""
        text = f"{self.file_sha256}\n{self.name}".encode()
        return f"{hashlib.sha256(text).hexdigest()[:32]}-{line}"


@dataclass(frozen=True, slots=True)
class Sending:
    """Lines ``first`` to ``last``, sent at ``at`` for the first time, perhaps."""

    first: int
    last: int
    at: datetime

    def is_forgotten(self, now: datetime) -> bool:
        """Whether the keys may be forgotten: then a repetition might be a second order."""
        return now - self.at >= KEY_LIFE - KEY_MARGIN


class Journal:
    """The journal of one load, beside its results."""

    def __init__(self, path: Path, run: Run) -> None:
        """Open it, or begin it.

        Raises:
            JournalMismatch: it is another load's.
            FileInUse: another process writes to it.
        """
        self._file = LineFile(path)
        self._sendings: list[Sending] = []
        try:
            if self._file.is_empty:
                self._begin(run)
            else:
                self._read(run)
        except BaseException:
            self._file.close()
            raise

    def close(self) -> None:
        """Close it."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def sending_of(self, line: int) -> Sending | None:
        """When the line was sent by an earlier run, if it may have been."""
        place = bisect_right(self._sendings, line, key=lambda sending: sending.first)
        if place == 0:
            return None
        found = self._sendings[place - 1]
        return found if line <= found.last else None

    def note(self, sending: Sending) -> None:
        """Write down what is sent next. Lines only ever go forward."""
        self._append(
            {"first": sending.first, "last": sending.last, "at": sending.at.isoformat()},
        )
        self._sendings.append(sending)

    def _begin(self, run: Run) -> None:
        self._append(
            {
                "journal": _VERSION,
                "file_sha256": run.file_sha256,
                "url": run.url,
                "run": run.name,
            }
        )

    def _append(self, entry: dict[str, object]) -> None:
        self._file.append(json.dumps(entry).encode() + b"\n")

    def _read(self, run: Run) -> None:
        path = self._file.path
        try:
            head, *entries = map(json.loads, self._file.lines())
            found = Run(str(head["file_sha256"]), str(head["url"]), str(head["run"]))
            self._sendings = [_sending(entry) for entry in entries]
        except (ValueError, KeyError, TypeError) as error:
            raise JournalMismatch(f"{path} is no journal of a load: {error!r}") from None
        if found.file_sha256 != run.file_sha256:
            raise JournalMismatch("The file has changed since its load began.")
        if found.url != run.url:
            raise JournalMismatch(f"The load that began here went to {found.url}.")
        if found.name != run.name:
            raise JournalMismatch(f"The load that began here has the name {found.name!r}.")


def _sending(entry: dict[str, object]) -> Sending:
    at = datetime.fromisoformat(str(entry["at"])).astimezone(UTC)
    return Sending(int(str(entry["first"])), int(str(entry["last"])), at)
