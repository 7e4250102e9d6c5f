"""The table as it is at the end, read without the project's own code: plain values, no items."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

_POLL_SECONDS = 0.25

Positions = dict[str, tuple[int, Decimal]]


@dataclass(frozen=True, slots=True)
class Balance:
    """Cash, and for each issuer shares and the price last traded."""

    cash: Decimal
    positions: Positions
    partial: bool = False


@dataclass(frozen=True, slots=True)
class OrderRow:
    """An order as it stands in the table; times are ISO 8601."""

    account: int
    id: str
    operation: str
    issuer_name: str
    total_shares: int
    share_price: Decimal
    timestamp: str
    received_at: str
    status: str
    decided_at: str | None = None
    sequence: int | None = None
    errors: tuple[str, ...] = ()
    balance: Balance | None = None
    attempts: int = 0
    parkings: tuple[int | None, ...] = ()
    """Places in the sequence of the parkings that an operator took back; None: it got none."""
    failure: str | None = None
    """Why it is or was parked, if it is, or was cancelled then."""
    is_indexed: bool = False
    """It is in the index of undecided and parked orders."""


@dataclass(frozen=True, slots=True)
class AccountRow:
    """An account as it stands in the table."""

    id: int
    cash: Decimal
    positions: Positions
    opened_at: str
    decided: int


@dataclass(slots=True)
class Table:
    """Everything that the checker looks at; ``accepted`` counts the orders of each account."""

    accounts: dict[int, AccountRow] = field(default_factory=dict)
    accepted: dict[int, int] = field(default_factory=dict)
    orders: list[OrderRow] = field(default_factory=list)


def dump(client: Any, table_name: str) -> Table:
    """Read the whole table with a low-level client."""
    table = Table()
    for item in _scan(client, TableName=table_name, ConsistentRead=True):
        _sort(table, item)
    return table


def count_undecided(client: Any, table_name: str) -> int:
    """How many orders the index of undecided ones holds, less those that are parked there."""
    pages = client.get_paginator("scan").paginate(
        TableName=table_name,
        IndexName="undecided",
        Select="COUNT",
        FilterExpression="undecided_shard <> :parked",
        ExpressionAttributeValues={":parked": {"S": "parked"}},
    )
    return sum(page["Count"] for page in pages)


def wait_until_decided(client: Any, table_name: str, seconds: float) -> int:
    """Wait until no order is undecided, or for ``seconds``; returns how many still are."""
    deadline = time.monotonic() + seconds
    while (left := count_undecided(client, table_name)) and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
    return left


def _scan(client: Any, **arguments: Any) -> Iterator[dict[str, Any]]:
    for page in client.get_paginator("scan").paginate(**arguments):
        yield from page["Items"]


def _sort(table: Table, item: dict[str, Any]) -> None:
    pk, sk = item["pk"]["S"], item["sk"]["S"]
    if not pk.startswith("ACCOUNT#"):
        return
    account = int(pk.removeprefix("ACCOUNT#"))
    if sk == "ACCOUNT":
        table.accounts[account] = _account(account, item)
    elif sk == "HEAD":
        table.accepted[account] = int(item["accepted"]["N"])
    elif sk.startswith("ORDER#"):
        table.orders.append(_order(account, sk.removeprefix("ORDER#"), item))


def _account(account: int, item: dict[str, Any]) -> AccountRow:
    return AccountRow(
        account,
        cash=Decimal(item["cash"]["N"]),
        positions=_positions(item["positions"]),
        opened_at=item["opened_at"]["S"],
        decided=int(item["decided"]["N"]),
    )


def _order(account: int, order: str, item: dict[str, Any]) -> OrderRow:
    return OrderRow(
        account,
        order,
        operation=item["operation"]["S"],
        issuer_name=item["issuer_name"]["S"],
        total_shares=int(item["total_shares"]["N"]),
        share_price=Decimal(item["share_price"]["N"]),
        timestamp=item["timestamp"]["S"],
        received_at=item["received_at"]["S"],
        status=item["status"]["S"],
        decided_at=item["decided_at"]["S"] if "decided_at" in item else None,
        sequence=int(item["sequence"]["N"]) if "sequence" in item else None,
        errors=tuple(code["S"] for code in item.get("business_errors", {"L": []})["L"]),
        balance=_balance(item["balance"]["M"]) if "balance" in item else None,
        attempts=int(item["attempts"]["N"]) if "attempts" in item else 0,
        parkings=tuple(
            int(parking["M"]["sequence"]["N"]) if "sequence" in parking["M"] else None
            for parking in item.get("parked", {"L": []})["L"]
        ),
        failure=item["failure"]["S"] if "failure" in item else None,
        is_indexed="undecided_shard" in item,
    )


def _balance(fields: dict[str, Any]) -> Balance:
    return Balance(
        Decimal(fields["cash"]["N"]), _positions(fields["positions"]), "partial" in fields
    )


def _positions(value: dict[str, Any]) -> Positions:
    return {
        name: (int(held["L"][0]["N"]), Decimal(held["L"][1]["N"]))
        for name, held in value["M"].items()
    }
