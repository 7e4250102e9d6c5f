from collections.abc import Callable

import pytest

from tests.unit.api.access.parts import Guarded, guard
from tests.unit.api.parts import Api


@pytest.fixture
def guarded(make_api: Callable[..., Api]) -> Guarded:
    return guard(make_api(access_keys="required"))
