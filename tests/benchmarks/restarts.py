"""How long a restart and a catch-up take, for states of different sizes; lists in a large one."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable

from raftctl.client import Connection, Deadline
from raftd.protocol import GetReply, GetRequest, ListReply, ListRequest, Request
from tests.benchmarks.bed import (
    NAMES,
    Bed,
    Size,
    add_server,
    kill_and_start,
    remove_server,
    wait_ready,
)
from tests.benchmarks.states import KEY_DIGITS, KEY_PREFIX, State, key_name
from tests.benchmarks.tables import Table, mebibytes
from tests.cluster.processes import RunningCluster

UNTHROTTLED = "catch_up_rate: 64GiB\nsnapshot_rate: 64GiB"
LIST_LIMIT = 100
ASK_MS = 60_000.0


def _sizes(bed: Bed) -> list[Size]:
    sizes = [Size(label="10 thousand keys, 100 B", keys=10_000, value_bytes=100)]
    if not bed.quick:
        sizes.append(Size(label="1 million keys, 100 B", keys=1_000_000, value_bytes=100))
    return [*sizes, bed.large]


def _follower(cluster: RunningCluster) -> str:
    leader = cluster.wait_leader()
    return next(name for name in NAMES if name != leader.name)


def measure_restarts(bed: Bed) -> list[Table]:
    """Kill and start a follower, rebuild its state, add an empty server: for each size."""
    table = Table(
        name="restart",
        title="Restart of a server (kill -9), and catch-up of an empty one with `raftctl add`",
        columns=[
            "state",
            "snapshot MiB",
            "database MiB",
            "restart s",
            "rebuilt s",
            "add s",
            "MiB/s",
            "add, no limit s",
            "MiB/s ",
        ],
    )
    lists = _list_table()
    for size in _sizes(bed):
        state = bed.state(size)
        row = _measure_size(bed, state, lists, size.label)
        table.add(size.label, *row)
        if size != bed.large:
            bed.forget(size)
    table.notes += [
        f"restart: from exec to an answer with all that was committed, median of {bed.rounds}; the",
        "state on disk proves that it survived. rebuilt: the same without it, as after a loss of",
        "power: built from the snapshot. add: an empty server until it votes, from the start of",
        "raftctl to its end; by default as fast as nobody else needs the leader, up to 1 GiB/s.",
        f"The first one contains the start of Python, {_start_of_python():.2f} s here.",
    ]
    lists.notes.append("median and slowest of 200 (get) and 20 (list); linearizable, by the leader")
    return [table, lists]


def _measure_size(bed: Bed, state: State, lists: Table, label: str) -> tuple[float, ...]:
    rounds = bed.rounds
    size_mib = mebibytes(state.id.size_bytes)
    with bed.placed(state) as folder:
        with bed.running(folder) as cluster:
            follower = _follower(cluster)
            restarts = [kill_and_start(cluster, follower, wipe_state=False) for _ in range(rounds)]
            rebuilds = [kill_and_start(cluster, follower, wipe_state=True) for _ in range(rounds)]
            _measure_lists(cluster, state, lists, label)
            slow = add_server(cluster, "n4")
            remove_server(cluster, "n4")
            wait_ready(cluster, within_s=60)
        with bed.running(folder, settings=UNTHROTTLED) as cluster:
            fast = add_server(cluster, "n5")
    bed.say(
        f"{label}: restart {_listed(restarts)}, rebuilt {_listed(rebuilds)}, "
        f"add {slow.seconds:.1f} s, without limits {fast.seconds:.1f} s"
    )
    return (
        size_mib,
        mebibytes(state.database_bytes),
        statistics.median(restarts),
        statistics.median(rebuilds),
        slow.seconds,
        size_mib / slow.seconds,
        fast.seconds,
        size_mib / fast.seconds,
    )


def _listed(seconds: list[float]) -> str:
    return " ".join(f"{each:.2f}" for each in seconds) + " s"


def _start_of_python() -> float:
    started_s = time.monotonic()
    subprocess.run([sys.executable, "-c", "import raftd.server"], check=True)
    return time.monotonic() - started_s


# --- reads ---------------------------------------------------------------------------------------


def _list_table() -> Table:
    return Table(
        name="list",
        title="Reads in a large state",
        columns=[
            "state",
            "get ms",
            "slowest ms",
            f"list {LIST_LIMIT} ms",
            "slowest ms ",
            "raftctl list ms",
        ],
    )


def _measure_lists(cluster: RunningCluster, state: State, table: Table, label: str) -> None:
    leader = cluster.wait_leader()
    connection = Connection.open(leader.address, Deadline.after_ms(ASK_MS))

    def timed_ms(request: Request, check: Callable[[object], bool]) -> float:
        started_s = time.perf_counter()
        reply = connection.ask(request, Deadline.after_ms(ASK_MS))
        taken_ms = 1000 * (time.perf_counter() - started_s)
        assert check(reply), reply
        return taken_ms

    def found(reply: object) -> bool:
        return isinstance(reply, GetReply) and len(reply.value) == state.value_bytes

    def listed(reply: object) -> bool:
        return isinstance(reply, ListReply) and len(reply.entries) == LIST_LIMIT

    try:
        gets = [
            timed_ms(GetRequest(key=key_name(number * 7_919 % state.keys)), found)
            for number in range(200)
        ]
        # A prefix of 100 keys out of the middle, and of more each time.
        prefix = KEY_PREFIX + f"{state.keys // 2:0{KEY_DIGITS}d}"[:-2]
        lists = [
            timed_ms(ListRequest(prefix=prefix[: len(prefix) - cut], limit=LIST_LIMIT), listed)
            for cut in (0, 1)
            for _ in range(10)
        ]
    finally:
        connection.close()
    commands = []
    for _ in range(3):
        started_s = time.perf_counter()
        outcome = cluster.ctl("list", prefix, "--limit", str(LIST_LIMIT), "-o", "json")
        commands.append(1000 * (time.perf_counter() - started_s))
        assert len(outcome.document["entries"]) == LIST_LIMIT
    table.add(
        label,
        statistics.median(gets),
        max(gets),
        statistics.median(lists),
        max(lists),
        statistics.median(commands),
    )
