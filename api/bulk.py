"""Many orders in one request: each line is answered by itself, in the sequence of the lines.

Lines of one account are recorded in their sequence, as many to a transaction as it holds: together
they need a single update of the account's head, and one message finds all of them. What a line
was answered goes out as soon as all lines before it have their answer too. A process that dies in
between leaves lines that are recorded or are not, never half of one: with keys the whole request
may be sent again.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import count
from typing import Any, Final

from api import draining
from api.acceptance import (
    Intake,
    OrderRequest,
    Repeated,
    fingerprint,
    order_of,
    order_scope,
)
from api.problems import (
    Problem,
    account_not_found,
    document,
    internal_error,
    key_in_flight,
    unavailable,
)
from api.turns import Turns
from api.validation import BulkOrderBody, read_line
from shared.ids import OrderRef
from shared.logs import get_logger
from shared.order_store import reads
from shared.order_store.errors import StoreError
from shared.order_store.gateway import TRANSACTION_ACTIONS_MAX, Gateway
from shared.order_store.records import (
    AcceptedOrder,
    IdempotencyClaim,
    RecordedOrder,
    UnreadableOrder,
)
from shared.representation import show_accepted, to_json
from shared.task_queue import MESSAGE_ORDERS_MAX

Outcome = AcceptedOrder | Repeated | Exception
_Earlier = Mapping[OrderRef, RecordedOrder | UnreadableOrder | Problem]

TURN_SECONDS_MAX: Final = 1.0
"""How long a group lets others of its process go first that are at work on the same accounts."""

_LATE: Final = "The request took too long before this line was tried; send it again."

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Line:
    """A valid line: its place among the answers and what it asks for."""

    place: int
    body: BulkOrderBody
    claim: IdempotencyClaim | None


class BulkIntake:
    """Takes in orders by the hundred. Safe to share between threads."""

    def __init__(
        self,
        intake: Intake[OrderRequest, AcceptedOrder],
        gateway: Gateway,
        *,
        group_seconds: float,
        seconds_max: float,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Record through ``intake``.

        Args:
            intake: what records single orders too.
            gateway: where orders are that were recorded by an earlier request.
            group_seconds: limit of one transaction, all attempts together.
            seconds_max: lines that are not tried by then are refused.
            monotonic: the clock of both.
        """
        self._intake = intake
        self._gateway = gateway
        self._group_seconds = group_seconds
        self._seconds_max = seconds_max
        self._monotonic = monotonic
        self._turns = Turns()

    def answers(
        self,
        lines: Sequence[bytes],
        key: str | None,
        received_at: datetime,
        *,
        may_reach: Callable[[int], bool],
        made: list[str],
        origin: str = "",
    ) -> Iterator[bytes]:
        """Accept the orders that ``lines`` hold and answer each line, in their sequence.

        Args:
            lines: of a request, as they came; blank ones count, but are not answered.
            key: with ``/`` and its number, the key of each line that brings none of its own.
            received_at: when the request came.
            may_reach: tells whether the caller may act for an account.
            made: gets the ids of the orders that this call records.
            origin: names the request, for the logs.

        Returns:
            Lines of JSON, in pieces: nothing is tried before the first is asked for.
        """
        deadline = self._monotonic() + self._seconds_max
        answers = _Answers()
        valid = [
            line
            for number, text in enumerate(lines, start=1)
            if not text.isspace() and text
            if (line := _read(text, number, key, may_reach, answers)) is not None
        ]
        unannounced: list[AcceptedOrder] = []
        try:
            for group in _groups(valid):
                accounts = {line.body.account_id for line in group}
                with self._turns.taken(accounts, TURN_SECONDS_MAX):
                    outcomes = self._record(group, received_at, deadline, origin)
                recorded = [one for one in outcomes if isinstance(one, AcceptedOrder)]
                unannounced += recorded
                made += [one.order.id for one in recorded]
                answers.add(group, outcomes, self._earlier(group, outcomes))
                yield answers.ready()
                while len(unannounced) >= MESSAGE_ORDERS_MAX:
                    self._announce(unannounced)
        finally:
            # Also when the client has left: what was recorded is to be decided.
            while unannounced:
                self._announce(unannounced)
        yield answers.ready()

    def _record(
        self, group: Sequence[_Line], received_at: datetime, bulk_deadline: float, origin: str
    ) -> Sequence[Outcome]:
        now = self._monotonic()
        bulk_deadline = draining.in_time(bulk_deadline)
        if now >= bulk_deadline:
            return [unavailable(_LATE)] * len(group)
        deadline = min(now + self._group_seconds, bulk_deadline)
        requests = [
            OrderRequest(line.body.account_id, line.body, received_at, line.claim, deadline, origin)
            for line in group
        ]
        try:
            return self._intake.submit_group(requests)
        except Exception:  # the answer has begun: what is wrong with one group stays with it
            log.exception("bulk_group_failed", lines=len(group))
            return [internal_error()] * len(group)

    def _announce(self, unannounced: list[AcceptedOrder]) -> None:
        """Take the first orders off ``unannounced`` and tell the workers of them."""
        message = unannounced[:MESSAGE_ORDERS_MAX]
        del unannounced[:MESSAGE_ORDERS_MAX]
        self._intake.announce_recorded(message)

    def _earlier(self, group: Sequence[_Line], outcomes: Sequence[Outcome]) -> _Earlier:
        """What earlier requests with the same keys recorded, as far as it has to be looked up."""
        # Of several lines with one key all but the first are repetitions of the same order.
        refs = {
            (line.body.account_id, outcome.result)
            for line, outcome in zip(group, outcomes, strict=True)
            if isinstance(outcome, Repeated) and outcome.received_at is None
        }
        if not refs:
            return {}
        try:
            return dict(reads.load_for_settlement(self._gateway, (), refs).orders)
        except StoreError as error:
            log.warning("store_unavailable", error=str(error), repeated=len(refs))
            problem = unavailable("The order store does not answer; try again shortly.")
            return dict.fromkeys(refs, problem)


class _Answers:
    """The answers that wait for those of lines before them."""

    def __init__(self) -> None:
        self._numbers: list[int] = []
        self._shown: dict[int, dict[str, Any]] = {}
        self._next = 0

    def expect(self, number: int) -> int:
        """Keep a place for the answer to line ``number``."""
        self._numbers.append(number)
        return len(self._numbers) - 1

    def refuse(self, place: int, problem: Problem) -> None:
        self._shown[place] = {"status": problem.status, "problem": document(problem)}

    def add(self, group: Sequence[_Line], outcomes: Sequence[Outcome], earlier: _Earlier) -> None:
        for line, outcome in zip(group, outcomes, strict=True):
            if isinstance(outcome, AcceptedOrder):
                self._shown[line.place] = {"status": 202, "order": show_accepted(outcome.order)}
            elif isinstance(outcome, Repeated):
                self._repeat(line, outcome, earlier)
            else:
                known = outcome if isinstance(outcome, Problem) else internal_error()
                self.refuse(line.place, known)

    def ready(self) -> bytes:
        """The answers whose turn it is."""
        lines: list[bytes] = []
        for place in count(self._next):
            if place not in self._shown:
                self._next = place
                break
            lines.append(to_json({"line": self._numbers[place], **self._shown.pop(place)}))
        return b"".join(line + b"\n" for line in lines)

    def _repeat(self, line: _Line, repeated: Repeated, earlier: _Earlier) -> None:
        account_id, order_id = line.body.account_id, repeated.result
        found = earlier.get((account_id, order_id))
        if repeated.received_at is not None:
            order = order_of(line.body, account_id, order_id, repeated.received_at)
        elif isinstance(found, RecordedOrder):
            order = found.order
        elif isinstance(found, Problem):
            self.refuse(line.place, found)
            return
        else:
            # Not found: of the transaction that makes it, the key is to be seen and not the order.
            self.refuse(line.place, internal_error() if found else key_in_flight())
            return
        shown = show_accepted(order)
        self._shown[line.place] = {"status": 202, "replayed": True, "order": shown}


def _read(
    text: bytes,
    number: int,
    key: str | None,
    may_reach: Callable[[int], bool],
    answers: _Answers,
) -> _Line | None:
    """Read a line; one that is refused gets its answer."""
    place = answers.expect(number)
    try:
        body = read_line(text)
        if not may_reach(body.account_id):
            raise account_not_found(body.account_id)
    except Problem as problem:
        answers.refuse(place, problem)
        return None
    own = body.idempotency_key
    client_key = own if own is not None or key is None else f"{key}/{number}"
    if client_key is None:
        return _Line(place, body, None)
    claim = IdempotencyClaim(order_scope(body.account_id), client_key, fingerprint(body))
    return _Line(place, body, claim)


def _groups(lines: Sequence[_Line]) -> Iterator[list[_Line]]:
    """Cut ``lines`` into transactions, those of one account behind each other."""
    by_account: dict[int, list[_Line]] = {}
    for line in lines:
        by_account.setdefault(line.body.account_id, []).append(line)
    group: list[_Line] = []
    actions = 0
    for own in by_account.values():
        actions += 1  # the account's head
        for line in own:
            needed = 1 + (line.claim is not None)
            if actions + needed > TRANSACTION_ACTIONS_MAX:
                yield group
                group, actions = [], 1
            group.append(line)
            actions += needed
    if group:
        yield group
