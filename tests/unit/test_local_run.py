"""The embedded mode's settings, and what keeps it from beginning."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from local.ports import free_port
from local.run import CannotBeginError, _banner, make_plan

REDIS = "redis://redis.example:6379/0"
DYNAMODB = "http://dynamodb.example:8001"


def test_everything_has_a_default() -> None:
    plan = make_plan({})

    assert plan.url == "http://127.0.0.1:8000"
    assert [port.number for port in plan.ports] == [8000, 5555, 6390, 8390]
    assert plan.data == Path(".data").resolve()
    assert plan.workers == 1


def test_the_processes_find_the_embedded_engines() -> None:
    plan = make_plan({"EMBEDDED_REDIS_PORT": "7001", "EMBEDDED_DYNAMODB_PORT": "7002"})

    assert plan.environment["REDIS_URL"] == "redis://127.0.0.1:7001/0"
    assert plan.environment["AWS_ENDPOINT_URL_DYNAMODB"] == "http://127.0.0.1:7002"
    assert plan.environment["AWS_ACCESS_KEY_ID"] == "embedded"


def test_a_profile_of_the_users_does_not_reach_the_embedded_engine() -> None:
    assert "AWS_PROFILE" not in make_plan({"AWS_PROFILE": "work"}).environment


def test_a_redis_of_the_users_takes_the_place_of_the_embedded_one() -> None:
    plan = make_plan({"REDIS_URL": REDIS})

    assert plan.redis is None
    assert plan.environment["REDIS_URL"] == REDIS
    assert plan.dynamodb is not None


def test_a_dynamodb_of_the_users_comes_with_their_own_credentials() -> None:
    given = {"AWS_ENDPOINT_URL_DYNAMODB": DYNAMODB, "AWS_PROFILE": "work"}

    plan = make_plan(given)

    assert plan.dynamodb is None
    assert plan.environment.items() >= given.items()
    assert "AWS_ACCESS_KEY_ID" not in plan.environment


def test_sweeper_and_workers_show_metrics_on_ports_that_follow_each_other() -> None:
    plan = make_plan({"METRICS_PORT": "9464", "WORKERS": "2"})

    assert [port.number for port in plan.ports][-3:] == [9464, 9465, 9466]
    assert make_plan({"METRICS_PORT": "0"}).metrics is None


def test_an_empty_variable_is_an_unset_one() -> None:
    assert make_plan({"REDIS_URL": "", "API_PORT": ""}) == make_plan({})


def test_the_market_is_always_open_and_the_plan_says_so() -> None:
    plan = make_plan({})

    assert plan.environment["MARKET_ALWAYS_OPEN"] == "true"
    assert plan.market == "always open in this mode"


def test_on_loopback_no_keys_are_asked_for_and_the_banner_says_so() -> None:
    plan = make_plan({})

    assert plan.environment["ACCESS_KEYS"] == "off"
    assert "none asked for" in _banner(plan)
    assert "Authorization" not in _banner(plan)


@pytest.mark.parametrize(
    "given", [{"API_HOST": "0.0.0.0"}, {"API_HOST": "192.0.2.1"}, {"ACCESS_KEYS": "required"}]
)
def test_elsewhere_keys_are_required_and_the_banner_says_how_to_make_one(
    given: dict[str, str],
) -> None:
    plan = make_plan(given)

    assert plan.environment.get("ACCESS_KEYS", "required") == "required"
    assert "keys create" in _banner(plan)
    assert "Authorization: Bearer" in _banner(plan)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MARKET_OPEN", "07:00"),
        ("MARKET_CLOSE", "16:00"),
        ("MARKET_TZ", "UTC"),
        ("MARKET_DAYS", "mon-fri"),
        ("MARKET_ALWAYS_OPEN", "false"),
    ],
)
def test_hours_of_the_users_are_kept(name: str, value: str) -> None:
    plan = make_plan({name: value})

    assert plan.environment[name] == value
    assert plan.environment.get("MARKET_ALWAYS_OPEN") != "true"
    assert plan.market == f"as you set it ({name}={value})"


@pytest.mark.parametrize("value", ["0", "-1", "65536", "http", "8.5", " "])
def test_a_port_that_is_none_is_refused_by_name(value: str) -> None:
    with pytest.raises(CannotBeginError, match="API_PORT must be a number from 1 to 65535"):
        make_plan({"API_PORT": value})


@pytest.mark.parametrize(
    ("value", "fine"), [("1", True), ("64", True), ("0", False), ("65", False)]
)
def test_the_number_of_workers_is_bounded(value: str, fine: bool) -> None:
    if fine:
        assert make_plan({"WORKERS": value}).workers == int(value)
        return
    with pytest.raises(CannotBeginError, match="WORKERS"):
        make_plan({"WORKERS": value})


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("0.0.0.0", "http://127.0.0.1:8000"),
        ("::", "http://[::1]:8000"),
        ("::1", "http://[::1]:8000"),
    ],
)
def test_the_url_is_one_that_this_machine_can_open(host: str, url: str) -> None:
    assert make_plan({"API_HOST": host}).url == url


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield int(server.getsockname()[1])


def begin(tmp_path: Path, **changes: str) -> "subprocess.CompletedProcess[str]":
    """Run the embedded mode with settings that keep it from beginning."""
    ports = ("API_PORT", "FLOWER_PORT", "EMBEDDED_REDIS_PORT", "EMBEDDED_DYNAMODB_PORT")
    env = {name: str(free_port()) for name in ports} | {"DATA_DIR": str(tmp_path / "data")}
    argv = [sys.executable, "-m", "local.run"]
    return subprocess.run(
        argv, env=env | changes, capture_output=True, text=True, timeout=30, check=False
    )


@pytest.mark.parametrize(
    "variable", ["API_PORT", "FLOWER_PORT", "EMBEDDED_REDIS_PORT", "EMBEDDED_DYNAMODB_PORT"]
)
def test_a_taken_port_is_refused_and_nothing_starts(
    tmp_path: Path, taken_port: int, variable: str
) -> None:
    ended = begin(tmp_path, **{variable: str(taken_port)})

    assert ended.returncode == 2
    assert ended.stdout == ""
    assert ended.stderr == (
        f"Port {taken_port} on 127.0.0.1 is taken. Stop what listens there,"
        f" or set {variable} to another port.\n"
    )


def test_one_port_for_two_servers_is_refused(tmp_path: Path) -> None:
    port = str(free_port())

    ended = begin(tmp_path, API_PORT=port, FLOWER_PORT=port)

    assert ended.returncode == 2
    assert f"FLOWER_PORT={port} is also the port of another part" in ended.stderr


def test_a_data_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")

    ended = begin(tmp_path)

    assert ended.returncode == 2
    assert "cannot be used" in ended.stderr
    assert "DATA_DIR" in ended.stderr
