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
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, cast

import attrs

from raftd.core.membership import ConfigurationAt, decode_configuration
from raftd.core.snapshot import SnapshotId
from raftd.core.types import (
    Entry,
    EntryKind,
    HardState,
    Index,
    ServerId,
    Term,
    server_incarnation,
)
from raftd.records import RECORD_HEADER
from raftd.storage.files import TEMPORARY_SUFFIX, OsFileSystem, Remedy, StorageFault
from raftd.storage.identity import Identity, decode_identity
from raftd.storage.live import LIVE_DIRECTORY, PROOF_FILE, default_boot_id
from raftd.storage.lmdb_store import DATABASE_FILE
from raftd.storage.snapshot_file import (
    DIGEST_BYTES,
    HEAD,
    TAIL,
    TAIL_BYTES,
    CorruptSnapshot,
    SnapshotReader,
    UnknownSnapshotFormat,
    intact_records,
    open_ends,
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


class NoDataDirectory(Exception):
    """There is nothing of a server at the path; the message says so."""


class UnusableBackup(Exception):
    """A file is no backup, a damaged one, or cannot be read. Nothing of it may be used."""

    def __init__(self, path: Path, kind: str, reason: str, offset: int | None = None) -> None:
        at = "" if offset is None else f"damaged at byte {offset}: "
        super().__init__(f"{path}: {at}{reason}")
        self.path = path
        self.kind = kind
        """missing, directory, unreadable, empty, not-a-backup, newer (of a release that came
        later) or damaged."""
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
        _refuse_other_than_files(path)
        reader = SnapshotReader(OsFileSystem(), path)
        key_count = 0
        for pairs in reader.blocks():
            key_count += sum([key.startswith(KEY_PREFIX) for key, _ in pairs])
            progress(reader.read_bytes, reader.id.size_bytes)
        progress(reader.read_bytes, reader.id.size_bytes)
    except CorruptSnapshot as corrupt:
        begins, ends = _marks_of_backup(path)
        reason = corrupt.reason
        if not (begins or ends):
            raise UnusableBackup(path, "not-a-backup", "it does not begin as a backup") from None
        if not ends:
            reason += "; its end is missing or has changed, as if it had been cut short"
        raise UnusableBackup(path, "damaged", reason, corrupt.offset) from None
    except UnknownSnapshotFormat as fault:
        raise UnusableBackup(path, "newer", str(fault).removeprefix(f"{path}: ")) from None
    except StorageFault as fault:
        raise UnusableBackup(path, "unreadable", fault.what.removeprefix(f"{path}: ")) from None
    except OSError as error:
        raise UnusableBackup(path, "unreadable", error.strerror or str(error)) from None
    return BackupFile(
        path=path,
        id=reader.id,
        revision=reader.head.revision,
        key_count=key_count,
        pair_count=reader.pair_count,
        cluster_id=reader.head.cluster_id,
        configuration=snapshot_of(reader.head, reader.id).configuration,
    )


def _refuse_other_than_files(path: Path) -> None:
    """Raise `UnusableBackup` unless there is a file at `path` with at least one byte.

    What is neither file nor directory is not even opened: a pipe would be waited for.
    """
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise UnusableBackup(path, "missing", "there is no such file") from None
    if stat.S_ISDIR(status.st_mode):
        raise UnusableBackup(path, "directory", "it is a directory")
    if not stat.S_ISREG(status.st_mode):
        raise UnusableBackup(path, "not-a-backup", "it is a device or a pipe, not a file")
    if not status.st_size:
        raise UnusableBackup(path, "empty", "the file is empty")


def _marks_of_backup(path: Path) -> tuple[bool, bool]:
    """Return whether a damaged file begins, and whether it ends, with the mark of a backup.

    Only the marks are looked at, so that damage anywhere else does not hide what the file was.
    """
    try:
        with path.open("rb") as file:
            beginning = file.read(RECORD_HEADER.size)
            size_bytes = file.seek(0, os.SEEK_END)
            file.seek(max(0, size_bytes - TAIL_BYTES))
            end = file.read(RECORD_HEADER.size)
    except OSError:
        return True, True
    begins, ends = (
        len(header) == RECORD_HEADER.size and RECORD_HEADER.unpack(header)[2] == kind
        for header, kind in ((beginning, HEAD), (end, TAIL))
    )
    return begins, ends


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
    is_damaged: bool = False
    """It was looked at, and is no database, or not a whole one: `unread` says how that showed."""
    ends_readers: bool = False
    """A signal ended the process that read it: a server that used it again could end likewise."""


@attrs.frozen(kw_only=True)
class Inspection:
    """What a data directory holds, and what is wrong with it."""

    path: Path
    running: str
    """Who has locked the directory, in words; empty if nobody has."""
    identity: Identity | None
    """None if the file is missing or damaged."""
    server: ServerId
    """Whose directory it is, also where the identity is damaged and its incarnation can still be
    told in it as that of a member; empty if nobody knows."""
    address: str
    """HOST:PORT of the server in the newest configuration here; empty if it has none there."""
    hard_state: HardState
    """As far as the log is good."""
    log_state: str
    """whole, damaged (what stands here of it is what comes before the damage), or unread."""
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
    """What is damaged, where, and what is lost by that."""
    needs_replacement: bool
    """Whether a problem is such that the server can only come back empty, as a new incarnation."""

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
        raise NoDataDirectory(f"{path}: there is no such file or directory")
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
        self._needs_replacement = False

    def inspect(self) -> Inspection:
        snapshots = self._snapshots()
        newest = snapshots[0].backup if snapshots else None
        log = self._log(newest.id.last_included_index if newest else 0, bool(snapshots))
        identity = self._identity(log, bool(snapshots))
        entries = log.entries if log is not None else ()
        log_end = log.base_index + len(entries) if log is not None else 0
        # Where the newest snapshot goes on after the log, the log is to follow it.
        last_index = max(log_end, newest.id.last_included_index if newest else 0)
        configurations = [newest.configuration] if newest is not None else []
        for entry in entries:
            if entry.kind is EntryKind.CONFIGURATION:
                at = ConfigurationAt(entry.index, decode_configuration(entry.data))
                if not configurations or at.index > configurations[-1].index:
                    configurations.append(at)
        if identity is not None and log is not None and log.damage is None:
            self._check_log_begun(identity, log, has_snapshot=bool(snapshots))
            if newest is not None and not identity.is_blank:
                self._check_log_age(log, newest.id)
        state = self._state(last_index, log)
        self._judge_newest(snapshots, log, state)
        addresses = configurations[-1].entry.addresses if configurations else {}
        voted_for = log.hard_state.voted_for if log is not None else None
        known = [*addresses, *([voted_for] if voted_for else [])]
        server = identity.server if identity is not None else self._server_among(known)
        founded_at = identity.bootstrap_address if identity is not None else ""
        return Inspection(
            path=self._path,
            running=self._running,
            identity=identity,
            server=server,
            address=addresses.get(server, founded_at),
            hard_state=log.hard_state if log is not None else HardState(),
            log_state=self._log_state(log),
            base_index=log.base_index if log is not None else 0,
            base_term=log.base_term if log is not None else 0,
            last_index=last_index,
            torn_bytes=log.torn_bytes if log is not None else 0,
            segments=self._segments(log) if log is not None else (),
            snapshots=snapshots,
            parts=self._parts(),
            temporaries=self._temporaries(),
            state=state,
            configurations=tuple(configurations),
            entries=entries,
            problems=tuple(self._problems),
            needs_replacement=self._needs_replacement,
        )

    def _log_state(self, log: WalInspection | None) -> str:
        if log is None:
            return "unread"
        # Of the directory itself: it was read to its end, and what it follows is missing.
        is_gap = log.damage is not None and log.damage.path.name == WAL_DIRECTORY
        return "whole" if log.damage is None or is_gap else "damaged"

    def _problem(self, what: str, remedy: Remedy = Remedy.NAMED) -> None:
        self._problems.append(what)
        self._needs_replacement |= remedy is Remedy.REPLACE

    def _fault(self, fault: StorageFault) -> None:
        # Without its way back, which knows neither the name nor the address of the server.
        self._problem(fault.what, fault.remedy)

    def _identity(self, log: WalInspection | None, has_snapshots: bool) -> Identity | None:
        path = self._path / IDENTITY_FILE
        try:
            if path.exists():
                return decode_identity(path, self._files.read(path))
        except StorageFault as fault:
            self._fault(fault)
            return None
        except OSError as error:
            self._problem(f"{path}: looking for it failed: {error.strerror or error}")
            return None
        has_log = not log.is_empty if log is not None else bool(self._problems)
        if has_snapshots or has_log:
            self._problem(
                f"{path}: there is no such file, so nobody knows whose votes and entries are "
                "beside it. If there is a copy of the file, put it back",
                Remedy.REPLACE,
            )
        return None

    def _server_among(self, members: Iterable[ServerId]) -> ServerId:
        """Return the member whose incarnation stands in the damaged identity, else nothing."""
        try:
            content = (self._path / IDENTITY_FILE).read_bytes()
        except OSError:
            return ""
        return next((m for m in members if server_incarnation(m).encode() in content), "")

    def _snapshots(self) -> tuple[FoundSnapshot, ...]:
        found = []
        try:
            paths = published_paths(self._path / SNAPSHOTS_DIRECTORY, self._files)
        except StorageFault as fault:
            self._fault(fault)
            return ()
        for number, path in enumerate(paths):
            try:
                backup = verify_backup(path)
                size_bytes = backup.id.size_bytes
                found.append(FoundSnapshot(name=path.name, size_bytes=size_bytes, backup=backup))
            except UnusableBackup as problem:
                if number and problem.kind == "missing":
                    # An older one that the running server has just removed.
                    continue
                size_bytes = self._size_bytes(path)
                found.append(
                    FoundSnapshot(
                        name=path.name, size_bytes=size_bytes, backup=None, problem=str(problem)
                    )
                )
                if problem.kind in ("unreadable", "newer"):
                    self._problem(str(problem))
                elif number:
                    self._problem(
                        f"{problem}: nothing is lost, it is not the newest, and the next start "
                        "removes it"
                    )
        return tuple(found)

    def _judge_newest(
        self,
        snapshots: tuple[FoundSnapshot, ...],
        log: WalInspection | None,
        state: FoundState | None,
    ) -> None:
        """Say what is lost if the newest snapshot is damaged: that depends on the live state."""
        if not snapshots or snapshots[0].backup is not None:
            return
        name, problem = snapshots[0].name, snapshots[0].problem
        if problem in self._problems:
            return
        path = self._path / SNAPSHOTS_DIRECTORY / name
        last_lost_index = int(name.split("-")[1])
        try:
            open_ends(self._files, path)
            has_ends = True
        except CorruptSnapshot:
            has_ends = False
        except StorageFault as fault:
            self._fault(fault)
            return
        if self._running:
            self._problem(
                f"{problem}. Nothing is lost as long as the server that works on it does not stop; "
                "the next snapshot that it takes replaces this one"
            )
            return
        has_state = (
            has_ends
            and log is not None
            and state is not None
            and state.proof != "none"
            and state.applied_index is not None
            and state.applied_index >= max(log.base_index, last_lost_index)
        )
        if has_state:
            self._problem(
                f"{problem}. Nothing is lost as long as the live state is there, "
                f"which has entries 1 to {last_lost_index} too and can prove it: the server starts "
                "from that, and the next snapshot that it takes replaces this one"
            )
            return
        self._problem(
            f"{problem}. The server starts from this snapshot: the effects of "
            f"entries 1 to {last_lost_index} are lost, and those of later ones with them, so it "
            "does not start",
            Remedy.REPLACE,
        )

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
            # A first start that did not come to its end has neither identity nor log.
            is_begun = has_snapshot or (self._path / IDENTITY_FILE).exists()
            if fault.remedy is not Remedy.REPLACE:
                self._fault(fault)
            elif is_begun:
                self._problem(
                    f"{fault.what}: what the server voted for and acknowledged is lost, so it does "
                    "not start",
                    fault.remedy,
                )
            return None
        if log.damage is not None:
            self._fault(log.damage)
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
            self._problem(
                f"{self._path / WAL_DIRECTORY}: the log is empty, although it has had entries. "
                "What the server voted for and acknowledged is lost",
                Remedy.REPLACE,
            )

    def _check_log_age(self, log: WalInspection, newest: SnapshotId) -> None:
        """Say so if the log is older than the snapshot, as a start does (`raftd.recovery`)."""
        index, last_index = newest.last_included_index, log.base_index + len(log.entries)
        is_in_log = log.base_index <= index <= last_index
        if not is_in_log and log.hard_state.current_term < newest.last_included_term:
            self._problem(
                f"{self._path / WAL_DIRECTORY}: the log ends at index {last_index} in term "
                f"{log.hard_state.current_term}, but the newest snapshot, up to entry {index}, is "
                f"of term {newest.last_included_term}: the log is older than the snapshot. Votes, "
                "and what was acknowledged since, are lost",
                Remedy.REPLACE,
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
            self._fault(fault)
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
            return FoundState(
                proof=proof,
                size_bytes=size_bytes,
                unread=head["error"],
                is_damaged=bool(head.get("damaged")),
                ends_readers=bool(head.get("crashed")),
            )
        if proof != "none" and log is not None and not log.damage:
            applied_index = head["applied_index"]
            if applied_index > last_index:
                self._problem(
                    f"{directory}: entries {last_index + 1} to {applied_index} were applied, but "
                    f"the log ends at {last_index}: what was acknowledged is lost. If a part of "
                    "the log is somewhere else, put it back",
                    Remedy.REPLACE,
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
    """Return what the live database says about itself, or {"error": TEXT}.

    "damaged" stands beside an error that is one of the database, not of the disk or the machine.
    """
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
        why = _end_of_reading(child.returncode)
        return {"error": why, "damaged": True, "crashed": child.returncode < 0}
    return head


def _end_of_reading(returncode: int) -> str:
    if returncode >= 0:
        return "what is in it makes no sense"
    number = -returncode
    name = signal.Signals(number).name if number in list(signal.Signals) else f"signal {number}"
    cut = ": a part of the file is missing" if number == signal.SIGBUS else ""
    return f"reading it was ended by {name}{cut}"


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
    except (OSError, StateError) as error:
        head = {"error": str(error)}
    except lmdb.Error as error:
        head = {"error": str(error), "damaged": True}
    print(json.dumps(head))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
