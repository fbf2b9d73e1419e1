"""What the log has given up, a durable snapshot has; and neither ever goes back."""

from __future__ import annotations

from collections.abc import Mapping

from raftd.core.snapshot import Snapshot
from raftd.core.types import Index, ServerId
from tests.simulation.invariants import Content, Durable, Invariant, Server


class SnapshotPositions(Invariant):
    """A log begins at or below the end of a snapshot that is durable, in memory and on the disk.

    In one data directory the newest snapshot only becomes newer. The log in memory begins later
    and later for as long as its process lives; on the disk too, but that after a crash files which
    were given up may be there again.
    """

    title = "A compacted log has its snapshot"
    source = "dissertation 5.1; Raft paper, section 7"

    def __init__(self, durable: Mapping[ServerId, Durable]) -> None:
        super().__init__(durable)
        self._snapshots: dict[ServerId, Index] = {}
        """The end of the newest snapshot of each data directory."""
        self._bases: dict[ServerId, tuple[int, Index]] = {}
        """The process, and where its log in memory began."""

    def started(self, server: Server) -> None:
        self._look_at_snapshot(server)
        self._look_at_base(server)

    def published(self, server: Server, snapshot: Snapshot, content: Content) -> None:
        index = snapshot.id.last_included_index
        before = self._snapshots.get(server.id, 0)
        assert index > before, (
            f"{server.id} publishes a snapshot up to entry {index}: expected one that reaches "
            f"further than {before}"
        )
        self._look_at_snapshot(server)

    def compacted(self, server: Server, keep_after: Index) -> None:
        index = _end(server.durable.snapshot)
        assert keep_after <= index, (
            f"the log of {server.id} gives up what no snapshot has: expected at most entry "
            f"{index}, found {keep_after}"
        )

    def restored(self, server: Server, snapshot: Snapshot) -> None:
        self._look_at_base(server)

    def turned(self, server: Server) -> None:
        self._look_at_base(server)

    def _look_at_snapshot(self, server: Server) -> None:
        index, before = _end(server.durable.snapshot), self._snapshots.get(server.id, 0)
        assert index >= before, (
            f"the newest snapshot of {server.id} is an older one than before: expected at least "
            f"entry {before}, found {index}"
        )
        self._snapshots[server.id] = index

    def _look_at_base(self, server: Server) -> None:
        base_index = server.raft.log.base_index
        process, before = self._bases.get(server.id, (server.process, base_index))
        if (process, before) == (server.process, base_index) and server.id in self._bases:
            return
        assert process != server.process or base_index >= before, (
            f"the log of {server.id} begins earlier than before: expected after {before} at "
            f"least, found after {base_index}"
        )
        self._bases[server.id] = (server.process, base_index)
        known, index = _end(server.raft.snapshot), _end(server.durable.snapshot)
        assert base_index <= known <= index, (
            f"the log of {server.id} begins after entry {base_index}: expected that a snapshot "
            f"includes as much, found one up to {known} in memory and up to {index} on the disk"
        )


def _end(snapshot: Snapshot | None) -> Index:
    return snapshot.id.last_included_index if snapshot is not None else 0
