"""Settings from the environment: defaults, and values that stop a process at its start."""

from datetime import time, timedelta
from zoneinfo import ZoneInfo

import pytest
from pydantic import ValidationError

from shared.domain.decision import Rules
from shared.domain.market import ALWAYS_OPEN, EVERY_DAY, Market
from shared.settings import Settings, parse_days


@pytest.fixture(autouse=True)
def _no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def test_the_defaults_are_those_of_the_house() -> None:
    settings = Settings()
    assert settings.redis_url == "redis://127.0.0.1:6379/0"
    assert settings.table_name == "orders"
    assert (settings.api_host, settings.api_port) == ("127.0.0.1", 8000)
    assert settings.recover_after == 10
    assert settings.attempts_max == 5
    assert settings.rules == Rules(Market(), timedelta(seconds=5))


def test_each_field_is_an_environment_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    environment = {
        "REDIS_URL": "redis://queue:6380/3",
        "TABLE_NAME": "orders-2",
        "API_PORT": "8080",
        "WORKER_PROCESSES": "7",
        "ATTEMPTS_MAX": "2",
        "RECOVER_AFTER": "0.5",
        "MARKET_OPEN": "09:30",
        "MARKET_CLOSE": "16:00:30",
        "MARKET_TZ": "America/New_York",
        "MARKET_DAYS": "mon-fri",
        "TIMESTAMP_SKEW": "2.5",
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    settings = Settings()
    assert settings.redis_url == "redis://queue:6380/3"
    assert settings.table_name == "orders-2"
    assert settings.api_port == 8080
    assert settings.worker_processes == 7
    assert settings.attempts_max == 2
    assert settings.recover_after == 0.5
    market = Market(
        time(9, 30), time(16, 0, 30), ZoneInfo("America/New_York"), frozenset({0, 1, 2, 3, 4})
    )
    assert settings.rules == Rules(market, timedelta(seconds=2.5))


def test_an_empty_variable_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_PORT", "")
    monkeypatch.setenv("MARKET_DAYS", "")
    settings = Settings()
    assert settings.api_port == 8000
    assert settings.market_days == EVERY_DAY


def test_a_market_that_is_always_open_has_no_hours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MARKET_ALWAYS_OPEN", "true")
    monkeypatch.setenv("MARKET_DAYS", "mon")
    assert Settings().market is ALWAYS_OPEN


def test_a_market_may_close_at_midnight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MARKET_CLOSE", "00:00")
    assert Settings().market.closes_at == time(0)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("API_PORT", "0"),
        ("API_PORT", "65536"),
        ("API_PORT", "http"),
        ("API_THREADS", "0"),
        ("WORKER_PROCESSES", "10001"),
        ("ATTEMPTS_MAX", "0"),
        ("RECOVER_AFTER", "0"),
        ("RECOVER_AFTER", "-1"),
        ("RECOVER_AFTER", "nan"),
        ("SWEEP_EVERY", "86401"),
        ("ACCEPT_SECONDS_MAX", "0"),
        ("BODY_BYTES_MAX", "1023"),
        ("CACHE_SECONDS", "0"),
        ("MARKET_OPEN", "25:00"),
        ("MARKET_OPEN", "noon"),
        ("MARKET_OPEN", "15:00"),
        ("MARKET_CLOSE", "06:00"),
        ("MARKET_DAYS", "mon-"),
        ("MARKET_DAYS", "mon,,tue"),
        ("MARKET_DAYS", "lunes"),
        ("MARKET_ALWAYS_OPEN", "perhaps"),
        ("TIMESTAMP_SKEW", "-0.1"),
        ("TIMESTAMP_SKEW", "300"),
        ("TIMESTAMP_SKEW", "299.9999999"),
        ("TIMESTAMP_SKEW", "nan"),
    ],
)
def test_an_impossible_value_is_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ValidationError):
        Settings()


def test_hours_with_an_offset_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MARKET_OPEN", "06:00Z")
    monkeypatch.setenv("MARKET_CLOSE", "15:00Z")
    with pytest.raises(ValidationError, match="offset"):
        Settings()


# Access


def test_keys_are_required_unless_it_is_said_otherwise() -> None:
    assert Settings().access_keys == "required"
    assert Settings().is_private


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1", "localhost"])
def test_without_keys_the_api_may_listen_on_loopback(
    monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    monkeypatch.setenv("ACCESS_KEYS", "off")
    monkeypatch.setenv("API_HOST", host)
    assert Settings().access_keys == "off"


TWICE = ("OPEN_TO_EVERYONE_WITHOUT_KEYS", "ANYONE_MAY_TRADE_AND_READ_ALL_ACCOUNTS")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "api", "127.0.0.1.example.com"])
@pytest.mark.parametrize("said", [(), TWICE[:1], TWICE[1:]])
def test_without_keys_a_public_address_is_refused_unless_it_is_said_twice(
    monkeypatch: pytest.MonkeyPatch, host: str, said: tuple[str, ...]
) -> None:
    monkeypatch.setenv("API_HOST", host)
    assert Settings().access_keys == "required"
    for name in said:
        monkeypatch.setenv(name, "true")
    assert Settings().access_keys == "required"
    monkeypatch.setenv("ACCESS_KEYS", "off")
    with pytest.raises(ValidationError, match="everybody could trade"):
        Settings()
    for name in TWICE:
        monkeypatch.setenv(name, "true")
    assert Settings().is_open_to_everyone


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ACCESS_KEYS", "no"),
        ("ACCESS_KEYS", "OFF "),
        ("TRUSTED_PROXIES", "10.0.0.1/8"),
        ("TRUSTED_PROXIES", "proxy.example.com"),
        ("TRUSTED_PROXIES", "*"),
        ("KEY_RATE", "-1"),
        ("KEY_RATE", "nan"),
        ("KEY_BURST", "1.5"),
        ("KEY_DAILY_QUOTA", "-1"),
        ("UNVERSIONED_SUNSET", "soon"),
        ("AUDIT_LOG", "perhaps"),
    ],
)
def test_impossible_access_is_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ValidationError):
        Settings()


def test_trusted_proxies_are_networks_or_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings().trusted_proxies == ()
    monkeypatch.setenv("TRUSTED_PROXIES", "10.0.0.0/8, 192.0.2.1,2001:db8::/32")
    written = [str(network) for network in Settings().trusted_proxies]
    assert written == ["10.0.0.0/8", "192.0.2.1/32", "2001:db8::/32"]


@pytest.mark.parametrize("zone", ["Nowhere/City", "../../etc/passwd", "UTC+25"])
def test_a_zone_that_does_not_exist_is_refused(monkeypatch: pytest.MonkeyPatch, zone: str) -> None:
    monkeypatch.setenv("MARKET_TZ", zone)
    with pytest.raises(ValidationError, match="market_tz"):
        Settings()


def test_settings_cannot_be_changed() -> None:
    settings = Settings()
    with pytest.raises(ValidationError, match="frozen"):
        settings.api_port = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "days"),
    [
        ("mon-fri", {0, 1, 2, 3, 4}),
        ("mon,wed,fri", {0, 2, 4}),
        ("sat-mon", {5, 6, 0}),
        ("sun", {6}),
        ("mon-mon", {0}),
        ("mon-sun", {0, 1, 2, 3, 4, 5, 6}),
        ("Mon - Wed, SAT", {0, 1, 2, 5}),
        ("monday-thursday", {0, 1, 2, 3}),
        ("tue,tue-wed", {1, 2}),
    ],
)
def test_days_are_names_or_ranges(text: str, days: set[int]) -> None:
    assert parse_days(text) == days


@pytest.mark.parametrize("text", ["", "mon-", "-mon", "mon;tue", "m", "0-4", "mon-lunes", "mon,"])
def test_what_names_no_day_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no weekday"):
        parse_days(text)


@pytest.mark.parametrize(
    ("redis_url", "cache_url", "location"),
    [
        ("redis://host:6379/0", "", "redis://host:6379/1"),
        ("redis://host:6379", "", "redis://host:6379/1"),
        (
            "rediss://me:secret@host/0?ssl_cert_reqs=none",
            "",
            "rediss://me:secret@host/1?ssl_cert_reqs=none",
        ),
        ("redis://host:6379/0", "redis://other:6380/5", "redis://other:6380/5"),
    ],
)
def test_the_cache_is_the_brokers_second_database_unless_named(
    monkeypatch: pytest.MonkeyPatch, redis_url: str, cache_url: str, location: str
) -> None:
    monkeypatch.setenv("REDIS_URL", redis_url)
    monkeypatch.setenv("CACHE_URL", cache_url)
    assert Settings().cache_location == location
