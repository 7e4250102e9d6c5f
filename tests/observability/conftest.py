"""Engines for tests that break what stands before them."""

from collections.abc import Iterator

import pytest

from tests.stack import Engines


@pytest.fixture(scope="module")
def own_engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engines]:
    """Engines that the module may kill, pause and flush."""
    with Engines(tmp_path_factory.mktemp("own-engines")) as running:
        yield running
