"""A fake service, and a client whose pauses take no time but are written down."""

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from order_client import Client, Retry, Time
from tests.unit.client.fake import FakeService

NOW = datetime(2026, 3, 2, 15, 4, 5, tzinfo=UTC)


class Pauses:
    """A clock that only pauses move, with no luck: each pause is as long as it may be."""

    def __init__(self) -> None:
        self.slept: list[float] = []
        self._now = 1000.0

    def monotonic(self) -> float:
        return self._now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self._now += seconds

    def time(self) -> Time:
        return Time(self.monotonic, self.sleep, chance=lambda: 1.0, now=lambda: NOW)


@pytest.fixture
def pauses() -> Pauses:
    return Pauses()


@pytest.fixture
def fake() -> Iterator[FakeService]:
    with FakeService() as service:
        yield service


@pytest.fixture
def client(fake: FakeService, pauses: Pauses) -> Iterator[Client]:
    with Client(
        fake.url, "secret", timeout=5, retry=Retry(attempts_max=4), time=pauses.time()
    ) as c:
        yield c
