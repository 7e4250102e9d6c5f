"""Settling: load, decide in sequence, commit under the account's version, cache.

Theory of operation. A message names orders, but what gets decided is what the store says: for
each named account the worker looks up where its decisions stand, takes every undecided order from
there on in the sequence in which they were accepted, decides them against the account's state and
commits all of it in one transaction that fails if anybody else decided meanwhile. On such a
conflict, and whenever an answer was lost, it looks again. So any number of workers may hold the
same message, die anywhere, or meet messages that are late, repeated or out of order.

The count of accepted orders (head) less the count of decided ones (account) is the number of
undecided orders. Where the named ones are as many, they are all there is and the account's orders
need not be queried: the usual case for accounts that send one order at a time. Where there are
more, other messages name them, and the processes that hold those take turns (``worker.turns``).
"""

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from random import Random
from typing import Final
from uuid import uuid4

from shared import metrics
from shared.domain.account import Account
from shared.domain.decision import Rules, decide, duplicate_horizon, park
from shared.domain.order import FINAL_STATUSES, Order, OrderStatus
from shared.ids import OrderRef
from shared.logs import get_logger
from shared.notices import notice_of
from shared.order_store import commits, reads
from shared.order_store.commits import CommitConflict
from shared.order_store.errors import (
    StoreOutcomeUnknown,
    StoreRefused,
    StoreUnavailable,
    UnreadableItem,
)
from shared.order_store.gateway import TRANSACTION_ACTIONS_MAX, Gateway
from shared.order_store.reads import Loaded, is_undecided
from shared.order_store.records import (
    DecidedOrder,
    Head,
    RecordedAccount,
    RecordedOrder,
    Settlement,
    UnreadableOrder,
)
from shared.representation import recorded_from, show_order, to_json
from shared.status_cache import StatusCache
from worker.turns import TURN_WAIT_SECONDS_MAX, TURN_WAIT_SECONDS_MIN, Turns

SETTLE_SECONDS_MAX: Final = 20.0
"""How long one message is worked on. If the store fails by then, the sweeper brings its orders
back; if it is only slow, what is left goes back to the queue, long before the broker would take the
message for lost and give it to a second worker."""

ROUNDS_MAX: Final = 100
"""Looks at the store for one message; what is left then goes back to the queue."""

PARTS_LOOKS_MAX: Final = 5
"""Looks again, for one message, at accounts of which orders are missing (``_in_sequence``)."""

PARTS_SECONDS_FIRST: Final = 0.01
"""Rest before the first of them; it doubles. A commit of DynamoDB's takes some milliseconds."""

BACKOFF_SECONDS_FIRST: Final = 0.05
BACKOFF_SECONDS_MAX: Final = 2.0

log = get_logger(__name__)

Undecided = RecordedOrder | UnreadableOrder


@dataclass(slots=True)
class _Work:
    """What is still to be done for one message: order ids by account."""

    waiting: dict[int, set[str]]
    suspect: bool
    deadline: float
    counted: dict[OrderRef, Undecided | None] = field(default_factory=dict)
    """Orders of which an attempt is counted, and that are not decided yet; None: by others."""
    careful: set[int] = field(default_factory=set)
    """Accounts whose orders are decided one at a time."""
    patience: float = TURN_WAIT_SECONDS_MAX
    """Seconds that are left to wait for others' turns."""
    looks: int = PARTS_LOOKS_MAX
    """Times that are left to wait for orders that are not to be seen yet."""
    misses_some: bool = False

    def drop(self, account_id: int) -> None:
        self.waiting.pop(account_id, None)

    def to_try(self, account_id: int, queue: list[Undecided]) -> list[Undecided]:
        """What of an account's ``queue`` to decide in one go.

        Where its first order was tried in vain before, each comes alone. Otherwise one behind it
        that kills the process would keep it from its decision, were it only to be parked, and
        would have it blamed.
        """
        if queue[0].attempts:
            self.careful.add(account_id)
        return queue[:1] if account_id in self.careful else queue

    def refs(self) -> list[OrderRef]:
        return [(account, order) for account, orders in self.waiting.items() for order in orders]


class Settler:
    """Settles orders. One for each process; holds no state that a decision rests on."""

    def __init__(
        self,
        gateway: Gateway,
        cache: StatusCache,
        turns: Turns,
        rules: Rules,
        attempts_max: int,
        *,
        clock: Callable[[], datetime],
        sleep: Callable[[float], None] = time.sleep,
        monotonic: Callable[[], float] = time.monotonic,
        random: Random | None = None,
        tells: bool = False,
    ) -> None:
        """Decide by ``rules``; park an order after ``attempts_max`` counted attempts.

        ``tells``: the log says of each order what became of it.
        """
        self._tells = tells
        self._gateway = gateway
        self._cache = cache
        self._turns = turns
        self._rules = rules
        self._rules_text = str(rules)
        self._attempts_max = attempts_max
        self._clock = clock
        self._sleep = sleep
        self._monotonic = monotonic
        self._random = random or Random()  # noqa: S311 - jitter is no secret

    def settle(self, refs: Iterable[OrderRef], *, suspect: bool = False) -> list[OrderRef]:
        """Decide ``refs`` and every order that their accounts accepted before them.

        Args:
            refs: orders by account id and order id.
            suspect: they were sent before in vain, so each account's first one counts an attempt.

        Returns:
            Orders that others kept changing under our hands, or that a slow store left no time for:
            to be enqueued again.

        Raises:
            StoreUnavailable: the store failed for ``SETTLE_SECONDS_MAX``.
        """
        work = _Work(_by_account(refs), suspect, self._monotonic() + SETTLE_SECONDS_MAX)
        failures = 0
        for tried in range(ROUNDS_MAX):
            if not work.waiting:
                return []
            if tried > failures and self._is_late(work):
                break
            try:
                self._round(work)
            except StoreUnavailable as error:
                failures += 1
                pause = self._backoff(failures)
                if self._monotonic() + pause >= work.deadline:
                    self._forgive(work)
                    raise
                log.warning("store_unavailable", error=str(error), pause_seconds=round(pause, 3))
                self._sleep(pause)
        return work.refs()

    def _round(self, work: _Work) -> None:
        """Look at every waiting account once, decide what can be decided, commit it."""
        loaded = reads.load_for_settlement(self._gateway, list(work.waiting), work.refs())
        named = _named_in(loaded, work)
        busy = [account_id for account_id in named if _has_more(loaded, account_id, named)]
        taken = self._turns.take(busy)
        elsewhere = set(busy) - taken if work.patience > 0 else set()
        try:
            self._settle_all(loaded, named, elsewhere, work)
        finally:
            self._turns.give_back(taken)
        if work.misses_some:
            work.misses_some = False
            work.looks -= 1
            self._sleep(PARTS_SECONDS_FIRST * 2 ** (PARTS_LOOKS_MAX - 1 - work.looks))
        if elsewhere:
            waited = self._turns.wait(elsewhere, work.patience)
            work.patience -= max(waited, TURN_WAIT_SECONDS_MIN)

    def _settle_all(
        self,
        loaded: Loaded,
        named: Mapping[int, Sequence[Undecided]],
        elsewhere: Collection[int],
        work: _Work,
    ) -> None:
        """Decide and commit what was looked at, less the accounts that are settled elsewhere."""
        settlements: list[Settlement] = []
        for account_id, orders in named.items():
            if settlements and self._is_late(work):
                break
            if account_id in elsewhere:
                continue
            settlement = self._settlement(loaded, account_id, orders, work)
            if settlement is not None:
                settlements.append(settlement)
        for number, packed in enumerate(commits.pack(settlements)):
            # The first ones always: a message that comes back gets on each time.
            if number and self._is_late(work):
                break
            conflicts = self._commit(packed)
            for settlement in packed:
                if settlement.before.account.id not in conflicts:
                    _strike_off(work, settlement)

    def _is_late(self, work: _Work) -> bool:
        """Tell whether to leave the rest; never to a suspect, which is counted as tried."""
        return not work.suspect and self._monotonic() >= work.deadline

    def _settlement(
        self, loaded: Loaded, account_id: int, named: Sequence[Undecided], work: _Work
    ) -> Settlement | None:
        """Decide one account's orders, or drop the account from ``work`` if none can be."""
        if account_id in loaded.unreadable:
            self._give_up_on_account(account_id, named, loaded.unreadable[account_id], work)
            return None
        recorded = loaded.accounts.get(account_id)
        head = loaded.heads.get(account_id)
        if recorded is None or head is None:
            self._give_up_on_account(account_id, named, "its account or head is missing", work)
            return None

        queue, is_whole = self._in_sequence(recorded, head, named)
        if queue and not is_whole and work.looks > 0:
            work.misses_some = True
            return None
        if not is_whole:
            queue = _up_to_the_last_of(named, queue)
        if not queue:
            # Somebody else decided them between our two looks.
            work.drop(account_id)
            return None
        queue = work.to_try(account_id, queue)
        if work.suspect:
            self._count_attempt(work, account_id, queue[0])
        try:
            recorded = self._with_recent(recorded, queue)
        except UnreadableItem as error:
            self._give_up_on_account(account_id, named, str(error), work)
            return None
        decided, after, blocked = self._decide_all(recorded.account, queue, work.suspect)
        if blocked:
            # The sweeper brings it back; what comes after it has to wait, for sequence's sake.
            work.waiting[account_id] &= {order.order_id for order in decided}
        if not decided:
            work.drop(account_id)
            return None
        return Settlement(recorded, after, tuple(decided), self._rules_text, self._clock())

    def _in_sequence(
        self, recorded: RecordedAccount, head: Head, named: Sequence[Undecided]
    ) -> tuple[list[Undecided], bool]:
        """The account's first undecided orders, oldest first: all that may be decided now.

        False beside them: the head counts more than are to be seen. Then its newest orders were
        recorded this moment and show themselves one by one, perhaps a later one before an earlier
        one; or an order was replayed that the message does not name; or the head was read before
        the account, and tells too little.
        """
        is_overflowing = self._is_overflowing(recorded)
        limit = commits.orders_per_settlement(len(recorded.inline), is_overflowing)
        queue = {_id_of(order): order for order in named}
        undecided = wanted = head.accepted - recorded.decided
        is_behind = head.newest < recorded.cancelled_newest
        if undecided > len(queue) or is_behind:
            # Only among the orders of the newest transaction some can be missing.
            if undecided >= limit + TRANSACTION_ACTIONS_MAX or is_behind:
                wanted = limit
            newest = max(head.newest, *queue)
            earliest = reads.undecided_after(
                self._gateway, recorded.account.id, recorded.decided_through, newest, wanted
            )
            replayed = [order for order in named if _id_of(order) <= recorded.decided_through]
            queue = {_id_of(order): order for order in (*replayed, *earliest)}
        in_sequence = [queue[order_id] for order_id in sorted(queue)][:limit]
        return in_sequence, len(queue) >= wanted and not is_behind

    def _is_overflowing(self, recorded: RecordedAccount) -> bool:
        """Tell whether executed operations that still matter are written apart from the account."""
        if recorded.overflow_until is None:
            return False
        horizon = duplicate_horizon(recorded.account, self._rules)
        return horizon is None or recorded.overflow_until > horizon

    def _with_recent(
        self, recorded: RecordedAccount, queue: Sequence[Undecided]
    ) -> RecordedAccount:
        """Add the executed operations written apart, as far as ``queue`` could repeat them."""
        if not self._is_overflowing(recorded):
            return recorded
        wanted = {order.order.key for order in queue if isinstance(order, RecordedOrder)}
        apart = reads.load_recent(self._gateway, recorded.account.id, wanted)
        inline = recorded.account.recent
        merged = {key: max(at, inline.get(key, at)) for key, at in apart.items()}
        account = replace(recorded.account, recent={**inline, **merged})
        return replace(recorded, account=account)

    def _decide_all(
        self, account: Account, queue: Sequence[Undecided], suspect: bool
    ) -> tuple[list[DecidedOrder], Account, bool]:
        """Decide ``queue`` in sequence; the last value tells that an order blocks the rest."""
        decided: list[DecidedOrder] = []
        for undecided in queue:
            # A damaged item is as damaged at the next attempt: the first one is enough.
            is_hopeless = suspect and isinstance(undecided, UnreadableOrder)
            if is_hopeless or undecided.attempts >= self._attempts_max:
                decided.append(_parked(account, undecided))
                continue
            if isinstance(undecided, UnreadableOrder):
                log.error("order_unreadable", order_id=undecided.id, reason=undecided.reason)
                return decided, account, True
            order = undecided.order
            try:
                account, decision = decide(account, order, self._rules)
            except Exception:  # whatever is wrong with one order must not stop the others
                log.exception("order_undecidable", order_id=order.id, account_id=account.id)
                return decided, account, True
            decided.append(DecidedOrder(order.account_id, order.id, order, decision))
        return decided, account, False

    def _commit(self, settlements: Sequence[Settlement]) -> set[int]:
        """Commit what can be committed; returns the accounts that have to be read again."""
        conflicts: set[int] = set()
        rest = list(settlements)
        while rest:
            try:
                commits.commit(self._gateway, rest, token=str(uuid4()))
            except CommitConflict as conflict:
                metrics.CONFLICTS.add(n=len(conflict.account_ids))
                conflicts |= conflict.account_ids
                rest = [one for one in rest if one.before.account.id not in conflicts]
                continue
            except StoreRefused as refused:
                return conflicts | self._commit_one_by_one(rest, refused)
            _count(rest)
            self._publish(rest)
            if self._tells:
                _tell(rest)
            return conflicts
        return conflicts

    def _commit_one_by_one(self, rest: Sequence[Settlement], refused: StoreRefused) -> set[int]:
        """Commit each alone: the one that DynamoDB calls invalid must not spoil the others."""
        if len(rest) > 1:
            return set().union(*(self._commit([settlement]) for settlement in rest))
        account_id, first = rest[0].before.account.id, rest[0].decided[0]
        log.error("settlement_refused", account_id=account_id, error=str(refused))
        if first.decision.status is OrderStatus.FAILED:
            # It was to be parked, and even that is refused with its account: park it alone.
            commits.park_unreadable_account(
                self._gateway, account_id, first.order_id, self._clock(), str(refused)
            )
            metrics.DECIDED.add("failed")
        return set()

    def _publish(self, settlements: Sequence[Settlement]) -> None:
        """Cache the final statuses that were just committed, and wake who waits for them."""
        answers = (
            (order.account_id, order.id, _answer(settlement, decided, order))
            for settlement in settlements
            for decided in settlement.decided
            if (order := decided.order) and decided.decision.status in FINAL_STATUSES
        )
        self._cache.put(answers, [notice_of(settlement) for settlement in settlements])

    def _count_attempt(self, work: _Work, account_id: int, first: Undecided) -> None:
        """Note, before trying, that this account's first order is tried once more."""
        ref = (account_id, _id_of(first))
        if ref in work.counted or first.attempts >= self._attempts_max:
            return
        try:
            is_ours = commits.count_attempt(self._gateway, account_id, ref[1], first.attempts)
        except StoreOutcomeUnknown:
            # It may be counted: it must not count again.
            work.counted[ref] = first
            raise
        # Another worker's count, of an attempt that may have killed it, is not ours to forgive.
        work.counted[ref] = first if is_ours else None

    def _forgive(self, work: _Work) -> None:
        """Take the counted attempts back: the store failed, not the orders."""
        for (account_id, order_id), first in work.counted.items():
            if first is None:
                continue
            try:
                commits.forgive_attempt(self._gateway, account_id, order_id, first.attempts)
            except StoreUnavailable as error:
                log.warning("attempt_not_forgiven", order_id=order_id, error=str(error))

    def _give_up_on_account(
        self, account_id: int, named: Sequence[Undecided], reason: str, work: _Work
    ) -> None:
        """Leave an account that cannot be read to its repair; park what was tried too often."""
        log.error("account_unreadable", account_id=account_id, reason=reason)
        for order in named:
            if order.attempts >= self._attempts_max:
                commits.park_unreadable_account(
                    self._gateway, account_id, _id_of(order), self._clock(), reason
                )
                metrics.DECIDED.add("failed")
            elif work.suspect:
                commits.count_attempt(self._gateway, account_id, _id_of(order), order.attempts)
        work.drop(account_id)

    def _backoff(self, failures: int) -> float:
        """Seconds to wait after ``failures`` in a row: doubling, capped, with full jitter."""
        ceiling = min(BACKOFF_SECONDS_MAX, BACKOFF_SECONDS_FIRST * 2.0**failures)
        return self._random.uniform(BACKOFF_SECONDS_FIRST, ceiling)


def _by_account(refs: Iterable[OrderRef]) -> dict[int, set[str]]:
    waiting: dict[int, set[str]] = {}
    for account_id, order_id in refs:
        waiting.setdefault(account_id, set()).add(order_id)
    return waiting


def _named_in(loaded: Loaded, work: _Work) -> dict[int, list[Undecided]]:
    """The orders that are still to be decided, by account; accounts without any are done with."""
    found: dict[int, list[Undecided]] = {}
    for account_id, order_ids in list(work.waiting.items()):
        named = [
            order
            for order_id in order_ids
            if (order := loaded.orders.get((account_id, order_id))) and is_undecided(order)
        ]
        if not named:
            work.drop(account_id)
            continue
        work.waiting[account_id] = {_id_of(order) for order in named}
        found[account_id] = named
    return found


def _has_more(loaded: Loaded, account_id: int, named: Mapping[int, Sequence[Undecided]]) -> bool:
    """Whether an account has undecided orders that the message does not name."""
    head, recorded = loaded.heads.get(account_id), loaded.accounts.get(account_id)
    return bool(head and recorded and head.accepted - recorded.decided > len(named[account_id]))


def _up_to_the_last_of(named: Sequence[Undecided], queue: Sequence[Undecided]) -> list[Undecided]:
    """What of ``queue`` comes before the last of ``named``, itself included.

    A message is sent when its orders are recorded, so all before them are to be seen. What comes
    after them may lack an order before it, and has a message of its own.
    """
    last = max(map(_id_of, named))
    return [order for order in queue if _id_of(order) <= last]


def _strike_off(work: _Work, settlement: Settlement) -> None:
    account_id = settlement.before.account.id
    for decided in settlement.decided:
        work.counted.pop((account_id, decided.order_id), None)
    if account_id not in work.waiting:
        return
    work.waiting[account_id] -= {decided.order_id for decided in settlement.decided}
    if not work.waiting[account_id]:
        work.drop(account_id)


def _parked(account: Account, undecided: Undecided) -> DecidedOrder:
    if isinstance(undecided, UnreadableOrder):
        failure = f"parked: {undecided.reason}"
        return DecidedOrder(account.id, undecided.id, None, park(account), failure)
    order = undecided.order
    reason = "the worker failed or died whenever it tried to decide it"
    failure = f"parked after {undecided.attempts} attempts: {reason}"
    return DecidedOrder(account.id, order.id, order, park(account), failure)


def _count(settlements: Sequence[Settlement]) -> None:
    """Tell the metrics what was committed."""
    for settlement in settlements:
        metrics.SETTLEMENT_ORDERS.observe(len(settlement.decided))
        for decided in settlement.decided:
            metrics.DECIDED.add(decided.decision.status.value)
            for error in decided.decision.business_errors:
                metrics.REJECTIONS.add(error.value)
            if decided.order is not None:
                waited = settlement.decided_at - decided.order.received_at
                metrics.DECISION_SECONDS.observe(waited.total_seconds())


def _tell(settlements: Sequence[Settlement]) -> None:
    """Log what was committed: one line, however many orders."""
    orders = {
        f"{decided.account_id}/{decided.order_id}": decided.decision.status.value
        for settlement in settlements
        for decided in settlement.decided
    }
    log.info("decided", orders=orders)


def _answer(settlement: Settlement, decided: DecidedOrder, order: Order) -> bytes:
    return to_json(show_order(recorded_from(settlement, decided, order)))


def _id_of(order: Undecided) -> str:
    return order.id if isinstance(order, UnreadableOrder) else order.order.id
