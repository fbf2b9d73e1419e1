"""What a server does when it starts: the only voter leads, everybody else waits to be led."""

from __future__ import annotations

import pytest

from raftd.founding import lead_if_alone
from tests.core.harness import Cluster


def started(cluster: Cluster, server: str) -> str:
    """Start `server` again as raftd does; return its role before any time has passed."""
    cluster.crash(server)
    cluster.restart(server)
    cluster.give(server, lead_if_alone)
    return cluster.role(server)


def test_the_only_voter_leads_at_once_and_its_log_is_committed() -> None:
    cluster = Cluster(("n1",), learners=("n2",))
    cluster.elect("n1")
    cluster.propose(b"a")
    cluster.deliver_all()
    assert started(cluster, "n1") == "leader"
    assert b"a" in cluster.commands("n1")
    assert cluster.raft("n1").log.commit_index == cluster.raft("n1").log.last_index


@pytest.mark.parametrize("server", ["n1", "n2"])
def test_one_voter_of_two_waits_for_a_leader(server: str) -> None:
    cluster = Cluster(("n1", "n2"))
    cluster.elect("n1")
    cluster.deliver_all()
    term = cluster.raft(server).current_term
    assert started(cluster, server) == "follower"
    assert cluster.raft(server).current_term == term
    assert cluster.queue == []


def test_a_learner_and_a_blank_server_wait_for_a_leader() -> None:
    cluster = Cluster(("n1",), learners=("n2",), blank=("n3",))
    cluster.elect("n1")
    cluster.deliver_all()
    assert [started(cluster, server) for server in ("n2", "n3")] == ["follower", "follower"]
