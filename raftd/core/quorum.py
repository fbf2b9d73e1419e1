"""Majorities, simple and joint. The only place that knows how votes and acknowledgements add up.

Every decision of the protocol that needs a quorum (elections, pre-votes, commit, read confirmation,
check-quorum) is one of the two functions below, so joint consensus is never forgotten in one of
them. A joint configuration needs a majority of `voters` (C_new) *and* a majority of `outgoing`
(C_old); an empty half asks for nothing.

Source: paper section 6, dissertation section 4.3.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping
from enum import Enum
from typing import TypeVar

S = TypeVar("S", bound=Hashable)


class VoteResult(Enum):
    """The state of an election."""

    WON = "won"
    LOST = "lost"
    PENDING = "pending"


def majority(count: int) -> int:
    """Return the smallest number of `count` servers that is more than half of them."""
    return count // 2 + 1


def _majority_index(half: Collection[S], match_index: Mapping[S, int]) -> int:
    """Return the highest index that a majority of the non-empty `half` has reached."""
    ranked = sorted((match_index.get(server, 0) for server in half), reverse=True)
    return ranked[majority(len(ranked)) - 1]


def committed_index(
    voters: Collection[S], outgoing: Collection[S], match_index: Mapping[S, int]
) -> int | None:
    """Return the highest index that a majority of both halves has stored.

    The same rule serves anything that grows and is acknowledged: log positions, read rounds, and
    the tick of the last contact.

    Args:
        voters: C_new, or the only set.
        outgoing: C_old while joint, else empty.
        match_index: what each server has acknowledged; a server that is missing counts as 0, and
            servers of neither half are not looked at.

    Returns:
        The index, or None when both halves are empty.
    """
    indexes = [_majority_index(half, match_index) for half in (voters, outgoing) if half]
    return min(indexes) if indexes else None


def _half_result(half: Collection[S], votes: Mapping[S, bool]) -> VoteResult:
    granted = sum(1 for server in half if votes.get(server) is True)
    refused = sum(1 for server in half if votes.get(server) is False)
    needed = majority(len(half))
    if granted >= needed:
        return VoteResult.WON
    if len(half) - refused < needed:
        return VoteResult.LOST
    return VoteResult.PENDING


def vote_result(
    voters: Collection[S], outgoing: Collection[S], votes: Mapping[S, bool]
) -> VoteResult:
    """Return how an election stands.

    Args:
        voters: C_new, or the only set.
        outgoing: C_old while joint, else empty.
        votes: True for granted, False for refused; a server that is missing has not answered, and
            votes from servers of neither half count nothing.

    Returns:
        LOST if a half is lost, WON if both are won (an empty half is won), else PENDING.
    """
    results = [_half_result(half, votes) for half in (voters, outgoing) if half]
    if VoteResult.LOST in results:
        return VoteResult.LOST
    if VoteResult.PENDING in results:
        return VoteResult.PENDING
    return VoteResult.WON
