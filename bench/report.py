"""The report: a table in Markdown, the same as JSON, and plots."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.done_when import Verdict
from bench.figures import Spread
from bench.plots import draw
from bench.results import Results

_PARTS_FIRST = ("api", "classic", "bare", "worker", "stock", "dynamodb", "redis", "load")


def write(
    folder: Path, results: Results, verdicts: Sequence[Verdict], machine: Mapping[str, str]
) -> Path:
    """Write everything into ``folder``; returns the path of the table."""
    folder.mkdir(parents=True, exist_ok=True)
    table = folder / "results.md"
    table.write_text("\n".join(_markdown(results, verdicts, machine)) + "\n")
    (folder / "results.json").write_text(json.dumps(_plain(results, verdicts, machine), indent=1))
    draw(folder, results, verdicts)
    return table


def summary(results: Results, verdicts: Sequence[Verdict]) -> str:
    """What the terminal shows: figures and verdicts."""
    return "\n".join([*_figures(results), "", *_verdicts(verdicts)])


def _markdown(
    results: Results, verdicts: Sequence[Verdict], machine: Mapping[str, str]
) -> Iterator[str]:
    yield "# Benchmark results"
    yield ""
    yield "Made by `make bench`. How it measures: [performance.md](../performance.md)."
    yield ""
    yield "| machine | |"
    yield "| --- | --- |"
    yield from (f"| {name} | {value} |" for name, value in machine.items())
    yield ""
    yield "## Thresholds"
    yield ""
    yield from _verdicts(verdicts)
    yield ""
    yield from (f"Failed: {failure}\n" for failure in results.failures)
    yield "![thresholds](thresholds.png)"
    yield ""
    yield "## Figures"
    yield ""
    yield "![throughput](throughput.png)"
    yield ""
    yield "Median of the rounds, with the least and the most."
    yield ""
    yield from _figures(results)
    yield ""
    yield "## CPU"
    yield ""
    yield "Milliseconds of each part for each thing counted; last, the load's share of a core."
    yield ""
    yield from _cpu(results)
    yield ""
    yield "## Latency at a steady rate"
    yield ""
    yield "![latency](latency.png)"
    yield ""
    yield from _latency(results)


def _verdicts(verdicts: Sequence[Verdict]) -> Iterator[str]:
    yield "| threshold | must be | ratio | least to most | |"
    yield "| --- | --- | --- | --- | --- |"
    for verdict in verdicts:
        ratio = verdict.ratio
        middle = f"{ratio.median:.2f}" if ratio else "-"
        apart = f"{ratio.least:.2f} to {ratio.most:.2f}" if ratio else "-"
        yield (
            f"| {verdict.threshold.name} | {verdict.threshold.promise} | {middle} | {apart}"
            f" | {verdict.word} |"
        )


def _figures(results: Results) -> Iterator[str]:
    yield "| row | figure | least to most | unit |"
    yield "| --- | --- | --- | --- |"
    for name, row in results.rows.items():
        if name in results.absent and name not in results.figures:
            yield f"| {row.title} | not there | {results.absent[name]} | {row.unit} |"
            continue
        spread = results.spread(name)
        if spread is not None:
            yield f"| {row.title} | {_short(spread.median)} | {_range(spread)} | {row.unit} |"


def _cpu(results: Results) -> Iterator[str]:
    parts = _parts(results)
    yield f"| row | {' | '.join(parts)} | load's share |"
    yield f"| --- |{' --- |' * (len(parts) + 1)}"
    for name, row in results.rows.items():
        figures = [figure for figure in results.figures.get(name, []) if figure.cpu_ms]
        if not figures:
            continue
        cells = [_median_cell([figure.cpu_ms.get(part) for figure in figures]) for part in parts]
        share = _median_cell([figure.load_share for figure in figures])
        yield f"| {row.title} | {' | '.join(cells)} | {share} |"


def _latency(results: Results) -> Iterator[str]:
    yield "| row | p50 ms | p90 ms | p99 ms | max ms |"
    yield "| --- | --- | --- | --- | --- |"
    for name, row in results.rows.items():
        notes = [figure.notes for figure in results.figures.get(name, []) if "p50" in figure.notes]
        if notes:
            cells = [
                _median_cell([note[share] for note in notes])
                for share in ("p50", "p90", "p99", "max")
            ]
            yield f"| {row.title} | {' | '.join(cells)} |"


def _parts(results: Results) -> list[str]:
    found = {part for all_ in results.figures.values() for figure in all_ for part in figure.cpu_ms}
    return [*filter(found.__contains__, _PARTS_FIRST), *sorted(found - set(_PARTS_FIRST))]


def _median_cell(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return _short(Spread.of(known).median) if known else ""


def _range(spread: Spread) -> str:
    return f"{_short(spread.least)} to {_short(spread.most)}"


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _plain(
    results: Results, verdicts: Sequence[Verdict], machine: Mapping[str, str]
) -> dict[str, Any]:
    judged = [
        {
            "name": verdict.threshold.name,
            "promise": verdict.threshold.promise,
            "ratio": verdict.ratio.median if verdict.ratio else None,
            "word": verdict.word,
        }
        for verdict in verdicts
    ]
    return {"machine": dict(machine), "thresholds": judged, **results.to_json()}
