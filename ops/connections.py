"""How a command reaches the store and the broker, and what it says when it does not."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import click
from pydantic import ValidationError

from shared.clients import (
    DYNAMODB_READ_SECONDS_WORKER,
    broker_client,
    dynamodb_client,
    table_client,
)
from shared.order_store.errors import StoreError
from shared.order_store.gateway import Gateway
from shared.settings import Settings
from shared.task_queue import TaskQueue, publisher_app

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

_CONNECTIONS: Final = 1


def read_settings() -> Settings:
    """The settings, from the environment; an impossible one ends the command."""
    try:
        return Settings()
    except ValidationError as error:
        lines = (
            f"{'.'.join(map(str, one['loc'])).upper()}: {one['msg']}" for one in error.errors()
        )
        raise click.UsageError("A setting is impossible.\n" + "\n".join(lines)) from error


def open_client(connections: int = _CONNECTIONS) -> "DynamoDBClient":
    """A client of DynamoDB; boto reads from the environment where that is."""
    with _boto_errors_said():
        return table_client(connections, DYNAMODB_READ_SECONDS_WORKER)


def open_full_client(connections: int = _CONNECTIONS) -> "DynamoDBClient":
    """The same for all that DynamoDB can do, such as creating tables and writing in batches."""
    with _boto_errors_said():
        return dynamodb_client(connections, DYNAMODB_READ_SECONDS_WORKER)


def open_gateway(settings: Settings) -> Gateway:
    """The table of the settings."""
    return Gateway(open_client(), settings.table_name)


def open_queue(settings: Settings) -> TaskQueue:
    """The broker's queue."""
    return TaskQueue(publisher_app(settings, _CONNECTIONS), broker_client(settings, _CONNECTIONS))


@contextmanager
def store_errors_said() -> Iterator[None]:
    """End the command with one clear line when DynamoDB does not do as asked."""
    try:
        yield
    except StoreError as error:
        raise click.ClickException(f"DynamoDB did not do as asked: {error}") from error


@contextmanager
def _boto_errors_said() -> Iterator[None]:
    try:
        yield
    except Exception as error:  # boto's own, of many kinds: no region, no such profile
        raise click.ClickException(
            f"boto is not set up to reach DynamoDB: {error}\n"
            'What `make run` started is reached with: make ops ARGS="..."'
        ) from error
