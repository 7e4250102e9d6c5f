"""The written report, and the lists of the profile."""

import json
from pathlib import Path

from bench import report
from bench.done_when import judge
from bench.profile import libraries, top_lines
from bench.results import Figure, Results, Row


def measured() -> Results:
    results = Results()
    for value in (90.0, 100.0, 120.0):
        results.add(
            Row("classic", "classic endpoint", "orders/s"), Figure(value, {"classic": 6.5}, 0.02)
        )
        results.add(
            Row("distinct", "distinct accounts", "orders/s"),
            Figure(4 * value, {"api": 1.25, "worker": 0.5}, 0.1),
        )
        results.add(
            Row("steady_202", "POST to 202", "ms"),
            Figure(9.0, notes={"p50": 3.0, "p90": 5.0, "p99": 9.0, "max": 20.0}),
        )
    results.leave_out(Row("bulk", "bulk", "orders/s"), "there is no endpoint")
    return results


def test_the_report_shows_figures_verdicts_cpu_and_what_is_not_there(tmp_path: Path) -> None:
    results = measured()

    table = report.write(tmp_path, results, judge(results), {"cores": "2"}).read_text()

    assert "| cores | 2 |" in table
    assert "| classic endpoint | 100 | 90 to 120 | orders/s |" in table
    assert "| distinct accounts | >= 3 x the classic endpoint | 4.00 | 4.00 to 4.00 | ok |" in table
    assert "| bulk | not there | there is no endpoint | orders/s |" in table
    assert "| distinct accounts | 1.25 |  | 0.5 | 0.1 |" in table
    assert "| POST to 202 | 3 | 5 | 9 | 20 |" in table


def test_the_json_holds_every_round(tmp_path: Path) -> None:
    results = measured()

    report.write(tmp_path, results, judge(results), {"cores": "2"})

    plain = json.loads((tmp_path / "results.json").read_text())
    assert [figure["value"] for figure in plain["figures"]["classic"]] == [90, 100, 120]
    assert {"throughput.png", "latency.png", "thresholds.png"} <= {
        path.name for path in tmp_path.iterdir()
    }


def test_the_top_list_counts_a_function_once_in_a_stack_and_its_own_samples_apart() -> None:
    stacks = "main (a.py);walk (b.py);walk (b.py) 3\nmain (a.py) 1\n"

    lines = top_lines(stacks)

    assert lines[1] == " 75.0 %  75.0 %  walk (b.py)"
    assert lines[2] == " 25.0 % 100.0 %  main (a.py)"
    # In all samples, so of no interest in the second list.
    assert lines.count(" 25.0 % 100.0 %  main (a.py)") == 1
    assert lines.count(" 75.0 %  75.0 %  walk (b.py)") == 2


def test_samples_in_pythons_own_modules_count_for_the_library_that_called_them() -> None:
    stacks = (
        "run (gunicorn/app.py);call (botocore/client.py);encode (json/encoder.py) 3\n"
        "settle (worker/processing.py);__init__ (<string>) 2\n"
        "run (threading.py) 1\n"
    )

    assert libraries(stacks) == {"botocore": 3, "worker": 2, "python": 1}
