"""``python -m ops backup`` and ``restore``: what is kept, what is refused, traffic meanwhile."""

import gzip
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError
from click.testing import CliRunner, Result

from ops import backup as command
from ops import binary, snapshot
from ops.__main__ import main
from ops.auditor import Auditor
from ops.backup_file import manifest_of, read_items
from shared.access import AccessKey, Scope
from shared.domain.order import Order
from shared.order_store import accepts, access, commits, fill, keys, parking
from shared.order_store.errors import StoreThrottled
from shared.order_store.fill import WRITE_ATTEMPTS, TableFiller
from shared.order_store.gateway import Gateway, chunks
from shared.order_store.items import number
from shared.order_store.keys import Item, Key
from shared.order_store.records import AcceptedOrder
from shared.order_store.scan import TableReader
from tests.unit.factories import (
    NOON,
    FakeTime,
    accept,
    everything,
    make_account,
    make_claim,
    make_order,
    make_settler,
    new_table,
    open_account,
    overwrite,
    ref,
    seconds,
)

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient


@pytest.fixture
def gateway(client: "DynamoDBClient", monkeypatch: pytest.MonkeyPatch) -> Gateway:
    """A table that the commands use: accounts, orders of all kinds, a key, a network, a claim."""
    gateway = new_table(client)
    monkeypatch.setenv("TABLE_NAME", gateway.table_name)
    monkeypatch.setattr(command, "open_client", lambda _connections: client)
    monkeypatch.setattr(command, "open_full_client", lambda _connections: client)
    accepts.allocate_account_ids(gateway, 3)
    for account_id in (1, 2, 3):
        open_account(gateway, make_account("1000", account_id=account_id))
    trade(gateway, 1, 1)
    trade(gateway, 2, 1)
    claim(gateway, make_order(account_id=1, number=2), NOON)
    accept(gateway, make_order("BUY", "ÄÖ ∑", 3, "1.50", account_id=2, number=2))
    key = AccessKey("k1", "desk", Scope.ALL_ACCOUNTS, frozenset(), NOON, digest=b"\x01" * 32)
    access.create_key(gateway, key)
    access.put_network(gateway, "DENY", "192.0.2.0/24", NOON)
    return gateway


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "orders.json.gz"


def trade(gateway: Gateway, account_id: int, number: int) -> None:
    """Accept an order and decide it."""
    order = make_order(account_id=account_id, number=number, total_shares=number)
    accept(gateway, order)
    make_settler(gateway).settle([ref(order)])


def settle(gateway: Gateway, *orders: Order) -> None:
    make_settler(gateway).settle([ref(order) for order in orders])


def claim(gateway: Gateway, order: Order, now: datetime) -> None:
    accepted = AcceptedOrder(order, claim=make_claim(f"key {order.id}", scope="1"))
    accepts.record_orders(gateway, [accepted], now, token=order.id)


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(one) for one in arguments])


def backed_up(out: Path) -> list[Item]:
    result = run("backup", out)
    assert result.exit_code == 0, result.output
    return list(read_items(out))


def restored(client: "DynamoDBClient", out: Path, monkeypatch: pytest.MonkeyPatch) -> Gateway:
    """The backup in a new table."""
    target = new_table(client)
    monkeypatch.setenv("TABLE_NAME", target.table_name)
    result = run("restore", out)
    assert result.exit_code == 0, result.output
    return target


def differences(gateway: Gateway) -> list[Any]:
    reader = TableReader(gateway._client, gateway.table_name)
    return list(Auditor(reader).table(reader.table_pages()))


def key_of(item: Item) -> tuple[str, str]:
    return item["pk"]["S"], item["sk"]["S"]


# What is kept


def test_a_restored_table_holds_what_the_first_one_held(
    client: "DynamoDBClient", gateway: Gateway, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backed_up(out)
    target = restored(client, out, monkeypatch)
    assert everything(target) == everything(gateway)
    assert len(everything(target)) == 3 * 2 + 4 + 1 + 1 + 1 + 1
    assert differences(target) == []


BINARY: dict[str, Any] = {
    "M": {
        "one": {"B": b"\x00\xff"},
        "some": {"L": [{"BS": [b"\x00", b"\xfe\xff"]}, {"B": b"text"}]},
        "B": {"S": "only a name"},
    }
}
BINARY_WRITTEN: dict[str, Any] = {
    "M": {
        "one": {"B": "AP8="},
        "some": {"L": [{"BS": ["AA==", "/v8="]}, {"B": "dGV4dA=="}]},
        "B": {"S": "only a name"},
    }
}


def test_binary_attributes_of_damaged_items_are_kept(
    client: "DynamoDBClient", gateway: Gateway, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    damaged = keys.order_key(1, make_order(number=2).id)
    overwrite(gateway, damaged, "share_price", {"B": b"\xff"})
    overwrite(gateway, damaged, "rules", BINARY)
    overwrite(gateway, keys.account_key(3), "cash", {"BS": [b"\xff\x00"]})
    backed_up(out)
    assert everything(restored(client, out, monkeypatch)) == everything(gateway)


def test_a_line_holds_base64_whichever_client_read_the_item() -> None:
    key = keys.account_key(1)
    lines = [snapshot.line_of({**key, "cash": value}) for value in (BINARY, BINARY_WRITTEN)]
    assert lines[0] == lines[1]
    item = json.loads(lines[0])["Item"]
    assert item["cash"] == BINARY_WRITTEN
    assert binary.with_bytes(item)["cash"] == BINARY


def test_so_many_write_a_backup_back_and_no_more(
    client: "DynamoDBClient", gateway: Gateway, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backed_up(out)
    target = new_table(client)
    monkeypatch.setenv("TABLE_NAME", target.table_name)
    assert run("restore", out, "--writers", str(command._WRITERS_MAX + 1)).exit_code == 2
    assert everything(target) == []
    assert run("restore", out, "--writers", str(command._WRITERS_MAX)).exit_code == 0
    assert everything(target) == everything(gateway)


def test_a_pending_order_is_in_the_index_again(
    client: "DynamoDBClient", gateway: Gateway, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backed_up(out)
    target = restored(client, out, monkeypatch)
    found: Any = client.query(
        TableName=target.table_name,
        IndexName=keys.UNDECIDED_INDEX,
        KeyConditionExpression="#shard = :shard",
        ExpressionAttributeNames={"#shard": keys.SHARD},
        ExpressionAttributeValues={":shard": {"S": keys.shard_of(2)}},
    )
    assert (2, make_order(number=2).id) in [keys.order_of(one) for one in found["Items"]]


def test_the_table_is_created_if_it_is_not_there(
    client: "DynamoDBClient", gateway: Gateway, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = backed_up(out)
    monkeypatch.setenv("TABLE_NAME", "made-by-restore")
    assert run("restore", out).exit_code == 0
    assert len(everything(Gateway(client, "made-by-restore"))) == len(items)


def test_a_line_is_dynamodb_json_and_the_manifest_vouches_for_the_file(
    gateway: Gateway, out: Path
) -> None:
    items = backed_up(out)
    lines = gzip.decompress(out.read_bytes()).decode().splitlines()
    assert [json.loads(line) for line in lines] == [{"Item": item} for item in items]
    manifest = json.loads(manifest_of(out).read_text())
    assert manifest["sha256"] == hashlib.sha256(out.read_bytes()).hexdigest()
    assert (manifest["items"], manifest["accounts"]) == (len(lines), 3)
    assert (manifest["format"], manifest["version"]) == ("order-processor backup", 1)
    assert manifest["table"] == gateway.table_name
    assert manifest["began_at"] <= manifest["ended_at"]
    assert [file.stat().st_mode & 0o777 for file in (out, manifest_of(out))] == [0o600] * 2
    assert sorted(out.parent.iterdir()) == sorted([out, manifest_of(out)])


def test_nothing_is_overwritten(gateway: Gateway, out: Path) -> None:
    out.write_text("precious")
    result = run("backup", out)
    assert result.exit_code == 1
    assert "exists" in result.output
    assert out.read_text() == "precious"
    assert list(out.parent.iterdir()) == [out]


def test_keys_of_the_last_moments_are_left_out_and_their_orders_are_not(
    gateway: Gateway, out: Path
) -> None:
    now = datetime.now(UTC)
    young, older = (make_order(account_id=3, number=number) for number in (1, 2))
    claim(gateway, young, now - seconds(5))
    claim(gateway, older, now - timedelta(minutes=2))
    items = backed_up(out)
    kept = {item["result"]["S"] for item in items if keys.is_idempotency(item)}
    assert kept == {make_order(number=2).id, older.id}
    assert {ref(young), ref(older)} <= {keys.order_of(one) for one in items if keys.is_order(one)}
    assert json.loads(manifest_of(out).read_text())["idempotency_keys_left_out"] == 1


# Traffic meanwhile


class Busy:
    """A reader beside which something happens after each of its reads, while there is any."""

    def __init__(self, reader: TableReader, events: list[Callable[[], None]]) -> None:
        self._reader = reader
        self.events = events
        self.reads = 0
        self.orders_read = 0
        """By their keys."""
        self.looks = 0
        """After the first one."""

    def account_pages(self, account_id: int) -> Iterator[list[Item]]:
        yield from self._after(self._reader.account_pages(account_id))

    def account_pages_after(self, account_id: int, order_id: str) -> Iterator[list[Item]]:
        self.looks += 1
        yield from self._after(self._reader.account_pages_after(account_id, order_id))

    def read(self, item_keys: Sequence[Key]) -> list[Item]:
        self.orders_read += sum(map(keys.is_order, item_keys))
        found: list[list[Item]] = self._after([self._reader.read(item_keys)])
        return found[0]

    def _after(self, pages: Any) -> list[Any]:
        found = list(pages)
        self.reads += 1
        if self.events:
            self.events.pop(0)()
        return found


def take(
    gateway: Gateway,
    folder: Path,
    events: list[Callable[[], None]],
    scanned: Callable[[list[Item]], list[Item]] = lambda items: items,
) -> tuple[list[Item], snapshot.Counts]:
    """The items of a snapshot; the first event comes between the scan and all other reads."""
    lines: list[bytes] = []
    reader = TableReader(gateway._client, gateway.table_name)
    busy = Busy(reader, events)
    taken = snapshot.Snapshot(busy, lines.append, began=NOON + timedelta(hours=1), folder=folder)

    def pages() -> Iterator[tuple[int, list[Item]]]:
        for segment, page in list(reader.table_pages()):
            yield segment, scanned(page)
        if events:
            events.pop(0)()

    taken.table(pages())
    return [json.loads(line)["Item"] for line in lines], taken.counts


def look_again(gateway: Gateway, folder: Path, events: list[Callable[[], None]]) -> Busy:
    """Take a snapshot that has to be what the table holds in the end; how it was read."""
    lines: list[bytes] = []
    reader = TableReader(gateway._client, gateway.table_name)
    busy = Busy(reader, [])
    pages = list(reader.table_pages())
    busy.events = events
    events.pop(0)()
    taken = snapshot.Snapshot(busy, lines.append, began=NOON + timedelta(hours=1), folder=folder)
    taken.table(iter(pages))
    found = [json.loads(line)["Item"] for line in lines]
    assert not events
    assert sorted(found, key=key_of) == everything(gateway)
    return busy


def backlog(gateway: Gateway, count: int) -> list[Order]:
    """Pending orders of the third account; each sells other shares that it does not have."""
    orders = [
        make_order("SELL", account_id=3, number=number, total_shares=number)
        for number in range(1, count + 1)
    ]
    for few in chunks(orders, 90):
        accept(gateway, *few)
    return orders


@pytest.mark.parametrize(("oldest", "chunks_a_look"), [(True, 1), (False, 3)])
def test_a_backlog_is_read_again_only_as_far_as_it_was_decided(
    gateway: Gateway, tmp_path: Path, oldest: bool, chunks_a_look: int
) -> None:
    orders = backlog(gateway, 250)
    # Between any two reads one more is decided: in sequence, or as clients cancel.
    decided = orders[:12] if oldest else orders[:-13:-1]
    busy = look_again(
        gateway,
        tmp_path,
        [partial(parking.cancel, gateway, ref(order), lambda: NOON) for order in decided],
    )
    assert busy.looks >= 3
    assert 0 < busy.orders_read <= 100 * chunks_a_look * busy.looks


def test_orders_parked_and_replayed_from_look_to_look_are_kept(
    gateway: Gateway, tmp_path: Path
) -> None:
    first, second, *_ = orders = backlog(gateway, 5)

    def park() -> None:
        commits.park_unreadable_account(gateway, *ref(first), NOON, "why")

    replay = partial(parking.replay, gateway, ref(first))
    cancel = partial(parking.cancel, gateway, ref(second), lambda: NOON)
    settle_rest = partial(settle, gateway, *orders[2:])
    look_again(gateway, tmp_path, [park, replay, park, cancel, replay, settle_rest, park])


def written(client: "DynamoDBClient", items: list[Item]) -> Gateway:
    assert len({key_of(item) for item in items}) == len(items), "an item came twice"
    target = new_table(client)
    for start in range(0, len(items), fill.BATCH_ITEMS_MAX):
        TableFiller(client, target.table_name).put(items[start : start + fill.BATCH_ITEMS_MAX])
    return target


def statuses(items: list[Item], account_id: int) -> dict[str, str]:
    return {
        keys.order_of(one)[1]: one["status"]["S"]
        for one in items
        if keys.is_order(one) and keys.account_of(one) == account_id
    }


def test_an_account_that_stood_still_is_read_once(gateway: Gateway, tmp_path: Path) -> None:
    items, counts = take(gateway, tmp_path, [])
    assert sorted(items, key=key_of) == everything(gateway)
    assert (counts.accounts, counts.accounts_again) == (3, 0)


def test_an_account_that_was_traded_after_the_scan_is_read_again(
    client: "DynamoDBClient", gateway: Gateway, tmp_path: Path
) -> None:
    items, counts = take(gateway, tmp_path, [lambda: trade(gateway, 1, 3)])
    assert counts.accounts_again == 1
    assert statuses(items, 1)[make_order(number=3).id] == "executed"
    assert differences(written(client, items)) == []


@pytest.mark.parametrize("events", [1, 2, 3, 5, 20])
def test_an_account_that_goes_on_being_traded_is_as_it_was_at_one_moment(
    client: "DynamoDBClient", gateway: Gateway, tmp_path: Path, events: int
) -> None:
    def do(number: int) -> Callable[[], None]:
        order = make_order(account_id=1, number=10 + number // 2, total_shares=1 + number // 2)
        return (lambda: settle(gateway, order)) if number % 2 else (lambda: accept(gateway, order))

    there_before = statuses(everything(gateway), 1).keys()
    items, counts = take(gateway, tmp_path, [do(number) for number in range(events)])
    assert counts.accounts_again == 1
    assert differences(written(client, items)) == []
    assert there_before <= statuses(items, 1).keys()


def test_orders_that_stay_pending_from_look_to_look_are_kept(
    client: "DynamoDBClient", gateway: Gateway, tmp_path: Path
) -> None:
    orders = [make_order(account_id=1, number=number) for number in range(10, 20)]
    events: list[Callable[[], None]] = [partial(accept, gateway, order) for order in orders]
    items, _ = take(gateway, tmp_path, events)
    assert differences(written(client, items)) == []
    # Acceptances end no look: it was over before the last of them.
    assert events
    assert orders[0].id in statuses(items, 1)
    assert orders[-1].id not in statuses(items, 1)


@pytest.mark.parametrize("quiet", [0, 1, 2, 3, 4])
def test_a_replay_while_orders_are_accepted_is_not_half_kept(
    client: "DynamoDBClient", gateway: Gateway, tmp_path: Path, quiet: int
) -> None:
    parked, *_ = backlog(gateway, 3)
    commits.park_unreadable_account(gateway, *ref(parked), NOON, "why")
    first, second = (make_order(account_id=3, number=number) for number in (100, 101))
    events: list[Callable[[], None]] = [
        partial(accept, gateway, first),
        *[lambda: None] * quiet,
        partial(parking.replay, gateway, ref(parked)),
        partial(accept, gateway, second),
    ]
    items, _ = take(gateway, tmp_path, events)
    assert differences(written(client, items)) == []


def test_an_account_whose_counts_are_wrong_is_kept_as_it_is(
    gateway: Gateway, tmp_path: Path
) -> None:
    overwrite(gateway, keys.head_key(1), "accepted", number(7))
    items, counts = take(gateway, tmp_path, [lambda: trade(gateway, 1, 3)])
    assert counts.accounts_again == 1
    assert sorted(items, key=key_of) == everything(gateway)


def test_an_account_opened_meanwhile_gets_no_id_twice(
    client: "DynamoDBClient", gateway: Gateway, tmp_path: Path
) -> None:
    def open_five() -> None:
        accepts.allocate_account_ids(gateway, 5)

    items, _ = take(gateway, tmp_path, [open_five])
    counter = next(one for one in items if one["pk"] == keys.counter_key()["pk"])
    assert counter["newest"] == {"N": "8"}


def test_a_page_read_in_the_middle_of_a_decision_is_not_believed(
    client: "DynamoDBClient", gateway: Gateway, tmp_path: Path
) -> None:
    before = everything(gateway)
    pending = make_order(account_id=1, number=2)  # rejected: it repeats the first one
    make_settler(gateway).settle([ref(pending)])
    stale = next(one for one in before if key_of(one) == key_of(keys.order_key(*ref(pending))))

    def torn(page: list[Item]) -> list[Item]:
        return [stale if key_of(one) == key_of(stale) else one for one in page]

    items, counts = take(gateway, tmp_path, [], torn)
    assert counts.accounts_again == 1
    assert statuses(items, 1)[pending.id] == "rejected"
    assert differences(written(client, items)) == []


def test_a_large_account_goes_through_a_file(
    client: "DynamoDBClient", gateway: Gateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot, "_IN_MEMORY_BYTES_MAX", 100)
    items, _ = take(gateway, tmp_path, [lambda: trade(gateway, 1, 3)])
    assert sorted(items, key=key_of) == everything(gateway)
    assert list(tmp_path.iterdir()) == []


def test_an_account_that_never_stands_still_ends_the_backup_without_a_file(
    gateway: Gateway, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot, "LOOKS_MAX", 4)
    numbers = iter(range(100, 200))
    read = TableReader.read

    def read_and_trade(reader: TableReader, item_keys: Sequence[Key]) -> list[Item]:
        trade(gateway, 1, next(numbers))
        return read(reader, item_keys)

    monkeypatch.setattr(TableReader, "read", read_and_trade)
    result = run("backup", out)
    assert result.exit_code == 1
    assert "account 1 changed during each of 4 looks" in result.output
    assert list(out.parent.iterdir()) == []


# What is refused


def cut_off(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-20])


def change_a_byte(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def lose_the_manifest(file: Path) -> None:
    manifest_of(file).unlink()


def spoil_the_manifest(file: Path) -> None:
    manifest_of(file).write_text("{")


def come_from_the_future(file: Path) -> None:
    said = json.loads(manifest_of(file).read_text())
    manifest_of(file).write_text(json.dumps({**said, "version": 2}))


def count_wrongly(file: Path) -> None:
    said = json.loads(manifest_of(file).read_text())
    manifest_of(file).write_text(json.dumps({**said, "items": said["items"] + 1}))


def hold_something_else(file: Path) -> None:
    hold(file, b'{"Item":{"pk":{"S":"1"}}}\n')


def hold_what_is_no_base64(file: Path) -> None:
    hold(file, b'{"Item":{"pk":{"S":"1"},"sk":{"S":"1"},"x":{"B":"?"}}}\n')


def hold(file: Path, line: bytes) -> None:
    content = gzip.compress(line)
    said = json.loads(manifest_of(file).read_text())
    said |= {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest(), "items": 1}
    file.write_bytes(content)
    manifest_of(file).write_text(json.dumps(said))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (cut_off, "it is cut off or changed"),
        (change_a_byte, "it was changed"),
        (lose_the_manifest, "it was never finished"),
        (spoil_the_manifest, "cannot be read"),
        (come_from_the_future, "version 2"),
        (count_wrongly, "items and not"),
        (hold_something_else, "line 1 is no item"),
        (hold_what_is_no_base64, "line 1 is no item"),
    ],
)
def test_a_file_that_is_not_what_was_written_changes_nothing(
    client: "DynamoDBClient",
    gateway: Gateway,
    out: Path,
    monkeypatch: pytest.MonkeyPatch,
    damage: Callable[[Path], None],
    said: str,
) -> None:
    backed_up(out)
    damage(out)
    monkeypatch.setenv("TABLE_NAME", "not-made")
    result = run("restore", out)
    assert result.exit_code == 1
    assert said in result.output
    assert len(result.output.splitlines()) == 1
    assert "not-made" not in client.list_tables()["TableNames"]


def test_a_table_that_holds_something_is_refused(
    client: "DynamoDBClient", gateway: Gateway, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backed_up(out)
    target = new_table(client)
    open_account(target, make_account(account_id=9))
    before = everything(target)
    monkeypatch.setenv("TABLE_NAME", target.table_name)
    result = run("restore", out)
    assert result.exit_code == 1
    assert "holds items" in result.output
    assert everything(target) == before


# A busy store


class BusyClient:
    """Takes at most ``each`` items of a batch, and raises the errors it is given first."""

    def __init__(self, each: int) -> None:
        self._each = each
        self.errors: list[Exception] = []
        self.taken: list[Any] = []
        self.calls = 0

    def batch_write_item(self, *, RequestItems: dict[str, list[Any]]) -> dict[str, Any]:  # noqa: N803
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        ((table, requests),) = RequestItems.items()
        self.taken += requests[: self._each]
        left = requests[self._each :]
        return {"UnprocessedItems": {table: left} if left else {}}


ITEMS: list[Item] = [{"pk": {"S": str(number)}, "sk": {"S": "x"}} for number in range(25)]


def test_what_is_left_unwritten_is_written_again() -> None:
    client: Any = BusyClient(each=10)
    client.errors = [ClientError({"Error": {"Code": "ThrottlingException"}}, "BatchWriteItem")]
    time = FakeTime()
    TableFiller(client, "orders", sleep=time.sleep).put(ITEMS)
    assert [one["PutRequest"]["Item"] for one in client.taken] == ITEMS
    assert client.calls == 4
    assert len(time.pauses) == 3


def test_a_store_that_takes_nothing_is_given_up() -> None:
    client: Any = BusyClient(each=0)
    time = FakeTime()
    with pytest.raises(StoreThrottled, match="25 items"):
        TableFiller(client, "orders", sleep=time.sleep).put(ITEMS)
    assert client.calls == WRITE_ATTEMPTS
    assert sum(time.pauses) < 120


def test_a_restore_that_breaks_off_says_that_the_table_is_not_whole(
    client: "DynamoDBClient", gateway: Gateway, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backed_up(out)
    monkeypatch.setenv("TABLE_NAME", new_table(client).table_name)

    def refuse(*_: object) -> None:
        raise StoreThrottled("too busy")

    monkeypatch.setattr(TableFiller, "put", refuse)
    result = run("restore", out)
    assert result.exit_code == 1
    assert "is not whole" in result.output
    assert "too busy" in result.output
