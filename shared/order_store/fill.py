"""Filling an empty table with raw items, as a restored backup does."""

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from shared.order_store.errors import StoreThrottled, StoreUnavailable
from shared.order_store.gateway import Gateway
from shared.order_store.keys import Item
from shared.order_store.table import create_table

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

BATCH_ITEMS_MAX: Final = 25
"""Items of one BatchWriteItem (AWS limit); at 400 KB each they stay below its 16 MB."""

WRITE_ATTEMPTS: Final = 12
_BACKOFF_SECONDS_FIRST: Final = 0.1
_BACKOFF_SECONDS_MAX: Final = 10.0


class TableFiller:
    """Writes items to one table. Safe to share between threads."""

    def __init__(
        self,
        client: "DynamoDBClient",
        table_name: str,
        *,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Write to ``table_name`` through ``client``."""
        self._client = client
        self._gateway = _FillGateway(client, table_name)
        self._repeat = Retrying(
            stop=stop_after_attempt(WRITE_ATTEMPTS),
            wait=wait_random_exponential(_BACKOFF_SECONDS_FIRST, _BACKOFF_SECONDS_MAX),
            retry=retry_if_exception_type(StoreUnavailable),
            sleep=sleep,
            reraise=True,
        )

    def prepare(self, wait_seconds: float) -> bool:
        """Create the table unless it is there; tells whether this call did.

        Raises:
            StoreUnavailable: no table after ``wait_seconds``.
        """
        return create_table(self._client, self._gateway.table_name, wait_seconds)

    def is_empty(self) -> bool:
        """Look, consistently, whether the table holds nothing at all.

        Raises:
            StoreUnavailable: no answer, again and again.
        """
        return bool(self._repeat.copy()(self._gateway.is_empty))

    def put(self, items: Sequence[Item]) -> None:
        """Write at most ``BATCH_ITEMS_MAX`` items of different keys, whatever stood there before.

        A put may be repeated: so whatever is left over or unknown is written again.

        Raises:
            StoreRefused: DynamoDB calls the request invalid.
            StoreUnavailable: not all are written, again and again.
        """
        left: list[dict[str, Any]] = [{"PutRequest": {"Item": item}} for item in items]

        def write_rest() -> None:
            nonlocal left
            left = self._gateway.write(left)
            if left:
                raise StoreThrottled(f"{len(left)} items were left unwritten")

        self._repeat.copy()(write_rest)


class _FillGateway(Gateway):
    """The two calls that only whoever fills a table needs."""

    def is_empty(self) -> bool:
        answer: Any = self._call(
            "scan",
            lambda: self._client.scan(TableName=self.table_name, Limit=1, ConsistentRead=True),
        )
        return not answer["Items"]

    def write(self, requests: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Write what ``requests`` ask for; returns those that were left undone."""
        answer: Any = self._call(
            "batch_write_item",
            lambda: self._client.batch_write_item(
                RequestItems={self.table_name: requests}  # type: ignore[dict-item]
            ),
        )
        left: list[dict[str, Any]] = answer.get("UnprocessedItems", {}).get(self.table_name, [])
        return left
