"""Log, identity, snapshots and state machine of one process, with the points where it may end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from raftd.core.snapshot import Snapshot, SnapshotId
from raftd.core.types import Entry, HardState, Index, Term
from raftd.inputs import Input
from raftd.recovery import RecoveredLog
from raftd.storage.files import StorageFault
from raftd.storage.identity import DataDirectory, Identity
from raftd.storage.snapshot_file import open_ends, snapshot_of
from raftd.storage.snapshots import SnapshotDirectory
from raftd.storage.state import Results, StateMachine, read_head
from raftd.storage.store import MemoryStore, Store
from raftd.storage.wal import Wal
from tests.storage.hashed_store import HashedStore
from tests.storage.snapshotting import SteppedSnapshots, store_of

if TYPE_CHECKING:
    from tests.simulation.machine import Machine


class ApplyingState(StateMachine):
    """The state machine; tells what it has applied and what was put in its place."""

    def __init__(self, machine: Machine, store: Store) -> None:
        self._machine = machine
        self._has_begun = False
        super().__init__(store)
        self._has_begun = True

    def apply_some(self, entries: Sequence[Entry]) -> Results:
        """Apply, between two points."""
        machine = self._machine
        machine.point(9)
        results = super().apply_some(entries)
        entries = entries[: len(results)]
        machine.note_applied(entries)
        machine.watch.tell("applied", machine, entries)
        machine.point(10)
        return results

    def restore(self, store: Store) -> None:
        """Go on from another state, before a point."""
        super().restore(store)
        if self._has_begun:
            snapshot = self._machine.raft.snapshot
            assert snapshot is not None
            self._machine.watch.tell("restored", self._machine, snapshot)
            self._machine.point(24)


class Storage:
    """The log and the identity of one process, as its node sees them."""

    def __init__(self, machine: Machine, directory: DataDirectory, wal: Wal) -> None:
        self._machine = machine
        self._directory = directory
        self._wal = wal

    @property
    def identity(self) -> Identity:
        """What is durable."""
        return self._directory.identity

    def publish(self, identity: Identity) -> None:
        """Replace the identity, between two points."""
        self._machine.point(12)
        self._directory.publish(identity)
        self._machine.point(13)

    def append(self, hard_state: HardState | None, entries: Sequence[Entry]) -> None:
        """Append, between two points."""
        machine = self._machine
        machine.point(3)
        kept = tuple(entries)
        machine.attempt(
            lambda durable: durable.append(hard_state, kept),
            lambda: self._wal.append(hard_state, entries),
        )
        machine.watch.tell("appended", machine, hard_state, entries)
        machine.on_append(machine, entries)
        machine.point(5)

    def compact(self, keep_after: Index) -> list[Path]:
        """Give segments up, between two points."""
        machine = self._machine
        machine.point(16)
        paths = self._wal.compact(keep_after)
        machine.durable.compact(self._wal.base_index)
        if paths:
            machine.world.count("logs compacted")
        machine.watch.tell("compacted", machine, keep_after)
        machine.point(17)
        return paths

    def reset(self, index: Index, term: Term) -> list[Path]:
        """Start over after a snapshot, before a point."""
        machine = self._machine
        if len(machine.durable.entries) > index:
            machine.world.count("installs that dropped entries behind the snapshot")
        paths: list[Path] = []

        def reset() -> None:
            paths.extend(self._wal.reset(index, term))

        machine.attempt(lambda durable: durable.reset(index), reset)
        machine.world.count("logs reset")
        machine.watch.tell("compacted", machine, index)
        machine.point(23)
        return paths

    def files_left(self) -> set[str]:
        """Return the names of the segments that the log consists of."""
        return {segment.name for segment in self._wal.segments}


class Snapshots(SteppedSnapshots):
    """The snapshots of one process."""

    def __init__(
        self,
        machine: Machine,
        directory: SnapshotDirectory,
        store: Store,
        put: Callable[[Input], None],
        on_work: Callable[[str], None],
    ) -> None:
        self._machine = machine
        self._resumed = directory.receiving
        """What an earlier process has received in part, perhaps nothing that is of use."""
        super().__init__(
            directory, machine.disk, store, put, on_work=on_work, make_store=HashedStore
        )

    def publish(self, path: Path) -> Snapshot | None:
        """Publish what was taken, between two points."""
        machine = self._machine
        machine.point(14)
        taken = snapshot_of(*open_ends(machine.disk, path))
        latest = self.latest
        if latest and latest.id.last_included_index >= taken.id.last_included_index:
            machine.world.count("snapshots taken in vain")
            return super().publish(path)
        state = HashedStore(store_of(machine.disk, path))
        machine.attempt(
            lambda durable: durable.publish(taken, machine.committed),
            lambda: super(Snapshots, self).publish(path),
        )
        assert self.latest == taken
        machine.world.count("snapshots taken")
        if taken.configuration.configuration.is_joint:
            machine.world.count("snapshots with a joint configuration")
        machine.watch.tell("published", machine, taken, state)
        machine.point(15)
        return taken

    def keep(self, in_use: frozenset[SnapshotId]) -> None:
        """Let go of old ones."""
        before = set(self.directory._published)
        super().keep(in_use)
        released = before - self.directory._published.keys()
        if released:
            self._machine.watch.tell("released", self._machine, frozenset(released))

    def receive(self, snapshot: SnapshotId, offset: int, data: bytes) -> tuple[int, int]:
        """Store a part, between two points."""
        machine, directory = self._machine, self.directory
        machine.point(18)
        if data and directory.receiving == snapshot and offset < directory.received_bytes:
            machine.world.count("parts of snapshots received twice")
        if data and self._resumed is not None and not directory.is_checking:
            if self._resumed == directory.receiving == snapshot and directory.received_bytes:
                machine.world.count("installs resumed after a restart")
            self._resumed = None
        answer = super().receive(snapshot, offset, data)
        if data:
            machine.world.count("parts of snapshots received")
            machine.on_received(machine, snapshot, answer[0])
        machine.point(19)
        return answer

    def drop_outdated(self) -> None:
        """Forget what is being received, if it is needed no more."""
        before = self.directory.receiving
        super().drop_outdated()
        if before is not None and self.directory.receiving is None:
            self._machine.world.count("snapshots received and not needed any more")

    def drop_received(self) -> None:
        """Forget what is being received."""
        if self.directory.receiving is not None:
            why = "not needed any more" if self._built is not None else "damaged"
            self._machine.world.count(f"snapshots received and {why}")
        super().drop_received()

    def install(self, snapshot: Snapshot) -> Store:
        """Publish what was received and swap the states, between points."""
        machine = self._machine
        assert self.is_received(snapshot.id)
        machine.point(20)
        assert self._built is not None
        state = self._built[1]
        assert isinstance(state, HashedStore)
        if machine.durable.has_end_of(snapshot):
            machine.world.count("installs into a log that has the snapshot's end")
        machine.attempt(
            lambda durable: durable.publish(snapshot, machine.committed),
            lambda: self.directory.publish_received(snapshot.id),
        )
        machine.world.count("snapshots installed")
        machine.watch.tell("published", machine, snapshot, state)
        machine.point(21)
        store = self._adopt()
        machine.point(22)
        return store

    def remove(self, paths: Sequence[Path]) -> None:
        """Remove files later; then the log cannot begin before them any more."""
        super().remove(paths)
        if paths and paths[0].parent == self._machine.wal_path:
            durable, base_index = self._machine.durable, self._machine.durable.base_index

            def removed() -> None:
                durable.floor_index = max(durable.floor_index, base_index)

            self._later("remove", removed)


def live_state(
    survivor: HashedStore | None, directory: SnapshotDirectory, log: RecoveredLog, machine: Machine
) -> HashedStore:
    """Return the state that a start goes on from, as `raftd.recovery` decides.

    Args:
        survivor: the live state, if it can prove itself.

    Raises:
        StorageFault: it has more than the log.
    """
    world = machine.world
    if survivor is not None:
        applied_index = read_head(survivor).applied_index
        if applied_index > log.last_index:
            raise StorageFault(f"{applied_index} was applied, the log ends at {log.last_index}")
        if applied_index >= log.base_index:
            world.count("starts with a live state that has survived")
            return survivor
        world.count("live states older than the log")
    if directory.latest is None:
        return HashedStore(MemoryStore())
    world.count("starts with a state built from a snapshot")
    return HashedStore(store_of(machine.disk, directory.path_of(directory.latest.id)))
