"""``orders account``: open accounts and look at them."""

import uuid

import click

from order_client.cli import output
from order_client.cli.arguments import ACCOUNT_ID, IDEMPOTENCY_KEY, TEXT
from order_client.cli.settings import common_options, settings
from order_client.errors import Unavailable


@click.group("account")
def account_group() -> None:
    """Open accounts and look at them."""


@account_group.command("create")
@click.option(
    "--cash",
    default="0",
    show_default=True,
    metavar="AMOUNT",
    type=TEXT,
    help="Cash to begin with.",
)
@click.option(
    "--idempotency-key",
    metavar="TEXT",
    type=IDEMPOTENCY_KEY,
    help="Repeat an earlier try that had this key.",
)
@common_options
def create(cash: str, idempotency_key: str | None) -> None:
    """Open an account."""
    key = idempotency_key or uuid.uuid4().hex
    with settings().client() as client:
        try:
            opened = client.open_account(cash, idempotency_key=key)
        except Unavailable:
            output.say(f"It may have been opened: repeat with --idempotency-key {key}")
            raise
    output.account(opened, as_json=settings().as_json)


@account_group.command("show")
@click.argument("account_id", metavar="ACCOUNT", type=ACCOUNT_ID)
@common_options
def show(account_id: int) -> None:
    """Show an account: cash and positions."""
    with settings().client() as client:
        output.account(client.account(account_id), as_json=settings().as_json)
