"""A TCP connection with TLS that never blocks: for tasks, and for the driver's set of sockets."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Mapping
from typing import Any

import trio

RECORD_BYTES = 16 * 1024
"""What one record of TLS holds at most (RFC 8446, 5.1). Whoever reads so many has all that was
decrypted: a set of sockets knows of the rest only."""
WRITE_BYTES = 4 * RECORD_BYTES
"""What is encrypted at once. What the kernel does not take has to be offered again from its
beginning, so a long send has to show progress piece by piece."""

LINGER_READS_MAX = 16
"""Of what comes from somebody who is refused: a greeting is less."""


class SecuredStream(trio.abc.Stream):
    """One end of a connection.

    `recv` and `send` do not wait, like those of a socket that does not block. The other methods are
    for tasks. After a `send` that has not taken all, the next one has to begin with what is left.
    """

    def __init__(self, connected: ssl.SSLSocket) -> None:
        """Take over `connected`, which does not block and has not shaken hands yet."""
        assert connected.gettimeout() == 0
        self._socket = connected

    def fileno(self) -> int:
        """Return the descriptor, -1 once it is closed."""
        return self._socket.fileno()

    def certificate(self) -> Mapping[str, Any] | None:
        """Return the verified certificate of the other side; None or empty if it has shown none."""
        return self._socket.getpeercert()

    # --- without waiting ---

    def recv(self, size_bytes: int) -> bytes:
        """Return what has come, empty at the end.

        Args:
            size_bytes: at most so many; at least `RECORD_BYTES`.

        Raises:
            BlockingIOError: nothing whole has come.
            OSError: the connection is broken, or it is no TLS.
        """
        assert size_bytes >= RECORD_BYTES
        try:
            content = self._socket.recv(size_bytes)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise BlockingIOError from None
        except ssl.SSLZeroReturnError:
            return b""
        if len(content) < RECORD_BYTES:
            return content
        pieces, left_bytes = [content], size_bytes - len(content)
        while left_bytes >= RECORD_BYTES and len(pieces[-1]) == RECORD_BYTES:
            try:
                pieces.append(self._socket.recv(left_bytes))
            except OSError:
                # There is no more, or the next call says what is wrong.
                break
            left_bytes -= len(pieces[-1])
        return b"".join(pieces)

    def send(self, content: bytes | memoryview) -> int:
        """Send from the beginning of `content`; return how many bytes were taken.

        Raises:
            BlockingIOError: none.
            OSError: the connection is broken.
        """
        view = memoryview(content)
        sent = 0
        while sent < len(view):
            try:
                sent += self._socket.send(view[sent : sent + WRITE_BYTES])
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                if not sent:
                    raise BlockingIOError from None
                break
        return sent

    def setsockopt(self, level: int, option: int, value: int) -> None:
        """Set an option of the socket."""
        self._socket.setsockopt(level, option, value)

    def shutdown(self, how: int) -> None:
        """Shut down one direction, or both; what comes afterwards is not decrypted any more."""
        self._socket.shutdown(how)

    def close(self) -> None:
        """Close it, and say so to the other side if that takes no waiting."""
        descriptor = self._socket.fileno()
        if descriptor < 0:
            return
        trio.lowlevel.notify_closing(descriptor)
        with contextlib.suppress(OSError, ValueError):
            self._socket.unwrap()
        self._socket.close()

    # --- for tasks ---

    async def shake_hands(self) -> None:
        """Agree on keys, and on who we are.

        Raises:
            OSError: there is no agreement; the other side was told why, if it listens.
        """
        while True:
            try:
                self._socket.do_handshake()
                return
            except ssl.SSLWantReadError:
                await trio.lowlevel.wait_readable(self._socket)
            except ssl.SSLWantWriteError:
                await trio.lowlevel.wait_writable(self._socket)

    async def close_lingering(self, seconds: float, last_words: bytes = b"") -> None:
        """Send nothing more, and close it when the other side does, or after so long.

        To be closed with something unread would take back what was said last.

        Args:
            seconds: how long.
            last_words: said before that, without TLS.
        """
        with trio.move_on_after(seconds), contextlib.suppress(OSError):
            # That ends TLS on it, too: what comes is thrown away as it is.
            if last_words:
                socket.socket.send(self._socket, last_words)
            self._socket.shutdown(socket.SHUT_WR)
            for _ in range(LINGER_READS_MAX):
                await trio.lowlevel.wait_readable(self._socket)
                if not self._socket.recv(RECORD_BYTES):
                    break
        self.close()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Wait for something; return it, empty at the end.

        Raises:
            trio.BrokenResourceError: the connection is broken.
        """
        await trio.lowlevel.checkpoint()
        while True:
            try:
                return self.recv(max(RECORD_BYTES, max_bytes or 0))
            except BlockingIOError:
                await trio.lowlevel.wait_readable(self._socket)
            except OSError as error:
                raise trio.BrokenResourceError from error

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send all of `data`.

        Raises:
            trio.BrokenResourceError: the connection is broken.
        """
        await trio.lowlevel.checkpoint()
        view = memoryview(data)
        while view:
            try:
                view = view[self.send(view) :]
            except BlockingIOError:
                await trio.lowlevel.wait_writable(self._socket)
            except OSError as error:
                raise trio.BrokenResourceError from error

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until something can be written."""
        await trio.lowlevel.wait_writable(self._socket)

    async def aclose(self) -> None:
        """Close it."""
        self.close()
        await trio.lowlevel.checkpoint()
