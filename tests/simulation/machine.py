"""A machine of a simulated run: a disk, a clock, power that may fail, and perhaps a server on it.

The server is production's: identity, log, driver, core and state machine. Between any two things
that it does to the outside its process may be killed or the machine may lose its power; each such
place is a numbered point.

| point | in `raftd.node` |
|---|---|
| 1 | before the messages that need not wait for the disk |
| 2 | between two of them |
| 3 | before the append |
| 4 | between two calls of the file system, in an append, at a publication or at the start |
| 5 | after the append, before the core knows that it is durable |
| 6 | before the messages that had to wait |
| 7 | between two of them |
| 8 | after them |
| 9 | before the state machine applies |
| 10 | after it has applied |
| 11 | before an answer to a client |
| 12 | before an identity is published |
| 13 | after it was published |
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import attrs

from raftd.core.leader import Leader
from raftd.core.messages import Envelope
from raftd.core.raft import Raft
from raftd.core.types import Entry, EntryKind, HardState, ServerId
from raftd.inputs import Input, LinkChanged
from raftd.node import Node
from raftd.protocol import ErrorReply, GetRequest, ListRequest, Reply, Request
from raftd.records import decode_entries, encode_entries
from raftd.storage.files import StorageFault
from raftd.storage.hashed_store import HashedStore
from raftd.storage.identity import DataDirectory, Identity
from raftd.storage.state import Results, StateMachine
from raftd.storage.store import MemoryStore
from raftd.storage.wal import Wal
from raftd.surroundings import Settings
from raftd.trace import Trace
from tests.simulation.disk import SimulatedDisk
from tests.simulation.network import Link, Network
from tests.simulation.profile import MILLISECOND
from tests.simulation.watch import Watch
from tests.simulation.world import World

DATA = Path("/data")
POINTS = 13
AMID_DISK = 4
PUBLISHING = (12, 13)
TURN_US = 50
"""What a turn takes beside the disk."""
RETRY_US = 100 * MILLISECOND
"""A client or a machine that is to try again waits for so long at least."""


class Crash(BaseException):
    """The process ends here. Not an Exception: nothing may handle it."""


@attrs.define
class Durable:
    """What a data directory has certainly kept."""

    hard_state: HardState = attrs.field(factory=HardState)
    entries: list[Entry] = attrs.field(factory=list)

    def append(self, hard_state: HardState | None, entries: Sequence[Entry]) -> None:
        """Note what the log has returned from."""
        if hard_state is not None:
            self.hard_state = hard_state
        if entries:
            del self.entries[entries[0].index - 1 :]
            # By value: what memory changes later is not on the disk.
            self.entries += decode_entries(encode_entries(tuple(entries)))


class _Applying(StateMachine):
    def __init__(self, machine: Machine, store: HashedStore) -> None:
        super().__init__(store)
        self._machine = machine

    def apply(self, entries: Sequence[Entry]) -> Results:
        self._machine.point(9)
        results = super().apply(entries)
        self._machine.watch.tell("applied", self._machine, entries)
        self._machine.point(10)
        return results


class _Storage:
    """The log and the identity of one process, as its node sees them."""

    def __init__(self, machine: Machine, directory: DataDirectory, wal: Wal) -> None:
        self._machine = machine
        self._directory = directory
        self._wal = wal

    @property
    def identity(self) -> Identity:
        return self._directory.identity

    def publish(self, identity: Identity) -> None:
        self._machine.point(12)
        self._directory.publish(identity)
        self._machine.point(13)

    def append(self, hard_state: HardState | None, entries: Sequence[Entry]) -> None:
        machine = self._machine
        machine.point(3)
        machine.appending = (hard_state, tuple(entries))
        self._wal.append(hard_state, entries)
        machine.appending = None
        machine.durable.append(hard_state, entries)
        machine.watch.tell("appended", machine, hard_state, entries)
        machine.on_append(machine, entries)
        machine.point(5)


class Machine:
    """One machine. To its node it is the network; to the invariants, a server."""

    def __init__(
        self,
        name: str,
        *,
        world: World,
        network: Network,
        watch: Watch,
        durable: dict[ServerId, Durable],
        settings: Settings,
    ) -> None:
        self.name = name
        self.address = settings.address
        self.world = world
        self.network = network
        self.watch = watch
        self.disk = SimulatedDisk(world.random(f"disk {name}"), world.profile.sync_us)
        self.disk.on_call = self._on_disk_call
        self.disk.on_fault = lambda fault: world.count(f"fault: {fault}")
        self.node: Node | None = None
        self.state: _Applying
        self.id: ServerId = ""
        self.process = 0
        self.exit = ""
        """Why it does not run: down, removed, or refuses."""
        self.is_damaged = False
        """Its disk has lost something for good, or may have."""
        self.is_held = False
        """Nobody starts it for now."""
        self.clock_rate = 1.0
        self.paused_until_us = 0
        self.members: dict[ServerId, str] = {}
        self.links: dict[ServerId, Link] = {}
        self.appending: tuple[HardState | None, tuple[Entry, ...]] | None = None
        self.on_append: Callable[[Machine, Sequence[Entry]], None] = lambda machine, entries: None
        self.on_elected: Callable[[Machine], None] = lambda machine: None
        self.went_down: Callable[[Machine], None] = lambda machine: None
        self._durable = durable
        self._settings = settings
        self._random = world.random(f"machine {name}")
        self._inbox: list[Input] = []
        self._tick_due = False
        self._turn_scheduled = False
        self._busy_until_us = 0
        self._problems: dict[ServerId, str] = {}
        self._armed_point = 0
        self._armed_after = 0
        self._loses_power = False
        self._is_late = False
        """The next messages of this turn are those that had to wait for the disk."""
        self.drains = False
        """It has been told to stop, and hands leadership over."""
        self._store: HashedStore
        self._trace: Trace
        network.machines[self.address] = self

    def __repr__(self) -> str:
        return self.name

    # --- what invariants look at ---

    @property
    def raft(self) -> Raft:
        assert self.node is not None
        return self.node.raft

    @property
    def durable(self) -> Durable:
        return self._durable[self.id]

    @property
    def state_hash(self) -> int:
        return self._store.state_hash

    @property
    def leads(self) -> bool:
        return self.node is not None and isinstance(self.node.raft.role, Leader)

    @property
    def is_paused(self) -> bool:
        return self.world.now_us < self.paused_until_us

    # --- power ---

    def arm(self, point: int, after: int, *, loses_power: bool) -> None:
        """Let the process end when it comes to a point, the `after`-th time."""
        self._armed_point, self._armed_after, self._loses_power = point, after, loses_power

    def disarm(self) -> None:
        """Let it live."""
        self._armed_point = 0

    def point(self, number: int) -> None:
        """Come to a numbered point; the process may end there."""
        if number == self._armed_point:
            self._armed_after -= 1
            if self._armed_after <= 0:
                self._armed_point = 0
                self.world.count(f"crash at point {number}")
                raise Crash

    def _on_disk_call(self, call: str) -> None:
        self.point(AMID_DISK)

    def start(self) -> None:
        """Start the process on whatever the disk holds."""
        assert self.node is None
        self.process += 1
        self.exit = ""
        self.members, self.links, self._problems, self._inbox = {}, {}, {}, []
        self._tick_due, self._is_late = False, False
        self._busy_until_us = self.world.now_us
        self.disk.lag_us = 0
        self.drains = False
        self.watch.working = self
        try:
            self._recover()
        except Crash:
            self.world.count("crashes in the middle of a start")
            self._end("down", self._loses_power)
        except StorageFault as error:
            self.world.note("refused", server=self.name, why=str(error))
            self._end("refuses", False)

    def _recover(self) -> None:
        world = self.world
        directory = DataDirectory.open(DATA, self.name, self.disk, mint_incarnation=world.mint)
        self.id = directory.identity.server
        self._durable.setdefault(self.id, Durable())
        if directory.identity.removed_index:
            self.watch.tell("removed", self)
            self._end("removed", False)
            return
        wal, recovered = Wal.open(
            directory.wal_path, self.disk, segment_bytes=world.profile.segment_bytes
        )
        if self.appending is not None:
            # The batch that was being written may be there as a whole, or not at all.
            possible = Durable(self.durable.hard_state, list(self.durable.entries))
            possible.append(*self.appending)
            if (recovered.hard_state, list(recovered.entries)) == (
                possible.hard_state,
                possible.entries,
            ):
                self._durable[self.id] = possible
            self.appending = None
        if recovered.cut_bytes:
            world.count("torn batches cut off")
        self._store = HashedStore(MemoryStore())
        self.state = _Applying(self, self._store)
        storage, store, started_us = _Storage(self, directory, wal), self._store, world.now_us
        self._trace = Trace(world.write, lambda: world.now_us, lambda: store.state_hash)
        node = Node(
            identities=storage,
            log=storage,
            hard_state=recovered.hard_state,
            entries=recovered.entries,
            state=self.state,
            network=self,
            settings=self._settings,
            random=world.random(f"elections {self.name} {self.process}"),
            wall_clock_ms=world.wall_clock_ms,
            uptime_ms=lambda: (world.now_us - started_us) // MILLISECOND,
            mint_cluster_id=world.mint,
            trace=self._trace,
        )
        self.node = node
        self.is_damaged = False
        self.watch.tell("started", self)
        world.after(self._tick_us(), self._tick, self.process)

    def stop(self) -> None:
        """Let the process hand leadership over and end, as SIGTERM does."""
        if self.node is not None:
            self.drains = True
            self.node.drain()

    def end(self, *, loses_power: bool) -> None:
        """Kill the process; with the power goes what the disk had not synced."""
        if self.node is not None:
            self._end("down", loses_power)
        elif loses_power:
            self.disk.lose_power()

    def keep_down(self) -> None:
        """Kill the process; nobody starts it again while `is_held`."""
        self.is_held = True
        self.end(loses_power=True)

    def _end(self, why: str, loses_power: bool) -> None:
        was_running = self.node is not None
        if was_running:
            self.watch.tell("ended", self)
            assert self._trace.problem is None, self._trace.problem
        self.world.note("ended", server=self.name, why=why, power=loses_power)
        self.node = None
        self.exit = why
        self._inbox, self.links = [], {}
        self._armed_point = 0
        self.paused_until_us = 0
        if loses_power:
            self.disk.lose_power()
        else:
            self.disk.process_ended()
        self.network.process_ended(self)
        self.went_down(self)

    def wipe(self) -> None:
        """Put an empty disk into a machine that does not run."""
        assert self.node is None
        self.appending = None
        self.disk.empty()
        self.is_damaged = False
        self.id = ""

    # --- time ---

    def _tick_us(self) -> int:
        return round(self.world.profile.tick_us / self.clock_rate)

    def _tick(self, process: int) -> None:
        if self.node is None or self.process != process:
            return
        self._tick_due = True
        self.world.after(self._tick_us(), self._tick, process)
        self._schedule()

    def receive(self, item: Input) -> None:
        """Put something into the inbox."""
        self._inbox.append(item)
        self._schedule()

    def _schedule(self) -> None:
        if not self._turn_scheduled:
            self._turn_scheduled = True
            self.world.at(max(self._busy_until_us, self.paused_until_us), self._turn)

    def _turn(self) -> None:
        """Take in what has come, and do what follows from it."""
        self._turn_scheduled = False
        node = self.node
        if node is None or not (self._inbox or self._tick_due):
            return
        if self.is_paused:
            self._schedule()
            return
        # Usually all of it; sometimes the queue is longer than a batch.
        count = len(self._inbox)
        if count > 1 and self._random.random() < 0.2:
            count = self._random.randint(1, count)
        batch, self._inbox = self._inbox[:count], self._inbox[count:]
        tick = self._tick_due and not self._inbox
        self._tick_due = self._tick_due and not tick
        if tick:
            self.network.dial(self)
        self.disk.lag_us = 0
        self.watch.working = self
        try:
            led = self.leads
            node.turn(batch, tick=tick)
            self.watch.tell("turned", self)
            if self.leads and not led:
                self.on_elected(self)
        except Crash:
            self._end("down", self._loses_power)
            return
        except StorageFault as error:
            self.world.note("storage fault", server=self.name, why=str(error))
            self._end("down", False)
            return
        assert not self._is_late
        self._busy_until_us = self.world.now_us + self.disk.lag_us + TURN_US
        if node.stop is not None:
            self.watch.tell("removed", self)
            self._end("removed", False)
        elif self.drains and node.is_drained:
            self._end("down", False)
        elif self._inbox or self._tick_due:
            self._schedule()

    # --- the network of the node ---

    def send(self, envelopes: Sequence[Envelope]) -> None:
        self.point(6 if self._is_late else 1)
        depart_us = self.world.now_us + self.disk.lag_us
        for number, envelope in enumerate(envelopes):
            if number:
                self.point(7 if self._is_late else 2)
            self.watch.tell("sent", self, envelope)
            self.network.carry(self, envelope, depart_us)
        if self._is_late:
            self.point(8)
        # Each Ready has both kinds, one call each.
        self._is_late = not self._is_late

    def set_members(self, addresses: Mapping[ServerId, str]) -> None:
        for server, address in self.members.items():
            if addresses.get(server) != address:
                self.links.pop(server, None)
                self._problems.pop(server, None)
        self.members = dict(addresses)
        self.world.at(self.world.now_us, self._dial, self.process)

    def _dial(self, process: int) -> None:
        if self.node is not None and self.process == process and not self.is_paused:
            self.network.dial(self)

    def close_peer(self, server: ServerId, problem: str) -> None:
        self.network.close_peer(self, server)

    def contact(
        self, token: object, address: str, requests: Sequence[Request], timeout_ms: float
    ) -> None:
        self.network.contact(self, token, address, requests, timeout_ms)

    def link_changed(self, server: ServerId, problem: str) -> None:
        """Tell the node about one of its links, if that is news."""
        if self._problems.get(server) != problem:
            self._problems[server] = problem
            self.receive(LinkChanged(server, not problem, problem))

    def answering(
        self, request: Request, answered: Callable[[Reply, int], None]
    ) -> Callable[[Reply], None]:
        """Return what a node calls with its answer; each is called once at most."""
        process, called = self.process, []
        is_read = isinstance(request, GetRequest | ListRequest) and not request.stale
        if is_read:
            self.watch.tell("read_arrived", self, called)

        def respond(reply: Reply) -> None:
            assert not called, f"{self.name} answers {request} twice: {called} and {reply}"
            assert self.process == process
            if is_read and not isinstance(reply, ErrorReply):
                self.watch.tell("read_answered", self, called)
            called.append(reply)
            self.point(11)
            answered(reply, self.world.now_us + self.disk.lag_us)

        return respond


def describe(machine: Machine) -> str:
    """Return a line for people."""
    if machine.node is None:
        return f"{machine.id or machine.name} does not run: {machine.exit}"
    status, latest = machine.node.status(), machine.raft.configuration
    operation = json.dumps(status.operation.step) if status.operation else "no operation"
    return (
        f"{machine.id} {status.role} of term {status.term}, {status.applied_index} applied, "
        f"{status.commit_index} committed, {status.last_index} in the log, "
        f"{latest.configuration if latest else 'no configuration'}, {operation}"
    )


def has_configuration(entries: Sequence[Entry]) -> bool:
    """Return whether there is a configuration among the entries."""
    return any(entry.kind is EntryKind.CONFIGURATION for entry in entries)
