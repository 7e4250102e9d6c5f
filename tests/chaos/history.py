"""What clients saw: one line of JSON for each call, with times of the monotonic clock.

Linux has one monotonic clock for all processes, so the times of several clients can be compared.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

OPEN, PLACE, ORDER, ACCOUNT, LIST = "open", "place", "order", "account", "list"


@dataclass(frozen=True, slots=True)
class Call:
    """One HTTP request and what came back; ``status`` is None when no answer came.

    ``request`` names what the client wants: the repetitions of one POST share it. ``again`` marks
    a POST that was repeated although its answer was known.
    """

    op: str
    request: str
    start: float
    end: float
    status: int | None = None
    body: str | None = None
    account: int | None = None
    order: str | None = None
    key: str | None = None
    sent: str | None = None
    limit: int | None = None
    before: str | None = None
    replayed: bool = False
    again: bool = False
    error: str | None = None


class Recorder:
    """Appends calls to a file."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def add(self, call: Call) -> None:
        told = {name: value for name, value in asdict(call).items() if value not in (None, False)}
        self._file.write(json.dumps(told, ensure_ascii=False, separators=(",", ":")) + "\n")


def read_calls(paths: Iterable[Path]) -> Iterator[Call]:
    """Every call of some files of history."""
    for path in paths:
        with path.open(encoding="utf-8") as file:
            for line in file:
                yield Call(**json.loads(line))
