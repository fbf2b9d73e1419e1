"""How long many things took, in memory of a fixed size.

Each latency is counted in a bucket. Buckets are one nanosecond wide at the beginning, and twice as
wide each time that the latency has doubled, so that the width is never more than a 64th of what is
counted in it: a percentile is right to 1.6 percent however long a measurement goes on.

Source: the buckets of HdrHistogram (Gil Tene), with 64 of them for each power of two.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import attrs

_STEP_BITS = 6
_STEPS = 1 << _STEP_BITS
"""Buckets for each power of two."""
LATENCY_NS_MAX = (1 << 43) - 1
"""Two hours and a half. What takes longer is counted as that; `Latencies.max_ns` knows better."""


def bucket_of(latency_ns: int) -> int:
    """Return the number of the bucket that a latency is counted in."""
    shift = latency_ns.bit_length() - _STEP_BITS - 1
    return latency_ns if shift <= 0 else (shift << _STEP_BITS) + (latency_ns >> shift)


BUCKETS = bucket_of(LATENCY_NS_MAX) + 1


def bucket_start_ns(bucket: int) -> int:
    """Return the shortest latency that is counted in a bucket."""
    if bucket < 2 * _STEPS:
        return bucket
    shift = (bucket >> _STEP_BITS) - 1
    return (bucket - (shift << _STEP_BITS)) << shift


@attrs.frozen
class Bucket:
    """Latencies that are about the same, and how many there were."""

    start_ns: int
    """The shortest that is counted here."""
    end_ns: int
    """The shortest that is not counted here any more."""
    count: int


class Latencies:
    """Counted latencies. `add` takes a third of a microsecond."""

    def __init__(self) -> None:
        """Begin without any."""
        self._counts = [0] * BUCKETS
        self.count = 0
        self.max_ns = 0

    def add(self, latency_ns: int) -> None:
        """Count a latency, at least 0."""
        self.count += 1
        if latency_ns > self.max_ns:
            self.max_ns = latency_ns
        if latency_ns > LATENCY_NS_MAX:
            latency_ns = LATENCY_NS_MAX
        shift = latency_ns.bit_length() - 7
        self._counts[latency_ns if shift <= 0 else (shift << 6) + (latency_ns >> shift)] += 1

    def copy(self) -> Latencies:
        """Return another one that has counted the same."""
        return self.since(Latencies())

    def since(self, earlier: Latencies) -> Latencies:
        """Return what was counted since `earlier`, a copy of this one, was made.

        The longest of them is known as exactly as its bucket.
        """
        found = Latencies()
        found._counts = [
            now - before for now, before in zip(self._counts, earlier._counts, strict=True)
        ]
        found.count = self.count - earlier.count
        found.max_ns = self.max_ns if not earlier.count else found._end_of_last_ns(self.max_ns)
        return found

    def plus(self, others: Iterable[Latencies]) -> Latencies:
        """Return what this one and the others have counted."""
        found = self.copy()
        for other in others:
            found._counts = [a + b for a, b in zip(found._counts, other._counts, strict=True)]
            found.count += other.count
            found.max_ns = max(found.max_ns, other.max_ns)
        return found

    def percentile_ns(self, percent: float) -> int:
        """Return the latency that `percent` of them, 0 to 100, do not exceed; 0 without any.

        It is at least the exact one and at most a 64th longer.
        """
        rank = max(1, math.ceil(percent / 100 * self.count))
        seen = 0
        for bucket, count in enumerate(self._counts):
            seen += count
            if seen >= rank:
                return min(self.max_ns, bucket_start_ns(bucket + 1) - 1)
        return self.max_ns

    def buckets(self) -> list[Bucket]:
        """Return the buckets that something was counted in, the shortest latencies first."""
        return [
            Bucket(bucket_start_ns(bucket), bucket_start_ns(bucket + 1), count)
            for bucket, count in enumerate(self._counts)
            if count
        ]

    def _end_of_last_ns(self, longest_ns: int) -> int:
        used = [bucket for bucket, count in enumerate(self._counts) if count]
        return min(longest_ns, bucket_start_ns(used[-1] + 1) - 1) if used else 0
