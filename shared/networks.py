"""Networks and addresses as they are written, compared and put together."""

import ipaddress
from typing import Final, Literal

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Verdict = Literal["ALLOW", "DENY"]

ALLOW: Final = "ALLOW"
DENY: Final = "DENY"
VERDICTS: Final = (ALLOW, DENY)

NETWORKS_MAX: Final = 1_000
"""Networks that are let in or kept out, together."""

_CLIENT_PREFIX_V6: Final = 64
"""What one client of IPv6 usually gets: it may call from any address of it."""


def read_network(text: str) -> Network:
    """Read ``10.0.0.0/8``, ``2001:db8::/32`` or a single address.

    Raises:
        ValueError: it is none, or has bits set beyond its prefix.
    """
    return ipaddress.ip_network(text.strip())


def read_networks(text: str) -> tuple[Network, ...]:
    """Read networks separated by commas (raises as ``read_network``)."""
    return tuple(read_network(part) for part in text.split(",") if part.strip())


def read_address(text: str) -> Address | None:
    """Read an address, None where it is none; an IPv4 address within IPv6 is the IPv4 one."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def client_of(address: str) -> str:
    """What counts as one client: an IPv4 address, or the /64 of an IPv6 address."""
    read = read_address(address)
    if read is None:
        return "unknown"
    if isinstance(read, ipaddress.IPv4Address):
        return str(read)
    return str(ipaddress.ip_network((read.packed, _CLIENT_PREFIX_V6), strict=False))


def is_loopback_host(host: str) -> bool:
    """Tell whether a server that listens on ``host`` is reached from its own machine alone."""
    if host == "localhost":
        return True
    read = read_address(host.strip("[]"))
    return read is not None and read.is_loopback
