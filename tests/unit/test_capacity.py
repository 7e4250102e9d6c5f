"""docs/capacity.md says what the code asks for: its tables are counted anew and compared."""

import re
from dataclasses import replace
from typing import Any

import pytest

from bench import capacity
from bench.capacity import PAGE, Counts, count, renewed, tables
from bench.counted import GROUP, Desk, desk
from bench.units import MeteredClient, index_units, item_bytes, value_bytes, write_units
from shared.order_store import reads
from shared.order_store.accepts import ACTIONS_PER_ORDER_MAX
from shared.order_store.gateway import TRANSACTION_ACTIONS_MAX, Gateway, TransactionCancelled
from shared.order_store.keys import UNDECIDED_SHARDS
from shared.task_queue import MESSAGE_ORDERS_MAX
from tests.simulation.dynamodb import Table
from tests.simulation.world import INDEXES
from tests.unit.factories import moto_client, new_table, seconds

KEY = {"pk": {"S": "p"}, "sk": {"S": "s"}}


@pytest.fixture(scope="module")
def counts() -> Counts:
    return count()


@pytest.fixture
def client() -> MeteredClient:
    return MeteredClient(Table("t", INDEXES))


def item_of(size: int, shard: str | None = None) -> dict[str, Any]:
    """An item of ``size`` bytes beside its entry in the index."""
    name = {} if shard is None else {"undecided_shard": {"S": shard}}
    return {**KEY, **name, "x": {"S": "." * (size - 7)}}


def transact(client: MeteredClient, *actions: dict[str, Any]) -> None:
    Gateway(client, "t").transact(actions, "token")  # type: ignore[arg-type]


def put(item: dict[str, Any], condition: str = "attribute_not_exists(pk)") -> dict[str, Any]:
    return {"Put": {"TableName": "t", "Item": item, "ConditionExpression": condition}}


# The page.


def test_the_tables_are_what_the_code_asks_for(counts: Counts) -> None:
    page = PAGE.read_text()
    for name, table in tables(counts).items():
        assert f"<!-- counted: {name} -->\n{table}\n<!-- end -->" in page, (
            f"table {name!r} of docs/capacity.md is outdated: run `python -m bench.capacity`"
        )


def test_every_marker_of_the_page_is_a_table_that_is_counted(counts: Counts) -> None:
    named = re.findall(r"<!-- counted: (\w+) -->", PAGE.read_text())
    assert sorted(named) == sorted(tables(counts))


def test_writing_the_page_anew_replaces_its_tables_and_nothing_else() -> None:
    page = "before\n<!-- counted: a -->\nold\n<!-- end -->\nafter\n"
    assert renewed(page, {"a": "new"}) == page.replace("old", "new")
    with pytest.raises(ValueError, match="substring not found"):
        renewed(page, {"b": "new"})


def test_the_command_writes_the_page(
    counts: Counts, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    page = tmp_path / "capacity.md"
    page.write_text(re.sub(r"\| accept 1 \|.*", "| gone |", PAGE.read_text()))
    monkeypatch.setattr(capacity, "PAGE", page)
    monkeypatch.setattr(capacity, "count", lambda: counts)
    capacity.main()
    assert page.read_text() == PAGE.read_text()


def test_what_the_page_says_in_words_is_what_the_code_has(counts: Counts) -> None:
    page = " ".join(PAGE.read_text().split())
    assert f"{UNDECIDED_SHARDS} shards" in page
    assert f"at most {MESSAGE_ORDERS_MAX} orders" in page
    full = TRANSACTION_ACTIONS_MAX // ACTIONS_PER_ORDER_MAX
    assert full == GROUP
    assert counts.store["accept 33, keys"].usage.actions_max == full * ACTIONS_PER_ORDER_MAX


# What is counted.


def test_a_lone_order_is_one_call_to_accept_and_two_to_settle(counts: Counts) -> None:
    accepted, settled = counts.store["accept 1"].usage, counts.store["settle 1"].usage
    # Head and order, twice each for the transaction; the entry in the index once.
    assert (accepted.calls, accepted.table_writes, accepted.index_writes) == (1, 4, 1)
    # Account, head and order are read; account and order are written; the entry goes.
    assert (settled.calls, settled.reads) == (2, 3)
    assert (settled.table_writes, settled.index_writes) == (4, 1)


def test_on_moto_the_counts_are_the_same(counts: Counts) -> None:
    with moto_client() as client:
        table = new_table(client)
        metered = MeteredClient(client)
        product = Desk(metered, Gateway(metered, table.table_name))  # type: ignore[arg-type]
        accounts = product.open(1, recent=0)
        accepted = product.accept(product.requests(accounts, keyed=False))
        settled = product.settle(product.queue.messages.pop())
    for name, usage in (("accept 1", accepted), ("settle 1", settled)):
        assert usage == replace(counts.store[name].usage, by_partition=usage.by_partition)


def test_a_group_of_distinct_accounts_saves_calls_and_no_units(counts: Counts) -> None:
    for group, orders in (("1", 1), ("10", 10), ("33", 33)):
        for case in (counts.store[f"accept {group}"], counts.store[f"settle {group}"]):
            assert case.orders == orders
            assert case.writes == 5
            assert case.usage.calls <= 2


def test_orders_of_one_account_share_its_head_and_its_state(counts: Counts) -> None:
    grouped = counts.store["accept 33 of one account"]
    assert grouped.table_writes == pytest.approx(2 + 2 / 33)


def test_an_account_grows_with_what_it_executed(counts: Counts) -> None:
    sizes = [size.account_bytes for size in counts.sizes]
    assert sizes == sorted(sizes)
    usual, busy = counts.sizes[1], counts.sizes[3]
    assert busy.lone > 2 * usual.lone


def test_a_cached_answer_asks_the_store_for_nothing(counts: Counts) -> None:
    assert counts.store["GET a final order"].usage.calls == 1
    assert counts.store["GET a final order, cached"].usage.calls == 0


def test_a_sweep_asks_each_shard_once(counts: Counts) -> None:
    for name in ("sweep, nothing undecided", "sweep, 100 orders lost"):
        assert counts.store[name].usage.calls == UNDECIDED_SHARDS
        assert counts.store[name].usage.reads == UNDECIDED_SHARDS / 2


def test_a_message_grows_by_its_orders_and_costs_the_same_commands(counts: Counts) -> None:
    one, _, many = counts.broker.messages
    assert many.orders == MESSAGE_ORDERS_MAX
    assert many.commands == one.commands
    assert one.publish == ["LPUSH"]
    assert many.cache == ["SET"] * many.orders
    assert one.waiting_bytes < many.waiting_bytes < one.waiting_bytes * many.orders


def test_orders_in_shards_by_a_smaller_number_are_still_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with desk() as product:
        waiting = product.pending(product.open(40))
        monkeypatch.setattr("shared.order_store.keys.UNDECIDED_SHARDS", 4 * UNDECIDED_SHARDS)
        monkeypatch.setattr("shared.order_store.reads.UNDECIDED_SHARDS", 4 * UNDECIDED_SHARDS)
        waiting += product.pending(product.open(40))
        found = reads.undecided_before(product.gateway, product.now + seconds(1))
        assert sorted(found) == sorted(waiting)


# DynamoDB's rules.


@pytest.mark.parametrize(
    ("value", "size"),
    [
        ({"S": ""}, 0),
        ({"S": "añ"}, 3),
        ({"N": "0"}, 2),
        ({"N": "27"}, 2),
        ({"N": "-0.0012300"}, 3),
        ({"N": "1000"}, 2),
        ({"BOOL": True}, 1),
        ({"L": []}, 3),
        ({"L": [{"S": "ab"}, {"N": "1"}]}, 3 + 1 + 2 + 1 + 2),
        ({"M": {}}, 3),
        ({"M": {"abc": {"S": "de"}}}, 3 + 1 + 3 + 2),
    ],
)
def test_a_value_has_the_size_that_aws_says(value: dict[str, Any], size: int) -> None:
    assert value_bytes(value) == size
    assert item_bytes({"name": value}) == 4 + size


def test_a_value_of_a_type_that_we_do_not_use_has_no_size() -> None:
    with pytest.raises(ValueError, match="holds a B"):
        value_bytes({"B": "AA=="})


def test_a_write_costs_each_kilobyte_of_the_larger_size() -> None:
    assert write_units(None, item_of(1024)) == 1
    assert write_units(None, item_of(1025)) == 2
    assert write_units(item_of(3000), item_of(100)) == 3


def test_the_index_costs_where_an_entry_comes_goes_or_moves() -> None:
    one, other, none = item_of(2000, "1"), item_of(2000, "2"), item_of(2000)
    assert index_units(None, one) == 1
    assert index_units(one, none) == 1
    assert index_units(one, other) == 2
    assert index_units(one, item_of(50, "1")) == 0
    assert index_units(none, None) == 0


def test_a_transaction_costs_twice_and_its_index_once(client: MeteredClient) -> None:
    transact(client, put(item_of(1500, "1")))
    usage = client.take()
    assert (usage.calls, usage.table_writes, usage.index_writes) == (1, 4, 1)
    assert usage.by_partition == {"p": 4}
    assert client.usage.calls == 0


def test_a_transaction_that_is_refused_costs_too(client: MeteredClient) -> None:
    transact(client, put(item_of(1500, "1")))
    client.take()
    with pytest.raises(TransactionCancelled):
        Gateway(client, "t").transact([put(item_of(10))], "another token")  # type: ignore[arg-type]
    usage = client.take()
    assert (usage.calls, usage.table_writes, usage.index_writes) == (1, 4, 0)


def test_reads_cost_each_four_kilobytes_and_a_missing_item_one(client: MeteredClient) -> None:
    gateway = Gateway(client, "t")  # type: ignore[arg-type]
    transact(client, put(item_of(5000, "1")))
    client.take()
    gateway.get(KEY)
    assert client.take().reads == 2
    gateway.batch_get([KEY, {**KEY, "sk": {"S": "none"}}])
    assert client.take().reads == 3
    asked: dict[str, Any] = {
        "KeyConditionExpression": "pk = :pk",
        "ExpressionAttributeValues": {":pk": KEY["pk"]},
    }
    gateway.query(**asked)
    assert client.take().reads == 1
    gateway.query(**asked, ConsistentRead=True)
    assert client.take().reads == 2
