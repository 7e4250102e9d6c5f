import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import fakeredis
import pytest

from api.app import create_app
from api.services import assemble
from shared.notices import NoticeFeed, channel_of
from shared.order_store.gateway import Gateway
from shared.order_store.table import create_table
from shared.replay_cache import ReplayCache
from shared.settings import Settings
from shared.status_cache import StatusCache
from tests.unit.api.parts import Api, FakeClock, FakeQueue, FaultyClient

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

_numbers = itertools.count(1)


@pytest.fixture(name="dynamodb", scope="module")
def _dynamodb(client: "DynamoDBClient") -> "DynamoDBClient":
    return client


@pytest.fixture(name="make_api")
def _make_api(dynamodb: "DynamoDBClient") -> Callable[..., Api]:
    def make(**changes: Any) -> Api:
        # The time limits are real time: a busy machine is no failure.
        fields = {
            "accept_seconds_max": 60.0,
            "bulk_seconds_max": 60.0,
            "table_name": f"api-{next(_numbers)}",
            "access_keys": "off",
            **changes,
        }
        settings = Settings(**fields)
        create_table(dynamodb, settings.table_name, wait_seconds=0)
        store = FaultyClient(dynamodb)
        gateway = Gateway(cast("DynamoDBClient", store), settings.table_name, sleep=lambda _: None)
        queue, clock, redis = FakeQueue(), FakeClock(), fakeredis.FakeRedis()
        replays = ReplayCache(redis, settings.table_name)
        channel = channel_of(settings.table_name)
        cache, feed = StatusCache(redis, 60, channel), NoticeFeed(redis, channel)
        services = assemble(settings, gateway, queue, cache, clock, replays, feed)
        http = create_app(services=services).test_client()
        return Api(http, services, gateway, store, queue, clock, redis)

    return make


@pytest.fixture
def api(make_api: Callable[..., Api]) -> Api:
    return make_api()
