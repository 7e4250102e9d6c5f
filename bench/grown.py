"""A table that has grown: many accounts, each with decided orders, written once and kept.

The file is named after all that decides its content: the engine's version, the numbers, and the
items as the product writes them. So it is made anew when one of these changes, and only then.
"""

import hashlib
import json
import shutil
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from bench.options import FOLDER
from bench.raw_dynamodb import write_items
from bench.stack import Engines
from bench.traffic import CASH
from local.engines import dynamodb_program
from shared.domain.account import Account, Position
from shared.domain.order import Operation, Order, OrderStatus
from shared.ids import OrderIds
from shared.order_store import items, keys
from shared.order_store.keys import SHARD, Item
from shared.order_store.records import Balance
from shared.order_store.table import create_table

TABLE_NAME = "grown"

_OPENED_AT = datetime(2026, 1, 5, 15, tzinfo=UTC)
_ORDER_EVERY = timedelta(hours=7)
_WRITERS = 2
_CHUNK_ACCOUNTS = 500
_DATABASE = Path("dynamodb") / "orders.db"


def prepare(folder: Path, accounts: int, each: int) -> None:
    """Put a copy of the grown table's file where an engine in ``folder`` looks for its data."""
    kept = FOLDER / f"grown-{_version(accounts, each)}.db"
    if not kept.exists():
        _make(kept, accounts, each)
    target = folder / _DATABASE
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(kept, target)


def grown_items(account_id: int, orders: int) -> Iterator[Item]:
    """The items of an account that has had ``orders`` orders executed."""
    ids = OrderIds()
    newest = ""
    positions = {"GBM": Position(0, Decimal("1.25"))}
    cash = CASH
    for sequence in range(1, orders + 1):
        at = _OPENED_AT + sequence * _ORDER_EVERY
        order = Order(
            ids.next(at), account_id, Operation.BUY, "GBM", sequence, Decimal("1.25"), at, at
        )
        newest = order.id
        cash -= sequence * order.share_price
        held = positions["GBM"].total_shares + sequence
        positions = {"GBM": Position(held, order.share_price)}
        yield _decided(order, sequence, Balance(cash, positions))
    account = Account(account_id, cash, _OPENED_AT, positions if orders else {})
    yield items.new_account_item(account, mark="bench") | _after(orders, newest)
    head = items.new_head_item(account_id)
    yield (
        head
        | {"accepted": items.number(orders)}
        | ({"newest": items.text(newest)} if newest else {})
    )


def _after(orders: int, newest: str) -> Item:
    """What an account's item has once orders were decided."""
    if not orders:
        return {}
    return {
        "decided": items.number(orders),
        "decided_through": items.text(newest),
        "last_executed_at": items.instant(_OPENED_AT + orders * _ORDER_EVERY),
    }


def _decided(order: Order, sequence: int, balance: Balance) -> Item:
    item = items.new_order_item(order)
    del item[SHARD]
    return item | {
        "status": items.text(OrderStatus.EXECUTED),
        "decided_at": items.instant(order.received_at + timedelta(milliseconds=40)),
        "business_errors": {"L": []},
        "sequence": items.number(sequence),
        "balance": items.write_balance(balance),
        "rules": items.text("always open"),
    }


def _version(accounts: int, each: int) -> str:
    sample = [_without_chance(item) for item in grown_items(1, 2)]
    engine = dynamodb_program().stat().st_size
    text = json.dumps([sample, accounts, each, engine], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _without_chance(item: Item) -> dict[str, Any]:
    """The item less the ids, which differ each time."""
    return {name: value for name, value in item.items() if not _holds_id(name)}


def _holds_id(name: str) -> bool:
    return name in (keys.SK, "newest", "decided_through")


def _make(kept: Path, accounts: int, each: int) -> None:
    print(f"bench: writing {accounts:,} accounts of {each} orders once", file=sys.stderr)
    folder = FOLDER / "making"
    shutil.rmtree(folder, ignore_errors=True)
    for old in FOLDER.glob("grown-*.db"):
        old.unlink()
    with Engines(folder) as engines:
        create_table(engines.client, TABLE_NAME, wait_seconds=30)
        _write_all(engines, accounts, each)
        counter = keys.counter_key() | {"newest": items.number(accounts)}
        engines.client.put_item(TableName=TABLE_NAME, Item=counter)
    (folder / _DATABASE).rename(kept)
    shutil.rmtree(folder)


def _write_all(engines: Engines, accounts: int, each: int) -> None:
    chunks = [
        (engines.dynamodb_port, range(first, min(first + _CHUNK_ACCOUNTS, accounts + 1)), each)
        for first in range(1, accounts + 1, _CHUNK_ACCOUNTS)
    ]
    with ProcessPoolExecutor(_WRITERS) as pool:
        for _ in pool.map(_write_chunk, *zip(*chunks, strict=True)):
            pass


def _write_chunk(port: int, account_ids: range, each: int) -> None:
    written = (item for account_id in account_ids for item in grown_items(account_id, each))
    write_items(port, TABLE_NAME, written)
