"""The compiled load generator: building it, running it, and reading what it prints.

Its source is in `tests/benchmarks/generator`. It is built into the folder of each run; Go's own
cache makes that quick from the second time on. The Redis driver needs Go alone; those for etcd and
ZooKeeper are compiled in where Debian's packages of their client libraries are installed.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
import cattrs

from tests.benchmarks.comparisons.children import Children, installed

SOURCE = Path(__file__).parents[1] / "generator"
GO_PATH = Path("/usr/share/gocode")
"""Where Debian's packages put the sources of libraries."""
LIBRARIES = {
    "etcd": ("go.etcd.io/etcd/clientv3", "golang-etcd-server-dev"),
    "zookeeper": ("github.com/samuel/go-zookeeper/zk", "golang-github-samuel-go-zookeeper-dev"),
}
"""Of each driver that has a build tag: a folder below `src`, and the package it comes from."""
BUILD_SECONDS = 600.0
GRACE_SECONDS = 60.0
"""A load that has not ended so long after it should has failed."""
TOLD_CHARACTERS = 2000
"""Of what a generator that failed has written to its standard error, at its end."""
INSTALL_GO = "apt-get install golang-go " + " ".join(package for _, package in LIBRARIES.values())


class ComparisonProblem(Exception):
    """Something that whoever runs the comparison has to put right."""


FAILURES = (ComparisonProblem, AssertionError)
"""What stops a comparison; the harness of the tests, which starts servers, asserts what it waits
for."""


@attrs.frozen(kw_only=True)
class Latency:
    """Percentiles of how long requests took, in microseconds; -1 of none at all."""

    p50: float
    p90: float
    p99: float
    p999: float
    max: float


@attrs.frozen(kw_only=True)
class ServerUse:
    """What one server used; percentages are of one core, with the processes that it started."""

    pid: int
    cpu_percent: float
    rss_mib: float
    rss_anon_mib: float


@attrs.frozen(kw_only=True)
class Report:
    """What one load has measured, as the generator prints it."""

    driver: str
    operation: str
    read_share: float
    clients: int
    pipeline: int
    value_bytes: int
    keys: int
    seconds: float
    operations: int
    per_second: float
    latency_us: Latency
    errors: dict[str, int]
    """How many of each class: a word of the server's, or timeout, connection, and so on."""
    error_texts: dict[str, str]
    """The last one of each class."""
    servers: list[ServerUse]
    """In the order in which their processes were given: the leader first."""
    generator_cpu_percent: float
    start_ns: int
    """When the warm-up ended, by the monotonic clock."""
    series_start_ns: int = 0
    series_interval_ms: float = 0.0
    series: list[int] = attrs.field(factory=list)
    """Answers in each interval since `series_start_ns`, the warm-up included."""

    @property
    def server_cpu_us(self) -> float:
        """Processor time of all servers for one request."""
        used = sum(server.cpu_percent for server in self.servers) / 100 * self.seconds
        return 1e6 * used / self.operations if self.operations else 0.0


@attrs.frozen(kw_only=True)
class Workload:
    """What a load consists of."""

    operation: str
    """put, get or mixed."""
    clients: int
    seconds: float
    warm_up_seconds: float = 0.5
    keys: int = 10_000
    value_bytes: int = 256
    read_share: float = 0.5
    """Of a mixed load."""


def report_of(line: str) -> Report:
    """Return what a line of the generator says."""
    return cattrs.structure(json.loads(line), Report)


def build_command(target: Path, drivers: Sequence[str]) -> list[str]:
    """Return the command that builds the generator, to be run in `SOURCE`."""
    tags = ["-tags", ",".join(sorted(drivers))] if drivers else []
    return ["go", "build", *tags, "-o", str(target), "."]


def available_drivers() -> list[str]:
    """Return the drivers with libraries that can be compiled in here."""
    return [name for name, (path, _) in LIBRARIES.items() if (GO_PATH / "src" / path).is_dir()]


def build(target: Path, drivers: Sequence[str]) -> None:
    """Build the generator with these drivers, beside the one for Redis.

    Raises:
        ComparisonProblem: there is no Go, or it does not build.
    """
    if not installed("go"):
        raise ComparisonProblem(
            f"the load generator is compiled, and there is no Go here; as root: {INSTALL_GO}"
        )
    environment = {"GO111MODULE": "off", "GOPATH": str(GO_PATH), "CGO_ENABLED": "0", "GOFLAGS": ""}
    built = subprocess.run(
        build_command(target, drivers),
        cwd=SOURCE,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=BUILD_SECONDS,
    )
    if built.returncode:
        raise ComparisonProblem(f"the load generator does not build:\n{built.stderr}")


class Generator:
    """The program, and how to run it."""

    def __init__(self, path: Path, drivers: Sequence[str], children: Children) -> None:
        self.path = path
        self.drivers = frozenset(["redis", *drivers])
        self._children = children
        self._log_path = path.with_suffix(".log")

    def load(
        self,
        driver: str,
        addresses: Sequence[str],
        pids: Sequence[int],
        workload: Workload,
        *more: str,
    ) -> Report:
        """Load servers and return what was measured.

        Args:
            addresses: the clients are spread over them.
            pids: of the servers whose use is measured.
            more: flags of the generator.
        """
        process = self.start_load(driver, addresses, pids, workload, *more)
        return self.finish_load(
            process, workload.seconds + workload.warm_up_seconds + GRACE_SECONDS
        )

    def start_load(
        self,
        driver: str,
        addresses: Sequence[str],
        pids: Sequence[int],
        workload: Workload,
        *more: str,
    ) -> subprocess.Popen[str]:
        """Start a load; with 0 seconds it goes on until its standard input is closed."""
        return self._start(
            "load",
            *_flags(
                driver=driver,
                addresses=",".join(addresses),
                pids=",".join(map(str, pids)),
                operation=workload.operation,
                clients=workload.clients,
                keys=workload.keys,
                value_bytes=workload.value_bytes,
                read_share=workload.read_share,
                warm_up=_duration(workload.warm_up_seconds),
                duration=_duration(workload.seconds),
            ),
            *more,
        )

    def finish_load(self, process: subprocess.Popen[str], within_seconds: float) -> Report:
        """Close the standard input of a load, wait for its end, and return what it measured."""
        return report_of(self._finish(process, within_seconds))

    def fill(
        self,
        driver: str,
        addresses: Sequence[str],
        *,
        keys: int,
        value_bytes: int,
        clients: int = 64,
        within_seconds: float = 900.0,
    ) -> dict[str, Any]:
        """Write every key once; return what the generator says about it."""
        process = self._start(
            "fill",
            *_flags(
                driver=driver,
                addresses=",".join(addresses),
                keys=keys,
                value_bytes=value_bytes,
                clients=clients,
            ),
        )
        document: dict[str, Any] = json.loads(self._finish(process, within_seconds))
        if document["errors"]:
            raise ComparisonProblem(f"filling failed: {document['error_texts']}")
        return document

    def start_probe(
        self, driver: str, addresses: Sequence[str], *, seconds: float
    ) -> subprocess.Popen[str]:
        """Start to probe; it ends when its standard input is closed, or after so many seconds."""
        return self._start(
            "probe",
            *_flags(driver=driver, addresses=",".join(addresses), duration=_duration(seconds)),
        )

    def start_replacement(
        self, addresses: Sequence[str], *, old: str, peer_url: str
    ) -> subprocess.Popen[str]:
        """Have a member of etcd replaced, once a line is written to the standard input."""
        return self._start(
            "replace-member",
            *_flags(addresses=",".join(addresses), old=old, peer_url=peer_url),
        )

    def end(self, process: subprocess.Popen[str]) -> None:
        """End a run of the generator, whatever it does."""
        self._children.end(process)

    def wait_event(self, process: subprocess.Popen[str], event: str) -> None:
        """Wait for the line by which a run of the generator tells that it has got so far."""
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line or json.loads(line) != {"event": event}:
            self._children.end(process)
            raise ComparisonProblem(f"the generator has failed: {self.told()}")

    def _start(self, mode: str, *flags: str) -> subprocess.Popen[str]:
        # Its errors do not go to a pipe: that would stop it once it is full.
        return self._children.start(self.path, mode, *flags, piped=True, log_path=self._log_path)

    def told(self) -> str:
        """Return the end of what its runs have written to standard error."""
        told = self._log_path.read_text(errors="replace").strip()
        return told[-TOLD_CHARACTERS:]

    def _finish(self, process: subprocess.Popen[str], within_seconds: float) -> str:
        try:
            printed, _ = process.communicate(timeout=within_seconds)
        except subprocess.TimeoutExpired:
            raise ComparisonProblem(f"the generator has not ended: {process.args!r}") from None
        finally:
            self._children.end(process)
        if process.returncode:
            raise ComparisonProblem(f"the generator has failed: {self.told()}")
        return printed


def _flags(**values: str | int | float) -> list[str]:
    return [f"-{name.replace('_', '-')}={value}" for name, value in values.items() if value != ""]


def _duration(seconds: float) -> str:
    return f"{round(seconds * 1000)}ms"
