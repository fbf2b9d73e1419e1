"""What a start finds in a data directory: log, newest snapshot, and the state that follows.

| step | refused (exit code 74) if |
|---|---|
| read the ends of the newest snapshot | head, tail or size are wrong |
| read the log | it is damaged, is older than the snapshot, or begins behind its end |
| look into the live state | it has more than the log: entries that were applied are gone |
| repair the log | never |

The log is repaired last: a torn tail is cut off, and after a crash between the installation of a
snapshot and its log the log follows. So a log that is refused is left as it was found.

The live database is used if it can prove itself and is not behind the log; else it is built again
from the snapshot. So a start takes as long as the log since the last snapshot, and after a loss of
power as long as the state.

Source: Figure 13 of the paper, dissertation 5.1.
"""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path

import attrs

from raftd.core.snapshot import Snapshot, included_index
from raftd.core.types import Entry, HardState, Index, Term
from raftd.storage.files import FileSystem, Remedy, StorageFault, unlink_in_order
from raftd.storage.identity import DataDirectory, refuse_lost_log
from raftd.storage.live import LiveState, default_boot_id
from raftd.storage.lmdb_store import DamagedDatabase, LmdbStore
from raftd.storage.snapshot_file import CorruptSnapshot
from raftd.storage.snapshots import SnapshotDirectory
from raftd.storage.state import StateError, read_head
from raftd.storage.wal import SEGMENT_BYTES, Wal
from raftd.storage.wal_recovery import WalReading
from raftd.storage.worker import build_database

PROGRESS_SECONDS = 2.0
"""Between two lines of the log while a state is built."""
_PERCENT = 100

logger = logging.getLogger("raftd.recovery")


@attrs.frozen(kw_only=True)
class ReadLog:
    """What the log comes to beside the newest snapshot. On the disk nothing was changed for it."""

    reading: WalReading
    is_outdated: bool
    """Whether the snapshot was installed and a crash came before the log followed: none of the
    entries on the disk counts any more."""
    hard_state: HardState
    entries: tuple[Entry, ...]
    base_index: Index
    """What comes before the first entry; at or below the end of the snapshot."""
    base_term: Term
    cut_bytes: int
    """Length of a torn last batch that was cut off, 0 if there was none."""

    @property
    def last_index(self) -> Index:
        """The index of the last entry, or `base_index` if there is none."""
        return self.base_index + len(self.entries)

    def term_at(self, index: Index) -> Term:
        """Return the term of the entry at `index`, in [base_index, last_index]."""
        return (
            self.entries[index - self.base_index - 1].term
            if index > self.base_index
            else (self.base_term)
        )


@attrs.frozen(kw_only=True)
class RecoveredLog(ReadLog):
    """The log, which agrees with the newest snapshot, goes on from it, and is open."""

    wal: Wal


def read_log(
    wal_path: Path, files: FileSystem, snapshot: Snapshot | None, *, is_backup: bool = False
) -> ReadLog:
    """Read the log and change nothing.

    Args:
        snapshot: the newest one that is durable.
        is_backup: the server belongs to no cluster, so it knows no term: the snapshot is a backup
            that it was given.

    Raises:
        StorageFault: something that was durable is damaged or missing, or the disk failed. The
            message says what is lost and what to do.
    """
    snapshot_index = included_index(snapshot)
    reading = WalReading(wal_path, files, snapshot_index)
    reading.read_all()
    log = reading.recovered()
    entries, base_index, base_term = log.entries, log.base_index, log.base_term
    is_outdated = False
    if snapshot is not None and not _has_end_of(snapshot, entries, base_index, base_term):
        if not is_backup and log.hard_state.current_term < snapshot.id.last_included_term:
            # Who installs a snapshot has made the term of its leader durable before.
            raise StorageFault(
                f"{wal_path}: the log ends at index {base_index + len(entries)} in term "
                f"{log.hard_state.current_term}, but the newest snapshot, up to entry "
                f"{snapshot_index}, is of term {snapshot.id.last_included_term}: the log is older "
                "than the snapshot. Votes, and what was acknowledged since, are lost. As it is, "
                "the server does not start",
                Remedy.REPLACE,
            )
        is_outdated = True
        base_index, base_term = snapshot_index, snapshot.id.last_included_term
        entries = ()
    return ReadLog(
        reading=reading,
        is_outdated=is_outdated,
        hard_state=log.hard_state,
        entries=entries,
        base_index=base_index,
        base_term=base_term,
        cut_bytes=log.cut_bytes,
    )


def repair_log(log: ReadLog, files: FileSystem, *, segment_bytes: int) -> RecoveredLog:
    """Let the disk follow what was read, and open the log for appending.

    Args:
        segment_bytes: size at which the next segment starts.

    Raises:
        StorageFault: the disk failed.
    """
    wal = Wal.open_read(log.reading, segment_bytes=segment_bytes)
    if log.cut_bytes:
        logger.warning(
            "cut off %d bytes at the end of the log, which a crash left unfinished; nothing in "
            "them was acknowledged",
            log.cut_bytes,
        )
    if log.is_outdated:
        try:
            unlink_in_order(files, wal.reset(log.base_index, log.base_term))
        except BaseException:
            wal.close()
            raise
    return RecoveredLog(wal=wal, **attrs.asdict(log, recurse=False))


def recover_log(
    wal_path: Path,
    files: FileSystem,
    snapshot: Snapshot | None,
    *,
    segment_bytes: int,
    is_backup: bool = False,
) -> RecoveredLog:
    """Read and repair the log, with nothing in between. See `read_log` and `repair_log`."""
    log = read_log(wal_path, files, snapshot, is_backup=is_backup)
    return repair_log(log, files, segment_bytes=segment_bytes)


@attrs.frozen(kw_only=True)
class Recovered:
    """All that a node starts from."""

    log: RecoveredLog
    snapshots: SnapshotDirectory
    live: LiveState
    store: LmdbStore
    """Its state lies between `log.base_index` and the last entry."""


def recover(directory: DataDirectory, files: FileSystem) -> Recovered:
    """Read the data directory and repair what a crash may leave; a log that is refused is left.

    Raises:
        StorageFault: something that was durable is damaged or missing, or the disk failed. The
            message says what is lost and what to do.
    """
    snapshots = SnapshotDirectory(directory.snapshots_path, files, owner=str(os.getpid()))
    snapshots.open()
    try:
        read = read_log(
            directory.wal_path, files, snapshots.latest, is_backup=directory.identity.is_blank
        )
        refuse_lost_log(directory.identity, read.last_index)
        live = LiveState(directory.state_path, default_boot_id, files)
        store = _open_state(directory.path, snapshots, live, files, read)
        try:
            log = repair_log(read, files, segment_bytes=SEGMENT_BYTES)
        except BaseException:
            store.close()
            raise
    except BaseException:
        snapshots.close()
        raise
    return Recovered(log=log, snapshots=snapshots, live=live, store=store)


def _has_end_of(
    snapshot: Snapshot, entries: tuple[Entry, ...], base_index: Index, base_term: Term
) -> bool:
    """Return whether the log has the last entry that the snapshot includes."""
    index, term = snapshot.id.last_included_index, snapshot.id.last_included_term
    if index == base_index:
        return term == base_term
    offset = index - base_index - 1
    return 0 <= offset < len(entries) and entries[offset].term == term


def _open_state(
    path: Path,
    snapshots: SnapshotDirectory,
    live: LiveState,
    files: FileSystem,
    log: ReadLog,
) -> LmdbStore:
    """Return the state of any moment that the log can go on from."""
    live.remove_leftovers()
    store = live.open_proven()
    applied_index = applied_term = 0
    if store is not None:
        try:
            head = read_head(store)
        except DamagedDatabase as fault:
            logger.warning("%s: it is built again", fault)
            live.distrust()
            store.close()
            store = None
        except StateError as error:
            store.close()
            raise StorageFault(f"{live.live_path}: {error}", Remedy.NAMED) from error
        else:
            applied_index, applied_term = head.applied_index, head.applied_term
    if store is not None:
        if applied_index > log.last_index:
            store.close()
            raise StorageFault(
                f"{path}: entries {log.last_index + 1} to {applied_index} were applied, but the "
                f"log ends at {log.last_index}: what was acknowledged is lost. If a part of the "
                "log is somewhere else, put it back. As it is, the server does not start",
                Remedy.REPLACE,
            )
        is_known = applied_index >= log.base_index
        if is_known and applied_term == log.term_at(applied_index):
            return store
    if snapshots.latest is None:
        return live.create()
    snapshot_path = snapshots.path_of(snapshots.latest.id)
    size_bytes = snapshots.latest.id.size_bytes
    if store is not None:
        logger.info("the state is older than the log: builds it from %s", snapshot_path.name)
    else:
        logger.info(
            "the state on disk cannot prove that it survived the last stop: builds it from %s",
            snapshot_path.name,
        )
    built = live.building_path()
    next_line = time.monotonic() + PROGRESS_SECONDS

    def progress(read_bytes: int) -> None:
        nonlocal next_line
        if time.monotonic() >= next_line:
            next_line = time.monotonic() + PROGRESS_SECONDS
            logger.info("%d %% of the state is built", _PERCENT * read_bytes // size_bytes)

    try:
        build_database(files, snapshot_path, built, progress)
    except CorruptSnapshot as corrupt:
        last_lost_index = snapshots.latest.id.last_included_index
        raise CorruptSnapshot(
            corrupt.path, corrupt.offset, corrupt.reason, last_lost_index
        ) from corrupt
    store = live.adopt(built)
    live.remove_leftovers()
    return store
