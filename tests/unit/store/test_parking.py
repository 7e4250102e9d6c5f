"""Parked orders: found without a scan, replayed once, cancelled for good, always counted."""

from collections.abc import Callable, Sequence
from datetime import datetime
from random import Random
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from shared.domain.decision import park
from shared.domain.order import Order, OrderStatus
from shared.order_store import commits, items, keys, parking, reads
from shared.order_store.commits import CommitConflict
from shared.order_store.errors import StoreOutcomeUnknown, StoreThrottled, StoreUnavailable
from shared.order_store.gateway import Gateway
from shared.order_store.parking import PARKINGS_MAX, TRIES_MAX, InterventionRefused
from shared.order_store.records import (
    Balance,
    DecidedOrder,
    Parking,
    RecordedOrder,
    Settlement,
    UnreadableOrder,
)
from tests.unit.factories import (
    NOON,
    RULES,
    HookedGateway,
    accept,
    everything,
    make_account,
    make_order,
    make_settler,
    new_table,
    open_account,
    overwrite,
    raw,
    ref,
    seconds,
    stored_account,
    stored_order,
)

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

Park = Callable[[Gateway, Order], None]


@pytest.fixture
def gateway(client: "DynamoDBClient") -> HookedGateway:
    return HookedGateway(new_table(client))


def park_in_sequence(gateway: Gateway, order: Order, at: datetime = NOON) -> None:
    """Park as a worker does that can read the account."""
    before = stored_account(gateway, order.account_id)
    decided = DecidedOrder(order.account_id, order.id, order, park(before.account), "would not do")
    settlement = Settlement(before, before.account, (decided,), str(RULES), at)
    commits.commit(gateway, [settlement], token=str(uuid4()))


def park_alone(gateway: Gateway, order: Order, at: datetime = NOON) -> None:
    """Park as a worker does that cannot read the account."""
    assert commits.park_unreadable_account(gateway, *ref(order), at, "no account")


either_way = pytest.mark.parametrize("park_order", [park_in_sequence, park_alone])


def opened_with(gateway: Gateway, *numbers: int, account_id: int = 1) -> list[Order]:
    """Buys of different issuers by a new account, pending."""
    open_account(gateway, make_account("1000", account_id=account_id))
    return add(gateway, *numbers, account_id=account_id)


def add(gateway: Gateway, *numbers: int, account_id: int = 1) -> list[Order]:
    """More of them."""
    orders = [
        make_order("BUY", f"ISSUER {number}", account_id=account_id, number=number)
        for number in numbers
    ]
    accept(gateway, *orders)
    return orders


def parked_refs(gateway: Gateway, account_id: int | None = None) -> list[tuple[int, str]]:
    return [(one.account_id, one.id) for one in reads.parked_orders(gateway, account_id)]


def replay(gateway: Gateway, order: Order, pauses: list[float] | None = None) -> None:
    parking.replay(gateway, ref(order), sleep=(pauses if pauses is not None else []).append)


def cancel(gateway: Gateway, order: Order, at: datetime = NOON) -> None:
    parking.cancel(gateway, ref(order), lambda: at, sleep=lambda _: None)


def settle(gateway: Gateway, *orders: Order) -> None:
    assert make_settler(gateway).settle(map(ref, orders)) == []


def damage(gateway: Gateway, order: Order) -> None:
    overwrite(gateway, keys.order_key(*ref(order)), "share_price", {"S": "a lot"})


def spoil_account(gateway: Gateway, account_id: int = 1) -> None:
    overwrite(gateway, keys.account_key(account_id), "cash", {"S": "a lot"})


def status_of(gateway: Gateway, order: Order) -> OrderStatus | None:
    return items.read_status(raw(gateway, keys.order_key(*ref(order))))


def accepted_count(gateway: Gateway, account_id: int = 1) -> int:
    return items.read_head(raw(gateway, keys.head_key(account_id))).accepted


def check_counts(gateway: Gateway, *orders: Order, account_id: int = 1) -> None:
    """Accepted less decided is what is undecided, and every decision has its own number."""
    stored = [stored_order(gateway, order) for order in orders]
    decided = stored_account(gateway, account_id).decided
    pending = [one for one in stored if one.status is OrderStatus.PENDING]
    assert accepted_count(gateway, account_id) - decided == len(pending)
    places = [one.sequence for one in stored]
    places += [earlier.sequence for one in stored for earlier in one.parked]
    assert sorted(place for place in places if place) == list(range(1, decided + 1))


# Finding them


@either_way
def test_a_parked_order_is_found_and_the_sweeper_does_not_see_it(
    gateway: HookedGateway, park_order: Park
) -> None:
    (executed,) = opened_with(gateway, 1)
    settle(gateway, executed)
    parked, waiting = add(gateway, 2, 3)
    park_order(gateway, parked)
    assert parked_refs(gateway) == [ref(parked)]
    assert list(reads.undecided_before(gateway, NOON)) == [ref(waiting)]
    check_counts(gateway, executed, parked, waiting)


def test_what_is_told_of_a_parked_order(gateway: HookedGateway) -> None:
    (order,) = opened_with(gateway, 1)
    commits.count_attempt(gateway, *ref(order), 0)
    park_in_sequence(gateway, order)
    (found,) = reads.parked_orders(gateway)
    assert (found.account_id, found.id, found.attempts) == (1, order.id, 1)
    assert found.parking == Parking(NOON, "would not do", sequence=1)
    assert (found.order, found.problem, found.earlier) == (order, None, ())
    assert found.item == raw(gateway, keys.order_key(*ref(order)))


def test_a_parked_order_that_cannot_be_read_tells_why_it_was_parked(
    gateway: HookedGateway,
) -> None:
    (order,) = opened_with(gateway, 1)
    damage(gateway, order)
    park_alone(gateway, order)
    (found,) = reads.parked_orders(gateway)
    assert found.parking == Parking(NOON, "no account", sequence=None)
    assert found.order is None
    assert found.problem is not None
    assert "a lot" in found.problem or "cannot be read" in found.problem


@pytest.mark.parametrize("name", ["decided_at", "failure", "parked", "attempts"])
def test_a_parked_order_is_found_whatever_is_damaged(gateway: HookedGateway, name: str) -> None:
    (order,) = opened_with(gateway, 1)
    park_in_sequence(gateway, order)
    overwrite(gateway, keys.order_key(*ref(order)), name, {"BOOL": True})
    (found,) = reads.parked_orders(gateway)
    assert (found.problem is None) == (name == "attempts")
    assert (found.parking is None) == (name in ("decided_at", "failure"))
    assert (found.earlier, found.attempts) == ((), 0)


def test_what_the_index_names_late_is_left_out(gateway: HookedGateway) -> None:
    first, second = opened_with(gateway, 1, 2)
    park_in_sequence(gateway, first)
    park_in_sequence(gateway, second)
    # As if the index had not heard of it yet.
    overwrite(gateway, keys.order_key(*ref(first)), "status", items.text("pending"))
    assert parked_refs(gateway) == [ref(second)]


def test_parked_orders_come_page_by_page_oldest_first_and_by_account(
    gateway: HookedGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reads, "PAGE_ORDERS_MAX", 2)
    orders = [*opened_with(gateway, 1, 3, 5), *opened_with(gateway, 2, 4, account_id=2)]
    for order in orders:
        park_in_sequence(gateway, order)
    assert parked_refs(gateway) == sorted(map(ref, orders), key=lambda one: one[1])
    assert parked_refs(gateway, 2) == [ref(order) for order in orders[3:]]
    assert parked_refs(gateway, 3) == []


# Parking without the account


def test_an_order_parked_without_its_account_is_no_longer_counted_as_accepted(
    gateway: HookedGateway,
) -> None:
    first, second = opened_with(gateway, 1, 2)
    park_alone(gateway, first)
    assert accepted_count(gateway) == 1
    assert not commits.park_unreadable_account(gateway, *ref(first), NOON, "again")
    assert accepted_count(gateway) == 1
    check_counts(gateway, first, second)


@pytest.mark.parametrize("damaged", [{"S": "many"}, {"N": "0"}], ids=["text", "zero"])
def test_an_order_is_parked_though_its_head_cannot_count(
    gateway: HookedGateway, damaged: dict[str, Any]
) -> None:
    (order,) = opened_with(gateway, 1)
    overwrite(gateway, keys.head_key(1), "accepted", damaged)
    park_alone(gateway, order)
    assert parked_refs(gateway) == [ref(order)]
    assert raw(gateway, keys.head_key(1))["accepted"] == damaged


# Replay


@either_way
def test_a_replayed_order_is_pending_as_if_it_had_just_been_accepted(
    gateway: HookedGateway, park_order: Park
) -> None:
    order, other = opened_with(gateway, 1, 2)
    fresh = raw(gateway, keys.order_key(*ref(order)))
    commits.count_attempt(gateway, *ref(order), 0)
    park_order(gateway, order)
    parked = stored_order(gateway, order)

    replay(gateway, order)

    seen = Parking(NOON, str(parked.failure), parked.sequence)
    assert stored_order(gateway, order) == RecordedOrder(
        order, OrderStatus.PENDING, attempts=0, parked=(seen,)
    )
    item = raw(gateway, keys.order_key(*ref(order)))
    assert {name: value for name, value in item.items() if name != "parked"} == fresh
    assert parked_refs(gateway) == []
    assert set(reads.undecided_before(gateway, NOON)) == {ref(order), ref(other)}
    check_counts(gateway, order, other)


@either_way
@pytest.mark.parametrize("is_named", [True, False], ids=["named", "found"])
def test_a_replayed_order_is_decided_in_its_account_s_present_state(
    gateway: HookedGateway, park_order: Park, is_named: bool
) -> None:
    parked, meanwhile, later = opened_with(gateway, 1, 2, 3)
    park_order(gateway, parked)
    settle(gateway, meanwhile)
    replay(gateway, parked)
    settle(gateway, *([parked, later] if is_named else [later]))
    settle(gateway, parked)
    statuses = [status_of(gateway, order) for order in (parked, meanwhile, later)]
    assert statuses == [OrderStatus.EXECUTED] * 3
    assert stored_account(gateway).account.cash == 970
    check_counts(gateway, parked, meanwhile, later)


def test_a_replayed_order_gets_the_next_place_in_the_sequence(gateway: HookedGateway) -> None:
    parked, meanwhile = opened_with(gateway, 1, 2)
    park_in_sequence(gateway, parked)
    settle(gateway, meanwhile)
    replay(gateway, parked)
    settle(gateway, parked)
    recorded = stored_order(gateway, parked)
    assert (recorded.sequence, [one.sequence for one in recorded.parked]) == (3, [1])
    assert recorded.balance == Balance(
        stored_account(gateway).account.cash, stored_account(gateway).account.positions
    )
    assert (recorded.failure, recorded.attempts) == (None, 0)


def test_a_replayed_order_older_than_the_last_executed_one_is_rejected_by_the_rules(
    gateway: HookedGateway,
) -> None:
    (parked,) = opened_with(gateway, 1)
    newer = make_order("BUY", "MSFT", number=2, at=NOON + seconds(6))
    accept(gateway, newer)
    park_in_sequence(gateway, parked)
    settle(gateway, newer)
    replay(gateway, parked)
    settle(gateway, parked)
    recorded = stored_order(gateway, parked)
    assert recorded.status is OrderStatus.REJECTED
    assert list(recorded.business_errors) == ["INVALID_OPERATION"]


def test_a_replayed_order_that_fails_again_is_parked_again(gateway: HookedGateway) -> None:
    (order,) = opened_with(gateway, 1)
    for hour in range(PARKINGS_MAX):
        park_in_sequence(gateway, order, at=NOON + seconds(3600 * hour))
        replay(gateway, order)
    parked = stored_order(gateway, order).parked
    assert [one.sequence for one in parked] == list(range(1, PARKINGS_MAX + 1))
    assert accepted_count(gateway) - stored_account(gateway).decided == 1

    park_in_sequence(gateway, order, at=NOON + seconds(3600 * PARKINGS_MAX))
    with pytest.raises(InterventionRefused, match="cancel it"):
        replay(gateway, order)
    assert stored_order(gateway, order).status is OrderStatus.FAILED


def test_a_second_replay_leaves_a_later_parking_alone(gateway: HookedGateway) -> None:
    (order,) = opened_with(gateway, 1)
    park_in_sequence(gateway, order)
    other = HookedGateway(gateway)

    def replay_and_park_again() -> None:
        replay(other, order)
        park_in_sequence(other, order, at=NOON + seconds(1))

    gateway.before.append(replay_and_park_again)
    replay(gateway, order)
    recorded = stored_order(gateway, order)
    assert recorded.status is OrderStatus.FAILED
    assert [one.sequence for one in recorded.parked] == [1]
    check_counts(gateway, order)


def fail_with(error: Exception) -> Callable[[], None]:
    def fail() -> None:
        raise error

    return fail


@pytest.mark.parametrize("is_written", [True, False])
def test_a_replay_whose_answer_was_lost_counts_once(
    gateway: HookedGateway, is_written: bool
) -> None:
    order, _ = opened_with(gateway, 1, 2)
    park_in_sequence(gateway, order)
    hooks = gateway.after if is_written else gateway.before
    hooks.append(fail_with(StoreOutcomeUnknown("lost")))
    pauses: list[float] = []
    replay(gateway, order, pauses)
    assert len(pauses) == 1
    assert status_of(gateway, order) is OrderStatus.PENDING
    assert accepted_count(gateway) == 3  # two, and one for the replay
    assert len(stored_order(gateway, order).parked) == 1


def test_a_replay_that_was_not_done_is_not_taken_for_an_earlier_one(gateway: HookedGateway) -> None:
    order, _ = opened_with(gateway, 1, 2)
    for minutes in (0, 1):
        park_in_sequence(gateway, order, NOON + seconds(60 * minutes))
        if minutes:
            gateway.before.append(fail_with(StoreOutcomeUnknown("lost")))
        replay(gateway, order)
        assert status_of(gateway, order) is OrderStatus.PENDING
    assert len(stored_order(gateway, order).parked) == 2


@pytest.mark.parametrize("change", [replay, cancel])
def test_a_change_whose_last_answer_was_lost_is_known_to_be_done(
    gateway: HookedGateway, change: Callable[..., None]
) -> None:
    (order,) = opened_with(gateway, 1)
    park_in_sequence(gateway, order)
    tried_in_vain = fail_with(StoreOutcomeUnknown("lost"))
    gateway.before += [tried_in_vain] * (TRIES_MAX - 1)
    gateway.before.append(lambda: gateway.after.append(fail_with(StoreOutcomeUnknown("lost"))))
    change(gateway, order)
    assert status_of(gateway, order) is not OrderStatus.FAILED


def test_an_order_that_was_parked_and_replayed_meanwhile_is_not_parked_uncounted(
    gateway: HookedGateway,
) -> None:
    (order,) = opened_with(gateway, 1)
    other = HookedGateway(gateway)

    def park_first() -> None:
        commits.park_unreadable_account(other, *ref(order), NOON, "no account")

    class ReplayedBetween(HookedGateway):
        def update(self, **arguments: Any) -> Any:
            replay(other, order)
            return super().update(**arguments)

    racing = ReplayedBetween(gateway)
    racing.before.append(park_first)
    assert not commits.park_unreadable_account(racing, *ref(order), NOON, "no account")
    assert status_of(gateway, order) is OrderStatus.FAILED
    assert accepted_count(gateway) == 0


def test_a_replay_at_a_busy_store_is_given_up_in_the_end(gateway: HookedGateway) -> None:
    (order,) = opened_with(gateway, 1)
    park_in_sequence(gateway, order)
    gateway.before += [fail_with(StoreThrottled("busy"))] * TRIES_MAX
    pauses: list[float] = []
    with pytest.raises(InterventionRefused, match="busy"):
        replay(gateway, order, pauses)
    assert len(pauses) == TRIES_MAX
    assert status_of(gateway, order) is OrderStatus.FAILED


def test_a_store_that_is_away_is_said_at_once(gateway: HookedGateway) -> None:
    (order,) = opened_with(gateway, 1)
    park_in_sequence(gateway, order)
    for act in (replay, cancel):
        gateway.before.append(fail_with(StoreUnavailable("down")))
        with pytest.raises(StoreUnavailable, match="down"):
            act(gateway, order)
    assert status_of(gateway, order) is OrderStatus.FAILED


def refused(act: Callable[[Gateway, Order], None], gateway: Gateway, order: Order) -> str:
    """Why ``act`` refused, having changed nothing."""
    then = everything(gateway)
    with pytest.raises(InterventionRefused) as caught:
        act(gateway, order)
    assert everything(gateway) == then
    return str(caught.value)


def test_only_parked_orders_are_replayed(gateway: HookedGateway) -> None:
    (executed,) = opened_with(gateway, 1)
    settle(gateway, executed)
    waiting, cancelled = add(gateway, 2, 3)
    cancel(gateway, cancelled)
    assert refused(replay, gateway, executed) == "it is not parked but executed"
    assert refused(replay, gateway, waiting) == "it is not parked but pending"
    assert refused(replay, gateway, cancelled) == "it is not parked but cancelled"
    assert refused(replay, gateway, make_order(number=9)) == "there is no such order"
    overwrite(gateway, keys.order_key(*ref(waiting)), "status", items.text("odd"))
    assert refused(replay, gateway, waiting) == "it is not parked but of no readable status"


def test_an_order_that_would_only_be_parked_again_is_not_replayed(gateway: HookedGateway) -> None:
    (order,) = opened_with(gateway, 1)
    price = raw(gateway, keys.order_key(*ref(order)))["share_price"]
    damage(gateway, order)
    park_in_sequence(gateway, order)
    assert "repair it first" in refused(replay, gateway, order)
    overwrite(gateway, keys.order_key(*ref(order)), "share_price", price)
    replay(gateway, order)
    settle(gateway, order)
    assert status_of(gateway, order) is OrderStatus.EXECUTED


def test_an_order_whose_account_cannot_be_read_is_not_replayed(gateway: HookedGateway) -> None:
    (order,) = opened_with(gateway, 1)
    cash = raw(gateway, keys.account_key(1))["cash"]
    spoil_account(gateway)
    park_alone(gateway, order)
    assert "account has to be repaired first: ACCOUNT#1" in refused(replay, gateway, order).replace(
        "{'S': '", ""
    ).replace("'}", "")
    overwrite(gateway, keys.account_key(1), "cash", cash)
    gateway._client.delete_item(TableName=gateway.table_name, Key=keys.head_key(1))
    assert "head item is missing" in refused(replay, gateway, order)


# Cancelling what is parked


@either_way
@pytest.mark.parametrize("is_damaged", [True, False])
def test_a_parked_order_is_cancelled_where_it_stands(
    gateway: HookedGateway, park_order: Park, is_damaged: bool
) -> None:
    order, other = opened_with(gateway, 1, 2)
    if is_damaged:
        damage(gateway, order)
    park_order(gateway, order)
    before = raw(gateway, keys.order_key(*ref(order)))
    account, accepted = stored_account(gateway), accepted_count(gateway)

    cancel(gateway, order, at=NOON + seconds(9))

    after = raw(gateway, keys.order_key(*ref(order)))
    assert after["status"] == items.text("cancelled")
    assert {**after, "status": before["status"], keys.SHARD: before[keys.SHARD]} == before
    assert keys.SHARD not in after
    assert (stored_account(gateway), accepted_count(gateway)) == (account, accepted)
    assert parked_refs(gateway) == []
    assert list(reads.undecided_before(gateway, NOON)) == [ref(other)]


def test_a_parked_order_without_its_time_can_be_cancelled(gateway: HookedGateway) -> None:
    (order,) = opened_with(gateway, 1)
    park_in_sequence(gateway, order)
    gateway.update(
        Key=keys.order_key(*ref(order)),
        UpdateExpression="REMOVE #at",
        ExpressionAttributeNames={"#at": "decided_at"},
    )
    cancel(gateway, order)
    assert status_of(gateway, order) is OrderStatus.CANCELLED


def test_of_a_replay_and_a_cancel_at_once_one_wins(gateway: HookedGateway) -> None:
    first, second = opened_with(gateway, 1, 2)
    for order in (first, second):
        park_in_sequence(gateway, order)
    other = HookedGateway(gateway)
    gateway.before.append(lambda: cancel(other, first))
    with pytest.raises(InterventionRefused, match="not parked but cancelled"):
        replay(gateway, first)
    # The other way round, the cancel finds it pending and cancels that.
    gateway.before.append(lambda: replay(other, second))
    cancel(gateway, second)
    assert status_of(gateway, second) is OrderStatus.CANCELLED
    assert stored_order(gateway, second).sequence == 3
    check_counts(gateway, first, second)


# Cancelling what is pending


def test_a_pending_order_is_cancelled_as_its_account_s_next_decision(
    gateway: HookedGateway,
) -> None:
    (executed,) = opened_with(gateway, 1)
    settle(gateway, executed)
    first, second = add(gateway, 2, 3)
    before = stored_account(gateway)

    cancel(gateway, second, at=NOON + seconds(1))

    assert stored_order(gateway, second) == RecordedOrder(
        second,
        OrderStatus.CANCELLED,
        decided_at=NOON + seconds(1),
        sequence=2,
        balance=Balance(before.account.cash, before.account.positions),
    )
    after = stored_account(gateway)
    assert (after.account, after.decided) == (before.account, 2)
    # The first is undecided still, and is found.
    assert after.decided_through == executed.id
    check_counts(gateway, executed, first, second)
    settle(gateway, first)
    assert stored_order(gateway, first).sequence == 3
    assert list(reads.undecided_before(gateway, NOON)) == []
    check_counts(gateway, executed, first, second)


def test_a_poisonous_order_that_is_cancelled_blocks_nobody_any_more(
    gateway: HookedGateway,
) -> None:
    poison, behind = opened_with(gateway, 1, 2)
    damage(gateway, poison)
    settle(gateway, poison, behind)
    assert status_of(gateway, behind) is OrderStatus.PENDING
    cancel(gateway, poison)
    settle(gateway, behind)
    assert status_of(gateway, behind) is OrderStatus.EXECUTED
    assert stored_order(gateway, behind).sequence == 2
    found = reads.load_order(gateway, *ref(poison))
    assert isinstance(found, UnreadableOrder)
    assert (found.status, found.is_pending) == (OrderStatus.CANCELLED, False)


def test_a_decision_that_comes_before_the_cancel_stands(gateway: HookedGateway) -> None:
    (order,) = opened_with(gateway, 1)
    other = HookedGateway(gateway)
    gateway.before.append(lambda: settle(other, order))
    with pytest.raises(InterventionRefused, match="it is executed already"):
        cancel(gateway, order)
    assert status_of(gateway, order) is OrderStatus.EXECUTED
    check_counts(gateway, order)


def test_a_cancel_that_comes_before_the_decision_stands(gateway: HookedGateway) -> None:
    order, other_order = opened_with(gateway, 1, 2)
    other = HookedGateway(gateway)
    gateway.before.append(lambda: cancel(other, order))
    settle(gateway, order, other_order)
    assert status_of(gateway, order) is OrderStatus.CANCELLED
    assert stored_order(gateway, other_order).sequence == 2
    assert stored_account(gateway).account.cash == 990


def test_another_decision_of_the_account_only_delays_a_cancel(gateway: HookedGateway) -> None:
    first, second = opened_with(gateway, 1, 2)
    other = HookedGateway(gateway)
    gateway.before.append(lambda: park_in_sequence(other, first))
    cancel(gateway, second)
    assert stored_order(gateway, second).sequence == 2
    check_counts(gateway, first, second)


@pytest.mark.parametrize("is_parked", [True, False])
@pytest.mark.parametrize("is_written", [True, False])
def test_a_cancel_whose_answer_was_lost_counts_once(
    gateway: HookedGateway, is_written: bool, is_parked: bool
) -> None:
    (order,) = opened_with(gateway, 1)
    if is_parked:
        park_in_sequence(gateway, order)
    hooks = gateway.after if is_written else gateway.before
    hooks.append(fail_with(StoreOutcomeUnknown("lost")))
    cancel(gateway, order)
    assert status_of(gateway, order) is OrderStatus.CANCELLED
    check_counts(gateway, order)


class Contended(HookedGateway):
    """An account on which somebody else always decides first."""

    def transact(self, actions: Sequence[Any], token: str) -> None:
        del actions, token
        self.transactions += 1
        raise CommitConflict({1})


def test_a_cancel_that_others_keep_overtaking_is_given_up(gateway: HookedGateway) -> None:
    (order,) = opened_with(gateway, 1)
    contended = Contended(gateway)
    assert "others keep changing it" in refused(cancel, contended, order)
    assert contended.transactions == TRIES_MAX


def test_a_pending_order_of_an_account_that_cannot_be_read_is_not_cancelled(
    gateway: HookedGateway,
) -> None:
    (order,) = opened_with(gateway, 1)
    spoil_account(gateway)
    assert "account has to be repaired first" in refused(cancel, gateway, order)
    gateway._client.delete_item(TableName=gateway.table_name, Key=keys.account_key(1))
    assert "its item is missing" in refused(cancel, gateway, order)


def test_what_is_final_is_not_cancelled(gateway: HookedGateway) -> None:
    (executed,) = opened_with(gateway, 1)
    settle(gateway, executed)
    cancelled, odd = add(gateway, 2, 3)
    cancel(gateway, cancelled)
    overwrite(gateway, keys.order_key(*ref(odd)), "status", items.text("odd"))
    assert refused(cancel, gateway, executed) == "it is executed already"
    assert refused(cancel, gateway, cancelled) == "it is cancelled already"
    assert "status cannot be read" in refused(cancel, gateway, odd)
    assert refused(cancel, gateway, make_order(number=9)) == "there is no such order"


# Any mix


class _Mix:
    """Random steps of clients, workers and operators on one account."""

    def __init__(self, gateway: Gateway, seed: int) -> None:
        self.gateway, self.random = gateway, Random(seed)
        self.at = NOON
        self.orders: list[Order] = []
        open_account(gateway, make_account("50"))

    def step(self) -> None:
        self.at += seconds(1)
        order = self.one_of(*OrderStatus)
        move = self.random.choice([self.accept, *self.moves(order)])
        move()

    def moves(self, order: Order | None) -> list[Callable[[], None]]:
        """What can be done with ``order`` as it stands."""
        if order is None:
            return []
        status = status_of(self.gateway, order)
        if status is OrderStatus.FAILED:
            return [lambda: replay(self.gateway, order), lambda: self.cancel(order)]
        if status is OrderStatus.PENDING:
            return [
                lambda: settle(self.gateway, order),
                lambda: park_in_sequence(self.gateway, order, self.at),
                lambda: park_alone(self.gateway, order, self.at),
                lambda: self.cancel(order),
            ]
        return []

    def accept(self) -> None:
        number = len(self.orders) + 1
        self.orders.append(make_order("BUY", f"I{number}", at=self.at, number=number))
        accept(self.gateway, self.orders[-1])

    def cancel(self, order: Order) -> None:
        cancel(self.gateway, order, self.at)

    def one_of(self, *statuses: OrderStatus) -> Order | None:
        fit = [order for order in self.orders if status_of(self.gateway, order) in statuses]
        return self.random.choice(fit) if fit else None


@pytest.mark.parametrize("seed", range(12))
def test_accepted_less_decided_is_what_is_undecided_after_any_mix(
    gateway: HookedGateway, seed: int
) -> None:
    """Also: the decisions, parkings included, are numbered without a gap."""
    mix = _Mix(gateway, seed)
    for _ in range(25):
        mix.step()
        check_counts(gateway, *mix.orders)
    while waiting := mix.one_of(OrderStatus.PENDING):
        settle(gateway, waiting)
        check_counts(gateway, *mix.orders)
    assert list(reads.undecided_before(gateway, NOON)) == []
    parked = [order for order in mix.orders if status_of(gateway, order) is OrderStatus.FAILED]
    assert parked_refs(gateway) == [ref(order) for order in parked]
