"""Decided orders as they come: server-sent events over as many connections as it takes.

A connection may end at any moment. The next one names the last event that was seen whole, so that
the service goes on after it; what it sends twice all the same is left out here.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

import httpx

from order_client.errors import OrdersError, Problem, ProtocolError, Unreachable
from order_client.exact import read_object
from order_client.lines import LINE_BYTES_MAX, lines_of
from order_client.models import Order, read_order
from order_client.retry import Retry
from order_client.transport import Answer, Attempts, Request, Transport, may_help

SILENCE_SECONDS_MAX: Final = 45.0
"""A connection that says nothing for so long, no comment either, is taken for a dead one."""

STREAM_RETRY: Final = Retry(attempts_max=60, deadline_seconds=120.0)
"""More patient than for a call: a service that restarts should not end a stream."""

SEEN_MAX: Final = 1024
"""Event ids that are remembered to leave out repetitions."""

GARBAGE_MAX: Final = 3
"""Times in a row that an event may be unreadable; it may have been spoilt on its way once."""

_ALIVE_SECONDS: Final = 5.0
_RETRY_SECONDS_MAX: Final = 30.0
_MEDIA_TYPE: Final = "text/event-stream"
_NO_CONTENT: Final = 204


@dataclass(frozen=True, slots=True)
class Event:
    """An order that was decided; the ``id`` is where to go on from (``last_event_id``)."""

    id: str
    order: Order


@dataclass(frozen=True, slots=True)
class RawEvent:
    """One event of the stream. ``own_id``: it named one itself."""

    name: str
    data: str
    own_id: str | None


class EventParser:
    """Lines of an event stream to events, as the HTML standard has it."""

    def __init__(self) -> None:
        self.retry_seconds: float | None = None
        """What the service asked to wait before a new connection."""
        self.said_anything = False
        """Whether an event or a comment came: the other side is alive."""

    def events(self, lines: Iterable[bytes]) -> Iterator[RawEvent]:
        """Each event that ended with an empty line; a torn last one is left out.

        Raises:
            ProtocolError: an event is too large, or is no UTF-8.
        """
        name, own_id, data, size = "", None, list[str](), 0
        for number, raw in enumerate(lines):
            line = _text(raw.removeprefix(b"\xef\xbb\xbf") if number == 0 else raw)
            if not line:
                if data:
                    self.said_anything = True
                    yield RawEvent(name or "message", "\n".join(data), own_id)
                elif own_id is not None:
                    # No event, but where to go on from if the connection ends before the first.
                    yield RawEvent("", "", own_id)
                name, own_id, data, size = "", None, [], 0
                continue
            field, _, value = line.partition(":")
            value = value.removeprefix(" ")
            match field:
                case "":
                    self.said_anything = True
                case "event":
                    name = value
                case "id" if "\0" not in value:
                    own_id = value
                case "data":
                    size += len(value) + 1  # the line end: empty lines fill the memory too
                    if size > LINE_BYTES_MAX:
                        raise ProtocolError("The service sent an event beyond all bounds.")
                    data.append(value)
                case "retry" if value.isascii() and value.isdigit() and len(value) < 10:
                    self.retry_seconds = min(int(value) / 1000, _RETRY_SECONDS_MAX)


class EventStream:
    """The events of one account. Iterate over it once."""

    def __init__(
        self,
        transport: Transport,
        account_id: int,
        last_event_id: str | None,
        retry: Retry = STREAM_RETRY,
    ) -> None:
        """``last_event_id``: go on after this event; None begins with what is decided from now."""
        self.last_event_id = last_event_id
        self._transport = transport
        self._path = f"/v1/accounts/{account_id}/events"
        self._retry = retry
        self._seen: deque[str] = deque(maxlen=SEEN_MAX)
        self._garbage = 0

    def __iter__(self) -> Iterator[Event]:
        """Every event once. Ends only if the service says that there will be no more.

        Raises:
            Problem: the service refuses, or cannot be reached for too long.
            ProtocolError: it sends what cannot be read, again and again.
        """
        attempts = self._new_attempts()
        while True:
            parser = EventParser()
            began = self._transport.time.monotonic()
            failure: OrdersError
            try:
                with self._transport.open(
                    self._request(), attempts.remaining_seconds()
                ) as response:
                    if response.status_code == _NO_CONTENT:
                        return
                    yield from self._read(response, parser)
                failure = Unreachable("The stream of events ended.")
            except Problem as problem:
                if not may_help("GET", problem.status):
                    raise
                failure = problem
            except ProtocolError as error:
                self._garbage += 1
                if self._garbage >= GARBAGE_MAX:
                    raise
                failure = error
            if parser.said_anything or self._transport.time.monotonic() - began > _ALIVE_SECONDS:
                attempts = self._new_attempts()
            attempts.pause_or_raise(failure, _asked_pause(failure) or parser.retry_seconds)

    def _read(self, response: httpx.Response, parser: EventParser) -> Iterator[Event]:
        if response.status_code != httpx.codes.OK:
            body = self._transport.whole_body(response, self._retry.deadline_seconds)
            self._transport.checked(Answer(response.status_code, response.headers, body))
        if not response.headers.get("Content-Type", "").startswith(_MEDIA_TYPE):
            raise ProtocolError("The service answered what is no stream of events.")
        for raw in parser.events(lines_of(response.iter_bytes())):
            event = self._new_event(raw)
            if event is not None:
                self._garbage = 0
                yield event

    def _new_event(self, raw: RawEvent) -> Event | None:
        """The event, if it is one of ours and new. Only then does the stream go on from it."""
        if raw.own_id is not None and raw.own_id in self._seen:
            return None
        order = read_order(read_object(raw.data.encode())) if raw.name == "order" else None
        if raw.own_id is not None:
            self._remember(raw.own_id)
        return Event(self.last_event_id or "", order) if order else None

    def _remember(self, event_id: str) -> None:
        if not (event_id.isascii() and event_id.isprintable()):
            raise ProtocolError(f"The service named an event {event_id!r}.")
        self._seen.append(event_id)
        self.last_event_id = event_id

    def _request(self) -> Request:
        headers = {"Accept": _MEDIA_TYPE, "Cache-Control": "no-store"}
        if self.last_event_id:
            headers["Last-Event-ID"] = self.last_event_id
        return Request("GET", self._path, headers=headers, wait_seconds=SILENCE_SECONDS_MAX)

    def _new_attempts(self) -> Attempts:
        return Attempts(self._retry, self._transport.time, SILENCE_SECONDS_MAX)


def _asked_pause(failure: OrdersError) -> float | None:
    return failure.retry_after_seconds if isinstance(failure, Problem) else None


def _text(line: bytes) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError:
        raise ProtocolError("The service sent an event that is no UTF-8.") from None
