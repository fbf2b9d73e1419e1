"""Connections for trio: many requests on their way at once, whoever asks."""

from __future__ import annotations

import math
import socket
from typing import TYPE_CHECKING

import trio

from raftd.client.calls import Ask
from raftd.client.conversation import Conversation
from raftd.client.errors import ConnectionProblem
from raftd.codec import WireError
from raftd.config_values import format_duration, parse_address
from raftd.protocol import Reply, Welcome

if TYPE_CHECKING:
    import ssl

RECEIVE_BYTES = 64 * 1024
"""Asked of the stream at once."""
WRITE_BYTES = 64 * 1024
"""Written at once, and as much more as the last message has. What waits behind it can be withdrawn
and then was certainly not sent."""
ABANDONED_MAX = 64
"""Requests whose askers have gone while the server owes the answers. A server takes 256 unanswered
ones of a connection; with more than this one, the connection is given up instead."""


class _Waiter:
    """Somebody who waits for a reply."""

    __slots__ = ("arrived", "problem", "reply")

    def __init__(self) -> None:
        self.arrived = trio.Event()
        self.reply: Reply | None = None
        self.problem: ConnectionProblem | None = None


class Link:
    """A connection to one server, past the greeting, shared by all calls of a client.

    Each request has a number, so that replies may come in any order. Whoever asks may go away at
    any time without harm to the others: bytes are written by a task of the link.
    """

    def __init__(
        self, stream: trio.abc.Stream, conversation: Conversation, welcome: Welcome
    ) -> None:
        """Begin after the greeting; nothing is read or written before `run`."""
        self.welcome = welcome
        self.closed = False
        self._stream = stream
        self._conversation = conversation
        self._waiters: dict[int, _Waiter | None] = {}
        """By number; None for one who has gone while the server owes the answer."""
        self._abandoned = 0
        self._outbox: dict[int, bytes] = {}
        """By number, what the writer has not taken yet."""
        self._work = trio.Event()
        self._received_s = trio.current_time()

    @property
    def address(self) -> str:
        """Where it leads."""
        return self._conversation.address

    async def run(self) -> None:
        """Carry bytes until the connection ends or `close` is called. Never raises but to be
        cancelled."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._write, nursery.cancel_scope)
                nursery.start_soon(self._read, nursery.cancel_scope)
        finally:
            self.close()
            with trio.CancelScope(shield=True):
                await trio.aclose_forcefully(self._stream)

    async def discard(self) -> None:
        """Close the connection; instead of `run`."""
        self.close()
        await trio.aclose_forcefully(self._stream)

    def close(
        self, kind: str = "lost", reason: str = "the connection was lost before the answer"
    ) -> None:
        """Let everybody who waits know that no reply will come; `run` ends soon."""
        if self.closed:
            return
        self.closed = True
        self._work.set()
        for number, waiter in self._waiters.items():
            if waiter is not None:
                sent = number not in self._outbox
                waiter.problem = ConnectionProblem(self.address, kind, reason, sent=sent)
                waiter.arrived.set()
        self._waiters.clear()
        self._outbox.clear()

    async def ask(self, step: Ask) -> Reply:
        """Send the request of `step` and return its reply.

        Raises:
            ConnectionProblem: none came in time. `sent` says whether it may have been received.
        """
        if self.closed:
            raise ConnectionProblem(self.address, "lost", "the connection was lost")
        started_s = trio.current_time()
        deadline = step.deadline.or_after_ms(step.reply_timeout_ms)
        number, message = self._conversation.request(step.request)
        waiter = self._waiters[number] = _Waiter()
        self._outbox[number] = message
        step.sent = True
        self._work.set()
        try:
            with trio.move_on_at(math.inf if deadline.at_s is None else deadline.at_s):
                await waiter.arrived.wait()
        finally:
            if not waiter.arrived.is_set():
                step.sent = self._withdraw(number)
        if waiter.reply is not None:
            return waiter.reply
        if waiter.problem is not None:
            raise waiter.problem
        waited_ms = 1000 * (trio.current_time() - started_s)
        if waited_ms >= step.reply_timeout_ms and self._received_s <= started_s:
            # It is silent for everybody: the others need not find out one after the other.
            self.close()
        within = format_duration(max(1, round(waited_ms)))
        reason = f"no answer within {within}"
        raise ConnectionProblem(self.address, "timed-out", reason, sent=step.sent)

    def _withdraw(self, number: int) -> bool:
        """Note that nobody waits for a reply any more; return whether the request may be sent."""
        if self._outbox.pop(number, None) is not None:
            del self._waiters[number]
            return False
        if number in self._waiters:
            self._waiters[number] = None
            self._abandoned += 1
            if self._abandoned > ABANDONED_MAX:
                self.close()
        return True

    async def _write(self, running: trio.CancelScope) -> None:
        try:
            while not self.closed:
                if not self._outbox:
                    self._work = trio.Event()
                    await self._work.wait()
                    continue
                await self._stream.send_all(self._take_messages())
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self.close()
        finally:
            running.cancel()

    def _take_messages(self) -> bytes:
        """Return what is to be written next: of small messages many, of large ones one."""
        messages: list[bytes] = []
        size_bytes = 0
        while self._outbox and size_bytes < WRITE_BYTES:
            number = next(iter(self._outbox))
            message = self._outbox.pop(number)
            messages.append(message)
            size_bytes += len(message)
        return b"".join(messages)

    async def _read(self, running: trio.CancelScope) -> None:
        try:
            while not self.closed:
                received = await self._stream.receive_some(RECEIVE_BYTES)
                if not received:
                    self.close()
                    return
                self._received_s = trio.current_time()
                for payload in self._conversation.payloads(received):
                    self._take(*self._conversation.reply(payload))
        except WireError as error:
            self.close("not-raftd", f"an answer that cannot be read ({error})")
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self.close()
        finally:
            running.cancel()

    def _take(self, number: int, reply: Reply) -> None:
        if self.closed:
            return
        if number not in self._waiters:
            raise WireError(f"a reply to request {number}, which is not waited for")
        waiter = self._waiters.pop(number)
        if waiter is None:
            self._abandoned -= 1
            return
        waiter.reply = reply
        waiter.arrived.set()


async def open_link(address: str, tls: ssl.SSLContext | None) -> Link:
    """Dial `address`, HOST:PORT, and return the link once the server has welcomed us.

    Takes as long as it takes: cancel it. Its `run` has to be started, or it is to be closed with
    `discard`.

    Args:
        address: where to dial.
        tls: how to protect the connection; None for not at all.

    Raises:
        ConnectionProblem: nobody is there, it is no raftd, or it refuses us.
    """
    stream = await dial(address, tls)
    conversation = Conversation(address)
    try:
        await stream.send_all(conversation.opening())
        payloads: list[bytes] = []
        while not payloads:
            received = await stream.receive_some(RECEIVE_BYTES)
            if not received:
                raise _ended(conversation, tls, EOFError())
            payloads = conversation.payloads(received)
        welcome = conversation.welcome(payloads[0])
        if len(payloads) > 1:
            raise conversation.stranger(WireError("it answers before it was asked"))
    except WireError as error:
        await trio.aclose_forcefully(stream)
        raise conversation.stranger(error) from None
    except trio.BrokenResourceError as error:
        await trio.aclose_forcefully(stream)
        raise _ended(conversation, tls, error.__cause__ or error) from None
    except BaseException:
        with trio.CancelScope(shield=True):
            await trio.aclose_forcefully(stream)
        raise
    return Link(stream, conversation, welcome)


def _ended(
    conversation: Conversation, tls: ssl.SSLContext | None, error: BaseException
) -> ConnectionProblem:
    """Return what it means that a connection ends before the server has said a word."""
    if tls is None:
        return conversation.stranger(None)
    from raftd.client.certificates import refused_certificate

    return refused_certificate(conversation.address, error)


async def dial(address: str, tls: ssl.SSLContext | None) -> trio.abc.Stream:
    """Return a connected stream. Every connection of an asynchronous client begins here.

    Raises:
        ConnectionProblem: there is none.
    """
    host, port = parse_address(address)
    try:
        stream = await trio.open_tcp_stream(host, port)
    except OSError as error:
        raise _problem(address, host, error) from None
    if tls is None:
        return stream
    from raftd.client.certificates import certificate_problem, check_certificate

    protected = trio.SSLStream(stream, tls, server_hostname=host, https_compatible=True)
    try:
        await protected.do_handshake()
        check_certificate(address, protected.getpeercert())
    except trio.BrokenResourceError as error:
        await trio.aclose_forcefully(stream)
        raise certificate_problem(address, error.__cause__ or error) from None
    except BaseException:
        with trio.CancelScope(shield=True):
            await trio.aclose_forcefully(stream)
        raise
    return protected


def _problem(address: str, host: str, error: OSError) -> ConnectionProblem:
    """Return what it means that no connection came about."""
    if isinstance(error, socket.gaierror):
        reason = f"the host name {host} cannot be resolved ({error.strerror})"
        return ConnectionProblem(address, "unresolved", reason)
    # A name may have several addresses; what the first of them says is as good as any.
    cause: BaseException | None = error.__cause__
    while isinstance(cause, BaseExceptionGroup):
        cause = cause.exceptions[0]
    found = cause if isinstance(cause, OSError) else error
    if isinstance(found, ConnectionRefusedError):
        return ConnectionProblem(address, "refused", "connection refused")
    reason = (found.strerror or str(found)).lower()
    return ConnectionProblem(address, "unreachable", reason)
