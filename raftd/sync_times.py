"""How long the syncs of the log take: all that a write waits for on this server.

A slow disk is the commonest reason of a cluster that elects leaders for nothing: while the log is
synced, the driver answers no heartbeat.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable

from raftd.telemetry import Histogram

SAMPLES_MAX = 1024
"""The latest syncs that are remembered: a second of a busy server, a day of an idle one. More
would hide that a disk has become slow just now."""
FRESH_NS = 1_000_000_000
"""Percentiles are sorted out again after so long: watchers ask several times a second."""
MEDIAN = 0.50
HIGH = 0.99
"""One sync in a hundred takes longer."""


class SyncTimes:
    """Measures the latest syncs. Cheap where it measures: nothing is sorted there."""

    def __init__(
        self,
        clock_ns: Callable[[], int],
        *,
        slow_ms: float = math.inf,
        was_slow: Callable[[float], None] = lambda took_ms: None,
    ) -> None:
        """Begin without a sample.

        Args:
            clock_ns: nanoseconds that never go back.
            slow_ms: from here on `was_slow` is called with the milliseconds that a sync took.
        """
        self._slow_ns = slow_ms * 1_000_000
        self._was_slow = was_slow
        self.histogram = Histogram()
        """All of them since the start."""
        self._clock_ns = clock_ns
        self._samples_ns: deque[int] = deque(maxlen=SAMPLES_MAX)
        self._percentiles_ms: tuple[float, float] | None = None
        self._sorted_ns = 0
        """When the percentiles were made."""

    def measure(self, sync: Callable[[], None]) -> None:
        """Call `sync` and remember how long it took; one that fails is not remembered."""
        started_ns = self._clock_ns()
        sync()
        duration_ns = self._clock_ns() - started_ns
        self._samples_ns.append(duration_ns)
        self.histogram.add(duration_ns)
        if duration_ns >= self._slow_ns:
            self._was_slow(duration_ns / 1_000_000)

    def percentiles_ms(self) -> tuple[float, float] | None:
        """Return the median and the 99th percentile in milliseconds; None before the first sync.

        They may be a second old.
        """
        now_ns = self._clock_ns()
        if self._samples_ns and (
            self._percentiles_ms is None or now_ns - self._sorted_ns >= FRESH_NS
        ):
            ordered = sorted(self._samples_ns)
            self._percentiles_ms = _at(ordered, MEDIAN), _at(ordered, HIGH)
            self._sorted_ns = now_ns
        return self._percentiles_ms


def _at(ordered: list[int], fraction: float) -> float:
    """Return the smallest sample that at least this fraction does not exceed, in milliseconds."""
    rank = -int(-fraction * len(ordered) // 1)
    return ordered[rank - 1] / 1_000_000
