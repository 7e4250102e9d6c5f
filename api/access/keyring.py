"""The access keys that this process has seen lately, so that a request need not ask the store.

A key is read again every ``FRESH_SECONDS``: that is how soon a revocation is known. While the
store does not answer, a key that was read before is good for ``STALE_SECONDS_MAX`` since then:
without the store nothing can be recorded anyway, and what is decided is still read from the cache.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from shared.access import AccessKey
from shared.cooldown import Cooldown
from shared.logs import get_logger
from shared.order_store.errors import StoreUnavailable, UnreadableItem

FRESH_SECONDS: Final = 5.0
STALE_SECONDS_MAX: Final = 300.0
"""Since the key was last read."""

UNKNOWN_SECONDS: Final = 5.0
"""How long an id that no key has is refused without another look."""

KEYS_MAX: Final = 10_000
UNKNOWN_KEYS_MAX: Final = 10_000
"""Ids that are remembered as being no key's."""

LOOKUPS_PER_SECOND_MAX: Final = 100
"""Reads of keys that this process does not know: whoever invents ids shall not load the store."""

_COOLDOWN_SECONDS: Final = 1.0

T = TypeVar("T")

log = get_logger(__name__)


class TooManyLookups(Exception):
    """Too many ids were asked for that this process does not know."""


@dataclass(slots=True)
class _Known:
    """A key; monotonic seconds at which it should and at which it must be read again."""

    key: AccessKey
    fresh_until: float
    stale_until: float


class KeyRing:
    """Keys by id. Safe to share between threads: a lost update only costs one read more."""

    def __init__(
        self,
        load: Callable[[str], AccessKey | None],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Read keys with ``load``, which raises as ``shared.order_store.access.load_key``."""
        self._load = load
        self._monotonic = monotonic
        self._known: dict[str, _Known] = {}
        self._unknown: dict[str, float] = {}
        self._cooldown = Cooldown(_COOLDOWN_SECONDS, monotonic)
        self._lock = threading.Lock()
        self._second = 0
        self._lookups = 0

    def knows(self, key_id: str) -> bool:
        """Tell whether a look at ``key_id`` will not ask for a key that was never seen."""
        return key_id in self._known or self._unknown.get(key_id, 0.0) > self._monotonic()

    def find(self, key_id: str) -> AccessKey | None:
        """The key of that id, or None if there is none.

        Raises:
            TooManyLookups: try again in a second.
            StoreUnavailable: it is not known here, or for too long, and the store does not answer.
        """
        known = self._known.get(key_id)
        if known is None:
            return self._meet(key_id)
        now = self._monotonic()
        if now < known.fresh_until:
            return known.key
        return self._read_again(key_id, known, now)

    def _meet(self, key_id: str) -> AccessKey | None:
        now = self._monotonic()
        if now < self._unknown.get(key_id, 0.0):
            return None
        if self._cooldown.is_active:
            raise StoreUnavailable("the store failed a moment ago")
        self._count_lookup(now)
        return self._read(key_id, now)

    def _read_again(self, key_id: str, known: _Known, now: float) -> AccessKey | None:
        if not self._cooldown.is_active:
            # The others go on with what is known while this thread asks.
            known.fresh_until = min(now + _COOLDOWN_SECONDS, known.stale_until)
            try:
                return self._read(key_id, now)
            except StoreUnavailable as error:
                log.warning("keys_unavailable", error=str(error))
        if now < known.stale_until:
            return known.key
        raise StoreUnavailable("the store has not told for too long whether the key is good")

    def _read(self, key_id: str, now: float) -> AccessKey | None:
        try:
            key = self._load(key_id)
        except StoreUnavailable:
            self._cooldown.start()
            raise
        except UnreadableItem:
            log.exception("key_unreadable", key=key_id)
            key = None
        if key is None:
            self._known.pop(key_id, None)
            self._keep(self._unknown, key_id, now + UNKNOWN_SECONDS, UNKNOWN_KEYS_MAX)
            return None
        known = _Known(key, now + FRESH_SECONDS, now + STALE_SECONDS_MAX)
        self._keep(self._known, key_id, known, KEYS_MAX)
        return key

    def _keep(self, kept: dict[str, T], key_id: str, one: T, most: int) -> None:
        """Keep ``one`` as the newest; what was not read for the longest makes room."""
        with self._lock:
            kept.pop(key_id, None)
            while len(kept) >= most:
                del kept[next(iter(kept))]
            kept[key_id] = one

    def _count_lookup(self, now: float) -> None:
        with self._lock:
            second = int(now)
            if second != self._second:
                self._second, self._lookups = second, 0
            self._lookups += 1
            if self._lookups > LOOKUPS_PER_SECOND_MAX:
                raise TooManyLookups
