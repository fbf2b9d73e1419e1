"""Servers that die, alone or all at once: nothing that was acknowledged is lost."""

from __future__ import annotations

import signal
import time

import pytest

from raftctl.client import expect
from raftd.protocol import PutRequest, WriteReply
from tests.cluster import processes
from tests.cluster.conftest import MakeCluster
from tests.cluster.processes import wait_for
from tests.cluster.workload import Workload

LONG_ELECTION_TIMEOUT_MS = 15_000
LONG_HEARTBEAT_MS = 1_000


def test_five_servers_lose_two_with_the_leader_and_no_acknowledged_write(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster("n1", "n2", "n3", "n4", "n5")
    with Workload(cluster.client) as workload:
        leader = cluster.wait_leader()
        other = cluster.followers(leader)[0]
        workload.wait_writes(20)
        leader.kill()
        other.kill()
        workload.wait_writes(20)
        workload.stop()
    with cluster.client() as client:
        workload.check_nothing_is_lost(client)
    leader.start()
    other.start()
    cluster.wait_settled(["n1", "n2", "n3", "n4", "n5"])


def test_a_cluster_killed_as_a_whole_comes_back_with_every_acknowledged_write(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster("n1", "n2", "n3")
    with Workload(cluster.client) as workload:
        workload.wait_writes(30)
        for server in cluster.servers.values():
            server.signal(signal.SIGKILL)
        for server in cluster.servers.values():
            server.kill()
            server.start()
        # The same sessions go on: what was pending is done once, or was done already.
        workload.wait_writes(10)
        workload.stop()
    with cluster.client() as client:
        workload.check_nothing_is_lost(client)


def test_after_the_death_of_the_leaders_process_nobody_waits_for_an_election_timeout(
    make_cluster: MakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "HEARTBEAT_MS", LONG_HEARTBEAT_MS)
    monkeypatch.setattr(processes, "ELECTION_TIMEOUT_MS", LONG_ELECTION_TIMEOUT_MS)
    cluster = make_cluster("n1", "n2", "n3")
    with cluster.client() as client:

        def put(value: bytes) -> None:
            reply = client.write(
                lambda session, serial, lowest: PutRequest(
                    session=session,
                    serial=serial,
                    lowest_unacknowledged=lowest,
                    key="a",
                    value=value,
                )
            )
            assert expect(reply, WriteReply).applied

        put(b"before")
        leader = cluster.wait_leader()
        leader.kill()
        killed_s = time.monotonic()
        put(b"after")
        assert time.monotonic() - killed_s < LONG_ELECTION_TIMEOUT_MS / 1000
    new_leader = cluster.wait_leader()
    assert new_leader is not leader
    wait_for("the new leader says so", lambda: "leads in term" in new_leader.log)
