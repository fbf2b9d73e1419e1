"""A cluster of etcd, with its settings as they come, and a larger quota of space.

Its clients share 16 connections, as gRPC is meant to be used: with a connection for each of 256
clients it serves about half as many puts and reads. Clients of everything else have their own.
"""

from __future__ import annotations

import json
import subprocess
import urllib.request
from typing import Any

from tests.benchmarks.comparisons.children import first_line, installed
from tests.benchmarks.comparisons.generator import available_drivers
from tests.benchmarks.comparisons.systems import (
    ELECTION_TIMEOUT_MS,
    HEARTBEAT_MS,
    Running,
    Stage,
    System,
)
from tests.cluster.processes import free_port, wait_for

NAMES = ("m1", "m2", "m3")
CONNECTIONS = 16
"""The clients of a load share so many, at most; fewer clients have one each."""
ASK_SECONDS = 2.0
QUOTA_BYTES = 8 * 1024**3
"""By default it takes no writes any more from 2 GiB on, old revisions included."""

# Loopback needs no proxy, whatever the environment says.
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class EtcdCluster(Running):
    """Members m1 to m3, and those that replace them."""

    driver = "etcd"
    load_flags = (f"-connections={CONNECTIONS}",)

    def __init__(
        self,
        stage: Stage,
        *,
        heartbeat_ms: int = HEARTBEAT_MS,
        election_timeout_ms: int = ELECTION_TIMEOUT_MS,
    ) -> None:
        super().__init__(stage, stage.fresh_folder("etcd"))
        self._times = (heartbeat_ms, election_timeout_ms)
        self._ports = {name: (free_port(), free_port()) for name in NAMES}
        self.processes: dict[str, subprocess.Popen[str]] = {}
        for name in NAMES:
            self.start_member(name, is_new_cluster=True)
        self.wait_healthy()

    def client_address(self, name: str) -> str:
        """Return HOST:PORT where a member serves clients."""
        return f"127.0.0.1:{self._ports[name][0]}"

    def peer_url(self, name: str) -> str:
        """Return where a member listens for the others."""
        return f"http://127.0.0.1:{self._ports[name][1]}"

    def start_member(self, name: str, *, is_new_cluster: bool = False, held: bool = False) -> None:
        """Start a member, on the data that it has, or have it ready to start (`release`)."""
        heartbeat_ms, election_timeout_ms = self._times
        client_url = f"http://{self.client_address(name)}"
        flags = {
            "name": name,
            "data-dir": self.folder / name,
            "listen-client-urls": client_url,
            "advertise-client-urls": client_url,
            "listen-peer-urls": self.peer_url(name),
            "initial-advertise-peer-urls": self.peer_url(name),
            "initial-cluster": ",".join(f"{one}={self.peer_url(one)}" for one in self._ports),
            "initial-cluster-state": "new" if is_new_cluster else "existing",
            "heartbeat-interval": heartbeat_ms,
            "election-timeout": election_timeout_ms,
            "quota-backend-bytes": QUOTA_BYTES,
            "logger": "zap",
            "log-level": "error",
        }
        self.processes[name] = self.stage.children.start(
            "etcd",
            *(f"--{flag}={value}" for flag, value in flags.items()),
            log_path=self.folder / f"{name}.log",
            held=held,
        )

    def prepare_member(self, name: str) -> None:
        """Have one more member ready to start; it has to be added first."""
        self._ports[name] = (free_port(), free_port())
        self.start_member(name, held=True)

    def release(self, name: str) -> None:
        """Start a member that is held."""
        stdin = self.processes[name].stdin
        assert stdin is not None
        stdin.write("go\n")
        stdin.flush()

    def kill(self, name: str) -> None:
        """Kill a member and wait until it is gone."""
        self.stage.children.end(self.processes[name])

    def forget(self, name: str) -> None:
        """Kill a member that was removed."""
        self.kill(name)
        del self.processes[name], self._ports[name]

    def status(self, name: str) -> dict[str, Any] | None:
        """Return what a member says of itself; None if it does not answer."""
        request = urllib.request.Request(
            f"http://{self.client_address(name)}/v3/maintenance/status", b"{}"
        )
        try:
            with _opener.open(request, timeout=ASK_SECONDS) as reply:
                document: dict[str, Any] = json.load(reply)
        except OSError:
            return None
        return document

    def leader(self) -> str:
        """Return the name of the leader as soon as there is one."""

        def found() -> str | None:
            for name, process in self.processes.items():
                status = self.status(name) if process.poll() is None else None
                if status and status.get("leader", "0") == status["header"]["member_id"]:
                    return name
            return None

        return wait_for("a leader of etcd", found)

    def wait_healthy(self) -> None:
        """Return when all members answer, know the leader, and have applied the same."""

        def healthy() -> bool:
            found = [self.status(name) for name in self.processes]
            statuses = [status for status in found if status is not None]
            if len(statuses) < len(self.processes):
                return False
            leaders = {status.get("leader", "0") for status in statuses}
            applied = {status.get("raftAppliedIndex") for status in statuses}
            return len(leaders) == len(applied) == 1 and "0" not in leaders

        wait_for("all members of etcd", healthy)

    def database_bytes(self) -> int:
        """Return how large the leader's database is."""
        status = self.status(self.leader())
        assert status is not None
        return int(status["dbSize"])

    def address(self) -> str:
        return self.client_address(self.leader())

    def pids(self) -> list[int]:
        leader = self.leader()
        others = [process.pid for name, process in self.processes.items() if name != leader]
        return [self.processes[leader].pid, *others]

    def end(self) -> None:
        for process in self.processes.values():
            self.stage.children.end(process)


def _missing() -> str | None:
    if not installed("etcd"):
        return "apt-get install etcd-server"
    if "etcd" not in available_drivers():
        return "the generator has no driver for it: apt-get install golang-etcd-server-dev"
    return None


ETCD = System(
    name="etcd",
    title="etcd, 3 members; fsync of a majority before each acknowledgement",
    missing=_missing,
    version=lambda: first_line(["etcd", "--version"]),
    start=EtcdCluster,
)
