"""Who a server is: wiped disks, removed servers that come back, disks of the past, copies.

What `raftctl status` says about them is what an operator does, word for word.
"""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest

from raftctl.client import expect
from raftd.core.types import server_incarnation
from raftd.protocol import GetReply, GetRequest, PutRequest, WriteReply
from tests.cluster.conftest import MakeCluster
from tests.cluster.processes import RunningCluster, Server, wait_for

EXIT_REMOVED = 70
EXIT_STORAGE = 74
EXIT_NOT_HEALTHY = 1
LETTERS = "abcdef"


def row_of(cluster: RunningCluster, name: str) -> dict[str, Any]:
    rows = [row for row in cluster.json_status()["servers"] if row["id"] == name]
    assert len(rows) == 1, rows
    found: dict[str, Any] = rows[0]
    return found


def wait_issue(cluster: RunningCluster, name: str, kind: str) -> str:
    """Return the issue of this kind that status shows for a server, as soon as it does."""

    def shown() -> str | None:
        issues = row_of(cluster, name)["issues"]
        return next((issue for issue in issues if issue.startswith(f"{kind}: ")), None)

    return wait_for(f"{name} is shown as {kind}", shown)


def repair_command(issue: str) -> list[str]:
    """Return the words after `raftctl` of the command that an issue ends with."""
    _, _, repair = issue.partition("; repair: ")
    *_, command = repair.split(", then ")
    program, *words = shlex.split(command)
    assert program == "raftctl"
    return words


def wait_healthy(cluster: RunningCluster) -> None:
    waited = cluster.ctl("wait", "--for", "healthy", "--timeout", "30s")
    assert waited.code == 0, waited.stderr
    checked = cluster.ctl("status", "--check")
    assert checked.code == 0, checked.stdout


def joint_entries(cluster: RunningCluster) -> int:
    """Return how many joint configurations the leader has seen committed."""
    return cluster.wait_leader().log.count("(joint) is committed")


def put_all(cluster: RunningCluster) -> None:
    """Write every letter; each write is acknowledged when this returns."""
    with cluster.client() as client:
        for letter in LETTERS:
            reply = client.write(
                lambda session, serial, lowest, letter=letter: PutRequest(
                    session=session,
                    serial=serial,
                    lowest_unacknowledged=lowest,
                    key=letter,
                    value=letter.encode(),
                )
            )
            assert expect(reply, WriteReply).applied


def check_has_all(server: Server) -> None:
    """Read every letter from the state of one server itself."""
    for letter in LETTERS:
        reply = server.ask(GetRequest(key=letter, stale=True))
        assert isinstance(reply, GetReply)
        assert reply.value == letter.encode()


def copy_of(server: Server, folder: Path) -> Path:
    """Return a copy of the data directory of a server that does not run."""
    assert not server.running
    copy = folder / f"copy-of-{server.name}"
    shutil.copytree(server.data_dir, copy)
    return copy


def put_back(server: Server, copy: Path) -> None:
    server.wipe()
    shutil.copytree(copy, server.data_dir)


# --- wiped disks ------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["follower", "leader"])
def test_a_wiped_disk_is_named_by_status_with_the_command_that_repairs_it(
    make_cluster: MakeCluster, role: str
) -> None:
    cluster = make_cluster("n1", "n2", "n3")
    put_all(cluster)
    leader = cluster.wait_leader()
    lost = leader if role == "leader" else cluster.followers(leader)[0]
    before = lost.status()
    assert before is not None
    lost.kill()
    lost.wipe()
    lost.start()
    after = wait_for("the wiped server answers", lost.status)
    cluster.wait_leader([name for name in cluster.servers if name != lost.name])

    issue = wait_issue(cluster, lost.name, "wiped")
    new, old = (server_incarnation(status.server) for status in (after, before))
    words = f"replace {lost.name} {lost.name}={lost.address}"
    command = f"raftctl -c {cluster.config_path} {words}"
    assert f"(incarnation {new}, the cluster knows {old})" in issue
    assert issue.endswith(f"; repair: {command}")
    # It answers us, and is still none of the two that are left.
    assert cluster.json_status()["failure_tolerance"] == 0
    checked = cluster.ctl("status", "--check")
    assert checked.code == EXIT_NOT_HEALTHY
    assert f"    repair: {command}" in checked.stdout.splitlines()

    joint_before = joint_entries(cluster)
    repaired = cluster.ctl(*repair_command(issue), "--yes", "-o", "json")
    assert repaired.code == 0, repaired.stderr
    wait_healthy(cluster)
    assert joint_entries(cluster) == joint_before + 1
    settled = cluster.wait_settled(["n1", "n2", "n3"])
    assert settled.configuration is not None
    assert after.server in settled.configuration.voters
    assert before.server not in settled.configuration.voters
    check_has_all(lost)


# --- removed servers --------------------------------------------------------------------------


def test_a_removed_server_that_is_started_again_says_so_and_moves_no_term(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster("n1", "n2", "n3", "n4")
    gone = cluster.followers(cluster.wait_leader())[-1]
    rest = sorted(set(cluster.servers) - {gone.name})
    gone.kill()
    before_removal = copy_of(gone, cluster.folder)
    gone.start()
    cluster.wait_settled([*rest, gone.name])
    identity = gone.status()
    assert identity is not None
    removed = cluster.ctl("remove", gone.name, "-y")
    assert removed.code == 0, removed.stderr
    assert gone.wait_exit() == EXIT_REMOVED
    index = cluster.wait_settled(rest).configuration
    assert index is not None
    term = cluster.term()

    # Its own disk knows it, and an older copy of it has to be told.
    for restore in (None, before_removal):
        if restore is not None:
            put_back(gone, restore)
        length = len(gone.log)
        gone.start()
        assert gone.wait_exit() == EXIT_REMOVED
        said = gone.log[length:]
        assert f"{identity.server} " in said
        assert "removed" in said
        assert f"configuration {index.index}" in said
    assert cluster.ctl("put", "a", "1").code == 0
    cluster.wait_settled(rest)
    assert cluster.term() == term


def test_a_server_that_was_removed_while_it_was_away_says_so_and_moves_no_term(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster("n1", "n2", "n3")
    gone = cluster.followers(cluster.wait_leader())[-1]
    rest = sorted(set(cluster.servers) - {gone.name})
    gone.kill()
    removed = cluster.ctl("remove", gone.name, "-y")
    assert removed.code == 0, removed.stderr
    term = cluster.term()
    gone.start()
    assert gone.wait_exit() == EXIT_REMOVED
    assert "removed" in gone.log.splitlines()[-1]
    assert gone.name in gone.log.splitlines()[-1]
    cluster.wait_settled(rest)
    assert cluster.term() == term


# --- disks that went back in time -------------------------------------------------------------


def restored(cluster: RunningCluster) -> tuple[Server, Server, Path]:
    """Return a follower that has stopped, the other one, and a copy of the former's older disk."""
    old, other = cluster.followers(cluster.wait_leader())
    old.kill()
    copy = copy_of(old, cluster.folder)
    old.start()
    cluster.wait_settled(["n1", "n2", "n3"])
    put_all(cluster)
    # It has acknowledged all of them.
    cluster.wait_settled(["n1", "n2", "n3"])
    old.kill()
    return old, other, copy


def test_a_disk_that_went_back_in_time_under_one_leader_is_fenced_until_it_is_replaced(
    make_cluster: MakeCluster,
) -> None:
    # A machine that stands still for a moment must not have another leader, who fences nobody.
    cluster = make_cluster("n1", "n2", "n3", settings="election_timeout: 3s")
    old, _, copy = restored(cluster)
    put_back(old, copy)
    old.start()
    issue = wait_issue(cluster, old.name, "fenced")
    assert "its disk went back in time" in issue
    wait_for(
        "it knows it itself",
        lambda: any(
            "has fenced this server" in issue for issue in row_of(cluster, old.name)["issues"]
        ),
    )
    assert f"raftctl replace {old.name} {old.name}={old.address}" in old.log
    assert cluster.json_status()["failure_tolerance"] == 0
    checked = cluster.ctl("status", "--check")
    assert checked.code == EXIT_NOT_HEALTHY
    assert f"    {issue.rpartition(', then ')[2]}" in checked.stdout.splitlines()
    # It is the server's own issue and nobody else's, and the leader's log tells it once.
    leader = cluster.wait_leader()
    assert row_of(cluster, leader.name)["issues"] == []
    (told,) = [line for line in leader.log.splitlines() if " is fenced" in line]
    assert '"level": "warning"' in told
    assert f"raftctl replace {old.name} {old.name}={old.address}" in told

    # The way back, step by step as the issue says it.
    assert f"repair: stop {old.name}, empty its data directory, start it again, then " in issue
    old.kill()
    old.wipe()
    old.start()
    wait_issue(cluster, old.name, "wiped")
    repaired = cluster.ctl(*repair_command(issue), "--yes")
    assert repaired.code == 0, repaired.stderr
    wait_healthy(cluster)
    cluster.wait_settled(["n1", "n2", "n3"])
    check_has_all(old)


def test_a_fenced_disk_commits_nothing_for_the_leader_that_it_failed(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster("n1", "n2", "n3")
    leader = cluster.wait_leader()
    old, other, copy = restored(cluster)
    put_back(old, copy)
    old.start()
    wait_issue(cluster, old.name, "fenced")
    other.pause()
    before = leader.status()
    assert before is not None
    assert before.leadership_confirmed
    writing = cluster.start_ctl("put", "z", "1", "--timeout", "30s")

    def deposed() -> bool:
        status = leader.status()
        assert status is not None
        if (status.role, status.term) != ("leader", before.term):
            return True
        # Leader and fenced server are two of three, and commit nothing.
        assert status.commit_index == before.commit_index
        return False

    wait_for("the leader that hears only from a fenced server steps down", deposed)
    other.resume()
    cluster.finish(writing)
    # For the next leader it is a follower that lags, and is fed all that it lacks.
    wait_healthy(cluster)
    cluster.wait_settled(["n1", "n2", "n3"])
    check_has_all(old)


def test_a_disk_that_went_back_in_time_is_a_follower_that_lags_for_the_next_leader(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster("n1", "n2", "n3")
    old, other, copy = restored(cluster)
    put_back(old, copy)
    moved = cluster.ctl("transfer", other.name)
    assert moved.code == 0, moved.stderr
    old.start()
    wait_healthy(cluster)
    cluster.wait_settled(["n1", "n2", "n3"])
    check_has_all(old)
    assert cluster.wait_leader() is other


def test_an_older_log_under_a_newer_state_is_refused(make_cluster: MakeCluster) -> None:
    cluster = make_cluster("n1", "n2", "n3")
    old, _, copy = restored(cluster)
    shutil.rmtree(old.data_dir / "wal")
    shutil.copytree(copy / "wal", old.data_dir / "wal")
    old.start()
    assert old.wait_exit() == EXIT_STORAGE
    said = old.log.splitlines()[-1]
    assert f"{old.data_dir}: " in said
    assert re.search(r"entries \d+ to \d+ were applied, but the log ends at \d+", said)
    back = f"stop it, empty {old.data_dir}, start it again (it is blank then), and run: raftctl "
    assert f"{back}replace {old.name} {old.name}={old.address}" in said
    assert said.count("raftctl replace") == 1


# --- copies -----------------------------------------------------------------------------------


def test_a_copied_data_directory_does_not_disturb_a_cluster_that_has_a_leader(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster("n1", "n2", "n3")
    original = cluster.followers(cluster.wait_leader())[0]
    original.kill()
    copy = copy_of(original, cluster.folder)
    original.start()
    cluster.wait_settled(["n1", "n2", "n3"])
    term = cluster.term()

    def old_enough() -> bool:
        status = original.status()
        return status is not None and status.uptime_ms > 5_000

    # Only by how long they run can the two be told apart from one that has two addresses.
    wait_for("the original has run for a while", old_enough)
    clone = cluster.add_server("clone", start=False)
    clone.name = original.name
    cluster.write_config(clone.config_path, [clone])
    clone.start("--data-dir", str(copy))
    wait_for("the copy answers", clone.status)
    put_all(cluster)
    addresses = [cluster[name].address for name in ("n1", "n2", "n3")]
    asked = cluster.ctl("status", "--check", "-e", ",".join([*addresses, clone.address]))
    assert asked.code == EXIT_NOT_HEALTHY
    assert f"cloned: another process at {clone.address}" in " ".join(asked.stdout.split())
    clone.kill()
    wait_healthy(cluster)
    assert cluster.term() == term
    check_has_all(original)


# --- strangers --------------------------------------------------------------------------------


def test_a_server_of_another_cluster_in_the_place_of_a_member_is_named_and_counts_for_nothing(
    make_cluster: MakeCluster,
) -> None:
    cluster, other = make_cluster("n1", "n2", "n3"), make_cluster("n9")
    away = cluster.followers(cluster.wait_leader())[0]
    stranger = other["n9"]
    away.kill()
    stranger.kill()
    # Its file says so, its log does not: the log is obeyed, and it listens all the same.
    stranger.listen = stranger.address = away.listen
    other.write_config(stranger.config_path, [stranger])
    stranger.start()
    issue = wait_issue(cluster, away.name, "other-cluster")
    assert "n9/" in issue
    assert f"start {away.name} with its own data directory there" in issue
    document = cluster.json_status()
    assert document["failure_tolerance"] == 0
    assert row_of(cluster, away.name)["last_index"] is None
    assert cluster.ctl("status", "--check").code == EXIT_NOT_HEALTHY
    stranger.kill()
    away.start()
    wait_healthy(cluster)
