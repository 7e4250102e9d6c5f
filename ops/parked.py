"""Parked orders: which there are, why, and what shall become of them."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Final

import click

from ops import binary
from ops.connections import open_gateway, open_queue, read_settings, store_errors_said
from shared.domain.decision import Rules, violated_rules
from shared.domain.money import plain
from shared.domain.order import Order, OrderStatus
from shared.ids import OrderRef, by_account, is_order_id
from shared.order_store import items, parking, reads
from shared.order_store.errors import StoreRefused, StoreUnavailable, UnreadableItem
from shared.order_store.gateway import Gateway, chunks
from shared.order_store.parking import InterventionRefused
from shared.order_store.records import ParkedOrder, Parking
from shared.representation import iso_utc
from shared.task_queue import (
    MESSAGE_ORDERS_MAX,
    QueueUnavailable,
    TaskQueue,
    read_ref,
    write_ref,
)

ORDERS_MAX: Final = 10_000
"""Orders replayed by one command."""

BATCH_ORDERS: Final = 100
"""Orders replayed before they are enqueued and progress is told."""

FAILURES_IN_A_ROW_MAX: Final = 3
"""Orders at which the store does not answer, before the command gives up."""

_FAILURE_LENGTH: Final = 100
_UNKNOWN: Final = "?"


class OrderName(click.ParamType[OrderRef]):
    """An order on the command line: ``ACCOUNT/ORDER``, as the logs and Flower write it."""

    name = "ACCOUNT/ORDER"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> OrderRef:
        """Read ``7/01a20d16-e634-7353-a916-d08149ff1d84``."""
        try:
            account_id, order_id = read_ref(str(value))
        except ValueError:
            self.fail(f"{value!r} is not of the form ACCOUNT/ORDER.", param, ctx)
        if account_id < 1 or not is_order_id(order_id):
            self.fail(f"{value!r} names no order: ids are as the API writes them.", param, ctx)
        return account_id, order_id


ORDER: Final = OrderName()
ACCOUNT: Final = click.IntRange(min=1)


@dataclass(slots=True)
class _Outcome:
    """What came of a command for many orders."""

    done: list[OrderRef] = field(default_factory=list)
    failed: int = 0
    silent_in_a_row: int = 0

    @property
    def is_store_away(self) -> bool:
        return self.silent_in_a_row >= FAILURES_IN_A_ROW_MAX


@click.group()
def parked() -> None:
    """Orders that could not be decided: list, explain, replay, cancel.

    A parked order is in status `failed`. Cash and shares are as if it had never been sent.
    """


@parked.command("list")
@click.option("--account", "account_id", metavar="ID", type=ACCOUNT, help="Only of this account.")
@click.option("--json", "as_json", is_flag=True, help="A line of JSON for each order.")
def list_parked(account_id: int | None, *, as_json: bool) -> None:
    """List the parked orders, oldest first, and why each is parked."""
    gateway = open_gateway(read_settings())
    count = 0
    with store_errors_said():
        for order in reads.parked_orders(gateway, account_id):
            count += 1
            click.echo(json.dumps(_summary(order)) if as_json else _line(order))
    if not as_json:
        click.echo(_counted(count))


@parked.command("show")
@click.argument("ref", metavar="ACCOUNT/ORDER", type=ORDER)
def show(ref: OrderRef) -> None:
    """Say all that is known of one order.

    Why it is parked, how often it was tried, its earlier parkings, what a replay would come to, and
    its item as DynamoDB holds it.
    """
    settings = read_settings()
    gateway = open_gateway(settings)
    with store_errors_said():
        try:
            item = parking.find(gateway, ref)
        except InterventionRefused as refused:
            raise click.ClickException(f"{write_ref(ref)}: {refused}.") from refused
        order = items.read_parked(item)
        status = items.read_status(item)
        facts = list(_facts(order, status))
        if status is OrderStatus.FAILED:
            facts.append(("replay", _forecast(gateway, order, settings.rules)))
    for name, value in facts:
        click.echo(f"{name:<10}{value}")
    click.echo("\n" + binary.dumps(item, indent=2, sort_keys=True))


@parked.command("replay")
@click.argument("refs", metavar="[ACCOUNT/ORDER]...", type=ORDER, nargs=-1)
@click.option("--all", "is_all", is_flag=True, help="Every parked order instead of named ones.")
@click.option(
    "--account", "account_id", metavar="ID", type=ACCOUNT, help="With --all: only of this account."
)
@click.option("--yes", is_flag=True, help="Do not ask.")
def replay(refs: Sequence[OrderRef], account_id: int | None, *, is_all: bool, yes: bool) -> None:
    """Let the workers decide parked orders once more.

    Repair what was wrong first: an order whose item still cannot be read is left parked. Each order
    is decided as the next one of its account, by the rules, against what the account holds now. If
    a newer order was executed meanwhile, that means a rejection (INVALID_OPERATION).

    Ends with 1 if an order was not replayed.
    """
    if bool(refs) == is_all:
        raise click.UsageError("Name orders, or say --all.")
    if account_id is not None and not is_all:
        raise click.UsageError("--account goes with --all.")
    settings = read_settings()
    gateway, queue = open_gateway(settings), open_queue(settings)
    if is_all:
        with store_errors_said():
            found = reads.parked_orders(gateway, account_id)
            refs = [(order.account_id, order.id) for order in islice(found, ORDERS_MAX)]
        if not refs:
            click.echo(_counted(0))
            return
        if len(refs) == ORDERS_MAX:
            click.echo(f"Taking the oldest {ORDERS_MAX:,}; run this again for the rest.")
    if not yes:
        click.confirm(f"Replay {_orders(len(refs))}?", abort=True)
    outcome = _Outcome()
    for batch in chunks(refs, BATCH_ORDERS):
        before = len(outcome.done)
        _each(batch, lambda ref: parking.replay(gateway, ref), "replayed", outcome)
        _enqueue(queue, outcome.done[before:])
    _conclude(outcome, len(refs), "replayed")


@parked.command("cancel")
@click.argument("refs", metavar="ACCOUNT/ORDER...", type=ORDER, nargs=-1, required=True)
@click.option("--yes", is_flag=True, help="Do not ask.")
def cancel(refs: Sequence[OrderRef], *, yes: bool) -> None:
    """Cancel parked or pending orders, for good.

    Works on an order whose item is damaged, too. A pending one needs an account that can be read.

    Ends with 1 if an order was not cancelled.
    """
    gateway = open_gateway(read_settings())
    if not yes:
        click.confirm(f"Cancel {_orders(len(refs))} for good?", abort=True)
    outcome = _Outcome()
    _each(refs, lambda ref: parking.cancel(gateway, ref, _now), "cancelled", outcome)
    _conclude(outcome, len(refs), "cancelled")


def _each(
    refs: Iterable[OrderRef], act: Callable[[OrderRef], None], done: str, outcome: _Outcome
) -> None:
    """``act`` on every order, past those that fail, until the store seems to be away."""
    for ref in refs:
        if outcome.is_store_away:
            return
        try:
            act(ref)
        except (InterventionRefused, StoreRefused) as error:
            problem, outcome.silent_in_a_row = str(error), 0
        except StoreUnavailable as error:
            problem, outcome.silent_in_a_row = f"DynamoDB: {error}", outcome.silent_in_a_row + 1
        else:
            outcome.silent_in_a_row = 0
            outcome.done.append(ref)
            click.echo(f"{write_ref(ref)}: {done}")
            continue
        outcome.failed += 1
        click.echo(f"{write_ref(ref)}: not {done}: {problem}", err=True)


def _enqueue(queue: TaskQueue, refs: Sequence[OrderRef]) -> None:
    """Announce replayed orders: those of each account alone, lest one that kills its worker
    takes others along.
    """
    try:
        for own in by_account(refs).values():
            for message in chunks(own, MESSAGE_ORDERS_MAX):
                queue.publish(message, _now())
    except QueueUnavailable as error:
        click.echo(
            f"The broker did not take the message ({error}). The sweeper will send what was"
            " replayed, at one of its next turns.",
            err=True,
        )


def _conclude(outcome: _Outcome, asked: int, done: str) -> None:
    left = asked - len(outcome.done) - outcome.failed
    if outcome.is_store_away:
        click.echo(f"DynamoDB does not answer: {_orders(left)} left as they are.", err=True)
    click.echo(f"{_orders(len(outcome.done))} {done}, {asked - len(outcome.done)} not.")
    if asked > len(outcome.done):
        raise SystemExit(1)


def _forecast(gateway: Gateway, order: ParkedOrder, rules: Rules) -> str:
    """What a replay would come to, by these settings and as the account stands now."""
    if order.order is None:
        return "refused until the item is repaired"
    try:
        recorded = reads.load_account(gateway, order.account_id)
    except UnreadableItem as error:
        return f"refused until the account is repaired ({error})"
    if recorded is None:
        return "refused: the account's item is missing"
    try:
        errors = violated_rules(recorded.account, order.order, rules)
    except (TypeError, ValueError, ArithmeticError) as error:
        return f"would be parked again: the rules cannot be applied to it ({error!r})"
    return f"would be rejected now: {', '.join(errors)}" if errors else "would be executed now"


def _facts(order: ParkedOrder, status: OrderStatus | None) -> Iterator[tuple[str, str]]:
    yield "order", write_ref((order.account_id, order.id))
    yield "status", status or _UNKNOWN
    yield "attempts", str(order.attempts)
    if status is OrderStatus.FAILED or _was_cancelled_while_parked(order, status):
        yield "parked", _when(order.parking)
        yield "why", order.parking.failure if order.parking else _UNKNOWN
    for earlier in order.earlier:
        yield "earlier", f"{_when(earlier)}: {earlier.failure}"
    yield "asks for", _asked(order.order) if order.order else order.problem or _UNKNOWN


def _was_cancelled_while_parked(order: ParkedOrder, status: OrderStatus | None) -> bool:
    # Only a parking says why; a pending order that was cancelled has a place and no reason.
    return status is OrderStatus.CANCELLED and order.parking is not None


def _when(parked_at: Parking | None) -> str:
    if parked_at is None:
        return _UNKNOWN
    place = (
        f"decision {parked_at.sequence} of its account"
        if parked_at.sequence is not None
        else "without its account"
    )
    return f"{iso_utc(parked_at.at)}, {place}"


def _asked(order: Order) -> str:
    return (
        f"{order.operation} {order.total_shares} {order.issuer_name} at {plain(order.share_price)},"
        f" sent {order.timestamp.isoformat()}, received {order.received_at.isoformat()}"
    )


def _line(order: ParkedOrder) -> str:
    at = iso_utc(order.parking.at) if order.parking else _UNKNOWN
    failure = order.parking.failure if order.parking else _UNKNOWN
    if len(failure) > _FAILURE_LENGTH:
        failure = failure[: _FAILURE_LENGTH - 3] + "..."
    return f"{write_ref((order.account_id, order.id))}  {at}  {failure}"


def _summary(order: ParkedOrder) -> dict[str, Any]:
    parking_ = order.parking
    return {
        "order": write_ref((order.account_id, order.id)),
        "account_id": order.account_id,
        "id": order.id,
        "parked_at": iso_utc(parking_.at) if parking_ else None,
        "failure": parking_.failure if parking_ else None,
        "sequence": parking_.sequence if parking_ else None,
        "attempts": order.attempts,
        "parked_before": len(order.earlier),
        "problem": order.problem,
    }


def _counted(count: int) -> str:
    return f"{count or 'No'} parked order{'' if count == 1 else 's'}."


def _orders(count: int) -> str:
    return f"{count} order{'' if count == 1 else 's'}"


def _now() -> datetime:
    return datetime.now(UTC)
