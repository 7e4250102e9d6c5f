"""How orders and accounts stand: the cache for what is final, the store for the rest."""

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final

from api.group_commit import GroupCommit
from api.problems import account_not_found, key_in_flight, order_not_found
from api.remembered import Remembered
from shared import metrics
from shared.domain.order import FINAL_STATUSES, OrderStatus
from shared.ids import is_order_id
from shared.notices import Notice
from shared.order_store import reads
from shared.order_store.errors import UnreadableItem
from shared.order_store.gateway import Gateway
from shared.order_store.records import RecordedOrder, UnreadableOrder
from shared.representation import show_account, show_recorded, to_json
from shared.status_cache import StatusCache

READS_TOGETHER_MAX: Final = 100
"""Cached answers that requests which arrive together ask for in one round trip: alone it costs a
request more than all of Flask does."""


@dataclass(frozen=True, slots=True)
class Stored:
    """An order as JSON; ``status`` is None where not even that can be read."""

    status: OrderStatus | None
    body: bytes


@dataclass(frozen=True, slots=True)
class Seen:
    """An order as JSON; ``is_pending`` is false once it is decided, or parked."""

    body: bytes
    is_pending: bool


@dataclass(frozen=True, slots=True)
class Page:
    """Some orders of an account, newest first; ``next_before`` is where to go on."""

    orders: Sequence[dict[str, Any]]
    next_before: str | None


class StatusReader:
    """Answers reads. Safe to share between threads."""

    def __init__(self, gateway: Gateway, cache: StatusCache) -> None:
        """Read from ``cache`` what is final, from ``gateway`` everything else."""
        self._gateway = gateway
        self._cache = cache
        self._remembered = Remembered()
        self._cached = GroupCommit(
            cache.get_many, lambda _: 1, READS_TOGETHER_MAX, gather=_let_others_come
        )

    def order(self, account_id: int, order_id: str) -> bytes:
        """The order as JSON.

        Raises:
            Problem: 404, there is no such order.
            StoreUnavailable: it is not cached and the store does not answer.
        """
        return self.look(account_id, order_id).body

    def look(self, account_id: int, order_id: str) -> Seen:
        """The order, and whether there is anything to wait for; raises as ``order``."""
        _require_order_id(order_id)
        cached = self.cached(account_id, order_id)
        if cached is not None:
            return Seen(cached, is_pending=False)
        stored = self.stored(account_id, order_id)
        return Seen(stored.body, is_pending=stored.status is OrderStatus.PENDING)

    def cached(self, account_id: int, order_id: str) -> bytes | None:
        """The order as JSON if it is final and cached, here or in Redis."""
        ref = (account_id, order_id)
        body = self._remembered.get(ref)
        if body is not None:
            metrics.CACHE_READS.add("remembered")
        elif (body := self._cached.submit(ref)) is not None:
            self._remembered.add(ref, body)
        return body

    def stored(self, account_id: int, order_id: str, *, is_news: bool = False) -> Stored:
        """The order as the store has it, whatever is cached; raises as ``order``.

        ``is_news``: it was decided here just now, and those who wait for it are to be woken.
        """
        _require_order_id(order_id)
        recorded = reads.load_order(self._gateway, account_id, order_id)
        if recorded is None:
            raise order_not_found(order_id)
        body = to_json(show_recorded(recorded))
        if isinstance(recorded, RecordedOrder) and recorded.status in FINAL_STATUSES:
            notice = Notice(account_id, recorded.sequence or 0, (order_id,))
            self._cache.put([(account_id, order_id, body)], [notice] if is_news else ())
        return Stored(recorded.status, body)

    def recorded(self, account_id: int, order_id: str) -> RecordedOrder:
        """The order that a request made whose key is recorded.

        Raises:
            Problem: 409, it is not to be seen yet (a transaction may show itself in parts).
            UnreadableItem: its item does not have the shape that this code writes.
            StoreUnavailable: no answer in time.
        """
        recorded = reads.load_order(self._gateway, account_id, order_id)
        if recorded is None:
            raise key_in_flight()
        if isinstance(recorded, UnreadableOrder):
            raise UnreadableItem(f"order {order_id} of account {account_id}: {recorded.reason}")
        return recorded

    def account(self, account_id: int) -> dict[str, Any]:
        """The account.

        Raises:
            Problem: 404, there is no such account.
            StoreUnavailable: the store does not answer.
        """
        recorded = reads.load_account(self._gateway, account_id)
        if recorded is None:
            raise account_not_found(account_id)
        return show_account(recorded.account)

    def page(
        self,
        account_id: int,
        limit: int,
        before: str | None,
        statuses: Collection[OrderStatus] = (),
    ) -> Page:
        """Up to ``limit`` orders older than ``before``, of ``statuses`` if there are any.

        A page of a filtered list may hold fewer, or none, and not be the last. Raises as
        ``account``.
        """
        orders, next_before = reads.list_orders(self._gateway, account_id, limit, before, statuses)
        if not orders:
            self.account(account_id)
        return Page([show_recorded(order) for order in orders], next_before)


def _let_others_come() -> None:
    """Give way once: whoever is ready to read comes along, and nobody is waited for."""
    time.sleep(0)


def _require_order_id(text: str) -> None:
    if not is_order_id(text):
        raise order_not_found(text[:64])
