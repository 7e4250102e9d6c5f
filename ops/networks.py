"""Networks that may call the API, and networks that may not."""

from datetime import UTC, datetime
from typing import Any, Final

import click

from ops.connections import open_gateway, read_settings, store_errors_said
from shared.networks import ALLOW, DENY, NETWORKS_MAX, VERDICTS, Verdict, read_network
from shared.order_store import access
from shared.order_store.gateway import Gateway


class NetworkName(click.ParamType[str]):
    """A network on the command line: ``10.0.0.0/8``, ``2001:db8::/32``, or one address."""

    name = "NETWORK"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Read a network; its prefix is always written out."""
        try:
            return str(read_network(str(value)))
        except ValueError as error:
            self.fail(f"{error}.", param, ctx)


NETWORK: Final = NetworkName()


@click.group()
def networks() -> None:
    """Networks: which may call the API, which may not.

    A denied network gets no answer but 403. As soon as one network is allowed, all that are not are
    denied. Every API knows of a change within seconds. Liveness and readiness answer everybody.
    """


@networks.command("allow")
@click.argument("network", type=NETWORK)
def allow(network: str) -> None:
    """Let NETWORK call, and from the first one on nobody else."""
    _put(ALLOW, network)
    click.echo(f"{network}: allowed; what is not in an allowed network is denied.")


@networks.command("deny")
@click.argument("network", type=NETWORK)
def deny(network: str) -> None:
    """Keep NETWORK out, even where it lies within an allowed one."""
    _put(DENY, network)
    click.echo(f"{network}: denied")


@networks.command("remove")
@click.argument("network", type=NETWORK)
def remove(network: str) -> None:
    """Forget what was said of NETWORK.

    Ends with 1 if nothing was.
    """
    gateway = open_gateway(read_settings())
    with store_errors_said():
        removed = [
            verdict for verdict in VERDICTS if access.remove_network(gateway, verdict, network)
        ]
    if not removed:
        raise click.ClickException(f"{network} is in no list.")
    click.echo(f"{network}: removed")


@networks.command("list")
def list_networks() -> None:
    """List the networks of both lists."""
    found = _all(open_gateway(read_settings()))
    for verdict, network in found:
        click.echo(f"{verdict.lower():<6}{network}")
    if not found:
        click.echo("Every network may call.")


def _put(verdict: Verdict, network: str) -> None:
    gateway = open_gateway(read_settings())
    if len(_all(gateway)) >= NETWORKS_MAX:
        raise click.ClickException(f"There are {NETWORKS_MAX} networks already: remove some.")
    with store_errors_said():
        access.put_network(gateway, verdict, network, datetime.now(UTC))


def _all(gateway: Gateway) -> list[tuple[str, str]]:
    with store_errors_said():
        return access.networks(gateway)
