"""What has happened in this process since its start, in numbers.

Kept once for each batch or turn, never for each command: a few additions to whole numbers beside
work that takes a thousand times as long. Nobody has to look at them.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Sequence

import attrs

from raftd.activity import ActivityReply, NoticeView
from raftd.core.leader import Leader
from raftd.core.raft import Candidate, Raft
from raftd.core.snapshot import Snapshot
from raftd.core.types import Index, ServerId, Term

NANOSECONDS = 1_000_000_000
BOUNDS_SECONDS = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025),
    *(0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
"""Upper bounds of the buckets: from a write into memory to a disk that hangs for seconds."""
_BOUNDS_NS = tuple(round(bound * NANOSECONDS) for bound in BOUNDS_SECONDS)
APPLIED = "applied"
"""The result of a command that was committed and applied, be it that it changed nothing."""
UNCOMMITTED_BATCHES_MAX = 8_192
"""Batches whose commit is awaited; of more than a leader may have uncommitted the oldest go."""
RATE_INTERVAL_MS = 1_000
"""Between two points of the rates."""
RATE_POINTS_MAX = 300
"""Five minutes."""
LATENCIES_MAX = 4_096
"""Of the batches since the last look; of more the latest."""


class Histogram:
    """How often something took how long."""

    __slots__ = ("counts", "sum_ns")

    def __init__(self) -> None:
        """Begin without an observation."""
        self.counts = [0] * (len(_BOUNDS_NS) + 1)
        """For each of `BOUNDS_SECONDS`, how often it was that or less and more than the one before;
        the last is for what took longer than all of them."""
        self.sum_ns = 0

    def add(self, duration_ns: int) -> None:
        """Count one observation."""
        self.counts[bisect_left(_BOUNDS_NS, duration_ns)] += 1
        self.sum_ns += duration_ns

    @property
    def count(self) -> int:
        """How many there were."""
        return sum(self.counts)

    def cumulative(self) -> list[int]:
        """Return for each of `BOUNDS_SECONDS`, and then for all, how often it was that or less."""
        found, total = [], 0
        for count in self.counts:
            total += count
            found.append(total)
        return found


class Proposals:
    """What became of the commands that clients gave to this server, by result.

    Results are applied, and the codes of `raftd.protocol.ErrorReply` for those that failed.
    """

    __slots__ = ("by_result",)

    def __init__(self) -> None:
        """Begin without any."""
        self.by_result: dict[str, int] = {}

    def add(self, result: str, count: int) -> None:
        """Count so many that ended so."""
        self.by_result[result] = self.by_result.get(result, 0) + count


@attrs.define
class _Uncommitted:
    """A batch that this server has appended as the leader."""

    last_index: Index
    appended_ns: int


@attrs.frozen
class RatePoint:
    """What a server did in one interval."""

    commits_per_second: float
    commit_p50_ms: float | None
    """None where it has committed nothing as the leader."""
    commit_p99_ms: float | None


class Rates:
    """The last minutes, point by point."""

    def __init__(self) -> None:
        """Begin without a point."""
        self.points: deque[RatePoint] = deque(maxlen=RATE_POINTS_MAX)
        """The newest last."""
        self.last_ms = 0
        """When the newest one ended, milliseconds since 1970; 0 without any."""
        self._commit_index: Index | None = None

    def add(
        self, now_ms: int, elapsed_ms: float, commit_index: Index, latencies_ns: Sequence[int]
    ) -> None:
        """Add what has happened since the call before; the first call only begins.

        Args:
            now_ms: milliseconds since 1970.
            elapsed_ms: since that call; more than 0.
            commit_index: the one of now.
            latencies_ns: of the batches that were committed since, in order.
        """
        before, self._commit_index = self._commit_index, commit_index
        if before is None:
            return
        self.last_ms = now_ms
        count = max(0, commit_index - before)
        self.points.append(
            RatePoint(
                round(1000 * count / elapsed_ms, 1),
                _percentile_ms(latencies_ns, 0.50),
                _percentile_ms(latencies_ns, 0.99),
            )
        )


def _percentile_ms(ordered_ns: Sequence[int], fraction: float) -> float | None:
    """Return the smallest one that at least this fraction does not exceed; None without any."""
    if not ordered_ns:
        return None
    rank = math.ceil(fraction * len(ordered_ns))
    return round(ordered_ns[rank - 1] / 1_000_000, 3)


class Telemetry:
    """The counters of one server."""

    def __init__(self, wall_clock_ms: Callable[[], int], proposals: Proposals) -> None:
        """Begin at zero.

        Args:
            wall_clock_ms: milliseconds since 1970, for people only.
            proposals: which somebody else counts.
        """
        self.notices: Sequence[NoticeView] = ()
        """The latest events of the log, where somebody keeps them; the newest last."""
        self.rates = Rates()
        """Where somebody calls `sample`."""
        self._wall_clock_ms = wall_clock_ms
        self.commit = Histogram()
        """On a leader, from the append of a batch until it is known to be committed."""
        self.apply = Histogram()
        """For a batch of entries."""
        self.proposals = proposals
        self.reads = 0
        """Linearizable reads that a quorum has confirmed, or that had no leader to ask."""
        self.elections = 0
        """Terms in which this server has campaigned."""
        self.leader_changes = 0
        """How often it has learnt that somebody leads, in another term or in place of another."""
        self.turns = 0
        """Of the driver."""
        self.snapshots_taken = 0
        self.snapshots_installed = 0
        self._uncommitted: deque[_Uncommitted] = deque(maxlen=UNCOMMITTED_BATCHES_MAX)
        self._latencies_ns: deque[int] = deque(maxlen=LATENCIES_MAX)
        self._snapshot: Snapshot | None = None
        self._has_looked = False
        self._campaign_term: Term = 0
        self._leadership: tuple[Term, ServerId] = (0, "")

    def appended(self, raft: Raft, last_index: Index) -> None:
        """Note that entries up to `last_index` were appended in a turn that has just begun."""
        if isinstance(raft.role, Leader):
            self._uncommitted.append(_Uncommitted(last_index, raft.monotonic_ns))

    def applied(self, last_index: Index, began_ns: int, ended_ns: int) -> None:
        """Note that committed entries up to `last_index` were applied."""
        self.apply.add(ended_ns - began_ns)
        uncommitted = self._uncommitted
        while uncommitted and uncommitted[0].last_index <= last_index:
            latency_ns = began_ns - uncommitted.popleft().appended_ns
            self.commit.add(latency_ns)
            self._latencies_ns.append(latency_ns)

    def installed(self, snapshot: Snapshot) -> None:
        """Note that a snapshot of a leader was put in force."""
        self.snapshots_installed += 1
        self._snapshot = snapshot

    def follow(self, raft: Raft) -> None:
        """Look who leads, and at the newest snapshot, after a turn that may have changed it."""
        if not isinstance(raft.role, Leader):
            # Whether it is ever committed, others decide.
            self._uncommitted.clear()
        if raft.snapshot is not self._snapshot:
            self._snapshot = raft.snapshot
            # The one that a start finds is no new one.
            self.snapshots_taken += self._has_looked
        self._has_looked = True
        term, leader = raft.current_term, raft.leader_id
        if isinstance(raft.role, Leader | Candidate) and term != self._campaign_term:
            self._campaign_term = term
            self.elections += 1
        if leader is not None and (term, leader) != self._leadership:
            self._leadership = term, leader
            self.leader_changes += 1

    def sample(self, elapsed_ms: float, commit_index: Index) -> None:
        """Add a point to the rates: what was committed in the last `elapsed_ms`."""
        self.rates.add(self._wall_clock_ms(), elapsed_ms, commit_index, self._take_latencies_ns())

    def activity(self, server: ServerId) -> ActivityReply:
        """Return the last minutes of `server`, which this is."""
        points = self.rates.points
        return ActivityReply(
            server=server,
            interval_ms=RATE_INTERVAL_MS,
            last_ms=self.rates.last_ms,
            commits_per_second=tuple(point.commits_per_second for point in points),
            commit_p50_ms=tuple(point.commit_p50_ms for point in points),
            commit_p99_ms=tuple(point.commit_p99_ms for point in points),
            notices=tuple(self.notices),
        )

    def _take_latencies_ns(self) -> Sequence[int]:
        """Return how long the batches took that were committed since the last call, in order."""
        found = sorted(self._latencies_ns)
        self._latencies_ns.clear()
        return found
