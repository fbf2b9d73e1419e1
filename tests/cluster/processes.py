"""Clusters of real `raftd` processes on free loopback ports, and how tests talk to them.

Every server dies with the test process: the kernel kills it when its parent ends, however that
ends, and the fixtures kill what is left when a test is over. For the former, servers are started
from the main thread only.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import attrs

from raftctl.client import Cluster as Client
from raftctl.client import Connection, ConnectionProblem, Deadline, expect
from raftctl.endpoints import Endpoints
from raftd.certificate_files import TlsFiles
from raftd.commands import Operation
from raftd.core.types import server_incarnation, server_name
from raftd.protocol import (
    BootstrapReply,
    BootstrapRequest,
    ChangeReply,
    ChangeRequest,
    ErrorReply,
    MemberChange,
    OperationsReply,
    OperationsRequest,
    OperationView,
    Reply,
    Request,
    StatusReply,
    StatusRequest,
)
from raftd.tls import client_context
from tests.certificates import TestAuthority
from tests.cluster.proxy import Proxy
from tests.cluster.warm import Copy, Originals
from tests.raftctl.documented import problems_of_output

WAIT_S = 20.0
"""For a condition that a healthy cluster reaches within one or two seconds."""
POLL_S = 0.02
ASK_TIMEOUT_MS = 2_000.0
"""For one server's answer to one question of a test."""
COMMAND_TIMEOUT_S = 60.0
"""For one raftctl; its own time-outs end it long before."""
HEARTBEAT_MS = 50
ELECTION_TIMEOUT_MS = 500
PORTS = range(12_000, 32_000)
"""Below the ephemeral range of Linux: no outgoing connection takes the port of a dead server."""
LOG_TAIL_BYTES = 4_000
"""Of each server's stderr, shown when a test fails."""

NEEDING_AN_INTERPRETER = {"tests.cluster.newer_release"}
"""Programs that change a module before others import it; each gets an interpreter of its own."""

ValueType = TypeVar("ValueType")
Running: TypeAlias = subprocess.Popen[Any] | Copy

originals: Originals | None = None
"""What starts `raftd` and `raftctl` while the tests of this folder run; None: Python itself."""

_random = random.Random(os.getpid())
_taken: set[int] = set()


def free_port() -> int:
    """Return a loopback port on which nobody listens, and which no other call has returned."""
    for _ in range(1_000):
        port = _random.choice(PORTS)
        if port in _taken:
            continue
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        _taken.add(port)
        return port
    raise AssertionError("no free port found")


def wait_for(
    what: str, probe: Callable[[], ValueType | None], *, within_s: float = WAIT_S
) -> ValueType:
    """Return the first result of `probe` that is true, or fail after `within_s` seconds."""
    deadline_s = time.monotonic() + within_s
    while True:
        result = probe()
        if result:
            return result
        assert time.monotonic() < deadline_s, f"waited {within_s} s in vain for: {what}"
        time.sleep(POLL_S)


class Server:
    """One raftd: its address, its files, and its process as long as it runs."""

    def __init__(self, name: str, *, folder: Path, proxy: Proxy | None) -> None:
        self.name = name
        self.listen = f"127.0.0.1:{free_port()}"
        """Where the process listens."""
        self.address = self.listen
        """Where the others and clients dial it."""
        self.redis = ""
        """Where it serves clients of the Redis protocol; empty for nowhere."""
        self.http = ""
        """Where it serves its status page; empty for nowhere."""
        self.tls: Callable[[], ssl.SSLContext | None] = lambda: None
        """Returns with what tests dial it; None for plain connections."""
        self.config_path = folder / f"{name}.yaml"
        self.data_dir = folder / "data" / name
        self.log_path = folder / f"{name}.log"
        self.process: Running | None = None
        self.program: tuple[str, ...] = ("raftd",)
        """The module that is started, and arguments that come before those of raftd."""
        if proxy is not None:
            listener = socket.create_server(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{listener.getsockname()[1]}"
            proxy.serve(name, listener, ("127.0.0.1", int(self.listen.rpartition(":")[2])))

    def start(self, *arguments: str) -> None:
        """Start the process. It need not listen yet when this returns."""
        assert self.process is None or self.process.poll() is not None
        words = ("--config", str(self.config_path), "--id", self.name, *arguments)
        with self.log_path.open("ab") as log, open(os.devnull) as nothing:
            program, *more = self.program
            if originals is not None and program not in NEEDING_AN_INTERPRETER:
                streams = {"stdin": nothing.fileno(), "stdout": log.fileno()}
                words = (*more, *words)
                self.process = originals.start(program, words, **streams, stderr=log.fileno())
                return
            command = [sys.executable, "-m", "raftctl.playground_child", str(os.getpid())]
            command += [sys.executable, "-m", *self.program, *words]
            self.process = subprocess.Popen(command, stdin=nothing, stdout=log, stderr=log)

    @property
    def pid(self) -> int:
        """Of its process."""
        assert self.process is not None
        return self.process.pid

    def kill(self) -> None:
        """End it with SIGKILL and wait until it is gone."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def pause(self) -> None:
        """Stop its clock: SIGSTOP."""
        self.signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on: SIGCONT."""
        self.signal(signal.SIGCONT)

    def terminate(self) -> None:
        """Ask it to end: SIGTERM."""
        self.signal(signal.SIGTERM)

    def wait_exit(self, *, within_s: float = WAIT_S) -> int:
        """Return its exit code; fail if it runs longer."""
        assert self.process is not None
        try:
            return self.process.wait(within_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.name} still runs after {within_s} s") from None

    def wipe(self) -> None:
        """Empty its data directory, as a new disk does."""
        assert self.process is None or self.process.poll() is not None
        shutil.rmtree(self.data_dir)

    @property
    def running(self) -> bool:
        """Whether its process has not ended."""
        return self.process is not None and self.process.poll() is None

    @property
    def log(self) -> str:
        """What it has written to stderr so far."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def ask(self, request: Request) -> Reply | None:
        """Return its answer; None if it gives none."""
        deadline = Deadline.after_ms(ASK_TIMEOUT_MS)
        try:
            connection = Connection.open(self.listen, deadline, tls=self.tls())
            try:
                return connection.ask(request, deadline)
            finally:
                connection.close()
        except ConnectionProblem:
            return None

    def status(self) -> StatusReply | None:
        """Return its own view; None if it does not answer."""
        reply = self.ask(StatusRequest()) if self.running else None
        return reply if isinstance(reply, StatusReply) else None

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, unless it has ended."""
        assert self.process is not None
        self.process.send_signal(number)


@attrs.frozen
class Outcome:
    """How a raftctl ended."""

    code: int
    stdout: str
    stderr: str

    @property
    def document(self) -> Any:
        """The last line of stdout, which is JSON."""
        return json.loads(self.stdout.splitlines()[-1])

    @property
    def error(self) -> Any:
        """The error on stderr, in its JSON form."""
        return json.loads(self.stderr.splitlines()[-1])["error"]


def start_raftctl(*words: str, environment: Mapping[str, str] | None = None) -> Running:
    """Start `raftctl words...` with pipes; nothing but its words says where to dial.

    Args:
        environment: what it is given more than this process has.
    """
    kept = {k: v for k, v in os.environ.items() if not k.startswith("RAFTCTL_")}
    kept |= environment or {}
    if originals is None:
        return subprocess.Popen(
            [sys.executable, "-m", "raftctl", *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=kept,
            # Whoever runs the tests in the background has it ignored.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
    return originals.start_with_pipes("raftctl", words, environment=kept)


def raftctl(*words: str, environment: Mapping[str, str] | None = None) -> Outcome:
    """Run `raftctl words...` to its end; nothing but its words says where to dial."""
    process = start_raftctl(*words, environment=environment)
    stdout, stderr = process.communicate("", timeout=COMMAND_TIMEOUT_S)
    return Outcome(process.returncode, stdout, stderr)


class RunningCluster:
    """Servers that form a cluster, and blank ones beside them. Closed by the fixture."""

    def __init__(
        self,
        folder: Path,
        *,
        proxied: bool = False,
        redis: bool = False,
        http: bool = False,
        settings: str = "",
        authority: TestAuthority | None = None,
    ) -> None:
        """Prepare a cluster in `folder`; nothing runs yet.

        Args:
            proxied: whether a test wants to cut links.
            redis: whether its servers serve clients of the Redis protocol.
            http: whether they serve browsers and monitoring.
            settings: lines for `defaults` of every cluster file, each `key: value`.
            authority: makes certificates for all servers, and for tests one of an administrator;
                None for plain connections.
        """
        self.authority = authority
        self.folder = folder
        self.config_path = folder / "cluster.yaml"
        self.proxy = Proxy() if proxied else None
        self.servers: dict[str, Server] = {}
        self.program: tuple[str, ...] = ("raftd",)
        """What the servers that are made from now on start, see `Server.program`."""
        self._serves_redis = redis
        self._serves_http = http
        self._settings = settings
        self._commands: dict[Running, tuple[str, ...]] = {}
        if self.proxy is not None:
            self.proxy.start()
        open_clusters.append(self)

    def close(self) -> None:
        """End every process and the proxy."""
        for command in self._commands:
            command.kill()
            command.communicate()
        for server in self.servers.values():
            server.kill()
        if self.proxy is not None:
            self.proxy.stop()
        open_clusters.remove(self)

    # --- servers ---

    def __getitem__(self, name: str) -> Server:
        return self.servers[name]

    def add_server(self, name: str, *, start: bool = True) -> Server:
        """Return a server that no cluster file but its own knows; by default it runs, blank."""
        server = self.servers[name] = Server(name, folder=self.folder, proxy=self.proxy)
        server.program = self.program
        if self.authority is not None:
            self.authority.server(name)
            server.tls = self.admin_context
        if self._serves_redis:
            server.redis = f"127.0.0.1:{free_port()}"
        if self._serves_http:
            server.http = f"127.0.0.1:{free_port()}"
        self.write_config(server.config_path, [server])
        if start:
            server.start()
        return server

    def admin_context(self) -> ssl.SSLContext | None:
        """Return with what tests dial servers; None for plain connections."""
        if self.authority is None:
            return None
        place = self.authority.folder
        if not (place / "admin.pem").exists():
            self.authority.admin()
        files = TlsFiles(ca=place / "ca.pem", cert=place / "admin.pem", key=place / "admin.key")
        return client_context(files.ca, files)

    def start_blank(self, *names: str) -> None:
        """Make and start servers, and wait until all of them answer."""
        for name in names:
            self.add_server(name)
        for name in names:
            wait_for(f"{name} answers", self[name].status)

    def write_config(self, path: Path, servers: Iterable[Server]) -> None:
        """Write a cluster file that lists `servers`."""
        defaults = {
            "data_dir": "data/{id}",
            "heartbeat_interval": f"{HEARTBEAT_MS}ms",
            "election_timeout": f"{ELECTION_TIMEOUT_MS}ms",
            **dict(line.split(": ", 1) for line in self._settings.splitlines()),
        }
        if self.authority is not None:
            place = self.authority.folder
            defaults["tls"] = (
                f'{{ca: "{place}/ca.pem", cert: "{place}/{{id}}.pem", key: "{place}/{{id}}.key"}}'
            )
        lines = ["cluster: orders", "defaults:"]
        lines += [f"  {key}: {value}" for key, value in defaults.items()]
        lines += ["servers:"]
        for server in servers:
            keys = {
                "address": server.address,
                "listen": server.listen,
                "redis": server.redis,
                "http": server.http,
            }
            shown = ", ".join(f"{key}: {value}" for key, value in keys.items() if value)
            lines.append(f"  {server.name}: {{{shown}}}")
        path.write_text("\n".join(lines) + "\n")

    def form(self, *names: str) -> None:
        """Start the servers `names`, added before or not, and make them voters of one cluster."""
        for name in names:
            if name not in self.servers:
                self.add_server(name, start=False)
        members = [self[name] for name in names]
        self.write_config(self.config_path, members)
        for server in members:
            self.write_config(server.config_path, members)
            server.start()
        for server in members:
            wait_for(f"{server.name} answers", server.status)
        first, others = members[0], members[1:]
        status = first.status()
        assert status is not None
        request = BootstrapRequest(
            cluster_name="orders",
            incarnation=server_incarnation(status.server),
            address=first.address,
        )
        assert isinstance(first.ask(request), BootstrapReply)
        if others:
            with self.client(names[:1]) as client:
                self.change(
                    client,
                    "init",
                    *(MemberChange(role="voter", name=s.name, address=s.address) for s in others),
                )
        self.wait_leader()

    # --- looking at it ---

    def statuses(self) -> dict[str, StatusReply]:
        """Return the view of every server that answers."""
        found = {name: server.status() for name, server in self.servers.items()}
        return {name: status for name, status in found.items() if status is not None}

    def confirmed_leader(self, names: Sequence[str] = ()) -> Server | None:
        """Return who leads with a quorum behind it, among `names` or all servers."""
        leaders = [
            (status.term, name)
            for name, status in self.statuses().items()
            if status.role == "leader" and status.leadership_confirmed
            if not names or name in names
        ]
        return self[max(leaders)[1]] if leaders else None

    def term(self) -> int:
        """Return the highest term of any server that answers."""
        return max(status.term for status in self.statuses().values())

    def wait_leader(self, names: Sequence[str] = (), *, within_s: float = WAIT_S) -> Server:
        """Return the leader as soon as there is one with a quorum behind it."""
        who = f" among {' '.join(names)}" if names else ""
        return wait_for(f"a leader{who}", lambda: self.confirmed_leader(names), within_s=within_s)

    def followers(self, leader: Server) -> list[Server]:
        """Return the other members, as the leader has them, sorted by name."""
        status = leader.status()
        assert status is not None
        assert status.configuration is not None
        names = sorted(server_name(server) for server in status.configuration.addresses)
        return [self[name] for name in names if name != leader.name]

    def wait_settled(self, voters: Iterable[str], learners: Iterable[str] = ()) -> StatusReply:
        """Return the leader's status when exactly these are members and all have caught up.

        To have caught up is to hold what was committed at the first look at these members: under
        writes there is always an entry on its way, and a learner gets it only once it is committed.
        """
        wanted = (sorted(voters), sorted(learners))
        committed_at_first: list[int] = []

        def settled() -> StatusReply | None:
            leader = self.confirmed_leader()
            status = leader.status() if leader else None
            if status is None or status.configuration is None or status.operation is not None:
                return None
            configuration = status.configuration
            have = tuple(
                sorted(server_name(server) for server in half)
                for half in (configuration.voters, configuration.learners)
            )
            if have != wanted or configuration.joint or not configuration.committed:
                return None
            committed_at_first.append(status.commit_index)
            # A server that was just removed may still be fed; whether it is does not matter here.
            members = [peer for peer in status.peers if peer.server in configuration.addresses]
            behind = any(peer.match_index < committed_at_first[0] for peer in members)
            return None if behind or not all(peer.connected for peer in members) else status

        return wait_for(f"voters {wanted[0]}, learners {wanted[1]}, all caught up", settled)

    # --- talking to it ---

    def client(self, names: Sequence[str] = (), *, timeout_ms: float = 30_000.0) -> Client:
        """Return a client that knows the addresses of `names`, else those of the cluster file."""
        from raftctl.endpoints import load_cluster_file

        if names:
            addresses = tuple(self[name].address for name in names)
        else:
            file = load_cluster_file(self.config_path)
            addresses = tuple(server.address for server in file.servers.values())
        endpoints = Endpoints(addresses=addresses, source="test", tls=self.admin_context())
        return Client(endpoints, timeout_ms=timeout_ms)

    def ctl(self, *words: str, stdin: str = "", env: dict[str, str] | None = None) -> Outcome:
        """Run `raftctl --config FILE words...` to its end."""
        return self.finish(self.start_ctl(*words, env=env), stdin=stdin)

    def start_ctl(self, *words: str, env: dict[str, str] | None = None) -> Running:
        """Start `raftctl --config FILE words...`."""
        process = start_raftctl("--config", str(self.config_path), *words, environment=env)
        self._commands[process] = words
        return process

    def finish(self, process: Running, *, stdin: str = "") -> Outcome:
        """Wait until a raftctl has ended."""
        stdout, stderr = process.communicate(stdin, timeout=COMMAND_TIMEOUT_S)
        words = self._commands.pop(process)
        if process.returncode >= 0:
            assert problems_of_output(words, stdout, stderr) == []
        return Outcome(process.returncode, stdout, stderr)

    def json_status(self) -> Any:
        """Return the document of `raftctl status -o json`."""
        return self.ctl("status", "-o", "json").document

    def change(
        self, client: Client, kind: str, *changes: MemberChange, at_end: str = "done"
    ) -> Operation:
        """Make a membership change, wait for its end, and return its record."""
        operation = self.start_change(client, kind, *changes)
        record = self.wait_operation(client, operation)
        assert record.result == at_end, f"{record.result}: {record.explanation}"
        return record

    def start_change(self, client: Client, kind: str, *changes: MemberChange) -> str:
        """Start a membership change and return the id of its operation."""
        reply = client.write(
            lambda session, serial, lowest: ChangeRequest(
                session=session, serial=serial, kind=kind, changes=changes, author="test"
            )
        )
        return expect(reply, ChangeReply).operation

    def operation(self, operation: str) -> OperationView | None:
        """Return an operation as the leader sees it; None without a leader."""
        leader = self.confirmed_leader()
        reply = leader.ask(OperationsRequest(operation=operation)) if leader else None
        if not isinstance(reply, OperationsReply) or not reply.operations:
            return None
        return reply.operations[0]

    def wait_operation(self, client: Client, operation: str) -> Operation:
        """Return the record of an operation when it has ended."""

        def ended() -> Operation | None:
            view = self.operation(operation)
            return view.record if view is not None and not view.record.running else None

        return wait_for(f"{operation} ends", ended)


open_clusters: list[RunningCluster] = []
"""Those whose servers' output is shown when a test fails."""


def tails() -> Iterable[tuple[str, str]]:
    """Return a title and the end of stderr of each server of every open cluster."""
    for cluster in open_clusters:
        for name, server in cluster.servers.items():
            process = server.process
            code = process.poll() if process is not None else None
            state = "never started" if process is None else f"exit code {code}"
            title = f"{name} ({'running' if process is not None and code is None else state})"
            yield title, server.log[-LOG_TAIL_BYTES:]


def voter(server: Server) -> MemberChange:
    """Return the change that brings in `server` as a voter."""
    return MemberChange(role="voter", name=server.name, address=server.address)


def removal(name: str) -> MemberChange:
    """Return the change that removes the member `name`."""
    return MemberChange(role="remove", name=name)


def refusal(reply: Reply | None) -> ErrorReply:
    """Return `reply`, which has to be an error."""
    assert isinstance(reply, ErrorReply), reply
    return reply
