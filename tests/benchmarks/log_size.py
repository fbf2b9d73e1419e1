"""What a day's worth of overwrites leaves on the disk."""

from __future__ import annotations

import time
from pathlib import Path

import attrs

from tests.benchmarks.bed import Bed, Size, Watcher, tree_bytes
from tests.benchmarks.tables import Table, mebibytes, plot

KEYS = 1_000
OVERWRITES_OF_A_DAY = 5_000_000
SNAPSHOT_LOG_MIB = 64
"""The default, which is scaled down as the number of overwrites is."""
CLIENTS = 64
SAMPLE_SECONDS = 0.25


@attrs.define
class _Sizes:
    """What one server had on its disk, over time, in bytes."""

    directory: Path
    started_s: float = attrs.field(factory=time.monotonic)
    times_s: list[float] = attrs.field(factory=list)
    log: list[int] = attrs.field(factory=list)
    snapshots: list[int] = attrs.field(factory=list)
    database: list[int] = attrs.field(factory=list)
    total: list[int] = attrs.field(factory=list)

    def look(self) -> None:
        """Take a sample."""
        self.times_s.append(time.monotonic() - self.started_s)
        self.log.append(tree_bytes(self.directory / "wal"))
        self.snapshots.append(tree_bytes(self.directory / "snapshots"))
        self.database.append(tree_bytes(self.directory / "state"))
        self.total.append(tree_bytes(self.directory))


def measure_log_size(bed: Bed) -> list[Table]:
    """Overwrite the same keys again and again, and sample the data directory of the leader."""
    overwrites = 20_000 if bed.quick else 300_000
    log_mib = max(1, SNAPSHOT_LOG_MIB * overwrites // OVERWRITES_OF_A_DAY)
    size = Size(label="1 thousand keys", keys=KEYS, value_bytes=256)
    with bed.cluster(bed.state(size), settings=f"snapshot_log_size: {log_mib}MiB") as cluster:
        sizes = _Sizes(cluster.wait_leader().data_dir)
        with (
            Watcher(sizes.look, SAMPLE_SECONDS),
            bed.load(cluster, keys=KEYS, clients=CLIENTS, writes=overwrites) as load,
        ):
            samples = load.finish()
        status = cluster.wait_leader().status()
        assert status is not None
    table = Table(
        name="log-size",
        title=f"Disk of one server during {overwrites:,} overwrites of {KEYS:,} keys (256 bytes)",
        columns=["MiB", "first", "median", "highest", "last"],
    )
    for label, values in (
        ("log", sizes.log),
        ("snapshots", sizes.snapshots),
        ("database", sizes.database),
        ("data directory", sizes.total),
    ):
        ordered = sorted(values)
        numbers = (values[0], ordered[len(ordered) // 2], ordered[-1], values[-1])
        table.add(label, *(mebibytes(number) for number in numbers))
    table.notes += [
        f"A day of {OVERWRITES_OF_A_DAY:,} overwrites, scaled down "
        f"{OVERWRITES_OF_A_DAY // overwrites} times: snapshot_log_size is {log_mib} MiB instead "
        f"of {SNAPSHOT_LOG_MIB} MiB, clients are {CLIENTS}.",
        f"All entries together: {mebibytes(overwrites * 340):.0f} MiB; "
        f"the log still has {status.last_index - status.first_index + 1:,} of "
        f"{status.last_index:,} entries. {overwrites / samples.seconds:,.0f} writes/s.",
        "",
        *plot("log, MiB", sizes.times_s, [mebibytes(value) for value in sizes.log]),
        *plot("data directory, MiB", sizes.times_s, [mebibytes(value) for value in sizes.total]),
    ]
    return [table]
