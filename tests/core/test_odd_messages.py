"""Whatever a peer sends, and whenever: nothing is raised and no rule is broken (paper 5.5)."""

from __future__ import annotations

import pytest

from raftd.core.messages import (
    AppendEntries,
    AppendEntriesResponse,
    Envelope,
    Message,
    PreVote,
    PreVoteResponse,
    RequestVote,
    RequestVoteResponse,
    TimeoutNow,
)
from raftd.core.types import Entry, EntryKind
from tests.core.harness import OPTIONS, Cluster
from tests.core.scenario import Solo, command, settled_leader

T = OPTIONS.election_ticks


MESSAGES = [
    PreVote(99, 0, 0),
    PreVoteResponse(0, 99, vote_granted=True),
    RequestVote(0, 99, 99),
    RequestVoteResponse(2, vote_granted=True),
    AppendEntries(2, 99, 99, (command(100, 2),), 99, 99),
    AppendEntries(9, 1, 1, (command(3, 9),), 99, 1),
    AppendEntries(9, 1, 1, (command(2, 10),), 99, 1),
    AppendEntries(9, 1, 1, (Entry(2, 9, EntryKind.CONFIGURATION, b"nonsense"),), 99, 1),
    AppendEntries(9, 1, 1, (Entry(2, 9, EntryKind.CONFIGURATION, b"[]"),), 99, 1),
    AppendEntries(9, 1, 1, (Entry(2, 9, EntryKind.CONFIGURATION, b"{}"),), 99, 1),
    AppendEntriesResponse(2, True, 99, 99, 99),
    AppendEntriesResponse(2, False, 1, 99, 0, 7, 99, 99),
    TimeoutNow(2),
]


@pytest.mark.parametrize("source", ["2", "stranger", ""])
@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
@pytest.mark.parametrize("role", ["blank", "follower", "candidate"])
def test_odd_messages_are_survived(role: str, message: Message, source: str) -> None:
    """Section 5.5 and beyond: delayed, duplicated or misdirected messages break no rule."""
    solo = Solo(entries=()) if role == "blank" else Solo(terms=(1, 1, 1))
    if role == "candidate":
        solo.campaign()
    solo.step(source, message)
    solo.tick(3 * T)


def test_entries_with_gaps_or_falling_terms_are_not_stored() -> None:
    for entries in (
        (command(3, 2),),
        (command(2, 2), command(4, 2)),
        (command(2, 3),),
        (command(2, 2), command(3, 1)),
    ):
        solo = Solo(term=2)
        assert solo.step("2", AppendEntries(2, 1, 1, entries, 0, 1)) == []
        assert solo.terms == [1]


def test_messages_for_others_or_from_itself_are_ignored() -> None:
    solo = Solo()
    for source, dest in (("2", "3"), ("1", "1")):
        solo.raft.step(Envelope(source, dest, RequestVote(9, 9, 9)))
    assert solo.raft.take_ready() is None
    assert solo.term == 1


def test_between_take_ready_and_persisted_nothing_may_be_put_in() -> None:
    solo = settled_leader()
    solo.raft.propose(b"x")
    ready = solo.raft.take_ready()
    assert ready is not None
    with pytest.raises(AssertionError, match="owed"):
        solo.raft.tick()
    solo.raft.persisted(ready)


def test_equal_inputs_give_equal_outputs() -> None:
    """Everything random comes from the generator that is handed in."""

    def transcript() -> list[object]:
        cluster = Cluster("12345", seed=7)
        seen: list[object] = []
        for tick in range(120):
            cluster.run()
            seen.append([cluster.raft(server).status() for server in "12345"])
            if tick == 60:
                cluster.propose(b"x")
        return seen

    assert transcript() == transcript()
