"""A client that trades through the proxy and repeats each request until it is answered."""

import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import requests

FINAL = frozenset({"executed", "rejected"})
REQUEST_SECONDS_MAX = 30.0
STUBBORN_SECONDS_MAX = 90.0
_AGAIN = frozenset({408, 429, 502, 503, 504})
_PAUSE_SECONDS = 0.2


@dataclass
class Client:
    """One caller; not to be shared between threads."""

    url: str
    key: str
    failures: int = 0
    """Answers that asked to come again, and connections that broke."""
    session: requests.Session = field(default_factory=requests.Session)

    def once(
        self, method: str, path: str, json: Any = None, headers: dict[str, str] | None = None
    ) -> requests.Response:
        """One request, one answer."""
        headers = {"Authorization": f"Bearer {self.key}", **(headers or {})}
        return self.session.request(
            method, self.url + path, json=json, headers=headers, timeout=REQUEST_SECONDS_MAX
        )

    def stubbornly(
        self, method: str, path: str, json: Any = None, headers: dict[str, str] | None = None
    ) -> requests.Response:
        """Repeat a request until its answer is one that would not change."""
        give_up_at = time.monotonic() + STUBBORN_SECONDS_MAX
        while True:
            try:
                answer = self.once(method, path, json, headers)
            except requests.RequestException:
                # Whether it was recorded is not known: that is what its key is for.
                if time.monotonic() > give_up_at:
                    raise
            else:
                if answer.status_code not in _AGAIN or time.monotonic() > give_up_at:
                    return answer
            self.failures += 1
            time.sleep(_PAUSE_SECONDS)

    def open_account(self, cash: int) -> int:
        """Open an account; its id."""
        headers = {"Idempotency-Key": str(uuid.uuid4())}
        answer = self.stubbornly("POST", "/v1/accounts", {"cash": cash}, headers)
        answer.raise_for_status()
        return int(answer.json()["id"])

    def order(self, account: int, issuer: str, operation: str = "BUY", shares: int = 1) -> str:
        """Send an order dated now; its id."""
        fields = {
            "timestamp": time.time(),
            "operation": operation,
            "issuer_name": issuer,
            "total_shares": shares,
            "share_price": "1.5",
        }
        headers = {"Idempotency-Key": str(uuid.uuid4())}
        answer = self.stubbornly("POST", f"/v1/accounts/{account}/orders", fields, headers)
        answer.raise_for_status()
        return str(answer.json()["id"])

    def get(self, path: str) -> Any:
        """Read something."""
        answer = self.stubbornly("GET", path)
        answer.raise_for_status()
        return answer.json()

    def orders(self, account: int) -> list[dict[str, Any]]:
        """All orders of an account, page by page."""
        return list(self._orders(account))

    def final(self, account: int, order: str, seconds: float = 60) -> dict[str, Any]:
        """Wait until an order is decided."""
        give_up_at = time.monotonic() + seconds
        while time.monotonic() < give_up_at:
            found: dict[str, Any] = self.get(f"/v1/accounts/{account}/orders/{order}")
            if found["status"] in FINAL:
                return found
            time.sleep(_PAUSE_SECONDS)
        raise TimeoutError(f"order {order} of account {account} is not decided")

    def _orders(self, account: int) -> Iterator[dict[str, Any]]:
        cursor = ""
        while True:
            page = self.get(f"/v1/accounts/{account}/orders?limit=200{cursor}")
            yield from page["orders"]
            if page["next_cursor"] is None:
                return
            cursor = f"&cursor={page['next_cursor']}"


@dataclass
class Trader(threading.Thread):
    """Sends orders of one account, one after the other, until it is told to stop."""

    client: Client
    account: int
    stop: threading.Event
    accepted: list[str] = field(default_factory=list)
    error: BaseException | None = None

    def __post_init__(self) -> None:
        super().__init__(daemon=True)

    def run(self) -> None:
        """Trade."""
        try:
            while not self.stop.is_set():
                issuer = f"I{len(self.accepted) % 500}"
                self.accepted.append(self.client.order(self.account, issuer))
        except BaseException as error:  # noqa: BLE001 - told by whoever waits for it
            self.error = error

    def __hash__(self) -> int:
        return id(self)


@contextmanager
def trading(url: str, key: str, traders: int) -> Iterator[list[Trader]]:
    """Traders at work; at the end they have stopped, and an error of theirs is raised."""
    stop = threading.Event()
    opener = Client(url, key)
    started = [
        Trader(Client(url, key), opener.open_account(1_000_000), stop) for _ in range(traders)
    ]
    for trader in started:
        trader.start()
    try:
        yield started
    finally:
        stop.set()
        for trader in started:
            trader.join(STUBBORN_SECONDS_MAX + REQUEST_SECONDS_MAX)
    for trader in started:
        if trader.error is not None:
            raise trader.error
        if trader.is_alive():
            raise TimeoutError("a trader does not end")
