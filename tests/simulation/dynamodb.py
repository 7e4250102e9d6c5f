"""A model of one DynamoDB table: conditions, transactions, tokens, and an index that lags.

It is shaped as a boto3 client, so that the real ``Gateway`` works on it. Each call happens at one
instant and never fails but for what the caller asked; the weather is made in ``faults``.
"""

import heapq
from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from botocore.exceptions import ClientError

from tests.simulation.expressions import (
    Compiled,
    ExpressionError,
    Item,
    Value,
    compile_condition,
    compile_update,
)

ItemKey = tuple[str, str]
Written = tuple[ItemKey, Item | None, Item | None]
"""One item's change: its key, the item before and after."""

TOKEN_SECONDS: Final = 600.0
"""How long a transaction's token is known (10 minutes, AWS)."""

ACTIONS_MAX: Final = 100
BATCH_MAX: Final = 100
TOKEN_LENGTH_MAX: Final = 36
_KEY_BYTES_MAX: Final = 2048
_NOTHING: Final = Compiled()
_NO_NAMES: Final[dict[str, str]] = {}
_NO_VALUES: Final[dict[str, Value]] = {}
_ACTIONS: Final = frozenset({"Put", "Update", "Delete", "ConditionCheck"})


@dataclass(frozen=True, slots=True)
class Index:
    """A global index that holds the keys alone of the items that have its hash attribute."""

    name: str
    hash_name: str


@dataclass(slots=True)
class _Change:
    """One action, judged: what it would write, or why it cannot."""

    key: ItemKey
    before: Item | None
    after: Item | None
    is_met: bool
    shows_old: bool


@dataclass(slots=True)
class _Lagging:
    """Index entries on their way: the index shows each change a while after the table."""

    due: list[tuple[float, int, ItemKey, str | None]] = field(default_factory=list)
    last: dict[ItemKey, float] = field(default_factory=dict)
    shown: dict[ItemKey, str] = field(default_factory=dict)
    entries: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    count: int = 0

    def change(self, key: ItemKey, shard: str | None, visible_at: float) -> None:
        visible_at = max(visible_at, self.last.get(key, 0.0))
        self.last[key] = visible_at
        self.count += 1
        heapq.heappush(self.due, (visible_at, self.count, key, shard))

    def catch_up(self, now: float) -> None:
        while self.due and self.due[0][0] <= now:
            _, _, key, shard = heapq.heappop(self.due)
            place = (key[1], key[0])
            old = self.shown.pop(key, None)
            if old is not None:
                self.entries[old].remove(place)
            if shard is not None:
                self.shown[key] = shard
                insort(self.entries.setdefault(shard, []), place)


class Table:
    """The table. ``clock``, ``lag`` and ``landing`` are in seconds.

    ``landing`` is drawn for each item of a transaction: until then reads still see the item as it
    was, though the transaction is committed, and other writes to it conflict (AWS: single reads and
    queries are read-committed towards a transaction). ``observe`` sees each committed write.
    """

    def __init__(
        self,
        name: str,
        indexes: Sequence[Index] = (),
        *,
        clock: Callable[[], float] = lambda: 0.0,
        lag: Callable[[], float] = lambda: 0.0,
        landing: Callable[[], float] = lambda: 0.0,
        observe: Callable[[Sequence[Written]], None] = lambda _: None,
        page_items_max: int = 1_000_000,
        keeps_tokens: bool = True,
    ) -> None:
        self.name = name
        self.items: dict[ItemKey, Item] = {}
        self._indexes = {index.name: (index, _Lagging()) for index in indexes}
        self._partitions: dict[str, list[str]] = {}
        self._clock = clock
        self._lag = lag
        self._landing = landing
        self._observe = observe
        self._page_items_max = page_items_max
        self._keeps_tokens = keeps_tokens
        self._tokens: dict[str, tuple[float, Sequence[Mapping[str, Any]], float]] = {}
        self._replaced: dict[ItemKey, tuple[float, Item | None]] = {}
        self._unlanded: dict[ItemKey, tuple[float, Item | None]] = {}
        self.token_hits = 0
        self.lands_at = 0.0
        """When the transaction that was carried out last shows all of itself."""

    # Reads.

    def get_item(self, **arguments: Any) -> dict[str, Any]:
        self._check_table(arguments)
        item = self._seen(_key_of(arguments["Key"]), bool(arguments.get("ConsistentRead")))
        return {} if item is None else {"Item": dict(item)}

    def batch_get_item(self, **arguments: Any) -> dict[str, Any]:
        (name, request), *others = arguments["RequestItems"].items()
        if name != self.name or others:
            raise _error("ResourceNotFoundException", "no such table")
        wanted = [_key_of(key) for key in request["Keys"]]
        if not 0 < len(wanted) <= BATCH_MAX or len(set(wanted)) != len(wanted):
            raise _error("ValidationException", "too many keys, or one of them twice")
        is_consistent = bool(request.get("ConsistentRead"))
        # In the sequence of the keys' text: callers may hold them in sets.
        found = [self._seen(key, is_consistent) for key in sorted(wanted)]
        responses = [dict(item) for item in found if item is not None]
        return {"Responses": {self.name: responses}, "UnprocessedKeys": {}}

    def query(self, **arguments: Any) -> dict[str, Any]:
        self._check_table(arguments)
        names = arguments.get("ExpressionAttributeNames", _NO_NAMES)
        values = arguments.get("ExpressionAttributeValues", _NO_VALUES)
        condition = _compiled(compile_condition, arguments["KeyConditionExpression"], names)
        filtering = _NOTHING
        if "FilterExpression" in arguments:
            filtering = _compiled(compile_condition, arguments["FilterExpression"], names)
        _check_placeholders((condition, filtering), names, values)
        last = _last_end(arguments, condition, values)
        found = self._matching(arguments, condition, values)
        if not arguments.get("ScanIndexForward", True):
            found.reverse()
        limit = min(arguments.get("Limit", self._page_items_max), self._page_items_max)
        page = found[:limit]
        kept = [dict(item) for item in page if filtering.condition(item, values)]
        answer: dict[str, Any] = {"Items": kept, "Count": len(kept), "ScannedCount": len(page)}
        if page and len(page) == limit and page[-1]["sk"]["S"] != last:
            answer["LastEvaluatedKey"] = self._where(page[-1], arguments.get("IndexName"))
        return answer

    def scan(self, **arguments: Any) -> dict[str, Any]:
        self._check_table(arguments)
        names = arguments.get("ExpressionAttributeNames", _NO_NAMES)
        values = arguments.get("ExpressionAttributeValues", _NO_VALUES)
        filtering = _NOTHING
        if "FilterExpression" in arguments:
            filtering = _compiled(compile_condition, arguments["FilterExpression"], names)
        start = arguments.get("ExclusiveStartKey")
        keys = sorted(self.items)
        keys = keys[bisect_right(keys, _key_of(start)) :] if start else keys
        limit = min(arguments.get("Limit", self._page_items_max), self._page_items_max)
        page = [self.items[key] for key in keys[:limit]]
        kept = [dict(item) for item in page if filtering.condition(item, values)]
        answer: dict[str, Any] = {"Items": kept, "Count": len(kept), "ScannedCount": len(page)}
        if page and len(page) == limit:
            answer["LastEvaluatedKey"] = self._where(page[-1], None)
        return answer

    # Writes.

    def put_item(self, **arguments: Any) -> dict[str, Any]:
        return self._write_one({"Put": arguments})

    def update_item(self, **arguments: Any) -> dict[str, Any]:
        return self._write_one({"Update": arguments})

    def delete_item(self, **arguments: Any) -> dict[str, Any]:
        return self._write_one({"Delete": arguments})

    def transact_write_items(self, **arguments: Any) -> dict[str, Any]:
        actions: Sequence[Mapping[str, Any]] = arguments["TransactItems"]
        token = arguments.get("ClientRequestToken")
        if not 0 < len(actions) <= ACTIONS_MAX:
            raise _error("ValidationException", "a transaction has 1 to 100 actions")
        if token is not None and self._is_repeated(token, actions):
            return {}
        changes = [self._judge(action) for action in actions]
        if len({change.key for change in changes}) != len(changes):
            raise _error("ValidationException", "two actions of one transaction on one item")
        if not all(change.is_met and not self._is_landing(change.key) for change in changes):
            raise _cancelled([self._reason(change) for change in changes])
        self._commit(changes)
        self._land(changes)
        if token is not None and self._keeps_tokens:
            self._tokens[token] = (self._clock() + TOKEN_SECONDS, actions, self.lands_at)
        return {}

    # What the writes have in common.

    def _write_one(self, action: Mapping[str, Any]) -> dict[str, Any]:
        change = self._judge(action)
        if self._is_landing(change.key):
            raise _error("TransactionConflictException", "a transaction is at work on the item")
        if not change.is_met:
            raise _error(
                "ConditionalCheckFailedException",
                "the conditional request failed",
                item=change.before if change.shows_old else None,
            )
        self._commit([change])
        arguments = next(iter(action.values()))
        shown = _returned(arguments.get("ReturnValues", "NONE"), arguments, change)
        return {"Attributes": shown} if shown else {}

    def _is_repeated(self, token: str, actions: Sequence[Mapping[str, Any]]) -> bool:
        if not 0 < len(token) <= TOKEN_LENGTH_MAX:
            raise _error("ValidationException", "a token has 1 to 36 characters")
        known = self._tokens.get(token)
        if known is None or known[0] < self._clock():
            return False
        if known[1] != actions:
            raise _error("IdempotentParameterMismatchException", "another transaction, same token")
        if self._clock() < known[2]:
            raise _error("TransactionInProgressException", "it is being carried out")
        self.token_hits += 1
        return True

    def _judge(self, action: Mapping[str, Any]) -> _Change:
        ((kind, arguments),) = action.items()
        if kind not in _ACTIONS:
            raise _error("ValidationException", f"no such action: {kind}")
        self._check_table(arguments)
        names = arguments.get("ExpressionAttributeNames", _NO_NAMES)
        values = arguments.get("ExpressionAttributeValues", _NO_VALUES)
        condition = updating = _NOTHING
        if "ConditionExpression" in arguments:
            condition = _compiled(compile_condition, arguments["ConditionExpression"], names)
        if kind == "Update":
            updating = _compiled(compile_update, arguments["UpdateExpression"], names)
            if "pk" in updating.written or "sk" in updating.written:
                raise _error("ValidationException", "a key cannot be updated")
        _check_placeholders((condition, updating), names, values)
        key = _key_of(arguments["Item"] if kind == "Put" else arguments["Key"])
        before = self.items.get(key)
        is_met = condition.condition(before or {}, values)
        after = before
        if is_met and kind == "Put":
            after = dict(arguments["Item"])
        elif is_met and kind == "Delete":
            after = None
        elif is_met and kind == "Update":
            after = _updated(updating, before or dict(arguments["Key"]), values)
        shows_old = arguments.get("ReturnValuesOnConditionCheckFailure") == "ALL_OLD"
        return _Change(key, before, after, is_met, shows_old)

    def _commit(self, changes: Sequence[_Change]) -> None:
        written = [(one.key, one.before, one.after) for one in changes if one.after != one.before]
        for key, before, after in written:
            self._replaced[key] = (self._clock() + self._lag(), before)
            self._store(key, before, after)
        if written:
            self._observe(written)

    def _land(self, changes: Sequence[_Change]) -> None:
        """Let the reads see each change of a transaction at an instant of its own."""
        now = self._clock()
        self.lands_at = now
        for change in changes:
            seen_at = now + self._landing()
            if seen_at > now:
                self._unlanded[change.key] = (seen_at, change.before)
                self.lands_at = max(self.lands_at, seen_at)

    def _reason(self, change: _Change) -> dict[str, Any]:
        """Why one action of a cancelled transaction was refused."""
        if self._is_landing(change.key):
            return {
                "Code": "TransactionConflict",
                "Message": "a transaction is at work on the item",
            }
        if change.is_met:
            return {"Code": "None"}
        reason: dict[str, Any] = {"Code": "ConditionalCheckFailed", "Message": "a condition failed"}
        if change.shows_old and change.before is not None:
            reason["Item"] = dict(change.before)
        return reason

    def _is_landing(self, key: ItemKey) -> bool:
        return key in self._unlanded and self._clock() < self._unlanded[key][0]

    def _store(self, key: ItemKey, before: Item | None, after: Item | None) -> None:
        pk, sk = key
        if after is None:
            del self.items[key]
            self._partitions[pk].remove(sk)
        else:
            self.items[key] = after
            if before is None:
                insort(self._partitions.setdefault(pk, []), sk)
        for index, lagging in self._indexes.values():
            old, new = _shard(before, index), _shard(after, index)
            if old != new:
                lagging.change(key, new, self._clock() + self._lag())

    # What the reads have in common.

    def _seen(self, key: ItemKey, is_consistent: bool) -> Item | None:
        if key in self._unlanded:
            until, before = self._unlanded[key]
            if self._clock() < until:
                return before
            del self._unlanded[key]
        if not is_consistent and key in self._replaced:
            until, before = self._replaced[key]
            if self._clock() < until:
                return before
        return self.items.get(key)

    def _matching(
        self, arguments: Mapping[str, Any], condition: Compiled, values: Mapping[str, Value]
    ) -> list[Item]:
        """All items of the one partition that the key condition names, by their sort keys."""
        start = arguments.get("ExclusiveStartKey")
        is_forward = arguments.get("ScanIndexForward", True)
        if "IndexName" in arguments:
            candidates = self._index_entries(arguments, condition, values, start)
        else:
            pk = _hash_value(condition, "pk", values)
            keys = self._partitions.get(pk, [])
            if start is not None:
                sk = start["sk"]["S"]
                keys = (
                    keys[bisect_right(keys, sk) :] if is_forward else keys[: bisect_left(keys, sk)]
                )
            is_consistent = bool(arguments.get("ConsistentRead"))
            found = (self._seen((pk, sk), is_consistent) for sk in keys)
            candidates = [item for item in found if item is not None]
        return [item for item in candidates if condition.condition(item, values)]

    def _index_entries(
        self,
        arguments: Mapping[str, Any],
        condition: Compiled,
        values: Mapping[str, Value],
        start: Mapping[str, Value] | None,
    ) -> list[Item]:
        if arguments["IndexName"] not in self._indexes or arguments.get("ConsistentRead"):
            raise _error("ValidationException", "no such index, or asked to be consistent")
        index, lagging = self._indexes[arguments["IndexName"]]
        lagging.catch_up(self._clock())
        shard = _hash_value(condition, index.hash_name, values)
        places = lagging.entries.get(shard, [])
        if start is not None:
            after = (start["sk"]["S"], start["pk"]["S"])
            is_forward = arguments.get("ScanIndexForward", True)
            places = (
                places[bisect_right(places, after) :]
                if is_forward
                else places[: bisect_left(places, after)]
            )
        return [
            {"pk": {"S": pk}, "sk": {"S": sk}, index.hash_name: {"S": shard}} for sk, pk in places
        ]

    def _where(self, item: Item, index_name: str | None) -> Item:
        names = ["pk", "sk"]
        if index_name is not None:
            names.append(self._indexes[index_name][0].hash_name)
        return {name: item[name] for name in names}

    def _check_table(self, arguments: Mapping[str, Any]) -> None:
        if arguments["TableName"] != self.name:
            raise _error("ResourceNotFoundException", "no such table")


def _compiled(
    compiler: Callable[[str, Mapping[str, str]], Compiled], text: str, names: Mapping[str, str]
) -> Compiled:
    try:
        return compiler(text, names)
    except ExpressionError as error:
        raise _error("ValidationException", str(error)) from error


def _updated(updating: Compiled, before: Item, values: Mapping[str, Value]) -> Item:
    try:
        return updating.update(before, values)
    except ExpressionError as error:
        raise _error("ValidationException", str(error)) from error


def _check_placeholders(
    used: Iterable[Compiled], names: Mapping[str, str], values: Mapping[str, Value]
) -> None:
    """DynamoDB refuses placeholders without a meaning, and meanings that nobody uses."""
    one, other = used
    if one.names | other.names != names.keys() or one.values | other.values != values.keys():
        raise _error("ValidationException", "names or values are missing or not used")


def _last_end(
    arguments: Mapping[str, Any], condition: Compiled, values: Mapping[str, Value]
) -> str | None:
    """The sort key at which a query with a BETWEEN ends: no page starts there.

    DynamoDB refuses ends that are swapped, and a page that starts outside them or at the last one.
    Seen on DynamoDB Local; moto and the embedded engine answer such queries.
    """
    start = arguments.get("ExclusiveStartKey")
    last = None
    if condition.between is not None:
        low, high = (str(values[name]["S"]) for name in condition.between)
        if low > high:
            raise _error("ValidationException", "the upper bound is below the lower one")
        last = high if arguments.get("ScanIndexForward", True) else low
    if start is not None and (start["sk"]["S"] == last or not condition.condition(start, values)):
        raise _error("ValidationException", "the starting key does not match the condition")
    return last


def _key_of(key: Mapping[str, Value]) -> ItemKey:
    try:
        pk, sk = key["pk"]["S"], key["sk"]["S"]
    except KeyError:
        raise _error("ValidationException", "the key is not of the table's shape") from None
    if not pk or not sk:
        raise _error("ValidationException", "a key cannot be empty")
    return pk, sk


def _hash_value(condition: Compiled, name: str, values: Mapping[str, Value]) -> str:
    if name not in condition.equals:
        raise _error("ValidationException", f"the key condition does not give {name}")
    return str(values[condition.equals[name]]["S"])


def _shard(item: Item | None, index: Index) -> str | None:
    found = item.get(index.hash_name) if item else None
    return found["S"] if found else None


def _returned(wanted: str, arguments: Mapping[str, Any], change: _Change) -> Item:
    if wanted == "NONE":
        return {}
    item = (change.after if wanted.endswith("NEW") else change.before) or {}
    if wanted.startswith("ALL"):
        return dict(item)
    names = arguments.get("ExpressionAttributeNames", _NO_NAMES)
    written = compile_update(arguments["UpdateExpression"], names).written
    return {name: item[name] for name in written if name in item}


def _cancelled(reasons: Sequence[Mapping[str, Any]]) -> ClientError:
    codes = ", ".join(str(reason["Code"]) for reason in reasons)
    return _error("TransactionCanceledException", f"cancelled [{codes}]", reasons=reasons)


def client_error(
    code: str, message: str, *, status: int = 400, reasons: Sequence[Mapping[str, Any]] = ()
) -> ClientError:
    """What boto raises where DynamoDB answers with an error."""
    return _error(code, message, status=status, reasons=reasons)


def _error(
    code: str,
    message: str,
    *,
    status: int = 400,
    item: Item | None = None,
    reasons: Sequence[Mapping[str, Any]] = (),
) -> ClientError:
    response: dict[str, Any] = {
        "Error": {"Code": code, "Message": message},
        "ResponseMetadata": {"HTTPStatusCode": status},
    }
    if item is not None:
        response["Item"] = dict(item)
    if reasons:
        response["CancellationReasons"] = list(reasons)
    return ClientError(response, "Operation")
