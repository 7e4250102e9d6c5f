"""How long and how much to measure."""

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from local.commands import ROOT

FOLDER = ROOT / ".bench"
ORDERS_PER_ACCOUNT = 10
"""Of the grown table."""


@dataclass(frozen=True, slots=True)
class Options:
    """The settings of a run; the defaults are those of ``make bench``.

    Args:
        rounds: of everything; the medians of the rounds are what counts.
        seconds: of load for each row and round.
        connections: that a closed loop keeps open.
        rate: requests a second of the steady rows.
        growth: decided orders that the grown table holds, ten for each of its accounts.
        backlog: orders that wait while memory is looked at.
        only: names of groups to run; empty means all.
        check: a missed threshold is a failure.
        out: folder of the report.
    """

    rounds: int = 3
    seconds: float = 6.0
    connections: int = 64
    rate: float = 100.0
    growth: int = 1_000_000
    backlog: int = 100_000
    only: frozenset[str] = frozenset()
    skip: frozenset[str] = frozenset()
    check: bool = False
    out: Path = FOLDER / "results"

    @property
    def grown_accounts(self) -> int:
        """Accounts that the grown table holds."""
        return max(1, self.growth // ORDERS_PER_ACCOUNT)

    def wants(self, group: str) -> bool:
        """Whether a group of rows is to be run."""
        return group not in self.skip and (not self.only or group in self.only)


def read_options(arguments: Sequence[str], groups: Sequence[str]) -> Options:
    """Read the command line; ends with a message where it makes no sense."""
    parser = ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--only", default="", help=f"groups of rows: {','.join(groups)}")
    parser.add_argument("--quick", action="store_true", help="short rounds, no grown table")
    parser.add_argument("--check", action="store_true", help="exit 1 if a threshold is missed")
    parser.add_argument("--seconds", type=float, help="of load for each row and round")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--backlog", type=int)
    parser.add_argument("--growth", type=int, default=1_000_000, help="orders stored before")
    parser.add_argument("--out", type=Path, default=FOLDER / "results")
    read = parser.parse_args(arguments)
    only = frozenset(filter(None, read.only.split(",")))
    if unknown := only - frozenset(groups):
        parser.error(f"there is no {', '.join(sorted(unknown))}; there are {', '.join(groups)}")
    return _options(read, only)


def _options(read: Namespace, only: frozenset[str]) -> Options:
    quick = read.quick
    return Options(
        rounds=read.rounds or (2 if quick else 3),
        seconds=read.seconds or (2.0 if quick else 6.0),
        connections=read.connections,
        growth=read.growth,
        backlog=read.backlog or (10_000 if quick else 100_000),
        only=only,
        skip=frozenset({"growth"}) if quick and "growth" not in only else frozenset(),
        check=read.check,
        out=read.out,
    )
