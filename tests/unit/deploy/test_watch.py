"""What is watched exists, or is said not to exist yet."""

import ast
import json
import re
from collections.abc import Iterator

import pytest

from tests.unit.deploy.templates import ROOT, Json, resources, template

ALARM = "AWS::CloudWatch::Alarm"
FILTER = "AWS::Logs::MetricFilter"

NOT_YET: set[str] = set()
"""Events that nobody writes so far: once somebody does, watch.yaml and docs/aws.md say so too."""

REDIS_METRICS = {
    "DatabaseMemoryUsagePercentage",
    "EngineCPUUtilization",
    "Evictions",
    "ReplicationLag",
}


@pytest.fixture(scope="module")
def watch() -> Json:
    return template("watch")


def logged_events() -> dict[str, set[str]]:
    """Events that the processes log, each with the names of its fields."""
    found: dict[str, set[str]] = {}
    for package in ("api", "worker", "shared"):
        for path in (ROOT / package).rglob("*.py"):
            for event, fields in _events(ast.parse(path.read_text())):
                found.setdefault(event, set()).update(fields)
    return found


def _events(tree: ast.AST) -> Iterator[tuple[str, set[str]]]:
    for node in ast.walk(tree):
        match node:
            case ast.Call(
                func=ast.Attribute(value=ast.Name(id="log"), attr="info" | "warning" | "error"),
                args=[ast.Constant(value=str(event)), *_],
                keywords=keywords,
            ):
                yield event, {keyword.arg or "" for keyword in keywords}


def filters(watch: Json) -> Iterator[tuple[str, str, str]]:
    """Event, value and metric of each metric that is counted from the logs."""
    for _, resource in resources(watch, FILTER):
        properties = resource["Properties"]
        (metric,) = properties["MetricTransformations"]
        pattern = re.fullmatch(r'\{ \$\.event = "(\w+)" \}', properties["FilterPattern"])
        assert pattern
        yield pattern[1], metric["MetricValue"], metric["MetricName"]


def test_logs_are_counted_by_events_and_fields_that_the_code_writes(watch: Json) -> None:
    written = logged_events()
    missing = {event for event, *_ in filters(watch) if event not in written}

    assert missing == NOT_YET
    for event, value, _ in filters(watch):
        if value.startswith("$.") and event not in NOT_YET:
            assert value.removeprefix("$.") in written[event]


def test_every_metric_from_the_logs_has_its_alarm(watch: Json) -> None:
    alarmed = {
        resource["Properties"]["MetricName"]
        for _, resource in resources(watch, ALARM)
        if resource["Properties"]["Namespace"] == {"Ref": "Namespace"}
    }

    assert alarmed == {metric for *_, metric in filters(watch)}


def test_every_alarm_reaches_the_topic_both_ways(watch: Json) -> None:
    alarms = dict(resources(watch, ALARM))

    assert len(alarms) > 30
    for name, resource in alarms.items():
        properties = resource["Properties"]
        assert properties["AlarmActions"] == properties["OKActions"] == [{"Ref": "Topic"}], name
        assert properties["TreatMissingData"] in ("breaching", "notBreaching"), name


@pytest.mark.parametrize("node", ["${Broker}-001", "${Broker}-002"])
def test_each_node_of_the_broker_is_watched_in_all_respects(watch: Json, node: str) -> None:
    watched = {
        resource["Properties"]["MetricName"]
        for _, resource in resources(watch, ALARM)
        for dimension in resource["Properties"].get("Dimensions", [])
        if dimension["Value"] == {"Fn::Sub": node}
    }

    assert watched == REDIS_METRICS


def test_the_dashboard_is_json_with_nine_widgets(watch: Json) -> None:
    text = watch["Resources"]["Dashboard"]["Properties"]["DashboardBody"]["Fn::Sub"]

    widgets = json.loads(re.sub(r"\$\{[\w:]+\}", "x", text))["widgets"]

    assert len(widgets) == 9
    places = {(widget["properties"]["title"], widget["x"], widget["y"]) for widget in widgets}
    assert len({place[1:] for place in places}) == 9
