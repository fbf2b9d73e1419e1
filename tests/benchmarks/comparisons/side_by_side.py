"""Throughput and latency of raftd and its peers, in turns, under the same load.

In every round each system is started empty, filled with all keys, loaded with every operation and
number of clients, and ended, before the next one has its turn. Only one runs at a time. Ratios are
made of the same round, and their median is what is compared with the targets.

All servers and the clients share the processors of this machine. What the clients cost is part of
what is measured, and differs: gRPC takes several times as much of a processor for a request as the
Redis protocol. It is in the tables and in the file of points.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import attrs

from tests.benchmarks.comparisons.generator import FAILURES, Report, Workload
from tests.benchmarks.comparisons.medians import Ratio, best_of, ratio_of
from tests.benchmarks.comparisons.points import PointsFile
from tests.benchmarks.comparisons.quiet import NOISY_CORES, Listening, Noise, wait_quiet
from tests.benchmarks.comparisons.systems import Running, Stage, System
from tests.benchmarks.comparisons.targets import Target, target_table
from tests.benchmarks.tables import Table

ATTEMPTS = 2
"""A point that was disturbed, or had errors, is measured so often at most."""
BASE = "etcd"
"""What everything is compared with, where it is there."""
OURS = "raftd"
SECONDS_AROUND = 1.2
"""A point takes so much longer than its load, on a quiet machine."""
SECONDS_TO_START = 8.0
"""A system takes about so long to start and to be filled."""


@attrs.frozen(kw_only=True)
class Plan:
    """What is measured."""

    rounds: int
    seconds: float
    clients: Sequence[int]
    operations: Sequence[str]
    keys: int
    value_bytes: int
    read_share: float
    quiet_seconds: float
    """A point waits at most so long for a quiet machine."""

    def workloads(self, system: System) -> Iterator[Workload]:
        """Return the points of one system, in order."""
        for operation in self.operations:
            if operation not in system.operations:
                continue
            for clients in self.clients:
                yield Workload(
                    operation=operation,
                    clients=clients,
                    seconds=self.seconds,
                    keys=self.keys,
                    value_bytes=self.value_bytes,
                    read_share=self.read_share,
                )

    def expected_seconds(self, systems: Sequence[System]) -> float:
        """Return about how long all of it takes on a quiet machine."""
        points = sum(len(list(self.workloads(system))) for system in systems)
        each = self.seconds + SECONDS_AROUND
        return self.rounds * (len(systems) * SECONDS_TO_START + points * each)


@attrs.frozen(kw_only=True)
class Point:
    """One load of one system in one round."""

    system: str
    round: int
    report: Report
    noise: Noise


@attrs.define
class Results:
    """All points of a run."""

    points: list[Point] = attrs.field(factory=list)
    failures: list[str] = attrs.field(factory=list)
    """Which systems did not get through a round, and why."""

    def of(self, operation: str, clients: int, system: str) -> list[Point]:
        """Return the points of one row of the table, one of each round."""
        return [
            point
            for point in self.points
            if point.system == system
            and point.report.operation == operation
            and point.report.clients == clients
        ]

    def throughput(self, operation: str, clients: int, system: str) -> dict[int, float]:
        """Return requests per second, by round."""
        return {
            point.round: point.report.per_second for point in self.of(operation, clients, system)
        }

    def p99(self, operation: str, clients: int, system: str) -> dict[int, float]:
        """Return the 99th percentile of latency in microseconds, by round."""
        return {
            point.round: point.report.latency_us.p99
            for point in self.of(operation, clients, system)
        }


def measure_side_by_side(
    stage: Stage, systems: Sequence[System], plan: Plan, points: PointsFile
) -> list[Table]:
    """Measure all points in turns; return the table of results and that of the targets."""
    stage.say(
        f"{len(systems)} systems, {plan.rounds} rounds: "
        f"about {plan.expected_seconds(systems) / 60:.0f} minutes on a quiet machine"
    )
    results = Results()
    for number in range(1, plan.rounds + 1):
        for system in systems:
            stage.say(f"round {number} of {plan.rounds}: {system.name} starts")
            try:
                for point in _turn(stage, system, number, plan):
                    results.points.append(point)
                    points.write("point", attrs.asdict(point))
            except FAILURES as failed:
                # The others' points are worth having, and so are those of its other rounds.
                results.failures.append(f"{system.name} failed in round {number}: {failed}")
                stage.say(results.failures[-1])
    names = [system.name for system in systems]
    return [results_table(results, plan, names), targets_table(results)]


def _turn(stage: Stage, system: System, number: int, plan: Plan) -> Iterator[Point]:
    """Measure all points of one system in one round."""
    try:
        running = system.start(stage)
        running.fill(keys=plan.keys, value_bytes=plan.value_bytes)
        running.warm()
        for workload in plan.workloads(system):
            yield _measure(stage, system.name, number, running, workload, plan)
    finally:
        stage.close_running()


def _measure(
    stage: Stage, name: str, number: int, running: Running, workload: Workload, plan: Plan
) -> Point:
    """Measure one point; again if it was disturbed, and keep the better of both."""
    taken: list[Point] = []
    waited_s = 0.0
    for _ in range(ATTEMPTS):
        waited_s += wait_quiet(plan.quiet_seconds)
        with Listening() as listening:
            report = running.load(workload)
        taken.append(Point(system=name, round=number, report=report, noise=listening.noise))
        if not report.errors and listening.noise.foreign_cores < NOISY_CORES:
            break
    best = min(taken, key=_disturbance)
    report = best.report
    stage.say(
        f"  {report.operation:<5} {workload.clients:>4} clients {report.per_second:>10,.0f}/s   "
        f"p50 {report.latency_us.p50 / 1000:>7.2f}  p99 {report.latency_us.p99 / 1000:>7.2f} ms   "
        f"others {best.noise.foreign_cores:.2f} cores, waited {waited_s:.1f} s"
        + (f"   ERRORS {report.errors}" if report.errors else "")
    )
    return best


def _disturbance(point: Point) -> tuple[int, float]:
    return sum(point.report.errors.values()), point.noise.foreign_cores


def results_table(results: Results, plan: Plan, names: Sequence[str]) -> Table:
    """Return medians of all points, and ratios to the first system that is the base."""
    base = BASE if BASE in names else names[0]
    table = Table(
        name="side-by-side",
        title=(
            f"Medians of {plan.rounds} rounds of {plan.seconds:g} s; values of {plan.value_bytes} "
            f"bytes, {plan.keys:,} keys; each client has one request under way, on a connection "
            "of its own (etcd: on one of 16)"
        ),
        columns=[
            "",
            "per s",
            f"to {base}",
            "p50 ms",
            "p90 ms",
            "p99 ms",
            "p99.9 ms",
            f"p99 to {base}",
            "leader CPU %",
            "all servers %",
            "us/request",
            "clients' CPU %",
            "leader RSS MiB",
            "errors",
            "others' cores",
        ],
    )
    for operation in plan.operations:
        for clients in plan.clients:
            for name in names:
                points = results.of(operation, clients, name)
                if points:
                    label = f"{operation} {clients:>4} {name}"
                    ratios = (
                        _ratio(results.throughput, operation, clients, name, base),
                        _ratio(results.p99, operation, clients, name, base),
                    )
                    table.add(label, *_cells(points, ratios))
    table.notes += [
        *results.failures,
        "CPU in percent of one core; us/request: processor time of all servers for one request.",
        "others' cores: what processes used that are not part of this, in the worst round.",
    ]
    return table


def _ratio(
    of: Callable[[str, int, str], Mapping[int, float]],
    operation: str,
    clients: int,
    name: str,
    base: str,
) -> Ratio | None:
    return ratio_of(of(operation, clients, name), of(operation, clients, base))


def _cells(points: Sequence[Point], ratios: tuple[Ratio | None, Ratio | None]) -> list[Any]:
    def median(value: Callable[[Report], float]) -> float:
        return statistics.median(value(point.report) for point in points)

    throughput, p99 = ratios
    return [
        round(median(lambda report: report.per_second)),
        throughput.text() if throughput else None,
        median(lambda report: report.latency_us.p50 / 1000),
        median(lambda report: report.latency_us.p90 / 1000),
        median(lambda report: report.latency_us.p99 / 1000),
        median(lambda report: report.latency_us.p999 / 1000),
        p99.text() if p99 else None,
        median(lambda report: report.servers[0].cpu_percent),
        median(lambda report: sum(server.cpu_percent for server in report.servers)),
        median(lambda report: report.server_cpu_us),
        median(lambda report: report.generator_cpu_percent),
        median(lambda report: report.servers[0].rss_mib),
        sum(sum(point.report.errors.values()) for point in points),
        max(point.noise.foreign_cores for point in points),
    ]


# --- targets -------------------------------------------------------------------------------------

PUT_TO_ETCD = {1: (1.3, 2.0), 16: (2.5, 3.5), 64: (2.5, 4.0), 256: (2.5, 5.0)}
GET_TO_ETCD = {1: (1.5, 2.5), 16: (3.0, 5.0), 64: (3.0, 6.0), 256: (3.0, 6.0)}
P99_TO_ETCD = dict.fromkeys((16, 64, 256), (0.6, 0.3))
PUT_TO_ZOOKEEPER = dict.fromkeys((16, 64, 256), (1.5, 2.5))
PUT_TO_REDIS = {64: (0.3, 0.5)}
PUT_TO_PYSYNCOBJ = dict.fromkeys((16, 64, 256), (2.0, 4.0))
"""By number of clients: what is required, and what is aimed at."""


def targets_table(results: Results) -> Table:
    """Return what raftd is to reach, and what it has reached."""
    return target_table(
        "targets", "Targets: raftd in relation to others, medians", list(_target_rows(results))
    )


def _target_rows(results: Results) -> Iterator[tuple[Target, float | None]]:
    for what, operation, system, wanted in (
        ("put against etcd", "put", "etcd", PUT_TO_ETCD),
        ("linearizable get against etcd", "get", "etcd", GET_TO_ETCD),
        ("put against ZooKeeper", "put", "zookeeper", PUT_TO_ZOOKEEPER),
        ("put against ONE unreplicated Redis", "put", "redis", PUT_TO_REDIS),
        ("put against PySyncObj at its best, which never syncs", "put", "", PUT_TO_PYSYNCOBJ),
    ):
        for clients, (required, aim) in wanted.items():
            target = Target(what=f"{what}, {_clients(clients)}", required=required, aim=aim)
            ours = results.throughput(operation, clients, OURS)
            if system:
                theirs = results.throughput(operation, clients, system)
            else:
                theirs = best_of(
                    [
                        results.throughput(operation, clients, name)
                        for name in ("pysyncobj", "pysyncobj-unbatched")
                    ]
                )
            yield target, _median(ratio_of(ours, theirs))
        if operation == "put" and system == "etcd":
            for clients, (required, aim) in P99_TO_ETCD.items():
                target = Target(
                    what=f"p99 of put against etcd, {_clients(clients)}",
                    required=required,
                    aim=aim,
                    lower_is_better=True,
                )
                ours, theirs = (results.p99("put", clients, name) for name in (OURS, "etcd"))
                yield target, _median(ratio_of(ours, theirs))


def _median(ratio: Ratio | None) -> float | None:
    return ratio.median if ratio is not None else None


def _clients(number: int) -> str:
    return f"{number} client" if number == 1 else f"{number} clients"
