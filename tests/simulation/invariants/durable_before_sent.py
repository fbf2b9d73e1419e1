"""Nothing leaves a server that its disk does not have."""

from __future__ import annotations

from collections.abc import Mapping

from raftd.core.messages import (
    AppendEntries,
    AppendEntriesResponse,
    Envelope,
    InstallSnapshot,
    InstallSnapshotResponse,
    PreVote,
    RequestVote,
    RequestVoteResponse,
    StateCheck,
    StateCheckResponse,
    StateVerdict,
    TimeoutNow,
)
from raftd.core.types import HardState, Index, ServerId, Term
from tests.simulation.invariants import Durable, Invariant, Server


class DurableBeforeSent(Invariant):
    """A message promises only what a crash right after it does not take back.

    | message | what has to be durable |
    |---|---|
    | PreVote | nothing: it asks what would be if |
    | StateCheck and its kin | nothing: they are no part of Raft |
    | every other one | its term |
    | RequestVoteResponse, granted | the vote for the addressee |
    | RequestVote, AppendEntries, InstallSnapshot, TimeoutNow | the vote for the sender itself |
    | AppendEntriesResponse, success | all up to `match_index`, as that term's leader sent it |
    | InstallSnapshotResponse with a `match_index` | the end of the snapshot, and it is that |

    The entries of an AppendEntries may be ahead of the leader's own disk (dissertation 10.2.1).

    A message of an older term than the durable one may leave with the batch that ended its term,
    where one write has the end of both terms. What it promises is then not compared: the vote of
    the new term has taken the place of the old one, and the entries of the new leader may have
    replaced those that are acknowledged. It does no harm, because the disk has the new term, so
    that the server never again votes or acknowledges in the old one; what it promised as a voter
    of the old term it keeps by never being asked. But a message of a term that had ended before
    the turn began must not leave any more.
    """

    title = "Durable before sent"
    source = (
        "Raft paper, Figure 2 (persistent state); dissertation 3.8 and 10.2.1; "
        "MonoTermInv in ccfraft.tla, FollowerFsyncBeforeReply in RaftFsync.tla"
    )

    def __init__(self, durable: Mapping[ServerId, Durable]) -> None:
        super().__init__(durable)
        self._term_at_turn: dict[ServerId, Term] = {}
        """The durable term when the server's last turn ended, or when it started."""
        self._sent_ends: dict[tuple[Term, Index], Term] = {}
        """Where the AppendEntries of each term ended: the term of their last entry there."""

    def started(self, server: Server) -> None:
        self._term_at_turn[server.id] = server.durable.hard_state.current_term

    def turned(self, server: Server) -> None:
        self._term_at_turn[server.id] = server.durable.hard_state.current_term

    def sent(self, server: Server, envelope: Envelope) -> None:
        message = envelope.message
        kind = type(message).__name__
        assert envelope.source == server.id, (
            f"a {kind} of term {message.term} leaves {server.id} under another name: expected "
            f"{server.id}, found {envelope.source}; its disk has "
            f"{len(server.durable.entries)} entries"
        )
        if isinstance(message, PreVote | StateCheck | StateCheckResponse | StateVerdict):
            return
        if isinstance(message, AppendEntries):
            self._note_end(server, message)
        term = message.term
        durable = server.durable.hard_state
        assert term <= durable.current_term, (
            f"{server.id} sends {kind} to {envelope.dest} before its term is durable: expected at "
            f"most term {durable.current_term}, found {term}; its disk has "
            f"{len(server.durable.entries)} entries"
        )
        if term < durable.current_term:
            assert term >= self._term_at_turn[server.id], (
                f"{server.id} sends {kind} to {envelope.dest} of a term that has ended before "
                f"this turn: expected at least term {self._term_at_turn[server.id]}, found "
                f"{term}; its disk has {len(server.durable.entries)} entries"
            )
            return
        if isinstance(message, RequestVoteResponse):
            if message.vote_granted:
                self._voted_for(server, kind, term, envelope.dest)
        elif isinstance(message, RequestVote | AppendEntries | InstallSnapshot | TimeoutNow):
            self._voted_for(server, kind, term, server.id)
        elif isinstance(message, AppendEntriesResponse) and message.success:
            self._stored(server, envelope.dest, message)
        elif isinstance(message, InstallSnapshotResponse) and message.match_index:
            self._installed(server, message)

    @staticmethod
    def _installed(server: Server, message: InstallSnapshotResponse) -> None:
        index, term = message.snapshot.last_included_index, message.snapshot.last_included_term
        assert message.match_index == index, (
            f"{server.id} acknowledges index {message.match_index} in term {message.term} for a "
            f"snapshot: expected nothing, or its last index {index}"
        )
        entries = server.durable.entries
        found = entries[index - 1].term if index <= len(entries) else None
        assert found == term, (
            f"{server.id} acknowledges a snapshot up to index {index} in term {message.term} "
            f"before it is durable: expected an entry of term {term} on its disk, found "
            f"{'none' if found is None else f'one of term {found}'}"
        )

    def _note_end(self, server: Server, message: AppendEntries) -> None:
        index, term = message.prev_log_index, message.prev_log_term
        if message.entries:
            index, term = message.entries[-1].index, message.entries[-1].term
        known = self._sent_ends.setdefault((message.term, index), term)
        assert known == term, (
            f"{server.id}, leader of term {message.term}, sends another entry {index} than "
            f"before: expected one of term {known}, found one of term {term}"
        )

    @staticmethod
    def _voted_for(server: Server, kind: str, term: Term, chosen: ServerId) -> None:
        found = server.durable.hard_state
        assert found == HardState(term, chosen), (
            f"{server.id} sends {kind} of term {term} before its vote is durable: expected a vote "
            f"for {chosen}, found one for {found.voted_for or 'nobody'}; its disk has "
            f"{len(server.durable.entries)} entries"
        )

    def _stored(self, server: Server, leader: ServerId, message: AppendEntriesResponse) -> None:
        index = message.match_index
        if not index:
            return
        expected = self._sent_ends.get((message.term, index))
        assert expected is not None, (
            f"{server.id} acknowledges index {index} in term {message.term} to {leader}: expected "
            f"an index that an AppendEntries of that term has ended with, found none such"
        )
        entries = server.durable.entries
        found = entries[index - 1].term if index <= len(entries) else None
        assert found == expected, (
            f"{server.id} acknowledges index {index} in term {message.term} to {leader} before it "
            f"is durable: expected an entry of term {expected} on its disk, found "
            f"{'none' if found is None else f'one of term {found}'}; its disk has {len(entries)} "
            "entries"
        )
