"""Terms, votes and positions never go back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs

from raftd.core.messages import Envelope, RequestVote, RequestVoteResponse
from raftd.core.types import Entry, HardState, Index, ServerId, Term
from tests.simulation.invariants import Durable, Invariant, Server


@attrs.frozen
class _Positions:
    current_term: Term
    voted_for: ServerId | None
    commit_index: Index
    handed_index: Index
    applied_index: Index


class MonotonicPositions(Invariant):
    """Term, commit index and what was applied only grow; in one term a server has one vote.

    Within a process this holds for what is in memory. Across restarts it holds for what is
    durable, and for the votes that others were told of: a vote that was neither durable nor told
    may be another one after a crash, and the commit index begins at 0 again.
    """

    title = "Monotonic term, vote, commit and applied"
    source = (
        "Raft paper, Figure 2 and section 5.2; dissertation 3.4 and 3.8; "
        "MonotonicTermProp and MonotonicCommitIndexProp in ccfraft.tla"
    )

    def __init__(self, durable: Mapping[ServerId, Durable]) -> None:
        super().__init__(durable)
        self._positions: dict[ServerId, _Positions] = {}
        self._stored: dict[ServerId, HardState] = {}
        """The last durable state of each server that ever was."""
        self._told: dict[tuple[ServerId, Term], ServerId] = {}
        """For whom each server has voted in each term, by what it has sent."""

    def started(self, server: Server) -> None:
        self._compare_stored(server)
        self._positions[server.id] = _look(server)

    def appended(
        self, server: Server, hard_state: HardState | None, entries: Sequence[Entry]
    ) -> None:
        if hard_state is not None:
            self._compare_stored(server)

    def sent(self, server: Server, envelope: Envelope) -> None:
        message = envelope.message
        if isinstance(message, RequestVoteResponse) and message.vote_granted:
            chosen = envelope.dest
        elif isinstance(message, RequestVote):
            chosen = envelope.source
        else:
            return
        told = self._told.setdefault((server.id, message.term), chosen)
        assert told == chosen, (
            f"{server.id} votes twice in term {message.term}: expected its vote for {told}, found "
            f"one for {chosen}; its log ends at index {server.raft.log.last_index}"
        )

    def turned(self, server: Server) -> None:
        before, raft, log = self._positions[server.id], server.raft, server.raft.log
        if (
            log.commit_index == before.commit_index
            and log.handed_index == before.handed_index
            and server.state.applied_index == before.applied_index
            and raft.current_term == before.current_term
            and raft.voted_for == before.voted_for
        ):
            return
        now = _look(server)
        for name, then, since in (
            ("its term", before.current_term, now.current_term),
            ("its commit index", before.commit_index, now.commit_index),
            ("what it has handed to its state machine", before.handed_index, now.handed_index),
            ("what it has applied", before.applied_index, now.applied_index),
        ):
            assert since >= then, (
                f"{server.id} (process {server.process}) has gone back in {name} in term "
                f"{now.current_term}: expected at least {then}, found {since}"
            )
        if now.current_term == before.current_term and before.voted_for is not None:
            assert now.voted_for == before.voted_for, (
                f"{server.id} (process {server.process}) has changed its vote in term "
                f"{now.current_term}: expected {before.voted_for}, found {now.voted_for}; its log "
                f"ends at index {log.last_index}"
            )
        self._positions[server.id] = now

    def _compare_stored(self, server: Server) -> None:
        now = server.durable.hard_state
        before = self._stored.get(server.id, HardState())
        self._stored[server.id] = now
        assert now.current_term >= before.current_term, (
            f"the disk of {server.id} has gone back in its term: expected at least "
            f"{before.current_term}, found {now.current_term}; it has "
            f"{len(server.durable.entries)} entries"
        )
        if now.current_term == before.current_term and before.voted_for is not None:
            assert now.voted_for == before.voted_for, (
                f"the disk of {server.id} has another vote in term {now.current_term}: expected "
                f"{before.voted_for}, found {now.voted_for}; it has "
                f"{len(server.durable.entries)} entries"
            )


def _look(server: Server) -> _Positions:
    raft = server.raft
    return _Positions(
        current_term=raft.current_term,
        voted_for=raft.voted_for,
        commit_index=raft.log.commit_index,
        handed_index=raft.log.handed_index,
        applied_index=server.state.applied_index,
    )
