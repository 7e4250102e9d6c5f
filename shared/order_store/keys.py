"""Every key of the single table, named once.

| pk                       | sk            | item                                             |
| ------------------------ | ------------- | ------------------------------------------------ |
| ACCOUNT#<id>             | ACCOUNT       | cash, positions, how many orders are decided     |
| ACCOUNT#<id>             | HEAD          | how many orders were accepted, and the newest id |
| ACCOUNT#<id>             | ORDER#<id>    | an order; ids sort by acceptance                 |
| ACCOUNT#<id>             | RECENT#<op>   | an executed operation that ACCOUNT has no room for |
| IDEMPOTENCY#<scope>#<id> | IDEMPOTENCY   | the answer to a request that may be repeated     |
| COUNTER                  | ACCOUNT       | the newest account id                            |
| KEY#<id>                 | KEY#<id>      | an access key, without its secret                |
| NETWORKS                 | ALLOW#<net>   | a network that may call (DENY#: that may not)    |
"""

import hashlib
import zlib
from typing import Any, Final

from shared.domain.order import Operation, OperationKey

PK: Final = "pk"
SK: Final = "sk"

SHARD: Final = "undecided_shard"
"""Only undecided and parked orders have this attribute: the index on it is sparse."""

UNDECIDED_INDEX: Final = "undecided"
UNDECIDED_SHARDS: Final = 16
"""Partitions of the index (1,000 writes a second each, AWS limit)."""

PARKED_SHARD: Final = "parked"
"""Where the index holds parked orders: apart from the shards that the sweeper reads."""

ACCESS_SHARD: Final = "access"
"""Where the index holds access keys, so that they are listed without reading the table."""

EXPIRES_AT: Final = "expires_at"
"""The table's TTL attribute, in Unix seconds."""

ACCOUNT_KIND: Final = "ACCOUNT"
HEAD_KIND: Final = "HEAD"
"""Sort keys of an account's own items."""

_ORDER: Final = "ORDER#"
_ORDER_END: Final = "ORDER$"
_RECENT: Final = "RECENT#"
_ACCOUNT: Final = "ACCOUNT#"
_IDEMPOTENCY: Final = "IDEMPOTENCY#"
_ACCESS_KEY: Final = "KEY#"
_NETWORKS: Final = "NETWORKS"

Key = dict[str, dict[str, str]]
Item = dict[str, dict[str, Any]]


def account_key(account_id: int) -> Key:
    """Key of the account's state."""
    return _key(f"{_ACCOUNT}{account_id}", ACCOUNT_KIND)


def head_key(account_id: int) -> Key:
    """Key of the account's count of accepted orders."""
    return _key(f"{_ACCOUNT}{account_id}", HEAD_KIND)


def order_key(account_id: int, order_id: str) -> Key:
    """Key of one order."""
    return _key(f"{_ACCOUNT}{account_id}", _ORDER + order_id)


def recent_key(account_id: int, operation: OperationKey) -> Key:
    """Key of an executed operation that was written apart from the account."""
    return _key(f"{_ACCOUNT}{account_id}", _RECENT + write_operation(operation))


def idempotency_key(scope: str, client_key: str) -> Key:
    """Key of a remembered answer; the client's text is hashed, so that any text will do."""
    digest = hashlib.sha256(client_key.encode("utf-8", "surrogatepass")).hexdigest()
    return _key(f"{_IDEMPOTENCY}{scope}#{digest}", "IDEMPOTENCY")


def counter_key() -> Key:
    """Key of the counter of account ids."""
    return _key("COUNTER", "ACCOUNT")


def access_key_key(key_id: str) -> Key:
    """Key of an access key; the id in both parts, so that the index sorts them."""
    return _key(_ACCESS_KEY + key_id, _ACCESS_KEY + key_id)


def access_key_id_of(item: Item) -> str:
    """Id of an access key's item."""
    return str(item[PK]["S"]).removeprefix(_ACCESS_KEY)


def network_key(verdict: str, network: str) -> Key:
    """Key of a network that is let in or kept out."""
    return _key(_NETWORKS, f"{verdict}#{network}")


def network_of(item: Item) -> tuple[str, str]:
    """Verdict and network of a network's item."""
    verdict, _, network = item[SK]["S"].partition("#")
    return verdict, network


def orders_of(account_id: int, after: str = "", to: str = "") -> dict[str, dict[str, str]]:
    """Values ``:pk``, ``:from``, ``:to`` of a query over an account's orders.

    From the id ``after`` on, up to the id ``to`` or to the end; both belong to it.
    """
    return {
        ":pk": {"S": f"{_ACCOUNT}{account_id}"},
        ":from": {"S": order_sort_key(after)},
        # A little beyond: a next page may not start at the very end (ValidationException).
        ":to": {"S": order_sort_key(to) + "~" if to else _ORDER_END},
    }


def order_sort_key(order_id: str) -> str:
    """Sort key of an order."""
    return _ORDER + order_id


def order_of(item: Item) -> tuple[int, str]:
    """Account id and order id of an order's item (or of its entry in the index)."""
    return int(item[PK]["S"].removeprefix(_ACCOUNT)), item[SK]["S"].removeprefix(_ORDER)


def account_of(item: Item) -> int:
    """Account id of any item that belongs to an account."""
    return int(item[PK]["S"].removeprefix(_ACCOUNT))


def operation_of(item: Item) -> OperationKey:
    """The operation of an executed one that was written apart from its account."""
    return read_operation(item[SK]["S"].removeprefix(_RECENT))


def is_order(item: Item) -> bool:
    """Tell whether ``item`` is an order."""
    return bool(item[SK]["S"].startswith(_ORDER))


def is_recent(item: Item) -> bool:
    """Tell whether ``item`` is an executed operation that was written apart from its account."""
    return bool(item[SK]["S"].startswith(_RECENT))


def account_id_of(item: Item) -> int | None:
    """Account id of any item that may belong to an account, None where it does not."""
    text = item[PK]["S"].removeprefix(_ACCOUNT)
    is_id = text.isascii() and text.isdigit() and not text.startswith("0")
    return int(text) if is_id and item[PK]["S"].startswith(_ACCOUNT) else None


def is_idempotency(item: Item) -> bool:
    """Tell whether ``item`` remembers the answer to a request."""
    return bool(item[PK]["S"].startswith(_IDEMPOTENCY))


def is_access(item: Item) -> bool:
    """Tell whether ``item`` says who may call: an access key, or a network."""
    pk = item[PK]["S"]
    return bool(pk == _NETWORKS or pk.startswith(_ACCESS_KEY))


def shard_of(account_id: int) -> str:
    """Shard of the undecided index: the orders of an account share one, so they stay sorted."""
    return str(zlib.crc32(str(account_id).encode()) % UNDECIDED_SHARDS)


def write_operation(key: OperationKey) -> str:
    """Write an operation as a key: the issuer comes last, for it may hold any printable text."""
    return f"{key.operation}:{key.total_shares}:{key.issuer_name}"


def read_operation(text: str) -> OperationKey:
    """Read what ``write_operation`` wrote."""
    operation, total_shares, issuer_name = text.split(":", 2)
    return OperationKey(Operation(operation), issuer_name, int(total_shares))


def _key(pk: str, sk: str) -> Key:
    return {PK: {"S": pk}, SK: {"S": sk}}
