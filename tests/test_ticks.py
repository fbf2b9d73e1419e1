"""Ticks that pass while a driver sleeps, works, or stands still."""

from __future__ import annotations

import pytest

from raftd.ticks import LATE_TICKS, SPARED_TICKS, Ticks

TICK = 0.025
QUIET = 19
"""Ticks of a follower's wait for its leader, but one."""


@pytest.fixture
def ticks() -> Ticks:
    return Ticks(TICK, 100.0)


def test_a_driver_sleeps_through_the_quiet_ticks(ticks: Ticks) -> None:
    assert ticks.not_before == ticks.due_at(0) == pytest.approx(100.0 + TICK)
    due_at = ticks.due_at(QUIET)
    assert due_at == pytest.approx(100.0 + (QUIET + 1) * TICK)
    assert ticks.passed(due_at + 0.001, QUIET) == QUIET
    ticks.ticked(due_at + 0.001)
    assert ticks.not_before == pytest.approx(due_at + TICK)


def test_what_passed_before_an_input_counts_in_whole_ticks(ticks: Ticks) -> None:
    assert ticks.passed(100.0 + 2.5 * TICK, QUIET) == 2
    # The half one is not lost.
    assert ticks.passed(100.0 + 3.1 * TICK, QUIET) == 1
    assert ticks.passed(100.0 + 3.2 * TICK, QUIET) == 0


def test_of_a_standstill_enough_is_left_to_hear_the_leader(ticks: Ticks) -> None:
    now = ticks.due_at(QUIET) + (LATE_TICKS + 0.1) * TICK
    assert ticks.passed(now, QUIET) == QUIET - SPARED_TICKS
    ticks.ticked(now)
    # Two are due at once, and then they come at their pace.
    assert ticks.due_at(0) == pytest.approx(now)
    ticks.ticked(now)
    assert ticks.due_at(0) == pytest.approx(now + TICK)


def test_a_little_late_is_no_standstill(ticks: Ticks) -> None:
    now = ticks.due_at(QUIET) + (LATE_TICKS - 0.1) * TICK
    assert ticks.passed(now, QUIET) == QUIET


def test_after_a_long_standstill_ticks_do_not_come_in_a_row(ticks: Ticks) -> None:
    now = 200.0
    assert ticks.passed(now, 1) == 0
    ticks.ticked(now)
    assert ticks.due_at(0) == pytest.approx(now)
    ticks.ticked(now)
    assert ticks.due_at(0) == pytest.approx(now + TICK)


def test_the_time_of_a_turn_does_not_count(ticks: Ticks) -> None:
    """A sync of half a second is no silence of the leader."""
    ticks.worked(100.0 + 20 * TICK)
    assert ticks.passed(100.0 + 20 * TICK, QUIET) == 1
    ticks.worked(100.0 + 20.5 * TICK)
    assert ticks.passed(100.0 + 20.5 * TICK, QUIET) == 0
