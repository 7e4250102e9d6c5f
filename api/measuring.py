"""Requests as the metrics count them, and as traces show them.

A cached read takes some ten microseconds, so this happens around Flask and not in its hooks, and in
as few steps as can be: it costs about one microsecond.
"""

from collections.abc import Callable, Iterable
from time import perf_counter
from typing import Any, Final

from flask import Flask

from api.places import places
from api.services import Services
from shared import metrics, tracing
from shared.metrics import Labels

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "DELETE", "OPTIONS"})
_OTHER: Final = "other"
"""The method that nobody has heard of, and the route where there is none: clients may invent as
many as they like, and each would be a number of its own."""

_Serve = Callable[[dict[str, Any], Any], Iterable[bytes]]


def measure(app: Flask, services: Services) -> None:
    """Count every request of ``app``, however it ends."""
    metrics.PLACES.watch(lambda: places.taken)
    metrics.PLACES_ALL.watch(lambda: services.settings.api_threads)
    metrics.WAITS.watch(lambda: services.waiting.open_waits)
    metrics.STREAMS.watch(lambda: services.waiting.open_streams)
    app.wsgi_app = _counted(app.wsgi_app)  # type: ignore[assignment,method-assign]


def trace(app: Flask) -> None:
    """Have a span around each request of ``app``; it goes on with the trace of its client."""
    app.wsgi_app = _traced(app.wsgi_app)  # type: ignore[assignment,method-assign]


def _traced(serve: _Serve) -> _Serve:
    def serve_traced(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        headers = {"traceparent": environ.get("HTTP_TRACEPARENT", "")}
        with tracing.span("request", headers=headers, kind="SERVER") as span:

            def start(*said: Any) -> Any:
                asked = environ.get("werkzeug.request")
                rule = asked.url_rule if asked is not None else None
                if span is not None:
                    method = environ["REQUEST_METHOD"]
                    method = method if method in _METHODS else _OTHER
                    span.update_name(f"{method} {rule.rule if rule else _OTHER}")
                    span.set_attribute("http.response.status_code", int(said[0][:3]))
                return start_response(*said)

            return serve(environ, start)

    return serve_traced


def _counted(serve: _Serve) -> _Serve:
    known: dict[tuple[str, str, str, bool], Labels] = {}
    observe = metrics.REQUEST_SECONDS.observe_as

    def serve_counted(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        began = perf_counter()

        def start(*said: Any) -> Any:
            # Flask's own request knows the route; it is there for as long as the answer begins.
            asked = environ.get("werkzeug.request")
            rule = asked.url_rule if asked is not None else None
            waits = "wait" in environ["QUERY_STRING"] or "HTTP_PREFER" in environ
            key = (rule.rule if rule else _OTHER, environ["REQUEST_METHOD"], said[0], waits)
            labels = known.get(key)
            if labels is None:
                labels = _labels(*key)
                if key[1] in _METHODS:
                    known[key] = labels
            observe(labels, perf_counter() - began)
            return start_response(*said)

        return serve(environ, start)

    return serve_counted


def _labels(route: str, method: str, status_line: str, waits: bool) -> Labels:
    return (
        route,
        method if method in _METHODS else _OTHER,
        status_line[:3],
        "yes" if waits else "no",
    )
