"""Acceptance: record what a request asks for, once and durably, then tell the workers.

Requests that arrive together are recorded in one transaction and announced in one message. A
member that cannot be recorded (unknown account, a key used before) is taken out and the others
are recorded without it. An answer that was lost is asked for again with the same ids and the same
transaction token, so that nothing is recorded twice.
"""

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from random import Random
from typing import Any, Final, Generic, Protocol, TypeVar
from uuid import uuid4

from api.group_commit import GroupCommit, GroupFull, LeaderLost
from api.in_flight import InFlight
from api.problems import (
    Problem,
    account_not_found,
    internal_error,
    key_in_flight,
    unavailable,
)
from api.validation import AccountBody, OrderBody
from shared import metrics, tracing
from shared.clients import DYNAMODB_CONNECT_SECONDS, DYNAMODB_READ_SECONDS
from shared.domain.account import Account
from shared.domain.order import Order
from shared.ids import NO_ORDER_ID, OrderIds
from shared.logs import get_logger
from shared.order_store import accepts, reads
from shared.order_store.accepts import AcceptRefused
from shared.order_store.errors import (
    StoreOutcomeUnknown,
    StoreRefused,
    StoreThrottled,
    StoreUnavailable,
)
from shared.order_store.gateway import TRANSACTION_ACTIONS_MAX, Gateway
from shared.order_store.records import (
    AcceptedOrder,
    IdempotencyClaim,
    OpenedAccount,
    Remembered,
)
from shared.replay_cache import Replay, ReplayCache
from shared.representation import to_json
from shared.task_queue import QueueUnavailable, TaskQueue

ATTEMPT_SECONDS: Final = DYNAMODB_CONNECT_SECONDS + DYNAMODB_READ_SECONDS
"""How long one call to the store can take."""

ROUNDS_MAX: Final = 50
PAUSE_SECONDS_MIN: Final = 0.01
PAUSE_SECONDS_MAX: Final = 0.2

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class OrderRequest:
    """A valid order on its way to be recorded; ``deadline`` is on the monotonic clock.

    ``origin`` names the request and who sent it (``api.access.origin``), ``trace`` its span.
    """

    account_id: int
    body: OrderBody
    received_at: datetime
    claim: IdempotencyClaim | None
    deadline: float
    origin: str = ""
    trace: Any = None


@dataclass(frozen=True, slots=True)
class AccountRequest:
    """A valid account on its way to be opened; ``deadline`` is on the monotonic clock.

    ``trace`` names the request's span.
    """

    body: AccountBody
    received_at: datetime
    claim: IdempotencyClaim | None
    deadline: float
    trace: Any = None


@dataclass(frozen=True, slots=True)
class Repeated:
    """The request was served before; ``result`` is the id of what it made.

    ``received_at`` is when that request was received, None where it has to be looked up.
    """

    result: str
    received_at: datetime | None = None


Q = TypeVar("Q", OrderRequest, AccountRequest)
QIn = TypeVar("QIn", OrderRequest, AccountRequest, contravariant=True)
E = TypeVar("E", AcceptedOrder, OpenedAccount)


class Ledger(Protocol[QIn, E]):
    """How one kind of request is recorded; ``what`` names it in the metrics."""

    what: str

    def prepare(self, requests: Sequence[QIn], floors: dict[int, str]) -> list[E]:
        """Make the entries to record; ``floors`` holds the newest known id of accounts."""

    def record(self, entries: Sequence[E], now: datetime, token: str) -> None:
        """Record all ``entries`` or none (raises as ``shared.order_store.accepts``)."""

    def was_recorded(self, entry: E) -> bool:
        """Tell whether ``entry`` stands in the store."""

    def id_of(self, entry: E) -> str:
        """The id by which a repeated request finds the entry."""

    def received_at_of(self, entry: E) -> datetime:
        """When the entry's request was received."""


@dataclass(slots=True)
class _Group(Generic[Q, E]):
    """One group on its way: which members still wait, and what became of the others."""

    requests: Sequence[Q]
    outcomes: dict[int, E | Repeated | Exception] = field(default_factory=dict)
    floors: dict[int, str] = field(default_factory=dict)
    claims: dict[tuple[str, str], Remembered] = field(default_factory=dict)
    trouble: StoreUnavailable | None = None

    def settle_repeats(self) -> None:
        """Answer members whose key an earlier member (or request) has used."""
        for place in self.open():
            claim = self.requests[place].claim
            if claim and (known := self.claims.get((claim.scope, claim.client_key))):
                self.outcomes[place] = _repeat(known, claim)

    def open(self) -> list[int]:
        return [place for place in range(len(self.requests)) if place not in self.outcomes]

    def next_places(self) -> list[int]:
        """Open members to record now: of those with the same key, the first."""
        places: dict[object, int] = {}
        for place in self.open():
            claim = self.requests[place].claim
            places.setdefault((claim.scope, claim.client_key) if claim else place, place)
        return list(places.values())


class Intake(Generic[Q, E]):
    """Records groups of requests through a ledger, within their deadlines."""

    def __init__(
        self,
        ledger: Ledger[Q, E],
        announce: Callable[[Sequence[E]], None],
        *,
        clock: Callable[[], datetime],
        weight: int,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        random: Random | None = None,
        replays: ReplayCache | None = None,
    ) -> None:
        """Record through ``ledger``, then ``announce`` what was recorded.

        ``replays`` remembers what requests with a key made, so that the store need not be asked.
        """
        self._replays = replays
        self._in_flight = InFlight()
        self._ledger: Ledger[Q, E] = ledger
        self._announce: Callable[[Sequence[E]], None] = announce
        self._clock = clock
        self._monotonic = monotonic
        self._sleep = sleep
        self._random = random or Random()  # noqa: S311 - jitter is no secret
        self._commits: GroupCommit[Q, E | Repeated] = GroupCommit(
            self.record_group,
            weigh=lambda request: weight + (request.claim is not None),
            weight_max=TRANSACTION_ACTIONS_MAX,
            after=self.announce_recorded,
        )

    def submit(self, request: Q) -> E | Repeated:
        """Record ``request`` with those that arrive together with it.

        Raises:
            Problem: it cannot be recorded (404, 422), or not in time (503); 409 while another
                request with the same key is on its way.
        """
        claim = request.claim
        if claim is None:
            return self._commit(request)
        if not self._in_flight.enter(claim):
            raise key_in_flight()
        try:
            return self._known([claim])[0] or self._commit(request)
        finally:
            self._in_flight.leave([claim])

    def submit_group(self, requests: Sequence[Q]) -> list[E | Repeated | Exception]:
        """Record ``requests``, of one caller and no more than a transaction holds, as a group.

        Returns:
            For each its entry, or what ``submit`` would have returned or raised. What was recorded
            is for the caller to announce.
        """
        outcomes: dict[int, E | Repeated | Exception] = {}
        entered = self._enter(requests, outcomes)
        try:
            keyed = [
                (place, request.claim)
                for place, request in enumerate(requests)
                if request.claim and place not in outcomes
            ]
            known = self._known([claim for _, claim in keyed])
            for (place, _), repeated in zip(keyed, known, strict=True):
                if repeated is not None:
                    outcomes[place] = repeated
            rest = [place for place in range(len(requests)) if place not in outcomes]
            recorded = self.record_group([requests[place] for place in rest])
            outcomes.update(zip(rest, recorded, strict=True))
            return [outcomes[place] for place in range(len(requests))]
        finally:
            self._in_flight.leave(entered)

    def _enter(
        self, requests: Sequence[Q], outcomes: dict[int, E | Repeated | Exception]
    ) -> list[IdempotencyClaim]:
        """Take the keys of a group; whoever asks for one that is taken gets its outcome."""
        entered: dict[tuple[str, str], IdempotencyClaim] = {}
        for place, request in enumerate(requests):
            claim = request.claim
            if claim is None or (claim.scope, claim.client_key) in entered:
                continue
            if self._in_flight.enter(claim):
                entered[claim.scope, claim.client_key] = claim
            else:
                outcomes[place] = key_in_flight()
        return list(entered.values())

    def _known(self, claims: Sequence[IdempotencyClaim]) -> list[Repeated | None]:
        """What is known without the store of earlier requests with these keys."""
        if self._replays is None or not claims:
            return [None] * len(claims)
        found = self._replays.find(claims, self._clock())
        return [Repeated(one.result, one.received_at) if one else None for one in found]

    def _commit(self, request: Q) -> E | Repeated:
        try:
            return self._commits.submit(request)
        except GroupFull:
            raise unavailable("Too many requests wait; try again shortly.") from None
        except LeaderLost as error:
            raise _problem_of(StoreOutcomeUnknown()) from error

    def announce_recorded(self, outcomes: Sequence[E | Repeated | Exception]) -> None:
        """Tell of what was recorded; whatever goes wrong here, the sweeper makes good."""
        recorded = [one for one in outcomes if not isinstance(one, Repeated | Exception)]
        if not recorded:
            return
        try:
            self._announce(recorded)
            self._remember(recorded)
        except Exception:
            log.exception("left_to_sweeper", entries=len(recorded))

    def _remember(self, recorded: Sequence[E]) -> None:
        """Keep for repetitions what was made with a key."""
        if self._replays is None:
            return
        ledger = self._ledger
        made = [
            (entry.claim, Replay(ledger.id_of(entry), ledger.received_at_of(entry)))
            for entry in recorded
            if entry.claim
        ]
        if made:
            self._replays.put(made, self._clock())

    def record_group(self, requests: Sequence[Q]) -> list[E | Repeated | Exception]:
        """Record ``requests`` and answer each one with its entry, or with what is wrong."""
        metrics.GROUP_SIZE.observe(len(requests))
        links = [request.trace for request in requests]
        with tracing.span("accept", links=links, requests=len(requests)):
            return self._record_group(requests)

    def _record_group(self, requests: Sequence[Q]) -> list[E | Repeated | Exception]:
        group: _Group[Q, E] = _Group(requests)
        for _ in range(ROUNDS_MAX):
            group.settle_repeats()
            self._expire(group)
            places = group.next_places()
            if not places:
                break
            self._round(group, places)
        late = unavailable("The order store is too busy; try again shortly.")
        return [group.outcomes.get(place, late) for place in range(len(requests))]

    def _round(self, group: _Group[Q, E], places: Sequence[int]) -> None:
        """Try to record the members at ``places`` in one transaction."""
        try:
            entries = self._ledger.prepare([group.requests[p] for p in places], group.floors)
            self._record(group, places, entries)
        except AcceptRefused as refused:
            self._take_out(group, places, refused)
        except StoreOutcomeUnknown as error:
            # With other ids, what may have been recorded already would be recorded again.
            self._fail(group, places, error)
        except StoreUnavailable as error:
            # Nothing was recorded: try again, less those that it gets too late for.
            group.trouble = error
            self._sleep(self._random.uniform(PAUSE_SECONDS_MIN, PAUSE_SECONDS_MAX))
        except StoreRefused as error:
            self._divide(group, places, error)
        else:
            self._succeed(group, places, entries)

    def _divide(self, group: _Group[Q, E], places: Sequence[int], error: StoreRefused) -> None:
        """Record each member alone: the one that the store calls invalid spoils no other."""
        if len(places) > 1:
            for place in places:
                self._expire(group)
                if place not in group.outcomes:
                    self._round(group, [place])
            return
        log.error("entry_refused", reason=str(error))
        group.outcomes[places[0]] = _refused_by_store()

    def _record(self, group: _Group[Q, E], places: Sequence[int], entries: Sequence[E]) -> None:
        """Record ``entries``; while the answer is lost, ask again for the very same ones."""
        token = str(uuid4())
        # Taken once: under one token the store takes the very same transaction only.
        now = self._clock()
        is_lost = False
        while True:
            try:
                self._ledger.record(entries, now, token)
            except StoreUnavailable as error:
                is_lost = is_lost or isinstance(error, StoreOutcomeUnknown)
                if not is_lost:
                    raise
                if not self._pause(group, places):
                    raise StoreOutcomeUnknown(str(error)) from error
            except AcceptRefused:
                # Refused by our own first try? Then one entry stands there, and so do all.
                if is_lost and self._stands(entries[0]):
                    return
                raise
            else:
                return

    def _stands(self, entry: E) -> bool:
        try:
            return self._ledger.was_recorded(entry)
        except StoreUnavailable as error:
            raise StoreOutcomeUnknown(str(error)) from error

    def _succeed(self, group: _Group[Q, E], places: Sequence[int], entries: Sequence[E]) -> None:
        metrics.ACCEPTED.add(self._ledger.what, n=len(entries))
        for place, entry in zip(places, entries, strict=True):
            group.outcomes[place] = entry
            claim = group.requests[place].claim
            if claim:
                made = Remembered(claim.fingerprint, self._ledger.id_of(entry))
                group.claims[claim.scope, claim.client_key] = made

    def _take_out(self, group: _Group[Q, E], places: Sequence[int], refused: AcceptRefused) -> None:
        group.floors.update(refused.newest_ids)
        for number, place in enumerate(places):
            request = group.requests[place]
            if isinstance(request, OrderRequest) and request.account_id in refused.unknown_accounts:
                group.outcomes[place] = account_not_found(request.account_id)
            elif number in refused.remembered and request.claim:
                group.outcomes[place] = _repeat(refused.remembered[number], request.claim)
            elif number in refused.impossible:
                log.error("entry_refused", reason=refused.impossible[number])
                group.outcomes[place] = _refused_by_store()

    def _fail(self, group: _Group[Q, E], places: Sequence[int], error: StoreUnavailable) -> None:
        log.warning("store_unavailable", error=str(error), requests=len(places))
        problem = _problem_of(error)
        for place in places:
            group.outcomes[place] = problem

    def _expire(self, group: _Group[Q, E]) -> None:
        """Answer at once for those that one more call to the store would make too late."""
        for place in group.open():
            if self._monotonic() + ATTEMPT_SECONDS > group.requests[place].deadline:
                group.outcomes[place] = _problem_of(group.trouble)

    def _pause(self, group: _Group[Q, E], places: Sequence[int]) -> bool:
        """Wait a moment if there is time for another try; tells whether there is."""
        pause = self._random.uniform(PAUSE_SECONDS_MIN, PAUSE_SECONDS_MAX)
        deadline = min(group.requests[place].deadline for place in places)
        if self._monotonic() + pause + ATTEMPT_SECONDS > deadline:
            return False
        self._sleep(pause)
        return True


class OrderLedger:
    """Orders: ids increase within each account, in the sequence in which they are recorded."""

    what = "order"

    def __init__(self, gateway: Gateway, ids: OrderIds, clock: Callable[[], datetime]) -> None:
        """Record in ``gateway`` under ids from ``ids``."""
        self._gateway = gateway
        self._ids = ids
        self._clock = clock

    def prepare(
        self, requests: Sequence[OrderRequest], floors: dict[int, str]
    ) -> list[AcceptedOrder]:
        """Give each request an id beyond all that its account is known to have."""
        now = self._clock()
        newest = dict(floors)
        entries = []
        for request in requests:
            account_id = request.account_id
            order_id = self._ids.next(now, after=newest.get(account_id, NO_ORDER_ID))
            newest[account_id] = order_id
            order = order_of(request.body, account_id, order_id, request.received_at)
            entries.append(AcceptedOrder(order, request.claim, request.origin))
        return entries

    def record(self, entries: Sequence[AcceptedOrder], now: datetime, token: str) -> None:
        """Record the orders as pending."""
        accepts.record_orders(self._gateway, entries, now, token)

    def was_recorded(self, entry: AcceptedOrder) -> bool:
        """Tell whether the order is there."""
        order = entry.order
        return reads.load_order(self._gateway, order.account_id, order.id) is not None

    def id_of(self, entry: AcceptedOrder) -> str:
        """The order's id."""
        return entry.order.id

    def received_at_of(self, entry: AcceptedOrder) -> datetime:
        """When the order was received."""
        return entry.order.received_at


class AccountLedger:
    """Accounts: ids come from one counter, taken by the group; a lost answer leaves a gap."""

    what = "account"

    def __init__(self, gateway: Gateway) -> None:
        """Record in ``gateway``."""
        self._gateway = gateway

    def prepare(
        self, requests: Sequence[AccountRequest], floors: dict[int, str]
    ) -> list[OpenedAccount]:
        """Take an id for each request."""
        del floors  # accounts have no sequence to keep
        try:
            ids = accepts.allocate_account_ids(self._gateway, len(requests))
        except StoreOutcomeUnknown as error:
            # Ids may be lost, but nothing is recorded yet.
            raise StoreUnavailable(str(error)) from error
        return [
            OpenedAccount(
                Account(account_id, request.body.cash, request.received_at),
                mark=str(uuid4()),
                claim=request.claim,
            )
            for account_id, request in zip(ids, requests, strict=True)
        ]

    def record(self, entries: Sequence[OpenedAccount], now: datetime, token: str) -> None:
        """Record the accounts."""
        accepts.record_accounts(self._gateway, entries, now, token)

    def was_recorded(self, entry: OpenedAccount) -> bool:
        """Tell whether the account is there (nobody else can have its id)."""
        return reads.load_account(self._gateway, entry.account.id) is not None

    def id_of(self, entry: OpenedAccount) -> str:
        """The account's id."""
        return str(entry.account.id)

    def received_at_of(self, entry: OpenedAccount) -> datetime:
        """When the account was asked for."""
        return entry.account.opened_at


def order_intake(
    gateway: Gateway,
    queue: TaskQueue,
    ids: OrderIds,
    clock: Callable[[], datetime],
    replays: ReplayCache | None = None,
) -> Intake[OrderRequest, AcceptedOrder]:
    """The way in for orders: recorded, then announced to the workers in one message."""

    def announce(entries: Sequence[AcceptedOrder]) -> None:
        refs = [(entry.order.account_id, entry.order.id) for entry in entries]
        try:
            queue.publish(refs, clock(), origins=[entry.origin for entry in entries])
        except QueueUnavailable as error:
            # They are recorded: the sweeper will find them.
            metrics.LEFT_TO_SWEEPER.add(n=len(refs))
            log.warning("left_to_sweeper", orders=len(refs), error=str(error))

    ledger = OrderLedger(gateway, ids, clock)
    weight = accepts.ACTIONS_PER_ORDER_MAX - 1
    return Intake(ledger, announce, clock=clock, weight=weight, replays=replays)


def account_intake(
    gateway: Gateway, clock: Callable[[], datetime], replays: ReplayCache | None = None
) -> Intake[AccountRequest, OpenedAccount]:
    """The way in for accounts."""
    ledger = AccountLedger(gateway)
    weight = accepts.ACTIONS_PER_ACCOUNT_MAX - 1
    return Intake(ledger, lambda _: None, clock=clock, weight=weight, replays=replays)


def fingerprint(body: AccountBody | OrderBody) -> str:
    """A hash of what a request asks for, the same however its body is written (SHA-256).

    Of a line of a bulk request it is the order's own: either may repeat the other.
    """
    schema = OrderBody if isinstance(body, OrderBody) else AccountBody
    fields = {name: str(getattr(body, name)) for name in schema.model_fields}
    return hashlib.sha256(to_json(fields)).hexdigest()


def order_scope(account_id: int) -> str:
    """Within what an order's Idempotency-Key counts: its account."""
    return f"account/{account_id}"


def order_of(body: OrderBody, account_id: int, order_id: str, received_at: datetime) -> Order:
    """The order that ``body`` asks for."""
    return Order(
        id=order_id,
        account_id=account_id,
        operation=body.operation,
        issuer_name=body.issuer_name,
        total_shares=body.total_shares,
        share_price=body.share_price,
        timestamp=body.timestamp,
        received_at=received_at,
    )


def _repeat(known: Remembered, claim: IdempotencyClaim) -> Repeated | Problem:
    if known.fingerprint == claim.fingerprint:
        return Repeated(known.result)
    return Problem(
        422,
        "IDEMPOTENCY_KEY_REUSED",
        "This Idempotency-Key was used before with another body.",
    )


def _refused_by_store() -> Problem:
    return internal_error("The store refused to record this request.")


def _problem_of(error: StoreUnavailable | None) -> Problem:
    if error is None:
        return unavailable("The order store is slow; try again shortly.")
    if isinstance(error, StoreOutcomeUnknown):
        return unavailable(
            "The order store did not answer in time, so the request may or may not have been"
            " recorded. Repeat it with the same Idempotency-Key to be sure."
        )
    if isinstance(error, StoreThrottled):
        return unavailable("The order store is too busy; try again shortly.")
    return unavailable("The order store cannot be reached; nothing was recorded.")
