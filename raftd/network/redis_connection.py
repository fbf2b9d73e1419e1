"""One client of the Redis protocol: what it has asked for, and the replies that are due to it.

Replies leave in the order of the commands. Which commands may be under way together, and whether
there is room for their replies, is for the listener to say.
"""

from __future__ import annotations

import socket
from collections import deque
from typing import TYPE_CHECKING, TypeAlias

from raftd.commands import VALUE_BYTES_MAX, Result
from raftd.inputs import StateView
from raftd.network.redis_actions import (
    Action,
    CommandError,
    Query,
    ResultForm,
    Session,
    ValueForm,
)
from raftd.network.redis_framing import CommandDecoder, error
from raftd.network.secured_stream import SecuredStream
from raftd.network.sockets import READABLE
from raftd.protocol import ErrorReply

if TYPE_CHECKING:
    from raftd.network.redis_listener import RedisListener

RECEIVE_BYTES = 16 * 1024
"""Of one read: some dozens of commands."""

NO_KIND, WRITES, READS, STALE_READS = 0, 1, 2, 3
"""What the commands of a connection do that are under way together."""

ClientSocket: TypeAlias = socket.socket | SecuredStream
Buffer: TypeAlias = bytes | memoryview


class Slot:
    """The place of one reply among those of its connection."""

    __slots__ = ("connection", "key", "reply")

    def __init__(self, connection: Connection, key: bytes) -> None:
        self.connection = connection
        self.key = key
        self.reply: bytes | None = None

    def failed(self, reply: ErrorReply) -> None:
        """Take why there is no answer."""
        connection = self.connection
        connection.answered(self, connection.listener.refusal(reply, self.key))


class WriteSlot(Slot):
    """That of a reply to a command for the log."""

    __slots__ = ("form",)

    def __init__(self, connection: Connection, key: bytes, form: ResultForm) -> None:
        super().__init__(connection, key)
        self.form = form

    def done(self, result: Result) -> None:
        """Take what it has come to."""
        connection = self.connection
        connection.listener.writes_under_way -= 1
        connection.answered(self, self.form(result))

    def failed(self, reply: ErrorReply) -> None:
        """Take why there is no answer."""
        self.connection.listener.writes_under_way -= 1
        super().failed(reply)


class QuerySlot(Slot):
    """That of a reply to a question that is more than the value of one key."""

    __slots__ = ("query",)

    def __init__(self, connection: Connection, query: Query) -> None:
        super().__init__(connection, query.key)
        self.query = query

    def answer(self, state: StateView) -> None:
        """Take the answer from the state."""
        connection = self.connection
        if connection.closed:
            connection.listener.under_way -= 1
            return
        try:
            reply = self.query.run(state)
        except CommandError as refusal:
            reply = error(str(refusal))
        connection.answered(self, reply)

    def failed(self, reply: ErrorReply) -> None:
        """Take why there is no answer."""
        if self.query.failed is not None:
            self.query.failed()
        super().failed(reply)


class ReadSlot(Slot):
    """That of a reply to a read of one key."""

    __slots__ = ("form",)

    def __init__(self, connection: Connection, key: bytes, form: ValueForm) -> None:
        super().__init__(connection, key)
        self.form = form

    def answer(self, state: StateView) -> None:
        """Take the value from the state."""
        (value,) = state.values((self.key,), VALUE_BYTES_MAX)
        self.found(value)

    def found(self, value: bytes | None) -> None:
        """Take what it has found."""
        self.connection.answered(self, self.form(value))


AskingSlot: TypeAlias = QuerySlot | ReadSlot
"""That of a reply to a question."""


class Connection:
    """One client."""

    __slots__ = (
        "action",
        "buffered_bytes",
        "closed",
        "decoder",
        "descriptor",
        "discarded_bytes",
        "ended",
        "events",
        "kind",
        "last_words",
        "lingers",
        "listener",
        "outbox",
        "outbox_bytes",
        "postponed",
        "queue",
        "receive_bytes",
        "remote",
        "session",
        "slots",
        "socket",
    )

    def __init__(self, listener: RedisListener, connected: ClientSocket, remote: str) -> None:
        self.listener = listener
        self.socket = connected
        self.descriptor = connected.fileno()
        self.remote = remote
        self.decoder = CommandDecoder()
        self.buffered_bytes = 0
        """What the decoder held when it was looked at last."""
        surroundings = listener.surroundings
        surroundings.sessions += 1
        self.session = Session(
            number=surroundings.sessions, remote=remote, surroundings=surroundings
        )
        self.queue: deque[list[bytes]] = deque()
        """Commands that were received and are not looked at yet."""
        self.action: Action | None = None
        """What the one before them asks for, where that has to wait."""
        self.slots: deque[Slot] = deque()
        """The replies that are due, in their order."""
        self.kind = NO_KIND
        """What the commands do that are under way."""
        self.postponed: list[AskingSlot] = []
        """Reads whose values would not have fitted: the last ones under way, to be asked again."""
        self.outbox: list[Buffer] = []
        """Replies that may leave."""
        self.outbox_bytes = 0
        """Of these, and of those that wait in their slots for one before them."""
        self.receive_bytes = RECEIVE_BYTES
        self.events = READABLE
        self.ended = False
        """Nothing more is read; it is closed when all that is due has left."""
        self.last_words = b""
        """What is said before that, behind all replies."""
        self.lingers = False
        """Whether what it may be sending is thrown away before it is closed."""
        self.discarded_bytes = 0
        self.closed = False

    @property
    def is_fresh(self) -> bool:
        """Whether nothing is left of what it has sent and what it is due, and more may come."""
        return not (
            self.slots
            or self.buffered_bytes
            or self.queue
            or self.outbox
            or self.ended
            or self.action is not None
        )

    @property
    def is_held_up(self) -> bool:
        """Whether it has replies that wait for one before them, and none on its way."""
        return self.outbox_bytes > 0 and not self.outbox

    @property
    def has_to_wait(self) -> bool:
        """Whether it has sent commands that are not on their way."""
        return self.action is not None or bool(self.queue)

    def ready(self, events: int) -> None:
        """Take note that the socket is ready."""
        self.listener.ready(self, events)

    def answered(self, slot: Slot, reply: bytes) -> None:
        """Let replies leave up to the first that is not there."""
        listener = self.listener
        if self.closed:
            listener.under_way -= 1
            return
        slot.reply = reply
        self.outbox_bytes += len(reply)
        listener.outboxes_bytes += len(reply)
        slots = self.slots
        if slots[0] is not slot:
            if self.postponed:
                listener.resumable(self)
            return
        outbox = self.outbox
        while slots:
            due = slots[0].reply
            if due is None:
                break
            outbox.append(due)
            slots.popleft()
            listener.under_way -= 1
        if not slots:
            self.kind = NO_KIND
        listener.dirty.add(self)
