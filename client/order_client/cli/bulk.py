"""``orders bulk``: a file of orders."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import click
from tqdm import tqdm

from order_client.bulk import BULK_RETRY, CHUNK_LINES, CHUNK_LINES_MAX
from order_client.cli import output
from order_client.cli.exits import Exit, exit_status, say_failure
from order_client.cli.settings import common_options, settings
from order_client.exact import Json
from order_client.load.files import FileInUse
from order_client.load.journal import Journal, JournalMismatch, Run
from order_client.load.loader import Loader, LoadStopped, Options
from order_client.load.results import LineStatus, Results, ResultsMismatch
from order_client.load.source import Known, SourceError, know
from order_client.models import Status

WAIT_SECONDS: Final = 60.0
"""For the decisions of one chunk."""

LOAD_RETRY: Final = BULK_RETRY
"""How long a load stays at a service that is away."""

_GOOD: Final = frozenset({LineStatus.ACCEPTED.value, Status.EXECUTED.value})
_PROGRESS_SECONDS: Final = 0.2


@click.group("bulk")
def bulk_group() -> None:
    """Send files of orders."""


@bulk_group.command("load")
@click.argument(
    "path", metavar="FILE.csv", type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
@click.option(
    "--results",
    "results_path",
    metavar="OUT.csv",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The result file; by default FILE.results.csv beside the file.",
)
@click.option("--wait", is_flag=True, help="Wait for each order's decision, and write that.")
@click.option(
    "--run",
    "name",
    default="",
    metavar="NAME",
    help="Load the same file once more under another name, as new orders.",
)
@click.option(
    "--chunk",
    "chunk_lines",
    type=click.IntRange(1, CHUNK_LINES_MAX),
    default=CHUNK_LINES,
    show_default=True,
    help="Orders in one request.",
)
@click.option(
    "--progress/--no-progress",
    default=None,
    help="Show a bar on standard error. Default: if that is a terminal.",
)
@common_options
def load(
    path: Path,
    results_path: Path | None,
    name: str,
    chunk_lines: int,
    *,
    wait: bool,
    progress: bool | None,
) -> None:
    """Send the orders of a CSV file, each exactly once.

    The first line names the columns: account_id, timestamp, operation, issuer_name, total_shares,
    share_price. A timestamp may be empty or "now". Each line gets a line in the result file.

    Interrupted or killed, run the same command again: it goes on where the result file ends.

    Ends with 0 if every order was accepted (with --wait: executed), 1 if some were not, 4 or 5 if
    the load had to stop.
    """
    results_path = results_path or path.with_name(f"{path.stem}.results.csv")
    if results_path.resolve() == path.resolve():
        raise click.UsageError("The results would overwrite the file itself.")
    with settings().client() as client, _mistakes_said(results_path):
        known = know(path)
        run = Run(known.sha256, client.base_url, name)
        with (
            Journal(_journal_path(results_path), run) as journal,
            Results(results_path) as results,
            _bar(known.rows, results.counts.total(), is_shown=progress) as bar,
        ):
            had = results.counts.total()
            loader = Loader(
                client,
                run,
                journal,
                results,
                Options(chunk_lines, LOAD_RETRY, WAIT_SECONDS if wait else None),
                now=lambda: datetime.now(UTC),
                progress=bar.update,
            )
            status = _carry_out(loader, path, bar)
            report = _Report(known, results, loader, had)
    report.say()
    click.get_current_context().exit(status if status is not None else report.exit_status())


def _carry_out(loader: Loader, path: Path, bar: Any) -> Exit | None:
    """Load; the exit status if it had to stop."""
    try:
        loader.load(path)
    except LoadStopped as stopped:
        bar.close()
        say_failure(stopped.cause, as_json=settings().as_json)
        return exit_status(stopped.cause)
    except KeyboardInterrupt:
        bar.close()
        return Exit.INTERRUPTED
    return None


class _Report:
    """What is said at the end."""

    def __init__(self, known: Known, results: Results, loader: Loader, had: int) -> None:
        self._results = results
        self._counts = dict(sorted(results.counts.items()))
        self._had = had
        self._replayed = loader.replayed
        self._open = known.rows - results.counts.total()
        self._is_unsure = loader.sent_until > results.last_line
        self._last_sent = loader.sent_until

    def exit_status(self) -> Exit:
        return Exit.OK if set(self._counts) <= _GOOD else Exit.NOT_EXECUTED

    def say(self) -> None:
        if settings().as_json:
            output.say_json(self._json())
            return
        if self._had and not self._open:
            output.say(f"{self._had:,} lines had their result from an earlier run.")
        output.table(
            ("STATUS", "LINES"),
            [(status, f"{lines:,}") for status, lines in self._counts.items()],
            right=(1,),
        )
        if self._replayed:
            output.say(f"{self._replayed:,} had been recorded by an earlier try; none was doubled.")
        if self._open:
            output.say(self._open_text())
        output.say(f"Results: {self._results.path}")

    def _open_text(self) -> str:
        last = self._results.last_line
        text = f"{self._open:,} lines have no result: those after line {max(last, 1):,}."
        if self._is_unsure:
            text += f" Up to line {self._last_sent:,} they may have been sent, the rest was not."
        else:
            text += " They were not sent."
        return text + "\nRun the same command again to go on, within 24 hours."

    def _json(self) -> Json:
        return {
            "results": str(self._results.path),
            "lines": self._counts,
            "replayed": self._replayed,
            "without_result": self._open,
            "last_line": self._results.last_line,
            "sent_until_line": self._last_sent,
        }


@contextmanager
def _mistakes_said(results_path: Path) -> Iterator[None]:
    """Files that do not fit are the user's to mend."""
    try:
        yield
    except (SourceError, FileInUse, OSError) as error:
        raise click.UsageError(str(error)) from None
    except (JournalMismatch, ResultsMismatch) as error:
        raise click.UsageError(
            f"{error} To begin anew, name another result file with --results, or remove "
            f"{results_path} and {_journal_path(results_path)}."
        ) from None


def _journal_path(results_path: Path) -> Path:
    return results_path.with_name(results_path.name + ".journal")


def _bar(rows: int, done: int, *, is_shown: bool | None) -> Any:
    """A bar on standard error; None shows it on a terminal only."""
    return tqdm(
        total=rows,
        initial=done,
        unit=" orders",
        unit_scale=False,
        mininterval=_PROGRESS_SECONDS,
        disable=None if is_shown is None else not is_shown,
        dynamic_ncols=True,
    )
