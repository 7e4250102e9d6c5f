"""Parts that die, forget or stop answering: nothing is lost, nothing happens twice.

FULL_SIZE=1 runs the backlogs at full size.
"""

import os
import time
from collections.abc import Iterator
from decimal import Decimal

import pytest

from tests.integration.client import Client, in_parallel, order_body, until
from tests.integration.table import accepted_count, recorded_account, recorded_orders
from tests.stack import Engines, Stack

pytestmark = [pytest.mark.fault, pytest.mark.timeout(300)]

BACKLOG = 2000 if os.environ.get("FULL_SIZE") else 1500
ACCOUNTS = 100
RECOVER_SECONDS = 3
WORK_SECONDS = 60


@pytest.fixture
def stack(own_engines: Engines) -> Iterator[Stack]:
    """A stack on engines of its own, so that breaking them disturbs nobody."""
    env = {"RECOVER_AFTER": str(RECOVER_SECONDS), "SWEEP_EVERY": "0.5"}
    with Stack(own_engines, workers=1, env=env) as running:
        yield running


def post_backlog(stack: Stack, orders: int) -> list[int]:
    """Post ``orders`` over some accounts while the workers are paused."""
    client = Client(stack.url)
    accounts = [client.open_account(10**9) for _ in range(ACCOUNTS)]
    for worker in stack.workers:
        worker.pause()
    in_parallel(
        32,
        lambda n: client.order(accounts[n % ACCOUNTS], total_shares=n + 1, share_price=1),
        range(orders),
    )
    return accounts


def check_decided_once(stack: Stack, accounts: list[int], orders: int, seconds: float) -> None:
    client = Client(stack.url)
    settled = client.all_settled(accounts, seconds)
    assert sum(len(of_account) for of_account in settled.values()) == orders
    for account in accounts:
        recorded = recorded_orders(stack, account)
        assert [order.sequence for order in recorded] == list(range(1, len(recorded) + 1))
        spent = sum(order.order.total_shares for order in recorded)
        assert {order.status for order in recorded} == {"executed"}
        assert recorded_account(stack, account).decided == len(recorded)
        assert Decimal(client.account(account)["cash"]) == 10**9 - spent


def stop_in_the_middle(stack: Stack, accounts: list[int]) -> None:
    """Let the worker begin, and freeze it while orders are decided and others are not."""
    stack.workers[0].resume()
    until(lambda: recorded_account(stack, accounts[0]).decided, bool, 30)
    stack.workers[0].pause()
    left = sum(
        order.decided_at is None
        for account in accounts
        for order in recorded_orders(stack, account)
    )
    assert left > 0, "the backlog was gone before anything could be broken"


def test_a_worker_killed_in_a_backlog_loses_nothing(stack: Stack) -> None:
    accounts = post_backlog(stack, BACKLOG)
    stop_in_the_middle(stack, accounts)

    stack.kill_worker(0)
    stack.add_worker()

    check_decided_once(stack, accounts, BACKLOG, RECOVER_SECONDS + WORK_SECONDS)


def test_a_redis_that_forgets_everything_loses_nothing(stack: Stack) -> None:
    accounts = post_backlog(stack, BACKLOG)
    stop_in_the_middle(stack, accounts)

    stack.engines.flush_redis()
    stack.workers[0].resume()

    check_decided_once(stack, accounts, BACKLOG, RECOVER_SECONDS + WORK_SECONDS)


def test_a_redis_that_dies_in_a_backlog_loses_nothing_and_no_worker(stack: Stack) -> None:
    accounts = post_backlog(stack, BACKLOG)
    stop_in_the_middle(stack, accounts)

    stack.workers[0].resume()
    stack.engines.redis.kill()
    stack.engines.redis.start()

    check_decided_once(stack, accounts, BACKLOG, RECOVER_SECONDS + WORK_SECONDS)
    assert stack.workers[0].running


def test_without_redis_orders_are_accepted_and_decided_once_it_is_back(stack: Stack) -> None:
    client = Client(stack.url)
    account = client.open_account(1000)
    before = client.settled(client.order(account, total_shares=1))
    stack.engines.redis.kill()

    took: list[float] = []
    placed = []
    for n in range(2, 7):
        started = time.monotonic()
        placed.append(client.order(account, total_shares=n, share_price=1))
        took.append(time.monotonic() - started)
    started = time.monotonic()
    shown = client.get(f"/v1/accounts/{account}/orders/{before['id']}")
    listed = client.get(f"/v1/accounts/{account}/orders")
    took.append(time.monotonic() - started)
    ready = client.get("/readyz")

    assert max(took) < 2, took
    assert shown.json() == before
    assert len(listed.json()["orders"]) == 6
    assert (ready.status_code, ready.json()["status"]) == (200, "degraded")
    stack.engines.redis.restart()
    assert {client.settled(order, 60)["status"] for order in placed} == {"executed"}


def test_a_redis_that_hangs_delays_no_answer_for_long(stack: Stack) -> None:
    client = Client(stack.url)
    accounts = [client.open_account(10**6) for _ in range(16)]

    def post(n: int) -> tuple[int, float]:
        started = time.monotonic()
        body = order_body(total_shares=n + 1, share_price=1)
        answer = client.post(f"/v1/accounts/{accounts[n % 16]}/orders", body)
        return answer.status_code, time.monotonic() - started

    stack.engines.redis.pause()
    try:
        answers = in_parallel(16, post, range(160))
    finally:
        stack.engines.redis.resume()

    assert {status for status, _ in answers} == {202}
    assert max(took for _, took in answers) < 2
    settled = client.all_settled(accounts, 60)
    assert {order["status"] for orders in settled.values() for order in orders} == {"executed"}


def test_without_dynamodb_orders_are_refused_and_nothing_is_half_recorded(stack: Stack) -> None:
    client = Client(stack.url)
    account = client.open_account(1000)
    stack.engines.dynamodb.kill()

    started = time.monotonic()
    refused = client.post(f"/v1/accounts/{account}/orders", order_body())
    took = time.monotonic() - started
    started = time.monotonic()
    unopened = client.post("/v1/accounts", {"cash": 5})
    took = max(took, time.monotonic() - started)
    ready = client.get("/readyz")

    assert [refused.status_code, unopened.status_code, ready.status_code] == [503, 503, 503]
    assert refused.json()["code"] == "STORE_UNAVAILABLE"
    assert int(refused.headers["Retry-After"]) >= 1
    assert took < 3
    stack.engines.dynamodb.restart()
    assert until(lambda: client.get("/readyz").status_code, lambda status: status == 200, 20)
    assert client.orders(account) == []
    assert client.settled(client.order(account))["status"] == "executed"


def test_a_dynamodb_that_hangs_is_answered_for_in_time(stack: Stack) -> None:
    client = Client(stack.url)
    account = client.open_account(1000)
    stack.engines.dynamodb.pause()
    try:
        started = time.monotonic()
        refused = in_parallel(
            8, lambda _: client.post(f"/v1/accounts/{account}/orders", order_body()), range(8)
        )
        took = time.monotonic() - started
    finally:
        stack.engines.dynamodb.resume()

    assert {answer.status_code for answer in refused} == {503}
    assert took < 3
    # Asked late but not lost: what was recorded after all is whole, and is decided like any other.
    orders = client.all_settled([account], 30)[account]
    assert sum(order["status"] == "executed" for order in orders) == min(len(orders), 1)
    assert recorded_account(stack, account).decided == len(orders)
    assert accepted_count(stack, account) == len(orders)
    assert client.settled(client.order(account, total_shares=7))["status"] == "executed"


def test_two_sweepers_at_once_decide_each_order_once(stack: Stack) -> None:
    stack.add_sweeper()
    accounts = post_backlog(stack, BACKLOG // 5)
    stack.engines.flush_redis()
    stack.workers[0].resume()

    check_decided_once(stack, accounts, BACKLOG // 5, RECOVER_SECONDS + WORK_SECONDS)


def test_an_order_that_cannot_be_read_is_parked_and_the_others_go_on(stack: Stack) -> None:
    client = Client(stack.url)
    account, other = client.open_account(1000), client.open_account(1000)
    stack.workers[0].pause()
    poison = client.order(account, total_shares=1)
    stack.spoil_order(account, poison["id"])
    after = client.order(account, total_shares=3)
    elsewhere = client.order(other)
    stack.workers[0].resume()

    assert client.settled(elsewhere)["status"] == "executed"
    assert client.settled(after, 90)["status"] == "executed"
    parked = client.settled(poison)
    assert parked["status"] == "failed"
    assert "cannot be read" in parked["failure"]
