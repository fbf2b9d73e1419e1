"""Schedules follow from their seeds alone, and leave nothing out."""

from __future__ import annotations

import itertools
import subprocess
import sys

import pytest

from tests.chaos.schedule import (
    CHANGE_KINDS,
    CHOICE_MAX,
    NETWORK_KINDS,
    PHASE,
    PHASES,
    PROCESS_KINDS,
    REACHES,
    SYMMETRIC_KINDS,
    make_schedule,
)


def test_the_same_seed_gives_the_same_actions_at_the_same_times() -> None:
    first = make_schedule(7, seconds=60)
    assert first == make_schedule(7, seconds=60)
    assert [str(action) for action in first] == [
        str(action) for action in make_schedule(7, seconds=60)
    ]


def test_another_process_makes_the_same_schedule() -> None:
    # Hashes of strings differ from process to process; nothing may depend on them.
    command = [sys.executable, "-m", "tests.chaos", "--seed", "7", "--seconds", "60", "--plan"]
    printed = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    assert printed.stdout.splitlines() == [str(action) for action in make_schedule(7, seconds=60)]


def test_another_seed_gives_another_schedule() -> None:
    assert make_schedule(7, seconds=60) != make_schedule(8, seconds=60)


def test_a_longer_schedule_begins_with_the_shorter_one() -> None:
    short = make_schedule(7, seconds=20)
    assert make_schedule(7, seconds=60)[: len(short)] == short


def test_actions_are_sorted_and_within_their_bounds() -> None:
    for seed in range(50):
        actions = make_schedule(seed, seconds=30)
        times_ms = [action.at_ms for action in actions]
        assert times_ms == sorted(times_ms)
        assert all(0 <= at_ms < 30_000 for at_ms in times_ms)
        assert all(0 <= action.choice < CHOICE_MAX for action in actions)
        assert all(
            (action.phase in PHASES and action.reach in REACHES) == (action.kind == PHASE)
            for action in actions
        )


def test_one_network_fault_is_over_before_the_next_one_begins() -> None:
    for seed in range(50):
        faults = [
            action for action in make_schedule(seed, seconds=60) if action.kind in NETWORK_KINDS
        ]
        for earlier, later in itertools.pairwise(faults):
            assert earlier.at_ms + earlier.for_ms < later.at_ms


def test_a_few_minutes_contain_every_kind_of_fault_change_and_phase() -> None:
    actions = make_schedule(1, seconds=240)
    assert {action.kind for action in actions} == {*PROCESS_KINDS, *NETWORK_KINDS, *CHANGE_KINDS}
    assert {action.phase for action in actions} - {""} == set(PHASES)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_network_without_directions_gets_no_one_way_faults(seed: int) -> None:
    kinds = {action.kind for action in make_schedule(seed, seconds=240, one_way=False)}
    assert kinds & set(NETWORK_KINDS) == set(SYMMETRIC_KINDS)
