"""The client package and its command line over the real thing."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest

import order_client
from local.processes import group_members
from order_client import Client, NewOrder, Position, Status
from tests.integration.client import until
from tests.stack import Engines, Stack

pytestmark = [pytest.mark.integration]

SECONDS = 20.0
MEBIBYTE = 2**20
HEADER = "account_id,timestamp,operation,issuer_name,total_shares,share_price\n"


@pytest.fixture(scope="module")
def url(stacks: dict[int, Stack]) -> str:
    return stacks[1].url


@pytest.fixture(scope="module")
def orders(url: str) -> Iterator[Client]:
    with Client(url) as client:
        yield client


def test_an_order_is_followed_to_its_decision(orders: Client) -> None:
    account = orders.open_account("1000.00000001")
    order = orders.place_and_wait(account.id, "BUY", "GBM", 10, Decimal("50.5"), seconds=SECONDS)
    assert order.status is Status.EXECUTED
    assert order.current_balance is not None
    assert order.current_balance.cash == Decimal("495.00000001")
    assert orders.account(account.id).issuers == (Position("GBM", 10, Decimal("50.5")),)
    assert orders.order(account.id, order.id) == order


def test_a_rejection_has_its_reasons(orders: Client) -> None:
    account = orders.open_account(0)
    order = orders.place_and_wait(account.id, "SELL", "GBM", 10, 50, seconds=SECONDS)
    assert order.status is Status.REJECTED
    assert order.business_errors == ("INSUFFICIENT_STOCKS",)


def test_a_key_gives_one_order(orders: Client) -> None:
    account = orders.open_account(1000)
    first, second = (
        orders.place(account.id, "BUY", "GBM", 1, 1, timestamp=time_of_now, idempotency_key="once")
        for time_of_now in [str(int(time.time()))] * 2
    )
    assert second == first
    assert len(list(orders.orders(account.id))) == 1


def test_all_orders_are_listed_newest_first(orders: Client) -> None:
    account = orders.open_account(1000)
    placed = [orders.place(account.id, "BUY", "GBM", shares, 1).id for shares in range(1, 8)]
    assert [order.id for order in orders.orders(account.id, page_orders=3)] == placed[::-1]


def test_what_is_wrong_is_an_error_of_its_kind(orders: Client) -> None:
    account = orders.open_account(0)
    with pytest.raises(order_client.NotFound) as missing:
        orders.account(10**15)
    assert missing.value.code == "ACCOUNT_NOT_FOUND"
    with pytest.raises(order_client.NotFound) as missing:
        orders.order(account.id, "x")
    assert missing.value.code == "ORDER_NOT_FOUND"
    with pytest.raises(order_client.Invalid) as invalid:
        orders.place(account.id, "HOLD", "GBM", 0, 1)
    assert [error.pointer for error in invalid.value.errors] == ["/operation", "/total_shares"]


def test_a_decided_order_cannot_be_cancelled(orders: Client) -> None:
    account = orders.open_account(1000)
    order = orders.place_and_wait(account.id, "BUY", "GBM", 1, 1, seconds=SECONDS)
    with pytest.raises(order_client.Conflict):
        orders.cancel(account.id, order.id)


def test_orders_sent_in_bulk_are_decided_in_their_sequence(orders: Client) -> None:
    account = orders.open_account(10)
    sent = [NewOrder(account.id, "BUY", "GBM", 6, 1), NewOrder(account.id, "BUY", "GBM", 5, 1)]
    results = list(orders.bulk([*sent, NewOrder(10**15, "BUY", "GBM", 1, 1)]))
    accepted = [result.order for result in results if result.order]
    assert [orders.wait(account.id, order.id, seconds=SECONDS).status for order in accepted] == [
        Status.EXECUTED,
        Status.REJECTED,
    ]
    assert results[2].problem is not None
    assert results[2].problem.code == "ACCOUNT_NOT_FOUND"


def test_the_command_line_does_the_same(url: str) -> None:
    account_id = json.loads(run(url, "account", "create", "--cash", "1000", "--json"))["id"]
    place = ["order", "place", str(account_id), "buy", "GBM", "10", "50.5"]
    placed = json.loads(run(url, *place, "--wait", str(SECONDS), "--json"))
    assert placed["status"] == "executed"
    shown = run(url, "order", "show", str(account_id), placed["id"], "--json")
    assert json.loads(shown) == placed
    assert "BUY 10 GBM at 50.5" in run(url, "order", "watch", str(account_id), placed["id"])
    assert "495" in run(url, "account", "show", str(account_id))


@pytest.mark.fault
def test_a_file_loaded_through_kills_of_both_sides_is_recorded_line_by_line_once(
    engines: Engines, tmp_path: Path
) -> None:
    count = 4_000
    with Stack(engines, api_processes=1) as stack, Client(stack.url) as client:
        accounts = [client.open_account(10**9).id for _ in range(40)]
        source = tmp_path / "orders.csv"
        source.write_text(HEADER + "".join(_line(accounts, number) for number in range(count)))
        results = tmp_path / "orders.results.csv"

        loading = start(stack.url, source)
        until(lambda: _lines(results), lambda lines: lines > count // 4, SECONDS)
        assert loading.poll() is None
        loading.kill()
        loading.wait(SECONDS)

        loading = start(stack.url, source)
        until(lambda: _lines(results), lambda lines: lines > count // 2, SECONDS)
        assert loading.poll() is None
        stack.api.kill()
        time.sleep(0.5)
        stack.api.start()
        assert loading.wait(60) == 0

        with results.open(newline="") as file:
            found = list(csv.DictReader(file))
        assert [int(row["line"]) for row in found] == list(range(2, count + 2))
        assert {row["status"] for row in found} == {"accepted"}
        recorded = Counter(
            order.id
            for account_id in accounts
            for order in client.orders(account_id, page_orders=200)
        )
        assert recorded == Counter(row["order_id"] for row in found)


@pytest.mark.fault
def test_ctrl_c_leaves_a_load_that_can_go_on(
    stacks: dict[int, Stack], orders: Client, tmp_path: Path
) -> None:
    count = 12_000
    accounts = [orders.open_account(10**9).id for _ in range(40)]
    source = tmp_path / "orders.csv"
    source.write_text(HEADER + "".join(_line(accounts, number) for number in range(count)))
    results = tmp_path / "orders.results.csv"
    loading = start(stacks[1].url, source)
    until(lambda: _lines(results), lambda lines: lines > 200, SECONDS)
    os.kill(loading.pid, signal.SIGINT)
    assert loading.wait(SECONDS) == 130
    assert start(stacks[1].url, source).wait(60) == 0
    recorded = sum(1 for account_id in accounts for _ in orders.orders(account_id, page_orders=200))
    assert recorded == count == _lines(results) - 1


@pytest.mark.timeout(400)
@pytest.mark.parametrize("count", [20_000, pytest.param(100_000, marks=pytest.mark.slow)], ids=str)
def test_a_long_file_grows_neither_the_client_nor_the_api(
    engines: Engines, tmp_path: Path, count: int
) -> None:
    with Stack(engines, api_processes=1) as stack, Client(stack.url) as client:
        accounts = [client.open_account(10**9).id for _ in range(100)]
        peaks = [
            _load_and_watch(stack, accounts, tmp_path / f"{lines}.csv", lines)
            for lines in (5_000, count)
        ]
    (client_short, api_short), (client_long, api_long) = peaks
    assert client_long - client_short < 2 * MEBIBYTE, peaks
    assert api_long - api_short < 12 * MEBIBYTE, peaks


def _load_and_watch(stack: Stack, accounts: list[int], source: Path, count: int) -> tuple[int, int]:
    """Load ``count`` lines; returns the most bytes that client and API had until then."""
    with source.open("w") as file:
        file.write(HEADER)
        file.writelines(_line(accounts, number) for number in range(count))
    loading = start(stack.url, source, chunk=1000)
    client_peak = 0
    while loading.poll() is None:
        client_peak = max(client_peak, peak_of(loading.pid))
        time.sleep(0.05)
    assert loading.returncode == 0
    with source.with_suffix(".results.csv").open(newline="") as file:
        statuses = Counter(row["status"] for row in csv.DictReader(file))
    assert statuses == {"accepted": count}
    (worker,) = (pid for pid in group_members(stack.api.pid) if pid != stack.api.pid)
    return client_peak, peak_of(worker)


def peak_of(pid: int) -> int:
    """The most bytes that a process had in memory until now; 0 once it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def run(url: str, *arguments: str) -> str:
    command = [sys.executable, "-m", "order_client", "--url", url, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def start(url: str, source: Path, chunk: int = 100) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "order_client", "--url", url, "bulk", "load", str(source)]
    # Who runs tests in the background has them ignore SIGINT, and their children too.
    return subprocess.Popen(
        [*command, "--chunk", str(chunk)], stdout=subprocess.DEVNULL, preexec_fn=_heed_sigint
    )


def _heed_sigint() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _line(accounts: list[int], number: int) -> str:
    return f"{accounts[number % len(accounts)]},now,BUY,GBM,{number + 1},0.5\n"


def _lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0
