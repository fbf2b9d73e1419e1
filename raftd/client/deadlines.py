"""When a call has to give up."""

from __future__ import annotations

import time
from collections.abc import Callable


class Deadline:
    """A moment on a clock that never goes back, or never."""

    __slots__ = ("_at_s", "_clock")

    def __init__(self, at_s: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        """Make the moment `at_s` of `clock`, which returns seconds; None means never."""
        self._at_s = at_s
        self._clock = clock

    @classmethod
    def after_ms(cls, timeout_ms: float, clock: Callable[[], float] = time.monotonic) -> Deadline:
        """Return the moment in `timeout_ms` milliseconds; 0 means never."""
        return cls(clock() + timeout_ms / 1000 if timeout_ms else None, clock)

    def or_after_ms(self, timeout_ms: float) -> Deadline:
        """Return this moment or the one in `timeout_ms` milliseconds, whichever comes first."""
        other_s = self._clock() + timeout_ms / 1000
        return Deadline(other_s if self._at_s is None else min(self._at_s, other_s), self._clock)

    def later_by_ms(self, milliseconds: float) -> Deadline:
        """Return the moment so many milliseconds after this one."""
        at_s = None if self._at_s is None else self._at_s + milliseconds / 1000
        return Deadline(at_s, self._clock)

    @property
    def at_s(self) -> float | None:
        """The moment on its clock, in seconds; None means never."""
        return self._at_s

    @property
    def expired(self) -> bool:
        """Whether it has passed."""
        return self._at_s is not None and self._clock() >= self._at_s

    def remaining_s(self) -> float | None:
        """Return the seconds until then, at least 0; None means without end."""
        return None if self._at_s is None else max(0.0, self._at_s - self._clock())
