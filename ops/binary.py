"""Binary attributes in DynamoDB JSON: base64 text, as AWS's own export writes them.

This code writes none, but a damaged item may hold some. boto3 gives and takes their bytes, the lean
client their base64 text: either is written as the same text.
"""

import json
from base64 import b64decode, b64encode
from typing import Any

from shared.order_store.items import Value
from shared.order_store.keys import Item


def dumps(value: Any, **options: Any) -> str:
    """Write an item, or what holds one, as JSON."""
    return json.dumps(value, ensure_ascii=False, default=_base64, **options)


def with_bytes(item: Item) -> Item:
    """An item that was read from JSON as boto3 takes it.

    Raises:
        ValueError: a binary attribute is no base64.
    """
    return {name: _value_with_bytes(value) for name, value in item.items()}


def _value_with_bytes(value: Value) -> Value:
    match value:
        case {"B": str(text)}:
            return {"B": b64decode(text, validate=True)}
        case {"BS": list(texts)}:
            return {"BS": [b64decode(text, validate=True) for text in texts]}
        case {"M": dict(fields)}:
            return {"M": with_bytes(fields)}
        case {"L": list(values)}:
            return {"L": [_value_with_bytes(one) for one in values]}
        case _:
            return value


def _base64(value: object) -> str:
    if not isinstance(value, bytes):
        raise TypeError(f"{type(value).__name__} is nothing that an item holds")
    return b64encode(value).decode()
