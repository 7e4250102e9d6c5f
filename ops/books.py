"""One account's books: its recorded orders decided again, and compared with what was recorded.

Theory of operation. An account's items come in the order of their sort keys: the account, its head,
its orders by id, executed operations written apart. The account says how many of its orders were
decided (``decided``); whatever was decided after it was read is left out. Orders come by id and are
decided again by ``sequence``. These two go together but for orders that were parked and replayed
(decided later than their id says) or cancelled (decided earlier): what comes ahead of its turn
waits in a heap. Each number from 1 to ``decided`` must come up exactly once.

Memory hardly grows with the account: one difference is kept of each kind, the heap has a limit for
orders that were decided in turn, and only executed operations that can still block an order are
remembered. Without a limit are orders that were cancelled long before their turn, of which little
is kept, and replayed ones.
"""

import heapq
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from functools import lru_cache
from typing import Final

from ops import differences as said
from ops.differences import SUM, Difference, Result, Totals, What, by_first_order
from shared.domain import money
from shared.domain.account import Account
from shared.domain.decision import Decision, Rules, decide, duplicate_horizon, parse_rules
from shared.domain.order import BusinessError, Operation, OperationKey, Order, OrderStatus
from shared.ids import NO_ORDER_ID
from shared.order_store import items, keys
from shared.order_store.commits import balance_after
from shared.order_store.errors import UnreadableItem
from shared.order_store.keys import ACCOUNT_KIND, HEAD_KIND, PARKED_SHARD, SHARD, SK, Item
from shared.order_store.records import (
    Balance,
    Head,
    RecordedAccount,
    RecordedOrder,
    UnreadableOrder,
)

WAITING_MAX: Final = 10_000
"""Ordinary orders that wait for a decision before theirs; then it is taken for a cancelled one's,
whose id comes later."""

_GAPS_MAX: Final = 1000
"""Gaps in the sequence that are told apart; more are counted."""

_FORGET_AFTER: Final = 512
"""Executed operations remembered before those that can block no order are looked for."""

_CARRIED_MAX: Final = 32
"""Executed operations carried in the account itself, which is copied at each order."""

_NONE: Final[Mapping[OperationKey, datetime]] = {}

# What damaged values can make of an order that could be read.
_UNDECIDABLE: Final = (ArithmeticError, LookupError, ValueError, TypeError, AttributeError)


@dataclass(slots=True)
class _Gap:
    """Decisions ``first`` to ``last`` that nothing was found for; ``before`` is the next order."""

    first: int
    last: int
    before: str | None

    @property
    def count(self) -> int:
        # Not ``__len__``: a damaged account may make it more than ``len`` can tell.
        return self.last - self.first + 1


@dataclass(frozen=True, slots=True)
class _Unchanged:
    """All that is compared of a parked or cancelled order: many of them may wait for their turn.

    ``issuer_name`` is None where the balance is not that of one issuer.
    """

    balance: Balance | None
    business_errors: tuple[BusinessError, ...]
    issuer_name: str | None


# What has a place: an order that is decided again, what is left of one that changed nothing, or
# None where there is nothing to compare.
_Placed = RecordedOrder | _Unchanged | None

# Sequence, a tie-breaker, the order's id.
_Turn = tuple[int, int, str, _Placed]


class Books:
    """The books of one account: ``feed`` its items by sort key, then ``close``."""

    def __init__(self, account_id: int, *, waiting_max: int = WAITING_MAX) -> None:
        """Open the books of ``account_id``."""
        self.account_id = account_id
        self._waiting_max = waiting_max
        self._recorded: RecordedAccount | None = None
        self._account_unreadable = False
        self._head: Head | None = None
        self._head_unreadable = False
        self._differences: dict[What, Difference] = {}
        self._totals = Totals(accounts=1)

        # The account as derived so far, with a few of ``_recent`` alone; None while unknown.
        self._state: Account | None = None
        self._opening: Decimal | None = None
        self._derives = False
        self._recent: dict[OperationKey, datetime] = {}
        self._forgotten_through: datetime | None = None
        self._forget_at = _FORGET_AFTER

        self._next = 1
        self._waiting: list[_Turn] = []
        self._waiting_ordinary = 0
        self._ties = 0
        self._unchanged: _Unchanged | None = None
        self._gaps: list[_Gap] = []
        # What lies beyond the gaps that are kept: how many, and between which two places.
        self._missing_more = 0
        self._more: _Gap | None = None
        self._last_id = NO_ORDER_ID
        self._beyond: tuple[int, str] | None = None

        self._counted = 0
        self._newest_counted = NO_ORDER_ID
        self._first_id: str | None = None
        self._orders_closed = False
        self._apart: dict[OperationKey, datetime] = {}

    def feed(self, item: Item) -> None:
        """Take the account's next item."""
        kind = item[SK]["S"]
        if keys.is_order(item):
            self._order(item)
        elif kind == ACCOUNT_KIND:
            self._open(item)
        elif kind == HEAD_KIND:
            self._take_head(item)
        elif keys.is_recent(item):
            self._recent_apart(item)
        else:
            self._note(What.UNKNOWN, None, "an item of an account", f"an item {kind!r}")

    def close(self) -> Result:
        """Compare what is left to be compared."""
        self._close_orders()
        if self._recorded is not None:
            self._check_missing(self._recorded)
            self._check_state(self._recorded)
        elif not self._account_unreadable:
            self._note(What.ORPHAN, self._first_id, "an account", "no account of its items")
        self._check_head()
        self._sum_up()
        differences = sorted(self._differences.values(), key=by_first_order)
        return Result(self.account_id, differences, self._totals, self._beyond)

    # The account's own items

    def _open(self, item: Item) -> None:
        try:
            recorded = items.read_account(item)
        except UnreadableItem as error:
            self._account_unreadable = True
            self._note(What.UNREADABLE, None, "an account", str(error))
            return
        self._recorded = recorded
        self._derives = True
        self._opening = recorded.opening_cash
        account = recorded.account
        if account.cash < 0 or any(held.total_shares <= 0 for held in account.positions.values()):
            self._note(What.NEGATIVE, None, "nothing below zero", said.below_zero(account))
        if recorded.opening_cash is not None:
            self._state = Account(self.account_id, recorded.opening_cash, account.opened_at)

    def _take_head(self, item: Item) -> None:
        try:
            self._head = items.read_head(item)
        except UnreadableItem as error:
            self._head_unreadable = True
            self._note(What.UNREADABLE, None, "a head", str(error))

    # Orders, as they come by id

    def _order(self, item: Item) -> None:
        order = items.read_order(item)
        if isinstance(order, UnreadableOrder):
            self._unreadable_order(item, order)
            return
        order_id, status = order.order.id, order.status
        self._totals.orders[status] += 1
        self._check_index(item, order_id, status)
        turns = 0
        for parking in order.parked:
            if parking.sequence is not None:
                turns += 1
                self._turn(parking.sequence, order_id, None)
        if order.sequence is not None:
            turns += 1
            self._turn(order.sequence, order_id, self._placed(order))
        elif status in (OrderStatus.EXECUTED, OrderStatus.REJECTED):
            self._note(What.SEQUENCE, order_id, "a place in the sequence", f"none, but {status}")
        if status is OrderStatus.FAILED and not order.failure:
            self._note(What.UNREADABLE, order_id, "why it is parked", "no reason")
        if status is OrderStatus.PENDING:
            turns += 1
            self._check_passed_over(order_id, is_replayed=bool(order.parked))
        self._count(order_id, turns)

    def _unreadable_order(self, item: Item, order: UnreadableOrder) -> None:
        self._totals.orders[order.status or "unreadable"] += 1
        self._note(What.UNREADABLE, order.id, "an order", order.reason)
        self._check_index(item, order.id, order.status)
        turns = _sequences(item)
        for sequence in turns:
            self._turn(sequence, order.id, None)
        self._count(order.id, len(turns) + order.is_pending)
        if order.status in (None, OrderStatus.EXECUTED):
            # What it did cannot be told, so nothing that comes after it can be derived.
            self._derives = False

    def _check_index(self, item: Item, order_id: str, status: OrderStatus | None) -> None:
        found = item.get(SHARD)
        if status is OrderStatus.PENDING:
            expected = items.text(keys.shard_of(self.account_id))
        elif status is OrderStatus.FAILED:
            expected = items.text(PARKED_SHARD)
        elif found is None:
            return
        else:
            self._note(What.INDEX, order_id, f"{status}: not indexed", f"indexed as {found}")
            return
        if found != expected:
            self._note(What.INDEX, order_id, f"{status}: indexed as {expected}", f"{found}")

    def _check_passed_over(self, order_id: str, *, is_replayed: bool) -> None:
        """Tell of an order that the worker takes for decided and so would not look for."""
        through = self._recorded.decided_through if self._recorded else NO_ORDER_ID
        if order_id <= through and not is_replayed:
            self._note(
                What.DECIDED_THROUGH, order_id, "all decided up to there", f"{order_id} is pending"
            )

    def _count(self, order_id: str, turns: int) -> None:
        """Count what the head counts: each decision, and each order that waits for one."""
        if self._first_id is None:
            self._first_id = order_id
        if self._head is None or order_id <= self._head.newest:
            self._counted += turns
            self._newest_counted = order_id

    # Decisions, by sequence

    def _placed(self, order: RecordedOrder) -> _Placed:
        """What is kept of ``order`` until its turn: of a cancelled one, little and but once."""
        if order.status is not OrderStatus.CANCELLED:
            return order
        found = _unchanged(order)
        # In a backlog that was cancelled most balances are alike, one after the other.
        if found != self._unchanged:
            self._unchanged = found
        return self._unchanged

    def _turn(self, sequence: int, order_id: str, order: _Placed) -> None:
        """Take the place ``sequence`` for an order; ``None``: for what changes nothing."""
        if self._recorded is None:
            return
        if sequence > self._recorded.decided:
            if self._beyond is None or sequence > self._beyond[0]:
                self._beyond = (sequence, order_id)
            return
        if sequence == self._next and not self._waiting:
            self._next += 1
            self._decide_again(order_id, order)
            return
        if sequence < self._next:
            self._come_late(sequence, order_id, order)
            return
        self._ties += 1
        heapq.heappush(self._waiting, (sequence, self._ties, order_id, order))
        self._waiting_ordinary += _is_ordinary(order)
        self._take_turns()
        while self._waiting_ordinary > self._waiting_max:
            self._jump()

    def _take_turns(self) -> None:
        while self._waiting and self._waiting[0][0] <= self._next:
            sequence, _, order_id, order = heapq.heappop(self._waiting)
            self._waiting_ordinary -= _is_ordinary(order)
            if sequence < self._next:
                self._come_late(sequence, order_id, order)
                continue
            self._next += 1
            self._decide_again(order_id, order)

    def _jump(self) -> None:
        """Go on at the first order that waits, though decisions before it were not found yet."""
        sequence, _, order_id, _ = self._waiting[0]
        self._leave_gap(self._next, sequence - 1, order_id)
        self._next = sequence
        self._take_turns()

    def _leave_gap(self, first: int, last: int, before: str | None) -> None:
        self._gaps.append(_Gap(first, last, before))
        self._bound_gaps()

    def _bound_gaps(self) -> None:
        """Of more gaps than are told apart, only count the last."""
        while len(self._gaps) > _GAPS_MAX:
            gap = self._gaps.pop()
            self._missing_more += gap.count
            more = self._more or gap
            self._more = _Gap(min(more.first, gap.first), max(more.last, gap.last), None)

    def _come_late(self, sequence: int, order_id: str, order: _Placed) -> None:
        """Fill a gap with an order that changes nothing; anything else came up twice or late."""
        if not self._fill_gap(sequence):
            self._note(What.SEQUENCE, order_id, f"decision {sequence} once", "it came up twice")
        elif _is_ordinary(order):
            self._note(
                What.TURN, order_id, "decided in the order of ids", f"decision {sequence}, earlier"
            )

    def _fill_gap(self, sequence: int) -> bool:
        for place, gap in enumerate(self._gaps):
            if not gap.first <= sequence <= gap.last:
                continue
            parts = [
                _Gap(gap.first, sequence - 1, gap.before),
                _Gap(sequence + 1, gap.last, gap.before),
            ]
            self._gaps[place : place + 1] = [part for part in parts if part.first <= part.last]
            self._bound_gaps()
            return True
        return self._fill_counted(sequence)

    def _fill_counted(self, sequence: int) -> bool:
        """Take the place for one of those that are only counted, if it may be one."""
        more = self._more
        if not self._missing_more or more is None or not more.first <= sequence <= more.last:
            return False
        self._missing_more -= 1
        if not self._missing_more:
            self._more = None
        return True

    def _decide_again(self, order_id: str, order: _Placed) -> None:
        if order is None:
            return
        if _is_ordinary(order):
            if order_id < self._last_id:
                self._note(
                    What.TURN, order_id, "decided in the order of ids", f"after {self._last_id}"
                )
            self._last_id = max(self._last_id, order_id)
        paid = _paid(order)
        self._totals.net_bought = SUM.add(self._totals.net_bought, paid)
        if not self._derives:
            return
        self._state = self._state or self._infer_opening(order.balance, paid)
        if self._state is None:
            return
        if isinstance(order, _Unchanged):
            self._compare_unchanged(order_id, order, self._state)
        elif order.status is OrderStatus.FAILED:
            self._compare_unchanged(order_id, _unchanged(order), self._state)
        else:
            self._derive(self._state, order)

    def _infer_opening(self, balance: Balance | None, paid: Decimal) -> Account | None:
        """The account as it was before its first order, from the balance after it."""
        if self._recorded is None or balance is None:
            return None
        cash = SUM.add(balance.cash, paid)
        return Account(self.account_id, cash, self._recorded.account.opened_at)

    def _derive(self, state: Account, order: RecordedOrder) -> None:
        """Decide ``order`` again by the rules recorded with it."""
        asked = order.order
        try:
            rules = _rules(order.rules or "")
        except _UNDECIDABLE as error:
            self._note(What.RULES, asked.id, "the rules of the decision", repr(error))
            self._derives = False
            return
        try:
            after, decision = decide(self._with_recent(state, asked.key), asked, rules)
        except _UNDECIDABLE as error:
            self._note(What.UNREADABLE, asked.id, "an order that can be decided", repr(error))
            self._derives = False
            return
        if decision.status is OrderStatus.EXECUTED:
            self._remember(asked, duplicate_horizon(after, rules))
        # A few may stay: taking them out each time would cost a copy of the account.
        many = len(after.recent) > _CARRIED_MAX
        self._state = replace(after, recent=_NONE) if many else after
        self._compare(order, decision)

    def _with_recent(self, state: Account, key: OperationKey) -> Account:
        """``state`` with the one executed operation that the decision can ask for."""
        at = self._recent.get(key)
        if at is None or not self._can_block(at) or state.recent.get(key) == at:
            return state
        return replace(state, recent={key: at})

    def _remember(self, order: Order, horizon: datetime | None) -> None:
        """Keep the executed operation; what is not after ``horizon`` blocks nothing any more."""
        self._recent[order.key] = order.timestamp
        if horizon is None:
            return
        through = self._forgotten_through
        self._forgotten_through = horizon if through is None else max(through, horizon)
        if len(self._recent) >= self._forget_at:
            self._recent = self._blocking()
            self._forget_at = max(_FORGET_AFTER, 2 * len(self._recent))

    def _blocking(self) -> dict[OperationKey, datetime]:
        """The executed operations that can still block an order."""
        return {key: at for key, at in self._recent.items() if self._can_block(at)}

    def _compare(self, order: RecordedOrder, decision: Decision) -> None:
        order_id = order.order.id
        if order.status is not decision.status:
            self._note(
                What.STATUS,
                order_id,
                said.outcome(decision.status, decision.business_errors),
                said.outcome(order.status, order.business_errors),
            )
        elif order.business_errors != decision.business_errors:
            self._note(
                What.BUSINESS_ERRORS,
                order_id,
                ", ".join(decision.business_errors) or "none",
                ", ".join(order.business_errors) or "none",
            )
        expected = balance_after(decision, order.order.issuer_name)
        self._compare_balance(order_id, order.balance, expected)

    def _compare_unchanged(self, order_id: str, order: _Unchanged, state: Account) -> None:
        if order.business_errors:
            told = ", ".join(order.business_errors)
            self._note(What.BUSINESS_ERRORS, order_id, "none", told)
        unchanged = Decision(OrderStatus.CANCELLED, (), state.cash, state.positions)
        # Of many positions, a cancelled order shows none: who cancels need not read the order.
        if order.balance != balance_after(unchanged, None):
            expected = balance_after(unchanged, order.issuer_name)
            self._compare_balance(order_id, order.balance, expected)

    def _compare_balance(self, order_id: str, found: Balance | None, expected: Balance) -> None:
        if found == expected:
            return
        if found is None:
            self._note(What.BALANCE, order_id, f"cash {said.amount(expected.cash)}", "none")
            return
        self._note(What.BALANCE, order_id, *said.balances(expected, found))

    # What comes after the orders

    def _close_orders(self) -> None:
        """Decide what still waits; what was not found by now is missing."""
        if self._orders_closed:
            return
        self._orders_closed = True
        while self._waiting:
            self._jump()
        if self._derives and self._state is not None:
            inline = self._recorded.account.recent if self._recorded else _NONE
            self._apart = {key: at for key, at in self._blocking().items() if inline.get(key) != at}
            self._check_inline(inline)

    def _check_inline(self, inline: Mapping[OperationKey, datetime]) -> None:
        for key, at in inline.items():
            if self._can_block(at) and self._recent.get(key) != at:
                known = self._recent.get(key)
                self._note(What.RECENT, None, said.executed(key, known), said.executed(key, at))

    def _can_block(self, at: datetime) -> bool:
        return self._forgotten_through is None or at > self._forgotten_through

    def _recent_apart(self, item: Item) -> None:
        self._close_orders()
        try:
            key, at = keys.operation_of(item), items.read_recent(item)
        except (UnreadableItem, LookupError, ValueError) as error:
            self._note(What.UNREADABLE, None, "an executed operation", repr(error))
            return
        if not self._derives or not self._can_block(at):
            return
        known = self._recent.get(key)
        if known is None or at > known:
            # Right if it was executed after the account was read; then a second look says so.
            self._note(What.RECENT, None, said.executed(key, known), said.executed(key, at))
        elif at == known:
            self._check_overflow(key, at)
            self._apart.pop(key, None)

    def _check_overflow(self, key: OperationKey, at: datetime) -> None:
        """Tell of an operation written apart that nobody would look for."""
        until = self._recorded.overflow_until if self._recorded else None
        if key in self._apart and (until is None or until < at):
            self._note(What.RECENT, None, f"looked for until {at} or later", f"until {until}")

    def _check_missing(self, recorded: RecordedAccount) -> None:
        if self._next <= recorded.decided:
            self._leave_gap(self._next, recorded.decided, None)
        count = sum(gap.count for gap in self._gaps) + self._missing_more
        if not count:
            return
        expected = f"decisions 1 to {recorded.decided}"
        if self._gaps:
            first = self._gaps[0]
            found = f"{count} missing, the first is {first.first}"
            self._note(What.SEQUENCE, first.before, expected, found)
        elif self._more is not None:
            found = f"{count} missing between {self._more.first} and {self._more.last}"
            self._note(What.SEQUENCE, None, expected, found)

    def _check_state(self, recorded: RecordedAccount) -> None:
        """Compare the account with what its orders make of it."""
        state = self._state
        if not self._derives or state is None:
            return
        found = recorded.account
        if state.cash != found.cash:
            self._note(What.CASH, None, said.amount(state.cash), said.amount(found.cash))
        if state.positions != found.positions:
            self._note(
                What.POSITIONS, None, *said.differing_positions(state.positions, found.positions)
            )
        if state.last_executed_at != found.last_executed_at:
            self._note(
                What.LAST_EXECUTED_AT,
                None,
                str(state.last_executed_at),
                str(found.last_executed_at),
            )
        for key, at in self._apart.items():
            self._note(What.RECENT, None, said.executed(key, at), "not remembered")

    def _check_head(self) -> None:
        if self._head is None:
            if self._recorded is not None and not self._head_unreadable:
                self._note(What.HEAD, None, "a head", "none")
            return
        through = self._recorded.decided_through if self._recorded else NO_ORDER_ID
        if through > self._head.newest:
            # The head was read after the account. Orders to come would be taken for decided.
            self._note(What.DECIDED_THROUGH, None, f"{self._head.newest} at most", through)
        if self._head.newest != self._newest_counted:
            self._note(What.HEAD, None, f"newest {self._newest_counted}", self._head.newest)
        if self._head.accepted != self._counted:
            self._note(
                What.ACCEPTED,
                None,
                f"{self._counted} decided and pending",
                f"{self._head.accepted} accepted",
            )

    def _sum_up(self) -> None:
        if self._recorded is None:
            self._totals.accounts = 0
            return
        if self._opening is None:
            self._totals.openings_unknown = 1
            self._totals.net_bought = money.ZERO
            return
        self._totals.opened_with = self._opening
        self._totals.holding = self._recorded.account.cash

    def _note(self, what: What, order_id: str | None, expected: str, found: str) -> None:
        """Keep the first difference of each kind, and count the others."""
        known = self._differences.get(what)
        if known is None:
            self._differences[what] = Difference(
                self.account_id, order_id, what, expected, found, orders=int(order_id is not None)
            )
        elif order_id is not None:
            known.orders += 1


@lru_cache(maxsize=1024)
def _rules(text: str) -> Rules:
    return parse_rules(text)


def _is_ordinary(order: _Placed) -> bool:
    """Tell whether ids and decisions of such orders go together."""
    return isinstance(order, RecordedOrder) and not order.parked


def _unchanged(order: RecordedOrder) -> _Unchanged:
    is_of_one = order.balance is not None and not order.balance.complete
    issuer_name = order.order.issuer_name if is_of_one else None
    return _Unchanged(order.balance, order.business_errors, issuer_name)


def _paid(order: RecordedOrder | _Unchanged) -> Decimal:
    """Cash that an order took from its account; below zero for a sale."""
    if isinstance(order, _Unchanged) or order.status is not OrderStatus.EXECUTED:
        return money.ZERO
    asked = order.order
    cost = SUM.multiply(Decimal(asked.total_shares), asked.share_price)
    return cost if asked.operation is Operation.BUY else SUM.minus(cost)


def _sequences(item: Item) -> list[int]:
    """The places in the sequence that an order holds whose item cannot be read as a whole."""
    values = [item]
    parked = item.get("parked", {}).get("L")
    if isinstance(parked, list):
        values += [parking["M"] for parking in parked if isinstance(parking.get("M"), dict)]
    found: list[int] = []
    for value in values:
        try:
            found.append(int(value["sequence"]["N"]))
        except (LookupError, ValueError, TypeError):  # damaged: any may be missing
            continue
    return found
