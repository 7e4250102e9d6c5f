"""What clients do to get in without a key, or into accounts of others with their own."""

import string
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.test import EnvironBuilder, run_wsgi_app

from shared.access import Scope, id_in
from tests.unit.api.access.parts import Guarded, bearer, guard
from tests.unit.api.parts import Api, problem_of
from tests.unit.factories import STEADY

OWN, FOREIGN = 1, 2
OWN_CASH, FOREIGN_CASH = "111.25", "98765.4321"
FOREIGN_PATH = f"/v1/accounts/{FOREIGN}"
ALPHABET = string.ascii_letters + string.digits + "-_"


@pytest.fixture(name="house")
def _house(guarded: Guarded) -> Guarded:
    opener = guarded.make_key(scope=Scope.ALL_ACCOUNTS)
    for cash in (OWN_CASH, FOREIGN_CASH):
        assert guarded.post("/v1/accounts", {"cash": cash}, opener).status_code == 201
    guarded.keys = {"own": guarded.make_key(OWN), "foreign": guarded.make_key(FOREIGN)}
    return guarded


def raw_call(house: Guarded, path: str, **environ: Any) -> tuple[str, bytes]:
    """Call the application with exactly this PATH_INFO, as servers hand it on."""
    base = EnvironBuilder("/").get_environ() | {"REMOTE_ADDR": "127.0.0.1"}
    body, status, _ = run_wsgi_app(
        house.http.application, base | {"PATH_INFO": path} | environ, buffered=True
    )
    return status, b"".join(body)


# Keys


def test_any_text_but_the_key_is_refused(house: Guarded) -> None:
    @STEADY
    @given(
        st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_characters="\x7f"))
    )
    def check(text: str) -> None:
        for name in ("HTTP_AUTHORIZATION", "HTTP_X_API_KEY"):
            for value in (text, f"Bearer {text}", f"Bearer op_live_{text}"):
                status, body = raw_call(house, FOREIGN_PATH, **{name: value})
                assert status.startswith("401")
                assert FOREIGN_CASH.encode() not in body

    check()


def test_a_key_with_one_character_changed_is_refused(house: Guarded) -> None:
    key = house.keys["foreign"]
    assert house.get(FOREIGN_PATH, key).status_code == 200

    @STEADY
    @given(st.integers(0, len(key)), st.sampled_from(ALPHABET + "., \t"), st.integers(0, 2))
    def check(place: int, character: str, kind: int) -> None:
        # Insert a character, replace one, take one away.
        changed = key[:place] + (character if kind < 2 else "") + key[place + (kind > 0) :]
        expected = "200" if changed == key else "401"
        status, _ = raw_call(house, FOREIGN_PATH, HTTP_X_API_KEY=changed)
        assert status.startswith(expected), changed

    check()


@pytest.mark.parametrize("change", [str.upper, str.swapcase, str.title])
def test_a_key_in_other_letters_is_refused(house: Guarded, change: Callable[[str], str]) -> None:
    changed = change(house.keys["foreign"])
    problem_of(house.get(FOREIGN_PATH, changed), 401, "KEY_REFUSED")


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_the_scheme_is_written_in_any_case(house: Guarded, scheme: str) -> None:
    headers = {"Authorization": f"{scheme} {house.keys['own']}"}
    assert house.http.get(f"/v1/accounts/{OWN}", headers=headers).status_code == 200


@pytest.mark.parametrize(
    "field", ["Basic {}", "Token {}", "{}", "Bearer  {}", "Bearer\t{}", "Bearer{}"]
)
def test_another_scheme_is_refused(house: Guarded, field: str) -> None:
    headers = {"Authorization": field.format(house.keys["own"])}
    answer = house.http.get(f"/v1/accounts/{OWN}", headers=headers)
    problem_of(answer, 401, "KEY_REFUSED")


def test_two_keys_are_no_key(house: Guarded) -> None:
    own, foreign = house.keys["own"], house.keys["foreign"]
    # How servers hand on a field that was sent twice.
    for joiner in (",", ", ", " ", "\t", ";"):
        for one, other in ((own, foreign), (foreign, own), (foreign, foreign)):
            twice = f"Bearer {one}{joiner}Bearer {other}"
            status, _ = raw_call(house, FOREIGN_PATH, HTTP_AUTHORIZATION=twice)
            assert status.startswith("401"), twice
            status, _ = raw_call(house, FOREIGN_PATH, HTTP_X_API_KEY=f"{one}{joiner}{other}")
            assert status.startswith("401")


def test_two_fields_must_show_the_same_key(house: Guarded) -> None:
    own, foreign = house.keys["own"], house.keys["foreign"]
    for one, other in ((own, foreign), (foreign, own), (foreign, ""), (foreign, "x")):
        headers = {**bearer(one), "X-API-Key": other}
        answer = house.http.get(FOREIGN_PATH, headers=headers)
        problem_of(answer, 401, "KEY_REFUSED")
    same = {**bearer(foreign), "X-API-Key": foreign}
    assert house.http.get(FOREIGN_PATH, headers=same).status_code == 200
    basic = {"Authorization": "Basic eDp5", "X-API-Key": foreign}
    problem_of(house.http.get(FOREIGN_PATH, headers=basic), 401, "KEY_REFUSED")


@pytest.mark.parametrize(
    "place",
    ["?key={}", "?api_key={}", "?access_token={}", "?authorization=Bearer%20{}"],
)
def test_a_key_in_the_query_is_no_key(house: Guarded, place: str) -> None:
    answer = house.get(FOREIGN_PATH + place.format(house.keys["foreign"]))
    problem_of(answer, 401, "KEY_REQUIRED")


@pytest.mark.parametrize(
    "name",
    ["Cookie", "Proxy-Authorization", "X-Authorization", "Api-Key", "X-Forwarded-Authorization"],
)
def test_a_key_in_another_field_is_no_key(house: Guarded, name: str) -> None:
    headers = {name: f"Bearer {house.keys['foreign']}"}
    problem_of(house.http.get(FOREIGN_PATH, headers=headers), 401, "KEY_REQUIRED")


@given(st.text())
def test_reading_a_key_never_fails(text: str) -> None:
    key_id = id_in(text)
    assert key_id is None or len(text) == 64


# Paths


PATHS = [
    FOREIGN_PATH,
    f"/accounts/{FOREIGN}",
    f"/v1/accounts/0{FOREIGN}",
    f"/v1/accounts/00000000000000000{FOREIGN}",
    f"/v1/accounts/{FOREIGN}/",
    f"/v1//accounts/{FOREIGN}",
    f"//v1/accounts/{FOREIGN}",
    f"/v1/accounts//{FOREIGN}",
    f"/v1/accounts/{OWN}/../{FOREIGN}",
    f"/v1/accounts/{OWN}/..;/{FOREIGN}",
    f"/v1/accounts/{OWN}/%2e%2e/{FOREIGN}",
    f"/v1/accounts/{OWN}%2f..%2f{FOREIGN}",
    f"/v1/accounts/{OWN}%00/../{FOREIGN}",
    f"/v1/accounts/{FOREIGN};x=1",
    f"/v1/accounts/{FOREIGN}%20",
    f"/v1/accounts/ {FOREIGN}",
    f"/v1/accounts/+{FOREIGN}",
    f"/v1/accounts/-{FOREIGN}",
    f"/v1/accounts/{FOREIGN}.0",
    f"/v1/accounts/{FOREIGN}.json",
    f"/v1/accounts/{OWN},{FOREIGN}",
    f"/V1/ACCOUNTS/{FOREIGN}",
    f"/v1/accounts/{chr(0xFF10 + FOREIGN)}",
    f"/v1/./accounts/{FOREIGN}",
    f"/v1/healthz/../accounts/{FOREIGN}",
    f"/healthz/../v1/accounts/{FOREIGN}",
    f"/healthz;/v1/accounts/{FOREIGN}",
    f"/v2/accounts/{FOREIGN}",
    f"/static/../v1/accounts/{FOREIGN}",
    f"/v1/accounts/{FOREIGN}/orders",
    f"/accounts/{FOREIGN}/orders",
]


METHODS = ["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"]


@pytest.mark.parametrize("method", METHODS)
def test_no_path_leads_a_key_to_accounts_of_others(house: Guarded, method: str) -> None:
    for path in PATHS:
        encoded = path.encode().decode("latin-1")
        stranger, body = raw_call(house, encoded, REQUEST_METHOD=method)
        assert stranger.startswith("401"), path
        assert FOREIGN_CASH.encode() not in body
        holder, body = raw_call(
            house, encoded, REQUEST_METHOD=method, HTTP_X_API_KEY=house.keys["own"]
        )
        assert holder[:3] in ("404", "405"), path
        assert FOREIGN_CASH.encode() not in body


def test_the_same_paths_lead_to_ones_own_account(house: Guarded) -> None:
    key = house.keys["own"]
    for path in (f"/v1/accounts/{OWN}", f"/accounts/{OWN}", f"/v1/accounts/0{OWN}"):
        status, body = raw_call(house, path, HTTP_X_API_KEY=key)
        assert status.startswith("200")
        assert OWN_CASH.encode() in body


# Fields that other servers obey


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("X-Original-URL", FOREIGN_PATH),
        ("X-Rewrite-URL", FOREIGN_PATH),
        ("X-Original-URL", "/healthz"),
        ("X-Rewrite-URL", "/healthz"),
        ("X-Forwarded-Prefix", "/v1/accounts/2"),
        ("X-Script-Name", "/v1/accounts/2"),
        ("X-HTTP-Method-Override", "OPTIONS"),
        ("X-Method-Override", "GET"),
        ("X-Forwarded-For", "127.0.0.1"),
        ("X-Forwarded-Host", "127.0.0.1"),
        ("X-Forwarded-User", "operator"),
        ("X-Real-IP", "127.0.0.1"),
        ("Forwarded", "for=127.0.0.1"),
        ("True-Client-IP", "127.0.0.1"),
        ("Host", "127.0.0.1"),
    ],
)
def test_no_field_makes_up_for_a_key(house: Guarded, name: str, value: str) -> None:
    answer = house.http.get(f"/v1/accounts/{OWN}", headers={name: value})
    problem_of(answer, 401, "KEY_REQUIRED")
    own = house.http.get(f"/v1/accounts/{OWN}", headers={name: value, **bearer(house.keys["own"])})
    assert own.status_code == 200
    assert OWN_CASH in own.text
    foreign = house.http.get(FOREIGN_PATH, headers={name: value, **bearer(house.keys["own"])})
    problem_of(foreign, 404, "ACCOUNT_NOT_FOUND")


# An API without keys


def test_an_api_without_keys_serves_its_own_machine_alone(make_api: Callable[..., Api]) -> None:
    open_api = guard(make_api(access_keys="off"))
    for peer in ("127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"):
        answer = open_api.http.get("/v1/accounts/1", environ_base={"REMOTE_ADDR": peer})
        problem_of(answer, 404, "ACCOUNT_NOT_FOUND")
    for peer in ("10.0.0.1", "192.0.2.1", "2001:db8::1", "::ffff:10.0.0.1", "", "unix:"):
        for headers in ({}, {"X-Forwarded-For": "127.0.0.1"}):
            answer = open_api.http.get(
                "/v1/accounts/1", environ_base={"REMOTE_ADDR": peer}, headers=headers
            )
            problem_of(answer, 403, "FORBIDDEN")


def test_what_was_opened_twice_serves_everybody(make_api: Callable[..., Api]) -> None:
    open_api = guard(
        make_api(
            access_keys="off",
            api_host="0.0.0.0",
            open_to_everyone_without_keys=True,
            anyone_may_trade_and_read_all_accounts=True,
        )
    )
    answer = open_api.http.get("/v1/accounts/1", environ_base={"REMOTE_ADDR": "192.0.2.1"})
    problem_of(answer, 404, "ACCOUNT_NOT_FOUND")
