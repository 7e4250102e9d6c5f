"""Settling against the store: in sequence, once, and past whatever cannot be decided."""

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any, cast
from uuid import uuid4

import fakeredis
import pytest
import structlog
from botocore.exceptions import EndpointConnectionError

from shared import metrics
from shared.domain.account import Account
from shared.domain.decision import Decision, Rules, decide
from shared.domain.order import Order, OrderStatus
from shared.metrics import Key
from shared.order_store import commits, keys, parking
from shared.order_store.commits import SETTLEMENT_ORDERS_MAX
from shared.order_store.errors import (
    StoreOutcomeUnknown,
    StoreRefused,
    StoreThrottled,
    StoreUnavailable,
)
from shared.order_store.gateway import (
    CONDITION_FAILED,
    Gateway,
    Reason,
    TransactionCancelled,
)
from shared.representation import show_order, to_json
from tests.unit.factories import (
    NOON,
    RULES,
    FakeCache,
    FakeTime,
    HookedGateway,
    accept,
    everything,
    make_account,
    make_order,
    make_settlement,
    make_settler,
    new_table,
    open_account,
    order_id,
    overwrite,
    raw,
    ref,
    seconds,
    stored_account,
    stored_order,
    turns_in,
)
from worker.processing import (
    BACKOFF_SECONDS_FIRST,
    BACKOFF_SECONDS_MAX,
    PARTS_LOOKS_MAX,
    PARTS_SECONDS_FIRST,
    ROUNDS_MAX,
    SETTLE_SECONDS_MAX,
)
from worker.turns import TURN_WAIT_SECONDS_MAX

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

ATTEMPTS_MAX = 3


@pytest.fixture
def gateway(client: "DynamoDBClient") -> HookedGateway:
    return HookedGateway(new_table(client))


@pytest.fixture
def undecidable(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Ids of orders on which the rules fail."""
    order_ids: set[str] = set()

    def decide_or_fail(account: Account, order: Order, rules: Rules) -> tuple[Account, Decision]:
        if order.id in order_ids:
            raise ArithmeticError("more than can be reckoned with")
        return decide(account, order, rules)

    monkeypatch.setattr("worker.processing.decide", decide_or_fail)
    return order_ids


def fail_with(error: Exception) -> Callable[[], None]:
    def fail() -> None:
        raise error

    return fail


def accepted(
    gateway: Gateway, *numbers: int, account_id: int = 1, cash: str | Decimal = "1000"
) -> list[Order]:
    """Buys of different issuers by an account of its own, recorded."""
    open_account(gateway, make_account(cash, account_id=account_id))
    orders = [
        make_order("BUY", f"ISSUER {number}", account_id=account_id, number=number)
        for number in numbers
    ]
    accept(gateway, *orders)
    return orders


def statuses(gateway: Gateway, orders: Sequence[Order]) -> list[str]:
    """Read from the items themselves, for some cannot be read as orders."""
    return [raw(gateway, keys.order_key(*ref(order)))["status"]["S"] for order in orders]


def attempts_at(gateway: Gateway, order: Order) -> int:
    item = raw(gateway, keys.order_key(*ref(order)))
    return int(item["attempts"]["N"]) if "attempts" in item else 0


def corrupt(gateway: Gateway, order: Order) -> None:
    overwrite(gateway, keys.order_key(*ref(order)), "share_price", {"S": "a lot"})


class Counting(HookedGateway):
    """A table that counts the reads, and at which something may happen before a query."""

    def __init__(self, gateway: Gateway) -> None:
        super().__init__(gateway)
        self.batches = 0
        self.queries = 0
        self.before_query: list[Callable[[], None]] = []

    def batch_get(self, keys: Sequence[keys.Key]) -> list[keys.Item]:
        self.batches += 1
        return super().batch_get(keys)

    def query(self, **arguments: Any) -> tuple[list[keys.Item], keys.Key | None]:
        self.queries += 1
        if self.before_query:
            self.before_query.pop(0)()
        return super().query(**arguments)


# In sequence


def dependent_orders(gateway: Gateway) -> list[Order]:
    """Orders of which each is only possible right after the one before."""
    open_account(gateway, make_account("100"))
    orders = [
        make_order("BUY", "AAPL", 10, "10", number=1),
        make_order("SELL", "AAPL", 10, "11", number=2),
        make_order("BUY", "MSFT", 11, "10", number=3),
        make_order("SELL", "MSFT", 11, "1", number=4),
    ]
    accept(gateway, *orders)
    return orders


def test_messages_that_arrive_in_reverse_are_decided_in_sequence(gateway: HookedGateway) -> None:
    orders = dependent_orders(gateway)
    settler = make_settler(gateway)
    for order in reversed(orders):
        assert settler.settle([ref(order)]) == []
    assert statuses(gateway, orders) == ["executed"] * 4
    assert [stored_order(gateway, order).sequence for order in orders] == [1, 2, 3, 4]
    assert stored_account(gateway).account.cash == 11


def test_names_in_reverse_in_one_message_are_decided_in_sequence(gateway: HookedGateway) -> None:
    orders = dependent_orders(gateway)
    assert make_settler(gateway).settle(ref(order) for order in reversed(orders)) == []
    assert [stored_order(gateway, order).sequence for order in orders] == [1, 2, 3, 4]
    assert gateway.transactions == 3  # account, orders, settlement


def test_orders_that_were_accepted_earlier_are_decided_too(gateway: HookedGateway) -> None:
    orders = dependent_orders(gateway)
    make_settler(gateway).settle([ref(orders[2])])
    assert statuses(gateway, orders[:3]) == ["executed"] * 3
    assert [stored_order(gateway, order).sequence for order in orders[:3]] == [1, 2, 3]


def test_one_commit_settles_a_message_of_several_accounts(gateway: HookedGateway) -> None:
    orders = [
        *accepted(gateway, 1, 2, account_id=1),
        *accepted(gateway, 3, account_id=2),
        *accepted(gateway, 4, account_id=3),
    ]
    gateway.transactions = 0
    assert make_settler(gateway).settle(map(ref, orders)) == []
    assert statuses(gateway, orders) == ["executed"] * 4
    assert gateway.transactions == 1


def test_more_accounts_than_a_transaction_holds_are_settled_by_one_message(
    gateway: HookedGateway,
) -> None:
    orders = [
        order for number in range(1, 52) for order in accepted(gateway, number, account_id=number)
    ]
    gateway.transactions = 0
    assert make_settler(gateway).settle(map(ref, orders)) == []
    assert set(statuses(gateway, orders)) == {"executed"}
    assert gateway.transactions == 2


def test_more_orders_than_a_transaction_holds_are_decided_in_sequence(
    gateway: HookedGateway,
) -> None:
    orders = accepted(gateway, *range(1, SETTLEMENT_ORDERS_MAX + 3), cash="10000")
    assert make_settler(gateway).settle(map(ref, orders)) == []
    assert [stored_order(gateway, order).sequence for order in orders] == [
        *range(1, SETTLEMENT_ORDERS_MAX + 3)
    ]


def test_a_message_for_the_last_of_many_orders_decides_them_all(gateway: HookedGateway) -> None:
    orders = accepted(gateway, *range(1, SETTLEMENT_ORDERS_MAX + 3), cash="10000")
    assert make_settler(gateway).settle([ref(orders[-1])]) == []
    assert stored_order(gateway, orders[-1]).sequence == SETTLEMENT_ORDERS_MAX + 2
    assert stored_account(gateway).decided == SETTLEMENT_ORDERS_MAX + 2


def test_a_replayed_order_is_decided_though_later_ones_are(gateway: HookedGateway) -> None:
    first, second = accepted(gateway, 1, 2)
    for seen in range(ATTEMPTS_MAX):
        commits.count_attempt(gateway, *ref(first), seen)
    settler = make_settler(gateway, attempts_max=ATTEMPTS_MAX)
    settler.settle([ref(second)])
    assert statuses(gateway, [first, second]) == ["failed", "executed"]
    parking.replay(gateway, ref(first))
    settler.settle([ref(first)])
    assert statuses(gateway, [first]) == ["executed"]
    assert stored_account(gateway).decided_through == second.id


class Landing(Counting):
    """A table whose newest transaction shows itself in parts.

    Queries do not find the orders ``hidden``; batches find the items ``old`` in place of others.
    """

    def __init__(self, gateway: Gateway, *hidden: Order) -> None:
        super().__init__(gateway)
        self.hidden = {order.id for order in hidden}
        self.old: list[keys.Item] = []

    def batch_get(self, keys: Sequence[keys.Key]) -> list[keys.Item]:
        found = {(one["pk"]["S"], one["sk"]["S"]): one for one in super().batch_get(keys)}
        return [*(found | {(one["pk"]["S"], one["sk"]["S"]): one for one in self.old}).values()]

    def query(self, **arguments: Any) -> tuple[list[keys.Item], keys.Key | None]:
        page, last = super().query(**arguments)
        return [item for item in page if keys.order_of(item)[1] not in self.hidden], last


@pytest.mark.parametrize("count", [3, SETTLEMENT_ORDERS_MAX + 2])
def test_an_order_whose_transaction_shows_it_last_is_not_overtaken(
    gateway: HookedGateway, count: int
) -> None:
    orders = accepted(gateway, *range(1, count + 1), cash="10000")
    landing = Landing(gateway, orders[1])
    time = FakeTime(then=landing.hidden.clear)
    assert make_settler(landing, time=time).settle([ref(orders[-1])]) == []
    assert [stored_order(gateway, order).sequence for order in orders] == [*range(1, count + 1)]
    assert time.pauses == [PARTS_SECONDS_FIRST]


def test_an_order_that_a_head_read_before_does_not_count_is_not_taken_for_one_that_it_counts(
    gateway: HookedGateway,
) -> None:
    """The head counts a replayed order that the message does not name, and not yet the last two."""
    orders = accepted(gateway, 1, 2)
    head = gateway.get(keys.head_key(1))
    assert head is not None
    later = [make_order("BUY", f"ISSUER {number}", number=number) for number in (3, 4)]
    accept(gateway, *later)
    landing = Landing(gateway, later[0])
    landing.old = [{**head, "accepted": {"N": "3"}}]

    def land() -> None:
        landing.hidden.clear()
        landing.old.clear()

    assert make_settler(landing, time=FakeTime(then=land)).settle([ref(orders[1])]) == []
    sequence = [stored_order(gateway, order).sequence for order in (*orders, *later)]
    assert sequence == [1, 2, 3, 4]


def test_an_account_of_which_more_is_counted_than_there_is_is_waited_for_and_then_settled(
    gateway: HookedGateway,
) -> None:
    first, second = accepted(gateway, 1, 2)
    overwrite(gateway, keys.head_key(1), "accepted", {"N": "9"})
    landing = Landing(gateway)
    time = FakeTime()
    assert make_settler(landing, time=time).settle([ref(second)]) == []
    assert statuses(gateway, [first, second]) == ["executed", "executed"]
    assert landing.queries == PARTS_LOOKS_MAX + 1
    assert time.pauses == [PARTS_SECONDS_FIRST * 2**number for number in range(PARTS_LOOKS_MAX)]


def test_what_shows_of_a_transaction_that_does_not_show_all_is_left_for_its_own_message(
    gateway: HookedGateway,
) -> None:
    (first,) = accepted(gateway, 1)
    earlier, later = (make_order("BUY", f"ISSUER {number}", number=number) for number in (2, 3))
    accept(gateway, earlier, later)
    landing = Landing(gateway, earlier)
    assert make_settler(landing).settle([ref(first)]) == []
    assert statuses(gateway, [first, earlier, later]) == ["executed", "pending", "pending"]
    landing.hidden.clear()
    make_settler(landing).settle([ref(earlier), ref(later)])
    assert [stored_order(gateway, order).sequence for order in (first, earlier, later)] == [1, 2, 3]


@pytest.mark.parametrize("is_read_again", [True, False])
def test_a_cancellation_that_an_older_head_knows_nothing_of_hides_no_earlier_order(
    gateway: HookedGateway, is_read_again: bool
) -> None:
    """The head is read; an order is accepted and cancelled; then the account is read."""
    first, second = accepted(gateway, 1, 2)
    head = gateway.get(keys.head_key(1))
    assert head is not None
    cancelled = make_order("BUY", "ISSUER 3", number=3)
    accept(gateway, cancelled)
    commits.cancel_pending(gateway, stored_account(gateway), cancelled.id, NOON)
    landing = Landing(gateway)
    landing.old = [head]
    time = FakeTime(then=landing.old.clear if is_read_again else lambda: None)
    assert make_settler(landing, time=time).settle([ref(second)]) == []
    sequence = [stored_order(gateway, order).sequence for order in (cancelled, first, second)]
    assert sequence == [1, 2, 3]


def test_an_older_cancellation_leaves_the_mark_of_a_younger_one(gateway: HookedGateway) -> None:
    first, second = accepted(gateway, 1, 2)
    for order in (second, first):
        commits.cancel_pending(gateway, stored_account(gateway), order.id, NOON)
    assert stored_account(gateway).cancelled_newest == second.id


def test_the_usual_message_costs_one_read_and_one_write(gateway: HookedGateway) -> None:
    orders = [
        order for number in (1, 2, 3) for order in accepted(gateway, number, account_id=number)
    ]
    counting = Counting(gateway)
    make_settler(counting).settle(map(ref, orders))
    assert (counting.batches, counting.queries, counting.transactions) == (1, 0, 1)


# Once


@pytest.mark.parametrize("suspect", [False, True])
def test_orders_that_another_worker_decides_between_two_looks_are_left_to_it(
    gateway: HookedGateway, suspect: bool
) -> None:
    orders = accepted(gateway, 1, 2)
    counting = Counting(gateway)
    other = make_settler(new_gateway(gateway))
    counting.before_query.append(lambda: settle_all(other, orders))
    assert make_settler(counting).settle([ref(orders[1])], suspect=suspect) == []
    assert (counting.batches, counting.queries, counting.transactions) == (1, 1, 0)
    assert stored_account(gateway).decided == 2


def test_a_repeated_message_does_nothing(gateway: HookedGateway) -> None:
    orders = accepted(gateway, 1, 2)
    settler = make_settler(gateway)
    settler.settle(map(ref, orders))
    then = everything(gateway)
    counting = Counting(gateway)
    again = make_settler(counting)
    for suspect in (False, True):
        assert again.settle(map(ref, orders), suspect=suspect) == []
    assert everything(gateway) == then
    # One look each time.
    assert (counting.batches, counting.queries, counting.transactions) == (2, 0, 0)


def test_a_message_that_names_an_order_twice_decides_it_once(gateway: HookedGateway) -> None:
    (order,) = accepted(gateway, 1)
    make_settler(gateway).settle([ref(order), ref(order)])
    assert stored_account(gateway).decided == 1


def test_two_workers_with_one_message_decide_once(gateway: HookedGateway) -> None:
    orders = accepted(gateway, 1, 2)
    other = make_settler(new_gateway(gateway))
    gateway.before.append(lambda: settle_all(other, orders))
    assert make_settler(gateway).settle(map(ref, orders)) == []
    account = stored_account(gateway)
    assert (account.decided, account.account.cash) == (2, Decimal(980))
    assert [stored_order(gateway, order).sequence for order in orders] == [1, 2]


def new_gateway(gateway: HookedGateway) -> Gateway:
    """The same table without hooks: another process."""
    return HookedGateway(gateway)


def settle_all(settler: Any, orders: Sequence[Order]) -> None:
    assert settler.settle(map(ref, orders)) == []


def test_an_order_is_decided_on_what_another_worker_left(gateway: HookedGateway) -> None:
    open_account(gateway, make_account("15"))
    first = make_order("BUY", "AAPL", 1, "10", number=1)
    second = make_order("BUY", "MSFT", 1, "10", number=2)
    accept(gateway, first, second)

    def decide_first_alone() -> None:
        settlement = make_settlement(stored_account(gateway), [first])
        commits.commit(new_gateway(gateway), [settlement], token=str(uuid4()))

    gateway.before.append(decide_first_alone)
    gateway.transactions = 0
    assert make_settler(gateway).settle([ref(second)]) == []
    assert statuses(gateway, [first, second]) == ["executed", "rejected"]
    assert stored_order(gateway, second).sequence == 2
    assert stored_account(gateway).account.cash == 5
    assert gateway.transactions == 2


# Turns


def test_who_meets_another_at_a_busy_account_waits_and_finds_it_decided(
    gateway: HookedGateway,
) -> None:
    orders, redis = accepted(gateway, 1, 2), fakeredis.FakeRedis()
    other = make_settler(new_gateway(gateway), redis=redis)

    def decide_and_end() -> None:
        settle_all(other, orders)
        turns_in(redis).give_back([1])

    counting = Counting(gateway)
    second = make_settler(counting, redis=redis, time=FakeTime(decide_and_end))
    # The other took the turn, and decides while we wait.
    turns_in(redis).take([1])
    assert second.settle([ref(orders[1])]) == []
    assert statuses(gateway, orders) == ["executed", "executed"]
    # Two looks; neither the account's orders were asked for nor a commit tried in vain.
    assert (counting.batches, counting.queries, counting.transactions) == (2, 0, 0)


def test_a_busy_account_holds_up_none_of_the_others(gateway: HookedGateway) -> None:
    busy, redis = accepted(gateway, 1, 2), fakeredis.FakeRedis()
    (quiet,) = accepted(gateway, 3, account_id=2)
    then: list[list[str]] = []
    time = FakeTime(lambda: then.append(statuses(gateway, [*busy, quiet])))
    turns_in(redis).take([1])
    assert make_settler(gateway, redis=redis, time=time).settle([ref(busy[1]), ref(quiet)]) == []
    assert then == [["pending", "pending", "executed"]]


def test_a_turn_whose_process_is_gone_delays_an_order_and_no_more(gateway: HookedGateway) -> None:
    orders, redis, time = accepted(gateway, 1, 2), fakeredis.FakeRedis(), FakeTime()
    turns_in(redis).take([1])
    assert make_settler(gateway, redis=redis, time=time).settle([ref(orders[1])]) == []
    assert statuses(gateway, orders) == ["executed", "executed"]
    assert TURN_WAIT_SECONDS_MAX <= time.monotonic() < 2 * TURN_WAIT_SECONDS_MAX


@pytest.mark.parametrize("fails", [False, True])
def test_a_turn_ends_with_the_look_that_took_it(gateway: HookedGateway, fails: bool) -> None:
    orders, redis = accepted(gateway, 1, 2), fakeredis.FakeRedis()
    seen: list[int] = []

    def look() -> None:
        seen.append(redis.exists("turn:1:orders:1"))
        if fails:
            raise StoreUnavailable("busy")

    gateway.before.append(look)
    make_settler(gateway, redis=redis).settle([ref(orders[1])])
    assert seen == [1]
    assert redis.exists("turn:1:orders:1") == 0
    assert statuses(gateway, orders) == ["executed", "executed"]


def test_turns_that_always_end_before_the_wait_for_them_keep_no_order_from_its_decision(
    gateway: HookedGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    orders, redis = accepted(gateway, 1, 2), fakeredis.FakeRedis()
    turns_in(redis).take([1])
    # Others have the turn whenever we ask for it, and have just ended it when we would wait.
    monkeypatch.setattr(redis, "exists", lambda *_: 0)
    assert make_settler(gateway, redis=redis).settle([ref(orders[1])]) == []
    assert statuses(gateway, orders) == ["executed", "executed"]


def test_an_account_whose_orders_are_all_named_takes_no_turn(gateway: HookedGateway) -> None:
    orders, redis = accepted(gateway, 1, 2), fakeredis.FakeRedis()
    turns_in(redis).take([1])
    time = FakeTime()
    make_settler(gateway, redis=redis, time=time).settle(map(ref, orders))
    assert statuses(gateway, orders) == ["executed", "executed"]
    assert time.pauses == []


def test_a_conflict_of_one_account_does_not_hold_up_the_others(gateway: HookedGateway) -> None:
    contended, sound = [*accepted(gateway, 1), *accepted(gateway, 2, account_id=2)]

    def decide_contended() -> None:
        settlement = make_settlement(stored_account(gateway), [contended])
        commits.commit(new_gateway(gateway), [settlement], token=str(uuid4()))

    def sound_is_decided() -> None:
        assert statuses(gateway, [sound]) == ["pending"]

    gateway.before += [decide_contended, sound_is_decided]
    gateway.transactions = 0
    assert make_settler(gateway).settle([ref(contended), ref(sound)]) == []
    # The second transaction was the sound account's alone: no look at the store in between.
    assert gateway.transactions == 2
    assert statuses(gateway, [contended, sound]) == ["executed", "executed"]
    assert stored_account(gateway).decided == 1


def test_an_answer_that_was_lost_is_looked_for(gateway: HookedGateway) -> None:
    (order,) = accepted(gateway, 1)
    gateway.after.append(fail_with(StoreOutcomeUnknown("lost")))
    time = FakeTime()
    assert make_settler(gateway, time=time).settle([ref(order)]) == []
    account = stored_account(gateway)
    assert (account.decided, account.account.cash) == (1, Decimal(990))
    assert statuses(gateway, [order]) == ["executed"]
    assert len(time.pauses) == 1


def test_a_question_that_was_lost_is_asked_again(gateway: HookedGateway) -> None:
    (order,) = accepted(gateway, 1)
    gateway.before.append(fail_with(StoreOutcomeUnknown("lost")))
    assert make_settler(gateway).settle([ref(order)]) == []
    account = stored_account(gateway)
    assert (account.decided, account.account.cash) == (1, Decimal(990))
    assert statuses(gateway, [order]) == ["executed"]


class Contended(HookedGateway):
    """A table on which somebody else is always faster."""

    def transact(self, actions: Sequence[Mapping[str, Any]], token: str) -> None:
        del actions, token
        self.transactions += 1
        raise TransactionCancelled({0: Reason(CONDITION_FAILED, None)})


def test_orders_that_others_keep_changing_go_back_to_the_queue(gateway: HookedGateway) -> None:
    orders = accepted(gateway, 1, 2)
    contended = Contended(gateway)
    left = make_settler(contended).settle(map(ref, orders))
    assert sorted(left) == [ref(order) for order in orders]
    assert contended.transactions == ROUNDS_MAX
    assert statuses(gateway, orders) == ["pending", "pending"]


class Slow(HookedGateway):
    """A table that answers everything, and takes its time over it."""

    def __init__(self, gateway: Gateway, time: FakeTime, call_seconds: float) -> None:
        super().__init__(gateway)
        self._time = time
        self._call_seconds = call_seconds

    def transact(self, actions: Sequence[Mapping[str, Any]], token: str) -> None:
        self._time.sleep(self._call_seconds)
        super().transact(actions, token)

    def batch_get(self, keys: Sequence[keys.Key]) -> list[keys.Item]:
        self._time.sleep(self._call_seconds)
        return super().batch_get(keys)

    def query(self, **arguments: Any) -> tuple[list[keys.Item], keys.Key | None]:
        self._time.sleep(self._call_seconds)
        return super().query(**arguments)


CALL_SECONDS = 4.9
"""Of a store that is as slow as can be without failing."""


def of_many_accounts(gateway: Gateway, count: int) -> list[Order]:
    """The second of two orders of each account, so that each costs a query of its own."""
    return [
        accepted(gateway, number, number + 1, account_id=account_id)[1]
        for account_id in range(1, count + 1)
        for number in [2 * account_id]
    ]


def test_a_store_that_is_slow_keeps_no_message_for_longer_than_a_bound(
    gateway: HookedGateway,
) -> None:
    orders = of_many_accounts(gateway, 12)
    names, messages = [ref(order) for order in orders], 0
    while names:
        time = FakeTime()
        left = make_settler(Slow(gateway, time, CALL_SECONDS), time=time).settle(names)
        # A last account's query and one commit may be under way.
        assert time.monotonic() < SETTLE_SECONDS_MAX + 3 * CALL_SECONDS
        assert set(left) < set(names)
        names, messages = left, messages + 1
    assert messages > 1
    assert set(statuses(gateway, orders)) == {"executed"}


def test_a_store_that_is_slow_within_the_bound_is_waited_for(gateway: HookedGateway) -> None:
    orders = of_many_accounts(gateway, 2)
    time = FakeTime()
    assert make_settler(Slow(gateway, time, CALL_SECONDS), time=time).settle(map(ref, orders)) == []
    assert SETTLE_SECONDS_MAX - CALL_SECONDS < time.monotonic() < SETTLE_SECONDS_MAX


def test_a_message_that_comes_late_to_everything_gets_on_all_the_same(
    gateway: HookedGateway,
) -> None:
    orders = of_many_accounts(gateway, 2)
    time = FakeTime()
    slow = Slow(gateway, time, SETTLE_SECONDS_MAX)
    left = make_settler(slow, time=time).settle(map(ref, orders))
    assert left == [ref(orders[1])]
    assert statuses(gateway, orders) == ["executed", "pending"]


def test_a_suspect_that_was_counted_is_tried_however_slow_the_store_is(
    gateway: HookedGateway,
) -> None:
    orders = of_many_accounts(gateway, 2)
    time = FakeTime()
    slow = Slow(gateway, time, SETTLE_SECONDS_MAX)
    assert make_settler(slow, time=time).settle(map(ref, orders), suspect=True) == []
    assert statuses(gateway, orders) == ["executed", "executed"]


# What does not exist


def test_orders_that_do_not_exist_are_left_out(gateway: HookedGateway) -> None:
    (order,) = accepted(gateway, 1)
    assert make_settler(gateway).settle([(1, order_id(9)), (9, order_id(1)), ref(order)]) == []
    assert statuses(gateway, [order]) == ["executed"]


@pytest.mark.parametrize("key", [keys.account_key(1), keys.head_key(1)], ids=["account", "head"])
def test_an_order_without_its_account_is_left_alone(
    gateway: HookedGateway, client: "DynamoDBClient", key: Any
) -> None:
    lost, sound = [*accepted(gateway, 1), *accepted(gateway, 2, account_id=2)]
    client.delete_item(TableName=gateway.table_name, Key=key)
    assert make_settler(gateway).settle([ref(lost), ref(sound)]) == []
    assert statuses(gateway, [lost, sound]) == ["pending", "executed"]


# What cannot be decided


def test_an_unreadable_order_blocks_its_account_alone(gateway: HookedGateway) -> None:
    before, broken, behind = accepted(gateway, 1, 2, 3)
    (sound,) = accepted(gateway, 4, account_id=2)
    corrupt(gateway, broken)
    orders = [before, broken, behind, sound]
    counting = Counting(gateway)
    assert make_settler(counting).settle(map(ref, orders)) == []
    # It is not looked at again and again: the sweeper brings it back.
    assert (counting.batches, counting.transactions) == (1, 1)
    assert statuses(gateway, orders) == ["executed", "pending", "pending", "executed"]
    assert stored_account(gateway).decided == 1


def test_a_message_for_an_unreadable_order_alone_is_over_after_one_look(
    gateway: HookedGateway,
) -> None:
    (broken,) = accepted(gateway, 1)
    corrupt(gateway, broken)
    counting = Counting(gateway)
    assert make_settler(counting).settle([ref(broken)]) == []
    assert (counting.batches, counting.transactions) == (1, 0)


def test_an_unreadable_order_is_parked_as_soon_as_it_is_suspect_and_the_following_go_on(
    gateway: HookedGateway,
) -> None:
    # Trying again cannot make a damaged item readable.
    broken, behind = accepted(gateway, 1, 2)
    corrupt(gateway, broken)
    settler = make_settler(gateway, attempts_max=ATTEMPTS_MAX)
    assert settler.settle([ref(broken), ref(behind)]) == []
    assert statuses(gateway, [broken, behind]) == ["pending", "pending"]
    assert settler.settle([ref(broken), ref(behind)], suspect=True) == []
    assert statuses(gateway, [broken, behind]) == ["failed", "executed"]
    item = raw(gateway, keys.order_key(*ref(broken)))
    assert item["failure"]["S"].startswith("parked: its item cannot be read: ")
    assert (attempts_at(gateway, broken), attempts_at(gateway, behind)) == (1, 0)
    assert stored_order(gateway, behind).sequence == 2


damaged_counts = pytest.mark.parametrize(
    "damaged", [{"S": "many"}, {"N": "0.5"}, {"N": "1.5"}, {"N": "-7"}, {"NULL": True}], ids=str
)


@damaged_counts
def test_a_damaged_count_of_attempts_keeps_no_order_from_its_decision(
    gateway: HookedGateway, damaged: dict[str, Any]
) -> None:
    (order,) = accepted(gateway, 1)
    overwrite(gateway, keys.order_key(*ref(order)), "attempts", damaged)
    make_settler(gateway).settle([ref(order)])
    assert statuses(gateway, [order]) == ["executed"]


@damaged_counts
@pytest.mark.parametrize("is_account_damaged", [True, False])
def test_a_damaged_count_of_attempts_is_counted_on_until_the_order_is_parked(
    gateway: HookedGateway,
    damaged: dict[str, Any],
    is_account_damaged: bool,
    undecidable: set[str],
) -> None:
    (order,) = accepted(gateway, 1)
    overwrite(gateway, keys.order_key(*ref(order)), "attempts", damaged)
    undecidable.add(order.id)
    if is_account_damaged:
        overwrite(gateway, keys.account_key(1), "cash", {"S": "a lot"})
    settler = make_settler(gateway, attempts_max=ATTEMPTS_MAX)
    for _ in range(ATTEMPTS_MAX + 1):
        settler.settle([ref(order)], suspect=True)
    assert statuses(gateway, [order]) == ["failed"]


def test_an_order_on_which_the_rules_fail_is_parked_after_its_attempts(
    gateway: HookedGateway, undecidable: set[str]
) -> None:
    broken, behind = accepted(gateway, 1, 2)
    undecidable.add(broken.id)
    settler = make_settler(gateway, attempts_max=ATTEMPTS_MAX)
    for _ in range(ATTEMPTS_MAX):
        settler.settle([ref(behind)], suspect=True)
        assert statuses(gateway, [broken, behind]) == ["pending", "pending"]
    settler.settle([ref(behind)], suspect=True)
    assert statuses(gateway, [broken, behind]) == ["failed", "executed"]
    failure = stored_order(gateway, broken).failure
    assert failure == (
        f"parked after {ATTEMPTS_MAX} attempts: "
        "the worker failed or died whenever it tried to decide it"
    )


def test_an_order_that_was_tried_too_often_is_parked_untried(gateway: HookedGateway) -> None:
    # Its worker died each time: the count is all that is left of the attempts.
    deadly, behind = accepted(gateway, 1, 2)
    for seen in range(ATTEMPTS_MAX):
        commits.count_attempt(gateway, *ref(deadly), seen)
    make_settler(gateway, attempts_max=ATTEMPTS_MAX).settle([ref(deadly), ref(behind)])
    assert statuses(gateway, [deadly, behind]) == ["failed", "executed"]
    assert stored_account(gateway).account.cash == 990


class KilledError(BaseException):
    """The process died: nothing in it goes on."""


@pytest.mark.parametrize(
    ("deadly", "expected"),
    [
        ([0, 1], ["failed", "failed", "executed"]),
        ([0, 1, 2], ["failed", "failed", "failed"]),
        ([1], ["executed", "failed", "executed"]),
        ([2], ["executed", "executed", "failed"]),
    ],
)
def test_orders_that_kill_their_worker_are_parked_and_no_others(
    gateway: HookedGateway,
    monkeypatch: pytest.MonkeyPatch,
    deadly: Sequence[int],
    expected: Sequence[str],
) -> None:
    orders = accepted(gateway, 1, 2, 3)
    killers = {orders[place].id for place in deadly}

    def decide_or_die(account: Account, order: Order, rules: Rules) -> tuple[Account, Decision]:
        if order.id in killers:
            raise KilledError
        return decide(account, order, rules)

    monkeypatch.setattr("worker.processing.decide", decide_or_die)
    settler = make_settler(gateway, attempts_max=ATTEMPTS_MAX)
    for _ in range(len(orders) * (ATTEMPTS_MAX + 2)):
        with contextlib.suppress(KilledError):
            settler.settle(map(ref, orders), suspect=True)
    assert statuses(gateway, orders) == expected


def test_attempts_count_for_suspects_alone_and_for_the_first_of_an_account(
    gateway: HookedGateway,
) -> None:
    orders = accepted(gateway, 1, 2)
    (other,) = accepted(gateway, 3, account_id=2)
    (unsuspected,) = accepted(gateway, 4, account_id=3)
    settler = make_settler(gateway)
    settler.settle([ref(unsuspected)])
    settler.settle([ref(order) for order in (*orders, other)], suspect=True)
    counted = [attempts_at(gateway, order) for order in (*orders, other, unsuspected)]
    assert counted == [1, 0, 1, 0]


def test_an_attempt_that_another_worker_counted_is_not_taken_back(
    gateway: HookedGateway,
) -> None:
    """The other one counted it between our look and our count, and the order killed it."""
    (order,) = accepted(gateway, 1)

    class Late(Counting):
        def batch_get(self, keys: Sequence[keys.Key]) -> list[keys.Item]:
            found = super().batch_get(keys)
            commits.count_attempt(gateway, *ref(order), 0)
            return found

        def transact(self, *_: object) -> None:
            raise StoreThrottled("slow down")

    with pytest.raises(StoreThrottled):
        make_settler(Late(gateway)).settle([ref(order)], suspect=True)
    assert attempts_at(gateway, order) == 1


def test_an_attempt_is_counted_before_it_is_made(gateway: HookedGateway) -> None:
    (order,) = accepted(gateway, 1)
    seen: list[int] = []
    gateway.before.append(lambda: seen.append(attempts_at(gateway, order)))
    make_settler(gateway).settle([ref(order)], suspect=True)
    assert seen == [1]


def test_one_message_counts_one_attempt_however_often_it_looks(gateway: HookedGateway) -> None:
    (order,) = accepted(gateway, 1)
    gateway.before += [fail_with(StoreUnavailable("down"))] * 4
    make_settler(gateway).settle([ref(order)], suspect=True)
    assert statuses(gateway, [order]) == ["executed"]
    assert attempts_at(gateway, order) == 1


def test_an_unreadable_account_keeps_its_orders_until_they_were_tried_often_enough(
    gateway: HookedGateway,
) -> None:
    orders = accepted(gateway, 1, 2)
    overwrite(gateway, keys.account_key(1), "cash", {"S": "a lot"})
    account = raw(gateway, keys.account_key(1))
    sound = accepted(gateway, 3, account_id=2)
    settler = make_settler(gateway, attempts_max=ATTEMPTS_MAX)
    for attempt in range(1, ATTEMPTS_MAX + 1):
        settler.settle(map(ref, (*orders, *sound)), suspect=True)
        assert statuses(gateway, orders) == ["pending", "pending"]
        assert [attempts_at(gateway, order) for order in orders] == [attempt, attempt]
    assert statuses(gateway, sound) == ["executed"]
    settler.settle(map(ref, orders), suspect=True)
    assert statuses(gateway, orders) == ["failed", "failed"]
    failure = stored_order(gateway, orders[0]).failure
    assert failure is not None
    assert "ACCOUNT#1" in failure
    assert raw(gateway, keys.account_key(1)) == account


def test_an_unreadable_account_counts_no_attempts_where_nothing_is_suspect(
    gateway: HookedGateway,
) -> None:
    (order,) = accepted(gateway, 1)
    overwrite(gateway, keys.account_key(1), "cash", {"S": "a lot"})
    make_settler(gateway).settle([ref(order)])
    assert attempts_at(gateway, order) == 0
    assert statuses(gateway, [order]) == ["pending"]


def test_an_account_goes_on_once_it_is_repaired(gateway: HookedGateway) -> None:
    parked, waiting = accepted(gateway, 1, 2)
    cash = raw(gateway, keys.account_key(1))["cash"]
    overwrite(gateway, keys.account_key(1), "cash", {"S": "a lot"})
    for seen in range(ATTEMPTS_MAX):
        commits.count_attempt(gateway, *ref(parked), seen)
    settler = make_settler(gateway, attempts_max=ATTEMPTS_MAX)
    settler.settle([ref(parked), ref(waiting)])
    assert statuses(gateway, [parked, waiting]) == ["failed", "pending"]
    overwrite(gateway, keys.account_key(1), "cash", cash)
    settler.settle([ref(waiting)])
    assert statuses(gateway, [parked, waiting]) == ["failed", "executed"]


def test_an_account_goes_on_past_more_parked_orders_than_one_look_shows(
    gateway: HookedGateway,
) -> None:
    orders = accepted(gateway, *range(1, SETTLEMENT_ORDERS_MAX + 6))
    for order in orders[:-2]:
        commits.park_unreadable_account(gateway, *ref(order), NOON, "unreadable")
    assert make_settler(gateway).settle([ref(orders[-1])]) == []
    assert statuses(gateway, orders[-3:]) == ["failed", "executed", "executed"]


def test_an_order_parked_without_its_account_costs_the_account_no_query(
    gateway: HookedGateway,
) -> None:
    parked, waiting = accepted(gateway, 1, 2)
    commits.park_unreadable_account(gateway, *ref(parked), NOON, "unreadable")
    counting = Counting(gateway)
    assert make_settler(counting).settle([ref(waiting)]) == []
    assert (counting.batches, counting.queries, counting.transactions) == (1, 0, 1)


def test_a_replayed_order_that_is_still_poisonous_blocks_no_later_order(
    gateway: HookedGateway, undecidable: set[str]
) -> None:
    (poison,) = accepted(gateway, 1)
    undecidable.add(poison.id)
    settler = make_settler(gateway, attempts_max=ATTEMPTS_MAX)
    for _ in range(ATTEMPTS_MAX + 1):
        settler.settle([ref(poison)], suspect=True)
    parking.replay(gateway, ref(poison))
    settler.settle([ref(poison)])

    later = make_order("BUY", "LATER", number=2)
    accept(gateway, later)
    settler.settle([ref(later)])

    assert statuses(gateway, [poison, later]) == ["pending", "executed"]
    for _ in range(ATTEMPTS_MAX + 1):
        settler.settle([ref(poison)], suspect=True)
    assert statuses(gateway, [poison]) == ["failed"]
    recorded = stored_order(gateway, poison)
    assert (recorded.sequence, [one.sequence for one in recorded.parked]) == (3, [1])


def test_a_replayed_order_is_cached_once_it_is_final(gateway: HookedGateway) -> None:
    (order,) = accepted(gateway, 1)
    commits.park_unreadable_account(gateway, *ref(order), NOON, "unreadable")
    parking.replay(gateway, ref(order))
    cache = FakeCache()
    make_settler(gateway, cache=cache).settle([ref(order)])
    assert cache.answers == {ref(order): to_json(show_order(stored_order(gateway, order)))}


def test_a_cancelled_order_is_left_alone_and_those_behind_it_go_on(gateway: HookedGateway) -> None:
    cancelled, behind = accepted(gateway, 1, 2)
    parking.cancel(gateway, ref(cancelled), lambda: NOON)
    make_settler(gateway).settle([ref(cancelled), ref(behind)], suspect=True)
    assert statuses(gateway, [cancelled, behind]) == ["cancelled", "executed"]
    assert stored_order(gateway, behind).sequence == 2


class Refusing(HookedGateway):
    """A table that calls every transaction with an item of account 1 invalid."""

    def transact(self, actions: Sequence[Mapping[str, Any]], token: str) -> None:
        if any("ACCOUNT#1'" in repr(action) for action in actions):
            raise StoreRefused("too large")
        super().transact(actions, token)


@pytest.mark.parametrize("others", [1, 2])
def test_a_settlement_that_the_store_calls_invalid_does_not_spoil_the_others(
    gateway: HookedGateway, others: int
) -> None:
    orders = [
        order
        for number in range(1, others + 2)
        for order in accepted(gateway, number, account_id=number)
    ]
    assert make_settler(Refusing(gateway)).settle(map(ref, orders)) == []
    assert statuses(gateway, orders) == ["pending"] + ["executed"] * others


def test_an_order_that_cannot_even_be_parked_with_its_account_is_parked_alone(
    gateway: HookedGateway,
) -> None:
    tried, behind = accepted(gateway, 1, 2)
    for seen in range(ATTEMPTS_MAX):
        commits.count_attempt(gateway, *ref(tried), seen)
    account = raw(gateway, keys.account_key(1))
    settler = make_settler(Refusing(gateway), attempts_max=ATTEMPTS_MAX)
    assert settler.settle([ref(tried), ref(behind)]) == []
    assert statuses(gateway, [tried, behind]) == ["failed", "pending"]
    assert stored_order(gateway, tried).failure == "too large"
    assert raw(gateway, keys.account_key(1)) == account


# A store that fails


def down_for_ever(gateway: HookedGateway, error: StoreUnavailable) -> None:
    gateway.before += [fail_with(error)] * 10_000


@pytest.mark.parametrize(
    "error",
    [StoreUnavailable("down"), StoreThrottled("busy"), StoreOutcomeUnknown("lost")],
    ids=lambda error: type(error).__name__,
)
def test_a_store_that_cannot_be_written_is_given_up_in_time_and_no_order_is_blamed(
    gateway: HookedGateway, error: StoreUnavailable
) -> None:
    first, second = [*accepted(gateway, 1), *accepted(gateway, 2, account_id=2)]
    counted: list[list[int]] = []

    def look_and_fail() -> None:
        counted.append([attempts_at(gateway, order) for order in (first, second)])
        raise error

    gateway.before.append(look_and_fail)
    down_for_ever(gateway, error)
    time = FakeTime()
    settler = make_settler(gateway, time=time)
    with pytest.raises(StoreUnavailable) as caught:
        settler.settle([ref(first), ref(second)], suspect=True)
    assert caught.value is error
    assert counted == [[1, 1]]
    assert [attempts_at(gateway, order) for order in (first, second)] == [0, 0]
    assert statuses(gateway, [first, second]) == ["pending", "pending"]
    assert SETTLE_SECONDS_MAX / 2 < time.monotonic() < SETTLE_SECONDS_MAX


def test_pauses_grow_and_stay_within_their_bounds(gateway: HookedGateway) -> None:
    (order,) = accepted(gateway, 1)
    down_for_ever(gateway, StoreUnavailable("down"))
    time = FakeTime()
    with pytest.raises(StoreUnavailable):
        make_settler(gateway, time=time).settle([ref(order)])
    assert all(BACKOFF_SECONDS_FIRST <= pause <= BACKOFF_SECONDS_MAX for pause in time.pauses)
    for failures, pause in enumerate(time.pauses, start=1):
        assert pause <= BACKOFF_SECONDS_FIRST * 2**failures
    assert max(time.pauses) > BACKOFF_SECONDS_MAX / 2


def test_a_store_that_cannot_be_reached_at_all_is_given_up_in_time() -> None:
    class Unreachable:
        def __getattr__(self, name: str) -> Callable[..., None]:
            def call(**_: Any) -> None:
                raise EndpointConnectionError(endpoint_url="http://127.0.0.1:1")

            return call

    time = FakeTime()
    gateway = Gateway(cast("DynamoDBClient", Unreachable()), "orders", sleep=time.sleep)
    with pytest.raises(StoreUnavailable):
        make_settler(gateway, time=time).settle([(1, order_id(1))], suspect=True)
    assert SETTLE_SECONDS_MAX / 2 < time.monotonic() < SETTLE_SECONDS_MAX + 1


def test_a_store_that_fails_for_good_after_the_count_is_given_up_all_the_same(
    gateway: HookedGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    (order,) = accepted(gateway, 1)
    down = StoreUnavailable("down")

    def go_down() -> None:
        monkeypatch.setattr(gateway, "update", lambda **_: fail_with(down)())
        down_for_ever(gateway, down)
        raise down

    gateway.before.append(go_down)
    with pytest.raises(StoreUnavailable) as caught:
        make_settler(gateway).settle([ref(order)], suspect=True)
    assert caught.value is down
    assert attempts_at(gateway, order) == 1


def test_a_store_that_comes_back_in_time_is_all_that_is_needed(gateway: HookedGateway) -> None:
    (order,) = accepted(gateway, 1)
    gateway.before += [fail_with(StoreThrottled("busy"))] * 10
    time = FakeTime()
    assert make_settler(gateway, time=time).settle([ref(order)]) == []
    assert statuses(gateway, [order]) == ["executed"]
    assert len(time.pauses) == 10


def test_what_was_committed_before_the_store_failed_is_not_done_again(
    gateway: HookedGateway,
) -> None:
    orders = [
        order for number in range(1, 52) for order in accepted(gateway, number, account_id=number)
    ]
    gateway.before += [lambda: None, fail_with(StoreUnavailable("down"))]
    gateway.transactions = 0
    assert make_settler(gateway).settle(map(ref, orders)) == []
    assert gateway.transactions == 3
    assert set(statuses(gateway, orders)) == {"executed"}
    assert {stored_account(gateway, number).decided for number in range(1, 52)} == {1}


# The cache


def test_final_statuses_are_cached_as_the_store_would_show_them(gateway: HookedGateway) -> None:
    open_account(gateway, make_account("10.50", {"MSFT": (2, "1.10")}))
    executed = make_order("BUY", "AAPL", 1, "10", number=1, at=NOON + seconds(0.25))
    rejected = make_order("BUY", "AAPL", 9, "10", number=2)
    accept(gateway, executed, rejected)
    cache = FakeCache()
    make_settler(gateway, cache=cache).settle([ref(rejected)])
    assert set(cache.answers) == {ref(executed), ref(rejected)}
    for order in (executed, rejected):
        assert cache.answers[ref(order)] == to_json(show_order(stored_order(gateway, order)))
    shown = json.loads(cache.answers[ref(rejected)])
    assert shown["status"] == "rejected"
    assert shown["business_errors"] == ["INSUFFICIENT_BALANCE"]
    assert shown["current_balance"]["cash"] == "0.5"


def test_parked_orders_are_not_cached_for_they_may_be_replayed(gateway: HookedGateway) -> None:
    parked, behind = accepted(gateway, 1, 2)
    for seen in range(ATTEMPTS_MAX):
        commits.count_attempt(gateway, *ref(parked), seen)
    cache = FakeCache()
    make_settler(gateway, cache=cache, attempts_max=ATTEMPTS_MAX).settle([ref(behind)])
    assert stored_order(gateway, parked).status is OrderStatus.FAILED
    assert set(cache.answers) == {ref(behind)}


def test_nothing_is_cached_before_it_is_committed(gateway: HookedGateway) -> None:
    (order,) = accepted(gateway, 1)
    cache = FakeCache()
    seen: list[bool] = []

    def look() -> None:
        seen.append(bool(cache.answers))
        raise StoreOutcomeUnknown("lost")

    gateway.before += [look, look]
    make_settler(gateway, cache=cache).settle([ref(order)])
    assert seen == [False, False]
    assert set(cache.answers) == {ref(order)}


def test_a_conflict_caches_nothing_of_what_was_decided_in_vain(gateway: HookedGateway) -> None:
    orders = accepted(gateway, 1)
    other_cache, cache = FakeCache(), FakeCache()
    other = make_settler(new_gateway(gateway), cache=other_cache)
    gateway.before.append(lambda: settle_all(other, orders))
    make_settler(gateway, cache=cache).settle(map(ref, orders))
    assert set(other_cache.answers) == {ref(orders[0])}
    assert cache.answers == {}


def test_the_rules_that_decided_are_kept_with_the_order(gateway: HookedGateway) -> None:
    (order,) = accepted(gateway, 1)
    make_settler(gateway).settle([ref(order)])
    recorded = stored_order(gateway, order)
    assert recorded.rules == str(RULES)
    assert recorded.decided_at == NOON


def test_orders_that_others_decide_between_two_looks_are_left_alone(
    gateway: HookedGateway,
) -> None:
    first, second = accepted(gateway, 1, 2)

    class Overtaken(HookedGateway):
        def query(self, **arguments: Any) -> Any:
            make_settler(gateway).settle([ref(first), ref(second)])
            return super().query(**arguments)

    late = make_settler(Overtaken(gateway))

    assert late.settle([ref(second)], suspect=True) == []
    assert statuses(gateway, [first, second]) == ["executed", "executed"]
    assert attempts_at(gateway, second) == 0


def test_an_attempt_is_counted_once_however_often_its_answer_is_lost(
    gateway: HookedGateway,
) -> None:
    (order,) = accepted(gateway, 1)

    class Lossy(HookedGateway):
        lost = 0

        def update(self, **arguments: Any) -> Any:
            answer = super().update(**arguments)
            if self.lost < ATTEMPTS_MAX:
                self.lost += 1
                raise StoreOutcomeUnknown("no answer")
            return answer

    settler = make_settler(Lossy(gateway), attempts_max=ATTEMPTS_MAX)

    assert settler.settle([ref(order)], suspect=True) == []
    assert statuses(gateway, [order]) == ["executed"]
    assert attempts_at(gateway, order) == 1


def test_orders_of_an_account_without_its_head_are_parked_in_the_end(
    gateway: HookedGateway,
) -> None:
    (order,) = accepted(gateway, 1)
    gateway._client.delete_item(TableName=gateway.table_name, Key=keys.head_key(1))
    settler = make_settler(gateway, attempts_max=ATTEMPTS_MAX)

    for _ in range(ATTEMPTS_MAX + 1):
        settler.settle([ref(order)], suspect=True)

    assert statuses(gateway, [order]) == ["failed"]


# What is told of it


@pytest.fixture
def counting_metrics() -> Iterator[None]:
    metrics.start_counting()
    yield
    metrics.stop_counting()


def counted(name: str, *labels: str) -> float:
    return metrics.snapshot().get(Key(name, labels), 0)


@pytest.mark.usefixtures("counting_metrics")
def test_decisions_are_counted_by_status_and_broken_rule(gateway: HookedGateway) -> None:
    orders = accepted(gateway, 1, 2, cash="15")

    make_settler(gateway).settle(map(ref, orders))

    assert statuses(gateway, orders).count("executed") == counted(
        "orders_decided_total", "executed"
    )
    assert statuses(gateway, orders).count("rejected") == counted(
        "orders_decided_total", "rejected"
    )
    assert counted("orders_rejections_total", "INSUFFICIENT_BALANCE") == 1
    assert counted("orders_decision_seconds") == 2
    assert counted("orders_settlement_orders") == 1


@pytest.mark.usefixtures("counting_metrics")
def test_a_conflict_counts_once_and_so_do_the_orders(gateway: HookedGateway) -> None:
    orders = accepted(gateway, 1)
    others = make_settler(gateway)

    def overtake() -> None:
        assert others.settle(map(ref, orders)) == []

    gateway.before.append(overtake)

    make_settler(gateway).settle(map(ref, orders))

    assert counted("orders_commit_conflicts_total") == 1
    assert counted("orders_decided_total", "executed") == 1


@pytest.mark.parametrize("tells", [True, False])
def test_what_became_of_orders_is_logged_where_that_is_asked_for(
    gateway: HookedGateway, tells: bool
) -> None:
    (order,) = accepted(gateway, 1)
    settler = make_settler(gateway)
    settler._tells = tells

    with structlog.testing.capture_logs() as events:
        settler.settle([ref(order)])

    lines = [event["orders"] for event in events if event["event"] == "decided"]
    assert lines == ([{f"{order.account_id}/{order.id}": "executed"}] if tells else [])
