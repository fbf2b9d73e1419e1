"""Aborts of a joint change, by request and by itself, and when they are refused.

Source: dissertation 4.3 and 6.2; the rule stands in `Leader.abort_obstacle`.
"""

from __future__ import annotations

import pytest

from raftd.core.errors import (
    AbortRefused,
)
from raftd.core.membership import (
    Configuration,
    ConfigurationKind,
    MembershipError,
)
from tests.core.harness import OPTIONS, address_of, appends, founding_entry
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
    replacement,
    settled_leader,
    with_learners,
)

T = OPTIONS.election_ticks
JOINT, FINAL, ABORT = ConfigurationKind.JOINT, ConfigurationKind.FINAL, ConfigurationKind.ABORT


# --- abort ---


def test_abort_restores_the_old_configuration_with_the_learners_from_before() -> None:
    """Allowed for the leader that has appended C_old,new itself in its current term."""
    solo = settled_leader("123", "8")
    solo.give(lambda raft: raft.change_membership(change_of(("learner", "4"), operation="op-1")))
    acknowledge_all(solo)
    change = change_of(
        ("voter", "4"), ("voter", "8"), ("remove", "3"), operation="op-1", learners_before={"8"}
    )
    solo.give(lambda raft: raft.change_membership(change))
    solo.give(lambda raft: raft.abort_membership_change("by hand"))
    entry = latest_entry(solo)
    assert entry.kind is ABORT
    assert entry.configuration == Configuration("123", learners="8")
    assert (entry.operation, entry.outcome, entry.reason) == ("op-1", "aborted", "by hand")
    assert dict(entry.left_out) == {"4": address_of("4")}
    # 4 is not removed for good: it may be added again with what it has.
    assert entry.tombstones == frozenset()
    solo.acknowledge("2")
    assert solo.commit_index == solo.last_index
    solo.give(lambda raft: raft.change_membership(change_of(("learner", "5"))))


def test_abort_is_possible_while_the_joint_entry_is_on_some() -> None:
    solo = joint_leader("123", "456")
    solo.acknowledge("4")
    solo.acknowledge("5")
    solo.give(lambda raft: raft.abort_membership_change("by hand"))
    assert latest_entry(solo).kind is ABORT


def test_no_abort_past_the_point_of_no_return() -> None:
    """Once C_new is appended the change only goes forward."""
    solo = joint_leader("123", "456")
    acknowledge_all(solo)
    assert latest_entry(solo).kind is FINAL
    with pytest.raises(AbortRefused, match="point of no return"):
        solo.raft.abort_membership_change("by hand")
    assert solo.raft.status().configuration is not None


def test_no_abort_without_a_change() -> None:
    solo = settled_leader()
    with pytest.raises(AbortRefused, match="no joint change"):
        solo.raft.abort_membership_change("by hand")


@pytest.mark.parametrize("known_committed", [False, True])
def test_no_abort_of_an_inherited_joint_entry(known_committed: bool) -> None:
    """Not before this leader has committed an entry of its term under both majorities.

    That the joint entry is known to be committed is not enough.
    """
    entries = [
        founding_entry("123"),
        configuration_entry(2, 1, JOINT, Configuration("456", "123")),
    ]
    solo = Solo(entries=entries)
    if known_committed:
        solo.heartbeat("2", commit=2)
    solo.lead()
    solo.acknowledge("2")
    solo.acknowledge("3")
    with pytest.raises(AbortRefused, match="earlier leader"):
        solo.raft.abort_membership_change("by hand")
    assert latest_entry(solo).kind is JOINT


def test_after_a_commit_of_its_own_an_heir_goes_forward_at_once() -> None:
    """An heir that may abort may also finish, and finishing comes first."""
    entries = [
        founding_entry("123"),
        configuration_entry(2, 1, JOINT, Configuration("456", "123")),
    ]
    solo = Solo(entries=entries)
    solo.lead()
    for server in "245":
        solo.acknowledge(server, 3)
    assert latest_entry(solo).kind is FINAL
    with pytest.raises(AbortRefused, match="point of no return"):
        solo.raft.abort_membership_change("by hand")


def test_a_looser_abort_would_split_the_brain() -> None:
    """{1,2,3} to {4,5,6}: 4 has C_new from leader 1, which dies; 2 must not restore C_old.

    If 2 could, {2, 3} would commit under C_old while 4 wins under C_new with 5.
    """
    cluster = with_learners("123", "456")
    cluster.change(replacement("123", "456"))
    deliver_until_final(cluster)
    deliver_only_to(cluster, "4")
    cluster.crash("1")
    assert kinds(cluster, "4")[-1] == "final"
    assert {kinds(cluster, server)[-1] for server in "2356"} == {"joint"}
    # 2 is elected under C_old,new by 3, 5 and 6, and even knows the joint entry to be committed.
    joint_index = cluster.raft("2").log.configurations.latest.index  # type: ignore[union-attr]
    cluster.raft("2").log.commit_index = joint_index
    cluster.partition("2356", "4")
    for other in "356":
        cluster.raft(other).leader_id = None
    while cluster.role("2") != "leader":
        if not cluster.queue:
            cluster.tick("2")
        for envelope in cluster.take(lambda envelope: not appends(envelope)):
            cluster.deliver(envelope)
    cluster.queue.clear()
    message = cluster.refused(
        lambda: cluster.give("2", lambda raft: raft.abort_membership_change("by hand")),
        AbortRefused,
    )
    assert "earlier leader" in message
    # What 3 acknowledges alone commits nothing: C_new's majority has to agree.
    cluster.partition("23", "456")
    cluster.tick("2")
    cluster.deliver_all()
    assert cluster.raft("2").log.commit_index == joint_index
    # The other side may go on, and the whole group ends in C_new.
    cluster.crash("2")
    cluster.heal()
    cluster.run(8 * T)
    all_come_back(cluster)
    assert_finished(cluster, Configuration("456"))


# --- automatic rollback ---


def test_without_the_new_half_the_change_rolls_itself_back() -> None:
    """6.2 with 4.3: instead of stepping down, since afterwards nobody could be elected."""
    cluster = with_learners("123", "456")
    for server in "456":
        cluster.crash(server)
    cluster.change(replacement("123", "456"))
    term = cluster.raft("1").current_term
    cluster.run(2 * T)
    assert (cluster.leader(), cluster.raft("1").current_term) == ("1", term)
    assert kinds(cluster, "1")[-1] == "abort"
    cluster.propose(b"x")
    cluster.run(2)
    assert cluster.commands("1") == cluster.commands("2") == [b"x"]
    latest = cluster.raft("1").configuration
    assert latest is not None
    assert "silent: 4, 5, 6" in latest.entry.reason


def test_without_the_old_half_the_leader_steps_down() -> None:
    """6.2: C_old's majority is needed for everything, an abort included."""
    solo = joint_leader("123", "456")
    for _ in range(T):
        solo.tick()
        for server in "456":
            solo.acknowledge(server, 1)
    assert solo.role == "follower"
    assert latest_entry(solo).kind is JOINT


def test_an_heir_that_must_not_abort_steps_down() -> None:
    """6.2 with 4.3: without C_new's majority, and nothing committed in its own term."""
    entries = [
        founding_entry("123"),
        configuration_entry(2, 1, JOINT, Configuration("456", "123")),
    ]
    solo = Solo(entries=entries)
    solo.lead()
    for _ in range(T):
        solo.tick()
        solo.acknowledge("2")
        solo.acknowledge("3")
    assert solo.role == "follower"
    assert latest_entry(solo).kind is JOINT


def test_a_new_half_that_answers_and_stores_nothing_is_given_up() -> None:
    """A configurable time without progress."""
    solo = joint_leader("123", "456")
    joint_index = solo.last_index
    # The first look finds that the new half has got as far as it was before.
    for tick in range(OPTIONS.joint_timeout_ticks + 1):
        assert latest_entry(solo).kind is JOINT, tick
        for server in "23":
            solo.acknowledge(server)
        for server in "456":
            solo.acknowledge(server, joint_index - 1)
        solo.tick()
    assert latest_entry(solo).kind is ABORT
    assert "none is silent" in latest_entry(solo).reason


def test_progress_of_the_new_half_keeps_the_change_going() -> None:
    """Only time without progress counts."""
    solo = settled_leader("123", "456")
    for _ in range(60):
        solo.give(lambda raft: raft.propose(b"x"))
    acknowledge_all(solo, "5", "6")
    for server in "56":
        solo.acknowledge(server, 10)
    # 5 and 6 were caught up before these proposals, and are slow now.
    solo.tick()
    acknowledge_all(solo, "5", "6")
    for server in "56":
        solo.acknowledge(server, 11)
    solo.give(lambda raft: raft.change_membership(change_of(*replacement("123", "456"))))
    for step in range(2 * OPTIONS.joint_timeout_ticks):
        solo.tick()
        solo.acknowledge("2")
        for server in "56":
            solo.acknowledge(server, 12 + step)
        assert latest_entry(solo).kind is JOINT


def test_past_the_point_of_no_return_the_loss_of_the_new_half_ends_leadership() -> None:
    """6.2: with C_new in force its majority is needed, and nothing is rolled back."""
    solo = joint_leader("123", "456")
    acknowledge_all(solo)
    assert latest_entry(solo).kind is FINAL
    for _ in range(T):
        solo.tick()
        solo.acknowledge("2")
        solo.acknowledge("3")
    assert solo.role == "follower"
    assert latest_entry(solo).kind is FINAL


def test_a_change_whose_abort_could_not_restore_a_configuration_is_refused_at_its_start() -> None:
    """6: an abort restores C_old with the learners from before; a voter of C_old is none."""
    cluster = with_learners("123", "4")
    last_index = cluster.raft("1").log.last_index
    with pytest.raises(MembershipError, match="both voter and learner: 1"):
        cluster.change([("voter", "4")], learners_before=frozenset({"1"}))
    assert cluster.raft("1").log.last_index == last_index
