"""`raftctl inspect`: what it says of a data directory or a backup, and that it changes nothing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest

from raftctl.cli import main
from raftd.core.snapshot import SnapshotId
from raftd.offline import KEY_PREFIX, UnusableBackup, verify_backup
from raftd.protocol import RestoreReply, RestoreRequest, WriteReply
from raftd.recovery import recover
from raftd.storage.files import OsFileSystem, StorageFault
from raftd.storage.identity import DataDirectory
from raftd.storage.snapshots import SnapshotDirectory
from raftd.storage.state import StateMachine
from tests.node.disks import RealDisk
from tests.node.world import Server, World

pytestmark = pytest.mark.usefixtures("no_surroundings")

LOG_BYTES = 6_000
"""A snapshot is taken after so much of log: there are some in a short life."""
WRITES = 150


def live_of(path: Path) -> None:
    """Let the server's start and a clean stop make the live state."""
    directory = DataDirectory.open(path, "n1", OsFileSystem())
    recovered = recover(directory, OsFileSystem())
    state = StateMachine(recovered.store)
    log = recovered.log
    # Those behind the last configuration are committed in a cluster of one.
    state.apply(log.entries[state.applied_index - log.base_index :])
    recovered.live.close_cleanly(recovered.store)
    log.wal.close()
    recovered.snapshots.close()
    directory.close()


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data directory of a server that has written, compacted and stopped."""
    path = tmp_path_factory.mktemp("life") / "n1"
    world = World(snapshot_log_bytes=LOG_BYTES)
    server = world.boot("n1", disk=RealDisk(path, "n1"))
    world.bootstrap()
    for number in range(WRITES):
        value = "x" * 100 if number == WRITES - 1 else f"value {number}"
        reply = world.call(server, world.put(f"key{number % 40:02d}", value))
        assert isinstance(reply, WriteReply)
        world.run(1)
    assert server.running.raft.log.base_index > 0
    world.run(10)
    server.kill()
    live_of(path)
    return path


@pytest.fixture
def directory(life: Path, tmp_path: Path) -> Path:
    """A copy of it, for one test to spoil."""
    return Path(shutil.copytree(life, tmp_path / "n1"))


def tree(path: Path) -> dict[str, tuple[int, int, bytes]]:
    """Everything about a directory that a look at it must not change."""
    return {
        str(file.relative_to(path)): (
            file.stat().st_mtime_ns,
            file.stat().st_ino,
            b"" if file.is_dir() else file.read_bytes(),
        )
        for file in [path, *path.rglob("*")]
    }


@attrs.frozen
class Outcome:
    code: int
    stdout: str
    stderr: str

    @property
    def document(self) -> Any:
        return json.loads(self.stdout.splitlines()[-1])


@pytest.fixture
def inspect(capsys: pytest.CaptureFixture[str]) -> Any:
    """Run the command; whatever it finds, it has changed nothing."""

    def run(path: Path, *words: str) -> Outcome:
        before = tree(path) if path.is_dir() else {}
        code = main(["inspect", str(path), *words])
        captured = capsys.readouterr()
        if before:
            assert tree(path) == before
        return Outcome(code, captured.out, captured.err)

    return run


def segments_of(path: Path) -> list[Path]:
    return sorted((path / "wal").glob("log-*"))


def snapshot_of(path: Path) -> Path:
    return max((path / "snapshots").glob("snapshot-*"))


def flip(path: Path, offset: int, bit: int = 3) -> None:
    content = bytearray(path.read_bytes())
    content[offset] ^= 1 << bit
    path.write_bytes(content)


# --- a directory in which all is well -----------------------------------------------------------


def test_all_that_a_server_knows_is_shown(life: Path, inspect: Any) -> None:
    outcome = inspect(life, "-o", "json")
    assert outcome.code == 0
    found = outcome.document
    assert found["ok"]
    assert found["problems"] == []
    assert found["role"] == "member"
    assert found["running"] is None
    identity = found["identity"]
    assert (identity["name"], identity["cluster"]) == ("n1", "orders")
    assert found["term"] == 2
    assert found["voted_for"] == f"n1/{identity['incarnation']}"
    log = found["log"]
    assert [segment["state"] for segment in log["segments"]] == ["ok"] * len(log["segments"])
    assert len(log["segments"]) >= 2
    assert log["base_index"] > 0
    newest = found["snapshots"][0]
    assert newest["ok"]
    assert log["base_index"] <= newest["index"] <= log["last_index"]
    assert (newest["keys"], newest["term"]) == (40, 2)
    assert newest["configuration"]["voters"] == [f"n1/{identity['incarnation']}"]
    state = found["state"]
    assert (state["proof"], state["applied_index"]) == ("clean stop", log["last_index"])
    assert state["revision"] == WRITES
    assert [at["kind"] for at in found["configurations"]] == ["bootstrap"]
    assert found["receiving"] == []


def test_the_text_says_the_same(life: Path, inspect: Any) -> None:
    outcome = inspect(life)
    assert outcome.code == 0
    found = inspect(life, "-o", "json").document
    for part in (
        f"n1/{found['identity']['incarnation']}, member",
        found["identity"]["cluster_id"],
        "term      2, voted for n1/",
        found["log"]["segments"][0]["name"],
        found["snapshots"][0]["name"],
        "verified",
        "closed cleanly",
        "bootstrap",
        "every checksum is right",
    ):
        assert part in outcome.stdout


def test_the_last_entries_are_shown_with_their_keys_and_short_values(
    life: Path, inspect: Any
) -> None:
    entries = inspect(life, "-o", "json").document["entries"]
    assert len(entries) == 10
    last_index = inspect(life, "-o", "json").document["log"]["last_index"]
    assert [entry["index"] for entry in entries] == list(range(last_index - 9, last_index + 1))
    assert entries[-1]["kind"] == "command"
    assert entries[-1]["text"] == f"put key29 {'x' * 40}… (100 bytes)"
    assert entries[-2]["text"] == "put key28 value 148"
    assert inspect(life, "--entries", "3", "-o", "json").document["entries"] == entries[-3:]
    assert inspect(life, "--entries", "0", "-o", "json").document["entries"] == []
    assert "put key29" not in inspect(life, "--entries", "0").stdout


def test_a_key_cannot_move_the_cursor(tmp_path: Path, inspect: Any) -> None:
    world = World()
    server = world.boot("n1", disk=RealDisk(tmp_path / "n1", "n1"))
    world.bootstrap()
    world.call(server, world.put("\x1b[2Jgone", "\x1b[31m\nred"))
    server.kill()
    text = inspect(tmp_path / "n1").stdout
    assert "\x1b" not in text
    assert "\\x1b[2Jgone" in text


def test_a_blank_server_is_called_blank(tmp_path: Path, inspect: Any) -> None:
    DataDirectory.open(tmp_path / "n1", "n1", OsFileSystem()).close()
    outcome = inspect(tmp_path / "n1", "-o", "json")
    assert outcome.code == 0
    assert outcome.document["role"] == "blank"
    assert outcome.document["snapshots"] == []
    assert inspect(tmp_path / "n1").code == 0


def give(world: World, server: Server, path: Path, id: SnapshotId, until: int) -> None:
    content = path.read_bytes()
    for offset in range(0, until, 1000):
        data = content[offset : min(offset + 1000, until)]
        reply = world.call(server, RestoreRequest(snapshot=id, offset=offset, data=data))
        assert isinstance(reply, RestoreReply)


def test_what_a_blank_server_was_given_of_a_backup_is_shown(
    life: Path, tmp_path: Path, inspect: Any
) -> None:
    source = snapshot_of(life)
    id = verify_backup(source).id
    world = World(seed=2)
    server = world.boot("m1", disk=RealDisk(tmp_path / "m1", "m1"))
    give(world, server, source, id, 2000)
    server.kill()
    (part,) = inspect(tmp_path / "m1", "-o", "json").document["receiving"]
    assert (part["index"], part["total_bytes"]) == (id.last_included_index, id.size_bytes)
    assert part["size_bytes"] == 2000
    assert part["intact_bytes"] <= 2000
    assert "receiving one up to entry" in inspect(tmp_path / "m1").stdout
    server.start()
    # It verifies what it has before it takes more.
    world.run(10)
    give(world, server, source, id, id.size_bytes)
    world.run(10)
    server.kill()
    outcome = inspect(tmp_path / "m1", "-o", "json")
    assert outcome.code == 0
    assert outcome.document["role"] == "holds a backup"
    assert "raftctl restore" in inspect(tmp_path / "m1").stdout


def test_a_server_that_runs_is_noticed_and_not_disturbed(directory: Path, inspect: Any) -> None:
    held = DataDirectory.open(directory, "n1", OsFileSystem())
    try:
        outcome = inspect(directory, "-o", "json")
        assert outcome.code == 0
        assert "process" in outcome.document["running"]
        assert outcome.document["state"]["applied_index"] is None
        assert "works on it" in outcome.document["state"]["unread"]
        assert "what is read here may move" in inspect(directory).stdout
    finally:
        held.close()
    assert inspect(directory, "-o", "json").document["running"] is None


def test_a_server_starts_after_an_inspection_as_if_there_had_been_none(
    directory: Path, inspect: Any
) -> None:
    assert inspect(directory).code == 0
    opened = DataDirectory.open(directory, "n1", OsFileSystem())
    recovered = recover(opened, OsFileSystem())
    try:
        # The clean stop still proves the live state.
        assert StateMachine(recovered.store).revision == WRITES
    finally:
        recovered.store.close()
        recovered.log.wal.close()
        recovered.snapshots.close()
        opened.close()


# --- damage ---------------------------------------------------------------------------------


def assert_damaged(outcome: Outcome, *parts: str) -> Any:
    assert outcome.code == 1
    found = outcome.document
    assert not found["ok"]
    text = "\n".join([*found["problems"], found["way_back"] or ""])
    for part in parts:
        assert part in text
    return found


def the_way_back(path: Path, name: str = "n1", address: str = "n1:7100") -> str:
    return (
        f"to get {name} back: empty {path}, start it again (it is blank then), and run: "
        f"raftctl replace {name} {name}={address}"
    )


def test_a_flipped_bit_in_the_log_is_located(directory: Path, inspect: Any) -> None:
    first = segments_of(directory)[0]
    flip(first, 700)
    found = assert_damaged(
        inspect(directory, "-o", "json"),
        f"{first}: damaged at byte",
        "are lost",
        "raftctl replace",
    )
    states = [segment["state"] for segment in found["log"]["segments"]]
    assert states[0] == "damaged"
    assert set(states[1:]) == {"unread"}
    assert found["way_back"] == the_way_back(directory)
    text = inspect(directory).stdout
    assert "1 problem:" in text
    assert "every checksum" not in text
    assert "before the damage" in text
    # Once, beneath all problems, and as it can be typed.
    assert text.count("raftctl replace") == 1
    assert text.splitlines()[-1] == the_way_back(directory)
    assert "used again" not in text


def test_a_missing_segment_is_named(directory: Path, inspect: Any) -> None:
    names = segments_of(directory)
    names[1].unlink()
    assert_damaged(inspect(directory, "-o", "json"), "missing", "raftctl replace")


def test_a_flipped_bit_in_the_newest_snapshot_is_located(directory: Path, inspect: Any) -> None:
    path = snapshot_of(directory)
    flip(path, path.stat().st_size // 2)
    shutil.rmtree(directory / "state")
    found = assert_damaged(
        inspect(directory, "-o", "json"), f"{path}: damaged at byte", "lost", "raftctl replace"
    )
    assert not found["snapshots"][0]["ok"]
    # No configuration can be read here, but the server founded the cluster at this address.
    assert found["way_back"] == the_way_back(directory)
    # The rest is looked at all the same.
    assert found["log"]["segments"][0]["state"] == "ok"
    assert len(found["entries"]) == 10


def test_a_damaged_snapshot_beside_a_live_state_that_is_whole_is_no_loss(
    directory: Path, inspect: Any
) -> None:
    path = snapshot_of(directory)
    flip(path, path.stat().st_size // 2)
    found = assert_damaged(inspect(directory, "-o", "json"), "Nothing is lost as long as")
    assert found["way_back"] is None
    assert started(directory) == ""


def test_a_missing_snapshot_leaves_a_gap(directory: Path, inspect: Any) -> None:
    snapshot_of(directory).unlink()
    assert_damaged(inspect(directory, "-o", "json"), "entries 1 to", "are lost")


def test_a_torn_batch_is_told_and_no_damage(directory: Path, inspect: Any) -> None:
    last = segments_of(directory)[-1]
    used = inspect(directory, "-o", "json").document["log"]["segments"][-1]["used_bytes"]
    content = bytearray(last.read_bytes())
    # The last byte of a batch is the last to be written.
    content[used - 4 : used] = bytes(4)
    last.write_bytes(content)
    shutil.rmtree(directory / "state")
    outcome = inspect(directory, "-o", "json")
    assert outcome.code == 0
    assert outcome.document["log"]["torn_bytes"] > 0
    assert outcome.document["log"]["segments"][-1]["state"] == "torn"
    assert "nothing in it was acknowledged" in inspect(directory).stdout


def test_a_state_that_has_more_than_the_log_is_a_loss(directory: Path, inspect: Any) -> None:
    last = segments_of(directory)[-1]
    used = inspect(directory, "-o", "json").document["log"]["segments"][-1]["used_bytes"]
    content = bytearray(last.read_bytes())
    content[used - 4 : used] = bytes(4)
    last.write_bytes(content)
    assert_damaged(inspect(directory, "-o", "json"), "were applied, but the log ends at")


@pytest.mark.parametrize("spoil", ["garbage", "cut", "empty", "gone"])
def test_a_damaged_live_state_is_no_loss(directory: Path, inspect: Any, spoil: str) -> None:
    database = directory / "state" / "live" / "data.mdb"
    content = database.read_bytes()
    if spoil == "garbage":
        database.write_bytes(b"\xff" * len(content))
    elif spoil == "cut":
        database.write_bytes(content[: len(content) // 2])
    elif spoil == "empty":
        database.write_bytes(b"")
    else:
        shutil.rmtree(directory / "state")
    outcome = inspect(directory, "-o", "json")
    assert outcome.code == 0
    if spoil != "gone":
        assert outcome.document["state"]["proof"] in ("none", "clean stop")
    assert inspect(directory).code == 0


def test_a_damaged_live_state_is_said_in_words(directory: Path, inspect: Any) -> None:
    database = directory / "state" / "live" / "data.mdb"
    # All but the first two pages, which say where the others are.
    database.write_bytes(database.read_bytes()[: 2 * 4096])
    text = inspect(directory).stdout
    assert "damaged: reading it was ended by SIGBUS: a part of the file is missing" in text
    assert "the next start builds it again" in text
    assert " -7" not in text
    assert "the live state, which has none, is damaged" in text


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])


SPOILED: dict[str, Callable[[Path], object]] = {
    "nothing": lambda path: None,
    "log flipped": lambda path: flip(segments_of(path)[0], 700),
    "log header flipped": lambda path: flip(segments_of(path)[-1], 10),
    "log cut": lambda path: cut(segments_of(path)[0]),
    "log emptied": lambda path: segments_of(path)[-1].write_bytes(b""),
    "log without a beginning": lambda path: segments_of(path)[0].unlink(),
    "log without an end": lambda path: segments_of(path)[-1].unlink(),
    "log gone": lambda path: shutil.rmtree(path / "wal"),
    "snapshot flipped": lambda path: flip(snapshot_of(path), 700),
    "snapshot cut": lambda path: cut(snapshot_of(path)),
    "snapshot emptied": lambda path: snapshot_of(path).write_bytes(b""),
    "snapshot of something else": lambda path: snapshot_of(path).write_bytes(b"text\n" * 1000),
    "snapshot gone": lambda path: snapshot_of(path).unlink(),
    "identity flipped": lambda path: flip(path / "identity.json", 60),
    "identity emptied": lambda path: (path / "identity.json").write_bytes(b""),
    "identity gone": lambda path: (path / "identity.json").unlink(),
}


def started(path: Path) -> str:
    """Return why a server does not start on the directory, an empty text if it does."""
    try:
        live_of(path)
    except StorageFault as fault:
        return str(fault)
    return ""


@pytest.mark.parametrize("with_state", [True, False], ids=["state", "no-state"])
@pytest.mark.parametrize("how", SPOILED)
def test_a_way_back_is_named_exactly_where_a_start_is_refused(
    directory: Path, inspect: Any, how: str, with_state: bool
) -> None:
    SPOILED[how](directory)
    if not with_state:
        shutil.rmtree(directory / "state")
    found = inspect(directory, "-o", "json").document
    refusal = started(directory)
    assert bool(found["way_back"]) == bool(refusal), (found["problems"], refusal)
    assert len(found["problems"]) <= 1
    for problem in found["problems"]:
        assert "raftctl" not in problem


def test_the_name_is_told_although_the_identity_is_damaged(directory: Path, inspect: Any) -> None:
    path = directory / "identity.json"
    flip(path, path.read_bytes().index(b'"n1"') + 1)
    outcome = inspect(directory, "-o", "json")
    assert outcome.document["way_back"] == the_way_back(directory)
    assert "by what can still be read of its identity" in inspect(directory).stdout
    path.unlink()
    outcome = inspect(directory, "-c", "my file.yaml", "-o", "json")
    assert "with its name and address from the cluster file" in outcome.document["way_back"]
    assert outcome.document["way_back"].endswith(
        "raftctl -c 'my file.yaml' replace ID ID=HOST:PORT"
    )


def test_a_first_start_that_did_not_come_to_its_end_is_no_damage(
    tmp_path: Path, inspect: Any
) -> None:
    path = tmp_path / "n1"
    path.mkdir()
    (path / "raftd.lock").touch()
    outcome = inspect(path)
    assert outcome.code == 0
    assert "the first start did not come to its end here" in outcome.stdout
    (path / "wal").mkdir()
    assert inspect(path).code == 0


def test_a_blank_server_has_nothing_that_could_be_replaced(tmp_path: Path, inspect: Any) -> None:
    DataDirectory.open(tmp_path / "n1", "n1", OsFileSystem()).close()
    shutil.rmtree(tmp_path / "n1" / "wal")
    found = inspect(tmp_path / "n1", "-o", "json").document
    assert found["way_back"].startswith("to use n1 again: empty")
    assert "replace" not in found["way_back"]


def test_a_damaged_identity_is_named(directory: Path, inspect: Any) -> None:
    flip(directory / "identity.json", 60)
    found = assert_damaged(
        inspect(directory, "-o", "json"), "identity.json", "checksum", "raftctl replace"
    )
    assert found["identity"] is None
    assert found["term"] == 2


def test_every_problem_is_told_in_one_run(directory: Path, inspect: Any) -> None:
    flip(directory / "identity.json", 60)
    flip(segments_of(directory)[0], 700)
    path = snapshot_of(directory)
    flip(path, path.stat().st_size // 2)
    found = assert_damaged(inspect(directory, "-o", "json"))
    assert len(found["problems"]) == 3


def test_a_log_that_is_gone_is_named(directory: Path, inspect: Any) -> None:
    shutil.rmtree(directory / "wal")
    assert_damaged(inspect(directory, "-o", "json"), "there is no log", "raftctl replace")


@pytest.mark.parametrize("what", ["missing", "empty", "another"])
def test_what_is_no_data_directory_is_a_wrong_command_line(
    tmp_path: Path, inspect: Any, what: str
) -> None:
    path = tmp_path / "d"
    if what != "missing":
        path.mkdir()
    if what == "another":
        (path / "file").write_text("x")
    outcome = inspect(path, "-o", "json")
    assert outcome.code == 2
    assert json.loads(outcome.stderr)["error"]["code"] == "no-data-directory"


# --- backups --------------------------------------------------------------------------------


def test_a_backup_is_verified_and_described(life: Path, tmp_path: Path, inspect: Any) -> None:
    path = tmp_path / "b"
    shutil.copy(snapshot_of(life), path)
    before = (path.read_bytes(), path.stat().st_mtime_ns)
    outcome = inspect(path, "-o", "json")
    assert outcome.code == 0
    assert outcome.document["ok"]
    assert outcome.document["keys"] == 40
    assert "verified" in inspect(path).stdout
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before
    assert [file.name for file in tmp_path.iterdir()] == ["b"]


def test_the_keys_of_clients_are_counted_and_nothing_else(life: Path) -> None:
    path = snapshot_of(life)
    directory = SnapshotDirectory(path.parent, OsFileSystem())
    found = verify_backup(path)
    assert found.key_count == 40 < found.pair_count
    assert KEY_PREFIX == b"K"
    assert directory.latest is None


def test_no_flipped_bit_of_a_backup_is_overlooked(life: Path, tmp_path: Path) -> None:
    original, path = snapshot_of(life).read_bytes(), tmp_path / "b"
    for number in range(0, len(original), 7):
        content = bytearray(original)
        content[number] ^= 1 << (number % 8)
        path.write_bytes(content)
        with pytest.raises(UnusableBackup) as caught:
            verify_backup(path)
        assert caught.value.offset is not None
        assert str(path) in str(caught.value)


def test_a_backup_that_is_cut_short_anywhere_is_refused(
    life: Path, tmp_path: Path, inspect: Any
) -> None:
    original, path = snapshot_of(life).read_bytes(), tmp_path / "b"
    for length in [0, 1, 11, 100, len(original) // 2, len(original) - 1]:
        path.write_bytes(original[:length])
        outcome = inspect(path, "-o", "json")
        assert outcome.code == 1
        error = json.loads(outcome.stderr)["error"]
        assert error["code"] == ("damaged" if length >= 11 else "not-a-backup")
        if length >= 11:
            assert "cut short" in error["cause"]
        assert not outcome.document["ok"]
