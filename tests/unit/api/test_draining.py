"""What an instance that drains says."""

import json
import math
import time
from threading import Event

import pytest

from api import draining
from tests.unit.api.parts import Api, json_of, order_body


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process of its own, as far as draining goes."""
    monkeypatch.setattr(draining, "_draining", Event())
    monkeypatch.setattr(draining, "_ends_at", math.inf)


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


def test_what_could_not_be_answered_before_the_end_is_refused_whole(api: Api) -> None:
    account_id = api.open_account()
    draining.begin(time.monotonic() + 0.01)
    time.sleep(0.01)
    order = {"account_id": account_id, **order_body()}

    alone = api.post(f"/v1/accounts/{account_id}/orders", order_body())
    lines = "\n".join([json.dumps(order)] * 300)
    bulk = api.http.post("/v1/orders/bulk", data=lines, content_type="application/x-ndjson")

    assert alone.status_code == 503
    assert [json.loads(line)["status"] for line in bulk.text.splitlines()] == [503] * 300


def test_what_has_time_enough_before_the_end_is_accepted(api: Api) -> None:
    account_id = api.open_account()
    draining.begin(time.monotonic() + 60)

    assert api.post(f"/v1/accounts/{account_id}/orders", order_body()).status_code == 202
