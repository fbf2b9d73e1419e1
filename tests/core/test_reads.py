"""Linearizable reads: the queue itself, and a leader that answers them.

Source: dissertation section 6.4; paper section 8.
"""

from __future__ import annotations

import pytest

from raftd.core.errors import NotLeader, ProposalDropped
from raftd.core.messages import AppendEntries, AppendEntriesResponse, RequestVote
from raftd.core.reads import PENDING_READS_MAX, PendingReads
from raftd.core.ready import ReadAnswer
from tests.core.harness import Cluster
from tests.core.scenario import Solo, joint_leader, of, settled_leader

# --- the queue ---


def test_a_read_waits_for_a_round_that_starts_after_it() -> None:
    reads = PendingReads()
    reads.round_started(1)
    reads.add("a", 5)
    assert reads.want_round
    assert reads.confirmed(1) == []
    reads.round_started(2)
    assert not reads.want_round
    assert reads.confirmed(1) == []
    assert reads.confirmed(2) == [ReadAnswer("a", 5)]
    assert len(reads) == 0


def test_a_later_round_confirms_the_earlier_ones_in_order() -> None:
    reads = PendingReads()
    reads.add("a", 5)
    reads.round_started(1)
    reads.add("b", 6)
    reads.round_started(2)
    reads.add("c", 7)
    reads.round_started(3)
    assert reads.confirmed(2) == [ReadAnswer("a", 5), ReadAnswer("b", 6)]
    assert reads.confirmed(3) == [ReadAnswer("c", 7)]


def test_early_reads_get_the_index_of_the_first_commit() -> None:
    reads = PendingReads()
    reads.add("a", None)
    reads.round_started(1)
    assert reads.confirmed(1) == []
    reads.first_commit(9)
    reads.round_started(2)
    assert reads.confirmed(2) == [ReadAnswer("a", 9)]


def test_lost_leadership_fails_every_read_in_the_order_of_arrival() -> None:
    reads = PendingReads()
    reads.add("a", 5)
    reads.round_started(1)
    reads.add("b", 5)
    assert reads.fail() == [ReadAnswer("a", None), ReadAnswer("b", None)]
    assert len(reads) == 0
    assert not reads.want_round


# --- a leader ---


def _answer_round(solo: Solo, source: str, round_number: int) -> None:
    response = AppendEntriesResponse(solo.term, True, round_number, solo.commit_index, 0)
    solo.step(source, response)


def test_a_read_is_answered_after_a_majority_has_answered_its_round() -> None:
    """6.4, steps 2 and 3: remember the commit index, then confirm leadership."""
    solo = settled_leader("12345")
    solo.give(lambda raft: raft.read("r"))
    solo.acknowledge("2")
    assert solo.reads == []
    solo.acknowledge("3")
    assert solo.reads == [ReadAnswer("r", solo.commit_index)]


def test_answers_to_an_older_round_confirm_nothing() -> None:
    """6.4: the round of heartbeats has to start after the read arrived."""
    solo = settled_leader()
    before = solo.round
    solo.give(lambda raft: raft.read("r"))
    assert solo.round == before + 1
    _answer_round(solo, "2", before)
    _answer_round(solo, "3", before)
    assert solo.reads == []
    _answer_round(solo, "2", before + 1)
    assert len(solo.reads) == 1


def test_an_answer_to_a_round_that_was_never_sent_confirms_nothing() -> None:
    solo = settled_leader()
    solo.give(lambda raft: raft.read("r"))
    _answer_round(solo, "2", solo.round + 1)
    assert solo.reads == []


def test_the_answer_to_a_request_of_its_own_earlier_term_confirms_nothing_to_a_leader() -> None:
    """A server that leads again gets answers to what it had sent before, in the term of now."""
    solo = settled_leader(term=4)
    solo.give(lambda raft: raft.read("r"))
    follower = Solo("2", terms=tuple(solo.terms), term=solo.term)
    late = AppendEntries(solo.term - 1, 1, 1, (), 1, round=solo.round)
    answer = follower.answer("1", late)
    assert answer.term == solo.term
    solo.step("2", answer)
    assert solo.reads == []
    _answer_round(solo, "2", solo.round)
    assert len(solo.reads) == 1


def test_a_round_is_never_used_twice() -> None:
    """6.4: a late answer to an earlier round must not pass for one to a later round."""
    solo = settled_leader()
    rounds = []
    for token in range(4):
        solo.give(lambda raft, token=token: raft.read(token))
        rounds.append(solo.round)
        solo.tick()
        solo.give(lambda raft: raft.propose(b"x"))
    assert rounds == sorted(set(rounds))


def test_a_refusal_confirms_leadership_too() -> None:
    """6.4: what counts is that the other server is still in the leader's term."""
    solo = settled_leader()
    solo.give(lambda raft: raft.read("r"))
    refusal = AppendEntriesResponse(
        solo.term, False, solo.round, solo.commit_index, 0, conflict_index=1, last_log_index=9
    )
    solo.step("2", refusal)
    assert len(solo.reads) == 1


def test_reads_wait_for_the_no_op_of_the_term() -> None:
    """6.4, step 1: until then a leader cannot know which entries are committed."""
    solo = Solo(terms=(1, 1, 1))
    solo.lead()
    solo.give(lambda raft: raft.read("r"))
    _answer_round(solo, "2", solo.round)
    _answer_round(solo, "3", solo.round)
    assert solo.reads == []
    solo.acknowledge("2")
    solo.acknowledge("2")
    assert solo.reads == [ReadAnswer("r", 4)]


def test_a_read_covers_everything_committed_before_it_arrived() -> None:
    solo = settled_leader()
    solo.give(lambda raft: raft.propose(b"x"))
    solo.acknowledge("2")
    solo.give(lambda raft: raft.read("r"))
    solo.acknowledge("2")
    assert solo.reads == [ReadAnswer("r", solo.last_index)]


def test_a_deposed_leader_answers_that_it_could_not_read() -> None:
    solo = settled_leader()
    solo.give(lambda raft: raft.read("r"))
    solo.heartbeat("2", term=solo.term + 1)
    assert solo.reads == [ReadAnswer("r", None)]
    with pytest.raises(NotLeader):
        solo.raft.read("s")


def test_a_leader_without_a_majority_answers_nothing_stale() -> None:
    """6.4: a leader that was replaced unnoticed must not answer from memory."""
    cluster = Cluster("123")
    cluster.elect("1")
    cluster.partition("1", "23")
    cluster.elect("2")
    cluster.propose(b"new", "2")
    cluster.deliver_all()
    cluster.give("1", lambda raft: raft.read("r"))
    cluster.run(2 * cluster.options.election_ticks)
    assert cluster.servers["1"].reads == [ReadAnswer("r", None)]
    assert cluster.role("1") != "leader"


def test_a_single_server_answers_at_once() -> None:
    solo = Solo(voters="1")
    solo.lead()
    solo.give(lambda raft: raft.read("r"))
    assert solo.reads == [ReadAnswer("r", solo.last_index)]


def test_many_reads_share_one_round() -> None:
    solo = settled_leader()
    before = solo.round
    for token in range(100):
        solo.raft.read(token)
    solo.work()
    assert solo.round == before + 1
    solo.acknowledge("2")
    assert [answer.token for answer in solo.reads] == list(range(100))


def test_too_many_reads_are_refused() -> None:
    solo = settled_leader()
    for token in range(PENDING_READS_MAX):
        solo.raft.read(token)
    with pytest.raises(ProposalDropped):
        solo.raft.read("one too many")


# --- while joint ---


@pytest.mark.parametrize(("half", "other"), [("2", "4"), ("4", "2")])
def test_while_joint_one_half_does_not_confirm_a_read(half: str, other: str) -> None:
    """Paper section 6: agreement needs separate majorities of both configurations."""
    solo = joint_leader("123", "145")
    before = solo.commit_index
    solo.give(lambda raft: raft.read("r"))
    solo.acknowledge(half, before)
    assert solo.reads == []
    solo.acknowledge(other, before)
    assert solo.reads == [ReadAnswer("r", before)]


def test_the_answers_of_learners_confirm_no_read() -> None:
    solo = settled_leader("123", "45")
    solo.give(lambda raft: raft.read("r"))
    solo.acknowledge("4")
    solo.acknowledge("5")
    assert solo.reads == []


def test_votes_for_a_new_term_stop_reads_of_the_old_one() -> None:
    """A member of the majority that moved on no longer answers the old leader's rounds."""
    solo = settled_leader()
    solo.give(lambda raft: raft.read("r"))
    follower = Solo("2", terms=tuple(solo.terms), term=solo.term)
    follower.step("3", RequestVote(solo.term + 1, 99, 99))
    request = of(AppendEntries, solo.sent)[-1]
    (answer,) = of(AppendEntriesResponse, follower.step("1", request))
    assert not answer.success
    solo.step("2", answer)
    assert solo.reads == [ReadAnswer("r", None)]
