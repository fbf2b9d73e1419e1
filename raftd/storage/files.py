"""What the log and the identity need of a disk, and the real one.

Everything in `raftd.storage` reaches the disk through `FileSystem`, so that tests and the simulator
can put a disk underneath that loses unsynced writes, tears them, or fails.

Whatever fails raises `StorageFault`, and nothing is retried: after a failed sync the kernel may
mark the lost pages clean, and a second sync then succeeds over a hole (Rebello et al., "Can
Applications Recover from fsync Failures?", 2020). The caller stops the process.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from enum import Enum, auto
from pathlib import Path
from typing import Protocol

TEMPORARY_SUFFIX = ".tmp"
"""Ends the name of a file that is not published yet. One left by a crash means nothing."""


class Remedy(Enum):
    """What an operator can do about a `StorageFault`."""

    RESTART = auto()
    """A call failed: what is on the disk is as good as after a crash. Start the server again once
    the disk works."""
    REPLACE = auto()
    """What the server has promised is lost: only a new, blank incarnation can take its place."""
    NAMED = auto()
    """The fault itself says it."""


class StorageFault(Exception):
    """The disk failed, or holds what it must not. The process stops with exit code 74.

    As a text it is complete in itself. Whoever knows the name of the server, its address and its
    data directory says the way back with them, after `what`.
    """

    def __init__(self, what: str, remedy: Remedy = Remedy.RESTART) -> None:
        """Keep what is known.

        Args:
            what: Which file, what happened and what is lost, without a full stop at the end and,
                unless `remedy` is `NAMED`, without a way back.
            remedy: The way back.
        """
        way_back = ""
        if remedy is Remedy.REPLACE:
            way_back = (
                ". To get the server back: stop it, empty its data directory, start it again (it "
                "is blank then), and run `raftctl replace ID ID=HOST:PORT`"
            )
        super().__init__(what + way_back)
        self.what = what
        self.remedy = remedy


class FileLocked(Exception):
    """Another process holds the lock; `holder` is what it wrote into the file (its pid)."""

    def __init__(self, path: Path, holder: str) -> None:
        super().__init__(f"{path} is locked by {holder or 'a process that has not said its pid'}")
        self.path = path
        self.holder = holder


class FileLock(Protocol):
    """A lock that is held until it is closed, or until the process ends, however it ends."""

    def close(self) -> None:
        """Release the lock. The file stays."""


class OpenFile(Protocol):
    """A file that is open for writing. Every method but `close` raises `StorageFault`."""

    def write(self, content: bytes, offset: int) -> None:
        """Write all of `content` at `offset` bytes. Not durable before `sync`."""

    def sync(self) -> None:
        """Make every write so far durable, and the size of the file if it has grown."""

    def truncate(self, size_bytes: int) -> None:
        """Cut the file to `size_bytes`. The cut is durable after it returns."""

    def close(self) -> None:
        """Give the file back. What was not synced stays undecided."""


class FileSystem(Protocol):
    """A disk. Every method raises `StorageFault` when the disk refuses."""

    def exists(self, path: Path) -> bool:
        """Return whether there is a file or directory at `path`."""

    def size(self, path: Path) -> int:
        """Return the size of the file at `path` in bytes."""

    def names(self, directory: Path) -> list[str]:
        """Return the names in `directory`, sorted."""

    def read(self, path: Path) -> bytes:
        """Return the whole content of the file at `path`."""

    def read_at(self, path: Path, offset: int, size_bytes: int) -> bytes:
        """Return `size_bytes` of the file at `path` from `offset` on; fewer where it ends."""

    def free_bytes(self, path: Path) -> int:
        """Return how many bytes this process may still write to the disk that `path` is on."""

    def make_directory(self, path: Path) -> None:
        """Make one directory whose parent exists. Not durable before the parent is synced."""

    def create(self, path: Path) -> OpenFile:
        """Open `path` for writing, empty, whether or not it exists.

        The name is not durable before the directory is synced.
        """

    def open(self, path: Path) -> OpenFile:
        """Open the existing file at `path` for writing."""

    def rename(self, source: Path, target: Path) -> None:
        """Give `source` the name `target`, atomically. Durable once the directory is synced."""

    def unlink(self, path: Path) -> None:
        """Remove the file at `path`. Durable once the directory is synced."""

    def sync_directory(self, path: Path) -> None:
        """Make the names in the directory at `path` durable."""

    def lock(self, path: Path) -> FileLock:
        """Take the exclusive lock of the file at `path`, made if absent, and write the pid there.

        Raises:
            FileLocked: somebody else holds it.
        """


def publish(files: FileSystem, path: Path, content: bytes) -> None:
    """Make `path` hold `content`: after a crash at any point it holds all of it, or what it held.

    Durable after it returns: temporary, sync, rename, sync of the directory, in this order.

    Raises:
        StorageFault: the disk failed; `path` holds the old content or the new.
    """
    temporary = path.with_name(path.name + TEMPORARY_SUFFIX)
    file = files.create(temporary)
    try:
        file.write(content, 0)
        file.sync()
    finally:
        file.close()
    files.rename(temporary, path)
    files.sync_directory(path.parent)


def make_directories(files: FileSystem, path: Path) -> None:
    """Make the directory at `path` and those above it that are missing. Durable afterwards.

    Raises:
        StorageFault: the disk failed, or does not allow it.
    """
    if not files.exists(path):
        make_directories(files, path.parent)
        files.make_directory(path)
    # Also for one that was there: a crash may have come between making it and this sync.
    if path.parent != path:
        files.sync_directory(path.parent)


def unlink_in_order(files: FileSystem, paths: Iterable[Path]) -> None:
    """Remove files that nobody needs any more. Durable after it returns.

    Each is gone durably before the next one: of the segments of a log, the oldest first, a crash at
    any point leaves a log without a gap. It touches nothing else, so it may run in a thread while
    other files of the directory are used. One call at a time for each directory.

    Raises:
        StorageFault: the disk failed; the rest is still there, which does no harm.
    """
    for path in paths:
        files.unlink(path)
        files.sync_directory(path.parent)


class OsFileSystem:
    """The disk of this machine."""

    def exists(self, path: Path) -> bool:
        with _fault_of("looking for it", path):
            try:
                os.lstat(path)
            except FileNotFoundError:
                return False
            return True

    def size(self, path: Path) -> int:
        with _fault_of("asking for its size", path):
            return os.stat(path).st_size

    def names(self, directory: Path) -> list[str]:
        with _fault_of("listing it", directory):
            return sorted(os.listdir(directory))

    def read(self, path: Path) -> bytes:
        with _fault_of("reading it", path), open(path, "rb") as file:
            return file.read()

    def read_at(self, path: Path, offset: int, size_bytes: int) -> bytes:
        with _fault_of(f"reading {size_bytes} bytes at {offset}", path), open(path, "rb") as file:
            file.seek(offset)
            return file.read(size_bytes)

    def free_bytes(self, path: Path) -> int:
        with _fault_of("asking for free space", path):
            status = os.statvfs(path)
            return status.f_bavail * status.f_frsize

    def make_directory(self, path: Path) -> None:
        with _fault_of("making the directory", path):
            try:
                os.mkdir(path)
            except FileExistsError:
                # Servers that share a parent directory may make it at the same time.
                if not os.path.isdir(path):
                    raise

    def create(self, path: Path) -> OpenFile:
        with _fault_of("creating it", path):
            return _OsFile(path, os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644))

    def open(self, path: Path) -> OpenFile:
        with _fault_of("opening it", path):
            return _OsFile(path, os.open(path, os.O_RDWR))

    def rename(self, source: Path, target: Path) -> None:
        with _fault_of(f"renaming it to {target.name}", source):
            os.replace(source, target)

    def unlink(self, path: Path) -> None:
        with _fault_of("removing it", path):
            os.unlink(path)

    def sync_directory(self, path: Path) -> None:
        with _fault_of("syncing the directory", path):
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def lock(self, path: Path) -> FileLock:
        with _fault_of("locking it", path):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
                    raise FileLocked(path, holder) from None
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, f"{os.getpid()}\n".encode("ascii"), 0)
            except BaseException:
                os.close(descriptor)
                raise
            return _OsFile(path, descriptor)


class _OsFile:
    """An open descriptor, closed once."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor

    def write(self, content: bytes, offset: int) -> None:
        try:
            written = os.pwrite(self._descriptor, content, offset)
            # The kernel may take less than it was given; the rest has to follow.
            while written < len(content):
                more = os.pwrite(self._descriptor, content[written:], offset + written)
                if more == 0:
                    raise OSError("the disk takes no more bytes")
                written += more
        except OSError as error:
            raise _fault(f"writing {len(content)} bytes at {offset}", self._path, error) from error

    def sync(self) -> None:
        try:
            os.fdatasync(self._descriptor)
        except OSError as error:
            raise _fault("syncing it", self._path, error) from error

    def truncate(self, size_bytes: int) -> None:
        with _fault_of(f"cutting it to {size_bytes} bytes", self._path):
            os.ftruncate(self._descriptor, size_bytes)
            # Not fdatasync: a smaller size is not needed to read back what is left.
            os.fsync(self._descriptor)

    def close(self) -> None:
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)


def _fault(action: str, path: Path, error: OSError) -> StorageFault:
    return StorageFault(f"{path}: {action} failed: {error.strerror or error}")


@contextmanager
def _fault_of(action: str, path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _fault(action, path, error) from error
