"""The groups of rows, in the sequence in which they run."""

from collections.abc import Callable
from typing import Final

from bench.bed import Bed
from bench.rows import accepting, ceilings, draining, growth, memory, reading, scaling, steady

Group = Callable[[Bed], None]

IN_EACH_ROUND: Final[dict[str, Group]] = {
    "post": accepting.accept,
    "get": reading.read,
    "drain": draining.drain,
    "stock": draining.stock,
    "steady": steady.steady,
    "events": accepting.quiet,
}
"""Compared with one another, so all of them run in each round; ``post`` leaves what others read."""

ONCE: Final[dict[str, Group]] = {
    "calls": reading.count_calls,
    "engines": ceilings.ceilings,
    "workers": scaling.scale,
    "growth": growth.growth,
    "memory": memory.look_at_memory,
}
"""Their comparisons are within the group, which sees to its rounds itself."""

NAMES: Final = (*IN_EACH_ROUND, *ONCE)
NEEDS_FINALS: Final = frozenset({"get", "calls"})
