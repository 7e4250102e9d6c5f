"""Runs schemathesis on the served document, against real engines and processes.

Once where nobody has to show a key and orders are decided; once where everybody has to and no
worker runs, so that orders stay pending and can be cancelled. Anything that the document does not
say, or says otherwise, is a failure.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from local import commands
from tests.stack import Engines, Stack

CONFIG = Path(__file__).parent / "schemathesis.toml"
HOOKS = "tests.document.hooks"

CASES_DEFAULT = 60
SEED_DEFAULT = 1
SECONDS_DEFAULT = 75
GRACE_SECONDS = 60
"""For what schemathesis has begun when its time is over."""

STREAM_SECONDS = "0.05"
"""Streams end by themselves."""


@dataclass(frozen=True, slots=True)
class Way:
    """How the API runs; where no order is decided nobody waits, since that ends no sooner."""

    access_keys: str
    workers: int
    wait_seconds_max: int

    @property
    def env(self) -> dict[str, str]:
        """The settings of its processes."""
        return {
            "ACCESS_KEYS": self.access_keys,
            "WAIT_SECONDS_MAX": str(self.wait_seconds_max),
            "STREAM_SECONDS_MAX": STREAM_SECONDS,
        }


WAYS = (
    Way("off", workers=1, wait_seconds_max=2),
    Way("required", workers=0, wait_seconds_max=0),
)


def main(arguments: Sequence[str]) -> int:
    """Run both; returns in how many of them something failed."""
    asked = read(arguments)
    failed = 0
    with tempfile.TemporaryDirectory() as folder, Engines(Path(folder)) as engines:
        for way in WAYS:
            with Stack(engines, workers=way.workers, env=way.env) as stack:
                print(f"Keys: {way.access_keys}; workers: {way.workers}", flush=True)
                key = make_key(stack) if way.access_keys == "required" else None
                if run(stack, key, asked) != 0:
                    failed += 1
                    print("\n".join(errors(stack)))
    return failed


def read(arguments: Sequence[str]) -> argparse.Namespace:
    """The options: how many cases, which, and for how long."""
    parser = argparse.ArgumentParser(prog="python -m tests.document.run")
    parser.add_argument("--cases", type=int, default=CASES_DEFAULT, help="of one call and phase")
    parser.add_argument("--seed", type=int, default=SEED_DEFAULT)
    parser.add_argument("--seconds", type=int, default=SECONDS_DEFAULT, help="of each of two runs")
    return parser.parse_args(arguments)


def run(stack: Stack, key: str | None, asked: argparse.Namespace) -> int:
    """Run schemathesis with ``key``, if there is one; returns its exit code."""
    options = ["--max-examples", str(asked.cases), "--seed", str(asked.seed)]
    options += ["--max-time", str(asked.seconds), "--no-color"]
    if key is not None:
        options += ["--header", f"Authorization: Bearer {key}"]
    document = f"{stack.url}/openapi.json"
    schemathesis = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIG)]
    return subprocess.run(
        [*schemathesis, "run", document, *options],
        env={**os.environ, "SCHEMATHESIS_HOOKS": HOOKS},
        cwd=commands.ROOT,
        check=False,
        timeout=asked.seconds + GRACE_SECONDS,
    ).returncode


def errors(stack: Stack) -> list[str]:
    """What the API logged as errors: its log is full of what it refused."""
    assert isinstance(stack.api.log, Path)
    lines = stack.api.log.read_text(errors="replace").splitlines()
    return [line for line in lines if '"level": "error"' in line]


def make_key(stack: Stack) -> str:
    """An operator's key: it may do everything."""
    return subprocess.run(
        commands.ops("keys", "create", "--name", "schemathesis", "--operator"),
        env=stack.env,
        cwd=commands.ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout.strip()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
