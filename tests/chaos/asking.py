"""One request, written into the history with what came of it."""

import time
from collections.abc import Mapping
from dataclasses import replace
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
    headers: Mapping[str, str] | None = None,
    held: str | None = None,
    **about: Any,
) -> Answer | None:
    """Send a request and write it down; None when no answer came.

    ``held`` is the body that a 304 stands for.
    """
    start = time.monotonic()
    answer, trouble, part = None, None, None
    told = {"Idempotency-Key": key} if key is not None else {}
    try:
        answer = await connection.ask(method, path, sent, told | dict(headers or {}))
    except NoAnswer as error:
        trouble, part = str(error), error.part or None
    if answer is not None and answer.status == 304:
        answer = replace(answer, body=held or "")
    recorder.add(
        Call(
            op,
            request,
            start,
            time.monotonic(),
            status=answer.status if answer else None,
            body=answer.body if answer else part,
            key=key,
            sent=sent,
            replayed=answer.replayed if answer else False,
            error=trouble,
            **about,
        )
    )
    return answer
