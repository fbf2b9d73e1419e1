"""Leases: what leaders build on, what voters promise for it, and every way in which it could break.

Source: dissertation section 6.4.1.
"""

from __future__ import annotations

import attrs
import pytest

from raftd.core.lease import MS_NS, ROUNDS_TIMED_MAX, Lease, VotePromise
from raftd.core.membership import Configuration
from raftd.core.messages import (
    AppendEntries,
    AppendEntriesResponse,
    Envelope,
    PreVote,
    PreVoteResponse,
    ReadIndex,
    ReadIndexResponse,
    RequestVote,
    RequestVoteResponse,
    TimeoutNow,
)
from tests.core.harness import OPTIONS
from tests.core.scenario import Solo, change_of, joint_leader, of, settled_leader

T = OPTIONS.election_ticks
T_MS = 1_000
DRIFT = 0.1
LEASES = attrs.evolve(OPTIONS, vote_withheld_ms=T_MS, clock_drift=DRIFT)
LENGTH_MS = round(T_MS * (1 - DRIFT))
VOTERS = Configuration(voters="123")


# --- the lease itself ---


def lease(**changes: object) -> Lease:
    return Lease(attrs.evolve(LEASES, **changes), "1")


def test_a_lease_lasts_from_the_beginning_of_the_round_for_less_than_the_promise() -> None:
    """6.4.1: until start + election timeout / clock drift bound."""
    held = lease()
    held.round_started(1, 5_000 * MS_NS)
    held.promised("2", 1, T_MS)
    held.follow(VOTERS, "123")
    assert held.remaining_ns(5_000 * MS_NS) == LENGTH_MS * MS_NS
    # However late the answer came.
    assert held.remaining_ns(5_800 * MS_NS) == (LENGTH_MS - 800) * MS_NS
    assert held.remaining_ns((5_000 + LENGTH_MS) * MS_NS) == 0


def test_a_majority_has_to_promise() -> None:
    held = lease()
    held.round_started(1, 0)
    held.promised("2", 1, T_MS)
    held.follow(Configuration(voters="12345"), "12345")
    assert held.remaining_ns(0) == 0
    held.promised("3", 1, T_MS)
    held.follow(Configuration(voters="12345"), "12345")
    assert held.remaining_ns(0) == LENGTH_MS * MS_NS


def test_who_promises_nothing_or_less_is_believed() -> None:
    """A server without leases, or with a shorter election timeout."""
    held = lease()
    held.round_started(1, 0)
    held.promised("2", 1, 0)
    held.follow(VOTERS, "123")
    assert held.remaining_ns(0) == 0
    held.promised("3", 1, T_MS // 2)
    held.follow(VOTERS, "123")
    assert held.remaining_ns(0) == LENGTH_MS * MS_NS // 2
    # One that promises more does not make it longer than the leader's own time-out.
    held.promised("2", 1, 10 * T_MS)
    held.follow(VOTERS, "123")
    assert held.remaining_ns(0) == LENGTH_MS * MS_NS


@pytest.mark.parametrize(
    ("voters", "outgoing", "promising", "is_held"),
    [
        ("145", "123", "2", False),
        ("145", "123", "4", False),
        ("145", "123", "24", True),
        ("456", "123", "45", False),
        ("456", "123", "245", True),
    ],
)
def test_while_joint_both_halves_have_to_promise(
    voters: str, outgoing: str, promising: str, is_held: bool
) -> None:
    held = lease()
    held.round_started(1, 0)
    for server in promising:
        held.promised(server, 1, T_MS)
    held.follow(Configuration(voters=voters, outgoing=outgoing), "123456")
    assert bool(held.remaining_ns(0)) == is_held


def test_the_configuration_in_force_decides_not_the_one_of_the_answer() -> None:
    held = lease()
    held.round_started(1, 0)
    held.promised("2", 1, T_MS)
    held.follow(VOTERS, "123")
    assert held.remaining_ns(0)
    held.follow(Configuration(voters="145", outgoing="123"), "12345")
    assert not held.remaining_ns(0)


def test_servers_that_do_not_count_promise_nothing() -> None:
    held = lease()
    held.round_started(1, 0)
    held.promised("2", 1, T_MS)
    held.follow(VOTERS, "13")
    assert not held.remaining_ns(0)


def test_answers_to_old_rounds_never_make_a_lease_longer() -> None:
    held = lease()
    for number in range(1, 4):
        held.round_started(number, number * 100 * MS_NS)
    held.promised("2", 2, T_MS)
    held.promised("2", 1, T_MS)
    held.follow(VOTERS, "123")
    assert held.remaining_ns(300 * MS_NS) == (LENGTH_MS - 100) * MS_NS
    # More rounds than are remembered: none that could still count is forgotten.
    for number in range(4, 4_000):
        held.round_started(number, (300 + number) * MS_NS)
    assert len(held._rounds) <= ROUNDS_TIMED_MAX
    held.promised("3", 1, T_MS)
    held.promised("3", 3_999, T_MS)
    held.follow(VOTERS, "13")
    now_ns = (300 + 3_999) * MS_NS
    slack_ns = T_MS * MS_NS // ROUNDS_TIMED_MAX
    assert LENGTH_MS * MS_NS - slack_ns <= held.remaining_ns(now_ns) <= LENGTH_MS * MS_NS


def test_a_lease_that_was_given_up_never_comes_back() -> None:
    held = lease()
    held.round_started(1, 0)
    held.promised("2", 1, T_MS)
    held.follow(VOTERS, "123")
    held.give_up()
    assert held.remaining_ns(0) == 0
    held.round_started(2, MS_NS)
    held.promised("2", 2, T_MS)
    held.promised("3", 2, T_MS)
    held.follow(VOTERS, "123")
    assert held.remaining_ns(MS_NS) == 0


def test_without_being_asked_for_there_is_no_lease() -> None:
    held = lease(vote_withheld_ms=0)
    held.round_started(1, 0)
    held.promised("2", 1, T_MS)
    held.promised("3", 1, T_MS)
    held.follow(VOTERS, "123")
    assert held.remaining_ns(0) == 0


# --- a leader ---


def acknowledge(solo: Solo, source: str, withheld_ms: int = T_MS) -> list[Envelope]:
    """Have `source` answer the latest round, with a promise."""
    response = AppendEntriesResponse(
        solo.term, True, solo.round, solo.last_index, 0, vote_withheld_ms=withheld_ms
    )
    return solo.give(lambda raft: raft.step(Envelope(source, "1", response)))


def at(solo: Solo, ms: int) -> Solo:
    """Let the clock of `solo` say so many milliseconds from now on."""
    solo.raft.monotonic_ns = ms * MS_NS
    return solo


def leader_with_lease(at_ms: int = 0) -> Solo:
    solo = settled_leader(options=LEASES)
    at(solo, at_ms).tick(LEASES.heartbeat_ticks)
    acknowledge(solo, "2")
    assert solo.raft.lease_index() == solo.commit_index
    return solo


def test_a_leader_reads_by_its_lease_until_it_ends_by_the_clock() -> None:
    solo = leader_with_lease(at_ms=100)
    at(solo, 100 + LENGTH_MS - 1)
    assert solo.raft.lease_index() == solo.commit_index
    at(solo, 100 + LENGTH_MS)
    # No tick has gone by meanwhile: the process stood still, and does not know it.
    assert solo.raft.lease_index() is None
    assert solo.role == "leader"


def test_a_later_round_makes_the_lease_longer() -> None:
    solo = leader_with_lease()
    at(solo, 500).tick(LEASES.heartbeat_ticks)
    acknowledge(solo, "3")
    at(solo, 500 + LENGTH_MS - 1)
    assert solo.raft.lease_index() == solo.commit_index


def test_a_new_leader_has_no_lease_before_it_has_committed_in_its_term() -> None:
    """Rule for all reads: it does not know yet what its predecessors have committed."""
    solo = Solo("1", terms=(1, 1), options=LEASES)
    solo.lead()
    response = AppendEntriesResponse(solo.term, True, solo.round, 1, 0, vote_withheld_ms=T_MS)
    solo.step("2", response)
    solo.step("3", response)
    assert solo.raft.lease_index() is None
    acknowledge(solo, "2")
    assert solo.raft.lease_index() == solo.last_index


def test_learners_hold_no_lease_for_a_leader() -> None:
    solo = settled_leader("123", "45", options=LEASES)
    solo.tick(LEASES.heartbeat_ticks)
    acknowledge(solo, "4")
    acknowledge(solo, "5")
    assert solo.raft.lease_index() is None


def test_a_joint_configuration_ends_a_lease_that_only_the_old_half_holds() -> None:
    solo = settled_leader("123", "45", options=LEASES)
    solo.tick(LEASES.heartbeat_ticks)
    acknowledge(solo, "2")
    assert solo.raft.lease_index() is not None
    changes = [("voter", "4"), ("voter", "5"), ("remove", "2"), ("remove", "3")]
    solo.give(lambda raft: raft.change_membership(change_of(*changes)))
    assert solo.raft.lease_index() is None


def test_a_fenced_server_holds_no_lease() -> None:
    solo = leader_with_lease()
    assert solo.raft.role.progress["2"].match_index
    solo.tick(LEASES.heartbeat_ticks)
    gone_back = AppendEntriesResponse(solo.term, False, solo.round, solo.last_index, 0, 0, 1, 0)
    solo.step("2", gone_back)
    assert solo.raft.role.progress["2"].fenced
    assert solo.raft.lease_index() is None


def test_the_lease_ends_before_the_target_of_a_transfer_is_told() -> None:
    """4.2.3: votes for a server that the leader hands over to are not withheld."""
    solo = leader_with_lease()
    solo.acknowledge("2")
    sent = solo.give(lambda raft: raft.transfer_leadership("2"))
    assert of(TimeoutNow, sent)
    assert solo.raft.lease_index() is None
    # The transfer fails, and the TimeoutNow may still arrive, whenever that is.
    for _ in range(T):
        solo.tick()
        acknowledge(solo, "3")
        acknowledge(solo, "2")
    assert solo.raft.status().transfer_target is None
    assert solo.role == "leader"
    assert solo.raft.lease_index() is None


def test_a_transfer_that_nobody_was_told_of_leaves_the_lease() -> None:
    solo = leader_with_lease()
    solo.raft.propose(b"x")
    solo.give(lambda raft: raft.transfer_leadership("2"))
    assert of(TimeoutNow, solo.sent) == []
    assert solo.raft.lease_index() is not None


def test_stepping_down_ends_the_lease() -> None:
    solo = leader_with_lease()
    solo.heartbeat("3", term=solo.term + 1)
    assert solo.raft.lease_index() is None


def test_by_the_lease_other_servers_are_answered_at_once() -> None:
    solo = leader_with_lease()
    before = solo.round
    assert solo.step("2", ReadIndex(solo.term, 7)) == [
        ReadIndexResponse(solo.term, 7, solo.commit_index)
    ]
    assert solo.round == before
    at(solo, LENGTH_MS)
    (heartbeat,) = solo.step("2", ReadIndex(solo.term, 8))
    assert isinstance(heartbeat, AppendEntries)


def test_reads_that_ask_for_a_round_get_one_also_under_a_lease() -> None:
    solo = leader_with_lease()
    before = solo.round
    solo.give(lambda raft: raft.read("r"))
    assert solo.round == before + 1
    assert solo.reads == []


def test_a_single_voter_needs_nobody() -> None:
    solo = Solo(voters="1", options=LEASES)
    solo.lead()
    assert solo.raft.lease_index() == solo.last_index


def test_what_both_halves_promised_lasts_into_the_joint_configuration() -> None:
    solo = joint_leader("123", "145")
    assert solo.raft.lease_index() is None
    solo = settled_leader("123", "45", options=LEASES)
    solo.tick(LEASES.heartbeat_ticks)
    for server in "2345":
        acknowledge(solo, server)
    changes = [("voter", "4"), ("voter", "5"), ("remove", "2"), ("remove", "3")]
    solo.give(lambda raft: raft.change_membership(change_of(*changes)))
    assert solo.raft.lease_index() is not None


# --- a voter ---


def follower(at_ms: int = 0, **more: object) -> Solo:
    """Return server 2 of term 1, which has just heard from its leader 1."""
    solo = Solo("2", **{"options": LEASES, **more})  # type: ignore[arg-type]
    at(solo, at_ms)
    answer = solo.heartbeat("1")
    assert isinstance(answer, AppendEntriesResponse)
    assert answer.vote_withheld_ms == solo.raft.options.vote_withheld_ms
    return solo


VOTE = RequestVote(2, 9, 9)
PRE_VOTE = PreVote(2, 9, 9)


def grants(solo: Solo, message: RequestVote | PreVote) -> bool:
    answer = solo.answer("3", message)
    assert isinstance(answer, RequestVoteResponse | PreVoteResponse)
    return answer.vote_granted


@pytest.mark.parametrize("message", [VOTE, PRE_VOTE])
def test_a_promise_is_kept_by_the_clock_and_not_by_ticks(message: RequestVote | PreVote) -> None:
    """After a stall ticks come together; the leader's lease is not over any sooner for that."""
    solo = follower()
    at(solo, T_MS - 1)
    solo.raft._election_timeout_ticks = 10 * T
    solo.tick(2 * T)
    assert not grants(solo, message)
    assert solo.term == 1
    at(solo, T_MS)
    assert grants(solo, message)


def test_its_own_candidacy_waits_for_the_end_of_its_promise() -> None:
    solo = follower()
    at(solo, T_MS - 1)
    assert solo.tick(5 * T) == []
    assert solo.role == "follower"
    solo.give(lambda raft: raft.campaign())
    assert solo.role == "follower"
    at(solo, T_MS).tick()
    assert solo.role == "precandidate"


def test_a_promise_outlives_the_term_and_the_leader_that_it_was_given_to() -> None:
    solo = follower()
    # A refusal from somebody who has seen a later term.
    solo.step("3", PreVoteResponse(5, 2, vote_granted=False))
    assert (solo.term, solo.raft.leader_id) == (5, None)
    assert not grants(solo, RequestVote(6, 9, 9))
    assert not grants(solo, PreVote(6, 9, 9))
    at(solo, T_MS)
    assert grants(solo, RequestVote(6, 9, 9))


def test_each_contact_renews_the_promise() -> None:
    solo = follower()
    at(solo, 600).heartbeat("1")
    at(solo, T_MS + 599).tick(2 * T)
    assert not grants(solo, VOTE)


def test_whom_the_leader_hands_over_to_gets_the_vote() -> None:
    solo = follower()
    assert grants(solo, RequestVote(2, 9, 9, leadership_transfer=True))


def test_the_target_of_a_transfer_campaigns_in_spite_of_its_promise() -> None:
    solo = follower()
    sent = solo.give(lambda raft: raft.step(Envelope("1", "2", TimeoutNow(1))))
    assert [request.leadership_transfer for request in of(RequestVote, sent)] == [True, True]
    # Who does not answer is asked again, as in any election.
    again = solo.tick(LEASES.heartbeat_ticks)
    assert [request.leadership_transfer for request in of(RequestVote, again)] == [True, True]


def test_a_refusal_promises_as_well_since_it_answers_a_round() -> None:
    solo = follower()
    answer = solo.answer("1", AppendEntries(1, 5, 1, (), 0, 2))
    assert isinstance(answer, AppendEntriesResponse)
    assert not answer.success
    assert answer.vote_withheld_ms == T_MS


def test_without_leases_nothing_is_promised_and_nothing_withheld() -> None:
    solo = follower(options=OPTIONS)
    solo.raft._election_timeout_ticks = 10 * T
    solo.tick(T)
    assert grants(solo, VOTE)


def test_a_restarted_server_votes_for_nobody_before_its_old_promises_have_ended() -> None:
    """Nobody knows what the process before has promised, and when."""
    solo = Solo("2", options=LEASES)
    solo.raft.withhold_vote(2 * T_MS * MS_NS)
    at(solo, 2 * T_MS - 1)
    assert solo.tick(5 * T) == []
    assert not grants(solo, VOTE)
    assert not grants(solo, PRE_VOTE)
    at(solo, 2 * T_MS)
    assert grants(solo, VOTE)


def test_servers_that_start_together_do_not_campaign_in_one_moment() -> None:
    """They are all bound equally long, and their time-outs are drawn from what follows."""
    due = set()
    for seed in range(20):
        solo = Solo("2", options=LEASES, seed=seed)
        solo.raft.withhold_vote(2 * T_MS * MS_NS)
        ticks = 0
        while solo.role == "follower":
            ticks += 1
            at(solo, ticks * T_MS // T).tick()
        due.add(ticks)
    assert min(due) >= 2 * T
    assert max(due) < 3 * T
    assert len(due) > T // 2


def test_a_promise_is_never_made_shorter() -> None:
    promise = VotePromise(LEASES)
    promise.withhold(5_000 * MS_NS)
    promise.heard_leader(0)
    assert promise.binds(5_000 * MS_NS - 1)
    assert not promise.binds(5_000 * MS_NS)
