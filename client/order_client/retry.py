"""When to try again, how long to wait before it, and when to give up.

Every request of this package may be repeated without a second effect: GET, DELETE, and POST with
an idempotency key. So the only questions are whether a repetition may help, and when.
"""

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

RETRIED_STATUSES: Final = frozenset({408, 429, 502, 503, 504})
"""A repetition may help; every other answer would be given again."""

CONFLICT: Final = 409
"""For a POST it says that the first request with the key is still under way."""

_EXPONENT_MAX: Final = 20


@dataclass(frozen=True, slots=True)
class Retry:
    """How stubborn a client is.

    Attributes:
        attempts_max: tries of one request, the first included.
        deadline_seconds: time for one call, all tries and pauses together.
        base_seconds: the first pause is chosen from 0 to this, each further one from twice that.
        pause_seconds_max: the most that a pause is chosen from; Retry-After may ask for more.
    """

    attempts_max: int = 10
    deadline_seconds: float = 30.0
    base_seconds: float = 0.2
    pause_seconds_max: float = 5.0

    def __post_init__(self) -> None:
        if self.attempts_max < 1 or self.deadline_seconds <= 0:
            raise ValueError("a call needs at least one attempt and some time")

    def pause(
        self, failures: int, chance: float, retry_after_seconds: float | None = None
    ) -> float:
        """Seconds to wait after so many failures in a row; ``chance`` is from [0, 1).

        Full jitter: clients that failed together do not come back together. What the service
        asked for is waited for in whole, and jitter comes on top of it.
        """
        most = self.base_seconds * 2.0 ** min(failures - 1, _EXPONENT_MAX)
        return chance * min(most, self.pause_seconds_max) + (retry_after_seconds or 0.0)


@dataclass(frozen=True, slots=True)
class Time:
    """Where time and chance come from; tests bring their own."""

    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    chance: Callable[[], float] = random.random
    now: Callable[[], datetime] = lambda: datetime.now(UTC)


def retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    """Seconds that an answer asks to wait: its Retry-After, in seconds or as a date."""
    text = headers.get("Retry-After", "").strip()
    if not text:
        return None
    if text.isascii() and text.isdigit() and len(text) < _EXPONENT_MAX:
        return float(text)
    try:
        at = parsedate_to_datetime(text)
    except (ValueError, IndexError):
        return None
    if at.tzinfo is None:
        at = at.replace(tzinfo=UTC)
    return max(0.0, (at - now).total_seconds())
