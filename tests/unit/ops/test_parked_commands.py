"""The operators' commands for parked orders: what they say, do, and end with."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner, Result

from ops import parked as command
from ops.__main__ import main
from shared.domain.order import Order, OrderStatus
from shared.ids import OrderRef
from shared.order_store import commits, items, keys, parking
from shared.order_store.errors import StoreThrottled, StoreUnavailable
from shared.order_store.gateway import Gateway
from shared.settings import Settings
from shared.task_queue import QueueUnavailable, TaskQueue, write_ref
from tests.unit.factories import (
    NOON,
    HookedGateway,
    accept,
    make_account,
    make_order,
    make_settler,
    new_table,
    open_account,
    order_id,
    overwrite,
    raw,
    ref,
    seconds,
    stored_order,
)

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient


class FakeQueue(TaskQueue):
    """A queue that keeps its messages, or is away."""

    def __init__(self) -> None:
        self.messages: list[list[OrderRef]] = []
        self.is_down = False

    def publish(
        self,
        refs: Sequence[OrderRef],
        now: datetime,
        *,
        suspect: bool = False,
        origins: Sequence[str] = (),
    ) -> None:
        del now, origins
        assert not suspect
        if self.is_down:
            raise QueueUnavailable("no broker")
        self.messages.append(list(refs))


@dataclass(slots=True)
class Console:
    """An operator's terminal."""

    gateway: HookedGateway
    queue: FakeQueue = field(default_factory=FakeQueue)

    def run(self, *arguments: str, answer: str | None = None) -> Result:
        result = CliRunner().invoke(main, ["parked", *arguments], input=answer)
        assert result.exception is None or isinstance(result.exception, SystemExit)
        return result


@pytest.fixture
def console(client: "DynamoDBClient", monkeypatch: pytest.MonkeyPatch) -> Console:
    console = Console(HookedGateway(new_table(client)))

    def open_gateway(settings: Settings) -> Gateway:
        del settings
        return console.gateway

    monkeypatch.setattr(command, "read_settings", lambda: Settings(market_always_open=True))
    monkeypatch.setattr(command, "open_gateway", open_gateway)
    monkeypatch.setattr(command, "open_queue", lambda _settings: console.queue)
    return console


def parked_orders(gateway: Gateway, *numbers: int, account_id: int = 1) -> list[Order]:
    """Parked buys of a new account."""
    open_account(gateway, make_account("1000", account_id=account_id))
    orders = [
        make_order("BUY", f"ISSUER {number}", account_id=account_id, number=number)
        for number in numbers
    ]
    accept(gateway, *orders)
    for order in orders:
        commits.park_unreadable_account(gateway, *ref(order), NOON, f"why {order.issuer_name}")
    return orders


def name(order: Order) -> str:
    return write_ref(ref(order))


def status(gateway: Gateway, order: Order) -> OrderStatus | None:
    return items.read_status(raw(gateway, keys.order_key(*ref(order))))


# list


def test_parked_orders_are_listed_with_their_reasons(console: Console) -> None:
    first, second = parked_orders(console.gateway, 1, 2)
    result = console.run("list")
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        f"{name(first)}  2026-03-02T18:00:00.000000Z  why ISSUER 1",
        f"{name(second)}  2026-03-02T18:00:00.000000Z  why ISSUER 2",
        "2 parked orders.",
    ]


def test_where_nothing_is_parked_that_is_said(console: Console) -> None:
    assert console.run("list").stdout == "No parked orders.\n"
    assert console.run("list", "--json").stdout == ""


def test_the_list_is_of_one_account_if_that_is_asked(console: Console) -> None:
    parked_orders(console.gateway, 1)
    (other,) = parked_orders(console.gateway, 2, account_id=2)
    lines = console.run("list", "--account", "2").stdout.splitlines()
    assert lines == [f"{name(other)}  2026-03-02T18:00:00.000000Z  why ISSUER 2", "1 parked order."]


def test_the_list_can_be_read_by_programs(console: Console) -> None:
    (order,) = parked_orders(console.gateway, 1)
    overwrite(console.gateway, keys.order_key(*ref(order)), "share_price", {"S": "?"})
    (line,) = console.run("list", "--json").stdout.splitlines()
    shown = json.loads(line)
    assert "cannot be read" in shown.pop("problem")
    assert shown == {
        "order": name(order),
        "account_id": 1,
        "id": order.id,
        "parked_at": "2026-03-02T18:00:00.000000Z",
        "failure": "why ISSUER 1",
        "sequence": None,
        "attempts": 0,
        "parked_before": 0,
    }


def test_an_order_of_which_little_is_left_is_listed(console: Console) -> None:
    (order,) = parked_orders(console.gateway, 1)
    for attribute in ("decided_at", "failure"):
        overwrite(console.gateway, keys.order_key(*ref(order)), attribute, {"NULL": True})
    assert console.run("list").stdout.splitlines()[0] == f"{name(order)}  ?  ?"
    assert json.loads(console.run("list", "--json").stdout)["failure"] is None


def test_a_long_reason_is_cut_in_the_list_and_whole_in_show(console: Console) -> None:
    (order,) = parked_orders(console.gateway, 1)
    overwrite(console.gateway, keys.order_key(*ref(order)), "failure", items.text("x" * 300))
    assert console.run("list").stdout.splitlines()[0].endswith(" " + "x" * 97 + "...")
    assert "x" * 300 in console.run("show", name(order)).stdout


# show


def facts(result: Result) -> list[str]:
    """What is said above the item."""
    assert result.exit_code == 0, result.output
    return str(result.stdout.partition("\n\n")[0]).splitlines()


def test_show_says_why_an_order_is_parked_and_what_a_replay_would_come_to(
    console: Console,
) -> None:
    (order,) = parked_orders(console.gateway, 1)
    result = console.run("show", name(order))
    assert facts(result) == [
        f"order     {name(order)}",
        "status    failed",
        "attempts  0",
        "parked    2026-03-02T18:00:00.000000Z, without its account",
        "why       why ISSUER 1",
        "asks for  BUY 1 ISSUER 1 at 10, sent 2026-03-02T18:00:00+00:00,"
        " received 2026-03-02T18:00:00+00:00",
        "replay    would be executed now",
    ]
    item = json.loads(result.stdout.partition("\n\n")[2])
    assert item == raw(console.gateway, keys.order_key(*ref(order)))


def test_show_writes_binary_attributes_as_base64(console: Console) -> None:
    (order,) = parked_orders(console.gateway, 1)
    overwrite(console.gateway, keys.order_key(*ref(order)), "share_price", {"B": b"\x00\xff"})
    result = console.run("show", name(order))
    assert "replay    refused until the item is repaired" in facts(result)
    assert json.loads(result.stdout.partition("\n\n")[2])["share_price"] == {"B": "AP8="}


def replay_line(console: Console, order: Order) -> str:
    (line,) = [line for line in facts(console.run("show", name(order))) if "replay" in line]
    return line.removeprefix("replay    ")


def test_show_foretells_a_rejection_by_the_rules(console: Console) -> None:
    (order,) = parked_orders(console.gateway, 1)
    newer = make_order("BUY", "AAPL", 99, "10", at=NOON + seconds(9), number=2)
    accept(console.gateway, newer)
    make_settler(console.gateway).settle([ref(newer)])
    assert replay_line(console, order) == "would be rejected now: INVALID_OPERATION"


@pytest.mark.parametrize(
    ("key", "attribute", "said"),
    [
        ("order", "share_price", "refused until the item is repaired"),
        ("order", "timestamp", "refused until the item is repaired"),
        ("account", "cash", "refused until the account is repaired"),
    ],
)
def test_show_says_what_stands_in_the_way_of_a_replay(
    console: Console, key: str, attribute: str, said: str
) -> None:
    (order,) = parked_orders(console.gateway, 1)
    damaged = keys.order_key(*ref(order)) if key == "order" else keys.account_key(1)
    overwrite(console.gateway, damaged, attribute, {"S": "2026-03-02T12:00:00"})
    assert replay_line(console, order).startswith(said)


def test_show_says_that_the_rules_would_fail_again(
    console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ArithmeticError("too large")

    monkeypatch.setattr(command, "violated_rules", fail)
    (order,) = parked_orders(console.gateway, 1)
    assert replay_line(console, order) == (
        "would be parked again: the rules cannot be applied to it (ArithmeticError('too large'))"
    )


def test_show_says_that_the_account_is_gone(console: Console) -> None:
    (order,) = parked_orders(console.gateway, 1)
    console.gateway._client.delete_item(
        TableName=console.gateway.table_name, Key=keys.account_key(1)
    )
    assert replay_line(console, order) == "refused: the account's item is missing"


def test_show_tells_of_earlier_parkings_and_of_orders_that_are_not_parked(
    console: Console,
) -> None:
    (order,) = parked_orders(console.gateway, 1)
    parking.replay(console.gateway, ref(order))
    assert facts(console.run("show", name(order)))[1:4] == [
        "status    pending",
        "attempts  0",
        "earlier   2026-03-02T18:00:00.000000Z, without its account: why ISSUER 1",
    ]


def test_show_still_says_why_an_order_was_parked_that_was_cancelled_since(console: Console) -> None:
    (order,) = parked_orders(console.gateway, 1)
    parking.cancel(console.gateway, ref(order), lambda: NOON)
    assert facts(console.run("show", name(order)))[1:5] == [
        "status    cancelled",
        "attempts  0",
        "parked    2026-03-02T18:00:00.000000Z, without its account",
        "why       why ISSUER 1",
    ]


def test_show_of_an_order_that_does_not_exist_is_an_error(console: Console) -> None:
    result = console.run("show", f"1/{order_id(1)}")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == f"Error: 1/{order_id(1)}: there is no such order.\n"


@pytest.mark.parametrize(
    "text", ["x", "1", f"x/{order_id(1)}", f"0/{order_id(1)}", "1/2", f"1/{order_id(1)}/", "/"]
)
def test_what_names_no_order_is_an_error_of_use(console: Console, text: str) -> None:
    for verb in ("show", "replay", "cancel"):
        result = console.run(verb, text)
        assert result.exit_code == 2
        assert repr(text) in result.stderr


# replay


def test_named_orders_are_replayed_and_enqueued_by_account(console: Console) -> None:
    first, second = parked_orders(console.gateway, 1, 3)
    (other,) = parked_orders(console.gateway, 2, account_id=2)
    names = [name(order) for order in (first, other, second)]
    result = console.run("replay", *names, answer="y\n")
    assert result.exit_code == 0
    assert "Replay 3 orders? [y/N]" in result.stdout
    assert result.stdout.splitlines()[-4:] == [
        *(f"{one}: replayed" for one in names),
        "3 orders replayed, 0 not.",
    ]
    # An order that kills its worker must not take another account's along.
    assert console.queue.messages == [[ref(first), ref(second)], [ref(other)]]
    assert {status(console.gateway, order) for order in (first, second, other)} == {"pending"}


@pytest.mark.parametrize("verb", ["replay", "cancel"])
def test_without_a_yes_nothing_happens(console: Console, verb: str) -> None:
    (order,) = parked_orders(console.gateway, 1)
    result = console.run(verb, name(order), answer="n\n")
    assert result.exit_code == 1
    assert (status(console.gateway, order), console.queue.messages) == ("failed", [])


def test_all_are_replayed_batch_by_batch(console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "BATCH_ORDERS", 2)
    orders = parked_orders(console.gateway, 1, 2, 3)
    result = console.run("replay", "--all", "--yes")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.splitlines()[-1] == "3 orders replayed, 0 not."
    assert console.queue.messages == [[ref(orders[0]), ref(orders[1])], [ref(orders[2])]]
    assert console.run("replay", "--all").stdout == "No parked orders.\n"


def test_all_of_an_account_are_replayed(console: Console) -> None:
    (left,) = parked_orders(console.gateway, 1)
    (replayed,) = parked_orders(console.gateway, 2, account_id=2)
    assert console.run("replay", "--all", "--account", "2", "--yes").exit_code == 0
    assert [status(console.gateway, one) for one in (left, replayed)] == ["failed", "pending"]


def test_one_command_replays_a_bounded_number(
    console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "ORDERS_MAX", 2)
    orders = parked_orders(console.gateway, 1, 2, 3)
    result = console.run("replay", "--all", "--yes")
    assert result.stdout.startswith("Taking the oldest 2; run this again for the rest.\n")
    statuses = [status(console.gateway, order) for order in orders]
    assert statuses == ["pending", "pending", "failed"]


def test_orders_that_cannot_be_replayed_are_told_and_the_others_go_on(console: Console) -> None:
    damaged, sound = parked_orders(console.gateway, 1, 2)
    overwrite(console.gateway, keys.order_key(*ref(damaged)), "share_price", {"S": "?"})
    result = console.run("replay", "--all", "--yes")
    assert result.exit_code == 1
    assert result.stderr.startswith(f"{name(damaged)}: not replayed: it would only be parked again")
    assert result.stdout.splitlines() == [
        f"{name(sound)}: replayed",
        "1 order replayed, 1 not.",
    ]
    assert console.queue.messages == [[ref(sound)]]


def test_a_broker_that_is_away_fails_no_replay(console: Console) -> None:
    (order,) = parked_orders(console.gateway, 1)
    console.queue.is_down = True
    result = console.run("replay", name(order), "--yes")
    assert result.exit_code == 0
    assert "The broker did not take the message (no broker). The sweeper" in result.stderr
    assert status(console.gateway, order) == "pending"


@pytest.mark.parametrize(
    "arguments", [(), ("--all", f"1/{order_id(1)}"), ("--account", "1", f"1/{order_id(1)}")]
)
def test_replay_wants_names_or_all(console: Console, arguments: tuple[str, ...]) -> None:
    assert console.run("replay", *arguments).exit_code == 2


# cancel


def test_orders_are_cancelled(console: Console) -> None:
    (order,) = parked_orders(console.gateway, 1)
    pending = make_order("BUY", "MSFT", number=2)
    accept(console.gateway, pending)
    result = console.run("cancel", name(order), name(pending), answer="y\n")
    assert result.exit_code == 0
    assert "Cancel 2 orders for good? [y/N]" in result.stdout
    assert result.stdout.splitlines()[-1] == "2 orders cancelled, 0 not."
    assert {status(console.gateway, one) for one in (order, pending)} == {"cancelled"}
    assert stored_order(console.gateway, pending).sequence == 1


def test_a_decided_order_is_not_cancelled_but_the_others_are(console: Console) -> None:
    decided = make_order("BUY", "MSFT", number=1)
    (order,) = parked_orders(console.gateway, 2)
    accept(console.gateway, make_order("BUY", "MSFT", number=3))
    later = make_order("BUY", "MSFT", number=3)
    make_settler(console.gateway).settle([ref(later)])
    result = console.run("cancel", name(later), name(decided), name(order), "--yes")
    assert result.exit_code == 1
    assert result.stderr.splitlines() == [
        f"{name(later)}: not cancelled: it is executed already",
        f"{name(decided)}: not cancelled: there is no such order",
    ]
    assert status(console.gateway, order) == "cancelled"


# A store that is away


def fail_with(error: Exception) -> Callable[[], None]:
    def fail() -> None:
        raise error

    return fail


def test_a_store_that_stays_away_ends_the_command_early(console: Console) -> None:
    orders = parked_orders(console.gateway, 1, 2, 3, 4, 5)
    console.gateway.before += [fail_with(StoreUnavailable("down"))] * 5
    result = console.run("replay", "--all", "--yes")
    assert result.exit_code == 1
    assert result.stderr.splitlines() == [
        *(f"{name(order)}: not replayed: DynamoDB: down" for order in orders[:3]),
        "DynamoDB does not answer: 2 orders left as they are.",
    ]
    assert {status(console.gateway, order) for order in orders} == {"failed"}


def test_a_store_that_fails_now_and_then_does_not(console: Console) -> None:
    orders = parked_orders(console.gateway, 1, 2, 3, 4, 5)
    down = fail_with(StoreUnavailable("down"))
    console.gateway.before += [down, down, lambda: None, down]
    result = console.run("replay", "--all", "--yes")
    assert result.stdout.splitlines()[-1] == "2 orders replayed, 3 not."
    assert console.queue.messages == [[ref(orders[2]), ref(orders[4])]]


def test_a_store_that_cannot_be_read_is_said_in_one_line(
    console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console.gateway, "query", lambda **_: fail_with(StoreThrottled("busy"))())
    monkeypatch.setattr(console.gateway, "get", lambda _: fail_with(StoreThrottled("busy"))())
    for arguments in (["list"], ["replay", "--all", "--yes"], ["show", f"1/{order_id(1)}"]):
        result = console.run(*arguments)
        assert result.exit_code == 1
        assert result.stderr == "Error: DynamoDB did not do as asked: busy\n"


# The real connections


def test_an_impossible_setting_ends_a_command_with_its_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MARKET_TZ", "Nowhere/Land")
    result = CliRunner().invoke(main, ["parked", "list"])
    assert result.exit_code == 2
    assert "MARKET_TZ" in result.stderr
    assert "Nowhere/Land" in result.stderr


def test_a_boto_that_is_not_set_up_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "there is none of this name")
    result = CliRunner().invoke(main, ["parked", "list"])
    assert result.exit_code == 1
    assert "there is none of this name" in result.stderr
    assert 'make ops ARGS="' in result.stderr


def test_a_store_that_nobody_answers_for_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for variable, value in (
        ("AWS_ENDPOINT_URL_DYNAMODB", "http://127.0.0.1:1"),
        ("AWS_DEFAULT_REGION", "us-east-1"),
        ("AWS_ACCESS_KEY_ID", "x"),
        ("AWS_SECRET_ACCESS_KEY", "x"),
    ):
        monkeypatch.setenv(variable, value)
    result = CliRunner().invoke(main, ["parked", "list"])
    assert result.exit_code == 1
    assert "127.0.0.1:1" in result.stderr
