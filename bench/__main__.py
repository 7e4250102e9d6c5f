"""``python -m bench``: measure the product and its yardsticks in one run, and write the report."""

import shutil
import sys
import time
import traceback
from pathlib import Path
from tempfile import mkdtemp

from bench import machine, report
from bench.bed import Bed, bed_of
from bench.done_when import exit_status, judge
from bench.groups import IN_EACH_ROUND, NAMES, NEEDS_FINALS, ONCE, Group
from bench.options import FOLDER, Options, read_options
from bench.results import Results
from bench.rows.accepting import distinct


def main() -> int:
    """Run what was asked for; 1 if a group failed, or missed a threshold that was to be checked."""
    options = read_options(sys.argv[1:], NAMES)
    results = Results()
    FOLDER.mkdir(exist_ok=True)
    folder = Path(mkdtemp(prefix="run-", dir=FOLDER))
    try:
        with bed_of(options, results, folder) as bed:
            _run(bed, options)
    except BaseException:
        print(f"bench: the logs are in {folder}", file=sys.stderr)
        raise
    if not results.failures:
        shutil.rmtree(folder)
    verdicts = judge(results)
    table = report.write(options.out, results, verdicts, machine.describe())
    print(report.summary(results, verdicts))
    print(f"\nThe whole report: {table}")
    for failure in results.failures:
        print(f"FAILED {failure} (logs: {folder})")
    return 1 if results.failures else exit_status(verdicts, check=options.check)


def _run(bed: Bed, options: Options) -> None:
    in_rounds = {name: run for name, run in IN_EACH_ROUND.items() if options.wants(name)}
    once = {name: run for name, run in ONCE.items() if options.wants(name)}
    if not options.wants("post") and NEEDS_FINALS & (in_rounds.keys() | once.keys()):
        distinct(bed)
    for number in range(options.rounds if in_rounds else 0):
        for name, run in in_rounds.items():
            _say(f"round {number + 1} of {options.rounds}: {name}")
            _run_group(bed, name, run)
    for name, run in once.items():
        _say(name)
        _run_group(bed, name, run)


def _run_group(bed: Bed, name: str, run: Group) -> None:
    """One group that fails must not cost the figures of the others; the run counts as failed."""
    try:
        run(bed)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is told at the end
        traceback.print_exc()
        bed.results.failures.append(f"{name}: {error!r}")


def _say(what: str) -> None:
    print(f"bench {time.strftime('%X')} {what}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
