"""Limits: at them and one beyond, one call of Redis for all of them, and Redis lost."""

import time
from collections.abc import Callable
from typing import Any

import fakeredis
import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from api.access.limits import DAY_SECONDS, Charge, Limit, Limiter, Standing, rate
from shared.access import Scope
from shared.cooldown import Cooldown
from tests.unit.api.access.parts import FakeMonotonic, Guarded, guard, id_of
from tests.unit.api.parts import Api, problem_of

MIDNIGHT = 20_000 * DAY_SECONDS
DAY = Limit("key-day", "quota", 5, DAY_SECONDS * 1_000_000)
SLOW = 0.001
"""Requests a second: nothing comes back while a test runs."""


class CountedRedis(fakeredis.FakeRedis):
    """Counts its round trips, or is away."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0
        self.error: Exception | None = None

    def execute_command(self, *arguments: Any, **options: Any) -> Any:
        self.calls += 1
        if self.error is not None:
            raise self.error
        return super().execute_command(*arguments, **options)  # type: ignore[no-untyped-call]


class ServerTime:
    """The time of the fake server."""

    def __init__(self) -> None:
        self.now = MIDNIGHT + 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(name="redis")
def _redis() -> CountedRedis:
    return CountedRedis()


@pytest.fixture(name="clock")
def _clock(monkeypatch: pytest.MonkeyPatch) -> ServerTime:
    clock = ServerTime()
    monkeypatch.setattr(time, "time", clock)
    return clock


def charge(limiter: Limiter, *charges: Charge) -> Standing:
    standing = limiter.charge(charges)
    assert standing is not None
    return standing


def times(limiter: Limiter, limit: Limit, caller: str = "a") -> int:
    """How often the caller may call now."""
    count = 0
    while charge(limiter, Charge(limit, caller)).refused is None:
        count += 1
        assert count < 1000
    return count


def test_a_burst_is_allowed_and_not_one_more(redis: CountedRedis, clock: ServerTime) -> None:
    limiter = Limiter(redis)
    (limit,) = rate("key", per_second=2, burst=5)
    for left in (4, 3, 2, 1, 0):
        standing = charge(limiter, Charge(limit, "a"))
        assert standing.refused is None
        assert standing.left.startswith(f'"key";r={left};t=')
    beyond = charge(limiter, Charge(limit, "a"))
    assert beyond.refused is limit
    assert beyond.wait_seconds == 0.5
    assert beyond.left == '"key";r=0;t=3'
    assert beyond.policy == '"key";q=5;w=3'


def test_a_bucket_fills_at_its_rate(redis: CountedRedis, clock: ServerTime) -> None:
    limiter = Limiter(redis)
    (limit,) = rate("key", per_second=2, burst=5)
    assert times(limiter, limit) == 5
    clock.now += 0.499
    assert times(limiter, limit) == 0
    clock.now += 0.002
    assert times(limiter, limit) == 1
    clock.now += 1.5
    assert times(limiter, limit) == 3
    clock.now += 3600
    assert times(limiter, limit) == 5


def test_what_was_refused_costs_nothing(redis: CountedRedis, clock: ServerTime) -> None:
    limiter = Limiter(redis)
    (limit,) = rate("key", per_second=1, burst=1)
    assert times(limiter, limit) == 1
    for _ in range(50):
        assert charge(limiter, Charge(limit, "a")).refused is limit
    clock.now += 1
    assert times(limiter, limit) == 1


def test_without_a_burst_a_second_s_requests_come_at_once() -> None:
    assert [one.most for one in rate("x", per_second=7, burst=0)] == [7]
    assert [one.most for one in rate("x", per_second=0.2, burst=0)] == [1]
    assert rate("x", per_second=0, burst=9) == []


def test_a_quota_begins_anew_at_midnight(redis: CountedRedis, clock: ServerTime) -> None:
    limiter = Limiter(redis)
    clock.now = MIDNIGHT + DAY_SECONDS - 10.0
    assert times(limiter, DAY) == 5
    refused = charge(limiter, Charge(DAY, "a"))
    assert refused.refused is DAY
    assert refused.wait_seconds == 10
    assert refused.policy == '"key-day";q=5;w=86400'
    clock.now += 9.9
    assert times(limiter, DAY) == 0
    clock.now += 0.1
    assert times(limiter, DAY) == 5


def test_callers_do_not_share_their_limits(redis: CountedRedis, clock: ServerTime) -> None:
    limiter = Limiter(redis)
    (limit,) = rate("key", per_second=SLOW, burst=2)
    (other,) = rate("address", per_second=SLOW, burst=2)
    assert [times(limiter, limit, "a"), times(limiter, limit, "b")] == [2, 2]
    assert times(limiter, other, "a") == 2


def test_what_one_limit_refuses_takes_nothing_from_the_others(
    redis: CountedRedis, clock: ServerTime
) -> None:
    limiter = Limiter(redis)
    (limit,) = rate("key", per_second=SLOW, burst=2)
    both = (Charge(limit, "a"), Charge(DAY, "a"))
    assert [charge(limiter, *both).refused for _ in range(3)] == [None, None, limit]
    for _ in range(20):
        standing = charge(limiter, *both)
    assert '"key-day";r=3' in standing.left
    assert times(limiter, DAY) == 3


def test_all_limits_together_take_one_call(redis: CountedRedis, clock: ServerTime) -> None:
    limiter = Limiter(redis)
    (limit,) = rate("key", per_second=SLOW, burst=9)
    (other,) = rate("address", per_second=SLOW, burst=9)
    charges = (Charge(limit, "a"), Charge(DAY, "a"), Charge(other, "b"))
    charge(limiter, *charges)  # the script is loaded
    redis.calls = 0
    charge(limiter, *charges)
    assert redis.calls == 1


def test_counters_expire(redis: CountedRedis, clock: ServerTime) -> None:
    limiter = Limiter(redis)
    (limit,) = rate("key", per_second=2, burst=5)
    charge(limiter, Charge(limit, "a"), Charge(DAY, "a"))
    lives = {key: redis.pttl(key) for key in redis.keys("*")}
    assert lives[b"limit:1:key:a"] == 500
    assert lives[b"limit:1:key-day:a"] == (DAY_SECONDS - 100) * 1000
    assert len(lives) == 2


def test_a_counter_of_nonsense_begins_anew(redis: CountedRedis, clock: ServerTime) -> None:
    limiter = Limiter(redis)
    (limit,) = rate("key", per_second=SLOW, burst=2)
    for nonsense in (b"", b"x", b"1:2:3", b"-5"):
        redis.set("limit:1:key:a", nonsense)
        redis.set("limit:1:key-day:a", nonsense)
        assert charge(limiter, Charge(limit, "a"), Charge(DAY, "a")).refused is None


@pytest.mark.parametrize("error", [RedisConnectionError("away"), RedisTimeoutError("slow")])
def test_without_redis_nobody_is_refused_and_it_is_left_alone_for_a_second(
    redis: CountedRedis, error: Exception
) -> None:
    monotonic = FakeMonotonic()
    limiter = Limiter(redis, Cooldown(1.0, monotonic))
    (limit,) = rate("key", per_second=SLOW, burst=1)
    assert times(limiter, limit) == 1
    redis.error = error
    redis.calls = 0
    for _ in range(100):
        assert limiter.charge([Charge(limit, "a")]) is None
    assert redis.calls == 1
    redis.error = None
    monotonic.now += 1
    assert times(limiter, limit) == 0


# At the API


@pytest.fixture(name="make_guarded")
def _make_guarded(make_api: Callable[..., Api], redis: CountedRedis) -> Callable[..., Guarded]:
    def make(**changes: Any) -> Guarded:
        return guard(make_api(**{"access_keys": "required", **changes}), redis)

    return make


def statuses(guarded: Guarded, key: str | None, count: int, peer: str = "192.0.2.1") -> list[int]:
    headers = {} if key is None else {"X-API-Key": key}
    return [
        guarded.http.get(
            "/v1/accounts/1", headers=headers, environ_base={"REMOTE_ADDR": peer}
        ).status_code
        for _ in range(count)
    ]


def test_a_key_beyond_its_limit_is_told_when_to_try_again(
    make_guarded: Callable[..., Guarded],
) -> None:
    guarded = make_guarded(key_rate=SLOW, key_burst=3, key_daily_quota=100)
    key, other = guarded.make_key(1), guarded.make_key(1)
    assert statuses(guarded, key, 4) == [404, 404, 404, 429]
    answer = guarded.get("/v1/accounts/1", key)
    problem_of(answer, 429, "TOO_MANY_REQUESTS")
    assert 900 < int(answer.headers["Retry-After"]) <= 1000
    assert answer.headers["RateLimit-Policy"] == '"key";q=3;w=3000, "key-day";q=100;w=86400'
    assert answer.headers["RateLimit"].startswith('"key";r=0;t=')
    assert '"key-day";r=97' in answer.headers["RateLimit"]
    assert statuses(guarded, other, 1) == [404]


def test_an_answer_within_the_limits_says_what_is_left(
    make_guarded: Callable[..., Guarded],
) -> None:
    guarded = make_guarded(key_rate=SLOW, key_burst=3)
    answer = guarded.get("/v1/accounts/1", guarded.make_key(1))
    assert answer.headers["RateLimit"].startswith('"key";r=2;t=')


def test_a_quota_is_a_days(make_guarded: Callable[..., Guarded]) -> None:
    guarded = make_guarded(key_daily_quota=2)
    assert statuses(guarded, guarded.make_key(1), 3) == [404, 404, 429]


def test_an_address_beyond_its_limit_is_refused_whatever_key_it_shows(
    make_guarded: Callable[..., Guarded],
) -> None:
    guarded = make_guarded(address_rate=SLOW, address_burst=2)
    assert statuses(guarded, None, 3) == [401, 401, 429]
    assert statuses(guarded, guarded.make_key(1), 1) == [429]
    assert statuses(guarded, None, 3, "192.0.2.2") == [401, 401, 429]


def test_addresses_of_one_ipv6_network_are_one_client(
    make_guarded: Callable[..., Guarded],
) -> None:
    guarded = make_guarded(address_rate=SLOW, address_burst=2)
    seen = [statuses(guarded, None, 1, f"2001:db8::{number}")[0] for number in range(1, 4)]
    assert seen == [401, 401, 429]
    assert statuses(guarded, None, 1, "2001:db8:0:1::1") == [401]


def test_an_invented_key_costs_its_sender_before_it_costs_the_store(
    make_guarded: Callable[..., Guarded],
) -> None:
    guarded = make_guarded(address_rate=SLOW, address_burst=2)
    guarded.get("/healthz")
    invented = guarded.make_key(1).partition(".")[2]
    before = len(guarded.api.store.calls)
    for number in range(10):
        guarded.get("/v1/accounts/1", f"op_live_{number:012x}.{invented}"[:64])
    reads = guarded.api.store.calls[before:].count("get_item")
    assert reads <= 2


def test_a_request_takes_one_call_of_redis_however_many_limits_there_are(
    make_guarded: Callable[..., Guarded], redis: CountedRedis
) -> None:
    guarded = make_guarded(key_rate=5, key_daily_quota=100, address_rate=5)
    key = guarded.make_key(1)
    guarded.get("/v1/accounts/1", key)
    redis.calls = 0
    assert guarded.get("/v1/accounts/1", key).status_code == 404
    assert redis.calls == 1


def test_probes_are_never_limited(make_guarded: Callable[..., Guarded]) -> None:
    guarded = make_guarded(address_rate=SLOW, address_burst=1)
    assert statuses(guarded, None, 2) == [401, 429]
    peer = {"REMOTE_ADDR": "192.0.2.1"}
    for path in ("/healthz", "/readyz"):
        assert guarded.http.get(path, environ_base=peer).status_code == 200


def test_limits_hold_without_keys_too(make_guarded: Callable[..., Guarded]) -> None:
    guarded = make_guarded(access_keys="off", address_rate=SLOW, address_burst=2)
    assert statuses(guarded, None, 3, "127.0.0.1") == [404, 404, 429]


def test_without_redis_the_api_answers(
    make_guarded: Callable[..., Guarded], redis: CountedRedis
) -> None:
    guarded = make_guarded(key_rate=SLOW, key_burst=1)
    key = guarded.make_key(1)
    assert statuses(guarded, key, 2) == [404, 429]
    redis.error = RedisConnectionError("away")
    assert statuses(guarded, key, 5) == [404] * 5
    assert redis.calls < 10


def test_without_limits_redis_is_not_asked(
    make_guarded: Callable[..., Guarded], redis: CountedRedis
) -> None:
    guarded = make_guarded()
    answer = guarded.get("/v1/accounts/1", guarded.make_key(1))
    assert answer.status_code == 404
    assert redis.calls == 0
    assert "RateLimit" not in answer.headers


def test_many_orders_in_one_request_count_as_many(
    make_guarded: Callable[..., Guarded], redis: CountedRedis
) -> None:
    guarded = make_guarded(key_daily_quota=10)
    key = guarded.make_key(scope=Scope.ALL_ACCOUNTS)

    def send(lines: int) -> int:
        return guarded.http.post(
            "/v1/orders/bulk",
            data=b"{}\n" * lines,
            content_type="application/x-ndjson",
            headers={"X-API-Key": key},
        ).status_code

    assert send(6) == 200
    assert send(6) == 429
    # The refused one counted once.
    assert send(3) == 200
    assert send(1) == 429
    assert str(redis.get(f"limit:1:key-day:{id_of(key)}")).endswith(":10'")


def test_more_orders_than_a_burst_holds_wait_for_a_full_bucket(
    redis: CountedRedis, clock: ServerTime
) -> None:
    limiter = Limiter(redis)
    (limit,) = rate("key", per_second=1, burst=4)

    def bulk(orders: int) -> Standing:
        first = charge(limiter, Charge(limit, "a"))
        if first.refused is not None:
            return first
        return charge(limiter, Charge(limit, "a", limit.further(orders - 1)))

    assert bulk(1000).refused is None
    tries = 0
    while (standing := bulk(1000)).refused is not None:
        tries += 1
        assert tries <= 3
        clock.now += standing.wait_seconds
    assert tries >= 1
