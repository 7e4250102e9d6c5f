"""The dashboard asks for metrics that there are, and Grafana finds it."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from shared.metrics import Histogram, recorders
from tests.prometheus import ROOT

GRAFANA = ROOT / "deploy" / "grafana"
FIRST = {"Accepted a second", "Decision p99", "Oldest undecided", "Messages in the queue", "Parked"}


@pytest.fixture(name="dashboard", scope="module")
def _dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((GRAFANA / "dashboards" / "orders.json").read_text())
    return found


def expressions(dashboard: dict[str, Any]) -> Iterator[str]:
    for panel in dashboard["panels"]:
        yield from (target["expr"] for target in panel.get("targets", ()))


def used(dashboard: dict[str, Any]) -> set[str]:
    text = "\n".join(expressions(dashboard))
    return set(re.findall(r"\borders_\w+", text))


def test_every_metric_of_the_code_is_on_the_dashboard_and_no_other(
    dashboard: dict[str, Any],
) -> None:
    shown = {re.sub(r"_(bucket|count|sum)$", "", name) for name in used(dashboard)}

    assert shown == {recorder.name for recorder in recorders()}


def test_labels_are_those_of_the_metrics(dashboard: dict[str, Any]) -> None:
    labels = {one.name: {*one.labels, "le"} for one in recorders()}
    labels |= {f"{one.name}_{end}": labels[one.name] for one in recorders()
               if isinstance(one, Histogram) for end in ("bucket", "count")}  # fmt: skip
    found = [
        (name, label)
        for expression in expressions(dashboard)
        for name, selector in re.findall(r"\b(orders_\w+)\{([^}]*)\}", expression)
        for label in re.findall(r"(\w+)=?[~!]?=", selector)
    ]

    assert len(found) > 5
    assert [(name, label) for name, label in found if label not in labels[name]] == []


def test_what_matters_most_is_on_top(dashboard: dict[str, Any]) -> None:
    top = {panel["title"] for panel in dashboard["panels"] if panel["gridPos"]["y"] <= 1}

    assert top >= FIRST


def test_panels_do_not_lie_on_each_other(dashboard: dict[str, Any]) -> None:
    places = [
        (x, y)
        for panel in dashboard["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]

    assert len(places) == len(set(places))
    assert max(x for x, _ in places) < 24


def test_the_dashboard_asks_the_data_source_that_is_provisioned(dashboard: dict[str, Any]) -> None:
    text = (GRAFANA / "provisioning" / "datasources" / "prometheus.yml").read_text()
    sources = {source["uid"] for source in yaml.safe_load(text)["datasources"]}
    asked = {panel["datasource"]["uid"] for panel in dashboard["panels"] if "targets" in panel}

    assert asked == sources
