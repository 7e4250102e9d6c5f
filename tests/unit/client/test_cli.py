"""The command line: answers on standard output, the rest on standard error, telling exits."""

import json
from collections.abc import Callable

import click
import pytest
from click.testing import CliRunner, Result

import order_client.cli.settings
from order_client import Retry, __version__
from order_client.cli import output
from order_client.cli.main import main
from tests.unit.client.fake import FakeService, answer, drop_after, event, problem, raw

Run = Callable[..., Result]


@pytest.fixture
def run(fake: FakeService, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The command line over the fake service, quick to give up."""
    quick = Retry(attempts_max=2, base_seconds=0.01)
    monkeypatch.setattr(order_client.cli.settings, "_RETRY", quick)
    env = {"ORDERS_URL": fake.url, "ORDERS_KEY": "", "NO_COLOR": ""}

    def command(*arguments: str, **more: str) -> Result:
        return CliRunner().invoke(main, arguments, env={**env, **more})

    return command


@pytest.fixture
def placed(run: Run, fake: FakeService) -> str:
    """The id of a pending order of account 1."""
    return str(
        json.loads(run("order", "place", "1", "BUY", "GBM", "10", "50.5", "--json").stdout)["id"]
    )


def test_an_account_is_opened_and_shown(run: Run) -> None:
    opened = run("account", "create", "--cash", "1234567.50")
    assert opened.exit_code == 0
    assert opened.stdout == "Account 1\n  cash  1,234,567.50\n"
    shown = run("account", "show", "1", "--json")
    assert json.loads(shown.stdout) == {"id": 1, "cash": "1234567.50", "issuers": []}
    assert shown.stderr == ""


def test_an_order_is_placed_and_waited_for(run: Run) -> None:
    done = run("order", "place", "1", "BUY", "GBM", "1000", "50.5", "--wait", "5")
    assert done.exit_code == 0
    assert "executed\n  BUY 1,000 GBM at 50.5\n" in done.stdout


def test_a_rejection_is_said_in_words_and_ends_with_1(run: Run) -> None:
    done = run("order", "place", "1", "SELL", "GBM", "10", "50.5", "--wait", "5")
    assert done.exit_code == 1
    assert "it sells more shares than the account holds (INSUFFICIENT_STOCKS)" in done.stdout
    assert "the market is closed (CLOSED_MARKET)" in done.stdout


def test_without_waiting_any_accepted_order_is_fine(run: Run) -> None:
    done = run("order", "place", "1", "SELL", "GBM", "10", "50.5")
    assert done.exit_code == 0
    assert "pending" in done.stdout


def test_an_order_that_is_not_decided_in_time_ends_with_6(
    run: Run, fake: FakeService, placed: str
) -> None:
    fake.waits = False
    assert run("order", "watch", "1", placed, "--seconds", "0").exit_code == 6


def test_an_order_is_watched_until_it_is_decided(run: Run, placed: str) -> None:
    watched = run("order", "watch", "1", placed, "--json")
    assert watched.exit_code == 0
    assert json.loads(watched.stdout)["status"] == "executed"


def test_an_order_is_cancelled_once(run: Run, placed: str) -> None:
    assert "cancelled" in run("order", "cancel", "1", placed).stdout
    shown = run("order", "show", "1", placed, "--json")
    assert json.loads(shown.stdout)["status"] == "cancelled"


def test_a_decided_order_cannot_be_cancelled_which_ends_with_4(run: Run, placed: str) -> None:
    run("order", "watch", "1", placed)
    cancelled = run("order", "cancel", "1", placed)
    assert cancelled.exit_code == 4
    assert cancelled.stdout == ""
    assert cancelled.stderr.startswith("Error: so it is")


def test_orders_are_listed_as_a_table(run: Run, fake: FakeService) -> None:
    for name in ("GBM", "三菱", "A\x1b[2J"):
        fake.posted.clear()
        run("order", "place", "1", "BUY", name, "1000", "50.5")
    head, *rows = run("order", "list", "1").stdout.splitlines()
    assert " ".join(head.split()) == "ORDER STATUS SIDE SHARES ISSUER PRICE RECEIVED BECAUSE"
    assert [row.split()[4] for row in rows] == ["A\N{REPLACEMENT CHARACTER}[2J", "三菱", "GBM"]
    assert [row.split()[3] for row in rows] == ["1,000"] * 3


def test_orders_are_listed_for_scripts_line_by_line(run: Run, fake: FakeService) -> None:
    for _ in range(3):
        run("order", "place", "1", "BUY", "GBM", "1", "50.5")
    lines = run("order", "list", "1", "--json", "--limit", "2").stdout.splitlines()
    assert [json.loads(line)["id"] for line in lines] == sorted(fake.orders, reverse=True)[:2]
    assert len(run("order", "list", "1", "--json", "--limit", "0").stdout.splitlines()) == 3
    assert run("order", "list", "1", "--json", "--status", "executed").stdout == ""


def test_events_are_tailed(run: Run, fake: FakeService) -> None:
    rejected = event("8", id="h").replace(b'"business_errors": []', b'"business_errors": ["X"]')
    fake.streams.append([event("7", id="g"), rejected])
    tailed = run("tail", "1", "--after", "6", "--limit", "2")
    assert tailed.exit_code == 0
    first, second = tailed.stdout.splitlines()
    assert first == "2026-03-02 15:04:05Z  executed   BUY 10 GBM at 50.5  g"
    assert second.endswith("(X)")
    assert "orders tail 1 --after 8" in tailed.stderr


def test_events_are_tailed_for_scripts(run: Run, fake: FakeService) -> None:
    fake.streams.append([event("7", id="g")])
    tailed = run("tail", "1", "--json")
    assert [json.loads(line)["event"] for line in tailed.stdout.splitlines()] == ["7"]
    assert tailed.stderr == ""


@pytest.mark.parametrize(
    ("status", "exit_code"),
    [(404, 3), (400, 4), (401, 4), (403, 4), (409, 4), (422, 4), (429, 5), (500, 5), (503, 5)],
)
def test_each_failure_has_its_exit_and_says_why(
    run: Run, fake: FakeService, status: int, exit_code: int
) -> None:
    fake.faults += [answer(status, problem(status, "WHY"))] * 2
    failed = run("account", "show", "1")
    assert failed.exit_code == exit_code
    assert failed.stdout == ""
    assert failed.stderr.startswith("Error: so it is\n")
    fake.faults.clear()
    fake.faults += [answer(status, problem(status, "WHY"))] * 2
    failed = run("--json", "account", "show", "1")
    assert failed.exit_code == exit_code
    assert failed.stdout == ""
    assert json.loads(failed.stderr)["error"]["code"] == "WHY"


def test_an_answer_without_sense_ends_with_5(run: Run, fake: FakeService) -> None:
    fake.faults.append(raw(b"<html>"))
    failed = run("account", "show", "1", "--json")
    assert failed.exit_code == 5
    assert json.loads(failed.stderr)["error"]["code"] == "PROTOCOL_ERROR"


def test_an_order_of_unknown_fate_can_be_repeated_as_is_said(run: Run, fake: FakeService) -> None:
    fake.faults += [drop_after, drop_after]
    failed = run("order", "place", "1", "BUY", "GBM", "10", "50.5")
    assert failed.exit_code == 5
    said = failed.stderr.splitlines()[0].split("repeat with ")[1].split()
    again = run("order", "place", "1", "BUY", "GBM", "10", "50.5", *said)
    assert again.exit_code == 0
    assert list(fake.recorded.values()) == [1]


@pytest.mark.parametrize(
    "arguments",
    [
        ["order", "show", "1"],
        ["order", "show", "0", "x"],
        ["order", "show", "1", ""],
        ["order", "nonsense"],
        ["--url", "nowhere", "account", "show", "1"],
        ["order", "place", "1", "BUY", "\udcff", "1", "1"],
        ["order", "place", "1", "BUY", "X", "1", "1", "--idempotency-key", ""],
        ["order", "list", "1", "--status", "lost"],
        ["account", "create", "--key", "ñ"],
    ],
)
def test_a_mistake_in_the_command_ends_with_2_and_asks_nobody(
    run: Run, fake: FakeService, arguments: list[str]
) -> None:
    assert run(*arguments).exit_code == 2
    assert fake.seen == []


@pytest.mark.parametrize("place", ["before", "after", "environment"])
def test_settings_are_taken_from_wherever_they_stand(
    run: Run, fake: FakeService, place: str
) -> None:
    command, flags = ["account", "show", "1"], ["--key", "mine"]
    run("account", "create", ORDERS_KEY="other")
    match place:
        case "before":
            run(*flags, *command, ORDERS_KEY="other")
        case "after":
            run(*command, *flags, ORDERS_KEY="other")
        case _:
            run(*command, ORDERS_KEY="mine")
    sent = [seen.headers.get("Authorization") for seen in fake.seen]
    assert sent == ["Bearer other", "Bearer mine"]


def test_without_a_key_none_is_sent(run: Run, fake: FakeService) -> None:
    run("account", "create")
    assert "Authorization" not in fake.seen[0].headers


def test_colours_are_for_terminals(fake: FakeService, placed: str) -> None:
    shown = ["--url", fake.url, "order", "show", "1", placed]
    on_terminal = CliRunner().invoke(main, shown, color=True, env={"NO_COLOR": ""})
    assert click.style("pending", fg="yellow") in on_terminal.stdout
    assert "\x1b" not in CliRunner().invoke(main, shown).stdout
    assert "\x1b" not in CliRunner().invoke(main, shown, color=True, env={"NO_COLOR": "1"}).stdout


def test_the_version_is_told(run: Run) -> None:
    assert run("--version").stdout == f"orders, version {__version__}\n"


def test_columns_of_wide_letters_stay_in_line(capsys: pytest.CaptureFixture[str]) -> None:
    output.table(("A", "B"), [("三菱", "1"), ("ab", "22"), ("e\u0301", "3")], right=(1,))
    assert capsys.readouterr().out == "A      B\n三菱   1\nab    22\ne\u0301      3\n"
