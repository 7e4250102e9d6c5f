"""The task: what is left of a message goes back to the queue."""

from collections.abc import Sequence
from datetime import datetime
from types import SimpleNamespace

import pytest

import worker.app
from shared.ids import OrderRef
from shared.task_queue import QueueUnavailable
from tests.unit.factories import order_id

LEFT = [(1, order_id(2))]


@pytest.mark.parametrize("left", [[], LEFT])
@pytest.mark.parametrize("is_broker_away", [False, True])
def test_what_others_kept_changing_is_sent_again(
    monkeypatch: pytest.MonkeyPatch, left: list[OrderRef], is_broker_away: bool
) -> None:
    sent: list[tuple[list[OrderRef], Sequence[str]]] = []

    def publish(refs: list[OrderRef], _now: datetime, *, origins: Sequence[str]) -> None:
        sent.append((refs, origins))
        if is_broker_away:
            raise QueueUnavailable("away")

    settler = SimpleNamespace(settle=lambda _refs, **_: left)
    monkeypatch.setattr(worker.app, "settler", lambda: settler)
    monkeypatch.setattr(worker.app, "queue", lambda: SimpleNamespace(publish=publish))

    worker.app._settle([f"1/{order_id(1)}"], suspect=False, origins=["one"])

    assert sent == ([(left, ["one"])] if left else [])
