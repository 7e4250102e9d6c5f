"""How a command ends: one exit status for each thing that a script may want to know."""

import enum
import os
from typing import Any, Final

import click

from order_client.cli import output
from order_client.cli.settings import of_context
from order_client.errors import (
    Forbidden,
    NotFound,
    OrdersError,
    Problem,
    ProtocolError,
    RateLimited,
    ServerFault,
    Unauthorized,
    Unavailable,
)
from order_client.models import Order, Status


class Exit(enum.IntEnum):
    """Exit statuses."""

    OK = 0
    NOT_EXECUTED = 1
    USAGE = 2
    NOT_FOUND = 3
    REFUSED = 4
    UNAVAILABLE = 5
    UNDECIDED = 6
    INTERRUPTED = 130


_HINTS: Final[tuple[tuple[type[OrdersError], str], ...]] = (
    (Unauthorized, "Give an API key with ORDERS_KEY or --key."),
    (Forbidden, "The API key does not reach this account."),
    (Unavailable, "Try again later; see docs/client.md on what is safe to repeat."),
    (RateLimited, "Too many requests: try again later."),
)


def say_failure(error: OrdersError, *, as_json: bool) -> None:
    """Say it on standard error: a JSON document for scripts, else in words."""
    if as_json:
        shown = error if isinstance(error, Problem) else Problem(0, "PROTOCOL_ERROR", str(error))
        output.say(output.json_text(output.problem_json(shown)))
        return
    output.say(click.style("Error: ", fg="red", bold=True) + output.clean(str(error)))
    for kind, hint in _HINTS:
        if isinstance(error, kind):
            output.say(hint)


class OrdersGroup(click.Group):
    """The root command: turns what the client raises into exit statuses."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run, with failures said and colours only where they are wanted."""
        if os.environ.get("NO_COLOR"):
            ctx.color = False
        try:
            return super().invoke(ctx)
        except OrdersError as error:
            say_failure(error, as_json=of_context(ctx).as_json)
            ctx.exit(exit_status(error))
        except KeyboardInterrupt:
            output.say("Interrupted.")
            ctx.exit(Exit.INTERRUPTED)


def exit_status(error: OrdersError) -> Exit:
    """The exit status that an error stands for."""
    match error:
        case NotFound():
            return Exit.NOT_FOUND
        case Unavailable() | RateLimited() | ServerFault() | ProtocolError():
            return Exit.UNAVAILABLE
    return Exit.REFUSED


def exit_of_order(order: Order) -> Exit:
    """The exit status of an order whose decision was waited for."""
    match order.status:
        case Status.EXECUTED:
            return Exit.OK
        case Status.PENDING:
            return Exit.UNDECIDED
    return Exit.NOT_EXECUTED
