"""One request, written into the history with what came of it."""

import time
from typing import Any

from tests.chaos.history import Call, Recorder
from tests.chaos.http_client import Answer, Connection, NoAnswer


async def ask_and_note(
    connection: Connection,
    recorder: Recorder,
    op: str,
    method: str,
    path: str,
    *,
    request: str = "",
    sent: str | None = None,
    key: str | None = None,
    **about: Any,
) -> Answer | None:
    """Send a request and write it down; None when no answer came."""
    start = time.monotonic()
    answer, trouble = None, None
    try:
        answer = await connection.ask(method, path, sent, key)
    except NoAnswer as error:
        trouble = str(error)
    recorder.add(
        Call(
            op,
            request,
            start,
            time.monotonic(),
            status=answer.status if answer else None,
            body=answer.body if answer else None,
            key=key,
            sent=sent,
            replayed=answer.replayed if answer else False,
            error=trouble,
            **about,
        )
    )
    return answer
