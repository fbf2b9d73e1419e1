"""Who decides while the configuration changes: both halves, and never a leader that is outside.

Exhibits 10 to 20, 27 and 36 of the museum, and what of 28 applies without snapshots.
"""

from __future__ import annotations

import pytest

from raftd.core.errors import ChangeInProgress, ProposalDropped
from raftd.core.membership import Configuration, ConfigurationKind
from raftd.core.messages import AppendEntriesResponse, Envelope, TimeoutNow
from raftd.core.ready import ReadAnswer
from tests.core.harness import OPTIONS, Cluster
from tests.core.scenario import (
    Solo,
    acknowledge_all,
    all_come_back,
    assert_finished,
    change_of,
    deliver_until_final,
    joint_leader,
    kinds,
    latest_entry,
    replacement,
    settled_leader,
    with_learners,
)
from tests.museum.steering import deliver_to, run_only
from tests.node.world import World, drop, is_final

T = OPTIONS.election_ticks
JOINT, FINAL = ConfigurationKind.JOINT, ConfigurationKind.FINAL
EXIT_REMOVED = 70


def test_010_the_only_voter_of_the_old_half_does_not_decide_alone() -> None:
    cluster = with_learners("0", "12", leader="0")
    _, joint_index = cluster.change([("voter", "1"), ("voter", "2")])
    cluster.propose(b"x")
    log = cluster.raft("0").log
    assert log.durable_index == log.last_index == joint_index + 1
    assert log.commit_index < joint_index
    assert cluster.commands("0") == []
    # Nor does it after a restart, when it looks whether it is alone.
    cluster.queue.clear()
    cluster.crash("0")
    cluster.restart("0")
    cluster.partition("0", "12")
    leaders = dict(cluster.leaders)
    cluster.run(6 * T)
    assert cluster.leaders == leaders
    assert cluster.commands("0") == []
    all_come_back(cluster)
    assert_finished(cluster, Configuration("012"))
    assert cluster.commands("2") == [b"x"]


def test_011_the_joint_entry_waits_for_a_majority_of_the_new_half() -> None:
    cluster = with_learners("012", "34", leader="0")
    _, joint_index = cluster.change(replacement("012", "234"))
    deliver_to(cluster, "12")
    deliver_to(cluster, "0")
    assert cluster.raft("0").log.commit_index < joint_index
    assert kinds(cluster, "0")[-1] == "joint"
    deliver_to(cluster, "3")
    deliver_to(cluster, "0")
    assert cluster.raft("0").log.commit_index >= joint_index
    assert kinds(cluster, "0")[-1] == "final"


def test_012_a_second_server_is_not_added_before_the_first_is_committed() -> None:
    cluster = with_learners("123", "45")
    cluster.partition("145", "23")
    cluster.change([("voter", "4")], "1")
    _, lost = cluster.propose(b"lost", "1")
    cluster.run()
    cluster.refused(lambda: cluster.change([("voter", "5")], "1"), ChangeInProgress)
    assert cluster.configuration("1") == Configuration("1234", "123", learners="5")
    cluster.run(8 * T)
    assert cluster.raft("1").log.commit_index < lost
    # 2 and 3 never heard of the change: they are the majority.
    leader = cluster.leader()
    assert leader in "23"
    cluster.propose(b"kept", leader)
    cluster.run(2)
    assert cluster.commands(leader) == [b"kept"]
    all_come_back(cluster)
    assert_finished(cluster, Configuration("123", learners="45"))
    assert cluster.commands("1") == [b"kept"]


def test_013_a_leader_that_died_with_the_new_configuration_finishes_it() -> None:
    cluster = with_learners("1", "2")
    cluster.change(replacement("1", "2"))
    deliver_until_final(cluster)
    cluster.queue.clear()
    cluster.crash("1")
    assert (kinds(cluster, "1")[-1], kinds(cluster, "2")[-1]) == ("final", "joint")
    # 2 needs a majority of C_old too, and that is 1.
    cluster.run(6 * T)
    assert "2" not in cluster.leaders.values()
    cluster.restart("1")
    cluster.run(6 * T)
    assert_finished(cluster, Configuration("2"))
    cluster.propose(b"x", "2")
    assert cluster.commands("2") == [b"x"]


def test_014_the_removed_leader_that_alone_has_the_new_configuration_wins() -> None:
    world = World()
    leader = world.form(2)
    world.passes = lambda envelope: not is_final(envelope)
    operation = world.started(world.change("remove", drop("n1")))
    world.until(lambda: leader.running.raft.configuration.entry.kind is FINAL)
    last_index = leader.status.last_index
    leader.kill()
    world["n2"].kill()
    world["n2"].start()
    leader.start()
    world.passes = lambda envelope: True
    assert leader.status.last_index == last_index > world["n2"].status.last_index
    assert world.finish(operation).result == "done"
    world.until(lambda: leader.exit)
    assert leader.exit.exit_code == EXIT_REMOVED
    assert world.configuration_of(world.leader()) == ({"n2"}, set(), set())


def test_015_a_leader_that_demotes_itself_votes_for_itself_in_the_old_half() -> None:
    cluster = with_learners("A", "B", leader="A")
    cluster.change([("voter", "B"), ("learner", "A")])
    assert cluster.configuration("A") == Configuration("B", "A", learners_next="A")
    cluster.queue.clear()
    cluster.partition("A", "B")
    cluster.crash("A")
    cluster.restart("A")
    cluster.run(3 * T)
    # Only A can win, since B does not have the joint entry.
    assert cluster.role("A") in ("precandidate", "candidate")
    assert kinds(cluster, "B")[-1] != "joint"
    cluster.heal()
    cluster.run(6 * T)
    assert_finished(cluster, Configuration("B", learners="A"))


def test_016_a_voter_that_is_being_demoted_confirms_reads_for_the_old_half() -> None:
    solo = settled_leader("123", "4")
    change = change_of(("voter", "4"), ("learner", "3"))
    solo.give(lambda raft: raft.change_membership(change))
    assert latest_entry(solo).configuration == Configuration("124", "123", learners_next="3")
    before = solo.commit_index
    solo.give(lambda raft: raft.read("r"))
    # 2, who is in both halves, is slow. 4 makes a majority of C_new and 3 one of C_old.
    solo.acknowledge("4", before)
    assert solo.reads == []
    solo.acknowledge("3", before)
    assert solo.reads == [ReadAnswer("r", before)]


def test_017_a_leader_that_has_appended_its_own_removal_does_not_count_itself() -> None:
    solo = joint_leader("123", "23")
    acknowledge_all(solo)
    assert latest_entry(solo).configuration == Configuration("23")
    solo.give(lambda raft: raft.propose(b"bar"))
    bar = solo.last_index
    solo.acknowledge("2", bar)
    assert solo.commit_index < bar - 1, "its removal is committed by 1 and 2"
    solo.acknowledge("3", bar - 1)
    assert solo.commit_index == bar - 1, "bar is committed by 1 and 2"
    solo.acknowledge("3", bar)
    assert solo.commit_index == bar


class WithoutTimeoutNow(Cluster):
    """A network that loses every request to take over."""

    def passes(self, envelope: Envelope) -> bool:
        return not isinstance(envelope.message, TimeoutNow) and super().passes(envelope)


def test_018_a_removed_leader_steps_down_even_if_nobody_can_be_told_to_take_over() -> None:
    cluster = WithoutTimeoutNow("123")
    cluster.elect("1")
    cluster.change([("remove", "1")])
    cluster.run(2)
    assert cluster.configuration("1") == Configuration("23")
    assert cluster.raft("1").log.commit_index == cluster.raft("1").log.last_index
    # What it turns down meanwhile it turns down openly.
    cluster.refused(lambda: cluster.propose(b"x", "1"), ProposalDropped)
    cluster.run(T + 1)
    assert cluster.role("1") == "follower"
    cluster.run_until(lambda: "leader" in (cluster.role("2"), cluster.role("3")), 6 * T)
    cluster.propose(b"x")
    cluster.run(2)
    assert cluster.commands("2") == cluster.commands("3") == [b"x"]
    # It is quiet from now on.
    cluster.partition("1", "23")
    cluster.queue.clear()
    cluster.tick("1", 6 * T)
    assert cluster.queue == []


def test_019_the_last_voter_does_not_need_the_leader_that_left_too_early() -> None:
    cluster = Cluster("AB")
    cluster.elect("A")
    cluster.change([("remove", "A")])
    for receiver in "BABA":
        deliver_to(cluster, receiver)
    assert kinds(cluster, "B")[-1] == "final"
    assert cluster.raft("A").log.commit_index == cluster.raft("A").log.last_index
    assert cluster.raft("B").log.commit_index < cluster.raft("B").log.last_index
    cluster.queue.clear()
    cluster.crash("A")
    cluster.run(3 * T)
    assert cluster.leader() == "B"
    cluster.propose(b"x", "B")
    assert cluster.commands("B") == [b"x"]


def test_020_a_leader_that_is_demoted_stays_in_office_through_the_joint_state() -> None:
    cluster = with_learners("123", "4")
    term = cluster.raft("1").current_term
    # For a while the new half (2 3 4) cannot agree to anything.
    cluster.cut = {("3", "1"), ("4", "1")}
    cluster.change([("voter", "4"), ("learner", "1")])
    for _ in range(T - 2):
        cluster.run()
        assert cluster.leader() == "1"
        assert kinds(cluster, "1")[-1] == "joint"
    cluster.propose(b"x", "1")
    cluster.heal()
    cluster.run(3)
    successor = cluster.leader()
    assert successor in "234"
    # One hand-over, by request: no election was lost and none timed out.
    assert cluster.raft(successor).current_term == term + 1
    cluster.run(2)
    assert_finished(cluster, Configuration("234", learners="1"))
    assert cluster.commands("1") == [b"x"]


def test_027_of_two_sides_that_each_remove_the_other_only_the_majority_succeeds() -> None:
    cluster = with_learners("12345", "")
    cluster.partition("12", "345")
    cluster.change([("remove", "4"), ("remove", "5")], "1")
    cluster.propose(b"lost", "1")
    run_only(cluster, "345", 4 * T)
    (other,) = (server for server in "345" if cluster.role(server) == "leader")
    # 1 has stood still: it still believes that it leads, and 2 of (1 2 3) are with it.
    assert cluster.role("1") == "leader"
    cluster.change([("remove", "1"), ("remove", "2")], other)
    cluster.propose(b"kept", other)
    run_only(cluster, "345", 2)
    run_only(cluster, "12", 3)
    assert cluster.commands("1") == cluster.commands("2") == []
    assert cluster.configuration("1") == Configuration("123", "12345")
    assert cluster.commands(other) == [b"kept"]
    all_come_back(cluster)
    assert_finished(cluster, Configuration("345"))
    assert cluster.commands("1") == cluster.commands("3") == [b"kept"]


def test_028_a_lagging_server_of_the_old_half_is_fed_and_decides_although_it_is_demoted() -> None:
    cluster = with_learners("123", "4")
    cluster.partition("124", "3")
    for number in range(20):
        cluster.propose(b"%d" % number)
    cluster.run()
    cluster.crash("2")
    _, joint_index = cluster.change([("voter", "4"), ("learner", "3")])
    cluster.run(2)
    assert cluster.raft("1").log.commit_index < joint_index
    assert cluster.raft("3").log.last_index < joint_index
    cluster.heal()
    cluster.run(4)
    assert cluster.configuration("3") == Configuration("124", learners="3")
    assert cluster.raft("1").log.commit_index > joint_index
    assert len(cluster.commands("3")) == 20


def test_036_shrinking_to_one_voter_commits_what_waits() -> None:
    solo = joint_leader("12", "1")
    joint_index = solo.last_index
    solo.give(lambda raft: raft.propose(b"x"))
    solo.give(lambda raft: raft.propose(b"y"))
    answer = AppendEntriesResponse(solo.term, True, solo.round, joint_index, solo.commit_index)
    solo.raft.step(Envelope("2", "1", answer))
    # At once: before C_new itself, which comes behind them, is on the disk.
    assert latest_entry(solo).kind is FINAL
    assert solo.commit_index == joint_index + 2
    solo.work()
    assert solo.commit_index == solo.last_index == joint_index + 3
    assert [entry.data for entry in solo.applied[-3:-1]] == [b"x", b"y"]


@pytest.mark.parametrize("entries_behind", [0, 3])
def test_036_the_only_voter_commits_what_it_finds_when_it_becomes_leader(
    entries_behind: int,
) -> None:
    solo = Solo(voters="1", learners="2", terms=[1] * (1 + entries_behind))
    assert solo.commit_index == 0
    solo.time_out()
    assert solo.role == "leader"
    assert solo.commit_index == solo.last_index == entries_behind + 2
