"""The message contract between API, sweeper and worker, and the only settings of Celery.

A message names orders; it says nothing about them. It may be lost, repeated, delayed or overtaken
without harm: the store is the truth and the sweeper sends again what was forgotten.
"""

import json
import ssl
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Final

from celery import Celery
from kombu.exceptions import KombuError
from redis import Redis
from redis.exceptions import RedisError

from shared import metrics, tracing
from shared.cooldown import Cooldown
from shared.ids import OrderRef
from shared.settings import Settings

SETTLE_TASK: Final = "orders.settle"
ORDERS_QUEUE: Final = "orders"
TRANSPORT: Final = "shared.broker:Transport"

MESSAGE_ORDERS_MAX: Final = 100
"""Orders named by one message."""

ORIGINS_BYTES_MAX: Final = 4096
"""Of the names of requests that a message carries, all together."""

ORIGINS: Final = "order_origins"
"""The header that says which requests a message is of, for the logs."""

_ENQUEUED_AT: Final = "enqueued_at"
_COOLDOWN_SECONDS: Final = 1.0
_PUBLISH_ATTEMPTS_AGAIN: Final = 1
_PUBLISH_SOCKET_SECONDS: Final = 0.7
_WORKER_SOCKET_SECONDS: Final = 5.0
_WORKER_CONNECTIONS: Final = 10
_PROBE_KEY: Final = "orders:probe"
_PROBE_MILLISECONDS: Final = 1000


class QueueUnavailable(Exception):
    """The broker did not take the message, as far as is known."""


def celery_app(settings: Settings, *, connections: int, socket_seconds: float) -> Celery:
    """The Celery application on the broker that ``settings`` name.

    Args:
        settings: where the broker is.
        connections: of the publishing pool; threads that may publish at once.
        socket_seconds: limit of every wait on the broker's socket.
    """
    app = Celery("orders", broker=settings.redis_url, set_as_current=False)
    app.conf.update(
        broker_transport=TRANSPORT,
        # The transport is named here, so kombu does not read from the URL that there is TLS.
        broker_use_ssl={"ssl_cert_reqs": ssl.CERT_REQUIRED} if _is_tls(settings) else None,
        task_default_queue=ORDERS_QUEUE,
        task_serializer="json",
        accept_content=["json"],
        enable_utc=True,
        # The store holds the outcome; a result would only be written and never read.
        task_ignore_result=True,
        task_acks_late=True,
        # A task that kills its process would kill the next one too: the sweeper brings the orders
        # back instead, and counts.
        task_reject_on_worker_lost=False,
        worker_prefetch_multiplier=1,
        worker_send_task_events=True,
        task_send_sent_event=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        worker_hijack_root_logger=False,
        broker_pool_limit=connections,
        broker_pool_acquire_timeout=socket_seconds,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_channel_error_retry=True,
        broker_connection_timeout=1.0,
        broker_transport_options={
            "visibility_timeout": 120,
            "unacked_restore_interval": 5,
            "unacked_mutex_expire": 30,
            "socket_timeout": socket_seconds,
            "socket_connect_timeout": min(socket_seconds, 1.0),
            "socket_keepalive": True,
            "health_check_interval": 10,
        },
    )
    return app


def _is_tls(settings: Settings) -> bool:
    return settings.redis_url.startswith("rediss:")


def publisher_app(settings: Settings, connections: int) -> Celery:
    """The application of a process that only publishes: it gives up early."""
    return celery_app(settings, connections=connections, socket_seconds=_PUBLISH_SOCKET_SECONDS)


def worker_app(settings: Settings) -> Celery:
    """The application of a worker."""
    return celery_app(
        settings, connections=_WORKER_CONNECTIONS, socket_seconds=_WORKER_SOCKET_SECONDS
    )


def write_ref(ref: OrderRef) -> str:
    """Write an order's name as messages carry it: ``<account id>/<order id>``."""
    return f"{ref[0]}/{ref[1]}"


def read_ref(text: str) -> OrderRef:
    """Read what ``write_ref`` wrote."""
    account_id, order_id = text.split("/", 1)
    return int(account_id), order_id


def _headers(now: datetime, origins: Sequence[str]) -> dict[str, Any]:
    headers: dict[str, Any] = {_ENQUEUED_AT: now.isoformat(), **tracing.carried()}
    if carried := _within_bounds(origins):
        headers[ORIGINS] = carried
    return headers


def _within_bounds(origins: Sequence[str]) -> list[str]:
    """Each of ``origins`` once, from the first, until there is no more room."""
    carried: list[str] = []
    left = ORIGINS_BYTES_MAX
    for origin in dict.fromkeys(filter(None, origins)):
        left -= len(origin.encode())
        if left < 0:
            break
        carried.append(origin)
    return carried


def read_origins(headers: Any) -> list[str]:
    """The names of requests in a message's headers; whatever else stands there is none."""
    found = headers.get(ORIGINS) if hasattr(headers, "get") else None
    return [one for one in found if isinstance(one, str)] if isinstance(found, list) else []


class TaskQueue:
    """Publishes settle messages and tells how the queue stands. Safe to share between threads."""

    def __init__(self, app: Celery, redis: "Redis") -> None:
        """Publish through ``app``; ask ``redis``, the same broker, how the queue stands."""
        self._app = app
        self._redis = redis
        self._cooldown = Cooldown(_COOLDOWN_SECONDS)

    def publish(
        self,
        refs: Sequence[OrderRef],
        now: datetime,
        *,
        suspect: bool = False,
        origins: Sequence[str] = (),
    ) -> None:
        """Ask the workers to settle ``refs``, in one message.

        ``suspect`` marks orders that were sent before without being decided: each such try counts.
        ``origins`` name the requests that they are of, as far as there is room for them.

        Raises:
            QueueUnavailable: not published, or the answer was lost (then it may be there).
        """
        if self._cooldown.is_active:
            raise QueueUnavailable("the broker failed a moment ago")
        names = [write_ref(ref) for ref in refs]
        try:
            with tracing.span("publish", kind="PRODUCER", orders=len(names)):
                self._send(names, _headers(now, origins), suspect=suspect)
        except (KombuError, RedisError, OSError) as error:
            self._cooldown.start()
            metrics.DEPENDENCY_ERRORS.add("broker", "publish")
            raise QueueUnavailable(str(error)) from error

    def _send(self, names: Sequence[str], headers: dict[str, Any], *, suspect: bool) -> None:
        self._app.send_task(
            SETTLE_TASK,
            args=(names,),
            kwargs={"suspect": True} if suspect else {},
            # By its plain name: through an exchange, a flushed Redis would drop it silently.
            queue=ORDERS_QUEUE,
            headers=headers,
            ignore_result=True,
            # What Flower shows and searches; Celery's own would be made for each message.
            argsrepr=" ".join(names),
            kwargsrepr="suspect" if suspect else "",
            retry=True,
            retry_policy={"max_retries": _PUBLISH_ATTEMPTS_AGAIN, "interval_start": 0},
        )

    def oldest_waiting_since(self) -> datetime | None:
        """When the message that is next in the queue was enqueued, or None if the queue is empty.

        Raises:
            QueueUnavailable: the broker did not answer, or with a message that is not ours.
        """
        raw = self._ask(lambda redis: redis.lindex(ORDERS_QUEUE, -1))
        if raw is None:
            return None
        try:
            return datetime.fromisoformat(json.loads(raw)["headers"][_ENQUEUED_AT])
        except (ValueError, KeyError, TypeError) as error:
            raise QueueUnavailable(f"the next message is none of ours: {error!r}") from error

    def check(self) -> None:
        """See that the broker takes writes: a full or a read-only one still answers reads.

        Raises:
            QueueUnavailable: it does not answer, or takes no messages.
        """
        self._ask(lambda redis: redis.set(_PROBE_KEY, "", px=_PROBE_MILLISECONDS))

    def depth(self) -> int:
        """Messages that wait (raises ``QueueUnavailable``)."""
        return int(self._ask(lambda redis: redis.llen(ORDERS_QUEUE)))

    def _ask(self, question: Callable[["Redis"], Any]) -> Any:
        try:
            return question(self._redis)
        except RedisError as error:
            metrics.DEPENDENCY_ERRORS.add("broker", "look")
            raise QueueUnavailable(str(error)) from error
