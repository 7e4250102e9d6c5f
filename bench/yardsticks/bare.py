"""Flask routes that do next to nothing: what Flask under gunicorn costs, and what a store adds.

``/order`` asks nobody. ``/recorded`` writes two items in one transaction, as accepting a lone order
does. ``/decided`` adds one batch read and a second transaction, as deciding it does. No body is
read, nothing is checked, no message is sent: whoever answers when all is safe cannot do less.
"""

import os
import time
from itertools import count
from typing import Any
from uuid import uuid4

from flask import Flask, Response

from shared.clients import table_client

app = Flask(__name__, static_folder=None)

_BODY = b'{"id":1,"status":"executed","operation":"BUY","total_shares":10,"share_price":"50.5"}'
_TABLE = os.environ.get("TABLE_NAME", "")
_CONNECTIONS = 34
_ATTRIBUTES = {
    "status": {"S": "pending"},
    "operation": {"S": "BUY"},
    "issuer_name": {"S": "GBM"},
    "total_shares": {"N": "10"},
    "share_price": {"N": "50.5"},
    "timestamp": {"S": "2026-11-24T10:25:34+00:00"},
    "received_at": {"S": "2026-11-24T10:25:34.259790+00:00"},
}
_numbers = count()
store = table_client(_CONNECTIONS)


@app.get("/order")
def show() -> Response:
    """A small JSON."""
    return Response(_BODY, mimetype="application/json")


@app.get("/recorded")
def record() -> Response:
    """A small JSON, once two items are written."""
    _write(_owner())
    return Response(_BODY, mimetype="application/json")


@app.get("/decided")
def decide() -> Response:
    """A small JSON, once two items are written, read and written again."""
    owner = _owner()
    _write(owner)
    keys = [{"pk": {"S": owner}, "sk": {"S": sk}} for sk in ("HEAD", "ORDER")]
    store.batch_get_item(RequestItems={_TABLE: {"Keys": keys, "ConsistentRead": True}})
    _write(owner)
    return Response(_BODY, mimetype="application/json")


def _owner() -> str:
    return f"BARE#{os.getpid()}#{time.monotonic_ns()}#{next(_numbers)}"


def _write(owner: str) -> None:
    head: dict[str, Any] = {"pk": {"S": owner}, "sk": {"S": "HEAD"}, "accepted": {"N": "1"}}
    order = {"pk": {"S": owner}, "sk": {"S": "ORDER"}, **_ATTRIBUTES}
    puts: Any = [{"Put": {"TableName": _TABLE, "Item": item}} for item in (head, order)]
    store.transact_write_items(TransactItems=puts, ClientRequestToken=str(uuid4()))
