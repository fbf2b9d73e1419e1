"""The disk of a simulated machine: it forgets, tears, flips bits, fails, and gets full.

What `tests.storage.memory_files` does at chosen calls happens here by chance and for a while, and
every call takes simulated time.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random

from raftd.storage.files import StorageFault
from tests.storage.memory_files import FREE_BYTES, MemoryFileSystem


class SimulatedDisk(MemoryFileSystem):
    """A `raftd.storage.files.FileSystem` with a will of its own."""

    def __init__(self, random: Random, sync_us: tuple[int, int]) -> None:
        super().__init__()
        self.random = random
        self.sync_us = sync_us
        self.lag_us = 0
        """How long the calls since the last reset have taken."""
        self.fails_next: str = ""
        """A call of this name fails once: write, sync, read, create, rename, sync_directory."""
        self.is_full = False
        """Nothing can be written until somebody makes room."""
        self.free = FREE_BYTES
        """What it says that it has left. Nothing is refused because of it."""
        self._flipped: set[str] = set()
        """The names of files that a bit was flipped in."""
        self.on_call: Callable[[str], None] = lambda call: None
        """Told of every call that changes something; may end the process."""
        self.on_fault: Callable[[str], None] = lambda fault: None
        """Told of every fault that happens."""

    def count(self, call: str, path: Path) -> bool:
        """Take the time of a call; return whether it has to fail."""
        self.on_call(call)
        if call in ("sync", "sync_directory", "truncate"):
            self.lag_us += self.random.randint(*self.sync_us)
        if call == self.fails_next:
            self.fails_next = ""
            self.on_fault(f"disk: a {call} fails")
            return True
        if self.is_full and call in ("write", "create", "make_directory"):
            self.on_fault("disk: full")
            return True
        return False

    def free_bytes(self, path: Path) -> int:
        """Return what is left."""
        return self.free

    def read(self, path: Path) -> bytes:
        """Return the content of a file, or fail."""
        self._fail_to_read(path)
        return super().read(path)

    def read_at(self, path: Path, offset: int, size_bytes: int) -> bytes:
        """Return a part of a file, or fail."""
        self._fail_to_read(path)
        return super().read_at(path, offset, size_bytes)

    def _fail_to_read(self, path: Path) -> None:
        if self.fails_next == "read":
            self.fails_next = ""
            self.on_fault("disk: a read fails")
            raise StorageFault(f"{path}: reading it: Input/output error")

    def rename(self, source: Path, target: Path) -> None:
        """Rename a file; damage stays."""
        super().rename(source, target)
        if source.name in self._flipped:
            self._flipped.add(target.name)

    def process_ended(self) -> None:
        """Let go of the locks: the kernel does it when a process ends. The cache stays."""
        self.locked.clear()

    def lose_power(self) -> None:
        """Forget what was not synced, or tear it, in any combination."""
        survivor = self.after_crash(self.random)
        self.directories = survivor.directories
        self.durable_directories = survivor.durable_directories
        self.locked.clear()

    def empty(self) -> None:
        """Put a new disk into the machine."""
        blank = MemoryFileSystem()
        self.directories, self.durable_directories = blank.directories, blank.durable_directories
        self._flipped.clear()

    def make_room(self) -> None:
        """Have room again."""
        self.is_full = False
        self.free = FREE_BYTES

    def flip_a_bit(self, suffix: str = "") -> str:
        """Change one bit of one file, on the disk itself; return where.

        Args:
            suffix: of the names of the files that are meant.
        """
        files = [
            (directory / name, node)
            for directory, below in sorted(self.directories.items())
            for name, node in sorted(below.entries.items())
            if node.content and not name.endswith(".lock") and name.endswith(suffix)
        ]
        if not files:
            return ""
        path, node = self.random.choice(files)
        offset, bit = self.random.randrange(len(node.content)), self.random.randrange(8)
        node.content[offset] ^= 1 << bit
        if offset < len(node.durable):
            node.durable[offset] ^= 1 << bit
        self._flipped.add(path.name)
        return f"{path.name} byte {offset} bit {bit}"

    def has_damaged_snapshot(self) -> bool:
        """Return whether a bit was flipped in a published snapshot that is still there."""
        # No published snapshot ever has the name of another one.
        return any(
            name.endswith(".snap") and name in self._flipped
            for directory in self.directories.values()
            for name in directory.entries
        )
