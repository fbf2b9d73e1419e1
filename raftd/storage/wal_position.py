"""Where a log begins and ends: what the next batch has to fit to."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from raftd.core.types import Entry, HardState, Index, Term
from raftd.storage.wal_segments import Reset, SegmentHeader


class Terms:
    """The term of every live index, as runs of equal terms."""

    def __init__(self, after_index: Index, after_term: Term) -> None:
        self.last_index = after_index
        self._first_indexes = [after_index]
        self._terms = [after_term]

    @property
    def after_index(self) -> Index:
        """What stands before the first entry."""
        return self._first_indexes[0]

    @property
    def after_term(self) -> Term:
        return self._terms[0]

    @property
    def last_term(self) -> Term:
        return self._terms[-1]

    def refusal(self, entries: Sequence[Entry]) -> str:
        """Return why `entries` cannot follow, or an empty text if they can."""
        index = entries[0].index
        if not self.after_index < index <= self.last_index + 1:
            return (
                f"entry {index} does not continue a log of entries "
                f"{self.after_index + 1} to {self.last_index}"
            )
        term = self._terms[bisect_right(self._first_indexes, index - 1) - 1]
        for entry in entries:
            if entry.index != index:
                return f"entry {entry.index} stands where {index} is due"
            if entry.term < term:
                return f"entry {index} of term {entry.term} follows one of term {term}"
            term = entry.term
            index += 1
        return ""

    def replace_from(self, entries: Sequence[Entry]) -> None:
        """Let `entries`, which are not refused, take the place of everything from there on."""
        while self._first_indexes[-1] >= entries[0].index:
            del self._first_indexes[-1], self._terms[-1]
        for entry in entries:
            if entry.term != self._terms[-1]:
                self._first_indexes.append(entry.index)
                self._terms.append(entry.term)
        self.last_index = entries[-1].index

    def forget_through(self, index: Index) -> None:
        """Let the log begin after `index`, which it has, unless it begins later already."""
        if index > self.after_index:
            run = bisect_right(self._first_indexes, index) - 1
            self._first_indexes[: run + 1] = [index]
            self._terms[: run + 1] = [self._terms[run]]


class Position:
    """What the batches so far come to."""

    def __init__(self, header: SegmentHeader) -> None:
        self.next_sequence = header.first_sequence
        self.hard_state = header.hard_state
        self.terms = Terms(header.after_index, header.after_term)

    def refusal(self, hard_state: HardState | None, entries: Sequence[Entry]) -> str:
        """Return why a batch cannot come next, or an empty text if it can."""
        if hard_state is not None and hard_state.current_term < self.hard_state.current_term:
            return (
                f"the current term falls from {self.hard_state.current_term} "
                f"to {hard_state.current_term}"
            )
        return self.terms.refusal(entries) if entries else ""

    def advance(self, hard_state: HardState | None, entries: Sequence[Entry]) -> None:
        """Take in a batch that is durable."""
        self.next_sequence += 1
        if hard_state is not None:
            self.hard_state = hard_state
        if entries:
            self.terms.replace_from(entries)

    def start_over(self, reset: Reset) -> None:
        """Take in a batch that is durable and resets the log."""
        self.next_sequence += 1
        self.terms = Terms(reset.index, reset.term)

    def header(self) -> SegmentHeader:
        """Return the header of a segment that comes next."""
        return SegmentHeader(
            first_sequence=self.next_sequence,
            after_index=self.terms.last_index,
            after_term=self.terms.last_term,
            hard_state=self.hard_state,
        )
