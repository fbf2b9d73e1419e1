"""Servers on real sockets that speak the native protocol; a test says what they answer."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator

from raftd.codec import (
    FrameDecoder,
    decode_opening,
    decode_request,
    encode_frame,
    encode_opening,
    encode_reply,
)
from raftd.commands import Operation, PhaseAt, Plan
from raftd.protocol import (
    ConfigurationView,
    ErrorReply,
    Hello,
    OperationView,
    Refusal,
    Reply,
    Request,
    StatusReply,
    Welcome,
)

LOSE = "lose the connection"
SILENCE = "say nothing"

Answer = Reply | str
"""A reply, or `LOSE`, or `SILENCE`."""


class ListeningServer(ABC):
    """Listens on a free loopback port; each connection has a thread, which runs `serve`."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._connections: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    @abstractmethod
    def serve(self, connection: socket.socket) -> None:
        """Serve one connection until it ends, or is shut down."""

    def close(self) -> None:
        """Stop listening and end all threads; closing again does nothing."""
        # Only shutting it down wakes a thread that waits in accept.
        for stream in (self._listener, *self._connections):
            with contextlib.suppress(OSError):
                stream.shutdown(socket.SHUT_RDWR)
        # No more threads begin once the one that accepts has ended.
        self._threads[0].join()
        for thread in self._threads[1:]:
            thread.join()
        for stream in (self._listener, *self._connections):
            stream.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._connections.append(connection)
            thread = threading.Thread(target=self.serve, args=(connection,))
            self._threads.append(thread)
            thread.start()


class SpeakingServer(ListeningServer):
    """Answers each request with `answer(request)`."""

    def __init__(
        self, server: str = "n1/a", cluster_id: str = "c1", tls: ssl.SSLContext | None = None
    ) -> None:
        self.server = server
        self._tls = tls
        self.cluster_id = cluster_id
        self.version = 1
        """Of the protocol, that it speaks."""
        self.refusal: Refusal | None = None
        self.answer: Callable[[Request], Answer] = lambda request: SILENCE
        self.requests: list[Request] = []
        super().__init__()

    def serve(self, connection: socket.socket) -> None:
        if self._tls is None:
            self._serve(connection)
        else:
            self._serve_secured(connection)

    def _serve_secured(self, connection: socket.socket) -> None:
        assert self._tls is not None
        with contextlib.suppress(OSError):
            secured = self._tls.wrap_socket(
                connection, server_side=True, do_handshake_on_connect=False
            )
            self._connections[self._connections.index(connection)] = secured
            secured.do_handshake()
            self._serve(secured)

    def _serve(self, connection: socket.socket) -> None:
        decoder = FrameDecoder()
        greeted = False
        with contextlib.suppress(OSError):
            while received := connection.recv(65536):
                for payload in decoder.feed(received):
                    if not greeted:
                        greeted = True
                        self._greet(connection, payload)
                    elif self._reply(connection, payload) == LOSE:
                        connection.shutdown(socket.SHUT_RDWR)
                        return

    def _greet(self, connection: socket.socket, payload: bytes) -> None:
        hello = decode_opening(payload)
        assert isinstance(hello, Hello)
        assert hello.role == "client"
        welcome = Welcome(server=self.server, cluster_id=self.cluster_id, version=self.version)
        connection.sendall(encode_frame(encode_opening(self.refusal or welcome)))

    def _reply(self, connection: socket.socket, payload: bytes) -> Answer:
        number, request = decode_request(payload)
        self.requests.append(request)
        answer = self.answer(request)
        if not isinstance(answer, str):
            connection.sendall(encode_frame(encode_reply(number, answer)))
        return answer


@contextlib.contextmanager
def speaking_servers(
    *servers: str, cluster_id: str = "c1", version: int = 1
) -> Iterator[list[SpeakingServer]]:
    """Yield a server for each of these ids, `name/incarnation`, that speaks `version`."""
    started = [SpeakingServer(server, cluster_id) for server in servers]
    for server in started:
        server.version = version
    try:
        yield started
    finally:
        for server in started:
            server.close()


def closed_address() -> str:
    """Return a loopback address where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"127.0.0.1:{listener.getsockname()[1]}"


def not_leader(leader: SpeakingServer | None = None) -> ErrorReply:
    """Return how a follower of `leader` answers."""
    return ErrorReply(
        code="not-leader",
        message="this server is a follower",
        leader=leader.server if leader else "",
        leader_address=leader.address if leader else "",
    )


def configuration(
    *servers: SpeakingServer | tuple[str, str], index: int = 1, learners: tuple[str, ...] = ()
) -> ConfigurationView:
    """Return a committed configuration of `servers`, given as such or as id and address."""
    pairs = [
        (server.server, server.address) if isinstance(server, SpeakingServer) else server
        for server in servers
    ]
    return ConfigurationView(
        index=index,
        committed=True,
        joint=False,
        voters=tuple(server for server, _ in pairs if server not in learners),
        outgoing=(),
        learners=learners,
        addresses=dict(pairs),
    )


def status_of(
    server: SpeakingServer,
    *,
    role: str,
    view: ConfigurationView | None = None,
    leader: SpeakingServer | None = None,
    operation: OperationView | None = None,
    term: int = 3,
    cluster_name: str = "orders",
) -> StatusReply:
    """Return the status of `server`; a leader is confirmed."""
    return StatusReply(
        server=server.server,
        version="0.1.0",
        cluster_id=server.cluster_id,
        cluster_name=cluster_name if server.cluster_id else "",
        role=role,
        term=term,
        leader=leader.server if leader else "",
        leader_address=leader.address if leader else "",
        leadership_confirmed=role == "leader",
        first_index=1,
        last_index=100,
        commit_index=100,
        applied_index=100,
        snapshot_index=0,
        revision=50,
        configuration=view,
        operation=operation,
    )


def operation_record(
    *phases: str,
    id: str = "op-1",
    kind: str = "add",
    changes: tuple[tuple[str, str], ...] = (("voter", "n4/d"),),
    addresses: dict[str, str] | None = None,
    voters_before: tuple[str, ...] = ("n1/a", "n2/b", "n3/c"),
    voters_after: tuple[str, ...] = ("n1/a", "n2/b", "n3/c", "n4/d"),
    result: str = "",
    explanation: str = "",
) -> Operation:
    """Return the record of a joint change that has gone through `phases`, one second for each."""
    return Operation(
        id=id,
        kind=kind,
        author="alice@host",
        reason="",
        plan=Plan(
            changes=changes,
            addresses=addresses or {},
            joint=True,
            configuration_index=1,
            voters_before=voters_before,
            voters_after=voters_after,
        ),
        phase=phases[-1],
        result=result,
        explanation=explanation,
        phases=tuple(
            PhaseAt(phase=phase, index=10 * number, time_ms=1_700_000_000_000 + 1000 * number)
            for number, phase in enumerate(phases, 1)
        ),
    )
