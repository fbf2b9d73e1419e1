"""While a leader holds a lease, nobody else is elected."""

from __future__ import annotations

from collections.abc import Mapping

from raftd.core.leader import Leader
from raftd.core.types import ServerId, Term
from tests.simulation.invariants import Durable, Invariant, Server


class ExclusiveLeases(Invariant):
    """In the moment of an election, no leader of an older term holds a lease by its own clock.

    That is what a lease promises. A read that is answered wrongly in its name takes a write on the
    other side besides, in the few moments that there are.
    """

    title = "A lease is exclusive"
    source = "dissertation 6.4.1"

    def __init__(self, durable: Mapping[ServerId, Durable]) -> None:
        super().__init__(durable)
        self._leaders: dict[ServerId, tuple[Server, Term]] = {}
        """Those that lead, since their last turn at least."""

    def turned(self, server: Server) -> None:
        """Look at all leases when a leader is new."""
        raft = server.raft
        term, known = raft.current_term, self._leaders.get(server.id)
        if not isinstance(raft.role, Leader):
            self._leaders.pop(server.id, None)
        elif known is None or known[1] != term:
            self._leaders[server.id] = (server, term)
            for other, older_term in self._leaders.values():
                assert older_term >= term or not other.lease_is_held(), (
                    f"{server.id} was elected in term {term} while {other.id}, the leader of term "
                    f"{older_term}, holds a lease"
                )

    def ended(self, server: Server) -> None:
        """What only memory had is gone."""
        self._leaders.pop(server.id, None)
