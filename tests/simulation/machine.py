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
| 14 | before a snapshot that was taken is published |
| 15 | after it was published, before the log is compacted |
| 16 | before the log gives up what a snapshot has |
| 17 | after it, before the files are removed |
| 18 | before a part of a snapshot is stored |
| 19 | after it, before the leader is told |
| 20 | before a snapshot that was received is published |
| 21 | after it was published, before its state takes the place of the live one |
| 22 | after the states were swapped, before the log follows |
| 23 | after the log was reset, before the state machine follows |
| 24 | after the state machine has followed |
| 25 | between two calls of the file system in the background |
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import attrs

from raftd.compaction import SNAPSHOT_LOG_FACTOR_MAX
from raftd.core.leader import Leader
from raftd.core.log import ENTRY_HEAD_BYTES
from raftd.core.messages import Envelope
from raftd.core.raft import Raft
from raftd.core.snapshot import SnapshotId
from raftd.core.types import Entry, ServerId
from raftd.inputs import DiskFailed, Input, LinkChanged
from raftd.node import Node
from raftd.protocol import (
    PROTOCOL_VERSION_MAX,
    BeginRollingRequest,
    ChangeRequest,
    CheckupRequest,
    ErrorReply,
    GetRequest,
    Hello,
    HistoryRequest,
    ListRequest,
    Refusal,
    Reply,
    Request,
    StatusReply,
    UpdateRollingRequest,
    Welcome,
)
from raftd.recovery import RecoveredLog, recover_log
from raftd.storage.files import StorageFault
from raftd.storage.identity import DataDirectory
from raftd.storage.snapshots import SnapshotDirectory
from raftd.surroundings import Settings
from raftd.trace import Trace
from tests.simulation.disk import SimulatedDisk
from tests.simulation.durable import Durable
from tests.simulation.network import Link, Network
from tests.simulation.profile import MILLISECOND
from tests.simulation.storage import ApplyingState, Snapshots, Storage, live_state
from tests.simulation.watch import Watch
from tests.simulation.world import World
from tests.storage.hashed_store import HashedStore

DATA = Path("/data")
POINTS = 25
AMID_DISK = 4
PUBLISHING = (12, 13)
INSTALLING = (18, 19, 20, 21, 22, 23, 24)
AMID_BACKGROUND = 25
LOG_SLACK_BYTES = 2_000
"""A few of the longest entries: the node goes by their average."""
TURN_US = 50
"""What a turn takes beside the disk."""
OLD_FEATURES = {2: 0, 3: 3}
"""By the version of the protocol that an older release speaks: the features that it knows."""
VERSION_OF_ADMINISTRATION = 3
"""The version whose release moves servers and applies whole wishes."""
LATER_REQUESTS = (HistoryRequest, BeginRollingRequest, UpdateRollingRequest, CheckupRequest)
"""What an older release takes for garbage: it closes the connection."""
RETRY_US = 100 * MILLISECOND
"""A client or a machine that is to try again waits for so long at least."""


class Crash(BaseException):
    """The process ends here. Not an Exception: nothing may handle it."""


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
        committed: list[Entry],
        settings: Settings,
    ) -> None:
        self.name = name
        self.address = settings.address
        self.moves_to = ""
        """Where it will be from its next start on; empty where it is now."""
        self.file_addresses: dict[str, str] = {}
        """Of all servers by name, as its cluster file had them when its process started."""
        self.first_addresses: dict[ServerId, str] = {}
        """Of the members, as the log had them first in this process: the file knows no later ones.
        """
        self.version = PROTOCOL_VERSION_MAX
        """The newest of the protocol that its release speaks."""
        self.is_upgraded_next = False
        """Its next start is one of the newest release."""
        self.world = world
        self.network = network
        self.watch = watch
        self.disk = SimulatedDisk(world.random(f"disk {name}"), world.profile.sync_us)
        self.disk.on_call = self._on_disk_call
        self.disk.on_fault = lambda fault: world.count(f"fault: {fault}")
        self.node: Node | None = None
        self.state: ApplyingState
        self.snapshots: Snapshots
        self.storage: Storage
        self.wal_path = DATA
        self.id: ServerId = ""
        self.process = 0
        self.exit = ""
        """Why it does not run: down, removed, or refuses."""
        self._is_damaged = False
        self.is_held = False
        """Nobody starts it for now."""
        self.may_reconfigure = False
        """A start may find another configuration of leases than the one before."""
        self._started_us = 0.0
        self._clock = (1.0, 0, 0.0)
        """Its rate, since when it has it, and what the clock said then, in microseconds."""
        self.paused_until_us = 0
        self.background_from_us = 0
        """No step in the background happens before."""
        self.members: dict[ServerId, str] = {}
        self.links: dict[ServerId, Link] = {}
        self.answered_at: dict[ServerId, str] = {}
        """Where each server has answered last, to this process."""
        self.committed = committed
        """All that any server has ever applied, from index 1 on."""
        self.on_append: Callable[[Machine, Sequence[Entry]], None] = lambda machine, entries: None
        self.on_received: Callable[[Machine, SnapshotId, int], None] = lambda *arguments: None
        self.on_elected: Callable[[Machine], None] = lambda machine: None
        self.went_down: Callable[[Machine], None] = lambda machine: None
        self._durable = durable
        self._settings = settings
        self._random = world.random(f"machine {name}")
        self._reconfigured = world.random(f"leases of {name}")
        self._inbox: list[Input] = []
        self._tick_due = False
        self._passed_ticks = 0
        """In which nothing was due, and of which the node has not been told."""
        self._turn_scheduled = False
        self._busy_until_us = 0
        self._problems: dict[ServerId, tuple[str, bool]] = {}
        self._armed_point = 0
        self._armed_after = 0
        self._loses_power = False
        self._is_late = False
        """The next messages of this turn are those that had to wait for the disk."""
        self.drains = False
        """It has been told to stop, and hands leadership over."""
        self._attempted: Callable[[Durable], None] | None = None
        """What was being made durable when the process ended: it is there or not."""
        self._survivor: HashedStore | None = None
        """The live state that the process before has left."""
        self._is_in_background = False
        self._trace: Trace
        network.machines[name] = self

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
        store = self.snapshots.store
        assert isinstance(store, HashedStore)
        return store.state_hash

    @property
    def leads(self) -> bool:
        return self.node is not None and isinstance(self.node.raft.role, Leader)

    @property
    def is_damaged(self) -> bool:
        """Whether its disk has lost something for good, or may have.

        A start reads all of the log, but only the ends of a snapshot.
        """
        return self._is_damaged or self.disk.has_damaged_snapshot()

    def damage(self) -> str:
        """Let the disk flip a bit; return where."""
        self._is_damaged = True
        return self.disk.flip_a_bit()

    def lease_is_held(self) -> bool:
        leader = self.raft.role
        return (
            isinstance(leader, Leader)
            and leader.has_committed_in_term
            and leader.reads.lease.remaining_ns(self._uptime_ns()) > 0
        )

    @property
    def is_paused(self) -> bool:
        return self.world.now_us < self.paused_until_us

    def log_is_short(self) -> bool:
        """Return whether a snapshot has what it should have, and the log little beside the rest."""
        log, snapshot = self.raft.log, self.raft.snapshot
        wanted_bytes = self._settings.snapshot_log_bytes
        index = snapshot.id.last_included_index if snapshot is not None else 0
        newest_bytes = snapshot.id.size_bytes if snapshot is not None else 0
        most_bytes = SNAPSHOT_LOG_FACTOR_MAX * wanted_bytes
        sizes = [
            (entry.index, len(entry.data) + ENTRY_HEAD_BYTES)
            for entry in log.entries(log.first_index, log.last_index)
        ]
        kept_bytes = sum(size_bytes for at, size_bytes in sizes if at <= index)
        grown_bytes = sum(size_bytes for at, size_bytes in sizes if at > index)
        return (
            grown_bytes <= max(wanted_bytes, min(newest_bytes, most_bytes)) + LOG_SLACK_BYTES
            and kept_bytes <= most_bytes + LOG_SLACK_BYTES
        )

    def waste(self) -> list[str]:
        """Return the files of log and snapshots that nobody needs."""
        disk, snapshots = self.disk, self.snapshots.directory
        needed = {path.name for path in snapshots._published.values()}
        needed |= self.storage.files_left()
        if snapshots.receiving is not None:
            needed.add(snapshots.received_path(snapshots.receiving).name)
        paths = (self.wal_path, self.wal_path.parent / "snapshots")
        here = [name for path in paths for name in disk.names(path)]
        return [name for name in here if name not in needed]

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
        self.point(AMID_BACKGROUND if self._is_in_background else AMID_DISK)

    def attempt(self, note: Callable[[Durable], None], act: Callable[[], object]) -> None:
        """Make something durable and note it; if the process ends within, it is there or not."""
        self._attempted = note
        act()
        self._attempted = None
        note(self.durable)

    def note_applied(self, entries: Sequence[Entry]) -> None:
        """Remember what is committed, whoever applies it first."""
        self.committed += [entry for entry in entries if entry.index > len(self.committed)]

    def start(self) -> None:
        """Start the process on whatever the disk holds."""
        assert self.node is None
        self.process += 1
        self.exit = ""
        self._reinstall()
        self.members, self.links, self._problems, self._inbox = {}, {}, {}, []
        self.answered_at = {}
        self.first_addresses = {}
        self._tick_due, self._is_late = False, False
        self._passed_ticks = 0
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

    def _reinstall(self) -> None:
        """Do what has waited for a new process: another release, place or cluster file."""
        if self.is_upgraded_next:
            self.version, self.is_upgraded_next = PROTOCOL_VERSION_MAX, False
        self.move()
        self._reconfigure()
        if self.version >= VERSION_OF_ADMINISTRATION:
            machines = self.network.machines.values()
            self.file_addresses = {machine.name: machine.address for machine in machines}

    def use_leases(self, clock_drift: float) -> None:
        """Have this in its configuration from the next start on."""
        self._settings = attrs.evolve(self._settings, reads_by_lease=True, clock_drift=clock_drift)

    def _reconfigure(self) -> None:
        """Perhaps use leases from now on or stop to, or with other time-outs."""
        if self.may_reconfigure and self._reconfigured.random() < 0.3:
            profile = self.world.profile
            shortest = max(3 * profile.heartbeat_ticks, profile.election_ticks // 2)
            ticks = self._reconfigured.randint(shortest, profile.election_ticks)
            self._settings = attrs.evolve(
                self._settings,
                reads_by_lease=self._reconfigured.random() < 0.6,
                clock_drift=profile.clock_drift,
                election_timeout_ms=ticks * profile.tick_us / MILLISECOND,
            )
            self.world.count("starts with another configuration of leases")

    def move(self) -> None:
        """Be where it is to be; only while it does not run."""
        assert self.node is None
        if self.moves_to:
            self.address, self.moves_to = self.moves_to, ""

    @property
    def is_old(self) -> bool:
        """Whether it runs the older release."""
        return self.version in OLD_FEATURES

    def _settings_now(self) -> Settings:
        """Return what its configuration says, for its release and its place."""
        settings = attrs.evolve(self._settings, address=self.address)
        if self.is_old:
            settings = attrs.evolve(
                settings, features_max=OLD_FEATURES[self.version], reads_by_lease=False
            )
        return settings

    def _recover(self) -> None:
        world = self.world
        directory = DataDirectory.open(DATA, self.name, self.disk, mint_incarnation=world.mint)
        self.id = directory.identity.server
        self._durable.setdefault(self.id, Durable())
        if directory.identity.removed_index:
            self.watch.tell("removed", self)
            self._end("removed", False)
            return
        self.wal_path = directory.wal_path
        snapshots = SnapshotDirectory(directory.snapshots_path, self.disk, owner=str(self.process))
        snapshots.open()
        log = recover_log(
            directory.wal_path,
            self.disk,
            snapshots.latest,
            segment_bytes=world.profile.segment_bytes,
        )
        if log.cut_bytes:
            world.count("torn batches cut off")
        self._compare_with_durable(log, snapshots)
        survivor, self._survivor = self._survivor, None
        store = live_state(survivor, snapshots, log, self)
        process, self._started_us = self.process, self.clock_us()
        self.snapshots = Snapshots(
            self, snapshots, store, self.receive, lambda lane: self._work_later(process, lane)
        )
        self.state = ApplyingState(self, store)
        storage = self.storage = Storage(self, directory, log.wal)
        self._trace = Trace(world.write, lambda: world.now_us, lambda: self.state_hash)
        node = Node(
            identities=storage,
            log=storage,
            found=log,
            snapshots=self.snapshots,
            state=self.state,
            network=self,
            settings=self._settings_now(),
            random=world.random(f"elections {self.name} {self.process}"),
            wall_clock_ms=world.wall_clock_ms,
            uptime_ns=self._uptime_ns,
            mint_cluster_id=world.mint,
            free_bytes=lambda: self.disk.free_bytes(DATA),
            trace=self._trace,
        )
        self.node = node
        self._is_damaged = False
        self.watch.tell("started", self)
        world.after(self._tick_us(), self._tick, self.process)

    def _compare_with_durable(self, log: RecoveredLog, snapshots: SnapshotDirectory) -> None:
        """Take note of what has become of that which the process before was about to do."""
        found = (log.hard_state, log.base_index, log.entries, snapshots.latest)
        attempted, self._attempted = self._attempted, None
        if attempted is not None and not self.durable.agrees_with(*found):
            possible = copy.copy(self.durable)
            possible.entries = list(possible.entries)
            attempted(possible)
            if possible.agrees_with(*found):
                self._durable[self.id] = possible
        if self.durable.agrees_with(*found):
            self.durable.base_index = log.base_index

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
            self._survivor = None
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
            # What was applied in whole transactions is there for as long as the kernel runs.
            store = self.snapshots.store
            assert isinstance(store, HashedStore)
            self._survivor = store if self._random.random() < 0.5 else None
        if loses_power:
            self._survivor = None
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
        self._attempted = None
        self._survivor = None
        self.disk.empty()
        self._is_damaged = False
        self.id = ""

    # --- time ---

    @property
    def clock_rate(self) -> float:
        """How much faster than the world's its clock runs."""
        return self._clock[0]

    @clock_rate.setter
    def clock_rate(self, rate: float) -> None:
        self._clock = (rate, self.world.now_us, self.clock_us())

    def clock_us(self) -> float:
        """Return what its clock says; it goes on whatever becomes of the process."""
        rate, since_us, said_us = self._clock
        return said_us + (self.world.now_us - since_us) * rate

    def _uptime_ns(self) -> int:
        return round((self.clock_us() - self._started_us) * 1_000)

    def _tick_us(self) -> int:
        return round(self.world.profile.tick_us / self.clock_rate)

    def _tick(self, process: int) -> None:
        if self.node is None or self.process != process:
            return
        self.world.after(self._tick_us(), self._tick, process)
        if (
            not (self._inbox or self._tick_due or self._turn_scheduled)
            and self._passed_ticks < self.node.quiet_ticks()
        ):
            self._passed_ticks += 1
            return
        self._tick_due = True
        self._schedule()

    def _work_later(self, process: int, lane: str) -> None:
        """Let one more step in the background happen some time; sometimes very late."""
        profile, random = self.world.profile, self._random
        delay_us = random.randint(0, profile.background_us)
        if not self.network.is_calm and random.random() < 0.1:
            delay_us *= 10
        self.world.after(delay_us, self._work, process, lane)

    def _work(self, process: int, lane: str) -> None:
        if self.process != process:
            return
        from_us = max(self.paused_until_us, self.background_from_us)
        if self.world.now_us < from_us:
            self.world.at(from_us, self._work, process, lane)
            return
        if self.node is None:
            return
        self.watch.working = self
        self._is_in_background = True
        lag_us = self.disk.lag_us
        try:
            self.snapshots.work(lane)
        except Crash:
            self._end("down", self._loses_power)
        except StorageFault as error:
            self.receive(DiskFailed(error))
        finally:
            self._is_in_background = False
            self.disk.lag_us = lag_us

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
        if node is None or not (self._inbox or self._tick_due or node.is_behind):
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
            passed_ticks, self._passed_ticks = self._passed_ticks, 0
            node.turn(batch, tick=tick, passed_ticks=passed_ticks)
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
        elif self._inbox or self._tick_due or node.is_behind:
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
            wanted, link = addresses.get(server), self.links.get(server)
            if wanted != address and (link is None or link.address != wanted):
                self.links.pop(server, None)
                self._problems.pop(server, None)
        self.first_addresses = {
            server: self.first_addresses.get(server, address)
            for server, address in addresses.items()
        }
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

    def link_changed(
        self,
        server: ServerId,
        problem: str,
        version: int = 0,
        address: str = "",
        *,
        process_ended: bool = False,
    ) -> None:
        """Tell the node about one of its links, if that is news."""
        if self._problems.get(server) != (problem, process_ended):
            self._problems[server] = (problem, process_ended)
            self.receive(LinkChanged(server, not problem, problem, version, address, process_ended))

    # --- its release ---

    def our_hello(self, server: ServerId) -> Hello | None:
        """Return what its release says when it dials `server`."""
        assert self.node is not None
        hello = self.node.our_hello(server)
        if hello is None or not self.is_old:
            return hello
        return attrs.evolve(hello, version_max=self.version)

    def admit(self, hello: Hello) -> Welcome | Refusal:
        """Return what its release answers to a greeting."""
        assert self.node is not None
        if hello.version_max > self.version:
            # Then the highest common version is the one that this release would find.
            hello = attrs.evolve(hello, version_max=self.version)
        return self.node.admit(hello)

    def understood(self, request: Request) -> Request | None:
        """Return what its release makes of a request; None if it takes it for garbage."""
        if self.version >= VERSION_OF_ADMINISTRATION:
            return request
        if isinstance(request, LATER_REQUESTS):
            return None
        if isinstance(request, ChangeRequest):
            return attrs.evolve(request, target=(), parent="")
        return request

    def answering(
        self, request: Request, answered: Callable[[Reply, int], None]
    ) -> Callable[[Reply], None]:
        """Return what a node calls with its answer; each is called once at most."""
        process, called = self.process, []
        is_read = isinstance(request, GetRequest | ListRequest) and not request.stale
        if is_read:
            self.watch.tell("read_arrived", self, called)

        def respond(reply: Reply) -> None:
            if self.is_old and isinstance(reply, StatusReply):
                reply = attrs.evolve(reply, protocol_version_max=self.version)
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
        f"{latest.configuration if latest else 'no configuration'}, {operation}, log of "
        f"{machine.raft.log.size_bytes} bytes after {machine.raft.log.base_index}, snapshot up to "
        f"{status.snapshot_index}, not needed: {machine.waste()}"
    )
