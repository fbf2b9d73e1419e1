"""What the commands of a rolling operation make of its record: pure functions, equal everywhere.

A record has a version that grows with every change, and every change names the version that it was
decided on. So of two drivers of one operation only one gets further, and a pause that comes
between two of a driver's changes stops it: it does not know of the new version.

| action | allowed while | what it changes |
|---|---|---|
| step | not paused; at most one step runs | one step |
| pause | not paused | nobody may take a step any more, and other changes of members may begin |
| resume | always, unless another change of members runs | the driver, and that it is not paused |
| end | no step of it is on its way; done only when every step is done or skipped | it has ended |
"""

from __future__ import annotations

import attrs

from raftd.commands import (
    ABORTED,
    DONE,
    ENDED,
    FAILED,
    ROLLING,
    RUNNING,
    SKIPPED,
    BeginRolling,
    Operation,
    PhaseAt,
    Plan,
    Rolling,
    RollingStep,
    UpdateRolling,
)
from raftd.core.types import Index

_STEP_STATES = (RUNNING, DONE, SKIPPED, FAILED)
_STEP_ENDED = (DONE, SKIPPED, FAILED)
_OUTCOMES = (DONE, FAILED, ABORTED)


@attrs.frozen
class Refusal:
    """Why a record stays as it is: the code and the message of a `Result`."""

    code: str
    message: str
    operation: str = ""
    """Another operation that stands in the way; empty for the rolling one itself."""


def began(
    body: BeginRolling,
    *,
    id: str,
    index: Index,
    configuration_index: Index,
    session: str,
    serial: int,
) -> Operation:
    """Return the record of a rolling operation that begins with the entry at `index`."""
    steps = tuple(RollingStep(name=step.name, replacement=step.replacement) for step in body.steps)
    return Operation(
        id=id,
        kind=body.kind,
        author=body.author,
        reason=body.reason,
        plan=Plan(changes=(), joint=False, configuration_index=configuration_index),
        phase=ROLLING,
        phases=(PhaseAt(phase=ROLLING, index=index, time_ms=body.time_ms),),
        session=session,
        serial=serial,
        rolling=Rolling(
            steps=steps, command=body.command, driver=body.author, changed_ms=body.time_ms
        ),
    )


def updated(
    operation: Operation, body: UpdateRolling, *, index: Index, member: Operation | None
) -> Operation | Refusal:
    """Return the record after `body`, or why it refuses.

    Args:
        operation: the record, which has not ended.
        body: what is asked, in the entry at `index`.
        index: of that entry.
        member: the membership operation that runs, a step of this one or not.
    """
    rolling = operation.rolling
    assert rolling is not None, "no rolling operation"
    if body.version != rolling.version:
        return Refusal(
            "rolling-moved",
            f"{operation.id} is at version {rolling.version} by now, not {body.version}: "
            f"{who_has_it(rolling)}",
        )
    changed = attrs.evolve(rolling, version=rolling.version + 1, changed_ms=body.time_ms)
    match body.action:
        case "step":
            step = _step(operation.id, rolling, body)
            if isinstance(step, Refusal):
                return step
            steps = list(rolling.steps)
            steps[body.position] = step
            changed = attrs.evolve(changed, steps=tuple(steps))
        case "pause":
            if rolling.paused_by:
                return Refusal("invalid", f"{operation.id} is {who_has_it(rolling)} already")
            changed = attrs.evolve(
                changed, paused_by=body.author or "unknown", paused_reason=body.reason
            )
        case "resume":
            if member is not None and member.parent != operation.id:
                return Refusal(
                    "operation-running",
                    f"{member.id} ({member.kind}, by {member.author}) is {member.phase}; "
                    f"{operation.id} goes on when it has ended",
                    member.id,
                )
            changed = attrs.evolve(changed, driver=body.author, paused_by="", paused_reason="")
        case "end":
            problem = _end_problem(operation.id, rolling, body, member)
            if problem is not None:
                return problem
            evolved = attrs.evolve(operation, rolling=changed)
            return ended(evolved, body.outcome, body.reason, index=index, time_ms=body.time_ms)
        case _:
            return Refusal("invalid", f"{body.action!r} is nothing that a record knows")
    return attrs.evolve(operation, rolling=changed)


def ended(
    operation: Operation, outcome: str, reason: str, *, index: Index, time_ms: int
) -> Operation:
    """Return the record of a rolling operation that ends with the entry at `index`.

    A step that was under way counts as failed: what it has begun goes on or is undone without it.
    """
    rolling = operation.rolling
    assert rolling is not None, "no rolling operation"
    steps = tuple(
        attrs.evolve(
            step, state=FAILED, ended_ms=time_ms, note=f"under way when {operation.id} ended"
        )
        if step.state == RUNNING
        else step
        for step in rolling.steps
    )
    return attrs.evolve(
        operation,
        rolling=attrs.evolve(rolling, steps=steps),
        phase=ENDED,
        phases=(*operation.phases, PhaseAt(phase=ENDED, index=index, time_ms=time_ms)),
        result=outcome,
        explanation=reason,
    )


def who_has_it(rolling: Rolling) -> str:
    """Return whether it is paused or driven, and by whom."""
    if not rolling.paused_by:
        return f"driven by {rolling.driver}"
    because = f" ({rolling.paused_reason})" if rolling.paused_reason else ""
    return f"paused by {rolling.paused_by}{because}"


def _step(id: str, rolling: Rolling, body: UpdateRolling) -> RollingStep | Refusal:
    """Return the step as `body` has it, with the times of the log."""
    if rolling.paused_by:
        return Refusal("rolling-moved", f"{id} is {who_has_it(rolling)}")
    asked = body.step
    if asked is None or asked.state not in _STEP_STATES:
        return Refusal("invalid", f"a step is one of {', '.join(_STEP_STATES)}")
    if not 0 <= body.position < len(rolling.steps):
        return Refusal("invalid", f"{id} has steps 0 to {len(rolling.steps) - 1}")
    before = rolling.steps[body.position]
    others = (step for step in rolling.steps if step is not before)
    running = next((step for step in others if step.state == RUNNING), None)
    if running is not None:
        return Refusal("invalid", f"the step of {running.name} is not finished yet")
    started_ms, ended_ms = before.started_ms, before.ended_ms
    if asked.state == RUNNING and before.state != RUNNING:
        started_ms, ended_ms = body.time_ms, 0
    elif asked.state in _STEP_ENDED:
        ended_ms = body.time_ms
    return attrs.evolve(
        asked,
        name=before.name,
        replacement=before.replacement,
        started_ms=started_ms,
        ended_ms=ended_ms,
    )


def _end_problem(
    id: str, rolling: Rolling, body: UpdateRolling, member: Operation | None
) -> Refusal | None:
    """Return why it cannot end like this; None if it can."""
    if body.outcome not in _OUTCOMES:
        return Refusal("invalid", f"an operation ends as one of {', '.join(_OUTCOMES)}")
    if member is not None and member.parent == id:
        return Refusal(
            "operation-running", f"{member.id}, a step of {id}, is {member.phase}", member.id
        )
    unfinished = [step.name for step in rolling.steps if step.state not in (DONE, SKIPPED)]
    if body.outcome == DONE and unfinished:
        return Refusal("invalid", f"the steps of {', '.join(unfinished)} are not done")
    return None
