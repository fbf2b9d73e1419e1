"""How the cluster is, as seen from here: asks every server, and has the answers judged."""

from __future__ import annotations

import time
from collections.abc import Callable

from raftctl.endpoints import Endpoints
from raftctl.survey import survey
from raftd.cluster_status.view import ClusterView, view
from raftd.cluster_status.words import bare_command

SETTLE_MS_MIN = 100.0
SETTLE_MS_MAX = 500.0
SETTLE_ATTEMPTS = 2
"""How often a look that shows nothing but differences of the moment is repeated."""


def observe(
    endpoints: Endpoints, timeout_ms: float, command: Callable[[str], str] = bare_command
) -> ClusterView:
    """Ask every server, and return what they say about the cluster.

    The servers are asked at slightly different moments. Where nothing but that seems to keep the
    cluster from being healthy, they are asked again two heartbeats later.

    Args:
        endpoints: where to ask first.
        timeout_ms: for each server; at most 2 seconds are used.
        command: makes the commands of the advice, out of the words after `raftctl`.
    """
    cluster_name, zones = "", {}
    if endpoints.config is not None:
        cluster_name = endpoints.config.cluster
        servers = endpoints.config.servers.values()
        zones = {server.id: server.zone for server in servers if server.zone}
    cluster = view(survey(endpoints, timeout_ms), cluster_name, zones, command)
    for _ in range(SETTLE_ATTEMPTS):
        if not cluster.momentary or cluster.leader is None:
            break
        pause_ms = 2 * cluster.leader.heartbeat_interval_ms
        time.sleep(max(SETTLE_MS_MIN, min(pause_ms, SETTLE_MS_MAX)) / 1000)
        cluster = view(survey(endpoints, timeout_ms), cluster_name, zones, command)
    return cluster


def signature(cluster: ClusterView) -> tuple[object, ...]:
    """Return all that is news when it changes: everything but counters that grow by themselves."""
    configuration, operation, source = cluster.configuration, cluster.operation, cluster.source
    return (
        cluster.health,
        cluster.failure_tolerance,
        cluster.leader.server if cluster.leader else "",
        source.term if source else 0,
        (configuration.index, configuration.committed) if configuration else None,
        (operation.record.id, operation.record.phase, operation.step) if operation else None,
        (cluster.rolling.record.id, cluster.rolling.record.rolling) if cluster.rolling else None,
        tuple(
            (
                *(row.server, row.address, row.role, row.vote, row.zone),
                frozenset(issue.kind for issue in (*row.issues, *row.warnings)),
            )
            for row in cluster.rows
        ),
        cluster.outdated,
        cluster.moved,
    )
