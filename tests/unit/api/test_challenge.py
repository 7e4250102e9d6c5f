"""The contract of the challenge that this service descends from, as its collection sends it."""

from typing import Any

import pytest

from tests.unit.api.parts import Api, json_of, order_body, pointers_of
from tests.unit.factories import NOON, make_settler

FORM = "application/x-www-form-urlencoded"
PART = b"--b\r\nContent-Disposition: form-data; name=%s\r\n\r\n%s\r\n--b--\r\n"


def form(**changes: Any) -> dict[str, str]:
    return {name: str(value) for name, value in order_body(**changes).items()}


@pytest.mark.parametrize("body", [{"data": {"cash": "1000"}}, {"json": {"cash": 1000}}])
def test_an_account_is_opened_with_cash(api: Api, body: dict[str, Any]) -> None:
    answer = api.http.post("/accounts", **body)
    assert answer.status_code == 201
    assert json_of(answer) == {"id": 1, "cash": "1000", "issuers": []}
    assert answer.headers["Location"] == "/accounts/1"


@pytest.mark.parametrize("operation", ["buy", "BUY", "Buy"])
@pytest.mark.parametrize("name", ["data", "json", "multipart"])
def test_an_order_is_sent_as_a_form_or_as_json_in_any_case(
    api: Api, operation: str, name: str
) -> None:
    account_id = api.open_account()
    if name == "multipart":
        body: dict[str, Any] = {
            "data": form(operation=operation),
            "content_type": "multipart/form-data",
        }
    else:
        body = {name: form(operation=operation)}

    answer = api.http.post(f"/accounts/{account_id}/orders", **body)

    assert answer.status_code == 202
    order = json_of(answer)
    assert (order["operation"], order["total_shares"], order["share_price"]) == ("BUY", 2, "80.5")
    assert order["timestamp"] == int(NOON.timestamp())


def test_a_whole_session_of_forms_ends_with_the_right_balance(api: Api) -> None:
    account_id = json_of(api.http.post("/accounts", data={"cash": "1000"}))["id"]
    path = f"/accounts/{account_id}/orders"
    for changes in (
        {"operation": "buy", "total_shares": 2, "share_price": "80"},
        {"operation": "sell", "total_shares": 1, "share_price": "90"},
        {"operation": "sell", "total_shares": 50, "share_price": "90"},
    ):
        placed = api.http.post(path, data=form(**changes))
        assert placed.status_code == 202
        make_settler(api.gateway).settle([(account_id, json_of(placed)["id"])])

    assert json_of(api.get(f"/accounts/{account_id}")) == {
        "id": account_id,
        "cash": "930",
        "issuers": [{"issuer_name": "AAPL", "total_shares": 1, "share_price": "90"}],
    }
    listed = json_of(api.get(path))["orders"]
    assert [order["business_errors"] for order in listed] == [["INSUFFICIENT_STOCKS"], [], []]


def test_a_form_without_fields_is_told_all_that_is_missing(api: Api) -> None:
    account_id = api.open_account()
    assert pointers_of(api.http.post("/accounts", data="", content_type=FORM)) == ["/cash"]
    empty = api.http.post(f"/accounts/{account_id}/orders", data="", content_type=FORM)
    assert set(pointers_of(empty)) == {f"/{name}" for name in order_body()}


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"issuer_name=A%FF", FORM),
        (b"issuer_name=A\xff", FORM),
        (PART % (b'"cash"', b"1\xff"), "multipart/form-data; boundary=b"),
        (PART % (b'"cash"; filename="f"', b"1"), "multipart/form-data; boundary=b"),
    ],
)
def test_a_form_that_is_no_utf_8_or_has_files_is_refused(
    api: Api, body: bytes, content_type: str
) -> None:
    answer = api.http.post("/accounts", data=body, content_type=content_type)
    assert (answer.status_code, json_of(answer)["code"]) == (400, "MALFORMED_BODY")


def test_a_form_s_key_makes_it_repeatable(api: Api) -> None:
    account_id = api.open_account()
    path, headers = f"/accounts/{account_id}/orders", {"Idempotency-Key": "k"}
    first = api.http.post(path, data=form(), headers=headers)
    again = api.http.post(path, json=order_body(), headers=headers)
    assert (again.data, again.headers["Idempotent-Replayed"]) == (first.data, "true")
