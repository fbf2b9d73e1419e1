"""Many elections, one after the other killed leader: how they go, not only that they end.

Every number here comes from the seed. How long things take is counted in election timeouts of the
simulated servers; `python -m tests.simulation.elections` prints the distributions.
"""

from __future__ import annotations

import pytest

from tests.simulation.elections import LATE, Setting, succession

SIZES = (3, 5, 7)
RUNS = 25
RUNS_OF_SOAK = 1_000
TIMEOUTS_MAX = 2.0
"""Every time-out is drawn from [T, 2T), so the first server notices within two."""
ROUND = 0.5
"""From then on: trips, syncs, and the pauses that end a split vote. Far from a time-out."""
SPLITS_MAX = 1
"""Terms without a leader in a row because the vote was split. A series would be more than one."""


def look(setting: Setting, runs: int, round_max: float) -> None:
    """Fail if votes are split again and again, or if a time-out is lost."""
    unit = setting.election_ticks
    for seed in range(runs):
        outcome = succession(setting, seed)
        told = f"seed {seed} of {setting}: {outcome}"
        assert outcome.split <= SPLITS_MAX, told
        assert outcome.terms <= SPLITS_MAX + 1, told
        assert outcome.deposed == 0, told
        assert not outcome.winner_lagged, told
        assert outcome.first_timeout_ticks <= TIMEOUTS_MAX * unit, told
        assert outcome.ticks - outcome.first_timeout_ticks <= round_max * unit, told


@pytest.mark.parametrize("voters", SIZES)
def test_one_election_is_enough_or_two(voters: int) -> None:
    look(Setting(voters=voters, election_ticks=10), RUNS, ROUND)


@pytest.mark.parametrize("voters", SIZES)
def test_slow_links_and_disks_make_no_series_of_split_votes(voters: int) -> None:
    """A trip takes up to half a heartbeat, and so does a sync: many servers ask at once."""
    look(Setting(voters=voters, **LATE), RUNS, 2 * ROUND)  # type: ignore[arg-type]


@pytest.mark.parametrize("voters", SIZES)
def test_a_caught_up_server_wins_although_one_that_lags_times_out_first(voters: int) -> None:
    look(Setting(voters=voters, lagging=1), RUNS, ROUND)


@pytest.mark.parametrize("voters", SIZES)
def test_the_only_complete_log_is_elected_within_two_timeouts(voters: int) -> None:
    """A majority is left, and all of it but one server lacks what was committed."""
    lagging = (voters - 1) // 2
    look(Setting(voters=voters, lagging=lagging, also_die=lagging - 1), RUNS, ROUND)


@pytest.mark.parametrize("voters", SIZES)
def test_logs_that_all_end_differently_lose_no_timeout(voters: int) -> None:
    look(Setting(voters=voters, uneven=True), RUNS, ROUND)


@pytest.mark.soak
@pytest.mark.timeout(1_800)
@pytest.mark.parametrize("voters", SIZES)
@pytest.mark.parametrize(
    "special", [{}, {"election_ticks": 10}, LATE, {"lagging": 1}, {"uneven": True}]
)
def test_a_thousand_elections_have_no_series_of_split_votes(
    voters: int, special: dict[str, object]
) -> None:
    round_max = 2 * ROUND if special is LATE else ROUND
    look(Setting(voters=voters, **special), RUNS_OF_SOAK, round_max)  # type: ignore[arg-type]
