"""What a request may say at most: at each limit and one beyond it, and whatever else comes."""

import json
from collections.abc import Callable
from decimal import Decimal
from io import BytesIO
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from werkzeug.test import EnvironBuilder, TestResponse, run_wsgi_app
from werkzeug.wrappers import Request

from api.problems import FIELD_ERRORS_MAX, FieldError, document, invalid
from api.validation import (
    FORM_FIELDS_MAX,
    IDEMPOTENCY_KEY_LENGTH_MAX,
    JSON_DEPTH_MAX,
    NAME_LENGTH_READ_MAX,
    NUMBER_LENGTH_MAX,
    PAGE_LIMIT_DEFAULT,
    PAGE_LIMIT_MAX,
)
from shared.domain.money import (
    AMOUNT_DECIMALS_MAX,
    CASH_MAX,
    SHARE_PRICE_MAX,
    TOTAL_SHARES_MAX,
)
from shared.domain.order import ISSUER_NAME_BYTES_MAX, ISSUER_NAME_LENGTH_MAX
from tests.unit.api.parts import JSON_TYPE, Api, json_of, order_body, pointers_of, problem_of
from tests.unit.factories import STEADY
from tests.unit.processor_time import processor_time

FORM_TYPE = "application/x-www-form-urlencoded"
MILLION = 1_000_000
SECONDS_MAX = 1.0
"""Processor time for what may not cost any: a thousand times what it takes."""

SMALLEST = Decimal(1).scaleb(-AMOUNT_DECIMALS_MAX)


@pytest.fixture(name="account_id")
def _account_id(api: Api) -> int:
    return api.open_account()


@pytest.fixture(name="roomy")
def _roomy(make_api: Callable[..., Api]) -> Api:
    """An API whose bodies may be as large as settings allow."""
    return make_api(body_bytes_max=10_000_000)


def place(api: Api, account_id: int, **changes: Any) -> TestResponse:
    return api.post(f"/v1/accounts/{account_id}/orders", order_body(**changes))


def place_raw(api: Api, account_id: int, name: str, written: str) -> TestResponse:
    """Place an order with ``written`` as it stands for the value of ``name``."""
    fields = {key: json.dumps(value) for key, value in order_body().items()} | {name: written}
    body = "{" + ",".join(f'"{key}":{value}' for key, value in fields.items()) + "}"
    return api.post(f"/v1/accounts/{account_id}/orders", body)


# Amounts


def test_cash_has_an_upper_bound(api: Api) -> None:
    most, less = f"{CASH_MAX:f}", "9" * 24 + "." + "9" * 8
    for cash in (most, less):
        assert json_of(api.post("/v1/accounts", {"cash": cash}))["cash"] == cash
    for cash in (most + ".00000001", most[:-1] + "1", most + "0"):
        assert pointers_of(api.post("/v1/accounts", {"cash": cash})) == ["/cash"]


def test_a_share_price_has_an_upper_bound(api: Api, account_id: int) -> None:
    for price in (SHARE_PRICE_MAX, SHARE_PRICE_MAX - SMALLEST):
        assert place(api, account_id, share_price=f"{price:f}").status_code == 202
    over = f"{SHARE_PRICE_MAX + SMALLEST:f}"
    assert pointers_of(place(api, account_id, share_price=over)) == ["/share_price"]


def test_shares_have_an_upper_bound(api: Api, account_id: int) -> None:
    assert place(api, account_id, total_shares=TOTAL_SHARES_MAX).status_code == 202
    over = place(api, account_id, total_shares=TOTAL_SHARES_MAX + 1)
    assert pointers_of(over) == ["/total_shares"]


def test_money_has_so_many_decimals_and_no_more(api: Api, account_id: int) -> None:
    assert api.post("/v1/accounts", {"cash": "1." + "1" * 8}).status_code == 201
    assert pointers_of(api.post("/v1/accounts", {"cash": "1." + "1" * 9})) == ["/cash"]
    assert place(api, account_id, share_price="1." + "1" * 8).status_code == 202
    assert pointers_of(place(api, account_id, share_price="1." + "1" * 9)) == ["/share_price"]


@pytest.mark.parametrize("digits", [37, 38, 39])
def test_digits_around_those_of_the_store_are_refused_and_not_rounded(
    api: Api, account_id: int, digits: int
) -> None:
    whole, small = "9" * digits, "0." + "9" * digits
    for written in (whole, small):
        assert pointers_of(place_raw(api, account_id, "share_price", written)) == ["/share_price"]
        assert pointers_of(place_raw(api, account_id, "total_shares", written)) == ["/total_shares"]
        assert pointers_of(api.post("/v1/accounts", f'{{"cash": {written}}}')) == ["/cash"]


def test_a_number_has_so_many_characters_and_no_more(api: Api, account_id: int) -> None:
    for name, written in (("share_price", "1."), ("total_shares", "5."), ("timestamp", "1.")):
        fits = written + "0" * (NUMBER_LENGTH_MAX - len(written))
        assert place_raw(api, account_id, name, fits).status_code == 202
        over = place_raw(api, account_id, name, fits + "0")
        assert pointers_of(over) == [f"/{name}"]
        assert "64 characters" in json_of(over)["errors"][0]["detail"]


@pytest.mark.parametrize("name", ["share_price", "total_shares", "timestamp"])
@pytest.mark.parametrize(
    "written",
    ["9" * MILLION, "0." + "9" * MILLION, "1e" + "9" * MILLION, "-" + "9" * MILLION],
)
@pytest.mark.parametrize("quote", ["", '"'])
def test_a_million_digits_cost_no_time(roomy: Api, name: str, written: str, quote: str) -> None:
    account_id = roomy.open_account()
    with processor_time() as spent:
        answer = place_raw(roomy, account_id, name, quote + written + quote)
    assert spent.seconds < SECONDS_MAX
    assert pointers_of(answer) == [f"/{name}"]


@pytest.mark.parametrize(
    "written",
    ["1e400", "1E-400", "-0.0", "-0", "1e2", '"1e2"', "1e-2", '"1e-2"', '"-Infinity"', '"nan"'],
)
@pytest.mark.parametrize("name", ["share_price", "total_shares", "timestamp"])
def test_every_way_to_write_a_number_is_taken_or_refused_by_its_field(
    api: Api, account_id: int, name: str, written: str
) -> None:
    answer = place_raw(api, account_id, name, written)
    is_hundred, is_hundredth = "1e2" in written, "1e-2" in written
    is_taken = {
        "share_price": is_hundred or is_hundredth,
        "total_shares": is_hundred,
        "timestamp": is_hundred or is_hundredth or written in ("-0.0", "-0", "1E-400"),
    }[name]
    if is_taken:
        assert answer.status_code == 202
    else:
        assert pointers_of(answer) == [f"/{name}"]


# Names


def test_an_issuers_name_has_so_many_characters_and_no_more(api: Api, account_id: int) -> None:
    fits = "x" * ISSUER_NAME_LENGTH_MAX
    assert place(api, account_id, issuer_name=fits).status_code == 202
    assert pointers_of(place(api, account_id, issuer_name=fits + "x")) == ["/issuer_name"]


def test_an_issuers_name_has_so_many_bytes_and_no_more(api: Api, account_id: int) -> None:
    fits = "株" * 42 + "éa"[:2]
    assert len(fits.encode()) == ISSUER_NAME_BYTES_MAX + 1
    assert pointers_of(place(api, account_id, issuer_name=fits)) == ["/issuer_name"]
    assert place(api, account_id, issuer_name=fits[:-1]).status_code == 202


def test_a_name_may_be_written_as_long_as_it_composes_to_one_that_fits(
    api: Api, account_id: int
) -> None:
    # U+1F82 is one character of three bytes, written as four of them.
    decomposed = "\u03b1\u0313\u0300\u0345" * 42
    assert len(decomposed) <= NAME_LENGTH_READ_MAX
    assert json_of(place(api, account_id, issuer_name=decomposed))["issuer_name"] == "\u1f82" * 42


def test_a_name_of_marks_costs_no_time(roomy: Api) -> None:
    account_id = roomy.open_account()
    with processor_time() as spent:
        answer = place(roomy, account_id, issuer_name="a" + "\u0301\u0316" * 100_000)
    assert spent.seconds < SECONDS_MAX
    assert pointers_of(answer) == ["/issuer_name"]
    over = "a" + "\u0301" * NAME_LENGTH_READ_MAX
    assert pointers_of(place(roomy, account_id, issuer_name=over)) == ["/issuer_name"]


@pytest.mark.parametrize("name", ["😀 Inc", "عرب", "e\u0301", "ﬁ"])
def test_letters_of_any_script_can_name_an_issuer(api: Api, account_id: int, name: str) -> None:
    assert place(api, account_id, issuer_name=name).status_code == 202


@pytest.mark.parametrize(
    "name", ["\x00", "\ud800", "\udfff\ud800", "\u202eLPAA", "A\u200dB", "\ufeffAAPL", "A\x1bB"]
)
def test_what_is_not_seen_cannot_name_an_issuer(api: Api, account_id: int, name: str) -> None:
    assert pointers_of(place(api, account_id, issuer_name=name)) == ["/issuer_name"]


def test_an_idempotency_key_has_so_many_characters_and_no_more(api: Api) -> None:
    fits = "k" * IDEMPOTENCY_KEY_LENGTH_MAX
    assert api.post("/v1/accounts", {"cash": 1}, key=fits).status_code == 201
    over = api.post("/v1/accounts", {"cash": 1}, key=fits + "k")
    problem_of(over, 400, "INVALID_IDEMPOTENCY_KEY")


# Pages and answers


def test_a_page_has_so_many_orders_and_no_more(api: Api, account_id: int) -> None:
    path = f"/v1/accounts/{account_id}/orders"
    for number in range(PAGE_LIMIT_DEFAULT + 1):
        assert place(api, account_id, total_shares=number + 1).status_code == 202
    assert len(json_of(api.get(path))["orders"]) == PAGE_LIMIT_DEFAULT
    assert api.get(f"{path}?limit={PAGE_LIMIT_MAX}").status_code == 200
    for limit in (PAGE_LIMIT_MAX + 1, 0, -1, 10**9, 10**1000, "abc", ""):
        assert pointers_of(api.get(f"{path}?limit={limit}")) == ["/limit"]


def test_a_problem_lists_so_many_errors_and_no_more() -> None:
    errors = [FieldError(f"/{number}", "is wrong") for number in range(FIELD_ERRORS_MAX + 1)]
    for count in (1, FIELD_ERRORS_MAX):
        assert len(document(invalid(errors[:count]))["errors"]) == count
    shown = document(invalid(errors))["errors"]
    assert shown == [{"pointer": one.pointer, "detail": one.detail} for one in errors[:-1]]


# Bodies


def streamed(api: Api, body: bytes, content_length: int | None = None) -> TestResponse:
    """Post ``body`` as a server hands it on that says itself where a body ends."""
    builder = EnvironBuilder("/v1/accounts", method="POST", content_type=JSON_TYPE)
    environ = builder.get_environ()
    environ.pop("CONTENT_LENGTH", None)
    if content_length is not None:
        environ["CONTENT_LENGTH"] = str(content_length)
    return call(api, environ | {"wsgi.input": BytesIO(body), "wsgi.input_terminated": True})


def call(api: Api, environ: dict[str, Any]) -> TestResponse:
    """Call the application as a server does: the client for tests would mend what is odd."""
    environ.setdefault("REMOTE_ADDR", "127.0.0.1")
    body, status, headers = run_wsgi_app(api.http.application, environ)
    return TestResponse(body, status, headers, request=Request(environ))


def ask(api: Api, path: str, method: str, query: str = "") -> TestResponse:
    environ = EnvironBuilder("/", method=method, headers=[("Host", "elsewhere")]).get_environ()
    raw = path.encode("utf-8", "replace").decode("latin-1")
    return call(api, environ | {"PATH_INFO": raw, "QUERY_STRING": query})


def test_a_body_without_a_length_may_be_as_large_as_its_limit_and_no_larger(
    make_api: Callable[..., Api],
) -> None:
    api = make_api(body_bytes_max=1024)
    fits = b'{"cash": 1}'.ljust(1024)
    assert streamed(api, fits).status_code == 201
    problem_of(streamed(api, fits + b" "), 413, "REQUEST_ENTITY_TOO_LARGE")
    problem_of(streamed(api, fits + b"junk" * 10_000), 413, "REQUEST_ENTITY_TOO_LARGE")


def test_a_body_that_was_cut_off_is_not_taken_for_a_whole_one(api: Api) -> None:
    body = b'{"cash": 10}'
    assert streamed(api, body, len(body)).status_code == 201
    problem_of(streamed(api, body, len(body) + 1), 400, "MALFORMED_BODY")


def test_a_form_has_so_many_fields_and_no_more(api: Api) -> None:
    others = "".join(f"&f{number}=1" for number in range(FORM_FIELDS_MAX - 1))
    for body, status in (("cash=1" + others, 201), ("cash=1&x=1" + others, 413)):
        answer = api.http.post("/v1/accounts", data=body, content_type=FORM_TYPE)
        assert answer.status_code == status
    parts: dict[str, Any] = {f"f{number}": "1" for number in range(FORM_FIELDS_MAX - 1)} | {
        "cash": "1"
    }
    for fields, status in ((parts, 201), (parts | {"x": "1"}, 413)):
        answer = api.http.post("/v1/accounts", data=fields, content_type="multipart/form-data")
        assert answer.status_code == status


def test_a_form_of_a_million_fields_costs_no_time(roomy: Api) -> None:
    with processor_time() as spent:
        answer = roomy.http.post("/v1/accounts", data="a&" * MILLION, content_type=FORM_TYPE)
    assert spent.seconds < SECONDS_MAX
    problem_of(answer, 413, "REQUEST_ENTITY_TOO_LARGE")


@pytest.mark.parametrize("body", ["cash=1&cash=2", "cash=1&cash=1", "cash=1&x=1&x=2"])
def test_a_form_that_names_a_field_twice_is_malformed(api: Api, body: str) -> None:
    answer = api.http.post("/v1/accounts", data=body, content_type=FORM_TYPE)
    problem_of(answer, 400, "MALFORMED_BODY")


@pytest.mark.parametrize("body", ["[" * MILLION, '{"a":' * MILLION, '{"cash": ' + "[" * MILLION])
def test_a_million_levels_of_nesting_are_malformed(roomy: Api, body: str) -> None:
    problem_of(roomy.post("/v1/accounts", body), 400, "MALFORMED_BODY")


@pytest.mark.parametrize("kinds", [("[", "]"), ('{"a":', "}"), ("[", "]", '{"a":', "}")])
def test_json_has_so_many_levels_and_no_more(api: Api, kinds: tuple[str, ...]) -> None:
    def nested(levels: int) -> str:
        # The body itself is the first one.
        turns = [2 * (level % (len(kinds) // 2)) for level in range(levels - 1)]
        opened = "".join(kinds[turn] for turn in turns)
        closed = "".join(kinds[turn + 1] for turn in reversed(turns))
        return f'{{"cash": 1, "x": {opened}1{closed}}}'

    assert api.post("/v1/accounts", nested(JSON_DEPTH_MAX)).status_code == 201
    beyond = problem_of(api.post("/v1/accounts", nested(JSON_DEPTH_MAX + 1)), 400, "MALFORMED_BODY")
    assert f"{JSON_DEPTH_MAX} levels" in beyond["detail"]


def test_brackets_that_are_text_or_stand_beside_each_other_are_not_deep(api: Api) -> None:
    for value in ('"' + "[{" * 99 + '"', '"' + '\\"[' * 99 + '"', "[" + "[],{}," * 99 + "0]"):
        assert api.post("/v1/accounts", f'{{"cash": 1, "x": {value}}}').status_code == 201


@pytest.mark.parametrize("text", ["[]", '"', '\\"', '{"a":1}', '"[', "\\"])
def test_looking_for_depth_costs_no_more_than_the_length(roomy: Api, text: str) -> None:
    with processor_time() as spent:
        roomy.post("/v1/accounts", '{"cash": 1, "x": ["' + "[" * 40 + text * 300_000)
    assert spent.seconds < SECONDS_MAX


def test_a_huge_list_is_no_amount_and_costs_no_more_than_its_length(roomy: Api) -> None:
    def seconds_for(numbers: int) -> float:
        with processor_time() as spent:
            answer = roomy.post("/v1/accounts", '{"cash": [' + "0," * numbers + "0]}")
        assert pointers_of(answer) == ["/cash"]
        return spent.seconds

    shorter = min(seconds_for(MILLION // 4) for _ in range(3))
    longer = min(seconds_for(MILLION) for _ in range(3))
    # Were the cost to grow with the square, it would be sixteen times as much.
    assert longer < 8 * shorter


@pytest.mark.parametrize("charset", ["utf-8", "UTF-8", "utf8", "us-ascii", '"utf-8"'])
def test_a_body_may_say_that_it_is_utf_8(api: Api, charset: str) -> None:
    for content_type, body in ((JSON_TYPE, b'{"cash": 1}'), (FORM_TYPE, b"cash=1")):
        answer = api.http.post(
            "/v1/accounts", data=body, content_type=f"{content_type}; charset={charset}"
        )
        assert answer.status_code == 201


@pytest.mark.parametrize("charset", ["latin-1", "utf-16", "x", "utf-8x"])
def test_another_charset_is_not_supported(api: Api, charset: str) -> None:
    for content_type, body in ((JSON_TYPE, b'{"cash": 1}'), (FORM_TYPE, b"cash=1")):
        answer = api.http.post(
            "/v1/accounts", data=body, content_type=f"{content_type}; charset={charset}"
        )
        problem_of(answer, 415, "UNSUPPORTED_MEDIA_TYPE")


@pytest.mark.parametrize("coding", ["gzip", "GZIP", "br", "gzip, identity", "x"])
def test_an_encoded_body_is_not_supported(api: Api, coding: str) -> None:
    headers = {"Content-Encoding": coding}
    answer = api.http.post("/v1/accounts", json={"cash": 1}, headers=headers)
    problem_of(answer, 415, "UNSUPPORTED_MEDIA_TYPE")
    plain = {"Content-Encoding": "identity"}
    assert api.http.post("/v1/accounts", json={"cash": 1}, headers=plain).status_code == 201


# Paths and methods


@pytest.mark.parametrize(
    "path", ["/v1//accounts", "/v1/accounts/", "/v1/accounts/1/", "/v1//", "/v1", ""]
)
def test_a_path_that_is_almost_right_is_not_found_and_leads_nowhere_else(
    api: Api, path: str
) -> None:
    answer = ask(api, path, "POST")
    problem_of(answer, 404, "NOT_FOUND")
    assert "Location" not in answer.headers


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("orders?limit=1&limit=2", "limit"),
        ("orders?status=executed&limit=1&status=executed", "status"),
        ("orders?cursor=a&cursor=a", "cursor"),
        ("orders/01a20d16-e634-7353-a916-d08149ff1d84?wait=0&wait=1", "wait"),
        ("events?last_event_id=&last_event_id=x", "last_event_id"),
    ],
)
def test_a_parameter_that_is_given_twice_is_refused(
    api: Api, account_id: int, path: str, name: str
) -> None:
    assert pointers_of(api.get(f"/v1/accounts/{account_id}/{path}")) == [f"/{name}"]


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "TRACE", "CONNECT", "BREW"])
@pytest.mark.parametrize("path", ["/v1/accounts", "/v1/accounts/1", "/healthz"])
def test_another_method_is_told_which_ones_there_are(api: Api, method: str, path: str) -> None:
    answer = api.http.open(path, method=method)
    problem_of(answer, 405, "METHOD_NOT_ALLOWED")
    assert set(answer.headers["Allow"].split(", ")) & {"GET", "POST"}


def test_head_and_options_have_no_body_and_harm_nothing(api: Api, account_id: int) -> None:
    head = api.http.head(f"/v1/accounts/{account_id}")
    assert (head.status_code, head.data) == (200, b"")
    options = api.http.options("/v1/accounts")
    assert (options.status_code, options.data) == (200, b"")
    assert "POST" in options.headers["Allow"]


# Whatever comes


ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.from_regex(r"-?[0-9]{1,80}(\.[0-9]{1,80})?([eE][+-]?[0-9]{1,20})?", fullmatch=True)
    | st.text(st.characters(categories=["Cs", "Cc", "Cf", "Mn"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=6,
)
ORDERS = st.fixed_dictionaries(
    {}, optional=dict.fromkeys((*order_body(), "cash", "other"), ANYTHING)
)
HEADER_NAMES = st.sampled_from(
    ["Content-Type", "Content-Encoding", "Idempotency-Key", "Host", "Accept", "X-Forwarded-For"]
)
HEADER_CHARACTERS = st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f")
HEADER_VALUES = st.text(HEADER_CHARACTERS, max_size=300)
PATHS = st.sampled_from(["/v1/accounts", "/v1/accounts/1/orders", "/v1/accounts/2/orders"])


@settings(
    STEADY,
    max_examples=150,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(
    path=PATHS,
    body=ORDERS.map(json.dumps) | ANYTHING.map(json.dumps) | st.binary(max_size=300),
    headers=st.dictionaries(HEADER_NAMES, HEADER_VALUES, max_size=3),
)
def test_nothing_that_is_posted_makes_the_service_fail(
    api: Api, path: str, body: str | bytes, headers: dict[str, str]
) -> None:
    if api.get("/v1/accounts/1").status_code == 404:
        api.open_account()
    answer = api.http.post(path, data=body, headers={"Content-Type": JSON_TYPE} | headers)
    assert answer.status_code < 500, answer.text
    if answer.status_code >= 400:
        problem_of(answer, answer.status_code)


def test_a_query_of_raw_bytes_is_malformed(api: Api, account_id: int) -> None:
    answer = ask(api, f"/v1/accounts/{account_id}/orders", "GET", "limit=\x80")
    problem_of(answer, 400, "MALFORMED_REQUEST")


@settings(
    STEADY,
    max_examples=100,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(
    path=st.lists(st.text(max_size=20), max_size=5).map("/".join),
    query=st.lists(
        st.tuples(st.sampled_from(["limit", "cursor", "x"]), st.text(HEADER_CHARACTERS))
    ).map(lambda pairs: "&".join("=".join(pair) for pair in pairs)),
    method=st.sampled_from(["GET", "POST", "HEAD", "OPTIONS", "DELETE"]),
)
def test_no_path_makes_the_service_fail(api: Api, path: str, query: str, method: str) -> None:
    for start in ("/", "/v1/accounts/", "/v1/accounts/1/orders/", "/v1/accounts/1/orders"):
        answer = ask(api, start + path, method, query)
        assert answer.status_code < 500, answer.text
