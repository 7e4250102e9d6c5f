"""A stream of an account's events, written into the history as they come."""

import json
import time

from tests.chaos.history import EVENT, Call, Recorder
from tests.chaos.http_client import Connection, NoAnswer

SILENCE_SECONDS = 14.0
"""Streams say something every 10 s."""

FROM_THE_BEGINNING = "0"


def begin(recorder: Recorder, name: str, account: int) -> str:
    """Note that a stream is wanted from the account's first order on, even if it never speaks.

    Returns:
        The place to follow it from.
    """
    now = time.monotonic()
    # Without a status: it is no answer yet.
    recorder.add(Call(EVENT, name, now, now, account=account, place=FROM_THE_BEGINNING))
    return FROM_THE_BEGINNING


async def follow(
    connection: Connection,
    recorder: Recorder,
    name: str,
    account: int,
    last: str,
    silence_seconds: float = SILENCE_SECONDS,
) -> str:
    """Note every event after the one with the id ``last``, until the stream breaks off.

    Returns:
        The id of the last event, to go on from.
    """
    path = f"/v1/accounts/{account}/events?last_event_id={last}"
    text = b""
    start, status, why = time.monotonic(), 200, "ended"
    try:
        async for piece in connection.stream(path, silence_seconds):
            *blocks, text = (text + piece).split(b"\n\n")
            for block in blocks:
                last = _note(recorder, name, account, block.decode(), start) or last
    except NoAnswer as error:
        why = str(error)
        status = int(why) if why.isdigit() else 200
    if status not in (200, 503):
        recorder.add(Call(EVENT, name, start, time.monotonic(), status, account=account))
    return last


def _note(recorder: Recorder, name: str, account: int, block: str, start: float) -> str | None:
    """Write an event down; returns its id, if the block has one."""
    fields = dict(line.partition(": ")[::2] for line in block.split("\n"))
    place, body = fields.get("id"), fields.get("data")
    if body is not None:
        recorder.add(_event(name, account, body, place, start))
    return place


def _event(name: str, account: int, body: str, place: str | None, start: float) -> Call:
    order = json.loads(body)["id"]
    now = time.monotonic()
    return Call(EVENT, name, start, now, 200, body, account=account, order=order, place=place)
