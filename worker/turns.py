"""Turns at busy accounts: processes that meet at one settle it one after the other.

Where several messages name orders of one account, each of their workers would read and decide all
that waits, and all but one would find at their commit that they did it in vain. So whoever sees
that an account has more undecided orders than its message names takes the account's turn first, a
key in Redis with a short life, and the others wait for its end: mostly there is nothing left to do.

A turn is a hint and no more. What makes a decision take effect once is the condition of the commit;
so a turn may be lost, outlived or taken twice, and without Redis there are none.
"""

import time
from collections.abc import Callable, Collection
from typing import Final

from redis import Redis
from redis.exceptions import RedisError

from shared import metrics
from shared.cooldown import Cooldown
from shared.logs import get_logger

TURN_SECONDS_MAX: Final = 2.0
"""Life of a turn: how long one that its process left behind (it was killed) is in the way."""

TURN_WAIT_SECONDS_MAX: Final = 0.25
"""How long one message waits for the turns of others, in all; then it goes on without."""

TURN_WAIT_SECONDS_MIN: Final = 0.01
"""What a wait counts for at least: turns that end before it begins must not cost all rounds."""

_LOOK_EVERY_SECONDS: Final = 0.004
_PREFIX: Final = "turn:1"
"""The number is the version of the key's shape."""

_COOLDOWN_SECONDS: Final = 1.0

log = get_logger(__name__)


class Turns:
    """Takes, gives back and waits for turns."""

    def __init__(
        self,
        redis: "Redis",
        table_name: str,
        *,
        sleep: Callable[[float], None] = time.sleep,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Keep the turns at accounts of a table in ``redis``."""
        self._redis = redis
        self._prefix = f"{_PREFIX}:{table_name}"
        self._sleep = sleep
        self._monotonic = monotonic
        self._cooldown = Cooldown(_COOLDOWN_SECONDS, monotonic)

    def take(self, account_ids: Collection[int]) -> set[int]:
        """Take the turns of accounts; returns those that nobody else has (all, without Redis)."""
        if not account_ids or self._cooldown.is_active:
            return set(account_ids)
        try:
            with self._redis.pipeline(transaction=False) as pipeline:
                for account_id in account_ids:
                    pipeline.set(
                        self._key(account_id), b"", nx=True, px=round(TURN_SECONDS_MAX * 1000)
                    )
                is_taken = pipeline.execute(raise_on_error=False)
            self._undo_if_refused(account_ids, is_taken)
        except RedisError as error:
            self._rest(error)
            return set(account_ids)
        return {account_id for account_id, ours in zip(account_ids, is_taken, strict=True) if ours}

    def give_back(self, account_ids: Collection[int]) -> None:
        """End turns that were taken (or outlived: then somebody else's, which does no harm)."""
        if not account_ids or self._cooldown.is_active:
            return
        try:
            self._redis.unlink(*map(self._key, account_ids))
        except RedisError as error:
            self._rest(error)

    def wait(self, account_ids: Collection[int], seconds: float) -> float:
        """Wait until one of others' turns has ended, at most ``seconds``; returns how long."""
        began = self._monotonic()
        while self._monotonic() - began < seconds and self._are_held(account_ids):
            self._sleep(_LOOK_EVERY_SECONDS)
        return self._monotonic() - began

    def _undo_if_refused(self, account_ids: Collection[int], is_taken: list[object]) -> None:
        """Leave none of the turns behind where Redis refused some of them (it is full)."""
        refusal = next((answer for answer in is_taken if isinstance(answer, RedisError)), None)
        if refusal is None:
            return
        answers = zip(account_ids, is_taken, strict=True)
        self.give_back([account_id for account_id, answer in answers if answer is True])
        raise refusal

    def _are_held(self, account_ids: Collection[int]) -> bool:
        """All of them, as far as is known."""
        if self._cooldown.is_active:
            return False
        try:
            return bool(self._redis.exists(*map(self._key, account_ids)) == len(account_ids))
        except RedisError as error:
            self._rest(error)
            return False

    def _rest(self, error: RedisError) -> None:
        self._cooldown.start()
        metrics.DEPENDENCY_ERRORS.add("cache", "turn")
        log.warning("cache_unavailable", action="turn", error=str(error))

    def _key(self, account_id: int) -> str:
        return f"{self._prefix}:{account_id}"
