"""Whole schedules with an engine beside the model: what the product asked is answered alike.

``test_table_model.py`` compares calls that somebody thought of; here they are those that the
product makes, under everything that may go wrong. A seed runs the same schedule as without it.
"""

import itertools
from collections.abc import Callable
from typing import Any

import boto3
import pytest
from botocore.config import Config

from tests.simulation import patches, runner
from tests.simulation.dynamodb import Table
from tests.simulation.mirror import Mirror
from tests.simulation.scenario import KINDS
from tests.stack import Engines

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

SCHEDULES_OF_A_KIND = 20

MUST_BE_COMPARED = (
    "TransactionCanceledException",
    "batch_get_item",
    "get_item",
    "query",
    "transact_write_items",
    "update_item",
    "whole tables",
)

_numbers = itertools.count()


@pytest.fixture(scope="module")
def client(engines: Engines) -> Any:
    return boto3.session.Session().client(
        "dynamodb",
        endpoint_url=engines.dynamodb_url,
        region_name="us-east-1",
        aws_access_key_id="local",
        aws_secret_access_key="local",
        config=Config(
            retries={"mode": "standard", "total_max_attempts": 1}, parameter_validation=False
        ),
    )


@pytest.fixture
def mirror(client: Any) -> Mirror:
    return Mirror(client, f"mirror-{next(_numbers)}")


def run(mirror: Mirror, seeds: range, kind: str | None = None) -> list[str]:
    """Traces of the schedules of ``seeds``; they keep every promise."""
    with patches.installed(), mirror.installed():
        reports = [runner.run_one(seed, kind) for seed in seeds]
    mirror.compare_tables()
    assert [problem for report in reports for problem in report.problems] == []
    return [runner.write_report(report) for report in reports]


def test_the_engine_answers_whole_schedules_as_the_model_does(client: Any) -> None:
    mirror = Mirror(client, f"mirror-{next(_numbers)}")
    for kind in KINDS:
        run(mirror, range(SCHEDULES_OF_A_KIND), kind)
    assert mirror.differences == []
    assert [what for what in MUST_BE_COMPARED if not mirror.compared[what]] == []


def test_a_seed_is_the_same_schedule_with_an_engine_beside_it(mirror: Mirror) -> None:
    with patches.installed():
        alone = [runner.write_report(runner.run_one(seed)) for seed in range(2)]
    assert run(mirror, range(2)) == alone


def test_an_engine_that_answers_otherwise_is_found_out(
    mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Table, "_commit", forgetful(Table._commit))
    with patches.installed(), mirror.installed():
        runner.run_one(1)
    mirror.compare_tables()
    assert mirror.differences


def forgetful(commit: Callable[..., None]) -> Callable[..., None]:
    """A table that loses the last change of each long transaction."""

    def commit_some(self: Table, changes: Any) -> None:
        commit(self, changes[:-1] if len(changes) > 2 else changes)

    return commit_some
