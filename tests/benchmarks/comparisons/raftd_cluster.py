"""A cluster of raftd whose servers also listen for the Redis protocol."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import raftd
from tests.benchmarks.comparisons.generator import ComparisonProblem
from tests.benchmarks.comparisons.systems import (
    ELECTION_TIMEOUT_MS,
    HEARTBEAT_MS,
    Running,
    Stage,
    System,
)
from tests.cluster.processes import RunningCluster, Server, free_port, tails

NAMES = ("n1", "n2", "n3")


class _Cluster(RunningCluster):
    """Cluster files with a `redis` address for each server, and with other times."""

    def __init__(self, folder: Path, *, heartbeat_ms: int, election_timeout_ms: int) -> None:
        super().__init__(folder)
        self._times = (heartbeat_ms, election_timeout_ms)
        self.redis_addresses: dict[str, str] = {}

    def write_config(self, path: Path, servers: Iterable[Server]) -> None:
        heartbeat_ms, election_timeout_ms = self._times
        lines = [
            "cluster: orders",
            "defaults:",
            "  data_dir: data/{id}",
            f"  heartbeat_interval: {heartbeat_ms}ms",
            f"  election_timeout: {election_timeout_ms}ms",
            "servers:",
        ]
        for server in servers:
            redis = self.redis_addresses.setdefault(server.name, f"127.0.0.1:{free_port()}")
            lines.append(f"  {server.name}: {{address: {server.address}, redis: {redis}}}")
        path.write_text("\n".join(lines) + "\n")


class RaftdCluster(Running):
    """Voters n1 to n3, and servers that replace them."""

    driver = "redis"

    def __init__(
        self,
        stage: Stage,
        *,
        heartbeat_ms: int = HEARTBEAT_MS,
        election_timeout_ms: int = ELECTION_TIMEOUT_MS,
    ) -> None:
        super().__init__(stage, stage.fresh_folder("raftd"))
        self.cluster = _Cluster(
            self.folder, heartbeat_ms=heartbeat_ms, election_timeout_ms=election_timeout_ms
        )
        try:
            self.cluster.form(*NAMES)
            self.cluster.wait_settled(NAMES)
        except AssertionError as failed:
            logs = "\n".join(f"{title}:\n{log}" for title, log in tails())
            raise ComparisonProblem(f"raftd does not start: {failed}\n{logs}") from None

    def redis_address(self, name: str) -> str:
        """Return HOST:PORT where a server speaks the Redis protocol."""
        return self.cluster.redis_addresses[name]

    def address(self) -> str:
        return self.redis_address(self.cluster.wait_leader().name)

    def pids(self) -> list[int]:
        leader = self.cluster.wait_leader()
        others = [one for one in self.cluster.servers.values() if one is not leader]
        return [leader.pid, *(server.pid for server in others if server.running)]

    def end(self) -> None:
        self.cluster.close()


RAFTD = System(
    name="raftd",
    title="raftd, 3 servers; fdatasync of a majority before each acknowledgement",
    missing=lambda: None,
    version=lambda: f"raftd {raftd.__version__}",
    start=RaftdCluster,
)
