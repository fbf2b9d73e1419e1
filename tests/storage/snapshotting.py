"""Production's snapshots without processes and threads: a test bed says when the work goes on.

The files are production's, on any `FileSystem`; the state lives in a `MemoryStore`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from raftd.core.snapshot import Snapshot, SnapshotId
from raftd.inputs import Input, SnapshotProgressed, SnapshotReceived, SnapshotTaken
from raftd.storage.files import FileSystem
from raftd.storage.snapshot_file import (
    CorruptSnapshot,
    Pairs,
    SnapshotHead,
    SnapshotReader,
    head_of,
    open_ends,
    snapshot_of,
)
from raftd.storage.snapshots import SnapshotDirectory
from raftd.storage.store import MemoryStore, Store
from raftd.storage.wal import unlink_segments
from raftd.storage.worker import pairs_of, write_snapshot


def store_of(files: FileSystem, path: Path) -> MemoryStore:
    """Return a store with what the snapshot file at `path` holds; verifies all of it."""
    store = MemoryStore()
    with store.transaction():
        for pairs in SnapshotReader(files, path).blocks():
            for key, value in pairs:
                store.put(key, value)
    return store


class SteppedSnapshots:
    """A `raftd.surroundings.Snapshots` whose background work is done by calls of `work`."""

    def __init__(
        self,
        directory: SnapshotDirectory,
        files: FileSystem,
        store: Store,
        put: Callable[[Input], None],
        *,
        on_work: Callable[[], None] = lambda: None,
        make_store: Callable[[MemoryStore], Store] = lambda store: store,
    ) -> None:
        """Go on from a directory that is open.

        Args:
            store: where the state lives at first.
            put: takes the inputs that follow.
            on_work: called whenever there is one more step to be done.
            make_store: wraps a store that was built from a snapshot.
        """
        self.store = store
        self.jobs: deque[Callable[[], None]] = deque()
        """The steps that are due, the next one first."""
        self._directory = directory
        self._files = files
        self._put = put
        self._on_work = on_work
        self._make_store = make_store
        self._built: tuple[SnapshotId, Store] | None = None
        self._building: SnapshotId | None = None
        self._build_if_whole()

    def work(self) -> bool:
        """Do the next step in the background; return whether there was one."""
        if not self.jobs:
            return False
        self.jobs.popleft()()
        return True

    def _later(self, job: Callable[[], None]) -> None:
        self.jobs.append(job)
        self._on_work()

    @property
    def latest(self) -> Snapshot | None:
        return self._directory.latest

    @property
    def directory(self) -> SnapshotDirectory:
        return self._directory

    def take(self, cluster_id: str) -> None:
        # What a read transaction would see: the state as it is now, whatever is applied later.
        head, pairs = head_of(self.store, cluster_id), list(pairs_of(self.store))
        self._later(lambda: self._write(head, pairs))

    def _write(self, head: SnapshotHead, pairs: list[Pairs]) -> None:
        path = self._directory.temporary_path()
        write_snapshot(self._files, path, head, pairs)
        self._put(SnapshotTaken(path=path, problem=""))

    def publish(self, path: Path) -> Snapshot | None:
        _, id = open_ends(self._files, path)
        latest = self._directory.latest
        if latest and latest.id.last_included_index >= id.last_included_index:
            self.remove([path])
            return None
        return self._directory.publish(path)

    def read(self, snapshot: SnapshotId, offset: int, size_bytes: int) -> bytes:
        return self._directory.read(snapshot, offset, size_bytes)

    def keep(self, in_use: frozenset[SnapshotId]) -> None:
        self.remove(self._directory.remove_old(in_use))

    def receive(self, snapshot: SnapshotId, offset: int, data: bytes) -> tuple[int, int]:
        if self._directory.receiving != snapshot:
            self._built = self._building = None
        self._directory.begin_receiving(snapshot)
        received_bytes = self._directory.receive(snapshot, offset, data)
        self._build_if_whole()
        return received_bytes, snapshot.size_bytes if self.is_received(snapshot) else 0

    def _build_if_whole(self) -> None:
        snapshot = self._directory.receiving
        if (
            snapshot is not None
            and self._directory.received_bytes == snapshot.size_bytes
            and self._building is None
        ):
            self._building = snapshot
            self._later(lambda: self._sync_and_build(snapshot))

    def _sync_and_build(self, snapshot: SnapshotId) -> None:
        if self._building != snapshot:
            return
        self._directory.sync_received()
        path = self._directory.received_path(snapshot)
        try:
            store = store_of(self._files, path)
            head, id = open_ends(self._files, path)
            if id != snapshot:
                raise CorruptSnapshot(path, 0, "it is another snapshot than was announced")
        except CorruptSnapshot:
            self.drop_received()
            self._put(SnapshotProgressed(snapshot=snapshot, received_bytes=0, installed_bytes=0))
            return
        self._built = (snapshot, self._make_store(store))
        self._put(SnapshotReceived(snapshot_of(head, id)))

    def is_received(self, snapshot: SnapshotId) -> bool:
        return self._built is not None and self._built[0] == snapshot

    def drop_received(self) -> None:
        self._built = self._building = None
        self._directory.drop_receiving()

    def install(self, snapshot: Snapshot) -> Store:
        assert self._built is not None
        assert self.is_received(snapshot.id)
        self._directory.publish_received(snapshot.id)
        self.store = self._built[1]
        self._built = self._building = None
        return self.store

    def remove(self, paths: Sequence[Path]) -> None:
        if paths:
            self._later(lambda: unlink_segments(self._files, paths))
