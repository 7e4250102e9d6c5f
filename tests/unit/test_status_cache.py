from typing import Any

import fakeredis
import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from shared import cooldown
from shared.status_cache import StatusCache

ORDER = "019cafe0-0000-7000-8000-000000000000"
OTHER = "019cafe0-0000-7000-8000-000000000001"


class Seconds:
    """Monotonic time that tests move."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class ShakyRedis(fakeredis.FakeRedis):
    """Redis in memory that can be told to fail; counts what it was asked."""

    error: Exception | None = None
    asked = 0

    def execute_command(self, *args: Any, **options: Any) -> Any:
        self.asked += 1
        if self.error:
            raise self.error
        return super().execute_command(*args, **options)  # type: ignore[no-untyped-call]

    def ping(self, **options: Any) -> Any:
        return self.execute_command("PING", **options)

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> Any:
        self.asked += 1
        if self.error:
            raise self.error
        return super().pipeline(transaction, shard_hint)


@pytest.fixture(name="redis")
def _redis() -> ShakyRedis:
    return ShakyRedis()


@pytest.fixture(name="cache")
def _cache(redis: ShakyRedis) -> StatusCache:
    return StatusCache(redis, life_seconds=60)


@pytest.fixture(name="seconds")
def _seconds(redis: ShakyRedis, cache: StatusCache) -> Seconds:
    seconds = Seconds()
    cache._cooldown = cooldown.Cooldown(1.0, seconds)
    return seconds


def test_what_was_put_is_got_byte_for_byte(cache: StatusCache) -> None:
    cache.put([(1, ORDER, b'{"a":"\xc3\xa9"}'), (2, ORDER, b"two"), (1, OTHER, b"other")])
    assert cache.get(1, ORDER) == b'{"a":"\xc3\xa9"}'
    assert cache.get(2, ORDER) == b"two"
    assert cache.get(1, OTHER) == b"other"


def test_what_was_never_put_is_a_miss(cache: StatusCache) -> None:
    cache.put([(1, ORDER, b"one")])
    assert cache.get(2, ORDER) is None
    assert cache.get(1, OTHER) is None


def test_accounts_and_orders_do_not_run_into_each_other(cache: StatusCache) -> None:
    cache.put([(1, "11", b"a")])
    assert cache.get(11, "1") is None
    assert cache.get(1, "1") is None


def test_every_answer_expires(cache: StatusCache, redis: ShakyRedis) -> None:
    cache.put([(1, ORDER, b"one"), (2, ORDER, b"two")])
    lives = [redis.ttl(key) for key in redis.keys("*")]
    assert len(lives) == 2
    assert all(0 < life <= 60 for life in lives)


def test_putting_nothing_is_fine(cache: StatusCache, redis: ShakyRedis) -> None:
    cache.put([])
    assert redis.keys("*") == []


@pytest.mark.parametrize("error", [RedisConnectionError("away"), RedisTimeoutError("slow")])
def test_a_failing_redis_is_a_miss(
    cache: StatusCache, redis: ShakyRedis, seconds: Seconds, error: Exception
) -> None:
    cache.put([(1, ORDER, b"one")])
    redis.error = error
    assert cache.get(1, ORDER) is None


def test_a_failing_redis_is_left_alone_until_the_pause_is_over(
    cache: StatusCache, redis: ShakyRedis, seconds: Seconds
) -> None:
    cache.put([(1, ORDER, b"one")])
    redis.error = RedisConnectionError("away")
    cache.get(1, ORDER)
    redis.error = None
    asked = redis.asked
    seconds.now += 0.99
    assert cache.get(1, ORDER) is None
    cache.put([(1, OTHER, b"other")])
    assert redis.asked == asked
    seconds.now += 0.01
    assert cache.get(1, ORDER) == b"one"
    assert cache.get(1, OTHER) is None


def test_a_failing_put_is_forgotten_and_starts_the_pause(
    cache: StatusCache, redis: ShakyRedis, seconds: Seconds
) -> None:
    redis.error = RedisConnectionError("away")
    cache.put([(1, ORDER, b"one")])
    redis.error = None
    asked = redis.asked
    assert cache.get(1, ORDER) is None
    assert redis.asked == asked
    seconds.now += 1
    assert cache.get(1, ORDER) is None
    cache.put([(1, ORDER, b"one")])
    assert cache.get(1, ORDER) == b"one"


def test_ping_tells_whether_redis_answers(cache: StatusCache, redis: ShakyRedis) -> None:
    assert cache.ping() is True
    redis.error = RedisConnectionError("away")
    assert cache.ping() is False


def test_ping_asks_even_during_the_pause(
    cache: StatusCache, redis: ShakyRedis, seconds: Seconds
) -> None:
    redis.error = RedisConnectionError("away")
    cache.get(1, ORDER)
    redis.error = None
    assert cache.ping() is True
