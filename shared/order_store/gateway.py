"""Calls to DynamoDB: each error becomes one of ours, each limit is kept, only reads are repeated.

boto's own retries are off (see ``shared.clients``): whether a write may be repeated depends on what
it does, and only the caller knows its deadline. A ``Gateway`` is safe to share between threads.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    CredentialRetrievalError,
    EndpointConnectionError,
    NoCredentialsError,
    PartialCredentialsError,
)
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from shared import metrics, tracing
from shared.order_store.errors import (
    StoreContended,
    StoreOutcomeUnknown,
    StoreRefused,
    StoreThrottled,
    StoreUnavailable,
)
from shared.order_store.keys import Item, Key

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

T = TypeVar("T")

TRANSACTION_ACTIONS_MAX: Final = 100
TRANSACTION_BYTES_MAX: Final = 4 * 1024 * 1024
ITEM_BYTES_MAX: Final = 400 * 1024
BATCH_GET_KEYS_MAX: Final = 100
TRANSACTION_TOKEN_LENGTH_MAX: Final = 36

CONDITION_FAILED: Final = "ConditionalCheckFailed"
_NO_REASON: Final = "None"
_CONTENDED: Final = "TransactionConflict"
_BUSY_REASONS: Final = frozenset({_CONTENDED, "ThrottlingError", "ProvisionedThroughputExceeded"})
_THROTTLED: Final = frozenset(
    {
        "ThrottlingException",
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "LimitExceededException",
    }
)
# Not ours to mend by repeating, but an operator's: no table yet, no rights, expired credentials.
_UNUSABLE: Final = frozenset(
    {
        "ResourceNotFoundException",
        "AccessDeniedException",
        "ExpiredTokenException",
        "IncompleteSignatureException",
        "InvalidSignatureException",
        "MissingAuthenticationTokenException",
        "UnrecognizedClientException",
    }
)
# A transaction with this token arrived before: by now it may be carried out.
_ALREADY_UNDER_WAY: Final = frozenset(
    {"TransactionInProgressException", "IdempotentParameterMismatchException"}
)
_NEVER_SENT: Final = (
    EndpointConnectionError,
    ConnectTimeoutError,
    NoCredentialsError,
    PartialCredentialsError,
    CredentialRetrievalError,
)
_SERVER_ERROR_STATUS: Final = 500
_READ_BACKOFF_SECONDS_MAX: Final = 0.2


@dataclass(frozen=True, slots=True)
class Reason:
    """Why one action of a transaction was refused; ``item`` is what stood in its place."""

    code: str
    item: Item | None

    @property
    def is_condition(self) -> bool:
        """The action's own condition was not met."""
        return self.code == CONDITION_FAILED

    @property
    def is_busy(self) -> bool:
        """The action would have been carried out at a quieter moment."""
        return self.code in _BUSY_REASONS


class TransactionCancelled(Exception):
    """No action of the transaction was carried out; ``refused`` maps action numbers to reasons."""

    def __init__(self, refused: Mapping[int, Reason]) -> None:
        """Keep the reasons of the actions that were refused, by their place in the transaction."""
        super().__init__(", ".join(f"{place}: {reason.code}" for place, reason in refused.items()))
        self.refused = refused


# What the metrics call an error, the first that it is one of.
_KINDS: Final = (
    (StoreContended, "contended"),
    (StoreThrottled, "throttled"),
    (StoreOutcomeUnknown, "unknown"),
    (StoreUnavailable, "unavailable"),
    (TransactionCancelled, "cancelled"),
    (Exception, "refused"),
)
_STORES_FAULT: Final = frozenset({"throttled", "unknown", "unavailable"})


class Gateway:
    """One table behind a boto3 client."""

    def __init__(
        self,
        client: "DynamoDBClient",
        table_name: str,
        *,
        read_attempts: int = 2,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Use ``client`` for ``table_name``; ``sleep`` (seconds) waits between repeated reads."""
        self._client = client
        self.table_name = table_name
        self._repeat_reads = Retrying(
            stop=stop_after_attempt(read_attempts),
            wait=wait_random_exponential(multiplier=0.05, max=_READ_BACKOFF_SECONDS_MAX),
            retry=retry_if_exception_type(StoreUnavailable),
            sleep=sleep,
            reraise=True,
        )

    def get(self, key: Key) -> Item | None:
        """Read one item, consistently.

        Raises:
            StoreUnavailable: no answer in time, twice.
        """
        answer = self._read(
            "get_item",
            lambda: self._client.get_item(TableName=self.table_name, Key=key, ConsistentRead=True),
        )
        item: Item | None = answer.get("Item")
        return item

    def batch_get(self, keys: Sequence[Key]) -> list[Item]:
        """Read the items of ``keys`` that exist, each consistently, in no particular order.

        Raises:
            StoreUnavailable: no answer in time, or DynamoDB left keys unprocessed again and again.
        """
        items: list[Item] = []
        for chunk in chunks(keys, BATCH_GET_KEYS_MAX):
            items += self._batch_get_chunk(chunk)
        return items

    def query(self, **arguments: Any) -> tuple[list[Item], Key | None]:
        """Read one page (1 MB at most, AWS limit); the second value is where the next one starts.

        Raises:
            StoreUnavailable: no answer in time, twice.
        """
        answer = self._read(
            "query", lambda: self._client.query(TableName=self.table_name, **arguments)
        )
        return answer["Items"], answer.get("LastEvaluatedKey")

    def update(self, **arguments: Any) -> Item:
        """Update one item and return the attributes asked for.

        Raises:
            TransactionCancelled: its condition was not met (action 0).
            StoreOutcomeUnknown: the answer was lost.
            StoreUnavailable: nothing was written.
        """
        answer: dict[str, Any] = self._call(
            "update_item",
            lambda: self._client.update_item(TableName=self.table_name, **arguments),
        )
        attributes: Item = answer.get("Attributes", {})
        return attributes

    def transact(self, actions: Sequence[Mapping[str, Any]], token: str) -> None:
        """Carry out all ``actions`` or none.

        Args:
            actions: at most 100 on different items, 4 MB in all (AWS limits).
            token: the same token with the same actions is one transaction (for 10 minutes, AWS).

        Raises:
            TransactionCancelled: conditions were not met, or an action was invalid.
            StoreThrottled: too busy, or items are being written by somebody else just now.
            StoreOutcomeUnknown: the answer was lost.
            StoreUnavailable: nothing was written.
        """
        if len(actions) > TRANSACTION_ACTIONS_MAX:
            raise StoreRefused(f"{len(actions)} actions are more than one transaction can hold")
        self._call(
            "transact_write_items",
            lambda: self._client.transact_write_items(
                TransactItems=list(actions),  # type: ignore[arg-type]
                ClientRequestToken=token[:TRANSACTION_TOKEN_LENGTH_MAX],
            ),
        )

    def _batch_get_chunk(self, keys: Sequence[Key]) -> list[Item]:
        items: list[Item] = []

        def read_rest() -> None:
            nonlocal keys
            answer: Any = self._call(
                "batch_get_item",
                lambda: self._client.batch_get_item(
                    RequestItems={self.table_name: {"Keys": list(keys), "ConsistentRead": True}}
                ),
            )
            items.extend(answer["Responses"].get(self.table_name, []))
            keys = answer.get("UnprocessedKeys", {}).get(self.table_name, {}).get("Keys", [])
            if keys:
                metrics.DEPENDENCY_ERRORS.add("store", "throttled")
                raise StoreThrottled(f"{len(keys)} keys were left unprocessed")

        self._repeating("batch_get_item")(read_rest)
        return items

    def _read(self, operation: str, call: Callable[[], Any]) -> Any:
        return self._repeating(operation)(self._call, operation, call)

    def _repeating(self, operation: str) -> Retrying:
        # A copy for each call: tenacity keeps statistics on the object.
        return self._repeat_reads.copy(
            before_sleep=lambda _: metrics.STORE_RETRIES.add(operation),
        )

    def _call(self, operation: str, call: Callable[[], Any]) -> Any:
        """Make one call, known to the metrics as ``operation``."""
        began = time.perf_counter()
        outcome = "done"
        try:
            with tracing.span(f"dynamodb {operation}", kind="CLIENT"):
                return call()
        except (ClientError, BotoCoreError) as error:
            meant = _meaning_of(error)
            outcome = _outcome_of(meant)
            raise meant from error
        finally:
            metrics.STORE_CALLS.add(operation, outcome)
            metrics.STORE_SECONDS.observe(time.perf_counter() - began, operation)


def chunks(things: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Cut ``things`` into pieces of at most ``size``."""
    for start in range(0, len(things), size):
        yield things[start : start + size]


def _meaning_of(error: Exception) -> Exception:
    """What an error of boto lets the caller believe."""
    if isinstance(error, ClientError):
        return _translated(error)
    if isinstance(error, _NEVER_SENT):
        return StoreUnavailable(str(error))
    # A read time-out or a closed connection: the request may have arrived.
    return StoreOutcomeUnknown(str(error))


def _outcome_of(error: Exception) -> str:
    """What the metrics call a failed call; also counts what is the store's fault."""
    kind = next(kind for cause, kind in _KINDS if isinstance(error, cause))
    if kind in _STORES_FAULT:
        metrics.DEPENDENCY_ERRORS.add("store", kind)
    return kind


def _translated(error: ClientError) -> Exception:
    code = error.response.get("Error", {}).get("Code", "")
    message = f"{code}: {error.response.get('Error', {}).get('Message', '')}"
    if code == "TransactionCanceledException":
        return _cancellation(error)
    if code == "ConditionalCheckFailedException":
        return TransactionCancelled({0: Reason(CONDITION_FAILED, error.response.get("Item"))})
    if code == "TransactionConflictException":
        return StoreContended(message)
    if code in _THROTTLED:
        return StoreThrottled(message)
    if code in _UNUSABLE:
        return StoreUnavailable(message)
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if status >= _SERVER_ERROR_STATUS or code in _ALREADY_UNDER_WAY:
        return StoreOutcomeUnknown(message)
    return StoreRefused(message)


def _cancellation(error: ClientError) -> Exception:
    reasons: list[dict[str, Any]] = error.response.get("CancellationReasons", [])
    refused = {
        place: Reason(reason.get("Code", _NO_REASON), reason.get("Item"))
        for place, reason in enumerate(reasons)
        if reason.get("Code", _NO_REASON) != _NO_REASON
    }
    conditions = {place: reason for place, reason in refused.items() if reason.is_condition}
    if conditions:
        return TransactionCancelled(conditions)
    if not refused:
        return StoreUnavailable("transaction cancelled without a reason")
    invalid = {place: reason for place, reason in refused.items() if not reason.is_busy}
    if all(reason.code == _CONTENDED for reason in refused.values()):
        return StoreContended(_CONTENDED)
    if not invalid:
        return StoreThrottled(", ".join(sorted({reason.code for reason in refused.values()})))
    # ValidationError, ItemCollectionSizeLimitExceeded: the action itself cannot be done.
    return TransactionCancelled(invalid)
