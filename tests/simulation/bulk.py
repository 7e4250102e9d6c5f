"""A client that sends many orders in one request, and reads the answers as they come."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from shared.representation import to_json
from tests.simulation.checks import Answer, Request

if TYPE_CHECKING:
    from tests.simulation.world import ApiProcess, World

_LINES_MAX: Final = 7
_TRIES_MAX: Final = 6
_SECONDS_MAX: Final = 10.0
_NOT_AN_ORDER: Final = b'{"account_id": 1}'


@dataclass(frozen=True, slots=True)
class _Line:
    """A line, and the request that it is; None where it is no order."""

    text: bytes
    request: Request | None


def send(world: "World", name: str, account_id: int) -> None:
    """Send a handful of orders; with keys, until every line has a clear answer."""
    rng = world.rng
    key = f"many-{world.next_number()}" if rng.random() < 0.6 else None
    lines = _write(world, account_id, key)
    world.hub.counts["bulk requests"] += 1
    for attempt in range(_TRIES_MAX if key else 1):
        if attempt:
            world.clients.sleep(0.4 * rng.random())
        _try(world, name, lines, key)
        if all(line.request is None or line.request.order_id for line in lines):
            return


def _write(world: "World", account_id: int, key: str | None) -> list[_Line]:
    """Lines of one account or two, some repeated, and now and then one that is no order."""
    rng = world.rng
    other = rng.choice(world.accounts)
    lines: list[_Line] = []
    for number in range(1, rng.randint(2, _LINES_MAX) + 1):
        chance = rng.random()
        if chance < 0.05:
            lines.append(_Line(_NOT_AN_ORDER, None))
        elif chance < 0.2 and lines and b"idempotency_key" in lines[-1].text:
            lines.append(_Line(lines[-1].text, lines[-1].request))
        else:
            lines.append(_new_line(world, other if rng.random() < 0.2 else account_id, key, number))
    return lines


def _new_line(world: "World", account_id: int, key: str | None, number: int) -> _Line:
    fields: dict[str, Any] = {"account_id": account_id, **world.fields()}
    has_own_key = key is not None and world.rng.random() < 0.3
    request = world.request(account_id, fields, has_key=has_own_key)
    if has_own_key:
        fields["idempotency_key"] = request.key
    elif key is not None:
        request.key = f"{key}/{number}"
    return _Line(json.dumps(fields).encode(), request)


def _try(world: "World", name: str, lines: Sequence[_Line], key: str | None) -> None:
    rng = world.rng
    heard: list[bytes] = []
    leaves_after = rng.randrange(3) if rng.random() < world.scenario.answers_lost else None

    def call(api: "ApiProcess") -> Answer:
        pieces = api.place_many([line.text for line in lines], key)
        for number, piece in enumerate(pieces):
            heard.extend(piece.splitlines())
            if number == leaves_after:
                world.hub.counts["bulk clients gone"] += 1
                pieces.close()  # type: ignore[attr-defined]
                break
        return Answer(200)

    answer = world.http(name, call, "posts", len(lines), "lines", seconds_max=_SECONDS_MAX)
    if answer is not None and answer.status != 200:
        world.say(f"{name} was answered {answer} to {len(lines)} lines")
    if answer is None:
        heard = heard[: rng.randint(0, len(heard))]
    _read(world, name, lines, [json.loads(line) for line in heard])


def _read(world: "World", name: str, lines: Sequence[_Line], heard: Sequence[Any]) -> None:
    """Note each line's answer; the orders of one account are made in the sequence of the lines."""
    numbers = [one["line"] for one in heard]
    if numbers != list(range(1, len(heard) + 1)):
        world.say(f"{name} was answered for the lines {numbers}")
        return
    newest: dict[int, str] = {}
    for line, said in zip(lines, heard, strict=False):
        if line.request is None:
            if said["status"] != 422:
                world.say(f"{name} was answered {said} to a line that is no order")
            continue
        _hear(world, name, line.request, said)
        if said["status"] == 202 and not said.get("replayed"):
            order = said["order"]
            if order["id"] < newest.get(order["account_id"], ""):
                world.say(f"a line's order {order['id']} came before that of an earlier line")
            newest[order["account_id"]] = order["id"]
    for line in lines[len(heard) :]:
        if line.request is not None:
            world.hear(name, line.request, None)


def _hear(world: "World", name: str, request: Request, said: Any) -> None:
    if said["status"] == 202:
        body, made = to_json(said["order"]), said["order"]["id"]
        answer = Answer(202, body, made, is_repeated=bool(said.get("replayed")))
    else:
        answer = Answer(said["status"], detail=said["problem"]["detail"])
    world.hear(name, request, answer)
