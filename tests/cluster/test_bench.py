"""`raftctl bench` on a cluster of real processes whose leader is killed meanwhile."""

from __future__ import annotations

import json

from raftctl.client import expect
from raftd.protocol import ListReply, ListRequest
from tests.cluster.conftest import MakeCluster


def test_a_benchmark_outlives_the_leader_and_tells_what_that_has_cost(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster("n1", "n2", "n3")
    cluster.wait_settled(["n1", "n2", "n3"])
    leader = cluster.wait_leader()
    words = ["--duration", "2s", "--warm-up", "100ms", "--clients", "8", "--pipeline", "4"]
    command = cluster.start_ctl("bench", "--keys", "100", "--verify", "-o", "json", *words)
    assert command.stdout is not None
    for line in command.stdout:
        if json.loads(line)["phase"] == "measuring":
            break
    leader.kill()
    ended = cluster.finish(command)
    assert ended.code == 0, ended.stderr
    found = ended.document

    # Each client had requests on their way to the leader that died; nobody knows of the writes.
    assert found["errors"]["unknown"] > 0
    assert found["errors"]["refused"] == 0
    assert found["unresolved"] == 0
    # All of it is there, once, also what was acknowledged by the leader that died.
    assert found["verified"] == {"keys": 100, "lost": [], "lost_count": 0}
    assert found["missed"] == 0

    names = [each["id"] for each in found["leaders"]]
    assert names[0] == leader.name != names[-1]
    # Nothing is answered between two leaders, and a new one is chosen in no time where the process
    # of the old one is known to have ended.
    slowest_ms = max(found[kind]["max_ms"] for kind in ("puts", "gets"))
    medians_ms = [found[kind]["p50_ms"] for kind in ("puts", "gets")]
    assert slowest_ms > 0.9 * found["longest_gap_ms"] > 2 * min(medians_ms)
    assert found["puts"]["count"] + found["gets"]["count"] == found["count"] > 0

    servers = {each["id"]: each for each in found["servers"]}
    assert servers.pop(leader.name)["reachable"] is False
    for server in servers.values():
        assert server["reachable"] is True
        assert 0 < server["cpu_ms"] < 10_000
        assert server["cpu_fraction"] > 0
        assert 0 < server["rss_anon_bytes"] <= server["rss_anon_max_bytes"]
        assert server["rss_anon_bytes"] <= server["rss_bytes"]

    assert found["keys_removed"] == 100
    with cluster.client() as client:
        listed = expect(client.ask(ListRequest(prefix="raftctl-bench/")), ListReply)
    assert listed.entries == ()
