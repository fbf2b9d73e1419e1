"""Membership changes through joint consensus, in every phase.

Source: paper section 6, dissertation chapter 4 (above all 4.2.2 and 4.3); the rule for aborts
stands in `Leader.abort_obstacle`.
"""

from __future__ import annotations

import pytest

from raftd.core.errors import (
    ChangeInProgress,
    MembershipError,
    NotCaughtUp,
    ProposalDropped,
    RequestRefused,
    StaleConfiguration,
)
from raftd.core.leader import Leader
from raftd.core.membership import (
    Configuration,
    ConfigurationKind,
    MembershipChange,
    decode_configuration,
)
from raftd.core.messages import AppendEntries, Envelope, RequestVoteResponse, TimeoutNow
from raftd.core.types import Entry, EntryKind
from tests.core.harness import OPTIONS, Cluster, address_of, appends, founding_entry
from tests.core.scenario import (
    Solo,
    acknowledge_all,
    all_come_back,
    assert_finished,
    change_of,
    configuration_entry,
    deliver_only_to,
    deliver_until_final,
    joint_leader,
    kinds,
    latest_entry,
    of,
    replacement,
    settled_leader,
    with_learners,
)

T = OPTIONS.election_ticks
JOINT, FINAL, ABORT = ConfigurationKind.JOINT, ConfigurationKind.FINAL, ConfigurationKind.ABORT


# --- the happy paths ---


@pytest.mark.parametrize(
    ("voters", "learners", "changes", "after"),
    [
        ("123", "4", [("voter", "4")], Configuration("1234")),
        ("123", "45", [("voter", "4"), ("voter", "5")], Configuration("12345")),
        ("1234", "", [("remove", "4")], Configuration("123")),
        ("123", "", [("remove", "1")], Configuration("23")),
        ("123", "4", replacement("123", "124"), Configuration("124")),
        ("123", "4", replacement("123", "423"), Configuration("423")),
        ("123", "456", replacement("123", "456"), Configuration("456")),
        ("123", "", [("learner", "3")], Configuration("12", learners="3")),
        ("123", "", [("learner", "1")], Configuration("23", learners="1")),
        ("123", "4", [("voter", "4"), ("learner", "3")], Configuration("124", learners="3")),
        ("12", "", [("remove", "2")], Configuration("1")),
        ("12", "", [("remove", "1")], Configuration("2")),
        ("1", "2", [("voter", "2")], Configuration("12")),
        ("1", "23", [("voter", "2"), ("voter", "3")], Configuration("123")),
        ("1", "2", replacement("1", "2"), Configuration("2")),
        ("12345", "", [("remove", s) for s in "2345"], Configuration("1")),
    ],
)
def test_a_change_of_any_size_is_one_joint_change(
    voters: str, learners: str, changes: list[tuple[str, str]], after: Configuration
) -> None:
    """4.3: arbitrary changes; before, in between and afterwards writes are committed."""
    cluster = with_learners(voters, learners)
    cluster.propose(b"before")
    cluster.run()
    cluster.change(changes)
    cluster.propose(b"in between")
    cluster.run(4 * T)
    cluster.propose(b"after")
    cluster.run(4)
    for server in sorted(after.members):
        assert cluster.configuration(server) == after
        assert cluster.commands(server) == [b"before", b"in between", b"after"]
        assert kinds(cluster, server)[-2:] == ["joint", "final"]
        assert kinds(cluster, server).count("joint") == 1
    assert cluster.leader() in after.voters


def test_a_change_of_learners_is_one_entry() -> None:
    """4.2.1: learners have no vote, so nothing has to be joint."""
    cluster = with_learners("123", "4")
    assert cluster.configuration("4") == Configuration("123", learners="4")
    cluster.change([("remove", "4")])
    cluster.run(2)
    assert kinds(cluster, "1") == ["bootstrap", "simple", "simple"]


def test_a_demoted_voter_votes_until_the_new_configuration() -> None:
    """4.3: it stays a voter of C_old, and becomes a learner only with C_new."""
    solo = settled_leader()
    solo.give(lambda raft: raft.change_membership(change_of(("learner", "3"))))
    assert latest_entry(solo).configuration == Configuration("12", "123", learners_next="3")
    # C_new is {1, 2}: without 2 nothing is committed, and 3 alone is enough for C_old only.
    solo.acknowledge("3")
    assert latest_entry(solo).kind is JOINT
    solo.acknowledge("2")
    assert latest_entry(solo).configuration == Configuration("12", learners="3")


# --- both majorities ---


@pytest.mark.parametrize("half", ["23", "456"])
def test_one_half_alone_commits_nothing(half: str) -> None:
    """Section 6: agreement needs separate majorities of the old and the new configuration."""
    solo = joint_leader("123", "456")
    before = solo.commit_index
    for server in half:
        solo.acknowledge(server)
    solo.give(lambda raft: raft.propose(b"x"))
    for server in half:
        solo.acknowledge(server)
    assert solo.commit_index == before
    assert latest_entry(solo).kind is JOINT


def test_both_majorities_commit_it_and_the_new_configuration_follows_by_itself() -> None:
    """Section 6: once C_old,new is committed, the leader creates C_new."""
    solo = joint_leader("123", "456")
    joint_index = solo.last_index
    for server in "245":
        assert latest_entry(solo).kind is JOINT
        solo.acknowledge(server, joint_index)
    assert solo.commit_index == joint_index
    assert latest_entry(solo).kind is FINAL
    assert latest_entry(solo).configuration == Configuration("456")


@pytest.mark.parametrize("granted", ["23", "456"])
def test_one_half_alone_elects_nobody(granted: str) -> None:
    """Section 6: elections need separate majorities, too."""
    entries = [
        founding_entry("123"),
        configuration_entry(2, 1, JOINT, Configuration("456", "123")),
    ]
    solo = Solo(entries=entries)
    solo.campaign()
    for voter in granted:
        solo.step(voter, RequestVoteResponse(solo.term, vote_granted=True))
    assert solo.role == "candidate"
    other = "4" if granted == "23" else "2"
    solo.step(other, RequestVoteResponse(solo.term, vote_granted=True))
    if granted == "23":
        solo.step("5", RequestVoteResponse(solo.term, vote_granted=True))
    assert solo.role == "leader"


def test_one_half_that_refuses_loses_the_election() -> None:
    """Section 6."""
    entries = [
        founding_entry("123"),
        configuration_entry(2, 1, JOINT, Configuration("456", "123")),
    ]
    solo = Solo(entries=entries)
    solo.campaign()
    for voter in "45":
        solo.step(voter, RequestVoteResponse(solo.term, vote_granted=False))
    assert solo.role == "follower"


def test_a_single_old_voter_does_not_decide_alone() -> None:
    """Section 6: no short cut for "I am the only voter" of one half."""
    solo = joint_leader("1", "123")
    joint_index = solo.last_index
    solo.give(lambda raft: raft.propose(b"x"))
    assert solo.commit_index < joint_index
    solo.acknowledge("2")
    assert solo.commit_index >= joint_index


def test_a_candidate_of_the_old_half_only_votes_for_itself_there() -> None:
    """Section 6: the own vote counts in every half that lists the candidate."""
    entries = [founding_entry("1"), configuration_entry(2, 1, JOINT, Configuration("2", "1"))]
    solo = Solo(entries=entries)
    solo.campaign()
    solo.step("2", RequestVoteResponse(solo.term, vote_granted=True))
    assert solo.role == "leader"


def test_a_server_that_was_a_learner_is_a_voter_as_soon_as_it_stores_the_joint_entry() -> None:
    """Section 6: the latest configuration in the log, committed or not."""
    solo = Solo("4", learners="4", term=1)
    joint = configuration_entry(2, 1, JOINT, Configuration("124", "123"))
    solo.heartbeat("1", prev=1, entries=[joint])
    assert solo.commit_index == 0
    solo.campaign()
    assert solo.role == "candidate"


def test_a_leader_uses_a_configuration_from_the_moment_it_appends_it() -> None:
    """Section 6: before it is durable, sent or committed."""
    solo = settled_leader("123", "4")
    solo.raft.change_membership(change_of(("voter", "4")))
    assert latest_entry(solo).configuration == Configuration("1234", "123")
    assert {peer.server for peer in solo.raft.status().peers} == {"2", "3", "4"}


# --- what is refused ---


def _refused(solo: Solo, error: type[Exception], match: str, change: MembershipChange) -> None:
    before = solo.last_index
    with pytest.raises(error, match=match):
        solo.raft.change_membership(change)
    assert solo.last_index == before


def test_no_second_change_while_one_is_uncommitted() -> None:
    """4.1 and 4.3: one at a time, learners included."""
    solo = settled_leader()
    solo.give(lambda raft: raft.change_membership(change_of(("learner", "4"))))
    _refused(solo, ChangeInProgress, "not settled", change_of(("learner", "5")))
    _refused(solo, ChangeInProgress, "not settled", change_of(("remove", "3")))
    solo.acknowledge("2")
    solo.give(lambda raft: raft.change_membership(change_of(("learner", "5"))))


def test_no_second_change_in_any_phase_of_a_joint_change() -> None:
    """4.3."""
    solo = joint_leader("123", "124")
    _refused(solo, ChangeInProgress, "not settled", change_of(("learner", "5")))
    acknowledge_all(solo)
    assert latest_entry(solo).kind is FINAL
    _refused(solo, ChangeInProgress, "not settled", change_of(("learner", "5")))
    acknowledge_all(solo)
    solo.give(lambda raft: raft.change_membership(change_of(("learner", "5"))))


def test_no_change_before_an_entry_of_the_own_term_is_committed() -> None:
    """The erratum to chapter 4 (raft-dev, 2015)."""
    solo = Solo()
    solo.lead()
    _refused(solo, ChangeInProgress, "not committed an entry", change_of(("learner", "4")))
    solo.acknowledge("2")
    solo.raft.change_membership(change_of(("learner", "4")))


def test_a_change_may_be_bound_to_the_configuration_that_the_caller_saw() -> None:
    """4.1: a stale request must not be applied to another configuration."""
    solo = settled_leader()
    _refused(solo, StaleConfiguration, "is 1, not 7", change_of(("learner", "4"), expected_index=7))
    solo.give(lambda raft: raft.change_membership(change_of(("learner", "4"), expected_index=1)))
    solo.acknowledge("2")
    _refused(solo, StaleConfiguration, "not 1", change_of(("learner", "5"), expected_index=1))


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        (change_of(("voter", "9")), NotCaughtUp, "9"),
        (change_of(*[("remove", s) for s in "123"]), MembershipError, "no voter"),
        (change_of(*[("learner", s) for s in "123"]), MembershipError, "no voter"),
        (change_of(("owner", "2")), MembershipError, "owner"),
        (MembershipChange(changes=(("learner", "9"),)), MembershipError, "address"),
    ],
)
def test_an_impossible_change_leaves_the_log_alone(
    change: MembershipChange, error: type[Exception], match: str
) -> None:
    """4.2.1, 4.3."""
    _refused(settled_leader(), error, match, change)


def test_a_new_voter_has_to_have_caught_up() -> None:
    """4.2.1: else the cluster could wait long for its first commit under C_old,new."""
    cluster = Cluster("123", blank="4")
    cluster.elect("1")
    cluster.cut = {("4", "1")}
    cluster.change([("learner", "4")])
    cluster.run(3 * T)
    message = cluster.refused(lambda: cluster.change([("voter", "4")]), NotCaughtUp)
    assert "4" in message
    cluster.heal()
    cluster.run(3)
    cluster.change([("voter", "4")])


def test_a_follower_changes_nothing() -> None:
    with pytest.raises(RequestRefused, match="not the leader"):
        Solo().raft.change_membership(change_of(("learner", "4")))
    with pytest.raises(RequestRefused, match="not the leader"):
        Solo().raft.abort_membership_change("because")


# --- a leader outside C_new ---


def test_a_leader_outside_the_new_configuration_leads_until_it_is_committed() -> None:
    """4.2.2: it manages a cluster that it is not part of, and does not count itself."""
    solo = joint_leader("123", "23")
    acknowledge_all(solo)
    assert latest_entry(solo).kind is FINAL
    final_index = solo.last_index
    assert solo.role == "leader"
    solo.acknowledge("2", final_index)
    assert solo.commit_index == final_index - 1, "it counted itself towards C_new"
    solo.acknowledge("3", final_index)
    assert solo.commit_index == final_index


def test_then_it_hands_over_to_the_best_voter() -> None:
    """4.2.2 and 3.10: leadership moves without an election timeout."""
    solo = joint_leader("1234", "234")
    acknowledge_all(solo)
    final_index = solo.last_index
    solo.acknowledge("2", final_index - 1)
    solo.acknowledge("3", final_index)
    sent = solo.acknowledge("4", final_index)
    (dest,) = [e.dest for e in sent if isinstance(e.message, TimeoutNow)]
    assert dest in "34"
    with pytest.raises(ProposalDropped):
        solo.raft.propose(b"x")


def test_then_it_steps_down_even_if_nobody_takes_over() -> None:
    """4.2.2: once C_new is committed it becomes a follower, and stays one."""
    solo = joint_leader("123", "23")
    acknowledge_all(solo)
    acknowledge_all(solo)
    solo.tick(T)
    assert solo.role == "follower"
    assert solo.tick(4 * T) == []


@pytest.mark.parametrize("role", ["remove", "learner"])
def test_a_leader_that_removes_or_demotes_itself_stays_while_joint(role: str) -> None:
    """4.2.2: no election just because the leader is not in C_new."""
    cluster = with_learners("123", "")
    term = cluster.raft("1").current_term
    cluster.change([(role, "1")])
    assert cluster.leader() == "1"
    cluster.run_until(lambda: cluster.leader() != "1", 10)
    assert cluster.raft(cluster.leader()).current_term == term + 1
    cluster.run(4 * T)
    assert cluster.configuration(cluster.leader()).voters == {"2", "3"}


# --- the leader dies in each phase ---


def test_a_joint_entry_that_only_the_dead_leader_has_is_forgotten() -> None:
    """Section 6: the others use C_old, elect a leader and go on; the entry is overwritten."""
    cluster = with_learners("123", "456")
    cluster.change(replacement("123", "456"))
    cluster.queue.clear()
    cluster.crash("1")
    cluster.run(6 * T)
    assert cluster.leader() in "23"
    cluster.propose(b"x")
    cluster.run(2)
    all_come_back(cluster)
    assert_finished(cluster, Configuration("123", learners="456"))
    assert "joint" not in kinds(cluster, "1")


@pytest.mark.parametrize("receivers", ["2", "4", "24", "45", "23", "3456"])
def test_a_joint_entry_on_some_servers_is_finished_or_forgotten(receivers: str) -> None:
    """Section 6: whoever wins decides, under the configuration that it has."""
    cluster = with_learners("123", "456")
    cluster.change(replacement("123", "456"))
    deliver_only_to(cluster, receivers)
    cluster.crash("1")
    cluster.run(8 * T)
    all_come_back(cluster)
    if cluster.configuration(cluster.leader()) == Configuration("456"):
        assert_finished(cluster, Configuration("456"))
    else:
        assert_finished(cluster, Configuration("123", learners="456"))


def test_the_next_leader_finishes_a_joint_change_that_was_committed() -> None:
    """4.3: any leader that sees C_old,new committed under both majorities appends C_new."""
    cluster = with_learners("123", "456")
    joint_term, joint_index = cluster.change(replacement("123", "456"))
    deliver_only_to(cluster, "23456")
    # All have it, and the leader dies before it learns so.
    cluster.crash("1")
    cluster.queue.clear()
    cluster.run(8 * T)
    assert cluster.configuration(cluster.leader()) == Configuration("456")
    final = [
        at
        for at in cluster.raft(cluster.leader()).log.configurations.since(joint_index)
        if at.entry.kind is FINAL
    ]
    assert len(final) == 1
    assert (cluster.raft(cluster.leader()).log.term_at(final[0].index) or 0) > joint_term
    all_come_back(cluster)
    assert_finished(cluster, Configuration("456"))


@pytest.mark.parametrize("receivers", ["", "4", "56", "2", "456"])
def test_a_leader_that_dies_with_the_new_configuration_on_some(receivers: str) -> None:
    """4.3: past C_old,new it only goes forward; C_new is in each log once."""
    cluster = with_learners("123", "456")
    cluster.change(replacement("123", "456"))
    deliver_until_final(cluster)
    deliver_only_to(cluster, receivers)
    cluster.crash("1")
    cluster.run(10 * T)
    all_come_back(cluster)
    assert_finished(cluster, Configuration("456"))
    for server in "456":
        assert kinds(cluster, server)[-2:] == ["joint", "final"]


def test_an_heir_waits_for_its_own_no_op_before_it_finishes() -> None:
    """4.3: C_old,new has to be committed under both majorities, in the heir's own term.

    A commit index that an earlier leader had reached is not enough.
    """
    entries = [
        founding_entry("123"),
        configuration_entry(2, 1, JOINT, Configuration("456", "123"), operation="op-1"),
    ]
    solo = Solo(entries=entries)
    solo.heartbeat("2", commit=2)
    assert solo.commit_index == 2
    solo.lead()
    assert latest_entry(solo).kind is JOINT
    solo.tick()
    acknowledge_all(solo, "2", "3")
    assert latest_entry(solo).kind is JOINT
    solo.acknowledge("2")
    assert latest_entry(solo).kind is FINAL
    assert (latest_entry(solo).operation, latest_entry(solo).outcome) == ("op-1", "done")


def test_the_new_configuration_is_appended_once() -> None:
    """4.3: however many entries are committed behind C_old,new at the same time."""
    solo = joint_leader("123", "124")
    for _ in range(3):
        solo.give(lambda raft: raft.propose(b"x"))
    acknowledge_all(solo)
    acknowledge_all(solo)
    kinds = [at.entry.kind for at in solo.raft.log.configurations.since(0)]
    assert kinds.count(FINAL) == 1


# --- rollback by truncation, and restart ---


def test_truncation_puts_the_configuration_before_back_in_force() -> None:
    """Section 6: the latest configuration that is in the log."""
    solo = Solo("2", learners="456")
    joint = configuration_entry(2, 1, JOINT, Configuration("456", "123"))
    solo.heartbeat("1", prev=1, entries=[joint])
    assert latest_entry(solo).configuration.is_joint
    other = Entry(2, 2, EntryKind.NOOP, b"")
    solo.heartbeat("3", term=2, prev=1, entries=[other])
    assert latest_entry(solo).configuration == Configuration("123", learners="456")


def test_two_configurations_are_rolled_back_at_once() -> None:
    """Section 6."""
    entries = [
        founding_entry("123", "4"),
        configuration_entry(2, 1, JOINT, Configuration("124", "123")),
        configuration_entry(3, 1, FINAL, Configuration("124")),
    ]
    solo = Solo("2", entries=entries)
    solo.heartbeat("3", term=2, prev=1, entries=[Entry(2, 2, EntryKind.NOOP, b"")])
    assert latest_entry(solo).configuration == Configuration("123", learners="4")
    assert solo.raft.may_campaign()


def test_a_server_that_loses_its_vote_by_truncation_campaigns_no_more() -> None:
    """Section 6 with 4.2.2."""
    solo = Solo("4", learners="4")
    joint = configuration_entry(2, 1, JOINT, Configuration("124", "123"))
    solo.heartbeat("1", prev=1, entries=[joint])
    assert solo.raft.may_campaign()
    solo.heartbeat("3", term=2, prev=1, entries=[Entry(2, 2, EntryKind.NOOP, b"")])
    assert not solo.raft.may_campaign()
    assert solo.tick(4 * T) == []


def test_restart_finds_an_uncommitted_configuration() -> None:
    """Section 6: a server that restarts uses the latest configuration in its log."""
    cluster = with_learners("12", "")
    cluster.change([("remove", "1")])
    deliver_only_to(cluster, "2")
    cluster.crash("2")
    cluster.restart("2")
    assert cluster.configuration("2") == Configuration("2", "12")
    assert cluster.raft("2").log.commit_index == 0


@pytest.mark.parametrize("role", ["remove", "learner"])
def test_two_servers_one_of_which_goes_and_alone_has_the_new_configuration(role: str) -> None:
    """4.2.2: nobody else can win, so it has to campaign although it is not in C_new."""
    cluster = with_learners("12", "")
    cluster.change([(role, "1")])
    while cluster.raft("1").log.configurations.latest.entry.kind is not FINAL:  # type: ignore[union-attr]
        cluster.deliver(cluster.queue.pop(0))
    cluster.queue.clear()
    for server in "12":
        cluster.crash(server)
        cluster.restart(server)
    assert kinds(cluster, "1")[-1] == "final"
    assert kinds(cluster, "2")[-1] == "joint"
    cluster.run(12 * T)
    assert cluster.leader() == "2"
    assert cluster.configuration("2").voters == {"2"}
    cluster.propose(b"x")
    cluster.run(2)
    assert cluster.commands("2") == [b"x"]


def test_an_old_leader_alone_cannot_shrink_the_cluster() -> None:
    """Section 6: C_old,new needs the majority of C_old."""
    cluster = with_learners("12345", "")
    cluster.partition("12", "345")
    cluster.change([("remove", "3"), ("remove", "4"), ("remove", "5")], "1")
    cluster.propose(b"lost", "1")
    cluster.run(T // 2)
    assert cluster.commands("1") == []
    assert cluster.configuration("1").is_joint
    cluster.run(6 * T)
    assert cluster.leader() in "345"


# --- servers that are left out ---


def test_removed_servers_are_fed_until_they_know() -> None:
    """4.2.2 and 4.2.3: so that they need not time out and ask for votes."""
    cluster = with_learners("1234", "")
    cluster.change([("remove", "4")])
    cluster.run(3)
    assert cluster.configuration("4") == Configuration("123")
    assert not cluster.raft("4").may_campaign()
    assert cluster.raft("1").status().peers[-1].server == "3"


def test_a_removed_server_that_is_cut_off_is_fed_when_it_is_back() -> None:
    """4.2.3: within a bound."""
    cluster = with_learners("1234", "")
    cluster.partition("123", "4")
    cluster.change([("remove", "4")])
    cluster.run(3 * T)
    assert [p.server for p in cluster.raft("1").status().peers if p.departing] == ["4"]
    assert cluster.raft("1").addresses()["4"] == address_of("4")
    cluster.heal()
    cluster.run(4)
    assert cluster.raft("4").log.commit_index == cluster.raft("1").log.commit_index
    assert not any(peer.departing for peer in cluster.raft("1").status().peers)


def test_a_removed_server_is_given_up_after_a_while() -> None:
    """4.2.3: a dead server must not be fed for ever."""
    cluster = with_learners("1234", "")
    cluster.crash("4")
    cluster.change([("remove", "4")])
    cluster.run(OPTIONS.departing_ticks - 1)
    assert any(peer.departing for peer in cluster.raft("1").status().peers)
    cluster.run(3)
    assert not any(peer.departing for peer in cluster.raft("1").status().peers)


def test_the_successor_feeds_removed_servers_too() -> None:
    """4.2.2: the leader that removed them may be gone."""
    cluster = with_learners("1234", "")
    cluster.partition("123", "4")
    cluster.change([("remove", "4")])
    cluster.run(2)
    cluster.elect("2")
    assert [p.server for p in cluster.raft("2").status().peers if p.departing] == ["4"]
    cluster.heal()
    cluster.run(4)
    assert cluster.raft("4").log.commit_index == cluster.raft("2").log.commit_index


def test_a_leader_that_removed_itself_tells_the_others_first() -> None:
    """4.2.2: the last voter must learn that C_new is committed."""
    cluster = with_learners("12", "")
    cluster.change([("remove", "1")])
    cluster.run(2 * T)
    assert cluster.leader() == "2"
    assert cluster.configuration("1") == cluster.configuration("2") == Configuration("2")
    assert not cluster.raft("1").may_campaign()


def test_feeding_a_removed_server_does_not_count_it() -> None:
    """4.2.2: acknowledgements of servers outside the configuration count nothing."""
    solo = joint_leader("1234", "123")
    acknowledge_all(solo)
    solo.acknowledge("4")
    solo.give(lambda raft: raft.propose(b"x"))
    before = solo.commit_index
    solo.acknowledge("4")
    assert solo.commit_index == before


def test_a_departing_server_is_fed_until_it_knows_the_commit() -> None:
    """4.2.2: storing C_new is not enough, it has to know that C_new is committed."""
    solo = joint_leader("1234", "123")
    acknowledge_all(solo)
    final_index = solo.last_index
    solo.acknowledge("4", final_index)
    solo.acknowledge("2")
    assert "4" in solo.raft.leader().progress
    sent = [e for e in solo.tick() if e.dest == "4"]
    assert [m.leader_commit for m in of(AppendEntries, sent)] == [final_index]
    solo.acknowledge("4", final_index)
    assert "4" not in solo.raft.leader().progress
    # What it says afterwards does no harm.
    solo.acknowledge("4", final_index)


def test_removed_servers_leave_a_tombstone_with_the_new_configuration() -> None:
    """Every server that C_new drops, learners from before included."""
    solo = settled_leader("123", "89")
    change = change_of(("remove", "3"), ("remove", "8"), ("learner", "2"), operation="op-2")
    solo.give(lambda raft: raft.change_membership(change))
    assert latest_entry(solo).tombstones == frozenset()
    acknowledge_all(solo)
    entry = latest_entry(solo)
    assert entry.configuration == Configuration("1", learners="29")
    assert entry.tombstones == {"3", "8"}
    assert dict(entry.left_out) == {"3": address_of("3"), "8": address_of("8")}
    assert entry.addresses.keys() == {"1", "2", "9"}


def test_removed_learners_leave_a_tombstone_unless_they_go_back() -> None:
    solo = settled_leader("123", "89")
    solo.give(lambda raft: raft.change_membership(change_of(("remove", "8"))))
    assert latest_entry(solo).tombstones == {"8"}
    solo.acknowledge("2")
    back = change_of(("remove", "9"), tombstones=False, outcome="failed", reason="too slow")
    solo.give(lambda raft: raft.change_membership(back))
    assert latest_entry(solo).tombstones == frozenset()
    assert (latest_entry(solo).outcome, latest_entry(solo).reason) == ("failed", "too slow")
    assert latest_entry(solo).left_out.keys() == {"9"}


def test_a_removed_server_may_be_made_a_learner_again_before_it_is_forgotten() -> None:
    solo = settled_leader("123", "8")
    solo.give(lambda raft: raft.change_membership(change_of(("remove", "8"), tombstones=False)))
    acknowledge_all(solo, "8")
    solo.give(lambda raft: raft.change_membership(change_of(("learner", "8"))))
    assert not any(peer.departing for peer in solo.raft.status().peers)
    assert "8" in solo.raft.leader().progress


# --- what is looked at again at once ---


def test_shrinking_to_one_voter_commits_what_waits() -> None:
    """4.3: no acknowledgement will ever come, so appending C_new looks again."""
    solo = joint_leader("12", "1")
    solo.acknowledge("2")
    assert latest_entry(solo).kind is FINAL
    assert solo.commit_index == solo.last_index
    solo.give(lambda raft: raft.propose(b"x"))
    assert solo.commit_index == solo.last_index


def test_a_read_that_waits_is_confirmed_by_a_change_of_the_quorum() -> None:
    """6.4: judged by the configuration in force."""
    solo = joint_leader("123", "456")
    solo.give(lambda raft: raft.read("r"))
    for server in "45":
        solo.acknowledge(server, 1)
    assert solo.reads == []
    solo.give(lambda raft: raft.abort_membership_change("by hand"))
    solo.acknowledge("2", 1)
    assert [answer.token for answer in solo.reads] == ["r"]


def test_replication_follows_both_halves_and_the_learners() -> None:
    """4.3."""
    solo = settled_leader("123", "4567")
    solo.give(
        lambda raft: raft.change_membership(change_of(*replacement("123", "456"), ("learner", "2")))
    )
    assert latest_entry(solo).configuration == Configuration(
        "456", "123", learners="7", learners_next="2"
    )
    sent = solo.give(lambda raft: raft.propose(b"x"))
    assert {e.dest for e in sent if appends(e)} == set("23456")
    # A learner follows what is committed.
    sent = [*solo.acknowledge("2"), *solo.acknowledge("4"), *solo.acknowledge("5")]
    assert "7" in {e.dest for e in sent if appends(e)}


def test_a_learner_never_stands_in_the_way_of_a_leader_that_counts_it_as_a_voter() -> None:
    """4.2.2: a learner with entries that no quorum has would refuse, and may not lead itself."""
    cluster = with_learners("123", "4", leader="2")
    cluster.give(
        "2", lambda raft: raft.change_membership(change_of(("voter", "4"), ("remove", "3")))
    )
    # C_old,new reaches nobody, and what the next leader begins reaches no other voter.
    cluster.crash("2")
    cluster.queue.clear()
    passes = cluster.passes
    cluster.passes = lambda envelope: (  # type: ignore[method-assign]
        passes(envelope) and not (appends(envelope) and envelope.dest == "3")
    )
    cluster.campaign("1")
    cluster.run(2)
    assert cluster.raft("1").log.last_term > cluster.raft("3").log.last_term
    cluster.passes = passes  # type: ignore[method-assign]
    cluster.queue.clear()
    cluster.crash("1")
    # Without server 1, which lost its disk, there is a majority of either half.
    cluster.restart("2")
    cluster.run(12 * cluster.options.election_ticks)
    assert cluster.leader() is not None


def test_strangers_are_not_heard() -> None:
    """4.2.2: votes and acknowledgements from outside count nothing and break nothing."""
    solo = joint_leader("123", "456")
    before = solo.commit_index
    for stranger in ("7", "", "1/other"):
        solo.acknowledge(stranger)
        solo.step(stranger, RequestVoteResponse(solo.term, vote_granted=True))
    assert solo.commit_index == before
    assert solo.role == "leader"


def test_a_new_incarnation_is_another_server() -> None:
    """The disk that was lost had voted and acknowledged; the new one has not."""
    solo = settled_leader(("1", "2/a", "3"), ("2/b",))
    solo.give(lambda raft: raft.change_membership(change_of(("voter", "2/b"), ("remove", "2/a"))))
    configuration = latest_entry(solo).configuration
    assert configuration.voters == {"1", "2/b", "3"}
    assert configuration.outgoing == {"1", "2/a", "3"}
    solo.acknowledge("2/b")
    assert latest_entry(solo).kind is JOINT
    solo.acknowledge("2/a")
    assert latest_entry(solo).kind is FINAL


def test_a_joint_entry_says_all_that_the_next_leader_needs() -> None:
    solo = settled_leader("123", "4")
    solo.raft.wall_clock_ms = 1234
    solo.give(lambda raft: raft.change_membership(change_of(("voter", "4"), operation="op-9")))
    entry = decode_configuration(solo.raft.log.entry(solo.last_index).data)
    assert (entry.kind, entry.operation, entry.outcome) == (JOINT, "op-9", "")
    assert entry.learners_before == {"4"}
    assert (entry.leader, entry.time_ms) == ("1", 1234)
    assert entry.addresses == {server: address_of(server) for server in "1234"}


def test_new_addresses_are_one_entry() -> None:
    """Changes of addresses only are single entries under the same rules."""
    solo = settled_leader()
    change = MembershipChange(changes=(), addresses={"2": "elsewhere:2"}, operation="op-3")
    solo.give(lambda raft: raft.change_membership(change))
    assert latest_entry(solo).kind is ConfigurationKind.SIMPLE
    assert latest_entry(solo).addresses["2"] == "elsewhere:2"
    assert latest_entry(solo).configuration == Configuration("123")
    _refused(solo, ChangeInProgress, "not settled", change)


def test_the_role_of_a_leader_ends_with_its_term() -> None:
    solo = joint_leader("123", "456")
    role = solo.raft.role
    assert isinstance(role, Leader)
    solo.give(lambda raft: raft.step(Envelope("2", "1", RequestVoteResponse(9, False))))
    assert solo.role == "follower"
    with pytest.raises(RequestRefused):
        solo.raft.leader()
