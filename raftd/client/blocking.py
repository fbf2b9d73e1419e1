"""Plain sockets: one request at a time, which is all that a command needs.

Nothing here is for two threads at once. Nothing heavy is imported, so that a program that asks one
question starts in milliseconds.
"""

from __future__ import annotations

import socket
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, TypeVar, cast

from raftd.client.calls import (
    REPLY_TIMEOUT_MS,
    Ask,
    Calls,
    Pause,
    Step,
    Steps,
    check_before_asking,
)
from raftd.client.conversation import Conversation
from raftd.client.deadlines import Deadline
from raftd.client.errors import ConnectionProblem
from raftd.client.members import Members
from raftd.client.sessions import Session
from raftd.codec import WireError
from raftd.config_values import format_duration, parse_address
from raftd.core.types import ServerId
from raftd.protocol import Reply, Request, StatusReply, Welcome

if TYPE_CHECKING:
    import ssl
    from typing import Self

RECEIVE_BYTES = 64 * 1024
"""Asked of the socket at once."""

Value = TypeVar("Value")


class Connection:
    """A connection to one server, past the greeting. Not for two threads at once."""

    def __init__(self, address: str, stream: socket.socket) -> None:
        self.address = address
        self.welcome: Welcome
        """What the server has said about itself."""
        self._stream = stream
        self._conversation = Conversation(address)
        self._payloads: deque[bytes] = deque()
        self._awaited: deque[int] = deque()
        """Numbers of the requests that are not answered."""

    @classmethod
    def open(cls, address: str, deadline: Deadline, *, tls: ssl.SSLContext | None = None) -> Self:
        """Dial `address`, HOST:PORT, and return the connection once the server has welcomed us.

        Args:
            address: where to dial.
            deadline: when to give up.
            tls: how to protect the connection; None for not at all.

        Raises:
            ConnectionProblem: nobody is there, it is no raftd, it refuses us, or `deadline` passed.
        """
        started_s = time.monotonic()
        connection = cls(address, dial(address, deadline, tls))
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

    @property
    def server(self) -> ServerId:
        """Who answered, as `name/incarnation`."""
        return self.welcome.server

    @property
    def cluster_id(self) -> str:
        """Empty while the server is blank."""
        return self.welcome.cluster_id

    @property
    def in_flight(self) -> int:
        """Requests whose replies have not been taken."""
        return len(self._awaited)

    def _greet(self, deadline: Deadline) -> None:
        try:
            self._send(self._conversation.opening(), deadline)
            payload = self._receive(deadline)
        except WireError as error:
            raise self._conversation.stranger(error) from None
        except TimeoutError:
            raise
        except (EOFError, OSError) as error:
            if hasattr(self._stream, "getpeercert"):
                from raftd.client.certificates import refused_certificate

                raise refused_certificate(self.address, error) from None
            raise self._conversation.stranger(None) from None
        self.welcome = self._conversation.welcome(payload)

    def ask(self, request: Request, deadline: Deadline) -> Reply:
        """Send `request` and return its reply, nothing else being in flight.

        Raises:
            ConnectionProblem: no reply came before `deadline`, or none that can be read. `sent`
                says whether the request may have been received. The connection is closed.
        """
        assert not self._awaited
        started_s = time.monotonic()
        self.send(request, deadline, started_s=started_s)
        return self.receive(deadline, started_s=started_s)

    def send(self, request: Request, deadline: Deadline, *, started_s: float | None = None) -> None:
        """Send `request`; `receive` returns the replies in the order of the requests.

        Raises:
            ConnectionProblem: as `ask`.
        """
        number, message = self._conversation.request(request)
        self._awaited.append(number)
        try:
            self._send(message, deadline)
        except BaseException as error:
            raise self._ended(error, started_s) from None

    def receive(self, deadline: Deadline, *, started_s: float | None = None) -> Reply:
        """Return the reply to the oldest request that is in flight.

        Raises:
            ConnectionProblem: as `ask`.
        """
        expected = self._awaited.popleft()
        try:
            number, reply = self._conversation.reply(self._receive(deadline))
            if number != expected:
                raise WireError(f"a reply to request {number} instead of {expected}")
        except BaseException as error:
            raise self._ended(error, started_s) from None
        return reply

    def close(self) -> None:
        """Close the connection; closing it again does nothing."""
        self._stream.close()

    def _ended(self, error: BaseException, started_s: float | None) -> BaseException:
        """Close the connection and return what `error` means for whoever waits for a reply."""
        self.close()
        if isinstance(error, TimeoutError):
            within = "in time" if started_s is None else _within(started_s)
            kind, reason = "timed-out", f"no answer {within}"
        elif isinstance(error, WireError):
            kind, reason = "not-raftd", f"an answer that cannot be read ({error})"
        elif isinstance(error, EOFError | OSError):
            kind, reason = "lost", "the connection was lost before the answer"
        else:
            return error
        return ConnectionProblem(self.address, kind, reason, sent=True)

    def _send(self, message: bytes, deadline: Deadline) -> None:
        self._wait_at_most(deadline)
        self._stream.sendall(message)

    def _receive(self, deadline: Deadline) -> bytes:
        while not self._payloads:
            self._wait_at_most(deadline)
            received = self._stream.recv(RECEIVE_BYTES)
            if not received:
                raise EOFError
            self._payloads += self._conversation.payloads(received)
        return self._payloads.popleft()

    def _wait_at_most(self, deadline: Deadline) -> None:
        if deadline.expired:
            raise TimeoutError
        self._stream.settimeout(deadline.remaining_s())


def dial(address: str, deadline: Deadline, tls: ssl.SSLContext | None) -> socket.socket:
    """Return a connected socket. Every blocking connection to a server begins here.

    Raises:
        ConnectionProblem: there is none.
    """
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
    return stream if tls is None else _protected(address, host, stream, deadline, tls)


def _protected(
    address: str, host: str, stream: socket.socket, deadline: Deadline, tls: ssl.SSLContext
) -> socket.socket:
    """Return `stream` after a TLS handshake."""
    from raftd.client.certificates import certificate_problem, check_certificate

    try:
        stream.settimeout(deadline.remaining_s())
        protected = tls.wrap_socket(stream, server_hostname=host)
    except TimeoutError:
        stream.close()
        reason = "connected, but no TLS handshake in time"
        raise ConnectionProblem(address, "timed-out", reason) from None
    except OSError as error:
        stream.close()
        raise certificate_problem(address, error) from None
    except BaseException:
        stream.close()
        raise
    try:
        check_certificate(address, protected.getpeercert())
    except ConnectionProblem:
        protected.close()
        raise
    return protected


def _within(started_s: float) -> str:
    return f"within {format_duration(max(1, round((time.monotonic() - started_s) * 1000)))}"


class Cluster:
    """The cluster behind some addresses: finds its leader, follows it, and outlives its servers.

    Speaks the native protocol, request by request; `Client` is what applications want. Connections
    are kept until `close`. Not for two threads at once.

    Args:
        addresses: HOST:PORT, at least one; those of the other members are learned.
        timeout_ms: the time for a whole call unless the call has its own; 0 means for ever.
        names: of the servers that are expected there, for messages.
        cluster_name: of the cluster that is meant; empty if any is.
        tls: how to protect connections; None for not at all.
        notice: told, once in a call, what is being waited for.
    """

    def __init__(
        self,
        addresses: Sequence[str],
        *,
        timeout_ms: float,
        names: Mapping[str, str] | None = None,
        cluster_name: str = "",
        tls: ssl.SSLContext | None = None,
        notice: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.timeout_ms = timeout_ms
        self.members = Members(addresses, names=names, cluster_name=cluster_name)
        self.calls = Calls(self.members, notice=notice)
        self._tls = tls
        self._connections: dict[str, Connection] = {}
        self._session: Session | None = None

    def __enter__(self) -> Self:
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

    def deadline(self, timeout_ms: float | None = None) -> Deadline:
        """Return the moment when a call that starts now has to give up.

        Args:
            timeout_ms: from now; 0 means for ever, None the time that this object was made with.
        """
        return Deadline.after_ms(self.timeout_ms if timeout_ms is None else timeout_ms)

    # --- asking ---

    def ask(
        self,
        request: Request,
        *,
        deadline: Deadline | None = None,
        reply_timeout_ms: float = REPLY_TIMEOUT_MS,
    ) -> Reply:
        """Return the leader's reply to `request`, which is never an `ErrorReply`.

        See `Calls.ask`, also for the errors.
        """
        deadline = deadline or self.deadline()
        return self.perform(self.calls.ask(request, deadline, reply_timeout_ms=reply_timeout_ms))

    def ask_any(self, request: Request, *, deadline: Deadline | None = None) -> Reply:
        """Return the reply of the first server that answers, for reads that may be stale.

        Raises:
            NotApplied: no server answered in time, or the server said no.
        """
        return self.ask(request, deadline=deadline)

    def ask_at(self, address: str, request: Request, *, deadline: Deadline) -> Reply:
        """Return the reply of the one server at `address`; an `ErrorReply` is returned, too.

        Raises:
            ConnectionProblem: it could not be asked or did not answer before `deadline`.
        """
        reply = self._ask_over(self._connection_for(address, request, deadline), request, deadline)
        self.members.learn_from(reply)
        return reply

    def leader_status(self, *, deadline: Deadline | None = None) -> StatusReply:
        """Return the status of the leader, as a leader that a quorum has confirmed gives it.

        See `Calls.leader_status`, also for the errors.
        """
        return self.perform(self.calls.leader_status(deadline or self.deadline()))

    def open_session(self, *, deadline: Deadline | None = None) -> Session:
        """Return a new session of the cluster. It is durable on a majority when this returns.

        See `Calls.open_session`, also for the errors.
        """
        return self.perform(self.calls.open_session(deadline or self.deadline()))

    def write(
        self,
        build: Callable[[str, int, int], Request],
        *,
        deadline: Deadline | None = None,
        reply_timeout_ms: float = REPLY_TIMEOUT_MS,
    ) -> Reply:
        """Do exactly once what `build(session, serial, lowest_unacknowledged)` asks for.

        The session is opened at the first write. See `Calls.write`, also for the errors.
        """
        deadline = deadline or self.deadline()
        return self.perform(self.calls.write(build, deadline, reply_timeout_ms=reply_timeout_ms))

    def connect(self, address: str, deadline: Deadline) -> Connection:
        """Return the connection to the server at `address`, opened if there is none.

        Raises:
            ConnectionProblem: nobody welcomes us there, or it is a server of another cluster.
        """
        connection = self._connections.get(address)
        if connection is None:
            connection = Connection.open(address, deadline, tls=self._tls)
            try:
                self.members.admit(address, connection.welcome)
            except ConnectionProblem:
                connection.close()
                raise
            self._connections[address] = connection
        return connection

    def forget(self, address: str) -> None:
        """Close the connection to `address`: the server there has to greet us anew."""
        connection = self._connections.pop(address, None)
        if connection is not None:
            connection.close()

    # --- driving ---

    def perform(self, steps: Steps[Value]) -> Value:
        """Take `steps` one after the other and return what they come to."""
        return self._drive(steps)

    def _drive(self, steps: Steps[Value]) -> Value:
        while True:
            try:
                step = next(steps)
            except StopIteration as end:
                result: Value = end.value
                return result
            try:
                self._take(step)
            except BaseException as error:
                # Only the call knows what it means that it ends here; it raises in any case.
                steps.throw(error)
                raise

    def _take(self, step: Step) -> None:
        if isinstance(step, Ask):
            try:
                deadline = step.deadline.or_after_ms(step.connect_timeout_ms)
                connection = self._connection_for(step.address, step.request, deadline)
                step.sent = True
                deadline = step.deadline.or_after_ms(step.reply_timeout_ms)
                step.reply = self._ask_over(connection, step.request, deadline)
            except ConnectionProblem as problem:
                step.problem = problem
        elif isinstance(step, Pause):
            time.sleep(step.deadline.or_after_ms(step.duration_ms).remaining_s() or 0)
        else:
            if self._session is None or not self._session.usable:
                self._session = self._drive(self.calls.open_session(step.deadline))
            step.session = self._session

    def _connection_for(self, address: str, request: Request, deadline: Deadline) -> Connection:
        """Return the connection to `address` if `request` makes sense there."""
        connection = self.connect(address, deadline)
        problem = check_before_asking(address, connection.welcome, request)
        if problem is not None:
            # It may belong to the cluster, or be of another release, a moment later: it has to
            # greet us anew the next time.
            self.forget(address)
            raise problem
        return connection

    def _ask_over(self, connection: Connection, request: Request, deadline: Deadline) -> Reply:
        try:
            return connection.ask(request, deadline)
        except BaseException:
            self.forget(connection.address)
            raise
