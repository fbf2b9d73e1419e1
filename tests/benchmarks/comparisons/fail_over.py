"""How long nobody can write after the leader was killed, in etcd and in raftd.

Both have the same times for heartbeats and elections, and draw each wait from [T, 2T). A prober of
its own process starts a put every 5 ms at each of the three servers, on connections of its own, and
follows nobody anywhere. etcd's followers forward puts; raftd's answer -MOVED, so the put that
succeeds is one that happens to be sent to the new leader: half an interval is lost by that.

Measured is the time from kill -9 to the answer of the first put that was *started after* it and
succeeded, and the longest time in which no put succeeded. Afterwards the server is started again,
and everybody follows before the next run.
"""

from __future__ import annotations

import itertools
import json
import random
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Sequence

import attrs

from tests.benchmarks.comparisons.etcd import ETCD, EtcdCluster
from tests.benchmarks.comparisons.generator import ComparisonProblem
from tests.benchmarks.comparisons.points import PointsFile
from tests.benchmarks.comparisons.quiet import Listening, wait_quiet
from tests.benchmarks.comparisons.raftd_cluster import NAMES, RAFTD, RaftdCluster
from tests.benchmarks.comparisons.systems import Running, Stage
from tests.benchmarks.comparisons.targets import Target, target_table
from tests.benchmarks.tables import Cell, Table

TIMES_MS = ((100, 1000), (10, 100))
"""Heartbeat and election time-out, minimum: etcd's defaults, and what suits a local network."""
RUNS = 20
PROBE_SECONDS = 30.0
"""No election takes so long."""
BEFORE_KILL_SECONDS = (0.4, 0.6)
"""From the first round of puts to the kill, drawn anew each time, so that it meets heartbeats at
any of their moments."""
AFTER_SUCCESS_SECONDS = 0.1
"""Puts that were started before the first success may still succeed."""
SETTLE_SECONDS = 1.0


@attrs.frozen(kw_only=True)
class Success:
    """A put that succeeded, in nanoseconds of the monotonic clock."""

    address: int
    start_ns: int
    end_ns: int


@attrs.frozen(kw_only=True)
class Outage:
    """What the prober saw of one kill, in milliseconds."""

    write_ms: float
    """From the kill to the answer of the first put that was started after it."""
    gap_ms: float
    """The longest time without an answer, from one before the kill to one after it."""


def outage_of(successes: Sequence[Success], killed_ns: int) -> Outage | None:
    """Return how long nobody could write; None if nobody could until the end."""
    after = [success.end_ns for success in successes if success.start_ns > killed_ns]
    if not after:
        return None
    ends = sorted(success.end_ns for success in successes)
    # What was under way at the kill may still be answered, so any gap that ends after it counts.
    gaps = [
        end - before
        for before, end in itertools.pairwise(ends)
        if end > killed_ns and before < min(after)
    ]
    return Outage(
        write_ms=(min(after) - killed_ns) / 1e6,
        gap_ms=max(gaps, default=min(after) - killed_ns) / 1e6,
    )


class _Probe:
    """A prober that runs, and what it has told so far."""

    def __init__(self, stage: Stage, driver: str, addresses: Sequence[str]) -> None:
        self._stage = stage
        self._process: subprocess.Popen[str] = stage.generator.start_probe(
            driver, addresses, seconds=PROBE_SECONDS
        )
        self.successes: list[Success] = []
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            document = json.loads(line)
            if "event" in document:
                self._started.set()
            elif "summary" not in document:
                self.successes.append(Success(**document))

    def wait_started(self) -> None:
        """Return when puts have been sent to all addresses for a while."""
        while not self._started.wait(0.1):
            if not self._thread.is_alive():
                raise ComparisonProblem(f"no prober: {self._stage.generator.told()}")

    def wait_success(self, after_ns: int) -> None:
        """Return when a put has succeeded that was started after a moment, or none ever will."""
        while self._thread.is_alive():
            if any(success.start_ns > after_ns for success in list(self.successes)):
                time.sleep(AFTER_SUCCESS_SECONDS)
                return
            time.sleep(0.02)

    def end(self) -> list[Success]:
        """End the prober and return all that it has told."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._thread.join(PROBE_SECONDS)
        self._stage.generator.end(self._process)
        return self.successes


def _measure_once(
    stage: Stage, running: Running, addresses: Sequence[str], kill: Callable[[], None]
) -> Outage:
    probe = _Probe(stage, running.driver, addresses)
    probe.wait_started()
    time.sleep(random.uniform(*BEFORE_KILL_SECONDS))
    killed_ns = time.monotonic_ns()
    kill()
    probe.wait_success(killed_ns)
    outage = outage_of(probe.end(), killed_ns)
    if outage is None:
        raise ComparisonProblem(f"no write has succeeded for {PROBE_SECONDS:.0f} s after the kill")
    return outage


def _etcd_once(stage: Stage, etcd: EtcdCluster) -> Outage:
    leader = etcd.leader()
    addresses = [etcd.client_address(name) for name in etcd.processes]
    outage = _measure_once(stage, etcd, addresses, lambda: etcd.kill(leader))
    etcd.start_member(leader)
    etcd.wait_healthy()
    return outage


def _raftd_once(stage: Stage, raftd: RaftdCluster) -> Outage:
    leader = raftd.cluster.wait_leader()
    addresses = [raftd.redis_address(name) for name in NAMES]
    outage = _measure_once(stage, raftd, addresses, leader.kill)
    leader.start()
    raftd.cluster.wait_settled(NAMES)
    return outage


def measure_fail_over(
    stage: Stage, *, runs: int, quiet_seconds: float, points: PointsFile
) -> list[Table]:
    """Kill leaders in turns; return the table of times and that of the targets."""
    missing = ETCD.missing()
    if missing is not None:
        raise ComparisonProblem(f"etcd is needed for this: {missing}")
    table = Table(
        name="fail-over",
        title=f"From kill -9 of the leader to the first write that succeeds, ms, {runs} runs",
        columns=["heartbeat/election", "median", "best", "worst", "gap, median", "gap, worst"],
    )
    rows: list[tuple[Target, float | None]] = []
    for heartbeat_ms, election_ms in TIMES_MS:
        label = f"{heartbeat_ms}/{election_ms} ms"
        stage.say(f"fail-over with {label}")
        outages = _measure(stage, heartbeat_ms, election_ms, runs, quiet_seconds, points)
        for name, seen in outages.items():
            table.add(f"{label} {name}", *_cells(seen))
        rows += _targets(label, outages)
    return [
        table,
        target_table(
            "fail-over-targets", "Targets: time without writes, raftd in relation to etcd", rows
        ),
    ]


def _measure(
    stage: Stage,
    heartbeat_ms: int,
    election_ms: int,
    runs: int,
    quiet_seconds: float,
    points: PointsFile,
) -> dict[str, list[Outage]]:
    etcd = EtcdCluster(stage, heartbeat_ms=heartbeat_ms, election_timeout_ms=election_ms)
    raftd = RaftdCluster(stage, heartbeat_ms=heartbeat_ms, election_timeout_ms=election_ms)
    outages: dict[str, list[Outage]] = {ETCD.name: [], RAFTD.name: []}
    try:
        for number in range(1, runs + 1):
            told = []
            for name, seen in outages.items():
                time.sleep(SETTLE_SECONDS)
                waited_s = wait_quiet(quiet_seconds)
                with Listening() as listening:
                    outage = (
                        _etcd_once(stage, etcd) if name == ETCD.name else _raftd_once(stage, raftd)
                    )
                seen.append(outage)
                told.append(f"{name} {outage.write_ms:.0f} ms")
                points.write(
                    "fail-over",
                    {
                        "system": name,
                        "heartbeat_ms": heartbeat_ms,
                        "election_timeout_ms": election_ms,
                        "run": number,
                        "waited_seconds": waited_s,
                        **attrs.asdict(outage),
                        **attrs.asdict(listening.noise),
                    },
                )
            stage.say(f"  run {number} of {runs}: {', '.join(told)}")
    finally:
        etcd.close()
        raftd.close()
    return outages


def _cells(seen: Sequence[Outage]) -> list[Cell]:
    writes = [outage.write_ms for outage in seen]
    gaps = [outage.gap_ms for outage in seen]
    return [
        round(statistics.median(writes)),
        round(min(writes)),
        round(max(writes)),
        round(statistics.median(gaps)),
        round(max(gaps)),
    ]


def _targets(label: str, outages: dict[str, list[Outage]]) -> list[tuple[Target, float | None]]:
    ours, theirs = (
        [outage.write_ms for outage in outages[name]] for name in (RAFTD.name, ETCD.name)
    )
    return [
        (
            Target(what=f"{label}: median", required=1.0, lower_is_better=True),
            statistics.median(ours) / statistics.median(theirs),
        ),
        (
            Target(what=f"{label}: worst", required=1.5, lower_is_better=True),
            max(ours) / max(theirs),
        ),
    ]
