"""One order on its whole way: POST, record, enqueue, decide, commit, cache, GET."""

import time

import pytest
import requests

from tests.integration.client import Client, order_body

pytestmark = pytest.mark.integration


def test_a_buy_and_a_sell_are_executed_and_the_balance_is_right(client: Client) -> None:
    account = client.open_account(1000)
    bought = client.settled(client.order(account, total_shares=10, share_price="50.5"))
    sold = client.settled(
        client.order(account, operation="SELL", total_shares=4, share_price="60.25")
    )

    assert bought["status"] == sold["status"] == "executed"
    assert bought["current_balance"] == {
        "cash": "495",
        "issuers": [{"issuer_name": "GBM", "total_shares": 10, "share_price": "50.5"}],
    }
    assert client.account(account) == {
        "id": account,
        "cash": "736",
        "issuers": [{"issuer_name": "GBM", "total_shares": 6, "share_price": "60.25"}],
    }


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"total_shares": 21, "share_price": 50}, "INSUFFICIENT_BALANCE"),
        ({"operation": "SELL", "total_shares": 1}, "INSUFFICIENT_STOCKS"),
        ({"timestamp": int(time.time()) + 3600}, "INVALID_OPERATION"),
    ],
)
def test_an_order_that_breaks_a_rule_is_rejected_with_its_code(
    client: Client, change: dict[str, object], code: str
) -> None:
    account = client.open_account(1000)

    rejected = client.settled(client.order(account, **change))

    assert rejected["status"] == "rejected"
    assert rejected["business_errors"] == [code]
    assert client.account(account)["cash"] == "1000"


def test_a_repeated_order_is_rejected_as_a_duplicate(client: Client) -> None:
    account = client.open_account(1000)
    client.settled(client.order(account))

    again = client.settled(client.order(account))

    assert (again["status"], again["business_errors"]) == ("rejected", ["DUPLICATED_OPERATION"])
    assert client.account(account)["cash"] == "900"


def test_a_closed_market_rejects(closed_client: Client) -> None:
    account = closed_client.open_account(1000)

    rejected = closed_client.settled(closed_client.order(account))

    assert (rejected["status"], rejected["business_errors"]) == ("rejected", ["CLOSED_MARKET"])


def test_an_accepted_order_is_answered_with_its_place(client: Client) -> None:
    account = client.open_account(1000)

    answer = client.post(f"/v1/accounts/{account}/orders", order_body())

    assert answer.status_code == 202
    assert answer.json()["status"] == "pending"
    assert answer.headers["Retry-After"] == "1"
    assert answer.headers["Location"] == f"/v1/accounts/{account}/orders/{answer.json()['id']}"
    assert client.get(answer.headers["Location"]).status_code == 200


def test_the_challenges_own_paths_and_form_bodies_work(client: Client) -> None:
    opened = requests.post(f"{client.url}/accounts", data={"cash": "1000"}, timeout=10)
    account = opened.json()["id"]

    order = requests.post(
        f"{client.url}/accounts/{account}/orders",
        data={key: str(value) for key, value in order_body(operation="buy").items()},
        timeout=10,
    )

    assert (opened.status_code, order.status_code) == (201, 202)
    assert client.settled(order.json())["status"] == "executed"


def test_orders_are_listed_newest_first_page_by_page(client: Client) -> None:
    account = client.open_account(1000)
    placed = [client.order(account, total_shares=n, share_price=1)["id"] for n in range(1, 8)]

    first = client.get(f"/v1/accounts/{account}/orders?limit=3").json()
    second = client.get(
        f"/v1/accounts/{account}/orders?limit=3&cursor={first['next_cursor']}"
    ).json()

    listed = [order["id"] for order in first["orders"] + second["orders"]]
    assert listed == placed[::-1][:6]
    assert [order["id"] for order in client.orders(account)] == placed


def test_unknown_accounts_and_orders_are_not_found(client: Client) -> None:
    account = client.open_account(1000)
    missing = "01a20d07-2317-7a1c-a660-fe1a52c83fe2"

    answers = [
        client.get("/v1/accounts/999999999"),
        client.post("/v1/accounts/999999999/orders", order_body()),
        client.get("/v1/accounts/999999999/orders"),
        client.get(f"/v1/accounts/{account}/orders/{missing}"),
        client.get(f"/v1/accounts/{account}/orders/nonsense"),
    ]

    assert [answer.status_code for answer in answers] == [404] * 5
    assert {answer.json()["code"] for answer in answers} == {
        "ACCOUNT_NOT_FOUND",
        "ORDER_NOT_FOUND",
    }


def test_a_ready_service_says_so(client: Client) -> None:
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/readyz").json()["status"] == "ok"


def test_flower_shows_the_task_with_its_orders(client: Client, flower_url: str) -> None:
    account = client.open_account(1000)
    order = client.settled(client.order(account))

    deadline = time.monotonic() + 20
    while True:
        tasks = requests.get(f"{flower_url}/api/tasks", timeout=10).json()
        found = [task for task in tasks.values() if order["id"] in str(task["args"])]
        if found and found[0]["state"] == "SUCCESS":
            break
        assert time.monotonic() < deadline, tasks
        time.sleep(0.2)

    assert found[0]["name"] == "orders.settle"
