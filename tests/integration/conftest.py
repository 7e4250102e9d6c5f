"""Stacks for the integration tests: started once and shared by those that only use them."""

from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta

import pytest

from tests.integration.client import Client
from tests.stack import Engines, Stack


@pytest.fixture(scope="module")
def own_engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engines]:
    """Engines that the module may kill, pause and flush."""
    with Engines(tmp_path_factory.mktemp("own-engines")) as running:
        yield running


@pytest.fixture(scope="session")
def stacks(engines: Engines) -> Iterator[dict[int, Stack]]:
    """A stack with one worker and one with three, by their number of workers."""
    one_each = {"WORKER_PROCESSES": "1"}
    with ExitStack() as cleanup:
        yield {
            1: cleanup.enter_context(Stack(engines, workers=1, env=one_each, flower=True)),
            3: cleanup.enter_context(Stack(engines, workers=3, env=one_each)),
        }


@pytest.fixture(scope="session")
def client(stacks: dict[int, Stack]) -> Client:
    return Client(stacks[1].url)


@pytest.fixture(scope="session")
def flower_url(stacks: dict[int, Stack]) -> str:
    return f"http://127.0.0.1:{stacks[1].flower_port}"


@pytest.fixture(scope="session")
def closed_client(engines: Engines) -> Iterator[Client]:
    """The API of a market that opens for one minute, twelve hours from now."""
    opens = datetime.now(UTC) + timedelta(hours=12)
    closes = opens + timedelta(minutes=1)
    env = {
        "MARKET_ALWAYS_OPEN": "false",
        "MARKET_TZ": "UTC",
        "MARKET_OPEN": f"{opens:%H:%M}",
        "MARKET_CLOSE": f"{closes:%H:%M}",
    }
    with Stack(engines, api_processes=1, workers=1, env=env) as stack:
        yield Client(stack.url)
