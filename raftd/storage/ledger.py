"""The ledger: the replicated records of operations, oldest first.

At most one membership operation runs, and it is always the newest record. A leader that comes to
office reads from it what its predecessors have begun.

Beside it at most one rolling operation runs, which has an older record. A rolling operation begins
only while nothing else runs. From then on membership operations begin only as steps of it, unless
it is paused; then only others do.

| key | value |
|---|---|
| `O` number (8 bytes) | the record of operation `op-number` |
| `L` | newest number, whether that one runs as a membership operation, number of ended records that
are kept; while a rolling operation runs, also the number of that |
"""

from __future__ import annotations

import struct

import attrs
import msgpack

from raftd.commands import (
    ABORTED,
    CATCHING_UP,
    ENDED,
    JOINING,
    JOINT,
    AbortOperation,
    BeginOperation,
    BeginRolling,
    EndOperation,
    Operation,
    PhaseAt,
    Result,
    UpdateRolling,
    structure_operation,
    unstructure,
)
from raftd.core.membership import ConfigurationEntry, ConfigurationKind
from raftd.core.types import Index
from raftd.storage import rolling_records
from raftd.storage.store import Store

OPERATIONS_MAX = 1_000
"""Ended records that are kept, the newest ones: all of them fit one reply of 8 MiB, and decoding
them stays well under an election timeout. A cluster that is changed once a day has three years."""
RUNNING_MAX = 2
"""Records that have not ended: a rolling operation and its step."""

_RECORD = b"O"
_RECORD_END = b"P"
_COUNTERS = b"L"
_NUMBER = struct.Struct(">Q")


class Ledger:
    """The operation records in a store. Every change happens inside the caller's transaction.

    After a transaction that failed the ledger has to be made again from the store.

    Invariants: at most one membership record has not ended, and it is the newest; at most one
    rolling record has not ended; numbers are never used again; at most `OPERATIONS_MAX` ended
    records are kept.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._newest = 0
        self._ended_count = 0
        self._running: Operation | None = None
        """A copy of the record; what has been written to the store is right."""
        self._rolling: Operation | None = None
        """Likewise."""
        counters = self._store.get(_COUNTERS)
        if counters is None:
            return
        self._newest, runs, self._ended_count, *rolling = msgpack.unpackb(counters)
        if runs:
            self._running = self._read(self._newest)
            assert self._running is not None, "the running operation has no record"
        if rolling:
            self._rolling = self._read(rolling[0])
            assert self._rolling is not None, "the rolling operation has no record"

    @property
    def running(self) -> Operation | None:
        """The membership operation that has not ended."""
        return self._running

    @property
    def rolling(self) -> Operation | None:
        """The rolling operation that has not ended, paused or not."""
        return self._rolling

    def operation(self, id: str) -> Operation | None:
        """Return the record of `id`; None if there is none, or none any more."""
        for open_record in (self._running, self._rolling):
            if open_record is not None and open_record.id == id:
                return open_record
        number = _number(id)
        return self._read(number) if 0 < number <= self._newest else None

    def operations(self, limit: int = OPERATIONS_MAX + RUNNING_MAX) -> list[Operation]:
        """Return the newest `limit` records, the newest one last.

        Before them stands the rolling operation that runs, if it is older.
        """
        first = max(1, self._newest - limit + 1)
        pairs = self._store.scan(_record_key(first), _RECORD_END, max(0, limit))
        records = [structure_operation(msgpack.unpackb(value)) for _, value in pairs]
        if self._rolling is not None and _number(self._rolling.id) < first:
            records.insert(0, self._rolling)
        return records

    def begin(
        self,
        body: BeginOperation,
        *,
        session: str,
        serial: int,
        index: Index,
        configuration_index: Index,
        revision: int,
    ) -> Result:
        """Start an operation with the entry at `index`, or refuse it.

        Refused with `operation-running` while another one runs, or a rolling one that it is no step
        of; with `rolling-moved` as the step of one that does not run or is paused; and with
        `configuration-moved` unless the plan was made for `configuration_index`.
        """
        if self._running is not None:
            return _in_the_way(self._running, revision)
        refusal = self._not_its_turn(body.parent, revision)
        if refusal is not None:
            return refusal
        planned = body.plan.configuration_index
        if planned != configuration_index:
            return Result(
                applied=False,
                revision=revision,
                code="configuration-moved",
                message=f"the plan was made for configuration {planned}, "
                f"the latest one is {configuration_index}",
            )
        phase = JOINING if body.plan.addresses else CATCHING_UP
        operation = Operation(
            id=self._take_number(),
            kind=body.kind,
            author=body.author,
            reason=body.reason,
            plan=body.plan,
            phase=phase,
            phases=(PhaseAt(phase=phase, index=index, time_ms=body.time_ms),),
            session=session,
            serial=serial,
            parent=body.parent,
        )
        self._write_running(operation)
        self._write_counters()
        return Result(revision=revision, operation=operation.id)

    def _not_its_turn(self, parent: str, revision: int) -> Result | None:
        """Return the refusal of a membership operation that rolling operations leave no room for.

        Args:
            parent: the rolling operation that it is a step of; empty for none.
        """
        rolling = self._rolling
        is_step = rolling is not None and rolling.id == parent
        if rolling is not None and not is_step and not _is_paused(rolling):
            return _in_the_way(rolling, revision)
        if parent and (rolling is None or not is_step or _is_paused(rolling)):
            state = "does not run" if rolling is None or not is_step else _who_has_it(rolling)
            return Result(
                applied=False,
                revision=revision,
                operation=parent,
                code="rolling-moved",
                message=f"{parent} {'is ' if is_step else ''}{state}; none of its steps begins now",
            )
        return None

    def begin_rolling(
        self,
        body: BeginRolling,
        *,
        session: str,
        serial: int,
        index: Index,
        configuration_index: Index,
        revision: int,
    ) -> Result:
        """Start a rolling operation with the entry at `index`, or refuse it.

        Refused with `operation-running` while any operation runs, also a paused rolling one.
        """
        running = self._running or self._rolling
        if running is not None:
            return _in_the_way(running, revision)
        operation = rolling_records.began(
            body,
            id=self._take_number(),
            index=index,
            configuration_index=configuration_index,
            session=session,
            serial=serial,
        )
        self._put(operation)
        self._rolling = operation
        self._write_counters()
        return Result(revision=revision, operation=operation.id)

    def update_rolling(self, body: UpdateRolling, *, index: Index, revision: int) -> Result:
        """Change the record of a rolling operation with the entry at `index`, or refuse it.

        Refused with `no-such-operation`, `operation-ended`, `rolling-moved` where its version is
        not the one that `body` names, `operation-running` while a membership operation stands in
        the way, and `invalid`.
        """
        operation = self.operation(body.operation)
        if operation is None:
            return _no_such_operation(body.operation, revision)
        if not operation.running:
            return _has_ended(operation, revision)
        changed: Operation | rolling_records.Refusal
        if operation.rolling is None:
            changed = rolling_records.Refusal(
                "invalid", f"{operation.id} ({operation.kind}) is no rolling operation"
            )
        else:
            changed = rolling_records.updated(operation, body, index=index, member=self._running)
        if isinstance(changed, rolling_records.Refusal):
            return Result(
                applied=False,
                revision=revision,
                operation=changed.operation or operation.id,
                code=changed.code,
                message=changed.message,
            )
        self._write_rolling(changed)
        return Result(revision=revision, operation=operation.id)

    def abort(self, body: AbortOperation, *, index: Index, revision: int) -> Result:
        """Note that the operation is to be undone; the first request for it is the one that counts.

        A rolling operation ends at once: no driver gets any further with it. What its steps have
        done stays, and the membership operation that is its step now is to be undone.

        Refused with `no-such-operation` and `operation-ended`.
        """
        operation = self.operation(body.operation)
        if operation is None:
            return _no_such_operation(body.operation, revision)
        if not operation.running:
            return _has_ended(operation, revision)
        if operation.rolling is not None:
            step = self._running
            if step is not None and step.parent == operation.id:
                self._request_abort(step, body)
            aborted = _abort_requested(operation, body)
            because = f": {body.reason}" if body.reason else ""
            reason = f"aborted by {aborted.abort_requested_by}{because}"
            self._write_rolling(
                rolling_records.ended(aborted, ABORTED, reason, index=index, time_ms=body.time_ms)
            )
        else:
            self._request_abort(operation, body)
        return Result(revision=revision, operation=operation.id)

    def _request_abort(self, operation: Operation, body: AbortOperation) -> None:
        if not operation.abort_requested_by:
            self._write_running(_abort_requested(operation, body))

    def end(self, body: EndOperation, *, index: Index, revision: int) -> Result:
        """Close an operation that has touched no configuration.

        Nothing happens, and `applied` is False, where it has ended already or where one of its
        configuration entries has been applied: then another one says how it ends.
        """
        operation = self.operation(body.operation)
        if operation is None:
            return _no_such_operation(body.operation, revision)
        if not operation.running or operation.configuration_index or operation.rolling is not None:
            return Result(applied=False, revision=revision, operation=operation.id)
        self._write(_ended(operation, body.outcome, body.reason, index=index, time_ms=body.time_ms))
        return Result(revision=revision, operation=operation.id)

    def configuration_applied(self, entry: ConfigurationEntry, index: Index) -> None:
        """Note in its operation's record what the configuration entry at `index` did to it.

        The first configuration of a cluster that was restored from a backup ends the rolling
        operation that ran when that was taken: its servers belong to another cluster.
        """
        if entry.kind is ConfigurationKind.BOOTSTRAP and self._rolling is not None:
            reason = entry.reason or "the cluster was restored from a backup"
            self._write_rolling(
                rolling_records.ended(
                    self._rolling, ABORTED, reason, index=index, time_ms=entry.time_ms
                )
            )
        operation = self.operation(entry.operation)
        if operation is None:
            return
        operation = attrs.evolve(operation, configuration_index=index)
        # What an operation says about itself when it has ended is final: the entry that takes its
        # learners away again comes after the one that ended it.
        if operation.running:
            if entry.outcome:
                operation = _ended(
                    operation, entry.outcome, entry.reason, index=index, time_ms=entry.time_ms
                )
            elif entry.kind is ConfigurationKind.SIMPLE:
                operation = _entered(operation, CATCHING_UP, index=index, time_ms=entry.time_ms)
            elif entry.kind is ConfigurationKind.JOINT:
                operation = _entered(operation, JOINT, index=index, time_ms=entry.time_ms)
        self._write(operation)

    def _read(self, number: int) -> Operation | None:
        value = self._store.get(_record_key(number))
        return None if value is None else structure_operation(msgpack.unpackb(value))

    def _write(self, operation: Operation) -> None:
        """Store a record; one that has just ended makes room for the next one."""
        if operation.running:
            self._write_running(operation)
            return
        self._put(operation)
        if self._running is None or self._running.id != operation.id:
            return
        self._running = None
        self._make_room()

    def _write_rolling(self, operation: Operation) -> None:
        """Store the record of the rolling operation that runs, or that has just ended."""
        self._put(operation)
        self._rolling = operation if operation.running else None
        if not operation.running:
            self._make_room()

    def _make_room(self) -> None:
        """Count a record that has just ended, and drop the oldest one where there are too many."""
        self._ended_count += 1
        open_keys = [
            _record_key(_number(operation.id))
            for operation in (self._running, self._rolling)
            if operation is not None
        ]
        while self._ended_count > OPERATIONS_MAX:
            pairs = self._store.scan(_RECORD, _RECORD_END, RUNNING_MAX + 1)
            self._store.delete(next(key for key, _ in pairs if key not in open_keys))
            self._ended_count -= 1
        self._write_counters()

    def _take_number(self) -> str:
        """Return the id of the next operation."""
        self._newest += 1
        return f"op-{self._newest}"

    def _write_running(self, operation: Operation) -> None:
        self._put(operation)
        self._running = operation

    def _put(self, operation: Operation) -> None:
        key = _record_key(_number(operation.id))
        self._store.put(key, msgpack.packb(unstructure(operation)))

    def _write_counters(self) -> None:
        counters = [self._newest, self._running is not None, self._ended_count]
        # Only then: what a server of an earlier release can apply has to end in the same bytes.
        if self._rolling is not None:
            counters.append(_number(self._rolling.id))
        self._store.put(_COUNTERS, msgpack.packb(counters))


def _record_key(number: int) -> bytes:
    return _RECORD + _NUMBER.pack(number)


def _number(id: str) -> int:
    """Return N of `op-N`; 0 for anything else, `op-01` and numbers beyond 64 bits included."""
    digits = id.removeprefix("op-")
    if len(digits) > 19 or not (digits.isascii() and digits.isdecimal()):
        return 0
    number = int(digits)
    return number if id == f"op-{number}" else 0


def _entered(operation: Operation, phase: str, *, index: Index, time_ms: int) -> Operation:
    """Return `operation` in `phase`; unchanged if it is there already."""
    if operation.phase == phase:
        return operation
    at = PhaseAt(phase=phase, index=index, time_ms=time_ms)
    return attrs.evolve(operation, phase=phase, phases=(*operation.phases, at))


def _ended(
    operation: Operation, outcome: str, reason: str, *, index: Index, time_ms: int
) -> Operation:
    ended = _entered(operation, ENDED, index=index, time_ms=time_ms)
    return attrs.evolve(ended, result=outcome, explanation=reason)


def _abort_requested(operation: Operation, body: AbortOperation) -> Operation:
    return attrs.evolve(
        operation, abort_requested_by=body.author or "unknown", abort_reason=body.reason
    )


def _is_paused(rolling: Operation) -> bool:
    return rolling.rolling is not None and bool(rolling.rolling.paused_by)


def _who_has_it(rolling: Operation) -> str:
    assert rolling.rolling is not None
    return rolling_records.who_has_it(rolling.rolling)


def _in_the_way(running: Operation, revision: int) -> Result:
    """Return the refusal of an operation while `running` runs."""
    state = f"is {running.phase}; only one operation runs at a time"
    if running.rolling is not None:
        state = f"is {_who_has_it(running)}; nothing else begins before it has ended"
        if not _is_paused(running):
            state += " or is paused"
    return Result(
        applied=False,
        revision=revision,
        operation=running.id,
        code="operation-running",
        message=f"{running.id} ({running.kind}, by {running.author}) {state}",
    )


def _has_ended(operation: Operation, revision: int) -> Result:
    explanation = f": {operation.explanation}" if operation.explanation else ""
    return Result(
        applied=False,
        revision=revision,
        operation=operation.id,
        code="operation-ended",
        message=f"{operation.id} has ended already: {operation.result}{explanation}",
    )


def _no_such_operation(id: str, revision: int) -> Result:
    return Result(
        applied=False,
        revision=revision,
        code="no-such-operation",
        message=f"there is no operation {id!r}, or none any more",
    )
