"""A failing schedule is made shorter, and what is left fails in the same way."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.simulation.__main__ import EXIT_FOUND, EXIT_NOTHING_FOUND, main
from tests.simulation.broken import does_not_sync, votes_blindly
from tests.simulation.profile import draw
from tests.simulation.report import Schedule
from tests.simulation.search import run_seed, search
from tests.simulation.shrink import FEATURES, Shrunk, report, shrink, smallest

FINDING_SEEDS_MAX = 60
RUNS_MAX = 25


@pytest.fixture(autouse=True)
def _silence() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


# --- the search for a smallest part ---

CULPRITS = st.lists(
    st.sets(st.integers(0, 99), min_size=1, max_size=4), min_size=1, max_size=3
).map(lambda sets: [frozenset(each) for each in sets])
"""What fails alone: any of these sets."""


@given(CULPRITS)
def test_what_is_left_fails_and_needs_each_of_its_items(culprits: list[frozenset[int]]) -> None:
    def fails(items: list[int]) -> bool:
        return any(culprit <= set(items) for culprit in culprits)

    left = smallest(range(100), fails)
    assert left == sorted(left)
    assert frozenset(left) in culprits
    assert not any(fails([other for other in left if other != item]) for item in left)


@given(st.sets(st.integers(0, 127), min_size=1, max_size=3))
def test_few_culprits_among_many_are_found_in_few_tries(culprits: set[int]) -> None:
    tried: list[list[int]] = []

    def fails(items: list[int]) -> bool:
        tried.append(items)
        return culprits <= set(items)

    assert smallest(range(128), fails) == sorted(culprits)
    # Two for each culprit and each of the seven halvings, and a last look at each one alone.
    assert len(tried) <= 1 + 2 * 7 * len(culprits) + 3 * len(culprits) + 7


def test_items_that_others_made_necessary_go_with_them() -> None:
    assert smallest([1, 5, 9], lambda items: 5 in items and (1 in items or 9 not in items)) == [5]


def test_nothing_is_left_if_nothing_is_needed() -> None:
    assert smallest([1, 2, 3], lambda items: True) == []
    assert smallest([], lambda items: False) == []


def test_everything_is_left_if_everything_is_needed() -> None:
    assert smallest([3, 1, 2], lambda items: False) == [3, 1, 2]


# --- schedules ---


def found(seed: int) -> Schedule:
    """Return a schedule in which the broken server is found."""
    failed = search(seed * 1_000, FINDING_SEEDS_MAX).failed
    assert failed is not None
    return Schedule(seed=failed.seed)


def assert_fails_again(shrunk: Shrunk) -> None:
    """Assert that the schedule is all that it takes to see the failure again."""
    schedule = shrunk.schedule
    again = run_seed(schedule.seed, kept=schedule.kept, dropped=schedule.dropped)
    assert again == shrunk.outcome
    assert again.property


def test_a_failure_that_needs_one_step_is_shrunk_to_one_step(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    does_not_sync(monkeypatch)
    schedule = found(seed)
    shrunk = shrink(schedule)
    assert shrunk is not None
    assert shrunk.is_minimal
    assert len(shrunk.steps) <= 3
    assert len(shrunk.steps) < len(draw(schedule.seed).steps)
    assert_fails_again(shrunk)
    # Whatever else is left out now, the failure is gone.
    for step in shrunk.steps:
        kept = [other.number for other in shrunk.steps if other != step]
        less = run_seed(schedule.seed, kept=kept, dropped=shrunk.schedule.dropped)
        assert less.property != shrunk.outcome.property
    text = report(shrunk)
    for step in shrunk.steps:
        assert f"{step.kind}" in text
    assert shrunk.schedule.command("replay") in text


def test_a_failure_that_needs_several_steps_keeps_its_property(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    votes_blindly(monkeypatch)
    schedule = found(seed)
    progress: list[str] = []
    runs = itertools.count()
    # A clock that counts: so many runs are tried, however fast the machine is.
    shrunk = shrink(
        schedule, budget_seconds=RUNS_MAX, say=progress.append, clock=lambda: next(runs)
    )
    assert shrunk is not None
    assert shrunk.runs <= RUNS_MAX + 5
    assert shrunk.outcome.property == run_seed(schedule.seed).property
    assert shrunk.outcome.property in ("Leader Completeness", "Election Safety")
    assert len(shrunk.steps) < len(draw(schedule.seed).steps)
    assert len(progress) > 2
    assert_fails_again(shrunk)


def test_shrinking_goes_on_where_it_ended(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    does_not_sync(monkeypatch)
    first = shrink(found(seed))
    assert first is not None
    second = shrink(first.schedule)
    assert second is not None
    assert second.schedule == first.schedule


def test_a_budget_that_is_used_up_leaves_the_best_so_far(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    does_not_sync(monkeypatch)
    schedule = found(seed)
    shrunk = shrink(schedule, budget_seconds=0)
    assert shrunk is not None
    assert not shrunk.is_minimal
    assert shrunk.runs <= 2
    assert shrunk.schedule.dropped == ()
    assert_fails_again(shrunk)
    assert "the budget was used up" in report(shrunk)


def test_a_seed_that_does_not_fail_is_not_shrunk(seed: int) -> None:
    assert shrink(Schedule(seed=seed)) is None


# --- the command ---


def test_the_command_prints_what_is_left_and_how_to_run_it(
    seed: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    does_not_sync(monkeypatch)
    number = found(seed).seed
    assert main(["shrink", str(number), "--budget", "60s"]) == EXIT_FOUND
    printed = capsys.readouterr()
    (command,) = (line for line in printed.out.splitlines() if line.startswith("again:"))
    words = command.split()[1:]
    assert words[:5] == ["python", "-m", "tests.simulation", "replay", str(number)]
    assert "runs: " in printed.err
    # And the command shows the failure.
    assert main(words[3:]) == EXIT_FOUND
    assert "FAILS: " in capsys.readouterr().out


def test_the_command_says_if_there_is_nothing_to_shrink(
    seed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["shrink", str(seed), "--without", ",".join(FEATURES)]) == EXIT_NOTHING_FOUND
    assert "nothing to shrink" in capsys.readouterr().out


def test_commands_name_what_is_kept_and_what_is_dropped() -> None:
    assert Schedule(seed=7).command("replay") == "python -m tests.simulation replay 7"
    some = Schedule(seed=7, kept=(3, 12), dropped=("loss", "m4"))
    assert some.command("replay").endswith("replay 7 --keep 3,12 --without loss,m4")
    assert Schedule(seed=7, kept=()).command("shrink").endswith("shrink 7 --keep none")
