"""Every item of a table while traffic goes on, so that each account is as it was at one moment.

A scan is no snapshot: an order read after its account may be decided by then. What belongs to an
account is therefore held back until the account's two own items are read again. Both count: the
one each decision, the other each acceptance. If neither moved, nothing between the two reads did.
An account that moved is read anew, and then only what has changed, until it decides nothing for the
time of that: final orders never change, so a look at a busy account is soon a short one. Orders
that are accepted meanwhile are passed over, and the head of before does not know of them.

Accounts have nothing to do with each other, so one moment for each is enough. What is left are
idempotency keys: see ``_is_young``.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import Final, Protocol

from ops import binary
from shared.domain.order import FINAL_STATUSES, OrderStatus
from shared.ids import NO_ORDER_ID
from shared.order_store import items, keys
from shared.order_store.accepts import IDEMPOTENCY_LIFE
from shared.order_store.errors import UnreadableItem
from shared.order_store.gateway import BATCH_GET_KEYS_MAX, chunks
from shared.order_store.keys import ACCOUNT_KIND, EXPIRES_AT, HEAD_KIND, PK, SK, Item, Key

LOOKS_MAX: Final = 500
"""Looks at an account that goes on being traded; each reads little more than what has changed."""

STILL_LOOKS: Final = 3
"""Looks in a row at which nothing moves: then an account is believed whose counts are wrong."""

CLOCKS_APART: Final = timedelta(minutes=1)
"""How far the API's clocks may be from ours, for the age of idempotency keys."""

_CHECKED_TOGETHER: Final = 50
"""Accounts that one batch read checks: two keys each, and 100 are the limit."""

_IN_MEMORY_BYTES_MAX: Final = 256 * 1024
"""Of each account held back; the rest goes to a temporary file."""

_AFTER_EVERY_ID: Final = "~"

Marks = tuple[Item | None, Item | None]
"""An account's own items: its state and its head."""


class SnapshotImpossible(Exception):
    """There is no consistent state to be had; the text says of what."""


class Reader(Protocol):
    """What a snapshot asks of the store, beside the stream of pages."""

    def account_pages(self, account_id: int) -> Iterable[list[Item]]:
        """Every item of one account, by sort key."""

    def account_pages_after(self, account_id: int, order_id: str) -> Iterable[list[Item]]:
        """The same, but only what sorts after an order."""

    def read(self, item_keys: Sequence[Key]) -> list[Item]:
        """The items of some keys, in no particular order."""


@dataclass(slots=True)
class Counts:
    """What a snapshot holds: ``accounts_again`` moved and were read anew."""

    items: int = 0
    accounts: int = 0
    accounts_again: int = 0
    keys_left_out: int = 0


def line_of(item: Item) -> bytes:
    """An item as a line of DynamoDB JSON, as AWS's export to S3 writes them."""
    return binary.dumps({"Item": item}, separators=(",", ":")).encode() + b"\n"


class _Held:
    """Lines that are not written yet: in memory, or in a file if they are many."""

    def __init__(self, folder: Path, open_: "set[_Held]") -> None:
        """Stands in ``open_`` until it is closed."""
        self._file = SpooledTemporaryFile(_IN_MEMORY_BYTES_MAX, dir=str(folder))  # noqa: SIM115
        self._open = open_
        open_.add(self)

    def add(self, item: Item) -> None:
        self._file.write(line_of(item))

    def lines(self) -> Iterator[bytes]:
        """All lines in their order; at the end it is closed."""
        self._file.seek(0)
        yield from self._file
        self.close()

    def close(self) -> None:
        self._file.close()
        self._open.discard(self)


@dataclass(slots=True)
class _Scanned:
    """An account as the scan shows it."""

    pk: str
    account_id: int
    held: _Held
    own: dict[str, Item] = field(default_factory=dict)
    pending: int = 0
    newest: str = NO_ORDER_ID

    def take(self, item: Item) -> None:
        self.held.add(item)
        if item[SK]["S"] in (ACCOUNT_KIND, HEAD_KIND):
            self.own[item[SK]["S"]] = item
        elif keys.is_order(item):
            self.pending += items.read_status(item) is OrderStatus.PENDING
            self.newest = max(self.newest, keys.order_of(item)[1])

    @property
    def marks(self) -> Marks:
        return self.own.get(ACCOUNT_KIND), self.own.get(HEAD_KIND)

    @property
    def adds_up(self) -> bool:
        """The counts fit the orders: they do unless the page was read in the middle of a change."""
        account, head = self.marks
        try:
            decided = items.read_account(account or {}).decided
            counted = items.read_head(head or {})
        except UnreadableItem:
            return False
        return counted.accepted - decided == self.pending and counted.newest == self.newest


class Snapshot:
    """Takes one table apart into lines."""

    def __init__(
        self,
        reader: Reader,
        write: Callable[[bytes], object],
        *,
        began: datetime,
        folder: Path,
        progress: Callable[[int], None] = lambda _: None,
    ) -> None:
        """Hand lines to ``write``; ``folder`` takes temporary files of large accounts.

        ``began`` is a moment before the first page was read.
        """
        self._reader = reader
        self._write = write
        self._held: set[_Held] = set()
        self._hold = partial(_Held, folder, self._held)
        self._progress = progress
        self._young_from = began - CLOCKS_APART + IDEMPOTENCY_LIFE
        self._open: dict[int, _Scanned] = {}
        self._unchecked: list[_Scanned] = []
        self.counts = Counts()

    def table(self, pages: Iterable[tuple[int, list[Item]]]) -> None:
        """Write all of ``pages``, each with the number of the segment that it continues.

        Raises:
            SnapshotImpossible: an account never stood still.
            StoreError: the table could not be read to its end.
        """
        try:
            self._table(pages)
        finally:
            for held in list(self._held):
                held.close()

    def _table(self, pages: Iterable[tuple[int, list[Item]]]) -> None:
        for segment, page in pages:
            for item in page:
                self._take(segment, item)
            self._progress(len(page))
        for segment in list(self._open):
            self._close(segment)
        self._check()
        # Last, so that it knows of every account above: accounts opened meanwhile cost an id each.
        for counter in self._reader.read([keys.counter_key()]):
            self._put(line_of(counter))

    def _take(self, segment: int, item: Item) -> None:
        current = self._open.get(segment)
        if current is not None and current.pk != item[PK]["S"]:
            self._close(segment)
            current = None
        if current is not None:
            current.take(item)
            return
        account_id = keys.account_id_of(item)
        if account_id is None:
            self._take_other(item)
            return
        scanned = _Scanned(item[PK]["S"], account_id, self._hold())
        scanned.take(item)
        self._open[segment] = scanned

    def _take_other(self, item: Item) -> None:
        if item[PK] == keys.counter_key()[PK]:
            return
        if keys.is_idempotency(item) and self._is_young(item):
            self.counts.keys_left_out += 1
            return
        self._put(line_of(item))

    def _is_young(self, item: Item) -> bool:
        """An idempotency key of the time of this snapshot: what it made may not be in it.

        To promise an order that is not there is worse than to take it in again.
        """
        try:
            expires_at = int(item[EXPIRES_AT]["N"])
        except (LookupError, ValueError, TypeError):
            return False
        return expires_at >= self._young_from.timestamp()

    def _close(self, segment: int) -> None:
        self._unchecked.append(self._open.pop(segment))
        if len(self._unchecked) >= _CHECKED_TOGETHER:
            self._check()

    def _check(self) -> None:
        """Write the accounts that stood still since they were read, and read the others anew."""
        now = self._marks([one.account_id for one in self._unchecked])
        for scanned in self._unchecked:
            self.counts.accounts += 1
            if scanned.adds_up and scanned.marks == now[scanned.account_id]:
                self._put_all(scanned.held)
                continue
            scanned.held.close()
            self.counts.accounts_again += 1
            self._read_anew(scanned.account_id)
        self._unchecked.clear()

    def _marks(self, account_ids: Sequence[int]) -> dict[int, Marks]:
        asked = [key for one in account_ids for key in (keys.account_key(one), keys.head_key(one))]
        found = {(item[PK]["S"], item[SK]["S"]): item for item in self._reader.read(asked)}
        return {
            one: (
                found.get((keys.account_key(one)[PK]["S"], ACCOUNT_KIND)),
                found.get((keys.account_key(one)[PK]["S"], HEAD_KIND)),
            )
            for one in account_ids
        }

    def _read_anew(self, account_id: int) -> None:
        look = _Look(self._reader, account_id, self._hold)
        before = self._marks([account_id])[account_id]
        still = 0
        for _ in range(LOOKS_MAX):
            rest = look.at(before)
            after = self._marks([account_id])[account_id]
            still = still + 1 if before == after else 0
            is_moment = before[0] == after[0] and look.adds_up(before)
            if rest is not None and (is_moment or still >= STILL_LOOKS):
                for mark in filter(None, before):
                    self._put(line_of(mark))
                self._put_all(look.final)
                self._put_all(rest)
                return
            if rest is not None:
                rest.close()
            before = after
        raise SnapshotImpossible(
            f"account {account_id} changed during each of {LOOKS_MAX} looks at it: "
            "try again when it is traded less"
        )

    def _put_all(self, held: _Held) -> None:
        for line in held.lines():
            self._put(line)

    def _put(self, line: bytes) -> None:
        self._write(line)
        self.counts.items += 1


class _Look:
    """What is known of an account that moves: ``final`` grows from look to look."""

    def __init__(self, reader: Reader, account_id: int, hold: Callable[[], _Held]) -> None:
        self._reader = reader
        self._account_id = account_id
        self._hold = hold
        self._pending: dict[str, Item] = {}
        self._others: dict[str, Item] = {}
        """Parked orders, and those whose status cannot be read."""
        self._through: str | None = None
        self.final = hold()

    def at(self, before: Marks) -> _Held | None:
        """Read all that may have changed since the last look; None if it goes on changing.

        Orders beyond the newest that the head told of before are passed over: if there are any, the
        head has moved, and there will be another look. All others were there when this one began,
        so it misses none.
        """
        newest = _newest(before[1])
        rest = self._hold()
        known, others = sorted(self._pending), list(self._others)
        for page in self._pages():
            for item in page:
                self._sort(item, newest, rest)
        self._through = newest
        self._read_again(others)
        # Nearly always the oldest ones were decided. The others need not be read: as many as wait
        # by the account's own counts are pending still, if nothing moves before the look is over.
        decided, waiting = _counts(before)
        for chunk in chunks(known, BATCH_GET_KEYS_MAX):
            if len(self._pending) == waiting:
                break
            newest_decision = self._read_again(chunk)
            if decided is not None and newest_decision > decided:
                rest.close()
                return None
        for item in (*self._pending.values(), *self._others.values()):
            rest.add(item)
        return rest

    def adds_up(self, before: Marks) -> bool:
        """As many are pending as the counts of ``before`` say.

        Then acceptances meanwhile do no harm, if nothing was decided: what they made is passed
        over.
        """
        return len(self._pending) == _counts(before)[1]

    def _pages(self) -> Iterable[list[Item]]:
        if self._through is None:
            return self._reader.account_pages(self._account_id)
        return self._reader.account_pages_after(self._account_id, self._through)

    def _read_again(self, order_ids: Sequence[str]) -> int:
        """Read some orders; returns the greatest place in the sequence that one has."""
        if not order_ids:
            return 0
        found = self._reader.read([keys.order_key(self._account_id, one) for one in order_ids])
        for one in order_ids:
            self._pending.pop(one, None)
            self._others.pop(one, None)
        for item in found:
            self._sort_order(item, keys.order_of(item)[1])
        return max((items.read_places(item)[0] or 0 for item in found), default=0)

    def _sort(self, item: Item, newest: str, rest: _Held) -> None:
        if item[SK]["S"] in (ACCOUNT_KIND, HEAD_KIND):
            return
        if not keys.is_order(item):
            # Those that sort before the orders are seen by the first look alone.
            (rest if item[SK]["S"] > keys.order_sort_key("") else self.final).add(item)
            return
        order_id = keys.order_of(item)[1]
        if order_id <= newest:
            self._sort_order(item, order_id)

    def _sort_order(self, item: Item, order_id: str) -> None:
        status = items.read_status(item)
        if status in FINAL_STATUSES:
            self.final.add(item)
        elif status is OrderStatus.PENDING:
            self._pending[order_id] = item
        else:
            self._others[order_id] = item


def _counts(marks: Marks) -> tuple[int | None, int | None]:
    """How many orders an account has decided, and how many are pending, by its own counts."""
    account, head = marks
    try:
        decided = items.read_account(account or {}).decided
        return decided, items.read_head(head or {}).accepted - decided
    except UnreadableItem:
        return None, None


def _newest(head: Item | None) -> str:
    """The newest order id that a head tells of; every id, where it tells of none."""
    try:
        return items.read_head(head or {}).newest
    except UnreadableItem:
        return _AFTER_EVERY_ID
