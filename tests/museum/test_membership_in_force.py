"""Which configuration is in force: from the append on, after a truncation, after a restart.

Exhibits 1 to 9 of the museum, and what of 6, 29 and 30 applies without snapshots.
"""

from __future__ import annotations

from raftd.core.errors import ChangeInProgress
from raftd.core.membership import Configuration, ConfigurationKind
from raftd.core.messages import AppendEntries, AppendEntriesResponse
from raftd.core.types import Entry, EntryKind
from tests.core.harness import OPTIONS, Cluster, founding_entry
from tests.core.scenario import (
    Solo,
    acknowledge_all,
    all_come_back,
    assert_finished,
    change_of,
    command,
    configuration_entry,
    deliver_only_to,
    deliver_until_final,
    joint_leader,
    kinds,
    latest_entry,
    only,
    settled_leader,
    with_learners,
)
from tests.museum.steering import deliver_to, let_win

T = OPTIONS.election_ticks
SIMPLE, JOINT = ConfigurationKind.SIMPLE, ConfigurationKind.JOINT
FINAL = ConfigurationKind.FINAL


def test_001_a_configuration_counts_from_its_append_and_not_from_its_commit() -> None:
    cluster = Cluster("ABC")
    cluster.elect("A")
    cluster.change([("remove", "B"), ("remove", "C")])
    deliver_to(cluster, "BC")
    deliver_to(cluster, "A")
    # Committed on A, C_new included; B and C have C_old,new and no word of its commit.
    assert cluster.raft("A").log.commit_index == cluster.raft("A").log.last_index
    assert kinds(cluster, "A")[-1] == "final"
    cluster.queue.clear()
    for server in "BC":
        assert cluster.raft(server).log.commit_index < cluster.raft(server).log.last_index
        assert cluster.configuration(server) == Configuration("A", "ABC")
    cluster.partition("A", "BC")
    cluster.propose(b"a", "A")
    cluster.run(8 * T)
    assert cluster.commands("A") == [b"a"]
    assert set(cluster.leaders.values()) == {"A"}


def test_002_a_learner_that_stores_the_joint_entry_can_win_before_it_knows_the_commit() -> None:
    cluster = Cluster("ABC", learners="D")
    cluster.elect("A")
    cluster.crash("B")
    cluster.run()
    _, joint_index = cluster.change([("voter", "D"), ("remove", "C")])
    deliver_to(cluster, "CD")
    cluster.propose(b"x")
    deliver_to(cluster, "D")
    deliver_to(cluster, "A")
    assert cluster.raft("A").log.commit_index >= joint_index
    cluster.queue.clear()
    # C hears of the commit through a heartbeat, D does not.
    cluster.give("A", lambda raft: raft.report_unreachable("C"))
    cluster.queue.clear()
    cluster.tick("A")
    deliver_only_to(cluster, "C")
    assert cluster.raft("C").log.commit_index == cluster.raft("C").log.last_index == joint_index
    assert cluster.raft("D").log.commit_index < joint_index < cluster.raft("D").log.last_index
    cluster.crash("A")
    cluster.restart("B")
    cluster.run_until(lambda: cluster.role("D") == "leader", 8 * T)
    all_come_back(cluster)
    assert_finished(cluster, Configuration("ABD"))
    assert cluster.commands("B") == [b"x"]


def test_003_a_restart_finds_the_configuration_that_was_appended_and_not_committed() -> None:
    cluster = Cluster("AB")
    cluster.elect("B")
    cluster.change([("remove", "B")])
    deliver_to(cluster, "A")
    deliver_to(cluster, "B")
    deliver_to(cluster, "A")
    cluster.queue.clear()
    assert kinds(cluster, "A")[-1] == "final"
    assert cluster.raft("A").log.commit_index < cluster.raft("A").log.last_index
    # B is switched off for good, A starts again.
    cluster.crash("B")
    cluster.crash("A")
    cluster.restart("A")
    assert cluster.raft("A").log.commit_index == 0
    assert cluster.configuration("A") == Configuration("A")
    cluster.run(3 * T)
    cluster.propose(b"x", "A")
    assert cluster.commands("A") == [b"x"]


def test_004_a_truncated_configuration_is_out_of_force_on_the_follower() -> None:
    cluster = with_learners("ABCDE", "F", leader="A")
    before = cluster.configuration("B")
    cluster.change([("voter", "F"), ("remove", "E")])
    deliver_only_to(cluster, "B")
    assert cluster.configuration("B") == Configuration("ABCDF", "ABCDE")
    cluster.crash("A")
    let_win(cluster, "C")
    cluster.deliver_all()
    cluster.run(2)
    assert cluster.configuration("B") == before
    # Nothing is left of C_old,new: B wins with B, D and E, who are no majority of ABCDF.
    cluster.crash("C")
    cluster.crash("F")
    cluster.crash("B")
    cluster.restart("B")
    let_win(cluster, "B")
    cluster.deliver_all()
    cluster.propose(b"x", "B")
    cluster.run(2)
    assert cluster.commands("E") == [b"x"]


def test_005_two_configurations_are_rolled_back_by_one_truncation() -> None:
    first = configuration_entry(5, 1, SIMPLE, Configuration("123", learners="4"))
    entries = [
        founding_entry("123"),
        *(command(index, 1) for index in (2, 3, 4)),
        first,
        *(command(index, 1) for index in (6, 7, 8)),
        configuration_entry(9, 1, JOINT, Configuration("124", "123")),
        configuration_entry(10, 1, FINAL, Configuration("124")),
    ]
    solo = Solo("3", entries=entries)
    assert latest_entry(solo).configuration == Configuration("124")
    solo.heartbeat("2", term=2, prev=8, entries=[Entry(9, 2, EntryKind.NOOP, b"")])
    latest = solo.raft.configuration
    assert latest is not None
    assert (latest.index, latest.configuration) == (5, Configuration("123", learners="4"))
    assert [at.index for at in solo.raft.log.configurations.since(0)] == [1, 5]
    # In force, and not only remembered: 3 has its vote again, and one of 1 and 2 is enough.
    solo.lead()
    assert {peer.server for peer in solo.raft.status().peers} == {"1", "2", "4"}


def test_006_the_configuration_as_of_an_index_is_joint_if_it_was_joint_then() -> None:
    entries = [
        founding_entry("123", "4"),
        configuration_entry(2, 1, JOINT, Configuration("124", "123")),
        command(3, 1),
        command(4, 1),
        configuration_entry(5, 1, FINAL, Configuration("124")),
    ]
    solo = Solo("2", entries=entries)
    solo.heartbeat("1", commit=3)
    at_commit = solo.raft.log.configurations.at(solo.commit_index)
    assert at_commit is not None
    assert (at_commit.index, at_commit.configuration) == (2, Configuration("124", "123"))
    assert latest_entry(solo).configuration == Configuration("124")


def test_007_an_inherited_joint_entry_is_left_only_after_a_commit_under_both_halves() -> None:
    cluster = Cluster("AB")
    cluster.elect("A")
    cluster.change([("remove", "B")])
    deliver_only_to(cluster, "B")
    for server in "AB":
        cluster.crash(server)
        cluster.restart(server)
    let_win(cluster, "A")
    # Under C_new = (A) alone everything would be committed already.
    for _ in range(3):
        assert kinds(cluster, "A")[-1] == "joint"
        assert cluster.raft("A").log.commit_index == 0
        cluster.queue.clear()
        cluster.tick("A")
    cluster.deliver_all()
    assert kinds(cluster, "A")[-1] == "final"
    assert cluster.raft("A").log.commit_index == cluster.raft("A").log.last_index
    assert cluster.log("B")[: len(cluster.log("A")) - 1] == cluster.log("A")[:-1]


def test_007_the_commit_of_an_entry_before_the_joint_one_does_not_end_the_joint_state() -> None:
    solo = settled_leader("123", "4")
    solo.give(lambda raft: raft.propose(b"x"))
    before = solo.last_index
    solo.give(lambda raft: raft.change_membership(change_of(("voter", "4"), ("remove", "3"))))
    for server in "234":
        solo.acknowledge(server, before)
    assert solo.commit_index == before
    assert latest_entry(solo).kind is JOINT
    for server in "234":
        solo.acknowledge(server, before + 1)
    assert latest_entry(solo).kind is FINAL


def test_008_a_new_leader_builds_on_the_uncommitted_configuration_of_its_predecessor() -> None:
    cluster = Cluster("ABC", blank="DE")
    cluster.elect("A")
    cluster.change([("learner", "D")])
    deliver_only_to(cluster, "B")
    cluster.crash("A")
    let_win(cluster, "B")
    last_index = cluster.raft("B").log.last_index
    assert cluster.configuration("B") == Configuration("ABC", learners="D")
    cluster.refused(lambda: cluster.change([("learner", "E")], "B"), ChangeInProgress)
    assert cluster.raft("B").log.last_index == last_index
    cluster.deliver_all()
    cluster.change([("learner", "E")], "B")
    assert cluster.configuration("B") == Configuration("ABC", learners="DE")
    all_come_back(cluster)
    assert_finished(cluster, Configuration("ABC", learners="DE"))


def test_009_entries_behind_the_joint_entry_do_not_end_the_joint_state_again() -> None:
    solo = joint_leader("123", "124")
    joint_index = solo.last_index
    for text in (b"foo", b"bar"):
        solo.give(lambda raft, text=text: raft.propose(text))
    for index in range(joint_index, joint_index + 3):
        for server in "234":
            solo.acknowledge(server, index)
        assert [at.entry.kind for at in solo.raft.log.configurations.since(1)] == [JOINT, FINAL]
    acknowledge_all(solo)
    assert solo.commit_index == solo.last_index == joint_index + 3


def test_009_the_next_leader_appends_the_new_configuration_once_too() -> None:
    cluster = with_learners("123", "4")
    cluster.change([("voter", "4"), ("remove", "3")])
    cluster.propose(b"foo")
    cluster.propose(b"bar")
    deliver_until_final(cluster)
    cluster.queue.clear()
    cluster.crash("1")
    cluster.run(8 * T)
    all_come_back(cluster)
    assert_finished(cluster, Configuration("124"))
    for server in "124":
        assert kinds(cluster, server)[2:] == ["joint", "final"]
        assert cluster.commands(server) == [b"foo", b"bar"]


def test_029_a_restart_in_the_joint_state_finds_all_parts_of_it() -> None:
    cluster = with_learners("1234", "56")
    cluster.change([("voter", "5"), ("learner", "3"), ("remove", "4")])
    joint = Configuration("125", "1234", learners="6", learners_next="3")
    deliver_only_to(cluster, "2345")
    for server in "12345":
        cluster.crash(server)
        cluster.restart(server)
        assert cluster.configuration(server) == joint
    # And it is obeyed: 1, 2 and 5 are all of C_new and half of C_old.
    cluster.partition("125", "346")
    leaders = dict(cluster.leaders)
    cluster.run(6 * T)
    assert cluster.leaders == leaders
    all_come_back(cluster)
    assert_finished(cluster, Configuration("125", learners="36"))


def test_030_a_server_takes_entries_whose_configuration_does_not_list_it() -> None:
    solo = Solo("4", entries=())
    founding = founding_entry("123")
    added = configuration_entry(3, 1, SIMPLE, Configuration("123", learners="4"))
    parts = [(founding,), (command(2, 1),), (added,)]
    for prev, entries in enumerate(parts):
        request = AppendEntries(1, prev, 1 if prev else 0, entries, prev + 1, 1)
        answer = only(AppendEntriesResponse, solo.step("1", request))
        assert (answer.success, answer.match_index) == (True, prev + 1)
    assert latest_entry(solo).configuration == Configuration("123", learners="4")
    assert solo.tick(4 * T) == []


def test_030_a_voter_becomes_a_learner_when_it_is_told_to() -> None:
    solo = Solo("3")
    joint = configuration_entry(2, 1, JOINT, Configuration("12", "123", learners_next="3"))
    final = configuration_entry(3, 1, FINAL, Configuration("12", learners="3"))
    solo.heartbeat("1", prev=1, entries=[joint])
    solo.heartbeat("1", prev=2, entries=[final])
    solo.heartbeat("1", commit=3)
    assert latest_entry(solo).configuration == Configuration("12", learners="3")
    assert not solo.raft.may_campaign()
    solo.heartbeat("1", entries=[command(4, 1)], commit=4)
    assert solo.commit_index == 4
