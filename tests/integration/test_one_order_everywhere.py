"""One order's id, found in all that the processes tell: API log, Flower, worker log and trace."""

import gzip
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from tests.integration.client import Client, order_body, until
from tests.stack import Engines, Stack

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

REQUEST_ID = "follow-me.1"
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TOLD_SECONDS_MAX = 30.0


@dataclass(frozen=True)
class Span:
    """What the test asks of a span."""

    service: str
    name: str
    trace: str
    id: str
    parent: str


class Collector(ThreadingHTTPServer):
    """Takes spans as OpenTelemetry's collector does: OTLP over HTTP, in protobuf."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Export)
        self.spans: list[Span] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def take(self, body: bytes) -> None:
        for told in ExportTraceServiceRequest.FromString(body).resource_spans:
            about = {one.key: one.value.string_value for one in told.resource.attributes}
            self.spans += [
                Span(
                    about["service.name"],
                    span.name,
                    span.trace_id.hex(),
                    span.span_id.hex(),
                    span.parent_span_id.hex(),
                )
                for scope in told.scope_spans
                for span in scope.spans
            ]


class _Export(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        self.server.take(body)
        answer = ExportTraceServiceResponse().SerializeToString()
        self.send_response(200 if self.path == "/v1/traces" else 404)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with Collector() as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield running
        running.shutdown()
        thread.join(10)


@pytest.fixture(scope="module")
def stack(engines: Engines, collector: Collector) -> Iterator[Stack]:
    env = {
        "AUDIT_LOG": "true",
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_BSP_SCHEDULE_DELAY": "200",
    }
    with Stack(engines, workers=1, env=env, flower=True) as running:
        yield running


@pytest.fixture(scope="module")
def order(stack: Stack) -> dict[str, Any]:
    """A decided order that was sent with a request's id and a trace."""
    client = Client(stack.url)
    account = client.open_account()
    answer = requests.post(
        f"{stack.url}/v1/accounts/{account}/orders",
        json=order_body(),
        headers={"X-Request-Id": REQUEST_ID, "traceparent": f"00-{TRACE}-{SPAN}-01"},
        timeout=10,
    )
    assert answer.status_code == 202, answer.text
    assert answer.headers["X-Request-Id"] == REQUEST_ID
    settled = client.settled(answer.json())
    assert settled["status"] == "executed"
    return settled


def name_of(order: dict[str, Any]) -> str:
    """How messages and logs name an order."""
    return f"{order['account_id']}/{order['id']}"


def told(log: object, event: str, order: dict[str, Any]) -> dict[str, Any]:
    """The one line of ``log`` that tells of ``event`` and names ``order``."""
    assert isinstance(log, Path)

    def look() -> list[dict[str, Any]]:
        lines = [line for line in log.read_text().splitlines() if line.startswith("{")]
        found = [json.loads(line) for line in lines if order["id"] in line]
        return [line for line in found if line["event"] == event]

    (line,) = until(look, bool, TOLD_SECONDS_MAX)
    return line


def task_of(stack: Stack, order: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Flower's task whose arguments name ``order``, by Flower's own search."""

    def look() -> dict[str, Any]:
        url = f"http://127.0.0.1:{stack.flower_port}/api/tasks"
        answer = requests.get(url, params={"search": order["id"]}, timeout=10)
        assert answer.status_code == 200, answer.text
        tasks: dict[str, Any] = answer.json()
        return tasks

    ((task_id, task),) = until(look, bool, TOLD_SECONDS_MAX).items()
    return task_id, task


def test_the_api_s_log_names_the_order_its_request_and_its_account(
    stack: Stack, order: dict[str, Any]
) -> None:
    line = told(stack.api.log, "request", order)
    assert (line["request_id"], line["orders"]) == (REQUEST_ID, [order["id"]])
    assert (line["account"], line["status"]) == (order["account_id"], 202)


def test_flower_finds_the_message_by_the_order(stack: Stack, order: dict[str, Any]) -> None:
    _, task = task_of(stack, order)
    assert name_of(order) in task["args"]
    done = until(
        lambda: task_of(stack, order)[1], lambda one: one["state"] == "SUCCESS", TOLD_SECONDS_MAX
    )
    assert done["worker"]


def test_the_worker_s_log_names_order_request_and_flower_s_task(
    stack: Stack, order: dict[str, Any]
) -> None:
    line = told(stack.workers[0].log, "decided", order)
    task_id, _ = task_of(stack, order)
    assert line["orders"][name_of(order)] == "executed"
    assert line["message"] == task_id
    assert any(one.split()[0] == REQUEST_ID for one in line["requests"])


def test_one_trace_leads_from_the_client_to_the_settlement(
    collector: Collector, order: dict[str, Any]
) -> None:
    def own() -> dict[str, Span]:
        return {span.name: span for span in collector.spans if span.trace == TRACE}

    request = "POST /v1/accounts/<account:account_id>/orders"
    found = until(
        own, lambda spans: {request, "accept", "publish", "settle"} <= set(spans), TOLD_SECONDS_MAX
    )
    assert found[request].service == "orders-api"
    assert found[request].parent == SPAN
    assert found["accept"].parent == found[request].id
    assert found["settle"].service == "orders-worker"
    by_id = {span.id: span for span in collector.spans if span.trace == TRACE}
    above, place = [], found["settle"]
    while place.parent in by_id:
        place = by_id[place.parent]
        above.append(place.name)
    assert above[-1] == request
    assert any(
        span.service == "orders-worker" and span.name.startswith("dynamodb")
        for span in by_id.values()
    )
