"""What a call that did not succeed says: certainly not done, or nobody knows.

There is no third kind. A condition that did not hold is an answer of the cluster and no error: the
result has `applied` False.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from raftd.protocol import REVISION_GONE, ErrorReply, Reply, Request


class ConnectionProblem(Exception):
    """One server could not be asked, or did not answer. `str()` says how, in a few words.

    `kind` is refused, unreachable, unresolved, timed-out, expired (not even tried), not-raftd,
    refusal, certificate, lost, blank, too-old or other-cluster.
    """

    def __init__(self, address: str, kind: str, reason: str, *, sent: bool = False) -> None:
        super().__init__(reason)
        self.address = address
        self.kind = kind
        self.sent = sent
        """Whether the request may have reached the server."""


class ClientError(Exception):
    """A call did not succeed. `str()` has message and cause.

    Args:
        message: what happened, without a full stop.
        cause: why, with the numbers and the servers.
        hint: what to do next, in words of the server that refused.
        code: a short word for programs; each class has its own.
        operation: the id of the membership operation that is concerned, if there is one.
    """

    code: str = "failed"

    def __init__(
        self, message: str, *, cause: str = "", hint: str = "", code: str = "", operation: str = ""
    ) -> None:
        super().__init__(message)
        self.message = message
        self.cause = cause
        self.hint = hint
        self.code = code or type(self).code
        self.operation = operation

    def __str__(self) -> str:
        return f"{self.message}: {self.cause}" if self.cause else self.message


class NotApplied(ClientError):
    """It was certainly not done, and will not be done later: nothing of it is on its way."""


class Unavailable(NotApplied):
    """Nobody could serve it in time, and no server has put it into its log."""

    code = "unavailable"


class Unreachable(Unavailable):
    """No server answered in time."""

    code = "unreachable"


class NoLeader(Unavailable):
    """Servers answered, but none could serve it in time: there was no leader, or it was busy."""

    code = "no-leader"


class NoCluster(Unavailable):
    """Every server is blank: nobody has formed a cluster of them yet."""

    code = "blank"


class CertificateRefused(Unreachable):
    """No server takes our certificate, or none shows one that we believe: asking again is no help.

    Servers that speak TLS are no less foreign to who shows no certificate.
    """

    code = "certificate"


class ServerTooOld(Unavailable):
    """The servers are of a release that does not know this request."""

    code = "too-old"


class ClientClosed(Unavailable):
    """The client was closed before it was sent."""

    code = "closed"


class Busy(Unavailable):
    """This client had too many requests under way for as long as the call might take."""

    code = "busy"


class Refused(NotApplied):
    """The cluster will not do it; `code` says why, for example disk-full."""

    code = "refused"


class Unsafe(Refused):
    """Valid in itself, but a quorum would be lost with the servers that are reachable."""

    code = "unsafe"


class Forbidden(Refused):
    """Who asks is not allowed to."""

    code = "forbidden"


class InvalidRequest(Refused):
    """It can never be done as it was asked: too long a value, a counter that is no number."""

    code = "invalid"


class RevisionGone(Refused):
    """The changes that were to be watched are not kept any more, by no server that answers.

    Read the keys as they are, and watch from the revision of that.
    """

    code = REVISION_GONE
    oldest_revision = 0
    """Of the oldest change that the server has that said so last."""


class UnexpectedReply(NotApplied):
    """A server answered a question with something else: its release does not fit this one."""

    code = "protocol"


class OutcomeUnknown(ClientError):
    """It was sent and may be done, now or later; no answer came in time.

    A write can still be settled: `settle` of the client that raised this sends it again under the
    same session and serial, which the cluster does once, however often it comes.
    """

    code = "unknown-outcome"

    def __init__(
        self,
        message: str,
        *,
        request: Request | None,
        cause: str = "",
        hint: str = "",
        code: str = "",
        operation: str = "",
        refused_later: bool = False,
    ) -> None:
        super().__init__(message, cause=cause, hint=hint, code=code, operation=operation)
        self.request = request
        """What was sent."""
        self.refused_later = refused_later
        """Whether it was sent again and then refused, which says nothing about the first time."""
        self.is_settled = False
        """Whether the outcome is known by now, see `settled_with`."""
        self.settled_with: Any = None
        """What the call has come to: what it returns, or the `NotApplied` that it raises."""
        self.interpret: Callable[[Reply], Any] | None = None
        """Makes of the cluster's answer what the call returns; None for what cannot be settled."""
        self.release: Callable[[], None] = lambda: None
        """Tells the session that nobody will ask for this write again."""

    @property
    def session(self) -> str:
        """The session of the write; empty for what has none."""
        session: str = getattr(self.request, "session", "")
        return session

    @property
    def serial(self) -> int:
        """The number of the write in its session; 0 for what has none."""
        serial: int = getattr(self.request, "serial", 0)
        return serial


class SessionExpired(OutcomeUnknown):
    """The cluster has forgotten the session of a write whose outcome was open: nobody can tell.

    It happens to a client that was silent while ten thousand others wrote. Read the key to see.
    """

    code = "session-expired"


class WriteInterrupted(KeyboardInterrupt):
    """Ctrl-C during a write that had been sent: it may or may not have taken effect."""


def error_of(reply: ErrorReply, request: Request | None = None) -> ClientError:
    """Return the error for a request that was answered with `reply`, and never before.

    Args:
        reply: of a server.
        request: that was sent.
    """
    kind: type[NotApplied]
    match reply.code:
        case "unknown-outcome":
            return unknown_of(reply, request)
        case "not-leader" | "unavailable":
            kind = NoLeader
        case "unsafe":
            kind = Unsafe
        case "forbidden":
            kind = Forbidden
        case "invalid":
            kind = InvalidRequest
        case "revision-gone":
            kind = RevisionGone
        case _:
            kind = Refused
    error = kind(
        reply.message,
        cause=reply.cause,
        hint=reply.hint,
        code=reply.code,
        operation=reply.operation,
    )
    if isinstance(error, RevisionGone):
        error.oldest_revision = reply.oldest_revision
    return error


def unknown_of(reply: ErrorReply, request: Request | None) -> OutcomeUnknown:
    """Return the error for a request that may be done although the answer was `reply`."""
    kind = SessionExpired if reply.code == "session-expired" else OutcomeUnknown
    return kind(
        reply.message,
        request=request,
        cause=reply.cause,
        hint=reply.hint,
        code=reply.code,
        operation=reply.operation,
    )
