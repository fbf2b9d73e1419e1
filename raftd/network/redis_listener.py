"""The Redis listener: many connections, one wake-up.

All sockets are in the set that the driver reads when it closes a batch: it takes from here what
they have brought, and after its turn it lets each connection send all of its replies in one system
call. A task for each connection would cost more than what is done for a request.

Replies leave in the order of the commands of their connection. Commands of a connection are under
way together as long as all of them write or all of them read: what is read must have seen the
writes before it on the same connection, and none of those after it.

What is held for clients is bounded, and no client can make the others wait for long: who does not
take its replies, or sends half of a command, gets no further itself and is closed in the end. A
connection that has to wait is not read: the set must not say again and again that it could be.
"""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import Callable, Sequence
from functools import partial

import trio

from raftd.core.types import ServerId
from raftd.inputs import CommandsArrived, Input, KeysArrived, StateAsked, StateView
from raftd.network.accepting import Acceptor
from raftd.network.connection import describe, tune_socket
from raftd.network.inputs import HOLD_SECONDS, Inbox
from raftd.network.redis_actions import (
    Action,
    CommandError,
    Later,
    Query,
    Read,
    Reply,
    Surroundings,
    Write,
)
from raftd.network.redis_auth import LOCKED_BYTES_MAX
from raftd.network.redis_cluster import refusal
from raftd.network.redis_commands import interpret
from raftd.network.redis_connection import (
    NO_KIND,
    READS,
    RECEIVE_BYTES,
    STALE_READS,
    WRITES,
    AskingSlot,
    ClientSocket,
    Connection,
    QuerySlot,
    ReadSlot,
    Slot,
    WriteSlot,
)
from raftd.network.redis_doorstep import Doorstep
from raftd.network.redis_framing import CommandDecoder, FramingError, error, only_command
from raftd.network.redis_secured import SecuredClients
from raftd.network.redis_transactions import forget
from raftd.network.sockets import ENDED, READABLE, WRITABLE
from raftd.protocol import ErrorReply
from raftd.protocol import Reply as NativeReply
from raftd.tls import CurrentCredentials

CONNECTIONS_MAX = 4096
"""Open connections. Each is a descriptor and some kilobytes; the limit of descriptors is raised to
fit at the start, as far as the system allows."""
RECEIVE_BYTES_LARGE = 256 * 1024
"""Of a read in the middle of a long argument, or after one that was filled."""
COMMANDS_TAKEN_MAX = 128
"""Commands of one connection that are cut out of what it has sent before they are looked at: each
takes several times the memory of its bytes."""
PIPELINE_MAX = 1024
"""Commands of one connection that are not answered; beyond, nothing more is read from it."""
UNDER_WAY_MAX = 16_384
"""Commands of all connections that are not answered; beyond, no more are looked at."""
TURN_COMMANDS_MAX = 4096
"""Commands that the node gets in one turn: enough to share one sync among them, and some 50 ms at
most, in which no heartbeat leaves."""
BUFFERED_BYTES_MAX = 128 * 1024 * 1024
"""What was received and not looked at, of all connections together; beyond, nothing more is read in
large pieces, and who sends a long command is closed."""
BUFFERED_BYTES_END = 2 * BUFFERED_BYTES_MAX
"""Beyond this those are closed that hold most, however short their commands are."""
OUTBOX_BYTES_MAX = 4 * 1024 * 1024
"""Replies that a connection has not taken; beyond, no more of its commands are looked at."""
OUTBOXES_BYTES_MAX = 128 * 1024 * 1024
"""Of all connections together; beyond, nothing is looked at that may have a long reply."""
REPLY_BYTES_HELD_MAX = 1024
"""A longer reply that is known at once is not made before those ahead of it have left."""
STALL_SECONDS = 30.0
"""A connection that takes nothing of its replies for so long is closed, and so is one that sends
nothing more of a command that it has begun."""
STALL_SECONDS_CROWDED = 2.0
"""Likewise while there are more than `OUTBOXES_BYTES_MAX`: others wait for the memory."""
LINGER_SECONDS = 1.0
"""Who is told that its connection ends may go on sending for so long. What it sends is thrown away:
a connection that is closed with something unread is reset, and what was said last is lost."""
LINGER_BYTES_MAX = 8 * 1024 * 1024
"""But no more than this, twice the longest command."""

logger = logging.getLogger("raftd.network")


class RedisListener:
    """Accepts clients of the Redis protocol and turns their commands into inputs of the node.

    `prepare`, `collect`, `flush` and `tick` are called by the driver, before and after its turn.
    """

    def __init__(
        self,
        inbox: Inbox,
        *,
        features: Callable[[], int],
        redis_address: Callable[[ServerId], str],
        surroundings: Surroundings | None = None,
        credentials: CurrentCredentials | None = None,
        clock: Callable[[], float] = trio.current_time,
        connections_max: int = CONNECTIONS_MAX,
        hold_seconds: float = HOLD_SECONDS,
    ) -> None:
        """Prepare it; nothing is bound before `serve`.

        Args:
            inbox: whose set the sockets join; it is woken when somebody can go on who has waited.
            features: returns the version of those that are switched on in the replicated state.
            redis_address: returns HOST:PORT of the Redis listener of a server, empty if unknown.
            surroundings: what commands may look at that ask about the cluster; its password is what
                clients have to say that show no certificate.
            credentials: TLS with these; None for plain connections.
            clock: seconds that never go back.
            connections_max: at one time; the others are told so and closed.
            hold_seconds: how long writes are kept back that could share a batch with others.
        """
        self._inbox = inbox
        self._set = inbox.sockets
        self._features = features
        self._redis_address = redis_address
        self._clock = clock
        self._connections_max = connections_max
        self._hold_seconds = hold_seconds
        self._connections: dict[int, Connection] = {}
        self.surroundings = surroundings or Surroundings()
        self.surroundings.connection_count = self._connections.__len__
        self.surroundings.connections_max = connections_max
        self._acceptor = Acceptor(inbox.sockets, self._accepted, whom="Redis clients", clock=clock)
        self._secured: SecuredClients | None = None
        if credentials is not None:
            password = self.surroundings.password
            self._secured = SecuredClients(credentials, password, self._let_in)
        self._doorstep = Doorstep(clock)
        self._resumable: dict[Connection, None] = {}
        """Connections with commands that had to wait, and on which something has changed."""
        self._crowded: dict[Connection, None] = {}
        """Connections that wait for others to have fewer commands under way, or replies to take."""
        self._stalled: dict[Connection, float] = {}
        """Those whose replies the kernel does not take, and since when; the first is the one that
        has taken nothing for the longest time."""
        self._begun: dict[Connection, float] = {}
        """Likewise those of which the rest of a command is awaited."""
        self._lingering: dict[Connection, float] = {}
        """Likewise those that were told that they end, and may be sending still."""
        self._commands: list[bytes] = []
        self._waiters: list[WriteSlot] = []
        self._held_since: float | None = None
        """When the commands were kept back for the first time."""
        self._reads: list[AskingSlot] = []
        self._stale_reads: list[AskingSlot] = []
        self._has_queries = False
        """Whether some of these are more than the values of single keys."""
        self._collected = 0
        """How many these are that were not handed over to the node."""
        self._buffered_bytes = 0
        self.dirty: set[Connection] = set()
        """Connections with replies that were not sent yet."""
        self.writes_under_way = 0
        """Those that the node has and has not answered."""
        self.under_way = 0
        """Commands that are not answered, also of clients that have gone."""
        self.outboxes_bytes = 0
        """Replies that were not sent."""

    # --- being there ---

    @property
    def connection_count(self) -> int:
        """Open connections."""
        return len(self._connections)

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
        try:
            if self._secured is not None:
                await self._secured.serve(host, port, task_status=task_status)
            else:
                addresses = await self._acceptor.bind(host, port)
                logger.info("listening for Redis clients on %s", ", ".join(addresses))
                task_status.started(addresses)
                await trio.sleep_forever()
        finally:
            self._end()

    def _end(self) -> None:
        for connection in list(self._connections.values()):
            self._close(connection, "")
        self._acceptor.close()

    async def drain(self, timeout_ms: float) -> None:
        """Wait until the kernel has all replies that are due, but no longer than that.

        The driver does not turn any more.
        """
        self.flush()
        with trio.move_on_after(timeout_ms / 1000):
            async with trio.open_nursery() as nursery:
                for connection in self._stalled:
                    nursery.start_soon(self._drain, connection)

    async def _drain(self, connection: Connection) -> None:
        while not connection.closed and connection.outbox:
            await trio.lowlevel.wait_writable(connection.socket)
            self._send(connection)

    # --- taking ---

    def prepare(self) -> None:
        """Let those go on who had to wait and need not any more."""
        # Who has waited for others comes before all else. Whoever has to wait again stands behind
        # those that have not had their turn.
        while self._crowded and self._has_room():
            connection = next(iter(self._crowded))
            del self._crowded[connection]
            self._resume(connection)
        if self._resumable:
            resumable, self._resumable = self._resumable, {}
            for connection in resumable:
                self._resume(connection)

    def ready(self, connection: Connection, events: int) -> None:
        """Read a connection, or go on writing to it."""
        if events == READABLE:
            self._receive(connection)
            return
        if events & ENDED:
            # The set says so again and again, whatever it was asked for.
            self._close(connection, "reset by the other side")
            return
        if events & WRITABLE:
            self._send(connection)
        if events & READABLE and not connection.closed:
            self._receive(connection)

    def collect(self) -> list[Input]:
        """Return what the clients have asked since the last call, without waiting."""
        if self._buffered_bytes > BUFFERED_BYTES_END:
            self._relieve()
        inputs: list[Input] = []
        self._collected = 0
        if self._commands:
            if self._keeps_back():
                self._collected = len(self._commands)
            else:
                self._hand_over(inputs)
        for reads, stale in ((self._reads, False), (self._stale_reads, True)):
            if reads:
                arrived = self._state_asked if self._has_queries else self._keys_arrived
                inputs.append(arrived(reads.copy(), stale))
                reads.clear()
        self._has_queries = False
        return inputs

    @property
    def holds(self) -> bool:
        """Whether writes are kept back for a moment, so that more of them share a batch."""
        return self._held_since is not None

    def _keeps_back(self) -> bool:
        """Return whether the writes that have come wait for those that are under way.

        A batch costs far more than what is in it. Clients that wait for their answers ask again as
        soon as they have them: many small batches on their way would stay small.
        """
        if len(self._commands) >= self.writes_under_way:
            return False
        now = self._clock()
        if self._held_since is None:
            self._held_since = now
        return now - self._held_since < self._hold_seconds

    def _hand_over(self, inputs: list[Input]) -> None:
        self._held_since = None
        self.writes_under_way += len(self._commands)
        inputs.append(CommandsArrived(self._commands, self._waiters))
        self._commands, self._waiters = [], []

    def _keys_arrived(self, slots: list[AskingSlot], stale: bool) -> KeysArrived:
        def respond(values: Sequence[bytes | None]) -> None:
            for slot, value in zip(slots, values, strict=False):
                if self._may_be_answered(slot):
                    assert isinstance(slot, ReadSlot)
                    slot.found(value)
                else:
                    self._postpone(slot)
            for slot in slots[len(values) :]:
                self._postpone(slot)

        return KeysArrived([slot.key for slot in slots], respond, partial(_fail, slots), stale)

    def _state_asked(self, slots: list[AskingSlot], stale: bool) -> StateAsked:
        def answer(state: StateView) -> None:
            for slot in slots:
                if self._may_be_answered(slot):
                    slot.answer(state)
                else:
                    self._postpone(slot)

        return StateAsked(answer, partial(_fail, slots), stale)

    def _may_be_answered(self, slot: AskingSlot) -> bool:
        """Return whether there is room for the answer to a read."""
        connection = slot.connection
        # Behind one that is asked again all are, so that they are answered in their order.
        has_room = not connection.postponed and self._has_room_for_replies(connection)
        # What all the others wait for makes room.
        return has_room or (connection.is_held_up and connection.slots[0] is slot)

    def _postpone(self, slot: AskingSlot) -> None:
        """Ask for a value again once there is room for it."""
        connection = slot.connection
        if connection.closed:
            self.under_way -= 1
            return
        connection.postponed.append(slot)
        # Otherwise what it takes of its replies lets it go on.
        if connection.is_held_up or connection.outbox_bytes <= OUTBOX_BYTES_MAX:
            self.resumable(connection)

    def resumable(self, connection: Connection) -> None:
        """Let a connection go on before the next batch, if it can."""
        self._resumable[connection] = None

    def _accepted(self, connected: ClientSocket, remote: str) -> None:
        self._add(connected, remote, must_say_password=self.surroundings.password.is_set)

    def _let_in(self, connected: ClientSocket, remote: str, is_known: bool) -> None:
        try:
            self._add(connected, remote, must_say_password=not is_known)
        except OSError as problem:
            logger.warning("a Redis client from %s was not let in: %s", remote, describe(problem))

    def _add(self, connected: ClientSocket, remote: str, *, must_say_password: bool) -> None:
        if len(self._connections) >= self._connections_max:
            with contextlib.suppress(OSError):
                connected.send(error("ERR max number of clients reached"))
            connected.close()
            return
        if must_say_password and self._doorstep.is_full:
            with contextlib.suppress(OSError):
                connected.send(error("ERR too many clients have not said the password"))
            connected.close()
            return
        connection = Connection(self, connected, remote)
        if must_say_password:
            self._doorstep.add(connection)
        try:
            self._set.add(connection.descriptor, connection.ready)
        except OSError:
            self._doorstep.remove(connection)
            connected.close()
            raise
        # The kernel ends it only if `tick` does not: that tells of the reason.
        tune_socket(connected, 2 * STALL_SECONDS)
        self._connections[connection.descriptor] = connection

    def _receive(self, connection: Connection) -> None:
        try:
            received = connection.socket.recv(connection.receive_bytes)
        except BlockingIOError:
            return
        except OSError as error_of_receive:
            self._close(connection, describe(error_of_receive))
            return
        if not received:
            # It may have said only that it asks nothing more: what it has asked is answered.
            connection.ended = True
            self._look_at(connection)
            return
        if connection.is_fresh:
            command = only_command(received)
            if command is not None:
                self._begin(connection, command)
                return
        if connection.ended:
            self._discard(connection, len(received))
            return
        self._begun.pop(connection, None)
        decoder = connection.decoder
        decoder.feed(received)
        was_filled = len(received) >= connection.receive_bytes
        self._look_at(connection)
        is_large = was_filled or decoder.missing_bytes > RECEIVE_BYTES
        has_memory = self._buffered_bytes <= BUFFERED_BYTES_MAX
        connection.receive_bytes = RECEIVE_BYTES_LARGE if is_large and has_memory else RECEIVE_BYTES
        if connection.session.locked:
            connection.receive_bytes = RECEIVE_BYTES
            if connection.buffered_bytes > LOCKED_BYTES_MAX:
                self._end_with(connection, "ERR too long a command before the password")
                self._look_at(connection)
        if not has_memory and connection.buffered_bytes > 2 * RECEIVE_BYTES_LARGE:
            self._end_with(connection, "ERR too many long commands at once, try again")
            self._look_at(connection)

    def _begin(self, connection: Connection, command: list[bytes]) -> None:
        """Put the only command on its way of a client that waits for nothing: the usual case."""
        action = self._interpret(connection, command)
        if (isinstance(action, Write) and not self._is_full()) or (
            isinstance(action, Read) and self._has_room()
        ):
            self._put_on_way(connection, action)
        else:
            connection.action = action
            self._look_at(connection)

    def _interpret(self, connection: Connection, command: list[bytes]) -> Action:
        if connection.session.locked:
            return self._doorstep.interpret(connection, command, self._features())
        try:
            action = interpret(command, connection.session, self._features())
        except CommandError as problem:
            return Reply(error(str(problem)))
        if connection.session.locked:
            # RESET has taken back that it had said the password.
            self._doorstep.add(connection)
        return action

    def _relieve(self) -> None:
        """End those that hold most of a command that is not complete, until there is memory."""
        by_size = sorted(self._connections.values(), key=lambda each: each.buffered_bytes)
        while self._buffered_bytes > BUFFERED_BYTES_MAX and by_size:
            largest = by_size.pop()
            self._end_with(largest, "ERR too many long commands at once, try again")
            self._look_at(largest)

    def _end_with(self, connection: Connection, problem: str) -> None:
        """Say why after all that is due, and end the connection then."""
        connection.ended = connection.lingers = True
        connection.decoder = CommandDecoder()
        connection.last_words = error(problem)

    def _linger(self, connection: Connection) -> None:
        """Say that nothing more comes, and wait until the other side says the same."""
        try:
            connection.socket.shutdown(socket.SHUT_WR)
        except OSError as error_of_shutdown:
            self._close(connection, describe(error_of_shutdown))
            return
        self._begun.pop(connection, None)
        self._lingering[connection] = self._clock()
        connection.events = READABLE
        self._set.watch(connection.descriptor, READABLE)

    def _discard(self, connection: Connection, received_bytes: int) -> None:
        connection.discarded_bytes += received_bytes
        if connection.discarded_bytes > LINGER_BYTES_MAX:
            self._close(connection, "it does not stop sending")

    # --- commands on their way ---

    def _look_at(self, connection: Connection) -> None:
        """Put the commands of a connection on their way, as many as may be under way."""
        while True:
            action = connection.action
            if action is None:
                command = self._next_command(connection)
                if command is None:
                    break
                action = self._interpret(connection, command)
            if isinstance(action, Later):
                if connection.slots:
                    connection.action = action
                    break
                action = _decided(action)
            if not self._may_go(connection, action):
                connection.action = action
                break
            connection.action = None
            if isinstance(action, Reply):
                self._answer_at_once(connection, action.content)
                if action.closes:
                    connection.ended = connection.lingers = True
                    connection.queue.clear()
                    connection.decoder = CommandDecoder()
                continue
            self._put_on_way(connection, action)
        self._looked_at(connection)

    def _put_on_way(self, connection: Connection, action: Write | Read | Query) -> None:
        if isinstance(action, Write):
            connection.kind = WRITES
            waiter = WriteSlot(connection, action.key, action.form)
            self._commands.append(action.encoded)
            self._waiters.append(waiter)
            connection.slots.append(waiter)
        else:
            read: AskingSlot
            if isinstance(action, Read):
                read = ReadSlot(connection, action.key, action.form)
            else:
                read = QuerySlot(connection, action)
                self._has_queries = True
                self._collected += action.cost
            if action.stale:
                connection.kind = STALE_READS
                self._stale_reads.append(read)
            else:
                connection.kind = READS
                self._reads.append(read)
            connection.slots.append(read)
        self.under_way += 1
        self._collected += 1

    def _next_command(self, connection: Connection) -> list[bytes] | None:
        queue = connection.queue
        if not queue:
            try:
                queue.extend(connection.decoder.take(COMMANDS_TAKEN_MAX))
            except FramingError as problem:
                self._end_with(connection, f"ERR Protocol error: {problem}")
            if not queue:
                return None
        return queue.popleft()

    def _may_go(self, connection: Connection, action: Reply | Write | Read | Query) -> bool:
        """Return whether an action may be put on its way; see to it that it is asked again."""
        slots = connection.slots
        if (
            len(slots) >= PIPELINE_MAX
            or connection.outbox_bytes > OUTBOX_BYTES_MAX
            or connection.postponed
        ):
            return False
        if type(action) is Write:
            kind, is_crowded = WRITES, self._is_full()
        elif isinstance(action, (Read, Query)):
            kind = STALE_READS if action.stale else READS
            is_crowded = not self._has_room()
        else:
            assert type(action) is Reply
            if slots and len(action.content) > REPLY_BYTES_HELD_MAX:
                return False
            kind, is_crowded = connection.kind, not self._has_room()
        if is_crowded:
            self._crowded[connection] = None
            return False
        return connection.kind in (NO_KIND, kind)

    def _is_full(self) -> bool:
        """Return whether no more commands can go on their way in this turn."""
        return self.under_way >= UNDER_WAY_MAX or self._collected >= TURN_COMMANDS_MAX

    def _has_room(self) -> bool:
        """Return whether there is room for one more command with a long reply."""
        return not self._is_full() and self.outboxes_bytes <= OUTBOXES_BYTES_MAX

    def _has_room_for_replies(self, connection: Connection) -> bool:
        return (
            connection.outbox_bytes <= OUTBOX_BYTES_MAX
            and self.outboxes_bytes <= OUTBOXES_BYTES_MAX
        )

    def _answer_at_once(self, connection: Connection, reply: bytes) -> None:
        slot = Slot(connection, b"")
        connection.slots.append(slot)
        self.under_way += 1
        # It takes its share of the turn as well, though the node has nothing to do with it.
        self._collected += 1
        connection.answered(slot, reply)

    def _looked_at(self, connection: Connection) -> None:
        """Take note of what is left of a connection, and wait for what it can do next."""
        if connection.closed:
            return
        if connection.ended and not connection.has_to_wait:
            if connection.last_words:
                last_words, connection.last_words = connection.last_words, b""
                self._answer_at_once(connection, last_words)
            if not (connection.slots or connection.outbox):
                if connection.lingers and connection not in self._lingering:
                    self._linger(connection)
                else:
                    self._close(connection, "closed by the other side")
                return
        buffered_bytes = connection.decoder.buffered_bytes
        self._buffered_bytes += buffered_bytes - connection.buffered_bytes
        connection.buffered_bytes = buffered_bytes
        self._watch(connection)

    def _resume(self, connection: Connection) -> None:
        """Go on with a connection on which something has changed."""
        if connection.closed:
            return
        if connection.postponed:
            unanswered = [
                slot
                for slot in connection.slots
                if slot.reply is None and isinstance(slot, AskingSlot)
            ]
            if len(unanswered) > len(connection.postponed):
                # Others are under way that were asked after these: none may overtake them.
                return
            if not connection.is_held_up:
                if connection.outbox_bytes > OUTBOX_BYTES_MAX:
                    return
                if self.outboxes_bytes > OUTBOXES_BYTES_MAX:
                    self._crowded[connection] = None
                    return
            reads = self._stale_reads if connection.kind == STALE_READS else self._reads
            # These are the same, in the order of their replies.
            reads += unanswered
            if any(isinstance(slot, QuerySlot) for slot in unanswered):
                self._has_queries = True
            connection.postponed = []
        self._look_at(connection)

    # --- answering ---

    def flush(self) -> None:
        """Send the replies of the last turn, all of one connection in one system call."""
        if self.dirty:
            dirty, self.dirty = self.dirty, set()
            for connection in dirty:
                # One that is stalled is told of by the set.
                if connection not in self._stalled:
                    self._send(connection)
        self._wake_if_needed()

    def _wake_if_needed(self) -> None:
        """Let the driver collect at once if somebody can go on who had to wait."""
        if self._resumable or (self._crowded and self._has_room()):
            self._inbox.wake()

    def _send(self, connection: Connection) -> None:
        outbox = connection.outbox
        if connection.closed or not outbox:
            return
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
            if connection.is_fresh and connection not in self._stalled:
                return
            self._stalled.pop(connection, None)
        else:
            connection.outbox = [memoryview(joined)[sent:]]
            if sent or connection not in self._stalled:
                # Behind the others, who have taken nothing for longer.
                self._stalled.pop(connection, None)
                self._stalled[connection] = self._clock()
        if connection.has_to_wait or connection.postponed:
            # What was answered or sent has made room.
            self._resumable[connection] = None
        self._looked_at(connection)

    def tick(self) -> None:
        """Close the connections that keep others waiting. Call it now and then."""
        waiting = self._stalled or self._begun or self._lingering or self._doorstep
        if not waiting and self._acceptor.again_at is None:
            return
        now = self._clock()
        self._acceptor.tick(now)
        for connection, since in list(self._begun.items()):
            if now - since < STALL_SECONDS:
                break
            self._close(connection, "it does not end its command")
        for connection in self._doorstep.overdue(now):
            self._close(connection, "it does not say the password")
        for connection, since in list(self._lingering.items()):
            if now - since < LINGER_SECONDS:
                break
            self._close(connection, "it was told that it ends")
        for connection, since in list(self._stalled.items()):
            is_crowded = self.outboxes_bytes > OUTBOXES_BYTES_MAX
            if now - since < (STALL_SECONDS_CROWDED if is_crowded else STALL_SECONDS):
                break
            self._close(connection, "it does not read its replies")
        self._wake_if_needed()

    def _watch(self, connection: Connection) -> None:
        """Wait for what the connection can do next."""
        events = 0
        if not (connection.ended or connection.has_to_wait):
            events |= READABLE
            if connection.buffered_bytes and connection not in self._begun:
                self._begun[connection] = self._clock()
        elif connection in self._begun:
            del self._begun[connection]
        if connection in self._stalled:
            events |= WRITABLE
        if events != connection.events:
            connection.events = events
            self._set.watch(connection.descriptor, events)

    def _close(self, connection: Connection, problem: str) -> None:
        if connection.closed:
            return
        connection.closed = True
        del self._connections[connection.descriptor]
        if problem:
            logger.debug("Redis client at %s: %s", connection.remote, problem)
        self._set.remove(connection.descriptor)
        connection.socket.close()
        self._buffered_bytes -= connection.buffered_bytes
        self.outboxes_bytes -= connection.outbox_bytes
        connection.outbox_bytes = 0
        # Those that the node knows are answered some time, and find nobody.
        self.under_way -= len(connection.postponed)
        self.under_way -= sum([slot.reply is not None for slot in connection.slots])
        connection.slots.clear()
        connection.postponed.clear()
        connection.queue.clear()
        connection.outbox.clear()
        connection.action = None
        for waiting in (
            self._resumable,
            self._crowded,
            self._stalled,
            self._begun,
            self._lingering,
        ):
            waiting.pop(connection, None)
        self.dirty.discard(connection)
        self._doorstep.remove(connection)
        forget(connection.session)

    def refusal(self, reply: ErrorReply, key: bytes) -> bytes:
        """Return what is said where there is no result."""
        return refusal(reply, key, self._redis_address)


def _fail(slots: list[AskingSlot], reply: NativeReply) -> None:
    assert isinstance(reply, ErrorReply)
    for slot in slots:
        slot.failed(reply)


def _decided(later: Later) -> Reply | Write | Query:
    try:
        return later.decide()
    except CommandError as refusal_of_command:
        return Reply(error(str(refusal_of_command)))
