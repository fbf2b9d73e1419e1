"""Each invariant is content with what obeys its property, and notices what breaks it.

Here those about leaders, logs and commits; those about one server and about membership changes
stand in `test_invariants_of_one_server` and `test_invariants_of_changes`.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any
from zlib import crc32

import pytest

import tests.core.walks as walks_module
from raftd.core.leader import Leader
from raftd.core.membership import Configuration
from raftd.core.messages import AppendEntries, Message, TimeoutNow
from raftd.core.raft import Raft
from raftd.core.ready import Ready
from raftd.core.snapshot import Snapshot, SnapshotId
from raftd.core.types import Entry, EntryKind, HardState, Index, ServerId
from raftd.protocol import PROTOCOL_VERSION_MAX
from tests.core.disk import Disk as CoreDisk
from tests.core.disk import decode_state
from tests.core.harness import Server as CoreServer
from tests.core.scenario import command
from tests.core.walks import FaultyCluster, PowerLoss, Walk
from tests.simulation import invariants
from tests.simulation.invariants import Durable, Invariant
from tests.simulation.invariants.all import ALL, OF_COMMANDS
from tests.simulation.invariants.committed_never_changes import CommittedNeverChanges
from tests.simulation.invariants.committed_on_quorum import CommittedOnQuorum
from tests.simulation.invariants.election_safety import ElectionSafety
from tests.simulation.invariants.equal_state import EqualState
from tests.simulation.invariants.leader_append_only import LOOKED_BACK, LeaderAppendOnly
from tests.simulation.invariants.leader_completeness import LeaderCompleteness
from tests.simulation.invariants.log_matching import LogMatching
from tests.simulation.invariants.removal import Removal
from tests.simulation.invariants.state_machine_safety import StateMachineSafety
from tests.simulation.stage import (
    ABC,
    DEF,
    FOUNDING,
    A,
    B,
    C,
    D,
    Disk,
    E,
    Server,
    Stage,
    State,
    committed_everywhere,
    figure_8,
    heartbeat,
    noticed,
)
from tests.simulation.watch import Watch

# --- Election Safety ---


def test_election_safety_allows_one_leader_in_each_term() -> None:
    stage = Stage(ElectionSafety)
    stage.elect(stage[A], 2)
    stage.send(stage[A], B, heartbeat(stage[A]))
    stage.count(stage[A], 2)
    stage.elect(stage[B], 3)
    stage.elect(stage[A], 4)
    stage.turn(stage[B])


def test_election_safety_notices_a_second_leader_of_a_term() -> None:
    stage = Stage(ElectionSafety)
    stage.elect(stage[A], 2)
    stage.adopt(stage[A], 3)
    with noticed("two leaders in term 2: n1/1", "n2/2"):
        stage.elect(stage[B], 2)


def test_election_safety_notices_a_leader_that_leads_again_after_a_restart() -> None:
    stage = Stage(ElectionSafety)
    stage.elect(stage[A], 2)
    stage.restart(stage[A])
    with noticed("two leaders in term 2: n1/1 .process 1.", "n1/1 .process 2."):
        stage.elect(stage[A], 2)


@pytest.mark.parametrize("message", [AppendEntries(2, 0, 0, (), 0, 1), TimeoutNow(2)])
def test_election_safety_notices_a_leader_within_a_turn_by_what_it_sends(
    message: Message,
) -> None:
    stage = Stage(ElectionSafety)
    stage.elect(stage[A], 2)
    with noticed("two leaders in term 2"):
        stage.send(stage[B], C, message)


def test_election_safety_notices_a_leader_within_a_turn_by_what_it_counts() -> None:
    stage = Stage(ElectionSafety)
    stage.elect(stage[A], 2)
    stage.adopt(stage[B], 2)
    with noticed("two leaders in term 2"):
        stage.count(stage[B], 1)


# --- Leader Append-Only ---


def long_leader(kind: type[Invariant], count: int = 3 * LOOKED_BACK) -> tuple[Stage, Server]:
    """Return a leader of term 2 with `count` commands in its log."""
    stage = Stage(kind)
    leader = stage.elect(stage[A], 2)
    for _ in range(count):
        stage.propose(leader)
    stage.turn(leader)
    return stage, leader


def test_leader_append_only_allows_a_leader_to_append_and_a_follower_to_replace() -> None:
    stage, leader = long_leader(LeaderAppendOnly)
    stage.propose(leader)
    stage.turn(leader)
    stage.adopt(leader, 3)
    stage.receive(leader, command(4, 3))
    assert leader.log.last_index == 4
    stage.elect(leader, 5)


def test_leader_append_only_notices_a_leader_that_deletes_entries() -> None:
    stage, leader = long_leader(LeaderAppendOnly)
    last = leader.log.last_index
    leader.log.truncate_from(last)
    with noticed("n1/1, leader of term 2, has deleted entries", f"{last}", f"{last - 1}"):
        stage.turn(leader)


def test_leader_append_only_notices_a_leader_whose_last_entry_changes() -> None:
    stage, leader = long_leader(LeaderAppendOnly)
    last = leader.log.last_index
    leader.log.truncate_from(last)
    leader.log.append([command(last, 2, b"other"), command(last + 1, 2)])
    with noticed("n1/1, leader of term 2, has changed its entry", str(last), "other"):
        stage.turn(leader)


def test_leader_append_only_notices_an_older_entry_that_changes_after_some_turns() -> None:
    stage, leader = long_leader(LeaderAppendOnly)
    leader.log.entry(5).data = b"other"

    def lead_on() -> None:
        for _ in range(leader.log.last_index):
            stage.propose(leader)
            stage.turn(leader)

    with noticed("n1/1, leader of term 2, has changed its entry 5", "other"):
        lead_on()


def test_leader_append_only_notices_a_leader_that_writes_over_its_disk() -> None:
    stage, leader = long_leader(LeaderAppendOnly)
    with noticed("n1/1, leader of term 2, writes entry 4 to its disk"):
        stage.write(leader, command(4, 2, b"other"))


# --- Log Matching ---


def test_log_matching_allows_logs_that_part_and_logs_that_are_repaired() -> None:
    stage = Stage(LogMatching)
    ours, theirs = command(2, 2), command(2, 3)
    stage.receive(stage[A], ours)
    stage.receive(stage[B], theirs, command(3, 3))
    stage.receive(stage[C], ours)
    stage.receive(stage[C], theirs, command(3, 3))
    stage.restart(stage[C])
    stage.receive(stage[A], theirs)
    stage.restart(stage[A])


def test_log_matching_notices_another_entry_at_the_same_index_and_term() -> None:
    stage = Stage(LogMatching)
    stage.receive(stage[A], command(2, 2, b"one"))
    with noticed("n2/2 has another entry at index 2 in term 2 in its disk", "one", "two"):
        stage.receive(stage[B], command(2, 2, b"two"))


def test_log_matching_notices_another_kind_of_entry() -> None:
    stage = Stage(LogMatching)
    stage.receive(stage[A], Entry(2, 2, EntryKind.COMMAND, b"x"))
    with noticed("another entry at index 2 in term 2", "COMMAND", "NOOP"):
        stage.receive(stage[B], Entry(2, 2, EntryKind.NOOP, b"x"))


def test_log_matching_notices_another_log_below_an_equal_entry() -> None:
    stage = Stage(LogMatching)
    stage.receive(stage[A], command(2, 2), command(3, 4))
    with noticed("n2/2 in its disk has entry 3 of term 4", "term 2 at index 2", "term 3"):
        stage.receive(stage[B], command(2, 3), command(3, 4))


def test_log_matching_notices_what_is_only_in_memory() -> None:
    stage = Stage(LogMatching)
    stage.receive(stage[A], command(2, 2, b"one"))
    stage[B].log.append([command(2, 2, b"two")])
    with noticed("n2/2 has another entry at index 2 in term 2 in its memory"):
        stage.turn(stage[B])


def test_log_matching_looks_again_at_a_memory_that_is_as_long_as_before() -> None:
    stage = Stage(LogMatching)
    stage.receive(stage[A], command(2, 2), command(3, 3, b"one"))
    stage.receive(stage[B], command(2, 2), command(3, 2))
    stage[B].log.truncate_from(3)
    stage[B].log.append([command(3, 3, b"two")])
    with noticed("n2/2 has another entry at index 3 in term 3 in its memory"):
        stage.turn(stage[B])


def test_log_matching_notices_what_a_disk_has_changed_between_two_processes() -> None:
    stage = Stage(LogMatching)
    stage.receive(stage[A], command(2, 2, b"one"))
    stage[A].durable.entries[1] = command(2, 2, b"two")
    with noticed("n1/1 has another entry at index 2 in term 2 in its disk"):
        stage.restart(stage[A])


# --- Leader Completeness ---


def test_leader_completeness_goes_by_the_term_in_which_an_entry_was_committed() -> None:
    stage = Stage(LeaderCompleteness)
    first, second, third = figure_8(stage)
    # Entry 2 is of term 2, and the leader of term 3 has never had it.
    stage.count(first, 3)
    stage.elect(second, 5)
    stage.turn(third)


def test_leader_completeness_notices_a_leader_that_lacks_a_committed_entry() -> None:
    stage = Stage(LeaderCompleteness)
    first, _, third = figure_8(stage)
    stage.count(first, 3)
    with noticed("n3/3 leads in term 5 without entry 3", "n1/1 committed in term 4", "term 5"):
        stage.elect(third, 5)


def test_leader_completeness_notices_a_leader_whose_log_is_too_short() -> None:
    stage = Stage(LeaderCompleteness)
    leader = stage.elect(stage[A], 2)
    stage.propose(leader)
    stage.propose(leader)
    stage.count(leader, 4)
    with noticed("n2/2 leads in term 3 without entry 4", "found none"):
        stage.elect(stage[B], 3)


def test_leader_completeness_notices_an_old_leader_that_counts_after_its_successor_began() -> None:
    stage = Stage(LeaderCompleteness)
    leader = stage.elect(stage[A], 2)
    stage.elect(stage[B], 3)
    stage.adopt(stage[B], 4)
    with noticed("n2/2 leads in term 3 without entry 2", "n1/1 committed in term 2"):
        stage.count(leader, 2)


def test_leader_completeness_allows_an_old_leader_to_count_what_its_successor_has() -> None:
    stage = Stage(LeaderCompleteness)
    leader = stage.elect(stage[A], 2)
    stage.receive(stage[B], leader.log.entry(2))
    stage.elect(stage[B], 3)
    stage.count(leader, 2)


# --- State Machine Safety ---


def test_state_machine_safety_allows_equal_entries_in_batches_of_any_size() -> None:
    stage = committed_everywhere(StateMachineSafety)
    entries = stage[A].log.entries(1, 3)
    stage.apply(stage[A], *entries)
    for entry in entries:
        stage.apply(stage[B], entry)
    stage.restart(stage[A])
    stage[A].log.commit_index = 3
    stage.apply(stage[A], *entries)


def test_state_machine_safety_notices_another_entry_at_an_index() -> None:
    stage = committed_everywhere(StateMachineSafety)
    stage.apply(stage[A], *stage[A].log.entries(1, 3))
    stage.apply(stage[B], *stage[A].log.entries(1, 2))
    with noticed("n2/2 .process 1. applies another entry at index 3 than n1/1", "3.2", "other"):
        stage.apply(stage[B], command(3, 2, b"other"))


def test_state_machine_safety_notices_another_entry_in_a_later_process() -> None:
    stage = committed_everywhere(StateMachineSafety)
    stage.apply(stage[A], *stage[A].log.entries(1, 3))
    stage.restart(stage[A])
    stage[A].log.commit_index = 3
    with noticed("n1/1 .process 2. applies another entry at index 1"):
        stage.apply(stage[A], command(1, 1))


@pytest.mark.parametrize("index", [1, 3])
def test_state_machine_safety_notices_an_entry_that_is_repeated_or_left_out(
    index: Index,
) -> None:
    stage = committed_everywhere(StateMachineSafety)
    stage.apply(stage[A], stage[A].log.entry(1))
    with noticed(f"n1/1 .process 1. applies entry {index}", "out of order: expected entry 2"):
        stage.apply(stage[A], stage[A].log.entry(index))


def test_state_machine_safety_goes_on_from_where_the_state_machine_started() -> None:
    stage = committed_everywhere(StateMachineSafety)
    server = stage[A]
    server.state.applied_index = 2
    stage.invariant.started(server)
    stage.apply(server, server.log.entry(3))


def test_state_machine_safety_notices_what_is_applied_before_it_is_committed() -> None:
    stage = Stage(StateMachineSafety)
    with noticed("n1/1 applies entry 1 of term 1", "commit index 0"):
        stage.apply(stage[A], FOUNDING)


def test_state_machine_safety_notices_a_state_machine_that_skips_what_it_is_given() -> None:
    stage = committed_everywhere(StateMachineSafety)
    stage[A].state.applied_index = 1
    with noticed("the state machine of n1/1", "expected 2, found 1"):
        stage.invariant.applied(stage[A], stage[A].log.entries(1, 2))


# --- Committed on a quorum ---


def test_committed_on_quorum_allows_what_a_majority_has_on_its_disks() -> None:
    stage = Stage(CommittedOnQuorum)
    leader = stage.elect(stage[A], 2)
    stage.propose(leader)
    stage.receive(stage[B], *leader.log.entries(2, 3))
    stage.count(leader, 3)
    # A server that is gone keeps what its disk has had.
    stage.invariant.ended(stage[B])
    stage.propose(leader)
    stage.receive(stage[C], *leader.log.entries(2, 4))
    stage.count(leader, 4)


def test_committed_on_quorum_notices_what_a_minority_has() -> None:
    stage = Stage(CommittedOnQuorum)
    leader = stage.elect(stage[A], 2)
    with noticed("n1/1, leader of term 2, commits entry 2 of term 2", "found it on 1 of 3"):
        stage.count(leader, 2)


def test_committed_on_quorum_does_not_count_an_entry_of_another_term() -> None:
    stage = Stage(CommittedOnQuorum)
    leader = stage.elect(stage[A], 3)
    stage.receive(stage[B], command(2, 2))
    with noticed("commits entry 2 of term 3", "found it on 1 of 3", "n2/2 has term 2"):
        stage.count(leader, 2)


def test_committed_on_quorum_does_not_count_what_the_leader_has_in_memory_only() -> None:
    stage = Stage(CommittedOnQuorum)
    leader = stage.elect(stage[A], 2)
    leader.log.append([command(3, 2)])
    stage.receive(stage[B], *leader.log.entries(2, 3))
    with noticed("commits entry 3 of term 2", "found it on 1 of 3: n1/1 has nothing"):
        stage.count(leader, 3)


def test_committed_on_quorum_notices_an_entry_of_an_older_term_that_is_counted() -> None:
    stage = Stage(CommittedOnQuorum)
    first, _, _ = figure_8(stage)
    with noticed("n1/1 commits entry 2 by counting", "its own term 4, found one of term 2"):
        stage.count(first, 2)


def test_committed_on_quorum_counts_the_entries_between_as_well() -> None:
    stage = Stage(CommittedOnQuorum)
    leader = stage.elect(stage[A], 3)
    stage.propose(leader)
    stage.receive(stage[B], command(2, 2), leader.log.entry(3))
    with noticed("commits entry 2 of term 3", "n2/2 has term 2"):
        stage.count(leader, 3)


@pytest.mark.parametrize("missing", ["C_old", "C_new"])
def test_committed_on_quorum_needs_both_halves_of_a_joint_configuration(missing: str) -> None:
    joint = Configuration(voters=DEF, outgoing=ABC)
    stage = Stage(CommittedOnQuorum, ABC + DEF)
    leader = stage.elect(stage[A], 2)
    have = {"C_old": DEF, "C_new": (B, C)}[missing]
    for server in have:
        stage.receive(stage[server], leader.log.entry(2))
    with noticed(f"on the disks of a majority of {missing}, found it on"):
        stage.count(leader, 2, joint)
    stage.receive(stage[B], leader.log.entry(2))
    stage.receive(stage[D], leader.log.entry(2))
    stage.receive(stage[E], leader.log.entry(2))
    leader.log.commit_index = 0
    stage.count(leader, 2, joint)


def test_committed_on_quorum_does_not_know_servers_that_never_were() -> None:
    stage = Stage(CommittedOnQuorum)
    leader = stage.elect(stage[A], 2)
    with noticed("found it on 1 of 2", "n9/9 has nothing"):
        stage.count(leader, 2, Configuration(voters=(A, "n9/9")))


# --- Committed never changes ---


def test_committed_never_changes_allows_an_old_leader_its_own_entries() -> None:
    stage = Stage(CommittedNeverChanges)
    old = stage.elect(stage[A], 2)
    new = stage.elect(stage[B], 3)
    stage.receive(stage[C], new.log.entry(2))
    stage.count(new, 2)
    stage.turn(new)
    # Cut off, it appends where another one has committed; then it learns of it.
    stage.propose(old)
    stage.turn(old)
    stage.adopt(old, 3)
    stage.receive(old, new.log.entry(2), commit=2)
    stage.apply(old, *new.log.entries(1, 2))
    stage.restart(old)
    stage.receive(old, command(3, 3), commit=2)
    stage.receive(old, commit=2)
    stage.elect(old, 4)
    stage.count(old, 4)


def test_committed_never_changes_allows_an_old_leader_that_is_seen_late() -> None:
    stage = Stage(CommittedNeverChanges)
    new = stage.elect(stage[B], 3)
    stage.count(new, 2)
    stage.elect(stage[A], 2)


def test_committed_never_changes_notices_a_leader_that_commits_something_else() -> None:
    stage = Stage(CommittedNeverChanges)
    leader = stage.elect(stage[A], 2)
    stage.count(leader, 2)
    other = stage[B]
    other.raft.current_term, other.raft.role = 3, Leader(other.raft)
    other.log.append([command(2, 3)])
    with noticed("n2/2 commits another entry at index 2 than n1/1 committed in term 2", "term 3"):
        stage.count(other, 2)


def test_committed_never_changes_notices_a_leader_that_commits_on_top_of_something_else() -> None:
    stage = Stage(CommittedNeverChanges)
    leader = stage.elect(stage[A], 2)
    stage.count(leader, 2)
    other = stage[B]
    other.raft.current_term, other.raft.role = 3, Leader(other.raft)
    other.log.append([command(2, 3), command(3, 3)])
    other.log.commit_index = 2
    with noticed("n2/2 commits on top of another entry at index 2"):
        stage.count(other, 3)


def test_committed_never_changes_notices_a_gap_between_commits() -> None:
    stage = Stage(CommittedNeverChanges)
    leader = stage.elect(stage[A], 2)
    leader.log.commit_index = 1
    with noticed("n1/1, leader of term 2, counts on from index 1, which nobody has committed"):
        stage.count(leader, 2)


def test_committed_never_changes_notices_a_later_leader_with_another_entry() -> None:
    stage = Stage(CommittedNeverChanges)
    leader = stage.elect(stage[A], 2)
    stage.count(leader, 2)
    with noticed("n2/2 leads in term 3 and has another entry at index 2 than n1/1"):
        stage.elect(stage[B], 3)


def test_committed_never_changes_notices_a_later_leader_with_a_shorter_log() -> None:
    stage = Stage(CommittedNeverChanges)
    leader = stage.elect(stage[A], 2)
    stage.propose(leader)
    stage.count(leader, 3)
    other = stage[B]
    stage.receive(other, leader.log.entry(2))
    other.raft.current_term, other.raft.role = 3, Leader(other.raft)
    with noticed("n2/2 leads in term 3 and has another entry at index 3", "found no entry"):
        stage.turn(other)


def test_committed_never_changes_notices_a_follower_that_believes_too_much() -> None:
    stage = Stage(CommittedNeverChanges)
    leader = stage.elect(stage[A], 2)
    stage.count(leader, 2)
    with noticed("n2/2 believes committed another entry at index 2", "found COMMAND of term 3"):
        stage.receive(stage[B], command(2, 3), commit=2)


def test_committed_never_changes_notices_a_belief_that_nobody_has_counted() -> None:
    stage = Stage(CommittedNeverChanges)
    with noticed("n2/2 believes committed entry 1, which no leader has committed"):
        stage.receive(stage[B], commit=1)


def test_committed_never_changes_notices_another_entry_that_is_applied() -> None:
    stage = Stage(CommittedNeverChanges)
    leader = stage.elect(stage[A], 2)
    stage.count(leader, 2)
    with noticed("n2/2 applies another entry at index 2"):
        stage.apply(stage[B], FOUNDING, command(2, 3))


def test_committed_never_changes_notices_a_disk_that_replaces_what_its_server_knew() -> None:
    stage = committed_everywhere(CommittedNeverChanges)
    # The new process knows of no commit, and still its disk must not lose it.
    stage.restart(stage[B])
    with noticed("n2/2 writes to its disk another entry at index 2", "NOOP of term 2"):
        stage.write(stage[B], command(2, 5))


def test_committed_never_changes_notices_a_disk_that_deletes_what_its_server_knew() -> None:
    stage = committed_everywhere(CommittedNeverChanges)
    with noticed("n2/2 deletes what it knew to be committed", "keep index 3", "index 2"):
        stage.write(stage[B], stage[A].log.entry(2))


# --- Equal state ---


def test_equal_state_allows_equal_hashes_and_others_at_other_indexes() -> None:
    stage = committed_everywhere(EqualState)
    for server in stage.servers.values():
        for entry in server.log.entries(1, 3):
            server.state_hash = 100 * entry.index
            stage.apply(server, entry)
    stage[A].state_hash = 0
    stage.restart(stage[A])
    stage[A].state_hash = 200
    stage.apply(stage[A], *stage[A].log.entries(1, 2))


def test_equal_state_notices_another_state_on_another_server() -> None:
    stage = committed_everywhere(EqualState)
    stage[A].state_hash = 0xA
    stage.apply(stage[A], *stage[A].log.entries(1, 3))
    stage[B].state_hash = 0xB
    with noticed("n2/2", "another state after applying up to index 3 than n1/1", "found b and"):
        stage.apply(stage[B], *stage[B].log.entries(1, 3))


def test_equal_state_notices_another_state_after_a_restart() -> None:
    stage = committed_everywhere(EqualState)
    stage[A].state_hash = 0xA
    stage.apply(stage[A], stage[A].log.entry(1))
    stage[A].state_hash = 0
    stage.restart(stage[A])
    stage[A].state_hash = 0xB
    with noticed("n1/1 .process 2", "than n1/1 .process 1."):
        stage.apply(stage[A], stage[A].log.entry(1))


def test_equal_state_notices_a_process_that_starts_with_another_state() -> None:
    stage = Stage(EqualState)
    stage[B].state_hash = 1
    with noticed("n2/2 .process 2", "index 0"):
        stage.restart(stage[B])


# --- all of them ---


def test_every_invariant_is_listed_once_and_cites_its_source() -> None:
    modules = {
        import_module(f"{invariants.__name__}.{module.name}")
        for module in pkgutil.iter_modules(invariants.__path__)
    }
    found = {
        kind
        for module in modules
        for kind in vars(module).values()
        if isinstance(kind, type) and issubclass(kind, Invariant) and kind is not Invariant
    }
    assert set(ALL) == found
    assert len(ALL) == len(found) == len({kind.title for kind in ALL})
    for kind in ALL:
        assert kind.source
        assert kind.__doc__


def test_no_invariant_looks_at_a_server_whose_process_has_not_started() -> None:
    """A founder appends entry 1 while it starts, when its core does not exist yet."""
    for kind in ALL:
        disk = Disk()
        stage = Stage(kind, ())
        stage.durable[A] = disk
        disk.hard_state, disk.entries = HardState(1), [FOUNDING]
        stage.invariant.appended(Server(A, disk), HardState(1), [FOUNDING])


# --- over cores under random faults ---


class _WalkerDisk:
    """The disk of a server of `tests.core.harness`, as invariants may look at it."""

    def __init__(self, disk: CoreDisk, committed: Mapping[Index, Entry]) -> None:
        self._disk = disk
        self._committed = committed

    @property
    def hard_state(self) -> HardState:
        return self._disk.hard_state

    @property
    def base_index(self) -> Index:
        return self._disk.base_index

    @property
    def snapshot(self) -> Snapshot | None:
        return self._disk.snapshot

    @property
    def entries(self) -> list[Entry]:
        disk, base_index, kept = self._disk, self._disk.base_index, self._disk.entries
        if disk.snapshot is not None:
            index, term = (
                disk.snapshot.id.last_included_index,
                disk.snapshot.id.last_included_term,
            )
            if disk.term_at(index) != term:
                base_index, kept = index, []
        return [self._committed[index] for index in range(1, base_index + 1)] + kept


class _Walker:
    """A server of `tests.core.harness`, as invariants may look at it."""

    def __init__(self, node: CoreServer, durable: Durable) -> None:
        self.node = node
        self.id = node.name
        self.durable = durable
        self.process = 0
        self.version = PROTOCOL_VERSION_MAX
        self.state = State()
        self.state_hash = 0

    def lease_is_held(self) -> bool:
        return False

    def take_state(self) -> None:
        """Begin with what the server has applied already."""
        self.state, self.state_hash = State(len(self.node.applied)), 0
        for entry in self.node.applied:
            self.state_hash = crc32(entry.data, self.state_hash)

    @property
    def raft(self) -> Raft:
        return self.node.raft


class _WalkerContent:
    """A snapshot of entries, as invariants may look at it."""

    def __init__(self, applied: Sequence[Entry]) -> None:
        self.state_hash = 0
        for entry in applied:
            self.state_hash = crc32(entry.data, self.state_hash)

    def get(self, key: bytes) -> bytes | None:
        return None


ABOVE_THE_CORE = (Removal, *OF_COMMANDS)
"""What driver and state machine see to."""


class WatchedCluster(FaultyCluster):
    """A cluster whose invariants are told of everything that it does."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.watch_from_here([kind for kind in ALL if kind not in ABOVE_THE_CORE])

    def watch_from_here(self, kinds: Sequence[type[Invariant]]) -> None:
        """Begin with new invariants, which have not seen what was before."""
        self.disks: dict[ServerId, Durable] = {}
        self.snapshots_told: dict[ServerId, SnapshotId] = {}
        self.walkers: dict[ServerId, _Walker] = {}
        self.watch = Watch(kinds, self.disks)
        for server in self.servers.values():
            disk = self.disks[server.name] = _WalkerDisk(server.disk, self.committed)
            self.walkers[server.name] = _Walker(server, disk)
            self._tell_start(server)

    def _tell_start(self, node: CoreServer) -> None:
        walker = self.walkers[node.name]
        walker.process += 1
        walker.take_state()
        self.watch.tell("started", walker)

    def give(self, server: ServerId, action: Callable[[Raft], object]) -> object:
        self.watch.working = self.walkers[server]
        with self.watch.counting():
            result = super().give(server, action)
        if server not in self.down:
            self.watch.tell("turned", self.walkers[server])
        return result

    def crash(self, server: ServerId) -> None:
        if server not in self.down:
            self.watch.tell("ended", self.walkers[server])
        super().crash(server)

    def restart(self, server: ServerId, *, state_is_kept: bool = False) -> None:
        super().restart(server, state_is_kept=state_is_kept)
        self._tell_start(self.servers[server])

    def _gap(self, node: CoreServer, step: str) -> None:
        walker, snapshot = self.walkers[node.name], node.disk.snapshot
        if step == "published" and snapshot is not None:
            content = _WalkerContent(decode_state(node.disk.snapshots[snapshot.id]))
            if self.snapshots_told.get(node.name) != snapshot.id:
                self.snapshots_told[node.name] = snapshot.id
                self.watch.tell("published", walker, snapshot, content)
        elif step == "log changed" and snapshot is not None:
            self.watch.tell("compacted", walker, snapshot.id.last_included_index)
        super()._gap(node, step)

    def _handle(self, node: CoreServer, ready: Ready) -> None:
        walker = self.walkers[node.name]
        for envelope in ready.early_messages:
            self.watch.tell("sent", walker, envelope)
        self._post(ready.early_messages)
        if ready.restore is not None:
            self._install(node, ready.restore)
            walker.take_state()
            self.watch.tell("restored", walker, ready.restore)
            self.installed += 1
        if ready.hard_state is not None or ready.entries:
            if self.chance.random() < self.power_loss:
                kept = ready.entries[: self.chance.randrange(len(ready.entries) + 1)]
                node.disk.append(ready.hard_state, kept)
                raise PowerLoss
            node.disk.append(ready.hard_state, ready.entries)
            self.watch.tell("appended", walker, ready.hard_state, ready.entries)
            self._gap(node, "appended")
        node.raft.persisted(ready)
        for envelope in ready.messages:
            self.watch.tell("sent", walker, envelope)
        self._post(ready.messages)
        self._gap(node, "sent")
        self._handle_chunks(node, ready)
        self._apply(node, ready)

    def _apply(self, node: CoreServer, ready: Ready) -> None:
        super()._apply(node, ready)
        walker = self.walkers[node.name]
        for entry in ready.committed:
            walker.state_hash = crc32(entry.data, walker.state_hash)
            walker.state.applied_index = entry.index
            self.watch.tell("applied", walker, [entry])


@pytest.mark.parametrize("block", range(4))
def test_no_invariant_complains_about_the_cores_under_random_faults(
    block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(walks_module, "FaultyCluster", WatchedCluster)
    for seed in range(10_000 + 10 * block, 10_010 + 10 * block):
        try:
            Walk(seed).run()
        except AssertionError as failure:
            raise AssertionError(f"Walk({seed}): {failure}") from failure
