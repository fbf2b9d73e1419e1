"""The newest snapshot is whole after any crash, and a broken transfer goes on where it was."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from random import Random

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raftd.core.snapshot import SnapshotId
from raftd.records import RECORD_HEADER
from raftd.storage import snapshot_file, snapshots
from raftd.storage.files import (
    FileSystem,
    OpenFile,
    OsFileSystem,
    Remedy,
    StorageFault,
    unlink_in_order,
)
from raftd.storage.snapshot_file import (
    CorruptSnapshot,
    SnapshotWriter,
    UnknownSnapshotFormat,
    verify,
)
from raftd.storage.snapshots import SnapshotDirectory, published_paths
from tests.storage.memory_files import Crash, MemoryFileSystem
from tests.storage.test_snapshot_file import CONFIGURATION, make_head, make_pairs

PATH = Path("/data/snapshots")
"""The directory on a disk in memory."""


@attrs.frozen
class Taken:
    """A snapshot as a leader holds it."""

    id: SnapshotId
    content: bytes


def taken(index: int, term: int = 2, seed: int = 0) -> Taken:
    files = MemoryFileSystem()
    file = files.create(Path("/a"))
    writer = SnapshotWriter(file, make_head(index, term, CONFIGURATION))
    writer.add(make_pairs(12, size_bytes=40))
    writer.add([(b"seed", str((index, seed)).encode())])
    return Taken(writer.finish(), files.read(Path("/a")))


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a file of some hundred bytes have several blocks, and be synced in several steps."""
    monkeypatch.setattr(snapshot_file, "BLOCK_BYTES", 100)
    monkeypatch.setattr(snapshots, "REWRITE_SYNC_BYTES", 200)


@pytest.fixture
def files() -> MemoryFileSystem:
    return MemoryFileSystem()


def open_directory(files: FileSystem, path: Path = PATH) -> SnapshotDirectory:
    """Start a server, and let it make sure of what it has received."""
    directory = SnapshotDirectory(path, files)
    directory.open()
    check(directory)
    return directory


def check(directory: SnapshotDirectory) -> None:
    while directory.is_checking:
        directory.check_received()


def write_temporary(directory: SnapshotDirectory, files: FileSystem, snapshot: Taken) -> Path:
    path = directory.temporary_path()
    file = files.create(path)
    half = len(snapshot.content) // 2
    file.write(snapshot.content[:half], 0)
    file.write(snapshot.content[half:], half)
    file.sync()
    file.close()
    return path


def take(directory: SnapshotDirectory, files: FileSystem, snapshot: Taken) -> None:
    published = directory.publish(write_temporary(directory, files, snapshot))
    assert published.id == snapshot.id
    assert directory.latest == published


def send(
    directory: SnapshotDirectory, snapshot: Taken, *, part_bytes: int = 300, until: int = 1 << 30
) -> None:
    """Send what is missing, up to the offset `until`."""
    offset = directory.begin_receiving(snapshot.id)
    while offset < min(until, len(snapshot.content)):
        end = min(offset + part_bytes, until)
        offset = directory.receive(snapshot.id, offset, snapshot.content[offset:end])
    assert directory.received_bytes == offset


def install(directory: SnapshotDirectory, files: FileSystem, snapshot: Taken) -> None:
    send(directory, snapshot)
    assert verify(files, directory.received_path(snapshot.id)).id == snapshot.id
    directory.sync_received()
    directory.publish_received(snapshot.id)


def names(files: FileSystem) -> list[str]:
    return files.names(PATH)


def power_loss(files: MemoryFileSystem) -> MemoryFileSystem:
    """Return the disk with everything lost that was not synced."""
    return next(files.survivors(Random(0)))


# --- publishing --------------------------------------------------------------------------------


def test_an_empty_directory_is_made_and_has_no_snapshot(files: MemoryFileSystem) -> None:
    directory = open_directory(files)
    assert directory.latest is None
    assert directory.receiving is None
    assert directory.remove_old() == []
    assert power_loss(files).exists(PATH)


def test_a_published_snapshot_is_found_again_with_its_configuration(
    files: MemoryFileSystem,
) -> None:
    directory = open_directory(files)
    snapshot = taken(10)
    take(directory, files, snapshot)
    survivor = power_loss(files)
    found = open_directory(survivor).latest
    assert found is not None
    assert found == directory.latest
    assert found.configuration.index == 1
    assert found.configuration.entry == CONFIGURATION
    assert survivor.read(directory.path_of(snapshot.id)) == snapshot.content


def test_an_older_snapshot_never_takes_the_place_of_a_newer_one(files: MemoryFileSystem) -> None:
    directory = open_directory(files)
    take(directory, files, taken(10, term=2))
    send(directory, taken(11))
    directory.sync_received()
    take(directory, files, taken(12))
    before = directory.latest
    for older in (taken(10, term=3), taken(12, seed=1), taken(12, term=3)):
        temporary = write_temporary(directory, files, older)
        with pytest.raises(AssertionError, match="never"):
            directory.publish(temporary)
        with pytest.raises(AssertionError, match="no use"):
            directory.begin_receiving(older.id)
    with pytest.raises(AssertionError, match="never"):
        directory.publish_received(taken(11).id)
    assert directory.latest == before
    assert open_directory(files).latest == before


def test_a_published_file_whose_name_was_not_synced_is_durable_once_it_is_found(
    files: MemoryFileSystem,
) -> None:
    directory = open_directory(files)
    temporary = write_temporary(directory, files, taken(10))
    files.crash_at = len(files.calls) + 2
    with pytest.raises(Crash):
        directory.publish(temporary)
    assert files.calls[-1] == "sync_directory snapshots"
    assert directory.latest is None
    # Only the process ended: the name is there, and may be gone after a loss of power.
    assert open_directory(files).latest is not None
    assert open_directory(power_loss(files)).latest is not None


def test_a_damaged_temporary_is_not_published(files: MemoryFileSystem) -> None:
    directory = open_directory(files)
    take(directory, files, taken(10))
    temporary = write_temporary(directory, files, taken(11))
    files.node(temporary).content.pop()
    with pytest.raises(CorruptSnapshot):
        directory.publish(temporary)
    assert directory.latest is not None
    assert directory.latest.id == taken(10).id
    assert temporary.name in names(files)


def test_a_damaged_newest_snapshot_is_refused_even_if_there_is_an_older_one(
    files: MemoryFileSystem,
) -> None:
    directory = open_directory(files)
    take(directory, files, taken(10))
    take(directory, files, taken(11))
    path = directory.path_of(taken(11).id)
    whole = files.read(path)
    for damaged in (whole[:-1], whole + b"\0", b"", b"\0" + whole[1:], taken(10).content):
        files.replace(path, damaged)
        with pytest.raises(CorruptSnapshot) as caught:
            open_directory(files)
        assert caught.value.path == path
        assert "the effects of entries 1 to 11 are lost" in caught.value.what
        assert caught.value.remedy is Remedy.REPLACE
    files.replace(path, whole)
    open_directory(files)


def test_a_snapshot_of_a_newer_release_is_left_alone(
    files: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(snapshot_file, "FORMAT_VERSION", 2)
        take(open_directory(files), files, taken(10))
    before = names(files)
    with pytest.raises(UnknownSnapshotFormat):
        open_directory(files)
    assert names(files) == before


def test_temporaries_of_an_earlier_process_are_removed_and_never_named_again(
    files: MemoryFileSystem,
) -> None:
    directory = open_directory(files)
    write_temporary(directory, files, taken(10))
    write_temporary(directory, files, taken(10))
    assert len(names(files)) == 2
    open_directory(files)
    assert names(files) == []
    temporaries = {
        SnapshotDirectory(PATH, files, owner=owner).temporary_path() for owner in ("1", "2")
    }
    assert len(temporaries) == 2
    assert directory.temporary_path() not in temporaries


def test_old_snapshots_stay_readable_until_they_are_forgotten(files: MemoryFileSystem) -> None:
    directory = open_directory(files)
    first, second, third = taken(10), taken(11), taken(12)
    for snapshot in (first, second, third):
        take(directory, files, snapshot)
    for snapshot in (first, second, third):
        assert directory.read(snapshot.id, 0, 1 << 20) == snapshot.content
        assert directory.read(snapshot.id, 5, 7) == snapshot.content[5:12]
        assert directory.read(snapshot.id, len(snapshot.content), 7) == b""
    first_path, second_path = directory.path_of(first.id), directory.path_of(second.id)
    assert directory.remove_old(keep=[second.id]) == [first_path]
    assert first_path.name in names(files)
    with pytest.raises(KeyError):
        directory.read(first.id, 0, 1)
    assert directory.read(second.id, 0, 1) == second.content[:1]
    unlink_in_order(files, [first_path])
    assert directory.remove_old(keep=[second.id]) == []
    assert directory.remove_old() == [second_path]
    assert directory.remove_old() == []
    assert directory.read(third.id, 0, 1) == third.content[:1]


def test_older_snapshots_that_a_crash_left_are_to_be_removed(files: MemoryFileSystem) -> None:
    directory = open_directory(files)
    for index in (9, 10, 100):
        take(directory, files, taken(index))
    old_paths = {directory.path_of(taken(index).id) for index in (9, 10)}
    directory = open_directory(files)
    assert directory.latest is not None
    assert directory.latest.id == taken(100).id
    assert published_paths(PATH, files)[0] == directory.path_of(taken(100).id)
    paths = directory.remove_old()
    assert set(paths) == old_paths
    unlink_in_order(files, paths)
    assert published_paths(PATH, files) == [directory.path_of(taken(100).id)]


def test_the_published_snapshots_of_a_missing_directory_are_none(files: MemoryFileSystem) -> None:
    assert published_paths(PATH, files) == []
    assert files.calls == []


# --- receiving ---------------------------------------------------------------------------------


def test_a_received_snapshot_is_published_and_durable(files: MemoryFileSystem) -> None:
    directory = open_directory(files)
    take(directory, files, taken(10))
    snapshot = taken(20)
    assert directory.begin_receiving(snapshot.id) == 0
    assert directory.receiving == snapshot.id
    install(directory, files, snapshot)
    assert directory.receiving is None
    assert directory.received_bytes == 0
    assert directory.latest is not None
    assert directory.latest.id == snapshot.id
    survivor = power_loss(files)
    assert survivor.read(open_directory(survivor).path_of(snapshot.id)) == snapshot.content


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_parts_that_are_lost_doubled_or_late_do_no_harm(data: st.DataObject) -> None:
    files = MemoryFileSystem()
    directory = open_directory(files)
    snapshot = taken(10)
    size_bytes = len(snapshot.content)
    here = directory.begin_receiving(snapshot.id)
    for _ in range(data.draw(st.integers(0, 12))):
        offset = data.draw(st.integers(0, size_bytes))
        end = data.draw(st.integers(offset, size_bytes))
        expected = max(here, end) if offset <= here else here
        here = directory.receive(snapshot.id, offset, snapshot.content[offset:end])
        assert here == directory.received_bytes == expected
        assert files.read(directory.received_path(snapshot.id)) == snapshot.content[:here]
    install(directory, files, snapshot)


def test_nothing_is_taken_beyond_the_size(files: MemoryFileSystem) -> None:
    directory = open_directory(files)
    snapshot = taken(10)
    send(directory, snapshot, until=100)
    everything = snapshot.content[50:] + b"more"
    assert directory.receive(snapshot.id, 50, everything) == len(snapshot.content)
    assert directory.receive(snapshot.id, len(snapshot.content), b"more") == len(snapshot.content)
    assert files.read(directory.received_path(snapshot.id)) == snapshot.content


def test_a_broken_transfer_goes_on_where_it_was(files: MemoryFileSystem) -> None:
    directory = open_directory(files)
    snapshot = taken(10)
    send(directory, snapshot, until=100)
    assert directory.begin_receiving(snapshot.id) == 100
    install(directory, files, snapshot)


def test_after_a_restart_the_whole_records_are_kept_and_durable(files: MemoryFileSystem) -> None:
    snapshot = taken(10)
    ends = record_ends(snapshot.content)
    for cut in range(len(snapshot.content) + 1):
        files = MemoryFileSystem()
        directory = open_directory(files)
        send(directory, snapshot, until=cut)
        directory.close()
        kept = max((end for end in ends if end <= cut), default=0)
        for _ in range(2):
            directory = open_directory(files)
            assert directory.receiving == snapshot.id
            assert directory.begin_receiving(snapshot.id) == kept
            path = directory.received_path(snapshot.id)
            assert files.read(path) == snapshot.content[:kept]
            assert bytes(files.node(path).durable) == snapshot.content[:kept]
        install(directory, files, snapshot)


def record_ends(content: bytes) -> list[int]:
    ends = [0]
    while ends[-1] < len(content):
        length = RECORD_HEADER.unpack_from(content, ends[-1])[0]
        ends.append(ends[-1] + RECORD_HEADER.size + length)
    return ends


def test_after_a_restart_damage_in_what_was_received_is_fetched_again(
    files: MemoryFileSystem,
) -> None:
    snapshot = taken(10)
    ends = record_ends(snapshot.content)
    random = Random(0)
    for size_bytes in (len(snapshot.content), ends[-2]):
        for offset in range(size_bytes):
            files = MemoryFileSystem()
            directory = open_directory(files)
            send(directory, snapshot, until=size_bytes)
            damaged = bytearray(snapshot.content[:size_bytes])
            damaged[offset] ^= 1 << random.randrange(8)
            files.replace(directory.received_path(snapshot.id), bytes(damaged))
            directory = open_directory(files)
            assert directory.begin_receiving(snapshot.id) == max(e for e in ends if e <= offset)
            install(directory, files, snapshot)


class _ReadFiles(MemoryFileSystem):
    """Calls `on_read` before each read."""

    on_read: Callable[[], None] | None = None

    def read_at(self, path: Path, offset: int, size_bytes: int) -> bytes:
        if self.on_read is not None:
            self.on_read()
        return super().read_at(path, offset, size_bytes)


def unchecked(files: MemoryFileSystem, snapshot: Taken, until: int = 1 << 30) -> SnapshotDirectory:
    """Return a directory just after a start, with what the process before has received."""
    before = open_directory(files)
    send(before, snapshot, until=until)
    before.close()
    directory = SnapshotDirectory(PATH, files)
    directory.open()
    assert directory.is_checking
    return directory


def test_a_start_reads_nothing_of_what_was_received() -> None:
    files, reads = _ReadFiles(), []
    directory = open_directory(files)
    send(directory, taken(10), until=700)
    directory.close()
    files.on_read = lambda: reads.append(1)
    directory = SnapshotDirectory(PATH, files)
    directory.open()
    assert directory.receiving == taken(10).id
    assert reads == []
    check(directory)
    assert reads != []


def test_while_it_is_checked_nothing_is_taken_in_and_nothing_more_is_promised_than_there_is(
    monkeypatch: pytest.MonkeyPatch, files: MemoryFileSystem
) -> None:
    monkeypatch.setattr(snapshots, "RECORD_BODY_BYTES_MAX", 300)
    snapshot = taken(10)
    size_bytes = len(snapshot.content)
    ends = record_ends(snapshot.content)
    for cut in range(0, size_bytes + 1, 7):
        directory = unchecked(MemoryFileSystem(), snapshot, cut)
        kept = max(end for end in ends if end <= cut)
        promised = directory.begin_receiving(snapshot.id)
        assert max(0, cut - 300 - RECORD_HEADER.size) == promised <= kept
        while directory.is_checking:
            assert directory.receive(snapshot.id, 0, snapshot.content) == promised
            assert directory.received_bytes == promised
            directory.check_received()
        assert directory.received_bytes == kept
        install(directory, files=directory._files, snapshot=snapshot)  # type: ignore[arg-type]
    # Of one that is there as a whole its leader has heard.
    directory = unchecked(files, snapshot)
    assert directory.received_bytes == size_bytes


def test_it_is_checked_in_steps(files: MemoryFileSystem) -> None:
    snapshot = taken(10)
    directory = unchecked(files, snapshot)
    steps = 0
    while directory.is_checking:
        before = len(files.calls)
        directory.check_received()
        steps += 1
        assert len([call for call in files.calls[before:] if call.startswith("sync")]) == 1
    assert steps >= len(snapshot.content) // 400
    directory.check_received()
    directory.publish_received(snapshot.id)


def test_what_is_dropped_in_the_middle_of_a_step_is_let_go_of() -> None:
    files = _ReadFiles()
    snapshot, other = taken(10), taken(11)
    directory = unchecked(files, snapshot)

    def drop() -> None:
        files.on_read = None
        directory.begin_receiving(other.id)

    files.on_read = drop
    directory.check_received()
    assert not directory.is_checking
    assert directory.receiving == other.id
    install(directory, files, other)
    assert len(names(files)) == 2
    unlink_in_order(files, directory.remove_old())
    assert names(files) == [directory.path_of(other.id).name]


def test_a_disk_that_fails_in_the_middle_of_a_step_is_a_fault(files: MemoryFileSystem) -> None:
    directory = unchecked(files, taken(10))
    files.fail_at = len(files.calls) + 2
    with pytest.raises(StorageFault):
        directory.check_received()
    assert directory.is_checking


def test_what_a_failed_sync_may_have_lost_is_written_again_after_a_restart(
    files: MemoryFileSystem,
) -> None:
    directory = open_directory(files)
    snapshot = taken(10)
    send(directory, snapshot)
    files.fail_at = len(files.calls) + 1
    with pytest.raises(StorageFault):
        directory.sync_received()
    directory.close()
    # The process starts again, the machine does not: the kernel says that the pages are clean.
    directory = open_directory(files)
    assert directory.begin_receiving(snapshot.id) == len(snapshot.content)
    install(directory, files, snapshot)
    survivor = power_loss(files)
    path = open_directory(survivor).path_of(snapshot.id)
    assert verify(survivor, path).id == snapshot.id


def test_another_snapshot_drops_the_one_before(files: MemoryFileSystem) -> None:
    directory = open_directory(files)
    first, second = taken(10), taken(11)
    send(directory, first, until=100)
    assert directory.begin_receiving(second.id) == 0
    assert directory.receiving == second.id
    (dropped,) = directory.remove_old()
    # Begun again before its old file is unlinked: that must not take the new one away.
    assert directory.begin_receiving(first.id) == 0
    send(directory, first, until=50)
    unlink_in_order(files, [dropped, *directory.remove_old()])
    install(directory, files, first)
    assert names(files) == [directory.path_of(first.id).name]


def test_a_dropped_file_that_was_not_unlinked_is_so_after_a_restart(
    files: MemoryFileSystem,
) -> None:
    directory = open_directory(files)
    send(directory, taken(10), until=100)
    directory.drop_receiving()
    directory.drop_receiving()
    assert directory.receiving is None
    directory.sync_received()
    assert len(names(files)) == 1
    directory = open_directory(files)
    assert names(files) == []
    assert directory.remove_old() == []


def test_after_a_restart_only_a_newer_unfinished_snapshot_is_kept(
    files: MemoryFileSystem,
) -> None:
    directory = open_directory(files)
    take(directory, files, taken(10))
    send(directory, taken(11), until=100)
    take(directory, files, taken(12))
    directory = open_directory(files)
    assert directory.receiving is None
    assert len(names(files)) == 2
    # Two of them, as when a crash undoes the renaming of the dropped one.
    directory.begin_receiving(taken(13).id)
    other = directory.received_path(taken(13).id)
    directory.begin_receiving(taken(14).id)
    files.replace(other, taken(13).content)
    directory = open_directory(files)
    assert directory.receiving == taken(14).id
    assert other.name not in names(files)


def test_publishing_what_was_not_synced_is_a_bug_of_the_caller(files: MemoryFileSystem) -> None:
    directory = open_directory(files)
    snapshot = taken(10)
    send(directory, snapshot, until=len(snapshot.content) - 1)
    directory.sync_received()
    with pytest.raises(AssertionError, match="synced"):
        directory.publish_received(snapshot.id)
    send(directory, snapshot)
    with pytest.raises(AssertionError, match="synced"):
        directory.publish_received(snapshot.id)
    directory.sync_received()
    directory.publish_received(snapshot.id)


def test_a_file_that_is_not_what_was_announced_is_not_published(files: MemoryFileSystem) -> None:
    directory = open_directory(files)
    snapshot = taken(10)
    for wrong in (
        attrs.evolve(snapshot.id, last_included_index=11),
        attrs.evolve(snapshot.id, last_included_term=3),
        attrs.evolve(snapshot.id, checksum="0" * 32),
        attrs.evolve(snapshot.id, size_bytes=snapshot.id.size_bytes - 1),
    ):
        send(directory, Taken(wrong, snapshot.content[: wrong.size_bytes]))
        directory.sync_received()
        with pytest.raises(CorruptSnapshot):
            directory.publish_received(wrong)
        assert directory.latest is None
        assert directory.receiving == wrong
    install(directory, files, snapshot)


@pytest.mark.parametrize(
    "change",
    [
        {"last_included_index": 0},
        {"last_included_index": 1 << 63},
        {"last_included_term": 0},
        {"last_included_term": -1},
        {"size_bytes": 41},
        {"size_bytes": 1 << 64},
        {"checksum": ""},
        {"checksum": "../../../../../../../etc/passwd/"},
        {"checksum": "A" * 32},
        {"checksum": "0" * 33},
        {"checksum": "0" * 32 + "\n"},
    ],
)
def test_an_id_that_no_snapshot_has_is_refused(
    files: MemoryFileSystem, change: dict[str, object]
) -> None:
    directory = open_directory(files)
    send(directory, taken(10), until=100)
    calls = len(files.calls)
    with pytest.raises(ValueError, match="announced"):
        directory.begin_receiving(attrs.evolve(taken(11).id, **change))  # type: ignore[arg-type]
    assert directory.receiving == taken(10).id
    assert len(files.calls) == calls


def test_the_largest_id_has_a_file_name_that_is_found_again(files: MemoryFileSystem) -> None:
    directory = open_directory(files)
    largest = SnapshotId(
        last_included_index=(1 << 63) - 1,
        last_included_term=(1 << 63) - 1,
        size_bytes=(1 << 63) - 1,
        checksum="f" * 32,
    )
    directory.begin_receiving(largest)
    assert open_directory(files).receiving == largest
    snapshot = taken((1 << 63) - 1, term=(1 << 63) - 1)
    take(directory, files, snapshot)
    latest = open_directory(files).latest
    assert latest is not None
    assert latest.id == snapshot.id


# --- the thread that syncs ---------------------------------------------------------------------


class _SlowSync(MemoryFileSystem):
    """Syncs of files wait for somebody's permission, and closed files are noted."""

    def __init__(self) -> None:
        super().__init__()
        self.is_slow = False
        self.begun = threading.Event()
        self.may_end = threading.Event()
        self.closed: list[str] = []

    def create(self, path: Path) -> OpenFile:
        return _SlowFile(self, path, super().create(path))


@attrs.define
class _SlowFile:
    files: _SlowSync
    path: Path
    file: OpenFile

    def write(self, content: bytes, offset: int) -> None:
        self.file.write(content, offset)

    def sync(self) -> None:
        if self.files.is_slow:
            self.files.begun.set()
            assert self.files.may_end.wait(30)
        # Fails if it was closed.
        self.file.sync()

    def truncate(self, size_bytes: int) -> None:
        self.file.truncate(size_bytes)

    def close(self) -> None:
        self.files.closed.append(self.path.name)
        self.file.close()


def while_syncing(
    files: _SlowSync, directory: SnapshotDirectory, action: Callable[[], object]
) -> None:
    """Do `action` while another thread is in the middle of a sync."""
    raised: list[BaseException] = []

    def sync() -> None:
        try:
            directory.sync_received()
        except BaseException as error:
            raised.append(error)

    files.is_slow = True
    thread = threading.Thread(target=sync)
    thread.start()
    assert files.begun.wait(30)
    action()
    files.may_end.set()
    thread.join()
    files.is_slow = False
    assert raised == []


def test_what_arrives_during_a_sync_is_not_taken_for_synced() -> None:
    files = _SlowSync()
    directory = open_directory(files)
    snapshot = taken(10)
    send(directory, snapshot, until=100)
    while_syncing(files, directory, lambda: send(directory, snapshot))
    with pytest.raises(AssertionError, match="synced"):
        directory.publish_received(snapshot.id)
    directory.sync_received()
    directory.publish_received(snapshot.id)
    assert len(files.closed) == 1


def test_a_file_that_is_dropped_during_a_sync_is_closed_after_it() -> None:
    files = _SlowSync()
    directory = open_directory(files)
    send(directory, taken(10), until=100)
    closed: list[str] = []

    def drop() -> None:
        directory.begin_receiving(taken(11).id)
        closed.extend(files.closed)

    while_syncing(files, directory, drop)
    assert closed == []
    assert len(files.closed) == 1
    install(directory, files, taken(11))
    assert len(files.closed) == 2


# --- crashes and faults ------------------------------------------------------------------------

SCRIPT = tuple(range(10, 19))
"""Indexes of the snapshots that the script takes, receives or drops, and of some later ones."""


@pytest.fixture(scope="module")
def script_snapshots() -> dict[int, Taken]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(snapshot_file, "BLOCK_BYTES", 100)
        return {index: taken(index) for index in SCRIPT}


def run_script(files: MemoryFileSystem, known: dict[int, Taken], published: list[int]) -> None:
    """Take, receive, drop and remove; note the index of each snapshot once it is published."""
    directory = SnapshotDirectory(PATH, files)
    try:
        directory.open()
        take(directory, files, known[10])
        published.append(10)
        send(directory, known[13], until=600)
        directory.sync_received()
        take(directory, files, known[12])
        published.append(12)
        unlink_in_order(files, directory.remove_old())
        install(directory, files, known[13])
        published.append(13)
        send(directory, known[14], until=650)
        directory.begin_receiving(known[15].id)
        unlink_in_order(files, directory.remove_old())
        install(directory, files, known[15])
        published.append(15)
        write_temporary(directory, files, known[16])
        unlink_in_order(files, directory.remove_old())
    finally:
        directory.close()


def check_disk(files: MemoryFileSystem, known: dict[int, Taken], published: list[int]) -> None:
    """Check that everything published is here, and that the server can go on."""
    directory = open_directory(files)
    latest = directory.latest
    index = SCRIPT[0] - 1 if latest is None else latest.id.last_included_index
    assert index >= max(published, default=0)
    if latest is not None:
        assert latest.id == known[index].id
        assert files.read(directory.path_of(latest.id)) == known[index].content
    unlink_in_order(files, directory.remove_old())
    unfinished = directory.receiving
    if unfinished is not None:
        index = unfinished.last_included_index
        here = directory.begin_receiving(unfinished)
        path = directory.received_path(unfinished)
        assert files.read(path) == known[index].content[:here]
    assert len(names(files)) == (latest is not None) + (unfinished is not None)
    last = known[index if unfinished is not None else index + 1]
    install(directory, files, last)
    directory.close()
    survivor = power_loss(files)
    directory = open_directory(survivor)
    assert survivor.read(directory.path_of(last.id)) == last.content
    directory.close()


def calls_of_the_script(known: dict[int, Taken]) -> int:
    files, published = MemoryFileSystem(), list[int]()
    run_script(files, known, published)
    assert published == [10, 12, 13, 15]
    return len(files.calls)


def test_a_crash_at_any_call_leaves_a_state_that_opens_and_goes_on(
    script_snapshots: dict[int, Taken],
) -> None:
    calls = calls_of_the_script(script_snapshots)
    assert calls > 40
    for crash_at in range(1, calls + 1):
        files, published = MemoryFileSystem(crash_at=crash_at), list[int]()
        with pytest.raises(Crash):
            run_script(files, script_snapshots, published)
        for survivor in files.survivors(Random(crash_at)):
            check_disk(survivor, script_snapshots, published)


def test_a_crash_while_the_server_starts_again_loses_nothing(
    script_snapshots: dict[int, Taken],
) -> None:
    for crash_at in range(1, calls_of_the_script(script_snapshots) + 1, 3):
        files, published = MemoryFileSystem(crash_at=crash_at), list[int]()
        with pytest.raises(Crash):
            run_script(files, script_snapshots, published)
        random = Random(crash_at)
        for second_crash_at in range(1, 30):
            survivor = files.after_crash(random)
            survivor.crash_at = second_crash_at
            try:
                check_disk(survivor, script_snapshots, published)
            except Crash:
                check_disk(survivor.after_crash(random), script_snapshots, published)


def test_a_fault_at_any_call_and_a_restart_lose_nothing_published(
    script_snapshots: dict[int, Taken],
) -> None:
    for fail_at in range(1, calls_of_the_script(script_snapshots) + 1):
        files, published = MemoryFileSystem(fail_at=fail_at), list[int]()
        with pytest.raises(StorageFault):
            run_script(files, script_snapshots, published)
        files.fail_at = 0
        check_disk(files, script_snapshots, published)


def test_the_same_happens_on_a_real_disk(
    script_snapshots: dict[int, Taken], tmp_path: Path
) -> None:
    files, path = OsFileSystem(), tmp_path / "a" / "snapshots"
    directory = open_directory(files, path)
    take(directory, files, script_snapshots[10])
    send(directory, script_snapshots[11], until=600)
    directory.close()
    (path / "left.tmp").touch()
    directory = open_directory(files, path)
    assert 0 < directory.begin_receiving(script_snapshots[11].id) < 600
    send(directory, script_snapshots[12], until=100)
    send(directory, script_snapshots[11])
    install(directory, files, script_snapshots[11])
    assert len(files.names(path)) == 4
    unlink_in_order(files, directory.remove_old())
    assert files.names(path) == [directory.path_of(script_snapshots[11].id).name]
    assert directory.read(script_snapshots[11].id, 3, 9) == script_snapshots[11].content[3:12]
    directory.close()
