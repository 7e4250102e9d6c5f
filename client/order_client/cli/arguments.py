"""Kinds of arguments; what is wrong with one is said before anything is sent."""

import click

from order_client.client import checked_key


class _Text(click.ParamType[str]):
    """Text that can be sent: the service judges the rest."""

    name = "text"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> str:
        """The text itself."""
        text = str(value)
        try:
            text.encode()
        except UnicodeEncodeError:
            self.fail("is no UTF-8", param, ctx)
        if not text:
            self.fail("is empty", param, ctx)
        return text


class _IdempotencyKey(click.ParamType[str]):
    """A key of a request."""

    name = "key"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> str:
        """The key itself."""
        try:
            return checked_key(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


TEXT = _Text()
IDEMPOTENCY_KEY = _IdempotencyKey()
ACCOUNT_ID = click.IntRange(min=1)
SECONDS = click.FloatRange(min=0, max=86_400)
