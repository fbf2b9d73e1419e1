"""From HOST:PORT to a stream whose other end has said who it is."""

from __future__ import annotations

import errno
import os
from collections.abc import Awaitable, Callable
from typing import TypeAlias

import attrs
import trio

from raftd.codec import FrameDecoder, WireError, decode_reply, encode_frame, encode_request
from raftd.network.connection import (
    RECEIVE_BYTES_MAX,
    OpeningError,
    describe,
    receive_opening,
    send_opening,
    tune,
)
from raftd.network.secured_stream import SecuredStream
from raftd.protocol import Hello, Refusal, Reply, Request, Welcome

Dial: TypeAlias = Callable[[str], Awaitable[trio.abc.Stream]]
"""Opens a stream to HOST:PORT, or raises OSError."""


class DialError(Exception):
    """No connection came about; the message says why, in words."""

    def __init__(
        self, message: str, refusal: Refusal | None = None, *, nobody_listens: bool = False
    ) -> None:
        """Make the error.

        Args:
            refusal: what the other side answered, if it is a server that refused us.
            nobody_listens: the machine is there and says that nobody listens on that port.
        """
        super().__init__(message)
        self.refusal = refusal
        self.nobody_listens = nobody_listens


@attrs.frozen
class Introduced:
    """A stream on which both sides have introduced themselves."""

    stream: trio.abc.Stream
    welcome: Welcome
    decoder: FrameDecoder
    payloads: list[bytes]
    """What came and was not looked at yet: at first what came together with the welcome."""

    async def ask(self, number: int, request: Request) -> Reply:
        """Send a request and return its answer; no other request is under way on the stream.

        Args:
            number: of the request on this connection.

        Raises:
            DialError: the other side has closed the connection.
            WireError: what came is no answer to it.
            OSError, trio.BrokenResourceError: the connection is lost.
        """
        await self.stream.send_all(encode_frame(encode_request(number, request)))
        while not self.payloads:
            received = await self.stream.receive_some(RECEIVE_BYTES_MAX)
            if not received:
                raise DialError("it closed the connection")
            self.payloads.extend(self.decoder.feed(received))
        answered, reply = decode_reply(self.payloads.pop(0))
        if answered != number:
            raise WireError(f"a reply to request {answered} where {number} was asked")
        return reply


def split_address(address: str) -> tuple[str, int]:
    """Return host and port of HOST:PORT; an IPv6 host stands in brackets.

    Raises:
        ValueError: `address` has another form.
    """
    host, colon, port = address.rpartition(":")
    if not colon or not host or not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise ValueError(f"{address!r} is not of the form HOST:PORT")
    return host.removeprefix("[").removesuffix("]"), int(port)


async def dial_tcp(address: str) -> trio.abc.Stream:
    """Open a TCP connection to HOST:PORT.

    Raises:
        OSError: nobody answers there, or the name cannot be resolved.
        ValueError: `address` is not of that form.
    """
    host, port = split_address(address)
    stream = await trio.open_tcp_stream(host, port)
    if stream.socket.getsockname() == stream.socket.getpeername():
        # On a port of the ephemeral range where nobody listens, TCP may connect us to ourselves;
        # kept open, that would also take the port from the server that belongs there.
        await trio.aclose_forcefully(stream)
        raise ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
    tune(stream)
    return stream


async def connect(dial: Dial, address: str) -> trio.abc.Stream:
    """Return a stream to HOST:PORT.

    Raises:
        DialError: in words.
    """
    try:
        return await dial(address)
    except (OSError, ValueError) as error:
        raise DialError(describe(error), nobody_listens=_is_refused(error)) from error


def _is_refused(error: BaseException) -> bool:
    """Return whether every address behind a name has refused the connection."""
    inner = error.__cause__ or error
    causes = inner.exceptions if isinstance(inner, BaseExceptionGroup) else (inner,)
    return all(isinstance(cause, ConnectionRefusedError) for cause in causes)


async def introduce(stream: trio.abc.Stream, hello: Hello) -> Introduced:
    """Say `hello` on a fresh stream and return what was answered; closes the stream on failure.

    Raises:
        DialError: refused, or no raftd, in words.
    """
    try:
        try:
            await send_opening(stream, hello)
            opening, decoder, payloads = await receive_opening(stream)
        except (trio.BrokenResourceError, OpeningError) as error:
            is_secured = isinstance(stream, SecuredStream)
            if is_secured and isinstance(error, OpeningError) and error.silent:
                # With TLS 1.3 our side of the handshake is over before the other one has judged
                # our certificate.
                raise DialError(
                    f"{error}: perhaps it refuses our certificate; see its log"
                ) from error
            raise DialError(describe(error)) from error
        if isinstance(opening, Refusal):
            raise DialError(f"refused: {opening.message}", opening)
        if not isinstance(opening, Welcome):
            raise DialError("it answers a greeting with a greeting")
        return Introduced(stream, opening, decoder, payloads)
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
