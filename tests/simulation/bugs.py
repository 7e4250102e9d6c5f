"""Seeded bugs: each breaks one thing in the real code that the promises rest on.

They exist to show that the simulation would find them. Each is a patch for the time of a ``with``;
the product knows nothing of them.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Final
from unittest.mock import patch

from botocore.exceptions import BotoCoreError, ClientError
from greenlet import getcurrent
from redis.exceptions import RedisError

import worker.processing
from api.acceptance import Intake, OrderLedger, Repeated
from api.bulk import BulkIntake
from api.problems import Problem, order_not_found
from api.status import StatusReader
from shared.order_store import accepts, commits, decisions, parking, reads
from shared.order_store.errors import StoreOutcomeUnknown, StoreUnavailable
from shared.order_store.gateway import TRANSACTION_ACTIONS_MAX, Gateway
from shared.order_store.records import AcceptedOrder, Head, RecordedAccount, Settlement
from tests.simulation import world
from tests.simulation.scheduler import Strand
from tests.simulation.world import ApiProcess, Report, WorkerProcess
from worker.processing import Settler, Undecided
from worker.sweeper import Sweeper


@dataclass(frozen=True, slots=True)
class Bug:
    """One bug, and what has to come of it: that, and not just something, shows it was found."""

    put_in: Callable[[], AbstractContextManager[None]]
    problem: str
    """A part of a problem that the bug must cause."""
    event: str = ""
    """A part of an event in the trace without which the problem has another cause."""

    def is_shown_by(self, report: Report) -> bool:
        """Tell whether ``report`` holds what has to come of the bug."""
        return any(self.problem in problem for problem in report.problems) and any(
            self.event in str(event) for event in report.trace
        )


BUGS: Final[dict[str, Bug]] = {}


def bug(
    problem: str, event: str = ""
) -> Callable[[Callable[[], Iterator[None]]], Callable[[], AbstractContextManager[None]]]:
    """Register a seeded bug under its function's name, with what must come of it (``Bug``)."""

    def register(body: Callable[[], Iterator[None]]) -> Callable[[], AbstractContextManager[None]]:
        manager = contextmanager(body)
        BUGS[body.__name__] = Bug(manager, problem, event)
        return manager

    return register


def _without_condition(action: dict[str, Any]) -> dict[str, Any]:
    """An update that only asks its item to exist, as a careless one would."""
    names = {
        name: attribute
        for name, attribute in action["ExpressionAttributeNames"].items()
        if name in action["UpdateExpression"]
    }
    values = {
        name: value
        for name, value in action["ExpressionAttributeValues"].items()
        if name in action["UpdateExpression"].replace(",", " ").split()
    }
    return {
        **action,
        "ConditionExpression": "attribute_exists(#pk)",
        "ExpressionAttributeNames": {**names, "#pk": "pk"},
        "ExpressionAttributeValues": values,
    }


# Deciding.


@bug("decisions where")
def drop_version_condition() -> Iterator[None]:
    """A commit does not ask whether the account still is what it was."""
    real = commits._account_update

    def careless(*args: Any) -> dict[str, Any]:
        return _without_condition(real(*args))

    with patch.object(commits, "_account_update", careless):
        yield


@bug("is written after it was")
def drop_pending_condition() -> Iterator[None]:
    """A commit does not ask whether its orders still are pending."""
    real = commits._order_update

    def careless(*args: Any) -> dict[str, Any]:
        return _without_condition(real(*args))

    with patch.object(commits, "_order_update", careless):
        yield


@bug("is written after it was")
def drop_both_conditions() -> Iterator[None]:
    """A commit asks nothing: the last worker wins."""
    with drop_version_condition(), drop_pending_condition():
        yield


@bug("decided in another sequence than accepted")
def no_query_for_earlier_orders() -> Iterator[None]:
    """A worker decides the orders that its message names, whatever came before them."""

    def hasty(
        _self: Settler, _recorded: RecordedAccount, _head: Head, named: Sequence[Undecided]
    ) -> tuple[list[Undecided], bool]:
        return sorted(named, key=lambda order: order.order.id), True  # type: ignore[union-attr]

    with patch.object(Settler, "_in_sequence", hasty):
        yield


@bug("decided in another sequence than accepted")
def believe_in_half_a_transaction() -> Iterator[None]:
    """A worker decides what it sees of a transaction that is being committed."""
    real, read, id_beyond = Settler._in_sequence, reads.undecided_after, "~"

    def hasty(self: Settler, *args: Any) -> tuple[list[Undecided], bool]:
        return real(self, *args)[0], True

    def read_all(gateway: Gateway, account_id: int, through: str, _: str, limit: int) -> Any:
        return read(gateway, account_id, through, id_beyond, max(limit, TRANSACTION_ACTIONS_MAX))

    with (
        patch.object(Settler, "_in_sequence", hasty),
        patch.object(reads, "undecided_after", read_all),
    ):
        yield


@bug("not quiet after", event="POISON")
def try_all_behind_a_deadly_order() -> Iterator[None]:
    """What is to be parked is decided in one go with the orders behind it, deadly ones too."""
    with patch.object(worker.processing._Work, "to_try", lambda _self, _id, queue: queue):
        yield


@bug("decided in another sequence than accepted", event="PUZZLE")
def skip_what_cannot_be_decided() -> Iterator[None]:
    """An order on which the rules fail is left behind, and those after it are decided."""
    real = Settler._decide_all

    def skipping(self: Settler, account: Any, queue: Any, suspect: bool) -> Any:
        decided: list[Any] = []
        for undecided in queue:
            more, account, _ = real(self, account, [undecided], suspect)
            decided += more
        return decided, account, False

    with patch.object(Settler, "_decide_all", skipping):
        yield


@bug("orders decided without their account")
def commit_in_two_steps() -> Iterator[None]:
    """The account and its orders are written one after the other, not as one."""
    real = Gateway.transact

    def split(self: Gateway, actions: Sequence[Mapping[str, Any]], token: str) -> None:
        is_commit = "decided_through" in str(actions[0].get("Update", {}).get("UpdateExpression"))
        if not is_commit:
            real(self, actions, token)
            return
        real(self, actions[:1], token)
        real(self, actions[1:], token[::-1])

    with patch.object(Gateway, "transact", split):
        yield


@bug("to a read begun after that")
def cache_before_commit() -> Iterator[None]:
    """A worker publishes what it is about to commit."""
    real = commits.commit

    def hasty(gateway: Gateway, settlements: Sequence[Settlement], token: str) -> None:
        process = _current_process()
        if isinstance(process, WorkerProcess):
            process.settler._publish(settlements)
        real(gateway, settlements, token)

    with patch.object(commits, "commit", hasty):
        yield


@bug("to a read begun after that")
def believe_a_lost_commit() -> Iterator[None]:
    """A commit whose answer was lost is taken for done."""
    real = commits.commit

    def trusting(gateway: Gateway, settlements: Sequence[Settlement], token: str) -> None:
        with contextlib.suppress(StoreOutcomeUnknown):
            real(gateway, settlements, token)

    with patch.object(commits, "commit", trusting):
        yield


@bug("The account has no order")
def read_without_consistency() -> Iterator[None]:
    """Single items are read as they may have been a moment ago."""

    def careless(self: Gateway, key: Any) -> Any:
        def read() -> Any:
            return self._client.get_item(TableName=self.table_name, Key=key)

        return self._read("get_item", read).get("Item")

    with patch.object(Gateway, "get", careless):
        yield


# The queue and the sweeper.


@bug("accepted and never decided")
def ack_early() -> Iterator[None]:
    """A worker acknowledges a message before it has settled its orders."""
    real = WorkerProcess.handle

    def hasty(self: WorkerProcess, tag: int, names: list[str], kwargs: dict[str, Any]) -> None:
        self.acknowledge(tag)
        real(self, tag, names, kwargs)

    with patch.object(WorkerProcess, "handle", hasty):
        yield


@bug("accepted and never decided")
def publish_before_record() -> Iterator[None]:
    """Orders are announced first and recorded then."""
    real = OrderLedger.record

    def hasty(self: OrderLedger, entries: Sequence[AcceptedOrder], now: Any, token: str) -> None:
        process = _current_process()
        assert isinstance(process, ApiProcess)
        process.orders._announce(entries)
        real(self, entries, now, token)

    with (
        patch.object(OrderLedger, "record", hasty),
        patch.object(Intake, "announce_recorded", lambda _self, _outcomes: None),
    ):
        yield


@bug("accepted and never decided")
def no_sweeper() -> Iterator[None]:
    """Nobody looks for forgotten orders."""
    with patch.object(Sweeper, "sweep", lambda _self: 0):
        yield


@bug("accepted and never decided")
def sweep_once() -> Iterator[None]:
    """An order that was sent again is never sent a third time."""
    real = Sweeper._lost

    def forgetful(self: Sweeper, lost_before: Any) -> Any:
        return [ref for ref in real(self, lost_before) if ref not in self._sent]

    with patch.object(Sweeper, "_lost", forgetful):
        yield


@bug("(now pending)")
def sweep_without_condition() -> Iterator[None]:
    """The sweeper notes in the order's item that it was sent again, and writes all of it back."""
    real = Sweeper._lost

    def writing(self: Sweeper, lost_before: Any) -> Any:
        found = real(self, lost_before)
        for account_id, order_id in found:
            item = self._gateway.get(_order_key(account_id, order_id))
            if item is not None and item["status"]["S"] == "pending":
                self._gateway._client.put_item(
                    TableName=self._gateway.table_name, Item={**item, "resent": {"BOOL": True}}
                )
        return found

    def safe(self: Sweeper, lost_before: Any) -> Any:
        try:
            return writing(self, lost_before)
        except (BotoCoreError, ClientError) as error:
            raise StoreUnavailable(str(error)) from error

    with patch.object(Sweeper, "_lost", safe):
        yield


# Accepting.


@bug("the newest id goes back")
def drop_head_condition() -> Iterator[None]:
    """Recording does not ask whether the new ids are beyond the newest."""
    real = accepts._count

    def careless(*args: Any) -> dict[str, Any]:
        return {"Update": _without_condition(real(*args)["Update"])}

    with patch.object(accepts, "_count", careless):
        yield


@bug("one request made 2 orders")
def new_ids_after_lost_answer() -> Iterator[None]:
    """A record whose answer was lost is made anew, under other ids."""
    real = OrderLedger.record

    def forgetful(
        self: OrderLedger, entries: Sequence[AcceptedOrder], now: Any, token: str
    ) -> None:
        try:
            real(self, entries, now, token)
        except StoreOutcomeUnknown as error:
            raise StoreUnavailable(str(error)) from error

    with patch.object(OrderLedger, "record", forgetful):
        yield


@bug("one request made 2 orders")
def trust_a_late_refusal() -> Iterator[None]:
    """A refusal after a lost answer is believed: nobody looks whether the first try is there."""
    with patch.object(Intake, "_stands", lambda _self, _entry: False):
        yield


@bug("accepted, but the table holds []")
def answer_before_record() -> Iterator[None]:
    """A store that does not answer is hoped to have recorded."""
    real = OrderLedger.record

    def hopeful(self: OrderLedger, entries: Sequence[AcceptedOrder], now: Any, token: str) -> None:
        with contextlib.suppress(StoreOutcomeUnknown):
            real(self, entries, now, token)

    with patch.object(OrderLedger, "record", hopeful):
        yield


@bug("one request made 2 orders")
def drop_key_condition() -> Iterator[None]:
    """A key that was used before is claimed once more."""
    real = accepts._claim

    def careless(*args: Any) -> dict[str, Any]:
        put = real(*args)["Put"]
        return {"Put": {"TableName": put["TableName"], "Item": put["Item"]}}

    with patch.object(accepts, "_claim", careless):
        yield


@bug("one request made 2 orders", event="Redis has forgotten")
def idempotency_truth_in_redis() -> Iterator[None]:
    """Which keys were used stands in the cache alone."""
    real_record, real_submit = OrderLedger.record, Intake.submit

    def forgetful(
        self: OrderLedger, entries: Sequence[AcceptedOrder], now: Any, token: str
    ) -> None:
        bare = [AcceptedOrder(entry.order) for entry in entries]
        real_record(self, bare, now, token)

    def looking(self: Intake[Any, Any], request: Any) -> Any:
        process = _current_process()
        claim = request.claim
        if claim is None or not isinstance(process, ApiProcess) or self is not process.orders:
            return real_submit(self, request)
        redis: Any = process.cache._redis
        name = f"idempotency:{claim.scope}:{claim.client_key}"
        known = None
        with contextlib.suppress(RedisError):
            known = redis.get(name)
        if known is not None:
            used_for, order_id = known.decode().split(" ")
            if used_for != claim.fingerprint:
                raise Problem(422, "IDEMPOTENCY_KEY_REUSED", "used before with another body")
            return Repeated(order_id)
        if name in redis._server.forgotten:
            process.note("Redis has forgotten", name)
        entry: Any = real_submit(self, request)
        if isinstance(entry, AcceptedOrder):
            with contextlib.suppress(RedisError):
                redis.set(name, f"{claim.fingerprint} {entry.order.id}".encode())
        return entry

    with (
        patch.object(OrderLedger, "record", forgetful),
        patch.object(Intake, "submit", looking),
    ):
        yield


@bug("was answered 422")
def one_scope_for_all_accounts() -> Iterator[None]:
    """A key counts for all accounts, and not for its own alone."""
    with patch.object(world, "order_scope", lambda _: "account"):
        yield


@bug("where 422 belongs")
def compare_no_bodies() -> Iterator[None]:
    """Whoever brings a key gets the answer of its first request, whatever he asks for."""
    with patch.object(world, "fingerprint", lambda _: "equal"):
        yield


@bug("was answered 404")
def look_for_an_order_that_lands() -> Iterator[None]:
    """An order that its key names and that is not to be seen yet is said not to exist."""

    def hasty(self: StatusReader, account_id: int, order_id: str) -> Any:
        recorded = reads.load_order(self._gateway, account_id, order_id)
        if recorded is None:
            raise order_not_found(order_id)
        return recorded

    with patch.object(StatusReader, "recorded", hasty):
        yield


@bug("accepted and never decided")
def leave_with_the_client() -> Iterator[None]:
    """What a bulk request recorded is not announced when its client leaves early."""
    real: Callable[..., Any] = BulkIntake.answers

    def forget(_self: BulkIntake, unannounced: list[AcceptedOrder]) -> None:
        unannounced.clear()

    def leaving(self: BulkIntake, *args: Any, **kwargs: Any) -> Iterator[bytes]:
        pieces = real(self, *args, **kwargs)
        for piece in pieces:
            try:
                yield piece
            except GeneratorExit:
                with patch.object(BulkIntake, "_announce", forget):
                    pieces.close()
                raise

    with patch.object(BulkIntake, "answers", leaving):
        yield


# Reading, and what operators do.


@bug("but reads do not show it")
def cache_an_older_status() -> Iterator[None]:
    """The API caches whatever it read, pending orders too."""
    real = StatusReader.order

    def eager(self: StatusReader, account_id: int, order_id: str) -> bytes:
        body = real(self, account_id, order_id)
        self._cache.put([(account_id, order_id, body)])
        return body

    with patch.object(StatusReader, "order", eager):
        yield


@bug("accepted less decided is -1")
def uncounted_replay() -> Iterator[None]:
    """A replayed order is not counted as accepted once more."""
    real = parking._replay

    def short(*args: Any) -> Any:
        return real(*args)[:1]

    with patch.object(parking, "_replay", short):
        yield


@bug("heard None of")
def look_ahead_alone() -> Iterator[None]:
    """Who follows an account is not told of replayed orders, which stand before his place."""
    with patch.object(decisions, "_look_back", lambda *_: iter(())):
        yield


@bug("is parked after")
def replay_keeps_attempts() -> Iterator[None]:
    """A replayed order keeps the attempts that were counted before it was parked."""
    kept = tuple(name for name in parking._DECISION if name != "attempts")
    with patch.object(parking, "_DECISION", kept):
        yield


@bug("orders decided without their account")
def cancel_without_version() -> Iterator[None]:
    """A pending order is cancelled without a place in its account's decisions."""

    def careless(gateway: Gateway, before: RecordedAccount, order_id: str, now: Any) -> None:
        key = _order_key(before.account.id, order_id)
        gateway.update(
            Key=key,
            UpdateExpression="SET #s = :c, #d = :at REMOVE undecided_shard",
            ExpressionAttributeNames={"#s": "status", "#d": "decided_at"},
            ExpressionAttributeValues={":c": {"S": "cancelled"}, ":at": {"S": now.isoformat()}},
        )

    with patch.object(commits, "cancel_pending", careless):
        yield


def _order_key(account_id: int, order_id: str) -> Any:
    return {"pk": {"S": f"ACCOUNT#{account_id}"}, "sk": {"S": f"ORDER#{order_id}"}}


def _current_process() -> Any:
    strand = getcurrent()
    return strand.process if isinstance(strand, Strand) else None
