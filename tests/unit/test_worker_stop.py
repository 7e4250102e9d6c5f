"""The end of a worker is bounded, and asking for it again gives no more time."""

import signal
from collections.abc import Callable
from typing import Any

import pytest
from celery.signals import worker_shutting_down

from worker.app import STOP_SECONDS_MAX


class Alarm:
    """The process' alarm, which goes off when a test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seconds_left = 0.0
        self.handler: Callable[..., Any] | None = None
        monkeypatch.setattr(signal, "getitimer", lambda _which: (self.seconds_left, 0.0))
        monkeypatch.setattr(signal, "setitimer", self._set)
        monkeypatch.setattr(signal, "signal", self._handle)

    def _set(self, _which: int, seconds: float) -> None:
        self.seconds_left = seconds

    def _handle(self, number: int, handler: Callable[..., Any]) -> None:
        assert number == signal.SIGALRM
        self.handler = handler


@pytest.fixture
def alarm(monkeypatch: pytest.MonkeyPatch) -> Alarm:
    return Alarm(monkeypatch)


def ask_to_stop(how: str = "Warm") -> None:
    worker_shutting_down.send("a worker", sig="SIGTERM", how=how, exitcode=0)


def test_a_stop_has_its_time_and_asking_again_gives_no_more(alarm: Alarm) -> None:
    ask_to_stop()
    assert alarm.seconds_left == STOP_SECONDS_MAX
    first = alarm.handler
    alarm.seconds_left = 1.5
    ask_to_stop()
    assert alarm.seconds_left == 1.5
    assert alarm.handler is first


def test_a_quick_stop_needs_no_limit(alarm: Alarm) -> None:
    ask_to_stop("Cold")
    assert alarm.seconds_left == 0
    assert alarm.handler is None
