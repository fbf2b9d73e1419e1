"""The Raft paper (extended version), one claim a test.

Most tests have one server and hand it messages; the rest let a small group run.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftd.core.errors import NotLeader, ProposalDropped
from raftd.core.leader import UNCOMMITTED_ENTRIES_MAX
from raftd.core.messages import (
    AppendEntries,
    AppendEntriesResponse,
    Envelope,
    Message,
    PreVoteResponse,
    RequestVote,
    RequestVoteResponse,
    TimeoutNow,
)
from raftd.core.types import Entry, EntryKind, HardState
from tests.core.harness import OPTIONS, Cluster, Disk, founding_entry
from tests.core.scenario import Solo, command, log_of, of, only, settled_leader

T = OPTIONS.election_ticks


def _start(cluster: Cluster, server: str, terms: list[int], term: int | None = None) -> None:
    """Put `server` on a disk with a log of `terms` and restart it."""
    disk = Disk(log_of(terms, founding_entry(cluster.servers)), term or terms[-1])
    cluster.servers[server].disk = disk
    cluster.restart(server)


def _request(solo: Solo, term: int, **extra: object) -> RequestVote:
    log = solo.raft.log
    return RequestVote(term, log.last_index, log.last_term, **extra)  # type: ignore[arg-type]


# --- Figure 2: persistent state ---


def test_term_and_vote_are_durable_before_the_vote_leaves() -> None:
    """Figure 2, persistent state: updated on stable storage before responding to RPCs."""
    solo = Solo()
    solo.raft.step(Envelope("2", "1", _request(solo, 5)))
    ready = solo.raft.take_ready()
    assert ready is not None
    assert ready.hard_state == HardState(5, "2")
    assert ready.early_messages == ()
    assert only(RequestVoteResponse, ready.messages).vote_granted


def test_a_new_term_is_durable_before_any_answer_in_it() -> None:
    """Figure 2, persistent state: the term goes to stable storage before the response."""
    solo = Solo()
    solo.raft.step(Envelope("2", "1", AppendEntries(7, 1, 1, (), 0, 1)))
    ready = solo.raft.take_ready()
    assert ready is not None
    assert ready.hard_state == HardState(7, None)
    assert ready.early_messages == ()
    assert only(AppendEntriesResponse, ready.messages).term == 7


def test_vote_requests_wait_for_the_candidates_own_vote() -> None:
    """Figure 2, persistent state: currentTerm and votedFor precede every message of the term."""
    solo = Solo()
    solo.time_out()
    reply = PreVoteResponse(solo.term, solo.term + 1, vote_granted=True)
    solo.raft.step(Envelope("2", "1", reply))
    ready = solo.raft.take_ready()
    assert ready is not None
    assert ready.hard_state == HardState(2, "1")
    assert of(RequestVote, ready.early_messages) == []
    assert len(of(RequestVote, ready.messages)) == 2


def test_entries_are_acknowledged_only_once_they_are_durable() -> None:
    """Figure 2, persistent state: log[] is updated on stable storage before responding."""
    solo = Solo()
    solo.raft.step(Envelope("2", "1", AppendEntries(1, 1, 1, (command(2, 1),), 0, 1)))
    ready = solo.raft.take_ready()
    assert ready is not None
    assert [entry.index for entry in ready.entries] == [2]
    assert ready.early_messages == ()
    assert only(AppendEntriesResponse, ready.messages).match_index == 2


def test_a_vote_survives_a_restart() -> None:
    """5.2: each server votes for at most one candidate in a term, also across a crash."""
    solo = Solo(term=3, voted_for="2")
    assert not only(RequestVoteResponse, solo.step("3", _request(solo, 3))).vote_granted
    assert only(RequestVoteResponse, solo.step("2", _request(solo, 3))).vote_granted


def test_the_own_vote_counts_only_once_it_is_durable() -> None:
    """5.2 with Figure 2: a vote that a crash can take back must not elect anybody."""
    solo = Solo(voters="1")
    while solo.role == "follower":
        solo.raft.tick()
    assert solo.role == "candidate"
    ready = solo.raft.take_ready()
    assert ready is not None
    assert solo.role == "candidate"
    solo.raft.persisted(ready)
    assert solo.role == "leader"


def test_a_vote_that_comes_early_does_not_make_up_for_the_own_one() -> None:
    """5.2 with Figure 2: two of three votes are needed, and one of these is not durable yet."""
    solo = Solo()
    solo.time_out()
    solo.raft.step(Envelope("2", "1", PreVoteResponse(1, 2, vote_granted=True)))
    assert solo.role == "candidate"
    solo.raft.step(Envelope("2", "1", RequestVoteResponse(2, vote_granted=True)))
    assert solo.role == "candidate"
    solo.work()
    assert solo.role == "leader"


# --- Figure 2: rules for all servers ---


@pytest.mark.parametrize(
    "message",
    [
        RequestVote(9, 0, 0),
        RequestVoteResponse(9, vote_granted=False),
        AppendEntries(9, 0, 0, (), 0, 1),
        AppendEntriesResponse(9, False, 1, 0, 0),
        PreVoteResponse(9, 2, vote_granted=False),
        TimeoutNow(9),
    ],
)
@pytest.mark.parametrize("role", ["follower", "precandidate", "candidate", "leader"])
def test_a_higher_term_makes_anybody_a_follower_of_that_term(role: str, message: Message) -> None:
    """Figure 2, all servers: a higher term in a request or response is adopted.

    5.1: a candidate or leader that finds its term out of date becomes a follower at once.
    """
    solo = Solo()
    if role == "precandidate":
        solo.time_out()
    elif role == "candidate":
        solo.campaign()
    elif role == "leader":
        solo.lead()
        # A leader within its check-quorum refuses vote requests (dissertation 4.2.3).
        for _ in range(T - 1):
            solo.raft.tick()
        solo.raft.now += 1
    assert solo.role == role
    solo.step("2", message)
    assert (solo.role, solo.term) == ("follower", 9)


def test_a_leader_that_is_deposed_says_so() -> None:
    """5.1: what it had proposed may still be committed by another leader: it is unknown."""
    solo = settled_leader()
    solo.heartbeat("2", term=5)
    assert solo.readies[-1].lost_leadership or solo.readies[-2].lost_leadership


def test_requests_of_a_stale_term_are_answered_with_the_current_one() -> None:
    """Figure 2, receiver step 1: reply false if term < currentTerm."""
    solo = Solo(terms=(1, 1, 1), term=4)
    vote = only(RequestVoteResponse, solo.step("2", _request(solo, 3)))
    assert vote == RequestVoteResponse(4, vote_granted=False, request_term=3)
    append = AppendEntries(3, 1, 1, (command(2, 3),), 3, 8)
    answer = only(AppendEntriesResponse, solo.step("2", append))
    # Rounds of an older term say nothing about those of the current one.
    assert (answer.term, answer.success, answer.round) == (4, False, 0)
    assert solo.terms == [1, 1, 1]
    assert solo.commit_index == 0
    assert solo.raft.leader_id is None


def test_replies_of_a_stale_term_are_ignored() -> None:
    """5.1: a server rejects what carries a stale term."""
    solo = Solo()
    solo.campaign()
    solo.time_out()
    solo.step("2", PreVoteResponse(solo.term, solo.term + 1, vote_granted=True))
    assert (solo.role, solo.term) == ("candidate", 3)
    solo.step("2", RequestVoteResponse(2, vote_granted=True))
    assert solo.role == "candidate"
    solo.step("2", RequestVoteResponse(3, vote_granted=True))
    assert solo.role == "leader"


def test_committed_entries_are_applied_in_order_and_once() -> None:
    """Figure 2, all servers: while commitIndex > lastApplied, apply the next entry."""
    solo = Solo(terms=(1, 1, 1, 1))
    for commit in (2, 2, 4, 3):
        solo.heartbeat("2", commit=commit)
    assert [entry.index for entry in solo.applied] == [1, 2, 3, 4]


# --- 5.2: leader election ---


def test_servers_start_as_followers() -> None:
    """5.2: when servers start up, they begin as followers, whatever they were before."""
    assert Solo(term=5, voted_for="1").role == "follower"


def test_a_follower_that_hears_nothing_starts_an_election() -> None:
    """5.2: without communication over an election timeout it assumes that there is no leader."""
    solo = Solo()
    sent = solo.tick(2 * T)
    assert {envelope.dest for envelope in sent} == {"2", "3"}
    assert solo.role == "precandidate"


def test_heartbeats_keep_a_follower_from_campaigning() -> None:
    """5.2: it stays a follower as long as it receives valid RPCs from a leader."""
    solo = Solo()
    for _ in range(10):
        assert solo.tick(T - 1) == []
        solo.heartbeat("2")
    assert solo.role == "follower"


def test_granting_a_vote_keeps_a_follower_from_campaigning() -> None:
    """Figure 2, followers: the time-out runs from the last vote that was granted, too."""
    solo = Solo()
    for term in range(2, 8):
        assert solo.tick(T - 1) == []
        assert only(RequestVoteResponse, solo.step("2", _request(solo, term))).vote_granted
    assert solo.role == "follower"


def test_refusing_a_vote_does_not_keep_it_from_campaigning() -> None:
    """Figure 2, followers: only granting a vote to a candidate resets the timer."""
    solo = Solo(terms=(1, 1, 1))
    solo.tick(T - 1)
    for _ in range(T + 1):
        assert not only(RequestVoteResponse, solo.step("2", RequestVote(2, 1, 1))).vote_granted
        solo.tick()
    assert solo.role == "precandidate"


def test_a_candidate_increments_its_term_votes_for_itself_and_asks_the_others() -> None:
    """5.2 and Figure 2, candidates."""
    solo = Solo(terms=(1, 2, 2))
    sent = solo.campaign()
    assert solo.term == 3
    assert solo.raft.voted_for == "1"
    requests = [envelope for envelope in sent if isinstance(envelope.message, RequestVote)]
    assert [envelope.dest for envelope in requests] == ["2", "3"]
    assert {envelope.message for envelope in requests} == {RequestVote(3, 3, 2)}


def test_a_candidate_wins_with_a_majority_of_the_same_term() -> None:
    """5.2: it wins if it receives votes from a majority of the full cluster in the same term."""
    solo = Solo(voters="12345")
    solo.campaign()
    solo.step("2", RequestVoteResponse(solo.term, vote_granted=True))
    assert solo.role == "candidate"
    solo.step("3", RequestVoteResponse(solo.term, vote_granted=True))
    assert solo.role == "leader"


def test_a_voter_counts_once() -> None:
    """5.2: votes come from a majority of servers, however often a message is delivered."""
    solo = Solo(voters="12345")
    solo.campaign()
    for _ in range(3):
        solo.step("2", RequestVoteResponse(solo.term, vote_granted=True))
    assert solo.role == "candidate"


def test_a_vote_counts_although_a_late_copy_of_an_older_request_was_refused_before() -> None:
    """5.1 and 5.2: a request of an older term is refused with the term of now."""
    solo = Solo()
    solo.campaign()
    solo.step("2", RequestVoteResponse(solo.term, vote_granted=False))
    solo.step("2", RequestVoteResponse(solo.term, vote_granted=True))
    assert solo.role == "leader"


def test_votes_of_strangers_count_nothing() -> None:
    """5.2: a majority of the servers of the cluster."""
    solo = Solo(voters="12345", learners="6")
    solo.campaign()
    for stranger in "6789":
        solo.step(stranger, RequestVoteResponse(solo.term, vote_granted=True))
    assert solo.role == "candidate"


def test_a_winner_establishes_its_authority_at_once() -> None:
    """5.2: it sends heartbeat messages to all of the other servers."""
    solo = Solo()
    sent = solo.lead()
    heartbeats = [e for e in sent if isinstance(e.message, AppendEntries)]
    assert [e.dest for e in heartbeats] == ["2", "3"]


def test_a_server_votes_first_come_first_served() -> None:
    """5.2: for at most one candidate in a given term."""
    solo = Solo()
    assert only(RequestVoteResponse, solo.step("2", _request(solo, 2))).vote_granted
    assert not only(RequestVoteResponse, solo.step("3", _request(solo, 2))).vote_granted
    assert only(RequestVoteResponse, solo.step("2", _request(solo, 2))).vote_granted
    assert only(RequestVoteResponse, solo.step("3", _request(solo, 3))).vote_granted


def test_a_vote_for_a_server_with_an_empty_name_is_a_vote() -> None:
    """5.2: voted for nobody and voted for a falsy name are different things."""
    solo = Solo(voters=("1", "", "3"))
    assert only(RequestVoteResponse, solo.step("", _request(solo, 2))).vote_granted
    assert not only(RequestVoteResponse, solo.step("3", _request(solo, 2))).vote_granted


def test_a_candidate_steps_down_for_a_leader_of_its_own_term() -> None:
    """5.2: a leader whose term is at least as large is recognised as legitimate."""
    solo = Solo()
    solo.campaign()
    solo.heartbeat("2")
    assert (solo.role, solo.term, solo.raft.leader_id) == ("follower", 2, "2")


def test_a_candidate_rejects_a_leader_of_an_older_term() -> None:
    """5.2: if the term is smaller, it rejects the RPC and continues in candidate state."""
    solo = Solo()
    solo.campaign()
    assert not only(AppendEntriesResponse, [solo.heartbeat("2", term=1)]).success
    assert solo.role == "candidate"


def test_stepping_down_within_a_term_keeps_the_vote() -> None:
    """5.2: a former candidate has spent its vote of the term on itself.

    The request that makes it step down may even be refused for its log.
    """
    solo = Solo()
    solo.campaign()
    refused = solo.answer("2", AppendEntries(solo.term, 9, 2, (), 0, 1))
    assert isinstance(refused, AppendEntriesResponse)
    assert not refused.success
    assert solo.role == "follower"
    solo.tick(T)
    solo.raft.leader_id = None
    assert not only(RequestVoteResponse, solo.step("3", _request(solo, solo.term))).vote_granted


def test_a_candidate_that_nobody_elects_starts_over() -> None:
    """5.2: each candidate times out and starts a new election."""
    solo = Solo()
    solo.campaign()
    solo.time_out()
    assert solo.role == "precandidate"
    solo.step("2", PreVoteResponse(solo.term, solo.term + 1, vote_granted=True))
    assert (solo.role, solo.term) == ("candidate", 3)


def test_a_candidate_asks_again_who_has_not_answered() -> None:
    """5.1: servers retry requests that are not answered in a timely manner.

    A pre-vote that is refused may be granted a moment later, a vote may not.
    """
    solo = Solo(voters=("1", "2", "3", "4", "5"))
    solo.time_out()
    solo.step("2", PreVoteResponse(solo.term, solo.term + 1, vote_granted=False))
    for _ in range(OPTIONS.heartbeat_ticks - 1):
        assert not solo.tick()
    assert [envelope.dest for envelope in solo.tick()] == ["2", "3", "4", "5"]
    for voter in "24":
        solo.step(voter, PreVoteResponse(solo.term, solo.term + 1, vote_granted=True))
    assert solo.role == "candidate"
    solo.step("3", RequestVoteResponse(solo.term, vote_granted=False))
    solo.step("4", RequestVoteResponse(solo.term, vote_granted=True))
    for _ in range(OPTIONS.heartbeat_ticks - 1):
        assert not solo.tick()
    again = solo.tick()
    assert [envelope.dest for envelope in again] == ["2", "5"]
    assert all(envelope.message.term == solo.term for envelope in again)


def test_a_candidate_that_is_outvoted_steps_down() -> None:
    """5.2: a majority of refusals decides the election as well."""
    solo = Solo()
    solo.campaign()
    solo.step("2", RequestVoteResponse(solo.term, vote_granted=False))
    assert solo.role == "candidate"
    solo.step("3", RequestVoteResponse(solo.term, vote_granted=False))
    assert (solo.role, solo.term) == ("follower", 2)


def test_election_timeouts_are_random_in_a_fixed_interval() -> None:
    """5.2: chosen randomly from [T, 2T), anew for each election."""
    seen = set()
    for seed in range(60):
        solo = Solo(seed=seed)
        ticks = 0
        while solo.role == "follower":
            solo.tick()
            ticks += 1
        seen.add(ticks)
    assert seen == set(range(T, 2 * T))


def test_a_split_vote_is_resolved_by_random_timeouts() -> None:
    """5.2: after a split vote somebody times out first and wins before the others do."""
    for seed in range(10):
        cluster = Cluster("1234", seed=seed)
        cluster.partition("12", "34")
        for server in "13":
            raft = cluster.raft(server)
            raft._pre_campaign()
            raft._campaign()
            cluster.settle(server)
        cluster.deliver_all()
        assert {cluster.role("1"), cluster.role("3")} == {"candidate"}
        assert cluster.raft("2").voted_for == "1"
        assert cluster.raft("4").voted_for == "3"
        cluster.heal()
        cluster.run_until(lambda c=cluster: any(c.role(s) == "leader" for s in "1234"))  # type: ignore[misc]


def test_only_one_leader_in_a_term() -> None:
    """5.2, Election Safety: two candidates of a term cannot both have a majority."""
    cluster = Cluster("123")
    for server in "12":
        raft = cluster.raft(server)
        raft._pre_campaign()
        raft._campaign()
        cluster.settle(server)
    cluster.deliver_all()
    assert sorted(cluster.role(server) for server in "12") != ["leader", "leader"]


# --- 5.3: log replication ---


def test_a_follower_refuses_proposals_and_names_the_leader() -> None:
    """Section 8: a server that is not the leader says which one is, as far as it knows."""
    solo = Solo()
    with pytest.raises(NotLeader) as unknown:
        solo.raft.propose(b"x")
    assert unknown.value.leader_id is None
    solo.heartbeat("2")
    with pytest.raises(NotLeader) as known:
        solo.raft.propose(b"x")
    assert known.value.leader_id == "2"


def test_a_leader_appends_and_sends_in_parallel() -> None:
    """5.3: it appends the command and issues AppendEntries to each of the others."""
    solo = settled_leader()
    sent = solo.give(lambda raft: raft.propose(b"x"))
    assert solo.raft.log.entry(solo.last_index).data == b"x"
    for envelope in sent:
        assert isinstance(envelope.message, AppendEntries)
        assert [entry.data for entry in envelope.message.entries] == [b"x"]
        assert envelope.message.prev_log_index == solo.last_index - 1
    assert [envelope.dest for envelope in sent] == ["2", "3"]


def test_proposals_are_pipelined() -> None:
    """5.3: the next entries are sent before the earlier ones are acknowledged."""
    solo = settled_leader()
    solo.give(lambda raft: raft.propose(b"x"))
    sent = solo.give(lambda raft: raft.propose(b"y"))
    assert [entry.data for m in of(AppendEntries, sent) for entry in m.entries] == [b"y", b"y"]


def test_proposals_of_one_turn_share_a_message() -> None:
    solo = settled_leader()
    for number in range(5):
        solo.raft.propose(b"%d" % number)
    sent = of(AppendEntries, solo.work())
    assert [len(message.entries) for message in sent] == [5, 5]


def test_an_entry_is_committed_when_a_majority_has_it_and_the_leader_learns_it() -> None:
    """5.3: committed once the leader that created the entry has replicated it on a majority."""
    solo = settled_leader("12345")
    solo.give(lambda raft: raft.propose(b"x"))
    solo.acknowledge("2")
    assert solo.commit_index == solo.last_index - 1
    solo.acknowledge("3")
    assert solo.commit_index == solo.last_index


def test_committing_an_entry_commits_all_that_precede_it() -> None:
    """5.3: including entries created by previous leaders."""
    solo = Solo(terms=(1, 1, 2, 2))
    solo.lead()
    assert solo.commit_index == 0
    solo.acknowledge("2")
    assert solo.commit_index == 5
    assert [entry.index for entry in solo.applied] == [1, 2, 3, 4, 5]


def test_the_leaders_own_entry_counts_only_once_it_is_durable() -> None:
    """Figure 2, persistent state; 5.3: a majority of disks, the leader's among them."""
    solo = settled_leader()
    solo.raft.propose(b"x")
    ready = solo.raft.take_ready()
    assert ready is not None
    assert ready.entries[-1].data == b"x"
    assert solo.commit_index == solo.last_index - 1
    solo.raft.persisted(ready)
    solo.acknowledge("2")
    assert solo.commit_index == solo.last_index


def test_a_single_server_commits_only_what_is_durable() -> None:
    """Figure 2, persistent state: there is nobody else whose disk could have it."""
    solo = Solo(voters="1")
    solo.lead()
    solo.raft.propose(b"x")
    ready = solo.raft.take_ready()
    assert ready is not None
    assert ready.committed == ()
    assert solo.commit_index == solo.last_index - 1
    solo.raft.persisted(ready)
    assert solo.commit_index == solo.last_index


def test_an_acknowledgement_does_not_make_the_leaders_own_entries_durable() -> None:
    """Figure 2, persistent state: the only voter's entry waits for the only voter's disk."""
    solo = Solo(voters="1", learners="4")
    solo.lead()
    solo.acknowledge("4")
    solo.raft.propose(b"x")
    answer = AppendEntriesResponse(solo.term, True, solo.round, solo.last_index - 1, 0)
    solo.raft.step(Envelope("4", "1", answer))
    assert solo.commit_index == solo.last_index - 1
    solo.work()
    assert solo.commit_index == solo.last_index


def test_the_acknowledgements_of_strangers_and_learners_commit_nothing() -> None:
    """5.3: a majority of the servers of the cluster."""
    solo = settled_leader("12345", learners="6")
    solo.give(lambda raft: raft.propose(b"x"))
    for other in "26789":
        solo.acknowledge(other)
    assert solo.commit_index == solo.last_index - 1


def test_an_acknowledgement_beyond_the_log_is_ignored() -> None:
    solo = settled_leader()
    for source in "23":
        solo.acknowledge(source, solo.last_index + 5)
    solo.give(lambda raft: raft.propose(b"x"))
    assert solo.commit_index == solo.last_index - 1


def test_followers_learn_the_commit_index_from_the_leader() -> None:
    """5.3: the leader includes the highest index that it knows to be committed."""
    solo = Solo(terms=(1, 1, 1))
    solo.heartbeat("2", commit=2)
    assert solo.commit_index == 2
    assert [entry.index for entry in solo.applied] == [1, 2]


def test_the_commit_index_stays_within_what_the_request_verified() -> None:
    """Figure 2, receiver step 5: min(leaderCommit, index of last new entry).

    Entry 3 here is of a deposed leader; the heartbeat has only shown that entry 2 matches.
    """
    solo = Solo(terms=(1, 1, 1), term=2)
    solo.heartbeat("2", prev=2, commit=3)
    assert solo.commit_index == 2
    solo.heartbeat("2", prev=2, commit=3, entries=[command(3, 2)])
    assert solo.commit_index == 3
    assert solo.terms == [1, 1, 2]


def test_the_commit_index_never_goes_back() -> None:
    """Figure 2, volatile state: commitIndex increases monotonically."""
    solo = Solo(terms=(1, 1, 1))
    solo.heartbeat("2", commit=3)
    solo.heartbeat("2", prev=1, commit=1)
    assert solo.commit_index == 3


def test_a_follower_refuses_entries_whose_predecessor_it_lacks() -> None:
    """5.3, the consistency check: same index and term, or the entries are refused."""
    solo = Solo(terms=(1, 1, 1), term=2)
    missing = solo.answer("2", AppendEntries(2, 5, 2, (command(6, 2),), 0, 1))
    other_term = solo.answer("2", AppendEntries(2, 3, 2, (command(4, 2),), 0, 1))
    for answer in (missing, other_term):
        assert isinstance(answer, AppendEntriesResponse)
        assert not answer.success
    assert solo.terms == [1, 1, 1]


def test_conflicting_entries_are_replaced() -> None:
    """5.3: the leader forces the followers' logs to duplicate its own."""
    solo = Solo(terms=(1, 1, 1, 1), term=3)
    answer = solo.heartbeat("2", prev=2, entries=[command(3, 2), command(4, 3), command(5, 3)])
    assert isinstance(answer, AppendEntriesResponse)
    assert (answer.success, answer.match_index) == (True, 5)
    assert solo.terms == [1, 1, 2, 3, 3]


def test_a_delayed_request_never_shortens_the_log() -> None:
    """Figure 2, receiver step 3: delete only if an existing entry conflicts with a new one."""
    solo = Solo(terms=(1, 1, 1, 1))
    answer = solo.heartbeat("2", prev=1, entries=log_of([1, 1])[1:])
    assert solo.terms == [1, 1, 1, 1]
    assert isinstance(answer, AppendEntriesResponse)
    # What the request verified, not what the follower happens to have.
    assert answer.match_index == 2
    assert solo.readies[-1].entries == ()


def test_a_heartbeat_acknowledges_only_what_it_names() -> None:
    """Figure 2: matchIndex is the highest entry known to be replicated."""
    solo = Solo(terms=(1, 1, 1, 1), term=2)
    answer = solo.heartbeat("2", prev=2)
    assert isinstance(answer, AppendEntriesResponse)
    assert answer.match_index == 2


def test_requests_are_idempotent() -> None:
    """5.5: a follower that gets a request twice ignores the entries that it has."""
    solo = Solo()
    request = AppendEntries(1, 1, 1, (command(2, 1), command(3, 1)), 2, 1)
    first = solo.answer("2", request)
    second = solo.answer("2", request)
    assert first == second
    assert solo.terms == [1, 1, 1]


def test_a_refusal_names_the_conflicting_term_and_its_first_index() -> None:
    """5.3: so that one round trip is enough for each conflicting term."""
    solo = Solo(terms=(1, 1, 2, 2, 2), term=4)
    refusal = only(AppendEntriesResponse, [solo.heartbeat("2", prev=5, prev_term=3)])
    assert not refusal.success
    assert (refusal.conflict_term, refusal.conflict_index) == (2, 3)
    assert (refusal.match_index, refusal.last_log_index) == (5, 5)
    missing = only(AppendEntriesResponse, [solo.heartbeat("2", prev=9, prev_term=3)])
    assert (missing.conflict_term, missing.conflict_index) == (0, 6)


def _refusal(solo: Solo, refused: int, **hint: int) -> AppendEntriesResponse:
    return AppendEntriesResponse(solo.term, False, solo.round, refused, 0, **hint)


def test_the_leader_skips_a_conflicting_term_that_it_does_not_have() -> None:
    """5.3: it goes back to the follower's first index of that term."""
    solo = Solo(terms=(1, 1, 1, 3, 3))
    solo.lead()
    (sent,) = of(
        AppendEntries,
        solo.step("2", _refusal(solo, 5, conflict_term=2, conflict_index=3, last_log_index=5)),
    )
    assert sent.prev_log_index == 2


def test_the_leader_goes_to_its_own_end_of_a_conflicting_term_that_it_has() -> None:
    """5.3: entries of that term are the same in both logs as far as both go."""
    solo = Solo(terms=(1, 1, 1, 3, 3))
    solo.lead()
    (sent,) = of(
        AppendEntries,
        solo.step("2", _refusal(solo, 5, conflict_term=1, conflict_index=1, last_log_index=9)),
    )
    assert sent.prev_log_index == 3


def test_a_late_refusal_never_moves_next_index_below_what_matches() -> None:
    """Figure 2: matchIndex increases monotonically, and nextIndex stays above it."""
    solo = Solo(terms=(1, 1, 1, 1))
    solo.lead()
    late = _refusal(solo, 4, conflict_term=0, conflict_index=1, last_log_index=5)
    solo.acknowledge("2")
    sent = solo.step("2", late)
    (peer, _) = solo.raft.status().peers
    assert (peer.match_index, peer.next_index, peer.state) == (5, 6, "replicate")
    assert of(AppendEntries, sent) == []


def test_a_lost_request_is_sent_again() -> None:
    """5.3: the leader retries until all followers store all entries."""
    solo = settled_leader()
    solo.give(lambda raft: raft.propose(b"lost"))
    (heartbeat, *_) = of(AppendEntries, solo.tick())
    follower = Solo("2", terms=solo.terms[:-1])
    refusal = only(AppendEntriesResponse, follower.step("1", heartbeat))
    (again,) = of(AppendEntries, solo.step("2", refusal))
    assert [entry.data for entry in again.entries] == [b"lost"]
    assert only(AppendEntriesResponse, follower.step("1", again)).success


def test_a_lost_probe_is_made_good_after_the_next_heartbeat() -> None:
    """5.3: AppendEntries are retried indefinitely, even if followers are slow or crash."""
    solo = Solo()
    solo.lead()
    follower = Solo("2")
    for _ in range(3):
        (heartbeat,) = [e.message for e in solo.tick() if e.dest == "2"]
    assert isinstance(heartbeat, AppendEntries)
    answer = only(AppendEntriesResponse, follower.step("1", heartbeat))
    (again,) = of(AppendEntries, solo.step("2", answer))
    assert [entry.index for entry in again.entries] == [2]


def test_a_leader_never_overwrites_its_own_log() -> None:
    """Figure 3, Leader Append-Only: the checker watches every input of these tests."""
    solo = settled_leader()
    before = list(solo.terms)
    for index in range(3):
        solo.give(lambda raft: raft.propose(b"x"))
        assert solo.terms[: len(before) + index] == before + [2] * index


def test_too_many_uncommitted_entries_are_refused_and_room_comes_back() -> None:
    """Without a quorum the log must not grow for ever; afterwards nothing may have leaked."""
    solo = settled_leader()
    for _ in range(UNCOMMITTED_ENTRIES_MAX):
        solo.raft.propose(b"")
    with pytest.raises(ProposalDropped):
        solo.raft.propose(b"")
    solo.work()
    solo.acknowledge("2")
    solo.raft.propose(b"")


def test_uncommitted_bytes_are_given_back() -> None:
    solo = settled_leader()
    big = b"x" * (20 * 1024 * 1024)
    for _ in range(5):
        for _ in range(3):
            solo.raft.propose(big)
        with pytest.raises(ProposalDropped):
            solo.raft.propose(big)
        solo.work()
        solo.acknowledge("2")


def test_what_a_predecessor_left_does_not_count_as_this_leaders_proposals() -> None:
    big = Entry(2, 1, EntryKind.COMMAND, b"x" * (60 * 1024 * 1024))
    solo = Solo(entries=[founding_entry("123"), big])
    solo.lead()
    solo.acknowledge("2")
    solo.raft.propose(b"x" * (60 * 1024 * 1024))
    with pytest.raises(ProposalDropped):
        solo.raft.propose(b"x" * (5 * 1024 * 1024))


FIGURE_7 = {
    "a": [1, 1, 1, 4, 4, 5, 5, 6, 6],
    "b": [1, 1, 1, 4],
    "c": [1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6],
    "d": [1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7],
    "e": [1, 1, 1, 4, 4, 4, 4],
    "f": [1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3],
}


@pytest.mark.parametrize("follower", sorted(FIGURE_7))
def test_every_follower_of_figure_7_ends_with_the_leaders_log(follower: str) -> None:
    """5.3, Figure 7: missing entries, extra uncommitted ones, or both."""
    cluster = Cluster(["leader", *FIGURE_7])
    _start(cluster, "leader", [1, 1, 1, 4, 4, 5, 5, 6, 6, 6], term=7)
    for name, terms in FIGURE_7.items():
        _start(cluster, name, terms, term=7)
    cluster.elect("leader")
    cluster.run(2)
    assert [term for _, term in cluster.log(follower)] == [1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 8]
    assert cluster.raft(follower).log.commit_index == 11


def test_followers_d_and_f_of_figure_7_cannot_be_overruled_by_the_vote() -> None:
    """5.4.1 on Figure 7: d has the newest log and refuses; the others are a majority."""
    cluster = Cluster(["leader", *FIGURE_7])
    _start(cluster, "leader", [1, 1, 1, 4, 4, 5, 5, 6, 6, 6], term=7)
    for name, terms in FIGURE_7.items():
        _start(cluster, name, terms, term=7)
    cluster.elect("leader")
    assert cluster.raft("d").voted_for != "leader"
    assert cluster.raft("f").voted_for == "leader"


def test_fifty_and_fifty_and_fifty_diverging_entries_are_found_in_few_round_trips() -> None:
    """5.3: with the hint one refusal bypasses a whole conflicting term."""
    cluster = Cluster("123")
    _start(cluster, "1", [1, *[2] * 50, *[3] * 50, *[7] * 50], term=7)
    _start(cluster, "2", [1, *[2] * 50, *[4] * 50, *[6] * 50], term=7)
    _start(cluster, "3", [1, *[5] * 50], term=7)
    cluster.elect("1")
    assert cluster.log("2") == cluster.log("1") == cluster.log("3")

    solo = Solo(terms=(1, *[2] * 50, *[3] * 50, *[7] * 50))
    solo.lead()
    follower = Solo("2", terms=(1, *[2] * 50, *[4] * 50, *[6] * 50), term=solo.term)
    request = of(AppendEntries, solo.sent)[-1]
    for _ in range(4):
        answer = only(AppendEntriesResponse, follower.step("1", request))
        if answer.success:
            break
        (request, *_) = of(AppendEntries, solo.step("2", answer))
    assert answer.success
    assert follower.terms[:151] == solo.terms[:151]


@given(st.lists(st.integers(1, 5), max_size=8), st.lists(st.integers(1, 5), max_size=8))
def test_any_divergence_is_found(ours: list[int], theirs: list[int]) -> None:
    """5.3: each refusal makes progress, so AppendEntries succeeds at last.

    Each term's entries are at their own indexes, as Log Matching demands.
    """
    leader = Solo(terms=[1, *sorted(ours)], term=59)
    follower_terms = [1]
    # A term that both have starts at the same index in both, so only a common prefix is shared.
    for term, ours_term in zip(sorted(theirs), [*leader.terms[1:], *[None] * 8], strict=False):
        if term == ours_term and follower_terms == leader.terms[: len(follower_terms)]:
            follower_terms.append(term)
        else:
            follower_terms.append(max(follower_terms[-1], term + 10))
    follower = Solo("2", terms=follower_terms, term=50)
    leader.lead()
    request: AppendEntries | None = [
        e.message for e in leader.sent if e.dest == "2" and isinstance(e.message, AppendEntries)
    ][-1]
    for _ in range(len(follower_terms) + 2):
        assert request is not None
        answer = only(AppendEntriesResponse, follower.step("1", request))
        sent = of(AppendEntries, leader.step("2", answer))
        if answer.success and answer.match_index == leader.last_index:
            break
        (request, *_) = sent
    assert follower.terms == leader.terms
