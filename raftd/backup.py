"""The driver's side of backups: a snapshot that is kept while a client reads it, and one that a
client gives to a blank server.

A backup is a snapshot file, so a server has nothing to do for it but what it does anyway: take a
snapshot, keep it, read parts of it; or receive one and put it in force. Each request is answered
at once and repeated by the client until there is what it wants. So nothing hangs on a connection
or on a process that lasts: whoever comes back goes on where it was.

Nothing here has to survive the process. A snapshot that was being read may be gone after a
restart; then the client asks for another one.
"""

from __future__ import annotations

from raftd.compaction import Compaction, room_needed
from raftd.core.raft import Raft
from raftd.core.snapshot import SnapshotId, included_index
from raftd.core.types import Index
from raftd.protocol import (
    BACKUP_CHUNK_BYTES_MAX,
    BackupChunkReply,
    BackupChunkRequest,
    BackupReply,
    BackupRequest,
    ErrorReply,
    Reply,
    RestoreReply,
    RestoreRequest,
)
from raftd.replies import invalid, not_blank, size_text, unavailable
from raftd.storage.identity import Identity
from raftd.storage.snapshots import check_announced
from raftd.surroundings import Settings, Snapshots

PIN_MS = 30_000.0
"""A snapshot is kept for so long after the last question about it: as long as a client waits for a
disk or a network that hangs."""
PINS_MAX = 3
"""Snapshots that are kept for backups at once: each takes as much of the disk as the state."""
NO_SNAPSHOT = "no-snapshot"
"""Code of the answer where a snapshot is not there, or not any more."""


class Backups:
    """What one server does for backups, and for being restored from one."""

    def __init__(self, compaction: Compaction, snapshots: Snapshots, settings: Settings) -> None:
        self._compaction = compaction
        self._snapshots = snapshots
        self._settings = settings
        self._pins: dict[SnapshotId, int] = {}
        """The tick until which each snapshot is kept."""
        self._receiving: SnapshotId | None = None

    @property
    def is_restoring(self) -> bool:
        """Whether this process has taken in parts of a backup."""
        return self._receiving is not None

    def pinned(self, raft: Raft) -> frozenset[SnapshotId]:
        """Return the snapshots that are kept for somebody who reads them."""
        self._pins = {id: until for id, until in self._pins.items() if until > raft.now}
        return frozenset(self._pins)

    def answer(
        self,
        raft: Raft,
        identity: Identity,
        request: BackupRequest | BackupChunkRequest | RestoreRequest,
        applied_index: Index,
        free_bytes: int,
    ) -> Reply:
        """Return the answer to `request`.

        Args:
            applied_index: the last entry that the state has.
            free_bytes: what the disk has left.

        Raises:
            StorageFault: the disk failed; stop the process.
        """
        match request:
            case BackupRequest():
                return self._on_backup(raft, identity, request, applied_index)
            case BackupChunkRequest():
                return self._on_chunk(raft, request)
            case RestoreRequest():
                return self._on_restore(identity, request, free_bytes)

    # --- backup ---

    def _on_backup(
        self, raft: Raft, identity: Identity, request: BackupRequest, applied_index: Index
    ) -> Reply:
        if identity.is_blank:
            return unavailable(
                f"{identity.name} is blank", "it belongs to no cluster yet: raftctl init, or add"
            )
        # Without an index any snapshot will do; but there has to be one.
        index = max(request.index, 1)
        if applied_index < index:
            return BackupReply(doing="applying", applied_index=applied_index)
        latest = self._snapshots.latest
        if included_index(latest) >= index:
            assert latest is not None
            refusal = self._pin(raft, latest.id)
            return refusal or BackupReply(snapshot=latest.id, applied_index=applied_index)
        self._compaction.want(index)
        if self._compaction.is_taking or not self._compaction.problem:
            return BackupReply(doing="writing", applied_index=applied_index)
        return BackupReply(
            doing="waiting", problem=self._compaction.problem, applied_index=applied_index
        )

    def _on_chunk(self, raft: Raft, request: BackupChunkRequest) -> Reply:
        id = request.snapshot
        if not 1 <= request.size_bytes <= BACKUP_CHUNK_BYTES_MAX:
            return invalid(f"a part of a backup has 1 to {BACKUP_CHUNK_BYTES_MAX} bytes")
        latest = self._snapshots.latest
        if id not in self._pins and (latest is None or id != latest.id):
            return ErrorReply(
                code=NO_SNAPSHOT,
                message=f"there is no snapshot up to entry {id.last_included_index}",
                cause="it was not asked for, or not within "
                f"{PIN_MS / 1000:.0f} s, or the server has restarted since",
                hint="repeat `raftctl backup FILE`",
            )
        refusal = self._pin(raft, id)
        if refusal is not None:
            return refusal
        size_bytes = min(request.size_bytes, max(0, id.size_bytes - request.offset))
        data = self._snapshots.read(id, request.offset, size_bytes) if size_bytes else b""
        return BackupChunkReply(data=data)

    def _pin(self, raft: Raft, id: SnapshotId) -> ErrorReply | None:
        """Keep a snapshot for a while; return why not if there are too many."""
        if id not in self._pins and len(self.pinned(raft)) >= PINS_MAX:
            return unavailable(
                "too many backups are being read",
                f"{PINS_MAX} snapshots are kept for them, each as large as the state",
            )
        self._pins[id] = raft.now + self._settings.ticks(PIN_MS)
        return None

    # --- restore ---

    def _on_restore(self, identity: Identity, request: RestoreRequest, free_bytes: int) -> Reply:
        id = request.snapshot
        if len(request.data) > BACKUP_CHUNK_BYTES_MAX:
            return invalid(f"a part of a backup has at most {BACKUP_CHUNK_BYTES_MAX} bytes")
        try:
            check_announced(id)
        except ValueError as error:
            return invalid(str(error))
        if not identity.is_blank:
            return not_blank(identity)
        held = self._snapshots.latest
        if held is not None:
            if held.id == id:
                return RestoreReply(
                    received_bytes=id.size_bytes, installed_bytes=id.size_bytes, held=True
                )
            return ErrorReply(
                code="refused",
                message=f"{identity.name} holds another backup",
                cause=f"it was given one up to entry {held.id.last_included_index} "
                f"({held.id.checksum})",
                hint="`raftctl restore FILE` with that one, or empty its data directory and start "
                "it again",
            )
        return self._receive(identity, request, free_bytes)

    def _receive(self, identity: Identity, request: RestoreRequest, free_bytes: int) -> Reply:
        id = request.snapshot
        # What was received already is no longer free.
        here_bytes, built_bytes = self._snapshots.progress_of(id)
        needed_bytes = room_needed(id.size_bytes, here_bytes, built_bytes)
        needed_bytes += self._settings.disk_reserve_bytes
        if here_bytes < id.size_bytes and free_bytes < needed_bytes:
            return ErrorReply(
                code="disk-full",
                message=f"{identity.name} has no room for the backup and the state built from it",
                cause=f"{size_text(free_bytes)} of disk left, {size_text(needed_bytes)} are needed",
                hint="make room there, then repeat `raftctl restore FILE`",
            )
        self._receiving = id
        received_bytes, installed_bytes = self._snapshots.receive(id, request.offset, request.data)
        return RestoreReply(
            received_bytes=received_bytes, installed_bytes=installed_bytes, held=False
        )

    def forget_received(self) -> None:
        """Drop a backup that was received in part: the server has become a member without it.

        Also one that an earlier process has received: it could be whole, and put in force later.
        """
        self._receiving = None
        self._snapshots.drop_received()
