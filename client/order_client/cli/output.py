"""How answers look: tables for people, in colour on a terminal; JSON for scripts."""

import json
import unicodedata
from collections.abc import Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Final

import click

from order_client.errors import Problem
from order_client.exact import Json, plain
from order_client.models import Account, Balance, Order, Position, Status, show_account, show_order

REASONS: Final = {
    "INSUFFICIENT_BALANCE": "there is not enough cash for it",
    "INSUFFICIENT_STOCKS": "it sells more shares than the account holds",
    "DUPLICATED_OPERATION": "it repeats an order that was executed less than 5 minutes before",
    "CLOSED_MARKET": "the market is closed",
    "INVALID_OPERATION": "its time does not fit the account, or a bound of the account is passed",
}
"""The codes of broken rules, in words."""

_COLOURS: Final = {
    Status.PENDING: "yellow",
    Status.EXECUTED: "green",
    Status.REJECTED: "red",
    Status.CANCELLED: "blue",
    Status.FAILED: "magenta",
}
_WIDE: Final = ("W", "F")


def say_json(value: Json) -> None:
    """A JSON document on one line of standard output."""
    click.echo(json_text(value))


def json_text(value: Json) -> str:
    """A JSON document on one line."""
    return json.dumps(value, ensure_ascii=False)


def say(text: str) -> None:
    """A line for people, on standard error: standard output is for answers."""
    click.echo(text, err=True)


def account(shown: Account, *, as_json: bool) -> None:
    """An account with its positions."""
    if as_json:
        say_json(show_account(shown))
        return
    click.echo(f"Account {shown.id}")
    click.echo(f"  cash  {money(shown.cash)}")
    if shown.issuers:
        click.echo()
        positions(shown.issuers)


def positions(held: Iterable[Position]) -> None:
    """A table of positions."""
    table(
        ("ISSUER", "SHARES", "LAST PRICE"),
        [(p.issuer_name, f"{p.total_shares:,}", money(p.share_price)) for p in held],
        right=(1, 2),
    )


def order(shown: Order, *, as_json: bool) -> None:
    """An order, all there is to say."""
    if as_json:
        say_json(show_order(shown))
        return
    click.echo(f"Order {clean(shown.id)} of account {shown.account_id}: {coloured(shown.status)}")
    if shown.operation is not None:
        click.echo(f"  {deal(shown)}")
    for name, time in (("received", shown.received_at), ("decided", shown.decided_at)):
        if time is not None:
            click.echo(f"  {name:<9} {when(time)}")
    for reason in reasons(shown):
        click.echo(f"  because   {reason}")
    if shown.current_balance is not None:
        click.echo(f"  balance   {balance(shown.current_balance)}")


def orders(shown: Sequence[Order]) -> None:
    """A table of orders."""
    table(
        ("ORDER", "STATUS", "SIDE", "SHARES", "ISSUER", "PRICE", "RECEIVED", "BECAUSE"),
        [
            (
                one.id,
                one.status,
                one.operation or "?",
                _count(one.total_shares),
                one.issuer_name or "?",
                _price(one.share_price),
                when(one.received_at) if one.received_at else "?",
                ", ".join(one.business_errors) or one.failure or "",
            )
            for one in shown
        ],
        right=(3, 5),
    )


def event_line(shown: Order) -> str:
    """A decided order on one line."""
    time = shown.decided_at or shown.received_at
    parts = [
        when(time) if time else "",
        coloured(shown.status, width=9),
        deal(shown),
        clean(shown.id),
        "; ".join(reasons(shown)),
    ]
    return "  ".join(part for part in parts if part)


def deal(shown: Order) -> str:
    """What the order is about: BUY 10 GBM at 50.5."""
    return clean(
        f"{shown.operation or '?'} {_count(shown.total_shares)} {shown.issuer_name or '?'} "
        f"at {_price(shown.share_price)}"
    )


def reasons(shown: Order) -> list[str]:
    """Why it was rejected or parked, in words and codes."""
    said = [f"{REASONS.get(code, 'of a rule')} ({code})" for code in shown.business_errors]
    if shown.failure is not None:
        said.append(shown.failure)
    return [clean(reason) for reason in said]


def balance(shown: Balance) -> str:
    """Cash and the number of positions."""
    count = len(shown.issuers)
    held = "positions" if count != 1 else "position"
    more = " shown of more" if shown.partial else ""
    return f"{money(shown.cash)} in cash, {count} {held}{more}"


def problem_json(problem: Problem) -> Json:
    """A problem for scripts."""
    shown: Json = {"status": problem.status, "code": problem.code, "detail": problem.detail}
    if problem.errors:
        shown["errors"] = [
            {"pointer": error.pointer, "detail": error.detail} for error in problem.errors
        ]
    return {"error": shown}


def table(head: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> None:
    """Columns as wide as their widest cell; ``right`` are the ones that end in line."""
    cells = [[clean(cell) for cell in row] for row in rows]
    widths = [max(map(_width, column)) for column in zip(head, *cells, strict=True)]
    click.secho(_line(head, widths, right), bold=True)
    for row, own in zip(cells, rows, strict=True):
        line = _line(row, widths, right)
        status = next((cell for cell in own if isinstance(cell, Status)), None)
        click.echo(line.replace(status, coloured(status), 1) if status else line)


def coloured(status: Status, width: int = 0) -> str:
    """A status in its colour."""
    return click.style(f"{status.value:<{width}}", fg=_COLOURS[status])


def money(amount: Decimal) -> str:
    """An amount with its thousands apart, every digit kept."""
    whole, point, rest = plain(amount).partition(".")
    return f"{int(whole):,}{point}{rest}"


def when(time: datetime) -> str:
    """A time in UTC, to the second."""
    return f"{time:%Y-%m-%d %H:%M:%S}Z"


def clean(text: str) -> str:
    """Text that cannot steer a terminal, whoever wrote it."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


def _line(cells: Sequence[str], widths: Sequence[int], right: Sequence[int]) -> str:
    padded = []
    for place, (cell, width) in enumerate(zip(cells, widths, strict=True)):
        blanks = " " * (width - _width(cell))
        padded.append(blanks + cell if place in right else cell + blanks)
    return "  ".join(padded).rstrip()


def _width(text: str) -> int:
    """Columns on a terminal: some letters take two, marks none."""
    return sum(
        0 if unicodedata.combining(char) else 1 + (unicodedata.east_asian_width(char) in _WIDE)
        for char in text
    )


def _count(shares: int | None) -> str:
    return "?" if shares is None else f"{shares:,}"


def _price(price: Decimal | None) -> str:
    return "?" if price is None else money(price)
