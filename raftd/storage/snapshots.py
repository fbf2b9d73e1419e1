"""The snapshots of a server: the newest one, those that are still being read, one that comes in.

| file | what it is |
|---|---|
| `snapshot-INDEX-TERM.snap` | published: whole and durable; with the log it is the truth |
| `receiving-INDEX-TERM-SIZE-CHECKSUM.part` | the beginning of a snapshot that a leader sends |
| `*.tmp` | a snapshot that is being taken, or a file that waits for its removal |

**Publishing.** Temporary, sync, rename, sync of the directory; only then is anything older
dropped, here and in the log. So after a crash at any point the newest published file is whole. If
it is not, it was damaged later: the log before it is gone, no older snapshot can take its place,
and the server refuses to start.

**Receiving.** What came in is only written; whoever publishes has it verified and synced before.
After a restart the records at the beginning that pass their checksums are kept. They may never have
been synced, or a sync of them may have failed, after which the kernel believes its pages to be
clean; so they are written again, which alone brings them down. For a gigabyte that takes seconds,
so `open` does not do it: `check_received` does, in steps, while the server works. Until it has come
to the end nothing more is taken in.

A file of a gigabyte takes a tenth of a second to unlink. So nothing here does that to a file of
unknown size while the server runs: `remove_old` returns the paths, for another thread.

Source: dissertation section 5.1.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Collection, Iterator
from pathlib import Path

from raftd.core.snapshot import Snapshot, SnapshotId
from raftd.records import RECORD_BODY_BYTES_MAX, RECORD_HEADER
from raftd.storage.files import (
    TEMPORARY_SUFFIX,
    FileSystem,
    OpenFile,
    StorageFault,
    make_directories,
)
from raftd.storage.snapshot_file import (
    DIGEST_BYTES,
    NUMBER_MAX,
    TAIL_BYTES,
    CorruptSnapshot,
    intact_records,
    open_ends,
    snapshot_of,
)

REWRITE_SYNC_BYTES = 4 * 1024 * 1024
"""How much of a received beginning is verified and written again in one step, which ends with a
sync: others who use the disk wait for little at a time."""

_PUBLISHED_NAME = re.compile(r"snapshot-([0-9]{16,19})-([0-9]{1,19})\.snap")
_RECEIVING_NAME = re.compile(
    rf"receiving-([0-9]{{16,19}})-([0-9]{{1,19}})-([0-9]{{1,19}})-([0-9a-f]{{{2 * DIGEST_BYTES}}})"
    r"\.part"
)
_CHECKSUM = re.compile(rf"[0-9a-f]{{{2 * DIGEST_BYTES}}}")


def check_announced(id: SnapshotId) -> None:
    """Make sure that `id`, which a peer sent, may be the id of a snapshot. It names a file here.

    Raises:
        ValueError: no snapshot has this id; the message is short, whatever the id is.
    """
    numbers = (id.last_included_index, id.last_included_term, id.size_bytes - TAIL_BYTES)
    if not all(1 <= number <= NUMBER_MAX for number in numbers):
        raise ValueError("index, term or size of the announced snapshot is out of range")
    if not _CHECKSUM.fullmatch(id.checksum):
        raise ValueError(
            f"the checksum of the announced snapshot is not {2 * DIGEST_BYTES} of 0-9 and a-f"
        )


def published_paths(path: Path, files: FileSystem) -> list[Path]:
    """Return the published snapshots in the directory at `path`, the newest first; changes nothing.

    Raises:
        StorageFault: the disk failed.
    """
    if not files.exists(path):
        return []
    found = [match for name in files.names(path) if (match := _PUBLISHED_NAME.fullmatch(name))]
    found.sort(key=lambda match: (int(match[1]), int(match[2])), reverse=True)
    return [path / match[0] for match in found]


class SnapshotDirectory:
    """The directory of a server's snapshots. One thread uses it, but for `sync_received`.

    Invariants: `latest` is durable and its index only grows; at most one snapshot is being
    received, and it is newer than `latest` was when that began.
    """

    def __init__(self, path: Path, files: FileSystem, *, owner: str = "") -> None:
        """Touch nothing; `open` does.

        Args:
            owner: Becomes a part of the names of temporaries, and is different for each process,
                such as the pid: a child process that outlives a killed server must not write into
                the temporary of the next one.
        """
        self.latest: Snapshot | None = None
        """The newest published snapshot, None if there is none."""
        self._path = path
        self._files = files
        self._owner = owner
        self._published: dict[SnapshotId, Path] = {}
        """`latest` and those before it that are still readable."""
        self._unneeded: list[Path] = []
        """Files that nobody reads any more, for `remove_old`."""
        self._receiving: _Receiving | None = None
        self._temporary_count = 0

    def open(self) -> None:
        """Find out what is there, and keep of it what is of use; make the directory if missing.

        Removes temporaries. The beginning of a snapshot that was being received is kept, unread: it
        `is_checking` until `check_received` has come to its end.

        Raises:
            CorruptSnapshot: head, tail or size of the newest published snapshot are wrong.
            UnknownSnapshotFormat: another release wrote it, in another format.
            StorageFault: the disk failed.
        """
        assert self.latest is None, "opened twice"
        make_directories(self._files, self._path)
        for name in self._files.names(self._path):
            if name.endswith(TEMPORARY_SUFFIX):
                self._files.unlink(self._path / name)
        published = published_paths(self._path, self._files)
        if published:
            newest = self._read_newest(published[0])
            self.latest = newest
            self._published[newest.id] = published[0]
            self._unneeded += published[1:]
        # A crash may have come between the renaming and this sync.
        self._files.sync_directory(self._path)
        self._resume_receiving()

    def close(self) -> None:
        """Give back what is open. What was received so far stays for the next `open`."""
        if self._receiving is not None:
            self._receiving.close()
            self._receiving = None

    # --- published --------------------------------------------------------------------------

    def path_of(self, id: SnapshotId) -> Path:
        """Return where the published snapshot `id` is; it was not removed."""
        return self._published[id]

    def read(self, id: SnapshotId, offset: int, size_bytes: int) -> bytes:
        """Return `size_bytes` from `offset` on of the published snapshot `id`; fewer at its end.

        Raises:
            StorageFault: the disk failed.
        """
        return self._files.read_at(self._published[id], offset, size_bytes)

    def temporary_path(self) -> Path:
        """Return a path in this directory for a snapshot to be taken, another one each time."""
        self._temporary_count += 1
        name = f"taking-{self._owner}-{self._temporary_count}{TEMPORARY_SUFFIX}"
        return self._path / name

    def publish(self, temporary: Path) -> Snapshot:
        """Make the snapshot at `temporary` the latest one. Durable after it returns.

        Whoever wrote the file has synced and closed it, and it is newer than `latest`. The one
        before stays readable until `remove_old`.

        Raises:
            CorruptSnapshot: head, tail or size of the file are wrong; nothing has changed.
            StorageFault: the disk failed; `latest` is still the old one, on the disk it is either.
        """
        return self._publish(temporary, self._read_ends(temporary))

    def publish_if_newer(self, temporary: Path) -> Snapshot | None:
        """Do as `publish`, unless `latest` reaches as far by now: then drop the file.

        `remove_old` returns what was dropped. Raises as `publish` does.
        """
        snapshot = self._read_ends(temporary)
        if self._is_newer(snapshot.id):
            return self._publish(temporary, snapshot)
        self._unneeded.append(temporary)
        return None

    def remove_old(self, keep: Collection[SnapshotId] = ()) -> list[Path]:
        """Forget the snapshots before `latest` but for those in `keep`; return what to unlink.

        Hand the paths to `unlink_in_order`, in any thread. Among them are also files that `open`
        found unneeded and what `drop_receiving` has dropped.
        """
        for id in list(self._published):
            if id not in keep and (self.latest is None or id != self.latest.id):
                self._unneeded.append(self._published.pop(id))
        paths, self._unneeded = self._unneeded, []
        return paths

    def _is_newer(self, id: SnapshotId) -> bool:
        return self.latest is None or id.last_included_index > self.latest.id.last_included_index

    def _read_newest(self, path: Path) -> Snapshot:
        """Return what a published file says; what is in it is nowhere else."""
        try:
            newest = self._read_ends(path)
            if path.name != _published_name(newest.id):
                raise CorruptSnapshot(path, 0, "its head belongs to another name")
        except CorruptSnapshot as corrupt:
            match = _PUBLISHED_NAME.fullmatch(path.name)
            assert match is not None
            raise CorruptSnapshot(path, corrupt.offset, corrupt.reason, int(match[1])) from corrupt
        return newest

    def _read_ends(self, path: Path) -> Snapshot:
        head, id = open_ends(self._files, path)
        return snapshot_of(head, id)

    def _publish(self, source: Path, snapshot: Snapshot) -> Snapshot:
        assert self._is_newer(snapshot.id), "an older snapshot never takes a newer one's place"
        path = self._path / _published_name(snapshot.id)
        self._files.rename(source, path)
        self._files.sync_directory(self._path)
        # Memory changes only after the disk has.
        self._published[snapshot.id] = path
        self.latest = snapshot
        return snapshot

    # --- receiving --------------------------------------------------------------------------

    @property
    def receiving(self) -> SnapshotId | None:
        """The snapshot that is being received."""
        return None if self._receiving is None else self._receiving.id

    @property
    def receives_outdated(self) -> bool:
        """Whether the snapshot that is being received is not newer than `latest` any more."""
        return self._receiving is not None and not self._is_newer(self._receiving.id)

    @property
    def received_bytes(self) -> int:
        """How much of it is there, from its beginning; 0 if none is being received.

        While it `is_checking`: how much there is at least, unless it is damaged.
        """
        return 0 if self._receiving is None else self._receiving.here_bytes

    @property
    def is_checking(self) -> bool:
        """Whether what an earlier process has received of it is not verified and durable yet."""
        return self._receiving is not None and self._receiving.is_checking

    @property
    def checked_bytes(self) -> int:
        """How far `check_received` has come with it; 0 unless it `is_checking`."""
        receiving = self._receiving
        return receiving.received_bytes if receiving is not None and receiving.is_checking else 0

    def check_received(self) -> None:
        """Verify what an earlier process has received, and make it durable: one step of it.

        To be called until it is no longer `is_checking`; one call at a time, in any thread. Takes
        as long as the disk needs for `REWRITE_SYNC_BYTES`. What is damaged, and all that follows
        it, is cut off in the end. Does nothing if there is nothing to check.

        Raises:
            StorageFault: the disk failed.
        """
        receiving = self._receiving
        if receiving is not None:
            receiving.check()

    def begin_receiving(self, id: SnapshotId) -> int:
        """Be ready for parts of `id`, which is newer than `latest`; return how many bytes are here.

        Goes on where it was if `id` is being received already; else drops what was. All bytes may
        be here: then nothing is to be received, only to be checked, verified, synced and published.

        Raises:
            ValueError: no snapshot has this id, see `check_announced`; nothing has changed.
            StorageFault: the disk failed.
        """
        check_announced(id)
        assert self._is_newer(id), "a snapshot that is not newer is of no use"
        if self._receiving is None or self._receiving.id != id:
            self.drop_receiving()
            path = self._path / _receiving_name(id)
            self._receiving = _Receiving(id, path, self._files.create(path))
        return self._receiving.here_bytes

    def receive(self, id: SnapshotId, offset: int, content: bytes) -> int:
        """Take `content`, which stands at `offset` in `id`; return how many bytes are here now.

        What is here already is left as it is; nothing is taken after a gap or beyond the size, nor
        while it `is_checking`. Nothing is durable before `sync_received`.

        Raises:
            StorageFault: the disk failed or is full.
        """
        return self._receiving_of(id).receive(offset, content)

    def sync_received(self) -> None:
        """Make durable what was received before this call. Any thread may call it, at any time.

        Returns at once if nothing is being received any more.

        Raises:
            StorageFault: the disk failed.
        """
        receiving = self._receiving
        if receiving is not None:
            receiving.sync()

    def received_path(self, id: SnapshotId) -> Path:
        """Return where `id` is, which is being received. The file ends where the bytes here do."""
        return self._receiving_of(id).path

    def publish_received(self, id: SnapshotId) -> Snapshot:
        """Make `id`, of which all bytes are here, the latest snapshot. Durable after it returns.

        The caller has verified it, and synced it with `sync_received`. It is newer than `latest`.

        Raises:
            CorruptSnapshot: the file is not the snapshot `id`; nothing has changed.
            StorageFault: the disk failed; `latest` is still the old one, on the disk it is either.
        """
        receiving = self._receiving_of(id)
        assert receiving.synced_bytes == id.size_bytes, "published before all of it was synced"
        snapshot = self._read_ends(receiving.path)
        if snapshot.id != id:
            raise CorruptSnapshot(
                receiving.path, 0, "the file is not the snapshot that was announced"
            )
        self._publish(receiving.path, snapshot)
        receiving.close()
        self._receiving = None
        return snapshot

    def drop_receiving(self) -> None:
        """Forget the snapshot that is being received, if any; `remove_old` returns its file.

        Raises:
            StorageFault: the disk failed.
        """
        receiving, self._receiving = self._receiving, None
        if receiving is not None:
            receiving.close()
            # Under its own name it could be begun again before another thread unlinks it.
            path = self.temporary_path()
            self._files.rename(receiving.path, path)
            # Nothing that is dropped may come back: the server may be a member of another cluster
            # by then.
            self._files.sync_directory(self._path)
            self._unneeded.append(path)

    def _receiving_of(self, id: SnapshotId) -> _Receiving:
        receiving = self._receiving
        assert receiving is not None, "nothing is being received"
        assert receiving.id == id, "another snapshot is being received"
        return receiving

    def _resume_receiving(self) -> None:
        """Keep the good beginning of the newest unfinished snapshot; remove all others."""
        found = [
            (_announced(match), self._path / match[0])
            for name in self._files.names(self._path)
            if (match := _RECEIVING_NAME.fullmatch(name)) is not None
        ]
        found.sort(key=lambda unfinished: (unfinished[0].last_included_index, unfinished[1]))
        if found and self._is_newer(found[-1][0]):
            id, path = found.pop()
            size_bytes = min(self._files.size(path), id.size_bytes)
            self._receiving = _Receiving(id, path, self._files.open(path))
            self._receiving.resume(intact_records(self._files, path, id), size_bytes)
        for _, path in found:
            self._files.unlink(path)


class _Receiving:
    """A snapshot that is being received, and its file.

    One thread may be in `sync` or `check` while another one is in any other method.
    """

    def __init__(self, id: SnapshotId, path: Path, file: OpenFile) -> None:
        self.id = id
        self.path = path
        self.received_bytes = 0
        """From the beginning, without a gap."""
        self.synced_bytes = 0
        """How much of it is durable, once the name is."""
        self._file = file
        self._file_in_use = threading.Lock()
        self._is_unneeded = False
        self._is_closed = False
        self._unchecked: Iterator[bytes] | None = None
        """The records of an earlier process that are not verified and written again yet."""
        self._found_bytes = 0
        """How long the file was when it was found."""

    def resume(self, records: Iterator[bytes], size_bytes: int) -> None:
        """Begin with what is in the file: `records`, as far as they are good, of `size_bytes`."""
        self._unchecked, self._found_bytes = records, size_bytes

    @property
    def is_checking(self) -> bool:
        return self._unchecked is not None

    @property
    def here_bytes(self) -> int:
        """How much is here; while that is not known, the least that it can be without damage."""
        if self._unchecked is None:
            return self.received_bytes
        if self._found_bytes == self.id.size_bytes:
            return self._found_bytes
        # The last record may be cut short.
        return max(0, self._found_bytes - RECORD_HEADER.size - RECORD_BODY_BYTES_MAX)

    def check(self) -> None:
        with self._file_in_use:
            if self._unchecked is not None and not self._is_closed:
                self._check(self._unchecked)
        self._close_if_unneeded()

    def _check(self, unchecked: Iterator[bytes]) -> None:
        begun_bytes, is_done = self.received_bytes, False
        try:
            for record in unchecked:
                self._file.write(record, self.received_bytes)
                self.received_bytes += len(record)
                if self.received_bytes - begun_bytes >= REWRITE_SYNC_BYTES:
                    break
            else:
                is_done = True
                if self._found_bytes > self.received_bytes:
                    self._file.truncate(self.received_bytes)
            self._file.sync()
            self.synced_bytes = self.received_bytes
        except StorageFault:
            # If it was dropped meanwhile, its file is not there any more.
            if not self._is_unneeded:
                raise
        else:
            if is_done:
                self._unchecked = None

    def receive(self, offset: int, content: bytes) -> int:
        if self._unchecked is None and offset <= self.received_bytes:
            new = content[self.received_bytes - offset : self.id.size_bytes - offset]
            if new:
                self._file.write(new, self.received_bytes)
                self.received_bytes += len(new)
        return self.here_bytes

    def sync(self) -> None:
        with self._file_in_use:
            if not self._is_closed:
                # What is written while the disk works may not be part of it.
                received_bytes = self.received_bytes
                self._file.sync()
                self.synced_bytes = received_bytes
        self._close_if_unneeded()

    def close(self) -> None:
        """Close the file, or let the thread that syncs it do so: its number must not be reused."""
        self._is_unneeded = True
        self._close_if_unneeded()

    def _close_if_unneeded(self) -> None:
        # Nobody waits here: whoever has the lock looks again after releasing it.
        if self._is_unneeded and self._file_in_use.acquire(blocking=False):
            try:
                if not self._is_closed:
                    self._is_closed = True
                    self._file.close()
            finally:
                self._file_in_use.release()


def _published_name(id: SnapshotId) -> str:
    return f"snapshot-{id.last_included_index:016d}-{id.last_included_term}.snap"


def _receiving_name(id: SnapshotId) -> str:
    return (
        f"receiving-{id.last_included_index:016d}-{id.last_included_term}"
        f"-{id.size_bytes}-{id.checksum}.part"
    )


def _announced(name: re.Match[str]) -> SnapshotId:
    return SnapshotId(
        last_included_index=int(name[1]),
        last_included_term=int(name[2]),
        size_bytes=int(name[3]),
        checksum=name[4],
    )
