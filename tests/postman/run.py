"""Runs the Postman collections with newman, against real engines and processes.

Two stacks: one whose market is always open, and one whose market is closed now.
"""

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

from local import commands
from tests.stack import Engines, Stack

FOLDER = Path(__file__).parent
COLLECTIONS = commands.ROOT / "docs" / "postman"
ENVIRONMENT = COLLECTIONS / "order-processor.postman_environment.json"
NEWMAN = FOLDER / "node_modules" / "newman" / "bin" / "newman.js"

RUN_SECONDS_MAX = 120
REQUEST_MILLISECONDS_MAX = 30_000


def main() -> int:
    """Run each collection; returns the number of those in which something failed."""
    with ExitStack() as cleanup:
        folder = cleanup.enter_context(tempfile.TemporaryDirectory())
        engines = cleanup.enter_context(Engines(Path(folder)))
        one_each = {"WORKER_PROCESSES": "1"}
        is_open = cleanup.enter_context(Stack(engines, api_processes=1, env=one_each))
        is_closed = cleanup.enter_context(
            Stack(engines, api_processes=1, env={**one_each, **closed_hours(datetime.now(UTC))})
        )
        variables = {"baseUrl": is_open.url, "closedUrl": is_closed.url}
        names = sorted(COLLECTIONS.glob("*.postman_collection.json"))
        return sum(run(name, variables) != 0 for name in names)


def closed_hours(now: datetime) -> dict[str, str]:
    """Settings of a market that opens for one minute, twelve hours from ``now``."""
    opens = now + timedelta(hours=12)
    closes = opens + timedelta(minutes=1)
    return {
        "MARKET_ALWAYS_OPEN": "false",
        "MARKET_TZ": "UTC",
        "MARKET_OPEN": f"{opens:%H:%M}",
        "MARKET_CLOSE": f"{closes:%H:%M}",
    }


def run(collection: Path, variables: dict[str, str]) -> int:
    """Run one collection; returns newman's exit code."""
    return subprocess.run(
        ["node", str(NEWMAN), "run", str(collection), *options(variables)],  # noqa: S607
        cwd=FOLDER,
        check=False,
        timeout=RUN_SECONDS_MAX,
    ).returncode


def options(variables: dict[str, str]) -> Sequence[str]:
    """Options of newman: the environment, what replaces its values, and bounds."""
    given = [f"{name}={value}" for name, value in variables.items()]
    replaced = [word for pair in given for word in ("--env-var", pair)]
    timeout = ["--timeout-request", str(REQUEST_MILLISECONDS_MAX)]
    return ["--environment", str(ENVIRONMENT), *replaced, *timeout, "--color", "off"]


if __name__ == "__main__":
    sys.exit(main())
