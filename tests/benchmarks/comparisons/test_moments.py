"""Outages after a kill, and throughput during a replacement, from recorded moments."""

from __future__ import annotations

import attrs
import pytest

from tests.benchmarks.comparisons.fail_over import Success, outage_of
from tests.benchmarks.comparisons.generator import Latency, Report
from tests.benchmarks.comparisons.replacement import (
    Replaced,
    answers_per_second,
    foreground_of,
    lowest_per_second,
)

MILLISECOND = 1_000_000
SECOND = 1000 * MILLISECOND


def _successes(*moments_ms: tuple[int, int]) -> list[Success]:
    return [
        Success(address=0, start_ns=start * MILLISECOND, end_ns=end * MILLISECOND)
        for start, end in moments_ms
    ]


def test_outage_ends_with_a_write_that_was_started_after_the_kill() -> None:
    # The second one was under way at the kill, and its answer came late.
    successes = _successes((90, 95), (99, 400), (300, 450), (310, 440))
    outage = outage_of(successes, killed_ns=100 * MILLISECOND)
    assert outage is not None
    assert outage.write_ms == 340.0
    assert outage.gap_ms == 305.0


def test_gap_begins_with_the_last_answer_before_the_kill() -> None:
    outage = outage_of(_successes((80, 85), (200, 230), (500, 505)), killed_ns=100 * MILLISECOND)
    assert outage is not None
    # The longer one afterwards is none of the kill's.
    assert (outage.write_ms, outage.gap_ms) == (130.0, 145.0)


def test_no_outage_is_made_up_when_nobody_could_write_again() -> None:
    assert outage_of(_successes((80, 85), (99, 101)), killed_ns=100 * MILLISECOND) is None


def _report(*series: int) -> Report:
    """Return a report whose clients were answered so often in each 100 ms, from 10 s on."""
    return Report(
        driver="redis",
        operation="put",
        read_share=0.0,
        clients=16,
        pipeline=1,
        value_bytes=256,
        keys=1,
        seconds=len(series) / 10,
        operations=sum(series),
        per_second=10.0 * sum(series) / len(series),
        latency_us=Latency(p50=1, p90=1, p99=1, p999=1, max=1),
        errors={},
        error_texts={},
        servers=[],
        generator_cpu_percent=0.0,
        start_ns=10 * SECOND,
        series_start_ns=10 * SECOND,
        series_interval_ms=100.0,
        series=list(series),
    )


def test_throughput_counts_intervals_at_the_ends_in_part() -> None:
    report = _report(10, 20, 30, 40)
    start_ns, end_ns = 10_150 * MILLISECOND, 10_350 * MILLISECOND
    assert answers_per_second(report, start_ns, end_ns) == pytest.approx((10 + 30 + 20) / 0.2)
    assert answers_per_second(report, end_ns, end_ns) == 0.0


def test_lowest_throughput_is_that_of_the_worst_window() -> None:
    report = _report(10, 10, 0, 0, 10, 10, 10, 10, 10, 2)
    assert lowest_per_second(report, 10 * SECOND, 11 * SECOND, 200 * MILLISECOND) == 0.0
    later_ns = 10_500 * MILLISECOND
    assert lowest_per_second(report, later_ns, 11 * SECOND, 200 * MILLISECOND) == 60.0
    # Longer than the stretch: all of it.
    assert lowest_per_second(report, later_ns, 11 * SECOND, SECOND) == pytest.approx(84.0)


def test_foreground_is_compared_with_the_time_before_the_replacement() -> None:
    report = _report(*[20] * 10, *[10] * 5, *[5] * 5, *[20] * 5)
    replaced = Replaced(start_ns=11 * SECOND, end_ns=12 * SECOND, resident_mib=[])
    foreground = foreground_of(attrs.evolve(report, errors={"MOVED": 1}), replaced)
    assert foreground.before_per_second == pytest.approx(200.0)
    assert foreground.share == pytest.approx(0.375)
    assert foreground.lowest_share == pytest.approx(0.25)
    assert foreground.lowest_share_before == pytest.approx(1.0)
    assert foreground.errors == {"MOVED": 1}
