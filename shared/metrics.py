"""Metrics: what is counted, under which names, and how Prometheus gets to read it.

Counting must cost next to nothing, so it happens in plain numbers of the process: less than a
microsecond each. Once a second, and whenever somebody reads, what is new goes to prometheus_client,
whose files (``shared.metrics_export``) are added up by whichever process of the instance is asked.
So a process that is killed takes the counts of its last second along.

Nothing is counted before ``start_counting``: a process whose metrics are off pays for a look at a
flag. Between threads that really run at once a count may be lost, never more than that.
"""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

_REQUEST_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_STORE_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
_DECISION_SECONDS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_GROUP_SIZES: Final = (1, 2, 5, 10, 20, 33, 50, 100)

Labels = tuple[str, ...]


class Key(NamedTuple):
    """What names one number."""

    name: str
    labels: Labels


class _Process:
    """Whether this process counts."""

    is_on = False


_process: Final = _Process()
_recorders: Final[list["Counter | Gauge | Histogram"]] = []


class Counter:
    """A number that grows."""

    def __init__(
        self, name: str, says: str, labels: Sequence[str] = (), known: Sequence[Labels] = ()
    ) -> None:
        """Count what ``says`` says; ``known`` labels are there from the start, with 0.

        Without that the first event of a kind shows no increase, and no alert sees it.
        """
        self.name, self.says, self.labels = name, says, tuple(labels)
        self.known = tuple(known) or (() if labels else ((),))
        self.values: dict[Labels, float] = {}
        _recorders.append(self)

    def add(self, *labels: str, n: float = 1) -> None:
        """Count ``n`` more."""
        if _process.is_on:
            values = self.values
            values[labels] = values.get(labels, 0) + n


class Gauge:
    """A number that rises and falls; those of an instance's processes are added up."""

    def __init__(self, name: str, says: str, labels: Sequence[str] = ()) -> None:
        """Show what ``says`` says."""
        self.name, self.says, self.labels = name, says, tuple(labels)
        self.values: dict[Labels, float] = {}
        self._looks: dict[Labels, Callable[[], float]] = {}
        _recorders.append(self)

    def set(self, value: float, *labels: str) -> None:
        """Show ``value`` from now on."""
        if _process.is_on:
            self.values[labels] = value

    def watch(self, look: Callable[[], float], *labels: str) -> None:
        """Have ``look``, which must neither wait nor fail, asked whenever somebody reads."""
        self._looks[labels] = look

    def look(self) -> None:
        """Ask what is watched."""
        for labels, look in self._looks.items():
            self.values[labels] = look()


class Histogram:
    """How many values there were of each size."""

    def __init__(
        self, name: str, says: str, bounds: Sequence[float], labels: Sequence[str] = ()
    ) -> None:
        """Sort values by ``bounds``, each the largest value of its bucket."""
        self.name, self.says, self.labels = name, says, tuple(labels)
        self.bounds = tuple(bounds)
        self.values: dict[Labels, list[float]] = {}
        """For each the counts by bucket, the last for what is beyond all, and then the sum."""
        _recorders.append(self)

    def observe(self, value: float, *labels: str, n: int = 1) -> None:
        """Count ``value``, ``n`` times."""
        self.observe_as(labels, value, n)

    def observe_as(self, labels: Labels, value: float, n: int = 1) -> None:
        """``observe`` for who has the labels at hand as they are kept: half as dear."""
        if not _process.is_on:
            return
        cells = self.values.get(labels)
        if cells is None:
            cells = self.values[labels] = [0.0] * (len(self.bounds) + 2)
        cells[bisect_left(self.bounds, value)] += n
        cells[-1] += value * n


# The API

REQUEST_SECONDS: Final = Histogram(
    "orders_http_request_seconds",
    "Requests and the time until their answer began; waits: yes for those that asked to wait",
    _REQUEST_SECONDS,
    ("route", "method", "status", "waits"),
)
PROBLEMS: Final = Counter(
    "orders_http_problems_total",
    "Problem documents by code: unauthorised, limited, invalid and failed requests",
    ("code",),
)
REFUSED: Final = Counter(
    "orders_http_refused_total",
    "Requests refused before the application: not in time, too large, overloaded, unreadable",
    ("status",),
    known=[("408",), ("413",), ("431",), ("503",)],
)
LIMITED: Final = Counter(
    "orders_http_limited_total", "Requests over a limit of a key or an address", ("limit",)
)
PLACES: Final = Gauge("orders_http_places_in_use", "Requests that are worked on")
PLACES_ALL: Final = Gauge("orders_http_places", "Requests that can be worked on at once")
WAITS: Final = Gauge("orders_http_waits", "Requests that wait for their order to be decided")
STREAMS: Final = Gauge("orders_http_streams", "Open event streams")
ACCEPTED: Final = Counter(
    "orders_accepted_total", "Recorded orders and accounts", ("what",), [("order",), ("account",)]
)
GROUP_SIZE: Final = Histogram(
    "orders_accept_group_size", "Requests that shared one write", _GROUP_SIZES
)
LEFT_TO_SWEEPER: Final = Counter(
    "orders_left_to_sweeper_total", "Recorded orders that could not be announced"
)

# The worker

DECIDED: Final = Counter(
    "orders_decided_total",
    "Decided orders by status; failed ones are parked",
    ("status",),
    [("executed",), ("rejected",), ("cancelled",), ("failed",)],
)
REJECTIONS: Final = Counter(
    "orders_rejections_total",
    "Broken rules of rejected orders",
    ("code",),
    [
        ("INSUFFICIENT_BALANCE",),
        ("INSUFFICIENT_STOCKS",),
        ("DUPLICATED_OPERATION",),
        ("CLOSED_MARKET",),
        ("INVALID_OPERATION",),
    ],
)
DECISION_SECONDS: Final = Histogram(
    "orders_decision_seconds", "Time from acceptance to the final status", _DECISION_SECONDS
)
SETTLEMENT_ORDERS: Final = Histogram(
    "orders_settlement_orders", "Orders of one account that were decided together", _GROUP_SIZES
)
MESSAGES: Final = Counter(
    "orders_messages_total",
    "Messages of the queue by what became of them",
    ("outcome",),
    [("settled",), ("returned",), ("failed",)],
)
CONFLICTS: Final = Counter(
    "orders_commit_conflicts_total", "Accounts that changed between their read and their commit"
)

# The sweeper

QUEUE_MESSAGES: Final = Gauge("orders_queue_messages", "Messages that wait in the queue")
OLDEST_SECONDS: Final = Gauge(
    "orders_oldest_undecided_seconds",
    "Age of the oldest undecided order, as far as it is older than RECOVER_AFTER or in the queue",
)
PARKED: Final = Gauge("orders_parked", "Parked orders, which wait for an operator")
SENT_AGAIN: Final = Counter("orders_sent_again_total", "Orders whose message was lost")
SWEEPS: Final = Counter(
    "orders_sweeps_total", "Sweeps by how they ended", ("outcome",), [("done",), ("failed",)]
)

# What they stand on

STORE_CALLS: Final = Counter(
    "orders_store_calls_total", "Calls to DynamoDB by what came of them", ("operation", "outcome")
)
STORE_SECONDS: Final = Histogram(
    "orders_store_call_seconds", "Time of one call to DynamoDB", _STORE_SECONDS, ("operation",)
)
STORE_RETRIES: Final = Counter("orders_store_retries_total", "Repeated reads", ("operation",))
CACHE_READS: Final = Counter(
    "orders_cache_reads_total",
    "Looked up answers; remembered ones by the process itself, skipped while the cache rests",
    ("outcome",),
    [("remembered",), ("hit",), ("miss",), ("error",), ("skipped",)],
)
DEPENDENCY_ERRORS: Final = Counter(
    "orders_dependency_errors_total",
    "Failed calls to store, broker and cache; the store's throttling and lost answers included",
    ("dependency", "kind"),
    [
        ("store", "unavailable"),
        ("store", "throttled"),
        ("store", "unknown"),
        ("broker", "publish"),
        ("broker", "look"),
        ("cache", "read"),
        ("cache", "write"),
    ],
)


def recorders() -> Sequence[Counter | Gauge | Histogram]:
    """All metrics, in the sequence of their definition."""
    return tuple(_recorders)


def snapshot() -> dict[Key, float]:
    """What was counted here so far; of a histogram the number of its values."""
    found: dict[Key, float] = {}
    for recorder in _recorders:
        for labels, value in recorder.values.copy().items():
            total = sum(value[:-1]) if isinstance(value, list) else value
            found[Key(recorder.name, labels)] = total
    return found


def start_counting() -> None:
    """Count from now on, from nothing: what a parent counted before its fork is the parent's."""
    for recorder in _recorders:
        recorder.values.clear()
    _process.is_on = True


def stop_counting() -> None:
    """Count no more."""
    _process.is_on = False
