"""What every process holds while a large backlog waits and a worker is at it."""

import time
from datetime import UTC, datetime
from decimal import Decimal
from uuid import uuid4

from bench.bed import Bed
from bench.loading import run_load
from bench.results import Figure, Row
from bench.stack import Stack
from bench.traffic import gateway_of, order_requests, seed_accounts
from bench.usage import Memory, memory
from shared.clients import broker_client
from shared.domain.order import Operation, Order
from shared.ids import OrderIds
from shared.order_store import accepts
from shared.order_store.gateway import chunks
from shared.order_store.records import AcceptedOrder
from shared.settings import Settings
from shared.task_queue import TaskQueue, publisher_app

_GROUP_ORDERS = 50
_ACCOUNTS = 5_000
_LOOKS = 10
_LOOK_EVERY_SECONDS = 1.0


def look_at_memory(bed: Bed) -> None:
    """Fill the queue, let a worker begin, and keep the most that each process held."""
    with Stack(bed.engines, workers=False, flower=False) as stack:
        accounts = seed_accounts(bed.engines, stack.table_name, _ACCOUNTS)
        run_load(bed.job(stack.port, order_requests(accounts, 1_000), seconds=2))
        _fill(stack, accounts, bed.options.backlog)
        stack.start_worker()
        stack.start_flower()
        most: dict[tuple[str, int], Memory] = {}
        for _ in range(_LOOKS):
            for one in memory(stack.parts):
                key = one.part, one.pid
                if key not in most or most[key].pss < one.pss:
                    most[key] = one
            time.sleep(_LOOK_EVERY_SECONDS)
        stack.stop_workers()
        stack.broker.flushdb()
        for part in stack.parts:
            _add(bed, part, [one for one in most.values() if one.part == part])


def _add(bed: Bed, part: str, processes: list[Memory]) -> None:
    row = Row(f"memory_{part}", f"memory of {part}, backlog of {bed.options.backlog:,}", "MB (PSS)")
    notes = {"pss": [one.pss for one in processes], "rss": [one.rss for one in processes]}
    bed.results.add(row, Figure(round(sum(one.pss for one in processes), 1), notes=notes))


def _fill(stack: Stack, accounts: list[int], number: int) -> None:
    """Record and announce orders as the API does, without the way through HTTP."""
    gateway = gateway_of(stack)
    settings = Settings(redis_url=stack.env["REDIS_URL"])
    queue = TaskQueue(publisher_app(settings, connections=1), broker_client(settings, 1))
    ids = OrderIds()
    for places in chunks(range(number), _GROUP_ORDERS):
        now = datetime.now(UTC)
        orders = [
            AcceptedOrder(_order(accounts[place % len(accounts)], ids.next(now), place, now))
            for place in places
        ]
        accepts.record_orders(gateway, orders, now, str(uuid4()))
        queue.publish([(one.order.account_id, one.order.id) for one in orders], now)


def _order(account_id: int, order_id: str, place: int, now: datetime) -> Order:
    return Order(
        id=order_id,
        account_id=account_id,
        operation=Operation.BUY,
        issuer_name="GBM",
        total_shares=1_000_000 + place,
        share_price=Decimal("1.25"),
        timestamp=now,
        received_at=now,
    )
