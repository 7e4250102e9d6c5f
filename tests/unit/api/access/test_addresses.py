"""Whose address counts: the peer's, or what proxies of ours say of it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.access.addresses import FORWARDED_HOPS_MAX, client_address
from shared.networks import client_of, is_loopback_host, read_networks

PROXIES = read_networks("10.0.0.0/8, 2001:db8:ffff::/48")
CLIENT, LIE = "192.0.2.7", "127.0.0.1"


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        (CLIENT, None, CLIENT),
        (CLIENT, LIE, CLIENT),
        (CLIENT, "10.0.0.1", CLIENT),
        ("10.0.0.1", None, "10.0.0.1"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", CLIENT, CLIENT),
        ("10.0.0.1", f"{LIE}, {CLIENT}", CLIENT),
        ("10.0.0.1", f"{LIE},{CLIENT},10.0.0.9", CLIENT),
        ("10.0.0.1", f"{LIE}, {CLIENT}, 10.0.0.9, 10.0.0.8", CLIENT),
        ("10.0.0.1", f"10.0.0.5, {CLIENT}", CLIENT),
        ("10.0.0.1", "10.0.0.5, 10.0.0.6", "10.0.0.5"),
        # What is no address ends the reading: it came from whoever is to its right.
        ("10.0.0.1", f"{LIE}, unknown", "10.0.0.1"),
        ("10.0.0.1", f"{LIE}, x, 10.0.0.9", "10.0.0.9"),
        ("10.0.0.1", f"{LIE},,10.0.0.9", "10.0.0.9"),
        ("10.0.0.1", f"{CLIENT}:4711", CLIENT),
        ("10.0.0.1", "[2001:db8::1]:4711", "2001:db8::1"),
        ("10.0.0.1", "[2001:db8::1]", "2001:db8::1"),
        ("10.0.0.1", "2001:DB8::1", "2001:db8::1"),
        ("10.0.0.1", f"::ffff:{CLIENT}", CLIENT),
        ("::ffff:10.0.0.1", CLIENT, CLIENT),
        ("2001:db8:ffff::5", CLIENT, CLIENT),
        ("", CLIENT, ""),
        ("unix:", CLIENT, "unix:"),
    ],
)
def test_the_list_is_read_from_the_right_as_far_as_our_proxies_wrote_it(
    peer: str, forwarded: str | None, client: str
) -> None:
    assert client_address(peer, forwarded, PROXIES) == client


def test_without_proxies_nobody_is_believed() -> None:
    assert client_address("10.0.0.1", LIE, ()) == "10.0.0.1"
    assert client_address("::ffff:10.0.0.1", LIE, ()) == "10.0.0.1"


def test_a_list_without_end_is_read_to_its_bound() -> None:
    hops = ", ".join([CLIENT, *["10.0.0.2"] * FORWARDED_HOPS_MAX])
    assert client_address("10.0.0.1", hops, PROXIES) == "10.0.0.2"
    hops = ", ".join([CLIENT, *["10.0.0.2"] * (FORWARDED_HOPS_MAX - 1)])
    assert client_address("10.0.0.1", hops, PROXIES) == CLIENT


@given(st.text(), st.ip_addresses().map(str))
def test_a_client_cannot_lie_past_a_proxy(lies: str, client: str) -> None:
    seen = client_address("10.0.0.1", f"{lies}, {client}", PROXIES)
    honest = client_address("10.0.0.1", client, PROXIES)
    # Only a client within the proxies' own networks could go on.
    assert seen == honest or honest.startswith(("10.", "2001:db8:ffff:"))


@given(st.text())
def test_a_stranger_is_never_believed(lies: str) -> None:
    assert client_address(CLIENT, lies, PROXIES) == CLIENT


@pytest.mark.parametrize(
    ("address", "client"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::/64"),
        ("2001:db8:0:0:ffff::1", "2001:db8::/64"),
        ("2001:db8:0:1::1", "2001:db8:0:1::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", "unknown"),
        ("x", "unknown"),
    ],
)
def test_one_client_is_an_ipv4_address_or_a_small_ipv6_network(address: str, client: str) -> None:
    assert client_of(address) == client


@pytest.mark.parametrize(
    ("host", "is_loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("[::1]", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("", False),
        ("10.0.0.1", False),
        ("192.0.2.1", False),
        ("localhost.example.com", False),
        ("127.0.0.1.example.com", False),
        ("api", False),
    ],
)
def test_what_counts_as_loopback(host: str, is_loopback: bool) -> None:
    assert is_loopback_host(host) is is_loopback
