"""Membership changes of a live cluster, under load and of servers in special positions."""

from __future__ import annotations

from raftctl.client import expect
from raftd.core.types import server_incarnation
from raftd.protocol import TransferReply, TransferRequest
from tests.cluster.conftest import MakeCluster
from tests.cluster.processes import RunningCluster, wait_for
from tests.cluster.workload import Workload

EXIT_REMOVED = 70
GAP_S_MAX = 2.0
"""Between two acknowledgements of a client, with an election timeout of 500 ms."""
EXIT_S_MAX = 10.0
"""From the commit of C_new to the end of a removed server."""


def check_replaced(cluster: RunningCluster, workload: Workload) -> None:
    for name in ("n1", "n2", "n3"):
        assert cluster[name].wait_exit(within_s=EXIT_S_MAX) == EXIT_REMOVED
    cluster.wait_settled(["n4", "n5", "n6"])
    workload.wait_writes(10)
    workload.stop()
    assert workload.longest_gap_s <= GAP_S_MAX
    with cluster.client(["n4", "n5", "n6"]) as client:
        workload.check_nothing_is_lost(client)


def test_three_servers_are_replaced_one_by_one_under_load(make_cluster: MakeCluster) -> None:
    cluster = make_cluster("n1", "n2", "n3")
    cluster.start_blank("n4", "n5", "n6")
    with Workload(cluster.client) as workload:
        known = list(cluster.servers)[:3]
        for old, new in (("n1", "n4"), ("n2", "n5"), ("n3", "n6")):
            endpoints = ",".join(cluster[name].address for name in known)
            words = ("-y", "-e", endpoints, "-o", "json")
            result = cluster.ctl("replace", old, f"{new}={cluster[new].address}", *words)
            assert result.code == 0, result.stderr
            known = [new if name == old else name for name in known]
            assert result.document["result"] == "done"
            assert sorted(result.document["configuration"]["voters"]) == sorted(known)
            workload.wait_writes(10)
        check_replaced(cluster, workload)


def test_three_servers_are_replaced_in_one_joint_change_under_load(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster("n1", "n2", "n3")
    cluster.start_blank("n4", "n5", "n6")
    with Workload(cluster.client) as workload:
        words = []
        for old, new in (("n1", "n4"), ("n2", "n5"), ("n3", "n6")):
            words += [old, f"{new}={cluster[new].address}"]
        result = cluster.ctl("replace", *words, "-y", "-o", "json")
        assert result.code == 0, result.stderr
        assert result.document["result"] == "done"
        assert sorted(result.document["configuration"]["voters"]) == ["n4", "n5", "n6"]
        check_replaced(cluster, workload)


def test_a_client_that_knows_only_the_leader_follows_when_that_is_replaced(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster("n1")
    cluster.start_blank("n2")
    # Never sent to another server before, the clients know nobody else when theirs goes.
    with Workload(lambda: cluster.client(["n1"])) as workload:
        result = cluster.ctl("replace", "n1", f"n2={cluster['n2'].address}", "-y")
        assert result.code == 0, result.stderr
        workload.wait_writes(10)
        workload.stop()
    assert workload.longest_gap_s <= GAP_S_MAX
    assert cluster["n1"].wait_exit(within_s=EXIT_S_MAX) == EXIT_REMOVED
    with cluster.client(["n2"]) as client:
        workload.check_nothing_is_lost(client)


def test_the_leader_of_two_servers_is_removed_and_the_other_one_goes_on(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster("n1", "n2")
    leader = cluster.wait_leader()
    (other,) = cluster.followers(leader)
    result = cluster.ctl("remove", leader.name, "-y")
    assert result.code == 0, result.stderr
    assert leader.wait_exit(within_s=EXIT_S_MAX) == EXIT_REMOVED
    cluster.wait_settled([other.name])
    assert cluster.ctl("put", "a", "1").code == 0
    assert cluster.ctl("get", "a").stdout == "1"


def test_a_demoted_leader_goes_on_as_a_learner_and_is_promoted_again(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster("n1", "n2", "n3")
    leader = cluster.wait_leader()
    rest = sorted({"n1", "n2", "n3"} - {leader.name})
    result = cluster.ctl("demote", leader.name, "-y")
    assert result.code == 0, result.stderr
    cluster.wait_settled(rest, [leader.name])
    assert cluster.wait_leader().name in rest
    assert leader.running
    assert cluster.ctl("put", "a", "1").code == 0
    result = cluster.ctl("promote", leader.name)
    assert result.code == 0, result.stderr
    cluster.wait_settled(["n1", "n2", "n3"])
    with cluster.client() as client:
        reply = expect(client.ask(TransferRequest(target=leader.name)), TransferReply)
        assert reply.leader.startswith(f"{leader.name}/")


def test_a_server_whose_disk_was_wiped_comes_back_as_a_new_incarnation_of_its_name(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster("n1", "n2", "n3")
    cluster.ctl("put", "a", "1")
    lost = cluster.followers(cluster.wait_leader())[0]
    before = lost.status()
    assert before is not None
    lost.kill()
    lost.wipe()
    lost.start()
    after = wait_for("the wiped server answers", lost.status)
    assert (after.role, after.cluster_id) == ("blank", "")
    assert server_incarnation(after.server) != server_incarnation(before.server)
    result = cluster.ctl("replace", lost.name, f"{lost.name}={lost.address}", "-y", "-o", "json")
    assert result.code == 0, result.stderr
    status = cluster.wait_settled(["n1", "n2", "n3"])
    assert status.configuration is not None
    assert after.server in status.configuration.voters
    assert before.server not in status.configuration.voters
    assert cluster.ctl("get", "a", "--stale", "-e", lost.address).stdout == "1"
