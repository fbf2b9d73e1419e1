"""The history: the configurations of the cluster, kept when their log entries are gone.

It begins when the features of `FEATURES_HISTORY` are switched on, with the configuration that is
in force then; so it is complete in a cluster that was founded by a release that knows it. Each
record has what its log entry said and what the record of its operation said by then: nothing else
need be kept to tell the story.

| key | value |
|---|---|
| `H` number (8 bytes) | index of the configuration entry (8 bytes), then the record |
| `N` | newest number, number of records that are kept, whether none is missing before them |
"""

from __future__ import annotations

import struct

import msgpack

from raftd.commands import (
    ABORTED,
    FAILED,
    ConfigurationRecord,
    Operation,
    structure_configuration_record,
    unstructure,
)
from raftd.core.membership import ConfigurationEntry
from raftd.core.types import Index, Term
from raftd.storage.ledger import OPERATIONS_MAX
from raftd.storage.store import Store

HISTORY_MAX = 4 * OPERATIONS_MAX
"""Records that are kept, the newest ones. An operation appends three configurations at most (its
learners, C_old,new, then C_new or C_old again), so those of every operation that is on record are
there, and a cluster may be restored from backups a thousand times besides. About 1 KiB each."""

_RECORD = b"H"
_COUNTERS = b"N"
_NUMBER = struct.Struct(">Q")
_INDEX = struct.Struct(">Q")


class History:
    """The configuration records in a store. Every change happens inside the caller's transaction.

    After a transaction that failed the history has to be made again from the store.

    Invariants: numbers and indexes grow together, numbers without a gap; at most `HISTORY_MAX`
    records are kept.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._newest = 0
        self._count = 0
        self._is_complete = False
        counters = store.get(_COUNTERS)
        if counters is not None:
            self._newest, self._count, self._is_complete = msgpack.unpackb(counters)

    @property
    def is_complete(self) -> bool:
        """Whether every configuration since the first one of the log is there."""
        return self._is_complete

    def append(self, record: ConfigurationRecord) -> None:
        """Add a record, which is newer than all others; the oldest one makes room if it has to."""
        if not self._newest:
            # Entry 1 of a log is the configuration that founded its cluster.
            self._is_complete = record.index == 1
        self._newest += 1
        self._count += 1
        data = msgpack.packb(unstructure(record))
        self._store.put(_key(self._newest), _INDEX.pack(record.index) + data)
        if self._count > HISTORY_MAX:
            self._store.delete(_key(self._newest - self._count + 1))
            self._count -= 1
            self._is_complete = False
        counters = (self._newest, self._count, self._is_complete)
        self._store.put(_COUNTERS, msgpack.packb(counters))

    def newest(
        self, limit: int, below_index: Index, bytes_max: int
    ) -> tuple[tuple[ConfigurationRecord, ...], bool]:
        """Return the newest records with an index below `below_index`, and whether there are more.

        Args:
            limit: at most so many of them.
            below_index: 0 for all.
            bytes_max: of the stored records; one is returned however long it is, so that a reader
                who goes on below the last index always gets further.
        """
        oldest = self._newest - self._count + 1
        number = self._last_below(below_index) if below_index else self._newest
        found: list[ConfigurationRecord] = []
        found_bytes = 0
        while number >= oldest and len(found) < limit:
            stored = self._stored(number)
            found_bytes += len(stored)
            if found and found_bytes > bytes_max:
                break
            found.append(structure_configuration_record(msgpack.unpackb(stored[_INDEX.size :])))
            number -= 1
        return tuple(found), number >= oldest

    def _last_below(self, index: Index) -> int:
        """Return the number of the newest record below `index`, or the one before the oldest."""
        low, high = self._newest - self._count, self._newest
        while low < high:
            middle = (low + high + 1) // 2
            if _INDEX.unpack_from(self._stored(middle))[0] < index:
                low = middle
            else:
                high = middle - 1
        return low

    def _stored(self, number: int) -> bytes:
        stored = self._store.get(_key(number))
        assert stored is not None, f"record {number} of the history is not there"
        return stored


def configuration_record(
    entry: ConfigurationEntry, index: Index, term: Term, operation: Operation | None
) -> ConfigurationRecord:
    """Return the record of the configuration `entry` at `index`.

    Args:
        term: of that log entry; 0 if it is not known any more.
        operation: the record of the operation that the entry belongs to, with what the entry has
            done to it; None if it belongs to none, or if there is no such record any more.
    """
    configuration = entry.configuration
    reason = operation.reason if operation is not None else ""
    if entry.outcome in (FAILED, ABORTED):
        reason = entry.reason
    return ConfigurationRecord(
        index=index,
        term=term,
        time_ms=entry.time_ms,
        leader=entry.leader,
        kind=entry.kind.value,
        voters=tuple(sorted(configuration.voters)),
        outgoing=tuple(sorted(configuration.outgoing)),
        learners=tuple(sorted(configuration.learners)),
        learners_next=tuple(sorted(configuration.learners_next)),
        addresses=dict(sorted(entry.addresses.items())),
        removed=tuple(sorted(entry.tombstones)),
        operation=entry.operation,
        operation_kind=operation.kind if operation is not None else "",
        parent=operation.parent if operation is not None else "",
        phases=operation.phases if operation is not None else (),
        outcome=entry.outcome,
        author=operation.author if operation is not None else "",
        reason=reason,
    )


def _key(number: int) -> bytes:
    return _RECORD + _NUMBER.pack(number)
