"""Auditing a table: its items in a stream, account by account, in little memory.

What is read is no snapshot: traffic goes on meanwhile. The books of an account leave out what was
decided after it was read, so that is harmless in nearly all cases. Whatever still looks wrong is
looked at again before it is reported: by a consistent query of that one account, a few times, until
it is either right or wrong in the same way each time, or the account stood still.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, Protocol

from ops.books import Books
from ops.differences import Difference, Result, Totals, What
from shared.order_store import items, keys
from shared.order_store.errors import UnreadableItem
from shared.order_store.keys import PK, SK, Item

LOOKS_MAX: Final = 3
"""Looks again at an account that seems wrong and goes on being traded."""

PAUSE_SECONDS: Final = 0.2
"""Before each of these looks."""

_CHUNK_BITS: Final = 16


class AuditImpossible(Exception):
    """The table does not give what an audit needs; the text says what."""


class Reader(Protocol):
    """What the auditor asks of the store, beside the stream of pages."""

    def account_pages(self, account_id: int) -> Iterable[list[Item]]:
        """Every item of one account, by sort key."""

    def decided_count(self, account_id: int) -> int | None:
        """How many orders of the account are decided now."""

    def newest_account_id(self) -> int:
        """The newest account id that was given."""


@dataclass(slots=True)
class Summary:
    """What an audit saw. ``others`` counts the items that belong to no account, by kind."""

    totals: Totals = field(default_factory=Totals)
    others: Counter[str] = field(default_factory=Counter)
    items: int = 0
    differences: int = 0
    accounts_differing: int = 0
    looked_again: int = 0

    @property
    def orders(self) -> int:
        """All orders of accounts that were audited."""
        return self.totals.orders.total()


class SeenAccounts:
    """Which account ids came up: one bit each."""

    def __init__(self) -> None:
        """Start with none."""
        self._chunks: dict[int, bytearray] = {}
        self.largest = 0

    def add(self, account_id: int) -> bool:
        """Note ``account_id``; False if it came up before."""
        self.largest = max(self.largest, account_id)
        place = account_id & ((1 << _CHUNK_BITS) - 1)
        size = 1 << (_CHUNK_BITS - 3)
        chunk = self._chunks.setdefault(account_id >> _CHUNK_BITS, bytearray(size))
        bit = 1 << (place & 7)
        if chunk[place >> 3] & bit:
            return False
        chunk[place >> 3] |= bit
        return True


@dataclass(slots=True)
class _Open:
    """The account that a segment is in the middle of; ``books`` is None for other keys."""

    pk: str
    sk: str
    books: Books | None


class Auditor:
    """Audits one table, or one account of it."""

    def __init__(
        self,
        reader: Reader,
        *,
        sleep: Callable[[float], None] = time.sleep,
        progress: Callable[[int], None] = lambda _: None,
    ) -> None:
        """Look again with ``reader``; ``progress`` is told how many items were read more."""
        self._reader = reader
        self._sleep = sleep
        self._progress = progress
        self._seen = SeenAccounts()
        self._open: dict[int, _Open] = {}
        self.summary = Summary()

    def table(self, pages: Iterable[tuple[int, list[Item]]]) -> Iterator[Difference]:
        """Audit all of ``pages``, each with the number of the segment that it continues.

        Raises:
            AuditImpossible: the items of one partition key do not come together and in order.
            StoreError: the table could not be read to its end.
        """
        for segment, page in pages:
            for item in page:
                if found := self._take(segment, item):
                    yield from found
            self._count(len(page))
        for last in self._open.values():
            yield from self._close(last)
        self._open.clear()
        yield from self._check_counter()

    def account(self, account_id: int) -> Iterator[Difference]:
        """Audit one account.

        Raises:
            AuditImpossible: there is no such account.
            StoreError: it could not be read to its end.
        """
        result = self._look(account_id, self._count)
        if not self.summary.items:
            raise AuditImpossible(f"there is no account {account_id}")
        yield from self._report(result)

    def _take(self, segment: int, item: Item) -> list[Difference]:
        """Take the next item of a segment; what that shows to be different."""
        pk, sk = item[PK]["S"], item[SK]["S"]
        current = self._open.get(segment)
        if current is not None and current.pk == pk:
            if sk <= current.sk:
                raise AuditImpossible(f"the items of {pk} do not come in order: {sk} comes late")
            current.sk = sk
            found = []
        else:
            found = self._close(current) if current is not None else []
            current = self._open[segment] = _Open(pk, sk, self._begin(item))
        if current.books is None:
            return [*found, *self._take_other(item)]
        current.books.feed(item)
        return found

    def _begin(self, item: Item) -> Books | None:
        """The books for the account whose first item this is, None if it is no account's."""
        account_id = keys.account_id_of(item)
        if account_id is None:
            return None
        if not self._seen.add(account_id):
            raise AuditImpossible(
                f"account {account_id} came up twice: its items do not come together"
            )
        return Books(account_id)

    def _take_other(self, item: Item) -> list[Difference]:
        if keys.is_idempotency(item):
            self.summary.others["idempotency"] += 1
            return self._check_remembered(item)
        if item[PK] == keys.counter_key()[PK]:
            self.summary.others["counter"] += 1
            return []
        if keys.is_access(item):
            self.summary.others["access"] += 1
            return []
        self.summary.others["unknown"] += 1
        found = f"an item {item[PK]['S']!r} {item[SK]['S']!r}"
        return self._found([Difference(None, None, What.UNKNOWN, "keys of ours", found)])

    def _check_remembered(self, item: Item) -> list[Difference]:
        """Tell of an answer that could not be given again, or would be for ever."""
        try:
            items.check_remembered(item)
        except UnreadableItem as error:
            unreadable = Difference(None, None, What.UNREADABLE, "a remembered answer", str(error))
            return self._found([unreadable])
        return []

    def _close(self, last: _Open) -> list[Difference]:
        return self._report(last.books.close()) if last.books is not None else []

    def _report(self, result: Result) -> list[Difference]:
        differences = self._with_beyond(result)
        if differences:
            self.summary.looked_again += 1
            result, differences = self._look_again(result, differences)
        self.summary.totals.add(result.totals)
        self.summary.accounts_differing += bool(differences)
        return self._found(differences)

    def _found(self, differences: list[Difference]) -> list[Difference]:
        self.summary.differences += len(differences)
        return differences

    def _with_beyond(self, result: Result) -> list[Difference]:
        """The differences, with that of a decision which the account does not count even now."""
        if result.beyond is None:
            return result.differences
        sequence, order_id = result.beyond
        decided = self._reader.decided_count(result.account_id)
        if decided is None or decided >= sequence:
            return result.differences
        beyond = Difference(
            result.account_id,
            order_id,
            What.SEQUENCE,
            f"decisions 1 to {decided}",
            f"decision {sequence}",
        )
        others = [one for one in result.differences if one.what is not What.SEQUENCE]
        return [*others, beyond]

    def _look_again(
        self, result: Result, differences: list[Difference]
    ) -> tuple[Result, list[Difference]]:
        """Look at the account until it is right, stands still, or was wrong each time alike."""
        account_id = result.account_id
        standing = {_identity(one) for one in differences}
        for _ in range(LOOKS_MAX):
            self._sleep(PAUSE_SECONDS)
            before = self._reader.decided_count(account_id)
            result = self._look(account_id)
            differences = self._with_beyond(result)
            if before == self._reader.decided_count(account_id):
                return result, differences
            standing &= {_identity(one) for one in differences}
            if not standing:
                return result, []
        return result, [one for one in differences if _identity(one) in standing]

    def _look(self, account_id: int, seen: Callable[[int], None] = lambda _: None) -> Result:
        books = Books(account_id)
        for page in self._reader.account_pages(account_id):
            for item in page:
                books.feed(item)
            seen(len(page))
        return books.close()

    def _count(self, items: int) -> None:
        self.summary.items += items
        self._progress(items)

    def _check_counter(self) -> list[Difference]:
        """Tell of accounts that the counter does not know of: their ids would be given again."""
        largest = self._seen.largest
        try:
            newest = self._reader.newest_account_id()
        except UnreadableItem as error:
            unreadable = Difference(None, None, What.UNREADABLE, "a counter", str(error))
            return self._found([unreadable])
        if newest >= largest:
            return []
        behind = Difference(largest, None, What.COUNTER, f"{largest} or more", f"{newest}")
        return self._found([behind])


def _identity(difference: Difference) -> tuple[What, str | None, str]:
    """What makes two looks find the same; amounts move on while the account is traded."""
    is_moment = difference.what is What.RECENT
    return difference.what, difference.order_id, difference.found if is_moment else ""
