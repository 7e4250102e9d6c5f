"""A file of orders: each line once, whatever happens in between, and a result for each."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from werkzeug import Request, Response

from order_client.cli.main import main
from order_client.load.files import FileInUse, LineFile
from order_client.load.journal import Journal, JournalMismatch, Run, Sending
from order_client.load.results import DETAIL_LENGTH_MAX, LineResult, Results, ResultsMismatch
from order_client.load.source import LINE_BYTES_MAX, SourceError, know, read_rows
from order_client.retry import Retry
from tests.unit.client.fake import (
    FakeService,
    Fault,
    Serve,
    answer,
    drop_after,
    drop_before,
    no_fault,
    problem,
    spoil_line,
    torn,
)

HEADER = "account_id,timestamp,operation,issuer_name,total_shares,share_price\n"
NOW = datetime(2026, 3, 2, 15, 4, 5, tzinfo=UTC)
RUN = Run("5" * 64, "http://127.0.0.1:8000", "")
WAIT_SECONDS = 30.0


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A load that gives up soon."""
    impatient = Retry(attempts_max=3, base_seconds=0.01)
    monkeypatch.setattr("order_client.cli.bulk.LOAD_RETRY", impatient)


def write(path: Path, lines: list[str]) -> Path:
    path.write_text(HEADER + "".join(lines))
    return path


def line(number: int, operation: str = "BUY", timestamp: str = "") -> str:
    return f"{number % 7 + 1},{timestamp},{operation},GBM,{number + 1},50.5\n"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """25 orders, on lines 2 to 26."""
    return write(tmp_path / "orders.csv", [line(number) for number in range(25)])


def load(fake: FakeService, source: Path, *more: str) -> Result:
    arguments = ["--url", fake.url, "bulk", "load", str(source), "--chunk", "10", *more]
    return CliRunner().invoke(main, arguments)


def results_of(source: Path) -> list[dict[str, str]]:
    with source.with_name("orders.results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def lines_of(source: Path) -> list[int]:
    return [int(result["line"]) for result in results_of(source)]


def is_each_recorded_once(fake: FakeService, count: int) -> bool:
    return len(fake.recorded) == count == len(fake.orders) and set(fake.recorded.values()) == {1}


def test_each_line_gets_its_result(fake: FakeService, source: Path) -> None:
    loaded = load(fake, source)
    assert loaded.exit_code == 0, loaded.output
    results = results_of(source)
    assert lines_of(source) == list(range(2, 27))
    assert {result["status"] for result in results} == {"accepted"}
    assert {result["order_id"] for result in results} == set(fake.orders)
    assert is_each_recorded_once(fake, 25)
    assert "accepted     25" in loaded.stdout


def test_the_summary_is_for_scripts_too(fake: FakeService, source: Path) -> None:
    loaded = load(fake, source, "--json")
    assert json.loads(loaded.stdout) == {
        "results": str(source.with_name("orders.results.csv")),
        "lines": {"accepted": 25},
        "replayed": 0,
        "without_result": 0,
        "last_line": 26,
        "sent_until_line": 26,
    }
    assert loaded.stderr == ""


def test_a_loaded_file_is_not_loaded_again(fake: FakeService, source: Path) -> None:
    load(fake, source)
    asked = len(fake.seen)
    again = load(fake, source)
    assert again.exit_code == 0
    assert "25 lines had their result" in again.stderr
    assert len(fake.seen) == asked


def test_under_another_name_it_is_loaded_once_more(fake: FakeService, source: Path) -> None:
    load(fake, source)
    results = str(source.with_name("second.csv"))
    assert load(fake, source, "--run", "second", "--results", results).exit_code == 0
    assert is_each_recorded_once(fake, 50)


def test_even_with_its_results_lost_no_line_is_recorded_twice(
    fake: FakeService, tmp_path: Path
) -> None:
    source = write(tmp_path / "orders.csv", [line(n, timestamp="1795515934") for n in range(25)])
    load(fake, source)
    for path in tmp_path.glob("*.results.csv*"):
        path.unlink()
    again = load(fake, source)
    assert again.exit_code == 0
    assert "25 had been recorded by an earlier try" in again.stderr
    assert is_each_recorded_once(fake, 25)


def test_lines_that_are_no_orders_are_refused_and_the_others_sent(
    fake: FakeService, tmp_path: Path
) -> None:
    source = tmp_path / "orders.csv"
    good = line(0).encode()
    bad = [
        b'1,,BUY,"GBM,1,1\n',
        b"1,,BUY,GBM,1\n",
        b"x,,BUY,GBM,1,1\n",
        b"0,,BUY,GBM,1,1\n",
        b"1,,BUY,\xff,1,1\n",
        b"1,,HOLD,GBM,1,1\n",
        b"1,,BUY," + b"x" * 70_000 + b",1,1\n",
    ]
    text = b"".join(part + good for part in bad)
    source.write_bytes(b"\xef\xbb\xbf" + HEADER.encode() + b"\n" + text.removesuffix(b"\n"))
    loaded = load(fake, source)
    assert loaded.exit_code == 1
    results = results_of(source)
    assert lines_of(source) == list(range(3, 17))
    assert [result["status"] for result in results] == ["refused", "accepted"] * 7
    codes = Counter(result["code"] for result in results if result["code"])
    assert codes == {"MALFORMED_LINE": 6, "INVALID_OPERATION": 1}
    assert results[10]["detail"] == "so it is (/operation must be BUY or SELL)"
    assert is_each_recorded_once(fake, 7)


def test_a_line_has_so_many_bytes_and_no_more(tmp_path: Path) -> None:
    source = tmp_path / "orders.csv"
    start = b"1,,BUY,"
    for size, trouble in (
        (LINE_BYTES_MAX, None),
        (LINE_BYTES_MAX + 1, f"has more than {LINE_BYTES_MAX} bytes"),
        (3 * LINE_BYTES_MAX, f"has more than {LINE_BYTES_MAX} bytes"),
    ):
        end = b",1,1\n"
        long = start + b"x" * (size - len(start) - len(end)) + end
        source.write_bytes(HEADER.encode() + long + line(1).encode())
        first, second = read_rows(source)
        assert (first.line, first.trouble) == (2, trouble)
        assert (second.line, second.trouble) == (3, None)


def test_an_account_has_so_many_digits_and_no_more(tmp_path: Path) -> None:
    source = tmp_path / "orders.csv"
    for digits, is_fine in ((18, True), (19, False)):
        source.write_text(f"{HEADER}{'9' * digits},,BUY,GBM,1,1\n")
        (row,) = read_rows(source)
        assert (row.trouble is None) is is_fine
        assert len(row.account_id) == 18


def test_the_detail_of_a_result_is_cut_to_its_length(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    lengths = [DETAIL_LENGTH_MAX - 1, DETAIL_LENGTH_MAX, DETAIL_LENGTH_MAX + 1]
    with Results(path) as results:
        results.add(
            [LineResult(n, "1", "refused", "", "X", "d" * of) for n, of in enumerate(lengths, 2)]
        )
    with path.open(newline="") as file:
        written = [len(row["detail"]) for row in csv.DictReader(file)]
    assert written == [DETAIL_LENGTH_MAX - 1, DETAIL_LENGTH_MAX, DETAIL_LENGTH_MAX]


def test_with_waiting_the_decision_is_written(fake: FakeService, tmp_path: Path) -> None:
    source = write(tmp_path / "orders.csv", [line(0), line(1, "SELL")])
    loaded = load(fake, source, "--wait")
    assert loaded.exit_code == 1
    executed, rejected = results_of(source)
    assert executed["status"] == "executed"
    assert rejected["status"] == "rejected"
    assert rejected["code"] == "INSUFFICIENT_STOCKS CLOSED_MARKET"


@pytest.mark.parametrize(
    "faults",
    [
        [drop_before, drop_after],
        [torn(3), torn(2), drop_after],
        [answer(503, problem(503)), answer(429, problem(429))],
        [spoil_line(5, {"line": 5, "status": 503, "problem": problem(503)})],
    ],
)
def test_passing_faults_leave_no_trace(
    fake: FakeService, source: Path, faults: list[Fault]
) -> None:
    fake.faults += faults
    assert load(fake, source).exit_code == 0
    assert lines_of(source) == list(range(2, 27))
    assert is_each_recorded_once(fake, 25)


def test_a_line_of_unknown_fate_is_said_to_be_so(fake: FakeService, source: Path) -> None:
    fake.faults.append(spoil_line(5, {"line": 5, "status": 500, "problem": problem(500)}))
    assert load(fake, source).exit_code == 1
    assert [one["line"] for one in results_of(source) if one["status"] == "unknown"] == ["6"]


def test_a_load_that_had_to_stop_goes_on_when_it_is_run_again(
    fake: FakeService, source: Path
) -> None:
    fake.faults += [no_fault, torn(4), *[drop_after] * 3]
    stopped = load(fake, source)
    assert stopped.exit_code == 5
    assert lines_of(source) == list(range(2, 16))
    assert "11 lines have no result: those after line 15" in stopped.stderr
    assert "Up to line 21 they may have been sent" in stopped.stderr
    again = load(fake, source)
    assert again.exit_code == 0, again.output
    assert lines_of(source) == list(range(2, 27))
    assert is_each_recorded_once(fake, 25)


def test_no_line_is_left_behind_by_later_ones(fake: FakeService, source: Path) -> None:
    busy = {"line": 5, "status": 503, "problem": problem(503)}
    fake.faults += [spoil_line(5, busy), *[drop_before] * 3]
    assert load(fake, source).exit_code == 5
    assert lines_of(source) == [2, 3, 4, 5]
    assert load(fake, source).exit_code == 0
    assert lines_of(source) == list(range(2, 27))
    assert is_each_recorded_once(fake, 25)


def test_a_refused_key_stops_the_load(fake: FakeService, source: Path) -> None:
    fake.faults.append(answer(401, problem(401)))
    assert load(fake, source).exit_code == 4
    assert results_of(source) == []


def test_ctrl_c_says_what_was_not_sent(fake: FakeService, source: Path) -> None:
    # Who runs tests in the background has them ignore SIGINT.
    heeded = signal.signal(signal.SIGINT, signal.default_int_handler)

    def interrupt(request: Request, serve: Serve) -> Response:
        os.kill(os.getpid(), signal.SIGINT)
        return serve()

    fake.faults += [no_fault, interrupt]
    try:
        stopped = load(fake, source)
    finally:
        signal.signal(signal.SIGINT, heeded)
    assert stopped.exit_code == 130
    assert "15 lines have no result: those after line 11" in stopped.stderr
    assert "Up to line 21 they may have been sent, the rest was not." in stopped.stderr


@pytest.mark.parametrize("cut", [1, 30, 600])
def test_a_torn_result_file_is_mended(fake: FakeService, source: Path, cut: int) -> None:
    load(fake, source)
    results = source.with_name("orders.results.csv")
    whole = results.read_bytes()
    results.write_bytes(whole[:-cut])
    assert load(fake, source).exit_code == 0
    assert results.read_bytes() == whole
    assert is_each_recorded_once(fake, 25)


def test_a_torn_journal_is_mended(fake: FakeService, source: Path) -> None:
    load(fake, source)
    journal = source.with_name("orders.results.csv.journal")
    results = source.with_name("orders.results.csv")
    journal.write_bytes(journal.read_bytes()[:-3])
    results.write_text("".join(results.read_text().splitlines(keepends=True)[:21]))
    fake.posted.clear()
    assert load(fake, source).exit_code == 0
    assert lines_of(source) == list(range(2, 27))


def test_after_a_day_what_went_unanswered_is_not_sent_again(
    fake: FakeService, source: Path
) -> None:
    load(fake, source)
    results = source.with_name("orders.results.csv")
    results.write_text("".join(results.read_text().splitlines(keepends=True)[:16]))
    journal = source.with_name("orders.results.csv.journal")
    head, *entries = map(json.loads, journal.read_text().splitlines())
    for entry in entries:
        before = datetime.fromisoformat(entry["at"]) - timedelta(hours=24)
        entry["at"] = before.isoformat()
    journal.write_text("".join(json.dumps(one) + "\n" for one in [head, *entries[:-1]]))
    fake.posted.clear()
    asked = len(fake.seen)
    assert load(fake, source).exit_code == 1
    statuses = Counter(result["status"] for result in results_of(source))
    # 15 had their result, 5 of the second chunk had none, 5 were not sent by the first run.
    assert statuses == {"accepted": 20, "unknown": 5}
    assert [one["code"] for one in results_of(source)][15] == "KEY_EXPIRED"
    assert len(fake.seen) == asked + 1


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("orders.csv", HEADER + line(0)),
        ("orders.csv", "a,b\n1,2\n"),
        ("orders.csv", ""),
        ("orders.csv", HEADER.strip() + ",issuer_name\n"),
        ("orders.results.csv", "something,else\n"),
        ("orders.results.csv", "line,account_id,status,order_id,code,detail\n9\n"),
        ("orders.results.csv.journal", "oops\n"),
    ],
)
def test_files_that_do_not_belong_together_are_left_alone(
    fake: FakeService, source: Path, name: str, text: str
) -> None:
    load(fake, source)
    source.with_name(name).write_text(text)
    results, asked = source.with_name("orders.results.csv").read_bytes(), len(fake.seen)
    assert load(fake, source).exit_code == 2
    assert source.with_name("orders.results.csv").read_bytes() == results
    assert len(fake.seen) == asked


def test_a_load_goes_to_one_service(fake: FakeService, source: Path) -> None:
    load(fake, source)
    with FakeService() as other:
        refused = load(other, source)
        assert refused.exit_code == 2
        assert f"went to {fake.url}" in refused.stderr
        assert other.seen == []


def test_the_results_never_overwrite_the_file(fake: FakeService, source: Path) -> None:
    before = source.read_bytes()
    assert load(fake, source, "--results", str(source)).exit_code == 2
    assert source.read_bytes() == before


def test_two_loads_do_not_write_one_file(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    with LineFile(path), pytest.raises(FileInUse):
        LineFile(path)
    LineFile(path).close()


def test_a_line_without_an_end_is_cut_off_however_long_it_is(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    for whole in (b"", b"a\n", b"a\nb\n"):
        path.write_bytes(whole + b"x" * 200_000)
        with LineFile(path) as file:
            assert list(file.lines()) == whole.splitlines(keepends=True)
            file.append(b"c\n")
        assert path.read_bytes() == whole + b"c\n"


def test_the_journal_knows_when_a_line_was_sent(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    first, second = Sending(2, 11, NOW), Sending(14, 20, NOW + timedelta(hours=1))
    with Journal(path, RUN) as journal:
        journal.note(first)
        journal.note(second)
    with Journal(path, RUN) as journal:
        known = [journal.sending_of(line) for line in (1, 2, 11, 12, 14, 20, 21)]
    assert known == [None, first, first, None, second, second, None]


def test_keys_are_forgotten_after_a_day() -> None:
    sending = Sending(2, 3, NOW)
    assert not sending.is_forgotten(NOW + timedelta(hours=23, minutes=49))
    assert sending.is_forgotten(NOW + timedelta(hours=23, minutes=50))


@pytest.mark.parametrize(
    "other",
    [
        Run("6" * 64, RUN.url, RUN.name),
        Run(RUN.file_sha256, "http://b", RUN.name),
        Run(RUN.file_sha256, RUN.url, "x"),
    ],
)
def test_a_journal_belongs_to_one_load(tmp_path: Path, other: Run) -> None:
    Journal(tmp_path / "journal", RUN).close()
    with pytest.raises(JournalMismatch):
        Journal(tmp_path / "journal", other)
    Journal(tmp_path / "journal", RUN).close()


def test_keys_differ_by_line_content_and_name_but_not_by_address() -> None:
    runs = [RUN, Run("6" * 64, RUN.url, ""), Run(RUN.file_sha256, RUN.url, "x")]
    assert len({run.key(line) for run in runs for line in (2, 3)}) == 6
    assert Run(RUN.file_sha256, "http://b", "").key(2) == RUN.key(2)


def test_a_result_is_one_line_whatever_its_detail_holds(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    with Results(path) as results:
        results.add([LineResult(2, "1", "refused", "", "X", 'a\n"b",\r\nc' + "d" * 9999)])
    assert len(path.read_bytes().splitlines()) == 2
    with Results(path) as results:
        assert (results.last_line, results.counts) == (2, {"refused": 1})


def test_results_that_go_backwards_are_none(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    with Results(path) as results:
        results.add([LineResult(3, "1", "accepted"), LineResult(4, "1", "accepted")])
    path.write_text(path.read_text() + "4,1,accepted,,,\n")
    with pytest.raises(ResultsMismatch, match="line 4 follows line 4"):
        Results(path)


def test_columns_may_stand_in_any_order_beside_others(tmp_path: Path) -> None:
    source = tmp_path / "orders.csv"
    source.write_text(
        "Note,share_price,total_shares,issuer_name,operation,timestamp,account_id\r\n"
        'hello,1.5,2,"A, B",SELL,NOW,7\r\n'
    )
    (row,) = read_rows(source)
    assert row.order is not None
    assert (row.order.account_id, row.order.issuer_name, row.order.timestamp) == (7, "A, B", None)
    assert know(source).rows == 1


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    source = tmp_path / "orders.csv"
    source.write_text("account_id,timestamp,operation,issuer_name,total_shares\n")
    with pytest.raises(SourceError, match="no column share_price"):
        know(source)


def test_a_load_killed_in_the_middle_and_run_again_records_each_line_once(
    fake: FakeService, tmp_path: Path
) -> None:
    count = 3_000
    source = write(tmp_path / "orders.csv", [line(number) for number in range(count)])
    for kill_at in (400, 1_000, 1_777):
        process = start_load(fake, source)
        until = time.monotonic() + WAIT_SECONDS
        while len(fake.recorded) < kill_at and process.poll() is None:
            assert time.monotonic() < until
            time.sleep(0.001)
        assert process.poll() is None, "it was done before it could be killed"
        process.kill()
        process.wait(WAIT_SECONDS)
    last = start_load(fake, source)
    assert last.wait(WAIT_SECONDS) == 0
    assert lines_of(source) == list(range(2, count + 2))
    assert {result["order_id"] for result in results_of(source)} == set(fake.orders)
    assert is_each_recorded_once(fake, count)


def start_load(fake: FakeService, source: Path) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        command_of(fake, source, chunk=20), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def command_of(fake: FakeService, source: Path, chunk: int) -> list[str]:
    command = [sys.executable, "-m", "order_client", "--url", fake.url, "bulk", "load"]
    return [*command, str(source), "--chunk", str(chunk)]


# A process of its own between them: a child's peak counts what its parent had when it forked.
PEAK_OF_CHILD = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def peak_memory(command: list[str]) -> int:
    """The most that the command had in memory, in the system's unit."""
    measured = [sys.executable, "-c", PEAK_OF_CHILD, *command]
    done = subprocess.run(measured, check=True, capture_output=True, text=True, timeout=90)
    return int(done.stdout)


def test_memory_does_not_grow_with_the_file(fake: FakeService, tmp_path: Path) -> None:
    fake.keeps_orders = False
    peaks = []
    for count in (2_000, 100_000):
        folder = tmp_path / str(count)
        folder.mkdir()
        source = write(folder / "orders.csv", [line(number) for number in range(count)])
        peaks.append(peak_memory(command_of(fake, source, chunk=1000)))
        assert len(results_of(source)) == count
    assert peaks[1] < 1.1 * peaks[0], peaks
