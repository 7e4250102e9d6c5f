"""The store's unit tests again, on the engine: each module here is one of theirs."""

from typing import TYPE_CHECKING

import pytest

from shared.order_store.gateway import Gateway

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient


@pytest.fixture
def client(engine_client: "DynamoDBClient") -> "DynamoDBClient":
    return engine_client


@pytest.fixture
def gateway(engine_gateway: Gateway) -> Gateway:
    return engine_gateway
