"""The load generator's reader of responses."""

import pytest

from bench.http1 import Response, ResponseReader, UnreadableResponse, build_request

CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    b'4\r\n{"a"\r\n6;x=y\r\n:1}\r\n\n\r\n0\r\n\r\n'
)
EMPTY = b"HTTP/1.1 304 NOT MODIFIED\r\nETag: x\r\n\r\n"


def pieces(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 16, 1000])
def test_responses_are_the_same_however_their_bytes_arrive(size: int) -> None:
    body = b'{"id":1}\r\n\r\n'
    plain = b"HTTP/1.1 202 ACCEPTED\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
    reader = ResponseReader()

    found = [
        response
        for piece in pieces(plain + CHUNKED + EMPTY + plain, size)
        for response in reader.feed(piece)
    ]

    assert [(response.status, response.body) for response in found] == [
        (202, body),
        (200, b'{"a":1}\r\n\n'),
        (304, b""),
        (202, body),
    ]


def test_a_response_is_not_given_before_its_last_byte() -> None:
    data = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    reader = ResponseReader()

    assert reader.feed(data[:-1]) == []
    assert [response.body for response in reader.feed(data[-1:])] == [b"ok"]


def test_a_header_is_found_whatever_its_case() -> None:
    head = b"HTTP/1.1 202 ACCEPTED\r\nX-Location: no\r\nLoCation:  /v1/orders/7 \r\nA: b"

    assert Response(202, head, b"").header(b"location") == b"/v1/orders/7"
    assert Response(202, head, b"").header(b"a") == b"b"
    assert Response(202, head, b"").header(b"server") is None


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nServer: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
def test_what_is_no_response_is_refused(data: bytes) -> None:
    with pytest.raises(UnreadableResponse):
        ResponseReader().feed(data)


def test_a_request_names_its_host_and_the_length_of_its_body() -> None:
    built = build_request("POST", "/v1/accounts", "127.0.0.1:1", b"{}", {"A": "b"})

    assert built == (
        b"POST /v1/accounts HTTP/1.1\r\nHost: 127.0.0.1:1\r\nA: b\r\nContent-Length: 2\r\n\r\n{}"
    )
    assert build_request("GET", "/", "x") == b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
