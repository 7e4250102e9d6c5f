"""Tables for the tests of the audit: lists of items that a test may spoil, and their audit."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from decimal import Decimal
from typing import Any

from ops.auditor import Auditor
from ops.differences import Difference, What
from shared.order_store import items, keys
from shared.order_store.errors import UnreadableItem
from shared.order_store.keys import Item, Key
from tests.ledger import Ledger, counter_item


class Table:
    """Items in memory, and the reader that an auditor looks again with.

    ``before_read`` runs before each read of an account: what others do meanwhile.
    """

    def __init__(self, stored: Iterable[Item]) -> None:
        self.items = list(stored)
        self.before_read: list[Callable[[], None]] = []
        self.looks: list[int] = []

    def find(self, key: Key) -> Item:
        return next(item for item in self.items if _key(item) == _key(key))

    def remove(self, key: Key) -> Item:
        item = self.find(key)
        self.items.remove(item)
        return item

    def orders(self, account_id: int) -> list[Item]:
        return [
            item
            for item in self.items
            if keys.account_id_of(item) == account_id and keys.is_order(item)
        ]

    def pages(self, page_items: int = 50) -> Iterator[tuple[int, list[Item]]]:
        """The table as one segment, cut at any place."""
        ordered = sorted(self.items, key=_key)
        for start in range(0, len(ordered), page_items):
            yield 0, ordered[start : start + page_items]

    def account_pages(self, account_id: int) -> Iterator[list[Item]]:
        self.looks.append(account_id)
        if self.before_read:
            self.before_read.pop(0)()
        own = [item for item in self.items if keys.account_id_of(item) == account_id]
        yield sorted(own, key=_key)

    def decided_count(self, account_id: int) -> int | None:
        try:
            return items.read_account(self.find(keys.account_key(account_id))).decided
        except (StopIteration, UnreadableItem):
            return None

    def newest_account_id(self) -> int:
        return int(self.find(keys.counter_key())["newest"]["N"])


def table_of(*ledgers: Ledger) -> Table:
    """A table of consistent accounts."""
    counter = counter_item(max(ledger.account_id for ledger in ledgers))
    return Table([counter, *(item for ledger in ledgers for item in ledger.items())])


def audit(table: Table) -> list[Difference]:
    """The differences that an audit of ``table`` finds."""
    return list(Auditor(table, sleep=lambda _: None).table(table.pages()))


def by_kind(differences: Sequence[Difference]) -> dict[What, Difference]:
    """Differences of one account, by their kind."""
    assert len({difference.account_id for difference in differences}) <= 1
    kinds = {difference.what: difference for difference in differences}
    assert len(kinds) == len(differences)
    return kinds


def id_of(item: Item) -> str:
    """Id of an order's item."""
    return keys.order_of(item)[1]


def shift(amount: dict[str, Any], by: Decimal) -> None:
    """Change an attribute of type number."""
    amount["N"] = str(Decimal(amount["N"]) + by)


def _key(item: Item | Key) -> tuple[str, str]:
    return item[keys.PK]["S"], item[keys.SK]["S"]
