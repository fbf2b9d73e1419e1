"""Servers that have applied the same entries have the same state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from raftd.core.snapshot import Snapshot
from raftd.core.types import Entry, Index, ServerId
from tests.simulation.invariants import Durable, Invariant, Server


class EqualState(Invariant):
    """At equal applied index the states are equal: keys, sessions, operations, tombstones.

    It holds between servers, and between the processes of one server, whatever the sizes of the
    batches in which they have applied, and also for a state that came with a snapshot. Compared
    are the hash of the contents and the one that rolls over the effects of the entries.
    """

    title = "Equal state at equal applied index"
    source = (
        "Raft paper, section 2 (replicated state machines) and State Machine Safety in Figure 3; "
        "dissertation 6.3 for sessions; the TLA+ specifications have no state machine"
    )

    def __init__(self, durable: Mapping[ServerId, Durable]) -> None:
        super().__init__(durable)
        self._hashes: dict[Index, tuple[tuple[int, int], ServerId, int]] = {}
        """By applied index: the hashes, and the server and process that had them first."""

    def started(self, server: Server) -> None:
        self._compare(server)

    def applied(self, server: Server, entries: Sequence[Entry]) -> None:
        self._compare(server)

    def restored(self, server: Server, snapshot: Snapshot) -> None:
        found = server.state.applied_index
        assert found == snapshot.id.last_included_index, (
            f"{server.id} has installed a snapshot up to entry {snapshot.id.last_included_index}, "
            f"and its state machine says {found}"
        )
        self._compare(server)

    def _compare(self, server: Server) -> None:
        index = server.state.applied_index
        found = (server.state_hash, server.state.effects_hash)
        known, first, process = self._hashes.setdefault(index, (found, server.id, server.process))
        assert known == found, (
            f"{server.id} (process {server.process}, term {server.raft.current_term}) has "
            f"another state after applying up to index {index} than {first} (process {process}): "
            f"expected hashes {known[0]:x} and {known[1]:x}, found {found[0]:x} and {found[1]:x}"
        )
