"""What a start makes of a data directory: log, snapshot and live state that do not fit together."""

from __future__ import annotations

import logging
import shutil
from contextlib import closing
from pathlib import Path

import attrs
import msgpack
import pytest

from raftd.recovery import recover
from raftd.storage.files import OsFileSystem, Remedy, StorageFault
from raftd.storage.identity import DataDirectory
from raftd.storage.live import LiveState, default_boot_id
from raftd.storage.lmdb_store import DATABASE_FILE
from raftd.storage.state import StateMachine
from tests.mutants.test_snapshot_killers import WRITES, apply_all, live, recovered, snapshots_of
from tests.node.disks import RealDisk
from tests.node.growing import fill, snapshot_world

FILES = OsFileSystem()
PAGE_BYTES = 4096
META_PAGES = 2
META = b"M"


@pytest.fixture
def blank(tmp_path: Path) -> Path:
    """The data directory of a server that belongs to no cluster yet."""
    path = tmp_path / "blank"
    world = snapshot_world()
    world.boot("n1", disk=RealDisk(path, "n1")).kill()
    return path


@pytest.fixture
def path(tmp_path: Path, blank: Path) -> Path:
    """The data directory of the same server after it has taken snapshots; it has no live state."""
    path = tmp_path / "n1"
    shutil.copytree(blank, path)
    live(path, first=0)
    assert snapshots_of(path)
    return path


def put_back(path: Path, part: str, source: Path) -> None:
    """Put a part of a data directory back from a copy."""
    shutil.rmtree(path / part)
    shutil.copytree(source / part, path / part)


def contents(path: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(path)): file.read_bytes()
        for part in ("wal", "snapshots", "state")
        for file in sorted((path / part).rglob("*"))
        if file.is_file()
    }


def last_included(path: Path) -> int:
    return int(snapshots_of(path)[-1].name.split("-")[1])


# --- a log that is older than the snapshot ------------------------------------------------------


def assert_refused(path: Path) -> None:
    before = contents(path)
    with (
        pytest.raises(StorageFault, match="the log is older than the snapshot") as raised,
        recovered(path),
    ):
        pass
    assert raised.value.remedy is Remedy.REPLACE
    assert contents(path) == before


def test_a_blank_log_beside_a_snapshot_is_refused_and_nothing_is_changed(
    path: Path, blank: Path
) -> None:
    put_back(path, "wal", blank)
    assert_refused(path)


def test_a_log_of_a_lower_term_than_the_snapshot_is_refused_and_nothing_is_changed(
    path: Path, tmp_path: Path
) -> None:
    shutil.copytree(path, tmp_path / "copy")
    # A restart begins a new term.
    live(path, first=WRITES)
    put_back(path, "wal", tmp_path / "copy")
    assert_refused(path)


def test_a_founder_whose_log_is_gone_does_not_found_its_cluster_a_second_time(
    path: Path, blank: Path
) -> None:
    """With the same id and an empty state it would go on where nobody has seen what was lost."""
    put_back(path, "wal", blank)
    before = contents(path)
    with pytest.raises(StorageFault, match="the log is older than the snapshot"):
        snapshot_world().boot("n1", disk=RealDisk(path, "n1"))
    assert contents(path) == before


def test_a_crash_between_an_installed_snapshot_and_the_log_is_repaired(
    tmp_path: Path, blank: Path
) -> None:
    """The log is behind the snapshot, and of its term: the leader's was durable before."""
    path = tmp_path / "n1"
    shutil.copytree(blank, path)
    world = snapshot_world()
    server = world.boot("n1", disk=RealDisk(path, "n1"))
    world.bootstrap()
    server.kill()
    shutil.copytree(path, tmp_path / "copy")
    shutil.rmtree(path)
    shutil.copytree(blank, path)
    live(path, first=0)
    put_back(path, "wal", tmp_path / "copy")
    with recovered(path) as found:
        assert found.log.base_index == found.log.last_index == last_included(path)
        assert StateMachine(found.store).applied_index == last_included(path)


def test_a_backup_is_put_in_force_over_the_log_of_a_blank_server(path: Path, blank: Path) -> None:
    (snapshot,) = snapshots_of(path)
    (blank / "snapshots").mkdir(exist_ok=True)
    shutil.copy(snapshot, blank / "snapshots")
    with recovered(blank) as found:
        assert found.log.hard_state.current_term == 0
        assert found.log.base_index == last_included(blank)
        assert StateMachine(found.store).applied_index == last_included(blank)


def test_a_restored_founder_whose_log_is_gone_does_not_found_its_cluster_a_second_time(
    path: Path, blank: Path
) -> None:
    (snapshot,) = snapshots_of(path)
    (blank / "snapshots").mkdir(exist_ok=True)
    shutil.copy(snapshot, blank / "snapshots")
    with closing(DataDirectory.open(blank, "n1", FILES)) as directory:
        directory.publish(
            attrs.evolve(
                directory.identity,
                cluster_id="another",
                cluster_name="orders",
                bootstrap_address="n1:7100",
                log_begun=True,
            )
        )
    assert_refused(blank)


# --- a live state that proves itself and is of no use -------------------------------------------


@pytest.fixture
def with_state(path: Path) -> Path:
    """A data directory that was closed cleanly, with a state that has applied the whole log."""
    world = snapshot_world()
    server = world.boot("n1", disk=RealDisk(path, "n1"))
    world._serials["s"] = WRITES + 1
    fill(world, 2)
    server.kill()
    with recovered(path) as found:
        assert apply_all(found) > last_included(path)
    return path


def test_a_live_state_that_fits_is_used(with_state: Path) -> None:
    with recovered(with_state) as found:
        assert StateMachine(found.store).applied_index == found.log.last_index


@pytest.mark.parametrize("fill", [b"\x00", b"\xff"], ids=["zeros", "ones"])
def test_a_proven_and_damaged_state_is_built_again(
    with_state: Path, fill: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    database = with_state / "state" / "live" / DATABASE_FILE
    size_bytes = database.stat().st_size
    with database.open("r+b") as file:
        file.seek(META_PAGES * PAGE_BYTES)
        file.write(fill * (size_bytes - META_PAGES * PAGE_BYTES))
    with caplog.at_level(logging.WARNING, "raftd.recovery"), recovered(with_state) as found:
        assert StateMachine(found.store).applied_index == last_included(with_state)
        assert apply_all(found) == found.log.last_index
    assert "it is built again" in caplog.text
    assert not list((with_state / "state").glob("old-*"))
    with recovered(with_state) as found:
        assert StateMachine(found.store).applied_index == found.log.last_index


def test_a_damaged_state_is_not_trusted_again_if_the_build_fails(with_state: Path) -> None:
    """Else the next start would meet the same damage."""
    database = with_state / "state" / "live" / DATABASE_FILE
    content = database.read_bytes()
    database.write_bytes(
        content[: META_PAGES * PAGE_BYTES] + bytes(len(content) - META_PAGES * PAGE_BYTES)
    )
    file = snapshots_of(with_state)[-1]
    good = file.read_bytes()
    file.write_bytes(good[: len(good) // 2] + b"?" + good[len(good) // 2 + 1 :])
    with pytest.raises(StorageFault), recovered(with_state):
        pass
    assert LiveState(with_state / "state", default_boot_id, FILES).open_proven() is None


def rewrite_meta(path: Path, field: int, value: int) -> None:
    """Change what the live state says about itself, and close it cleanly."""
    state = LiveState(path / "state", default_boot_id, FILES)
    store = state.open_proven()
    assert store is not None
    meta = store.get(META)
    assert meta is not None
    fields = msgpack.unpackb(meta)
    fields[field] = value
    with store.transaction():
        store.put(META, msgpack.packb(fields))
    state.close_cleanly(store)


def test_a_state_of_another_term_than_the_log_has_there_is_built_again(with_state: Path) -> None:
    """What it has applied last is not the entry that the log has."""
    rewrite_meta(with_state, 2, 99)
    with recovered(with_state) as found:
        state = StateMachine(found.store)
        assert (state.applied_index, state.applied_term) != (found.log.last_index, 99)
        assert state.applied_index == last_included(with_state)
        assert apply_all(found) == found.log.last_index


def test_a_state_of_another_format_is_a_fault_that_names_what_to_do(with_state: Path) -> None:
    rewrite_meta(with_state, 0, 99)
    with closing(DataDirectory.open(with_state, "n1", FILES)) as directory:
        for _ in range(2):
            # All that was open is closed again.
            with pytest.raises(
                StorageFault, match=r"live: the state has format 99.*start the release"
            ) as raised:
                recover(directory, FILES)
            assert raised.value.remedy is Remedy.NAMED


# --- a log that is refused is left as it is ------------------------------------------------------


def newest_segment(path: Path) -> Path:
    (segment,) = (path / "wal").glob("*.open")
    return segment


def assert_refused_uncut(path: Path, why: str, caplog: pytest.LogCaptureFixture) -> None:
    def of_log(contents: dict[str, bytes]) -> dict[str, bytes]:
        return {name: content for name, content in contents.items() if name.startswith("wal")}

    before = of_log(contents(path))
    # The second start says the same.
    for _ in range(2):
        with (
            caplog.at_level(logging.WARNING, "raftd.recovery"),
            pytest.raises(StorageFault, match=why) as raised,
            recovered(path),
        ):
            pass
        assert raised.value.remedy is Remedy.REPLACE
        assert "cut off" not in caplog.text
        assert of_log(contents(path)) == before


def test_nothing_is_cut_off_a_log_that_lacks_applied_entries(
    with_state: Path, caplog: pytest.LogCaptureFixture
) -> None:
    segment = newest_segment(with_state)
    content = bytearray(segment.read_bytes())
    last = max(offset for offset, byte in enumerate(content) if byte)
    # The last byte of a batch is never zero, so this one looks torn.
    content[last] = 0
    segment.write_bytes(content)
    assert_refused_uncut(with_state, "were applied, but the log ends at", caplog)


def test_nothing_is_cut_off_a_log_that_has_lost_all_its_entries(
    tmp_path: Path, blank: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "n1"
    shutil.copytree(blank, path)
    world = snapshot_world()
    server = world.boot("n1", disk=RealDisk(path, "n1"))
    world.bootstrap()
    server.kill()
    segment = newest_segment(path)
    begun = newest_segment(blank).read_bytes().rstrip(b"\0")
    segment.write_bytes(segment.read_bytes()[: len(begun) + 100])
    assert_refused_uncut(path, "is empty, although it has had entries", caplog)
