"""An account's decided orders in the sequence of their decisions, read from where they stand.

Orders are sorted by acceptance, and no index sorts them by decision: it would cost each of them
more writes. It is not needed. An account is decided in the sequence of acceptance, but for
cancelled and replayed orders, and its decisions are counted without a gap. So a reader goes on from
the first order that it may not have seen, and the numbers tell whether it has found all. Only for
what was replayed it looks back. Why: docs/decisions/0020-events-are-read-from-the-store.md.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from shared.domain.order import OrderStatus
from shared.ids import NO_ORDER_ID
from shared.logs import get_logger
from shared.order_store import items, keys
from shared.order_store.gateway import Gateway
from shared.order_store.keys import Item
from shared.order_store.reads import load_account
from shared.order_store.records import RecordedOrder, UnreadableOrder

WINDOW_DECISIONS_MAX: Final = 100
"""Decisions that are looked for, and kept in memory, at once."""

PAGE_ITEMS_MAX: Final = 500
"""Orders read at once."""

_PAGE_GROWTH: Final = 4
_SETTLE_SECONDS: Final = 0.2
"""A transaction shows all of itself a moment after it shows its first part."""

log = get_logger(__name__)

Order = RecordedOrder | UnreadableOrder


@dataclass(frozen=True, slots=True)
class Place:
    """How far an account's decisions were read: all up to the number ``sequence``.

    Every order with an id up to ``through`` has its decision there, or was parked and replayed.
    """

    sequence: int
    through: str


BEGINNING: Final = Place(0, NO_ORDER_ID)


@dataclass(frozen=True, slots=True)
class Window:
    """The next decided orders, each with the place after it; ``end`` is where to go on."""

    decided: tuple[tuple[Place, Order], ...]
    end: Place


def standing(gateway: Gateway, account_id: int) -> Place | None:
    """The end of what is decided so far, or None if there is no such account.

    Raises:
        UnreadableItem: the account's item does not have the shape that this code writes.
        StoreUnavailable: no answer in time.
    """
    recorded = load_account(gateway, account_id)
    return None if recorded is None else Place(recorded.decided, recorded.decided_through)


def decided_after(
    gateway: Gateway,
    account_id: int,
    since: Place,
    decided: int,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Window | None]:
    """Read what was decided after ``since``, of the account's first ``decided`` decisions.

    Yields:
        None after each page that does not hold all (reading on takes a while), at last the window.

    Raises:
        UnreadableItem, StoreUnavailable: as ``standing``.
    """
    search = _Search(since, min(decided, since.sequence + WINDOW_DECISIONS_MAX))
    yield from _look_ahead(gateway, account_id, search)
    if not search.is_complete:
        sleep(_SETTLE_SECONDS)
        actual = standing(gateway, account_id)
        search.begin_again(actual.sequence if actual else 0)
        yield from _look_ahead(gateway, account_id, search)
    if not search.is_complete:
        yield from _look_back(gateway, account_id, search)
    if not search.is_complete:
        # Deleted or damaged beyond reading: nothing that waiting would mend.
        log.error("decisions_missing", account_id=account_id, sequences=search.missing())
    yield search.window()


@dataclass(slots=True)
class _Search:
    """What is looked for: the decisions after ``since`` up to the number ``last``."""

    since: Place
    last: int
    found: dict[int, Order | None] = field(default_factory=dict)
    """By number; None where an order was parked and replayed since."""
    through: str = ""
    is_unbroken: bool = True
    """All orders up to ``through`` have their decision in the window, or before it."""

    def __post_init__(self) -> None:
        self.through = self.since.through

    @property
    def is_complete(self) -> bool:
        return len(self.found) >= self.last - self.since.sequence

    def begin_again(self, decided: int) -> None:
        """Look from the start, for no more than the account's first ``decided`` decisions."""
        self.last = max(min(self.last, decided), self.since.sequence)
        self.found = {number: order for number, order in self.found.items() if number <= self.last}
        self.through, self.is_unbroken = self.since.through, True

    def add(self, item: Item) -> None:
        """Note what an order's item says of the decisions that are looked for."""
        number, earlier = items.read_places(item)
        for parking in earlier:
            if self._is_wanted(parking):
                self.found.setdefault(parking, None)
        if number is not None and self._is_wanted(number):
            self.found[number] = items.read_order(item)

    def pass_by(self, item: Item) -> None:
        """Go on over the next order by id, as far as nothing is left to be decided before it."""
        number, _ = items.read_places(item)
        is_later = number is not None and number > self.last
        if is_later or items.read_status(item) is OrderStatus.PENDING:
            self.is_unbroken = False
        if self.is_unbroken:
            self.through = keys.order_of(item)[1]

    def missing(self) -> list[int]:
        return [n for n in range(self.since.sequence + 1, self.last + 1) if n not in self.found]

    def window(self) -> Window:
        end = Place(self.last, self.through)
        places = {number: Place(number, self.since.through) for number in self.found}
        places[self.last] = end
        decided = [
            (places[number], order)
            for number, order in sorted(self.found.items())
            if order is not None
        ]
        return Window(tuple(decided), end)

    def _is_wanted(self, number: int) -> bool:
        return self.since.sequence < number <= self.last


def _look_ahead(gateway: Gateway, account_id: int, search: _Search) -> Iterator[None]:
    """Look at the orders after the search's start: in most cases they hold all, side by side."""
    values = keys.orders_of(account_id, search.since.through)
    start: dict[str, Any] = {}
    limit = search.last - search.since.sequence + 1
    while not search.is_complete:
        page, last = gateway.query(**_query(values), **start, Limit=min(limit, PAGE_ITEMS_MAX))
        for item in page:
            if keys.order_of(item)[1] > search.since.through:
                search.add(item)
                search.pass_by(item)
        if last is None:
            return
        if not search.is_complete:
            yield None
        start = {"ExclusiveStartKey": last}
        limit = min(limit * _PAGE_GROWTH, PAGE_ITEMS_MAX)


def _look_back(gateway: Gateway, account_id: int, search: _Search) -> Iterator[None]:
    """Look for replayed orders before the search's start, the newest first."""
    values = keys.orders_of(account_id, to=search.since.through)
    query = _query({**values, ":since": items.number(search.since.sequence)})
    query["FilterExpression"] = "#sequence > :since OR attribute_exists(#parked)"
    query["ExpressionAttributeNames"] |= {"#sequence": "sequence", "#parked": "parked"}
    start: dict[str, Any] = {}
    while not search.is_complete:
        page, last = gateway.query(**query, **start, ScanIndexForward=False)
        for item in page:
            search.add(item)
        if last is None:
            return
        yield None
        start = {"ExclusiveStartKey": last}


def _query(values: dict[str, Any]) -> dict[str, Any]:
    return {
        "KeyConditionExpression": "#pk = :pk AND #sk BETWEEN :from AND :to",
        "ExpressionAttributeNames": {"#pk": keys.PK, "#sk": keys.SK},
        "ExpressionAttributeValues": values,
        "ConsistentRead": True,
    }
