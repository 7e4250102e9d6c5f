"""Clients of other services, each with explicit time limits; nothing is connected at import."""

import os
from typing import TYPE_CHECKING, Final, cast

import boto3
import botocore.session
from botocore.config import Config
from botocore.httpsession import get_cert_path
from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from shared.order_store.wire import DynamoDBWire
from shared.settings import Settings

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

DYNAMODB_CONNECT_SECONDS: Final = 0.5
DYNAMODB_READ_SECONDS: Final = 1.1
"""One attempt at these limits, and the wait for a group before it, stay below a request's
``accept_seconds_max``."""

DYNAMODB_READ_SECONDS_WORKER: Final = 5.0
"""Worker and sweeper keep nobody waiting."""

CACHE_SECONDS: Final = 0.25
"""The cache only saves time: a slow one is treated as absent."""

BROKER_LOOK_SECONDS: Final = 1.0

NAME_LOOKUP_SECONDS: Final = 1
"""How long the C library asks for a name, once. By itself it asks for 10 s or more
(resolv.conf(5)), and no client's limit covers that. A ``RES_OPTIONS`` that is set is left alone."""

os.environ.setdefault("RES_OPTIONS", f"timeout:{NAME_LOOKUP_SECONDS} attempts:1")


def dynamodb_client(
    connections: int, read_seconds: float = DYNAMODB_READ_SECONDS
) -> "DynamoDBClient":
    """A client for as many threads as ``connections``; it never repeats a call by itself.

    Where DynamoDB is, boto reads from its own environment variables.
    """
    client: DynamoDBClient = boto3.session.Session().client(
        "dynamodb",
        config=Config(
            connect_timeout=DYNAMODB_CONNECT_SECONDS,
            read_timeout=read_seconds,
            max_pool_connections=connections,
            retries={"mode": "standard", "total_max_attempts": 1},
            # Our own code builds every request; checking it again costs a fifth of the call.
            parameter_validation=False,
            tcp_keepalive=True,
        ),
    )
    return client


def table_client(connections: int, read_seconds: float = DYNAMODB_READ_SECONDS) -> "DynamoDBClient":
    """A client of the calls on the table, for as many threads as ``connections``.

    It costs a fraction of boto3's. Endpoint, region, credentials and authorities are those that
    boto3 would use; where it would go through an HTTP proxy, this one goes straight.
    """
    session = botocore.session.get_session()
    found = session.create_client("dynamodb").meta
    wire = DynamoDBWire(
        found.endpoint_url,
        found.region_name,
        session.get_credentials(),
        connections=connections,
        connect_seconds=DYNAMODB_CONNECT_SECONDS,
        read_seconds=read_seconds,
        authorities=session.get_config_variable("ca_bundle") or get_cert_path(verify=True),
    )
    return cast("DynamoDBClient", wire)


def cache_client(settings: Settings, connections: int) -> "Redis":
    """A client of the status cache that gives up early and never repeats."""
    return _redis_client(settings.cache_location, connections, CACHE_SECONDS)


def broker_client(settings: Settings, connections: int) -> "Redis":
    """A client that only looks at the broker's queue (messages go through Celery)."""
    return _redis_client(settings.redis_url, connections, BROKER_LOOK_SECONDS)


def _redis_client(url: str, connections: int, seconds: float) -> "Redis":
    return Redis.from_url(
        url,
        socket_connect_timeout=seconds,
        socket_timeout=seconds,
        max_connections=connections,
        retry=Retry(NoBackoff(), 0),
    )
