"""Everything bad that happens to a simulated cluster, by chance and on purpose."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

from raftd.core.membership import (
    Configuration,
    ConfigurationAt,
    ConfigurationKind,
    decode_configuration,
)
from raftd.core.quorum import majority
from raftd.core.snapshot import SnapshotId
from raftd.core.types import Entry, EntryKind, ServerId
from tests.simulation.durable import Durable
from tests.simulation.machine import (
    AMID_BACKGROUND,
    AMID_DISK,
    INSTALLING,
    POINTS,
    PUBLISHING,
    RETRY_US,
    Machine,
)
from tests.simulation.network import Network
from tests.simulation.operator import Operator
from tests.simulation.profile import HITTING_LEASE, MILLISECOND, MISLEADING, MOVING, UPGRADING
from tests.simulation.world import World

DISK_CALLS = (
    *("write", "write", "sync", "sync", "read", "create", "rename", "sync_directory"),
    *("truncate", "unlink", "make_directory"),
)
DISK_FULL_US = 500 * MILLISECOND
ABSENCE_US = (1_500 * MILLISECOND, 6_000 * MILLISECOND)
OVERTAKING_US = (300 * MILLISECOND, 1_500 * MILLISECOND)
PAUSE_US = (100 * MILLISECOND, 3_000 * MILLISECOND)
MALICE_US = (0, 60 * MILLISECOND)
"""How long after a configuration was written something is aimed at it."""


MALICIOUS = (
    *("kill the leader", "crash at a point", "isolate the leader", "halves apart"),
    *("leader with the new half", "partition", "abort", "transfer", "heard by few", "heal"),
    *("heard by one of the new half", "entry withheld"),
)
"""What can be aimed at a change."""
INSTALL_HITS = ("receiver", "sender", "transfer", "link", "point", *3 * ("overtake",))
"""What can be aimed at an install."""
AT_ONCE = (
    *("heard by few", "heard by one of the new half", "halves apart"),
    *("leader with the new half", "abort", "entry withheld"),
)
"""Before the first message about it has arrived."""
BY_APPEND: dict[str, Sequence[str]] = {
    "lonely-entry": (
        "heard by few",
        *2 * ("heard by one of the new half",),
        *2 * ("entry withheld",),
    ),
    "halves-apart": ("halves apart", "abort", "heal"),
    "leader-with-new-half": ("leader with the new half", "heal"),
}
"""What each tactic prefers when a leader has written a configuration."""
BY_ELECTION: dict[str, Sequence[str]] = {
    "lonely-entry": ("halves apart", "halves apart", "halves apart", "abort"),
    "halves-apart": ("halves apart", "abort", "heard by few"),
    "leader-with-new-half": ("leader with the new half", "heal"),
}
"""And when a leader has been elected that has inherited a change."""


def phase_of(latest: ConfigurationAt | None, commit_index: int, operation_runs: bool) -> str:
    """Return in which phase of a membership change a server is, by its latest configuration."""
    if latest is None:
        return "no configuration"
    if latest.configuration.is_joint:
        # While it is the latest it is uncommitted: C_new is appended in the moment of its commit.
        return "C_old,new"
    if latest.index > commit_index:
        return {
            ConfigurationKind.FINAL: "C_new uncommitted",
            ConfigurationKind.ABORT: "abort uncommitted",
        }.get(latest.entry.kind, "learners uncommitted")
    return "catching up" if operation_runs else "no change"


class Adversary:
    """Injects faults, brings back what it has brought down, and knows when it must not."""

    def __init__(
        self,
        world: World,
        network: Network,
        operator: Operator,
        durable: dict[ServerId, Durable],
        dropped: frozenset[str],
    ) -> None:
        self.is_active = False
        """False while everything is to work: at first, and in the end."""
        self._world = world
        self._network = network
        self._operator = operator
        self._durable = durable
        self._dropped = dropped
        self._random = world.random("adversary")
        self._malicious = world.random("malice")
        self._malice_count = 0
        self._hits: list[tuple[str, Random]] = []
        """What is aimed at the next installs."""
        self._addresses_used: set[str] = set()
        """By machines that may have moved since."""

    # --- scheduled faults ---

    def act(self, kind: str, random: Random) -> None:
        """Inject one fault that has its turn."""
        actions: dict[str, Callable[[Random], None]] = {
            "kill": lambda random: self._kill(random, loses_power=False),
            "stop": self._stop,
            "power-off": lambda random: self._kill(random, loses_power=True),
            "crash-at-point": self._crash_at_point,
            "crash-everybody": self._crash_everybody,
            "pause": self._pause,
            "partition": self._partition,
            "isolate-leader": self._isolate_leader,
            "cut-one-way": self._cut_one_way,
            "moving-partition": self._moving_partition,
            "slow-link": self._slow_link,
            "heal-network": lambda random: self._network.heal(),
            "weather": self._weather,
            "clock-rate": self._clock_rate,
            "disk-fails": self._disk_fails,
            "disk-full": self._disk_full,
            "disk-nearly-full": self._disk_nearly_full,
            "long-absence": self._long_absence,
            "hit-install": self._hit_install,
            "damage-partial": self._damage_partial,
            "bit-flip": self._bit_flip,
            "wipe": self._wipe,
            UPGRADING: self._upgrade,
            MOVING: self._move,
            HITTING_LEASE: self._hit_lease,
            MISLEADING: self._mislead,
        }
        actions[kind](random)

    def _chosen(self, random: Random) -> Machine | None:
        """Return a running machine: often the leader, where most is at stake."""
        up = self._network.up()
        if not up:
            return None
        leader = self._operator.believed_leader()
        return leader if leader is not None and random.random() < 0.4 else random.choice(up)

    def _count(self, fault: str, machine: Machine | None = None) -> None:
        self._world.count(f"fault: {fault}")
        leader = self._operator.believed_leader()
        if leader is not None:
            phase = phase_of(
                leader.raft.configuration,
                leader.raft.log.commit_index,
                leader.state.running_operation is not None,
            )
            self._world.count(f"phase met by a fault: {phase}")
        self._world.note("fault", fault=fault, machine=machine.name if machine else "")

    def _kill(self, random: Random, *, loses_power: bool) -> None:
        machine = self._chosen(random)
        if machine is not None:
            self._count("power off" if loses_power else "kill", machine)
            machine.end(loses_power=loses_power)

    def _stop(self, random: Random) -> None:
        machine = self._chosen(random)
        if machine is not None:
            self._count("orderly stop", machine)
            machine.stop()

    def _crash_at_point(self, random: Random) -> None:
        point = random.randint(1, POINTS)
        machine = self._chosen(random)
        blank = [each for each in self._network.up() if each.raft.configuration is None]
        if point in PUBLISHING and blank:
            # Who belongs to no cluster yet is about to publish an identity.
            machine = random.choice(blank)
        if machine is not None:
            if point in INSTALLING:
                machine = self._receiver(random) or machine
            most = {AMID_DISK: 12, AMID_BACKGROUND: 12, **dict.fromkeys(range(12, POINTS), 1)}.get(
                point, 4
            )
            after = random.randint(1, most)
            down = [each for each in self._machines() if each.exit == "down"]
            if point == AMID_DISK and down and random.random() < 0.5:
                # In the middle of the next start.
                machine = random.choice(down)
            self._count(f"crash armed at point {point}", machine)
            machine.arm(point, after, loses_power=random.random() < 0.6)

    def _receiver(self, random: Random) -> Machine | None:
        """Return somebody who is being sent a snapshot, if there is one."""
        receivers = [m for m in self._network.up() if m.raft.incoming_snapshot is not None]
        return random.choice(receivers) if receivers else None

    def _crash_everybody(self, random: Random) -> None:
        loses_power = random.random() < 0.6
        self._count("everybody crashes")
        for machine in self._network.up():
            machine.end(loses_power=loses_power)

    def _pause(self, random: Random) -> None:
        machine = self._chosen(random)
        if machine is not None:
            self._count("pause", machine)
            machine.paused_until_us = self._world.now_us + random.randint(*PAUSE_US)

    def _upgrade(self, random: Random) -> None:
        """Restart one machine with the newest release, as an operator does or a crash."""
        old = [m for m in self._machines() if m.is_old and not m.is_upgraded_next]
        if not old:
            return
        machine = random.choice(old)
        self._count("upgrade", machine)
        machine.is_upgraded_next = True
        self._restart(machine, random)

    def _move(self, random: Random) -> None:
        """Give a machine another address, perhaps one that another machine has left."""
        machine = random.choice(self._machines())
        taken = {address for m in self._machines() for address in (m.address, m.moves_to)}
        left = sorted(address for address in self._addresses_used if address not in taken)
        self._addresses_used |= taken
        fresh = f"{machine.name}:{7200 + len(self._addresses_used)}"
        self._count("move", machine)
        machine.moves_to = random.choice((fresh, *left))
        self._restart(machine, random)

    def _restart(self, machine: Machine, random: Random) -> None:
        if random.random() < 0.5:
            machine.stop()
        else:
            machine.end(loses_power=random.random() < 0.3)

    def _machines(self) -> list[Machine]:
        return list(self._network.machines.values())

    def _names(self) -> list[str]:
        return [machine.name for machine in self._machines()]

    def _partition(self, random: Random) -> None:
        names = self._names()
        random.shuffle(names)
        at = random.randint(1, len(names) - 1)
        self._count("partition")
        self._network.partition(names[:at], names[at:])

    def _isolate_leader(self, random: Random) -> None:
        leader = self._operator.believed_leader()
        if leader is None:
            return
        others = [name for name in self._names() if name != leader.name]
        random.shuffle(others)
        company = random.choice((0, 0, 1, 2))
        self._count("leader isolated", leader)
        if random.random() < 0.3:
            self._make_late(leader)
        self._network.partition([leader.name, *others[:company]], others[company:])

    def _hit_lease(self, random: Random) -> None:
        """Leave a leader just a majority, then nobody, while the others are about to elect one.

        Those who heard it last have promised not to vote. Often they restart at once, or the clocks
        disagree; and often nobody writes, so that the others have logs to be elected with.
        """
        leader = self._operator.believed_leader()
        latest = leader.raft.configuration if leader is not None else None
        if leader is None or latest is None:
            return
        others = [m for m in self._machines() if m is not leader]
        voters = [m for m in others if m.id in latest.configuration.voters]
        kept = random.sample(voters, majority(len(voters) + 1) - 1)
        self._count("lease hit", leader)
        if random.random() < 0.5:
            self._make_late(leader)
        self._cut_off(leader, [m for m in others if m not in kept])
        self._network.loses_requests = random.random() < 0.5
        restarts, processes = random.random() < 0.6, [m.process for m in kept]

        def leave_alone() -> None:
            if not self.is_active or processes != [m.process for m in kept]:
                return
            self._cut_off(leader, kept)
            for machine in kept if restarts else ():
                machine.end(loses_power=random.random() < 0.3)
                self._world.after(random.randint(1, 30) * MILLISECOND, self.start_again, machine)

        timeout_us = self._world.profile.election_ticks * self._world.profile.tick_us
        self._world.after(round(timeout_us * random.uniform(1.0, 3.0)), leave_alone)
        self._world.after(round(timeout_us * random.uniform(4.0, 6.0)), self._network.heal)

    def _cut_off(self, machine: Machine, others: Sequence[Machine]) -> None:
        names = [(machine.name, other.name) for other in others]
        self._network.cuts |= {*names, *((b, a) for a, b in names)}

    def _mislead(self, random: Random) -> None:
        """Let some or all of the others take a leader for dead that goes on."""
        leader = self._operator.believed_leader()
        if leader is None:
            return
        self._count("leader taken for dead", leader)
        share = random.choice((0.3, 0.7, 1.0))
        for machine in self._network.up():
            if machine is not leader and random.random() < share:
                self._network.mislead(machine, leader)

    def _cut_one_way(self, random: Random) -> None:
        names = self._names()
        self._count("one-way cut")
        for _ in range(random.randint(1, 4)):
            source, target = random.sample(names, 2)
            self._network.cuts.add((source, target))

    def _moving_partition(self, random: Random, rounds: int = 5) -> None:
        """Cut the cluster otherwise again and again, a little after each election."""
        if not self.is_active or rounds == 0:
            return
        self._partition(random)
        delay_us = random.randint(1, 3) * self._world.profile.election_ticks
        self._world.after(
            delay_us * self._world.profile.tick_us, self._moving_partition, random, rounds - 1
        )

    def _slow_link(self, random: Random) -> None:
        names = self._names()
        self._count("slow link")
        source, target = random.sample(names, 2)
        self._network.slow[(source, target)] = random.choice((5, 20, 60))

    def _weather(self, random: Random) -> None:
        self._network.is_bad = not self._network.is_bad
        self._world.note("weather", bad=self._network.is_bad)

    def _clock_rate(self, random: Random) -> None:
        machine = self._chosen(random)
        if machine is not None:
            spread = self._world.profile.clock_spread
            self._count("clock rate changes", machine)
            machine.clock_rate = random.uniform(1 - spread, 1 + spread)

    # --- disks ---

    def _disk_fails(self, random: Random) -> None:
        machine = random.choice(self._machines())
        machine.disk.fails_next = random.choice(DISK_CALLS)

    def _disk_full(self, random: Random) -> None:
        machine = self._chosen(random)
        if machine is None:
            return
        machine.disk.is_full = True
        self._world.after(random.randint(1, 4) * DISK_FULL_US, machine.disk.make_room)

    def _disk_nearly_full(self, random: Random) -> None:
        """Let a disk say for a while that there is too little left."""
        machine = self._chosen(random)
        if machine is None:
            return
        self._count("disk: nearly full", machine)
        reserve = self._world.profile.disk_reserve_bytes
        # Too little for clients, or just for a snapshot.
        machine.disk.free = random.choice((0, reserve // 2, reserve, reserve + 1_000))
        self._world.after(random.randint(1, 6) * DISK_FULL_US, machine.disk.make_room)

    def _long_absence(self, random: Random) -> None:
        """Keep a server away until the others have compacted what it lacks."""
        machine = self._chosen(random)
        if machine is None or machine.is_held:
            return
        self._count("long absence", machine)
        machine.is_held = True
        machine.end(loses_power=random.random() < 0.5)

        def come_back() -> None:
            machine.is_held = False
            self.start_again(machine)

        self._world.after(random.randint(*ABSENCE_US), come_back)

    def _hit_install(self, random: Random) -> None:
        """Do something to the next install, or to one that is under way."""
        act = random.choice(INSTALL_HITS)
        self._hits.append((act, random))
        if act == "overtake":
            # Its victim has a log, and comes back to one that does not reach back to its end.
            self._long_absence(random)

    def on_received(self, receiver: Machine, snapshot: SnapshotId, received_bytes: int) -> None:
        """Hit an install, where a part of the snapshot has just been stored."""
        leader = self._operator.believed_leader()
        if not self.is_active or leader is None or leader is receiver:
            return
        may_be_overtaken = received_bytes == snapshot.size_bytes and self._able_to_feed(receiver)
        suitable = [hit for hit in self._hits if hit[0] != "overtake" or may_be_overtaken]
        if not suitable:
            return
        self._hits.remove(suitable[0])
        act, random = suitable[0]
        process = receiver.process

        def strike() -> None:
            if self.is_active and receiver.process == process and receiver.node is not None:
                self._count(f"install hit: {act}", receiver)
                self._strike_install(act, receiver, leader, random)

        self._world.after(0 if act == "overtake" else random.randint(*MALICE_US), strike)

    def _strike_install(self, act: str, receiver: Machine, leader: Machine, random: Random) -> None:
        loses_power = random.random() < 0.5
        match act:
            case "receiver":
                receiver.end(loses_power=loses_power)
            case "sender":
                leader.end(loses_power=loses_power)
            case "transfer":
                self._operator.act("transfer", random)
            case "link":
                cut = {(leader.name, receiver.name), (receiver.name, leader.name)}
                self._network.cuts |= cut

                def mend() -> None:
                    self._network.cuts -= cut

                self._world.after(random.randint(*PAUSE_US), mend)
            case "point":
                receiver.arm(random.choice(INSTALLING), 1, loses_power=loses_power)
            case "overtake":
                self._overtake(receiver, random)

    def _able_to_feed(self, receiver: Machine) -> list[Machine]:
        """Return whose logs have what the receiver needs instead of a snapshot."""
        last_index = receiver.raft.log.last_index
        return [
            machine
            for machine in self._network.up()
            if machine is not receiver and 0 < machine.raft.log.base_index <= last_index
        ]

    def _overtake(self, receiver: Machine, random: Random) -> None:
        """Hold up an install, so that another leader feeds the receiver from its longer log."""
        held_us = random.randint(*OVERTAKING_US)
        receiver.background_from_us = self._world.now_us + held_us
        able = self._able_to_feed(receiver)
        if able:
            self._operator.transfer(random.choice(able))
        process = receiver.process

        def die() -> None:
            # What it knows to be committed is lost with its memory; what it has received is not,
            # and neither is the log that it has by then.
            if self.is_active and receiver.process == process and random.random() < 0.8:
                receiver.end(loses_power=False)

        self._world.after(held_us - 1, die)

    def _damage_partial(self, random: Random) -> None:
        """Flip a bit in a snapshot that is being received; its receiver fetches it again."""
        receiver = self._receiver(random)
        # It may be verified already, and be published in a moment.
        if receiver is None or not self.may_lose(receiver):
            return
        where = receiver.disk.flip_a_bit(".part")
        if where:
            self._count("bit flip in a part of a snapshot", receiver)
            self._world.note("flipped", machine=receiver.name, where=where)
            if random.random() < 0.5:
                receiver.end(loses_power=False)

    def _bit_flip(self, random: Random) -> None:
        machine = self._chosen(random)
        if machine is not None and self.may_lose(machine):
            where = machine.damage()
            self._count("bit flip", machine)
            self._world.note("flipped", machine=machine.name, where=where)
            machine.end(loses_power=random.random() < 0.5)

    def _wipe(self, random: Random) -> None:
        machine = random.choice(self._machines())
        if self.may_lose(machine):
            self._count("disk wiped", machine)
            machine.end(loses_power=True)
            machine.wipe()

    def may_lose(self, machine: Machine) -> bool:
        """Return whether the cluster survives the loss of this disk, too.

        Safety never depends on it; but a cluster that has lost the disks of a majority for good is
        unavailable for good, and there would be nothing to see in the end.
        """
        present = {
            other.id for other in self._machines() if other is not machine and not other.is_damaged
        }
        return all(_survives(at, present) for at in self._considered())

    def has_lost_a_quorum(self) -> bool:
        """Return whether nobody can lead any more, since disks of a majority are gone for good.

        `may_lose` cannot foresee the change that is asked for right after a loss: a leader believes
        in the lost server for two more heartbeats, and may die before it takes C_old,new back.
        Who has not heard of it could be elected by its own configuration, but not by the votes of
        those whose logs are longer.
        """
        return not any(self._can_be_elected(machine) for machine in self._network.up())

    def _can_be_elected(self, candidate: Machine) -> bool:
        latest, log = candidate.raft.configuration, candidate.raft.log
        if latest is None:
            return False
        supporters = {
            machine.id
            for machine in self._network.up()
            if machine.raft.log.is_up_to_date(log.last_term, log.last_index)
        }
        return _survives(latest.configuration, supporters)

    def _considered(self) -> list[Configuration]:
        """Return every configuration that decides something, or may soon."""
        running = [machine.state.running_operation for machine in self._network.up()]
        planned = [
            Configuration(voters=operation.plan.voters_after) for operation in running if operation
        ]
        settled = max((m.state.configuration_index for m in self._network.up()), default=0)
        return planned + [
            decode_configuration(entry.data).configuration
            for durable in self._durable.values()
            for entry in durable.entries
            if entry.kind is EntryKind.CONFIGURATION and entry.index >= settled
        ]

    # --- bringing back ---

    def went_down(self, machine: Machine) -> None:
        """Let a machine that went down be started again after a while."""
        if machine.exit != "removed":
            mean_us = self._world.profile.downtime_us
            delay_us = RETRY_US + round(self._random.expovariate(1 / mean_us))
            self._world.after(min(delay_us, 5 * mean_us), self.start_again, machine)

    def start_again(self, machine: Machine) -> None:
        """Start a machine; one whose disk is beyond repair gets a new one."""
        if machine.node is not None or machine.exit == "removed" or machine.is_held:
            return
        if machine.exit == "refuses" and machine.is_damaged:
            self._world.count("disks replaced after a refusal")
            machine.wipe()
        machine.start()

    # --- malice ---

    def on_append(self, machine: Machine, entries: Sequence[Entry]) -> None:
        """Aim something at a configuration that a leader has just written."""
        if not self.is_active or not machine.leads:
            return
        for entry in entries:
            if entry.kind is EntryKind.CONFIGURATION:
                self._aim(machine, decode_configuration(entry.data).configuration, BY_APPEND)

    def on_elected(self, machine: Machine) -> None:
        """Aim something at a leader that has inherited a change."""
        latest = machine.raft.configuration
        if not self.is_active or latest is None:
            return
        if latest.configuration.is_joint or latest.index > machine.raft.log.commit_index:
            self._aim(machine, latest.configuration, BY_ELECTION)

    def _aim(
        self, machine: Machine, configuration: Configuration, preferred: dict[str, Sequence[str]]
    ) -> None:
        random = self._malicious
        draw, prefers, delay_us = random.random(), random.random(), random.randint(*MALICE_US)
        own = Random(random.getrandbits(64))
        self._malice_count += 1
        number = f"m{self._malice_count}"
        if draw >= self._world.profile.malice or number in self._dropped:
            return
        favourites = preferred.get(self._world.profile.tactic, ())
        name = own.choice(favourites if favourites and prefers < 0.7 else MALICIOUS)
        if name in AT_ONCE:
            delay_us = 0

        def strike() -> None:
            if self.is_active and machine.node is not None:
                self._count(f"aimed at a change: {name}", machine)
                self._world.note("malice", number=number, act=name)
                self._strike(name, machine, configuration, own)

        self._world.after(delay_us, strike)

    def _strike(
        self, name: str, machine: Machine, configuration: Configuration, random: Random
    ) -> None:
        match name:
            case "kill the leader":
                machine.end(loses_power=True)
            case "crash at a point":
                machine.arm(random.randint(1, POINTS), random.randint(1, 3), loses_power=True)
            case "isolate the leader":
                self._isolate_leader(random)
            case "halves apart":
                self._split(configuration, set())
            case "leader with the new half":
                self._split(configuration, {machine.name})
                self._make_late(machine)
            case "partition":
                self._partition(random)
            case "abort":
                self._operator.act("abort", random)
            case "transfer":
                self._operator.act("transfer", random)
            case "heard by few":
                self._mute(machine, self._names(), random)
            case "heard by one of the new half":
                self._mute(machine, self._new_half(machine, configuration)[:1], random)
            case "entry withheld":
                self._withhold(machine, self._new_half(machine, configuration), random)
            case "heal":
                self._network.heal()

    def _new_half(self, leader: Machine, configuration: Configuration) -> list[str]:
        """Return who would decide without the leader, after the change."""
        return [
            m.name for m in self._machines() if m.id in configuration.voters and m is not leader
        ]

    def _mute(self, machine: Machine, names: Sequence[str], random: Random) -> None:
        """Let only one or two of `names` hear the leader from now on, and let it die soon."""
        others = [name for name in self._names() if name != machine.name]
        choosable = [name for name in names if name != machine.name]
        heard_by = random.sample(choosable, min(random.choice((0, 1, 1, 2)), len(choosable)))
        self._network.cuts |= {(machine.name, other) for other in others if other not in heard_by}
        self._let_die(machine, random.randint(5, 120) * MILLISECOND, random)

    def _withhold(self, machine: Machine, names: Sequence[str], random: Random) -> None:
        """Lose the leader's last entry on its way to all but one, and let the leader die soon.

        All else arrives, so that the others come to know a commit without what followed it.
        """
        latest = machine.raft.configuration
        assert latest is not None
        heard_by = frozenset(random.sample(names, min(1, len(names))))
        self._network.withheld = (latest.index, heard_by)
        heartbeat_us = self._world.profile.heartbeat_ticks * self._world.profile.tick_us
        self._let_die(machine, random.randint(1, 5) * heartbeat_us, random)

    def _let_die(self, machine: Machine, delay_us: int, random: Random) -> None:
        process = machine.process

        def die() -> None:
            if self.is_active and machine.process == process:
                machine.end(loses_power=random.random() < 0.5)
                self._network.heal()

        self._world.after(delay_us, die)

    def _make_late(self, machine: Machine) -> None:
        """Let a leader that is cut off notice it late, and the others elect another one early."""
        spread = self._world.profile.clock_spread
        for other in self._machines():
            other.clock_rate = 1 - spread if other is machine else 1 + spread

    def _split(self, configuration: Configuration, company: set[str]) -> None:
        """Cut the two halves apart, with `company` on the side of the new one."""
        new = company | {
            machine.name
            for machine in self._machines()
            if machine.id in configuration.voters - configuration.outgoing
        }
        self._network.partition(sorted(new), [name for name in self._names() if name not in new])


def _survives(configuration: Configuration, present: set[ServerId]) -> bool:
    return all(
        len(half & present) >= majority(len(half))
        for half in (configuration.voters, configuration.outgoing)
        if half
    )
