"""Thresholds and the exit status."""

import pytest

from bench.done_when import THRESHOLDS, Threshold, exit_status, judge
from bench.results import Figure, Results, Row

FLOOR = Threshold("floor", "ours", "theirs", 3, ">= 3 x theirs")
CEILING = Threshold("ceiling", "ours", "theirs", 2, "<= 2 x theirs", is_ceiling=True)


def results_of(**values: list[float]) -> Results:
    results = Results()
    for name, all_ in values.items():
        for value in all_:
            results.add(Row(name, name, "1/s"), Figure(value))
    return results


@pytest.mark.parametrize(("ours", "word"), [(300, "ok"), (299, "missed"), (301, "ok")])
def test_a_floor_holds_from_its_bound_on(ours: float, word: str) -> None:
    (verdict,) = judge(results_of(ours=[ours], theirs=[100]), [FLOOR])

    assert verdict.word == word


@pytest.mark.parametrize(("ours", "word"), [(200, "ok"), (201, "missed"), (0, "ok")])
def test_a_ceiling_holds_up_to_its_bound(ours: float, word: str) -> None:
    (verdict,) = judge(results_of(ours=[ours], theirs=[100]), [CEILING])

    assert verdict.word == word


def test_the_median_round_decides() -> None:
    results = results_of(ours=[310, 100, 305], theirs=[100, 100, 100])

    (verdict,) = judge(results, [FLOOR])

    assert verdict.word == "ok"
    assert verdict.ratio is not None
    assert (verdict.ratio.least, verdict.ratio.most) == (1, 3.1)


def test_what_was_not_measured_is_neither_held_nor_missed() -> None:
    (verdict,) = judge(results_of(ours=[300]), [FLOOR])

    assert verdict.word == "not measured"
    assert exit_status([verdict], check=True) == 0


def test_a_missed_threshold_fails_a_check_and_nothing_else() -> None:
    missed = judge(results_of(ours=[299], theirs=[100]), [FLOOR])
    held = judge(results_of(ours=[300], theirs=[100]), [FLOOR])

    assert exit_status(missed, check=True) == 1
    assert exit_status(missed, check=False) == 0
    assert exit_status(held, check=True) == 0


def test_no_call_to_the_store_is_the_only_good_number_of_calls() -> None:
    (threshold,) = [one for one in THRESHOLDS if one.row == "get_final_calls"]

    none = judge(results_of(get_final_calls=[0], get_final_counted=[500]), [threshold])
    one = judge(results_of(get_final_calls=[1], get_final_counted=[500]), [threshold])

    assert [none[0].word, one[0].word] == ["ok", "missed"]


def test_every_threshold_has_a_name_of_its_own() -> None:
    assert len({one.name for one in THRESHOLDS}) == len(THRESHOLDS)
