"""Rolling operations with real servers, real commands and a raftctl that is killed."""

from __future__ import annotations

import itertools
import json
import subprocess
import time

from raftd import __version__
from raftd.commands import DONE, RUNNING
from raftd.protocol import OperationsReply, OperationsRequest
from tests.cluster.conftest import MakeCluster
from tests.cluster.newer_release import VERSION
from tests.cluster.processes import COMMAND_TIMEOUT_S, POLL_S, Outcome, RunningCluster, wait_for
from tests.cluster.workload import Workload

EXIT_REMOVED = 70
FEATURES_ROLLING = 3


def formed(make_cluster: MakeCluster) -> RunningCluster:
    """Return a cluster of three that has rolling operations switched on."""
    cluster = make_cluster("n1", "n2", "n3")

    def switched_on() -> bool:
        return all(status.features >= FEATURES_ROLLING for status in cluster.statuses().values())

    wait_for("the features are switched on", switched_on)
    cluster.wait_settled(["n1", "n2", "n3"])
    return cluster


def killed_in_step(cluster: RunningCluster, words: list[str], number: int) -> None:
    """Run raftctl until it has noted on record that a step begins, and kill it at once."""
    process = cluster.start_ctl(*words, "-y", "-o", "json")
    assert process.stdout is not None
    for line in process.stdout:
        progress = json.loads(line)
        if progress.get("step") == number and progress["current"]["state"] == RUNNING:
            break
    else:
        raise AssertionError(f"it ended before step {number}: {cluster.finish(process).stderr}")
    process.kill()
    cluster.finish(process)


def test_a_rolling_replacement_of_all_servers_goes_on_after_its_raftctl_was_killed(
    make_cluster: MakeCluster,
) -> None:
    cluster = formed(make_cluster)
    cluster.start_blank("n4", "n5", "n6")
    words = []
    for old, new in (("n1", "n4"), ("n2", "n5"), ("n3", "n6")):
        words += [old, f"{new}={cluster[new].address}"]
    with Workload(cluster.client) as workload:
        killed_in_step(cluster, ["rolling", "replace", *words], 2)

        def in_the_way() -> str:
            refused = cluster.ctl("add", f"n9={cluster['n4'].address}", "-o", "json")
            assert refused.code == 1
            return str(refused.error["operation"])

        # At first it may be the change of the second step, if that was begun.
        wait_for("only the rolling operation is in the way", lambda: in_the_way() == "op-2")
        result = cluster.ctl("rolling", "resume", "-y", "-o", "json")
        assert result.code == 0, result.stderr
        workload.wait_writes(10)
        workload.stop()
    document = result.document
    assert (document["operation"], document["result"]) == ("op-2", DONE)
    assert sorted(document["configuration"]["voters"]) == ["n4", "n5", "n6"]
    assert [step["state"] for step in document["steps"]] == [DONE, DONE, DONE]
    for name in ("n1", "n2", "n3"):
        assert cluster[name].wait_exit() == EXIT_REMOVED
    cluster.wait_settled(["n4", "n5", "n6"])
    with cluster.client(["n4", "n5", "n6"]) as client:
        workload.check_nothing_is_lost(client)
        reply = client.ask(OperationsRequest())
    assert isinstance(reply, OperationsReply)
    records = {view.record.id: view.record for view in reply.operations}
    steps = [step["operation"] for step in document["steps"]]
    # Nothing was done twice: one change for each step, and all of them went through.
    assert sorted(records) == ["op-1", "op-2", *sorted(steps)]
    assert {(records[step].parent, records[step].result) for step in steps} == {("op-2", DONE)}


def supervised(cluster: RunningCluster, process: subprocess.Popen[str]) -> Outcome:
    """Start every server that ends with the newer release, until a raftctl has ended."""
    give_up_s = time.monotonic() + COMMAND_TIMEOUT_S
    while process.poll() is None and time.monotonic() < give_up_s:
        for server in cluster.servers.values():
            if not server.running:
                server.program = ("tests.cluster.newer_release",)
                server.start()
                note_pid(cluster, server.name)
        time.sleep(POLL_S)
    return cluster.finish(process)


def note_pid(cluster: RunningCluster, name: str) -> None:
    """Put the process id of a server where a command finds it."""
    (cluster.folder / f"{name}.new").write_text(str(cluster[name].pid))
    (cluster.folder / f"{name}.new").rename(cluster.folder / f"{name}.pid")


def test_a_rolling_upgrade_restarts_the_leader_last_and_waits_for_servers_that_are_down(
    make_cluster: MakeCluster,
) -> None:
    cluster = formed(make_cluster)
    leader = cluster.wait_leader().name
    for name in cluster.servers:
        note_pid(cluster, name)
    before = {name: server.pid for name, server in cluster.servers.items()}
    restart = ["rolling", "restart", "--command", f"kill $(cat {cluster.folder}/{{id}}.pid)"]

    down = next(server for server in cluster.servers.values() if server.name != leader)
    down.kill()
    refused = cluster.ctl(*restart, "-y", "-o", "json")
    assert (refused.code, refused.error["code"]) == (6, "unsafe")
    assert f"{down.name}: connection refused" in refused.error["cause"]
    assert cluster.operation("op-2") is None
    assert {name for name, server in cluster.servers.items() if server.running} == (
        set(before) - {down.name}
    )
    down.start()
    note_pid(cluster, down.name)
    before[down.name] = down.pid
    cluster.wait_settled(before)
    leader = cluster.wait_leader().name

    with Workload(cluster.client) as workload:
        result = supervised(cluster, cluster.start_ctl(*restart, "-y", "-o", "json"))
        assert result.code == 0, result.stderr
        workload.wait_writes(5)
        workload.stop()
    steps = result.document["steps"]
    assert [step["state"] for step in steps] == [DONE, DONE, DONE]
    assert {(step["version_before"], step["version_after"]) for step in steps} == {
        (__version__, VERSION)
    }
    started = sorted(steps, key=lambda step: step["started_ms"])
    assert started[-1]["server"] == leader
    for earlier, later in itertools.pairwise(started):
        assert earlier["ended_ms"] <= later["started_ms"], "never two at once"
    assert all(server.pid != before[name] for name, server in cluster.servers.items())
    with cluster.client() as client:
        workload.check_nothing_is_lost(client)
