"""The blocking client: one connection, and the cluster behind a handful of addresses.

Plain sockets, one request at a time: that is all a command needs, and it starts in milliseconds.

What a lost answer means decides everything here. A request that changes something carries a
session and a serial, so it may be sent again, to any server, as often as needed: the cluster does
it once (dissertation section 6.3). When time runs out before an answer came, the outcome is
unknown, and the command says so instead of guessing.
"""

from __future__ import annotations

import os
import socket
import time
from collections import deque
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Protocol, TypeVar, cast

import attrs

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
    dialling,
)
from raftd.codec import (
    FrameDecoder,
    WireError,
    decode_opening,
    decode_reply,
    encode_frame,
    encode_opening,
    encode_request,
)
from raftd.config_values import format_duration, parse_address
from raftd.core.types import ServerId, server_name
from raftd.protocol import (
    BootstrapRequest,
    ChangeRequest,
    ConfigurationView,
    ErrorReply,
    GetRequest,
    Hello,
    HistoryRequest,
    JoinRequest,
    ListRequest,
    OpenSessionRequest,
    OperationsReply,
    OperationsRequest,
    ReadIndexRequest,
    Refusal,
    Reply,
    Request,
    StatusReply,
    StatusRequest,
    TransferRequest,
)

CONNECT_TIMEOUT_MS = 2_000.0
"""To connect and be welcomed. A machine that is gone must not use up the time of the others."""
REPLY_TIMEOUT_MS = 5_000.0
"""For one answer. Longer than any election; a server that is stopped is then left for the next."""
RETRY_MS_MIN = 10.0
"""The first pause between two rounds over all servers; it doubles."""
RETRY_MS_MAX = 100.0
"""The longest pause: half of it is lost by a command that waits for a leader, which takes between a
few milliseconds and some election timeouts; and a round costs each server little."""
NOTICE_MS = 2_000.0
"""Silence after which a person is told what is being waited for."""
RECEIVE_BYTES = 64 * 1024
"""Asked of the socket at once."""
LEARNED_ADDRESSES_MAX = 1_000
"""Far more than a cluster has; a server that talks nonsense cannot fill our memory."""

ReplyType = TypeVar("ReplyType")


class Deadline:
    """A moment on the monotonic clock, or never."""

    def __init__(self, at_s: float | None) -> None:
        self._at_s = at_s

    @classmethod
    def after_ms(cls, timeout_ms: float) -> Deadline:
        """Return the moment in `timeout_ms` milliseconds; 0 means never."""
        return cls(time.monotonic() + timeout_ms / 1000 if timeout_ms else None)

    def or_after_ms(self, timeout_ms: float) -> Deadline:
        """Return this moment or the one in `timeout_ms` milliseconds, whichever comes first."""
        other_s = time.monotonic() + timeout_ms / 1000
        return Deadline(other_s if self._at_s is None else min(self._at_s, other_s))

    @property
    def expired(self) -> bool:
        """Whether it has passed."""
        return self._at_s is not None and time.monotonic() >= self._at_s

    def remaining_s(self) -> float | None:
        """Return the seconds until then, at least 0; None means without end."""
        return None if self._at_s is None else max(0.0, self._at_s - time.monotonic())


class ConnectionProblem(Exception):
    """One server could not be asked, or did not answer. `str()` says how, in a few words.

    `kind` is refused, unreachable, unresolved, timed-out, expired (not even tried), not-raftd,
    refusal, lost, blank or other-cluster.
    """

    def __init__(self, address: str, kind: str, reason: str, *, sent: bool = False) -> None:
        super().__init__(reason)
        self.address = address
        self.kind = kind
        self.sent = sent
        """Whether the request may have reached the server."""


# --- one connection ---------------------------------------------------------------------------


class Connection:
    """A connection to one server, past the greeting. Not for two threads at once."""

    def __init__(self, address: str, stream: socket.socket) -> None:
        self.address = address
        self.server: ServerId = ""
        """Who answered, as `name/incarnation`."""
        self.cluster_id = ""
        """Empty while the server is blank."""
        self.cluster_name = ""
        self._stream = stream
        self._decoder = FrameDecoder()
        self._payloads: deque[bytes] = deque()
        self._number = 0

    @classmethod
    def open(cls, address: str, deadline: Deadline) -> Connection:
        """Dial `address`, HOST:PORT, and return the connection once the server has welcomed us.

        Raises:
            ConnectionProblem: nobody is there, it is no raftd, it refuses us, or `deadline` passed.
        """
        started_s = time.monotonic()
        connection = cls(address, _dial(address, deadline))
        try:
            connection._greet(deadline)
        except TimeoutError:
            connection.close()
            raise ConnectionProblem(
                address, "timed-out", f"connected, but no answer {_within(started_s)}"
            ) from None
        except BaseException:
            connection.close()
            raise
        return connection

    def _greet(self, deadline: Deadline) -> None:
        hello = Hello(role="client", cluster_id="", source="", dest="")
        try:
            self._send(encode_opening(hello), deadline)
            welcome = decode_opening(self._receive(deadline))
        except WireError as error:
            raise ConnectionProblem(
                self.address, "not-raftd", f"something else than raftd listens there ({error})"
            ) from None
        except (EOFError, ConnectionError):
            raise ConnectionProblem(
                self.address, "not-raftd", "it closed the connection without a greeting"
            ) from None
        if isinstance(welcome, Refusal):
            raise ConnectionProblem(
                self.address, "refusal", f"it refused the connection: {welcome.message}"
            )
        if isinstance(welcome, Hello):
            raise ConnectionProblem(self.address, "not-raftd", "it greets like a client")
        self.server = welcome.server
        self.cluster_id = welcome.cluster_id
        self.cluster_name = welcome.cluster_name

    def ask(self, request: Request, deadline: Deadline) -> Reply:
        """Send `request` and return its reply. After an error the connection is closed.

        Raises:
            ConnectionProblem: no reply came before `deadline`, or none that can be read. `sent`
                says whether the request may have been received.
        """
        started_s = time.monotonic()
        self._number += 1
        try:
            self._send(encode_request(self._number, request), deadline)
            number, reply = decode_reply(self._receive(deadline))
            if number != self._number:
                raise WireError(f"a reply to request {number} instead of {self._number}")
        except BaseException as error:
            self.close()
            if isinstance(error, TimeoutError):
                kind, reason = "timed-out", f"no answer {_within(started_s)}"
            elif isinstance(error, WireError):
                kind, reason = "not-raftd", f"an answer that cannot be read ({error})"
            elif isinstance(error, EOFError | OSError):
                kind, reason = "lost", "the connection was lost before the answer"
            else:
                raise
            raise ConnectionProblem(self.address, kind, reason, sent=True) from None
        return reply

    def close(self) -> None:
        """Close the connection; closing it again does nothing."""
        self._stream.close()

    def _send(self, payload: bytes, deadline: Deadline) -> None:
        self._wait_at_most(deadline)
        self._stream.sendall(encode_frame(payload))

    def _receive(self, deadline: Deadline) -> bytes:
        while not self._payloads:
            self._wait_at_most(deadline)
            received = self._stream.recv(RECEIVE_BYTES)
            if not received:
                raise EOFError
            self._payloads += self._decoder.feed(received)
        return self._payloads.popleft()

    def _wait_at_most(self, deadline: Deadline) -> None:
        if deadline.expired:
            raise TimeoutError
        self._stream.settimeout(deadline.remaining_s())


def _dial(address: str, deadline: Deadline) -> socket.socket:
    """Return a connected socket, or raise `ConnectionProblem`."""
    started_s = time.monotonic()
    host, port = parse_address(address)
    if deadline.expired:
        raise ConnectionProblem(address, "expired", "not asked in time")
    # As text it would go through the encoding of international names, which is slow to load. The
    # resolver takes bytes as well; only the annotations of the standard library lack them.
    name = cast("str", host.encode()) if host.isascii() else host
    try:
        stream = socket.create_connection((name, port), timeout=deadline.remaining_s())
    except TimeoutError:
        raise ConnectionProblem(
            address, "timed-out", f"no connection {_within(started_s)}"
        ) from None
    except ConnectionRefusedError:
        raise ConnectionProblem(address, "refused", "connection refused") from None
    except socket.gaierror as error:
        reason = f"the host name {host} cannot be resolved ({error.strerror})"
        raise ConnectionProblem(address, "unresolved", reason) from None
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ConnectionProblem(address, "unreachable", reason) from None
    # A request is one small write; waiting to fill a packet would only delay it.
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return stream


def _within(started_s: float) -> str:
    return f"within {format_duration(max(1, round((time.monotonic() - started_s) * 1000)))}"


# --- the cluster ------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class Failure:
    """How one server failed to serve a request."""

    reason: str
    """In words, without the server's name."""
    kind: str
    """That of `ConnectionProblem`, or follower, unavailable or unknown-outcome."""
    leader: str = ""
    """Whom a follower follows: a name, or empty if it knows no leader."""
    leader_address: str = ""


_SILENT = ("refused", "unreachable", "unresolved", "timed-out", "not-raftd", "lost")
"""Kinds of failure of a server that did not answer at all."""


class _Judge(Protocol):
    def __call__(self, reply: Reply) -> Failure | None: ...


class Cluster:
    """The cluster behind some addresses: finds its leader, follows it, and outlives its servers.

    Takes the addresses to start with and learns those of all members from what servers say, so
    that it goes on when every server it started with has been replaced. Connections are kept
    until `close`.

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
        command: Callable[[str], str] = "raftctl {}".format,
        notice: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.endpoints = endpoints
        self.timeout_ms = timeout_ms
        self.command = command
        self.cluster_id = ""
        """Of the first member that answered; servers of other clusters are not asked."""
        self.notice = notice
        self._names: dict[str, str] = dict(endpoints.names)
        self._learned: dict[str, None] = {}
        self._leader_address = ""
        self._connections: dict[str, Connection] = {}
        self._session: Session | None = None

    def __enter__(self) -> Cluster:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        for connection in self._connections.values():
            connection.close()
        self._connections.clear()

    @property
    def addresses(self) -> tuple[str, ...]:
        """Every address that may be dialled: those it started with, then the learned ones."""
        return tuple(dict.fromkeys((*self.endpoints.addresses, *self._learned)))

    @property
    def names(self) -> Mapping[str, str]:
        """The name of the server at each address, where it is known."""
        return self._names

    def label(self, address: str) -> str:
        """Return name and address of a server, or the address alone."""
        name = self._names.get(address, "")
        return f"{name} {address}" if name else address

    def deadline(self) -> Deadline:
        """Return the moment when a call that starts now has to give up."""
        return Deadline.after_ms(self.timeout_ms)

    # --- asking ---

    def ask(
        self,
        request: Request,
        *,
        deadline: Deadline | None = None,
        reply_timeout_ms: float = REPLY_TIMEOUT_MS,
    ) -> Reply:
        """Return the leader's reply to `request`, which is never an `ErrorReply`.

        Tries all addresses, follows what servers say about the leader, also to servers that the
        file does not have, and goes on while there is no leader until `deadline`. A request that
        every server answers (status, operations, stale reads) is answered by the first one asked.

        Raises:
            Unreachable: no leader in time, and nothing that changes anything was sent.
            OutcomeUnknown: it was sent, and no answer came in time.
            Refused, Unsafe: the cluster said no; nothing was changed.
        """
        return self._ask(request, deadline or self.deadline(), reply_timeout_ms, _judge_leader)

    def ask_any(self, request: Request, *, deadline: Deadline | None = None) -> Reply:
        """Return the reply of the first server that answers, for reads that may be stale.

        Raises:
            Unreachable: no server answered in time.
            Refused: the server said no.
        """
        return self._ask(request, deadline or self.deadline(), REPLY_TIMEOUT_MS, _judge_leader)

    def ask_at(self, address: str, request: Request, *, deadline: Deadline) -> Reply:
        """Return the reply of the one server at `address`; an `ErrorReply` is returned, too.

        Raises:
            ConnectionProblem: it could not be asked or did not answer before `deadline`.
        """
        connection = self.connect(address, deadline)
        if not connection.cluster_id and not _answered_by_blank_servers(request):
            # It may belong to the cluster a moment later: greet it anew the next time.
            self.forget(address)
            raise ConnectionProblem(address, "blank", "blank: it belongs to no cluster yet")
        try:
            reply = connection.ask(request, deadline)
        except BaseException:
            self.forget(address)
            raise
        self._learn_from(reply)
        return reply

    def leader_status(self, *, deadline: Deadline | None = None) -> StatusReply:
        """Return the status of the leader, as a leader that a quorum has confirmed gives it.

        Its `configuration` is not None.

        Raises:
            Unreachable: there was no such leader before `deadline`.
            CliError: what answers as the leader cannot be one.
        """
        reply = self._ask(
            StatusRequest(), deadline or self.deadline(), REPLY_TIMEOUT_MS, _judge_status
        )
        status = expect(reply, StatusReply)
        if status.configuration is None:
            raise CliError(
                "the leader does not know its configuration",
                code="protocol",
                cause=f"{status.server} answers as the leader of term {status.term} without one",
                hint=self.command("status"),
            )
        return status

    def open_session(self, *, deadline: Deadline | None = None) -> Session:
        """Return a new session of the cluster. It is durable on a majority when this returns.

        Raises:
            As `ask`.
        """
        session = Session()
        self.ask(OpenSessionRequest(session=session.id), deadline=deadline)
        return session

    def write(
        self,
        build: Callable[[str, int, int], Request],
        *,
        deadline: Deadline | None = None,
        reply_timeout_ms: float = REPLY_TIMEOUT_MS,
    ) -> Reply:
        """Do exactly once what `build(session, serial, lowest_unacknowledged)` asks for.

        The session is opened at the first write. A lost connection or an unknown outcome is
        followed by the same request with the same session and serial, until the cluster answers.
        It is durable on a majority when this returns.

        Raises:
            OutcomeUnknown: no answer came before `deadline`; it may happen or have happened.
            As `ask` for the rest; then nothing was changed.
        """
        deadline = deadline or self.deadline()
        for is_last in (False, True):
            if self._session is None:
                self._session = self.open_session(deadline=deadline)
            serial = self._session.take_serial()
            # One write at a time: all earlier serials are answered.
            request = build(self._session.id, serial, serial)
            try:
                return self.ask(request, deadline=deadline, reply_timeout_ms=reply_timeout_ms)
            except Refused as error:
                # Not executed, since this was its first and only answer: a new session is safe.
                if error.code != "session-expired" or is_last:
                    raise
                self._session = None
        raise AssertionError("unreachable")

    # --- inside ---

    def _ask(
        self, request: Request, deadline: Deadline, reply_timeout_ms: float, judge: _Judge
    ) -> Reply:
        call = _Call(self, request, deadline, reply_timeout_ms, judge)
        try:
            return call.run()
        except KeyboardInterrupt:
            if call.may_have_happened:
                raise Interrupted(
                    "interrupted; it may or may not have taken effect", code="unknown-outcome"
                ) from None
            raise

    def connect(self, address: str, deadline: Deadline) -> Connection:
        """Return the connection to the server at `address`, opened if there is none.

        Raises:
            ConnectionProblem: nobody welcomes us there, or it is a server of another cluster.
        """
        connection = self._connections.get(address)
        if connection is not None:
            return connection
        connection = Connection.open(address, deadline)
        self._names[address] = server_name(connection.server) or self._names.get(address, "")
        config = self.endpoints.config
        named = config.cluster if config is not None else ""
        if named and connection.cluster_name not in ("", named):
            # Whoever gives a file means its cluster, not the one that a wrong address leads to.
            connection.close()
            raise ConnectionProblem(
                address,
                "other-cluster",
                f"it belongs to the cluster {connection.cluster_name!r}, the file describes "
                f"{named!r}",
            )
        if connection.cluster_id:
            self.cluster_id = self.cluster_id or connection.cluster_id
            if connection.cluster_id != self.cluster_id:
                connection.close()
                raise ConnectionProblem(
                    address,
                    "other-cluster",
                    f"it belongs to another cluster ({connection.cluster_id}, not "
                    f"{self.cluster_id})",
                )
        self._connections[address] = connection
        return connection

    def forget(self, address: str) -> None:
        """Close the connection to `address`: the server there has to greet us anew."""
        connection = self._connections.pop(address, None)
        if connection is not None:
            connection.close()

    def leader_first(self) -> list[str]:
        """Return all addresses in the order in which it makes sense to ask for the leader."""
        first = (self._leader_address,) if self._leader_address else ()
        return list(dict.fromkeys((*first, *self.addresses)))

    def remember_leader(self, address: str) -> None:
        """Ask the server at `address` first from now on; empty forgets the leader."""
        self._leader_address = address

    def learn(self, server: ServerId, address: str) -> None:
        """Remember that `server` can be dialled at `address`, HOST:PORT."""
        try:
            parse_address(address)
        except ValueError:
            return
        if len(self._learned) < LEARNED_ADDRESSES_MAX:
            self._learned.setdefault(address)
            self._names.setdefault(address, server_name(server))

    def _learn_from(self, reply: Reply) -> None:
        if isinstance(reply, StatusReply):
            self._learn_configuration(reply.configuration)
            self.learn(reply.leader, reply.leader_address)
        elif isinstance(reply, ErrorReply):
            self.learn(reply.leader, reply.leader_address)
        elif isinstance(reply, OperationsReply):
            for view in reply.operations:
                if view.record.running:
                    plan = view.record.plan
                    for server, address in {**plan.addresses, **plan.moved}.items():
                        self.learn(server, address)

    def _learn_configuration(self, configuration: ConfigurationView | None) -> None:
        if configuration is not None:
            for server, address in configuration.addresses.items():
                self.learn(server, address)


class Session:
    """A session of the cluster (dissertation section 6.3), used by one client for one write at a
    time."""

    def __init__(self) -> None:
        self.id = os.urandom(16).hex()
        self._serial = 0

    def take_serial(self) -> int:
        """Return the serial of the next write, from 1."""
        self._serial += 1
        return self._serial


class _Call:
    """One request on its way to whoever can answer it."""

    def __init__(
        self,
        cluster: Cluster,
        request: Request,
        deadline: Deadline,
        reply_timeout_ms: float,
        judge: _Judge,
    ) -> None:
        self._cluster = cluster
        self._request = request
        self._deadline = deadline
        self._reply_timeout_ms = reply_timeout_ms
        self._judge = judge
        self._failures: dict[str, Failure] = {}
        self._started_s = time.monotonic()
        self._noticed = False
        self.may_have_happened = False
        """Whether the request changes something and may have reached a leader's log."""

    def run(self) -> Reply:
        """Return the first reply that passes the judge."""
        pause_ms = RETRY_MS_MIN
        while True:
            reply = self._round()
            if reply is not None:
                return reply
            if self._deadline.expired or self._is_hopeless():
                raise self._give_up()
            self._maybe_notice()
            time.sleep(self._deadline.or_after_ms(pause_ms).remaining_s() or 0)
            pause_ms = min(2 * pause_ms, RETRY_MS_MAX)

    def _round(self) -> Reply | None:
        """Ask each server at most once, the supposed leader and those pointed at first."""
        waiting = deque(self._cluster.leader_first())
        asked: set[str] = set()
        while waiting and not self._deadline.expired:
            address = waiting.popleft()
            if address in asked:
                continue
            asked.add(address)
            reply = self._try(address, others=len(set(waiting) - asked))
            if reply is not None:
                self._cluster.remember_leader(address)
                return reply
            pointed_at = self._failures[address].leader_address
            if pointed_at in self._cluster.addresses:
                waiting.appendleft(pointed_at)
        self._cluster.remember_leader("")
        return None

    def _try(self, address: str, others: int) -> Reply | None:
        """Return a reply that passes the judge, or None with the failure noted."""
        before = self.may_have_happened
        try:
            reply = self._send_to(address, others)
        except ConnectionProblem as problem:
            self.may_have_happened = before or (problem.sent and not _only_reads(self._request))
            self._note(address, Failure(reason=str(problem), kind=problem.kind))
            if self.may_have_happened and not _may_be_repeated(self._request):
                raise self._unknown() from None
            return None
        failure = self._judge(reply)
        if isinstance(reply, ErrorReply) and reply.code != "unknown-outcome":
            # A refusal says that this attempt changed nothing; an earlier one still may have.
            self.may_have_happened = before
        if failure is not None:
            self._note(address, failure)
            if self.may_have_happened and not _may_be_repeated(self._request):
                raise self._unknown()
            return None
        if isinstance(reply, ErrorReply):
            if self.may_have_happened and _is_refused_change(self._request, reply):
                raise self._refused_when_repeated(reply)
            error = error_of(reply, may_have_happened=self.may_have_happened)
            error.hint = dialling(error.hint, self._cluster.command)
            raise error
        return reply

    def _send_to(self, address: str, others: int) -> Reply:
        """Return what the server at `address` answers; `others` have not had their turn yet."""
        remaining_s = self._deadline.remaining_s()
        connect_timeout_ms = CONNECT_TIMEOUT_MS
        if remaining_s is not None:
            # Everybody gets a turn: whoever reads the error must learn about each server.
            connect_timeout_ms = min(connect_timeout_ms, 1000 * remaining_s / (others + 1))
        self._cluster.connect(address, self._deadline.or_after_ms(connect_timeout_ms))
        self.may_have_happened = self.may_have_happened or not _only_reads(self._request)
        reply_deadline = self._deadline.or_after_ms(self._reply_timeout_ms)
        return self._cluster.ask_at(address, self._request, deadline=reply_deadline)

    def _note(self, address: str, failure: Failure) -> None:
        # What was seen before the time was over says more than that it is over.
        if failure.kind != "expired" or address not in self._failures:
            self._failures[address] = failure

    def _is_hopeless(self) -> bool:
        """Whether waiting cannot help: every server says that there is no cluster."""
        return all(
            address in self._failures and self._failures[address].kind == "blank"
            for address in self._cluster.addresses
        )

    def _maybe_notice(self) -> None:
        if not self._noticed and time.monotonic() - self._started_s >= NOTICE_MS / 1000:
            self._noticed = True
            self._cluster.notice(f"waiting for a leader: {self.describe_failures()}")

    def describe_failures(self) -> str:
        """Return how each server failed, on one line."""
        return "; ".join(
            f"{self._cluster.label(address)}: {self._describe(address)}"
            for address in self._cluster.addresses
        )

    def _describe(self, address: str) -> str:
        failure = self._failures.get(address)
        if failure is None:
            return "not asked in time"
        of_leader = self._failures.get(failure.leader_address)
        if of_leader is not None and of_leader.kind in _SILENT:
            return f"{failure.reason}, but {failure.leader or 'that one'} does not answer"
        return failure.reason

    def _give_up(self) -> CliError:
        if self.may_have_happened:
            return self._unknown()
        kinds = {failure.kind for failure in self._failures.values()}
        waited = format_duration(max(1, round((time.monotonic() - self._started_s) * 1000, -2)))
        if kinds == {"blank"}:
            return Unreachable(
                "there is no cluster yet: every server is blank",
                code="blank",
                cause=self.describe_failures(),
                hint=self._cluster.command("init"),
            )
        answered = kinds & {"follower", "unavailable", "unknown-outcome", "blank"}
        who, code = ("leader", "no-leader") if answered else ("server", "unreachable")
        was_to_write = not _only_reads(self._request) or isinstance(
            self._request, OpenSessionRequest
        )
        nothing = " (nothing was changed)" if was_to_write else ""
        return Unreachable(
            f"no {who} answered within {waited}{nothing}",
            code=code,
            cause=self.describe_failures(),
            hint=f"`{self._cluster.command('status')}` shows each server's own view",
        )

    def _refused_when_repeated(self, reply: ErrorReply) -> CliError:
        # The refusal speaks of the cluster as it is now, perhaps because the change was started.
        return OutcomeUnknown(
            "no answer came to the first attempt, and the repetition was refused: the change may "
            "have been started or not",
            cause=f"{reply.message}: {reply.cause}",
            hint=_look(self._cluster, self._request),
            operation=reply.operation,
        )

    def _unknown(self) -> CliError:
        return OutcomeUnknown(
            "it was sent, but no answer came: it may or may not have taken effect",
            cause=self.describe_failures(),
            hint=f"look first, and repeat it if need be:\n{_look(self._cluster, self._request)}",
        )


def _look(cluster: Cluster, request: Request) -> str:
    """Return the command that shows whether `request` took effect."""
    if isinstance(request, ChangeRequest):
        return cluster.command("operation list")
    if isinstance(request, TransferRequest | BootstrapRequest | JoinRequest | OpenSessionRequest):
        return cluster.command("status")
    key = getattr(request, "key", "")
    return cluster.command(f"get {key}" if key else "operation list")


# --- what replies and requests mean -----------------------------------------------------------


def _judge_leader(reply: Reply) -> Failure | None:
    """Return why this server could not serve, or None if `reply` is what the cluster says."""
    if not isinstance(reply, ErrorReply):
        return None
    if reply.code == "not-leader":
        return _follower(reply.leader, reply.leader_address)
    if reply.code in ("unavailable", "unknown-outcome"):
        reason = f"{reply.message} ({reply.cause})" if reply.cause else reply.message
        return Failure(reason=reason, kind=reply.code)
    return None


def _judge_status(reply: Reply) -> Failure | None:
    """Return why the server of this status is not the leader that we look for."""
    if not isinstance(reply, StatusReply):
        return _judge_leader(reply)
    if reply.role == "leader":
        if reply.leadership_confirmed:
            return None
        return Failure(reason="leader, but no quorum answers it", kind="unavailable")
    if reply.role == "blank":
        return Failure(reason="blank: it belongs to no cluster yet", kind="blank")
    if reply.role == "removed":
        return Failure(reason="removed from the cluster", kind="unavailable")
    return _follower(reply.leader, reply.leader_address, role=reply.role)


def _follower(leader: ServerId, leader_address: str, role: str = "follower") -> Failure:
    name = server_name(leader)
    reason = f"{role} of {name}" if name else f"{role}, knows no leader"
    return Failure(reason=reason, kind="follower", leader=name, leader_address=leader_address)


def _only_reads(request: Request) -> bool:
    """Return whether `request` changes nothing that anybody could miss."""
    if isinstance(request, ChangeRequest):
        return request.dry_run
    return isinstance(
        request,
        StatusRequest
        | GetRequest
        | ListRequest
        | OperationsRequest
        | HistoryRequest
        | ReadIndexRequest
        | OpenSessionRequest,
    )


def _may_be_repeated(request: Request) -> bool:
    """Return whether the same `request`, sent twice, does nothing twice."""
    return not isinstance(request, TransferRequest | BootstrapRequest | JoinRequest)


def _is_refused_change(request: Request, reply: ErrorReply) -> bool:
    return isinstance(request, ChangeRequest) and reply.code in ("refused", "unsafe")


def _answered_by_blank_servers(request: Request) -> bool:
    return isinstance(request, StatusRequest | BootstrapRequest | JoinRequest)


def error_of(reply: ErrorReply, *, may_have_happened: bool = False) -> CliError:
    """Return the error that ends a command which was answered with `reply`."""
    kind: type[CliError] = Refused
    if reply.code == "unsafe":
        kind = Unsafe
    elif reply.code in ("not-leader", "unavailable"):
        kind = Unreachable
    elif reply.code == "unknown-outcome" or (reply.code == "session-expired" and may_have_happened):
        kind = OutcomeUnknown
    return kind(
        reply.message,
        cause=reply.cause,
        hint=reply.hint,
        code=reply.code,
        operation=reply.operation,
    )


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
