"""Percentiles, ratios by rounds, and verdicts about targets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.benchmarks.comparisons.medians import best_of, percentile, ratio_of
from tests.benchmarks.comparisons.targets import Target, Verdict, target_table


@pytest.mark.parametrize(
    ("share", "expected"), [(0.0, 1), (0.5, 5), (0.51, 6), (0.9, 9), (0.99, 10), (1.0, 10)]
)
def test_percentile_is_a_value_that_so_many_do_not_exceed(share: float, expected: float) -> None:
    assert percentile(range(1, 11), share) == expected


def test_percentile_of_nothing_is_marked() -> None:
    assert percentile([], 0.5) == -1


@given(st.lists(st.integers(0, 50), min_size=1), st.sampled_from([0.25, 0.5, 0.75, 1.0]))
def test_percentile_covers_its_share_and_no_smaller_value_does(
    values: list[int], share: float
) -> None:
    found = percentile(sorted(values), share)
    assert sum(value <= found for value in values) >= share * len(values)
    assert sum(value < found for value in values) < share * len(values)


def test_ratio_is_the_median_of_the_ratios_of_equal_rounds() -> None:
    # The second round was slow for both; the medians by themselves would give 200 / 100.
    ratio = ratio_of({1: 200.0, 2: 30.0, 3: 500.0}, {1: 100.0, 2: 10.0, 3: 100.0})
    assert ratio is not None
    assert (ratio.median, ratio.lowest, ratio.highest, ratio.rounds) == (3.0, 2.0, 5.0, 3)
    assert ratio.text() == "3.00 [2.00-5.00]"


def test_ratio_leaves_out_rounds_that_one_of_both_lacks_or_has_nothing_in() -> None:
    ratio = ratio_of({1: 200.0, 2: 30.0, 4: 8.0}, {1: 100.0, 3: 1.0, 4: 0.0})
    assert ratio is not None
    assert ratio.rounds == 1
    assert ratio.text() == "2.00"
    assert ratio_of({1: 200.0}, {2: 1.0}) is None


def test_best_of_takes_the_highest_of_each_round() -> None:
    assert best_of([{1: 5.0, 2: 7.0}, {1: 6.0, 3: 1.0}]) == {1: 6.0, 2: 7.0, 3: 1.0}


@pytest.mark.parametrize(
    ("measured", "expected"),
    [
        (None, Verdict.UNKNOWN),
        (1.29, Verdict.MISSED),
        (1.3, Verdict.REACHED),
        (1.99, Verdict.REACHED),
        (2.0, Verdict.AIM),
    ],
)
def test_target_is_reached_from_its_bounds_on(measured: float | None, expected: Verdict) -> None:
    assert Target(what="put", required=1.3, aim=2.0).verdict(measured) is expected


@pytest.mark.parametrize(
    ("measured", "expected"),
    [(0.61, Verdict.MISSED), (0.6, Verdict.REACHED), (0.3, Verdict.AIM), (0.0, Verdict.AIM)],
)
def test_target_that_is_a_limit_is_reached_below_it(measured: float, expected: Verdict) -> None:
    target = Target(what="p99", required=0.6, aim=0.3, lower_is_better=True)
    assert target.verdict(measured) is expected


def test_target_without_an_aim_is_reached_or_missed() -> None:
    target = Target(what="worst", required=1.5, lower_is_better=True)
    assert target.verdict(0.1) is Verdict.REACHED
    assert target.verdict(1.6) is Verdict.MISSED


def test_table_of_targets_says_what_was_wanted_and_what_was_measured() -> None:
    rows = [
        (Target(what="put", required=1.3, aim=2.0), 1.456),
        (Target(what="p99", required=0.6, lower_is_better=True), None),
    ]
    table = target_table("targets", "Targets", rows)
    assert table.rows == [
        ["put", "1.3", "2", "1.46", "x", "reached"],
        ["p99", "<= 0.6", None, None, "x", "not measured"],
    ]
