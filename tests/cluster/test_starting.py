"""Starting, forming and stopping: what a single server does at the ends of its life."""

from __future__ import annotations

import re
import time
from pathlib import Path

from raftd.core.types import server_incarnation
from raftd.protocol import BootstrapReply, BootstrapRequest
from tests.cluster.conftest import MakeCluster
from tests.cluster.processes import ELECTION_TIMEOUT_MS, RunningCluster, wait_for
from tests.cluster.proxy import Fate, carries, where


def blank_members(cluster: RunningCluster, *names: str) -> None:
    """Start servers that one cluster file lists, and do not form a cluster of them."""
    servers = [cluster.add_server(name, start=False) for name in names]
    cluster.write_config(cluster.config_path, servers)
    for server in servers:
        cluster.write_config(server.config_path, servers)
        server.start()
    for server in servers:
        wait_for(f"{server.name} answers", server.status)


# --- init -------------------------------------------------------------------------------------


def test_init_forms_a_cluster_once_and_says_so_when_it_is_repeated(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster()
    blank_members(cluster, "n1", "n2", "n3")
    formed = cluster.ctl("init", "-o", "json")
    assert formed.code == 0, formed.stderr
    assert formed.document["result"] == "done"
    assert sorted(formed.document["configuration"]["voters"]) == ["n1", "n2", "n3"]
    index = cluster.json_status()["configuration"]["index"]
    again = cluster.ctl("init")
    assert again.code == 0, again.stderr
    assert "formed already" in again.stderr
    assert cluster.json_status()["configuration"]["index"] == index


def test_init_that_ended_after_the_bootstrap_is_finished_by_repeating_it(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster()
    blank_members(cluster, "n1", "n2", "n3")
    first = cluster["n1"]
    status = first.status()
    assert status is not None
    request = BootstrapRequest(
        cluster_name="orders",
        incarnation=server_incarnation(status.server),
        address=first.address,
    )
    founded = first.ask(request)
    assert isinstance(founded, BootstrapReply)
    # The machine goes down with it, too.
    first.kill()
    first.start()
    wait_for("n1 answers", first.status)
    formed = cluster.ctl("init")
    assert formed.code == 0, formed.stderr
    settled = cluster.wait_settled(["n1", "n2", "n3"])
    assert settled.cluster_id == founded.cluster_id


def test_init_that_was_killed_in_the_middle_is_finished_by_repeating_it(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster(proxied=True)
    blank_members(cluster, "n1", "n2", "n3")
    assert cluster.proxy is not None
    cluster.proxy.obey(where(carries("joint", "op-1"), Fate.DROP))
    command = cluster.start_ctl("init")
    assert cluster.proxy.caught.wait(20)
    command.kill()
    cluster.proxy.heal()
    formed = cluster.ctl("init")
    assert formed.code == 0, formed.stderr
    cluster.wait_settled(["n1", "n2", "n3"])


def test_init_names_the_server_that_is_unreachable_and_changes_nothing(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster()
    blank_members(cluster, "n1", "n2", "n3")
    cluster["n3"].kill()
    refused = cluster.ctl("init", "--timeout", "1s", "-o", "json")
    assert refused.code == 1
    assert f"n3 {cluster['n3'].address}" in refused.error["cause"]
    assert {status.role for status in cluster.statuses().values()} == {"blank"}


# --- starting ---------------------------------------------------------------------------------


def test_a_second_raftd_on_the_same_data_directory_is_refused(make_cluster: MakeCluster) -> None:
    cluster = make_cluster("n1")
    second = cluster.add_server("n1-again", start=False)
    second.name = "n1"
    cluster.write_config(second.config_path, [second])
    second.start("--data-dir", str(cluster["n1"].data_dir))
    assert second.wait_exit() == 1
    assert f"is in use by process {cluster['n1'].pid}" in second.log
    assert cluster.ctl("put", "a", "1").code == 0


def test_a_second_raftd_on_the_same_port_is_refused(make_cluster: MakeCluster) -> None:
    cluster = make_cluster("n1")
    second = cluster.add_server("n2", start=False)
    second.listen = second.address = cluster["n1"].listen
    cluster.write_config(second.config_path, [second])
    second.start()
    assert second.wait_exit() == 1
    assert f"cannot listen on {second.listen}" in second.log
    assert "is another raftd running there?" in second.log
    # Likewise where only its Redis clients cannot be served.
    third = cluster.add_server("n3", start=False)
    third.redis = cluster["n1"].listen
    cluster.write_config(third.config_path, [third])
    third.start()
    assert third.wait_exit() == 1
    assert f"cannot listen on {third.redis}" in third.log
    # Or only those who want to see how it is.
    fourth = cluster.add_server("n4", start=False)
    fourth.http = cluster["n1"].listen
    cluster.write_config(fourth.config_path, [fourth])
    fourth.start()
    assert fourth.wait_exit() == 1
    assert f"cannot listen on {fourth.http}" in fourth.log
    assert "Traceback" not in fourth.log
    assert cluster.ctl("put", "a", "1").code == 0


def test_the_data_directory_of_a_server_with_another_name_is_refused(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster("n1")
    cluster["n1"].kill()
    other = cluster.add_server("n2", start=False)
    other.start("--data-dir", str(cluster["n1"].data_dir))
    assert other.wait_exit() == 2
    assert "belongs to server n1, not to n2" in other.log


def test_the_only_voter_leads_after_a_restart_without_waiting_for_anybody(
    make_cluster: MakeCluster,
) -> None:
    # Whoever waits for an election timeout waits longer than this test.
    cluster = make_cluster(settings="election_timeout: 10m")
    cluster.form("n1")
    assert cluster.ctl("put", "a", "1").code == 0
    cluster["n1"].kill()
    cluster["n1"].start()
    assert cluster.wait_leader().name == "n1"
    assert cluster.ctl("get", "a").stdout == "1"


def test_a_damaged_log_is_refused_with_file_and_offset(make_cluster: MakeCluster) -> None:
    cluster = make_cluster("n1", "n2", "n3")
    for number in range(5):
        assert cluster.ctl("put", f"key {number}", "a value that is easily found").code == 0
    victim = cluster.followers(cluster.wait_leader())[0]
    wait_for("it has all", lambda: b"key 4" in segment_bytes(victim.data_dir))
    victim.kill()
    (segment,) = victim.data_dir.rglob("log-*.open")
    content = bytearray(segment.read_bytes())
    position = content.index(b"easily")
    content[position] ^= 1
    segment.write_bytes(content)
    victim.start()
    assert victim.wait_exit() == 74
    message = victim.log.splitlines()[-1]
    assert str(segment) in message
    found = re.search(r"damaged at byte (\d+)", message)
    assert found is not None
    assert abs(int(found[1]) - position) < 512
    assert "raftctl replace" in message
    # The others go on, and the way that the message names leads back.
    victim.wipe()
    victim.start()
    wait_for("it answers", victim.status)
    replaced = cluster.ctl("replace", victim.name, f"{victim.name}={victim.address}", "-y")
    assert replaced.code == 0, replaced.stderr
    cluster.wait_settled(["n1", "n2", "n3"])


def segment_bytes(data_dir: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(data_dir.rglob("log-*")))


# --- stopping ---------------------------------------------------------------------------------


def test_a_leader_that_is_told_to_end_hands_leadership_over_first(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster("n1", "n2", "n3")
    leader = cluster.wait_leader()
    rest = [server.name for server in cluster.followers(leader)]
    started_s = time.monotonic()
    leader.terminate()
    cluster.wait_leader(rest)
    handed_over_ms = (time.monotonic() - started_s) * 1000
    assert leader.wait_exit() == 0
    # Nobody had to wait until a leader was missed.
    assert handed_over_ms < ELECTION_TIMEOUT_MS
    for name in rest:
        assert "asks whether it could win" not in cluster[name].log
    assert cluster.ctl("put", "a", "1").code == 0


def test_a_follower_and_a_blank_server_end_cleanly_when_they_are_told_to(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster("n1", "n2", "n3")
    cluster.start_blank("n4")
    follower = cluster.followers(cluster.wait_leader())[0]
    for server in (follower, cluster["n4"]):
        server.terminate()
        assert server.wait_exit(within_s=5) == 0
