"""The log of one server, as the protocol sees it, and the chain of positions in it.

```
base_index <= handed_index <= commit_index <= last_index
              durable_index                <= last_index
```

| position | meaning |
|---|---|
| `base_index` | the last entry that a snapshot replaces; 0 without one |
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
    ConfigurationAt,
    ConfigurationHistory,
    decode_configuration,
)
from raftd.core.types import Entry, EntryKind, Index, Term


class RaftLog:
    """Entries after the snapshot, with the configurations among them.

    Invariants: indexes are contiguous; terms never decrease; the positions keep their chain; no
    entry at or below `commit_index` is ever replaced.
    """

    def __init__(
        self,
        entries: Iterable[Entry] = (),
        *,
        base_index: Index = 0,
        base_term: Term = 0,
        base_configuration: ConfigurationAt | None = None,
    ) -> None:
        """Make the log that recovery found on disk; all of `entries` is durable."""
        self.base_index = base_index
        self.base_term = base_term
        self.commit_index = base_index
        self.handed_index = base_index
        self.configurations = ConfigurationHistory(base_configuration)
        self._entries: list[Entry] = []
        self._term_starts: list[tuple[Index, Term]] = []
        self.append(entries)
        self.durable_index = self.last_index

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
        for entry in entries:
            assert entry.index == self.last_index + 1
            assert entry.term >= self.last_term
            if not self._term_starts or entry.term > self.last_term:
                self._term_starts.append((entry.index, entry.term))
            self._entries.append(entry)
            if entry.kind is EntryKind.CONFIGURATION:
                self.configurations.append(entry.index, decode_configuration(entry.data))

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
        del self._entries[index - self.base_index - 1 :]
        while self._term_starts and self._term_starts[-1][0] >= index:
            self._term_starts.pop()
        self.configurations.truncate_from(index)
        self.durable_index = min(self.durable_index, index - 1)

    def merge(self, entries: Sequence[Entry]) -> None:
        """Store a leader's `entries`, whose predecessor is known to match.

        Only a *conflict* truncates: a request that was delayed or sent twice may end before the
        log does, and what follows may have been acknowledged, even committed.

        Source: Figure 2, AppendEntries receiver steps 3 and 4.
        """
        for position, entry in enumerate(entries):
            if entry.index <= self.base_index:
                continue
            known_term = self.term_at(entry.index)
            if known_term == entry.term:
                continue
            if known_term is not None:
                self.truncate_from(entry.index)
            self.append(entries[position:])
            return

    def unpersisted(self) -> tuple[Entry, ...]:
        """Return the entries that the disk does not have yet."""
        return tuple(self.entries(self.durable_index + 1, self.last_index))
