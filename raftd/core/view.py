"""What a server shows of itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from raftd.core.leader import Leader
from raftd.core.status import PeerStatus, Status

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
