"""What the figures were measured on: without it they mean nothing."""

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from local.commands import ROOT
from local.engines import dynamodb_program, redis_program

_PACKAGES = ("flask", "gunicorn", "celery", "kombu", "redis", "boto3")
_SECONDS_MAX = 10


def describe() -> dict[str, str]:
    """Names and values, in the sequence in which a reader wants them."""
    packages = {name: version(name) for name in _PACKAGES}
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "cores": str(os.cpu_count()),
        "CPU": _cpu_model(),
        "memory": f"{_memory_gib():.0f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "Python": platform.python_version(),
        "packages": ", ".join(f"{name} {number}" for name, number in packages.items()),
        "Redis": _first_line(str(redis_program()), "--version"),
        "DynamoDB": _first_line(str(dynamodb_program()), "--version"),
        "revision": _first_line("git", "describe", "--always", "--dirty"),
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()


def _memory_gib() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


def _first_line(*command: str) -> str:
    try:
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=_SECONDS_MAX, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return (done.stdout.splitlines() or ["unknown"])[0]
