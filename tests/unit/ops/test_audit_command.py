"""``python -m ops audit``: what it prints, and how it ends."""

import json
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner, Result

from ops import audit as command
from ops.__main__ import main
from ops.auditor import Auditor
from ops.options import _SEGMENTS_MAX
from shared.order_store import accepts, items, keys
from shared.order_store.gateway import Gateway
from tests.unit.factories import (
    accept,
    make_account,
    make_order,
    make_settler,
    new_table,
    open_account,
    overwrite,
    ref,
)

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

ORDER = make_order("BUY", "GBM", 2, "50")


@pytest.fixture
def gateway(client: "DynamoDBClient", monkeypatch: pytest.MonkeyPatch) -> Gateway:
    """A table with two accounts, which the command uses; the first executed an order."""
    gateway = new_table(client)
    monkeypatch.setenv("TABLE_NAME", gateway.table_name)
    monkeypatch.setattr(command, "open_client", lambda _connections: client)
    accepts.allocate_account_ids(gateway, 2)
    for account_id in (1, 2):
        open_account(gateway, make_account("1000", account_id=account_id))
    accept(gateway, ORDER)
    make_settler(gateway).settle([ref(ORDER)])
    return gateway


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["audit", *arguments])


def spoil(gateway: Gateway) -> None:
    overwrite(gateway, keys.account_key(1), "cash", items.number(901))


def test_so_many_parts_are_read_at_once_and_no_more(gateway: Gateway) -> None:
    assert run("--segments", str(_SEGMENTS_MAX)).exit_code == 0
    beyond = run("--segments", str(_SEGMENTS_MAX + 1))
    assert beyond.exit_code == 2
    assert "1<=x<=64" in beyond.output


def test_a_clean_table_ends_with_0_and_a_summary(gateway: Gateway) -> None:
    result = run()
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0] == "2 accounts, 1 order (1 executed)"
    assert lines[1] == "Other items: 1 counter"
    assert lines[2] == (
        "Cash: opened with 2000, now 1900: 100 gone, 100 paid by executed orders, which agrees"
    )
    assert lines[3] == "0 differences in 0 accounts"
    assert lines[4].endswith("orders/s")
    assert result.stderr == ""


def test_differences_end_with_1_and_a_line_each(gateway: Gateway) -> None:
    spoil(gateway)
    result = run()
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    assert lines[0] == "account 1: cash: expected 900, found 901"
    assert "99 gone, 100 paid by executed orders, WHICH DOES NOT AGREE" in lines[3]
    assert lines[4] == "1 difference in 1 account"


def test_a_difference_at_an_order_names_it(gateway: Gateway) -> None:
    overwrite(gateway, keys.order_key(*ref(ORDER)), "share_price", items.number(51))
    result = run()
    assert result.exit_code == 1
    assert result.stdout.splitlines()[0] == (
        f"account 1, order {ORDER.id}: balance: expected cash 898, 2 GBM at 51, "
        "found cash 900, 2 GBM at 50"
    )


def test_json_has_a_line_for_each_difference_and_a_summary(gateway: Gateway) -> None:
    spoil(gateway)
    result = run("--json")
    assert result.exit_code == 1
    first, last = (json.loads(line) for line in result.stdout.splitlines())
    assert first == {
        "type": "difference",
        "account_id": 1,
        "order_id": None,
        "what": "cash",
        "expected": "900",
        "found": "901",
        "orders": 0,
    }
    assert last["type"] == "summary"
    assert last["accounts"] == 2
    assert last["differences"] == 1
    assert last["cash_paid_by_orders"] == "100"
    assert last["balanced"] is False


@pytest.mark.parametrize(("account_id", "exit_code"), [("1", 1), ("2", 0)])
def test_one_account_is_audited_alone(gateway: Gateway, account_id: str, exit_code: int) -> None:
    spoil(gateway)
    result = run("--account", account_id)
    assert result.exit_code == exit_code
    assert "1 account, " in result.stdout


def test_an_account_that_is_not_there_cannot_be_audited(gateway: Gateway) -> None:
    result = run("--account", "7")
    assert result.exit_code == 2
    assert result.stderr == "Error: The audit could not be carried out: there is no account 7.\n"


def test_a_table_that_is_not_there_is_said_in_a_line(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TABLE_NAME", "nowhere")
    monkeypatch.setattr("shared.order_store.scan.READ_ATTEMPTS", 1)
    result = run()
    assert result.exit_code == 2
    assert result.stderr.startswith("Error: DynamoDB did not do as asked: ResourceNotFound")
    assert len(result.stderr.splitlines()) == 1


def test_a_boto_that_is_not_set_up_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_DEFAULT_REGION", "AWS_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    result = run()
    assert result.exit_code == 2
    assert "boto is not set up" in result.stderr


def test_an_impossible_setting_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECOVER_AFTER", "never")
    result = run()
    assert result.exit_code == 2
    assert "RECOVER_AFTER" in result.stderr


def test_an_audit_that_is_stopped_does_not_look_like_one_that_found_something(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Auditor, "table", stopped)
    result = run()
    assert result.exit_code == 2
    assert "Stopped" in result.stderr


@pytest.mark.parametrize(("option", "is_shown"), [("--progress", True), ("--no-progress", False)])
def test_progress_is_shown_on_standard_error_if_asked_for(
    gateway: Gateway, option: str, is_shown: bool
) -> None:
    result = run(option)
    assert result.exit_code == 0
    assert ("items/s" in result.stderr) is is_shown
    assert "items/s" not in result.stdout
