"""Notices: who decided orders says so on a Redis channel, and whoever waits for them is woken.

A notice is a hint and no more. It may be lost, late or repeated; what is true stands in the store.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from shared.logs import get_logger
from shared.order_store.records import Settlement

BEAT_SECONDS: Final = 5.0
"""A channel that was silent for so long is asked if it still lives, and given as long again."""

_PREFIX: Final = "notices:1"
"""The number is the version of a message's shape."""

log = get_logger(__name__)


class NoticesLost(Exception):
    """The channel cannot be heard: from here on notices may be missed."""


@dataclass(frozen=True, slots=True)
class Notice:
    """Orders of an account were decided; ``decided`` is how many of all its orders are now."""

    account_id: int
    decided: int
    order_ids: tuple[str, ...]


def channel_of(table_name: str) -> str:
    """The channel for ``table_name``. Channels know no database numbers, so it has to name it."""
    return f"{_PREFIX}:{table_name}"


def notice_of(settlement: Settlement) -> Notice:
    """What to say of a settlement that was committed."""
    return Notice(
        settlement.before.account.id,
        settlement.before.decided + len(settlement.decided),
        tuple(decided.order_id for decided in settlement.decided),
    )


def write_notices(notices: Iterable[Notice]) -> str:
    """One message for all ``notices``: a line for each."""
    return "\n".join(
        f"{notice.account_id} {notice.decided} {' '.join(notice.order_ids)}" for notice in notices
    )


def read_notices(message: bytes) -> list[Notice]:
    """Read what ``write_notices`` wrote; a line that is none is left out."""
    return [notice for line in message.split(b"\n") if (notice := _read(line)) is not None]


def _read(line: bytes) -> Notice | None:
    try:
        account_id, decided, *order_ids = line.decode("ascii").split(" ")
        return Notice(int(account_id), int(decided), tuple(order_ids))
    except ValueError:
        log.warning("notice_unreadable", line=line[:100])
        return None


class NoticeFeed:
    """What is said on a channel, over one connection of its own."""

    def __init__(self, redis: "Redis", channel: str) -> None:
        """Listen to ``channel`` in ``redis``, once it is asked to."""
        self._redis = redis
        self._channel = channel

    def listen(self) -> Iterator[Sequence[Notice] | None]:
        """Hear what is said from now on; never ends by itself.

        Yields:
            None whenever it begins to hear (again), so what was said before may have been missed;
            then the notices of each message; none after a while in which nothing was said.

        Raises:
            NoticesLost: Redis does not answer.
        """
        pubsub = self._redis.pubsub()  # type: ignore[no-untyped-call]
        try:
            pubsub.subscribe(self._channel)
            yield from self._heard(pubsub)
        except (RedisError, OSError) as error:
            raise NoticesLost(str(error)) from error
        finally:
            pubsub.close()

    def _heard(self, pubsub: Any) -> Iterator[Sequence[Notice] | None]:
        is_asked = False
        while True:
            message = pubsub.get_message(timeout=BEAT_SECONDS)
            if message is None:
                if is_asked:
                    raise RedisConnectionError("it does not say that it lives")
                pubsub.ping()
                is_asked = True
                yield ()
                continue
            is_asked = False
            if message["type"] == "subscribe":
                yield None
            elif message["type"] == "message":
                yield read_notices(message["data"])
