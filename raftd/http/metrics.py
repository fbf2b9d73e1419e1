"""The measurements of this server in the text format of Prometheus.

They are worked out when somebody asks: what is counted in between are the few numbers of
`raftd.telemetry`. Names end in their unit; counters in `_total`, as Prometheus wants them.

Source: Prometheus exposition formats, text format 0.0.4; its guide on metric and label names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import attrs
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from raftd.cluster_status.members import display_names
from raftd.core.types import server_incarnation, server_name
from raftd.protocol import StatusReply
from raftd.telemetry import BOUNDS_SECONDS, NANOSECONDS, Histogram, Telemetry

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
MILLISECONDS = 1000


@attrs.frozen(kw_only=True)
class Sources:
    """Where the numbers are."""

    status: Callable[[], StatusReply]
    """What the server says of itself."""
    telemetry: Telemetry
    syncs: Histogram
    """Of the log."""
    is_ready: Callable[[], bool]
    connections: Callable[[], Mapping[str, int]]
    """Open ones, by listener."""
    answers: Callable[[], Mapping[int, int]]
    """Answers by HTTP, by status."""
    lives: Callable[[], int]
    """Keys that have one."""
    watchers: Callable[[], int]
    """Requests that wait for changes."""
    dropped_messages: Callable[[], int]
    """Raft messages that found no connection."""


def make_metrics(sources: Sources) -> Callable[[], bytes]:
    """Return a function that returns all measurements as they are when it is called."""
    registry = CollectorRegistry()
    registry.register(_Server(sources))
    ProcessCollector(registry=registry)
    return lambda: generate_latest(registry)


class _Server(Collector):
    """Collects the measurements of one server."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources

    def describe(self) -> Iterator[Metric]:
        """Return nothing: the names are not checked against others, since there are none."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Return every family."""
        status = self._sources.status()
        yield from self._identity(status)
        yield from self._raft(status)
        yield from self._configuration(status)
        yield from self._members(status)
        yield from self._counters()
        yield from self._sizes(status)
        yield from self._network()

    def _identity(self, status: StatusReply) -> Iterator[Metric]:
        release = InfoMetricFamily("raftd_build", "The release that runs")
        release.add_metric(
            [],
            {"version": status.version, "protocol_version_max": str(status.protocol_version_max)},
        )
        yield release
        server = InfoMetricFamily("raftd_server", "Who this is, and in which cluster")
        server.add_metric(
            [],
            {
                "server": server_name(status.server),
                "incarnation": server_incarnation(status.server),
                "cluster": status.cluster_name,
                "cluster_id": status.cluster_id,
                "zone": status.zone,
            },
        )
        yield server
        yield _gauge(
            "raftd_uptime_seconds", "Since the process started", status.uptime_ms / MILLISECONDS
        )
        yield _gauge("raftd_features", "Version whose features are switched on", status.features)
        yield _gauge("raftd_ready", "1 if /readyz says so, else 0", self._sources.is_ready())
        yield _gauge(
            "raftd_issues", "Problems that the server reports of itself", len(status.issues)
        )

    def _raft(self, status: StatusReply) -> Iterator[Metric]:
        yield _gauge("raftd_term", "The current term", status.term)
        yield _gauge(
            "raftd_is_leader", "1 on the server that leads, else 0", status.role == "leader"
        )
        yield _gauge(
            "raftd_is_leader_confirmed",
            "1 on a leader that a quorum has answered within an election timeout, else 0",
            status.leadership_confirmed,
        )
        yield _gauge("raftd_has_leader", "1 if a leader is known, else 0", bool(status.leader))
        for name, index, words in (
            ("raftd_first_index", status.first_index, "The first entry that the log still has"),
            ("raftd_last_index", status.last_index, "The last entry of the log"),
            ("raftd_commit_index", status.commit_index, "The last entry known to be committed"),
            ("raftd_applied_index", status.applied_index, "The last entry that is applied"),
            (
                "raftd_revision",
                status.revision,
                "The revision of the keys: every change counts one",
            ),
            (
                "raftd_snapshot_index",
                status.snapshot_index,
                "The last entry that the newest snapshot includes; 0 without one",
            ),
        ):
            yield _gauge(name, words, index)

    def _configuration(self, status: StatusReply) -> Iterator[Metric]:
        configuration = status.configuration
        if configuration is None:
            return
        yield _gauge("raftd_config_index", "The entry of the configuration", configuration.index)
        yield _gauge("raftd_config_joint", "1 while it is joint, else 0", configuration.joint)
        yield _gauge("raftd_config_committed", "1 if it is committed", configuration.committed)
        yield _gauge(
            "raftd_config_voters", "Voters, C_new's while joint", len(configuration.voters)
        )
        yield _gauge(
            "raftd_config_outgoing_voters",
            "Voters of C_old while joint, else 0",
            len(configuration.outgoing),
        )
        yield _gauge("raftd_config_learners", "Learners", len(configuration.learners))
        yield _gauge(
            "raftd_operation_running",
            "1 while a membership operation runs, else 0",
            status.operation is not None and status.operation.record.running,
        )

    def _members(self, status: StatusReply) -> Iterator[Metric]:
        names = display_names(
            [peer.server for peer in status.peers] + [link.server for link in status.links]
        )
        match = GaugeMetricFamily(
            "raftd_peer_match_index",
            "On the leader: the last entry that a member is known to have",
            labels=["peer"],
        )
        lag = GaugeMetricFamily(
            "raftd_peer_lag_entries", "On the leader: entries that it lacks", labels=["peer"]
        )
        contact = GaugeMetricFamily(
            "raftd_peer_last_contact_seconds",
            "On the leader: since its last answer in this term",
            labels=["peer"],
        )
        for peer in status.peers:
            name = [names[peer.server]]
            match.add_metric(name, peer.match_index)
            lag.add_metric(name, peer.lag_entries)
            if peer.last_contact_ms is not None:
                contact.add_metric(name, peer.last_contact_ms / MILLISECONDS)
        up = GaugeMetricFamily(
            "raftd_link_up",
            "1 if this server's own link to a member is up, else 0",
            labels=["peer"],
        )
        for link in status.links:
            up.add_metric([names[link.server]], link.connected)
        yield from (match, lag, contact, up)

    def _counters(self) -> Iterator[Metric]:
        telemetry = self._sources.telemetry
        for name, count, words in (
            ("raftd_turns", telemetry.turns, "Turns of the driver"),
            ("raftd_elections", telemetry.elections, "Terms in which this server has campaigned"),
            (
                "raftd_leader_changes",
                telemetry.leader_changes,
                "How often this server has learnt that somebody leads",
            ),
            ("raftd_reads", telemetry.reads, "Reads answered by way of a round of messages"),
            (
                "raftd_snapshot_taken",
                telemetry.snapshots_taken,
                "Snapshots that were taken of the own state",
            ),
            (
                "raftd_snapshot_installed",
                telemetry.snapshots_installed,
                "Snapshots of a leader that were put in force",
            ),
        ):
            yield CounterMetricFamily(name, words, value=count)
        proposals = CounterMetricFamily(
            "raftd_proposals",
            "Commands that clients gave to this server, by what became of them",
            labels=["result"],
        )
        for result, count in sorted(telemetry.proposals.by_result.items()):
            proposals.add_metric([result], count)
        yield proposals
        yield _histogram("raftd_fsync_seconds", "Syncs of the log", self._sources.syncs)
        yield _histogram(
            "raftd_commit_seconds",
            "On the leader, for a batch: from its append until it is committed",
            telemetry.commit,
        )
        yield _histogram(
            "raftd_apply_seconds", "Applying a batch of entries to the state", telemetry.apply
        )

    def _sizes(self, status: StatusReply) -> Iterator[Metric]:
        yield _gauge("raftd_log_bytes", "What the entries of the log take", status.log_bytes)
        yield _gauge("raftd_snapshot_bytes", "The newest snapshot", status.snapshot_bytes)
        yield _gauge("raftd_state_bytes", "What the live state takes on disk", status.state_bytes)
        if status.disk_free_bytes is not None:
            yield _gauge("raftd_disk_free_bytes", "What the disk has left", status.disk_free_bytes)
        yield _gauge(
            "raftd_disk_reserve_bytes",
            "Below this clients' writes are refused",
            status.disk_reserve_bytes,
        )
        yield _gauge("raftd_lives", "Keys that end by themselves", self._sources.lives())
        yield _gauge(
            "raftd_watchers", "Requests that wait for changes of keys", self._sources.watchers()
        )
        if status.certificate_expires_ms is not None:
            yield _gauge(
                "raftd_certificate_expiry_timestamp_seconds",
                "When the certificate that the server shows ends, since 1970",
                status.certificate_expires_ms / MILLISECONDS,
            )
        if status.rss_anon_bytes is not None:
            yield _gauge(
                "raftd_anonymous_memory_bytes",
                "Resident memory that belongs to no file",
                status.rss_anon_bytes,
            )

    def _network(self) -> Iterator[Metric]:
        connections = GaugeMetricFamily(
            "raftd_connections", "Inbound connections that are open", labels=["listener"]
        )
        for listener, count in sorted(self._sources.connections().items()):
            connections.add_metric([listener], count)
        yield connections
        answers = CounterMetricFamily("raftd_http_answers", "By HTTP", labels=["status"])
        for status, count in sorted(self._sources.answers().items()):
            answers.add_metric([str(status)], count)
        yield answers
        yield CounterMetricFamily(
            "raftd_messages_dropped",
            "Raft messages that found no connection, or a full one",
            value=self._sources.dropped_messages(),
        )


def _gauge(name: str, words: str, value: float) -> Metric:
    return GaugeMetricFamily(name, words, value=value)


def _histogram(name: str, words: str, histogram: Histogram) -> Metric:
    bounds = [*map(str, BOUNDS_SECONDS), "+Inf"]
    buckets = list(zip(bounds, histogram.cumulative(), strict=True))
    return HistogramMetricFamily(
        name, words, buckets=buckets, sum_value=histogram.sum_ns / NANOSECONDS
    )
