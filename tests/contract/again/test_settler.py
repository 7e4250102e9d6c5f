"""Settling, on the engine."""

import pytest

from tests.unit.test_settler import *  # noqa: F403 - all of its tests

pytestmark = pytest.mark.integration
