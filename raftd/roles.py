"""What each role may ask for: the holders of certificates, told apart by what these say.

Everything that is not listed is refused, so that a new kind of request has to be decided on.
"""

from __future__ import annotations

from collections.abc import Mapping

from raftd.protocol import (
    AbortRequest,
    ActivityRequest,
    BackupChunkRequest,
    BackupRequest,
    BeginRollingRequest,
    BootstrapRequest,
    ChangeRequest,
    CheckupRequest,
    CompareAndSetRequest,
    DeleteRequest,
    ErrorReply,
    GetRequest,
    HistoryRequest,
    JoinRequest,
    ListRequest,
    LogLevelRequest,
    OpenSessionRequest,
    OperationsRequest,
    PutRequest,
    ReadIndexRequest,
    Request,
    RestoreRequest,
    StatusRequest,
    TransactionRequest,
    TransferRequest,
    UpdateRollingRequest,
    WatchRequest,
)
from raftd.tls import ADMIN, APPLICATION, SERVER, Holder

FORBIDDEN = "forbidden"
"""Code of the reply to a request, or of the refusal of a connection, that is not for a role."""

_DATA = frozenset(
    {
        GetRequest,
        ListRequest,
        OpenSessionRequest,
        PutRequest,
        DeleteRequest,
        CompareAndSetRequest,
        TransactionRequest,
        WatchRequest,
        ReadIndexRequest,
    }
)
_FINDING_THE_LEADER = frozenset({StatusRequest})
_WATCHING = frozenset({ActivityRequest})
_ADMINISTRATION = frozenset(
    {
        ChangeRequest,
        OperationsRequest,
        AbortRequest,
        TransferRequest,
        BootstrapRequest,
        JoinRequest,
        BackupRequest,
        BackupChunkRequest,
        RestoreRequest,
        HistoryRequest,
        BeginRollingRequest,
        UpdateRollingRequest,
        CheckupRequest,
        LogLevelRequest,
    }
)
ALLOWED: Mapping[str, frozenset[type[Request]]] = {
    # As clients servers ask each other who they are and what they do, and bring in blank ones.
    SERVER: frozenset({StatusRequest, ActivityRequest, JoinRequest}),
    ADMIN: _DATA | _FINDING_THE_LEADER | _WATCHING | _ADMINISTRATION,
    APPLICATION: _DATA | _FINDING_THE_LEADER,
}
"""The requests of the native protocol that the holder of a certificate may make, by its role."""
REDIS_ROLES = frozenset({ADMIN, APPLICATION})
"""Whose certificate takes the place of a password on the Redis listener."""


def refusal_of(holder: Holder, request: Request) -> ErrorReply:
    """Return the reply to a request that `holder` has no right to."""
    kind = type(request)
    able = [role for role, kinds in ALLOWED.items() if kind in kinds]
    needed = f"the role {' or '.join(able)}" if able else "a role that this release does not know"
    return ErrorReply(
        code=FORBIDDEN,
        message=f"{kind.__name__} is not for the role {holder.role}",
        cause=f"the certificate that was shown is that of {holder}, and this needs {needed}",
        hint="raftctl --cert FILE.pem --key FILE.key status",
    )
