"""Many orders in few requests: NDJSON, chunk by chunk, each line answered for.

Every order carries an idempotency key of its own, so whatever part of a chunk went unanswered is
sent again without harm: what was recorded the first time is answered again and marked as replayed.
"""

import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Final

from order_client.errors import OrdersError, Problem, ProtocolError, Unreachable
from order_client.exact import Json, read_object, write_json
from order_client.lines import lines_of
from order_client.models import NewOrder, Order, read_order, read_problem
from order_client.retry import Retry
from order_client.transport import Answer, Attempts, Request, Transport, may_help

CHUNK_LINES: Final = 500
CHUNK_LINES_MAX: Final = 1000
"""What the service takes in one request."""

BULK_PATH: Final = "/v1/orders/bulk"
BULK_RETRY: Final = Retry(attempts_max=60, deadline_seconds=120.0)
"""More patient than for a call: a long load should outlive a restart of the service."""

_MEDIA_TYPE: Final = "application/x-ndjson"
_BULK_SECONDS: Final = 20.0
_TOO_LARGE: Final = 413


@dataclass(frozen=True, slots=True)
class BulkResult:
    """What became of one order: accepted (``order``) or refused (``problem``).

    Attributes:
        number: its place in what was given, from 1.
        sent: it, as it was sent: dated and with its key.
        replayed: it had been recorded before, by an earlier try or run.
    """

    number: int
    sent: NewOrder
    order: Order | None = None
    problem: Problem | None = None
    replayed: bool = False


class BulkInterrupted(OrdersError):
    """The rest could not be sent: the service refused the whole, or cannot be reached.

    Attributes:
        cause: why.
        unanswered: orders of the last chunk that may or may not be recorded, dated and with their
            keys. To go on, give these first and then the ones that were not taken yet.
    """

    def __init__(self, cause: OrdersError, unanswered: Sequence[NewOrder]) -> None:
        super().__init__(str(cause))
        self.cause = cause
        self.unanswered = tuple(unanswered)


def send_all(
    transport: Transport, orders: Iterable[NewOrder], chunk_lines: int, retry: Retry
) -> Iterator[BulkResult]:
    """A result for each order, in their sequence; one chunk is in memory.

    Raises:
        BulkInterrupted: after the results that are known.
    """
    if not 1 <= chunk_lines <= CHUNK_LINES_MAX:
        raise ValueError(f"a chunk has 1 to {CHUNK_LINES_MAX} lines")
    source = iter(orders)
    first = 1
    while given := list(islice(source, chunk_lines)):
        chunk = Chunk(transport, given, first, retry)
        try:
            chunk.send()
        except OrdersError as error:
            yield from chunk.results()
            raise BulkInterrupted(error, chunk.unanswered()) from error
        yield from chunk.results()
        first += len(given)


class Chunk:
    """Some orders that travel together, sent until each has its answer."""

    def __init__(
        self, transport: Transport, orders: Sequence[NewOrder], first: int, retry: Retry
    ) -> None:
        self._transport = transport
        self._orders = [_ready(order, transport) for order in orders]
        self._lines = [write_json(_line(order)) + b"\n" for order in self._orders]
        self._first = first
        self._retry = retry
        self._results: dict[int, BulkResult] = {}

    def send(self) -> None:
        """Send and send again.

        Raises:
            OrdersError: the service refused the whole, or is away for too long.
        """
        lines_max = len(self._orders)
        attempts = self._new_attempts()
        while places := self._open_places()[:lines_max]:
            answered = len(self._results)
            outcome = self._try(places, attempts.remaining_seconds())
            failure = outcome.failure
            if len(self._results) > answered:
                attempts = self._new_attempts()
            if isinstance(failure, Problem) and failure.status == _TOO_LARGE:
                self._divide(places, failure)
                lines_max = max(1, len(places) // 2)
            elif failure is not None:
                if outcome.is_final:
                    raise failure
                attempts.pause_or_raise(failure, _asked_pause(failure))

    def results(self) -> Iterator[BulkResult]:
        """The results so far, in the orders' sequence."""
        return (self._results[place] for place in sorted(self._results))

    def unanswered(self) -> list[NewOrder]:
        """The orders without a result, as they were sent."""
        return [self._orders[place] for place in self._open_places()]

    def _try(self, places: Sequence[int], remaining_seconds: float) -> "_Outcome":
        outcome = _Outcome()
        try:
            self._post(places, remaining_seconds, outcome)
        except Problem as problem:
            return _Outcome(problem, is_final=not may_help("POST", problem.status))
        except ProtocolError as error:
            # Torn or spoilt on its way: what was read until then counts, the rest is asked again.
            return _Outcome(error)
        if outcome.failure is None and any(place not in self._results for place in places):
            outcome.failure = Unreachable("The answer ended before its last line.")
        return outcome

    def _post(self, places: Sequence[int], remaining_seconds: float, outcome: "_Outcome") -> None:
        request = Request(
            "POST",
            BULK_PATH,
            headers={"Content-Type": _MEDIA_TYPE, "Accept": _MEDIA_TYPE},
            content=b"".join(self._lines[place] for place in places),
            wait_seconds=_BULK_SECONDS,
        )
        with self._transport.open(request, remaining_seconds) as response:
            if response.status_code != 200:
                body = self._transport.whole_body(response, remaining_seconds)
                self._transport.checked(Answer(response.status_code, response.headers, body))
                raise ProtocolError(
                    f"The service answered {response.status_code} to a bulk request."
                )
            for line in lines_of(response.iter_bytes()):
                if line.strip():
                    self._take(read_object(line), places, outcome)

    def _take(self, shown: Json, places: Sequence[int], outcome: "_Outcome") -> None:
        """Keep one line's result, unless another try may change it."""
        number, status = shown.get("line"), shown.get("status")
        if not isinstance(number, int) or not isinstance(status, int):
            raise ProtocolError("The service answered a line without its number or status.")
        if not 1 <= number <= len(places):
            raise ProtocolError(f"The service answered for line {number} of {len(places)}.")
        place = places[number - 1]
        found = self._result(place, status, shown)
        if found.problem is not None and may_help("POST", status):
            outcome.failure = found.problem
        else:
            self._results[place] = found

    def _result(self, place: int, status: int, shown: Json) -> BulkResult:
        number, sent = self._first + place, self._orders[place]
        order, problem = shown.get("order"), shown.get("problem")
        if 200 <= status < 300 and isinstance(order, dict):
            replayed = shown.get("replayed") is True
            return BulkResult(number, sent, order=read_order(order), replayed=replayed)
        if status >= 400:
            document = problem if isinstance(problem, dict) else {}
            return BulkResult(number, sent, problem=read_problem(document, status))
        raise ProtocolError(f"The service answered line {number} with neither order nor problem.")

    def _divide(self, places: Sequence[int], problem: Problem) -> None:
        """A request was too large. A line that is too large on its own has its result."""
        if len(places) == 1:
            place = places[0]
            number, sent = self._first + place, self._orders[place]
            self._results[place] = BulkResult(number, sent, problem=problem)

    def _open_places(self) -> list[int]:
        return [place for place in range(len(self._orders)) if place not in self._results]

    def _new_attempts(self) -> Attempts:
        return Attempts(self._retry, self._transport.time, _BULK_SECONDS)


@dataclass(slots=True)
class _Outcome:
    """Why a try left lines open, if it did; ``is_final``: another one would end the same way."""

    failure: OrdersError | None = field(default=None)
    is_final: bool = False


def _ready(order: NewOrder, transport: Transport) -> NewOrder:
    """The order dated and with a key, so that every try sends the same."""
    return replace(
        order,
        timestamp=transport.time.now() if order.timestamp is None else order.timestamp,
        idempotency_key=order.idempotency_key or uuid.uuid4().hex,
    )


def _line(order: NewOrder) -> Json:
    return {
        "account_id": order.account_id,
        **order.body(),
        "idempotency_key": order.idempotency_key,
    }


def _asked_pause(failure: OrdersError) -> float | None:
    return failure.retry_after_seconds if isinstance(failure, Problem) else None
