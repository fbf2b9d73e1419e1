"""From the core's state to the values that status shows."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence

import attrs

from raftd.core.leader import Leader
from raftd.core.log import RaftLog
from raftd.core.raft import Candidate, PreCandidate, Raft
from raftd.core.snapshot import SnapshotId
from raftd.core.status import PeerStatus
from raftd.core.types import Index, ServerId
from raftd.core.view import peers_of
from raftd.inputs import LinkChanged
from raftd.logs import level
from raftd.planning import view
from raftd.protocol import (
    PROTOCOL_VERSION_MAX,
    LinkView,
    OperationView,
    PeerView,
    StatusReply,
)
from raftd.storage.identity import Identity
from raftd.storage.state import StateMachine
from raftd.surroundings import FREE_BYTES_UNKNOWN, Measured, Settings


def member_address(raft: Raft, server: ServerId) -> str:
    """Return HOST:PORT of a member; empty if the latest configuration does not say."""
    latest = raft.configuration
    return latest.entry.addresses.get(server, "") if latest is not None else ""


RATE_WINDOW_MS = 5_000.0
"""A rate is that of the last so many milliseconds: steady enough for an estimate."""
RATE_SAMPLE_MS = 500.0
"""Between two samples of a server: ten of each are kept."""


@attrs.define
class _Movement:
    """How far one server has come, as bytes that only grow, and when it was where."""

    match_index: Index
    snapshot: SnapshotId | None = None
    snapshot_bytes: int = 0
    moved_bytes: int = 0
    samples: deque[tuple[int, int]] = attrs.field(factory=deque)
    """Tick, and `moved_bytes` then, while it was in the part of its way where it is now."""
    part: str = ""

    def follow(self, peer: PeerStatus, log: RaftLog) -> None:
        """Add what has come since the last call."""
        snapshot_bytes = peer.received_bytes + peer.installed_bytes
        part = _part(peer)
        if part != self.part:
            # How fast it was received does not say how fast it is installed.
            self.samples.clear()
            self.part = part
        if peer.snapshot is not None and peer.snapshot == self.snapshot:
            # What it has lost of a snapshot is no movement.
            self.moved_bytes += max(0, snapshot_bytes - self.snapshot_bytes)
        elif self.snapshot is None:
            self.moved_bytes += log.bytes_between(self.match_index, peer.match_index)
        self.snapshot, self.snapshot_bytes = peer.snapshot, snapshot_bytes
        self.match_index = peer.match_index


def _part(peer: PeerStatus) -> str:
    """Return which part of its way a server is in."""
    if peer.snapshot is None:
        return "entries"
    return "receiving" if peer.received_bytes < peer.snapshot.size_bytes else "installing"


class CatchUpRates:
    """How fast the servers that a leader feeds catch up, in bytes per second."""

    def __init__(self, tick_ms: float) -> None:
        self._tick_ms = tick_ms
        self._sample_ticks = max(1, round(RATE_SAMPLE_MS / tick_ms))
        self._window_ticks = max(self._sample_ticks, round(RATE_WINDOW_MS / tick_ms))
        self._next_sample = 0
        """The tick from which on the next one is due."""
        self._movements: dict[ServerId, _Movement] = {}

    def tick(self, raft: Raft) -> None:
        """Look where everybody is; to be called whenever time has passed."""
        if raft.now < self._next_sample:
            return
        self._next_sample = raft.now - raft.now % self._sample_ticks + self._sample_ticks
        peers = peers_of(raft, raft.role) if isinstance(raft.role, Leader) else ()
        known, self._movements = self._movements, {}
        for peer in peers:
            movement = known.get(peer.server) or _Movement(peer.match_index)
            self._movements[peer.server] = movement
            movement.follow(peer, raft.log)
            samples = movement.samples
            samples.append((raft.now, movement.moved_bytes))
            while samples[-1][0] - samples[0][0] > self._window_ticks:
                samples.popleft()

    def bytes_per_second(self, server: ServerId) -> int:
        """Return the rate of `server`; 0 while it is not known."""
        movement = self._movements.get(server)
        if movement is None or len(movement.samples) < 2:
            return 0
        (first_tick, first_bytes), (last_tick, last_bytes) = (
            movement.samples[0],
            movement.samples[-1],
        )
        return round((last_bytes - first_bytes) * 1000 / ((last_tick - first_tick) * self._tick_ms))


def peer_views(
    raft: Raft, links: Mapping[ServerId, LinkChanged], tick_ms: float, rates: CatchUpRates
) -> dict[ServerId, PeerView]:
    """Return the leader's view of the others; empty on any other server."""
    if not isinstance(raft.role, Leader):
        return {}
    views = {}
    for peer in peers_of(raft, raft.role):
        link = links.get(peer.server)
        age_ticks = peer.contact_age_ticks
        problem = "" if link is None or link.connected else link.problem
        snapshot = peer.snapshot
        # What it has once the snapshot is in force.
        has_index = max(peer.match_index, snapshot.last_included_index if snapshot else 0)
        views[peer.server] = PeerView(
            server=peer.server,
            match_index=peer.match_index,
            lag_entries=max(0, raft.log.last_index - peer.match_index),
            last_contact_ms=None if age_ticks is None else age_ticks * tick_ms,
            caught_up=peer.caught_up,
            rounds=peer.rounds,
            connected=link is not None and link.connected,
            problem=problem,
            fenced=peer.fenced,
            snapshot_bytes=snapshot.size_bytes if snapshot else 0,
            snapshot_received_bytes=peer.received_bytes if snapshot else 0,
            snapshot_installed_bytes=peer.installed_bytes if snapshot else 0,
            lag_bytes=raft.log.bytes_between(has_index, raft.log.last_index),
            catch_up_bytes_per_second=(
                0 if peer.caught_up else rates.bytes_per_second(peer.server)
            ),
        )
    return views


def link_views(
    addresses: Mapping[ServerId, str], links: Mapping[ServerId, LinkChanged]
) -> tuple[LinkView, ...]:
    """Return how this server's connections to the others are.

    Args:
        addresses: of those that it dials.
        links: the latest news of each link, if there was any.
    """
    views = []
    for server, address in sorted(addresses.items()):
        link = links.get(server)
        views.append(
            LinkView(
                server=server,
                address=(link.address if link is not None else "") or address,
                connected=link is not None and link.connected,
                problem=link.problem if link is not None else "not dialled yet",
                version=link.version if link is not None else 0,
            )
        )
    return tuple(views)


def role_word(raft: Raft, identity: Identity) -> str:
    """Return what this server is, in the words of status."""
    if identity.removed_index:
        return "removed"
    if identity.is_blank:
        return "blank"
    if isinstance(raft.role, Leader):
        return "leader"
    if isinstance(raft.role, Candidate | PreCandidate):
        return "candidate"
    latest = raft.configuration
    if latest is None or raft.server not in latest.configuration.all_voters:
        return "learner"
    return "follower"


def rolling_view(state: StateMachine) -> OperationView | None:
    """Return the rolling operation that runs or is paused, as its record has it."""
    record = state.rolling_operation
    if record is None or record.rolling is None:
        return None
    return OperationView(record=record, step="paused" if record.rolling.paused_by else record.phase)


def status_reply(
    raft: Raft,
    *,
    identity: Identity,
    state: StateMachine,
    settings: Settings,
    measured: Measured,
    peers: tuple[PeerView, ...],
    links: tuple[LinkView, ...],
    operation: OperationView | None,
    leader_address: str,
    uptime_ms: int,
    lease_remaining_ms: float | None,
    wall_clock_ms: int,
    free_bytes: int,
    problems: Sequence[str],
    differing: tuple[ServerId, ...],
) -> StatusReply:
    """Return one server's own view; `problems` are the driver's, in words.

    Watchers ask for it several times a second: nothing here may depend on the size of anything.
    """
    status = raft.status()
    leader = raft.leader_id or ""
    issues = [*problems]
    if identity.removed_index:
        issues.append(f"removed for good by configuration {identity.removed_index}")
    return StatusReply(
        server=identity.server,
        version=settings.version,
        cluster_id=identity.cluster_id,
        cluster_name=identity.cluster_name,
        role=role_word(raft, identity),
        term=status.current_term,
        leader=leader,
        leader_address=leader_address,
        leadership_confirmed=status.leadership_confirmed,
        first_index=status.first_index,
        last_index=status.last_index,
        commit_index=status.commit_index,
        applied_index=state.applied_index,
        snapshot_index=status.snapshot_index,
        revision=state.revision,
        configuration=(
            view(status.configuration, status.commit_index) if status.configuration else None
        ),
        peers=peers,
        operation=operation,
        rolling=rolling_view(state) if not identity.is_blank else None,
        issues=tuple(issues),
        uptime_ms=uptime_ms,
        heartbeat_interval_ms=settings.heartbeat_interval_ms,
        election_timeout_ms=settings.election_timeout_ms,
        protocol_version_max=PROTOCOL_VERSION_MAX,
        features=state.features,
        zone=settings.zone,
        wall_clock_ms=wall_clock_ms,
        links=links,
        log_bytes=raft.log.size_bytes,
        snapshot_bytes=raft.snapshot.id.size_bytes if raft.snapshot is not None else 0,
        state_bytes=measured.state_bytes,
        disk_free_bytes=None if free_bytes == FREE_BYTES_UNKNOWN else free_bytes,
        disk_reserve_bytes=settings.disk_reserve_bytes,
        sync_p50_ms=measured.sync_p50_ms,
        sync_p99_ms=measured.sync_p99_ms,
        cpu_ms=measured.cpu_ms,
        rss_bytes=measured.rss_bytes,
        rss_anon_bytes=measured.rss_anon_bytes,
        differing=differing,
        reads="lease" if settings.reads_by_lease else "read-index",
        lease_remaining_ms=lease_remaining_ms,
        features_max=settings.features_max,
        redis=settings.redis,
        http=settings.http,
        certificate_expires_ms=measured.certificate_expires_ms,
        log_level=level(),
    )
