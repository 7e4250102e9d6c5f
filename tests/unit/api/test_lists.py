"""Lists of orders: pages, filters, cursors that are good for one list alone."""

import base64
import re
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.cursors import read_cursor, write_cursor
from shared.domain.order import OrderStatus
from shared.order_store import commits, parking, reads
from tests.unit.api.parts import Api, json_of, order_body, pointers_of
from tests.unit.factories import STEADY, make_settler, order_id

EXECUTED = frozenset({OrderStatus.EXECUTED})


@pytest.fixture(name="account_id")
def _account_id(api: Api) -> int:
    return api.open_account()


def path_of(account_id: int, query: str = "") -> str:
    return f"/v1/accounts/{account_id}/orders{query}"


def place(api: Api, account_id: int, number: int, **changes: Any) -> str:
    body = order_body(total_shares=number, share_price="0.01", **changes)
    answer = api.post(path_of(account_id), body)
    assert answer.status_code == 202, answer.text
    return str(json_of(answer)["id"])


def settle(api: Api, account_id: int, order_ids: list[str]) -> None:
    refs = [(account_id, order_id) for order_id in order_ids]
    assert make_settler(api.gateway).settle(refs) == []


def pages(api: Api, path: str) -> list[list[str]]:
    """Ids of each page, as a client meets them who follows the cursors."""
    found = []
    cursor = ""
    joint = "&" if "?" in path else "?"
    for _ in range(50):
        shown = json_of(api.get(path + cursor))
        found.append([order["id"] for order in shown["orders"]])
        if shown["next_cursor"] is None:
            return found
        cursor = f"{joint}cursor={shown['next_cursor']}"
    raise AssertionError("a list without an end")


def flat(found: list[list[str]]) -> list[str]:
    return [one for page in found for one in page]


def mixed(api: Api, account_id: int) -> dict[str, list[str]]:
    """Three orders of each status, newest first."""
    found: dict[str, list[str]] = {status: [] for status in OrderStatus}
    for number in range(1, 4):
        executed = place(api, account_id, number)
        rejected = place(api, account_id, number, operation="SELL", issuer_name="NONE")
        settle(api, account_id, [executed, rejected])
        failed = place(api, account_id, number + 10)
        assert commits.park_unreadable_account(api.gateway, account_id, failed, api.clock(), "x")
        cancelled = place(api, account_id, number + 20)
        parking.cancel(api.gateway, (account_id, cancelled), api.clock)
        for status, placed in zip(
            ("executed", "rejected", "failed", "cancelled"),
            (executed, rejected, failed, cancelled),
            strict=True,
        ):
            found[status].insert(0, placed)
    for number in range(31, 34):
        found["pending"].insert(0, place(api, account_id, number))
    return found


# Pages


@pytest.mark.parametrize(("orders", "sizes"), [(1, [1]), (2, [2]), (3, [2, 1]), (4, [2, 2])])
def test_a_last_page_that_is_full_names_no_next_one(
    api: Api, account_id: int, orders: int, sizes: list[int]
) -> None:
    placed = [place(api, account_id, number) for number in range(1, orders + 1)]
    found = pages(api, path_of(account_id, "?limit=2"))
    assert [len(page) for page in found] == sizes
    assert flat(found) == placed[::-1]


def test_the_next_page_has_a_link(api: Api, account_id: int) -> None:
    placed = [place(api, account_id, number) for number in range(1, 4)]
    first = api.get(path_of(account_id, "?limit=2&status=pending,executed&other=x"))
    link = re.fullmatch(r'<([^>]*)>; rel="next"', first.headers["Link"])
    assert link
    query = parse_qs(urlsplit(link[1]).query)
    assert query == {
        "limit": ["2"],
        "status": ["pending,executed"],
        "cursor": [json_of(first)["next_cursor"]],
    }
    second = api.get(link[1])
    assert [order["id"] for order in json_of(second)["orders"]] == placed[:1]
    assert json_of(second)["next_cursor"] is None
    assert "Link" not in second.headers


def test_the_link_without_a_version_stays_without_one(api: Api, account_id: int) -> None:
    for number in range(1, 3):
        place(api, account_id, number)
    links = api.get(f"/accounts/{account_id}/orders?limit=1").headers.getlist("Link")
    assert any(link.startswith(f"</accounts/{account_id}/orders?limit=1&cursor=") for link in links)


def test_orders_that_come_in_between_pages_shift_none(api: Api, account_id: int) -> None:
    placed = [place(api, account_id, number) for number in range(1, 5)]
    first = json_of(api.get(path_of(account_id, "?limit=2")))
    place(api, account_id, 5)
    cursor = first["next_cursor"]
    second = json_of(api.get(path_of(account_id, f"?limit=2&cursor={cursor}")))
    assert [order["id"] for order in second["orders"]] == placed[:2][::-1]


# Filters


def test_a_list_is_filtered_by_one_status_or_several(api: Api, account_id: int) -> None:
    placed = mixed(api, account_id)
    for status in OrderStatus:
        for limit in (1, 2, 3, 50):
            found = pages(api, path_of(account_id, f"?status={status}&limit={limit}"))
            assert flat(found) == placed[status]
            assert all(len(page) <= limit for page in found)
    several = flat(pages(api, path_of(account_id, "?limit=4&status=failed,executed,failed")))
    assert several == sorted(placed["failed"] + placed["executed"], reverse=True)
    everything = flat(pages(api, path_of(account_id, f"?status={','.join(OrderStatus)}")))
    assert everything == flat(pages(api, path_of(account_id)))
    assert len(everything) == 15


def test_a_filtered_page_looks_at_so_many_orders_and_no_more(
    api: Api, account_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reads, "FILTERED_ORDERS_MAX", 3)
    first = place(api, account_id, 1)
    settle(api, account_id, [first])
    for number in range(2, 9):
        place(api, account_id, number)

    found = pages(api, path_of(account_id, "?status=executed&limit=2"))

    assert found == [[], [], [first]]


def test_a_filtered_list_that_holds_nothing_is_empty(api: Api, account_id: int) -> None:
    place(api, account_id, 1)
    shown = json_of(api.get(path_of(account_id, "?status=failed")))
    assert shown == {"orders": [], "next_cursor": None}
    assert api.get(path_of(999, "?status=failed")).status_code == 404


@pytest.mark.parametrize(
    "status", ["", "done", "EXECUTED", "executed,", ",", "executed, rejected", "%00", "x" * 5000]
)
def test_a_status_that_is_none_is_refused(api: Api, account_id: int, status: str) -> None:
    assert pointers_of(api.get(path_of(account_id, f"?status={status}"))) == ["/status"]


# Cursors


def test_a_cursor_is_good_for_its_own_list_alone(api: Api, account_id: int) -> None:
    other = api.open_account()
    for number in range(1, 4):
        place(api, account_id, number)
    cursor = json_of(api.get(path_of(account_id, "?limit=1&status=pending")))["next_cursor"]
    own = path_of(account_id, f"?limit=2&status=pending&cursor={cursor}")
    assert len(json_of(api.get(own))["orders"]) == 2
    for path in (
        path_of(other, f"?status=pending&cursor={cursor}"),
        path_of(account_id, f"?cursor={cursor}"),
        path_of(account_id, f"?status=pending,failed&cursor={cursor}"),
    ):
        assert pointers_of(api.get(path)) == ["/cursor"]


def test_the_order_in_which_statuses_are_named_does_not_matter_to_a_cursor() -> None:
    cursor = write_cursor(order_id(1), 1, ["failed", "executed"])
    assert read_cursor(cursor, 1, ["executed", "failed"]) == order_id(1)


def test_a_cursor_is_written_in_one_way_alone() -> None:
    cursors = [write_cursor(order_id(number), 1, ()) for number in range(200)]
    for written, alias in (("-", "+"), ("_", "/")):
        one = next(cursor for cursor in cursors if written in cursor)
        with pytest.raises(ValueError, match="written otherwise"):
            read_cursor(one.replace(written, alias), 1, ())


@STEADY
@given(st.integers(0, 31), st.sampled_from("ABab01-_=+/ .\n\u00e9"))
def test_a_cursor_that_was_changed_anywhere_is_refused(place: int, other: str) -> None:
    cursor = write_cursor(order_id(7), 1, EXECUTED)
    assert len(cursor) == 32
    assert read_cursor(cursor, 1, EXECUTED) == order_id(7)
    changed = cursor[:place] + other + cursor[place + 1 :]
    if changed != cursor:
        with pytest.raises(ValueError):  # noqa: PT011 - whatever is wrong with it
            read_cursor(changed, 1, EXECUTED)


@given(
    st.text(max_size=80) | st.binary(max_size=40).map(lambda raw: base64.b64encode(raw).decode())
)
def test_no_text_is_taken_for_a_cursor_that_is_none(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - whatever is wrong with it
        read_cursor(text, 1, ())


@pytest.mark.parametrize("change", [str.lower, lambda text: text + "=", lambda text: text[:-4]])
def test_a_changed_cursor_is_refused_as_an_invalid_field(
    api: Api, account_id: int, change: Any
) -> None:
    for number in range(1, 3):
        place(api, account_id, number)
    cursor = json_of(api.get(path_of(account_id, "?limit=1")))["next_cursor"]
    assert pointers_of(api.get(path_of(account_id, f"?cursor={change(cursor)}"))) == ["/cursor"]
