"""A backup under traffic on real engines, restored into another table that then goes on."""

import itertools
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from local import commands
from ops.backup_file import read_items
from shared.order_store import keys
from tests.integration.client import Client, in_parallel, until
from tests.integration.table import recorded_account
from tests.stack import Engines, Stack

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]

ACCOUNTS = 8
OPS_SECONDS_MAX = 120


def ops(stack: Stack, *arguments: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ops", *map(str, arguments)],
        cwd=commands.ROOT,
        env={**stack.env, **env},
        capture_output=True,
        text=True,
        timeout=OPS_SECONDS_MAX,
        check=False,
    )


def audit(stack: Stack, table_name: str) -> tuple[int, list[dict[str, Any]]]:
    """The exit status and the lines of an audit of ``table_name``, the summary last."""
    ended = ops(stack, "audit", "--json", TABLE_NAME=table_name)
    return ended.returncode, [json.loads(line) for line in ended.stdout.splitlines()]


@pytest.fixture(scope="module")
def stack(own_engines: Engines) -> Iterator[Stack]:
    with Stack(own_engines, workers=1, env={"RECOVER_AFTER": "2", "SWEEP_EVERY": "0.5"}) as running:
        yield running


@pytest.fixture(scope="module")
def accounts(stack: Stack) -> list[int]:
    """Accounts after some traffic."""
    client = Client(stack.url)
    opened = [client.open_account(100_000) for _ in range(ACCOUNTS)]
    in_parallel(8, lambda n: client.order(opened[n % ACCOUNTS], total_shares=1 + n), range(120))
    client.all_settled(opened, 60)
    return opened


class Restored(Stack):
    """A stack over a table that is there already."""

    def __init__(self, engines: Engines, table_name: str) -> None:
        env = {"TABLE_NAME": table_name, "RECOVER_AFTER": "2", "SWEEP_EVERY": "0.5"}
        super().__init__(engines, workers=1, env=env)
        self.table_name = table_name


def test_a_backup_under_traffic_is_restored_without_a_difference(
    stack: Stack, accounts: list[int], tmp_path: Path
) -> None:
    client, stop, sent = Client(stack.url), threading.Event(), itertools.count(1000)
    out = tmp_path / "orders.json.gz"

    def send(some: list[int]) -> int:
        count = 0
        for account in itertools.cycle(some):
            if stop.is_set():
                return count
            # One after the other, so that no backlog grows that has to be waited for.
            client.settled(client.order(account, total_shares=next(sent), share_price="0.01"))
            count += 1
        return count

    with ThreadPoolExecutor(4) as pool:
        # Half of them on one account, so that it never stands still.
        traffic = [pool.submit(send, accounts[:1]), pool.submit(send, accounts[:1])]
        traffic += [pool.submit(send, accounts), pool.submit(send, accounts)]
        before = recorded_account(stack, accounts[0]).decided
        until(lambda: recorded_account(stack, accounts[0]).decided, lambda n: n > before + 20, 60)
        try:
            made = [ops(stack, "backup", tmp_path / f"{n}.gz", "--segments", "2") for n in "ab"]
            made.append(ops(stack, "backup", out))
        finally:
            stop.set()
        assert sum(one.result() for one in traffic) > 50
    assert [one.returncode for one in made] == [0, 0, 0], made
    assert any("were read again" in one.stdout for one in made), made
    client.all_settled(accounts, 60)

    for name, file in [("restored-a", tmp_path / "a.gz"), ("restored-out", out)]:
        into = ops(stack, "restore", file, TABLE_NAME=name)
        assert into.returncode == 0, into
        assert "empty the Redis databases" in into.stdout
        code, lines = audit(stack, name)
        assert (code, len(lines)) == (0, 1), lines
        assert lines[0]["accounts"] == ACCOUNTS
        assert lines[0]["balanced"]
    again = ops(stack, "restore", out, TABLE_NAME="restored-out")
    assert again.returncode == 1
    assert "holds items" in again.stderr


def test_a_restored_table_goes_on_and_decides_what_was_pending(
    own_engines: Engines, stack: Stack, accounts: list[int], tmp_path: Path
) -> None:
    client, out = Client(stack.url), tmp_path / "orders.json.gz"
    worker = stack.workers[0]
    worker.ask_to_stop()
    worker.end_within(grace_seconds=15)
    pending = [client.order(account, total_shares=7, issuer_name="LATE") for account in accounts]
    assert ops(stack, "backup", out).returncode == 0
    written = {keys.order_of(item): item for item in read_items(out) if keys.is_order(item)}
    kept = [written[order["account_id"], order["id"]]["status"]["S"] for order in pending]
    assert kept == ["pending"] * ACCOUNTS
    # After the backup: the restored table knows nothing of these, and Redis has to forget them.
    late = client.order(accounts[0], total_shares=8, issuer_name="LATE")
    stack.add_worker()
    assert client.settled(late)["status"] == "executed"

    assert ops(stack, "restore", out, TABLE_NAME="goes-on").returncode == 0
    own_engines.flush_redis()
    with Restored(own_engines, "goes-on") as restored:
        client = Client(restored.url)
        settled = [client.settled(order, 60) for order in pending]
        assert {order["status"] for order in settled} == {"executed"}
        assert client.get(f"/v1/accounts/{accounts[0]}/orders/{late['id']}").status_code == 404
        fresh = client.settled(client.order(accounts[0], total_shares=9, issuer_name="LATE"))
        assert fresh["status"] == "executed"
        assert client.open_account(5) > max(accounts)
    code, lines = audit(stack, "goes-on")
    assert (code, len(lines)) == (0, 1), lines
    assert lines[0]["orders_by_status"].get("pending", 0) == 0


def test_a_store_that_is_away_ends_a_backup_in_a_line(
    stack: Stack, accounts: list[int], tmp_path: Path
) -> None:
    out, away = tmp_path / "orders.json.gz", {"AWS_ENDPOINT_URL_DYNAMODB": "http://127.0.0.1:1"}
    made = ops(stack, "backup", out, **away)
    assert made.returncode == 1
    assert made.stderr.startswith("Error: DynamoDB did not do as asked")
    assert list(tmp_path.iterdir()) == []
