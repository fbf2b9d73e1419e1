"""The log of one server, as the protocol sees it, and the chain of positions in it.

```
base_index <= handed_index <= commit_index <= last_index
base_index <= durable_index                <= last_index
```

| position | meaning |
|---|---|
| `base_index` | the last entry that is gone, a snapshot at or above it has it; 0 at first |
| `handed_index` | the last entry given to the state machine |
| `commit_index` | the last entry known to be committed (Figure 2) |
| `durable_index` | the last entry that this server's disk certainly has |
| `last_index` | the last entry |

Source: paper section 5.3; openraft's page on log pointers for the chain.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence

from raftd.core.errors import Divergence
from raftd.core.membership import (
    ConfigurationHistory,
    decode_configuration,
)
from raftd.core.messages import AppendEntries
from raftd.core.snapshot import Snapshot, SnapshotId, included_index
from raftd.core.types import Entry, EntryKind, Index, Term

ENTRY_HEAD_BYTES = 26
"""What an entry takes in a file beside its data: lengths, checksum, kinds, index, term."""


def _size_bytes(entries: Sequence[Entry]) -> int:
    return sum([len(entry.data) for entry in entries]) + ENTRY_HEAD_BYTES * len(entries)


class RaftLog:
    """The entries that were not compacted, with the configurations among them.

    A snapshot may reach further than `base_index`: the entries in between are kept for followers
    that are a little behind.

    Invariants: indexes are contiguous; terms never decrease; the positions keep their chain; no
    entry at or below `commit_index` is ever replaced.
    """

    def __init__(
        self,
        entries: Iterable[Entry] = (),
        *,
        base_index: Index = 0,
        base_term: Term = 0,
        snapshot: Snapshot | None = None,
        applied_index: Index | None = None,
    ) -> None:
        """Make the log that recovery found on disk; all of `entries` is durable.

        Args:
            entries: what follows the entry at `base_index`, which had `base_term`.
            snapshot: the newest one, at or above `base_index`.
            applied_index: what the state machine has already, so that it is known to be committed;
                `base_index` by default.
        """
        assert base_index <= included_index(snapshot)
        self.base_index = base_index
        self.base_term = base_term
        self.size_bytes = 0
        """About what all entries take in a file: their data, and `ENTRY_HEAD_BYTES` for each."""
        configuration = snapshot.configuration if snapshot else None
        if configuration is not None and configuration.index > base_index:
            # It stands among the entries.
            configuration = None
        self.configurations = ConfigurationHistory(configuration)
        self._entries: list[Entry] = []
        self._term_starts: list[tuple[Index, Term]] = []
        self.append(entries)
        self.durable_index = self.last_index
        if applied_index is None:
            applied_index = base_index
        assert base_index <= applied_index <= self.last_index
        self.commit_index = applied_index
        self.leader_commit_index: Index = 0
        """What a leader has said last that is committed; this log may not have come so far yet."""
        self.handed_index = applied_index

    @property
    def first_index(self) -> Index:
        """The first index that is still in the log, whether there is an entry or not."""
        return self.base_index + 1

    @property
    def last_index(self) -> Index:
        """The index of the last entry, or `base_index` if there is none."""
        return self.base_index + len(self._entries)

    @property
    def last_term(self) -> Term:
        """The term of the last entry."""
        return self._entries[-1].term if self._entries else self.base_term

    def term_at(self, index: Index) -> Term | None:
        """Return the term of the entry at `index`, None if the log does not know it."""
        if index == self.base_index:
            return self.base_term
        offset = index - self.base_index - 1
        if 0 <= offset < len(self._entries):
            return self._entries[offset].term
        return None

    def entry(self, index: Index) -> Entry:
        """Return the entry at `index`, in [first_index, last_index]."""
        assert self.base_index < index <= self.last_index
        return self._entries[index - self.base_index - 1]

    def entries(self, first: Index, last: Index) -> Sequence[Entry]:
        """Return the entries of [first, last], clipped to what is there."""
        return self._entries[max(first - self.base_index - 1, 0) : last - self.base_index]

    def batch(self, first: Index, entries_max: int, bytes_max: int) -> tuple[Entry, ...]:
        """Return entries from `first` on: at least one if there is one, else within both bounds."""
        chosen: list[Entry] = []
        size = 0
        for entry in self.entries(first, min(self.last_index, first + entries_max - 1)):
            size += len(entry.data)
            if chosen and size > bytes_max:
                break
            chosen.append(entry)
        return tuple(chosen)

    def term_first_index(self, index: Index) -> Index:
        """Return the first index in the log that has the same term as the entry at `index`."""
        assert self.base_index < index <= self.last_index
        position = bisect_right(self._term_starts, index, key=lambda start: start[0]) - 1
        return self._term_starts[position][0]

    def last_index_of_term(self, term: Term) -> Index | None:
        """Return the last index whose entry has `term`, None if there is none."""
        position = bisect_right(self._term_starts, term, key=lambda start: start[1]) - 1
        if position < 0 or self._term_starts[position][1] != term:
            return None
        if position + 1 < len(self._term_starts):
            return self._term_starts[position + 1][0] - 1
        return self.last_index

    def is_up_to_date(self, last_log_term: Term, last_log_index: Index) -> bool:
        """Return whether a log that ends there is at least as complete as this one.

        Source: paper section 5.4.1. The pair is compared lexicographically.
        """
        return (last_log_term, last_log_index) >= (self.last_term, self.last_index)

    def append(self, entries: Iterable[Entry]) -> None:
        """Add `entries` after the last one; configurations among them are in force at once."""
        index, term = self.last_index, self.last_term
        size_bytes = 0
        for entry in entries:
            index += 1
            assert entry.index == index
            if entry.term != term or not self._term_starts:
                assert entry.term >= term
                term = entry.term
                self._term_starts.append((index, term))
            self._entries.append(entry)
            size_bytes += len(entry.data) + ENTRY_HEAD_BYTES
            if entry.kind is EntryKind.CONFIGURATION:
                self.configurations.append(index, decode_configuration(entry.data))
        self.size_bytes += size_bytes

    def truncate_from(self, index: Index) -> None:
        """Drop the entries at `index` and above; their configurations are out of force at once.

        Raises:
            Divergence: the entry at `index` is committed here.
        """
        if index <= self.commit_index:
            raise Divergence(
                f"a leader has another entry at index {index}, and {self.commit_index} is "
                "committed here"
            )
        self.size_bytes -= _size_bytes(self._entries[index - self.base_index - 1 :])
        del self._entries[index - self.base_index - 1 :]
        while self._term_starts and self._term_starts[-1][0] >= index:
            self._term_starts.pop()
        self.configurations.truncate_from(index)
        self.durable_index = min(self.durable_index, index - 1)

    def compact(self, index: Index) -> None:
        """Drop the entries up to and including `index`, in [base_index, handed_index].

        A durable snapshot at or above `index` has them. Source: dissertation 5.1.
        """
        assert self.base_index <= index <= self.handed_index
        base_term = self.term_at(index)
        assert base_term is not None
        count = index - self.base_index
        self.size_bytes -= _size_bytes(self._entries[:count])
        del self._entries[:count]
        self.base_index, self.base_term = index, base_term
        while len(self._term_starts) > 1 and self._term_starts[1][0] <= index + 1:
            del self._term_starts[0]
        if not self._entries:
            self._term_starts.clear()
        elif self._term_starts[0][0] <= index:
            self._term_starts[0] = (index + 1, self._term_starts[0][1])
        self.configurations.compact(index)

    def hand_back(self, after: Index) -> None:
        """Take back the entries behind `after`, which were handed out and not applied.

        They are handed out again.
        """
        assert self.base_index <= after <= self.handed_index
        self.handed_index = after

    def restore(self, snapshot: Snapshot) -> None:
        """Let `snapshot`, which is above `commit_index`, take the place of all it includes.

        What follows is kept only if the log has the snapshot's last entry, for then it agrees with
        the snapshot; otherwise nothing in the log is known to be right.

        Source: Figure 13, receiver steps 6 and 7.
        """
        index, term = snapshot.id.last_included_index, snapshot.id.last_included_term
        assert index > self.commit_index
        if self.term_at(index) == term:
            self.commit_index = self.handed_index = index
            self.durable_index = max(self.durable_index, index)
            self.compact(index)
            return
        self._entries.clear()
        self._term_starts.clear()
        self.size_bytes = 0
        self.base_index, self.base_term = index, term
        self.commit_index = self.handed_index = self.durable_index = index
        self.configurations = ConfigurationHistory(snapshot.configuration)

    def check_base(self, index: Index, term: Term) -> None:
        """Compare a leader's entry at `index` with the last one that is gone, if it is that one.

        Raises:
            Divergence: it has another term, although it is committed here.
        """
        if 0 < index == self.base_index and term != self.base_term:
            raise Divergence(
                f"a leader has an entry of term {term} at index {index}, and one of term "
                f"{self.base_term} is committed here"
            )

    def merge(self, entries: Sequence[Entry]) -> None:
        """Store a leader's `entries`, whose predecessor is known to match.

        Only a *conflict* truncates: a request that was delayed or sent twice may end before the
        log does, and what follows may have been acknowledged, even committed.

        Raises:
            Divergence: another entry is committed here.

        Source: Figure 2, AppendEntries receiver steps 3 and 4.
        """
        for position, entry in enumerate(entries):
            if entry.index <= self.base_index:
                self.check_base(entry.index, entry.term)
                continue
            known_term = self.term_at(entry.index)
            if known_term == entry.term:
                continue
            if known_term is not None:
                self.truncate_from(entry.index)
            self.append(entries[position:])
            return

    def index_before(self, index: Index, size_bytes: int) -> Index:
        """Return where about `size_bytes` of entries that end at `index` begin, by the average."""
        count = self.last_index - self.base_index
        entries = size_bytes * count // self.size_bytes if count else 0
        return max(index - entries, self.base_index)

    def bytes_between(self, after: Index, last: Index) -> int:
        """Return about how much the entries of (after, last] take, by the average."""
        count = self.last_index - self.base_index
        asked = min(last, self.last_index) - max(after, self.base_index)
        return self.size_bytes * asked // count if count and asked > 0 else 0

    def worth_sending_after(self, newest: SnapshotId | None) -> Index:
        """Return behind which entry a server that has nothing yet is better sent entries.

        What the log has before is longer than the newest snapshot, which includes all of that; or
        it is not there any more (dissertation section 5.1.3 weighs both in the same way).
        """
        if newest is not None:
            included_bytes = self.bytes_between(self.base_index, newest.last_included_index)
            if included_bytes > newest.size_bytes:
                return newest.last_included_index
        return self.base_index

    def unpersisted(self) -> tuple[Entry, ...]:
        """Return the entries that the disk does not have yet."""
        last_index = self.last_index
        if self.durable_index == last_index:
            return ()
        return tuple(self.entries(self.durable_index + 1, last_index))


def is_well_formed(message: AppendEntries) -> bool:
    """Return whether the entries can be a part of a log that follows `prev_log_index`."""
    index, term = message.prev_log_index, message.prev_log_term
    for entry in message.entries:
        index += 1
        if entry.index != index or entry.term < term or entry.term > message.term:
            return False
        term = entry.term
        if entry.kind is EntryKind.CONFIGURATION:
            try:
                decode_configuration(entry.data)
            except ValueError:
                return False
    return True
