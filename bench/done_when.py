"""The thresholds: each compares two figures of one run, so that they hold on any machine."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from bench.figures import Spread
from bench.results import Results


@dataclass(frozen=True, slots=True)
class Threshold:
    """What must hold of a row by its yardstick.

    Args:
        name: what it is called in the report.
        row: the row that is judged.
        yardstick: the row by which it is divided.
        bound: what the ratio's median must reach, or must not pass if ``is_ceiling``.
        promise: the same in words.
    """

    name: str
    row: str
    yardstick: str
    bound: float
    promise: str
    is_ceiling: bool = False

    def holds(self, ratio: float) -> bool:
        """Whether a ratio is good enough."""
        return ratio <= self.bound if self.is_ceiling else ratio >= self.bound


@dataclass(frozen=True, slots=True)
class Verdict:
    """A threshold and what the run says of it; without a ratio it was not measured."""

    threshold: Threshold
    ratio: Spread | None

    @property
    def word(self) -> str:
        """``ok``, ``missed`` or ``not measured``."""
        if self.ratio is None:
            return "not measured"
        return "ok" if self.threshold.holds(self.ratio.median) else "missed"


THRESHOLDS: Final = (
    Threshold("distinct accounts", "distinct", "classic", 3, ">= 3 x the classic endpoint"),
    Threshold("20 hot accounts", "hot", "distinct", 0.8, ">= 0.8 x distinct accounts"),
    Threshold("one account", "single", "distinct", 0.5, ">= 0.5 x distinct accounts"),
    Threshold("bulk", "bulk", "classic", 10, ">= 10 x the classic endpoint"),
    Threshold("drain", "drain", "stock", 1.5, ">= 1.5 orders for each task of a stock worker"),
    Threshold("Flower's events", "distinct", "quiet", 0.9, ">= 0.9 x the same without events"),
    Threshold("cached GET", "get_final", "bare", 0.7, ">= 0.7 x a bare Flask route"),
    Threshold(
        "cached GET asks no DynamoDB",
        "get_final_calls",
        "get_final_counted",
        0,
        "0 calls to DynamoDB",
        is_ceiling=True,
    ),
    Threshold(
        "POST to 202, p99", "steady_202", "steady_bare", 2, "<= 2 x the bare route", is_ceiling=True
    ),
    Threshold(
        "POST to final, p99",
        "steady_final",
        "steady_bare",
        4,
        "<= 4 x the bare route",
        is_ceiling=True,
    ),
    Threshold(
        "growth: orders", "grown_distinct", "empty_distinct", 0.95, ">= 0.95 x an empty table"
    ),
    Threshold(
        "growth: accounts opened",
        "grown_accounts",
        "empty_accounts",
        0.95,
        ">= 0.95 x an empty table",
    ),
    Threshold("4 worker processes", "workers_4", "workers_1", 3, ">= 3 x one, store 5 ms away"),
)


def judge(results: Results, thresholds: Sequence[Threshold] = THRESHOLDS) -> list[Verdict]:
    """Hold every threshold against what was measured."""
    return [Verdict(one, results.ratio(one.row, one.yardstick)) for one in thresholds]


def exit_status(verdicts: Sequence[Verdict], *, check: bool) -> int:
    """0, or 1 if a threshold was missed and that is what was asked for."""
    return int(check and any(verdict.word == "missed" for verdict in verdicts))
