"""Traces: one from the request to the settlement, and none where nobody wants any."""

import json
from collections.abc import Iterator
from typing import Any, cast

import fakeredis
import pytest
import structlog
from celery import Celery
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from api.measuring import trace
from shared import tracing
from shared.settings import Settings
from shared.status_cache import StatusCache
from shared.task_queue import TaskQueue, publisher_app
from tests.unit.api.parts import Api, json_of, order_body
from tests.unit.factories import NOON, make_settler

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.fixture(name="exporter")
def _exporter() -> Iterator[InMemorySpanExporter]:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracing.use(provider)
    yield exporter
    tracing.use(None)


@pytest.fixture(name="traced")
def _traced(api: Api, exporter: InMemorySpanExporter) -> Api:
    trace(api.http.application)
    exporter.clear()
    return api


def spans(exporter: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    return {span.name: span for span in exporter.get_finished_spans()}


class Sent:
    """An application that keeps what it was to send."""

    def __init__(self) -> None:
        self.headers: dict[str, Any] = {}

    def send_task(self, *_: Any, headers: dict[str, Any], **__: Any) -> None:
        self.headers = headers


def test_a_request_goes_on_with_its_client_s_trace(
    traced: Api, exporter: InMemorySpanExporter
) -> None:
    account = traced.open_account()
    exporter.clear()

    traced.http.post(
        f"/v1/accounts/{account}/orders",
        json=order_body(),
        headers={"traceparent": f"00-{TRACE}-{SPAN}-01"},
    )

    found = spans(exporter)
    request = found["POST /v1/accounts/<account:account_id>/orders"]
    accept, store = found["accept"], found["dynamodb transact_write_items"]
    assert request.parent
    assert f"{request.parent.span_id:016x}" == SPAN
    assert request.attributes == {"http.response.status_code": 202}
    assert {f"{span.context.trace_id:032x}" for span in (request, accept, store)} == {TRACE}
    assert accept.parent
    assert accept.parent.span_id == request.context.span_id
    assert [link.context.span_id for link in accept.links] == [request.context.span_id]


def test_a_message_carries_the_trace_to_the_worker(exporter: InMemorySpanExporter) -> None:
    app = Sent()
    queue = TaskQueue(cast("Celery", app), fakeredis.FakeRedis())

    with tracing.span("request"):
        queue.publish([(1, "x")], NOON)
    with tracing.span("settle", headers=app.headers, kind="CONSUMER"):
        pass

    found = spans(exporter)
    publish, settle = found["publish"], found["settle"]
    assert settle.parent
    assert settle.context.trace_id == publish.context.trace_id
    assert publish.parent
    assert publish.parent.span_id == found["request"].context.span_id


def test_settling_and_the_cache_are_spans(traced: Api, exporter: InMemorySpanExporter) -> None:
    account = traced.open_account()
    order = json_of(traced.post(f"/v1/accounts/{account}/orders", order_body()))
    exporter.clear()

    cache = StatusCache(fakeredis.FakeRedis(), 60)
    make_settler(traced.gateway, cache=cache).settle([(account, order["id"])])
    cache.get(account, order["id"])

    assert {"dynamodb batch_get_item", "dynamodb transact_write_items", "cache write"} <= set(
        spans(exporter)
    )
    assert spans(exporter)["cache read"].attributes == {"orders": 1}


def test_without_tracing_nothing_is_made_or_carried(api: Api) -> None:
    app = Sent()
    TaskQueue(cast("Celery", app), fakeredis.FakeRedis()).publish([(1, "x")], NOON)

    assert not tracing.is_on()
    assert tracing.here() is None
    assert tracing.carried() == {}
    assert set(app.headers) == {"enqueued_at"}
    assert tracing.span("one") is tracing.span("another", orders=3)


def test_without_an_endpoint_tracing_does_not_start() -> None:
    tracing.start(Settings(), "api")

    assert not tracing.is_on()


def test_where_the_packages_are_missing_it_is_said_and_all_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tracing, "find_spec", lambda _: None)

    with structlog.testing.capture_logs() as events:
        tracing.start(Settings(otel_exporter_otlp_endpoint="http://127.0.0.1:4318"), "api")

    assert not tracing.is_on()
    assert [event["event"] for event in events] == ["tracing_unavailable"]


def test_a_span_that_its_client_broke_off_begins_a_trace(exporter: InMemorySpanExporter) -> None:
    with tracing.span("request", headers={"traceparent": json.dumps({"not": "one"})}):
        pass

    assert spans(exporter)["request"].parent is None


def test_the_real_application_has_headers_that_celery_passes_on() -> None:
    app = publisher_app(Settings(), connections=1)
    app.conf.update(broker_url="memory://", broker_transport="memory")
    provider = TracerProvider()
    tracing.use(provider)
    try:
        with tracing.span("request"):
            TaskQueue(app, fakeredis.FakeRedis()).publish([(1, "x")], NOON)
        with app.connection_for_read() as connection:
            message: Any = connection.SimpleQueue("orders").get(timeout=1)
            message.ack()
    finally:
        tracing.use(None)
        app.close()

    assert message.headers["traceparent"].startswith("00-")
