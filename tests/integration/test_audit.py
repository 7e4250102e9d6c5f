"""The audit on real engines: silent about what real traffic leaves, and sharp about what does not.

``test_one_spoilt_order_among_many`` is the promise at size: slow where there are many.
"""

import itertools
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pytest

from local import commands
from shared.order_store import items, keys
from shared.order_store.gateway import chunks
from shared.order_store.keys import Item, Key
from shared.order_store.table import create_table
from tests.integration.client import Client, in_parallel, until
from tests.integration.table import recorded_account
from tests.ledger import Ledger, pages
from tests.stack import Engines, Stack

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

ACCOUNTS = 12
AUDIT_SECONDS_MAX = 300
BATCH_ITEMS = 25
"""Items of one BatchWriteItem (AWS limit)."""


@dataclass(frozen=True)
class Audit:
    """What ``python -m ops audit --json`` said."""

    exit_code: int
    differences: list[dict[str, Any]]
    summary: dict[str, Any]
    errors: str


def audit(stack: Stack, *arguments: str, **env: str) -> Audit:
    ended = subprocess.run(
        [sys.executable, "-m", "ops", "audit", "--json", *arguments],
        cwd=commands.ROOT,
        env={**stack.env, **env},
        capture_output=True,
        text=True,
        timeout=AUDIT_SECONDS_MAX,
        check=False,
    )
    *differences, summary = [json.loads(line) for line in ended.stdout.splitlines()] or [{}]
    return Audit(ended.returncode, differences, summary, ended.stderr)


@pytest.fixture(scope="module")
def stack(engines: Engines) -> Iterator[Stack]:
    with Stack(engines, workers=1) as running:
        yield running


@pytest.fixture
def spoil(stack: Stack) -> Iterator[Callable[[Key, str, Any], None]]:
    """Sets an attribute of an item, until the test is over."""
    before: list[Item] = []

    def change(key: Key, name: str, value: Any) -> None:
        before.append(stack.dynamodb.get_item(TableName=stack.table_name, Key=key)["Item"])
        stack.dynamodb.update_item(
            TableName=stack.table_name,
            Key=key,
            UpdateExpression="SET #name = :value",
            ExpressionAttributeNames={"#name": name},
            ExpressionAttributeValues={":value": value},
        )

    yield change
    for item in reversed(before):
        stack.dynamodb.put_item(TableName=stack.table_name, Item=item)


def trade(client: Client, account: int, number: int) -> dict[str, Any]:
    """An order of a kind that depends on ``number``; some are rejected."""
    operation = "SELL" if number % 3 == 2 else "BUY"
    return client.order(
        account, operation=operation, total_shares=1 + number % 7, share_price=1 + number % 90
    )


@pytest.fixture(scope="module")
def traded(stack: Stack) -> list[int]:
    """Accounts after some traffic."""
    client = Client(stack.url)
    accounts = [client.open_account(1000) for _ in range(ACCOUNTS)]
    in_parallel(16, lambda n: trade(client, accounts[n % ACCOUNTS], n), range(400))
    client.all_settled(accounts, 60)
    return accounts


def test_real_traffic_leaves_no_difference(stack: Stack, traded: list[int]) -> None:
    found = audit(stack)
    assert (found.exit_code, found.differences) == (0, []), found
    assert found.summary["balanced"]
    assert found.summary["accounts"] == ACCOUNTS
    assert found.summary["orders"] >= 400
    assert {"executed", "rejected"} <= set(found.summary["orders_by_status"])


def test_nothing_is_found_while_traffic_runs(stack: Stack, traded: list[int]) -> None:
    client, stop = Client(stack.url), threading.Event()
    sent = itertools.count()

    def send(accounts: list[int]) -> int:
        count = 0
        for account in itertools.cycle(accounts):
            if stop.is_set():
                return count
            trade(client, account, next(sent))
            count += 1
        return count

    with ThreadPoolExecutor(8) as pool:
        # Half of them on one account, so that it never stands still.
        hot = [pool.submit(send, traded[:1]) for _ in range(4)]
        others = [pool.submit(send, traded) for _ in range(4)]
        until(lambda: recorded_account(stack, traded[0]).decided, lambda n: n > 60, 60)
        before = recorded_account(stack, traded[0]).decided
        try:
            audits = [audit(stack), audit(stack, "--segments", "3"), audit(stack)]
        finally:
            stop.set()
        assert sum(one.result() for one in [*hot, *others]) > 100
    assert [(one.exit_code, one.differences) for one in audits] == [(0, [])] * 3, audits
    assert recorded_account(stack, traded[0]).decided > before
    client.all_settled(traded, 60)


def test_a_spoilt_order_is_named(
    stack: Stack, traded: list[int], spoil: Callable[[Key, str, Any], None]
) -> None:
    executed = [o for o in Client(stack.url).orders(traded[3]) if o["status"] == "executed"]
    order = executed[2]
    spoil(keys.order_key(traded[3], order["id"]), "share_price", items.number(Decimal("999.5")))
    found = audit(stack)
    assert found.exit_code == 1
    assert {one["account_id"] for one in found.differences} == {traded[3]}
    # Whether it could have been paid at that price decides what differs there and afterwards.
    assert found.differences[0]["order_id"] == order["id"]
    assert audit(stack, "--account", str(traded[4])).exit_code == 0
    assert audit(stack, "--account", str(traded[3])).exit_code == 1


def test_cash_that_was_changed_is_found(
    stack: Stack, traded: list[int], spoil: Callable[[Key, str, Any], None]
) -> None:
    spoil(keys.account_key(traded[5]), "cash", items.number(10**9))
    found = audit(stack, "--pages-per-second", "50")
    assert found.exit_code == 1
    assert [(one["account_id"], one["what"]) for one in found.differences] == [(traded[5], "cash")]
    assert not found.summary["balanced"]


def test_a_store_that_is_away_ends_the_audit_in_a_line(stack: Stack) -> None:
    found = audit(stack, AWS_ENDPOINT_URL_DYNAMODB="http://127.0.0.1:1")
    assert found.exit_code == 2
    assert found.summary == {}
    assert found.errors.startswith("Error: DynamoDB did not do as asked")
    assert len(found.errors.splitlines()) == 1


# At size


class Filled(Stack):
    """A table without processes; only what an audit needs of a stack."""

    def fill(self, ledgers: list[Ledger]) -> None:
        """Write the items of ``ledgers`` as fast as the engine takes them."""
        create_table(self.dynamodb, self.table_name, wait_seconds=30)
        with ThreadPoolExecutor(4) as pool:
            written = 0
            for _, page in pages(ledgers, page_items=2000):
                written += sum(pool.map(self._write, chunks(page, BATCH_ITEMS)))
        assert written == 1 + sum(2 + ledger.orders for ledger in ledgers)

    def _write(self, batch: list[Item]) -> int:
        requests = [{"PutRequest": {"Item": item}} for item in batch]
        answer = self.dynamodb.batch_write_item(RequestItems={self.table_name: requests})
        assert not answer.get("UnprocessedItems")
        return len(batch)


@pytest.mark.parametrize("orders", [10_000, pytest.param(100_000, marks=pytest.mark.slow)], ids=str)
def test_one_spoilt_order_among_many(engines: Engines, orders: int) -> None:
    ledgers = [Ledger(number, orders // 100) for number in range(1, 101)]
    table = Filled(engines)
    table.fill(ledgers)

    clean = audit(table)
    assert (clean.exit_code, clean.differences) == (0, []), clean
    assert clean.summary["orders"] == orders
    assert clean.summary["looked_again"] == 0

    spoilt = [one for one in ledgers[41].items() if one.get("status", {}).get("S") == "executed"][7]
    spoilt["total_shares"] = items.number(int(spoilt["total_shares"]["N"]) + 1)
    table.dynamodb.put_item(TableName=table.table_name, Item=spoilt)
    found = audit(table, "--segments", "2")
    assert found.exit_code == 1
    assert {one["account_id"] for one in found.differences} == {42}
    assert found.differences[0]["order_id"] == keys.order_of(spoilt)[1]
    print(json.dumps({"clean": clean.summary, "spoilt": found.differences}))  # noqa: T201
