"""Celery's consumer, with fewer and larger sendings of the events that Flower shows.

Celery sends them as often as its loop turns: at a steady hundred orders a second that is one
publication for each event, a third of the worker's main process and most of Flower's work. Here
they wait for a moment and share one. Nothing but what Flower shows, and when, rests on them.
"""

import time
from typing import Any, Final

from celery.worker.consumer import Consumer

EVENTS_EVERY_SECONDS: Final = 0.25
"""How long an event may wait for others (Celery sends at once what comes to 24 of them)."""


class EventBatchingConsumer(Consumer):
    """Sends events a few times a second."""

    hub: Any
    event_dispatcher: Any
    _flush_events: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Make a consumer as Celery does."""
        super().__init__(*args, **kwargs)
        self._flush_at = 0.0

    def on_send_event_buffered(self) -> None:  # type: ignore[override]
        """Have the events sent soon, if that is not under way."""
        now = time.monotonic()
        if self.hub is None or now < self._flush_at:
            return
        # By its time, not by a mark: a lost connection cancels the call and none would follow.
        self._flush_at = now + EVENTS_EVERY_SECONDS
        self.hub.call_later(EVENTS_EVERY_SECONDS, self._flush_events)

    def shutdown(self) -> None:
        """End, and say before what happened last."""
        self._flush_events()
        super().shutdown()
