"""The judge: whether what clients saw and what the table holds can both be true.

It reads a history of calls and a dump of the table and imports nothing of the project: rules and
sums are its own (``tests/chaos/books.py``). Each violation has a kind of its own.
"""

import heapq
import json
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import pairwise
from typing import Any

from tests.chaos import books
from tests.chaos.books import Finding, StateKey
from tests.chaos.history import ACCOUNT, LIST, OPEN, ORDER, PLACE, Call
from tests.chaos.table import AccountRow, OrderRow, Table

LOST = "lost"
CHANGED = "changed"
GHOST = "ghost"
TWICE = "twice"
UNDECIDED = "undecided"
NEVER_ANSWERED = "never_answered"
WRONG_ANSWER = "wrong_answer"
REPLAY_CHANGED = "replay_changed"
SHARED_ANSWER = "shared_answer"
WRONG_ACCOUNT = "wrong_account"
SEQUENCE_GAP = "sequence_gap"
OUT_OF_SEQUENCE = "out_of_sequence"
NOT_FOUND = "not_found"
WRONG_READ = "wrong_read"
STATUS_WENT_BACK = "status_went_back"
IMPOSSIBLE_ACCOUNT = "impossible_account"
ACCOUNT_WENT_BACK = "account_went_back"
WRONG_LIST = "wrong_list"

KINDS = {
    LOST: "accepted, but not in the table",
    CHANGED: "in the table with other content than was asked for",
    GHOST: "in the table, but nobody asked for it",
    TWICE: "asked for once, in the table more than once",
    UNDECIDED: "not decided in the end",
    NEVER_ANSWERED: "no definite answer in the end, though repeated under its key",
    WRONG_ANSWER: "an answer that the contract does not allow",
    REPLAY_CHANGED: "one key, two different answers",
    SHARED_ANSWER: "two requests were given one and the same order or account",
    books.UNAFFORDABLE: "executed without the cash or the shares for it",
    books.WRONG_DECISION: "rejected without reason, or executed against a rule",
    books.APPLIED_TWICE: "its effect on the balance was taken twice",
    books.WRONG_BALANCE: "the balance after it is not what the orders give",
    books.NEGATIVE: "cash or shares below zero",
    WRONG_ACCOUNT: "the account is not what its orders give",
    SEQUENCE_GAP: "sequence numbers are not 1 to n",
    OUT_OF_SEQUENCE: "decided before an order that was accepted earlier",
    NOT_FOUND: "accepted, and then answered with 404",
    WRONG_READ: "a final status was shown that is not the final one",
    STATUS_WENT_BACK: "shown pending after it was seen to be decided",
    IMPOSSIBLE_ACCOUNT: "an account was shown as it never was",
    ACCOUNT_WENT_BACK: "an account was shown as it was before a state already seen",
    WRONG_LIST: "a list that lacks an accepted order, or is not newest first",
}
"""Every kind of violation, and what it means."""

_FINAL = frozenset({"executed", "rejected", "failed"})
_MADE = {OPEN: 201, PLACE: 202}
_UNKNOWN = (None, 409, 503)
"""No answer, still on its way, not in time: it may be recorded or not."""
_READ_STATUSES = (200, 404, 503, None)

Content = tuple[int, str, str, int, Decimal, int]
"""Account, operation, issuer, shares, price, timestamp in microseconds."""


@dataclass(frozen=True, slots=True)
class Violation:
    """One broken promise."""

    kind: str
    detail: str


@dataclass(slots=True)
class Request:
    """What a client wanted with one POST, and all the calls that it took."""

    name: str
    op: str
    account: int | None
    key: str | None
    sent: str
    calls: list[Call] = field(default_factory=list)

    @property
    def answers(self) -> list[Call]:
        """The calls that were answered with success, in the sequence of their answers."""
        made = [call for call in self.calls if call.status == _MADE[self.op]]
        return sorted(made, key=lambda call: call.end)

    @property
    def first_start(self) -> float:
        return min(call.start for call in self.calls)

    @property
    def may_be_recorded(self) -> bool:
        """Whether a call's outcome is unknown and no other one tells it."""
        return not self.answers and any(call.status in _UNKNOWN for call in self.calls)


@dataclass(frozen=True, slots=True)
class Accepted:
    """An order that a client was promised: when it was first asked for, and first answered."""

    request: Request
    asked_at: float
    answered_at: float
    content: Content


@dataclass(frozen=True, slots=True)
class Read:
    """One look at one order."""

    start: float
    end: float
    status: str
    shown: str


def check(calls: Iterable[Call], table: Table) -> list[Violation]:
    """Every violation that a history and the table at its end give away."""
    return [Violation(kind, detail) for kind, detail in _Check(calls, table).run()]


class _Check:
    def __init__(self, calls: Iterable[Call], table: Table) -> None:
        self.table = table
        self.posts: dict[str, Request] = {}
        self.lookups: list[Call] = []
        for call in calls:
            self._sort(call)
        self.rows = {row.id: row for row in table.orders}
        self.by_account: dict[int, list[OrderRow]] = defaultdict(list)
        for row in table.orders:
            self.by_account[row.account].append(row)
        self.accepted: dict[str, Accepted] = {}
        self.openings: dict[int, Decimal] = {}
        self.states: dict[int, list[StateKey]] = {}
        self.reads: dict[str, list[Read]] = defaultdict(list)
        self.account_reads: dict[int, list[Call]] = defaultdict(list)
        self.makers: dict[tuple[str, Any], Request] = {}

    def run(self) -> Iterator[Finding]:
        """All checks; the later ones use what the earlier ones gathered."""
        yield from self._answers()
        yield from self._nothing_lost()
        yield from self._nothing_invented()
        yield from self._everything_decided()
        yield from self._sequences()
        yield from self._accounts()
        yield from self._lookups()
        yield from self._order_reads()
        yield from self._reads_in_time()

    def _sort(self, call: Call) -> None:
        if call.op not in _MADE:
            self.lookups.append(call)
            return
        known = self.posts.setdefault(
            call.request, Request(call.request, call.op, call.account, call.key, call.sent or "")
        )
        known.calls.append(call)

    # Answers to POSTs

    def _answers(self) -> Iterator[Finding]:
        for request in self.posts.values():
            for call in request.calls:
                if call.status not in (*_UNKNOWN, _MADE[request.op]):
                    yield WRONG_ANSWER, f"{request.name}: {call.status} {call.body}"
            if request.key and request.may_be_recorded:
                yield NEVER_ANSWERED, f"{request.name} on account {request.account}"
            yield from self._replays(request)
            yield from self._note(request)

    def _replays(self, request: Request) -> Iterator[Finding]:
        answers = request.answers
        for call in answers[1:]:
            if call.body != answers[0].body:
                yield REPLAY_CHANGED, f"{request.name}: {answers[0].body} and then {call.body}"
            elif call.start > answers[0].end and not call.replayed:
                yield REPLAY_CHANGED, f"{request.name}: repeated, but not marked as replayed"

    def _note(self, request: Request) -> Iterator[Finding]:
        """Keep what was promised; no two requests may have been promised the same thing."""
        for answer in request.answers:
            made = _read_json(answer.body)
            named = (request.op, made["id"])
            if self.makers.setdefault(named, request) is not request:
                other = self.makers[named].name
                yield SHARED_ANSWER, f"{request.name} and {other} were both given {made['id']}"
            elif request.op == OPEN:
                self.openings[made["id"]] = Decimal(str(_read_json(request.sent)["cash"]))
            else:
                if _content_shown(made) != _content(request):
                    yield WRONG_ANSWER, f"{request.name} asked for another order than {answer.body}"
                self.accepted.setdefault(
                    made["id"],
                    Accepted(request, request.first_start, answer.end, _content(request)),
                )

    # The table against what was asked for

    def _nothing_lost(self) -> Iterator[Finding]:
        for order, accepted in self.accepted.items():
            row = self.rows.get(order)
            if row is None:
                yield LOST, f"order {order} of {accepted.request.name} was accepted"
            elif _content_of(row) != accepted.content:
                yield CHANGED, f"order {order}: {_content_of(row)}, asked for {accepted.content}"
        for account in self.openings:
            if account not in self.table.accounts:
                yield LOST, f"account {account} was opened"

    def _nothing_invented(self) -> Iterator[Finding]:
        asked: dict[Content, list[Request]] = defaultdict(list)
        for request in self.posts.values():
            if request.op == PLACE:
                asked[_content(request)].append(request)
        unclaimed = Counter(
            _content_of(row) for row in self.table.orders if row.id not in self.accepted
        )
        for content, orders in unclaimed.items():
            possible = sum(request.may_be_recorded for request in asked[content])
            if not asked[content]:
                yield GHOST, f"{orders} of {content}"
            elif orders > possible:
                yield TWICE, f"{content}: {orders - possible} more than asked for"
        for account in self.table.accounts:
            if account not in self.openings:
                yield GHOST, f"account {account}"

    def _everything_decided(self) -> Iterator[Finding]:
        for row in self.table.orders:
            if row.status not in _FINAL:
                yield UNDECIDED, f"order {row.id} of account {row.account} is {row.status}"

    # Sequence and balance of each account

    def _sequences(self) -> Iterator[Finding]:
        for account, rows in self.by_account.items():
            decided = _in_sequence(rows)
            numbers = [row.sequence for row in decided]
            if numbers != list(range(1, len(decided) + 1)):
                yield SEQUENCE_GAP, f"account {account}: {_first_gap(numbers)}"
            for earlier, later in pairwise(decided):
                if earlier.id >= later.id:
                    yield OUT_OF_SEQUENCE, f"account {account}: {earlier.id} before {later.id}"
            yield from self._real_time(account, decided)

    def _real_time(self, account: int, decided: Sequence[OrderRow]) -> Iterator[Finding]:
        """What was answered before another was asked for has to be decided before it."""
        first_answer, by = float("inf"), ""
        for row in reversed(decided):
            accepted = self.accepted.get(row.id)
            if accepted is None:
                continue
            if first_answer < accepted.asked_at:
                yield (
                    OUT_OF_SEQUENCE,
                    f"account {account}: {by} was accepted before {row.id} was sent",
                )
            if accepted.answered_at < first_answer:
                first_answer, by = accepted.answered_at, row.id

    def _accounts(self) -> Iterator[Finding]:
        for account in self.table.accounts.values():
            cash = self.openings.get(account.id)
            if cash is None:
                continue
            rows = _in_sequence(self.by_account[account.id])
            states, findings = books.replay(cash, account.opened_at, rows)
            self.states[account.id] = states
            yield from findings
            yield from self._end_of(account, states[-1], len(rows))

    def _end_of(self, account: AccountRow, state: StateKey, decided: int) -> Iterator[Finding]:
        told = books.state_key(account.cash, account.positions)
        if told != state:
            yield WRONG_ACCOUNT, f"account {account.id} holds {told}, its orders give {state}"
        if account.decided != decided:
            yield WRONG_ACCOUNT, f"account {account.id} counts {account.decided}, not {decided}"
        if account.cash < 0 or any(shares < 0 for shares, _ in account.positions.values()):
            yield books.NEGATIVE, f"account {account.id} holds {told}"
        # One that was parked without a place in the sequence is taken out of the count.
        orders = sum(
            row.sequence is not None or row.status != "failed"
            for row in self.by_account[account.id]
        )
        if self.table.accepted.get(account.id) != orders:
            yield (
                WRONG_ACCOUNT,
                f"account {account.id} accepted {self.table.accepted.get(account.id)} by its"
                f" count, {orders} by its orders",
            )

    # Reads

    def _lookups(self) -> Iterator[Finding]:
        ids = {account: sorted(row.id for row in rows) for account, rows in self.by_account.items()}
        for call in self.lookups:
            if call.status not in _READ_STATUSES:
                yield WRONG_ANSWER, f"{call.op} {call.account} {call.order}: {call.status}"
            elif call.status == 404:
                yield from self._missing(call)
            elif call.status == 200:
                yield from self._take_in(call, ids)

    def _missing(self, call: Call) -> Iterator[Finding]:
        accepted = self.accepted.get(call.order or "")
        if call.op != ORDER or (accepted is not None and accepted.answered_at < call.start):
            yield NOT_FOUND, f"{call.op} of account {call.account}, order {call.order}"

    def _take_in(self, call: Call, ids: dict[int, list[str]]) -> Iterator[Finding]:
        shown = _read_json(call.body)
        if call.op == ACCOUNT and call.account is not None:
            self.account_reads[call.account].append(call)
        elif call.op == ORDER:
            self._note_read(call, shown)
        elif call.op == LIST:
            for order in shown["orders"]:
                self._note_read(call, order)
            yield from self._list(call, shown, ids.get(call.account or 0, []))

    def _note_read(self, call: Call, shown: dict[str, Any]) -> None:
        text = json.dumps(shown, sort_keys=True, default=str)
        self.reads[shown["id"]].append(Read(call.start, call.end, shown["status"], text))

    def _list(self, call: Call, shown: dict[str, Any], ids: Sequence[str]) -> Iterator[Finding]:
        listed = [order["id"] for order in shown["orders"]]
        if listed != sorted(set(listed), reverse=True):
            yield WRONG_LIST, f"account {call.account}: not newest first: {listed}"
        is_cut = shown["next_cursor"] is not None and listed
        first = bisect_left(ids, listed[-1]) if is_cut else 0
        last = bisect_left(ids, call.before) if call.before else len(ids)
        there = set(listed)
        for order in ids[first:last]:
            accepted = self.accepted.get(order)
            if order not in there and accepted and accepted.answered_at < call.start:
                yield WRONG_LIST, f"account {call.account}: {order} is missing"

    def _order_reads(self) -> Iterator[Finding]:
        for order, reads in self.reads.items():
            row = self.rows.get(order)
            if row is None:
                yield GHOST, f"order {order} was shown, but is not in the table"
                continue
            finals = {read.shown for read in reads if read.status in _FINAL}
            if len(finals) > 1:
                yield WRONG_READ, f"order {order} was shown as {sorted(finals)}"
            for shown in finals:
                yield from _compare(row, json.loads(shown, parse_float=Decimal))

    def _reads_in_time(self) -> Iterator[Finding]:
        for account, states in self.states.items():
            yield from self._follow(account, states)

    def _follow(self, account: int, states: Sequence[StateKey]) -> Iterator[Finding]:
        """Go through the reads of one account in time: how far its decisions were seen to be.

        ``seen`` is the least number of decisions that everybody has to see who asks from now on.
        """
        places: dict[StateKey, list[int]] = defaultdict(list)
        for place, state in enumerate(states):
            places[state].append(place)
        pending: list[tuple[float, float, Any]] = []
        ended: list[tuple[float, int]] = []
        for row in self.by_account[account]:
            for read in self.reads.get(row.id, ()):
                if read.status not in _FINAL:
                    pending.append((read.start, read.end, row))
                elif row.sequence is not None:
                    ended.append((read.end, row.sequence))
        looks = [(call.start, call.end, call) for call in self.account_reads[account]]
        heapq.heapify(ended)
        seen = 0
        for start, end, what in sorted([*pending, *looks], key=lambda one: one[:2]):
            while ended and ended[0][0] < start:
                seen = max(seen, heapq.heappop(ended)[1])
            if isinstance(what, OrderRow):
                if what.sequence is not None and what.sequence <= seen:
                    yield STATUS_WENT_BACK, f"order {what.id} of account {account}: pending"
                continue
            found = places.get(_shown_state(what), [])
            place = bisect_left(found, seen)
            if not found:
                yield IMPOSSIBLE_ACCOUNT, f"account {account}: {what.body}"
            elif place == len(found):
                yield ACCOUNT_WENT_BACK, f"account {account}: {what.body} after {seen} decisions"
            else:
                heapq.heappush(ended, (end, found[place]))


def _read_json(text: str | None) -> Any:
    return json.loads(text or "null", parse_float=Decimal)


def _content(request: Request) -> Content:
    asked = _read_json(request.sent)
    return (
        request.account or 0,
        asked["operation"],
        asked["issuer_name"],
        asked["total_shares"],
        Decimal(str(asked["share_price"])),
        int(Decimal(str(asked["timestamp"])) * 1_000_000),
    )


def _content_shown(made: dict[str, Any]) -> Content:
    """What the answer to a POST says that was asked for."""
    return (
        made["account_id"],
        made["operation"],
        made["issuer_name"],
        made["total_shares"],
        Decimal(made["share_price"]),
        round(Decimal(str(made["timestamp"])) * 1_000_000),
    )


def _content_of(row: OrderRow) -> Content:
    at = books.microseconds(row.timestamp)
    return row.account, row.operation, row.issuer_name, row.total_shares, row.share_price, at


def _in_sequence(rows: Iterable[OrderRow]) -> list[OrderRow]:
    return sorted(
        (row for row in rows if row.sequence is not None), key=lambda row: row.sequence or 0
    )


def _first_gap(numbers: Sequence[int | None]) -> str:
    for wanted, number in enumerate(numbers, start=1):
        if number != wanted:
            return f"{number} stands where {wanted} should be"
    return "none"


def _compare(row: OrderRow, shown: dict[str, Any]) -> Iterator[Finding]:
    """A final status that was shown, against the order in the table."""
    told = (shown["status"], tuple(shown["business_errors"]))
    if told != (row.status, row.errors):
        yield WRONG_READ, f"order {row.id} was shown {told}, is {(row.status, row.errors)}"
        return
    balance = shown["current_balance"]
    if balance is None or row.balance is None:
        return
    if _state_of(balance) != books.state_key(row.balance.cash, row.balance.positions):
        yield WRONG_READ, f"order {row.id} was shown with {balance}, has {row.balance}"


def _shown_state(call: Call) -> StateKey:
    return _state_of(_read_json(call.body))


def _state_of(shown: dict[str, Any]) -> StateKey:
    return books.state_key(
        Decimal(shown["cash"]),
        {
            held["issuer_name"]: (held["total_shares"], Decimal(held["share_price"]))
            for held in shown["issuers"]
        },
    )
