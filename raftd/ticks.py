"""The ticks of a driver that sleeps through some of them.

What a process has not noticed because it stood still (a slow disk, a machine that was suspended)
is no silence of its leader: what the others have sent meanwhile may not even be here yet. So of the
time that a turn took, and of the time by which a wake-up came too late, nearly nothing counts.
"""

from __future__ import annotations

LATE_TICKS = 2
"""A wake-up that comes later than this after its time was no sleep: a heartbeat interval, which is
some milliseconds or more."""
SPARED_TICKS = 4
"""What is left then of the ticks that could have passed quietly: two heartbeats can be heard."""


class Ticks:
    """When the next tick is due, and how many have passed in a wait.

    All times are seconds of one clock that never goes back.
    """

    def __init__(self, tick_seconds: float, now: float) -> None:
        """Begin with a tick that was just now."""
        self._tick_seconds = tick_seconds
        self._ticked_at = now
        self.late_seconds = 0.0
        """By how much the latest wake-up that `passed` was asked about came too late."""

    @property
    def not_before(self) -> float:
        """The time before which none is due and none has passed."""
        return self._ticked_at + self._tick_seconds

    def due_at(self, quiet_ticks: int) -> float:
        """Return when the next one is due after so many that may pass quietly."""
        return self._ticked_at + (quiet_ticks + 1) * self._tick_seconds

    def passed(self, now: float, quiet_ticks: int) -> int:
        """Count those that have passed quietly until a wait ended, at most `quiet_ticks`."""
        self.late_seconds = now - self.due_at(quiet_ticks)
        if self.late_seconds > LATE_TICKS * self._tick_seconds:
            quiet_ticks = max(0, quiet_ticks - SPARED_TICKS)
        count = min(int((now - self._ticked_at) / self._tick_seconds), quiet_ticks)
        self._ticked_at += count * self._tick_seconds
        return count

    def ticked(self, now: float) -> None:
        """Count one that is due. What is late coalesces instead of piling up."""
        self._ticked_at = max(self._ticked_at + self._tick_seconds, now - self._tick_seconds)

    def worked(self, now: float) -> None:
        """Do not count the time that a turn took, which ends now."""
        self._ticked_at = max(self._ticked_at, now - self._tick_seconds)
