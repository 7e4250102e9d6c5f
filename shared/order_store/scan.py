"""Reading a whole table, or one account with all that belongs to it, page by page.

Pages come as DynamoDB sends them: the items of one partition key together, in the order of their
sort keys. Nobody waits for these reads, so a store that is busy is asked again for a while.
"""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from queue import Empty, Full, Queue
from typing import TYPE_CHECKING, Any, Final

from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from shared.order_store import items, keys
from shared.order_store.errors import StoreRefused, StoreUnavailable, UnreadableItem
from shared.order_store.gateway import Gateway
from shared.order_store.keys import PK, SK, Item, Key

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

Page = list[Item]

READ_ATTEMPTS: Final = 8
_BACKOFF_SECONDS_FIRST: Final = 0.1
_BACKOFF_SECONDS_MAX: Final = 5.0

_QUEUE_POLL_SECONDS: Final = 0.5
_READER_END_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class TableSize:
    """What the table says of itself; on AWS both figures are up to six hours old."""

    items: int
    bytes: int


class Pace:
    """Keeps the reads of all threads together below a number of pages a second."""

    def __init__(
        self,
        pages_per_second: float | None,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Allow ``pages_per_second``, or any number if that is None."""
        self._gap_seconds = 1 / pages_per_second if pages_per_second else 0.0
        self._monotonic = monotonic
        self._sleep = sleep
        self._lock = threading.Lock()
        self._next = 0.0

    def wait(self) -> None:
        """Return when the next page may be read."""
        if not self._gap_seconds:
            return
        with self._lock:
            now = self._monotonic()
            turn = max(now, self._next)
            self._next = turn + self._gap_seconds
        if turn > now:
            self._sleep(turn - now)


class TableReader:
    """Reads pages of one table. Safe to share between threads."""

    def __init__(
        self,
        client: "DynamoDBClient",
        table_name: str,
        *,
        pace: Pace | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Read ``table_name`` through ``client``."""
        self._gateway = _ScanGateway(client, table_name, read_attempts=1)
        self._pace = pace or Pace(None)
        self._repeat = Retrying(
            stop=stop_after_attempt(READ_ATTEMPTS),
            wait=wait_random_exponential(_BACKOFF_SECONDS_FIRST, _BACKOFF_SECONDS_MAX),
            retry=retry_if_exception_type(StoreUnavailable),
            sleep=sleep,
            reraise=True,
        )

    def size(self) -> TableSize:
        """Ask how large the table is.

        Raises:
            StoreRefused: it is no table of ours.
            StoreUnavailable: no answer, again and again.
        """
        table = self._again(self._gateway.describe)
        types = {
            one["AttributeName"]: one["AttributeType"] for one in table["AttributeDefinitions"]
        }
        found = {
            key["AttributeName"]: (key["KeyType"], types[key["AttributeName"]])
            for key in table["KeySchema"]
        }
        if found != {PK: ("HASH", "S"), SK: ("RANGE", "S")}:
            raise StoreRefused(f"table {self._gateway.table_name} has other keys: {found}")
        return TableSize(table.get("ItemCount", 0), table.get("TableSizeBytes", 0))

    def newest_account_id(self) -> int:
        """Read the counter of account ids, 0 if none was ever given.

        Raises:
            UnreadableItem: it does not have the shape that this code writes.
            StoreUnavailable: no answer, again and again.
        """
        item = self._again(lambda: self._gateway.get(keys.counter_key()))
        if item is None:
            return 0
        try:
            return int(item["newest"]["N"])
        except (LookupError, ValueError, TypeError) as error:
            raise UnreadableItem(f"the counter of accounts: {error!r}") from error

    def decided_count(self, account_id: int) -> int | None:
        """Read how many orders of the account are decided by now, None if that cannot be told.

        Raises:
            StoreUnavailable: no answer, again and again.
        """
        item = self._again(lambda: self._gateway.get(keys.account_key(account_id)))
        try:
            return items.read_account(item).decided if item else None
        except UnreadableItem:
            return None

    def account_pages(self, account_id: int) -> Iterator[Page]:
        """Every page of one account's items, consistent each, read as the caller goes on.

        Raises:
            StoreUnavailable: no answer, again and again.
        """
        return self._pages(
            self._gateway.query,
            KeyConditionExpression="#pk = :pk",
            ExpressionAttributeNames={"#pk": PK},
            ExpressionAttributeValues={":pk": keys.account_key(account_id)[PK]},
        )

    def account_pages_after(self, account_id: int, order_id: str) -> Iterator[Page]:
        """As ``account_pages``, but only what sorts after the order ``order_id``.

        Raises:
            StoreUnavailable: no answer, again and again.
        """
        return self._pages(
            self._gateway.query,
            KeyConditionExpression="#pk = :pk AND #sk > :after",
            ExpressionAttributeNames={"#pk": PK, "#sk": SK},
            ExpressionAttributeValues={
                ":pk": keys.account_key(account_id)[PK],
                ":after": items.text(keys.order_sort_key(order_id)),
            },
        )

    def read(self, item_keys: Sequence[Key]) -> Page:
        """Read the items of ``item_keys`` that exist, each consistently, in no particular order.

        Raises:
            StoreUnavailable: no answer, again and again.
        """
        page: Page = self._again(lambda: self._gateway.batch_get(item_keys))
        return page

    def table_pages(self, segments: int = 1) -> Iterator[tuple[int, Page]]:
        """Every page of the table, each with the number of its segment.

        One thread a segment reads ahead, one page each, so that reading and what the caller does
        go on at the same time. A partition key lies in one segment.

        Raises:
            StoreUnavailable: no answer, again and again.
            StoreRefused: DynamoDB calls the request invalid.
        """
        pages: Queue[_Read] = Queue(maxsize=segments)
        stop = threading.Event()
        readers = [
            threading.Thread(
                target=self._read_segment, args=(number, segments, pages, stop), daemon=True
            )
            for number in range(segments)
        ]
        for reader in readers:
            reader.start()
        try:
            yield from _received(pages, readers)
        finally:
            stop.set()
            for reader in readers:
                reader.join(_READER_END_SECONDS)

    def _read_segment(
        self, number: int, segments: int, pages: "Queue[_Read]", stop: threading.Event
    ) -> None:
        try:
            for page in self._pages(self._gateway.scan, Segment=number, TotalSegments=segments):
                if not _put(pages, _Read(number, page), stop):
                    return
            _put(pages, _Read(number, None), stop)
        except Exception as error:  # noqa: BLE001 - raised again by the thread that waits for it
            _put(pages, _Read(number, None, error), stop)

    def _pages(
        self, read: Callable[..., tuple[Page, Key | None]], **arguments: Any
    ) -> Iterator[Page]:
        start: dict[str, Key] = {}
        while True:
            self._pace.wait()
            page, last = self._again(partial(read, ConsistentRead=True, **arguments, **start))
            yield page
            if last is None:
                return
            start = {"ExclusiveStartKey": last}

    def _again(self, call: Callable[[], Any]) -> Any:
        # A copy for each call: tenacity keeps statistics on the object.
        return self._repeat.copy()(call)


@dataclass(frozen=True, slots=True)
class _Read:
    """A page of a segment; its end (no page); or what went wrong."""

    segment: int
    page: Page | None
    error: Exception | None = None


class _ScanGateway(Gateway):
    """The two calls that only whoever reads everything needs."""

    def describe(self) -> dict[str, Any]:
        answer: Any = self._call(
            "describe_table", lambda: self._client.describe_table(TableName=self.table_name)
        )
        table: dict[str, Any] = answer["Table"]
        return table

    def scan(self, **arguments: Any) -> tuple[Page, Key | None]:
        answer = self._call(
            "scan", lambda: self._client.scan(TableName=self.table_name, **arguments)
        )
        return answer["Items"], answer.get("LastEvaluatedKey")


def _received(pages: "Queue[_Read]", readers: list[threading.Thread]) -> Iterator[tuple[int, Page]]:
    """Pages as they come, until every segment has ended."""
    running = len(readers)
    while running:
        try:
            read = pages.get(timeout=_QUEUE_POLL_SECONDS)
        except Empty:
            continue  # a slow read is bounded by its own attempts
        if read.error is not None:
            raise read.error
        if read.page is None:
            running -= 1
            continue
        yield read.segment, read.page


def _put(pages: "Queue[_Read]", read: _Read, stop: threading.Event) -> bool:
    """Hand over ``read``; False once nobody wants it any more."""
    while not stop.is_set():
        try:
            pages.put(read, timeout=_QUEUE_POLL_SECONDS)
        except Full:
            continue
        return True
    return False
