"""Options of the commands that read a whole table."""

from typing import Final

import click

_SEGMENTS_MAX: Final = 64

segments: Final = click.option(
    "--segments",
    type=click.IntRange(1, _SEGMENTS_MAX),
    default=1,
    show_default=True,
    help="Parts of the table read at once.",
)
pages_per_second: Final = click.option(
    "--pages-per-second",
    type=click.FloatRange(min=0, min_open=True),
    help="Read no more than this; a page is up to 1 MB, which is 256 read units.",
)
progress: Final = click.option(
    "--progress/--no-progress",
    default=None,
    help="Show a bar on standard error. Default: if that is a terminal.",
)
