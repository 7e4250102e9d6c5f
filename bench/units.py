"""What DynamoDB bills, by the rules that AWS publishes, for the calls that real code makes.

Rules ("DynamoDB item sizes and formats" and "DynamoDB read and write operations" in AWS's developer
guide): a write costs one unit for each KB of the item, of its size before or after, whichever is
larger; in a transaction twice that. A consistent read costs one unit for each 4 KB, an eventual one
half. A query is one read of all that it looked at. A condition that fails costs as the write.

The index costs one unit for each KB of an entry that is put, replaced or deleted. DynamoDB brings
it up to date after the transaction, so it is not counted twice.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final

from shared.order_store.keys import PK, SHARD, SK, Item

WRITE_UNIT_BYTES: Final = 1024
READ_UNIT_BYTES: Final = 4096
STORAGE_BYTES_AN_ITEM: Final = 100
"""Added to each item, and to each entry of an index, in what storage is billed (AWS)."""

_CONTAINER_BYTES: Final = 3
_ELEMENT_BYTES: Final = 1
_TRANSACTION_FACTOR: Final = 2
_EVENTUAL_FACTOR: Final = 0.5


@dataclass(slots=True)
class Usage:
    """Units that calls consumed; ``index_writes`` come on top of ``table_writes``."""

    calls: int = 0
    table_writes: int = 0
    index_writes: int = 0
    reads: float = 0.0
    actions_max: int = 0
    """Actions of the largest transaction."""
    by_partition: dict[str, int] = field(default_factory=dict)
    """Table writes by partition key."""

    @property
    def writes(self) -> int:
        """All write units."""
        return self.table_writes + self.index_writes


def item_bytes(item: Mapping[str, Mapping[str, Any]]) -> int:
    """Size of an item: its names and values."""
    return sum(len(name.encode()) + value_bytes(value) for name, value in item.items())


def value_bytes(value: Mapping[str, Any]) -> int:
    """Size of one value; of a number it is AWS's approximation.

    Raises:
        ValueError: a type that no item of ours has.
    """
    ((kind, content),) = value.items()
    if kind == "S":
        return len(content.encode())
    if kind == "N":
        return math.ceil(_significant_digits(content) / 2) + 1
    if kind == "BOOL":
        return 1
    if kind == "L":
        return _CONTAINER_BYTES + sum(_ELEMENT_BYTES + value_bytes(one) for one in content)
    if kind == "M":
        return _CONTAINER_BYTES + len(content) * _ELEMENT_BYTES + item_bytes(content)
    raise ValueError(f"no item of ours holds a {kind}")


def write_units(before: Item | None, after: Item | None) -> int:
    """Units of a write outside of a transaction."""
    return max(_units(before, WRITE_UNIT_BYTES), _units(after, WRITE_UNIT_BYTES))


def index_units(before: Item | None, after: Item | None) -> int:
    """Units of what a write changes in the index of undecided orders."""
    old, new = index_entry(before), index_entry(after)
    if old == new:
        return 0
    is_same_place = old is not None and new is not None and old[SHARD] == new[SHARD]
    if is_same_place:
        return write_units(old, new)
    return sum(_units(entry, WRITE_UNIT_BYTES) for entry in (old, new) if entry is not None)


def index_entry(item: Item | None) -> Item | None:
    """What the index holds of ``item``: its keys, if it is an undecided order."""
    if item is None or SHARD not in item:
        return None
    return {name: item[name] for name in (PK, SK, SHARD)}


class MeteredClient:
    """The calls of ``Gateway`` on a boto3 client, each with its units added to ``usage``."""

    def __init__(self, client: Any) -> None:
        """Meter calls on ``client``, a table in which nobody else writes."""
        self._client = client
        self.usage = Usage()

    def take(self) -> Usage:
        """The usage since the last time."""
        usage, self.usage = self.usage, Usage()
        return usage

    def get_item(self, **arguments: Any) -> Any:
        """Meter a read of one item."""
        answer = self._client.get_item(**arguments)
        self._read([answer.get("Item", {})], is_consistent=bool(arguments.get("ConsistentRead")))
        return answer

    def batch_get_item(self, **arguments: Any) -> Any:
        """Meter a batch: each item is a read of its own, one that is not there too."""
        answer = self._client.batch_get_item(**arguments)
        ((table, wanted),) = arguments["RequestItems"].items()
        found = answer["Responses"][table]
        missing: list[Item] = [{}] * (len(wanted["Keys"]) - len(found))
        self._read([*found, *missing], is_consistent=bool(wanted.get("ConsistentRead")))
        return answer

    def query(self, **arguments: Any) -> Any:
        """Meter a query: one read of everything that it found."""
        answer = self._client.query(**arguments)
        size = sum(map(item_bytes, answer["Items"]))
        self.usage.calls += 1
        self.usage.reads += _read_units(size, bool(arguments.get("ConsistentRead")))
        return answer

    def update_item(self, **arguments: Any) -> Any:
        """Meter a change of one item."""
        table, key = arguments["TableName"], arguments["Key"]
        return self._write(table, [key], 1, lambda: self._client.update_item(**arguments))

    def transact_write_items(self, **arguments: Any) -> Any:
        """Meter a transaction, refused or not."""
        actions = [next(iter(action.values())) for action in arguments["TransactItems"]]
        keys = [_key_of(action.get("Key") or action["Item"]) for action in actions]
        self.usage.actions_max = max(self.usage.actions_max, len(actions))
        return self._write(
            actions[0]["TableName"],
            keys,
            _TRANSACTION_FACTOR,
            lambda: self._client.transact_write_items(**arguments),
        )

    def _read(self, items: Sequence[Item], *, is_consistent: bool) -> None:
        self.usage.calls += 1
        self.usage.reads += sum(_read_units(item_bytes(item), is_consistent) for item in items)

    def _write(self, table: str, keys: Sequence[Item], factor: int, call: Any) -> Any:
        before = [self._peek(table, key) for key in keys]
        self.usage.calls += 1
        try:
            return call()
        finally:
            # Refused too: then nothing changed, and what stands there is billed, or one KB.
            after = [self._peek(table, key) for key in keys]
            for key, old, new in zip(keys, before, after, strict=True):
                self._count(key[PK]["S"], factor * write_units(old, new))
                self.usage.index_writes += index_units(old, new)

    def _count(self, partition: str, units: int) -> None:
        self.usage.table_writes += units
        self.usage.by_partition[partition] = self.usage.by_partition.get(partition, 0) + units

    def _peek(self, table: str, key: Item) -> Item | None:
        answer = self._client.get_item(TableName=table, Key=key, ConsistentRead=True)
        item: Item | None = answer.get("Item")
        return item


def _key_of(item: Item) -> Item:
    return {PK: item[PK], SK: item[SK]}


def _units(item: Item | None, unit_bytes: int) -> int:
    return max(1, math.ceil(item_bytes(item or {}) / unit_bytes))


def _read_units(size: int, is_consistent: bool) -> float:
    units = max(1, math.ceil(size / READ_UNIT_BYTES))
    return units if is_consistent else units * _EVENTUAL_FACTOR


def _significant_digits(text: str) -> int:
    digits = "".join(map(str, Decimal(text).as_tuple().digits)).strip("0")
    return len(digits) or 1
