"""A connection of a loop that waits for many: it dials, greets and cuts frames, and never waits."""

from __future__ import annotations

import os
import selectors
import socket
import ssl
import time
from collections.abc import Sequence
from functools import cache
from typing import Any

from raftd.client.errors import ConnectionProblem
from raftd.codec import (
    FrameDecoder,
    WireError,
    decode_opening,
    encode_frame,
    encode_opening,
)
from raftd.config_values import parse_address
from raftd.protocol import Hello, Refusal, Welcome

RECEIVE_BYTES = 256 * 1024
"""Asked of a socket at once: a reply with the largest value takes a few turns."""
NANOSECONDS = 1_000_000_000
BUSY = "busy"
"""Code of the refusal of a server that has no connection left."""
_NOT_NOW = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
_BOTH = selectors.EVENT_READ | selectors.EVENT_WRITE


@cache
def _hello() -> bytes:
    return encode_frame(encode_opening(Hello(role="client", cluster_id="", source="", dest="")))


@cache
def _resolved(address: str) -> tuple[socket.AddressFamily, Any]:
    """Return the first socket address of HOST:PORT; it is looked up once.

    Raises:
        OSError: there is none.
    """
    host, port = parse_address(address)
    family, _, _, _, found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    return family, found


class Link:
    """A connection to one server at a time. Subclasses say what becomes of what it brings.

    It is closed, on its way, or up: welcomed by a server of the cluster that is meant.
    """

    def __init__(
        self,
        selector: selectors.BaseSelector,
        cluster_id: str,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Prepare a link to servers of the cluster `cluster_id`; nothing is dialled yet.

        Args:
            selector: of the loop.
            cluster_id: servers of others are not talked to.
            tls: how the connection is protected; None for not at all.
        """
        self._selector = selector
        self._cluster_id = cluster_id
        self._tls = tls
        self._decoder = FrameDecoder()
        self._outbox: list[bytes] = []
        self._is_connected = False
        self._is_shaking_hands = False
        self._events = 0
        self.stream: socket.socket | None = None
        """None while it is closed."""
        self.address = ""
        """HOST:PORT, where it was dialled last."""
        self.is_up = False
        self.dialled_ns = 0
        """When it was dialled last, on the monotonic clock."""

    # --- for subclasses ---

    def up(self) -> None:
        """Called when the server has welcomed us."""

    def received(self, payloads: Sequence[bytes]) -> None:
        """Called with what has come, in order. A `WireError` closes the link."""

    def down(self, problem: str, code: str) -> None:
        """Called when the link has been closed by anybody but us.

        Args:
            problem: why, in words.
            code: that of the refusal, if the server has refused us.
        """

    # --- what they use ---

    def dial(self, address: str) -> None:
        """Begin to connect to HOST:PORT. Where that fails at once, `down` is called at once."""
        assert self.stream is None
        self.address = address
        self.dialled_ns = time.monotonic_ns()
        try:
            family, place = _resolved(address)
            stream = socket.socket(family, socket.SOCK_STREAM)
        except OSError as error:
            self.down((error.strerror or str(error)).lower(), "")
            return
        stream.setblocking(False)
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._decoder = FrameDecoder()
        self._outbox = [_hello()]
        self._is_connected = False
        self._is_shaking_hands = False
        self.stream = stream
        self._events = _BOTH
        self._selector.register(stream, _BOTH, self)
        try:
            stream.connect(place)
        except BlockingIOError:
            pass
        except OSError as error:
            self.fail((error.strerror or str(error)).lower())

    def close(self) -> None:
        """Close the link, if it is not; `down` is not called."""
        if self.stream is not None:
            self._selector.unregister(self.stream)
            self.stream.close()
            self.stream = None
            self._outbox.clear()
        self.is_up = False

    def fail(self, problem: str, code: str = "") -> None:
        """Close the link and call `down`."""
        self.close()
        self.down(problem, code)

    def queue(self, frame: bytes) -> None:
        """Have `frame` sent at the next `flush`."""
        self._outbox.append(frame)

    def flush(self) -> None:
        """Hand what is queued to the kernel; what it does not take goes when it does."""
        is_ready = self._is_connected and not self._is_shaking_hands
        if not self._outbox or self.stream is None or not is_ready:
            return
        joined = self._outbox[0] if len(self._outbox) == 1 else b"".join(self._outbox)
        try:
            sent = self.stream.send(joined)
        except _NOT_NOW:
            sent = 0
        except OSError as error:
            self.fail(_words(error))
            return
        if sent == len(joined):
            self._outbox.clear()
            self._watch(selectors.EVENT_READ)
        else:
            self._outbox = [joined[sent:]]
            self._watch(_BOTH)

    def ready(self, events: int) -> None:
        """Do what the selector says can be done."""
        if not self._is_connected and events & selectors.EVENT_WRITE:
            assert self.stream is not None
            error = self.stream.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if error:
                self.fail(os.strerror(error).lower())
                return
            self._is_connected = True
            if self._tls is not None:
                self._protect(self._tls)
        if self._is_shaking_hands:
            self._shake_hands()
            return
        if events & selectors.EVENT_WRITE:
            self.flush()
        if events & selectors.EVENT_READ and self.stream is not None:
            self._receive()

    def _protect(self, tls: ssl.SSLContext) -> None:
        """Begin with a handshake."""
        assert self.stream is not None
        self._selector.unregister(self.stream)
        host, _ = parse_address(self.address)
        try:
            # It takes the descriptor from the one that there was.
            self.stream = tls.wrap_socket(
                self.stream, server_hostname=host, do_handshake_on_connect=False
            )
        finally:
            self._selector.register(self.stream, self._events, self)
        self._is_shaking_hands = True

    def _shake_hands(self) -> None:
        """Go on with the handshake as far as that is possible."""
        from raftd.client.certificates import certificate_problem, check_certificate

        stream: Any = self.stream
        try:
            stream.do_handshake()
        except ssl.SSLWantReadError:
            self._watch(selectors.EVENT_READ)
            return
        except ssl.SSLWantWriteError:
            self._watch(selectors.EVENT_WRITE)
            return
        except OSError as error:
            self.fail(str(certificate_problem(self.address, error)))
            return
        self._is_shaking_hands = False
        try:
            check_certificate(self.address, stream.getpeercert())
        except ConnectionProblem as problem:
            self.fail(str(problem))
            return
        self.flush()

    def _watch(self, events: int) -> None:
        if events != self._events and self.stream is not None:
            self._events = events
            self._selector.modify(self.stream, events, self)

    def _receive(self) -> None:
        assert self.stream is not None
        try:
            brought = self.stream.recv(RECEIVE_BYTES)
        except _NOT_NOW:
            return
        except OSError as error:
            self.fail(_words(error))
            return
        if not brought:
            self.fail("it closed the connection")
            return
        try:
            payloads = self._decoder.feed(brought)
            if payloads and not self.is_up:
                self._greet(decode_opening(payloads.pop(0)))
            # A refusal, or what it has made of the link, ends it.
            if payloads and self.is_up:
                self.received(payloads)
        except WireError as error:
            self.fail(f"it does not speak our protocol ({error})")

    def _greet(self, opening: object) -> None:
        if isinstance(opening, Refusal):
            self.fail(f"it refused the connection: {opening.message}", opening.code)
        elif not isinstance(opening, Welcome) or opening.cluster_id != self._cluster_id:
            self.fail("it is no server of this cluster")
        else:
            self.is_up = True
            self.up()


def _words(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        from raftd.tls import explain

        return explain(error)
    return (error.strerror or str(error)).lower()


def serve(selector: selectors.BaseSelector, timeout_s: float) -> None:
    """Wait until a link can do something, at most `timeout_s` seconds, and let it."""
    for key, events in selector.select(timeout_s):
        link: Link = key.data
        # Closed meanwhile, and perhaps dialled again, by one that came before it.
        if link.stream is key.fileobj:
            link.ready(events)
