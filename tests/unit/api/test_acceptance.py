from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from random import Random
from typing import TYPE_CHECKING, Any, Literal
from uuid import uuid4

import pytest

from api.acceptance import (
    ATTEMPT_SECONDS,
    AccountLedger,
    AccountRequest,
    Intake,
    OrderLedger,
    OrderRequest,
    Repeated,
    fingerprint,
)
from api.problems import Problem
from api.validation import AccountBody, OrderBody
from shared.ids import OrderIds
from shared.order_store import keys, reads
from shared.order_store.errors import (
    StoreOutcomeUnknown,
    StoreRefused,
    StoreThrottled,
    StoreUnavailable,
)
from shared.order_store.gateway import Gateway
from shared.order_store.records import AcceptedOrder, IdempotencyClaim, OpenedAccount
from tests.unit.api.parts import FakeClock, order_body
from tests.unit.factories import (
    NOON,
    accept,
    make_account,
    make_order,
    new_table,
    open_account,
    overwrite,
    stored_account,
)

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

Step = Literal["ok", "applied but lost", "not applied and lost", "throttled", "down"]
Outcome = AcceptedOrder | Repeated | Exception

LATE = timedelta(days=400)
"""How far another host's clock may run ahead of ours in these tests."""


class FakeTime:
    """Monotonic time that passes by sleeping and waiting alone; moves the wall clock along."""

    def __init__(self, clock: FakeClock) -> None:
        self.now = 1000.0
        self.slept: list[float] = []
        self._clock = clock

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.slept.append(seconds)
        self.pass_by(seconds)

    def pass_by(self, seconds: float) -> None:
        self.now += seconds
        self._clock.forward(timedelta(seconds=seconds))


class IdempotentParameterMismatch(Exception):
    """One token came with two different transactions."""


class ScriptedGateway(Gateway):
    """A table whose transactions go as the script says, and as they should when it ends."""

    def __init__(self, inner: Gateway, client: "DynamoDBClient", time: FakeTime) -> None:
        super().__init__(client, inner.table_name, sleep=lambda _: None)
        self.script: deque[Step] = deque()
        self.after_script: Step = "ok"
        self.honours_tokens = True
        self.call_seconds = 0.0
        self.transactions: list[tuple[str, Sequence[Mapping[str, Any]]]] = []
        self._time = time
        self._done: dict[str, Sequence[Mapping[str, Any]]] = {}

    def transact(self, actions: Sequence[Mapping[str, Any]], token: str) -> None:
        self._time.pass_by(self.call_seconds)
        earlier = [sent for name, sent in self.transactions if name == token]
        self.transactions.append((token, actions))
        if any(list(sent) != list(actions) for sent in earlier):
            raise IdempotentParameterMismatch(token)
        step = self.script.popleft() if self.script else self.after_script
        if step == "throttled":
            raise StoreThrottled("slow down")
        if step == "down":
            raise StoreUnavailable("connection refused")
        if step != "not applied and lost":
            self._apply(actions, token)
        if step in ("applied but lost", "not applied and lost"):
            self._time.pass_by(ATTEMPT_SECONDS)
            raise StoreOutcomeUnknown("no answer")

    def _apply(self, actions: Sequence[Mapping[str, Any]], token: str) -> None:
        if self.honours_tokens and token in self._done:
            return
        super().transact(actions, str(uuid4()))
        self._done[token] = actions


@dataclass
class Desk:
    """An intake of orders with everything around it in the test's hands."""

    gateway: ScriptedGateway
    clock: FakeClock
    time: FakeTime
    announced: list[list[str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.orders: Intake[OrderRequest, AcceptedOrder] = Intake(
            OrderLedger(self.gateway, OrderIds(), self.clock),
            self._announce,
            clock=self.clock,
            weight=2,
            monotonic=self.time.monotonic,
            sleep=self.time.sleep,
            random=Random(1),
        )
        self.accounts: Intake[AccountRequest, OpenedAccount] = Intake(
            AccountLedger(self.gateway),
            lambda _: None,
            clock=self.clock,
            weight=2,
            monotonic=self.time.monotonic,
            sleep=self.time.sleep,
            random=Random(1),
        )

    def record(
        self, requests: Sequence[OrderRequest]
    ) -> list[AcceptedOrder | Repeated | Exception]:
        """What a leader does for its group."""
        outcomes = self.orders.record_group(requests)
        self.orders.announce_recorded(outcomes)
        return outcomes

    def _announce(self, entries: Sequence[AcceptedOrder]) -> None:
        self.announced.append([entry.order.id for entry in entries])

    def order(
        self, account_id: int = 1, *, key: str | None = None, shares: int = 1, within: float = 20.0
    ) -> OrderRequest:
        body = OrderBody(**order_body(total_shares=str(shares), timestamp="1772474400"))
        scope = f"account/{account_id}"
        claim = IdempotencyClaim(scope, key, fingerprint(body)) if key else None
        return OrderRequest(account_id, body, self.clock(), claim, self.time.now + within)

    def account(self, cash: str, *, key: str | None = None, within: float = 20.0) -> AccountRequest:
        body = AccountBody(cash=Decimal(cash))
        claim = IdempotencyClaim("accounts", key, fingerprint(body)) if key else None
        return AccountRequest(body, self.clock(), claim, self.time.now + within)

    def recorded(self, account_id: int = 1) -> list[str]:
        """Ids of the orders in the store, oldest first."""
        found, _ = reads.list_orders(self.gateway, account_id, 200, None)
        orders = [order.id if hasattr(order, "id") else order.order.id for order in found]
        head = reads.load_for_settlement(self.gateway, [account_id], []).heads[account_id]
        assert head.accepted == len(orders), "every order is counted once"
        return orders[::-1]


@pytest.fixture(name="desk")
def _desk(dynamodb: "DynamoDBClient") -> Desk:
    clock = FakeClock()
    time = FakeTime(clock)
    inner = new_table(dynamodb)
    for account_id in (1, 2):
        open_account(inner, make_account(account_id=account_id))
    return Desk(ScriptedGateway(inner, dynamodb, time), clock, time)


def id_of(outcome: Outcome) -> str:
    assert isinstance(outcome, AcceptedOrder), outcome
    return outcome.order.id


def problem_of(outcome: object, status: int, code: str) -> Problem:
    assert isinstance(outcome, Problem), outcome
    assert (outcome.status, outcome.code) == (status, code)
    return outcome


# Groups


def test_a_group_is_recorded_in_one_transaction_and_announced_once(desk: Desk) -> None:
    outcomes = desk.record([desk.order(1), desk.order(2), desk.order(1)])
    first, second, third = map(id_of, outcomes)
    assert desk.recorded(1) == [first, third]
    assert desk.recorded(2) == [second]
    assert len(desk.gateway.transactions) == 1
    assert desk.announced == [[first, second, third]]
    assert desk.time.slept == []


def test_an_order_is_recorded_as_it_was_asked_for(desk: Desk) -> None:
    request = desk.order(1, shares=7)
    (outcome,) = desk.record([request])
    found = reads.load_order(desk.gateway, 1, id_of(outcome))
    assert found is not None
    assert not hasattr(found, "reason")
    order = found.order
    assert (order.total_shares, order.share_price) == (7, Decimal("80.5"))
    assert (order.timestamp, order.received_at) == (NOON, request.received_at)
    assert (order.operation, order.issuer_name) == ("BUY", "AAPL")


def test_an_unknown_account_does_not_fail_its_neighbours(desk: Desk) -> None:
    outcomes = desk.record([desk.order(1), desk.order(99), desk.order(2)])
    problem_of(outcomes[1], 404, "ACCOUNT_NOT_FOUND")
    assert desk.recorded(1) == [id_of(outcomes[0])]
    assert desk.recorded(2) == [id_of(outcomes[2])]
    assert desk.announced == [[id_of(outcomes[0]), id_of(outcomes[2])]]


def test_a_group_of_unknown_accounts_alone_announces_nothing(desk: Desk) -> None:
    for outcome in desk.record([desk.order(98), desk.order(99)]):
        problem_of(outcome, 404, "ACCOUNT_NOT_FOUND")
    assert desk.announced == []


def test_ids_that_are_too_small_are_made_larger(desk: Desk) -> None:
    ahead = make_order(account_id=1, number=int(LATE.total_seconds() * 1000))
    accept(desk.gateway, ahead)
    desk.gateway.transactions.clear()
    outcomes = desk.record([desk.order(1), desk.order(2), desk.order(1)])
    ids = [id_of(outcome) for outcome in outcomes]
    assert desk.recorded(1) == [ahead.id, ids[0], ids[2]]
    assert desk.recorded(2) == [ids[1]]
    assert len(desk.gateway.transactions) == 2
    assert desk.announced == [ids]


# Lost answers


@pytest.mark.parametrize("honours_tokens", [True, False])
@pytest.mark.parametrize("key", [None, "k"])
def test_what_was_recorded_with_a_lost_answer_is_recorded_exactly_once(
    desk: Desk, honours_tokens: bool, key: str | None
) -> None:
    desk.gateway.honours_tokens = honours_tokens
    desk.gateway.script.append("applied but lost")
    outcomes = desk.record([desk.order(1, key=key), desk.order(2)])
    assert desk.recorded(1) == [id_of(outcomes[0])]
    assert desk.recorded(2) == [id_of(outcomes[1])]
    assert desk.announced == [[id_of(outcome) for outcome in outcomes]]


@pytest.mark.parametrize("honours_tokens", [True, False])
def test_several_lost_answers_in_a_row_record_exactly_once(
    desk: Desk, honours_tokens: bool
) -> None:
    desk.gateway.honours_tokens = honours_tokens
    desk.gateway.script += ["not applied and lost", "applied but lost", "not applied and lost"]
    desk.gateway.script += ["throttled", "down"]
    outcomes = desk.record([desk.order(1, key="k"), desk.order(1)])
    assert desk.recorded(1) == [id_of(outcome) for outcome in outcomes]
    assert len(desk.announced) == 1


def test_what_was_not_recorded_with_a_lost_answer_is_recorded_by_the_retry(desk: Desk) -> None:
    desk.gateway.script.append("not applied and lost")
    (outcome,) = desk.record([desk.order(1, key="k")])
    assert desk.recorded(1) == [id_of(outcome)]
    assert len(desk.gateway.transactions) == 2


def test_a_lost_answer_is_asked_for_again_with_the_very_same_transaction(desk: Desk) -> None:
    desk.gateway.script += ["not applied and lost", "not applied and lost"]
    desk.record([desk.order(1, key="k"), desk.order(2)])
    first, second, third = desk.gateway.transactions
    assert first == second == third
    assert desk.clock.now - NOON > timedelta(seconds=2), "though the clock went on"


def test_after_a_lost_answer_a_refusal_by_somebody_else_is_believed(desk: Desk) -> None:
    desk.gateway.script.append("not applied and lost")
    (outcome,) = desk.record([desk.order(99)])
    problem_of(outcome, 404, "ACCOUNT_NOT_FOUND")
    assert desk.announced == []


def test_after_a_lost_answer_that_did_not_happen_ids_may_still_be_made_larger(
    desk: Desk,
) -> None:
    ahead = make_order(account_id=1, number=int(LATE.total_seconds() * 1000))
    accept(desk.gateway, ahead)
    desk.gateway.script.append("not applied and lost")
    (outcome,) = desk.record([desk.order(1)])
    assert desk.recorded(1) == [ahead.id, id_of(outcome)]


@pytest.mark.parametrize("lost", ["applied but lost", "not applied and lost"])
def test_an_outcome_unknown_until_the_deadline_says_so_and_is_never_tried_with_other_ids(
    desk: Desk, lost: Step
) -> None:
    desk.gateway.honours_tokens = False
    desk.gateway.script.append(lost)
    desk.gateway.after_script = "not applied and lost"
    request = desk.order(1, key="k", within=8.0)
    (outcome,) = desk.record([request])
    problem = problem_of(outcome, 503, "STORE_UNAVAILABLE")
    assert "may or may not have been recorded" in problem.detail
    assert "Idempotency-Key" in problem.detail
    assert desk.time.now <= request.deadline
    assert len(desk.gateway.transactions) > 1
    assert len({token for token, _ in desk.gateway.transactions}) == 1
    assert len(desk.recorded(1)) == (lost == "applied but lost")
    assert desk.announced == []


def test_an_answer_once_lost_stays_unknown_when_the_store_then_goes_away(desk: Desk) -> None:
    desk.gateway.script.append("applied but lost")
    desk.gateway.after_script = "down"
    (outcome,) = desk.record([desk.order(1, within=8.0)])
    assert "may or may not" in problem_of(outcome, 503, "STORE_UNAVAILABLE").detail
    assert len({token for token, _ in desk.gateway.transactions}) == 1


def test_a_lost_answer_that_cannot_be_looked_up_is_never_tried_with_other_ids(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> None:
        raise StoreUnavailable("connection refused")

    desk.gateway.honours_tokens = False
    desk.gateway.script.append("applied but lost")
    with monkeypatch.context() as patch:
        patch.setattr(desk.gateway, "get", fail)
        (outcome,) = desk.record([desk.order(1, within=1000.0)])
    assert "may or may not" in problem_of(outcome, 503, "STORE_UNAVAILABLE").detail
    assert len({token for token, _ in desk.gateway.transactions}) == 1
    assert len(desk.recorded(1)) == 1


def test_an_unknown_outcome_can_be_made_sure_of_with_the_same_key(desk: Desk) -> None:
    desk.gateway.script.append("applied but lost")
    desk.gateway.after_script = "not applied and lost"
    (unknown,) = desk.record([desk.order(1, key="k", within=4.0)])
    problem_of(unknown, 503, "STORE_UNAVAILABLE")
    desk.gateway.after_script = "ok"
    (again,) = desk.record([desk.order(1, key="k")])
    assert again == Repeated(desk.recorded(1)[0])
    assert len(desk.recorded(1)) == 1


# A store that refuses


@pytest.mark.parametrize("step", ["throttled", "down"])
def test_a_store_that_refuses_for_a_moment_is_asked_again_after_a_pause(
    desk: Desk, step: Step
) -> None:
    desk.gateway.script += [step, step]
    (outcome,) = desk.record([desk.order(1)])
    assert desk.recorded(1) == [id_of(outcome)]
    assert len(desk.time.slept) == 2


def test_a_store_that_stays_down_is_told_within_the_deadline(desk: Desk) -> None:
    desk.gateway.after_script = "down"
    requests = [desk.order(1, within=2.5), desk.order(2, within=2.5)]
    for outcome in desk.record(requests):
        problem = problem_of(outcome, 503, "STORE_UNAVAILABLE")
        assert "nothing was recorded" in problem.detail
        assert problem.retry_after_seconds == 1
    assert desk.time.now <= requests[0].deadline
    assert len(desk.gateway.transactions) > 1
    assert desk.recorded(1) == desk.recorded(2) == []
    assert desk.announced == []


def test_a_store_that_stays_too_busy_is_told_within_the_deadline(desk: Desk) -> None:
    desk.gateway.after_script = "throttled"
    desk.gateway.call_seconds = 1.0
    request = desk.order(1, within=6.0)
    (outcome,) = desk.record([request])
    assert "too busy" in problem_of(outcome, 503, "STORE_UNAVAILABLE").detail
    assert desk.time.now <= request.deadline


def test_a_store_that_refuses_at_once_for_ever_ends_in_a_problem(desk: Desk) -> None:
    desk.gateway.after_script = "throttled"
    (outcome,) = desk.record([desk.order(1, within=1e9)])
    problem_of(outcome, 503, "STORE_UNAVAILABLE")


def test_a_request_too_late_for_one_more_call_is_answered_without_it(desk: Desk) -> None:
    late = desk.order(1, within=ATTEMPT_SECONDS - 0.01)
    outcomes = desk.record([late, desk.order(2)])
    problem_of(outcomes[0], 503, "STORE_UNAVAILABLE")
    assert desk.recorded(1) == []
    assert desk.recorded(2) == [id_of(outcomes[1])]
    desk.gateway.transactions.clear()
    (alone,) = desk.record([late])
    problem_of(alone, 503, "STORE_UNAVAILABLE")
    assert desk.gateway.transactions == []


# Keys


def test_one_key_twice_in_a_group_is_recorded_once(desk: Desk) -> None:
    outcomes = desk.record([desk.order(1, key="k"), desk.order(1, key="k")])
    order_id = id_of(outcomes[0])
    assert outcomes[1] == Repeated(order_id)
    assert desk.recorded(1) == [order_id]
    assert desk.announced == [[order_id]]


def test_one_key_with_two_bodies_in_a_group_is_refused_to_the_second(desk: Desk) -> None:
    requests = [desk.order(1, key="k"), desk.order(1, key="k", shares=2), desk.order(1, key="j")]
    outcomes = desk.record(requests)
    problem_of(outcomes[1], 422, "IDEMPOTENCY_KEY_REUSED")
    assert desk.recorded(1) == [id_of(outcomes[0]), id_of(outcomes[2])]


def test_one_key_at_two_accounts_is_two_keys(desk: Desk) -> None:
    outcomes = desk.record([desk.order(1, key="k"), desk.order(2, key="k")])
    assert desk.recorded(1) == [id_of(outcomes[0])]
    assert desk.recorded(2) == [id_of(outcomes[1])]


def test_a_key_of_an_earlier_group_does_not_fail_its_neighbours(desk: Desk) -> None:
    (first,) = desk.record([desk.order(1, key="k")])
    outcomes = desk.record(
        [desk.order(1, key="k"), desk.order(1, key="k", shares=2), desk.order(1), desk.order(99)]
    )
    assert outcomes[0] == Repeated(id_of(first))
    problem_of(outcomes[1], 422, "IDEMPOTENCY_KEY_REUSED")
    problem_of(outcomes[3], 404, "ACCOUNT_NOT_FOUND")
    assert desk.recorded(1) == [id_of(first), id_of(outcomes[2])]


def test_a_second_holder_of_a_key_is_tried_when_the_first_cannot_be_recorded(desk: Desk) -> None:
    late = desk.order(1, key="k", within=ATTEMPT_SECONDS - 0.01)
    outcomes = desk.record([late, desk.order(1, key="k")])
    problem_of(outcomes[0], 503, "STORE_UNAVAILABLE")
    assert desk.recorded(1) == [id_of(outcomes[1])]


# Accounts


def opened(outcome: object) -> OpenedAccount:
    assert isinstance(outcome, OpenedAccount), outcome
    return outcome


def test_accounts_of_a_group_are_opened_in_one_transaction(dynamodb: "DynamoDBClient") -> None:
    clock = FakeClock()
    time = FakeTime(clock)
    desk = Desk(ScriptedGateway(new_table(dynamodb), dynamodb, time), clock, time)
    outcomes = desk.accounts.record_group([desk.account("1"), desk.account("2.5")])
    ids = [opened(outcome).account.id for outcome in outcomes]
    assert ids == [1, 2]
    cash = [stored_account(desk.gateway, account_id).account.cash for account_id in ids]
    assert cash == [1, Decimal("2.5")]
    assert len(desk.gateway.transactions) == 1


@pytest.mark.parametrize("honours_tokens", [True, False])
@pytest.mark.parametrize("lost", ["applied but lost", "not applied and lost"])
def test_an_account_whose_answer_was_lost_is_opened_once(
    dynamodb: "DynamoDBClient", honours_tokens: bool, lost: Step
) -> None:
    clock = FakeClock()
    time = FakeTime(clock)
    desk = Desk(ScriptedGateway(new_table(dynamodb), dynamodb, time), clock, time)
    desk.gateway.honours_tokens = honours_tokens
    desk.gateway.script.append(lost)
    outcomes = desk.accounts.record_group([desk.account("1", key="k"), desk.account("2")])
    assert [opened(outcome).account.id for outcome in outcomes] == [1, 2]
    assert reads.load_account(desk.gateway, 3) is None
    assert desk.accounts.record_group([desk.account("1", key="k")]) == [Repeated("1")]


def test_the_wall_clock_at_a_repetition_does_not_change_what_is_sent(desk: Desk) -> None:
    desk.gateway.script += ["not applied and lost"] * 3
    (outcome,) = desk.record([desk.order(1, key="k")])
    expiries = {
        action["Put"]["Item"]["expires_at"]["N"]
        for _, actions in desk.gateway.transactions
        for action in actions
        if "Put" in action and "expires_at" in action["Put"]["Item"]
    }
    assert expiries == {str(int((NOON + timedelta(hours=24)).timestamp()))}
    assert desk.recorded(1) == [id_of(outcome)]


def test_a_damaged_head_spoils_only_the_orders_of_its_account(desk: Desk) -> None:
    overwrite(desk.gateway, keys.head_key(2), "newest", {"N": "1"})

    outcomes = desk.record([desk.order(1), desk.order(2), desk.order(1, shares=2)])

    problem_of(outcomes[1], 500, "INTERNAL_ERROR")
    assert desk.recorded(1) == [id_of(outcomes[0]), id_of(outcomes[2])]


def test_a_late_member_does_not_fail_those_that_have_time(desk: Desk) -> None:
    desk.gateway.script.extend(["throttled"])
    late = desk.order(1, within=ATTEMPT_SECONDS + 0.001)

    outcomes = desk.record([late, desk.order(2)])

    problem_of(outcomes[0], 503, "STORE_UNAVAILABLE")
    assert desk.recorded(2) == [id_of(outcomes[1])]
    assert desk.recorded(1) == []


def test_a_member_that_the_store_calls_invalid_is_refused_alone(desk: Desk) -> None:
    class Choosy(ScriptedGateway):
        def transact(self, actions: Sequence[Mapping[str, Any]], token: str) -> None:
            if any(keys.head_key(2) == action.get("Update", {}).get("Key") for action in actions):
                raise StoreRefused("ValidationException")
            super().transact(actions, token)

    desk.gateway.__class__ = Choosy

    outcomes = desk.record([desk.order(1), desk.order(2), desk.order(1, shares=2)])

    problem_of(outcomes[1], 500, "INTERNAL_ERROR")
    assert desk.recorded(1) == [id_of(outcomes[0]), id_of(outcomes[2])]


def test_members_that_are_tried_alone_keep_their_deadlines(desk: Desk) -> None:
    class Refusing(ScriptedGateway):
        def transact(self, actions: Sequence[Mapping[str, Any]], token: str) -> None:
            if self.after_script == "ok":
                self.after_script = "not applied and lost"
                raise StoreRefused("Request Entity Too Large")
            super().transact(actions, token)

    desk.gateway.__class__ = Refusing
    requests = [desk.order(1, shares=number) for number in range(1, 11)]

    outcomes = desk.record(requests)

    assert desk.time.now <= requests[0].deadline
    assert len({token for token, _ in desk.gateway.transactions}) == 1
    for outcome in outcomes:
        problem_of(outcome, 503, "STORE_UNAVAILABLE")


def test_what_is_recorded_is_accepted_even_if_announcing_breaks(desk: Desk) -> None:
    def break_down(_: Sequence[AcceptedOrder]) -> None:
        raise AttributeError("'NoneType' object has no attribute 'hostname'")

    intake: Intake[OrderRequest, AcceptedOrder] = Intake(
        OrderLedger(desk.gateway, OrderIds(), desk.clock),
        break_down,
        clock=desk.clock,
        weight=2,
        monotonic=desk.time.monotonic,
        sleep=desk.time.sleep,
    )

    outcome = intake.submit(desk.order(1))

    assert desk.recorded(1) == [id_of(outcome)]
