"""A data directory is one server for ever, or says why it is none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from random import Random

import attrs
import pytest

from raftd.core.types import HardState
from raftd.storage.files import OsFileSystem, Remedy, StorageFault
from raftd.storage.identity import (
    DataDirectory,
    DataDirectoryLocked,
    Identity,
    WrongName,
    check_server,
)
from raftd.storage.wal import CorruptLog, Wal
from tests.storage.memory_files import Crash, MemoryFileSystem

FILES = OsFileSystem()
DIRECTORY = Path("/var/n1")
"""The data directory on a disk in memory."""


def open_identity(path: Path, name: str = "n1") -> Identity:
    """Open the directory, close it, and return who it is."""
    directory = DataDirectory.open(path, name, FILES)
    directory.close()
    return directory.identity


def write_something(path: Path) -> None:
    wal, _ = Wal.open(path / "wal", FILES)
    wal.append(HardState(1, "n1/a"), [])
    wal.close()


def test_a_missing_directory_becomes_a_blank_server_with_an_empty_log(tmp_path: Path) -> None:
    directory = DataDirectory.open(tmp_path / "some" / "n1", "n1", FILES)
    assert directory.identity.is_blank
    assert directory.identity.name == "n1"
    assert len(bytes.fromhex(directory.identity.incarnation)) == 8
    assert directory.identity.server == f"n1/{directory.identity.incarnation}"
    wal, recovered = Wal.open(directory.wal_path, FILES)
    assert wal.is_empty
    assert recovered.entries == ()
    wal.close()
    directory.close()


def test_the_incarnation_is_minted_once_for_each_directory(tmp_path: Path) -> None:
    first = open_identity(tmp_path / "a")
    assert open_identity(tmp_path / "a") == first
    assert open_identity(tmp_path / "b").incarnation != first.incarnation


def test_a_published_identity_comes_back(tmp_path: Path) -> None:
    directory = DataDirectory.open(tmp_path, "n1", FILES)
    joined = attrs.evolve(
        directory.identity,
        cluster_id="0123",
        cluster_name="örders",
        bootstrap_address="127.0.0.1:7101",
        bootstrap_time_ms=1_700_000_000_000,
        removed_index=17,
        log_begun=True,
    )
    directory.publish(joined)
    assert directory.identity == joined
    assert not directory.identity.is_blank
    directory.close()
    assert open_identity(tmp_path) == joined


def test_an_identity_of_a_release_that_did_not_note_the_begin_of_the_log_is_read(
    tmp_path: Path,
) -> None:
    directory = DataDirectory.open(tmp_path, "n1", FILES)
    joined = attrs.evolve(directory.identity, cluster_id="c", removed_index=17)
    directory.publish(joined)
    directory.close()
    document = json.loads((tmp_path / "identity.json").read_text())
    assert list(document["identity"]) == [
        "name",
        "incarnation",
        "cluster_id",
        "cluster_name",
        "bootstrap_address",
        "bootstrap_time_ms",
        "removed_index",
    ]
    assert open_identity(tmp_path) == joined
    directory = DataDirectory.open(tmp_path, "n1", FILES)
    directory.publish(attrs.evolve(joined, log_begun=True))
    directory.close()
    assert open_identity(tmp_path).log_begun


def test_the_server_of_a_new_directory_may_be_one(tmp_path: Path) -> None:
    assert check_server(open_identity(tmp_path).server)


@pytest.mark.parametrize(
    "text", ["", "n1", "n1/", "/0123456789abcdef", "n1/0123456789abcdeF", "n1/0123456789abcdef0"]
)
def test_what_no_directory_calls_itself_is_no_server(text: str) -> None:
    with pytest.raises(ValueError, match="is not a"):
        check_server(text)


def test_a_directory_never_becomes_another_server(tmp_path: Path) -> None:
    directory = DataDirectory.open(tmp_path, "n1", FILES)
    with pytest.raises(AssertionError):
        directory.publish(attrs.evolve(directory.identity, incarnation="0" * 16))
    directory.close()


def test_a_second_process_is_told_which_one_uses_the_directory(tmp_path: Path) -> None:
    program = (
        "import sys, pathlib\n"
        "from raftd.storage.files import OsFileSystem\n"
        "from raftd.storage.identity import DataDirectory\n"
        "DataDirectory.open(pathlib.Path(sys.argv[1]), 'n1', OsFileSystem())\n"
        "print('open', flush=True)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, tmp_path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"open\n"
        with pytest.raises(DataDirectoryLocked, match=f"in use by process {process.pid};"):
            DataDirectory.open(tmp_path, "n1", FILES)
        process.kill()
    assert open_identity(tmp_path).name == "n1"


def test_a_directory_is_locked_until_it_is_closed(tmp_path: Path) -> None:
    directory = DataDirectory.open(tmp_path, "n1", FILES)
    with pytest.raises(DataDirectoryLocked, match=f"process {os.getpid()};"):
        DataDirectory.open(tmp_path, "n1", FILES)
    directory.close()
    open_identity(tmp_path)


def test_the_lock_is_given_back_when_opening_is_refused(tmp_path: Path) -> None:
    open_identity(tmp_path)
    for _ in range(2):
        with pytest.raises(WrongName):
            DataDirectory.open(tmp_path, "n2", FILES)
    open_identity(tmp_path)


def test_a_directory_of_another_server_is_refused_by_name(tmp_path: Path) -> None:
    open_identity(tmp_path, "n1")
    with pytest.raises(WrongName, match="belongs to server n1, not to n2") as raised:
        DataDirectory.open(tmp_path, "n2", FILES)
    assert "--id n1" in str(raised.value)


@pytest.mark.parametrize("leave_directory", [True, False])
def test_an_identity_whose_log_is_missing_is_refused(tmp_path: Path, leave_directory: bool) -> None:
    open_identity(tmp_path)
    (segment,) = (tmp_path / "wal").iterdir()
    segment.unlink()
    if not leave_directory:
        (tmp_path / "wal").rmdir()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(StorageFault, match="its log is missing") as raised:
        DataDirectory.open(tmp_path, "n1", FILES)
    assert raised.value.remedy is Remedy.REPLACE
    assert sorted(tmp_path.rglob("*")) == before


def test_a_log_with_records_and_no_identity_is_refused(tmp_path: Path) -> None:
    open_identity(tmp_path)
    write_something(tmp_path)
    (tmp_path / "identity.json").unlink()
    with pytest.raises(StorageFault, match=r"identity\.json is missing") as raised:
        DataDirectory.open(tmp_path, "n1", FILES)
    assert raised.value.remedy is Remedy.REPLACE
    assert not (tmp_path / "identity.json").exists()


def test_a_damaged_log_without_identity_is_refused(tmp_path: Path) -> None:
    open_identity(tmp_path)
    write_something(tmp_path)
    (tmp_path / "identity.json").unlink()
    (segment,) = (tmp_path / "wal").iterdir()
    segment.write_bytes(b"\xff" + segment.read_bytes()[1:])
    with pytest.raises(CorruptLog):
        DataDirectory.open(tmp_path, "n1", FILES)


def test_an_empty_log_without_identity_is_a_first_start_that_did_not_end(tmp_path: Path) -> None:
    first = open_identity(tmp_path)
    (tmp_path / "identity.json").unlink()
    second = open_identity(tmp_path, "n2")
    assert second.name == "n2"
    assert second.incarnation != first.incarnation


def test_every_flipped_bit_of_the_identity_is_noticed() -> None:
    files = MemoryFileSystem()
    directory = DataDirectory.open(DIRECTORY, "n1", files)
    directory.publish(attrs.evolve(directory.identity, cluster_id="77", removed_index=5))
    directory.close()
    path = DIRECTORY / "identity.json"
    content = files.read(path)
    for bit in range(len(content) * 8):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        files.replace(path, bytes(flipped))
        with pytest.raises(StorageFault, match=r"identity\.json"):
            DataDirectory.open(DIRECTORY, "n1", files)
    files.replace(path, content)
    directory = DataDirectory.open(DIRECTORY, "n1", files)
    assert directory.identity.removed_index == 5
    directory.close()


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"null", b'{"format": 1, "identity": 3}'])
def test_a_file_that_is_no_identity_is_refused(tmp_path: Path, content: bytes) -> None:
    open_identity(tmp_path)
    (tmp_path / "identity.json").write_bytes(content)
    with pytest.raises(StorageFault, match="damaged") as raised:
        DataDirectory.open(tmp_path, "n1", FILES)
    assert raised.value.remedy is Remedy.REPLACE


def test_an_identity_of_a_newer_format_is_refused_and_says_so(tmp_path: Path) -> None:
    open_identity(tmp_path)
    path = tmp_path / "identity.json"
    document = json.loads(path.read_text())
    path.write_text(json.dumps({**document, "format": 3}))
    with pytest.raises(StorageFault, match="written in format 3") as raised:
        DataDirectory.open(tmp_path, "n1", FILES)
    assert raised.value.remedy is Remedy.NAMED


def test_a_crash_at_any_call_of_the_first_start_leaves_a_directory_that_starts() -> None:
    for crash_at in range(1, 100):
        for seed in range(10):
            files = MemoryFileSystem(crash_at=crash_at)
            try:
                identity = DataDirectory.open(DIRECTORY, "n1", files).identity
            except Crash:
                identity = None
            finished = len(files.calls) < crash_at
            files = files.after_crash(Random(seed))
            directory = DataDirectory.open(DIRECTORY, "n1", files)
            if identity is not None:
                assert directory.identity == identity
            # What a restarted server calls itself is durable before anybody hears of it.
            again = DataDirectory.open(DIRECTORY, "n1", files.after_crash(Random(seed)))
            assert again.identity == directory.identity
            wal, _ = Wal.open(again.wal_path, files)
            wal.close()
        if finished:
            return
    pytest.fail("the first start has no end")


def test_a_crash_at_any_call_of_a_publication_leaves_the_old_identity_or_the_new() -> None:
    seen = set()
    for crash_at in range(1, 10):
        for seed in range(10):
            files = MemoryFileSystem()
            directory = DataDirectory.open(DIRECTORY, "n1", files)
            old = directory.identity
            new = attrs.evolve(old, cluster_id="c")
            files.crash_at = len(files.calls) + crash_at
            try:
                directory.publish(new)
            except Crash:
                assert directory.identity == old
            files = files.after_crash(Random(seed))
            found = DataDirectory.open(DIRECTORY, "n1", files).identity
            assert found in (old, new)
            if directory.identity == new:
                assert found == new
            seen.add(found.cluster_id)
    assert seen == {"", "c"}


def test_an_identity_found_after_a_kill_is_durable_before_it_is_used() -> None:
    files = MemoryFileSystem()
    directory = DataDirectory.open(DIRECTORY, "n1", files)
    new = attrs.evolve(directory.identity, cluster_id="c")
    files.fail_at = len(files.calls) + 5
    with pytest.raises(StorageFault):
        directory.publish(new)
    assert files.calls[-1].startswith("sync_directory")
    directory.close()
    assert DataDirectory.open(DIRECTORY, "n1", files).identity == new
    for seed in range(8):
        found = DataDirectory.open(DIRECTORY, "n1", files.after_crash(Random(seed)))
        assert found.identity == new


def test_servers_that_share_a_parent_directory_may_make_it_at_the_same_time(tmp_path: Path) -> None:
    class Racing(OsFileSystem):
        """Another server makes each directory just after it was found missing."""

        def exists(self, path: Path) -> bool:
            found = super().exists(path)
            if not found and path.name == "data":
                path.mkdir()
            return found

    directory = DataDirectory.open(tmp_path / "data" / "n1", "n1", Racing())
    assert directory.identity.is_blank
    directory.close()
