"""What `raftctl what-if` and `raftctl status` predict, and what real servers then do."""

from __future__ import annotations

from typing import Any

from tests.cluster.conftest import MakeCluster
from tests.cluster.processes import Outcome, RunningCluster, wait_for

EXIT_UNSAFE = 6


def what_if(cluster: RunningCluster, *words: str) -> tuple[int, Any]:
    asked = cluster.ctl("what-if", *words, "-o", "json")
    return asked.code, asked.document


def put(cluster: RunningCluster, key: str, *words: str) -> Outcome:
    return cluster.ctl("put", key, "value", *words)


def wait_dead(cluster: RunningCluster, name: str) -> None:
    """Wait until status counts a server that was killed as dead, with somebody leading."""

    def counted() -> bool:
        found = cluster.json_status()
        (row,) = [row for row in found["servers"] if row["id"] == name]
        return not row["reachable"] and found["leader"] not in (None, name)

    wait_for(f"{name} counts as dead", counted)


def test_what_is_predicted_to_go_on_goes_on_and_what_is_predicted_to_stop_stops(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster("n1", "n2", "n3", settings="zone: east")
    leader = cluster.wait_leader()
    cluster.wait_settled(["n1", "n2", "n3"])
    second, third = cluster.followers(leader)

    # All of it stands in one zone.
    assert what_if(cluster, "--lose-zone", "east")[0] == EXIT_UNSAFE
    code, found = what_if(cluster, "--remove", third.name)
    assert (code, found["failure_tolerance"]) == (0, 0)
    code, found = what_if(cluster, "--lose", leader.name)
    assert (code, found["outcome"]) == (0, "goes-on-after-election")
    assert set(found["could_lead"]) == {second.name, third.name}

    leader.kill()
    wait_dead(cluster, leader.name)
    assert cluster.wait_leader().name in found["could_lead"]
    assert put(cluster, "after").code == 0
    status = cluster.json_status()
    assert status["failure_tolerance"] == found["failure_tolerance"] == 0
    assert status["fatal_sets"] == found["fatal_sets"] == [[second.name], [third.name]]

    code, found = what_if(cluster, "--lose", second.name)
    assert (code, found["outcome"]) == (EXIT_UNSAFE, "stops")
    second.kill()
    assert put(cluster, "never", "--timeout", "1s").code != 0
    assert what_if(cluster)[1]["outcome"] == "stops"

    # What brings it back is what it said.
    leader.start()
    cluster.wait_leader()
    assert put(cluster, "again").code == 0


def test_status_of_a_server_shows_what_that_server_measures_of_itself(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster("n1", "n2", "n3", settings="zone: east")
    cluster.wait_settled(["n1", "n2", "n3"])
    assert put(cluster, "key").code == 0
    cluster["n3"].kill()
    cluster.wait_leader(["n1", "n2"])

    (row,) = cluster.ctl("status", "n2", "-o", "json").document["servers"]

    assert row["zone"] == "east"
    assert 0 < row["sync_p50_ms"] <= row["sync_p99_ms"]
    assert row["disk_free_bytes"] > row["disk_reserve_bytes"] > 0
    assert row["log_bytes"] > 0
    assert row["cpu_ms"] > 0
    assert 1 << 20 < row["rss_anon_bytes"] <= row["rss_bytes"]
    assert row["protocol_version_max"] >= row["features"] > 0
    assert abs(row["clock_difference_ms"]) < 5_000
    links = {link["id"]: link for link in row["links"]}
    assert links["n1"]["connected"] is True
    assert links["n1"]["protocol_version"] == row["protocol_version_max"]

    def noticed() -> bool:
        (again,) = cluster.ctl("status", "n2", "-o", "json").document["servers"]
        (link,) = [link for link in again["links"] if link["id"] == "n3"]
        return not link["connected"] and bool(link["problem"])

    wait_for("n2 says why its link to n3 is down", noticed)
    text = cluster.ctl("status", "n2").stdout
    assert "LINKS    TO" in text
    assert "n3: " in text
