"""Servers of the tests: real networks, joined by streams in memory or by loopback sockets."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

import pytest
import trio
from trio.testing import memory_stream_pair

from raftd.codec import FrameDecoder, decode_opening, encode_frame, encode_opening
from raftd.core.messages import Envelope, Message
from raftd.core.types import ServerId
from raftd.network.inputs import Inbox, Input, Received
from raftd.network.network import Network
from raftd.protocol import Hello, Refusal, Welcome
from raftd.tls import CurrentCredentials

CLUSTER = "cluster-1"
T = TypeVar("T")

Answer = Callable[[trio.abc.Stream], Awaitable[None]]


class Fabric:
    """Addresses and who answers there; everywhere else connections are refused."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.nursery = nursery
        self.answers: dict[str, Answer] = {}
        self.dials: list[tuple[float, str]] = []

    async def dial(self, address: str) -> trio.abc.Stream:
        self.dials.append((trio.current_time(), address))
        answer = self.answers.get(address)
        if answer is None:
            raise ConnectionRefusedError(111, "Connection refused")
        ours, theirs = memory_stream_pair()
        self.nursery.start_soon(answer, theirs)
        return ours

    def server(
        self, id: ServerId, *addresses: str, file_addresses: Mapping[str, str] | None = None
    ) -> Server:
        """Return a server that dials here, and answers at these addresses."""
        server = Server(id, self.dial, file_addresses=file_addresses)
        for address in addresses:
            self.answers[address] = server.network.listener.handle
        return server


@pytest.fixture
def fabric(nursery: trio.Nursery) -> Fabric:
    """Return a fabric where nobody answers yet; those who do end with the test."""
    return Fabric(nursery)


class Server:
    """A network and what a node would hold against it."""

    def __init__(
        self,
        server: ServerId,
        dial: Callable[[str], Awaitable[trio.abc.Stream]],
        *,
        connections_max: int = 512,
        file_addresses: Mapping[str, str] | None = None,
        credentials: CurrentCredentials | None = None,
    ) -> None:
        self.id = server
        self.inbox = Inbox()
        self.refusals: dict[ServerId, Refusal] = {}
        self.blank = False
        self.redis = ""
        """Where it says that it serves clients of the Redis protocol."""
        self.taken: list[Input] = []
        self.network = Network(
            self.inbox,
            admit=self.admit,
            our_hello=self.our_hello,
            randomness=random.Random(1),
            dial=dial,
            connections_max=connections_max,
            file_addresses=file_addresses,
            credentials=credentials,
        )

    def admit(self, hello: Hello) -> Welcome | Refusal:
        if hello.role == "peer" and hello.dest != self.id:
            return Refusal(code="identity", message=f"{self.id} lives here")
        return self.refusals.get(
            hello.source,
            Welcome(server=self.id, cluster_id=CLUSTER, version=1, redis=self.redis),
        )

    def our_hello(self, dest: ServerId) -> Hello | None:
        return None if self.blank else hello_of(self.id, dest)

    async def take(self, kind: type[T], count: int = 1) -> list[T]:
        """Wait until `count` inputs of `kind` have come, and return them."""
        found: list[T] = []
        with trio.fail_after(30):
            while len(found) < count:
                batch, _ = await self.inbox.take()
                self.taken += batch
                found += [item for item in batch if isinstance(item, kind)]
        return found

    async def drive(self) -> None:
        """Take all that comes, where nobody waits for anything: sockets are read by who takes."""
        while True:
            batch, _ = await self.inbox.take()
            self.taken += batch

    async def receive(self, count: int = 1) -> list[Envelope]:
        return [received.envelope for received in await self.take(Received, count)]

    def send(self, dest: ServerId, message: Message) -> None:
        self.network.send([Envelope(self.id, dest, message)])


def hello_of(source: ServerId, dest: ServerId) -> Hello:
    return Hello(role="peer", cluster_id=CLUSTER, source=source, dest=dest)


CLIENT_HELLO = Hello(role="client", cluster_id="", source="", dest="")


async def silence(stream: trio.abc.Stream) -> None:
    """Answer nothing, and close nothing."""
    await trio.sleep_forever()


class Stranger:
    """The other end of a connection, frame by frame."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self._decoder = FrameDecoder()
        self._payloads: list[bytes] = []

    async def greet(self, hello: Hello) -> Welcome | Refusal:
        await self.send(encode_opening(hello))
        answer = decode_opening(await self.receive())
        assert not isinstance(answer, Hello)
        return answer

    async def send(self, *payloads: bytes) -> None:
        await self.stream.send_all(b"".join(map(encode_frame, payloads)))

    async def receive(self) -> bytes:
        with trio.fail_after(30):
            while not self._payloads:
                received = await self.stream.receive_some(65536)
                if not received:
                    raise EOFError
                self._payloads += self._decoder.feed(received)
        return self._payloads.pop(0)

    async def receive_end(self) -> None:
        """Wait until the other side has closed the connection without another frame."""
        with trio.fail_after(30):
            try:
                assert await self.stream.receive_some(65536) == b""
            except trio.BrokenResourceError:
                return


def call(nursery: trio.Nursery, server: Server) -> Stranger:
    """Return a stranger that has just connected to `server`."""
    ours, theirs = memory_stream_pair()
    nursery.start_soon(server.network.listener.handle, theirs)
    return Stranger(ours)


async def join(fabric: Fabric, *servers: Server) -> None:
    """Make the servers members of one cluster and wait until every link is up."""
    addresses = {server.id: f"{server.id}:1" for server in servers}
    for server in servers:
        fabric.answers[addresses[server.id]] = server.network.listener.handle
        server.network.set_members(addresses)
        await fabric.nursery.start(server.network.run)
    with trio.fail_after(30):
        for server in servers:
            for other in servers:
                await until(lambda s=server, o=other: s is o or linked(s, o.id))


def linked(server: Server, other: ServerId) -> bool:
    link = server.network._links.get(other)
    return link is not None and link.connection is not None


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition; time stands still as long as other tasks have something to do."""
    with trio.fail_after(30):
        while not condition():  # noqa: ASYNC110 - any condition, not only those with an event
            await trio.sleep(0.001)
