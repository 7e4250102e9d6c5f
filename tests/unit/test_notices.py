"""Notices are written, passed on and heard; what they are worth is said when they are lost."""

import threading
from collections.abc import Iterator, Sequence
from typing import Any

import fakeredis
import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from shared import notices
from shared.notices import (
    BEAT_SECONDS,
    Notice,
    NoticeFeed,
    NoticesLost,
    channel_of,
    read_notices,
    write_notices,
)
from shared.status_cache import StatusCache

ONE = Notice(7, 12, ("019cafe0-0000-7000-8000-000000000000",))
TWO = Notice(8, 3, ("019cafe0-0000-7000-8000-000000000001", "019cafe0-0000-7000-8000-000000000002"))


def test_what_was_written_is_read() -> None:
    assert read_notices(write_notices([ONE, TWO]).encode()) == [ONE, TWO]


@pytest.mark.parametrize("line", [b"", b"x", b"7 x id", b"\xff 1 id", b"7"])
def test_a_line_that_is_no_notice_spoils_no_other(line: bytes) -> None:
    message = write_notices([ONE]).encode() + b"\n" + line
    assert read_notices(message) == [ONE]


def test_tables_have_channels_of_their_own() -> None:
    assert channel_of("orders") != channel_of("orders-2")


def test_the_answers_are_there_before_the_notice_is_heard() -> None:
    redis = fakeredis.FakeRedis()
    cache = StatusCache(redis, 60, "channel")
    heard = NoticeFeed(redis, "channel").listen()
    assert next(heard) is None

    cache.put([(7, ONE.order_ids[0], b"body")], [ONE, TWO])

    assert next(heard) == [ONE, TWO]
    assert cache.get(7, ONE.order_ids[0]) == b"body"


def test_a_cache_without_a_channel_gives_no_notice() -> None:
    redis = fakeredis.FakeRedis()
    heard = NoticeFeed(redis, "channel").listen()
    assert next(heard) is None
    StatusCache(redis, 60).put([], [ONE])
    StatusCache(redis, 60, "channel").put([], [TWO])
    assert next(heard) == [TWO]


class FakePubSub:
    """A subscription on which things happen one after the other."""

    def __init__(self, happens: list[Any]) -> None:
        self.happens = happens
        self.pings = 0
        self.is_closed = False
        self.now = 0.0

    def subscribe(self, channel: str) -> None:
        assert channel == "channel"

    def get_message(self, timeout: float) -> Any:
        happened = self.happens.pop(0)
        if isinstance(happened, Exception):
            raise happened
        if happened is None:
            self.now += timeout
        return happened

    def ping(self) -> None:
        self.pings += 1

    def close(self) -> None:
        self.is_closed = True


class FakeRedis:
    def __init__(self, pubsub: FakePubSub) -> None:
        self._pubsub = pubsub

    def pubsub(self) -> FakePubSub:
        return self._pubsub


def feed(pubsub: FakePubSub) -> Iterator[Sequence[Notice] | None]:
    redis: Any = FakeRedis(pubsub)
    return NoticeFeed(redis, "channel").listen()


SUBSCRIBED = {"type": "subscribe", "data": 1}
PONG = {"type": "pong", "data": b""}
SAID = {"type": "message", "data": write_notices([ONE]).encode()}


def test_a_connection_that_came_about_anew_is_told_of() -> None:
    heard = feed(FakePubSub([SUBSCRIBED, SAID, SUBSCRIBED, SAID]))
    assert [next(heard) for _ in range(4)] == [None, [ONE], None, [ONE]]


def test_a_redis_that_fails_is_told_of_and_the_connection_is_given_up() -> None:
    pubsub = FakePubSub([SUBSCRIBED, RedisConnectionError("away")])
    heard = feed(pubsub)
    assert next(heard) is None
    with pytest.raises(NoticesLost):
        next(heard)
    assert pubsub.is_closed


def test_a_silent_channel_is_asked_whether_it_lives() -> None:
    pubsub = FakePubSub([SUBSCRIBED, None, PONG, None, PONG, None, PONG])
    heard = feed(pubsub)
    assert [next(heard) for _ in range(4)] == [None, (), (), ()]
    assert pubsub.pings == 3


def test_a_channel_that_does_not_say_that_it_lives_is_lost() -> None:
    pubsub = FakePubSub([SUBSCRIBED, None, None, None])
    heard = feed(pubsub)
    assert next(heard) is None
    with pytest.raises(NoticesLost):
        list(heard)
    assert pubsub.now == 2 * BEAT_SECONDS
    assert pubsub.is_closed


def test_a_real_subscription_lives_through_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notices, "BEAT_SECONDS", 0.05)
    redis = fakeredis.FakeRedis()
    heard = NoticeFeed(redis, "channel").listen()
    assert [next(heard) for _ in range(6)] == [None, (), (), (), (), ()]
    said = threading.Timer(0.02, redis.publish, ("channel", write_notices([ONE])))
    said.start()
    found = next(heard)
    while found == ():
        found = next(heard)
    assert found == [ONE]
