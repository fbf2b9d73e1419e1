"""Backup and restore with real processes: under load, from any server, through crashes."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from raftctl.client import Cluster as Client
from raftctl.client import expect
from raftd.core.types import server_name
from raftd.protocol import (
    ListReply,
    ListRequest,
    PutRequest,
    StatusReply,
    WriteReply,
)
from raftd.storage.files import OsFileSystem
from raftd.storage.state import StateMachine
from tests.cluster.conftest import MakeCluster
from tests.cluster.processes import Outcome, RunningCluster, Server, voter, wait_for
from tests.storage.snapshotting import store_of

PAIRS = 3
VALUE_BYTES = 256 * 1024


def put(client: Client, key: str, value: bytes) -> WriteReply:
    reply = client.write(
        lambda session, serial, lowest: PutRequest(
            session=session, serial=serial, lowest_unacknowledged=lowest, key=key, value=value
        )
    )
    return expect(reply, WriteReply)


def fill(cluster: RunningCluster, mebibytes: int) -> None:
    """Write so much: what is copied then takes a moment."""
    with cluster.client() as client:
        for number in range(4 * mebibytes):
            put(client, f"fill/{number:05d}", number.to_bytes(4, "big") * (VALUE_BYTES // 4))


def entries_of(cluster: RunningCluster, names: list[str]) -> dict[str, tuple[bytes, int, int]]:
    found = {}
    with cluster.client(names) as client:
        # Ten large values at a time: a reply has room for no more.
        for prefix in ("new", *(f"fill/{tens:04d}" for tens in range(10))):
            reply = expect(client.ask(ListRequest(prefix=prefix)), ListReply)
            assert not reply.more
            found |= {e.key: (e.value, e.mod_revision, e.version) for e in reply.entries}
    return found


class CounterPair(threading.Thread):
    """Writes N to its first key, then N to its second one, N from 1 on."""

    def __init__(self, name: str, client: Client) -> None:
        super().__init__(daemon=True)
        self.first, self.second = f"pair/{name}/a", f"pair/{name}/b"
        self.acknowledged = 0
        self.ended = threading.Event()
        self.error: Exception | None = None
        self._client = client

    def run(self) -> None:
        try:
            with self._client as client:
                while not self.ended.is_set():
                    value = str(self.acknowledged + 1).encode()
                    put(client, self.first, value)
                    put(client, self.second, value)
                    self.acknowledged += 1
        except Exception as error:
            self.error = error


def state_in(path: Path) -> StateMachine:
    return StateMachine(store_of(OsFileSystem(), path))


def number_at(state: StateMachine, key: str) -> int:
    found = state.get(key)
    return int(found.value) if found is not None else 0


def backup(cluster: RunningCluster, path: Path, *words: str) -> Any:
    outcome = cluster.ctl("backup", str(path), "-o", "json", *words)
    assert outcome.code == 0, outcome.stderr
    return outcome.document


def follow(process: subprocess.Popen[str], reached: Callable[[Any], bool]) -> Any:
    """Read the lines of a raftctl until one is as wanted; return it, None if none is."""
    assert process.stdout is not None
    for line in process.stdout:
        document = json.loads(line)
        if reached(document):
            return document
    return None


def phase(*words: str) -> Callable[[Any], bool]:
    return lambda line: any(word in str(line.get("phase", "")) for word in words)


def write_cluster_file(cluster: RunningCluster, *names: str) -> list[Server]:
    """Start blank servers and list them in the cluster file."""
    servers = [cluster.add_server(name, start=False) for name in names]
    cluster.write_config(cluster.config_path, servers)
    for server in servers:
        cluster.write_config(server.config_path, servers)
        server.start()
    for server in servers:
        wait_for(f"{server.name} answers", server.status)
    return servers


def restore(cluster: RunningCluster, path: Path) -> Any:
    outcome = cluster.ctl("restore", str(path), "--yes", "-o", "json")
    assert outcome.code == 0, outcome.stderr
    return outcome.document


def assert_untouched(cluster: RunningCluster) -> None:
    for server in cluster.servers.values():
        status = server.status()
        assert status is not None
        assert (status.role, status.snapshot_index) == ("blank", 0)
        assert list((server.data_dir / "snapshots").iterdir()) == []


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A cluster of three with 6 MiB, and a backup of it, for tests that only read them."""
    folder = tmp_path_factory.mktemp("source")
    cluster = RunningCluster(folder)
    try:
        cluster.form("n1", "n2", "n3")
        fill(cluster, 6)
        backup(cluster, folder / "b")
        yield cluster
    finally:
        cluster.close()


@pytest.fixture
def original(source: RunningCluster) -> Path:
    return source.folder / "b"


# --- backup -------------------------------------------------------------------------------------


def test_a_backup_under_load_is_one_moment_after_it_was_asked_for(
    make_cluster: MakeCluster, tmp_path: Path
) -> None:
    cluster = make_cluster("n1", "n2", "n3")
    fill(cluster, 4)
    pairs = [CounterPair(str(number), cluster.client()) for number in range(PAIRS)]
    for pair in pairs:
        pair.start()
    try:
        wait_for("writes", lambda: all(pair.acknowledged > 10 for pair in pairs))
        leader = cluster.wait_leader()
        for number, server in enumerate([leader, *cluster.followers(leader)]):
            before = [pair.acknowledged for pair in pairs]
            path = tmp_path / f"{number}.backup"
            result = backup(cluster, path, "--from", server.name)
            assert result["server"] == server.name
            state = state_in(path)
            assert state.revision == result["revision"]
            for pair, acknowledged in zip(pairs, before, strict=True):
                assert pair.error is None
                first, second = number_at(state, pair.first), number_at(state, pair.second)
                # The second key is written when the first one is there: no other state ever was.
                assert first - second in (0, 1)
                assert second >= acknowledged, "an acknowledged write is missing"
            assert result["keys"] == 16 + 2 * PAIRS
    finally:
        for pair in pairs:
            pair.ended.set()
        for pair in pairs:
            pair.join(20)


def test_a_backup_comes_from_a_follower_unless_it_is_told_otherwise(
    source: RunningCluster, tmp_path: Path
) -> None:
    result = backup(source, tmp_path / "b")
    leader = source.wait_leader()
    assert result["server"] in {server.name for server in source.followers(leader)}
    content = (tmp_path / "b").read_bytes()
    assert len(content) == result["size_bytes"]
    assert list(tmp_path.iterdir()) == [tmp_path / "b"]
    assert (tmp_path / "b").stat().st_mode & 0o077 == 0
    refused = source.ctl("backup", str(tmp_path / "c"), "--from", "n9", "-o", "json")
    assert refused.code == 1
    assert "n9 is not a member" in refused.error["message"]
    assert not (tmp_path / "c").exists()


def test_a_file_that_is_there_is_replaced_only_by_force(
    source: RunningCluster, tmp_path: Path
) -> None:
    path = tmp_path / "b"
    path.write_text("precious")
    refused = source.ctl("backup", str(path), "-o", "json")
    assert refused.code == 1
    assert refused.error["code"] == "exists"
    assert path.read_text() == "precious"
    backup(source, path, "--force")
    assert state_in(path).revision


def test_a_backup_goes_on_when_its_server_is_killed_in_the_middle(
    make_cluster: MakeCluster, tmp_path: Path
) -> None:
    cluster = make_cluster("n1", "n2", "n3")
    fill(cluster, 24)
    process = cluster.start_ctl("backup", str(tmp_path / "b"), "-o", "json")
    line = follow(process, phase("fetching from"))
    process.send_signal(signal.SIGSTOP)
    victim = cluster[line["phase"].split()[-1]]
    victim.kill()
    process.send_signal(signal.SIGCONT)
    outcome = cluster.finish(process)
    assert outcome.code == 0, outcome.stderr
    assert outcome.document["server"] != victim.name
    assert state_in(tmp_path / "b").revision == 96
    assert list(tmp_path.glob("b*")) == [tmp_path / "b"]


@pytest.mark.parametrize("at", ["asking", "fetching", "verifying"])
def test_ctrl_c_leaves_nothing_half_done(source: RunningCluster, tmp_path: Path, at: str) -> None:
    process = source.start_ctl("backup", str(tmp_path / "b"), "-o", "json")
    assert follow(process, phase(at))
    process.send_signal(signal.SIGINT)
    outcome = source.finish(process)
    assert outcome.code == 130
    assert list(tmp_path.iterdir()) == []


def test_without_a_leader_there_is_no_backup(make_cluster: MakeCluster, tmp_path: Path) -> None:
    cluster = make_cluster("n1", "n2", "n3")
    for name in ("n1", "n2"):
        cluster[name].kill()
    outcome = cluster.ctl("backup", str(tmp_path / "b"), "--timeout", "2s", "-o", "json")
    assert outcome.code == 3
    assert list(tmp_path.glob("b*")) == []


# --- restore ------------------------------------------------------------------------------------


def test_a_backup_becomes_a_cluster_of_other_size_and_names(
    source: RunningCluster, original: Path, make_cluster: MakeCluster
) -> None:
    cluster = make_cluster()
    write_cluster_file(cluster, "m1", "m2", "m3", "m4", "m5")
    result = restore(cluster, original)
    assert result["result"] == "done"
    assert sorted(result["configuration"]["voters"]) == ["m1", "m2", "m3", "m4", "m5"]
    status = cluster.wait_settled(["m1", "m2", "m3", "m4", "m5"])
    before = source.wait_leader().status()
    assert before is not None
    assert status.cluster_id != before.cluster_id
    assert status.revision == before.revision
    assert status.term > before.term
    assert entries_of(cluster, ["m1"]) == entries_of(source, ["n1"])
    # Each of them serves it after a restart.
    cluster["m2"].kill()
    cluster["m2"].start()
    cluster.wait_settled(["m1", "m2", "m3", "m4", "m5"])
    with cluster.client(["m1"]) as client:
        assert put(client, "new", b"1").revision == before.revision + 1
    again = cluster.ctl("restore", str(original), "--yes")
    assert again.code == 0, again.stderr
    assert "was restored from" in again.stderr
    # And init finds a cluster that is as the file says.
    assert "formed already" in cluster.ctl("init").stderr


def steps(line: Any) -> str:
    """Return the step of a restore that a line of its progress speaks of."""
    if line.get("operation") and line["type"] == "progress":
        return "bringing in"
    text = str(line.get("phase", ""))
    return next((word for word in ("sending", "works it in", "holds it") if word in text), text)


@pytest.mark.parametrize("step", ["sending", "works it in", "holds it", "bringing in"])
@pytest.mark.parametrize("together", [True, False], ids=["raftctl-goes-on", "both-killed"])
def test_a_restore_survives_kill_9_of_its_first_server(
    original: Path, make_cluster: MakeCluster, step: str, together: bool
) -> None:
    cluster = make_cluster(settings="snapshot_rate: 8MiB")
    servers = write_cluster_file(cluster, "m1", "m2", "m3")
    process = cluster.start_ctl("restore", str(original), "--yes", "-o", "json")
    line = follow(process, lambda line: steps(line) == step)
    assert line, "the step was never seen"
    process.send_signal(signal.SIGSTOP)
    servers[0].kill()
    if not together:
        process.kill()
        cluster.finish(process)
        servers[0].start()
    else:
        servers[0].start()
        process.send_signal(signal.SIGCONT)
        cluster.finish(process)
    wait_for("m1 answers", servers[0].status)
    restore(cluster, original)
    status = cluster.wait_settled(["m1", "m2", "m3"])
    assert status.revision == 24
    assert len(entries_of(cluster, ["m1"])) == 24


def damaged(original: Path, path: Path, how: str) -> None:
    content = bytearray(original.read_bytes())
    if how == "flipped bit":
        content[len(content) // 3] ^= 0x10
    elif how == "cut short":
        del content[-100_000:]
    else:
        content = bytearray(b"something else entirely\n" * 100)
    path.write_bytes(content)


@pytest.fixture(scope="module")
def blank(tmp_path_factory: pytest.TempPathFactory) -> Any:
    cluster = RunningCluster(tmp_path_factory.mktemp("blank"))
    try:
        write_cluster_file(cluster, "m1", "m2")
        yield cluster
    finally:
        cluster.close()


@pytest.mark.parametrize("how", ["flipped bit", "cut short", "no backup"])
def test_a_damaged_backup_is_refused_before_anything_is_touched(
    blank: RunningCluster, original: Path, tmp_path: Path, how: str
) -> None:
    path = tmp_path / "damaged"
    damaged(original, path, how)
    outcome = blank.ctl("restore", str(path), "--yes", "-o", "json")
    assert outcome.code == 1
    assert str(path) in outcome.error["message"]
    assert outcome.error["code"] == ("not-a-backup" if how == "no backup" else "damaged")
    assert "nothing was sent" in outcome.error["cause"]
    assert_untouched(blank)


def test_a_restore_asks_first(blank: RunningCluster, original: Path) -> None:
    outcome = blank.ctl("restore", str(original), "-o", "json")
    assert outcome.code == 2
    assert outcome.error["code"] == "confirmation-needed"
    assert_untouched(blank)
    assert blank.ctl("restore", str(original) + ".not", "--yes").code == 2


def test_a_backup_is_restored_into_blank_servers_only(
    source: RunningCluster, original: Path, make_cluster: MakeCluster
) -> None:
    outcome = source.ctl("restore", str(original), "--yes", "-o", "json")
    assert outcome.code == 1
    assert outcome.error["code"] == "not-blank"
    assert "n1 n2 n3 are not blank" in outcome.error["message"]
    # One of them is enough.
    cluster = make_cluster()
    write_cluster_file(cluster, "m1", "m2")
    cluster.servers["n2"] = source["n2"]
    try:
        cluster.write_config(cluster.config_path, list(cluster.servers.values()))
        mixed = cluster.ctl("restore", str(original), "--yes", "-o", "json")
    finally:
        del cluster.servers["n2"]
    assert mixed.code == 1
    assert "n2 is not blank" in mixed.error["message"]
    assert_untouched(cluster)
    cluster["m2"].kill()
    cluster.write_config(cluster.config_path, [cluster["m1"], cluster["m2"]])
    gone = cluster.ctl("restore", str(original), "--yes", "-o", "json")
    assert gone.code == 1
    assert "m2" in gone.error["message"]
    del cluster.servers["m2"]
    assert_untouched(cluster)


def joined(outcome: Outcome) -> str:
    """Return what was printed, without the line breaks that the width of a terminal asks for."""
    return " ".join(outcome.stdout.split())


def test_init_does_not_pass_over_a_server_that_holds_a_backup(
    original: Path, make_cluster: MakeCluster
) -> None:
    cluster = make_cluster(settings="snapshot_rate: 8MiB")
    servers = write_cluster_file(cluster, "m1", "m2", "m3")
    process = cluster.start_ctl("restore", str(original), "--yes", "-o", "json")
    assert follow(process, lambda line: steps(line) == "sending")
    process.send_signal(signal.SIGINT)
    interrupted = cluster.finish(process)
    assert interrupted.code == 130
    command = f"raftctl -c {cluster.config_path} restore"
    assert interrupted.error["hint"] == f"{command} {original}"
    # It has all of it, or a part.
    refused = cluster.ctl("init", "-o", "json")
    assert refused.code == 1
    assert f"{command} FILE" in refused.error["hint"]
    process = cluster.start_ctl("restore", str(original), "--yes", "-o", "json")
    follow(process, lambda line: steps(line) in ("works it in", "holds it"))
    process.kill()
    cluster.finish(process)

    def holds() -> StatusReply | None:
        status = servers[0].status()
        return status if status is not None and status.snapshot_index else None

    status = wait_for("m1 holds it", holds)
    assert status.role == "blank"
    assert "holds a backup" in status.issues[0]
    assert "holds a backup" in cluster.ctl("status").stdout
    outcome = cluster.ctl("init", "-o", "json")
    assert outcome.code == 1
    assert "m1" in outcome.error["message"]
    assert "holds a backup" in outcome.error["cause"]
    assert outcome.error["hint"].startswith(f"`{command} FILE`, FILE being the backup up")
    assert f"`{command} FILE` with that backup finishes it" in joined(cluster.ctl("status"))
    restore(cluster, original)
    cluster.wait_settled(["m1", "m2", "m3"])


def test_an_operation_that_ran_when_the_backup_was_taken_is_ended(
    make_cluster: MakeCluster, tmp_path: Path
) -> None:
    # The new server takes half a minute to catch up.
    cluster = make_cluster("n1", "n2", "n3", settings="catch_up_rate: 64KiB")
    fill(cluster, 2)
    cluster.start_blank("n4")
    with cluster.client() as client:
        operation = cluster.start_change(client, "add", voter(cluster["n4"]))
    backup(cluster, tmp_path / "b")
    ran = state_in(tmp_path / "b").running_operation
    assert ran is not None, "the operation ended before the backup was taken"
    assert ran.id == operation
    other = make_cluster()
    write_cluster_file(other, "m1", "m2")
    restore(other, tmp_path / "b")
    status = other.wait_settled(["m1", "m2"])
    assert status.configuration is not None
    members = {server_name(server) for server in status.configuration.addresses}
    assert members == {"m1", "m2"}
    shown = other.ctl("operation", "show", operation, "-o", "json").document
    assert shown["result"] == "aborted"
    assert "restored from a backup" in shown["explanation"]


def test_a_backup_of_a_restored_cluster_is_as_good(
    original: Path, make_cluster: MakeCluster, tmp_path: Path
) -> None:
    cluster = make_cluster()
    write_cluster_file(cluster, "m1")
    restore(cluster, original)
    second = backup(cluster, tmp_path / "b")
    assert second["server"] == "m1"
    shutil.copy(tmp_path / "b", tmp_path / "c")
    other = make_cluster()
    write_cluster_file(other, "k1", "k2", "k3")
    restore(other, tmp_path / "c")
    other.wait_settled(["k1", "k2", "k3"])
    assert entries_of(other, ["k1"]) == entries_of(cluster, ["m1"])


# --- inspect ------------------------------------------------------------------------------------


def tree(path: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(file.relative_to(path)): (
            file.stat().st_mtime_ns,
            b"" if file.is_dir() else file.read_bytes(),
        )
        for file in [path, *path.rglob("*")]
    }


def test_a_directory_is_inspected_while_its_server_writes_and_after_it_has_stopped(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster("n1", settings="snapshot_log_size: 64KiB")
    server = cluster["n1"]
    pair = CounterPair("x", cluster.client())
    pair.start()
    try:
        wait_for("a snapshot", lambda: any((server.data_dir / "snapshots").glob("*.snap")))
        for _ in range(3):
            outcome = cluster.ctl("inspect", str(server.data_dir), "-o", "json")
            assert outcome.code == 0, outcome.stdout
            found = json.loads(outcome.stdout)
            assert str(server.pid) in found["running"]
            assert found["identity"]["name"] == "n1"
        before = pair.acknowledged
        wait_for("more writes", lambda: pair.acknowledged > before + 5)
    finally:
        pair.ended.set()
        pair.join(20)
    assert pair.error is None
    server.terminate()
    assert server.wait_exit() == 0
    content = tree(server.data_dir)
    found = json.loads(cluster.ctl("inspect", str(server.data_dir), "-o", "json").stdout)
    assert found["running"] is None
    assert found["ok"]
    assert found["state"]["proof"] == "clean stop"
    assert found["state"]["revision"] == 2 * pair.acknowledged
    assert tree(server.data_dir) == content
    server.start()
    wait_for("n1 leads", lambda: cluster.confirmed_leader())
