"""The client: one method for each thing the service does, every call bounded and repeatable."""

import uuid
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Final, Self
from urllib.parse import quote

from order_client.bulk import BULK_RETRY, CHUNK_LINES, BulkResult, send_all
from order_client.errors import Conflict, ProtocolError
from order_client.events import STREAM_RETRY, Event, EventStream
from order_client.exact import Json, exact_text, write_json
from order_client.models import Account, NewOrder, Order, Status, read_account, read_order
from order_client.retry import Retry, Time
from order_client.transport import Request, Transport

TIMEOUT_SECONDS: Final = 10.0
PAGE_ORDERS_MAX: Final = 200
WAIT_SECONDS_MAX: Final = 20
"""One request waits no longer for a decision; a longer wait takes several."""

KEY_LENGTH_MAX: Final = 255

_POLL_SECONDS_MIN: Final = 0.1
_POLL_SECONDS_MAX: Final = 2.0


class Client:
    """One service. May be shared between threads; close it, or use it in a ``with``.

    Every POST carries an Idempotency-Key, the same at each try, so nothing happens twice. Amounts
    are exact: int, str or Decimal go in, Decimal comes out.

    Every method may raise what is a ``Problem``, by what went wrong: ``Invalid``,
    ``Unauthorized``, ``Forbidden``, ``NotFound``, ``Conflict``, ``RateLimited``, ``Unavailable``
    (also ``Unreachable``), ``ServerFault``; and ``ProtocolError`` if an answer makes no sense.
    """

    def __init__(
        self,
        base_url: str,
        key: str | None = None,
        timeout: float = TIMEOUT_SECONDS,
        *,
        retry: Retry | None = None,
        time: Time | None = None,
    ) -> None:
        """Speak to the service at ``base_url`` with the API key ``key``; connects when asked.

        Args:
            base_url: such as http://127.0.0.1:8000.
            key: sent as ``Authorization: Bearer``.
            timeout: seconds to wait for a part of an answer; ``retry`` bounds the whole call.
            retry: how stubborn to be.
            time: clocks and chance, for tests.

        Raises:
            ValueError: an address or a key that is none.
        """
        self._time = time or Time()
        self._transport = Transport(base_url, key, timeout, retry or Retry(), self._time)

    @property
    def base_url(self) -> str:
        """Where the service is, without a slash at its end."""
        return self._transport.base_url

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def open_account(
        self, cash: Decimal | int | str, *, idempotency_key: str | None = None
    ) -> Account:
        """Open an account."""
        request = _post("/v1/accounts", {"cash": exact_text(cash)}, idempotency_key)
        return read_account(self._transport.ask(request).json())

    def account(self, account_id: int) -> Account:
        """Cash and positions of an account."""
        return read_account(self._transport.ask(Request("GET", _account_path(account_id))).json())

    def place(
        self,
        account_id: int,
        operation: str,
        issuer_name: str,
        total_shares: int | str,
        share_price: Decimal | int | str,
        *,
        timestamp: datetime | Decimal | int | str | None = None,
        idempotency_key: str | None = None,
    ) -> Order:
        """Send an order and return it as it was accepted, usually pending.

        Dated now, unless ``timestamp`` says otherwise. Whoever wants to repeat a call that ended
        ``Unavailable`` gives both the timestamp and the key, the same again.
        """
        order = NewOrder(
            account_id,
            operation,
            issuer_name,
            total_shares,
            share_price,
            timestamp=timestamp if timestamp is not None else self._time.now(),
            idempotency_key=idempotency_key,
        )
        return self._place(order, wait_seconds=0)

    def place_and_wait(
        self,
        account_id: int,
        operation: str,
        issuer_name: str,
        total_shares: int | str,
        share_price: Decimal | int | str,
        *,
        seconds: float = 10.0,
        timestamp: datetime | Decimal | int | str | None = None,
        idempotency_key: str | None = None,
    ) -> Order:
        """Send an order and wait for its decision; still pending if ``seconds`` did not do."""
        until = self._time.monotonic() + seconds
        order = NewOrder(
            account_id,
            operation,
            issuer_name,
            total_shares,
            share_price,
            timestamp=timestamp if timestamp is not None else self._time.now(),
            idempotency_key=idempotency_key,
        )
        placed = self._place(order, wait_seconds=_whole_wait(seconds))
        if placed.is_final:
            return placed
        return self.wait(account_id, placed.id, seconds=until - self._time.monotonic())

    def order(self, account_id: int, order_id: str) -> Order:
        """An order as it stands."""
        return self._order(account_id, order_id, wait_seconds=0)

    def orders(
        self, account_id: int, *, status: Status | str | None = None, page_orders: int = 50
    ) -> Iterator[Order]:
        """An account's orders, newest first, read page by page as they are taken."""
        if not 1 <= page_orders <= PAGE_ORDERS_MAX:
            raise ValueError(f"a page has 1 to {PAGE_ORDERS_MAX} orders")
        params = {"limit": str(page_orders)}
        if status is not None:
            params["status"] = Status(status).value
        return self._pages(_account_path(account_id) + "/orders", params)

    def cancel(self, account_id: int, order_id: str) -> Order:
        """Cancel a pending order. One that is cancelled already is returned as it is.

        Raises:
            Conflict: it was decided before.
        """
        try:
            self._transport.ask(Request("DELETE", _order_path(account_id, order_id)))
        except Conflict:
            # The first try may have done it and its answer got lost.
            found = self.order(account_id, order_id)
            if found.status is Status.CANCELLED:
                return found
            raise
        return self.order(account_id, order_id)

    def wait(self, account_id: int, order_id: str, *, seconds: float = 30.0) -> Order:
        """The order once it is decided, or as it stands after ``seconds``."""
        until = self._time.monotonic() + seconds
        pause = _POLL_SECONDS_MIN
        while True:
            asked = self._time.monotonic()
            wait_seconds = _whole_wait(until - asked)
            order = self._order(account_id, order_id, wait_seconds=wait_seconds)
            now = self._time.monotonic()
            if order.is_final or now >= until:
                return order
            if now - asked < wait_seconds / 2:
                # The service would not wait; then the pauses are made here.
                self._time.sleep(min(pause * (0.5 + self._time.chance()), until - now))
                pause = min(2 * pause, _POLL_SECONDS_MAX)

    def events(
        self,
        account_id: int,
        *,
        last_event_id: str | None = None,
        retry: Retry = STREAM_RETRY,
    ) -> Iterator[Event]:
        """Decided orders as they come, each once, through reconnections.

        Goes on after ``last_event_id``, or begins with what is decided from now on; "0" begins
        with the account's first decided order.
        """
        return iter(EventStream(self._transport, account_id, last_event_id, retry))

    def bulk(
        self,
        orders: Iterable[NewOrder],
        *,
        chunk_lines: int = CHUNK_LINES,
        retry: Retry = BULK_RETRY,
    ) -> Iterator[BulkResult]:
        """Send many orders over any accounts; a result for each, in their sequence.

        Holds one chunk in memory. A line whose try has to be repeated (429, 503) may be accepted
        after later ones of its chunk.

        Raises:
            BulkInterrupted: the service refused a whole request or was away for too long.
        """
        return send_all(self._transport, orders, chunk_lines, retry)

    def _place(self, order: NewOrder, *, wait_seconds: int) -> Order:
        path = _account_path(order.account_id) + "/orders"
        headers = {"Prefer": f"wait={wait_seconds}"} if wait_seconds else {}
        request = _post(path, order.body(), order.idempotency_key, headers, wait_seconds)
        return read_order(self._transport.ask(request).json())

    def _order(self, account_id: int, order_id: str, *, wait_seconds: int) -> Order:
        params = {"wait": str(wait_seconds)} if wait_seconds else {}
        request = Request(
            "GET", _order_path(account_id, order_id), params, wait_seconds=wait_seconds
        )
        return read_order(self._transport.ask(request).json())

    def _pages(self, path: str, params: Mapping[str, str]) -> Iterator[Order]:
        cursor: str | None = None
        while True:
            asked = {**params, "cursor": cursor} if cursor is not None else params
            page = self._transport.ask(Request("GET", path, asked)).json()
            found, following = page.get("orders"), page.get("next_cursor")
            if not isinstance(found, list) or not isinstance(following, str | None):
                raise ProtocolError("The service answered what is no page of orders.")
            yield from map(read_order, found)
            if following is None:
                return
            if following == cursor:
                raise ProtocolError("The service names the same page again and again.")
            cursor = following


def _post(
    path: str,
    body: Json,
    key: str | None,
    headers: Mapping[str, str] | None = None,
    wait_seconds: float = 0.0,
) -> Request:
    sent = {
        "Content-Type": "application/json",
        "Idempotency-Key": checked_key(key) if key is not None else uuid.uuid4().hex,
        **(headers or {}),
    }
    return Request("POST", path, {}, sent, write_json(body), wait_seconds)


def checked_key(key: str) -> str:
    """The idempotency key itself.

    Raises:
        ValueError: it is empty, too long, or not printable ASCII.
    """
    if not (0 < len(key) <= KEY_LENGTH_MAX and key.isascii() and key.isprintable()):
        raise ValueError(f"an idempotency key has 1 to {KEY_LENGTH_MAX} printable characters")
    return key


def _account_path(account_id: int) -> str:
    return f"/v1/accounts/{int(account_id)}"


def _order_path(account_id: int, order_id: str) -> str:
    if not order_id:
        raise ValueError("an order has an id")
    return f"{_account_path(account_id)}/orders/{quote(order_id, safe='')}"


def _whole_wait(seconds: float) -> int:
    """Seconds to have the service wait: whole ones, as its contract has it."""
    return max(0, min(int(seconds), WAIT_SECONDS_MAX))
