"""Inbound connections: one listener for servers, administrators and native clients.

All that one read has brought is one batch, and all that is queued leaves at once.
"""

from __future__ import annotations

import contextlib
import functools
import logging
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter
from typing import TypeAlias

import attrs
import trio

from raftd.codec import WireError, decode_request, encode_frame, encode_opening, encode_reply
from raftd.core.types import ServerId, server_name
from raftd.event_log import tell
from raftd.network.accepting import serve_streams
from raftd.network.complaints import Complaints
from raftd.network.connection import (
    Connection,
    HeldBytes,
    OpeningError,
    receive_opening,
    remote_address,
    send_opening,
    tune,
)
from raftd.network.inputs import INBOX_INPUTS_MAX, Inbox, Requested
from raftd.network.links import PEER_OUTBOX_BYTES_MAX, receive_messages
from raftd.network.secured import HandshakeError, Handshakes, accept, host_of
from raftd.protocol import Hello, Refusal, Reply, Request, Welcome
from raftd.roles import ALLOWED, FORBIDDEN, refusal_of
from raftd.tls import SERVER, CurrentCredentials, Holder

logger = logging.getLogger("raftd.network")

Admit: TypeAlias = Callable[[Hello], Welcome | Refusal]
"""Decides about an inbound connection."""

HANDSHAKE_TIMEOUT_SECONDS = 5.0
"""For the first frame and for a refusal: enough for a slow client, short for a silent one."""
CONNECTIONS_MAX = 2048
"""Open connections: a thousand clients, and as many that come back before their old connections are
noticed to be dead. The limit of descriptors is raised to fit at the start."""
CONNECTIONS_FOR_PEERS = 32
"""Of those, how many clients cannot take: other servers get in however many clients there are."""
CLIENT_REQUESTS_MAX = 256
"""Unanswered requests of one connection; beyond, nothing more is read from it."""
CLIENT_OUTBOX_BYTES_MAX = 32 * 1024 * 1024
"""Replies that a client has not read; beyond, it is closed. Four of the longest frames."""
CLIENTS_OUTBOX_BYTES_MAX = 256 * 1024 * 1024
"""Of all clients together; beyond, the one with the most is closed."""
CLIENTS_HELD_BYTES_MAX = 256 * 1024 * 1024
"""Requests of all clients together that have begun and are not complete; beyond, the one with the
most is closed: two thousand clients with half of the longest request would take the memory of a
machine, for as long as they like."""
REFUSAL_CHARACTERS_MAX = 500
"""Of a refusal's message: it may repeat what a stranger sent, and an opening is short."""

_TLS_ONLY = encode_frame(
    encode_opening(Refusal(code="tls", message="it speaks TLS, and wants to see a certificate"))
)


class Client:
    """The requests of one client connection and their replies."""

    def __init__(
        self, connection: Connection, inbox: Inbox, replied: Callable[[Connection], None]
    ) -> None:
        """Serve `connection`; its `run` gets `handle`. `replied` is called with each reply."""
        self._connection = connection
        self._inbox = inbox
        self._replied = replied
        self._unanswered: set[int] = set()
        self._waiting: deque[bytes] = deque()
        """Requests beyond `CLIENT_REQUESTS_MAX`; nothing is read while there are any."""

    def handle(self, payloads: Sequence[bytes]) -> None:
        """Put the requests into the inbox, as many at a time as may be unanswered.

        Raises:
            WireError: no request, or a number that is in use.
        """
        if self._waiting or len(self._unanswered) + len(payloads) > CLIENT_REQUESTS_MAX:
            self._waiting.extend(payloads)
            self._connection.pause()
            self._go_on()
        else:
            self._inbox.arrived(self._accept_all(payloads))

    def _go_on(self) -> None:
        """Put those into the inbox that have waited and need not any more."""
        waiting = self._waiting
        # Those that are refused here leave room at once, and no answer comes that would go on.
        while waiting and len(self._unanswered) < CLIENT_REQUESTS_MAX:
            count = min(len(waiting), CLIENT_REQUESTS_MAX - len(self._unanswered))
            self._inbox.arrived(self._accept_all([waiting.popleft() for _ in range(count)]))
        if not waiting:
            self._connection.resume()

    def _accept_all(self, payloads: Sequence[bytes]) -> list[Requested]:
        return [self._accept(*decode_request(payload)) for payload in payloads]

    def _accept(self, number: int, request: Request) -> Requested:
        if number in self._unanswered:
            raise WireError(f"request number {number} is in use")
        self._unanswered.add(number)
        return Requested(request, functools.partial(self._respond, number))

    def _respond(self, number: int, reply: Reply) -> None:
        assert number in self._unanswered, "a request is answered once"
        self._unanswered.remove(number)
        if self._connection.closed:
            return
        if self._waiting:
            try:
                self._go_on()
            except WireError as error:
                self._connection.close(str(error), misbehaved=True)
        self._say(number, reply)

    def _say(self, number: int, reply: Reply) -> None:
        if not self._connection.offer(encode_reply(number, reply)):
            self._connection.close("it does not read its replies", misbehaved=True)
        self._replied(self._connection)


class RestrictedClient(Client):
    """A client whose certificate says what it may ask."""

    def __init__(
        self,
        connection: Connection,
        inbox: Inbox,
        replied: Callable[[Connection], None],
        holder: Holder,
    ) -> None:
        """Serve `connection` as far as the role of `holder` goes."""
        super().__init__(connection, inbox, replied)
        self._holder = holder
        self._allowed = ALLOWED[holder.role]

    def _accept_all(self, payloads: Sequence[bytes]) -> list[Requested]:
        accepted = []
        for payload in payloads:
            number, request = decode_request(payload)
            if type(request) in self._allowed:
                accepted.append(self._accept(number, request))
            else:
                self._say(number, refusal_of(self._holder, request))
        return accepted


def _close_largest(
    connections: Iterable[Connection],
    bytes_of: Callable[[Connection], int],
    bytes_max: int,
    problem: str,
) -> None:
    """Close those with the most bytes, until the others have `bytes_max` at most together."""
    by_size = sorted(connections, key=bytes_of)
    total_bytes = sum(map(bytes_of, by_size))
    while total_bytes > bytes_max:
        largest = by_size.pop()
        total_bytes -= bytes_of(largest)
        largest.close(problem, misbehaved=True)


def _about(remote: str, who: str, refusal: Refusal) -> str:
    """Return whom a refusal is about, who is to fill no more than a share of the log."""
    if refusal.code == FORBIDDEN:
        return host_of(remote)
    # It dials a few times more until it has heard from enough members that it was removed.
    return who if refusal.code == "removed" else ""


def _speaks_for_itself(hello: Hello, holder: Holder) -> bool:
    """Return whether who says to be a server, as a peer or as a client, is the one of its name."""
    if hello.role == "client" and not hello.source:
        return True
    return holder == Holder(SERVER, server_name(hello.source))


class Listener:
    """Accepts connections, asks the node about each, and serves them."""

    def __init__(
        self,
        inbox: Inbox,
        admit: Admit,
        arrived: Callable[[ServerId], None],
        *,
        connections_max: int = CONNECTIONS_MAX,
        credentials: CurrentCredentials | None = None,
    ) -> None:
        """Prepare the listener; `arrived` is called whenever a server has connected to us.

        Args:
            credentials: TLS with these; None for plain connections.
        """
        assert connections_max > CONNECTIONS_FOR_PEERS
        self._inbox = inbox
        self._admit = admit
        self._arrived = arrived
        self._connections_max = connections_max
        self._connection_count = 0
        self._credentials = credentials
        self._handshakes = Handshakes()
        self._complaints = Complaints()
        self.peers: dict[ServerId, Connection] = {}
        """The newest inbound connection of each server."""
        self.clients: set[Connection] = set()
        self._held = HeldBytes(CLIENTS_HELD_BYTES_MAX, self._relieve_of_requests)
        self._replied: set[Connection] = set()
        """Clients to which something was said since the last `push`."""

    async def serve(
        self,
        host: str,
        port: int,
        *,
        task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Listen on `host` and `port` until cancelled; reports the bound addresses as HOST:PORT.

        Raises:
            OSError: the address is in use, or not one of this host.
        """

        def announce(addresses: list[str]) -> None:
            words = ", ".join(addresses)
            tell(logger, "listening", "listening on %s", words, addresses=addresses)

        listeners = await trio.open_tcp_listeners(port, host=host)
        await serve_streams(listeners, self.handle, announce, task_status)

    def push(self) -> None:
        """Hand to the kernel what was said to clients, as far as it takes it without waiting.

        So the replies of a turn leave in one system call for each connection, and no task has to
        wake for them.
        """
        if self._replied:
            for connection in self._replied:
                connection.push()
            if any(connection.outbox_bytes for connection in self._replied):
                self._relieve()
            self._replied.clear()

    def _relieve(self) -> None:
        """Close those that read their replies least, until what is kept for the others is bearable.

        Who does not read at all is closed in any case, when nothing could be written for a while.
        """
        problem = "all clients together do not read their replies"
        outbox_bytes = attrgetter("outbox_bytes")
        _close_largest(self.clients, outbox_bytes, CLIENTS_OUTBOX_BYTES_MAX, problem)

    def _relieve_of_requests(self) -> None:
        """Close those that hold most of a request, until what the others hold is bearable."""
        holding = [connection for connection in self.clients if not connection.closed]
        problem = "all clients together do not end their requests"
        _close_largest(holding, attrgetter("held_bytes"), CLIENTS_HELD_BYTES_MAX, problem)

    async def handle(self, stream: trio.abc.Stream) -> None:
        """Serve one inbound connection until it ends. Nothing that is sent on it raises."""
        self._connection_count += 1
        try:
            tune(stream)
            remote = remote_address(stream)
            if self._credentials is None:
                await self._greet(stream, remote, None)
            else:
                assert isinstance(stream, trio.SocketStream)
                await self._greet_secured(stream, remote, self._credentials)
        finally:
            self._connection_count -= 1
            await trio.aclose_forcefully(stream)

    async def _greet_secured(
        self, stream: trio.SocketStream, remote: str, credentials: CurrentCredentials
    ) -> None:
        host = host_of(remote)
        if self._connection_count > self._connections_max:
            # A refusal that it could read would cost a handshake.
            self._complaints.warn("refused somebody from %s: %s", remote, self._busy().message)
            return
        try:
            secured = await accept(
                stream, credentials.now.native, self._handshakes, to_plain=_TLS_ONLY
            )
        except HandshakeError as error:
            if not error.silent:
                self._complaints.warn("closed the connection from %s: %s", remote, error, host=host)
            return
        try:
            if secured.holder is None:
                refusal = Refusal(code=FORBIDDEN, message=secured.problem)
                await self._refuse(secured.stream, remote, "somebody", refusal)
            else:
                await self._greet(secured.stream, remote, secured.holder)
        finally:
            secured.stream.close()

    async def _greet(self, stream: trio.abc.Stream, remote: str, holder: Holder | None) -> None:
        if self._connection_count > self._connections_max:
            # Without waiting for its greeting: what is over the limit must not take up anything.
            await self._refuse(stream, remote, "somebody", self._busy())
            return
        try:
            with trio.fail_after(HANDSHAKE_TIMEOUT_SECONDS):
                hello, decoder, payloads = await receive_opening(stream)
        except trio.TooSlowError:
            self._complaints.warn(
                "closed the connection from %s: no greeting for %.1f s",
                remote,
                HANDSHAKE_TIMEOUT_SECONDS,
            )
            return
        except OpeningError as error:
            if not error.silent:
                self._complaints.warn("closed the connection from %s: %s", remote, error)
            return
        if not isinstance(hello, Hello) or hello.role not in ("peer", "client"):
            self._complaints.warn("closed the connection from %s: it did not say hello", remote)
            return
        who = hello.source if hello.role == "peer" else "a client"
        answer = self._decide(hello, holder)
        if isinstance(answer, Refusal):
            await self._refuse(stream, remote, who, answer)
            return
        logger.debug("serves %s from %s", who, remote)
        # From here to the first wait of its tasks nothing can come between: the decision holds.
        if hello.role == "peer":
            connection = Connection(
                stream,
                decoder,
                inbox=self._inbox,
                outbox_bytes_max=PEER_OUTBOX_BYTES_MAX,
                version=answer.version,
            )
            connection.offer(encode_opening(answer))
            await self._serve_peer(connection, hello.source, answer.server, payloads)
        else:
            connection = Connection(
                stream,
                decoder,
                inbox=self._inbox,
                outbox_bytes_max=CLIENT_OUTBOX_BYTES_MAX,
                inputs_max=INBOX_INPUTS_MAX,
                held=self._held,
            )
            connection.offer(encode_opening(answer))
            await self._serve_client(connection, payloads, holder)
        if connection.misbehaved:
            self._complaints.warn(
                "closed the connection of %s from %s: %s", who, remote, connection.problem
            )
        else:
            logger.debug("connection of %s from %s ended: %s", who, remote, connection.problem)

    def _decide(self, hello: Hello, holder: Holder | None) -> Welcome | Refusal:
        if holder is not None and not _speaks_for_itself(hello, holder):
            return Refusal(
                code=FORBIDDEN,
                message=f"{hello.source or 'a server'} needs the certificate of "
                f"{Holder(SERVER, server_name(hello.source))}, and shows that of {holder}",
            )
        if hello.role == "client":
            if self._connection_count > self._connections_max - CONNECTIONS_FOR_PEERS:
                return self._busy()
            return self._admit(hello)
        if not hello.source:
            return Refusal(code="identity", message="a server has to say who it is")
        answer = self._admit(hello)
        if isinstance(answer, Welcome) and answer.server == hello.source:
            # Its votes would count as ours.
            return Refusal(
                code="identity",
                message=f"{hello.source} is this server itself; was its data directory copied?",
            )
        return answer

    def _busy(self) -> Refusal:
        return Refusal(
            code="busy",
            message=f"too many connections, {self._connections_max} at most; try again later",
        )

    async def _refuse(
        self, stream: trio.abc.Stream, remote: str, who: str, refusal: Refusal
    ) -> None:
        self._complaints.warn(
            "refused %s from %s: %s (%s)",
            who,
            remote,
            refusal.message,
            refusal.code,
            host=_about(remote, who, refusal),
        )
        short = attrs.evolve(refusal, message=refusal.message[:REFUSAL_CHARACTERS_MAX])
        with (
            trio.move_on_after(HANDSHAKE_TIMEOUT_SECONDS),
            contextlib.suppress(trio.BrokenResourceError),
        ):
            await send_opening(stream, short)

    async def _serve_peer(
        self, connection: Connection, source: ServerId, us: ServerId, payloads: Sequence[bytes]
    ) -> None:
        def handle(payloads: Sequence[bytes]) -> None:
            self._inbox.arrived(receive_messages(source, us, payloads))

        # A server keeps one connection to us, so the one before is a remainder.
        previous = self.peers.get(source)
        if previous is not None:
            previous.close("replaced by a newer connection of the same server")
        self.peers[source] = connection
        self._arrived(source)
        try:
            await connection.run(handle, payloads)
        finally:
            if self.peers.get(source) is connection:
                del self.peers[source]

    async def _serve_client(
        self, connection: Connection, payloads: Sequence[bytes], holder: Holder | None
    ) -> None:
        self.clients.add(connection)
        try:
            if holder is None:
                client = Client(connection, self._inbox, self._replied.add)
            else:
                client = RestrictedClient(connection, self._inbox, self._replied.add, holder)
            await connection.run(client.handle, payloads)
        finally:
            self.clients.remove(connection)
            self._replied.discard(connection)
