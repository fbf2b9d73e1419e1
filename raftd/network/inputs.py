"""The inbox that carries what the network tells to the node.

Many tasks put into the inbox, one takes: the driver. A full inbox holds the producers back, and
these stop reading their sockets.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence

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

INBOX_INPUTS_MAX = 4096
"""Producers wait while more inputs are queued: a few batches, so that the driver never starves and
what waits is answered within a fraction of an election timeout."""
BATCH_INPUTS_MAX = 1024
"""Inputs of one batch: enough to share one sync among them, short enough for the heartbeats."""


class Inbox:
    """A queue of inputs from many tasks to one, with the ticks of the clock in their places.

    Ticks coalesce, and a tick never overtakes the inputs that were queued before it: after a
    stall the messages that have been waiting are handled before the clock is believed.

    Source: the order of inputs and clock after LogCabin's and etcd's drivers.
    """

    def __init__(self) -> None:
        self._inputs: deque[Input] = deque()
        self._inputs_before_tick: int | None = None
        self._is_woken = False
        self._producers = trio.lowlevel.ParkingLot()
        self._collected = trio.lowlevel.ParkingLot()
        self.sources: list[Callable[[], list[Input]]] = []
        """Asked for more, without waiting, whenever a batch is closed; bounded by themselves."""
        self._consumer = trio.lowlevel.ParkingLot()

    def __len__(self) -> int:
        """Return how many inputs are queued."""
        return len(self._inputs)

    async def put(self, items: Sequence[Input]) -> None:
        """Queue `items` in order; wait first while more than `INBOX_INPUTS_MAX` are queued.

        If cancelled, nothing was queued.
        """
        while len(self._inputs) > INBOX_INPUTS_MAX:
            await self._producers.park()
        self._inputs.extend(items)
        self._consumer.unpark()

    def put_nowait(self, item: Input) -> None:
        """Queue `item` at once, for inputs that are rare by their nature."""
        self._inputs.append(item)
        self._consumer.unpark()

    def tick(self) -> None:
        """Mark a tick as due, after what is queued now. A tick that is due already covers it."""
        if self._inputs_before_tick is None:
            self._inputs_before_tick = len(self._inputs)
        self._consumer.unpark()

    def wake(self) -> None:
        """Let the next `take` return at once, with whatever there is: there is work left over."""
        self._is_woken = True
        self._consumer.unpark()

    @property
    def _has_something(self) -> bool:
        return bool(self._inputs) or self._is_woken or self._inputs_before_tick is not None

    async def collected(self) -> None:
        """Wait until the sources have been asked once more."""
        await self._collected.park()

    async def take(self, tick_at: float = math.inf) -> tuple[list[Input], bool]:
        """Wait for something; return up to `BATCH_INPUTS_MAX` inputs and whether a tick is due.

        The tick comes after the inputs. Only one task may take. If cancelled, nothing was taken.

        Args:
            tick_at: when the next one is due, seconds of trio's clock.
        """
        if self._has_something:
            # One turn of the event loop: all sockets that are readable by now are heard before the
            # batch is closed, and a busy driver cannot starve the readers.
            await trio.lowlevel.checkpoint()
        else:
            with trio.move_on_at(tick_at):
                while not self._has_something:
                    await self._consumer.park()
        if trio.current_time() >= tick_at and self._inputs_before_tick is None:
            self._inputs_before_tick = len(self._inputs)
        self._is_woken = False
        count = min(len(self._inputs), BATCH_INPUTS_MAX)
        batch = [self._inputs.popleft() for _ in range(count)]
        for source in self.sources:
            batch += source()
        self._collected.unpark_all()
        tick_is_due = False
        if self._inputs_before_tick is not None:
            self._inputs_before_tick = max(0, self._inputs_before_tick - count)
            tick_is_due = self._inputs_before_tick == 0
            if tick_is_due:
                self._inputs_before_tick = None
        if len(self._inputs) <= INBOX_INPUTS_MAX:
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
