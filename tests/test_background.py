"""Snapshots of a running server: what ends, is given up or fails while something else begins."""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock

from raftd import background
from raftd.background import BUILD_RETRY_SECONDS, Arrived, BackgroundSnapshots, WorkerFailed
from raftd.core.progress import Progress
from raftd.inputs import DiskFailed, Input, SnapshotProgressed, SnapshotReceived, SnapshotTaken
from raftd.operations import _CatchUp
from raftd.storage import snapshot_file
from raftd.storage import snapshots as snapshots_module
from raftd.storage.files import OpenFile, OsFileSystem, StorageFault
from raftd.storage.live import LiveState
from raftd.storage.lmdb_store import DATABASE_FILE
from raftd.storage.snapshot_file import SnapshotReader
from raftd.storage.snapshots import SnapshotDirectory
from tests.storage.stores import contents
from tests.storage.test_snapshots import Taken, open_directory, send, taken
from tests.storage.test_worker import fill, founded

DEADLINE_S = 30.0
"""Of the wall, for a process or a thread on a machine that is busy."""
POLL_S = 0.002
SLOW_BYTES_PER_SECOND = 50_000
VALUE_BYTES = 1000


async def until(condition: Callable[[], Any]) -> None:
    """Wait for what threads and processes do, whatever the clock of the test says."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "it takes too long"
        await trio.to_thread.run_sync(time.sleep, POLL_S)


async def threads_have_ended(bed: Bed) -> None:
    """Wait until no thread works, and what comes after each has had its turn."""
    is_over = False
    while not is_over:
        await until(lambda: bed.threads.borrowed_tokens == 0)
        await trio.testing.wait_all_tasks_blocked()
        is_over = bed.threads.borrowed_tokens == 0


# --- what the tests hold in their hands ---------------------------------------------------------


class Gate:
    """Lets a sync in a thread wait for the test."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.open = threading.Event()

    def pass_through(self) -> None:
        self.entered.set()
        assert self.open.wait(DEADLINE_S)


class _GatedFile:
    def __init__(self, file: OpenFile, gate: Gate) -> None:
        self._file = file
        self._gate = gate

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def sync(self) -> None:
        self._gate.pass_through()
        self._file.sync()


class GatedFiles(OsFileSystem):
    """Real files; the syncs of what is received wait, if there is a gate."""

    gate: Gate | None = None

    def create(self, path: Path) -> OpenFile:
        return self._gated(path, super().create(path))

    def open(self, path: Path) -> OpenFile:
        return self._gated(path, super().open(path))

    def _gated(self, path: Path, file: OpenFile) -> OpenFile:
        if self.gate is not None and path.name.startswith("receiving-"):
            return _GatedFile(file, self.gate)  # type: ignore[return-value]
        return file


@attrs.define(eq=False)
class Work:
    """A worker that the test plays: it has done its work, and ends when and as the test says."""

    arguments: Sequence[str]
    end: trio.Event = attrs.field(factory=trio.Event)
    failure: WorkerFailed | None = None

    def ends(self, failure: WorkerFailed | None = None) -> None:
        self.failure = failure
        self.end.set()


def write_half_a_database(path: Path) -> None:
    path.mkdir()
    (path / DATABASE_FILE).write_bytes(b"half of it")


class Workers:
    """Takes the place of `_run_worker`."""

    def __init__(self) -> None:
        self.begun: list[Work] = []
        self.is_over = False

    def end_all(self) -> None:
        """Let all of them end, and those that begin later at once."""
        self.is_over = True
        for work in self.begun:
            work.end.set()

    async def __call__(
        self,
        arguments: Sequence[str],
        progress: Callable[[int], None],
        arrived: Arrived | None = None,
    ) -> None:
        work = Work(arguments)
        self.begun.append(work)
        if arguments[0] == "build":
            write_half_a_database(Path(arguments[2]))
        # Its end is noticed before a cancellation: the process is waited for in any case.
        with trio.CancelScope(shield=not self.is_over):
            await work.end.wait()
        if work.failure is not None:
            raise work.failure


@pytest.fixture
def no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small states are built by workers, too."""
    monkeypatch.setattr(background, "THREAD_BUILD_BYTES_MAX", 0)


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch, no_threads: None) -> Workers:
    workers = Workers()
    monkeypatch.setattr(background, "_run_worker", workers)
    return workers


@attrs.frozen(kw_only=True)
class Bed:
    """Snapshots that run, and what they have put into the inbox."""

    snapshots: BackgroundSnapshots
    directory: SnapshotDirectory
    live: LiveState
    files: GatedFiles
    inputs: list[Input]

    @property
    def threads(self) -> trio.CapacityLimiter:
        return self.snapshots._threads

    def receive(self, snapshot: Taken) -> None:
        """Receive all of it."""
        self.snapshots.receive(snapshot.id, 0, snapshot.content)

    def of(self, kind: type) -> list[Any]:
        return [item for item in self.inputs if isinstance(item, kind)]

    def names(self, prefix: str) -> list[str]:
        return sorted(path.name for path in self.live.directory.iterdir() if prefix in path.name)


@asynccontextmanager
async def running(
    path: Path, *, bytes_per_second: int = 0, count: int = 0, gate: Gate | None = None
) -> AsyncIterator[Bed]:
    """Run snapshots over a state with `count` large values, and with `gate` from the start on."""
    files = GatedFiles()
    files.gate = gate
    directory = SnapshotDirectory(path / "snapshots", files)
    directory.open()
    live = LiveState(path / "state", lambda: "this boot", files)
    store = live.create()
    founded(store)
    fill(store, count, VALUE_BYTES)
    inputs: list[Input] = []
    snapshots = BackgroundSnapshots(
        directory,
        live,
        store,
        files,
        inputs.append,
        snapshot_bytes_per_second=bytes_per_second,
        catch_up_bytes_per_second=bytes_per_second,
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(snapshots.run)
        try:
            yield Bed(
                snapshots=snapshots, directory=directory, live=live, files=files, inputs=inputs
            )
        finally:
            nursery.cancel_scope.cancel()
            if isinstance(background._run_worker, Workers):
                # Nothing else ends them, also if the test has failed.
                background._run_worker.end_all()
    snapshots.close(cleanly=False)


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> list[trio.Process]:
    """The workers that were begun, real ones."""
    begun: list[trio.Process] = []
    open_process: Callable[..., Awaitable[trio.Process]] = trio.lowlevel.open_process

    async def open_and_note(*arguments: Any, **options: Any) -> trio.Process:
        begun.append(await open_process(*arguments, **options))
        return begun[-1]

    monkeypatch.setattr(trio.lowlevel, "open_process", open_and_note)
    return begun


# --- a state that is built while its snapshot arrives -------------------------------------------


def damaged(snapshot: Taken, offset: int) -> Taken:
    """Return the snapshot with one wrong bit."""
    content = bytearray(snapshot.content)
    content[offset] ^= 1
    return attrs.evolve(snapshot, content=bytes(content))


async def test_a_state_is_built_as_far_as_its_snapshot_is_there(
    tmp_path: Path, small_steps: None, no_threads: None, processes: list[trio.Process]
) -> None:
    snapshot = taken(10)
    size_bytes = len(snapshot.content)
    middle = size_bytes // 2
    async with running(tmp_path) as bed:
        bed.snapshots.receive(snapshot.id, 0, snapshot.content[:middle])
        await until(lambda: bed.of(SnapshotProgressed))
        progressed = bed.of(SnapshotProgressed)[0]
        assert progressed.received_bytes == middle
        assert 0 < progressed.installed_bytes <= middle
        # A question is answered with the same.
        assert bed.snapshots.receive(snapshot.id, middle, b"")[1] > 0
        assert not bed.of(SnapshotReceived)
        bed.snapshots.receive(snapshot.id, middle, snapshot.content[middle:])
        await until(lambda: bed.of(SnapshotReceived))
        assert len(processes) == 1
        (received,) = bed.of(SnapshotReceived)
        store = bed.snapshots.install(received.snapshot)
        assert contents(store) == [
            pair
            for pairs in SnapshotReader(bed.files, bed.directory.path_of(snapshot.id)).blocks()
            for pair in pairs
        ]


async def test_a_damage_is_told_only_once_the_leader_has_sent_all_of_it(
    tmp_path: Path, no_threads: None, processes: list[trio.Process]
) -> None:
    """Else it would not know that its copy is of no use, and send the same for ever."""
    snapshot = damaged(taken(10), 20)
    middle = len(snapshot.content) // 2
    async with running(tmp_path) as bed:
        bed.snapshots.receive(snapshot.id, 0, snapshot.content[:middle])
        await until(lambda: processes and processes[0].returncode is not None)
        await threads_have_ended(bed)
        assert bed.inputs == []
        assert bed.snapshots.receive(snapshot.id, middle, b"") == (middle, 0)
        bed.snapshots.receive(snapshot.id, middle, snapshot.content[middle:])
        await until(lambda: bed.inputs)
        assert bed.inputs == [
            SnapshotProgressed(snapshot=snapshot.id, received_bytes=0, installed_bytes=0)
        ]
        assert len(processes) == 1


@pytest.mark.parametrize("failure", [None, StorageFault("the file is gone")], ids=str)
async def test_a_thread_that_builds_what_was_given_up_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: StorageFault | None
) -> None:
    old, newer, gate = taken(10), taken(20), Gate()
    build_database = background.build_database

    def build_late(files: OsFileSystem, file: Path, path: Path, *, durable: bool) -> None:
        monkeypatch.setattr(background, "build_database", build_database)
        path.mkdir()
        gate.pass_through()
        (path / DATABASE_FILE).write_bytes(b"half of it")
        if failure is not None:
            raise failure

    monkeypatch.setattr(background, "build_database", build_late)
    async with running(tmp_path) as bed:
        bed.receive(old)
        await until(gate.entered.is_set)
        bed.receive(newer)
        await until(lambda: bed.of(SnapshotReceived))
        # What is not needed any more is removed now, but for where somebody writes.
        bed.snapshots.install(bed.of(SnapshotReceived)[0].snapshot)
        await until(lambda: bed.names("old-") == [])
        gate.open.set()
        await threads_have_ended(bed)
        assert not bed.of(DiskFailed)
        assert [received.snapshot.id for received in bed.of(SnapshotReceived)] == [newer.id]
        assert bed.names("building-") == []


async def test_a_state_that_was_built_and_is_not_needed_is_removed(tmp_path: Path) -> None:
    async with running(tmp_path) as bed:
        bed.receive(taken(10))
        await until(lambda: bed.of(SnapshotReceived))
        assert len(bed.names("building-")) == 1
        bed.snapshots.drop_received()
        await until(lambda: bed.names("building-") == [])
        assert not bed.of(DiskFailed)


@pytest.mark.parametrize("kind", ["disk", "bug"])
async def test_a_state_that_was_installed_is_written_back_as_slowly_as_snapshots_are_written(
    tmp_path: Path, workers: Workers, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(background, "THREAD_BUILD_BYTES_MAX", 1 << 30)
    monkeypatch.setattr(background, "WRITE_BACK_BYTES_MIN", 0)
    async with running(tmp_path, bytes_per_second=12_345) as bed:
        bed.receive(taken(10))
        await until(lambda: bed.of(SnapshotReceived))
        bed.snapshots.install(bed.of(SnapshotReceived)[0].snapshot)
        await until(lambda: workers.begun)
        path = bed.live.live_path / DATABASE_FILE
        assert workers.begun[0].arguments == ["flush", str(path), "--bytes-per-second", "12345"]
        workers.begun[0].ends(WorkerFailed(kind, "why"))
        await threads_have_ended(bed)
        # What the disk has lost may be missed at any time; otherwise it only comes later.
        assert len(bed.of(DiskFailed)) == (kind == "disk")


# --- a snapshot that is dropped while it is worked in -------------------------------------------


@pytest.mark.parametrize("what", ["drop", "another"])
async def test_what_is_dropped_during_its_last_sync_is_not_put_in_force(
    tmp_path: Path, workers: Workers, what: str
) -> None:
    old, newer = taken(10), taken(20)
    async with running(tmp_path) as bed:
        gate = bed.files.gate = Gate()
        bed.receive(old)
        await until(lambda: workers.begun)
        workers.begun[0].ends()
        await until(gate.entered.is_set)
        bed.files.gate = None
        if what == "drop":
            bed.snapshots.drop_received()
        else:
            bed.receive(newer)
            await until(lambda: len(workers.begun) == 2)
        gate.open.set()
        await threads_have_ended(bed)
        assert bed.inputs == []
        assert bed.directory.receiving == (newer.id if what == "another" else None)
        assert len(bed.names("building-")) == (what == "another")
        for work in workers.begun[1:]:
            work.ends()
        if what == "another":
            await until(lambda: bed.of(SnapshotReceived))


# --- what an earlier process has received -------------------------------------------------------


def earlier(path: Path, snapshot: Taken, *, until: int = 1 << 30) -> None:
    """Receive a snapshot, up to the offset `until`, and end."""
    directory = open_directory(OsFileSystem(), path / "snapshots")
    send(directory, snapshot, until=until)
    directory.close()


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was received is checked in several steps; they are for `taken` under this fixture."""
    monkeypatch.setattr(snapshot_file, "BLOCK_BYTES", 100)
    for module in (snapshots_module, background):
        monkeypatch.setattr(module, "REWRITE_SYNC_BYTES", 200)


async def test_what_was_received_before_a_start_is_checked_while_the_server_works(
    tmp_path: Path, workers: Workers, small_steps: None, mock_clock: MockClock
) -> None:
    snapshot = taken(10)
    size_bytes = len(snapshot.content)
    earlier(tmp_path, snapshot)
    async with running(tmp_path, bytes_per_second=100) as bed:
        await threads_have_ended(bed)
        assert bed.directory.is_checking
        # Its leader, which may have heard of all of it, hears no less.
        assert bed.snapshots.receive(snapshot.id, size_bytes, b"")[0] == size_bytes
        await threads_have_ended(bed)
        assert workers.begun == []
        while bed.directory.is_checking:
            mock_clock.jump(2)
            await threads_have_ended(bed)
        assert bed.inputs[-1] == SnapshotProgressed(
            snapshot=snapshot.id, received_bytes=size_bytes, installed_bytes=0
        )
        await until(lambda: workers.begun)
        workers.begun[0].ends()
        await until(lambda: bed.of(SnapshotReceived))
        assert bed.snapshots.is_received(snapshot.id)


async def test_each_step_of_the_check_is_told_and_a_question_is_answered_with_the_same(
    tmp_path: Path, workers: Workers, small_steps: None, mock_clock: MockClock
) -> None:
    """A leader gives up who does not move, and counts as a loss whatever becomes less."""
    snapshot = taken(10)
    earlier(tmp_path, snapshot)
    catch_up = _CatchUp(rounds_before=0)
    moved = []

    def heard(received_bytes: int, installed_bytes: int) -> bool:
        progress = Progress(1, since_tick=0, round_target=0, round_start_tick=0)
        progress.snapshot = snapshot.id
        progress.received_bytes, progress.installed_bytes = received_bytes, installed_bytes
        return catch_up.has_moved(progress)

    async with running(tmp_path, bytes_per_second=100) as bed:
        await threads_have_ended(bed)
        while bed.directory.is_checking:
            told = bed.of(SnapshotProgressed)[-1]
            moved.append(heard(told.received_bytes, told.installed_bytes))
            answer = bed.snapshots.receive(snapshot.id, 0, b"")
            assert answer == (told.received_bytes, told.installed_bytes)
            mock_clock.jump(2)
            await threads_have_ended(bed)
    assert len(moved) > 2
    assert all(moved)
    assert catch_up.restarts == 0


async def test_the_disk_is_worked_on_while_a_silent_name_server_holds_all_other_threads(
    tmp_path: Path, workers: Workers
) -> None:
    names = trio.to_thread.current_default_thread_limiter()
    snapshot = taken(10)
    async with running(tmp_path) as bed:
        tokens = names.total_tokens
        names.total_tokens = 1
        async with names:
            bed.receive(snapshot)
            with trio.fail_after(DEADLINE_S):
                # `until` would need a thread itself.
                while not workers.begun:  # noqa: ASYNC110
                    await trio.sleep(POLL_S)
        names.total_tokens = tokens
        workers.begun[0].ends()
        await until(lambda: bed.of(SnapshotReceived))


async def test_what_is_dropped_while_it_is_checked_is_forgotten(
    tmp_path: Path, workers: Workers
) -> None:
    old, newer, gate = taken(10), taken(20), Gate()
    earlier(tmp_path, old)
    async with running(tmp_path, gate=gate) as bed:
        await until(gate.entered.is_set)
        bed.files.gate = None
        bed.receive(newer)
        bed.snapshots.keep(frozenset())
        gate.open.set()
        await until(lambda: workers.begun)
        await threads_have_ended(bed)
        assert bed.directory.receiving == newer.id
        assert bed.directory.received_path(newer.id).read_bytes() == newer.content
        assert not bed.of(DiskFailed)
        assert len(workers.begun) == 1


async def test_a_disk_that_fails_while_it_is_checked_ends_the_process(
    tmp_path: Path, workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(directory: SnapshotDirectory) -> None:
        raise StorageFault("the disk is broken")

    monkeypatch.setattr(SnapshotDirectory, "check_received", fail)
    earlier(tmp_path, taken(10))
    async with running(tmp_path) as bed:
        await until(lambda: bed.inputs)
        (failed,) = bed.of(DiskFailed)
        assert "the disk is broken" in str(failed.fault)
        assert workers.begun == []


async def test_it_is_checked_no_faster_than_snapshots_are_written(
    tmp_path: Path,
    workers: Workers,
    small_steps: None,
    mock_clock: MockClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    steps: list[SnapshotDirectory] = []
    step = SnapshotDirectory.check_received
    monkeypatch.setattr(
        SnapshotDirectory,
        "check_received",
        lambda directory: (steps.append(directory), step(directory)),
    )
    earlier(tmp_path, taken(10))
    async with running(tmp_path, bytes_per_second=100) as bed:
        for number in range(1, 4):
            await until(lambda number=number: len(steps) == number)
            await threads_have_ended(bed)
            assert bed.directory.is_checking
            mock_clock.jump(1.9)
            await threads_have_ended(bed)
            assert len(steps) == number
            mock_clock.jump(0.2)


FAILURES = [
    None,
    WorkerFailed("disk", "reading failed"),
    WorkerFailed("corrupt", "a record is damaged"),
    WorkerFailed("", "it ended with -9"),
]


@pytest.mark.parametrize("failure", FAILURES, ids=str)
@pytest.mark.parametrize("what", ["drop", "another"])
async def test_the_end_of_a_worker_whose_snapshot_was_given_up_changes_nothing(
    tmp_path: Path, workers: Workers, failure: WorkerFailed | None, what: str
) -> None:
    old, newer = taken(10), taken(20)
    async with running(tmp_path) as bed:
        bed.receive(old)
        await until(lambda: workers.begun)
        if what == "drop":
            bed.snapshots.drop_received()
        else:
            bed.receive(newer)
            await until(lambda: len(workers.begun) == 2)
        workers.begun[0].ends(failure)
        await trio.testing.wait_all_tasks_blocked()
        assert bed.inputs == []
        if what == "another":
            assert bed.directory.receiving == newer.id
            assert bed.directory.received_path(newer.id).read_bytes() == newer.content
            workers.begun[1].ends()
            await until(lambda: bed.of(SnapshotReceived))
            assert bed.snapshots.is_received(newer.id)
            assert not bed.of(DiskFailed)


# --- a worker that fails ------------------------------------------------------------------------


async def test_a_build_whose_worker_was_killed_is_tried_again_later_and_the_file_is_kept(
    tmp_path: Path, mock_clock: MockClock, no_threads: None, processes: list[trio.Process]
) -> None:
    begun = processes
    snapshot = taken(10)
    middle = len(snapshot.content) // 2
    async with running(tmp_path) as bed:
        bed.snapshots.receive(snapshot.id, 0, snapshot.content[:middle])
        await until(lambda: begun)
        begun[0].kill()
        await until(lambda: begun[0].returncode is not None)
        await threads_have_ended(bed)
        assert not bed.of(SnapshotReceived)
        # It is received all the same, with nobody who reads it.
        bed.snapshots.receive(snapshot.id, middle, snapshot.content[middle:])
        assert bed.directory.receiving == snapshot.id
        # Neither a heartbeat of the leader nor time that is too short begins another one.
        mock_clock.jump(BUILD_RETRY_SECONDS - 0.1)
        assert bed.snapshots.receive(snapshot.id, len(snapshot.content), b"") == (
            len(snapshot.content),
            0,
        )
        await threads_have_ended(bed)
        assert len(begun) == 1
        mock_clock.jump(0.2)
        await until(lambda: bed.of(SnapshotReceived))
        assert len(begun) == 2
        assert bed.snapshots.is_received(snapshot.id)
        assert not bed.of(DiskFailed)


@pytest.mark.parametrize("where", ["thread", "worker"])
async def test_a_snapshot_that_is_found_damaged_is_dropped_and_the_leader_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    if where == "worker":
        monkeypatch.setattr(background, "THREAD_BUILD_BYTES_MAX", 0)
    snapshot = taken(10)
    async with running(tmp_path) as bed:
        bed.receive(damaged(snapshot, len(snapshot.content) // 2))
        await until(lambda: bed.directory.receiving is None)
        await trio.testing.wait_all_tasks_blocked()
        assert bed.inputs[-1] == SnapshotProgressed(
            snapshot=snapshot.id, received_bytes=0, installed_bytes=0
        )
        assert bed.snapshots.progress_of(snapshot.id) == (0, 0)
        assert not bed.of(DiskFailed)
        # From its beginning, at once.
        bed.receive(snapshot)
        await until(lambda: bed.of(SnapshotReceived))


@pytest.mark.parametrize("kind", ["disk", "format"])
async def test_a_worker_that_meets_a_bad_disk_or_another_format_ends_the_process(
    tmp_path: Path, workers: Workers, kind: str
) -> None:
    snapshot = taken(10)
    async with running(tmp_path) as bed:
        bed.receive(snapshot)
        await until(lambda: workers.begun)
        workers.begun[0].ends(WorkerFailed(kind, "why"))
        await until(lambda: bed.of(DiskFailed))
        assert bed.directory.receiving == snapshot.id


# --- taking and installing at once --------------------------------------------------------------


async def test_an_install_ends_a_snapshot_that_is_being_taken_and_no_disk_has_failed(
    tmp_path: Path,
) -> None:
    """Its worker reads a directory whose database is exchanged under it."""
    snapshot = taken(10)
    async with running(tmp_path, bytes_per_second=SLOW_BYTES_PER_SECOND, count=1000) as bed:
        bed.snapshots.take("cluster-1")
        await until(lambda: list((tmp_path / "snapshots").glob("*.tmp")))
        bed.receive(snapshot)
        await until(lambda: bed.of(SnapshotReceived))
        assert not bed.of(SnapshotTaken)
        (received,) = bed.of(SnapshotReceived)
        store = bed.snapshots.install(received.snapshot)
        await until(lambda: bed.of(SnapshotTaken))
        assert bed.of(SnapshotTaken) == [SnapshotTaken(path=None, problem="")]
        assert not bed.of(DiskFailed)
        assert bed.snapshots.store is store
        await until(lambda: not list((tmp_path / "snapshots").glob("*.tmp")))
        await until(lambda: bed.names("old-") == [])


async def test_what_a_worker_leaves_that_an_install_has_ended_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = taken(10)
    run_worker = background._run_worker
    taking = trio.Event()

    def write(path: Path) -> None:
        path.write_bytes(b"what it had written")

    async def run(
        arguments: Sequence[str],
        progress: Callable[[int], None],
        arrived: Arrived | None = None,
    ) -> None:
        if arguments[0] != "take":
            await run_worker(arguments, progress, arrived)
            return
        taking.set()
        try:
            await trio.sleep_forever()
        finally:
            write(Path(arguments[2]))

    monkeypatch.setattr(background, "_run_worker", run)
    async with running(tmp_path) as bed:
        bed.snapshots.take("cluster-1")
        await taking.wait()
        bed.receive(snapshot)
        await until(lambda: bed.of(SnapshotReceived))
        bed.snapshots.install(bed.of(SnapshotReceived)[0].snapshot)
        await until(lambda: bed.of(SnapshotTaken))
        assert bed.of(SnapshotTaken) == [SnapshotTaken(path=None, problem="")]
        await until(lambda: not list((tmp_path / "snapshots").glob("*.tmp")))


async def test_a_worker_that_ends_before_it_has_made_its_file_ends_only_the_snapshot(
    tmp_path: Path, workers: Workers
) -> None:
    async with running(tmp_path) as bed:
        bed.snapshots.take("cluster-1")
        await until(lambda: workers.begun)
        workers.begun[0].ends(WorkerFailed("", "why"))
        await until(lambda: bed.of(SnapshotTaken))
        assert bed.of(SnapshotTaken) == [SnapshotTaken(path=None, problem="why")]
        # A file that is not there cannot be removed; the removals are worked off in their order.
        rest = tmp_path / "rest"
        rest.touch()
        bed.snapshots.remove([rest])
        await until(lambda: not rest.exists())
        assert not bed.of(DiskFailed)


# --- removing -----------------------------------------------------------------------------------


async def test_a_build_that_begins_while_leftovers_are_removed_stays(
    tmp_path: Path, workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Leftovers that were listed in a thread would be those of a later moment."""
    old, newer = taken(10), taken(20)
    async with running(tmp_path) as bed:
        bed.receive(old)
        await until(lambda: workers.begun)
        (left_over,) = bed.names("building-")
        run_sync = trio.to_thread.run_sync

        async def begin_another_before(
            task: Callable[..., Any], *arguments: Any, **options: Any
        ) -> Any:
            monkeypatch.setattr(trio.to_thread, "run_sync", run_sync)
            bed.receive(newer)
            await until(lambda: len(workers.begun) == 2)
            return await run_sync(task, *arguments, **options)

        monkeypatch.setattr(trio.to_thread, "run_sync", begin_another_before)
        bed.snapshots.drop_received()
        workers.begun[0].ends()
        await trio.testing.wait_all_tasks_blocked()
        await until(lambda: left_over not in bed.names("building-"))
        await trio.testing.wait_all_tasks_blocked()
        assert [bed.live.directory / name for name in bed.names("building-")] == [
            Path(workers.begun[1].arguments[2])
        ]
        workers.begun[1].ends()
        await until(lambda: bed.of(SnapshotReceived))
