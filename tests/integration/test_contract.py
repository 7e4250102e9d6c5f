"""What clients may do besides placing one order: cancel it, send many, keep what they have read."""

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest
import requests

from local import commands
from local.processes import Process
from tests.integration.client import Client, Json, in_parallel, order_body
from tests.integration.table import recorded_account, sequences
from tests.stack import Stack

pytestmark = pytest.mark.integration

NDJSON = "application/x-ndjson"
CLIENTS = 8


def send(client: Client, lines: Sequence[Json], key: str | None = None) -> list[Json]:
    headers = {"Content-Type": NDJSON} | ({"Idempotency-Key": key} if key else {})
    body = "\n".join(map(json.dumps, lines))
    answer = requests.post(f"{client.url}/v1/orders/bulk", body, headers=headers, timeout=30)
    assert answer.status_code == 200, answer.text
    assert answer.headers["Content-Type"] == NDJSON
    return [json.loads(line) for line in answer.text.splitlines()]


def delete(client: Client, order: Json) -> requests.Response:
    path = f"/v1/accounts/{order['account_id']}/orders/{order['id']}"
    deadline = time.monotonic() + 60
    while True:
        answer = requests.delete(client.url + path, timeout=30)
        # A slow store may leave no time for an answer where many cancel at once: ask again.
        if answer.status_code != 503 or time.monotonic() > deadline:
            return answer
        time.sleep(0.1)


@contextmanager
def paused(processes: Sequence[Process]) -> Iterator[None]:
    for process in processes:
        process.pause()
    try:
        yield
    finally:
        for process in processes:
            process.resume()


def assert_books_balance(stack: Stack, account_id: int) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "ops", "audit", "--account", str(account_id)],
        cwd=commands.ROOT,
        env=stack.env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_an_order_that_is_cancelled_while_workers_decide_it_ends_in_one_way(
    stacks: dict[int, Stack],
) -> None:
    stack = stacks[3]
    client = Client(stack.url)
    account = client.open_account(10**9)
    with paused(stack.workers):
        placed = in_parallel(
            CLIENTS,
            lambda n: client.order(account, total_shares=n, share_price=1),
            range(1, 161),
        )
        early = in_parallel(CLIENTS, lambda order: delete(client, order), placed[:10])
    racing = in_parallel(CLIENTS, lambda order: delete(client, order), placed[10:150])

    assert {answer.status_code for answer in early} == {200}
    told = {
        order["id"]: {200: "cancelled", 409: "executed"}[answer.status_code]
        for order, answer in zip(placed, [*early, *racing], strict=False)
    }
    told |= {order["id"]: "executed" for order in placed[150:]}
    settled = client.all_settled([account], 60)[account]
    assert {order["id"]: order["status"] for order in settled} == told
    bought = sum(order["total_shares"] for order in settled if order["status"] == "executed")
    assert client.account(account)["cash"] == str(10**9 - bought)
    assert sorted(sequences(stack, account).values()) == list(range(1, 161))
    assert recorded_account(stack, account).decided == 160
    assert_books_balance(stack, account)


def test_an_order_is_cancelled_twice_with_one_answer_and_a_decided_one_never(
    client: Client,
) -> None:
    account = client.open_account(1000)
    decided = client.settled(client.order(account))
    assert delete(client, decided).status_code == 409
    assert delete(client, {**decided, "account_id": 999_999}).status_code == 404
    answers = [delete(client, decided) for _ in range(2)]
    assert {answer.json()["code"] for answer in answers} == {"ORDER_DECIDED"}


def test_a_thousand_orders_at_once_are_all_decided_in_their_sequence(
    stacks: dict[int, Stack],
) -> None:
    stack = stacks[3]
    client = Client(stack.url)
    accounts = in_parallel(CLIENTS, lambda _: client.open_account(10**9), range(10))
    lines = [
        {"account_id": accounts[n % 10], **order_body(total_shares=n + 1, share_price=1)}
        for n in range(1000)
    ]

    answers = send(client, lines)

    assert [answer["line"] for answer in answers] == list(range(1, 1001))
    assert {answer["status"] for answer in answers} == {202}
    settled = client.all_settled(accounts, 60)
    for place, account in enumerate(accounts):
        ids = [one["order"]["id"] for one in answers[place::10]]
        assert [order["id"] for order in settled[account]] == ids
        assert {order["status"] for order in settled[account]} == {"executed"}
        places = sequences(stack, account)
        assert [places[order_id] for order_id in ids] == list(range(1, 101))
        assert_books_balance(stack, account)


def test_many_bulk_bulksat_once_over_the_same_accounts_lose_and_repeat_nothing(
    client: Client,
) -> None:
    accounts = [client.open_account(10**9) for _ in range(5)]
    bulks = [
        [
            {"account_id": accounts[n % 5], **order_body(total_shares=number * 100 + n + 1)}
            for n in range(100)
        ]
        for number in range(8)
    ]

    # Each is sent twice, as by a client that lost the first answer.
    answers = in_parallel(
        CLIENTS, lambda n: send(client, bulks[n // 2], f"bulk-{n // 2}"), range(16)
    )

    statuses = Counter(one["status"] for answer in answers for one in answer)
    assert set(statuses) <= {202, 409}
    placed = {one["order"]["id"] for answer in answers for one in answer if "order" in one}
    assert len(placed) == 800
    last = [one for n in range(8) for one in send(client, bulks[n], f"bulk-{n}")]
    assert {one["order"]["id"] for one in last} == placed
    assert all(one["replayed"] for one in last)
    assert sum(len(client.orders(account)) for account in accounts) == 800


def test_a_bulk_body_may_be_larger_than_any_other(client: Client) -> None:
    account = client.open_account(10**9)
    padding = "x" * 1000
    lines = [
        {"account_id": account, "note": padding, **order_body(total_shares=n)}
        for n in range(1, 201)
    ]
    assert len(json.dumps(lines)) > 3 * 65_536
    assert {answer["status"] for answer in send(client, lines)} == {202}
    too_large = requests.post(
        f"{client.url}/v1/accounts/{account}/orders",
        json={**order_body(), "note": "x" * 70_000},
        timeout=10,
    )
    assert too_large.status_code == 413
    beyond = requests.post(
        f"{client.url}/v1/orders/bulk",
        "x" * 1_100_000,
        headers={"Content-Type": NDJSON},
        timeout=10,
    )
    assert beyond.status_code == 413


def test_what_was_read_is_not_sent_again_until_it_changes(client: Client) -> None:
    account = client.open_account(1000)
    path = f"{client.url}/v1/accounts/{account}"
    held = requests.get(path, timeout=10).headers["ETag"]
    same = requests.get(path, headers={"If-None-Match": held}, timeout=10)
    assert (same.status_code, same.text) == (304, "")
    order = client.settled(client.order(account))
    assert requests.get(path, headers={"If-None-Match": held}, timeout=10).status_code == 200
    final = f"{path}/orders/{order['id']}"
    held = requests.get(final, timeout=10).headers["ETag"]
    # On one connection: an answer without a body must not leave the next one out of step.
    with requests.Session() as session:
        again = [session.get(final, headers={"If-None-Match": held}, timeout=10) for _ in range(3)]
        assert [answer.status_code for answer in again] == [304] * 3
        assert session.get(final, timeout=10).json() == order


def test_a_list_is_filtered_by_status_page_by_page(client: Client) -> None:
    account = client.open_account(100)
    placed = [client.order(account, total_shares=n, share_price=10) for n in (1, 20, 2, 30, 3)]
    for order in placed:
        client.settled(order)
    url = f"{client.url}/v1/accounts/{account}/orders?status=executed&limit=2"

    first = requests.get(url, timeout=10)
    second = requests.get(client.url + first.links["next"]["url"], timeout=10)

    found = [order["id"] for page in (first, second) for order in page.json()["orders"]]
    assert found == [placed[place]["id"] for place in (4, 2, 0)]
    assert second.json()["next_cursor"] is None
    assert "next" not in second.links
