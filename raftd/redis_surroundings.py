"""What the commands of Redis clients may see of the cluster, put together from its parts."""

from __future__ import annotations

import time
from collections.abc import Callable

from raftd.consumption import consumption
from raftd.core.leader import Leader
from raftd.core.quorum import majority
from raftd.core.types import ServerId
from raftd.network.network import Network
from raftd.network.redis_actions import ClusterSeen, MemberSeen, Surroundings
from raftd.node import Node


class _View:
    """The cluster as this server sees it."""

    def __init__(
        self, node: Node, network: Network, redis: str, uptime_ms: Callable[[], int]
    ) -> None:
        self._node, self._network = node, network
        self._redis = redis
        self._uptime_ms = uptime_ms
        self._last_leader: ServerId = ""

    def leads(self) -> bool:
        """Return whether this server is the leader, as far as it knows."""
        return isinstance(self._node.raft.role, Leader)

    def cluster(self) -> ClusterSeen:
        """Return what it sees now."""
        node = self._node
        raft, identity = node.raft, node.identity
        if raft.leader_id is not None:
            self._last_leader = raft.leader_id
        latest = None if identity.is_blank else raft.configuration
        quorum = 0
        members: tuple[MemberSeen, ...] = ()
        if latest is not None:
            halves = (latest.configuration.voters, latest.configuration.outgoing)
            # Both majorities may be the same servers, as far as they are in both.
            quorum = max([majority(len(half)) for half in halves if half])
            members = tuple([self._member(server) for server in sorted(latest.entry.addresses)])
        return ClusterSeen(
            server=raft.server,
            cluster_name=identity.cluster_name,
            cluster_id=identity.cluster_id,
            leader=self._last_leader,
            knows_leader=raft.leader_id is not None,
            term=raft.current_term,
            configuration_index=latest.index if latest is not None else 0,
            commit_index=raft.log.commit_index,
            applied_index=raft.log.handed_index,
            last_index=raft.log.last_index,
            is_joint=latest is not None and bool(latest.configuration.outgoing),
            quorum=quorum,
            members=members,
            uptime_ms=self._uptime_ms(),
        )

    def _member(self, server: ServerId) -> MemberSeen:
        node, network = self._node, self._network
        latest = node.raft.configuration
        assert latest is not None
        configuration = latest.configuration
        is_self = server == node.raft.server
        return MemberSeen(
            server=server,
            address=latest.entry.addresses.get(server, ""),
            redis=self._redis if is_self else network.redis_address(server),
            is_voter=server in configuration.voters | configuration.outgoing,
            connected=is_self or network.is_connected(server),
        )


def surroundings(
    node: Node, network: Network, redis: str, uptime_ms: Callable[[], int]
) -> Surroundings:
    """Return what commands may look at.

    Args:
        node: of this server.
        network: knows where the others serve Redis clients.
        redis: HOST:PORT where this server does.
        uptime_ms: returns how long it has run.
    """
    view = _View(node, network, redis, uptime_ms)
    return Surroundings(
        cluster=view.cluster,
        leads=view.leads,
        memory_bytes=lambda: consumption().rss_bytes or 0,
        wall_clock_ms=lambda: time.time_ns() // 1_000_000,
    )
