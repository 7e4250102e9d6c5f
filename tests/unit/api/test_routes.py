import json
from datetime import timedelta
from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from shared.ids import ACCOUNT_DIGITS_MAX, NO_ORDER_ID, is_order_id
from shared.order_store import commits, items, keys, parking, reads
from shared.order_store.accepts import IDEMPOTENCY_LIFE
from tests.unit.api.parts import Api, json_of, order_body, pointers_of, problem_of
from tests.unit.factories import RULES, make_order, make_settlement, overwrite, stored_account

UNKNOWN_ORDER = make_order().id


@pytest.fixture(name="account_id")
def _account_id(api: Api) -> int:
    return api.open_account()


def orders_path(account_id: int) -> str:
    return f"/v1/accounts/{account_id}/orders"


def place(api: Api, account_id: int, **changes: Any) -> str:
    """Place an order and return its id."""
    answer = api.post(orders_path(account_id), order_body(**changes))
    assert answer.status_code == 202, answer.text
    order_id = json_of(answer)["id"]
    assert isinstance(order_id, str)
    return order_id


def recorded_ids(api: Api, account_id: int) -> list[str]:
    """Ids of the account's orders in the store, newest first."""
    found, _ = reads.list_orders(api.gateway, account_id, 200, None)
    return [order.id if hasattr(order, "id") else order.order.id for order in found]


def decide(api: Api, account_id: int, order_id: str) -> None:
    """Do the worker's part."""
    recorded = reads.load_order(api.gateway, account_id, order_id)
    assert recorded is not None
    assert not hasattr(recorded, "reason")
    before = stored_account(api.gateway, account_id)
    settlement = make_settlement(before, [recorded.order], rules=RULES)
    commits.commit(api.gateway, [settlement], token=order_id)


# Accounts


def test_an_opened_account_is_created_at_its_location(api: Api) -> None:
    answer = api.post("/v1/accounts", {"cash": "12.50"})
    assert answer.status_code == 201
    opened = json_of(answer)
    assert opened == {"id": 1, "cash": "12.5", "issuers": []}
    assert answer.headers["Location"] == "/v1/accounts/1"
    assert "Idempotent-Replayed" not in answer.headers
    shown = api.get(answer.headers["Location"])
    assert shown.status_code == 200
    assert json_of(shown) == opened


def test_every_account_gets_an_id_of_its_own(api: Api) -> None:
    assert len({api.open_account() for _ in range(5)}) == 5


def test_opening_an_account_tells_the_workers_nothing(api: Api) -> None:
    api.open_account()
    assert api.queue.published == []


def test_an_unknown_account_is_not_found(api: Api) -> None:
    problem_of(api.get("/v1/accounts/7"), 404, "ACCOUNT_NOT_FOUND")
    problem_of(api.get(orders_path(7)), 404, "ACCOUNT_NOT_FOUND")
    problem_of(api.post(orders_path(7), order_body()), 404, "ACCOUNT_NOT_FOUND")
    assert api.queue.published == []


@pytest.mark.parametrize(
    "written",
    [
        "9" * 18,
        "9" * 19,
        "9" * 100_000,
        "0",
        "-1",
        "1.0",
        "1e3",
        "one",
        "%20",
        "%D9%A1",  # Arabic-Indic one
        "%EF%BC%91",  # full-width one
        "%C2%B2",  # superscript two
        "%FF",
        "%00",
        "1%00",
        "1%0A",
        "..%2F1",
    ],
)
@pytest.mark.parametrize("rest", ["", "/orders", f"/orders/{UNKNOWN_ORDER}"])
def test_an_absurd_account_id_is_not_found(
    api: Api, account_id: int, written: str, rest: str
) -> None:
    problem_of(api.get(f"/v1/accounts/{written}{rest}"), 404)


def test_an_account_s_id_has_so_many_digits_and_no_more(api: Api) -> None:
    for digits, code in ((ACCOUNT_DIGITS_MAX, "ACCOUNT_NOT_FOUND"), (ACCOUNT_DIGITS_MAX + 1, None)):
        problem_of(api.get(f"/v1/accounts/{'9' * digits}"), 404, code or "NOT_FOUND")
    most = 10**ACCOUNT_DIGITS_MAX - 1
    lines = [json.dumps({**order_body(), "account_id": found}) for found in (most, most + 1)]
    answer = api.http.post(
        "/v1/orders/bulk", data="\n".join(lines), content_type="application/x-ndjson"
    )
    assert [json.loads(line)["status"] for line in answer.text.splitlines()] == [404, 422]


# Orders


def test_an_accepted_order_is_pending_at_its_location_and_announced(
    api: Api, account_id: int
) -> None:
    answer = api.post(orders_path(account_id), order_body())
    assert answer.status_code == 202
    order = json_of(answer)
    assert order["status"] == "pending"
    assert order["account_id"] == account_id
    assert is_order_id(order["id"])
    assert order["decided_at"] is None
    assert order["current_balance"] is None
    assert answer.headers["Location"] == f"{orders_path(account_id)}/{order['id']}"
    assert answer.headers["Retry-After"] == "1"
    assert "Idempotent-Replayed" not in answer.headers
    assert api.queue.published == [[(account_id, order["id"])]]
    shown = api.get(answer.headers["Location"])
    assert shown.status_code == 200
    assert shown.mimetype == "application/json"
    assert json_of(shown) == order


def test_an_order_is_decided_by_workers_alone(api: Api, account_id: int) -> None:
    place(api, account_id)
    assert json_of(api.get(f"/v1/accounts/{account_id}"))["cash"] == "1000"


def test_a_decided_order_shows_the_balance_after_it(api: Api, account_id: int) -> None:
    order_id = place(api, account_id)
    decide(api, account_id, order_id)
    shown = json_of(api.get(f"{orders_path(account_id)}/{order_id}"))
    assert shown["status"] == "executed"
    assert shown["decided_at"] == "2026-03-02T18:00:00.000000Z"
    issuers = [{"issuer_name": "AAPL", "total_shares": 2, "share_price": "80.5"}]
    assert shown["current_balance"] == {"cash": "839", "issuers": issuers}
    assert json_of(api.get(f"/v1/accounts/{account_id}")) == {
        "id": account_id,
        "cash": "839",
        "issuers": issuers,
    }


def test_a_final_order_is_read_from_the_cache_and_needs_no_store(api: Api, account_id: int) -> None:
    order_id = place(api, account_id)
    decide(api, account_id, order_id)
    path = f"{orders_path(account_id)}/{order_id}"
    first = api.get(path)
    api.store.is_down = True
    again = api.get(path)
    assert again.status_code == 200
    assert again.data == first.data


def test_a_pending_order_is_never_cached(api: Api, account_id: int) -> None:
    order_id = place(api, account_id)
    path = f"{orders_path(account_id)}/{order_id}"
    assert json_of(api.get(path))["status"] == "pending"
    decide(api, account_id, order_id)
    assert json_of(api.get(path))["status"] == "executed"


def test_a_parked_order_is_never_cached_for_it_may_be_replayed(api: Api, account_id: int) -> None:
    order_id = place(api, account_id)
    now = api.clock()
    assert commits.park_unreadable_account(api.gateway, account_id, order_id, now, "broken")
    path = f"{orders_path(account_id)}/{order_id}"
    assert json_of(api.get(path))["status"] == "failed"
    parking.replay(api.gateway, (account_id, order_id))
    assert json_of(api.get(path))["status"] == "pending"
    decide(api, account_id, order_id)
    assert json_of(api.get(path))["status"] == "executed"


def test_a_cancelled_order_is_final_and_cached(api: Api, account_id: int) -> None:
    order_id = place(api, account_id)
    parking.cancel(api.gateway, (account_id, order_id), api.clock)
    path = f"{orders_path(account_id)}/{order_id}"
    first = api.get(path)
    assert json_of(first)["status"] == "cancelled"
    assert json_of(first)["current_balance"] == {"cash": "1000", "issuers": []}
    api.store.is_down = True
    assert api.get(path).data == first.data


def test_an_order_with_a_damaged_item_is_shown_as_far_as_it_can_be_read(
    api: Api, account_id: int
) -> None:
    order_id = place(api, account_id)
    damage = items.text("many")
    overwrite(api.gateway, keys.order_key(account_id, order_id), "total_shares", damage)
    answer = api.get(f"{orders_path(account_id)}/{order_id}")
    assert answer.status_code == 200
    shown = json_of(answer)
    assert (shown["id"], shown["account_id"], shown["status"]) == (order_id, account_id, "pending")
    assert "cannot be read" in shown["failure"]
    assert json_of(api.get(orders_path(account_id)))["orders"] == [shown]


def test_a_damaged_account_is_an_internal_error_that_names_no_internals(
    api: Api, account_id: int
) -> None:
    overwrite(api.gateway, keys.account_key(account_id), "cash", items.text("much"))
    document = problem_of(api.get(f"/v1/accounts/{account_id}"), 500, "INTERNAL_ERROR")
    assert "much" not in json.dumps(document)


@pytest.mark.parametrize(
    "written",
    [
        UNKNOWN_ORDER,
        UNKNOWN_ORDER.upper(),
        NO_ORDER_ID,
        "1",
        "x" * 100_000,
        "%00",
        "%FF%FE",
        "%ED%A0%80",
        "ORDER%23" + UNKNOWN_ORDER,
        "{" + UNKNOWN_ORDER + "}",
        UNKNOWN_ORDER + "%0A",
        "%D9%A1" * 36,
    ],
)
def test_an_absurd_order_id_is_not_found(api: Api, account_id: int, written: str) -> None:
    answer = api.get(f"{orders_path(account_id)}/{written}")
    document = problem_of(answer, 404, "ORDER_NOT_FOUND")
    assert len(document["detail"]) < 200


def test_an_order_is_found_under_its_own_account_alone(api: Api, account_id: int) -> None:
    order_id = place(api, account_id)
    other = api.open_account()
    problem_of(api.get(f"{orders_path(other)}/{order_id}"), 404, "ORDER_NOT_FOUND")


def test_an_order_is_accepted_while_the_broker_is_away(api: Api, account_id: int) -> None:
    api.queue.is_down = True
    order_id = place(api, account_id)
    assert recorded_ids(api, account_id) == [order_id]


def test_ids_increase_as_orders_are_accepted_even_when_the_clock_steps_back(
    api: Api, account_id: int
) -> None:
    placed = []
    for _ in range(4):
        placed.append(place(api, account_id))
        api.clock.forward(timedelta(minutes=-1))
    assert placed == sorted(placed)
    assert len(set(placed)) == 4


# The store is away


def test_nothing_is_accepted_or_shown_while_the_store_is_away(api: Api, account_id: int) -> None:
    order_id = place(api, account_id)
    api.store.is_down = True
    for path in (
        f"/v1/accounts/{account_id}",
        orders_path(account_id),
        f"{orders_path(account_id)}/{order_id}",
    ):
        answer = api.get(path)
        problem_of(answer, 503, "STORE_UNAVAILABLE")
        assert answer.headers["Retry-After"] == "1"


def test_a_post_while_the_store_is_away_is_refused_before_its_time_is_up(make_api: Any) -> None:
    api: Api = make_api(accept_seconds_max=1.7)
    account_id = api.open_account()
    api.store.is_down = True
    for path, body in (("/v1/accounts", {"cash": 1}), (orders_path(account_id), order_body())):
        answer = api.post(path, body)
        problem_of(answer, 503, "STORE_UNAVAILABLE")
        assert answer.headers["Retry-After"] == "1"
    api.store.is_down = False
    assert recorded_ids(api, account_id) == []
    assert api.queue.published == []


# Aliases


def test_paths_without_a_version_are_the_same_resources(api: Api) -> None:
    opened = api.post("/accounts", {"cash": 1000})
    assert opened.status_code == 201
    assert opened.headers["Location"] == "/accounts/1"
    assert json_of(api.get("/v1/accounts/1")) == json_of(api.get("/accounts/1"))
    placed = api.post("/accounts/1/orders", order_body())
    assert placed.status_code == 202
    order_id = json_of(placed)["id"]
    assert placed.headers["Location"] == f"/accounts/1/orders/{order_id}"
    assert json_of(api.get(f"/v1/accounts/1/orders/{order_id}")) == json_of(placed)
    assert json_of(api.get("/accounts/1/orders")) == json_of(api.get("/v1/accounts/1/orders"))


def test_a_key_used_without_a_version_is_used_with_it_too(api: Api, account_id: int) -> None:
    first = api.post(f"/accounts/{account_id}/orders", order_body(), key="k")
    again = api.post(orders_path(account_id), order_body(), key="k")
    assert json_of(again) == json_of(first)
    assert again.headers["Idempotent-Replayed"] == "true"


# Methods and unknown paths


@pytest.mark.parametrize("path", ["/x", "/v1", "/v2/accounts", "/v1/orders", "/static/x", "/v1/x"])
def test_an_unknown_path_is_not_found(api: Api, path: str) -> None:
    problem_of(api.get(path), 404, "NOT_FOUND")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/v1/accounts", {"POST", "OPTIONS"}),
        ("DELETE", "/v1/accounts/1", {"GET", "HEAD", "OPTIONS"}),
        ("PUT", "/accounts/1/orders", {"GET", "HEAD", "POST", "OPTIONS"}),
        ("POST", f"/v1/accounts/1/orders/{UNKNOWN_ORDER}", {"GET", "HEAD", "DELETE", "OPTIONS"}),
        ("GET", "/v1/orders/bulk", {"POST", "OPTIONS"}),
        ("POST", "/healthz", {"GET", "HEAD", "OPTIONS"}),
    ],
)
def test_another_method_is_not_allowed_and_the_allowed_ones_are_named(
    api: Api, method: str, path: str, allowed: set[str]
) -> None:
    answer = api.http.open(path, method=method)
    problem_of(answer, 405, "METHOD_NOT_ALLOWED")
    assert set(answer.headers["Allow"].split(", ")) == allowed


# Idempotency


def test_a_repeated_order_is_answered_as_the_first_time_and_recorded_once(
    api: Api, account_id: int
) -> None:
    first = api.post(orders_path(account_id), order_body(), key="k")
    assert "Idempotent-Replayed" not in first.headers
    api.clock.forward(timedelta(hours=1))
    again = api.post(orders_path(account_id), order_body(), key="k")
    assert again.status_code == 202
    assert again.data == first.data
    assert again.headers["Location"] == first.headers["Location"]
    assert again.headers["Idempotent-Replayed"] == "true"
    assert recorded_ids(api, account_id) == [json_of(first)["id"]]
    assert len(api.queue.published) == 1


def test_a_repeated_order_is_shown_as_accepted_even_when_it_was_decided(
    api: Api, account_id: int
) -> None:
    first = api.post(orders_path(account_id), order_body(), key="k")
    decide(api, account_id, json_of(first)["id"])
    assert api.post(orders_path(account_id), order_body(), key="k").data == first.data


def test_a_repeated_account_is_answered_as_the_first_time_and_opened_once(api: Api) -> None:
    first = api.post("/v1/accounts", {"cash": "7.10"}, key="k")
    again = api.post("/v1/accounts", {"cash": "7.10"}, key="k")
    assert again.status_code == 201
    assert again.data == first.data
    assert again.headers["Location"] == first.headers["Location"]
    assert again.headers["Idempotent-Replayed"] == "true"
    assert "Idempotent-Replayed" not in first.headers


def test_a_repetition_may_write_the_same_body_in_another_way(api: Api, account_id: int) -> None:
    first = api.post(orders_path(account_id), order_body(share_price="80.5"), key="k")
    same = order_body(share_price=80.50, timestamp="2026-03-02T18:00:00Z", operation="buy")
    again = api.post(orders_path(account_id), same, key="k")
    assert again.data == first.data
    assert again.headers["Idempotent-Replayed"] == "true"


@pytest.mark.parametrize(
    "change",
    [
        {"timestamp": order_body()["timestamp"] + 1},
        {"operation": "SELL"},
        {"issuer_name": "aapl"},
        {"total_shares": 3},
        {"share_price": "80.51"},
    ],
)
def test_a_key_with_another_body_is_refused_and_nothing_recorded(
    api: Api, account_id: int, change: dict[str, Any]
) -> None:
    first = api.post(orders_path(account_id), order_body(), key="k")
    other = api.post(orders_path(account_id), order_body(**change), key="k")
    problem_of(other, 422, "IDEMPOTENCY_KEY_REUSED")
    assert recorded_ids(api, account_id) == [json_of(first)["id"]]
    assert len(api.queue.published) == 1


def test_an_account_key_with_another_body_is_refused(api: Api) -> None:
    first = api.post("/v1/accounts", {"cash": 1}, key="k")
    other = api.post("/v1/accounts", {"cash": 2}, key="k")
    problem_of(other, 422, "IDEMPOTENCY_KEY_REUSED")
    assert json_of(api.get(first.headers["Location"]))["cash"] == "1"


def test_a_key_belongs_to_one_account(api: Api, account_id: int) -> None:
    other = api.open_account()
    first = api.post(orders_path(account_id), order_body(), key="k")
    second = api.post(orders_path(other), order_body(total_shares=9), key="k")
    assert second.status_code == 202
    assert "Idempotent-Replayed" not in second.headers
    assert recorded_ids(api, account_id) == [json_of(first)["id"]]
    assert recorded_ids(api, other) == [json_of(second)["id"]]


def test_keys_are_told_apart_to_the_last_character(api: Api, account_id: int) -> None:
    for key in ("k", "K", "k ", "k" * 255, "k" * 254, "#", "\xc3\xa9"):
        answer = api.post(orders_path(account_id), order_body(), key=key.strip())
        assert answer.status_code == 202
    assert len(recorded_ids(api, account_id)) == 6


def test_a_key_is_the_same_in_the_header_and_in_a_line(api: Api, account_id: int) -> None:
    """Headers come as bytes, which WSGI shows as Latin-1 (PEP 3333)."""
    in_header = "à株".encode().decode("latin-1")
    line = json.dumps({"account_id": account_id, **order_body(), "idempotency_key": "à株"})
    first = api.post(orders_path(account_id), order_body(), key=in_header)
    again = api.http.post("/v1/orders/bulk", data=line, content_type="application/x-ndjson")
    assert first.status_code == 202
    assert json.loads(again.text)["replayed"]
    assert len(recorded_ids(api, account_id)) == 1


@pytest.mark.parametrize("key", ["", "x" * 256, "a\tb", "a\x7fb", "\x85", "\xe9"])
def test_a_key_that_is_empty_too_long_or_unprintable_is_refused(
    api: Api, account_id: int, key: str
) -> None:
    for path, body in (("/v1/accounts", {"cash": 1}), (orders_path(account_id), order_body())):
        problem_of(api.post(path, body, key=key), 400, "INVALID_IDEMPOTENCY_KEY")
    assert recorded_ids(api, account_id) == []


def test_a_key_is_forgotten_after_a_day_and_not_before(api: Api, account_id: int) -> None:
    first = api.post(orders_path(account_id), order_body(), key="k")
    api.clock.forward(IDEMPOTENCY_LIFE - timedelta(seconds=1))
    assert api.post(orders_path(account_id), order_body(), key="k").data == first.data
    api.clock.forward(timedelta(seconds=1))
    later = api.post(orders_path(account_id), order_body(total_shares=9), key="k")
    assert later.status_code == 202
    assert "Idempotent-Replayed" not in later.headers
    assert len(recorded_ids(api, account_id)) == 2
    again = api.post(orders_path(account_id), order_body(total_shares=9), key="k")
    assert again.data == later.data
    assert timedelta(hours=24) == IDEMPOTENCY_LIFE


def test_a_key_of_a_refused_request_stays_free(api: Api) -> None:
    problem_of(api.post(orders_path(1), order_body(), key="k"), 404)
    account_id = api.open_account()
    assert account_id == 1
    answer = api.post(orders_path(1), order_body(total_shares=9), key="k")
    assert answer.status_code == 202
    assert "Idempotent-Replayed" not in answer.headers


# Lists


def test_a_list_shows_the_newest_orders_first_page_by_page(api: Api, account_id: int) -> None:
    placed = [place(api, account_id, total_shares=number) for number in range(1, 6)]
    seen: list[str] = []
    path = f"{orders_path(account_id)}?limit=2"
    pages = 0
    cursor = None
    while pages == 0 or cursor is not None:
        shown = json_of(api.get(path if cursor is None else f"{path}&cursor={cursor}"))
        assert len(shown["orders"]) <= 2
        seen += [order["id"] for order in shown["orders"]]
        cursor = shown["next_cursor"]
        pages += 1
        assert pages < 10
    assert seen == placed[::-1]


def test_a_listed_order_looks_as_it_does_by_itself(api: Api, account_id: int) -> None:
    order_id = place(api, account_id)
    decide(api, account_id, order_id)
    alone = json_of(api.get(f"{orders_path(account_id)}/{order_id}"))
    assert json_of(api.get(orders_path(account_id))) == {"orders": [alone], "next_cursor": None}


def test_an_account_without_orders_has_an_empty_list(api: Api, account_id: int) -> None:
    assert json_of(api.get(orders_path(account_id))) == {"orders": [], "next_cursor": None}


@pytest.mark.parametrize("limit", ["1", "200", "007"])
def test_a_limit_within_bounds_is_taken(api: Api, account_id: int, limit: str) -> None:
    assert api.get(f"{orders_path(account_id)}?limit={limit}").status_code == 200


@pytest.mark.parametrize(
    "limit", ["", "0", "201", "-1", "+5", "1.0", "1e1", "ten", "%D9%A1", "%C2%B2", "9" * 10_000]
)
def test_a_limit_out_of_bounds_is_refused(api: Api, account_id: int, limit: str) -> None:
    assert pointers_of(api.get(f"{orders_path(account_id)}?limit={limit}")) == ["/limit"]


@pytest.mark.parametrize(
    "cursor", ["", "0", NO_ORDER_ID, UNKNOWN_ORDER.upper(), "x" * 10_000, "%00", "%FF", "null"]
)
def test_a_cursor_that_is_none_of_ours_is_refused(api: Api, account_id: int, cursor: str) -> None:
    assert pointers_of(api.get(f"{orders_path(account_id)}?cursor={cursor}")) == ["/cursor"]


# Health


def test_liveness_asks_nobody(api: Api) -> None:
    api.store.is_down = api.queue.is_down = True
    api.store.calls.clear()
    answer = api.get("/healthz")
    assert answer.status_code == 200
    assert json_of(answer) == {"status": "ok"}
    assert api.store.calls == []


def break_redis(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise RedisConnectionError("away")

    monkeypatch.setattr(api.redis, "execute_command", refuse)
    monkeypatch.setattr(api.redis, "ping", refuse)


def test_a_service_with_all_it_needs_is_ready(api: Api) -> None:
    answer = api.get("/readyz")
    assert answer.status_code == 200
    checks = {"store": "ok", "broker": "ok", "cache": "ok"}
    assert json_of(answer) == {"status": "ok", "checks": checks}


def test_without_the_broker_it_is_degraded_but_ready(api: Api) -> None:
    api.queue.is_down = True
    answer = api.get("/readyz")
    assert answer.status_code == 200
    checks = {"store": "ok", "broker": "unavailable", "cache": "ok"}
    assert json_of(answer) == {"status": "degraded", "checks": checks}


def test_without_the_cache_it_is_degraded_but_ready(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_redis(api, monkeypatch)
    answer = api.get("/readyz")
    assert answer.status_code == 200
    checks = {"store": "ok", "broker": "ok", "cache": "unavailable"}
    assert json_of(answer) == {"status": "degraded", "checks": checks}


def test_without_the_store_it_is_not_ready(api: Api) -> None:
    api.store.is_down = True
    answer = api.get("/readyz")
    assert answer.status_code == 503
    checks = {"store": "unavailable", "broker": "ok", "cache": "ok"}
    assert json_of(answer) == {"status": "unavailable", "checks": checks}


def test_orders_are_shown_without_the_cache(
    api: Api, account_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    order_id = place(api, account_id)
    decide(api, account_id, order_id)
    break_redis(api, monkeypatch)
    answer = api.get(f"{orders_path(account_id)}/{order_id}")
    assert answer.status_code == 200
    assert json_of(answer)["status"] == "executed"


def test_an_unexpected_error_is_a_problem_that_names_no_internals(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr(reads, "load_account", fail)
    answer = api.get("/v1/accounts/1")
    problem_of(answer, 500, "INTERNAL_ERROR")
    assert "secret" not in answer.text
