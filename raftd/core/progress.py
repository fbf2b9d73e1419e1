"""The leader's view of one other server: how far it is, and how it is being fed.

Source: paper section 5.3 (`next_index`, `match_index`), dissertation 4.2.1 (catch-up rounds).
"""

from __future__ import annotations

from collections import deque
from enum import Enum

import attrs

from raftd.core.pacing import Share
from raftd.core.snapshot import SnapshotId
from raftd.core.types import Index, ServerId

INFLIGHT_APPENDS_MAX = 32
"""AppendEntries with entries that may be unanswered: enough to fill a link, few enough to hold."""
INFLIGHT_BYTES_MAX = 8 * 1024 * 1024
"""Bytes of entries that may be unanswered: bounds what a slow follower costs the leader."""


SNAPSHOT_CHUNK_BYTES = 1024 * 1024
"""One `InstallSnapshot`: each costs a turn here and one there, whatever its length. Short enough
not to hold up clients: a millisecond or two."""
SNAPSHOT_INFLIGHT_BYTES_MAX = 4 * 1024 * 1024
"""Bytes of a snapshot that may be unanswered: four chunks keep a link and two disks busy."""
SNAPSHOT_PATIENCE_ELECTION_TIMEOUTS = 60
"""A server that is silent for so long in the middle of a snapshot is not waited for: half a minute
by default, in which a server starts again. The snapshot takes as much of the leader's disk as the
state, and who comes back later would be far behind with it anyway."""


class ReplicationState(Enum):
    """How entries are sent."""

    PROBE = "probe"
    """One request at a time, until one is accepted: where the logs part is not known."""
    REPLICATE = "replicate"
    """Pipelined: `next_index` runs ahead of the answers."""
    SNAPSHOT = "snapshot"
    """The next entry is compacted: a snapshot is sent in chunks."""


@attrs.define
class Progress:
    """One follower or learner, as its leader sees it.

    Invariant: match_index < next_index.
    """

    next_index: Index
    """The next entry to send, in [match_index + 1, last_index + 1]."""
    since_tick: int
    """When this leader began to look after the server."""
    round_target: Index
    """The catch-up round that runs ends when the server has this entry."""
    round_start_tick: int
    match_index: Index = 0
    """The highest entry that the server is known to have on disk."""
    state: ReplicationState = ReplicationState.PROBE
    probe_outstanding: bool = False
    """Entries were sent as a probe. They are not sent again before an answer: if they are lost, the
    next heartbeat, which asks about the same place, takes over."""
    last_contact_tick: int | None = None
    """When the server last answered in this term."""
    acknowledged_round: int = 0
    """The latest send round that the server has answered."""
    commit_index: Index = 0
    """The commit index that the server last reported."""
    rounds: int = 0
    """Catch-up rounds completed."""
    round_was_short: bool = False
    """Whether the last completed round took less than an election timeout."""
    fenced: bool = False
    """It lacks what it had acknowledged in this term: its disk went back in time."""
    acknowledged_before_round: tuple[int, Index] = (0, 0)
    """A send round, and what had been acknowledged before anything of a later round was sent."""
    short_of_space: bool = False
    """It said so in its last answer."""
    inflight: deque[tuple[Index, int]] = attrs.field(factory=deque)
    """Last index and bytes of each unanswered request with entries."""
    inflight_bytes: int = 0
    allowance_bytes: int = 0
    """What may still be sent before the next tick, where the rate is limited."""
    entry_bytes: int = 0
    """What each entry takes of that beyond its own bytes."""
    snapshot: SnapshotId | None = None
    """The snapshot that is being sent. Set exactly in the state SNAPSHOT."""
    sent_bytes: int = 0
    """How far it was sent."""
    received_bytes: int = 0
    """How far the server says it has it."""
    installed_bytes: int = 0
    """How far the server has worked it into a state."""
    was_useless: bool = False
    """The server has had all of it and dropped it: one of the two copies is damaged."""
    snapshot_round: int = 0
    """The send round of the latest answer about it; 0 before the first one, which says where to
    begin."""
    snapshot_progress_tick: int = 0
    """When `received_bytes` or `installed_bytes` changed last."""

    @property
    def window_is_full(self) -> bool:
        """Whether nothing more with entries or parts of a snapshot may be sent before an answer."""
        if self.snapshot is not None:
            return self.sent_bytes - self.received_bytes >= SNAPSHOT_INFLIGHT_BYTES_MAX
        return (
            len(self.inflight) >= INFLIGHT_APPENDS_MAX or self.inflight_bytes >= INFLIGHT_BYTES_MAX
        )

    def is_due(
        self, newest: SnapshotId | None, base_index: Index, now: int, election_ticks: int
    ) -> bool:
        """Return whether `newest` is to be sent from here on, of a log that begins at `base_index`.

        An older one that is on its way is finished, or on a busy cluster none would ever arrive.
        But not for who has said nothing about it, is silent for so long that it may be gone for
        ever, or could not use it: the older one could not be removed.
        """
        if self.snapshot is None:
            return self.next_index <= base_index
        if self.snapshot == newest:
            return False
        begun = self.snapshot_round > 0 or self.received_bytes > 0
        patience_ticks = SNAPSHOT_PATIENCE_ELECTION_TIMEOUTS * election_ticks
        return self.was_useless or not begun or not self.in_contact(now, patience_ticks)

    def begin_snapshot(self, snapshot: SnapshotId, now: int) -> None:
        """Send `snapshot` from now on, from where the server says that it already has it."""
        self.probe_from(self.match_index + 1)
        self.state = ReplicationState.SNAPSHOT
        self.snapshot = snapshot
        self.was_useless = False
        self.allowance_bytes = max(self.allowance_bytes, 0)
        self.sent_bytes = self.received_bytes = self.installed_bytes = self.snapshot_round = 0
        self.snapshot_progress_tick = now

    def snapshot_answered(
        self, round_number: int, received_bytes: int, installed_bytes: int, now: int
    ) -> None:
        """Note what the server says it has of the snapshot. Late answers change nothing."""
        assert self.snapshot is not None
        before = (self.received_bytes, self.installed_bytes)
        if round_number < self.snapshot_round or received_bytes > self.snapshot.size_bytes:
            return
        if round_number == self.snapshot_round:
            received_bytes = max(received_bytes, self.received_bytes)
        if received_bytes < self.received_bytes:
            self.was_useless |= self.received_bytes == self.snapshot.size_bytes
            # It has lost a part of it since.
            self.sent_bytes = received_bytes
        self.snapshot_round = round_number
        self.received_bytes = received_bytes
        self.installed_bytes = installed_bytes
        self.sent_bytes = max(self.sent_bytes, received_bytes)
        if (received_bytes, installed_bytes) != before:
            self.snapshot_progress_tick = now

    def resend_snapshot(self) -> None:
        """Send again what was not answered: it may be lost."""
        self.sent_bytes = self.received_bytes

    def tick(self, share: Share, now: int, election_ticks: int) -> None:
        """Renew what may be sent in this tick; what was not used is lost, so there are no bursts.

        What was sent too much, since chunks and batches are not cut, is paid back.
        """
        self.entry_bytes = share.entry_bytes
        self.allowance_bytes = min(self.allowance_bytes + share.size_bytes, share.size_bytes)
        stalled_ticks = now - self.snapshot_progress_tick
        if self.snapshot is not None and stalled_ticks >= election_ticks:
            self.snapshot_progress_tick = now
            self.resend_snapshot()

    def sent(self, last_index: Index, size_bytes: int) -> None:
        """Note that entries up to `last_index` are on their way."""
        if self.state is ReplicationState.REPLICATE:
            self.next_index = last_index + 1
            self.inflight.append((last_index, size_bytes))
            self.inflight_bytes += size_bytes
        else:
            self.probe_outstanding = True

    def acknowledged(self, match_index: Index) -> None:
        """Note that the server has everything up to `match_index` on disk."""
        self.match_index = max(self.match_index, match_index)
        self.next_index = max(self.next_index, self.match_index + 1)
        self.probe_outstanding = False
        self.state = ReplicationState.REPLICATE
        self.snapshot = None
        while self.inflight and self.inflight[0][0] <= self.match_index:
            self.inflight_bytes -= self.inflight.popleft()[1]

    def probe_from(self, next_index: Index) -> None:
        """Stop pipelining and ask again whether the logs agree just before `next_index`."""
        self.state = ReplicationState.PROBE
        self.snapshot = None
        self.next_index = max(next_index, self.match_index + 1)
        self.probe_outstanding = False
        self.inflight.clear()
        self.inflight_bytes = 0

    def advance_round(self, now: int, last_index: Index, election_ticks: int) -> None:
        """End the catch-up round if its target is reached, and start the next one.

        Source: dissertation section 4.2.1: a server has caught up when a round, which replicates
        all that was there at its start, is shorter than an election timeout.
        """
        if self.match_index < self.round_target:
            return
        self.rounds += 1
        self.round_was_short = now - self.round_start_tick < election_ticks
        self.round_target = last_index
        self.round_start_tick = now

    def contact_age(self, now: int) -> int | None:
        """Return the ticks since the last answer, None if there was none."""
        return None if self.last_contact_tick is None else now - self.last_contact_tick

    def in_contact(self, now: int, within_ticks: int) -> bool:
        """Return whether the server has answered within the last `within_ticks`."""
        age = self.contact_age(now)
        return age is not None and age <= within_ticks and not self.fenced


@attrs.define
class Transfer:
    """Leadership is being handed to `target`; proposals pause until `deadline_tick`."""

    target: ServerId
    deadline_tick: int
    told: bool = False
    """Whether a TimeoutNow was sent since the last heartbeat."""


@attrs.frozen
class Departing:
    """A server that the latest change dropped: it is fed until it knows, or until the deadline."""

    address: str
    index: Index
    deadline_tick: int
