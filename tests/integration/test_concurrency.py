"""Many clients at once: ids are unique, cash is spent once, the sequence holds."""

from collections import Counter
from decimal import Decimal

import pytest

from tests.integration.client import Client, in_parallel, order_body
from tests.integration.table import sequences
from tests.stack import Stack

pytestmark = pytest.mark.integration

CLIENTS = 32
IN_FLIGHT = (409, "IDEMPOTENCY_KEY_IN_FLIGHT")


def test_a_thousand_accounts_opened_at_once_get_a_thousand_ids(client: Client) -> None:
    ids = in_parallel(CLIENTS, lambda n: client.open_account(n), range(1000))

    assert len(set(ids)) == 1000
    assert min(ids) >= 1
    balances = in_parallel(CLIENTS, lambda account: client.account(account)["cash"], ids)
    assert balances == [str(n) for n in range(1000)]


@pytest.mark.parametrize("workers", [1, 3])
def test_cash_is_spent_once_by_many_clients(stacks: dict[int, Stack], workers: int) -> None:
    client = Client(stacks[workers].url)
    account = client.open_account(1000)
    # Twice the cash: 200 buys of 10 each, all different operations.
    bodies = [
        {"total_shares": 10, "share_price": 1, "issuer_name": f"ISSUER {n}"} for n in range(200)
    ]

    in_parallel(CLIENTS, lambda body: client.order(account, **body), bodies)

    orders = client.all_settled([account], 60)[account]
    assert Counter(order["status"] for order in orders) == {"executed": 100, "rejected": 100}
    assert {code for order in orders for code in order["business_errors"]} == {
        "INSUFFICIENT_BALANCE"
    }
    state = client.account(account)
    assert Decimal(state["cash"]) == 0
    assert sum(held["total_shares"] for held in state["issuers"]) == 1000


def test_orders_are_decided_in_the_sequence_of_their_acceptance(stacks: dict[int, Stack]) -> None:
    stack = stacks[3]
    client = Client(stack.url)
    account = client.open_account(10**6)

    placed = [client.order(account, total_shares=n + 1, share_price=1)["id"] for n in range(200)]

    orders = client.all_settled([account], 60)[account]
    assert {order["status"] for order in orders} == {"executed"}
    decided = sequences(stack, account)
    assert sorted(decided, key=lambda order_id: decided[order_id]) == placed
    assert sorted(decided.values()) == list(range(1, 201))


def test_one_idempotency_key_sent_fifty_times_at_once_makes_one_order(client: Client) -> None:
    account = client.open_account(1000)
    body = order_body()
    path = f"/v1/accounts/{account}/orders"

    answers = in_parallel(50, lambda _: client.post(path, body, key="the same"), range(50))

    # A process that is at work on the key says so; whoever comes later, or to another process,
    # gets the first one's answer.
    placed = [answer for answer in answers if answer.status_code == 202]
    busy = [answer for answer in answers if answer.status_code != 202]
    assert {(one.status_code, one.json()["code"]) for one in busy} <= {IN_FLIGHT}
    assert all(int(one.headers["Retry-After"]) >= 1 for one in busy)
    assert len({answer.text for answer in placed}) == 1
    assert len(client.orders(account)) == 1
    replayed = Counter(answer.headers.get("Idempotent-Replayed") for answer in placed)
    assert replayed[None] == 1
    again = client.post(path, body, key="the same")
    assert (again.status_code, again.text) == (202, placed[0].text)
    assert again.headers["Idempotent-Replayed"] == "true"


def test_a_key_with_another_body_is_refused_and_records_nothing(client: Client) -> None:
    account = client.open_account(1000)
    path = f"/v1/accounts/{account}/orders"
    client.post(path, order_body(), key="k")

    other = client.post(path, order_body(total_shares=3), key="k")

    assert (other.status_code, other.json()["code"]) == (422, "IDEMPOTENCY_KEY_REUSED")
    assert len(client.orders(account)) == 1


def test_one_key_opens_one_account_however_often_it_is_sent(client: Client) -> None:
    key = "account of the same broker"

    answers = in_parallel(20, lambda _: client.post("/v1/accounts", {"cash": 7}, key), range(20))

    made = [answer for answer in answers if answer.status_code == 201]
    busy = [answer for answer in answers if answer.status_code != 201]
    assert {(one.status_code, one.json()["code"]) for one in busy} <= {IN_FLIGHT}
    assert len({answer.text for answer in made}) == 1
    assert client.post("/v1/accounts", {"cash": 7}, key).text == made[0].text
