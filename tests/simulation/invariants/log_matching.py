"""Two logs with an entry of the same index and term are the same up to there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from raftd.core.snapshot import Snapshot
from raftd.core.types import Entry, EntryKind, HardState, Index, ServerId, Term
from tests.simulation.invariants import Durable, Invariant, Server
from tests.simulation.invariants.words import in_words


class LogMatching(Invariant):
    """Equal index and term mean an equal entry, and equal everything before.

    Shown by induction: whatever has ever been at an index in a term is remembered together with
    the term of its predecessor, and must be the same wherever it appears again. If two logs have
    the same (index, term), they have the same entry and the same (index, term) before it, and so
    on down to the first. So each entry is looked at once where it is stored, and once in memory.
    """

    title = "Log Matching"
    source = "Raft paper, Figure 3 and section 5.3; dissertation 3.5; LogMatchingInv in ccfraft.tla"

    def __init__(self, durable: Mapping[ServerId, Durable]) -> None:
        super().__init__(durable)
        self._seen: dict[tuple[Index, Term], tuple[EntryKind, bytes, Term, ServerId]] = {}
        """Kind, data, the predecessor's term, and who had it first."""
        self._memories: dict[ServerId, list[Term]] = {}
        """The terms of each running process's log in memory, as far as it was compared; what was
        compacted there has the terms that are durable."""

    def started(self, server: Server) -> None:
        stored = server.durable.entries
        self._compare(server, "disk", stored, 0)
        self._memories[server.id] = []
        self._compact(server)
        self.turned(server)

    def appended(
        self, server: Server, hard_state: HardState | None, entries: Sequence[Entry]
    ) -> None:
        if entries:
            before = entries[0].index - 1
            stored = server.durable.entries
            self._compare(server, "disk", entries, stored[before - 1].term if before else 0)

    def restored(self, server: Server, snapshot: Snapshot) -> None:
        self._compact(server)

    def _compact(self, server: Server) -> None:
        """Take the durable terms for those of entries that memory has not any more."""
        base_index = server.raft.log.base_index
        terms = self._memories[server.id]
        terms[:base_index] = [entry.term for entry in server.durable.entries[:base_index]]

    def turned(self, server: Server) -> None:
        log = server.raft.log
        terms, last_index = self._memories[server.id], log.last_index
        common = len(terms)
        if common == last_index and (not common or terms[-1] == log.last_term):
            return
        # What was compared before and has not been replaced since.
        common = min(common, last_index)
        while common > log.base_index and terms[common - 1] != log.term_at(common):
            common -= 1
        del terms[common:]
        fresh = log.entries(common + 1, last_index)
        self._compare(server, "memory", fresh, terms[-1] if terms else 0)
        terms.extend([entry.term for entry in fresh])

    def _compare(
        self, server: Server, where: str, entries: Iterable[Entry], term_before: Term
    ) -> None:
        seen = self._seen
        for entry in entries:
            key = (entry.index, entry.term)
            known = seen.get(key)
            if known is None:
                seen[key] = (entry.kind, entry.data, term_before, server.id)
            else:
                kind, body, known_before, first = known
                assert (kind, body) == (entry.kind, entry.data), (
                    f"{server.id} has another entry at index {entry.index} in term {entry.term} "
                    f"in its {where} than {first}: expected "
                    f"{in_words((entry.term, kind, body))}, found "
                    f"{in_words((entry.term, entry.kind, entry.data))}"
                )
                assert known_before == term_before, (
                    f"the log of {server.id} in its {where} has entry {entry.index} of term "
                    f"{entry.term} as {first} had it, but not what stands before it: expected "
                    f"an entry of term {known_before} at index {entry.index - 1}, found one of "
                    f"term {term_before}"
                )
            term_before = entry.term
