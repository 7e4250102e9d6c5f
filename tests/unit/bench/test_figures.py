"""Percentiles and ratios."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.figures import Spread, paired_ratio, percentile


@pytest.mark.parametrize(
    ("share", "expected"), [(0.01, 1), (0.07, 7), (0.5, 50), (0.9, 90), (0.99, 99), (1.0, 100)]
)
def test_a_percentile_is_the_value_at_its_rank(share: float, expected: int) -> None:
    assert percentile(range(100, 0, -1), share) == expected


def test_the_p99_of_few_values_is_the_largest() -> None:
    assert percentile([3.0, 1.0, 2.0], 0.99) == 3.0


@given(
    st.lists(st.floats(0, 1e6), min_size=1, max_size=200),
    st.floats(0.001, 1.0),
)
def test_a_percentile_is_the_smallest_value_that_enough_do_not_exceed(
    values: list[float], share: float
) -> None:
    found = percentile(values, share)

    assert found in values
    assert sum(value <= found for value in values) >= share * len(values) - 1e-6
    assert sum(value < found for value in values) < share * len(values)


@pytest.mark.parametrize(("values", "share"), [([], 0.5), ([1.0], 0.0), ([1.0], 1.1)])
def test_there_is_no_percentile_of_nothing_and_none_outside_its_bounds(
    values: list[float], share: float
) -> None:
    with pytest.raises(ValueError, match="no percentile"):
        percentile(values, share)


def test_a_ratio_compares_each_round_with_its_own_yardstick() -> None:
    # By the medians of each alone it would be 4.
    assert paired_ratio([300, 40, 200], [100, 20, 50]) == Spread(3, 2, 4)


def test_a_ratio_leaves_out_rounds_without_a_yardstick() -> None:
    assert paired_ratio([300, 150], [100]) == Spread(3, 3, 3)


@pytest.mark.parametrize(("values", "yardsticks"), [([], [1]), ([1], []), ([1, 2], [1, 0])])
def test_there_is_no_ratio_without_a_yardstick(
    values: list[float], yardsticks: list[float]
) -> None:
    with pytest.raises(ValueError, match="nothing to compare"):
        paired_ratio(values, yardsticks)
