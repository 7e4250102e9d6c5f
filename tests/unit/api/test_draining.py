"""What an instance that drains says."""

from threading import Event

import pytest

from api import draining
from tests.unit.api.parts import Api, json_of


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process of its own, as far as draining goes."""
    monkeypatch.setattr(draining, "_draining", Event())


def test_a_draining_instance_is_not_ready_though_all_it_needs_is_there(api: Api) -> None:
    assert api.get("/readyz").status_code == 200

    draining.begin()
    answer = api.get("/readyz")

    assert answer.status_code == 503
    assert json_of(answer) == {"status": "draining"}


def test_a_draining_instance_lives_and_takes_orders_in(api: Api) -> None:
    draining.begin()

    assert api.get("/healthz").status_code == 200
    assert api.open_account() >= 1


def test_a_draining_instance_asks_nobody_whether_it_is_ready(api: Api) -> None:
    draining.begin()
    api.store.calls.clear()

    api.get("/readyz")

    assert api.store.calls == []
