"""Turns: who takes one, how long it is in the way, and what there is without Redis."""

from typing import Any

import fakeredis
import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from tests.unit.factories import FakeTime, turns_in
from worker.turns import TURN_SECONDS_MAX, TURN_WAIT_SECONDS_MAX


@pytest.fixture
def redis() -> fakeredis.FakeRedis:
    return fakeredis.FakeRedis()


def test_a_turn_is_taken_by_one(redis: fakeredis.FakeRedis) -> None:
    first, second = turns_in(redis), turns_in(redis)
    assert first.take([1, 2]) == {1, 2}
    assert second.take([2, 3]) == {3}
    first.give_back([1, 2])
    assert second.take([1, 2]) == {1, 2}


def test_a_turn_that_was_left_behind_ends_by_itself(redis: fakeredis.FakeRedis) -> None:
    turns_in(redis).take([1])
    life = redis.pttl("turn:1:orders:1")
    assert 0.9 * TURN_SECONDS_MAX * 1000 < life <= TURN_SECONDS_MAX * 1000


def test_who_waits_goes_on_as_soon_as_a_turn_ends(redis: fakeredis.FakeRedis) -> None:
    other = turns_in(redis)
    other.take([1, 2])
    time = FakeTime(then=lambda: other.give_back([2]))
    waited = turns_in(redis, time).wait([1, 2], TURN_WAIT_SECONDS_MAX)
    assert len(time.pauses) == 1
    assert waited == sum(time.pauses)


def test_nobody_waits_for_longer_than_a_bound(redis: fakeredis.FakeRedis) -> None:
    turns_in(redis).take([1])
    time = FakeTime()
    waited = turns_in(redis, time).wait([1], TURN_WAIT_SECONDS_MAX)
    assert TURN_WAIT_SECONDS_MAX <= waited < 1.1 * TURN_WAIT_SECONDS_MAX
    assert sum(time.pauses) == waited


def test_without_redis_everybody_has_every_turn_and_nobody_waits() -> None:
    server = fakeredis.FakeServer()
    server.connected = False
    time = FakeTime()
    alone = turns_in(fakeredis.FakeRedis(server=server), time)
    assert alone.take([1, 2]) == {1, 2}
    alone.give_back([1, 2])
    assert alone.wait([1, 2], TURN_WAIT_SECONDS_MAX) == 0
    assert time.pauses == []


@pytest.mark.parametrize("command", ["take", "give_back", "wait"])
def test_a_redis_that_fails_is_left_alone_for_a_moment(
    redis: fakeredis.FakeRedis, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0

    def fail(*_: Any, **__: Any) -> None:
        nonlocal calls
        calls += 1
        raise RedisConnectionError("gone")

    for name in ("pipeline", "unlink", "exists"):
        monkeypatch.setattr(redis, name, fail)
    alone = turns_in(redis)
    arguments = ([1], TURN_WAIT_SECONDS_MAX) if command == "wait" else ([1],)
    getattr(alone, command)(*arguments)
    assert calls == 1
    assert alone.take([1]) == {1}
    alone.give_back([1])
    alone.wait([1], TURN_WAIT_SECONDS_MAX)
    assert calls == 1


def test_no_account_asks_redis_nothing(redis: fakeredis.FakeRedis) -> None:
    server = fakeredis.FakeServer()
    server.connected = False
    alone = turns_in(fakeredis.FakeRedis(server=server))
    assert alone.take([]) == set()
    alone.give_back([])
    # It would have noticed that there is no Redis.
    server.connected = True
    other = turns_in(fakeredis.FakeRedis(server=server))
    other.take([1])
    assert alone.take([1]) == set()


def test_a_redis_that_refuses_one_turn_keeps_none_of_the_others(
    redis: fakeredis.FakeRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = redis.pipeline(transaction=False)
    answer = pipeline.execute

    def refuse_the_last(raise_on_error: bool = True) -> list[Any]:
        answers = [*answer(raise_on_error=False)[:-1], ResponseError("OOM")]
        redis.delete("turn:1:orders:2")
        if raise_on_error:
            raise answers[-1]
        return answers

    monkeypatch.setattr(pipeline, "execute", refuse_the_last)
    monkeypatch.setattr(redis, "pipeline", lambda **_: pipeline)
    alone = turns_in(redis)
    assert alone.take([1, 2]) == {1, 2}
    alone.give_back([1, 2])
    assert redis.keys() == []
