"""Leases under clocks that differ: as much as is said and nothing is found; by more, and it is.

The runs are drawn as all others, then made to be about leases: three voters, a leader that is left
alone again and again while its lease runs, quick restarts, and nothing else that goes wrong.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator

import attrs
import pytest

from raftd.core.lease import VotePromise
from raftd.reading import Reading
from tests.simulation import run
from tests.simulation.invariants.exclusive_leases import ExclusiveLeases
from tests.simulation.profile import (
    CLOCK_GRAIN,
    HITTING_LEASE,
    MILLISECOND,
    SECOND,
    Profile,
    Step,
    draw,
)
from tests.simulation.search import Found, search
from tests.simulation.stage import A, B, Stage, noticed

HITS = 4
FINDING_SEEDS_MAX = 30
"""Usually a tenth is enough, or a third where a client has to see it."""

About = Callable[[float, float], None]


@pytest.fixture(autouse=True)
def _silence() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture
def about_leases(monkeypatch: pytest.MonkeyPatch) -> About:
    """Make all runs from here on about leases: `about_leases(clock_spread, clock_drift)`."""

    def about(clock_spread: float, clock_drift: float) -> None:
        def drawn(seed: int) -> Profile:
            return attrs.evolve(
                draw(seed),
                voters=3,
                spares=1,
                clients=3,
                client_pause_us=20 * MILLISECOND,
                limits=(),
                malice=0.0,
                tactic="",
                release="new",
                old_chance=0.0,
                begins_bad=False,
                delay_us=(100, 3 * MILLISECOND),
                sync_us=(200, MILLISECOND),
                heartbeat_ticks=1,
                election_ticks=8,
                snapshot_log_bytes=10_000_000,
                loses_new_half=False,
                duration_us=7 * SECOND,
                steps=tuple(
                    Step(number=number, at_us=number * 1_500 * MILLISECOND, kind=HITTING_LEASE)
                    for number in range(1, HITS + 1)
                ),
                here_chance=0.3,
                lease_chance=1.0,
                clock_spread=clock_spread,
                clock_drift=clock_drift,
                reconfigures=False,
            )

        monkeypatch.setattr(run, "draw", drawn)

    return about


def first_seed(seed: int) -> int:
    return seed * 1_000


def found_in(seed: int, *ignored: str) -> Found:
    return search(first_seed(seed), FINDING_SEEDS_MAX, ignored=ignored)


# --- the property ---


def test_exclusive_leases_allows_an_election_after_a_lease_has_ended() -> None:
    stage = Stage(ExclusiveLeases)
    stage.elect(stage[A], 2).holds_lease = True
    stage.turn(stage[A])
    stage[A].holds_lease = False
    stage.elect(stage[B], 3).holds_lease = True
    # Whoever has ended holds nothing, and an older leader that comes to know does no harm.
    stage.restart(stage[B])
    stage.elect(stage[A], 4)


def test_exclusive_leases_notices_an_election_while_a_lease_is_held() -> None:
    stage = Stage(ExclusiveLeases)
    stage.elect(stage[A], 2).holds_lease = True
    with noticed("n2/2 was elected in term 3 while n1/1, the leader of term 2, holds a lease"):
        stage.elect(stage[B], 3)


# --- runs ---


@pytest.mark.parametrize("clock_spread", [0.0, pytest.param(0.1, marks=pytest.mark.soak), 0.5])
def test_clocks_that_differ_by_no_more_than_is_said_break_nothing(
    seed: int, about_leases: About, clock_spread: float
) -> None:
    about_leases(clock_spread, 2 * clock_spread / (1 + clock_spread) + CLOCK_GRAIN)
    counted: Counter[str] = Counter()
    for number in range(3):
        outcome = run.simulate(first_seed(seed) + number)
        assert not outcome.property, outcome.error
        counted.update(outcome.counted)
    assert counted["reads answered under a lease"] > 30
    assert counted["reads answered by a server that does not lead"] > 20
    assert counted["fault: lease hit"] > 5


def test_clocks_that_differ_by_more_than_is_said_are_found(seed: int, about_leases: About) -> None:
    about_leases(0.5, 0.0)
    found = found_in(seed)
    assert found.failed is not None
    assert found.failed.property == ExclusiveLeases.title


@pytest.mark.soak
def test_a_client_sees_that_clocks_differ_by_more_than_is_said(
    seed: int, about_leases: About
) -> None:
    """Without the property that states the rule: what breaking it comes to."""
    about_leases(0.5, 0.0)
    found = found_in(seed, ExclusiveLeases.title)
    assert found.failed is not None
    assert found.failed.property in ("Fresh reads", "Linearizability")


def test_votes_that_are_withheld_by_ticks_alone_are_found(
    seed: int, about_leases: About, monkeypatch: pytest.MonkeyPatch
) -> None:
    about_leases(0.0, CLOCK_GRAIN)
    monkeypatch.setattr(VotePromise, "binds", lambda promise, now_ns: False)
    found = found_in(seed)
    assert found.failed is not None
    assert found.failed.property == ExclusiveLeases.title


def test_votes_of_restarted_servers_are_found(
    seed: int, about_leases: About, monkeypatch: pytest.MonkeyPatch
) -> None:
    about_leases(0.0, CLOCK_GRAIN)
    monkeypatch.setattr(Reading, "started", lambda reading, raft, identities: None)
    found = found_in(seed)
    assert found.failed is not None
    assert found.failed.property == ExclusiveLeases.title
