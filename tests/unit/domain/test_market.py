"""When the market is open, and how its hours are written down."""

from datetime import UTC, datetime, time, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest

from shared.domain.market import ALWAYS_OPEN, EVERY_DAY, MIDNIGHT, Market, parse_market

NEW_YORK = ZoneInfo("America/New_York")
FIRST_INSTANT = datetime.min.replace(tzinfo=UTC)
LAST_INSTANT = datetime.max.replace(tzinfo=UTC)
MONDAY = datetime(2026, 3, 2, tzinfo=UTC)


def utc(hour: int, minute: int = 0, second: int = 0, microsecond: int = 0) -> datetime:
    return datetime(2026, 3, 2, hour, minute, second, microsecond, tzinfo=UTC)


@pytest.mark.parametrize(
    ("instant", "is_open"),
    [
        (utc(11, 59, 59, 999_999), False),
        (utc(12), True),
        (utc(20, 59, 59, 999_999), True),
        (utc(21), False),
    ],
)
def test_the_house_is_open_from_six_to_fifteen_in_mexico_city(
    instant: datetime, is_open: bool
) -> None:
    assert Market().is_open(instant) is is_open


@pytest.mark.parametrize("month", [1, 4, 7, 10])
def test_mexico_city_is_six_hours_behind_utc_all_year(month: int) -> None:
    opening = datetime(2026, month, 15, 12, tzinfo=UTC)
    assert Market().is_open(opening)
    assert not Market().is_open(opening - timedelta(microseconds=1))


def test_the_offset_in_which_an_instant_is_written_does_not_matter() -> None:
    tokyo = timezone(timedelta(hours=9))
    assert Market().is_open(utc(12).astimezone(tokyo))
    assert not Market().is_open(utc(21).astimezone(tokyo))


def test_hours_follow_the_clocks_of_the_zone() -> None:
    market = Market(time(9, 30), time(16), NEW_YORK)
    winter, summer = datetime(2026, 3, 6, tzinfo=UTC), datetime(2026, 3, 9, tzinfo=UTC)
    assert market.is_open(winter.replace(hour=14, minute=30))
    assert not market.is_open(winter.replace(hour=13, minute=30))
    assert market.is_open(summer.replace(hour=13, minute=30))
    assert not market.is_open(summer.replace(hour=20))


def test_a_closing_at_midnight_is_the_end_of_the_day() -> None:
    market = Market(time(20), MIDNIGHT, ZoneInfo("UTC"), days=frozenset({0}))
    assert not market.is_open(utc(19, 59, 59, 999_999))
    assert market.is_open(utc(23, 59, 59, 999_999))
    assert not market.is_open(MONDAY + timedelta(days=1))


def test_a_market_that_never_closes_is_open_at_midnight_of_every_day() -> None:
    for hours in range(0, 8 * 24, 3):
        assert ALWAYS_OPEN.is_open(MONDAY + timedelta(hours=hours))


@pytest.mark.parametrize("weekday", range(7))
def test_a_market_is_open_on_its_days_alone(weekday: int) -> None:
    market = Market(zone=ZoneInfo("UTC"), days=frozenset({weekday}))
    noons = [utc(12) + timedelta(days=day) for day in range(7)]
    assert [market.is_open(noon) for noon in noons] == [day == weekday for day in range(7)]


def test_the_day_is_that_of_the_zone() -> None:
    tuesdays = Market(time(6), time(15), ZoneInfo("Asia/Tokyo"), frozenset({1}))
    assert tuesdays.is_open(utc(22))
    assert not tuesdays.is_open(utc(22) + timedelta(days=1))


@pytest.mark.parametrize(
    ("instant", "zone", "has_local_time"),
    [
        (FIRST_INSTANT, "America/Mexico_City", False),
        (FIRST_INSTANT, "Asia/Tokyo", True),
        (LAST_INSTANT, "America/Mexico_City", True),
        (LAST_INSTANT, "Asia/Tokyo", False),
    ],
)
def test_an_instant_without_a_local_time_is_no_time_to_trade(
    instant: datetime, zone: str, has_local_time: bool
) -> None:
    market = Market(MIDNIGHT, MIDNIGHT, ZoneInfo(zone))
    assert market.is_open(instant) is has_local_time


@pytest.mark.parametrize(
    ("opens_at", "closes_at"),
    [(time(15), time(6)), (time(6), time(6)), (time(6, 0, 0, 1), time(6))],
)
def test_hours_that_no_instant_meets_are_refused(opens_at: time, closes_at: time) -> None:
    with pytest.raises(ValueError, match="opens at"):
        Market(opens_at, closes_at)


@pytest.mark.parametrize(
    ("opens_at", "closes_at"),
    [
        (time(6, tzinfo=UTC), time(15, tzinfo=UTC)),
        (time(6, tzinfo=UTC), time(15)),
        (time(6), time(15, tzinfo=UTC)),
        (time(6, tzinfo=UTC), MIDNIGHT),
    ],
)
def test_hours_with_an_offset_of_their_own_are_refused(opens_at: time, closes_at: time) -> None:
    with pytest.raises(ValueError, match="offset"):
        Market(opens_at, closes_at)


@pytest.mark.parametrize("days", [set(), {7}, {-1}, {0, 7}], ids=str)
def test_days_that_no_week_has_are_refused(days: set[int]) -> None:
    with pytest.raises(ValueError, match="weekdays"):
        Market(days=frozenset(days))


def test_hours_are_written_in_one_line() -> None:
    assert str(Market()) == "06:00:00-15:00:00 America/Mexico_City 0123456"
    assert str(Market(time(9, 30), MIDNIGHT, NEW_YORK, frozenset({4, 0}))) == (
        "09:30:00-00:00:00 America/New_York 04"
    )


@pytest.mark.parametrize(
    "market",
    [
        Market(),
        ALWAYS_OPEN,
        Market(time(9, 30, 15, 1), time(16), NEW_YORK, frozenset({0, 4})),
        Market(zone=ZoneInfo("Etc/GMT-14"), days=EVERY_DAY),
    ],
    ids=str,
)
def test_hours_are_read_back_as_they_were_written(market: Market) -> None:
    assert parse_market(str(market)) == market


@pytest.mark.parametrize(
    "text",
    [
        "",
        "06:00:00-15:00:00 UTC",
        "06:00:00 UTC 0",
        "06:00:00-15:00:00 UTC 8",
        "06:00:00-15:00:00 UTC x",
        "15:00:00-06:00:00 UTC 0",
        "25:00-26:00 UTC 0",
    ],
)
def test_what_is_no_market_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - each part has its own message
        parse_market(text)
