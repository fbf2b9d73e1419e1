"""The story of a change that is undone: what stopped it, what is in force again, what comes next.

It is told in the record of the operation, once for all. What a half of C_old,new lacks is told as
long as it lacks it, too.
"""

from __future__ import annotations

from raftd.commands import Operation
from raftd.core.membership import ConfigurationAt
from raftd.core.quorum import majority
from raftd.core.raft import Raft
from raftd.core.types import Index, ServerId, server_name
from raftd.planning import names, shortened

REPEAT = "repeat the command whenever you like: what its new servers have received, they keep"
"""What to do after a change that was undone."""
SILENT_HEARTBEATS = 2
"""Who has not answered within so many heartbeats is called silent."""


def aborted_by(author: str, reason: str) -> str:
    """Return who wanted a change undone, and why."""
    return shortened(f"aborted by {author or 'unknown'}{f': {reason}' if reason else ''}")


def undone(operation: Operation, cause: str, next_step: str, *, touched: bool = True) -> str:
    """Return the explanation of an operation that is undone.

    Args:
        cause: what stopped it; as it may repeat what strangers have said, it is cut.
        next_step: what whoever reads it should do.
        touched: whether any configuration entry of it is in the log.
    """
    return shortened(cause) + epilogue(operation, next_step, touched=touched)


def epilogue(operation: Operation, next_step: str, *, touched: bool = True) -> str:
    """Return what `undone` says after the cause."""
    plan = operation.plan
    if not touched:
        return f"; the configuration was never touched; next: {next_step}"
    words = f"; restored: voters {names(plan.voters_before)}, learners "
    words += names(plan.learners_before)
    if plan.moved:
        moved = (f"{server_name(server)} at {at}" for server, at in sorted(plan.moved.items()))
        words += f"; kept, because it was verified: {', '.join(moved)}"
    return f"{words}; next: {next_step}"


def epilogue_of_lost_half(
    raft: Raft, operation: Operation, joint: ConfigurationAt, tick_ms: float
) -> str:
    """Return what is to be said if the core itself undoes the joint change that runs.

    On the leader only.
    """
    lacking = missing(raft, joint, tick_ms)
    next_step = f"see with `raftctl status` what became of these servers, then {REPEAT}"
    return (f"; {lacking}" if lacking else "") + epilogue(operation, next_step)


def missing(raft: Raft, latest: ConfigurationAt, tick_ms: float) -> str:
    """Return which half of the latest configuration lacks which servers; empty if none does.

    On the leader only. A half lacks those that have not stored the configuration, unless a majority
    has.

    Args:
        tick_ms: what a tick of the core is worth.
    """
    configuration = latest.configuration
    found = []
    for name, half in (("C_old", configuration.outgoing), ("C_new", configuration.voters)):
        stored = [server for server in half if _has_stored(raft, server, latest.index)]
        needed = majority(len(half))
        if half and len(stored) < needed:
            lacking = [
                _lacking(raft, server, tick_ms) for server in sorted(half.difference(stored))
            ]
            found.append(
                f"{name} has it on {len(stored)} of {len(half)} and needs {needed}, "
                f"without {', '.join(lacking)}"
            )
    return "; ".join(found)


def _has_stored(raft: Raft, server: ServerId, index: Index) -> bool:
    if server == raft.server:
        return raft.log.durable_index >= index
    progress = raft.leader().progress.get(server)
    return progress is not None and progress.match_index >= index


def _lacking(raft: Raft, server: ServerId, tick_ms: float) -> str:
    ticks = silent_ticks(raft, server)
    if not ticks:
        return f"{server_name(server)} (it answers)"
    return f"{server_name(server)} (silent for {ticks * tick_ms / 1000:.1f} s)"


def silent_ticks(raft: Raft, server: ServerId) -> int:
    """Return for how long a server has been silent; 0 while it answers. On the leader only."""
    progress = raft.leader().progress.get(server)
    if progress is None:
        return 0
    ticks = raft.now - max(progress.last_contact_tick or 0, progress.since_tick)
    return ticks if ticks > SILENT_HEARTBEATS * raft.options.heartbeat_ticks else 0
