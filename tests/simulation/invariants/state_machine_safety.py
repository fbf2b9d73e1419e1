"""No two servers apply different entries at one index."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from raftd.core.snapshot import Snapshot
from raftd.core.types import Entry, Index, ServerId
from tests.simulation.invariants import Durable, Invariant, Server
from tests.simulation.invariants.words import Content, content, in_words


class StateMachineSafety(Invariant):
    """What one process applies at an index, no other applies otherwise; and none skips an index.

    A process goes on right after what its state machine had when it started, or what a snapshot
    that it has installed includes. It applies nothing that it does not know to be committed, and
    installs no snapshot that takes it back.
    """

    title = "State Machine Safety"
    source = (
        "Raft paper, Figure 3 and section 5.4.3; dissertation 3.6.3; LogInv in ccfraft.tla, "
        "NoLogDivergence in RaftWithReconfigJointConsensus.tla"
    )

    def __init__(self, durable: Mapping[ServerId, Durable]) -> None:
        super().__init__(durable)
        self._applied: dict[Index, tuple[Content, ServerId]] = {}
        """By index: what was applied there, and by whom first."""
        self._last: dict[ServerId, Index] = {}
        """What each running process has applied."""

    def started(self, server: Server) -> None:
        self._last[server.id] = server.state.applied_index

    def restored(self, server: Server, snapshot: Snapshot) -> None:
        index, last = snapshot.id.last_included_index, self._last[server.id]
        assert index > last, (
            f"{server.id} (process {server.process}) installs a snapshot up to entry {index} over "
            f"what it has applied: expected more than {last}"
        )
        self._last[server.id] = index

    def applied(self, server: Server, entries: Sequence[Entry]) -> None:
        last = self._last[server.id]
        for entry in entries:
            last += 1
            assert entry.index == last, (
                f"{server.id} (process {server.process}) applies entry {entry.index} of term "
                f"{entry.term} out of order: expected entry {last}"
            )
            found = content(entry)
            known, first = self._applied.setdefault(last, (found, server.id))
            assert known == found, (
                f"{server.id} (process {server.process}) applies another entry at index {last} "
                f"than {first}: expected {in_words(known)}, found {in_words(found)}"
            )
        self._last[server.id] = last
        commit_index = server.raft.log.commit_index
        assert last <= commit_index, (
            f"{server.id} applies entry {last} of term {entries[-1].term}, which it does not know "
            f"to be committed: expected at most its commit index {commit_index}, found {last}"
        )
        assert server.state.applied_index == last, (
            f"the state machine of {server.id} says another applied index than it was given in "
            f"term {server.raft.current_term}: expected {last}, "
            f"found {server.state.applied_index}"
        )
