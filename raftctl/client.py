"""The cluster as commands see it: `raftd.client`, whose errors become those of raftctl."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping
from typing import TypeVar

from raftctl.endpoints import Endpoints
from raftctl.endpoints import playground_file as playground_file
from raftctl.endpoints import resolve_endpoints as resolve_endpoints
from raftctl.endpoints import running_playground as running_playground
from raftctl.errors import (
    CliError,
    Interrupted,
    OutcomeUnknown,
    Refused,
    Unreachable,
    Unsafe,
    bare_command,
    dialling,
)
from raftd.client import errors
from raftd.client.blocking import Cluster as BlockingCluster
from raftd.client.blocking import Connection as Connection
from raftd.client.calls import CONNECT_TIMEOUT_MS as CONNECT_TIMEOUT_MS
from raftd.client.calls import RETRY_MS_MAX as RETRY_MS_MAX
from raftd.client.calls import RETRY_MS_MIN as RETRY_MS_MIN
from raftd.client.calls import Steps
from raftd.client.deadlines import Deadline as Deadline
from raftd.client.errors import ConnectionProblem as ConnectionProblem
from raftd.core.types import ServerId
from raftd.protocol import (
    BootstrapRequest,
    ChangeRequest,
    ErrorReply,
    JoinRequest,
    OpenSessionRequest,
    Reply,
    Request,
    TransferRequest,
)

ReplyType = TypeVar("ReplyType")
Value = TypeVar("Value")


class Cluster(BlockingCluster):
    """The cluster behind some addresses, see `raftd.client.blocking`; raises `CliError`.

    Args:
        endpoints: where to dial first, and under which names.
        timeout_ms: the time for a whole call unless the call has its own; 0 means for ever.
        command: makes a command for hints out of its words, as `Context.command` does.
        notice: told, once in a call, what is being waited for.
    """

    def __init__(
        self,
        endpoints: Endpoints,
        *,
        timeout_ms: float,
        command: Callable[[str], str] = bare_command,
        notice: Callable[[str], None] = lambda text: None,
    ) -> None:
        config = endpoints.config
        super().__init__(
            endpoints.addresses,
            timeout_ms=timeout_ms,
            names=endpoints.names,
            cluster_name=config.cluster if config is not None else "",
            tls=endpoints.tls,
            notice=notice,
        )
        self.endpoints = endpoints
        self.command = command

    @property
    def cluster_id(self) -> str:
        """Of the first member that answered; servers of other clusters are not asked."""
        return self.members.cluster_id

    @cluster_id.setter
    def cluster_id(self, cluster_id: str) -> None:
        self.members.cluster_id = cluster_id

    @property
    def addresses(self) -> tuple[str, ...]:
        """Every address that may be dialled: those it started with, then the learned ones."""
        return self.members.addresses

    @property
    def names(self) -> Mapping[str, str]:
        """The name of the server at each address, where it is known."""
        return self.members.names

    def label(self, address: str) -> str:
        """Return name and address of a server, or the address alone."""
        return self.members.label(address)

    def leader_first(self) -> list[str]:
        """Return all addresses in the order in which it makes sense to ask for the leader."""
        return self.members.leader_first()

    def remember_leader(self, address: str) -> None:
        """Ask the server at `address` first from now on; empty forgets the leader."""
        self.members.remember_leader(address)

    def learn(self, server: ServerId, address: str) -> None:
        """Remember that `server` can be dialled at `address`, HOST:PORT."""
        self.members.learn(server, address)

    def perform(self, steps: Steps[Value]) -> Value:
        """Take `steps` one after the other and return what they come to.

        Raises:
            Unreachable: no leader in time, and nothing that changes anything was sent.
            OutcomeUnknown: it was sent, and no answer came in time.
            Refused, Unsafe: the cluster said no; nothing was changed.
        """
        try:
            return super().perform(steps)
        except errors.ClientError as error:
            raise cli_error(error, self.command) from None
        except errors.WriteInterrupted:
            raise Interrupted(
                "interrupted; it may or may not have taken effect", code="unknown-outcome"
            ) from None


def cli_error(error: errors.ClientError, command: Callable[[str], str]) -> CliError:
    """Return the error that ends a command for which the client raised `error`.

    Args:
        error: of the client.
        command: makes a command that dials the same servers out of its words.
    """
    kind: type[CliError] = CliError
    hint = dialling(error.hint, command)
    if isinstance(error, errors.ServerTooOld):
        hint = f"upgrade every member: `{command('status -o wide')}` shows the releases"
    elif isinstance(error, errors.Unavailable):
        kind = Unreachable
        if isinstance(error, errors.NoCluster):
            hint = command("init")
        elif isinstance(error, errors.CertificateRefused):
            hint = "raftctl --cacert CA.pem --cert FILE.pem --key FILE.key status"
        elif not hint:
            hint = f"`{command('status')}` shows each server's own view"
    elif isinstance(error, errors.Refused):
        kind = Unsafe if isinstance(error, errors.Unsafe) else Refused
    elif isinstance(error, errors.OutcomeUnknown):
        kind = OutcomeUnknown
        if error.refused_later:
            hint = _look(error.request, command)
        elif not hint:
            hint = f"look first, and repeat it if need be:\n{_look(error.request, command)}"
    elif isinstance(error, errors.UnexpectedReply):
        hint = command("status")
    return kind(
        error.message, cause=error.cause, hint=hint, code=error.code, operation=error.operation
    )


def _look(request: Request | None, command: Callable[[str], str]) -> str:
    """Return the command that shows whether `request` took effect."""
    if isinstance(request, ChangeRequest):
        return command("operation list")
    if isinstance(request, TransferRequest | BootstrapRequest | JoinRequest | OpenSessionRequest):
        return command("status")
    key = getattr(request, "key", "")
    return command(f"get {key}" if key else "operation list")


def error_of(reply: ErrorReply) -> CliError:
    """Return the error that ends a command which was answered with `reply`."""
    return cli_error(errors.error_of(reply), bare_command)


def expect(reply: Reply, kind: type[ReplyType]) -> ReplyType:
    """Return `reply`, which has to be a `kind`.

    Raises:
        CliError: it is another one: the server is of a release that this one does not understand.
    """
    if isinstance(reply, ErrorReply) and kind is not ErrorReply:
        raise error_of(reply)
    if not isinstance(reply, kind):
        raise CliError(
            f"the server answered with a {type(reply).__name__} instead of a {kind.__name__}",
            code="protocol",
            cause="raftctl and raftd are of releases that do not understand each other",
            hint="compare `raftctl --version` with the versions in `raftctl status`",
        )
    return reply


def author() -> str:
    """Return who acts, for operation records: USER@HOST."""
    user = os.environ.get("SUDO_USER") or os.environ.get("USER") or os.environ.get("LOGNAME")
    if not user:
        import pwd

        try:
            user = pwd.getpwuid(os.getuid()).pw_name
        except KeyError:
            user = f"uid-{os.getuid()}"
    return f"{user}@{socket.gethostname()}"
