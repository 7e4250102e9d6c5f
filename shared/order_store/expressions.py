"""Update expressions with every attribute name aliased: DynamoDB reserves some 570 words."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from shared.order_store.keys import Key

_NAME: Final = re.compile(r"#(\w+)")


def update_action(
    table_name: str,
    key: Key,
    *,
    set_: Mapping[str, dict[str, Any]],
    condition: str,
    condition_values: Mapping[str, dict[str, Any]],
    add: Mapping[str, dict[str, Any]] | None = None,
    remove: Sequence[str] = (),
) -> dict[str, Any]:
    """Arguments of an update; ``condition`` names attributes as ``#name``."""
    names = {f"#{name}": name for name in (*set_, *(add or {}), *remove, *_names_in(condition))}
    values = {f":{name}": value for name, value in {**set_, **(add or {})}.items()}
    clauses = ["SET " + ", ".join(f"#{name} = :{name}" for name in set_)] if set_ else []
    if add:
        clauses.append("ADD " + ", ".join(f"#{name} :{name}" for name in add))
    if remove:
        clauses.append("REMOVE " + ", ".join(f"#{name}" for name in remove))
    return {
        "TableName": table_name,
        "Key": key,
        "UpdateExpression": " ".join(clauses),
        "ConditionExpression": condition,
        "ExpressionAttributeNames": names,
        "ExpressionAttributeValues": {**values, **condition_values},
        "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
    }


def _names_in(condition: str) -> list[str]:
    return _NAME.findall(condition)
