"""An empty table for each test."""

from typing import TYPE_CHECKING

import pytest

from shared.order_store.gateway import Gateway
from tests.unit.factories import new_table

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient


@pytest.fixture
def gateway(client: "DynamoDBClient") -> Gateway:
    return new_table(client)
