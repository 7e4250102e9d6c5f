"""GET of an account's events: decided orders in sequence, from any place, without a gap."""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.test import EnvironBuilder, TestResponse

from api import streams as streams_module
from api import waiting as waiting_module
from api.event_ids import read_event_id, write_event_id
from api.places import Places
from api.streams import Streams
from shared.ids import NO_ORDER_ID
from shared.notices import NoticesLost
from shared.order_store import parking
from shared.order_store.decisions import BEGINNING, Place
from tests.unit.api.parts import Api, json_of, order_body, pointers_of, problem_of
from tests.unit.factories import make_settler, order_id

SECONDS = 10.0


@dataclass
class Block:
    """What stands between two empty lines."""

    id: str | None = None
    event: str | None = None
    data: str | None = None
    retry: str | None = None
    comment: str | None = None


class Reader:
    """Reads a stream as it comes."""

    def __init__(self, answer: TestResponse) -> None:
        assert answer.status_code == 200, answer.text
        self.answer = answer
        self._blocks = self._read(iter(answer.iter_encoded()))

    def __next__(self) -> Block:
        return next(self._blocks)

    def event(self) -> tuple[str, dict[str, Any]]:
        """The next event's id and order; comments are passed over."""
        block = next(self)
        while block.data is None:
            block = next(self)
        assert block.event == "order"
        assert block.id is not None
        order: dict[str, Any] = json.loads(block.data)
        return block.id, order

    def _read(self, chunks: Iterator[bytes]) -> Iterator[Block]:
        left = b""
        for chunk in chunks:
            *blocks, left = (left + chunk).split(b"\n\n")
            for text in blocks:
                yield _block(text.decode())
        assert left == b"", "torn"


def _block(text: str) -> Block:
    block = Block()
    for line in text.split("\n"):
        name, _, value = line.partition(":")
        setattr(block, name or "comment", value.removeprefix(" "))
    return block


@pytest.fixture(name="api")
def _api(make_api: Callable[..., Api]) -> Iterator[Api]:
    api = make_api()
    yield api
    api.services.waiting.end()


@pytest.fixture(name="account_id")
def _account_id(api: Api) -> int:
    return api.open_account("1000000")


@pytest.fixture(name="open_stream")
def _open_stream(api: Api) -> Iterator[Callable[..., Reader]]:
    opened: list[Reader] = []

    def open_stream(account_id: int, last: str | None = None, of: Api = api) -> Reader:
        headers = {"Last-Event-ID": last} if last is not None else {}
        path = f"/v1/accounts/{account_id}/events"
        opened.append(Reader(of.http.get(path, headers=headers, buffered=False)))
        return opened[-1]

    yield open_stream
    for one in opened:
        one.answer.close()


OpenStream = Callable[..., Reader]


class Deaf:
    """A feed on which nothing can be heard."""

    def listen(self) -> Iterator[None]:
        raise NoticesLost("away")


def placed(api: Api, account_id: int, shares: int = 2) -> str:
    path = f"/v1/accounts/{account_id}/orders"
    answer = api.post(path, order_body(total_shares=shares, share_price=1))
    assert answer.status_code == 202, answer.text
    return str(json_of(answer)["id"])


def settle(api: Api, account_id: int, *order_ids: str, attempts_max: int = 3) -> None:
    settler = make_settler(api.gateway, cache=api.services.cache, attempts_max=attempts_max)
    assert settler.settle([(account_id, one) for one in order_ids]) == []


def shown(api: Api, account_id: int, order_id: str) -> dict[str, Any]:
    return json_of(api.get(f"/v1/accounts/{account_id}/orders/{order_id}"))


def test_a_stream_says_what_it_is(api: Api, account_id: int, open_stream: OpenStream) -> None:
    reader = open_stream(account_id)
    headers = reader.answer.headers
    assert headers["Content-Type"].startswith("text/event-stream")
    assert headers["Cache-Control"] == "no-store"
    assert headers["X-Accel-Buffering"] == "no"
    first = next(reader)
    assert first.retry == "2000"
    # To go on from here, should the connection end before there is an event.
    assert first.id is not None
    assert first.data is None


def test_decided_orders_come_as_they_are_decided(
    api: Api, account_id: int, open_stream: OpenStream
) -> None:
    before = placed(api, account_id)
    settle(api, account_id, before)
    reader = open_stream(account_id)
    next(reader)
    ids = []
    for shares in (3, 4):
        order = placed(api, account_id, shares)
        settle(api, account_id, order)
        event_id, body = reader.event()
        assert body == shown(api, account_id, order)
        assert body["status"] == "executed"
        ids.append(event_id)
    assert len(set(ids)) == 2


def test_a_stream_asks_the_store_once_for_each_notice(
    api: Api, account_id: int, open_stream: OpenStream
) -> None:
    reader = open_stream(account_id)
    next(reader)
    order = placed(api, account_id)
    settle(api, account_id, order)
    api.store.calls.clear()
    assert reader.event()[1]["id"] == order
    assert api.store.calls == ["query"]


def test_a_stream_goes_on_after_any_event(
    api: Api, account_id: int, open_stream: OpenStream
) -> None:
    reader = open_stream(account_id)
    start = next(reader).id
    orders = [placed(api, account_id, shares) for shares in range(2, 8)]
    settle(api, account_id, *orders)
    events = [reader.event() for _ in orders]
    assert [body["id"] for _, body in events] == orders
    ids = [start, *(event_id for event_id, _ in events)]
    for place, event_id in enumerate(ids[:-1]):
        again = open_stream(account_id, event_id)
        assert [again.event()[0] for _ in orders[place:]] == ids[place + 1 :]
        again.answer.close()


def test_a_place_may_be_named_in_the_query_and_the_header_counts_more(
    api: Api, account_id: int, open_stream: OpenStream
) -> None:
    start = next(open_stream(account_id)).id
    orders = [placed(api, account_id, shares) for shares in (2, 3)]
    settle(api, account_id, *orders)
    path = f"/v1/accounts/{account_id}/events?last_event_id={start}"
    reader = Reader(api.http.get(path, buffered=False))
    event_id, body = reader.event()
    assert body["id"] == orders[0]
    reader.answer.close()

    headers = {"Last-Event-ID": event_id}
    later = Reader(api.http.get(path, headers=headers, buffered=False))
    assert later.event()[1]["id"] == orders[1]
    later.answer.close()

    empty = Reader(api.http.get(path, headers={"Last-Event-ID": ""}, buffered=False))
    assert empty.event()[1]["id"] == orders[0]
    empty.answer.close()


def test_a_stream_may_begin_with_the_first_order_of_all(
    api: Api, account_id: int, open_stream: OpenStream
) -> None:
    orders = [placed(api, account_id, shares) for shares in (2, 3)]
    settle(api, account_id, *orders)
    reader = open_stream(account_id, "0")
    assert [reader.event()[1]["id"] for _ in orders] == orders


def test_rejected_cancelled_parked_and_replayed_orders_come_too(
    api: Api, account_id: int, open_stream: OpenStream
) -> None:
    reader = open_stream(account_id)
    rejected = placed(api, account_id, 10**9)
    settle(api, account_id, rejected)
    assert reader.event()[1]["business_errors"] == ["INSUFFICIENT_BALANCE"]

    cancelled = placed(api, account_id)
    api.http.delete(f"/v1/accounts/{account_id}/orders/{cancelled}")
    event_id, body = reader.event()
    assert (body["id"], body["status"]) == (cancelled, "cancelled")

    parked = placed(api, account_id, 3)
    settle(api, account_id, parked, attempts_max=0)
    _, body = reader.event()
    assert (body["id"], body["status"]) == (parked, "failed")

    parking.replay(api.gateway, (account_id, parked))
    settle(api, account_id, parked)
    _, body = reader.event()
    assert (body["id"], body["status"]) == (parked, "executed")

    late = open_stream(account_id, event_id)
    assert late.event()[1]["status"] == "executed"


def test_a_silent_stream_says_that_it_lives(
    api: Api, account_id: int, open_stream: OpenStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams_module, "HEARTBEAT_SECONDS", 0.1)
    reader = open_stream(account_id)
    next(reader)
    began = time.monotonic()
    for _ in range(3):
        assert next(reader).comment == ""
    assert 0.25 < time.monotonic() - began < SECONDS


def test_a_balancer_hears_of_a_silent_stream_in_time() -> None:
    assert streams_module.HEARTBEAT_SECONDS <= 15


def test_what_no_notice_told_of_is_found_by_asking(
    api: Api, account_id: int, open_stream: OpenStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams_module, "CHECK_SECONDS", 0.2)
    reader = open_stream(account_id)
    next(reader)
    order = placed(api, account_id)
    assert make_settler(api.gateway).settle([(account_id, order)]) == []
    assert reader.event()[1]["id"] == order


def test_without_notices_the_store_is_asked_every_few_seconds(
    api: Api, account_id: int, open_stream: OpenStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting_module, "LOOK_AGAIN_SECONDS", 0.3)
    monkeypatch.setattr(api.services.waiting, "_feed", Deaf())
    reader = open_stream(account_id)
    next(reader)
    order = placed(api, account_id)
    assert make_settler(api.gateway).settle([(account_id, order)]) == []
    assert reader.event()[1]["id"] == order


def test_a_stream_outlives_a_store_that_fails(
    api: Api, account_id: int, open_stream: OpenStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams_module, "TROUBLE_SECONDS", 0.2)
    monkeypatch.setattr(streams_module, "HEARTBEAT_SECONDS", 0.1)
    reader = open_stream(account_id)
    next(reader)
    order = placed(api, account_id)
    settle(api, account_id, order)
    api.store.is_down = True
    for _ in range(5):
        assert next(reader).comment == ""
    api.store.is_down = False
    assert reader.event()[1]["id"] == order


def test_a_stream_lives_for_so_long_and_no_longer(make_api: Callable[..., Api]) -> None:
    api = make_api(stream_seconds_max=0.5)
    account_id = api.open_account()
    began = time.monotonic()
    reader = Reader(api.http.get(f"/v1/accounts/{account_id}/events", buffered=False))
    *_, last = iter(lambda: next(reader, None), None)
    assert isinstance(last, Block)
    assert last.comment is not None
    assert "connect again" in last.comment
    assert 0.3 < time.monotonic() - began < SECONDS
    api.services.waiting.end()


def test_streams_end_where_the_process_stops(
    api: Api, account_id: int, open_stream: OpenStream
) -> None:
    reader = open_stream(account_id)
    next(reader)
    api.services.waiting.end_after(0.1)
    last = next(reader)
    assert last.comment is not None
    assert "connect again" in last.comment
    assert next(reader._blocks, None) is None
    assert api.services.waiting._accounts == {}


def test_a_stream_gives_its_room_up_however_it_ends(make_api: Callable[..., Api]) -> None:
    api = make_api(streams_max=1)
    path = f"/v1/accounts/{api.open_account()}/events"
    for fetched in (0, 1):
        answer = api.http.get(path, buffered=False)
        chunks = iter(answer.iter_encoded())
        for _ in range(fetched):
            next(chunks)
        problem_of(api.http.get(path), 503, "OVERLOADED")
        answer.close()
    assert api.http.head(path).status_code == 200
    problem_of(api.http.get("/v1/accounts/999/events"), 404, "ACCOUNT_NOT_FOUND")
    assert api.services.waiting._streams == 0
    api.services.waiting.end()


def test_a_stream_that_is_closed_before_its_first_byte_gives_its_room_up(api: Api) -> None:
    path = f"/v1/accounts/{api.open_account()}/events"
    app = api.http.application
    environ = EnvironBuilder(path=path).get_environ() | {"REMOTE_ADDR": "127.0.0.1"}
    opened: Any = app.wsgi_app(environ, lambda *_: lambda _: None)
    assert api.services.waiting._streams == 1
    opened.close()
    assert api.services.waiting._streams == 0


def test_a_stream_holds_a_place_only_while_it_reads(api: Api, account_id: int) -> None:
    places = Places()
    places.limit(1)
    streams = Streams(api.gateway, api.services.waiting, 3600, places=places)
    order = placed(api, account_id)
    settle(api, account_id, order)
    assert places.take()
    stream = streams.open(account_id, BEGINNING)
    for chunk in islice(stream.chunks(), 2):
        assert chunk
        # Where it is sent, anybody else may work.
        assert places.take(0)
        places.give_back()
    stream.close()


def test_a_stream_for_which_there_is_no_place_waits_for_one(
    api: Api, account_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams_module, "TROUBLE_SECONDS", 0.1)
    monkeypatch.setattr(streams_module, "HEARTBEAT_SECONDS", 0.1)
    places = Places()
    places.limit(1)
    monkeypatch.setattr(places, "take", lambda: Places.take(places, 0.01))
    assert places.take()
    stream = Streams(api.gateway, api.services.waiting, 3600, places=places).open(
        account_id, BEGINNING
    )
    order = placed(api, account_id)
    settle(api, account_id, order)
    chunks = stream.chunks()
    next(chunks)
    assert places.take()
    assert next(chunks) == b":\n\n"
    places.give_back()
    while (chunk := next(chunks)) == b":\n\n":
        pass
    assert order.encode() in chunk
    stream.close()


def test_an_account_has_so_many_streams_and_no_more(make_api: Callable[..., Api]) -> None:
    api = make_api(streams_per_account_max=1)
    first, second = (f"/v1/accounts/{api.open_account()}/events" for _ in range(2))
    opened = [api.http.get(path, buffered=False) for path in (first, second)]
    refused = api.http.get(first)
    problem_of(refused, 429, "TOO_MANY_STREAMS")
    assert refused.headers["Retry-After"] == "1"
    for answer in opened:
        assert answer.status_code == 200
        answer.close()
    api.services.waiting.end()


def test_an_unknown_account_has_no_events(api: Api) -> None:
    for method in (api.http.get, api.http.head):
        assert method("/v1/accounts/404/events").status_code == 404


def test_an_event_that_is_none_of_the_accounts_is_refused(api: Api, account_id: int) -> None:
    others = write_event_id(Place(0, NO_ORDER_ID), account_id + 1)
    ahead = write_event_id(Place(1, NO_ORDER_ID), account_id)
    for last in ("x", "1", others, ahead, "A" * 44):
        path = f"/v1/accounts/{account_id}/events?last_event_id={last}"
        assert pointers_of(api.get(path)) == ["/last_event_id"]
    assert api.services.waiting._streams == 0


@given(st.integers(0, 2**63 - 1), st.integers(1, 10**18), st.integers(0, 10**9))
def test_an_event_id_says_what_was_written(sequence: int, account_id: int, number: int) -> None:
    for through in (NO_ORDER_ID, order_id(number)):
        written = write_event_id(Place(sequence, through), account_id)
        assert len(written) == 44
        assert written.isascii()
        assert read_event_id(written, account_id) == Place(sequence, through)
        with pytest.raises(ValueError, match="another account"):
            read_event_id(written, account_id + 1)


@given(st.integers(0, 43), st.sampled_from("Aaz09-_+/= \u00e4"), st.integers(0, 999))
def test_an_event_id_that_was_changed_anywhere_is_refused(
    place: int, other: str, number: int
) -> None:
    written = write_event_id(Place(77, order_id(number)), 1)
    changed = written[:place] + other + written[place + 1 :]
    if changed != written:
        with pytest.raises(ValueError):  # noqa: PT011 - whatever is wrong with it
            read_event_id(changed, 1)


def test_an_event_id_is_written_in_one_way() -> None:
    ids = [write_event_id(Place(number, NO_ORDER_ID), 1) for number in range(20)]
    others = [one.replace("-", "+").replace("_", "/") for one in ids]
    assert ids != others
    for written, other in zip(ids, others, strict=True):
        if written != other:
            with pytest.raises(ValueError, match="another way"):
                read_event_id(other, 1)


def test_the_beginning_has_a_short_name() -> None:
    assert read_event_id("0", 1) == BEGINNING
