"""A server's part in being sent a snapshot.

Source: Figure 13 of the paper, receiver.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from raftd.core.messages import InstallSnapshot, InstallSnapshotResponse
from raftd.core.snapshot import Snapshot, SnapshotId
from raftd.core.types import Index, ServerId, Term

if TYPE_CHECKING:
    from raftd.core.raft import Raft


@attrs.frozen
class _Incoming:
    """A snapshot that is being received, and the latest request for it."""

    snapshot: SnapshotId
    source: ServerId
    term: Term
    round: int


class SnapshotReceiver:
    """Knows what is being received, and tells the leader how far that has come."""

    def __init__(self, raft: Raft) -> None:
        self._raft = raft
        self._incoming: _Incoming | None = None

    @property
    def snapshot(self) -> SnapshotId | None:
        """The snapshot that a leader is sending, if one is."""
        return self._incoming.snapshot if self._incoming is not None else None

    def take_part(self, source: ServerId, message: InstallSnapshot) -> bool:
        """Take note of a part that the leader of the current term sends.

        Returns:
            Whether it is to be stored. Not where the log has all that the snapshot includes.
        """
        snapshot, log = message.snapshot, self._raft.log
        incoming = _Incoming(snapshot, source, message.term, message.round)
        index = snapshot.last_included_index
        if index > log.commit_index and log.term_at(index) == snapshot.last_included_term:
            # The leader's log has this entry and it is committed there, so ours agrees up to it.
            log.commit_index = index
        if index <= log.commit_index:
            # What is committed here is in every later leader's log and snapshot as well.
            size_bytes = snapshot.size_bytes
            self._answer(incoming, size_bytes, size_bytes, match_index=index)
            return False
        self._incoming = incoming
        return True

    def progressed(self, snapshot: SnapshotId, received_bytes: int, installed_bytes: int) -> None:
        """Tell the leader how much there is of `snapshot`, if that is the one that it sends."""
        incoming = self._incoming
        if incoming is not None and incoming.snapshot == snapshot:
            self._answer(incoming, received_bytes, installed_bytes, match_index=0)

    def end(self) -> _Incoming | None:
        """Forget what is being received, and return it for `answer_whole`."""
        incoming, self._incoming = self._incoming, None
        return incoming

    def answer_whole(self, incoming: _Incoming | None, snapshot: Snapshot) -> None:
        """Tell the leader that all of `snapshot` is there, if that is the one that it sent."""
        if incoming is not None and incoming.snapshot == snapshot.id:
            size_bytes, index = snapshot.id.size_bytes, snapshot.id.last_included_index
            self._answer(incoming, size_bytes, size_bytes, match_index=index)

    def _answer(
        self, incoming: _Incoming, received_bytes: int, installed_bytes: int, *, match_index: Index
    ) -> None:
        """Answer the latest request for a snapshot; nobody who led an earlier term."""
        raft = self._raft
        if incoming.term != raft.current_term:
            return
        raft.send(
            incoming.source,
            InstallSnapshotResponse(
                term=raft.current_term,
                snapshot=incoming.snapshot,
                round=incoming.round,
                received_bytes=received_bytes,
                installed_bytes=installed_bytes,
                match_index=match_index,
                commit_index=raft.log.commit_index,
                last_log_index=raft.log.last_index,
            ),
        )
