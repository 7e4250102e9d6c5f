"""What tests are built from: values that the rules allow, each of which a test may override."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from random import Random
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import boto3
import fakeredis
from botocore.config import Config
from hypothesis import HealthCheck, settings
from moto import mock_aws

from shared.domain.account import Account, Position
from shared.domain.decision import Rules, decide
from shared.domain.market import Market
from shared.domain.order import Operation, OperationKey, Order
from shared.ids import OrderRef, first_id_at
from shared.notices import Notice
from shared.order_store import accepts, reads
from shared.order_store.gateway import Gateway
from shared.order_store.keys import Item, Key
from shared.order_store.records import (
    AcceptedOrder,
    DecidedOrder,
    IdempotencyClaim,
    OpenedAccount,
    RecordedAccount,
    RecordedOrder,
    Settlement,
)
from shared.order_store.table import table_definition
from shared.status_cache import StatusCache
from worker.processing import Settler
from worker.turns import Turns

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

NOON = datetime(2026, 3, 2, 18, tzinfo=UTC)
"""Noon of a Monday in Mexico City: the market is open for three more hours."""

OPENED = NOON - timedelta(days=30)
RULES = Rules()

STEADY = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""For property tests: a busy machine is no failure."""

_table_numbers = itertools.count(1)


def seconds(count: float) -> timedelta:
    """A duration; exact to the microsecond."""
    return timedelta(seconds=count)


MICROSECOND = timedelta(microseconds=1)


def order_id(number: int) -> str:
    """The id of the ``number``-th order of a test: ids sort as their numbers do."""
    return first_id_at(OPENED + timedelta(milliseconds=number))


def operation_key(
    operation: str = "BUY", issuer_name: str = "AAPL", total_shares: int = 1
) -> OperationKey:
    """What the duplicate rule compares."""
    return OperationKey(Operation(operation), issuer_name, total_shares)


def make_account(
    cash: str | Decimal = "1000",
    positions: Mapping[str, tuple[int, str]] | None = None,
    *,
    account_id: int = 1,
    opened_at: datetime = OPENED,
    last_executed_at: datetime | None = None,
    recent: Mapping[OperationKey, datetime] | None = None,
) -> Account:
    """An account; ``positions`` maps issuers to shares and the price last traded."""
    held = {
        name: Position(total_shares, Decimal(share_price))
        for name, (total_shares, share_price) in (positions or {}).items()
    }
    return Account(
        account_id,
        Decimal(cash),
        opened_at,
        held,
        last_executed_at=last_executed_at,
        recent=dict(recent or {}),
    )


def make_order(
    operation: str = "BUY",
    issuer_name: str = "AAPL",
    total_shares: int = 1,
    share_price: str | Decimal = "10",
    *,
    at: datetime = NOON,
    received_at: datetime | None = None,
    account_id: int = 1,
    number: int = 1,
) -> Order:
    """An order sent and received ``at`` one instant, the ``number``-th of its test."""
    return Order(
        id=order_id(number),
        account_id=account_id,
        operation=Operation(operation),
        issuer_name=issuer_name,
        total_shares=total_shares,
        share_price=Decimal(share_price),
        timestamp=at,
        received_at=at if received_at is None else received_at,
    )


def make_rules(market: Market | None = None, skew_seconds: float = 5) -> Rules:
    """Rules with the house's market unless told otherwise."""
    return Rules(market or Market(), seconds(skew_seconds))


def make_claim(
    client_key: str = "key-1", fingerprint: str = "body-1", scope: str = "1"
) -> IdempotencyClaim:
    """A client's key for one request."""
    return IdempotencyClaim(scope, client_key, fingerprint)


def make_recorded_account(account: Account | None = None, decided: int = 0) -> RecordedAccount:
    """An account as it is read when all its executed operations stand in its own item."""
    account = account or make_account()
    return RecordedAccount(account, decided=decided, inline=frozenset(account.recent))


def make_settlement(
    before: RecordedAccount,
    orders: Sequence[Order],
    *,
    rules: Rules = RULES,
    decided_at: datetime = NOON,
) -> Settlement:
    """``orders`` decided in sequence on ``before``."""
    account = before.account
    decided: list[DecidedOrder] = []
    for order in orders:
        account, decision = decide(account, order, rules)
        decided.append(DecidedOrder(order.account_id, order.id, order, decision))
    return Settlement(before, account, tuple(decided), str(rules), decided_at)


@contextmanager
def moto_client() -> "Iterator[DynamoDBClient]":
    """A client of moto's DynamoDB, wherever the environment says that DynamoDB is."""
    with mock_aws():
        client: DynamoDBClient = boto3.client(
            "dynamodb",
            region_name="us-east-1",
            config=Config(
                ignore_configured_endpoint_urls=True,
                retries={"mode": "standard", "total_max_attempts": 1},
            ),
        )
        yield client


def new_table(client: "DynamoDBClient") -> Gateway:
    """A gateway to an empty table of its own."""
    name = f"table-{next(_table_numbers)}"
    client.create_table(**table_definition(name))
    return Gateway(client, name, sleep=lambda _: None)


def open_account(gateway: Gateway, account: Account | None = None) -> RecordedAccount:
    """Record ``account`` and return it as it is read."""
    opened = account or make_account()
    accepts.record_accounts(
        gateway, [OpenedAccount(opened, mark=str(uuid4()))], NOON, token=str(uuid4())
    )
    return stored_account(gateway, opened.id)


def accept(gateway: Gateway, *orders: Order) -> None:
    """Record ``orders`` as pending."""
    for start in range(0, len(orders), 50):
        group = [AcceptedOrder(order) for order in orders[start : start + 50]]
        accepts.record_orders(gateway, group, NOON, token=str(uuid4()))


def stored_account(gateway: Gateway, account_id: int = 1) -> RecordedAccount:
    """The account as the table holds it."""
    recorded = reads.load_account(gateway, account_id)
    assert recorded is not None
    return recorded


def stored_order(gateway: Gateway, order: Order) -> RecordedOrder:
    """The order as the table holds it."""
    recorded = reads.load_order(gateway, order.account_id, order.id)
    assert isinstance(recorded, RecordedOrder)
    return recorded


def overwrite(gateway: Gateway, key: Key, name: str, value: dict[str, Any]) -> None:
    """Set one attribute of an item to ``value``, as no code of ours would."""
    gateway.update(
        Key=key,
        UpdateExpression="SET #name = :value",
        ExpressionAttributeNames={"#name": name},
        ExpressionAttributeValues={":value": value},
    )


def everything(gateway: Gateway) -> list[Item]:
    """All items of the table, to be compared before and after."""
    items: list[Item] = []
    start: dict[str, Any] = {}
    while True:
        answer: Any = gateway._client.scan(TableName=gateway.table_name, **start)
        items += answer["Items"]
        if "LastEvaluatedKey" not in answer:
            return sorted(items, key=lambda item: (item["pk"]["S"], item["sk"]["S"]))
        start = {"ExclusiveStartKey": answer["LastEvaluatedKey"]}


def raw(gateway: Gateway, key: Key) -> Item:
    """An item as it stands in the table."""
    item = gateway.get(key)
    assert item is not None
    return item


def ref(order: Order) -> tuple[int, str]:
    """How messages name an order."""
    return order.account_id, order.id


class HookedGateway(Gateway):
    """A table at which something happens before or after the next transactions."""

    def __init__(self, gateway: Gateway) -> None:
        super().__init__(gateway._client, gateway.table_name, sleep=lambda _: None)
        self.before: list[Callable[[], None]] = []
        self.after: list[Callable[[], None]] = []
        self.transactions = 0

    def transact(self, actions: Sequence[Mapping[str, Any]], token: str) -> None:
        """Run the next hook, if any is left, on either side of the transaction."""
        self.transactions += 1
        if self.before:
            self.before.pop(0)()
        super().transact(actions, token)
        if self.after:
            self.after.pop(0)()


class FakeCache(StatusCache):
    """A status cache without Redis."""

    def __init__(self) -> None:
        self.answers: dict[tuple[int, str], bytes] = {}
        self.notices: list[Notice] = []

    def get_many(self, refs: Sequence[OrderRef]) -> list[bytes | None]:
        """The answers that were put."""
        return [self.answers.get(ref) for ref in refs]

    def put(
        self, answers: Iterable[tuple[int, str, bytes]], notices: Sequence[Notice] = ()
    ) -> None:
        """Keep the answers and the notices."""
        self.notices += notices
        self.answers.update({(account, order): body for account, order, body in answers})


class FakeTime:
    """Time that passes only where somebody sleeps; ``then`` happens in the first pause."""

    def __init__(self, then: Callable[[], object] = lambda: None) -> None:
        self.pauses: list[float] = []
        self._then = then

    def monotonic(self) -> float:
        """Seconds slept so far."""
        return sum(self.pauses)

    def sleep(self, pause_seconds: float) -> None:
        """Let time pass."""
        self.pauses.append(pause_seconds)
        if len(self.pauses) == 1:
            self._then()


def turns_in(redis: fakeredis.FakeRedis, time: FakeTime | None = None) -> Turns:
    """Turns that are waited for without really sleeping."""
    time = time or FakeTime()
    return Turns(redis, "orders", sleep=time.sleep, monotonic=time.monotonic)


def make_settler(
    gateway: Gateway,
    *,
    cache: StatusCache | None = None,
    rules: Rules = RULES,
    attempts_max: int = 3,
    time: FakeTime | None = None,
    redis: fakeredis.FakeRedis | None = None,
) -> Settler:
    """A worker's settler that decides at noon and never really sleeps."""
    time = time or FakeTime()
    return Settler(
        gateway,
        cache or FakeCache(),
        turns_in(redis or fakeredis.FakeRedis(), time),
        rules,
        attempts_max,
        clock=lambda: NOON,
        sleep=time.sleep,
        monotonic=time.monotonic,
        random=Random(1),
    )
