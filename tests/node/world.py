"""A cluster of real nodes in one process: network, clock, disks and power are in the test's hands.

Nodes, state machines and the requests that servers ask each other are those of production. Links
behave as those of `raftd.network`: a request goes out on the link that its sender dialled, a
response goes back on the link that it came by, whoever answers a dial decides through
`Node.admit`, and nothing is queued for a link that is down.

Whatever a test does, the world checks at every step that nothing leaves a server that its disk does
not have yet, that all servers apply the same entries, that there is one leader in a term, and that
each request is answered once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from random import Random
from typing import Any

import attrs

from raftd.commands import Operation
from raftd.core.invariants import InvariantChecker
from raftd.core.leader import Leader
from raftd.core.messages import (
    AppendEntries,
    AppendEntriesResponse,
    Envelope,
    InstallSnapshotResponse,
    PreVote,
    PreVoteResponse,
    ReadIndexResponse,
    RequestVoteResponse,
    StateCheckResponse,
)
from raftd.core.types import Entry, EntryKind, HardState, Index, ServerId, Term, server_name
from raftd.inputs import Contacted, Input, LinkChanged, PeerRefused, Received, Requested
from raftd.node import FREE_BYTES_UNKNOWN, Node, Stop
from raftd.protocol import (
    PROTOCOL_VERSION_MAX,
    BootstrapReply,
    BootstrapRequest,
    ChangeReply,
    ChangeRequest,
    DoneReply,
    ErrorReply,
    GetReply,
    GetRequest,
    Hello,
    MemberChange,
    OpenSessionRequest,
    OperationsReply,
    OperationsRequest,
    OperationView,
    PutRequest,
    Refusal,
    Reply,
    Request,
    StatusReply,
    Welcome,
)
from raftd.storage.state import StateMachine
from raftd.surroundings import Settings
from tests.node.disks import MemoryDisk, Power, PowerLost, RealDisk
from tests.node.powered import PoweredDisk, PoweredSnapshots, PoweredState
from tests.storage.memory_files import Crash

TICK_MS = 50.0
HEARTBEAT_TICKS = 2
ELECTION_TICKS = 8
CATCH_UP_TICKS = 60
JOINT_TICKS = 30
CLUSTER = "orders"
EPOCH_MS = 1_700_000_000_000
SETTLE_ROUNDS_MAX = 2_000
"""Rounds of messages within one tick: far more than anything needs that comes to an end."""

HESITATION = 0.3
"""How often work in the background stands still for a tick, where turns are shuffled."""

_RESPONSES = (
    PreVoteResponse,
    RequestVoteResponse,
    AppendEntriesResponse,
    InstallSnapshotResponse,
    StateCheckResponse,
    ReadIndexResponse,
)


def settings(address: str, **more: Any) -> Settings:
    """Return the settings of a server: small numbers of ticks, in the usual proportions."""
    usual = Settings(
        address=address,
        version="0.1.0",
        tick_ms=TICK_MS,
        heartbeat_interval_ms=HEARTBEAT_TICKS * TICK_MS,
        election_timeout_ms=ELECTION_TICKS * TICK_MS,
        catch_up_timeout_ms=CATCH_UP_TICKS * TICK_MS,
        joint_timeout_ms=JOINT_TICKS * TICK_MS,
        # One entry less to be counted; `tests.node.test_features` is about it.
        features_max=0,
    )
    return attrs.evolve(usual, **more)


@attrs.define(eq=False)
class Asked:
    """A request, and what came of it."""

    request: Request
    reply: Reply | None = None
    lost: bool = False
    """The server's process ended before it answered."""

    @property
    def open(self) -> bool:
        """Whether an answer may still come."""
        return self.reply is None and not self.lost

    @property
    def error(self) -> ErrorReply:
        """The answer, which has to be an error."""
        assert isinstance(self.reply, ErrorReply), self.reply
        return self.reply


@attrs.define(eq=False)
class _Link:
    """A connection that `source` dialled."""

    source: Server
    target: Server
    process: int
    """Which start of the target's process it leads to."""
    due: int = 0
    """When the last message on it arrives: nothing on it overtakes."""


@attrs.define(eq=False)
class _Contact:
    """A contact under way, as `raftd.network.contacts`."""

    source: Server
    source_process: int
    target: Server
    target_process: int
    token: object
    requests: list[Request]
    deadline: int
    welcome: Welcome | None = None
    ended: bool = False


class Server:
    """One machine: an address, a disk, and perhaps a running node. Also the network of its node."""

    def __init__(self, world: World, name: str, address: str, disk: MemoryDisk | RealDisk) -> None:
        self.world = world
        self.name = name
        self.address = address
        self.disk = disk
        self.power = Power()
        self.node: Node | None = None
        self.state: PoweredState
        self.snapshots: PoweredSnapshots
        self.free_bytes = FREE_BYTES_UNKNOWN
        """What its disk says that it has left."""
        self.file: dict[str, str] = {}
        """What its cluster file says about others: names and addresses."""
        self.version_max = PROTOCOL_VERSION_MAX
        """What it speaks: less for one that is as a server of an older release to the others."""
        self.clock_ahead_ms = 0.0
        """By how much its clock has counted more than the ticks that went by."""
        self.works = True
        """Whether work in the background goes on, a step of each lane in a tick."""
        self.inbox: list[Input] = []
        self.exit: Stop | None = None
        self.process = 0
        self.journal: list[tuple[Any, ...]] = []
        """What the node did to the outside, in order: append, publish, send, reply and so on."""
        self.members: dict[ServerId, str] = {}
        self.links: dict[ServerId, _Link] = {}
        self.problems: dict[ServerId, str] = {}
        self._checker: InvariantChecker | None = None

    def __repr__(self) -> str:
        return self.name

    @property
    def id(self) -> ServerId:
        """The name and incarnation of its disk."""
        return self.disk.identity.server

    @property
    def running(self) -> Node:
        assert self.node is not None, f"{self.name} does not run"
        return self.node

    @property
    def status(self) -> StatusReply:
        return self.running.status()

    @property
    def leads(self) -> bool:
        return self.node is not None and isinstance(self.node.raft.role, Leader)

    def clock_ns(self) -> int:
        """Return what its monotonic clock says."""
        return round((self.world.now * TICK_MS + self.clock_ahead_ms) * 1_000_000)

    # --- power ---

    def start(self, *, keeps_state: bool = False) -> None:
        """Start the process; recovery finds what is durable.

        Args:
            keeps_state: go on with the state of the process that ended, as after a kill -9.
        """
        assert self.node is None
        self.process += 1
        self.exit = None
        self.members, self.links, self.problems, self.inbox = {}, {}, {}, []
        started_ns = self.clock_ns()
        try:
            found = self.disk.open()
            powered = PoweredDisk(self, found)
            store = self.state.store if keeps_state else found.built_state()
            self.state = PoweredState(self, store)
            if self.state.applied_index < found.base_index:
                self.state = PoweredState(self, found.built_state())
            self.snapshots = PoweredSnapshots(self, found, self.state.store)
            self.node = Node(
                identities=powered,
                log=powered,
                found=found,
                snapshots=self.snapshots,
                state=self.state,
                network=self,
                settings=settings(self.address, **self.world.settings),
                random=Random(self.world.random.getrandbits(32)),
                wall_clock_ms=self.world.wall_clock_ms,
                uptime_ns=lambda: self.clock_ns() - started_ns,
                mint_cluster_id=self.world.mint_cluster_id,
                free_bytes=lambda: self.free_bytes,
            )
        except Crash as crash:
            self._lost_power(crash)

    def kill(self, *, keeps_cache: bool = False) -> None:
        """End the process at once, as a loss of power does.

        Args:
            keeps_cache: what was written and not synced stays, as after a kill -9.
        """
        if self.node is not None:
            self._went_down(keeps_cache=keeps_cache)

    def restart(self, *, keeps_state: bool = False) -> None:
        self.kill(keeps_cache=keeps_state)
        self.start(keeps_state=keeps_state)

    def _went_down(self, *, keeps_cache: bool = False) -> None:
        self.node = None
        self.inbox = []
        self.links = {}
        self._checker = None
        self.disk.close()
        if not keeps_cache and isinstance(self.disk, MemoryDisk):
            self.disk.lose_power()
        self.world.process_ended(self)

    def _lost_power(self, crash: Crash) -> None:
        if not isinstance(crash, PowerLost) and not isinstance(self.disk, MemoryDisk):
            # Who brings a disk in memory of its own looks at its crashes itself.
            raise crash
        self._went_down()

    def work(self, *lanes: str) -> None:
        """Do the next step in the background of each of these lanes, or of all."""
        for lane in lanes or ("take", "receive", "remove"):
            if self.node is None:
                return
            try:
                self.snapshots.work(lane)
            except Crash as crash:
                self._lost_power(crash)

    def work_off(self, *lanes: str) -> None:
        """Do all there is to be done in the background, and take in what comes of it."""
        while self.node is not None and any(
            not lanes or lane in lanes for lane, _ in self.snapshots.jobs
        ):
            self.work(*lanes)
        self.turn(tick=False)

    def turn(self, *, tick: bool, count: int | None = None) -> None:
        """Let the node take what is in its inbox, or the first `count` of it."""
        if self.node is None:
            return
        node = self.node
        if count is None:
            count = len(self.inbox)
        batch, self.inbox = self.inbox[:count], self.inbox[count:]
        try:
            node.turn(batch, tick=tick)
        except Crash as crash:
            self._lost_power(crash)
            return
        self.world.saw_leader(self)
        if self.world.checks_invariants:
            if self._checker is None or self._checker._raft is not node.raft:
                self._checker = InvariantChecker(node.raft)
            self._checker.check()
        if node.stop is not None:
            self.exit = node.stop
            self._went_down()

    # --- the network of the node ---

    def send(self, envelopes: Sequence[Envelope]) -> None:
        self.power.step("send")
        for envelope in envelopes:
            self.world.saw_sent(self, envelope)
            self.journal.append(("send", envelope))
            self.world.carry(self, envelope)
        self.power.step("sent")

    def set_members(self, addresses: Mapping[ServerId, str]) -> None:
        for server, address in self.members.items():
            link = self.links.get(server)
            leads_to = link.target.address if link is not None else address
            if addresses.get(server) != leads_to:
                self.links.pop(server, None)
                self.problems.pop(server, None)
        self.members = dict(addresses)
        self.world.members_changed = True

    def close_peer(self, server: ServerId, problem: str) -> None:
        for other in self.world.up():
            link = other.links.get(self.id)
            if other.id == server and link is not None and link.target is self:
                del other.links[self.id]
                other.link_changed(self.id, "closed by the other side")

    def contact(
        self, token: object, address: str, requests: Sequence[Request], timeout_ms: float
    ) -> None:
        self.world.begin_contact(self, token, address, requests, timeout_ms)

    def link_changed(
        self, server: ServerId, problem: str, version: int = 0, address: str = ""
    ) -> None:
        if self.problems.get(server) != problem:
            self.problems[server] = problem
            self.inbox.append(LinkChanged(server, not problem, problem, version, address))


class World:
    """The servers, what is between them, and the clock."""

    def __init__(self, seed: int = 1, *, checks_invariants: bool = True, **more: Any) -> None:
        self.random = Random(seed)
        self.checks_invariants = checks_invariants
        self.settings = more
        """More settings of servers that start from now on."""
        self.now = 0
        self.servers: dict[str, Server] = {}
        """By address."""
        self.shuffled = False
        """Servers take turns in random order, with batches of random size."""
        self.delay_ticks = (0, 0)
        self.loss = 0.0
        self.passes: Callable[[Envelope], bool] = lambda envelope: True
        """Messages for which it is false are lost."""
        self.members_changed = False
        """Somebody has servers to dial that were not known before."""
        self._cut: set[tuple[str, str]] = set()
        self._flying: list[tuple[int, _Link, Server, Envelope]] = []
        self._contacts: list[_Contact] = []
        self._asked: list[tuple[Server, int, Asked]] = []
        self._applied: dict[Index, tuple[Term, EntryKind, bytes]] = {}
        self._leaders: dict[Term, ServerId] = {}
        self._effects: dict[Index, int] = {}
        self._minted = 0
        self._serials: dict[str, int] = {}

    # --- servers ---

    def boot(
        self, name: str, address: str = "", disk: MemoryDisk | RealDisk | None = None
    ) -> Server:
        """Start a server; with a new disk it is blank."""
        address = address or f"{name}:7100"
        self._minted += 1
        server = Server(self, name, address, disk or MemoryDisk(name, f"{self._minted:016x}"))
        previous = self.servers.get(address)
        assert previous is None or previous.node is None, "the port is in use"
        self.servers[address] = server
        server.start()
        return server

    def __getitem__(self, name: str) -> Server:
        """Return the server at the usual address of `name`."""
        return self.servers[f"{name}:7100"]

    def up(self) -> list[Server]:
        """Return the servers that run."""
        return [server for server in self.servers.values() if server.node is not None]

    def mint_cluster_id(self) -> str:
        self._minted += 1
        return f"cluster-{self._minted}"

    def wall_clock_ms(self) -> int:
        return EPOCH_MS + int(self.now * TICK_MS)

    def process_ended(self, server: Server) -> None:
        """Break what led to the process that has just ended."""
        for asked_server, process, asked in self._asked:
            if asked_server is server and process == server.process and asked.open:
                asked.lost = True
        self._asked = [item for item in self._asked if item[2].open]
        for other in self.up():
            for name, link in list(other.links.items()):
                if link.target is server:
                    del other.links[name]
                    other.link_changed(name, "the connection was reset")

    # --- network ---

    def cut(self, *groups: Iterable[str]) -> None:
        """Let messages pass only within each group of names; who is in none is alone."""
        group_of = {name: number for number, names in enumerate(groups) for name in names}
        names = {server.name for server in self.servers.values()}
        self._cut = {
            (a, b)
            for a in names
            for b in names
            if a != b and group_of.get(a, a) != group_of.get(b, b)
        }

    def cut_one_way(self, source: str, target: str) -> None:
        self._cut.add((source, target))

    def heal(self) -> None:
        self._cut.clear()

    def is_cut(self, source: Server, target: Server) -> bool:
        return (source.name, target.name) in self._cut

    def carry(self, source: Server, envelope: Envelope) -> None:
        """Take a message on its way, or lose it."""
        if isinstance(envelope.message, _RESPONSES):
            # Back on the link that the other one dialled.
            links = [
                link
                for server in self.up()
                if server.id == envelope.dest
                for link in [server.links.get(source.id)]
                if link is not None and link.target is source
            ]
            link = links[0] if links else None
            target = link.source if link else None
        else:
            link = source.links.get(envelope.dest)
            target = link.target if link else None
        if link is None or target is None or self.is_cut(source, target):
            return
        if not self.passes(envelope) or (self.loss and self.random.random() < self.loss):
            return
        due = max(link.due, self.now + self.random.randint(*self.delay_ticks))
        link.due = due
        if due <= self.now:
            target.inbox.append(Received(envelope))
        else:
            self._flying.append((due, link, target, envelope))

    def _arrive(self) -> None:
        flying, self._flying = self._flying, []
        for item in flying:
            due, link, target, envelope = item
            if due > self.now:
                self._flying.append(item)
            elif link in link.source.links.values() and target.node is not None:
                target.inbox.append(Received(envelope))

    def _dial(self) -> None:
        self.members_changed = False
        for server in self.up():
            for dest, address in sorted(server.members.items()):
                if dest not in server.links and server.running.our_hello(dest) is not None:
                    also = server.file.get(server_name(dest), address)
                    problems = []
                    for one in dict.fromkeys((address, also)):
                        problem = self._dial_one(server, dest, one)
                        if not problem:
                            break
                        problems.append(f"{problem} at {one}" if also != address else problem)
                    else:
                        server.link_changed(dest, "; ".join(problems))

    def _dial_one(self, source: Server, dest: ServerId, address: str) -> str:
        """Dial; return in words why that has failed, or nothing once the link is up."""
        target = self.servers.get(address)
        hello = source.running.our_hello(dest)
        assert hello is not None
        if target is not None and (self.is_cut(source, target) or self.is_cut(target, source)):
            return "no answer for 2.0 s"
        if target is None or target.node is None:
            return "connection refused"
        hello = attrs.evolve(hello, version_max=source.version_max)
        answer = target.node.admit(hello)
        if target.version_max < hello.version_min:
            answer = Refusal(code="version", message=f"it speaks up to {target.version_max}")
        if isinstance(answer, Welcome) and answer.server == hello.source:
            answer = Refusal(code="identity", message="it is this server itself")
        if isinstance(answer, Refusal):
            if answer.code != "identity":
                source.inbox.append(PeerRefused(dest, answer))
            return f"refused: {answer.message}"
        if answer.server != dest:
            return f"another server answers there: {answer.server}"
        source.links[dest] = _Link(source, target, target.process)
        source.link_changed(dest, "", min(answer.version, target.version_max), address)
        return ""

    def begin_contact(
        self,
        source: Server,
        token: object,
        address: str,
        requests: Sequence[Request],
        timeout_ms: float,
    ) -> None:
        target = self.servers.get(address)
        if target is None or target.node is None:
            source.inbox.append(
                Contacted(
                    token=token,
                    reply=None,
                    welcome=None,
                    problem=f"connecting to {address}: connection refused",
                )
            )
            return
        contact = _Contact(
            source,
            source.process,
            target,
            target.process,
            token,
            list(requests),
            self.now + round(timeout_ms / TICK_MS),
        )
        self._contacts.append(contact)
        if self.is_cut(source, target) or self.is_cut(target, source):
            return
        hello = Hello(role="client", cluster_id="", source="", dest="")
        answer = target.node.admit(hello)
        assert isinstance(answer, Welcome)
        contact.welcome = answer
        self._ask_next(contact)

    def _ask_next(self, contact: _Contact) -> None:
        request = contact.requests.pop(0)

        def respond(reply: Reply) -> None:
            if self.is_cut(contact.target, contact.source):
                return
            if contact.requests and not isinstance(reply, ErrorReply):
                self._ask_next(contact)
            else:
                self._end_contact(contact, reply, "")

        contact.target.inbox.append(Requested(request, respond))

    def _end_contact(self, contact: _Contact, reply: Reply | None, problem: str) -> None:
        if contact.ended:
            return
        contact.ended = True
        source = contact.source
        if source.node is not None and source.process == contact.source_process:
            source.inbox.append(
                Contacted(
                    token=contact.token, reply=reply, welcome=contact.welcome, problem=problem
                )
            )

    def _tend_contacts(self) -> None:
        for contact in self._contacts:
            target = contact.target
            if target.node is None or target.process != contact.target_process:
                self._end_contact(contact, None, f"{target.address}: it closed the connection")
            elif self.now >= contact.deadline:
                self._end_contact(contact, None, f"connecting to {target.address}: no answer")
        self._contacts = [contact for contact in self._contacts if not contact.ended]

    # --- time ---

    def tick(self) -> None:
        """Let one tick pass on every server, and everything that follows from it."""
        self.now += 1
        self._arrive()
        self._dial()
        self._tend_contacts()
        for server in self._in_turn():
            server.turn(tick=True)
            if server.works and not (self.shuffled and self.random.random() < HESITATION):
                server.work()
        self.settle()

    def settle(self) -> None:
        """Let the servers take turns until nothing is left to do before the next tick."""
        for _ in range(SETTLE_ROUNDS_MAX):
            if self.members_changed:
                self._dial()
            busy = [server for server in self._in_turn() if server.inbox]
            if not busy:
                return
            for server in busy:
                count = None
                if self.shuffled:
                    count = self.random.randint(1, max(1, len(server.inbox)))
                server.turn(tick=False, count=count)
        raise AssertionError("the servers talk for ever without a tick")

    def _in_turn(self) -> list[Server]:
        servers = self.up()
        if self.shuffled:
            self.random.shuffle(servers)
        return servers

    def run(self, ticks: int) -> None:
        for _ in range(ticks):
            self.tick()

    def until(self, condition: Callable[[], Any], ticks: int = 200, what: str = "") -> Any:
        """Let time pass until `condition` is true and return it; fail after `ticks`."""
        for _ in range(ticks + 1):
            value = condition()
            if value:
                return value
            self.tick()
        raise AssertionError(f"not within {ticks} ticks: {what or condition}")

    # --- what has to hold always ---

    def saw_sent(self, server: Server, envelope: Envelope) -> None:
        """Assert that the disk of the sender has what the message promises."""
        message, disk = envelope.message, server.disk
        if not isinstance(disk, MemoryDisk):
            return
        durable = disk.durable_hard_state
        assert envelope.source == server.id
        if isinstance(message, PreVote):
            return
        assert message.term <= durable.current_term, f"{message} before its term is durable"
        if message.term < durable.current_term:
            # Of an earlier term, answered in the same batch as what ended that term.
            return
        if isinstance(message, RequestVoteResponse) and message.vote_granted:
            assert durable == HardState(message.term, envelope.dest), "a vote that is not durable"
        if isinstance(message, AppendEntriesResponse) and message.success:
            assert message.match_index <= disk.last_index, "acknowledges too much"
        if isinstance(message, InstallSnapshotResponse):
            assert message.match_index <= disk.last_index, "acknowledges too much"

    def saw_applied(self, server: Server, entry: Entry) -> None:
        """Assert that all servers apply the same entries."""
        known = self._applied.setdefault(entry.index, (entry.term, entry.kind, entry.data))
        assert known == (entry.term, entry.kind, entry.data), f"{server} applies another {entry}"

    def saw_state(self, server: Server, state: StateMachine) -> None:
        """Assert that all servers have made the same of the same entries."""
        known = self._effects.setdefault(state.applied_index, state.effects_hash)
        assert known == state.effects_hash, f"{server} differs after entry {state.applied_index}"

    def saw_leader(self, server: Server) -> None:
        """Assert that a term has one leader."""
        if server.leads:
            term = server.running.raft.current_term
            assert self._leaders.setdefault(term, server.id) == server.id, f"two in term {term}"

    # --- clients ---

    def ask(self, server: Server | str, request: Request) -> Asked:
        """Send a request and let the servers work; no time passes."""
        asked = self.ask_later(server, request)
        self.settle()
        return asked

    def ask_later(self, server: Server | str, request: Request) -> Asked:
        """Put a request into the server's inbox."""
        if isinstance(server, str):
            server = self[server]
        asked = Asked(request)
        if server.node is None:
            asked.lost = True
            return asked
        process, asked_server = server.process, server

        def respond(reply: Reply) -> None:
            assert asked.reply is None, "answered twice"
            assert asked_server.process == process
            assert asked_server.node is not None
            asked_server.power.step("reply")
            asked.reply = reply
            asked_server.journal.append(("reply", request, reply))

        self._asked.append((server, process, asked))
        server.inbox.append(Requested(request, respond))
        return asked

    def call(self, server: Server | str, request: Request, ticks: int = 100) -> Reply:
        """Send a request and let time pass until it is answered."""
        asked = self.ask(server, request)
        self.until(lambda: not asked.open, ticks, f"an answer to {request}")
        assert asked.reply is not None, f"the server ended before it answered {request}"
        return asked.reply

    def serial(self, session: str) -> int:
        """Return the next serial of a session."""
        self._serials[session] = self._serials.get(session, 0) + 1
        return self._serials[session]

    def open_session(self, session: str) -> None:
        reply = self.call(self.leader(), OpenSessionRequest(session=session))
        assert reply == DoneReply(), reply

    def put(self, key: str, value: str = "v", session: str = "s", **more: Any) -> PutRequest:
        """Return the next write of a session."""
        return PutRequest(
            session=session,
            serial=self.serial(session),
            lowest_unacknowledged=0,
            key=key,
            value=value.encode(),
            **more,
        )

    def get(self, key: str, server: Server | None = None, *, stale: bool = False) -> str | None:
        reply = self.call(server or self.leader(), GetRequest(key=key, stale=stale))
        assert isinstance(reply, GetReply), reply
        return reply.value.decode() if reply.found else None

    # --- clusters ---

    def leader(self, ticks: int = 200) -> Server:
        """Wait for a leader that its quorum has confirmed and that is ready for changes."""

        def look() -> Server | None:
            leaders = [
                server
                for server in self.up()
                if server.leads
                and server.running.raft.leader().in_contact_with_quorum()
                and server.running.raft.leader().has_committed_in_term
                and server.state.applied_index >= server.running.raft.leader().term_start
            ]
            return max(leaders, key=lambda server: server.status.term, default=None)

        leader: Server = self.until(look, ticks, "a leader")
        return leader

    def bootstrap(self, name: str = "n1") -> Server:
        """Make a blank server a cluster of one, with the session `s` open."""
        server = self[name] if f"{name}:7100" in self.servers else self.boot(name)
        reply = self.call(
            server,
            BootstrapRequest(
                cluster_name=CLUSTER,
                incarnation=server.disk.identity.incarnation,
                address=server.address,
            ),
        )
        assert isinstance(reply, BootstrapReply), reply
        self.open_session("s")
        return server

    def form(self, count: int, learners: int = 0) -> Server:
        """Form a cluster of `n1`, `n2`, ... with one change; return its leader."""
        names = [f"n{number}" for number in range(1, count + learners + 1)]
        for name in names:
            self.boot(name)
        return self.form_of(*names[:count], learners=names[count:])

    def form_of(self, first: str, *others: str, learners: Sequence[str] = ()) -> Server:
        """Form a cluster of blank servers, as `raftctl init` does; return its leader."""
        server = self.bootstrap(first)
        changes = [new(name) for name in others] + [new(name, "learner") for name in learners]
        if changes:
            record = self.finish(self.started(self.change("init", *changes)))
            assert record.result == "done", record
            # All links are up before the test begins.
            self.run(HEARTBEAT_TICKS)
        return server

    def change(self, kind: str, *changes: MemberChange, **more: Any) -> ChangeRequest:
        """Return the next request for a membership change."""
        return ChangeRequest(
            **{
                "session": "s",
                "serial": self.serial("s") if "serial" not in more else 0,
                "kind": kind,
                "changes": changes,
                "author": "ann",
                "reason": "because",
            }
            | more
        )

    def started(self, request: ChangeRequest, server: Server | None = None) -> str:
        """Ask for a change; return the id of its operation."""
        reply = self.call(server or self.leader(), request)
        assert isinstance(reply, ChangeReply), reply
        assert reply.operation, reply
        return reply.operation

    def finish(self, operation: str, ticks: int = 600) -> Operation:
        """Let time pass until the operation has ended everywhere that leads; return its record."""

        def look() -> Operation | None:
            for server in self.up():
                record = server.state.operation(operation)
                if server.leads and record is not None and not record.running:
                    return record
            return None

        record: Operation = self.until(look, ticks, f"the end of {operation}")
        return record

    def operation_view(self, operation: str, server: Server | None = None) -> OperationView:
        reply = self.call(server or self.leader(), OperationsRequest(operation=operation))
        assert isinstance(reply, OperationsReply), reply
        return reply.operations[0]

    def configuration_of(self, server: Server) -> tuple[set[str], set[str], set[str]]:
        """Return the names of voters, outgoing voters and learners that the server knows."""
        latest = server.running.raft.configuration
        assert latest is not None
        return (
            {member.partition("/")[0] for member in latest.configuration.voters},
            {member.partition("/")[0] for member in latest.configuration.outgoing},
            {member.partition("/")[0] for member in latest.configuration.learners},
        )

    def is_settled(self) -> bool:
        """Whether all members that run have applied all that the leader has."""
        leaders = [server for server in self.up() if server.leads]
        if len(leaders) != 1:
            return False
        latest = leaders[0].running.raft.configuration
        assert latest is not None
        last_index = leaders[0].running.raft.log.last_index
        return all(
            server.state.applied_index == last_index
            for server in self.up()
            if server.id in latest.configuration.members
        )


def new(name: str, role: str = "voter", address: str = "") -> MemberChange:
    """Return the change that brings in a server."""
    return MemberChange(role=role, name=name, address=address or f"{name}:7100")


def drop(name: str) -> MemberChange:
    return MemberChange(role="remove", name=name)


def become(name: str, role: str) -> MemberChange:
    return MemberChange(role=role, name=name)


def readdress(name: str, address: str) -> MemberChange:
    """Return the change that has a member dialled elsewhere."""
    return MemberChange(role="readdress", name=name, address=address)


def is_joint(envelope: Envelope) -> bool:
    """Whether a message carries a C_old,new, other than the one of `form`."""
    return _carries(envelope, b'"kind":"joint"')


def is_final(envelope: Envelope) -> bool:
    """Whether a message carries a C_new, other than the one of `form`."""
    return _carries(envelope, b'"kind":"final"')


def _carries(envelope: Envelope, part: bytes) -> bool:
    message = envelope.message
    return isinstance(message, AppendEntries) and any(
        part in entry.data and b'"operation":"op-1"' not in entry.data
        for entry in message.entries
        if entry.kind is EntryKind.CONFIGURATION
    )
