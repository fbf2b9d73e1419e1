"""`raftd --trace FILE`: what real servers write, also when they are killed, stopped or removed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.cluster.conftest import MakeCluster
from tests.cluster.processes import RunningCluster, Server, wait_for

EXIT_REMOVED = 70
EXIT_USAGE = 2


def trace_path(server: Server) -> Path:
    return server.config_path.with_suffix(".trace")


def start_traced(cluster: RunningCluster, *names: str) -> None:
    """Start blank servers that one cluster file lists."""
    servers = [cluster.add_server(name, start=False) for name in names]
    cluster.write_config(cluster.config_path, servers)
    for server in servers:
        cluster.write_config(server.config_path, servers)
        server.start("--trace", str(trace_path(server)))
    for server in servers:
        wait_for(f"{server.name} answers", server.status)


def events(server: Server) -> list[dict[str, Any]]:
    """Return what its file has so far; the last line may not be there whole."""
    whole, _, _ = trace_path(server).read_bytes().rpartition(b"\n")
    return [json.loads(line) for line in whole.splitlines()]


def kinds(server: Server) -> list[str]:
    return [event["event"] for event in events(server)]


def configurations(server: Server) -> list[tuple[str, str, str]]:
    """Return kind, outgoing voters and voters of each configuration, in order."""

    def names(servers: list[str]) -> str:
        return " ".join(server.partition("/")[0] for server in servers)

    return [
        (event["kind"], names(event["outgoing"]), names(event["voters"]))
        for event in events(server)
        if event["event"] == "configuration"
    ]


def test_traces_of_a_cluster_tell_its_changes_and_that_its_states_agree(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster()
    start_traced(cluster, "n1", "n2", "n3")
    assert cluster.ctl("init").code == 0
    assert cluster.ctl("put", "key", "value").code == 0
    n4 = cluster.add_server("n4", start=False)
    n4.start("--trace", str(trace_path(n4)))
    wait_for("n4 answers", n4.status)
    assert cluster.ctl("replace", "n3", f"n4={n4.address}", "-y").code == 0
    assert cluster["n3"].wait_exit() == EXIT_REMOVED
    cluster.wait_settled(["n1", "n2", "n4"])
    assert cluster.ctl("put", "key", "again").code == 0

    # A server that is killed goes on in the same file.
    n4.kill()
    n4.start("--trace", str(trace_path(n4)))
    cluster.wait_settled(["n1", "n2", "n4"])
    members = [cluster[name] for name in ("n1", "n2", "n4")]
    for server in members:
        server.terminate()
        assert server.wait_exit() == 0

    for server in (*members, cluster["n3"]):
        seen = kinds(server)
        assert seen[0] == "start"
        assert seen[-1] == "stop"
        assert {"term", "role", "append", "commit", "configuration", "apply"} <= set(seen)
        assert seen.count("start") == (2 if server is n4 else 1)
    assert events(cluster["n3"])[-1]["why"].startswith("removed from the cluster")
    assert events(n4)[-1]["why"] == "stopped by a signal"
    for server in members:
        told = configurations(server)
        joint = told.index(("joint", "n1 n2 n3", "n1 n2 n4"))
        assert told[joint + 1] == ("final", "", "n1 n2 n4")
    assert_states_agree([events(server) for server in (*members, cluster["n3"])])
    assert_table(cluster)


def assert_states_agree(traces: list[list[dict[str, Any]]]) -> None:
    """Assert one hash at each applied index, and that servers had indexes in common."""
    hashes: dict[int, set[str]] = {}
    servers: dict[int, set[str]] = {}
    for trace in traces:
        for event in trace:
            if event["event"] == "apply":
                hashes.setdefault(event["applied_index"], set()).add(event["state_hash"])
                servers.setdefault(event["applied_index"], set()).add(event["server"])
    assert {index: found for index, found in hashes.items() if len(found) > 1} == {}
    assert max(len(who) for who in servers.values()) >= 3


def assert_table(cluster: RunningCluster) -> None:
    """Assert that the table has each configuration of each server."""
    files = [str(trace_path(server)) for server in cluster.servers.values()]
    command = [sys.executable, "-m", "raftd.trace", *files, "--event", "configuration"]
    table = subprocess.run(command, capture_output=True, text=True, check=True)
    rows = table.stdout.splitlines()
    assert len(rows) == sum(len(configurations(server)) for server in cluster.servers.values())
    assert sum("kind=final" in row and "voters=[n1/" in row and "n4/" in row for row in rows) >= 3
    last = subprocess.run([*command, "--last", "1"], capture_output=True, text=True, check=True)
    assert last.stdout.splitlines() == rows[-1:]


def test_a_trace_that_cannot_be_opened_is_a_usage_error(make_cluster: MakeCluster) -> None:
    cluster = make_cluster()
    server = cluster.add_server("n1", start=False)
    path = cluster.folder / "no-such-folder" / "trace"
    server.start("--trace", str(path))
    assert server.wait_exit() == EXIT_USAGE
    assert f"cannot open the trace {path}" in server.log
    assert "No such file or directory" in server.log
    assert not server.data_dir.exists()
