"""The commands of the project's own processes, with the interpreter that runs now."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# What a worker logs once it takes messages.
WORKER_READY_MARK = "worker_ready"


def create_table() -> list[str]:
    """Make the table when it is not there yet, then end."""
    return _module("shared.order_store.create_table")


def api() -> list[str]:
    """Serve HTTP; host, port and sizes come from the environment."""
    return _module("gunicorn", "--config", "api/gunicorn_conf.py", "api.wsgi:app")


def worker(node: str) -> list[str]:
    """Process orders; each worker of one broker needs a node name of its own."""
    return _celery("worker", "--loglevel=WARNING", f"--hostname={node}@%h")


def sweeper() -> list[str]:
    """Enqueue again what was accepted and then forgotten."""
    return _module("worker.sweeper")


def flower(port: int) -> list[str]:
    """Show the workers and their tasks in a browser."""
    return _celery("flower", "--address=127.0.0.1", f"--port={port}", "--logging=warning")


def ops(*arguments: str) -> list[str]:
    """One of the operators' commands."""
    return _module("ops", *arguments)


def _celery(*arguments: str) -> list[str]:
    return _module("celery", "--app=worker.app", "--quiet", *arguments)


def _module(name: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", name, *arguments]
