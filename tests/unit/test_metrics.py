"""What is counted gets to Prometheus: from one process, from several, from those that ended."""

import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared import metrics, metrics_folder
from shared.metrics import Counter, Gauge, Histogram, Key, recorders, snapshot

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = ROOT / "docs" / "observability.md"


@pytest.fixture(name="_counting")
def _counts() -> Iterator[None]:
    metrics.start_counting()
    yield
    metrics.stop_counting()


def told(source: str, **env: str) -> str:
    """What a fresh process prints: the library decides at its import what it does."""
    code = "from shared import metrics, metrics_folder\n" + textwrap.dedent(source)
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# Counting


def test_nothing_is_counted_unless_somebody_wants_to_know() -> None:
    metrics.stop_counting()
    before = snapshot()

    metrics.DECIDED.add("executed")
    metrics.DECISION_SECONDS.observe(1)
    metrics.PARKED.set(1)

    assert snapshot() == before


@pytest.mark.usefixtures("_counting")
def test_counts_add_up_by_their_labels() -> None:
    metrics.DECIDED.add("executed")
    metrics.DECIDED.add("executed", n=3)
    metrics.DECIDED.add("failed")

    assert snapshot()[Key("orders_decided_total", ("executed",))] == 4
    assert snapshot()[Key("orders_decided_total", ("failed",))] == 1


@pytest.mark.usefixtures("_counting")
def test_a_value_falls_into_the_first_bucket_that_holds_it() -> None:
    sizes = Histogram("orders_test_sizes", "A test's", (1, 10))
    try:
        for value in (0.5, 1, 1.1, 10, 11):
            sizes.observe(value)
        sizes.observe(100, n=2)
    finally:
        metrics._recorders.remove(sizes)

    assert sizes.values[()] == [2, 2, 3, 0.5 + 1 + 1.1 + 10 + 11 + 200]


def test_a_new_start_counts_from_nothing() -> None:
    metrics.start_counting()
    metrics.DECIDED.add("executed")

    metrics.start_counting()

    assert Key("orders_decided_total", ("executed",)) not in snapshot()
    metrics.stop_counting()


# To Prometheus


def test_what_processes_count_is_added_up_and_outlives_them() -> None:
    shown = told("""
        import os
        metrics_folder.make()
        for number in (1, 2):
            child = os.fork()
            if child == 0:
                from shared import metrics_export
                metrics_export.start()
                metrics.DECIDED.add("executed", n=number)
                metrics.GROUP_SIZE.observe(20 * number, n=number)
                metrics.WAITS.set(5)
                metrics_export.stop()
                os._exit(0)
            os.waitpid(child, 0)
        from shared import metrics_export
        print(metrics_export.exposition().decode())
        metrics_folder.remove()
    """)

    assert 'orders_decided_total{status="executed"} 3.0' in shown
    assert 'orders_accept_group_size_bucket{le="10.0"} 0.0' in shown
    assert 'orders_accept_group_size_bucket{le="20.0"} 1.0' in shown
    assert 'orders_accept_group_size_bucket{le="50.0"} 3.0' in shown
    assert 'orders_accept_group_size_bucket{le="+Inf"} 3.0' in shown
    assert "orders_accept_group_size_count 3.0" in shown
    assert "orders_accept_group_size_sum 100.0" in shown
    # Nobody waits in a process that has ended.
    assert "orders_http_waits 5.0" not in shown


def test_files_are_written_even_if_the_library_was_there_before_the_folder() -> None:
    shown = told("""
        import prometheus_client
        metrics_folder.make()
        from shared import metrics_export
        metrics_export.start()
        metrics.DECIDED.add("executed")
        print(metrics_export.exposition().decode())
        metrics_folder.remove()
    """)

    assert 'orders_decided_total{status="executed"} 1.0' in shown


def test_gauges_of_living_processes_are_added_up() -> None:
    shown = told("""
        import os, signal, time
        metrics_folder.make()
        ready, said = os.pipe()
        child = os.fork()
        from shared import metrics_export
        metrics_export.start()
        metrics.WAITS.set(2 if child else 3)
        metrics.STREAMS.watch(lambda: 7)
        for exporter in metrics_export._running:
            exporter.flush()
        if child == 0:
            os.write(said, b"x")
            time.sleep(60)
        os.read(ready, 1)
        both = metrics_export.exposition().decode()
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        print(both, "----", metrics_export.exposition().decode())
        metrics_folder.remove()
    """)
    both, _, one = shown.partition("----")

    assert "orders_http_waits 5.0" in both
    assert "orders_http_streams 14.0" in both
    assert "orders_http_waits 2.0" in one
    assert "orders_http_streams 7.0" in one


def test_what_alerts_wait_for_is_shown_as_nothing_from_the_start() -> None:
    shown = told("""
        metrics_folder.make()
        from shared import metrics_export
        metrics_export.start()
        print(metrics_export.exposition().decode())
        metrics_folder.remove()
    """)

    for recorder in recorders():
        for labels in recorder.known if isinstance(recorder, Counter) else ():
            pairs = zip(recorder.labels, labels, strict=True)
            written = ",".join(f'{name}="{value}"' for name, value in pairs)
            line = f"{recorder.name}{{{written}}} 0.0" if written else f"{recorder.name} 0.0"
            assert line in shown


def test_metrics_are_served_on_a_port_and_one_that_is_taken_harms_nobody() -> None:
    shown = told("""
        import urllib.request
        from local.ports import free_port
        metrics_folder.make()
        from shared import metrics_export
        metrics_export.start()
        port = free_port()
        metrics_export.serve("127.0.0.1", port)
        metrics_export.serve("127.0.0.1", port)
        metrics.PARKED.set(3)
        print(urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics").read().decode())
        metrics_folder.remove()
    """)

    assert "orders_parked 3.0" in shown


def test_a_given_folder_is_emptied_and_what_else_stands_there_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(metrics_folder.VARIABLE, str(tmp_path))
    (tmp_path / "counter_1.db").write_bytes(b"of a run before")
    (tmp_path / "notes").write_text("somebody's")

    assert metrics_folder.make() == tmp_path

    assert [file.name for file in tmp_path.iterdir()] == ["notes"]


def test_a_folder_of_our_own_is_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(metrics_folder.VARIABLE, raising=False)
    folder = metrics_folder.make()
    assert metrics_folder.is_made()

    metrics_folder.remove()

    assert not folder.exists()
    assert not metrics_folder.is_made()


# Their names


def test_names_are_as_prometheus_wants_them() -> None:
    names = [recorder.name for recorder in recorders()]

    assert len(set(names)) == len(names)
    for recorder in recorders():
        assert re.fullmatch(r"orders_[a-z_]+", recorder.name)
        assert isinstance(recorder, Counter) == recorder.name.endswith("_total")
        assert recorder.says


KINDS = {Counter: "counter", Gauge: "gauge", Histogram: "histogram"}


def test_the_documented_metrics_are_those_of_the_code() -> None:
    rows = re.findall(
        r"^\| `(orders_\w+)` \| (\w+) \| ([^|]*) \| ([^|]+) \|$", DOCUMENT.read_text(), re.MULTILINE
    )
    documented = {
        name: (kind, tuple(re.findall(r"`(\w+)`", labels)), says.strip())
        for name, kind, labels, says in rows
    }

    assert documented == {one.name: (KINDS[type(one)], one.labels, one.says) for one in recorders()}
