import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from werkzeug.test import TestResponse

from shared.order_store import reads
from tests.unit.api.parts import Api, json_of, order_body, pointers_of, problem_of
from tests.unit.factories import NOON, STEADY
from tests.unit.processor_time import processor_time

NOON_SECONDS = int(NOON.timestamp())
FORM_TYPE = "application/x-www-form-urlencoded"

FUZZ = settings(
    STEADY,
    max_examples=60,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)

FIELDS = ("timestamp", "operation", "issuer_name", "total_shares", "share_price")


@pytest.fixture(name="account_id")
def _account_id(api: Api) -> int:
    return api.open_account()


def open_with(api: Api, cash: str) -> TestResponse:
    """Open an account with ``cash`` as it stands in JSON text."""
    return api.post("/v1/accounts", f'{{"cash": {cash}}}')


def place(api: Api, account_id: int, **changes: Any) -> TestResponse:
    return api.post(f"/v1/accounts/{account_id}/orders", order_body(**changes))


def place_raw(api: Api, account_id: int, name: str, value: str) -> TestResponse:
    """Place an order whose field ``name`` is ``value`` as it stands in JSON text."""
    fields = {key: json.dumps(given) for key, given in order_body().items()} | {name: value}
    body = "{" + ",".join(f'"{key}":{given}' for key, given in fields.items()) + "}"
    return api.post(f"/v1/accounts/{account_id}/orders", body)


def accepted(answer: TestResponse) -> dict[str, Any]:
    assert answer.status_code == 202, answer.text
    return json_of(answer)


def orders_recorded(api: Api, account_id: int) -> int:
    found, _ = reads.list_orders(api.gateway, account_id, 200, None)
    return len(found)


# Money


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("1000", "1000"),
        ('"1000"', "1000"),
        ("0.1", "0.1"),
        ('"0.1"', "0.1"),
        ("12345678901234567.12345678", "12345678901234567.12345678"),
        ('"12345678901234567.12345678"', "12345678901234567.12345678"),
        ("1e3", "1000"),
        ('"1E+3"', "1000"),
        ("12.5e-7", "0.00000125"),
        ("0", "0"),
        ("-0", "0"),
        ("-0.0", "0"),
        ('"-0"', "0"),
        ("0e999999", "0"),
        ("0e-999999", "0"),
        ("1.500000000000", "1.5"),
        ('" 7 "', "7"),
        ('"+7"', "7"),
        ('".5"', "0.5"),
        ("0.00000001", "0.00000001"),
        ("1000000000000000000000000", "1" + "0" * 24),
        ("999999999999999999999999.99999999", "9" * 24 + "." + "9" * 8),
    ],
)
def test_cash_is_kept_exactly_as_it_was_written(api: Api, written: str, shown: str) -> None:
    answer = open_with(api, written)
    assert answer.status_code == 201, answer.text
    opened = json_of(answer)
    assert opened["cash"] == shown
    assert json_of(api.get(f"/v1/accounts/{opened['id']}"))["cash"] == shown


@pytest.mark.parametrize(
    "written",
    [
        "-0.00000001",
        "-1",
        "0.000000001",
        "1e-9",
        "1e-999999999",
        "1000000000000000000000000.00000001",
        "1" + "0" * 25,
        "1e25",
        "-1e25",
        "1e999999999",
        "-1e999999999",
        "1e99999999999999999999",
        "12345678901234567890123456789012345678.5",
        "9" * 63,
        "9" * 65,
        '"NaN"',
        '"sNaN"',
        '"Infinity"',
        '"-inf"',
        '""',
        '" "',
        '"1,000"',
        '"1_000"',
        '"0x10"',
        '"١٢"',
        '"12 34"',
        '"\\ud800"',
        "true",
        "false",
        "null",
        "[]",
        "[1]",
        "{}",
        '{"cash": 1}',
    ],
)
def test_cash_that_is_no_amount_is_refused(api: Api, written: str) -> None:
    assert pointers_of(open_with(api, written)) == ["/cash"]


def test_an_amount_of_38_digits_is_refused_for_its_size_and_not_rounded(api: Api) -> None:
    assert pointers_of(open_with(api, "9" * 38)) == ["/cash"]


@pytest.mark.parametrize("written", ["NaN", "Infinity", "-Infinity"])
def test_a_constant_that_json_does_not_know_makes_the_body_malformed(
    api: Api, written: str
) -> None:
    problem_of(open_with(api, written), 400, "MALFORMED_BODY")


def test_a_number_of_a_million_digits_is_too_large_a_body(api: Api) -> None:
    problem_of(open_with(api, "9" * 1_000_000), 413)


@pytest.mark.parametrize("written", ["9" * 1_000_000, "0." + "9" * 1_000_000, "1e" + "9" * 100_000])
def test_a_number_of_a_million_digits_costs_no_time_where_bodies_may_be_large(
    make_api: Any, written: str
) -> None:
    api = make_api(body_bytes_max=10_000_000)
    with processor_time() as spent:
        answer = open_with(api, written)
    assert spent.seconds < 2
    assert pointers_of(answer) == ["/cash"]


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("0.1", "0.1"),
        ('"80.50"', "80.5"),
        ("1e3", "1000"),
        ("0.00000001", "0.00000001"),
        ("999999999999.99999999", "999999999999.99999999"),
        ("1000000000000", "1000000000000"),
    ],
)
def test_a_share_price_is_kept_exactly(api: Api, account_id: int, written: str, shown: str) -> None:
    order = accepted(place_raw(api, account_id, "share_price", written))
    assert order["share_price"] == shown
    recorded = reads.load_order(api.gateway, account_id, order["id"])
    assert recorded is not None
    assert not hasattr(recorded, "reason")
    assert recorded.order.share_price == Decimal(shown)


@pytest.mark.parametrize(
    "written",
    ["0", "-0", "-1", "0.000000001", "1000000000000.00000001", "1e13", '"free"', "true", "null"],
)
def test_a_share_price_out_of_bounds_is_refused(api: Api, account_id: int, written: str) -> None:
    assert pointers_of(place_raw(api, account_id, "share_price", written)) == ["/share_price"]


# Shares


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("1", 1),
        ('"5"', 5),
        ("5.0", 5),
        ("5e2", 500),
        ("1000000000000", 10**12),
        ("1e12", 10**12),
    ],
)
def test_whole_shares_are_read_however_they_are_written(
    api: Api, account_id: int, written: str, shown: int
) -> None:
    total_shares = accepted(place_raw(api, account_id, "total_shares", written))["total_shares"]
    assert total_shares == shown
    assert isinstance(total_shares, int)


@pytest.mark.parametrize(
    "written",
    ["0", "-1", "1.5", "1e-999999999", "1000000000001", "1e999999999", '"NaN"', '""', "true"],
)
def test_shares_that_are_no_whole_number_within_bounds_are_refused(
    api: Api, account_id: int, written: str
) -> None:
    assert pointers_of(place_raw(api, account_id, "total_shares", written)) == ["/total_shares"]


# Operation


@pytest.mark.parametrize("written", ["BUY", "buy", "Buy"])
def test_an_operation_may_be_written_in_any_case(api: Api, account_id: int, written: str) -> None:
    assert accepted(place(api, account_id, operation=written))["operation"] == "BUY"


@pytest.mark.parametrize("value", ["HOLD", "", "BUY ", "BUY\x00", 1, None, True, ["BUY"], {}])
def test_an_unknown_operation_is_refused(api: Api, account_id: int, value: Any) -> None:
    assert pointers_of(place(api, account_id, operation=value)) == ["/operation"]


# Issuer


@pytest.mark.parametrize(
    "name", ["A", "x" * 64, "S&P 500", "Grupo México", "株式会社", "5", "#1:2/3", "é" * 64]
)
def test_a_printable_issuer_name_is_kept(api: Api, account_id: int, name: str) -> None:
    assert accepted(place(api, account_id, issuer_name=name))["issuer_name"] == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        " ",
        "x" * 65,
        " AAPL",
        "AAPL ",
        "\u00a0AAPL",
        "A\x00B",
        "A\nB",
        "A\x7fB",
        "A\u200bB",
        "A\u2028B",
        "\ud800",
        "A\udfffB",
        "株" * 43,
        None,
        True,
        5,
        1.5,
        ["AAPL"],
        {"name": "AAPL"},
    ],
)
def test_what_cannot_name_an_issuer_is_refused(api: Api, account_id: int, name: Any) -> None:
    assert pointers_of(place(api, account_id, issuer_name=name)) == ["/issuer_name"]


def test_a_composed_and_a_decomposed_name_are_one_issuer(api: Api, account_id: int) -> None:
    decomposed = accepted(place(api, account_id, issuer_name="Me\u0301xico"))
    assert decomposed["issuer_name"] == "M\u00e9xico"


def test_the_length_of_a_name_is_that_of_its_composed_form(api: Api, account_id: int) -> None:
    assert accepted(place(api, account_id, issuer_name="e\u0301" * 64))["issuer_name"] == "é" * 64


# Timestamp


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        (str(NOON_SECONDS), NOON_SECONDS),
        (f"{NOON_SECONDS}.25", NOON_SECONDS + 0.25),
        (f'"{NOON_SECONDS}"', NOON_SECONDS),
        (f'"{NOON_SECONDS}.5"', NOON_SECONDS + 0.5),
        ('"2026-03-02T18:00:00Z"', NOON_SECONDS),
        ('"2026-03-02T12:00:00-06:00"', NOON_SECONDS),
        ('"2026-03-02T18:00:00.5+00:00"', NOON_SECONDS + 0.5),
        ("0", 0),
        ('"9998-12-31T23:59:59Z"', 253370764799),
    ],
)
def test_timestamps_are_read_as_unix_seconds_or_as_iso_with_an_offset(
    api: Api, account_id: int, written: str, shown: float
) -> None:
    timestamp = accepted(place_raw(api, account_id, "timestamp", written))["timestamp"]
    assert timestamp == shown
    assert isinstance(timestamp, type(shown))


@pytest.mark.parametrize(
    "written",
    [
        '"2026-03-02T18:00:00"',
        '"2026-03-02"',
        '"2026-02-30T00:00:00Z"',
        '"0001-01-01T00:00:00Z"',
        '"0001-01-01T00:00:00+14:00"',
        '"1969-12-31T23:59:59Z"',
        '"9999-01-01T00:00:00Z"',
        '"9999-12-31T23:59:59-14:00"',
        '"10000-01-01T00:00:00Z"',
        "-1",
        '"-1"',
        "-0.000001",
        "253370764800",
        "1e11000",
        "1e999999999",
        "1e30",
        '"NaN"',
        '"soon"',
        '"yester-day"',
        '"-"',
        '""',
        '"2026-03-02T18:00:00Z' + " " * 80 + '"',
        '"2026-03-02T18:00:00\\ud800"',
        '"2026-03-02\\ud80018:00:00-06:00x"',
        "true",
        "null",
        "[]",
        "{}",
    ],
)
def test_a_timestamp_without_a_certain_instant_in_the_calendar_is_refused(
    api: Api, account_id: int, written: str
) -> None:
    assert pointers_of(place_raw(api, account_id, "timestamp", written)) == ["/timestamp"]


# Whole bodies


def test_a_form_is_as_good_as_json(api: Api, account_id: int) -> None:
    opened = api.http.post("/v1/accounts", data={"cash": "0.1"})
    assert opened.status_code == 201
    assert json_of(opened)["cash"] == "0.1"
    fields = {name: str(value) for name, value in order_body().items()}
    answer = api.http.post(f"/v1/accounts/{account_id}/orders", data=fields)
    order = accepted(answer)
    assert (order["operation"], order["issuer_name"]) == ("BUY", "AAPL")
    assert (order["total_shares"], order["share_price"]) == (2, "80.5")
    assert order["timestamp"] == NOON_SECONDS


def test_a_multipart_form_is_as_good_as_json(api: Api) -> None:
    answer = api.http.post("/v1/accounts", data={"cash": "3"}, content_type="multipart/form-data")
    assert answer.status_code == 201
    assert json_of(answer)["cash"] == "3"


def test_a_form_with_invalid_fields_is_refused_like_json(api: Api, account_id: int) -> None:
    answer = api.http.post(f"/v1/accounts/{account_id}/orders", data={"operation": "HOLD"})
    assert sorted(pointers_of(answer)) == sorted(f"/{name}" for name in FIELDS)


def test_unknown_fields_are_ignored(api: Api) -> None:
    assert api.post("/v1/accounts", {"cash": 1, "colour": "red"}).status_code == 201


def test_an_unknown_field_with_half_a_character_in_its_name_is_ignored(api: Api) -> None:
    assert api.post("/v1/accounts", '{"cash": 1, "\\ud800": "\\udfff"}').status_code == 201


def test_every_field_error_is_told_at_once(api: Api, account_id: int) -> None:
    body = {"timestamp": "x", "operation": "x", "issuer_name": "", "total_shares": 0}
    answer = api.post(f"/v1/accounts/{account_id}/orders", body)
    assert sorted(pointers_of(answer)) == sorted(f"/{name}" for name in FIELDS)
    details = {error["pointer"]: error["detail"] for error in json_of(answer)["errors"]}
    assert details["/share_price"] == "is missing"
    assert details["/operation"] == "must be BUY or SELL"
    assert orders_recorded(api, account_id) == 0
    assert api.queue.published == []


@pytest.mark.parametrize("name", FIELDS)
@pytest.mark.parametrize("value", [None, True, False, [], [1], {}, {"a": {"b": 1}}])
def test_no_field_takes_what_is_neither_text_nor_number(
    api: Api, account_id: int, name: str, value: Any
) -> None:
    assert pointers_of(place(api, account_id, **{name: value})) == [f"/{name}"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"{",
        b"cash=1",
        b"{'cash': 1}",
        b'{"cash": 1,}',
        b'{"cash": 1} x',
        b'{"cash": 01}',
        b'{"cash": .5}',
        b'{"cash": "\x01"}',
        b'{"cash": 1, "cash": 2}',
        b'{"cash": 1, "cash": 1}',
        b'{"cash": 1, "x": {"a": 1, "a": 2}}',
        b'{"cash": 1, "c\\u0061sh": 2}',
        b"[]",
        b'[{"cash": 1}]',
        b"1",
        b'"cash"',
        b"null",
        b"true",
        b'{"cash": "\xff"}',
        b"\xff\xfe{\x00}\x00",
        b'\xef\xbb\xbf{"cash": 1}',
        b'{"cash": "\xed\xa0\x80"}',
        b"[" * 30_000,
        b'{"cash":' * 5_000,
        b'{"cash":' + b"[" * 20_000 + b"]" * 20_000 + b"}",
    ],
)
def test_a_body_that_is_no_json_object_is_malformed(api: Api, body: bytes) -> None:
    problem_of(api.post("/v1/accounts", body), 400, "MALFORMED_BODY")


@pytest.mark.parametrize(
    "content_type", [None, "", "text/plain", "application/xml", "application/problem+json", "json"]
)
def test_another_media_type_is_not_supported(api: Api, content_type: str | None) -> None:
    answer = api.http.post("/v1/accounts", data=b'{"cash": 1}', content_type=content_type)
    problem_of(answer, 415, "UNSUPPORTED_MEDIA_TYPE")


def test_a_media_type_may_carry_parameters(api: Api) -> None:
    answer = api.http.post(
        "/v1/accounts", data=b'{"cash": 1}', content_type="application/json; charset=utf-8"
    )
    assert answer.status_code == 201


def test_a_body_up_to_the_limit_is_read_and_one_byte_more_is_too_large(make_api: Any) -> None:
    api = make_api(body_bytes_max=1024)
    padded = b'{"cash": 1, "x": "' + b"x" * 1004 + b'"}'
    assert len(padded) == 1024
    assert api.post("/v1/accounts", padded).status_code == 201
    problem_of(api.post("/v1/accounts", padded + b" "), 413, "REQUEST_ENTITY_TOO_LARGE")


def test_a_form_over_the_limit_is_too_large(make_api: Any) -> None:
    api = make_api(body_bytes_max=1024)
    answer = api.http.post("/v1/accounts", data={"cash": "1", "x": "x" * 1024})
    problem_of(answer, 413)


def test_a_body_is_judged_before_its_account_is_looked_for(api: Api) -> None:
    assert pointers_of(place(api, 404, total_shares=0)) == ["/total_shares"]


# Whatever comes


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.characters()
NUMBERS = st.from_regex(r"-?[0-9]{1,40}(\.[0-9]{1,40})?([eE][+-]?[0-9]{1,12})?", fullmatch=True)
VALUES = st.recursive(
    SCALARS | NUMBERS | st.datetimes().map(str),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
OBJECTS = st.fixed_dictionaries(
    {}, optional=dict.fromkeys((*FIELDS, "cash"), VALUES) | {"other": VALUES}
)


def assert_answered(answer: TestResponse) -> None:
    assert answer.status_code < 500, answer.text
    if answer.status_code >= 400:
        problem_of(answer, answer.status_code)


@FUZZ
@given(
    body=st.binary(max_size=200),
    content_type=st.sampled_from(
        ["application/json", FORM_TYPE, "multipart/form-data; boundary=x"]
    ),
)
@example(body=b"--x\r\n", content_type="multipart/form-data; boundary=x")
@example(body=b"cash=%ff%00&cash", content_type=FORM_TYPE)
def test_no_bytes_make_the_service_fail(api: Api, body: bytes, content_type: str) -> None:
    for path in ("/v1/accounts", "/v1/accounts/1/orders"):
        assert_answered(api.http.post(path, data=body, content_type=content_type))


@FUZZ
@given(body=OBJECTS | VALUES)
def test_no_json_makes_the_service_fail(api: Api, body: Any) -> None:
    for path in ("/v1/accounts", "/v1/accounts/1/orders"):
        assert_answered(api.post(path, json.dumps(body)))


@FUZZ
@given(name=st.sampled_from(FIELDS), value=VALUES)
def test_no_single_odd_field_makes_the_service_fail(api: Api, name: str, value: Any) -> None:
    account_id = 1
    if api.get("/v1/accounts/1").status_code == 404:
        api.open_account()
    assert_answered(place(api, account_id, **{name: value}))


@FUZZ
@given(name=st.sampled_from((*FIELDS, "cash")), value=NUMBERS)
def test_no_number_makes_the_service_fail(api: Api, name: str, value: str) -> None:
    if name == "cash":
        assert_answered(open_with(api, value))
    else:
        assert_answered(place_raw(api, 1, name, value))


@FUZZ
@given(
    cash=st.decimals(min_value=0, max_value=10**24, places=8, allow_nan=False),
    is_number=st.booleans(),
)
def test_any_amount_comes_back_exactly(api: Api, cash: Decimal, is_number: bool) -> None:
    written = format(cash, "f")
    answer = open_with(api, written if is_number else f'"{written}"')
    assert answer.status_code == 201
    assert Decimal(json_of(answer)["cash"]) == cash
