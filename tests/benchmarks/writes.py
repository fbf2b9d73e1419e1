"""What a snapshot and a catch-up cost clients that write, and an addition under their load."""

from __future__ import annotations

import time

import attrs

from raftd.commands import Command, Put, encode_command
from raftd.core.log import ENTRY_HEAD_BYTES
from tests.benchmarks.bed import (
    LONG_WAIT_S,
    NAMES,
    SETTLE_SECONDS,
    Added,
    Bed,
    TakingWatch,
    add_server,
    anonymous_bytes,
    remove_server,
)
from tests.benchmarks.foreground import Latencies, Samples
from tests.benchmarks.states import State, key_name
from tests.benchmarks.tables import MEBIBYTE, Table, mebibytes
from tests.cluster.processes import RunningCluster, wait_for

STALL_MS = 100.0
"""Writes that take longer are listed one by one."""
STALLS_SHOWN = 4
VALUE_BYTES = 256
FILL_VALUE_BYTES = 8 * 1024
FILL_STEP_BYTES = 512 * 1024
FILL_PATIENCE_SECONDS = 2.0
FILL_CLIENTS = 32
SNAPSHOT_LOG_FACTOR = 4
"""With a state that is larger than that, a snapshot is taken at so many times the set size."""
WARM_UP_SECONDS = 2.0
WORKER_START_NS = 300_000_000
"""Between the beginning of a snapshot and its file: a Python starts."""
DEFAULT_SNAPSHOT_LOG_MIB = 64
FULL_LOG_ROOM_MIB = 8
FULL_LOG_ROOM_QUICK_MIB = 3
"""So much of the log that brings a snapshot about is left for the clients to write."""
LINES_SHOWN = 16
SESSION = "0" * 16

LATENCY_COLUMNS = (
    "clients, meanwhile",
    "writes/s",
    "of none",
    "p50 ms",
    "p99 ms",
    "p99.9 ms",
    "max ms",
    "nobody ms",
    "seconds",
)

Window = tuple[int, int]


@attrs.define
class _Windows:
    """When what was going on, in monotonic nanoseconds."""

    none: list[Window] = attrs.field(factory=list)
    snapshot: list[Window] = attrs.field(factory=list)
    catch_up: list[Window] = attrs.field(factory=list)


def _entry_bytes(value_bytes: int, session: str = SESSION) -> int:
    """Return what a put counts for in the log."""
    serial = 1 << 20 if session else 0
    command = Command(Put(key_name(0), bytes(value_bytes)), session, serial, serial)
    return len(encode_command(command)) + ENTRY_HEAD_BYTES


def measure_writes(bed: Bed) -> list[Table]:
    """Write steadily while nothing else, a snapshot, and a catch-up go on, in turns."""
    state = bed.state(bed.large)
    title = f"Steady writes of 256 bytes, all over a state of {bed.large.label}"
    table = Table(name="writes", title=title, columns=LATENCY_COLUMNS)
    rounds_of = {16: bed.rounds} if bed.quick else {16: bed.rounds, 1: max(1, bed.rounds - 1)}
    for clients, rounds in rounds_of.items():
        samples, windows = _run(bed, state, clients, rounds)
        _add_rows(table, f"{clients}", samples, windows)
    table.notes += [
        "nobody: the longest time in which no client had an answer. Snapshots are taken by all",
        "servers at about the same time, as their logs grow alike; an addition ends with a vote.",
        "Rates are the defaults. Targets: p99 at most 100 ms while a snapshot is taken; half of",
        "the throughput during a catch-up.",
    ]
    return [table]


def _run(bed: Bed, state: State, clients: int, rounds: int) -> tuple[Samples, _Windows]:
    # So that no round takes one by itself, and little has to be written to bring one about.
    log_mib = 2 if bed.quick else 32
    quiet_seconds = 3.0 if bed.quick else 15.0
    windows = _Windows()
    with bed.cluster(state, settings=f"snapshot_log_size: {log_mib}MiB") as cluster:
        taking = TakingWatch(cluster)
        with taking.watch(), bed.load(cluster, keys=state.keys, clients=clients) as load:
            time.sleep(WARM_UP_SECONDS)
            for number in range(rounds):
                began_ns = time.monotonic_ns()
                time.sleep(quiet_seconds)
                windows.none.append((began_ns, time.monotonic_ns()))
                windows.snapshot.append(_provoke_snapshot(bed, cluster, state, taking, log_mib))
                name = f"n{4 + number}"
                added = add_server(cluster, name)
                windows.catch_up.append((added.start_ns, added.end_ns))
                remove_server(cluster, name)
                bed.say(
                    f"{clients} clients, round {number + 1}: snapshot "
                    f"{(windows.snapshot[-1][1] - windows.snapshot[-1][0]) / 1e9:.1f} s, "
                    f"catch-up {added.seconds:.1f} s"
                )
            samples = load.stop()
    return samples, windows


def _provoke_snapshot(
    bed: Bed, cluster: RunningCluster, state: State, taking: TakingWatch, log_mib: int
) -> Window:
    """Fill the log almost up to the next snapshot, and return when that was taken.

    The last part is left to the clients that are measured, so that its beginning counts, too.
    """
    seen = len(taking.windows_ns)
    due_bytes = _due_bytes(state, log_mib)
    filled = 0
    ready_ns = time.monotonic_ns()
    while not _has_begun(taking, seen):
        left_bytes = due_bytes - _log_bytes(cluster, filled)
        if left_bytes < FILL_STEP_BYTES:
            # The server counts a little differently; the next step may be the last one.
            deadline_s = time.monotonic() + FILL_PATIENCE_SECONDS
            while not _has_begun(taking, seen) and time.monotonic() < deadline_s:
                time.sleep(0.02)
            if _has_begun(taking, seen):
                break
        writes = max(left_bytes - FILL_STEP_BYTES // 2, FILL_STEP_BYTES) // FILL_VALUE_BYTES
        with bed.load(
            cluster,
            keys=state.keys,
            clients=FILL_CLIENTS,
            value_bytes=FILL_VALUE_BYTES,
            writes=writes,
        ) as fill:
            fill.finish()
        filled += writes
        ready_ns = time.monotonic_ns() + int(0.2e9)
    began_ns = taking.began_ns or taking.windows_ns[seen][0]
    wait_for("the snapshot is taken", lambda: len(taking.windows_ns) > seen, within_s=LONG_WAIT_S)
    time.sleep(SETTLE_SECONDS)
    return max(ready_ns, began_ns - WORKER_START_NS), time.monotonic_ns()


def _due_bytes(state: State, log_mib: int) -> int:
    """Return how much log brings a snapshot about where `snapshot_log_size` is `log_mib`."""
    log_bytes = log_mib * MEBIBYTE
    return max(log_bytes, min(state.id.size_bytes, SNAPSHOT_LOG_FACTOR * log_bytes))


def _has_begun(taking: TakingWatch, seen: int) -> bool:
    return bool(taking.began_ns) or len(taking.windows_ns) > seen


def _log_bytes(cluster: RunningCluster, filled: int) -> int:
    """Return about how much log there is since the last snapshot, `filled` large values of it."""
    status = cluster.wait_leader().status()
    assert status is not None
    entries = status.last_index - status.snapshot_index
    return (entries - filled) * _entry_bytes(VALUE_BYTES) + filled * _entry_bytes(FILL_VALUE_BYTES)


def _add_rows(table: Table, clients: str, samples: Samples, windows: _Windows) -> None:
    base = samples.within(windows.none)
    for what, some in (
        ("nothing else", windows.none),
        ("a snapshot", windows.snapshot),
        ("a catch-up", windows.catch_up),
    ):
        if some:
            _add_row(table, f"{clients}, {what}", samples.within(some), base)
            table.notes += _stalls(f"{clients}, {what}", samples, some)
    share = samples.cpu_seconds / samples.seconds
    table.notes.append(f"{clients}: the clients used {share:.0%} of one core")


def _add_row(table: Table, label: str, seen: Latencies, base: Latencies) -> None:
    table.add(
        label,
        seen.per_second,
        f"{seen.per_second / base.per_second:.0%}" if base.writes else None,
        seen.p50_ms,
        seen.p99_ms,
        seen.p999_ms,
        seen.max_ms,
        seen.gap_ms,
        round(seen.seconds),
    )


def _stalls(label: str, samples: Samples, windows: list[Window]) -> list[str]:
    """Return a line about when in their windows the longest writes were."""
    found = [
        (taken_ms, (ended_ns - start_ns) / 1e9, (end_ns - start_ns) / 1e9)
        for start_ns, end_ns in windows
        for ended_ns, taken_ms in samples.stalls(STALL_MS, start_ns, end_ns)
    ]
    if not found:
        return []
    longest = sorted(found, reverse=True)[:STALLS_SHOWN]
    shown = ", ".join(f"{taken:.0f} ms at {at:.1f} of {end:.1f} s" for taken, at, end in longest)
    return [f"{label}: {len(found)} stalls over {STALL_MS:.0f} ms: {shown}"]


def measure_full_log(bed: Bed) -> list[Table]:
    """Let a snapshot be taken by default settings, with as long a log as there ever is."""
    state = bed.state(bed.large)
    log_mib = 4 if bed.quick else DEFAULT_SNAPSHOT_LOG_MIB
    due_bytes = _due_bytes(state, log_mib)
    room_bytes = (FULL_LOG_ROOM_QUICK_MIB if bed.quick else FULL_LOG_ROOM_MIB) * MEBIBYTE
    entries = (due_bytes - room_bytes) // _entry_bytes(VALUE_BYTES, session="")
    title = (
        f"The same for a log of {mebibytes(due_bytes):.0f} MiB, "
        f"snapshot_log_size {log_mib} MiB (default {DEFAULT_SNAPSHOT_LOG_MIB})"
    )
    table = Table(name="full-log", title=title, columns=LATENCY_COLUMNS)
    clients = 16
    settings = f"snapshot_log_size: {log_mib}MiB"
    with bed.cluster(state, settings=settings, log_entries=entries) as cluster:
        memory = {name: anonymous_bytes(cluster[name].pid) for name in NAMES}
        taking = TakingWatch(cluster)
        with taking.watch(), bed.load(cluster, keys=state.keys, clients=clients) as load:
            time.sleep(WARM_UP_SECONDS)
            began_ns = time.monotonic_ns()
            wait_for("a snapshot begins", lambda: taking.first_ns, within_s=LONG_WAIT_S)
            start_ns = max(began_ns + 1, taking.first_ns - WORKER_START_NS)
            windows = _Windows(none=[(began_ns, start_ns)])
            wait_for("it is taken", lambda: taking.windows_ns, within_s=LONG_WAIT_S)
            # Hundreds of thousands of entries are dropped now, some in each turn.
            time.sleep(2 * SETTLE_SECONDS)
            windows.snapshot.append((start_ns, time.monotonic_ns()))
            samples = load.stop()
        after = {name: anonymous_bytes(cluster[name].pid) for name in NAMES}
    _add_rows(table, f"{clients}", samples, windows)
    table.notes.append(
        f"RssAnon of a server with {entries:,} entries: {mebibytes(max(memory.values())):.0f} MiB, "
        f"after the snapshot {mebibytes(max(after.values())):.0f} MiB"
    )
    return [table]


def measure_learner(bed: Bed) -> list[Table]:
    """Add an empty server under load, and show what raftctl says meanwhile."""
    state = bed.state(bed.large)
    with bed.cluster(state) as cluster:
        with bed.load(cluster, keys=state.keys, clients=16) as load:
            time.sleep(WARM_UP_SECONDS)
            began_ns = time.monotonic_ns()
            time.sleep(WARM_UP_SECONDS)
            windows = _Windows(none=[(began_ns, time.monotonic_ns())])
            added = add_server(cluster, "n4")
            windows.catch_up.append((added.start_ns, added.end_ns))
            samples = load.stop()
        status = cluster["n4"].status()
    table = Table(
        name="learner",
        title=f"`raftctl add` of an empty server to {bed.large.label}, while 16 clients write",
        columns=["", "seconds", "MiB/s", "writes/s before", "meanwhile", "role in the end"],
    )
    meanwhile = samples.within(windows.catch_up)
    table.add(
        "add n4",
        added.seconds,
        mebibytes(state.id.size_bytes) / added.seconds,
        samples.within(windows.none).per_second,
        meanwhile.per_second,
        status.role if status is not None else "gone",
    )
    table.notes += _told(added)
    return [table]


def _told(added: Added) -> list[str]:
    """Return what raftctl printed, at most `LINES_SHOWN` lines of it."""
    lines = added.lines
    step = max(1, -(-len(lines) // LINES_SHOWN))
    shown = [line for number, line in enumerate(lines) if number % step == 0 or line == lines[-1]]
    return [f"{seconds:6.1f} s  {text}" for seconds, text in shown if text]
