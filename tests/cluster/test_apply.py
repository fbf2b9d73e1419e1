"""The cluster becomes what a file says: plans that come true, and files that change nothing."""

from __future__ import annotations

import shlex
import threading
from collections.abc import Iterable
from pathlib import Path

from tests.chaos.clients import ChaosClient, History
from tests.chaos.verdicts import judge_history, without_appends
from tests.cluster.conftest import MakeCluster
from tests.cluster.processes import (
    COMMAND_TIMEOUT_S,
    Outcome,
    RunningCluster,
    Server,
    free_port,
    raftctl,
    wait_for,
)
from tests.history.recorder import Recorder

EXIT_REMOVED = 70
CLIENTS = 3
OPERATIONS_MIN = 20
"""Of each client before and after the change: enough that some are under way in every phase."""


def wish(cluster: RunningCluster, servers: Iterable[Server], name: str = "wish") -> str:
    """Write a cluster file that lists `servers`, and return its path."""
    path = cluster.folder / f"{name}.yaml"
    cluster.write_config(path, servers)
    return str(path)


def test_a_plan_comes_true_by_the_command_that_it_prints(make_cluster: MakeCluster) -> None:
    cluster = make_cluster("n1", "n2", "n3")
    cluster.start_blank("n4")
    file = wish(cluster, [cluster["n1"], cluster["n2"], cluster["n4"]])
    before = cluster.wait_settled(["n1", "n2", "n3"])

    assert raftctl("diff", "-f", file).code == 1
    planned = raftctl("plan", "-f", file)
    assert planned.code == 0, planned.stderr
    lines = planned.stdout.splitlines()
    assert lines[:2] == [f"+ n4 {cluster['n4'].address} voter", "- n3"]
    assert "2 of 3 (n1 n2 n3) and" in planned.stdout
    assert before.configuration is not None
    assert lines[-1].endswith(f"--at-index {before.configuration.index}")
    # Looking leaves nothing behind, and off a terminal nobody can be asked.
    program, *words = shlex.split(lines[-1])
    assert program == "raftctl"
    unanswered = raftctl(*words)
    assert (unanswered.code, "--yes" in unanswered.stderr) == (2, True)
    assert cluster.wait_settled(["n1", "n2", "n3"]).last_index == before.last_index

    applied = raftctl(*words, "--yes", "-o", "json", "--reason", "n3 is old")
    assert applied.code == 0, applied.stderr
    assert applied.document["result"] == "done"
    assert cluster["n3"].wait_exit() == EXIT_REMOVED
    after = cluster.wait_settled(["n1", "n2", "n4"])

    assert raftctl("diff", "-f", file) == Outcome(0, "", "")
    again = raftctl("apply", "-f", file)
    assert again.code == 0, again.stderr
    assert again.stderr.startswith("no changes: ")
    assert raftctl("plan", "-f", file).stdout.startswith("no changes: ")
    # The plan was for another configuration, and says so.
    late = raftctl(*words, "--yes")
    assert (late.code, "has moved since index" in late.stderr) == (1, True)
    assert cluster.wait_settled(["n1", "n2", "n4"]).last_index == after.last_index


def test_a_typo_in_a_port_leaves_nothing_in_the_log(make_cluster: MakeCluster) -> None:
    cluster = make_cluster("n1", "n2", "n3")
    typo = Server("n4", folder=cluster.folder, proxy=None)
    file = wish(cluster, [*cluster.servers.values(), typo])
    before = cluster.wait_settled(["n1", "n2", "n3"])

    for words in (["plan", "-f", file], ["apply", "-f", file, "-y"]):
        refused = raftctl(*words)
        assert refused.code == 1, refused
        assert f"no raftd answers at {typo.address}" in refused.stderr
        assert "raftd --config FILE --id n4" in refused.stderr
    assert raftctl("diff", "-f", file).stdout == f"+ n4 {typo.address} voter\n"

    other = Path(file).read_text().replace("cluster: orders", "cluster: billing")
    Path(file).write_text(other)
    refused = raftctl("apply", "-f", file, "-y")
    assert refused.code == 1
    assert "the cluster billing, but orders answers" in refused.stderr
    assert raftctl("diff", "-f", file).code == 2
    after = cluster.wait_settled(["n1", "n2", "n3"])
    assert (after.last_index, after.configuration) == (before.last_index, before.configuration)


def test_three_servers_become_three_others_in_one_apply_under_load(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster("n1", "n2", "n3")
    cluster.start_blank("n4", "n5", "n6")
    file = wish(cluster, [cluster["n4"], cluster["n5"], cluster["n6"]])
    # None of the servers of the file is a member yet: it cannot say where the cluster is.
    lost = raftctl("apply", "-f", file)
    assert (lost.code, "raftctl -c LIVE-FILE apply" in lost.stderr) == (3, True)

    history, stop = History(Recorder()), threading.Event()
    clients = [
        ChaosClient(number, seed=1, client=cluster.client(), history=history, stop=stop)
        for number in range(CLIENTS)
    ]
    try:
        for client in clients:
            client.start()
        wait_for_operations(clients, 0)
        applied = cluster.ctl("apply", "-f", file, "-y", "-o", "json")
        assert applied.code == 0, applied.stderr
        assert sorted(applied.document["configuration"]["voters"]) == ["n4", "n5", "n6"]
        for name in ("n1", "n2", "n3"):
            assert cluster[name].wait_exit() == EXIT_REMOVED
        wait_for_operations(clients, sum(client.tally.ok for client in clients))
    finally:
        stop.set()
        for client in clients:
            client.join(COMMAND_TIMEOUT_S)
    assert [client.error for client in clients] == [None] * CLIENTS
    verdict = judge_history(without_appends(history.recorder.events))
    assert verdict.ok, verdict
    status = cluster.wait_settled(["n4", "n5", "n6"])
    assert status.configuration is not None
    # Learners, C_old,new, C_new: one change, whatever the number of servers.
    operations = cluster.ctl("operation", "list", "-o", "json", "-e", cluster["n4"].address)
    assert [one["kind"] for one in operations.document["operations"]] == ["init", "apply"]


def wait_for_operations(clients: list[ChaosClient], done: int) -> None:
    """Wait until the clients together have so many more answers than `done`."""
    wanted = done + CLIENTS * OPERATIONS_MIN

    def reached() -> bool:
        assert [client.error for client in clients] == [None] * CLIENTS
        return sum(client.tally.ok for client in clients) >= wanted

    wait_for(f"{wanted} operations of the clients", reached)


def test_roles_and_addresses_follow_the_file_as_well(make_cluster: MakeCluster) -> None:
    cluster = make_cluster("n1", "n2", "n3")
    cluster.start_blank("n4")
    leader = cluster.wait_leader()
    moved, demoted = cluster.followers(leader)
    moved.kill()
    moved.listen = moved.address = f"127.0.0.1:{free_port()}"
    cluster.write_config(moved.config_path, cluster.servers.values())
    moved.start()
    wait_for("it answers at its new address", moved.status)
    file = wish(cluster, cluster.servers.values())
    path = Path(file)
    line = f"  {demoted.name}: {{"
    path.write_text(path.read_text().replace(line, f"{line}role: learner, "))

    diff = raftctl("diff", "-f", file)
    assert f"~ {demoted.name} voter -> learner" in diff.stdout
    assert f" -> {moved.address}" in diff.stdout
    applied = raftctl("apply", "-f", file, "-y")
    assert applied.code == 0, applied.stderr
    voters = sorted({"n1", "n2", "n3", "n4"} - {demoted.name})
    status = cluster.wait_settled(voters, [demoted.name])
    assert status.configuration is not None
    assert moved.address in status.configuration.addresses.values()
    assert raftctl("diff", "-f", file).code == 0
