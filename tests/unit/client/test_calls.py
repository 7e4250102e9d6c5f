"""The client's calls: exact both ways, repeated where that helps, bounded in time."""

import json
import threading
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

import order_client
from order_client import Client, NewOrder, Order, Retry, Status
from order_client.client import _POLL_SECONDS_MAX, KEY_LENGTH_MAX, PAGE_ORDERS_MAX
from order_client.models import read_order, show_order
from order_client.retry import _EXPONENT_MAX, retry_after
from tests.unit.client.conftest import NOW, Pauses
from tests.unit.client.fake import (
    RECEIVED_AT,
    FakeService,
    Fault,
    answer,
    drop_after,
    drop_before,
    order_json,
    problem,
    raw,
    slow,
)


def place(client: Client, **changes: Any) -> Order:
    return client.place(1, "BUY", "GBM", 10, Decimal("50.50"), **changes)


def test_an_account_is_opened_and_shown_to_the_last_digit(
    client: Client, fake: FakeService
) -> None:
    cash = Decimal("999999999999999999999999.12345678")
    opened = client.open_account(cash)
    assert opened.cash == cash
    assert client.account(opened.id) == opened
    assert json.loads(fake.seen[0].body) == {"cash": "999999999999999999999999.12345678"}


def test_json_numbers_are_read_exactly(client: Client, fake: FakeService) -> None:
    fake.faults.append(raw(b'{"id":1,"cash":0.10000000000000000001,"issuers":[]}'))
    assert client.account(1).cash == Decimal("0.10000000000000000001")


@pytest.mark.parametrize("amount", [0.1, True, float("nan")])
def test_floats_are_never_sent(client: Client, fake: FakeService, amount: Any) -> None:
    with pytest.raises(TypeError):
        client.open_account(amount)
    with pytest.raises(TypeError):
        client.place(1, "BUY", "GBM", 1, amount)
    assert fake.seen == []


def test_amounts_are_sent_without_an_exponent(client: Client, fake: FakeService) -> None:
    client.place(1, "BUY", "GBM", 10, Decimal("1E+3"))
    assert json.loads(fake.seen[0].body)["share_price"] == "1000"


def test_an_order_is_dated_and_keyed_by_the_client(client: Client, fake: FakeService) -> None:
    placed = place(client)
    assert placed.status is Status.PENDING
    assert placed.share_price == Decimal("50.5")
    assert placed.received_at == datetime.fromisoformat(RECEIVED_AT)
    assert json.loads(fake.seen[0].body)["timestamp"] == NOW.isoformat()
    assert len(fake.keys()[0]) == 32
    assert fake.seen[0].headers["Authorization"] == "Bearer secret"


def test_two_orders_have_two_keys(client: Client, fake: FakeService) -> None:
    place(client)
    place(client)
    first, second = fake.keys()
    assert first != second


@pytest.mark.parametrize(
    "fault",
    [
        drop_before,
        drop_after,
        *(answer(status, problem(status)) for status in (408, 409, 429, 502, 503, 504)),
        answer(503, None),
    ],
)
def test_an_order_is_tried_again_with_the_same_key_and_recorded_once(
    client: Client, fake: FakeService, fault: Fault
) -> None:
    fake.faults += [fault, fault]
    placed = place(client)
    assert len(fake.seen) == 3
    assert set(fake.keys()) == {fake.keys()[0]}
    assert {seen.body for seen in fake.seen} == {fake.seen[0].body}
    assert list(fake.recorded.values()) == [1]
    assert list(fake.orders) == [placed.id]


def test_a_key_of_the_callers_is_used_as_it_is(client: Client, fake: FakeService) -> None:
    first = place(client, idempotency_key="mine")
    again = place(client, idempotency_key="mine")
    assert fake.keys() == ["mine", "mine"]
    assert again == first


@pytest.mark.parametrize("key", ["", "x" * 256, "ñ", "a\nb"])
def test_a_key_that_is_no_header_is_refused_here(
    client: Client, fake: FakeService, key: str
) -> None:
    with pytest.raises(ValueError, match="printable"):
        place(client, idempotency_key=key)
    assert fake.seen == []


@pytest.mark.parametrize(
    ("status", "kind", "tries"),
    [
        (400, order_client.Invalid, 1),
        (401, order_client.Unauthorized, 1),
        (403, order_client.Forbidden, 1),
        (404, order_client.NotFound, 1),
        (409, order_client.Conflict, 1),
        (413, order_client.Invalid, 1),
        (422, order_client.Invalid, 1),
        (500, order_client.ServerFault, 1),
        (429, order_client.RateLimited, 4),
        (408, order_client.Unavailable, 4),
        (502, order_client.Unavailable, 4),
        (503, order_client.Unavailable, 4),
        (504, order_client.Unavailable, 4),
    ],
)
def test_each_status_is_an_error_of_its_own_and_only_some_are_tried_again(
    client: Client, fake: FakeService, status: int, kind: type[Exception], tries: int
) -> None:
    fake.faults += [answer(status, problem(status, "WHY"))] * tries
    with pytest.raises(kind) as caught:
        client.account(1)
    assert type(caught.value) is kind
    assert isinstance(caught.value, order_client.Problem)
    assert (caught.value.status, caught.value.code) == (status, "WHY")
    assert len(fake.seen) == tries


def test_invalid_fields_come_with_their_pointers(client: Client, fake: FakeService) -> None:
    errors = [{"pointer": "/total_shares", "detail": "must be whole"}]
    fake.faults.append(answer(422, problem(422, "INVALID_OPERATION", errors=errors)))
    with pytest.raises(order_client.Invalid, match="/total_shares must be whole") as caught:
        place(client)
    assert caught.value.errors == (order_client.FieldError("/total_shares", "must be whole"),)


def test_pauses_grow_to_their_limit_and_retry_after_comes_on_top(
    fake: FakeService, pauses: Pauses
) -> None:
    fake.faults += [drop_before, drop_before, answer(503, None, Retry_After="7"), drop_before]
    retry = Retry(attempts_max=6, base_seconds=1, pause_seconds_max=3)
    with Client(fake.url, retry=retry, time=pauses.time()) as client:
        client.open_account(1)
    assert pauses.slept == [1, 2, 3 + 7, 3]


def test_a_pause_beyond_the_deadline_is_not_begun(fake: FakeService, pauses: Pauses) -> None:
    fake.faults += [answer(429, None, Retry_After="31")]
    with (
        Client(fake.url, retry=Retry(deadline_seconds=30), time=pauses.time()) as client,
        pytest.raises(order_client.RateLimited) as caught,
    ):
        client.account(1)
    assert caught.value.retry_after_seconds == 31
    assert pauses.slept == []


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("3", 3.0),
        ("Mon, 02 Mar 2026 15:04:15 GMT", 10.0),
        ("Mon, 02 Mar 2026 15:03:00 GMT", 0.0),
        ("soon", None),
        ("-1", None),
        ("", None),
        ("9" * 30, None),
    ],
)
def test_retry_after_is_read_in_seconds_and_as_a_date(text: str, seconds: float | None) -> None:
    assert retry_after({"Retry-After": text}, NOW) == seconds


def test_a_slow_answer_is_given_up_and_asked_for_again(fake: FakeService, pauses: Pauses) -> None:
    given_up = threading.Event()
    fake.faults.append(slow(20, given_up))
    with Client(fake.url, timeout=0.2, time=pauses.time()) as client:
        place(client)
    given_up.set()
    assert len(fake.seen) == 2
    assert list(fake.recorded.values()) == [1]


def test_nobody_there_is_unavailable_without_a_status(pauses: Pauses) -> None:
    with FakeService() as fake:
        url = fake.url
    with (
        Client(url, retry=Retry(attempts_max=3), time=pauses.time()) as client,
        pytest.raises(order_client.Unavailable) as caught,
    ):
        client.account(1)
    assert (caught.value.status, caught.value.code) == (0, "UNREACHABLE")
    assert len(pauses.slept) == 2


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b'{"id": 1}',
        b'{"id": "1", "cash": "1", "issuers": []}',
        b'{"id": 1, "cash": "NaN", "issuers": []}',
        b'{"id": 1, "cash": NaN, "issuers": []}',
        b'{"id": 1, "cash": "1", "issuers": 5}',
        b"\xff",
        b"[" * 100_000,
    ],
)
def test_garbage_is_said_to_be_garbage(client: Client, fake: FakeService, body: bytes) -> None:
    fake.faults.append(raw(body))
    with pytest.raises(order_client.ProtocolError):
        client.account(1)


def test_an_endless_answer_is_cut_off(
    client: Client, fake: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("order_client.transport.BODY_BYTES_MAX", 100)
    fits = b'{"id": 1, "cash": "1", "issuers": []}'.ljust(100)
    fake.faults += [raw(fits), raw(fits + b" ")]
    assert client.account(1).id == 1
    with pytest.raises(order_client.ProtocolError, match="more than 100 bytes"):
        client.account(1)


def test_the_key_follows_no_redirect(client: Client, fake: FakeService) -> None:
    fake.faults.append(answer(302, None, Location="http://127.0.0.1:9/"))
    with pytest.raises(order_client.ProtocolError, match="right address"):
        client.account(1)
    assert len(fake.seen) == 1


@pytest.mark.parametrize("url", ["", "localhost:8000", "ftp://x", "http://", "http://a/?b", "/v1"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="is no http or https address"):
        Client(url)


def test_orders_are_listed_over_pages(client: Client, fake: FakeService) -> None:
    placed = [place(client).id for _ in range(5)]
    listed = [order.id for order in client.orders(1, page_orders=2)]
    assert listed == placed[::-1]
    assert sum(seen.method == "GET" for seen in fake.seen) == 3


def test_orders_are_listed_by_status(client: Client, fake: FakeService) -> None:
    first, second = place(client), place(client)
    client.cancel(1, first.id)
    assert [order.id for order in client.orders(1, status="pending")] == [second.id]
    assert [order.id for order in client.orders(1, status=Status.CANCELLED)] == [first.id]


def test_a_page_that_names_itself_does_not_go_round_for_ever(
    client: Client, fake: FakeService
) -> None:
    fake.faults += [answer(200, {"orders": [], "next_cursor": "here"})] * 2
    with pytest.raises(order_client.ProtocolError, match="again and again"):
        list(client.orders(1))


def test_a_cancelled_order_whose_answer_was_lost_counts_as_cancelled(
    client: Client, fake: FakeService
) -> None:
    placed = place(client)
    fake.faults.append(drop_after)
    assert client.cancel(1, placed.id).status is Status.CANCELLED


def test_a_decided_order_is_not_cancelled(client: Client) -> None:
    placed = client.place_and_wait(1, "BUY", "GBM", 1, 1)
    assert placed.status is Status.EXECUTED
    with pytest.raises(order_client.Conflict):
        client.cancel(1, placed.id)


def test_place_and_wait_asks_the_service_to_wait(client: Client, fake: FakeService) -> None:
    placed = client.place_and_wait(1, "BUY", "GBM", 1, 1, seconds=7)
    assert placed.status is Status.EXECUTED
    assert [seen.headers.get("Prefer") for seen in fake.seen] == ["wait=7"]


def test_place_and_wait_goes_on_waiting_for_an_order_whose_answer_was_lost(
    client: Client, fake: FakeService
) -> None:
    fake.faults.append(drop_after)
    placed = client.place_and_wait(1, "SELL", "GBM", 1, 1, seconds=7)
    assert placed.business_errors == ("INSUFFICIENT_STOCKS", "CLOSED_MARKET")
    assert list(fake.recorded.values()) == [1]
    assert fake.seen[-1].params == {"wait": "6"}


def test_a_service_that_does_not_wait_is_polled_with_pauses_until_the_deadline(
    client: Client, fake: FakeService, pauses: Pauses
) -> None:
    fake.waits = False
    placed = place(client)
    assert client.wait(1, placed.id, seconds=10).status is Status.PENDING
    assert sum(pauses.slept) == pytest.approx(10)
    assert len(pauses.slept) < 12
    assert max(pauses.slept) <= 3


def test_a_page_has_so_many_orders_and_no_more(client: Client, fake: FakeService) -> None:
    client.open_account(1000)
    assert list(client.orders(1, page_orders=PAGE_ORDERS_MAX)) == []
    assert fake.seen[-1].params["limit"] == str(PAGE_ORDERS_MAX)
    for beyond in (0, PAGE_ORDERS_MAX + 1):
        with pytest.raises(ValueError, match="1 to 200"):
            list(client.orders(1, page_orders=beyond))


def test_a_key_has_so_many_characters_and_no_more(client: Client) -> None:
    client.open_account(1000)
    fits = "k" * KEY_LENGTH_MAX
    assert place(client, idempotency_key=fits).id == place(client, idempotency_key=fits).id
    with pytest.raises(ValueError, match="255"):
        place(client, idempotency_key=fits + "k")


def test_pauses_between_looks_grow_to_a_bound(
    client: Client, fake: FakeService, pauses: Pauses
) -> None:
    fake.waits = False
    client.wait(1, place(client).id, seconds=30)
    looks = pauses.slept
    assert looks[:2] == pytest.approx([0.15, 0.3])
    assert max(looks) == pytest.approx(1.5 * _POLL_SECONDS_MAX)


def test_pauses_after_failures_stay_within_their_bound_however_many_there_were() -> None:
    patient = Retry(base_seconds=1.0, pause_seconds_max=10**9)
    for failures in (_EXPONENT_MAX + 1, _EXPONENT_MAX + 2, 10**9):
        assert patient.pause(failures, chance=1.0) == 2.0**_EXPONENT_MAX


def test_a_long_wait_takes_several_requests(client: Client, fake: FakeService) -> None:
    placed = place(client)
    client.wait(1, placed.id, seconds=100)
    assert fake.seen[-1].params == {"wait": "20"}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"timestamp": 1795515934.25, "status": "rejected", "business_errors": ["CLOSED_MARKET"]},
        {"status": "failed", "failure": "it could not be decided"},
        {
            "status": "executed",
            "decided_at": RECEIVED_AT,
            "current_balance": {
                "cash": "495.1",
                "issuers": [{"issuer_name": "GBM", "total_shares": 3, "share_price": "0.1"}],
                "partial": True,
            },
        },
    ],
)
def test_an_order_is_shown_as_it_was_read(changes: dict[str, Any]) -> None:
    shown = order_json(**changes)
    read = read_order(json.loads(json.dumps(shown), parse_float=Decimal))
    assert show_order(read) == shown


def test_a_damaged_order_can_be_read_and_shown() -> None:
    shown = {"id": "x", "account_id": 1, "status": "pending", "failure": "no price"}
    read = read_order(shown)
    assert read.share_price is None
    assert show_order(read) == shown


def test_times_are_exact() -> None:
    read = read_order({**order_json(), "timestamp": Decimal("1795515934.259791")})
    assert read.timestamp == datetime(2026, 11, 24, 10, 25, 34, 259791, tzinfo=UTC)


def test_an_order_without_a_zone_in_its_time_is_refused(client: Client) -> None:
    with pytest.raises(ValueError, match="no time zone"):
        place(client, timestamp=datetime(2026, 1, 1))  # noqa: DTZ001 - the mistake in question


def test_a_new_order_has_to_be_dated_before_it_is_sent() -> None:
    with pytest.raises(ValueError, match="not dated"):
        NewOrder(1, "BUY", "GBM", 1, 1).body()
