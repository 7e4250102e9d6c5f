"""Models of the broker and of the cache, and the shapes under which real code meets them.

The broker loses, repeats, delays and reorders messages where its ``Habits`` say so. It hands out a
message again that nobody acknowledged in time, and forgets everything when it is flushed.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Self, cast

from tests.simulation.scheduler import Hub, Process, Signal
from tests.simulation.weather import BROKER, CACHE

_DELAY_SECONDS_MAX: Final = 3.0


@dataclass(frozen=True, slots=True)
class Habits:
    """Shares of messages that fare badly, and when an unacknowledged one comes back (seconds)."""

    loses: float = 0.0
    repeats: float = 0.0
    delays: float = 0.0
    reorders: float = 0.0
    visibility_seconds: float = 4.0


def brief(account_id: object, order_id: str) -> str:
    """An order's name without what all of a schedule share."""
    return f"{account_id}/{order_id[9:13]}..{order_id[-6:]}"


@dataclass(frozen=True, slots=True)
class Message:
    """What the API and the sweeper send."""

    names: tuple[str, ...]
    kwargs: Mapping[str, Any]
    headers: Mapping[str, str]

    def __str__(self) -> str:
        names = " ".join(brief(*name.split("/", 1)) for name in self.names)
        return f"<{names}{' suspect' if self.kwargs else ''}>"


@dataclass(slots=True)
class Broker:
    """The queue: the last of ``ready`` is next."""

    hub: Hub
    habits: Habits
    until: float
    ready: list[Message] = field(default_factory=list)
    unacked: dict[int, Message] = field(default_factory=dict)
    delayed: int = 0
    _tags: int = 0
    _waiting: list[Signal] = field(default_factory=list)
    _epoch: int = 0

    @property
    def is_empty(self) -> bool:
        return not (self.ready or self.unacked or self.delayed)

    def publish(self, message: Message) -> None:
        rng, habits = self.hub.rng, self.habits
        is_bad = self.hub.now < self.until
        if is_bad and rng.random() < habits.loses:
            self._count("messages lost", message)
            return
        if is_bad and rng.random() < habits.repeats:
            self._count("messages repeated", message)
            self._push_later(message, rng.random() * habits.visibility_seconds)
        if is_bad and rng.random() < habits.delays:
            self._count("messages delayed", message)
            self._push_later(message, rng.random() * _DELAY_SECONDS_MAX)
        else:
            self._push(message)

    def pop(self) -> tuple[int, Message] | None:
        if not self.ready:
            return None
        message = self.ready.pop()
        if self.hub.now < self.until and self.hub.rng.random() < self.habits.loses / 2:
            # Taken from the list, and not yet noted as taken.
            self._count("messages lost", message)
            return None
        self._tags += 1
        tag, epoch = self._tags, self._epoch
        self.unacked[tag] = message
        self.hub.at(self.habits.visibility_seconds, lambda: self._restore(tag, epoch))
        return tag, message

    def ack(self, tag: int) -> None:
        self.unacked.pop(tag, None)

    def flush(self) -> None:
        self.hub.counts["broker flushed"] += 1
        self.hub.note("broker", "FORGETS ALL")
        self.ready.clear()
        self.unacked.clear()
        self._epoch += 1

    def wait(self, seconds: float) -> None:
        """Let the current strand wait for a message."""
        if not self.ready:
            signal = Signal(self.hub)
            self._waiting.append(signal)
            signal.wait(seconds)

    def _push(self, message: Message) -> None:
        rng = self.hub.rng
        place = 0
        if self.hub.now < self.until and self.ready and rng.random() < self.habits.reorders:
            self._count("messages reordered", message)
            place = rng.randrange(len(self.ready) + 1)
        self.ready.insert(place, message)
        if self._waiting:
            self._waiting.pop(0).set()

    def _push_later(self, message: Message, seconds: float) -> None:
        self.delayed += 1

        def push() -> None:
            self.delayed -= 1
            self._push(message)

        self.hub.at(seconds, push)

    def _restore(self, tag: int, epoch: int) -> None:
        message = self.unacked.pop(tag, None) if epoch == self._epoch else None
        if message is not None:
            self._count("redeliveries", message)
            self._push(message)

    def _count(self, what: str, message: Message) -> None:
        self.hub.counts[what] += 1
        self.hub.note("broker", what, message)


class PublishingApp:
    """A Celery application, as far as ``TaskQueue`` uses one."""

    def __init__(self, broker: Broker, process: Process) -> None:
        self._broker = broker
        self._process = process

    def send_task(
        self,
        _name: str,
        *,
        args: tuple[Sequence[str]],
        kwargs: Mapping[str, Any],
        headers: Mapping[str, str],
        retry_policy: Mapping[str, Any],
        **_: Any,
    ) -> None:
        # Sorted, for the sender may have kept them in a set.
        message = Message(tuple(sorted(args[0])), kwargs, headers)
        if kwargs:
            self._process.hub.counts["suspects sent"] += 1
        attempts = 1 + int(retry_policy["max_retries"])
        for attempt in range(1, attempts + 1):
            try:
                self._process.call(
                    BROKER,
                    "publish",
                    lambda: self._broker.publish(message),
                    writes=True,
                    details=(message,),
                )
            except Exception:
                if attempt == attempts:
                    raise
            else:
                return


class BrokerLook:
    """A Redis client, as far as ``TaskQueue`` looks at the queue through one."""

    def __init__(self, broker: Broker, process: Process) -> None:
        self._broker = broker
        self._process = process

    def lindex(self, _name: str, place: int) -> str | None:
        def look() -> str | None:
            ready = self._broker.ready
            return json.dumps({"headers": dict(ready[place].headers)}) if ready else None

        return self._process.call(BROKER, "lindex", look, writes=False)

    def llen(self, _name: str) -> int:
        return self._process.call(BROKER, "llen", lambda: len(self._broker.ready), writes=False)


@dataclass(slots=True)
class CacheServer:
    """The cache's memory, shared by all processes."""

    hub: Hub
    keeps_turns: bool = True
    answers: dict[str, bytes] = field(default_factory=dict)
    forgotten: set[str] = field(default_factory=set)
    turns: dict[str, float] = field(default_factory=dict)
    """When each ends by itself."""

    def flush(self) -> None:
        self.hub.counts["cache flushed"] += 1
        self.hub.note("cache", "FORGETS ALL")
        self.forgotten.update(self.answers)
        self.answers.clear()
        self.turns.clear()

    def is_taken(self, turn: str) -> bool:
        return self.turns.get(turn, 0.0) > self.hub.now

    def take(self, turn: str, seconds: float) -> bool:
        if self.is_taken(turn):
            self.hub.counts["turns of others"] += 1
            return False
        if self.keeps_turns:
            self.turns[turn] = self.hub.now + seconds
        return True

    def end(self, turns: Sequence[str]) -> None:
        for turn in turns:
            self.turns.pop(turn, None)


class CacheClient:
    """A Redis client, as far as ``StatusCache``, ``Turns`` and one of ``bugs`` use one."""

    def __init__(self, server: CacheServer, process: Process) -> None:
        self._server = server
        self._process = process

    def get(self, key: str) -> bytes | None:
        found: bytes | None = self._call(
            "get", lambda: self._server.answers.get(key), key, writes=False
        )
        return found

    def mget(self, keys: Sequence[str]) -> list[bytes | None]:
        found: list[bytes | None] = self._call(
            "get all", lambda: [self._server.answers.get(key) for key in keys], *keys, writes=False
        )
        return found

    def set(self, key: str, body: bytes) -> None:
        self._call("set", lambda: self._server.answers.update({key: body}), key, writes=True)

    def exists(self, *keys: str) -> int:
        found: int = self._call(
            "look at turns", lambda: sum(map(self._server.is_taken, keys)), *keys, writes=False
        )
        return found

    def unlink(self, *keys: str) -> None:
        self._call("end turns", lambda: self._server.end(keys), *keys, writes=True)

    def pipeline(self, *, transaction: bool) -> "_Pipeline":
        assert not transaction
        return _Pipeline(self._server, self._call)

    def _call(self, name: str, effect: Callable[[], Any], *details: Any, writes: bool) -> Any:
        return self._process.call(CACHE, name, effect, writes=writes, details=details)


class _Pipeline:
    def __init__(self, server: CacheServer, call: Callable[..., Any]) -> None:
        self._server = server
        self._call = call
        self._sets: dict[str, bytes] = {}
        self._turns: dict[str, float] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._sets, self._turns = {}, {}

    def set(self, key: str, body: bytes, *, ex: int = 0, px: int = 0, nx: bool = False) -> None:
        """An answer that lives long, or a turn (``nx``) that lives shortly."""
        assert (px if nx else ex) > 0
        if nx:
            self._turns[key] = px / 1000
        else:
            self._sets[key] = body

    def execute(self, *, raise_on_error: bool = True) -> list[bool]:
        del raise_on_error  # here all commands of a call fail together
        sets, turns = self._sets, self._turns
        if sets:
            self._call(
                "set all", lambda: self._server.answers.update(sets), *sorted(sets), writes=True
            )
        if not turns:
            return [True] * len(sets)
        return cast(
            "list[bool]",
            self._call(
                "take turns",
                lambda: [self._server.take(*turn) for turn in turns.items()],
                *sorted(turns),
                writes=True,
            ),
        )
