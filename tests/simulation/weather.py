"""What goes wrong outside: drawn for each call, and as outages that last a while."""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

from botocore.exceptions import ConnectionClosedError, EndpointConnectionError, ReadTimeoutError
from kombu.exceptions import OperationalError
from redis.exceptions import ConnectionError as RedisConnectionError

from tests.simulation.dynamodb import client_error

STORE: Final = "store"
BROKER: Final = "broker"
CACHE: Final = "cache"

_URL: Final = "http://model"
_TIMEOUT_SECONDS: Final = {STORE: 1.1, BROKER: 0.7, CACHE: 0.25}
_QUICK_SECONDS: Final = 0.02
_SLOW_SECONDS: Final = 0.8
_LATE_SECONDS: Final = 2.0


@dataclass(slots=True)
class Fate:
    """What becomes of one call: whether it takes effect, and what its caller sees."""

    answer_seconds: float
    happens: str = "now"
    error: Exception | None = None
    crashes: bool = False
    late_seconds: float = 0.0
    counted: tuple[str, ...] = ()

    def __str__(self) -> str:
        said = [] if self.happens == "now" else [f"happens: {self.happens}"]
        said += list(self.counted)
        return f"[{', '.join(said)}]" if said else ""


@dataclass(slots=True)
class Weather:
    """How often calls go wrong (shares of calls, by service) and when whole services are away."""

    rng: Random
    trouble: dict[str, float]
    until: float = 0.0
    outages: Sequence[tuple[str, float, float]] = ()
    slow: float = 0.04

    def fate(self, service: str, name: str, writes: bool, now: float, crash: float) -> Fate:
        """``crash`` is the share of its calls at which the caller dies."""
        rng = self.rng
        chance = rng.random()
        slow = rng.random()
        took = _SLOW_SECONDS * rng.random() if slow < self.slow else _QUICK_SECONDS * slow * slow
        fate = Fate(0.0002 + took)
        if now >= self.until:
            return fate
        if self.outages and any(
            who == service and start <= now < end for who, start, end in self.outages
        ):
            fate.happens, fate.error = "never", _refused(service, name)
            fate.counted = (f"{service} away",)
            return fate
        if chance < crash:
            fate.crashes = True
            self._half_way(fate, writes)
            return fate
        if chance - crash < self.trouble.get(service, 0.0):
            self._fail(fate, service, name, writes)
        return fate

    def _half_way(self, fate: Fate, writes: bool) -> None:
        """Whether a call whose answer nobody gets took effect: now, later or never."""
        choice = self.rng.random()
        if choice < 0.4:
            fate.happens = "never"
        elif choice > 0.8 and writes:
            fate.happens = "late"
            fate.late_seconds = _LATE_SECONDS * self.rng.random()
            fate.counted += ("late writes",)

    def _fail(self, fate: Fate, service: str, name: str, writes: bool) -> None:
        choice = self.rng.random()
        if choice < 0.5:
            self._lose_answer(fate, service, name, writes)
            return
        fate.happens = "never"
        if service == STORE and choice < 0.7:
            fate.error = client_error("ThrottlingException", "slow down")
            fate.counted = ("throttled",)
        elif service == STORE and writes and choice < 0.85:
            fate.error = _busy(name)
            fate.counted = ("transaction conflicts",)
        else:
            fate.error = _refused(service, name)
            fate.counted = (f"{service} refused",)

    def _lose_answer(self, fate: Fate, service: str, name: str, writes: bool) -> None:
        self._half_way(fate, writes)
        fate.counted += (f"{service} answers lost",)
        if self.rng.random() < 0.3:
            fate.answer_seconds = _TIMEOUT_SECONDS[service]
            fate.error = _timed_out(service, name)
        elif service == STORE and self.rng.random() < 0.5:
            fate.error = client_error("InternalServerError", "a bad day", status=500)
        else:
            fate.error = _closed(service, name)


def _refused(service: str, name: str) -> Exception:
    if service == STORE:
        return _typed(EndpointConnectionError(endpoint_url=_URL))
    return _closed(service, name)


def _timed_out(service: str, name: str) -> Exception:
    if service == STORE:
        return _typed(ReadTimeoutError(endpoint_url=_URL))
    return _closed(service, name)


def _closed(service: str, name: str) -> Exception:
    if service == STORE:
        return _typed(ConnectionClosedError(endpoint_url=_URL))
    broke = OperationalError if name == "publish" else RedisConnectionError
    return _typed(broke("the connection broke"))


def _busy(name: str) -> Exception:
    if name == "transact_write_items":
        reasons = [{"Code": "TransactionConflict"}]
        return _typed(client_error("TransactionCanceledException", "busy", reasons=reasons))
    return _typed(client_error("TransactionConflictException", "busy"))


def _typed(error: object) -> Exception:
    """The libraries' errors come untyped."""
    assert isinstance(error, Exception)
    return error
