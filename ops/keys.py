"""Access keys: who may call the API, and for which accounts."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import click

from ops.connections import open_gateway, read_settings, store_errors_said
from shared.access import (
    KEY_NAME_LENGTH_MAX,
    AccessKey,
    Scope,
    check_accounts,
    digest_of,
    is_key_id,
    new_key,
    new_key_id,
)
from shared.order_store import access
from shared.order_store.access import AccessKeyRefused
from shared.order_store.errors import UnreadableItem
from shared.representation import iso_utc

GRACE_SECONDS_DEFAULT: Final = 3_600
GRACE_SECONDS_MAX: Final = 30 * 86_400
DAYS_MAX: Final = 3_650

_ACCOUNTS_SHOWN: Final = 5


class KeyId(click.ParamType[str]):
    """An access key's id on the command line."""

    name = "ID"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Read ``1f0c5e77a2b4``, and never repeat what may be a secret."""
        text = str(value)
        if not is_key_id(text):
            self.fail(
                "A key is named by its id, 12 hexadecimal digits: see `keys list`.", param, ctx
            )
        return text


ID: Final = KeyId()


@click.group()
def keys() -> None:
    """Access keys of the API: create, list, rotate, revoke.

    A key is shown once, when it is made; the table holds its SHA-256 alone.
    """


@keys.command("create")
@click.option("--name", required=True, help="Who has it and what for; any text.")
@click.option(
    "--account",
    "accounts",
    metavar="ID",
    type=click.IntRange(min=1),
    multiple=True,
    help="Good for this account; may be given several times.",
)
@click.option("--all-accounts", is_flag=True, help="Good for every account, and to open accounts.")
@click.option("--operator", is_flag=True, help="The same, and for what operators look at.")
@click.option("--days", type=click.IntRange(1, DAYS_MAX), help="Good for so many days only.")
def create(
    name: str, accounts: Sequence[int], days: int | None, *, all_accounts: bool, operator: bool
) -> None:
    """Make a key and show it, once.

    The key alone is written to standard output, so that it may go straight into a file.
    """
    scope = _scope(accounts, all_accounts=all_accounts, operator=operator)
    gateway = open_gateway(read_settings())
    key_id = new_key_id()
    written = new_key(key_id)
    now = _now()
    try:
        key = AccessKey(
            id=key_id,
            name=_checked_name(name),
            scope=scope,
            accounts=check_accounts(scope, accounts),
            created_at=now,
            digest=digest_of(written),
            expires_at=now + timedelta(days=days) if days else None,
        )
    except ValueError as error:
        raise click.UsageError(f"{error}.") from error
    with _refusals_said(key_id):
        access.create_key(gateway, key)
    click.echo(f"Key {key_id} is good for {_reach(key)}. It is shown this once:", err=True)
    click.echo(written)


@keys.command("list")
@click.option("--json", "as_json", is_flag=True, help="A line of JSON for each key.")
def list_keys(*, as_json: bool) -> None:
    """List all keys, without their secrets.

    Ends with 1 if one cannot be read (no such key lets anybody in).
    """
    gateway = open_gateway(read_settings())
    now, count, damaged = _now(), 0, 0
    with store_errors_said():
        for key in access.list_keys(gateway):
            if isinstance(key, UnreadableItem):
                damaged += 1
                click.echo(f"Damaged, lets nobody in: {key}", err=True)
                continue
            count += 1
            click.echo(json.dumps(_summary(key, now)) if as_json else _line(key, now))
    if not as_json:
        click.echo(f"{count or 'No'} key{'' if count == 1 else 's'}.")
    if damaged:
        raise SystemExit(1)


@keys.command("rotate")
@click.argument("key_id", metavar="ID", type=ID)
@click.option(
    "--grace",
    "grace_seconds",
    metavar="SECONDS",
    type=click.IntRange(0, GRACE_SECONDS_MAX),
    default=GRACE_SECONDS_DEFAULT,
    show_default=True,
    help="How long the secret before is good; 0 where it leaked.",
)
def rotate(key_id: str, grace_seconds: int) -> None:
    """Give a key a new secret and show it, once."""
    gateway = open_gateway(read_settings())
    written = new_key(key_id)
    with _refusals_said(key_id):
        access.rotate_key(
            gateway, key_id, digest_of(written), _now(), timedelta(seconds=grace_seconds)
        )
    click.echo(
        f"Key {key_id} has a new secret; the one before is good for {grace_seconds} s more."
        " It is shown this once:",
        err=True,
    )
    click.echo(written)


@keys.command("revoke")
@click.argument("key_ids", metavar="ID...", type=ID, nargs=-1, required=True)
def revoke(key_ids: Sequence[str]) -> None:
    """Revoke keys for good; every API knows of it within seconds.

    Ends with 1 if one was not revoked.
    """
    gateway = open_gateway(read_settings())
    failed = 0
    for key_id in key_ids:
        try:
            with _refusals_said(key_id):
                access.revoke_key(gateway, key_id, _now())
        except click.ClickException as error:
            failed += 1
            click.echo(error.message, err=True)
        else:
            click.echo(f"{key_id}: revoked")
    if failed:
        raise SystemExit(1)


def _scope(accounts: Sequence[int], *, all_accounts: bool, operator: bool) -> Scope:
    if sum((bool(accounts), all_accounts, operator)) != 1:
        raise click.UsageError("Say one of --account, --all-accounts and --operator.")
    if operator:
        return Scope.OPERATOR
    return Scope.ALL_ACCOUNTS if all_accounts else Scope.ACCOUNTS


def _checked_name(name: str) -> str:
    if not 0 < len(name) <= KEY_NAME_LENGTH_MAX or not name.isprintable():
        raise ValueError(f"a name has 1 to {KEY_NAME_LENGTH_MAX} printable characters")
    return name


@contextmanager
def _refusals_said(key_id: str) -> Iterator[None]:
    try:
        with store_errors_said():
            yield
    except AccessKeyRefused as refused:
        raise click.ClickException(f"{key_id}: {refused}.") from refused


def _line(key: AccessKey, now: datetime) -> str:
    return f"{key.id}  {_state(key, now):<8}  {_reach(key)}  {key.name}"


def _reach(key: AccessKey) -> str:
    if key.scope is Scope.OPERATOR:
        return "operators, all accounts"
    if key.scope is Scope.ALL_ACCOUNTS:
        return "all accounts"
    shown = ", ".join(map(str, sorted(key.accounts)[:_ACCOUNTS_SHOWN]))
    more = len(key.accounts) - _ACCOUNTS_SHOWN
    plural = "" if len(key.accounts) == 1 else "s"
    return f"account{plural} {shown}" + (f" and {more} more" if more > 0 else "")


def _state(key: AccessKey, now: datetime) -> str:
    if key.revoked_at is not None:
        return "revoked"
    if key.expires_at is not None and now >= key.expires_at:
        return "expired"
    return "good"


def _summary(key: AccessKey, now: datetime) -> dict[str, Any]:
    return {
        "id": key.id,
        "name": key.name,
        "state": _state(key, now),
        "scope": key.scope,
        "accounts": sorted(key.accounts),
        "created_at": iso_utc(key.created_at),
        "expires_at": iso_utc(key.expires_at) if key.expires_at else None,
        "revoked_at": iso_utc(key.revoked_at) if key.revoked_at else None,
        "previous_secret_until": iso_utc(key.previous_until) if key.previous_until else None,
    }


def _now() -> datetime:
    return datetime.now(UTC)
