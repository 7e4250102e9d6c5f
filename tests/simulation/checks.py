"""What must hold: at every write to the table, and when a schedule is over.

Nothing here asks the product: the books are kept again from the items themselves.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from shared.domain.order import FINAL_STATUSES, TRANSITIONS, OrderStatus
from tests.simulation.dynamodb import ItemKey, Written
from tests.simulation.expressions import Item
from tests.simulation.redis import brief

_ORDER: Final = "ORDER#"
_ACCOUNT: Final = "ACCOUNT#"
_GRACE: Final = timedelta(seconds=5)
_WINDOW: Final = timedelta(minutes=5)

Ref = tuple[int, str]


@dataclass(slots=True)
class Watch:
    """Sees each committed write as it happens, and keeps what it saw go wrong."""

    problems: list[str] = field(default_factory=list)
    pending: dict[Ref, None] = field(default_factory=dict)
    opened: dict[int, Decimal] = field(default_factory=dict)
    touched: set[Ref] = field(default_factory=set)
    """Orders that an operator replayed or cancelled: they left the sequence of their ids."""
    parkings: int = 0
    attempts_max: int = 0
    attempts: Counter[Ref] = field(default_factory=Counter)
    """Attempts that were counted since an order was accepted, or replayed."""

    def observe(self, written: Sequence[Written]) -> None:
        decisions: dict[str, int] = {}
        for (pk, sk), before, after in written:
            if sk.startswith(_ORDER):
                decided = self._order((pk, sk), before, after)
                decisions[pk] = decisions.get(pk, 0) + decided
        for key, before, after in written:
            if key[1] == "ACCOUNT" and key[0].startswith(_ACCOUNT):
                self._account(key, before, after, decisions.pop(key[0], 0))
            elif key[1] == "HEAD":
                self._head(key, before, after)
        for pk, count in decisions.items():
            if count:
                self._say(f"{pk}: {count} orders decided without their account")

    def _order(self, key: ItemKey, before: Item | None, after: Item | None) -> int:
        """Check one order's write; returns 1 if it is a decision that its account counts."""
        ref = ref_of(key)
        if after is None:
            self._say(f"order {brief(*ref)} was deleted")
            return 0
        new = OrderStatus(after["status"]["S"])
        old = OrderStatus(before["status"]["S"]) if before else None
        if old is None and new is not OrderStatus.PENDING:
            self._say(f"order {brief(*ref)} begins as {new}")
        if old in FINAL_STATUSES:
            self._say(f"order {brief(*ref)} is written after it was {old} (now {new})")
        elif old is not None and old is not new and new not in TRANSITIONS[old]:
            self._say(f"order {brief(*ref)} goes from {old} to {new}")
        if new is OrderStatus.PENDING:
            self.pending[ref] = None
            if old is OrderStatus.FAILED:
                self.touched.add(ref)
                del self.attempts[ref]
            elif before:
                self._attempt(ref, _attempts(after) - _attempts(before))
            return 0
        self.pending.pop(ref, None)
        if new is OrderStatus.FAILED and old is not new:
            self.parkings += 1
            if self.attempts[ref] < self.attempts_max:
                self._say(f"order {brief(*ref)} is parked after {self.attempts[ref]} attempts")
        if new is OrderStatus.CANCELLED:
            self.touched.add(ref)
        return int(old is OrderStatus.PENDING)

    def _attempt(self, ref: Ref, more: int) -> None:
        if abs(more) > 1:
            self._say(f"{more} attempts at order {brief(*ref)} are counted as one")
        self.attempts[ref] += more

    def _account(
        self, key: ItemKey, before: Item | None, after: Item | None, decisions: int
    ) -> None:
        if after is None:
            self._say(f"{key[0]} was deleted")
            return
        cash = Decimal(after["cash"]["N"])
        if before is None:
            self.opened[int(key[0].removeprefix(_ACCOUNT))] = cash
        if cash < 0 or any(shares <= 0 for shares in holdings(after).values()):
            self._say(f"{key[0]} is negative: {cash} {holdings(after)}")
        counted = int(after["decided"]["N"]) - (int(before["decided"]["N"]) if before else 0)
        if counted != decisions:
            self._say(f"{key[0]} counts {counted} decisions where {decisions} were made")

    def _head(self, key: ItemKey, before: Item | None, after: Item | None) -> None:
        if before and (after is None or after["newest"]["S"] < before["newest"]["S"]):
            self._say(f"{key[0]}: the newest id goes back")

    def _say(self, problem: str) -> None:
        self.problems.append(problem)


@dataclass(slots=True)
class Answer:
    """What the API said to one call."""

    status: int
    body: bytes = b""
    made: str = ""
    is_repeated: bool = False
    detail: str = ""


@dataclass(slots=True)
class Request:
    """One thing that a client asked for, and all that it heard of it."""

    tag: str
    account_id: int
    key: str | None
    sent_at: float
    answered_at: float | None = None
    order_id: str | None = None
    first_answer: bytes | None = None
    is_fresh: bool = False
    """The order was made by the very call that was answered (no repetition)."""
    is_maybe: bool = False
    """Some answer left open whether it was recorded."""
    sendings: int = 1
    """How many senders repeat it at the same time: then one may hear that its key is on its way."""


@dataclass(slots=True)
class Seen:
    """A final status that a client saw."""

    at: float
    status: str
    body: bytes


class Audit:
    """The checks at the end of a schedule, over the table's items."""

    def __init__(self, items: Mapping[ItemKey, Item], watch: Watch) -> None:
        self._items = items
        self._watch = watch
        self.problems: list[str] = []
        self.orders: dict[Ref, Item] = {
            ref_of(key): item for key, item in sorted(items.items()) if key[1].startswith(_ORDER)
        }
        self.by_account: dict[int, list[tuple[str, Item]]] = {}
        for (account_id, order_id), item in self.orders.items():
            self.by_account.setdefault(account_id, []).append((order_id, item))

    def accounts(self) -> None:
        """The books of every account, kept again."""
        for account_id, cash in self._watch.opened.items():
            orders = self.by_account.get(account_id, [])
            account = self._items[(f"{_ACCOUNT}{account_id}", "ACCOUNT")]
            head = self._items[(f"{_ACCOUNT}{account_id}", "HEAD")]
            decided = [order for order in orders if not _is(order[1], OrderStatus.PENDING)]
            self._sequence(account_id, decided, int(account["decided"]["N"]))
            undecided = int(head["accepted"]["N"]) - int(account["decided"]["N"])
            if undecided != len(orders) - len(decided):
                self._say(
                    f"account {account_id}: accepted less decided is {undecided}, but"
                    f" {len(orders) - len(decided)} orders are undecided"
                )
            self._books(account_id, cash, account, decided)

    def index(self) -> None:
        """The index holds the undecided orders and, apart, the parked ones."""
        for (account_id, order_id), item in self.orders.items():
            shard, status = item.get("undecided_shard"), item["status"]["S"]
            is_right = {
                OrderStatus.PENDING: shard is not None and shard["S"].isdigit(),
                OrderStatus.FAILED: shard == {"S": "parked"},
            }.get(OrderStatus(status), shard is None)
            if not is_right:
                self._say(f"{brief(account_id, order_id)} is {status}, and in the index as {shard}")

    def accepted(self, requests: Sequence[Request], is_required: Callable[[Request], bool]) -> None:
        """Every accepted order is there and decided; none that was refused is."""
        by_tag: dict[tuple[int, str], list[str]] = {}
        for (account_id, order_id), item in self.orders.items():
            by_tag.setdefault((account_id, item["timestamp"]["S"]), []).append(order_id)
        for request in requests:
            made = by_tag.get((request.account_id, request.tag), [])
            if len(made) > 1:
                self._say(f"one request made {len(made)} orders: {request}")
            if request.order_id is None:
                if made and not request.is_maybe:
                    self._say(f"recorded, though the client was told it was not: {request}")
                continue
            if made != [request.order_id]:
                self._say(f"accepted, but the table holds {made}: {request}")
                continue
            item = self.orders[(request.account_id, request.order_id)]
            if is_required(request) and _is(item, OrderStatus.PENDING):
                self._say(f"accepted and never decided: {request}")
        self._happened_before(requests)

    def _happened_before(self, requests: Sequence[Request]) -> None:
        """What was answered before another request was sent comes before it in every way."""
        for account_id in self.by_account:
            own = [one for one in requests if one.account_id == account_id and one.order_id]
            answered = sorted((one.answered_at or 0.0, one.order_id or "") for one in own)
            newest, place = "", 0
            for sent_at, order_id in sorted((one.sent_at, one.order_id or "") for one in own):
                while place < len(answered) and answered[place][0] < sent_at:
                    newest = max(newest, answered[place][1])
                    place += 1
                if order_id < newest:
                    self._say(f"{brief(account_id, order_id)} overtook {brief(account_id, newest)}")

    def _sequence(self, account_id: int, decided: Sequence[tuple[str, Item]], count: int) -> None:
        """Places in the sequence: 1 to n, each once, in the sequence of the ids."""
        places = [place for _, item in decided if (place := _place(item)) is not None]
        everything = [item for _, item in self.by_account.get(account_id, [])]
        earlier = [place for item in everything for place in _earlier_places(item)]
        if sorted(places + earlier) != list(range(1, count + 1)):
            self._say(f"account {account_id}: {count} decisions in the places {places} {earlier}")
        untouched = [
            _place(item) or 0
            for order_id, item in decided
            if (account_id, order_id) not in self._watch.touched
        ]
        if untouched != sorted(untouched):
            self._say(f"account {account_id}: decided in another sequence than accepted")

    def _books(
        self, account_id: int, opening: Decimal, account: Item, decided: Sequence[tuple[str, Item]]
    ) -> None:
        books = _Books(opening, _instant(account["opened_at"]))
        for order_id, item in sorted(decided, key=lambda one: _place(one[1]) or 0):
            expected = books.decide(item)
            if expected is not None and expected != _codes(item):
                self._say(
                    f"order {brief(account_id, order_id)} is {item['status']['S']}"
                    f" {sorted(_codes(item))} where the books say {sorted(expected)}"
                )
            if books.cash < 0 or any(count < 0 for count in books.shares.values()):
                self._say(f"account {account_id} is negative after {brief(account_id, order_id)}")
            if "balance" in item and Decimal(item["balance"]["M"]["cash"]["N"]) != books.cash:
                self._say(f"order {brief(account_id, order_id)} carries another balance")
        held = {name: count for name, count in books.shares.items() if count}
        if Decimal(account["cash"]["N"]) != books.cash or holdings(account) != held:
            self._say(
                f"account {account_id} holds {account['cash']['N']} {holdings(account)} where"
                f" its orders make {books.cash} {held}"
            )

    def _say(self, problem: str) -> None:
        self.problems.append(problem)


@dataclass(slots=True)
class _Books:
    """The rules again, in another hand: always open, one window, one grace."""

    cash: Decimal
    opened_at: datetime
    shares: dict[str, int] = field(default_factory=dict)
    executed: list[tuple[tuple[str, str, int], datetime]] = field(default_factory=list)

    def decide(self, item: Item) -> set[str] | None:
        """The codes that ``item`` must have; None where nobody decided it by the rules."""
        status = item["status"]["S"]
        if status in ("failed", "cancelled"):
            return None
        side, name = item["operation"]["S"], item["issuer_name"]["S"]
        count, at = int(item["total_shares"]["N"]), _instant(item["timestamp"])
        cost = count * Decimal(item["share_price"]["N"])
        codes = self._codes(side, name, count, cost, at, _instant(item["received_at"]))
        if status == "executed":
            sign = 1 if side == "BUY" else -1
            self.cash -= sign * cost
            self.shares[name] = self.shares.get(name, 0) + sign * count
            self.executed.append(((side, name, count), at))
        return codes

    def _codes(
        self, side: str, name: str, count: int, cost: Decimal, at: datetime, received_at: datetime
    ) -> set[str]:
        codes: set[str] = set()
        if side == "BUY" and cost > self.cash:
            codes.add("INSUFFICIENT_BALANCE")
        if side == "SELL" and count > self.shares.get(name, 0):
            codes.add("INSUFFICIENT_STOCKS")
        same = [then for what, then in self.executed if what == (side, name, count)]
        if any(abs(at - then) < _WINDOW for then in same):
            codes.add("DUPLICATED_OPERATION")
        last = max((then for _, then in self.executed), default=at)
        if at - received_at > _GRACE or self.opened_at - at > _GRACE or last - at > _GRACE:
            codes.add("INVALID_OPERATION")
        return codes


def ref_of(key: ItemKey) -> Ref:
    """Account id and order id of an order's key."""
    return int(key[0].removeprefix(_ACCOUNT)), key[1].removeprefix(_ORDER)


def holdings(account: Item) -> dict[str, int]:
    """Shares by issuer."""
    fields: Mapping[str, Any] = account["positions"]["M"]
    return {name: int(held["L"][0]["N"]) for name, held in fields.items()}


def _is(item: Item, status: OrderStatus) -> bool:
    return bool(item["status"]["S"] == status)


def _codes(item: Item) -> set[str]:
    return {code["S"] for code in item.get("business_errors", {"L": []})["L"]}


def _attempts(item: Item) -> int:
    return int(item["attempts"]["N"]) if "attempts" in item else 0


def _place(item: Item) -> int | None:
    return int(item["sequence"]["N"]) if "sequence" in item else None


def _earlier_places(item: Item) -> list[int]:
    parkings = item.get("parked", {"L": []})["L"]
    return [int(one["M"]["sequence"]["N"]) for one in parkings if "sequence" in one["M"]]


def _instant(value: Mapping[str, Any]) -> datetime:
    return datetime.fromisoformat(value["S"])
