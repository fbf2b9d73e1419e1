"""Sends streams over many connections at a time, while a client that behaves is served.

How a connection ends is a part of what is tried: orderly, half, reset, or left alone for a while
with all that was said to it not read.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from random import Random

import attrs
import trio

from tests.fuzzing.streams import Stream

READ_BYTES_MAX = 200_000
"""Of replies, by a connection that reads at all."""
READ_SECONDS = 0.02
"""It waits for more of them so long."""
LEFT_ALONE_SECONDS = 0.2
WITNESS_PAUSE_SECONDS = 0.01
WITNESS_PATIENCE_SECONDS = 20.0
"""Longer than anything may take that is asked meanwhile, on a busy machine too."""
CONNECTIONS_AT_ONCE = 16

Ask = Callable[[], None]
"""Asks the server something with a connection of its own, as a program would; raises if that
fails. It runs in a thread."""


@attrs.define
class Figures:
    """What an attack has come to."""

    streams: int = 0
    sent_bytes: int = 0
    read_bytes: int = 0
    cut_by_server: int = 0
    """Connections that the server has ended before all was sent."""
    refused: int = 0
    """Connections that did not come about."""
    asked: int = 0
    """How often the client that behaves was answered meanwhile."""
    longest_wait_seconds: float = 0.0
    """How long it had to wait at most."""


async def attack(
    address: str,
    streams: tuple[Stream, ...],
    ask: Ask,
    *,
    first_seed: int,
    count: int,
    figures: Figures,
    at_once: int = CONNECTIONS_AT_ONCE,
) -> None:
    """Send `count` streams, the first one made with `first_seed` and so on; add up in `figures`.

    Raises:
        Exception: whatever `ask` raises: somebody else was not served.
    """
    host, _, port = address.rpartition(":")
    seeds = iter(range(first_seed, first_seed + count))

    async def send_some() -> None:
        for seed in seeds:
            random = Random(seed)
            await _send((host, int(port)), random.choice(streams)(random), random, figures)
            figures.streams += 1

    async with trio.open_nursery() as everything:
        everything.start_soon(_witness, ask, figures)
        async with trio.open_nursery() as senders:
            for _ in range(at_once):
                senders.start_soon(send_some)
        everything.cancel_scope.cancel()
    await _ask(ask, figures)


async def _witness(ask: Ask, figures: Figures) -> None:
    while True:
        await _ask(ask, figures)
        await trio.sleep(WITNESS_PAUSE_SECONDS)


async def _ask(ask: Ask, figures: Figures) -> None:
    start = trio.current_time()
    with trio.fail_after(WITNESS_PATIENCE_SECONDS):
        await trio.to_thread.run_sync(ask, abandon_on_cancel=True)
    figures.asked += 1
    wait_seconds = trio.current_time() - start
    figures.longest_wait_seconds = max(figures.longest_wait_seconds, wait_seconds)


async def _send(
    address: tuple[str, int], pieces: list[bytes], random: Random, figures: Figures
) -> None:
    try:
        stream = await trio.open_tcp_stream(*address)
    except OSError:
        figures.refused += 1
        return
    async with stream:
        reads = random.random() < 0.8
        try:
            for piece in pieces:
                await stream.send_all(piece)
                figures.sent_bytes += len(piece)
                if reads and random.random() < 0.3:
                    await _read(stream, figures, READ_SECONDS / 10)
        except trio.BrokenResourceError:
            figures.cut_by_server += 1
            return
        match random.randrange(4):
            case 0:
                with suppress(trio.BrokenResourceError):
                    await stream.send_eof()
                    await _read(stream, figures, READ_SECONDS)
            case 1:
                linger = struct.pack("ii", 1, 0)
                with suppress(OSError):
                    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            case 2:
                await trio.sleep(LEFT_ALONE_SECONDS)
            case _:
                await _read(stream, figures, READ_SECONDS)


async def _read(stream: trio.SocketStream, figures: Figures, seconds: float) -> None:
    read_bytes = 0
    with trio.move_on_after(seconds), suppress(trio.BrokenResourceError):
        while read_bytes < READ_BYTES_MAX:
            received = await stream.receive_some()
            if not received:
                break
            read_bytes += len(received)
    figures.read_bytes += read_bytes
