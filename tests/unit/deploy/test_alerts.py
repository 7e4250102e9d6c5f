"""Alert rules: each one fires for its cause and rests without, and has its page in the runbooks."""

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from shared.metrics import Counter, Histogram, recorders
from tests.prometheus import ALERTS, ROOT, program, rules

RUNBOOKS = ROOT / "docs" / "runbooks.md"
CONFIG = ALERTS.with_name("prometheus.yml")

Series = dict[str, str]

BUCKETS = "orders_http_request_seconds_bucket{waits='no',route='/x',"
COUNT = "orders_http_request_seconds_count{route='/x',"
DECISIONS = "orders_decision_seconds_bucket{"
STORE = "orders_dependency_errors_total{dependency='store',"
ERRORS = "orders_dependency_errors_total{dependency="


@dataclass(frozen=True)
class Case:
    """Values, a minute apart, at which an alert fires, and others at which it does not."""

    fires: Series
    rests: Series


CASES = {
    "ApiDown": Case({"up{job='orders-api'}": "0x20"}, {"up{job='orders-api'}": "1x20"}),
    "ApiInstanceDown": Case(
        {"up{job='orders-api',instance='a'}": "0x20", "up{job='orders-api',instance='b'}": "1x20"},
        {"up{job='orders-api',instance='a'}": "1x20", "up{job='orders-worker'}": "0x20"},
    ),
    "ApiErrors": Case(
        {
            COUNT + "status='200'}": "0+980x20",
            COUNT + "status='503'}": "0+10x20",
            "orders_http_refused_total{status='503'}": "0+10x20",
        },
        {
            COUNT + "status='200'}": "0+1000x20",
            COUNT + "status='404'}": "0+500x20",
            COUNT + "status='500'}": "0+5x20",
            "orders_http_refused_total{status='503'}": "0+0x20",
            "orders_http_refused_total{status='413'}": "0+500x20",
            "orders_http_request_seconds_count{route='/readyz',status='503'}": "0+600x20",
        },
    ),
    "ApiSlow": Case(
        {
            BUCKETS + "le='1'}": "0+98x20",
            BUCKETS + "le='5'}": "0+100x20",
            BUCKETS + "le='+Inf'}": "0+100x20",
        },
        {
            BUCKETS + "le='1'}": "0+1000x20",
            BUCKETS + "le='+Inf'}": "0+1005x20",
            BUCKETS.replace("no", "yes") + "le='1'}": "0+0x20",
            BUCKETS.replace("no", "yes") + "le='+Inf'}": "0+900x20",
        },
    ),
    "ApiCrowded": Case(
        {
            "orders_http_places_in_use{instance='a'}": "60x20",
            "orders_http_places{instance='a'}": "64x20",
        },
        {
            "orders_http_places_in_use{instance='a'}": "50x20",
            "orders_http_places{instance='a'}": "64x20",
        },
    ),
    "OrdersWait": Case(
        {"orders_oldest_undecided_seconds": "31x20"}, {"orders_oldest_undecided_seconds": "30x20"}
    ),
    "QueueDeep": Case({"orders_queue_messages": "1001x20"}, {"orders_queue_messages": "1000x20"}),
    "DecisionsSlow": Case(
        {
            DECISIONS + "le='5'}": "0+98x20",
            DECISIONS + "le='30'}": "0+100x20",
            DECISIONS + "le='+Inf'}": "0+100x20",
        },
        {DECISIONS + "le='5'}": "0+1000x20", DECISIONS + "le='+Inf'}": "0+1005x20"},
    ),
    "OrdersParked": Case({"orders_parked": "1x20"}, {"orders_parked": "0x20"}),
    "OrdersSentAgain": Case(
        {"orders_sent_again_total": "0+1x20"}, {"orders_sent_again_total": "7x20"}
    ),
    "CommitConflicts": Case(
        {
            "orders_commit_conflicts_total": "0+60x20",
            "orders_settlement_orders_count": "0+100x20",
        },
        {
            "orders_commit_conflicts_total": "0+40x20",
            "orders_settlement_orders_count": "0+100x20",
        },
    ),
    "WorkerDown": Case(
        {"up{job='orders-worker',instance='a'}": "0x20", "up{job='orders-api'}": "1x20"},
        {
            "up{job='orders-worker',instance='a'}": "0x20",
            "up{job='orders-worker',instance='b'}": "1x20",
        },
    ),
    "SweeperDown": Case({"up{job='orders-worker'}": "1x20"}, {"up{job='orders-sweeper'}": "1x20"}),
    "SweeperStuck": Case(
        {
            "orders_sweeps_total{outcome='done'}": "9x20",
            "orders_sweeps_total{outcome='failed'}": "0+30x20",
        },
        {
            "orders_sweeps_total{outcome='done'}": "0+1x20",
            "orders_sweeps_total{outcome='failed'}": "0+30x20",
        },
    ),
    "StoreUnavailable": Case(
        {STORE + "kind='unavailable'}": "0+2x20", STORE + "kind='unknown'}": "0+2x20"},
        {STORE + "kind='unavailable'}": "0+2x20", STORE + "kind='throttled'}": "0+9x20"},
    ),
    "StoreThrottled": Case(
        {STORE + "kind='throttled'}": "0+4x20"},
        {STORE + "kind='throttled'}": "0+2x20", STORE + "kind='unknown'}": "0+9x20"},
    ),
    "BrokerUnavailable": Case(
        {ERRORS + "'broker',kind='publish'}": "0+4x20"}, {ERRORS + "'cache',kind='read'}": "0+9x20"}
    ),
    "CacheUnavailable": Case(
        {ERRORS + "'cache',kind='read'}": "0+4x20"}, {ERRORS + "'broker',kind='look'}": "0+9x20"}
    ),
}

AT = "15m"


def names() -> set[str]:
    return {rule["alert"] for rule in rules()}


def judged(tmp_path: Path, tests: list[dict[str, Any]]) -> subprocess.CompletedProcess[str]:
    """What promtool says of the rules."""
    asked = {
        "rule_files": [str(ALERTS)],
        "evaluation_interval": "1m",
        "tests": tests,
    }
    file = tmp_path / "tests.yml"
    file.write_text(yaml.safe_dump(asked))
    command = [program("promtool"), "test", "rules", str(file)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_of(name: str, series: Series, *, fires: bool) -> dict[str, Any]:
    """A test of one alert as promtool wants it."""
    rule = next(rule for rule in rules() if rule["alert"] == name)
    labels = PER_INSTANCE.get(name, {})
    expected = [{"exp_labels": rule["labels"] | labels, "exp_annotations": rule["annotations"]}]
    return {
        "interval": "1m",
        "input_series": [{"series": one, "values": values} for one, values in series.items()],
        "alert_rule_test": [
            {"eval_time": AT, "alertname": name, "exp_alerts": expected if fires else []}
        ],
    }


test_of.__test__ = False  # type: ignore[attr-defined]

PER_INSTANCE = {
    "ApiInstanceDown": {"job": "orders-api", "instance": "a"},
    "ApiCrowded": {"instance": "a"},
}


def test_every_alert_is_tested() -> None:
    assert set(CASES) == names()


@pytest.mark.parametrize("name", CASES)
def test_an_alert_fires_for_its_cause(name: str, tmp_path: Path) -> None:
    said = judged(tmp_path, [test_of(name, CASES[name].fires, fires=True)])

    assert said.returncode == 0, said.stdout + said.stderr


@pytest.mark.parametrize("name", CASES)
def test_an_alert_rests_without_its_cause(name: str, tmp_path: Path) -> None:
    said = judged(tmp_path, [test_of(name, CASES[name].rests, fires=False)])

    assert said.returncode == 0, said.stdout + said.stderr


def test_promtool_does_say_when_an_alert_is_not_as_expected(tmp_path: Path) -> None:
    said = judged(tmp_path, [test_of("ApiDown", CASES["ApiDown"].rests, fires=True)])

    assert said.returncode != 0
    assert "ApiDown" in said.stdout + said.stderr


def test_every_alert_says_what_is_wrong_and_where_to_read_on() -> None:
    headings = re.findall(r"^## (\w+)$", RUNBOOKS.read_text(), re.MULTILINE)

    assert set(headings) == names()
    for rule in rules():
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert rule["annotations"]["runbook"] == f"docs/runbooks.md#{rule['alert'].lower()}"
        assert len(rule["annotations"]["summary"]) > 20


@pytest.mark.parametrize("part", ["What users see", "What to look at", "What to do"])
def test_every_runbook_has_its_three_parts(part: str) -> None:
    sections = re.split(r"^## ", RUNBOOKS.read_text(), flags=re.MULTILINE)[1:]

    assert len(sections) == len(names())
    assert [section.split("\n")[0] for section in sections if f"**{part}**" not in section] == []


def test_alerts_and_their_metrics_fit_together() -> None:
    known = set(exposed())
    used = {name for rule in rules() for name in re.findall(r"\borders_\w+", rule["expr"])}

    assert used
    assert used - known == set()


def exposed() -> Iterator[str]:
    """The names under which Prometheus gets the metrics."""
    for recorder in recorders():
        if isinstance(recorder, Histogram):
            yield from (recorder.name + ending for ending in ("_bucket", "_count", "_sum"))
        else:
            yield recorder.name


def test_what_alerts_wait_for_is_there_before_it_happens() -> None:
    """A counter that appears with its first event shows no increase, and that event is lost."""
    without = [
        recorder.name
        for recorder in recorders()
        if isinstance(recorder, Counter)
        and not recorder.known
        and any(recorder.name in rule["expr"] for rule in rules())
    ]

    assert without == []


def test_alerts_name_the_jobs_that_are_scraped() -> None:
    jobs = {job["job_name"] for job in yaml.safe_load(CONFIG.read_text())["scrape_configs"]}
    named = {job for rule in rules() for job in re.findall(r'job="([\w-]+)"', rule["expr"])}

    assert named == jobs
