"""Lives: which keys end by themselves, and when, by the time that the cluster has agreed on.

| key | value |
|---|---|
| `D` deadline (8 bytes) key | empty: the keys with a life, those that end first in front |
| `E` key | the key's deadline (8 bytes) |

A deadline is a number of milliseconds of cluster time, see `raftd.cluster_time`. How many keys have
a life, and what time it is, stands with the other numbers of the state.
"""

from __future__ import annotations

import struct

from raftd.storage.effects import Effects

EXPIRED_MAX = 256
"""Keys removed by one entry. When many lapse together, commands come in between: an entry like this
takes a millisecond or two."""

_DEADLINE = b"D"
_DEADLINE_END = b"E"
_LIFE = b"E"
_TIME = struct.Struct(">Q")
_CLOCK_FACTOR = 0x9E3779B1
_COUNT_FACTOR = 0x85EBCA77
"""Odd: two numbers that differ by less than 2**32 differ as well when they are multiplied."""


class Lives:
    """The lives of keys in a store. Every change happens inside the caller's transaction.

    Invariants: `count` is the number of keys under `E`; each of them stands under `D` once, with
    the same deadline, and is a key of the state.
    """

    def __init__(self, effects: Effects, count: int, clock_ms: int) -> None:
        """Go on with what the state says of them."""
        self.count = count
        """Keys with a life."""
        self.clock_ms = clock_ms
        """What time it is at least, by the entries that were applied. It never goes back."""
        self._effects = effects
        self._earliest: int | None = None
        """The first deadline, where it is known."""

    def advance(self, time_ms: int) -> None:
        """Let it be at least `time_ms`."""
        if time_ms > self.clock_ms:
            self.clock_ms = time_ms
            self._effects.add(time_ms * _CLOCK_FACTOR)

    def deadline(self, key: bytes) -> int:
        """Return when the life of `key` ends; 0 if it lives for ever, or is not there."""
        if not self.count:
            return 0
        stored = self._effects.get(_LIFE + key)
        return 0 if stored is None else int(_TIME.unpack(stored)[0])

    def remaining_ms(self, key: bytes, now_ms: int) -> int | None:
        """Return what is left of the life of `key`, at least 0; None if it lives for ever."""
        deadline = self.deadline(key)
        return max(0, deadline - now_ms) if deadline else None

    def set(self, key: bytes, deadline: int) -> None:
        """Let `key`, which is there, live until `deadline`; 0 for ever."""
        before = self.deadline(key)
        if before == deadline:
            return
        effects = self._effects
        if before:
            effects.delete(_DEADLINE + _TIME.pack(before) + key)
            if before == self._earliest:
                self._earliest = None
        else:
            self._add(1)
        if deadline:
            packed = _TIME.pack(deadline)
            effects.put(_DEADLINE + packed + key, b"")
            effects.put(_LIFE + key, packed)
            if self._earliest is not None:
                self._earliest = min(self._earliest, deadline)
        else:
            effects.delete(_LIFE + key)
            self._add(-1)

    def _add(self, count: int) -> None:
        self.count += count
        self._effects.add(self.count * _COUNT_FACTOR)

    def earliest(self) -> int | None:
        """Return the first deadline; None where no key has a life."""
        if not self.count:
            return None
        if self._earliest is None:
            ((place, _),) = self._effects.scan(_DEADLINE, _DEADLINE_END, 1)
            self._earliest = int(_TIME.unpack_from(place, len(_DEADLINE))[0])
        return self._earliest

    def lapsed(self) -> list[bytes]:
        """Return keys whose deadline has come, the first ones first, at most `EXPIRED_MAX`."""
        if not self.count:
            return []
        end = _DEADLINE + _TIME.pack(self.clock_ms + 1)
        pairs = self._effects.scan(_DEADLINE, end, EXPIRED_MAX)
        return [place[len(_DEADLINE) + _TIME.size :] for place, _ in pairs]
