"""Snapshots in production: child processes and threads do what takes long, inputs tell of it.

| what | where |
|---|---|
| writing a snapshot, building a state from one | a child process, `raftd.storage.worker` |
| syncing what is received, checking what was received earlier, removing files | a thread |
| renaming and syncing a directory, reading a chunk | at once, in the driver |

`BackgroundSnapshots` is the `Snapshots` of `raftd.surroundings`. It never waits; `run` does.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import attrs
import trio

from raftd.core.snapshot import Snapshot, SnapshotId
from raftd.inputs import DiskFailed, Input, SnapshotProgressed, SnapshotReceived, SnapshotTaken
from raftd.storage.files import FileSystem, Remedy, StorageFault, unlink_in_order
from raftd.storage.live import LiveState, remove_tree
from raftd.storage.lmdb_store import LmdbStore
from raftd.storage.snapshot_file import open_ends, snapshot_of
from raftd.storage.snapshots import REWRITE_SYNC_BYTES, SnapshotDirectory

SYNC_RECEIVED_BYTES = 4 * 1024 * 1024
"""What is received between two syncs: one of a whole large file makes those of the log wait."""
BUILD_RETRY_SECONDS = 5.0
"""After a worker that was killed or crashed, before the next one is tried."""
STORAGE_THREADS_MAX = 8
"""That wait for the disk at one time: for a check or a sync of what is received, and for removals.
They are not those that look up names, which a silent name server may hold all of."""
WORKER_LINE_BYTES_MAX = 64 * 1024
"""Of a line that a worker prints: an error with a few paths in it at most."""

logger = logging.getLogger("raftd.background")


class WorkerFailed(Exception):
    """A worker did not do what it should; the message says why."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        """What the worker calls it; empty if it just ended."""

    def fault(self) -> StorageFault:
        """Return what ends the process, where its kind is one that does."""
        return StorageFault(str(self), Remedy.NAMED if self.kind == "format" else Remedy.RESTART)


@attrs.define
class _Build:
    """A state that is being built from a snapshot that was received."""

    snapshot: SnapshotId
    path: Path
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    installed_bytes: int = 0
    is_done: bool = False


class BackgroundSnapshots:
    """The snapshots of a running server."""

    def __init__(
        self,
        directory: SnapshotDirectory,
        live: LiveState,
        store: LmdbStore,
        files: FileSystem,
        put: Callable[[Input], None],
        *,
        snapshot_bytes_per_second: int,
    ) -> None:
        """Go on from what recovery found.

        Args:
            directory: open.
            live, store: the live database.
            put: takes what has happened; never blocks.
            snapshot_bytes_per_second: how fast a snapshot is written, checked or worked into a
                state; 0 for no limit.
        """
        self.store = store
        """The live one."""
        self._directory = directory
        self._live = live
        self._files = files
        self._put = put
        self._bytes_per_second = snapshot_bytes_per_second
        self._threads = trio.CapacityLimiter(STORAGE_THREADS_MAX)
        self._nursery: trio.Nursery | None = None
        self._taking: trio.CancelScope | None = None
        self._build_after = 0.0
        """When a state may be built again after a worker that has ended without a result."""
        self._build: _Build | None = None
        self._is_syncing = False
        self._unsynced_bytes = 0
        self._removals_send, self._removals = trio.open_memory_channel[list[Path]](float("inf"))

    @property
    def latest(self) -> Snapshot | None:
        """The newest one that is durable."""
        return self._directory.latest

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Work until cancelled. Nothing may be begun before it has started."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            nursery.start_soon(self._remove_files)
            self.keep(frozenset())
            if self._directory.is_checking:
                nursery.start_soon(self._check_received)
            else:
                self._build_if_whole()
            task_status.started()
            await trio.sleep_forever()

    def close(self, *, cleanly: bool) -> None:
        """Give back what is open, after `run` was cancelled.

        Args:
            cleanly: make the live state durable, so that the next start can use it after a loss
                of power as well. Takes as long as the disk needs for it.
        """
        self._directory.close()
        if cleanly:
            self._live.close_cleanly(self.store)
        else:
            self.store.close()

    def distrust_state(self) -> None:
        """Let the next start build its state from the snapshot: the live one may be wrong."""
        self._live.distrust()

    # --- taking ---

    def take(self, cluster_id: str) -> None:
        """Begin to write a snapshot; one `SnapshotTaken` follows."""
        self._taking = trio.CancelScope()
        self._start(self._take, self._taking, cluster_id)

    async def _take(self, scope: trio.CancelScope, cluster_id: str) -> None:
        path = self._directory.temporary_path()
        arguments = [
            *("take", str(self._live.live_path), str(path)),
            *("--cluster", cluster_id, "--bytes-per-second", str(self._bytes_per_second)),
        ]
        problem = ""
        with scope:
            try:
                await _run_worker(arguments, lambda done_bytes: None)
            except WorkerFailed as failure:
                if failure.kind == "disk":
                    self._put(DiskFailed(failure.fault()))
                    return
                problem = str(failure)
            else:
                self._put(SnapshotTaken(path=path, problem=""))
                return
        # A worker that was killed may have left its place in the table of readers.
        self.store.release_dead_readers()
        # It may have ended before it had made its file.
        self.remove([path] if self._files.exists(path) else [])
        self._put(SnapshotTaken(path=None, problem=problem))

    def publish(self, path: Path) -> Snapshot | None:
        """Make what was taken the newest snapshot, durably; None if there is a newer one."""
        return self._directory.publish_if_newer(path)

    def read(self, snapshot: SnapshotId, offset: int, size_bytes: int) -> bytes:
        """Return a part of a snapshot that was published and is kept."""
        return self._directory.read(snapshot, offset, size_bytes)

    def keep(self, in_use: frozenset[SnapshotId]) -> None:
        """Let go of published snapshots that are not in use."""
        paths = self._directory.remove_old(in_use)
        if paths:
            self.remove(paths)

    # --- receiving ---

    def received_bytes(self, snapshot: SnapshotId) -> int:
        """Return how much of a snapshot there is that a leader sends."""
        return self._directory.received_bytes if self._directory.receiving == snapshot else 0

    def receive(self, snapshot: SnapshotId, offset: int, data: bytes) -> tuple[int, int]:
        """Store a part of a snapshot; return how much there is, and how much is worked in."""
        if self._directory.receiving != snapshot:
            self._stop_building()
        try:
            before_bytes = self._directory.begin_receiving(snapshot)
        except ValueError as error:
            logger.warning("%s", error)
            return 0, 0
        received_bytes = self._directory.receive(snapshot, offset, data)
        self._unsynced_bytes += received_bytes - before_bytes
        self._build_if_whole()
        if self._unsynced_bytes >= SYNC_RECEIVED_BYTES and not self._is_syncing:
            self._is_syncing = True
            self._start(self._sync_received)
        return received_bytes, self._installed_bytes

    @property
    def _installed_bytes(self) -> int:
        """How far a state is built or, before that, what was received earlier is checked.

        Whoever waits has to see that it moves, and the same from everywhere: a number that falls
        back is a loss.
        """
        if self._build is not None:
            return self._build.installed_bytes
        return self._directory.checked_bytes

    async def _check_received(self) -> None:
        """Make sure of what an earlier process has received, as fast as snapshots are written.

        Each step is told: the leader gives up a server that does not move.
        """
        rate = self._bytes_per_second
        step_seconds = REWRITE_SYNC_BYTES / rate if rate else 0.0
        try:
            while self._directory.is_checking:
                next_step = trio.current_time() + step_seconds
                await self._in_thread(self._directory.check_received)
                self._tell_checked()
                if self._directory.is_checking:
                    await trio.sleep_until(next_step)
        except StorageFault as fault:
            self._put(DiskFailed(fault))
            return
        # All of it may have been received before the last stop.
        self._build_if_whole()

    def _tell_checked(self) -> None:
        snapshot = self._directory.receiving
        if snapshot is not None:
            self._put(
                SnapshotProgressed(
                    snapshot=snapshot,
                    received_bytes=self._directory.received_bytes,
                    installed_bytes=self._installed_bytes,
                )
            )

    async def _sync_received(self) -> None:
        self._unsynced_bytes = 0
        try:
            await self._in_thread(self._directory.sync_received)
        except StorageFault as fault:
            self._put(DiskFailed(fault))
        finally:
            self._is_syncing = False

    def _build_if_whole(self) -> None:
        snapshot = self._directory.receiving
        if (
            self._build is None
            and trio.current_time() >= self._build_after
            and snapshot is not None
            and not self._directory.is_checking
            and self._directory.received_bytes == snapshot.size_bytes
        ):
            self._build = _Build(snapshot, self._live.building_path())
            self._start(self._build_state, self._build)

    async def _build_state(self, build: _Build) -> None:
        with build.scope:
            try:
                await self._build_or_fail(build)
            except StorageFault as fault:
                self._put(DiskFailed(fault))
            except WorkerFailed as failure:
                # Unless it was given up meanwhile, and its file is gone.
                if self._build is build:
                    self._build_failed(build, failure)

    def _build_failed(self, build: _Build, failure: WorkerFailed) -> None:
        if failure.kind in ("disk", "format"):
            # Of another format it would come again and again.
            self._put(DiskFailed(failure.fault()))
        elif failure.kind == "corrupt":
            logger.warning("the snapshot that was received is of no use: %s", failure)
            self.drop_received()
            self._put(
                SnapshotProgressed(snapshot=build.snapshot, received_bytes=0, installed_bytes=0)
            )
        else:
            logger.warning("building a state failed and is tried again: %s", failure)
            self._stop_building()
            self._build_after = trio.current_time() + BUILD_RETRY_SECONDS
            self._start(self._build_again)

    async def _build_again(self) -> None:
        await trio.sleep(BUILD_RETRY_SECONDS)
        self._build_if_whole()

    async def _build_or_fail(self, build: _Build) -> None:
        def progress(done_bytes: int) -> None:
            build.installed_bytes = done_bytes
            self._put(
                SnapshotProgressed(
                    snapshot=build.snapshot,
                    received_bytes=build.snapshot.size_bytes,
                    installed_bytes=done_bytes,
                )
            )

        path = self._directory.received_path(build.snapshot)
        await self._in_thread(self._directory.sync_received)
        if self._build is not build:
            # The thread could not be interrupted, and its file is gone by now.
            return
        arguments = [
            *("build", str(path), str(build.path)),
            *("--bytes-per-second", str(self._bytes_per_second)),
        ]
        await _run_worker(arguments, progress)
        if self._build is not build:
            return
        head, id = open_ends(self._files, path)
        if id != build.snapshot:
            raise WorkerFailed("corrupt", f"{path}: it is another snapshot than was announced")
        build.is_done = True
        self._put(SnapshotReceived(snapshot_of(head, id)))

    def is_received(self, snapshot: SnapshotId) -> bool:
        """Return whether `install` would find it: another one may have taken its place."""
        build = self._build
        return build is not None and build.snapshot == snapshot and build.is_done

    def drop_received(self) -> None:
        """Forget the snapshot that is being received, and the state that was built from it."""
        self._stop_building()
        self._directory.drop_receiving()

    def drop_outdated(self) -> None:
        """Forget a snapshot that is being received, if the newest one reaches as far."""
        if self._directory.receives_outdated:
            self.drop_received()

    def _stop_building(self) -> None:
        if self._build is not None:
            self._build.scope.cancel()
            self._build = None
            self._start(self._remove_leftovers)

    def install(self, snapshot: Snapshot) -> LmdbStore:
        """Make what was received the newest snapshot, durably; return the store with its state."""
        build = self._build
        assert build is not None
        assert self.is_received(snapshot.id)
        if self._taking is not None:
            # Its worker may find the old database, the new one, or one of each; what it makes of
            # them is not looked at.
            self._taking.cancel()
        self._directory.publish_received(snapshot.id)
        self.store = self._live.adopt(build.path)
        self._build = None
        self._start(self._remove_leftovers)
        return self.store

    # --- removing ---

    def remove(self, paths: Sequence[Path]) -> None:
        """Remove files that nobody needs, in this order, at leisure."""
        if paths:
            self._removals_send.send_nowait(list(paths))

    async def _remove_files(self) -> None:
        async for paths in self._removals:
            try:
                await self._in_thread(unlink_in_order, self._files, paths)
            except StorageFault as fault:
                self._put(DiskFailed(fault))

    async def _remove_leftovers(self) -> None:
        building = self._build.path if self._build is not None else None
        # Listed before anything else can begin: a build that does is not among them.
        leftovers = self._live.leftovers(building)
        try:
            for path in leftovers:
                await self._in_thread(remove_tree, path)
        except StorageFault as fault:
            self._put(DiskFailed(fault))

    async def _in_thread(self, work: Callable[..., object], *arguments: object) -> None:
        await trio.to_thread.run_sync(work, *arguments, limiter=self._threads)

    def _start(self, task: Callable[..., Any], *arguments: object) -> None:
        assert self._nursery is not None, "background work needs `run` to run"
        self._nursery.start_soon(task, *arguments)


async def _run_worker(arguments: Sequence[str], progress: Callable[[int], None]) -> None:
    """Run one worker to its end; it ends with us, however we end.

    Raises:
        WorkerFailed: it says that it could not do it, or ended without a word.
    """
    process = await trio.lowlevel.open_process(
        [sys.executable, "-m", "raftd.storage.worker", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdin is not None
    last: dict[str, Any] = {}
    try:
        rest = b""
        async for received in process.stdout:
            *lines, rest = (rest + received).split(b"\n")
            for line in lines:
                last = json.loads(line)
                if "bytes" in last:
                    progress(last["bytes"])
            rest = rest[-WORKER_LINE_BYTES_MAX:]
        await process.wait()
    finally:
        with trio.CancelScope(shield=True):
            await process.stdin.aclose()
            await process.stdout.aclose()
            if process.returncode is None:
                process.kill()
                await process.wait()
    if "error" in last:
        raise WorkerFailed(last["kind"], last["error"])
    if process.returncode or "done" not in last:
        raise WorkerFailed("", f"its worker ended with {process.returncode} and without a result")
