"""Networks that may call and that may not, changed while the API runs."""

from collections.abc import Callable

import pytest
from werkzeug.test import TestResponse

from api.access.networks import REREAD_SECONDS, RETRY_SECONDS, VERDICTS_MAX, NetworkLists
from shared.networks import ALLOW, DENY, read_networks
from shared.order_store import access, keys
from shared.order_store.errors import StoreUnavailable
from tests.unit.api.access.parts import FakeMonotonic, Guarded, guard
from tests.unit.api.parts import Api, problem_of
from tests.unit.factories import NOON


class Shelf:
    """A store of lists that counts its readers, or is away."""

    def __init__(self, *entries: tuple[str, str]) -> None:
        self.entries = list(entries)
        self.reads = 0
        self.is_down = False

    def __call__(self) -> list[tuple[str, str]]:
        self.reads += 1
        if self.is_down:
            raise StoreUnavailable("away")
        return self.entries


def lists(*entries: tuple[str, str]) -> NetworkLists:
    return NetworkLists(Shelf(*entries), FakeMonotonic())


def test_without_lists_everybody_may_call() -> None:
    assert lists().let_in("192.0.2.1")
    assert lists().let_in("unknown")


def test_a_denied_network_is_kept_out() -> None:
    denied = lists((DENY, "192.0.2.0/24"), (DENY, "2001:db8::/32"))
    assert not denied.let_in("192.0.2.1")
    assert not denied.let_in("2001:db8:1::1")
    assert denied.let_in("192.0.3.1")
    assert denied.let_in("2001:db9::1")


def test_allowed_networks_are_the_only_ones() -> None:
    allowed = lists((ALLOW, "192.0.2.0/24"))
    assert allowed.let_in("192.0.2.255")
    for other in ("192.0.3.0", "2001:db8::1", "", "unknown"):
        assert not allowed.let_in(other)


def test_denied_wins_over_allowed() -> None:
    both = lists((ALLOW, "10.0.0.0/8"), (DENY, "10.1.0.0/16"))
    assert both.let_in("10.2.0.1")
    assert not both.let_in("10.1.0.1")


def test_an_allowed_network_that_cannot_be_read_allows_nobody() -> None:
    damaged = lists((ALLOW, "nonsense"), ("PERHAPS", "10.0.0.0/8"))
    assert not damaged.let_in("10.0.0.1")


def test_lists_are_read_again_within_seconds() -> None:
    shelf, monotonic = Shelf(), FakeMonotonic()
    current = NetworkLists(shelf, monotonic)
    assert current.let_in("10.0.0.1")
    shelf.entries = [(DENY, "10.0.0.0/8")]
    monotonic.now += REREAD_SECONDS - 0.001
    assert current.let_in("10.0.0.1")
    monotonic.now += 0.002
    assert not current.let_in("10.0.0.1")
    shelf.entries = []
    monotonic.now += REREAD_SECONDS
    assert current.let_in("10.0.0.1")
    assert shelf.reads == 3


def test_without_the_store_the_last_lists_hold() -> None:
    shelf, monotonic = Shelf((DENY, "10.0.0.0/8")), FakeMonotonic()
    current = NetworkLists(shelf, monotonic)
    assert not current.let_in("10.0.0.1")
    shelf.is_down = True
    for _ in range(100):
        monotonic.now += 3600
        assert not current.let_in("10.0.0.1")
        assert current.let_in("192.0.2.1")


def test_lists_that_were_never_read_let_nobody_in() -> None:
    shelf, monotonic = Shelf(), FakeMonotonic()
    shelf.is_down = True
    current = NetworkLists(shelf, monotonic)
    with pytest.raises(StoreUnavailable):
        current.let_in("10.0.0.1")
    # The store is left alone for a moment.
    for _ in range(10):
        monotonic.now += RETRY_SECONDS / 11
        with pytest.raises(StoreUnavailable):
            current.let_in("10.0.0.1")
    assert shelf.reads == 1
    shelf.is_down = False
    monotonic.now += RETRY_SECONDS
    assert current.let_in("10.0.0.1")


def test_remembered_verdicts_are_bounded() -> None:
    current = lists((DENY, "10.0.0.0/8"))
    for number in range(VERDICTS_MAX + 5):
        current.let_in(f"2001:db8::{number:x}")
    verdicts = current._current().verdicts
    assert 0 < len(verdicts) <= VERDICTS_MAX
    assert not current.let_in("10.0.0.1")


# At the API


def test_an_operator_keeps_a_network_out_while_the_api_runs(guarded: Guarded) -> None:
    key = guarded.make_key(1)
    peer = {"REMOTE_ADDR": "203.0.113.9"}

    def ask() -> TestResponse:
        headers = {"X-API-Key": key}
        return guarded.http.get("/v1/accounts/1", headers=headers, environ_base=peer)

    problem_of(ask(), 404, "ACCOUNT_NOT_FOUND")
    access.put_network(guarded.api.gateway, DENY, "203.0.113.0/24", NOON)
    guarded.monotonic.now += REREAD_SECONDS
    problem_of(ask(), 403, "NETWORK_DENIED")
    assert guarded.http.get("/healthz", environ_base=peer).status_code == 200
    assert access.remove_network(guarded.api.gateway, DENY, "203.0.113.0/24")
    guarded.monotonic.now += REREAD_SECONDS
    problem_of(ask(), 404, "ACCOUNT_NOT_FOUND")


def test_the_client_s_address_counts_and_not_the_proxy_s(make_api: Callable[..., Api]) -> None:
    guarded = guard(make_api(access_keys="required", trusted_proxies=read_networks("10.0.0.0/8")))
    access.put_network(guarded.api.gateway, DENY, "203.0.113.0/24", NOON)
    key = guarded.make_key(1)
    for peer, forwarded, status in (
        ("10.0.0.1", "203.0.113.9", 403),
        ("10.0.0.1", "192.0.2.1, 203.0.113.9", 403),
        ("10.0.0.1", "203.0.113.9, 192.0.2.1", 404),
        ("192.0.2.1", "203.0.113.9", 404),
        ("203.0.113.9", "192.0.2.1", 403),
    ):
        headers = {"X-API-Key": key, "X-Forwarded-For": forwarded}
        answer = guarded.http.get(
            "/v1/accounts/1", headers=headers, environ_base={"REMOTE_ADDR": peer}
        )
        assert answer.status_code == status, (peer, forwarded)


def test_networks_are_listed_however_many_there_are(guarded: Guarded) -> None:
    gateway = guarded.api.gateway
    for number in range(30):
        access.put_network(gateway, ALLOW, f"10.0.{number}.0/24", NOON)
    access.put_network(gateway, DENY, "10.0.0.0/24", NOON)
    found = access.networks(gateway)
    assert len(found) == 31
    assert (DENY, "10.0.0.0/24") in found
    assert not access.remove_network(gateway, DENY, "10.0.1.0/24")
    assert gateway.get(keys.network_key(DENY, "10.0.0.0/24")) is not None
