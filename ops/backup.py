"""Back up the table to a file, and restore it into an empty one."""

from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Final

import click

from ops import options
from ops.backup_file import BackupWriter, BadBackup, Manifest, manifest_of, read_items, verify
from ops.connections import open_client, open_full_client, read_settings, store_errors_said
from ops.progress import bar
from ops.snapshot import Counts, Snapshot, SnapshotImpossible
from shared.order_store.fill import BATCH_ITEMS_MAX, TableFiller
from shared.order_store.keys import Item
from shared.order_store.scan import Pace, TableReader

_WRITERS_MAX: Final = 64
_WRITERS: Final = 4
_BATCHES_AHEAD: Final = 2
"""Batches of each writer that are read from the file before it can write them."""

_TABLE_WAIT_SECONDS: Final = 60.0


@click.command()
@click.argument("out", type=click.Path(dir_okay=False, path_type=Path))
@options.segments
@options.pages_per_second
@options.progress
def backup(
    out: Path, segments: int, pages_per_second: float | None, *, progress: bool | None
) -> None:
    """Write every item of the table to OUT (gzip'd lines), with a manifest beside it.

    Reads the whole table, consistently, while traffic may go on, and changes nothing. Each account
    is written as it was at one moment; one that is traded meanwhile is read again.

    Access keys are in it as the table has them: hashes, no secrets. It tells balances and orders:
    keep it as safe as the table. Overwrites nothing.
    """
    table_name = read_settings().table_name
    client = open_client(segments + 1)
    reader = TableReader(client, table_name, pace=Pace(pages_per_second))
    with _failures_said(out), store_errors_said():
        began = datetime.now(UTC)
        total = reader.size().items
        with BackupWriter(out) as writer, bar(total, is_shown=progress) as shown:
            snapshot = Snapshot(
                # Not at a pace: an account that is traded has to be read between two trades.
                TableReader(client, table_name),
                writer.write,
                began=began,
                folder=out.parent,
                progress=shown.update,
            )
            snapshot.table(reader.table_pages(segments))
            counts = snapshot.counts
            manifest = writer.finish(
                table=table_name,
                began_at=began.isoformat(),
                ended_at=datetime.now(UTC).isoformat(),
                items=counts.items,
                accounts=counts.accounts,
                idempotency_keys_left_out=counts.keys_left_out,
            )
    _tell_backup(out, manifest, counts)


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--writers",
    type=click.IntRange(1, _WRITERS_MAX),
    default=_WRITERS,
    show_default=True,
    help="Batches of 25 items written at once.",
)
@options.progress
def restore(file: Path, writers: int, *, progress: bool | None) -> None:
    """Write all items of a backup into the table that the settings name (TABLE_NAME).

    The table is created if it is not there, and refused if it holds anything. FILE is compared with
    its manifest before anything is written.

    No API, worker or sweeper may run on that table meanwhile. One that breaks off leaves a table
    that holds something: delete it, and begin again.
    """
    table_name = read_settings().table_name
    with _failures_said(file), store_errors_said():
        manifest = verify(file)
        filler = TableFiller(open_full_client(writers), table_name)
        filler.prepare(_TABLE_WAIT_SECONDS)
        if not filler.is_empty():
            raise click.ClickException(
                f"Table {table_name} holds items: a backup is restored into an empty one alone."
            )
        with _half_done_said(table_name), bar(manifest.items, is_shown=progress) as shown:
            for written in _written(filler, read_items(file), writers):
                shown.update(written)
    _tell_restore(table_name, manifest)


def _written(filler: TableFiller, items: Iterator[Item], writers: int) -> Iterator[int]:
    """Write all ``items``, a few batches at once; yields how many were written more."""
    batches = iter(lambda: list(islice(items, BATCH_ITEMS_MAX)), [])
    under_way: dict[Future[None], int] = {}
    with ThreadPoolExecutor(writers) as pool:
        try:
            while True:
                for batch in islice(batches, writers * _BATCHES_AHEAD - len(under_way)):
                    under_way[pool.submit(filler.put, batch)] = len(batch)
                if not under_way:
                    return
                for done in wait(under_way, return_when=FIRST_COMPLETED).done:
                    done.result()
                    yield under_way.pop(done)
        finally:
            for future in under_way:
                future.cancel()


@contextmanager
def _failures_said(file: Path) -> Iterator[None]:
    """End the command with one line, whatever keeps it from its end."""
    try:
        yield
    except BadBackup as error:
        raise click.ClickException(f"{file} is not restored: {error}.") from error
    except SnapshotImpossible as error:
        raise click.ClickException(f"No backup was made: {error}.") from error
    except OSError as error:
        raise click.ClickException(f"{file}: {error}") from error


@contextmanager
def _half_done_said(table_name: str) -> Iterator[None]:
    try:
        yield
    except BaseException:
        click.echo(
            f"Table {table_name} is not whole: delete it before you restore again.", err=True
        )
        raise


def _tell_backup(out: Path, manifest: Manifest, counts: Counts) -> None:
    click.echo(f"{manifest.items:,} items, {counts.accounts:,} accounts: {out}")
    click.echo(f"SHA-256 {manifest.sha256}, kept in {manifest_of(out)}")
    if counts.accounts_again:
        click.echo(f"{counts.accounts_again:,} accounts changed meanwhile and were read again")
    if counts.keys_left_out:
        click.echo(f"{counts.keys_left_out:,} idempotency keys of the last moments were left out")


def _tell_restore(table_name: str, manifest: Manifest) -> None:
    click.echo(f"{manifest.items:,} items written to table {table_name}.")
    click.echo(
        f"It is as table {manifest.table} was between {manifest.began_at} and {manifest.ended_at}."
    )
    click.echo(
        "Before you start API, worker and sweeper on it: empty the Redis databases of broker and"
        " cache (they know of what came later), and run the audit."
    )
