"""The judge catches lies about cancelling, bulk requests, waits, events and parked orders, too."""

import json
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from tests.chaos import books, checker
from tests.chaos.checker import KINDS, check
from tests.chaos.history import Call
from tests.chaos.table import AccountRow, OrderRow, Table
from tests.chaos.test_checker import LIES as FIRST_LIES
from tests.chaos.test_checker import (
    NOTHING_DONE,
    OPENED,
    SECOND,
    UNKNOWN,
    Story,
    holding,
    order_id,
    sent,
    shown,
    shown_state,
    with_rows,
)

ACCOUNT = 9
PENDING = {"status": "pending", "decided_at": None, "current_balance": None}
MOMENT = "2026-03-02T15:00:{:02}.5Z"


def decided(number: int, sequence: int, operation: str, shares: int, *after: Any) -> OrderRow:
    """An executed order at 10 a share; ``after``: cash and shares that it left."""
    cash, held = after
    return OrderRow(
        ACCOUNT,
        order_id(number),
        operation,
        "GBM",
        shares,
        Decimal(10),
        timestamp=SECOND.format(number),
        received_at=SECOND.format(number),
        status="executed",
        decided_at=SECOND.format(number + 1),
        sequence=sequence,
        balance=holding(cash, held, "10"),
    )


# Two of a bulk request; one that its client cancelled before the second was decided; one that was
# waited for; one that was parked as the fifth decision, replayed, and decided after the next one.
ROWS = {
    1: decided(1, 1, "BUY", 10, "900", 10),
    2: decided(2, 3, "BUY", 20, "700", 30),
    3: replace(decided(3, 2, "BUY", 30, "900", 10), status="cancelled"),
    4: decided(4, 4, "SELL", 1, "710", 29),
    5: replace(decided(5, 7, "BUY", 2, "680", 32), parkings=(5,)),
    6: decided(6, 6, "BUY", 1, "700", 30),
}
PARKED = {
    "status": "failed",
    "decided_at": MOMENT.format(5),
    "current_balance": shown_state(holding("710", 29, "10")),
}
"""The fifth as it was shown before it was replayed."""


def asked(number: int) -> str:
    row = ROWS[number]
    return sent(number, row.operation, row.total_shares, "10")


def pledge(number: int) -> str:
    return json.dumps(shown(ROWS[number], is_pending=True))


def placed(number: int, start: float, **changes: Any) -> Call:
    call = Call(
        "place",
        request=f"r{number}",
        start=start,
        end=start + 0.1,
        status=202,
        body=pledge(number),
        account=ACCOUNT,
        key=f"k{number}",
        sent=asked(number),
    )
    return replace(call, **changes)


def line(number: int, order: int, **more: Any) -> str:
    head = json.dumps({"line": number, "status": 202, **more})[:-1]
    return f'{head},"order":{pledge(order)}}}\n'


def bulk(start: float, body: str, **changes: Any) -> Call:
    lines = [{"account_id": ACCOUNT, **json.loads(asked(number))} for number in (1, 2)]
    told = "\n".join(json.dumps(one) for one in lines)
    call = Call("bulk", "b", start, start + 0.1, 200, body, key="b", sent=told)
    return replace(call, **changes)


def cancelled(number: int, start: float, **changes: Any) -> Call:
    body = json.dumps(shown(ROWS[number]))
    call = Call("cancel", "", start, start + 0.1, 200, body, ACCOUNT, order_id(number))
    return replace(call, **changes)


def too_late(number: int, start: float) -> Call:
    return cancelled(number, start, status=409, body='{"code": "ORDER_DECIDED"}')


def polled(number: int, start: float, **changes: Any) -> Call:
    body = json.dumps({**shown(ROWS[number]), **changes})
    return Call("order", "", start, start + 0.1, 200, body, ACCOUNT, order_id(number))


def polled_damaged(number: int, start: float, status: str = "pending") -> Call:
    """Its item cannot be read."""
    told = {"id": order_id(number), "account_id": ACCOUNT, "status": status, "failure": "?"}
    return replace(polled(number, start), body=json.dumps(told))


def by_hand(op: str, number: int, start: float) -> Call:
    return Call(op, "operator", start, start, account=ACCOUNT, order=order_id(number))


def held(number: int, start: float, *, is_pending: bool = False) -> Call:
    """What the client had was said to be current still."""
    body = json.dumps(shown(ROWS[number], is_pending=is_pending))
    return Call("order", "", start, start + 0.1, 304, body, ACCOUNT, order_id(number))


def event(number: int, start: float, **changes: Any) -> Call:
    body = json.dumps({**shown(ROWS[number]), **changes})
    return Call("event", "s", start, start, 200, body, ACCOUNT, order_id(number))


def begun(start: float) -> Call:
    return Call("event", "s", start, start, account=ACCOUNT, place="0")


def no_more_events(start: float) -> Call:
    return Call("event", "s", start, start, 200, account=ACCOUNT)


def listed(numbers: list[int], start: float, statuses: str, cursor: str | None = None) -> Call:
    orders = [shown(ROWS[number]) for number in numbers]
    body = json.dumps({"orders": orders, "next_cursor": cursor})
    return Call("list", "", start, start + 0.1, 200, body, ACCOUNT, statuses=statuses)


def reused(
    start: float, status: int = 422, body: str = '{"code": "IDEMPOTENCY_KEY_REUSED"}'
) -> Call:
    return Call("reuse", "r4", start, start + 0.1, status, body, ACCOUNT, key="k4")


def strange(start: float, status: int = 404, body: str = '{"code": "ORDER_NOT_FOUND"}') -> Call:
    return Call("strange", "", start, start + 0.1, status, body, 10, order_id(4))


def true_story() -> Story:
    told = json.dumps({"id": ACCOUNT, "cash": "1000", "issuers": []})
    opened = Call("open", "a", 0, 0.1, 201, told, key="ka", sent='{"cash": 1000}')
    waited = json.dumps(shown(ROWS[4]))
    calls = [
        opened,
        # The answer broke off in its second line.
        bulk(1, line(1, 1) + line(2, 2)[:30], status=None, error="reset"),
        bulk(2, line(1, 1, replayed=True) + line(2, 2)),
        placed(3, 3),
        cancelled(3, 3.2, status=None, body=None, error="timeout"),
        cancelled(3, 3.4),
        cancelled(3, 3.6),
        polled(1, 3.7),
        polled(2, 3.7),
        listed([2], 3.95, "executed", cursor="on"),
        placed(4, 4, status=503, body=NOTHING_DONE, wait=2),
        placed(4, 4.2, status=200, body=waited, wait=2),
        too_late(4, 4.4),
        listed([4, 2, 1], 4.55, "executed"),
        placed(4, 4.6, replayed=True, again=True),
        placed(4, 4.65, status=200, body=waited, wait=2, replayed=True, again=True),
        reused(4.66, 503, UNKNOWN),
        reused(4.7),
        strange(4.8),
        placed(5, 5),
        by_hand("damage", 5, 5.2),
        polled_damaged(5, 5.4),
        placed(5, 5.45, status=500, body='{"code": "INTERNAL_ERROR"}'),
        polled(5, 5.5, **PARKED),
        by_hand("replay", 5, 5.6),
        replace(polled(6, 5.8), status=404, body="{}"),
        placed(6, 6),
        polled(5, 6.5, **PENDING),
        polled(6, 7),
        polled(5, 8),
        held(5, 8.5),
        listed([6, 5, 4, 2, 1], 9, "executed,rejected"),
        listed([3], 9.5, "cancelled"),
        listed([], 9.6, "cancelled", cursor="on"),
        begun(5.4),
        *(event(number, 9.6 + place / 100) for place, number in enumerate((1, 3, 2, 4), 1)),
        # It comes late, but the stream had asked before the order was replayed.
        replace(event(5, 9.65, **PARKED), start=5.4),
        event(6, 9.7),
        event(5, 9.8),
        no_more_events(12),
    ]
    account = AccountRow(ACCOUNT, Decimal(680), {"GBM": (32, Decimal(10))}, OPENED, decided=7)
    return calls, Table({ACCOUNT: account}, {ACCOUNT: 7}, list(ROWS.values()))


def without(calls: list[Call], *ops: str) -> list[Call]:
    return [call for call in calls if call.op not in ops]


def changed(table: Table, number: int, **changes: Any) -> Table:
    rows = list(table.orders)
    rows[number - 1] = replace(rows[number - 1], **changes)
    return with_rows(table, *rows)


def execute_what_was_cancelled(calls: list[Call], table: Table) -> Story:
    return without(calls, "list", "event"), changed(table, 3, status="executed")


def cancel_what_nobody_cancelled(calls: list[Call], table: Table) -> Story:
    return without(calls, "cancel"), table


def cancel_after_a_refusal(calls: list[Call], table: Table) -> Story:
    return [*calls, too_late(3, 3.5)], table


def answer_a_cancellation_with_pending(calls: list[Call], table: Table) -> Story:
    return [*calls, cancelled(3, 3.1, body=pledge(3))], table


def answer_a_cancellation_with_another_order(calls: list[Call], table: Table) -> Story:
    return [*calls, cancelled(3, 11, order=order_id(2))], table


def refuse_a_cancellation_for_another_reason(calls: list[Call], table: Table) -> Story:
    return [*calls, cancelled(3, 11, status=409, body='{"code": "WHATEVER"}')], table


def lose_an_order_that_is_to_be_cancelled(calls: list[Call], table: Table) -> Story:
    return [*calls, cancelled(4, 11, status=404, body='{"code": "ORDER_NOT_FOUND"}')], table


def give_a_cancelled_order_a_reason(calls: list[Call], table: Table) -> Story:
    return calls, changed(table, 3, errors=("INSUFFICIENT_BALANCE",))


def pay_for_a_cancelled_order(calls: list[Call], table: Table) -> Story:
    return without(calls, "list", "event"), changed(table, 3, balance=holding("400", 60, "10"))


def show_pending_after_a_refused_cancellation(calls: list[Call], table: Table) -> Story:
    """Nothing else told before that the order was decided."""
    first = [call for call in calls if call.op == "open"]
    pending = polled(4, 4.6, **PENDING)
    others = [*calls[1:7], by_hand("replay", 5, 5.6)]
    return [*first, placed(4, 4), too_late(4, 4.4), pending, *others], table


def lose_a_line(calls: list[Call], table: Table) -> Story:
    return [*calls, bulk(11, line(1, 1, replayed=True), again=True)], table


def mix_up_lines(calls: list[Call], table: Table) -> Story:
    mixed = line(2, 2, replayed=True) + line(1, 1, replayed=True)
    return [*calls, bulk(11, mixed, again=True)], table


def answer_a_line_with_the_order_of_another(calls: list[Call], table: Table) -> Story:
    mixed = line(1, 2, replayed=True) + line(2, 1, replayed=True)
    return [*calls, bulk(11, mixed, again=True)], table


def never_answer_a_line(calls: list[Call], table: Table) -> Story:
    problem = json.dumps({"line": 2, "status": 503, "problem": json.loads(UNKNOWN)}) + "\n"
    others = [call for call in calls if call.op not in ("bulk", "list", "event")]
    return [*others, bulk(2, line(1, 1) + problem)], table


def forget_a_line_that_was_promised(calls: list[Call], table: Table) -> Story:
    """It was answered before the connection broke; the whole request then made it anew."""
    rows = [replace(ROWS[1], id=order_id(1) + "x"), *table.orders[1:]]
    return calls, with_rows(table, *rows)


def refuse_a_bulk_request_without_reason(calls: list[Call], table: Table) -> Story:
    return [*calls, bulk(11, '{"code": "WHATEVER"}', status=400)], table


def record_lines_out_of_line(calls: list[Call], table: Table) -> Story:
    """The second line was made before the first, by one request."""
    others = [call for call in calls if call.op == "open"]
    lines = [{"account_id": ACCOUNT, **json.loads(asked(number))} for number in (2, 1)]
    told = "\n".join(json.dumps(one) for one in lines)
    return [*others, bulk(1, line(1, 2) + line(2, 1), sent=told)], table


def answer_200_though_nobody_waits(calls: list[Call], table: Table) -> Story:
    body = json.dumps(shown(ROWS[6]))
    return [*calls, placed(6, 11, status=200, body=body, replayed=True)], table


def end_a_wait_with_a_pending_order(calls: list[Call], table: Table) -> Story:
    return [*calls, placed(4, 3.9, status=200, body=pledge(4), wait=2)], table


def end_a_wait_with_another_order(calls: list[Call], table: Table) -> Story:
    body = json.dumps(shown(ROWS[6]))
    return [*calls, placed(4, 11, status=200, body=body, wait=2, replayed=True)], table


def end_a_wait_with_another_outcome(calls: list[Call], table: Table) -> Story:
    told = {**shown(ROWS[4]), "status": "rejected", "business_errors": ["CLOSED_MARKET"]}
    told_last = [*without(calls, "list", "event")]
    again = placed(4, 11, status=200, body=json.dumps(told), wait=2, replayed=True)
    return [*told_last, again], table


def end_a_wait_unmarked(calls: list[Call], table: Table) -> Story:
    body = json.dumps(shown(ROWS[4]))
    return [*calls, placed(4, 11, status=200, body=body, wait=2)], table


def accept_as_decided(calls: list[Call], table: Table) -> Story:
    told = json.dumps({**shown(ROWS[6]), "status": "pending"})
    return [placed(6, 6, body=told) if call.request == "r6" else call for call in calls], table


def record_another_time_of_arrival(calls: list[Call], table: Table) -> Story:
    return calls, changed(table, 6, received_at=SECOND.format(7))


def record_what_was_said_not_to_be(calls: list[Call], table: Table) -> Story:
    """No key, and the only answer was that nothing was recorded."""
    refused = placed(6, 6, key=None, status=503, body=NOTHING_DONE)
    return [refused if call.request == "r6" else call for call in calls], table


def ask_to_try_again_for_no_known_reason(calls: list[Call], table: Table) -> Story:
    return [*calls, placed(6, 11, status=503, body='{"code": "WHATEVER"}')], table


def tell_of_a_key_in_flight_though_there_is_none(calls: list[Call], table: Table) -> Story:
    body = '{"code": "IDEMPOTENCY_KEY_IN_FLIGHT"}'
    return [*calls, placed(6, 11, key=None, request="r6b", status=409, body=body)], table


def leave_out_an_event(calls: list[Call], table: Table) -> Story:
    return [call for call in calls if (call.op, call.order) != ("event", order_id(2))], table


def leave_out_the_last_event(calls: list[Call], table: Table) -> Story:
    return [call for call in calls if (call.op, call.end) != ("event", 9.8)], table


def say_nothing_in_a_stream(calls: list[Call], table: Table) -> Story:
    return [*without(calls, "event"), begun(5.4), no_more_events(12)], table


def repeat_an_event(calls: list[Call], table: Table) -> Story:
    return [*calls, event(4, 9.645)], table


def mix_up_events(calls: list[Call], table: Table) -> Story:
    others = [call for call in calls if (call.op, call.order) != ("event", order_id(3))]
    return [*others, event(3, 9.645)], table


def tell_an_event_of_a_pending_order(calls: list[Call], table: Table) -> Story:
    told = event(5, 9.65, **PENDING)
    others = [call for call in calls if (call.op, call.end) != ("event", 9.65)]
    return [*others, told], table


def tell_an_event_with_another_balance(calls: list[Call], table: Table) -> Story:
    changed_call = [
        event(2, call.end, current_balance=shown(ROWS[1])["current_balance"])
        if (call.op, call.order) == ("event", order_id(2))
        else call
        for call in calls
    ]
    return without(changed_call, "list"), table


def show_pending_after_its_event(calls: list[Call], table: Table) -> Story:
    others = without(calls, "list", "order")
    return [
        *others,
        polled(6, 9.75, **PENDING),
    ], table


def list_another_status(calls: list[Call], table: Table) -> Story:
    return [*calls, listed([6, 5, 4, 3, 2, 1], 11, "executed,rejected")], table


def list_without_one_of_the_status(calls: list[Call], table: Table) -> Story:
    return [*calls, listed([6, 5, 2, 1], 11, "executed,rejected")], table


def list_a_page_without_one_of_the_status(calls: list[Call], table: Table) -> Story:
    return [*calls, listed([6, 4], 11, "executed", cursor="on")], table


def list_none_of_the_status(calls: list[Call], table: Table) -> Story:
    return [*calls, listed([], 11, "cancelled")], table


def say_that_a_stale_answer_is_current(calls: list[Call], table: Table) -> Story:
    return [*calls, held(6, 7.5, is_pending=True)], table


def say_that_an_answer_nobody_has_is_current(calls: list[Call], table: Table) -> Story:
    return [*calls, replace(held(6, 11), body=None)], table


def accept_a_key_with_another_body(calls: list[Call], table: Table) -> Story:
    return [*calls, reused(11, 202, pledge(4))], table


def show_an_order_under_another_account(calls: list[Call], table: Table) -> Story:
    return [*calls, strange(11, 200, json.dumps(shown(ROWS[4])))], table


def list_an_order_of_another_account(calls: list[Call], table: Table) -> Story:
    others = [replace(call, account=10) if call.op == "list" else call for call in calls]
    return others, table


def tell_an_event_of_another_account(calls: list[Call], table: Table) -> Story:
    others = [replace(call, account=10) if call.op == "event" else call for call in calls]
    return others, table


def answer_a_read_with_another_order(calls: list[Call], table: Table) -> Story:
    return [*calls, replace(polled(6, 11), order=order_id(4))], table


def answer_a_read_with_another_account(calls: list[Call], table: Table) -> Story:
    assert ROWS[5].balance is not None
    body = json.dumps({"id": 10, **shown_state(ROWS[5].balance)})
    return [*calls, Call("account", "", 11, 11.1, 200, body, ACCOUNT)], table


def answer_a_stranger_with_500(calls: list[Call], table: Table) -> Story:
    return [*calls, strange(11, 500, "no JSON")], table


def leave_a_decided_order_in_the_index(calls: list[Call], table: Table) -> Story:
    return calls, changed(table, 2, is_indexed=True)


def lose_a_balance(calls: list[Call], table: Table) -> Story:
    """Neither the table nor anybody else tells it, so all agree."""
    return [calls[0]], changed(table, 2, balance=None)


def show_no_balance(calls: list[Call], table: Table) -> Story:
    return [*without(calls, "list", "event"), polled(2, 11, current_balance=None)], table


def tell_a_part_of_the_balance(calls: list[Call], table: Table) -> Story:
    row = ROWS[2]
    assert row.balance is not None
    return calls, changed(table, 2, balance=replace(row.balance, partial=True))


def show_failed_what_never_was(calls: list[Call], table: Table) -> Story:
    return [*calls, polled(6, 6.2, status="failed")], table


def show_only_another_time_of_decision(calls: list[Call], table: Table) -> Story:
    told = without(calls, "list", "event", "order")
    return [*told, polled(6, 11, decided_at=MOMENT.format(59))], table


def show_a_pending_order_with_another_price(calls: list[Call], table: Table) -> Story:
    return [*calls, polled(6, 6.2, **PENDING, share_price="11")], table


def show_another_time_of_arrival(calls: list[Call], table: Table) -> Story:
    return [*calls, polled(6, 6.2, **PENDING, received_at=MOMENT.format(1))], table


def show_another_final_answer(calls: list[Call], table: Table) -> Story:
    """All that the table tells is the same."""
    return [*calls, polled(6, 11, failure="none")], table


def show_a_pending_order_with_a_balance(calls: list[Call], table: Table) -> Story:
    told = {**PENDING, "current_balance": shown_state(holding("1", 1, "10"))}
    return [*calls, polled(6, 6.2, **told)], table


def show_a_pending_order_with_a_reason(calls: list[Call], table: Table) -> Story:
    told = {**PENDING, "business_errors": ["INSUFFICIENT_BALANCE"]}
    return [*calls, polled(6, 6.2, **told)], table


def show_a_pending_order_with_a_time_of_decision(calls: list[Call], table: Table) -> Story:
    return [*calls, polled(6, 6.2, **{**PENDING, "decided_at": MOMENT.format(6)})], table


def show_a_pending_order_with_why_it_was_parked(calls: list[Call], table: Table) -> Story:
    return [*calls, polled(5, 6.2, **PENDING, failure="damaged")], table


def show_a_status_that_there_is_not(calls: list[Call], table: Table) -> Story:
    return [*calls, polled(6, 6.2, **{**PENDING, "status": "queued"})], table


def show_a_parked_order_with_a_reason(calls: list[Call], table: Table) -> Story:
    return [*calls, polled(5, 5.5, **PARKED, business_errors=["CLOSED_MARKET"])], table


def show_a_parked_order_with_another_balance(calls: list[Call], table: Table) -> Story:
    """It is the one that the order left when it was executed later."""
    told = {**PARKED, "current_balance": shown(ROWS[5])["current_balance"]}
    return [*calls, polled(5, 5.5, **told)], table


def show_a_last_parking_with_another_balance(calls: list[Call], table: Table) -> Story:
    told = polled(4, 4.1, status="failed", current_balance=shown_state(holding("1", 1, "10")))
    return [*calls, told], changed(table, 4, status="failed", attempts=5)


def show_failed_after_executed(calls: list[Call], table: Table) -> Story:
    return [*calls, polled(5, 20), polled(5, 21, **PARKED)], table


def show_failed_after_cancelled(calls: list[Call], table: Table) -> Story:
    """It was parked and then cancelled, and keeps the place of its parking."""
    told = polled(3, 11, status="failed")
    return [*without(calls, "list", "event"), told], changed(table, 3, failure="parked")


def show_failed_after_a_later_state(calls: list[Call], table: Table) -> Story:
    """The account was shown with the order executed before anybody saw the order so."""
    assert ROWS[5].balance is not None
    body = json.dumps({"id": ACCOUNT, **shown_state(ROWS[5].balance)})
    look = Call("account", "", 7.2, 7.3, 200, body, ACCOUNT)
    return [*calls, look, polled(5, 7.5, **PARKED)], table


def show_a_damaged_order_that_never_was(calls: list[Call], table: Table) -> Story:
    return [*calls, polled_damaged(6, 6.2)], table


def show_a_repaired_order_with_another_price(calls: list[Call], table: Table) -> Story:
    return [*calls, polled(5, 5.7, **PENDING, share_price="11")], table


def answer_500_for_an_order_that_nobody_damaged(calls: list[Call], table: Table) -> Story:
    return [*calls, placed(6, 11, status=500, body='{"code": "INTERNAL_ERROR"}')], table


def answer_400_for_a_damaged_order(calls: list[Call], table: Table) -> Story:
    return [*calls, placed(5, 11, status=400, body='{"code": "MALFORMED_BODY"}')], table


def replay_what_nobody_replayed(calls: list[Call], table: Table) -> Story:
    return without(calls, "replay"), table


def decide_a_replayed_order_twice(calls: list[Call], table: Table) -> Story:
    """Its parking counts as a place in the sequence, and so does another order."""
    return calls, changed(table, 5, parkings=(4,))


def decide_without_a_place(calls: list[Call], table: Table) -> Story:
    account = replace(table.accounts[ACCOUNT], decided=6)
    rows = changed(table, 5, sequence=None)
    return calls, replace(rows, accounts={ACCOUNT: account}, accepted={ACCOUNT: 6})


LIES: list[tuple[Callable[[list[Call], Table], Story], str]] = [
    (execute_what_was_cancelled, checker.WRONG_CANCEL),
    (cancel_what_nobody_cancelled, checker.WRONG_CANCEL),
    (cancel_after_a_refusal, checker.WRONG_CANCEL),
    (answer_a_cancellation_with_pending, checker.WRONG_CANCEL),
    (answer_a_cancellation_with_another_order, checker.WRONG_CANCEL),
    (refuse_a_cancellation_for_another_reason, checker.WRONG_ANSWER),
    (lose_an_order_that_is_to_be_cancelled, checker.NOT_FOUND),
    (give_a_cancelled_order_a_reason, books.WRONG_DECISION),
    (pay_for_a_cancelled_order, books.WRONG_BALANCE),
    (show_pending_after_a_refused_cancellation, checker.STATUS_WENT_BACK),
    (lose_a_line, checker.WRONG_ANSWER),
    (mix_up_lines, checker.WRONG_ANSWER),
    (answer_a_line_with_the_order_of_another, checker.REPLAY_CHANGED),
    (answer_a_line_with_the_order_of_another, checker.SHARED_ANSWER),
    (never_answer_a_line, checker.NEVER_ANSWERED),
    (forget_a_line_that_was_promised, checker.LOST),
    (refuse_a_bulk_request_without_reason, checker.WRONG_ANSWER),
    (record_lines_out_of_line, checker.OUT_OF_SEQUENCE),
    (answer_200_though_nobody_waits, checker.WRONG_ANSWER),
    (end_a_wait_with_a_pending_order, checker.WRONG_ANSWER),
    (end_a_wait_with_another_order, checker.REPLAY_CHANGED),
    (end_a_wait_with_another_outcome, checker.WRONG_READ),
    (end_a_wait_unmarked, checker.REPLAY_CHANGED),
    (accept_as_decided, checker.WRONG_ANSWER),
    (record_another_time_of_arrival, checker.CHANGED),
    (record_what_was_said_not_to_be, checker.TWICE),
    (ask_to_try_again_for_no_known_reason, checker.WRONG_ANSWER),
    (tell_of_a_key_in_flight_though_there_is_none, checker.WRONG_ANSWER),
    (leave_out_an_event, checker.WRONG_EVENT),
    (leave_out_the_last_event, checker.WRONG_EVENT),
    (say_nothing_in_a_stream, checker.WRONG_EVENT),
    (repeat_an_event, checker.WRONG_EVENT),
    (mix_up_events, checker.WRONG_EVENT),
    (tell_an_event_of_a_pending_order, checker.WRONG_EVENT),
    (tell_an_event_with_another_balance, checker.WRONG_READ),
    (show_pending_after_its_event, checker.STATUS_WENT_BACK),
    (list_another_status, checker.WRONG_LIST),
    (list_without_one_of_the_status, checker.WRONG_LIST),
    (list_a_page_without_one_of_the_status, checker.WRONG_LIST),
    (list_none_of_the_status, checker.WRONG_LIST),
    (say_that_a_stale_answer_is_current, checker.STATUS_WENT_BACK),
    (say_that_an_answer_nobody_has_is_current, checker.WRONG_ANSWER),
    (accept_a_key_with_another_body, checker.WRONG_ANSWER),
    (show_an_order_under_another_account, checker.LEAKED),
    (list_an_order_of_another_account, checker.LEAKED),
    (tell_an_event_of_another_account, checker.LEAKED),
    (answer_a_read_with_another_order, checker.WRONG_READ),
    (answer_a_read_with_another_account, checker.WRONG_READ),
    (answer_a_stranger_with_500, checker.WRONG_ANSWER),
    (leave_a_decided_order_in_the_index, checker.STILL_INDEXED),
    (lose_a_balance, books.WRONG_BALANCE),
    (show_no_balance, checker.WRONG_READ),
    (tell_a_part_of_the_balance, books.WRONG_BALANCE),
    (show_failed_what_never_was, checker.WRONG_READ),
    (show_only_another_time_of_decision, checker.WRONG_READ),
    (show_a_pending_order_with_another_price, checker.WRONG_READ),
    (show_another_time_of_arrival, checker.WRONG_READ),
    (show_another_final_answer, checker.WRONG_READ),
    (show_a_pending_order_with_a_balance, checker.WRONG_READ),
    (show_a_pending_order_with_a_reason, checker.WRONG_READ),
    (show_a_pending_order_with_a_time_of_decision, checker.WRONG_READ),
    (show_a_pending_order_with_why_it_was_parked, checker.WRONG_READ),
    (show_a_status_that_there_is_not, checker.WRONG_READ),
    (show_a_parked_order_with_a_reason, checker.WRONG_READ),
    (show_a_parked_order_with_another_balance, checker.WRONG_READ),
    (show_a_last_parking_with_another_balance, checker.WRONG_READ),
    (show_failed_after_executed, checker.STATUS_WENT_BACK),
    (show_failed_after_cancelled, checker.STATUS_WENT_BACK),
    (show_failed_after_a_later_state, checker.STATUS_WENT_BACK),
    (show_a_damaged_order_that_never_was, checker.WRONG_READ),
    (show_a_repaired_order_with_another_price, checker.WRONG_READ),
    (answer_500_for_an_order_that_nobody_damaged, checker.WRONG_ANSWER),
    (answer_400_for_a_damaged_order, checker.WRONG_ANSWER),
    (replay_what_nobody_replayed, checker.STATUS_WENT_BACK),
    (decide_a_replayed_order_twice, checker.SEQUENCE_GAP),
    (decide_without_a_place, checker.SEQUENCE_GAP),
]


def test_a_true_history_passes() -> None:
    assert check(*true_story()) == []


@pytest.mark.parametrize(
    ("lie", "kind"), LIES, ids=[f"{lie.__name__}-{kind}" for lie, kind in LIES]
)
def test_a_lie_is_caught_under_its_own_name(
    lie: Callable[[list[Call], Table], Story], kind: str
) -> None:
    found = check(*lie(*true_story()))
    assert kind in {violation.kind for violation in found}, found


def test_every_kind_of_violation_has_a_lie_that_shows_it() -> None:
    assert {kind for _, kind in (*LIES, *FIRST_LIES)} == set(KINDS)


def test_a_stream_may_have_missed_a_parking_that_was_taken_back() -> None:
    calls, table = true_story()
    assert check([call for call in calls if (call.op, call.end) != ("event", 9.65)], table) == []


def test_a_parking_without_a_place_shows_no_balance() -> None:
    calls, table = true_story()
    told = polled(5, 5.5, **{**PARKED, "current_balance": None})
    assert check([*calls, told], table) == []


def test_failed_may_be_shown_by_a_read_that_began_before_the_order_was_seen_decided() -> None:
    calls, table = true_story()
    assert check([*calls, replace(polled(5, 5.6, **PARKED), end=8.2)], table) == []


def test_what_little_is_shown_of_a_damaged_order_spoils_nothing() -> None:
    """It was damaged, parked and cancelled, and repaired after that; and its client waited."""
    calls, table = true_story()
    told = [call for call in calls if call.op not in ("list", "event")]
    damaged = [by_hand("damage", 3, 3.15), polled_damaged(3, 3.5, "cancelled")]
    waited = replace(placed(3, 3, wait=2), status=200, body=damaged[1].body)
    others = [call for call in told if call.request != "r3"]
    assert check([*others, *damaged, waited], table) == []


def test_a_parked_order_that_is_cancelled_keeps_its_place() -> None:
    calls, table = true_story()
    told = [call for call in calls if call.op not in ("list", "event", "order", "cancel")]
    kept = replace(ROWS[3], status="cancelled", failure="parked")
    assert (
        check(
            [*told, too_late(3, 3.1), polled(3, 4, status="failed"), cancelled(3, 11)],
            with_rows(table, *(kept if row.id == kept.id else row for row in table.orders)),
        )
        == []
    )
