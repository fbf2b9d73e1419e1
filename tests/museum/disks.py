"""Servers of a `World` on the log and the data directory of production, over a disk in memory.

A `TornDisk` is a `tests.node.disks.RealDisk` whose file system forgets what was not synced when the
power fails, and fails at the call that a test chooses.
"""

from __future__ import annotations

from pathlib import Path
from random import Random

from raftd.storage.identity import DataDirectory
from raftd.storage.wal import SEGMENT_BYTES
from tests.node.disks import RealDisk
from tests.node.world import Server, World
from tests.storage.memory_files import MemoryFileSystem

PATH = Path("/data/server")


class TornDisk(RealDisk):
    """A data directory on a disk in memory."""

    files: MemoryFileSystem

    def __init__(self, number: int, *, segment_bytes: int = SEGMENT_BYTES) -> None:
        super().__init__(PATH, f"n{number}", files=MemoryFileSystem(), segment_bytes=segment_bytes)
        self._incarnation = f"{number:016x}"

    def fail_the_next(self, call: str) -> None:
        """Let the next `write` or `sync` of an append fail: an append is one of each."""
        self.files.fail_at = len(self.files.calls) + {"write": 1, "sync": 2}[call]

    def lose_power(self, seed: int = 0) -> None:
        """Forget what was never synced; the server must have ended."""
        assert self._open is None, "the process still runs"
        self.files = self.files.after_crash(Random(seed))

    def _directory(self) -> DataDirectory:
        return DataDirectory.open(
            self._path, self.name, self.files, mint_incarnation=lambda: self._incarnation
        )


def boot(world: World, number: int, *, segment_bytes: int = SEGMENT_BYTES) -> TornDisk:
    """Start the blank server `n{number}` on a disk of its own; return the disk."""
    disk = TornDisk(number, segment_bytes=segment_bytes)
    world.boot(disk.name, disk=disk)
    return disk


def power_failure(server: Server, disk: TornDisk, seed: int = 0) -> None:
    """End the process and take from its disk what was never synced."""
    server.kill()
    disk.lose_power(seed)
