"""A client of the API for tests: what a broker's program would do, with bounded waits."""

import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import requests

FINAL = frozenset({"executed", "rejected", "cancelled", "failed"})
POLL_SECONDS = 0.05

Json = dict[str, Any]
T = TypeVar("T")
R = TypeVar("R")


class Client:
    """Speaks to one API. Safe to share between threads (each call is a request of its own)."""

    def __init__(self, url: str) -> None:
        self.url = url

    def post(
        self, path: str, body: Json, key: str | None = None, timeout: float = 10.0
    ) -> requests.Response:
        headers = {"Idempotency-Key": key} if key else {}
        return requests.post(self.url + path, json=body, headers=headers, timeout=timeout)

    def get(self, path: str, timeout: float = 10.0) -> requests.Response:
        return requests.get(self.url + path, timeout=timeout)

    def open_account(self, cash: int | str = 1000) -> int:
        answer = self.post("/v1/accounts", {"cash": cash})
        assert answer.status_code == 201, answer.text
        return int(answer.json()["id"])

    def order(self, account_id: int, **changes: Any) -> Json:
        answer = self.post(f"/v1/accounts/{account_id}/orders", order_body(**changes))
        assert answer.status_code == 202, answer.text
        return dict(answer.json())

    def account(self, account_id: int) -> Json:
        answer = self.get(f"/v1/accounts/{account_id}")
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def settled(self, order: Json, seconds: float = 20.0) -> Json:
        """The order once it is final."""
        path = f"/v1/accounts/{order['account_id']}/orders/{order['id']}"
        return until(lambda: self.get(path).json(), lambda shown: shown["status"] in FINAL, seconds)

    def orders(self, account_id: int) -> list[Json]:
        """All orders of an account, oldest first."""
        found: list[Json] = []
        cursor = ""
        while True:
            page = self.get(f"/v1/accounts/{account_id}/orders?limit=200{cursor}").json()
            found += page["orders"]
            if page["next_cursor"] is None:
                return found[::-1]
            cursor = f"&cursor={page['next_cursor']}"

    def all_settled(self, account_ids: Iterable[int], seconds: float) -> dict[int, list[Json]]:
        """All orders of the accounts once every one of them is final."""
        deadline = time.monotonic() + seconds

        def settled(account_id: int) -> list[Json]:
            return until(
                lambda: self.orders(account_id),
                lambda orders: all(order["status"] in FINAL for order in orders),
                deadline - time.monotonic(),
            )

        return {account_id: settled(account_id) for account_id in account_ids}


def order_body(**changes: Any) -> Json:
    """The body of a valid BUY of 2 GBM at 50, sent now, with ``changes``."""
    return {
        "timestamp": int(time.time()),
        "operation": "BUY",
        "issuer_name": "GBM",
        "total_shares": 2,
        "share_price": 50,
        **changes,
    }


def until(look: Callable[[], T], good: Callable[[T], bool], seconds: float) -> T:
    """What ``look`` returns once it is ``good``; fails after ``seconds``."""
    deadline = time.monotonic() + seconds
    while True:
        seen = look()
        if good(seen):
            return seen
        assert time.monotonic() < deadline, f"not so after {seconds:.1f} s: {str(seen)[-600:]}"
        time.sleep(POLL_SECONDS)


def in_parallel(clients: int, work: Callable[[T], R], items: Sequence[T]) -> list[R]:
    """``work`` on every item by ``clients`` threads at once."""
    with ThreadPoolExecutor(clients) as pool:
        return list(pool.map(work, items))
