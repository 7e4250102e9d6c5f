"""Engines for whoever needs them, and the processes' logs beside each failure."""

from collections.abc import Generator, Iterator

import pytest

from tests.stack import Engines, live_stacks


@pytest.fixture(scope="session")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engines]:
    """Engines that nobody breaks."""
    with Engines(tmp_path_factory.mktemp("engines")) as running:
        yield running


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        report.sections += [(f"logs of {stack.table_name}", stack.logs()) for stack in live_stacks]
    return report
