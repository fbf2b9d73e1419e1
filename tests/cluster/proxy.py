"""A network between the servers that a test can cut: one TCP proxy before each server.

Every frame passes through here, so that a link can be cut in one direction and at an exact message,
and a message can be lost. Who dials is learned from the Hello of each connection. A frame that is
held is never delivered later: `heal` closes the connections that hold one, as a partition does
that outlasts TCP.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterable
from enum import Enum

import attrs
import trio

from raftd.codec import (
    FrameDecoder,
    WireError,
    decode_message,
    decode_opening,
    encode_frame,
)
from raftd.commands import BeginOperation, decode_command
from raftd.core.membership import ConfigurationEntry, decode_configuration
from raftd.core.messages import AppendEntries, Message
from raftd.core.types import Entry, EntryKind, server_name
from raftd.protocol import Hello

CLIENT = "client"
"""The name of everybody who is no server, in `cut` and in rules."""
CONNECTIONS_MAX = 500
"""At once, over all servers: more is a test that has lost its mind."""
RECEIVE_BYTES = 64 * 1024
START_TIMEOUT_S = 10.0


@attrs.frozen
class Passing:
    """A Raft message on its way from one server to another."""

    source: str
    dest: str
    message: Message

    @property
    def entries(self) -> tuple[Entry, ...]:
        """The entries that it carries."""
        return self.message.entries if isinstance(self.message, AppendEntries) else ()

    @property
    def configurations(self) -> tuple[ConfigurationEntry, ...]:
        """The configuration entries among them."""
        return tuple(
            decode_configuration(entry.data)
            for entry in self.entries
            if entry.kind is EntryKind.CONFIGURATION
        )


class Fate(Enum):
    """What becomes of a message."""

    PASS = "pass"
    DROP = "drop"
    """It is lost; what follows is not."""
    CUT = "cut"
    """It is held, and all that follows on the same way with it."""


Rule = Callable[[Passing], Fate]
"""Decides about every Raft message, in the thread of the proxy."""


class Proxy:
    """Listens on the public address of each server and forwards to where it really listens.

    Runs in a thread of its own; all methods are for other threads and return when what they ask
    for is in force.
    """

    def __init__(self) -> None:
        self.caught = threading.Event()
        """Set when the rule has stopped its first message."""
        self._cut: set[tuple[str, str]] = set()
        self._blocked: set[tuple[str, str]] = set()
        self._rule: Rule | None = None
        self._connection_count = 0
        self._holding: set[trio.CancelScope] = set()
        self._started = threading.Event()
        self._thread = threading.Thread(target=trio.run, args=(self._run,), name="proxy")

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()
        assert self._started.wait(START_TIMEOUT_S)

    def stop(self) -> None:
        """Close everything and end the thread."""
        self._token.run_sync_soon(self._scope.cancel)
        self._thread.join()

    def serve(self, name: str, listener: socket.socket, target: tuple[str, int]) -> None:
        """Accept on `listener` what is meant for the server `name` and forward it to `target`."""

        def start() -> None:
            wrapped = trio.SocketListener(trio.socket.from_stdlib_socket(listener))

            async def accept(stream: trio.SocketStream) -> None:
                await self._forward(stream, name, target)

            self._nursery.start_soon(trio.serve_listeners, accept, [wrapped])

        self._in_thread(start)

    def cut(self, source: str, dest: str) -> None:
        """Hold everything from `source` to `dest` from now on."""
        self._in_thread(lambda: self._cut.add((source, dest)))

    def block(self, source: str, dest: str) -> None:
        """Hold every connection that `source` dials to `dest`, as a firewall does between them.

        Those that `dest` dials to `source` work.
        """
        self._in_thread(lambda: self._blocked.add((source, dest)))

    def partition(self, *sides: Iterable[str]) -> None:
        """Cut every link between servers (or clients) of different sides, in both directions."""
        groups = [tuple(side) for side in sides]
        pairs = {
            (source, dest)
            for one in groups
            for other in groups
            if one is not other
            for source in one
            for dest in other
        }
        self._in_thread(lambda: self._cut.update(pairs))

    def obey(self, rule: Rule) -> None:
        """Let `rule` decide about every message from now on."""

        def set_rule() -> None:
            self._rule = rule
            self.caught.clear()

        self._in_thread(set_rule)

    def heal(self) -> None:
        """Let everything pass again. What was held is lost, with its connection."""

        def undo() -> None:
            self._rule = None
            self._cut.clear()
            self._blocked.clear()
            for scope in self._holding:
                scope.cancel()

        self._in_thread(undo)

    # --- in the thread ---

    def _in_thread(self, change: Callable[[], object]) -> None:
        trio.from_thread.run_sync(change, trio_token=self._token)

    async def _run(self) -> None:
        async with trio.open_nursery() as self._nursery:
            self._scope = self._nursery.cancel_scope
            self._token = trio.lowlevel.current_trio_token()
            self._started.set()
            await trio.sleep_forever()

    async def _forward(
        self, dialler: trio.SocketStream, name: str, target: tuple[str, int]
    ) -> None:
        assert self._connection_count < CONNECTIONS_MAX
        self._connection_count += 1
        try:
            async with dialler, await trio.open_tcp_stream(*target) as server:
                await self._converse(dialler, server, name)
        except* (trio.BrokenResourceError, trio.ClosedResourceError, OSError, WireError):
            # However one side ended, the other one has seen the connection end.
            pass
        finally:
            self._connection_count -= 1

    async def _converse(
        self, dialler: trio.SocketStream, server: trio.SocketStream, name: str
    ) -> None:
        decoder = FrameDecoder()
        payloads: list[bytes] = []
        while not payloads:
            received = await dialler.receive_some(RECEIVE_BYTES)
            if not received:
                return
            payloads += decoder.feed(received)
        hello = decode_opening(payloads[0])
        assert isinstance(hello, Hello)
        who = server_name(hello.source) if hello.role == "peer" else CLIENT
        # A server that dials as a client does says who it is, too.
        dialled = (server_name(hello.source), name)
        async with trio.open_nursery() as nursery:
            scope = nursery.cancel_scope

            async def pump(
                source: trio.SocketStream,
                dest: trio.SocketStream,
                way: tuple[str, str],
                decoder: FrameDecoder,
                payloads: list[bytes],
            ) -> None:
                is_opening = True
                while True:
                    for payload in payloads:
                        looked_at = hello.role == "peer" and not is_opening
                        fate = Fate.CUT
                        if dialled not in self._blocked:
                            fate = self._fate(way, payload if looked_at else None)
                        if fate is Fate.DROP:
                            continue
                        if fate is Fate.CUT:
                            self._holding.add(scope)
                            try:
                                await trio.sleep_forever()
                            finally:
                                self._holding.discard(scope)
                        await dest.send_all(encode_frame(payload))
                        is_opening = False
                    received = await source.receive_some(RECEIVE_BYTES)
                    if not received:
                        scope.cancel()
                        return
                    payloads = decoder.feed(received)

            nursery.start_soon(pump, dialler, server, (who, name), decoder, payloads)
            nursery.start_soon(pump, server, dialler, (name, who), FrameDecoder(), [])

    def _fate(self, way: tuple[str, str], payload: bytes | None) -> Fate:
        """Return what becomes of this frame; `payload` is None if it is no Raft message."""
        if way in self._cut:
            return Fate.CUT
        if payload is None or self._rule is None:
            return Fate.PASS
        fate = self._rule(Passing(*way, decode_message(payload)))
        if fate is Fate.CUT:
            self._cut.add(way)
        if fate is not Fate.PASS:
            self.caught.set()
        return fate


def where(condition: Callable[[Passing], bool], fate: Fate) -> Rule:
    """Return the rule that has `fate` for the messages for which `condition` is true."""
    return lambda passing: fate if condition(passing) else Fate.PASS


def carries(kind: str, operation: str) -> Callable[[Passing], bool]:
    """Return the condition for messages with such a configuration entry of this operation.

    A new server also receives those of all earlier operations.
    """
    return lambda passing: any(
        (entry.kind.value, entry.operation) == (kind, operation) for entry in passing.configurations
    )


def carries_begin(kind: str) -> Callable[[Passing], bool]:
    """Return the condition for messages with the record of a new operation of this kind."""

    def found(passing: Passing) -> bool:
        bodies = [
            decode_command(entry.data).body
            for entry in passing.entries
            if entry.kind is EntryKind.COMMAND
        ]
        return any(isinstance(body, BeginOperation) and body.kind == kind for body in bodies)

    return found
