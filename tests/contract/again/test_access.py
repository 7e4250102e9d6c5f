"""Access keys and networks, on the engine."""

import pytest

from tests.unit.store.test_access import *  # noqa: F403 - all of its tests

pytestmark = pytest.mark.integration
