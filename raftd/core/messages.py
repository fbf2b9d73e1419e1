"""What servers say to each other: the RPCs of Figure 2, as values.

Requests and responses are separate one-way messages; a response is matched by its fields, never by
the connection that it came on. Fields have the paper's names. What goes beyond the paper:

| field | why |
|---|---|
| `AppendEntries.round` | which read round and contact an answer confirms (dissertation 6.4) |
| `AppendEntriesResponse.match_index` | from the request, so that no answer depends on memory |
| `conflict_term`, `conflict_index`, `last_log_index` | any divergence is found in few rounds |
| `AppendEntriesResponse.commit_index` | the leader knows when a departing server knows |
| `RequestVote.leadership_transfer` | the one vote request that stickiness lets through (4.2.3) |
| `InstallSnapshot.round` | an empty one is the heartbeat of a server that gets a snapshot |
| `InstallSnapshotResponse.received_bytes` | flow control, and where to go on after a broken link |
| `AppendEntriesResponse.vote_withheld_ms` | what a leader may build a lease on (6.4.1) |
| `ReadIndex`, `ReadIndexResponse` | a server that does not lead answers a read itself (6.4) |

`StateCheck` and what belongs to it are no part of Raft: servers compare what they have made of the
same entries. The core never sees them.
"""

from __future__ import annotations

from typing import TypeAlias

import attrs

from raftd.core.snapshot import SnapshotId
from raftd.core.types import Entry, Index, ServerId, Term


@attrs.frozen
class PreVote:
    """Would you vote for me? Changes nothing at the receiver. Source: dissertation 9.6."""

    term: Term
    """The term that the sender would campaign in; the receiver does not adopt it."""
    last_log_index: Index
    last_log_term: Term


@attrs.frozen
class PreVoteResponse:
    """The answer to a `PreVote`."""

    term: Term
    """The responder's current term. A refused pre-candidate adopts it when it is higher."""
    request_term: Term
    """The term of the request that this answers."""
    vote_granted: bool


@attrs.frozen
class RequestVote:
    """Vote for me. Source: paper section 5.2, Figure 2."""

    term: Term
    last_log_index: Index
    last_log_term: Term
    leadership_transfer: bool = False
    """The leader itself asked the sender to campaign, so its stickiness does not apply."""


@attrs.frozen
class RequestVoteResponse:
    """The answer to a `RequestVote`."""

    term: Term
    vote_granted: bool
    request_term: Term = 0
    """The term of the request that this answers; 0 from a release that does not say it."""


@attrs.frozen
class AppendEntries:
    """Replicate entries; without entries a heartbeat. Source: paper section 5.3, Figure 2."""

    term: Term
    prev_log_index: Index
    prev_log_term: Term
    entries: tuple[Entry, ...]
    leader_commit: Index
    round: int
    """Grows within a term; an answer to this round confirms leadership at its start and later."""


@attrs.frozen
class AppendEntriesResponse:
    """The answer to an `AppendEntries`, sent once what it acknowledges is durable."""

    term: Term
    success: bool
    round: int
    """Of the request; 0 if that was of an older term, so that the answer confirms nothing."""
    match_index: Index
    """On success the request's `prev_log_index` plus its entries; on refusal its
    `prev_log_index`."""
    commit_index: Index
    """The responder's commit index."""
    conflict_term: Term = 0
    """On refusal: the term of the responder's entry at `prev_log_index`, 0 if it has none."""
    conflict_index: Index = 0
    """On refusal: the responder's first index of `conflict_term`, or just after its last entry."""
    last_log_index: Index = 0
    """On refusal: the responder's last index."""
    short_of_space: bool = False
    """The responder's disk is nearly full: it should not be given more than it must have."""
    vote_withheld_ms: int = 0
    """For so long from the request on, by its own clock, the responder votes for nobody but whom
    the leader itself hands over to, also if it restarts; 0 if it promises nothing."""


@attrs.frozen
class TimeoutNow:
    """Campaign at once: the leader hands over. Source: dissertation 3.10."""

    term: Term


@attrs.frozen
class InstallSnapshot:
    """A part of a snapshot; without bytes a heartbeat. Source: paper section 7, Figure 13."""

    term: Term
    snapshot: SnapshotId
    offset: int
    """Where in the snapshot `data` stands, in bytes."""
    data: bytes
    round: int
    """As in `AppendEntries`."""


@attrs.frozen
class InstallSnapshotResponse:
    """The answer to an `InstallSnapshot`. Nothing is durable for it but what `match_index` says."""

    term: Term
    snapshot: SnapshotId
    """Of the request."""
    round: int
    """Of the latest request; 0 if that was of an older term."""
    received_bytes: int
    """How much of the snapshot the responder has, from its beginning."""
    installed_bytes: int
    """How much of it the responder has worked into a state so far; before that, how far it has come
    with checking what an earlier process of it had received."""
    match_index: Index
    """`last_included_index` once the snapshot is durable and in force, or needed no more; else
    0."""
    commit_index: Index
    """The responder's commit index."""
    last_log_index: Index | None = None
    """The responder's last index; a server whose disk went back in time is known by it."""


@attrs.frozen
class StateCheck:
    """What has your state machine made of the entries up to `index`? From a leader to members."""

    term: Term
    index: Index
    state_hash: int
    """The leader's own, after the entry at `index`."""


@attrs.frozen
class StateCheckResponse:
    """The answer to a `StateCheck`, once the entry at `index` is applied."""

    term: Term
    index: Index
    state_hash: int


@attrs.frozen
class StateVerdict:
    """A leader's finding after a `StateCheck`: the servers have not made the same of the log."""

    term: Term
    index: Index
    state_hash: int
    """Of the majority; 0 if there is none."""
    agreeing: tuple[ServerId, ...]
    """The majority that has `state_hash`; empty if there is none."""
    differing: tuple[ServerId, ...]
    """Who has another one; everybody who answered, if there is no majority."""


@attrs.frozen
class ReadIndex:
    """How far has a state to be that shows all that is committed by now? To the sender's leader.

    Source: dissertation 6.4, last paragraph.
    """

    term: Term
    id: int
    """Grows with each one that a process sends; another process of the sender begins elsewhere."""


@attrs.frozen
class ReadIndexResponse:
    """The answer to a `ReadIndex`: a leader that led after it had arrived says how far."""

    term: Term
    id: int
    """Of the request."""
    index: Index | None
    """None: the request was of an older term, ask the leader of this one."""


Message: TypeAlias = (
    PreVote
    | PreVoteResponse
    | RequestVote
    | RequestVoteResponse
    | AppendEntries
    | AppendEntriesResponse
    | TimeoutNow
    | InstallSnapshot
    | InstallSnapshotResponse
    | ReadIndex
    | ReadIndexResponse
)

StateMessage: TypeAlias = StateCheck | StateCheckResponse | StateVerdict


@attrs.frozen
class Envelope:
    """A message with its sender and its addressee."""

    source: ServerId
    dest: ServerId
    message: Message | StateMessage


def answer_to_stale(message: Message, term: Term, commit_index: Index) -> Message | None:
    """Return what tells a server of an older term the current one (Figure 2, receiver step 1).

    Args:
        message: the request of the older term; to anything but a request there is no answer.
        term: the current one.
        commit_index: of the server that answers.
    """
    match message:
        case AppendEntries():
            return AppendEntriesResponse(
                term=term,
                success=False,
                # Rounds are counted within a term: with its number, this answer to an older
                # one would confirm reads and positions of the sender's new leadership.
                round=0,
                match_index=message.prev_log_index,
                commit_index=commit_index,
            )
        case RequestVote():
            return RequestVoteResponse(term, vote_granted=False, request_term=message.term)
        case InstallSnapshot():
            return InstallSnapshotResponse(
                term=term,
                snapshot=message.snapshot,
                # As above.
                round=0,
                received_bytes=0,
                installed_bytes=0,
                match_index=0,
                commit_index=commit_index,
            )
        case ReadIndex():
            return ReadIndexResponse(term, message.id, None)
        case _:
            return None
