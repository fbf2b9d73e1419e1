"""What raftctl does with the data directories that are left after a majority was lost.

A directory of a stopped server becomes a backup of all that its log has, committed or not, and is
then set aside under another name. Nothing in it is changed at any time: whoever decides otherwise
gives it its name back. A cluster that goes on from the backup has an id of its own, so that servers
with data of the old one stay strangers to it.

Which directory that is to be is decided in `raftctl.recovering`.
"""

from __future__ import annotations

import errno
import glob
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import attrs

from raftd.core.snapshot import Snapshot, SnapshotId
from raftd.core.types import Index, Term
from raftd.recovery import ReadLog, read_log
from raftd.storage.files import FileLocked, FileSystem, OsFileSystem, StorageFault
from raftd.storage.identity import Identity, decode_identity, refuse_lost_log
from raftd.storage.live import remove_tree
from raftd.storage.lmdb_store import LmdbStore
from raftd.storage.snapshot_file import head_of, open_ends, snapshot_of
from raftd.storage.snapshots import published_paths
from raftd.storage.state import StateError, StateMachine, UnknownEntry
from raftd.storage.worker import build_database, write_snapshot

APPLIED_ENTRIES_MAX = 512
"""Entries of one transaction: the step in which progress is told."""
ASIDE = "before-recovery"
"""What a directory that is set aside is called, after its name and before a number."""
TEMPORARY = ".salvage-"
"""Between the name of a backup and a random end: what a salvage makes beside it."""
ASIDE_MAX = 1_000
"""Directories that may have been set aside beside one another: more are a mistake in a script."""
_LOCK = "raftd.lock"
_IDENTITY = "identity.json"

Progress = Callable[[str, int, int], None]
"""Told what is done, how far it is, and of how much: bytes or entries."""


class DirectoryInUse(Exception):
    """A raftd runs on the data directory; the message names it."""


@attrs.frozen(kw_only=True)
class Salvaged:
    """What was made of a data directory."""

    id: SnapshotId
    identity: Identity
    snapshot_index: Index
    """Up to here a snapshot had it."""
    last_index: Index
    last_term: Term


def salvage(path: Path, out_file: Path, progress: Progress = lambda *_: None) -> Salvaged:
    """Write all that the data directory at `path` holds to the new file `out_file`, a backup.

    Every entry of the log is applied, also those that nobody knows to be committed. The caller has
    locked the directory, which is not changed. The file is durable under its name when this
    returns; it appears there as a whole, and replaces one of that name.

    Args:
        out_file: in a directory that is there; a temporary database is built beside it.

    Raises:
        StorageFault: the directory is damaged or has lost something, a newer release wrote it, or
            a disk failed or is full. There is no new `out_file` then.
    """
    files = OsFileSystem()
    with tempfile.TemporaryDirectory(
        prefix=f".{out_file.name}{TEMPORARY}", dir=out_file.parent
    ) as made:
        identity = decode_identity(path / _IDENTITY, files.read(path / _IDENTITY))
        newest = _newest(path, files)
        log = read_log(path / "wal", files, newest[1] if newest else None)
        refuse_lost_log(identity, log.last_index)
        database = Path(made) / "state"
        if newest is not None:
            size_bytes = newest[1].id.size_bytes
            build_database(
                files,
                newest[0],
                database,
                lambda done: progress("reading the snapshot", done, size_bytes),
            )
        else:
            files.make_directory(database)
        temporary = Path(made) / out_file.name
        id = _write(database, temporary, log, identity, progress)
        os.rename(temporary, out_file)
        files.sync_directory(out_file.parent)
    return Salvaged(
        id=id,
        identity=identity,
        snapshot_index=newest[1].id.last_included_index if newest else 0,
        last_index=log.last_index,
        last_term=log.term_at(log.last_index),
    )


def _newest(path: Path, files: FileSystem) -> tuple[Path, Snapshot] | None:
    """Return the newest snapshot of a data directory."""
    paths = published_paths(path / "snapshots", files)
    if not paths:
        return None
    return paths[0], snapshot_of(*open_ends(files, paths[0]))


def _write(
    database: Path, out_file: Path, log: ReadLog, identity: Identity, progress: Progress
) -> SnapshotId:
    """Apply what comes after the snapshot, and write the file."""
    store = LmdbStore.open(database)
    try:
        state = StateMachine(store)
        start = state.applied_index - log.base_index
        total = len(log.entries)
        for position in range(start, total, APPLIED_ENTRIES_MAX):
            entries = log.entries[position : position + APPLIED_ENTRIES_MAX]
            state.apply(entries)
            progress("applying the log", position + len(entries), total)
        head = head_of(store, identity.cluster_id)
        size_bytes = store.size_bytes
        return write_snapshot(
            OsFileSystem(),
            out_file,
            head,
            store.pairs(),
            lambda done: progress("writing the backup", done, max(done, size_bytes)),
        ).id
    except (UnknownEntry, StateError) as error:
        raise StorageFault(f"{out_file.name}: {error}") from error
    finally:
        store.close()


def set_aside(path: Path) -> Path:
    """Put what the data directory at `path` holds where no server looks for it; return that place.

    Durable after it returns: a server that is started for `path` is blank then. The caller has
    locked the directory. A directory is renamed as a whole, also the one that a link leads to; what
    cannot be renamed, since a disk is mounted there, keeps its contents in a directory inside.

    Raises:
        StorageFault: the disk failed.
    """
    files = OsFileSystem()
    place = path.resolve()
    aside = _free_name(place.with_name(f"{place.name}.{ASIDE}"))
    try:
        os.rename(place, aside)
    except OSError as error:
        if error.errno not in (errno.EBUSY, errno.EXDEV, errno.EACCES, errno.EPERM):
            raise StorageFault(f"{place}: renaming it failed: {error.strerror}") from error
        return _set_contents_aside(place, files)
    files.sync_directory(place.parent)
    if path.is_symlink():
        # The link stays, and has to lead somewhere.
        files.make_directory(place)
        files.sync_directory(place.parent)
    return aside


def _set_contents_aside(place: Path, files: FileSystem) -> Path:
    inside = _free_name(place / ASIDE)
    files.make_directory(inside)
    # The identity goes first: without it no server starts on what is still there.
    for name in (_IDENTITY, *sorted(files.names(place))):
        if (
            name not in (_LOCK, inside.name)
            and not name.startswith(ASIDE)
            and files.exists(place / name)
        ):
            files.rename(place / name, inside / name)
            files.sync_directory(place)
    files.sync_directory(inside)
    return inside


def _free_name(prefix: Path) -> Path:
    for number in range(1, ASIDE_MAX + 1):
        path = prefix.with_name(f"{prefix.name}-{number}")
        if not path.exists():
            return path
    raise StorageFault(f"{prefix}: {ASIDE_MAX} directories were set aside before; remove some")


@contextmanager
def locked(paths: Iterable[Path]) -> Iterator[None]:
    """Keep every raftd from starting on the data directories at `paths`.

    Raises:
        DirectoryInUse: one runs on one of them.
        StorageFault: a lock cannot be taken, as on a disk that is mounted read-only.
    """
    files = OsFileSystem()
    with ExitStack() as stack:
        for path in paths:
            try:
                stack.callback(files.lock(path / _LOCK).close)
            except FileLocked as held:
                holder = f"process {held.holder}" if held.holder else "another process"
                raise DirectoryInUse(f"{path} is in use by {holder}") from None
        yield


def discard(out_file: Path) -> None:
    """Remove what a salvage of `out_file` that was killed has left beside it, and nothing else."""
    pattern = f".{glob.escape(out_file.name)}{TEMPORARY}*"
    for left in out_file.parent.glob(pattern):
        with suppress(StorageFault):
            remove_tree(left)
