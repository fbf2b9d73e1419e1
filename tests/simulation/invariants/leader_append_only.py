"""A leader only appends to its own log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs

from raftd.core.leader import Leader
from raftd.core.log import RaftLog
from raftd.core.types import Entry, HardState, Index, ServerId, Term
from tests.simulation.invariants import Durable, Invariant, Server
from tests.simulation.invariants.words import Content, content, in_words

LOOKED_BACK = 4
"""Older entries that are compared again whenever a leader's log has grown: all of them get their
turn in time, and no turn costs more because the log is long."""


@attrs.define
class _Leading:
    process: int
    term: Term
    last_index: Index
    last: Content | None
    stored_index: Index
    """The last entry on its disk."""
    looked_at: Index = 0
    """The older entry that was compared last."""


class LeaderAppendOnly(Invariant):
    """While a server leads in a term its log only grows, and no entry of it changes.

    What was the last entry is compared after every turn. Older entries are compared with what the
    disk got when they were appended, some of them whenever the log has grown. What was compacted
    is not there any more; its last entry is known by its term alone.
    """

    title = "Leader Append-Only"
    source = (
        "Raft paper, Figure 3 and section 5.3; dissertation 3.5; "
        "PermittedLogChangesProp in ccfraft.tla"
    )

    def __init__(self, durable: Mapping[ServerId, Durable]) -> None:
        super().__init__(durable)
        self._leading: dict[ServerId, _Leading] = {}

    def appended(
        self, server: Server, hard_state: HardState | None, entries: Sequence[Entry]
    ) -> None:
        leading = self._leading.get(server.id)
        if not entries or leading is None or leading.process != server.process:
            return
        if not self._still_leads(server, leading):
            return
        assert entries[0].index > leading.stored_index, (
            f"{server.id}, leader of term {leading.term}, writes entry {entries[0].index} to its "
            f"disk, which has {leading.stored_index} entries already: expected only entries "
            f"above, found {in_words(content(entries[0]))}"
        )
        leading.stored_index = entries[-1].index

    def turned(self, server: Server) -> None:
        raft = server.raft
        leading = self._leading.get(server.id)
        if not isinstance(raft.role, Leader):
            if leading is not None:
                del self._leading[server.id]
            return
        log = raft.log
        if (
            leading is None
            or leading.process != server.process
            or not self._still_leads(server, leading)
        ):
            self._leading[server.id] = _Leading(
                server.process,
                raft.current_term,
                log.last_index,
                _content_at(log, log.last_index),
                len(server.durable.entries),
            )
            return
        assert log.last_index >= leading.last_index, (
            f"{server.id}, leader of term {leading.term}, has deleted entries: expected its log "
            f"to reach index {leading.last_index} at least, found {log.last_index}"
        )
        self._compare(server, leading.term, leading.last_index, leading.last)
        if log.last_index == leading.last_index:
            return
        self._look_back(server, leading)
        leading.last_index = log.last_index
        leading.last = _content_at(log, log.last_index)

    @staticmethod
    def _still_leads(server: Server, leading: _Leading) -> bool:
        raft = server.raft
        return isinstance(raft.role, Leader) and raft.current_term == leading.term

    def _look_back(self, server: Server, leading: _Leading) -> None:
        stored = server.durable.entries
        reached = min(leading.last_index, len(stored))
        for _ in range(min(LOOKED_BACK, reached)):
            leading.looked_at = leading.looked_at % reached + 1
            expected = content(stored[leading.looked_at - 1])
            self._compare(server, leading.term, leading.looked_at, expected)

    @staticmethod
    def _compare(server: Server, term: Term, index: Index, expected: Content | None) -> None:
        log = server.raft.log
        if index <= log.base_index or expected is None:
            return
        found = content(log.entry(index))
        assert found == expected, (
            f"{server.id}, leader of term {term}, has changed its entry {index}: "
            f"expected {in_words(expected)}, found {in_words(found)}"
        )


def _content_at(log: RaftLog, index: Index) -> Content | None:
    """Return what is at an index, None if it is compacted."""
    return content(log.entry(index)) if index > log.base_index else None
