"""Keys with a life in a simulated run: what a client was promised, and what it finds.

Every key is set once, so that nothing but the end of its life can remove it. A client that reads
and does not find it knows that it has ended, which must not be before its time by the clock of the
world; a server's clock may run faster than that by as much as the profile says.
"""

from __future__ import annotations

import attrs

from raftd.commands import Result, SetKey, SetLife, Transaction
from tests.simulation.profile import MILLISECOND
from tests.simulation.watch import Violated
from tests.simulation.world import World

TITLE = "Kept lives"
TTL_MS = (200, 4_000)
"""From less than an election takes to longer than most faults."""
KEYS_MAX = 4
"""Of one client, that are looked at."""
GRAIN_US = 2 * MILLISECOND
"""Times in the log are whole milliseconds."""


@attrs.define(eq=False)
class Promise:
    """One key, and until when it has to be there."""

    key: str
    until_us: float = 0.0
    """By the clock of the world; 0 while nobody has promised anything."""


class Promises:
    """What one client has been promised of its keys."""

    def __init__(self, name: str, world: World) -> None:
        self._name = name
        self._world = world
        self._random = world.random(f"lives of {name}")
        self._count = 0
        self._kept: list[Promise] = []

    def command(self) -> tuple[Transaction, Promise] | None:
        """Perhaps return a command to send now, and the key that it is about."""
        draw = self._random.random()
        ttl_ms = self._random.randint(*TTL_MS)
        if draw < 0.3:
            self._count += 1
            promise = Promise(f"life-{self._name}-{self._count}")
            self._world.count("commands of batches: keys with a life")
            return Transaction((), (SetKey(promise.key, b"v", ttl_ms),)), promise
        if draw < 0.45 and self._kept:
            promise = self._random.choice(self._kept)
            # If nobody says what has become of it, the shorter life may be the one.
            promise.until_us = min(promise.until_us, self._until_us(self._world.now_us, ttl_ms))
            self._world.count("commands of batches: lives that change")
            return Transaction((), (SetLife(promise.key, ttl_ms),)), promise
        return None

    def _until_us(self, sent_us: int, ttl_ms: int) -> float:
        fastest = 1 + self._world.profile.clock_spread
        return sent_us + ttl_ms * MILLISECOND / fastest - GRAIN_US

    def answered(self, body: Transaction, promise: Promise, sent_us: int, result: Result) -> None:
        """Take the answer to a command that was sent at `sent_us`."""
        (step,) = body.steps
        assert isinstance(step, SetKey | SetLife)
        (outcome,) = result.outcomes
        if not outcome.applied:
            self._found(promise, is_there=False)
            return
        promise.until_us = self._until_us(sent_us, step.ttl_ms)
        if promise not in self._kept:
            self._kept = [*self._kept, promise][-KEYS_MAX:]

    def to_read(self) -> list[Promise]:
        """Return the keys that are to be read now."""
        return list(self._kept)

    def read(self, promise: Promise, value: bytes | None) -> None:
        """Take what a linearizable read has found by now."""
        self._found(promise, is_there=value is not None)

    def _found(self, promise: Promise, *, is_there: bool) -> None:
        if is_there:
            return
        now_us = self._world.now_us
        if now_us < promise.until_us:
            early_ms = (promise.until_us - now_us) / MILLISECOND
            raise Violated(
                TITLE,
                f"{promise.key} of {self._name} is gone {early_ms:.0f} ms before the end of its "
                "life",
            )
        self._world.count("lives that have ended")
        if promise in self._kept:
            self._kept.remove(promise)
