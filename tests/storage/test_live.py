"""The live database is used again if it is certain to be whole, and else thrown away."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from raftd.storage import live as live_module
from raftd.storage.files import FileSystem, OpenFile, OsFileSystem, StorageFault
from raftd.storage.live import (
    BUILDING_PREFIX,
    LIVE_DIRECTORY,
    OLD_PREFIX,
    PROOF_FILE,
    LiveState,
    default_boot_id,
)
from raftd.storage.lmdb_store import DATABASE_FILE, LmdbStore
from tests.storage.stores import contents

HERE = [(b"a", b"1")]


class Crash(BaseException):
    """The process was killed. Not an Exception: nothing may handle it."""


class Machine:
    """A machine with one data directory, whose servers are killed and which is booted again."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory / "data" / "state"
        self.boot_id = "boot-1"
        self.stores: list[LmdbStore] = []
        """All that were handed out, to be closed at the end."""

    @property
    def live_path(self) -> Path:
        return self.directory / LIVE_DIRECTORY

    @property
    def proof_path(self) -> Path:
        return self.live_path / PROOF_FILE

    def start(self, files: FileSystem | None = None) -> LiveState:
        """Start a server; the one before was killed."""
        self.kill()
        return LiveState(self.directory, lambda: self.boot_id, files)

    def open(self) -> list[tuple[bytes, bytes]] | None:
        """Start a server and return what it finds."""
        store = self.keep(self.start().open_proven())
        return None if store is None else contents(store)

    def keep(self, store: LmdbStore | None) -> LmdbStore | None:
        if store is not None:
            self.stores.append(store)
        return store

    def create(self) -> LiveState:
        """Start a server with a new database that holds `HERE`."""
        live = self.start()
        put(self.keep(live.create()))
        return live

    def build(self, live: LiveState, pairs: list[tuple[bytes, bytes]]) -> Path:
        path = live.building_path()
        store = LmdbStore.open(path)
        store.load([pairs])
        store.close()
        return path

    def kill(self) -> None:
        # Closing changes nothing in the files; a killed process leaves them just so.
        while self.stores:
            self.stores.pop().close()

    def names(self) -> list[str]:
        return sorted(os.listdir(self.directory))


class FaultyFiles(OsFileSystem):
    """The real disk, until the call number `at`: it is not done, and `fault` is raised.

    Calls that change nothing are not counted.
    """

    def __init__(self, at: int, fault: BaseException) -> None:
        self.calls: list[str] = []
        self._at = at
        self._fault = fault

    def count(self, call: str) -> None:
        self.calls.append(call)
        if len(self.calls) == self._at:
            raise self._fault

    def make_directory(self, path: Path) -> None:
        self.count(f"make {path.name}")
        super().make_directory(path)

    def create(self, path: Path) -> OpenFile:
        self.count(f"create {path.name}")
        return FaultyFile(self, super().create(path))

    def rename(self, source: Path, target: Path) -> None:
        self.count(f"rename {source.name} {target.name}")
        super().rename(source, target)

    def unlink(self, path: Path) -> None:
        self.count(f"unlink {path.name}")
        super().unlink(path)

    def sync_directory(self, path: Path) -> None:
        self.count(f"sync directory {path.name}")
        super().sync_directory(path)


class FaultyFile:
    def __init__(self, files: FaultyFiles, file: OpenFile) -> None:
        self._files = files
        self._file = file

    def write(self, content: bytes, offset: int) -> None:
        self._files.count("write")
        self._file.write(content, offset)

    def sync(self) -> None:
        self._files.count("sync")
        self._file.sync()

    def truncate(self, size_bytes: int) -> None:
        self._files.count("truncate")
        self._file.truncate(size_bytes)

    def close(self) -> None:
        self._file.close()


def put(store: LmdbStore | None, pairs: list[tuple[bytes, bytes]] = HERE) -> None:
    assert store is not None
    with store.transaction():
        for key, value in pairs:
            store.put(key, value)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    machine = Machine(tmp_path)
    yield machine
    machine.kill()


def test_there_is_no_database_before_one_was_made(machine: Machine) -> None:
    assert machine.open() is None
    assert not machine.directory.exists()
    assert machine.start().leftovers() == []


def test_a_new_database_is_empty(machine: Machine) -> None:
    store = machine.keep(machine.start().create())
    assert store is not None
    assert contents(store) == []


def test_a_database_is_used_again_after_its_process_was_killed(machine: Machine) -> None:
    machine.create()
    assert machine.open() == HERE
    assert machine.open() == HERE
    assert machine.names() == [LIVE_DIRECTORY]


def test_a_database_is_not_used_again_after_the_power_failed(machine: Machine) -> None:
    machine.create()
    machine.boot_id = "boot-2"
    assert machine.open() is None
    assert not machine.live_path.exists()
    machine.boot_id = "boot-1"
    assert machine.open() is None


def test_a_database_is_used_again_after_a_clean_stop_and_a_boot(machine: Machine) -> None:
    live = machine.create()
    live.close_cleanly(machine.stores[-1])
    machine.boot_id = "boot-2"
    assert machine.open() == HERE
    assert machine.open() == HERE


def test_the_mark_of_a_clean_stop_is_used_up_by_the_next_start(machine: Machine) -> None:
    live = machine.create()
    live.close_cleanly(machine.stores[-1])
    machine.open()
    machine.boot_id = "boot-2"
    assert machine.open() is None


def test_a_clean_stop_syncs_and_closes_before_it_says_so(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def record(name: str) -> None:
        method: Callable[[LmdbStore], None] = getattr(LmdbStore, name)

        def recorded(store: LmdbStore) -> None:
            calls.append(f"{name} {'clean' in machine.proof_path.read_text()}")
            method(store)

        monkeypatch.setattr(LmdbStore, name, recorded)

    live = machine.create()
    store = machine.stores.pop()
    record("sync")
    record("close")
    live.close_cleanly(store)
    assert calls == ["sync False", "close False"]
    assert "clean" in machine.proof_path.read_text()


def test_a_database_that_could_not_be_synced_is_not_said_to_be_clean(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(store: LmdbStore) -> None:
        raise StorageFault("no")

    live = machine.create()
    monkeypatch.setattr(LmdbStore, "sync", fail)
    with pytest.raises(StorageFault):
        live.close_cleanly(machine.stores[-1])
    machine.boot_id = "boot-2"
    assert machine.open() is None


def test_an_empty_boot_id_proves_nothing(machine: Machine) -> None:
    machine.boot_id = ""
    machine.create()
    assert machine.open() is None


def test_a_clean_stop_proves_itself_also_where_there_is_no_boot_id(machine: Machine) -> None:
    machine.boot_id = ""
    live = machine.create()
    live.close_cleanly(machine.stores[-1])
    assert machine.open() == HERE
    assert machine.open() is None


@pytest.mark.parametrize(
    "proof",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[]",
        b"[" * 100_000,
        b'{"format": 1}',
        b'{"format": 1, "boot_id": "boot-1"}',
        b'{"format": 1, "boot_id": null, "device": 0, "inode": 0}',
        b'{"format": 1, "clean_file_bytes": true}',
        b'{"format": 2, "clean_file_bytes": 8192}',
    ],
)
def test_a_damaged_proof_proves_nothing(machine: Machine, proof: bytes) -> None:
    machine.create()
    machine.proof_path.write_bytes(proof)
    assert machine.open() is None


def test_a_proof_of_another_format_proves_nothing(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.create()
    monkeypatch.setattr(live_module, "PROOF_FORMAT", 2)
    assert machine.open() is None


def test_every_damage_of_one_byte_of_the_proof_is_noticed_or_means_the_same(
    machine: Machine,
) -> None:
    machine.create()
    machine.kill()
    good = machine.proof_path.read_bytes()
    for position in range(len(good)):
        damaged = bytearray(good)
        damaged[position] ^= 0x01
        machine.proof_path.write_bytes(damaged)
        is_used = machine.open() is not None
        machine.kill()
        if is_used:
            assert json.loads(damaged) == json.loads(good)
        else:
            (old,) = machine.start().leftovers()
            old.rename(machine.live_path)
    machine.proof_path.write_bytes(good)
    assert machine.open() == HERE


def test_a_copy_made_while_the_server_ran_proves_nothing(machine: Machine) -> None:
    machine.create()
    machine.kill()
    shutil.copytree(machine.live_path, machine.directory / "copy")
    shutil.rmtree(machine.live_path)
    (machine.directory / "copy").rename(machine.live_path)
    assert machine.open() is None


def test_a_copy_made_after_a_clean_stop_proves_itself(machine: Machine) -> None:
    machine.create().close_cleanly(machine.stores[-1])
    shutil.copytree(machine.live_path, machine.directory / "copy")
    shutil.rmtree(machine.live_path)
    (machine.directory / "copy").rename(machine.live_path)
    assert machine.open() == HERE


@pytest.mark.parametrize("is_clean", [True, False])
def test_a_database_that_was_cut_is_not_used(machine: Machine, is_clean: bool) -> None:
    live = machine.create()
    used_bytes = machine.stores[-1].file_bytes
    if is_clean:
        live.close_cleanly(machine.stores[-1])
    machine.kill()
    os.truncate(machine.live_path / DATABASE_FILE, used_bytes - 1)
    assert machine.open() is None


def test_a_database_is_used_again_that_has_no_room_behind_its_last_page(machine: Machine) -> None:
    machine.create()
    used_bytes = machine.stores[-1].file_bytes
    machine.kill()
    os.truncate(machine.live_path / DATABASE_FILE, used_bytes)
    assert machine.open() == HERE


def test_a_database_that_is_none_is_not_used(machine: Machine) -> None:
    machine.create()
    machine.kill()
    (machine.live_path / DATABASE_FILE).write_bytes(b"x" * 3 * 4096)
    assert machine.open() is None


def test_a_proof_without_a_database_proves_nothing(machine: Machine) -> None:
    machine.create()
    machine.kill()
    (machine.live_path / DATABASE_FILE).unlink()
    assert machine.open() is None


def test_a_distrusted_database_is_not_used_again_even_after_a_clean_stop(machine: Machine) -> None:
    live = machine.create()
    live.distrust()
    live.distrust()
    assert contents(machine.stores[-1]) == HERE
    live.close_cleanly(machine.stores[-1])
    assert machine.open() is None


def test_a_built_database_takes_the_place_of_the_live_one(machine: Machine) -> None:
    live = machine.create()
    built = machine.build(live, [(b"b", b"2")])
    store = machine.keep(live.adopt(built))
    assert store is not None
    assert contents(store) == [(b"b", b"2")]
    assert machine.names() == [LIVE_DIRECTORY, f"{OLD_PREFIX}2"]
    live.remove_leftovers()
    assert machine.names() == [LIVE_DIRECTORY]
    assert machine.open() == [(b"b", b"2")]


def test_a_new_database_takes_the_place_of_the_live_one(machine: Machine) -> None:
    live = machine.create()
    store = machine.keep(live.create())
    assert store is not None
    assert contents(store) == []


def test_builds_get_names_of_their_own_and_are_left_over_but_for_the_one_that_goes_on(
    machine: Machine,
) -> None:
    live = machine.create()
    first = machine.build(live, HERE)
    second = machine.build(machine.start(), HERE)
    assert live.leftovers() == [first, second]
    assert live.leftovers(second) == [first]
    (machine.directory / "notes.txt").write_text("of the operator")
    live.remove_leftovers()
    assert machine.names() == [LIVE_DIRECTORY, "notes.txt"]


def test_what_cannot_be_removed_is_a_fault(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path) -> None:
        raise PermissionError(1, "not permitted")

    live = machine.create()
    machine.build(live, HERE)
    monkeypatch.setattr(shutil, "rmtree", fail)
    with pytest.raises(StorageFault, match=f"{BUILDING_PREFIX}.*not permitted"):
        live.remove_leftovers()


def test_the_boot_id_is_durable_before_the_first_write(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = FaultyFiles(0, Crash())
    monkeypatch.setattr(LmdbStore, "open", lambda path: files.calls.append("open") or store)
    (machine.directory.parent).mkdir()
    store = object()
    LiveState(machine.directory, lambda: "boot-1", files).create()
    assert files.calls[-6:] == [
        "write",
        "sync",
        f"rename {PROOF_FILE}.tmp {PROOF_FILE}",
        f"sync directory {LIVE_DIRECTORY}",
        f"sync directory {machine.directory.name}",
        "open",
    ]


def create(machine: Machine, live: LiveState) -> None:
    machine.keep(live.create())


def adopt(machine: Machine, live: LiveState) -> None:
    machine.keep(live.adopt(machine.directory / f"{BUILDING_PREFIX}9"))


def open_proven(machine: Machine, live: LiveState) -> None:
    machine.keep(live.open_proven())


def open_and_close(machine: Machine, live: LiveState) -> None:
    store = live.open_proven()
    assert store is not None
    machine.keep(store)
    live.close_cleanly(store)


def open_and_distrust(machine: Machine, live: LiveState) -> None:
    machine.keep(live.open_proven())
    live.distrust()


BUILT = [(b"b", b"2")]
STEPS = [
    (create, [HERE, None, []]),
    (adopt, [HERE, None, BUILT]),
    (open_proven, [HERE]),
    (open_and_close, [HERE]),
    (open_and_distrust, [HERE, None]),
]


def arranged(path: Path, at: int, fault: BaseException) -> tuple[Machine, LiveState, FaultyFiles]:
    """Start a server over a live database and a complete build; call number `at` will fail."""
    machine = Machine(path / str(at))
    machine.build(machine.create(), BUILT).rename(machine.directory / f"{BUILDING_PREFIX}9")
    files = FaultyFiles(at, fault)
    return machine, machine.start(files), files


@pytest.mark.parametrize(("step", "allowed"), STEPS, ids=[step.__name__ for step, _ in STEPS])
def test_after_a_kill_at_any_point_there_is_a_right_database_or_none(
    tmp_path: Path,
    step: Callable[[Machine, LiveState], None],
    allowed: list[list[tuple[bytes, bytes]] | None],
) -> None:
    seen = []
    for at in range(1, 100):
        machine, live, _ = arranged(tmp_path, at, Crash())
        try:
            step(machine, live)
        except Crash:
            seen.append(machine.open())
            machine.kill()
            continue
        seen.append(machine.open())
        machine.kill()
        break
    assert at > 3
    assert all(found in allowed for found in seen)
    # The first call changes nothing, after the last one all is done.
    assert seen[0] == allowed[0]
    assert seen[-1] == allowed[-1]


@pytest.mark.parametrize(("step", "allowed"), STEPS, ids=[step.__name__ for step, _ in STEPS])
def test_after_a_loss_of_power_at_any_point_only_a_clean_database_is_used(
    tmp_path: Path,
    step: Callable[[Machine, LiveState], None],
    allowed: list[list[tuple[bytes, bytes]] | None],
) -> None:
    seen = []
    for at in range(1, 100):
        machine, live, _ = arranged(tmp_path, at, Crash())
        try:
            step(machine, live)
            is_done = True
        except Crash:
            is_done = False
        machine.boot_id = "boot-2"
        seen.append(machine.open())
        machine.kill()
        if is_done:
            break
    assert seen[-1] == (HERE if step is open_and_close else None)
    # The mark is there or it is not, from the one rename on that publishes it.
    assert all(found in (None, HERE) for found in seen)
    assert sum(found is not None for found in seen) <= (2 if step is open_and_close else 0)


@pytest.mark.parametrize(("step", "allowed"), STEPS, ids=[step.__name__ for step, _ in STEPS])
def test_a_failing_disk_is_a_fault_at_every_point(
    tmp_path: Path,
    step: Callable[[Machine, LiveState], None],
    allowed: list[list[tuple[bytes, bytes]] | None],
) -> None:
    machine, live, files = arranged(tmp_path, 0, Crash())
    step(machine, live)
    machine.kill()
    assert len(files.calls) > 3
    for at in range(1, len(files.calls) + 1):
        machine, live, _ = arranged(tmp_path, at, StorageFault(f"call {at}"))
        with pytest.raises(StorageFault, match=f"^call {at}$"):
            step(machine, live)
        machine.kill()


def test_the_kernel_has_a_boot_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "boot_id").write_text("4d5c\n")
    monkeypatch.setattr(live_module, "BOOT_ID_FILE", tmp_path / "boot_id")
    assert default_boot_id() == "4d5c"
    (tmp_path / "boot_id").write_bytes(b"\xff")
    assert default_boot_id() == ""
    monkeypatch.setattr(live_module, "BOOT_ID_FILE", tmp_path / "nothing")
    assert default_boot_id() == ""
