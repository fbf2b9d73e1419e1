"""Who leads has everything that was committed before."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping

import attrs

from raftd.core.leader import Leader
from raftd.core.log import RaftLog
from raftd.core.membership import Configuration
from raftd.core.messages import AppendEntries, Envelope
from raftd.core.types import Index, ServerId, Term
from tests.simulation.invariants import Durable, Invariant, Server


@attrs.frozen
class _Shape:
    """Where the terms begin in a leader's log, when it was first seen to lead."""

    leader: ServerId
    base_index: Index
    """Everything below came into a snapshot, so it was committed; that the snapshot is right is
    another property."""
    starts: list[Index]
    terms: list[Term]
    last_index: Index

    def term_at(self, index: Index) -> Term:
        """Return the term of the entry at `index`, 0 if there is none; not below the base."""
        if index > self.last_index:
            return 0
        return self.terms[bisect_right(self.starts, index) - 1]


@attrs.frozen
class _Committed:
    """The highest entry that the leader of some term has counted."""

    index: Index
    term: Term
    leader: ServerId


class LeaderCompleteness(Invariant):
    """Whoever leads in a term has every entry that was committed in an earlier term.

    The term in which an entry was committed is that of the leader that counted it. The entry's own
    term would make the property too strong: in Figure 8 an entry of term 2 is committed by the
    leader of term 4, and the leader of term 3 never had it.

    Only the highest entry that each term has committed is compared, by index and term: Log
    Matching makes it the same entry, and the same log before it. A leader that does not know that
    it was deposed may count later than its successor was elected, so leaders are remembered too.
    """

    title = "Leader Completeness"
    source = (
        "Raft paper, Figure 3 and section 5.4; dissertation 3.6.3; "
        "LeaderCompletenessInv in ccfraft.tla"
    )

    def __init__(self, durable: Mapping[ServerId, Durable]) -> None:
        super().__init__(durable)
        self._leaders: dict[Term, _Shape] = {}
        self._committed: dict[Term, _Committed] = {}
        self._newest_term: Term = 0
        """The highest term that had a leader."""

    def sent(self, server: Server, envelope: Envelope) -> None:
        if isinstance(envelope.message, AppendEntries):
            self._look(server)

    def turned(self, server: Server) -> None:
        self._look(server)

    def committed(
        self, server: Server, configuration: Configuration, old: Index, new: Index
    ) -> None:
        self._look(server)
        raft = server.raft
        committed_in = raft.current_term
        counted = _Committed(new, raft.log.term_at(new) or 0, server.id)
        self._committed[committed_in] = counted
        if committed_in < self._newest_term:
            for term, shape in self._leaders.items():
                if term > committed_in:
                    self._compare(term, shape, committed_in, counted)

    def _look(self, server: Server) -> None:
        raft = server.raft
        term = raft.current_term
        if term in self._leaders or not isinstance(raft.role, Leader):
            return
        shape = self._leaders[term] = _shape(server.id, raft.log)
        self._newest_term = max(self._newest_term, term)
        for committed_in, counted in self._committed.items():
            if committed_in < term:
                self._compare(term, shape, committed_in, counted)

    @staticmethod
    def _compare(term: Term, shape: _Shape, committed_in: Term, counted: _Committed) -> None:
        if counted.index < shape.base_index:
            return
        found = shape.term_at(counted.index)
        assert found == counted.term, (
            f"{shape.leader} leads in term {term} without entry {counted.index}, which "
            f"{counted.leader} committed in term {committed_in}: expected an entry of term "
            f"{counted.term}, found {f'one of term {found}' if found else 'none'}; its log ended "
            f"at index {shape.last_index}"
        )


def _shape(leader: ServerId, log: RaftLog) -> _Shape:
    term = log.base_term
    starts, terms = [log.base_index], [term]
    for entry in log.entries(log.first_index, log.last_index):
        if entry.term != term:
            term = entry.term
            starts.append(entry.index)
            terms.append(term)
    return _Shape(leader, log.base_index, starts, terms, log.last_index)
