"""Steps that the scripts of several exhibits take with a cluster of cores."""

from __future__ import annotations

from collections.abc import Iterable

from raftd.core.messages import PreVote
from tests.core.harness import Cluster, appends


def deliver_to(cluster: Cluster, receivers: str) -> None:
    """Deliver what is on its way to `receivers` now; all the rest stays on its way."""
    for envelope in cluster.take(lambda envelope: envelope.dest in receivers):
        cluster.deliver(envelope)


def let_win(cluster: Cluster, server: str) -> None:
    """Let `server` win an election; what it sends as a leader stays on its way.

    Those with a better log do not hear its pre-votes: they would campaign in its place.
    """
    ours = cluster.raft(server).log
    for other in cluster.servers:
        if other != server and other not in cluster.down:
            cluster.tick(other, cluster.options.election_ticks)
    cluster.queue.clear()
    while cluster.role(server) != "leader":
        if not cluster.queue:
            cluster.tick(server)
        for envelope in cluster.take(lambda envelope: not appends(envelope)):
            log = cluster.raft(envelope.dest).log
            if isinstance(envelope.message, PreVote) and not log.is_up_to_date(
                ours.last_term, ours.last_index
            ):
                continue
            cluster.deliver(envelope)


def run_only(cluster: Cluster, servers: Iterable[str], ticks: int) -> None:
    """Let time pass for `servers` alone, as if the processes of the others stood still."""
    for _ in range(ticks):
        for server in servers:
            cluster.tick(server)
        cluster.deliver_all()
