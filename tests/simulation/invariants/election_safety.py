"""At most one server leads in a term."""

from __future__ import annotations

from collections.abc import Mapping

from raftd.core.leader import Leader
from raftd.core.membership import Configuration
from raftd.core.messages import AppendEntries, Envelope, TimeoutNow
from raftd.core.types import Index, ServerId, Term
from tests.simulation.invariants import Durable, Invariant, Server


class ElectionSafety(Invariant):
    """At most one leader is elected in a term.

    A leader is recognised by its role when a turn ends, and within a turn by what only a leader
    does: replicate, count, hand over. A server that has restarted does not lead in the same term
    again either: a candidate always takes a new term, so that would be a second election.
    """

    title = "Election Safety"
    source = (
        "Raft paper, Figure 3 and section 5.2; dissertation 3.4; "
        "MoreThanOneLeaderInv in ccfraft.tla"
    )

    def __init__(self, durable: Mapping[ServerId, Durable]) -> None:
        super().__init__(durable)
        self._leaders: dict[Term, tuple[ServerId, int]] = {}
        """By term: who leads, and in which of its processes."""

    def sent(self, server: Server, envelope: Envelope) -> None:
        if isinstance(envelope.message, AppendEntries | TimeoutNow):
            self._leads(server, envelope.message.term)

    def committed(
        self, server: Server, configuration: Configuration, old: Index, new: Index
    ) -> None:
        self._leads(server, server.raft.current_term)

    def turned(self, server: Server) -> None:
        raft = server.raft
        if isinstance(raft.role, Leader):
            self._leads(server, raft.current_term)

    def _leads(self, server: Server, term: Term) -> None:
        found = (server.id, server.process)
        known = self._leaders.setdefault(term, found)
        assert known == found, (
            f"two leaders in term {term}: {known[0]} (process {known[1]}) was the first, "
            f"{found[0]} (process {found[1]}) leads too; "
            f"{server.id} has {server.raft.log.last_index} entries in its log"
        )
