"""What clients saw: one line of JSON for each call, with times of the monotonic clock.

Linux has one monotonic clock for all processes, so the times of several clients can be compared.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Any

OPEN, PLACE, BULK, CANCEL = "open", "place", "bulk", "cancel"
ORDER, ACCOUNT, LIST, EVENT = "order", "account", "list", "event"
REUSE, STRANGE = "reuse", "strange"
"""A key with another body, and an order looked for under another account: both have to fail."""
DAMAGE, REPLAY = "damage", "replay"
"""What is done to an order by hand: its item is damaged, and, once it is parked, replayed."""

OPERATIONS = (OPEN, PLACE, BULK, CANCEL, ORDER, ACCOUNT, LIST, EVENT, REUSE, STRANGE)


@dataclass(frozen=True, slots=True)
class Call:
    """One HTTP request and what came back; ``status`` is None when no answer came.

    ``request`` names what the client wants: the repetitions of one POST share it. ``again`` marks
    a POST that was repeated although its answer was known. ``wait`` is for how many seconds the
    client was ready to wait for the outcome, ``statuses`` what a list was asked for. The body of a
    304 is the one that the client held. An event is a call that ends when the event comes;
    ``request`` names its stream, and ``place`` is its id; one without a status is where it begins.
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
    wait: int | None = None
    statuses: str | None = None
    place: str | None = None
    replayed: bool = False
    again: bool = False
    error: str | None = None


def lines_of(call: Call) -> list[Call]:
    """The lines of a bulk request as POSTs of their own; one without an answer has status None.

    An answer that broke off counts as far as its lines are whole.
    """
    is_refused = call.status not in (200, None)
    answers = {} if is_refused else {told["line"]: (told, text) for told, text in _answered(call)}
    lines = []
    for number, sent in enumerate((call.sent or "").splitlines(), start=1):
        told, text = answers.get(number, ({}, ""))
        lines.append(
            replace(
                call,
                op=PLACE,
                request=f"{call.request}/{number}",
                key=f"{call.key}/{number}" if call.key else None,
                account=json.loads(sent)["account_id"],
                sent=sent,
                status=call.status if is_refused else told.get("status"),
                body=call.body if is_refused else _part(text, "order") or _part(text, "problem"),
                replayed=told.get("replayed", False),
            )
        )
    return lines


def _answered(call: Call) -> Iterator[tuple[dict[str, Any], str]]:
    for text in (call.body or "").split("\n")[:-1]:
        yield json.loads(text), text


def _part(text: str, name: str) -> str | None:
    """The last member of a JSON object as it is written, if it has this name."""
    _, found, rest = text.partition(f'"{name}":')
    return rest[:-1] if found else None


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
