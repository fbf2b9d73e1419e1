"""Replacing one of three servers, in raftd and in etcd, with little and with much state.

raftd: the new server runs, blank, before the measurement. Measured is the wall time of the whole
`raftctl replace OLD NEW=HOST:PORT --yes`, Python's start included, and the time between the first
and the last entry of the operation in the log, by the clock of the leader.

etcd: its manual's way: add the new member as a learner, start it, promote it as soon as it is
allowed, remove the old one. A member cannot run before it was added, so its start is part of the
measurement; everything else is ready by then: the process waits to become etcd, and the client is
connected. How long the start takes until it listens is told, too. Calls that etcd does not answer
within a second are repeated: it drops a change that comes before the last one is applied.

Both are done without load, for the times, and once more while clients write to the leader, for
what is left of their throughput. The server that leaves is a follower.
"""

from __future__ import annotations

import itertools
import json
import os
import socket
import statistics
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence

import attrs

from tests.benchmarks.comparisons.children import memory_of
from tests.benchmarks.comparisons.etcd import ETCD, EtcdCluster
from tests.benchmarks.comparisons.generator import ComparisonProblem, Report, Workload
from tests.benchmarks.comparisons.medians import ratio_of
from tests.benchmarks.comparisons.points import PointsFile
from tests.benchmarks.comparisons.quiet import wait_quiet
from tests.benchmarks.comparisons.raftd_cluster import RAFTD, RaftdCluster
from tests.benchmarks.comparisons.systems import Running, Stage
from tests.benchmarks.comparisons.targets import Target, target_table
from tests.benchmarks.tables import Cell, Table, mebibytes

BEFORE_SECONDS = 3.0
"""Of load, before a replacement begins."""
AFTER_SECONDS = 0.5
SERIES_MS = 20
"""Answers are counted for so long at a time."""
WINDOW_SECONDS = 0.5
"""The throughput during a replacement is the lowest of any stretch of this length."""
REPLACE_SECONDS = 600.0
PROCESS_SECONDS = 0.5
LOG_SECONDS = 0.2
"""What replacing a server with little state may take at most."""
THROUGHPUT_SHARE = 0.5
"""What must be left of the throughput of others meanwhile."""


@attrs.frozen(kw_only=True)
class Size:
    """How much state there is."""

    name: str
    keys: int
    value_bytes: int

    @property
    def label(self) -> str:
        """For tables."""
        return f"{self.name}, {self.keys:,} keys of {self.value_bytes:,} bytes"


SIZES = {
    size.name: size
    for size in (
        Size(name="small", keys=10_000, value_bytes=256),
        Size(name="large", keys=125_000, value_bytes=4096),
    )
}
"""The large one is 735 MiB in the database of etcd."""


@attrs.frozen(kw_only=True)
class Replaced:
    """One replacement."""

    start_ns: int
    end_ns: int
    """By the monotonic clock."""
    resident_mib: list[float]
    """Of all servers that ran when it was done, the new one last."""
    parts_ms: dict[str, float] = attrs.field(factory=dict)
    """What is known of its parts, by name."""

    @property
    def seconds(self) -> float:
        """From its beginning to its end."""
        return (self.end_ns - self.start_ns) / 1e9


@attrs.frozen(kw_only=True)
class Foreground:
    """What became of the clients that wrote meanwhile."""

    before_per_second: float
    share: float
    """Their throughput during the replacement, in relation to that before."""
    lowest_share: float
    """The same, for the worst stretch of it."""
    lowest_share_before: float
    """For the worst stretch before: what is usual anyway."""
    errors: dict[str, int]


# --- the two systems -----------------------------------------------------------------------------


class _Subject(ABC):
    """A cluster of three in which one server after the other is replaced."""

    name: str
    running: Running

    @abstractmethod
    def prepare(self) -> None:
        """Have everything ready for the next replacement that can be ready."""

    @abstractmethod
    def replace(self) -> Replaced:
        """Replace a follower."""

    @abstractmethod
    def settle(self) -> dict[str, float]:
        """End the server that was replaced, and wait until all is well again.

        Returns: how long the parts of the replacement took, in milliseconds.
        """


class _Raftd(_Subject):
    name = RAFTD.name

    def __init__(self, stage: Stage) -> None:
        self.running = self._raftd = RaftdCluster(stage)
        self._cluster = self._raftd.cluster
        self._old = self._new = self._operation = ""
        self._count = len(self._cluster.servers)

    def prepare(self) -> None:
        self._count += 1
        self._new = f"n{self._count}"
        self._cluster.start_blank(self._new)
        leader = self._cluster.wait_leader()
        self._old = self._cluster.followers(leader)[0].name

    def replace(self) -> Replaced:
        target = f"{self._new}={self._cluster[self._new].address}"
        start_ns = time.monotonic_ns()
        command = self._cluster.start_ctl("replace", self._old, target, "--yes", "-o", "json")
        printed, told = command.communicate(timeout=REPLACE_SECONDS)
        end_ns = time.monotonic_ns()
        if command.returncode:
            raise ComparisonProblem(f"raftctl replace ended with {command.returncode}: {told}")
        self._operation = json.loads(printed.splitlines()[-1])["operation"]
        servers = [one for one in self._cluster.servers.values() if one.running]
        resident = [mebibytes(memory_of(server.pid).resident_bytes) for server in servers]
        return Replaced(start_ns=start_ns, end_ns=end_ns, resident_mib=resident)

    def settle(self) -> dict[str, float]:
        old = self._cluster[self._old]
        old.wait_exit()
        old.wipe()
        del self._cluster.servers[self._old]
        members = list(self._cluster.servers.values())
        self._cluster.write_config(self._cluster.config_path, members)
        self._cluster.wait_settled([server.name for server in members])
        shown = self._cluster.ctl("operation", "show", self._operation, "-o", "json")
        if shown.code:
            raise ComparisonProblem(f"raftctl operation show: {shown.stderr}")
        phases = shown.document["phases"]
        parts = {
            before["phase"]: float(after["time_ms"] - before["time_ms"])
            for before, after in itertools.pairwise(phases)
        }
        return {"log": float(phases[-1]["time_ms"] - phases[0]["time_ms"]), **parts}


class _Etcd(_Subject):
    name = ETCD.name

    def __init__(self, stage: Stage) -> None:
        self.running = self._etcd = EtcdCluster(stage)
        self._stage = stage
        self._old = self._new = ""
        self._count = len(self._etcd.processes)
        self._process: subprocess.Popen[str] | None = None
        self._parts_ms: dict[str, float] = {}

    def prepare(self) -> None:
        leader = self._etcd.leader()
        self._old = next(name for name in self._etcd.processes if name != leader)
        self._count += 1
        self._new = f"m{self._count}"
        self._etcd.prepare_member(self._new)
        self._process = self._stage.generator.start_replacement(
            [self._etcd.client_address(leader)],
            old=self._old,
            peer_url=self._etcd.peer_url(self._new),
        )
        self._stage.generator.wait_event(self._process, "ready")

    def replace(self) -> Replaced:
        process = self._process
        assert process is not None
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
        added = self._step("add")
        started_ns = time.monotonic_ns()
        self._etcd.release(self._new)
        _wait_listening(self._etcd.peer_url(self._new))
        listening_ns = time.monotonic_ns()
        promoted, removed = self._step("promote"), self._step("remove")
        pids = [one.pid for one in self._etcd.processes.values() if one.poll() is None]
        resident = [mebibytes(memory_of(pid).resident_bytes) for pid in pids]
        self._stage.generator.end(process)
        self._parts_ms = {
            "add": (added["end_ns"] - added["start_ns"]) / 1e6,
            "start": (listening_ns - started_ns) / 1e6,
            "start to promoted": (promoted["end_ns"] - started_ns) / 1e6,
            "remove": (removed["end_ns"] - removed["start_ns"]) / 1e6,
        }
        return Replaced(start_ns=added["start_ns"], end_ns=removed["end_ns"], resident_mib=resident)

    def _step(self, name: str) -> dict[str, int]:
        assert self._process is not None
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise ComparisonProblem(f"etcd: {name} has failed: {self._stage.generator.told()}")
        step: dict[str, int] = json.loads(line)
        return step

    def settle(self) -> dict[str, float]:
        self._etcd.forget(self._old)
        self._etcd.wait_healthy()
        return self._parts_ms


def _wait_listening(url: str) -> None:
    host, _, port = url.rpartition("/")[2].partition(":")
    deadline_s = time.monotonic() + REPLACE_SECONDS
    while time.monotonic() < deadline_s:
        try:
            socket.create_connection((host, int(port)), 1.0).close()
        except OSError:
            time.sleep(0.005)
        else:
            return
    raise ComparisonProblem(f"the new member of etcd does not listen at {url}")


# --- throughput meanwhile ------------------------------------------------------------------------


def answers_per_second(report: Report, start_ns: int, end_ns: int) -> float:
    """Return the throughput of a stretch of time; intervals at its ends count in part."""
    if end_ns <= start_ns:
        return 0.0
    interval_ns = report.series_interval_ms * 1e6
    answers = 0.0
    for number, count in enumerate(report.series):
        began_ns = report.series_start_ns + number * interval_ns
        overlap_ns = min(end_ns, began_ns + interval_ns) - max(start_ns, began_ns)
        if overlap_ns > 0:
            answers += count * overlap_ns / interval_ns
    return answers * 1e9 / (end_ns - start_ns)


def lowest_per_second(report: Report, start_ns: int, end_ns: int, window_ns: int) -> float:
    """Return the throughput of the worst window within a stretch, or of all of it if shorter."""
    if end_ns - start_ns <= window_ns:
        return answers_per_second(report, start_ns, end_ns)
    step_ns = int(report.series_interval_ms * 1e6)
    starts = [*range(start_ns, end_ns - window_ns, step_ns), end_ns - window_ns]
    return min(answers_per_second(report, start, start + window_ns) for start in starts)


def foreground_of(report: Report, replaced: Replaced) -> Foreground:
    """Return what became of the clients during a replacement."""
    window_ns = int(WINDOW_SECONDS * 1e9)
    start_ns, end_ns = replaced.start_ns, replaced.end_ns
    before = answers_per_second(report, report.start_ns, start_ns)
    if not before:
        raise ComparisonProblem(f"the clients could not write before: {report.error_texts}")
    return Foreground(
        before_per_second=before,
        share=answers_per_second(report, start_ns, end_ns) / before,
        lowest_share=lowest_per_second(report, start_ns, end_ns, window_ns) / before,
        lowest_share_before=lowest_per_second(report, report.start_ns, start_ns, window_ns)
        / before,
        errors=report.errors,
    )


# --- measuring -----------------------------------------------------------------------------------


@attrs.define
class _Seen:
    """What was measured of one system."""

    alone: dict[int, Replaced] = attrs.field(factory=dict)
    loaded: dict[int, Replaced] = attrs.field(factory=dict)
    foreground: list[Foreground] = attrs.field(factory=list)


def measure_replacement(
    stage: Stage,
    sizes: Sequence[Size],
    *,
    rounds: int,
    clients: int,
    quiet_seconds: float,
    points: PointsFile,
) -> list[Table]:
    """Replace servers in turns; return a table of times and that of the targets."""
    table = Table(
        name="replacement",
        title=f"Replacing one of three servers, medians of {rounds} rounds",
        columns=[
            "",
            "alone s",
            "worst s",
            "in the log s",
            f"with {clients} clients s",
            "writes/s before",
            "share",
            "worst 0.5 s",
            "usual worst",
            "highest RSS MiB",
        ],
    )
    rows: list[tuple[Target, float | None]] = []
    for size in sizes:
        seen = _measure(stage, size, rounds, clients, quiet_seconds, points)
        for name, one in seen.items():
            table.add(f"{size.name} {name}", *_cells(one))
            table.notes.append(f"{size.name} {name}: {_parts(one)}")
        rows += _targets(size, seen)
    table.notes += [
        "share: throughput of the clients meanwhile to that before; worst 0.5 s: the same for the",
        "worst half second of all rounds; usual worst: of those before the replacement.",
    ]
    return [
        table,
        target_table("replacement-targets", "Targets: replacing a server of raftd", rows),
    ]


def _measure(
    stage: Stage,
    size: Size,
    rounds: int,
    clients: int,
    quiet_seconds: float,
    points: PointsFile,
) -> dict[str, _Seen]:
    subjects: list[_Subject] = []
    missing = ETCD.missing()
    if missing is None:
        subjects.append(_Etcd(stage))
    else:
        stage.say(f"left out: etcd: {missing}")
    subjects.append(_Raftd(stage))
    try:
        for subject in subjects:
            stage.say(f"{subject.name}: filling, {size.label}")
            subject.running.fill(keys=size.keys, value_bytes=size.value_bytes)
        seen = {subject.name: _Seen() for subject in subjects}
        for number in range(1, rounds + 1):
            for subject in subjects:
                _one_round(stage, subject, size, number, clients, quiet_seconds, seen, points)
    finally:
        for subject in subjects:
            subject.running.close()
    return seen


def _one_round(
    stage: Stage,
    subject: _Subject,
    size: Size,
    number: int,
    clients: int,
    quiet_seconds: float,
    seen: dict[str, _Seen],
    points: PointsFile,
) -> None:
    """Replace a server without load, and another one with it."""
    mine = seen[subject.name]
    subject.prepare()
    # What is still to be written back would disturb one of both, and not the other.
    os.sync()
    wait_quiet(quiet_seconds)
    replaced = subject.replace()
    alone = mine.alone[number] = attrs.evolve(replaced, parts_ms=subject.settle())
    subject.prepare()
    os.sync()
    wait_quiet(quiet_seconds)
    replaced, foreground = _under_load(stage, subject, clients)
    mine.foreground.append(foreground)
    loaded = mine.loaded[number] = attrs.evolve(replaced, parts_ms=subject.settle())
    points.write(
        "replacement",
        {
            "system": subject.name,
            "size": size.name,
            "round": number,
            "alone": attrs.asdict(alone),
            "loaded": attrs.asdict(loaded),
            "foreground": attrs.asdict(foreground),
        },
    )
    stage.say(
        f"  round {number}: {subject.name:<6} {alone.seconds:.2f} s alone, {loaded.seconds:.2f} s "
        f"with {clients} clients, who kept {foreground.share:.0%} of their throughput"
        + (f"   ERRORS {foreground.errors}" if foreground.errors else "")
    )


def _under_load(stage: Stage, subject: _Subject, clients: int) -> tuple[Replaced, Foreground]:
    running = subject.running
    load = stage.generator.start_load(
        running.driver,
        [running.address()],
        [],
        Workload(operation="put", clients=clients, seconds=0.0, warm_up_seconds=1.0),
        f"-series={SERIES_MS}ms",
        "-key-prefix=load-",
        *running.load_flags,
    )
    time.sleep(1.0 + BEFORE_SECONDS)
    replaced = subject.replace()
    time.sleep(AFTER_SECONDS)
    report = stage.generator.finish_load(load, within_seconds=60.0)
    return replaced, foreground_of(report, replaced)


def _cells(seen: _Seen) -> list[Cell]:
    alone = [one.seconds for one in seen.alone.values()]
    logged = [one.parts_ms["log"] / 1000 for one in seen.alone.values() if "log" in one.parts_ms]
    both = [*seen.alone.values(), *seen.loaded.values()]
    foreground = seen.foreground
    return [
        statistics.median(alone),
        max(alone),
        statistics.median(logged) if logged else None,
        statistics.median(one.seconds for one in seen.loaded.values()),
        round(statistics.median(one.before_per_second for one in foreground)),
        f"{statistics.median(one.share for one in foreground):.0%}",
        f"{min(one.lowest_share for one in foreground):.0%}",
        f"{min(one.lowest_share_before for one in foreground):.0%}",
        max(max(one.resident_mib) for one in both),
    ]


def _parts(seen: _Seen) -> str:
    names = next(iter(seen.alone.values())).parts_ms
    medians = {
        name: statistics.median(one.parts_ms[name] for one in seen.alone.values()) for name in names
    }
    return ", ".join(f"{name} {taken_ms:.0f} ms" for name, taken_ms in medians.items())


def _targets(size: Size, seen: dict[str, _Seen]) -> list[tuple[Target, float | None]]:
    ours = seen[RAFTD.name]
    rows: list[tuple[Target, float | None]] = []

    def at_most(what: str, required: float, unit: str, measured: float | None) -> None:
        target = Target(what=what, required=required, lower_is_better=True, unit=unit)
        rows.append((target, measured))

    if size.name == "small":
        seconds = statistics.median(one.seconds for one in ours.alone.values())
        logged = statistics.median(one.parts_ms["log"] for one in ours.alone.values()) / 1000
        at_most("small: the whole raftctl replace", PROCESS_SECONDS, "s", seconds)
        at_most("small: first to last log entry", LOG_SECONDS, "s", logged)
    else:
        theirs = seen.get(ETCD.name)
        ratio = None
        if theirs is not None:
            ratio = ratio_of(
                {number: one.seconds for number, one in ours.alone.items()},
                {number: one.seconds for number, one in theirs.alone.items()},
            )
        at_most(f"{size.name}: against etcd", 1.0, "x", ratio.median if ratio else None)
    lowest = min(one.lowest_share for one in ours.foreground)
    target = Target(
        what=f"{size.name}: clients' throughput meanwhile", required=THROUGHPUT_SHARE, unit="x"
    )
    rows.append((target, lowest))
    return rows
