"""The status of decided orders in Redis, and word of it to those who wait.

Only final statuses are stored, each of them for good, so the cache can never show a state older
than one that was seen before. It holds the bytes of the answer. Everything works without it.
"""

from collections.abc import Iterable, Sequence
from typing import Final

from redis import Redis
from redis.exceptions import RedisError

from shared import metrics, tracing
from shared.cooldown import Cooldown
from shared.ids import OrderRef
from shared.logs import get_logger
from shared.notices import Notice, write_notices

_PREFIX: Final = "order:1"
"""The number is the version of the answer's shape: old entries are not read after it changes."""

_COOLDOWN_SECONDS: Final = 1.0

log = get_logger(__name__)


class StatusCache:
    """Final answers by account and order; a failing Redis is a miss."""

    def __init__(self, redis: "Redis", life_seconds: int, channel: str | None = None) -> None:
        """Keep answers for ``life_seconds`` in ``redis``, and tell of them on ``channel``."""
        self._redis = redis
        self._channel = channel
        self._life_seconds = life_seconds
        self._cooldown = Cooldown(_COOLDOWN_SECONDS)

    def get(self, account_id: int, order_id: str) -> bytes | None:
        """The final answer for an order, or None if it is not cached or Redis does not answer."""
        return self.get_many([(account_id, order_id)])[0]

    def get_many(self, refs: Sequence[OrderRef]) -> list[bytes | None]:
        """``get`` for each of ``refs``, in one round trip."""
        if self._cooldown.is_active:
            metrics.CACHE_READS.add("skipped", n=len(refs))
            return [None] * len(refs)
        try:
            with tracing.span("cache read", kind="CLIENT", orders=len(refs)):
                found = self._redis.mget([_key(*ref) for ref in refs])
        except RedisError as error:
            metrics.CACHE_READS.add("error", n=len(refs))
            self._rest("read", error)
            return [None] * len(refs)
        answers = [value if isinstance(value, bytes) else None for value in found]
        misses = answers.count(None)
        metrics.CACHE_READS.add("hit", n=len(refs) - misses)
        metrics.CACHE_READS.add("miss", n=misses)
        return answers

    def put(
        self, answers: Iterable[tuple[int, str, bytes]], notices: Sequence[Notice] = ()
    ) -> None:
        """Store final answers (account id, order id, body) and wake who waits, in one round trip.

        Whoever is woken by ``notices`` finds the answers: they are stored first.
        """
        if self._cooldown.is_active:
            return
        try:
            with (
                tracing.span("cache write", kind="CLIENT"),
                self._redis.pipeline(transaction=False) as pipeline,
            ):
                for account_id, order_id, body in answers:
                    pipeline.set(_key(account_id, order_id), body, ex=self._life_seconds)
                if notices and self._channel is not None:
                    pipeline.publish(self._channel, write_notices(notices))
                pipeline.execute()
        except RedisError as error:
            self._rest("write", error)

    def ping(self) -> bool:
        """Tell whether Redis answers."""
        try:
            return bool(self._redis.ping())
        except RedisError:
            return False

    def _rest(self, action: str, error: RedisError) -> None:
        self._cooldown.start()
        metrics.DEPENDENCY_ERRORS.add("cache", action)
        log.warning("cache_unavailable", action=action, error=str(error))


def _key(account_id: int, order_id: str) -> str:
    return f"{_PREFIX}:{account_id}:{order_id}"
