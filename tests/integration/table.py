"""Looks into the table itself, for what the API does not show."""

from shared.order_store import reads
from shared.order_store.gateway import Gateway
from shared.order_store.records import RecordedAccount, RecordedOrder
from tests.stack import Stack


def gateway(stack: Stack) -> Gateway:
    """A gateway to the stack's table."""
    return Gateway(stack.dynamodb, stack.table_name)


def recorded_orders(stack: Stack, account_id: int) -> list[RecordedOrder]:
    """All orders of an account, oldest first."""
    found: list[RecordedOrder] = []
    before: str | None = None
    while True:
        page, before = reads.list_orders(gateway(stack), account_id, 200, before)
        found += [order for order in page if isinstance(order, RecordedOrder)]
        if before is None:
            return found[::-1]


def sequences(stack: Stack, account_id: int) -> dict[str, int]:
    """The place in the account's decisions of each decided order, by its id."""
    return {
        order.order.id: order.sequence
        for order in recorded_orders(stack, account_id)
        if order.sequence is not None
    }


def recorded_account(stack: Stack, account_id: int) -> RecordedAccount:
    found = reads.load_account(gateway(stack), account_id)
    assert found is not None
    return found


def accepted_count(stack: Stack, account_id: int) -> int:
    """How many orders the account's head counts."""
    return reads.load_for_settlement(gateway(stack), [account_id], []).heads[account_id].accepted
