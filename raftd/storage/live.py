"""Where the live database is, and whether it may be used again after a restart.

The truth is the newest snapshot and the log. The database below them is a cache that is written
without sync, so a copy that a loss of power has damaged looks like any other one. It is used only
if it can prove that there was none: by the kernel's boot id, which is another one after each boot,
or by the mark of a clean stop. Else it is thrown away and built again.

| path below `DATA_DIR/state` | what it is |
|---|---|
| `live/` | the database that the server works on |
| `live/proof.json` | why it may be used again; without it the database is worth nothing |
| `building-N/` | one that is being built, to take its place |
| `old-N/` | one whose place was taken, to be removed |

What proves: `{"format": 1, "boot_id": ID, "device": D, "inode": I}` while the database is in use,
which is durable before the first write to it. Device and inode are those of its file: a copy that
was made while the server wrote proves nothing. `{"format": 1, "clean_file_bytes": N}` after a clean
stop: all of the database was durable before this was written.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from raftd.storage.files import FileSystem, OsFileSystem, StorageFault, make_directories, publish
from raftd.storage.lmdb_store import DATABASE_FILE, DamagedDatabase, LmdbStore

PROOF_FORMAT = 1
"""Of the proofs that this release writes and believes."""
LIVE_DIRECTORY = "live"
PROOF_FILE = "proof.json"
BUILDING_PREFIX = "building-"
OLD_PREFIX = "old-"
BOOT_ID_FILE = Path("/proc/sys/kernel/random/boot_id")


def default_boot_id() -> str:
    """Return what the kernel calls the time since it was started; empty if it has no name."""
    try:
        return BOOT_ID_FILE.read_text("ascii").strip()
    except (OSError, ValueError):
        return ""


def remove_tree(path: Path) -> None:
    """Remove the directory at `path` with all that is in it; nothing if there is none.

    Takes long for a large database, and may be called in a thread: nobody knows its name any more.

    Raises:
        StorageFault: the disk failed.
    """
    try:
        shutil.rmtree(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise StorageFault(f"{path}: removing it failed: {error.strerror or error}") from error


class LiveState:
    """The directory of the live database, `DATA_DIR/state`. One process uses it at a time.

    Invariant: whatever `open_proven` hands out holds exactly what the process that wrote it last
    had committed, wherever that was stopped and whether or not the power failed.

    Raises:
        StorageFault: the disk failed; in every method. A missing, damaged or doubtful database is
            not an error.
    """

    def __init__(
        self, directory: Path, boot_id: Callable[[], str], files: FileSystem | None = None
    ) -> None:
        """Touches nothing.

        Args:
            directory: Made when it is needed. Nothing else is kept there.
            boot_id: `default_boot_id`, unless a test reboots. An empty one proves nothing.
            files: The disk for all but the databases themselves, which LMDB writes.
        """
        self.directory = directory
        self.live_path = directory / LIVE_DIRECTORY
        self._boot_id = boot_id
        self._files = files if files is not None else OsFileSystem()
        self._proof_path = self.live_path / PROOF_FILE
        self._store: LmdbStore | None = None
        """The store that was handed out last."""
        self._is_trusted = False
        """Whether a clean stop may say so."""
        self._last_number = 0
        """Of all names that were given so far."""

    def open_proven(self) -> LmdbStore | None:
        """Open the live database if it can prove itself.

        After it has returned a store, the proof holds for as long as this boot lasts, durably. If
        it returns None there is no live database any more; an old one waits to be removed.

        What the database holds is for the caller to compare: it may be newer or older than a log
        that was put back from a copy.
        """
        self._close()
        if not self._files.exists(self.live_path):
            return None
        if self._is_proven():
            self._write_boot_proof(self.live_path)
            with suppress(DamagedDatabase):
                # One that ends too early is damaged, too.
                return self._open()
        self._close()
        self._set_aside_live()
        return None

    def create(self) -> LmdbStore:
        """Make a new live database that holds nothing; one that is there waits to be removed.

        For a state machine that has applied nothing. A state that comes from somewhere else is
        built under a name of its own and put into force by `adopt`: half of it here would prove
        itself as well as all of it.
        """
        self._close()
        make_directories(self._files, self.directory)
        self._set_aside_live()
        self._files.make_directory(self.live_path)
        # Made here and not by LMDB, since the proof names it and comes before the first write.
        self._files.create(self.live_path / DATABASE_FILE).close()
        self._write_boot_proof(self.live_path)
        self._files.sync_directory(self.directory)
        return self._open()

    def building_path(self) -> Path:
        """Return a name at which nothing is yet, for a database to be built and then adopted."""
        make_directories(self._files, self.directory)
        return self._fresh_path(BUILDING_PREFIX)

    def adopt(self, built: Path) -> LmdbStore:
        """Let the complete database at `built`, a `building_path`, take the place of the live one.

        It has to be closed by whoever has built it, in this boot. The store that was handed out
        before is closed, if it was not; its files wait to be removed. A process that reads them
        may go on. After a crash in between there is the old one, none, or the new one.
        """
        assert built.parent == self.directory
        assert built.name.startswith(BUILDING_PREFIX)
        self._close()
        # Nothing of the database has to be durable: the proof ends with this boot.
        self._write_boot_proof(built)
        self._set_aside_live()
        self._files.rename(built, self.live_path)
        self._files.sync_directory(self.directory)
        return self._open()

    def close_cleanly(self, store: LmdbStore) -> None:
        """Make all of `store` durable, close it, and record durably that this was done."""
        assert store is self._store
        store.sync()
        store.close()
        self._store = None
        if self._is_trusted:
            size_bytes = self._files.size(self.live_path / DATABASE_FILE)
            self._write_proof(self.live_path, {"clean_file_bytes": size_bytes})

    def distrust(self) -> None:
        """Make the live database unusable for the next start, durably. It stays open."""
        self._is_trusted = False
        if self._files.exists(self._proof_path):
            self._files.unlink(self._proof_path)
            self._files.sync_directory(self.live_path)

    def leftovers(self, building: Path | None = None) -> list[Path]:
        """Return the directories that `remove_tree` may remove: old databases and given-up builds.

        Args:
            building: The build that is going on.
        """
        if not self._files.exists(self.directory):
            return []
        return [
            self.directory / name
            for name in self._files.names(self.directory)
            if name.startswith((BUILDING_PREFIX, OLD_PREFIX)) and self.directory / name != building
        ]

    def remove_leftovers(self, building: Path | None = None) -> None:
        """Remove all `leftovers`. Takes long for large ones: for the start, or for a thread."""
        for path in self.leftovers(building):
            remove_tree(path)

    def _open(self) -> LmdbStore:
        self._store = LmdbStore.open(self.live_path)
        self._is_trusted = True
        return self._store

    def _close(self) -> None:
        self._is_trusted = False
        if self._store is not None:
            self._store.close()
            self._store = None

    def _set_aside_live(self) -> None:
        if self._files.exists(self.live_path):
            self._files.rename(self.live_path, self._fresh_path(OLD_PREFIX))
            self._files.sync_directory(self.directory)

    def _fresh_path(self, prefix: str) -> Path:
        while True:
            self._last_number += 1
            path = self.directory / f"{prefix}{self._last_number}"
            if not self._files.exists(path):
                return path

    def _is_proven(self) -> bool:
        database_path = self.live_path / DATABASE_FILE
        if not (self._files.exists(self._proof_path) and self._files.exists(database_path)):
            return False
        try:
            proof = json.loads(self._files.read(self._proof_path))
        except (ValueError, RecursionError):
            return False
        if proof == {"format": PROOF_FORMAT, **self._boot_proof(database_path)}:
            return bool(proof["boot_id"])
        size_bytes = self._files.size(database_path)
        return bool(proof == {"format": PROOF_FORMAT, "clean_file_bytes": size_bytes})

    def _boot_proof(self, database_path: Path) -> dict[str, str | int]:
        try:
            status = database_path.stat()
        except OSError as error:
            raise StorageFault(f"{database_path}: {error.strerror or error}") from error
        return {
            "boot_id": self._boot_id(),
            "device": status.st_dev,
            "inode": status.st_ino,
        }

    def _write_boot_proof(self, directory: Path) -> None:
        self._write_proof(directory, self._boot_proof(directory / DATABASE_FILE))

    def _write_proof(self, directory: Path, proof: dict[str, str | int]) -> None:
        content = json.dumps({"format": PROOF_FORMAT, **proof}) + "\n"
        publish(self._files, directory / PROOF_FILE, content.encode("ascii"))
