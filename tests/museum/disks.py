"""Servers of a `World` on the log and the data directory of production, over a disk in memory.

A `TornDisk` is a `tests.node.disks.RealDisk` whose file system forgets what was not synced when the
power fails, and fails at the call that a test chooses.
"""

from __future__ import annotations

from pathlib import Path
from random import Random

from raftd.recovery import recover_log
from raftd.storage.identity import DataDirectory, Identity
from raftd.storage.snapshots import SnapshotDirectory
from raftd.storage.wal import SEGMENT_BYTES, Wal
from tests.node.disks import Found
from tests.node.world import Server, World
from tests.storage.memory_files import MemoryFileSystem

PATH = Path("/data/server")


class TornDisk:
    """A data directory on a disk in memory."""

    def __init__(self, number: int, *, segment_bytes: int = SEGMENT_BYTES) -> None:
        self.name = f"n{number}"
        self._incarnation = f"{number:016x}"
        self._segment_bytes = segment_bytes
        self._open: tuple[DataDirectory, SnapshotDirectory, Wal] | None = None
        self.files = MemoryFileSystem()

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

    def fail_the_next(self, call: str) -> None:
        """Let the next `write` or `sync` of an append fail: an append is one of each."""
        self.files.fail_at = len(self.files.calls) + {"write": 1, "sync": 2}[call]

    def lose_power(self, seed: int = 0) -> None:
        """Forget what was never synced; the server must have ended."""
        assert self._open is None, "the process still runs"
        self.files = self.files.after_crash(Random(seed))

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
        return DataDirectory.open(
            PATH, self.name, self.files, mint_incarnation=lambda: self._incarnation
        )


def boot(world: World, number: int, *, segment_bytes: int = SEGMENT_BYTES) -> TornDisk:
    """Start the blank server `n{number}` on a disk of its own; return the disk."""
    disk = TornDisk(number, segment_bytes=segment_bytes)
    world.boot(disk.name, disk=disk)  # type: ignore[arg-type]
    return disk


def power_failure(server: Server, disk: TornDisk, seed: int = 0) -> None:
    """End the process and take from its disk what was never synced."""
    server.kill()
    disk.lose_power(seed)
