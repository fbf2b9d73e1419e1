"""A Redis listener with real sockets; behind it a state machine, and a driver that tests hold."""

from __future__ import annotations

import math
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import hiredis
import pytest
import trio

from raftd.certificate_files import TlsFiles
from raftd.commands import VALUE_BYTES_MAX, Command, SwitchOn, encode_command, stamp
from raftd.core.types import Entry, EntryKind
from raftd.inputs import CommandsArrived, Input, KeysArrived, StateAsked
from raftd.network.inputs import Inbox
from raftd.network.redis_actions import Surroundings
from raftd.network.redis_framing import array, bulk
from raftd.network.redis_listener import CONNECTIONS_MAX, RedisListener
from raftd.passwords import CurrentPassword
from raftd.protocol import ErrorReply
from raftd.state_seen import StateSeen
from raftd.storage.state import StateMachine
from raftd.storage.store import MemoryStore
from raftd.tls import CurrentCredentials, client_context

PATIENCE_SECONDS = 20
"""More than anything here takes, on a busy machine too."""


class Bed:
    """The listener, and what a driver and a node are to it."""

    def __init__(
        self,
        *,
        features: int = 5,
        connections_max: int = CONNECTIONS_MAX,
        hold_seconds: float = 0.0,
        password: CurrentPassword | None = None,
        credentials: CurrentCredentials | None = None,
    ) -> None:
        self.inbox = Inbox()
        self.state = StateMachine(MemoryStore())
        self.seen = StateSeen(self.state, lambda: self.time_ms)
        self.time_ms = 1_000_000
        """Cluster time, and the wall clock of the server."""
        self.now = 0.0
        """Seconds, for the listener."""
        self.features = features
        self.listener = RedisListener(
            self.inbox,
            features=lambda: self.features,
            redis_address=lambda server: self.redis_addresses.get(server, ""),
            surroundings=Surroundings(password=password or CurrentPassword(None)),
            credentials=credentials,
            clock=lambda: self.now,
            connections_max=connections_max,
            hold_seconds=hold_seconds,
        )
        self.inbox.sources.append(self.listener)
        switched_on = encode_command(Command(SwitchOn(version=features, time_ms=0)))
        self.state.apply([Entry(1, 1, EntryKind.COMMAND, switched_on)])
        self.redis_addresses: dict[str, str] = {}
        self.refusal: ErrorReply | None = None
        """What all is answered with, instead of being carried out."""
        self.holds = False
        """Keep what comes, instead of answering it."""
        self.held: list[Input] = []
        self.inputs: list[Input] = []
        """Everything that came."""
        self.values_bytes_max = 16 * 1024 * 1024
        self.turns = 0
        self._tick_at = math.inf
        self.address = ("", 0)
        self.clients: list[Client] = []

    async def start(self, nursery: trio.Nursery) -> None:
        """Listen and drive."""
        (address,) = await nursery.start(self.listener.serve, "127.0.0.1", 0)
        host, _, port = address.rpartition(":")
        self.address = (host, int(port))
        nursery.start_soon(self._drive)

    async def _drive(self) -> None:
        while True:
            inputs, tick = await self.inbox.take(lambda: self._tick_at)
            self.turns += 1
            for item in inputs:
                self.inputs.append(item)
                if self.holds:
                    self.held.append(item)
                else:
                    self.answer(item)
            self.listener.flush()
            if tick:
                self._tick_at = math.inf
                self.listener.tick()

    def tick(self, seconds: float) -> None:
        """Let so much time pass, and the driver look at it."""
        self.now += seconds
        self._tick_at = -math.inf
        self.inbox.wake()

    def release(self) -> None:
        """Answer what was held, and hold nothing any more."""
        self.holds = False
        held, self.held = self.held, []
        for item in held:
            self.answer(item)
        self.listener.flush()

    def answer(self, item: Input) -> None:
        if isinstance(item, CommandsArrived):
            if self.refusal is not None:
                for waiter in item.waiters:
                    waiter.failed(self.refusal)
                return
            entries = [
                Entry(index, 1, EntryKind.COMMAND, stamp(command, self.time_ms))
                for index, command in enumerate(item.commands, self.state.applied_index + 1)
            ]
            for waiter, result in zip(item.waiters, self.state.apply(entries), strict=True):
                assert result is not None
                waiter.done(result)
        else:
            assert isinstance(item, (KeysArrived, StateAsked))
            if self.refusal is not None and not item.stale:
                item.failed(self.refusal)
            elif isinstance(item, StateAsked):
                item.answer(self.seen)
            else:
                item.respond(self.state.values(item.keys, self.values_bytes_max))

    async def turns_taken(self, checkpoints: int = 200) -> int:
        """Return how many turns the driver takes while nothing happens but the event loop."""
        before = self.turns
        for _ in range(checkpoints):
            await trio.lowlevel.checkpoint()
        return self.turns - before

    async def until(self, condition: Callable[[], bool]) -> None:
        """Let everything else run until a condition holds."""
        with trio.fail_after(PATIENCE_SECONDS):
            while not condition():
                await trio.lowlevel.checkpoint()

    async def client(self) -> Client:
        """Connect one more client."""
        self.clients.append(Client(await trio.open_tcp_stream(*self.address)))
        return self.clients[-1]

    async def secured_client(
        self, ca: Path, own: TlsFiles | None, version: ssl.TLSVersion | None = None
    ) -> Client:
        """Connect one more client with TLS, which trusts `ca` and shows the certificate `own`."""
        stream = await trio.open_tcp_stream(*self.address)
        self.clients.append(Client(stream))
        context = client_context(ca, own)
        context.minimum_version = version or ssl.TLSVersion.TLSv1_2
        if version is not None:
            context.maximum_version = version
        host, _ = self.address
        secured = trio.SSLStream(stream, context, server_hostname=host, https_compatible=True)
        await secured.do_handshake()
        return Client(secured)

    async def close(self) -> None:
        """Close all clients, and see that nothing is left of them."""
        for client in self.clients:
            await client.stream.aclose()
        self.release()
        await self.until(lambda: not self.listener._connections)
        listener = self.listener
        held = (listener.under_way, listener.outboxes_bytes, listener._buffered_bytes)
        assert (*held, listener.writes_under_way) == (0, 0, 0, 0)
        for waiting in (
            *(listener._resumable, listener._crowded, listener._stalled, listener._begun),
            *(listener.dirty, listener._reads, listener._stale_reads, listener._commands),
        ):
            assert not waiting


@asynccontextmanager
async def opened_bed(**options: Any) -> AsyncIterator[Bed]:
    """A bed that runs, and is seen to hold nothing in the end."""
    bed = Bed(**options)
    async with trio.open_nursery() as nursery:
        await bed.start(nursery)
        yield bed
        await bed.close()
        nursery.cancel_scope.cancel()


@pytest.fixture
async def bed() -> AsyncIterator[Bed]:
    """Yield a bed as it comes."""
    async with opened_bed() as bed:
        yield bed


class Client:
    """A client that writes what it is told and reads one reply after the other."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self._reader = hiredis.Reader()

    async def write(self, content: bytes) -> None:
        with trio.fail_after(PATIENCE_SECONDS):
            await self.stream.send_all(content)

    async def send(self, *commands: Sequence[Any]) -> None:
        await self.write(b"".join(map(encoded, commands)))

    async def ask(self, *words: Any) -> Any:
        await self.send(words)
        return await self.reply()

    async def reply(self) -> Any:
        """Return the next reply: bytes, a number, None, a list, a map or a `ReplyError`."""
        with trio.fail_after(PATIENCE_SECONDS):
            while (reply := self._reader.gets()) is False:
                received = await self.stream.receive_some(256 * 1024)
                assert received, "closed where a reply is due"
                self._reader.feed(received)
        return reply

    async def replies(self, count: int) -> list[Any]:
        return [await self.reply() for _ in range(count)]

    async def end(self) -> None:
        """See that nothing more comes but the end of the stream."""
        with trio.fail_after(PATIENCE_SECONDS):
            assert self._reader.gets() is False
            assert await self.stream.receive_some() == b""

    async def gone(self) -> None:
        """See that the connection ends, whatever comes before."""
        with trio.fail_after(PATIENCE_SECONDS):
            try:
                while await self.stream.receive_some():
                    pass
            except trio.BrokenResourceError:
                return

    def reset(self) -> None:
        """Let the other side see an error instead of an orderly end."""
        linger = struct.pack("ii", 1, 0)
        self.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.stream.socket.close()


def encoded(words: Sequence[Any]) -> bytes:
    return array([bulk(word if isinstance(word, bytes) else str(word).encode()) for word in words])


def text(error: Any) -> str:
    """Return what an error says."""
    assert isinstance(error, hiredis.ReplyError), error
    return str(error)


async def big_values(bed: Bed, count: int, value_bytes: int = VALUE_BYTES_MAX) -> list[bytes]:
    client = await bed.client()
    values = [bytes([number]) * value_bytes for number in range(count)]
    for number, value in enumerate(values):
        assert await client.ask("SET", f"big{number}", value) == b"OK"
    return values
