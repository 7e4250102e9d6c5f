"""Creating the table, again and again, and giving up in time."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast

import pytest
from botocore.exceptions import EndpointConnectionError

from shared.order_store import table
from shared.order_store.errors import StoreUnavailable
from shared.order_store.table import create_table, table_definition
from tests.unit.factories import moto_client

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient


@pytest.fixture
def client() -> "Iterator[DynamoDBClient]":
    with moto_client() as client:
        yield client


def test_a_table_is_created_once(client: "DynamoDBClient") -> None:
    assert create_table(client, "orders", wait_seconds=0)
    assert not create_table(client, "orders", wait_seconds=0)
    assert client.list_tables()["TableNames"] == ["orders"]


def test_creating_a_table_again_keeps_its_items(client: "DynamoDBClient") -> None:
    create_table(client, "orders", wait_seconds=0)
    key = {"pk": {"S": "ACCOUNT#1"}, "sk": {"S": "ACCOUNT"}}
    client.put_item(TableName="orders", Item=key)
    create_table(client, "orders", wait_seconds=0)
    assert client.get_item(TableName="orders", Key=key)["Item"] == key


def test_a_table_is_on_demand_with_one_sparse_index_of_keys(client: "DynamoDBClient") -> None:
    create_table(client, "orders", wait_seconds=0)
    described = client.describe_table(TableName="orders")["Table"]
    assert described["BillingModeSummary"]["BillingMode"] == "PAY_PER_REQUEST"
    assert [part["AttributeName"] for part in described["KeySchema"]] == ["pk", "sk"]
    (index,) = described["GlobalSecondaryIndexes"]
    assert index["IndexName"] == "undecided"
    assert [part["AttributeName"] for part in index["KeySchema"]] == ["undecided_shard", "sk"]
    assert index["Projection"]["ProjectionType"] == "KEYS_ONLY"


@pytest.mark.parametrize("made_before", [False, True])
def test_a_table_expires_its_items(client: "DynamoDBClient", made_before: bool) -> None:
    if made_before:  # as if the command had died between its two steps
        client.create_table(**table_definition("orders"))
    create_table(client, "orders", wait_seconds=0)
    described = client.describe_time_to_live(TableName="orders")["TimeToLiveDescription"]
    assert described == {"TimeToLiveStatus": "ENABLED", "AttributeName": "expires_at"}


def test_expiry_is_asked_for_once(
    client: "DynamoDBClient", monkeypatch: pytest.MonkeyPatch
) -> None:
    create_table(client, "orders", wait_seconds=0)

    def refuse(**_: Any) -> None:  # as DynamoDB does, where moto does not
        raise AssertionError("TimeToLive is already enabled")

    monkeypatch.setattr(client, "update_time_to_live", refuse)
    assert not create_table(client, "orders", wait_seconds=0)


class Scripted:
    """A client on which the table becomes active after some looks, if the store answers at all."""

    def __init__(self, real: "DynamoDBClient", statuses: list[str]) -> None:
        self.real = real
        self.exceptions = real.exceptions
        self.statuses = statuses

    def describe_table(self, **_: Any) -> dict[str, Any]:
        return {"Table": {"TableStatus": self.statuses.pop(0)}}

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)


def test_a_table_that_is_being_created_is_waited_for(
    client: "DynamoDBClient", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table, "_POLL_SECONDS", 0)
    scripted = Scripted(client, ["CREATING", "CREATING", "ACTIVE"])
    assert create_table(cast("DynamoDBClient", scripted), "orders", wait_seconds=60)
    assert scripted.statuses == []


def test_a_table_that_does_not_become_active_in_time_is_unavailable(
    client: "DynamoDBClient",
) -> None:
    scripted = Scripted(client, ["CREATING"])
    with pytest.raises(StoreUnavailable, match="CREATING"):
        create_table(cast("DynamoDBClient", scripted), "orders", wait_seconds=0)


def test_a_store_that_is_not_there_yet_is_waited_for(
    client: "DynamoDBClient", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table, "_POLL_SECONDS", 0)
    create = client.create_table
    failures: list[Exception] = [EndpointConnectionError(endpoint_url="http://x")] * 2

    def create_later(**arguments: Any) -> Any:
        if failures:
            raise failures.pop()
        return create(**arguments)

    monkeypatch.setattr(client, "create_table", create_later)
    assert create_table(client, "orders", wait_seconds=60)


def test_a_store_that_does_not_come_is_unavailable(
    client: "DynamoDBClient", monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(**_: Any) -> None:
        raise EndpointConnectionError(endpoint_url="http://x")

    monkeypatch.setattr(client, "create_table", fail)
    with pytest.raises(StoreUnavailable, match="no table"):
        create_table(client, "orders", wait_seconds=0)
