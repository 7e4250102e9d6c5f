"""A process of many clients that trade over HTTP and write down all that they see.

Start it with ``python -m tests.chaos.client SETTINGS`` (JSON). SIGTERM ends the load: what has no
definite answer yet is still repeated until it has one, or until the time for that is over.
"""

import asyncio
import json
import signal
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any

from tests.chaos.asking import ask_and_note
from tests.chaos.history import ACCOUNT, LIST, OPEN, ORDER, PLACE, Recorder
from tests.chaos.http_client import Answer, Connection

TIMEOUT_SECONDS = 4.0
FINISH_SECONDS = 45.0
PROGRESS_SECONDS = 0.25
POLLS_MAX = 6
REMEMBERED_MAX = 400

ISSUERS = ("GBM", "AAPL", "PEÑOLES", "FEMSA UBD", "KO")
_FINAL = ("executed", "rejected", "failed")
_CASH = (3_000, 250_000, 1_000_000, 5_000_000)
_RETRY_PAUSE_SECONDS = (0.05, 0.4)
_PAUSE_SECONDS = (0.0, 0.1)
_HOT_SHARE = 0.2
_KEYLESS_SHARE = 0.1
_FOLLOWED_SHARE = 0.12

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Settings:
    """What the runner tells the process."""

    name: str
    seed: int
    ports: list[int]
    history: str
    progress: str
    hot_accounts: list[int]
    clients: int
    accounts: int


@dataclass(slots=True)
class Shared:
    """What the clients of one process share."""

    settings: Settings
    recorder: Recorder
    accounts: list[int] = field(default_factory=list)
    answered: deque[tuple[int, str, str, str]] = field(
        default_factory=lambda: deque(maxlen=REMEMBERED_MAX)
    )
    orders: deque[tuple[int, str]] = field(default_factory=lambda: deque(maxlen=REMEMBERED_MAX))
    bodies: dict[int, deque[Json]] = field(default_factory=dict)
    accepted: int = 0
    is_ending: bool = False
    deadline: float = float("inf")

    def end(self) -> None:
        """Begin nothing new; finish what has no answer yet, but not for ever."""
        self.is_ending = True
        self.deadline = time.monotonic() + FINISH_SECONDS


class Client:
    """One client: one thing at a time, mostly orders."""

    def __init__(self, shared: Shared, number: int) -> None:
        self.shared = shared
        self._name = f"{shared.settings.name}.{number}"
        self._random = Random(f"{shared.settings.seed}/{self._name}")
        self._connections = [Connection(port, TIMEOUT_SECONDS) for port in shared.settings.ports]
        self._sent = 0

    async def trade(self, accounts: int) -> None:
        """Open some accounts, then do one thing after the other until the load ends."""
        for _ in range(accounts):
            await self.open_account()
        things: list[tuple[float, Callable[[], Awaitable[None]]]] = [
            (0.89, self.order),
            (0.025, self.repeat),
            (0.035, self.look_at_account),
            (0.02, self.look_at_list),
            (0.025, self.look_at_order),
            (0.005, self.open_account),
        ]
        weights = [weight for weight, _ in things]
        while not self.shared.is_ending:
            [(_, thing)] = self._random.choices(things, weights)
            await thing()
            await asyncio.sleep(self._random.uniform(*_PAUSE_SECONDS))

    def close(self) -> None:
        for connection in self._connections:
            connection.close()

    async def open_account(self) -> None:
        sent = json.dumps({"cash": self._random.choice(_CASH)})
        made = await self._post(OPEN, "/v1/accounts", sent, self._request(), is_keyed=True)
        if made is not None:
            self.shared.accounts.append(made["id"])

    async def order(self) -> None:
        """Send an order, and often follow it until it is decided."""
        account, sent = self._new_order()
        request = self._request()
        is_keyed = self._random.random() >= _KEYLESS_SHARE
        path = f"/v1/accounts/{account}/orders"
        made = await self._post(PLACE, path, sent, request, account=account, is_keyed=is_keyed)
        if made is None:
            return
        self.shared.accepted += 1
        self.shared.orders.append((account, made["id"]))
        if is_keyed:
            self.shared.answered.append((account, request, sent, made["id"]))
        if self._random.random() < _FOLLOWED_SHARE:
            await self._follow(account, made["id"])

    async def repeat(self) -> None:
        """Send an order again whose answer is known, now and then twice at once."""
        if not self.shared.answered:
            return
        account, request, sent, _ = self._random.choice(self.shared.answered)
        path = f"/v1/accounts/{account}/orders"
        times = 2 if self._random.random() < 0.2 else 1
        await asyncio.gather(
            *(
                self._call(
                    PLACE,
                    "POST",
                    path,
                    request=request,
                    key=request,
                    sent=sent,
                    account=account,
                    again=True,
                    connection=self._connections[place % len(self._connections)],
                )
                for place in range(times)
            )
        )

    async def look_at_account(self) -> None:
        account = self._account()
        await self._call(ACCOUNT, "GET", f"/v1/accounts/{account}", account=account)

    async def look_at_list(self) -> None:
        account = self._account()
        limit = self._random.choice((5, 20))
        path = f"/v1/accounts/{account}/orders?limit={limit}"
        await self._call(LIST, "GET", path, account=account, limit=limit)

    async def look_at_order(self) -> None:
        if self.shared.orders:
            await self._poll(*self._random.choice(self.shared.orders))

    async def _follow(self, account: int, order: str) -> None:
        """Ask until the order is decided, then at once again, perhaps the other API."""
        for _ in range(POLLS_MAX):
            await asyncio.sleep(self._random.uniform(0.01, 0.8))
            if await self._poll(account, order) in _FINAL:
                await self._poll(account, order)
                if self._random.random() < 0.3:
                    await self._call(ACCOUNT, "GET", f"/v1/accounts/{account}", account=account)
                return

    async def _poll(self, account: int, order: str) -> str | None:
        path = f"/v1/accounts/{account}/orders/{order}"
        answer = await self._call(ORDER, "GET", path, account=account, order=order)
        if answer is None or answer.status != 200:
            return None
        return str(json.loads(answer.body)["status"])

    async def _post(
        self,
        op: str,
        path: str,
        sent: str,
        request: str,
        *,
        is_keyed: bool,
        account: int | None = None,
    ) -> Json | None:
        """POST until there is a definite answer; without a key once only."""
        while True:
            answer = await self._call(
                op,
                "POST",
                path,
                request=request,
                key=request if is_keyed else None,
                sent=sent,
                account=account,
            )
            if answer is not None and answer.status not in (409, 503):
                return json.loads(answer.body) if answer.status in (201, 202) else None
            if not is_keyed or time.monotonic() > self.shared.deadline:
                return None
            await asyncio.sleep(self._random.uniform(*_RETRY_PAUSE_SECONDS))

    async def _call(
        self,
        op: str,
        method: str,
        path: str,
        *,
        connection: Connection | None = None,
        **about: Any,
    ) -> Answer | None:
        """One request, written down with what came of it."""
        connection = connection or self._random.choice(self._connections)
        answer = await ask_and_note(connection, self.shared.recorder, op, method, path, **about)
        if answer is None:
            # A refused connection is found out at once: do not run in circles.
            await asyncio.sleep(self._random.uniform(*_RETRY_PAUSE_SECONDS))
        return answer

    # What to send

    def _request(self) -> str:
        self._sent += 1
        return f"{self._name}-{self._sent}"

    def _account(self) -> int:
        hot = self.shared.settings.hot_accounts
        if not self.shared.accounts or self._random.random() < _HOT_SHARE:
            return self._random.choice(hot)
        return self._random.choice(self.shared.accounts)

    def _new_order(self) -> tuple[int, str]:
        account = self._account()
        known = self.shared.bodies.setdefault(account, deque(maxlen=20))
        body = self._body(account in self.shared.settings.hot_accounts, known)
        known.append(body)
        return account, json.dumps(body, ensure_ascii=False)

    def _body(self, is_hot: bool, known: deque[Json]) -> Json:
        random = self._random
        kind = random.random()
        now = time.time()
        is_buy = random.random() < 0.52
        # Many different counts, for the same one within five minutes is a duplicate.
        shares_max = (20 if is_buy else 15) * (1000 if is_hot else 100)
        body: Json = {
            "timestamp": int(now) if random.random() < 0.3 else round(now, 6),
            "operation": "BUY" if is_buy else "SELL",
            "issuer_name": random.choice(ISSUERS),
            "total_shares": random.randint(1, shares_max),
            "share_price": str(Decimal(random.randint(1, 10_000)) / random.choice((100, 1000))),
        }
        if kind < 0.05 and known:
            copied = random.choice(known)
            return {**body, **{name: copied[name] for name in _WHAT_REPEATS}}
        if kind < 0.08:
            return {**body, "operation": "BUY", "total_shares": 10**9 + random.randint(1, 10**6)}
        if kind < 0.11:
            return {**body, "operation": "SELL", "total_shares": 10**9 + random.randint(1, 10**6)}
        return body


_WHAT_REPEATS = ("operation", "issuer_name", "total_shares")


async def _report_progress(shared: Shared) -> None:
    path = Path(shared.settings.progress)
    while True:
        fresh = path.with_suffix(".new")
        fresh.write_text(f"{shared.accepted} {time.process_time():.3f}")
        fresh.replace(path)
        await asyncio.sleep(PROGRESS_SECONDS)


async def _run(shared: Shared) -> None:
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, shared.end)
    progress = asyncio.create_task(_report_progress(shared))
    clients = [Client(shared, number) for number in range(shared.settings.clients)]
    accounts = shared.settings.accounts // len(clients)
    await asyncio.gather(*(client.trade(accounts) for client in clients))
    for client in clients:
        client.close()
    await asyncio.sleep(2 * PROGRESS_SECONDS)
    progress.cancel()


def main() -> None:
    """Trade as the settings in the first argument say."""
    settings = Settings(**json.loads(sys.argv[1]))
    with Path(settings.history).open("w", encoding="utf-8") as file:
        asyncio.run(_run(Shared(settings, Recorder(file))))


if __name__ == "__main__":
    main()
