"""The run as a picture: orders accepted and decided, those that wait, and the faults below."""

from collections import Counter
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tests.chaos.nemesis import KINDS, Window
from tests.chaos.report import Run

mpl.use("Agg")

_ACCEPTED, _DECIDED, _WAITING = "#0b6bcb", "#d9480f", "#343a40"
_COLOURS = {
    "api": "#5f6bd8",
    "worker": "#2b8a3e",
    "sweeper": "#868e96",
    "redis": "#c2255c",
    "dynamodb": "#8a5a00",
}
_BAR_SHARE_MIN = 1 / 350
_SHORT_SECONDS_MAX = 150


def draw(run: Run, path: Path) -> None:
    """Draw the run into a PNG."""
    figure = Figure(figsize=(15, 10), dpi=110, layout="constrained")
    rates, waiting, faults = figure.subplots(
        3, 1, sharex=True, gridspec_kw={"height_ratios": [1, 0.35, 1.2], "hspace": 0.02}
    )
    _rates(rates, run)
    _waiting(waiting, run)
    for axes in (rates, waiting):
        _shade(axes, run)
    _faults(faults, run)
    figure.suptitle(_title(run), fontsize=14, fontweight="bold")
    figure.savefig(path)


def _title(run: Run) -> str:
    held = "everything held" if not run.violations else f"{len(run.violations)} VIOLATIONS"
    return (
        f"{len(run.table.orders):,} orders, {len(run.windows)} faults of"
        f" {len({window.kind for window in run.windows})} kinds: {held}"
    )


def _rates(axes: Axes, run: Run) -> None:
    bucket = 1 if run.load_end - run.start < _SHORT_SECONDS_MAX else 5
    for times, colour, label in (
        (run.decided_at(), _DECIDED, "decided"),
        (run.accepted_at(), _ACCEPTED, "accepted"),
    ):
        seconds, rates = _per_second(times, bucket)
        axes.fill_between(seconds, rates, step="post", color=colour, alpha=0.15, linewidth=0)
        axes.step(seconds, rates, where="post", color=colour, linewidth=1.6, label=label)
    # One on each side, for they may be close.
    for name, at, side in (
        ("last fault over", run.healed - run.start, "right"),
        ("all decided", run.decided - run.start, "left"),
    ):
        axes.axvline(at, color="#343a40", linewidth=1, linestyle=":")
        axes.annotate(
            name,
            (at, 0.98),
            xycoords=("data", "axes fraction"),
            rotation=90,
            va="top",
            ha=side,
            fontsize=8,
            color="#343a40",
        )
    axes.set_ylabel("orders per second" if bucket == 1 else f"orders per second ({bucket} s means)")
    axes.set_ylim(bottom=0)
    axes.margins(x=0.005)
    axes.grid(axis="y", alpha=0.3)
    axes.legend(loc="upper left", ncols=2, framealpha=0.9)


def _waiting(axes: Axes, run: Run) -> None:
    """How many accepted orders wait for their decision."""
    changes = [(at, 1) for at in run.accepted_at()] + [(at, -1) for at in run.decided_at()]
    changes.sort()
    # An order can be decided before its client has the answer: then there are fewer than none.
    waiting = [max(0, total) for total in accumulate(change for _, change in changes)]
    times = [at for at, _ in changes]
    axes.fill_between(times, waiting, step="post", color=_WAITING, alpha=0.3, linewidth=0)
    axes.set_ylabel("waiting")
    axes.set_ylim(bottom=0)
    axes.grid(axis="y", alpha=0.3)


def _shade(axes: Axes, run: Run) -> None:
    for window in run.windows:
        axes.axvspan(
            window.start - run.start, window.end - run.start, color="#000000", alpha=0.05, lw=0
        )


def _per_second(times: Sequence[float], bucket: int) -> tuple[list[float], list[float]]:
    counts = Counter(int(at // bucket) for at in times)
    places = range(min(counts, default=0), max(counts, default=0) + 2)
    return [place * bucket for place in places], [counts[place] / bucket for place in places]


def _faults(axes: Axes, run: Run) -> None:
    names = [kind.name for kind in KINDS]
    shortest = _BAR_SHARE_MIN * (run.decided - run.start)
    for window in run.windows:
        length = max(window.end - window.start, shortest)
        axes.barh(
            names.index(window.kind),
            length,
            left=window.start - run.start,
            height=0.7,
            color=_colour(window),
        )
    counts = Counter(window.kind for window in run.windows)
    axes.set_yticks(range(len(names)), [f"{name}  ({counts[name]})" for name in names], fontsize=9)
    axes.invert_yaxis()
    axes.set_xlabel("seconds since the load began")
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)


def _colour(window: Window) -> str:
    return next(colour for part, colour in _COLOURS.items() if window.target.startswith(part))
