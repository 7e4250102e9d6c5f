"""How often a caller may call: all limits of a request in one call of Redis.

Rates are token buckets, kept as the instant at which the bucket is full again (the generic cell
rate algorithm): one number for each caller, however high the limit. A daily quota is a count that
begins anew at midnight UTC. Time is the server's. A request that one limit refuses takes nothing
from the others. Without Redis nobody is refused (decision 0018 says why).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from redis import Redis
from redis.exceptions import RedisError

from shared.clients import cache_client
from shared.cooldown import Cooldown
from shared.logs import get_logger
from shared.settings import Settings

DAY_SECONDS: Final = 86_400

_COOLDOWN_SECONDS: Final = 1.0
_SECOND: Final = 1_000_000
"""The script reckons in microseconds: whole numbers, which a double holds exactly."""

_PREFIX: Final = "limit:1"
_FIELDS: Final = 2
"""Numbers that the script answers for each limit."""

_SCRIPT: Final = """
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local refused, wait, states = 0, 0, {}
for place, key in ipairs(KEYS) do
  local kind = ARGV[4 * place - 3]
  local most, step = tonumber(ARGV[4 * place - 2]), tonumber(ARGV[4 * place - 1])
  local cost = tonumber(ARGV[4 * place])
  local stored = redis.call('GET', key) or ''
  local state = {}
  local over
  if kind == 'rate' then
    local full_at = math.max(tonumber(stored) or 0, now)
    local after = full_at + step * cost
    over = after - now - step * most
    state.left = {math.floor((now + step * most - full_at) / step),
                  math.floor((now + step * most - after) / step)}
    state.reset = {full_at - now, after - now}
    state.value, state.life = string.format('%.0f', after), after - now
  else
    local window = math.floor(now / step)
    local was, count = string.match(stored, '^(%d+):(%d+)$')
    count = tonumber(was) == window and tonumber(count) or 0
    local reset = (window + 1) * step - now
    over = count + cost > most and reset or 0
    state.left = {most - count, most - count - cost}
    state.reset = {reset, reset}
    state.value, state.life = string.format('%.0f:%.0f', window, count + cost), reset
  end
  states[place] = state
  if over > 0 and over >= wait then refused, wait = place, over end
end
local moment = refused == 0 and 2 or 1
local answer = {refused, math.ceil(wait / 1000)}
for place, state in ipairs(states) do
  if refused == 0 then
    redis.call('SET', KEYS[place], state.value, 'PX', math.max(1, math.ceil(state.life / 1000)))
  end
  answer[#answer + 1] = math.max(0, state.left[moment])
  answer[#answer + 1] = math.ceil(state.reset[moment] / 1000)
end
return answer
"""

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Limit:
    """A limit of each caller of one kind; ``step`` in microseconds.

    A ``rate`` gives one request back each ``step``, up to ``most``. A ``quota`` allows ``most`` in
    each ``step``, counted from 1970.
    """

    name: str
    kind: Literal["rate", "quota"]
    most: int
    step: int

    @property
    def policy(self) -> str:
        """The limit as the RateLimit-Policy field has it."""
        window = self.step * (self.most if self.kind == "rate" else 1)
        return f'"{self.name}";q={self.most};w={math.ceil(window / _SECOND)}'

    def further(self, requests: int) -> int:
        """What ``requests`` more cost after one: all that a full bucket holds, if they are more."""
        return min(requests, self.most - 1) if self.kind == "rate" else requests


@dataclass(frozen=True, slots=True)
class Standing:
    """How a request stands to its limits: the fields to answer with, and whether it is refused."""

    policy: str
    left: str
    refused: Limit | None
    wait_seconds: float


@dataclass(frozen=True, slots=True)
class Charge:
    """``cost`` requests on the account of ``caller``, a key's id or an address."""

    limit: Limit
    caller: str
    cost: int = 1


def rate(name: str, per_second: float, burst: int) -> list[Limit]:
    """A limit of ``per_second`` requests, ``burst`` at once (0: those of a second); or none."""
    if per_second <= 0:
        return []
    most = burst or math.ceil(per_second)
    return [Limit(name, "rate", most, max(1, round(_SECOND / per_second)))]


def limits_of_a_key(settings: Settings) -> list[Limit]:
    """Rate and daily quota of each key."""
    found = rate("key", settings.key_rate, settings.key_burst)
    if settings.key_daily_quota:
        day = DAY_SECONDS * _SECOND
        found.append(Limit("key-day", "quota", settings.key_daily_quota, day))
    return found


def limits_of_an_address(settings: Settings) -> list[Limit]:
    """Rate of each client address."""
    return rate("address", settings.address_rate, settings.address_burst)


def build_limiter(settings: Settings) -> "Limiter | None":
    """What counts by the limits of ``settings``, in the cache's Redis; None if there are none."""
    if not limits_of_a_key(settings) and not limits_of_an_address(settings):
        return None
    return Limiter(cache_client(settings, settings.api_threads + 2))


class Limiter:
    """Counts requests in Redis. Safe to share between threads."""

    def __init__(self, redis: "Redis", cooldown: Cooldown | None = None) -> None:
        """Count in ``redis``; leave it alone for a second after each failure."""
        self._script = redis.register_script(_SCRIPT)
        self._cooldown = cooldown or Cooldown(_COOLDOWN_SECONDS)

    def charge(self, charges: Sequence[Charge]) -> Standing | None:
        """Count one request against all of ``charges``, or against none if one refuses it.

        Returns None, and the request goes on, if Redis does not answer.
        """
        if not charges or self._cooldown.is_active:
            return None
        keys = [f"{_PREFIX}:{one.limit.name}:{one.caller}" for one in charges]
        try:
            answer: Any = self._script(keys=keys, args=_arguments(charges))
        except RedisError as error:
            self._cooldown.start()
            log.warning("limits_unavailable", error=str(error))
            return None
        return _standing(charges, [int(number) for number in answer])


def _arguments(charges: Sequence[Charge]) -> list[str | int]:
    arguments: list[str | int] = []
    for one in charges:
        arguments += (one.limit.kind, one.limit.most, one.limit.step, one.cost)
    return arguments


def _standing(charges: Sequence[Charge], answer: Sequence[int]) -> Standing:
    refused, wait_milliseconds, *states = answer
    left = [
        f'"{one.limit.name}";r={states[place]};t={math.ceil(states[place + 1] / 1000)}'
        for one, place in zip(charges, range(0, len(states), _FIELDS), strict=True)
    ]
    culprit = charges[refused - 1] if refused else None
    wait_seconds = wait_milliseconds / 1000
    if culprit is not None and culprit.cost > 1 and culprit.limit.kind == "rate":
        # The next try takes one before it asks for the rest.
        wait_seconds += culprit.limit.step / _SECOND
    return Standing(
        policy=", ".join(one.limit.policy for one in charges),
        left=", ".join(left),
        refused=culprit.limit if culprit else None,
        wait_seconds=wait_seconds,
    )
