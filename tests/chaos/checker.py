"""The judge: whether what clients saw and what the table holds can both be true.

It reads a history of calls and a dump of the table and imports nothing of the project: rules and
sums are its own (``tests/chaos/books.py``). Each violation has a kind of its own.
"""

import heapq
import json
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import pairwise
from typing import Any

from tests.chaos import books
from tests.chaos.books import Finding, StateKey
from tests.chaos.history import (
    ACCOUNT,
    BULK,
    CANCEL,
    DAMAGE,
    EVENT,
    LIST,
    OPEN,
    ORDER,
    PLACE,
    REPLAY,
    REUSE,
    STRANGE,
    Call,
)
from tests.chaos.posts import (
    MADE,
    Accepted,
    Content,
    Request,
    code_of,
    content_asked,
    content_of,
    content_shown,
    each_post,
    is_indefinite,
    out_of_line,
    read_json,
    wrong_opening,
    wrong_pledge,
    wrong_shape,
)
from tests.chaos.table import AccountRow, OrderRow, Table
from tests.chaos.turns import in_order_of_ids, turns_of, wrong_events

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
WRONG_CANCEL = "wrong_cancel"
STILL_INDEXED = "still_indexed"
WRONG_EVENT = "wrong_event"
LEAKED = "leaked"

KINDS = {
    LOST: "accepted, but not in the table",
    CHANGED: "in the table with other content than was asked for",
    GHOST: "in the table, but nobody asked for it",
    TWICE: "asked for once, in the table more than once",
    UNDECIDED: "not decided in the end, or parked though it was hardly tried",
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
    WRONG_READ: "an order was shown with what it does not have, or as it never was",
    STATUS_WENT_BACK: "shown pending or failed after it was seen to be decided",
    IMPOSSIBLE_ACCOUNT: "an account was shown as it never was",
    ACCOUNT_WENT_BACK: "an account was shown as it was before a state already seen",
    WRONG_LIST: "a list that lacks an order, holds another status or too many, or is in disorder",
    WRONG_CANCEL: "a cancellation that did not hold, or that nobody asked for",
    STILL_INDEXED: "decided, and still in the index of undecided orders",
    WRONG_EVENT: "a stream of events that lacks a decision, repeats one or mixes them up",
    LEAKED: "an order was shown under an account that it is not of",
}
"""Every kind of violation, and what it means."""

ATTEMPTS_MIN = 5
"""Counted attempts at an order that is not damaged, before it may be parked."""

_FINAL = frozenset({"executed", "rejected", "cancelled"})
_FAILED = "failed"
_HELD = 304
_SHOWN_OF_DAMAGED = {"id", "account_id", "status", "failure"}
_HAS_TO_FAIL = {REUSE: (422, "IDEMPOTENCY_KEY_REUSED"), STRANGE: (404, "ORDER_NOT_FOUND")}
_READ_STATUSES = (200, _HELD, 404, 503, None)


@dataclass(frozen=True, slots=True)
class Violation:
    """One broken promise."""

    kind: str
    detail: str


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
        self.bulks: list[Call] = []
        self.lookups: list[Call] = []
        self.damaged: set[str] = set()
        self.replays_asked: set[str] = set()
        for call in calls:
            self._sort(call)
        self.rows = {row.id: row for row in table.orders}
        self.by_account: dict[int, list[OrderRow]] = defaultdict(list)
        for row in table.orders:
            self.by_account[row.account].append(row)
        self.turns = {account: turns_of(rows) for account, rows in self.by_account.items()}
        self.accepted: dict[str, Accepted] = {}
        self.openings: dict[int, Decimal] = {}
        self.states: dict[int, list[StateKey]] = {}
        self.reads: dict[str, list[Read]] = defaultdict(list)
        self.account_reads: dict[int, list[Call]] = defaultdict(list)
        self.refused_cancels: dict[str, list[Call]] = defaultdict(list)
        self.cancels_asked: set[str] = set()
        self.filtered: list[tuple[Call, list[str], list[str]]] = []
        self.streams: dict[str, list[Call]] = defaultdict(list)
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
        yield from self._cancels()
        yield from self._filtered_lists()
        yield from self._streams()
        yield from self._reads_in_time()

    def _sort(self, call: Call) -> None:
        if call.op in (DAMAGE, REPLAY):
            (self.damaged if call.op == DAMAGE else self.replays_asked).add(call.order or "")
        elif call.op == BULK:
            self.bulks.append(call)
        elif call.op not in MADE:
            self.lookups.append(call)
        for post in each_post(call):
            known = self.posts.setdefault(
                post.request,
                Request(post.request, post.op, post.account, post.key, post.sent or ""),
            )
            known.calls.append(post)

    # Answers to POSTs

    def _answers(self) -> Iterator[Finding]:
        for call in self.bulks:
            yield from ((WRONG_ANSWER, what) for what in wrong_shape(call))
            yield from ((OUT_OF_SEQUENCE, what) for what in out_of_line(call))
        for request in self.posts.values():
            for call in request.calls:
                is_answer = request.is_made(call) or is_indefinite(call)
                if not is_answer and not self._is_of_damaged(request, call):
                    yield WRONG_ANSWER, f"{request.name}: {call.status} {call.body}"
            if request.key and request.is_open:
                yield NEVER_ANSWERED, f"{request.name} on account {request.account}"
            yield from self._replays(request)
            yield from self._note(request)

    def _is_of_damaged(self, request: Request, call: Call) -> bool:
        """Whether the answer is 500 because the order that it repeats was damaged by hand."""
        if call.status != 500 or not self.damaged:
            return False
        rows = [self.rows[order] for order in self.damaged if order in self.rows]
        return content_asked(request) in map(content_of, rows)

    def _replays(self, request: Request) -> Iterator[Finding]:
        answers = request.answers
        pledges = [call for call in answers if not request.is_waited_for(call)]
        for call in answers[1:]:
            is_other = read_json(call.body)["id"] != read_json(answers[0].body)["id"]
            if is_other or (call in pledges and call.body != pledges[0].body):
                yield REPLAY_CHANGED, f"{request.name}: {answers[0].body} and then {call.body}"
            elif call.start > answers[0].end and not call.replayed:
                yield REPLAY_CHANGED, f"{request.name}: repeated, but not marked as replayed"

    def _note(self, request: Request) -> Iterator[Finding]:
        """Keep what was promised; no two requests may have been promised the same thing."""
        for answer in request.answers:
            made = read_json(answer.body)
            named = (request.op, made["id"])
            if self.makers.setdefault(named, request) is not request:
                other = self.makers[named].name
                yield SHARED_ANSWER, f"{request.name} and {other} were both given {made['id']}"
            elif request.op == OPEN:
                cash = self.openings[made["id"]] = Decimal(str(read_json(request.sent)["cash"]))
                if wrong_opening(made, cash):
                    yield WRONG_ANSWER, f"{request.name} with {cash} was opened as {answer.body}"
            else:
                yield from self._note_order(request, answer, made)

    def _note_order(
        self, request: Request, answer: Call, made: dict[str, Any]
    ) -> Iterator[Finding]:
        wanted = content_asked(request)
        is_whole = not self._is_damaged(made)
        if is_whole and content_shown(made) != wanted:
            yield WRONG_ANSWER, f"{request.name} asked for another order than {answer.body}"
        if request.is_waited_for(answer):
            if made["status"] not in {*_FINAL, _FAILED}:
                yield WRONG_ANSWER, f"{request.name}: waited for, and {made['status']}"
            self._note_read(answer, made)
        elif wrong_pledge(made):
            yield WRONG_ANSWER, f"{request.name} was accepted as {answer.body}"
        self.accepted.setdefault(
            made["id"],
            Accepted(request, request.first_start, answer.end, wanted, made.get("received_at")),
        )

    # The table against what was asked for

    def _nothing_lost(self) -> Iterator[Finding]:
        for order, accepted in self.accepted.items():
            row = self.rows.get(order)
            if row is None:
                yield LOST, f"order {order} of {accepted.request.name} was accepted"
            elif content_of(row) != accepted.content:
                yield CHANGED, f"order {order}: {content_of(row)}, asked for {accepted.content}"
            elif accepted.received_at and not _is_same_moment(
                accepted.received_at, row.received_at
            ):
                yield CHANGED, f"order {order}: received {row.received_at}, told {accepted}"
        for account in self.openings:
            if account not in self.table.accounts:
                yield LOST, f"account {account} was opened"

    def _nothing_invented(self) -> Iterator[Finding]:
        asked: dict[Content, list[Request]] = defaultdict(list)
        for request in self.posts.values():
            if request.op == PLACE:
                asked[content_asked(request)].append(request)
        unclaimed = Counter(
            content_of(row) for row in self.table.orders if row.id not in self.accepted
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
            if row.status not in {*_FINAL, _FAILED}:
                yield UNDECIDED, f"order {row.id} of account {row.account} is {row.status}"
            elif row.status == _FAILED:
                if row.attempts < ATTEMPTS_MIN and row.id not in self.damaged:
                    yield UNDECIDED, f"order {row.id} was parked after {row.attempts} attempts"
            elif row.is_indexed:
                yield STILL_INDEXED, f"order {row.id} of account {row.account}, {row.status}"

    # Sequence and balance of each account

    def _sequences(self) -> Iterator[Finding]:
        for account, turns in self.turns.items():
            numbers = [turn.number for turn in turns]
            if numbers != list(range(1, len(turns) + 1)):
                yield SEQUENCE_GAP, f"account {account}: {_first_gap(numbers)}"
            decided = in_order_of_ids(turns)
            for earlier, later in pairwise(decided):
                if earlier.id >= later.id:
                    yield OUT_OF_SEQUENCE, f"account {account}: {earlier.id} before {later.id}"
            yield from self._real_time(account, decided)
        for row in self.table.orders:
            if row.sequence is None and row.status in _FINAL and not row.failure:
                yield SEQUENCE_GAP, f"order {row.id} is {row.status} without a place"

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
            turns = self.turns.get(account.id, [])
            rows = [None if turn.is_taken_back else turn.row for turn in turns]
            states, findings = books.replay(cash, account.opened_at, rows)
            self.states[account.id] = states
            yield from findings
            yield from self._end_of(account, states[-1], len(turns))

    def _end_of(self, account: AccountRow, state: StateKey, decided: int) -> Iterator[Finding]:
        told = books.state_key(account.cash, account.positions)
        if told != state:
            yield WRONG_ACCOUNT, f"account {account.id} holds {told}, its orders give {state}"
        if account.decided != decided:
            yield WRONG_ACCOUNT, f"account {account.id} counts {account.decided}, not {decided}"
        if account.cash < 0 or any(shares < 0 for shares, _ in account.positions.values()):
            yield books.NEGATIVE, f"account {account.id} holds {told}"
        # One that was parked without a place in the sequence is taken out of the count.
        waiting = sum(row.status == "pending" for row in self.by_account[account.id])
        if self.table.accepted.get(account.id) != decided + waiting:
            yield (
                WRONG_ACCOUNT,
                f"account {account.id} accepted {self.table.accepted.get(account.id)} by its"
                f" count, {decided + waiting} by its orders",
            )

    # Reads

    def _lookups(self) -> Iterator[Finding]:
        ids = {account: sorted(row.id for row in rows) for account, rows in self.by_account.items()}
        for call in self.lookups:
            if call.op in (CANCEL, REUSE, STRANGE):
                yield from self._take_other(call)
            elif call.status not in _READ_STATUSES or (call.status == _HELD and not call.body):
                yield WRONG_ANSWER, f"{call.op} {call.account} {call.order}: {call.status}"
            elif call.status == 404:
                yield from self._missing(call)
            elif call.status in (200, _HELD):
                yield from self._take_in(call, ids)

    def _take_other(self, call: Call) -> Iterator[Finding]:
        """What is no read: a cancellation, and requests that have to fail."""
        code = code_of(call)
        named = f"{call.op} {call.account} {call.order or call.request}: {call.status} {call.body}"
        if call.op == STRANGE and call.status == 200:
            yield LEAKED, named
        elif call.op == CANCEL and call.status != 404:
            yield from self._cancel(call, code, named)
        elif call.op == CANCEL:
            yield from self._missing(call)
        elif (call.status, code) != _HAS_TO_FAIL[call.op] and not is_indefinite(call):
            yield WRONG_ANSWER, named

    def _cancel(self, call: Call, code: str | None, named: str) -> Iterator[Finding]:
        self.cancels_asked.add(call.order or "")
        if call.status == 409 and code == "ORDER_DECIDED":
            self.refused_cancels[call.order or ""].append(call)
        elif call.status == 200:
            shown = read_json(call.body)
            if (shown["id"], shown["status"]) != (call.order, "cancelled"):
                yield WRONG_CANCEL, named
            self._note_read(call, shown)
        elif not is_indefinite(call):
            yield WRONG_ANSWER, named

    def _missing(self, call: Call) -> Iterator[Finding]:
        accepted = self.accepted.get(call.order or "")
        if call.op not in (ORDER, CANCEL) or (
            accepted is not None and accepted.answered_at < call.start
        ):
            yield NOT_FOUND, f"{call.op} of account {call.account}, order {call.order}"

    def _take_in(self, call: Call, ids: dict[int, list[str]]) -> Iterator[Finding]:
        if call.op == EVENT:
            yield from self._event(call)
            return
        shown = read_json(call.body)
        asked_for = call.order if call.op == ORDER else call.account
        if call.op != LIST and shown["id"] != asked_for:
            yield WRONG_READ, f"{call.op} {asked_for} was answered with {shown}"
        if call.op == ACCOUNT and call.account is not None:
            self.account_reads[call.account].append(call)
        elif call.op == ORDER:
            self._note_read(call, shown)
        elif call.op == LIST:
            for order in shown["orders"]:
                yield from self._note_own(call, order)
            yield from self._list(call, shown, ids.get(call.account or 0, []))

    def _event(self, call: Call) -> Iterator[Finding]:
        self.streams[call.request].append(call)
        if call.order is not None:
            yield from self._note_own(call, read_json(call.body))

    def _note_own(self, call: Call, shown: dict[str, Any]) -> Iterator[Finding]:
        """Note what was shown under an account: its own orders alone may be."""
        if shown["account_id"] != call.account:
            yield LEAKED, f"{call.op} of account {call.account}: {shown}"
        self._note_read(call, shown)

    def _note_read(self, call: Call, shown: dict[str, Any]) -> None:
        text = json.dumps(shown, sort_keys=True, default=str)
        self.reads[shown["id"]].append(Read(call.start, call.end, shown["status"], text))

    def _list(self, call: Call, shown: dict[str, Any], ids: Sequence[str]) -> Iterator[Finding]:
        listed = [order["id"] for order in shown["orders"]]
        if listed != sorted(set(listed), reverse=True):
            yield WRONG_LIST, f"account {call.account}: not newest first: {listed}"
        if call.limit is not None and len(listed) > call.limit:
            yield WRONG_LIST, f"account {call.account}: {len(listed)} orders, not {call.limit}"
        is_more = shown["next_cursor"] is not None
        first = bisect_left(ids, listed[-1]) if is_more and listed else 0
        last = bisect_left(ids, call.before) if call.before else len(ids)
        asked = set((call.statuses or "").split(",")) - {""}
        strangers = [one["id"] for one in shown["orders"] if asked and one["status"] not in asked]
        if strangers:
            yield WRONG_LIST, f"account {call.account}: {strangers} are not {call.statuses}"
        there = set(listed)
        left_out = [order for order in ids[first:last] if order not in there]
        if asked:
            # Of an empty page that is not the last it is not known how far it looked.
            if listed or not is_more:
                self.filtered.append((call, left_out, sorted(asked)))
            return
        for order in left_out:
            accepted = self.accepted.get(order)
            if accepted and accepted.answered_at < call.start:
                yield WRONG_LIST, f"account {call.account}: {order} is missing"

    def _filtered_lists(self) -> Iterator[Finding]:
        """Whether orders are left out that were seen before to be what was asked for."""
        seen_at = {
            order: min(ends)
            for order, reads in self.reads.items()
            if (ends := [read.end for read in reads if read.status in _FINAL])
        }
        for call, left_out, asked in self.filtered:
            for order in left_out:
                if self.rows[order].status in asked and seen_at.get(order, call.end) < call.start:
                    yield WRONG_LIST, f"account {call.account}: {order} is missing among {asked}"

    def _cancels(self) -> Iterator[Finding]:
        for row in self.table.orders:
            if row.parkings and row.id not in self.replays_asked:
                yield STATUS_WENT_BACK, f"order {row.id}: parked, and replayed by nobody"
            is_cancelled = row.status == "cancelled"
            if is_cancelled and row.id not in self.cancels_asked:
                yield WRONG_CANCEL, f"order {row.id}: nobody cancelled it"
            if is_cancelled and self.refused_cancels.get(row.id) and not row.failure:
                yield WRONG_CANCEL, f"order {row.id}: refused as decided, and then cancelled"
            told = {read.status for read in self.reads.get(row.id, ())}
            if not is_cancelled and "cancelled" in told:
                yield WRONG_CANCEL, f"order {row.id}: said to be cancelled, is {row.status}"

    def _streams(self) -> Iterator[Finding]:
        for events in self.streams.values():
            turns = self.turns.get(events[0].account or 0, [])
            yield from ((WRONG_EVENT, what) for what in wrong_events(events, turns))

    def _order_reads(self) -> Iterator[Finding]:
        for order, reads in self.reads.items():
            row = self.rows.get(order)
            if row is None:
                yield GHOST, f"order {order} was shown, but is not in the table"
                continue
            for shown in {read.shown for read in reads}:
                yield from self._compare_content(row, read_json(shown))
            finals = {
                read.shown
                for read in reads
                if read.status in _FINAL and not self._is_damaged(read_json(read.shown))
            }
            if len(finals) > 1:
                yield WRONG_READ, f"order {order} was shown as {sorted(finals)}"
            for shown in finals:
                yield from _compare(row, read_json(shown))
            if any(read.status == _FAILED for read in reads) and not _was_parked(row):
                yield WRONG_READ, f"order {order} was shown failed, and never was"
            yield from _failed_again(order, reads)

    def _is_damaged(self, shown: dict[str, Any]) -> bool:
        """Of an order whose item is damaged little is shown; only some were, by hand."""
        return shown.keys() == _SHOWN_OF_DAMAGED and shown["id"] in self.damaged

    def _compare_content(self, row: OrderRow, shown: dict[str, Any]) -> Iterator[Finding]:
        """What was shown of an order, whatever its status, against the order in the table."""
        if self._is_damaged(shown):
            return
        if (
            shown.keys() == _SHOWN_OF_DAMAGED
            or content_shown(shown) != content_of(row)
            or not _is_same_moment(shown["received_at"], row.received_at)
        ):
            yield WRONG_READ, f"order {row.id} was shown as {shown}, is {row}"
        elif shown["status"] not in _FINAL and not self._may_be_undecided(row, shown):
            yield WRONG_READ, f"order {row.id}, not decided for good, was shown as {shown}"

    def _may_be_undecided(self, row: OrderRow, shown: dict[str, Any]) -> bool:
        """Whether a pending order says nothing of a decision, a parked one only its balance."""
        if shown["status"] != _FAILED:
            return not wrong_pledge(shown)
        return not shown["business_errors"] and self._is_of_a_parking(row, shown["current_balance"])

    def _is_of_a_parking(self, row: OrderRow, balance: dict[str, Any] | None) -> bool:
        """Whether this is what a parking of the order left; the row tells only the last one's."""
        states = self.states.get(row.account)
        if balance is None or states is None:
            return True
        left = {states[number] for number in row.parkings if number and number < len(states)}
        if row.balance is not None and _is_decided_by_parking(row):
            left.add(books.state_key(row.balance.cash, row.balance.positions))
        return _state_of(balance) in left

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
        undecided: list[tuple[float, float, Any]] = []
        ended: list[tuple[float, int]] = []
        for row in self.by_account[account]:
            for read in self.reads.get(row.id, ()):
                if _is_before_decision(read, row):
                    undecided.append((read.start, read.end, row))
                elif row.sequence is not None and read.status == row.status:
                    ended.append((read.end, row.sequence))
            # Who is refused a cancellation was told that the order is decided.
            if row.sequence is not None and not row.parkings:
                refused = self.refused_cancels.get(row.id, ())
                ended += [(call.end, row.sequence) for call in refused]
        looks = [(call.start, call.end, call) for call in self.account_reads[account]]
        heapq.heapify(ended)
        seen = 0
        for start, end, what in sorted([*undecided, *looks], key=lambda one: one[:2]):
            while ended and ended[0][0] < start:
                seen = max(seen, heapq.heappop(ended)[1])
            if isinstance(what, OrderRow):
                if what.sequence is not None and what.sequence <= seen:
                    yield STATUS_WENT_BACK, f"order {what.id} of account {account}: undecided"
                continue
            found = places.get(_shown_state(what), [])
            place = bisect_left(found, seen)
            if not found:
                yield IMPOSSIBLE_ACCOUNT, f"account {account}: {what.body}"
            elif place == len(found):
                yield ACCOUNT_WENT_BACK, f"account {account}: {what.body} after {seen} decisions"
            else:
                heapq.heappush(ended, (end, found[place]))


def _is_same_moment(told: str | None, recorded: str | None) -> bool:
    if told is None or recorded is None:
        return told is recorded
    return books.microseconds(told) == books.microseconds(recorded)


def _is_decided_by_parking(row: OrderRow) -> bool:
    """Whether the place and the balance of the order are those of a parking."""
    return row.status == _FAILED or row.failure is not None


def _was_parked(row: OrderRow) -> bool:
    return _is_decided_by_parking(row) or bool(row.parkings)


def _is_before_decision(read: Read, row: OrderRow) -> bool:
    """Whether the order was shown as it is before the decision that the table holds."""
    if read.status == _FAILED:
        return not _is_decided_by_parking(row)
    return read.status not in _FINAL


def _failed_again(order: str, reads: Sequence[Read]) -> Iterator[Finding]:
    """What was seen to be final once is parked no more, whatever the table holds."""
    final_at = min((read.end for read in reads if read.status in _FINAL), default=float("inf"))
    if any(read.status == _FAILED and read.start > final_at for read in reads):
        yield STATUS_WENT_BACK, f"order {order}: failed after it was final"


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
    if not _is_same_moment(shown["decided_at"], row.decided_at):
        yield WRONG_READ, f"order {row.id} was shown decided at {shown['decided_at']}, is {row}"
    balance = shown["current_balance"]
    if balance is None and row.balance is None:
        return
    held = row.balance and books.state_key(row.balance.cash, row.balance.positions)
    if balance is None or held != _state_of(balance):
        yield WRONG_READ, f"order {row.id} was shown with {balance}, has {row.balance}"


def _shown_state(call: Call) -> StateKey:
    return _state_of(read_json(call.body))


def _state_of(shown: dict[str, Any]) -> StateKey:
    return books.state_key(
        Decimal(shown["cash"]),
        {
            held["issuer_name"]: (held["total_shares"], Decimal(held["share_price"]))
            for held in shown["issuers"]
        },
    )
