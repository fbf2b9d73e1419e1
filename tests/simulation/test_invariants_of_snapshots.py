"""Each invariant of snapshots is content with what obeys it, and notices what breaks it."""

from __future__ import annotations

from collections.abc import Callable

import attrs
import pytest

from raftd.core.membership import Configuration, ConfigurationKind
from raftd.core.messages import InstallSnapshot, InstallSnapshotResponse
from raftd.core.snapshot import Snapshot
from raftd.core.types import HardState, Index
from tests.core.scenario import command, configuration_entry
from tests.simulation.invariants import Invariant
from tests.simulation.invariants.acknowledged_is_kept import AcknowledgedIsKept
from tests.simulation.invariants.all import ALL, OF_COMMANDS
from tests.simulation.invariants.committed_never_changes import CommittedNeverChanges
from tests.simulation.invariants.durable_before_sent import DurableBeforeSent
from tests.simulation.invariants.equal_state import EqualState
from tests.simulation.invariants.leader_append_only import LeaderAppendOnly
from tests.simulation.invariants.leader_completeness import LeaderCompleteness
from tests.simulation.invariants.log_matching import LogMatching
from tests.simulation.invariants.one_unfinished_configuration import OneUnfinishedConfiguration
from tests.simulation.invariants.recovery import Recovery
from tests.simulation.invariants.removal import Removal
from tests.simulation.invariants.snapshot_content import SnapshotContent
from tests.simulation.invariants.snapshot_positions import SnapshotPositions
from tests.simulation.invariants.snapshots_in_use import SnapshotsInUse
from tests.simulation.invariants.state_machine_safety import StateMachineSafety
from tests.simulation.stage import (
    ABC,
    DEF,
    A,
    B,
    C,
    Server,
    Stage,
    StateContent,
    acknowledgement,
    noticed,
    snapshot_at,
)


def applied_by_leader(kind: type[Invariant], last: Index = 4) -> tuple[Stage, Server, Snapshot]:
    """Return a leader that has applied `last` entries, and its snapshot up to entry 3."""
    stage = Stage(kind)
    leader = stage.elect(stage[A], 2)
    while leader.log.last_index < last:
        stage.propose(leader)
    stage.receive(stage[B], *leader.log.entries(2, last))
    stage.count(leader, last)
    for entry in leader.log.entries(1, last):
        leader.state_hash = 100 * entry.index
        stage.apply(leader, entry)
    stage.turn(leader)
    now, leader.state_hash = leader.state_hash, 300
    snapshot = stage.take(leader, 3)
    leader.state_hash = now
    return stage, leader, snapshot


def answer(snapshot: Snapshot, match_index: Index, term: int = 2) -> InstallSnapshotResponse:
    return InstallSnapshotResponse(
        term=term,
        snapshot=snapshot.id,
        round=1,
        received_bytes=snapshot.id.size_bytes,
        installed_bytes=0,
        match_index=match_index,
        commit_index=0,
    )


@pytest.mark.parametrize("kind", [kind for kind in ALL if kind not in (Removal, *OF_COMMANDS)])
def test_every_invariant_allows_to_take_to_install_and_to_go_on(kind: type[Invariant]) -> None:
    stage, leader, snapshot = applied_by_leader(kind)
    entries = list(leader.log.entries(1, 4))
    stage.compact(leader, 3)
    stage.turn(leader)
    leader.state_hash = 300
    stage.restart(leader)
    follower = stage[C]
    stage.adopt(follower, 2)
    follower.state_hash = 300
    stage.install(follower, snapshot, entries)
    stage.send(follower, A, answer(snapshot, 3))
    stage.turn(follower)
    stage.receive(follower, entries[3], commit=4)
    follower.state_hash = 400
    stage.apply(follower, entries[3])
    stage.turn(follower)
    follower.state_hash = 300
    stage.restart(follower)


# --- durable before sent ---


def test_durable_before_sent_notices_a_snapshot_that_is_acknowledged_too_early() -> None:
    stage, leader, snapshot = applied_by_leader(DurableBeforeSent)
    stage.adopt(stage[C], 2)
    stage.send(stage[C], A, answer(snapshot, 0))
    with noticed("n3/3 acknowledges a snapshot up to index 3 in term 2 before", "found none"):
        stage.send(stage[C], A, answer(snapshot, 3))
    stage.receive(stage[C], command(2, 2), command(3, 1 + 1, b"other"))
    stage[C].durable.entries[2] = command(3, 1)
    with noticed("n3/3 acknowledges a snapshot up to index 3", "found one of term 1"):
        stage.send(stage[C], A, answer(snapshot, 3))
    assert leader.log.last_index == 4


@pytest.mark.parametrize("index", [2, 4])
def test_durable_before_sent_allows_an_install_to_acknowledge_its_end_alone(index: Index) -> None:
    stage, leader, snapshot = applied_by_leader(DurableBeforeSent)
    stage.adopt(stage[B], 2)
    stage.send(stage[B], A, answer(snapshot, 3))
    with noticed(f"n2/2 acknowledges index {index} in term 2 for a snapshot", "its last index 3"):
        stage.send(stage[B], A, answer(snapshot, index))
    assert leader.log.last_index == 4


def test_durable_before_sent_notices_a_sender_of_snapshots_without_its_own_vote() -> None:
    stage, _, snapshot = applied_by_leader(DurableBeforeSent)
    stage.adopt(stage[B], 2, C)
    part = InstallSnapshot(term=2, snapshot=snapshot.id, offset=0, data=b"", round=1)
    with noticed("n2/2 sends InstallSnapshot of term 2 before its vote is durable"):
        stage.send(stage[B], C, part)


# --- what was acknowledged is kept ---


def acknowledged(stage: Stage, leader: Server, last: Index = 4) -> Server:
    """Return a follower that has acknowledged the leader's entries up to `last`."""
    follower = stage[C]
    stage.adopt(follower, leader.term)
    stage.receive(follower, *leader.log.entries(2, last))
    stage.send(follower, leader.id, acknowledgement(leader.term, last))
    return follower


def test_acknowledged_is_kept_allows_a_later_leader_to_replace_entries() -> None:
    stage, leader, _ = applied_by_leader(AcknowledgedIsKept)
    follower = acknowledged(stage, leader)
    stage.adopt(follower, 3)
    stage.receive(follower, command(3, 3))
    stage.restart(follower)


def test_acknowledged_is_kept_allows_a_snapshot_of_another_log_in_a_later_term() -> None:
    stage, _, snapshot = applied_by_leader(AcknowledgedIsKept)
    entries = list(stage[A].log.entries(1, 4))
    follower = stage[C]
    stage.adopt(follower, 1)
    stage.receive(follower, command(2, 1), command(3, 1), command(4, 1))
    stage.send(follower, B, acknowledgement(1, 4))
    stage.adopt(follower, 2)
    stage.install(follower, snapshot, entries)
    stage.restart(follower)


def test_acknowledged_is_kept_notices_an_entry_that_is_replaced_in_the_same_term() -> None:
    stage, leader, _ = applied_by_leader(AcknowledgedIsKept)
    follower = acknowledged(stage, leader)
    with noticed("n3/3 replaces entry 4 of term 2 in the term 2 in which it has acknowledged"):
        stage.write(follower, command(3, 2))


def test_acknowledged_is_kept_notices_what_is_missing_after_a_restart() -> None:
    stage, leader, _ = applied_by_leader(AcknowledgedIsKept)
    follower = acknowledged(stage, leader)
    del follower.durable.entries[3:]
    with noticed("n3/3 has started without entry 4 of term 2", "end at 3"):
        stage.restart(follower)


def test_acknowledged_is_kept_notices_a_snapshot_that_loses_what_this_leader_was_told() -> None:
    stage, leader, snapshot = applied_by_leader(AcknowledgedIsKept)
    entries = list(leader.log.entries(1, 4))
    follower = acknowledged(stage, leader)
    follower.durable.entries[2] = command(3, 1)
    with noticed("n3/3 installs a snapshot up to entry 3 and loses entry 4", "in this term, 2"):
        stage.install(follower, snapshot, entries)


def test_acknowledged_is_kept_notices_a_reset_of_a_log_that_agrees_with_the_snapshot() -> None:
    stage, leader, snapshot = applied_by_leader(AcknowledgedIsKept)
    follower = acknowledged(stage, leader)
    disk = follower.durable
    disk.snapshot = follower.raft.snapshot = snapshot
    stage.invariant.published(follower, snapshot, StateContent(follower))
    del disk.entries[3:]
    with noticed("n3/3 has reset its log to entry 3 and lost entry 4 of term 2"):
        stage.invariant.compacted(follower, 3)


def test_acknowledged_is_kept_allows_a_reset_where_memory_has_a_later_leaders_entries() -> None:
    stage, leader, snapshot = applied_by_leader(AcknowledgedIsKept)
    follower = acknowledged(stage, leader)
    disk = follower.durable
    disk.snapshot = follower.raft.snapshot = snapshot
    stage.invariant.published(follower, snapshot, StateContent(follower))
    follower.log.truncate_from(4)
    follower.log.append([command(4, 3)])
    del disk.entries[3:]
    stage.invariant.compacted(follower, 3)


# --- a compacted log has its snapshot ---


def test_snapshot_positions_notices_a_snapshot_that_reaches_no_further() -> None:
    stage, leader, _ = applied_by_leader(SnapshotPositions)
    with noticed("n1/1 publishes a snapshot up to entry 2", "further than 3"):
        stage.take(leader, 2)


def test_snapshot_positions_notices_an_older_snapshot_after_a_restart() -> None:
    stage, leader, _ = applied_by_leader(SnapshotPositions)
    leader.durable.snapshot = None
    with noticed("the newest snapshot of n1/1 is an older one", "at least entry 3, found 0"):
        stage.restart(leader)


def test_snapshot_positions_notices_what_is_compacted_beyond_the_snapshot() -> None:
    stage, leader, _ = applied_by_leader(SnapshotPositions)
    with noticed("the log of n1/1 gives up what no snapshot has", "entry 3, found 4"):
        stage.compact(leader, 4)


def test_snapshot_positions_notices_a_reset_before_its_snapshot_is_published() -> None:
    stage, _, _ = applied_by_leader(SnapshotPositions)
    with noticed("the log of n3/3 gives up what no snapshot has", "entry 0, found 3"):
        stage.invariant.compacted(stage[C], 3)


def test_snapshot_positions_notices_a_log_in_memory_that_begins_too_late_or_earlier() -> None:
    stage, leader, _ = applied_by_leader(SnapshotPositions)
    leader.log.compact(4)
    with noticed("the log of n1/1 begins after entry 4", "up to 3 in memory and up to 3"):
        stage.turn(leader)
    leader.log.base_index = 2
    with noticed("the log of n1/1 begins earlier than before", "after 4 at least, found after 2"):
        stage.turn(leader)


# --- a snapshot is the state at its index ---


def change_id(snapshot: Snapshot, **changes: object) -> Snapshot:
    return attrs.evolve(snapshot, id=attrs.evolve(snapshot.id, **changes))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: change_id(s, last_included_index=9), "up to entry 9: expected at most 4"),
        (lambda s: change_id(s, last_included_term=1), "of term 1: expected that of term 2"),
        (lambda s: change_id(s, checksum="f" * 32), "another snapshot up to entry 3 than n1/1"),
        (
            lambda s: attrs.evolve(s, configuration=attrs.evolve(s.configuration, index=2)),
            "another configuration: expected .* of index 1, found .* of index 2",
        ),
    ],
)
def test_snapshot_content_notices_a_snapshot_of_something_else(
    change: Callable[[Snapshot], Snapshot], message: str
) -> None:
    stage, leader, snapshot = applied_by_leader(SnapshotContent)
    leader.state_hash = 300
    with noticed("n1/1 publishes", message):
        stage.invariant.published(leader, change(snapshot), StateContent(leader))


def test_snapshot_content_notices_another_state() -> None:
    stage, leader, snapshot = applied_by_leader(SnapshotContent)
    leader.state_hash = 301
    with noticed("n1/1 publishes a snapshot up to entry 3 with another state", "301"):
        stage.invariant.published(leader, snapshot, StateContent(leader))


def test_snapshot_content_needs_the_joint_form_with_its_own_index() -> None:
    stage = Stage(SnapshotContent)
    leader = stage.elect(stage[A], 2)
    joint = configuration_entry(
        3, 2, ConfigurationKind.JOINT, Configuration(voters=DEF, outgoing=ABC)
    )
    before = snapshot_at(leader, 2).configuration
    stage.propose(leader, joint)
    leader.state_hash = 300
    stage.apply(leader, *leader.log.entries(1, 3))
    snapshot = stage.take(leader, 3)
    assert snapshot.configuration.configuration.is_joint
    with noticed("another configuration", "of index 3, found", "of index 1"):
        stage.invariant.published(
            leader, attrs.evolve(snapshot, configuration=before), StateContent(leader)
        )


# --- snapshots in use are kept ---


def test_snapshots_in_use_allows_to_let_go_of_what_nobody_needs() -> None:
    stage, leader, snapshot = applied_by_leader(SnapshotsInUse)
    newer = stage.take(leader, 4)
    leader.raft.role.progress[C].begin_snapshot(newer.id, 0)
    stage.invariant.released(leader, frozenset({snapshot.id}))
    stage.invariant.released(stage[B], frozenset({snapshot.id}))


def test_snapshots_in_use_notices_one_that_is_being_sent() -> None:
    stage, leader, snapshot = applied_by_leader(SnapshotsInUse)
    stage.take(leader, 4)
    leader.raft.role.progress[C].begin_snapshot(snapshot.id, 0)
    with noticed("n1/1, leader of term 2, lets go of a snapshot that it is sending to n3/3"):
        stage.invariant.released(leader, frozenset({snapshot.id}))


def test_snapshots_in_use_notices_the_newest_one() -> None:
    stage, leader, snapshot = applied_by_leader(SnapshotsInUse)
    with noticed("n1/1 lets go of its newest snapshot, up to entry 3"):
        stage.invariant.released(leader, frozenset({snapshot.id}))


# --- what installs mean to the others ---


def test_equal_state_notices_another_state_after_an_install() -> None:
    stage, leader, snapshot = applied_by_leader(EqualState)
    entries = list(leader.log.entries(1, 4))
    stage[C].state_hash = 301
    with noticed("n3/3", "another state after applying up to index 3 than n1/1"):
        stage.install(stage[C], snapshot, entries)


def test_equal_state_notices_other_effects() -> None:
    stage, leader, snapshot = applied_by_leader(EqualState)
    entries = list(leader.log.entries(1, 4))
    stage[C].state_hash, stage[C].state.effects_hash = 300, 1
    with noticed("n3/3", "expected hashes 12c and 0, found 12c and 1"):
        stage.install(stage[C], snapshot, entries)


def test_equal_state_notices_a_state_machine_that_has_not_followed() -> None:
    stage, _, snapshot = applied_by_leader(EqualState)
    with noticed("n3/3 has installed a snapshot up to entry 3", "says 0"):
        stage.invariant.restored(stage[C], snapshot)


def test_state_machine_safety_notices_a_snapshot_that_takes_it_back() -> None:
    stage, leader, snapshot = applied_by_leader(StateMachineSafety)
    with noticed("n1/1 .process 1. installs a snapshot up to entry 3 over", "more than 4"):
        stage.invariant.restored(leader, snapshot)


def test_committed_never_changes_notices_a_snapshot_of_what_nobody_has_committed() -> None:
    stage, leader, snapshot = applied_by_leader(CommittedNeverChanges)
    with noticed("n3/3 installs a snapshot up to entry 9, which no leader has committed"):
        stage.invariant.restored(stage[C], change_id(snapshot, last_included_index=9))
    with noticed("n3/3 installs a snapshot of another log", "term 2, found 1"):
        stage.invariant.restored(stage[C], change_id(snapshot, last_included_term=1))
    assert leader.log.last_index == 4


def test_leader_completeness_still_counts_behind_a_snapshot() -> None:
    stage, leader, snapshot = applied_by_leader(LeaderCompleteness)
    entries = list(leader.log.entries(1, 4))
    follower = stage[C]
    stage.install(follower, snapshot, entries)
    with noticed("n3/3 leads in term 3 without entry 4", "found one of term 3"):
        stage.elect(follower, 3)


def test_leader_append_only_allows_a_leader_to_compact_everything() -> None:
    stage, leader, _ = applied_by_leader(LeaderAppendOnly)
    stage.take(leader, 4)
    stage.compact(leader, 4)
    stage.turn(leader)
    stage.propose(leader)
    stage.turn(leader)
    stage.propose(leader)
    stage.turn(leader)


def test_log_matching_looks_at_what_follows_a_snapshot() -> None:
    stage, leader, snapshot = applied_by_leader(LogMatching)
    entries = list(leader.log.entries(1, 4))
    stage.install(stage[C], snapshot, entries)
    stage[C].log.append([command(4, 2, b"other")])
    with noticed("n3/3 has another entry at index 4 in term 2 in its memory"):
        stage.turn(stage[C])


def test_one_unfinished_configuration_knows_the_one_that_a_snapshot_brought() -> None:
    stage = Stage(OneUnfinishedConfiguration)
    leader = stage.elect(stage[A], 2)
    joint = configuration_entry(
        3, 2, ConfigurationKind.JOINT, Configuration(voters=DEF, outgoing=ABC)
    )
    stage.count(leader, 2)
    stage.propose(leader, joint)
    stage.turn(leader)
    snapshot = snapshot_at(leader, 3)
    stage.install(stage[C], snapshot, list(leader.log.entries(1, 3)))
    again = configuration_entry(
        4, 2, ConfigurationKind.JOINT, Configuration(voters=DEF, outgoing=ABC)
    )
    with noticed("the log of n3/3 has two unfinished changes"):
        stage.receive(stage[C], again)


def compacted_and_restarted(change: Callable[[Server], None]) -> None:
    """Start a server whose snapshot has its log up to entry 3; `change` what it has found."""
    stage, leader, _ = applied_by_leader(Recovery)
    stage.compact(leader, 3)
    stage.restart(leader)
    change(leader)
    stage.invariant.started(leader)


def lose_snapshot(server: Server) -> None:
    server.raft.snapshot = None


def begin_too_late(server: Server) -> None:
    server.log.commit_index = server.log.handed_index = 4
    server.log.compact(4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lose_snapshot, "another snapshot than was durable"),
        (begin_too_late, "a log after index 4: expected that its snapshot includes as much"),
        (lambda server: setattr(server.state, "applied_index", 2), "a state of index 2"),
        (lambda server: setattr(server.state, "applied_index", 5), "a state of index 5"),
        (lambda server: setattr(server.log, "commit_index", 4), "index 3, found 4"),
        (lambda server: setattr(server.log, "base_term", 1), "entry 3 of term 1"),
    ],
)
def test_recovery_notices_a_start_that_does_not_fit_to_its_snapshot(
    change: Callable[[Server], None], message: str
) -> None:
    compacted_and_restarted(lambda server: None)
    with noticed("n1/1 starts in term 2", message):
        compacted_and_restarted(change)


def test_the_founding_configuration_counts_where_a_snapshot_has_taken_its_entry() -> None:
    stage, leader, _ = applied_by_leader(Recovery)
    stage.compact(leader, 3)
    stage.restart(leader)
    assert leader.durable.hard_state == HardState(2, A)
    leader.raft.log.configurations.truncate_from(1)
    with noticed("n1/1 starts in term 2 with another configuration than the newest"):
        stage.invariant.started(leader)
