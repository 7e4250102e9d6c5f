"""The sweeper: sends accepted orders again whose message was lost.

Start it with ``python -m worker.sweeper``. Any number may run: it only publishes, and a message
that repeats another is harmless. An order is taken for lost when it is older than
``RECOVER_AFTER`` and also older than the message that is next in the queue: whatever was
enqueued after that one still waits its turn, however long the backlog is.
"""

import signal
import threading
from collections import OrderedDict
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from types import FrameType
from typing import Final

from shared import metrics, metrics_folder, tracing
from shared.clients import DYNAMODB_READ_SECONDS_WORKER, broker_client, table_client
from shared.ids import OrderRef, by_account, first_id_at, instant_of
from shared.logs import configure_logs, get_logger
from shared.order_store import reads
from shared.order_store.errors import StoreError
from shared.order_store.gateway import Gateway, chunks
from shared.settings import Settings
from shared.task_queue import MESSAGE_ORDERS_MAX, QueueUnavailable, TaskQueue, publisher_app

REMEMBERED_MAX: Final = 200_000
"""Orders whose last sending is remembered, so that one is not sent again at every sweep."""

TELL_EVERY: Final = timedelta(seconds=60)
"""Between two lines of the log that tell how the queue stands."""

SWEEP_ORDERS_MAX: Final = 50_000
"""Orders sent again by one sweep."""

log = get_logger(__name__)


class Sweeper:
    """Finds forgotten orders and enqueues them. What it remembers only saves messages."""

    def __init__(
        self,
        gateway: Gateway,
        queue: TaskQueue,
        recover_after: timedelta,
        *,
        clock: Callable[[], datetime],
    ) -> None:
        """Send again what stayed undecided for ``recover_after``."""
        self._gateway = gateway
        self._queue = queue
        self._recover_after = recover_after
        self._clock = clock
        self._sent: OrderedDict[OrderRef, datetime] = OrderedDict()
        self._oldest: datetime | None = None
        self._told_at: datetime | None = None

    def sweep(self) -> int:
        """Send the forgotten orders again; returns how many.

        Raises:
            StoreError: the store could not be read.
            QueueUnavailable: the broker did not answer.
        """
        now = self._clock()
        lost_before = now - self._recover_after
        waiting_since = self._oldest = self._queue.oldest_waiting_since()
        if waiting_since is not None:
            lost_before = min(lost_before, waiting_since)
        lost = self._lost(lost_before)
        for message, is_suspect in _messages(lost, self._sent):
            self._queue.publish(message, now, suspect=is_suspect)
            self._remember(message, now)
        if lost:
            log.info("orders_sent_again", orders=len(lost))
            metrics.SENT_AGAIN.add(n=len(lost))
        self._measure(now)
        return len(lost)

    def _measure(self, now: datetime) -> None:
        """Tell how the queue stands: the metrics at every sweep, the log about once a minute."""
        messages = self._queue.depth()
        oldest_seconds = (now - self._oldest).total_seconds() if self._oldest else 0.0
        metrics.QUEUE_MESSAGES.set(messages)
        metrics.OLDEST_SECONDS.set(oldest_seconds)
        if self._told_at is not None and now - self._told_at < TELL_EVERY:
            return
        self._told_at = now
        parked = reads.count_parked(self._gateway)
        metrics.PARKED.set(parked)
        log.info("queue", messages=messages, oldest_seconds=round(oldest_seconds, 1), parked=parked)

    def _lost(self, lost_before: datetime) -> list[OrderRef]:
        lost: list[OrderRef] = []
        awaited = 0
        oldest = newest = first_id_at(lost_before)
        for ref in reads.undecided_before(self._gateway, lost_before):
            oldest = min(oldest, ref[1])
            sent_at = self._sent.get(ref)
            if sent_at is None or sent_at < lost_before:
                lost.append(ref)
            else:
                # What is decided meanwhile is forgotten before what is still waited for.
                self._sent.move_to_end(ref)
                awaited += 1
            if len(lost) >= SWEEP_ORDERS_MAX or len(lost) + awaited >= REMEMBERED_MAX:
                break
        if oldest < newest:
            self._oldest = instant_of(oldest)
        return lost

    def _remember(self, refs: Iterable[OrderRef], now: datetime) -> None:
        for ref in refs:
            self._sent[ref] = now
            self._sent.move_to_end(ref)
        while len(self._sent) > REMEMBERED_MAX:
            self._sent.popitem(last=False)


def _messages(
    lost: Sequence[OrderRef], sent: Container[OrderRef]
) -> Iterable[tuple[Sequence[OrderRef], bool]]:
    """Group orders into messages; an account whose orders were sent before in vain comes alone.

    So an order that kills its worker takes no other account's orders with it twice.
    """
    fresh: list[OrderRef] = []
    for refs in by_account(lost).values():
        if any(ref in sent for ref in refs):
            yield refs[:MESSAGE_ORDERS_MAX], True
        else:
            fresh += refs
    for message in chunks(fresh, MESSAGE_ORDERS_MAX):
        yield message, False


def run(sweeper: Sweeper, every_seconds: float, stop: threading.Event) -> None:
    """Sweep until ``stop`` is set; a failing store or broker is tried again at the next turn."""
    while not stop.wait(every_seconds):
        try:
            sweeper.sweep()
            metrics.SWEEPS.add("done")
        except (StoreError, QueueUnavailable) as error:
            metrics.SWEEPS.add("failed")
            log.warning("sweep_failed", error=str(error))


def main() -> None:
    """Sweep until SIGTERM or SIGINT."""
    settings = Settings()
    configure_logs(settings.log_format)
    tracing.start(settings, "sweeper")
    gateway = Gateway(
        table_client(connections=1, read_seconds=DYNAMODB_READ_SECONDS_WORKER),
        settings.table_name,
    )
    sweeper = Sweeper(
        gateway,
        TaskQueue(publisher_app(settings, connections=1), broker_client(settings, connections=1)),
        timedelta(seconds=settings.recover_after),
        clock=lambda: datetime.now(UTC),
    )
    stop = threading.Event()

    def end(_signal: int, _frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    with _metrics(settings):
        run(sweeper, settings.sweep_every, stop)


@contextmanager
def _metrics(settings: Settings) -> Iterator[None]:
    """Count and show within this block, if that is asked for."""
    if not settings.metrics_port:
        yield
        return
    metrics_folder.make()
    from shared import metrics_export

    metrics_export.start()
    metrics_export.serve(settings.metrics_host, settings.metrics_port)
    try:
        yield
    finally:
        metrics_export.stop()
        metrics_folder.remove()


if __name__ == "__main__":
    main()
