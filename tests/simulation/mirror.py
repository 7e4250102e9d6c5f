"""The simulation's table with a real one beside it: each call is made on both, and compared.

The schedule goes on with what the model says, so it stays the schedule of its seed. What the model
makes up (lost answers, stale reads, an index that lags, transactions that show themselves in parts
and the conflicts with them) is not asked of the engine; tokens are not either, for theirs runs on
the engine's clock.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final
from unittest.mock import patch

from botocore.exceptions import ClientError

from shared.order_store.table import table_definition
from tests.simulation import world
from tests.simulation.dynamodb import Table
from tests.simulation.expressions import Item

_OF_TOKENS: Final = ("IdempotentParameterMismatchException", "TransactionInProgressException")

Outcome = tuple[Any, ...]


class Mirror:
    """The tables of an engine, one for each schedule, and how they answered."""

    def __init__(self, client: Any, prefix: str) -> None:
        """Make tables through ``client``, whose names begin with ``prefix``."""
        self.client = client
        self.compared: Counter[str] = Counter()
        """Calls by name, and refusals by code."""
        self.differences: list[str] = []
        self._prefix = prefix
        self._tables: list[MirroredTable] = []

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Have the schedules within this block run on both."""

        def table(name: str, *arguments: Any, **more: Any) -> "MirroredTable":
            made = MirroredTable(
                self, f"{self._prefix}-{len(self._tables)}", name, *arguments, **more
            )
            self._tables.append(made)
            return made

        with patch.object(world, "Table", table):
            yield

    def compare_tables(self) -> None:
        """See that model and engine hold the same in the end; the engine's tables go."""
        for table in self._tables:
            ours = sorted(table.items.values(), key=_place)
            theirs = sorted(self._all_items(table.real_name), key=_place)
            self.note("whole tables", (ours,), (theirs,))
            self.client.delete_table(TableName=table.real_name)
        self._tables.clear()

    def note(self, call: str, ours: Outcome, theirs: Outcome) -> None:
        """Compare two outcomes of a call."""
        self.compared[call] += 1
        if ours != theirs:
            self.differences.append(f"{call}: the model says {ours}, the engine {theirs}")

    def _all_items(self, name: str) -> list[Item]:
        pages = self.client.get_paginator("scan").paginate(TableName=name, ConsistentRead=True)
        return [item for page in pages for item in page["Items"]]


class MirroredTable(Table):
    """The model of a table that asks the engine, too."""

    def __init__(self, mirror: Mirror, real_name: str, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.real_name = real_name
        self._mirror = mirror
        mirror.client.create_table(**table_definition(real_name))

    def get_item(self, **arguments: Any) -> dict[str, Any]:
        return self._on_both("get_item", arguments, is_comparable=self._is_certain(arguments))

    def batch_get_item(self, **arguments: Any) -> dict[str, Any]:
        (request,) = arguments["RequestItems"].values()
        return self._on_both("batch_get_item", arguments, is_comparable=self._is_certain(request))

    def query(self, **arguments: Any) -> dict[str, Any]:
        return self._on_both("query", arguments, is_comparable=self._is_certain(arguments))

    def put_item(self, **arguments: Any) -> dict[str, Any]:
        return self._on_both("put_item", arguments)

    def update_item(self, **arguments: Any) -> dict[str, Any]:
        return self._on_both("update_item", arguments)

    def delete_item(self, **arguments: Any) -> dict[str, Any]:
        return self._on_both("delete_item", arguments)

    def transact_write_items(self, **arguments: Any) -> dict[str, Any]:
        return self._on_both("transact_write_items", arguments)

    def _on_both(
        self, name: str, arguments: dict[str, Any], *, is_comparable: bool = True
    ) -> dict[str, Any]:
        hits = self.token_hits
        answer: dict[str, Any] = {}
        refusal: ClientError | None = None
        try:
            answer = getattr(super(), name)(**arguments)
        except ClientError as error:
            refusal = error
        is_repeated = self.token_hits > hits or _code_of(refusal) in _OF_TOKENS
        if is_comparable and not is_repeated and not _is_conflict(refusal):
            self._compare(name, arguments, _outcome(name, answer, refusal))
        if refusal is not None:
            raise refusal
        return answer

    def _is_certain(self, request: Mapping[str, Any]) -> bool:
        """Tell whether there is one answer to a read: it is consistent, and nothing half shown."""
        return bool(request.get("ConsistentRead")) and not any(
            map(self._is_landing, self._unlanded)
        )

    def _compare(self, name: str, arguments: Mapping[str, Any], ours: Outcome) -> None:
        asked = _renamed(arguments, self.name, self.real_name)
        asked.pop("ClientRequestToken", None)
        if name == "query":
            asked["Limit"] = min(asked.get("Limit", self._page_items_max), self._page_items_max)
        try:
            theirs = _outcome(name, getattr(self._mirror.client, name)(**asked), None)
        except ClientError as error:
            theirs = _outcome(name, {}, error)
            self._mirror.compared[_code_of(error)] += 1
        self._mirror.note(name, ours, theirs)


def _is_conflict(refusal: ClientError | None) -> bool:
    """Tell whether a write met a transaction that is under way: the engine knows none."""
    if refusal is None:
        return False
    response: Any = refusal.response
    codes = [reason.get("Code") for reason in response.get("CancellationReasons", [])]
    return "TransactionConflict" in codes or _code_of(refusal) == "TransactionConflictException"


def _outcome(name: str, answer: Mapping[str, Any], refusal: ClientError | None) -> Outcome:
    """What can be compared of an answer."""
    if refusal is not None:
        response: Any = refusal.response
        reasons = response.get("CancellationReasons", [])
        return (
            _code_of(refusal),
            [(reason.get("Code"), reason.get("Item") or None) for reason in reasons],
            response.get("Item"),
        )
    if name == "batch_get_item":
        (items,) = answer["Responses"].values()
        return (sorted(items, key=_place),)
    if name == "query":
        return (answer["Items"],)
    return (answer.get("Item") or answer.get("Attributes") or None,)


def _code_of(error: ClientError | None) -> str:
    return "" if error is None else str(error.response.get("Error", {}).get("Code"))


def _place(item: Item) -> tuple[str, str]:
    return item["pk"]["S"], item["sk"]["S"]


def _renamed(arguments: Any, old: str, new: str) -> Any:
    """``arguments`` for the table ``new``, wherever they name ``old`` as a table."""
    if isinstance(arguments, Mapping):
        renamed = {name: _renamed(value, old, new) for name, value in arguments.items()}
        if renamed.get("TableName") == old:
            renamed["TableName"] = new
        if "RequestItems" in renamed:
            renamed["RequestItems"] = {new: renamed["RequestItems"][old]}
        return renamed
    if isinstance(arguments, list | tuple):
        return [_renamed(value, old, new) for value in arguments]
    return arguments
