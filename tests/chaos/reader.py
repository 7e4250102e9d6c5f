"""Calls before the first fault and after the last one: open accounts, read everything again."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from tests.chaos.asking import ask_and_note
from tests.chaos.history import ACCOUNT, LIST, OPEN, PLACE, Call, Recorder
from tests.chaos.http_client import Answer, Connection, NoAnswer

T = TypeVar("T")

PAGE_ORDERS = 200
REPEATED_MAX = 200
_READERS = 6
_ATTEMPTS = 5
_TIMEOUT_SECONDS = 10.0
_PAUSE_SECONDS = 0.5


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
        """The account, and all its orders page by page."""
        await self.call(ACCOUNT, "GET", f"/v1/accounts/{account}", account=account)
        cursor: str | None = None
        before: str | None = None
        while True:
            path = f"/v1/accounts/{account}/orders?limit={PAGE_ORDERS}"
            path += f"&cursor={cursor}" if cursor else ""
            answer = await self.call(
                LIST, "GET", path, account=account, limit=PAGE_ORDERS, before=before
            )
            shown = json.loads(answer.body)
            cursor = shown["next_cursor"]
            if cursor is None:
                return
            # The cursor itself says nothing to us: the page begins behind the last one's end.
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


def _accounts(calls: Iterable[Call]) -> list[int]:
    bodies = {call.body for call in calls if call.op == OPEN and call.status == 201 and call.body}
    return sorted({int(json.loads(body)["id"]) for body in bodies})


def _some_answered(calls: Iterable[Call]) -> list[Call]:
    answered = [call for call in calls if call.op == PLACE and call.status == 202 and call.key]
    return answered[:: max(1, len(answered) // REPEATED_MAX)]


async def _share_out(
    ports: Sequence[int],
    history: Path,
    work: Callable[[Reader, T], Awaitable[None]],
    things: Sequence[T],
) -> None:
    """Do ``work`` on all things, by some readers at once."""
    with history.open("w", encoding="utf-8") as file:
        recorder = Recorder(file)
        readers = [Reader(ports[number % len(ports)], recorder) for number in range(_READERS)]

        async def some(number: int, reader: Reader) -> None:
            for thing in things[number::_READERS]:
                await work(reader, thing)

        await asyncio.gather(*(some(number, reader) for number, reader in enumerate(readers)))
        for reader in readers:
            reader.close()
