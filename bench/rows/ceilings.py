"""What the engines themselves take: raw requests, no product and no client library in between."""

import json
import subprocess
from collections.abc import Callable
from functools import partial
from itertools import count
from typing import Any

from bench.bed import Bed
from bench.load import Job
from bench.loading import run_loads
from bench.raw_dynamodb import headers_of
from bench.results import Figure, Row
from bench.stack import module
from bench.usage import cpu_between, cpu_seconds
from local import commands
from local.engines import HOST

_PROCESSES = 2
"""As many as the API has."""

_CONNECTIONS = 16
_REQUESTS_PER_SECOND = 6_000
_SECONDS_MAX = 60
_names = count()


def ceilings(bed: Bed) -> None:
    """Every operation in turn, by as many processes as the API has."""
    _redis(bed)
    table = bed.stack.table_name
    _engine(bed, "put_item", "PutItem", lambda: {"TableName": table, "Item": _item()})
    _engine(bed, "get_item", "GetItem", lambda: {"TableName": table, "Key": _key("one")})
    for actions in (1, 25, 100):
        _engine(
            bed,
            f"transact_{actions}",
            "TransactWriteItems",
            partial(_transaction, table, actions),
            actions,
        )


def _engine(
    bed: Bed, name: str, operation: str, payload: Callable[[], dict[str, Any]], actions: int = 1
) -> None:
    seconds = bed.options.seconds / 3
    number = max(50, round(_REQUESTS_PER_SECOND * seconds / actions))
    jobs = [
        Job(
            bed.engines.dynamodb_port,
            [("POST", "/", json.dumps(payload())) for _ in range(number)],
            headers_of(operation),
            connections=_CONNECTIONS,
            seconds=seconds,
        )
        for _ in range(_PROCESSES)
    ]
    parts = {"dynamodb": [bed.engines.dynamodb]}
    before = cpu_seconds(parts)
    outcomes = run_loads(jobs)
    cpu = cpu_between(before, cpu_seconds(parts))
    answers = sum(outcome.statuses.get("200", 0) for outcome in outcomes)
    if not answers or answers < sum(outcome.answers for outcome in outcomes):
        raise RuntimeError(f"{name}: {[outcome.statuses for outcome in outcomes]}")
    longest = max(outcome.seconds for outcome in outcomes)
    by_thing = {
        "dynamodb": round(1000 * cpu["dynamodb"] / answers, 4),
        "load": round(1000 * sum(outcome.cpu_seconds for outcome in outcomes) / answers, 4),
    }
    row = Row(f"engine_{name}", f"engine alone: {name}", "calls/s")
    bed.results.add(row, Figure(round(answers / longest, 1), by_thing))


def _redis(bed: Bed) -> None:
    command = module(
        "bench.yardsticks.raw_redis", str(bed.engines.redis_port), str(bed.options.seconds / 6)
    )
    running = [
        subprocess.Popen(command, cwd=commands.ROOT, stdout=subprocess.PIPE, text=True)
        for _ in range(_PROCESSES)
    ]
    found = [json.loads(process.communicate(timeout=_SECONDS_MAX)[0]) for process in running]
    for name in found[0]:
        row = Row(f"redis_{name}", f"Redis alone: {name.replace('_', ', ')}", "commands/s")
        bed.results.add(row, Figure(round(sum(one[name] for one in found), 0)))


def _transaction(table: str, actions: int) -> dict[str, Any]:
    return {"TransactItems": [_put(table) for _ in range(actions)]}


def _put(table: str) -> dict[str, Any]:
    return {
        "Put": {
            "TableName": table,
            "Item": _item(),
            "ConditionExpression": "attribute_not_exists(#pk)",
            "ExpressionAttributeNames": {"#pk": "pk"},
        }
    }


def _item() -> dict[str, Any]:
    return {**_key(f"{HOST}-{next(_names)}"), "payload": {"S": "x" * 300}}


def _key(name: str) -> dict[str, Any]:
    return {"pk": {"S": f"CEILING#{name}"}, "sk": {"S": "CEILING"}}
