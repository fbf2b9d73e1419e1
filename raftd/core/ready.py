"""What the driver owes the core: everything outstanding, in the order in which it has to happen.

Source: the `Ready` of etcd's raft library; dissertation section 10.2.1 for the early messages.
"""

from __future__ import annotations

import attrs

from raftd.core.messages import Envelope
from raftd.core.snapshot import Snapshot, SnapshotId
from raftd.core.types import Entry, HardState, Index, ServerId, Term


@attrs.frozen
class ReadAnswer:
    """A read that may be answered once `read_index` is applied, or that cannot be."""

    token: object
    read_index: Index | None
    """None: leadership was lost before a quorum confirmed it. Nothing was read; ask the leader."""


@attrs.frozen(kw_only=True)
class Chunk:
    """A part of a snapshot that is to leave as an `InstallSnapshot`."""

    dest: ServerId
    term: Term
    snapshot: SnapshotId
    offset: int
    size_bytes: int
    """0 for a heartbeat."""
    round: int


@attrs.frozen(kw_only=True)
class Ready:
    """One batch of work. Between `Raft.take_ready` and `Raft.persisted` nothing else is put in.

    1. Send `early_messages`: they need not wait for this server's disk.
    2. Put `restore` in force: snapshot, log and state machine, in this order. Then make
       `hard_state` and `entries` durable, together, in one write and one sync.
    3. Call `Raft.persisted`.
    4. Send `messages` and `chunks_to_send`: they say what is durable only now. Store
       `chunks_received` and call `Raft.snapshot_progress` for each.
    5. Apply `committed`; answer `reads`.

    A crash between any two steps loses nothing that was promised.
    """

    early_messages: tuple[Envelope, ...] = ()
    """AppendEntries of a durable term and pre-vote requests; contents by value."""
    hard_state: HardState | None = None
    """The new term and vote, or None if unchanged. Must not become durable after `entries`."""
    entries: tuple[Entry, ...] = ()
    """To be appended; the first one's index may be at or below the last durable one, and then
    replaces everything from there on."""
    messages: tuple[Envelope, ...] = ()
    committed: tuple[Entry, ...] = ()
    """Next entries for the state machine, in order, each exactly once since the start, but for
    those that are given back (`RaftLog.hand_back`) before the next call of the core."""
    reads: tuple[ReadAnswer, ...] = ()
    restore: Snapshot | None = None
    """A snapshot that was received takes the place of the state and of what it includes of the
    log."""
    chunks_to_send: tuple[Chunk, ...] = ()
    chunks_received: tuple[Envelope, ...] = ()
    """Each with an `InstallSnapshot`."""
    lost_leadership: bool = False
    """Leadership ended since the last Ready: the outcome of pending proposals is unknown."""
    term: Term = 0
    """The term at the time of this Ready."""
