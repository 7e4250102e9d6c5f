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
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any

from tests.chaos.asking import ask_and_note
from tests.chaos.follower import begin, follow
from tests.chaos.history import (
    ACCOUNT,
    BULK,
    CANCEL,
    LIST,
    OPEN,
    ORDER,
    PLACE,
    REUSE,
    STRANGE,
    Call,
    Recorder,
    lines_of,
)
from tests.chaos.http_client import NDJSON, Answer, Connection
from tests.chaos.posts import is_indefinite

TIMEOUT_SECONDS = 4.0
FINISH_SECONDS = 45.0
PROGRESS_SECONDS = 0.25
POLLS_MAX = 6
REMEMBERED_MAX = 400

ISSUERS = ("GBM", "AAPL", "PEÑOLES", "FEMSA UBD", "KO")
_DECIDED = ("executed", "rejected", "cancelled", "failed")
_CASH = (3_000, 250_000, 1_000_000, 5_000_000)
_RETRY_PAUSE_SECONDS = (0.05, 0.4)
_PAUSE_SECONDS = (0.0, 0.1)
_HOT_SHARE = 0.2
_KEYLESS_SHARE = 0.1
_FOLLOWED_SHARE = 0.12
_WAITED_SHARE = 0.06
_WAIT_SECONDS = 2
_BULK_LINES = (2, 40)
_FOLLOWERS = 4
_ASKED_STATUSES = ("executed", "rejected", "cancelled", "pending", "executed,rejected")

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
        self._seen: dict[str, tuple[str | None, str]] = {}

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
        # Rarer than orders, but often enough that each meets every kind of fault.
        things += [
            (0.04, self.cancel),
            (0.012, self.bulk),
            (0.01, self.reuse_key),
            (0.01, self.look_elsewhere),
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
        about: Json = {"account": account}
        if self._random.random() < _WAITED_SHARE:
            about |= {"wait": _WAIT_SECONDS, "headers": {"Prefer": f"wait={_WAIT_SECONDS}"}}
        made = await self._post(PLACE, path, sent, request, is_keyed=is_keyed, **about)
        if made is None:
            return
        self._note(account, made)
        if is_keyed:
            self.shared.answered.append((account, request, sent, made["id"]))
        if self._random.random() < _FOLLOWED_SHARE:
            await self._follow(account, made["id"])

    async def cancel(self) -> None:
        """Send an order and cancel it at once, or one that was sent before; perhaps twice."""
        account, sent = self._new_order()
        path = f"/v1/accounts/{account}/orders"
        made = await self._post(PLACE, path, sent, self._request(), is_keyed=True, account=account)
        if made is None:
            return
        self._note(account, made)
        order = made["id"]
        if self._random.random() < 0.1:
            account, order = self._random.choice(self.shared.orders)
        times = 2 if self._random.random() < 0.2 else 1
        await asyncio.gather(*(self._cancel(account, order, place) for place in range(times)))
        await self._poll(account, order)

    async def bulk(self) -> None:
        """Send many orders in one request, again and again until each line has its answer."""
        request = self._request()
        lines: list[str] = []
        for _ in range(self._random.randint(*_BULK_LINES)):
            account, sent = self._new_order()
            lines.append(
                json.dumps({"account_id": account, **json.loads(sent)}, ensure_ascii=False)
            )
        call = Call(BULK, request, 0, 0, key=request, sent="\n".join(lines))
        made: dict[str, tuple[int, Json]] = {}
        is_open = True
        while is_open and time.monotonic() < self.shared.deadline:
            answer = await self._call(
                BULK,
                "POST",
                "/v1/orders/bulk",
                request=request,
                key=request,
                sent=call.sent,
                headers={"Content-Type": NDJSON},
            )
            told = replace(call, status=answer.status, body=answer.body) if answer else call
            answered = lines_of(told)
            is_open = any(is_indefinite(line) or line.status == 500 for line in answered)
            for line in answered:
                if line.status == 202 and line.account is not None:
                    made[line.request] = line.account, json.loads(line.body or "")
            await asyncio.sleep(self._random.uniform(*_RETRY_PAUSE_SECONDS))
        for account, order in made.values():
            self._note(account, order)

    async def reuse_key(self) -> None:
        """Send another order under a key that an order has: it has to be refused."""
        if not self.shared.answered:
            return
        account, request, sent, _ = self._random.choice(self.shared.answered)
        other = json.loads(sent)
        other["total_shares"] += 1
        path = f"/v1/accounts/{account}/orders"
        await self._call(
            REUSE,
            "POST",
            path,
            request=request,
            key=request,
            sent=json.dumps(other, ensure_ascii=False),
            account=account,
        )

    async def look_elsewhere(self) -> None:
        """Look for an order under an account that it is not of."""
        if not self.shared.orders:
            return
        account, order = self._random.choice(self.shared.orders)
        other = self._account()
        if other != account:
            path = f"/v1/accounts/{other}/orders/{order}"
            await self._call(STRANGE, "GET", path, account=other, order=order)

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
        statuses = self._random.choice((None, *_ASKED_STATUSES))
        path = f"/v1/accounts/{account}/orders?limit={limit}"
        path += f"&status={statuses}" if statuses else ""
        await self._call(LIST, "GET", path, account=account, limit=limit, statuses=statuses)

    async def look_at_order(self) -> None:
        if self.shared.orders:
            await self._poll(*self._random.choice(self.shared.orders))

    async def _follow(self, account: int, order: str) -> None:
        """Ask until the order is decided, then at once again, perhaps the other API."""
        for _ in range(POLLS_MAX):
            seconds = self._random.choice((None, None, _WAIT_SECONDS))
            if seconds is None:
                await asyncio.sleep(self._random.uniform(0.01, 0.8))
            if await self._poll(account, order, seconds) in _DECIDED:
                await self._poll(account, order)
                if self._random.random() < 0.3:
                    await self._call(ACCOUNT, "GET", f"/v1/accounts/{account}", account=account)
                return

    async def _poll(self, account: int, order: str, wait: int | None = None) -> str | None:
        """Look at an order; with the tag of what was seen last, if it was seen here."""
        path = f"/v1/accounts/{account}/orders/{order}"
        tag, held = self._seen.get(order, (None, None))
        answer = await self._call(
            ORDER,
            "GET",
            f"{path}?wait={wait}" if wait else path,
            account=account,
            order=order,
            wait=wait,
            held=held,
            headers={"If-None-Match": tag} if tag else {},
        )
        if answer is None or answer.status not in (200, 304):
            return None
        self._seen = {order: (answer.tag, answer.body)}
        return str(json.loads(answer.body)["status"])

    async def _cancel(self, account: int, order: str, place: int) -> None:
        path = f"/v1/accounts/{account}/orders/{order}"
        while True:
            answer = await self._call(
                CANCEL,
                "DELETE",
                path,
                account=account,
                order=order,
                connection=self._connections[place % len(self._connections)],
            )
            if answer is not None and answer.status != 503:
                return
            if time.monotonic() > self.shared.deadline:
                return
            await asyncio.sleep(self._random.uniform(*_RETRY_PAUSE_SECONDS))

    def _note(self, account: int, made: Json) -> None:
        self.shared.accepted += 1
        self.shared.orders.append((account, made["id"]))

    async def _post(
        self,
        op: str,
        path: str,
        sent: str,
        request: str,
        *,
        is_keyed: bool,
        **about: Any,
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
                **about,
            )
            # 500: its item is damaged, for a while.
            if answer is not None and answer.status not in (409, 500, 503):
                return json.loads(answer.body) if answer.status in (200, 201, 202) else None
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


async def _follow(shared: Shared, number: int) -> None:
    """Follow an account's events from its first order on: a hot one, or one of our own."""
    while len(shared.accounts) <= number:
        await asyncio.sleep(PROGRESS_SECONDS)
    hot = shared.settings.hot_accounts
    account = hot[number % len(hot)] if number % 2 else shared.accounts[number]
    name = f"{shared.settings.name}-events-{number}"
    random = Random(f"{shared.settings.seed}/{name}")
    last = begin(shared.recorder, name, account)
    while True:
        connection = Connection(random.choice(shared.settings.ports), TIMEOUT_SECONDS)
        last = await follow(connection, shared.recorder, name, account, last)
        await asyncio.sleep(random.uniform(*_RETRY_PAUSE_SECONDS))


async def _run(shared: Shared) -> None:
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, shared.end)
    progress = asyncio.create_task(_report_progress(shared))
    clients = [Client(shared, number) for number in range(shared.settings.clients)]
    accounts = shared.settings.accounts // len(clients)
    followers = [asyncio.create_task(_follow(shared, number)) for number in range(_FOLLOWERS)]
    await asyncio.gather(*(client.trade(accounts) for client in clients))
    for follower in followers:
        follower.cancel()
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
