"""Recording accounts and orders, on the engine."""

import pytest

from tests.unit.store.test_accepts import *  # noqa: F403 - all of its tests

pytestmark = pytest.mark.integration
