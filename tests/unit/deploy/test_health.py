"""The health check of the images."""

import http.server
import importlib.util
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

PATH = Path(__file__).resolve().parents[3] / "deploy" / "images" / "health.py"


@pytest.fixture
def health(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """The script as a module, on a /proc of the test's own."""
    spec = importlib.util.spec_from_file_location("health", PATH)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "PROC", tmp_path / "proc")
    monkeypatch.setattr(module, "MARK", tmp_path / "mark")
    return module


def run_process(proc: Path, pid: int, *arguments: str, waits: int = 0) -> None:
    folder = proc / str(pid)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cmdline").write_text("\0".join(arguments) + "\0")
    (folder / "status").write_text(
        f"Name:\tpython\nvoluntary_ctxt_switches:\t{waits}\nnonvoluntary_ctxt_switches:\t7\n"
    )


class _Handler(http.server.BaseHTTPRequestHandler):
    asked: list[str]
    status: int

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.send_response(self.status)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[tuple[int, type[_Handler]]]:
    handler = type("Handler", (_Handler,), {"asked": [], "status": 200})
    with http.server.HTTPServer(("127.0.0.1", 0), handler) as listening:
        thread = threading.Thread(target=listening.serve_forever, args=(0.05,))
        thread.start()
        yield listening.server_address[1], handler
        listening.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("arguments", "variable", "path"),
    [
        (("python", "-m", "gunicorn", "api.wsgi:app"), "API_PORT", "/healthz"),
        (("python", "-m", "celery", "--app=worker.app", "flower"), "FLOWER_PORT", "/healthcheck"),
    ],
)
def test_what_serves_http_is_asked_over_http(
    health: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    server: tuple[int, type[_Handler]],
    arguments: tuple[str, ...],
    variable: str,
    path: str,
) -> None:
    port, handler = server
    run_process(health.PROC, 1, "tini", "--", "/app/start")
    run_process(health.PROC, 7, *arguments)
    monkeypatch.setenv(variable, str(port))

    health.main()
    handler.status = 500
    with pytest.raises(SystemExit, match="answers 500"):
        health.main()

    assert handler.asked == [path, path]


def test_what_serves_no_more_is_not_healthy(
    health: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_process(health.PROC, 7, "python", "-m", "gunicorn")
    monkeypatch.setenv("API_PORT", "1")

    with pytest.raises(SystemExit, match="no answer"):
        health.main()


def test_a_worker_is_asked_by_its_name_through_the_broker(
    health: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    become: list[list[str]] = []
    monkeypatch.setattr(os, "execv", lambda _, arguments: become.append(arguments))
    monkeypatch.setattr(health.socket, "gethostname", lambda: "box")
    run_process(health.PROC, 1, "tini", "--", "/app/start", "worker")
    run_process(health.PROC, 7, "python", "-m", "celery", "--app=worker.app", "--quiet", "worker")

    health.main()

    assert become[0][1:4] == ["-m", "celery", "--app=worker.app"]
    assert become[0][5:] == ["inspect", "ping", "--timeout=10", "--destination=worker@box"]


def test_a_sweeper_that_moves_is_healthy(health: ModuleType) -> None:
    for waits in (1, 5, 6):
        run_process(health.PROC, 7, "python", "-m", "worker.sweeper", waits=waits)
        health.moves(health.PROC / "7" / "status", health.MARK, 32, now=1000.0 * waits)


def test_a_sweeper_that_stands_still_for_too_long_is_not(health: ModuleType) -> None:
    status = health.PROC / "7" / "status"
    run_process(health.PROC, 7, "python", "-m", "worker.sweeper", waits=5)

    health.moves(status, health.MARK, 32, now=1000.0)
    health.moves(status, health.MARK, 32, now=1032.0)
    with pytest.raises(SystemExit, match="not moved for 33 s"):
        health.moves(status, health.MARK, 32, now=1033.0)


def test_the_pause_between_two_sweeps_counts_as_standing_still_only_beyond_its_length(
    health: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_process(health.PROC, 7, "python", "-m", "worker.sweeper", waits=5)
    monkeypatch.setattr(health.time, "time", lambda: 1000.0)
    health.main()

    monkeypatch.setattr(health.time, "time", lambda: 1100.0)
    monkeypatch.setenv("SWEEP_EVERY", "100")
    health.main()
    monkeypatch.setenv("SWEEP_EVERY", "2")
    with pytest.raises(SystemExit, match="not moved for 100 s"):
        health.main()


def test_what_runs_once_is_healthy_while_it_runs(health: ModuleType) -> None:
    run_process(health.PROC, 1, "tini", "--", "/app/start", "create-table")
    run_process(health.PROC, 7, "python", "-m", "shared.order_store.create_table")

    health.main()
