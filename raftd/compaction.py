"""The driver's side of snapshots: when to take one, what of the log to keep, sending, receiving.

| step | who | what is durable then |
|---|---|---|
| begin | here, by the size of the log | nothing |
| write | `Snapshots`, in the background | a temporary file |
| publish, note, compact | here, in one turn | the snapshot; then segments of the log go |

Of a snapshot that a leader sends, `Snapshots` stores the parts and works them into a state in the
background; then the core decides whether it is still needed. If it is, snapshot, log and state
machine follow in this order: a crash in between leaves a snapshot that the next start puts in
force, as if it had come to that point.

Source: dissertation chapter 5.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from raftd.core.leader import Leader
from raftd.core.messages import Envelope, InstallSnapshot
from raftd.core.raft import Raft
from raftd.core.ready import Chunk
from raftd.core.snapshot import Snapshot, SnapshotId
from raftd.core.types import Index
from raftd.event_log import tell
from raftd.inputs import SnapshotProgressed, SnapshotReceived, SnapshotTaken
from raftd.log_words import milliseconds
from raftd.replies import size_text
from raftd.storage.state import StateMachine
from raftd.surroundings import Log, Settings, Snapshots

SNAPSHOT_LOG_FACTOR_MAX = 4
"""With a large state the log may grow to so many times `snapshot_log_bytes` before the next
snapshot, and no further: it is kept in memory, and a restart reads all of it."""
KEPT_LOG_DIVISOR = 4
"""This part of `snapshot_log_bytes` is kept before a snapshot: a follower that was away for a
moment then gets entries, not the whole state."""
NEWCOMER_LOG_BYTES_MAX = 4 * 1024 * 1024
"""A new server is sent so much of the log without a thought: some tens of milliseconds."""
COMPACTED_ENTRIES_MAX = 4096
"""Entries that are dropped from memory in one turn: a millisecond or two."""
ROOM_FOR_STATE = 2
"""The state that is built from a snapshot takes at most about so many times the snapshot's size."""
RETRY_ELECTION_TIMEOUTS = 20
"""After a snapshot that could not be written, the next attempt waits so long."""

logger = logging.getLogger("raftd.compaction")


class Compaction:
    """Keeps the log short. Holds nothing that has to survive the process."""

    def __init__(self, snapshots: Snapshots, log: Log, settings: Settings) -> None:
        self._snapshots = snapshots
        self._log = log
        self._settings = settings
        self._is_taking = False
        self._begun_tick = 0
        self._receiving: tuple[SnapshotId, int] | None = None
        """The snapshot that comes in, and when its first part came."""
        self._retry_tick = 0
        self._compact_to: Index = 0
        self._wanted_index: Index = 0
        """A backup waits for a snapshot that includes this entry; 0 if none does."""
        self._included_bytes = 0
        """Of the entries that the log still has although the newest snapshot includes them."""
        self.problem = ""
        """Why no snapshot can be taken at the moment, for status."""
        self.receive_problem = ""
        """Why a snapshot that the leader sends cannot be stored, for status."""

    def started(self, raft: Raft) -> None:
        """Take note of what recovery found; what a crash left of the log may go."""
        if raft.snapshot is not None:
            self._compact_to = self._compactable(raft, raft.snapshot_index)
        self._count_included(raft)

    # --- taking ---

    @property
    def is_taking(self) -> bool:
        """Whether a snapshot is being written."""
        return self._is_taking

    def is_behind(self, raft: Raft) -> bool:
        """Whether there is more of the log to forget at once."""
        return raft.log.base_index < min(self._compact_to, raft.log.handed_index)

    def want(self, index: Index) -> None:
        """Let the next snapshot that may begin include the entry at `index`, which is applied.

        If the newest one includes it already, nothing happens.
        """
        self._wanted_index = max(self._wanted_index, index)

    def want_for_newcomer(self, raft: Raft) -> Index:
        """Return which entry the newest snapshot should include before a new server is fed.

        It is sent that snapshot and the log behind it, so that a log much longer than the state
        costs it time for nothing: then the next snapshot, which is wanted from here on, includes
        what is applied by now. 0 if the newest one will do, or if none can be taken.
        """
        if self.problem:
            return 0
        log_bytes = raft.log.size_bytes - self._included_bytes
        newest_bytes = raft.snapshot.id.size_bytes if raft.snapshot is not None else 0
        # Without a snapshot the state is no larger than the log, which has never been shortened.
        if log_bytes <= max(newest_bytes, NEWCOMER_LOG_BYTES_MAX):
            return 0
        self.want(raft.log.handed_index)
        return self._wanted_index

    def advance(self, raft: Raft, cluster_id: str, free_bytes: int) -> None:
        """Begin a snapshot if one is wanted, or enough log has gathered since the last one.

        Args:
            free_bytes: what the disk has left.
        """
        self._compact_some(raft)
        self._replace_useless(raft)
        if self._is_taking or raft.now < self._retry_tick:
            return
        log_bytes = raft.log.size_bytes - self._included_bytes
        newest_bytes = raft.snapshot.id.size_bytes if raft.snapshot is not None else 0
        last_included = raft.snapshot_index
        log_bytes_max = SNAPSHOT_LOG_FACTOR_MAX * self._settings.snapshot_log_bytes
        is_due = log_bytes >= max(
            self._settings.snapshot_log_bytes, min(newest_bytes, log_bytes_max)
        )
        if not is_due and self._wanted_index <= last_included:
            return
        if raft.log.handed_index <= last_included:
            return
        # While it is written, the live state reuses nothing of what is overwritten.
        needed_bytes = 2 * (newest_bytes + log_bytes) + self._settings.disk_reserve_bytes
        if free_bytes < needed_bytes:
            self._later(raft, _no_room(free_bytes, needed_bytes))
            return
        self._begun_tick = raft.now
        self._is_taking = True
        self._snapshots.take(cluster_id)

    def _replace_useless(self, raft: Raft) -> None:
        """Want another snapshot once a server could not use the newest one."""
        if raft.snapshot is None or not isinstance(raft.role, Leader):
            return
        last_included = raft.snapshot_index
        if (
            raft.snapshot.id in raft.role.useless_snapshots()
            and self._wanted_index <= last_included
        ):
            tell(
                logger,
                "snapshot-failed",
                "a server has had all of the snapshot up to entry %d and could not use it: the "
                "file here may be damaged (raftctl inspect checks it); writes another one",
                last_included,
                level=logging.WARNING,
                index=last_included,
            )
            self._wanted_index = last_included + 1

    def taken(self, raft: Raft, item: SnapshotTaken) -> None:
        """Publish a snapshot that was written, then shorten the log.

        Raises:
            StorageFault: the disk failed; stop the process.
        """
        self._is_taking = False
        if item.path is None:
            if item.problem:
                self._later(raft, item.problem)
            return
        snapshot = self._snapshots.publish(item.path)
        if snapshot is None:
            # One that was installed meanwhile reaches further.
            return
        self.problem = ""
        raft.snapshot_taken(snapshot)
        self._count_included(raft)
        took_ms = (raft.now - self._begun_tick) * self._settings.tick_ms
        tell(
            logger,
            "snapshot-taken",
            "took a snapshot of %s up to entry %d in %s",
            size_text(snapshot.id.size_bytes),
            snapshot.id.last_included_index,
            milliseconds(took_ms),
            index=snapshot.id.last_included_index,
            size_bytes=snapshot.id.size_bytes,
            took_ms=round(took_ms),
        )
        # `advance`, in the same turn, begins with it.
        self._compact_to = self._compactable(raft, snapshot.id.last_included_index)

    def _compact_some(self, raft: Raft) -> None:
        """Forget a part of what may go: to free a million entries at once would be a stall."""
        log = raft.log
        target = min(self._compact_to, log.base_index + COMPACTED_ENTRIES_MAX, log.handed_index)
        if target <= log.base_index:
            return
        raft.compact(target)
        self._count_included(raft)
        if target == self._compact_to:
            self._snapshots.remove(self._log.compact(target))

    def _later(self, raft: Raft, problem: str) -> None:
        if problem != self.problem:
            words = "no snapshot could be taken, so the log grows, to %s by now: %s"
            log_size = size_text(raft.log.size_bytes)
            tell(logger, "snapshot-failed", words, log_size, problem, level=logging.WARNING)
        self.problem = problem
        self._retry_tick = raft.now + RETRY_ELECTION_TIMEOUTS * raft.options.election_ticks

    def _compactable(self, raft: Raft, last_included: Index) -> Index:
        """Return up to where the log may go, at or below `last_included`.

        A tail stays for followers that are a little behind, and more of it for those that are being
        fed, as long as that is not much longer than the log grows anyway.
        """
        log = raft.log
        tail_bytes = self._settings.snapshot_log_bytes // KEPT_LOG_DIVISOR
        index = log.index_before(last_included, tail_bytes)
        if isinstance(raft.role, Leader):
            needed_after = raft.role.needed_after()
            kept_bytes_max = SNAPSHOT_LOG_FACTOR_MAX * self._settings.snapshot_log_bytes
            index = min(index, max(needed_after, log.index_before(last_included, kept_bytes_max)))
        return max(index, log.base_index)

    def _count_included(self, raft: Raft) -> None:
        self._included_bytes = raft.log.bytes_between(raft.log.base_index, raft.snapshot_index)

    # --- sending ---

    def messages(self, raft: Raft, chunks: Sequence[Chunk]) -> list[Envelope]:
        """Return the chunks as messages, with their bytes."""
        return [
            Envelope(
                raft.server,
                chunk.dest,
                InstallSnapshot(
                    term=chunk.term,
                    snapshot=chunk.snapshot,
                    offset=chunk.offset,
                    data=self._snapshots.read(chunk.snapshot, chunk.offset, chunk.size_bytes)
                    if chunk.size_bytes
                    else b"",
                    round=chunk.round,
                ),
            )
            for chunk in chunks
        ]

    def release(self, raft: Raft, pinned: frozenset[SnapshotId]) -> None:
        """Let go of snapshots that nobody needs.

        These are old ones that nobody is being sent any more and that are not `pinned`, and one
        that was begun to be received when this server's own did not reach as far.
        """
        self._snapshots.keep(raft.snapshots_in_use() | pinned)
        self._snapshots.drop_outdated()

    # --- receiving ---

    def store(self, raft: Raft, chunks: Sequence[Envelope], free_bytes: int) -> None:
        """Store parts of a snapshot and tell the leader how much there is of it.

        Args:
            free_bytes: what the disk has left. Without room for the whole snapshot and the state
                that is built from it nothing is stored: a full disk would end the process.
        """
        for envelope in chunks:
            message = envelope.message
            assert isinstance(message, InstallSnapshot)
            if message.snapshot.last_included_index <= raft.log.commit_index:
                # One that reaches further was installed meanwhile; the next heartbeat says so.
                continue
            self.receive_problem = ""
            here_bytes, built_bytes = self._snapshots.progress_of(message.snapshot)
            # What is worked in already takes its room.
            needed_bytes = room_needed(message.snapshot.size_bytes, here_bytes, built_bytes)
            needed_bytes += self._settings.disk_reserve_bytes
            if here_bytes < message.snapshot.size_bytes and free_bytes < needed_bytes:
                self.receive_problem = _no_room(free_bytes, needed_bytes)
                raft.snapshot_progress(message.snapshot, here_bytes, built_bytes)
                continue
            if self._receiving is None or self._receiving[0] != message.snapshot:
                self._receiving = message.snapshot, raft.now
            received_bytes, installed_bytes = self._snapshots.receive(
                message.snapshot, message.offset, message.data
            )
            raft.snapshot_progress(message.snapshot, received_bytes, installed_bytes)

    def progressed(self, raft: Raft, item: SnapshotProgressed) -> None:
        """Tell the leader how much of its snapshot is stored or worked in by now."""
        raft.snapshot_progress(item.snapshot, item.received_bytes, item.installed_bytes)

    def received(self, raft: Raft, item: SnapshotReceived) -> None:
        """Let the core decide about a snapshot that is there as a whole."""
        if not self._snapshots.is_received(item.snapshot.id):
            return
        if not raft.snapshot_received(item.snapshot):
            self._snapshots.drop_received()

    def restore(self, raft: Raft, snapshot: Snapshot, state: StateMachine) -> None:
        """Put a snapshot in force: the file, the log, the state machine. Durable afterwards.

        Raises:
            StorageFault: the disk failed; stop the process.
        """
        index, term = snapshot.id.last_included_index, snapshot.id.last_included_term
        store = self._snapshots.install(snapshot)
        if raft.log.durable_index > index:
            # The log has more than the snapshot and agrees with it: acknowledged entries stay.
            self._snapshots.remove(self._log.compact(index))
        else:
            self._snapshots.remove(self._log.reset(index, term))
        state.restore(store)
        assert state.applied_index == index
        self._count_included(raft)
        begun, begun_tick = self._receiving or (None, raft.now)
        took_ms = (raft.now - begun_tick) * self._settings.tick_ms if begun == snapshot.id else 0.0
        self._receiving = None
        tell(
            logger,
            "snapshot-installed",
            "installed a snapshot of %s up to entry %d, %s after its first part came",
            size_text(snapshot.id.size_bytes),
            index,
            milliseconds(took_ms),
            index=index,
            size_bytes=snapshot.id.size_bytes,
            took_ms=round(took_ms),
        )


def room_needed(size_bytes: int, here_bytes: int, built_bytes: int) -> int:
    """Return what the rest of a snapshot takes on the disk, and the rest of its state.

    Args:
        here_bytes, built_bytes: how much of its `size_bytes` is stored, and is worked in.
    """
    return size_bytes - here_bytes + ROOM_FOR_STATE * (size_bytes - built_bytes)


def _no_room(free_bytes: int, needed_bytes: int) -> str:
    return f"{size_text(free_bytes)} are free, {size_text(needed_bytes)} are needed"
