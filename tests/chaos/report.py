"""What a run came to: counts, times, faults, violations; as text and as JSON."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tests.chaos.books import microseconds
from tests.chaos.checker import KINDS, Violation
from tests.chaos.history import (
    ACCOUNT,
    BULK,
    CANCEL,
    DAMAGE,
    EVENT,
    LIST,
    OPEN,
    ORDER,
    PLACE,
    REUSE,
    STRANGE,
    Call,
)
from tests.chaos.nemesis import Window
from tests.chaos.posts import each_post
from tests.chaos.table import OrderRow, Table

EXAMPLES_MAX = 5

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Run:
    """Everything about a run; ``wall_offset`` makes Unix time of monotonic seconds."""

    seed: int
    start: float
    load_end: float
    healed: float
    decided: float
    wall_offset: float
    calls: Sequence[Call]
    table: Table
    windows: Sequence[Window]
    violations: Sequence[Violation]
    proxy_counts: Counter[str]
    client_cpu_seconds: float
    proxies_cpu_seconds: float
    idle_seconds: float
    errors: Sequence[str]

    def accepted_at(self) -> list[float]:
        """When each order was first answered with 202 (200: waited for), from the start."""
        first: dict[str, float] = {}
        for call in self.posts():
            if call.status in (200, 202):
                first[call.request] = min(call.end, first.get(call.request, call.end))
        return sorted(at - self.start for at in first.values())

    def posts(self) -> list[Call]:
        """The POSTs of orders, each line of a bulk request as one."""
        return [post for call in self.calls for post in each_post(call) if post.op == PLACE]

    def decided_at(self) -> list[float]:
        """When each order was decided, in seconds from the start."""
        begin = self.start + self.wall_offset
        return sorted(
            microseconds(row.decided_at) / 1e6 - begin
            for row in self.table.orders
            if row.decided_at
        )


def report(run: Run) -> Json:
    """The figures of a run."""
    posts = run.posts()
    alone = [call for call in run.calls if call.op == PLACE]
    accepted = run.accepted_at()
    load_seconds = run.load_end - run.start
    return {
        "seed": run.seed,
        "seconds": {
            "load": round(load_seconds, 1),
            "until everything was decided, after the last fault": round(
                max(0.0, run.decided - run.healed), 1
            ),
        },
        "orders": _orders(run, posts, len(accepted)),
        "answers": _answers(run.calls, posts),
        "throughput": {
            "most orders waiting for their decision": _most_waiting(accepted, run.decided_at()),
            "accepted per second": round(len(accepted) / load_seconds, 1),
            "accepted per second, best 5 s": _best(accepted, 5),
            "clients' processor time, share of one core": round(
                run.client_cpu_seconds / load_seconds, 2
            ),
            "the proxies' processor time, share of one core": round(
                run.proxies_cpu_seconds / load_seconds, 2
            ),
            "processors without work, in cores": round(run.idle_seconds / load_seconds, 2),
        },
        "milliseconds": {
            "POST answered with 202": _percentiles(
                [
                    1000 * (call.end - call.start)
                    for call in alone
                    if call.status == 202 and not call.wait
                ]
            ),
            "accepted to decided": _percentiles(_waits(run.table.orders)),
        },
        "faults": dict(sorted(Counter(window.kind for window in run.windows).items())),
        "proxies": dict(sorted(run.proxy_counts.items())),
        "violations": {
            **dict.fromkeys(KINDS, 0),
            **Counter(violation.kind for violation in run.violations),
        },
        "examples": [f"{one.kind}: {one.detail}" for one in examples(run.violations)],
        "errors of the run itself": list(run.errors),
    }


def examples(violations: Sequence[Violation]) -> list[Violation]:
    """The first few of each kind."""
    seen: Counter[str] = Counter()
    found = []
    for violation in violations:
        seen[violation.kind] += 1
        if seen[violation.kind] <= EXAMPLES_MAX:
            found.append(violation)
    return found


def as_text(told: Json) -> str:
    """The report for a terminal."""
    lines: list[str] = []
    for title, content in told.items():
        if isinstance(content, dict):
            lines += [
                "",
                title,
                *(f"  {_cell(value):>10}  {name}" for name, value in content.items()),
            ]
        elif isinstance(content, list):
            lines += ["", title, *(f"  {line}" for line in content)] if content else []
        else:
            lines.append(f"{title} {content}")
    return "\n".join(lines)


def _cell(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {part}" for name, part in value.items())
    return f"{value:,}"


def _orders(run: Run, posts: Sequence[Call], accepted: int) -> Json:
    rows = run.table.orders
    codes = Counter(code for row in rows for code in row.errors)
    statuses = Counter(row.status for row in rows)
    return {
        "asked for": len({call.request for call in posts}),
        "accepted": accepted,
        "in the table": len(rows),
        "without a definite answer (no key), but recorded": len(rows) - accepted,
        **{f"{status}": count for status, count in sorted(statuses.items())},
        **{f"rejected: {code}": count for code, count in sorted(codes.items())},
        "tried again by a counted attempt": sum(row.attempts > 0 for row in rows),
        "damaged by hand": sum(call.op == DAMAGE for call in run.calls),
        "parked, and replayed": sum(bool(row.parkings) for row in rows),
        "parked, and cancelled": sum(
            row.status == "cancelled" and row.failure is not None for row in rows
        ),
        "accounts": len(run.table.accounts),
    }


def _answers(calls: Sequence[Call], posts: Sequence[Call]) -> Json:
    operations = Counter(call.op for call in calls)
    errors = Counter(call.error for call in calls if call.error)
    return {
        "calls": len(calls),
        "POSTs of orders": len(posts),
        "bulk requests": operations[BULK],
        "POSTs answered with the outcome": sum(call.status == 200 for call in posts),
        "POSTs of accounts": operations[OPEN],
        "POSTs replayed": sum(call.replayed for call in posts),
        "keys sent with another body": operations[REUSE],
        "POSTs sent again on purpose": sum(call.again for call in posts),
        "POSTs with 503": sum(call.status == 503 for call in posts),
        "POSTs without an answer": sum(call.status is None for call in posts),
        "polls of an order": operations[ORDER],
        "reads of an account": operations[ACCOUNT],
        "reads of a list": operations[LIST],
        "reads answered with 304": sum(call.status == 304 for call in calls),
        "reads under another account": operations[STRANGE],
        "reads with 503": sum(
            call.status == 503 and call.op in (ORDER, ACCOUNT, LIST) for call in calls
        ),
        "events": sum(call.op == EVENT and call.order is not None for call in calls),
        "cancellations": sum(call.op == CANCEL and call.request == "" for call in calls),
        "cancellations in time": sum(call.op == CANCEL and call.status == 200 for call in calls),
        "cancellations too late": sum(call.op == CANCEL and call.status == 409 for call in calls),
        **{f"no answer: {error}": count for error, count in sorted(errors.items())},
    }


def _waits(rows: Sequence[OrderRow]) -> list[float]:
    return [
        (microseconds(row.decided_at) - microseconds(row.received_at)) / 1000
        for row in rows
        if row.decided_at
    ]


def _most_waiting(accepted: Sequence[float], decided: Sequence[float]) -> int:
    """The most orders that were accepted and not yet decided (at the time of an acceptance)."""
    most = done = 0
    for number, at in enumerate(accepted, start=1):
        while done < len(decided) and decided[done] <= at:
            done += 1
        most = max(most, number - done)
    return most


def _percentiles(values: list[float]) -> Json:
    if not values:
        return {}
    values.sort()
    return {
        name: round(values[min(len(values) - 1, int(share * len(values)))])
        for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99), ("max", 1.0))
    }


def _best(times: Sequence[float], seconds: int) -> float:
    by_second = Counter(int(at) for at in times)
    ends = range(max(by_second, default=0) + 1)
    sums = [sum(by_second[end - back] for back in range(seconds)) for end in ends]
    return round(max(sums, default=0) / seconds, 1)
