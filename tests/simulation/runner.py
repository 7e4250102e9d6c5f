"""Running schedules: one by its seed, or many over the processor's cores."""

import random
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from multiprocessing import get_context
from random import Random
from typing import Final

from tests.simulation import patches, scenario
from tests.simulation.world import Report, World

CHUNK: Final = 25
"""Schedules that a process of the pool runs before it tells."""


@dataclass(slots=True)
class Summary:
    """What many schedules were, together."""

    schedules: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    failed: list[int] = field(default_factory=list)
    seconds: float = 0.0
    """How long they took, all together and on the clock of this machine (``run_many``)."""

    def add(self, other: "Summary") -> None:
        self.schedules += other.schedules
        self.counts.update(other.counts)
        self.failed += other.failed


def run_one(seed: int, kind: str | None = None) -> Report:
    """Run the schedule of ``seed`` (within ``patches.installed``)."""
    rng = Random(seed)
    world = World(seed, scenario.draw(rng, kind), rng)
    patches.running.hub = world.hub
    # tenacity draws its pauses from the module's own generator.
    random.seed(seed)
    return world.run()


def run_seeds(seeds: Iterable[int], kind: str | None = None) -> Summary:
    """Run the schedules of ``seeds`` in this process."""
    summary = Summary()
    with patches.installed():
        for seed in seeds:
            report = run_one(seed, kind)
            summary.schedules += 1
            summary.counts.update(report.counts)
            summary.counts[f"kind: {report.scenario.kind}"] += 1
            if report.problems:
                summary.failed.append(seed)
    return summary


def run_many(
    first_seed: int, count: int, processes: int, tell: Callable[[Summary], None] = lambda _: None
) -> Summary:
    """Run ``count`` schedules from ``first_seed`` on; ``tell`` hears how far it is."""
    chunks = [
        range(start, min(start + CHUNK, first_seed + count))
        for start in range(first_seed, first_seed + count, CHUNK)
    ]
    begun = time.monotonic()
    whole = Summary()
    with get_context("spawn").Pool(processes) as pool:
        for summary in pool.imap_unordered(run_seeds, chunks):
            whole.add(summary)
            whole.seconds = time.monotonic() - begun
            tell(whole)
    whole.failed.sort()
    return whole


def failures_until(
    is_sought: Callable[[Report], bool],
    seeds: Iterable[int],
    bug: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> list[Report]:
    """The schedules of ``seeds`` that fail with ``bug`` in the product, up to a sought one.

    The last one is what was sought, unless the seeds came to an end before.
    """
    failed = []
    with patches.installed(), bug():
        for seed in seeds:
            report = run_one(seed)
            if not report.problems:
                continue
            failed.append(report)
            if is_sought(report):
                break
    return failed


def write_report(report: Report) -> str:
    """The seed, how to replay it, the trace and what failed."""
    lines = [f"seed {report.seed}: {report.scenario}"]
    lines += [str(event) for event in report.trace]
    lines += [f"PROBLEM: {problem}" for problem in report.problems] or ["no problem found"]
    lines.append(f"replay with: make simulate SEED={report.seed}")
    return "\n".join(lines)


def write_summary(summary: Summary) -> str:
    """How many schedules there were, and how often what went wrong in them."""
    lines = [
        f"{summary.schedules} schedules in {summary.seconds:.0f} s, {len(summary.failed)} failed",
        *(f"  {count:9,}  {what}" for what, count in sorted(summary.counts.items())),
    ]
    return "\n".join(lines)
