"""The memory of servers and their workers while a snapshot is taken, sent and installed."""

from __future__ import annotations

import time

from tests.benchmarks.bed import LONG_WAIT_S, NAMES, Bed, MemoryWatch, TakingWatch, add_server
from tests.benchmarks.tables import Table, mebibytes
from tests.cluster.processes import wait_for

LOG_MIB = 1
"""Little log brings a snapshot about, so that what is measured is not the log."""
WRITES = 600
"""Of 8 KiB: more than four times `LOG_MIB`."""
WRITE_BYTES = 8 * 1024


def measure_memory(bed: Bed) -> list[Table]:
    """Sample RssAnon of all processes: idle, during a snapshot, during an install."""
    state = bed.state(bed.large)
    table = Table(
        name="memory",
        title=f"Highest anonymous memory (RssAnon, MiB) with {bed.large.label}",
        columns=["", "leader", "follower", "new server", "above idle", "a worker"],
    )
    with bed.cluster(state, settings=f"snapshot_log_size: {LOG_MIB}MiB") as cluster:
        leader = cluster.wait_leader().name
        watch = MemoryWatch({name: cluster[name] for name in NAMES})
        taking = TakingWatch(cluster)
        idle: dict[str, int] = {}

        def add_row(label: str) -> None:
            peaks = watch.peak_bytes
            followers = [peaks[name] for name in NAMES if name != leader]
            above = max(peaks[name] - idle.setdefault(name, peaks[name]) for name in peaks)
            workers = watch.worker_peak_bytes.values()
            table.add(
                label,
                mebibytes(peaks[leader]),
                mebibytes(max(followers)),
                mebibytes(peaks["n4"]) if "n4" in peaks else None,
                mebibytes(above),
                mebibytes(max(workers)) if workers else None,
            )
            watch.restart()

        with watch.watch(), taking.watch():
            time.sleep(2.0)
            add_row("idle")
            with bed.load(
                cluster, keys=state.keys, clients=4, value_bytes=WRITE_BYTES, writes=WRITES
            ) as load:
                load.finish()
            wait_for("a snapshot", lambda: taking.windows_ns, within_s=LONG_WAIT_S)
            time.sleep(1.0)
            add_row("a snapshot is taken")

            def started(server: object) -> None:
                watch.add(cluster["n4"])
                time.sleep(1.0)
                idle["n4"] = watch.peak_bytes["n4"]
                watch.restart()

            add_server(cluster, "n4", started)
            add_row("a server is added")
    table.notes += [
        "above idle: of the server that needed most; a new server is idle when it is blank.",
        "Target: at most 128 MiB. The state itself is in the page cache, and no part of this.",
    ]
    return [table]
