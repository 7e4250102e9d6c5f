"""The table's model against what it models: the same calls, the same answers."""

import itertools
from collections.abc import Callable, Iterator
from typing import Any, cast

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from shared.order_store import accepts, reads
from shared.order_store.accepts import AcceptRefused
from shared.order_store.gateway import Gateway
from shared.order_store.records import OpenedAccount
from shared.order_store.table import table_definition
from tests.simulation.dynamodb import Table
from tests.simulation.world import INDEXES
from tests.stack import DYNAMODB_ENGINE, Engines
from tests.unit.factories import (
    NOON,
    accept,
    everything,
    make_account,
    make_order,
    make_settler,
    moto_client,
    new_table,
    ref,
)

_numbers = itertools.count(1)

PK, SK = {"S": "ACCOUNT#1"}, {"S": "ORDER#1"}
KEY = {"pk": PK, "sk": SK}


def key(sk: str, pk: str = "ACCOUNT#1") -> dict[str, Any]:
    return {"pk": {"S": pk}, "sk": {"S": sk}}


def update(expression: str, *, condition: str = "", sk: str = "ORDER#1", **values: Any) -> Any:
    """An update that names its attributes plainly; ``values`` are typed by their Python type."""
    arguments: dict[str, Any] = {"Key": key(sk), "UpdateExpression": expression}
    if condition:
        arguments["ConditionExpression"] = condition
        arguments["ReturnValuesOnConditionCheckFailure"] = "ALL_OLD"
    if values:
        arguments["ExpressionAttributeValues"] = {f":{k}": typed(v) for k, v in values.items()}
    return "update_item", {**arguments, "ReturnValues": "ALL_NEW"}


def typed(value: Any) -> dict[str, Any]:
    if isinstance(value, str):
        return {"S": value}
    if isinstance(value, int):
        return {"N": str(value)}
    return {"L": [typed(member) for member in value]}


def put(item: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"Put": {"Item": item, **more}}


def change(expression: str, *, condition: str = "", sk: str = "ORDER#1", **values: Any) -> Any:
    """An update as an action of a transaction."""
    _, arguments = update(expression, condition=condition, sk=sk, **values)
    return {"Update": {k: v for k, v in arguments.items() if k != "ReturnValues"}}


def transact(*actions: dict[str, Any], token: str | None = None) -> Any:
    arguments: dict[str, Any] = {"TransactItems": list(actions)}
    return "transact_write_items", {**arguments, **({"ClientRequestToken": token} if token else {})}


def query(condition: str, values: dict[str, str], **more: Any) -> Any:
    arguments = {
        "KeyConditionExpression": condition,
        "ExpressionAttributeValues": {f":{k}": {"S": v} for k, v in values.items()},
    }
    return "query", {**arguments, **more}


def ordered(number: int, shard: str | None = "3") -> dict[str, Any]:
    shown = {"undecided_shard": {"S": shard}} if shard else {}
    return put({**key(f"ORDER#{number}"), "n": {"N": str(number)}, **shown})


NOT_THERE = {
    "ConditionExpression": "attribute_not_exists(#pk)",
    "ExpressionAttributeNames": {"#pk": "pk"},
    "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
}
NOBODY = ("get_item", {"Key": key("nobody"), "ConsistentRead": True})
THERE = ("get_item", {"Key": KEY, "ConsistentRead": True})
FIRST = transact(put({**KEY, "status": {"S": "pending"}, "n": {"N": "5"}}))

DECIDED: list[tuple[str, dict[str, Any]]] = [
    ("pending", {}),
    ("failed", {"sequence": {"N": "4"}}),
    ("executed", {"sequence": {"N": "2"}, "parked": {"L": []}}),
    ("executed", {"sequence": {"N": "3"}}),
]

SCRIPTS: dict[str, list[Any]] = {
    "nothing is there": [NOBODY],
    "put, read": [FIRST, THERE, NOBODY],
    "a put that must be the first": [
        transact(put({**KEY, "a": {"N": "1"}}, **NOT_THERE)),
        transact(put({**KEY, "a": {"N": "2"}}, **NOT_THERE)),
        THERE,
    ],
    "a counter": [
        (
            "update_item",
            {
                "Key": key("COUNTER"),
                "UpdateExpression": "ADD #newest :count",
                "ExpressionAttributeNames": {"#newest": "newest"},
                "ExpressionAttributeValues": {":count": {"N": str(count)}},
                "ReturnValues": "UPDATED_NEW",
            },
        )
        for count in (3, 4, -2)
    ],
    "set, add and remove in one": [
        FIRST,
        update("SET a = :a, n = n + :one ADD m :m REMOVE gone", a="x", one=1, m=7),
        update("SET a = n, n = n - :one REMOVE m", one=2),
        THERE,
    ],
    "one expression reads the item as it was": [FIRST, update("SET a = n, n = :n", n=9)],
    "lists and defaults": [
        FIRST,
        update("SET l = list_append(if_not_exists(l, :none), :more)", none=[], more=["x"]),
        update("SET l = list_append(if_not_exists(l, :none), :more)", none=[], more=["y"]),
        update("REMOVE l[0]"),
        update("SET l[0] = :z", z="z"),
        update("SET a = if_not_exists(n, :zero)", zero=0),
    ],
    "maps": [
        transact(put({**KEY, "m": {"M": {"a": {"M": {"b": {"N": "1"}}}}}})),
        update("SET m.a.c = :c, m.d = m.a.b", c="c"),
        update("REMOVE m.a.b"),
        update("SET nowhere.a = :a", a="a"),
        THERE,
    ],
    "what an update reads must be there": [FIRST, update("SET a = b"), THERE],
    **{
        f"condition {condition}": [
            FIRST,
            update("SET done = :done", condition=condition, done=1, **values),
            THERE,
        ]
        for condition, values in (
            ("n = :v", {"v": 5}),
            ("n = :v", {"v": "5"}),
            ("n < :v", {"v": 10}),
            ("n <= :v", {"v": 5}),
            ("n > :v", {"v": 5}),
            ("n >= :v", {"v": 5}),
            ("n <> :v", {"v": 5}),
            ("absent < :v", {"v": 5}),
            ("n BETWEEN :v AND :w", {"v": 1, "w": 5}),
            ("n IN (:v, :w)", {"v": 1, "w": 5}),
            ("attribute_exists(n)", {}),
            ("attribute_not_exists(n)", {}),
            ("NOT attribute_not_exists(n)", {}),
            ("attribute_type(n, :v)", {"v": "N"}),
            ("NOT attribute_type(n, :v)", {"v": "S"}),
            ("attribute_not_exists(n) OR n <= :v", {"v": 4}),
            ("n = :v AND ( attribute_not_exists(x) OR x = :v )", {"v": 5}),
            ("n = :w OR n = :v AND n = :w", {"v": 5, "w": 6}),
            ("(n = :v OR n = :w) AND n = :w", {"v": 5, "w": 6}),
            ("begins_with(sk, :v)", {"v": "ORDER#"}),
            ("contains(sk, :v)", {"v": "DER"}),
            ("size(sk) = :v", {"v": 7}),
        )
    },
    "a condition on an item that is not there": [
        update("SET a = :a", condition="attribute_exists(pk)", sk="nobody", a=1),
        NOBODY,
    ],
    "a transaction happens whole": [
        FIRST,
        transact(
            put({**key("ORDER#2"), "n": {"N": "2"}}, **NOT_THERE),
            change("SET n = :six", condition="n = :five", five=5, six=6),
        ),
        THERE,
    ],
    "or not at all": [
        FIRST,
        transact(put({**key("ORDER#3"), "n": {"N": "3"}})),
        transact(
            put({**key("ORDER#2"), "n": {"N": "2"}}, **NOT_THERE),
            change("SET n = :six", condition="n = :nine", nine=9, six=6),
            put({**key("ORDER#3"), "n": {"N": "2"}}, **NOT_THERE),
        ),
        THERE,
        ("get_item", {"Key": key("ORDER#2"), "ConsistentRead": True}),
    ],
    "a check and a delete": [
        FIRST,
        transact(
            {
                "ConditionCheck": {
                    "Key": KEY,
                    "ConditionExpression": "n = :n",
                    "ExpressionAttributeValues": {":n": {"N": "5"}},
                }
            },
            put({**key("ORDER#2"), "n": {"N": "2"}}),
        ),
        transact({"Delete": {"Key": KEY}}),
        THERE,
    ],
    "a token makes it one transaction": [
        FIRST,
        transact(change("ADD n :one", one=1), token="one"),
        transact(change("ADD n :one", one=1), token="one"),
        THERE,
    ],
    "a token belongs to its transaction": [
        FIRST,
        transact(change("ADD n :one", one=1), token="one"),
        transact(change("ADD n :one", one=2), token="one"),
        THERE,
    ],
    "a refused transaction leaves its token free": [
        FIRST,
        transact(change("ADD n :one", condition="n = :n", one=1, n=6), token="one"),
        update("SET n = :n", n=6),
        transact(change("ADD n :one", condition="n = :n", one=1, n=6), token="one"),
        THERE,
    ],
    "two actions on one item": [transact(change("ADD n :one", one=1), put({**KEY}))],
    "a value that nobody uses": [FIRST, update("SET a = :a", a=1, b=2)],
    "a value that is missing": [FIRST, update("SET a = :a")],
    "a name that is missing": [FIRST, update("SET #a = :a", a=1)],
    "a key cannot be changed": [FIRST, update("SET sk = :a", a="x")],
    "one attribute twice": [FIRST, update("SET a = :a, a = :a", a="x")],
    "no such clause": [FIRST, update("PUT a = :a", a="x")],
    "a batch": [
        transact(ordered(1), ordered(2), ordered(3)),
        (
            "batch_get_item",
            {"Keys": [key("ORDER#3"), key("nobody"), key("ORDER#1")], "ConsistentRead": True},
        ),
    ],
    "one key of a batch twice": [("batch_get_item", {"Keys": [KEY, KEY]})],
    "orders of an account": [
        transact(*(ordered(number) for number in range(1, 8)), put(key("ACCOUNT"))),
        query(
            "pk = :pk AND sk BETWEEN :from AND :to",
            {"pk": "ACCOUNT#1", "from": "ORDER#3", "to": "ORDER#6"},
            Limit=2,
        ),
        query(
            "pk = :pk AND sk BETWEEN :from AND :to",
            {"pk": "ACCOUNT#1", "from": "ORDER#3", "to": "ORDER$"},
            Limit=2,
            ScanIndexForward=False,
        ),
        query("pk = :pk", {"pk": "ACCOUNT#1"}, ExclusiveStartKey=key("ORDER#4")),
        query("pk = :pk AND begins_with(sk, :sk)", {"pk": "ACCOUNT#1", "sk": "ACC"}),
        query("pk = :pk", {"pk": "ACCOUNT#2"}),
        query("sk = :sk", {"sk": "ACCOUNT"}),
    ],
    "orders of some statuses, and replayed ones": [
        transact(
            *(
                put({**key(f"ORDER#{number}"), "status": {"S": status}, **more})
                for number, (status, more) in enumerate(DECIDED)
            )
        ),
        *(
            query(
                "pk = :pk AND sk BETWEEN :from AND :to",
                {"pk": "ACCOUNT#1", "from": "ORDER#", "to": "ORDER$", **values},
                FilterExpression=condition,
                ExpressionAttributeNames={"#status": "status"},
                ScanIndexForward=False,
                Limit=3,
            )
            for condition, values in (
                ("#status IN (:one, :other)", {"one": "failed", "other": "pending"}),
                ("#status = :one OR attribute_exists(parked)", {"one": "failed"}),
            )
        ),
    ],
    "the index holds what has its attribute": [
        transact(ordered(1), ordered(2), ordered(3, None), ordered(4, "9"), ordered(5)),
        update("REMOVE undecided_shard", sk="ORDER#2"),
        update("SET undecided_shard = :other", sk="ORDER#5", other="9"),
        *(
            query(
                "undecided_shard = :shard AND sk < :before",
                {"shard": shard, "before": "ORDER#5"},
                IndexName="undecided",
                Limit=1,
            )
            for shard in ("3", "9", "1")
        ),
    ],
}

AWS_ALONE_REFUSES = {
    f"{name}, {'forward' if forward else 'backward'}": [
        transact(*(ordered(number) for number in range(1, 6))),
        query(
            "pk = :pk AND sk BETWEEN :from AND :to",
            {"pk": "ACCOUNT#1", "from": f"ORDER#{first}", "to": f"ORDER#{last}"},
            ScanIndexForward=forward,
            **({"ExclusiveStartKey": key(f"ORDER#{start}")} if start else {}),
        ),
    ]
    for name, first, last, start, forward in (
        ("swapped ends", 4, 3, 0, True),
        ("swapped ends", 4, 3, 0, False),
        ("a page that starts at the last end", 2, 4, 4, True),
        ("a page that starts at the last end", 2, 4, 2, False),
        ("a page that starts before its ends", 2, 4, 1, True),
        ("a page that starts before its ends", 2, 4, 1, False),
        ("a page that starts behind its ends", 2, 4, 5, True),
        ("a page that starts behind its ends", 2, 4, 5, False),
    )
}
"""DynamoDB Local refuses these, as the model does; moto and the embedded engine answer them."""

MOTO_DIFFERS = {
    "a token makes it one transaction",  # it knows no tokens
    "a token belongs to its transaction",
    "a counter",  # UPDATED_NEW of a new item shows its keys, too
    "a name that is missing",  # it ends with a KeyError
}


class Caller:
    """Makes calls on a table of its own and keeps what can be compared."""

    def __init__(self, client: Any, table_name: str) -> None:
        self._client = client
        self._table_name = table_name

    def __call__(self, name: str, arguments: dict[str, Any]) -> Any:
        try:
            if name == "query":
                return list(self._pages(arguments))
            return self._answer(name, arguments)
        except ClientError as error:
            response: Any = error.response
            reasons = response.get("CancellationReasons", [])
            return (
                response["Error"]["Code"],
                [(one.get("Code"), one.get("Item") or None) for one in reasons],
                response.get("Item"),
            )

    def _answer(self, name: str, arguments: dict[str, Any]) -> Any:
        table = {"TableName": self._table_name}
        if name == "batch_get_item":
            answer = self._client.batch_get_item(RequestItems={self._table_name: arguments})
            return sorted(answer["Responses"][self._table_name], key=lambda one: one["sk"]["S"])
        if name == "transact_write_items":
            actions = [
                {kind: {**action, **table} for kind, action in one.items()}
                for one in arguments["TransactItems"]
            ]
            # Tokens are known to a whole DynamoDB, whatever the table.
            tokens = {
                name: f"{self._table_name}-{value}"
                for name, value in arguments.items()
                if name == "ClientRequestToken"
            }
            self._client.transact_write_items(TransactItems=actions, **tokens)
            return "done"
        answer = getattr(self._client, name)(**arguments, **table)
        return answer.get("Item") or answer.get("Attributes")

    def _pages(self, arguments: dict[str, Any]) -> Iterator[Any]:
        """All items of a query: where a last full page ends, DynamoDB leaves to its engines."""
        start: dict[str, Any] = {}
        while True:
            answer = self._client.query(TableName=self._table_name, **{**arguments, **start})
            assert len(answer["Items"]) <= arguments.get("Limit", 1_000)
            yield from answer["Items"]
            if "LastEvaluatedKey" not in answer:
                return
            start = {"ExclusiveStartKey": answer["LastEvaluatedKey"]}


def model() -> Caller:
    return Caller(Table("model", INDEXES), "model")


def table_on(client: Any) -> Caller:
    name = f"model-{next(_numbers)}"
    client.create_table(**table_definition(name))
    return Caller(client, name)


@pytest.fixture(scope="module")
def on_moto() -> Iterator[Callable[[], Caller]]:
    with moto_client() as client:
        yield lambda: table_on(client)


@pytest.fixture(scope="module")
def on_engine(engines: Engines) -> Callable[[], Caller]:
    client = boto3.session.Session().client(
        "dynamodb",
        endpoint_url=engines.dynamodb_url,
        region_name="us-east-1",
        aws_access_key_id="local",
        aws_secret_access_key="local",
        config=Config(retries={"mode": "standard", "total_max_attempts": 1}),
    )
    return lambda: table_on(client)


@pytest.mark.parametrize("name", [name for name in SCRIPTS if name not in MOTO_DIFFERS])
def test_the_model_answers_as_moto_does(name: str, on_moto: Callable[[], Caller]) -> None:
    script = SCRIPTS[name]
    ours, theirs = model(), on_moto()

    assert [ours(*call) for call in script] == [theirs(*call) for call in script]


@pytest.mark.integration
@pytest.mark.parametrize("name", SCRIPTS)
def test_the_model_answers_as_the_engine_does(name: str, on_engine: Callable[[], Caller]) -> None:
    script = SCRIPTS[name]
    ours, theirs = model(), on_engine()

    assert [ours(*call) for call in script] == [theirs(*call) for call in script]


@pytest.mark.parametrize("name", AWS_ALONE_REFUSES)
def test_the_model_refuses_what_aws_alone_refuses(name: str) -> None:
    there, asked = AWS_ALONE_REFUSES[name]
    ours = model()

    assert ours(*there) == "done"
    assert ours(*asked) == ("ValidationException", [], None)


@pytest.mark.integration
@pytest.mark.skipif(DYNAMODB_ENGINE != "dynamodb-local", reason="only AWS's engine refuses these")
@pytest.mark.parametrize("name", AWS_ALONE_REFUSES)
def test_aws_s_engine_refuses_them(name: str, on_engine: Callable[[], Caller]) -> None:
    there, asked = AWS_ALONE_REFUSES[name]
    theirs = on_engine()

    assert theirs(*there) == "done"
    assert theirs(*asked) == ("ValidationException", [], None)


def test_the_product_leaves_the_same_table_on_the_model_as_on_moto() -> None:
    """Accounts, their orders, one of these accepted twice, and a settlement of all of them."""
    with moto_client() as client:
        real = new_table(client)
        ours = Gateway(cast("Any", Table(real.table_name, INDEXES)), real.table_name)
        for gateway in (real, ours):
            for account_id in (1, 2):
                account = make_account("25", account_id=account_id)
                opened = OpenedAccount(account, mark=f"mark-{account_id}")
                accepts.record_accounts(gateway, [opened], NOON, token=f"account-{account_id}")
            orders = [
                make_order(share_price=str(10 + number), account_id=account_id, number=number)
                for number in range(1, 5)
                for account_id in (1, 2)
            ]
            accept(gateway, *orders)
            with pytest.raises(AcceptRefused) as refused:
                accept(gateway, orders[0])
            assert refused.value.newest_ids == {1: orders[-2].id}
            left = make_settler(gateway).settle(map(ref, orders[-2:]))
            assert not left
            assert not list(reads.undecided_before(gateway, NOON))

        assert everything(ours) == everything(real)
