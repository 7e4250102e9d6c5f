"""The protocol under everything that may go wrong, by the seed; and what happens to bugs in it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation import patches, runner
from tests.simulation.bugs import BUGS
from tests.simulation.runner import Summary
from tests.simulation.scenario import KINDS

SCHEDULES = 10_000
BUG_SCHEDULES = 2_000
"""Each seeded bug has to show within so many schedules."""

PROMISED_SECONDS = 120.0
"""How long the schedules take on two cores; on one, twice as long."""

SLACK = 2.0
"""Machines are noisy."""

MISTAKE_IN_A_PATCH = re.compile(
    r"\b(TypeError|AttributeError|NameError|UnboundLocalError|KeyError|IndexError|ValueError"
    r"|AssertionError|RuntimeError)\("
)
"""What a bug that no longer fits the product would raise, where it should do harm in silence."""

REPLAYED = range(40)
ROOT = Path(__file__).parents[2]

MUST_HAPPEN = (
    "answers 202",
    "answers 404",
    "answers 422",
    "answers 503",
    "broker answers lost",
    "broker away",
    "broker flushed",
    "broker refused",
    "cache answers lost",
    "cache away",
    "cache flushed",
    "cache refused",
    "cancellations refused",
    "cancelled by clients",
    "cancels",
    "clients without an answer",
    "crashes",
    "POISON orders",
    "PUZZLE orders",
    "bulk clients gone",
    "bulk requests",
    "events",
    "keys on their way",
    "idempotent replays",
    "keys unprocessed",
    "late writes",
    "messages delayed",
    "messages given up",
    "messages lost",
    "messages of lost children",
    "messages reordered",
    "messages repeated",
    "orders cancelled",
    "orders executed",
    "orders rejected",
    "outages",
    "parkings",
    "redeliveries",
    "repeated transactions",
    "replays",
    "store answers lost",
    "store away",
    "store refused",
    "suspects sent",
    "throttled",
    "torn reads",
    "transaction conflicts",
    "turns of others",
    *(f"kind: {kind}" for kind in KINDS),
)


@pytest.fixture(scope="module")
def summary() -> Summary:
    return runner.run_many(0, SCHEDULES, processes=os.cpu_count() or 1)


def traces(seeds: range) -> str:
    with patches.installed():
        return "\n".join(runner.write_report(runner.run_one(seed)) for seed in seeds)


@pytest.mark.schedules
@pytest.mark.timeout(600)
class TestTenThousandSchedules:
    def test_every_promise_is_kept_in_ten_thousand_schedules(self, summary: Summary) -> None:
        assert summary.schedules == SCHEDULES
        if summary.failed:
            first = summary.failed[0]
            pytest.fail(
                f"seeds {summary.failed} fail; the first:\n{traces(range(first, first + 1))}"
            )

    def test_everything_that_may_go_wrong_went_wrong_in_them(self, summary: Summary) -> None:
        assert not [what for what in MUST_HAPPEN if not summary.counts[what]]

    def test_they_take_no_longer_than_promised(self, summary: Summary) -> None:
        scale = 2 / min(2, os.cpu_count() or 1)
        sys.stdout.write(f" {summary.schedules} schedules in {summary.seconds:.0f} s ")

        assert 0 < summary.seconds < PROMISED_SECONDS * scale * SLACK


def test_a_seed_is_a_schedule_to_the_byte() -> None:
    assert traces(REPLAYED) == traces(REPLAYED)


def test_a_seed_is_the_same_schedule_in_another_process() -> None:
    code = (
        "from tests.simulation.test_simulation import REPLAYED, traces;"
        " import sys; sys.stdout.write(traces(REPLAYED))"
    )
    here = traces(REPLAYED)
    for hash_seed in ("1", "2"):
        there = subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            check=True,
            timeout=60,
        ).stdout.decode()
        assert there == here


def test_a_trace_says_how_to_replay_it() -> None:
    with patches.installed():
        report = runner.write_report(runner.run_one(123))

    assert report.endswith("replay with: make simulate SEED=123")


@pytest.mark.parametrize("name", sorted(BUGS))
def test_a_seeded_bug_is_found(name: str) -> None:
    bug = BUGS[name]
    failed = runner.failures_until(bug.is_shown_by, range(BUG_SCHEDULES), bug.put_in)

    problems = [problem for report in failed for problem in report.problems]
    assert not [problem for problem in problems if MISTAKE_IN_A_PATCH.search(problem)]
    assert failed, f"{BUG_SCHEDULES} schedules did not fail with {name}"
    assert bug.is_shown_by(failed[-1]), f"{BUG_SCHEDULES} schedules did not show {bug.problem!r}"


def test_a_seeded_bug_leaves_the_product_as_it_was() -> None:
    for bug in BUGS.values():
        with bug.put_in():
            pass

    assert not runner.failures_until(lambda _: True, range(20))
