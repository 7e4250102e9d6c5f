"""Access keys and networks in the table."""

from datetime import datetime, timedelta

import pytest

from shared.access import AccessKey, Scope, digest_of, new_key, new_key_id
from shared.order_store import access, keys
from shared.order_store.access import AccessKeyRefused
from shared.order_store.errors import UnreadableItem
from shared.order_store.gateway import Gateway
from tests.unit.factories import NOON, overwrite, raw, seconds

HOUR = timedelta(hours=1)


def make(gateway: Gateway, *accounts: int, expires_at: datetime | None = None) -> AccessKey:
    key_id = new_key_id()
    key = AccessKey(
        id=key_id,
        name="desk 7",
        scope=Scope.ACCOUNTS if accounts else Scope.OPERATOR,
        accounts=frozenset(accounts),
        created_at=NOON,
        digest=digest_of(new_key(key_id)),
        expires_at=expires_at,
    )
    access.create_key(gateway, key)
    return key


def listed(gateway: Gateway) -> list[AccessKey | UnreadableItem]:
    return list(access.list_keys(gateway))


def test_a_key_is_read_as_it_was_created(gateway: Gateway) -> None:
    for key in (make(gateway, 7), make(gateway, 1, 2, 3, expires_at=NOON + HOUR), make(gateway)):
        assert access.load_key(gateway, key.id) == key
    assert access.load_key(gateway, "000000000000") is None


def test_the_table_does_not_hold_what_would_let_anybody_in(gateway: Gateway) -> None:
    key_id = new_key_id()
    written = new_key(key_id)
    first = AccessKey(key_id, "x", Scope.OPERATOR, frozenset(), NOON, digest_of(written))
    access.create_key(gateway, first)
    newer = new_key(key_id)
    access.rotate_key(gateway, key_id, digest_of(newer), NOON, HOUR)
    item = str(raw(gateway, keys.access_key_key(key_id)))
    for secret in (written, newer):
        assert secret.partition(".")[2] not in item


def test_an_id_is_given_once(gateway: Gateway) -> None:
    key = make(gateway, 7)
    with pytest.raises(AccessKeyRefused):
        access.create_key(gateway, key)


def test_a_rotated_key_has_both_secrets_until_the_grace_is_over(gateway: Gateway) -> None:
    key = make(gateway, 7)
    rotated = access.rotate_key(gateway, key.id, b"new", NOON, HOUR)
    assert access.load_key(gateway, key.id) == rotated
    assert key.digest is not None
    for at, old in ((NOON, True), (NOON + HOUR - seconds(1), True), (NOON + HOUR, False)):
        assert rotated.admits(b"new", at)
        assert rotated.admits(key.digest, at) is old
    assert (rotated.accounts, rotated.name, rotated.created_at) == (key.accounts, key.name, NOON)


def test_a_second_rotation_ends_the_first_secret(gateway: Gateway) -> None:
    key = make(gateway, 7)
    access.rotate_key(gateway, key.id, b"second", NOON, HOUR)
    third = access.rotate_key(gateway, key.id, b"third", NOON, HOUR)
    assert key.digest is not None
    assert [third.admits(one, NOON) for one in (key.digest, b"second", b"third")] == [
        False,
        True,
        True,
    ]


def test_a_key_that_is_not_good_is_not_rotated(gateway: Gateway) -> None:
    revoked, expired = make(gateway, 7), make(gateway, 7, expires_at=NOON)
    access.revoke_key(gateway, revoked.id, NOON)
    for key_id in (revoked.id, expired.id, "000000000000"):
        with pytest.raises(AccessKeyRefused):
            access.rotate_key(gateway, key_id, b"new", NOON, HOUR)


def test_two_who_rotate_at_once_do_not_end_each_others_secret(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = make(gateway, 7)
    seen = access.load_key(gateway, key.id)
    access.rotate_key(gateway, key.id, b"theirs", NOON, HOUR)
    monkeypatch.setattr(access, "load_key", lambda *_: seen)
    with pytest.raises(AccessKeyRefused, match="somebody else"):
        access.rotate_key(gateway, key.id, b"ours", NOON, HOUR)


def test_a_revoked_key_lets_nobody_in_and_stays_in_the_list(gateway: Gateway) -> None:
    key = make(gateway, 7)
    access.rotate_key(gateway, key.id, b"new", NOON, HOUR)
    access.revoke_key(gateway, key.id, NOON)
    revoked = access.load_key(gateway, key.id)
    assert revoked is not None
    assert key.digest is not None
    assert not revoked.admits(b"new", NOON)
    assert not revoked.admits(key.digest, NOON)
    assert (revoked.revoked_at, revoked.digest, revoked.previous) == (NOON, None, None)
    assert listed(gateway) == [revoked]


def test_a_key_is_revoked_once(gateway: Gateway) -> None:
    key = make(gateway, 7)
    access.revoke_key(gateway, key.id, NOON)
    for key_id in (key.id, "000000000000"):
        with pytest.raises(AccessKeyRefused):
            access.revoke_key(gateway, key_id, NOON + HOUR)
    assert access.load_key(gateway, "000000000000") is None


def test_keys_are_listed_however_many_there_are(gateway: Gateway) -> None:
    made = {make(gateway, number).id for number in range(1, 131)}
    found = listed(gateway)
    assert {key.id for key in found if isinstance(key, AccessKey)} == made
    assert len(found) == 130


def test_a_damaged_key_is_told_and_the_others_are_listed(gateway: Gateway) -> None:
    damaged, sound = make(gateway, 7), make(gateway, 8)
    overwrite(gateway, keys.access_key_key(damaged.id), "scope", {"S": "everything"})
    assert {type(one) for one in listed(gateway)} == {AccessKey, UnreadableItem}
    with pytest.raises(UnreadableItem, match=damaged.id):
        access.load_key(gateway, damaged.id)
    access.revoke_key(gateway, damaged.id, NOON)
    assert access.load_key(gateway, sound.id) == sound


def test_networks_are_kept_until_they_are_removed(gateway: Gateway) -> None:
    assert access.networks(gateway) == []
    for _ in range(2):
        access.put_network(gateway, "ALLOW", "10.0.0.0/8", NOON)
    access.put_network(gateway, "DENY", "2001:db8::/32", NOON)
    assert sorted(access.networks(gateway)) == [("ALLOW", "10.0.0.0/8"), ("DENY", "2001:db8::/32")]
    assert access.remove_network(gateway, "ALLOW", "10.0.0.0/8")
    assert not access.remove_network(gateway, "ALLOW", "10.0.0.0/8")
    assert access.networks(gateway) == [("DENY", "2001:db8::/32")]
