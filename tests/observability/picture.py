"""Draws the dashboard without Grafana: its own queries, asked of a real Prometheus.

``python -m tests.observability.picture docs/images/dashboard.png`` starts a stack, gives it load,
takes the workers away for a while, and draws what the dashboard shows of it.
"""

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
import matplotlib.pyplot as plt

from local.ports import free_port
from local.processes import wait_until
from tests.integration.client import Client, order_body
from tests.integration.load import Load
from tests.prometheus import ROOT, START_SECONDS, Prometheus
from tests.stack import Engines, Stack

DASHBOARD: Final = ROOT / "deploy" / "grafana" / "dashboards" / "orders.json"
QUIET_SECONDS, AWAY_SECONDS, AFTER_SECONDS = 30, 15, 30
RATE: Final = "6s"
UNITS: Final = {"s": " s", "percentunit": "", "short": ""}
LINES_MAX: Final = 8
INCHES: Final = 0.62


def main(out: Path) -> None:
    """Run, ask, draw."""
    mpl.use("Agg")
    with tempfile.TemporaryDirectory() as folder, Engines(Path(folder) / "engines") as engines:
        env = {"RECOVER_AFTER": "5", "WORKER_PROCESSES": "2"}
        with Stack(engines, workers=1, env=env, metrics=True) as stack:
            prometheus = _prometheus(stack, Path(folder))
            try:
                begin, end = _live(stack)
                time.sleep(2)
                _draw(prometheus, begin, end, out)
            finally:
                prometheus.stop()


def _prometheus(stack: Stack, folder: Path) -> Prometheus:
    jobs = {
        "orders-api": [stack.port],
        "orders-worker": [stack.metrics_ports["worker0"]],
        "orders-sweeper": [stack.metrics_ports["sweeper"]],
    }
    prometheus = Prometheus(folder / "prometheus", free_port(), jobs)
    prometheus.start()
    if not wait_until(prometheus.is_ready, START_SECONDS):
        raise RuntimeError("Prometheus is not ready")
    return prometheus


def _live(stack: Stack) -> tuple[float, float]:
    """Some load, a while without workers, some refused requests; from when to when."""
    client = Client(stack.url)
    poor = client.open_account(1)
    begin = time.time()
    with Load(stack.url, clients=6):
        for second in range(QUIET_SECONDS + AWAY_SECONDS + AFTER_SECONDS):
            if second == QUIET_SECONDS:
                stack.workers[0].pause()
            if second == QUIET_SECONDS + AWAY_SECONDS:
                stack.workers[0].resume()
            client.post(f"/v1/accounts/{poor}/orders", order_body())
            client.post(f"/v1/accounts/{poor}/orders", order_body(operation="SELL"))
            client.post(f"/v1/accounts/{poor}/orders", {"operation": "HOLD"})
            client.get("/v1/accounts/999999")
            time.sleep(1)
    return begin, time.time()


def _draw(prometheus: Prometheus, begin: float, end: float, out: Path) -> None:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    height = max(p["gridPos"]["y"] + p["gridPos"]["h"] for p in panels)
    figure = plt.figure(figsize=(24 * INCHES * 1.3, height * INCHES * 0.62), dpi=80)
    for panel in panels:
        axes = figure.add_axes(_box(panel["gridPos"], height))
        if panel["type"] == "timeseries":
            _draw_lines(axes, panel, prometheus, begin, end)
            continue
        axes.axis("off")
        if panel["type"] == "row":
            axes.text(0, 0.3, panel["title"], fontsize=13, weight="bold")
        else:
            _draw_number(axes, panel, prometheus)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out)


def _box(grid: dict[str, int], height: int) -> tuple[float, float, float, float]:
    is_row = grid["w"] == 24
    margin_x, low, top = (0.01, 0.0, 0.0) if is_row else (0.022, 1.1, 0.6)
    return (
        grid["x"] / 24 + margin_x,
        1 - (grid["y"] + grid["h"] - low) / height,
        grid["w"] / 24 - margin_x - 0.008,
        (grid["h"] - low - top) / height,
    )


def _expression(target: dict[str, Any]) -> str:
    return str(target["expr"]).replace("$__rate_interval", RATE)


def _draw_lines(
    axes: Any, panel: dict[str, Any], prometheus: Prometheus, begin: float, end: float
) -> None:
    axes.set_title(panel["title"] + UNITS[panel["fieldConfig"]["defaults"]["unit"]], fontsize=9)
    lines = [
        (_legend(target["legendFormat"], series["metric"]), series["values"])
        for target in panel["targets"]
        for series in prometheus.range(_expression(target), begin, end)
    ]
    lines.sort(key=lambda line: -max(_number(value) for _, value in line[1]))
    for legend, values in lines[:LINES_MAX]:
        seconds = [at - begin for at, _ in values]
        axes.plot(seconds, [_number(value) for _, value in values], linewidth=1.1, label=legend)
    axes.set_xlim(0, end - begin)
    axes.set_ylim(bottom=0)
    axes.tick_params(labelsize=6)
    axes.grid(alpha=0.25)
    if lines:
        axes.legend(fontsize=5.5, loc="upper left", framealpha=0.6)


def _draw_number(axes: Any, panel: dict[str, Any], prometheus: Prometheus) -> None:
    found = prometheus.query(_expression(panel["targets"][0]))
    shown = f"{_number(found[0]['value'][1]):.3g}" if found else "no data"
    unit = UNITS[panel["fieldConfig"]["defaults"]["unit"]]
    axes.text(0.5, 0.75, panel["title"], fontsize=9, ha="center")
    axes.text(0.5, 0.15, shown + unit, fontsize=20, ha="center", weight="bold")


def _number(text: str) -> float:
    value = float(text)
    return 0.0 if value != value else value


def _legend(pattern: str, labels: dict[str, str]) -> str:
    for name, value in labels.items():
        pattern = pattern.replace("{{" + name + "}}", value)
    return pattern


if __name__ == "__main__":
    main(Path(sys.argv[1]))
