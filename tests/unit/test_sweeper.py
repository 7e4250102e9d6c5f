import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import pytest
import structlog

from shared import metrics
from shared.domain.order import Order
from shared.ids import OrderIds, OrderRef
from shared.metrics import Key
from shared.order_store import commits, reads
from shared.order_store.errors import StoreUnavailable
from shared.order_store.gateway import Gateway
from shared.task_queue import MESSAGE_ORDERS_MAX, QueueUnavailable, TaskQueue
from tests.unit.factories import (
    NOON,
    accept,
    make_account,
    make_order,
    make_settlement,
    moto_client,
    new_table,
    open_account,
    ref,
    seconds,
    stored_account,
)
from worker import sweeper as sweeper_module
from worker.sweeper import Sweeper, run

RECOVER_AFTER = seconds(10)


@dataclass(frozen=True)
class Message:
    refs: list[OrderRef]
    is_suspect: bool


class FakeQueue(TaskQueue):
    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.waiting_since: datetime | None = None
        self.takes: int | None = None

    def publish(
        self,
        refs: Sequence[OrderRef],
        now: datetime,
        *,
        suspect: bool = False,
        origins: Sequence[str] = (),
    ) -> None:
        del now, origins
        if self.takes is not None and len(self.messages) >= self.takes:
            raise QueueUnavailable("the broker is away")
        self.messages.append(Message(list(refs), suspect))

    def oldest_waiting_since(self) -> datetime | None:
        return self.waiting_since

    def depth(self) -> int:
        return len(self.messages)

    def take(self) -> list[Message]:
        """The messages published since the last time."""
        taken, self.messages = self.messages, []
        return taken


class World:
    """A store with orders, a queue and a clock."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.queue = FakeQueue()
        self.now = NOON
        self._ids = OrderIds()
        self._accounts: set[int] = set()

    def sweeper(self) -> Sweeper:
        return Sweeper(self.gateway, self.queue, RECOVER_AFTER, clock=lambda: self.now)

    def accept(self, age_seconds: float, account_id: int = 1) -> Order:
        """Record an order that was accepted ``age_seconds`` before noon."""
        if account_id not in self._accounts:
            open_account(self.gateway, make_account(account_id=account_id))
            self._accounts.add(account_id)
        at = NOON - seconds(age_seconds)
        template = make_order(at=at, account_id=account_id)
        fields = {name: getattr(template, name) for name in Order.__slots__}
        order = Order(**fields | {"id": self._ids.next(at)})
        accept(self.gateway, order)
        return order

    def decide(self, order: Order) -> None:
        before = stored_account(self.gateway, order.account_id)
        commits.commit(self.gateway, [make_settlement(before, [order])], token=order.id)

    def forward(self, duration: timedelta) -> None:
        self.now += duration


@pytest.fixture(name="world")
def _world() -> Iterator[World]:
    with moto_client() as client:
        yield World(new_table(client))


def test_nothing_is_sent_when_nothing_is_lost(world: World) -> None:
    assert world.sweeper().sweep() == 0
    assert world.queue.take() == []


def test_orders_that_are_old_enough_are_sent_and_younger_ones_left_alone(world: World) -> None:
    old = world.accept(10.001)
    world.accept(9.999)
    assert world.sweeper().sweep() == 1
    assert world.queue.take() == [Message([ref(old)], is_suspect=False)]


def test_a_decided_order_is_not_sent(world: World) -> None:
    world.decide(world.accept(60))
    assert world.sweeper().sweep() == 0
    assert world.queue.take() == []


def test_orders_younger_than_the_next_message_in_the_queue_still_wait_their_turn(
    world: World,
) -> None:
    lost = world.accept(61)
    world.accept(59)
    world.queue.waiting_since = NOON - seconds(60)
    assert world.sweeper().sweep() == 1
    assert world.queue.take() == [Message([ref(lost)], is_suspect=False)]


def test_a_young_head_of_the_queue_makes_no_order_lost_sooner(world: World) -> None:
    world.accept(5)
    world.queue.waiting_since = NOON
    assert world.sweeper().sweep() == 0


def test_an_order_is_not_sent_again_at_each_sweep(world: World) -> None:
    order = world.accept(20)
    sweeper = world.sweeper()
    assert sweeper.sweep() == 1
    world.queue.take()
    for _ in range(5):
        world.forward(seconds(2))
        assert sweeper.sweep() == 0
    world.forward(seconds(0.001))
    assert sweeper.sweep() == 1
    assert world.queue.take() == [Message([ref(order)], is_suspect=True)]


def test_an_order_whose_message_still_waits_is_not_sent_again(world: World) -> None:
    world.accept(20)
    sweeper = world.sweeper()
    sweeper.sweep()
    world.queue.waiting_since = world.now
    world.forward(timedelta(hours=1))
    assert sweeper.sweep() == 0


def test_orders_of_many_accounts_share_a_first_message(world: World) -> None:
    orders = [world.accept(20, account_id) for account_id in range(1, 5)]
    assert world.sweeper().sweep() == 4
    (message,) = world.queue.take()
    assert sorted(message.refs) == sorted(map(ref, orders))
    assert not message.is_suspect


def test_an_account_sent_before_in_vain_comes_alone_and_suspect(world: World) -> None:
    first = world.accept(20, account_id=1)
    second = world.accept(20, account_id=2)
    sweeper = world.sweeper()
    sweeper.sweep()
    world.queue.take()
    fresh_of_first = world.accept(5, account_id=1)
    fresh = [world.accept(5, account_id=account_id) for account_id in (3, 4)]
    world.forward(seconds(11))
    assert sweeper.sweep() == 5
    messages = world.queue.take()
    suspects = [message.refs for message in messages if message.is_suspect]
    assert sorted(suspects) == [[ref(first), ref(fresh_of_first)], [ref(second)]]
    (other,) = [message.refs for message in messages if not message.is_suspect]
    assert sorted(other) == sorted(map(ref, fresh))


def test_an_account_s_orders_are_sent_in_the_sequence_of_their_acceptance(world: World) -> None:
    orders = [world.accept(60 - number) for number in range(5)]
    world.sweeper().sweep()
    assert [message.refs for message in world.queue.take()] == [list(map(ref, orders))]


def test_no_message_names_more_orders_than_the_contract_allows(world: World) -> None:
    orders = [world.accept(60) for _ in range(MESSAGE_ORDERS_MAX + 1)]
    assert world.sweeper().sweep() == len(orders)
    messages = world.queue.take()
    assert [len(message.refs) for message in messages] == [MESSAGE_ORDERS_MAX, 1]
    assert [name for message in messages for name in message.refs] == list(map(ref, orders))


def test_two_sweepers_only_repeat_messages(world: World) -> None:
    order = world.accept(20)
    before = reads.load_order(world.gateway, *ref(order))
    sweepers = [world.sweeper(), world.sweeper()]
    assert [sweeper.sweep() for sweeper in sweepers] == [1, 1]
    assert world.queue.take() == [Message([ref(order)], is_suspect=False)] * 2
    assert reads.load_order(world.gateway, *ref(order)) == before
    world.decide(order)
    world.forward(timedelta(minutes=1))
    assert [sweeper.sweep() for sweeper in sweepers] == [0, 0]


def test_what_the_broker_did_not_take_is_sent_at_the_next_sweep_as_if_for_the_first_time(
    world: World,
) -> None:
    orders = [world.accept(60) for _ in range(MESSAGE_ORDERS_MAX + 1)]
    sweeper = world.sweeper()
    world.queue.takes = 1
    with pytest.raises(QueueUnavailable):
        sweeper.sweep()
    assert [len(message.refs) for message in world.queue.take()] == [MESSAGE_ORDERS_MAX]
    world.queue.takes = None
    assert sweeper.sweep() == 1
    assert world.queue.take() == [Message([ref(orders[-1])], is_suspect=False)]


def test_a_sweep_sends_no_more_than_its_bound(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeper_module, "SWEEP_ORDERS_MAX", 3)
    for _ in range(5):
        world.accept(60)
    sweeper = world.sweeper()
    assert [sweeper.sweep(), sweeper.sweep(), sweeper.sweep()] == [3, 2, 0]


def test_what_is_remembered_is_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeper_module, "REMEMBERED_MAX", 2)
    orders = [world.accept(60 - number) for number in range(3)]
    sweeper = world.sweeper()
    assert [sweeper.sweep(), sweeper.sweep()] == [2, 0]
    assert [message.refs for message in world.queue.take()] == [[ref(one) for one in orders[:2]]]
    # What it waits for is never forgotten: it would be sent again, in place of the others.
    world.decide(orders[0])
    assert [sweeper.sweep(), sweeper.sweep()] == [1, 0]
    assert [message.refs for message in world.queue.take()] == [[ref(orders[2])]]


def test_a_failing_sweep_is_followed_by_the_next() -> None:
    stop = threading.Event()
    errors = [StoreUnavailable("away"), QueueUnavailable("away"), None]

    class Scripted(Sweeper):
        def __init__(self) -> None:
            pass

        def sweep(self) -> int:
            error = errors.pop(0)
            if error:
                raise error
            stop.set()
            return 0

    run(Scripted(), 0.001, stop)
    assert errors == []


# How the queue stands


@pytest.fixture(name="_counting")
def _counts() -> Iterator[None]:
    metrics.start_counting()
    yield
    metrics.stop_counting()


def told(world: World) -> tuple[float, float, float]:
    """Messages, age of the oldest and parked orders, as the metrics have them."""
    seen = metrics.snapshot()
    names = ("orders_queue_messages", "orders_oldest_undecided_seconds", "orders_parked")
    messages, oldest, parked = (seen[Key(name, ())] for name in names)
    return messages, oldest, parked


@pytest.mark.usefixtures("_counting")
def test_an_empty_queue_is_told_as_such(world: World) -> None:
    world.sweeper().sweep()

    assert told(world) == (0, 0, 0)


@pytest.mark.usefixtures("_counting")
def test_the_oldest_undecided_order_gives_its_age(world: World) -> None:
    world.accept(age_seconds=300, account_id=2)
    world.accept(age_seconds=90)
    world.accept(age_seconds=30, account_id=3)

    world.sweeper().sweep()

    assert told(world) == (1, 300, 0)
    assert metrics.snapshot()[Key("orders_sent_again_total", ())] == 3


@pytest.mark.usefixtures("_counting")
def test_in_a_backlog_the_message_at_its_head_gives_the_age(world: World) -> None:
    world.queue.waiting_since = NOON - seconds(40)
    world.accept(age_seconds=20)

    world.sweeper().sweep()

    assert told(world) == (0, 40, 0)


def test_how_the_queue_stands_is_logged_once_a_minute(world: World) -> None:
    sweeper = world.sweeper()
    with structlog.testing.capture_logs() as events:
        for _ in range(130):
            sweeper.sweep()
            world.now += seconds(1)

    lines = [event for event in events if event["event"] == "queue"]
    assert len(lines) == 3
    assert {"messages", "oldest_seconds", "parked"} < set(lines[0])


@pytest.mark.usefixtures("_counting")
def test_sweeps_are_counted_by_how_they_ended(world: World) -> None:
    stop = threading.Event()

    class Failing(FakeQueue):
        def oldest_waiting_since(self) -> datetime | None:
            if self.takes == 0:
                stop.set()
            self.takes = 0
            if stop.is_set():
                raise QueueUnavailable("the broker is away")
            return None

    world.queue = Failing()
    run(world.sweeper(), 0.001, stop)

    assert metrics.snapshot()[Key("orders_sweeps_total", ("done",))] == 1
    assert metrics.snapshot()[Key("orders_sweeps_total", ("failed",))] == 1
