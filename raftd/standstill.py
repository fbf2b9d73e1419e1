"""What holds a server up, in the log for people: a slow disk, a turn that is long, no processor.

While a server stands still it answers no heartbeat, so all of this can cost an election.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from raftd.event_log import Sparing, left_out_words, tell
from raftd.log_words import milliseconds
from raftd.sync_times import SyncTimes

SLOW_SYNC_MS = 100.0
"""A sync of the log that takes longer is slow: a disk for which this is normal is too slow for the
default time-outs, and healthy ones need a few milliseconds."""
STANDSTILL_ELECTION_TIMEOUTS = 0.5
"""Whoever stands still for this part of an election timeout is close to being taken for dead."""

logger = logging.getLogger("raftd.standstill")


class SlowSyncs:
    """Tells of syncs of the log that take too long, with the worst of those that it left out."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """Begin.

        Args:
            clock: seconds that never go back.
        """
        self._sparing = Sparing(clock)
        self._worst_ms = 0.0

    def took(self, duration_ms: float) -> None:
        """Take note of one that took longer than `SLOW_SYNC_MS`."""
        if not self._sparing.admits():
            self._worst_ms = max(self._worst_ms, duration_ms)
            return
        left_out = self._sparing.left_out()
        before = ""
        if left_out:
            before = (
                f"; {left_out} more since the last line, {milliseconds(self._worst_ms)} at most"
            )
        self._worst_ms = 0.0
        tell(
            logger,
            "slow-disk",
            "the disk is slow: a sync of the log took %s, more than %s%s",
            milliseconds(duration_ms),
            milliseconds(SLOW_SYNC_MS),
            before,
            level=logging.WARNING,
            sync_ms=round(duration_ms, 1),
            left_out=left_out,
        )


class Standstill:
    """Tells of a driver that came to nothing for a while, or that was away for long."""

    def __init__(
        self, clock: Callable[[], float], election_timeout_ms: float, sync_times: SyncTimes
    ) -> None:
        """Begin.

        Args:
            clock: seconds that never go back.
            sync_times: those of this server's log.
        """
        self.bound_seconds = election_timeout_ms * STANDSTILL_ELECTION_TIMEOUTS / 1000
        """What is not worth a line takes less."""
        self._sparing = Sparing(clock)
        self._sync_times = sync_times
        self._synced_before_ns = 0

    def tick(self) -> None:
        """Let another tick pass: what the disk has taken until now is behind us."""
        self._synced_before_ns = self._sync_times.histogram.sum_ns

    def turn_took(self, duration_seconds: float) -> None:
        """Take note of a turn that took `bound_seconds` or more, unless it was the disk."""
        duration_ms = duration_seconds * 1000
        synced_ns = self._sync_times.histogram.sum_ns - self._synced_before_ns
        disk_ms = min(synced_ns / 1_000_000, duration_ms)
        if duration_ms - disk_ms >= self.bound_seconds * 1000:
            self._tell(duration_ms, f"busy with one thing, {milliseconds(disk_ms)} of it the disk")

    def woke_late(self, late_seconds: float) -> None:
        """Take note of a wake-up that came `bound_seconds` or more too late."""
        self._tell(late_seconds * 1000, "the process was stopped, or the machine too busy for it")

    def _tell(self, duration_ms: float, reason: str) -> None:
        if self._sparing.admits():
            tell(
                logger,
                "stall",
                "stood still for %s: %s%s",
                milliseconds(duration_ms),
                reason,
                left_out_words(self._sparing.left_out()),
                level=logging.WARNING,
                stall_ms=round(duration_ms),
            )
