"""A cluster that is upgraded one server at a time, under writes, and what is not possible after."""

from __future__ import annotations

from collections.abc import Sequence

from raftd.protocol import PROTOCOL_VERSION_MAX, ErrorReply, GetRequest
from tests.cluster.conftest import MakeCluster
from tests.cluster.processes import RunningCluster, Server, wait_for
from tests.cluster.workload import Workload

EXIT_STORAGE = 74
OLDER = ("tests.cluster.older_release",)
BEFORE = ("tests.cluster.previous_release",)
NOW = ("raftd",)
NEW = {PROTOCOL_VERSION_MAX}


VOTERS = ("n1", "n2", "n3")


def upgrade(cluster: RunningCluster, server: Server, learners: Sequence[str] = ()) -> None:
    """Stop a server as an operator does, start this release, and wait until it has caught up."""
    server.terminate()
    assert server.wait_exit() == 0
    server.program = NOW
    server.start()
    cluster.wait_settled(VOTERS, learners)


def features(cluster: RunningCluster) -> dict[str, int]:
    return {name: status.features for name, status in cluster.statuses().items()}


def reads_here(cluster: RunningCluster) -> set[str]:
    """Return what comes of a read that each server is to answer by itself."""
    replies = [
        server.ask(GetRequest(key="none", through_follower=True))
        for server in cluster.servers.values()
    ]
    return {
        reply.code if isinstance(reply, ErrorReply) else type(reply).__name__ for reply in replies
    }


def issues(cluster: RunningCluster) -> str:
    return "\n".join(issue for status in cluster.statuses().values() for issue in status.issues)


def shown_issues(cluster: RunningCluster, server: Server) -> str:
    """Return what `raftctl status` says of one server."""
    rows = {row["id"]: row for row in cluster.json_status()["servers"]}
    return "\n".join(rows[server.name]["issues"])


def test_features_come_on_with_the_last_upgraded_server_and_old_ones_stay_out(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster()
    # Three releases: what the middle one has features for stays off as well.
    cluster.program = BEFORE
    cluster.add_server("n2", start=False)
    cluster.program = OLDER
    cluster.form(*VOTERS)
    with Workload(cluster.client, writers=1) as work:
        work.wait_writes(50)
        for name in ("n1", "n2"):
            upgrade(cluster, cluster[name])
            work.wait_writes(50)
            assert set(features(cluster).values()) == {0}
            # Who cannot, or whose leader cannot say how far, names the leader.
            assert reads_here(cluster) == {"GetReply", "not-leader"}
            early = cluster.ctl("put", "lease", "me", "--ttl", "1h", "--timeout", "2s")
            # By the leader, or of an older one.
            assert early.code in (1, 3), early.stderr
            assert "upgrade every member" in early.stderr or "is too old" in early.stderr
        # Both releases write the records of a change.
        cluster.start_blank("n4")
        added = cluster.ctl("add", f"n4={cluster['n4'].address}", "--learner")
        assert added.code == 0, added.stderr
        unknown = cluster.ctl("history")
        assert unknown.code == 0, unknown.stderr
        assert "there is no history yet" in unknown.stderr
        assert "n3 (speaks 2)" in unknown.stderr
        upgrade(cluster, cluster["n3"], ["n4"])
        work.wait_writes(50)
        # A learner is a member as well.
        assert set(features(cluster).values()) == {0}
        upgrade(cluster, cluster["n4"], ["n4"])
        wait_for("the features everywhere", lambda: set(features(cluster).values()) == NEW)
        wait_for("answers of all", lambda: reads_here(cluster) == {"GetReply"})
        lease = cluster.ctl("put", "lease", "me", "--if-absent", "--ttl", "1h")
        assert lease.code == 0, lease.stderr
        promoted = cluster.ctl("promote", "n4", "--reason", "more room")
        assert promoted.code == 0, promoted.stderr
        work.wait_writes(50)
    with cluster.client() as client:
        work.check_nothing_is_lost(client)
    assert "divergence" not in issues(cluster)
    assert not any("divergence" in server.log for server in cluster.servers.values())

    history = cluster.ctl("history", "-o", "json").document
    kinds = [configuration["kind"] for configuration in history["configurations"]]
    # The one that was in force when they came on, and what came since.
    assert kinds == ["final", "joint", "simple"]
    assert history["complete"] is False
    assert history["configurations"][0]["voters"] == ["n1", "n2", "n3", "n4"]
    assert history["configurations"][0]["reason"] == "more room"
    assert "is not recorded" in cluster.ctl("history").stderr

    # A server of the release before cannot become a member any more, and is told why.
    cluster.program = BEFORE
    cluster.start_blank("n5")
    refused = cluster.ctl("add", f"n5={cluster['n5'].address}", "-o", "json")
    assert refused.code == 1
    assert "speaks versions up to 4" in refused.error["message"] + refused.error["cause"]
    assert cluster.ctl("status", "-o", "json").document["configuration"]["joint"] is False

    going_back(cluster, cluster["n1"])


def going_back(cluster: RunningCluster, server: Server) -> None:
    """See the release before refuse the state, and the others refuse it without that state."""
    server.terminate()
    assert server.wait_exit() == 0
    server.program = BEFORE
    server.start()
    assert server.wait_exit() == EXIT_STORAGE
    assert "the state has format 5, this release reads 1 and 3 and 4" in server.log
    # Without its state it would begin again with the log, and stop at the entry.
    for file in (server.data_dir / "state").rglob("*"):
        if file.is_file():
            file.unlink()
    server.start()
    leader = cluster.wait_leader()
    wait_for("a refusal", lambda: "uses the features of version 5" in leader.log)
    wait_for("another one", lambda: "speaks versions 1 to 4, not 5 to 5" in server.log)
    wait_for("status says so", lambda: "speaks versions 1 to 4" in shown_issues(cluster, server))
    assert server.running
    server.kill()
    server.program = NOW
    server.start()
    cluster.wait_settled([*VOTERS, "n4"])
