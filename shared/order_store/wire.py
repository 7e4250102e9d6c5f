"""The calls of the table's traffic and of its audit, without boto3's generic machinery.

This package writes its items in DynamoDB's own notation, which is the JSON of its API. boto3 walks
every value of it along the service's model, there and back, which costs more than all the rest of
a call (decision 0015 has the figures). Credentials, signature and errors are
botocore's own, connections urllib3's.
"""

import json
from collections.abc import Mapping
from typing import Any, Final

import urllib3
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import (
    ClientError,
    ConnectionClosedError,
    ConnectTimeoutError,
    EndpointConnectionError,
    HTTPClientError,
    NoCredentialsError,
    ReadTimeoutError,
)
from urllib3 import exceptions

_SERVICE: Final = "dynamodb"
_API: Final = "DynamoDB_20120810."
_MEDIA_TYPE: Final = "application/x-amz-json-1.0"
_OK: Final = 200


class DynamoDBWire:
    """Speaks DynamoDB's JSON over kept connections. Safe to share between threads.

    Each method is the boto3 client's of the same name: the same arguments, answers and exceptions,
    for items without binary values. Nothing is ever repeated here.
    """

    def __init__(
        self,
        endpoint_url: str,
        region: str,
        credentials: Credentials | None,
        *,
        connections: int,
        connect_seconds: float,
        read_seconds: float,
        authorities: str,
    ) -> None:
        """Call ``endpoint_url``, with ``connections`` kept; ``authorities``: a file for TLS."""
        self.endpoint_url = endpoint_url.rstrip("/") + "/"
        self.connections = connections
        self._region = region
        self._credentials = credentials
        tls = {"ca_certs": authorities} if self.endpoint_url.startswith("https:") else {}
        self._pool = urllib3.connection_from_url(
            self.endpoint_url,
            maxsize=connections,
            timeout=urllib3.Timeout(connect=connect_seconds, read=read_seconds),
            retries=False,
            **tls,
        )
        self._path = urllib3.util.parse_url(self.endpoint_url).request_uri

    def get_item(self, **arguments: Any) -> dict[str, Any]:
        """Read one item."""
        return self._call("GetItem", arguments)

    def batch_get_item(self, **arguments: Any) -> dict[str, Any]:
        """Read items by their keys."""
        return self._call("BatchGetItem", arguments)

    def query(self, **arguments: Any) -> dict[str, Any]:
        """Read a page of a partition."""
        return self._call("Query", arguments)

    def scan(self, **arguments: Any) -> dict[str, Any]:
        """Read a page of the table."""
        return self._call("Scan", arguments)

    def update_item(self, **arguments: Any) -> dict[str, Any]:
        """Change one item."""
        return self._call("UpdateItem", arguments)

    def transact_write_items(self, **arguments: Any) -> dict[str, Any]:
        """Change several items, all or none."""
        return self._call("TransactWriteItems", arguments)

    def describe_table(self, **arguments: Any) -> dict[str, Any]:
        """Tell what the table is; its dates are numbers here."""
        return self._call("DescribeTable", arguments)

    def _call(self, operation: str, arguments: dict[str, Any]) -> dict[str, Any]:
        status, body = self._send(self._signed(operation, arguments))
        answer = _read(body)
        if status != _OK:
            raise ClientError(_error(status, answer or {}), operation)
        if answer is None:
            raise HTTPClientError(error=f"{operation} was answered with what is no JSON object")
        return answer

    def _signed(self, operation: str, arguments: dict[str, Any]) -> AWSRequest:
        if self._credentials is None:
            raise NoCredentialsError
        request = AWSRequest(
            "POST",
            self.endpoint_url,
            headers={"Content-Type": _MEDIA_TYPE, "X-Amz-Target": _API + operation},
            data=json.dumps(arguments, separators=(",", ":")).encode(),
        )
        # Frozen: a refresh between the key and its secret would sign with a pair that is none.
        credentials = self._credentials.get_frozen_credentials()
        SigV4Auth(credentials, _SERVICE, self._region).add_auth(request)
        return request

    def _send(self, request: AWSRequest) -> tuple[int, bytes]:
        try:
            answer = self._pool.urlopen(
                "POST", self._path, body=request.data, headers=dict(request.headers.items())
            )
        except exceptions.NewConnectionError as error:
            raise EndpointConnectionError(endpoint_url=self.endpoint_url, error=error) from error
        except exceptions.ConnectTimeoutError as error:
            raise ConnectTimeoutError(endpoint_url=self.endpoint_url, error=error) from error
        except exceptions.ReadTimeoutError as error:
            raise ReadTimeoutError(endpoint_url=self.endpoint_url, error=error) from error
        except exceptions.ProtocolError as error:
            raise ConnectionClosedError(endpoint_url=self.endpoint_url, error=error) from error
        except exceptions.HTTPError as error:
            raise HTTPClientError(error=error) from error
        return answer.status, answer.data


def _read(body: bytes) -> dict[str, Any] | None:
    """The answer, or None for what DynamoDB does not say: a proxy's page, half an answer."""
    try:
        answer = json.loads(body)
    except ValueError:
        return None
    return answer if isinstance(answer, dict) else None


def _error(status: int, answer: Mapping[str, Any]) -> dict[str, Any]:
    """A refusal as boto3's ``ClientError`` carries it."""
    return {
        "Error": {
            "Code": str(answer.get("__type", status)).rpartition("#")[2],
            "Message": answer.get("message") or answer.get("Message") or "",
        },
        "ResponseMetadata": {"HTTPStatusCode": status},
        "CancellationReasons": answer.get("CancellationReasons", []),
        "Item": answer.get("Item"),
    }
