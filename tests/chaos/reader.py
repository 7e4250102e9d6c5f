"""Calls before the first fault and after the last one: open accounts, read everything again."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from tests.chaos.asking import ask_and_note
from tests.chaos.follower import follow
from tests.chaos.history import ACCOUNT, EVENT, LIST, OPEN, PLACE, Call, Recorder
from tests.chaos.http_client import Answer, Connection, NoAnswer
from tests.chaos.posts import each_post

T = TypeVar("T")

PAGE_ORDERS = 200
REPEATED_MAX = 200
_READERS = 6
_ATTEMPTS = 5
_TIMEOUT_SECONDS = 10.0
_PAUSE_SECONDS = 0.5
_SILENCE_SECONDS = 3.0


class Reader:
    """Calls one API, patiently: all should be well when it is used."""

    def __init__(self, port: int, recorder: Recorder) -> None:
        self._connection = Connection(port, _TIMEOUT_SECONDS)
        self._recorder = recorder

    async def call(self, op: str, method: str, path: str, **about: Any) -> Answer:
        """Call until there is an answer other than 503, and write every try down."""
        for _ in range(_ATTEMPTS):
            answer = await ask_and_note(self._connection, self._recorder, op, method, path, **about)
            if answer is not None and answer.status != 503:
                return answer
            await asyncio.sleep(_PAUSE_SECONDS)
        raise NoAnswer(f"{method} {path}: no answer though nothing is broken")

    async def look(self, account: int) -> None:
        """The account, and all its orders page by page; those that were cancelled once more."""
        await self.call(ACCOUNT, "GET", f"/v1/accounts/{account}", account=account)
        await self._walk(account, None)
        await self._walk(account, "cancelled")

    async def _walk(self, account: int, statuses: str | None) -> None:
        cursor: str | None = None
        before: str | None = None
        while True:
            path = f"/v1/accounts/{account}/orders?limit={PAGE_ORDERS}"
            path += f"&status={statuses}" if statuses else ""
            path += f"&cursor={cursor}" if cursor else ""
            answer = await self.call(
                LIST,
                "GET",
                path,
                account=account,
                limit=PAGE_ORDERS,
                before=before,
                statuses=statuses,
            )
            shown = json.loads(answer.body)
            cursor = shown["next_cursor"]
            # The cursor itself says nothing to us: the page begins behind the last one's end.
            if cursor is None or not shown["orders"]:
                return
            before = shown["orders"][-1]["id"]

    async def repeat(self, call: Call) -> None:
        """Send an answered POST again."""
        await self.call(
            PLACE,
            "POST",
            f"/v1/accounts/{call.account}/orders",
            account=call.account,
            request=call.request,
            key=call.key,
            sent=call.sent,
            again=True,
        )

    async def finish(self, event: Call) -> None:
        """Follow a stream from its last event on until it is silent."""
        assert event.account is not None
        assert event.place is not None
        connection, recorder = self._connection, self._recorder
        await follow(
            connection, recorder, event.request, event.account, event.place, _SILENCE_SECONDS
        )
        now = time.monotonic()
        recorder.add(Call(EVENT, event.request, now, now, 200, account=event.account))

    def close(self) -> None:
        self._connection.close()


def open_accounts(port: int, count: int, cash: int, history: Path) -> list[int]:
    """Open accounts; returns their ids."""
    ids: list[int] = []
    sent = json.dumps({"cash": cash})

    async def work(reader: Reader, key: str) -> None:
        answer = await reader.call(OPEN, "POST", "/v1/accounts", request=key, key=key, sent=sent)
        ids.append(int(json.loads(answer.body)["id"]))

    asyncio.run(_share_out([port], history, work, [f"hot-{number}" for number in range(count)]))
    return ids


def read_everything(ports: Sequence[int], calls: Sequence[Call], history: Path) -> None:
    """Look at every account and every order, and repeat some answered POSTs."""

    async def work(reader: Reader, what: int | Call) -> None:
        await (reader.repeat(what) if isinstance(what, Call) else reader.look(what))

    things: list[int | Call] = [*_accounts(calls), *_some_answered(calls)]
    asyncio.run(_share_out(ports, history, work, things))


def finish_streams(ports: Sequence[int], calls: Iterable[Call], history: Path) -> None:
    """Go on with every stream of events until nothing more comes, and note that."""
    last = last_of_streams(calls)

    async def work(reader: Reader, event: Call) -> None:
        await reader.finish(event)

    asyncio.run(_share_out(ports, history, work, last, readers=len(last)))


def last_of_streams(calls: Iterable[Call]) -> list[Call]:
    """Where each stream stands: at its last event, or at its beginning if it never said any."""
    last = {call.request: call for call in calls if call.op == EVENT and call.place}
    return list(last.values())


def _accounts(calls: Iterable[Call]) -> list[int]:
    bodies = {call.body for call in calls if call.op == OPEN and call.status == 201 and call.body}
    return sorted({int(json.loads(body)["id"]) for body in bodies})


def _some_answered(calls: Iterable[Call]) -> list[Call]:
    # Lines of bulk requests as orders of their own, too: their keys are the same.
    posts = [post for call in calls for post in each_post(call) if post.op == PLACE]
    answered = [post for post in posts if post.status == 202 and post.key]
    return answered[:: max(1, len(answered) // REPEATED_MAX)]


async def _share_out(
    ports: Sequence[int],
    history: Path,
    work: Callable[[Reader, T], Awaitable[None]],
    things: Sequence[T],
    readers: int = _READERS,
) -> None:
    """Do ``work`` on all things, by some readers at once."""
    with history.open("w", encoding="utf-8") as file:
        recorder = Recorder(file)
        some_readers = [Reader(ports[number % len(ports)], recorder) for number in range(readers)]

        async def some(number: int, reader: Reader) -> None:
            for thing in things[number::readers]:
                await work(reader, thing)

        await asyncio.gather(*(some(number, reader) for number, reader in enumerate(some_readers)))
        for reader in some_readers:
            reader.close()
