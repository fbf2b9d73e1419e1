"""Slow disks and standstill in the log: what is told, with which numbers, and how often."""

from __future__ import annotations

from functools import partial

import pytest

from raftd.event_log import LINES_MAX, PERIOD_SECONDS
from raftd.standstill import SLOW_SYNC_MS, STANDSTILL_ELECTION_TIMEOUTS, SlowSyncs, Standstill
from raftd.sync_times import SyncTimes
from raftd.ticks import Ticks

ELECTION_TIMEOUT_MS = 500.0


class Clock:
    """Seconds, and nanoseconds, that a test lets pass."""

    def __init__(self) -> None:
        self.now_ns = 1_000_000_000

    def seconds(self) -> float:
        return self.now_ns / 1_000_000_000

    def nanoseconds(self) -> int:
        return self.now_ns

    def pass_ms(self, duration_ms: float) -> None:
        self.now_ns += round(duration_ms * 1_000_000)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def sync_times(clock: Clock) -> SyncTimes:
    slow = SlowSyncs(clock.seconds)
    return SyncTimes(clock.nanoseconds, slow_ms=SLOW_SYNC_MS, was_slow=slow.took)


def test_a_slow_sync_is_told_with_its_time_and_a_quick_one_is_not(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    times = sync_times(clock)
    times.measure(lambda: clock.pass_ms(SLOW_SYNC_MS - 1))
    assert caplog.records == []
    times.measure(lambda: clock.pass_ms(412.0))
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "a sync of the log took 412 ms, more than 100 ms" in record.getMessage()
    assert record.__dict__["event"] == "slow-disk"
    assert record.__dict__["fields"]["sync_ms"] == 412.0


def test_a_disk_that_stays_slow_is_told_now_and_then_with_the_worst_of_the_rest(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    times = sync_times(clock)
    for took_ms in [150.0] * 11 + [900.0] + [150.0] * 8:
        times.measure(partial(clock.pass_ms, took_ms))
    assert len(caplog.records) == LINES_MAX
    clock.pass_ms(PERIOD_SECONDS * 1000)
    times.measure(lambda: clock.pass_ms(160.0))
    last = caplog.records[-1]
    left_out = 20 - LINES_MAX
    assert last.getMessage().endswith(f"; {left_out} more since the last line, 900 ms at most")
    assert last.__dict__["fields"]["left_out"] == left_out


def test_a_turn_that_is_long_says_how_much_of_it_was_the_disk(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    times = sync_times(clock)
    standstill = Standstill(clock.seconds, ELECTION_TIMEOUT_MS, times)
    assert standstill.bound_seconds == ELECTION_TIMEOUT_MS * STANDSTILL_ELECTION_TIMEOUTS / 1000
    times.measure(lambda: clock.pass_ms(90.0))
    standstill.tick()
    times.measure(lambda: clock.pass_ms(60.0))
    standstill.turn_took(0.412)
    (record,) = caplog.records
    message = record.getMessage()
    assert message == "stood still for 412 ms: busy with one thing, 60 ms of it the disk"
    assert record.__dict__["fields"]["stall_ms"] == 412


def test_a_turn_that_only_waited_for_the_disk_is_told_as_that(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    times = sync_times(clock)
    standstill = Standstill(clock.seconds, ELECTION_TIMEOUT_MS, times)
    standstill.tick()
    times.measure(lambda: clock.pass_ms(400.0))
    standstill.turn_took(0.410)
    assert [record.__dict__["event"] for record in caplog.records] == ["slow-disk"]


def test_a_late_wake_up_is_told_and_many_are_counted(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    standstill = Standstill(clock.seconds, ELECTION_TIMEOUT_MS, sync_times(clock))
    for _ in range(10):
        standstill.woke_late(3.2)
    assert len(caplog.records) == LINES_MAX
    assert (
        caplog.records[0]
        .getMessage()
        .startswith("stood still for 3,200 ms: the process was stopped")
    )
    clock.pass_ms(PERIOD_SECONDS * 1000)
    standstill.woke_late(12.0)
    count = 10 - LINES_MAX
    assert caplog.records[-1].getMessage().startswith("stood still for 12.0 s")
    assert caplog.records[-1].getMessage().endswith(f"({count} more like this were not logged)")


def test_a_driver_knows_by_how_much_it_overslept() -> None:
    ticks = Ticks(0.025, 100.0)
    ticks.passed(ticks.due_at(19) + 0.7, 19)
    assert ticks.late_seconds == pytest.approx(0.7)
    # An input that comes while it may still sleep is no delay.
    ticks.passed(100.1, 19)
    assert ticks.late_seconds < 0
