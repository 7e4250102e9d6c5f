"""Traces by OpenTelemetry, where somebody wants them and its packages are there.

They are not in the default installation (``requirements-tracing.txt``). Without them, or without
OTEL_EXPORTER_OTLP_ENDPOINT, a span is nothing: asking for one costs a tenth of a microsecond.
"""

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec
from typing import Any, Final

from shared.logs import get_logger
from shared.settings import Settings

_NOTHING: Final[AbstractContextManager[Any]] = nullcontext()

log = get_logger(__name__)


class _Traces:
    """What makes spans in this process; None where there are none."""

    tracer: Any = None


_traces: Final = _Traces()


def start(settings: Settings, process: str) -> None:
    """Trace from now on if ``settings`` ask for it, as the service ``orders-<process>``.

    Called after a fork, for the spans are sent by a thread. Further settings are OpenTelemetry's
    own (OTEL_TRACES_SAMPLER ...).
    """
    if not settings.otel_exporter_otlp_endpoint:
        return
    if find_spec("opentelemetry") is None or find_spec("opentelemetry.exporter") is None:
        log.warning("tracing_unavailable", error="requirements-tracing.txt is not installed")
        return
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider(resource=Resource.create({SERVICE_NAME: f"orders-{process}"}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    use(provider)


def use(provider: Any) -> None:
    """Make spans with ``provider``, or none with None."""
    _traces.tracer = None if provider is None else provider.get_tracer("orders")


def is_on() -> bool:
    """Tell whether this process traces."""
    return _traces.tracer is not None


def span(
    name: str,
    *,
    headers: Mapping[str, Any] | None = None,
    links: Iterable[Any] = (),
    kind: str = "INTERNAL",
    **attributes: Any,
) -> AbstractContextManager[Any]:
    """A span around a block.

    Args:
        name: what happens in the block.
        headers: of the request or message that asked for it, whose trace it goes on with.
        links: what ``here`` gave in other traces that the block is for too.
        kind: of OpenTelemetry's span kinds.
        attributes: what else is known; none of a client's own words.
    """
    if _traces.tracer is None:
        return _NOTHING
    from opentelemetry.trace import Link, SpanKind
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    context = None
    if headers is not None:
        context = TraceContextTextMapPropagator().extract(headers)
    made: AbstractContextManager[Any] = _traces.tracer.start_as_current_span(
        name,
        context=context,
        kind=SpanKind[kind],
        # Each of a bulk request's orders is of the same span.
        links=list({one.span_id: Link(one) for one in links if one is not None}.values()),
        attributes={key: value for key, value in attributes.items() if value is not None},
    )
    return made


def here() -> Any:
    """What names the current span for ``links``; None where there is none."""
    if _traces.tracer is None:
        return None
    from opentelemetry.trace import get_current_span

    context = get_current_span().get_span_context()
    return context if context.is_valid else None


def carried() -> dict[str, str]:
    """Headers by which another process goes on with the current trace; none where there is none."""
    headers: dict[str, str] = {}
    if _traces.tracer is not None:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        TraceContextTextMapPropagator().inject(headers)
    return headers
