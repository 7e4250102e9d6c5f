"""Items as the store gives them back, on the engine."""

import pytest

from tests.unit.store.test_items import *  # noqa: F403 - all of its tests

pytestmark = pytest.mark.integration
