"""The bar on standard error that long commands show."""

import sys
from typing import Any, Final

from tqdm import tqdm

_PROGRESS_SECONDS: Final = 0.2


def bar(total: int, *, is_shown: bool | None) -> "tqdm[Any]":
    """A bar over so many items; ``None`` shows it on a terminal alone."""
    return tqdm(
        total=total or None,
        unit=" items",
        unit_scale=True,
        mininterval=_PROGRESS_SECONDS,
        disable=None if is_shown is None else not is_shown,
        file=sys.stderr,
    )
