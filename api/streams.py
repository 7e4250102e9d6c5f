"""An account's decided orders as server-sent events, from the store and in sequence.

A stream is woken by notices and reads the store from the place where it stands, so that it misses
nothing, whatever becomes of a notice. Each event's id says where to go on. A stream holds one of
the process' places only while it reads, neither while it waits nor while the client fetches.
"""

import time
from collections.abc import Callable, Iterator
from random import Random
from typing import Final

from api.event_ids import write_event_id
from api.places import NoPlace, Places, places
from api.problems import (
    RETRY_AFTER_SECONDS,
    FieldError,
    Problem,
    account_not_found,
    invalid,
)
from api.waiting import Ticket, TooManyStreams, Waiting
from shared.logs import get_logger
from shared.order_store.decisions import Place, Window, decided_after, standing
from shared.order_store.errors import StoreError
from shared.order_store.gateway import Gateway
from shared.representation import show_recorded, to_json

HEARTBEAT_SECONDS: Final = 10.0
"""A stream says at least a comment so often: balancers cut silent connections, some after 25 s."""

CHECK_SECONDS: Final = 30.0
"""How often a stream asks the store for what no notice told it of."""

RECONNECT_MILLISECONDS: Final = 2000
"""What clients are told to wait before they connect again."""

LOOK_PAUSE_SECONDS: Final = 0.05
"""Rest after a look, in which the notices of a busy account gather."""

TROUBLE_SECONDS: Final = 2.0
"""Rest after the store did not answer."""

CHUNK_BYTES: Final = 32 * 1024
"""Events that are ready together are sent in pieces of this size."""

_SPREAD: Final = 0.2
_HEARTBEAT: Final = b":\n\n"
_GOODBYE: Final = b": this connection ends here; connect again\n\n"

log = get_logger(__name__)


class Streams:
    """Opens streams of events. Safe to share between threads."""

    def __init__(
        self,
        gateway: Gateway,
        waiting: Waiting,
        life_seconds: float,
        *,
        places: Places = places,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        random: Random | None = None,
    ) -> None:
        """Read from ``gateway``; no stream lives longer than ``life_seconds``."""
        self.gateway = gateway
        self.waiting = waiting
        self.life_seconds = life_seconds
        self.places = places
        self.monotonic = monotonic
        self.sleep = sleep
        self.random = random or Random()  # noqa: S311 - jitter is no secret

    def open(self, account_id: int, since: Place | None) -> "Stream":
        """A stream of what is decided after ``since``, or from now on; it has to be closed.

        Raises:
            Problem: 404, there is no such account; 422, it has not decided so much; 429 or 503,
                there are too many streams.
            StoreError: the account cannot be read.
        """
        try:
            ticket = self.waiting.enter_stream(account_id)
        except TooManyStreams as refused:
            raise _too_many(refused) from None
        try:
            now = self._standing(account_id, since)
        except BaseException:
            self.waiting.leave_stream(account_id, ticket)
            raise
        return Stream(self, account_id, ticket, since or now, now.sequence)

    def _standing(self, account_id: int, since: Place | None) -> Place:
        now = standing(self.gateway, account_id)
        if now is None:
            raise account_not_found(account_id)
        if since is not None and since.sequence > now.sequence:
            raise invalid([FieldError("/last_event_id", "is ahead of the account")])
        return now

    def around(self, seconds: float) -> float:
        """About ``seconds``, so that what began together does not go on together."""
        return seconds * self.random.uniform(1 - _SPREAD, 1)


class Stream:
    """One stream, for one client."""

    def __init__(
        self, streams: Streams, account_id: int, ticket: Ticket, place: Place, decided: int
    ) -> None:
        """Go on from ``place``; as far as is known, ``decided`` orders are decided."""
        self._streams = streams
        self._waiting = streams.waiting
        self._account_id = account_id
        self._ticket = ticket
        self._place = place
        self._decided = decided
        self._spoken_at = self._looked_at = 0.0

    def close(self) -> None:
        """Give up its room; again changes nothing."""
        self._waiting.leave_stream(self._account_id, self._ticket)

    def chunks(self) -> Iterator[bytes]:
        """The stream's bytes, as they come; called once, by a request that holds a place."""
        try:
            # What is sent is sent without a place, however slowly it is fetched.
            with self._streams.places.left():
                yield from self._chunks()
        finally:
            self.close()

    def _chunks(self) -> Iterator[bytes]:
        now = self._streams.monotonic
        ends_at = now() + self._streams.around(self._streams.life_seconds)
        # An id without data is no event: it tells where to go on before the first one.
        event_id = write_event_id(self._place, self._account_id)
        yield self._said(f"retry: {RECONNECT_MILLISECONDS}\nid: {event_id}\n\n".encode())
        asks_at = now() + self._streams.around(CHECK_SECONDS)
        while True:
            try:
                if now() >= asks_at:
                    asks_at = now() + self._streams.around(CHECK_SECONDS)
                    self._ask()
                yield from self._news()
            except (StoreError, NoPlace) as error:
                log.warning("stream_delayed", account_id=self._account_id, error=str(error))
                asks_at = now() + self._streams.around(TROUBLE_SECONDS)
            if self._waiting.is_over or now() >= ends_at:
                yield _GOODBYE
                return
            until = min(ends_at, asks_at, self._spoken_at + HEARTBEAT_SECONDS)
            if self._waiting.wait(self._ticket, until) and self._is_to_ask():
                asks_at = 0.0
            yield from self._heartbeat()

    def _is_to_ask(self) -> bool:
        """Note what the notices say; tells whether the store has to be asked all the same."""
        rest = self._looked_at + LOOK_PAUSE_SECONDS - self._streams.monotonic()
        if rest > 0:
            self._streams.sleep(rest)
        is_unsure = self._ticket.take_gaps()
        self._decided = max(self._decided, self._ticket.decided)
        return is_unsure or self._decided <= self._place.sequence

    def _ask(self) -> None:
        with self._streams.places.held():
            found = standing(self._streams.gateway, self._account_id)
        self._decided = max(self._decided, found.sequence if found else 0)

    def _news(self) -> Iterator[bytes]:
        """Events for all that is decided, as far as is known."""
        while self._place.sequence < self._decided and not self._waiting.is_over:
            before = self._place.sequence
            yield from self._window()
            if self._place.sequence == before:
                # A notice told of more than there is: the store knows better.
                self._decided = before

    def _window(self) -> Iterator[bytes]:
        streams = self._streams
        windows = decided_after(
            streams.gateway, self._account_id, self._place, self._decided, streams.sleep
        )
        while True:
            with streams.places.held():
                window = next(windows)
            if window is not None:
                break
            yield from self._heartbeat()
        self._looked_at = streams.monotonic()
        yield from self._events(window)
        self._place = window.end

    def _events(self, window: Window) -> Iterator[bytes]:
        chunk = bytearray()
        for place, order in window.decided:
            event_id = write_event_id(place, self._account_id).encode()
            data = to_json(show_recorded(order))
            chunk += b"id: " + event_id + b"\nevent: order\ndata: " + data + b"\n\n"
            if len(chunk) >= CHUNK_BYTES:
                yield self._said(bytes(chunk))
                chunk.clear()
        if chunk:
            yield self._said(bytes(chunk))

    def _heartbeat(self) -> Iterator[bytes]:
        if self._streams.monotonic() >= self._spoken_at + HEARTBEAT_SECONDS:
            yield self._said(_HEARTBEAT)

    def _said(self, chunk: bytes) -> bytes:
        self._spoken_at = self._streams.monotonic()
        return chunk


def _too_many(refused: TooManyStreams) -> Problem:
    if refused.is_accounts_own:
        detail = "The account has too many streams of events: close one."
        return Problem(429, "TOO_MANY_STREAMS", detail, retry_after_seconds=RETRY_AFTER_SECONDS)
    detail = "There are too many streams of events; try again shortly."
    return Problem(503, "OVERLOADED", detail, retry_after_seconds=RETRY_AFTER_SECONDS)
