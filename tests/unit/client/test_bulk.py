"""Many orders at once: a result for each, in sequence, none recorded twice."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest

import order_client
from order_client import BulkInterrupted, Client, NewOrder, Retry
from tests.unit.client.conftest import NOW, Pauses
from tests.unit.client.fake import (
    FakeService,
    Fault,
    answer,
    drop_after,
    drop_before,
    problem,
    raw,
    slow,
    spoil_line,
    torn,
)

PATIENCE = Retry(attempts_max=4, deadline_seconds=1000)


def some(count: int, **changes: Any) -> list[NewOrder]:
    return [NewOrder(1 + n % 3, "BUY", "GBM", n + 1, "50.5", **changes) for n in range(count)]


def send(client: Client, orders: list[NewOrder], chunk_lines: int = 10) -> list[Any]:
    return list(client.bulk(orders, chunk_lines=chunk_lines, retry=PATIENCE))


def test_each_order_has_its_result_in_sequence(client: Client, fake: FakeService) -> None:
    results = send(client, some(25))
    assert [result.number for result in results] == list(range(1, 26))
    assert [result.order.total_shares for result in results] == list(range(1, 26))
    assert len(fake.seen) == 3
    assert {result.sent.timestamp for result in results} == {NOW}
    assert len(fake.recorded) == 25


def test_a_bad_line_does_not_spoil_the_good_ones(client: Client, fake: FakeService) -> None:
    orders = some(3)
    orders[1] = NewOrder(1, "HOLD", "GBM", 1, 1)
    first, second, third = send(client, orders)
    assert second.order is None
    assert isinstance(second.problem, order_client.Invalid)
    assert second.problem.errors[0].pointer == "/operation"
    assert first.order
    assert third.order
    assert len(fake.seen) == 1


@pytest.mark.parametrize(
    "fault",
    [
        drop_before,
        drop_after,
        torn(0),
        torn(4),
        torn(9),
        answer(503, problem(503), Retry_After="1"),
        answer(429, problem(429)),
        spoil_line(3, b"garbage"),
        spoil_line(3, {"line": 99, "status": 202}),
        spoil_line(3, {"line": 3}),
        spoil_line(3, {"line": 3, "status": 202}),
        spoil_line(3, {"line": 3, "status": 503, "problem": {}}),
        spoil_line(3, b""),
        raw(b""),
        raw(b"<html>"),
    ],
)
def test_what_was_not_answered_is_sent_again_and_recorded_once(
    client: Client, fake: FakeService, fault: Fault
) -> None:
    fake.faults += [fault, fault]
    results = send(client, some(10))
    assert [result.number for result in results] == list(range(1, 11))
    assert all(result.order for result in results)
    assert sorted(fake.recorded.values()) == [1] * 10
    assert len(fake.orders) == 10


def test_only_open_lines_are_sent_again(client: Client, fake: FakeService) -> None:
    fake.faults.append(torn(4))
    results = send(client, some(10))
    assert [len(seen.body.splitlines()) for seen in fake.seen] == [10, 6]
    assert [result.replayed for result in results] == [False] * 4 + [True] * 6


def test_a_slow_answer_is_given_up_and_its_lines_replayed(
    fake: FakeService, pauses: Pauses, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("order_client.bulk._BULK_SECONDS", 0.1)
    given_up = threading.Event()
    fake.faults.append(slow(20, given_up))
    with Client(fake.url, timeout=0.1, time=pauses.time()) as client:
        results = send(client, some(3))
    given_up.set()
    assert [result.replayed for result in results] == [True] * 3


def test_progress_renews_patience(client: Client, fake: FakeService) -> None:
    fake.faults += [torn(1)] * 9
    assert len(send(client, some(11), chunk_lines=11)) == 11


def test_a_service_that_stays_away_interrupts_and_nothing_is_lost(
    client: Client, fake: FakeService
) -> None:
    fake.faults += [torn(4), *[drop_before] * 4]
    orders = some(12)
    results = client.bulk(orders, chunk_lines=10, retry=PATIENCE)
    assert [next(results).number for _ in range(4)] == [1, 2, 3, 4]
    with pytest.raises(BulkInterrupted) as caught:
        next(results)
    assert isinstance(caught.value.cause, order_client.Unreachable)
    assert [order.total_shares for order in caught.value.unanswered] == [5, 6, 7, 8, 9, 10]
    rest = send(client, [*caught.value.unanswered, *orders[10:]])
    assert len(rest) == 8
    assert sorted(fake.recorded.values()) == [1] * 12


def test_a_service_that_answers_nothing_is_given_up(
    client: Client, fake: FakeService, pauses: Pauses
) -> None:
    fake.faults += [raw(b"")] * 9
    with pytest.raises(BulkInterrupted, match="ended before its last line"):
        send(client, some(3))
    assert len(fake.seen) == PATIENCE.attempts_max
    assert len(pauses.slept) == PATIENCE.attempts_max - 1


@pytest.mark.parametrize("status", [400, 401, 404, 415])
def test_a_refusal_of_the_whole_is_not_tried_again(
    client: Client, fake: FakeService, status: int
) -> None:
    fake.faults.append(answer(status, problem(status)))
    with pytest.raises(BulkInterrupted) as caught:
        send(client, some(3))
    assert isinstance(caught.value.cause, order_client.Problem)
    assert caught.value.cause.status == status
    assert len(caught.value.unanswered) == 3
    assert len(fake.seen) == 1


def test_chunks_that_are_too_large_are_divided(client: Client, fake: FakeService) -> None:
    fake.bulk_bytes_max = 600
    orders = some(10)
    orders[3] = NewOrder(1, "BUY", "X" * 1000, 1, 1)
    results = send(client, orders)
    assert [result.number for result in results] == list(range(1, 11))
    assert [result.number for result in results if result.problem] == [4]
    assert results[3].problem.status == 413
    assert sorted(fake.recorded.values()) == [1] * 9


def test_keys_of_the_callers_survive_runs(client: Client, fake: FakeService) -> None:
    orders = [NewOrder(1, "BUY", "GBM", 1, 1, "5", idempotency_key=f"k{n}") for n in range(3)]
    first = send(client, orders)
    again = send(client, orders)
    assert [result.order for result in again] == [result.order for result in first]
    assert all(result.replayed for result in again)
    assert fake.recorded == {"k0": 1, "k1": 1, "k2": 1}


def test_orders_are_taken_chunk_by_chunk(client: Client) -> None:
    taken = 0

    def endless() -> Iterator[NewOrder]:
        nonlocal taken
        while True:
            taken += 1
            yield NewOrder(1, "BUY", "GBM", 1, 1)

    results = client.bulk(endless(), chunk_lines=10)
    for _ in range(15):
        next(results)
    assert taken == 20


@pytest.mark.parametrize("chunk_lines", [0, 1001])
def test_a_chunk_has_its_bounds(client: Client, chunk_lines: int) -> None:
    with pytest.raises(ValueError, match="1 to 1000 lines"):
        send(client, some(1), chunk_lines)
