"""What every command takes: where the service is, who asks, and how to answer."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import click

from order_client.client import TIMEOUT_SECONDS, Client
from order_client.retry import Retry

DEFAULT_URL: Final = "http://127.0.0.1:8000"

_RETRY: Final = Retry(attempts_max=6)
"""About three seconds of trying: somebody waits at the prompt."""

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(slots=True)
class Settings:
    """Settings of one run. Flags win over the environment, the last flag over earlier ones."""

    url: str
    key: str | None
    timeout: float = TIMEOUT_SECONDS
    as_json: bool = False

    def client(self) -> Client:
        """A client of the service.

        Raises:
            click.UsageError: the address or the key is none.
        """
        try:
            return Client(self.url, self.key, self.timeout, retry=_RETRY)
        except ValueError as error:
            raise click.UsageError(f"{error}") from None


def settings() -> Settings:
    """The settings of the command that runs."""
    return of_context(click.get_current_context())


def of_context(context: click.Context) -> Settings:
    """The settings, made from the environment when they are first asked for."""
    root = context.find_root()
    if not isinstance(root.obj, Settings):
        root.obj = Settings(
            os.environ.get("ORDERS_URL") or DEFAULT_URL, os.environ.get("ORDERS_KEY") or None
        )
    return root.obj


def common_options(command: F) -> F:
    """Give a command the options that all of them have; they may stand before or after its name."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def _keep(context: click.Context, parameter: click.Parameter, value: object) -> None:
    if value is not None and parameter.name is not None:
        setattr(of_context(context), parameter.name, value)


_OPTIONS: Final = (
    click.option(
        "--url",
        metavar="URL",
        expose_value=False,
        callback=_keep,
        help=f"Where the service is: ORDERS_URL, or else {DEFAULT_URL}.",
    ),
    click.option(
        "--key",
        metavar="KEY",
        expose_value=False,
        callback=_keep,
        help="API key. Better in ORDERS_KEY: others can see a command's arguments.",
    ),
    click.option(
        "--timeout",
        metavar="SECONDS",
        type=click.FloatRange(min=0, min_open=True, max=3600),
        expose_value=False,
        callback=_keep,
        help=f"For a part of an answer; {TIMEOUT_SECONDS:g} by default.",
    ),
    click.option(
        "--json",
        "as_json",
        is_flag=True,
        default=None,
        expose_value=False,
        callback=_keep,
        help="JSON on standard output, for scripts.",
    ),
)
