"""The result file: a CSV line for each line of the source, in its sequence."""

import csv
import io
from collections import Counter
from collections.abc import Iterable
from dataclasses import astuple, dataclass, fields
from enum import StrEnum
from pathlib import Path
from typing import Final, Self

from order_client.load.files import LineFile

DETAIL_LENGTH_MAX: Final = 500


class LineStatus(StrEnum):
    """What became of a line: the order's own status, or one of these."""

    ACCEPTED = "accepted"
    """Recorded; its decision was not waited for."""
    REFUSED = "refused"
    """Not recorded: the line or the order is at fault."""
    UNKNOWN = "unknown"
    """It may be recorded or not, and it is not safe to send it again."""


class ResultsMismatch(Exception):
    """The file is no result file of this load; the text says why."""


@dataclass(frozen=True, slots=True)
class LineResult:
    """A line of the result file."""

    line: int
    account_id: str
    status: str
    order_id: str = ""
    code: str = ""
    detail: str = ""


_HEADER: Final = tuple(field.name for field in fields(LineResult))


class Results:
    """The result file, open for more lines.

    Attributes:
        last_line: number of the last line that has a result; 0 if none has.
        counts: how many lines have each status.
    """

    def __init__(self, path: Path) -> None:
        """Open or make it; a torn last line is cut off.

        Raises:
            ResultsMismatch: it holds something else.
            FileInUse: another process writes to it.
        """
        self.path = path
        self.last_line = 0
        self.counts: Counter[str] = Counter()
        self._file = LineFile(path)
        try:
            if self._file.is_empty:
                self._file.append(_csv([_HEADER]))
            else:
                self._read()
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

    def add(self, results: Iterable[LineResult]) -> None:
        """Write some more, in the lines' sequence."""
        added = list(results)
        if not added:
            return
        self._file.append(_csv([_tuple(result) for result in added]))
        for result in added:
            self._count(result.line, result.status)

    def _read(self) -> None:
        lines = self._file.lines()
        if next(lines) != _csv([_HEADER]):
            raise ResultsMismatch(f"{self.path} is there already and is no result file.")
        try:
            for line in lines:
                number, _, status, *_ = next(csv.reader([line.decode()], strict=True))
                self._count(int(number), status)
        except (ValueError, csv.Error) as error:
            raise ResultsMismatch(f"{self.path} has a line that is no result: {error}") from None

    def _count(self, line: int, status: str) -> None:
        if line <= self.last_line:
            raise ValueError(f"line {line} follows line {self.last_line}")
        self.last_line = line
        self.counts[status] += 1


def _tuple(result: LineResult) -> tuple[object, ...]:
    *others, detail = astuple(result)
    # One line each, whatever a detail holds: the file is mended by its line ends.
    return (*others, " ".join(str(detail).split())[:DETAIL_LENGTH_MAX])


def _csv(rows: Iterable[Iterable[object]]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()
