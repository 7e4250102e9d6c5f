"""Committing decisions, on the engine."""

import pytest

from tests.unit.store.test_commits import *  # noqa: F403 - all of its tests

pytestmark = pytest.mark.integration
