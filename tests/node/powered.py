"""What a node stands on, behind the power supply of its server and under the eyes of its world.

The power may fail just before and just after each step; the journal takes note of what was done.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raftd.core.snapshot import Snapshot, SnapshotId
from raftd.core.types import Entry, HardState, Index, Term
from raftd.storage.identity import Identity
from raftd.storage.state import Results, StateMachine
from raftd.storage.store import Store
from tests.node.disks import Found
from tests.storage.snapshotting import SteppedSnapshots

if TYPE_CHECKING:
    from tests.node.world import Server


class PoweredState(StateMachine):
    """The state machine of a server, with the power and the world's eyes around what changes it."""

    def __init__(self, server: Server, store: Store) -> None:
        self._server = server
        self._started = False
        super().__init__(store)
        self._started = True
        server.world.saw_state(server, self)

    def apply_some(self, entries: Sequence[Entry]) -> Results:
        self._server.power.step("apply")
        results = super().apply_some(entries)
        for entry in entries[: len(results)]:
            self._server.world.saw_applied(self._server, entry)
        self._server.world.saw_state(self._server, self)
        self._server.power.step("applied")
        return results

    def restore(self, store: Store) -> None:
        if not self._started:
            super().restore(store)
            return
        self._server.power.step("restore")
        super().restore(store)
        self._server.world.saw_state(self._server, self)
        self._server.journal.append(("restore", self.applied_index))
        self._server.power.step("restored")

    @property
    def store(self) -> Store:
        return self._store

    def dump(self) -> list[tuple[bytes, bytes]]:
        """Return everything that it holds."""
        return self._store.scan(b"\0", b"\xff", 1_000_000)


class PoweredDisk:
    """A disk behind a power supply that may fail just before and just after each write."""

    def __init__(self, server: Server, found: Found) -> None:
        self._server = server
        self._found: Any = found

    @property
    def identity(self) -> Identity:
        identity: Identity = self._found.identities.identity
        return identity

    def publish(self, identity: Identity) -> None:
        self._server.power.step("publish")
        self._found.identities.publish(identity)
        self._server.journal.append(("publish", identity))
        self._server.power.step("published")

    def append(self, hard_state: HardState | None, entries: Sequence[Entry]) -> None:
        self._server.power.step("append")
        self._found.log.append(hard_state, entries)
        self._server.journal.append(("append", hard_state, tuple(entries)))
        self._server.power.step("appended")

    def compact(self, keep_after: Index) -> list[Path]:
        self._server.power.step("compact")
        paths: list[Path] = self._found.log.compact(keep_after)
        self._server.journal.append(("compact", keep_after))
        self._server.power.step("compacted")
        return paths

    def reset(self, index: Index, term: Term) -> list[Path]:
        self._server.power.step("reset")
        paths: list[Path] = self._found.log.reset(index, term)
        self._server.journal.append(("reset", index, term))
        self._server.power.step("has-reset")
        return paths


class PoweredSnapshots(SteppedSnapshots):
    """Snapshots of a server, with the power around every step."""

    def __init__(self, server: Server, found: Found, store: Store) -> None:
        self._server = server
        super().__init__(
            found.snapshots, found.files, store, lambda item: server.inbox.append(item)
        )

    def work(self, lane: str | None = None) -> bool:
        if not self.jobs:
            return False
        self._server.power.step("work")
        done = super().work(lane)
        self._server.power.step("worked")
        return done

    def take(self, cluster_id: str) -> None:
        self._server.journal.append(("take", self._server.state.applied_index))
        super().take(cluster_id)

    def publish(self, path: Path) -> Snapshot | None:
        self._server.power.step("publish-snapshot")
        snapshot = super().publish(path)
        if snapshot is not None:
            self._server.journal.append(("publish-snapshot", snapshot.id.last_included_index))
        self._server.power.step("snapshot-published")
        return snapshot

    def receive(self, snapshot: SnapshotId, offset: int, data: bytes) -> tuple[int, int]:
        self._server.power.step("receive")
        received = super().receive(snapshot, offset, data)
        self._server.journal.append(("receive", snapshot.last_included_index, offset, len(data)))
        self._server.power.step("received")
        return received

    def install(self, snapshot: Snapshot) -> Store:
        self._server.power.step("install")
        store = super().install(snapshot)
        self._server.journal.append(("install", snapshot.id.last_included_index))
        self._server.power.step("installed")
        return store
