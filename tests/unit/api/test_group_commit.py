import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from api import group_commit
from api.group_commit import GroupCommit, GroupFull, LeaderLost

SECONDS_MAX = 10.0


def answer_all(items: Sequence[int]) -> list[int | Exception]:
    return [item * 10 for item in items]


class Gate:
    """A commit that waits at each group until the test lets it go on."""

    def __init__(
        self, answer: Callable[[Sequence[int]], Sequence[int | Exception]] = answer_all
    ) -> None:
        self.groups: list[list[int]] = []
        self.threads: list[int] = []
        self.running = 0
        self.running_most = 0
        self._answer = answer
        self._started = threading.Semaphore(0)
        self._go = threading.Semaphore(0)

    def __call__(self, items: Sequence[int]) -> Sequence[int | Exception]:
        self.running += 1
        self.running_most = max(self.running_most, self.running)
        self.groups.append(list(items))
        self.threads.append(threading.get_ident())
        self._started.release()
        try:
            assert self._go.acquire(timeout=SECONDS_MAX)
            return self._answer(items)
        finally:
            self.running -= 1

    def wait_for_group(self) -> None:
        assert self._started.acquire(timeout=SECONDS_MAX)

    def let_go(self, groups: int = 1) -> None:
        self._go.release(groups)


class Crowd:
    """Submits items from a thread each, one after another."""

    def __init__(self, commits: GroupCommit[int, int], threads: ThreadPoolExecutor) -> None:
        self._commits = commits
        self._threads = threads
        self.futures: dict[int, Future[int]] = {}

    def submit(self, item: int) -> None:
        """Submit ``item`` and return when it leads or waits."""
        before = len(self._commits._waiting)
        is_led = self._commits._has_leader
        self.futures[item] = self._threads.submit(self._commits.submit, item)
        deadline = time.monotonic() + SECONDS_MAX
        while is_led and len(self._commits._waiting) == before:
            assert time.monotonic() < deadline
            time.sleep(0.001)

    def result(self, item: int) -> int:
        return self.futures[item].result(SECONDS_MAX)

    def error(self, item: int) -> BaseException | None:
        return self.futures[item].exception(SECONDS_MAX)


@pytest.fixture(name="threads")
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=32)


def make(
    gate: Gate, threads: ThreadPoolExecutor, *, weight_max: int = 100
) -> tuple[GroupCommit[int, int], Crowd]:
    commits: GroupCommit[int, int] = GroupCommit(gate, lambda _: 1, weight_max)
    return commits, Crowd(commits, threads)


def start_and_wait(gate: Gate, crowd: Crowd, waiting: Sequence[int]) -> None:
    """Have item 0 committed and ``waiting`` queued behind it."""
    crowd.submit(0)
    gate.wait_for_group()
    for item in waiting:
        crowd.submit(item)


def test_a_lone_request_is_committed_at_once_by_its_own_thread() -> None:
    seen: list[tuple[list[int], int]] = []

    def commit(items: Sequence[int]) -> list[int | Exception]:
        seen.append((list(items), threading.get_ident()))
        return answer_all(items)

    commits: GroupCommit[int, int] = GroupCommit(commit, lambda _: 1, 100)
    assert [commits.submit(1), commits.submit(2)] == [10, 20]
    assert seen == [([1], threading.get_ident()), ([2], threading.get_ident())]


def test_those_that_arrive_during_a_commit_share_the_next(threads: ThreadPoolExecutor) -> None:
    gate = Gate()
    _, crowd = make(gate, threads)
    start_and_wait(gate, crowd, range(1, 8))
    gate.let_go(2)
    assert [crowd.result(item) for item in range(8)] == [item * 10 for item in range(8)]
    assert gate.groups == [[0], [1, 2, 3, 4, 5, 6, 7]]


def test_one_group_is_committed_at_a_time(threads: ThreadPoolExecutor) -> None:
    gate = Gate()
    _, crowd = make(gate, threads, weight_max=2)
    start_and_wait(gate, crowd, range(1, 10))
    gate.let_go(10)
    for item in range(10):
        crowd.result(item)
    assert gate.running_most == 1


def test_a_leader_has_its_answer_before_the_next_group_is_done(
    threads: ThreadPoolExecutor,
) -> None:
    gate = Gate()
    _, crowd = make(gate, threads)
    start_and_wait(gate, crowd, [1, 2])
    gate.let_go()
    assert crowd.result(0) == 0
    gate.wait_for_group()
    assert not crowd.futures[1].done()
    gate.let_go()
    assert crowd.result(1) == 10
    assert crowd.result(2) == 20
    assert len(set(gate.threads)) == 2


def test_each_submitter_gets_its_own_result_or_exception(threads: ThreadPoolExecutor) -> None:
    def answer(items: Sequence[int]) -> list[int | Exception]:
        return [ValueError(str(item)) if item % 2 else item * 10 for item in items]

    gate = Gate(answer)
    _, crowd = make(gate, threads)
    start_and_wait(gate, crowd, [1, 2, 3, 4])
    gate.let_go(2)
    assert [crowd.result(item) for item in (0, 2, 4)] == [0, 20, 40]
    for item in (1, 3):
        error = crowd.error(item)
        assert isinstance(error, ValueError)
        assert str(error) == str(item)


def test_an_exception_of_the_commit_reaches_all_of_its_group_and_no_other(
    threads: ThreadPoolExecutor,
) -> None:
    def answer(items: Sequence[int]) -> list[int | Exception]:
        if 2 in items:
            raise RuntimeError("the commit failed")
        return answer_all(items)

    gate = Gate(answer)
    commits, crowd = make(gate, threads, weight_max=3)
    start_and_wait(gate, crowd, [1, 2, 3, 4, 5])
    gate.let_go(3)
    assert crowd.result(0) == 0
    for item in (1, 2, 3):
        assert isinstance(crowd.error(item), RuntimeError)
    assert [crowd.result(item) for item in (4, 5)] == [40, 50]
    gate.let_go()
    assert commits.submit(6) == 60
    assert gate.groups == [[0], [1, 2, 3], [4, 5], [6]]


def test_a_lone_leader_whose_commit_fails_leaves_the_way_free() -> None:
    outcomes: list[Exception | None] = [RuntimeError("the commit failed"), None]

    def commit(items: Sequence[int]) -> list[int | Exception]:
        error = outcomes.pop(0)
        if error:
            raise error
        return answer_all(items)

    commits: GroupCommit[int, int] = GroupCommit(commit, lambda _: 1, 100)
    with pytest.raises(RuntimeError, match="the commit failed"):
        commits.submit(1)
    assert commits.submit(2) == 20


def test_weights_bound_a_group_and_nobody_is_overtaken(threads: ThreadPoolExecutor) -> None:
    gate = Gate()
    commits: GroupCommit[int, int] = GroupCommit(gate, lambda item: item, 10)
    crowd = Crowd(commits, threads)
    start_and_wait(gate, crowd, [4, 6, 7, 5, 1, 3])
    gate.let_go(10)
    for item in (4, 6, 7, 5, 1, 3):
        assert crowd.result(item) == item * 10
    assert gate.groups == [[0], [4, 6], [7], [5, 1, 3]]


def test_an_item_heavier_than_a_group_is_committed_alone(threads: ThreadPoolExecutor) -> None:
    gate = Gate()
    commits: GroupCommit[int, int] = GroupCommit(gate, lambda item: item, 10)
    crowd = Crowd(commits, threads)
    start_and_wait(gate, crowd, [11, 1])
    gate.let_go(3)
    assert crowd.result(11) == 110
    assert crowd.result(1) == 10
    assert gate.groups == [[0], [11], [1]]


def test_leadership_is_handed_over_through_many_groups(threads: ThreadPoolExecutor) -> None:
    gate = Gate()
    commits, crowd = make(gate, threads, weight_max=3)
    start_and_wait(gate, crowd, range(1, 13))
    gate.let_go(5)
    assert [crowd.result(item) for item in range(13)] == [item * 10 for item in range(13)]
    assert gate.groups == [[0], [1, 2, 3], [4, 5, 6], [7, 8, 9], [10, 11, 12]]
    gate.let_go()
    assert commits.submit(13) == 130


def test_a_request_is_refused_while_too_many_wait(
    threads: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_commit, "WAITING_MAX", 3)
    gate = Gate()
    commits, crowd = make(gate, threads)
    start_and_wait(gate, crowd, [1, 2, 3])
    with pytest.raises(GroupFull):
        commits.submit(4)
    gate.let_go(3)
    assert [crowd.result(item) for item in range(4)] == [0, 10, 20, 30]
    assert commits.submit(5) == 50
    assert gate.groups == [[0], [1, 2, 3], [5]]


def test_no_result_is_lost_or_mixed_up_under_a_rush() -> None:
    def commit(items: Sequence[int]) -> list[int | Exception]:
        assert 0 < len(items) <= 7
        return answer_all(items)

    commits: GroupCommit[int, int] = GroupCommit(commit, lambda _: 1, 7)
    with ThreadPoolExecutor(max_workers=16) as threads:
        results = list(threads.map(commits.submit, range(3000), timeout=60))
    assert results == [item * 10 for item in range(3000)]


def test_who_leads_tells_afterwards_what_became_of_the_group() -> None:
    told: list[Sequence[int | Exception]] = []
    commits: GroupCommit[int, int] = GroupCommit(answer_all, lambda _: 1, 10, told.append)

    assert commits.submit(7) == 70
    assert told == [[70]]


def test_a_commit_that_answers_for_too_few_leaves_nobody_waiting(
    threads: ThreadPoolExecutor,
) -> None:
    gate = Gate(lambda items: [item * 10 for item in items][:1])
    commits: GroupCommit[int, int] = GroupCommit(gate, lambda _: 1, 10)
    crowd = Crowd(commits, threads)
    crowd.submit(1)
    gate.wait_for_group()
    crowd.submit(2)
    crowd.submit(3)
    gate.let_go(2)

    assert [crowd.result(1), crowd.result(2)] == [10, 20]
    assert isinstance(crowd.error(3), LeaderLost)


def test_who_waited_for_too_long_leads_nobody(
    threads: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_commit, "WAIT_SECONDS_MAX", 0.05)
    gate = Gate()
    commits, crowd = make(gate, threads)
    start_and_wait(gate, crowd, [1])
    assert isinstance(crowd.error(1), LeaderLost)
    gate.let_go(2)
    assert crowd.result(0) == 0
    crowd.submit(2)
    assert crowd.result(2) == 20
    assert gate.groups == [[0], [2]]
    assert not commits._has_leader


def test_who_is_torn_away_while_it_waits_leaves_the_lead_to_the_next(
    threads: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    class TornAway(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            super().wait(timeout)
            raise SystemExit

    gate = Gate()
    commits, crowd = make(gate, threads)
    start_and_wait(gate, crowd, [])
    with monkeypatch.context() as patch:
        patch.setattr(group_commit, "threading", SimpleNamespace(Event=TornAway))
        crowd.submit(1)
    crowd.submit(2)
    gate.let_go(2)
    assert isinstance(crowd.error(1), SystemExit)
    assert crowd.result(2) == 20
    assert not commits._has_leader


def test_a_leader_that_is_torn_away_while_it_gathers_leaves_the_way_free() -> None:
    def torn_away() -> None:
        raise SystemExit

    commits: GroupCommit[int, int] = GroupCommit(answer_all, lambda _: 1, 100, gather=torn_away)
    with pytest.raises(SystemExit):
        commits.submit(1)
    commits._gather = lambda: None
    assert commits.submit(2) == 20


def test_a_leader_that_is_torn_away_leaves_nobody_waiting(threads: ThreadPoolExecutor) -> None:
    def torn_away(items: Sequence[int]) -> Sequence[int | Exception]:
        if 2 in items:
            raise SystemExit
        return answer_all(items)

    gate = Gate(torn_away)
    commits: GroupCommit[int, int] = GroupCommit(gate, lambda _: 1, 10)
    crowd = Crowd(commits, threads)
    crowd.submit(1)
    gate.wait_for_group()
    crowd.submit(2)
    crowd.submit(3)
    gate.let_go(2)

    assert crowd.result(1) == 10
    assert isinstance(crowd.error(2), SystemExit)
    assert isinstance(crowd.error(3), LeaderLost)
