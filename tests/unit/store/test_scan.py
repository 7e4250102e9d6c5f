"""Reading a whole table: every page once, at a pace, past a busy store, and to an end."""

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from shared.order_store import accepts, items, keys
from shared.order_store.errors import (
    StoreRefused,
    StoreThrottled,
    StoreUnavailable,
    UnreadableItem,
)
from shared.order_store.gateway import Gateway
from shared.order_store.keys import Item
from shared.order_store.scan import READ_ATTEMPTS, Pace, TableReader
from tests.unit.factories import (
    FakeTime,
    accept,
    everything,
    make_account,
    make_order,
    make_settler,
    open_account,
    overwrite,
    ref,
)

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

BUSY = ClientError({"Error": {"Code": "ProvisionedThroughputExceededException"}}, "Scan")
REFUSED = ClientError({"Error": {"Code": "ValidationException"}}, "Scan")
AWAY = EndpointConnectionError(endpoint_url="http://127.0.0.1:1")


class PagedClient:
    """A client whose scans give one item a page: ``pages`` of each segment, or an error."""

    def __init__(self, pages: int = 3) -> None:
        self._pages = pages
        self._lock = threading.Lock()
        self.errors: list[Exception] = []
        self.scans: list[dict[str, Any]] = []

    def scan(self, **arguments: Any) -> dict[str, Any]:
        with self._lock:
            self.scans.append(arguments)
            if self.errors:
                raise self.errors.pop(0)
        page = int(arguments.get("ExclusiveStartKey", {"page": -1})["page"]) + 1
        answer: dict[str, Any] = {"Items": [{"segment": arguments["Segment"], "page": page}]}
        return answer | ({"LastEvaluatedKey": {"page": page}} if page + 1 < self._pages else {})


def reader_of(client: Any, pace: Pace | None = None, time: FakeTime | None = None) -> TableReader:
    return TableReader(client, "orders", pace=pace, sleep=(time or FakeTime()).sleep)


def read(reader: TableReader, segments: int = 1) -> list[tuple[int, list[Item]]]:
    return list(reader.table_pages(segments))


@pytest.fixture
def reader(client: "DynamoDBClient", gateway: Gateway) -> TableReader:
    return TableReader(client, gateway.table_name, sleep=lambda _: None)


@pytest.fixture
def filled(gateway: Gateway) -> Gateway:
    """Two accounts with two orders each, one of them decided."""
    accepts.allocate_account_ids(gateway, 2)
    for account_id in (1, 2):
        open_account(gateway, make_account(account_id=account_id))
        orders = [make_order(account_id=account_id, number=n, total_shares=n) for n in (1, 2)]
        accept(gateway, orders[0])
        make_settler(gateway).settle([ref(orders[0])])
        accept(gateway, orders[1])
    return gateway


def key_of(item: Item) -> tuple[str, str]:
    return item["pk"]["S"], item["sk"]["S"]


def test_items_are_as_boto_would_have_parsed_them(filled: Gateway, reader: TableReader) -> None:
    found = [item for _, page in read(reader) for item in page]
    assert sorted(found, key=key_of) == everything(filled)
    assert len(found) == 9


def test_an_account_comes_alone_and_by_sort_key(filled: Gateway, reader: TableReader) -> None:
    found = [item for page in reader.account_pages(2) for item in page]
    assert {keys.account_id_of(item) for item in found} == {2}
    kinds = [item["sk"]["S"].partition("#")[0] for item in found]
    assert kinds == ["ACCOUNT", "HEAD", "ORDER", "ORDER"]
    assert found[2]["sk"]["S"] < found[3]["sk"]["S"]


def test_the_table_says_its_size(filled: Gateway, reader: TableReader) -> None:
    assert reader.size().items == 9


def test_counts_are_read(filled: Gateway, reader: TableReader) -> None:
    assert reader.newest_account_id() == 2
    assert reader.decided_count(1) == 1
    assert reader.decided_count(7) is None
    overwrite(filled, keys.account_key(1), "decided", items.text("some"))
    assert reader.decided_count(1) is None
    overwrite(filled, keys.counter_key(), "newest", items.text("some"))
    with pytest.raises(UnreadableItem):
        reader.newest_account_id()


def test_an_empty_table_has_no_newest_account(gateway: Gateway, reader: TableReader) -> None:
    assert reader.newest_account_id() == 0
    assert read(reader) == [(0, [])]


def test_a_table_with_other_keys_is_refused(client: "DynamoDBClient") -> None:
    client.create_table(
        TableName="other",
        BillingMode="PAY_PER_REQUEST",
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
    )
    with pytest.raises(StoreRefused, match="other keys"):
        TableReader(client, "other", sleep=lambda _: None).size()


def test_a_table_that_is_not_there_is_unavailable(client: "DynamoDBClient") -> None:
    with pytest.raises(StoreUnavailable, match="ResourceNotFound"):
        TableReader(client, "nowhere", sleep=lambda _: None).size()


@pytest.mark.parametrize("segments", [1, 2, 5])
def test_every_page_of_every_segment_comes_once_and_in_order(segments: int) -> None:
    client = PagedClient(pages=4)
    found = read(reader_of(client), segments)
    for number in range(segments):
        own: list[Any] = [page for segment, page in found if segment == number]
        assert own == [[{"segment": number, "page": page}] for page in range(4)]
    assert len(found) == 4 * segments
    assert all(scan["TotalSegments"] == segments for scan in client.scans)
    assert all(scan["ConsistentRead"] for scan in client.scans)


def test_a_busy_store_is_asked_again_with_growing_pauses() -> None:
    client, time = PagedClient(), FakeTime()
    client.errors = [BUSY] * (READ_ATTEMPTS - 1)
    assert len(read(reader_of(client, time=time))) == 3
    assert len(time.pauses) == READ_ATTEMPTS - 1
    assert 0 < sum(time.pauses) < 30


@pytest.mark.parametrize(
    ("error", "raised", "tries"),
    [
        (BUSY, StoreThrottled, READ_ATTEMPTS),
        (AWAY, StoreUnavailable, READ_ATTEMPTS),
        (REFUSED, StoreRefused, 1),
        (ZeroDivisionError(), ZeroDivisionError, 1),
    ],
    ids=["busy", "away", "refused", "bug"],
)
def test_what_does_not_pass_is_raised_where_the_pages_are_awaited(
    error: Exception, raised: type[Exception], tries: int
) -> None:
    client = PagedClient()
    client.errors = [error] * 100
    with pytest.raises(raised):
        read(reader_of(client))
    assert len(client.scans) == tries


def test_readers_end_with_whoever_wanted_their_pages() -> None:
    client = PagedClient(pages=10**9)
    before = threading.active_count()
    pages = reader_of(client).table_pages(3)
    next(pages)
    pages.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before
    assert len(client.scans) <= 1 + 2 * 3


class Clock:
    """Seconds that pass where somebody sleeps, and where a test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def sleep(self, pause_seconds: float) -> None:
        self.now += pause_seconds


@pytest.mark.parametrize(
    ("pages_per_second", "seconds"), [(None, 0.0), (10.0, 0.4), (0.5, 8.0)], ids=str
)
def test_pages_are_read_no_faster_than_asked_for(
    pages_per_second: float | None, seconds: float
) -> None:
    clock = Clock()
    pace = Pace(pages_per_second, monotonic=lambda: clock.now, sleep=clock.sleep)
    read(reader_of(PagedClient(pages=5), pace))
    assert clock.now - 100 == pytest.approx(seconds)


def test_a_pause_is_not_made_up_for_in_haste() -> None:
    clock = Clock()
    pace = Pace(1.0, monotonic=lambda: clock.now, sleep=clock.sleep)
    waits: list[Callable[[], None]] = [pace.wait] * 3
    waits[0]()
    clock.now += 50
    waits[1]()
    waits[2]()
    assert clock.now == pytest.approx(151)
