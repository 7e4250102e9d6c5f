"""Steady load for tests: clients that keep their connection and count whatever goes wrong."""

import http.client
import json
import threading
import time
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import urlsplit

from tests.integration.client import Client, order_body

CLIENTS = 16
PAUSE_SECONDS = 0.02
ANSWER_SECONDS_MAX = 20.0


@dataclass
class Placed:
    """What one client did: the orders that were accepted, its slowest call, what failed."""

    account: int
    orders: list[str] = field(default_factory=list)
    seconds_max: float = 0.0
    failures: list[str] = field(default_factory=list)


class Load:
    """Clients that place an order and look at it, over and over, while it is entered."""

    def __init__(self, url: str, clients: int = CLIENTS) -> None:
        self._address = urlsplit(url)
        self._stop = threading.Event()
        self.placed = [Placed(Client(url).open_account(10**12)) for _ in range(clients)]
        self._threads = [
            threading.Thread(target=self._work, args=(placed,), daemon=True)
            for placed in self.placed
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(2 * ANSWER_SECONDS_MAX)
            assert not thread.is_alive()

    @property
    def failures(self) -> list[str]:
        return [failure for placed in self.placed for failure in placed.failures]

    @property
    def accounts(self) -> dict[int, list[str]]:
        """The accepted orders of each account, in sequence."""
        return {placed.account: placed.orders for placed in self.placed}

    @property
    def accepted(self) -> int:
        return sum(len(placed.orders) for placed in self.placed)

    @property
    def seconds_max(self) -> float:
        """The longest that a client waited for an answer."""
        return max(placed.seconds_max for placed in self.placed)

    def _work(self, placed: Placed) -> None:
        host, port = self._address.hostname or "", self._address.port
        connection = http.client.HTTPConnection(host, port, timeout=ANSWER_SECONDS_MAX)
        path = f"/v1/accounts/{placed.account}/orders"
        while not self._stop.is_set():
            body = order_body(total_shares=len(placed.orders) + 1, share_price=1)
            order = self._call(connection, placed, "POST", path, body)
            if order is not None:
                placed.orders.append(order["id"])
                self._call(connection, placed, "GET", f"{path}/{order['id']}")
            self._stop.wait(PAUSE_SECONDS)
        connection.close()

    def _call(
        self,
        connection: http.client.HTTPConnection,
        placed: Placed,
        method: str,
        path: str,
        body: dict[str, Any] | None = None,
    ) -> Any:
        """The answer's body; None when there was none, or not the one that was wanted."""
        started = time.monotonic()
        try:
            text = None if body is None else json.dumps(body)
            connection.request(method, path, text, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            shown = json.loads(answer.read() or b"null")
        except (OSError, http.client.HTTPException) as error:
            placed.failures.append(f"{method} {path}: {error!r}")
            connection.close()
            return None
        finally:
            placed.seconds_max = max(placed.seconds_max, time.monotonic() - started)
        if answer.status in (200, 202):
            return shown
        placed.failures.append(f"{method} {path}: {answer.status} {shown}")
        return None
