"""What clients wanted with their POSTs, and what they were answered, as the judge takes it."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from tests.chaos import books
from tests.chaos.history import BULK, OPEN, PLACE, Call, lines_of
from tests.chaos.table import OrderRow

MADE = {OPEN: 201, PLACE: 202}
_WAITED_FOR = 200
_MAY_BE_RECORDED = "may or may not"
"""A 503 that does not say so promises that nothing was recorded."""

_NOT_NOW = {
    409: frozenset({"IDEMPOTENCY_KEY_IN_FLIGHT"}),
    503: frozenset({"STORE_UNAVAILABLE", "OVERLOADED"}),
}
"""Answers that are no definite ones, and their codes."""

Content = tuple[int, str, str, int, Decimal, int]
"""Account, operation, issuer, shares, price, timestamp in microseconds."""


@dataclass(slots=True)
class Request:
    """What a client wanted with one POST, and all the calls that it took."""

    name: str
    op: str
    account: int | None
    key: str | None
    sent: str
    calls: list[Call] = field(default_factory=list)

    @property
    def answers(self) -> list[Call]:
        """The calls that were answered with success, in the sequence of their answers."""
        made = [call for call in self.calls if self.is_made(call)]
        return sorted(made, key=lambda call: call.end)

    @property
    def first_start(self) -> float:
        return min(call.start for call in self.calls)

    @property
    def is_open(self) -> bool:
        """Whether no call got a definite answer."""
        return not self.answers and any(is_indefinite(call) for call in self.calls)

    @property
    def may_be_recorded(self) -> bool:
        """Whether a call's outcome is unknown and no other one tells it."""
        return not self.answers and any(is_outcome_unknown(call) for call in self.calls)

    def is_made(self, call: Call) -> bool:
        """Whether ``call`` was told what the request made."""
        return call.status == MADE[self.op] or self.is_waited_for(call)

    def is_waited_for(self, call: Call) -> bool:
        """Whether ``call`` was told the outcome, as it had asked for."""
        return self.op == PLACE and call.status == _WAITED_FOR and bool(call.wait)


@dataclass(frozen=True, slots=True)
class Accepted:
    """An order that a client was promised: when it was first asked for, and first answered."""

    request: Request
    asked_at: float
    answered_at: float
    content: Content
    received_at: str | None


def each_post(call: Call) -> list[Call]:
    """The POSTs of single things that a call is made of; none where it is no POST."""
    if call.op == BULK:
        return lines_of(call)
    return [call] if call.op in MADE else []


def is_indefinite(call: Call) -> bool:
    """No answer, or one that asks to try again."""
    if call.status is None:
        return True
    if call.status == 409 and call.key is None:
        return False
    codes = _NOT_NOW.get(call.status)
    return codes is not None and code_of(call) in codes


def code_of(call: Call) -> str | None:
    """The code of a problem document; None where the body is none."""
    try:
        told = read_json(call.body)
    except ValueError:
        return None
    return told.get("code") if isinstance(told, dict) else None


def is_outcome_unknown(call: Call) -> bool:
    """No answer, or one that does not say that nothing was recorded."""
    return is_indefinite(call) and (call.status != 503 or _MAY_BE_RECORDED in (call.body or ""))


def wrong_shape(call: Call) -> Iterator[str]:
    """What is wrong with the answer to a bulk request, beside what its lines say."""
    if call.status != 200:
        return
    numbers = [json.loads(text)["line"] for text in (call.body or "").splitlines()]
    wanted = list(range(1, len((call.sent or "").splitlines()) + 1))
    if numbers != wanted:
        yield f"{call.request}: answers to the lines {numbers}, not to {wanted}"


def out_of_line(call: Call) -> Iterator[str]:
    """Lines of one account that a bulk request made in another sequence than theirs."""
    newest: dict[int | None, str] = {}
    for line in lines_of(call):
        if line.status != MADE[PLACE] or line.replayed:
            continue
        order = read_json(line.body)["id"]
        if order <= newest.get(line.account, ""):
            yield f"{line.request}: {order} after {newest[line.account]}"
        newest[line.account] = order


def wrong_pledge(made: dict[str, Any]) -> bool:
    """Whether an acceptance says more than that the order is recorded."""
    told = (made["status"], made["decided_at"], made["business_errors"], made["current_balance"])
    return told != ("pending", None, [], None) or "failure" in made


def wrong_opening(made: dict[str, Any], cash: Decimal) -> bool:
    """Whether a new account is told to hold anything but the cash that was asked for."""
    told = made.get("cash")
    return told is None or Decimal(str(told)) != cash or made.get("issuers") != []


def content_asked(request: Request) -> Content:
    """What a client asked for."""
    asked = read_json(request.sent)
    return (
        request.account or 0,
        asked["operation"],
        asked["issuer_name"],
        asked["total_shares"],
        Decimal(str(asked["share_price"])),
        int(Decimal(str(asked["timestamp"])) * 1_000_000),
    )


def content_shown(made: dict[str, Any]) -> Content:
    """What an answer says of an order's content."""
    return (
        made["account_id"],
        made["operation"],
        made["issuer_name"],
        made["total_shares"],
        Decimal(made["share_price"]),
        round(Decimal(str(made["timestamp"])) * 1_000_000),
    )


def content_of(row: OrderRow) -> Content:
    """What the table holds."""
    at = books.microseconds(row.timestamp)
    return row.account, row.operation, row.issuer_name, row.total_shares, row.share_price, at


def read_json(text: str | None) -> Any:
    """JSON with exact numbers; None for nothing."""
    return json.loads(text or "null", parse_float=Decimal)
