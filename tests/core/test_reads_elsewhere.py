"""Reads that a server answers which does not lead: it asks its leader how far its state has to be.

Source: dissertation section 6.4.
"""

from __future__ import annotations

from random import Random

import attrs
import pytest

from raftd.core.errors import NotLeader, ProposalDropped
from raftd.core.messages import (
    AppendEntries,
    Envelope,
    ReadIndex,
    ReadIndexResponse,
)
from raftd.core.reads import PENDING_READS_MAX, ForwardedReads
from raftd.core.ready import ReadAnswer
from tests.core.harness import OPTIONS, Cluster
from tests.core.scenario import Solo, joint_leader, of, only, settled_leader

T = OPTIONS.election_ticks
HEARTBEAT = OPTIONS.heartbeat_ticks


# --- the queue ---


def forwarded(seed: int = 0) -> ForwardedReads:
    return ForwardedReads(OPTIONS, Random(seed))


def test_all_reads_that_wait_share_one_question() -> None:
    reads = forwarded()
    assert reads.ask(1, "1", 0) is None
    for token in "abc":
        reads.add(token, 0)
    id = reads.ask(1, "1", 0)
    assert id is not None
    assert reads.ask(1, "1", 0) is None
    assert reads.confirmed(id, 9) == [ReadAnswer(token, 9) for token in "abc"]
    assert not reads


def test_an_answer_says_nothing_about_reads_that_came_after_its_question() -> None:
    """6.4: what is committed when the read arrives has to be seen by it."""
    reads = forwarded()
    reads.add("a", 0)
    first = reads.ask(1, "1", 0)
    reads.add("b", 0)
    second = reads.ask(1, "1", 0)
    assert first is not None
    assert second == first + 1
    assert reads.confirmed(first, 5) == [ReadAnswer("a", 5)]
    # A copy of the first answer that comes late.
    assert reads.confirmed(first, 5) == []
    assert reads.confirmed(second, 6) == [ReadAnswer("b", 6)]


def test_the_answer_to_a_later_question_confirms_the_earlier_reads() -> None:
    reads = forwarded()
    reads.add("a", 0)
    reads.ask(1, "1", 0)
    reads.add("b", 0)
    later = reads.ask(1, "1", 0)
    assert later is not None
    assert reads.confirmed(later, 6) == [ReadAnswer("a", 6), ReadAnswer("b", 6)]


def test_a_question_that_is_not_answered_is_asked_again_after_a_heartbeat_interval() -> None:
    reads = forwarded()
    reads.add("a", 0)
    first = reads.ask(1, "1", 0)
    assert first is not None
    assert reads.ask(1, "1", HEARTBEAT - 1) is None
    again = reads.ask(1, "1", HEARTBEAT)
    assert again == first + 1
    assert reads.ask(1, "1", HEARTBEAT) is None
    # Whichever of them is answered: the read had arrived before both.
    assert reads.confirmed(first, 5) == [ReadAnswer("a", 5)]


@pytest.mark.parametrize("other", [(2, "1"), (1, "2")])
def test_another_leader_is_asked_at_once(other: tuple[int, str]) -> None:
    reads = forwarded()
    reads.add("a", 0)
    reads.ask(1, "1", 0)
    assert reads.ask(*other, 0) is not None
    assert reads.ask(*other, 0) is None


def test_answers_that_an_earlier_process_was_meant_to_get_confirm_nothing() -> None:
    """The questions of two processes are numbered apart, whichever of them is the higher one."""
    for seed in range(20):
        before, now = forwarded(seed), forwarded(seed + 100)
        before.add("old", 0)
        late = before.ask(1, "1", 0)
        assert late is not None
        now.add("new", 0)
        now.ask(1, "1", 0)
        assert now.confirmed(late, 9) == []
        assert len(now) == 1


def test_a_read_is_given_up_after_an_election_timeout_asked_or_not() -> None:
    reads = forwarded()
    reads.add("a", 0)
    reads.ask(1, "1", 0)
    reads.add("b", 1)
    assert reads.expired(T - 1) == []
    assert reads.expired(T) == [ReadAnswer("a", None)]
    assert reads.expired(T + 1) == [ReadAnswer("b", None)]
    assert reads.ask(1, "1", T + 1) is None


def test_too_many_reads_are_refused_here_too() -> None:
    reads = forwarded()
    for token in range(PENDING_READS_MAX):
        reads.add(token, 0)
    with pytest.raises(ProposalDropped):
        reads.add("one too many", 0)


# --- a server that does not lead ---


def follower() -> Solo:
    """Return server 2, which follows server 1 in term 1."""
    solo = Solo("2")
    solo.heartbeat("1")
    return solo


def test_a_follower_asks_its_leader_once_for_all_reads_of_a_moment() -> None:
    solo = follower()
    for token in "abc":
        solo.raft.read_here(token)
    question = only(ReadIndex, solo.work())
    assert question.term == solo.term
    assert solo.sent[-1].dest == "1"
    assert solo.reads == []
    solo.step("1", ReadIndexResponse(solo.term, question.id, 7))
    assert solo.reads == [ReadAnswer(token, 7) for token in "abc"]


def test_a_server_that_knows_no_leader_asks_nobody() -> None:
    solo = Solo("2")
    with pytest.raises(NotLeader):
        solo.raft.read_here("a")
    solo = follower()
    solo.raft.read_here("a")
    solo.work()
    # Waiting reads do not keep it from campaigning, and it has nobody to ask then.
    solo.time_out()
    assert of(ReadIndex, solo.tick(HEARTBEAT)) == []


def test_lost_questions_are_repeated_until_the_read_is_given_up() -> None:
    solo = follower()
    solo.raft.read_here("a")
    ids = [question.id for question in of(ReadIndex, solo.work())]
    for _ in range(T):
        solo.heartbeat("1")
        ids += [question.id for question in of(ReadIndex, solo.tick())]
    assert solo.reads == [ReadAnswer("a", None)]
    assert len(set(ids)) == len(ids) == T // HEARTBEAT
    solo.heartbeat("1")
    assert of(ReadIndex, solo.tick(HEARTBEAT)) == []


def test_an_answer_without_an_index_confirms_nothing() -> None:
    solo = follower()
    solo.raft.read_here("a")
    question = only(ReadIndex, solo.work())
    solo.step("1", ReadIndexResponse(solo.term, question.id, None))
    assert solo.reads == []


def test_an_answer_of_an_older_term_is_dropped_and_the_new_leader_asked() -> None:
    solo = follower()
    solo.raft.read_here("a")
    question = only(ReadIndex, solo.work())
    sent = solo.give(lambda raft: raft.step(Envelope("3", "2", AppendEntries(2, 1, 1, (), 0, 1))))
    again = only(ReadIndex, sent)
    assert (again.term, sent[-1].dest) == (2, "3")
    solo.step("1", ReadIndexResponse(1, question.id, 7))
    assert solo.reads == []
    solo.step("3", ReadIndexResponse(2, again.id, 8))
    assert solo.reads == [ReadAnswer("a", 8)]


def test_who_comes_to_lead_answers_by_itself_what_it_had_asked_about() -> None:
    solo = follower()
    solo.raft.read_here("a")
    solo.work()
    # In time, before the read is given up.
    solo.raft._election_timeout_ticks = 1
    solo.lead()
    solo.raft.read_here("b")
    solo.work()
    assert solo.reads == []
    solo.acknowledge("1")
    solo.acknowledge("1")
    assert solo.reads == [ReadAnswer("a", solo.commit_index), ReadAnswer("b", solo.commit_index)]


# --- the leader ---


def ask(solo: Solo, source: str, id: int) -> list[object]:
    return list(solo.step(source, ReadIndex(solo.term, id)))


def test_a_leader_answers_after_a_round_that_has_started_later() -> None:
    """6.4: it has to make sure that it still leads, for others as for itself."""
    solo = settled_leader()
    before = solo.round
    (heartbeat,) = ask(solo, "2", 77)
    assert isinstance(heartbeat, AppendEntries)
    assert solo.round == before + 1
    sent = solo.acknowledge("3")
    assert of(ReadIndexResponse, sent) == [ReadIndexResponse(solo.term, 77, solo.commit_index)]
    assert [e.dest for e in sent if isinstance(e.message, ReadIndexResponse)] == ["2"]
    # Nothing of it is for the driver.
    assert solo.reads == []


def test_a_new_leader_answers_with_what_it_has_committed_in_its_term() -> None:
    solo = Solo("1", terms=(1, 1))
    solo.lead()
    ask(solo, "2", 77)
    assert of(ReadIndexResponse, solo.sent) == []
    solo.acknowledge("2")
    solo.acknowledge("2")
    answers = of(ReadIndexResponse, solo.sent)
    assert answers == [ReadIndexResponse(solo.term, 77, solo.last_index)]


@pytest.mark.parametrize(("half", "other"), [("2", "4"), ("4", "2")])
def test_while_joint_one_half_does_not_let_a_leader_answer(half: str, other: str) -> None:
    solo = joint_leader("123", "145")
    before = solo.commit_index
    ask(solo, "5", 77)
    solo.acknowledge(half, before)
    assert of(ReadIndexResponse, solo.sent) == []
    solo.acknowledge(other, before)
    assert of(ReadIndexResponse, solo.sent) == [ReadIndexResponse(solo.term, 77, before)]


def test_who_does_not_lead_answers_only_questions_of_older_terms() -> None:
    solo = Solo("2", term=5)
    solo.heartbeat("1")
    assert solo.step("3", ReadIndex(5, 77)) == []
    assert solo.step("3", ReadIndex(4, 77)) == [ReadIndexResponse(5, 77, None)]


def test_a_question_of_a_higher_term_ends_leadership() -> None:
    solo = settled_leader()
    ask(solo, "2", 77)
    term = solo.term
    assert solo.step("3", ReadIndex(term + 1, 5)) == []
    assert solo.role == "follower"
    assert solo.term == term + 1
    # What was asked before is not answered any more: the server asks the next leader.
    solo.acknowledge("2")
    assert of(ReadIndexResponse, solo.sent) == []


def test_questions_of_others_do_not_take_the_place_of_more_reads_than_allowed() -> None:
    solo = settled_leader()
    for token in range(PENDING_READS_MAX):
        solo.raft.read(token)
    solo.work()
    ask(solo, "2", 77)
    solo.acknowledge("2")
    solo.acknowledge("3")
    assert of(ReadIndexResponse, solo.sent) == []
    assert len(solo.reads) == PENDING_READS_MAX


def asked_for(solo: Solo, token: str) -> list[str]:
    """Return whom a leader asks for the sake of one more read."""
    return [envelope.dest for envelope in solo.give(lambda raft: raft.read(token))]


def test_a_round_for_a_read_asks_voters_alone_and_no_more_of_them_than_are_needed() -> None:
    solo = settled_leader("123", "45")
    (asked,) = asked_for(solo, "r")
    assert asked in ("2", "3")
    solo.acknowledge(asked)
    assert [read.token for read in solo.reads] == ["r"]
    assert sorted(envelope.dest for envelope in solo.tick(HEARTBEAT)) == ["2", "3", "4", "5"]


def test_the_voter_that_has_answered_last_is_asked() -> None:
    for quick, slow in (("2", "3"), ("3", "2")):
        solo = settled_leader("123")
        solo.tick(HEARTBEAT)
        solo.acknowledge(quick)
        assert asked_for(solo, "r") == [quick]
        # It does not answer: the next read asks both, so that neither has to wait for it.
        assert asked_for(solo, "s") == ["2", "3"]
        solo.acknowledge(slow)
        assert [read.token for read in solo.reads] == ["r", "s"]


def test_while_joint_a_round_for_a_read_asks_all_voters() -> None:
    solo = joint_leader("123", "145")
    assert asked_for(solo, "r") == ["2", "3", "4", "5"]


def test_who_was_not_asked_is_asked_with_the_next_tick_if_there_is_no_answer() -> None:
    solo = settled_leader("12345", options=attrs.evolve(OPTIONS, heartbeat_ticks=3))
    solo.tick(3)
    for other in "2345":
        solo.acknowledge(other)
    assert solo.raft.quiet_ticks() == 2
    assert len(asked_for(solo, "r")) == 2
    assert solo.raft.quiet_ticks() == 0
    assert sorted(envelope.dest for envelope in solo.tick(1)) == ["2", "3", "4", "5"]


def test_who_asks_hears_with_the_round_what_is_committed() -> None:
    for asking in "2345":
        solo = settled_leader("12345")
        assert of(AppendEntries, ask(solo, asking, 77))
        assert len(asked_for(solo, "r")) == 4
        for other in "2345":
            solo.acknowledge(other)
        assert len(asked_for(solo, "s")) == 2


# --- together ---


def test_a_follower_never_reads_what_was_replaced_before_the_read_arrived() -> None:
    """Two leaders at one time: only the one that a majority follows can say how far."""
    cluster = Cluster("12345")
    cluster.elect("1")
    cluster.propose(b"old", "1")
    cluster.run(2)
    cluster.partition("12", "345")
    cluster.elect("3")
    cluster.propose(b"new", "3")
    cluster.deliver_all()
    # 2 still follows 1, which believes that it leads.
    assert cluster.raft("2").leader_id == "1"
    cluster.give("2", lambda raft: raft.read_here("r"))
    cluster.deliver_all()
    assert cluster.servers["2"].reads == []
    cluster.heal()
    cluster.run_until(lambda: bool(cluster.servers["2"].reads))
    (answer,) = cluster.servers["2"].reads
    assert answer.read_index is None or answer.read_index >= cluster.raft("3").log.commit_index
