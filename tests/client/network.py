"""Servers in the memory of a test: what is asked of them, and what they answer, and when."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable
from typing import TypeAlias

import trio
import trio.testing

from raftd.client.errors import ConnectionProblem
from raftd.codec import (
    FrameDecoder,
    decode_opening,
    decode_request,
    encode_frame,
    encode_opening,
    encode_reply,
)
from raftd.protocol import (
    PROTOCOL_VERSION_MAX,
    DoneReply,
    ErrorReply,
    Hello,
    OpenSessionRequest,
    Reply,
    Request,
    Welcome,
)

Handler: TypeAlias = Callable[[Request], Awaitable[Reply | None]]


class Server:
    """Answers each request with what `handle` returns, whenever it does; None: not at all."""

    def __init__(self, name: str, address: str) -> None:
        self.name = name
        self.address = address
        self.up = True
        self.lockstep = False
        """Whether what is sent to it waits until it reads, which it does after the greeting only
        when `reads` is set."""
        self.reads = trio.Event()
        self.numbers_off_by = 0
        """What it makes of the numbers of requests in its replies."""
        self.handle: Handler = _nothing
        self.requests: list[Request] = []
        self.under_way = 0
        self.under_way_most = 0
        self.connections = 0
        self._sending = trio.Lock()
        self._ends: list[trio.abc.Stream] = []

    @property
    def writes(self) -> list[Request]:
        """What was asked of it but for the opening of sessions."""
        return [request for request in self.requests if not _opens(request)]

    @property
    def sessions(self) -> list[Request]:
        """The openings of sessions."""
        return [request for request in self.requests if _opens(request)]

    async def die(self) -> None:
        """Lose all connections and take no new ones."""
        self.up = False
        for end in self._ends:
            await trio.aclose_forcefully(end)

    async def serve(self, end: trio.abc.Stream) -> None:
        """Serve one connection."""
        self.connections += 1
        self._ends.append(end)
        decoder = FrameDecoder()
        greeted = False
        try:
            async with trio.open_nursery() as nursery:
                while received := await end.receive_some(65536):
                    for payload in decoder.feed(received):
                        if greeted:
                            nursery.start_soon(self._answer, end, payload)
                            continue
                        greeted = True
                        assert isinstance(decode_opening(payload), Hello)
                        await end.send_all(encode_frame(encode_opening(self._welcome())))
                        if self.lockstep:
                            await self.reads.wait()
                nursery.cancel_scope.cancel()
        except* (trio.BrokenResourceError, trio.ClosedResourceError):
            pass

    def _welcome(self) -> Welcome:
        version = PROTOCOL_VERSION_MAX
        return Welcome(server=f"{self.name}/i", cluster_id="c", version=version)

    async def _answer(self, end: trio.abc.Stream, payload: bytes) -> None:
        number, request = decode_request(payload)
        self.requests.append(request)
        self.under_way += 1
        self.under_way_most = max(self.under_way, self.under_way_most)
        try:
            reply = await self.handle(request)
        finally:
            self.under_way -= 1
        if reply is not None:
            async with self._sending:
                number += self.numbers_off_by
                await end.send_all(encode_frame(encode_reply(number, reply)))


class Network:
    """The servers that may be dialled."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self.servers: dict[str, Server] = {}

    def server(self, name: str) -> Server:
        """Return a new server."""
        address = f"127.0.0.1:{7101 + len(self.servers)}"
        self.servers[address] = Server(name, address)
        return self.servers[address]

    async def dial(self, address: str, tls: ssl.SSLContext | None) -> trio.abc.Stream:
        """Return a stream to the server at `address`, as `raftd.client.links.dial` does."""
        await trio.sleep(0.001)
        server = self.servers[address]
        if not server.up:
            raise ConnectionProblem(address, "refused", "connection refused")
        make = (
            trio.testing.lockstep_stream_pair
            if server.lockstep
            else trio.testing.memory_stream_pair
        )
        ours, theirs = make()
        self._nursery.start_soon(server.serve, theirs)
        return ours


async def _nothing(request: Request) -> None:
    return None


def _opens(request: Request) -> bool:
    return isinstance(request, OpenSessionRequest)


def answering(reply: Reply | Callable[[Request], Reply], *, after_s: float = 0.0) -> Handler:
    """Return a handler that opens sessions and answers all else so."""

    async def handle(request: Request) -> Reply:
        await trio.sleep(after_s)
        if _opens(request):
            return DoneReply()
        return reply(request) if callable(reply) else reply

    return handle


def follower_of(leader: Server | None) -> Handler:
    """Return the handler of a follower."""
    return answering(
        ErrorReply(
            code="not-leader",
            message="no",
            leader=f"{leader.name}/i" if leader else "",
            leader_address=leader.address if leader else "",
        )
    )
