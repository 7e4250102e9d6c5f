"""The judge catches every kind of lie under its own name, and passes what is true."""

import ast
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.chaos import books, checker
from tests.chaos.checker import check
from tests.chaos.history import Call
from tests.chaos.table import AccountRow, Balance, OrderRow, Table

HERE = Path(__file__).parent
JUDGE = ("books", "posts", "turns")
ACCOUNT = 7
UNKNOWN = '{"code": "STORE_UNAVAILABLE", "detail": "it may or may not have been recorded"}'
IN_FLIGHT = '{"code": "IDEMPOTENCY_KEY_IN_FLIGHT"}'
NOTHING_DONE = '{"code": "STORE_UNAVAILABLE", "detail": "nothing was recorded"}'
OPENED = "2026-03-02T15:00:00+00:00"
SECOND = "2026-03-02T15:00:{:02}+00:00"
SECOND_UNIX = 1772463600

Story = tuple[list[Call], Table]
"""What clients saw, and the table in the end."""


def order_id(number: int) -> str:
    return f"00000000-0000-7000-8000-{number:012}"


def sent(number: int, operation: str, shares: int, price: str) -> str:
    asked = {
        "timestamp": SECOND_UNIX + number,
        "operation": operation,
        "issuer_name": "GBM",
        "total_shares": shares,
        "share_price": price,
    }
    return json.dumps(asked)


def shown(row: OrderRow, *, is_pending: bool = False) -> dict[str, Any]:
    balance = None if is_pending or row.balance is None else shown_state(row.balance)
    return {
        "id": row.id,
        "account_id": row.account,
        "status": "pending" if is_pending else row.status,
        "operation": row.operation,
        "issuer_name": row.issuer_name,
        "total_shares": row.total_shares,
        "share_price": str(row.share_price),
        "timestamp": books.microseconds(row.timestamp) / 1_000_000,
        "received_at": row.received_at,
        "decided_at": None if is_pending else row.decided_at,
        "business_errors": [] if is_pending else list(row.errors),
        "current_balance": balance,
    }


def shown_state(balance: Balance) -> dict[str, Any]:
    return {
        "cash": str(balance.cash),
        "issuers": [
            {"issuer_name": name, "total_shares": shares, "share_price": str(price)}
            for name, (shares, price) in balance.positions.items()
        ],
    }


def row(
    number: int, operation: str, shares: int, price: str, balance: Balance, *errors: str
) -> OrderRow:
    return OrderRow(
        ACCOUNT,
        order_id(number),
        operation,
        "GBM",
        shares,
        Decimal(price),
        timestamp=SECOND.format(number),
        received_at=SECOND.format(number),
        status="rejected" if errors else "executed",
        decided_at=SECOND.format(number + 1),
        sequence=number,
        errors=errors,
        balance=balance,
    )


def opened(**changes: Any) -> Call:
    told = {"id": ACCOUNT, "cash": "1000", "issuers": [], **changes}
    return Call("open", "a", 0, 0.1, 201, json.dumps(told), key="ka", sent='{"cash": 1000}')


def holding(cash: str, shares: int, price: str) -> Balance:
    return Balance(Decimal(cash), {"GBM": (shares, Decimal(price))})


# Opened with 1000; bought 10 at 60; could not buy 20 at 60; sold 4 at 70.50; bought it back.
ROWS = [
    row(1, "BUY", 10, "60", holding("400", 10, "60")),
    row(2, "BUY", 20, "60", holding("400", 10, "60"), "INSUFFICIENT_BALANCE"),
    row(3, "SELL", 4, "70.50", holding("682", 6, "70.5")),
    row(4, "BUY", 4, "70.50", holding("400", 10, "70.5")),
]


def placed(number: int, start: float, **changes: Any) -> Call:
    told = ROWS[number - 1]
    call = Call(
        "place",
        request=f"r{number}",
        start=start,
        end=start + 0.1,
        status=202,
        body=json.dumps(shown(told, is_pending=True)),
        account=ACCOUNT,
        key=f"k{number}",
        sent=sent(number, told.operation, told.total_shares, str(told.share_price)),
    )
    return replace(call, **changes)


def polled(number: int, start: float, *, is_pending: bool = False) -> Call:
    body = json.dumps(shown(ROWS[number - 1], is_pending=is_pending))
    return Call("order", "", start, start + 0.1, 200, body, account=ACCOUNT, order=order_id(number))


def looked(balance: Balance, start: float) -> Call:
    body = json.dumps({"id": ACCOUNT, **shown_state(balance)})
    return Call("account", "", start, start + 0.1, 200, body, account=ACCOUNT)


def listed(numbers: list[int], start: float, cursor: str | None = None) -> Call:
    orders = [shown(ROWS[number - 1]) for number in numbers]
    body = json.dumps({"orders": orders, "next_cursor": cursor})
    return Call("list", "", start, start + 0.1, 200, body, account=ACCOUNT, limit=50)


def true_story() -> Story:
    """A history in which all is well: lost answers, repetitions, polls and looks included."""
    calls = [
        opened(),
        placed(1, 1, status=None, body=None, error="timeout"),
        placed(1, 2, replayed=True),
        polled(1, 2.5, is_pending=True),
        polled(1, 3),
        looked(holding("400", 10, "60"), 3.5),
        listed([1], 3.7),
        placed(2, 4),
        placed(2, 5, replayed=True, again=True),
        placed(3, 6, status=409, body=IN_FLIGHT),
        placed(3, 6),
        # At once with the one before.
        placed(3, 6.05),
        looked(holding("682", 6, "70.5"), 7),
        polled(3, 7.5),
        # Without a key, and the answer was lost: it may be there or not.
        placed(4, 8, key=None, status=None, body=None, error="reset"),
        looked(holding("400", 10, "70.5"), 9),
        polled(4, 9.5),
        listed([4, 3, 2, 1], 10),
    ]
    account = AccountRow(ACCOUNT, Decimal(400), {"GBM": (10, Decimal("70.5"))}, OPENED, decided=4)
    return calls, Table({ACCOUNT: account}, {ACCOUNT: 4}, list(ROWS))


def with_rows(table: Table, *rows: OrderRow) -> Table:
    return replace(table, orders=list(rows))


def without(table: Table, number: int) -> Table:
    return with_rows(table, *(one for one in table.orders if one.id != order_id(number)))


def with_changed(table: Table, number: int, **changes: Any) -> Table:
    rows = list(table.orders)
    rows[number - 1] = replace(rows[number - 1], **changes)
    return with_rows(table, *rows)


def lose_an_order(calls: list[Call], table: Table) -> Story:
    return calls, without(table, 2)


def change_an_order(calls: list[Call], table: Table) -> Story:
    return calls, with_changed(table, 2, total_shares=21)


def add_a_ghost(calls: list[Call], table: Table) -> Story:
    return calls, with_rows(table, *table.orders, replace(ROWS[0], id=order_id(9), total_shares=99))


def record_an_order_twice(calls: list[Call], table: Table) -> Story:
    return calls, with_rows(table, *table.orders, replace(ROWS[0], id=order_id(9), sequence=5))


def record_a_keyless_order_twice(calls: list[Call], table: Table) -> Story:
    return calls, with_rows(table, *table.orders, replace(ROWS[3], id=order_id(9), sequence=5))


def leave_one_undecided(calls: list[Call], table: Table) -> Story:
    return calls, with_changed(table, 2, status="pending", sequence=None, errors=())


def give_two_requests_one_order(calls: list[Call], table: Table) -> Story:
    lost = placed(2, 4.5, request="r9", key="k9", sent=sent(9, "BUY", 7, "60"))
    return [*calls, lost], table


def give_two_requests_one_account(calls: list[Call], table: Table) -> Story:
    return [*calls, replace(calls[0], request="b", key="kb", start=0.2, end=0.3)], table


def answer_with_another_content(calls: list[Call], table: Table) -> Story:
    told = json.dumps({**shown(ROWS[1], is_pending=True), "total_shares": 21})
    return [replace(c, body=told) if c.request == "r2" else c for c in calls], table


def park_without_trying(calls: list[Call], table: Table) -> Story:
    return calls, with_changed(table, 2, status="failed", errors=(), attempts=4)


def never_answer(calls: list[Call], table: Table) -> Story:
    lost = [call for call in calls if call.request != "r2" and call.op != "list"]
    return [*lost, placed(2, 4, status=503, body=UNKNOWN)], table


def answer_with_500(calls: list[Call], table: Table) -> Story:
    return [*calls, placed(1, 11, status=500, body="{}")], table


def answer_a_replay_with_another_order(calls: list[Call], table: Table) -> Story:
    other = json.dumps(shown(ROWS[2], is_pending=True))
    return [*calls, placed(2, 11, replayed=True, again=True, body=other)], table


def answer_a_replay_with_other_bytes(calls: list[Call], table: Table) -> Story:
    other = json.dumps({**shown(ROWS[1], is_pending=True), "failure": None})
    return [*calls, placed(2, 11, replayed=True, again=True, body=other)], table


def answer_a_replay_unmarked(calls: list[Call], table: Table) -> Story:
    return [*calls, placed(2, 11, again=True)], table


def spend_twice(calls: list[Call], table: Table) -> Story:
    """Both buys decided against the same 1000, though they cost 600 and 1200 together."""
    return calls, with_changed(table, 2, status="executed", errors=())


def reject_without_reason(calls: list[Call], table: Table) -> Story:
    return calls, with_changed(table, 3, status="rejected", errors=("INSUFFICIENT_STOCKS",))


def reject_for_nothing(calls: list[Call], table: Table) -> Story:
    return calls, with_changed(table, 3, status="rejected")


def sell_what_is_not_held(calls: list[Call], table: Table) -> Story:
    changed = with_changed(table, 3, total_shares=11)
    return calls, with_changed(changed, 3, balance=holding("1175.5", -1, "70.5"))


def execute_an_order_of_the_future(calls: list[Call], table: Table) -> Story:
    return calls, with_changed(table, 4, timestamp=SECOND.format(10))


def execute_an_order_of_before_the_opening(calls: list[Call], table: Table) -> Story:
    account = replace(table.accounts[ACCOUNT], opened_at=SECOND.format(7))
    return calls, replace(table, accounts={ACCOUNT: account})


def execute_an_order_of_before_the_last_one(calls: list[Call], table: Table) -> Story:
    late = with_changed(table, 3, timestamp=SECOND.format(20), received_at=SECOND.format(20))
    return calls, with_changed(late, 4, received_at=SECOND.format(21))


def execute_a_duplicate(calls: list[Call], table: Table) -> Story:
    again = row(5, "BUY", 4, "1", holding("396", 14, "1"))
    call = replace(placed(4, 11), request="r5", key="k5", sent=sent(5, "BUY", 4, "1"))
    call = replace(call, body=json.dumps(shown(again, is_pending=True)))
    return [*calls, call], with_rows(table, *table.orders, again)


def apply_an_order_twice(calls: list[Call], table: Table) -> Story:
    return calls, with_changed(table, 3, balance=holding("964", 2, "70.5"))


def misreckon_a_balance(calls: list[Call], table: Table) -> Story:
    return calls, with_changed(table, 3, balance=holding("683", 6, "70.5"))


def overdraw(calls: list[Call], table: Table) -> Story:
    account = replace(table.accounts[ACCOUNT], cash=Decimal(-1))
    return calls, replace(table, accounts={ACCOUNT: account})


def owe_shares(calls: list[Call], table: Table) -> Story:
    account = replace(table.accounts[ACCOUNT], positions={"GBM": (-10, Decimal("70.5"))})
    return calls, replace(table, accounts={ACCOUNT: account})


def forget_an_effect_on_the_account(calls: list[Call], table: Table) -> Story:
    account = replace(table.accounts[ACCOUNT], cash=Decimal(682))
    return calls, replace(table, accounts={ACCOUNT: account})


def miscount_the_accepted(calls: list[Call], table: Table) -> Story:
    return calls, replace(table, accepted={ACCOUNT: 5})


def leave_a_gap(calls: list[Call], table: Table) -> Story:
    return calls, with_changed(table, 4, sequence=5)


def swap_two_orders(calls: list[Call], table: Table) -> Story:
    """The second had its answer before the first was sent, but is decided after it."""
    others = [call for call in calls if call.op == "open" or call.start > 5.5]
    return [*others, placed(2, 2), placed(1, 4)], table


def swap_orders_with_another_between(calls: list[Call], table: Table) -> Story:
    """The third had its answer before the first was sent; the second came slowly."""
    others = [call for call in calls if call.op == "open"]
    return [*others, placed(3, 1), placed(1, 3), placed(2, 0.5, end=5)], table


def sort_ids_against_the_sequence(calls: list[Call], table: Table) -> Story:
    kept = [call for call in calls if call.op == "open"]
    rows = [replace(ROWS[0], id=order_id(2)), replace(ROWS[1], id=order_id(1)), *ROWS[2:]]
    return kept, with_rows(table, *rows)


def hide_an_accepted_order(calls: list[Call], table: Table) -> Story:
    missing = Call("order", "", 11, 11.1, 404, "{}", account=ACCOUNT, order=order_id(1))
    return [*calls, missing], table


def hide_an_account(calls: list[Call], table: Table) -> Story:
    return [*calls, replace(looked(holding("1", 1, "1"), 11), status=404, body="{}")], table


def show_a_stale_status(calls: list[Call], table: Table) -> Story:
    return [*calls, polled(1, 3.2, is_pending=True)], table


def show_an_order_pending_behind_a_later_one(calls: list[Call], table: Table) -> Story:
    """Another order of the account, decided after it, was seen decided before."""
    return [*calls, polled(2, 8, is_pending=True)], table


def show_another_final_status(calls: list[Call], table: Table) -> Story:
    told = json.dumps({**shown(ROWS[1]), "status": "executed", "business_errors": []})
    return [*calls, replace(polled(2, 11), body=told)], table


def show_another_final_balance(calls: list[Call], table: Table) -> Story:
    told = json.dumps({**shown(ROWS[1]), "current_balance": shown_state(holding("1", 1, "1"))})
    return [*calls, replace(polled(2, 11), body=told)], table


def show_an_impossible_account(calls: list[Call], table: Table) -> Story:
    return [*calls, looked(holding("682", 10, "60"), 7.2)], table


def show_an_older_account(calls: list[Call], table: Table) -> Story:
    return [*calls, looked(holding("400", 10, "60"), 8)], table


def show_an_account_older_than_an_order(calls: list[Call], table: Table) -> Story:
    return [*calls, looked(holding("682", 6, "70.5"), 9.7)], table


def list_without_an_order(calls: list[Call], table: Table) -> Story:
    return [*calls, listed([4, 3, 1], 11, cursor=order_id(1))], table


def list_in_disorder(calls: list[Call], table: Table) -> Story:
    return [*calls, listed([4, 2, 3, 1], 11)], table


def list_more_than_the_limit(calls: list[Call], table: Table) -> Story:
    return [*calls, replace(listed([4, 3, 2, 1], 11), limit=3)], table


def open_with_other_cash(calls: list[Call], table: Table) -> Story:
    return [opened(cash="1000.01"), *calls[1:]], table


def open_without_a_word_of_cash(calls: list[Call], table: Table) -> Story:
    return [opened(cash=None), *calls[1:]], table


def open_with_shares(calls: list[Call], table: Table) -> Story:
    return [opened(**shown_state(holding("1000", 1, "60"))), *calls[1:]], table


def lose_an_account(calls: list[Call], table: Table) -> Story:
    return [*calls, replace(opened(id=8), request="b", key="kb")], table


def add_a_ghost_of_an_account(calls: list[Call], table: Table) -> Story:
    ghost = replace(table.accounts[ACCOUNT], id=8)
    return calls, replace(table, accounts={**table.accounts, 8: ghost})


def miscount_the_decided(calls: list[Call], table: Table) -> Story:
    account = replace(table.accounts[ACCOUNT], decided=5)
    return calls, replace(table, accounts={ACCOUNT: account})


def answer_a_read_with_500(calls: list[Call], table: Table) -> Story:
    return [*calls, replace(polled(1, 11), status=500, body="{}")], table


def show_a_ghost(calls: list[Call], table: Table) -> Story:
    told = json.dumps({**shown(ROWS[0]), "id": order_id(9)})
    return [*calls, replace(polled(1, 11), body=told)], table


def show_only_a_wrong_final_status(calls: list[Call], table: Table) -> Story:
    """Nobody saw the true one, so only the table tells."""
    told, table = show_another_final_status(calls, table)
    return [call for call in told if call.op != "list"], table


def show_only_a_wrong_final_balance(calls: list[Call], table: Table) -> Story:
    told, table = show_another_final_balance(calls, table)
    return [call for call in told if call.op != "list"], table


def show_another_time_of_decision(calls: list[Call], table: Table) -> Story:
    """The table has the same status and balance: only two bodies, one after the other, tell."""
    told = json.dumps({**shown(ROWS[1]), "decided_at": "2026-03-02T15:00:59Z"})
    return [*calls, replace(polled(2, 11), body=told)], table


LIES: list[tuple[Callable[[list[Call], Table], Story], str]] = [
    (lose_an_order, checker.LOST),
    (change_an_order, checker.CHANGED),
    (add_a_ghost, checker.GHOST),
    (record_an_order_twice, checker.TWICE),
    (record_a_keyless_order_twice, checker.TWICE),
    (leave_one_undecided, checker.UNDECIDED),
    (park_without_trying, checker.UNDECIDED),
    (never_answer, checker.NEVER_ANSWERED),
    (answer_with_500, checker.WRONG_ANSWER),
    (give_two_requests_one_order, checker.SHARED_ANSWER),
    (give_two_requests_one_account, checker.SHARED_ANSWER),
    (answer_with_another_content, checker.WRONG_ANSWER),
    (answer_a_replay_with_another_order, checker.REPLAY_CHANGED),
    (answer_a_replay_with_other_bytes, checker.REPLAY_CHANGED),
    (answer_a_replay_unmarked, checker.REPLAY_CHANGED),
    (spend_twice, books.UNAFFORDABLE),
    (spend_twice, books.NEGATIVE),
    (reject_without_reason, books.WRONG_DECISION),
    (reject_for_nothing, books.WRONG_DECISION),
    (sell_what_is_not_held, books.UNAFFORDABLE),
    (sell_what_is_not_held, books.NEGATIVE),
    (execute_an_order_of_the_future, books.WRONG_DECISION),
    (execute_an_order_of_before_the_opening, books.WRONG_DECISION),
    (execute_an_order_of_before_the_last_one, books.WRONG_DECISION),
    (execute_a_duplicate, books.WRONG_DECISION),
    (apply_an_order_twice, books.APPLIED_TWICE),
    (misreckon_a_balance, books.WRONG_BALANCE),
    (owe_shares, books.NEGATIVE),
    (overdraw, books.NEGATIVE),
    (forget_an_effect_on_the_account, checker.WRONG_ACCOUNT),
    (miscount_the_accepted, checker.WRONG_ACCOUNT),
    (leave_a_gap, checker.SEQUENCE_GAP),
    (swap_two_orders, checker.OUT_OF_SEQUENCE),
    (swap_orders_with_another_between, checker.OUT_OF_SEQUENCE),
    (sort_ids_against_the_sequence, checker.OUT_OF_SEQUENCE),
    (hide_an_accepted_order, checker.NOT_FOUND),
    (hide_an_account, checker.NOT_FOUND),
    (show_a_stale_status, checker.STATUS_WENT_BACK),
    (show_an_order_pending_behind_a_later_one, checker.STATUS_WENT_BACK),
    (show_another_final_status, checker.WRONG_READ),
    (show_another_final_balance, checker.WRONG_READ),
    (show_an_impossible_account, checker.IMPOSSIBLE_ACCOUNT),
    (show_an_older_account, checker.ACCOUNT_WENT_BACK),
    (show_an_account_older_than_an_order, checker.ACCOUNT_WENT_BACK),
    (list_without_an_order, checker.WRONG_LIST),
    (list_in_disorder, checker.WRONG_LIST),
    (list_more_than_the_limit, checker.WRONG_LIST),
    (open_with_other_cash, checker.WRONG_ANSWER),
    (open_without_a_word_of_cash, checker.WRONG_ANSWER),
    (open_with_shares, checker.WRONG_ANSWER),
    (lose_an_account, checker.LOST),
    (add_a_ghost_of_an_account, checker.GHOST),
    (miscount_the_decided, checker.WRONG_ACCOUNT),
    (answer_a_read_with_500, checker.WRONG_ANSWER),
    (show_a_ghost, checker.GHOST),
    (show_only_a_wrong_final_status, checker.WRONG_READ),
    (show_only_a_wrong_final_balance, checker.WRONG_READ),
    (show_another_time_of_decision, checker.WRONG_READ),
]


def test_a_true_history_passes() -> None:
    assert check(*true_story()) == []


def test_a_keyless_order_that_was_not_recorded_passes() -> None:
    calls, table = true_story()
    told = [call for call in calls if call.start < 8.5]
    account = AccountRow(ACCOUNT, Decimal(682), {"GBM": (6, Decimal("70.5"))}, OPENED, decided=3)
    table = replace(without(table, 4), accounts={ACCOUNT: account}, accepted={ACCOUNT: 3})
    assert check(told, table) == []


def test_an_account_that_sold_all_passes() -> None:
    sold = replace(
        row(2, "SELL", 10, "70", Balance(Decimal(1100), {})), errors=(), status="executed"
    )
    account = AccountRow(ACCOUNT, Decimal(1100), {}, OPENED, decided=2)
    asked = placed(2, 4, body=json.dumps(shown(sold, is_pending=True)))
    asked = replace(asked, sent=sent(2, "SELL", 10, "70"))
    table = Table({ACCOUNT: account}, {ACCOUNT: 2}, [ROWS[0], sold])
    assert check([opened(), placed(1, 1), asked], table) == []


@pytest.mark.parametrize(
    ("cash", "seconds", "skew"), [("600", 300, 0), ("601", 301, 0), ("601", 299, 5)]
)
def test_the_edges_of_the_rules_are_kept(cash: str, seconds: int, skew: int) -> None:
    """All the cash may be spent; five minutes later, and five seconds ahead, all is allowed."""
    later = datetime.fromisoformat(OPENED) + timedelta(seconds=seconds)
    first = replace(row(0, "BUY", 1, "300", holding("0", 0, "0")), sequence=1)
    second = replace(
        first,
        id=order_id(2),
        timestamp=(later + timedelta(seconds=skew)).isoformat(),
        received_at=later.isoformat(),
        sequence=2,
    )
    if skew:
        second = replace(second, total_shares=2, share_price=Decimal(150))
    left = Decimal(cash) - 300
    rows = [
        replace(first, balance=holding(str(left), 1, "300")),
        replace(
            second,
            balance=holding(str(left - 300), 1 + second.total_shares, str(second.share_price)),
        ),
    ]
    _, findings = books.replay(Decimal(cash), OPENED, rows)
    assert findings == []


def test_an_order_that_may_have_been_recorded_passes() -> None:
    calls, table = true_story()
    maybe = placed(4, 8, key=None, status=503, body=UNKNOWN)
    assert check([maybe if call.request == "r4" else call for call in calls], table) == []


def test_a_parked_order_changes_nothing_and_is_no_violation() -> None:
    calls, table = true_story()
    parked = with_changed(table, 2, status="failed", errors=(), is_indexed=True, attempts=5)
    told = replace(polled(2, 11), body=json.dumps(shown(parked.orders[1])))
    assert check([*(call for call in calls if call.op != "list"), told], parked) == []


def test_a_page_may_be_full() -> None:
    calls, table = true_story()
    assert check([*calls, replace(listed([4, 3, 2, 1], 11), limit=4)], table) == []


@pytest.mark.parametrize(
    ("lie", "kind"), LIES, ids=[f"{lie.__name__}-{kind}" for lie, kind in LIES]
)
def test_a_lie_is_caught_under_its_own_name(
    lie: Callable[[list[Call], Table], Story], kind: str
) -> None:
    found = check(*lie(*true_story()))
    assert kind in {violation.kind for violation in found}, found


@pytest.mark.parametrize("module", ["checker", *JUDGE, "history", "table"])
def test_the_judge_stands_on_nothing_of_the_project(module: str) -> None:
    tree = ast.parse((HERE / f"{module}.py").read_text())
    imported = {name for node in ast.walk(tree) for name in _imported(node)}
    ours = {name for name in imported if name.startswith("tests.chaos")}
    assert {name.partition(".")[0] for name in imported - ours} <= sys.stdlib_module_names
    assert ours <= {f"tests.chaos.{name}" for name in (*JUDGE, "history", "table")} | {
        "tests.chaos"
    }


def test_importing_the_judge_brings_in_no_part_of_the_project() -> None:
    program = (
        "import sys, tests.chaos.checker;"
        "print([name for name in sys.modules if name.partition('.')[0] in"
        " ('api', 'worker', 'shared', 'local')])"
    )
    told = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        cwd=HERE.parents[1],
        timeout=30,
    )
    assert told.stdout.strip() == "[]"


def _imported(node: ast.AST) -> list[str]:
    match node:
        case ast.Import(names=names):
            return [name.name for name in names]
        case ast.ImportFrom(module=str(module)):
            return [module]
    return []
