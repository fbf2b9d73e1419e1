"""The document of `raftctl status -o json`: the fields of the interface, and what was added."""

from __future__ import annotations

from typing import Any

from raftd.cluster_status.members import configuration_document
from raftd.cluster_status.notes import notes
from raftd.cluster_status.operations import operation_document, remaining_ms
from raftd.cluster_status.view import ClusterView, Row
from raftd.cluster_status.words import natural_key
from raftd.core.availability import count_fatal_sets, fatal_sets
from raftd.core.types import server_name
from raftd.protocol import ConfigurationView, LinkView, OperationView, PeerView, StatusReply

FORMAT = "1.0"
"""Version of the document. Within 1.x fields are only added."""

NO_CONFIGURATION = ConfigurationView(
    index=0, committed=False, joint=False, voters=(), outgoing=(), learners=()
)
"""What the document shows where no server knows a configuration."""


def document(cluster: ClusterView) -> dict[str, Any]:
    """Return the document of `raftctl status -o json`.

    Values that nobody stated are null; the fields are always there.
    """
    source = cluster.source
    return {
        "format": FORMAT,
        "cluster": {"name": cluster.name or None, "id": cluster.cluster_id or None},
        "health": cluster.health.value,
        "failure_tolerance": cluster.failure_tolerance,
        "leader": server_name(cluster.leader.server) if cluster.leader is not None else None,
        "term": source.term if source is not None else None,
        "commit_index": source.commit_index if source is not None else None,
        "revision": source.revision if source is not None else None,
        "configuration": configuration_document(cluster.configuration or NO_CONFIGURATION),
        "servers": [row_document(row, cluster) for row in cluster.rows],
        "operation": _operation_document(cluster.operation),
        "rolling": _operation_document(cluster.rolling),
        **fatal_document(cluster),
        "notes": notes(cluster),
    }


def fatal_document(cluster: ClusterView) -> dict[str, Any]:
    """Return which sets of further failures stop the cluster, by server and by zone.

    The lists are empty where there is no leader: it is stopped already.
    """
    if cluster.leader is None:
        return {"fatal_sets": [], "fatal_set_count": 0, "fatal_zones": []}
    names = cluster.names
    quorums, dead, zones = cluster.quorums, cluster.dead, cluster.zones
    return {
        "fatal_sets": [
            sorted((names[server] for server in members), key=natural_key)
            for members in fatal_sets(quorums, dead)
        ],
        "fatal_set_count": count_fatal_sets(quorums, dead),
        "fatal_zones": [
            sorted(members, key=natural_key) for members in fatal_sets(quorums, dead, zones)
        ],
    }


def row_document(row: Row, cluster: ClusterView) -> dict[str, Any]:
    """Return one element of `servers`: its own numbers, and three that the leader states."""
    reply, peer = row.reply, row.peer
    leads = (
        cluster.leader is not None and reply is not None and reply.server == cluster.leader.server
    )
    return {
        "id": row.name,
        "address": row.address or None,
        "incarnation": row.incarnation or None,
        "role": row.role,
        "voter": row.vote in ("yes", "old", "new", "both"),
        "reachable": row.reachable,
        "term": reply.term if reply else None,
        "first_index": reply.first_index if reply else None,
        "last_index": reply.last_index if reply else None,
        "match_index": reply.last_index if leads and reply else peer.match_index if peer else None,
        "commit_index": reply.commit_index if reply else None,
        "applied_index": reply.applied_index if reply else None,
        "lag_entries": 0 if leads else peer.lag_entries if peer else None,
        "last_contact_ms": 0.0 if leads else peer.last_contact_ms if peer else None,
        "snapshot_index": reply.snapshot_index if reply else None,
        "version": reply.version if reply else None,
        "issues": [str(issue) for issue in row.issues],
        "warnings": [str(issue) for issue in row.warnings],
        "zone": row.zone or None,
        "cpu_ms": reply.cpu_ms if reply else None,
        "rss_bytes": reply.rss_bytes if reply else None,
        "rss_anon_bytes": reply.rss_anon_bytes if reply else None,
        "certificate_expires_ms": reply.certificate_expires_ms if reply else None,
    }


def server_document(row: Row, cluster: ClusterView) -> dict[str, Any]:
    """Return the element of `servers` for `raftctl status ID`: the row and what else is known.

    What a server of an older release does not state is null.
    """
    reply = row.reply
    configuration = reply.configuration if reply else None
    return {
        **row_document(row, cluster),
        "state": row.state,
        "vote": row.vote or None,
        "redis": (reply.redis or None) if reply else None,
        "http": (reply.http or None) if reply else None,
        "follows": server_name(reply.leader) or None if reply else None,
        "leadership_confirmed": reply.leadership_confirmed if reply else None,
        "revision": reply.revision if reply else None,
        "configuration_index": configuration.index if configuration else None,
        "uptime_ms": reply.uptime_ms if reply else None,
        "heartbeat_interval_ms": reply.heartbeat_interval_ms if reply else None,
        "election_timeout_ms": reply.election_timeout_ms if reply else None,
        **_peer_document(row.peer),
        **_measured_document(reply if reply is not None and states_more(reply) else None),
        "clock_difference_ms": row.clock_difference_ms,
    }


def states_more(reply: StatusReply) -> bool:
    """Return whether a server is new enough to state its links, sizes and times."""
    return reply.wall_clock_ms > 0


def _peer_document(peer: PeerView | None) -> dict[str, Any]:
    """Return what only the leader knows of a server."""
    return {
        "connected": peer.connected if peer else None,
        "caught_up": peer.caught_up if peer else None,
        "catch_up_rounds": peer.rounds if peer else None,
        "link_problem": peer.problem or None if peer else None,
        "fenced": peer.fenced if peer else None,
        "lag_bytes": peer.lag_bytes if peer else None,
        "catch_up_bytes_per_second": peer.catch_up_bytes_per_second if peer else None,
        "catch_up_remaining_ms": remaining_ms(peer) if peer else None,
    }


def _measured_document(reply: StatusReply | None) -> dict[str, Any]:
    """Return what servers of this release state of themselves."""
    return {
        "protocol_version_max": reply.protocol_version_max if reply else None,
        "features": reply.features if reply else None,
        "sync_p50_ms": reply.sync_p50_ms if reply else None,
        "sync_p99_ms": reply.sync_p99_ms if reply else None,
        "disk_free_bytes": reply.disk_free_bytes if reply else None,
        "disk_reserve_bytes": reply.disk_reserve_bytes if reply else None,
        "log_bytes": reply.log_bytes if reply else None,
        "snapshot_bytes": reply.snapshot_bytes if reply else None,
        "state_bytes": reply.state_bytes if reply else None,
        "links": [_link_document(link) for link in reply.links] if reply else None,
        "reads": reply.reads if reply else None,
        "lease_remaining_ms": reply.lease_remaining_ms if reply else None,
    }


def _link_document(link: LinkView) -> dict[str, Any]:
    return {
        "id": server_name(link.server),
        "address": link.address,
        "connected": link.connected,
        "problem": link.problem or None,
        "protocol_version": link.version or None,
    }


def _operation_document(operation: OperationView | None) -> dict[str, Any] | None:
    """Return the change that runs as `raftctl operation show` has it, and when it began."""
    if operation is None:
        return None
    phases = operation.record.phases
    return {
        **operation_document(operation),
        "step": operation.step or operation.record.phase,
        "started_ms": phases[0].time_ms if phases else None,
    }
