"""What a leader finds of its members, in the log for people: silent, back, slow, sent a snapshot.

Looked at with the ticks, so that a single command costs nothing. One line for each change; of a
member that comes and goes all the time not each.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import attrs

from raftd.core.leader import Leader
from raftd.core.progress import Progress
from raftd.core.raft import Raft
from raftd.core.snapshot import SnapshotId
from raftd.core.types import Index, ServerId, server_name
from raftd.event_log import Sparing, left_out_words, tell
from raftd.log_words import milliseconds
from raftd.replies import size_text

SLOW_MS = 5_000.0
"""A voter that answers and still lacks, after so long, what was committed at the beginning of it is
slow: a write takes a few milliseconds, and a hiccup of its disk a second."""
LINES_MAX = 6
"""About one member in each `PERIOD_SECONDS`: it may go and come back three times."""
PERIOD_SECONDS = 60.0

logger = logging.getLogger("raftd.peers")


@attrs.define
class _Peer:
    """What is known of one member, and what was said of it."""

    sparing: Sparing
    silent: bool = False
    silent_tick: int = 0
    """Since when it has not answered."""
    slow: bool = False
    owed_index: Index = 0
    """What was committed at `owed_tick`, and what it is waited for."""
    owed_tick: int = 0
    snapshot: SnapshotId | None = None
    """The one that it is being sent, as was said."""
    snapshot_tick: int = 0


class PeerLog:
    """Watches the members of a leader. Holds nothing while this server does not lead."""

    def __init__(self, tick_ms: float, clock: Callable[[], float]) -> None:
        """Begin.

        Args:
            clock: seconds that never go back.
        """
        self._tick_ms = tick_ms
        self._clock = clock
        self._leader: Leader | None = None
        self._peers: dict[ServerId, _Peer] = {}

    def tick(self, raft: Raft) -> None:
        """Say what has changed since the last call, if this server leads."""
        leader = raft.role
        if leader is not self._leader:
            self._peers.clear()
            self._leader = leader if isinstance(leader, Leader) else None
        if not isinstance(leader, Leader):
            return
        for server, progress in leader.progress.items():
            peer = self._peers.get(server)
            if peer is None:
                sparing = Sparing(self._clock, lines_max=LINES_MAX, period_seconds=PERIOD_SECONDS)
                peer = self._peers[server] = _Peer(sparing, owed_tick=raft.now)
            if progress.fenced or leader.is_departing(server):
                # Fencing tells of the one; the other one is to go.
                continue
            self._look_at_contact(raft, server, progress, peer)
            if progress.snapshot is not None or peer.snapshot is not None:
                self._look_at_snapshot(raft, server, progress, peer)
            if not peer.silent:
                self._look_at_pace(raft, server, progress, peer)
        if len(self._peers) > len(leader.progress):
            for server in self._peers.keys() - leader.progress.keys():
                del self._peers[server]

    # --- contact ---

    def _look_at_contact(
        self, raft: Raft, server: ServerId, progress: Progress, peer: _Peer
    ) -> None:
        heard_tick = progress.last_contact_tick
        since_tick = progress.since_tick if heard_tick is None else heard_tick
        silent = raft.now - since_tick >= raft.options.election_ticks
        if silent == peer.silent:
            return
        peer.silent = silent
        if silent:
            peer.silent_tick, peer.slow = since_tick, False
        else:
            peer.owed_tick, peer.owed_index = raft.now, 0
        if not peer.sparing.admits():
            return
        has = f"; it has entries up to {progress.match_index} of {raft.log.last_index}"
        if heard_tick is None:
            has = ", since this server leads"
        has += left_out_words(peer.sparing.left_out())
        if silent:
            self._tell(
                "peer-silent",
                server,
                f"has not answered for {self._ms(raft.now - since_tick)}{has}",
                level=logging.WARNING,
                silent_ms=round((raft.now - since_tick) * self._tick_ms),
                match_index=progress.match_index,
            )
        else:
            away_ticks = since_tick - peer.silent_tick
            self._tell(
                "peer-back",
                server,
                f"answers again, after {self._ms(away_ticks)}{has}",
                silent_ms=round(away_ticks * self._tick_ms),
                match_index=progress.match_index,
            )

    # --- pace ---

    def _look_at_pace(self, raft: Raft, server: ServerId, progress: Progress, peer: _Peer) -> None:
        if progress.match_index >= peer.owed_index:
            if peer.slow:
                peer.slow = False
                self._tell_pace(
                    "peer-caught-up",
                    server,
                    peer,
                    f"keeps up again, after {self._ms(raft.now - peer.owed_tick)}; it has entries "
                    f"up to {progress.match_index} of {raft.log.last_index}",
                )
            peer.owed_index, peer.owed_tick = raft.log.commit_index, raft.now
            return
        late_ticks = raft.now - peer.owed_tick
        latest = raft.configuration
        assert latest is not None
        if (
            peer.slow
            or late_ticks * self._tick_ms < SLOW_MS
            # Learners that catch up are slow by nature, and so is who is sent a snapshot.
            or server not in latest.configuration.all_voters
            or progress.snapshot is not None
        ):
            return
        peer.slow = True
        self._tell_pace(
            "peer-slow",
            server,
            peer,
            f"is slow: it answers, and has entries up to {progress.match_index} only, "
            f"{raft.log.last_index - progress.match_index:,} behind; those up to {peer.owed_index} "
            f"were committed {self._ms(late_ticks)} ago",
            level=logging.WARNING,
            lag_entries=raft.log.last_index - progress.match_index,
        )

    def _tell_pace(
        self,
        event: str,
        server: ServerId,
        peer: _Peer,
        words: str,
        *,
        level: int = logging.INFO,
        **fields: object,
    ) -> None:
        if peer.sparing.admits():
            words += left_out_words(peer.sparing.left_out())
            self._tell(event, server, words, level=level, **fields)

    # --- snapshots ---

    def _look_at_snapshot(
        self, raft: Raft, server: ServerId, progress: Progress, peer: _Peer
    ) -> None:
        if progress.snapshot == peer.snapshot:
            return
        before, peer.snapshot = peer.snapshot, progress.snapshot
        took_ticks, peer.snapshot_tick = raft.now - peer.snapshot_tick, raft.now
        if before is not None and progress.match_index >= before.last_included_index:
            self._tell(
                "snapshot-sent",
                server,
                f"has the snapshot up to entry {before.last_included_index} after "
                f"{self._ms(took_ticks)}, {size_text(before.size_bytes)}",
                index=before.last_included_index,
                size_bytes=before.size_bytes,
                took_ms=round(took_ticks * self._tick_ms),
            )
        if peer.snapshot is not None:
            self._tell(
                "snapshot-sent",
                server,
                f"is sent the snapshot up to entry {peer.snapshot.last_included_index}, "
                f"{size_text(peer.snapshot.size_bytes)}: it has entries up to "
                f"{progress.match_index}, and the log begins at {raft.log.first_index}",
                index=peer.snapshot.last_included_index,
                size_bytes=peer.snapshot.size_bytes,
            )

    def _tell(
        self,
        event: str,
        server: ServerId,
        words: str,
        *,
        level: int = logging.INFO,
        **fields: object,
    ) -> None:
        tell(logger, event, "%s %s", server_name(server), words, level=level, peer=server, **fields)

    def _ms(self, ticks: int) -> str:
        return milliseconds(ticks * self._tick_ms)
