"""What orders consume, counted from the product's own calls.

Real acceptance, settling, reading and sweeping run on the simulation's model of DynamoDB behind a
meter (``bench.units``); real publishing, delivery and caching on a Redis in this process.
"""

import json
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final, cast
from unittest import mock

from fakeredis import TcpFakeServer
from kombu import Consumer, Queue
from redis import Redis
from redis.connection import Connection

from api.acceptance import AccountRequest, Intake, OrderRequest, account_intake, order_intake
from api.status import StatusReader
from api.validation import AccountBody, OrderBody
from bench.units import (
    STORAGE_BYTES_AN_ITEM,
    MeteredClient,
    Usage,
    index_entry,
    item_bytes,
)
from shared.domain.account import Account, Position
from shared.ids import OrderIds, OrderRef, first_id_at
from shared.order_store import accepts, items, keys
from shared.order_store.commits import RECENT_INLINE_MAX
from shared.order_store.gateway import Gateway, chunks
from shared.order_store.records import AcceptedOrder, IdempotencyClaim, OpenedAccount
from shared.settings import Settings
from shared.status_cache import StatusCache
from shared.task_queue import ORDERS_QUEUE, TaskQueue, publisher_app
from tests.simulation.dynamodb import Table
from tests.simulation.world import INDEXES
from worker.processing import Settler
from worker.sweeper import Sweeper
from worker.turns import Turns

REDIS_BYTES_AN_ENTRY: Final = 100
"""Assumed: what Redis adds to a key and its value."""

GROUP: Final = 33
"""Orders with a key that fill a transaction: three actions each."""

NOW: Final = datetime(2026, 3, 2, 18, 0, 0, 123456, tzinfo=UTC)
FIRST_ACCOUNT: Final = 1_000_001
POSITIONS: Final = 10
RECENT: Final = 5
"""Of the account that the tables assume."""

_CASH: Final = Decimal("250000000.75")
_PRICE: Final = Decimal("187.25")
_LATER: Final = timedelta(hours=1)
_ORIGIN: Final = "gen1234@api-1"


@dataclass(frozen=True, slots=True)
class Counted:
    """What one call of the product consumed, and for how many orders."""

    name: str
    orders: int
    usage: Usage

    @property
    def writes(self) -> float:
        """Write units for each order, the index's included."""
        return self.usage.writes / self.orders

    @property
    def table_writes(self) -> float:
        """Write units of the table for each order."""
        return self.usage.table_writes / self.orders

    @property
    def reads(self) -> float:
        """Read units for each order."""
        return self.usage.reads / self.orders

    @property
    def hottest(self) -> float:
        """Write units for each order of the partition key that took the most."""
        return max(self.usage.by_partition.values(), default=0) / self.orders


class KeptQueue(TaskQueue):
    """A queue that keeps what was published."""

    def __init__(self) -> None:
        """Nothing waits."""
        self.messages: list[list[OrderRef]] = []

    def publish(
        self,
        refs: Sequence[OrderRef],
        now: datetime,
        *,
        suspect: bool = False,
        origins: Sequence[str] = (),
    ) -> None:
        """Keep the message."""
        del now, suspect, origins
        self.messages.append(list(refs))

    def oldest_waiting_since(self) -> datetime | None:
        """Nothing waits in the broker."""
        return None

    def depth(self) -> int:
        """Nothing waits in the broker."""
        return 0


class EveryTurn(Turns):
    """Nobody else is there."""

    def __init__(self) -> None:
        """Needs no Redis."""

    def take(self, account_ids: Collection[int]) -> set[int]:
        """All of them."""
        return set(account_ids)

    def give_back(self, account_ids: Collection[int]) -> None:
        """There is nothing to give."""


class KeptCache(StatusCache):
    """A status cache in a dictionary."""

    def __init__(self) -> None:
        """Nothing is cached."""
        self.answers: dict[OrderRef, bytes] = {}

    def get_many(self, refs: Sequence[OrderRef]) -> list[bytes | None]:
        """The answers that were put."""
        return [self.answers.get(ref) for ref in refs]

    def put(self, answers: Any, notices: Any = ()) -> None:
        """Keep the answers."""
        del notices
        self.answers.update({(account, order): body for account, order, body in answers})


@dataclass
class Desk:
    """The product around one metered table."""

    client: MeteredClient
    gateway: Gateway
    now: datetime = NOW
    queue: KeptQueue = field(default_factory=KeptQueue)
    cache: KeptCache = field(default_factory=KeptCache)
    accounts: int = FIRST_ACCOUNT
    numbers: int = 0

    def __post_init__(self) -> None:
        """Put the parts together as the processes do."""
        rules = Settings(market_always_open=True).rules
        self.intake: Intake[OrderRequest, AcceptedOrder] = order_intake(
            self.gateway, self.queue, OrderIds(), self.clock
        )
        self.settler = Settler(self.gateway, self.cache, EveryTurn(), rules, 5, clock=self.clock)
        self.reader = StatusReader(self.gateway, self.cache)

    def clock(self) -> datetime:
        """The time of all parts."""
        return self.now

    def open(self, count: int, positions: int = POSITIONS, recent: int = RECENT) -> list[int]:
        """Open ``count`` accounts that executed ``recent`` orders just now; returns their ids."""
        ids = [self.accounts + number for number in range(count)]
        self.accounts += count
        for account_id in ids:
            opened = OpenedAccount(_account(account_id, positions), f"{account_id:036}")
            accepts.record_accounts(self.gateway, [opened], NOW, f"open-{account_id}")
            for part in chunks([account_id] * recent, GROUP):
                self.settle(self.pending(part))
        self.client.take()
        return ids

    def requests(self, accounts: Sequence[int], *, keyed: bool) -> list[OrderRequest]:
        """One valid order of each entry of ``accounts``, no two alike."""
        return [self._request(account_id, keyed=keyed) for account_id in accounts]

    def accept(self, requests: Sequence[OrderRequest]) -> Usage:
        """Record a group as the API does and announce it; returns what the store was asked."""
        outcomes = self.intake.record_group(requests)
        self.intake.announce_recorded(outcomes)
        return self.client.take()

    def pending(self, accounts: Sequence[int]) -> list[OrderRef]:
        """Accept orders; returns the message about them."""
        self.accept(self.requests(accounts, keyed=False))
        return self.queue.messages.pop()

    def settle(self, message: Sequence[OrderRef]) -> Usage:
        """Settle a message as the worker does; returns what the store was asked."""
        if self.settler.settle(message):
            raise RuntimeError("a message was not settled")
        return self.client.take()

    def _request(self, account_id: int, *, keyed: bool) -> OrderRequest:
        self.numbers += 1
        body = OrderBody.model_validate(
            {
                "timestamp": self.now.isoformat(),
                "operation": "BUY",
                "issuer_name": "I000",
                "total_shares": self.numbers % 900 + 100,
                "share_price": str(_PRICE),
            }
        )
        claim = IdempotencyClaim(str(account_id), f"key-{self.numbers}", "f" * 64)
        return OrderRequest(account_id, body, self.now, claim if keyed else None, float("inf"))


def _account(account_id: int, positions: int) -> Account:
    held = {f"I{number:03}": Position(100 + number, _PRICE) for number in range(positions)}
    return Account(account_id, _CASH, NOW - timedelta(days=30), held)


@contextmanager
def desk() -> Iterator[Desk]:
    """The product around an empty table."""
    metered = MeteredClient(Table("orders", INDEXES))
    yield Desk(metered, Gateway(cast("Any", metered), "orders"))


# What DynamoDB is asked for.


def count_store() -> dict[str, Counted]:
    """Every case of the DynamoDB table, by its name."""
    with desk() as product:
        cases = [*_accepts(product), *_settles(product), *_reads(product), *_sweeps(product)]
    return {case.name: case for case in cases}


def _accepts(product: Desk) -> Iterator[Counted]:
    def group(name: str, accounts: Sequence[int], *, keyed: bool) -> Counted:
        usage = product.accept(product.requests(accounts, keyed=keyed))
        return Counted(name, len(accounts), usage)

    yield group("accept 1", product.open(1), keyed=False)
    yield group("accept 1, key", product.open(1), keyed=True)
    yield group("accept 10", product.open(10), keyed=False)
    yield group("accept 33", product.open(GROUP), keyed=False)
    yield group("accept 33, keys", product.open(GROUP), keyed=True)
    yield group("accept 33 of one account", product.open(1) * GROUP, keyed=False)
    yield group("accept 33 of one account, keys", product.open(1) * GROUP, keyed=True)
    yield _opened(product, 1)
    yield _opened(product, 50)
    again = product.requests(product.open(1), keyed=True)
    product.accept(again)
    yield Counted("a key used before", 1, product.accept(again))
    yield group("an unknown account", [product.accounts], keyed=False)


def _opened(product: Desk, count: int) -> Counted:
    request = AccountRequest(AccountBody(cash=_CASH), product.now, None, float("inf"))
    account_intake(product.gateway, product.clock).record_group([request] * count)
    return Counted(f"open {count} account{'s' * (count > 1)}", count, product.client.take())


def _settles(product: Desk) -> Iterator[Counted]:
    def message(name: str, accounts: Sequence[int]) -> Counted:
        return Counted(name, len(accounts), product.settle(product.pending(accounts)))

    yield message("settle 1", product.open(1))
    yield message("settle 10", product.open(10))
    yield message("settle 33", product.open(GROUP))
    yield message("settle 33 of one account", product.open(1) * GROUP)
    named = product.pending(product.open(1))
    product.settle(named)
    yield Counted("settle a message again", 1, product.settle(named))
    account = product.open(1)
    first, second = product.pending(account), product.pending(account)
    yield Counted("settle 1, another one undecided", 2, product.settle(second))
    yield Counted("settle the other message", 1, product.settle(first))


def _reads(product: Desk) -> Iterator[Counted]:
    account = product.open(1)
    (ref,) = product.pending(account)

    def read(name: str, call: Callable[[], object]) -> Counted:
        call()
        return Counted(name, 1, product.client.take())

    yield read("GET a pending order", lambda: product.reader.order(*ref))
    product.settle([ref])
    product.cache.answers.clear()
    yield read("GET a final order", lambda: product.reader.order(*ref))
    yield read("GET a final order, cached", lambda: product.reader.order(*ref))
    yield read("GET an account", lambda: product.reader.account(account[0]))
    product.settle(product.pending(account * 50))
    yield read("GET 50 orders", lambda: product.reader.page(account[0], 50, None))


def _sweeps(product: Desk) -> Iterator[Counted]:
    sweeper = Sweeper(
        product.gateway, product.queue, timedelta(seconds=10), clock=lambda: product.now
    )

    def sweep(name: str) -> Counted:
        sweeper.sweep()
        return Counted(name, 1, product.client.take())

    product.settle([ref for message in product.queue.messages for ref in message])
    _settle_rest(product, sweeper)
    yield sweep("sweep, nothing undecided")
    for _ in range(2):
        product.accept(product.requests(product.open(50), keyed=False))
    product.now += _LATER
    yield sweep("sweep, 100 orders lost")
    product.now -= _LATER


def _settle_rest(product: Desk, sweeper: Sweeper) -> None:
    """Let nothing be undecided: what the cases before left is swept and settled."""
    product.queue.messages.clear()
    product.now += _LATER
    sweeper.sweep()
    for message in product.queue.messages:
        product.settle(message)
    product.now -= _LATER
    product.client.take()


# What an account's size costs.


@dataclass(frozen=True, slots=True)
class Sized:
    """What orders of an account of a size consume of its partition key's write units."""

    positions: int
    recent: str
    account_bytes: int
    order_bytes: int
    lone: float
    grouped: float


def count_sizes() -> list[Sized]:
    """Orders of accounts of growing size; the last two have no room for what they execute."""
    sizes = (
        (0, 0),
        (POSITIONS, RECENT),
        (100, 50),
        (POSITIONS, RECENT_INLINE_MAX),
        (1000, RECENT_INLINE_MAX),
    )
    with desk() as product:
        return [_sized(product, positions, recent) for positions, recent in sizes]


def _sized(product: Desk, positions: int, recent: int) -> Sized:
    lone = product.open(1, positions, recent)
    group = product.open(1, positions, recent) * GROUP
    if recent >= RECENT_INLINE_MAX:
        # From now on some are written apart: what comes next is the usual case of a busy account.
        _whole(product, lone), _whole(product, group)
    lone_units = _whole(product, lone)
    (*_, ref) = product.cache.answers
    return Sized(
        positions,
        f"{recent}" if recent < RECENT_INLINE_MAX else f"{RECENT_INLINE_MAX} and more",
        item_bytes(product.gateway.get(keys.account_key(lone[0])) or {}),
        item_bytes(product.gateway.get(keys.order_key(*ref)) or {}),
        lone_units,
        _whole(product, group),
    )


def _whole(product: Desk, accounts: Sequence[int]) -> float:
    """Write units that the account's partition key takes for an order, accepted and decided."""
    product.client.take()
    accepted = product.accept(product.requests(accounts, keyed=False))
    settled = product.settle(product.queue.messages.pop())
    units = sum(max(usage.by_partition.values()) for usage in (accepted, settled))
    return units / len(accounts)


# What is stored.


@dataclass(frozen=True, slots=True)
class Stored:
    """Bytes of the items of one order, as storage is billed."""

    pending: int
    decided: int
    entry: int
    key: int


def count_storage() -> Stored:
    """The items that one order leaves in the table."""
    with desk() as product:
        (ref,) = product.pending(product.open(1))
        pending = product.gateway.get(keys.order_key(*ref)) or {}
        product.settle([ref])
        decided = product.gateway.get(keys.order_key(*ref)) or {}
    claim = IdempotencyClaim(str(FIRST_ACCOUNT), "k" * 36, "f" * 64)
    key = items.idempotency_item(claim, ref[1], int(NOW.timestamp()))
    sizes = [item_bytes(item or {}) for item in (pending, decided, index_entry(pending), key)]
    return Stored(*(size + STORAGE_BYTES_AN_ITEM for size in sizes))


# What Redis is asked for.


@dataclass(frozen=True, slots=True)
class Message:
    """A message about ``orders`` orders, in bytes and commands."""

    orders: int
    waiting_bytes: int
    held_bytes: int
    publish: list[str]
    deliver: list[str]
    acknowledge: list[str]
    cache: list[str]

    @property
    def commands(self) -> int:
        """All commands that one message costs the broker."""
        return sum(map(len, (self.publish, self.deliver, self.acknowledge)))


@dataclass(frozen=True, slots=True)
class Broker:
    """Messages by their size, and what a cached order takes."""

    messages: list[Message]
    cached_bytes: int


def count_broker() -> Broker:
    """Publish, deliver, acknowledge and cache through the product's own transport."""
    body = _answer()
    with _redis_server() as port, _spied() as sent:
        redis = Redis(port=port)
        app = publisher_app(Settings(redis_url=f"redis://127.0.0.1:{port}/0"), connections=1)
        with app.connection_for_read() as connection:
            wire = _Wire(TaskQueue(app, redis), StatusCache(redis, 86_400), redis, sent, connection)
            with wire.consumer():
                # The first one pays for connections and declarations.
                _, *messages = [wire.message(orders, body) for orders in (1, 1, GROUP, 100)]
        app.close()
    key = f"order:1:{FIRST_ACCOUNT}:{first_id_at(NOW)}"
    return Broker(messages, len(key) + len(body) + REDIS_BYTES_AN_ENTRY)


@dataclass
class _Wire:
    """A publisher, a consumer and a cache, and all that they send."""

    queue: TaskQueue
    cache: StatusCache
    redis: "Redis"
    sent: list[bytes]
    connection: Any
    taken: list[Any] = field(default_factory=list)

    def consumer(self) -> Any:
        channel = self.connection.channel()
        queue = Queue(ORDERS_QUEUE, channel=channel)
        return Consumer(channel, [queue], callbacks=[lambda _, one: self.taken.append(one)])

    def message(self, orders: int, body: bytes) -> Message:
        refs = [(FIRST_ACCOUNT + number, first_id_at(NOW)) for number in range(orders)]
        publish = self._commands_of(lambda: self.queue.publish(refs, NOW))
        waiting = cast("bytes", self.redis.lindex(ORDERS_QUEUE, 0))
        deliver = self._commands_of(lambda: self.connection.drain_events(timeout=5))
        (held,) = cast("list[bytes]", self.redis.hvals("unacked"))
        acknowledge = self._commands_of(lambda: self.taken.pop().ack())
        cache = self._commands_of(lambda: self.cache.put([(*ref, body) for ref in refs]))
        # The sender's host and process id stand in it: of usual length, wherever this runs.
        beyond = len(json.loads(waiting)["headers"]["origin"]) - len(_ORIGIN)
        sizes = len(waiting) - beyond, len(held) - beyond
        return Message(orders, *sizes, publish, deliver, acknowledge, cache)

    def _commands_of(self, act: Callable[[], object]) -> list[str]:
        self.sent.clear()
        act()
        return _commands(b"".join(self.sent))


def _answer() -> bytes:
    """A final order as the cache holds it."""
    with desk() as product:
        (ref,) = product.pending(product.open(1))
        product.settle([ref])
        return product.cache.answers[ref]


@contextmanager
def _redis_server() -> Iterator[int]:
    """A Redis in this process; yields its port."""
    server = TcpFakeServer(("127.0.0.1", 0), server_type="redis")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


@contextmanager
def _spied() -> Iterator[list[bytes]]:
    """Whatever clients send to Redis meanwhile."""
    sent: list[bytes] = []
    send: Callable[..., Any] = Connection.send_packed_command

    def spy(self: Any, command: Any, check_health: bool = True) -> Any:
        sent.append(command if isinstance(command, bytes) else b"".join(command))
        return send(self, command, check_health)

    with mock.patch.object(Connection, "send_packed_command", spy):
        yield sent


def _commands(raw: bytes) -> list[str]:
    """Names of the commands in Redis's own protocol."""
    names = []
    place = 0

    def number() -> int:
        nonlocal place
        end = raw.index(b"\r\n", place)
        value = int(raw[place + 1 : end])
        place = end + 2
        return value

    while place < len(raw):
        words = []
        for _ in range(number()):
            size = number()
            words.append(raw[place : place + size])
            place += size + 2
        names.append(words[0].decode())
    return names
