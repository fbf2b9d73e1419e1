"""What must hold on one server after every input. Tests check it always, production on request.

| property | source |
|---|---|
| positions keep their chain, terms never decrease | paper 5.3; `raftd.core.log` |
| term, commit and applied positions never go back | Figure 2 |
| one vote in a term | paper 5.2 |
| a leader never overwrites or deletes its entries | Leader Append-Only, Figure 3 |
| the configuration in force is the newest in the log | paper section 6 |
| a server is leader or candidate only with its own vote | Figure 2 |
| one unfinished change at a time | dissertation 4.3 |
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from itertools import pairwise

import attrs

from raftd.core.leader import Leader
from raftd.core.membership import (
    ConfigurationEntry,
    ConfigurationKind,
    decode_configuration,
)
from raftd.core.raft import Candidate, Follower, Raft
from raftd.core.types import EntryKind, Index, ServerId, Term

# A check looks at every configuration of the log, and they are the same ones each time.
_decoded: Callable[[bytes], ConfigurationEntry] = lru_cache(maxsize=256)(decode_configuration)


@attrs.frozen
class _Previous:
    current_term: Term
    voted_for: ServerId | None
    commit_index: Index
    handed_index: Index
    last_index: Index
    last_term: Term
    leads: bool


class InvariantChecker:
    """Checks one server against its own past. Call `check` after each input."""

    def __init__(self, raft: Raft) -> None:
        self._raft = raft
        self._previous = self._look()

    def check(self) -> None:
        """Assert every property.

        Raises:
            AssertionError: one does not hold; the message names it.
        """
        self._check_positions()
        self._check_roles()
        self._check_configurations()
        self._check_leader()
        now = self._look()
        self._check_progress_of_time(self._previous, now)
        self._previous = now

    def _look(self) -> _Previous:
        raft = self._raft
        return _Previous(
            current_term=raft.current_term,
            voted_for=raft.voted_for,
            commit_index=raft.log.commit_index,
            handed_index=raft.log.handed_index,
            last_index=raft.log.last_index,
            last_term=raft.log.last_term,
            leads=isinstance(raft.role, Leader),
        )

    def _check_positions(self) -> None:
        log = self._raft.log
        assert log.base_index <= log.handed_index <= log.commit_index <= log.last_index
        assert log.base_index <= log.durable_index <= log.last_index
        assert log.last_term <= self._raft.current_term, "an entry of a term to come"
        term = log.base_term
        for position, entry in enumerate(log.entries(log.first_index, log.last_index)):
            assert entry.index == log.first_index + position, "a gap in the log"
            assert entry.term >= term, "terms went back in the log"
            term = entry.term

    def _check_roles(self) -> None:
        raft = self._raft
        if isinstance(raft.role, Candidate | Leader):
            assert raft.voted_for == raft.server, "campaigns without its own vote"
        if isinstance(raft.role, Leader):
            assert raft.leader_id == raft.server
        elif raft.leader_id is not None:
            assert isinstance(raft.role, Follower), "a candidate believes in a leader"
            assert raft.leader_id != raft.server, "believes to lead without leading"

    def _check_configurations(self) -> None:
        log = self._raft.log
        found = [
            (entry.index, _decoded(entry.data))
            for entry in log.entries(log.first_index, log.last_index)
            if entry.kind is EntryKind.CONFIGURATION
        ]
        known = [(at.index, at.entry) for at in log.configurations.since(log.base_index)]
        assert known == found, "the configuration in force is not the newest in the log"
        if isinstance(self._raft.role, Leader):
            self._check_one_change_at_a_time()

    def _check_one_change_at_a_time(self) -> None:
        """What this leader appended in its term stands on something settled, or aborts it.

        What it inherited says nothing: after a restart it knows of no commit at all.
        """
        log = self._raft.log
        unsettled = log.configurations.since(log.commit_index)
        for before, after in pairwise(unsettled):
            if log.term_at(after.index) != self._raft.current_term:
                continue
            assert after.entry.kind is ConfigurationKind.ABORT, "two unfinished changes at once"
            assert before.entry.kind is ConfigurationKind.JOINT, "aborts what is not joint"
            assert log.term_at(before.index) == self._raft.current_term, "aborts too early"

    def _check_leader(self) -> None:
        raft = self._raft
        if not isinstance(raft.role, Leader):
            return
        latest = raft.configuration
        assert latest is not None
        if raft.log.base_index > 0:
            assert raft.snapshot is not None, "compacted without a snapshot"
            assert raft.log.base_index <= raft.snapshot.id.last_included_index
        members = latest.configuration.members - {raft.server}
        departing = raft.role.departing_addresses().keys()
        assert raft.role.progress.keys() == members | departing, "feeds the wrong servers"
        for progress in raft.role.progress.values():
            assert progress.match_index < progress.next_index <= raft.log.last_index + 1
            assert progress.match_index <= raft.log.last_index

    def _check_progress_of_time(self, before: _Previous, now: _Previous) -> None:
        assert now.current_term >= before.current_term, "the term went back"
        assert now.commit_index >= before.commit_index, "the commit index went back"
        assert now.handed_index >= before.handed_index, "entries were handed out again"
        if now.current_term == before.current_term:
            if before.voted_for is not None:
                assert now.voted_for == before.voted_for, "the vote changed within a term"
            if before.leads and now.leads:
                assert now.last_index >= before.last_index, "a leader deleted its own entries"
                term = self._raft.log.term_at(before.last_index)
                assert term in (before.last_term, None), "a leader replaced its own entries"
                assert term is not None or before.last_index < self._raft.log.base_index
