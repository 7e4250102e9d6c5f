"""``make simulate``: many schedules with a line of progress, or one again with its trace."""

import argparse
import os
import sys
from contextlib import nullcontext

from tests.simulation import patches, runner
from tests.simulation.bugs import BUGS
from tests.simulation.runner import Summary
from tests.simulation.scenario import KINDS


def main() -> int:
    """Run what the command line asks for; returns 1 if a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, help="replay this one schedule, with its trace")
    parser.add_argument("--schedules", type=int, default=10_000, help="how many (10000)")
    parser.add_argument("--first", type=int, default=0, help="the first seed (0)")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--kind", choices=KINDS, help="schedules of one kind alone (with --seed)")
    parser.add_argument("--bug", choices=sorted(BUGS), help="put this bug in: where it shows")
    asked = parser.parse_args()
    if asked.seed is not None:
        return _replay(asked.seed, asked.kind, asked.bug)
    if asked.bug is not None:
        return _hunt(asked.bug, range(asked.first, asked.first + asked.schedules))
    return _run(asked.first, asked.schedules, asked.processes)


def _replay(seed: int, kind: str | None, bug: str | None) -> int:
    with patches.installed(), BUGS[bug].put_in() if bug else nullcontext():
        report = runner.run_one(seed, kind)
    _say(runner.write_report(report))
    return bool(report.problems)


def _hunt(bug: str, seeds: range) -> int:
    failed = runner.failures_until(BUGS[bug].is_shown_by, seeds, BUGS[bug].put_in)
    if not failed or not BUGS[bug].is_shown_by(failed[-1]):
        _say(f"{len(seeds)} schedules did not show {bug}")
        return 0
    _say(f"{runner.write_report(failed[-1])} BUG={bug}")
    return 1


def _run(first: int, count: int, processes: int) -> int:
    def tell(so_far: Summary) -> None:
        per_second = so_far.schedules / so_far.seconds
        line = f"{so_far.schedules}/{count} schedules, {per_second:.0f} a second"
        line += f", {len(so_far.failed)} failed"
        sys.stderr.write(f"\r{line}" if sys.stderr.isatty() else "")
        sys.stderr.flush()

    summary = runner.run_many(first, count, processes, tell)
    sys.stderr.write("\n" if sys.stderr.isatty() else "")
    _say(runner.write_summary(summary))
    if not summary.failed:
        return 0
    _replay(summary.failed[0], None, None)
    _say(f"failed seeds: {' '.join(map(str, summary.failed))}")
    return 1


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


if __name__ == "__main__":
    sys.exit(main())
