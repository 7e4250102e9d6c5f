"""What the product takes from the machine, taken from the running schedule instead."""

import random
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Final
from unittest.mock import patch
from uuid import UUID

from greenlet import getcurrent

import api.acceptance
import api.bulk
import api.group_commit
import api.status
import api.turns
import shared.domain.decision
import shared.ids
import shared.order_store.commits
import shared.order_store.decisions
import shared.order_store.keys
import shared.order_store.parking
import shared.order_store.reads
import shared.replay_cache
import shared.status_cache
import worker.app
import worker.processing
import worker.sweeper
import worker.turns
from shared.domain.account import Account
from shared.domain.decision import Decision, Rules
from shared.domain.order import Order
from tests.simulation.scheduler import Hub, Signal, Strand
from tests.simulation.world import POISON, PUZZLE

SHARDS: Final = 2
"""Instead of 16: sweeping the empty ones would take most of a schedule's time."""

BULK_ACTIONS_MAX: Final = 9
BULK_MESSAGE_ORDERS_MAX: Final = 3
"""Instead of 100, so that a bulk request of a few lines needs several of each."""

_UNEXPECTED: Final = frozenset(
    {
        "account_unreadable",
        "decisions_missing",
        "entry_refused",
        "order_undecidable",
        "settlement_refused",
    }
)
"""Log events that nothing in a schedule can cause but a bug: no item is ever damaged."""

_LOGGING: Final = (
    api.acceptance,
    api.bulk,
    shared.order_store.decisions,
    shared.replay_cache,
    shared.status_cache,
    worker.app,
    worker.processing,
    worker.sweeper,
    worker.turns,
)
_UUIDS: Final = (
    api.acceptance,
    shared.order_store.commits,
    shared.order_store.parking,
    worker.processing,
)


class _Running:
    """The schedule that runs now (one at a time in a process)."""

    hub: Hub


running: Final = _Running()


def _strand() -> Strand:
    strand = getcurrent()
    assert isinstance(strand, Strand)
    return strand


def _uuid4() -> UUID:
    return UUID(int=running.hub.rng.getrandbits(128), version=4)


class PuzzledError(Exception):
    """The rules cannot be applied to an order."""


_decide = shared.domain.decision.decide


def _decide_or_die(account: Account, order: Order, rules: Rules) -> tuple[Account, Decision]:
    hub, process = running.hub, _strand().process
    if order.issuer_name in (POISON, PUZZLE) and hub.now < hub.mended_at:
        hub.counts[f"{order.issuer_name} orders"] += 1
        if order.issuer_name == PUZZLE:
            raise PuzzledError
        hub.crash(process)
    return _decide(account, order, rules)


class _Secrets:
    @staticmethod
    def randbits(count: int) -> int:
        return running.hub.rng.getrandbits(count)


class _Condition:
    """As in threading; nothing is held, for a strand hands over at its waits alone."""

    def __init__(self) -> None:
        self._signal = Signal(running.hub)

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...

    def wait_for(self, is_met: Callable[[], bool], timeout: float) -> bool:
        until = running.hub.now + timeout
        while not is_met() and (left := until - running.hub.now) > 0:
            self._signal.clear()
            self._signal.wait(left)
        return is_met()

    def notify_all(self) -> None:
        self._signal.set()


class _Threading:
    Lock = staticmethod(threading.Lock)
    Condition = _Condition

    @staticmethod
    def Event() -> Signal:  # noqa: N802 - as in threading
        return Signal(running.hub)


class _Clock:
    @staticmethod
    def now(_zone: Any) -> datetime:
        return _strand().process.clock()


class _Log:
    """A logger whose lines stand in the trace."""

    def info(self, event: str, **fields: Any) -> None:
        self._note(event, fields)

    warning = info

    def error(self, event: str, **fields: Any) -> None:
        self._note(event, fields)

    def exception(self, event: str, **fields: Any) -> None:
        kind, error, _ = sys.exc_info()
        note = {**fields, "error": repr(error) if kind else None}
        self._note(event, note, is_expected=isinstance(error, PuzzledError))
        if not isinstance(error, PuzzledError):
            running.hub.errors.append(f"logged with a traceback: {event} {fields} {error!r}")

    def _note(self, event: str, fields: dict[str, Any], *, is_expected: bool = False) -> None:
        strand = getcurrent()
        who = strand.process.name if isinstance(strand, Strand) else "world"
        running.hub.note(who, "logs", event, fields)
        if event in _UNEXPECTED and not is_expected:
            running.hub.errors.append(f"logged: {event} {fields}")


@contextmanager
def installed() -> Iterator[None]:
    """Have the product in this process run on simulated chance, time and logs."""
    state = random.getstate()
    changes: list[tuple[Any, str, Any]] = [
        (shared.ids, "secrets", _Secrets),
        (api.bulk, "TRANSACTION_ACTIONS_MAX", BULK_ACTIONS_MAX),
        (api.bulk, "MESSAGE_ORDERS_MAX", BULK_MESSAGE_ORDERS_MAX),
        (api.group_commit, "threading", _Threading),
        (api.turns, "threading", _Threading),
        (api.status, "_let_others_come", lambda: running.hub.pause(0.0)),
        (shared.order_store.keys, "UNDECIDED_SHARDS", SHARDS),
        (shared.order_store.reads, "UNDECIDED_SHARDS", SHARDS),
        (worker.processing, "decide", _decide_or_die),
        (worker.app, "datetime", _Clock),
        (worker.app, "settler", lambda: _strand().process.settler),  # type: ignore[attr-defined]
        (worker.app, "queue", lambda: _strand().process.queue),  # type: ignore[attr-defined]
        *((module, "uuid4", _uuid4) for module in _UUIDS),
        *((module, "log", _Log()) for module in _LOGGING),
    ]
    patches = [patch.object(module, name, value) for module, name, value in changes]
    for one in patches:
        one.start()
    try:
        yield
    finally:
        for one in reversed(patches):
            one.stop()
        random.setstate(state)
