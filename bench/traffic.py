"""Accounts to trade with, orders to send, and how to see that all are decided."""

import json
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import count
from typing import Any

from bench.raw_dynamodb import write_items
from bench.stack import Engines, Stack
from shared.domain.account import Account
from shared.order_store import items, keys, reads
from shared.order_store.gateway import Gateway, chunks

JSON_HEADERS = {"Content-Type": "application/json"}
CASH = Decimal(10) ** 12
ISSUERS = ("GBM", "AAPL", "NFLX", "WALMEX", "FEMSA")

_POLL_SECONDS = 0.005
_LOOK_AGAIN_SECONDS = 0.02
_FINAL_SECONDS_MAX = 180.0

# Beyond every id that the API gives out here, so that both ways of opening may be mixed.
_ids = count(1_000_000)
# Never the same again: an operation of the same shares within five minutes is a duplicate.
_shares = count(1)

Requests = list[tuple[str, str, str]]


class NotFinal(Exception):
    """Orders were not decided in time, or not all of them."""


def seed_accounts(engines: Engines, table_name: str, number: int) -> list[int]:
    """Write accounts straight into the table, rich and opened a minute ago; returns their ids."""
    ids = [next(_ids) for _ in range(number)]
    opened_at = datetime.now(UTC) - timedelta(minutes=1)
    write_items(
        engines.dynamodb_port, table_name, (one for i in ids for one in account_items(i, opened_at))
    )
    return ids


def account_items(account_id: int, opened_at: datetime) -> Iterator[keys.Item]:
    """The items of an account that was opened and never traded."""
    yield items.new_account_item(Account(account_id, CASH, opened_at), mark="bench")
    yield items.new_head_item(account_id)


def order_body(operation: str = "BUY", shares: int | None = None, issuer: str = "GBM") -> str:
    """The body of an order, dated now, that repeats no other."""
    return json.dumps(
        {
            "timestamp": int(time.time()),
            "operation": operation,
            "issuer_name": issuer,
            "total_shares": shares or next(_shares),
            "share_price": "1.25",
        }
    )


def order_requests(accounts: Sequence[int], number: int) -> Requests:
    """Orders that all can be executed, over ``accounts`` in turn.

    Of an account's orders four buy and the fifth sells of the same issuer, about a quarter of what
    the four bought.
    """
    requests = []
    for place in range(number):
        turn = place // len(accounts)
        account_id = accounts[place % len(accounts)]
        operation = "SELL" if turn % 5 == 4 else "BUY"
        issuer = ISSUERS[(turn // 5) % len(ISSUERS)]
        body = order_body(operation, issuer=issuer)
        requests.append(("POST", f"/v1/accounts/{account_id}/orders", body))
    return requests


def refs_of(locations: Iterable[str]) -> list[tuple[int, str]]:
    """Account id and order id of each Location."""
    parts = [location.split("/") for location in locations]
    return [(int(one[-3]), one[-1]) for one in parts]


def wait_until_final(stack: Stack) -> float:
    """Wait until no order is undecided; returns when that was, on the monotonic clock.

    Asks Redis alone while messages are left, which costs the product next to nothing, and the
    store's index of undecided orders once there are none.

    Raises:
        NotFinal: it took too long.
    """
    deadline = time.monotonic() + _FINAL_SECONDS_MAX
    while time.monotonic() < deadline:
        if stack.messages_left():
            time.sleep(_POLL_SECONDS)
            continue
        now = time.monotonic()
        if not _is_any_undecided(stack):
            return now
        time.sleep(_LOOK_AGAIN_SECONDS)
    raise NotFinal(f"orders of {stack.table_name} wait after {_FINAL_SECONDS_MAX:g} s")


def wait_for_first(stack: Stack, before: int) -> float:
    """Wait until a worker takes the first of ``before`` messages; returns when that was."""
    deadline = time.monotonic() + _FINAL_SECONDS_MAX
    while time.monotonic() < deadline:
        now = time.monotonic()
        if stack.messages_waiting() < before:
            return now
        time.sleep(_POLL_SECONDS)
    raise NotFinal("no worker takes anything")


def statuses_of(stack: Stack, refs: Sequence[tuple[int, str]]) -> Counter[str]:
    """What the store says of each order.

    Raises:
        NotFinal: one is pending, or is not there.
    """
    gateway = gateway_of(stack)
    statuses: Counter[str] = Counter()
    for some in chunks(refs, 100):
        found = gateway.batch_get([keys.order_key(*ref) for ref in some])
        statuses.update(item["status"]["S"] for item in found)
    if statuses["pending"] or statuses.total() != len(refs):
        raise NotFinal(f"of {len(refs)} accepted orders the store has {dict(statuses)}")
    return statuses


def gateway_of(stack: Stack) -> Gateway:
    """The stack's table."""
    return Gateway(stack.engines.client, stack.table_name)


def _is_any_undecided(stack: Stack) -> bool:
    later = datetime.now(UTC) + timedelta(hours=1)
    found: Iterator[Any] = reads.undecided_before(gateway_of(stack), later)
    return next(found, None) is not None
