"""The disk of one server in these tests, and the snapshots on it.

The state of a server is the list of all entries that it has applied, and a snapshot is an encoding
of that list. So two servers that have applied the same have equal snapshots, and whoever installs
one has exactly what its sender had applied.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from struct import Struct
from unittest.mock import patch

import raftd.core.leader
import raftd.core.progress
from raftd.core.membership import ConfigurationAt, decode_configuration
from raftd.core.snapshot import Snapshot, SnapshotId
from raftd.core.types import Entry, EntryKind, HardState, Index, Term

_HEAD = Struct(">QQBI")


@contextmanager
def chunks_of(chunk_bytes: int, inflight_bytes: int) -> Iterator[None]:
    """Let snapshots be sent in small parts: the ones of these tests have a few hundred bytes."""
    with (
        patch.object(raftd.core.leader, "SNAPSHOT_CHUNK_BYTES", chunk_bytes),
        patch.object(raftd.core.progress, "SNAPSHOT_INFLIGHT_BYTES_MAX", inflight_bytes),
    ):
        yield


def encode_state(applied: Iterable[Entry]) -> bytes:
    """Return the bytes of a snapshot of `applied`."""
    return b"".join(
        _HEAD.pack(entry.index, entry.term, entry.kind, len(entry.data)) + entry.data
        for entry in applied
    )


def decode_state(snapshot: bytes) -> list[Entry]:
    """Return what was applied when the snapshot was taken."""
    applied: list[Entry] = []
    position = 0
    while position < len(snapshot):
        index, term, kind, size = _HEAD.unpack_from(snapshot, position)
        position += _HEAD.size
        applied.append(Entry(index, term, EntryKind(kind), snapshot[position : position + size]))
        position += size
    assert [entry.index for entry in applied] == list(range(1, len(applied) + 1))
    return applied


def configuration_of(applied: Sequence[Entry]) -> ConfigurationAt:
    """Return the latest configuration among `applied`, with its own index."""
    entry = next(e for e in reversed(applied) if e.kind is EntryKind.CONFIGURATION)
    return ConfigurationAt(entry.index, decode_configuration(entry.data))


def snapshot_of(applied: Sequence[Entry]) -> tuple[Snapshot, bytes]:
    """Return the snapshot that a server takes which has applied these entries, from the first."""
    encoded = encode_state(applied)
    identity = SnapshotId(
        last_included_index=applied[-1].index,
        last_included_term=applied[-1].term,
        size_bytes=len(encoded),
        checksum=blake2b(encoded, digest_size=16).hexdigest(),
    )
    return Snapshot(identity, configuration_of(applied)), encoded


class Disk:
    """What survives a crash of one server."""

    def __init__(self, entries: Iterable[Entry] = (), term: Term = 0) -> None:
        self.hard_state = HardState(term)
        self.entries: list[Entry] = list(entries)
        self.base_index: Index = 0
        self.base_term: Term = 0
        self.snapshot: Snapshot | None = None
        """The newest one that is published."""
        self.snapshots: dict[SnapshotId, bytes] = {}
        """All that are still there."""
        self.partial: tuple[SnapshotId, bytes] | None = None
        """What has arrived of a snapshot that a leader sends."""

    # --- the log ---

    def append(self, hard_state: HardState | None, entries: tuple[Entry, ...]) -> None:
        if hard_state is not None:
            self.hard_state = hard_state
        if entries:
            position = entries[0].index - self.base_index - 1
            assert 0 <= position <= len(self.entries), "a gap in the log on disk"
            del self.entries[position:]
            self.entries.extend(entries)

    def compact(self, index: Index) -> None:
        """Forget the entries up to `index`, which the log has."""
        if index <= self.base_index:
            return
        count = index - self.base_index
        self.base_term = self.entries[count - 1].term
        self.base_index = index
        del self.entries[:count]

    def reset(self, index: Index, term: Term) -> None:
        """Forget all entries: the next one follows this one."""
        self.entries.clear()
        self.base_index, self.base_term = index, term

    def term_at(self, index: Index) -> Term | None:
        if index == self.base_index:
            return self.base_term
        position = index - self.base_index - 1
        return self.entries[position].term if 0 <= position < len(self.entries) else None

    # --- snapshots ---

    def publish(self, snapshot: Snapshot, encoded: bytes) -> bool:
        """Make it the newest one, unless there is a newer one."""
        newest = self.snapshot.id.last_included_index if self.snapshot else 0
        if snapshot.id.last_included_index <= newest:
            return False
        self.snapshot = snapshot
        self.snapshots[snapshot.id] = encoded
        return True

    def keep(self, in_use: frozenset[SnapshotId]) -> None:
        self.snapshots = {id_: kept for id_, kept in self.snapshots.items() if id_ in in_use}

    def receive(self, snapshot: SnapshotId, offset: int, part: bytes) -> int:
        """Store a part; return how much there is from the beginning on."""
        if self.partial is None or self.partial[0] != snapshot:
            self.partial = (snapshot, b"")
        there = self.partial[1]
        if offset <= len(there) and offset + len(part) <= snapshot.size_bytes:
            there += part[len(there) - offset :]
            self.partial = (snapshot, there)
        return len(there)

    def received(self) -> Snapshot | None:
        """Return the snapshot that is there as a whole, if one is. A damaged one is dropped."""
        if self.partial is None or len(self.partial[1]) < self.partial[0].size_bytes:
            return None
        id_, encoded = self.partial
        snapshot, _ = snapshot_of(decode_state(encoded))
        assert snapshot.id == id_, "the parts were put together wrongly"
        return snapshot

    # --- after a crash ---

    def recover(self) -> None:
        """Do what a start does before it reads the log: the rule of an install, once more."""
        newest = self.snapshot
        if newest is None:
            self.snapshots.clear()
            return
        self.snapshots = {newest.id: self.snapshots[newest.id]}
        index, term = newest.id.last_included_index, newest.id.last_included_term
        if index > self.base_index and self.term_at(index) != term:
            self.reset(index, term)

    def state(self) -> list[Entry]:
        """Return what the newest snapshot says was applied."""
        return decode_state(self.snapshots[self.snapshot.id]) if self.snapshot else []
