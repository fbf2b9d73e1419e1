"""Rolling operations, the server's side: requests that begin them and change their records.

A rolling operation is a plan of steps in the replicated state, which raftctl drives: it waits until
a step is safe, takes it, and notes what became of it. So the servers decide nothing here but who
may change the record, and that in the state machine, see `raftd.storage.rolling_records`. Whoever
drives may die at any moment: the record says where the next driver goes on.
"""

from __future__ import annotations

from collections.abc import Callable

from raftd.commands import (
    FEATURES_ROLLING,
    BeginRolling,
    Command,
    Result,
    RollingStep,
    UpdateRolling,
)
from raftd.core.raft import Raft
from raftd.core.types import server_name
from raftd.operations import Propose, Respond
from raftd.protocol import (
    BeginRollingRequest,
    ErrorReply,
    Reply,
    RollingReply,
    UpdateRollingRequest,
)
from raftd.storage.state import StateMachine


class Rollings:
    """Begins and changes the records of rolling operations; raftctl drives them."""

    def __init__(
        self, *, state: StateMachine, propose: Propose, wall_clock_ms: Callable[[], int]
    ) -> None:
        self._state = state
        self._propose = propose
        self._wall_clock_ms = wall_clock_ms

    def begin(self, raft: Raft, request: BeginRollingRequest, respond: Respond) -> None:
        """Begin a rolling operation, or refuse it. Durable on a majority before the answer.

        Raises:
            NotLeader: this server does not lead; nothing was appended.
        """
        refusal = self._not_switched_on(raft)
        if refusal is not None:
            respond(refusal)
            return
        body = BeginRolling(
            kind=request.kind,
            author=request.author,
            reason=request.reason,
            time_ms=self._wall_clock_ms(),
            # Whatever else a client says of them: how far it is with each, only servers note.
            steps=tuple(
                RollingStep(name=step.name, replacement=step.replacement) for step in request.steps
            ),
            command=request.command,
        )
        self._propose(
            Command(body, request.session, request.serial, request.serial),
            lambda result: respond(rolling_reply(result, version=1)),
            respond,
        )

    def update(self, raft: Raft, request: UpdateRollingRequest, respond: Respond) -> None:
        """Change the record of a rolling operation, or refuse it, as `begin`.

        Raises:
            NotLeader: this server does not lead; nothing was appended.
        """
        refusal = self._not_switched_on(raft)
        if refusal is not None:
            respond(refusal)
            return
        body = UpdateRolling(
            operation=request.operation,
            action=request.action,
            author=request.author,
            version=request.version,
            time_ms=self._wall_clock_ms(),
            position=request.position,
            step=request.step,
            outcome=request.outcome,
            reason=request.reason,
        )
        self._propose(
            Command(body, request.session, request.serial, request.serial),
            # Not what the record says now: another change may have been applied in the same batch.
            lambda result: respond(rolling_reply(result, version=request.version + 1)),
            respond,
        )

    def _not_switched_on(self, raft: Raft) -> ErrorReply | None:
        """Return why no entry of a rolling operation may be appended; None if it may.

        Once switched on, features stay: what this server has applied decides.
        """
        leader = raft.leader()
        features = self._state.features
        if features >= FEATURES_ROLLING:
            return None
        if not leader.has_committed_in_term or self._state.applied_index < leader.term_start:
            return ErrorReply(
                code="unavailable",
                message="the leader has just been elected",
                cause="it has not applied an entry of its term yet",
                hint="try again in some seconds; `raftctl status` shows who leads",
            )
        return ErrorReply(
            code="refused",
            message="rolling operations are not switched on in this cluster yet",
            cause=f"they need the features of version {FEATURES_ROLLING}, this cluster has those "
            f"of {features or 'the first release'}: every member has to speak version "
            f"{FEATURES_ROLLING}, and {server_name(raft.server)}, who leads, switches them on then",
            hint="`raftctl status -o wide` shows the version of each server: restart the older "
            "ones with the new release, one after the other and the leader last",
        )


def rolling_reply(result: Result, *, version: int) -> Reply:
    """Return what applying a command of a rolling operation answered as a reply.

    Args:
        version: of the record, if the command was applied.
    """
    if not result.code:
        return RollingReply(operation=result.operation, version=version)
    if result.code == "session-expired":
        return ErrorReply(
            code="session-expired",
            message="the session has expired",
            cause=result.message,
            hint="`raftctl operation list` shows whether it took effect",
        )
    look = f"raftctl operation show {result.operation}" if result.operation else ""
    messages = {
        "operation-running": f"{result.operation} is running",
        "rolling-moved": f"{result.operation} is not as it was",
        "operation-ended": f"{result.operation} has ended",
    }
    return ErrorReply(
        code="invalid" if result.code == "invalid" else "refused",
        message=messages.get(result.code, "the rolling operation was not changed"),
        cause=result.message,
        hint=look or "raftctl operation list",
        operation=result.operation,
    )
