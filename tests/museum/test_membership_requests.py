"""Requests for changes that meet other changes: refused openly, never half done.

Exhibits 33, 34, 38 and 39 of the museum.
"""

from __future__ import annotations

import pytest

from raftd.core.errors import AbortRefused, ChangeInProgress, RequestRefused
from raftd.core.membership import (
    Configuration,
    ConfigurationKind,
    MembershipChange,
    MembershipError,
    enter_joint,
    leave_joint,
    validate,
)
from raftd.core.messages import AppendEntries, Envelope
from raftd.core.types import EntryKind
from raftd.protocol import ErrorReply, MemberChange
from tests.core.harness import OPTIONS, Cluster
from tests.core.scenario import (
    Solo,
    all_come_back,
    assert_finished,
    change_of,
    configuration_entry,
    deliver_only_to,
    joint_leader,
    kinds,
    settled_leader,
    with_learners,
)
from tests.museum.steering import let_win
from tests.node.asking import refused, to
from tests.node.world import ELECTION_TICKS, World, become, drop, is_joint, new

T = OPTIONS.election_ticks
JOINT = ConfigurationKind.JOINT


def test_033_a_request_against_the_change_that_runs_does_not_leave_the_cluster_joint() -> None:
    cluster = with_learners("123", "4")
    cluster.change([("voter", "4")])
    cluster.refused(lambda: cluster.change([("remove", "4")]), ChangeInProgress)
    cluster.run(3)
    assert cluster.configuration("1") == Configuration("1234")
    assert kinds(cluster, "1")[-2:] == ["joint", "final"]
    cluster.change([("remove", "4")])
    cluster.run(3)
    assert cluster.configuration("1") == Configuration("123")
    assert kinds(cluster, "1")[-4:] == ["joint", "final"] * 2


def test_033_an_operation_that_comes_into_another_is_refused_with_its_name() -> None:
    world = World()
    leader = world.form(3)
    world.boot("n4")
    world.passes = lambda envelope: not (is_joint(envelope) and to(envelope, "n2", "n3"))
    operation = world.started(world.change("add", new("n4")))
    world.until(lambda: leader.running.raft.configuration.configuration.is_joint)
    reply = refused(world, world.change("remove", drop("n4")))
    assert reply.operation == operation
    world.passes = lambda envelope: True
    assert world.finish(operation).result == "done"
    assert world.configuration_of(world.leader()) == ({"n1", "n2", "n3", "n4"}, set(), set())
    assert world.finish(world.started(world.change("remove", drop("n4")))).result == "done"
    assert world.configuration_of(world.leader()) == ({"n1", "n2", "n3"}, set(), set())


def test_034_a_leader_changes_nothing_before_it_has_committed_in_its_own_term() -> None:
    cluster = Cluster("1234", learners="5")
    cluster.elect("1")
    cluster.change([("voter", "5")])
    deliver_only_to(cluster, "5")
    cluster.crash("1")
    let_win(cluster, "2")
    cluster.queue.clear()
    # 2 cannot know whether the change of 1 is committed.
    before = cluster.log("2")
    message = cluster.refused(lambda: cluster.change([("remove", "1")], "2"), ChangeInProgress)
    assert "not committed an entry of its term" in message
    assert cluster.log("2") == before
    cluster.run(3)
    cluster.change([("remove", "1")], "2")
    cluster.run(3)
    all_come_back(cluster)
    assert_finished(cluster, Configuration("234", learners="5"))
    assert kinds(cluster, "1") == kinds(cluster, "2") == ["bootstrap", "joint", "final"]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (change_of(*[("remove", server) for server in "123"]), "leaves no voter"),
        (change_of(*[("learner", server) for server in "123"]), "leaves no voter"),
        (change_of(("remove", "1"), ("remove", "2"), ("learner", "3")), "leaves no voter"),
        (change_of(("witness", "2")), "unknown role"),
        (MembershipChange(changes=(("learner", "9"),)), "no address given for 9"),
    ],
)
def test_038_an_impossible_target_is_refused_and_the_log_unchanged(
    change: MembershipChange, why: str
) -> None:
    solo = settled_leader()
    before = solo.terms
    with pytest.raises(MembershipError, match=why):
        solo.raft.change_membership(change)
    assert solo.raft.take_ready() is None
    assert solo.terms == before


def test_038_entering_twice_and_leaving_without_entering_are_refused() -> None:
    joint = enter_joint(Configuration("123"), [("remove", "3")])
    with pytest.raises(MembershipError, match="a change is under way"):
        enter_joint(joint, [("remove", "2")])
    with pytest.raises(MembershipError, match="is not joint"):
        leave_joint(Configuration("123"))
    solo = joint_leader("123", "124")
    last_index = solo.last_index
    with pytest.raises(ChangeInProgress, match="not settled"):
        solo.raft.change_membership(change_of(("remove", "2")))
    assert solo.last_index == last_index
    idle = settled_leader()
    with pytest.raises(AbortRefused, match="no joint change is under way"):
        idle.raft.abort_membership_change("nothing to leave")
    assert idle.raft.take_ready() is None


def test_038_a_server_that_is_voter_and_learner_at_once_is_refused_from_anybody() -> None:
    both = Configuration("123", learners="3")
    with pytest.raises(MembershipError, match="both voter and learner: 3"):
        validate(both)
    # Nor does a follower take it in, should a leader send it.
    solo = Solo("2")
    entry = configuration_entry(2, 1, ConfigurationKind.SIMPLE, both)
    assert solo.step("1", AppendEntries(1, 1, 1, (entry,), 1, 1)) == []
    assert solo.last_index == 1


@pytest.mark.parametrize(
    "changes",
    [
        [new("n4"), new("n4", "learner")],
        [become("n2", "voter"), become("n2", "learner")],
        [drop("n2"), drop("n2")],
    ],
)
def test_038_an_operation_that_names_a_server_twice_is_refused(changes: list[MemberChange]) -> None:
    world = World()
    world.form(3)
    world.boot("n4")
    before = world.leader().status.last_index
    reply = world.call(world.leader(), world.change("change", *changes))
    assert isinstance(reply, ErrorReply)
    assert "is named twice" in reply.message
    assert world.leader().status.last_index == before


def carries_commands(envelope: Envelope) -> bool:
    message = envelope.message
    return isinstance(message, AppendEntries) and any(
        entry.kind is EntryKind.COMMAND for entry in message.entries
    )


def test_039_an_old_copy_of_a_change_takes_effect_on_no_other_configuration() -> None:
    world = World()
    first = world.form(3)
    world.boot("n4")
    world.open_session("t")
    seen = first.status.configuration.index
    # The copy on n1 never leaves it; the client is told that nobody knows what became of it.
    world.passes = lambda envelope: not carries_commands(envelope)
    request = world.change("remove", drop("n3"), at_index=seen)
    asked = world.ask(first, request)
    assert asked.open
    world.cut(["n1"], ["n2", "n3", "n4"])
    world.passes = lambda envelope: True
    world.until(lambda: not asked.open)
    assert asked.error.code == "unknown-outcome"
    # Meanwhile somebody else changes the configuration.
    second = world.leader()
    assert second is not first
    change = world.change("add", new("n4", "learner"), session="t", serial=1)
    assert world.finish(world.started(change)).result == "done"
    moved = second.status.configuration.index
    assert moved > seen
    # Neither asking again nor the return of the old copy removes n3.
    reply = refused(world, request)
    assert f"has moved since index {seen}" in reply.message
    world.heal()
    world.until(world.is_settled)
    world.run(2 * ELECTION_TICKS)
    leader = world.leader()
    assert world.configuration_of(leader) == ({"n1", "n2", "n3"}, set(), {"n4"})
    assert [record.kind for record in leader.state.operations()] == ["init", "add"]


def test_039_the_expected_configuration_is_compared_before_anything_is_appended() -> None:
    solo = settled_leader()
    solo.give(lambda raft: raft.change_membership(change_of(("learner", "4"), expected_index=1)))
    solo.acknowledge("2")
    last_index = solo.last_index
    with pytest.raises(RequestRefused, match="the configuration index is 3, not 1"):
        solo.raft.change_membership(change_of(("remove", "3"), expected_index=1))
    assert solo.last_index == last_index
    solo.give(lambda raft: raft.change_membership(change_of(("remove", "3"), expected_index=3)))
    assert solo.raft.configuration.configuration.is_joint  # type: ignore[union-attr]
