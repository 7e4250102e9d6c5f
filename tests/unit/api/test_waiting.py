"""Who waits is woken by what concerns it alone, once, and in any case at the end."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from queue import Empty, Queue
from random import Random
from typing import Any

import pytest

from api import waiting as waiting_module
from api.waiting import BACKOFF_SECONDS_MAX, Ticket, TooManyStreams, Waiting
from shared.notices import Notice, NoticesLost

SECONDS = 5.0
ORDER = "019cafe0-0000-7000-8000-000000000000"
OTHER = "019cafe0-0000-7000-8000-000000000001"


class FakeFeed:
    """A channel that tests speak on, cut and mend."""

    def __init__(self) -> None:
        self.said: Queue[Sequence[Notice] | None] = Queue()
        self.is_away = False
        self.attempts = 0

    def listen(self) -> Iterator[Sequence[Notice] | None]:
        self.attempts += 1
        if self.is_away:
            raise NoticesLost("away")
        yield None
        while True:
            try:
                yield self.said.get(timeout=0.01)
            except Empty:
                yield ()
            if self.is_away:
                raise NoticesLost("cut")

    def say(self, account_id: int, decided: int, *order_ids: str) -> None:
        self.said.put([Notice(account_id, decided, order_ids)])


@pytest.fixture(name="feed")
def _feed() -> FakeFeed:
    return FakeFeed()


@pytest.fixture(name="make")
def _make(feed: FakeFeed) -> Iterator[Callable[..., Waiting]]:
    made: list[Waiting] = []

    def make(**changes: Any) -> Waiting:
        limits = {"waits_max": 10, "streams_max": 10, "streams_per_account_max": 10, **changes}
        made.append(Waiting(feed, random=Random(1), **limits))
        return made[-1]

    yield make
    for one in made:
        one.end()


@pytest.fixture(name="waiting")
def _waiting(make: Callable[..., Waiting]) -> Waiting:
    return make()


def soon() -> float:
    return time.monotonic() + SECONDS


def is_quiet(waiting: Waiting, ticket: Ticket) -> bool:
    """Nothing wakes the ticket for a moment."""
    return not waiting.wait(ticket, time.monotonic() + 0.1)


def entered(waiting: Waiting, account_id: int) -> Ticket:
    """A stream's ticket that has nothing to hear of what was before."""
    ticket = waiting.enter_stream(account_id)
    ticket.take_news()
    return ticket


def until(condition: Callable[[], bool]) -> None:
    deadline = soon()
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_an_orders_notice_wakes_those_who_wait_for_it(feed: FakeFeed, waiting: Waiting) -> None:
    with waiting.for_order((1, ORDER)) as first, waiting.for_order((1, ORDER)) as second:
        assert first is not None
        assert second is not None
        feed.say(1, 1, OTHER, ORDER)
        assert waiting.wait(first, soon())
        assert waiting.wait(second, soon())
        assert is_quiet(waiting, first)


def test_what_concerns_others_wakes_nobody(feed: FakeFeed, waiting: Waiting) -> None:
    with waiting.for_order((1, ORDER)) as ticket:
        assert ticket is not None
        feed.say(1, 1, OTHER)
        feed.say(2, 1, ORDER)
        assert is_quiet(waiting, ticket)


def test_a_notice_before_the_look_is_not_forgotten(feed: FakeFeed, waiting: Waiting) -> None:
    with waiting.for_order((1, ORDER)) as ticket:
        assert ticket is not None
        feed.say(1, 1, ORDER)
        until(feed.said.empty)
        time.sleep(0.05)
        assert waiting.wait(ticket, soon())


def test_whoever_enters_hears_everything_from_then_on(feed: FakeFeed, waiting: Waiting) -> None:
    with waiting.for_order((1, ORDER)):
        assert feed.attempts == 1
        assert waiting._hears.is_set()


def test_a_streams_ticket_tells_how_far_the_account_is(feed: FakeFeed, waiting: Waiting) -> None:
    ticket = entered(waiting, 1)
    feed.say(1, 5, ORDER)
    feed.say(1, 4, OTHER)
    feed.say(2, 9, OTHER)
    assert waiting.wait(ticket, soon())
    until(feed.said.empty)
    assert ticket.decided == 5
    assert not ticket.take_gaps()


def test_time_is_over_at_the_deadline(waiting: Waiting) -> None:
    with waiting.for_order((1, ORDER)) as ticket:
        assert ticket is not None
        began = time.monotonic()
        assert not waiting.wait(ticket, began + 0.2)
        assert 0.19 < time.monotonic() - began < SECONDS


def test_nobody_looks_while_notices_are_heard(
    waiting: Waiting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting_module, "LOOK_AGAIN_SECONDS", 0.01)
    with waiting.for_order((1, ORDER)) as ticket:
        assert ticket is not None
        assert is_quiet(waiting, ticket)


def test_without_notices_everybody_looks_again_after_a_while(
    feed: FakeFeed, waiting: Waiting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting_module, "LOOK_AGAIN_SECONDS", 0.2)
    feed.is_away = True
    with waiting.for_order((1, ORDER)) as ticket:
        assert ticket is not None
        for _ in range(3):
            began = time.monotonic()
            assert waiting.wait(ticket, soon())
            # Not at once, and not all at the same time.
            assert 0.15 < time.monotonic() - began < SECONDS


def test_losing_the_channel_makes_nobody_look_at_once(
    feed: FakeFeed, waiting: Waiting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting_module, "LOOK_AGAIN_SECONDS", 0.5)
    with waiting.for_order((1, ORDER)) as ticket:
        assert ticket is not None
        timer = threading.Timer(0.1, setattr, (feed, "is_away", True))
        timer.start()
        began = time.monotonic()
        assert waiting.wait(ticket, soon())
        assert 0.4 < time.monotonic() - began < SECONDS


def test_whoever_waits_looks_when_the_channel_is_back(
    feed: FakeFeed, waiting: Waiting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting_module, "LOOK_AGAIN_SECONDS", 60.0)
    ticket = entered(waiting, 1)
    with waiting.for_order((1, ORDER)) as other:
        assert other is not None
        feed.is_away = True
        until(lambda: not waiting._hears.is_set())
        feed.is_away = False
        assert waiting.wait(other, soon())
        assert waiting.wait(ticket, soon())
        assert ticket.take_gaps()


def test_a_redis_that_is_away_is_tried_with_growing_pauses(
    feed: FakeFeed, make: Callable[..., Waiting]
) -> None:
    feed.is_away = True
    pauses: list[float] = []

    def sleep(pause_seconds: float) -> None:
        pauses.append(pause_seconds)
        if len(pauses) == 40:
            waiting.end()

    waiting = make(sleep=sleep)
    waiting.enter_stream(1)
    until(lambda: len(pauses) == 40)

    assert max(pauses) <= BACKOFF_SECONDS_MAX
    assert sum(pauses[:3]) < 2
    assert sum(pauses[20:]) > 20


def test_an_error_of_our_own_does_not_end_the_hearing(
    feed: FakeFeed, waiting: Waiting, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_notices: object) -> None:
        monkeypatch.undo()
        raise RuntimeError("a bug")

    monkeypatch.setattr(waiting, "_pass_on", fail)
    with waiting.for_order((1, ORDER)) as ticket:
        assert ticket is not None
        until(lambda: feed.attempts == 2)
        feed.say(1, 1, ORDER)
        assert waiting.wait(ticket, soon())


def test_a_process_in_which_nobody_waits_hears_nothing(
    feed: FakeFeed, waiting: Waiting, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert feed.attempts == 0
    monkeypatch.setattr(waiting_module, "IDLE_SECONDS", 0.05)
    with waiting.for_order((1, ORDER)):
        time.sleep(0.2)
        assert waiting._listener is not None
    until(lambda: waiting._listener is None)

    with waiting.for_order((1, ORDER)) as ticket:
        assert ticket is not None
        assert feed.attempts == 2
        feed.say(1, 1, ORDER)
        assert waiting.wait(ticket, soon())


def test_no_more_wait_than_there_is_room_for(make: Callable[..., Waiting]) -> None:
    waiting = make(waits_max=2)
    with waiting.for_order((1, ORDER)), waiting.for_order((1, ORDER)) as second:
        assert second is not None
        with waiting.for_order((2, ORDER)) as third:
            assert third is None
    with waiting.for_order((2, ORDER)) as again:
        assert again is not None
    assert waiting._orders == {}


def test_no_more_streams_than_there_is_room_for(make: Callable[..., Waiting]) -> None:
    waiting = make(streams_max=3, streams_per_account_max=2)
    first, _ = waiting.enter_stream(1), waiting.enter_stream(1)
    with pytest.raises(TooManyStreams) as refused:
        waiting.enter_stream(1)
    assert refused.value.is_accounts_own
    waiting.enter_stream(2)
    with pytest.raises(TooManyStreams) as refused:
        waiting.enter_stream(3)
    assert not refused.value.is_accounts_own

    waiting.leave_stream(1, first)
    waiting.leave_stream(1, first)

    waiting.enter_stream(3)
    with pytest.raises(TooManyStreams):
        waiting.enter_stream(4)


def test_the_end_is_the_end_of_every_wait(waiting: Waiting) -> None:
    stream = entered(waiting, 1)
    with waiting.for_order((1, ORDER)) as ticket:
        assert ticket is not None
        began = time.monotonic()
        waiting.end_after(0.1)
        assert not waiting.wait(ticket, soon())
        assert not waiting.wait(stream, soon())
        assert 0.09 < time.monotonic() - began < SECONDS
    assert waiting.is_over
    with waiting.for_order((1, ORDER)) as late:
        assert late is None
