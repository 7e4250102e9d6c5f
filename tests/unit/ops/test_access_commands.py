"""The operators' commands for keys and networks: what they say, do, and end with."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner, Result

from ops import keys as keys_command
from ops import networks as networks_command
from ops.__main__ import main
from ops.keys import DAYS_MAX, GRACE_SECONDS_MAX
from shared.access import KEY_ACCOUNTS_MAX, KEY_NAME_LENGTH_MAX, Scope, digest_of, id_in
from shared.networks import NETWORKS_MAX
from shared.order_store import access, keys
from shared.order_store.errors import StoreUnavailable
from shared.order_store.gateway import Gateway
from shared.settings import Settings
from tests.unit.factories import new_table, overwrite

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

Run = Callable[..., Result]


@pytest.fixture
def gateway(client: "DynamoDBClient") -> Gateway:
    return new_table(client)


@pytest.fixture
def run(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> Run:
    for command in (keys_command, networks_command):
        monkeypatch.setattr(command, "read_settings", Settings)
        monkeypatch.setattr(command, "open_gateway", lambda _settings: gateway)

    def run_(*arguments: str) -> Result:
        result = CliRunner().invoke(main, arguments)
        assert result.exception is None or isinstance(result.exception, SystemExit)
        return result

    return run_


def created(run: Run, *arguments: str) -> str:
    """Make a key; what standard output holds is the key and nothing else."""
    result = run("keys", "create", "--name", "desk 7", *arguments)
    assert result.exit_code == 0, result.output
    written = result.stdout.removesuffix("\n")
    assert id_in(written) is not None
    return written


def key_id(written: str) -> str:
    found = id_in(written)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("arguments", "scope", "accounts", "said"),
    [
        (["--account", "12"], Scope.ACCOUNTS, {12}, "account 12."),
        (["--account", "12", "--account", "7"], Scope.ACCOUNTS, {7, 12}, "accounts 7, 12."),
        (["--all-accounts"], Scope.ALL_ACCOUNTS, set(), "all accounts."),
        (["--operator"], Scope.OPERATOR, set(), "operators, all accounts."),
    ],
)
def test_a_key_is_created_for_its_scope_and_shown_once(
    run: Run, gateway: Gateway, arguments: list[str], scope: Scope, accounts: set[int], said: str
) -> None:
    result = run("keys", "create", "--name", "desk 7", *arguments)
    written = result.stdout.strip()
    key = access.load_key(gateway, key_id(written))
    assert key is not None
    assert (key.name, key.scope, set(key.accounts)) == ("desk 7", scope, accounts)
    assert key.admits(digest_of(written), datetime.now(UTC))
    assert key.expires_at is None
    assert said in result.stderr
    assert written not in run("keys", "list").output
    assert written.partition(".")[2] not in run("keys", "list", "--json").output


def test_a_key_may_end_by_itself(run: Run, gateway: Gateway) -> None:
    key = access.load_key(gateway, key_id(created(run, "--operator", "--days", "30")))
    assert key is not None
    assert key.expires_at == key.created_at + timedelta(days=30)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--account", "1", "--operator"],
        ["--all-accounts", "--operator"],
        ["--account", "0"],
        ["--account", "x"],
        ["--operator", "--days", "0"],
    ],
)
def test_a_key_without_one_clear_scope_is_not_created(
    run: Run, gateway: Gateway, arguments: list[str]
) -> None:
    result = run("keys", "create", "--name", "x", *arguments)
    assert result.exit_code == 2
    assert list(access.list_keys(gateway)) == []


def test_names_and_accounts_of_a_key_are_bounded(run: Run) -> None:
    fits, beyond = "x" * KEY_NAME_LENGTH_MAX, "x" * (KEY_NAME_LENGTH_MAX + 1)
    assert run("keys", "create", "--operator", "--name", fits).exit_code == 0
    for name in (beyond, "", "a\nb", "\x1b[2J"):
        assert run("keys", "create", "--operator", "--name", name).exit_code == 2
    accounts = [
        part for number in range(KEY_ACCOUNTS_MAX) for part in ("--account", str(number + 1))
    ]
    assert run("keys", "create", "--name", "x", *accounts).exit_code == 0
    assert run("keys", "create", "--name", "x", *accounts, "--account", "5000").exit_code == 2


def test_the_life_of_a_key_and_of_a_replaced_secret_is_bounded(run: Run) -> None:
    rotated = key_id(created(run, "--operator", "--days", str(DAYS_MAX)))
    beyond = run("keys", "create", "--name", "x", "--operator", "--days", str(DAYS_MAX + 1))
    assert beyond.exit_code == 2
    for seconds, code in ((GRACE_SECONDS_MAX, 0), (GRACE_SECONDS_MAX + 1, 2)):
        assert run("keys", "rotate", rotated, "--grace", str(seconds)).exit_code == code


def test_keys_are_listed_with_their_state(run: Run, gateway: Gateway) -> None:
    assert run("keys", "list").stdout == "No keys.\n"
    good, revoked = created(run, "--account", "12"), created(run, "--operator")
    assert run("keys", "revoke", key_id(revoked)).exit_code == 0
    *lines, count = run("keys", "list").stdout.splitlines()
    assert sorted(lines) == sorted(
        [
            f"{key_id(good)}  good      account 12  desk 7",
            f"{key_id(revoked)}  revoked   operators, all accounts  desk 7",
        ]
    )
    assert count == "2 keys."
    shown = [json.loads(line) for line in run("keys", "list", "--json").stdout.splitlines()]
    assert {one["id"]: one["state"] for one in shown} == {
        key_id(good): "good",
        key_id(revoked): "revoked",
    }


def test_a_damaged_key_is_told_in_the_list(run: Run, gateway: Gateway) -> None:
    damaged = key_id(created(run, "--operator"))
    overwrite(gateway, keys.access_key_key(damaged), "scope", {"S": "?"})
    result = run("keys", "list")
    assert result.exit_code == 1
    assert damaged in result.stderr
    assert run("keys", "revoke", damaged).exit_code == 0


def test_a_rotated_key_is_shown_once_and_the_one_before_stays_good_for_the_grace(
    run: Run, gateway: Gateway
) -> None:
    before = created(run, "--account", "12")
    result = run("keys", "rotate", key_id(before), "--grace", "60")
    after = result.stdout.strip()
    assert key_id(after) == key_id(before)
    key = access.load_key(gateway, key_id(before))
    assert key is not None
    now = datetime.now(UTC)
    assert key.admits(digest_of(after), now)
    assert key.admits(digest_of(before), now)
    assert not key.admits(digest_of(before), now + timedelta(seconds=60))
    assert "60 s more" in result.stderr


def test_a_leaked_secret_is_ended_at_once(run: Run, gateway: Gateway) -> None:
    leaked = created(run, "--account", "12")
    assert run("keys", "rotate", key_id(leaked), "--grace", "0").exit_code == 0
    key = access.load_key(gateway, key_id(leaked))
    assert key is not None
    assert not key.admits(digest_of(leaked), datetime.now(UTC))


def test_what_cannot_be_rotated_or_revoked_is_said(run: Run) -> None:
    key = key_id(created(run, "--operator"))
    assert run("keys", "revoke", key).stdout == f"{key}: revoked\n"
    for arguments in (["rotate", key], ["revoke", key], ["rotate", "0" * 12], ["revoke", "0" * 12]):
        result = run("keys", *arguments)
        assert result.exit_code == 1
        assert arguments[1] in result.stderr


def test_one_key_that_is_not_there_keeps_no_other_from_being_revoked(
    run: Run, gateway: Gateway
) -> None:
    key = key_id(created(run, "--operator"))
    result = run("keys", "revoke", "0" * 12, key)
    assert result.exit_code == 1
    revoked = access.load_key(gateway, key)
    assert revoked is not None
    assert revoked.revoked_at is not None


def test_a_whole_key_on_the_command_line_is_refused_and_not_repeated(run: Run) -> None:
    written = created(run, "--operator")
    result = run("keys", "revoke", written)
    assert result.exit_code == 2
    assert written.partition(".")[2] not in result.output


def test_without_the_store_a_command_ends_with_one_line(
    run: Run, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object, **__: object) -> None:
        raise StoreUnavailable("away")

    for method in ("update", "query", "get", "transact"):
        monkeypatch.setattr(Gateway, method, away)
    for arguments in (
        ["keys", "create", "--name", "x", "--operator"],
        ["keys", "list"],
        ["keys", "rotate", "0" * 12],
        ["keys", "revoke", "0" * 12],
        ["networks", "allow", "10.0.0.0/8"],
        ["networks", "list"],
        ["networks", "remove", "10.0.0.0/8"],
    ):
        result = run(*arguments)
        assert result.exit_code == 1
        assert "DynamoDB did not do as asked: away" in result.stderr
        assert "op_live_" not in result.output


# Networks


def test_networks_are_allowed_denied_listed_and_removed(run: Run) -> None:
    assert run("networks", "list").stdout == "Every network may call.\n"
    assert run("networks", "allow", "10.0.0.0/8").exit_code == 0
    assert run("networks", "deny", "10.0.0.7").stdout == "10.0.0.7/32: denied\n"
    assert run("networks", "deny", "2001:DB8::/32").exit_code == 0
    assert run("networks", "list").stdout.splitlines() == [
        "allow 10.0.0.0/8",
        "deny  10.0.0.7/32",
        "deny  2001:db8::/32",
    ]
    assert run("networks", "remove", "10.0.0.7/32").exit_code == 0
    assert run("networks", "remove", "10.0.0.7/32").exit_code == 1
    assert "10.0.0.7" not in run("networks", "list").stdout


@pytest.mark.parametrize("network", ["10.0.0.1/8", "10.0.0.0/33", "example.com", "", "10.0.0"])
def test_what_is_no_network_is_refused(run: Run, network: str) -> None:
    assert run("networks", "deny", network).exit_code == 2


def test_the_number_of_networks_is_bounded(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = [("DENY", f"10.0.0.{number}/32") for number in range(NETWORKS_MAX)]
    monkeypatch.setattr(access, "networks", lambda _gateway: entries)
    result = run("networks", "deny", "192.0.2.1")
    assert result.exit_code == 1
    assert str(NETWORKS_MAX) in result.stderr
    monkeypatch.setattr(access, "networks", lambda _gateway: entries[1:])
    assert run("networks", "deny", "192.0.2.1").exit_code == 0
