"""Frames over one stream: who reads it, a task that writes, and a bounded outbox.

A socket, plain or with TLS, is read by the driver, as one of a set, whenever it closes a batch; any
other stream has a task for that. Everything that is queued for a connection leaves in one send. How
a connection ends is a sentence for the log, never an exception.
"""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Callable, Sequence

import trio

from raftd.codec import (
    OPENING_BYTES_MAX,
    FrameDecoder,
    Opening,
    WireError,
    decode_opening,
    encode_frame,
    encode_opening,
)
from raftd.network.inputs import PEERS_INPUTS_MAX, Inbox
from raftd.network.secured_stream import SecuredStream
from raftd.network.sockets import ENDED, READABLE
from raftd.protocol import PROTOCOL_VERSION_MAX
from raftd.tls import explain

RECEIVE_BYTES_MAX = 64 * 1024
"""Bytes of one read: some hundred messages or requests, which then share one batch."""
RECEIVE_LARGE_BYTES_MAX = 1024 * 1024
"""Bytes of one read in the middle of a frame that lacks so many, as those of a snapshot do."""
WRITE_PIECE_BYTES = 256 * 1024
"""What has to be written within `WRITE_STALL_TIMEOUT_SECONDS`; the slowest link that we keep
carries 50 KiB a second."""
WRITE_STALL_TIMEOUT_SECONDS = 5.0
"""A connection on which nothing can be written for so long is closed. Ten election timeouts: by
then the other side is silent for everybody, and dialling again is the quickest way back."""
KEEPALIVE_IDLE_SECONDS = 10
KEEPALIVE_INTERVAL_SECONDS = 5
KEEPALIVE_PROBES = 3
"""An idle connection to a host that is gone without a word is noticed after 25 seconds."""


class OpeningError(Exception):
    """The other side did not introduce itself; the message says how, in words."""

    def __init__(self, message: str, *, silent: bool = False) -> None:
        """`silent`: not one byte came, as from a port scanner or a health check."""
        super().__init__(message)
        self.silent = silent


def tune(stream: trio.abc.Stream) -> None:
    """Set the socket options of a fresh connection; streams without a socket are left alone."""
    if isinstance(stream, trio.SocketStream):
        tune_socket(stream.socket)


def tune_socket(
    connected: socket.socket | trio.socket.SocketType | SecuredStream,
    stall_seconds: float = WRITE_STALL_TIMEOUT_SECONDS,
) -> None:
    """Set the socket options of a fresh connection.

    Args:
        stall_seconds: after which the kernel ends it if the other side takes nothing.
    """
    options = {
        (socket.IPPROTO_TCP, "TCP_NODELAY"): 1,
        (socket.SOL_SOCKET, "SO_KEEPALIVE"): 1,
        (socket.IPPROTO_TCP, "TCP_KEEPIDLE"): KEEPALIVE_IDLE_SECONDS,
        (socket.IPPROTO_TCP, "TCP_KEEPINTVL"): KEEPALIVE_INTERVAL_SECONDS,
        (socket.IPPROTO_TCP, "TCP_KEEPCNT"): KEEPALIVE_PROBES,
        # What was sent into a partition is repeated at growing intervals, up to minutes, so that
        # a healed link would stay silent for long. Rather end it and dial again.
        (socket.IPPROTO_TCP, "TCP_USER_TIMEOUT"): int(stall_seconds * 1000),
    }
    try:
        for (level, name), value in options.items():
            # Not every system has all of them.
            if hasattr(socket, name):
                connected.setsockopt(level, getattr(socket, name), value)
    except OSError:
        # Reset between being accepted and now: the first read says so.
        return


def join_address(host: str, port: int) -> str:
    """Return HOST:PORT, an IPv6 host in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def remote_address(stream: trio.abc.Stream) -> str:
    """Return HOST:PORT of the other side, or a stand-in where there is none."""
    if isinstance(stream, trio.SocketStream):
        try:
            host, port, *_ = stream.socket.getpeername()
        except OSError:
            return "a connection that is gone"
        return join_address(host, port)
    return "a local stream"


def describe(error: BaseException) -> str:
    """Return in words why a socket operation failed, without repeating addresses."""
    inner = error.__cause__
    if isinstance(inner, BaseExceptionGroup):
        inner = inner.exceptions[0]
    if isinstance(inner, OSError):
        error = inner
    if isinstance(error, ssl.SSLError):
        return explain(error)
    if isinstance(error, socket.gaierror):
        return f"the host name cannot be resolved ({error.strerror})"
    if isinstance(error, OSError) and error.errno is not None:
        return os.strerror(error.errno).lower()
    return str(error) or type(error).__name__


async def send_opening(stream: trio.abc.Stream, opening: Opening) -> None:
    """Send `opening` as a frame.

    Raises:
        trio.BrokenResourceError: the connection is gone.
    """
    await stream.send_all(encode_frame(encode_opening(opening)))


async def receive_opening(
    stream: trio.abc.Stream,
) -> tuple[Opening, FrameDecoder, list[bytes]]:
    """Return the opening of the other side, the decoder for the rest, and what came right after.

    Raises:
        OpeningError: garbage, the end of the stream, or a broken connection instead of it.
    """
    decoder = FrameDecoder(first_frame_bytes_max=OPENING_BYTES_MAX)
    payloads: list[bytes] = []
    while not payloads:
        try:
            received = await stream.receive_some(RECEIVE_BYTES_MAX)
        except trio.BrokenResourceError as error:
            raise OpeningError(describe(error)) from error
        if not received:
            raise OpeningError(
                "it closed the connection without a greeting", silent=not decoder.buffered_bytes
            )
        try:
            payloads = decoder.feed(received)
        except WireError as error:
            raise OpeningError(f"it does not speak the protocol of raftd: {error}") from error
    try:
        return decode_opening(payloads[0]), decoder, payloads[1:]
    except WireError as error:
        raise OpeningError(f"it does not speak the protocol of raftd: {error}") from error


def _descriptor_of(stream: trio.abc.Stream) -> int | None:
    """Return that of the socket; None for a stream without one."""
    if isinstance(stream, SecuredStream):
        return stream.fileno()
    return stream.socket.fileno() if isinstance(stream, trio.SocketStream) else None


class HeldBytes:
    """What several connections hold together of frames that are not complete."""

    def __init__(self, bytes_max: int, exceeded: Callable[[], None]) -> None:
        """Begin with nothing; `exceeded` is called whenever more is added beyond `bytes_max`."""
        self._bytes = 0
        self._bytes_max = bytes_max
        self._exceeded = exceeded

    def add(self, size_bytes: int) -> None:
        """Count more, or less."""
        self._bytes += size_bytes
        if size_bytes > 0 and self._bytes > self._bytes_max:
            self._exceeded()


class Connection:
    """One established connection.

    `run` serves it; `offer` and `close` may be called from anywhere, before, during and after, and
    never block.
    """

    def __init__(
        self,
        stream: trio.abc.Stream,
        decoder: FrameDecoder,
        *,
        inbox: Inbox,
        outbox_bytes_max: int,
        inputs_max: int = PEERS_INPUTS_MAX,
        version: int = PROTOCOL_VERSION_MAX,
        held: HeldBytes | None = None,
    ) -> None:
        """Take over `stream`, whose openings have been exchanged and agree on `version`.

        Args:
            inbox: where what is read goes.
            inputs_max: nothing is read from a socket while more inputs are queued there; from any
                other stream, while the inbox is full.
            held: counts what it holds of a frame that is not complete; None where it need not.
        """
        self.version = version
        self._stream = stream
        self._decoder = decoder
        self._inbox = inbox
        self._inputs_max = inputs_max
        self._handle: Callable[[Sequence[bytes]], None] | None = None
        self._held = held
        self.held_bytes = 0
        """Of the frame that has begun, as far as `held` counts them."""
        self._is_paused = False
        self._resumed = trio.lowlevel.ParkingLot()
        self._outbox: list[bytes] = []
        self._outbox_bytes = 0
        self._outbox_bytes_max = outbox_bytes_max
        self._writer = trio.lowlevel.ParkingLot()
        self._flushers = trio.lowlevel.ParkingLot()
        self._scope = trio.CancelScope()
        self._secured = stream if isinstance(stream, SecuredStream) else None
        self._descriptor = _descriptor_of(stream)
        self._writing = False
        """Whether the writer has a part of a frame under way, which nothing may interrupt."""
        self._closed = False
        self.problem = ""
        """Why it ended, in words."""
        self.misbehaved = False
        """Whether it ended because the other side broke the rules."""

    @property
    def outbox_bytes(self) -> int:
        """Bytes that were offered and are not sent yet."""
        return self._outbox_bytes

    @property
    def closed(self) -> bool:
        """Whether it has ended or is about to."""
        return self._closed

    @property
    def accepts(self) -> bool:
        """Whether `offer` would queue something now."""
        return not self._closed and self._outbox_bytes < self._outbox_bytes_max

    def offer(self, payload: bytes, *, wake_writer: bool = True) -> bool:
        """Queue `payload`; return False and drop it if the outbox is full or the end has come.

        An outbox takes frames until it has passed its bound, so any frame fits an empty one.

        Args:
            wake_writer: False if `push` follows.
        """
        if not self.accepts:
            return False
        frame = encode_frame(payload)
        self._outbox.append(frame)
        self._outbox_bytes += len(frame)
        if wake_writer:
            self._writer.unpark()
        return True

    def push(self) -> None:
        """Hand to the kernel now what it takes without waiting; the writer does the rest.

        So messages are on their way while the caller, who does not yield, waits for its disk.
        """
        if self._descriptor is not None and self._outbox and not self._writing and not self._closed:
            joined = b"".join(self._outbox)
            try:
                if self._secured is None:
                    sent = os.write(self._descriptor, joined)
                else:
                    sent = self._secured.send(joined)
            except OSError:
                # Full, or broken: the writer waits, or finds out why.
                sent = 0
            self._outbox = [joined[sent:]] if sent < len(joined) else []
            self._outbox_bytes -= sent
        if self._outbox:
            self._writer.unpark()
        elif not self._outbox_bytes:
            self._flushers.unpark_all()

    def close(self, problem: str, *, misbehaved: bool = False) -> None:
        """End the connection; the first caller's reason stands."""
        if not self._closed:
            self._closed = True
            self.problem = problem
            self.misbehaved = misbehaved
            if self._descriptor is not None:
                self._inbox.sockets.remove(self._descriptor)
        self._scope.cancel()

    def pause(self) -> None:
        """Read nothing more until `resume`."""
        self._is_paused = True
        self._watch()

    def resume(self) -> None:
        """Go on reading."""
        if self._is_paused:
            self._is_paused = False
            self._watch()
            self._resumed.unpark_all()

    def _watch(self) -> None:
        if self._descriptor is not None and self._handle is not None and not self._closed:
            events = 0 if self._is_paused else READABLE
            self._inbox.sockets.watch(self._descriptor, events)

    async def flush(self) -> None:
        """Wait until nothing is queued any more: all of it is sent, or the connection has ended."""
        while self._outbox_bytes:
            await self._flushers.park()

    async def run(
        self, handle: Callable[[Sequence[bytes]], None], payloads: Sequence[bytes] = ()
    ) -> None:
        """Serve the connection until it ends, then close its stream; `problem` says why it ended.

        Args:
            handle: called with the payloads of each read, in order. A `WireError` from it ends the
                connection as misbehaviour.
            payloads: what came together with the opening.
        """
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._write)
                    await self._read(handle, payloads)
        finally:
            self._closed = True
            # It may be a while until garbage is collected, and this may be megabytes.
            self._decoder = FrameDecoder()
            self._count_held(0)
            self._descriptor = None
            self._outbox.clear()
            self._outbox_bytes = 0
            self._flushers.unpark_all()
            await trio.aclose_forcefully(self._stream)

    async def _read(
        self, handle: Callable[[Sequence[bytes]], None], payloads: Sequence[bytes]
    ) -> None:
        descriptor = self._descriptor
        if descriptor is None or self._closed:
            self._handle = handle
            await self._read_stream(payloads)
            return
        try:
            self._inbox.sockets.add(descriptor, self._ready)
        except OSError as error:
            self.close(describe(error))
            return
        self._handle = handle
        try:
            self._take(payloads)
            await trio.sleep_forever()
        finally:
            self._inbox.sockets.remove(descriptor)

    async def _read_stream(self, payloads: Sequence[bytes]) -> None:
        self._take(payloads)
        while not self._closed:
            while self._is_paused:
                await self._resumed.park()
            await self._inbox.room()
            try:
                received = await self._stream.receive_some(self._receive_bytes())
            except trio.BrokenResourceError as error:
                self.close(describe(error))
            else:
                self._received(received)

    def _ready(self, events: int) -> None:
        """Read the socket, which has something."""
        if events & ENDED:
            if self._is_paused:
                # The set says so again and again, whatever it was asked for.
                self.close("reset by the other side")
                return
        elif len(self._inbox) > self._inputs_max:
            return
        assert self._descriptor is not None
        try:
            if self._secured is None:
                received = os.read(self._descriptor, self._receive_bytes())
            else:
                received = self._secured.recv(self._receive_bytes())
        except BlockingIOError:
            return
        except OSError as error:
            self.close(describe(error))
        else:
            self._received(received)

    def _receive_bytes(self) -> int:
        return max(RECEIVE_BYTES_MAX, min(self._decoder.missing_bytes, RECEIVE_LARGE_BYTES_MAX))

    def _received(self, received: bytes | bytearray) -> None:
        if received:
            try:
                self._take(self._decoder.feed(received))
            except WireError as error:
                self.close(str(error), misbehaved=True)
            if self._decoder.buffered_bytes != self.held_bytes:
                self._count_held(self._decoder.buffered_bytes)
        elif self._decoder.buffered_bytes:
            self.close("it ended inside a frame", misbehaved=True)
        else:
            self.close("closed by the other side")

    def _count_held(self, held_bytes: int) -> None:
        if self._held is not None:
            added_bytes = held_bytes - self.held_bytes
            self.held_bytes = held_bytes
            self._held.add(added_bytes)

    def _take(self, payloads: Sequence[bytes]) -> None:
        if not payloads:
            return
        assert self._handle is not None
        try:
            self._handle(payloads)
        except WireError as error:
            self.close(str(error), misbehaved=True)

    async def _write(self) -> None:
        while True:
            while not self._outbox:
                await self._writer.park()
            joined = memoryview(b"".join(self._outbox))
            self._outbox.clear()
            self._writing = True
            for start in range(0, len(joined), WRITE_PIECE_BYTES):
                try:
                    with trio.fail_after(WRITE_STALL_TIMEOUT_SECONDS):
                        await self._stream.send_all(joined[start : start + WRITE_PIECE_BYTES])
                except trio.TooSlowError:
                    self.close(
                        f"nothing could be written for {WRITE_STALL_TIMEOUT_SECONDS:.1f} s",
                        misbehaved=True,
                    )
                    return
                except trio.BrokenResourceError as error:
                    self.close(describe(error))
                    return
            self._writing = False
            self._outbox_bytes -= len(joined)
            self._flushers.unpark_all()
