"""Servers that make something else of the same log: who is named, who stops, how it comes back."""

from __future__ import annotations

from tests.cluster.conftest import MakeCluster
from tests.cluster.processes import RunningCluster, Server, wait_for

EXIT_STORAGE = 74
WRONG = ("tests.cluster.diverging", "poison")


def restart_as(server: Server, *program: str) -> None:
    server.kill()
    server.program = program
    server.start()


def issues(cluster: RunningCluster, name: str) -> str:
    (row,) = [row for row in cluster.json_status()["servers"] if row["id"] == name]
    return "\n".join(row["issues"])


def put(cluster: RunningCluster, key: str) -> None:
    written = cluster.ctl("put", key, "value")
    assert written.code == 0, written.stderr


def test_a_follower_that_differs_from_a_majority_is_named_and_stops(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster("n1", "n2", "n3")
    leader = cluster.wait_leader()
    bad, good = cluster.followers(leader)
    restart_as(bad, *WRONG)
    cluster.wait_settled(["n1", "n2", "n3"])
    put(cluster, "poison")

    assert bad.wait_exit() == EXIT_STORAGE

    assert f"the state of {bad.name}/" in bad.log
    for server in (leader, good):
        wait_for(
            f"{server.name} names it",
            lambda server=server: f"{bad.name} made something else" in issues(cluster, server.name),
        )
    # The way back, as it is printed by status and by the server itself.
    words = f"replace {bad.name} {bad.name}={bad.address}"
    assert "diverged: it made something else of the log" in issues(cluster, bad.name)
    assert issues(cluster, bad.name).endswith(f"raftctl -c {cluster.config_path} {words}")
    assert f"raftctl {words}" in bad.log
    put(cluster, "more")


def test_a_leader_that_differs_from_a_majority_stops_and_another_one_leads(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster("n1", "n2", "n3")
    bad = cluster.followers(cluster.wait_leader())[0]
    restart_as(bad, *WRONG)
    cluster.wait_settled(["n1", "n2", "n3"])
    assert cluster.ctl("transfer", bad.name).code == 0
    put(cluster, "poison")

    assert bad.wait_exit() == EXIT_STORAGE

    assert cluster.wait_leader().name != bad.name
    put(cluster, "more")


def test_a_server_that_went_wrong_once_builds_its_state_again_and_is_healthy(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster("n1", "n2", "n3")
    bad = cluster.followers(cluster.wait_leader())[0]
    restart_as(bad, *WRONG)
    cluster.wait_settled(["n1", "n2", "n3"])
    put(cluster, "poison")
    assert bad.wait_exit() == EXIT_STORAGE

    restart_as(bad, "raftd")

    # Its live state was wrong; what it makes of the same log now is right.
    put(cluster, "more")
    assert cluster.ctl("wait", "--for", "healthy", "--timeout", "30s").code == 0
    value = cluster.ctl("get", "poison", "--stale", "-e", bad.address)
    assert value.stdout == "value"


def test_without_a_majority_all_report_it_and_none_stops(make_cluster: MakeCluster) -> None:
    cluster = make_cluster("n1", "n2")
    bad = cluster.followers(cluster.wait_leader())[0]
    restart_as(bad, *WRONG)
    cluster.wait_settled(["n1", "n2"])
    put(cluster, "poison")

    for name in ("n1", "n2"):
        wait_for(
            f"{name} reports it",
            lambda name=name: "no majority of the voters" in issues(cluster, name),
        )
    assert all(cluster[name].running for name in ("n1", "n2"))
    put(cluster, "more")
