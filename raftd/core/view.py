"""What a server shows of itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from raftd.core.leader import Leader
from raftd.core.snapshot import SnapshotId
from raftd.core.status import PeerStatus, Status
from raftd.core.types import ServerId

if TYPE_CHECKING:
    from raftd.core.raft import Raft


def status_of(raft: Raft) -> Status:
    """Return a frozen view of a server."""
    leader = raft.role if isinstance(raft.role, Leader) else None
    log = raft.log
    return Status(
        server=raft.server,
        role=type(raft.role).__name__.lower(),
        current_term=raft.current_term,
        voted_for=raft.voted_for,
        leader_id=raft.leader_id,
        first_index=log.first_index,
        last_index=log.last_index,
        last_term=log.last_term,
        commit_index=log.commit_index,
        handed_index=log.handed_index,
        durable_index=log.durable_index,
        snapshot_index=raft.snapshot_index,
        configuration=raft.configuration,
        leadership_confirmed=leader is not None and leader.in_contact_with_quorum(),
        transfer_target=leader.transfer_target if leader else None,
        peers=peers_of(raft, leader) if leader else (),
    )


def addresses_of(raft: Raft) -> dict[ServerId, str]:
    """Return HOST:PORT of every server that this one may have to talk to on its own."""
    latest = raft.configuration
    if latest is None:
        return {}
    known = dict(latest.entry.addresses)
    if isinstance(raft.role, Leader):
        known.update(raft.role.departing_addresses())
    known.pop(raft.server, None)
    return known


def snapshots_in_use(raft: Raft) -> frozenset[SnapshotId]:
    """Return the snapshots that have to stay readable: the newest, and what is being sent."""
    newest = {raft.snapshot.id} if raft.snapshot is not None else set()
    if isinstance(raft.role, Leader):
        newest |= raft.role.snapshots_being_sent()
    return frozenset(newest)


def peers_of(raft: Raft, leader: Leader) -> tuple[PeerStatus, ...]:
    """Return a leader's view of every other server, sorted."""
    return tuple(
        PeerStatus(
            server=server,
            match_index=progress.match_index,
            next_index=progress.next_index,
            state=progress.state.value,
            contact_age_ticks=progress.contact_age(raft.now),
            caught_up=leader.is_caught_up(server),
            rounds=progress.rounds,
            fenced=progress.fenced,
            snapshot=progress.snapshot,
            received_bytes=progress.received_bytes,
            installed_bytes=progress.installed_bytes,
            departing=leader.is_departing(server),
        )
        for server, progress in sorted(leader.progress.items())
    )


def leader_contact_age(raft: Raft) -> int | None:
    """Return the ticks since the leader that is followed was heard; None if it never was."""
    heard = raft._leader_contact_tick
    return None if heard is None else raft.now - heard
