"""Elections that lose no time: who gives way, who goes ahead, who asks again.

None of it is about safety; whoever may win is decided as ever.
"""

from __future__ import annotations

import pytest

from raftd.core.election import GIVE_WAY_HEARTBEATS
from raftd.core.messages import (
    AppendEntries,
    PreVote,
    PreVoteResponse,
    RequestVote,
    RequestVoteResponse,
)
from raftd.core.options import Options
from tests.core.harness import Cluster
from tests.core.scenario import Solo, of, only

OPTIONS = Options(heartbeat_ticks=2, election_ticks=20, joint_timeout_ticks=40, departing_ticks=400)
T = OPTIONS.election_ticks
PATIENCE = GIVE_WAY_HEARTBEATS * OPTIONS.heartbeat_ticks


def solo(server: str = "2", voters: str = "123", **extra: object) -> Solo:
    return Solo(server, voters, options=OPTIONS, **extra)  # type: ignore[arg-type]


def grant(server: Solo, *voters: str) -> None:
    """Have `voters` grant the pre-vote that `server` asks for."""
    for voter in voters:
        server.step(voter, PreVoteResponse(server.term, server.term + 1, vote_granted=True))


# --- giving way before a vote is spent ---


def test_of_two_that_ask_at_once_the_one_with_the_lower_name_waits_two_heartbeats() -> None:
    waiting = solo("2")
    waiting.time_out()
    assert only(PreVoteResponse, waiting.step("3", PreVote(2, 1, 1))).vote_granted
    grant(waiting, "1", "3")
    waiting.tick(PATIENCE - 1)
    assert (waiting.role, waiting.term) == ("precandidate", 1)
    waiting.tick()
    assert (waiting.role, waiting.term) == ("candidate", 2)


def test_the_one_with_the_higher_name_does_not_wait() -> None:
    first = solo("2")
    first.time_out()
    assert only(PreVoteResponse, first.step("1", PreVote(2, 1, 1))).vote_granted
    grant(first, "1")
    assert first.role == "candidate"


def test_the_better_log_goes_before_the_higher_name() -> None:
    waiting = solo("2")
    waiting.time_out()
    waiting.step("1", PreVote(2, 2, 1))
    grant(waiting, "1", "3")
    assert waiting.role == "precandidate"
    first = solo("2", terms=(1, 1, 1))
    first.time_out()
    assert not only(PreVoteResponse, first.step("3", PreVote(2, 2, 1))).vote_granted
    grant(first, "1")
    assert first.role == "candidate"


def test_who_gives_way_votes_for_the_rival() -> None:
    waiting = solo("2")
    waiting.time_out()
    waiting.step("3", PreVote(2, 1, 1))
    grant(waiting, "1", "3")
    assert only(RequestVoteResponse, waiting.step("3", RequestVote(2, 1, 1))).vote_granted


def test_a_rival_that_only_asks_and_asks_holds_up_a_round_once() -> None:
    """It can send and not receive, say; or it is a server that was removed and does not know."""
    waiting = solo("2")
    waiting.time_out()
    for _ in range(PATIENCE):
        assert waiting.role == "precandidate"
        waiting.step("3", PreVote(2, 1, 1))
        grant(waiting, "1")
        waiting.tick()
    assert waiting.role == "candidate"


def test_a_follower_gives_way_to_nobody() -> None:
    follower = solo("2")
    follower.step("3", PreVote(2, 1, 1))
    follower.time_out()
    grant(follower, "1")
    assert follower.role == "candidate"


# --- asking again ---


def test_a_pre_candidate_that_all_refuse_goes_on_asking() -> None:
    """Their minimum time-outs may end a moment after ours, and then they would wait for theirs."""
    asking = solo("1", "12345")
    asking.time_out()
    for voter in "2345":
        asking.step(voter, PreVoteResponse(1, 2, vote_granted=False))
    assert asking.role == "precandidate"
    sent = asking.tick(OPTIONS.heartbeat_ticks)
    assert [envelope.dest for envelope in sent] == ["2", "3", "4", "5"]
    grant(asking, "2", "3")
    assert asking.role == "candidate"


def test_a_refusal_does_not_take_back_a_pre_vote() -> None:
    """Answers may change places; the vote itself is asked for anyway."""
    asking = solo("1", "12345")
    asking.time_out()
    grant(asking, "2")
    asking.step("2", PreVoteResponse(1, 2, vote_granted=False))
    grant(asking, "3")
    assert asking.role == "candidate"


def test_who_learns_a_term_from_a_refusal_asks_anew_after_two_heartbeats() -> None:
    """Not at once: it might push out a leader that has just been elected in that term."""
    asking = solo("1")
    asking.time_out()
    asking.step("2", PreVoteResponse(5, 2, vote_granted=False))
    assert asking.tick(PATIENCE - 1) == []
    assert (asking.role, asking.term) == ("follower", 5)
    assert [envelope.message for envelope in asking.tick()] == 2 * [PreVote(6, 1, 1)]


def test_who_learns_a_term_without_asking_waits_for_its_time_out() -> None:
    follower = solo("1")
    assert not follower.step("2", PreVoteResponse(5, 2, vote_granted=False))
    assert (follower.role, follower.term) == ("follower", 5)
    assert follower.tick(T - 1) == []


# --- going ahead ---


def test_a_better_log_goes_ahead_of_who_cannot_win() -> None:
    """The one that asks has noticed that the leader is gone, and so has this one."""
    better = solo("2", terms=(1, 1), seed=3)
    better.heartbeat("1")
    better.tick(T)
    assert better.role == "follower"
    answers = better.step("3", PreVote(2, 1, 1))
    assert not only(PreVoteResponse, answers).vote_granted
    assert of(PreVote, answers) == [PreVote(2, 2, 1)]
    assert better.role == "precandidate"


def test_nobody_goes_ahead_within_the_minimum_election_timeout() -> None:
    better = solo("2", terms=(1, 1), seed=3)
    better.heartbeat("1")
    better.tick(T - 1)
    assert of(PreVote, better.step("3", PreVote(2, 1, 1))) == []
    assert better.role == "follower"


def test_who_has_just_voted_does_not_go_ahead() -> None:
    """There is no leader yet, but perhaps in a moment."""
    better = solo("2", terms=(1, 1), seed=3)
    better.tick(T)
    assert only(RequestVoteResponse, better.step("1", RequestVote(2, 2, 1))).vote_granted
    assert of(PreVote, better.step("3", PreVote(3, 1, 1))) == []
    assert better.role == "follower"


@pytest.mark.parametrize("message", [PreVote(2, 2, 1), PreVote(2, 3, 1)])
def test_an_equal_or_lesser_log_does_not_go_ahead(message: PreVote) -> None:
    equal = solo("2", terms=(1, 1), seed=3)
    equal.tick(T)
    assert equal.answer("3", message) == PreVoteResponse(1, 2, vote_granted=True)
    assert equal.role == "follower"


def test_a_learner_does_not_go_ahead() -> None:
    learner = solo("4", learners="4", terms=(1, 1))
    learner.tick(T)
    assert of(PreVote, learner.step("3", PreVote(2, 1, 1))) == []


def test_the_complete_log_is_elected_although_the_others_time_out_first() -> None:
    """The only server that can win draws the longest time-out, and does not wait for it."""
    cluster = Cluster("12345", options=OPTIONS)
    cluster.elect("1")
    for straggler in "345":
        cluster.cut |= {("1", straggler)}
    cluster.propose(b"x", "1")
    cluster.deliver_all()
    cluster.cut.clear()
    cluster.crash("1")
    cluster.raft("2")._election_timeout_ticks = 2 * T - 1
    for straggler in "345":
        cluster.raft(straggler)._election_timeout_ticks = T + 2
    cluster.run(T + 2)
    assert cluster.leader() == "2"


# --- when the leader's process has ended ---


def test_who_knows_that_its_leaders_process_has_ended_asks_at_once() -> None:
    knowing = solo("2")
    knowing.heartbeat("1")
    sent = knowing.give(lambda raft: raft.report_unreachable("1", process_ended=True))
    assert [envelope.message for envelope in sent] == 2 * [PreVote(2, 1, 1)]
    assert (knowing.role, knowing.raft.leader_id) == ("precandidate", None)
    knowing.heartbeat("1")
    assert (knowing.role, knowing.raft.leader_id) == ("follower", "1")


def test_that_another_server_has_ended_or_that_the_leader_is_out_of_reach_starts_nothing() -> None:
    knowing = solo("2")
    knowing.heartbeat("1")
    assert not knowing.give(lambda raft: raft.report_unreachable("3", process_ended=True))
    assert not knowing.give(lambda raft: raft.report_unreachable("1"))
    assert (knowing.role, knowing.raft.leader_id) == ("follower", "1")


def test_a_learner_whose_leader_has_ended_votes_and_does_not_campaign() -> None:
    learner = solo("4", learners="4")
    learner.heartbeat("1")
    assert not learner.give(lambda raft: raft.report_unreachable("1", process_ended=True))
    assert only(PreVoteResponse, learner.step("3", PreVote(2, 1, 1))).vote_granted


def test_a_new_leader_follows_at_once_when_a_majority_knows_that_the_old_one_has_ended() -> None:
    cluster = Cluster("12345", options=OPTIONS)
    cluster.elect("1")
    cluster.crash("1")
    for server in "23":
        cluster.give(server, lambda raft: raft.report_unreachable("1", process_ended=True))
        cluster.deliver_all()
    # Two of five: the two others hear the leader, as far as they know.
    assert {cluster.role(server) for server in "23"} == {"precandidate"}
    assert {cluster.role(server) for server in "45"} == {"follower"}
    cluster.give("4", lambda raft: raft.report_unreachable("1", process_ended=True))
    cluster.deliver_all()
    assert cluster.leader() == "4"
    assert cluster.raft("5").leader_id == "4"


def test_a_leader_that_lives_is_not_pushed_out_by_a_minority_that_takes_it_for_dead() -> None:
    cluster = Cluster("12345", options=OPTIONS)
    cluster.elect("1")
    term = cluster.raft("1").current_term
    for _ in range(3 * T):
        for server in "23":
            cluster.give(server, lambda raft: raft.report_unreachable("1", process_ended=True))
        cluster.deliver_all()
        cluster.run()
    assert (cluster.leader(), cluster.raft("1").current_term) == ("1", term)


# --- when the vote was split all the same ---


def test_the_higher_name_of_a_split_begins_anew_after_two_heartbeats() -> None:
    first = solo("2", "1234")
    first.campaign()
    first.step("1", RequestVote(2, 1, 1))
    for voter in "134":
        first.step(voter, RequestVoteResponse(2, vote_granted=False, request_term=2))
    assert first.role == "candidate"
    assert of(PreVote, [envelope.message for envelope in first.tick(PATIENCE - 1)]) == []
    sent = first.tick()
    assert {envelope.message for envelope in sent} == {PreVote(3, 1, 1)}
    assert (first.role, first.term) == ("precandidate", 2)


def test_the_lower_name_of_a_split_waits_for_its_time_out() -> None:
    second = solo("2", "1234")
    second.campaign()
    second.step("3", RequestVote(2, 1, 1))
    second.step("1", RequestVote(2, 1, 1))
    second.tick(T - 1)
    assert (second.role, second.term) == ("candidate", 2)
    for voter in "134":
        second.step(voter, RequestVoteResponse(2, vote_granted=False, request_term=2))
    assert second.role == "follower"


def test_a_candidate_without_a_rival_waits_for_its_time_out() -> None:
    """Nobody has split anything: a majority is silent."""
    alone = solo("2")
    alone.campaign()
    alone.tick(T - 1)
    assert (alone.role, alone.term) == ("candidate", 2)


def test_a_candidate_of_a_split_that_hears_the_winner_follows_it() -> None:
    first = solo("2", "12345")
    first.campaign()
    first.step("1", RequestVote(2, 1, 1))
    first.tick(PATIENCE - 1)
    first.step("1", AppendEntries(2, 1, 1, (), 0, 1))
    first.tick(PATIENCE)
    assert (first.role, first.raft.leader_id) == ("follower", "1")


# --- answers that come late ---


def test_a_refusal_of_an_older_request_ends_no_election() -> None:
    candidate = solo("1")
    candidate.campaign()
    for voter in "23":
        candidate.step(voter, RequestVoteResponse(2, vote_granted=False, request_term=1))
    assert candidate.role == "candidate"
    candidate.step("2", RequestVoteResponse(2, vote_granted=True, request_term=2))
    assert candidate.role == "leader"


def test_every_answer_to_a_vote_request_names_its_term() -> None:
    voter = solo("1", terms=(1, 1), term=3)
    requests = [RequestVote(2, 9, 9), RequestVote(3, 1, 1), RequestVote(4, 9, 9)]
    answers = [only(RequestVoteResponse, voter.step("2", request)) for request in requests]
    assert [answer.request_term for answer in answers] == [2, 3, 4]
    assert [answer.vote_granted for answer in answers] == [False, False, True]
