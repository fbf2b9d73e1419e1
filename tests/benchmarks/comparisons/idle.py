"""What servers use that have nothing to do, with the keys of the other comparisons in them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence

import attrs

from tests.benchmarks.comparisons.children import memory_of, tree_seconds
from tests.benchmarks.comparisons.points import PointsFile
from tests.benchmarks.comparisons.quiet import Listening, wait_quiet
from tests.benchmarks.comparisons.raftd_cluster import RAFTD
from tests.benchmarks.comparisons.systems import Stage, System
from tests.benchmarks.comparisons.targets import Target, target_table
from tests.benchmarks.tables import Table, mebibytes

IDLE_SECONDS = 20.0
SETTLE_SECONDS = 5.0
"""After the last write, before the servers count as idle."""
CPU_PERCENT = 2.0
RESIDENT_MIB = 80.0
"""What a server of raftd may use at most."""


@attrs.frozen(kw_only=True)
class Idle:
    """What one server used."""

    cpu_percent: float
    """Of one core."""
    resident_mib: float
    anonymous_mib: float


def measure_idle(
    stage: Stage,
    systems: Sequence[System],
    *,
    seconds: float,
    keys: int,
    value_bytes: int,
    quiet_seconds: float,
    points: PointsFile,
) -> list[Table]:
    """Look at one idle cluster after the other; return what they use, and the targets."""
    table = Table(
        name="idle",
        title=(
            f"Servers with {keys:,} keys of {value_bytes} bytes, during {seconds:g} s without a "
            "client"
        ),
        columns=[
            "",
            "leader CPU %",
            "others' median %",
            "leader RSS MiB",
            "highest RSS MiB",
            "highest RssAnon MiB",
        ],
    )
    rows: list[tuple[Target, float | None]] = []
    for system in systems:
        stage.say(f"{system.name} starts")
        servers = _measure(stage, system, seconds, keys, value_bytes, quiet_seconds)
        points.write(
            "idle",
            {"system": system.name, "servers": [attrs.asdict(server) for server in servers]},
        )
        leader, *others = servers
        table.add(
            system.name,
            leader.cpu_percent,
            statistics.median(server.cpu_percent for server in others) if others else None,
            leader.resident_mib,
            max(server.resident_mib for server in servers),
            max(server.anonymous_mib for server in servers),
        )
        if system.name == RAFTD.name:
            rows = _targets(servers)
    table.notes += [
        "CPU in percent of one core, with the processes that a server starts. RSS counts mapped",
        "files, which the kernel takes back when it needs the memory; RssAnon does not.",
    ]
    if not rows:
        return [table]
    return [table, target_table("idle-targets", "Targets: an idle server of raftd", rows)]


def _measure(
    stage: Stage,
    system: System,
    seconds: float,
    keys: int,
    value_bytes: int,
    quiet_seconds: float,
) -> list[Idle]:
    running = system.start(stage)
    try:
        running.fill(keys=keys, value_bytes=value_bytes)
        time.sleep(SETTLE_SECONDS)
        wait_quiet(quiet_seconds)
        pids = running.pids()
        with Listening() as listening:
            before, began_s = tree_seconds(pids), time.monotonic()
            time.sleep(seconds)
            after, taken_s = tree_seconds(pids), time.monotonic() - began_s
        memories = [memory_of(pid) for pid in pids]
    finally:
        running.close()
    stage.say(f"  others used {listening.noise.foreign_cores:.2f} cores")
    return [
        Idle(
            cpu_percent=100 * (end - start) / taken_s,
            resident_mib=mebibytes(memory.resident_bytes),
            anonymous_mib=mebibytes(memory.anonymous_bytes),
        )
        for start, end, memory in zip(before, after, memories, strict=True)
    ]


def _targets(servers: Sequence[Idle]) -> list[tuple[Target, float | None]]:
    return [
        (
            Target(what="CPU of the busiest", required=CPU_PERCENT, lower_is_better=True, unit="%"),
            max(server.cpu_percent for server in servers),
        ),
        (
            Target(
                what="RSS of the largest", required=RESIDENT_MIB, lower_is_better=True, unit="MiB"
            ),
            max(server.resident_mib for server in servers),
        ),
    ]
