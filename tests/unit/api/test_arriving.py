"""When a request is whole, however it is cut into pieces."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.arriving import CHUNK_LINE_BYTES_MAX, CHUNKED_OVERHEAD, HEAD_BYTES_MAX, Arrival, Arriving
from api.body_limits import BodyLimits
from tests.unit.factories import STEADY
from tests.unit.processor_time import processor_time

BODY_BYTES_MAX = 100
BULK_BYTES_MAX = 1000
LIMITS = BodyLimits(BODY_BYTES_MAX, BULK_BYTES_MAX)

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED_HEAD = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
CHUNKED = CHUNKED_HEAD + b"2;a=b\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"
WITH_TRAILER = CHUNKED_HEAD + b"5\r\nhello\r\n0\r\nA: b\r\n\r\n"
WHOLE_ONES = [GET, POST, CHUNKED, WITH_TRAILER, b"\r\n" + GET, b"GET / HTTP/1.0\r\n\r\n"]


def states(*pieces: bytes) -> list[Arrival]:
    arriving = Arriving(LIMITS)
    return [arriving.add(piece) for piece in pieces]


def in_bytes(data: bytes) -> list[bytes]:
    return [data[place : place + 1] for place in range(len(data))]


@pytest.mark.parametrize("request_bytes", WHOLE_ONES)
def test_a_request_is_whole_at_its_last_byte_and_not_before(request_bytes: bytes) -> None:
    found = states(*in_bytes(request_bytes))
    assert found == [Arrival.MORE] * (len(request_bytes) - 1) + [Arrival.WHOLE]


@pytest.mark.parametrize("request_bytes", WHOLE_ONES)
def test_a_request_is_whole_whatever_follows_it(request_bytes: bytes) -> None:
    assert states(request_bytes + GET) == [Arrival.WHOLE]


@settings(STEADY, max_examples=100)
@given(
    request_bytes=st.sampled_from(WHOLE_ONES),
    cuts=st.lists(st.integers(min_value=0, max_value=100), max_size=6),
)
def test_it_does_not_matter_where_a_request_is_cut(request_bytes: bytes, cuts: list[int]) -> None:
    places = sorted({0, len(request_bytes), *(cut % len(request_bytes) for cut in cuts)})
    pieces = [request_bytes[a:b] for a, b in pairwise(places)]
    found = states(*pieces)
    assert found == [Arrival.MORE] * (len(pieces) - 1) + [Arrival.WHOLE]


@settings(STEADY, max_examples=200)
@given(data=st.binary(max_size=300), head=st.sampled_from([b"", GET, CHUNKED_HEAD]))
def test_no_bytes_break_it(data: bytes, head: bytes) -> None:
    for found in states(head, *in_bytes(data)):
        assert isinstance(found, Arrival)


def test_a_body_may_be_as_large_as_its_limit_and_no_larger() -> None:
    def length(size: int) -> bytes:
        return b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % size

    assert states(length(100), b"x" * 100) == [Arrival.MORE, Arrival.WHOLE]
    assert states(length(101)) == [Arrival.BODY_TOO_LARGE]
    assert states(length(10**30)) == [Arrival.BODY_TOO_LARGE]


def test_chunks_may_add_up_to_the_limit_and_no_further() -> None:
    half = b"32\r\n" + b"x" * 50 + b"\r\n"
    assert states(CHUNKED_HEAD, half, half, b"0\r\n\r\n")[-1] is Arrival.WHOLE
    assert states(CHUNKED_HEAD, half, half, b"1\r\n")[-1] is Arrival.BODY_TOO_LARGE
    assert states(CHUNKED_HEAD, b"f" * 5000 + b"\r\n")[-1] is Arrival.BODY_TOO_LARGE


def test_a_chunked_body_may_take_so_much_on_the_wire_and_no_more() -> None:
    allowed = HEAD_BYTES_MAX + CHUNKED_OVERHEAD * BODY_BYTES_MAX
    lines = b"1;" + b"a" * 4000 + b"\r\nx\r\n"
    full = (lines * 20)[:allowed]
    assert states(CHUNKED_HEAD, full, b"x") == [Arrival.MORE, Arrival.MORE, Arrival.BODY_TOO_LARGE]


def test_a_head_may_be_as_long_as_its_limit_and_no_longer() -> None:
    def head(size: int) -> bytes:
        start = b"GET / HTTP/1.1\r\nA: "
        return start + b"b" * (size - len(start)) + b"\r\n\r\n"

    assert states(head(HEAD_BYTES_MAX)) == [Arrival.WHOLE]
    assert states(head(HEAD_BYTES_MAX + 1)) == [Arrival.HEAD_TOO_LARGE]
    assert states(b"A: " + b"b" * HEAD_BYTES_MAX) == [Arrival.HEAD_TOO_LARGE]


def test_trailers_may_be_as_long_as_a_head_and_no_longer() -> None:
    end = CHUNKED_HEAD + b"0"
    # Counted from the line end of the last chunk.
    fits = b"\r\n" + b"a" * (HEAD_BYTES_MAX - 2)
    assert states(end, fits)[-1] is Arrival.MORE
    assert states(end, fits + b"a")[-1] is Arrival.HEAD_TOO_LARGE


def test_a_chunk_line_without_an_end_is_left_to_the_parser_in_time() -> None:
    assert states(CHUNKED_HEAD, b"1" * CHUNK_LINE_BYTES_MAX)[-1] is Arrival.MORE
    assert states(CHUNKED_HEAD, b"1" * (CHUNK_LINE_BYTES_MAX + 1))[-1] is Arrival.WHOLE


def test_a_chunk_line_has_so_many_bytes_and_no_more() -> None:
    fits = b"1;" + b"a" * (CHUNK_LINE_BYTES_MAX - 2) + b"\r\nx\r\n"
    assert states(CHUNKED_HEAD + fits)[-1] is Arrival.MORE
    # Its own end is not looked for: the parser refuses it, whatever comes then.
    assert states(CHUNKED_HEAD + b"0" + fits)[-1] is Arrival.WHOLE


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET / HTTP/1.1\n\n",
        b"GET / HTTP/1.1\r\nA: b\n",
        b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 1, 1\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n",
        CHUNKED_HEAD + b"zz\r\n",
        CHUNKED_HEAD + b"-1\r\n",
        CHUNKED_HEAD + b"0x1\r\n",
        CHUNKED_HEAD + b"\r\n",
    ],
)
def test_what_no_more_bytes_can_mend_is_left_to_the_parser_at_once(request_bytes: bytes) -> None:
    assert states(request_bytes) == [Arrival.WHOLE]


def test_a_client_that_expects_to_be_told_is_told_once_and_only_if_its_body_is_to_come() -> None:
    head = b"POST / HTTP/1.1\r\nExpect: 100-Continue\r\nContent-Length: 5\r\n\r\n"
    assert states(head, b"hel", b"lo") == [Arrival.EXPECTS, Arrival.MORE, Arrival.WHOLE]
    assert states(head + b"hello") == [Arrival.WHOLE]
    assert states(head.replace(b"1.1", b"1.0")) == [Arrival.MORE]
    assert states(head.replace(b": 5", b": 500")) == [Arrival.BODY_TOO_LARGE]


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET / HTTP/1.1\r\nA: " + b"b" * 30_000,
        CHUNKED_HEAD + b"1;" + b"a" * 8_000,
        CHUNKED_HEAD + b"0\r\nA: " + b"b" * 30_000,
    ],
)
def test_a_byte_at_a_time_costs_no_time(request_bytes: bytes) -> None:
    with processor_time() as spent:
        states(*in_bytes(request_bytes))
    assert spent.seconds < 2


@pytest.mark.parametrize(
    "target",
    [b"/v1/orders/bulk", b"/orders/bulk", b"/orders/bulk?a=b"],
)
def test_a_bulk_request_may_bring_more_than_any_other(target: bytes) -> None:
    head = b"POST " + target + b" HTTP/1.1\r\nContent-Length: %d\r\n\r\n"
    assert states(head % BULK_BYTES_MAX) == [Arrival.MORE]
    assert states(head % BULK_BYTES_MAX + b"x" * BULK_BYTES_MAX) == [Arrival.WHOLE]
    assert states(head % (BULK_BYTES_MAX + 1)) == [Arrival.BODY_TOO_LARGE]


@pytest.mark.parametrize(
    "target",
    [
        b"/v1/accounts",
        b"/v1/accounts/1/orders",
        b"/v1/orders/bulk/",
        b"/v2/orders/bulk",
        b"//orders/bulk",
        b"/x?/orders/bulk",
        b"*",
        b"",
    ],
)
def test_no_other_path_gets_a_bulk_request_s_room(target: bytes) -> None:
    head = b"POST " + target + b" HTTP/1.1\r\nContent-Length: %d\r\n\r\n"
    assert states(head % BODY_BYTES_MAX) == [Arrival.MORE]
    assert states(head % (BODY_BYTES_MAX + 1)) == [Arrival.BODY_TOO_LARGE]


def test_a_chunked_bulk_request_keeps_its_own_limit_too() -> None:
    head = b"POST /v1/orders/bulk HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert states(head + b"%x\r\n" % BULK_BYTES_MAX) == [Arrival.MORE]
    assert states(head + b"%x\r\n" % (BULK_BYTES_MAX + 1)) == [Arrival.BODY_TOO_LARGE]
