"""Ongaro's dissertation, where it goes beyond the paper: one claim a test."""

from __future__ import annotations

import pytest

from raftd.core.errors import NotCaughtUp, ProposalDropped, TransferRefused
from raftd.core.membership import Configuration, ConfigurationKind
from raftd.core.messages import (
    AppendEntries,
    AppendEntriesResponse,
    Envelope,
    PreVote,
    PreVoteResponse,
    RequestVote,
    RequestVoteResponse,
    TimeoutNow,
)
from raftd.core.types import Entry, HardState
from tests.core.harness import OPTIONS, Cluster, Disk, founding_entry
from tests.core.scenario import (
    Solo,
    acknowledge_all,
    change_of,
    command,
    configuration_entry,
    joint_leader,
    log_of,
    of,
    only,
    settled_leader,
)

T = OPTIONS.election_ticks


def _peer(solo: Solo, server: str) -> object:
    (found,) = [peer for peer in solo.raft.status().peers if peer.server == server]
    return found


# --- 3.10: leadership transfer ---


def test_the_target_is_told_once_its_log_is_complete() -> None:
    """3.10, steps 2 and 3: replicate all, then send TimeoutNow."""
    solo = settled_leader()
    solo.give(lambda raft: raft.propose(b"x"))
    sent = solo.give(lambda raft: raft.transfer_leadership("2"))
    assert of(TimeoutNow, sent) == []
    sent = solo.acknowledge("2", solo.last_index - 1)
    assert of(TimeoutNow, sent) == []
    sent = solo.acknowledge("2")
    assert [e.dest for e in sent if isinstance(e.message, TimeoutNow)] == ["2"]


def test_a_target_that_is_complete_is_told_at_once() -> None:
    """3.10."""
    solo = settled_leader()
    sent = solo.give(lambda raft: raft.transfer_leadership("2"))
    assert only(TimeoutNow, sent) == TimeoutNow(solo.term)


def test_a_lost_request_to_take_over_is_repeated() -> None:
    """3.10: messages may be lost; one repetition in a heartbeat is enough."""
    solo = settled_leader()
    solo.give(lambda raft: raft.transfer_leadership("2"))
    assert of(TimeoutNow, solo.acknowledge("2")) == []
    solo.tick()
    assert len(of(TimeoutNow, solo.acknowledge("2"))) == 1


def test_proposals_pause_while_leadership_is_handed_over() -> None:
    """3.10, step 1: the leader stops accepting new client requests."""
    solo = settled_leader()
    solo.give(lambda raft: raft.transfer_leadership("2"))
    with pytest.raises(ProposalDropped):
        solo.raft.propose(b"x")


def test_a_transfer_that_does_not_happen_ends_after_an_election_timeout() -> None:
    """3.10: then the leader aborts it and resumes accepting client requests."""
    solo = settled_leader()
    solo.give(lambda raft: raft.transfer_leadership("2"))
    for _ in range(T):
        with pytest.raises(ProposalDropped):
            solo.raft.propose(b"x")
        solo.tick()
        solo.acknowledge("3", 1)
    solo.raft.propose(b"x")
    assert solo.raft.status().transfer_target is None


def test_a_second_transfer_does_not_make_the_pause_longer() -> None:
    """3.10: proposals pause for at most one election timeout, however often it is asked for."""
    solo = settled_leader()
    solo.give(lambda raft: raft.transfer_leadership("2"))
    for _ in range(T):
        with pytest.raises(TransferRefused, match="being handed over already"):
            solo.raft.transfer_leadership("3")
        solo.tick()
        solo.acknowledge("3", 1)
    solo.raft.propose(b"x")


def test_a_change_of_configuration_cancels_a_transfer() -> None:
    """3.10 with 4.2: the target may not be a voter of what comes."""
    solo = settled_leader()
    solo.give(lambda raft: raft.transfer_leadership("2"))
    solo.give(lambda raft: raft.change_membership(change_of(("learner", "4"))))
    assert solo.raft.status().transfer_target is None
    solo.raft.propose(b"x")


@pytest.mark.parametrize(
    ("target", "why"), [("1", "leads already"), ("4", "not a voter"), ("9", "not a voter")]
)
def test_a_transfer_to_itself_a_learner_or_a_stranger_is_refused(target: str, why: str) -> None:
    """3.10: the target has to be able to win."""
    solo = settled_leader(learners="4")
    with pytest.raises(TransferRefused, match=why):
        solo.raft.transfer_leadership(target)


def test_a_transfer_to_a_silent_server_is_refused() -> None:
    """3.10: nobody would lead for an election timeout."""
    solo = settled_leader()
    for _ in range(3):
        solo.tick()
        solo.acknowledge("3")
    with pytest.raises(TransferRefused, match="not answered"):
        solo.raft.transfer_leadership("2")
    solo.raft.transfer_leadership("3")


def test_while_joint_the_target_is_a_voter_of_the_new_configuration() -> None:
    """3.10 with 4.3: a server that C_new drops would have to hand over again."""
    solo = joint_leader("123", "145")
    with pytest.raises(TransferRefused, match="not a voter"):
        solo.raft.transfer_leadership("2")
    solo.raft.transfer_leadership("4")


def test_the_target_campaigns_at_once_and_without_pre_vote() -> None:
    """3.10, step 3, and 9.6: the others still hear the old leader."""
    solo = Solo()
    solo.heartbeat("2")
    sent = solo.give(lambda raft: raft.step(Envelope("2", "1", TimeoutNow(1))))
    assert solo.role == "candidate"
    assert {request.leadership_transfer for request in of(RequestVote, sent)} == {True}
    assert solo.term == 2


@pytest.mark.parametrize("source", ["3", "stranger"])
def test_only_the_own_leader_can_make_a_server_campaign(source: str) -> None:
    """3.10: the prior leader sends TimeoutNow, nobody else."""
    solo = Solo()
    solo.heartbeat("2")
    solo.step(source, TimeoutNow(1))
    assert (solo.role, solo.term) == ("follower", 1)


def test_a_request_to_take_over_of_an_older_or_unknown_term_is_ignored() -> None:
    """3.10: it counts from the leader of the receiver's current term."""
    solo = Solo(term=3)
    solo.heartbeat("2")
    solo.step("2", TimeoutNow(2))
    solo.step("2", TimeoutNow(4))
    assert (solo.role, solo.term) == ("follower", 4)


def test_a_learner_does_not_take_over() -> None:
    """3.10 with 4.2.1: learners have no vote and start no election."""
    solo = Solo("4", learners="4")
    solo.heartbeat("2")
    solo.step("2", TimeoutNow(1))
    assert solo.role == "follower"


def test_a_vote_request_of_a_transfer_passes_stickiness() -> None:
    """4.2.3: with a flag that says that the leader has asked for it."""
    solo = Solo()
    solo.heartbeat("2")
    refused = only(RequestVoteResponse, solo.step("3", RequestVote(2, 1, 1)))
    assert not refused.vote_granted
    granted = only(RequestVoteResponse, solo.step("3", RequestVote(2, 1, 1, True)))
    assert granted.vote_granted


def test_leadership_moves_without_waiting_for_a_timeout() -> None:
    """3.10."""
    cluster = Cluster("123")
    cluster.elect("1")
    cluster.give("1", lambda raft: raft.transfer_leadership("2"))
    cluster.deliver_all()
    assert cluster.leader() == "2"
    assert cluster.role("1") == "follower"


# --- 4.2.1: catching up ---


def test_a_new_server_is_caught_up_after_a_short_round() -> None:
    """4.2.1: its availability is not harmed when it gets its vote."""
    solo = settled_leader(learners="4")
    assert _peer(solo, "4").caught_up  # type: ignore[attr-defined]
    assert solo.raft.leader().is_caught_up("4")


def test_a_new_server_that_has_acknowledged_nothing_is_not_caught_up() -> None:
    solo = settled_leader()
    solo.give(lambda raft: raft.change_membership(change_of(("learner", "4"))))
    solo.acknowledge("2")
    assert not solo.raft.leader().is_caught_up("4")
    with pytest.raises(NotCaughtUp, match="4"):
        solo.raft.change_membership(change_of(("voter", "4")))


def test_a_server_whose_last_round_was_long_is_not_caught_up() -> None:
    """4.2.1: the last round has to be shorter than an election timeout."""
    solo = settled_leader(learners="4")
    solo.give(lambda raft: raft.propose(b"x"))
    for _ in range(T + 1):
        solo.tick()
        solo.acknowledge("2")
        solo.acknowledge("4", solo.last_index - 1)
    assert not solo.raft.leader().is_caught_up("4")
    solo.acknowledge("4")
    # This round took too long; the next one decides.
    assert not solo.raft.leader().is_caught_up("4")
    solo.tick()
    solo.acknowledge("4")
    assert solo.raft.leader().is_caught_up("4")


def test_a_server_that_has_fallen_silent_is_not_caught_up() -> None:
    """4.2.1: a new server may be unavailable, or so slow that it never catches up."""
    solo = settled_leader(learners="4")
    for _ in range(T + 1):
        solo.tick()
        solo.acknowledge("2")
    assert not solo.raft.leader().is_caught_up("4")


def test_catching_up_takes_the_latest_configuration() -> None:
    solo = settled_leader(learners="4")
    solo.give(lambda raft: raft.change_membership(change_of(("learner", "5"))))
    assert not solo.raft.leader().is_caught_up("4")
    solo.acknowledge("4")
    assert solo.raft.leader().is_caught_up("4")


def test_the_new_voters_need_a_majority_in_contact_just_now() -> None:
    """4.2.1, 4.3: else C_old,new could not be committed."""
    solo = settled_leader("123", "4")
    for _ in range(3):
        solo.tick()
        solo.acknowledge("4")
    solo.acknowledge("4")
    with pytest.raises(NotCaughtUp, match="2, 3"):
        solo.raft.change_membership(change_of(("voter", "4")))
    solo.acknowledge("3")
    solo.raft.change_membership(change_of(("voter", "4")))


def test_a_new_server_gets_the_log_from_its_beginning() -> None:
    """4.2.1: its log is empty, and the hint brings the leader there in one step."""
    cluster = Cluster("123", blank="4")
    cluster.elect("1")
    for number in range(20):
        cluster.propose(b"%d" % number)
    cluster.change([("learner", "4")])
    cluster.run(4)
    assert cluster.log("4") == cluster.log("1")
    assert len(cluster.commands("4")) == 20


# --- 4.2.2 and 4.1: who is asked, and who may ask ---


@pytest.mark.parametrize("source", ["2", "stranger"])
@pytest.mark.parametrize("server", ["1", "4", "9"])
def test_receivers_are_blind_to_membership(server: str, source: str) -> None:
    """4.1: servers process requests whatever their configuration says about the sender.

    The receiver is a voter, a learner, or no member at all.
    """
    solo = Solo(server, learners="4")
    pre_vote = only(PreVoteResponse, solo.step(source, PreVote(2, 1, 1)))
    assert pre_vote.vote_granted
    vote = only(RequestVoteResponse, solo.step(source, RequestVote(2, 1, 1)))
    assert vote.vote_granted
    append = only(
        AppendEntriesResponse, solo.step(source, AppendEntries(2, 1, 1, (command(2, 2),), 1, 1))
    )
    assert append.success


def test_a_blank_server_votes_and_stores() -> None:
    """4.1: a new server's vote may be needed before it has its own configuration."""
    solo = Solo("4", entries=())
    assert only(RequestVoteResponse, solo.step("1", RequestVote(2, 1, 1))).vote_granted
    founding = founding_entry("123", "4")
    answer = only(AppendEntriesResponse, solo.step("1", AppendEntries(2, 0, 0, (founding,), 1, 1)))
    assert (answer.success, answer.match_index) == (True, 1)


@pytest.mark.parametrize(
    "solo",
    [Solo("4", entries=()), Solo("4", learners="4"), Solo("9")],
    ids=["blank", "learner", "stranger"],
)
def test_who_has_no_vote_starts_no_election(solo: Solo) -> None:
    """4.2.2: only a voter of the latest configuration, or of the one before, campaigns."""
    assert solo.tick(5 * T) == []
    assert solo.role == "follower"


def _with_final(*, committed: bool) -> Solo:
    """Server 1 after C_new = (2), which removes it, with C_new committed or not."""
    entries = [
        founding_entry("12"),
        configuration_entry(2, 1, ConfigurationKind.JOINT, Configuration("2", "12")),
        configuration_entry(3, 1, ConfigurationKind.FINAL, Configuration("2")),
    ]
    solo = Solo("1", entries=entries)
    if committed:
        solo.heartbeat("2", commit=3)
    return solo


def test_a_voter_of_the_configuration_before_campaigns_while_the_latest_is_uncommitted() -> None:
    """4.2.2: it may be the only one whose log is complete enough to win."""
    solo = _with_final(committed=False)
    solo.campaign()
    assert solo.role == "candidate"
    solo.step("2", RequestVoteResponse(solo.term, vote_granted=True))
    assert solo.role == "leader"


def test_the_own_vote_counts_only_where_the_configuration_lists_it() -> None:
    """4.2.2: a candidate outside C_new does not count itself."""
    entries = [
        founding_entry("123"),
        configuration_entry(2, 1, ConfigurationKind.JOINT, Configuration("23", "123")),
        configuration_entry(3, 1, ConfigurationKind.FINAL, Configuration("23")),
    ]
    solo = Solo("1", entries=entries)
    solo.campaign()
    solo.step("2", RequestVoteResponse(solo.term, vote_granted=True))
    assert solo.role == "candidate"
    solo.step("3", RequestVoteResponse(solo.term, vote_granted=True))
    assert solo.role == "leader"


def test_a_removed_server_that_knows_it_starts_no_election() -> None:
    """4.2.2, 4.2.3."""
    solo = _with_final(committed=True)
    assert solo.tick(5 * T) == []
    assert (solo.role, solo.term) == ("follower", 1)


# --- 4.2.3: disruptive servers ---


def test_a_vote_request_within_an_election_timeout_of_a_leader_is_refused() -> None:
    """4.2.3: and the term is not adopted."""
    solo = Solo()
    solo.heartbeat("2")
    solo.tick(T - 1)
    answer = only(RequestVoteResponse, solo.step("3", RequestVote(9, 99, 99)))
    assert answer == RequestVoteResponse(1, vote_granted=False, request_term=9)
    assert (solo.term, solo.raft.voted_for) == (1, None)


def test_a_pre_vote_within_an_election_timeout_of_a_leader_is_refused() -> None:
    """4.2.3 and 9.6."""
    solo = Solo()
    solo.heartbeat("2")
    solo.tick(T - 1)
    assert not only(PreVoteResponse, solo.step("3", PreVote(9, 99, 99))).vote_granted


@pytest.mark.parametrize("request_", [RequestVote(9, 99, 99), PreVote(9, 99, 99)])
def test_after_an_election_timeout_without_a_leader_votes_are_given(
    request_: RequestVote | PreVote,
) -> None:
    """4.2.3: the minimum election timeout, not this server's own longer one."""
    for seed in range(50):
        solo = Solo(seed=seed)
        solo.heartbeat("2")
        solo.tick(T)
        if solo.role == "follower":
            break
    answer = solo.answer("3", request_)
    assert isinstance(answer, RequestVoteResponse | PreVoteResponse)
    assert answer.vote_granted


def test_a_request_to_a_blank_or_fresh_server_is_not_held_up() -> None:
    """4.2.3: contact is an AppendEntries of this term, not the start of the process."""
    assert only(RequestVoteResponse, Solo().step("2", RequestVote(2, 1, 1))).vote_granted


def test_a_leader_that_is_heard_by_a_quorum_ignores_vote_requests() -> None:
    """4.2.3: a removed server cannot depose it."""
    solo = settled_leader()
    answer = only(RequestVoteResponse, solo.step("9", RequestVote(99, 99, 99)))
    assert not answer.vote_granted
    assert (solo.role, solo.term) == ("leader", 2)
    assert not only(PreVoteResponse, solo.step("9", PreVote(99, 99, 99))).vote_granted


def test_stepping_down_ends_contact() -> None:
    """4.2.3: a server that has learnt of a newer term believes in no leader."""
    solo = Solo()
    solo.heartbeat("2")
    solo.step("3", AppendEntriesResponse(5, False, 1, 0, 0))
    assert solo.raft.leader_id is None
    assert only(RequestVoteResponse, solo.step("3", RequestVote(6, 9, 9))).vote_granted


def test_a_deposed_leader_of_a_new_term_votes_at_once() -> None:
    solo = settled_leader()
    solo.step("2", RequestVoteResponse(5, vote_granted=False))
    assert solo.role == "follower"
    assert only(RequestVoteResponse, solo.step("3", RequestVote(6, 9, 9))).vote_granted


def test_a_cut_off_server_does_not_disturb_when_it_returns() -> None:
    """4.2.3 and 9.6: neither a new term nor an election."""
    cluster = Cluster("123")
    cluster.elect("1")
    term = cluster.raft("1").current_term
    cluster.partition("12", "3")
    cluster.run(10 * T)
    assert cluster.raft("3").current_term == term
    cluster.heal()
    cluster.run(3 * T)
    assert (cluster.leader(), cluster.raft("1").current_term) == ("1", term)
    assert cluster.raft("3").leader_id == "1"


# --- 6.2: check-quorum ---


def test_a_leader_that_hears_no_majority_steps_down_after_an_election_timeout() -> None:
    """6.2: so that clients need not wait for it for ever."""
    solo = settled_leader("12345")
    solo.tick(T - 1)
    assert solo.role == "leader"
    solo.acknowledge("2")
    solo.tick()
    assert (solo.role, solo.term, solo.raft.leader_id) == ("follower", 2, None)


def test_a_leader_with_a_majority_in_contact_stays() -> None:
    """6.2."""
    solo = settled_leader("12345")
    for _ in range(4 * T):
        solo.tick()
        solo.acknowledge("2")
        solo.acknowledge("3")
    assert solo.role == "leader"


def test_learners_do_not_keep_a_leader_in_office() -> None:
    """6.2: a majority of the voters."""
    solo = settled_leader("123", "45")
    for _ in range(T):
        solo.tick()
        solo.acknowledge("4")
        solo.acknowledge("5")
    assert solo.role == "follower"


def test_while_joint_the_old_half_has_to_be_in_contact() -> None:
    """6.2 with 4.3."""
    solo = joint_leader("123", "145")
    for _ in range(T):
        solo.tick()
        solo.acknowledge("4", 1)
        solo.acknowledge("5", 1)
    assert solo.role == "follower"


def test_a_leader_out_of_touch_with_one_half_is_not_confirmed() -> None:
    """4.2.3 with 4.3: it must not refuse votes by stickiness when it is about to step down."""
    for half in ("23", "45"):
        solo = joint_leader("123", "145")
        for _ in range(T - 1):
            solo.tick()
            for server in half:
                solo.acknowledge(server, 1)
        assert solo.raft.leader().in_contact_with_quorum()
        solo.raft.now += 1
        assert not solo.raft.leader().in_contact_with_quorum()


# --- 9.6: pre-vote ---


def test_a_pre_vote_changes_nothing_at_the_receiver() -> None:
    """9.6: neither term nor vote."""
    solo = Solo()
    answer = solo.answer("2", PreVote(7, 1, 1))
    assert answer == PreVoteResponse(1, 7, vote_granted=True)
    assert (solo.term, solo.raft.voted_for) == (1, None)
    assert all(ready.hard_state is None for ready in solo.readies)


def test_a_pre_candidate_changes_neither_its_term_nor_its_vote() -> None:
    """9.6: it increments its term only when a majority would vote for it."""
    solo = Solo()
    sent = solo.time_out()
    assert (solo.role, solo.term, solo.raft.voted_for) == ("precandidate", 1, None)
    assert {m.term for m in of(PreVote, sent)} == {2}
    solo.step("2", PreVoteResponse(1, 2, vote_granted=True))
    assert (solo.role, solo.term, solo.raft.voted_for) == ("candidate", 2, "1")


def test_granting_a_pre_vote_does_not_reset_the_timer() -> None:
    """9.6: else a server that cannot win would keep others from trying."""
    for seed in range(5):
        with_pre_votes, without = Solo(seed=seed), Solo(seed=seed)
        for _ in range(2 * T):
            with_pre_votes.step("2", PreVote(2, 1, 1))
            with_pre_votes.tick()
            without.tick()
            assert with_pre_votes.role == without.role


def test_a_pre_vote_for_a_term_that_is_not_new_is_refused() -> None:
    """9.6: a vote of that term could not be given."""
    solo = Solo(term=5)
    answer = only(PreVoteResponse, solo.step("2", PreVote(5, 9, 9)))
    assert answer == PreVoteResponse(5, 5, vote_granted=False)


def test_a_refusal_teaches_a_pre_candidate_the_newer_term() -> None:
    """9.6: else a server with the best log and an old term could never be elected."""
    solo = Solo()
    solo.time_out()
    solo.step("2", PreVoteResponse(7, 2, vote_granted=False))
    assert (solo.role, solo.term) == ("follower", 7)


def test_a_granted_pre_vote_teaches_no_term() -> None:
    """9.6: the grant says that the term asked for is new to the responder."""
    solo = Solo(voters="12345")
    solo.time_out()
    solo.step("2", PreVoteResponse(7, 2, vote_granted=True))
    assert (solo.role, solo.term) == ("precandidate", 1)


def test_pre_votes_of_another_round_do_not_count() -> None:
    """9.6: a reply belongs to the term that was asked for."""
    solo = Solo()
    solo.time_out()
    solo.step("2", PreVoteResponse(1, 3, vote_granted=True))
    solo.step("3", PreVoteResponse(1, 1, vote_granted=True))
    assert solo.role == "precandidate"


def test_a_pre_vote_is_no_vote() -> None:
    """9.6: replies of one kind never count for the other."""
    solo = Solo()
    solo.time_out()
    solo.step("2", RequestVoteResponse(1, vote_granted=True))
    assert solo.role == "precandidate"
    candidate = Solo()
    candidate.campaign()
    candidate.step("3", PreVoteResponse(2, 3, vote_granted=True))
    assert candidate.role == "candidate"


def test_a_pre_candidate_forgets_its_leader() -> None:
    """9.6 with 4.2.3: it must not refuse others for a leader that it has given up."""
    solo = Solo()
    solo.heartbeat("2")
    solo.time_out()
    assert solo.raft.leader_id is None
    assert only(PreVoteResponse, solo.step("3", PreVote(2, 1, 1))).vote_granted
    assert only(RequestVoteResponse, solo.step("3", RequestVote(2, 1, 1))).vote_granted


def test_a_pre_candidate_that_hears_a_leader_follows_it() -> None:
    solo = Solo()
    solo.time_out()
    solo.heartbeat("2")
    assert (solo.role, solo.raft.leader_id) == ("follower", "2")


def test_the_best_log_with_an_old_term_is_elected() -> None:
    """9.6: 1 has the newest entries and term 1, 2 has seen term 9, 3 is down."""
    cluster = Cluster("123")
    for server, terms, term in (("1", [1, 1, 1], 1), ("2", [1], 9), ("3", [1], 9)):
        cluster.servers[server].disk = Disk(log_of(terms, founding_entry("123")), term)
        cluster.restart(server)
    cluster.crash("3")
    cluster.run(8 * T)
    assert cluster.leader() == "1"
    assert [term for _, term in cluster.log("2")] == [1, 1, 1, 10]


def test_two_cohorts_that_refuse_each_other_find_a_leader() -> None:
    """9.6: one has the longest log and a low term, the other the high term."""
    cluster = Cluster("123456")
    for server in "123":
        cluster.servers[server].disk = Disk(log_of([1, 2, 2, 2], founding_entry("123456")), 2)
        cluster.restart(server)
    for server in "456":
        cluster.servers[server].disk = Disk(log_of([1, 2], founding_entry("123456")), 8)
        cluster.restart(server)
    cluster.run(10 * T)
    assert cluster.leader() in "123"


def test_while_joint_pre_votes_need_both_halves() -> None:
    """9.6 with 4.3."""
    entries = [
        founding_entry("123"),
        configuration_entry(2, 1, ConfigurationKind.JOINT, Configuration("145", "123")),
    ]
    solo = Solo(entries=entries)
    solo.time_out()
    for voter in "23":
        solo.step(voter, PreVoteResponse(1, 2, vote_granted=True))
    assert solo.role == "precandidate"
    solo.step("4", PreVoteResponse(1, 2, vote_granted=True))
    assert solo.role == "candidate"


# --- 10.2.1: the leader's disk works in parallel ---


def test_a_leaders_entries_leave_before_they_are_on_its_own_disk() -> None:
    """10.2.1: replication and the leader's own write overlap."""
    solo = settled_leader()
    solo.raft.propose(b"x")
    ready = solo.raft.take_ready()
    assert ready is not None
    assert len(of(AppendEntries, ready.early_messages)) == 2
    assert [entry.data for entry in ready.entries] == [b"x"]
    solo.raft.persisted(ready)


def test_pre_votes_need_no_disk() -> None:
    """9.6, 10.2.1: they promise nothing."""
    solo = Solo()
    while solo.role == "follower":
        solo.raft.tick()
    ready = solo.raft.take_ready()
    assert ready is not None
    assert len(of(PreVote, ready.early_messages)) == 2
    assert (ready.hard_state, ready.messages) == (None, ())


@pytest.mark.parametrize(
    "message",
    [
        PreVote(3, 9, 9),
        RequestVote(3, 9, 9),
        AppendEntries(2, 1, 1, (command(2, 2),), 1, 1),
        AppendEntries(2, 5, 2, (), 1, 1),
        AppendEntries(1, 1, 1, (), 1, 1),
    ],
)
def test_answers_wait_for_the_disk(message: object) -> None:
    """10.2.1: only the leader's own replication may run ahead of the disk."""
    solo = Solo(term=2)
    solo.raft.step(Envelope("2", "1", message))  # type: ignore[arg-type]
    ready = solo.raft.take_ready()
    assert ready is not None
    assert ready.early_messages == ()
    assert len(ready.messages) == 1


def test_the_leaders_messages_wait_for_its_term() -> None:
    """3.8: no message of a term leaves before the term is durable.

    With a majority of one the leader of the new term exists within the same turn.
    """
    entries: list[Entry] = [founding_entry("1", "4")]
    solo = Solo(entries=entries)
    durable = solo.raft.durable_term
    for _ in range(3 * T):
        solo.raft.tick()
        while (ready := solo.raft.take_ready()) is not None:
            for append in of(AppendEntries, ready.early_messages):
                assert append.term <= durable
            if ready.hard_state is not None:
                durable = ready.hard_state.current_term
            solo.raft.persisted(ready)
            assert solo.raft.durable_term == durable
    assert solo.role == "leader"


def test_messages_of_a_term_that_is_not_durable_are_not_early() -> None:
    """3.8: the rule for any AppendEntries, whoever asked for it."""
    solo = settled_leader()
    solo.raft._durable_hard_state = HardState(1)
    solo.raft.send("2", AppendEntries(2, 1, 1, (), 0, 1))
    ready = solo.raft.take_ready()
    assert ready is not None
    assert [m.prev_log_index for m in of(AppendEntries, ready.messages)] == [1]
    assert of(AppendEntries, ready.early_messages) == []
    solo.raft.persisted(ready)


# --- a disk that goes back in time (11.3, 3.8) ---


def test_a_follower_that_lacks_what_it_acknowledged_is_fenced() -> None:
    """3.8: the protocol rests on disks that keep what they have acknowledged."""
    solo = settled_leader()
    solo.give(lambda raft: raft.propose(b"x"))
    solo.acknowledge("2")
    solo.tick()
    lost = AppendEntriesResponse(
        solo.term, False, solo.round, solo.last_index, 0, 0, solo.last_index, solo.last_index - 1
    )
    solo.step("2", lost)
    assert _peer(solo, "2").fenced  # type: ignore[attr-defined]
    before = solo.commit_index
    solo.give(lambda raft: raft.propose(b"y"))
    solo.acknowledge("2")
    assert solo.commit_index == before
    assert not [e for e in solo.tick() if e.dest == "2"]
    solo.acknowledge("3")
    assert solo.commit_index == solo.last_index


def test_what_a_fenced_follower_acknowledged_before_counts_no_more() -> None:
    """3.8: it may be lost, so it is on no majority any more."""
    solo = settled_leader("12345")
    solo.give(lambda raft: raft.propose(b"x"))
    solo.acknowledge("2")
    solo.tick()
    solo.step("2", AppendEntriesResponse(solo.term, False, solo.round, 3, 0, 0, 1, 0))
    solo.acknowledge("3")
    assert solo.commit_index == solo.last_index - 1
    solo.acknowledge("4")
    assert solo.commit_index == solo.last_index


def test_a_fenced_follower_confirms_nothing() -> None:
    """3.8 with 6.2 and 6.4."""
    solo = settled_leader()
    solo.tick()
    solo.step("2", AppendEntriesResponse(solo.term, False, solo.round, solo.last_index, 0, 0, 1, 0))
    solo.give(lambda raft: raft.read("r"))
    solo.acknowledge("2")
    assert solo.reads == []
    for _ in range(T):
        solo.tick()
        solo.acknowledge("2")
    assert solo.role == "follower"


def test_a_refusal_that_was_overtaken_does_not_fence() -> None:
    """5.5 of the paper: messages may be reordered."""
    solo = settled_leader()
    solo.give(lambda raft: raft.propose(b"x"))
    old_round = solo.round
    refusal = AppendEntriesResponse(
        solo.term, False, old_round, solo.last_index, 0, 0, solo.last_index, solo.last_index - 1
    )
    solo.acknowledge("2")
    solo.step("2", refusal)
    assert not _peer(solo, "2").fenced  # type: ignore[attr-defined]


def test_acknowledge_all_is_a_quorum() -> None:
    solo = settled_leader("12345")
    solo.give(lambda raft: raft.propose(b"x"))
    acknowledge_all(solo, "2", "3")
    assert solo.commit_index == solo.last_index


def test_the_answer_to_a_request_of_an_earlier_term_does_not_fence() -> None:
    """A shorter log is shown to be a lost one only by answers of this term's rounds."""
    solo = settled_leader()
    solo.acknowledge("2")
    solo.tick(4)
    refusal = AppendEntriesResponse(solo.term, False, 0, 0, 0)
    solo.step("2", refusal)
    assert not _peer(solo, "2").fenced  # type: ignore[attr-defined]
