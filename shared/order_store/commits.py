"""Committing decisions: an account's new state and its decided orders, all or none.

The condition on the account's ``decided`` count (its version) is what makes every decision take
effect once: whoever decided on an older state is refused and has to look again.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final
from uuid import uuid4

from shared.domain.account import Account
from shared.domain.decision import Decision
from shared.domain.order import (
    ISSUER_NAME_BYTES_MAX,
    OperationKey,
    OrderStatus,
)
from shared.order_store import items, keys
from shared.order_store.errors import StoreRefused
from shared.order_store.expressions import update_action
from shared.order_store.gateway import (
    TRANSACTION_ACTIONS_MAX,
    TRANSACTION_BYTES_MAX,
    Gateway,
    TransactionCancelled,
)
from shared.order_store.keys import PARKED_SHARD, SHARD
from shared.order_store.records import Balance, DecidedOrder, RecordedAccount, Settlement

RECENT_INLINE_MAX: Final = 256
"""Executed operations in the account's own item; more are written apart, one item each."""

BALANCE_POSITIONS_MAX: Final = 100
"""Positions copied into a decided order; an account with more shows the traded one alone."""

SETTLEMENT_ORDERS_MAX: Final = TRANSACTION_ACTIONS_MAX - 1
"""Orders of one account in one transaction, beside the account itself."""

SETTLEMENT_ORDERS_MAX_APART: Final = SETTLEMENT_ORDERS_MAX // 2
"""The same when each executed operation may need an item of its own."""

FAILURE_LENGTH_MAX: Final = 500
"""Characters kept of the reason why an order was parked."""

# Upper bounds of what one entry adds to an item, names and types included.
_POSITION_BYTES: Final = ISSUER_NAME_BYTES_MAX + 48
_RECENT_BYTES: Final = 2 * ISSUER_NAME_BYTES_MAX + 80  # a quote is escaped in JSON
_ACCOUNT_BYTES: Final = 1024
_ORDER_BYTES: Final = 3072

# Nobody decides an order twice: every write to one asks for this.
_IS_PENDING: Final = "#status = :pending"
_PENDING: Final = {":pending": items.text(OrderStatus.PENDING)}

_IS_VERSION: Final = "#decided = :version"

# What is read as ``:before``: a damaged count is none, one between two numbers is the larger.
_IS_COUNT: Final = "#attempts <= :before AND #attempts > :less"
_IS_NO_COUNT: Final = (
    "( attribute_not_exists(#attempts) OR NOT attribute_type(#attempts, :number)"
    " OR #attempts <= :before )"
)


class CommitConflict(Exception):
    """Nothing was committed: these accounts (or their orders) changed since they were read."""

    def __init__(self, account_ids: set[int]) -> None:
        """Keep the accounts to be read again."""
        super().__init__(f"accounts {sorted(account_ids)} changed meanwhile")
        self.account_ids = account_ids


def orders_per_settlement(before_inline: int, is_overflowing: bool) -> int:
    """How many orders of one account fit into one transaction whatever is decided."""
    has_room = before_inline + SETTLEMENT_ORDERS_MAX <= RECENT_INLINE_MAX
    if has_room and not is_overflowing:
        return SETTLEMENT_ORDERS_MAX
    return SETTLEMENT_ORDERS_MAX_APART


def pack(settlements: Sequence[Settlement]) -> Iterator[list[Settlement]]:
    """Cut ``settlements`` into transactions that keep DynamoDB's 100 actions and 4 MB."""
    packed: list[Settlement] = []
    actions = size = 0
    for settlement in settlements:
        own_actions, own_size = _actions_of(settlement), _bytes_of(settlement)
        too_many = actions + own_actions > TRANSACTION_ACTIONS_MAX
        if packed and (too_many or size + own_size > TRANSACTION_BYTES_MAX):
            yield packed
            packed, actions, size = [], 0, 0
        packed.append(settlement)
        actions += own_actions
        size += own_size
    if packed:
        yield packed


def commit(gateway: Gateway, settlements: Sequence[Settlement], token: str) -> None:
    """Commit ``settlements`` of different accounts in one transaction.

    Raises:
        CommitConflict: some accounts changed since they were read; nothing was committed.
        StoreRefused: DynamoDB calls an action invalid; nothing was committed.
        StoreOutcomeUnknown: the answer was lost; read again to see what was committed.
        StoreUnavailable: nothing was committed.
    """
    actions: list[dict[str, Any]] = []
    owners: list[int] = []
    for settlement in settlements:
        own = list(_settle(gateway.table_name, settlement))
        actions += own
        owners += [settlement.before.account.id] * len(own)
    try:
        gateway.transact(actions, token)
    except TransactionCancelled as cancelled:
        invalid = {n: r for n, r in cancelled.refused.items() if not r.is_condition}
        if invalid:
            raise StoreRefused(
                f"accounts {[owners[n] for n in invalid]}: {cancelled}"
            ) from cancelled
        raise CommitConflict({owners[number] for number in cancelled.refused}) from cancelled


def count_attempt(gateway: Gateway, account_id: int, order_id: str, seen: int) -> bool:
    """Note, before it is tried, that an order that was lost once is decided again.

    ``seen`` is the count as it was read: a repetition of this call does not count twice.
    Returns False if the order is decided already, or was counted by somebody else.

    Raises:
        StoreUnavailable: not noted, as far as is known.
    """
    return _set_attempts(gateway, account_id, order_id, seen, seen + 1)


def forgive_attempt(gateway: Gateway, account_id: int, order_id: str, seen: int) -> bool:
    """Take back ``count_attempt(..., seen)``: what failed was the store, not the order."""
    return _set_attempts(gateway, account_id, order_id, seen + 1, seen)


def park_unreadable_account(
    gateway: Gateway, account_id: int, order_id: str, decided_at: datetime, failure: str
) -> bool:
    """Park an order whose account cannot be read; the account is left alone for its repair.

    The order gets no place in the sequence. So it is taken out of the accepted ones: accepted less
    decided stays the number of undecided orders. Where the head is gone or damaged too, the order
    is parked alone, and the head's repair has to count anew.

    Returns False if the order is decided already.

    Raises:
        StoreRefused: DynamoDB calls the update invalid.
        StoreUnavailable: not parked, as far as is known.
    """
    order = update_action(
        gateway.table_name,
        keys.order_key(account_id, order_id),
        set_={
            "status": items.text(OrderStatus.FAILED),
            "decided_at": items.instant(decided_at),
            "failure": items.text(failure[:FAILURE_LENGTH_MAX]),
            SHARD: items.text(PARKED_SHARD),
        },
        condition=_IS_PENDING,
        condition_values=_PENDING,
    )
    head = update_action(
        gateway.table_name,
        keys.head_key(account_id),
        set_={},
        add={"accepted": items.number(-1)},
        condition="#accepted >= :one",
        condition_values={":one": items.number(1)},
    )
    try:
        gateway.transact([{"Update": order}, {"Update": head}], token=str(uuid4()))
    except TransactionCancelled as cancelled:
        reason = cancelled.refused.get(0)  # the order's own action
        if reason is not None and reason.is_condition:
            return False
        is_counted = False
    except StoreRefused:
        # Some engines refuse the whole transaction for a damaged head.
        is_counted = False
    else:
        is_counted = True
    return is_counted or _update(gateway, order)


def cancel_pending(
    gateway: Gateway, before: RecordedAccount, order_id: str, decided_at: datetime
) -> None:
    """Cancel a pending order as its account's next decision; the order's item may be damaged.

    ``decided_through`` stays: orders before this one may be undecided still.

    Raises:
        CommitConflict: the account or the order changed since they were read.
        StoreRefused: DynamoDB calls an action invalid; nothing was written.
        StoreOutcomeUnknown: the answer was lost; read again to see what was written.
        StoreUnavailable: nothing was written.
    """
    account = before.account
    decision = Decision(OrderStatus.CANCELLED, (), account.cash, account.positions)
    count = update_action(
        gateway.table_name,
        keys.account_key(account.id),
        set_={
            "decided": items.number(before.decided + 1),
            "cancelled_newest": items.text(max(before.cancelled_newest, order_id)),
        },
        condition=_IS_VERSION,
        condition_values={":version": items.number(before.decided)},
    )
    order = update_action(
        gateway.table_name,
        keys.order_key(account.id, order_id),
        set_=_decision_of(decision, None, decided_at, before.decided + 1),
        remove=[SHARD],
        condition=_IS_PENDING,
        condition_values=_PENDING,
    )
    try:
        gateway.transact([{"Update": count}, {"Update": order}], token=str(uuid4()))
    except TransactionCancelled as cancelled:
        refuse_invalid(cancelled)
        raise CommitConflict({account.id}) from cancelled


def refuse_invalid(cancelled: TransactionCancelled) -> None:
    """Let pass what was cancelled by conditions alone.

    Raises:
        StoreRefused: DynamoDB calls an action invalid.
    """
    if any(not reason.is_condition for reason in cancelled.refused.values()):
        raise StoreRefused(str(cancelled)) from cancelled


def balance_after(decision: Decision, issuer_name: str | None) -> Balance:
    """What an order's item shall say of the account: all positions, or the traded one if many."""
    if len(decision.positions) <= BALANCE_POSITIONS_MAX:
        return Balance(decision.cash, decision.positions)
    traded = decision.positions.get(issuer_name) if issuer_name else None
    shown = {issuer_name: traded} if issuer_name and traded else {}
    return Balance(decision.cash, shown, complete=False)


def _settle(table_name: str, settlement: Settlement) -> Iterator[dict[str, Any]]:
    inline, apart = _place_recent(settlement)
    yield {"Update": _account_update(table_name, settlement, inline, apart)}
    first = settlement.before.decided + 1
    for sequence, decided in enumerate(settlement.decided, start=first):
        yield {"Update": _order_update(table_name, settlement, decided, sequence)}
    for operation, at in apart.items():
        item = items.recent_item(settlement.after.id, operation, at)
        yield {"Put": {"TableName": table_name, "Item": item}}


def _account_update(
    table_name: str,
    settlement: Settlement,
    inline: Mapping[OperationKey, datetime],
    apart: Mapping[OperationKey, datetime],
) -> dict[str, Any]:
    before, after = settlement.before, settlement.after
    newest = max(decided.order_id for decided in settlement.decided)
    changes: dict[str, dict[str, Any]] = {
        "decided": items.number(before.decided + len(settlement.decided)),
        "decided_through": items.text(max(before.decided_through, newest)),
    }
    if after is not before.account:
        changes |= _state(after)
        changes["recent"] = items.write_recent(inline)
    if apart:
        until = max(apart.values())
        overflow = before.overflow_until
        changes["overflow_until"] = items.instant(max(until, overflow) if overflow else until)
    return update_action(
        table_name,
        keys.account_key(after.id),
        set_=changes,
        condition=_IS_VERSION,
        condition_values={":version": items.number(before.decided)},
    )


def _state(account: Account) -> dict[str, dict[str, Any]]:
    state = {
        "cash": items.number(account.cash),
        "positions": items.write_positions(account.positions),
    }
    if account.last_executed_at is not None:
        state["last_executed_at"] = items.instant(account.last_executed_at)
    return state


def _order_update(
    table_name: str, settlement: Settlement, decided: DecidedOrder, sequence: int
) -> dict[str, Any]:
    decision = decided.decision
    issuer_name = decided.order.issuer_name if decided.order else None
    changes = _decision_of(decision, issuer_name, settlement.decided_at, sequence)
    changes["rules"] = items.text(settlement.rules)
    if decision.business_errors:
        changes["business_errors"] = {"L": [items.text(code) for code in decision.business_errors]}
    if decided.failure is not None:
        changes["failure"] = items.text(decided.failure[:FAILURE_LENGTH_MAX])
    is_parked = decision.status is OrderStatus.FAILED
    if is_parked:
        changes[SHARD] = items.text(PARKED_SHARD)
    return update_action(
        table_name,
        keys.order_key(decided.account_id, decided.order_id),
        set_=changes,
        remove=() if is_parked else [SHARD],
        condition=_IS_PENDING,
        condition_values=_PENDING,
    )


def _decision_of(
    decision: Decision, issuer_name: str | None, decided_at: datetime, sequence: int
) -> dict[str, dict[str, Any]]:
    """The attributes that every decided order has."""
    return {
        "status": items.text(decision.status),
        "decided_at": items.instant(decided_at),
        "sequence": items.number(sequence),
        "balance": items.write_balance(balance_after(decision, issuer_name)),
    }


def _place_recent(
    settlement: Settlement,
) -> tuple[dict[OperationKey, datetime], dict[OperationKey, datetime]]:
    """Sort the executed operations: into the account's item while there is room, else apart."""
    known = settlement.before.account.recent
    after = settlement.after.recent
    inline = {key: after[key] for key in settlement.before.inline if key in after}
    apart: dict[OperationKey, datetime] = {}
    for key, at in after.items():
        if key in inline or known.get(key) == at:
            continue
        (inline if len(inline) < RECENT_INLINE_MAX else apart)[key] = at
    return inline, apart


def _actions_of(settlement: Settlement) -> int:
    _, apart = _place_recent(settlement)
    return 1 + len(settlement.decided) + len(apart)


def _bytes_of(settlement: Settlement) -> int:
    """An upper bound: counting the bytes themselves would cost more than it saves."""
    positions = max(len(settlement.after.positions), len(settlement.before.account.positions))
    account = (
        _ACCOUNT_BYTES + positions * _POSITION_BYTES + len(settlement.after.recent) * _RECENT_BYTES
    )
    copied = min(positions, BALANCE_POSITIONS_MAX) * _POSITION_BYTES
    return account + len(settlement.decided) * (_ORDER_BYTES + copied)


def _set_attempts(
    gateway: Gateway, account_id: int, order_id: str, before: int, after: int
) -> bool:
    if before == 0:
        is_count, values = _IS_NO_COUNT, {":number": items.text("N")}
    else:
        is_count, values = _IS_COUNT, {":less": items.number(before - 1)}
    action = update_action(
        gateway.table_name,
        keys.order_key(account_id, order_id),
        set_={"attempts": items.number(after)},
        condition=f"{_IS_PENDING} AND {is_count}",
        condition_values={**_PENDING, ":before": items.number(before), **values},
    )
    return _update(gateway, action)


def _update(gateway: Gateway, action: dict[str, Any]) -> bool:
    arguments = {name: value for name, value in action.items() if name != "TableName"}
    try:
        gateway.update(**arguments)
    except TransactionCancelled:
        return False
    return True
