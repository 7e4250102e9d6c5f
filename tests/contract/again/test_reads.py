"""Reading accounts and orders, on the engine."""

import pytest

from tests.unit.store.test_reads import *  # noqa: F403 - all of its tests

pytestmark = pytest.mark.integration
