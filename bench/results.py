"""What was measured, by row and round, and what may be said of it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from bench.figures import Spread, paired_ratio


@dataclass(frozen=True, slots=True)
class Figure:
    """One row of one round.

    Args:
        value: the figure itself, in the row's unit.
        cpu_ms: CPU milliseconds of each part for each thing counted.
        load_share: CPU seconds of the load process for each second.
        notes: whatever else was seen, by name.
    """

    value: float
    cpu_ms: Mapping[str, float] = field(default_factory=dict)
    load_share: float | None = None
    notes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table."""

    name: str
    title: str
    unit: str


@dataclass(slots=True)
class Results:
    """Every figure of a run, the rows that could not be measured, and the groups that failed."""

    rows: dict[str, Row] = field(default_factory=dict)
    figures: dict[str, list[Figure]] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def add(self, row: Row, figure: Figure) -> None:
        """Keep one round's figure."""
        self.rows[row.name] = row
        self.figures.setdefault(row.name, []).append(figure)

    def leave_out(self, row: Row, why: str) -> None:
        """Say why a row has no figure."""
        self.rows[row.name] = row
        self.absent[row.name] = why

    def spread(self, name: str) -> Spread | None:
        """The row's median, least and most, or None if it was not measured."""
        values = self.values(name)
        return Spread.of(values) if values else None

    def values(self, name: str) -> list[float]:
        """The row's values by round."""
        return [figure.value for figure in self.figures.get(name, [])]

    def ratio(self, name: str, yardstick: str) -> Spread | None:
        """The row by its yardstick, round by round, or None if one was not measured."""
        values, yardsticks = self.values(name), self.values(yardstick)
        if not values or not yardsticks or not all(yardsticks):
            return None
        return paired_ratio(values, yardsticks)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "rows": {name: asdict(row) for name, row in self.rows.items()},
            "figures": {name: list(map(asdict, all_)) for name, all_ in self.figures.items()},
            "absent": self.absent,
            "failures": self.failures,
        }
