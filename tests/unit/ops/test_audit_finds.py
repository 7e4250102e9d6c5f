"""Each way in which an account's books can be wrong is found, at its first order."""

import json
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from ops.differences import _SHOWN_POSITIONS_MAX, What, differing_positions
from shared.domain.account import Position
from shared.ids import first_id_at
from shared.order_store import items, keys
from shared.order_store.keys import SHARD, Item
from shared.order_store.records import IdempotencyClaim
from tests.ledger import OPENED, Ledger
from tests.unit.ops.audited import Table, audit, by_kind, id_of, shift, table_of

ACCOUNT = 2
ORDERS = 60


@pytest.fixture
def table() -> Table:
    """Three accounts; the tests spoil the one in the middle."""
    return table_of(Ledger(1, ORDERS), Ledger(ACCOUNT, ORDERS), Ledger(3, ORDERS))


def nth(table: Table, number: int, status: str) -> Item:
    """The ``number``-th order of ``status`` of the account to be spoilt."""
    return [o for o in table.orders(ACCOUNT) if o["status"]["S"] == status][number]


def account(table: Table) -> Item:
    return table.find(keys.account_key(ACCOUNT))


def head(table: Table) -> Item:
    return table.find(keys.head_key(ACCOUNT))


def after(table: Table, order: Item) -> list[Item]:
    """The orders after ``order``."""
    return [one for one in table.orders(ACCOUNT) if id_of(one) > id_of(order)]


def cost(order: Item) -> Decimal:
    amount = Decimal(order["total_shares"]["N"]) * Decimal(order["share_price"]["N"])
    return amount if order["operation"]["S"] == "BUY" else -amount


def test_a_consistent_table_shows_no_difference(table: Table) -> None:
    statuses = {order["status"]["S"] for order in table.orders(ACCOUNT)}
    assert statuses == {"executed", "rejected"}
    assert audit(table) == []
    assert table.looks == []


def test_many_orders_within_the_window_show_no_difference() -> None:
    busy = table_of(Ledger(1, 1500, seconds_between=0.5))
    repeated = [o for o in busy.orders(1) if "DUPLICATED_OPERATION" in str(o)]
    assert len(repeated) > 100
    assert audit(busy) == []


def test_cash_that_was_changed_is_found_in_its_account_alone(table: Table) -> None:
    shift(account(table)["cash"], Decimal("0.01"))
    (difference,) = audit(table)
    assert difference.account_id == ACCOUNT
    assert difference.what is What.CASH
    assert difference.order_id is None
    assert Decimal(difference.found) - Decimal(difference.expected) == Decimal("0.01")


def test_a_balance_that_was_changed_is_found_at_its_order(table: Table) -> None:
    order = nth(table, 9, "executed")
    shift(order["balance"]["M"]["cash"], Decimal(1))
    (difference,) = audit(table)
    assert (difference.what, difference.order_id) == (What.BALANCE, id_of(order))
    assert difference.orders == 1


def test_positions_of_a_balance_that_were_changed_are_found_at_their_order(table: Table) -> None:
    order = nth(table, 20, "executed")
    positions = order["balance"]["M"]["positions"]["M"]
    name = sorted(positions)[0]
    shift(positions[name]["L"][0], Decimal(1))
    (difference,) = audit(table)
    assert (difference.what, difference.order_id) == (What.BALANCE, id_of(order))
    assert name in difference.expected
    assert name in difference.found


@pytest.mark.parametrize("count", [_SHOWN_POSITIONS_MAX, _SHOWN_POSITIONS_MAX + 1])
def test_a_line_shows_so_many_positions_and_no_more(count: int) -> None:
    held = {f"ISSUER {number}": Position(number, Decimal(1)) for number in range(1, count + 1)}
    for shown in differing_positions(held, {}):
        assert shown.count("ISSUER") == _SHOWN_POSITIONS_MAX


@pytest.mark.parametrize("decided", [2**63 + ORDERS, 10**38 - 1])
def test_a_count_of_decisions_of_any_size_ends_no_audit(table: Table, decided: int) -> None:
    account(table)["decided"] = items.number(decided)
    found = by_kind(audit(table))
    assert set(found) == {What.SEQUENCE}
    assert found[What.SEQUENCE].account_id == ACCOUNT
    assert found[What.SEQUENCE].found == f"{decided - ORDERS} missing, the first is {ORDERS + 1}"


def test_an_executed_order_that_says_rejected_is_found(table: Table) -> None:
    order = nth(table, 7, "executed")
    order["status"] = items.text("rejected")
    order["business_errors"] = {"L": [items.text("CLOSED_MARKET")]}
    found = by_kind(audit(table))
    assert set(found) == {What.STATUS}
    assert found[What.STATUS].order_id == id_of(order)
    assert found[What.STATUS].expected == "executed"
    assert found[What.STATUS].found == "rejected CLOSED_MARKET"


def test_a_rejected_order_that_says_executed_is_found(table: Table) -> None:
    order = nth(table, 1, "rejected")
    order["status"] = items.text("executed")
    del order["business_errors"]
    found = by_kind(audit(table))
    assert set(found) == {What.STATUS}
    assert found[What.STATUS].order_id == id_of(order)


def test_other_reasons_of_a_rejection_are_found(table: Table) -> None:
    order = nth(table, 1, "rejected")
    order["business_errors"]["L"].append(items.text("CLOSED_MARKET"))
    found = by_kind(audit(table))
    assert set(found) == {What.BUSINESS_ERRORS}
    assert found[What.BUSINESS_ERRORS].order_id == id_of(order)


def test_a_price_that_was_changed_is_found_at_its_order(table: Table) -> None:
    order = nth(table, 12, "executed")
    shift(order["share_price"], Decimal(1))
    found = by_kind(audit(table))
    assert found[What.BALANCE].order_id == id_of(order)
    assert What.CASH in found
    assert found[What.BALANCE].orders == 1 + len(after(table, order))


def test_an_order_executed_twice_is_found_at_that_order(table: Table) -> None:
    order = nth(table, 5, "executed")
    for one in [order, *after(table, order)]:
        shift(one["balance"]["M"]["cash"], -cost(order))
    shift(account(table)["cash"], -cost(order))
    found = by_kind(audit(table))
    assert set(found) == {What.BALANCE, What.CASH}
    assert found[What.BALANCE].order_id == id_of(order)


def test_a_deleted_order_is_found_at_the_next_one(table: Table) -> None:
    order = nth(table, 30, "executed")
    following = after(table, order)[0]
    table.items.remove(order)
    found = by_kind(audit(table))
    assert found[What.SEQUENCE].order_id == id_of(following)
    assert order["sequence"]["N"] in found[What.SEQUENCE].found
    assert found[What.BALANCE].order_id == id_of(following)
    assert What.ACCEPTED in found


def test_a_deleted_rejected_order_is_found_too(table: Table) -> None:
    order = nth(table, 2, "rejected")
    following = after(table, order)[0]
    table.items.remove(order)
    found = by_kind(audit(table))
    assert set(found) == {What.SEQUENCE, What.ACCEPTED}
    assert found[What.SEQUENCE].order_id == id_of(following)


def test_a_deleted_last_order_is_found(table: Table) -> None:
    table.items.remove(table.orders(ACCOUNT)[-1])
    found = by_kind(audit(table))
    assert {What.SEQUENCE, What.ACCEPTED, What.HEAD} <= set(found)
    assert found[What.SEQUENCE].order_id is None


def test_a_sequence_that_comes_up_twice_is_found_at_the_second_order(table: Table) -> None:
    first, second = table.orders(ACCOUNT)[10:12]
    second["sequence"] = first["sequence"]
    found = by_kind(audit(table))
    assert found[What.SEQUENCE].order_id == id_of(second)
    assert "twice" in found[What.SEQUENCE].found


def test_a_copy_of_an_order_under_another_id_is_found(table: Table) -> None:
    order = table.orders(ACCOUNT)[10]
    copy = {**order, **keys.order_key(ACCOUNT, first_id_at(OPENED))}
    table.items.append(copy)
    found = by_kind(audit(table))
    assert What.SEQUENCE in found
    assert What.ACCEPTED in found


def test_a_decided_order_without_a_sequence_is_found(table: Table) -> None:
    order = nth(table, 3, "executed")
    del order["sequence"]
    found = by_kind(audit(table))
    assert found[What.SEQUENCE].order_id == id_of(order)


def test_a_sequence_beyond_the_count_of_decisions_is_found(table: Table) -> None:
    order = table.orders(ACCOUNT)[-1]
    order["sequence"] = items.number(ORDERS + 7)
    found = by_kind(audit(table))
    assert found[What.SEQUENCE].order_id == id_of(order)


def test_orders_decided_out_of_turn_are_found_at_the_one_that_came_too_late(table: Table) -> None:
    first, second = table.orders(ACCOUNT)[10:12]
    first["sequence"], second["sequence"] = second["sequence"], first["sequence"]
    found = by_kind(audit(table))
    assert found[What.TURN].order_id == id_of(first)


@pytest.mark.parametrize("value", [keys.shard_of(ACCOUNT), keys.PARKED_SHARD])
def test_a_decided_order_that_is_still_indexed_is_found(table: Table, value: str) -> None:
    order = nth(table, 3, "executed")
    order[SHARD] = items.text(value)
    (difference,) = audit(table)
    assert (difference.what, difference.order_id) == (What.INDEX, id_of(order))


def pending(table: Table) -> Item:
    """An order more, not decided yet, as accepting it would leave it."""
    last = table.orders(ACCOUNT)[-1]
    number = ORDERS + 1
    kept = ("operation", "issuer_name", "total_shares", "share_price", "timestamp", "received_at")
    order = {
        **keys.order_key(ACCOUNT, id_of(last)[:-1] + "f"),
        **{name: last[name] for name in kept},
        "status": items.text("pending"),
        SHARD: items.text(keys.shard_of(ACCOUNT)),
    }
    table.items.append(order)
    head(table)["accepted"] = items.number(number)
    head(table)["newest"] = items.text(id_of(order))
    return order


def test_a_pending_order_is_no_difference(table: Table) -> None:
    pending(table)
    assert audit(table) == []


@pytest.mark.parametrize("value", [None, keys.PARKED_SHARD, "99"])
def test_a_pending_order_that_no_sweep_can_see_is_found(table: Table, value: str | None) -> None:
    order = pending(table)
    del order[SHARD]
    if value:
        order[SHARD] = items.text(value)
    (difference,) = audit(table)
    assert (difference.what, difference.order_id) == (What.INDEX, id_of(order))


def test_a_parked_order_that_no_list_shows_is_found(table: Table) -> None:
    order = nth(table, 1, "rejected")
    order |= {"status": items.text("failed"), "failure": items.text("parked")}
    del order["business_errors"]
    assert {one.what for one in audit(table)} == {What.INDEX}
    order[SHARD] = items.text(keys.PARKED_SHARD)
    assert audit(table) == []


def test_a_pending_order_that_the_worker_takes_for_decided_is_found(table: Table) -> None:
    order = pending(table)
    account(table)["decided_through"] = items.text(id_of(order))
    (difference,) = audit(table)
    assert (difference.what, difference.order_id) == (What.DECIDED_THROUGH, id_of(order))


def test_a_point_beyond_all_orders_up_to_which_all_counts_as_decided_is_found(
    table: Table,
) -> None:
    account(table)["decided_through"] = items.text(first_id_at(OPENED + timedelta(days=400)))
    (difference,) = audit(table)
    assert (difference.what, difference.order_id) == (What.DECIDED_THROUGH, None)
    assert difference.account_id == ACCOUNT


def test_a_parked_order_that_says_no_reason_is_found(table: Table) -> None:
    order = nth(table, 1, "rejected")
    order |= {"status": items.text("failed"), SHARD: items.text(keys.PARKED_SHARD)}
    del order["business_errors"]
    (difference,) = audit(table)
    assert (difference.what, difference.order_id) == (What.UNREADABLE, id_of(order))


def test_reasons_of_an_order_that_no_rule_was_asked_about_are_found(table: Table) -> None:
    order = nth(table, 1, "rejected")
    order["status"] = items.text("cancelled")
    (difference,) = audit(table)
    assert (difference.what, difference.order_id) == (What.BUSINESS_ERRORS, id_of(order))
    assert difference.expected == "none"


def remembered(table: Table) -> Item:
    """The answer to a request that made an order, as it is remembered for its key."""
    order = table.orders(ACCOUNT)[0]
    claim = IdempotencyClaim(f"account/{ACCOUNT}", "key", "fingerprint")
    item = items.idempotency_item(claim, id_of(order), 1_900_000_000)
    table.items.append(item)
    return item


def test_remembered_answers_are_no_difference(table: Table) -> None:
    remembered(table)
    opened = IdempotencyClaim("accounts", "key", "fingerprint")
    table.items.append(items.idempotency_item(opened, str(ACCOUNT), 1_900_000_000))
    assert audit(table) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, None) for name in ("fingerprint", "result", "expires_at")),
        *((name, {"BOOL": True}) for name in ("fingerprint", "result", "expires_at")),
        ("result", {"S": "nonsense"}),
        ("expires_at", {"N": "1.5"}),
    ],
)
def test_a_remembered_answer_that_could_not_be_given_again_is_found(
    table: Table, name: str, value: dict[str, Any] | None
) -> None:
    item = remembered(table)
    del item[name]
    if value is not None:
        item[name] = value
    (difference,) = audit(table)
    assert (difference.what, difference.account_id) == (What.UNREADABLE, None)
    assert "IDEMPOTENCY#" in difference.found


def test_a_deleted_pending_order_is_found(table: Table) -> None:
    table.items.remove(pending(table))
    assert {one.what for one in audit(table)} == {What.ACCEPTED, What.HEAD}


@pytest.mark.parametrize("by", [1, -1])
def test_a_head_that_counts_wrong_is_found(table: Table, by: int) -> None:
    shift(head(table)["accepted"], Decimal(by))
    (difference,) = audit(table)
    assert difference.what is What.ACCEPTED
    assert difference.account_id == ACCOUNT


def test_a_missing_head_is_found(table: Table) -> None:
    table.items.remove(head(table))
    (difference,) = audit(table)
    assert (difference.what, difference.account_id) == (What.HEAD, ACCOUNT)


def test_orders_without_an_account_are_found(table: Table) -> None:
    table.items.remove(account(table))
    found = by_kind(audit(table))
    assert found[What.ORPHAN].order_id == id_of(table.orders(ACCOUNT)[0])
    assert found[What.ORPHAN].account_id == ACCOUNT


def test_shares_that_were_changed_are_found(table: Table) -> None:
    positions = account(table)["positions"]["M"]
    name = sorted(positions)[0]
    shift(positions[name]["L"][0], Decimal(1))
    (difference,) = audit(table)
    assert difference.what is What.POSITIONS
    assert difference.expected != difference.found
    assert name in difference.found


def test_cash_below_zero_is_found_as_such(table: Table) -> None:
    account(table)["cash"] = items.number(-1)
    assert set(by_kind(audit(table))) == {What.CASH, What.NEGATIVE}


def test_another_instant_of_the_last_execution_is_found(table: Table) -> None:
    account(table)["last_executed_at"] = items.instant(OPENED)
    (difference,) = audit(table)
    assert difference.what is What.LAST_EXECUTED_AT


def test_an_executed_operation_that_is_forgotten_is_found(table: Table) -> None:
    recent = json.loads(account(table)["recent"]["S"])
    operation = sorted(recent)[0]
    del recent[operation]
    account(table)["recent"] = items.text(json.dumps(recent))
    (difference,) = audit(table)
    assert difference.what is What.RECENT
    assert operation in difference.expected


def test_an_executed_operation_that_never_was_is_found(table: Table) -> None:
    recent = json.loads(account(table)["recent"]["S"])
    recent["BUY:41:AAPL"] = next(iter(recent.values()))
    account(table)["recent"] = items.text(json.dumps(recent))
    (difference,) = audit(table)
    assert difference.what is What.RECENT
    assert "BUY:41:AAPL" in difference.found


def test_rules_that_cannot_be_read_end_the_derivation_there(table: Table) -> None:
    order = nth(table, 4, "executed")
    order["rules"] = items.text("whatever seems right")
    shift(account(table)["cash"], Decimal(1))
    (difference,) = audit(table)
    assert (difference.what, difference.order_id) == (What.RULES, id_of(order))


@pytest.mark.parametrize("name", ["share_price", "status", "sequence", "balance", "timestamp"])
def test_an_order_that_cannot_be_read_is_told_and_no_crash(table: Table, name: str) -> None:
    order = nth(table, 4, "executed")
    order[name] = {"S": "nonsense"}
    found = by_kind(audit(table))
    assert found[What.UNREADABLE].order_id == id_of(order)
    assert name == "sequence" or set(found) == {What.UNREADABLE}


def test_an_order_that_cannot_be_decided_is_told_and_no_crash(table: Table) -> None:
    # With so much cash, what a purchase leaves has more digits than can be reckoned with.
    account(table)["opening_cash"] = items.number(10**37)
    found = by_kind(audit(table))
    assert set(found) == {What.UNREADABLE}
    assert "decided" in found[What.UNREADABLE].expected
    assert found[What.UNREADABLE].order_id in [id_of(one) for one in table.orders(ACCOUNT)]


def test_a_decided_order_without_a_balance_is_found(table: Table) -> None:
    order = nth(table, 4, "executed")
    del order["balance"]
    (difference,) = audit(table)
    assert (difference.what, difference.order_id) == (What.BALANCE, id_of(order))
    assert difference.found == "none"


def test_the_earliest_order_of_an_account_is_told_first(table: Table) -> None:
    first, second = nth(table, 2, "executed"), nth(table, 9, "executed")
    shift(account(table)["cash"], Decimal(1))
    shift(second["balance"]["M"]["cash"], Decimal(1))
    first[SHARD] = items.text(keys.shard_of(ACCOUNT))
    found = [(one.what, one.order_id) for one in audit(table)]
    assert found == [
        (What.INDEX, id_of(first)),
        (What.BALANCE, id_of(second)),
        (What.CASH, None),
    ]


def test_a_rejected_order_that_cannot_be_read_leaves_the_rest_derivable(table: Table) -> None:
    order = nth(table, 0, "rejected")
    order["share_price"] = {"S": "nonsense"}
    shift(account(table)["cash"], Decimal(1))
    found = by_kind(audit(table))
    assert set(found) == {What.UNREADABLE, What.CASH}


@pytest.mark.parametrize("which", [account, head])
def test_an_account_that_cannot_be_read_is_told_and_no_crash(
    table: Table, which: Callable[[Table], Item]
) -> None:
    for name in list(which(table)):
        if name not in (keys.PK, keys.SK):
            which(table)[name] = {"BOOL": True}
    (difference,) = audit(table)
    assert (difference.what, difference.account_id) == (What.UNREADABLE, ACCOUNT)


def test_a_counter_behind_the_accounts_is_found(table: Table) -> None:
    table.find(keys.counter_key())["newest"] = items.number(2)
    (difference,) = audit(table)
    assert (difference.what, difference.account_id) == (What.COUNTER, 3)


def test_items_that_are_none_of_ours_are_found(table: Table) -> None:
    table.items.append({"pk": items.text("ACCOUNT#007"), "sk": items.text("ACCOUNT")})
    table.items.append({"pk": items.text(f"ACCOUNT#{ACCOUNT}"), "sk": items.text("NOTE")})
    assert [(one.what, one.account_id) for one in audit(table)] == [
        (What.UNKNOWN, None),
        (What.UNKNOWN, ACCOUNT),
    ]


def test_each_account_is_told_of_once(table: Table) -> None:
    for account_id in (1, 2, 3):
        shift(table.find(keys.account_key(account_id))["cash"], Decimal(account_id))
    assert [one.account_id for one in audit(table)] == [1, 2, 3]


def test_an_account_opened_before_its_cash_was_kept_is_derived_from_its_first_order(
    table: Table,
) -> None:
    del account(table)["opening_cash"]
    assert audit(table) == []
    order = nth(table, 8, "executed")
    shift(order["share_price"], Decimal(1))
    assert by_kind(audit(table))[What.BALANCE].order_id == id_of(order)
