"""A disk in memory that forgets, tears and fails as real ones do.

What is synced survives a crash. Of what is not, any subset may: each sector of each write by
itself, or a prefix of the write that ends at any byte, and each change of a directory by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from random import Random

import attrs

from raftd.storage.files import FileLock, FileLocked, OpenFile, StorageFault

SECTOR_BYTES = 512
FREE_BYTES = 1 << 40
"""What this disk says that it has left."""


class Crash(BaseException):
    """The machine lost its power. Not an Exception: nothing may handle it."""


@attrs.define(eq=False)
class _Node:
    """A file: what a reader sees, what is on the disk, and the writes in between."""

    content: bytearray = attrs.field(factory=bytearray)
    durable: bytearray = attrs.field(factory=bytearray)
    pending: list[tuple[int, bytes]] = attrs.field(factory=list)


@attrs.define(eq=False)
class _Directory:
    entries: dict[str, _Node] = attrs.field(factory=dict)
    durable: dict[str, _Node] = attrs.field(factory=dict)
    pending: list[tuple[tuple[str, _Node | None], ...]] = attrs.field(factory=list)
    """Each change: the names that it sets, or removes where the node is None."""

    def change(self, *names: tuple[str, _Node | None]) -> None:
        self.pending.append(names)
        _set_names(self.entries, names)


def _set_names(entries: dict[str, _Node], names: tuple[tuple[str, _Node | None], ...]) -> None:
    for name, node in names:
        if node is None:
            entries.pop(name, None)
        else:
            entries[name] = node


class MemoryFileSystem:
    """A `raftd.storage.files.FileSystem`.

    Every call that changes something takes a number, from 1. The call with the number `crash_at`
    does not happen: the power fails. The one with `fail_at` fails, after a part of its effect.
    """

    def __init__(self, *, crash_at: int = 0, fail_at: int = 0) -> None:
        self.directories: dict[Path, _Directory] = {Path("/"): _Directory()}
        self.durable_directories: set[Path] = {Path("/")}
        self.locked: set[Path] = set()
        self.crash_at = crash_at
        self.fail_at = fail_at
        self.calls: list[str] = []

    def count(self, call: str, path: Path) -> bool:
        """Return whether this call has to fail."""
        self.calls.append(f"{call} {path.name}")
        if len(self.calls) == self.crash_at:
            raise Crash
        return len(self.calls) == self.fail_at

    def after_crash(self, random: Random) -> MemoryFileSystem:
        """Return the disk that is found after a power failure now."""
        survivor = MemoryFileSystem()
        for path, directory in sorted(self.directories.items()):
            if path not in self.durable_directories and random.random() < 0.5:
                continue
            if path != Path("/") and path.parent not in survivor.directories:
                continue
            entries = dict(directory.durable)
            for names in directory.pending:
                if random.random() < 0.5:
                    _set_names(entries, names)
            found = {name: _survivor(node, random) for name, node in entries.items()}
            survivor.directories[path] = _Directory(dict(found), dict(found))
            survivor.durable_directories.add(path)
        return survivor

    def survivors(self, random: Random) -> Iterator[MemoryFileSystem]:
        """Return the disks that may be found after a power failure now.

        Every combination of the undecided changes of directories, each one three times: with all
        unsynced writes lost, with all of them there, and with any of them, or parts, there.
        """
        undecided: list[tuple[Path, int]] = []
        for path, directory in sorted(self.directories.items()):
            undecided += [] if path in self.durable_directories else [(path, -1)]
            undecided += [(path, number) for number in range(len(directory.pending))]
        for choice in product((False, True), repeat=len(undecided)):
            happened = dict(zip(undecided, choice, strict=True))
            for survive in (_lost, _kept, lambda node: _survivor(node, random)):
                yield self._survivor_with(happened, survive)

    def _survivor_with(
        self, happened: dict[tuple[Path, int], bool], survive: Callable[[_Node], _Node]
    ) -> MemoryFileSystem:
        survivor = MemoryFileSystem()
        for path, directory in sorted(self.directories.items()):
            if not happened.get((path, -1), True):
                continue
            if path != Path("/") and path.parent not in survivor.directories:
                continue
            entries = dict(directory.durable)
            for number, names in enumerate(directory.pending):
                if happened[path, number]:
                    _set_names(entries, names)
            found = {name: survive(node) for name, node in entries.items()}
            survivor.directories[path] = _Directory(dict(found), dict(found))
            survivor.durable_directories.add(path)
        return survivor

    def node(self, path: Path) -> _Node:
        """Return the file at `path`, for tests that look at it or damage it."""
        try:
            return self.directories[path.parent].entries[path.name]
        except KeyError:
            raise StorageFault(f"{path}: no such file") from None

    def replace(self, path: Path, content: bytes) -> None:
        """Put `content` there, durably, behind the back of whoever wrote the file."""
        node = _Node(bytearray(content), bytearray(content))
        directory = self.directories[path.parent]
        directory.entries[path.name] = directory.durable[path.name] = node

    def exists(self, path: Path) -> bool:
        parent = self.directories.get(path.parent)
        return path in self.directories or (parent is not None and path.name in parent.entries)

    def size(self, path: Path) -> int:
        return len(self.node(path).content)

    def names(self, directory: Path) -> list[str]:
        below = [path.name for path in self.directories if path.parent == directory != path]
        return sorted([*self.directories[directory].entries, *below])

    def read(self, path: Path) -> bytes:
        return bytes(self.node(path).content)

    def read_at(self, path: Path, offset: int, size_bytes: int) -> bytes:
        return bytes(memoryview(self.node(path).content)[offset : offset + size_bytes])

    def free_bytes(self, path: Path) -> int:
        return FREE_BYTES

    def make_directory(self, path: Path) -> None:
        if self.count("make_directory", path):
            raise StorageFault(f"{path}: no")
        assert path.parent in self.directories
        assert not self.exists(path)
        self.directories[path] = _Directory()

    def create(self, path: Path) -> OpenFile:
        if self.count("create", path):
            raise StorageFault(f"{path}: no")
        node = _Node()
        self.directories[path.parent].change((path.name, node))
        return _MemoryFile(self, path, node)

    def open(self, path: Path) -> OpenFile:
        return _MemoryFile(self, path, self.node(path))

    def rename(self, source: Path, target: Path) -> None:
        if self.count("rename", source):
            raise StorageFault(f"{source}: no")
        assert source.parent == target.parent
        node = self.node(source)
        self.directories[source.parent].change((source.name, None), (target.name, node))

    def unlink(self, path: Path) -> None:
        if self.count("unlink", path):
            raise StorageFault(f"{path}: no")
        self.directories[path.parent].change((path.name, None))

    def sync_directory(self, path: Path) -> None:
        if self.count("sync_directory", path):
            raise StorageFault(f"{path}: no")
        directory = self.directories[path]
        directory.durable = dict(directory.entries)
        directory.pending.clear()
        self.durable_directories |= {below for below in self.directories if below.parent == path}

    def lock(self, path: Path) -> FileLock:
        if path in self.locked:
            raise FileLocked(path, "1")
        if not self.exists(path):
            self.create(path)
        self.locked.add(path)
        return _MemoryLock(self, path)


def _lost(node: _Node) -> _Node:
    return _Node(bytearray(node.durable), bytearray(node.durable))


def _kept(node: _Node) -> _Node:
    content = bytearray(node.durable)
    for offset, written in node.pending:
        _put(content, offset, written)
    return _Node(content, bytearray(content))


def _survivor(node: _Node, random: Random) -> _Node:
    content = bytearray(node.durable)
    for offset, written in node.pending:
        if random.random() < 0.3:
            _put(content, offset, written[: random.randint(0, len(written))])
            continue
        begin = 0
        share = random.choice((0.0, 0.2, 0.5, 0.8, 1.0))
        while begin < len(written):
            end = min(begin + SECTOR_BYTES - (offset + begin) % SECTOR_BYTES, len(written))
            if random.random() < share:
                _put(content, offset + begin, written[begin:end])
            begin = end
    return _Node(bytearray(content), bytearray(content))


def _put(content: bytearray, offset: int, written: bytes) -> None:
    if written:
        content.extend(bytes(max(0, offset - len(content))))
        content[offset : offset + len(written)] = written


class _MemoryFile:
    def __init__(self, files: MemoryFileSystem, path: Path, node: _Node) -> None:
        self._files = files
        self._path = path
        self._node = node
        self._closed = False

    def write(self, content: bytes, offset: int) -> None:
        assert not self._closed
        failing = self._files.count("write", self._path)
        written = content[: len(content) // 2] if failing else bytes(content)
        self._node.pending.append((offset, written))
        _put(self._node.content, offset, written)
        if failing:
            raise StorageFault(f"{self._path}: no")

    def sync(self) -> None:
        assert not self._closed
        if self._files.count("sync", self._path):
            # As Linux does: the pages count as clean now, and never reach the disk.
            self._node.pending.clear()
            raise StorageFault(f"{self._path}: no")
        for offset, written in self._node.pending:
            _put(self._node.durable, offset, written)
        self._node.pending.clear()

    def truncate(self, size_bytes: int) -> None:
        assert not self._closed
        if self._files.count("truncate", self._path):
            raise StorageFault(f"{self._path}: no")
        for offset, written in self._node.pending:
            _put(self._node.durable, offset, written)
        self._node.pending.clear()
        del self._node.content[size_bytes:]
        del self._node.durable[size_bytes:]

    def close(self) -> None:
        self._closed = True


@attrs.define(eq=False)
class _MemoryLock:
    _files: MemoryFileSystem
    _path: Path

    def close(self) -> None:
        self._files.locked.discard(self._path)
