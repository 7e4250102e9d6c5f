"""The Celery application of the worker: start it with ``celery -A worker.app worker``.

The task is thin: what settling means stands in ``worker.processing``.
"""

import os
import signal
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from types import FrameType
from typing import Any, Final

import billiard
from celery.signals import (
    setup_logging,
    worker_init,
    worker_process_init,
    worker_process_shutdown,
    worker_ready,
    worker_shutdown,
    worker_shutting_down,
)
from structlog.contextvars import bound_contextvars

from shared import garbage, metrics, metrics_folder, tracing
from shared.clients import (
    DYNAMODB_READ_SECONDS_WORKER,
    broker_client,
    cache_client,
    table_client,
)
from shared.logs import configure_logs, get_logger
from shared.notices import channel_of
from shared.order_store.gateway import Gateway
from shared.settings import Settings
from shared.status_cache import StatusCache
from shared.task_queue import (
    ORDERS_QUEUE,
    SETTLE_TASK,
    QueueUnavailable,
    TaskQueue,
    publisher_app,
    read_origins,
    read_ref,
    worker_app,
)
from worker.processing import Settler
from worker.turns import Turns

STOP_SECONDS_MAX: Final = 8.0
"""How long a worker that was asked to stop lets its messages run before it gives them back."""

_COLD_STOP_SECONDS: Final = 2.0
"""How long its processes then have to end by themselves."""

_CONNECTIONS = 4

settings = Settings()
app = worker_app(settings)
app.conf.update(
    worker_concurrency=settings.worker_processes,
    worker_pool="prefork",
    worker_consumer="worker.consumer:EventBatchingConsumer",
)

log = get_logger(__name__)


@setup_logging.connect
def _configure_logs(**_: Any) -> None:
    configure_logs(settings.log_format)


@worker_init.connect
def _make_room_for_metrics(**_: Any) -> None:
    if settings.metrics_port:
        metrics_folder.make()


@worker_shutdown.connect
def _remove_metrics(**_: Any) -> None:
    if settings.metrics_port:
        metrics_folder.remove()


@worker_ready.connect
def _show_metrics(**_: Any) -> None:
    if settings.metrics_port:
        # Not before its folder is there; what its processes count, this one shows.
        from shared import metrics_export

        metrics_export.serve(settings.metrics_host, settings.metrics_port)


@worker_ready.connect
def _spare_what_lives(**_: Any) -> None:
    garbage.spare_what_lives()


@worker_ready.connect
def _say_ready(**_: Any) -> None:
    log.info("worker_ready", queue=ORDERS_QUEUE, processes=settings.worker_processes)


@worker_shutting_down.connect
def _limit_stop(how: str, **_: Any) -> None:
    """Bound the end of a worker: Celery alone waits for as long as a message takes.

    Whoever asks again gets no more time by that.
    """
    is_limited = signal.getitimer(signal.ITIMER_REAL)[0] > 0
    if how == "Warm" and not is_limited:
        signal.signal(signal.SIGALRM, _stop_cold)
        signal.setitimer(signal.ITIMER_REAL, STOP_SECONDS_MAX)


def _stop_cold(_signal: int, _frame: FrameType | None) -> None:
    signal.signal(signal.SIGALRM, _kill_processes)
    signal.setitimer(signal.ITIMER_REAL, _COLD_STOP_SECONDS)
    # What SIGQUIT means to Celery: cancel what runs and leave its messages to others.
    os.kill(os.getpid(), signal.SIGQUIT)


def _kill_processes(_signal: int, _frame: FrameType | None) -> None:
    """End what Celery waits for without a limit.

    At times a process and its parent wait for each other, for half a minute: the one for its last
    outcome to be read, the other for its end. A kill at any point harms no order.
    """
    for child in billiard.active_children():
        if child.pid is not None:
            os.kill(child.pid, signal.SIGKILL)


@worker_process_init.connect
def _build_settler(**_: Any) -> None:
    """Make the clients after the fork and before the first task."""
    settler()
    tracing.start(settings, "worker")
    if settings.metrics_port:
        from shared import metrics_export

        metrics_export.start()
    _spare_what_lives()


@worker_process_shutdown.connect
def _keep_last_counts(**_: Any) -> None:
    if settings.metrics_port:
        from shared import metrics_export

        metrics_export.stop()


@cache
def settler() -> Settler:
    """This process' settler (clients must not be shared across a fork)."""
    client = table_client(_CONNECTIONS, DYNAMODB_READ_SECONDS_WORKER)
    cache = cache_client(settings, _CONNECTIONS)
    return Settler(
        Gateway(client, settings.table_name),
        StatusCache(cache, settings.cache_seconds, channel_of(settings.table_name)),
        Turns(cache, settings.table_name),
        settings.rules,
        settings.attempts_max,
        clock=lambda: datetime.now(UTC),
        tells=settings.is_auditing,
    )


@cache
def queue() -> TaskQueue:
    """This process' way back to the queue."""
    return TaskQueue(publisher_app(settings, connections=1), broker_client(settings, connections=1))


@app.task(name=SETTLE_TASK, ignore_result=True, bind=True)
def settle(task: Any, names: Sequence[str], *, suspect: bool = False) -> None:
    """Settle the orders that a message names.

    Raises:
        StoreUnavailable: the store failed for too long; the sweeper sends the orders again.
    """
    # Whatever is logged meanwhile says of which message it is, and of which requests.
    origins = read_origins(task.request)
    with (
        bound_contextvars(message=task.request.id, requests=origins),
        tracing.span("settle", headers=_headers(task), kind="CONSUMER", orders=len(names)),
    ):
        _settle(names, suspect=suspect, origins=origins)


def _headers(task: Any) -> dict[str, str]:
    """The headers of the message that say of which trace it is."""
    return {"traceparent": str(task.request.get("traceparent") or "")}


def _settle(names: Sequence[str], *, suspect: bool, origins: Sequence[str]) -> None:
    outcome = "failed"
    try:
        left = settler().settle(map(read_ref, names), suspect=suspect)
        outcome = "returned" if left else "settled"
    finally:
        metrics.MESSAGES.add(outcome)
    if not left:
        return
    try:
        queue().publish(left, datetime.now(UTC), origins=origins)
    except QueueUnavailable as error:
        metrics.LEFT_TO_SWEEPER.add(n=len(left))
        log.warning("left_to_sweeper", orders=len(left), error=str(error))
