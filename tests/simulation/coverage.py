"""Counts what a run has met: a run in which nothing happens proves nothing."""

from __future__ import annotations

from collections.abc import Sequence

import msgpack

from raftd import commands
from raftd.commands import SwitchOn
from raftd.core.leader import Leader
from raftd.core.membership import Configuration, decode_configuration
from raftd.core.messages import Envelope, InstallSnapshot, InstallSnapshotResponse
from raftd.core.snapshot import Snapshot, SnapshotId
from raftd.core.types import Entry, EntryKind, HardState, Index, ServerId, Term
from tests.simulation.invariants import Invariant, Server
from tests.simulation.world import World


class Coverage(Invariant):
    """No property: looks at the same things, and counts."""

    title = "coverage"
    source = ""
    world: World

    _leaders: set[Term]
    _applied: Index = 0

    def __init__(self, durable) -> None:
        super().__init__(durable)
        self._leaders = set()
        self._last_indexes: dict[ServerId, Index] = {}
        self._just_restored: tuple[ServerId, Index] = ("", 0)
        self._senders: dict[tuple[ServerId, SnapshotId], ServerId] = {}

    def appended(
        self, server: Server, hard_state: HardState | None, entries: Sequence[Entry]
    ) -> None:
        """Count suffixes that were replaced."""
        if not entries:
            return
        if entries[0].index <= self._last_indexes.get(server.id, 0):
            self.world.count("suffixes of logs replaced")
        self._last_indexes[server.id] = entries[-1].index

    def restored(self, server: Server, snapshot: Snapshot) -> None:
        """Count what an install leaves of the log."""
        log = server.raft.log
        self._last_indexes[server.id] = len(server.durable.entries)
        if log.last_index > snapshot.id.last_included_index:
            self.world.count("installs that kept a suffix of the log")
        self._just_restored = (server.id, snapshot.id.last_included_index)

    def sent(self, server: Server, envelope: Envelope) -> None:
        """Count installs that are answered at once, since they are not needed."""
        message = envelope.message
        if isinstance(message, InstallSnapshotResponse) and message.match_index:
            if (server.id, message.match_index) != self._just_restored:
                self.world.count("installs answered as not needed")
        elif isinstance(message, InstallSnapshot) and message.data:
            self.world.count("parts of snapshots sent")
            first = self._senders.setdefault((envelope.dest, message.snapshot), server.id)
            if first != server.id:
                self._senders[envelope.dest, message.snapshot] = server.id
                self.world.count("installs that another leader has gone on with")

    def committed(
        self, server: Server, configuration: Configuration, old: Index, new: Index
    ) -> None:
        """Count commits that two majorities had to agree on."""
        if configuration.is_joint:
            self.world.count("commits under two majorities")

    def applied(self, server: Server, entries: Sequence[Entry]) -> None:
        """Count each entry once, and what each configuration entry means."""
        if entries[-1].index <= self._applied:
            return
        for entry in entries:
            if entry.index > self._applied:
                self._applied = entry.index
                self.world.count("entries committed")
                if entry.kind is EntryKind.CONFIGURATION:
                    kind = decode_configuration(entry.data).kind.value
                    self.world.count(f"configurations committed: {kind}")
                elif entry.kind is EntryKind.COMMAND:
                    self._count_features(entry)

    def _count_features(self, entry: Entry) -> None:
        if msgpack.unpackb(entry.data)[0] == commands._CODES[SwitchOn]:
            self.world.count("features switched on")
            if self.world.profile.release == "upgraded":
                self.world.count("features switched on after an upgrade")

    def read_answered(self, server: Server, read: object) -> None:
        """Count how reads are answered."""
        if not isinstance(server.raft.role, Leader):
            self.world.count("reads answered by a server that does not lead")
        elif server.lease_is_held():
            self.world.count("reads answered under a lease")

    def turned(self, server: Server) -> None:
        """Count the steps, and the elections that somebody has won."""
        self.world.count("steps")
        raft = server.raft
        if isinstance(raft.role, Leader) and raft.current_term not in self._leaders:
            self._leaders.add(raft.current_term)
            self.world.count("elections won")
