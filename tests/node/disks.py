"""Disks of the tests, and the power that can fail between any two of a server's steps.

The contract of both disks: what `append`, `reset` and `publish` have returned from survives a power
failure, of what they have not returned from nothing survives that recovery would show. Snapshots
are in a file system that forgets what was not synced; the state survives nothing: a start builds it
from the newest snapshot, as after a loss of power.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from random import Random
from zlib import crc32

import attrs

from raftd.core.types import Entry, HardState, Index, Term
from raftd.records import decode_entries, encode_entries
from raftd.recovery import recover_log
from raftd.storage.files import FileSystem, OsFileSystem, StorageFault
from raftd.storage.identity import DataDirectory, Identity
from raftd.storage.snapshots import SnapshotDirectory
from raftd.storage.store import MemoryStore
from raftd.storage.wal import Wal
from tests.storage.memory_files import Crash, MemoryFileSystem
from tests.storage.snapshotting import store_of

SNAPSHOTS = Path("/snapshots")
SEGMENT_BYTES = 4096
"""Of the log on a real disk: a few entries, so that compaction finds whole segments."""


class PowerLost(Crash):
    """The machine lost its power. Not an Exception: nothing may handle it."""


@attrs.define(eq=False)
class Power:
    """Counts the steps of one server; fails at the one that the test has chosen."""

    steps: list[str] = attrs.field(factory=list)
    """The names of the steps that were taken."""
    fail_at: int = 0
    """The power fails at this step, counted from 1 over the server's whole life; 0 for never."""
    fail_at_next: str = ""
    """The power fails at the next step of this name."""

    def step(self, name: str) -> None:
        """Take a step, unless the power fails just there."""
        self.steps.append(name)
        if len(self.steps) == self.fail_at or name == self.fail_at_next:
            self.fail_at_next = ""
            raise PowerLost(name)


@attrs.frozen
class Found:
    """What a start finds on a disk."""

    identities: object
    log: object
    hard_state: HardState
    entries: tuple[Entry, ...]
    base_index: Index = 0
    base_term: Term = 0
    files: FileSystem = attrs.field(factory=MemoryFileSystem)
    """Where the snapshots are."""
    snapshots: SnapshotDirectory = attrs.field()
    """Open."""

    @snapshots.default
    def _no_snapshots(self) -> SnapshotDirectory:
        directory = SnapshotDirectory(SNAPSHOTS, self.files)
        directory.open()
        return directory

    def built_state(self) -> MemoryStore:
        """Return the state of the newest snapshot; empty without one."""
        latest = self.snapshots.latest
        if latest is None:
            return MemoryStore()
        return store_of(self.files, self.snapshots.path_of(latest.id))


class MemoryDisk:
    """A data directory in memory, which checks what it is asked to keep."""

    def __init__(self, name: str, incarnation: str) -> None:
        self.identity = Identity(name=name, incarnation=incarnation)
        self.hard_state = HardState()
        self.base_index: Index = 0
        self.base_term: Term = 0
        self.entries: list[Entry] = []
        """Those after `base_index`."""
        self.files = MemoryFileSystem()
        """Where the snapshots are."""
        self.append_count = 0
        self.fails = False
        """Every call fails from now on."""
        self._failed = False
        self._snapshots: SnapshotDirectory | None = None
        self._random = Random(crc32(f"{name}/{incarnation}".encode()))

    def open(self) -> Found:
        assert not self._failed, "a disk that failed is not used again"
        snapshots = self._snapshots = SnapshotDirectory(SNAPSHOTS, self.files)
        snapshots.open()
        if snapshots.latest is not None:
            index = snapshots.latest.id.last_included_index
            term = snapshots.latest.id.last_included_term
            assert index >= self.base_index, "the log begins after the newest snapshot"
            if self.term_at(index) != term:
                # A crash came between the snapshot that was installed and its log.
                self.reset(index, term)
        else:
            assert self.base_index == 0, "the snapshot before the log is gone"
        return Found(
            self,
            self,
            self.hard_state,
            tuple(self.entries),
            self.base_index,
            self.base_term,
            self.files,
            snapshots,
        )

    def close(self) -> None:
        """Give back what is open; the process has ended."""
        if self._snapshots is not None:
            self._snapshots.close()
            self._snapshots = None

    def lose_power(self) -> None:
        """Forget what was never synced."""
        self.files = self.files.after_crash(self._random)

    @property
    def durable_hard_state(self) -> HardState:
        return self.hard_state

    @property
    def durable_entries(self) -> Sequence[Entry]:
        return self.entries

    @property
    def last_index(self) -> Index:
        """Of the last entry that is durable, `base_index` if there is none."""
        return self.base_index + len(self.entries)

    def term_at(self, index: Index) -> Term | None:
        """Return the term of a durable entry; None if it is not here."""
        if index == self.base_index:
            return self.base_term
        offset = index - self.base_index - 1
        return self.entries[offset].term if 0 <= offset < len(self.entries) else None

    def publish(self, identity: Identity) -> None:
        self._fail_if_it_should()
        assert identity.server == self.identity.server
        self.identity = identity

    def append(self, hard_state: HardState | None, entries: Sequence[Entry]) -> None:
        self._fail_if_it_should()
        assert hard_state is not None or entries, "a sync for nothing"
        self.append_count += 1
        if hard_state is not None:
            assert hard_state.current_term >= self.hard_state.current_term
            self.hard_state = hard_state
        if entries:
            first = entries[0].index
            assert first > self.base_index, "replaces what a snapshot has"
            assert first <= self.last_index + 1, "a gap in the log"
            del self.entries[first - self.base_index - 1 :]
            # Other objects, as from a real disk.
            self.entries += decode_entries(encode_entries(tuple(entries)))

    def compact(self, keep_after: Index) -> list[Path]:
        self._fail_if_it_should()
        assert keep_after <= self.last_index, "forgets what was never there"
        assert keep_after <= self._snapshot_index(), "forgets what no snapshot has"
        if keep_after > self.base_index:
            base_term = self.term_at(keep_after)
            assert base_term is not None
            del self.entries[: keep_after - self.base_index]
            self.base_index, self.base_term = keep_after, base_term
        return []

    def reset(self, index: Index, term: Term) -> list[Path]:
        self._fail_if_it_should()
        assert index > 0
        assert term > 0
        assert index == self._snapshot_index(), "goes on after something else than the snapshot"
        assert index >= self.last_index or self.term_at(index) != term, "drops what is right"
        self.entries.clear()
        self.base_index, self.base_term = index, term
        return []

    def _snapshot_index(self) -> Index:
        assert self._snapshots is not None
        latest = self._snapshots.latest
        return latest.id.last_included_index if latest is not None else 0

    def _fail_if_it_should(self) -> None:
        assert not self._failed, "a failed write or sync is never repeated"
        if self.fails:
            self._failed = True
            raise StorageFault("the disk is broken")


class RealDisk:
    """A data directory, with all of production but the live database."""

    def __init__(
        self,
        path: Path,
        name: str,
        *,
        files: FileSystem | None = None,
        segment_bytes: int = SEGMENT_BYTES,
    ) -> None:
        self._path = path
        self.name = name
        self.files = files or OsFileSystem()
        self._segment_bytes = segment_bytes
        self._open: tuple[DataDirectory, SnapshotDirectory, Wal] | None = None
        self.fails = False

    def open(self) -> Found:
        directory = self._directory()
        snapshots = SnapshotDirectory(directory.snapshots_path, self.files)
        try:
            snapshots.open()
            log = recover_log(
                directory.wal_path,
                self.files,
                snapshots.latest,
                segment_bytes=self._segment_bytes,
            )
        except BaseException:
            snapshots.close()
            directory.close()
            raise
        self._open = (directory, snapshots, log.wal)
        return Found(
            directory,
            log.wal,
            log.hard_state,
            log.entries,
            log.base_index,
            log.base_term,
            self.files,
            snapshots,
        )

    def close(self) -> None:
        assert self._open is not None
        directory, snapshots, wal = self._open
        wal.close()
        snapshots.close()
        directory.close()
        self._open = None

    @property
    def wal(self) -> Wal:
        """The log that the running process appends to."""
        assert self._open is not None
        return self._open[2]

    @property
    def identity(self) -> Identity:
        if self._open is not None:
            return self._open[0].identity
        directory = self._directory()
        directory.close()
        return directory.identity

    def _directory(self) -> DataDirectory:
        return DataDirectory.open(self._path, self.name, self.files)
