"""The inbox that carries what the network tells to the node.

The driver takes from it, all others put into it: what is read from the sockets of the set while a
batch is closed, and now and then a task. A full inbox holds back whoever reads for clients, and
these stop reading their sockets.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

import trio

from raftd.inputs import (
    CommandsArrived,
    Contacted,
    Input,
    KeysArrived,
    LinkChanged,
    PeerRefused,
    Received,
    Requested,
)
from raftd.network.sockets import SocketSet

INBOX_INPUTS_MAX = 4096
"""Producers wait while more inputs are queued: a few batches, so that the driver never starves and
what waits is answered within a fraction of an election timeout."""
PEERS_INPUTS_MAX = 2 * INBOX_INPUTS_MAX
"""Other servers are read until more are queued. Clients can keep the inbox full for seconds, and a
server that does not hear the others for so long has lost its leader or its followers. What servers
send is bounded by what they may have unanswered."""
BATCH_INPUTS_MAX = 1024
"""Inputs of one batch: enough to share one sync among them, short enough for the heartbeats."""
YIELD_SECONDS = 0.005
"""The other tasks have their turn at least this often while the sockets keep the driver busy: a
greeting takes several of these turns."""
BUSY_SECONDS = 0.002
"""A driver that has just been busy waits so long for the sockets alone, before it lets the event
loop wait: by then most of what it has asked others for is answered. To be woken by the event loop
takes longer than all that is then done for a message."""
HOLD_SECONDS = 0.001
"""What could share a batch with more of its kind is kept back no longer than this. About what a
batch takes from the client back to it: where it takes longer, as between continents, this adds
nothing to speak of. It is the least, too, that a system call can wait."""


class Source(Protocol):
    """Somebody who gathers what the sockets bring, and hands it over when a batch is closed."""

    @property
    def holds(self) -> bool:
        """Whether it keeps something back, for `HOLD_SECONDS` at most."""

    def prepare(self) -> None:
        """Let those go on who have waited, before new ones come."""

    def collect(self) -> list[Input]:
        """Return what was gathered, without waiting; bounded by the source itself."""


class Inbox:
    """A queue of inputs to one driver, with the ticks of the clock in their places.

    Ticks coalesce, and a tick never overtakes the inputs that were queued before it: after a
    stall the messages that have been waiting are handled before the clock is believed.

    Source: the order of inputs and clock after LogCabin's and etcd's drivers.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        """Make it empty.

        Args:
            monotonic: seconds, for how busy the driver is.
        """
        self.sockets = SocketSet()
        """Of the connections that are read where a batch is closed."""
        self.sources: list[Source] = []
        self._inputs: deque[Input] = deque()
        self._inputs_before_tick: int | None = None
        """Set while one is due: how many of the queued inputs come before it."""
        self._is_woken = False
        self._producers = trio.lowlevel.ParkingLot()
        self._waits: trio.CancelScope | None = None
        """Cancelled to wake the driver."""
        self._monotonic = monotonic
        self._found_at = self._yielded_at = -math.inf
        """When the sockets had something last, and when the other tasks had their turn."""
        self._is_busy = False
        """Whether the sockets have had something twice within a short time."""

    def __len__(self) -> int:
        """Return how many inputs are queued."""
        return len(self._inputs)

    @property
    def is_full(self) -> bool:
        """Whether those who read for clients should not read any more for now."""
        return len(self._inputs) > INBOX_INPUTS_MAX

    async def room(self) -> None:
        """Wait while it is full."""
        while self.is_full:
            await self._producers.park()

    def put_nowait(self, item: Input) -> None:
        """Queue `item` at once, for inputs that are rare by their nature."""
        self._inputs.append(item)
        self._wake_driver()

    def arrived(self, items: Sequence[Input]) -> None:
        """Queue at once what came by a connection that looks at `is_full` before it reads."""
        self._inputs.extend(items)
        self._wake_driver()

    def wake(self) -> None:
        """Let the next `take` return at once, with whatever there is: there is work left over."""
        self._is_woken = True
        self._wake_driver()

    def _wake_driver(self) -> None:
        if self._waits is not None:
            self._waits.cancel()

    @property
    def _has_something(self) -> bool:
        # Before a tick that is due and was not handed over, inputs are queued.
        return bool(self._inputs) or self._is_woken

    async def take(
        self, tick_at: Callable[[], float] = lambda: math.inf, *, not_before: float = -math.inf
    ) -> tuple[list[Input], bool]:
        """Wait for something; return up to `BATCH_INPUTS_MAX` inputs and whether a tick is due.

        The tick comes after the inputs. Only one task may take. If cancelled, nothing was taken.

        Args:
            tick_at: returns when the next one is due, seconds of trio's clock.
            not_before: a time before which it is not; it is not asked for where that is enough.
        """
        for source in self.sources:
            source.prepare()
        if self._has_something:
            # One turn of the event loop: what others have to say by now is heard before the batch
            # is closed, and a busy driver cannot starve them.
            await self._yield()
            self._look(0.0)
        elif not self._look(0.0):
            await self._wait(tick_at)
        elif self._found_at - self._yielded_at >= YIELD_SECONDS:
            await self._yield()
        if self._inputs_before_tick is None:
            now = trio.current_time()
            if now >= not_before and now >= tick_at():
                self._inputs_before_tick = len(self._inputs)
        return self._close_batch()

    async def _yield(self) -> None:
        await trio.lowlevel.checkpoint()
        self._yielded_at = self._monotonic()

    def _look(self, timeout_seconds: float) -> bool:
        """Read the sockets; return whether any of them had something."""
        if not self.sockets.poll(timeout_seconds):
            return False
        now = self._monotonic()
        self._is_busy = now - self._found_at < 2 * BUSY_SECONDS
        self._found_at = now
        return True

    async def _wait(self, tick_at: Callable[[], float]) -> None:
        if any(source.holds for source in self.sources):
            # They are over after this, if nothing comes before.
            if self._monotonic() - self._yielded_at >= YIELD_SECONDS:
                await self._yield()
            self._look(HOLD_SECONDS)
            return
        if self._is_busy:
            if self._monotonic() - self._yielded_at >= YIELD_SECONDS:
                await self._yield()
                if self._has_something:
                    return
            if self._look(BUSY_SECONDS):
                return
            self._is_busy = False
        with trio.move_on_at(tick_at()) as self._waits:
            await self.sockets.wait()
        self._waits = None
        self._yielded_at = self._monotonic()
        self._look(0.0)

    def _close_batch(self) -> tuple[list[Input], bool]:
        self._is_woken = False
        inputs = self._inputs
        count = len(inputs)
        if count <= BATCH_INPUTS_MAX:
            batch = list(inputs)
            inputs.clear()
        else:
            count = BATCH_INPUTS_MAX
            batch = [inputs.popleft() for _ in range(count)]
        for source in self.sources:
            batch += source.collect()
        tick_is_due = False
        if self._inputs_before_tick is not None:
            self._inputs_before_tick = max(0, self._inputs_before_tick - count)
            tick_is_due = self._inputs_before_tick == 0
            if tick_is_due:
                self._inputs_before_tick = None
        if self._producers and not self.is_full:
            self._producers.unpark_all()
        return batch, tick_is_due


__all__ = [
    "BATCH_INPUTS_MAX",
    "INBOX_INPUTS_MAX",
    "CommandsArrived",
    "Contacted",
    "Inbox",
    "Input",
    "KeysArrived",
    "LinkChanged",
    "PeerRefused",
    "Received",
    "Requested",
]
