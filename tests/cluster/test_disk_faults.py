"""Disks of real processes that fail, fill up, or come back with less or with something else.

A server that cannot trust its disk ends with 74 and says what to do; the others go on without it,
and nothing that was acknowledged is lost.
"""

from __future__ import annotations

import hashlib
import json
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from raftctl.client import expect
from raftd.protocol import PutRequest, WriteReply
from raftd.storage.wal import SEGMENT_BYTES
from tests.cluster import failing_disk
from tests.cluster.conftest import MakeCluster
from tests.cluster.processes import RunningCluster, Server, wait_for
from tests.cluster.workload import Workload

EXIT_STORAGE = 74
VALUE_BYTES = 1024 * 1024
SMALL_DISK_BYTES = 24 * 1024 * 1024
NO_SNAPSHOTS = "snapshot_log_size: 4GiB\ndisk_reserve: 0B"
"""The log is kept as it is written, and no write is refused before it fails."""


def failures(server: Server) -> list[str]:
    """Return what the server was told of calls that its disk has failed."""
    return [line for line in server.log.splitlines() if line.startswith(failing_disk.FAILED)]


def restart_with(cluster: RunningCluster, server: Server, fault: str) -> None:
    """Start a member again on a disk that can be made to fail."""
    server.kill()
    server.program = ("tests.cluster.failing_disk", fault)
    server.start()
    cluster.wait_settled(["n1", "n2", "n3"])


def choose(cluster: RunningCluster, role: str) -> Server:
    leader = cluster.wait_leader()
    return leader if role == "leader" else cluster.followers(leader)[0]


def message_of(server: Server) -> str:
    """Return the last thing that a server has logged before it ended."""
    line = [line for line in server.log.splitlines() if line.startswith("{")][-1]
    return str(json.loads(line)["message"])


def way_back(server: Server) -> str:
    """Return how a message ends that says how to get `server` back without its disk."""
    return (
        f": stop it, empty {server.data_dir}, start it again (it is blank then), and run: raftctl "
        f"replace {server.name} {server.name}={server.address}"
    )


def check_says_what_follows(server: Server) -> None:
    """Check that the message of a failed call goes on with what an operator does."""
    message = message_of(server)
    assert f". {server.name} ends and does not try again: " in message
    assert "Start it again when the disk works" in message
    assert message.endswith(way_back(server))


def tell_substitute(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    """Say in the output of the test where this machine did not let the kernel fail anything."""
    for substitute in (failing_disk.NO_SECCOMP, failing_disk.NO_SMALL_DISK):
        if substitute in server.log:
            with capsys.disabled():
                print(f"\n{substitute}")


def bring_back(cluster: RunningCluster, server: Server) -> None:
    """Walk the way back that the messages name: empty the directory, start, replace."""
    server.program = ("raftd",)
    if server.data_dir.exists():
        server.wipe()
    server.start()
    wait_for(f"{server.name} answers", server.status)
    words = ("replace", server.name, f"{server.name}={server.address}", "--yes")
    replaced = cluster.ctl(*words)
    assert replaced.code == 0, replaced.stderr
    waited = cluster.ctl("wait", "--for", "healthy")
    assert waited.code == 0, waited.stderr
    cluster.wait_settled(["n1", "n2", "n3"])


# --- calls that fail --------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["follower", "leader"])
@pytest.mark.parametrize(
    ("fault", "words"),
    [("sync-fails", "Input/output error"), ("disk-full", "No space left on device")],
)
def test_a_call_that_the_kernel_fails_ends_the_server_and_is_not_repeated(
    make_cluster: MakeCluster,
    capsys: pytest.CaptureFixture[str],
    fault: str,
    words: str,
    role: str,
) -> None:
    cluster = make_cluster("n1", "n2", "n3")
    victim = choose(cluster, "follower")
    restart_with(cluster, victim, fault)
    if role == "leader":
        assert cluster.ctl("transfer", victim.name).code == 0
        wait_for(f"{victim.name} leads", lambda: cluster.wait_leader() is victim)
    with Workload(cluster.client) as workload:
        workload.wait_writes(20)
        victim.signal(signal.SIGUSR1)
        assert victim.wait_exit() == EXIT_STORAGE
        tell_substitute(victim, capsys)
        message = message_of(victim)
        assert re.search(rf"{victim.data_dir}/\S+: .*{words}", message), message
        # Asked once, and never again: what a second sync says means nothing. The database of the
        # state writes past the functions that are observed, and syncs nothing while it runs.
        observed = failures(victim)
        assert len(observed) == 1 or (fault == "disk-full" and not observed)
        for failure in observed:
            path = failure.split(": ")[0].rpartition(" ")[2]
            assert f"{path}: " in message
        check_says_what_follows(victim)
        workload.wait_writes(20)
        workload.stop()
    rest = sorted({"n1", "n2", "n3"} - {victim.name})
    with cluster.client(rest) as client:
        workload.check_nothing_is_lost(client)
    # With a disk that works it goes on from what that has.
    victim.program = ("raftd",)
    victim.start()
    cluster.wait_settled(["n1", "n2", "n3"])
    assert victim.running


def test_a_small_disk_that_fills_up_ends_the_server_and_a_larger_one_brings_it_back(
    make_cluster: MakeCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster = make_cluster("n1", "n2", "n3", settings=NO_SNAPSHOTS)
    victim = choose(cluster, "follower")
    victim.kill()
    victim.wipe()
    victim.program = ("tests.cluster.failing_disk", f"small-disk={SMALL_DISK_BYTES}")
    victim.start("--data-dir", str(victim.data_dir))
    wait_for(f"{victim.name} answers", victim.status)
    replaced = cluster.ctl("replace", victim.name, f"{victim.name}={victim.address}", "--yes")
    assert replaced.code == 0, replaced.stderr
    put_megabytes(cluster, SMALL_DISK_BYTES // VALUE_BYTES + 1)
    assert victim.wait_exit() == EXIT_STORAGE
    tell_substitute(victim, capsys)
    assert str(victim.data_dir) in message_of(victim)
    # The database of the state calls a write that was taken in part an input/output error.
    words = r"No space left on device|File too large|Input/output error \(\d+ bytes .* are free\)"
    assert re.search(words, message_of(victim))
    check_says_what_follows(victim)
    assert cluster.ctl("put", "a", "1").code == 0
    bring_back(cluster, victim)
    assert cluster.ctl("get", "a", "--stale", "-e", victim.address).stdout == "1"


# --- disks that have changed ------------------------------------------------------------------


def put_megabytes(cluster: RunningCluster, count: int) -> None:
    """Write so many values of a megabyte; all are acknowledged when this returns."""
    with cluster.client() as client:
        for number in range(count):
            reply = client.write(
                lambda session, serial, lowest, number=number: PutRequest(
                    session=session,
                    serial=serial,
                    lowest_unacknowledged=lowest,
                    key=f"large/{number:03d}",
                    value=bytes([number % 256]) * VALUE_BYTES,
                )
            )
            assert expect(reply, WriteReply).applied


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCluster]:
    """A cluster whose logs have a closed segment; each test leaves it healthy."""
    cluster = RunningCluster(tmp_path_factory.mktemp("grown"), settings=NO_SNAPSHOTS)
    try:
        cluster.form("n1", "n2", "n3")
        put_megabytes(cluster, SEGMENT_BYTES // VALUE_BYTES + 2)
        cluster.wait_settled(["n1", "n2", "n3"])
        yield cluster
    finally:
        cluster.close()


def remove(path: Path) -> None:
    path.unlink()


def cut_short(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)


def flip_a_bit(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        (byte,) = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([byte ^ 0x10]))


def closed_segment(directory: Path) -> Path:
    return sorted(directory.glob("log-*.closed"))[0]


def open_segment(directory: Path) -> Path:
    return sorted(directory.glob("log-*.open"))[-1]


def digests(directory: Path) -> dict[str, str]:
    return {
        path.name: hashlib.blake2b(path.read_bytes()).hexdigest()
        for path in sorted(directory.iterdir())
    }


@pytest.mark.parametrize(
    ("choose_segment", "damage", "names_segment"),
    [
        (closed_segment, remove, False),
        (open_segment, remove, False),
        (closed_segment, cut_short, True),
        (closed_segment, flip_a_bit, True),
    ],
    ids=["first-missing", "newest-missing", "closed-cut-short", "closed-flipped"],
)
def test_a_damaged_log_is_refused_untouched_and_the_way_that_the_message_names_leads_back(
    grown: RunningCluster,
    choose_segment: Callable[[Path], Path],
    damage: Callable[[Path], None],
    names_segment: bool,
) -> None:
    victim = choose(grown, "follower")
    before = victim.status()
    assert before is not None
    victim.kill()
    wal = victim.data_dir / "wal"
    segment = choose_segment(wal)
    middle = segment.stat().st_size // 2
    damage(segment)
    damaged = digests(wal)
    # Twice: a refusal is no repair.
    for _ in range(2):
        victim.start()
        assert victim.wait_exit() == EXIT_STORAGE
        assert digests(wal) == damaged
        message = message_of(victim)
        assert str(segment if names_segment else wal) in message
        assert message.endswith(f". To get {victim.name} back{way_back(victim)}")
        assert message.count("raftctl") == 1
        lost = re.search(r"[Ee]ntries (?:from index )?(\d+) (?:on|to \d+)", message)
        assert lost is not None, message
        assert 1 <= int(lost[1]) <= before.last_index + 1
        if names_segment:
            offset = re.search(r"damaged at byte (\d+)", message)
            assert offset is not None, message
            # Somewhere in the batch that has the damage.
            assert middle - 3 * VALUE_BYTES <= int(offset[1]) <= middle
    bring_back(grown, victim)
    after = victim.status()
    assert after is not None
    assert after.revision >= before.revision
