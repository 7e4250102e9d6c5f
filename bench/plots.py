"""The plots of the report."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure as Canvas

from bench.done_when import Verdict
from bench.results import Results

mpl.use("Agg")

_GOOD, _BAD, _PLAIN = "#2a7f62", "#c2452d", "#4a6fa5"
_THROUGHPUT = ("classic", "stock", "distinct", "quiet", "hot", "single", "bulk", "drain")
_LATENCY = ("steady_bare", "steady_recorded", "steady_202", "steady_decided", "steady_final")
_SHARES = ("p50", "p90", "p99")


def draw(folder: Path, results: Results, verdicts: Sequence[Verdict]) -> None:
    """Draw what was measured; what was not has no plot."""
    _draw_throughput(folder / "throughput.png", results)
    _draw_latency(folder / "latency.png", results)
    _draw_thresholds(folder / "thresholds.png", verdicts)


def _draw_throughput(path: Path, results: Results) -> None:
    spreads = {name: spread for name in _THROUGHPUT if (spread := results.spread(name))}
    if not spreads:
        return
    canvas = Canvas(figsize=(8, 0.5 * len(spreads) + 1.2), layout="constrained")
    axes = canvas.subplots()
    names = [results.rows[name].title for name in spreads]
    medians = [one.median for one in spreads.values()]
    below = [one.median - one.least for one in spreads.values()]
    above = [one.most - one.median for one in spreads.values()]
    axes.barh(names, medians, xerr=[below, above], color=_PLAIN, capsize=3)
    axes.invert_yaxis()
    axes.set_xlabel("orders (tasks) a second; the lines span all rounds")
    canvas.savefig(path, dpi=120)


def _draw_latency(path: Path, results: Results) -> None:
    found = [name for name in _LATENCY if results.figures.get(name)]
    if not found:
        return
    canvas = Canvas(figsize=(8, 3), layout="constrained")
    axes = canvas.subplots()
    width = 0.8 / len(_SHARES)
    for number, share in enumerate(_SHARES):
        heights = [
            sorted(figure.notes[share] for figure in results.figures[name])[
                len(results.figures[name]) // 2
            ]
            for name in found
        ]
        places = [place + number * width for place in range(len(found))]
        axes.bar(places, heights, width, label=share)
    axes.set_xticks([place + width for place in range(len(found))])
    titles = [results.rows[name].title for name in found]
    names = [title.rpartition(" at ")[0].rstrip(",").replace(", ", ",\n") for title in titles]
    axes.set_xticklabels(names)
    axes.set_ylabel("ms")
    axes.legend()
    canvas.savefig(path, dpi=120)


def _draw_thresholds(path: Path, verdicts: Sequence[Verdict]) -> None:
    """How each ratio stands to its bound: 1 is just enough, and more is better."""
    shown = [one for one in verdicts if one.ratio and one.ratio.median and one.threshold.bound]
    if not shown:
        return
    canvas = Canvas(figsize=(8, 0.4 * len(shown) + 1.2), layout="constrained")
    axes = canvas.subplots()
    names = [f"{one.threshold.name} ({one.threshold.promise})" for one in shown]
    colours = [_GOOD if one.word == "ok" else _BAD for one in shown]
    axes.barh(names, [_margin(one) for one in shown], color=colours)
    axes.axvline(1, color="black", linewidth=1)
    axes.invert_yaxis()
    axes.set_xlabel("by the threshold; 1 is just enough")
    canvas.savefig(path, dpi=120)


def _margin(verdict: Verdict) -> float:
    ratio = verdict.ratio.median if verdict.ratio else 0.0
    bound = verdict.threshold.bound
    return bound / ratio if verdict.threshold.is_ceiling else ratio / bound
