"""Reading a whole table, on the engine."""

import pytest

from tests.unit.store.test_scan import *  # noqa: F403 - all of its tests

pytestmark = pytest.mark.integration
