"""Executed operations written apart, on the engine."""

import pytest

from tests.unit.store.test_overflow import *  # noqa: F403 - all of its tests

pytestmark = pytest.mark.integration
