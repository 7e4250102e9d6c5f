"""The load itself: skip what has its result, note, send, write the results; chunk by chunk."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import groupby
from pathlib import Path
from typing import Final

from order_client.bulk import BULK_RETRY, BulkInterrupted, BulkResult
from order_client.client import Client
from order_client.errors import OrdersError, Problem, ProtocolError, RateLimited, Unavailable
from order_client.load.journal import Journal, Run, Sending
from order_client.load.results import LineResult, LineStatus, Results
from order_client.load.source import Row, read_rows
from order_client.models import Order, Status
from order_client.retry import Retry

MALFORMED_LINE: Final = "MALFORMED_LINE"
KEY_EXPIRED: Final = "KEY_EXPIRED"

_SERVER_FAULT: Final = 500


@dataclass(frozen=True, slots=True)
class Options:
    """How to load. ``wait_seconds``: for the decisions of a chunk; None does not wait."""

    chunk_lines: int
    retry: Retry = BULK_RETRY
    wait_seconds: float | None = None


class LoadStopped(Exception):
    """The rest could not be sent; ``cause`` says why, and the same load may be run again."""

    def __init__(self, cause: OrdersError) -> None:
        super().__init__(str(cause))
        self.cause = cause


class Loader:
    """Sends the rows of a file that have no result yet.

    Attributes:
        replayed: orders that an earlier try or run had recorded.
        sent_until: the last line that may have been sent.
    """

    def __init__(
        self,
        client: Client,
        run: Run,
        journal: Journal,
        results: Results,
        options: Options,
        *,
        now: Callable[[], datetime],
        progress: Callable[[int], object],
    ) -> None:
        """``progress`` is told how many rows got their result."""
        self.replayed = 0
        self.sent_until = results.last_line
        self._client = client
        self._run = run
        self._journal = journal
        self._results = results
        self._options = options
        self._now = now
        self._progress = progress

    def load(self, path: Path) -> None:
        """Send what has no result, in the file's sequence.

        Raises:
            LoadStopped: the service refuses or is away; what is known is in the results.
            SourceError: the file cannot be read.
        """
        last = self._results.last_line
        rows = (row for row in read_rows(path) if row.line > last)
        # Rows of an earlier sending stay together: they have its date.
        for sending, some in groupby(rows, lambda row: self._journal.sending_of(row.line)):
            for chunk in _chunks(some, self._options.chunk_lines):
                self._handle(chunk, sending)

    def _handle(self, chunk: Sequence[Row], sending: Sending | None) -> None:
        now = self._now()
        if sending is not None and sending.is_forgotten(now):
            self._keep([_forgotten(row, sending) for row in chunk])
            return
        if sending is None:
            sending = Sending(chunk[0].line, chunk[-1].line, now)
            self._journal.note(sending)
        self.sent_until = max(self.sent_until, chunk[-1].line)
        self._send(chunk, sending.at)

    def _send(self, chunk: Sequence[Row], at: datetime) -> None:
        rows = [row for row in chunk if row.order is not None]
        orders = [
            replace(
                row.order,
                timestamp=at if row.order.timestamp is None else row.order.timestamp,
                idempotency_key=self._run.key(row.line),
            )
            for row in rows
            if row.order is not None
        ]
        found = {row.line: _malformed(row) for row in chunk if row.order is None}
        failure: OrdersError | None = None
        answered: list[BulkResult] = []
        try:
            for result in self._client.bulk(
                orders, chunk_lines=self._options.chunk_lines, retry=self._options.retry
            ):
                self.replayed += result.replayed
                answered.append(result)
        except BulkInterrupted as interrupted:
            failure = interrupted.cause
        until = time.monotonic() + (self._options.wait_seconds or 0.0)
        for result in answered:
            row = rows[result.number - 1]
            try:
                found[row.line] = self._line_result(row, result, until)
            except (Unavailable, RateLimited, ProtocolError) as error:
                failure = error
                break
        # Results are written in sequence, so that the last one says where to go on.
        self._keep(_without_gap(chunk, found))
        if failure is not None:
            raise LoadStopped(failure)

    def _line_result(self, row: Row, result: BulkResult, until: float) -> LineResult:
        """What became of a line, waited for if that is asked for."""
        if result.order is None:
            problem = result.problem
            return _problem(row, problem) if problem else _malformed(row)
        order = result.order
        if self._options.wait_seconds is None:
            return LineResult(row.line, row.account_id, LineStatus.ACCEPTED, order.id)
        left = max(0.0, until - time.monotonic())
        try:
            return _decided(row, self._client.wait(order.account_id, order.id, seconds=left))
        except (Unavailable, RateLimited):
            raise
        except Problem as problem:
            # One order that cannot be shown must not keep the others from being loaded.
            code, detail = problem.code, f"Accepted, but not shown: {problem}"
            unknown = LineStatus.UNKNOWN
            return LineResult(row.line, row.account_id, unknown, order.id, code, detail)

    def _keep(self, results: Sequence[LineResult]) -> None:
        self._results.add(results)
        self._progress(len(results))


def _chunks(rows: Iterator[Row], size: int) -> Iterator[list[Row]]:
    chunk: list[Row] = []
    for row in rows:
        chunk.append(row)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _without_gap(chunk: Sequence[Row], found: dict[int, LineResult]) -> list[LineResult]:
    results = []
    for row in chunk:
        if row.line not in found:
            break
        results.append(found[row.line])
    return results


def _decided(row: Row, order: Order) -> LineResult:
    codes = " ".join(order.business_errors)
    detail = order.failure or ("not decided in time" if order.status is Status.PENDING else "")
    return LineResult(row.line, row.account_id, order.status, order.id, codes, detail)


def _problem(row: Row, problem: Problem) -> LineResult:
    # After an internal error nobody can say whether the order was recorded.
    is_unknown = problem.status >= _SERVER_FAULT
    status = LineStatus.UNKNOWN if is_unknown else LineStatus.REFUSED
    return LineResult(row.line, row.account_id, status, "", problem.code, str(problem))


def _malformed(row: Row) -> LineResult:
    detail = f"The line {row.trouble}."
    return LineResult(row.line, row.account_id, LineStatus.REFUSED, "", MALFORMED_LINE, detail)


def _forgotten(row: Row, sending: Sending) -> LineResult:
    if row.order is None:
        return _malformed(row)
    detail = (
        f"Sent at {sending.at:%Y-%m-%d %H:%M:%S} UTC without an answer, and too long ago to be "
        "repeated safely: look for it among the account's orders."
    )
    return LineResult(row.line, row.account_id, LineStatus.UNKNOWN, "", KEY_EXPIRED, detail)
