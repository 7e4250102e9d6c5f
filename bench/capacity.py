"""The tables of docs/capacity.md: what is counted, and what follows from AWS's limits and prices.

``python -m bench.capacity`` writes them anew; a test compares them with the page.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.counted import (
    GROUP,
    Broker,
    Counted,
    Message,
    Sized,
    Stored,
    count_broker,
    count_sizes,
    count_storage,
    count_store,
)
from shared.order_store.keys import UNDECIDED_SHARDS

PAGE: Final = Path(__file__).parents[1] / "docs" / "capacity.md"

# AWS's figures, as docs/capacity.md names their sources.
PARTITION_WRITES: Final = 1_000
TABLE_WRITES: Final = 40_000
TABLE_WRITES_NEW: Final = 4_000
DOLLARS_A_MILLION_WRITES: Final = 0.625
DOLLARS_A_MILLION_READS: Final = 0.125
DOLLARS_A_GB_MONTH: Final = 0.25

REDIS_COMMANDS: Final = 100_000
"""Assumed of one Redis server: commands a second."""

STEPS: Final = (10_000, 100_000, 1_000_000)

_MILLION: Final = 1_000_000
_HALF_UP: Final = 1e-9


@dataclass(frozen=True, slots=True)
class Counts:
    """All that is counted."""

    store: dict[str, Counted]
    sizes: list[Sized]
    stored: Stored
    broker: Broker


def count() -> Counts:
    """Count everything; takes some seconds."""
    return Counts(count_store(), count_sizes(), count_storage(), count_broker())


def tables(counts: Counts) -> dict[str, str]:
    """The Markdown tables of the page, by the names of their markers."""
    return {
        "store": _table(
            "case | calls | table writes | index writes | reads | writes an order | reads an order",
            map(_store_row, counts.store.values()),
        ),
        "sizes": _table(
            "positions | executed within 5 minutes | account's item | decided order"
            " | units an order, lone | orders/s | in groups of 33 | orders/s",
            map(_size_row, counts.sizes),
        ),
        "redis": _table(
            "orders in the message | bytes, waiting | bytes, with a worker | publish | deliver"
            " | acknowledge | cache | broker's commands an order",
            map(_message_row, counts.broker.messages),
        ),
        "limits": _table("limit | gives | an order takes | orders/s", _limit_rows(counts)),
        "cost": _table(
            "traffic | write units | read units | writes | reads | together", _cost_rows(counts)
        ),
        "storage": _table(
            "item | bytes | GB for a million | a month", _storage_rows(counts.stored, counts.broker)
        ),
        "steps": _table("what | " + " | ".join(_number(step) for step in STEPS), _steps(counts)),
    }


def _store_row(case: Counted) -> list[str]:
    usage = case.usage
    counted = (usage.calls, usage.table_writes, usage.index_writes, usage.reads)
    return [case.name, *map(_number, counted), _number(case.writes), _number(case.reads)]


def _size_row(size: Sized) -> list[str]:
    return [
        _number(size.positions),
        size.recent,
        f"{_number(size.account_bytes)} bytes",
        f"{_number(size.order_bytes)} bytes",
        _number(size.lone),
        _number(PARTITION_WRITES // size.lone),
        _number(size.grouped),
        _number(PARTITION_WRITES // size.grouped),
    ]


def _message_row(message: Message) -> list[str]:
    return [
        _number(message.orders),
        _number(message.waiting_bytes),
        _number(message.held_bytes),
        " ".join(message.publish),
        " ".join(message.deliver),
        " ".join(message.acknowledge),
        f"{message.orders} SET",
        _number(message.commands / message.orders),
    ]


def _limit_rows(counts: Counts) -> Iterator[list[str]]:
    index = (
        counts.store["accept 1"].usage.index_writes + counts.store["settle 1"].usage.index_writes
    )
    lone, keyed = _writes(counts, "1"), _writes(counts, "1", keyed=True)
    hot = _writes(counts, "33 of one account")
    reads = counts.store["settle 1"].reads
    size, busy = counts.sizes[1], counts.sizes[3]
    one, many = counts.broker.messages[0], counts.broker.messages[1]
    rows: list[tuple[str, float, str, float]] = [
        ("a new table, on demand", TABLE_WRITES_NEW, "writes", lone),
        ("a new table, orders with keys", TABLE_WRITES_NEW, "writes", keyed),
        ("a table's quota, orders with keys", TABLE_WRITES, "writes", keyed),
        ("a table's quota", TABLE_WRITES, "writes", lone),
        ("a table's quota, groups of 33 of one account", TABLE_WRITES, "writes", hot),
        ("a table's quota of reads, in settling", TABLE_WRITES, "reads", reads),
        ("one shard of the index", PARTITION_WRITES, "writes", index),
        (f"all {UNDECIDED_SHARDS} shards", PARTITION_WRITES * UNDECIDED_SHARDS, "writes", index),
        ("the index's quota", TABLE_WRITES, "writes", index),
        ("one account, lone orders", PARTITION_WRITES, "writes", size.lone),
        ("one account, groups of 33", PARTITION_WRITES, "writes", size.grouped),
        ("one account, busy, lone orders", PARTITION_WRITES, "writes", busy.lone),
        ("one account, busy, groups of 33", PARTITION_WRITES, "writes", busy.grouped),
        ("one broker, lone orders", REDIS_COMMANDS, "commands", one.commands),
        ("one broker, groups of 33", REDIS_COMMANDS, "commands", many.commands / GROUP),
        ("one cache, without reads", REDIS_COMMANDS, "commands", len(one.cache)),
        (
            "both on one Redis, lone orders",
            REDIS_COMMANDS,
            "commands",
            one.commands + len(one.cache),
        ),
    ]
    for name, gives, what, takes in rows:
        yield [
            name,
            f"{_number(gives)} {what}/s",
            _number(takes),
            _number(int(gives / takes + _HALF_UP)),
        ]


def _writes(counts: Counts, group: str, *, keyed: bool = False) -> float:
    """Table writes of an order, accepted and decided."""
    accepted = _accepted(group, keyed=keyed)
    return counts.store[accepted].table_writes + counts.store[f"settle {group}"].table_writes


def _accepted(group: str, *, keyed: bool) -> str:
    if not keyed:
        return f"accept {group}"
    return f"accept {group}, key{'s' * (group != '1')}"


def _cost_rows(counts: Counts) -> Iterator[list[str]]:
    traffic = [
        ("lone orders", "1", False),
        ("lone orders, keys", "1", True),
        ("groups of 33", "33", False),
        ("groups of 33, keys", "33", True),
        ("groups of 33 of one account", "33 of one account", False),
        ("groups of 33 of one account, keys", "33 of one account", True),
    ]
    for name, group, keyed in traffic:
        used = [counts.store[_accepted(group, keyed=keyed)], counts.store[f"settle {group}"]]
        yield _cost_row(name, sum(one.writes for one in used), sum(one.reads for one in used))
    yield _cost_row("each GET that is not cached", 0, counts.store["GET a pending order"].reads)
    yield _cost_row("each repeated key", counts.store["a key used before"].writes, 0)


def _cost_row(name: str, writes: float, reads: float) -> list[str]:
    write_dollars = writes * DOLLARS_A_MILLION_WRITES
    read_dollars = reads * DOLLARS_A_MILLION_READS
    dollars = (write_dollars, read_dollars, write_dollars + read_dollars)
    return [name, f"{_number(writes)} M", f"{_number(reads)} M", *map(_dollars, dollars)]


def _storage_rows(stored: Stored, broker: Broker) -> Iterator[list[str]]:
    for name, size in (
        ("a decided order", stored.decided),
        ("a pending order, and its entry in the index", stored.pending + stored.entry),
        ("an idempotency key, for a day", stored.key),
    ):
        gigabytes = size * _MILLION / 1024**3
        yield [name, _number(size), f"{gigabytes:.2f}", _dollars(gigabytes * DOLLARS_A_GB_MONTH)]
    gigabytes = broker.cached_bytes * _MILLION / 1024**3
    yield ["a cached answer, in Redis", _number(broker.cached_bytes), f"{gigabytes:.2f}", "-"]


def _steps(counts: Counts) -> Iterator[list[str]]:
    keyed = _writes(counts, "1", keyed=True)
    one, many = counts.broker.messages[0], counts.broker.messages[1]
    used = [counts.store["accept 1, key"], counts.store["settle 1"]]
    index = sum(case.usage.index_writes for case in used)
    write_units, reads = sum(case.writes for case in used), sum(case.reads for case in used)
    dollars = (write_units * DOLLARS_A_MILLION_WRITES + reads * DOLLARS_A_MILLION_READS) / _MILLION
    busiest = one.waiting_bytes / 1024**2
    rows: list[tuple[str, Callable[[int], float]]] = [
        ("table writes/s", lambda rate: rate * keyed),
        (f"in quotas of {_number(TABLE_WRITES)}", lambda rate: rate * keyed / TABLE_WRITES),
        ("index writes/s", lambda rate: rate * index),
        ("shards needed, evenly filled", lambda rate: rate * index / PARTITION_WRITES),
        ("table reads/s", lambda rate: rate * reads),
        ("broker's commands/s, lone orders", lambda rate: rate * one.commands),
        ("broker's commands/s, groups of 33", lambda rate: rate * many.commands / GROUP),
        ("cache's commands/s, without reads", lambda rate: rate * len(one.cache)),
        ("MB/s of messages, lone orders", lambda rate: rate * busiest),
        ("queue after a minute without workers, MB", lambda rate: 60 * rate * busiest),
        ("cached answers of an hour, GB", lambda rate: _cached_gb(counts.broker, rate)),
        ("DynamoDB requests, $ an hour", lambda rate: 3600 * rate * dollars),
    ]
    for name, value in rows:
        yield [name, *(_number(value(rate)) for rate in STEPS)]


def _cached_gb(broker: Broker, rate: int) -> float:
    return broker.cached_bytes * rate * 3600 / 1024**3


def _table(head: str, rows: Iterable[list[str]]) -> str:
    names = head.split(" | ")
    lines = [head.split(" | "), ["---"] * len(names), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _number(value: float) -> str:
    """At most two decimals below ten, one below a hundred, none above."""
    if value == int(value) or value >= 100:
        return f"{round(value):,}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _dollars(value: float) -> str:
    return f"${value + _HALF_UP:.2f}"


def renewed(page: str, new: dict[str, str]) -> str:
    """The page with its tables replaced.

    Raises:
        ValueError: a table has no markers in the page.
    """
    for name, table in new.items():
        start, end = f"<!-- counted: {name} -->\n", "\n<!-- end -->"
        begin = page.index(start) + len(start)
        page = page[:begin] + table + page[page.index(end, begin) :]
    return page


def main() -> None:
    """Write the tables of docs/capacity.md anew."""
    PAGE.write_text(renewed(PAGE.read_text(), tables(count())))


if __name__ == "__main__":
    main()
