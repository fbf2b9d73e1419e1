"""Disks of real processes that are nearly full: writes are refused before one of them fails.

`disk_reserve` is what has to stay free, for the log of membership changes and of elections. Reads
and changes go on, and writes too as soon as there is room again. Each server has a small disk of
its own, which the tests fill with a file.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.failing_disk import NO_SMALL_DISK, used_bytes
from tests.cluster.processes import RunningCluster, Server, wait_for
from tests.cluster.test_disk_faults import put_megabytes
from tests.cluster.test_identity import row_of, wait_healthy

EXIT_REFUSED = 1
EXIT_NOT_HEALTHY = 1
EXIT_REMOVED = 70
MEBIBYTE = 1024 * 1024
DISK_BYTES = 48 * MEBIBYTE
NEARLY_FULL_BYTES = 12 * MEBIBYTE
"""What is left free of a disk that is nearly full: below the reserve, and enough for all that the
tests have to write there all the same."""
SNAPSHOT_LOG_MEBIBYTES = 4
SETTINGS = f"disk_reserve: 16MiB\nsnapshot_log_size: {SNAPSHOT_LOG_MEBIBYTES}MiB"
SHORT = r"(\d+) MiB of disk left, 16 MiB are reserved"


class SmallDisks(RunningCluster):
    """A cluster in which each server has a disk of `DISK_BYTES`."""

    def add_server(self, name: str, *, start: bool = True) -> Server:
        server = super().add_server(name, start=False)
        server.program = ("tests.cluster.failing_disk", f"small-disk={DISK_BYTES}")
        if start:
            server.start()
        return server


@pytest.fixture
def cluster(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[SmallDisks]:
    cluster = SmallDisks(tmp_path, settings=SETTINGS)
    try:
        cluster.form("n1", "n2", "n3")
        if NO_SMALL_DISK in cluster["n1"].log:
            with capsys.disabled():
                print(f"\n{NO_SMALL_DISK}")
        yield cluster
    finally:
        cluster.close()


def ballast_of(server: Server) -> Path:
    """Return a file on the disk of a server, which may be in a mount namespace of its own."""
    root = Path(f"/proc/{server.pid}/root")
    return root / server.data_dir.relative_to("/") / "ballast"


def fill(cluster: RunningCluster, *servers: Server) -> None:
    """Leave `NEARLY_FULL_BYTES` of the disks, and return when status shows it."""
    for server in servers:
        path = ballast_of(server)
        size_bytes = DISK_BYTES - NEARLY_FULL_BYTES - used_bytes(path.parent)
        with path.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, size_bytes)
    for server in servers:
        wait_for(f"{server.name} is short", lambda server=server: is_short(cluster, server))


def make_room(*servers: Server) -> None:
    for server in servers:
        ballast_of(server).unlink()


def is_short(cluster: RunningCluster, server: Server) -> bool:
    issue = rf"reported: the disk is nearly full: {SHORT}"
    return any(re.fullmatch(issue, shown) for shown in row_of(cluster, server.name)["issues"])


def refusal_of(cluster: RunningCluster, *words: str) -> dict[str, Any]:
    """Return the error of a write that is refused."""
    refused = cluster.ctl(*words, "-o", "json")
    assert refused.code == EXIT_REFUSED, refused.stderr
    error: dict[str, Any] = refused.error
    assert error["code"] == "disk-full"
    return error


def wait_writable(cluster: RunningCluster) -> None:
    wait_for("a write is accepted", lambda: cluster.ctl("put", "a", "2").code == 0)


def test_a_leader_whose_disk_is_nearly_full_refuses_writes_and_reads_go_on(
    cluster: SmallDisks,
) -> None:
    leader = cluster.wait_leader()
    assert cluster.ctl("put", "a", "1").code == 0
    fill(cluster, leader)

    refused = cluster.ctl("put", "a", "2")
    assert refused.code == EXIT_REFUSED
    assert refused.stdout == ""
    what, why, hint = refused.stderr.splitlines()
    assert what == "error: writes are refused, the disk is nearly full"
    numbers = re.fullmatch(rf"cause: on {leader.name}: {SHORT}", why)
    assert numbers is not None, why
    assert 8 <= int(numbers[1]) <= 12
    assert hint.startswith("  try: ")
    for words in (("put", "b", "1"), ("delete", "a"), ("cas", "a", "1", "2")):
        assert leader.name in refusal_of(cluster, *words)["cause"]

    assert cluster.ctl("get", "a").stdout == "1"
    assert cluster.ctl("get", "a", "--stale", "-e", leader.address).stdout == "1"
    assert cluster.ctl("list").stdout.splitlines()[1:] == ["a    1"]
    document = cluster.json_status()
    assert (document["health"], document["leader"]) == ("degraded", leader.name)
    assert document["failure_tolerance"] == 1
    checked = cluster.ctl("status", "--check")
    assert checked.code == EXIT_NOT_HEALTHY
    assert re.search(rf"the disk is nearly full: {SHORT}", " ".join(checked.stdout.split()))

    make_room(leader)
    wait_writable(cluster)
    assert cluster.ctl("get", "a").stdout == "2"
    wait_healthy(cluster)
    assert len(re.findall(f"{SHORT}: writes are refused while", leader.log)) == 1
    assert leader.log.count("there is enough disk again") == 1


def test_one_follower_whose_disk_is_nearly_full_stops_no_writes_and_two_of_three_do(
    cluster: SmallDisks,
) -> None:
    first, second = cluster.followers(cluster.wait_leader())
    fill(cluster, first)
    assert cluster.ctl("put", "a", "1").code == 0
    assert cluster.json_status()["health"] == "degraded"
    fill(cluster, second)
    wait_for("writes are refused", lambda: cluster.ctl("put", "a", "2").code == EXIT_REFUSED)
    cause = refusal_of(cluster, "put", "a", "2")["cause"]
    assert {first.name, second.name} <= set(re.findall(r"n\d", cause))
    assert "without them there is no majority" in cause
    assert cluster.ctl("get", "a").stdout == "1"
    make_room(first)
    wait_writable(cluster)
    make_room(second)
    wait_healthy(cluster)


def test_servers_whose_disks_are_nearly_full_are_replaced_and_writes_go_on(
    cluster: SmallDisks,
) -> None:
    assert cluster.ctl("put", "a", "1").code == 0
    leader = cluster.wait_leader()
    full = [leader, cluster.followers(leader)[0]]
    kept = cluster.followers(leader)[1]
    cluster.start_blank("n4", "n5")
    fill(cluster, *full)
    refusal_of(cluster, "put", "a", "2")
    words = []
    for server, name in zip(full, ("n4", "n5"), strict=True):
        words += [server.name, f"{name}={cluster[name].address}"]
    replaced = cluster.ctl("replace", *words, "--yes")
    assert replaced.code == 0, replaced.stderr
    wait_writable(cluster)
    wait_healthy(cluster)
    for server in full:
        assert server.wait_exit() == EXIT_REMOVED
    cluster.wait_settled(sorted(("n4", "n5", kept.name)))


def test_without_room_for_a_snapshot_it_is_postponed_and_status_says_so(
    cluster: SmallDisks,
) -> None:
    leader = cluster.wait_leader()
    follower = cluster.followers(leader)[0]
    fill(cluster, follower)
    put_megabytes(cluster, SNAPSHOT_LOG_MEBIBYTES + 1)

    def snapshot_index(server: Server) -> int:
        status = server.status()
        return status.snapshot_index if status is not None else 0

    def problem() -> str | None:
        issues = row_of(cluster, follower.name)["issues"]
        return next((issue for issue in issues if "no snapshot could be taken" in issue), None)

    wait_for("the leader takes a snapshot", lambda: snapshot_index(leader))
    shown = wait_for("status says why the follower takes none", problem)
    assert re.search(r": .*\d+.* free, .*\d+.* needed$", shown)
    assert snapshot_index(follower) == 0
    assert follower.log.count("no snapshot could be taken, so the log grows") == 1
    make_room(follower)
    wait_for("the follower takes its snapshot", lambda: snapshot_index(follower))
    wait_healthy(cluster)
