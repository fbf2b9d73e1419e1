"""What a data directory has certainly kept, by what log and snapshots have returned from."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from raftd.core.snapshot import Snapshot
from raftd.core.types import Entry, HardState, Index
from raftd.records import decode_entries, encode_entries


@attrs.define
class Durable:
    """Snapshot and log together, as the log that they stand for."""

    hard_state: HardState = attrs.field(factory=HardState)
    entries: list[Entry] = attrs.field(factory=list)
    """From index 1 on. What a snapshot brought stands here as the entries that were committed."""
    snapshot: Snapshot | None = None
    """The newest that is published."""
    base_index: Index = 0
    """The log itself begins after it."""
    floor_index: Index = 0
    """A start may find that the log begins earlier than it did, since files that it had given up
    are still there; but never before this."""

    @property
    def snapshot_index(self) -> Index:
        """The last entry that the newest snapshot includes."""
        return self.snapshot.id.last_included_index if self.snapshot is not None else 0

    def has_end_of(self, snapshot: Snapshot) -> bool:
        """Return whether the last entry that `snapshot` includes is here."""
        index = snapshot.id.last_included_index
        return (
            index <= len(self.entries)
            and self.entries[index - 1].term == snapshot.id.last_included_term
        )

    def append(self, hard_state: HardState | None, entries: Sequence[Entry]) -> None:
        """Note what the log has returned from."""
        if hard_state is not None:
            self.hard_state = hard_state
        if entries:
            del self.entries[entries[0].index - 1 :]
            # By value: what memory changes later is not on the disk.
            self.entries += decode_entries(encode_entries(tuple(entries)))

    def publish(self, snapshot: Snapshot, committed: Sequence[Entry]) -> None:
        """Note a snapshot; a start makes of it what Figure 13 says.

        Args:
            committed: all entries that anybody has applied, from index 1 on.
        """
        index = snapshot.id.last_included_index
        assert index <= len(committed), (
            f"a snapshot up to entry {index}, and nobody has applied more than {len(committed)}"
        )
        if not self.has_end_of(snapshot):
            self.entries = list(committed[:index])
            self.base_index = self.floor_index = index
        self.snapshot = snapshot

    def compact(self, base_index: Index) -> None:
        """Note that the log has given up what comes before `base_index`; it may come back."""
        self.base_index = max(self.base_index, base_index)

    def reset(self, index: Index) -> None:
        """Note that the log has been made to begin after `index`, for good."""
        del self.entries[index:]
        self.base_index = self.floor_index = index

    def agrees_with(
        self,
        hard_state: HardState,
        base_index: Index,
        entries: Sequence[Entry],
        snapshot: Snapshot | None,
    ) -> bool:
        """Return whether a start may find just that."""
        return (
            hard_state == self.hard_state
            and snapshot == self.snapshot
            and self.floor_index <= base_index <= self.base_index
            and list(entries) == self.entries[base_index:]
        )
