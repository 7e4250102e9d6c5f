"""How often a worker sends the events that Flower shows."""

from typing import Any

import pytest

from worker.consumer import EVENTS_EVERY_SECONDS, EventBatchingConsumer


class LaterHub:
    """A hub that keeps what it was to call later."""

    def __init__(self) -> None:
        self.later: list[tuple[float, Any]] = []

    def call_later(self, seconds: float, call: Any) -> None:
        self.later.append((seconds, call))


class Dispatcher:
    def __init__(self) -> None:
        self.sent = 0

    def flush(self) -> None:
        self.sent += 1


@pytest.fixture(name="now")
def _now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Monotonic time, in a list of one that tests change."""
    now = [100.0]
    monkeypatch.setattr("worker.consumer.time.monotonic", lambda: now[0])
    return now


@pytest.fixture(name="consumer")
def _consumer(now: list[float]) -> EventBatchingConsumer:
    """A consumer that has started nothing."""
    consumer = EventBatchingConsumer.__new__(EventBatchingConsumer)
    consumer._flush_at = 0.0
    consumer.hub = LaterHub()
    consumer.event_dispatcher = Dispatcher()
    return consumer


def test_events_that_come_together_are_sent_together(consumer: EventBatchingConsumer) -> None:
    for _ in range(10):
        consumer.on_send_event_buffered()
    ((seconds, send),) = consumer.hub.later
    assert seconds == EVENTS_EVERY_SECONDS
    send()
    assert consumer.event_dispatcher.sent == 1


def test_later_events_are_sent_later(consumer: EventBatchingConsumer, now: list[float]) -> None:
    consumer.on_send_event_buffered()
    now[0] += EVENTS_EVERY_SECONDS
    consumer.on_send_event_buffered()
    assert len(consumer.hub.later) == 2


def test_events_are_sent_though_a_lost_connection_cancelled_the_call(
    consumer: EventBatchingConsumer, now: list[float]
) -> None:
    consumer.on_send_event_buffered()
    consumer.hub.later.clear()
    now[0] += EVENTS_EVERY_SECONDS + 0.001
    consumer.on_send_event_buffered()
    assert len(consumer.hub.later) == 1


def test_without_an_event_loop_nothing_is_put_off(consumer: EventBatchingConsumer) -> None:
    consumer.hub = None
    consumer.on_send_event_buffered()
    assert consumer.event_dispatcher.sent == 0


def test_the_worker_is_set_up_with_it() -> None:
    from worker import app as worker

    assert worker.app.conf.worker_consumer == "worker.consumer:EventBatchingConsumer"
