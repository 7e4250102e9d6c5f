"""Many orders in one request: each line has its own answer, and none spoils another."""

import json
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

import pytest
from werkzeug.test import TestResponse

from api.bulk import BulkIntake
from api.validation import BULK_LINE_BYTES_MAX, BULK_LINES_MAX, BulkOrderBody, read_line
from shared.order_store import accepts, items, keys, reads
from shared.order_store.errors import StoreUnavailable
from shared.order_store.gateway import TRANSACTION_ACTIONS_MAX, Gateway
from shared.order_store.records import AcceptedOrder, RecordedOrder
from shared.task_queue import MESSAGE_ORDERS_MAX
from tests.unit.api.parts import Api, json_of, order_body, problem_of
from tests.unit.factories import overwrite

PATH = "/v1/orders/bulk"
NDJSON = "application/x-ndjson"

Json = dict[str, Any]


def line(account_id: Any, **changes: Any) -> str:
    return json.dumps({"account_id": account_id, **order_body(**changes)})


def send(
    api: Api, lines: Sequence[str | bytes], key: str | None = None, path: str = PATH
) -> TestResponse:
    encoded = [one.encode() if isinstance(one, str) else one for one in lines]
    headers = {} if key is None else {"Idempotency-Key": key}
    return api.http.post(path, data=b"\n".join(encoded), content_type=NDJSON, headers=headers)


def answers_to(api: Api, lines: Sequence[str | bytes], key: str | None = None) -> list[Json]:
    """The answers, one for each line that is not blank."""
    answer = send(api, lines, key)
    assert answer.status_code == 200, answer.text
    assert answer.mimetype == NDJSON
    assert answer.data.endswith(b"\n")
    return [json.loads(one) for one in answer.data.splitlines()]


def statuses(answers: Sequence[Json]) -> list[int]:
    return [answer["status"] for answer in answers]


def codes(answers: Sequence[Json]) -> list[str | None]:
    return [answer["problem"]["code"] if "problem" in answer else None for answer in answers]


def recorded(api: Api, account_id: int) -> list[RecordedOrder]:
    """The account's orders, oldest first."""
    found, _ = reads.list_orders(api.gateway, account_id, 200, None)
    return [order for order in found[::-1] if isinstance(order, RecordedOrder)]


def shares(api: Api, account_id: int) -> list[int]:
    return [one.order.total_shares for one in recorded(api, account_id)]


def anybody(account_id: int) -> bool:
    del account_id
    return True


# Lines


def test_each_line_is_answered_with_its_order_in_the_sequence_of_the_lines(api: Api) -> None:
    first, second = api.open_account(), api.open_account()

    answers = answers_to(api, [line(second), line(first), line(second, total_shares=3)])

    assert [answer["line"] for answer in answers] == [1, 2, 3]
    assert statuses(answers) == [202] * 3
    assert [answer["order"]["account_id"] for answer in answers] == [second, first, second]
    for answer in answers:
        order = answer["order"]
        assert order["status"] == "pending"
        shown = api.get(f"/v1/accounts/{order['account_id']}/orders/{order['id']}")
        assert json_of(shown) == order


def test_an_order_of_a_line_is_the_one_that_the_single_route_makes(api: Api) -> None:
    account_id = api.open_account()
    body = order_body(share_price=80.50, operation="sell", timestamp="2026-03-02T18:00:00Z")

    (answer,) = answers_to(api, [json.dumps({"account_id": str(account_id), **body})])
    single = json_of(api.post(f"/v1/accounts/{account_id}/orders", body))

    assert answer["order"] | {"id": single["id"]} == single


def test_lines_of_an_account_are_recorded_in_their_sequence(api: Api) -> None:
    accounts = [api.open_account(), api.open_account()]
    lines = [line(accounts[n % 2], total_shares=n) for n in range(1, 231)]

    answers = answers_to(api, lines)

    assert statuses(answers) == [202] * 230
    assert [answer["order"]["total_shares"] for answer in answers] == list(range(1, 231))
    for place, account_id in enumerate(accounts):
        assert shares(api, account_id) == [n for n in range(1, 231) if n % 2 == place]


def test_orders_are_recorded_and_announced_by_the_hundred(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    account_id = api.open_account()
    sizes: list[int] = []
    transact = Gateway.transact

    def counted(gateway: Gateway, actions: Sequence[Any], token: str) -> None:
        sizes.append(len(actions))
        transact(gateway, actions, token)

    monkeypatch.setattr(Gateway, "transact", counted)
    answers = answers_to(api, [line(account_id, total_shares=n) for n in range(1, 251)])

    assert sizes == [TRANSACTION_ACTIONS_MAX, TRANSACTION_ACTIONS_MAX, 53]
    assert [len(message) for message in api.queue.published] == [MESSAGE_ORDERS_MAX] * 2 + [50]
    ids = [answer["order"]["id"] for answer in answers]
    assert [ref for message in api.queue.published for ref in message] == [
        (account_id, order_id) for order_id in ids
    ]


def test_orders_of_an_account_share_a_transaction_wherever_their_lines_stand(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    accounts = [api.open_account() for _ in range(10)]
    transactions: list[int] = []
    transact = Gateway.transact

    def counted(gateway: Gateway, actions: Sequence[Any], token: str) -> None:
        transactions.append(len(actions))
        transact(gateway, actions, token)

    monkeypatch.setattr(Gateway, "transact", counted)
    lines = [line(account_id, total_shares=n) for n in range(1, 10) for account_id in accounts]
    assert statuses(answers_to(api, lines)) == [202] * 90
    assert transactions == [TRANSACTION_ACTIONS_MAX]


BAD_LINES: list[tuple[str, int, str]] = [
    ("nonsense", 400, "MALFORMED_BODY"),
    ("[]", 400, "MALFORMED_BODY"),
    ("{", 400, "MALFORMED_BODY"),
    ('"text"', 400, "MALFORMED_BODY"),
    ("[" * 5000, 400, "MALFORMED_BODY"),
    (line(1)[:-1] + ', "total_shares": 9}', 400, "MALFORMED_BODY"),
    (line(1).replace("80.5", "NaN").replace('"NaN"', "NaN"), 400, "MALFORMED_BODY"),
    (line(1) + " " * BULK_LINE_BYTES_MAX, 413, "REQUEST_ENTITY_TOO_LARGE"),
    (line(1, total_shares=0), 422, "INVALID_OPERATION"),
    ("{}", 422, "INVALID_OPERATION"),
    (line(None), 422, "INVALID_OPERATION"),
    (line("one"), 422, "INVALID_OPERATION"),
    (line(-1), 422, "INVALID_OPERATION"),
    (line(1.0), 422, "INVALID_OPERATION"),
    (line(10**18), 422, "INVALID_OPERATION"),
    (line(True), 422, "INVALID_OPERATION"),
    (line("\u0661"), 422, "INVALID_OPERATION"),
    (line(0), 404, "ACCOUNT_NOT_FOUND"),
    (line(999), 404, "ACCOUNT_NOT_FOUND"),
]


@pytest.mark.parametrize(("bad", "status", "code"), BAD_LINES)
def test_a_bad_line_spoils_no_good_one(api: Api, bad: str, status: int, code: str) -> None:
    assert api.open_account() == 1

    before, refused, after = answers_to(api, [line(1), bad, line(1, total_shares=3)])

    assert (before["status"], after["status"]) == (202, 202)
    assert refused["status"] == refused["problem"]["status"] == status
    assert refused["problem"]["code"] == code
    assert set(refused) == {"line", "status", "problem"}
    assert shares(api, 1) == [2, 3]


@pytest.mark.parametrize("bad", [b"\xff\xfe", b"\x00", line(1).encode("utf-16")])
def test_a_line_of_other_bytes_than_utf_8_spoils_no_good_one(api: Api, bad: bytes) -> None:
    api.open_account()
    answers = answers_to(api, [line(1), bad.replace(b"\n", b""), line(1, total_shares=3)])
    assert statuses(answers) == [202, 400, 202]


def test_all_invalid_fields_of_a_line_are_told_at_once(api: Api) -> None:
    (answer,) = answers_to(api, ['{"operation": "HOLD", "total_shares": 0, "account_id": "x"}'])
    assert {error["pointer"] for error in answer["problem"]["errors"]} == {
        "/timestamp",
        "/operation",
        "/issuer_name",
        "/total_shares",
        "/share_price",
        "/account_id",
    }


def test_blank_lines_are_not_answered_and_count_as_lines(api: Api) -> None:
    account_id = api.open_account()
    answers = answers_to(api, ["", line(account_id), " \t\r", line(account_id) + "\r", "", "\n"])
    assert [answer["line"] for answer in answers] == [2, 4]


def test_paths_without_a_version_take_many_orders_too(api: Api) -> None:
    account_id = api.open_account()
    answer = send(api, [line(account_id)], path="/orders/bulk")
    assert json.loads(answer.data)["status"] == 202


def test_a_line_beyond_money_s_exactness_is_refused_and_no_other_digit_is_lost(api: Api) -> None:
    account_id = api.open_account()
    exact = line(account_id).replace('"80.5"', "123456789012.12345678")
    beyond = line(account_id).replace('"80.5"', "1.123456789")
    kept, refused = answers_to(api, [exact, beyond])
    assert kept["order"]["share_price"] == "123456789012.12345678"
    assert refused["status"] == 422


# The request


def test_so_many_lines_and_no_more(api: Api) -> None:
    unknown = [line(999)] * BULK_LINES_MAX
    assert codes(answers_to(api, unknown)) == ["ACCOUNT_NOT_FOUND"] * BULK_LINES_MAX
    account_id = api.open_account()
    problem_of(send(api, [line(account_id)] * (BULK_LINES_MAX + 1)), 413)
    assert recorded(api, account_id) == []


def test_a_bulk_body_has_a_limit_of_its_own(make_api: Any) -> None:
    api: Api = make_api(body_bytes_max=1024, bulk_body_bytes_max=20_000)
    account_id = api.open_account()
    long = line(account_id) + " " * 2000
    answers = answers_to(api, [long] * 9 + [line(account_id)])
    assert statuses(answers) == [202] * 10
    problem_of(send(api, [long] * 10), 413, "REQUEST_ENTITY_TOO_LARGE")
    assert len(recorded(api, account_id)) == 10


@pytest.mark.parametrize("body", [b"", b"\n", b" \r\n\t\n"])
def test_a_body_without_lines_is_malformed(api: Api, body: bytes) -> None:
    problem_of(api.http.post(PATH, data=body, content_type=NDJSON), 400, "MALFORMED_BODY")


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "application/json"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "application/x-ndjson; charset=latin-1"},
        {"Content-Type": NDJSON, "Content-Encoding": "gzip"},
        {},
    ],
)
def test_another_media_type_is_refused(api: Api, headers: dict[str, str]) -> None:
    account_id = api.open_account()
    answer = api.http.post(PATH, data=line(account_id), headers=headers)
    problem_of(answer, 415, "UNSUPPORTED_MEDIA_TYPE")
    assert recorded(api, account_id) == []


def test_nothing_else_than_post_is_allowed(api: Api) -> None:
    assert api.get(PATH).status_code == 405


# Keys


@pytest.mark.parametrize("is_redis_lost", [False, True])
def test_a_request_with_a_key_may_be_sent_again(api: Api, is_redis_lost: bool) -> None:
    accounts = [api.open_account(), api.open_account()]
    lines = [line(accounts[n % 2], total_shares=n) for n in range(1, 71)]

    first = answers_to(api, lines, key="k")
    if is_redis_lost:
        api.redis.flushall()
    again = answers_to(api, lines, key="k")

    assert statuses(first) == statuses(again) == [202] * 70
    assert not any("replayed" in answer for answer in first)
    assert [answer.pop("replayed") for answer in again] == [True] * 70
    assert again == first
    assert len(recorded(api, accounts[0])) + len(recorded(api, accounts[1])) == 70


def test_what_an_interrupted_request_left_is_made_up_by_sending_it_again(api: Api) -> None:
    account_id = api.open_account()
    lines = [line(account_id, total_shares=n) for n in range(1, 6)]
    answers_to(api, lines[:3], key="k")

    again = answers_to(api, lines, key="k")

    assert [answer.get("replayed", False) for answer in again] == [True] * 3 + [False] * 2
    assert shares(api, account_id) == [1, 2, 3, 4, 5]


def test_a_line_s_key_is_the_request_s_with_the_number_of_the_line(api: Api) -> None:
    account_id = api.open_account()
    first, second = answers_to(api, [line(account_id), "", line(account_id, total_shares=2)], "k")
    for answer, body in ((first, order_body()), (second, order_body(total_shares=2))):
        path = f"/v1/accounts/{account_id}/orders"
        again = api.post(path, body, key=f"k/{answer['line']}")
        assert json_of(again) == answer["order"]
    assert [first["line"], second["line"]] == [1, 3]


def test_a_line_s_own_key_is_the_single_route_s(api: Api) -> None:
    account_id = api.open_account()
    body = order_body()
    single = api.post(f"/v1/accounts/{account_id}/orders", body, key="own")

    own = line(account_id, idempotency_key="own", **body)
    other = line(account_id, idempotency_key="own", total_shares=7)
    keyless = line(account_id, total_shares=8)
    answers = answers_to(api, [own, other, own, keyless, keyless])

    assert [answer.get("replayed", False) for answer in answers] == [True, False, True] + [
        False
    ] * 2
    assert codes(answers) == [None, "IDEMPOTENCY_KEY_REUSED", None, None, None]
    assert answers[0]["order"] == json_of(single)
    assert shares(api, account_id) == [2, 8, 8]


def test_one_key_twice_in_a_request_makes_one_order(api: Api) -> None:
    account_id = api.open_account()
    keyed = line(account_id, idempotency_key="twice")
    between = [line(account_id, total_shares=n) for n in range(3, 133)]

    answers = answers_to(api, [keyed, keyed, *between, keyed])

    replayed = [answer["line"] for answer in answers if "replayed" in answer]
    assert replayed == [2, 133]
    assert answers[0]["order"] == answers[1]["order"] == answers[-1]["order"]
    assert len(shares(api, account_id)) == 131


@pytest.mark.parametrize("key", ["", "x" * 256, "a\tb", 7, True, [], {}])
def test_a_line_s_key_that_is_none_is_an_invalid_field(api: Api, key: Any) -> None:
    (answer,) = answers_to(api, [line(api.open_account(), idempotency_key=key)])
    assert [error["pointer"] for error in answer["problem"]["errors"]] == ["/idempotency_key"]


def test_a_line_s_key_of_null_is_no_key(api: Api) -> None:
    account_id = api.open_account()
    lines = [line(account_id, idempotency_key=None)] * 2
    assert not any("replayed" in answer for answer in answers_to(api, lines))


def test_a_bad_key_of_the_request_refuses_it_whole(api: Api) -> None:
    account_id = api.open_account()
    problem_of(send(api, [line(account_id)], key="x" * 256), 400, "INVALID_IDEMPOTENCY_KEY")
    assert recorded(api, account_id) == []


def test_a_replayed_order_that_cannot_be_read_is_told_as_such(api: Api) -> None:
    account_id = api.open_account()
    lines = [line(account_id, total_shares=n) for n in (1, 2)]
    first = answers_to(api, lines, key="k")
    damaged = keys.order_key(account_id, first[0]["order"]["id"])
    overwrite(api.gateway, damaged, "total_shares", items.text("many"))
    api.redis.flushall()

    again = answers_to(api, lines, key="k")

    assert statuses(again) == [500, 202]
    assert codes(again) == ["INTERNAL_ERROR", None]


# Access


def test_accounts_out_of_the_caller_s_reach_are_as_if_there_were_none(api: Api) -> None:
    own, other = api.open_account(), api.open_account()
    lines = [line(own).encode(), line(other).encode(), line(own, total_shares=3).encode()]
    made: list[str] = []

    pieces = api.services.bulk.answers(
        lines, None, api.clock(), may_reach=lambda account_id: account_id == own, made=made
    )
    answers = [answer for piece in pieces for answer in _parsed(piece)]

    assert codes(answers) == [None, "ACCOUNT_NOT_FOUND", None]
    assert recorded(api, other) == []
    assert made == [answer["order"]["id"] for answer in answers if "order" in answer]


# Faults


def test_a_store_that_is_away_is_told_line_by_line(make_api: Any) -> None:
    api: Api = make_api(accept_seconds_max=1.7)
    account_id = api.open_account()
    api.store.is_down = True
    answers = answers_to(api, [line(account_id), "bad", line(account_id)])
    assert statuses(answers) == [503, 400, 503]
    assert codes(answers)[0] == "STORE_UNAVAILABLE"
    api.store.is_down = False
    assert recorded(api, account_id) == []
    assert api.queue.published == []


def test_a_store_that_goes_away_in_between_is_told_to_the_lines_after_it(
    make_api: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    api: Api = make_api(accept_seconds_max=1.7)
    account_id = api.open_account()
    _fail_from(monkeypatch, 2, StoreUnavailable("gone"))
    answers = answers_to(api, [line(account_id, total_shares=n) for n in range(1, 151)])
    assert statuses(answers) == [202] * 99 + [503] * 51
    assert sum(map(len, api.queue.published)) == 99


def test_a_bug_at_one_transaction_is_no_end_of_the_answer(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    account_id = api.open_account()
    _fail_from(monkeypatch, 1, RuntimeError("secret"), times=1)
    answers = answers_to(api, [line(account_id, total_shares=n) for n in range(1, 151)])
    assert statuses(answers) == [500] * 99 + [202] * 51
    assert "secret" not in json.dumps(answers)


def test_lines_that_are_not_tried_in_time_are_refused(api: Api) -> None:
    account_id = api.open_account()
    now = [1000.0]
    bulk = BulkIntake(
        api.services.orders,
        api.gateway,
        group_seconds=60.0,
        seconds_max=8.0,
        monotonic=lambda: now[0],
    )
    lines = [line(account_id, total_shares=n).encode() for n in range(1, 151)]
    pieces = bulk.answers(lines, None, api.clock(), may_reach=anybody, made=[])
    # The intake's own clock is the real one: what is begun in time is not refused by it.
    api.services.orders._monotonic = lambda: now[0]

    first = _parsed(next(pieces))
    now[0] += 8.0
    rest = [answer for piece in pieces for answer in _parsed(piece)]

    assert statuses(first) == [202] * 99
    assert statuses(rest) == [503] * 51
    assert all("took too long" in answer["problem"]["detail"] for answer in rest)
    assert len(recorded(api, account_id)) == 99


def test_what_was_recorded_is_announced_though_the_client_leaves(api: Api) -> None:
    account_id = api.open_account()
    lines = [line(account_id, total_shares=n).encode() for n in range(1, 151)]
    pieces = _closeable(
        api.services.bulk.answers(lines, None, api.clock(), may_reach=anybody, made=[])
    )

    next(pieces)
    assert api.queue.published == []
    pieces.close()

    assert sum(map(len, api.queue.published)) == len(recorded(api, account_id)) == 99


def test_orders_are_accepted_while_the_broker_is_away(api: Api) -> None:
    account_id = api.open_account()
    api.queue.is_down = True
    assert statuses(answers_to(api, [line(account_id)] * 120)) == [202] * 120
    assert len(recorded(api, account_id)) == 120


def test_answers_go_out_as_soon_as_it_is_their_turn(api: Api) -> None:
    hot, other = api.open_account(), api.open_account()
    lines = [line(hot, total_shares=n).encode() for n in range(1, 121)]
    lines.insert(1, line(other).encode())

    pieces = [
        _parsed(piece)
        for piece in api.services.bulk.answers(lines, None, api.clock(), may_reach=anybody, made=[])
    ]

    # Line 2 is of an account that comes last, so all but line 1 wait for it.
    assert [answer["line"] for answer in pieces[0]] == [1]
    assert [answer["line"] for piece in pieces for answer in piece] == list(range(1, 122))


def test_a_line_is_read_as_the_single_route_reads_its_body() -> None:
    body = read_line(line("007", operation="buy", issuer_name="Cafe\u0301").encode())
    assert isinstance(body, BulkOrderBody)
    assert (body.account_id, body.operation, body.issuer_name) == (7, "BUY", "Caf\u00e9")
    assert body.idempotency_key is None


def _fail_from(
    monkeypatch: pytest.MonkeyPatch, first: int, error: Exception, times: int = 10**9
) -> None:
    """Have recording fail ``times`` times, from the ``first`` transaction on."""
    calls = [0]
    record = accepts.record_orders

    def failing(
        gateway: Gateway, orders: Sequence[AcceptedOrder], now: datetime, token: str
    ) -> None:
        calls[0] += 1
        if first <= calls[0] < first + times:
            raise error
        record(gateway, orders, now, token)

    monkeypatch.setattr(accepts, "record_orders", failing)


def _parsed(piece: bytes) -> list[Json]:
    return [json.loads(one) for one in piece.splitlines()]


def _closeable(pieces: Iterator[bytes]) -> Any:
    return pieces
