"""Percentiles, medians and ratios: the arithmetic of the benchmark, pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from statistics import median


@dataclass(frozen=True, slots=True)
class Spread:
    """The middle of some values and how far they lie apart."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Sum up ``values``, of which there is at least one."""
        return cls(median(values), min(values), max(values))


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that ``share`` (0 to 1) of all ``values`` do not exceed (nearest rank).

    Raises:
        ValueError: there are no values, or the share is none.
    """
    if not values or not 0 < share <= 1:
        raise ValueError(f"no percentile {share} of {len(values)} values")
    # The tiny step back undoes what binary fractions add: 0.07 * 100 must be rank 7, not 8.
    rank = ceil(share * len(values) - 1e-9)
    return sorted(values)[max(rank, 1) - 1]


def paired_ratio(values: Sequence[float], yardsticks: Sequence[float]) -> Spread:
    """Each round's value by the yardstick of the same round; what disturbed one, disturbed both.

    Raises:
        ValueError: there is no round that has both, or a yardstick is zero.
    """
    pairs = list(zip(values, yardsticks, strict=False))
    if not pairs or not all(yardstick for _, yardstick in pairs):
        raise ValueError("nothing to compare")
    return Spread.of([value / yardstick for value, yardstick in pairs])
