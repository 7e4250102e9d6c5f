"""One table for each test, on every store that the code is tested with.

``gateway`` is moto in the process, and again (marked ``integration``) the engine that
``DYNAMODB_ENGINE`` names. ``engine_gateway`` is the engine alone, for what moto cannot do.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast

import pytest

from shared.clients import dynamodb_client, table_client
from shared.order_store.gateway import Gateway
from tests.stack import Engines
from tests.unit.factories import moto_client, new_table

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

CONNECTIONS = 16
READ_SECONDS = 10.0


class TrafficAndTables:
    """The client of the code's own traffic, and boto3's for what that one does not do."""

    def __init__(self) -> None:
        self._traffic = table_client(CONNECTIONS, READ_SECONDS)
        self._other = dynamodb_client(CONNECTIONS, READ_SECONDS)

    def __getattr__(self, name: str) -> Any:
        of = self._traffic if hasattr(self._traffic, name) else self._other
        return getattr(of, name)


@pytest.fixture(scope="module")
def engine_client(engines: Engines) -> "DynamoDBClient":
    """The code's own clients, on the engine."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("AWS_ENDPOINT_URL_DYNAMODB", engines.dynamodb_url)
        environment.setenv("AWS_DEFAULT_REGION", "us-east-1")
        environment.setenv("AWS_ACCESS_KEY_ID", "local")
        environment.setenv("AWS_SECRET_ACCESS_KEY", "local")
        return cast("DynamoDBClient", TrafficAndTables())


@pytest.fixture
def engine_gateway(engine_client: "DynamoDBClient") -> Gateway:
    """An empty table on the engine."""
    return new_table(engine_client)


@pytest.fixture
def moto_gateway() -> Iterator[Gateway]:
    """An empty table in moto."""
    with moto_client() as client:
        yield new_table(client)


@pytest.fixture(
    params=["moto_gateway", pytest.param("engine_gateway", marks=pytest.mark.integration)],
    ids=["moto", "engine"],
)
def gateway(request: pytest.FixtureRequest) -> Gateway:
    """An empty table in moto, and one on the engine."""
    found: Gateway = request.getfixturevalue(request.param)
    return found
