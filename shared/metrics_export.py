"""The way of the metrics to Prometheus: through files that all processes of an instance share.

Nothing imports this module before ``shared.metrics_folder.make`` was called, here or in the process
that started this one: the library asks for the folder.
"""

import threading
from collections.abc import Callable, Iterator
from typing import Any, Final

import prometheus_client
from prometheus_client import CollectorRegistry, generate_latest, values
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from shared import metrics, metrics_folder, metrics_server
from shared.logs import get_logger
from shared.metrics import Counter, Gauge, Histogram, Labels

FLUSH_SECONDS: Final = 1.0
"""How old what another process of the instance shows may be."""

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

# The library decides at its import whether it writes files. In a worker that is too early: the
# celery command has imported Flower, and Flower the library, before there is a folder.
values.ValueClass = values.MultiProcessValue()  # type: ignore[no-untyped-call]

log = get_logger(__name__)


def start() -> None:
    """Count from now on, and pass on what is new every second, until ``stop``."""
    metrics.start_counting()
    exporter = _Exporter()
    _running.append(exporter)
    exporter.begin()


def stop() -> None:
    """Pass on what was counted last, and count no more."""
    while _running:
        _running.pop().end()
    metrics.stop_counting()


def exposition() -> bytes:
    """The metrics of all processes of this instance, as Prometheus reads them."""
    return generate_latest(_registry())


def serve(host: str, port: int) -> None:
    """Answer to Prometheus on a port of this process' own, in a thread.

    A port that is taken costs the metrics and nothing else.
    """
    try:
        metrics_server.start(host, port, prometheus_client.make_wsgi_app(_registry()))
    except OSError as error:
        log.warning("metrics_unavailable", host=host, port=port, error=str(error))


def _registry() -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(_Instance())
    return registry


class _Instance(Collector):
    """What the processes of this instance counted, this one's up to now."""

    def collect(self) -> Iterator[Any]:
        for exporter in _running:
            exporter.flush()
        metrics_folder.forget_the_dead()
        yield from MultiProcessCollector(None).collect()  # type: ignore[no-untyped-call]


class _Exporter:
    """Passes what is new on to prometheus_client."""

    def __init__(self) -> None:
        self._passers = [_passer(recorder) for recorder in metrics.recorders()]
        self._is_over = threading.Event()
        self._passing = threading.Lock()

    def begin(self) -> None:
        self.flush()
        threading.Thread(target=self._run, name="metrics", daemon=True).start()

    def end(self) -> None:
        self._is_over.set()
        self.flush()

    def flush(self) -> None:
        with self._passing:
            for pass_on in self._passers:
                pass_on()

    def _run(self) -> None:
        while not self._is_over.wait(FLUSH_SECONDS):
            try:
                self.flush()
            except Exception:
                # A full disk, say: whatever it is, no order is to suffer.
                log.exception("metrics_failed")


_running: Final[list[_Exporter]] = []


def _passer(recorder: Counter | Gauge | Histogram) -> Callable[[], None]:
    """What passes on the news of ``recorder``."""
    if isinstance(recorder, Counter):
        return _counter_passer(recorder)
    if isinstance(recorder, Gauge):
        return _gauge_passer(recorder)
    return _histogram_passer(recorder)


def _counter_passer(recorder: Counter) -> Callable[[], None]:
    made = prometheus_client.Counter(recorder.name, recorder.says, recorder.labels, registry=None)
    passed: dict[Labels, float] = {}
    for labels in recorder.known:
        _child(made, labels).inc(0)

    def pass_on() -> None:
        for labels, value in recorder.values.copy().items():
            if news := value - passed.get(labels, 0):
                _child(made, labels).inc(news)
                passed[labels] = value

    return pass_on


def _gauge_passer(recorder: Gauge) -> Callable[[], None]:
    made = prometheus_client.Gauge(
        recorder.name,
        recorder.says,
        recorder.labels,
        registry=None,
        multiprocess_mode="livesum",
    )
    passed: dict[Labels, float] = {}

    def pass_on() -> None:
        recorder.look()
        for labels, value in recorder.values.copy().items():
            if value != passed.get(labels):
                _child(made, labels).set(value)
                passed[labels] = value

    return pass_on


def _histogram_passer(recorder: Histogram) -> Callable[[], None]:
    made = prometheus_client.Histogram(
        recorder.name, recorder.says, recorder.labels, registry=None, buckets=recorder.bounds
    )
    passed: dict[Labels, list[float]] = {}

    def pass_on() -> None:
        for labels, cells in recorder.values.copy().items():
            seen, now = passed.get(labels) or [0.0] * len(cells), list(cells)
            if now == seen:
                continue
            # The library counts value by value; these are many at once (and pinned).
            child = _child(made, labels)
            for place, bucket in enumerate(child._buckets):
                if news := now[place] - seen[place]:
                    bucket.inc(news)
            child._sum.inc(now[-1] - seen[-1])
            passed[labels] = now

    return pass_on


def _child(made: Any, labels: Labels) -> Any:
    return made.labels(*labels) if labels else made
