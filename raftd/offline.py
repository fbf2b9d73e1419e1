"""What raftctl may use of the storage: a data directory or a backup is read, and nothing changed.

Everything here reads as a start of the server does, verifies every checksum on the way, and goes on
where a start would refuse, so that one look tells all that is wrong. No file is opened for writing,
none is made, not even a lock: whether a server runs on a directory is read off the kernel's list of
locks. What is read while a server runs may move under the reader: it is read again then, and what
is left of a difference is for the reader of the result to judge.

The live database is a cache without checksums, and a damaged one may end the process that maps it.
So a child process looks at it, `python -m raftd.offline LIVE_DIR`, and only if no server runs: a
reader that takes no lock may see pages that are used again.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import attrs

from raftd.core.membership import ConfigurationAt, decode_configuration
from raftd.core.snapshot import SnapshotId
from raftd.core.types import Entry, EntryKind, HardState, Index, Term
from raftd.storage.files import TEMPORARY_SUFFIX, OsFileSystem, StorageFault
from raftd.storage.identity import Identity, decode_identity
from raftd.storage.live import LIVE_DIRECTORY, PROOF_FILE, default_boot_id
from raftd.storage.lmdb_store import DATABASE_FILE
from raftd.storage.snapshot_file import (
    DIGEST_BYTES,
    CorruptSnapshot,
    SnapshotReader,
    intact_records,
    snapshot_of,
)
from raftd.storage.snapshots import published_paths
from raftd.storage.state import StateError, read_head
from raftd.storage.store import Store
from raftd.storage.wal_recovery import WalInspection, inspect_wal

KEY_PREFIX = b"K"
"""What the pairs of clients' keys begin with, see `raftd.storage.state`."""
IDENTITY_FILE, LOCK_FILE = "identity.json", "raftd.lock"
WAL_DIRECTORY, SNAPSHOTS_DIRECTORY, STATE_DIRECTORY = "wal", "snapshots", "state"
PARTS = (IDENTITY_FILE, LOCK_FILE, WAL_DIRECTORY, SNAPSHOTS_DIRECTORY, STATE_DIRECTORY)
"""What makes a directory a data directory: at least one of them."""
READINGS_MAX = 4
"""A directory that a server works on is read so often where it looks damaged."""
LIVE_TIMEOUT_S = 30.0
"""For the child that looks at the live database; it reads a few pages."""
LOCKS_FILE = Path("/proc/locks")

_RECEIVING_NAME = re.compile(
    rf"receiving-([0-9]{{16,19}})-([0-9]{{1,19}})-([0-9]{{1,19}})-([0-9a-f]{{{2 * DIGEST_BYTES}}})"
    r"\.part"
)
_WAY_BACK = "start a server with an empty data directory and bring it in with `raftctl replace`"


class NoDataDirectory(Exception):
    """There is nothing of a server at the path; the message says so."""


class UnusableBackup(Exception):
    """A file is no backup, a damaged one, or cannot be read. Nothing of it may be used."""

    def __init__(self, path: Path, reason: str, offset: int | None = None) -> None:
        at = "" if offset is None else f"damaged at byte {offset}: "
        super().__init__(f"{path}: {at}{reason}")
        self.path = path
        self.offset = offset
        """Where the file is damaged; None where that is not what is wrong."""
        self.reason = reason


@attrs.frozen(kw_only=True)
class BackupFile:
    """A backup, or a snapshot of a server, that was read whole; every checksum was right."""

    path: Path
    id: SnapshotId
    revision: int
    key_count: int
    pair_count: int
    """Keys, sessions and all else that the state consists of."""
    cluster_id: str
    """The cluster that it was taken in."""
    configuration: ConfigurationAt
    """The members of that cluster at that index."""


def verify_backup(
    path: Path, progress: Callable[[int, int], None] = lambda read_bytes, size_bytes: None
) -> BackupFile:
    """Read the backup at `path` to its last byte and return what it holds.

    Args:
        progress: told after each block how many bytes are verified, and of how many.

    Raises:
        UnusableBackup: a byte is wrong, missing or too much, or the file cannot be read.
    """
    try:
        if not path.is_file():
            raise UnusableBackup(path, "there is no such file")
        reader = SnapshotReader(OsFileSystem(), path)
        key_count = 0
        for pairs in reader.blocks():
            key_count += sum([key.startswith(KEY_PREFIX) for key, _ in pairs])
            progress(reader.read_bytes, reader.id.size_bytes)
        progress(reader.read_bytes, reader.id.size_bytes)
    except CorruptSnapshot as corrupt:
        raise UnusableBackup(path, corrupt.reason, corrupt.offset) from None
    except (StorageFault, OSError) as fault:
        reason = str(fault).removeprefix(f"{path}: ")
        raise UnusableBackup(path, reason) from None
    return BackupFile(
        path=path,
        id=reader.id,
        revision=reader.head.revision,
        key_count=key_count,
        pair_count=reader.pair_count,
        cluster_id=reader.head.cluster_id,
        configuration=snapshot_of(reader.head, reader.id).configuration,
    )


# --- what an inspection finds -----------------------------------------------------------------


@attrs.frozen(kw_only=True)
class FoundSegment:
    """One file of the log."""

    name: str
    size_bytes: int
    used_bytes: int = 0
    """Up to the end of its last good batch."""
    batches: int = 0
    first_index: Index | None = None
    """Of its entries; None if it has none."""
    last_index: Index | None = None
    state: str
    """ok, torn (the next start cuts that off), damaged, or unread (behind the damage)."""


@attrs.frozen(kw_only=True)
class FoundSnapshot:
    """A published snapshot."""

    name: str
    size_bytes: int
    backup: BackupFile | None
    """None if it is damaged."""
    problem: str = ""


@attrs.frozen(kw_only=True)
class FoundPart:
    """The beginning of a snapshot that a leader, or raftctl restore, sends."""

    name: str
    id: SnapshotId
    size_bytes: int
    intact_bytes: int
    """How much of it a start would keep."""


@attrs.frozen(kw_only=True)
class FoundState:
    """The live database."""

    proof: str
    """this boot, clean stop, or none: then the next start builds it from the snapshot."""
    size_bytes: int
    applied_index: Index | None = None
    """None if it was not looked at, or could not be."""
    applied_term: Term | None = None
    revision: int | None = None
    unread: str = ""
    """Why it was not looked at."""


@attrs.frozen(kw_only=True)
class Inspection:
    """What a data directory holds, and what is wrong with it."""

    path: Path
    running: str
    """Who has locked the directory, in words; empty if nobody has."""
    identity: Identity | None
    hard_state: HardState
    base_index: Index
    """What stands before the first entry of the log."""
    base_term: Term
    last_index: Index
    torn_bytes: int
    """Of a batch that a crash left unfinished; nothing in it was acknowledged."""
    segments: tuple[FoundSegment, ...]
    snapshots: tuple[FoundSnapshot, ...]
    """The newest first; older ones wait to be removed."""
    parts: tuple[FoundPart, ...]
    temporaries: tuple[str, ...]
    """Files that a crash may leave and that mean nothing."""
    state: FoundState | None
    configurations: tuple[ConfigurationAt, ...]
    """That of the newest snapshot, then those of the log, oldest first."""
    entries: tuple[Entry, ...]
    """The live ones of the log, as far as they are good."""
    problems: tuple[str, ...]
    """What is damaged, where, what is lost, and how to get the server back."""

    @property
    def role(self) -> str:
        """What the server is: blank, holds a backup, removed or member."""
        if self.identity is None:
            return "unknown"
        if self.identity.removed_index:
            return "removed"
        if self.identity.is_blank:
            return "holds a backup" if self.snapshots else "blank"
        return "member"


def inspect_directory(path: Path) -> Inspection:
    """Read all of the data directory at `path`, verify it, and change nothing.

    Raises:
        NoDataDirectory: there is no such directory, or nothing of a server in it.
    """
    if not path.is_dir():
        raise NoDataDirectory(f"{path}: there is no such directory")
    if not any((path / part).exists() for part in PARTS):
        raise NoDataDirectory(f"{path}: there is nothing of a raftd in it")
    readings = 0
    while True:
        readings += 1
        running = running_on(path)
        found = _Inspecting(path, running).inspect()
        if not found.problems or not running or readings == READINGS_MAX:
            return found


class _Inspecting:
    """One pass over a data directory."""

    def __init__(self, path: Path, running: str) -> None:
        self._path = path
        self._running = running
        self._files = OsFileSystem()
        self._problems: list[str] = []

    def inspect(self) -> Inspection:
        identity = self._identity()
        snapshots = self._snapshots()
        newest = snapshots[0].backup if snapshots else None
        log = self._log(newest.id.last_included_index if newest else 0, bool(snapshots))
        segments = self._segments(log) if log is not None else ()
        last_index = log.base_index + len(log.entries) if log is not None else 0
        if newest is not None:
            last_index = max(last_index, newest.id.last_included_index)
        configurations = [newest.configuration] if newest is not None else []
        entries = log.entries if log is not None else ()
        for entry in entries:
            if entry.kind is EntryKind.CONFIGURATION:
                at = ConfigurationAt(entry.index, decode_configuration(entry.data))
                if not configurations or at.index > configurations[-1].index:
                    configurations.append(at)
        if identity is not None and log is not None and log.damage is None:
            self._check_log_begun(identity, log, has_snapshot=bool(snapshots))
        return Inspection(
            path=self._path,
            running=self._running,
            identity=identity,
            hard_state=log.hard_state if log is not None else HardState(),
            base_index=log.base_index if log is not None else 0,
            base_term=log.base_term if log is not None else 0,
            last_index=last_index,
            torn_bytes=log.torn_bytes if log is not None else 0,
            segments=segments,
            snapshots=snapshots,
            parts=self._parts(),
            temporaries=self._temporaries(),
            state=self._state(last_index, log),
            configurations=tuple(configurations),
            entries=entries,
            problems=tuple(self._problems),
        )

    def _identity(self) -> Identity | None:
        path = self._path / IDENTITY_FILE
        try:
            if not path.exists():
                self._problems.append(
                    f"{path}: there is no such file. If the server was never started to the end, "
                    f"the next start makes it; else put it back, or {_WAY_BACK}"
                )
                return None
            return decode_identity(path, self._files.read(path))
        except StorageFault as fault:
            self._problems.append(str(fault))
            return None

    def _snapshots(self) -> tuple[FoundSnapshot, ...]:
        found = []
        try:
            paths = published_paths(self._path / SNAPSHOTS_DIRECTORY, self._files)
        except StorageFault as fault:
            self._problems.append(str(fault))
            return ()
        for number, path in enumerate(paths):
            try:
                backup = verify_backup(path)
                size_bytes = backup.id.size_bytes
                found.append(FoundSnapshot(name=path.name, size_bytes=size_bytes, backup=backup))
            except UnusableBackup as problem:
                if number and not path.exists():
                    # An older one that the running server has just removed.
                    continue
                size_bytes = self._size_bytes(path)
                found.append(
                    FoundSnapshot(
                        name=path.name, size_bytes=size_bytes, backup=None, problem=str(problem)
                    )
                )
                lost = (
                    f"all that the server knows up to its last entry is lost; {_WAY_BACK}"
                    if number == 0
                    else "nothing is lost: it is not the newest, and the next start removes it"
                )
                self._problems.append(f"{problem}: {lost}")
        return tuple(found)

    def _size_bytes(self, path: Path) -> int:
        try:
            return path.stat().st_size
        except OSError:
            return 0

    def _log(self, snapshot_index: Index, has_snapshot: bool) -> WalInspection | None:
        # With a damaged snapshot it is not known how far that reached: no gap is looked for.
        reaches = snapshot_index if snapshot_index or not has_snapshot else None
        try:
            log = inspect_wal(self._path / WAL_DIRECTORY, self._files, snapshot_index=reaches)
        except StorageFault as fault:
            self._problems.append(f"{fault}; {_WAY_BACK}")
            return None
        if log.damage is not None:
            self._problems.append(str(log.damage))
        return log

    def _segments(self, log: WalInspection) -> tuple[FoundSegment, ...]:
        directory = self._path / WAL_DIRECTORY
        found = []
        for number, segment in enumerate(log.segments):
            is_last = number + 1 == len(log.segments)
            last_index = (
                log.base_index + len(log.entries)
                if is_last
                else log.segments[number + 1].after_index
            )
            state = "ok"
            if log.damage is not None and log.damage.path == directory / segment.name:
                state = "damaged"
            elif is_last and log.torn_bytes:
                state = "torn"
            found.append(
                FoundSegment(
                    name=segment.name,
                    size_bytes=self._size_bytes(directory / segment.name),
                    used_bytes=segment.used_bytes,
                    batches=segment.batches,
                    first_index=segment.lowest_index,
                    last_index=last_index if segment.lowest_index is not None else None,
                    state=state,
                )
            )
        unread = list(log.unread)
        if log.damage is not None and log.damage.path.name not in [s.name for s in log.segments]:
            # Not even its header could be read.
            name = log.damage.path.name
            if name != WAL_DIRECTORY:
                size_bytes = self._size_bytes(directory / name)
                found.append(FoundSegment(name=name, size_bytes=size_bytes, state="damaged"))
        for name in unread:
            size_bytes = self._size_bytes(directory / name)
            found.append(FoundSegment(name=name, size_bytes=size_bytes, state="unread"))
        return tuple(found)

    def _check_log_begun(
        self, identity: Identity, log: WalInspection, *, has_snapshot: bool
    ) -> None:
        if identity.log_begun and not log.entries and not log.base_index and not has_snapshot:
            self._problems.append(
                f"{self._path / WAL_DIRECTORY}: the log is empty, although it has had entries. "
                f"What the server voted for and acknowledged is lost; {_WAY_BACK}"
            )

    def _parts(self) -> tuple[FoundPart, ...]:
        directory = self._path / SNAPSHOTS_DIRECTORY
        found = []
        for name in self._names(directory):
            match = _RECEIVING_NAME.fullmatch(name)
            if match is None:
                continue
            id = SnapshotId(
                last_included_index=int(match[1]),
                last_included_term=int(match[2]),
                size_bytes=int(match[3]),
                checksum=match[4],
            )
            try:
                intact_bytes = sum(map(len, intact_records(self._files, directory / name, id)))
            except StorageFault:
                continue
            size_bytes = self._size_bytes(directory / name)
            found.append(
                FoundPart(name=name, id=id, size_bytes=size_bytes, intact_bytes=intact_bytes)
            )
        return tuple(found)

    def _names(self, directory: Path) -> list[str]:
        try:
            return self._files.names(directory) if directory.is_dir() else []
        except StorageFault as fault:
            self._problems.append(str(fault))
            return []

    def _temporaries(self) -> tuple[str, ...]:
        folders = (self._path, self._path / SNAPSHOTS_DIRECTORY, self._path / WAL_DIRECTORY)
        return tuple(
            str((folder / name).relative_to(self._path))
            for folder in folders
            for name in self._names(folder)
            if name.endswith(TEMPORARY_SUFFIX)
        )

    def _state(self, last_index: Index, log: WalInspection | None) -> FoundState | None:
        directory = self._path / STATE_DIRECTORY / LIVE_DIRECTORY
        database = directory / DATABASE_FILE
        if not database.exists():
            return None
        proof, size_bytes = _proof_of(directory), self._size_bytes(database)
        if self._running:
            unread = "a server works on it"
            return FoundState(proof=proof, size_bytes=size_bytes, unread=unread)
        head = _head_of_live(directory)
        if "error" in head:
            return FoundState(proof=proof, size_bytes=size_bytes, unread=head["error"])
        if proof != "none" and log is not None and not log.damage:
            applied_index = head["applied_index"]
            if applied_index > last_index:
                self._problems.append(
                    f"{directory}: entries {last_index + 1} to {applied_index} were applied, but "
                    f"the log ends at {last_index}: what was acknowledged is lost. If a part of "
                    f"the log is somewhere else, put it back; else {_WAY_BACK}"
                )
        return FoundState(proof=proof, size_bytes=size_bytes, **head)


# --- who runs on it -----------------------------------------------------------------------------


def running_on(path: Path) -> str:
    """Return who has locked the data directory at `path`, in words; empty if nobody has.

    Nothing is locked for it: a server that is just being started must not be refused.
    """
    lock = path / LOCK_FILE
    try:
        status = lock.stat()
        holder = lock.read_text("ascii", "replace").strip()[:32]
        locks = LOCKS_FILE.read_text("ascii", "replace")
    except OSError:
        return ""
    inode = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    for line in locks.splitlines():
        fields = line.split()
        if len(fields) > 5 and fields[1] == "FLOCK" and fields[5] == inode:
            return f"process {holder or fields[4]}"
    return ""


# --- the live state -----------------------------------------------------------------------------


def _proof_of(directory: Path) -> str:
    """Return why the next start would use the live database again, see `raftd.storage.live`."""
    try:
        proof = json.loads((directory / PROOF_FILE).read_bytes())
        status = (directory / DATABASE_FILE).stat()
        if proof.get("clean_file_bytes") == status.st_size:
            return "clean stop"
        boot = (proof.get("boot_id"), proof.get("device"), proof.get("inode"))
        if boot[0] and boot == (default_boot_id(), status.st_dev, status.st_ino):
            return "this boot"
    except (OSError, ValueError, AttributeError, RecursionError):
        pass
    return "none"


def _head_of_live(directory: Path) -> dict[str, Any]:
    """Return what the live database says about itself, or {"error": TEXT}."""
    try:
        child = subprocess.run(
            [sys.executable, "-m", "raftd.offline", str(directory)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=LIVE_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"error": f"reading it took longer than {LIVE_TIMEOUT_S:.0f} s"}
    except OSError as error:
        return {"error": str(error)}
    try:
        head: dict[str, Any] = json.loads(child.stdout)
    except ValueError:
        return {"error": f"it is damaged: reading it ended with {child.returncode}"}
    return head


class _OnlyGet:
    """As much of a store as `read_head` needs."""

    def __init__(self, transaction: Any) -> None:
        self._transaction = transaction

    def get(self, key: bytes) -> bytes | None:
        value: bytes | None = self._transaction.get(key)
        return value


def main(arguments: Sequence[str]) -> int:
    """Print what the live database in the directory `arguments[0]` says about itself, as JSON."""
    import lmdb

    (directory,) = arguments
    try:
        if (Path(directory) / DATABASE_FILE).stat().st_size == 0:
            head: dict[str, Any] = {"applied_index": 0, "applied_term": 0, "revision": 0}
        else:
            # Without its lock, which is a file that is made and written to.
            environment = lmdb.open(directory, readonly=True, lock=False, create=False)
            with environment.begin() as transaction:
                found = read_head(cast("Store", _OnlyGet(transaction)))
            head = {
                "applied_index": found.applied_index,
                "applied_term": found.applied_term,
                "revision": found.revision,
            }
    except (lmdb.Error, OSError, StateError) as error:
        head = {"error": str(error)}
    print(json.dumps(head))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
