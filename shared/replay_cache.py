"""Answers to repeated requests in Redis: who sends a key again is answered without the store.

An entry says what the first request with a key asked for and made. It is written once that is
recorded, and it is no more than a short cut: DynamoDB alone keeps a key from being used twice. What
is not here, cannot be read or was asked for otherwise is looked up there.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import blake2b
from typing import Any, Final

from redis import Redis
from redis.exceptions import RedisError

from shared import metrics
from shared.cooldown import Cooldown
from shared.logs import get_logger
from shared.order_store.accepts import IDEMPOTENCY_LIFE
from shared.order_store.keys import PK, idempotency_key
from shared.order_store.records import IdempotencyClaim

_PREFIX: Final = "replay:1"
"""The number is the version of an entry's shape."""

_COOLDOWN_SECONDS: Final = 1.0

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Replay:
    """What the first request with a key made (an id), and when it was received."""

    result: str
    received_at: datetime


class ReplayCache:
    """What requests with a key made. Safe to share between threads; a failing Redis is a miss."""

    def __init__(self, redis: "Redis", table_name: str) -> None:
        """Keep what was recorded in ``table_name``, whose ids no other table has, in ``redis``."""
        self._redis = redis
        self._table_name = table_name
        self._cooldown = Cooldown(_COOLDOWN_SECONDS)

    def find(self, claims: Sequence[IdempotencyClaim], now: datetime) -> list[Replay | None]:
        """What earlier requests made that claimed the same and asked for the same, if known."""
        if not claims or self._cooldown.is_active:
            return [None] * len(claims)
        try:
            found = self._redis.mget([self._key(claim) for claim in claims])
        except RedisError as error:
            self._rest("read", error)
            return [None] * len(claims)
        return [
            _read(entry, self._key(claim), claim, now) if entry is not None else None
            for entry, claim in zip(found, claims, strict=True)
        ]

    def put(self, made: Iterable[tuple[IdempotencyClaim, Replay]], now: datetime) -> None:
        """Remember what was recorded, for what is left of its key's life, in one round trip."""
        if self._cooldown.is_active:
            return
        try:
            with self._redis.pipeline(transaction=False) as pipeline:
                for claim, replay in made:
                    left = (replay.received_at + IDEMPOTENCY_LIFE - now) // timedelta(seconds=1)
                    if left > 0:
                        key = self._key(claim)
                        pipeline.set(key, _write(key, claim, replay), ex=left)
                pipeline.execute()
        except RedisError as error:
            self._rest("write", error)

    def _key(self, claim: IdempotencyClaim) -> str:
        name = idempotency_key(claim.scope, claim.client_key)[PK]["S"]
        return f"{_PREFIX}:{self._table_name}:{name}"

    def _rest(self, action: str, error: RedisError) -> None:
        self._cooldown.start()
        metrics.DEPENDENCY_ERRORS.add("cache", action)
        log.warning("replays_unavailable", action=action, error=str(error))


def _write(key: str, claim: IdempotencyClaim, replay: Replay) -> bytes:
    content = f"{claim.fingerprint} {replay.result} {replay.received_at.isoformat()}"
    return f"{content} {_check(key, content)}".encode()


def _read(entry: Any, key: str, claim: IdempotencyClaim, now: datetime) -> Replay | None:
    """Read what ``_write`` wrote, as far as it is about the same request and not too old."""
    try:
        content, check = bytes(entry).decode().rsplit(" ", 1)
        fingerprint, result, instant = content.split(" ")
        received_at = datetime.fromisoformat(instant)
        is_over = now >= received_at + IDEMPOTENCY_LIFE
    except (ValueError, TypeError, OverflowError) as error:
        log.warning("replay_unreadable", error=str(error))
        return None
    is_whole = check == _check(key, content)
    is_same = fingerprint == claim.fingerprint
    return Replay(result, received_at) if is_whole and is_same and not is_over else None


def _check(key: str, content: str) -> str:
    """Tells an entry that was damaged, or stands under another key than its own."""
    return blake2b(f"{key} {content}".encode(), digest_size=8).hexdigest()
