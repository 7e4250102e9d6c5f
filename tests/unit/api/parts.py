"""The API over a store in memory, with a queue and a clock that tests hold in their hands."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from botocore.exceptions import EndpointConnectionError
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from api.services import Services
from shared.ids import OrderRef
from shared.order_store.gateway import Gateway
from shared.task_queue import QueueUnavailable, TaskQueue
from tests.unit.factories import NOON

JSON_TYPE = "application/json"
PROBLEM_TYPE = "application/problem+json"


class FakeClock:
    def __init__(self, now: datetime = NOON) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now

    def forward(self, duration: timedelta) -> None:
        self.now += duration


class FakeQueue(TaskQueue):
    def __init__(self) -> None:
        self.published: list[list[OrderRef]] = []
        self.origins: list[list[str]] = []
        self.is_down = False

    def publish(
        self,
        refs: Sequence[OrderRef],
        now: datetime,
        *,
        suspect: bool = False,
        origins: Sequence[str] = (),
    ) -> None:
        del now, suspect
        if self.is_down:
            raise QueueUnavailable("the broker is away")
        self.published.append(list(refs))
        self.origins.append(list(origins))

    def check(self) -> None:
        if self.is_down:
            raise QueueUnavailable("the broker is away")


class FaultyClient:
    """A boto client that can be told to reach nothing; counts the calls that it was asked for."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self.is_down = False
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        self.calls.append(name)
        if self.is_down:
            return self._refuse
        return getattr(self._client, name)

    def _refuse(self, **_: Any) -> Any:
        raise EndpointConnectionError(endpoint_url="http://127.0.0.1:1")


@dataclass
class Api:
    """A running API and the parts behind it."""

    http: FlaskClient
    services: Services
    gateway: Gateway
    store: FaultyClient
    queue: FakeQueue
    clock: FakeClock
    redis: Any

    def post(self, path: str, body: Any, key: str | None = None) -> TestResponse:
        headers = {} if key is None else {"Idempotency-Key": key}
        if isinstance(body, str | bytes):
            return self.http.post(path, data=body, content_type=JSON_TYPE, headers=headers)
        return self.http.post(path, json=body, headers=headers)

    def get(self, path: str) -> TestResponse:
        return self.http.get(path)

    def open_account(self, cash: Any = "1000") -> int:
        answer = self.post("/v1/accounts", {"cash": cash})
        assert answer.status_code == 201, answer.text
        return int(json_of(answer)["id"])


def json_of(answer: TestResponse) -> dict[str, Any]:
    read = answer.get_json()
    assert isinstance(read, dict)
    return read


def order_body(**changes: Any) -> dict[str, Any]:
    body: dict[str, Any] = {
        "timestamp": int(NOON.timestamp()),
        "operation": "BUY",
        "issuer_name": "AAPL",
        "total_shares": 2,
        "share_price": "80.5",
    }
    return body | changes


def problem_of(answer: TestResponse, status: int, code: str | None = None) -> dict[str, Any]:
    """The problem document of ``answer``, which must be a whole one of ``status``."""
    assert answer.status_code == status, answer.text
    assert answer.mimetype == PROBLEM_TYPE
    document = json_of(answer)
    assert document["status"] == status
    assert document["type"] == "about:blank"
    for name in ("code", "title", "detail"):
        assert isinstance(document[name], str)
        assert document[name]
    if code is not None:
        assert document["code"] == code
    return document


def pointers_of(answer: TestResponse) -> list[str]:
    """Which fields a 422 complains of."""
    document = problem_of(answer, 422, "INVALID_OPERATION")
    for error in document["errors"]:
        assert set(error) == {"pointer", "detail"}
        assert error["detail"]
    return [error["pointer"] for error in document["errors"]]
