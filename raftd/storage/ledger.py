"""The ledger: the replicated records of membership operations, oldest first.

At most one operation runs, and it is always the newest record. A leader that comes to office reads
from it what its predecessors have begun.

| key | value |
|---|---|
| `O` number (8 bytes) | the record of operation `op-number` |
| `L` | newest number, whether that one runs, number of ended records that are kept |
"""

from __future__ import annotations

import struct

import attrs
import msgpack

from raftd.commands import (
    CATCHING_UP,
    ENDED,
    JOINING,
    JOINT,
    AbortOperation,
    BeginOperation,
    EndOperation,
    Operation,
    PhaseAt,
    Result,
    structure_operation,
    unstructure,
)
from raftd.core.membership import ConfigurationEntry, ConfigurationKind
from raftd.core.types import Index
from raftd.storage.store import Store

OPERATIONS_MAX = 1_000
"""Ended records that are kept, the newest ones: all of them fit one reply of 8 MiB, and decoding
them stays well under an election timeout. A cluster that is changed once a day has three years."""

_RECORD = b"O"
_RECORD_END = b"P"
_COUNTERS = b"L"
_NUMBER = struct.Struct(">Q")


class Ledger:
    """The operation records in a store. Every change happens inside the caller's transaction.

    After a transaction that failed the ledger has to be made again from the store.

    Invariants: at most one record has not ended, and it is the newest; numbers are never used
    again; at most `OPERATIONS_MAX` ended records are kept.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._newest = 0
        self._ended_count = 0
        self._running: Operation | None = None
        """A copy of the record; what has been written to the store is right."""
        counters = self._store.get(_COUNTERS)
        if counters is None:
            return
        self._newest, runs, self._ended_count = msgpack.unpackb(counters)
        if runs:
            self._running = self._read(self._newest)
            assert self._running is not None, "the running operation has no record"

    @property
    def running(self) -> Operation | None:
        """The operation that has not ended."""
        return self._running

    def operation(self, id: str) -> Operation | None:
        """Return the record of `id`; None if there is none, or none any more."""
        if self._running is not None and self._running.id == id:
            return self._running
        number = _number(id)
        return self._read(number) if 0 < number <= self._newest else None

    def operations(self, limit: int = OPERATIONS_MAX + 1) -> list[Operation]:
        """Return the newest `limit` records, the newest one last."""
        first = max(1, self._newest - limit + 1)
        pairs = self._store.scan(_record_key(first), _RECORD_END, max(0, limit))
        return [structure_operation(msgpack.unpackb(value)) for _, value in pairs]

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

        Refused with `operation-running` while another one runs, and with `configuration-moved`
        unless the plan was made for `configuration_index`.
        """
        running = self._running
        if running is not None:
            return Result(
                applied=False,
                revision=revision,
                operation=running.id,
                code="operation-running",
                message=f"{running.id} ({running.kind}, by {running.author}) is {running.phase}; "
                "only one operation runs at a time",
            )
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
        self._newest += 1
        operation = Operation(
            id=f"op-{self._newest}",
            kind=body.kind,
            author=body.author,
            reason=body.reason,
            plan=body.plan,
            phase=phase,
            phases=(PhaseAt(phase=phase, index=index, time_ms=body.time_ms),),
            session=session,
            serial=serial,
        )
        self._write_running(operation)
        self._write_counters()
        return Result(revision=revision, operation=operation.id)

    def abort(self, body: AbortOperation, *, revision: int) -> Result:
        """Note that the operation is to be undone; the first request for it is the one that counts.

        Refused with `no-such-operation` and `operation-ended`.
        """
        operation = self.operation(body.operation)
        if operation is None:
            return _no_such_operation(body.operation, revision)
        if not operation.running:
            explanation = f": {operation.explanation}" if operation.explanation else ""
            return Result(
                applied=False,
                revision=revision,
                operation=operation.id,
                code="operation-ended",
                message=f"{operation.id} has ended already: {operation.result}{explanation}",
            )
        if not operation.abort_requested_by:
            self._write_running(
                attrs.evolve(
                    operation, abort_requested_by=body.author or "unknown", abort_reason=body.reason
                )
            )
        return Result(revision=revision, operation=operation.id)

    def end(self, body: EndOperation, *, index: Index, revision: int) -> Result:
        """Close an operation that has touched no configuration.

        Nothing happens, and `applied` is False, where it has ended already or where one of its
        configuration entries has been applied: then another one says how it ends.
        """
        operation = self.operation(body.operation)
        if operation is None:
            return _no_such_operation(body.operation, revision)
        if not operation.running or operation.configuration_index:
            return Result(applied=False, revision=revision, operation=operation.id)
        self._write(_ended(operation, body.outcome, body.reason, index=index, time_ms=body.time_ms))
        return Result(revision=revision, operation=operation.id)

    def configuration_applied(self, entry: ConfigurationEntry, index: Index) -> None:
        """Note in its operation's record what the configuration entry at `index` did to it."""
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
        self._ended_count += 1
        while self._ended_count > OPERATIONS_MAX:
            # Nothing runs now, so that the oldest record is one that has ended.
            ((oldest, _),) = self._store.scan(_RECORD, _RECORD_END, 1)
            self._store.delete(oldest)
            self._ended_count -= 1
        self._write_counters()

    def _write_running(self, operation: Operation) -> None:
        self._put(operation)
        self._running = operation

    def _put(self, operation: Operation) -> None:
        key = _record_key(_number(operation.id))
        self._store.put(key, msgpack.packb(unstructure(operation)))

    def _write_counters(self) -> None:
        counters = (self._newest, self._running is not None, self._ended_count)
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


def _no_such_operation(id: str, revision: int) -> Result:
    return Result(
        applied=False,
        revision=revision,
        code="no-such-operation",
        message=f"there is no operation {id!r}, or none any more",
    )
