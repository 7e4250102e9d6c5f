"""DynamoDB's API without boto3: for filling tables, and for what the engine alone can take."""

import http.client
import json
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

from bench.stack import REGION
from local.engines import HOST
from shared.order_store.gateway import TRANSACTION_ACTIONS_MAX
from shared.order_store.keys import Item

_SECONDS_MAX = 30
_HEADERS = {
    "Content-Type": "application/x-amz-json-1.0",
    "X-Amz-Date": "20260101T000000Z",
    # The embedded engine wants a signature and checks none.
    "Authorization": f"AWS4-HMAC-SHA256 Credential=bench/20260101/{REGION}/dynamodb/aws4_request,"
    " SignedHeaders=host;x-amz-date, Signature=0",
}


class Refused(Exception):
    """The engine did not do what it was asked."""


def headers_of(operation: str) -> dict[str, str]:
    """The headers of a request for an operation of the API."""
    return _HEADERS | {"X-Amz-Target": f"DynamoDB_20120810.{operation}"}


def put_of(table_name: str, item: Item) -> dict[str, Any]:
    """The action of a transaction that writes an item, whatever stands there."""
    return {"Put": {"TableName": table_name, "Item": item}}


def write_items(port: int, table_name: str, items: Iterable[Item]) -> None:
    """Write items, a hundred in one transaction: for the engine that is one commit, not 100.

    Raises:
        Refused: some were not written.
    """
    connection = http.client.HTTPConnection(HOST, port, timeout=_SECONDS_MAX)
    left = iter(items)
    try:
        while some := list(islice(left, TRANSACTION_ACTIONS_MAX)):
            _transact(connection, [put_of(table_name, item) for item in some])
    finally:
        connection.close()


def _transact(connection: http.client.HTTPConnection, actions: Sequence[dict[str, Any]]) -> None:
    body = json.dumps({"TransactItems": actions})
    connection.request("POST", "/", body, headers_of("TransactWriteItems"))
    answer = connection.getresponse()
    said = answer.read()
    if answer.status != http.client.OK:
        raise Refused(said.decode(errors="replace")[:400])
