"""Snapshots in production: child processes and threads do what takes long, inputs tell of it.

| what | where |
|---|---|
| writing a snapshot, building a state from one | a child process, `raftd.storage.worker` |
| writing back a state that was installed | a child process as well |
| building a small state, for which a process would only begin | a thread |
| syncing what is received, checking what was received earlier, removing files | a thread |
| renaming and syncing a directory, reading a chunk | at once, in the driver |

A state is built while its snapshot is being received: the child reads the file as far as it is
there. So it is ready a moment after the last byte, and works no faster than the leader sends.

`BackgroundSnapshots` is the `Snapshots` of `raftd.surroundings`. It never waits; `run` does.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import attrs
import trio

from raftd.core.snapshot import Snapshot, SnapshotId
from raftd.inputs import DiskFailed, Input, SnapshotProgressed, SnapshotReceived, SnapshotTaken
from raftd.storage.files import FileSystem, Remedy, StorageFault, unlink_in_order
from raftd.storage.live import LiveState, remove_tree
from raftd.storage.lmdb_store import DATABASE_FILE, LmdbStore
from raftd.storage.snapshot_file import (
    CorruptSnapshot,
    UnknownSnapshotFormat,
    open_ends,
    snapshot_of,
)
from raftd.storage.snapshots import REWRITE_SYNC_BYTES, SnapshotDirectory
from raftd.storage.state import StateError
from raftd.storage.worker import build_database, kind_of

SYNC_RECEIVED_BYTES = 4 * 1024 * 1024
"""What is received between two syncs: one of a whole large file makes those of the log wait."""
THREAD_BUILD_BYTES_MAX = 4 * 1024 * 1024
"""Of a snapshot whose state is built in a thread: that takes some 10 ms, a child process begins
after a tenth of a second. It is little enough to hold in memory, and for the interpreter's lock."""
WRITE_BACK_BYTES_MIN = 16 * 1024 * 1024
"""A state that takes no more is left to the kernel: it writes so much without being noticed."""
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


class Arrived:
    """How much of a file there is that is being received, for tasks that follow it."""

    def __init__(self) -> None:
        """Nothing is there yet."""
        self.arrived_bytes = 0
        self._waiting = trio.lowlevel.ParkingLot()

    def note(self, arrived_bytes: int) -> None:
        """Let those go on who wait for less than `arrived_bytes`."""
        if arrived_bytes > self.arrived_bytes:
            self.arrived_bytes = arrived_bytes
            self._waiting.unpark_all()

    async def more_than(self, known_bytes: int) -> int:
        """Return how much there is once it is more than `known_bytes`."""
        while self.arrived_bytes <= known_bytes:
            await self._waiting.park()
        return self.arrived_bytes


@attrs.define(eq=False)
class _Build:
    """A state that is being built from a snapshot that was received."""

    snapshot: SnapshotId
    file: Path
    """The snapshot, as far as it is there."""
    path: Path
    """Of the database."""
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    arrived: Arrived = attrs.field(factory=Arrived)
    installed_bytes: int = 0
    is_done: bool = False
    """The state is there and durable as far as it has to be."""


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
        catch_up_bytes_per_second: int,
    ) -> None:
        """Go on from what recovery found.

        Args:
            directory: open.
            live, store: the live database.
            put: takes what has happened; never blocks.
            snapshot_bytes_per_second: how fast a snapshot is written; 0 for no limit.
            catch_up_bytes_per_second: how fast one that was received is checked or worked into a
                state; 0 for no limit.
        """
        self.store = store
        """The live one."""
        self._directory = directory
        self._live = live
        self._files = files
        self._put = put
        self._taking_bytes_per_second = snapshot_bytes_per_second
        self._building_bytes_per_second = catch_up_bytes_per_second
        self._threads = trio.CapacityLimiter(STORAGE_THREADS_MAX)
        self._nursery: trio.Nursery | None = None
        self._taking: trio.CancelScope | None = None
        self._build_after = 0.0
        """When a state may be built again after a worker that has ended without a result."""
        self._build: _Build | None = None
        self._building_paths: set[Path] = set()
        """Where somebody writes, be it only until he has noticed that he was given up."""
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
                self._build_if_due()
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
            *("--cluster", cluster_id, "--bytes-per-second", str(self._taking_bytes_per_second)),
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

    def progress_of(self, snapshot: SnapshotId) -> tuple[int, int]:
        """Return how much there is of a snapshot that a leader sends, and is worked in."""
        if self._directory.receiving != snapshot:
            return 0, 0
        return self._directory.received_bytes, self._installed_bytes

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
        self._build_if_due()
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
        """Make sure of what an earlier process has received, as fast as a state is built.

        Each step is told: the leader gives up a server that does not move.
        """
        rate = self._building_bytes_per_second
        step_seconds = REWRITE_SYNC_BYTES / rate if rate else 0.0
        try:
            while self._directory.is_checking:
                next_step = trio.current_time() + step_seconds
                await self._in_thread(self._directory.check_received)
                self._tell_progress()
                if self._directory.is_checking:
                    await trio.sleep_until(next_step)
        except StorageFault as fault:
            self._put(DiskFailed(fault))
            return
        # All of it may have been received before the last stop.
        self._build_if_due()

    def _tell_progress(self) -> None:
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

    def _build_if_due(self) -> None:
        """Begin to build a state, or let the one that is being built go on."""
        snapshot = self._directory.receiving
        if snapshot is None or self._directory.is_checking:
            return
        if self._build is None:
            if trio.current_time() < self._build_after:
                return
            file = self._directory.received_path(snapshot)
            self._build = _Build(snapshot, file, self._live.building_path())
            self._building_paths.add(self._build.path)
            self._start(self._build_state, self._build)
        self._build.arrived.note(self._directory.received_bytes)

    async def _build_state(self, build: _Build) -> None:
        with build.scope:
            try:
                await self._build_or_fail(build)
            except (StorageFault, WorkerFailed) as failure:
                # Unless it was given up meanwhile, and its file is gone: threads go on.
                if self._build is build:
                    self._build_failed(build, failure)
        self._building_paths.remove(build.path)
        if self._build is not build:
            await self._remove_trees([build.path])

    def _build_failed(self, build: _Build, failure: StorageFault | WorkerFailed) -> None:
        if isinstance(failure, StorageFault):
            self._put(DiskFailed(failure))
        elif failure.kind in ("disk", "format"):
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
        self._build_if_due()

    async def _build_or_fail(self, build: _Build) -> None:
        if build.snapshot.size_bytes <= THREAD_BUILD_BYTES_MAX:
            await build.arrived.more_than(build.snapshot.size_bytes - 1)
            await self._in_thread(self._build_here, build)
        else:
            await self._build_by_worker(build)
        await self._in_thread(self._directory.sync_received)
        head, id = open_ends(self._files, build.file)
        if id != build.snapshot:
            raise WorkerFailed(
                "corrupt", f"{build.file}: it is another snapshot than was announced"
            )
        build.is_done = True
        self._put(SnapshotReceived(snapshot_of(head, id)))

    def _build_here(self, build: _Build) -> None:
        try:
            build_database(self._files, build.file, build.path, durable=False)
        except (CorruptSnapshot, UnknownSnapshotFormat, StateError) as error:
            raise WorkerFailed(kind_of(error), str(error)) from error

    async def _build_by_worker(self, build: _Build) -> None:
        id = build.snapshot

        def progress(done_bytes: int) -> None:
            build.installed_bytes = done_bytes
            if self._build is build:
                self._tell_progress()

        arguments = [
            *("build", str(build.file), str(build.path)),
            *("--bytes-per-second", str(self._building_bytes_per_second)),
            *("--announced", str(id.last_included_index), str(id.last_included_term)),
            *(str(id.size_bytes), id.checksum),
        ]
        try:
            await _run_worker(arguments, progress, build.arrived)
        except WorkerFailed as failure:
            if failure.kind == "corrupt":
                # A leader knows that what it sends is of no use once it has sent all of it.
                await build.arrived.more_than(id.size_bytes - 1)
            raise

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
            build, self._build = self._build, None
            build.scope.cancel()
            if build.path not in self._building_paths:
                # Else whoever builds it removes it in the end.
                self._start(self._remove_trees, [build.path])

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
        self._start(self._remove_trees, self._leftovers())
        self._start(self._write_back, self.store.path / DATABASE_FILE)
        return self.store

    async def _write_back(self, path: Path) -> None:
        """Make an installed state durable at leisure, before the kernel does it in one go.

        Nobody depends on it: without a loss of power a state proves itself, after one it is built
        again.
        """
        if self._files.size(path) <= WRITE_BACK_BYTES_MIN:
            return
        arguments = ["flush", str(path), "--bytes-per-second", str(self._taking_bytes_per_second)]
        try:
            await _run_worker(arguments, lambda done_bytes: None)
        except WorkerFailed as failure:
            if failure.kind == "disk":
                self._put(DiskFailed(failure.fault()))

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

    def _leftovers(self) -> list[Path]:
        """Return databases that nobody uses: what is being built is not among them."""
        return [path for path in self._live.leftovers() if path not in self._building_paths]

    async def _remove_trees(self, paths: Sequence[Path]) -> None:
        try:
            for path in paths:
                await self._in_thread(remove_tree, path)
        except StorageFault as fault:
            self._put(DiskFailed(fault))

    async def _in_thread(self, work: Callable[..., object], *arguments: object) -> None:
        await trio.to_thread.run_sync(work, *arguments, limiter=self._threads)

    def _start(self, task: Callable[..., Any], *arguments: object) -> None:
        assert self._nursery is not None, "background work needs `run` to run"
        self._nursery.start_soon(task, *arguments)


async def _run_worker(
    arguments: Sequence[str],
    progress: Callable[[int], None],
    arrived: Arrived | None = None,
) -> None:
    """Run one worker to its end; it ends with us, however we end.

    Args:
        progress: told how far it is.
        arrived: what it may read of a file that is being received.

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
    try:
        async with trio.open_nursery() as nursery:
            if arrived is not None:
                nursery.start_soon(_tell, process.stdin, arrived)
            last = await _read_lines(process.stdout, progress)
            await process.wait()
            nursery.cancel_scope.cancel()
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


async def _read_lines(
    stdout: trio.abc.ReceiveStream, progress: Callable[[int], None]
) -> dict[str, Any]:
    """Return the last line of a worker, once it writes no more."""
    last: dict[str, Any] = {}
    rest = b""
    async for received in stdout:
        *lines, rest = (rest + received).split(b"\n")
        for line in lines:
            last = json.loads(line)
            if "bytes" in last:
                progress(last["bytes"])
        rest = rest[-WORKER_LINE_BYTES_MAX:]
    return last


async def _tell(stdin: trio.abc.SendStream, arrived: Arrived) -> None:
    """Tell a worker what it may read, for as long as it listens."""
    told_bytes = -1
    with suppress(trio.BrokenResourceError):
        while True:
            told_bytes = await arrived.more_than(told_bytes)
            await stdin.send_all(b"%d\n" % told_bytes)
