"""What requests and replies mean: who may be asked, what may be sent twice, who could not serve."""

from __future__ import annotations

from typing import Protocol

import attrs

from raftd.core.types import ServerId, server_name
from raftd.protocol import (
    LIVES_VERSION,
    REVISION_GONE,
    BootstrapRequest,
    ChangeRequest,
    CompareAndSetRequest,
    DeleteRequest,
    ErrorReply,
    GetRequest,
    HistoryRequest,
    JoinRequest,
    ListRequest,
    OpenSessionRequest,
    OperationsRequest,
    PutRequest,
    ReadIndexRequest,
    Reply,
    Request,
    StatusReply,
    StatusRequest,
    TransactionRequest,
    TransferRequest,
    WatchReply,
    WatchRequest,
)

SILENT = ("refused", "unreachable", "unresolved", "timed-out", "not-raftd", "certificate", "lost")
"""Kinds of failure of a server that did not answer at all."""
ANSWERED = ("follower", "unavailable", "unknown-outcome", "blank")
"""Kinds of failure of a server that answered, but could not serve."""
_WRITES = (PutRequest, DeleteRequest, CompareAndSetRequest, TransactionRequest)
"""Of keys: what the state machine does once for each session and serial."""
_READS = (
    StatusRequest,
    GetRequest,
    ListRequest,
    OperationsRequest,
    HistoryRequest,
    ReadIndexRequest,
    WatchRequest,
    OpenSessionRequest,
)
_VERSION_MIN: dict[type, int] = {
    TransactionRequest: LIVES_VERSION,
    WatchRequest: LIVES_VERSION,
}
"""Of the wire format, for requests that older servers do not know."""


@attrs.frozen(kw_only=True, repr=False, eq=False)
class Failure:
    """How one server failed to serve a request."""

    reason: str
    """In words, without the server's name."""
    kind: str
    """That of `ConnectionProblem`, or follower, unavailable, unknown-outcome or revision-gone."""
    leader: str = ""
    """Whom a follower follows: a name, or empty if it knows no leader."""
    leader_address: str = ""
    reply: ErrorReply | None = None
    """What it has answered, where that is the answer if no other server has a better one."""


class Judge(Protocol):
    """Says why the server that gave a reply could not serve; None if the reply is what counts."""

    def __call__(self, reply: Reply) -> Failure | None: ...


def judge_leader(reply: Reply) -> Failure | None:
    """Return why this server could not serve, or None if `reply` is what the cluster says."""
    if not isinstance(reply, ErrorReply):
        return None
    if reply.code == "not-leader":
        return _follower(reply.leader, reply.leader_address)
    if reply.code in ("unavailable", "unknown-outcome"):
        reason = f"{reply.message} ({reply.cause})" if reply.cause else reply.message
        return Failure(reason=reason, kind=reply.code)
    return None


def judge_status(reply: Reply) -> Failure | None:
    """Return why the server of this status is not the leader that we look for."""
    if not isinstance(reply, StatusReply):
        return judge_leader(reply)
    if reply.role == "leader":
        if reply.leadership_confirmed:
            return None
        return Failure(reason="leader, but no quorum answers it", kind="unavailable")
    if reply.role == "blank":
        return Failure(reason="blank: it belongs to no cluster yet", kind="blank")
    if reply.role == "removed":
        return Failure(reason="removed from the cluster", kind="unavailable")
    return _follower(reply.leader, reply.leader_address, role=reply.role)


def judge_watch(reply: Reply) -> Failure | None:
    """Return why another server may know more of changes than the one that gave `reply`."""
    if isinstance(reply, WatchReply) and not reply.events and not reply.leader:
        return Failure(reason="knows no leader, and so of no changes", kind="unavailable")
    if isinstance(reply, ErrorReply) and reply.code == REVISION_GONE:
        # Each keeps the changes since its own start at most.
        return Failure(reason=reply.message, kind=REVISION_GONE, reply=reply)
    return judge_leader(reply)


def _follower(leader: ServerId, leader_address: str, role: str = "follower") -> Failure:
    name = server_name(leader)
    reason = f"{role} of {name}" if name else f"{role}, knows no leader"
    return Failure(reason=reason, kind="follower", leader=name, leader_address=leader_address)


def only_reads(request: Request) -> bool:
    """Return whether `request` changes nothing that anybody could miss."""
    if isinstance(request, ChangeRequest):
        return request.dry_run
    return isinstance(request, _READS)


def may_be_repeated(request: Request) -> bool:
    """Return whether the same `request`, sent twice, does nothing twice."""
    return not isinstance(request, TransferRequest | BootstrapRequest | JoinRequest)


def says_nothing_of_before(request: Request, refusal: ErrorReply) -> bool:
    """Return whether `request`, refused now, may still have been done when it was sent before.

    A refusal speaks of the cluster as it is now. What is wrong with a write in itself is wrong at
    any time, or is the answer that the cluster has kept for it.
    """
    if isinstance(request, ChangeRequest):
        return refusal.code in ("refused", "unsafe")
    return isinstance(request, _WRITES) and refusal.code != "invalid"


def answered_by_blank_servers(request: Request) -> bool:
    """Return whether a server that belongs to no cluster has an answer to `request`."""
    return isinstance(request, StatusRequest | BootstrapRequest | JoinRequest)


def version_min(request: Request) -> int:
    """Return the version of the wire format from which on servers know `request`."""
    return _VERSION_MIN.get(type(request), 1)
