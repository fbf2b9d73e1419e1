"""The record of a rolling operation as its driver changes it.

Every change names the version of the record that this process has seen last. The cluster refuses it
if there is another one by now: somebody has paused, resumed or aborted the operation meanwhile.
"""

from __future__ import annotations

import math
import time
from typing import Any

import attrs

from raftctl.cli import Context
from raftctl.client import Cluster, Deadline, author, expect
from raftctl.errors import CliError, Refused, StillRunning, Unreachable
from raftctl.render import printable
from raftctl.rolling_text import counted, who_drives
from raftctl.watch import look
from raftd.cluster_status.operations import rolling_of, rolling_summary
from raftd.commands import ABORTED, ENDED, RUNNING, Operation, Rolling, RollingStep
from raftd.protocol import (
    BeginRollingRequest,
    ReadIndexRequest,
    RollingReply,
    StatusReply,
    UpdateRollingRequest,
)

READ_POLL_S = 0.1
"""Between two attempts to read a record that the leader may have yet to apply."""
READ_TIMEOUT_MS = 10_000.0
"""For reading a record; an election may come in between."""
ATTEMPTS_MAX = 5
"""To pause or resume an operation whose driver changes its record at the same time."""


class Superseded(Exception):
    """Somebody else has paused, resumed, aborted or ended the operation: stop driving it."""

    def __init__(self, operation: Operation | None, id: str, words: str) -> None:
        super().__init__(words)
        self.operation = operation
        """The record as it is now; None if that is not known."""
        self.id = id
        self.words = words

    def as_error(self, context: Context) -> CliError:
        """Return the error that ends a command with."""
        resume = context.command(f"rolling resume {self.id}")
        record = self.operation
        if record is not None and not record.running:
            return CliError(
                f"{self.id} {'was aborted' if record.result == ABORTED else 'has ended'} by "
                "somebody else",
                cause=printable(record.explanation) or record.result,
                hint=context.command(f"operation show {self.id}"),
                code=record.result,
                operation=self.id,
            )
        paused = record is not None and bool(rolling_of(record).paused_by)
        done = f"; {counted(rolling_of(record))}" if record is not None else ""
        return StillRunning(
            f"{self.id} is {self.words}"
            if paused
            else f"this raftctl does not drive {self.id} any more",
            cause=f"{'nothing more was begun' if paused else printable(self.words)}{done}",
            hint=resume if paused else context.command(f"operation watch {self.id}"),
            code="paused" if paused else "superseded",
            operation=self.id,
        )


class Record:
    """One rolling operation, driven by this process."""

    def __init__(self, cluster: Cluster, operation: Operation) -> None:
        self._cluster = cluster
        self.operation = operation
        """As this process has changed it last. Its times are those of our clock."""

    @property
    def id(self) -> str:
        """op-N."""
        return self.operation.id

    @property
    def _rolling(self) -> Rolling:
        return rolling_of(self.operation)

    def check(self, leader: StatusReply | None) -> None:
        """Stop if the operation has another version than the one that this process has made.

        Args:
            leader: its latest answer; None to ask it.

        Raises:
            Superseded: it has.
        """
        status = leader if leader is not None else self._cluster.leader_status()
        found = status.rolling.record if status.rolling is not None else None
        if found is not None and found.id == self.id:
            # A leader that was just elected may have yet to apply the latest changes.
            if rolling_of(found).version > self._rolling.version:
                self._superseded(found)
        elif leader is None or status.applied_index >= status.commit_index:
            record = read_record(self._cluster, self.id)
            if record is not None and not record.running:
                self._superseded(record)

    def note_step(self, position: int, step: RollingStep) -> None:
        """Put on record how far a step is. It is durable on a majority when this returns.

        Raises:
            Superseded, CliError.
        """
        version = self._change(action="step", position=position, step=step)
        before = self._rolling.steps[position]
        now_ms = int(time.time() * 1000)
        if step.state != RUNNING:
            step = attrs.evolve(step, ended_ms=now_ms)
        elif before.state != RUNNING:
            step = attrs.evolve(step, started_ms=now_ms, ended_ms=0)
        steps = list(self._rolling.steps)
        steps[position] = step
        self._set(steps=tuple(steps), version=version)

    def pause(self, reason: str, *, deadline: Deadline | None = None) -> None:
        """Pause it, so that other changes of members may begin, and say why.

        Raises:
            Superseded, CliError.
        """
        try:
            version = self._change(action="pause", reason=reason, deadline=deadline)
        except Superseded as error:
            found = error.operation
            if found is None or not self._is_our_last_change(found):
                raise
            self.operation = found
            version = self._change(action="pause", reason=reason, deadline=deadline)
        self._set(paused_by=author(), paused_reason=reason, version=version)

    def _is_our_last_change(self, found: Operation) -> bool:
        """Return whether the record is as our last change made it, whose answer never came."""
        newer = found.rolling
        return (
            found.running
            and newer is not None
            and newer.version == self._rolling.version + 1
            and newer.driver == self._rolling.driver
            and not newer.paused_by
        )

    def end(self, outcome: str) -> None:
        """End it.

        Raises:
            Superseded, CliError.
        """
        version = self._change(action="end", outcome=outcome)
        self._set(version=version)
        found = read_record(self._cluster, self.id, version=version)
        self.operation = found or attrs.evolve(self.operation, phase=ENDED, result=outcome)

    def _set(self, **fields: Any) -> None:
        rolling = attrs.evolve(self._rolling, **fields)
        self.operation = attrs.evolve(self.operation, rolling=rolling)

    def _change(self, *, deadline: Deadline | None = None, **fields: Any) -> int:
        """Send a change of the version that we know, and return the new version."""
        try:
            reply = update(
                self._cluster, self.id, self._rolling.version, deadline=deadline, **fields
            )
        except Refused as error:
            found = read_record(self._cluster, self.id, deadline=deadline)
            if found is not None and (
                not found.running or rolling_of(found).version != self._rolling.version
            ):
                self._superseded(found)
            raise Superseded(found, self.id, f"{error.message}: {error.cause}") from None
        return reply.version

    def _superseded(self, found: Operation) -> None:
        words = found.result or who_drives(rolling_of(found))
        raise Superseded(found, self.id, words)


def begin(
    cluster: Cluster, kind: str, steps: tuple[RollingStep, ...], command: str, reason: str
) -> Record:
    """Begin a rolling operation. It is durable on a majority when this returns.

    Raises:
        Refused: another operation runs, or the cluster has rolling operations not switched on.
        CliError: as `Cluster.write`.
    """
    reply = expect(
        cluster.write(
            lambda session, serial, lowest: BeginRollingRequest(
                session=session,
                serial=serial,
                kind=kind,
                author=author(),
                steps=steps,
                command=command,
                reason=reason,
            )
        ),
        RollingReply,
    )
    record = read_record(cluster, reply.operation)
    if record is None:
        raise StillRunning(
            f"{reply.operation} has begun, and its record cannot be read",
            cause="no leader answers with it",
            hint=cluster.command(f"rolling resume {reply.operation}"),
            operation=reply.operation,
        )
    return Record(cluster, record)


def update(
    cluster: Cluster, id: str, version: int, *, deadline: Deadline | None = None, **fields: Any
) -> RollingReply:
    """Change the record of a rolling operation that has this version.

    Raises:
        Refused: it has another one, or the change is not possible.
        CliError: as `Cluster.write`.
    """
    reply = cluster.write(
        lambda session, serial, lowest: UpdateRollingRequest(
            session=session,
            serial=serial,
            operation=id,
            author=author(),
            version=version,
            **fields,
        ),
        deadline=deadline,
    )
    return expect(reply, RollingReply)


def update_newest(cluster: Cluster, record: Operation, action: str, **fields: Any) -> Record:
    """Pause or resume an operation, whatever its driver does to the record meanwhile.

    Raises:
        Refused: it has ended, or the change is not possible.
        CliError: as `Cluster.write`.
    """
    for attempt in range(ATTEMPTS_MAX):
        rolling = rolling_of(record)
        try:
            reply = update(cluster, record.id, rolling.version, action=action, **fields)
        except Refused:
            newer = read_record(cluster, record.id)
            is_last = attempt == ATTEMPTS_MAX - 1
            if newer is None or not newer.running or is_last:
                raise
            if rolling_of(newer).version == rolling.version:
                raise
            record = newer
            continue
        changed = read_record(cluster, record.id, version=reply.version)
        return Record(cluster, changed or record)
    raise AssertionError("unreachable")


def read_record(
    cluster: Cluster, id: str, *, version: int = 0, deadline: Deadline | None = None
) -> Operation | None:
    """Return the record of `id` as the leader has it; None if no leader answers with it soon.

    Args:
        version: what it has to have at least, unless it has ended.
    """
    deadline = (deadline or Deadline(None)).or_after_ms(READ_TIMEOUT_MS)
    while True:
        sighting = look(cluster, id)
        record = sighting.view.record if sighting.view is not None else None
        # One that has ended is final, whoever shows it.
        if record is not None and not record.running:
            return record
        if record is not None and sighting.by_leader and _version(record) >= version:
            return record
        if deadline.expired:
            return None
        time.sleep(READ_POLL_S)


def _version(record: Operation) -> float:
    """Return the version of a record; any other one than a rolling one has them all."""
    return record.rolling.version if record.rolling is not None else math.inf


def running_rolling(cluster: Cluster, wanted: str = "") -> Operation:
    """Return the rolling operation that runs or is paused; `wanted` if that is named.

    Raises:
        Refused: there is none, or `wanted` is another one.
        Unreachable: no leader answers.
    """
    # After it the leader has applied all that was acknowledged before.
    cluster.ask(ReadIndexRequest())
    status = cluster.leader_status()
    record = status.rolling.record if status.rolling is not None else None
    if record is not None and wanted in ("", record.id):
        return record
    listed = f"rolling show {record.id}" if record is not None else "operation list"
    if record is None:
        cause = "none runs, and none is paused"
        change = status.operation.record if status.operation is not None else None
        if change is not None:
            cause += f"; {change.id} ({change.kind}) runs, which is a change of members"
            listed = f"operation show {change.id}"
    else:
        cause = f"{record.id} ({rolling_summary(record)}) is the one that runs"
    if wanted:
        known = read_known(cluster, wanted)
        if known is not None and known.rolling is None:
            cause = f"{wanted} ({known.kind}) is no rolling operation"
        elif known is not None:
            cause = f"it has ended: {known.result}"
    raise Refused(
        f"{printable(wanted)} is not a rolling operation that runs"
        if wanted
        else "no rolling operation runs",
        code="no-such-operation",
        cause=cause,
        hint=cluster.command(listed),
    )


def read_known(cluster: Cluster, id: str) -> Operation | None:
    """Return the record of `id` if a server that answers has it."""
    try:
        view = look(cluster, id).view
    except Unreachable:
        return None
    return view.record if view is not None else None
