"""How orders and accounts stand: the cache for what is final, the store for the rest."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from api.problems import account_not_found, order_not_found
from shared.domain.order import FINAL_STATUSES
from shared.ids import is_order_id
from shared.order_store import reads
from shared.order_store.errors import UnreadableItem
from shared.order_store.gateway import Gateway
from shared.order_store.records import RecordedOrder, UnreadableOrder
from shared.representation import show_account, show_order, show_unreadable, to_json
from shared.status_cache import StatusCache


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

    def order(self, account_id: int, order_id: str) -> bytes:
        """The order as JSON.

        Raises:
            Problem: 404, there is no such order.
            StoreUnavailable: it is not cached and the store does not answer.
        """
        if not is_order_id(order_id):
            raise order_not_found(order_id[:64])
        cached = self._cache.get(account_id, order_id)
        if cached is not None:
            return cached
        recorded = reads.load_order(self._gateway, account_id, order_id)
        if recorded is None:
            raise order_not_found(order_id)
        body = to_json(_show(recorded))
        if isinstance(recorded, RecordedOrder) and recorded.status in FINAL_STATUSES:
            self._cache.put([(account_id, order_id, body)])
        return body

    def recorded(self, account_id: int, order_id: str) -> RecordedOrder:
        """The order as it is recorded; raises as ``order``, and ``UnreadableItem``."""
        recorded = reads.load_order(self._gateway, account_id, order_id)
        if recorded is None:
            raise order_not_found(order_id)
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

    def page(self, account_id: int, limit: int, before: str | None) -> Page:
        """Up to ``limit`` orders older than ``before``; raises as ``account``."""
        orders, next_before = reads.list_orders(self._gateway, account_id, limit, before)
        if not orders:
            self.account(account_id)
        return Page([_show(order) for order in orders], next_before)


def _show(order: RecordedOrder | UnreadableOrder) -> dict[str, Any]:
    return show_unreadable(order) if isinstance(order, UnreadableOrder) else show_order(order)
