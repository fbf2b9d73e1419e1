"""From the core's state to the values that status shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from raftd.core.leader import Leader
from raftd.core.raft import Candidate, PreCandidate, Raft
from raftd.core.types import ServerId, server_name
from raftd.inputs import LinkChanged
from raftd.planning import view
from raftd.protocol import OperationView, PeerView, StatusReply
from raftd.storage.identity import Identity
from raftd.storage.state import StateMachine


def member_address(raft: Raft, server: ServerId) -> str:
    """Return HOST:PORT of a member; empty if the latest configuration does not say."""
    latest = raft.configuration
    return latest.entry.addresses.get(server, "") if latest is not None else ""


def peer_views(
    raft: Raft, links: Mapping[ServerId, LinkChanged], tick_ms: float
) -> dict[ServerId, PeerView]:
    """Return the leader's view of the others; empty on any other server."""
    if not isinstance(raft.role, Leader):
        return {}
    views = {}
    for peer in raft.role.peers():
        link = links.get(peer.server)
        age_ticks = peer.contact_age_ticks
        problem = "" if link is None or link.connected else link.problem
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
        )
    return views


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


def status_reply(
    raft: Raft,
    *,
    identity: Identity,
    state: StateMachine,
    peers: tuple[PeerView, ...],
    operation: OperationView | None,
    version: str,
    uptime_ms: int,
    heartbeat_interval_ms: float,
    election_timeout_ms: float,
    problems: Sequence[str],
) -> StatusReply:
    """Return one server's own view; `problems` are the driver's, in words."""
    status = raft.status()
    leader = raft.leader_id or ""
    issues = [*problems]
    if identity.removed_index:
        issues.append(f"removed for good by configuration {identity.removed_index}")
    issues += [
        f"{server_name(peer.server)} is fenced: its disk lacks entries that it had acknowledged"
        for peer in status.peers
        if peer.fenced
    ]
    return StatusReply(
        server=identity.server,
        version=version,
        cluster_id=identity.cluster_id,
        cluster_name=identity.cluster_name,
        role=role_word(raft, identity),
        term=status.current_term,
        leader=leader,
        leader_address=member_address(raft, leader) if leader else "",
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
        issues=tuple(issues),
        uptime_ms=uptime_ms,
        heartbeat_interval_ms=heartbeat_interval_ms,
        election_timeout_ms=election_timeout_ms,
    )
