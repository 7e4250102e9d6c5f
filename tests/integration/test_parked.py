"""Poisonous orders on a real stack: parked, listed, repaired and replayed, or cancelled."""

import json
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from local import commands
from shared.order_store import keys
from shared.order_store.gateway import Gateway
from tests.integration.client import Client, Json, until
from tests.integration.table import accepted_count, gateway, recorded_account
from tests.stack import Engines, Stack

pytestmark = [pytest.mark.fault, pytest.mark.timeout(300)]

RECOVER_SECONDS = 2
ATTEMPTS_MAX = 2
COMMAND_SECONDS = 60


@pytest.fixture(scope="module")
def stack(own_engines: Engines) -> Iterator[Stack]:
    env = {
        "RECOVER_AFTER": str(RECOVER_SECONDS),
        "SWEEP_EVERY": "0.3",
        "ATTEMPTS_MAX": str(ATTEMPTS_MAX),
    }
    with Stack(own_engines, workers=1, env=env) as running:
        yield running


def ops(stack: Stack, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run an operators' command as an operator does, in the environment of the stack."""
    done = subprocess.run(
        commands.ops(*arguments),
        cwd=commands.ROOT,
        env=stack.env,
        capture_output=True,
        text=True,
        timeout=COMMAND_SECONDS,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


def listed(stack: Stack, account: int) -> dict[str, Json]:
    done = ops(stack, "parked", "list", "--json", "--account", str(account))
    assert done.returncode == 0, done.stderr
    return {shown["order"]: shown for shown in map(json.loads, done.stdout.splitlines())}


def name(order: Json) -> str:
    return f"{order['account_id']}/{order['id']}"


def status(client: Client, order: Json) -> str:
    path = f"/v1/accounts/{order['account_id']}/orders/{order['id']}"
    return str(client.get(path).json()["status"])


def overwrite(stack: Stack, key: keys.Key, attribute: str, value: dict[str, str]) -> Any:
    """Write into an item as a hand at the console does; returns what stood there."""
    answer = stack.dynamodb.update_item(
        TableName=stack.table_name,
        Key=key,
        UpdateExpression="SET #name = :value",
        ExpressionAttributeNames={"#name": attribute},
        ExpressionAttributeValues={":value": value},
        ReturnValues="UPDATED_OLD",
    )
    return answer["Attributes"][attribute]


def places(table: Gateway, account: int) -> list[int]:
    """Every number of a decision that the account's orders carry, parkings included."""
    found, last = table.query(
        KeyConditionExpression="pk = :pk AND sk BETWEEN :from AND :to",
        ExpressionAttributeValues=keys.orders_of(account),
        ConsistentRead=True,
    )
    assert last is None
    decisions: list[Any] = [*found]
    decisions += [parked["M"] for item in found for parked in item.get("parked", {"L": []})["L"]]
    return sorted(int(one["sequence"]["N"]) for one in decisions if "sequence" in one)


def check_counts(stack: Stack, account: int) -> None:
    """All is decided, each decision has its number, and the books balance."""
    decided = recorded_account(stack, account).decided
    assert accepted_count(stack, account) == decided
    assert places(gateway(stack), account) == list(range(1, decided + 1))
    audit = ops(stack, "audit", "--account", str(account))
    assert audit.returncode == 0, audit.stdout + audit.stderr


def test_poisonous_orders_are_parked_explained_and_replayed_or_cancelled(stack: Stack) -> None:
    client = Client(stack.url)
    account, other = client.open_account(1000), client.open_account(1000)
    stack.workers[0].pause()
    poison, hopeless = client.order(account, total_shares=1), client.order(account, total_shares=4)
    for order in (poison, hopeless):
        stack.spoil_order(account, order["id"])
    behind = client.order(account, total_shares=3)
    elsewhere = client.order(other)
    stack.workers[0].resume()

    # Other accounts do not wait at all; later orders of this one only until it is parked.
    assert client.settled(elsewhere)["status"] == "executed"
    assert status(client, behind) == "pending"
    assert client.settled(behind, 60)["status"] == "executed"
    for order in (poison, hopeless):
        shown = client.settled(order)
        assert shown["status"] == "failed"
        assert shown["failure"].startswith("parked: its item cannot be read")

    # Listed, with their reasons.
    parked = until(lambda: listed(stack, account), lambda found: len(found) == 2, RECOVER_SECONDS)
    assert list(parked) == [name(poison), name(hopeless)]
    assert [one["sequence"] for one in parked.values()] == [1, 2]
    assert "No parked orders." in ops(stack, "parked", "list", "--account", str(other)).stdout
    why = ops(stack, "parked", "show", name(poison))
    assert why.returncode == 0
    assert "refused until the item is repaired" in why.stdout
    assert "nonsense" in why.stdout

    # Nothing comes of a replay while it is damaged.
    refused = ops(stack, "parked", "replay", "--all", "--account", str(account), "--yes")
    assert refused.returncode == 1
    assert "repair it first" in refused.stderr
    assert {status(client, order) for order in (poison, hopeless)} == {"failed"}

    # Repaired, it is decided after all that was decided meanwhile.
    overwrite(stack, keys.order_key(account, poison["id"]), "share_price", {"N": "50"})
    replayed = ops(stack, "parked", "replay", name(poison), "--yes")
    assert (replayed.returncode, replayed.stderr) == (0, "")
    assert client.settled(poison)["status"] == "executed"
    cancelled = ops(stack, "parked", "cancel", name(hopeless), "--yes")
    assert (cancelled.returncode, cancelled.stderr) == (0, "")
    assert status(client, hopeless) == "cancelled"

    assert client.account(account)["cash"] == "800"
    assert places(gateway(stack), account) == [1, 2, 3, 4]
    overwrite(stack, keys.order_key(account, hopeless["id"]), "share_price", {"N": "50"})
    check_counts(stack, account)
    gone = until(lambda: listed(stack, account), lambda found: not found, RECOVER_SECONDS)
    assert gone == {}
    again = ops(stack, "parked", "replay", name(poison), "--yes")
    assert again.returncode == 1
    assert "it is not parked but executed" in again.stderr


def test_orders_of_a_damaged_account_are_parked_and_replayed_without_a_broker(
    stack: Stack,
) -> None:
    client = Client(stack.url)
    account, other = client.open_account(1000), client.open_account(1000)
    assert client.settled(client.order(account, total_shares=7))["status"] == "executed"
    cash = overwrite(stack, keys.account_key(account), "cash", {"S": "nonsense"})
    orders = [client.order(account, total_shares=n) for n in (1, 3)]
    assert client.settled(client.order(other))["status"] == "executed"
    for order in orders:
        shown = client.settled(order, 60)
        assert shown["status"] == "failed"
        assert f"ACCOUNT#{account}" in shown["failure"]
    # Without their account they got no place in its sequence, and count as if never accepted.
    assert accepted_count(stack, account) == 1
    forecast = ops(stack, "parked", "show", name(orders[0]))
    assert "refused until the account is repaired" in forecast.stdout

    overwrite(stack, keys.account_key(account), "cash", cash)
    until(lambda: listed(stack, account), lambda found: len(found) == 2, RECOVER_SECONDS)
    stack.engines.redis.kill()
    replayed = ops(stack, "parked", "replay", "--all", "--account", str(account), "--yes")
    stack.engines.redis.restart()

    assert replayed.returncode == 0, replayed.stderr
    assert "The broker did not take the message" in replayed.stderr
    assert {client.settled(order, 60)["status"] for order in orders} == {"executed"}
    assert client.account(account)["cash"] == "450"
    check_counts(stack, account)


def test_a_pending_order_is_cancelled_and_those_behind_it_go_on(stack: Stack) -> None:
    client = Client(stack.url)
    account = client.open_account(1000)
    stack.workers[0].pause()
    cancelled = client.order(account, total_shares=1)
    behind = client.order(account, total_shares=3)
    done = ops(stack, "parked", "cancel", name(cancelled), "--yes")
    stack.workers[0].resume()

    assert (done.returncode, done.stderr) == (0, "")
    assert client.settled(behind)["status"] == "executed"
    shown = client.settled(cancelled)
    assert (shown["status"], shown["current_balance"]["cash"]) == ("cancelled", "1000")
    check_counts(stack, account)


def test_without_dynamodb_a_command_says_so_in_time(stack: Stack) -> None:
    stack.engines.dynamodb.pause()
    try:
        done = ops(stack, "parked", "list")
    finally:
        stack.engines.dynamodb.resume()
    assert done.returncode == 1
    assert done.stderr.startswith("Error: DynamoDB did not do as asked: ")
    assert len(done.stderr.splitlines()) == 1
