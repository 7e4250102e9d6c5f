"""What the clients' own HTTP makes of answers: nothing that came is forgotten or made up."""

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from io import StringIO
from typing import TypeVar

import pytest

from tests.chaos.follower import begin, follow
from tests.chaos.history import Call, Recorder, lines_of
from tests.chaos.http_client import HOST, Answer, Connection, NoAnswer
from tests.chaos.reader import last_of_streams

T = TypeVar("T")
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def answered(parts: list[bytes], ask: Callable[[Connection], Awaitable[T]]) -> T:
    """What ``ask`` makes of a server that sends ``parts`` and then hangs up."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0.01)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    async def run() -> T:
        server = await asyncio.start_server(serve, HOST, 0)
        async with server:
            connection = Connection(server.sockets[0].getsockname()[1], 2.0)
            try:
                return await ask(connection)
            finally:
                connection.close()
                await asyncio.sleep(0.05)

    return asyncio.run(run())


def chunk(text: str) -> bytes:
    body = text.encode()
    return f"{len(body):x}\r\n".encode() + body + b"\r\n"


async def get(connection: Connection) -> Answer:
    return await connection.ask("GET", "/")


async def broken_off(connection: Connection) -> NoAnswer:
    with pytest.raises(NoAnswer) as caught:
        await connection.ask("GET", "/")
    return caught.value


def test_an_answer_in_pieces_is_put_together() -> None:
    parts = [CHUNKED, chunk("Ä first "), chunk("and second"), b"0\r\n\r\n"]
    assert answered(parts, get) == Answer(200, "Ä first and second")


def test_what_came_of_an_answer_that_broke_off_is_kept() -> None:
    error = answered([CHUNKED, chunk('{"line":1}\n'), b"ff\r\nand so"], broken_off)
    assert (str(error), error.part) == ("IncompleteReadError", '{"line":1}\n')


def test_an_answer_without_a_body_ends_at_its_head() -> None:
    head = b'HTTP/1.1 304 NOT MODIFIED\r\nETag: "x"\r\nIdempotent-Replayed: true\r\n\r\n'
    assert answered([head], get) == Answer(304, "", replayed=True, tag='"x"')


def test_lines_that_are_not_whole_have_no_answer() -> None:
    sent = "\n".join(json.dumps({"account_id": number}) for number in (1, 2))
    body = '{"line":1,"status":202,"order":{"id": "a"}}\n{"line":2,"sta'
    call = Call("bulk", "b", 0, 1, None, body, key="k", sent=sent)
    told = [(one.request, one.key, one.account, one.status, one.body) for one in lines_of(call)]
    assert told == [("b/1", "k/1", 1, 202, '{"id": "a"}'), ("b/2", "k/2", 2, None, None)]


def test_lines_of_a_request_that_was_refused_are_answered_with_the_refusal() -> None:
    call = Call("bulk", "b", 0, 1, 503, '{"code": "OVERLOADED"}', sent='{"account_id": 1}')
    (line,) = lines_of(call)
    assert (line.key, line.status, line.body) == (None, 503, '{"code": "OVERLOADED"}')


def test_events_are_noted_however_they_are_cut() -> None:
    file = StringIO()
    text = "retry: 2000\nid: p0\n\n" + "".join(
        f'id: p{number}\nevent: order\ndata: {{"id":"o{number}","status":"executed"}}\n\n'
        for number in (1, 2)
    )
    parts = [CHUNKED, *(chunk(text[at : at + 7]) for at in range(0, len(text), 7)), chunk(":\n\n")]
    parts.append(chunk('id: p3\nevent: order\ndata: {"id":"o3"'))

    async def followed(connection: Connection) -> str:
        return await follow(connection, Recorder(file), "s", 7, "p0")

    assert answered(parts, followed) == "p2"
    told = [json.loads(line) for line in file.getvalue().splitlines()]
    assert [(one["order"], one["place"], one["request"]) for one in told] == [
        ("o1", "p1", "s"),
        ("o2", "p2", "s"),
    ]


def test_a_stream_that_said_nothing_is_finished_from_its_beginning() -> None:
    file = StringIO()
    recorder = Recorder(file)
    assert begin(recorder, "silent", 7) == begin(recorder, "s", 8) == "0"
    recorder.add(Call("event", "s", 1, 2, 200, "{}", account=8, order="o1", place="p1"))
    calls = [Call(**json.loads(line)) for line in file.getvalue().splitlines()]
    last = [(call.request, call.account, call.place) for call in last_of_streams(calls)]
    assert last == [("silent", 7, "0"), ("s", 8, "p1")]


@pytest.mark.parametrize(("status", "noted"), [(404, [404]), (503, [])])
def test_a_stream_that_is_refused_is_noted_unless_it_is_for_now(
    status: int, noted: list[int]
) -> None:
    file = StringIO()

    async def followed(connection: Connection) -> str:
        return await follow(connection, Recorder(file), "s", 7, "p0")

    head = f"HTTP/1.1 {status} NO\r\nContent-Length: 0\r\n\r\n".encode()
    assert answered([head], followed) == "p0"
    assert [json.loads(line)["status"] for line in file.getvalue().splitlines()] == noted
