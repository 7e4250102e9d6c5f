"""What each failure of DynamoDB becomes, and which calls are repeated."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import pytest
from botocore.exceptions import (
    ClientError,
    ConnectionClosedError,
    ConnectTimeoutError,
    EndpointConnectionError,
    NoCredentialsError,
    ReadTimeoutError,
    SSLError,
)

from shared.order_store.errors import (
    StoreContended,
    StoreOutcomeUnknown,
    StoreRefused,
    StoreThrottled,
    StoreUnavailable,
)
from shared.order_store.gateway import (
    BATCH_GET_KEYS_MAX,
    ITEM_BYTES_MAX,
    TRANSACTION_ACTIONS_MAX,
    TRANSACTION_BYTES_MAX,
    Gateway,
    TransactionCancelled,
    chunks,
)
from shared.order_store.keys import Item, Key, account_key

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

URL = "http://127.0.0.1:1"
CONDITION = {"Code": "ConditionalCheckFailed"}
NONE = {"Code": "None"}
ITEM: Item = {"pk": {"S": "ACCOUNT#1"}}


class Client:
    """A DynamoDB client that gives one scripted answer after the other, the last one for ever."""

    def __init__(self, *answers: dict[str, Any] | Exception) -> None:
        self.answers = list(answers)
        self.requests: list[dict[str, Any]] = []

    def answer(self, **request: Any) -> dict[str, Any]:
        self.requests.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    get_item = batch_get_item = query = update_item = transact_write_items = answer


def gateway_on(client: Client, sleeps: list[float] | None = None) -> Gateway:
    pauses: list[float] = [] if sleeps is None else sleeps
    return Gateway(cast("DynamoDBClient", client), "orders", sleep=pauses.append)


def refusal(code: str, status: int = 400, **more: Any) -> ClientError:
    response: Any = {
        "Error": {"Code": code, "Message": "said the store"},
        "ResponseMetadata": {"HTTPStatusCode": status},
        **more,
    }
    return ClientError(response, "Operation")


def cancellation(*reasons: dict[str, Any]) -> ClientError:
    return refusal("TransactionCanceledException", CancellationReasons=list(reasons))


def name_of(one: object) -> str:
    if isinstance(one, ClientError):
        status = one.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        return f"{one.response.get('Error', {}).get('Code')} {status}"
    return one.__name__ if isinstance(one, type) else type(one).__name__


Call = Callable[[Gateway], object]
WRITES: list[Call] = [
    lambda gateway: gateway.transact([{"Put": {}}], "token"),
    lambda gateway: gateway.update(Key=account_key(1)),
]
READS: list[Call] = [
    lambda gateway: gateway.get(account_key(1)),
    lambda gateway: gateway.query(Limit=1),
    lambda gateway: gateway.batch_get([account_key(1)]),
]

FAILURES: list[tuple[Exception, type[Exception]]] = [
    (EndpointConnectionError(endpoint_url=URL), StoreUnavailable),
    (ConnectTimeoutError(endpoint_url=URL), StoreUnavailable),
    (ReadTimeoutError(endpoint_url=URL), StoreOutcomeUnknown),
    (ConnectionClosedError(endpoint_url=URL), StoreOutcomeUnknown),
    (SSLError(endpoint_url=URL, error="cut off"), StoreOutcomeUnknown),
    (NoCredentialsError(), StoreUnavailable),
    (refusal("ThrottlingException"), StoreThrottled),
    (refusal("ProvisionedThroughputExceededException"), StoreThrottled),
    (refusal("RequestLimitExceeded"), StoreThrottled),
    (refusal("TransactionConflictException"), StoreContended),
    (refusal("ThrottlingException", 500), StoreThrottled),
    (refusal("ResourceNotFoundException"), StoreUnavailable),
    (refusal("AccessDeniedException"), StoreUnavailable),
    (refusal("ExpiredTokenException"), StoreUnavailable),
    (refusal("UnrecognizedClientException"), StoreUnavailable),
    (refusal("InvalidSignatureException"), StoreUnavailable),
    (refusal("IncompleteSignatureException"), StoreUnavailable),
    (refusal("MissingAuthenticationTokenException"), StoreUnavailable),
    (refusal("InternalServerError", 500), StoreOutcomeUnknown),
    (refusal("ServiceUnavailable", 503), StoreOutcomeUnknown),
    (refusal("", 502), StoreOutcomeUnknown),
    (refusal("TransactionInProgressException"), StoreOutcomeUnknown),
    (refusal("ValidationException"), StoreRefused),
    (refusal("IdempotentParameterMismatchException"), StoreOutcomeUnknown),
    (refusal("ItemCollectionSizeLimitExceededException"), StoreRefused),
    (refusal("", 499), StoreRefused),
    (ClientError({}, "Operation"), StoreRefused),
]


@pytest.mark.parametrize("call", WRITES, ids=["transact", "update"])
@pytest.mark.parametrize(("failure", "becomes"), FAILURES, ids=name_of)
def test_a_write_that_fails_says_what_may_be_believed_and_is_not_repeated(
    call: Call, failure: Exception, becomes: type[Exception]
) -> None:
    client = Client(failure)
    with pytest.raises(becomes) as caught:
        call(gateway_on(client))
    assert caught.type is becomes
    assert caught.value.__cause__ is failure
    assert len(client.requests) == 1


@pytest.mark.parametrize("call", READS, ids=["get", "query", "batch_get"])
@pytest.mark.parametrize(("failure", "becomes"), FAILURES, ids=name_of)
def test_a_read_that_fails_is_repeated_once_where_that_can_help(
    call: Call, failure: Exception, becomes: type[Exception]
) -> None:
    client = Client(failure)
    sleeps: list[float] = []
    with pytest.raises(becomes) as caught:
        call(gateway_on(client, sleeps))
    assert caught.type is becomes
    can_help = issubclass(becomes, StoreUnavailable)
    assert len(client.requests) == (2 if can_help else 1)
    assert len(sleeps) == len(client.requests) - 1
    assert all(0 <= pause <= 0.2 for pause in sleeps)


@pytest.mark.parametrize(
    ("call", "answer", "result"),
    [
        (READS[0], {"Item": ITEM}, ITEM),
        (READS[1], {"Items": [ITEM]}, ([ITEM], None)),
        (READS[2], {"Responses": {"orders": [ITEM]}}, [ITEM]),
    ],
    ids=["get", "query", "batch_get"],
)
def test_a_read_that_succeeds_the_second_time_has_succeeded(
    call: Call, answer: dict[str, Any], result: object
) -> None:
    client = Client(ReadTimeoutError(endpoint_url=URL), answer)
    assert call(gateway_on(client)) == result
    first, second = client.requests
    assert first == second


def test_reads_are_repeated_as_often_as_the_gateway_was_told() -> None:
    client = Client(ConnectTimeoutError(endpoint_url=URL))
    gateway = Gateway(
        cast("DynamoDBClient", client), "orders", read_attempts=4, sleep=lambda _: None
    )
    for calls_so_far in (4, 8):  # the second read has as many attempts as the first
        with pytest.raises(StoreUnavailable):
            gateway.get(account_key(1))
        assert len(client.requests) == calls_so_far


# Transactions


def test_the_limits_are_those_that_aws_documents() -> None:
    assert (TRANSACTION_ACTIONS_MAX, BATCH_GET_KEYS_MAX) == (100, 100)
    assert (ITEM_BYTES_MAX, TRANSACTION_BYTES_MAX) == (409_600, 4_194_304)


def test_a_condition_that_fails_is_told_by_its_place_with_what_stood_there() -> None:
    client = Client(cancellation(NONE, {**CONDITION, "Item": ITEM}, NONE, CONDITION))
    with pytest.raises(TransactionCancelled) as caught:
        gateway_on(client).transact([{}] * 4, "token")
    refused = caught.value.refused
    assert sorted(refused) == [1, 3]
    assert all(reason.is_condition for reason in refused.values())
    assert (refused[1].item, refused[3].item) == (ITEM, None)
    assert str(caught.value) == "1: ConditionalCheckFailed, 3: ConditionalCheckFailed"


def test_an_update_whose_condition_fails_is_a_transaction_of_one() -> None:
    client = Client(refusal("ConditionalCheckFailedException", Item=ITEM))
    with pytest.raises(TransactionCancelled) as caught:
        gateway_on(client).update(Key=account_key(1))
    assert list(caught.value.refused) == [0]
    assert caught.value.refused[0].is_condition
    assert caught.value.refused[0].item == ITEM


@pytest.mark.parametrize(
    "codes",
    [
        ["TransactionConflict"],
        ["ThrottlingError"],
        ["ProvisionedThroughputExceeded"],
        ["None", "TransactionConflict", "ThrottlingError", "None"],
    ],
    ids=str,
)
def test_a_transaction_that_met_others_is_throttled(codes: list[str]) -> None:
    client = Client(cancellation(*({"Code": code} for code in codes)))
    with pytest.raises(StoreThrottled) as caught:
        gateway_on(client).transact([{}], "token")
    is_contended = set(codes) == {"TransactionConflict"}
    assert caught.type is (StoreContended if is_contended else StoreThrottled)


@pytest.mark.parametrize(
    ("codes", "places"),
    [
        (["TransactionConflict", "ConditionalCheckFailed", "None"], [1]),
        (["ConditionalCheckFailed", "ValidationError", "ThrottlingError"], [0]),
        (["ConditionalCheckFailed", "ConditionalCheckFailed"], [0, 1]),
    ],
    ids=str,
)
def test_a_failed_condition_counts_before_all_other_reasons(
    codes: list[str], places: list[int]
) -> None:
    client = Client(cancellation(*({"Code": code} for code in codes)))
    with pytest.raises(TransactionCancelled) as caught:
        gateway_on(client).transact([{}], "token")
    assert sorted(caught.value.refused) == places


@pytest.mark.parametrize(
    ("codes", "places"),
    [
        (["None", "ValidationError"], [1]),
        (["ItemCollectionSizeLimitExceeded", "None"], [0]),
        (["TransactionConflict", "ValidationError", "ThrottlingError"], [1]),
    ],
    ids=str,
)
def test_an_impossible_action_is_told_and_its_busy_neighbours_are_not_blamed(
    codes: list[str], places: list[int]
) -> None:
    client = Client(cancellation(*({"Code": code} for code in codes)))
    with pytest.raises(TransactionCancelled) as caught:
        gateway_on(client).transact([{}], "token")
    assert sorted(caught.value.refused) == places
    assert not any(reason.is_condition for reason in caught.value.refused.values())


@pytest.mark.parametrize(
    "failure",
    [
        cancellation(),
        cancellation(NONE, NONE),
        cancellation({}),
        refusal("TransactionCanceledException"),
    ],
    ids=["no reasons", "no reason among them", "no code", "no list"],
)
def test_a_cancellation_without_a_reason_may_be_tried_again_later(failure: Exception) -> None:
    with pytest.raises(StoreUnavailable) as caught:
        gateway_on(Client(failure)).transact([{}], "token")
    assert caught.type is StoreUnavailable


def test_a_transaction_holds_a_hundred_actions() -> None:
    client = Client({})
    gateway_on(client).transact([{}] * TRANSACTION_ACTIONS_MAX, "token")
    assert len(client.requests[0]["TransactItems"]) == 100
    with pytest.raises(StoreRefused):
        gateway_on(client).transact([{}] * (TRANSACTION_ACTIONS_MAX + 1), "token")
    assert len(client.requests) == 1


def test_the_token_of_a_transaction_is_cut_to_its_length() -> None:
    client = Client({})
    gateway_on(client).transact([{}], "t" * 40)
    assert client.requests[0]["ClientRequestToken"] == "t" * 36


# Reading many


def some_keys(count: int) -> list[Key]:
    return [account_key(number) for number in range(count)]


def items_of(keys: list[Key]) -> list[Item]:
    return [dict(key) for key in keys]


def keys_asked(request: dict[str, Any]) -> list[Key]:
    keys: list[Key] = request["RequestItems"]["orders"]["Keys"]
    return keys


def left(keys: list[Key]) -> dict[str, Any]:
    return {"orders": {"Keys": keys, "ConsistentRead": True}} if keys else {}


def test_keys_left_unprocessed_are_asked_for_again_and_only_those() -> None:
    keys = some_keys(5)
    client = Client(
        {"Responses": {"orders": items_of(keys[:3])}, "UnprocessedKeys": left(keys[3:])},
        {"Responses": {"orders": items_of(keys[3:])}, "UnprocessedKeys": {}},
    )
    sleeps: list[float] = []
    assert gateway_on(client, sleeps).batch_get(keys) == items_of(keys)
    assert [keys_asked(request) for request in client.requests] == [keys, keys[3:]]
    assert len(sleeps) == 1


def test_keys_that_stay_unprocessed_mean_that_the_store_is_too_busy() -> None:
    keys = some_keys(5)
    client = Client(
        {"Responses": {"orders": items_of(keys[:3])}, "UnprocessedKeys": left(keys[3:])},
        {"Responses": {"orders": items_of(keys[3:4])}, "UnprocessedKeys": left(keys[4:])},
    )
    with pytest.raises(StoreThrottled):
        gateway_on(client).batch_get(keys)
    assert len(client.requests) == 2


def test_an_answer_without_any_item_of_the_table_is_empty() -> None:
    assert gateway_on(Client({"Responses": {}})).batch_get(some_keys(1)) == []


def test_nothing_is_asked_for_no_keys() -> None:
    client = Client({})
    assert gateway_on(client).batch_get([]) == []
    assert client.requests == []


def test_many_keys_are_asked_for_a_hundred_at_a_time() -> None:
    keys = some_keys(2 * BATCH_GET_KEYS_MAX + 1)
    client = Client({"Responses": {"orders": [ITEM]}})
    assert gateway_on(client).batch_get(keys) == [ITEM] * 3
    asked = [keys_asked(request) for request in client.requests]
    assert [len(some) for some in asked] == [100, 100, 1]
    assert [key for some in asked for key in some] == keys


def test_every_read_of_an_item_is_consistent() -> None:
    client = Client({"Responses": {}, "Items": []})
    gateway = gateway_on(client)
    gateway.get(account_key(1))
    gateway.batch_get(some_keys(1))
    one, many = client.requests
    assert one["ConsistentRead"] is True
    assert many["RequestItems"]["orders"]["ConsistentRead"] is True


def test_an_item_that_does_not_exist_is_none() -> None:
    assert gateway_on(Client({})).get(account_key(1)) is None


@pytest.mark.parametrize(
    ("length", "sizes"), [(0, []), (1, [1]), (3, [3]), (4, [3, 1]), (7, [3, 3, 1])]
)
def test_a_sequence_is_cut_into_pieces(length: int, sizes: list[int]) -> None:
    pieces = list(chunks(range(length), 3))
    assert [len(piece) for piece in pieces] == sizes
    assert [thing for piece in pieces for thing in piece] == list(range(length))
