"""What a server has acknowledged stays on its disk until another leader replaces it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs

from raftd.core.messages import AppendEntriesResponse, Envelope, InstallSnapshotResponse
from raftd.core.snapshot import Snapshot
from raftd.core.types import Entry, HardState, Index, ServerId, Term
from tests.simulation.invariants import Content, Durable, Invariant, Server


@attrs.define
class _Promise:
    """The highest entry that a server has told anybody that its disk has."""

    index: Index
    term: Term
    """Of the entry."""
    given_in: Term
    """The current term when it was acknowledged."""


class AcknowledgedIsKept(Invariant):
    """Snapshot and log together have everything that was acknowledged, also after a restart.

    Only an entry of a later leader that is written over it takes a promise back; an install may
    do so too, if its snapshot has another entry where the log has one, or if the log in memory
    has been replaced already by a later leader and is not on the disk yet.

    By Log Matching it is enough to look at the highest entry that was acknowledged.
    """

    title = "What was acknowledged is kept"
    source = "Raft paper, Figure 2 and Figure 13 (receiver step 6); dissertation 3.8 and 5.1"

    def __init__(self, durable: Mapping[ServerId, Durable]) -> None:
        super().__init__(durable)
        self._promises: dict[ServerId, _Promise] = {}
        self._suffixes: dict[ServerId, list[Entry]] = {}
        """What the disk had behind the end of the snapshot that was published last."""

    def sent(self, server: Server, envelope: Envelope) -> None:
        message = envelope.message
        if isinstance(message, AppendEntriesResponse):
            index = message.match_index if message.success else 0
        elif isinstance(message, InstallSnapshotResponse):
            index = message.match_index
        else:
            return
        entries = server.durable.entries
        if not 0 < index <= len(entries):
            # That it is not there is another property.
            return
        known = self._promises.get(server.id)
        # An answer to a later leader may be about less: the rest is still promised to others.
        if known is None or index >= known.index:
            self._promises[server.id] = _Promise(index, entries[index - 1].term, message.term)

    def appended(
        self, server: Server, hard_state: HardState | None, entries: Sequence[Entry]
    ) -> None:
        known = self._promises.get(server.id)
        if not entries or known is None or entries[0].index > known.index:
            return
        if entries[-1].index >= known.index:
            replaced = entries[known.index - entries[0].index].term != known.term
        else:
            replaced = True
        if not replaced:
            return
        term = server.durable.hard_state.current_term
        assert term > known.given_in, (
            f"{server.id} replaces entry {known.index} of term {known.term} in the term "
            f"{known.given_in} in which it has acknowledged it: found entries {entries[0].index} "
            f"to {entries[-1].index}"
        )
        self._withdraw(server.id, known, entries[0].index - 1)

    def started(self, server: Server) -> None:
        self._look(server, "has started without")

    def published(self, server: Server, snapshot: Snapshot, content: Content) -> None:
        known, index = self._promises.get(server.id), snapshot.id.last_included_index
        self._suffixes[server.id] = server.durable.entries[index:]
        if known is None or self._has(server, known):
            return
        # The log has had another entry at the end of the snapshot, or none.
        assert known.given_in < server.raft.current_term, (
            f"{server.id} installs a snapshot up to entry {index} and loses entry {known.index} of "
            f"term {known.term}, which it has acknowledged in this term, {known.given_in}"
        )
        self._withdraw(server.id, known, index)

    def compacted(self, server: Server, keep_after: Index) -> None:
        known = self._promises.get(server.id)
        if known is None or self._has(server, known):
            return
        log = server.raft.log
        is_replaced = any(
            log.term_at(entry.index) not in (None, entry.term)
            for entry in self._suffixes.get(server.id, ())
            if keep_after < entry.index <= known.index
        )
        assert is_replaced, (
            f"{server.id} has reset its log to entry {keep_after} and lost entry {known.index} of "
            f"term {known.term}, which it has acknowledged in term {known.given_in}, although the "
            "snapshot agrees with it"
        )
        self._withdraw(server.id, known, keep_after)

    def _withdraw(self, server: ServerId, known: _Promise, index: Index) -> None:
        """Let only what is up to `index` be promised."""
        entries = self.durable[server].entries
        index = min(index, known.index, len(entries))
        if index:
            self._promises[server] = _Promise(index, entries[index - 1].term, known.given_in)
        else:
            del self._promises[server]

    @staticmethod
    def _has(server: Server, known: _Promise) -> bool:
        entries = server.durable.entries
        return known.index <= len(entries) and entries[known.index - 1].term == known.term

    def _look(self, server: Server, how: str) -> None:
        known = self._promises.get(server.id)
        if known is None:
            return
        entries = server.durable.entries
        log, snapshot = server.raft.log, server.raft.snapshot
        reach = max(log.last_index, snapshot.id.last_included_index if snapshot else 0)
        found = (
            f"it in snapshot or log, found that they end at {reach} ({len(entries)} entries were "
            "durable)"
        )
        text = (
            f"{server.id} {how} entry {known.index} of term {known.term}, which it has "
            f"acknowledged in term {known.given_in}: expected {found}"
        )
        assert self._has(server, known), text
        assert reach >= known.index, text
