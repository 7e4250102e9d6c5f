import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from api.turns import Turns

WAIT_SECONDS = 20.0


def test_accounts_that_nobody_is_at_work_on_are_had_at_once() -> None:
    turns = Turns()
    with turns.taken({1, 2}, WAIT_SECONDS), turns.taken({3}, WAIT_SECONDS):
        pass
    with turns.taken({1, 2, 3}, 0):
        assert turns._busy == {1, 2, 3}
    assert turns._busy == set()


def test_a_group_waits_for_another_that_shares_an_account() -> None:
    turns, order = Turns(), []
    inside, leave = threading.Event(), threading.Event()

    def first() -> None:
        with turns.taken({1, 2}, WAIT_SECONDS):
            inside.set()
            assert leave.wait(WAIT_SECONDS)
            order.append("first")

    def second() -> None:
        with turns.taken({2, 3}, WAIT_SECONDS):
            order.append("second")

    with ThreadPoolExecutor(2) as threads:
        one = threads.submit(first)
        assert inside.wait(WAIT_SECONDS)
        other = threads.submit(second)
        leave.set()
        one.result(WAIT_SECONDS)
        other.result(WAIT_SECONDS)
    assert order == ["first", "second"]


def test_who_waited_long_enough_goes_ahead_and_takes_nothing_from_others() -> None:
    turns = Turns()
    with turns.taken({1, 2}, 0):
        with turns.taken({2, 3}, 0.01):
            assert turns._busy == {1, 2, 3}
        assert turns._busy == {1, 2}
    assert turns._busy == set()


def test_a_turn_ends_whatever_happens_in_it() -> None:
    turns = Turns()
    with pytest.raises(RuntimeError), turns.taken({1}, 0):
        raise RuntimeError
    assert turns._busy == set()
