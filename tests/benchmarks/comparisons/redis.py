"""One Redis, which replicates to nobody and syncs its log before each acknowledgement."""

from __future__ import annotations

import socket

from tests.benchmarks.comparisons.children import first_line, installed
from tests.benchmarks.comparisons.systems import Running, Stage, System
from tests.cluster.processes import free_port, wait_for


class OneRedis(Running):
    """A process that has no copies: what it is compared with is the disk alone."""

    driver = "redis"

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage, stage.fresh_folder("redis"))
        self._port = free_port()
        flags = {
            "bind": "127.0.0.1",
            "port": f"{self._port}",
            "dir": f"{self.folder}",
            "appendonly": "yes",
            "appendfsync": "always",
            # Snapshots beside the log are for others; a rewrite would fall into some points only.
            "save": "",
            "auto-aof-rewrite-percentage": "0",
        }
        self._process = stage.children.start(
            "redis-server",
            *(word for flag, value in flags.items() for word in (f"--{flag}", value)),
            log_path=self.folder / "out.log",
        )
        wait_for("Redis", self._answers)

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self._port), 1.0) as stream:
                stream.sendall(b"PING\r\n")
                return stream.recv(64).startswith(b"+PONG")
        except OSError:
            return False

    def address(self) -> str:
        return f"127.0.0.1:{self._port}"

    def pids(self) -> list[int]:
        return [self._process.pid]

    def end(self) -> None:
        self.stage.children.end(self._process)


REDIS = System(
    name="redis",
    title="ONE Redis process, no copies; fsync before each acknowledgement",
    missing=lambda: None if installed("redis-server") else "apt-get install redis-server",
    version=lambda: first_line(["redis-server", "--version"]).partition(" sha")[0],
    start=OneRedis,
)
