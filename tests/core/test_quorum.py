"""Majorities, simple and joint, against brute force.

Source: paper section 6, dissertation section 4.3.
"""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftd.core.quorum import VoteResult, committed_index, majority, vote_result

SERVERS = ("a/1", "a/2", "b/1", "c/1", "d/1", "e/1")
WON, LOST, PENDING = VoteResult.WON, VoteResult.LOST, VoteResult.PENDING

halves = st.frozensets(st.integers(0, 5), max_size=5)
indexes = st.dictionaries(st.integers(0, 7), st.integers(0, 6))
answers = st.dictionaries(st.integers(0, 7), st.booleans())


def _is_majority(some: int, half: frozenset[int]) -> bool:
    return 2 * some > len(half)


@given(halves, halves, indexes)
def test_committed_index_is_the_highest_that_a_majority_of_each_half_has(
    voters: frozenset[int], outgoing: frozenset[int], match_index: dict[int, int]
) -> None:
    both = [half for half in (voters, outgoing) if half]
    stored = [
        index
        for index in range(8)
        if all(
            _is_majority(sum(match_index.get(server, 0) >= index for server in half), half)
            for half in both
        )
    ]
    expected = max(stored) if both else None
    assert committed_index(voters, outgoing, match_index) == expected


def _decided(half: frozenset[int], votes: dict[int, bool]) -> bool:
    return _is_majority(sum(votes[server] for server in half), half) or not half


@given(halves, halves, answers)
def test_an_election_is_decided_when_no_completion_of_the_votes_can_change_it(
    voters: frozenset[int], outgoing: frozenset[int], votes: dict[int, bool]
) -> None:
    open_votes = sorted((voters | outgoing) - votes.keys())
    outcomes = set()
    for completion in product((True, False), repeat=len(open_votes)):
        complete = {**votes, **dict(zip(open_votes, completion, strict=True))}
        outcomes.add(_decided(voters, complete) and _decided(outgoing, complete))
    expected = PENDING if len(outcomes) == 2 else WON if outcomes == {True} else LOST
    assert vote_result(voters, outgoing, votes) is expected


@given(halves, halves, indexes)
def test_the_halves_are_symmetric(
    voters: frozenset[int], outgoing: frozenset[int], match_index: dict[int, int]
) -> None:
    assert committed_index(voters, outgoing, match_index) == committed_index(
        outgoing, voters, match_index
    )


@given(halves, halves, indexes)
def test_names_and_integers_give_the_same_result(
    voters: frozenset[int], outgoing: frozenset[int], match_index: dict[int, int]
) -> None:
    assert committed_index(voters, outgoing, match_index) == committed_index(
        {f"n{server}/x" for server in voters},
        {f"n{server}/x" for server in outgoing},
        {f"n{server}/x": index for server, index in match_index.items()},
    )


@given(halves, answers)
def test_an_empty_half_asks_for_nothing(half: frozenset[int], votes: dict[int, bool]) -> None:
    assert vote_result(half, (), votes) is vote_result((), half, votes)
    assert vote_result(half, half, votes) is vote_result(half, (), votes)


def test_without_voters_nothing_is_committed_and_nothing_has_to_be_won() -> None:
    assert committed_index((), (), {1: 5}) is None
    assert vote_result((), (), {}) is WON


@pytest.mark.parametrize(("count", "needed"), [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3), (6, 4)])
def test_a_majority_is_more_than_half(count: int, needed: int) -> None:
    assert majority(count) == needed


def test_a_server_that_is_missing_counts_as_zero() -> None:
    assert committed_index({1, 2, 3}, (), {1: 9}) == 0
    assert committed_index({1, 2, 3}, (), {}) == 0


def test_servers_of_neither_half_count_nothing() -> None:
    assert committed_index({1, 2, 3}, (), {1: 9, 7: 9, 8: 9, 9: 9}) == 0
    assert vote_result({1, 2, 3}, (), {1: True, 7: True, 8: True}) is PENDING
    assert vote_result({1, 2, 3}, (), {1: True, 7: False, 8: False, 9: False}) is PENDING


def test_even_sizes_need_more_than_half() -> None:
    assert committed_index({1, 2, 3, 4}, (), {1: 5, 2: 5}) == 0
    assert vote_result({1, 2, 3, 4}, (), {1: True, 2: True}) is PENDING
    assert vote_result({1, 2, 3, 4}, (), {1: False, 2: False}) is LOST


def test_both_halves_are_needed_also_when_one_server_differs() -> None:
    assert committed_index({2, 3, 4}, {1, 2, 3}, {1: 7, 2: 7}) == 0
    assert committed_index({2, 3, 4}, {1, 2, 3}, {1: 7, 2: 7, 4: 6}) == 6


def test_one_lost_half_loses_the_election_and_one_won_half_does_not_win_it() -> None:
    votes = {1: True, 2: True, 3: True, 4: False, 5: False}
    assert vote_result({4, 5, 6}, {1, 2, 3}, votes) is LOST
    assert vote_result({4, 5, 6}, {1, 2, 3}, {1: True, 2: True}) is PENDING
    assert vote_result({4, 5, 6}, {1, 2, 3}, {1: True, 2: True, 4: True, 5: True}) is WON


def test_two_incarnations_of_a_name_are_two_servers() -> None:
    """With bare names both halves would be equal, and the empty disk would count for the old."""
    votes = {"n1/a": True, "n2/new": True}
    assert vote_result({"n1/a", "n2/new"}, {"n1/a", "n2/old"}, votes) is PENDING
    assert committed_index({"n1/a", "n2/new"}, {"n1/a", "n2/old"}, dict.fromkeys(votes, 4)) == 0


@given(st.frozensets(st.sampled_from(SERVERS), min_size=1), st.data())
def test_two_quorums_of_one_configuration_share_a_server(
    voters: frozenset[str], data: st.DataObject
) -> None:
    """The whole of Raft's safety stands on this (dissertation section 3.6.3)."""
    one = data.draw(st.frozensets(st.sampled_from(SERVERS)))
    other = data.draw(st.frozensets(st.sampled_from(SERVERS)))
    if (
        vote_result(voters, (), dict.fromkeys(one, True)) is WON
        and vote_result(voters, (), dict.fromkeys(other, True)) is WON
    ):
        assert one & other & voters
