"""An account's decisions in their sequence, and whether streams of events told them all."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from tests.chaos.history import Call
from tests.chaos.posts import read_json
from tests.chaos.table import OrderRow


@dataclass(frozen=True, slots=True)
class Turn:
    """One place in an account's sequence: of an order, or of a parking that was taken back."""

    number: int
    row: OrderRow
    is_taken_back: bool = False


def turns_of(rows: Iterable[OrderRow]) -> list[Turn]:
    """Every place that the orders of one account hold, by number."""
    turns = []
    for row in rows:
        if row.sequence is not None:
            turns.append(Turn(row.sequence, row))
        turns += [Turn(number, row, is_taken_back=True) for number in row.parkings if number]
    return sorted(turns, key=lambda turn: turn.number)


def in_order_of_ids(turns: Iterable[Turn]) -> list[OrderRow]:
    """The orders whose decisions have to follow their ids: none that was cancelled or replayed."""
    return [turn.row for turn in turns if not turn.row.parkings and turn.row.status != "cancelled"]


def wrong_events(events: Sequence[Call], turns: Sequence[Turn]) -> Iterator[str]:
    """What one stream left out, repeated or mixed up; its last call says that no more came.

    A parking that was taken back may be among them: it depends on when somebody looked.
    """
    at = 0
    for event in sorted(events, key=lambda call: call.end):
        if event.order is None:
            missing = [turn for turn in turns[at:] if not turn.is_taken_back]
            if missing:
                yield f"{event.request}: ends before decision {missing[0].number}"
            return
        status = read_json(event.body)["status"]
        place = _place(turns, at, event.order, is_failed=status == "failed")
        if place is None:
            yield f"{event.request}: {event.order} ({status}) after decision {at}"
            return
        left_out = [turn for turn in turns[at:place] if not turn.is_taken_back]
        if left_out:
            yield f"{event.request}: decision {left_out[0].number} is left out"
        at = place + 1


def _place(turns: Sequence[Turn], start: int, order: str, *, is_failed: bool) -> int | None:
    for place in range(start, len(turns)):
        turn = turns[place]
        if turn.row.id == order and (is_failed or not turn.is_taken_back):
            return place
    return None
