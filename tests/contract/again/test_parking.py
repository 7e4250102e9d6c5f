"""Parked orders, on the engine."""

import pytest

from tests.unit.store.test_parking import *  # noqa: F403 - all of its tests

pytestmark = pytest.mark.integration
