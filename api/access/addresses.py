"""Which address a request came from: the peer's, unless the peer is a proxy of ours."""

from collections.abc import Sequence
from typing import Final

from shared.networks import Address, Network, read_address

FORWARDED_HOPS_MAX: Final = 20
"""Addresses of X-Forwarded-For that are looked at, from the right."""


_MAPPED: Final = "::ffff:"
"""How a socket for both families names an IPv4 address."""


def client_address(peer: str, forwarded: str | None, proxies: Sequence[Network]) -> str:
    """The address of the client.

    Each proxy appends the address that it was called from. So the list is read from the right, as
    long as whoever wrote an entry is one of ``proxies``; what stands further left, anybody may have
    written. An entry that is no address ends the reading: the client is then who sent it.

    Args:
        peer: the address at the other end of the connection.
        forwarded: X-Forwarded-For, all of them joined by commas.
        proxies: whose word is taken.
    """
    if not proxies and not peer.startswith(_MAPPED):
        return peer
    client = read_address(peer)
    if client is None:
        return peer
    if forwarded is None:
        return str(client)
    entries = forwarded.rsplit(",", FORWARDED_HOPS_MAX)[-FORWARDED_HOPS_MAX:]
    for entry in reversed(entries):
        if not _is_in(client, proxies):
            break
        named = read_address(_without_port(entry.strip()))
        if named is None:
            break
        client = named
    return str(client)


def _is_in(address: Address, networks: Sequence[Network]) -> bool:
    return any(address in network for network in networks)


def _without_port(entry: str) -> str:
    """Some proxies write ``192.0.2.1:4711`` or ``[2001:db8::1]:4711``."""
    if entry.startswith("["):
        return entry[1:].partition("]")[0]
    host, colon, port = entry.partition(":")
    return host if colon and port.isdigit() else entry
