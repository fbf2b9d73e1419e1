"""Latencies in buckets: percentiles that are right to a 64th, in memory that does not grow."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftctl.latencies import (
    BUCKETS,
    LATENCY_NS_MAX,
    Latencies,
    bucket_of,
    bucket_start_ns,
)

PERCENTS = (0.0, 1.0, 50.0, 90.0, 99.0, 99.9, 100.0)
# Of all magnitudes alike: uniform numbers would nearly all be of hours.
latencies_ns = st.integers(0, 43).flatmap(lambda bits: st.integers(0, (1 << bits) - 1))
samples = st.lists(latencies_ns, max_size=300)


def counted(measured: Sequence[int]) -> Latencies:
    found = Latencies()
    for latency_ns in measured:
        found.add(latency_ns)
    return found


@given(latencies_ns)
def test_a_latency_is_within_its_bucket_and_no_bucket_is_wider_than_a_64th_of_it(
    latency_ns: int,
) -> None:
    bucket = bucket_of(latency_ns)
    start_ns, end_ns = bucket_start_ns(bucket), bucket_start_ns(bucket + 1)
    assert 0 <= bucket < BUCKETS
    assert start_ns <= latency_ns < end_ns
    assert end_ns - start_ns <= max(1, latency_ns / 64)


def test_the_buckets_follow_each_other_without_a_gap() -> None:
    starts = [bucket_start_ns(bucket) for bucket in range(BUCKETS + 1)]
    assert starts[0] == 0
    assert all(before < after for before, after in itertools.pairwise(starts))
    assert [bucket_of(start) for start in starts[:-1]] == list(range(BUCKETS))
    assert starts[-1] == LATENCY_NS_MAX + 1


@given(samples.filter(bool), st.sampled_from(PERCENTS))
def test_a_percentile_is_at_least_the_exact_one_and_at_most_a_64th_more(
    measured: list[int], percent: float
) -> None:
    rank = max(1, math.ceil(percent / 100 * len(measured)))
    exact_ns = sorted(measured)[rank - 1]
    found_ns = counted(measured).percentile_ns(percent)
    assert exact_ns <= found_ns <= exact_ns * (1 + 1 / 64)
    assert found_ns <= max(measured)


@given(samples, samples)
def test_what_came_since_is_what_was_added_since(before: list[int], after: list[int]) -> None:
    growing = counted(before)
    earlier = growing.copy()
    for latency_ns in after:
        growing.add(latency_ns)
    since = growing.since(earlier)
    wanted = counted(after)
    assert since.buckets() == wanted.buckets()
    assert since.count == len(after)
    assert wanted.max_ns <= since.max_ns <= wanted.max_ns * (1 + 1 / 64)
    # The copy has not moved.
    assert earlier.buckets() == counted(before).buckets()


@given(samples, samples, samples)
def test_a_sum_has_counted_all(one: list[int], two: list[int], three: list[int]) -> None:
    total = counted(one).plus([counted(two), counted(three)])
    wanted = counted(one + two + three)
    assert total.buckets() == wanted.buckets()
    assert (total.count, total.max_ns) == (wanted.count, wanted.max_ns)


def test_what_takes_for_ever_is_counted_as_the_longest_and_remembered_as_it_was() -> None:
    found = counted([LATENCY_NS_MAX * 10, 5])
    assert found.count == 2
    assert found.max_ns == LATENCY_NS_MAX * 10
    assert found.buckets()[-1].end_ns == LATENCY_NS_MAX + 1


@pytest.mark.parametrize("percent", PERCENTS)
def test_without_any_there_is_no_percentile(percent: float) -> None:
    assert Latencies().percentile_ns(percent) == 0
    assert Latencies().buckets() == []
