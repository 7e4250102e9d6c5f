"""The page's modules by themselves, in the browser that runs them."""

from typing import Any

import pytest

from tests.browser.person import Person

pytestmark = [pytest.mark.browser, pytest.mark.timeout(60)]


def call(person: Person, module: str, expression: str, *arguments: Any) -> Any:
    person.go()
    script = (
        f"async (given) => {{ const m = await import('/web/{module}');"
        f" return ({expression})(...given); }}"
    )
    return person.page.evaluate(script, list(arguments))


def test_amounts_are_exact_to_the_last_digit(person: Person) -> None:
    products = [
        ("10", "50.5", "505"),
        ("3", "0.1", "0.3"),
        ("1000000000000", "999999999999.99999999", "999999999999999999990000"),
        ("7", ".5", "3.5"),
        ("0", "5", "0"),
        ("1e3", "5", None),
        ("", "5", None),
        (".", "5", None),
        ("0x10", "5", None),
    ]
    given = [[one, other] for one, other, _ in products]
    found = call(person, "decimal.js", "(all) => all.map(([a, b]) => m.times(a, b))", given)
    assert found == [product for *_, product in products]
    differences = call(
        person,
        "decimal.js",
        "(all) => all.map(([a, b]) => [m.minus(a, b), m.isLess(a, b)])",
        [["1000", "505"], ["0.3", "0.30000001"], ["5", "5.0"]],
    )
    assert differences == [["495", False], ["-0.00000001", True], ["0", False]]
    groups = call(
        person,
        "decimal.js",
        "(all) => all.map(m.groups)",
        ["1000", "12345", "-1234567.12345678", "999999", "odd"],
    )
    assert groups == [
        ["1000"],
        ["12", "345"],
        ["-1", "234", "567.12345678"],
        ["999", "999"],
        ["odd"],
    ]


STREAM = (
    "retry: 2000\nid: A\n\n"
    ":\n\n"
    "id: B\r\nevent: order\r\ndata: {\r\ndata: }\r\n\r\n"
    "data:no blank\n\n"
    "event: nothing\n\n"
    ": bye\n\n"
    "id: cut off"
)
EVENTS = [
    {"id": "A", "event": "message", "data": None},
    {"id": "B", "event": "order", "data": "{\n}"},
    {"id": None, "event": "message", "data": "no blank"},
]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_events_are_read_however_they_are_cut(person: Person, size: int) -> None:
    pieces = [STREAM[at : at + size] for at in range(0, len(STREAM), size)]
    read = "(all) => { const p = new m.EventParser(); return all.flatMap((one) => p.push(one)); }"
    assert call(person, "events.js", read, pieces) == EVENTS


def test_each_rule_is_told_in_words(person: Person) -> None:
    order = {
        "operation": "SELL",
        "issuer_name": "GBM",
        "total_shares": 7,
        "share_price": "2.5",
        "timestamp": 1772474400,
        "received_at": "2026-03-02T18:00:00.000000Z",
        "business_errors": ["INSUFFICIENT_STOCKS", "CLOSED_MARKET", "NEW_RULE"],
        "current_balance": {"cash": "1", "issuers": []},
    }
    said = call(person, "words.js", "m.reasonsOf", order)
    assert said == [
        "Not enough shares: the order sells 7, the account holds 0.",
        "The market was closed when the order was given or when it came in.",
        "Refused by the service: NEW_RULE.",
    ]
    late = order | {"business_errors": ["INVALID_OPERATION"], "timestamp": 1772474400 - 90}
    assert (
        "its time is 90 s behind the service's" in call(person, "words.js", "m.reasonsOf", late)[0]
    )
    parked = {"status": "failed", "failure": "It makes no sense."}
    assert call(person, "words.js", "m.reasonsOf", parked) == [
        "It could not be decided; an operator will look at it. It makes no sense."
    ]
    assert call(person, "words.js", "m.describe", parked) == "an order that cannot be read"
