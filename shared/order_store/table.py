"""The table: its definition, and the command that creates it (safe to run again).

Run as ``python -m shared.order_store.create_table``.
"""

import time
from typing import TYPE_CHECKING, Any, Final

from botocore.exceptions import BotoCoreError, ClientError

from shared.order_store.errors import StoreUnavailable
from shared.order_store.keys import EXPIRES_AT, PK, SHARD, SK, UNDECIDED_INDEX

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

_POLL_SECONDS: Final = 0.25


def table_definition(table_name: str) -> dict[str, Any]:
    """The arguments of CreateTable: on-demand, one sparse index that holds keys alone."""
    return {
        "TableName": table_name,
        "BillingMode": "PAY_PER_REQUEST",
        "KeySchema": [
            {"AttributeName": PK, "KeyType": "HASH"},
            {"AttributeName": SK, "KeyType": "RANGE"},
        ],
        "AttributeDefinitions": [
            {"AttributeName": name, "AttributeType": "S"} for name in (PK, SK, SHARD)
        ],
        "GlobalSecondaryIndexes": [
            {
                "IndexName": UNDECIDED_INDEX,
                "KeySchema": [
                    {"AttributeName": SHARD, "KeyType": "HASH"},
                    {"AttributeName": SK, "KeyType": "RANGE"},
                ],
                "Projection": {"ProjectionType": "KEYS_ONLY"},
            }
        ],
    }


def create_table(client: "DynamoDBClient", table_name: str, wait_seconds: float) -> bool:
    """Make sure that the table exists, is active and expires what has an ``expires_at``.

    Returns:
        True if this call made it, False if it was there.

    Raises:
        StoreUnavailable: no table after ``wait_seconds``.
    """
    deadline = time.monotonic() + wait_seconds
    made = _until(deadline, lambda: _create(client, table_name))
    _until(deadline, lambda: _require_active(client, table_name))
    _until(deadline, lambda: _expire_items(client, table_name))
    return made


def _create(client: "DynamoDBClient", table_name: str) -> bool:
    try:
        client.create_table(**table_definition(table_name))
    except client.exceptions.ResourceInUseException:
        return False
    return True


def _require_active(client: "DynamoDBClient", table_name: str) -> bool:
    status = client.describe_table(TableName=table_name)["Table"]["TableStatus"]
    if status not in ("ACTIVE", "UPDATING"):
        raise StoreUnavailable(f"table {table_name} is {status}")
    return True


def _expire_items(client: "DynamoDBClient", table_name: str) -> bool:
    described = client.describe_time_to_live(TableName=table_name)["TimeToLiveDescription"]
    if described.get("TimeToLiveStatus") in ("ENABLED", "ENABLING"):
        return False
    client.update_time_to_live(
        TableName=table_name,
        TimeToLiveSpecification={"Enabled": True, "AttributeName": EXPIRES_AT},
    )
    return True


def _until(deadline: float, step: Any) -> bool:
    """Repeat ``step`` while the store is not ready for it, until ``deadline`` (monotonic)."""
    while True:
        try:
            return bool(step())
        except (BotoCoreError, ClientError, StoreUnavailable) as error:
            if time.monotonic() >= deadline:
                raise StoreUnavailable(f"no table: {error}") from error
        time.sleep(_POLL_SECONDS)
