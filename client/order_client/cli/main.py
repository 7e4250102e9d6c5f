"""The commands, gathered."""

import click

from order_client.cli.accounts import account_group
from order_client.cli.bulk import bulk_group
from order_client.cli.exits import OrdersGroup
from order_client.cli.orders import order_group, tail
from order_client.cli.settings import common_options
from order_client.version import __version__


@click.group(cls=OrdersGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="orders")
@common_options
def main() -> None:
    """Place orders and follow them.

    The service's address and the API key come from ORDERS_URL and ORDERS_KEY, or from options,
    which may stand before or after a command's name.

    Ends with 0 done, 1 an order was not executed or a line not accepted, 2 usage, 3 not found,
    4 refused, 5 unavailable (try again later), 6 not decided in time, 130 interrupted.
    """


main.add_command(account_group)
main.add_command(order_group)
main.add_command(bulk_group)
main.add_command(tail)
