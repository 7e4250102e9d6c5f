"""``orders order``: place orders and follow them."""

import uuid
from datetime import UTC, datetime
from itertools import islice

import click

from order_client.cli import output
from order_client.cli.arguments import ACCOUNT_ID, IDEMPOTENCY_KEY, SECONDS, TEXT
from order_client.cli.exits import exit_of_order
from order_client.cli.settings import common_options, settings
from order_client.client import PAGE_ORDERS_MAX
from order_client.errors import Unavailable
from order_client.exact import Json
from order_client.models import Status, show_order


@click.group("order")
def order_group() -> None:
    """Place orders and follow them."""


@order_group.command("place")
@click.argument("account_id", metavar="ACCOUNT", type=ACCOUNT_ID)
@click.argument("operation", metavar="BUY|SELL", type=TEXT)
@click.argument("issuer_name", metavar="ISSUER", type=TEXT)
@click.argument("total_shares", metavar="SHARES", type=TEXT)
@click.argument("share_price", metavar="PRICE", type=TEXT)
@click.option(
    "--wait", "wait_seconds", metavar="SECONDS", type=SECONDS, help="Wait for the decision."
)
@click.option(
    "--timestamp",
    metavar="TIME",
    type=TEXT,
    help="Unix seconds, or ISO 8601 with an offset; now by default.",
)
@click.option(
    "--idempotency-key",
    metavar="TEXT",
    type=IDEMPOTENCY_KEY,
    help="Repeat an earlier try that had this key (and the same --timestamp).",
)
@common_options
def place(
    account_id: int,
    operation: str,
    issuer_name: str,
    total_shares: str,
    share_price: str,
    wait_seconds: float | None,
    timestamp: str | None,
    idempotency_key: str | None,
) -> None:
    """Place an order: orders order place 1 BUY GBM 10 50.5

    With --wait it ends with 0 if the order was executed, 1 if not, 6 if it is not decided yet.
    """
    dated = timestamp or datetime.now(UTC).isoformat()
    key = idempotency_key or uuid.uuid4().hex
    with settings().client() as client:
        try:
            if wait_seconds is None:
                placed = client.place(
                    account_id,
                    operation,
                    issuer_name,
                    total_shares,
                    share_price,
                    timestamp=dated,
                    idempotency_key=key,
                )
            else:
                placed = client.place_and_wait(
                    account_id,
                    operation,
                    issuer_name,
                    total_shares,
                    share_price,
                    seconds=wait_seconds,
                    timestamp=dated,
                    idempotency_key=key,
                )
        except Unavailable:
            output.say(
                "It may have been recorded: repeat with "
                f"--timestamp {dated} --idempotency-key {key}"
            )
            raise
    output.order(placed, as_json=settings().as_json)
    if wait_seconds is not None:
        click.get_current_context().exit(exit_of_order(placed))


@order_group.command("show")
@click.argument("account_id", metavar="ACCOUNT", type=ACCOUNT_ID)
@click.argument("order_id", metavar="ORDER", type=TEXT)
@common_options
def show(account_id: int, order_id: str) -> None:
    """Show an order as it stands."""
    with settings().client() as client:
        output.order(client.order(account_id, order_id), as_json=settings().as_json)


@order_group.command("list")
@click.argument("account_id", metavar="ACCOUNT", type=ACCOUNT_ID)
@click.option(
    "--status", type=click.Choice([status.value for status in Status]), help="Only these."
)
@click.option(
    "--limit",
    type=click.IntRange(min=0),
    default=50,
    show_default=True,
    help="No more than this; 0 lists all.",
)
@common_options
def list_orders(account_id: int, status: str | None, limit: int) -> None:
    """List an account's orders, newest first. With --json, one on each line."""
    page_orders = min(limit or PAGE_ORDERS_MAX, PAGE_ORDERS_MAX)
    with settings().client() as client:
        found = islice(
            client.orders(account_id, status=status, page_orders=page_orders), limit or None
        )
        if settings().as_json:
            for order in found:
                output.say_json(show_order(order))
            return
        # One page is one table: a long list comes as it is read, and never is in memory.
        while page := list(islice(found, page_orders)):
            output.orders(page)


@order_group.command("cancel")
@click.argument("account_id", metavar="ACCOUNT", type=ACCOUNT_ID)
@click.argument("order_id", metavar="ORDER", type=TEXT)
@common_options
def cancel(account_id: int, order_id: str) -> None:
    """Cancel a pending order. A decided one is left alone: that ends with 4."""
    with settings().client() as client:
        output.order(client.cancel(account_id, order_id), as_json=settings().as_json)


@order_group.command("watch")
@click.argument("account_id", metavar="ACCOUNT", type=ACCOUNT_ID)
@click.argument("order_id", metavar="ORDER", type=TEXT)
@click.option(
    "--seconds", type=SECONDS, default=60, show_default=True, help="Wait no longer than this."
)
@common_options
def watch(account_id: int, order_id: str, seconds: float) -> None:
    """Wait until an order is decided.

    Ends with 0 if it was executed, 1 if not, 6 if it is not decided yet.
    """
    with settings().client() as client:
        order = client.wait(account_id, order_id, seconds=seconds)
    output.order(order, as_json=settings().as_json)
    click.get_current_context().exit(exit_of_order(order))


@click.command("tail")
@click.argument("account_id", metavar="ACCOUNT", type=ACCOUNT_ID)
@click.option(
    "--after",
    metavar="EVENT",
    type=TEXT,
    help="Go on after this event, 0 from the first; by default from now on.",
)
@click.option("--limit", type=click.IntRange(min=1), help="End after so many.")
@common_options
def tail(account_id: int, after: str | None, limit: int | None) -> None:
    """Show an account's orders as they are decided, until Ctrl-C.

    Connections that break are made anew, without a gap and without repetitions.
    """
    last = after
    with settings().client() as client:
        try:
            for event in islice(client.events(account_id, last_event_id=after), limit):
                if settings().as_json:
                    shown: Json = {"event": event.id, "order": show_order(event.order)}
                    output.say_json(shown)
                else:
                    click.echo(output.event_line(event.order))
                last = event.id
        finally:
            if last and not settings().as_json:
                output.say(f"To go on from here: orders tail {account_id} --after {last}")
