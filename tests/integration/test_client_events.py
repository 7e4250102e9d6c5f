"""The client waiting for decisions and following events, over the real thing."""

import time
from collections.abc import Iterator
from itertools import islice
from queue import Empty, Queue
from threading import Thread

import pytest

from order_client import Client, Event, Status
from tests.stack import Engines, Stack

pytestmark = [pytest.mark.integration]

SECONDS = 20.0


@pytest.fixture(scope="module")
def stack(engines: Engines) -> Iterator[Stack]:
    with Stack(engines, api_processes=1, env={"WORKER_PROCESSES": "1"}) as running:
        yield running


@pytest.fixture(scope="module")
def orders(stack: Stack) -> Iterator[Client]:
    with Client(stack.url) as client:
        yield client


def test_events_go_on_after_the_api_was_killed_each_once(stack: Stack, orders: Client) -> None:
    account = orders.open_account(10**6)
    came: Queue[Event] = Queue()

    def listen() -> None:
        with Client(stack.url) as client:
            for event in client.events(account.id):
                came.put(event)
                if came.qsize() > 1000 or event.order.issuer_name == "LAST":
                    return

    listener = Thread(target=listen)
    listener.start()
    time.sleep(1)  # without an id to go on from, a stream begins with what comes next
    placed = [orders.place(account.id, "BUY", "GBM", shares, 1).id for shares in range(1, 6)]
    seen = [came.get(timeout=SECONDS) for _ in placed]
    stack.api.kill()
    stack.api.start()
    placed += [orders.place(account.id, "BUY", "GBM", shares, 1).id for shares in range(6, 11)]
    placed.append(orders.place(account.id, "BUY", "LAST", 1, 1).id)
    listener.join(2 * SECONDS)
    assert not listener.is_alive()
    while True:
        try:
            seen.append(came.get_nowait())
        except Empty:
            break
    assert [event.order.id for event in seen] == placed
    assert {event.order.status for event in seen} == {Status.EXECUTED}


def test_events_are_resumed_by_another_process(stack: Stack, orders: Client) -> None:
    account = orders.open_account(10**6)
    placed = [
        orders.place_and_wait(account.id, "BUY", "GBM", shares, 1, seconds=SECONDS)
        for shares in (1, 2, 3)
    ]
    with Client(stack.url) as client:
        first = next(client.events(account.id, last_event_id="0"))
    with Client(stack.url) as client:
        rest = list(islice(client.events(account.id, last_event_id=first.id), 2))
    assert [event.order for event in [first, *rest]] == placed


def test_the_service_waits_so_that_the_client_need_not_ask_twice(orders: Client) -> None:
    account = orders.open_account(10**6)
    began = time.monotonic()
    placed = orders.place_and_wait(account.id, "BUY", "GBM", 1, 1, seconds=SECONDS)
    assert placed.status is Status.EXECUTED
    assert time.monotonic() - began < SECONDS / 2
