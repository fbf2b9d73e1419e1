"""From points to tables, without a server."""

from __future__ import annotations

import json
from pathlib import Path

from tests.benchmarks.comparisons.catalogue import SYSTEMS
from tests.benchmarks.comparisons.generator import Report, report_of
from tests.benchmarks.comparisons.points import PointsFile
from tests.benchmarks.comparisons.quiet import Noise
from tests.benchmarks.comparisons.side_by_side import (
    Plan,
    Point,
    Results,
    results_table,
    targets_table,
)

LINE = """\
{"driver": "redis", "operation": "put", "read_share": 0, "clients": 16, "pipeline": 1,
 "value_bytes": 256, "keys": 10000, "seconds": 2.0, "operations": 5000, "per_second": 2500,
 "latency_us": {"p50": 6000.5, "p90": 9000, "p99": 13000, "p999": 20000, "max": 25000},
 "errors": {"MOVED": 2}, "error_texts": {"MOVED": "MOVED 1 127.0.0.1:7000"},
 "servers": [{"pid": 7, "cpu_percent": 60.0, "rss_mib": 70.5, "rss_anon_mib": 50},
             {"pid": 8, "cpu_percent": 15.0, "rss_mib": 69, "rss_anon_mib": 48}],
 "generator_cpu_percent": 31.5, "start_ns": 47223608398838}"""


def _report(**changes: object) -> Report:
    return report_of(json.dumps({**json.loads(LINE), **changes}))


def _point(system: str, round_number: int, per_second: float, p99_us: float = 1000.0) -> Point:
    latency = {**json.loads(LINE)["latency_us"], "p99": p99_us}
    report = _report(per_second=per_second, latency_us=latency, errors={})
    noise = Noise(foreign_cores=0.1 * round_number, stolen_cores=0.0)
    return Point(system=system, round=round_number, report=report, noise=noise)


def _plan(rounds: int = 3) -> Plan:
    return Plan(
        rounds=rounds,
        seconds=2.0,
        clients=[16],
        operations=["put", "get"],
        keys=10_000,
        value_bytes=256,
        read_share=0.5,
        quiet_seconds=0.0,
    )


def test_report_of_the_generator_is_read_with_all_its_parts() -> None:
    report = report_of(LINE.replace("\n", " "))
    assert (report.per_second, report.clients, report.operation) == (2500, 16, "put")
    assert (report.latency_us.p50, report.latency_us.p999) == (6000.5, 20000)
    assert report.errors == {"MOVED": 2}
    assert [server.cpu_percent for server in report.servers] == [60.0, 15.0]
    # 75 % of a core for 2 seconds, over 5,000 requests.
    assert report.server_cpu_us == 300.0
    assert report.series == []


def test_table_of_results_has_medians_and_ratios_of_rounds() -> None:
    results = Results(
        [
            *(
                _point("etcd", number, speed)
                for number, speed in ((1, 100.0), (2, 10.0), (3, 90.0))
            ),
            *(
                _point("raftd", number, speed)
                for number, speed in ((1, 300.0), (2, 50.0), (3, 360.0))
            ),
        ]
    )
    results.failures.append("raftd failed in round 4: no leader")
    table = results_table(results, _plan(), ["etcd", "raftd"])
    assert "raftd failed in round 4: no leader" in table.text()
    rows = {str(row[0]): dict(zip(table.columns, row, strict=True)) for row in table.rows}
    assert list(rows) == ["put   16 etcd", "put   16 raftd"]
    assert rows["put   16 etcd"]["per s"] == 90
    assert rows["put   16 raftd"]["per s"] == 300
    assert rows["put   16 raftd"]["to etcd"] == "4.00 [3.00-5.00]"
    assert rows["put   16 raftd"]["all servers %"] == 75.0
    assert rows["put   16 raftd"]["others' cores"] == 0.1 * 3


def test_targets_compare_with_the_better_of_both_settings_of_pysyncobj() -> None:
    results = Results(
        [
            _point("etcd", 1, 100.0, p99_us=1000.0),
            _point("raftd", 1, 300.0, p99_us=250.0),
            _point("pysyncobj", 1, 10.0),
            _point("pysyncobj-unbatched", 1, 200.0),
        ]
    )
    rows = {str(row[0]): row for row in targets_table(results).rows}
    assert rows["put against etcd, 16 clients"][3:] == ["3.00", "x", "reached"]
    assert rows["p99 of put against etcd, 16 clients"][3:] == ["0.25", "x", "aim reached"]
    against = "put against PySyncObj at its best, which never syncs, 16 clients"
    assert rows[against][3:] == ["1.50", "x", "MISSED"]
    assert rows["put against ZooKeeper, 16 clients"][3:] == [None, "x", "not measured"]
    # 4 of put, 3 of p99, 4 of get, 3 of ZooKeeper, 1 of Redis, 3 of PySyncObj.
    assert len(rows) == 18


def test_plan_asks_no_system_for_what_it_cannot_do() -> None:
    plan = _plan()
    assert [one.operation for one in plan.workloads(SYSTEMS["etcd"])] == ["put", "get"]
    assert [one.operation for one in plan.workloads(SYSTEMS["pysyncobj"])] == ["put"]


def test_points_are_lines_that_are_appended(tmp_path: Path) -> None:
    path = tmp_path / "points.jsonl"
    PointsFile(path).write("run", {"machine": "x"})
    PointsFile(path).write("point", {"round": 1})
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(line["kind"], line.get("round")) for line in lines] == [("run", None), ("point", 1)]
    PointsFile(None).write("point", {})
