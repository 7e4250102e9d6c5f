"""Logs: one line for each event, with what it is about and without secrets."""

import json
import logging
from collections.abc import Callable, Iterator

import pytest
import structlog

from api import problems
from api.access import name_request
from shared.access import new_key
from shared.logs import TEXT_LENGTH_MAX, configure_logs, get_logger
from tests.unit.api.parts import Api


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().err.splitlines()


def test_an_event_is_one_line_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs()

    try:
        int("first\nsecond")
    except ValueError:
        get_logger("here").exception("went_wrong", order_id="x")
    logging.getLogger("a.library").warning("said %s", "this\nand that")

    ours, theirs = map(json.loads, lines(capsys))
    assert (ours["event"], ours["module"], ours["order_id"]) == ("went_wrong", "here", "x")
    assert ours["level"] == "error"
    assert "second" in ours["exception"]
    assert theirs["event"] == "said this\nand that"


def test_a_text_in_a_line_has_so_many_characters_and_no_more(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure_logs()
    fits = "x" * TEXT_LENGTH_MAX
    get_logger("here").warning("said", error=fits)
    get_logger("here").warning("said", error=fits + "y")
    logging.getLogger("a.library").warning("%s", fits + "y")
    try:
        dict[str, int]()["x" * 2 * TEXT_LENGTH_MAX]
    except KeyError:
        get_logger("here").exception("went_wrong")

    whole, cut, of_a_library, raised = map(json.loads, lines(capsys))
    assert whole["error"] == fits
    assert cut["error"] == of_a_library["event"] == fits + "..."
    assert len(raised["exception"]) == TEXT_LENGTH_MAX + 3


def test_a_secret_is_not_cut_in_half(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs()
    written = new_key("0123456789ab")
    get_logger("here").warning("said", error="x" * (TEXT_LENGTH_MAX - 40) + f" {written}")

    assert written.partition(".")[2][:8] not in lines(capsys)[0]


def test_a_person_can_have_it_in_another_form(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("console")

    get_logger("here").info("went_well", orders=3)

    (line,) = lines(capsys)
    assert "went_well" in line
    assert "orders=3" in line
    assert not line.startswith("{")


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_secrets_that_get_into_a_line_do_not_get_out(
    log_format: str, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logs(log_format)
    key = new_key("0123456789ab")
    secret = key.partition(".")[2]

    get_logger("here").warning("refused", error=f"no such key: {key}")
    logging.getLogger("a.library").error("cannot reach redis://user:hunter2@broker:6379/0")

    text = "\n".join(lines(capsys))
    assert secret not in text
    assert "hunter2" not in text
    assert "op_live_0123456789ab" in text
    assert "@broker:6379/0" in text


def test_what_is_logged_in_a_request_says_in_which(
    api: Api, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    configure_logs(steps=[name_request])
    # A logger keeps the stream that it began with.
    monkeypatch.setattr(problems, "log", get_logger("api.problems"))
    api.store.is_down = True

    answer = api.http.get("/v1/accounts/1", headers={"X-Request-Id": "a-client-s-own"})

    (line,) = map(json.loads, lines(capsys))
    assert line["event"] == "store_unavailable"
    assert line["request_id"] == answer.headers["X-Request-Id"] == "a-client-s-own"


def test_what_is_logged_elsewhere_names_no_request(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(steps=[name_request])

    get_logger("here").info("began")

    assert "request_id" not in json.loads(lines(capsys)[0])


def test_a_request_has_one_id_however_often_it_is_asked_for(make_api: Callable[..., Api]) -> None:
    api = make_api()
    account = api.open_account()
    body = {"timestamp": 0, "operation": "BUY", "issuer_name": "A", "total_shares": 1}

    answer = api.post(f"/v1/accounts/{account}/orders", body | {"share_price": 1})

    assert api.queue.origins == [[answer.headers["X-Request-Id"]]]
