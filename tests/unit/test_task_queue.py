import json
import ssl
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, cast

import fakeredis
import pytest
from celery import Celery
from kombu.exceptions import ConnectionLimitExceeded, KombuError, OperationalError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from shared import task_queue
from shared.cooldown import Cooldown
from shared.settings import Settings
from shared.task_queue import (
    ORDERS_QUEUE,
    ORIGINS,
    ORIGINS_BYTES_MAX,
    SETTLE_TASK,
    QueueUnavailable,
    TaskQueue,
    celery_app,
    publisher_app,
    read_origins,
    read_ref,
    worker_app,
    write_ref,
)
from tests.unit.factories import NOON, order_id

REFS = [(1, order_id(1)), (23, order_id(2))]


class StubApp:
    """An application whose broker fails as it is told."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.sent = 0

    def send_task(self, *_: Any, **__: Any) -> None:
        self.sent += 1
        if self.error:
            raise self.error


class BrokenRedis:
    """A broker that answers nothing."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def __getattr__(self, name: str) -> Any:
        raise self._error


def publishing(app: object) -> TaskQueue:
    """A queue that publishes through ``app`` and has nobody to ask."""
    return TaskQueue(cast("Celery", app), BrokenRedis(RedisConnectionError("away")))  # type: ignore[arg-type]


def queue_holding(*messages: dict[str, Any]) -> TaskQueue:
    """A queue in which ``messages`` wait; the first was published first."""
    redis = fakeredis.FakeRedis()
    for message in messages:
        redis.lpush(ORDERS_QUEUE, json.dumps(message))
    return TaskQueue(cast("Celery", StubApp()), redis)


@pytest.fixture(name="app")
def _app() -> Iterator[Celery]:
    app = publisher_app(Settings(), connections=2)
    app.conf.update(broker_url="memory://", broker_transport="memory")
    yield app
    with app.connection_for_write() as connection:
        connection.default_channel.queue_delete(ORDERS_QUEUE)  # type: ignore[attr-defined]
    app.close()


def received(app: Celery) -> list[Any]:
    """Take all messages that wait in the queue."""
    messages = []
    with app.connection_for_read() as connection:
        waiting: Any = connection.SimpleQueue(ORDERS_QUEUE)
        for _ in range(waiting.qsize()):
            message = waiting.get(timeout=1)
            message.ack()
            messages.append(message)
        waiting.close()
    return messages


# Names


@pytest.mark.parametrize("ref", [(1, order_id(1)), (10**17, order_id(2)), (5, "a/b")])
def test_a_name_is_read_as_it_was_written(ref: tuple[int, str]) -> None:
    assert read_ref(write_ref(ref)) == ref


def test_a_name_is_written_in_one_certain_way() -> None:
    assert write_ref((7, "x")) == "7/x"


@pytest.mark.parametrize("text", ["", "7", "x/7", "/7"])
def test_what_is_no_name_is_not_read(text: str) -> None:
    with pytest.raises(ValueError, match=r"unpack|invalid literal"):
        read_ref(text)


# Publishing


def test_orders_are_published_in_one_message_to_the_orders_queue(app: Celery) -> None:
    publishing(app).publish(REFS, NOON)
    (message,) = received(app)
    args, kwargs, _ = message.payload
    assert [read_ref(name) for name in args[0]] == REFS
    assert kwargs == {}
    assert message.headers["task"] == SETTLE_TASK
    assert message.headers["enqueued_at"] == NOON.isoformat()
    assert message.headers["argsrepr"] == " ".join(map(write_ref, REFS))
    assert message.headers["ignore_result"] is True
    assert message.content_type == "application/json"
    # Through an exchange, a flushed Redis would drop it silently.
    assert message.properties["delivery_info"] == {"exchange": "", "routing_key": ORDERS_QUEUE}


def test_suspect_orders_are_marked(app: Celery) -> None:
    publishing(app).publish(REFS, NOON, suspect=True)
    (message,) = received(app)
    assert message.payload[1] == {"suspect": True}
    assert message.headers["kwargsrepr"] == "suspect"


@pytest.mark.parametrize(
    "error",
    [
        OperationalError("down"),
        KombuError("broken"),
        ConnectionLimitExceeded(1),
        RedisConnectionError("away"),
        RedisTimeoutError("slow"),
        ConnectionRefusedError("refused"),
        TimeoutError("slow"),
    ],
)
def test_a_failing_broker_is_unavailable(error: Exception) -> None:
    queue = publishing(StubApp(error))
    with pytest.raises(QueueUnavailable) as raised:
        queue.publish(REFS, NOON)
    assert raised.value.__cause__ is error


def test_an_error_of_our_own_is_not_taken_for_the_broker_s() -> None:
    with pytest.raises(TypeError):
        publishing(StubApp(TypeError("a bug"))).publish(REFS, NOON)


def test_a_failing_broker_is_left_alone_until_the_pause_is_over() -> None:
    app = StubApp(OperationalError("down"))
    queue = publishing(app)
    now = 100.0
    queue._cooldown = Cooldown(task_queue._COOLDOWN_SECONDS, lambda: now)
    with pytest.raises(QueueUnavailable):
        queue.publish(REFS, NOON)
    app.error = None
    now += task_queue._COOLDOWN_SECONDS - 0.01
    with pytest.raises(QueueUnavailable):
        queue.publish(REFS, NOON)
    assert app.sent == 1
    now += 0.01
    queue.publish(REFS, NOON)
    assert app.sent == 2


def test_a_broker_that_is_not_there_is_unavailable_soon() -> None:
    app = publisher_app(Settings(redis_url="redis://127.0.0.1:1/0"), connections=1)
    with pytest.raises(QueueUnavailable):
        publishing(app).publish(REFS, NOON)
    app.close()


# How the queue stands


def enqueued(at: str | None) -> dict[str, Any]:
    return {"headers": {"enqueued_at": at} if at else {}}


def test_the_oldest_message_is_the_next_in_the_queue() -> None:
    newer = enqueued((NOON + timedelta(seconds=1)).isoformat())
    queue = queue_holding(enqueued(NOON.isoformat()), newer)
    assert queue.oldest_waiting_since() == NOON
    assert queue.depth() == 2


def test_nothing_waits_in_an_empty_queue() -> None:
    queue = queue_holding()
    assert queue.oldest_waiting_since() is None
    assert queue.depth() == 0


@pytest.mark.parametrize("message", [enqueued(None), {}])
def test_a_message_that_is_not_ours_tells_no_time(message: dict[str, Any]) -> None:
    with pytest.raises(QueueUnavailable, match="none of ours"):
        queue_holding(message).oldest_waiting_since()


@pytest.mark.parametrize("error", [RedisConnectionError("refused"), RedisTimeoutError("slow")])
def test_a_broker_that_cannot_be_asked_is_unavailable(error: Exception) -> None:
    queue = TaskQueue(cast("Celery", StubApp()), BrokenRedis(error))  # type: ignore[arg-type]
    with pytest.raises(QueueUnavailable):
        queue.depth()
    with pytest.raises(QueueUnavailable):
        queue.oldest_waiting_since()


# Settings


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("task_acks_late", True),
        ("task_reject_on_worker_lost", False),
        ("task_ignore_result", True),
        ("worker_prefetch_multiplier", 1),
        ("task_default_queue", ORDERS_QUEUE),
        ("task_serializer", "json"),
        ("accept_content", ["json"]),
        ("worker_hijack_root_logger", False),
        ("broker_connection_retry_on_startup", True),
        ("broker_connection_max_retries", None),
        ("enable_utc", True),
    ],
)
def test_celery_is_set_up_so_that_no_message_is_lost_or_hoarded(name: str, value: Any) -> None:
    app = celery_app(Settings(), connections=3, socket_seconds=0.5)
    assert getattr(app.conf, name) == value


def test_every_wait_on_the_broker_is_bounded() -> None:
    app = celery_app(Settings(), connections=3, socket_seconds=0.5)
    assert app.conf.broker_pool_limit == 3
    assert app.conf.broker_pool_acquire_timeout == 0.5
    options = app.conf.broker_transport_options
    assert options["socket_timeout"] == 0.5
    assert options["socket_connect_timeout"] == 0.5
    slow = celery_app(Settings(), connections=3, socket_seconds=5).conf.broker_transport_options
    assert slow["socket_timeout"] == 5
    assert slow["socket_connect_timeout"] == 1


def test_a_lost_worker_s_message_comes_back() -> None:
    options = worker_app(Settings()).conf.broker_transport_options
    assert 0 < options["visibility_timeout"] <= 600


def test_the_broker_is_where_the_settings_say() -> None:
    url = "redis://127.0.0.1:7777/3"
    assert worker_app(Settings(redis_url=url)).conf.broker_url == url


def test_a_publisher_gives_up_earlier_than_a_worker() -> None:
    publisher, worker = publisher_app(Settings(), 1), worker_app(Settings())
    assert (
        publisher.conf.broker_transport_options["socket_timeout"]
        < worker.conf.broker_transport_options["socket_timeout"]
    )


def test_the_worker_listens_to_the_queue_that_is_published_to(app: Celery) -> None:
    publishing(app).publish(REFS, NOON)
    (message,) = received(app)
    listens = worker_app(Settings()).amqp.queues
    assert message.delivery_info["routing_key"] in listens
    assert list(listens) == [ORDERS_QUEUE]


def test_the_worker_knows_the_task_that_is_published(app: Celery) -> None:
    from worker import app as worker

    publishing(app).publish(REFS, NOON)
    (message,) = received(app)
    task = worker.app.tasks[message.headers["task"]]
    assert task.acks_late is True
    assert task.ignore_result is True
    assert list(worker.app.amqp.queues) == [ORDERS_QUEUE]


@pytest.mark.parametrize(
    ("url", "expected"),
    [("rediss://broker:6379/0", ssl.CERT_REQUIRED), ("redis://broker:6379/0", None)],
)
def test_a_url_with_tls_is_never_spoken_to_in_plain_text(url: str, expected: object) -> None:
    with publisher_app(Settings(redis_url=url), connections=1).connection_for_write() as connection:
        options: Any = cast("Any", connection.transport).client.ssl
    assert (options["ssl_cert_reqs"] if options else None) == expected


# Which requests a message is of


def origins_sent(app: Celery, origins: list[str]) -> Any:
    publishing(app).publish(REFS, NOON, origins=origins)
    (message,) = received(app)
    return message.headers


def test_a_message_names_its_requests_once_each(app: Celery) -> None:
    headers = origins_sent(app, ["a key1", "b", "a key1", ""])

    assert read_origins(headers) == ["a key1", "b"]


def test_a_message_names_its_requests_as_far_as_there_is_room(app: Celery) -> None:
    origins = [f"{number:03}" + "x" * 125 for number in range(100)]

    carried = read_origins(origins_sent(app, origins))

    assert carried == origins[: ORIGINS_BYTES_MAX // 128]


def test_without_requests_there_is_no_header(app: Celery) -> None:
    headers = origins_sent(app, [])

    assert ORIGINS not in headers
    assert read_origins(headers) == []


@pytest.mark.parametrize("headers", [None, {}, {ORIGINS: "a"}, {ORIGINS: {"a": 1}}, [ORIGINS]])
def test_what_is_no_list_of_requests_is_none(headers: Any) -> None:
    assert read_origins(headers) == []
    assert read_origins({ORIGINS: [1, "a", None]}) == ["a"]
