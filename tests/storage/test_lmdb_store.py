"""What a store in LMDB adds to the contract of a store: files, processes and full disks."""

from __future__ import annotations

import os
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lmdb
import pytest

from raftd.storage import lmdb_store
from raftd.storage.files import StorageFault
from raftd.storage.lmdb_store import (
    DATABASE_FILE,
    LOAD_TRANSACTION_BYTES,
    PAIRS_BYTES,
    DamagedDatabase,
    LmdbStore,
)
from tests.storage.stores import contents, lmdb_stores

NewLmdbStore = Callable[[], LmdbStore]
PAGE_BYTES = 4096
MEBIBYTE = 1024 * 1024


@pytest.fixture
def new_lmdb_store(tmp_path: Path) -> Iterator[NewLmdbStore]:
    with lmdb_stores(tmp_path / "stores") as new_store:
        yield new_store


def put_all(store: LmdbStore, pairs: dict[bytes, bytes]) -> None:
    with store.transaction():
        for key, value in pairs.items():
            store.put(key, value)


def file_of(store: LmdbStore) -> Path:
    return store.path / DATABASE_FILE


def overwrite(store: LmdbStore, times: int) -> None:
    for number in range(times):
        put_all(store, {b"k%d" % key: b"%d" % number * 100 for key in range(20)})


@contextmanager
def python(script: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """Run `script` in another process, which ends with the block."""
    process = subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def say_go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


def test_a_store_is_found_again_as_it_was_closed(tmp_path: Path) -> None:
    store = LmdbStore.open(tmp_path / "db")
    put_all(store, {b"a": b"1", b"b": b""})
    store.close()
    store.close()
    store = LmdbStore.open(tmp_path / "db")
    assert contents(store) == [(b"a", b"1"), (b"b", b"")]
    store.close()


KILLED_IN_A_TRANSACTION = """
import os, signal, sys
from pathlib import Path
from raftd.storage.lmdb_store import LmdbStore
store = LmdbStore.open(Path(sys.argv[1]))
with store.transaction():
    store.put(b"committed", b"1")
with store.transaction():
    store.put(b"committed", b"2")
    for number in range(20):
        store.put(b"begun %d" % number, bytes(1024 * 1024))
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_was_committed_survives_a_process_that_is_killed_and_nothing_else_does(
    tmp_path: Path,
) -> None:
    with python(KILLED_IN_A_TRANSACTION, tmp_path / "db") as process:
        assert process.wait(timeout=60) == -signal.SIGKILL
    store = LmdbStore.open(tmp_path / "db")
    assert contents(store) == [(b"committed", b"1")]
    # What the transaction had made room for is given back.
    assert file_of(store).stat().st_size < 4 * MEBIBYTE
    put_all(store, {b"written": b"2"})
    store.close()
    store = LmdbStore.open(tmp_path / "db")
    assert contents(store) == [(b"committed", b"1"), (b"written", b"2")]
    store.close()


COMMITS_WITHOUT_END = """
import sys
from pathlib import Path
from raftd.storage.lmdb_store import LmdbStore
store = LmdbStore.open(Path(sys.argv[1]))
number = 0
while True:
    number += 1
    with store.transaction():
        for key in range(50):
            store.put(b"%d" % (number * 7919 * key % 10_000), b"%d" % number * 50)
        store.put(b"number", b"%d" % number)
        store.put(b"same", b"%d" % number)
    if number % 100 == 0:
        print(number, flush=True)
"""


def test_a_process_that_is_killed_at_any_moment_leaves_whole_transactions(tmp_path: Path) -> None:
    for times in (1, 3):
        with python(COMMITS_WITHOUT_END, tmp_path / "db") as process:
            said = [int(line_of(process)) for _ in range(times)]
            process.kill()
        store = LmdbStore.open(tmp_path / "db")
        number = store.get(b"number")
        assert number is not None
        assert int(number) >= said[-1]
        assert store.get(b"same") == number
        assert len(contents(store)) == store.pair_count
        store.close()


def test_reads_keep_no_page_from_being_used_again(new_lmdb_store: NewLmdbStore) -> None:
    store = new_lmdb_store()
    overwrite(store, 10)
    assert store.get(b"k1") is not None
    assert store.scan(b"k", b"l", 5) != []
    pairs = store.pairs()
    next(pairs)
    pairs.close()
    before = store.file_bytes
    overwrite(store, 100)
    assert store.file_bytes <= before + 10 * PAGE_BYTES


READS_IN_A_VIEW = """
import sys
from pathlib import Path
from raftd.storage.lmdb_store import LmdbStore
store = LmdbStore.open(Path(sys.argv[1]), read_only=True)
with store.view():
    print("view", flush=True)
    sys.stdin.readline()
    print(store.get(b"a"), [pair for pairs in store.pairs() for pair in pairs], flush=True)
print(store.get(b"a"), store.scan(b"a", b"z", 10), flush=True)
sys.stdin.readline()
store.close()
"""


def test_a_view_in_another_process_stays_while_the_store_is_written(tmp_path: Path) -> None:
    store = LmdbStore.open(tmp_path / "db")
    put_all(store, {b"a": b"old"})
    with python(READS_IN_A_VIEW, store.path) as process:
        assert line_of(process) == "view"
        put_all(store, {b"a": b"new", b"b": b"new"})
        say_go(process)
        assert line_of(process) == "b'old' [(b'a', b'old')]"
        assert line_of(process) == "b'new' [(b'a', b'new'), (b'b', b'new')]"
    store.close()


def test_a_view_in_another_process_stays_while_the_file_gets_longer(tmp_path: Path) -> None:
    store = LmdbStore.open(tmp_path / "db")
    put_all(store, {b"a": b"old"})
    before = file_of(store).stat().st_size
    with python(READS_IN_A_VIEW, store.path) as process:
        assert line_of(process) == "view"
        for number in range(20):
            put_all(store, {b"zz%02d" % number: bytes(MEBIBYTE)})
        put_all(store, {b"a": b"new", b"y": b"after all that"})
        assert file_of(store).stat().st_size > before + 20 * MEBIBYTE
        say_go(process)
        assert line_of(process) == "b'old' [(b'a', b'old')]"
        assert line_of(process) == "b'new' [(b'a', b'new'), (b'y', b'after all that')]"
    store.close()


def test_pairs_that_are_being_read_stay_while_the_file_gets_longer(
    new_lmdb_store: NewLmdbStore,
) -> None:
    store = new_lmdb_store()
    put_all(store, {b"%d" % number: bytes(PAIRS_BYTES) for number in range(3)})
    before = contents(store)
    pairs = store.pairs()
    found = next(pairs)
    for number in range(20):
        put_all(store, {b"%d" % number: b"%d" % number * MEBIBYTE})
    assert [*found, *(pair for more in pairs for pair in more)] == before


FORMER_OPTIONS: dict[str, Any] = {"map_size": 1 << 40, "sync": False, "metasync": False}
"""Of a release that wrote with system calls, and made the file no longer than its pages."""


def test_a_database_of_a_release_that_did_not_write_through_the_map_is_read_and_written(
    tmp_path: Path,
) -> None:
    directory = tmp_path / "db"
    pairs = [(b"%04d" % number, b"%d" % number * 100) for number in range(1000)]
    with (
        lmdb.open(str(directory), **FORMER_OPTIONS) as environment,
        environment.begin(write=True) as transaction,
    ):
        transaction.cursor().putmulti(pairs)
    store = LmdbStore.open(directory)
    assert contents(store) == pairs
    put_all(store, {b"new": bytes(5 * MEBIBYTE)})
    store.sync()
    store.close()
    # And the other way round.
    with lmdb.open(str(directory), **FORMER_OPTIONS) as environment:
        with environment.begin(write=True) as transaction:
            assert transaction.stat(environment.open_db())["entries"] == len(pairs) + 1
            assert transaction.delete(b"new")
        size_bytes = (directory / DATABASE_FILE).stat().st_size
        assert size_bytes >= (environment.info()["last_pgno"] + 1) * PAGE_BYTES
    store = LmdbStore.open(directory)
    assert contents(store) == pairs
    store.close()


def test_a_file_that_was_left_as_long_as_the_map_is_cut(tmp_path: Path) -> None:
    """As by a process that was killed while it opened it."""
    store = LmdbStore.open(tmp_path / "db")
    put_all(store, {b"a": b"1"})
    store.close()
    os.truncate(file_of(store), lmdb_store.MAP_BYTES)
    store = LmdbStore.open(tmp_path / "db")
    assert file_of(store).stat().st_size < 4 * MEBIBYTE
    assert contents(store) == [(b"a", b"1")]
    store.close()


def test_a_file_that_ends_before_its_last_page_is_damaged_and_stays_as_it_is(
    tmp_path: Path,
) -> None:
    store = LmdbStore.open(tmp_path / "db")
    put_all(store, {b"%d" % number: bytes(1000) for number in range(1000)})
    store.close()
    left_bytes = 100 * PAGE_BYTES
    os.truncate(file_of(store), left_bytes)
    with pytest.raises(DamagedDatabase, match=f"{left_bytes} bytes are there of"):
        LmdbStore.open(tmp_path / "db")
    assert file_of(store).stat().st_size == left_bytes


def test_a_reader_that_was_killed_keeps_pages_until_it_is_released(tmp_path: Path) -> None:
    store = LmdbStore.open(tmp_path / "db")
    overwrite(store, 10)
    with python(READS_IN_A_VIEW, store.path) as process:
        assert line_of(process) == "view"
    before = store.file_bytes
    overwrite(store, 100)
    kept = store.file_bytes
    assert kept > before + 50 * PAGE_BYTES
    assert store.release_dead_readers() == 1
    overwrite(store, 100)
    assert store.file_bytes == kept
    store.close()


def test_to_open_releases_the_readers_that_died_before(tmp_path: Path) -> None:
    store = LmdbStore.open(tmp_path / "db")
    with python(READS_IN_A_VIEW, store.path) as living:
        assert line_of(living) == "view"
        with python(READS_IN_A_VIEW, store.path) as dead:
            assert line_of(dead) == "view"
        store.close()
        store = LmdbStore.open(tmp_path / "db")
        assert store.release_dead_readers() == 0
        say_go(living)
        assert line_of(living) == "None []"
    store.close()


def test_a_view_sees_nothing_of_what_comes_later_and_forbids_to_write(
    new_lmdb_store: NewLmdbStore,
) -> None:
    store = new_lmdb_store()
    put_all(store, {b"a": b"1"})
    with store.view():
        with pytest.raises(AssertionError), store.transaction():
            pass
        with pytest.raises(AssertionError):
            store.put(b"a", b"2")
        assert store.get(b"a") == b"1"
    put_all(store, {b"a": b"2"})
    assert store.get(b"a") == b"2"


def test_pairs_are_all_in_order_and_in_bounded_lists(new_lmdb_store: NewLmdbStore) -> None:
    store = new_lmdb_store()
    long = bytes(3 * PAIRS_BYTES)
    put_all(store, {b"%06d" % number: bytes(100) for number in range(5000)})
    put_all(store, {b"000003x": long, b"z": long})
    lists = list(store.pairs())
    assert [pair for pairs in lists for pair in pairs] == contents(store)
    for pairs in lists:
        assert sum(len(key) + len(value) for key, value in pairs[:-1]) < PAIRS_BYTES
    # Two end with the long values, the pairs in between fill two more.
    assert len(lists) == 4


def test_an_empty_store_has_no_lists_of_pairs(new_lmdb_store: NewLmdbStore) -> None:
    assert list(new_lmdb_store().pairs()) == []


def test_pairs_are_those_of_the_beginning_while_the_store_is_written(
    new_lmdb_store: NewLmdbStore,
) -> None:
    store = new_lmdb_store()
    put_all(store, {b"%d" % number: bytes(PAIRS_BYTES) for number in range(3)})
    before = contents(store)
    pairs = store.pairs()
    found = next(pairs)
    put_all(store, {b"%d" % number: b"changed" for number in range(4)})
    assert store.get(b"1") == b"changed"
    assert [*found, *(pair for more in pairs for pair in more)] == before


def test_what_was_loaded_is_there_and_synced_piece_by_piece(
    new_lmdb_store: NewLmdbStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    value = bytes(LOAD_TRANSACTION_BYTES // 10)
    pairs = [(b"%04d" % number, value) for number in range(25)]
    store = new_lmdb_store()
    synced: list[int] = []
    sync = LmdbStore.sync

    def counting_sync(store: LmdbStore) -> None:
        sync(store)
        synced.append(store.pair_count)

    monkeypatch.setattr(LmdbStore, "sync", counting_sync)
    assert store.load(pairs[first : first + 2] for first in range(0, 25, 2)) == 25
    assert contents(store) == pairs
    assert synced == [10, 20, 25]


@pytest.mark.parametrize(
    "lists",
    [[[(b"b", b""), (b"a", b"")]], [[(b"b", b"")], [(b"a", b"")]], [[(b"a", b""), (b"a", b"")]]],
    ids=["in a list", "between lists", "twice"],
)
def test_to_load_keys_that_do_not_ascend_is_a_bug(
    new_lmdb_store: NewLmdbStore, lists: list[list[tuple[bytes, bytes]]]
) -> None:
    with pytest.raises(AssertionError):
        new_lmdb_store().load(lists)


def test_to_load_into_a_store_that_holds_something_is_a_bug(new_lmdb_store: NewLmdbStore) -> None:
    store = new_lmdb_store()
    put_all(store, {b"a": b"1"})
    with pytest.raises(AssertionError):
        store.load([[(b"b", b"")]])


def test_the_sizes_are_those_of_the_pairs_and_of_the_file(new_lmdb_store: NewLmdbStore) -> None:
    store = new_lmdb_store()
    assert (store.pair_count, store.size_bytes) == (0, 0)
    put_all(store, {b"%04d" % number: bytes(1000) for number in range(1000)})
    assert store.pair_count == 1000
    assert 1_000_000 < store.size_bytes < 2_000_000
    full = store.file_bytes
    assert store.size_bytes < full <= (store.path / DATABASE_FILE).stat().st_size
    with store.transaction():
        for number in range(1, 1000):
            store.delete(b"%04d" % number)
    assert (store.pair_count, store.size_bytes) == (1, PAGE_BYTES)
    assert store.file_bytes >= full


def test_a_full_map_is_a_fault_that_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lmdb_store, "MAP_BYTES", 64 * PAGE_BYTES)
    store = LmdbStore.open(tmp_path / "db")
    put_all(store, {b"a": b"1"})
    with pytest.raises(StorageFault, match=f"{store.path}.*MAP_FULL"):
        put_all(store, {b"a": b"2", b"b": bytes(100 * PAGE_BYTES)})
    assert contents(store) == [(b"a", b"1")]
    store.close()


@contextmanager
def files_up_to(size_bytes: int) -> Iterator[None]:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_write_that_the_disk_refuses_is_a_fault_that_changes_nothing(tmp_path: Path) -> None:
    store = LmdbStore.open(tmp_path / "db")
    put_all(store, {b"a": b"1"})
    with (
        files_up_to(8 * MEBIBYTE),
        pytest.raises(StorageFault, match=f"{store.path}.*writing") as fault,
    ):
        put_all(store, {b"a": b"2", b"b": bytes(10 * MEBIBYTE)})
    # Whatever the reason: whether the disk is full can be seen.
    assert re.search(r"\([0-9]+ bytes of the disk are free\)$", str(fault.value))
    assert contents(store) == [(b"a", b"1")]
    put_all(store, {b"b": bytes(10 * MEBIBYTE)})
    assert store.get(b"a") == b"1"
    store.close()


def test_a_file_system_that_takes_no_long_file_gives_a_shorter_map(tmp_path: Path) -> None:
    with files_up_to(64 * MEBIBYTE):
        for value in (b"1", b"2"):
            store = LmdbStore.open(tmp_path / "db")
            put_all(store, {value: value})
            store.close()
        store = LmdbStore.open(tmp_path / "db")
        put_all(store, {b"b": bytes(20 * MEBIBYTE)})
        with pytest.raises(StorageFault):
            put_all(store, {b"c": bytes(60 * MEBIBYTE)})
        assert [key for key, _ in contents(store)] == [b"1", b"2", b"b"]
        store.close()


class Panicking:
    """What is left of a database when its commit has failed in the midst of a meta page."""

    def begin(self) -> None:
        raise lmdb.PanicError("begin")


def test_a_store_that_a_failure_has_made_useless_still_says_what_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lmdb_store, "MAP_BYTES", 64 * PAGE_BYTES)
    store = LmdbStore.open(tmp_path / "db")
    with pytest.raises(StorageFault, match="writing failed") as first:
        put_all(store, {b"b": bytes(100 * PAGE_BYTES)})
    with monkeypatch.context() as patches:
        patches.setattr(store, "_environment", Panicking())
        with pytest.raises(StorageFault) as later:
            store.get(b"a")
    assert str(later.value) == str(first.value)
    store.close()


def test_a_database_that_is_missing_is_not_made_by_a_reader(tmp_path: Path) -> None:
    with pytest.raises(StorageFault, match=str(tmp_path / "db")):
        LmdbStore.open(tmp_path / "db", read_only=True)
    assert not (tmp_path / "db").exists()


def test_a_directory_that_cannot_be_made_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageFault, match=str(tmp_path / "file")):
        LmdbStore.open(tmp_path / "file" / "db")


@pytest.mark.parametrize("content", [b"x", b"x" * 3 * PAGE_BYTES], ids=["short", "long"])
def test_a_file_that_is_no_database_is_damaged(tmp_path: Path, content: bytes) -> None:
    (tmp_path / DATABASE_FILE).write_bytes(content)
    with pytest.raises(DamagedDatabase, match=str(tmp_path)):
        LmdbStore.open(tmp_path)


def test_to_use_a_closed_store_is_a_bug(new_lmdb_store: NewLmdbStore) -> None:
    store = new_lmdb_store()
    store.close()
    with pytest.raises(AssertionError):
        store.get(b"k")
