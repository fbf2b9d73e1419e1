"""The Redis listener: many connections, one wake-up.

All sockets are in one epoll set of their own, and trio waits for that set alone. When the driver
closes a batch it takes from here what all readable sockets have brought, and after its turn it lets
each connection send all of its replies in one system call. A task for each connection would cost
more than what is done for a request.

Replies leave in the order of the commands of their connection. Commands of a connection are under
way together as long as all of them write or all of them read: what is read must have seen the
writes before it on the same connection, and none of those after it.

Certainly not carried out, so that a client may ask again elsewhere: `-MOVED`, `-CLUSTERDOWN`,
`-TRYAGAIN`. Perhaps carried out: `-UNCERTAIN`. No code of the first kind is ever used for the
second.
"""

from __future__ import annotations

import binascii
import contextlib
import logging
import select
import socket
from collections import deque
from collections.abc import Callable, Sequence

import trio

from raftd.commands import Result
from raftd.core.types import ServerId
from raftd.inputs import CommandsArrived, Input, KeysArrived
from raftd.network.connection import describe, join_address, tune_socket
from raftd.network.inputs import Inbox
from raftd.network.redis_commands import (
    CommandError,
    Form,
    Read,
    Reply,
    Session,
    Write,
    interpret,
)
from raftd.network.redis_framing import (
    NULL_2,
    NULL_3,
    CommandDecoder,
    FramingError,
    bulk,
    error,
    integer,
)
from raftd.protocol import NOT_NOW, ErrorReply
from raftd.protocol import Reply as NativeReply

CONNECTIONS_MAX = 4096
"""Open connections. Each is a descriptor and some kilobytes; the limit of descriptors is raised to
fit at the start, as far as the system allows."""
BACKLOG = 1024
"""Connections that wait to be accepted: a thousand clients may start at once."""
ACCEPTS_MAX = 128
"""Connections accepted in one turn, so that a flood of them does not hold up the others."""
RECEIVE_BYTES = 16 * 1024
"""Of one read: some dozens of commands."""
RECEIVE_BYTES_LARGE = 256 * 1024
"""Of the next read, after one that was filled."""
PIPELINE_MAX = 1024
"""Commands of one connection that are not answered; beyond, nothing more is read from it."""
UNDER_WAY_MAX = 16_384
"""Commands of all connections that are not answered; beyond, nothing more is read."""
BUFFERED_BYTES_MAX = 128 * 1024 * 1024
"""Of commands that have begun, of all connections together; who goes beyond is closed."""
OUTBOX_BYTES_MAX = 4 * 1024 * 1024
"""Replies that a connection has not taken; beyond, no more of its commands are looked at."""
OUTBOXES_BYTES_MAX = 128 * 1024 * 1024
"""Of all connections together; beyond, commands are looked at only where there are none."""
STALL_SECONDS = 30.0
"""A connection that takes nothing of its replies for so long is closed."""
SLOTS = 16_384
"""Hash slots of a Redis cluster, for redirections."""

_NONE, _WRITES, _READS = 0, 1, 2

logger = logging.getLogger("raftd.network")


class _Slot:
    """The place of one reply among those of its connection."""

    __slots__ = ("connection", "exists_only", "form", "key", "reply")

    def __init__(self, connection: _Connection, key: bytes, form: Form | None) -> None:
        self.connection = connection
        self.key = key
        self.form = form
        self.exists_only = False
        self.reply: bytes | None = None

    def done(self, result: Result) -> None:
        """Take what a write has come to."""
        assert self.form is not None
        self.reply = self.form(result)
        self.connection.answered(self)

    def failed(self, reply: ErrorReply) -> None:
        """Take why there is no answer."""
        self.reply = self.connection.listener.refusal(reply, self.key)
        self.connection.answered(self)

    def found(self, value: bytes | None) -> None:
        """Take what a read has found."""
        if self.exists_only:
            self.reply = integer(int(value is not None))
        elif value is None:
            self.reply = NULL_3 if self.connection.session.protocol >= 3 else NULL_2
        else:
            self.reply = bulk(value)
        self.connection.answered(self)


class _Connection:
    """One client."""

    __slots__ = (
        "closing",
        "decoder",
        "descriptor",
        "events",
        "kind",
        "listener",
        "outbox",
        "outbox_bytes",
        "queue",
        "receive_bytes",
        "remote",
        "session",
        "slots",
        "socket",
        "stalled_at",
    )

    def __init__(self, listener: RedisListener, connected: socket.socket, remote: str) -> None:
        self.listener = listener
        self.socket = connected
        self.descriptor = connected.fileno()
        self.remote = remote
        self.decoder = CommandDecoder()
        self.session = Session()
        self.queue: deque[list[bytes]] = deque()
        """Commands that were read and are not looked at yet."""
        self.slots: deque[_Slot] = deque()
        """The replies that are due, in their order."""
        self.kind = _NONE
        """What the commands do that are under way."""
        self.outbox: list[bytes] = []
        self.outbox_bytes = 0
        self.stalled_at = 0.0
        """Since when the kernel takes no more of the outbox; 0 while it does."""
        self.receive_bytes = RECEIVE_BYTES
        self.events = select.EPOLLIN
        self.closing = False
        """Whether it ends as soon as the outbox is empty; nothing more is read."""

    def answered(self, slot: _Slot) -> None:
        """Move the replies that are complete, up to the first that is not, to the outbox."""
        slots = self.slots
        if slots and slots[0] is slot:
            outbox = self.outbox
            while slots:
                reply = slots[0].reply
                if reply is None:
                    break
                outbox.append(reply)
                self.outbox_bytes += len(reply)
                self.listener.outboxes_bytes += len(reply)
                slots.popleft()
                self.listener.under_way -= 1
            if not slots:
                self.kind = _NONE
            self.listener.dirty.add(self)


class RedisListener:
    """Accepts clients of the Redis protocol and turns their commands into inputs of the node.

    `collect` and `flush` are called by the driver, before and after its turn; `serve` wakes it.
    """

    def __init__(
        self,
        inbox: Inbox,
        *,
        features: Callable[[], int],
        redis_address: Callable[[ServerId], str],
        clock: Callable[[], float] = trio.current_time,
        connections_max: int = CONNECTIONS_MAX,
    ) -> None:
        """Prepare it; nothing is bound before `serve`.

        Args:
            inbox: is woken when there is something to collect.
            features: returns the version of those that are switched on in the replicated state.
            redis_address: returns HOST:PORT of the Redis listener of a server, empty if unknown.
            clock: seconds that never go back.
            connections_max: at one time; the others are told so and closed.
        """
        self._inbox = inbox
        self._features = features
        self._redis_address = redis_address
        self._clock = clock
        self._connections_max = connections_max
        self._connections: dict[int, _Connection] = {}
        self._sockets: dict[int, socket.socket] = {}
        self._epoll: select.epoll | None = None
        self._resumable: dict[_Connection, None] = {}
        """Connections with commands that had to wait, and on which something has changed."""
        self._commands: list[bytes] = []
        self._waiters: list[_Slot] = []
        self._reads: list[_Slot] = []
        self._stale_reads: list[_Slot] = []
        self._buffered_bytes = 0
        self.dirty: set[_Connection] = set()
        """Connections with replies that were not sent yet."""
        self.under_way = 0
        """Commands that are not answered."""
        self.outboxes_bytes = 0
        """Replies that were not sent."""

    # --- being there ---

    async def serve(
        self,
        host: str,
        port: int,
        *,
        task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Listen until cancelled; reports the bound addresses as HOST:PORT.

        Raises:
            OSError: the address is in use, or not one of this host.
        """
        self._epoll = select.epoll()
        try:
            addresses = await self._bind(host, port)
            logger.info("listening for Redis clients on %s", ", ".join(addresses))
            task_status.started(addresses)
            descriptor = self._epoll.fileno()
            while True:
                await trio.lowlevel.wait_readable(descriptor)
                self._inbox.wake()
                # The driver takes what there is in its next turn. Until then the set stays
                # readable, and would wake this task again and again.
                await self._inbox.collected()
        finally:
            self._end()

    async def _bind(self, host: str, port: int) -> list[str]:
        assert self._epoll is not None
        listeners = await trio.open_tcp_listeners(port, host=host, backlog=BACKLOG)
        addresses = []
        for listener in listeners:
            bound = socket.socket(fileno=listener.socket.detach())
            bound.setblocking(False)
            self._sockets[bound.fileno()] = bound
            self._epoll.register(bound.fileno(), select.EPOLLIN)
            addresses.append(join_address(*bound.getsockname()[:2]))
        return addresses

    def _end(self) -> None:
        for connection in list(self._connections.values()):
            self._close(connection, "")
        for bound in self._sockets.values():
            bound.close()
        self._sockets.clear()
        if self._epoll is not None:
            self._epoll.close()
            self._epoll = None

    # --- taking ---

    def collect(self) -> list[Input]:
        """Return what the clients have asked since the last call, without waiting."""
        if self._epoll is None:
            return []
        if self.under_way < UNDER_WAY_MAX:
            for descriptor, events in self._epoll.poll(0):
                connection = self._connections.get(descriptor)
                if connection is None:
                    self._accept(descriptor)
                    continue
                if events & select.EPOLLOUT:
                    self._send(connection)
                if events & ~select.EPOLLOUT and not connection.closing:
                    self._receive(connection)
        resumable, self._resumable = self._resumable, {}
        for connection in resumable:
            self._look_at(connection)
        inputs: list[Input] = []
        if self._commands:
            inputs.append(CommandsArrived(self._commands, self._waiters))
            self._commands, self._waiters = [], []
        for reads, stale in ((self._reads, False), (self._stale_reads, True)):
            if reads:
                inputs.append(self._keys_arrived(reads.copy(), stale))
                reads.clear()
        return inputs

    def _keys_arrived(self, slots: list[_Slot], stale: bool) -> KeysArrived:
        def respond(values: Sequence[bytes | None]) -> None:
            for slot, value in zip(slots, values, strict=False):
                slot.found(value)
            # What did not fit into the memory of one answer is asked again.
            rest = slots[len(values) :]
            if rest:
                (self._stale_reads if stale else self._reads).extend(rest)
                self._inbox.wake()

        def failed(reply: NativeReply) -> None:
            assert isinstance(reply, ErrorReply)
            for slot in slots:
                slot.failed(reply)

        return KeysArrived([slot.key for slot in slots], respond, failed, stale)

    def _accept(self, descriptor: int) -> None:
        bound = self._sockets.get(descriptor)
        if bound is None:
            return
        for _ in range(ACCEPTS_MAX):
            try:
                connected, address = bound.accept()
            except BlockingIOError:
                return
            except OSError as error_of_accept:
                # Reset before it was accepted, or no descriptor is left: the next one may do.
                logger.debug("accepting a Redis client failed: %s", describe(error_of_accept))
                return
            connected.setblocking(False)
            if len(self._connections) >= self._connections_max:
                with contextlib.suppress(OSError):
                    connected.send(error("ERR max number of clients reached"))
                connected.close()
                continue
            tune_socket(connected)
            connection = _Connection(self, connected, join_address(*address[:2]))
            self._connections[connection.descriptor] = connection
            assert self._epoll is not None
            self._epoll.register(connection.descriptor, select.EPOLLIN)

    def _receive(self, connection: _Connection) -> None:
        try:
            received = connection.socket.recv(connection.receive_bytes)
        except BlockingIOError:
            return
        except OSError as error_of_receive:
            self._close(connection, describe(error_of_receive))
            return
        if not received:
            self._close(connection, "closed by the other side")
            return
        connection.receive_bytes = (
            RECEIVE_BYTES_LARGE if len(received) >= connection.receive_bytes else RECEIVE_BYTES
        )
        decoder = connection.decoder
        self._buffered_bytes -= decoder.buffered_bytes
        try:
            commands = decoder.feed(received)
        except FramingError as problem:
            self._refuse_for_good(connection, f"ERR Protocol error: {problem}")
            return
        self._buffered_bytes += decoder.buffered_bytes
        if self._buffered_bytes > BUFFERED_BYTES_MAX and decoder.buffered_bytes:
            self._refuse_for_good(connection, "ERR too many long commands at once, try again")
            return
        connection.queue.extend(commands)
        if connection.queue:
            self._look_at(connection)

    def _refuse_for_good(self, connection: _Connection, problem: str) -> None:
        """Say why, after all that is due, and end the connection then."""
        self._buffered_bytes -= connection.decoder.buffered_bytes
        connection.decoder = CommandDecoder()
        connection.closing = True
        connection.queue.clear()
        self._answer_at_once(connection, error(problem))
        self._watch(connection)

    def _look_at(self, connection: _Connection) -> None:
        """Put the commands of a connection on their way, as many as may be under way."""
        queue, slots = connection.queue, connection.slots
        session = connection.session
        while queue:
            if (
                len(slots) >= PIPELINE_MAX
                or connection.outbox_bytes > OUTBOX_BYTES_MAX
                or (self.outboxes_bytes > OUTBOXES_BYTES_MAX and connection.outbox_bytes)
            ):
                break
            try:
                action = interpret(queue[0], session, self._features())
            except CommandError as refusal:
                queue.popleft()
                self._answer_at_once(connection, error(str(refusal)))
                continue
            if type(action) is Reply:
                queue.popleft()
                self._answer_at_once(connection, action.content)
                if action.closes:
                    connection.closing = True
                    queue.clear()
                continue
            kind = _WRITES if type(action) is Write else _READS
            if connection.kind not in (_NONE, kind):
                break
            queue.popleft()
            connection.kind = kind
            if type(action) is Write:
                slot = _Slot(connection, action.key, action.form)
                self._commands.append(action.encoded)
                self._waiters.append(slot)
            else:
                assert type(action) is Read
                slot = _Slot(connection, action.key, None)
                slot.exists_only = action.exists_only
                (self._stale_reads if session.stale_reads else self._reads).append(slot)
            slots.append(slot)
            self.under_way += 1
        self._watch(connection)

    def _answer_at_once(self, connection: _Connection, reply: bytes) -> None:
        slot = _Slot(connection, b"", None)
        slot.reply = reply
        connection.slots.append(slot)
        self.under_way += 1
        connection.answered(slot)

    # --- answering ---

    def flush(self) -> None:
        """Send the replies of the last turn, all of one connection in one system call."""
        if not self.dirty:
            return
        dirty, self.dirty = self.dirty, set()
        for connection in dirty:
            self._send(connection)
        if self._resumable:
            self._inbox.wake()

    def _send(self, connection: _Connection) -> None:
        if connection.descriptor not in self._connections or not connection.outbox:
            return
        outbox = connection.outbox
        joined = outbox[0] if len(outbox) == 1 else b"".join(outbox)
        try:
            sent = connection.socket.send(joined)
        except BlockingIOError:
            sent = 0
        except OSError as error_of_send:
            self._close(connection, describe(error_of_send))
            return
        connection.outbox_bytes -= sent
        self.outboxes_bytes -= sent
        if sent == len(joined):
            outbox.clear()
            connection.stalled_at = 0.0
            if connection.closing and not connection.slots:
                self._close(connection, "")
                return
        else:
            connection.outbox = [joined[sent:]]
            if sent or not connection.stalled_at:
                connection.stalled_at = self._clock()
        if connection.queue:
            # What was answered or sent has made room.
            self._resumable[connection] = None
        self._watch(connection)

    def tick(self) -> None:
        """Close the connections that take nothing of their replies. Call it now and then."""
        if not self.outboxes_bytes:
            return
        now = self._clock()
        for connection in list(self._connections.values()):
            if connection.stalled_at and now - connection.stalled_at >= STALL_SECONDS:
                self._close(connection, "it does not read its replies")

    def _watch(self, connection: _Connection) -> None:
        """Wait for what the connection can do next."""
        events = 0
        if not (connection.closing or connection.queue):
            events |= select.EPOLLIN
        if connection.stalled_at:
            events |= select.EPOLLOUT
        if events != connection.events and connection.descriptor in self._connections:
            connection.events = events
            assert self._epoll is not None
            self._epoll.modify(connection.descriptor, events)

    def _close(self, connection: _Connection, problem: str) -> None:
        if self._connections.pop(connection.descriptor, None) is None:
            return
        if problem:
            logger.debug("Redis client at %s: %s", connection.remote, problem)
        assert self._epoll is not None
        self._epoll.unregister(connection.descriptor)
        connection.socket.close()
        self._buffered_bytes -= connection.decoder.buffered_bytes
        self.outboxes_bytes -= connection.outbox_bytes
        self.under_way -= len(connection.slots)
        connection.outbox_bytes = 0
        connection.outbox = []
        # Answers that are still under way find nobody.
        connection.slots = deque()
        connection.queue.clear()
        self._resumable.pop(connection, None)
        self.dirty.discard(connection)

    def refusal(self, reply: ErrorReply, key: bytes) -> bytes:
        """Return what is said where there is no result."""
        message = f"{reply.message}: {reply.cause}" if reply.cause else reply.message
        match reply.code:
            case "not-leader":
                address = self._redis_address(reply.leader)
                if address:
                    return error(f"MOVED {binascii.crc_hqx(_hashed(key), 0) % SLOTS} {address}")
                return error(f"CLUSTERDOWN {message}")
            case "unavailable":
                return error(
                    f"{'TRYAGAIN' if reply.message == NOT_NOW else 'CLUSTERDOWN'} {message}"
                )
            case "unknown-outcome":
                return error(f"UNCERTAIN {message}")
            case _:
                return error(f"ERR {message}")


def _hashed(key: bytes) -> bytes:
    """Return the part of a key that decides about its slot: what stands in the first braces."""
    _, brace, rest = key.partition(b"{")
    tag, end, _ = rest.partition(b"}")
    return tag if brace and end and tag else key
