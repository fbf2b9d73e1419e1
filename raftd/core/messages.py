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
"""

from __future__ import annotations

from typing import TypeAlias

import attrs

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


@attrs.frozen
class TimeoutNow:
    """Campaign at once: the leader hands over. Source: dissertation 3.10."""

    term: Term


Message: TypeAlias = (
    PreVote
    | PreVoteResponse
    | RequestVote
    | RequestVoteResponse
    | AppendEntries
    | AppendEntriesResponse
    | TimeoutNow
)


@attrs.frozen
class Envelope:
    """A message with its sender and its addressee."""

    source: ServerId
    dest: ServerId
    message: Message
