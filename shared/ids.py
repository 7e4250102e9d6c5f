"""Order ids: UUIDv7 (RFC 9562) that sort by acceptance.

Layout as in RFC 9562, section 5.7, with method 3 of section 6.2: the 12 bits after the millisecond
hold its fraction, so that ids of one process are 244 ns apart and strictly increasing.
"""

import re
import secrets
import threading
import uuid
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Final

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_VERSION: Final = 0x7 << 76
_VARIANT: Final = 0b10 << 62
_RANDOM_BITS: Final = 62
_TICKS_PER_MILLISECOND: Final = 1 << 12
_WRITTEN: Final = re.compile(
    "[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", re.ASCII
)

ACCOUNT_DIGITS_MAX: Final = 18
"""Digits of an account's id: small enough for any database."""

OrderRef = tuple[int, str]
"""Account id and order id: what names an order."""

NO_ORDER_ID: Final = "00000000-0000-0000-0000-000000000000"
"""Sorts before every order id: the last accepted id of an account without orders."""


def by_account(refs: Iterable[OrderRef]) -> dict[int, list[OrderRef]]:
    """Sort ``refs`` by account; both keep their sequence."""
    sorted_: dict[int, list[OrderRef]] = {}
    for ref in refs:
        sorted_.setdefault(ref[0], []).append(ref)
    return sorted_


class OrderIds:
    """Makes order ids that strictly increase within the process (safe to share by threads)."""

    def __init__(self) -> None:
        """Start with no id given out."""
        self._lock = threading.Lock()
        self._last_tick = 0

    def next(self, now: datetime, after: str = NO_ORDER_ID) -> str:
        """Return an id for an order accepted at ``now``, greater than ``after``.

        ``after`` is the newest id that the account is known to have: where another host's clock
        runs ahead of ours, the id follows that one and not the clock.
        """
        with self._lock:
            self._last_tick = max(_tick_at(now), self._last_tick + 1)
            tick = max(self._last_tick, tick_of(after) + 1)
        return _id_at(tick, secrets.randbits(_RANDOM_BITS))


def first_id_at(instant: datetime) -> str:
    """The smallest id that an order accepted at ``instant`` could have."""
    return _id_at(_tick_at(instant), 0)


def tick_of(order_id: str) -> int:
    """The 60 bits of time in ``order_id``, in 1/4096 ms since 1970."""
    bits = uuid.UUID(order_id).int
    return (bits >> 80) << 12 | (bits >> 64) & 0xFFF


def instant_of(order_id: str) -> datetime:
    """When the order with this id was accepted, to the millisecond."""
    return _EPOCH + timedelta(milliseconds=tick_of(order_id) // _TICKS_PER_MILLISECOND)


def is_order_id(text: str) -> bool:
    """Tell whether ``text`` is written as an order id (lower case, canonical, version 7)."""
    return _WRITTEN.fullmatch(text) is not None


def _tick_at(instant: datetime) -> int:
    microseconds = (instant - _EPOCH) // timedelta(microseconds=1)
    return microseconds * _TICKS_PER_MILLISECOND // 1000


def _id_at(tick: int, random_bits: int) -> str:
    time_bits = (tick >> 12) << 80 | _VERSION | (tick & 0xFFF) << 64
    return str(uuid.UUID(int=time_bits | _VARIANT | random_bits))
