"""Recording what clients sent: accounts and orders, all of a group or none.

An order is recorded together with an update of its account's head, which counts the accepted
orders and holds the newest id. The head's condition does three things at once: it refuses an
account that does not exist, it makes ids increase in the order in which they are recorded
(whatever the clocks of several hosts say), and it refuses the same group a second time.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from shared.domain.order import Order
from shared.order_store import items, keys
from shared.order_store.errors import UnreadableItem
from shared.order_store.expressions import update_action
from shared.order_store.gateway import Gateway, Reason, TransactionCancelled
from shared.order_store.keys import EXPIRES_AT, PK
from shared.order_store.records import AcceptedOrder, IdempotencyClaim, OpenedAccount, Remembered

IDEMPOTENCY_LIFE: Final = timedelta(hours=24)
ACTIONS_PER_ORDER_MAX: Final = 3
"""The order, its account's head, its idempotency key."""

ACTIONS_PER_ACCOUNT_MAX: Final = 3
"""The account, its head, its idempotency key."""


@dataclass(slots=True)
class AcceptRefused(Exception):
    """Nothing of the group was recorded; says which members stand in the way and why.

    ``remembered`` and ``impossible`` are by place in the group. A group whose ids are too small
    (``newest_ids``) can be sent again with larger ones.
    """

    unknown_accounts: set[int] = field(default_factory=set)
    newest_ids: dict[int, str] = field(default_factory=dict)
    remembered: dict[int, Remembered] = field(default_factory=dict)
    taken: set[int] = field(default_factory=set)
    impossible: dict[int, str] = field(default_factory=dict)


def record_orders(
    gateway: Gateway, orders: Sequence[AcceptedOrder], now: datetime, token: str
) -> None:
    """Record ``orders`` as pending, all or none.

    Args:
        gateway: the table.
        orders: ids of one account increase along the sequence.
        now: when idempotency keys are judged and start their 24 hours.
        token: makes a repetition within 10 minutes the same transaction.

    Raises:
        AcceptRefused: some cannot be recorded; the others can, without them.
        StoreOutcomeUnknown: the answer was lost; the same call may be made again.
        StoreUnavailable: nothing was recorded.
    """
    members: dict[int, list[int]] = {}
    for place, accepted in enumerate(orders):
        members.setdefault(accepted.order.account_id, []).append(place)
    actions = [_count(gateway, [orders[place].order for place in own]) for own in members.values()]
    places: list[int] = []
    for place, accepted in enumerate(orders):
        actions.append(_put(gateway, items.new_order_item(accepted.order)))
        places.append(place)
        if accepted.claim:
            actions.append(_claim(gateway, accepted.claim, accepted.order.id, now))
            places.append(place)
    try:
        gateway.transact(actions, token)
    except TransactionCancelled as cancelled:
        raise _refusal(cancelled.refused, places, members) from cancelled


def allocate_account_ids(gateway: Gateway, count: int) -> range:
    """Take ``count`` account ids that nobody else gets; a lost answer only leaves a gap.

    Raises:
        StoreUnavailable: no ids were given.
    """
    attributes = gateway.update(
        Key=keys.counter_key(),
        UpdateExpression="ADD #newest :count",
        ExpressionAttributeNames={"#newest": "newest"},
        ExpressionAttributeValues={":count": items.number(count)},
        ReturnValues="UPDATED_NEW",
    )
    newest = int(attributes["newest"]["N"])
    return range(newest - count + 1, newest + 1)


def record_accounts(
    gateway: Gateway, accounts: Sequence[OpenedAccount], now: datetime, token: str
) -> None:
    """Record new accounts, all or none; raises as ``record_orders``.

    An account that stands there already with its own ``mark`` was recorded by an earlier call
    whose answer was lost: that is success for the whole group, which is recorded as one.
    """
    actions: list[dict[str, Any]] = []
    places: list[int] = []
    for place, opened in enumerate(accounts):
        own = [
            _put(gateway, items.new_account_item(opened.account, opened.mark)),
            _put(gateway, items.new_head_item(opened.account.id)),
        ]
        if opened.claim:
            own.append(_claim(gateway, opened.claim, str(opened.account.id), now))
        actions += own
        places += [place] * len(own)
    try:
        gateway.transact(actions, token)
    except TransactionCancelled as cancelled:
        marks = [opened.mark for opened in accounts]
        if _is_own_repetition(cancelled.refused, places, marks):
            return
        raise _refusal(cancelled.refused, places, {}) from cancelled


def _count(gateway: Gateway, orders: Sequence[Order]) -> dict[str, Any]:
    """The update of the head of the account whose ``orders`` these are."""
    return {
        "Update": update_action(
            gateway.table_name,
            keys.head_key(orders[0].account_id),
            set_={"newest": items.text(orders[-1].id)},
            add={"accepted": items.number(len(orders))},
            condition="#newest < :first",
            condition_values={":first": items.text(orders[0].id)},
        )
    }


def _put(gateway: Gateway, item: keys.Item) -> dict[str, Any]:
    return {
        "Put": {
            "TableName": gateway.table_name,
            "Item": item,
            "ConditionExpression": "attribute_not_exists(#pk)",
            "ExpressionAttributeNames": {"#pk": PK},
            "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
        }
    }


def _claim(gateway: Gateway, claim: IdempotencyClaim, result: str, now: datetime) -> dict[str, Any]:
    expires_at = int((now + IDEMPOTENCY_LIFE).timestamp())
    return {
        "Put": {
            "TableName": gateway.table_name,
            "Item": items.idempotency_item(claim, result, expires_at),
            # TTL deletes late, so an expired key that still stands there counts as gone.
            "ConditionExpression": "attribute_not_exists(#pk) OR #expires_at <= :now",
            "ExpressionAttributeNames": {"#pk": PK, "#expires_at": EXPIRES_AT},
            "ExpressionAttributeValues": {":now": items.number(int(now.timestamp()))},
            "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
        }
    }


def _refusal(
    refused: Mapping[int, Reason],
    places: Sequence[int],
    members: Mapping[int, Sequence[int]],
) -> AcceptRefused:
    """Sort the refused actions: first the heads, by account; then the rest, by member.

    ``members`` are the places of each account's orders, in the sequence of the heads' actions.
    """
    refusal = AcceptRefused()
    heads = list(members)
    for number, reason in refused.items():
        own = members[heads[number]] if number < len(heads) else [places[number - len(heads)]]
        if not reason.is_condition:
            refusal.impossible.update(dict.fromkeys(own, reason.code))
            continue
        try:
            if number < len(heads):
                _sort_head(refusal, heads[number], reason)
            else:
                _sort_member(refusal, own[0], reason)
        except UnreadableItem as error:
            refusal.impossible.update(dict.fromkeys(own, str(error)))
    return refusal


def _sort_head(refusal: AcceptRefused, account_id: int, reason: Reason) -> None:
    if reason.item is None:
        refusal.unknown_accounts.add(account_id)
    else:
        refusal.newest_ids[account_id] = items.read_head(reason.item).newest


def _sort_member(refusal: AcceptRefused, place: int, reason: Reason) -> None:
    if reason.item and keys.is_idempotency(reason.item):
        refusal.remembered[place] = items.read_remembered(reason.item)
    else:
        refusal.taken.add(place)


def _is_own_repetition(
    refused: Mapping[int, Reason], places: Sequence[int], marks: Sequence[str]
) -> bool:
    return any(
        reason.item is not None and reason.item.get("mark") == items.text(marks[places[number]])
        for number, reason in refused.items()
    )
