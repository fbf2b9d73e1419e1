"""TLS on sockets: both sides show a certificate, and what is wrong with one is said in words.

A handshake is a matter of tasks. Afterwards a secured socket is read and written like a plain one,
without blocking, also in the driver's set: a task for each connection would have to wait for the
event loop, which a busy driver goes through only now and then.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import trio

from raftd.network.connection import describe, remote_address
from raftd.network.dialling import Dial, dial_tcp, split_address
from raftd.network.secured_stream import SecuredStream
from raftd.tls import (
    CurrentCredentials,
    Holder,
    TlsProblem,
    check_server,
    holder_of,
    is_no_tls,
)

TLS_HANDSHAKE_TIMEOUT_SECONDS = 5.0
"""As for a greeting: a few round trips, with one packet lost."""
HANDSHAKES_MAX = 64
"""Handshakes under way on one listener. Each takes the driver about a millisecond, and all of them
may be ready in one turn: that must not use up an election timeout."""
HANDSHAKES_PER_HOST_MAX = 32
"""Of those, how many one host can take up. Who waits does so within the time of its handshake."""

LINGER_SECONDS = 1.0
"""Who is refused may still be sending. For so long it is listened to, so that it can read why."""


class HandshakeError(Exception):
    """No secured connection came about; the message says why, in words."""

    def __init__(self, message: str, *, silent: bool = False) -> None:
        """`silent`: it ended without a word, as from a port scanner or a health check."""
        super().__init__(message)
        self.silent = silent


class Handshakes:
    """How many handshakes may be under way at once, altogether and with one host."""

    def __init__(self) -> None:
        self._all = trio.Semaphore(HANDSHAKES_MAX)
        self._hosts: dict[str, tuple[trio.Semaphore, int]] = {}
        """For each host its semaphore, and how many hold it or wait for it."""

    @asynccontextmanager
    async def turn(self, host: str) -> AsyncIterator[None]:
        """Wait for a turn of `host`, and hold it."""
        semaphore, users = self._hosts.get(host, (trio.Semaphore(HANDSHAKES_PER_HOST_MAX), 0))
        self._hosts[host] = (semaphore, users + 1)
        try:
            async with semaphore, self._all:
                yield
        finally:
            _, users = self._hosts[host]
            if users == 1:
                del self._hosts[host]
            else:
                self._hosts[host] = (semaphore, users - 1)


@attrs.frozen
class Secured:
    """A stream that is encrypted, and whose other side has shown who it is."""

    stream: SecuredStream
    holder: Holder | None
    """None if it has shown no certificate, or one that says nothing of use."""
    problem: str = ""
    """Why there is none."""


def host_of(remote: str) -> str:
    """Return the host of HOST:PORT."""
    return remote.rpartition(":")[0]


async def accept(
    stream: trio.SocketStream,
    context: ssl.SSLContext,
    handshakes: Handshakes,
    *,
    to_plain: bytes = b"",
) -> Secured:
    """Shake hands with the side that has dialled us; `stream` is used up, whatever comes of it.

    Args:
        stream: just accepted.
        context: of our side.
        handshakes: those under way on the same listener.
        to_plain: what is said to somebody who begins without TLS.

    Raises:
        HandshakeError: it does not speak TLS, shows a certificate of another CA or none where one
            is needed, or takes too long.
    """
    host = host_of(remote_address(stream))
    try:
        secured = _secured(stream, context)
    except OSError as error:
        # Gone before anything was said.
        raise HandshakeError(describe(error), silent=True) from error
    try:
        with trio.fail_after(TLS_HANDSHAKE_TIMEOUT_SECONDS):
            async with handshakes.turn(host):
                await secured.shake_hands()
    except BaseException as error:
        if isinstance(error, ssl.SSLError):
            last_words = to_plain if is_no_tls(error) else b""
            await secured.close_lingering(LINGER_SECONDS, last_words)
        secured.close()
        if isinstance(error, trio.TooSlowError):
            raise HandshakeError(
                f"no TLS handshake for {TLS_HANDSHAKE_TIMEOUT_SECONDS:.1f} s"
            ) from None
        if isinstance(error, OSError):
            silent = not isinstance(error, ssl.SSLError) or isinstance(error, ssl.SSLEOFError)
            raise HandshakeError(f"TLS: {describe(error)}", silent=silent) from error
        raise
    try:
        return Secured(secured, holder_of(secured.certificate()))
    except TlsProblem as problem:
        return Secured(secured, None, str(problem))


def _secured(
    stream: trio.SocketStream, context: ssl.SSLContext, host: str | None = None
) -> SecuredStream:
    """Return a stream with the socket of `stream`, which has not shaken hands yet.

    Args:
        stream: used up by this.
        context: for servers, or for clients if `host` is named.
        host: that was dialled.

    Raises:
        OSError: the connection is gone.
    """
    plain = socket.socket(fileno=stream.socket.detach())
    try:
        plain.setblocking(False)
        return SecuredStream(
            context.wrap_socket(
                plain,
                server_side=host is None,
                server_hostname=host,
                do_handshake_on_connect=False,
            )
        )
    except BaseException:
        plain.close()
        raise


def dial_tls(credentials: CurrentCredentials, name: str = "") -> Dial:
    """Return a dialler that shows our certificate and looks at that of the server.

    Args:
        credentials: those in force when it dials are used.
        name: of the server that has to answer. Empty: any server, whose certificate has to be one
            for the host that is dialled.
    """

    async def dial(address: str) -> trio.abc.Stream:
        stream = await dial_tcp(address)
        assert isinstance(stream, trio.SocketStream)
        now = credentials.now
        host, _ = split_address(address)
        secured = _secured(stream, now.members if name else now.strangers, host)
        try:
            await secured.shake_hands()
            check_server(secured.certificate(), name)
        except BaseException as error:
            secured.close()
            if isinstance(error, OSError | TlsProblem):
                raise ConnectionError(f"TLS: {describe(error)}") from None
            raise
        return secured

    return dial
