"""Prometheus and promtool for tests: Debian's, from PATH or as `make test-alerts` unpacks them."""

import json
import os
import shutil
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from local.processes import Process
from tests.stack import is_ok

ROOT = Path(__file__).resolve().parents[1]
ALERTS = ROOT / "deploy" / "prometheus" / "alerts.yml"
UNPACKED = ROOT / "local" / "prometheus" / "usr" / "bin"

START_SECONDS = 30.0


def program(name: str) -> str:
    """Where ``prometheus`` or ``promtool`` is; skips the test, and says so, if it is nowhere."""
    found = shutil.which(name, path=f"{UNPACKED}:{os.environ.get('PATH', '')}")
    if found is None:
        pytest.skip(f"{name} is not here: make test-alerts unpacks Debian's, where apt-get is")
    return found


def rules() -> list[dict[str, Any]]:
    """All alerts."""
    groups = yaml.safe_load(ALERTS.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


class Prometheus(Process):
    """A Prometheus of one's own that looks every second."""

    def __init__(
        self, folder: Path, port: int, jobs: Mapping[str, list[int]], alerts: str = ""
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "alerts.yml").write_text(alerts or "groups: []\n")
        config = {
            "global": {
                "scrape_interval": "1s",
                "scrape_timeout": "1s",
                "evaluation_interval": "1s",
            },
            "rule_files": ["alerts.yml"],
            "scrape_configs": [
                {
                    "job_name": job,
                    "static_configs": [{"targets": [f"127.0.0.1:{port}" for port in ports]}],
                }
                for job, ports in jobs.items()
            ],
        }
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        self.url = f"http://127.0.0.1:{port}"
        command = [
            program("prometheus"),
            f"--config.file={folder}/prometheus.yml",
            f"--storage.tsdb.path={folder}/data",
            f"--web.listen-address=127.0.0.1:{port}",
            "--log.level=warn",
        ]
        super().__init__("prometheus", command, folder / "prometheus.log")

    def is_ready(self) -> bool:
        return is_ok(f"{self.url}/-/ready")

    def firing(self) -> set[str]:
        """The names of the alerts that fire now."""
        found = self._ask("alerts")["alerts"]
        return {alert["labels"]["alertname"] for alert in found if alert["state"] == "firing"}

    def query(self, expression: str) -> list[dict[str, Any]]:
        """What an expression gives now."""
        found: list[dict[str, Any]] = self._ask("query", query=expression)["result"]
        return found

    def range(self, expression: str, start: float, end: float) -> list[dict[str, Any]]:
        """What an expression gave, second by second."""
        answer = self._ask("query_range", query=expression, start=start, end=end, step=1)
        found: list[dict[str, Any]] = answer["result"]
        return found

    def _ask(self, what: str, **arguments: Any) -> dict[str, Any]:
        url = f"{self.url}/api/v1/{what}?{urllib.parse.urlencode(arguments)}"
        with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 - our own http URL
            found: dict[str, Any] = json.load(answer)["data"]
            return found
