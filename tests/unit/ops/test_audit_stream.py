"""The audit as a stream: bounded memory, traffic meanwhile, tables that do not come in order."""

import gc
import sys
import tracemalloc
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest

from ops.auditor import LOOKS_MAX, AuditImpossible, Auditor, SeenAccounts
from ops.books import _CARRIED_MAX, _GAPS_MAX, Books
from ops.differences import What
from shared.domain.decision import Decision, decide
from shared.domain.order import OrderStatus
from shared.ids import first_id_at
from shared.order_store import items, keys
from shared.order_store.keys import SHARD, Item
from shared.order_store.records import Balance, Parking
from tests.ledger import (
    OPENED,
    OPENING_CASH,
    RULES,
    Ledger,
    account_item,
    counter_item,
    head_item,
    order_item,
    pages,
)
from tests.unit.factories import make_order
from tests.unit.ops.audited import Table, audit, by_kind, id_of, shift, table_of

ONE = [Ledger(1, 40)]


class NoReader:
    """A reader for tables that need no second look."""

    def __init__(self, newest: int) -> None:
        self._newest = newest

    def account_pages(self, account_id: int) -> list[list[Item]]:
        raise AssertionError(f"account {account_id} is looked at again")

    def decided_count(self, account_id: int) -> int | None:
        raise AssertionError(f"account {account_id} is looked at again")

    def newest_account_id(self) -> int:
        return self._newest


def most_blocks(ledgers: Sequence[Ledger]) -> int:
    """The most blocks of memory that Python holds after any page of an audit of ``ledgers``."""
    held: list[int] = []
    auditor = Auditor(
        NoReader(len(ledgers)), progress=lambda _: held.append(sys.getallocatedblocks())
    )
    gc.collect()
    assert list(auditor.table(pages(ledgers, page_items=200))) == []
    assert auditor.summary.orders == sum(ledger.orders for ledger in ledgers)
    return max(held)


FEW, MANY = 1_500, 12_000
GROWTH_BLOCKS_MAX = (MANY - FEW) // 2
"""Whoever kept anything at all of an order would keep a block of memory for each."""


@pytest.mark.parametrize("orders_each", [20, None], ids=["many accounts", "one account"])
def test_eight_times_the_orders_take_no_more_memory(orders_each: int | None) -> None:
    def ledgers(orders: int) -> list[Ledger]:
        each = orders_each or orders
        # Hardly any operation comes up twice: nothing bounds what is remembered but its age.
        return [
            Ledger(number, each, shares_max=3000, cents_max=10)
            for number in range(1, orders // each + 1)
        ]

    most_blocks(ledgers(FEW))  # caches are filled now
    few, many = most_blocks(ledgers(FEW)), most_blocks(ledgers(MANY))
    assert many - few < GROWTH_BLOCKS_MAX


def test_the_summary_counts_what_was_read() -> None:
    table = table_of(Ledger(1, 40), Ledger(2, 30))
    auditor = Auditor(table)
    assert list(auditor.table(table.pages())) == []
    summary = auditor.summary
    assert summary.totals.accounts == 2
    assert summary.orders == 70
    assert summary.items == len(table.items)
    assert summary.totals.balanced
    assert summary.totals.gone == summary.totals.net_bought != 0


def test_progress_is_told_page_by_page() -> None:
    table = table_of(*ONE)
    seen: list[int] = []
    list(Auditor(table, progress=seen.append).table(table.pages(20)))
    assert seen == [20, 20, 3]


def test_segments_may_come_in_turns() -> None:
    first, second = table_of(Ledger(1, 40)), table_of(Ledger(2, 40))
    second.items = [item for item in second.items if keys.account_id_of(item) == 2]
    turns = [
        page
        for one, other in zip(first.pages(10), second.pages(10), strict=False)
        for page in (one, (1, other[1]))
    ]
    turns += list(first.pages(10))[len(turns) // 2 :]
    turns += [(1, page) for _, page in list(second.pages(10))[len(turns) // 2 :]]
    auditor = Auditor(NoReader(2))
    assert list(auditor.table(turns)) == []
    assert auditor.summary.orders == 80


def test_an_account_that_comes_back_makes_the_audit_impossible() -> None:
    table = table_of(Ledger(1, 10), Ledger(2, 10))
    (_, page), *_ = table.pages(1000)
    own = [item for item in page if keys.account_id_of(item) == 1]
    rest = [item for item in page if keys.account_id_of(item) == 2]
    with pytest.raises(AuditImpossible, match="account 1 came up twice"):
        list(Auditor(table).table([(0, own[:5]), (0, rest), (0, own[5:])]))


def test_items_out_of_order_make_the_audit_impossible() -> None:
    table = table_of(*ONE)
    (_, page), *_ = table.pages(1000)
    with pytest.raises(AuditImpossible, match="in order"):
        list(Auditor(table).table([(0, page[::-1])]))


def test_account_ids_of_any_size_are_told_apart() -> None:
    seen = SeenAccounts()
    ids = [1, 7, 8, 65_535, 65_536, 10**18]
    assert all(map(seen.add, ids))
    assert not any(map(seen.add, ids))
    assert seen.largest == 10**18


# Traffic meanwhile


def stale(table: Table) -> list[tuple[int, list[Item]]]:
    """The pages as they are now: what changes later is not in them."""
    return [(segment, [dict(item) for item in page]) for segment, page in table.pages()]


def grow(table: Table, by: int, *, replaces: int = 1) -> None:
    """Put account ``replaces`` as it is ``by`` orders later."""
    later = Ledger(replaces, len(table.orders(replaces)) + by)
    table.items = [item for item in table.items if keys.account_id_of(item) != replaces]
    table.items += later.items()


def test_orders_decided_after_their_account_was_read_are_left_out() -> None:
    before, after = table_of(*ONE), table_of(*ONE)
    grow(after, 20)
    own = [before.find(keys.account_key(1)), *(i for i in after.items if i["sk"]["S"] != "ACCOUNT")]
    mixed = sorted((i for i in own if keys.account_id_of(i) == 1), key=lambda i: i["sk"]["S"])
    assert list(Auditor(after).table([(0, mixed)])) == []
    assert after.looks == []


def test_orders_accepted_after_the_head_was_read_are_not_counted() -> None:
    table = table_of(*ONE)
    (_, page), *_ = table.pages(1000)
    head = next(item for item in page if item["sk"]["S"] == "HEAD")
    last = table.orders(1)[-1]
    pending = {
        **{name: value for name, value in last.items() if name not in ("sequence", "balance")},
        **keys.order_key(1, id_of(last)[:-1] + "f"),
        "status": items.text("pending"),
        SHARD: items.text(keys.shard_of(1)),
    }
    assert head["accepted"] == items.number(40)
    own = [item for item in page if keys.account_id_of(item) == 1]
    assert list(Auditor(NoReader(1)).table([(0, [*own, pending])])) == []


def test_what_only_seemed_wrong_is_not_reported() -> None:
    table = table_of(*ONE)
    read = stale(table)
    torn = [item for item in read[0][1] if not keys.is_order(item)]
    auditor = Auditor(table, sleep=lambda _: None)
    assert list(auditor.table([(0, torn)])) == []
    assert table.looks == [1]
    assert auditor.summary.looked_again == 1
    assert auditor.summary.orders == 40


def test_what_is_wrong_and_stands_still_is_reported_after_one_look() -> None:
    table = table_of(*ONE)
    shift(table.find(keys.account_key(1))["cash"], Decimal(1))
    assert [one.what for one in audit(table)] == [What.CASH]
    assert table.looks == [1]


def test_what_stays_wrong_while_the_account_is_traded_is_reported() -> None:
    table = table_of(*ONE)
    order = table.orders(1)[5]
    price = items.number(Decimal(order["share_price"]["N"]) + 1)

    def trade() -> None:
        grow(table, 5)
        table.orders(1)[5]["share_price"] = price

    order["share_price"] = price
    table.before_read = [trade] * LOOKS_MAX
    found = by_kind(audit(table))
    assert found[What.BALANCE].order_id == id_of(order)
    assert table.looks == [1] * LOOKS_MAX


def test_a_sequence_beyond_the_count_is_right_if_the_account_went_on() -> None:
    table = table_of(*ONE)
    early = table.find(keys.account_key(1))
    grow(table, 10)
    read = stale(table)
    read[0][1][0] = early
    auditor = Auditor(table, sleep=lambda _: None)
    assert [one.what for one in auditor.table(read)] == []


# Decisions out of the order of ids


def cancelled_first(count: int) -> list[Item]:
    """An account whose last order was cancelled before ``count`` others were decided."""
    own = list(Ledger(1, count).items())
    account, head, orders = own[0], own[1], own[2:]
    for order in orders:
        shift(order["sequence"], Decimal(1))
    last = {
        **orders[0],
        **keys.order_key(1, id_of(orders[-1])[:-1] + "f"),
        "status": items.text("cancelled"),
        "sequence": items.number(1),
        "balance": items.write_balance(Balance(Decimal(100_000), {})),
    }
    last.pop("business_errors", None)
    account["decided"] = head["accepted"] = items.number(count + 1)
    head["newest"] = items.text(id_of(last))
    return [*own, last]


@pytest.mark.parametrize("waiting_max", [5, 1000])
def test_orders_wait_for_one_that_was_cancelled_earlier_but_not_all_of_them(
    waiting_max: int,
) -> None:
    books = Books(1, waiting_max=waiting_max)
    for item in cancelled_first(50):
        books.feed(item)
        assert len(books._waiting) <= waiting_max
    assert books.close().differences == []


def test_replayed_orders_may_wait_for_their_turn_however_many_they_are() -> None:
    count, replayed = 60, 20
    ledger = Ledger(1, count)
    account, head, *orders = ledger.items()
    for order in orders:
        shift(order["sequence"], Decimal(replayed))
    # Older than all others; parked in their turn, replayed, and rejected after all others.
    early: list[Item] = []
    for place in range(1, replayed + 1):
        late = make_order(at=OPENED, number=place)
        _, decision = decide(ledger.final()[0], late, RULES)
        item = order_item(late, decision, replayed + count + place)
        early.append(item | {"parked": items.write_parkings([Parking(OPENED, "why", place)])})
        assert item["status"]["S"] == "rejected"
    account["decided"] = items.number(count + 2 * replayed)
    head["accepted"] = items.number(count + 2 * replayed)
    books = Books(1, waiting_max=5)
    for item in [account, head, *early, *orders]:
        books.feed(item)
    assert books.close().differences == []


def test_an_executed_order_found_where_only_a_cancelled_one_may_be_is_out_of_turn() -> None:
    books = Books(1, waiting_max=5)
    own = cancelled_first(50)
    own[-1]["status"] = items.text("executed")
    for item in own:
        books.feed(item)
    assert What.TURN in {one.what for one in books.close().differences}


def test_gaps_of_all_sizes_are_told_though_few_orders_wait() -> None:
    own = [item for place, item in enumerate(Ledger(1, 300).items()) if place < 2 or place % 3]
    books = Books(1, waiting_max=5)
    for item in own:
        books.feed(item)
    found = by_kind(books.close().differences)
    assert found[What.SEQUENCE].found == "100 missing, the first is 2"


@pytest.mark.parametrize("gaps", [_GAPS_MAX, _GAPS_MAX + 1])
def test_so_many_gaps_are_kept_and_the_rest_is_counted(gaps: int) -> None:
    books = Books(1)
    account, head, *orders = Ledger(1, 2 * gaps).items()
    for item in [account, head, *orders[1::2]]:
        books.feed(item)
    found = by_kind(books.close().differences)
    assert found[What.SEQUENCE].found == f"{gaps} missing, the first is 1"
    assert len(books._gaps) <= _GAPS_MAX


def cancelled_between(orders: int, cancelled: int) -> tuple[list[Item], list[Item]]:
    """An account's items, and those of its newest orders: one cancelled before each decision."""
    account, head, *own = Ledger(1, orders).items()
    for place, item in enumerate(own, start=1):
        item["sequence"] = items.number(place + min(place, cancelled))
    number = orders + cancelled
    late = [
        cancelled_order(first_id_at(OPENED + timedelta(days=1, seconds=place)), 2 * place - 1)
        for place in range(1, cancelled + 1)
    ]
    account["decided"] = head["accepted"] = items.number(number)
    head["newest"] = items.text(id_of(late[-1]))
    return [account, head, *own], late


def cancelled_order(order_id: str, sequence: int) -> Item:
    """An order that was cancelled as the decision ``sequence``, when nothing was bought yet."""
    order = replace(make_order(at=OPENED), id=order_id)
    nothing = Decision(OrderStatus.CANCELLED, (), OPENING_CASH, {})
    item = order_item(order, nothing, sequence)
    del item["rules"]
    return item


CANCELLED = 2_000
WAITING_BYTES_MAX = 450
"""Of each cancelled order that waits; kept as a whole it takes over 800."""


def cancelled_backlog() -> list[Item]:
    """An account whose orders were all cancelled, the newest first."""
    opened = Ledger(1, 0).final()[0]
    ids = [first_id_at(OPENED + timedelta(seconds=place)) for place in range(CANCELLED)]
    return [
        account_item(opened, decided=CANCELLED, decided_through=ids[-1]),
        head_item(1, CANCELLED, ids[-1]),
        *(cancelled_order(one, CANCELLED - place) for place, one in enumerate(ids)),
    ]


def test_little_is_kept_of_cancelled_orders_that_wait_for_their_turn() -> None:
    *own, last = cancelled_backlog()
    fed(*own)  # caches are filled now
    tracemalloc.start()
    try:
        books = fed(*own)
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(books._waiting) == CANCELLED - 1
    assert kept < WAITING_BYTES_MAX * CANCELLED
    books.feed(last)
    assert books.close().differences == []


@pytest.mark.parametrize("complete", [True, False])
def test_a_cancelled_order_that_waited_is_still_compared(complete: bool) -> None:
    own = cancelled_backlog()
    spoilt = own[CANCELLED // 2]
    spoilt["business_errors"] = {"L": [items.text("CLOSED_MARKET")]}
    shift(spoilt["balance"]["M"]["cash"], Decimal(1))
    if not complete:
        spoilt["balance"]["M"]["partial"] = {"BOOL": True}
    found = by_kind(fed(*own).close().differences)
    assert set(found) == {What.BALANCE, What.BUSINESS_ERRORS}
    assert {one.order_id for one in found.values()} == {id_of(spoilt)}
    assert {one.orders for one in found.values()} == {1}


def fed(*fed_items: Item, waiting_max: int = 5) -> Books:
    books = Books(1, waiting_max=waiting_max)
    for item in fed_items:
        books.feed(item)
    return books


GAPS_MAX = 10
"""In tests of more."""


@pytest.fixture
def few_gaps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ops.books._GAPS_MAX", GAPS_MAX)


@pytest.mark.usefixtures("few_gaps")
def test_gaps_that_are_only_counted_are_filled_by_cancelled_orders_too() -> None:
    own, late = cancelled_between(60, 30)
    assert fed(*own, *late).close().differences == []


@pytest.mark.usefixtures("few_gaps")
def test_what_is_missing_of_gaps_that_are_only_counted_is_told() -> None:
    own, late = cancelled_between(60, 30)
    missing = late.pop(20)
    found = by_kind(fed(*own, *late).close().differences)
    assert set(found) == {What.SEQUENCE, What.ACCEPTED}
    assert found[What.SEQUENCE].found.startswith("1 missing between ")
    assert missing["sequence"]["N"] == "41"


@pytest.mark.usefixtures("few_gaps")
@pytest.mark.parametrize("sequence", [1, 2, 2 * GAPS_MAX, 90])
def test_places_outside_of_gaps_that_are_only_counted_still_come_up_twice(sequence: int) -> None:
    own, late = cancelled_between(60, 30)
    late[-1]["sequence"] = items.number(sequence)
    found = by_kind(fed(*own, *late).close().differences)
    assert found[What.SEQUENCE].orders == 1


@pytest.mark.usefixtures("few_gaps")
def test_a_gap_that_falls_apart_makes_no_more_gaps_than_are_kept() -> None:
    count = 60
    account, head, *own = Ledger(1, 2 * count).items()
    late = [
        cancelled_order(first_id_at(OPENED + timedelta(days=1, seconds=place)), 2 * place)
        for place in range(1, count // 2 + 1)
    ]
    books = fed(account, head, *own[count:], *late)
    assert len(books._gaps) == GAPS_MAX
    found = by_kind(books.close().differences)
    assert found[What.SEQUENCE].found == f"{count // 2} missing, the first is 1"


@pytest.mark.parametrize("carried_max", [1, 2, _CARRIED_MAX])
def test_so_many_executed_operations_are_carried_and_no_more(
    carried_max: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ops.books._CARRIED_MAX", carried_max)
    books, carried = Books(1), []
    for item in Ledger(1, 300).items():
        books.feed(item)
        carried.append(len(books._state.recent) if books._state else 0)
    assert books.close().differences == []
    assert max(carried) <= carried_max
    assert carried_max > 2 or max(carried) == carried_max


def test_a_table_without_accounts_is_no_difference() -> None:
    assert audit(Table([counter_item(0)])) == []
