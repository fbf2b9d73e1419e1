"""The cluster that is attacked: real servers with traces, their network, and who looks at them."""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import attrs

from raftctl.client import Cluster as Client
from raftctl.client import Connection, ConnectionProblem, Deadline
from raftctl.endpoints import Endpoints
from raftd.core.types import ServerId, server_name
from raftd.protocol import ConfigurationView, StatusReply, StatusRequest
from tests.chaos.network import NamespaceNetwork, Network, ProxyNetwork
from tests.cluster.processes import RunningCluster, Server, wait_for
from tests.cluster.proxy import Proxy

FORM_WAIT_S = 40.0
"""For the first start of all servers at once on a slow machine."""
LOOK_INTERVAL_S = 0.15
"""Between two looks at one server."""
LOOK_TIMEOUT_MS = 1_000.0
FRESH_S = 1.5
"""A view that is older says nothing about now."""
CATCH_UP_TIMEOUT = "8s"
"""A new server that is dead or cut off must not hold up the operator for half of the run."""
EXIT_REMOVED = 70


class ChaosServer(Server):
    """A server that is traced, and about which it is known what was done to it."""

    def __init__(self, name: str, *, folder: Path, proxy: Proxy | None) -> None:
        super().__init__(name, folder=folder, proxy=proxy)
        self.trace_path = folder / f"{name}.trace"
        self.prefix: list[str] = []
        """Words before its command, which move it into its network."""
        self.is_paused = False
        self.is_down_on_purpose = True
        """It was ended, or not started yet: an exit is no surprise."""
        self.up_again_s: float | None = None
        """When it is started again, on the monotonic clock."""

    def start(self, *arguments: str) -> None:
        """Start the process, from the main thread. It need not listen yet when this returns."""
        assert self.process is None or self.process.poll() is not None
        command = [*self.prefix, sys.executable]
        command += ["-m", "raftctl.playground_child", str(os.getpid()), sys.executable]
        command += ["-m", "raftd", "--config", str(self.config_path), "--id", self.name]
        command += ["--trace", str(self.trace_path), *arguments]
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self.is_down_on_purpose = False
        self.is_paused = False
        self.up_again_s = None

    def kill(self) -> None:
        """End it with SIGKILL and wait until it is gone."""
        self.is_down_on_purpose = True
        super().kill()

    def pause(self) -> None:
        """Stop its clock: SIGSTOP."""
        self.is_paused = True
        super().pause()

    def resume(self) -> None:
        """Let it go on: SIGCONT."""
        self.is_paused = False
        super().resume()


class ChaosCluster(RunningCluster):
    """Voters and blank spares, in a network that can fail."""

    servers: dict[str, ChaosServer]  # type: ignore[assignment]

    def __init__(self, folder: Path, *, network: str) -> None:
        """Prepare it in `folder`; nothing runs yet. `network` is proxy or namespaces."""
        proxied = network == "proxy"
        settings = f"catch_up_timeout: {CATCH_UP_TIMEOUT}"
        super().__init__(folder, proxied=proxied, settings=settings)
        self.raftctls: list[subprocess.Popen[bytes]] = []
        self._numbers = itertools.count(1)
        self.network: Network
        if self.proxy is not None:
            self.network = ProxyNetwork(self.proxy)
        else:
            self.network = NamespaceNetwork()

    def __getitem__(self, name: str) -> ChaosServer:
        return self.servers[name]

    def close(self) -> None:
        """End every process and the proxy."""
        for process in self.raftctls:
            process.kill()
            process.wait()
        super().close()

    def add_server(self, name: str, *, start: bool = True) -> ChaosServer:
        """Return a server that no cluster file but its own knows; by default it runs, blank."""
        server = self.servers[name] = ChaosServer(name, folder=self.folder, proxy=self.proxy)
        if isinstance(self.network, NamespaceNetwork):
            server.address = server.listen = self.network.connect(name)
            server.prefix = self.network.prefix(name)
        self.write_config(server.config_path, [server])
        if start:
            server.start()
        return server

    def write_config(self, path: Path, servers: Iterable[Server]) -> None:
        """Write a cluster file that lists `servers`."""
        super().write_config(path, servers)
        if isinstance(self.network, NamespaceNetwork):
            path.write_text("insecure: true\n" + path.read_text())

    def set_up(self, voters: Sequence[str], spares: Sequence[str]) -> None:
        """Start all of them and make the `voters` one cluster."""
        self.form(*voters)
        for name in spares:
            self.add_server(name)
        for name in spares:
            wait_for(f"{name} answers", self[name].status, within_s=FORM_WAIT_S)

    def client(self, names: Sequence[str] = (), *, timeout_ms: float = 30_000.0) -> Client:
        """Return a client that knows the addresses of `names`, else of every server there is."""
        chosen = names or tuple(self.servers)
        addresses = tuple(self[name].address for name in chosen)
        return Client(Endpoints(addresses=addresses, source="chaos"), timeout_ms=timeout_ms)

    def start_raftctl(self, *words: str) -> Command:
        """Start `raftctl words...` from the main thread; it knows every server's address."""
        endpoints = ",".join(server.address for server in self.servers.values())
        path = self.folder / f"raftctl-{next(self._numbers):03d}"
        command = [sys.executable, "-m", "raftctl.playground_child", str(os.getpid())]
        command += [sys.executable, "-m", "raftctl", "--endpoints", endpoints, *words]
        environment = {k: v for k, v in os.environ.items() if not k.startswith("RAFTCTL_")}
        with path.with_suffix(".out").open("wb") as out, path.with_suffix(".err").open("wb") as err:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=environment
            )
        self.raftctls.append(process)
        return Command(words=words, process=process, path=path, started_s=time.monotonic())


@attrs.define(kw_only=True, eq=False)
class Command:
    """A raftctl that was started, perhaps still running."""

    words: tuple[str, ...]
    process: subprocess.Popen[bytes]
    path: Path
    """Of its output, without the suffix."""
    started_s: float

    @property
    def code(self) -> int | None:
        """Its exit code; None while it runs."""
        return self.process.poll()

    @property
    def stdout(self) -> str:
        """What it has printed so far."""
        return self.path.with_suffix(".out").read_text(errors="replace")

    @property
    def stderr(self) -> str:
        """What it has complained about so far."""
        return self.path.with_suffix(".err").read_text(errors="replace")


@attrs.frozen(kw_only=True)
class View:
    """What the servers last said about themselves."""

    statuses: dict[str, StatusReply]
    """By name; only those that have answered just now."""

    @property
    def leader(self) -> StatusReply | None:
        """Of the leader with a quorum behind it, of the highest term."""
        leaders = [
            status
            for status in self.statuses.values()
            if status.role == "leader" and status.leadership_confirmed
        ]
        return max(leaders, key=lambda status: status.term, default=None)

    @property
    def leader_name(self) -> str:
        """Empty if nobody leads."""
        leader = self.leader
        return server_name(leader.server) if leader is not None else ""

    @property
    def configuration(self) -> ConfigurationView | None:
        """The latest of the leader."""
        leader = self.leader
        return leader.configuration if leader is not None else None

    @property
    def last_index(self) -> int:
        """The highest of any log."""
        return max((status.last_index for status in self.statuses.values()), default=0)

    @property
    def is_stable(self) -> bool:
        """Whether somebody leads, and no change is under way."""
        leader, configuration = self.leader, self.configuration
        return (
            leader is not None
            and configuration is not None
            and leader.operation is None
            and configuration.committed
            and not configuration.joint
        )


def names_of(servers: Iterable[ServerId]) -> list[str]:
    """Return the names, sorted, each once."""
    return sorted({server_name(server) for server in servers})


class Observer:
    """Asks every server for its status, again and again, each in a thread of its own.

    A server that hangs holds up nobody else, and the main thread never waits.
    """

    def __init__(self, servers: Iterable[ChaosServer]) -> None:
        self._seen: dict[str, tuple[float, StatusReply]] = {}
        self._stop_event = threading.Event()
        self._threads = [
            threading.Thread(
                target=self._look_at, args=(server,), name=f"look at {server.name}", daemon=True
            )
            for server in servers
        ]

    def start(self) -> None:
        """Begin to look."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Stop looking and wait for the threads."""
        self._stop_event.set()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()

    def view(self) -> View:
        """Return what was said within the last `FRESH_S` seconds."""
        since_s = time.monotonic() - FRESH_S
        # The threads may put in new names while this is read.
        seen = list(self._seen.copy().items())
        return View(statuses={name: status for name, (at_s, status) in seen if at_s >= since_s})

    def _look_at(self, server: ChaosServer) -> None:
        connection: Connection | None = None
        while not self._stop_event.wait(LOOK_INTERVAL_S):
            if not server.running:
                self._seen.pop(server.name, None)
                continue
            deadline = Deadline.after_ms(LOOK_TIMEOUT_MS)
            asked_s = time.monotonic()
            try:
                # Not through the proxy: whoever is cut off from the others is still seen here.
                connection = connection or Connection.open(server.listen, deadline)
                reply = connection.ask(StatusRequest(), deadline)
            except ConnectionProblem:
                connection = None
                continue
            if isinstance(reply, StatusReply):
                self._seen[server.name] = (asked_s, reply)
        if connection is not None:
            with contextlib.suppress(OSError):
                connection.close()
