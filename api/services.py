"""What the routes work with, made once for each process."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, cast

from flask import current_app

from api.acceptance import AccountRequest, Intake, OrderRequest, account_intake, order_intake
from api.status import StatusReader
from shared.clients import broker_client, cache_client, table_client
from shared.ids import OrderIds
from shared.order_store.gateway import Gateway
from shared.order_store.records import AcceptedOrder, OpenedAccount
from shared.settings import Settings
from shared.status_cache import StatusCache
from shared.task_queue import TaskQueue, publisher_app

EXTENSION: Final = "order_processor"
"""Where an application keeps its services."""


@dataclass(frozen=True, slots=True)
class Services:
    """The parts behind the routes."""

    settings: Settings
    clock: Callable[[], datetime]
    gateway: Gateway
    queue: TaskQueue
    cache: StatusCache
    orders: Intake[OrderRequest, AcceptedOrder]
    accounts: Intake[AccountRequest, OpenedAccount]
    status: StatusReader

    def deadline(self) -> float:
        """By when, on the monotonic clock, a POST that arrives now has to be answered."""
        return time.monotonic() + self.settings.accept_seconds_max


def build_services(settings: Settings) -> Services:
    """Connect to the real store, broker and cache (lazily: nothing has to be up yet)."""
    connections = settings.api_threads + 2
    gateway = Gateway(table_client(connections), settings.table_name)
    queue = TaskQueue(publisher_app(settings, connections), broker_client(settings, connections))
    cache = StatusCache(cache_client(settings, connections), settings.cache_seconds)
    return assemble(settings, gateway, queue, cache)


def assemble(
    settings: Settings,
    gateway: Gateway,
    queue: TaskQueue,
    cache: StatusCache,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Services:
    """Put the parts together over the given adapters."""
    return Services(
        settings=settings,
        clock=clock,
        gateway=gateway,
        queue=queue,
        cache=cache,
        orders=order_intake(gateway, queue, OrderIds(), clock),
        accounts=account_intake(gateway, clock),
        status=StatusReader(gateway, cache),
    )


def services() -> Services:
    """The services of the application that serves the current request."""
    return cast("Services", current_app.extensions[EXTENSION])
