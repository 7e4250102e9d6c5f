"""Order ids: strictly increasing, ordered by time, and UUIDs of version 7."""

import sys
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.ids import NO_ORDER_ID, OrderIds, first_id_at, is_order_id, tick_of
from tests.unit.factories import MICROSECOND, NOON, STEADY, seconds

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
instants = st.datetimes(
    min_value=datetime(1970, 1, 1),  # noqa: DTZ001 - hypothesis adds the zone
    timezones=st.just(UTC),
)


def microseconds_in(order_id: str) -> int:
    """Time in an id, rounded up: the ticks of 1/4096 ms round it down."""
    return -(-tick_of(order_id) * 1000 // 4096)


def test_ids_strictly_increase_while_the_clock_stands_still() -> None:
    order_ids = OrderIds()
    made = [order_ids.next(NOON) for _ in range(10_000)]
    assert made == sorted(set(made))


def test_ids_strictly_increase_while_the_clock_runs_backwards() -> None:
    order_ids = OrderIds()
    made = [order_ids.next(NOON - seconds(number)) for number in range(100)]
    assert made == sorted(set(made))


@pytest.fixture
def _threads_take_turns_often() -> Iterator[None]:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("_threads_take_turns_often")
def test_ids_strictly_increase_over_all_threads() -> None:
    order_ids = OrderIds()

    def make(_: int) -> list[str]:
        return [order_ids.next(NOON) for _ in range(1000)]

    with ThreadPoolExecutor(8) as threads:
        made = list(threads.map(make, range(16)))
    assert all(own == sorted(own) for own in made)
    ticks = [tick_of(one) for own in made for one in own]
    assert len(set(ticks)) == len(ticks) == 16_000


def test_ids_of_one_instant_differ_between_processes() -> None:
    made = {OrderIds().next(NOON) for _ in range(1000)}
    assert len(made) == 1000
    assert len({tick_of(one) for one in made}) == 1


@pytest.mark.parametrize("ahead", [timedelta(0), MICROSECOND, timedelta(hours=1)], ids=str)
def test_an_id_follows_the_newest_that_the_account_has(ahead: timedelta) -> None:
    newest = OrderIds().next(NOON + ahead)
    assert OrderIds().next(NOON, after=newest) > newest


def test_an_id_follows_the_clock_where_that_is_ahead() -> None:
    newest = OrderIds().next(NOON)
    made = OrderIds().next(NOON + seconds(60), after=newest)
    assert made >= first_id_at(NOON + seconds(60))


def test_every_id_of_an_instant_can_be_followed() -> None:
    last_of_instant = first_id_at(NOON)[:-12] + "f" * 12
    assert OrderIds().next(NOON, after=last_of_instant) > last_of_instant


def test_an_account_that_is_ahead_does_not_carry_the_others_along() -> None:
    order_ids = OrderIds()
    far = first_id_at(NOON + timedelta(hours=1))
    assert order_ids.next(NOON, after=far) > far
    assert order_ids.next(NOON) < first_id_at(NOON + MICROSECOND)


def test_every_id_sorts_after_that_of_an_account_without_orders() -> None:
    assert OrderIds().next(NOON, after=NO_ORDER_ID) > NO_ORDER_ID
    assert first_id_at(EPOCH) > NO_ORDER_ID


@STEADY
@given(instants)
def test_the_first_id_of_an_instant_bounds_its_ids(instant: datetime) -> None:
    first = first_id_at(instant)
    assert first <= OrderIds().next(instant)
    if instant > EPOCH:
        assert OrderIds().next(instant - MICROSECOND) < first


@STEADY
@given(st.lists(instants, min_size=2, max_size=20, unique=True))
def test_ids_sort_by_time(some: list[datetime]) -> None:
    made = {instant: OrderIds().next(instant) for instant in some}
    assert sorted(some, key=made.__getitem__) == sorted(some)


@STEADY
@given(instants)
def test_the_time_can_be_read_from_an_id(instant: datetime) -> None:
    elapsed = (instant - EPOCH) // MICROSECOND
    for made in (OrderIds().next(instant), first_id_at(instant)):
        assert microseconds_in(made) == elapsed
        assert uuid.UUID(made).int >> 80 == elapsed // 1000


@STEADY
@given(instants)
def test_an_id_is_a_uuid_of_version_7(instant: datetime) -> None:
    made = OrderIds().next(instant)
    parsed = uuid.UUID(made)
    assert (parsed.version, parsed.variant) == (7, uuid.RFC_4122)
    assert made[14] == "7"
    assert made[19] in "89ab"
    assert is_order_id(made)


def test_the_example_of_the_rfc_is_an_order_id() -> None:
    example = "017f22e2-79b0-7cc3-98c4-dc0c0c07398f"
    assert is_order_id(example)
    assert uuid.UUID(example).int >> 80 == 0x017F22E279B0


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1",
        NO_ORDER_ID,
        "017F22E2-79B0-7CC3-98C4-DC0C0C07398F",
        "017f22e279b07cc398c4dc0c0c07398f",
        "{017f22e2-79b0-7cc3-98c4-dc0c0c0739}",
        "017f22e2-79b0-4cc3-98c4-dc0c0c07398f",
        "017f22e2-79b0-7cc3-c8c4-dc0c0c07398f",
        "017f22e2-79b0-7cc3-98c4-dc0c0c07398",
        "017f22e2-79b0-7cc3-98c4-dc0c0c07398f0",
        "017f22e2-79b0-7cc3-98c4-dc0c0c07398g",
        "017f22e2-79b07-cc3-98c4-dc0c0c07398f",
        "\uff10" + "17f22e2-79b0-7cc3-98c4-dc0c0c07398f",
        "017f22e2-79b0-7cc3-98c4-dc0c0c07398f"[:-1] + "\n",
    ],
    ids=ascii,
)
def test_what_is_written_otherwise_is_no_order_id(text: str) -> None:
    assert not is_order_id(text)
