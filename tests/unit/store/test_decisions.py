"""Decided orders are found in the sequence of their decisions, from any place, without a gap."""

from collections.abc import Iterator
from datetime import timedelta
from random import Random
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from shared.domain.decision import park
from shared.domain.order import Order, OrderStatus
from shared.order_store import commits, decisions, items, keys, parking
from shared.order_store.decisions import BEGINNING, Place, Window, decided_after, standing
from shared.order_store.gateway import Gateway
from shared.order_store.records import DecidedOrder, RecordedOrder, Settlement, UnreadableOrder
from tests.unit.factories import (
    NOON,
    RULES,
    accept,
    everything,
    make_account,
    make_order,
    make_settler,
    new_table,
    open_account,
    overwrite,
    ref,
    stored_account,
    stored_order,
)

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient


class CountedGateway(Gateway):
    """A table that counts how often and for how much it is asked."""

    def __init__(self, gateway: Gateway) -> None:
        super().__init__(gateway._client, gateway.table_name, sleep=lambda _: None)
        self.gets = 0
        self.looked_at: list[int] = []

    def get(self, key: keys.Key) -> keys.Item | None:
        self.gets += 1
        return super().get(key)

    def query(self, **arguments: Any) -> tuple[list[keys.Item], keys.Key | None]:
        page, last = super().query(**arguments)
        self.looked_at.append(len(page))
        return page, last


@pytest.fixture(autouse=True)
def missed(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """What was given up on, which has to be nothing unless the test says so."""
    given_up: list[Any] = []
    monkeypatch.setattr(decisions.log, "error", lambda _, **said: given_up.append(said))
    yield given_up
    assert given_up == []


@pytest.fixture
def gateway(client: "DynamoDBClient") -> CountedGateway:
    return CountedGateway(new_table(client))


def opened_with(gateway: Gateway, *numbers: int) -> list[Order]:
    open_account(gateway, make_account("1000000"))
    return add(gateway, *numbers)


def add(gateway: Gateway, *numbers: int) -> list[Order]:
    orders = [make_order(issuer_name=f"I{number}", number=number) for number in numbers]
    accept(gateway, *orders)
    return orders


def settle(gateway: Gateway, *orders: Order) -> None:
    assert make_settler(gateway).settle([ref(order) for order in orders]) == []


def cancel(gateway: Gateway, order: Order) -> None:
    parking.cancel(gateway, ref(order), lambda: NOON)


def park_next(gateway: Gateway, order: Order, minutes: int = 0) -> None:
    """Park as the account's next decision."""
    before = stored_account(gateway, 1)
    decided = DecidedOrder(1, order.id, order, park(before.account), "would not do")
    at = NOON + timedelta(minutes=minutes)
    settlement = Settlement(before, before.account, (decided,), str(RULES), at)
    commits.commit(gateway, [settlement], token=str(uuid4()))


def window(gateway: Gateway, since: Place, decided: int | None = None) -> Window:
    if decided is None:
        now = standing(gateway, 1)
        assert now is not None
        decided = now.sequence
    *waits, found = decided_after(gateway, 1, since, decided, sleep=lambda _: None)
    assert waits == [None] * len(waits)
    assert found is not None
    return found


def read_all(gateway: Gateway, since: Place) -> list[tuple[Place, str]]:
    """All that is decided after ``since``, window by window."""
    found: list[tuple[Place, str]] = []
    now = standing(gateway, 1)
    assert now is not None
    while since.sequence < now.sequence:
        read = window(gateway, since, now.sequence)
        found += [(place, id_of(order)) for place, order in read.decided]
        since = read.end
    return found


def ids_of(found: Window) -> list[str]:
    return [id_of(order) for _, order in found.decided]


def id_of(order: RecordedOrder | UnreadableOrder) -> str:
    return order.id if isinstance(order, UnreadableOrder) else order.order.id


def recorded(gateway: Gateway, since: int) -> list[tuple[int, str]]:
    """What stands in the table: the places after ``since``, and whose they are."""
    orders = [item for item in everything(gateway) if keys.is_order(item)]
    places = [(items.read_places(item)[0], keys.order_of(item)[1]) for item in orders]
    return sorted((place, order) for place, order in places if place is not None and place > since)


def test_nothing_is_after_the_end(gateway: CountedGateway) -> None:
    settle(gateway, *opened_with(gateway, 1, 2))
    now = standing(gateway, 1)
    assert now is not None
    assert now.sequence == 2
    assert window(gateway, now) == Window((), now)
    assert standing(gateway, 2) is None


def test_decided_orders_come_in_their_sequence_with_one_read(gateway: CountedGateway) -> None:
    first, *rest = orders = opened_with(gateway, 1, 2, 3)
    settle(gateway, *orders)
    begin = window(gateway, BEGINNING, 1)
    assert ids_of(begin) == [first.id]
    gateway.gets, gateway.looked_at = 0, []

    found = window(gateway, begin.end, 3)

    # The one before, and these two.
    assert (gateway.gets, gateway.looked_at) == (0, [3])
    assert ids_of(found) == [order.id for order in rest]
    assert found.decided[0][1] == stored_order(gateway, rest[0])
    assert [place.sequence for place, _ in found.decided] == [2, 3]
    assert found.decided[-1][0] == found.end

    gateway.gets, gateway.looked_at = 0, []
    later = window(gateway, found.decided[0][0], 3)
    # Found ahead, with nothing asked twice.
    assert gateway.gets == 0
    assert sum(gateway.looked_at) <= 4
    assert ids_of(later) == [rest[1].id]


def test_a_reader_that_keeps_up_never_reads_old_orders_again(gateway: CountedGateway) -> None:
    place = BEGINNING
    orders = opened_with(gateway, *range(1, 31))
    for order in orders:
        settle(gateway, order)
        place = window(gateway, place, place.sequence + 1).end
    assert place == Place(30, orders[-1].id)
    # The new one and the one before it, however many there were.
    assert gateway.looked_at[-1] <= 2


def test_an_order_cancelled_far_ahead_is_found_and_those_before_it_later(
    gateway: CountedGateway,
) -> None:
    orders = opened_with(gateway, *range(1, 41))
    cancel(gateway, orders[38])
    found = window(gateway, BEGINNING)
    assert ids_of(found) == [orders[38].id]
    assert found.end.through == BEGINNING.through

    park_next(gateway, orders[0])
    gateway.looked_at = []
    later = window(gateway, found.end)
    assert ids_of(later) == [orders[0].id]
    assert later.end == Place(2, orders[0].id)
    # No look at all that is pending, only to find the next one.
    assert sum(gateway.looked_at) <= 2


def test_a_replayed_order_comes_again_with_its_new_place(gateway: CountedGateway) -> None:
    parked, *others = opened_with(gateway, 1, 2, 3)
    park_next(gateway, parked)
    settle(gateway, *others)
    before = read_all(gateway, BEGINNING)
    assert [order for _, order in before] == [parked.id, others[0].id, others[1].id]

    parking.replay(gateway, ref(parked))
    settle(gateway, parked)

    assert stored_order(gateway, parked).sequence == 4
    (found,) = read_all(gateway, before[-1][0])
    assert (found[0].sequence, found[1]) == (4, parked.id)
    # Its first place is nobody's now.
    assert [order for _, order in read_all(gateway, BEGINNING)] == [
        others[0].id,
        others[1].id,
        parked.id,
    ]


def test_an_order_parked_twice_is_found_by_whoever_knows_the_first_time(
    gateway: CountedGateway,
) -> None:
    parked, other = opened_with(gateway, 1, 2)
    park_next(gateway, parked)
    settle(gateway, other)
    place = read_all(gateway, BEGINNING)[-1][0]
    parking.replay(gateway, ref(parked))
    park_next(gateway, parked, minutes=1)
    parking.replay(gateway, ref(parked))
    cancel(gateway, parked)

    (found,) = read_all(gateway, place)

    assert (found[0].sequence, found[1]) == (4, parked.id)


def test_a_long_absence_is_made_up_for_by_windows_of_bounded_size(
    gateway: CountedGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decisions, "WINDOW_DECISIONS_MAX", 7)
    orders = opened_with(gateway, *range(1, 31))
    settle(gateway, *orders)
    first = window(gateway, BEGINNING)
    assert len(first.decided) == 7
    assert [order for _, order in read_all(gateway, BEGINNING)] == [order.id for order in orders]
    assert max(gateway.looked_at) <= 8


def test_no_more_orders_are_read_at_once_than_the_bound(
    gateway: CountedGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decisions, "PAGE_ITEMS_MAX", 10)
    orders = opened_with(gateway, *range(1, 41))
    cancel(gateway, orders[-1])
    assert ids_of(window(gateway, BEGINNING)) == [orders[-1].id]
    assert max(gateway.looked_at) == 10


def test_a_notice_that_tells_of_too_much_is_not_believed(gateway: CountedGateway) -> None:
    orders = opened_with(gateway, 1, 2)
    settle(gateway, *orders)
    found = window(gateway, BEGINNING, 50)
    assert ids_of(found) == [order.id for order in orders]
    assert found.end.sequence == 2
    assert window(gateway, found.end, 50).end.sequence == 2


def test_a_damaged_order_comes_as_what_can_be_read_of_it(gateway: CountedGateway) -> None:
    first, second = opened_with(gateway, 1, 2)
    settle(gateway, first, second)
    overwrite(gateway, keys.order_key(*ref(first)), "share_price", items.text("nonsense"))
    found = window(gateway, BEGINNING)
    assert ids_of(found) == [first.id, second.id]
    assert isinstance(found.decided[0][1], UnreadableOrder)


def test_an_order_that_lost_its_place_holds_nobody_up(
    gateway: CountedGateway, missed: list[Any]
) -> None:
    first, second, third = opened_with(gateway, 1, 2, 3)
    settle(gateway, first, second, third)
    overwrite(gateway, keys.order_key(*ref(second)), "sequence", items.text("nonsense"))
    found = window(gateway, BEGINNING)
    assert ids_of(found) == [first.id, third.id]
    assert found.end == Place(3, third.id)
    assert missed.pop()["sequences"] == [2]


def test_a_transaction_that_shows_in_parts_is_waited_for(gateway: CountedGateway) -> None:
    first, second = opened_with(gateway, 1, 2)
    park_next(gateway, first)

    def pass_time(pause_seconds: float) -> None:
        assert pause_seconds > 0
        park_next(gateway, second)

    *_, found = decided_after(gateway, 1, BEGINNING, 2, sleep=pass_time)

    assert found is not None
    assert ids_of(found) == [first.id, second.id]


@pytest.mark.parametrize("seed", range(6))
def test_any_reader_finds_all_after_its_place_and_nothing_twice(
    gateway: CountedGateway, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Orders come, are decided, cancelled, parked, replayed; readers go on from any event."""
    monkeypatch.setattr(decisions, "WINDOW_DECISIONS_MAX", 4)
    random = Random(seed)
    opened_with(gateway)
    orders: list[Order] = []
    places = [BEGINNING]
    for step in range(30):
        act(gateway, random, orders, step)
        if random.random() < 0.5:
            place = random.choice(places)
            found = read_all(gateway, place)
            told = [(at.sequence, order) for at, order in found]
            assert told == recorded(gateway, place.sequence), f"seed {seed}, step {step}"
            places += [at for at, _ in found]


def act(gateway: Gateway, random: Random, orders: list[Order], step: int) -> None:
    """Let something happen that may happen now."""
    what = random.choice(("add", "add", "settle", "settle", "cancel", "park", "replay"))
    if what == "add" or not orders:
        orders += add(gateway, len(orders) + 1, len(orders) + 2)
        return
    found = [item for item in everything(gateway) if keys.is_order(item)]
    of = {keys.order_of(item)[1]: items.read_status(item) for item in found}
    pending = [order for order in orders if of[order.id] is OrderStatus.PENDING]
    parked = [order for order in orders if of[order.id] is OrderStatus.FAILED]
    if what == "settle" and pending:
        settle(gateway, random.choice(pending))
    elif what == "cancel" and pending:
        cancel(gateway, random.choice(pending))
    elif what == "park" and pending:
        park_next(gateway, pending[0], step)
    elif what == "replay" and parked:
        parking.replay(gateway, ref(random.choice(parked)))
