"""What the routes work with, made once for each process."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, cast

from flask import current_app

from api import draining
from api.acceptance import AccountRequest, Intake, OrderRequest, account_intake, order_intake
from api.bulk import BulkIntake
from api.cancelling import Canceller
from api.long_poll import LongPoll
from api.status import StatusReader
from api.streams import Streams
from api.waiting import Feed, Waiting
from shared.clients import broker_client, cache_client, table_client
from shared.ids import OrderIds
from shared.notices import Notice, NoticeFeed, NoticesLost, channel_of
from shared.order_store.gateway import Gateway
from shared.order_store.records import AcceptedOrder, OpenedAccount
from shared.replay_cache import ReplayCache
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
    bulk: BulkIntake
    status: StatusReader
    canceller: Canceller
    waiting: Waiting
    long_poll: LongPoll
    streams: Streams

    def deadline(self) -> float:
        """By when, on the monotonic clock, a POST that arrives now has to be answered."""
        return draining.in_time(time.monotonic() + self.settings.accept_seconds_max)


def build_services(settings: Settings) -> Services:
    """Connect to the real store, broker and cache (lazily: nothing has to be up yet)."""
    connections = settings.api_threads + 2
    gateway = Gateway(table_client(connections), settings.table_name)
    queue = TaskQueue(publisher_app(settings, connections), broker_client(settings, connections))
    redis = cache_client(settings, connections)
    channel = channel_of(settings.table_name)
    cache = StatusCache(redis, settings.cache_seconds, channel)
    replays = ReplayCache(redis, settings.table_name)
    feed = NoticeFeed(cache_client(settings, connections=1), channel)
    made = assemble(settings, gateway, queue, cache, replays=replays, feed=feed)
    # When the door closes, not before: until then whoever connects again may be sent here again.
    draining.call_when_begun(lambda: made.waiting.end_after(settings.drain_seconds))
    return made


def assemble(
    settings: Settings,
    gateway: Gateway,
    queue: TaskQueue,
    cache: StatusCache,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    replays: ReplayCache | None = None,
    feed: Feed | None = None,
) -> Services:
    """Put the parts together over the given adapters; without a ``feed`` nobody is woken."""
    orders = order_intake(gateway, queue, OrderIds(), clock, replays)
    status = StatusReader(gateway, cache)
    waiting = Waiting(
        feed or _Silence(),
        waits_max=settings.waits_max,
        streams_max=settings.streams_max,
        streams_per_account_max=settings.streams_per_account_max,
    )
    return Services(
        settings=settings,
        clock=clock,
        gateway=gateway,
        queue=queue,
        cache=cache,
        orders=orders,
        accounts=account_intake(gateway, clock, replays),
        bulk=BulkIntake(
            orders,
            gateway,
            group_seconds=settings.accept_seconds_max,
            seconds_max=settings.bulk_seconds_max,
        ),
        status=status,
        canceller=Canceller(gateway, status, clock=clock),
        waiting=waiting,
        long_poll=LongPoll(status, waiting, settings.wait_seconds_max),
        streams=Streams(gateway, waiting, settings.stream_seconds_max),
    )


class _Silence:
    """A feed on which nothing can be heard."""

    def listen(self) -> Iterator[Sequence[Notice] | None]:
        raise NoticesLost("there is no feed")


def services() -> Services:
    """The services of the application that serves the current request."""
    return cast("Services", current_app.extensions[EXTENSION])
