"""DynamoDB in the process, for whatever needs a table (one thread at a time: it is not atomic)."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.unit.factories import moto_client

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient


@pytest.fixture(scope="module")
def client() -> "Iterator[DynamoDBClient]":
    with moto_client() as client:
        yield client
