"""Waiting for a server that works: how long between two looks."""

from __future__ import annotations

import itertools

import pytest

from raftctl.streaming import PAUSE_MS_MIN, Pauses


def test_pauses_are_short_at_first_and_grow_to_the_longest() -> None:
    pauses = Pauses(200.0)
    taken = [pauses.next_ms() for _ in range(20)]
    assert taken[0] == PAUSE_MS_MIN
    assert taken == sorted(taken)
    assert taken[-1] == 200.0


def test_a_pause_is_at_most_half_of_what_was_waited_for_already() -> None:
    pauses = Pauses(1_000_000.0)
    taken = [pauses.next_ms() for _ in range(30)]
    for waited_ms, pause_ms in zip(itertools.accumulate(taken), taken[1:], strict=False):
        assert pause_ms <= waited_ms / 2 + PAUSE_MS_MIN


@pytest.mark.parametrize("longest_ms", [0.0, 1.0])
def test_no_pause_is_longer_than_the_longest(longest_ms: float) -> None:
    pauses = Pauses(longest_ms)
    assert [pauses.next_ms() for _ in range(3)] == [longest_ms] * 3
