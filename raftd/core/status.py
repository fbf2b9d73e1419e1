"""Frozen views of a server: all that simulators, `raftctl` and metrics look at."""

from __future__ import annotations

import attrs

from raftd.core.membership import ConfigurationAt
from raftd.core.snapshot import SnapshotId
from raftd.core.types import Index, ServerId, Term


@attrs.frozen(kw_only=True)
class PeerStatus:
    """What a leader knows of another server."""

    server: ServerId
    match_index: Index
    next_index: Index
    state: str
    contact_age_ticks: int | None
    """Since the last answer in this term; None if there was none."""
    caught_up: bool
    rounds: int
    fenced: bool
    snapshot: SnapshotId | None
    """What it is being sent instead of entries that are compacted."""
    received_bytes: int
    """Of that snapshot."""
    installed_bytes: int
    departing: bool
    """No longer a member; fed until it knows."""


@attrs.frozen(kw_only=True)
class Status:
    """One server at one moment."""

    server: ServerId
    role: str
    """follower, precandidate, candidate or leader."""
    current_term: Term
    voted_for: ServerId | None
    leader_id: ServerId | None
    first_index: Index
    last_index: Index
    last_term: Term
    commit_index: Index
    handed_index: Index
    durable_index: Index
    snapshot_index: Index
    """What the newest snapshot includes; 0 without one."""
    configuration: ConfigurationAt | None
    leadership_confirmed: bool
    transfer_target: ServerId | None
    peers: tuple[PeerStatus, ...]
