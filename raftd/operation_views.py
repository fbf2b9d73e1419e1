"""Operations as people see them: the record, and on the leader what it is doing right now."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from raftd.commands import DONE, Operation
from raftd.core.leader import Leader
from raftd.core.membership import ConfigurationAt, ConfigurationKind
from raftd.core.quorum import majority
from raftd.core.raft import Raft
from raftd.core.types import Index, ServerId
from raftd.protocol import MajorityView, OperationView, PeerView
from raftd.rollback import missing, silent_ticks
from raftd.storage.state import StateMachine

VIEWS_BYTES_MAX = 4 * 1024 * 1024
"""Operation records of one reply, by the length of their text, which is more than they take on the
wire: half a frame."""


class OperationViews:
    """Describes the operations in one server's applied state."""

    def __init__(
        self, state: StateMachine, peers: Callable[[], Mapping[ServerId, PeerView]], tick_ms: float
    ) -> None:
        """Describe what `state` has; `peers` is the leader's view of the others."""
        self._state = state
        self._peers = peers
        self._tick_ms = tick_ms

    def views(self, raft: Raft, operation_id: str, waiting_for: str) -> tuple[OperationView, ...]:
        """Return the operations, or the one that is named, the newest last.

        The oldest ones are left out where all of them would not fit one reply.

        Args:
            waiting_for: what the leader waits for in the one that runs, in words.
        """
        if operation_id:
            record = self._state.operation(operation_id)
            return (self.describe(raft, record, waiting_for),) if record is not None else ()
        chosen: list[Operation] = []
        size = 0
        for record in reversed(self._state.operations()):
            size += len(repr(record))
            if chosen and size > VIEWS_BYTES_MAX:
                break
            chosen.append(record)
        return tuple(self.describe(raft, record, waiting_for) for record in reversed(chosen))

    def describe(self, raft: Raft, record: Operation, waiting_for: str) -> OperationView:
        """Return the record, and on the leader what it is doing right now."""
        latest = raft.configuration
        if not record.running:
            return OperationView(record=record, step="ended")
        if latest is None or not isinstance(raft.role, Leader) or record.rolling is not None:
            return OperationView(record=record, step=record.phase)
        step, counted = _step(record, latest)
        old = new = None
        if counted:
            configuration = latest.configuration
            if configuration.is_joint:
                old = _majority(raft, configuration.outgoing, latest.index)
            new = _majority(raft, configuration.voters, latest.index)
        peers = self._peers()
        return OperationView(
            record=record,
            step=step,
            index=latest.index if counted else 0,
            old=old,
            new=new,
            peers=tuple(
                peers[server]
                for server in sorted({*record.plan.addresses, *record.plan.voters_after})
                if server in peers and server not in record.plan.voters_before
            ),
            last_index=raft.log.last_index,
            blocked_by=waiting_for or (self._blocked(raft, latest) if counted else ""),
        )

    def _blocked(self, raft: Raft, latest: ConfigurationAt) -> str:
        """Return which half cannot agree without silent servers; else the entry is on its way."""
        for half in (latest.configuration.outgoing, latest.configuration.voters):
            acknowledged = set(_majority(raft, half, latest.index).acknowledged)
            reached = {server for server in half if not silent_ticks(raft, server)} | acknowledged
            if half and len(reached) < majority(len(half)):
                return missing(raft, latest, self._tick_ms)
        return ""


def _step(record: Operation, latest: ConfigurationAt) -> tuple[str, bool]:
    """Return the step in a word, and whether the latest configuration belongs to it."""
    mine = latest.entry.operation == record.id
    if mine and latest.configuration.is_joint:
        return ("rolling-back" if record.abort_requested_by else "committing-joint"), True
    if mine and latest.entry.kind is ConfigurationKind.FINAL:
        return "committing-final", True
    if record.abort_requested_by or (mine and latest.entry.outcome not in ("", DONE)):
        return "rolling-back", False
    return record.phase, False


def _majority(raft: Raft, half: frozenset[ServerId], index: Index) -> MajorityView:
    leader = raft.leader()
    acknowledged = [
        server
        for server in sorted(half)
        if (server == raft.server and raft.log.durable_index >= index)
        or (server in leader.progress and leader.progress[server].match_index >= index)
    ]
    return MajorityView(
        servers=tuple(sorted(half)),
        acknowledged=tuple(acknowledged),
        needed=majority(len(half)),
    )
