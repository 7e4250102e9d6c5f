"""Consistent tables out of nothing: the items that real traffic would have left, made by the rules.

An account's items are made as they are asked for, so an account may be of any size.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from random import Random

from shared.domain.account import Account
from shared.domain.decision import Decision, Rules, decide
from shared.domain.order import Operation, Order
from shared.ids import NO_ORDER_ID, first_id_at
from shared.order_store import items, keys
from shared.order_store.commits import balance_after
from shared.order_store.keys import SHARD, Item

OPENED = datetime(2026, 3, 2, 13, tzinfo=UTC)
"""An hour after the market opens, on a Monday in Mexico City."""

OPENING_CASH = Decimal(100_000)
ISSUERS = ("AAPL", "GBM", "NFLX", "TSLA", "WALMEX")
RULES = Rules()

Decided = tuple[Order, Decision]


@dataclass(frozen=True)
class Ledger:
    """An account that was sent ``orders`` of all kinds: some of each are rejected."""

    account_id: int
    orders: int
    seconds_between: float = 10.0
    shares_max: int = 40
    cents_max: int = 10_000

    def items(self) -> Iterator[Item]:
        """All its items, as a query of its partition returns them."""
        final, newest = self.final()
        yield account_item(final, decided=self.orders, decided_through=newest)
        yield head_item(self.account_id, self.orders, newest)
        for sequence, (order, decision) in enumerate(self._decide(), start=1):
            yield order_item(order, decision, sequence)

    def final(self) -> tuple[Account, str]:
        """The account after its orders, and the id of the newest of them."""
        account, newest = self._opened(), NO_ORDER_ID
        for order in self._sent():
            account, _ = decide(account, order, RULES)
            newest = order.id
        return account, newest

    def _decide(self) -> Iterator[Decided]:
        account = self._opened()
        for order in self._sent():
            account, decision = decide(account, order, RULES)
            yield order, decision

    def _opened(self) -> Account:
        return Account(self.account_id, OPENING_CASH, OPENED)

    def _sent(self) -> Iterator[Order]:
        """The same orders at each call."""
        random = Random(self.account_id)
        for number in range(1, self.orders + 1):
            at = OPENED + timedelta(seconds=number * self.seconds_between)
            yield Order(
                id=first_id_at(at),
                account_id=self.account_id,
                operation=random.choice(tuple(Operation)),
                issuer_name=random.choice(ISSUERS),
                total_shares=random.randint(1, self.shares_max),
                share_price=Decimal(random.randint(1, self.cents_max)).scaleb(-2),
                timestamp=at,
                received_at=at,
            )


def counter_item(newest: int) -> Item:
    """The counter of account ids."""
    return {**keys.counter_key(), "newest": items.number(newest)}


def account_item(account: Account, *, decided: int, decided_through: str) -> Item:
    """An account's item after its decisions, as if no operation were written apart."""
    opened = replace(account, cash=OPENING_CASH, positions={}, recent={})
    item = {
        **items.new_account_item(opened, mark="ledger"),
        "cash": items.number(account.cash),
        "positions": items.write_positions(account.positions),
        "recent": items.write_recent(account.recent),
        "decided": items.number(decided),
    }
    if decided:
        item["decided_through"] = items.text(decided_through)
    if account.last_executed_at is not None:
        item["last_executed_at"] = items.instant(account.last_executed_at)
    return item


def head_item(account_id: int, accepted: int, newest: str) -> Item:
    """An account's head after so many orders."""
    return {
        **items.new_head_item(account_id),
        "accepted": items.number(accepted),
        "newest": items.text(newest),
    }


def order_item(order: Order, decision: Decision, sequence: int, rules: Rules = RULES) -> Item:
    """A decided order's item."""
    item = {
        **items.new_order_item(order),
        "status": items.text(decision.status),
        "decided_at": items.instant(order.received_at),
        "sequence": items.number(sequence),
        "rules": items.text(str(rules)),
        "balance": items.write_balance(balance_after(decision, order.issuer_name)),
    }
    del item[SHARD]
    if decision.business_errors:
        item["business_errors"] = {"L": [items.text(code) for code in decision.business_errors]}
    return item


def pages(ledgers: Sequence[Ledger], page_items: int = 1000) -> Iterator[tuple[int, list[Item]]]:
    """A table of ``ledgers`` in pages of one segment, made as they are asked for."""
    page: list[Item] = [counter_item(max(ledger.account_id for ledger in ledgers))]
    for ledger in ledgers:
        for item in ledger.items():
            page.append(item)
            if len(page) >= page_items:
                yield 0, page
                page = []
    yield 0, page
