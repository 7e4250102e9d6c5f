"""Who may call: access keys and networks, in the table that holds everything else.

They stand there and not in Redis, which may forget all it knows at any moment: a revoked key or a
network that was kept out must not come back with that.
"""

import dataclasses
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import uuid4

from shared.access import AccessKey, Scope
from shared.order_store import items, keys
from shared.order_store.errors import UnreadableItem
from shared.order_store.expressions import update_action
from shared.order_store.gateway import BATCH_GET_KEYS_MAX, Gateway, TransactionCancelled
from shared.order_store.keys import ACCESS_SHARD, PK, SHARD, UNDECIDED_INDEX, Item

_DAMAGED: Final = (LookupError, ValueError, TypeError, AttributeError)


class AccessKeyRefused(Exception):
    """The key was left as it is; the text says why."""


def load_key(gateway: Gateway, key_id: str) -> AccessKey | None:
    """Read an access key, or None if there is none.

    Raises:
        UnreadableItem: its item does not have the shape that this code writes.
        StoreUnavailable: no answer in time.
    """
    item = gateway.get(keys.access_key_key(key_id))
    return _read_key(item) if item else None


def list_keys(gateway: Gateway) -> Iterator[AccessKey | UnreadableItem]:
    """Stream all access keys by their ids; one whose item is damaged comes as what is wrong.

    The index that names them follows the table after a moment: a new one may be missing at first.

    Raises:
        StoreUnavailable: no answer in time.
    """
    start: dict[str, keys.Key] = {}
    while True:
        page, last = gateway.query(
            IndexName=UNDECIDED_INDEX,
            KeyConditionExpression="#shard = :shard",
            ExpressionAttributeNames={"#shard": SHARD},
            ExpressionAttributeValues={":shard": items.text(ACCESS_SHARD)},
            Limit=BATCH_GET_KEYS_MAX,
            **start,
        )
        ids = [keys.access_key_id_of(entry) for entry in page]
        found = gateway.batch_get([keys.access_key_key(key_id) for key_id in ids])
        yield from map(_read_or_say, sorted(found, key=keys.access_key_id_of))
        if last is None:
            return
        start = {"ExclusiveStartKey": last}


def create_key(gateway: Gateway, key: AccessKey) -> None:
    """Record a new key.

    Raises:
        AccessKeyRefused: its id is taken.
        StoreUnavailable: not recorded as far as is known; nobody has its secret then.
    """
    fields = {
        "name": items.text(key.name),
        "scope": items.text(key.scope),
        "accounts": {"L": [items.number(one) for one in sorted(key.accounts)]},
        "created_at": items.instant(key.created_at),
        SHARD: items.text(ACCESS_SHARD),
        **_written("digest", key.digest),
        **({"key_expires_at": items.instant(key.expires_at)} if key.expires_at else {}),
    }
    _update(
        gateway, key.id, "its id is taken", set_=fields, condition=f"attribute_not_exists(#{PK})"
    )


def rotate_key(
    gateway: Gateway, key_id: str, digest: bytes, now: datetime, grace: timedelta
) -> AccessKey:
    """Give the key a new secret; the one before is good for ``grace`` more. Returns the key.

    Raises:
        AccessKeyRefused: there is no such key, it is revoked or expired, or somebody else rotates
            it just now.
        UnreadableItem: its item is damaged.
        StoreUnavailable: not rotated as far as is known.
    """
    key = _existing(gateway, key_id)
    if key.digest is None or key.revoked_at is not None:
        raise AccessKeyRefused("it is revoked: create a new one")
    if key.expires_at is not None and now >= key.expires_at:
        raise AccessKeyRefused("it is expired: create a new one")
    rotated = dataclasses.replace(
        key, digest=digest, previous=key.digest, previous_until=now + grace
    )
    _update(
        gateway,
        key_id,
        "somebody else changed it just now: try again",
        set_={
            **_written("digest", digest),
            **_written("previous", key.digest),
            "previous_until": items.instant(now + grace),
        },
        condition="#digest = :seen",
        values={":seen": items.text(key.digest.hex())},
    )
    return rotated


def revoke_key(gateway: Gateway, key_id: str, now: datetime) -> None:
    """Revoke the key for good. Its item stays, without secrets, so that logs can be explained.

    Revoking it again changes nothing.

    Raises:
        AccessKeyRefused: there is no such key.
        StoreUnavailable: not revoked as far as is known: ask again.
    """
    _update(
        gateway,
        key_id,
        "there is no such key, or it is revoked already",
        set_={"revoked_at": items.instant(now)},
        # Whatever else is wrong with the item: a damaged key can be revoked, too.
        condition=f"attribute_exists(#{PK}) AND attribute_not_exists(#revoked_at)",
        remove=("digest", "previous", "previous_until"),
    )


def networks(gateway: Gateway) -> list[tuple[str, str]]:
    """Every network that was let in or kept out, as verdict and network.

    Raises:
        StoreUnavailable: no answer in time.
    """
    found: list[tuple[str, str]] = []
    start: dict[str, keys.Key] = {}
    while True:
        page, last = gateway.query(
            KeyConditionExpression=f"#{PK} = :pk",
            ExpressionAttributeNames={f"#{PK}": PK},
            ExpressionAttributeValues={":pk": keys.network_key("", "")[PK]},
            ConsistentRead=True,
            **start,
        )
        found += map(keys.network_of, page)
        if last is None:
            return found
        start = {"ExclusiveStartKey": last}


def put_network(gateway: Gateway, verdict: str, network: str, now: datetime) -> None:
    """Let ``network`` in or keep it out; again changes nothing (raises ``StoreUnavailable``)."""
    item = {**keys.network_key(verdict, network), "created_at": items.instant(now)}
    put = {"TableName": gateway.table_name, "Item": item}
    gateway.transact([{"Put": put}], token=str(uuid4()))


def remove_network(gateway: Gateway, verdict: str, network: str) -> bool:
    """Forget what was said of ``network``; tells whether there was anything.

    Raises:
        StoreUnavailable: not forgotten as far as is known: ask again.
    """
    key = keys.network_key(verdict, network)
    delete = {
        "TableName": gateway.table_name,
        "Key": key,
        "ConditionExpression": f"attribute_exists(#{PK})",
        "ExpressionAttributeNames": {f"#{PK}": PK},
    }
    try:
        gateway.transact([{"Delete": delete}], token=str(uuid4()))
    except TransactionCancelled:
        return False
    return True


def _existing(gateway: Gateway, key_id: str) -> AccessKey:
    key = load_key(gateway, key_id)
    if key is None:
        raise AccessKeyRefused("there is no such key")
    return key


def _update(
    gateway: Gateway,
    key_id: str,
    refusal: str,
    *,
    set_: dict[str, Any],
    condition: str,
    values: dict[str, Any] | None = None,
    remove: tuple[str, ...] = (),
) -> None:
    action = update_action(
        gateway.table_name,
        keys.access_key_key(key_id),
        set_=set_,
        condition=condition,
        condition_values=values or {},
        remove=remove,
    )
    try:
        gateway.update(**{name: one for name, one in action.items() if name != "TableName"})
    except TransactionCancelled as cancelled:
        raise AccessKeyRefused(refusal) from cancelled


def _written(name: str, digest: bytes | None) -> dict[str, Any]:
    return {name: items.text(digest.hex())} if digest is not None else {}


def _read_or_say(item: Item) -> AccessKey | UnreadableItem:
    try:
        return _read_key(item)
    except UnreadableItem as error:
        return error


def _read_key(item: Item) -> AccessKey:
    key_id = keys.access_key_id_of(item)
    try:
        return AccessKey(
            id=key_id,
            name=item["name"]["S"],
            scope=Scope(item["scope"]["S"]),
            accounts=frozenset(int(one["N"]) for one in item["accounts"]["L"]),
            created_at=datetime.fromisoformat(item["created_at"]["S"]),
            digest=_digest(item, "digest"),
            previous=_digest(item, "previous"),
            previous_until=_instant(item, "previous_until"),
            expires_at=_instant(item, "key_expires_at"),
            revoked_at=_instant(item, "revoked_at"),
        )
    except _DAMAGED as error:
        raise UnreadableItem(f"access key {key_id}: {error!r}") from error


def _digest(item: Item, name: str) -> bytes | None:
    return bytes.fromhex(item[name]["S"]) if name in item else None


def _instant(item: Item, name: str) -> datetime | None:
    if name not in item:
        return None
    instant = datetime.fromisoformat(item[name]["S"])
    if instant.utcoffset() is None:
        raise ValueError(f"{name} has no offset")
    return instant
