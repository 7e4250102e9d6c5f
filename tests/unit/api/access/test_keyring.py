"""Keys that a process remembers: how soon it knows of changes, what it does without a store."""

import pytest

from api.access.keyring import (
    FRESH_SECONDS,
    KEYS_MAX,
    LOOKUPS_PER_SECOND_MAX,
    STALE_SECONDS_MAX,
    UNKNOWN_KEYS_MAX,
    UNKNOWN_SECONDS,
    KeyRing,
    TooManyLookups,
)
from shared.access import AccessKey, Scope
from shared.order_store import access, keys
from shared.order_store.errors import StoreUnavailable, UnreadableItem
from tests.unit.api.access.parts import FakeMonotonic, Guarded, id_of, make_key
from tests.unit.api.parts import order_body, problem_of
from tests.unit.factories import NOON, overwrite, seconds


class Shelf:
    """A store of keys that counts its readers, or is away."""

    def __init__(self) -> None:
        self.keys: dict[str, AccessKey] = {}
        self.reads: list[str] = []
        self.error: Exception | None = None

    def __call__(self, key_id: str) -> AccessKey | None:
        self.reads.append(key_id)
        if self.error is not None:
            raise self.error
        return self.keys.get(key_id)


def a_key(key_id: str = "a") -> AccessKey:
    return AccessKey(key_id, "x", Scope.OPERATOR, frozenset(), NOON, b"digest")


@pytest.fixture(name="shelf")
def _shelf() -> Shelf:
    return Shelf()


@pytest.fixture(name="clock")
def _clock() -> FakeMonotonic:
    return FakeMonotonic()


@pytest.fixture(name="ring")
def _ring(shelf: Shelf, clock: FakeMonotonic) -> KeyRing:
    shelf.keys["a"] = a_key()
    return KeyRing(shelf, clock)


def test_a_key_is_read_once_while_it_is_fresh(
    ring: KeyRing, shelf: Shelf, clock: FakeMonotonic
) -> None:
    for _ in range(10):
        assert ring.find("a") is shelf.keys["a"]
        clock.now += FRESH_SECONDS / 10.1
    assert shelf.reads == ["a"]


def test_a_change_is_known_when_the_key_is_not_fresh_any_more(
    ring: KeyRing, shelf: Shelf, clock: FakeMonotonic
) -> None:
    ring.find("a")
    del shelf.keys["a"]
    clock.now += FRESH_SECONDS - 0.001
    assert ring.find("a") is not None
    clock.now += 0.001
    assert ring.find("a") is None


def test_an_id_that_is_no_keys_is_looked_up_once_in_a_while(
    ring: KeyRing, shelf: Shelf, clock: FakeMonotonic
) -> None:
    assert not ring.knows("b")
    assert [ring.find("b") for _ in range(5)] == [None] * 5
    assert ring.knows("b")
    assert shelf.reads == ["b"]
    shelf.keys["b"] = a_key("b")
    clock.now += UNKNOWN_SECONDS
    assert ring.find("b") is shelf.keys["b"]


def test_invented_ids_load_the_store_no_more_than_so_much(
    ring: KeyRing, shelf: Shelf, clock: FakeMonotonic
) -> None:
    assert ring.find("a") is not None
    for number in range(LOOKUPS_PER_SECOND_MAX - 1):
        assert ring.find(f"invented {number}") is None
    with pytest.raises(TooManyLookups):
        ring.find("one more")
    assert len(shelf.reads) == LOOKUPS_PER_SECOND_MAX
    # Those who are known here do not notice.
    clock.now += FRESH_SECONDS
    for number in range(LOOKUPS_PER_SECOND_MAX):
        ring.find(f"others {number}")
    assert ring.find("a") is not None
    clock.now += 1
    assert ring.find("one more") is None


def test_what_a_process_remembers_of_keys_is_bounded(shelf: Shelf, clock: FakeMonotonic) -> None:
    ring = KeyRing(shelf, clock)
    for number in range(max(KEYS_MAX, UNKNOWN_KEYS_MAX) + 10):
        clock.now += 1
        shelf.keys[f"key {number}"] = a_key(f"key {number}")
        ring.find(f"key {number}")
        ring.find(f"none {number}")
    assert len(ring._known) == KEYS_MAX
    assert len(ring._unknown) == UNKNOWN_KEYS_MAX
    assert not ring.knows("key 0")
    assert ring.knows(f"key {KEYS_MAX + 9}")


def test_without_the_store_a_known_key_is_good_for_a_while(
    ring: KeyRing, shelf: Shelf, clock: FakeMonotonic
) -> None:
    ring.find("a")
    shelf.error = StoreUnavailable("away")
    clock.now += STALE_SECONDS_MAX - 0.001
    assert ring.find("a") is shelf.keys["a"]
    clock.now += 0.001
    with pytest.raises(StoreUnavailable):
        ring.find("a")
    shelf.error = None
    clock.now += 1
    assert ring.find("a") is shelf.keys["a"]


def test_a_store_that_fails_is_left_alone_for_a_second(
    ring: KeyRing, shelf: Shelf, clock: FakeMonotonic
) -> None:
    ring.find("a")
    clock.now += FRESH_SECONDS
    shelf.error = StoreUnavailable("away")
    for _ in range(20):
        assert ring.find("a") is not None
        with pytest.raises(StoreUnavailable):
            ring.find("never seen")
        clock.now += 0.049
    assert shelf.reads == ["a", "a"]
    clock.now += 0.1
    ring.find("a")
    assert shelf.reads == ["a", "a", "a"]


def test_a_damaged_key_lets_nobody_in(ring: KeyRing, shelf: Shelf, clock: FakeMonotonic) -> None:
    ring.find("a")
    shelf.error = UnreadableItem("nonsense")
    clock.now += FRESH_SECONDS
    assert ring.find("a") is None


# With the store


def test_a_revoked_key_is_refused_within_seconds(guarded: Guarded) -> None:
    key = guarded.make_key(scope=Scope.OPERATOR)
    assert guarded.post("/v1/accounts", {"cash": 1}, key).status_code == 201
    access.revoke_key(guarded.api.gateway, id_of(key), NOON)
    guarded.monotonic.now += FRESH_SECONDS
    problem_of(guarded.get("/v1/accounts/1", key), 401, "KEY_REFUSED")


def test_a_key_costs_the_store_nothing_while_it_is_known(guarded: Guarded) -> None:
    key = guarded.make_key(1)
    guarded.get("/v1/accounts/1", key)
    guarded.api.store.calls.clear()
    for _ in range(10):
        guarded.get("/v1/accounts/1", key)
    assert guarded.api.store.calls == ["get_item"] * 10  # the account's


def test_without_the_store_strangers_are_told_to_try_again(guarded: Guarded) -> None:
    key = guarded.make_key(1)
    guarded.api.store.is_down = True
    answer = guarded.get("/v1/accounts/1", key)
    problem_of(answer, 503, "STORE_UNAVAILABLE")
    assert answer.headers["Retry-After"] == "1"
    assert guarded.get("/healthz").status_code == 200


def test_without_the_store_what_is_cached_can_still_be_read(guarded: Guarded) -> None:
    opener = guarded.make_key(scope=Scope.ALL_ACCOUNTS)
    guarded.post("/v1/accounts", {"cash": 1}, opener)
    placed = guarded.post("/v1/accounts/1/orders", order_body(), opener).get_json()
    guarded.api.services.cache.put([(1, placed["id"], b"{}")])
    guarded.api.store.is_down = True
    guarded.monotonic.now += FRESH_SECONDS + 1
    assert guarded.get(f"/v1/accounts/1/orders/{placed['id']}", opener).data == b"{}"
    guarded.monotonic.now += STALE_SECONDS_MAX
    answer = guarded.get(f"/v1/accounts/1/orders/{placed['id']}", opener)
    problem_of(answer, 503, "STORE_UNAVAILABLE")


@pytest.mark.parametrize(
    "damage",
    [
        ("scope", {"S": "everything"}),
        ("accounts", {"S": "1"}),
        ("digest", {"S": "zz"}),
        ("key_expires_at", {"S": "tomorrow"}),
        ("key_expires_at", {"S": "2030-01-01T00:00:00"}),
        ("revoked_at", {"N": "1"}),
    ],
)
def test_a_key_whose_item_is_damaged_lets_nobody_in(
    guarded: Guarded, damage: tuple[str, dict[str, str]]
) -> None:
    key = make_key(guarded.api, 1, expires_at=NOON + seconds(60))
    overwrite(guarded.api.gateway, keys.access_key_key(id_of(key)), *damage)
    problem_of(guarded.get("/v1/accounts/1", key), 401, "KEY_REFUSED")


def test_a_digest_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []

    def compare(kept: bytes, shown: bytes) -> bool:
        compared.append((kept, shown))
        return False

    monkeypatch.setattr("shared.access.hmac.compare_digest", compare)
    rotated = AccessKey(
        "a", "x", Scope.OPERATOR, frozenset(), NOON, b"new", b"old", NOON + seconds(1)
    )
    assert not rotated.admits(b"new", NOON)
    assert compared == [(b"new", b"new"), (b"old", b"new")]
