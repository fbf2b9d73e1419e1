"""Whatever a peer sends, and whenever: nothing is raised and no rule is broken (paper 5.5)."""

from __future__ import annotations

import json

import pytest

from raftd.core.errors import Divergence
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
from tests.core.harness import OPTIONS, Cluster, founding_entry
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


# --- proof that the group has diverged ---


def test_a_second_leader_of_the_own_term_stops_the_server() -> None:
    """5.2, Election Safety: it cannot happen, so whoever sees it must not go on."""
    solo = settled_leader("123")
    append = AppendEntries(solo.raft.current_term, 1, 1, (), 0, 1)
    with pytest.raises(Divergence, match="as this server does"):
        solo.raft.step(Envelope("2", "1", append))


def test_another_entry_at_a_committed_index_stops_the_server() -> None:
    """5.4, Leader Completeness: a leader has every committed entry, or disks have lost them."""
    solo = Solo("1", "123", terms=[1, 1, 1], term=1)
    solo.step("2", AppendEntries(1, 3, 1, (), 3, 1))
    other = Entry(3, 2, EntryKind.COMMAND, b"other")
    with pytest.raises(Divergence, match="index 3"):
        solo.raft.step(Envelope("3", "1", AppendEntries(2, 2, 1, (other,), 2, 1)))


@pytest.mark.parametrize(
    "change",
    [
        {"left_out": None},
        {"addresses": None},
        {"addresses": {"1": 5}},
        {"voters": ["1", 2]},
        {"tombstones": [None, "x"]},
        {"kind": "odd"},
        {"time_ms": None},
        {"learners": "12"},
    ],
)
def test_a_configuration_entry_with_a_field_of_another_type_is_not_taken_in(
    change: dict[str, object],
) -> None:
    solo = Solo("1", "123", terms=[1], term=1)
    document = json.loads(founding_entry("123").data) | change
    entry = Entry(2, 1, EntryKind.CONFIGURATION, json.dumps(document).encode())
    solo.step("2", AppendEntries(1, 1, 1, (entry,), 0, 1))
    assert solo.raft.log.last_index == 1


def test_a_configuration_entry_that_nests_without_end_is_not_taken_in() -> None:
    solo = Solo("1", "123", terms=[1], term=1)
    entry = Entry(2, 1, EntryKind.CONFIGURATION, b"[" * 100_000)
    solo.step("2", AppendEntries(1, 1, 1, (entry,), 0, 1))
    assert solo.raft.log.last_index == 1
