"""What the garbage collector has to look at."""

import gc
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest

import worker.app
from api import gunicorn_conf
from shared import garbage
from shared.settings import Settings


@pytest.fixture
def unfrozen() -> Iterator[None]:
    gc.unfreeze()
    yield
    gc.unfreeze()


def test_what_lives_is_looked_at_no_more(unfrozen: None) -> None:
    kept: list[list[int]] = [[] for _ in range(1000)]
    before = len(gc.get_objects())
    garbage.spare_what_lives()
    assert len(gc.get_objects()) < before / 10
    assert gc.get_freeze_count() > len(kept)


@pytest.mark.parametrize(
    "ready",
    [lambda: gunicorn_conf.post_worker_init(cast("Any", None)), worker.app._spare_what_lives],
    ids=["api", "worker"],
)
def test_a_process_spares_what_lives_when_it_is_ready(
    unfrozen: None, ready: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gunicorn_conf, "_settings", Settings(metrics=False))
    ready()
    assert gc.get_freeze_count() > 1000
