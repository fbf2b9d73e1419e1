"""Whose turn it is: which membership change may begin beside a rolling operation.

The state machine decides it again when the change is applied. But a change that is refused should
leave nothing in the log, and a refusal should say what would work. Besides, an entry with a parent
is one that servers without rolling operations could not apply: the leader appends it only where
there is that parent.
"""

from __future__ import annotations

from raftd.commands import Operation
from raftd.planning import Refused
from raftd.storage.rolling_records import who_has_it


def refuse_out_of_turn(rolling: Operation | None, parent: str) -> None:
    """Refuse a membership change while a rolling operation leaves no room for it.

    Args:
        rolling: the rolling operation that has not ended, paused or not.
        parent: the one that the change is a step of; empty for none.

    Raises:
        Refused: another rolling operation runs, or `parent` is paused, or does not run.
    """
    record = rolling.rolling if rolling is not None else None
    if rolling is None or record is None:
        if parent:
            raise _not_running(parent)
        return
    if rolling.id == parent and record.paused_by:
        raise Refused(
            "refused",
            f"{parent} is paused",
            f"{parent} is {who_has_it(record)}; none of its steps begins before it is resumed",
            f"raftctl rolling resume {parent}",
            operation=parent,
        )
    if record.paused_by and parent:
        raise _not_running(parent)
    if not record.paused_by and rolling.id != parent:
        steps = sum(step.state in ("done", "skipped") for step in record.steps)
        raise Refused(
            "refused",
            f"{rolling.id} is running",
            f"{rolling.id} ({rolling.kind}, {who_has_it(record)}) has done {steps} of "
            f"{len(record.steps)} steps; nothing else changes the members meanwhile, unless it is "
            "paused",
            f"`raftctl operation watch {rolling.id}`, or `raftctl rolling pause {rolling.id}`, "
            "then repeat the command",
            operation=rolling.id,
        )


def _not_running(parent: str) -> Refused:
    return Refused(
        "refused",
        f"{parent} does not run",
        f"the change is to be a step of {parent}, which has ended or has never been there",
        "raftctl operation list",
        operation=parent,
    )
