"""The lean client: what goes over the wire, and what becomes of every kind of answer."""

import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, cast

import pytest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError, EndpointConnectionError

from shared.order_store.errors import StoreOutcomeUnknown, StoreThrottled, StoreUnavailable
from shared.order_store.gateway import Gateway, TransactionCancelled
from shared.order_store.wire import DynamoDBWire

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

KEY = {"pk": {"S": "ACCOUNT#1"}, "sk": {"S": "ACCOUNT"}}
READ_SECONDS = 0.3


class Server:
    """Answers every request in the same way and keeps what it was asked."""

    def __init__(self) -> None:
        self.status = 200
        self.answer: bytes | None = b"{}"
        self.asked: list[tuple[dict[str, str], Any]] = []
        self.connections: set[int] = set()
        self.stalls = threading.Event()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                server.reply(self)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - as above
                del format, args

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()

    def reply(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers["Content-Length"]))
        self.asked.append(({k.lower(): v for k, v in request.headers.items()}, json.loads(body)))
        self.connections.add(request.client_address[1])
        if self.stalls.is_set():
            threading.Event().wait(2 * READ_SECONDS)
            return
        if self.answer is None:
            request.connection.shutdown(socket.SHUT_RDWR)
            return
        request.send_response(self.status)
        request.send_header("Content-Length", str(len(self.answer)))
        request.end_headers()
        request.wfile.write(self.answer)

    def refuse(self, code: str, status: int = 400, **more: Any) -> None:
        self.status = status
        kind = f"com.amazonaws.dynamodb.v20120810#{code}"
        self.answer = json.dumps({"__type": kind, "message": "no", **more}).encode()


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.http.shutdown()
    running.http.server_close()


def wire_to(url: str) -> DynamoDBWire:
    return DynamoDBWire(
        url,
        "us-east-1",
        Credentials("key", "secret", "token"),
        connections=2,
        connect_seconds=0.3,
        read_seconds=READ_SECONDS,
        authorities="",
    )


def gateway_to(url: str) -> Gateway:
    return Gateway(cast("DynamoDBClient", wire_to(url)), "orders", sleep=lambda _: None)


def test_a_call_is_a_signed_json_document(server: Server) -> None:
    server.answer = json.dumps({"Item": KEY}).encode()
    assert gateway_to(server.url).get(KEY) == KEY

    headers, body = server.asked[0]
    assert body == {"TableName": "orders", "Key": KEY, "ConsistentRead": True}
    assert headers["x-amz-target"] == "DynamoDB_20120810.GetItem"
    assert headers["content-type"] == "application/x-amz-json-1.0"
    assert headers["x-amz-security-token"] == "token"
    assert headers["authorization"].startswith("AWS4-HMAC-SHA256 Credential=key/")
    assert "/us-east-1/dynamodb/aws4_request" in headers["authorization"]


def test_calls_share_a_connection(server: Server) -> None:
    gateway = gateway_to(server.url)
    for _ in range(3):
        gateway.get(KEY)
    assert len(server.asked) == 3
    assert len(server.connections) == 1


@pytest.mark.parametrize(
    "name",
    [
        "get_item",
        "batch_get_item",
        "query",
        "scan",
        "update_item",
        "transact_write_items",
        "describe_table",
    ],
)
def test_each_call_names_its_operation(server: Server, name: str) -> None:
    getattr(wire_to(server.url), name)(TableName="orders")
    target = server.asked[0][0]["x-amz-target"].removeprefix("DynamoDB_20120810.")
    assert target == "".join(part.capitalize() for part in name.split("_"))


def test_a_cancelled_transaction_says_which_action_and_what_stood_there(server: Server) -> None:
    reasons = [{"Code": "None"}, {"Code": "ConditionalCheckFailed", "Item": KEY}]
    server.refuse("TransactionCanceledException", CancellationReasons=reasons)
    with pytest.raises(TransactionCancelled) as caught:
        gateway_to(server.url).transact([{}, {}], "token")
    assert {place: reason.item for place, reason in caught.value.refused.items()} == {1: KEY}


def test_an_unmet_condition_says_what_stood_there(server: Server) -> None:
    server.refuse("ConditionalCheckFailedException", Item=KEY)
    with pytest.raises(TransactionCancelled) as caught:
        gateway_to(server.url).update(Key=KEY)
    assert caught.value.refused[0].item == KEY


def test_a_throttled_call_is_known_not_to_have_been_done(server: Server) -> None:
    server.refuse("ProvisionedThroughputExceededException")
    with pytest.raises(StoreThrottled):
        gateway_to(server.url).transact([{}], "token")


@pytest.mark.parametrize("answer", [b"<html>bad gateway</html>", b'{"__type":"x#InternalServer"}'])
def test_a_servers_own_failure_leaves_the_outcome_unknown(server: Server, answer: bytes) -> None:
    server.status, server.answer = 500, answer
    with pytest.raises(StoreOutcomeUnknown):
        gateway_to(server.url).transact([{}], "token")


@pytest.mark.parametrize("answer", [b"<html>welcome</html>", b'{"Item": {"pk"', b"[]"])
def test_a_good_status_over_no_answer_is_no_missing_item(server: Server, answer: bytes) -> None:
    server.answer = answer
    with pytest.raises(StoreOutcomeUnknown):
        gateway_to(server.url).get(KEY)


def test_an_answer_that_does_not_come_leaves_the_outcome_unknown(server: Server) -> None:
    server.stalls.set()
    with pytest.raises(StoreOutcomeUnknown):
        gateway_to(server.url).transact([{}], "token")
    assert len(server.asked) == 1, "a write must not be repeated by the client itself"


def test_a_connection_that_breaks_leaves_the_outcome_unknown(server: Server) -> None:
    server.answer = None
    with pytest.raises(StoreOutcomeUnknown):
        gateway_to(server.url).transact([{}], "token")
    assert len(server.asked) == 1, "a write must not be repeated by the client itself"


def test_a_refused_connection_is_known_not_to_have_asked() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(EndpointConnectionError):
            wire_to(url).get_item(TableName="orders", Key=KEY)
        with pytest.raises(StoreUnavailable) as caught:
            gateway_to(url).transact([{}], "token")
    assert not isinstance(caught.value, StoreOutcomeUnknown)


def test_without_credentials_nothing_is_asked(server: Server) -> None:
    wire = DynamoDBWire(
        server.url,
        "us-east-1",
        None,
        connections=1,
        connect_seconds=1,
        read_seconds=1,
        authorities="",
    )
    with pytest.raises(StoreUnavailable):
        Gateway(cast("DynamoDBClient", wire), "orders").transact([{}], "token")
    assert server.asked == []


def test_a_refusal_is_botos_own_exception(server: Server) -> None:
    server.refuse("ValidationException")
    with pytest.raises(ClientError) as caught:
        wire_to(server.url).get_item()
    assert caught.value.response["Error"] == {"Code": "ValidationException", "Message": "no"}
