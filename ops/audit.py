"""The audit: every account decided again from its recorded orders, and compared."""

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any, Final

import click

from ops import options
from ops.auditor import AuditImpossible, Auditor, Summary
from ops.connections import open_client, read_settings
from ops.differences import Difference
from ops.progress import bar
from shared.domain.money import plain
from shared.order_store.errors import StoreError
from shared.order_store.scan import Pace, TableReader

DIFFERENCES: Final = 1
"""Exit status of an audit that found some."""

IMPOSSIBLE: Final = 2
"""Exit status of an audit that could not be carried out, as of a command that is no command."""


class AuditFailed(click.ClickException):
    """The audit could not be carried out; the text says why."""

    exit_code = IMPOSSIBLE


@click.command()
@click.option(
    "--account", "account_id", metavar="ID", type=click.IntRange(min=1), help="Only this account."
)
@click.option("--json", "as_json", is_flag=True, help="A line of JSON for each difference.")
@options.segments
@options.pages_per_second
@options.progress
def audit(
    account_id: int | None,
    segments: int,
    pages_per_second: float | None,
    *,
    as_json: bool,
    progress: bool | None,
) -> None:
    """Decide every account again from its recorded orders, and compare.

    Reads the whole table once, consistently, while traffic may go on, and changes nothing. Tells
    each kind of difference of an account with the first order at which it appears.

    Ends with 0 if there is none, 1 if there are some, 2 if the audit could not be carried out.
    """
    started = time.monotonic()
    with _failures_said():
        table_name = read_settings().table_name
        reader = TableReader(open_client(segments + 1), table_name, pace=Pace(pages_per_second))
        total = reader.size().items if account_id is None else 0
        with bar(total, is_shown=progress) as shown:
            auditor = Auditor(reader, progress=shown.update)
            found = (
                auditor.table(reader.table_pages(segments))
                if account_id is None
                else auditor.account(account_id)
            )
            _tell(found, as_json=as_json, clear=shown.clear)
    summary = auditor.summary
    _conclude(summary, time.monotonic() - started, as_json=as_json)
    if summary.differences or not summary.totals.balanced:
        sys.exit(DIFFERENCES)


@contextmanager
def _failures_said() -> Iterator[None]:
    """End the command with one line and ``IMPOSSIBLE`` whatever keeps it from its end."""
    try:
        yield
    except StoreError as error:
        raise AuditFailed(f"DynamoDB did not do as asked: {error}") from error
    except AuditImpossible as error:
        raise AuditFailed(f"The audit could not be carried out: {error}.") from error
    except click.UsageError:
        raise
    except click.ClickException as error:
        raise AuditFailed(error.message) from error
    except KeyboardInterrupt as error:
        raise AuditFailed("Stopped before the end.") from error


def _tell(found: Iterable[Difference], *, as_json: bool, clear: Callable[[], object]) -> None:
    for difference in found:
        clear()  # the bar draws itself again
        if as_json:
            click.echo(json.dumps({"type": "difference", **asdict(difference)}))
        else:
            click.echo(_line(difference))


def _line(difference: Difference) -> str:
    where = "table" if difference.account_id is None else f"account {difference.account_id}"
    if difference.order_id is not None:
        where += f", order {difference.order_id}"
    more = difference.orders - 1
    rest = f" (and {more:,} more {'order' if more == 1 else 'orders'})" if more > 0 else ""
    return (
        f"{where}: {difference.what}: expected {difference.expected}, "
        f"found {difference.found}{rest}"
    )


def _conclude(summary: Summary, seconds: float, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({"type": "summary", **_facts(summary, seconds)}))
        return
    totals = summary.totals
    by_status = ", ".join(f"{count:,} {status}" for status, count in sorted(totals.orders.items()))
    others = ", ".join(f"{count:,} {kind}" for kind, count in sorted(summary.others.items()))
    agrees = "which agrees" if totals.balanced else "WHICH DOES NOT AGREE"
    lines = [
        f"{_counted(totals.accounts, 'account')}, {_counted(summary.orders, 'order')}"
        f" ({by_status or 'none'})",
        f"Other items: {others or 'none'}",
        f"Cash: opened with {plain(totals.opened_with)}, now {plain(totals.holding)}: "
        f"{plain(totals.gone)} gone, {plain(totals.net_bought)} paid by executed orders, {agrees}",
    ]
    if totals.openings_unknown:
        lines.append(
            f"{totals.openings_unknown:,} accounts say nothing of their opening cash: it was taken "
            "from their first order, and they are not in the line above"
        )
    lines += [
        f"{_counted(summary.differences, 'difference')} in"
        f" {_counted(summary.accounts_differing, 'account')}",
        f"{seconds:.1f} s, {_rate(summary, seconds):,.0f} orders/s",
    ]
    click.echo("\n".join(lines))


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _facts(summary: Summary, seconds: float) -> dict[str, Any]:
    totals = summary.totals
    return {
        "accounts": totals.accounts,
        "accounts_differing": summary.accounts_differing,
        "balanced": totals.balanced,
        "cash_now": plain(totals.holding),
        "cash_opened_with": plain(totals.opened_with),
        "cash_paid_by_orders": plain(totals.net_bought),
        "differences": summary.differences,
        "items": summary.items,
        "looked_again": summary.looked_again,
        "openings_unknown": totals.openings_unknown,
        "orders": summary.orders,
        "orders_by_status": dict(totals.orders),
        "orders_per_second": round(_rate(summary, seconds)),
        "other_items": dict(summary.others),
        "seconds": round(seconds, 3),
    }


def _rate(summary: Summary, seconds: float) -> float:
    return summary.orders / seconds if seconds else 0.0
