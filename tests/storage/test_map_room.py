"""There is room on the disk for every page before LMDB writes to it through the map.

Where there is not, the process ends with SIGBUS: what might go so far is done in one of its own.
"""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from random import Random

import lmdb
import pytest

from raftd.storage import map_room
from raftd.storage.files import StorageFault
from raftd.storage.lmdb_store import DATABASE_FILE, LOAD_TRANSACTION_BYTES, LmdbStore
from raftd.storage.map_room import (
    APPEND_FACTOR,
    GROWTH_BYTES_MAX,
    GROWTH_BYTES_MIN,
    MapRoom,
    longest_file_bytes,
)
from raftd.storage.store import STORE_KEY_BYTES_MAX
from tests.cluster.failing_disk import mount_small_disk
from tests.storage.stores import contents

MEBIBYTE = 1024 * 1024
SMALL_DISK_BYTES = 16 * MEBIBYTE


def file_bytes(store: LmdbStore) -> int:
    return (store.path / DATABASE_FILE).stat().st_size


def disk_bytes(store: LmdbStore) -> int:
    return (store.path / DATABASE_FILE).stat().st_blocks * 512


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LmdbStore]:
    store = LmdbStore.open(tmp_path / "db")
    yield store
    store.close()


# --- in processes of their own ------------------------------------------------------------------


class Reckoned(MapRoom):
    """Compares what it has reckoned with what LMDB has taken."""

    def latest_end_bytes(self) -> int:
        taken_bytes = self._used_bytes() + self._taken_bytes()
        return taken_bytes + self._free_list_bytes(taken_bytes)


def change(store: LmdbStore, work: Callable[[], object]) -> None:
    room = store._room
    assert isinstance(room, Reckoned)
    with store.transaction():
        work()
        latest_end_bytes = room.latest_end_bytes()
    assert store.file_bytes <= latest_end_bytes
    assert store.file_bytes <= file_bytes(store)


def any_key(random: Random) -> bytes:
    return random.choice(
        (
            b"%d" % random.randrange(5000),
            random.randbytes(random.randrange(1, STORE_KEY_BYTES_MAX + 1)),
            bytes(random.randrange(1, 500)) + random.randbytes(8),
        )
    )


def any_value(random: Random) -> bytes:
    size = random.choice((0, 1, 10, 10, 100, 100, 1000, 2000, 3000, 5000, 50_000))
    return bytes(size) if size < 5000 or random.random() < 0.1 else b""


def all_kinds_of_transactions(directory: Path, seed: int) -> None:
    random = Random(seed)
    store = LmdbStore.open(directory)
    reading: Iterator[object] | None = None
    for _ in range(150):
        count = random.choice((1, 1, 10, 100, 1000))
        kind = random.randrange(6)
        if kind < 2:
            pairs = [(any_key(random), any_value(random)) for _ in range(count)]
            change(store, lambda pairs=pairs: [store.put(*pair) for pair in pairs])
        elif kind < 4:
            found = store.scan(any_key(random), b"\xff" * STORE_KEY_BYTES_MAX, count)
            change(store, lambda found=found: [store.delete(key) for key, _ in found])
        elif kind == 4:
            key = any_key(random)
            change(store, lambda key=key: [store.put(key, bytes(MEBIBYTE)) for _ in range(4)])
        else:
            keys = [random.randbytes(3) for _ in range(20 * count)]
            change(store, lambda keys=keys: [store.put(key, b"") for key in keys])
        # Now and then somebody reads for long, so that nothing becomes free, and then very much.
        if random.random() < 0.1 and reading is None:
            reading = store.pairs()
            next(reading, None)
        elif random.random() < 0.1:
            reading = None
    del reading
    store.close()


def all_kinds_of_loads(directory: Path, seed: int) -> None:
    random = Random(seed)
    kinds: list[tuple[int, Callable[[int], tuple[bytes, bytes]]]] = [
        (200_000, lambda number: (b"%06d" % number, b"")),
        (20_000, lambda number: (b"%06d" % number + bytes(500), b"")),
        (8_000, lambda number: (b"%06d" % number, bytes(2030))),
        (8_000, lambda number: (b"%06d" % number, bytes(2040))),
        (4_000, lambda number: (b"%06d" % number, bytes(4090))),
        (20, lambda number: (b"%06d" % number, bytes(MEBIBYTE))),
        (20_000, lambda number: (b"%06d" % number, any_value(random))),
    ]
    for name, (count, pair) in enumerate(kinds):
        store = LmdbStore.open(directory / str(name))
        lists = ([pair(at) for at in range(first, first + 20)] for first in range(0, count, 20))
        assert store.load(lists, durable=False) == count
        # What was loaded last may have made room for more than it took.
        spare_bytes = file_bytes(store) - store.file_bytes
        assert 0 <= spare_bytes <= GROWTH_BYTES_MAX + APPEND_FACTOR * 2 * LOAD_TRANSACTION_BYTES
        store.close()


def fill_a_small_disk(directory: Path, seed: int) -> None:
    try:
        mount_small_disk(directory, SMALL_DISK_BYTES)
    except OSError:
        # Where that is not allowed, files end instead of the disk.
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (SMALL_DISK_BYTES, SMALL_DISK_BYTES))
    for pair_bytes in (100, 3_000, 300_000):
        store = LmdbStore.open(directory / "db")
        number = before = store.pair_count
        with suppress(StorageFault):
            while True:
                with store.transaction():
                    for _ in range(1 + 100_000 // pair_bytes):
                        store.put(b"%d-%d" % (pair_bytes, number), bytes(pair_bytes))
                        number += 1
        assert number - before > 1
        found = contents(store)
        assert 0 < len(found) == store.pair_count <= number
        store.close()
        store = LmdbStore.open(directory / "db")
        assert contents(store) == found
        with suppress(StorageFault), store.transaction():
            for key, _ in found:
                store.delete(key)
        store.close()
        for path in (directory / "db").iterdir():
            path.unlink()


@pytest.mark.parametrize(
    "work",
    [all_kinds_of_transactions, all_kinds_of_loads, fill_a_small_disk],
    ids=lambda work: work.__name__,
)
def test_no_page_is_written_that_is_not_there(
    tmp_path: Path, work: Callable[[Path, int], None]
) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", __name__, work.__name__, str(tmp_path / "disk")],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout


# --- in this one --------------------------------------------------------------------------------


class Disk:
    """Counts what is allocated, and refuses it when it is full."""

    def __init__(self) -> None:
        self.allocated: list[tuple[int, int]] = []
        self.free_bytes = 1 << 60

    def posix_fallocate(self, descriptor: int, start: int, size_bytes: int) -> None:
        if size_bytes > self.free_bytes:
            # As ext4 does it: what there was is taken all the same.
            taken_bytes = max(os.fstat(descriptor).st_size, start + self.free_bytes)
            os.ftruncate(descriptor, taken_bytes)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.ftruncate(descriptor, start + size_bytes)
        self.free_bytes -= size_bytes
        self.allocated.append((start, start + size_bytes))


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    disk = Disk()
    monkeypatch.setattr(map_room.os, "posix_fallocate", disk.posix_fallocate)
    return disk


def put(store: LmdbStore, number: int, value: bytes) -> None:
    with store.transaction():
        store.put(b"%06d" % number, value)


def test_a_new_database_is_small(store: LmdbStore) -> None:
    assert file_bytes(store) <= 4 * 4096
    for number in range(100):
        put(store, number, bytes(100))
    assert file_bytes(store) <= 2 * GROWTH_BYTES_MIN


def test_room_is_allocated_and_not_only_in_the_length_of_the_file(store: LmdbStore) -> None:
    put(store, 1, b"")
    assert disk_bytes(store) >= GROWTH_BYTES_MIN // 2
    with store.transaction():
        store.put(b"long", bytes(10 * MEBIBYTE))
        assert disk_bytes(store) >= 10 * MEBIBYTE


def test_the_file_grows_in_steps_without_gaps_that_become_longer(
    disk: Disk, store: LmdbStore
) -> None:
    for number in range(400):
        put(store, number, bytes(100_000))
    assert 5 < len(disk.allocated) < 50
    assert disk.allocated[0][0] == 0
    for (_, end), (start, _) in zip(disk.allocated, disk.allocated[1:], strict=False):
        assert start == end
    assert disk.allocated[-1][1] == file_bytes(store) <= 1.5 * store.file_bytes


def test_a_file_stays_as_long_as_it_is_while_pages_are_used_again(
    disk: Disk, store: LmdbStore
) -> None:
    for _ in range(3):
        for number in range(50):
            put(store, number, bytes(1000))
    disk.free_bytes = 0
    for _ in range(20):
        for number in range(50):
            put(store, number, bytes(1000))


def test_holes_of_an_old_file_are_filled_before_it_is_written(disk: Disk, store: LmdbStore) -> None:
    put(store, 1, bytes(MEBIBYTE))
    used_bytes = store.file_bytes
    store.close()
    disk.allocated.clear()
    again = LmdbStore.open(store.path)
    assert not disk.allocated
    put(again, 2, b"")
    start, end = disk.allocated[0]
    assert start == 0
    assert end > used_bytes
    again.close()


def test_a_full_disk_is_a_fault_before_anything_is_written(disk: Disk, store: LmdbStore) -> None:
    put(store, 1, b"1")
    disk.free_bytes = GROWTH_BYTES_MIN
    with store.transaction():
        store.put(b"000001", b"2")
    with pytest.raises(StorageFault, match="writing failed: No space left on device"):
        put(store, 1, bytes(8 * MEBIBYTE))
    assert contents(store) == [(b"000001", b"2")]
    assert os.stat(store.path / DATABASE_FILE).st_size == disk.allocated[-1][1]


def test_a_full_disk_is_a_fault_where_a_transaction_begins(disk: Disk, store: LmdbStore) -> None:
    disk.free_bytes = 0
    with pytest.raises(StorageFault, match="beginning to write failed: No space left on device"):
        put(store, 1, b"1")
    assert contents(store) == []
    disk.free_bytes = 1 << 30
    put(store, 1, b"1")
    assert contents(store) == [(b"000001", b"1")]


def test_a_database_opens_and_is_read_on_a_full_disk(disk: Disk, store: LmdbStore) -> None:
    put(store, 1, b"1")
    store.close()
    disk.free_bytes = 0
    again = LmdbStore.open(store.path)
    assert contents(again) == [(b"000001", b"1")]
    again.close()


def test_the_last_room_of_a_disk_is_used_although_it_is_less_than_a_step(
    disk: Disk, store: LmdbStore
) -> None:
    put(store, 1, b"1")
    disk.free_bytes = 3 * MEBIBYTE
    with suppress(StorageFault):
        for number in range(10_000):
            put(store, number, bytes(1000))
    assert disk.free_bytes < 64 * 1024


def test_a_transaction_that_is_given_up_leaves_its_room_to_the_next_one(
    disk: Disk, store: LmdbStore
) -> None:
    with suppress(KeyError), store.transaction():
        store.put(b"long", bytes(8 * MEBIBYTE))
        raise KeyError
    assert store.pair_count == 0
    disk.free_bytes = 0
    with store.transaction():
        store.put(b"long", bytes(8 * MEBIBYTE))


@pytest.mark.parametrize("longest_mebibytes", [64, 3])
def test_a_map_is_as_long_as_a_file_may_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, longest_mebibytes: int
) -> None:
    truncate = os.ftruncate
    longest_bytes = longest_mebibytes * MEBIBYTE

    def refusing(descriptor: int, size_bytes: int) -> None:
        if size_bytes > longest_bytes:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        truncate(descriptor, size_bytes)

    path = tmp_path / "file"
    path.write_bytes(b"12345")
    monkeypatch.setattr(map_room.os, "ftruncate", refusing)
    found_bytes = longest_file_bytes(path, 1 << 40, 5)
    assert longest_bytes // 2 < found_bytes <= longest_bytes
    assert path.read_bytes() == b"12345"


def test_sync_of_a_map_that_goes_far_beyond_its_file_is_no_fault(store: LmdbStore) -> None:
    put(store, 1, bytes(MEBIBYTE))
    store.sync()
    info = lmdb.Environment.info(store._environment)
    assert info["map_size"] > 1000 * file_bytes(store)


def main() -> None:
    """Do what the name in the first argument says in the directory of the second one."""
    name, directory = sys.argv[1:]
    Path(directory).mkdir()
    from raftd.storage import lmdb_store

    lmdb_store.MapRoom = Reckoned
    globals()[name](Path(directory), 1)


if __name__ == "__main__":
    main()
