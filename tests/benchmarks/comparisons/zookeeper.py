"""An ensemble of ZooKeeper, with the settings of its sample configuration.

It forces its transaction log to the disk before it acknowledges, as it does by default. What a
"linearizable get" means for it stands in the generator's `zookeeper.go`.
"""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path

from tests.benchmarks.comparisons.children import installed
from tests.benchmarks.comparisons.generator import Workload, available_drivers
from tests.benchmarks.comparisons.systems import Running, Stage, System
from tests.cluster.processes import free_port, wait_for

JARS = Path("/usr/share/java")
JAR = JARS / "zookeeper.jar"
MAIN = "org.apache.zookeeper.server.quorum.QuorumPeerMain"
SERVERS = 3
HEAP = "-Xmx1g"
START_SECONDS = 60.0
ASK_SECONDS = 1.0
WARM_UP = Workload(operation="put", clients=64, seconds=4.0)
"""Until its hot paths are compiled it is several times slower; it runs for months usually."""
LOGGING = """\
log4j.rootLogger=ERROR, CONSOLE
log4j.appender.CONSOLE=org.apache.log4j.ConsoleAppender
log4j.appender.CONSOLE.layout=org.apache.log4j.PatternLayout
log4j.appender.CONSOLE.layout.ConversionPattern=%d %p %c: %m%n
"""


class ZooKeeperEnsemble(Running):
    """Three servers."""

    driver = "zookeeper"

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage, stage.fresh_folder("zookeeper"))
        self._client_ports = [free_port() for _ in range(SERVERS)]
        peers = "".join(
            f"server.{number + 1}=127.0.0.1:{free_port()}:{free_port()}\n"
            for number in range(SERVERS)
        )
        self._processes: list[subprocess.Popen[str]] = []
        for number in range(SERVERS):
            self._processes.append(self._start(number, peers))
        self._leader()
        wait_for(
            "all of ZooKeeper",
            lambda: all(self._mode(number) for number in range(SERVERS)),
            within_s=START_SECONDS,
        )

    def _start(self, number: int, peers: str) -> subprocess.Popen[str]:
        folder = self.folder / f"{number + 1}"
        folder.mkdir()
        (folder / "myid").write_text(f"{number + 1}\n")
        (folder / "log4j.properties").write_text(LOGGING)
        config_path = folder / "zoo.cfg"
        config_path.write_text(
            f"tickTime=2000\ninitLimit=10\nsyncLimit=5\ndataDir={folder}\n"
            f"clientPort={self._client_ports[number]}\nclientPortAddress=127.0.0.1\n"
            "admin.enableServer=false\nmaxClientCnxns=0\n4lw.commands.whitelist=srvr\n" + peers
        )
        return self.stage.children.start(
            "java",
            HEAP,
            "-cp",
            f"{folder}:{JAR}:{JARS}/*",
            MAIN,
            config_path,
            log_path=folder / "out.log",
        )

    def _mode(self, number: int) -> str:
        """Return what a server says that it is; nothing while it does not answer."""
        said = b""
        try:
            address = ("127.0.0.1", self._client_ports[number])
            with socket.create_connection(address, ASK_SECONDS) as stream:
                stream.sendall(b"srvr")
                while received := stream.recv(4096):
                    said += received
        except OSError:
            return ""
        return said.decode(errors="replace").partition("Mode: ")[2].partition("\n")[0]

    def _leader(self) -> int:
        def found() -> list[int]:
            return [number for number in range(SERVERS) if self._mode(number) == "leader"]

        return wait_for("a leader of ZooKeeper", found, within_s=START_SECONDS)[0]

    def warm(self) -> None:
        self.load(WARM_UP)

    def address(self) -> str:
        return f"127.0.0.1:{self._client_ports[self._leader()]}"

    def pids(self) -> list[int]:
        leader = self._processes[self._leader()]
        return [leader.pid, *(one.pid for one in self._processes if one is not leader)]

    def end(self) -> None:
        for process in self._processes:
            self.stage.children.end(process)


def _missing() -> str | None:
    if not installed("java") or not JAR.exists():
        return "apt-get install zookeeper"
    if "zookeeper" not in available_drivers():
        return (
            "the generator has no driver for it: "
            "apt-get install golang-github-samuel-go-zookeeper-dev"
        )
    return None


ZOOKEEPER = System(
    name="zookeeper",
    title="ZooKeeper, 3 servers; fsync of a majority before each acknowledgement",
    missing=_missing,
    version=lambda: max(path.stem for path in JARS.glob("zookeeper-[0-9]*.jar")),
    start=ZooKeeperEnsemble,
)
