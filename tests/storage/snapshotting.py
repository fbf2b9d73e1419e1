"""Production's snapshots without processes and threads: a test bed says when the work goes on.

The files are production's, on any `FileSystem`; the state lives in a `MemoryStore`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

import attrs

from raftd.core.snapshot import Snapshot, SnapshotId
from raftd.inputs import Input, SnapshotProgressed, SnapshotReceived, SnapshotTaken
from raftd.storage.files import FileSystem, unlink_in_order
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
from raftd.storage.worker import pairs_of, write_snapshot

Lane: TypeAlias = str
"""What goes on beside each other in production: "take", "receive" and "remove". The steps of one
lane are done in their order."""


def store_of(files: FileSystem, path: Path) -> MemoryStore:
    """Return a store with what the snapshot file at `path` holds; verifies all of it."""
    store = MemoryStore()
    with store.transaction():
        for pairs in SnapshotReader(files, path).blocks():
            for key, value in pairs:
                store.put(key, value)
    return store


@attrs.frozen(eq=False)
class _Build:
    """A state that is being built; another one of the same snapshot is another build."""

    snapshot: SnapshotId


class SteppedSnapshots:
    """A `raftd.surroundings.Snapshots` whose background work is done by calls of `work`."""

    def __init__(
        self,
        directory: SnapshotDirectory,
        files: FileSystem,
        store: Store,
        put: Callable[[Input], None],
        *,
        on_work: Callable[[Lane], None] = lambda lane: None,
        make_store: Callable[[MemoryStore], Store] = lambda store: store,
    ) -> None:
        """Go on from a directory that is open.

        Args:
            store: where the state lives at first.
            put: takes the inputs that follow.
            on_work: called whenever there is one more step to be done, with its lane.
            make_store: wraps a store that was built from a snapshot.
        """
        self.store = store
        self.jobs: deque[tuple[Lane, Callable[[], None]]] = deque()
        """The steps that are due, the next one first."""
        self._directory = directory
        self._files = files
        self._put = put
        self._on_work = on_work
        self._make_store = make_store
        self._built: tuple[SnapshotId, Store] | None = None
        self._building: _Build | None = None
        if directory.is_checking:
            self._later("receive", self._check)
        self._build_if_whole()

    def work(self, lane: Lane | None = None) -> bool:
        """Do the next step in the background, or the next one of a lane.

        Returns:
            Whether there was one.
        """
        for number, (lane_of_job, job) in enumerate(self.jobs):
            if lane is None or lane_of_job == lane:
                del self.jobs[number]
                job()
                return True
        return False

    def _later(self, lane: Lane, job: Callable[[], None]) -> None:
        self.jobs.append((lane, job))
        self._on_work(lane)

    @property
    def latest(self) -> Snapshot | None:
        return self._directory.latest

    @property
    def directory(self) -> SnapshotDirectory:
        return self._directory

    def take(self, cluster_id: str) -> None:
        self._later("take", lambda: self._read(cluster_id))

    def _read(self, cluster_id: str) -> None:
        # What a read transaction would see: the state as it is now, whatever is applied later.
        head, pairs = head_of(self.store, cluster_id), list(pairs_of(self.store))
        self._later("take", lambda: self._write(head, pairs))

    def _write(self, head: SnapshotHead, pairs: list[Pairs]) -> None:
        path = self._directory.temporary_path()
        write_snapshot(self._files, path, head, pairs)
        self._put(SnapshotTaken(path=path, problem=""))

    def publish(self, path: Path) -> Snapshot | None:
        return self._directory.publish_if_newer(path)

    def read(self, snapshot: SnapshotId, offset: int, size_bytes: int) -> bytes:
        return self._directory.read(snapshot, offset, size_bytes)

    def keep(self, in_use: frozenset[SnapshotId]) -> None:
        self.remove(self._directory.remove_old(in_use))

    def progress_of(self, snapshot: SnapshotId) -> tuple[int, int]:
        if self._directory.receiving != snapshot:
            return 0, 0
        return self._directory.received_bytes, self._installed_bytes(snapshot)

    def receive(self, snapshot: SnapshotId, offset: int, data: bytes) -> tuple[int, int]:
        if self._directory.receiving != snapshot:
            self._built = self._building = None
        self._directory.begin_receiving(snapshot)
        received_bytes = self._directory.receive(snapshot, offset, data)
        self._build_if_whole()
        return received_bytes, self._installed_bytes(snapshot)

    def _installed_bytes(self, snapshot: SnapshotId) -> int:
        return snapshot.size_bytes if self.is_received(snapshot) else self._directory.checked_bytes

    def _check(self) -> None:
        directory = self._directory
        directory.check_received()
        snapshot = directory.receiving
        if snapshot is not None:
            self._progressed(snapshot, directory.received_bytes, directory.checked_bytes)
        if directory.is_checking:
            self._later("receive", self._check)
            return
        self._build_if_whole()

    def _build_if_whole(self) -> None:
        snapshot = self._directory.receiving
        if (
            snapshot is not None
            and not self._directory.is_checking
            and self._directory.received_bytes == snapshot.size_bytes
            and self._building is None
        ):
            build = self._building = _Build(snapshot)
            self._later("receive", lambda: self._sync(build))

    def _sync(self, build: _Build) -> None:
        if self._building is build:
            self._directory.sync_received()
            self._later("receive", lambda: self._build(build))

    def _build(self, build: _Build) -> None:
        if self._building is not build:
            return
        snapshot = build.snapshot
        path = self._directory.received_path(snapshot)
        try:
            store = store_of(self._files, path)
            head, id = open_ends(self._files, path)
            if id != snapshot:
                raise CorruptSnapshot(path, 0, "it is another snapshot than was announced")
        except CorruptSnapshot:
            self.drop_received()
            self._progressed(snapshot, 0, 0)
            return
        self._progressed(snapshot, snapshot.size_bytes, snapshot.size_bytes // 2)
        self._later("receive", lambda: self._finish(build, snapshot_of(head, id), store))

    def _finish(self, build: _Build, snapshot: Snapshot, store: MemoryStore) -> None:
        if self._building is build:
            self._built = (snapshot.id, self._make_store(store))
            self._put(SnapshotReceived(snapshot))

    def _progressed(self, snapshot: SnapshotId, received_bytes: int, installed_bytes: int) -> None:
        self._put(
            SnapshotProgressed(
                snapshot=snapshot, received_bytes=received_bytes, installed_bytes=installed_bytes
            )
        )

    def is_received(self, snapshot: SnapshotId) -> bool:
        return self._built is not None and self._built[0] == snapshot

    def drop_received(self) -> None:
        self._forget_received()

    def drop_outdated(self) -> None:
        if self._directory.receives_outdated:
            self._forget_received()

    def _forget_received(self) -> None:
        self._built = self._building = None
        self._directory.drop_receiving()

    def install(self, snapshot: Snapshot) -> Store:
        assert self._built is not None
        assert self.is_received(snapshot.id)
        self._directory.publish_received(snapshot.id)
        return self._adopt()

    def _adopt(self) -> Store:
        """Let the state that was built take the place of the live one."""
        assert self._built is not None
        self.store = self._built[1]
        self._built = self._building = None
        return self.store

    def remove(self, paths: Sequence[Path]) -> None:
        if paths:
            self._later("remove", lambda: unlink_in_order(self._files, paths))
