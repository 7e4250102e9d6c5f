"""The stream of events: whole, once each, through whatever happens to the connections."""

from collections.abc import Iterator
from itertools import islice

import pytest

import order_client
from order_client import Client, Retry
from order_client.events import EventParser, RawEvent
from tests.unit.client.conftest import Pauses
from tests.unit.client.fake import FakeService, answer, drop_before, event, no_fault, problem, raw

PATIENCE = Retry(attempts_max=4, deadline_seconds=1000)


def ids(client: Client, last_event_id: str | None = None) -> Iterator[str]:
    events = client.events(1, last_event_id=last_event_id, retry=PATIENCE)
    return (f"{one.id}/{one.order.id}" for one in events)


def asked_after(fake: FakeService) -> list[str | None]:
    return [seen.headers.get("Last-Event-Id") for seen in fake.seen]


def test_events_come_as_they_are_sent(client: Client, fake: FakeService) -> None:
    fake.streams.append([b": hello\n\n", event("1", id="a"), event("2", id="b")])
    assert list(ids(client)) == ["1/a", "2/b"]
    assert fake.seen[0].headers["Accept"] == "text/event-stream"


def test_a_stream_goes_on_after_the_last_event_that_was_seen_whole(
    client: Client, fake: FakeService
) -> None:
    torn = event("2", id="b")[:-1]
    fake.streams += [[event("1", id="a"), torn], [event("2", id="b"), event("3", id="c")]]
    assert list(ids(client)) == ["1/a", "2/b", "3/c"]
    assert asked_after(fake) == [None, "1", "3"]


def test_what_is_sent_twice_is_seen_once(client: Client, fake: FakeService) -> None:
    one, two, three = event("1", id="a"), event("2", id="b"), event("3", id="c")
    fake.streams += [[one, two, two, one], [one, two, three], [three]]
    assert list(ids(client)) == ["1/a", "2/b", "3/c"]
    assert asked_after(fake)[1:] == ["2", "3", "3"]


def test_nothing_is_missed_before_the_first_event(client: Client, fake: FakeService) -> None:
    fake.streams += [[b"retry: 5\nid: 7\n\n"], [b"id: 7\n\n", event("8", id="h")]]
    assert list(ids(client)) == ["8/h"]
    assert asked_after(fake) == [None, "7", "8"]


def test_a_stream_begins_where_the_caller_left_it(client: Client, fake: FakeService) -> None:
    fake.streams.append([event("8", id="h")])
    assert list(ids(client, "7")) == ["8/h"]
    assert asked_after(fake)[0] == "7"


def test_events_of_other_kinds_are_passed_over_but_counted(
    client: Client, fake: FakeService
) -> None:
    fake.streams.append([b"id: 5\nevent: news\ndata: anything\n\n", event("6", id="f")])
    assert list(ids(client)) == ["6/f"]
    fake.streams.append([b"id: 5\nevent: news\ndata: anything\n\n"])
    assert list(ids(client)) == []
    assert asked_after(fake)[-1] == "5"


def test_without_an_id_of_its_own_an_event_is_no_repetition(
    client: Client, fake: FakeService
) -> None:
    fake.streams.append([event("1", id="a"), event(None, id="b"), event(None, id="c")])
    assert list(ids(client)) == ["1/a", "1/b", "1/c"]


def test_failures_in_between_are_waited_out(
    client: Client, fake: FakeService, pauses: Pauses
) -> None:
    fake.faults += [
        drop_before,
        answer(503, problem(503), Retry_After="9"),
        no_fault,
        drop_before,
    ]
    fake.streams += [[event("1", id="a")], [event("2", id="b")]]
    assert list(ids(client)) == ["1/a", "2/b"]
    assert pauses.slept == pytest.approx([0.2, 0.4 + 9, 0.2, 0.4, 0.2])


def test_the_service_may_ask_for_longer_pauses(
    client: Client, fake: FakeService, pauses: Pauses
) -> None:
    fake.streams.append([b"retry: 4000\n\n", event("1", id="a")])
    list(ids(client))
    assert pauses.slept == pytest.approx([4.2])


def test_a_service_that_never_says_anything_is_given_up(
    client: Client, fake: FakeService, pauses: Pauses
) -> None:
    fake.streams += [[] for _ in range(9)]
    with pytest.raises(order_client.Unreachable, match="ended"):
        list(ids(client))
    assert len(fake.seen) == 4


def test_a_living_but_quiet_stream_is_not_given_up(client: Client, fake: FakeService) -> None:
    fake.streams += [[b":\n\n"] for _ in range(9)]
    assert list(ids(client)) == []
    assert len(fake.seen) == 10


def test_a_refusal_ends_the_stream(client: Client, fake: FakeService) -> None:
    fake.faults.append(answer(404, problem(404)))
    with pytest.raises(order_client.NotFound):
        list(ids(client))
    assert len(fake.seen) == 1


@pytest.mark.parametrize(
    "garbage",
    [
        b"id: 2\nevent: order\ndata: {oops\n\n",
        b"id: 2\nevent: order\ndata: {}\n\n",
        b"data: \xff\n\n",
        event("\u20ac"),
    ],
)
def test_garbage_is_asked_for_again_a_few_times(
    client: Client, fake: FakeService, garbage: bytes
) -> None:
    fake.streams += [[event("1", id="a"), garbage], [garbage], [event("2", id="b")]]
    assert list(ids(client)) == ["1/a", "2/b"]
    assert asked_after(fake)[1:3] == ["1", "1"]
    fake.streams += [[b": alive\n\n", garbage] for _ in range(9)]
    with pytest.raises(order_client.ProtocolError):
        list(ids(client))
    assert len(fake.streams) == 6


def test_a_page_that_is_no_stream_is_garbage(client: Client, fake: FakeService) -> None:
    fake.faults += [raw(b"<html>", mimetype="text/html")] * 3
    with pytest.raises(order_client.ProtocolError, match="no stream"):
        list(ids(client))


def test_taking_a_few_events_lets_go_of_the_connection(client: Client, fake: FakeService) -> None:
    fake.streams.append([event(str(n), id=str(n)) for n in range(100)])
    assert list(islice(ids(client), 2)) == ["0/0", "1/1"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"data: a\ndata:b\ndata\n\n", [RawEvent("message", "a\nb\n", None)]),
        (b"\xef\xbb\xbfdata: a\n\n", [RawEvent("message", "a", None)]),
        (b"event: x\n\ndata: a\n\n", [RawEvent("message", "a", None)]),
        (
            b"id: 1\ndata: a\n\ndata: b\n\n",
            [RawEvent("message", "a", "1"), RawEvent("message", "b", None)],
        ),
        (b"id: a\0b\ndata: a\n\n", [RawEvent("message", "a", None)]),
        (b"event: order\nid: 7\n\n", [RawEvent("", "", "7")]),
        (b"data: torn", []),
        (b"nonsense\n: said\n\n", []),
    ],
)
def test_lines_make_events_as_the_standard_says(text: bytes, expected: list[RawEvent]) -> None:
    assert list(EventParser().events(text.split(b"\n"))) == expected


def test_an_event_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("order_client.events.LINE_BYTES_MAX", 10)
    (fits,) = EventParser().events([b"data: 1234", b"data: 1234", b""])
    assert fits.data == "1234\n1234"
    for beyond in ([b"data: 1234", b"data: 12345"], [b"data:"] * 11):
        with pytest.raises(order_client.ProtocolError, match="bounds"):
            list(EventParser().events(beyond))


@pytest.mark.parametrize(("asked", "seconds"), [(30_000, 30.0), (30_001, 30.0), (29_999, 29.999)])
def test_a_service_may_ask_for_so_long_a_pause_and_no_longer(asked: int, seconds: float) -> None:
    parser = EventParser()
    assert list(parser.events([b"retry: %d" % asked])) == []
    assert parser.retry_seconds == seconds


def test_so_many_events_are_remembered_and_no_more(
    client: Client, fake: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("order_client.events.SEEN_MAX", 2)
    one, two, three = event("1", id="a"), event("2", id="b"), event("3", id="c")
    fake.streams += [[one, two, one, three, one]]
    assert list(ids(client)) == ["1/a", "2/b", "3/c", "1/a"]
