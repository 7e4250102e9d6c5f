"""The table as one process meets it: over a network, in pieces, and sometimes not at all."""

from typing import Any, Final

from tests.simulation.dynamodb import Table
from tests.simulation.expressions import Item
from tests.simulation.redis import brief
from tests.simulation.scheduler import Process
from tests.simulation.weather import STORE

_TORN_SHARE: Final = 0.25


class StoreClient:
    """A boto3 client of one process."""

    def __init__(self, table: Table, process: Process, unprocessed: float = 0.0) -> None:
        """``unprocessed`` is the share of batches of which DynamoDB leaves a part undone."""
        self._table = table
        self._process = process
        self._unprocessed = unprocessed

    def get_item(self, **arguments: Any) -> dict[str, Any]:
        return self._call("get_item", arguments, arguments["Key"])

    def query(self, **arguments: Any) -> dict[str, Any]:
        return self._call("query", arguments)

    def scan(self, **arguments: Any) -> dict[str, Any]:
        return self._call("scan", arguments)

    def put_item(self, **arguments: Any) -> dict[str, Any]:
        return self._call("put_item", arguments, arguments["Item"], writes=True)

    def update_item(self, **arguments: Any) -> dict[str, Any]:
        return self._call("update_item", arguments, arguments["Key"], writes=True)

    def transact_write_items(self, **arguments: Any) -> dict[str, Any]:
        """The answer comes when all of the transaction is to be seen, not before."""
        keys = [_key_in(action) for action in arguments["TransactItems"]]
        hub, lands_at = self._process.hub, [0.0]

        def carry_out() -> dict[str, Any]:
            answer = self._table.transact_write_items(**arguments)
            lands_at[0] = self._table.lands_at
            return answer

        answer: dict[str, Any] = self._process.call(
            STORE, "transact_write_items", carry_out, writes=True, details=(_Keys(tuple(keys)),)
        )
        if hub.now < lands_at[0]:
            hub.pause(lands_at[0] - hub.now)
        return answer

    def batch_get_item(self, **arguments: Any) -> dict[str, Any]:
        """The keys of one batch are read one after the other: here, in up to two looks."""
        hub = self._process.hub
        ((name, request),) = arguments["RequestItems"].items()
        keys = sorted(request["Keys"], key=lambda key: (key["pk"]["S"], key["sk"]["S"]))
        rest: list[Any] = []
        is_bad = hub.now < hub.weather.until
        if is_bad and len(keys) > 1 and hub.rng.random() < self._unprocessed:
            hub.counts["keys unprocessed"] += 1
            cut = hub.rng.randrange(len(keys))
            keys, rest = keys[:cut], keys[cut:]
        looks = [keys] if keys else []
        if len(keys) > 1 and hub.rng.random() < _TORN_SHARE:
            hub.counts["torn reads"] += 1
            hub.rng.shuffle(keys)
            cut = hub.rng.randrange(1, len(keys))
            looks = [keys[:cut], keys[cut:]]
        items: list[Item] = []
        for look in looks:
            part = {"RequestItems": {name: {**request, "Keys": look}}}
            items += self._call("batch_get_item", part, *look)["Responses"][name]
        left = {name: {**request, "Keys": rest}} if rest else {}
        return {"Responses": {name: items}, "UnprocessedKeys": left}

    def _call(
        self, name: str, arguments: dict[str, Any], *keys: Item, writes: bool = False
    ) -> dict[str, Any]:
        method = getattr(self._table, name)
        return self._process.call(
            STORE, name, lambda: method(**arguments), writes=writes, details=(_Keys(keys),)
        )


class _Keys(tuple[Item, ...]):
    """Keys, written only if somebody reads the trace."""

    __slots__ = ()

    def __str__(self) -> str:
        return " ".join(_brief(key) for key in self)


def _brief(key: Item) -> str:
    pk, sk = key["pk"]["S"], key["sk"]["S"]
    kind, _, rest = sk.partition("#")
    owner = pk.removeprefix("ACCOUNT#")
    return brief(owner, rest) if kind == "ORDER" else f"{owner[:24]}:{sk}"


def _key_in(action: dict[str, Any]) -> Item:
    arguments = next(iter(action.values()))
    key: Item = arguments["Item"] if "Item" in arguments else arguments["Key"]
    return key
