"""PySyncObj, the replicated objects of the package index, as a key-value store of three nodes.

Nothing of it is synced before it is acknowledged: its journal is a mapped file that the kernel
writes when it sees fit. So it is compared with fsync on our side only, and at its best: with the
clients inside of its leader, once with its settings as they come, and once without batches and
with a tick of one millisecond.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from importlib import metadata, util
from typing import Any

from tests.benchmarks.comparisons.children import memory_of, tree_seconds
from tests.benchmarks.comparisons.generator import (
    ComparisonProblem,
    Latency,
    Report,
    ServerUse,
    Workload,
)
from tests.benchmarks.comparisons.systems import Running, Stage, System
from tests.benchmarks.tables import mebibytes
from tests.cluster.processes import free_port, wait_for

NODES = 3
NODE_MODULE = "tests.benchmarks.comparisons.pysyncobj_node"


class PySyncObjCluster(Running):
    """Three nodes; the load is made in the one that leads."""

    driver = "pysyncobj"

    def __init__(self, stage: Stage, *, mode: str) -> None:
        super().__init__(stage, stage.fresh_folder("pysyncobj"))
        addresses = [f"127.0.0.1:{free_port()}" for _ in range(NODES)]
        self._processes: list[subprocess.Popen[str]] = []
        for number, own in enumerate(addresses):
            peers = ",".join(address for address in addresses if address != own)
            journal = self.folder / f"journal-{number}"
            self._processes.append(
                stage.children.start(
                    *(sys.executable, "-m", NODE_MODULE, own, peers, journal, mode),
                    log_path=self.folder / f"{number}.log",
                    piped=True,
                )
            )
        for process in self._processes:
            if not _answer(process)["ready"]:
                raise ComparisonProblem("PySyncObj does not get ready")

    def _leader(self) -> subprocess.Popen[str]:
        def found() -> list[subprocess.Popen[str]]:
            return [one for one in self._processes if _ask(one, do="leader")["leader"]]

        return wait_for("a leader of PySyncObj", found)[0]

    def address(self) -> str:
        raise AssertionError("it has no listener for clients")

    def pids(self) -> list[int]:
        leader = self._leader()
        return [leader.pid, *(one.pid for one in self._processes if one is not leader)]

    def fill(self, *, keys: int, value_bytes: int) -> None:
        answer = _ask(self._leader(), do="fill", keys=keys, value_bytes=value_bytes)
        if answer["missing"]:
            raise ComparisonProblem(f"PySyncObj lacks {answer['missing']} of {keys} keys")

    def load(self, workload: Workload) -> Report:
        leader, pids = self._leader(), self.pids()
        before_s, began_s, start_ns = tree_seconds(pids), time.monotonic(), time.monotonic_ns()
        answer = _ask(
            leader,
            do="load",
            clients=workload.clients,
            seconds=workload.seconds,
            warm_up_seconds=workload.warm_up_seconds,
            keys=workload.keys,
            value_bytes=workload.value_bytes,
        )
        taken_s, after_s = time.monotonic() - began_s, tree_seconds(pids)
        servers = []
        for pid, before, after in zip(pids, before_s, after_s, strict=True):
            memory = memory_of(pid)
            servers.append(
                ServerUse(
                    pid=pid,
                    cpu_percent=round(100 * (after - before) / taken_s, 1),
                    rss_mib=round(mebibytes(memory.resident_bytes), 1),
                    rss_anon_mib=round(mebibytes(memory.anonymous_bytes), 1),
                )
            )
        return Report(
            driver=self.driver,
            operation="put",
            read_share=0.0,
            clients=workload.clients,
            pipeline=1,
            value_bytes=workload.value_bytes,
            keys=workload.keys,
            seconds=workload.seconds,
            operations=answer["operations"],
            per_second=round(answer["per_second"], 1),
            latency_us=Latency(**answer["latency_us"]),
            errors=answer["errors"],
            error_texts={},
            servers=servers,
            # The clients are part of the leader, and their time is part of its time.
            generator_cpu_percent=0.0,
            start_ns=start_ns + round(workload.warm_up_seconds * 1e9),
        )

    def end(self) -> None:
        for process in self._processes:
            self.stage.children.end(process)


def _ask(process: subprocess.Popen[str], **task: Any) -> dict[str, Any]:
    assert process.stdin is not None
    process.stdin.write(json.dumps(task) + "\n")
    process.stdin.flush()
    return _answer(process)


def _answer(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise ComparisonProblem("a node of PySyncObj has ended")
    answer: dict[str, Any] = json.loads(line)
    return answer


def _missing() -> str | None:
    return None if util.find_spec("pysyncobj") else f"{sys.executable} -m pip install pysyncobj"


def _system(name: str, mode: str, title: str) -> System:
    return System(
        name=name,
        title=f"PySyncObj, 3 nodes, {title}; NO fsync, clients inside of the leader",
        missing=_missing,
        version=lambda: f"pysyncobj {metadata.version('pysyncobj')}",
        start=lambda stage: PySyncObjCluster(stage, mode=mode),
        # It has no linearizable read but a write that returns something.
        operations=("put",),
    )


PYSYNCOBJ = _system("pysyncobj", "batched", "as it comes")
PYSYNCOBJ_UNBATCHED = _system("pysyncobj-unbatched", "unbatched", "no batches, tick of 1 ms")
