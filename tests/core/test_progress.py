"""The leader's view of one other server. Source: paper section 5.3, dissertation 4.2.1."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from raftd.core.progress import (
    INFLIGHT_APPENDS_MAX,
    INFLIGHT_BYTES_MAX,
    Progress,
    ReplicationState,
)

PROBE, REPLICATE = ReplicationState.PROBE, ReplicationState.REPLICATE
ELECTION_TICKS = 10


def _progress(next_index: int = 10, round_target: int = 10) -> Progress:
    return Progress(
        next_index=next_index, since_tick=0, round_target=round_target, round_start_tick=0
    )


def test_one_request_at_a_time_while_probing() -> None:
    progress = _progress()
    progress.sent(12, 30)
    assert progress.probe_outstanding
    assert progress.next_index == 10


def test_the_first_success_starts_the_pipeline() -> None:
    progress = _progress()
    progress.sent(12, 30)
    progress.acknowledged(12)
    assert progress.state is REPLICATE
    assert (progress.match_index, progress.next_index) == (12, 13)
    progress.sent(15, 30)
    assert progress.next_index == 16


def test_an_old_acknowledgement_moves_nothing_back() -> None:
    """Figure 2: matchIndex increases monotonically."""
    progress = _progress()
    progress.acknowledged(12)
    progress.acknowledged(7)
    assert (progress.match_index, progress.next_index) == (12, 13)


def test_probing_never_starts_below_what_is_known_to_match() -> None:
    """Paper 5.3: next_index stays above match_index, whatever a late refusal says."""
    progress = _progress()
    progress.acknowledged(12)
    progress.probe_from(3)
    assert progress.state is PROBE
    assert progress.next_index == 13


def test_the_window_is_bounded_in_requests() -> None:
    progress = _progress()
    progress.acknowledged(9)
    for number in range(INFLIGHT_APPENDS_MAX):
        assert not progress.window_is_full
        progress.sent(10 + number, 1)
    assert progress.window_is_full
    progress.acknowledged(10)
    assert not progress.window_is_full


def test_the_window_is_bounded_in_bytes_and_acknowledgements_free_them() -> None:
    progress = _progress()
    progress.acknowledged(9)
    progress.sent(10, INFLIGHT_BYTES_MAX - 1)
    assert not progress.window_is_full
    progress.sent(11, 1)
    assert progress.window_is_full
    progress.acknowledged(11)
    assert not progress.window_is_full
    assert progress.inflight_bytes == 0


def test_a_refusal_empties_the_window() -> None:
    progress = _progress()
    progress.acknowledged(9)
    for number in range(INFLIGHT_APPENDS_MAX):
        progress.sent(10 + number, 7)
    progress.probe_from(11)
    assert not progress.window_is_full
    assert progress.inflight_bytes == 0


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("sent"), st.integers(0, 5)),
            st.tuples(st.just("acknowledged"), st.integers(0, 40)),
            st.tuples(st.just("probe"), st.integers(0, 40)),
        )
    )
)
def test_match_stays_below_next_and_bytes_are_never_lost(inputs: list[tuple[str, int]]) -> None:
    progress = _progress()
    highest = 10
    for kind, number in inputs:
        if kind == "sent":
            highest = max(highest, progress.next_index + number)
            progress.sent(progress.next_index + number, number)
        elif kind == "acknowledged":
            progress.acknowledged(min(number, highest))
        else:
            progress.probe_from(max(number, 1))
        assert progress.match_index < progress.next_index
        assert progress.inflight_bytes == sum(size for _, size in progress.inflight)


# --- catch-up rounds, dissertation 4.2.1 ---


def test_a_round_ends_when_all_that_was_there_at_its_start_is_replicated() -> None:
    progress = _progress(round_target=100)
    progress.acknowledged(99)
    progress.advance_round(5, 200, ELECTION_TICKS)
    assert progress.rounds == 0
    progress.acknowledged(100)
    progress.advance_round(6, 200, ELECTION_TICKS)
    assert progress.rounds == 1
    assert (progress.round_target, progress.round_start_tick) == (200, 6)


def test_a_round_is_short_when_it_took_less_than_an_election_timeout() -> None:
    progress = _progress(round_target=10)
    progress.acknowledged(10)
    progress.advance_round(ELECTION_TICKS, 20, ELECTION_TICKS)
    assert not progress.round_was_short
    progress.acknowledged(20)
    progress.advance_round(2 * ELECTION_TICKS - 1, 30, ELECTION_TICKS)
    assert progress.round_was_short


def test_a_slow_round_after_a_short_one_counts() -> None:
    progress = _progress(round_target=10)
    progress.acknowledged(10)
    progress.advance_round(1, 20, ELECTION_TICKS)
    assert progress.round_was_short
    progress.acknowledged(20)
    progress.advance_round(1 + ELECTION_TICKS, 30, ELECTION_TICKS)
    assert not progress.round_was_short


# --- contact ---


def test_a_server_that_never_answered_is_not_in_contact() -> None:
    progress = _progress()
    assert progress.contact_age(3) is None
    assert not progress.in_contact(0, 1000)


def test_contact_ages() -> None:
    progress = _progress()
    progress.last_contact_tick = 5
    assert progress.contact_age(7) == 2
    assert progress.in_contact(7, 2)
    assert not progress.in_contact(8, 2)


def test_a_fenced_server_is_not_in_contact() -> None:
    progress = _progress()
    progress.last_contact_tick = 5
    progress.fenced = True
    assert not progress.in_contact(5, 2)
