"""A small cluster on real sockets for the driver of rolling operations: its ledger is the real one.

Each server speaks the native protocol. What is committed is committed at once; changes of members
go through at once, unless a test says otherwise. A server is restarted by writing its new release
into its file, which is what a command can do.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

from raftd.commands import (
    ABORTED,
    DONE,
    FEATURES_MAX,
    AbortOperation,
    BeginOperation,
    BeginRolling,
    Operation,
    Plan,
    SwitchOn,
    UpdateRolling,
)
from raftd.core.membership import (
    Configuration,
    ConfigurationEntry,
    ConfigurationKind,
    encode_configuration,
)
from raftd.core.types import EntryKind, server_name
from raftd.operations import abort_reply
from raftd.preflight import change_reply
from raftd.protocol import (
    PROTOCOL_VERSION_MAX,
    AbortRequest,
    BeginRollingRequest,
    ChangeReply,
    ChangeRequest,
    ConfigurationView,
    DoneReply,
    ErrorReply,
    OpenSessionRequest,
    OperationsReply,
    OperationsRequest,
    OperationView,
    PeerView,
    ReadIndexReply,
    ReadIndexRequest,
    Request,
    StatusReply,
    StatusRequest,
    TransferReply,
    TransferRequest,
    UpdateRollingRequest,
)
from raftd.rolling import rolling_reply
from raftd.storage.store import MemoryStore
from raftd.views import rolling_view
from tests.raftctl.speaking_servers import LOSE, Answer, SpeakingServer, not_leader
from tests.storage.test_state import Replica

UPTIME_MS = 10_000_000
"""Of a server that was never restarted."""
OLD, NEW = "0.1.0", "0.2.0"


class RollingWorld:
    """Servers n1, n2, ... of one cluster; n1 leads at first."""

    def __init__(self, folder: Path, *, voters: int = 3, learners: int = 0) -> None:
        self.folder = folder
        self.lock = threading.RLock()
        self.replica = Replica(MemoryStore())
        self.servers: dict[str, SpeakingServer] = {}
        self.leader = "n1"
        self.learners: set[str] = set()
        self.members: list[str] = []
        self.features = FEATURES_MAX
        self.spoken: dict[str, int] = {}
        """The protocol version of servers that speak another one."""
        self.lag: dict[str, int] = {}
        """How many entries a server is behind; it is catching up then."""
        self.down: set[str] = set()
        """Servers that break off every connection."""
        self.wall_clock_ms: Callable[[], int] = lambda: int(time.time() * 1000)
        self.instead: Callable[[str, Request], Answer | None] = lambda name, request: None
        """What a server answers to a request instead, if a test says so."""
        self.changes_end_as = DONE
        """How changes of members end; empty for not at all."""
        self._started_s = time.monotonic()
        for number in range(1, voters + learners + 1):
            name = f"n{number}"
            self.add(name)
            self.members.append(name)
            if number > voters:
                self.learners.add(name)
        self._configure(ConfigurationKind.BOOTSTRAP)
        self.replica.run(SwitchOn(version=FEATURES_MAX, time_ms=1))

    def add(self, name: str) -> SpeakingServer:
        """Start a server that is no member yet."""
        server = self.servers[name] = SpeakingServer(f"{name}/{name}")
        server.answer = lambda request: self._answer(name, request)
        return server

    def close(self) -> None:
        """Stop all servers."""
        for server in self.servers.values():
            server.close()

    def stop(self, name: str) -> None:
        """Let nobody listen any more where `name` was."""
        self.servers[name].close()

    @property
    def endpoints(self) -> str:
        """For `-e`: of every member."""
        return ",".join(self.servers[name].address for name in self.members)

    @property
    def restart_command(self) -> str:
        """What restarts one server, with a new release."""
        return f"echo {NEW} > {self.folder}/{{id}}"

    def operation(self, id: str) -> Operation:
        """Return a record."""
        found = self.replica.machine.operation(id)
        assert found is not None
        return found

    def requests(self, kind: type[Request]) -> list[Request]:
        """Return every request of this kind, in the order of the servers."""
        return [
            request
            for server in self.servers.values()
            for request in server.requests
            if isinstance(request, kind)
        ]

    def restarts(self) -> list[str]:
        """Return the names of the servers that were restarted, in that order."""
        files = [path for path in self.folder.iterdir() if path.name in self.servers]
        return [path.name for path in sorted(files, key=lambda path: path.stat().st_mtime_ns)]

    # --- the log ---

    def apply_change(self, request: ChangeRequest) -> Answer:
        """Begin a change of members, and end it unless a test says otherwise."""
        changes = tuple((change.role, f"{change.name}/{change.name}") for change in request.changes)
        plan = Plan(
            changes=changes,
            addresses={f"{c.name}/{c.name}": c.address for c in request.changes if c.address},
            joint=True,
            configuration_index=request.at_index or self.replica.machine.configuration_index,
        )
        if request.dry_run:
            return ChangeReply(operation="")
        body = BeginOperation(
            kind=request.kind,
            author=request.author,
            reason=request.reason,
            time_ms=self.wall_clock_ms(),
            plan=plan,
            parent=request.parent,
        )
        result = self.replica.run(body, request.session, request.serial)
        if not result.code and self.changes_end_as:
            self.end_change(self.changes_end_as)
        return change_reply(result, None)

    def end_change(self, outcome: str) -> None:
        """End the change of members that runs."""
        running = self.replica.machine.running_operation
        assert running is not None
        if outcome == DONE:
            for role, server in running.plan.changes:
                name = server_name(server)
                if role == "remove":
                    self.members.remove(name)
                else:
                    self.members.append(name)
                    self.learners |= {name} if role == "learner" else set()
            if self.leader not in self.members:
                self.leader = self.members[0]
        self._configure(
            ConfigurationKind.FINAL if outcome == DONE else ConfigurationKind.ABORT,
            operation=running.id,
            outcome=outcome,
            reason="" if outcome == DONE else "the new half is gone",
        )

    def _configure(self, kind: ConfigurationKind, **fields: str) -> None:
        voters = [f"{name}/{name}" for name in self.members if name not in self.learners]
        entry = ConfigurationEntry(
            configuration=Configuration(
                voters=voters, learners=[f"{name}/{name}" for name in self.learners]
            ),
            kind=kind,
            time_ms=self.wall_clock_ms(),
            **fields,
        )
        log_entry = self.replica.log.entry(EntryKind.CONFIGURATION, encode_configuration(entry))
        self.replica.machine.apply([log_entry])

    # --- answers ---

    def _answer(self, name: str, request: Request) -> Answer:
        with self.lock:
            if name in self.down:
                return LOSE
            instead = self.instead(name, request)
            if instead is not None:
                return instead
            if isinstance(request, StatusRequest):
                return self.status(name)
            machine = self.replica.machine
            if isinstance(request, OperationsRequest):
                records = [
                    record
                    for record in machine.operations()
                    if request.operation in ("", record.id)
                ]
                return OperationsReply(
                    operations=tuple(
                        OperationView(record=record, step=record.phase) for record in records
                    )
                )
            if name != self.leader:
                return not_leader(self.servers[self.leader])
            return self._lead(request)

    def _lead(self, request: Request) -> Answer:
        replica = self.replica
        match request:
            case ReadIndexRequest():
                return ReadIndexReply(index=replica.machine.applied_index)
            case OpenSessionRequest():
                replica.open(request.session)
                return DoneReply()
            case ChangeRequest():
                return self.apply_change(request)
            case TransferRequest():
                voters = [name for name in self.members if name not in self.learners]
                others = [name for name in voters if name != self.leader]
                self.leader = request.target or others[0]
                return TransferReply(leader=f"{self.leader}/{self.leader}", term=4)
            case BeginRollingRequest():
                body = BeginRolling(
                    kind=request.kind,
                    author=request.author,
                    reason=request.reason,
                    time_ms=self.wall_clock_ms(),
                    steps=request.steps,
                    command=request.command,
                )
                result = replica.run(body, request.session, request.serial)
                return rolling_reply(result, version=1)
            case UpdateRollingRequest():
                return self.update(request)
            case AbortRequest():
                return self._abort(request)
        return ErrorReply(code="invalid", message=f"unexpected {type(request).__name__}")

    def update(self, request: UpdateRollingRequest) -> Answer:
        """Change the record of a rolling operation as the leader does."""
        body = UpdateRolling(
            operation=request.operation,
            action=request.action,
            author=request.author,
            version=request.version,
            time_ms=self.wall_clock_ms(),
            position=request.position,
            step=request.step,
            outcome=request.outcome,
            reason=request.reason,
        )
        result = self.replica.run(body, request.session, request.serial)
        return rolling_reply(result, version=request.version + 1)

    def interfere(self, action: str, author: str = "eve@elsewhere") -> None:
        """Change the rolling operation that runs as somebody else does."""
        with self.lock:
            running = self.replica.machine.rolling_operation
            assert running is not None
            assert running.rolling is not None
            version = running.rolling.version
            if action == "abort":
                self.replica.run(
                    AbortOperation(operation=running.id, author=author, reason="", time_ms=1)
                )
                return
            body = UpdateRolling(
                operation=running.id, action=action, author=author, version=version, time_ms=1
            )
            assert self.replica.run(body).applied

    def _abort(self, request: AbortRequest) -> Answer:
        body = AbortOperation(
            operation=request.operation,
            author=request.author,
            reason=request.reason,
            time_ms=self.wall_clock_ms(),
        )
        result = self.replica.run(body)
        running = self.replica.machine.running_operation
        if running is not None and running.abort_requested_by:
            self.end_change(ABORTED)
        return abort_reply(result)

    def status(self, name: str) -> Answer:
        """Return what `name` says of itself, and of the others if it leads."""
        if name not in self.members:
            return LOSE
        machine = self.replica.machine
        leads = name == self.leader
        version, uptime_ms = self._process(name)
        index = machine.applied_index
        running = machine.running_operation
        return StatusReply(
            server=f"{name}/{name}",
            version=version,
            cluster_id="c1",
            cluster_name="orders",
            role="leader" if leads else "learner" if name in self.learners else "follower",
            term=3,
            leader=f"{self.leader}/{self.leader}",
            leader_address=self.servers[self.leader].address,
            leadership_confirmed=leads,
            first_index=1,
            last_index=index,
            commit_index=index,
            applied_index=index,
            snapshot_index=0,
            revision=0,
            configuration=self._view(),
            peers=tuple(self._peer(other, index) for other in self.members if other != name)
            if leads
            else (),
            operation=OperationView(record=running, step=running.phase) if running else None,
            rolling=rolling_view(machine),
            uptime_ms=uptime_ms,
            wall_clock_ms=self.wall_clock_ms(),
            heartbeat_interval_ms=50,
            election_timeout_ms=500,
            protocol_version_max=self.spoken.get(name, PROTOCOL_VERSION_MAX),
            features_max=self.spoken.get(name, FEATURES_MAX),
            features=self.features,
        )

    def _process(self, name: str) -> tuple[str, int]:
        """Return the release that runs, and for how many milliseconds."""
        file = self.folder / name
        if file.exists():
            return file.read_text().strip(), max(
                0, int((time.time() - file.stat().st_mtime) * 1000)
            )
        return OLD, UPTIME_MS + int((time.monotonic() - self._started_s) * 1000)

    def _view(self) -> ConfigurationView:
        return ConfigurationView(
            index=self.replica.machine.configuration_index,
            committed=True,
            joint=False,
            voters=tuple(f"{name}/{name}" for name in self.members if name not in self.learners),
            outgoing=(),
            learners=tuple(f"{name}/{name}" for name in self.members if name in self.learners),
            addresses={f"{name}/{name}": self.servers[name].address for name in self.members},
        )

    def _peer(self, name: str, index: int) -> PeerView:
        lag = self.lag.get(name, 0)
        return PeerView(
            server=f"{name}/{name}",
            match_index=max(0, index - lag),
            lag_entries=lag,
            last_contact_ms=1.0,
            caught_up=not lag,
            rounds=1,
            connected=True,
        )
