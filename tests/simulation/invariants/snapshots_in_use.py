"""A snapshot stays readable for as long as somebody is being sent it."""

from __future__ import annotations

from raftd.core.leader import Leader
from raftd.core.snapshot import SnapshotId
from tests.simulation.invariants import Invariant, Server


class SnapshotsInUse(Invariant):
    """Nobody lets go of its newest snapshot, nor a leader of one that it is sending.

    Its receivers would have to begin again with another one, and with a state that grows quickly
    nobody would ever come to the end of one.
    """

    title = "Snapshots in use are kept"
    source = "dissertation 5.1.2; Raft paper, section 7"

    def released(self, server: Server, snapshots: frozenset[SnapshotId]) -> None:
        raft = server.raft
        newest = raft.snapshot.id if raft.snapshot is not None else None
        assert newest not in snapshots, (
            f"{server.id} lets go of its newest snapshot, up to entry "
            f"{newest.last_included_index if newest else 0} in term {raft.current_term}"
        )
        if not isinstance(raft.role, Leader):
            return
        for name, progress in raft.role.progress.items():
            assert progress.snapshot not in snapshots, (
                f"{server.id}, leader of term {raft.current_term}, lets go of a snapshot that it "
                f"is sending to {name}, which has {progress.received_bytes} bytes of it"
            )
